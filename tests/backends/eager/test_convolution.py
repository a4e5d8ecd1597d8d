from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from liquid_ssm.backends._convolution import causal_convolution, causal_convolution_vjp
from liquid_ssm.backends._fft_convolution import power_of_two
from liquid_ssm.backends.eager import convolution
from liquid_ssm.backends.eager.convolution import (
    direct_convolution,
    direct_convolution_vjp,
    fft_convolution,
    fft_convolution_vjp,
)
from liquid_ssm.oracle.convolution import _fft_bound, direct_error, fft_bound
from liquid_ssm.oracle.rounding import RoundingModel

Array = npt.NDArray[Any]
FORWARD = [fft_convolution, direct_convolution]
BACKWARD = [fft_convolution_vjp, direct_convolution_vjp]
# taps and steps
SHAPES = [(1, 1), (1, 2), (2, 1), (2, 2), (7, 7), (8, 8), (9, 9), (64, 65), (3, 200), (200, 3), (127, 127), (500, 401)]


def signals(taps: int, length: int, dtype: Any) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(taps + 1000 * length)
    kernel, u, grad = (rng.standard_normal(shape) for shape in ((3, taps), (2, 3, length), (2, 3, length)))
    # Large and small: what an FFT spreads over all steps is relative to the largest.
    return kernel.astype(dtype), (u * 10.0 ** -(np.arange(length) % 5)).astype(dtype), grad.astype(dtype)


def exact(*arrays: Array) -> list[Array]:
    return [a.astype(np.longdouble) for a in arrays]


def norm(error: Array) -> Array:
    return np.asarray(np.sqrt((error.astype(float) ** 2).sum(-1)))


def bound_of_rows(kernel: Array, u: Array, dtype: Any) -> Array:
    """2-norms (batch, H) of the error of one row after the other."""
    model = RoundingModel.of_dtype(dtype, fft=True)
    zero = np.zeros(u.shape[:2])
    return fft_bound(kernel.astype(float), zero[0], u.astype(float), zero, model)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("taps", "length"), SHAPES)
def test_fft_convolution_and_its_gradients_are_within_the_bound(taps: int, length: int, dtype: Any) -> None:
    kernel, u, grad = signals(taps, length, dtype)
    used = kernel[:, :length]
    y = fft_convolution(torch.from_numpy(kernel), torch.from_numpy(u)).numpy()
    assert y.dtype == dtype
    assert (norm(y - causal_convolution(*exact(used, u))) <= bound_of_rows(used, u, dtype)).all()
    tensors = (torch.from_numpy(v) for v in (kernel, u, grad))
    grad_kernel, grad_u = (g.numpy() for g in fft_convolution_vjp(*tensors))
    expected = causal_convolution_vjp(*exact(kernel, u, grad))
    # A conjugate spectrum is that of reversed time: moduli, norms and operations are the same.
    assert (norm(grad_u - expected[1]) <= bound_of_rows(used, grad[..., ::-1], dtype)).all()
    # Products of the spectra of cotangent and input, row by row; what wraps around ends beyond the taps.  Rows are
    # added up before the inverse transform, and the 2-norm of a row is at most ‖g‖₁ ‖u‖₂.
    size = power_of_two(length + used.shape[1] - 1)
    model, nothing = RoundingModel.of_dtype(dtype, fft=True), np.zeros(3)
    rows = [
        _fft_bound(g.astype(float), nothing, v[None].astype(float), nothing[None], model, size)[0]
        for g, v in zip(grad, u, strict=True)
    ]
    sizes = (np.abs(grad).sum(-1) * norm(u)).sum(0)
    limit = sum(rows) + (len(u) - 1) * float(np.finfo(dtype).eps) / 2 * sizes * (1 + 2.0**-10)
    assert grad_kernel.shape == kernel.shape
    assert (norm(grad_kernel - expected[0]) <= limit).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("taps", "length"), SHAPES)
def test_direct_convolution_and_its_gradients_are_within_the_bound(taps: int, length: int, dtype: Any) -> None:
    kernel, u, grad = signals(taps, length, dtype)
    model = RoundingModel.of_dtype(dtype)
    tensors = [torch.from_numpy(v) for v in (kernel, u, grad)]
    y = direct_convolution(*tensors[:2]).numpy()
    assert y.dtype == dtype

    def limit(source: Array) -> Array:
        nothing = np.zeros(source.shape)
        return direct_error(kernel.astype(float), np.zeros(kernel.shape), source.astype(float), nothing, model)

    assert (np.abs(y - causal_convolution(*exact(kernel, u))) <= limit(u)).all()
    grad_kernel, grad_u = (g.numpy() for g in direct_convolution_vjp(*tensors))
    expected = causal_convolution_vjp(*exact(kernel, u, grad))
    assert (np.abs(grad_u - expected[1]) <= limit(grad[..., ::-1])[..., ::-1]).all()
    sizes, _ = causal_convolution_vjp(*exact(*(np.abs(v) for v in (kernel, u, grad))))
    roundings = 2 * length * float(np.finfo(dtype).eps) / 2
    assert (np.abs(grad_kernel - expected[0]) <= roundings / (1 - roundings) * sizes).all()


