"""Outputs against the exact value."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..example import Example
from ..strategies import random_system
from ..subject import PropertyViolation, Subject, require_exact
from .property import Property, spec_of

RECURRENCES = ("s4", "liquid", "truncated")
_LENGTHS = range(128, 256)  # every residue modulo 128 once: kernels break at the ends of their blocks
_EDGES = (1, 2, 16, 17, 63, 64, 65, 129)
_SHORT = (1, 2, 3, 4, 5, 7, 8, 9, 13, 15, 16, 17, 31, 32, 33, 61, 63, 64, 65, 127)


def _within_bound(subject: Subject, example: Example) -> None:
    require_exact(subject.outputs(example), subject.enclosure(example), subject.bound(example))


def _many_lengths(structure: str, form: str, dtype: str) -> Iterator[Example]:
    # The bounds of coupled structures cost more; their edges are the same, so a few of them are enough.
    for seed, length in enumerate((*_SHORT, *_LENGTHS) if structure in ("diagonal", "mimo") else _EDGES):
        system = random_system(structure, n_channels=1, n_modes=2, seed=seed).astype(dtype)
        u = np.random.default_rng(seed).normal(size=(1, 1, length)).astype(dtype)
        yield Example(system, u, spec_of(form))


def _empty(structure: str, form: str, dtype: str) -> Iterator[Example]:
    system = random_system(structure, n_channels=2, n_modes=2).astype(dtype)
    for batch, length in ((0, 3), (2, 0), (0, 0)):
        yield Example(system, np.zeros((batch, 2, length), dtype), spec_of(form))


def _empty_output(subject: Subject, example: Example) -> None:
    y = subject.outputs(example)
    if y.shape != example.u.shape:
        raise PropertyViolation(f"y has shape {y.shape} for u of shape {example.u.shape}")


ACCURACY = (
    Property(
        "within-bound",
        "y is within its derived error bound of the exact value",
        _within_bound,
        weight=3,
    ),
    Property(
        "initial-state",
        "started from a given state, y is within its derived error bound of the exact value",
        _within_bound,
        forms=RECURRENCES,
        state=True,
        options={"with_state": True, "min_length": 1},
        weight=2,
    ),
    Property(
        "lengths",
        "y is within its bound for lengths at the edges of powers of two and of every residue modulo 128",
        _within_bound,
        fixed=_many_lengths,
    ),
    Property(
        "empty",
        "an empty batch or a sequence of length 0 gives an empty y",
        _empty_output,
        fixed=_empty,
    ),
)
