"""What a slice of time does to the state before it: x_end = M ∘ x_start + e, per (batch, channel, mode).

M is the product of Ā + diag(B̄ u_k) over the slice, e its end state from rest.  For `truncated` both have P entries on
an axis of their own: with X = Σ_p x^(p) t^{p-1} the recurrence is X_k = (Ā + t B̄ u_k) X_{k-1} + B̄ u_k, so M is a
polynomial in t, and products are those of polynomials modulo t^P.

M is found from two runs of the backend, from rest and from `SCALES` times ones: their difference is scale · M.  Errors
of both are bounded: beside the relative error of a product of as many factors, that of M times a state is at most twice
the bound of e, times |state|/scale (docs/parallel.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..errors import UnstableRecurrence

# About the square root of the largest number of the dtype that is computed in: room for states and for products alike.
SCALES = {"float32": 2.0**60, "float64": 2.0**500}


@dataclass(frozen=True)
class Transfer:
    """One slice's M and e, or those of several slices, by rank: complex128.

    Args:
        product: M, (..., batch, H, M), for `truncated` (..., batch, P, H, M); mimo without H.
        end: e, in the same shape.
    """

    product: torch.Tensor
    end: torch.Tensor


def seed(like: torch.Tensor, scale: float, *, at: int | None) -> torch.Tensor:
    """A state with the scale in every mode, of the order with index `at` if there are orders."""
    found = torch.zeros_like(like)
    (found if at is None else found[:, at]).fill_(scale)
    return found


def difference(scaled: torch.Tensor, end: torch.Tensor, scale: float) -> Transfer:
    """The transfer from the results of both runs."""
    far, near = scaled.to(torch.complex128), end.to(torch.complex128)
    # Each is divided first: their difference may leave the range.
    return Transfer(far / scale - near / scale, near)


def passed(product: torch.Tensor, x: torch.Tensor, *, orders: bool) -> torch.Tensor:
    """M x; with orders, entry p is Σ_{q <= p} M_{p−q} x_q."""
    if not orders:
        return product * x
    terms = [sum(product[:, p - q] * x[:, q] for q in range(p + 1)) for p in range(x.shape[1])]
    return torch.stack(terms, 1)  # type: ignore[arg-type]


def handed_on(slices: Transfer, *, orders: bool) -> list[torch.Tensor]:
    """The state behind each slice: the first one's end, then M x + e of each of the others in turn."""
    states = [slices.end[0]]
    for product, end in zip(slices.product[1:], slices.end[1:], strict=True):
        states.append(passed(product, states[-1], orders=orders) + end)
    return states


def require_in_range(x: torch.Tensor, limit: float, what: str, *, shared: bool, step: int = 0) -> None:
    """Raise an `UnstableRecurrence` if what is handed on is beyond the scale, where the bound ends.

    Args:
        x: (batch, H, M) or with orders, for mimo systems (`shared`) without H.
        step: of the sequence, for the error.
    """
    beyond = ~(x.abs() <= limit)
    if bool(beyond.any()):
        channel = 0 if shared else int(beyond.nonzero()[0, -2])
        raise UnstableRecurrence(
            f"{what} is beyond {limit:.3g} in channel {channel}, more than slices can hand on in this dtype; scale u "
            "down, reduce dt, or compute in float64.",
            step=step,
            channel=channel,
            input_bound=None,
        )
