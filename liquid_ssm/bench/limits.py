"""The machine's limits, measured in the same run as what is compared with them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from ..errors import LiquidSSMError
from ..registry import get_backend
from .subjects import with_threads

COMPILED = "numba"  # the backend that can measure the limits and be timed without Python


@dataclass(frozen=True)
class Limits:
    """What the machine can do at most.

    Attributes:
        threads: that the loops below used.
        fma_float32, fma_float64: multiply-add slots per second.
        copy: bytes read and written per second by a large copy.
        reason: why there are no figures, else empty.
    """

    threads: int | None = None
    fma_float32: float | None = None
    fma_float64: float | None = None
    copy: float | None = None
    reason: str = ""

    @property
    def known(self) -> bool:
        return not self.reason

    def fma(self, dtype: str) -> float | None:
        return self.fma_float32 if dtype == "float32" else self.fma_float64

    def best(self, other: Limits) -> Limits:
        """The higher of two measurements: a busy machine can only make a limit look lower than it is."""
        if not (self.known and other.known):
            return self if self.known else other
        return Limits(
            self.threads,
            *(max(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)[1:4]),
        )


def compiled_backend(threads: int | None = None) -> tuple[Any, str]:
    """The compiled backend and an empty reason, or None and why there is none."""
    try:
        found = get_backend(COMPILED)
    except LiquidSSMError as error:
        return None, f"needs {COMPILED}: pip install 'liquid-ssm[{COMPILED}]' ({error})"
    return with_threads(found, threads), ""


def measure_limits(threads: int | None = None) -> Limits:
    """Limits of this machine, or the reason why they are not known."""
    backend, reason = compiled_backend(threads)
    if backend is None:
        return Limits(reason=reason)
    if not hasattr(backend, "limits"):
        return Limits(reason=f"backend {backend.name!r} of this version does not measure the machine's limits")
    found = backend.limits()
    return Limits(*(found[f.name] for f in fields(Limits)[:4]))


def fraction(work: float | None, rate: float | None, seconds: float) -> float | None:
    """The time that the limit allows, over the time taken; None where one of them is not known."""
    return None if work is None or rate is None else work / rate / seconds
