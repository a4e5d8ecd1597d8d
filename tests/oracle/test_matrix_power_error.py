"""Dense kernels are within their bound entry by entry, real and complex, at every length where the tables change."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest

from liquid_ssm.backends._matrix_powers import dense_kernel
from liquid_ssm.oracle.enclosure import enclose_kernel
from liquid_ssm.oracle.matrix_power_error import matrix_power_error
from liquid_ssm.oracle.realization import Realization

U = 2.0**-53


def system(n_state, kind, seed, norm=1.0):
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.normal(size=shape) + (1j * rng.normal(size=shape) if kind is complex else 0)

    A = normal(1, n_state, n_state)
    return norm * A / np.linalg.norm(A[0], 2), normal(1, n_state), normal(1, n_state)


def errors(A, B, C, length, wrong=None):
    exact = enclose_kernel(Realization("dense", A, B, C, conjugate_pairs=False), length)
    found = dense_kernel(A, B, C, length) if wrong is None else wrong
    return (np.abs((found - exact.hi) - exact.lo) + exact.radius)[0]


@pytest.mark.parametrize("kind", [float, complex])
@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 16, 17, 64, 65, 120])
def test_every_entry_is_within_its_bound(kind, length):
    for n_state in (1, 2, 5):
        for norm in (0.3, 1.0, 1.2):
            A, B, C = system(n_state, kind, length + n_state, norm)
            bound = matrix_power_error(A[0], B[0], C[0], length, 1, U)
            assert np.all(errors(A, B, C, length) <= bound)
            # the first entries stay accurate whatever the powers do
            assert bound[0] <= 10 * n_state * U * np.linalg.norm(B) * np.linalg.norm(C)


def test_the_bound_follows_the_decay_of_the_powers():
    """‖Ā‖₂ = 1, but powers decay with the spectral radius: so does the bound, where largest norms would not."""
    A, B, C = system(6, complex, 0)
    bound = matrix_power_error(A[0], B[0], C[0], 120, 1, U)
    assert bound[100] < 1e-3 * bound[0]


@pytest.mark.parametrize("kind", [float, complex])
def test_the_first_entries_are_counted(kind):
    """N = 1: one product for entry 0 (of a real part), one more per power, plus those of B̄^{∘p}."""
    A, B, C = (np.array(v, kind) for v in ([[0.5]], [3.0], [2.0]))
    product, terms = (1.0, 1) if kind is float else (2 * sqrt(2), 2)
    # entries 0 and 1 multiply C by a column; entry 2 by a row with one rounded product, entry 3 joins both
    counts = np.array([terms, terms + product])
    found = matrix_power_error(A, B, C, 2, 1, U)
    assert np.allclose(found, counts * U * np.array([6.0, 3.0]), rtol=2e-3, atol=0)
    powered = matrix_power_error(A, B, C, 2, 3, U)
    more = 2 * (1.0 if kind is float else sqrt(5))
    assert np.allclose(powered, (counts + more) * U * np.array([54.0, 27.0]), rtol=2e-3, atol=0)


def test_wrong_kernels_exceed_the_bound():
    A, B, C = system(4, complex, 3, 0.95)
    bound = matrix_power_error(A[0], B[0], C[0], 60, 1, U)
    right = dense_kernel(A, B, C, 60)
    late = np.concatenate([right[:, :16], dense_kernel(A, B, C.conj(), 60)[:, 16:]], axis=1)
    shifted = np.concatenate([right[:, :-1], right[:, -2:-1]], axis=1)
    single = dense_kernel(A, B.astype(np.complex64).astype(complex), C, 60)
    for wrong in (late, shifted, single):
        assert np.any(errors(A, B, C, 60, wrong) > bound)


def test_no_entries_no_bound():
    A, B, C = system(2, complex, 0)
    assert matrix_power_error(A[0], B[0], C[0], 0, 1, U).shape == (0,)
