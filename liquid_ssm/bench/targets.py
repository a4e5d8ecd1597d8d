"""The targets of the compiled backend, each with the figure that a run reached."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from .kernels import CAUCHY, PLAIN, VANDERMONDE
from .latency import LOOP, PYTHON, Latency
from .limits import COMPILED
from .memory import KERNEL, Peak
from .rivals import CONVOLUTIONS, TORCH_CONVOLUTION, WITH_KERNEL
from .rows import Row
from .shapes import LENGTHS, ROWS, WORK, WORK_1, WORK_SMALL_STATE, Shape
from .startup import StartUp
from .work import BACKWARD, BOTH, FORWARD

# Shapes whose peak memory is measured: 64 rows, at three lengths; the last is the 4 GiB of target 7.
MEMORY = (Shape(1, 64, 64, 2**14), Shape(1, 64, 64, 2**16), Shape(1, 64, 64, 2**20))
MEMORY_LIMIT = 4 * 2**30
# The kernel's memory at two lengths and two state sizes: O(N + L) means that the slope in L does not grow with N.
KERNEL_MEMORY = tuple(Shape(1, 1, n, length) for n in (64, 256) for length in (2**18, 2**20))
# Below this many rows the cores are not used in the same way, and a call's fixed cost shows.
LEAST_ROWS = 64


@dataclass(frozen=True)
class Target:
    """One target.

    Attributes:
        id: number of the target and a letter for each of its parts.
        statement: what is compared.
        limit: what the figure must reach, in words.
        figure: what it is in this run, in words; empty where it was not measured.
        value: the same as a number.
        met: None where it was not measured.
        reason: why not, else empty.
    """

    id: str
    statement: str
    limit: str
    figure: str = ""
    value: float | None = None
    met: bool | None = None
    reason: str = ""


class Missing(Exception):
    """A figure needs a row that the run does not have."""


@dataclass(frozen=True)
class Measured:
    """The rows of a run, by what they are about."""

    rows: Sequence[Row]
    kernels: Sequence[Row]
    peaks: Sequence[Peak]
    steps: Sequence[Latency]
    start_up: StartUp | None
    limits_reason: str = ""
    dtype: str = "float32"

    def row(self, subject: str, mode: str, direction: str, shape: Shape) -> Row:
        """That row.

        Raises:
            Missing: there is none with a time; the message says why.
        """
        found = [
            row
            for row in (*self.rows, *self.kernels)
            if (row.subject, row.mode, row.direction, row.shape) == (subject, mode, direction, shape)
        ]
        if not found:
            raise Missing(f"no row of {subject}, {mode}, {direction} at {shape.label}")
        if found[0].seconds is None:
            raise Missing(f"{subject}, {mode}, {direction}: {found[0].reason}")
        return found[0]

    def seconds(self, subject: str, mode: str, direction: str, shape: Shape) -> float:
        timing = self.row(subject, mode, direction, shape).seconds
        assert timing is not None
        return timing.median

    def fma_fraction(self, mode: str, direction: str, shape: Shape) -> float:
        row = self.row(COMPILED, mode, direction, shape)
        if row.fma_fraction is None:
            raise Missing(self.limits_reason or "the limits were not measured")
        return row.fma_fraction

    def fastest(self, names: Iterable[str], shape: Shape) -> tuple[str, float]:
        """Name and seconds of the fastest of the convolutions that were measured."""
        found = []
        for name in names:
            try:
                found.append((self.seconds(name, "s4", FORWARD, shape), name))
            except Missing:
                continue
        if not found:
            raise Missing(f"no FFT convolution at {shape.label} was measured")
        seconds, name = min(found)
        return name, seconds

    def peak(self, computed: str, shape: Shape, mode: str = "liquid") -> Peak:
        found = [p for p in self.peaks if (p.computed, p.shape, p.mode) == (computed, shape, mode)]
        if not found or found[0].added is None:
            raise Missing(found[0].reason if found else f"no peak of {computed} at {shape.label}")
        return found[0]

    def step(self, called: str) -> float:
        found = [s for s in self.steps if (s.subject, s.mode, s.called) == (COMPILED, "liquid", called)]
        if not found or found[0].seconds is None:
            raise Missing(found[0].reason if found else f"no step {called} was measured")
        return found[0].seconds.median


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Least-squares slope of log y over log x."""
    xs, ys = [math.log(x) for x, _ in points], [math.log(y) for _, y in points]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / sum((x - mean_x) ** 2 for x in xs)


