"""Products of blocks with whole numbers, whose sums are exact in any order."""

from __future__ import annotations

import numpy as np
import pytest

from liquid_ssm.backends.compiled.caching import compiled
from liquid_ssm.backends.compiled.shared_state_products import (
    COLUMNS,
    STRIDE,
    add_outer,
    read_columns,
    to_channels,
    to_modes,
    turn,
    write_columns,
)
from liquid_ssm.backends.compiled.simd import lanes


@compiled
def run_products(columns, count, n_channels, padded, matrix, read, n_modes, depth, modes, turned, out, sums):
    for v in range(depth):
        to_modes(columns, count, n_channels, matrix, v * n_channels * 2 * (modes.size // (2 * COLUMNS)), modes)
        add_outer(columns, count, padded, modes, sums, v * padded * 2 * (modes.size // (2 * COLUMNS)))
        turn(modes, count, v, depth, turned)
    to_channels(turned, count, n_modes, depth, read, padded, 2, out)


@compiled
def move_columns(signal, other, first, rows, n_channels, start, steps, length, columns):
    read_columns(signal, first, rows, n_channels, start, steps, length, columns)
    write_columns(columns, other, first, rows, n_channels, start, steps, length)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("n_channels", [1, 4, 7])
@pytest.mark.parametrize("count", [1, 33, COLUMNS])
def test_they_are_matrix_products(dtype, depth, n_channels, count):
    w, padded = lanes(dtype), -(-n_channels // 4) * 4
    n_modes = depth * w - 1
    rng = np.random.default_rng(0)
    inputs = rng.integers(-3, 4, (n_channels, count))
    columns = np.zeros((padded, STRIDE), dtype)
    columns[:n_channels, :count] = inputs
    B = rng.integers(-3, 4, (depth, n_channels, 2, w))
    B[-1, ..., -1] = 0
    C = rng.integers(-3, 4, (2, n_modes, padded))
    modes, turned = np.zeros(2 * COLUMNS * w, dtype), np.zeros(2 * COLUMNS * depth * w, dtype)
    out, sums = np.zeros(padded * STRIDE, dtype), np.ones((depth, padded, 2, w))
    matrix, read = (a.astype(dtype).reshape(-1) for a in (B, C))
    sizes = (count, n_channels, padded)
    run_products(columns.reshape(-1), *sizes, matrix, read, n_modes, depth, modes, turned, out, sums.reshape(-1))

    x = np.einsum("vhpl,hc->pvlc", B, inputs)
    flat = x.reshape(2, depth * w, count)[:, :n_modes]
    y = 2 * (np.einsum("mh,mc->hc", C[0], flat[0]) - np.einsum("mh,mc->hc", C[1], flat[1]))
    assert np.array_equal(out.reshape(padded, STRIDE)[:, :count], y)
    assert np.array_equal(sums[:, :n_channels], 1 + np.einsum("pvlc,hc->vhpl", x, inputs))
    assert np.array_equal(sums[:, n_channels:], np.ones((depth, padded - n_channels, 2, w)))


@pytest.mark.parametrize("buffer", ["float32", "float64"])
def test_columns_are_rows_of_the_batch_beside_each_other(buffer):
    n_channels, length = 3, 10
    signal = np.arange(4 * n_channels * length, dtype="float32").reshape(4, n_channels, length)
    other, columns = np.zeros_like(signal), np.zeros(n_channels * STRIDE, buffer)
    move_columns(signal.reshape(-1), other.reshape(-1), 1, 2, n_channels, 4, 5, length, columns)
    found = columns.reshape(n_channels, STRIDE)[:, :10]
    assert np.array_equal(found, np.concatenate([signal[1, :, 4:9], signal[2, :, 4:9]], axis=-1))
    expected = np.zeros_like(signal)
    expected[1:3, :, 4:9] = signal[1:3, :, 4:9]
    assert np.array_equal(other, expected)
