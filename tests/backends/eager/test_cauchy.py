from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from liquid_ssm.backends.eager import cauchy
from liquid_ssm.backends.eager.cauchy import dplr_kernel
from liquid_ssm.complex_numbers import split
from liquid_ssm.oracle.kernel_error import kernel_error
from liquid_ssm.oracle.realization import Realization
from liquid_ssm.oracle.rounding import RoundingModel

Array = npt.NDArray[Any]
LENGTHS = [0, 1, 2, 3, 4, 15, 16, 17, 31, 97]


def stable(n_channels: int, n_modes: int, rank: int, dt: float, seed: int = 0) -> tuple[Array, ...]:
    """Bilinear discretisation of diag(Λ) - P P* on the stored half, by its definition as a dense solve."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> Array:
        return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)

    Lambda = -rng.uniform(0.1, 1, (n_channels, n_modes)) + 1j * rng.uniform(0, 10, (n_channels, n_modes))
    P, B, C = normal(rank, n_channels, n_modes), normal(n_channels, n_modes), normal(n_channels, n_modes)
    g = dt / 2
    E = 1 / (1 - g * Lambda)
    full_P, full_E = np.concatenate([P, P.conj()], axis=-1), np.concatenate([E, E.conj()], axis=-1)
    inner = np.einsum("rhn,hn,shn->hrs", full_P.conj(), full_E, full_P)
    capacitance = np.linalg.inv(np.eye(rank) + g * inner)
    P_bar = 2 * g * np.einsum("hn,shn,hsr->rhn", E, P, capacitance)
    return 2 * E - 1, P_bar, E.conj() * P, dt * E * B, C


def tensors(arrays: tuple[Array, ...]) -> list[torch.Tensor]:
    return [torch.from_numpy(v) for v in arrays]


def exact_kernel(arrays: tuple[Array, ...], length: int, power: int, paired: bool) -> Array:
    """weight · Re(C Āⁱ B̄), one application of Ā after the other, in extended precision."""
    a, P, Q, B, C = (v.astype(np.clongdouble) for v in arrays)
    x, rows = B**power, []
    for _ in range(length):
        rows.append((1 + paired) * (C * x).sum(-1).real)
        inner = (Q.conj() * x).sum(-1)
        x = a * x - (P * (2 * inner.real if paired else inner)[..., None]).sum(0)
    return np.array(rows, np.longdouble).T.reshape(len(C), length)


def limit(arrays: tuple[Array, ...], length: int, power: int, paired: bool, dtype: str) -> Array:
    """2-norms (H,) that errors stay below; 2^-10 of it for the reference."""
    a, P, Q, B, C = arrays
    realization = Realization("dplr", a, B, C, P, Q, conjugate_pairs=paired)
    model = RoundingModel.of_dtype(dtype, fft=True, kernel_dtype="float64")
    return np.linalg.norm(kernel_error(realization, length, power, model), axis=1) * (1 + 2.0**-10)


def norms(error: Array) -> Array:
    return np.linalg.norm(error.astype(float), axis=1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("rank", [0, 1, 2, 3])
def test_within_the_bound_of_cauchy_sums(rank: int, paired: bool, dtype: str) -> None:
    arrays = tuple(v.astype(np.result_type(np.complex64, dtype)) for v in stable(2, 4, rank, 0.2))
    for power in (1, 3):
        for length in LENGTHS:
            kernel = dplr_kernel(*tensors(arrays), length, power, paired)
            assert kernel.dtype == getattr(torch, dtype)
            assert kernel.shape == (2, length)
            error = norms(kernel.numpy() - exact_kernel(arrays, length, power, paired))
            assert (error <= limit(arrays, length, power, paired, dtype)).all()


@pytest.mark.parametrize("dt", [1e-6, 1e-3, 0.1, 1.0])
@pytest.mark.parametrize("paired", [True, False])
def test_slow_and_fast_systems_are_within_the_bound(dt: float, paired: bool) -> None:
    arrays = stable(2, 3, 1, dt)
    kernel = dplr_kernel(*tensors(arrays), 300, 1, paired).numpy()
    bound = limit(arrays, 300, 1, paired, "float64")
    assert (norms(kernel - exact_kernel(arrays, 300, 1, paired)) <= bound).all()
    # A bound that no bug can exceed would test nothing.
    assert bound.max() <= 1e-9 * norms(kernel).max()


@pytest.mark.parametrize("n", [2, 4, 64, 4096])
def test_points_keep_the_digits_of_their_distance_from_one(n: int) -> None:
    """The constants of docs/bounds-kernels.md, "The points and the denominators"."""
    root, gap = (v.numpy() for v in cauchy.circle_points(n, n))
    index = np.arange(n)
    angle = np.where(2 * index > n, index - n, index) * (8 * np.arctan(np.longdouble(1)) / n)
    theta, sine, unit = np.abs(angle), np.sin(angle), 2.0**-53 * (1 + 2.0**-8)
    # A float's own π is half a unit off, which a sine near 0 there shows.
    assert (np.abs(gap.real - 2 * np.sin(angle / 2) ** 2) <= 8 * unit * gap.real).all()
    assert (np.abs(gap.imag - sine) <= (1.5 * theta * np.abs(np.cos(angle)) + 2 * np.abs(sine)) * unit).all()
    error = np.hypot(root.real - np.cos(angle), root.imag + sine)
    assert (error <= (1.5 * theta + np.sqrt(2)) * unit).all()


def test_slow_modes_near_the_circle_keep_their_digits() -> None:
    """1/(1 - zλ) for 1 - λ = 2⁻⁴⁰ and a 1 - z that z itself cannot hold."""
    gap = 2.0**-41 * (1 + 2.0**-20)
    z, z_gap, pole = (torch.tensor([[v + 0j]], dtype=torch.complex128) for v in (1 - gap, gap, 1 - 2.0**-40))
    value = cauchy._resolvent(torch.ones(1, 1, 1, 1, dtype=torch.complex128), pole, z, z_gap)
    exact = 1 / (gap + (1 - gap) * 2.0**-40)
    # Ten operations on positive numbers, one unit each.
    assert abs(complex(value[0, 0]) - exact) <= 10 * 2.0**-53 * exact


def test_poles_on_and_beyond_the_unit_circle() -> None:
    """An integrator, an undamped oscillation and slow growth: r = 1 would divide by zero or lose all digits."""
    one = np.ones((1, 3), complex)
    arrays = (np.array([[1, 1j, 1.01]], complex), np.zeros((0, 1, 3), complex), np.zeros((0, 1, 3), complex), one, one)
    kernel = dplr_kernel(*tensors(arrays), 64, 1, True).numpy()
    bound = limit(arrays, 64, 1, True, "float64")
    assert (norms(kernel - exact_kernel(arrays, 64, 1, True)) <= bound).all()
    assert bound.max() <= 1e-9


@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize("pole", [3.0, 1e300])
def test_a_power_beyond_the_range_is_nan_in_its_channel_only(pole: float, rank: int) -> None:
    poles, one = np.array([[pole, 0.25], [0.5, 0.25]], complex), np.ones((2, 2), complex)
    P = 0.25 * np.ones((rank, 2, 2), complex) * np.arange(1, rank + 1)[:, None, None]
    kernel = dplr_kernel(*tensors((poles, P, P, one, one)), 2000, 1, True)
    assert kernel[0].isnan().all()
    assert kernel[1].isfinite().all()


def test_pieces_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = stable(3, 4, 2, 0.2)
    whole = dplr_kernel(*tensors(arrays), 50, 1, True).numpy()
    monkeypatch.setattr(cauchy, "PIECE_BYTES", 2000)
    difference = norms(dplr_kernel(*tensors(arrays), 50, 1, True).numpy() - whole)
    assert (difference <= 2 * limit(arrays, 50, 1, True, "float64")).all()


@pytest.mark.parametrize("paired", [True, False])
def test_split_and_real_parameters_are_the_same_numbers(paired: bool) -> None:
    arrays = stable(2, 3, 1, 0.3)
    whole = dplr_kernel(*tensors(arrays), 20, 2, paired)
    assert torch.equal(dplr_kernel(*(split(v) for v in tensors(arrays)), 20, 2, paired), whole)
    real = [v.real.clone() for v in tensors(arrays)]
    assert torch.equal(dplr_kernel(*real, 20, 2, paired), dplr_kernel(*(v + 0j for v in real), 20, 2, paired))


@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize("paired", [True, False])
def test_autograd_agrees_with_finite_differences(paired: bool, rank: int) -> None:
    # NumPy gives empty arrays a stride of 0, which gradcheck does not take.
    given = [v if v.numel() else torch.zeros(v.shape, dtype=v.dtype) for v in tensors(stable(2, 2, rank, 0.3))]
    for v in given:
        v.requires_grad_()
    assert torch.autograd.gradcheck(lambda *v: dplr_kernel(*v, 6, 2, paired), given)


def test_layout_does_not_matter_and_nothing_is_written() -> None:
    given = tensors(stable(2, 3, 2, 0.3))
    gaps = [v.repeat_interleave(2, -1)[..., ::2] for v in given]
    kept = [v.clone() for v in gaps]
    assert torch.equal(dplr_kernel(*gaps, 20, 1, True), dplr_kernel(*given, 20, 1, True))
    assert all(torch.equal(x, y) for x, y in zip(gaps, kept, strict=True))
    expanded = [v[..., :1, :].expand(*v.shape[:-2], 3, -1) for v in given]
    kernel = dplr_kernel(*expanded, 20, 1, True)
    assert torch.equal(kernel[0], kernel[2])


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_can_be_compiled_as_one_graph_and_traced_without_data(rank: int) -> None:
    torch._dynamo.reset()
    given = tensors(stable(2, 3, rank, 0.3))

    def kernel(*given: torch.Tensor) -> torch.Tensor:
        return dplr_kernel(*given, 20, 2, True)

    assert torch.equal(torch.compile(kernel, backend="eager", fullgraph=True)(*given), kernel(*given))
    assert kernel(*(v.to("meta") for v in given)).shape == (2, 20)
