"""Rows of different lengths in one batch: what lies outside of a row's true length has no influence on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..errors import ParameterError, ShapeError, unknown_name
from ..tensors import each_part, has_numbers

Run = Callable[..., tuple[torch.Tensor, Any]]

SIDES = ("right", "left")


def require_padding(padding: str) -> None:
    """Raise a `ParameterError` unless it is one of `SIDES`."""
    if padding not in SIDES:
        raise unknown_name("padding", padding, SIDES)


def mask(lengths: torch.Tensor, shape: tuple[int, ...], padding: str, device: torch.device) -> torch.Tensor:
    """True where a step belongs to its row, (batch, length).

    Raises:
        ShapeError, ParameterError: lengths are not (batch,) whole numbers from 0 to length, or an unknown side.
    """
    require_padding(padding)
    batch, length = shape
    lengths = torch.as_tensor(lengths, device=device)
    if lengths.is_floating_point() or lengths.is_complex() or lengths.dtype == torch.bool:
        raise ParameterError(f"lengths have dtype {lengths.dtype}; give whole numbers, as with .long().")
    lengths = lengths.long()  # a narrow dtype may not hold the number of steps
    if tuple(lengths.shape) != (batch,):
        raise ShapeError(f"lengths have shape {tuple(lengths.shape)}; one for each of {batch} rows is ({batch},).")
    if has_numbers(lengths):
        bad = ((lengths < 0) | (lengths > length)).nonzero()
        if len(bad):
            row = int(bad[0])
            raise ParameterError(f"lengths[{row}] is {int(lengths[row])}; the rows have {length} steps.")
    at = torch.arange(length, device=device)
    return at < lengths[:, None] if padding == "right" else at >= length - lengths[:, None]


def handed_on(real: torch.Tensor | None, module: nn.Module, kind: type[nn.Module]) -> dict[str, Any]:
    """The mask as what `kind.forward` takes besides `lengths`, so that lengths are checked once for a whole model.

    On a GPU each check waits for all that was launched.  A module with a forward of its own gets lengths alone.
    """
    return {"_real": real} if real is not None and type(module).forward is kind.forward else {}


def run_padded(
    run: Run,
    x: torch.Tensor,
    real: torch.Tensor,
    padding: str,
    state: Any,
    rate: Any,
    dt: torch.Tensor | None,
    return_state: bool,
    *,
    rests: bool = True,
) -> tuple[torch.Tensor, Any]:
    """run(x, state, rate, dt, return_state) -> (y, final state), as if every row had been run by itself.

    Inputs of 0 leave a state at rest where it is, so rows that start at rest may begin with zeros, and nothing that
    comes after a row's end reaches its outputs; only a state that is given or asked for needs more than that.

    Args:
        x: (batch, length, H), 0 where not real.
        real: of `mask`.
        rests: inputs of 0 leave a state at rest where it is.  Otherwise rows begin with the first step, and a state
            that is asked for is that after the last of each.
        others: as in `SSMLayer.forward`.

    Raises:
        ShapeError, ParameterError: a state that has not one row for each of x.
    """
    _require_rows(state, x.shape[0])
    gap = (~real).sum(1)
    if dt is not None:
        dt = dt.masked_fill(~real, 1.0)  # any positive interval: nothing changes there
    by = None
    if rests and state is None and return_state and padding == "right":
        by = gap  # all rows end at the last step
    elif padding == "left" and not (rests and state is None):
        by = -gap  # all rows begin at the first
    if by is not None:
        x, dt = _rolled(x, by), None if dt is None else _rolled(dt, by)
    if return_state and not (rests and state is None):
        by_length = _by_length if has_numbers(real) else _by_powers_of_two
        y, final = by_length(run, x, real.sum(1), state, rate, dt)
    else:
        y, final = run(x, state, rate, dt, return_state)
    if by is not None:
        y = _rolled(y, -by)
    return y.masked_fill(~real[..., None], 0.0), final


def _require_rows(state: Any, rows: int) -> None:
    for part in state if isinstance(state, tuple) else (state,):
        if part is not None and not isinstance(part, torch.Tensor):
            raise ParameterError(f"state holds a {type(part).__name__}; give what an earlier call returned.")
        if part is not None and part.shape[:1] != (rows,):
            raise ShapeError(f"state has a part of shape {tuple(part.shape)}; u has {rows} rows, and so must it.")


def _rolled(values: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
    """Row r moved by by[r] steps to later ones, around the end."""
    length = values.shape[1]
    index = (torch.arange(length, device=values.device) - by[:, None]) % max(length, 1)
    return values.gather(1, index[..., None].expand_as(values) if values.ndim == 3 else index)


def _by_length(
    run: Run, x: torch.Tensor, lengths: torch.Tensor, state: Any, rate: Any, dt: torch.Tensor | None
) -> tuple[torch.Tensor, Any]:
    """Rows that begin together, those of one length in one run: a state must not go on after its row has ended."""
    if len(x) == 0:
        return run(x, state, rate, dt, True)
    y = torch.zeros_like(x)
    order, finals = [], []
    for length in sorted(set(lengths.tolist())):
        rows = (lengths == length).nonzero()[:, 0]
        part = None if dt is None else dt[rows, :length]
        found, final = run(x[rows, :length], each_part(state, lambda held, rows=rows: held[rows]), rate, part, True)
        y[rows, :length] = found
        order.append(rows)
        finals.append(final)
    back = torch.cat(order).argsort()
    if isinstance(finals[0], tuple):
        kind: Any = type(finals[0])
        return y, kind(*(None if part[0] is None else torch.cat(part)[back] for part in zip(*finals, strict=True)))
    return y, torch.cat(finals)[back]


def _by_powers_of_two(
    run: Run, x: torch.Tensor, lengths: torch.Tensor, state: Any, rate: Any, dt: torch.Tensor | None
) -> tuple[torch.Tensor, Any]:
    """`_by_length` within rounding, by pieces whose shapes do not depend on the lengths, as a compiler needs them.

    Every length is a sum of different powers of two, which its row runs from the largest to the smallest.  A row that
    has no such piece meanwhile runs zeros from rest, which stay what they are, and keeps the state that it had.
    """
    rest, final = (run(x[:, :0], start, rate, None if dt is None else dt[:, :0], True)[1] for start in (None, state))
    y, n = torch.zeros_like(x), 1
    while 2 * n <= x.shape[1]:
        n *= 2
    while n:
        mine = (lengths & n) > 0
        before = _chosen(mine, final, rest)
        part = None if dt is None else dt[:, :n]
        found, after = run(x[:, :n].masked_fill(~mine[:, None, None], 0.0), before, rate, part, True)
        final = _chosen(mine, after, final)
        # The steps to come stand at the front, the outputs found so far at the end.
        x = _chosen(mine, x.roll(-n, 1), x)
        dt = None if dt is None else _chosen(mine, dt.roll(-n, 1), dt)
        y = _chosen(mine, torch.cat([y[:, n:], found], 1), y)
        n //= 2
    return _rolled(y, lengths), final


def _chosen(mine: torch.Tensor, one: Any, other: Any) -> Any:
    """Rows of one where mine (batch,), else of the other: tensors or states of one form."""
    others = iter([part for part in other if part is not None] if isinstance(other, tuple) else [other])
    return each_part(one, lambda part: torch.where(mine.view(-1, *(1,) * (part.ndim - 1)), part, next(others)))
