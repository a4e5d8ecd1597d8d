"""Kernels of diagonal-plus-low-rank systems within the bound of Cauchy sums, and their gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from keopscore.formulas.GetReduction import GetReduction

from liquid_ssm.backends.keops_kernels.cauchy import _over_modes, dplr_kernel, dplr_kernel_vjp
from liquid_ssm.oracle.adjoint import gradients
from liquid_ssm.oracle.kernel_error import kernel_error
from liquid_ssm.oracle.rounding import RoundingModel
from liquid_ssm.rounding_errors import realization_of
from liquid_ssm.testing.strategies import random_system

DOUBLE = RoundingModel.of_dtype("float64")
NAMES = {"Lambda_bar": "A", "P_bar": "P", "Q_bar": "Q", "B_bar": "B", "C": "C"}


def require_within_bound(system, length, found, exact):
    bound = np.linalg.norm(kernel_error(realization_of(system), length, 1, DOUBLE), axis=1)
    error = np.linalg.norm((found.numpy() - exact).astype(float), axis=1)
    assert np.isfinite(bound).all()
    assert (error <= bound).all()


@pytest.mark.parametrize("length", [1, 2, 100, 2**14])
@pytest.mark.parametrize("pairs", [True, False])
def test_kernels_of_slow_systems_are_within_their_bound(near_one, double, exact_kernel, length, pairs):
    system = near_one("dplr", n_channels=2, conjugate_pairs=pairs)
    found = dplr_kernel(**double(system), length=length, conjugate_pairs=pairs)
    require_within_bound(system, length, found, exact_kernel(realization_of(system), length))


@pytest.mark.parametrize("pairs", [True, False])
def test_kernels_of_two_ranks_are_within_their_bound(double, exact_kernel, pairs):
    system = random_system("dplr", n_channels=2, n_modes=3, rank=2, seed=7, conjugate_pairs=pairs)
    found = dplr_kernel(**double(system), length=65, conjugate_pairs=pairs)
    require_within_bound(system, 65, found, exact_kernel(realization_of(system), 65))


def test_keops_keeps_the_operations_that_the_bound_counts():
    # KeOps rearranges formulas; a common factor pulled out, say, would be another sum.
    reduction = _over_modes(4)
    variables = {"i": 0, "j": 1}
    aliases = []
    for index, text in enumerate(reduction.inputs):
        name, kind = text.split(" = ")
        aliases.append(f"{name}=Var({index},{kind[3:-1]},{variables[kind[1]]})")
    compiled = str(GetReduction(f"Sum_Reduction({reduction.formula},0)", aliases).formula)
    # z, its gap, the pole's gap, the weights: real and imaginary parts
    d_re, d_im = "(c+(e*a-f*b))", "(d+(e*b+f*a))"
    scale = f"(1/({d_re}**2+{d_im}**2))"
    re, minus_im = f"({d_re}*{scale})", f"({d_im}*{scale})"
    expected = f"[{re}*g--({minus_im}*h),{re}*h-{minus_im}*g]"
    assert compiled.split(" with ")[0].replace(" ", "") == expected


@pytest.mark.parametrize("pairs", [True, False])
@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("length", [1, 2, 7])
def test_gradients_are_the_exact_ones(double, pairs, rank, length):
    system = random_system("dplr", n_channels=2, n_modes=2, rank=rank, seed=8, conjugate_pairs=pairs)
    grad = np.random.default_rng(3).normal(size=(2, length))
    impulse = np.zeros((1, 2, length))
    impulse[..., 0] = 1
    exact = gradients(realization_of(system), impulse, "s4", grad[None])
    found = dplr_kernel_vjp(**double(system), grad=torch.tensor(grad), conjugate_pairs=pairs)
    for name, gradient in found.items():
        expected = np.array([complex(z.real, z.imag) for z in exact[NAMES[name]].ravel()]).reshape(gradient.shape)
        # No bound is derived.  What is asked is that nothing is left of float64's rounding in a float32 result.
        assert np.abs(gradient.numpy() - expected).max() <= 2.0**-40 * max(np.abs(expected).max(), 2.0**-10), name


def test_gradients_of_slow_systems_are_the_exact_ones_at_length_a_thousand(near_one, double):
    system = near_one("dplr", n_modes=3)
    grad = np.random.default_rng(4).normal(size=(1, 1000))
    impulse = np.zeros((1, 1, 1000))
    impulse[..., 0] = 1
    exact = gradients(realization_of(system), impulse, "s4", grad[None], precision="longdouble")
    for name, gradient in dplr_kernel_vjp(**double(system), grad=torch.tensor(grad), conjugate_pairs=True).items():
        expected = exact[NAMES[name]].astype(complex)
        assert np.abs(gradient.numpy() - expected).max() <= 2.0**-40 * np.abs(expected).max(), name


def test_a_power_beyond_float64_is_nan_in_its_channel_only(double):
    system = random_system("dplr", n_channels=2, n_modes=2, seed=9)
    parameters = double(system)
    parameters["Lambda_bar"][0] = 1e200
    kernel = dplr_kernel(**parameters, length=16, conjugate_pairs=True)
    found = dplr_kernel_vjp(**parameters, grad=torch.ones_like(kernel), conjugate_pairs=True)
    assert kernel[0].isnan().all()
    assert kernel[1].isfinite().all()
    assert torch.view_as_real(found["C"][0]).isnan().any()
    assert torch.view_as_real(found["C"][1]).isfinite().all()


@pytest.mark.parametrize("shape", [(0, 2, 3), (2, 0, 3), (2, 2, 0)])
def test_empty_sizes_give_zeros(shape):
    n_channels, n_modes, length = shape
    one = torch.ones((n_channels, n_modes), dtype=torch.complex128)
    parameters = {"Lambda_bar": one, "P_bar": one[None], "Q_bar": one[None], "B_bar": one, "C": one}
    kernel = dplr_kernel(**parameters, length=length, conjugate_pairs=True)
    assert kernel.shape == (n_channels, length)
    assert not kernel.any()
    found = dplr_kernel_vjp(**parameters, grad=torch.ones_like(kernel), conjugate_pairs=True)
    assert {name: tensor.shape for name, tensor in found.items()} == {k: v.shape for k, v in parameters.items()}
    assert not any(tensor.any() for tensor in found.values())


def test_a_system_without_low_rank_part_is_diagonal(double):
    system = random_system("dplr", n_channels=1, n_modes=2, seed=10)
    parameters = double(system)
    parameters["P_bar"], parameters["Q_bar"] = (parameters[name][:0] for name in ("P_bar", "Q_bar"))
    kernel = dplr_kernel(**parameters, length=6, conjugate_pairs=True)
    powers = parameters["Lambda_bar"][..., None] ** torch.arange(6)
    expected = 2 * ((parameters["C"] * parameters["B_bar"])[..., None] * powers).real.sum(dim=1)
    assert (kernel - expected).abs().max() <= 2.0**-45 * expected.abs().max()
    found = dplr_kernel_vjp(**parameters, grad=torch.ones_like(kernel), conjugate_pairs=True)
    assert found["P_bar"].shape == (0, 1, 2)
