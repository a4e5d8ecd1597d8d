"""Kernels from exponentials, written here in NumPy, are within their bound entry by entry."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest

import liquid_ssm as ls
from liquid_ssm.oracle.enclosure import enclose_kernel
from liquid_ssm.oracle.exponential_powers import from_exponentials
from liquid_ssm.oracle.kernel_error import kernel_error
from liquid_ssm.oracle.realization import Realization
from liquid_ssm.oracle.rounding import RoundingModel, unit_roundoff
from liquid_ssm.rounding_errors import realization_of
from liquid_ssm.testing.strategies import random_system


def exponential_kernel(system, length, power=1, *, log=np.log, reduce=False):
    """weight · Re Σ_n C_n B̄_n^p exp(i log ā_n), all in the precision of the system."""
    weights = system.C * system.B_bar
    for _ in range(power - 1):
        weights = weights * system.B_bar
    real = np.dtype(system.dtype).type
    exponents = np.arange(length).astype(real)[:, None, None] * log(system.A_bar)
    if reduce:
        turn = real(2 * np.pi)
        exponents.imag -= turn * np.round(exponents.imag / turn)
    terms = weights * np.exp(exponents)
    return system.weight * terms.sum(axis=-1).real.T


def units(system, kernel, bound, power=1):
    """The largest error/bound over all entries, from T1's point of view."""
    exact = enclose_kernel(realization_of(system), kernel.shape[1], power)
    error = np.abs((kernel.astype(float) - exact.hi) - exact.lo) + exact.radius
    return float((error / bound).max())


def model(dtype):
    return RoundingModel.of_dtype(dtype, powers="exponentials")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("decay", [0.0, 1e-3, 0.3])
def test_random_kernels_are_within_the_bound(dtype, decay):
    for seed in range(5):
        system = random_system("diagonal", n_modes=4, seed=seed, decay=decay).astype(dtype)
        for power in (1, 3):
            bound = kernel_error(realization_of(system), 300, power, model(dtype))
            kernel = exponential_kernel(system, 300, power)
            assert units(system, kernel, bound, power) <= 1
            # within a factor of the observed error that no wrong digit survives
            assert units(system, kernel, bound, power) >= 1e-3


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("dt", [1e-6, 1e-3, 1.0])
def test_discretised_systems_are_within_the_bound(dtype, dt):
    """Slow modes: |ā| close to 1 and a small angle, where log |ā| has to be accurate in itself."""
    continuous = ls.initialize("s4d-lin", n_channels=2, n_state=16, dt_min=dt, dt_max=dt)
    system = continuous.discretize("zoh").astype(dtype)
    bound = kernel_error(realization_of(system), 400, 1, model(dtype))
    assert units(system, exponential_kernel(system, 400), bound) <= 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_angles_reduced_by_hand_need_their_own_count(dtype):
    system = random_system("diagonal", n_modes=4, seed=9, decay=1e-3).astype(dtype)
    kernel = exponential_kernel(system, 2000, reduce=True)
    bound = from_exponentials(realization_of(system), 2000, 1, unit_roundoff(dtype), reduction=2.0)
    assert units(system, kernel, bound) <= 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_wrong_kernels_exceed_the_bound(dtype):
    system = random_system("diagonal", n_modes=4, seed=3, decay=0.01).astype(dtype)
    bound = kernel_error(realization_of(system), 200, 2, model(dtype))

    def by_hypot(a):
        # log |a| from a rounded modulus, in half precision as a library would with fast approximations
        return (np.log(np.abs(a).astype(np.float16)) + 1j * np.angle(a)).astype(a.dtype)

    conj = type(system)(system.A_bar, system.B_bar, system.C.conj(), conjugate_pairs=True)
    wrong = [
        exponential_kernel(system, 200, 1),
        exponential_kernel(conj, 200, 2),
        np.roll(exponential_kernel(system, 200, 2), 1, axis=1),
        exponential_kernel(system, 200, 2, log=by_hypot),
    ]
    if dtype == "float64":
        wrong.append(exponential_kernel(system, 200, 2, log=lambda a: np.log(a.astype(np.complex64)).astype(complex)))
    for kernel in wrong:
        assert units(system, kernel, bound, 2) > 10


def test_the_count():
    """One mode: p + 1 complex products, 2M real terms, 4·2 + 1 for the exponential, 2·4 + 1 per step and |log ā|."""
    A, B, C = np.array([[0.5j]]), np.array([[2.0 + 0j]]), np.array([[3.0 + 0j]])
    system, u = Realization("diagonal", A, B, C), 2.0**-24
    size_log = np.hypot(np.log(0.5), np.pi / 2)
    i = np.arange(6)
    for power in (1, 2):
        size = 2 * 3 * 2.0**power * 0.5**i
        wanted = (sqrt(5) * (power + 1) + 2 + 9 + 9 * size_log * i) * u * size
        assert np.allclose(from_exponentials(system, 6, power, u)[0], wanted, rtol=1e-4, atol=0)
    custom = from_exponentials(system, 6, 1, u, log_ulps=1.0, exp_ulps=1.0, reduction=2.0)[0]
    assert np.allclose(custom, (2 * sqrt(5) + 2 + 5 + 5 * size_log * i) * u * 12 * 0.5**i, rtol=1e-4, atol=0)


def test_a_mode_without_a_logarithm_takes_part_in_the_first_entry_only():
    A, one = np.array([[0.5 + 0j, 0.0]]), np.ones((1, 2), complex)
    both = from_exponentials(Realization("diagonal", A, one, one), 4, 1, 2.0**-53)[0]
    first = from_exponentials(Realization("diagonal", A[:, :1], one[:, :1], one[:, :1]), 4, 1, 2.0**-53)[0]
    fixed = 2 * sqrt(5) + 9
    assert np.allclose(both[0] / first[0], 2 * (fixed + 4) / (fixed + 2), rtol=1e-9)
    # two modes more in the sum, of which one is 0
    assert np.all((first[1:] < both[1:]) & (both[1:] < first[1:] * 1.2))
    none = Realization("diagonal", 0 * A, one, one)
    assert np.array_equal(from_exponentials(none, 4, 1, 2.0**-53)[0][1:], np.zeros(3))


def test_exponents_beyond_the_integers_of_the_precision_are_rounded():
    """i > 1/(2u) is no longer exact: one rounding more per step."""
    A, one = np.array([[1j]]), np.ones((1, 1), complex)
    system = Realization("diagonal", A, one, one)
    short, long = (from_exponentials(system, length, 1, 2.0**-10)[0, 1] for length in (512, 513))
    # to first order; the denominator of γ is 3 % below 1 here
    assert long - short == pytest.approx(2 * np.pi / 2 * 2.0**-10, rel=0.1)
