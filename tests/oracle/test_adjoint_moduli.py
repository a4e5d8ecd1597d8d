"""Gradients of the system of moduli, against dual numbers, and the roundings on their terms."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liquid_ssm.oracle.adjoint import gradients_by_duals
from liquid_ssm.oracle.adjoint_moduli import GradientProblem, moduli_gradients, of_moduli, roundings, sum_cost
from liquid_ssm.oracle.realization import Realization
from liquid_ssm.oracle.rounding import RoundingModel
from liquid_ssm.rounding_errors import realization_of
from liquid_ssm.testing.strategies import random_system

CORRELATED = [(mode, c) for mode in ("kb", "pb") for c in ("all", "adjacent")]
MODES = [("s4", "all"), ("liquid", "all"), ("truncated", "all"), *CORRELATED]
EXACT = RoundingModel(2.0**-53, 0.0)


def problem(
    r: Realization, u: Any, grad_y: Any, mode: str, correlations: str, window: int | None, order: int
) -> GradientProblem:
    orders = 1 if mode in ("s4", "liquid") else order
    return GradientProblem(r, u, mode, orders, correlations, window, None, grad_y, None)


@pytest.mark.parametrize("structure", ["diagonal", "dplr", "dense", "mimo"])
@pytest.mark.parametrize(("mode", "correlations"), MODES)
@settings(max_examples=5)
@given(
    seed=st.integers(0, 2**32 - 1),
    length=st.integers(1, 5),
    batch=st.integers(1, 2),
    order=st.integers(1, 3),
    window=st.none() | st.integers(3, 6),
)
def test_they_are_the_dual_numbers_of_moduli(
    structure: str, mode: str, correlations: str, seed: int, length: int, batch: int, order: int, window: int | None
) -> None:
    if structure == "mimo" and mode in ("kb", "pb"):
        return
    window = window if mode in ("kb", "pb") else None
    r = realization_of(random_system(structure, n_channels=2 if structure == "mimo" else 1, n_modes=2, seed=seed))
    u, grad_y = np.random.default_rng(seed).normal(size=(2, batch, r.n_channels, length))
    found = moduli_gradients(problem(r, u, grad_y, mode, correlations, window, order), EXACT)
    options: Any = {"order": order, "correlations": correlations, "window": window}
    exact = gradients_by_duals(of_moduli(r), np.abs(u), mode, np.abs(grad_y), **options)
    for name, expected in exact.items():
        size = np.abs(np.array([complex(z.real, z.imag) for z in expected.ravel()])).reshape(expected.shape)
        assert found[name].shape == expected.shape
        # longdouble throughout, and the dual numbers rounded once: far below a thousand units of float64
        np.testing.assert_allclose(found[name].astype(float), size, rtol=1e-13, atol=0)


def test_the_minus_of_a_low_rank_part_adds() -> None:
    r = Realization("dplr", *np.ones((3, 1, 1)), np.ones((1, 1, 1)), np.ones((1, 1, 1)), conjugate_pairs=False)
    # Ā = 1 − 1·1 = 0 forgets everything; of moduli it is 2.
    u = np.ones((1, 1, 4))
    sizes = moduli_gradients(problem(r, u, u, "s4", "all", None, 1), EXACT)
    assert sizes["u"][0, 0].tolist() == [15, 7, 3, 1]


def test_floors_cover_what_underflow_loses() -> None:
    # Every product underflows, so each computed gradient is 0 and the exact ones are below the smallest subnormal.
    r = Realization("diagonal", *np.full((3, 1, 1), 1e-30 + 0j))
    u = np.full((1, 1, 3), 1e-30)
    model = RoundingModel.of_dtype(np.float32)
    sizes = moduli_gradients(problem(r, u, u, "liquid", "all", None, 1), model)
    assert all(np.all(size >= model.tiny / model.unit) for size in sizes.values())


def test_costs_of_sums() -> None:
    tree, separate = RoundingModel(0.5, 0.0, pairwise=True, fused=False), RoundingModel(0.5, 0.0, fused=False)
    unknown = RoundingModel(0.5, 0.0)
    assert sum_cost(1, tree) == sum_cost(1, separate) == tree.product
    assert sum_cost(8, tree) == tree.product + 3
    assert sum_cost(9, separate) == separate.product + 8
    # 18 real products behind each part, whose moduli add up to √2 times those of the complex ones at the most
    assert sum_cost(9, unknown) == pytest.approx(18 * 2**0.5)


@pytest.mark.parametrize(("mode", "correlations"), MODES)
def test_roundings_grow_with_everything_that_adds_one(mode: str, correlations: str) -> None:
    r = realization_of(random_system("dplr", n_channels=1, n_modes=2))
    u = np.ones((2, 1, 6))
    base = problem(r, u, u, mode, correlations, None, 2)
    model = RoundingModel.of_dtype(np.float64, pairwise=True, fused=False)
    n = roundings(base, model)
    longer = np.ones((2, 1, 7))
    assert roundings(replace(base, u=longer, grad_y=longer), model) > n
    assert roundings(replace(base, realization=realization_of(random_system("dplr", n_modes=9))), model) > n
    assert roundings(base, replace(model, scan="any")) > n
    assert roundings(base, replace(model, pairwise=False)) > n
    assert roundings(base, replace(model, fused=None)) > n
    # sums and polynomials of inputs, which only these modes have
    assert (roundings(base, replace(model, correlations="any")) > n) == (mode in ("kb", "pb"))
