"""Kernels of diagonal systems from tables against powers one by one."""

from __future__ import annotations

import numpy as np
import pytest

UNIT = {"float32": 2.0**-24, "float64": 2.0**-53}


@pytest.mark.parametrize("length", [0, 1, 2, 3, 16, 17, 100, 257])
@pytest.mark.parametrize("power", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_length(case, poisoned, length, power, dtype):
    from liquid_ssm.backends.triton_kernels.vandermonde import diagonal_kernel

    arrays, t = case(n_modes=5, dtype=dtype)
    system = arrays.system
    found = diagonal_kernel(t.system, length, power, empty=poisoned).cpu().numpy()
    a, b, c = (p.astype(np.clongdouble)[..., None] for p in system.parameters.values())
    terms = 2 * c * b**power * a ** np.arange(length)
    # Per term: its powers, the products of the tables, both of which are rounded, and a sum of 2 M terms in any order.
    inner = np.sqrt(5) * (np.arange(length) + power) * 2.0**-53
    roundings = inner + (2 * 5 + 2) * UNIT[dtype]
    if length == 1:
        roundings = inner + 2 * 5 * 2.0**-53 + UNIT[dtype]
    bound = 1.01 * (roundings * np.abs(terms).sum(1))
    assert found.dtype == dtype
    assert found.shape == (3, length)
    assert (np.abs(found - terms.real.sum(1)) <= bound).all()


def test_more_modes_than_one_sum_takes(case, poisoned, close):
    from liquid_ssm.backends.triton_kernels.vandermonde import diagonal_kernel

    arrays, t = case(n_modes=37)
    a, b, c = (p[..., None] for p in arrays.system.parameters.values())
    expected = (2 * c * b * a ** np.arange(50)).real.sum(1)
    close(diagonal_kernel(t.system, 50, 1, empty=poisoned).cpu(), expected)


def test_real_systems_and_all_modes_stored(case, poisoned, close):
    from liquid_ssm.backends.triton_kernels.vandermonde import diagonal_kernel

    arrays, t = case(conjugate_pairs=False)
    system = arrays.system
    real = type(system)(system.A_bar.real, system.B_bar.real, system.C.real, conjugate_pairs=False)
    a, b, c = (p[..., None] for p in real.parameters.values())
    found = diagonal_kernel(real.to_torch(t.u.device), 20, 2, empty=poisoned)
    close(found.cpu(), (c * b**2 * a ** np.arange(20)).sum(1))
