"""Truncated output vectors against matrices that are multiplied out, and their gradients against differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from liquid_ssm.backends._cauchy import _truncated_output
from liquid_ssm.backends.keops_kernels.truncation import real_matrix, real_matrix_vjp, truncate, truncate_vjp
from liquid_ssm.rounding_errors import realization_of
from liquid_ssm.testing.strategies import discretized_system, random_system


def of(system):
    p = {name: torch.tensor(array) for name, array in system.parameters.items()}
    return p["Lambda_bar"], p["P_bar"], p["Q_bar"], p["C"]


@pytest.mark.parametrize("pairs", [True, False])
@pytest.mark.parametrize("n", [2, 64, 2**14])
def test_all_channels_at_once_are_as_one_by_one(pairs, n):
    # One channel decays at once, the other hardly: they take different ways to the power.
    slow = discretized_system("dplr", n_channels=1, n_modes=3, dt=1e-6, seed=3, conjugate_pairs=pairs)
    fast = random_system("dplr", n_channels=1, n_modes=3, decay=3.0, seed=4, conjugate_pairs=pairs)
    both = zip(of(slow), of(fast), (0, 1, 1, 0), strict=True)
    Lambda, P, Q, C = (torch.cat([a, b], dim=axis) for a, b, axis in both)
    found = truncate(Lambda, P, Q, C, n, conjugate_pairs=pairs)
    for h in range(2):
        parameters = (v.numpy() for v in (Lambda[h], P[:, h], Q[:, h], C[h]))
        damping, C_tilde = _truncated_output(*parameters, n, pairs)
        # the same operations, but sums of 6 terms in other orders, at most 2 · 14 of them one after the other
        assert abs(found.damping[h] - damping) <= 1e-13 * (1 + damping)
        assert np.abs(found.C_tilde[h].numpy() - C_tilde).max() <= 1e-13 * np.abs(C_tilde).max()


@pytest.mark.parametrize("pairs", [True, False])
def test_the_real_matrix_acts_as_the_system_does(pairs):
    system = random_system("dplr", n_channels=2, n_modes=3, rank=2, seed=5, conjugate_pairs=pairs)
    matrix = real_matrix(*of(system)[:3], pairs).numpy()
    A, _, _ = realization_of(system).full_matrices()
    x = np.random.default_rng(0).normal(size=(2, 3, 2)) @ [1, 1j]
    state = np.concatenate([x, x.conj()], axis=1) if pairs else x
    expected = np.einsum("hnm,hm->hn", A, state)[:, :3]
    found = np.einsum("hnm,hm->hn", matrix, np.concatenate([x.real, x.imag], axis=1))
    assert np.allclose(found, np.concatenate([expected.real, expected.imag], axis=1), rtol=0, atol=1e-14)


@pytest.mark.parametrize("pairs", [True, False])
@pytest.mark.parametrize("n", [2, 16])
def test_gradients_are_those_of_autograd(pairs, n):
    system = random_system("dplr", n_channels=2, n_modes=3, rank=2, seed=6, conjugate_pairs=pairs)
    leaves = [v.clone().requires_grad_() for v in of(system)]
    cotangent = torch.randn(2, 3, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    recorded = truncate(*leaves, n, conjugate_pairs=pairs)
    # The radius is a constant for the adjoint: move its gradient out of the way by fixing it where it is 1.
    assert not recorded.damping.any()
    expected = torch.autograd.grad((cotangent * recorded.C_tilde).real.sum(), leaves)
    Lambda, P, Q, C = of(system)
    grad_C, grad_matrix = truncate_vjp(truncate(Lambda, P, Q, C, n, conjugate_pairs=pairs), C, cotangent)
    found = (*real_matrix_vjp(P, Q, grad_matrix, pairs), grad_C)
    for gradient, other in zip(found, expected, strict=True):
        assert (gradient - other).abs().max() <= 1e-13 * other.abs().max()
