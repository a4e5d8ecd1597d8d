"""Every error the package raises on purpose.

Each message names what was given, what is allowed, and what to do next.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from numbers import Integral
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .backend import Rejection
    from .certificate import Candidate


class LiquidSSMError(Exception):
    """Base of all errors of this package."""


class ParameterError(LiquidSSMError, ValueError):
    """A parameter has a value outside its domain (an order below 1, a pole with Re >= 0, …)."""


class ShapeError(LiquidSSMError, ValueError):
    """An array has the wrong number of dimensions or does not fit the others."""


class DTypeError(LiquidSSMError, TypeError):
    """An array has a dtype that the computation is not defined for."""


class SignalError(LiquidSSMError, ValueError):
    """A signal cannot be read, is empty, or holds NaN or infinite samples."""


class DataError(LiquidSSMError, ValueError):
    """A data set is missing, incomplete, of another version, or damaged."""


class CheckpointError(LiquidSSMError, ValueError):
    """A checkpoint or model file is missing, damaged, or of another version or model."""


class BackendUnavailable(LiquidSSMError, ImportError):
    """The package that a backend needs is not installed."""


class BackendRejected(LiquidSSMError):
    """No backend, or not the named one, can compute the problem.

    Attributes:
        rejections: every reason, one `Rejection` per backend that was asked.
        candidates: with the numbers that a selection has measured; empty where none was made.
    """

    def __init__(
        self, message: str, rejections: Iterable[Rejection] = (), candidates: Iterable[Candidate] = ()
    ) -> None:
        self.rejections = tuple(rejections)
        self.candidates = tuple(candidates)
        super().__init__("\n".join([message, *(f"  - {reason}" for reason in self.rejections)]))


class UnstableRecurrence(LiquidSSMError, ArithmeticError):
    """The state left the range of its dtype.

    Attributes:
        step: index k of the first time step whose output is not finite.
        channel: index of the channel in which it happened.
        input_bound: |u| below which the liquid state of every channel is bounded, min (1 - |ā|)/|b̄| [units of
            u]; zero where no input is safe, None for an integrator without such a bound.
    """

    def __init__(self, message: str, *, step: int, channel: int, input_bound: float | None) -> None:
        self.step = step
        self.channel = channel
        self.input_bound = input_bound
        super().__init__(message)

    def __reduce__(self) -> tuple[Any, ...]:
        # Process pools pickle exceptions, which by default are made again from their positional arguments.
        make = partial(type(self), step=self.step, channel=self.channel, input_bound=self.input_bound)
        return make, self.args


class OracleInconclusive(LiquidSSMError):
    """The reference could not be computed accurately enough to decide; never a pass."""


class NotCertified(LiquidSSMError):
    """No valid certificate holds the call, and none may be made."""


class CertificateInvalid(LiquidSSMError, ValueError):
    """A certificate's file has been tampered with, is truncated, or is not one of ours."""


def unknown_name(kind: str, given: str, allowed: Iterable[str]) -> ParameterError:
    """The error for a name that is not in a list, with the nearest names of the list."""
    from difflib import get_close_matches

    names = list(allowed)
    near = get_close_matches(str(given), names, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    return ParameterError(f"unknown {kind} {given!r}; allowed: {', '.join(names)}.{hint}")


def require_whole(name: str, value: Any, least: int = 1) -> None:
    """Raise a `ParameterError` for what is no whole number, truth values among them, or is below the least one."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ParameterError(f"{name} is {value!r}; give a whole number from {least}.")
