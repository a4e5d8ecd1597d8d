"""Coupled recurrences: values, and bounds that neither fail nor explode."""

from __future__ import annotations

import numpy as np
import pytest

from liquid_ssm.oracle import error_transport, matrix_recurrence
from liquid_ssm.oracle.matrix_recurrence import run_matrix
from liquid_ssm.oracle.rounding import RoundingModel
from liquid_ssm.rounding_errors import realization_of
from liquid_ssm.testing.strategies import random_system

MODEL = RoundingModel.of_dtype("float32", pairwise=True)


def run(structure, link, order, length=150, seed=0, **options):
    system = random_system(structure, n_channels=1, n_modes=3, seed=seed, decay=0.05, **options)
    u = np.random.default_rng(seed).normal(size=(1, 1, length)).astype(np.longdouble)
    return system, u, run_matrix(realization_of(system), u, link, order, np.zeros((1, 1, 3)), [MODEL])


@pytest.mark.parametrize("structure", ["dense", "dplr"])
@pytest.mark.parametrize(("link", "order"), [(None, 1), ("liquid", 1), ("drive", 2), ("input", 2)])
def test_values_by_the_full_matrix(structure, link, order):
    system, u, found = run(structure, link, order, drive=0.05)
    A, B, C = (v[0] for v in realization_of(system).full_matrices())
    x = np.zeros((2, len(A)), complex)
    for k in range(u.shape[-1]):
        w = B * float(u[0, 0, k])
        second = A @ x[1] + (w if link == "drive" else float(u[0, 0, k])) * x[0]
        first = A @ x[0] + w * (1 + (x[0] if link == "liquid" else 0))
        x = np.array([first, second])
        wanted = {"drive": x.sum(axis=0), "input": x[1]}.get(str(link), x[0])
        # float64 against longdouble: 150 steps of a few roundings of numbers below 10
        assert abs((C @ wanted).real - found.y[0, 0, k]) < 150 * 100 * 2.0**-53


def test_the_bound_grows_linearly_where_componentwise_bounds_explode():
    """‖Ā‖ < 1 but the spectral radius of |Ā| is above 1: a bound through |Ā| would gain many digits."""
    system, _, found = run("dense", None, 1, length=1000, drive=0.1)
    A = np.abs(system.A_bar[0])
    assert np.abs(np.linalg.eigvals(A)).max() > 1.05
    assert found.error.max() < 1e-3 * np.abs(found.y).max()


def test_rounding_stays_within_the_bound():
    """A float32 loop with the counted operations, over several systems."""
    for seed in range(10):
        system, u, found = run("dense", "liquid", 1, seed=seed, drive=0.2)
        A, B, C = (v[0].astype(np.complex64) for v in (system.A_bar, system.B_bar, system.C))
        exact = realization_of(system.astype("float32"))
        found = run_matrix(exact, u.astype(np.float32).astype(np.longdouble), "liquid", 1, np.zeros((1, 1, 3)), [MODEL])
        x = np.zeros(3, np.complex64)
        for k in range(u.shape[-1]):
            w = B * np.float32(u[0, 0, k])
            product = A * x
            x = ((product[:, 0] + product[:, 1]) + product[:, 2] + w * x) + w
            terms = C.real * x.real - C.imag * x.imag
            y = (terms[0] + terms[1]) + terms[2]
            assert abs(y - found.y[0, 0, k]) <= found.error[0, 0, 0, k]


def test_blocks_of_another_length_change_the_bound_but_not_the_values(monkeypatch):
    _, _, wide = run("dplr", "liquid", 1)
    monkeypatch.setattr(error_transport, "BLOCK", 16)
    _, _, narrow = run("dplr", "liquid", 1)
    assert np.array_equal(wide.y, narrow.y)
    assert np.all(narrow.error < 10 * wide.error)
    assert np.all(wide.error < 10 * narrow.error)


def test_where_the_first_guess_fails_the_second_run_is_checked_too(monkeypatch):
    _, _, usual = run("dense", "liquid", 1)
    monkeypatch.setattr(matrix_recurrence, "_GUESS", 2.0**-40)
    _, _, second = run("dense", "liquid", 1)
    assert np.isfinite(second.error).all()
    # it allows for states with their true errors, not for 2^-8 of the largest: a tighter bound, if anything
    assert np.all(second.error <= usual.error * (1 + 2.0**-6))


def test_errors_beyond_the_derivation_are_infinite_not_small(monkeypatch):
    """The bound assumes that computed states stay near exact ones; where they may not, it says nothing."""
    monkeypatch.setattr(matrix_recurrence, "_GUESS", 2.0**-40)
    monkeypatch.setattr(matrix_recurrence, "_ALLOWANCE", 0.5)
    _, _, found = run("dense", "liquid", 1)
    assert np.isinf(found.error).all()


@pytest.mark.parametrize("structure", ["dense", "dplr"])
@pytest.mark.parametrize(("link", "order"), [(None, 1), ("liquid", 1), ("drive", 2), ("input", 3)])
def test_models_are_bounded_side_by_side_as_alone(structure, link, order):
    """Products are shared by all models, and models that compute in the same way are bounded once."""
    system = realization_of(random_system(structure, n_channels=2, n_modes=4, decay=0.05, drive=0.2))
    rng = np.random.default_rng(0)
    u, x0 = rng.normal(size=(2, 2, 150)), np.zeros((2, 2, 4))
    models = [
        RoundingModel.of_dtype("float32"),
        MODEL,
        RoundingModel.of_dtype("float32", pairwise=True, fft=True),
        RoundingModel.of_dtype("float32", pairwise=True, fused=True),
        MODEL,
    ]
    wrong = 1e-6 * rng.random((5, *u.shape))
    wrong[2] = wrong[1]
    for error in (None, wrong):
        together = run_matrix(system, u, link, order, x0, models, input_error=error).error
        for i, model in enumerate(models):
            alone = run_matrix(system, u, link, order, x0, [model], input_error=None if error is None else error[[i]])
            # sums of the same numbers, in another order where arrays have another shape
            assert np.allclose(alone.error[0], together[i], rtol=2.0**-40)
        assert np.array_equal(together[1], together[2])
        if error is None:  # the order of sums is unknown; products are contracted (order p is 0 before step p)
            assert np.all(together[0] > together[1])
            assert np.all(together[3][..., order:] < together[1][..., order:])


def test_a_run_without_models_has_no_bounds():
    system = realization_of(random_system("dplr", n_channels=1, n_modes=3))
    found = run_matrix(system, np.ones((1, 1, 70)), "liquid", 1, np.zeros((1, 1, 3)), [])
    assert found.error.shape == (0, 1, 1, 70)
    assert np.isfinite(found.y.astype(float)).all()
