"""Rows, channels, memory layout, and the two ways to store a real system."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...oracle.reference import Bound
from ...systems import System
from ..example import Array, Example
from ..subject import Subject, require_equal
from .accuracy import RECURRENCES
from .property import Property


def _rows(bound: Bound, batch: Any = slice(None), channels: Any = slice(None)) -> Bound:
    return Bound(bound.componentwise[batch][:, channels], bound.normwise[batch][:, channels])


def _batch_rows(subject: Subject, example: Example) -> None:
    row = example.choice % len(example.u)
    alone = example.having(
        u=example.u[row : row + 1], state=None if example.state is None else example.state[row : row + 1]
    )
    whole, bound = subject.outputs(example), subject.bound(example)
    bounds = [_rows(bound, slice(row, row + 1)), subject.bound(alone)]
    require_equal(whole[row : row + 1], subject.outputs(alone), bounds, f"row {row} of the batch", "the row alone")


def _batch_order(subject: Subject, example: Example) -> None:
    # Rows that differ: the strategy's constant inputs are equal in all of them.
    scale = 2.0 ** -np.arange(len(example.u))
    rows = example.having(u=(example.u * scale[:, None, None]).astype(example.u.dtype))
    order = np.roll(np.arange(len(example.u)), 1 + example.choice)
    moved = rows.having(u=rows.u[order], state=None if rows.state is None else rows.state[order])
    bounds = [_rows(subject.bound(rows), order), subject.bound(moved)]
    require_equal(
        subject.outputs(rows)[order], subject.outputs(moved), bounds, "y with its rows permuted", "y of permuted rows"
    )


def _channel_order(subject: Subject, example: Example) -> None:
    channels = np.roll(np.arange(example.u.shape[1]), 1 + example.choice)
    scale = 2.0 ** -np.arange(example.u.shape[1])
    scaled = example.having(u=(example.u * scale[:, None]).astype(example.u.dtype))
    moved = scaled.having(
        system=scaled.system.take(list(channels)),
        u=scaled.u[:, channels],
        state=None if scaled.state is None else scaled.state[:, channels],
    )
    bounds = [_rows(subject.bound(scaled), slice(None), channels), subject.bound(moved)]
    require_equal(
        subject.outputs(scaled)[:, channels],
        subject.outputs(moved),
        bounds,
        "y with its channels permuted",
        "y of permuted channels",
    )


def _strides(subject: Subject, example: Example) -> None:
    layouts = {
        "in Fortran order": np.asfortranarray(example.u),
        "with negative strides": np.ascontiguousarray(example.u[..., ::-1])[..., ::-1],
        "a slice of a larger array": np.repeat(example.u, 2, axis=-1)[..., ::2],
        "with its channels last in memory": np.ascontiguousarray(example.u.swapaxes(1, 2)).swapaxes(1, 2),
        "with time first in memory": np.ascontiguousarray(np.moveaxis(example.u, -1, 0)).transpose(1, 2, 0),
    }
    name, u = list(layouts.items())[example.choice % len(layouts)]
    bound = subject.bound(example)
    require_equal(subject.outputs(example.having(u=u)), subject.outputs(example), [bound, bound], f"y of u {name}", "y")


def full_system(system: System) -> System:
    """The system with both halves of every conjugate pair stored; the same outputs."""

    def both(array: Array, axis: int = -1) -> Array:
        return np.concatenate([array, array.conj()], axis=axis)

    if not system.conjugate_pairs:
        return system
    axes = {"B_bar": 0} if system.structure == "mimo" else {}
    arrays = {name: both(array, axes.get(name, -1)) for name, array in system.parameters.items()}
    return type(system)(**arrays, conjugate_pairs=False)


def _conjugates(subject: Subject, example: Example) -> None:
    state = None if example.state is None else np.concatenate([example.state, example.state.conj()], axis=-1)
    if not example.system.conjugate_pairs:
        return  # drawn half of the time: nothing is left out of it
    full = example.having(system=full_system(example.system), state=state)
    bounds = [subject.bound(e) for e in (example, full)]
    y, z = subject.outputs(example), subject.outputs(full)
    require_equal(y, z, bounds, "y of one of each conjugate pair", "y of the full system")


LAYOUT = (
    Property("batch-rows", "a row of a batch gives the same as the row alone", _batch_rows, options={"min_batch": 1}),
    Property(
        "batch-order", "permuting the rows of a batch permutes the outputs", _batch_order, options={"min_batch": 2}
    ),
    Property(
        "channel-order",
        "permuting the channels permutes the outputs",
        _channel_order,
        structures=("diagonal", "dplr", "dense"),
    ),
    Property("strides", "the memory layout of u does not matter", _strides),
    Property(
        "conjugate-pairs",
        "y is real and equal to that of the full complex system",
        _conjugates,
        structures=("diagonal", "dplr", "mimo"),
    ),
    Property(
        "conjugate-pairs-from-state",
        "started from a state, y is real and equal to that of the full complex system",
        _conjugates,
        forms=RECURRENCES,
        structures=("diagonal", "dplr", "mimo"),
        state=True,
        options={"with_state": True},
    ),
)
