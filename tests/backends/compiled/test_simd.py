"""Vectors against NumPy's own arithmetic, exactly: every operation is one rounding."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from llvmlite import binding

from liquid_ssm.backends.compiled import simd
from liquid_ssm.backends.compiled.caching import compiled
from liquid_ssm.backends.compiled.simd import (
    fma,
    gather_block,
    lanes,
    load,
    load_pairs,
    splat,
    store,
    store_pairs,
    total,
    transpose_block,
    width,
)

DTYPES = ["float32", "float64"]


@compiled
def arithmetic(a, out):
    w = width(a)
    x, y, z = load(a, 0), load(a, w), load(a, 2 * w)
    store(out, 0, x + y)
    store(out, w, x - y)
    store(out, 2 * w, x * y)
    store(out, 3 * w, -x)
    store(out, 4 * w, fma(x, y, z))
    store(out, 5 * w, splat(a[0]))
    out[6 * w] = total(x)


@compiled
def pairs(a, out):
    even, odd = load_pairs(a, 0)
    store(out, 0, even)
    store(out, width(a), odd)
    store_pairs(out, 2 * width(a), even, odd)


@compiled
def blocks(source, offsets, target, back):
    gather_block(source, 3, offsets, 0, target, 0)
    transpose_block(target, 0, back, 0)


@compiled
def rounded(a, out):
    store(out, 0, load(a, 0))


def numbers(n, dtype, seed=0):
    return np.random.default_rng(seed).normal(size=n).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_arithmetic(dtype):
    w = lanes(dtype)
    a, out = numbers(3 * w, dtype), np.zeros(7 * w, dtype)
    arithmetic(a, out)
    x, y, z = a[:w], a[w : 2 * w], a[2 * w :]
    for i, expected in enumerate((x + y, x - y, x * y, -x)):
        assert np.array_equal(out[i * w : (i + 1) * w], expected)
    exact = [Fraction(float(p)) * Fraction(float(q)) + Fraction(float(r)) for p, q, r in zip(x, y, z, strict=True)]
    once = np.array([float(v) for v in exact]) if dtype == "float64" else None
    if once is not None and simd.HAS_FMA:
        # Fraction to float rounds once; float32 would be rounded twice that way.
        assert np.array_equal(out[4 * w : 5 * w], once)
    unit = np.finfo(dtype).eps / 2
    assert all(
        abs(Fraction(float(v)) - e) <= 2 * unit * (abs(e) + 1) for v, e in zip(out[4 * w :], exact, strict=False)
    )
    assert (out[5 * w : 6 * w] == a[0]).all()
    assert abs(out[6 * w] - x.astype(float).sum()) <= unit * np.log2(w) * np.abs(x).sum() * 1.01


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_product_and_a_sum_are_one_rounding(dtype):
    if not simd.HAS_FMA:
        pytest.skip("this machine has no fused multiply-add")
    # (1 + ε)² - (1 + 2ε) = ε², which two roundings lose.
    w, eps = lanes(dtype), np.finfo(dtype).eps
    a = np.repeat(np.array([1 + eps, 1 + eps, -(1 + 2 * eps)], dtype), w)
    out = np.zeros(7 * w, dtype)
    arithmetic(a, out)
    assert (out[4 * w : 5 * w] == eps * eps).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_complex_numbers_in_memory(dtype):
    w = lanes(dtype)
    a, out = numbers(2 * w, dtype), np.zeros(4 * w, dtype)
    pairs(a, out)
    assert np.array_equal(out[:w], a[::2])
    assert np.array_equal(out[w : 2 * w], a[1::2])
    assert np.array_equal(out[2 * w :], a)


@pytest.mark.parametrize("source", DTYPES)
@pytest.mark.parametrize("target", DTYPES)
def test_blocks_are_gathered_transposed_and_converted(source, target):
    w = lanes(target)
    a = numbers(40 * w, source)
    offsets = np.random.default_rng(1).integers(0, 38 * w, w)
    block, back = np.zeros(w * w, target), np.zeros(w * w, target)
    blocks(a, offsets, block, back)
    expected = np.array([a[o + 3 : o + 3 + w] for o in offsets]).astype(target)
    assert np.array_equal(block.reshape(w, w), expected.T)
    assert np.array_equal(back.reshape(w, w), expected)


def test_storing_to_a_narrower_array_rounds_to_nearest():
    a, out = numbers(lanes("float64"), "float64"), np.zeros(lanes("float64"), "float32")
    rounded(a, out)
    assert np.array_equal(out, a.astype("float32"))


def test_the_width_follows_the_instruction_sets():
    assert simd.vector_bytes(frozenset({"avx512f", "avx2"})) == 64
    assert simd.vector_bytes(frozenset({"avx2"})) == 32
    assert simd.vector_bytes(frozenset()) == 16
    assert lanes("float32") == 2 * lanes("float64") == simd.VECTOR_BYTES // 4


def test_numbas_own_configuration_decides_what_is_used(monkeypatch):
    simd.cpu_features.cache_clear()
    try:
        monkeypatch.setattr(simd.config, "CPU_FEATURES", "+avx2,-avx512f,+fma")
        assert simd.cpu_features() == {"avx2", "fma"}
        simd.cpu_features.cache_clear()
        monkeypatch.setattr(simd.config, "CPU_FEATURES", None)
        monkeypatch.setattr(simd.config, "CPU_NAME", "generic")
        assert simd.cpu_features() == frozenset()
        simd.cpu_features.cache_clear()
        monkeypatch.setattr(simd.config, "CPU_NAME", binding.get_host_cpu_name())
        assert simd.cpu_features()
    finally:
        simd.cpu_features.cache_clear()
