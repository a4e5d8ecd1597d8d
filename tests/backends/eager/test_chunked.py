from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from liquid_ssm.backends.eager.chunked import best_chunk, chunk_tables, chunked_scan
from liquid_ssm.backends.numpy_backend import NumPyBackend
from liquid_ssm.complex_numbers import Split, join, split
from liquid_ssm.oracle.realization import Realization
from liquid_ssm.oracle.reference import reference
from liquid_ssm.oracle.rounding import RoundingModel
from liquid_ssm.systems import DiagonalSystem

Array = npt.NDArray[Any]
DTYPES = ["float32", "float64"]
KINDS = ["complex", "split", "real", "complex C", "complex A", "split C"]


def parameters(kind: str, dtype: str, n_modes: int = 5) -> tuple[Array, ...]:
    rng = np.random.default_rng(n_modes)
    A = rng.uniform(0.8, 1.001, (2, n_modes)) * np.exp(1j * rng.uniform(0, 3, (2, n_modes)))
    B, C = rng.standard_normal((2, 2, n_modes)) + 1j * rng.standard_normal((2, 2, n_modes))
    if kind in ("real", "complex C", "split C"):
        A, B = A.real, B.real
    if kind in ("real", "complex A"):
        C = C.real
    if kind == "complex A":
        B = B.real
    wide = np.result_type(np.complex64, dtype)
    return tuple(v.astype(wide if np.iscomplexobj(v) else dtype) for v in (A, B, C))


def given(kind: str, *arrays: Array) -> list[Any]:
    found = [torch.from_numpy(v) for v in arrays]
    return [split(v) for v in found] if kind.startswith("split") else found


def signals(kind: str, length: int, dtype: str, n_modes: int = 5) -> tuple[Array, Array]:
    rng = np.random.default_rng(length)
    u = rng.standard_normal((3, 2, length)).astype(dtype)
    state = rng.standard_normal((3, 2, n_modes)) * (1 + 0.5j)
    return u, state.real.astype(dtype) if kind == "real" else state.astype(np.result_type(np.complex64, dtype))


def model_of(dtype: str, chunk: int) -> RoundingModel:
    return RoundingModel.of_dtype(dtype, linear_chunk=chunk, table_dtype="float64")


