"""Gradients of truncated output vectors against those of autograd."""

from __future__ import annotations

import pytest
import torch

from liquid_ssm.backends.eager.truncation import truncate
from liquid_ssm.backends.keops_kernels.truncation import real_matrix_vjp, truncate_vjp
from liquid_ssm.testing.strategies import random_system


def of(system):
    p = {name: torch.tensor(array) for name, array in system.parameters.items()}
    return p["Lambda_bar"], p["P_bar"], p["Q_bar"], p["C"]


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
