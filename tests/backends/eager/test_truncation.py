"""Truncated output vectors against matrices that are multiplied out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from liquid_ssm.backends import _cauchy as readable
from liquid_ssm.backends._cauchy import _truncated_output
from liquid_ssm.backends.eager.truncation import real_matrix, truncate
from liquid_ssm.continuous import ContinuousSystem
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


@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize("paired", [True, False])
def test_real_matrix_is_that_of_the_readable_backend(paired: bool, rank: int) -> None:
    rng = np.random.default_rng(rank)
    integers = rng.integers(-3, 4, (2, 1 + 2 * rank, 2, 3)).astype(float)
    poles, *factors = integers[0] + 1j * integers[1]
    P, Q = (np.array(v, complex).reshape(rank, 2, 3) for v in (factors[:rank], factors[rank:]))
    found = real_matrix(*map(torch.tensor, (poles, P, Q)), paired).numpy()
    for h in range(2):
        assert np.array_equal(found[h], readable.real_matrix(poles[h], P[:, h], Q[:, h], paired))


def test_what_a_system_that_has_decayed_keeps_of_its_output_is_rounded_once() -> None:
    # Squared from Ā itself: from Āⁿ - I, which is near -I here, C would come back with ten times the error.
    rng = np.random.default_rng(0)
    Lambda = -rng.uniform(0.1, 1, (2, 16)) + 1j * rng.uniform(0, 10, (2, 16))
    P, B, C = (rng.normal(size=(*shape, 2)) @ [1, 1j] for shape in ((1, 2, 16), (2, 16), (2, 16)))
    system = ContinuousSystem(Lambda, B, C, np.asarray(1.5), P).discretize("bilinear")
    poles, P, Q, C = of(system)
    found = truncate(poles, P, Q, C, 4096, conjugate_pairs=True)
    damping, truncated = found.damping, found.C_tilde
    power = real_matrix(poles, P, Q, True).numpy().astype(np.longdouble)
    for _ in range(12):
        power = np.einsum("hij,hjk->hik", power, power)
    row = torch.cat([C.real, -C.imag], -1).numpy().astype(np.longdouble)
    exact = row - np.einsum("hi,hij->hj", row, power)
    error = np.abs(torch.cat([truncated.real, -truncated.imag], -1).numpy() - exact)
    assert torch.equal(damping, torch.zeros(2, dtype=torch.float64))
    assert np.abs(power).sum(-1).max() <= 2.0**-30
    # One subtraction; errors of the power are below 2^-10 of that.
    assert (error <= 2.0**-53 * (1 + 2.0**-10) * np.abs(exact)).all()
