"""The cascade `chain` restricted to the newest inputs, without removing any input from a state."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import _truncated_polynomials as polynomials
from ._pieces import PIECE_BYTES, pieces
from ._read_out import read_out
from ._sliding import from_blocks, in_blocks, sliding_aggregate

Array = npt.NDArray[Any]


class _Map(NamedTuple):
    """The affine map s -> s·q + input of truncated polynomials that a run of inputs makes."""

    q: list[Any]
    s: list[Any]


def windowed_chain(
    A_bar: Array, B_bar: Array, C: Array, u: Array, order: int, window: int, weight: int, limit: int = PIECE_BYTES
) -> Array:
    """y_k = weight · Re(C v^order_k) of a chain that starts at rest `window` inputs before k.

    An input u makes the map s -> s (ā + u t) + u; B̄ times the coefficient of t^(order-1) in the product
    of the newest `window` maps is the last state of the chain.  Products of consecutive maps come from
    `sliding_aggregate`: (q1, s1), (q2, s2) -> (q1 q2, s1 q2 + s2) mod t^order.

    Args:
        A_bar, B_bar, C: (H, M) complex, in u's precision.
        u: (batch, H, L).
        order: number of recurrences.
        window: steps >= 1.
        weight: 2 where one of each conjugate pair is stored, else 1.
        limit: memory for the maps of one piece of the work; at least one block of `window` steps of
            one (batch, channel) row is worked on at a time.

    Returns:
        (batch, H, L).

    Accuracy:
        Each word of ā's and inputs in the coefficient has at most window - 1 rounded complex products
        and window + order - 2 rounded additions behind it; B̄ adds one product; then `read_out`.

    References:
        Eq. 14 with all indices in the newest L̃ inputs.
    """
    batch, n_channels, length = u.shape
    if length == 0:
        return np.empty(u.shape, u.dtype)
    # Steps before u_0 are at rest, so no window reaches further back than the sequence is long.
    window = min(window, length)
    blocks = in_blocks(u, window).swapaxes(1, 2).swapaxes(2, 3)  # (window, batch, H, 1 + n_blocks)
    y = np.zeros((window, blocks.shape[3] - 1, batch, n_channels), u.dtype)
    identity = _Map([1.0], [])

    def combine(earlier: _Map, later: _Map) -> _Map:
        return _Map(
            polynomials.multiply(earlier.q, later.q, order),
            polynomials.add(polynomials.multiply(earlier.s, later.q, order), later.s),
        )

    # q and s of every suffix in a block are kept.
    item_bytes = 2 * order * window * C.shape[1] * C.itemsize
    for rows, channels, steps in pieces((batch, n_channels, y.shape[1]), item_bytes, limit):
        A, B = A_bar[channels], B_bar[channels]
        inputs = blocks[:, rows, channels, steps.start : steps.stop + 1].transpose(0, 3, 1, 2)[..., None]
        pairs = sliding_aggregate(inputs, lambda x, A=A: _Map([A, x], [x]), combine, identity)  # type: ignore[misc]
        for i, (older, newer) in enumerate(pairs):
            parts = polynomials.coefficient(older.s, newer.q, order - 1), *newer.s[order - 1 :]
            known = [part for part in parts if part is not None]
            if known:
                y[i, steps, rows, channels] = read_out(C[channels], B * sum(known), weight, axis=-1)
    return from_blocks(y, length)
