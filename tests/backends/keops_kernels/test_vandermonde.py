"""Kernels of diagonal systems and their gradients, within the bounds of exponentials."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from liquid_ssm.backends.keops_kernels.vandermonde import diagonal_kernel, diagonal_kernel_vjp
from liquid_ssm.oracle.exponential_powers import from_exponentials
from liquid_ssm.oracle.kernel_gradients import kernel_gradient_bounds, kernel_gradients
from liquid_ssm.oracle.rounding import RoundingModel
from liquid_ssm.rounding_errors import realization_of

UNITS = {torch.float32: 2.0**-24, torch.float64: 2.0**-53}
LONG = 2**14


def diagonal_powers(system, length, power):
    """c b̄^p ā^i in longdouble, (length, H, M)."""
    A, B, C = (getattr(system, name).astype(np.clongdouble) for name in ("A_bar", "B_bar", "C"))
    powers = np.ones((length, *A.shape), np.clongdouble)
    for i in range(1, length):
        powers[i] = powers[i - 1] * A
    return powers * C * B**power


@pytest.mark.parametrize("dtype", UNITS)
@pytest.mark.parametrize(("length", "power"), [(1, 1), (2, 3), (300, 1), (LONG, 1), (LONG, 2)])
@pytest.mark.parametrize("pairs", [True, False])
def test_kernels_are_within_the_bound_of_exponentials(near_one, double, dtype, length, power, pairs):
    system = near_one("diagonal", n_channels=2, conjugate_pairs=pairs)
    found = diagonal_kernel(**double(system), length=length, power=power, weight=system.weight, dtype=dtype)
    exact = system.weight * diagonal_powers(system, length, power).sum(axis=-1).real.T
    bound = from_exponentials(realization_of(system), length, power, UNITS[dtype])
    assert found.dtype == dtype
    assert (np.abs(found.numpy().astype(np.longdouble) - exact) <= bound).all()


@pytest.mark.parametrize(("length", "power"), [(1, 1), (2, 3), (300, 2), (LONG, 1), (LONG, 3)])
@pytest.mark.parametrize("pairs", [True, False])
def test_gradients_are_within_their_bound(near_one, double, length, power, pairs):
    system = near_one("diagonal", n_channels=2, conjugate_pairs=pairs, seed=1)
    grad = np.random.default_rng(2).normal(size=(2, length))
    found = diagonal_kernel_vjp(**double(system), power=power, weight=system.weight, grad=torch.tensor(grad))
    realization = realization_of(system)
    exact = kernel_gradients(realization, grad, power)
    bounds = kernel_gradient_bounds(realization, grad, power, RoundingModel.of_dtype("float64", powers="exponentials"))
    for name, gradient in zip("ABC", found, strict=True):
        assert (np.abs(gradient.numpy() - exact[name]) <= bounds[name]).all(), name


def test_a_zero_eigenvalue_has_only_its_first_power(double, near_one):
    parameters = double(near_one("diagonal", n_modes=2))
    parameters["A_bar"][0, 0] = 0
    kernel = diagonal_kernel(**parameters, length=4, power=1, weight=2, dtype=torch.float64)
    lone = {name: tensor[:, 1:] for name, tensor in parameters.items()}
    expected = diagonal_kernel(**lone, length=4, power=1, weight=2, dtype=torch.float64)
    first = 2 * (parameters["C"] * parameters["B_bar"])[0, 0].real
    assert torch.equal(kernel[:, 1:], expected[:, 1:])
    # the sum of two modes, each within a rounding of what it is alone
    assert abs(kernel[0, 0] - expected[0, 0] - first) <= 4 * 2.0**-53 * (abs(expected[0, 0]) + abs(first))

    grad = torch.tensor([[2.0, 3.0, 5.0, 7.0]], dtype=torch.float64)
    grad_A, grad_B, grad_C = diagonal_kernel_vjp(**parameters, power=1, weight=2, grad=grad)
    b, c = parameters["B_bar"][0, 0], parameters["C"][0, 0]
    # d(ā^i) at 0 is 1 for i = 1 and 0 for all others
    assert torch.isclose(grad_A[0, 0], (2 * 3 * b * c).conj(), rtol=1e-15)
    assert torch.isclose(grad_B[0, 0], (2 * 2 * c).conj(), rtol=1e-15)
    assert torch.isclose(grad_C[0, 0], (2 * 2 * b).conj(), rtol=1e-15)


def test_a_zero_input_vector_gives_zeros_and_the_right_gradients(double, near_one):
    parameters = double(near_one("diagonal", n_modes=1))
    parameters["B_bar"][:] = 0
    assert not diagonal_kernel(**parameters, length=5, power=2, weight=2, dtype=torch.float64).any()
    grad = torch.ones((1, 5), dtype=torch.float64)
    for power in (1, 2):
        _, grad_B, grad_C = diagonal_kernel_vjp(**parameters, power=power, weight=2, grad=grad)
        assert bool(grad_B.any()) == (power == 1)
        assert not grad_C.any()


@pytest.mark.parametrize("shape", [(0, 2, 3), (2, 0, 3), (2, 2, 0)])
def test_empty_sizes_give_zeros(shape):
    n_channels, n_modes, length = shape
    parameters = {name: torch.ones((n_channels, n_modes), dtype=torch.complex128) for name in ("A_bar", "B_bar", "C")}
    kernel = diagonal_kernel(**parameters, length=length, power=1, weight=2, dtype=torch.float32)
    assert kernel.shape == (n_channels, length)
    assert not kernel.any()
    for gradient in diagonal_kernel_vjp(**parameters, power=1, weight=2, grad=torch.ones((n_channels, length))):
        assert gradient.shape == (n_channels, n_modes)
        assert not gradient.any()
