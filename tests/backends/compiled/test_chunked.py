from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from liquid_ssm.backends._vandermonde import power_table
from liquid_ssm.backends.compiled.chunked import (
    BLOCK,
    TOGETHER,
    ChunkTables,
    best_chunk,
    chunk_tables,
    chunked_scan,
    pays,
)
from liquid_ssm.backends.compiled.simd import lanes
from liquid_ssm.backends.numpy_backend import NumPyBackend
from liquid_ssm.systems import DiagonalSystem

Array = npt.NDArray[Any]
DTYPES = [np.float32, np.float64]


def system(n_channels: int, n_modes: int, dtype: Any, paired: bool = True) -> DiagonalSystem:
    rng = np.random.default_rng(n_modes)
    A = rng.uniform(0.8, 1.001, (n_channels, n_modes)) * np.exp(1j * rng.uniform(0, 3, (n_channels, n_modes)))
    B, C = rng.standard_normal((2, n_channels, n_modes)) + 1j * rng.standard_normal((2, n_channels, n_modes))
    return DiagonalSystem(A, B, C, conjugate_pairs=paired).astype(dtype)


def signals(batch: int, s: DiagonalSystem, length: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(length)
    u = rng.standard_normal((batch, s.n_channels, length)).astype(s.dtype)
    state = rng.standard_normal((batch, s.n_channels, s.n_modes)) * (1 + 0.5j)
    return u, (state if np.iscomplexobj(s.A_bar) else state.real).astype(s.A_bar.dtype)


def scan(s: DiagonalSystem, u: Array, state: Array | None, threads: int = 1, vectors: int = 2) -> tuple[Array, Array]:
    return chunked_scan(chunk_tables(s, vectors * lanes(s.dtype), s.dtype, threads), u, state, threads)


def exact(s: DiagonalSystem, u: Array, state: Array | None) -> tuple[Array, Array]:
    """In float64: the reference for float32, and for float64 as wrong as what is tested, or less."""
    wide = None if state is None else state.astype(np.result_type(state, np.float64))
    return NumPyBackend().scan(s.astype(np.float64), u.astype(np.float64), wide, liquid=False)


def bounds(s: DiagonalSystem, u: Array, state: Array | None, chunk: int) -> tuple[Array, Array]:
    """γ_n times the same recurrence of moduli, n the roundings behind a term.

    In a chunk chunk + 2M additions and three roundings of tables and weights; from chunk to chunk, and from step to
    step after the last, a rounded factor, a complex product within √5 units and an addition; √2 for bounds of parts,
    and 2 for the reference.
    """
    moduli = DiagonalSystem(*(np.abs(v).astype(float) for v in s.parameters.values()), conjugate_pairs=s.weight == 2)
    sizes = NumPyBackend().scan(
        moduli, np.abs(u).astype(float), None if state is None else np.abs(state).astype(float), liquid=False
    )
    whole, rest = divmod(u.shape[-1], chunk)
    roundings = chunk + 2 * s.n_modes + 3 + 5 * (whole + rest) + (5 * u.shape[-1] if s.dtype == np.float64 else 0)
    unit = np.finfo(s.dtype).eps / 2
    gamma = np.sqrt(2) * roundings * unit / (1 - roundings * unit)
    return sizes[0] * gamma, sizes[1] * gamma


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_modes", [1, 3, 8, 17, 32])
def test_within_the_bound(dtype: Any, n_modes: int) -> None:
    chunk = 2 * lanes(dtype)
    s = system(2, n_modes, dtype, paired=n_modes != 3)
    for length in (1, chunk - 1, chunk, chunk + 1, TOGETHER * chunk - 1, TOGETHER * chunk, 5 * chunk + 3, 337):
        u, state = signals(2, s, length)
        for start in (state, None):
            y, final = scan(s, u, start)
            expected, limits = exact(s, u, start), bounds(s, u, start, chunk)
            assert y.dtype == dtype
            assert final.dtype == s.A_bar.dtype
            assert (np.abs(y - expected[0]) <= limits[0]).all()
            assert (np.abs(final - expected[1]) <= limits[1]).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_longer_chunks(dtype: Any) -> None:
    s = system(1, 5, dtype)
    u, state = signals(1, s, 9 * 4 * lanes(dtype) + 1)
    y, final = scan(s, u, state, vectors=4)
    expected, limits = exact(s, u, state), bounds(s, u, state, 4 * lanes(dtype))
    assert (np.abs(y - expected[0]) <= limits[0]).all()
    assert (np.abs(final - expected[1]) <= limits[1]).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_output_depends_on_later_inputs(dtype: Any) -> None:
    chunk = 2 * lanes(dtype)
    s = system(1, 3, dtype)
    u, state = signals(1, s, 6 * chunk + 3)
    y, _ = scan(s, u, state)
    for k in (0, 1, chunk // 2 - 1, chunk // 2, chunk - 1, chunk, 3 * chunk + 5, 6 * chunk + 1):
        for other in (np.nan, np.inf, 1e30):
            changed = u.copy()
            changed[..., k + 1 :] = other
            with np.errstate(invalid="ignore"):
                assert np.array_equal(scan(s, changed, state)[0][..., : k + 1], y[..., : k + 1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_pieces_of_whole_chunks_are_the_whole(dtype: Any) -> None:
    chunk = 2 * lanes(dtype)
    s = system(2, 5, dtype)
    u, state = signals(2, s, 9 * chunk + 3)
    y, final = scan(s, u, state)
    for cut in (chunk, 3 * chunk, 8 * chunk):
        first, middle = scan(s, u[..., :cut], state)
        second, last = scan(s, u[..., cut:], middle)
        assert np.array_equal(np.concatenate([first, second], axis=-1), y)
        assert np.array_equal(last, final)


@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_change_no_bit(dtype: Any) -> None:
    s = system(37, 40, dtype)
    u, state = signals(3, s, 600)
    y, final = scan(s, u, state)
    for threads in (2, 3):
        other = scan(s, u, state, threads)
        assert np.array_equal(other[0], y)
        assert np.array_equal(other[1], final)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 2, -1, 0, 3])
def test_channels_last_are_read_and_written_where_they_are_in_the_same_bits(dtype: Any, channels: int) -> None:
    """Tiles of a whole vector of channels and of fewer; several blocks of time, and steps that fill no chunk."""
    chunk, n_channels = 2 * lanes(dtype), channels if channels in (1, 2) else 2 * lanes(dtype) + channels
    s = system(n_channels, 5, dtype)
    for length in (chunk - 1, 5 * chunk + 3, (2 * BLOCK + 1) * chunk + 1):
        u, state = signals(2, s, length)
        last = np.ascontiguousarray(u.swapaxes(1, 2)).swapaxes(1, 2)
        y, final = scan(s, u, state)
        found, found_final = scan(s, last, state, threads=2)
        assert np.array_equal(found, y)
        assert np.array_equal(found_final, final)
        assert found.swapaxes(1, 2).flags.c_contiguous or 1 in u.shape


@pytest.mark.parametrize("dtype", DTYPES)
def test_real_parameters_have_a_real_state(dtype: Any) -> None:
    A = np.array([[0.5, -1, 1]], dtype)
    s = DiagonalSystem(A, np.ones_like(A), np.array([[1, 2, 3]], dtype), conjugate_pairs=False)
    # Integers and halves: no operation rounds but those that involve a power of ½ below a unit.
    u, state = np.ones((1, 1, 70), dtype), np.ones((1, 1, 3), dtype)
    y, final = scan(s, u, state)
    expected, limits = exact(s, u, state), bounds(s, u, state, 2 * lanes(dtype))
    assert final.dtype == dtype
    assert (np.abs(y - expected[0]) <= limits[0]).all()
    assert np.array_equal(final[0, 0, 1:], [1, 71])


@pytest.mark.parametrize("dtype", DTYPES)
def test_arguments_are_read_only_and_may_have_gaps(dtype: Any) -> None:
    s = system(3, 4, dtype)
    u, state = signals(2, s, 150)
    gaps = np.repeat(u, 2, axis=-1)[..., ::2]
    state.setflags(write=False)
    gaps.setflags(write=False)
    y, final = scan(s, gaps, state)
    assert np.array_equal(y, scan(s, u, state)[0])
    assert not np.shares_memory(y, u)
    assert not np.shares_memory(final, state)


@pytest.mark.parametrize(("batch", "length"), [(0, 5), (2, 0), (0, 0)])
def test_nothing_to_do(batch: int, length: int) -> None:
    s = system(2, 3, np.float32)
    u, state = signals(batch, s, length)
    y, final = scan(s, u, state)
    assert y.shape == u.shape
    assert np.array_equal(final, state)


def tables(s: DiagonalSystem) -> ChunkTables:
    return chunk_tables(s, 2 * lanes(s.dtype), s.dtype, 1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_tables_are_rounded_once(dtype: Any) -> None:
    s = system(2, 5, dtype)
    t, chunk = tables(s), 2 * lanes(dtype)
    powers = power_table(s.A_bar.astype(complex), chunk + 1)
    B, C = (v.astype(complex)[..., None] for v in (s.B_bar, s.C))
    G = 2 * C * powers[..., 1:]
    # chunk + 1 complex products of √5 units here and there, and for the kernel a sum of 2M terms; a part may be small.
    unit, inner = np.finfo(dtype).eps / 2, 2 * (np.sqrt(5) * (chunk + 2) + 2 * s.n_modes) * 2.0**-53
    assert (np.abs(t.outputs[:, 0, :5] - G.real) <= unit * np.abs(G.real) + inner * np.abs(G)).all()
    assert (np.abs(t.outputs[:, 1, :5] + G.imag) <= unit * np.abs(G.imag) + inner * np.abs(G)).all()
    V = (powers[..., :-1] * B)[..., ::-1]
    got = t.inputs.transpose(0, 1, 4, 2, 3).reshape(2, -1, chunk, 2)[:, :5]
    assert (np.abs(got[..., 0] - V.real) <= unit * np.abs(V.real) + inner * np.abs(V)).all()
    assert (np.abs(got[..., 1] - V.imag) <= unit * np.abs(V.imag) + inner * np.abs(V)).all()
    K = (2 * C * B * powers[..., :-1]).real.sum(axis=1)
    size = (2 * np.abs(C * B * powers[..., :-1])).sum(axis=1)
    assert (np.abs(t.kernel[:, chunk:] - K) <= unit * np.abs(K) + inner * size).all()
    assert not t.kernel[:, :chunk].any()


def test_tables_know_that_a_power_has_no_float() -> None:
    one = np.ones((1, 1), np.float32)
    assert tables(DiagonalSystem(2 * one, one, one)).finite
    # A chunk has at least eight steps.
    assert not tables(DiagonalSystem(np.float32(1e6) * one, one, one)).finite


@pytest.mark.parametrize("dtype", DTYPES)
def test_it_pays_for_many_modes_and_many_chunks(dtype: Any) -> None:
    w = lanes(dtype)
    assert best_chunk(w, dtype) % (2 * w) == 0
    assert pays(2 * w, 512, 4096, dtype)
    assert pays(2 * w, 1, 4096, dtype)
    # Fewer modes than half a vector, and less than a chunk.
    assert not pays(w // 4, 512, 4096, dtype)
    assert not pays(2 * w, 512, 2 * w - 1, dtype)
    assert not pays(2 * w, 0, 4096, dtype)
    # Tables cost as much as some hundred steps, unless they serve many sequences or are at hand.
    assert not pays(2 * w, 64, 8 * w, dtype)
    assert pays(2 * w, 64 * 64, 8 * w, dtype, 64)
    assert pays(2 * w, 64, 8 * w, dtype, 0)
