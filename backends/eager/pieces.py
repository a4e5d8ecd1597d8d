"""The scan of few rows, parallel in time: pieces of a sequence are rows of their own.

Two passes: each piece from rest, with the product of its transitions; from these, one piece after the other, the state
in which each begins; then each piece once more, from that state.  Pieces of T steps need 2T + L/T operations one after
the other in place of L.
"""

from __future__ import annotations

from math import isqrt

import torch

from liquid_ssm.complex_numbers import Number, stack

from .recurrence import Recurrence, chunks, run, time_first

# With fewer steps there is little to gain.
SHORTEST = 128
# Numbers in a state from which on the operations themselves, twice as many, outweigh the calls that are saved.
MOST_ELEMENTS = 1 << 12


def piece_steps(elements: int, length: int) -> int | None:
    """Steps of a piece for a scan over `length` steps of a state of so many numbers; None for the order of time.

    The shape alone decides, not the device, so that results do not depend on it.
    """
    if length < SHORTEST or not 0 < elements <= MOST_ELEMENTS:
        return None
    # The minimum of 2T + L/T.
    return isqrt(length // 2)


def scan_in_pieces(
    recurrence: Recurrence, u: torch.Tensor, state: Number | None, piece: int, chunk_steps: int | None = None
) -> tuple[torch.Tensor, Number]:
    """As `run`, every row cut into pieces of so many steps; what is left over comes last, in the order of time.

    Args:
        recurrence: a `Scan` whose transition is elementwise.
        u: (batch, H, L), L >= piece.
        state: None for rest.
        piece: steps of a piece.
        chunk_steps: as in `run`; a step of all pieces counts as that many steps, but one of each is kept at least.

    Accuracy: a scan whose states are passed on in the order of time after every `piece` steps (docs/bounds.md, Scans).
    Domain: no product of the transitions of one piece overflows.
    """
    count = u.shape[-1] // piece
    whole = count * piece
    in_all = None if chunk_steps is None else max(1, chunk_steps // count)
    rows = u[..., :whole].reshape(*u.shape[:-1], count, piece).movedim(-2, 0)  # (pieces, batch, H, T)
    ends, products = _summary(recurrence, rows, in_all)
    x = recurrence.at_rest(u) if state is None else state
    starts = []
    for i in range(count):
        starts.append(x)
        # From rest the product is not needed, and need not be finite.
        x = ends[i] if state is None and i == 0 else products[i] * x + ends[i]
    y, finals = run(recurrence, rows, stack(starts, 0), in_all)
    y, final = y.movedim(0, -2).flatten(-2), finals[-1]
    if whole == u.shape[-1]:
        return y, final
    rest, final = run(recurrence, u[..., whole:], final, chunk_steps)
    return torch.cat([y, rest], -1), final


def _summary(recurrence: Recurrence, rows: torch.Tensor, chunk_steps: int | None) -> tuple[Number, list[Number]]:
    """The state after each piece from rest, and the product of its transitions."""
    x = recurrence.at_rest(rows)
    product = None
    for start, stop in chunks(recurrence, rows.shape[-1], x, chunk_steps):
        for at in recurrence.steps(time_first(rows, start, stop)):
            x = recurrence.step(x, at)
            product = at.diagonal if product is None else at.diagonal * product
    assert product is not None
    # Without the liquid term all pieces have one product, (H, M).
    products = [product[i] if recurrence.liquid else product for i in range(rows.shape[0])]
    return x, products
