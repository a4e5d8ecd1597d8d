"""The targets: met, not met and not measured, each for a run made up so that it is known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from liquid_ssm.bench.kernels import CAUCHY, PLAIN, VANDERMONDE, kernel_slots
from liquid_ssm.bench.latency import LOOP, PYTHON, SHAPE, Latency
from liquid_ssm.bench.limits import Limits
from liquid_ssm.bench.memory import KERNEL, Peak
from liquid_ssm.bench.rivals import WITH_KERNEL
from liquid_ssm.bench.rows import Row, backend_row, together
from liquid_ssm.bench.shapes import LENGTHS, ROWS, WORK, WORK_1, WORK_SMALL_STATE, Shape
from liquid_ssm.bench.startup import StartUp
from liquid_ssm.bench.targets import KERNEL_MEMORY, MEMORY, Measured, Missing, evaluate, slope
from liquid_ssm.bench.work import BACKWARD, BOTH, FORWARD, slots
from liquid_ssm.problem import ModeSpec
from liquid_ssm.timing import Timing

RATE = 1e11
LIMITS = Limits(2, RATE, RATE, 1e12)
LIQUID, S4 = ModeSpec("liquid"), ModeSpec("s4")
IDS = ["1a", "1b", "1c", "2a", "2b", "3", "4a", "4b", "4c", "5a", "5b", "5c", "6", "7a", "7b", "8a", "8b", "9a", "9b"]
IDS += ["11a", "11b", "11c", "11d"]


def seconds(value: float) -> Timing:
    return Timing(value, value, value, 7)


def run(
    fraction: float = 0.8, ratio: float = 1.0, convolution: float = 10.0, memory: float = 0.5, exponent: float = 1.0
) -> Measured:
    """A run that reaches `fraction` of the limit everywhere, whose other figures follow from the other arguments."""

    def at_limit(spec, direction, shape, slower=1.0):
        time = slower * slots(spec, direction, shape) / RATE / fraction
        return backend_row("numba", spec, direction, "float32", shape, seconds=seconds(time)).against(LIMITS)

    one = at_limit(LIQUID, FORWARD, WORK).seconds.median
    rows = []
    for shape in (WORK, WORK_1, WORK_SMALL_STATE):
        forward, backward = (at_limit(LIQUID, direction, shape) for direction in (FORWARD, BACKWARD))
        rows += [forward, backward, together(forward, backward, LIQUID).against(LIMITS)]
    rows.append(backend_row("numba", S4, FORWARD, "float32", WORK, seconds=seconds(one)))
    for spec in (ModeSpec("truncated", 3), ModeSpec("pb", 3), ModeSpec("kb", 3, "adjacent")):
        rows.append(backend_row("numba", spec, FORWARD, "float32", WORK, seconds=seconds(ratio * one)))
    rows += [
        Row("scipy.fft, 2^k", "rival", "s4", FORWARD, "float32", WORK, seconds(convolution * one)),
        Row(WITH_KERNEL.name, "rival", "s4", FORWARD, "float32", WORK, seconds(convolution * one)),
    ]
    for shape in (*LENGTHS, *(s for s in ROWS if s.rows >= 64)):
        work = shape.length**exponent if shape in LENGTHS else shape.rows**exponent
        rows.append(backend_row("numba", LIQUID, FORWARD, "float32", shape, seconds=seconds(1e-6 * work)))
    vandermonde = Row("numba", "backend", "kernel, diagonal", FORWARD, "float32", VANDERMONDE)
    work = kernel_slots("diagonal", VANDERMONDE)
    kernels = [
        replace(vandermonde, seconds=seconds(work / RATE / fraction), slots=work, traffic=0.0).against(LIMITS),
        Row("numba", "backend", "kernel, dplr", FORWARD, "float32", CAUCHY, seconds(1.0)),
        Row(PLAIN, "rival", "kernel, dplr", FORWARD, "float32", CAUCHY, seconds(convolution)),
    ]
    peaks = [Peak("numba", "liquid", BOTH, "float32", s, 2**31, 0, 0, 0) for s in MEMORY]
    peaks = [replace(p, added=int(memory * p.allowed)) for p in peaks]
    for s in KERNEL_MEMORY:
        per_entry = 40 if s.n_state == 64 or memory < 1 else 40 * 4
        peaks.append(Peak("numba", "kernel, dplr", KERNEL, "float32", s, 2**31, per_entry * s.length, 0, 0))
    steps = [
        Latency("numba", "liquid", PYTHON, "float32", SHAPE, seconds(30e-6 / fraction)),
        Latency("numba", "liquid", LOOP, "float32", SHAPE, seconds(5e-6 / fraction)),
    ]
    start = StartUp(0.02 / fraction, () if memory < 1 else ("scipy",), 5 / fraction, 0.5 / fraction, 1.0, 1.0)
    return Measured(rows, kernels, peaks, steps, start)


def by_id(measured: Measured):
    return {target.id: target for target in evaluate(measured)}


def test_a_good_run_meets_every_target():
    found = by_id(run())
    assert list(found) == IDS
    assert {key: t.met for key, t in found.items() if not t.met} == {}
    assert all(t.figure and not t.reason for t in found.values())


def test_a_bad_run_meets_none():
    found = by_id(run(fraction=0.1, ratio=3.0, convolution=1.0, memory=1.5, exponent=1.2))
    # Forward and backward are as far from the limit as each other, and the process stays below 4 GiB.
    assert {key for key, t in found.items() if t.met} == {"2b", "7b"}
    assert all(t.met is not None for t in found.values())


@pytest.mark.parametrize(
    ("number", "just", "short"),
    [
        ("1a", {"fraction": 0.651}, {"fraction": 0.649}),
        ("1c", {"fraction": 0.501}, {"fraction": 0.499}),
        ("2a", {"fraction": 0.401}, {"fraction": 0.399}),
        ("3", {"fraction": 0.251}, {"fraction": 0.249}),
        ("5a", {"fraction": 0.501}, {"fraction": 0.499}),
        ("1b", {"convolution": 2.01}, {"convolution": 1.99}),
        ("6", {"convolution": 2.01}, {"convolution": 1.99}),
        ("4a", {"ratio": 2.49}, {"ratio": 2.51}),
        ("4b", {"ratio": 1.29}, {"ratio": 1.31}),
        ("4c", {"ratio": 2.19}, {"ratio": 2.21}),
        ("7a", {"memory": 0.99}, {"memory": 1.01}),
        ("8a", {"exponent": 1.049}, {"exponent": 1.051}),
        ("8b", {"exponent": 0.951}, {"exponent": 0.949}),
        ("9a", {"fraction": 0.501}, {"fraction": 0.499}),
        ("9b", {"fraction": 0.501}, {"fraction": 0.499}),
        ("11a", {"fraction": 0.401}, {"fraction": 0.399}),
        ("11c", {"fraction": 0.34}, {"fraction": 0.33}),
        ("11d", {"fraction": 0.501}, {"fraction": 0.499}),
    ],
)
def test_the_limit_is_where_the_target_says(number, just, short):
    assert by_id(run(**just))[number].met is True
    assert by_id(run(**short))[number].met is False


def test_memory_of_the_whole_process():
    good = run()
    large = [replace(p, whole=4 * 2**30 + 1) for p in good.peaks]
    assert by_id(replace(good, peaks=large))["7b"].met is False


def test_one_length_beyond_its_memory_is_enough():
    good = run()
    worse = [replace(p, added=int(1.5 * p.allowed)) if p.shape == MEMORY[1] else p for p in good.peaks]
    assert by_id(replace(good, peaks=worse))["7a"].met is False


def test_the_fastest_convolution_counts_torch_included():
    good = run()
    faster = Row("torch.fft, 2^k", "rival", "s4", FORWARD, "float32", WORK, seconds(1e-9))
    target = by_id(replace(good, rows=[*good.rows, faster]))["1b"]
    assert target.met is False
    assert target.figure.endswith("torch.fft, 2^k")


def test_without_rows_everything_is_not_measured_with_a_reason():
    found = by_id(Measured([], [], [], [], None))
    assert list(found) == IDS
    assert all(t.met is None and t.reason and not t.figure for t in found.values())


def test_the_reason_of_a_row_is_that_of_its_target():
    row = backend_row("numba", LIQUID, FORWARD, "float32", WORK, reason="needs numba: pip install numba")
    assert "pip install numba" in by_id(Measured([row], [], [], [], None))["1a"].reason


def test_unknown_limits_are_a_reason():
    row = backend_row("numba", LIQUID, FORWARD, "float32", WORK, seconds=seconds(1.0))
    assert by_id(Measured([row], [], [], [], None, "needs numba"))["1a"].reason == "needs numba"


def test_a_nan_is_not_a_pass():
    good = run()
    steps = [replace(s, seconds=seconds(float("nan"))) for s in good.steps]
    assert by_id(replace(good, steps=steps))["9a"].met is False


def test_slope():
    assert slope([(x, 3 * x**1.5) for x in (1, 2, 8, 100)]) == pytest.approx(1.5)


def test_a_missing_row_is_named():
    with pytest.raises(Missing, match="no row of numba, liquid, forward at 1 x 1 x 3, N 2"):
        Measured([], [], [], [], None).row("numba", "liquid", FORWARD, Shape(1, 1, 2, 3))