Figure = tuple[float, str]  # a number, and how it reads


def evaluate(measured: Measured) -> tuple[Target, ...]:
    """Every target with its figure; one that was not measured has `met` None and the reason."""
    m = measured
    convolutions = [rival.name for rival in (*CONVOLUTIONS, TORCH_CONVOLUTION)]

    def percent(value: float) -> Figure:
        return value, f"{100 * value:.0f} %"

    def times(value: float) -> Figure:
        return value, f"{value:.2f} x"

    def at_limit(mode: str, direction: str, shape: Shape) -> Callable[[], Figure]:
        return lambda: percent(m.fma_fraction(mode, direction, shape))

    def ratio(above: tuple[str, str], below: tuple[str, str]) -> Callable[[], Figure]:
        """Two (mode, direction) of the compiled backend on W."""
        return lambda: times(m.seconds(COMPILED, *above, WORK) / m.seconds(COMPILED, *below, WORK))

    def against_convolution() -> Figure:
        name, seconds = m.fastest(convolutions, WORK)
        value = m.seconds(COMPILED, "liquid", FORWARD, WORK) / seconds
        return value, f"{value:.2f} x {name}"

    def small_state() -> Figure:
        row = m.row(COMPILED, "liquid", FORWARD, WORK_SMALL_STATE)
        value = m.fma_fraction("liquid", FORWARD, WORK_SMALL_STATE)
        return value, f"{100 * value:.0f} % of the FMA limit, {100 * (row.copy_fraction or 0):.0f} % of the copy limit"

    def kernel_fraction() -> Figure:
        return percent(m.fma_fraction("kernel, diagonal", FORWARD, VANDERMONDE))

    def cauchy() -> Figure:
        plain = m.seconds(PLAIN, "kernel, dplr", FORWARD, CAUCHY)
        return times(plain / m.seconds(COMPILED, "kernel, dplr", FORWARD, CAUCHY))

    def cauchy_memory() -> Figure:
        found = {}
        for n in (64, 256):
            low, high = (m.peak(KERNEL, s, "kernel, dplr") for s in KERNEL_MEMORY if s.n_state == n)
            found[n] = ((high.added or 0) - (low.added or 0)) / (high.shape.length - low.shape.length)
        value = found[256] / found[64] if found[64] > 0 else math.inf
        return value, f"{value:.2f} x: {found[64]:.0f} bytes per entry at N 64, {found[256]:.0f} at N 256"

    def linear() -> Figure:
        # The scipy backend is itself a way of computing the kernel and convolving.
        ways = [WITH_KERNEL.name, "scipy"]
        name, seconds = m.fastest(ways, WORK)
        value = seconds / m.seconds(COMPILED, "s4", FORWARD, WORK)
        return value, f"{value:.2f} x faster than {name}"

    def memory() -> Figure:
        parts = []
        for shape in MEMORY:
            peak = m.peak(BOTH, shape)
            parts.append((peak.beyond or 0) / peak.allowed)
        value = max(parts)
        shown = ", ".join(f"{p:.2f} at L {s.length}" for p, s in zip(parts, MEMORY, strict=True))
        return value, f"{shown} (of what is allowed)"

    def whole() -> Figure:
        peak = m.peak(BOTH, MEMORY[-1])
        return float(peak.whole or 0), f"{(peak.whole or 0) / 2**30:.2f} GiB"

    def over_length() -> Figure:
        value = slope([(s.length, m.seconds(COMPILED, "liquid", FORWARD, s)) for s in LENGTHS])
        return value, f"{value:.3f}"

    def over_rows() -> Figure:
        shapes = [s for s in ROWS if s.rows >= LEAST_ROWS]
        value = slope([(s.rows, m.seconds(COMPILED, "liquid", FORWARD, s)) for s in shapes])
        return value, f"{value:.3f}"

    def step(called: str) -> Callable[[], Figure]:
        def figure() -> Figure:
            seconds = m.step(called)
            return seconds, f"{1e6 * seconds:.1f} us"

        return figure

    def start(attribute: str) -> Callable[[], Figure]:
        def figure() -> Figure:
            seconds = None if m.start_up is None else getattr(m.start_up, attribute)
            if seconds is None:
                raise Missing(m.start_up.reason if m.start_up is not None else "the start was not measured")
            return seconds, f"{seconds:.3f} s"

        return figure

    def loaded() -> Figure:
        if m.start_up is None:
            raise Missing("the start was not measured")
        names = m.start_up.loaded
        return float(len(names)), ", ".join(names) or "none"

    def least(value: float) -> Callable[[float], bool]:
        return lambda figure: figure >= value

    def most(value: float) -> Callable[[float], bool]:
        return lambda figure: figure <= value

    def one(figure: float) -> bool:
        return abs(figure - 1) <= 0.05

    liquid, s4 = ("liquid", FORWARD), ("s4", FORWARD)
    fma = "of the FMA limit"
    definitions: list[tuple[str, str, str, Callable[[], Figure], Callable[[float], bool]]] = [
        ("1a", "liquid forward on W", f">= 65 % {fma}", at_limit(*liquid, WORK), least(0.65)),
        ("1b", "liquid forward on W / fastest FFT convolution", "<= 0.5 x", against_convolution, most(0.5)),
        ("1c", "liquid forward on W, batch 1", f">= 50 % {fma}", at_limit(*liquid, WORK_1), least(0.5)),
        ("2a", "liquid forward + backward on W", f">= 40 % {fma}", at_limit("liquid", BOTH, WORK), least(0.4)),
        ("2b", "liquid backward / forward on W", "<= 4 x", ratio(("liquid", BACKWARD), liquid), most(4)),
        ("3", "liquid forward on W, N 8", f">= 25 % {fma}", small_state, least(0.25)),
        ("4a", "truncated(3) / liquid on W", "<= 2.5 x", ratio(("truncated(3)", FORWARD), liquid), most(2.5)),
        ("4b", "pb(3, all) / s4 on W", "<= 1.3 x", ratio(("pb(3, all)", FORWARD), s4), most(1.3)),
        ("4c", "kb(3, adjacent) / s4 on W", "<= 2.2 x", ratio(("kb(3, adjacent)", FORWARD), s4), most(2.2)),
        ("5a", f"Vandermonde kernel, {VANDERMONDE.label}", f">= 50 % {fma}", kernel_fraction, least(0.5)),
        ("5b", f"plain NumPy formula / Cauchy kernel, {CAUCHY.label}", ">= 5 x", cauchy, least(5)),
        ("5c", "Cauchy kernel, bytes per entry at N 256 / at N 64", "<= 1.5 x: O(N + L)", cauchy_memory, most(1.5)),
        ("6", "s4 on W, faster than scipy kernel + FFT convolution", ">= 2 x", linear, least(2)),
        ("7a", "memory of forward + backward beyond inputs and outputs", "<= 16 (N/2) L/64 bytes", memory, most(1)),
        ("7b", f"whole process, forward + backward, {MEMORY[-1].label}", "< 4 GiB", whole, most(MEMORY_LIMIT)),
        ("8a", "slope of log time over log L, 2^10 to 2^20", "1.00 +- 0.05", over_length, one),
        ("8b", f"slope over log batch·channels, {LEAST_ROWS} to 4096", "1.00 +- 0.05", over_rows, one),
        ("9a", "step in a compiled loop, H 512, N 64", "<= 10 us", step(LOOP), most(10e-6)),
        ("9b", "step from Python, H 512, N 64", "<= 60 us", step(PYTHON), most(60e-6)),
        ("11a", "import liquid_ssm, added to import numpy", "<= 0.05 s", start("import_seconds"), most(0.05)),
        ("11b", "heavy packages that the import loads", "none", loaded, most(0)),
        ("11c", "first compiled call, no cache", "<= 15 s", start("first_cold"), most(15)),
        ("11d", "first compiled call, cache on disk", "<= 1 s", start("first_warm"), most(1)),
    ]
    return tuple(_target(*definition) for definition in definitions)


def _target(
    number: str, statement: str, limit: str, figure: Callable[[], Figure], reached: Callable[[float], bool]
) -> Target:
    try:
        value, shown = figure()
    except Missing as missing:
        return Target(number, statement, limit, reason=str(missing))
    # `reached` of a NaN is False, which must not pass.
    return Target(number, statement, limit, shown, value, bool(reached(value)))