def exact_state(arrays: tuple[Array, ...], u: Array, state: Array | None) -> tuple[Array, Array]:
    """The final state in extended precision, and that of moduli."""
    A, B, _ = (v.astype(np.clongdouble) for v in arrays)
    x = np.zeros((*u.shape[:-1], A.shape[-1]), np.clongdouble) if state is None else state.astype(np.clongdouble)
    size = np.abs(x)
    for u_k in np.moveaxis(u, -1, 0):
        x, size = A * x + B * u_k[..., None], np.abs(A) * size + np.abs(B * u_k[..., None])
    return x, size


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk", [1, 2, 16, 64])
def test_within_the_bound_of_chunks(chunk: int, kind: str, dtype: str) -> None:
    arrays = parameters(kind, dtype)
    realization = Realization("diagonal", *arrays)
    unit = float(np.finfo(dtype).eps) / 2
    for length in sorted({0, 1, 2, 3, chunk - 1, chunk, chunk + 1, 3 * chunk - 1, 2 * chunk, 131}):
        u, state = signals(kind, length, dtype)
        for start in (state, None):
            numbers = given(kind, *arrays)
            before = None if start is None else given(kind, start)[0]
            y, final = chunked_scan(*numbers, torch.from_numpy(u), before, chunk, 2)
            assert y.dtype == getattr(torch, dtype)
            assert y.is_contiguous()
            assert isinstance(final, Split) == kind.startswith("split")
            final = join(final).numpy()
            assert np.iscomplexobj(final) == (kind != "real")
            found = reference(realization, u, "s4", state=start, models=[model_of(dtype, chunk)])
            assert (np.abs(y.numpy() - found.value) <= found.bounds[0].componentwise).all()
            expected, size = exact_state(arrays, u, start)
            # A term passes per chunk a rounded factor (two roundings of a table's entry with its products in float64)
            # and chunk + 2 additions, a plain step costs less than five; √2 for bounds of parts, and the reference.
            n = unit * np.sqrt(2) * (5 * length + 5 * (length // chunk + 1) + chunk + 5)
            assert (np.abs(final - expected) <= n / (1 - n) * size).all()


@pytest.mark.parametrize("kind", KINDS)
def test_fewer_steps_than_a_chunk_are_plain_steps_in_the_order_of_the_readable_scan(kind: str) -> None:
    arrays = parameters(kind, "float64", n_modes=1)
    u, state = signals(kind, 15, "float64", n_modes=1)
    y, final = chunked_scan(*given(kind, *arrays), torch.from_numpy(u), given(kind, state)[0], 16, 2)
    expected = NumPyBackend().scan(DiagonalSystem(*arrays), u, state, liquid=False)
    if kind.startswith("split"):
        # No library forms its complex products: one mode, so nothing is summed either.
        assert np.array_equal(y.numpy(), split_scan(arrays, u, state)[0])
        assert np.array_equal(join(final).numpy(), split_scan(arrays, u, state)[1])
    else:
        limit = reference(Realization("diagonal", *arrays), u, "s4", state=state, models=[model_of("float64", 16)])
        assert (np.abs(y.numpy() - expected[0]) <= 2 * limit.bounds[0].componentwise).all()


def split_scan(arrays: tuple[Array, ...], u: Array, state: Array) -> tuple[Array, Array]:
    """Eq. 2 for one mode with every product and sum rounded by itself."""
    (ar, ai), (br, bi), (cr, ci) = ((v.real, v.imag) for v in arrays)
    xr, xi = state.real, state.imag
    y = np.empty_like(u)
    for k in range(u.shape[-1]):
        u_k = u[..., k, None]
        if np.iscomplexobj(arrays[0]):
            xr, xi = (ar * xr - ai * xi) + br * u_k, (ar * xi + ai * xr) + bi * u_k
        else:
            xr, xi = ar * xr + br * u_k, ar * xi
        y[..., k] = 2 * (cr * xr - ci * xi)[..., 0]
    return y, xr + 1j * xi


@pytest.mark.parametrize("dtype", DTYPES)
def test_outputs_do_not_depend_on_later_inputs(dtype: str) -> None:
    numbers = given("split", *parameters("split", dtype))
    u = torch.from_numpy(signals("split", 70, dtype)[0])
    y, _ = chunked_scan(*numbers, u, None, 16, 2)
    for k in (0, 1, 14, 15, 16, 40, 63, 64, 68):
        changed = u.clone()
        changed[..., k + 1 :] = 1e30
        assert torch.equal(chunked_scan(*numbers, changed, None, 16, 2)[0][..., : k + 1], y[..., : k + 1])


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_of_whole_chunks_are_the_whole(kind: str) -> None:
    arrays = parameters(kind, "float32")
    u = torch.from_numpy(signals(kind, 70, "float32")[0])
    numbers = given(kind, *arrays)
    y, final = chunked_scan(*numbers, u, None, 16, 2)
    first, middle = chunked_scan(*numbers, u[..., :48], None, 16, 2)
    second, last = chunked_scan(*numbers, u[..., 48:], middle, 16, 2)
    bound = (
        reference(Realization("diagonal", *arrays), u.numpy(), "s4", models=[model_of("float32", 16)])
        .bounds[0]
        .componentwise
    )
    assert (np.abs(torch.cat([first, second], -1).numpy() - y.numpy()) <= 2 * bound).all()
    assert join(last).shape == join(final).shape


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_tables_are_rounded_once(kind: str, dtype: str) -> None:
    arrays, chunk = parameters(kind, dtype), 8
    tables = chunk_tables(*given(kind, *arrays), chunk, 2)
    A, B, C = (v.astype(np.clongdouble)[..., None] for v in arrays)
    powers = A ** np.arange(chunk + 1)
    V, G = (powers[..., :-1] * B)[..., ::-1].swapaxes(1, 2), 2 * C * powers[..., 1:]
    K, size = ((2 * v).sum(1) for v in ((C * B * powers[..., :-1]).real, np.abs(C * B * powers[..., :-1])))
    toeplitz, sizes = np.zeros((2, 2, chunk, chunk), np.longdouble)
    for j in range(chunk):
        toeplitz[:, j, j:], sizes[:, j, j:] = K[:, : chunk - j], size[:, : chunk - j]
    unit = float(np.finfo(dtype).eps) / 2 if dtype == "float32" else 0.0
    # chunk + 2 complex products, and for the kernel 2M terms; the reference's powers besides.
    inner = (np.sqrt(5) * (chunk + 2) + 10 + 1) * 2.0**-53
    complex_state = kind != "real"
    inputs = [toeplitz, V.real, *([V.imag] if complex_state else [])]
    scales = [sizes, np.abs(V), *([np.abs(V)] if complex_state else [])]
    outputs = [G.real, *([-G.imag] if complex_state else [])]
    for found, parts, moduli, axis in (
        (tables.inputs, inputs, scales, -1),
        (tables.outputs, outputs, [np.abs(G)] * len(outputs), 1),
    ):
        expected, scale = np.concatenate(parts, axis), np.concatenate(moduli, axis)
        assert found.dtype == getattr(torch, dtype)
        assert (np.abs(found.numpy() - expected) <= unit * np.abs(expected) + inner * scale * (1 + unit)).all()
    D = powers[..., -1]
    whole = join(tables.whole).numpy()
    assert (np.abs(whole - D) <= (unit + inner) * (1 + unit) * np.abs(D)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_autograd_agrees_with_finite_differences(kind: str) -> None:
    arrays = parameters(kind, "float64", n_modes=2)
    u, state = (torch.from_numpy(v[:1]).requires_grad_() for v in signals(kind, 9, "float64", n_modes=2))
    leaves = [torch.from_numpy(v).requires_grad_() for v in arrays]

    def run(*v: torch.Tensor) -> tuple[torch.Tensor, ...]:
        numbers = [split(x) for x in v] if kind.startswith("split") else list(v)
        y, final = chunked_scan(*numbers[:3], v[3], numbers[4], 4, 2)
        return y, join(final)

    assert torch.autograd.gradcheck(run, (*leaves, u, state))


def test_layout_does_not_matter_and_nothing_is_written() -> None:
    numbers = given("complex", *parameters("complex", "float32"))
    u, state = (torch.from_numpy(v) for v in signals("complex", 70, "float32"))
    y, final = chunked_scan(*numbers, u, state, 16, 2)
    gaps, kept = u.repeat_interleave(2, -1)[..., ::2], u.clone()
    turned = gaps.transpose(0, 1).contiguous().transpose(0, 1)
    realization = Realization("diagonal", *parameters("complex", "float32"))
    found = reference(realization, u.numpy(), "s4", state=state.numpy(), models=[model_of("float32", 16)])
    for v in (gaps, turned):
        other = chunked_scan(*numbers, v, state, 16, 2)
        # Not bit for bit: a library of matrix products may choose another order on a busy machine.
        assert (np.abs(other[0].numpy() - y.numpy()) <= 2 * found.bounds[0].componentwise).all()
        assert other[1].shape == final.shape
    assert torch.equal(gaps, kept)
    expanded = chunked_scan(*numbers, u[:1].expand(3, -1, -1), state, 16, 2)[0]
    assert (np.abs(expanded.numpy()[0] - y.numpy()[0]) <= 2 * found.bounds[0].componentwise[0]).all()
    for length in (0, 5, 16):
        _, last = chunked_scan(*numbers, u[..., :length], state, 16, 2)
        assert last.data_ptr() != state.data_ptr()


@pytest.mark.parametrize("kind", KINDS)
def test_can_be_compiled_as_one_graph_and_traced_without_data(kind: str) -> None:
    torch._dynamo.reset()
    leaves = [torch.from_numpy(v) for v in (*parameters(kind, "float32"), *signals(kind, 35, "float32"))]

    def run(*v: torch.Tensor) -> tuple[torch.Tensor, ...]:
        numbers = [split(x) for x in v] if kind.startswith("split") else list(v)
        y, final = chunked_scan(*numbers[:3], v[3], numbers[4], 16, 2)
        return y, *((final.re, final.im) if isinstance(final, Split) else (final,))

    compiled = torch.compile(run, backend="eager", fullgraph=True)
    assert all(torch.equal(x, y) for x, y in zip(compiled(*leaves), run(*leaves), strict=True))
    assert run(*(v.to("meta") for v in leaves))[0].shape == (3, 2, 35)


def test_chunks_depend_on_the_length_alone() -> None:
    assert [best_chunk(32, length, "float32") for length in (0, 31, 32, 511, 512, 4096)] == [None, None, 16, 16, 64, 64]
    assert best_chunk(1, 512, "float64") == best_chunk(128, 512, "float32")