@pytest.mark.parametrize("function", FORWARD)
@pytest.mark.parametrize(("taps", "length", "batch"), [(0, 5, 2), (5, 0, 2), (0, 0, 2), (3, 4, 0)])
def test_nothing_to_do(function: Callable[..., torch.Tensor], taps: int, length: int, batch: int) -> None:
    kernel, u = torch.ones(3, taps), torch.ones(batch, 3, length)
    assert torch.equal(function(kernel, u), torch.zeros(batch, 3, length))
    vjp = BACKWARD[FORWARD.index(function)]
    assert torch.equal(vjp(kernel, u, u)[0], torch.zeros(3, taps))
    assert torch.equal(vjp(kernel, u, u)[1], torch.zeros(batch, 3, length))


@pytest.mark.parametrize("index", [0, 1])
def test_pieces_and_layout_leave_results_within_the_bound(index: int, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, u, grad = (torch.from_numpy(v) for v in signals(21, 30, np.float64))
    y, gradients = FORWARD[index](kernel, u), BACKWARD[index](kernel, u, grad)
    limit = 1e-13  # two results within 30 additions or six transforms of 2^-53, all numbers below 30 in modulus
    monkeypatch.setattr(convolution, "PIECE_BYTES", 4 * 64 * 8)
    monkeypatch.setattr(convolution, "BLOCK_ELEMENTS", 5 * u.numel())
    assert (FORWARD[index](kernel, u) - y).abs().max() <= limit
    for x, z in zip(BACKWARD[index](kernel, u, grad), gradients, strict=True):
        assert (x - z).abs().max() <= limit
    gaps = u.repeat_interleave(2, -1)[..., ::2]
    kept = gaps.clone()
    assert (FORWARD[index](kernel.T.contiguous().T, gaps) - y).abs().max() <= limit
    assert torch.equal(gaps, kept)
    expanded = u[:1].expand(4, -1, -1)
    assert (FORWARD[index](kernel, expanded) - y[0]).abs().max() <= limit


def test_direct_sums_are_causal_in_every_bit_and_keep_nan_to_themselves() -> None:
    kernel, u, _ = (torch.from_numpy(v) for v in signals(30, 30, np.float32))
    changed = u.clone()
    changed[..., 11:] = torch.nan
    assert torch.equal(direct_convolution(kernel, changed)[..., :11], direct_convolution(kernel, u)[..., :11])


@pytest.mark.parametrize("index", [0, 1])
def test_vector_jacobian_products_are_those_of_autograd(index: int) -> None:
    kernel, u = torch.randn(2, 5, dtype=torch.float64), torch.randn(2, 2, 7, dtype=torch.float64)
    kernel.requires_grad_(), u.requires_grad_()
    assert torch.autograd.gradcheck(FORWARD[index], (kernel, u))
    y = FORWARD[index](kernel, u)
    grad = torch.randn_like(y)
    expected = torch.autograd.grad(y, (kernel, u), grad)
    for x, z in zip(BACKWARD[index](kernel.detach(), u.detach(), grad), expected, strict=True):
        assert (x - z).abs().max() <= 1e-13


@pytest.mark.parametrize("index", [0, 1])
def test_can_be_compiled_as_one_graph_and_traced_without_data(index: int) -> None:
    torch._dynamo.reset()
    kernel, u, grad = (torch.from_numpy(v) for v in signals(5, 9, np.float32))

    def both(kernel: torch.Tensor, u: torch.Tensor, grad: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return FORWARD[index](kernel, u), *BACKWARD[index](kernel, u, grad)

    compiled = torch.compile(both, backend="eager", fullgraph=True)
    assert all(torch.equal(x, y) for x, y in zip(compiled(kernel, u, grad), both(kernel, u, grad), strict=True))
    shapes = [x.shape for x in both(*(v.to("meta") for v in (kernel, u, grad)))]
    assert shapes == [u.shape, kernel.shape, u.shape]
