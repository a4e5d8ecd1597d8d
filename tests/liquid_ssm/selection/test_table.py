from __future__ import annotations

from liquid_ssm.certificate import Candidate
from liquid_ssm.selection.table import table

REASON = "takes some words that say why it is slower, and a-name-that-is-long which must stay whole, to the last word"
CANDIDATES = (
    Candidate("numba", "chosen", "the fastest that passed", 3.1e-7, 2e-6, 0.155, 3.1e-3, 3e-3, 4.2e-3, 7, 1.25),
    Candidate("numpy", "passed", REASON, 0.0, 2e-6, 0.0, 1.5, 1.5, 1.5, 1, 1e-3),
    Candidate("scipy", "refused", REASON, 3.1e-4, float("inf"), 2.0, None, None, None, 0, None),
    Candidate("keops", "rejected", REASON, None, None, None, None, None, None, 0, None),
)


def test_every_candidate_has_its_numbers_and_its_whole_reason() -> None:
    lines = list(table(CANDIDATES))
    assert [" ".join(line.split()) for line, _ in lines][:4] == [
        "candidate status error bound /bound time spread compile",
        "--------- -------- ------- ------- ------- ------ ----------- -------",
        "numba chosen 3.1e-07 2.0e-06 1.5e-01 3.1 ms 3 to 4.2 ms 1.25 s",
        "the fastest that passed",
    ]
    text = [" ".join(line.split()) for line, _ in lines]
    assert "numpy passed 0 2.0e-06 0 1.5 s - -" in text
    assert "scipy refused 3.1e-04 inf 2.0e+00 - - -" in text
    assert " ".join(text).count(REASON) == 3
    assert [status for _, status in lines if status] == sorted(
        (status for _, status in lines if status), key=[c.status for c in CANDIDATES].index
    )


def test_who_was_not_measured_has_its_reason_in_the_place_of_numbers() -> None:
    [first, *_] = [line for line, status in table(CANDIDATES) if status == "rejected"]
    assert first.startswith("keops      rejected  takes some words")


def test_reasons_are_wrapped_to_the_page() -> None:
    for width in (30, 60, 80, 120):
        lines = [line for line, status in table(CANDIDATES, width) if status]
        assert " ".join(" ".join(lines).split()).count(REASON) == 3
        numbers = max(len(line) for line in lines if "e-0" in line)
        assert max(map(len, lines)) <= max(width, numbers, 21 + 24)


def test_columns_are_left_out_where_the_page_is_narrow() -> None:
    def headers(width: int | None) -> list[str]:
        return next(table(CANDIDATES, width))[0].split()

    everything = ["candidate", "status", "error", "bound", "/bound", "time", "spread", "compile"]
    full = len(next(table(CANDIDATES))[0])
    assert headers(None) == headers(full) == everything
    assert headers(full - 1) == everything[:-1]
    assert headers(20) == everything[:-2]
    assert list(table(CANDIDATES, 20))[-1][0].startswith("left out on a page this narrow: spread and compile;")
    assert "left out" not in list(table(CANDIDATES))[-1][0]
