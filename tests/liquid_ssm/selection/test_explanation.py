from __future__ import annotations

import pytest

from liquid_ssm.certificate import Candidate, Certificate, Domain, Range
from liquid_ssm.selection.explanation import away, covered, duration, explain, numbers, relative, spread


def candidate(name: str, status: str, reason: str = "", **known: object) -> Candidate:
    names = ("error", "bound", "error_over_bound", "seconds", "seconds_min", "seconds_max", "compile_seconds")
    return Candidate(name, status, reason, **{**dict.fromkeys(names), "runs": 0, **known})  # type: ignore[arg-type]


DOMAIN = Domain(
    mode="s4", order=None, correlations=None, window=None, structure="diagonal", dtype="float64", device="cpu",
    arrays="numpy", gradient=False, state=False, batch=(8, 15), n_channels=(1, 1), n_modes=(32, 63),
    length=(1024, 2047), radius=Range(1 - 16.0**-2, 1 - 16.0**-3), drive=Range(0.0625, 1.0),
    dt=Range(16.0**-3, 1.0), tolerance=1e-5,
)  # fmt: skip
TIMED = {"error": 3.14e-7, "bound": 2e-6, "error_over_bound": 0.155, "seconds": 3.1e-3, "seconds_min": 3e-3}
CHOSEN = candidate(
    "numba", "chosen", "the fastest that passed", **TIMED, seconds_max=4.2e-3, runs=7, compile_seconds=1.2
)
OTHERS = (
    candidate("numpy", "passed", "takes 5 times as long as numba", **TIMED, seconds_max=3.1e-3, runs=1),
    candidate(
        "scipy:float32", "refused", "its error is 0.00031 and its bound 0.026; the tolerance 1e-05 asks for less",
        error=3.1e-4, bound=2.6e-2, error_over_bound=0.01,
    ),
    candidate("fft", "refused", "inconclusive: too much amplified", error=3.1e-4, bound=float("inf")),
    candidate("keops", "rejected", "primitive: needs scan"),
)  # fmt: skip
ORACLE = {
    "tiers": "T3, on the first 16 steps confirmed by T1", "coverage": "2 of 8 rows, all 1024 steps", "radius": 1.26e-17,
    "seed": 3, "rows": [5, 7], "channels": [0], "residues": "all", "checks": ["128 other lengths", "states"],
    "margin": 4.0,
}  # fmt: skip
PROBLEM = {
    "batch": 8, "n_channels": 1, "length": 1024, "n_modes": 32, "data": "drawn: a system", "budget": 5.0,
    "seconds": 3.25,
}  # fmt: skip


def certificate(oracle: dict[str, object] = ORACLE, problem: dict[str, object] = PROBLEM) -> Certificate:
    return Certificate("numba", DOMAIN, problem, (CHOSEN, *OTHERS), oracle, {}, "2026-01-02T03:04:05+00:00")


def test_it_says_who_was_chosen_and_why_the_others_were_not() -> None:
    lines = explain(certificate(), new=True).splitlines()
    assert lines[:3] == [
        "numba was chosen for the tolerance 1e-05: the fastest that passed",
        "  error 3.1e-07, bound 2.0e-06, 3.1 ms per call (3 to 4.2 ms in 7 runs), the first call took 1.2 s longer",
        f"certificate {certificate().id}, made now, 2026-01-02T03:04:05+00:00",
    ]
    assert lines[3:8] == [
        "Why none of the others:",
        "  numpy: passed: takes 5 times as long as numba (error 3.1e-07, bound 2.0e-06, 3.1 ms per call (1 run))",
        # Its own reason has the numbers already.
        "  scipy:float32: refused: its error is 0.00031 and its bound 0.026; the tolerance 1e-05 asks for less",
        "  fft: refused: inconclusive: too much amplified (error 3.1e-04, bound inf)",
        "  keops: rejected: primitive: needs scan",
    ]


def test_it_says_why_other_certificates_were_not_used() -> None:
    assert "not used" not in explain(certificate(), new=True)
    text = explain(certificate(), new=False, reasons=["certificate 1: numba was 0.60 and is 0.61"])
    assert "Why other certificates on disk were not used:\n  certificate 1: numba was 0.60 and is 0.61\n" in text
    assert ", read from disk, made 2026-01-02T03:04:05+00:00\n" in text


def test_it_says_what_is_covered_and_how_it_was_verified() -> None:
    lines = explain(certificate(), new=False).splitlines()
    start = lines.index("What it covers, which is every call with:") + 1
    middle = lines.index("How it was verified:")
    assert lines[start:middle] == [f"  {name}: {value}" for name, value in covered(DOMAIN)]
    assert lines[middle + 1 :] == [
        "  reference: T3, on the first 16 steps confirmed by T1",
        "  compared: 2 of 8 rows, all 1024 steps",
        "  seed: 3",
        "  rows: 5, 7",
        "  channels: 0",
        "  reference's own error: at most 1.3e-17, which counts as the backend's",
        "  lengths: all that are covered, by one of each remainder modulo 128",
        "  also: 128 other lengths; states",
        "  margin: a bound below the tolerance, or an error 4 times below it",
        "  problem: 8 x 1 x 1024 (batch x channels x length), 32 modes per channel",
        "  data: drawn: a system",
        "  time: 3.25 s, with a budget of 5 s",
    ]


def test_certificates_of_other_versions_are_printed_as_they_are() -> None:
    text = explain(certificate({"residues": [0, 5], "new thing": 1.5}, {"shape": [1, 2]}), new=False)
    assert "  lengths: those whose remainder modulo 128 is 0, 5\n" in text
    assert "  new thing: 1.5\n  problem: shape 1, 2" in text


def test_what_is_covered_has_rounded_numbers() -> None:
    said = dict(covered(DOMAIN))
    assert said["largest |a|"] == "1 - 0.0039 to 1 - 0.00024"
    assert said["largest |b u|"] == "0.0625 to 1"
    assert said["step size"] == "0.000244 to 1 [time]"
    assert said["length"] == "1,024 to 2,047"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (Range(0.0, 0.5), "0 to 0.5"),
        (Range(0.5, 1 - 2.0**-30), "0.5 to 1 - 9.3e-10"),
        (Range(1.0, 1.0), "1"),
        (Range(1 + 1e-6, 1.05), "1 + 1e-06 to 1 + 0.05"),
        (Range(1.2, 3.0), "1.2 to 3"),
    ],
)
def test_the_largest_transition_is_told_by_its_distance_from_one(values: Range, said: str) -> None:
    assert away(values) == said


def test_numbers_have_suitable_units() -> None:
    assert [duration(x) for x in (None, 0.0, 2.5e-7, 1.234e-5, 0.99951e-3, 0.5, 90.0)] == [
        "-", "0 µs", "0.25 µs", "12.3 µs", "1 ms", "500 ms", "90 s",
    ]  # fmt: skip
    assert [relative(x) for x in (None, 0.0, 1.25e-7, float("inf"))] == ["-", "0", "1.2e-07", "inf"]
    assert numbers(OTHERS[3]) == "nothing was measured"
    assert spread(CHOSEN) == "3 to 4.2 ms"
    assert spread(OTHERS[0]) == spread(OTHERS[3]) == "-"
