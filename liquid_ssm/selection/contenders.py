"""Who may compute a problem: every backend in every dtype that is asked for, or why it may not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..backend import Backend
from ..certificate import Candidate
from ..errors import LiquidSSMError
from ..problem import DTYPES, Problem
from ..registry import backend_names, get_backend, rejection

_NEEDS_TENSORS = (
    "it computes with torch, whose settings a certificate for NumPy arrays does not record; pass tensors, or name it"
)


@dataclass(frozen=True)
class Contender:
    """A backend in one dtype.

    Attributes:
        name: `numba`, or `numba:float32` where it computes in another dtype than the data have.
        problem: the problem in the dtype that it computes in.
    """

    name: str
    backend: Backend
    problem: Problem


def contenders(problem: Problem, *, other_dtypes: bool, only: tuple[str, ...] = ()) -> Iterator[Contender | Candidate]:
    """Every backend in the order of the registry: a contender, or the candidate that it cannot be.

    Args:
        other_dtypes: also those that compute in another dtype than the data have.
        only: the backends to consider; () for all.
    """
    for dtype in (problem.dtype, *(d for d in DTYPES if other_dtypes and d != problem.dtype)):
        posed = replace(problem, dtype=dtype)
        for name in only or backend_names():
            label = name if dtype == problem.dtype else f"{name}:{dtype}"
            try:
                reason = rejection(name, posed)
            except LiquidSSMError:
                raise
            except Exception as error:
                # A package that cannot be imported, or asked, must neither stop the others nor stay unsaid.
                if dtype == problem.dtype:
                    yield without_numbers(label, "failed", f"{type(error).__name__}: {error}")
                continue
            if reason is None and problem.arrays == "numpy" and "torch" in get_backend(name).requires:
                if dtype == problem.dtype:
                    yield without_numbers(label, "rejected", _NEEDS_TENSORS)
            elif reason is None:
                yield Contender(label, get_backend(name), posed)
            elif dtype == problem.dtype:
                status = "unavailable" if reason.reason == "package" else "rejected"
                yield without_numbers(label, status, str(reason).removeprefix(f"{reason.backend}: "))


def without_numbers(name: str, status: str, reason: str) -> Candidate:
    """A candidate of which nothing was measured."""
    return Candidate(name, status, reason, None, None, None, None, None, None, 0, None)
