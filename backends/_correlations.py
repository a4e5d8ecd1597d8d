"""The correlation terms of Eq. 14 and 15 that no system enters, for every kind, and their gradients.

Time is the last axis of every signal and term, the order the first axis of every term and sum.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from liquid_ssm.backend import CorrelationKind
from liquid_ssm.errors import ParameterError, ShapeError, unknown_name

from ._arguments import at_least, optional, signal
from ._elementary import elementary, elementary_vjp, windowed_elementary, windowed_elementary_vjp
from ._products import (
    adjacent_products,
    adjacent_products_vjp,
    running_sums,
    running_sums_vjp,
    windowed_sums,
    windowed_sums_vjp,
)

Array = npt.NDArray[Any]

KINDS = ("products", "running", "elementary")


def correlate(
    u: Array, *, order: int, kind: CorrelationKind, window: int | None, sums: Array | None, previous: Array | None
) -> tuple[Array, Array | None]:
    """Terms (order - 1, batch, H, L) of orders 2 … `order` and the sums after the last input.

    The final sums are None where the kind has none: for `products` and with a window.
    """
    sums, v = checked(u, order, kind, window, sums, previous)
    n = v.shape[-1] - u.shape[-1]
    if kind == "elementary":
        if window is not None:
            return windowed_elementary(v, order, window)[1:, ..., n:], None
        start = np.zeros((order, *u.shape[:-1]), u.dtype) if sums is None else sums
        e = elementary(u, start)
        return e[1:], _last(e, start)
    c = adjacent_products(v, order)
    if kind == "products":
        return c[..., n:], None
    if window is not None:
        return windowed_sums(c, window)[..., n:], None
    start = np.zeros((order - 1, *u.shape[:-1]), u.dtype) if sums is None else sums
    terms = running_sums(c[..., n:], sums)
    return terms, _last(terms, start)


def correlate_vjp(
    u: Array,
    grad_terms: Array | None,
    grad_sums: Array | None,
    *,
    order: int,
    kind: CorrelationKind,
    window: int | None,
    sums: Array | None,
    previous: Array | None,
) -> tuple[Array, Array | None, Array | None]:
    """Gradients of u, of `sums` and of `previous`; None for the last two where they were not given."""
    given = sums
    sums, v = checked(u, order, kind, window, sums, previous)
    n = v.shape[-1] - u.shape[-1]
    stateful = kind != "products" and window is None
    if grad_sums is not None and not stateful:
        raise ParameterError(f"grad_sums was given, but kind {kind!r} with window {window} has no sums; pass None.")
    terms = optional("grad_terms", grad_terms, (order - 1, *u.shape), u.dtype)
    terms = np.zeros((order - 1, *u.shape), u.dtype) if terms is None else terms
    n_sums = order if kind == "elementary" else order - 1
    last = optional("grad_sums", grad_sums, (n_sums, *u.shape[:-1]), u.dtype)
    # Entries for the inputs before u_0 have no output and so no cotangent.
    grad = np.concatenate([np.zeros((*terms.shape[:-1], n), u.dtype), terms], axis=-1)
    grad_start: Array | None = None
    if kind == "elementary":
        # e_1 is computed but is not a term.
        grad = np.concatenate([np.zeros((1, *v.shape), u.dtype), grad])
        if window is not None:
            grad_v = windowed_elementary_vjp(v, order, window, grad)
        else:
            start = np.zeros((order, *u.shape[:-1]), u.dtype) if sums is None else sums
            last = np.zeros_like(start) if last is None else last
            grad_v, grad_start = elementary_vjp(v, start, elementary(v, start), grad, last)
    else:
        if stateful:
            grad[..., n:], grad_start = running_sums_vjp(terms, last)
        elif kind == "running" and window is not None:
            grad = windowed_sums_vjp(grad, window)
        grad_v = adjacent_products_vjp(v, adjacent_products(v, order), grad)
    grad_previous = None
    if previous is not None:
        grad_previous = np.zeros(previous.shape, u.dtype)
        grad_previous[..., previous.shape[-1] - n :] = grad_v[..., :n]
    return grad_v[..., n:], None if given is None else grad_start, grad_previous


def _last(values: Array, start: Array) -> Array:
    """The values after the last input."""
    return np.array(values[..., -1] if values.shape[-1] else start)


def checked(
    u: Array, order: int, kind: str, window: int | None, sums: Array | None, previous: Array | None
) -> tuple[Array | None, Array]:
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
    sums = optional("sums", sums, (n_sums, *u.shape[:-1]), u.dtype)
    if previous is None:
        return sums, u
    if previous.ndim != 3 or previous.shape[:-1] != u.shape[:-1]:
        raise ShapeError(f"previous has shape {previous.shape}; it must be {(*u.shape[:-1], 'n')}.")
    reach = (order if window is None or kind == "products" else window) - 1
    used = min(reach, previous.shape[-1])
    newest = previous[..., previous.shape[-1] - used :].astype(u.dtype)
    return sums, np.concatenate([newest, u], axis=-1)
