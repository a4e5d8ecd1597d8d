from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from liquid_ssm.backends.eager import vandermonde
from liquid_ssm.backends.eager.vandermonde import diagonal_kernel, diagonal_kernel_vjp, power_table, table_sizes
from liquid_ssm.complex_numbers import Split, join, split
from liquid_ssm.oracle.kernel_error import kernel_error
from liquid_ssm.oracle.realization import Realization
from liquid_ssm.oracle.rounding import RoundingModel

Array = npt.NDArray[Any]
DTYPES = ["float32", "float64"]
# How a system's parameters are given: Ā, B̄ and C complex or not, and as `Split` or not.
KINDS = ["complex", "split", "real", "complex C", "complex A"]
LENGTHS = [0, 1, 2, 3, 4, 5, 15, 16, 17, 31, 97, 300]


def parameters(kind: str, dtype: str, seed: int = 0, n_modes: int = 5) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(seed)
    A = rng.uniform(0.9, 1.001, (3, n_modes)) * np.exp(1j * rng.uniform(0, 3, (3, n_modes)))
    B, C = rng.standard_normal((2, 3, n_modes)) + 1j * rng.standard_normal((2, 3, n_modes))
    A[0, 0] = 0  # a mode without memory
    if kind == "real":
        A, B, C = A.real, B.real, C.real
    if kind == "complex C":
        A, B = A.real, B.real
    if kind == "complex A":
        B, C = B.real, C.real
    return tuple(v.astype(np.result_type(v.dtype.char == "D" and np.complex64, dtype)) for v in (A, B, C))  # type: ignore[return-value]


def tensors(kind: str, arrays: tuple[Array, ...]) -> list[Any]:
    found = [torch.from_numpy(v) for v in arrays]
    return [split(v) for v in found] if kind == "split" else found


def wide(*arrays: Array) -> list[Array]:
    return [v.astype(np.clongdouble) for v in arrays]


def exact_kernel(A: Array, B: Array, C: Array, length: int, power: int, weight: int) -> Array:
    """One power after the other in extended precision, 2^-11 of float64's roundings."""
    A, B, C = wide(A, B, C)
    x, rows = C * B**power, []
    for _ in range(length):
        rows.append(weight * x.sum(-1).real)
        x = x * A
    return np.array(rows, np.longdouble).T.reshape(len(A), length)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("power", [1, 3])
def test_within_the_bound_of_powers_by_products(kind: str, power: int, dtype: str) -> None:
    arrays = parameters(kind, dtype)
    model = RoundingModel.of_dtype(dtype, fft=True, kernel_dtype="float64")
    realization = Realization("diagonal", *arrays)
    for length in LENGTHS:
        kernel = diagonal_kernel(*tensors(kind, arrays), length, power, 2)
        assert kernel.shape == (3, length)
        assert kernel.dtype == getattr(torch, dtype)
        error = np.abs(kernel.numpy() - exact_kernel(*arrays, length, power, 2))
        assert (error <= kernel_error(realization, length, power, model) * (1 + 2.0**-10)).all()


def exact_gradients(arrays: tuple[Array, ...], power: int, weight: int, grad: Array) -> list[Array]:
    """Σ over l of the derivative of each entry, in extended precision."""
    A, B, C = wide(*arrays)
    grad = grad.astype(np.longdouble)
    found = [np.zeros_like(A) for _ in range(3)]
    a, before = np.ones_like(A), np.zeros_like(A)
    for step in range(grad.shape[-1]):
        g = weight * grad[:, step, None]
        found[0] += g * np.conj(C * B**power * step * before)
        found[1] += g * np.conj(power * C * B ** (power - 1) * a)
        found[2] += g * np.conj(B**power * a)
        before, a = a, a * A
    return found


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("power", [1, 3])
def test_gradients_are_within_the_counted_roundings(kind: str, power: int, dtype: str) -> None:
    arrays = parameters(kind, dtype)
    unit = float(np.finfo(dtype).eps) / 2
    for length in LENGTHS:
        grad = np.random.default_rng(length).standard_normal((3, length)).astype(dtype)
        given = tensors(kind, arrays)
        found = diagonal_kernel_vjp(*given, length, power, 2, torch.from_numpy(grad))
        expected = exact_gradients(arrays, power, 2, grad)
        sizes = exact_gradients(tuple(np.abs(v) for v in arrays), power, 2, np.abs(grad))
        n_baby, n_giant = table_sizes(length)
        n = (np.sqrt(5) * (length + power + 1) + n_baby + n_giant + 2) * 2.0**-53
        for name, like, array, value, size in zip(("A_bar", "B_bar", "C"), given, arrays, expected, sizes, strict=True):
            gradient = found[name]
            assert isinstance(gradient, Split) == isinstance(like, Split)
            gradient = join(gradient).numpy()
            assert gradient.dtype == array.dtype
            value = value if np.iscomplexobj(array) else value.real
            limit = n / (1 - n) * size.real * (1 + 2.0**-10)
            limit = limit * (1 + unit) + (unit * np.abs(value) if dtype == "float32" else 0)
            assert (np.abs(gradient - value) <= limit).all()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_autograd(kind: str) -> None:
    arrays = parameters(kind, "float64")
    given = tensors("", arrays)
    for v in given:
        v.requires_grad_()
    kernel = diagonal_kernel(*given, 11, 2, 2)
    grad = torch.from_numpy(np.random.default_rng(0).standard_normal(kernel.shape))
    expected = torch.autograd.grad(kernel, given, grad)
    found = diagonal_kernel_vjp(*(v.detach() for v in given), 11, 2, 2, grad)
    for x, y in zip(found.values(), expected, strict=True):
        # Both within 60 roundings of sums of at most 11·11 terms below 10³.
        assert (x - y).abs().max() <= 1e-9
    assert torch.autograd.gradcheck(lambda *v: diagonal_kernel(*v, 5, 2, 1), given)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 31, 32, 33])
