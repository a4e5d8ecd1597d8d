"""One measured row: a subject, a mode, a direction and a shape, with its time and what limits it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ..problem import ModeSpec
from ..timing import Timing, time_call
from .limits import Limits, fraction
from .shapes import Shape
from .work import slots, traffic

ITEMSIZE = {"float32": 4, "float64": 8}


@dataclass(frozen=True)
class Row:
    """One measurement, or the reason why there is none.

    Attributes:
        subject: a backend's name, or what a user would pick instead.
        kind: `backend` or `rival`.
        mode: label of the mode, for instance `kb(3, adjacent)`.
        direction: `forward`, `backward` (a vector-Jacobian product) or `forward + backward`, the sum of the two.
        dtype: of u.
        shape: sizes.
        seconds: median and spread of one call; None if it was not measured.
        slots: multiply-add slots of the work at least (`work.slots`); None where none were counted.
        traffic: bytes that must pass memory at least.
        fma_fraction: time at the multiply-add limit over the time taken.
        copy_fraction: time at the copy limit over the time taken.
        convolution_ratio: time over that of the fastest FFT convolution of the same inputs with a ready kernel.
        error_over_bound: largest error in units of its derived bound, on a short excerpt of the same system.
        reason: why `seconds` is None, else empty.
    """

    subject: str
    kind: str
    mode: str
    direction: str
    dtype: str
    shape: Shape
    seconds: Timing | None = None
    slots: float | None = None
    traffic: float | None = None
    fma_fraction: float | None = None
    copy_fraction: float | None = None
    convolution_ratio: float | None = None
    error_over_bound: float | None = None
    reason: str = ""

    @property
    def limit_fraction(self) -> float | None:
        """The larger of the two fractions: that of the limit which binds."""
        found = [value for value in (self.fma_fraction, self.copy_fraction) if value is not None]
        return max(found) if self.fma_fraction is not None else None

    @property
    def binds(self) -> str:
        """`fma` or `copy`: the limit that is nearer to the time taken; empty where it is not known."""
        if self.fma_fraction is None or self.copy_fraction is None:
            return ""
        return "fma" if self.fma_fraction >= self.copy_fraction else "copy"

    def against(self, limits: Limits) -> Row:
        """The same row next to these limits."""
        if self.seconds is None:
            return self
        return replace(
            self,
            fma_fraction=fraction(self.slots, limits.fma(self.dtype), self.seconds.median),
            copy_fraction=None if self.slots is None else fraction(self.traffic, limits.copy, self.seconds.median),
        )


def backend_row(name: str, spec: ModeSpec, direction: str, dtype: str, shape: Shape, **found: Any) -> Row:
    """A row of a backend, with the least work of its mode."""
    return Row(
        name,
        "backend",
        spec.label,
        direction,
        dtype,
        shape,
        slots=slots(spec, direction, shape),
        traffic=traffic(direction, shape, ITEMSIZE[dtype]),
        **found,
    )


def timed_row(row: Row, call: Callable[[], object], *, limit: float | None, compiles: bool = True) -> Row:
    """The row with its time.

    Raises:
        TooSlow: a call took longer than `limit` seconds.
    """
    return replace(row, seconds=time_call(call, limit=limit, compiles=compiles))


def together(forward: Row, backward: Row, spec: ModeSpec) -> Row:
    """Forward + backward from the rows of the two."""
    missing = next((row for row in (forward, backward) if row.seconds is None), None)
    row = backend_row(forward.subject, spec, "forward + backward", forward.dtype, forward.shape)
    if missing is not None:
        return replace(row, reason=f"{missing.direction}: {missing.reason}")
    assert forward.seconds is not None
    assert backward.seconds is not None
    return replace(row, seconds=forward.seconds + backward.seconds)
