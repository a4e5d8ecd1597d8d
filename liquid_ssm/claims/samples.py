"""The systems that claims are checked on: generic ones, whose entries are variables, random rationals, and HiPPO."""

from __future__ import annotations

import random
from fractions import Fraction
from typing import Any

import numpy as np
from flint import fmpq_mpoly_ctx

from ..hippo import hippo
from ..oracle.discretisation import discretize
from .ring import Matrix, System, diagonal


def variables(*names: str) -> list[Any]:
    """Independent variables of one polynomial ring over the rationals."""
    return list(fmpq_mpoly_ctx.get(list(names), "lex").gens())


def indexed(name: str, count: int) -> list[str]:
    """`name0`, `name1`, …"""
    return [f"{name}{i}" for i in range(count)]


def generic_system(n_state: int, length: int, *, commuting: bool = False) -> System:
    """Every entry of Ā, B̄, C and u a variable: a polynomial identity in them holds for all values.

    Args:
        n_state: N.
        length: L.
        commuting: Ā is diagonal, so that it commutes with diag(B̄).
    """
    count = n_state if commuting else n_state**2
    names = [*indexed("a", count), *indexed("b", n_state), *indexed("c", n_state), *indexed("u", length)]
    v = iter(variables(*names))

    def take(how_many: int) -> list[Any]:
        return [next(v) for _ in range(how_many)]

    A: Matrix = diagonal(take(n_state)) if commuting else [take(n_state) for _ in range(n_state)]
    return System(A, take(n_state), take(n_state), take(length))


def rationals(count: int, seed: int = 0, bound: int = 9) -> list[Fraction]:
    """Random fractions p/q with 1 ≤ |p|, q ≤ bound."""
    draw = random.Random(seed)
    return [Fraction(draw.choice((-1, 1)) * draw.randint(1, bound), draw.randint(1, bound)) for _ in range(count)]


def rational_system(n_state: int, length: int, *, commuting: bool = False, seed: int = 0) -> System:
    """A system of random fractions, Ā full or diagonal."""
    entries = iter(rationals(n_state**2 + 2 * n_state + length, seed))

    def take(how_many: int) -> list[Fraction]:
        return [next(entries) for _ in range(how_many)]

    A: Matrix = diagonal(take(n_state)) if commuting else [take(n_state) for _ in range(n_state)]
    return System(A, take(n_state), take(n_state), take(length))


def legs(n_state: int, dt: float) -> tuple[Any, Any]:
    """(Ā (N, N), B̄ (N,)) of HiPPO-LegS in its own basis (Eq. 7) by the bilinear transform (Eq. 3), exact fractions.

    Args:
        n_state: N.
        dt: step [time].
    """
    A, B = hippo("legs", n_state)
    A_bar, B_bar = discretize(A[None], B[None], np.array([dt]), "bilinear", precision="exact")
    return A_bar[0], B_bar[0]