def test_powers_of_small_integers_are_exact(count: int) -> None:
    base = np.array([1j, -1 + 0j, 1 + 1j, 0j])
    expected = base[:, None] ** np.arange(count)
    expected[0], expected[2] = [1j ** (i % 4) for i in range(count)], np.cumprod([1, *[1 + 1j] * (count - 1)])
    for table in (power_table(torch.from_numpy(base), count), power_table(split(torch.from_numpy(base)), count)):
        assert np.array_equal(join(table).numpy(), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_of_channels_are_the_whole(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = parameters(kind, "float32")
    given, grad = tensors(kind, arrays), torch.ones(3, 40)
    kernel, gradients = diagonal_kernel(*given, 40, 2, 2), diagonal_kernel_vjp(*given, 40, 2, 2, grad)
    monkeypatch.setattr(vandermonde, "PIECE_BYTES", 1)
    # Products of tables may be summed in another order, in float64 and before the one rounding.
    assert torch.allclose(diagonal_kernel(*given, 40, 2, 2), kernel, rtol=2.0**-22, atol=1e-12)
    for name, value in diagonal_kernel_vjp(*given, 40, 2, 2, grad).items():
        assert torch.allclose(join(value), join(gradients[name]), rtol=2.0**-22, atol=1e-9)


def test_layout_does_not_matter_and_nothing_is_written() -> None:
    arrays = parameters("complex", "float64")
    given = tensors("complex", arrays)
    gaps = [v.repeat_interleave(2, -1)[:, ::2] for v in given]
    kept = [v.clone() for v in gaps]
    assert torch.equal(diagonal_kernel(*gaps, 30, 2, 2), diagonal_kernel(*given, 30, 2, 2))
    expanded = [v[:1].expand(3, -1) for v in given]
    grad = torch.ones(3, 30, dtype=torch.float64)
    found = diagonal_kernel_vjp(*expanded, 30, 2, 2, grad[:1].expand(3, -1))
    assert all(torch.equal(v[0], v[2]) for v in found.values())
    assert all(torch.equal(x, y) for x, y in zip(gaps, kept, strict=True))
    lazily_conjugated = [v.conj() for v in given]
    physical = [torch.conj_physical(v) for v in given]
    assert torch.equal(diagonal_kernel(*lazily_conjugated, 30, 2, 2), diagonal_kernel(*physical, 30, 2, 2))


@pytest.mark.parametrize("kind", KINDS)
def test_can_be_compiled_as_one_graph_and_traced_without_data(kind: str) -> None:
    torch._dynamo.reset()
    given = tensors("", parameters(kind, "float32"))

    def both(*given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        numbers = [split(v) for v in given] if kind == "split" else given
        kernel = diagonal_kernel(*numbers, 17, 2, 2)
        return kernel, *(join(v) for v in diagonal_kernel_vjp(*numbers, 17, 2, 2, kernel).values())

    compiled = torch.compile(both, backend="eager", fullgraph=True)
    assert all(torch.equal(x, y) for x, y in zip(compiled(*given), both(*given), strict=True))
    assert [x.shape for x in both(*(v.to("meta") for v in given))] == [(3, 17), (3, 5), (3, 5), (3, 5)]


class Largest(TorchDispatchMode):
    """The most elements of any tensor that an operation returns."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        sizes = [v.numel() for v in tree_leaves(result) if isinstance(v, torch.Tensor)]
        self.elements = max(self.elements, *sizes, 0)
        return result


def largest(function: Callable[[], Any]) -> int:
    with Largest() as found:
        function()
    return found.elements


@pytest.mark.parametrize("kind", ["complex", "split"])
def test_memory_grows_with_the_length_and_the_modes_but_not_with_their_product(kind: str) -> None:
    length, n_modes = 2**18, 32
    arrays = tuple(v[:1] for v in parameters("complex", "float32", n_modes=n_modes))
    given, grad = tensors(kind, arrays), torch.ones(1, length)
    assert largest(lambda: diagonal_kernel(*given, length, 1, 2)) <= length
    # Cotangents, and cotangents times their steps.
    assert largest(lambda: diagonal_kernel_vjp(*given, length, 1, 2, grad)) <= 2 * length
