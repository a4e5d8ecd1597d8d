"""The correlation terms of Eq. 14 and 15 that no system enters, for every kind, and their gradients.

Time is the last axis of every signal and term, the order the first axis of every term and sum.
"""

from __future__ import annotations

import torch
from torch.nn.functional import pad

from liquid_ssm.backend import CorrelationKind
from liquid_ssm.errors import ParameterError, ShapeError, unknown_name

from .._arguments import at_least
from .arguments import optional, same_device, signal
from .elementary import elementary, elementary_vjp, windowed_elementary, windowed_elementary_vjp
from .products import (
    adjacent_products,
    adjacent_products_vjp,
    running_sums,
    running_sums_vjp,
    windowed_sums,
    windowed_sums_vjp,
)

KINDS = ("products", "running", "elementary")


def correlate(
    u: torch.Tensor,
    *,
    order: int,
    kind: CorrelationKind,
    window: int | None = None,
    sums: torch.Tensor | None = None,
    previous: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Terms (order - 1, batch, H, L) of orders 2 … `order` and the sums after the last input.

    The final sums are None where the kind has none: for `products` and with a window.

    Accuracy:
        Products of at most `order` inputs; sums over time in the bracketing of `sliding.running_sum`, over windows
        by doubling.  Nothing is divided or subtracted.

    References:
        Eq. 14 and 15; `liquid_ssm.backend.Backend` has the contract.
    """
    sums, v = _checked(u, order, kind, window, sums, previous)
    n = v.shape[-1] - u.shape[-1]
    if kind == "elementary":
        if window is not None:
            return windowed_elementary(v, order, window)[1:, ..., n:], None
        e = elementary(u, _start(sums, order, u))
        return e[1:, ..., 1:], e[..., -1].clone()
    c = adjacent_products(v, order)
    if kind == "products":
        return c[..., n:], None
    if window is not None:
        return windowed_sums(c, window)[..., n:], None
    terms = running_sums(c[..., n:], sums)
    last = terms[..., -1] if u.shape[-1] else _start(sums, order - 1, u)
    return terms, last.clone()


def correlate_vjp(
    u: torch.Tensor,
    grad_terms: torch.Tensor | None,
    grad_sums: torch.Tensor | None,
    *,
    order: int,
    kind: CorrelationKind,
    window: int | None = None,
    sums: torch.Tensor | None = None,
    previous: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """Gradients of u, of `sums` and of `previous`; None for the last two where they were not given.

    A cotangent given as None is zero.

    Accuracy:
        A term passes every sum over time of `correlate` once and one per order backwards (`elementary_vjp`).
    """
    given = sums
    sums, v = _checked(u, order, kind, window, sums, previous)
    n = v.shape[-1] - u.shape[-1]
    stateful = kind != "products" and window is None
    if grad_sums is not None and not stateful:
        raise ParameterError(f"grad_sums was given, but kind {kind!r} with window {window} has no sums; pass None.")
    terms = optional("grad_terms", grad_terms, (order - 1, *u.shape), u.dtype, u)
    terms = u.new_zeros((order - 1, *u.shape)) if terms is None else terms
    n_sums = order if kind == "elementary" else order - 1
    last = optional("grad_sums", grad_sums, (n_sums, *u.shape[:-1]), u.dtype, u)
    # Entries for the inputs before u_0 have no output and so no cotangent.
    grad = pad(terms, (n, 0))
    grad_start: torch.Tensor | None = None
    if kind == "elementary":
        # e_1 is computed but is not a term.
        grad = torch.cat([torch.zeros_like(v)[None], grad])
        if window is not None:
            grad_v = windowed_elementary_vjp(v, order, window, grad)
        else:
            grad_v, grad_start = elementary_vjp(v, elementary(v, _start(sums, order, u)), grad, last)
    else:
        if stateful:
            summed, grad_start = running_sums_vjp(terms, last)
            grad = pad(summed, (n, 0))
        elif kind == "running" and window is not None:
            grad = windowed_sums_vjp(grad, window)
        grad_v = adjacent_products_vjp(v, adjacent_products(v, order), grad)
    grad_previous = None
    if previous is not None:
        grad_previous = pad(grad_v[..., :n], (previous.shape[-1] - n, 0))
    return grad_v[..., n:], None if given is None else grad_start, grad_previous


def _start(sums: torch.Tensor | None, count: int, u: torch.Tensor) -> torch.Tensor:
    return u.new_zeros((count, *u.shape[:-1])) if sums is None else sums


def _checked(
    u: torch.Tensor,
    order: int,
    kind: str,
    window: int | None,
    sums: torch.Tensor | None,
    previous: torch.Tensor | None,
) -> tuple[torch.Tensor | None, torch.Tensor]:
    """The sums in u's dtype, and u with as many of the inputs before it as the terms can reach."""
    signal(u)
    if kind not in KINDS:
        raise unknown_name("correlation kind", kind, KINDS)
    at_least("order", order, 1)
    if window is not None:
        at_least("window", window, order)
    if sums is not None and (kind == "products" or window is not None):
        raise ParameterError(
            f"sums were given for kind {kind!r} with window {window}; only `running` and `elementary` without a "
            "window carry sums. Leave them out and give the newest inputs as `previous`."
        )
    if previous is not None and kind == "elementary" and window is None:
        raise ParameterError(
            "previous was given for kind 'elementary' without a window; what came before u_0 is in `sums`. "
            "Leave previous out."
        )
    n_sums = order if kind == "elementary" else order - 1
    sums = optional("sums", sums, (n_sums, *u.shape[:-1]), u.dtype, u)
    if previous is None:
        return sums, u
    if previous.ndim != 3 or previous.shape[:-1] != u.shape[:-1]:
        raise ShapeError(f"previous has shape {tuple(previous.shape)}; it must be {(*u.shape[:-1], 'n')}.")
    same_device("previous", previous, u)
    reach = (order if window is None or kind == "products" else window) - 1
    used = min(reach, previous.shape[-1])
    newest = previous[..., previous.shape[-1] - used :].to(u.dtype)
    return sums, torch.cat([newest, u], -1)
