"""The run: what is measured in which order, and what is left out for its time or memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from time import monotonic
from typing import Any

from ..compute import problem_of
from ..environment import environment, package_version
from ..errors import BackendUnavailable, LiquidSSMError, ParameterError, UnstableRecurrence, unknown_name
from ..problem import DTYPES, MODES, ModeSpec, Problem
from ..registry import backend_names, get_backend, rejection
from ..timing import TooSlow
from .accuracy import Accuracy, accuracy
from .kernels import CAUCHY, VANDERMONDE, kernel_row, plain_row
from .latency import Latency, loop_latency, step_latency
from .limits import COMPILED, Limits, measure_limits
from .memory import KERNEL, Peak, peak
from .operators import OPERATOR_BACKENDS, OPERATORS, Operator, operator_rows
from .result import ERROR, Result
from .rivals import CONVOLUTIONS, QUICK_OTHERS, SLOW, Rival, available_cores
from .rows import Row, backend_row, timed_row, together
from .shapes import LENGTHS, ROWS, TARGETS, WORK, WORK_SIXTEENTH, Shape
from .shapes import grid as shapes_of
from .startup import StartUp, start_up
from .subjects import SPECS, NotANumber, Subject, call, checked, subject, takes_threads, with_threads
from .targets import KERNEL_MEMORY, MEMORY, Measured, Target, evaluate
from .work import BACKWARD, BOTH, FORWARD

Progress = Callable[[int, int, str], None]

# Seconds that one call may take before its row is given up, and a call of the compiled backend.
CALL_LIMIT = {"quick": 0.3, "targets": 1.0, "full": 0.5, "operators": 3.0}
COMPILED_CALL_LIMIT = 10.0


def bench(
    grid: str = "quick",
    *,
    backends: Sequence[str] | None = None,
    modes: Sequence[str] | None = None,
    dtype: str = "float32",
    threads: int | None = None,
    budget: float | None = None,
    progress: Progress | None = None,
) -> Result:
    """Measure this machine's limits, and backends and what one would pick instead next to them.

    Args:
        grid: `quick`: three shapes, about a minute; `targets`: what the targets need; `full`: every shape as well;
            `operators`: the differentiable torch operators instead, next to eager torch, KeOps and torch's own scan.
        backends: names; None for all that are known.
        modes: names; None for all.
        dtype: `float32` or `float64`.
        threads: of the backends that take a number, and of scipy.fft and torch; None for every usable core.
        budget: seconds after which no further row is begun; None for no end.
        progress: called with (parts done, parts in all, what comes next).

    Returns:
        Result: `.to_json()`; rows that were not measured say why, `.errors` are those that computed NaN.

    Raises:
        ParameterError: a name that does not exist, threads below 1, or a budget that is not positive.

    Accuracy:
        Times are medians of at least 7 runs; the accuracy of each mode is measured on a short excerpt against the
        oracle and its derived bound (docs/bounds.md).
    """
    names = _chosen("backend", backends, backend_names())
    notes = []
    if grid == "quick" and not backends:
        # Variants, and what the grid `operators` is for.
        slow = [name for name in names if name.startswith(f"{COMPILED}-") or name in (*OPERATOR_BACKENDS[1:], "triton")]
        names = tuple(name for name in names if name not in slow)
        if slow:
            notes.append(f"left out of the quick grid: {', '.join(slow)}; --backend NAME measures it.")
    specs = [spec for spec in SPECS if spec.mode in _chosen("mode", modes, MODES)]
    _chosen("dtype", [dtype], DTYPES)
    if threads is not None and threads < 1:
        raise ParameterError(f"threads is {threads}; at least 1 is needed. Leave it out to use every core.")
    if budget is not None and not budget > 0:
        raise ParameterError(f"budget is {budget} s; give a positive number of seconds, or none for no end.")
    shapes_of(grid)
    return _Run(grid, names, specs, dtype, threads, budget, progress, notes).result()


def _chosen(kind: str, given: Sequence[str] | None, allowed: Sequence[str]) -> tuple[str, ...]:
    for name in given or ():
        if name not in allowed:
            raise unknown_name(kind, name, allowed)
    return tuple(dict.fromkeys(given)) if given else tuple(allowed)


class _Run:
    """One run in progress."""

    def __init__(
        self,
        grid: str,
        names: tuple[str, ...],
        specs: list[ModeSpec],
        dtype: str,
        threads: int | None,
        budget: float | None,
        progress: Progress | None,
        notes: Sequence[str] = (),
    ) -> None:
        self.grid, self.names, self.specs, self.dtype = grid, names, specs, dtype
        self.threads, self.budget, self.progress = threads, budget, progress
        self.end = None if budget is None else monotonic() + budget
        self.rows: list[Row] = []
        self.kernels: list[Row] = []
        self.operators: list[Row] = []
        self.accuracy: list[Accuracy] = []
        self.steps: list[Latency] = []
        self.peaks: list[Peak] = []
        self.start_up: StartUp | None = None
        self.limits: list[Limits] = []
        self.notes: list[str] = list(notes)
        self.slow: dict[tuple[str, str, str], tuple[Shape, float]] = {}
        self.last: Subject | None = None
        self.backends: dict[str, Any] = {}
        self.unavailable: dict[str, str] = {}
        for name in names:
            try:
                self.backends[name] = with_threads(get_backend(name), threads)
            except BackendUnavailable as error:
                self.unavailable[name] = str(error)
        fixed = [name for name, found in self.backends.items() if threads is not None and not takes_threads(found)]
        if fixed:
            self.notes.append(f"--threads has no effect on {', '.join(fixed)}, which take no number of threads.")

    def result(self) -> Result:
        parts = list(self._parts())
        for done, (what, measure) in enumerate(parts):
            if self.progress:
                self.progress(done, len(parts), what)
            measure()
        if self.progress:
            self.progress(len(parts), len(parts), "done")
        return self._result()

    def _spent(self) -> bool:
        return self.end is not None and monotonic() > self.end

    @property
    def _no_budget(self) -> str:
        return f"not measured: the budget of {self.budget:g} s was spent"

    def _parts(self) -> Iterator[tuple[str, Callable[[], None]]]:
        """What is measured, in its order: what the targets need, then the compiled backend, then the others.

        A budget so cuts the slow ones, and these go from small to large, so that a slow backend is given up before
        it takes long.
        """
        yield "limits of the machine", self._limits
        if self.grid == "operators":
            for shape in shapes_of(self.grid):
                for operator in OPERATORS:
                    yield f"{operator.name}, {shape.label}", lambda o=operator, s=shape: self._operator(o, s)  # type: ignore[misc]
            yield "limits of the machine", self._limits
            return
        yield "accuracy", self._accuracy
        compiled = [name for name in self.names if name == COMPILED]
        others = [name for name in self.names if name != COMPILED]
        shapes = sorted(shapes_of(self.grid), key=lambda s: s.elements * s.n_modes)
        if self.grid == "quick":
            yield "step latency", self._steps
            for shape in shapes:
                yield from self._shape(shape, self.names)
        else:
            for shape in TARGETS:
                yield from self._shape(shape, compiled)
            for shape in (*LENGTHS, *ROWS):
                yield f"linearity, {shape.label}", lambda s=shape: self._sweep(s)  # type: ignore[misc]
            yield "kernels", self._kernels
            yield "step latency", self._steps
            yield "start", self._start
            yield "peak memory", self._peaks
            for shape in (WORK, WORK_SIXTEENTH):
                yield from self._rivals(shape, SLOW)
            for shape in shapes:
                if shape not in TARGETS:
                    yield from self._shape(shape, compiled)
            for shape in shapes:
                yield from self._shape(shape, others, rivals=False)
        yield "limits of the machine", self._limits

    def _shape(
        self, shape: Shape, names: Sequence[str], rivals: bool = True
    ) -> Iterator[tuple[str, Callable[[], None]]]:
        def run() -> None:
            # Again and again: on a busy machine a limit that was measured once is too low.
            self._limits()
            for name in names:
                for spec in self.specs:
                    self._mode(name, spec, shape)

        if names:
            yield f"{', '.join(names)}, {shape.label}", run
        if rivals:
            yield from self._rivals(shape, CONVOLUTIONS)
            if self.grid == "quick" or shape in (WORK, WORK_SIXTEENTH):
                yield from self._rivals(shape, QUICK_OTHERS)
            if self.grid == "quick":
                yield from self._rivals(shape, SLOW)

    def _rivals(self, shape: Shape, rivals: Sequence[Rival]) -> Iterator[tuple[str, Callable[[], None]]]:
        for rival in rivals:
            yield f"{rival.name}, {shape.label}", lambda r=rival: self._rival(r, shape)  # type: ignore[misc]

    def _limits(self) -> None:
        self.limits.append(measure_limits(self.threads))

    def _accuracy(self) -> None:
        able = list(self.backends)
        for dtype in DTYPES:
            for spec in self.specs:
                if self._spent():
                    self.notes.append(f"accuracy from {spec.label} {dtype} on: {self._no_budget}.")
                    return
                self.accuracy += accuracy(able, spec, dtype)

    def _subject(self, shape: Shape) -> Subject:
        if self.last is None or self.last.shape != shape:
            # Not two large ones at a time.
            self.last = None
            self.last = subject(shape, self.dtype)
        return self.last

    def _problem(self, spec: ModeSpec, shape: Shape, *, gradient: bool) -> Problem:
        empty = self._subject(replace(shape, length=1))
        problem = problem_of(empty.system, empty.u, spec, gradient=gradient, state=gradient)
        return replace(problem, length=shape.length)

    def _mode(self, name: str, spec: ModeSpec, shape: Shape) -> None:
        """The rows of one backend, mode and shape: forward, backward, and both together."""
        forward = self._known(name, spec, shape)
        if forward is None:
            forward = self._direction(name, spec, FORWARD, shape)
            self.rows.append(forward)
        backward = self._direction(name, spec, BACKWARD, shape)
        self.rows += [backward, together(forward, backward, spec)]

    def _known(self, name: str, spec: ModeSpec, shape: Shape) -> Row | None:
        """The forward row, where the targets on linearity needed it before."""
        key = (name, spec.label, FORWARD, shape)
        return next((r for r in self.rows if (r.subject, r.mode, r.direction, r.shape) == key), None)

    def _direction(self, name: str, spec: ModeSpec, direction: str, shape: Shape) -> Row:
        row = backend_row(name, spec, direction, self.dtype, shape)
        why_not = self._why_not(name, spec, direction, shape)
        if why_not:
            return replace(row, reason=why_not)
        key = (name, spec.label, direction)
        compiled = self._compiles(name)
        limit = COMPILED_CALL_LIMIT if compiled else CALL_LIMIT[self.grid]
        prepared = call(self._subject(shape), spec, self.backends[name], direction)
        try:
            # The check would be the first, slow call of a slow backend, so it comes after the timing.
            row = timed_row(row, prepared, limit=limit, compiles=compiled)
            checked(prepared, shape.elements, self.dtype)
        except TooSlow as slow:
            self.slow[key] = (shape, slow.seconds)
            return replace(row, reason=f"not measured: {slow}")
        except (NotANumber, UnstableRecurrence) as error:
            # The inputs are known not to overflow, so either is a defect of the backend.
            return replace(row, seconds=None, reason=f"{ERROR}{error}")
        except LiquidSSMError as error:
            return replace(row, seconds=None, reason=f"not measured: {error}")
        return row

    def _compiles(self, name: str) -> bool:
        """Whether its first call may compile: the compiled backend, and variants of it."""
        return COMPILED in self.backends[name].requires

    def _why_not(self, name: str, spec: ModeSpec, direction: str, shape: Shape) -> str:
        if name in self.unavailable:
            return self.unavailable[name]
        refused = rejection(self.backends[name], self._problem(spec, shape, gradient=direction == BACKWARD))
        if refused is not None:
            return str(refused)
        if self._spent():
            return self._no_budget
        if self._compiles(name):
            return ""
        before = self.slow.get((name, spec.label, direction))
        if before is not None and shape.elements * shape.n_modes >= before[0].elements * before[0].n_modes:
            return f"not measured: slower than {before[1]:.2g} s, which it takes at {before[0].label}"
        for row in self.rows:
            same = (row.subject, row.mode, row.direction) == (name, spec.label, direction)
            if not same or row.seconds is None or shape.length <= row.shape.length:
                continue
            # Time is at least linear in L for as many rows and modes.
            least = row.seconds.median * shape.length / row.shape.length
            fits = shape.rows >= row.shape.rows and shape.n_modes >= row.shape.n_modes
            if fits and least > 2 * CALL_LIMIT[self.grid]:
                return f"not measured: about {least:.2g} s a call, by what it takes at {row.shape.label}"
        return ""

    def _sweep(self, shape: Shape) -> None:
        """What the targets on linearity need."""
        liquid = ModeSpec("liquid")
        if COMPILED in self.names and self._known(COMPILED, liquid, shape) is None:
            self.rows.append(self._direction(COMPILED, liquid, FORWARD, shape))

    def _rival(self, rival: Rival, shape: Shape) -> None:
        row = Row(rival.name, "rival", rival.mode, FORWARD, self.dtype, shape)
        reason = rival.missing() or (self._no_budget if self._spent() else "")
        if reason:
            self.rows.append(replace(row, reason=reason))
            return
        if rival.largest is not None and shape.elements * shape.n_modes > rival.largest:
            self.rows.append(replace(row, reason="not measured: it would take many seconds a call"))
            return
        special = rival in CONVOLUTIONS or shape in TARGETS
        limit = COMPILED_CALL_LIMIT if special and self.grid != "quick" else CALL_LIMIT[self.grid]
        before = self.slow.get((rival.name, rival.mode, FORWARD))
        if before is not None and shape.elements >= before[0].elements:
            reason = f"not measured: slower than {before[1]:.2g} s, which it takes at {before[0].label}"
            self.rows.append(replace(row, reason=reason))
            return
        if rival.compiler and self.grid == "quick":
            # Compiling takes longer than all the rest of the quick grid.
            self.rows.append(replace(row, reason="not measured: compiling takes half a minute; see --grid targets"))
            return
        prepared = rival.prepare(self._subject(shape), self.threads or available_cores())
        try:
            row = timed_row(row, prepared, limit=limit, compiles=rival.compiler)
            checked(prepared, shape.elements, self.dtype)
        except TooSlow as slow:
            self.slow[rival.name, rival.mode, FORWARD] = (shape, slow.seconds)
            row = replace(row, reason=f"not measured: {slow}")
        except NotANumber as error:
            row = replace(row, seconds=None, reason=f"{ERROR}{error}")
        self.rows.append(row)

    def _operator(self, operator: Operator, shape: Shape) -> None:
        if find_spec("torch") is None:
            self.notes.append("operators are those of torch, which is not installed: pip install 'liquid-ssm[torch]'.")
        elif self._spent():
            self.notes.append(f"{operator.name} at {shape.label}: {self._no_budget}.")
        else:
            self.operators += operator_rows(operator, self._subject(shape), CALL_LIMIT[self.grid])

    def _kernels(self) -> None:
        for structure, shape in (("diagonal", VANDERMONDE), ("dplr", CAUCHY)):
            for name, backend in self.backends.items():
                if not self._spent() and name != "numpy":
                    self.kernels.append(kernel_row(name, backend, structure, self.dtype, shape, COMPILED_CALL_LIMIT))
        if not self._spent():
            self.kernels.append(plain_row(self.dtype, CAUCHY, COMPILED_CALL_LIMIT))

    def _peaks(self) -> None:
        liquid = ModeSpec("liquid")
        for name in self.names:
            reason = self.unavailable.get(name, "")
            for shape in MEMORY:
                # Only the compiled backend keeps few states; the others would need the machine for themselves.
                if name == COMPILED or shape is MEMORY[0]:
                    self._peak(name, liquid, BOTH, shape, reason)
            if name == COMPILED:
                for shape in KERNEL_MEMORY:
                    self._peak(name, liquid, KERNEL, shape, reason, "dplr")

    def _peak(
        self, name: str, spec: ModeSpec, computed: str, shape: Shape, reason: str, structure: str = "diagonal"
    ) -> None:
        reason = reason or (self._no_budget if self._spent() else "")
        if reason:
            mode = spec.label if computed != KERNEL else f"kernel, {structure}"
            self.peaks.append(Peak(name, mode, computed, self.dtype, shape, reason=reason))
        else:
            self.peaks.append(peak(name, spec, computed, self.dtype, shape, structure=structure))

    def _steps(self) -> None:
        for name, backend in self.backends.items():
            for spec in self.specs:
                if self._spent():
                    return
                if self.grid == "quick" and spec.mode not in ("s4", "liquid"):
                    continue
                self.steps.append(step_latency(name, backend, spec, self.dtype, CALL_LIMIT[self.grid]))
            if name == COMPILED:
                self.steps.append(loop_latency(name, backend, self.dtype))

    def _start(self) -> None:
        if not self._spent():
            self.start_up = start_up()

    def _result(self) -> Result:
        limits = self.limits[0]
        for found in self.limits[1:]:
            limits = limits.best(found)
        convolutions: dict[Shape, float] = {}
        for row in self.rows:
            if row.subject in [rival.name for rival in CONVOLUTIONS] and row.seconds is not None:
                convolutions[row.shape] = min(row.seconds.median, convolutions.get(row.shape, float("inf")))
        errors = {(a.subject, a.mode, a.dtype): a.error_over_bound for a in self.accuracy}

        def complete(row: Row) -> Row:
            if row.seconds is None:
                return row
            reference = convolutions.get(row.shape) if row.direction == FORWARD else None
            return replace(
                row.against(limits),
                convolution_ratio=None if reference is None else row.seconds.median / reference,
                error_over_bound=errors.get((row.subject, row.mode, row.dtype)),
            )

        rows = tuple(complete(row) for row in self.rows)
        kernels = tuple(row.against(limits) for row in self.kernels)
        targets: tuple[Target, ...] = ()
        if self.grid in ("targets", "full"):
            targets = evaluate(
                Measured(rows, kernels, self.peaks, self.steps, self.start_up, limits.reason, self.dtype)
            )
        settings = {
            "grid": self.grid,
            "backends": self.names,
            "modes": tuple(spec.label for spec in self.specs),
            "dtype": self.dtype,
            "threads": self.threads,
            "budget": self.budget,
        }
        return Result(
            settings,
            {**environment(), "llvmlite": package_version("llvmlite")},
            limits,
            tuple(self.limits),
            rows,
            kernels,
            tuple(self.accuracy),
            tuple(self.steps),
            tuple(self.peaks),
            self.start_up,
            targets,
            tuple(dict.fromkeys(self.notes)),
            tuple(row.against(limits) for row in self.operators),
        )
