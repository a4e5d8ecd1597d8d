"""Time: causality, stepping, carrying states, delays."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..example import Example
from ..subject import Subject, part, require_equal, require_identical
from .accuracy import RECURRENCES
from .property import Property


def _causal(subject: Subject, example: Example) -> None:
    j = example.choice % example.length
    changed = example.u.copy()
    changed[..., j:] += 1
    later = example.having(u=changed)
    y, z = subject.outputs(example)[..., :j], subject.outputs(later)[..., :j]
    bounds = [subject.bound(e) for e in (example, later)]
    other = f"its value after u was changed from step {j} on"
    if subject.is_time_ordered(*bounds, example=example):
        require_identical(y, z, "y", other)
    else:
        require_equal(y, z, [part(b, slice(0, j)) for b in bounds], "y", other)


def _steps(subject: Subject, example: Example) -> None:
    state: Any = example.state
    outputs = []
    for k in range(example.length):
        y_k, state = subject.step(example, k, state)
        outputs.append(y_k)
    y = np.stack(outputs, axis=-1)
    _same_as_whole(subject, example, y, "y computed step by step")


def _pieces(subject: Subject, example: Example) -> None:
    cut = example.choice % (example.length + 1)
    first, state = subject.outputs_and_state(example.having(u=example.u[..., :cut]))
    second, _ = subject.outputs_and_state(example.having(u=example.u[..., cut:]), state)
    _same_as_whole(
        subject, example, np.concatenate([first, second], axis=-1), f"y computed in two pieces, cut at {cut},"
    )


def _same_as_whole(subject: Subject, example: Example, y: Any, what: str) -> None:
    carried, whole = subject.bound(example, state=True), subject.bound(example)
    require_equal(y, subject.outputs(example), [carried, whole], what, "y of the whole sequence")


def _padded(subject: Subject, example: Example) -> None:
    zeros = np.zeros((*example.u.shape[:2], 1 + example.choice % 9), example.u.dtype)
    longer = example.having(u=np.concatenate([example.u, zeros], axis=-1))
    seen = slice(0, example.length)
    bounds = [subject.bound(example), part(subject.bound(longer), seen)]
    other = f"y after {zeros.shape[-1]} zeros were appended to u"
    require_equal(subject.outputs(example), subject.outputs(longer)[..., seen], bounds, "y", other)


def _delayed(subject: Subject, example: Example) -> None:
    delay = 1 + example.choice % 9
    zeros = np.zeros((*example.u.shape[:2], delay), example.u.dtype)
    later = example.having(u=np.concatenate([zeros, example.u], axis=-1))
    y, z = subject.outputs(example), subject.outputs(later)
    bounds = [subject.bound(example), part(subject.bound(later), slice(delay, None))]
    require_equal(z[..., delay:], y, bounds, f"y delayed by {delay} zeros", "y")
    require_equal(
        z[..., :delay], np.zeros_like(zeros), [part(subject.bound(later), slice(0, delay))], "y of leading zeros", "0"
    )


def _repeatable(subject: Subject, example: Example) -> None:
    require_identical(subject.outputs(example), subject.outputs(example), "y", "y of a second call")


TIME = (
    Property(
        "causality",
        "u_j does not reach y_k for k < j: bit for bit where the computation runs in the order of time, else within "
        "the bounds",
        _causal,
        options={"min_length": 1, "min_batch": 1},
        weight=2,
    ),
    Property(
        "steps",
        "time step after time step gives the same as the whole sequence",
        _steps,
        state=True,
        options={"min_length": 1, "max_length": 12},
    ),
    Property(
        "steps-from-state",
        "started from a given state, time step after time step gives the same as the whole sequence",
        _steps,
        forms=RECURRENCES,
        state=True,
        options={"min_length": 1, "max_length": 12, "with_state": True},
    ),
    Property(
        "pieces",
        "two pieces of a sequence joined by the state give the same as one call",
        _pieces,
        state=True,
        weight=2,
    ),
    Property("padding", "zeros appended to u do not change the outputs before them", _padded),
    Property("time-invariance", "u delayed by zeros gives y delayed by zeros", _delayed),
    Property("repeatability", "the same call gives the same result, bit for bit", _repeatable),
)
