from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from liquid_ssm.backends._transition import Dense, Diagonal, DiagonalPlusLowRank, transition_of
from liquid_ssm.systems import DenseSystem, DiagonalSystem, DPLRSystem, MIMOSystem, System

H, M, R = 2, 3, 2


def integers(rng: np.random.Generator, *shape: int, real: bool = False) -> Any:
    """Small whole numbers, so that every sum and product below is exact."""
    values = rng.integers(-4, 5, shape).astype(float)
    return values if real else values + 1j * rng.integers(-4, 5, shape)


def make(name: str, seed: int) -> System:
    rng = np.random.default_rng(seed)
    B, C = integers(rng, H, M), integers(rng, H, M)
    if name.startswith("diagonal"):
        return DiagonalSystem(integers(rng, H, M, real=name.endswith("real")), B, C)
    if name.startswith("dplr"):
        pairs = not name.endswith("all-modes")
        low_rank = (integers(rng, R, H, M), integers(rng, R, H, M))
        return DPLRSystem(integers(rng, H, M), *low_rank, B, C, conjugate_pairs=pairs)
    if name.startswith("dense"):
        return DenseSystem(integers(rng, H, M, M, real=name.endswith("real")), B, C)
    return MIMOSystem(integers(rng, M), integers(rng, M, H), integers(rng, H, M))


NAMES = ["diagonal", "diagonal real", "dplr", "dplr all-modes", "dense", "dense real", "mimo"]


def matrices(system: System) -> Any:
    """Ā on the full state, (H, n, n), n = 2M where half of it is stored."""
    if isinstance(system, DenseSystem):
        return system.A_bar
    diagonal = system.Lambda_bar if isinstance(system, DPLRSystem) else system.A_bar
    diagonal = np.broadcast_to(diagonal, (H, M))
    P, Q = (system.P_bar, system.Q_bar) if isinstance(system, DPLRSystem) else (np.zeros((0, H, M)),) * 2
    if system.conjugate_pairs:
        diagonal, P, Q = (np.concatenate([v, np.conj(v)], axis=-1) for v in (diagonal, P, Q))
    return np.stack([np.diag(diagonal[h]) - P[:, h].T @ np.conj(Q[:, h]) for h in range(H)])


def states(system: System, rng: np.random.Generator, *lead: int) -> Any:
    return integers(rng, *lead, M) if system.structure == "mimo" else integers(rng, *lead, H, M)


def inner(a: Any, b: Any) -> float:
    return float(np.sum(a.real * b.real + a.imag * b.imag))


def test_kinds() -> None:
    assert isinstance(transition_of(make("diagonal", 0)), Diagonal)
    assert isinstance(transition_of(make("mimo", 0)), Diagonal)
    assert isinstance(transition_of(make("dplr", 0)), DiagonalPlusLowRank)
    assert isinstance(transition_of(make("dense", 0)), Dense)


def test_diagonal_by_hand() -> None:
    transition = Diagonal(np.array([[0.5 + 1j]]))
    x = np.array([[2 - 2j]])
    np.testing.assert_array_equal(transition.apply(x), [[3 + 1j]])
    np.testing.assert_array_equal(transition.apply(x, np.array([[1j]])), [[5 + 3j]])
    np.testing.assert_array_equal(transition.adjoint(x), [[-1 - 3j]])


def test_low_rank_part_by_hand() -> None:
    # s = 2 Re(conj(1j)·(2 + 3j) + conj(1)·(-1)) = 2·(3 - 1) = 4, so Ā x = Λ̄ x - P·4.
    one = np.ones((1, 2))
    parameters = np.array([[1j, 0.5]]), np.array([[[0.25, 1j]]]), np.array([[[1j, 1]]]), one, one
    system = DPLRSystem(*parameters)
    x = np.array([[2 + 3j, -1]])
    np.testing.assert_array_equal(transition_of(system).apply(x), [[-4 + 2j, -0.5 - 4j]])
    all_modes = DPLRSystem(*parameters, conjugate_pairs=False)
    # s = conj(1j)·(2 + 3j) + (-1) = 3 - 2j - 1 = 2 - 2j.
    np.testing.assert_array_equal(transition_of(all_modes).apply(x), [[-3 + 2j - 0.5 + 0.5j, -0.5 - 2 - 2j]])


def test_dense_by_hand() -> None:
    transition = Dense(np.array([[[1, 2], [3, 4.0]]]))
    np.testing.assert_array_equal(transition.apply(np.array([[1, 10.0]])), [[21, 43]])
    np.testing.assert_array_equal(transition.apply(np.array([[1, 10.0]]), np.array([[5, 0.5]])), [[26, 48]])
    np.testing.assert_array_equal(transition.adjoint(np.array([[1, 10.0]])), [[31, 42]])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("liquid", [False, True])
def test_apply_is_the_matrix_on_the_full_state(name: str, liquid: bool) -> None:
    system, rng = make(name, 1), np.random.default_rng(2)
    x, w = states(system, rng, 4, 5), states(system, rng, 4, 5)
    computed = transition_of(system).apply(x, w if liquid else None)
    x, w, computed = (np.broadcast_to(v[..., None, :], (4, 5, H, M)) if name == "mimo" else v for v in (x, w, computed))
    full = [np.concatenate([v, np.conj(v)], axis=-1) if system.conjugate_pairs else v for v in (x, w)]
    expected = np.einsum("hnm,abhm->abhn", matrices(system), full[0]) + (full[1] * full[0] if liquid else 0)
    np.testing.assert_array_equal(computed, expected[..., :M])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("liquid", [False, True])
def test_adjoint_identity_holds_exactly(name: str, liquid: bool) -> None:
    system, rng = make(name, 3), np.random.default_rng(4)
    x, w, cotangent = (states(system, rng, 5) for _ in range(3))
    transition, w = transition_of(system), w if liquid else None
    assert inner(cotangent, transition.apply(x, w)) == inner(transition.adjoint(cotangent, w), x)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_exact_for_every_parameter(name: str) -> None:
    # Ā x is linear in each parameter alone, so a difference of two values is the derivative.
    system, rng = make(name, 5), np.random.default_rng(6)
    x, cotangent = states(system, rng, 2, 3), states(system, rng, 2, 3)
    gradients = transition_of(system).gradients(x, cotangent)
    assert gradients.keys() == system.parameters.keys() - {"B_bar", "C"}
    for parameter, gradient in gradients.items():
        value = system.parameters[parameter]
        direction = integers(rng, *value.shape, real=not np.iscomplexobj(value))
        moved = type(system)(
            **{**system.parameters, parameter: value + direction}, conjugate_pairs=system.conjugate_pairs
        )
        change = transition_of(moved).apply(x) - transition_of(system).apply(x)
        assert gradient.shape == value.shape
        assert inner(gradient, direction) == inner(cotangent, change)


def test_rank_zero_is_diagonal() -> None:
    system = make("diagonal", 7)
    nothing = np.empty((0, H, M), complex)
    dplr = DPLRSystem(system.parameters["A_bar"], nothing, nothing, system.B_bar, system.C)
    x = states(system, np.random.default_rng(8), 2)
    for method in ("apply", "adjoint"):
        expected = getattr(transition_of(system), method)(x, x)
        np.testing.assert_array_equal(getattr(transition_of(dplr), method)(x, x), expected)
    assert transition_of(dplr).gradients(x, x)["P_bar"].shape == (0, H, M)
