"""Unit roundoffs and summation depths."""

from __future__ import annotations

import numpy as np
import pytest

from liquid_ssm.oracle.rounding import (
    ACCUMULATED_PRODUCT,
    ADDEND,
    COMPLEX_PRODUCT,
    FUSED_PRODUCT,
    RoundingModel,
    unit_roundoff,
)


def test_unit_roundoffs():
    assert unit_roundoff(np.float32) == 2.0**-24
    assert unit_roundoff("float64") == 2.0**-53


@pytest.mark.parametrize(
    ("terms", "pairwise", "any_order"), [(0, 0, 0), (1, 0, 0), (2, 1, 1), (3, 2, 2), (32, 5, 31), (33, 6, 32)]
)
def test_depth_of_a_sum(terms, pairwise, any_order):
    assert RoundingModel.of_dtype("float32", pairwise=True).depth(terms) == pairwise
    assert RoundingModel.of_dtype("float32").depth(terms) == any_order


def test_the_constant_of_the_complex_product_holds_and_is_tight():
    """|fl(xy) - xy| <= √5 u |xy| for complex64, over products chosen to come close (Brent et al. 2007)."""
    rng = np.random.default_rng(0)
    # the worst cases have all four parts near 1 with the mantissas' ends random
    x, y = (1 + rng.integers(0, 2**12, (2, 400_000, 2)) * 2.0**-23).astype(np.float32)
    z = (x[:, 0] + 1j * x[:, 1]).astype(np.complex64) * (y[:, 0] + 1j * y[:, 1]).astype(np.complex64)
    wide = (x[:, 0] + 1j * x[:, 1].astype(complex)) * (y[:, 0] + 1j * y[:, 1].astype(complex))
    units = np.abs(z.astype(complex) - wide) / np.abs(wide) * 2.0**24
    assert units.max() <= COMPLEX_PRODUCT
    assert units.max() >= COMPLEX_PRODUCT / 4


# Arithmetic of BITS bits, products and sums of which are exact in float64: every contraction can be played.
BITS = 9
U = 2.0**-BITS
U32 = 2.0**-24


def rn(x):
    mantissa, exponent = np.frexp(x)
    return np.ldexp(np.rint(np.ldexp(mantissa, BITS)), exponent - BITS)


def operands(seed, n=200_000):
    """Four parts each of z, w and v: random signs, mantissas and scales, half of them near the known worst cases."""
    rng = np.random.default_rng(seed)
    parts = rn(rng.choice([-1, 1], (6, n)) * (1 + rng.random((6, n)) * rng.choice([1, 2.0**-5], n)))
    parts[4:] *= rng.choice([0, 0.5, 1, 4], n)
    return parts * np.where(rng.random((6, n)) < 0.2, 2.0 ** rng.integers(-4, 1, (6, n)), 1)


def product_part(p, q, fused, first):
    """fl(p + q) of two exact products: the one named `first` is rounded, the other one too unless fused."""
    inner, outer = (p, q) if first else (q, p)
    return rn(rn(inner) + (outer if fused else rn(outer)))


def added_part(p, q, v, fused, first):
    """fl(v + p + q), the product named `first` is added first; fused is one flag for each of both additions."""
    inner, outer = (p, q) if first else (q, p)
    partial = rn(v + (inner if fused[0] else rn(inner)))
    return rn(partial + (outer if fused[1] else rn(outer)))


BOTH = (False, True)


def modulus(re, im):
    return np.hypot(re, im)


@pytest.mark.parametrize(
    ("real", "imaginary", "constant"),
    [(False, False, COMPLEX_PRODUCT), (True, True, FUSED_PRODUCT), (True, False, COMPLEX_PRODUCT)],
)
def test_constants_of_a_product_hold_however_it_is_contracted(real, imaginary, constant):
    """Each part with or without contraction, either of its products being the one that is fused."""
    a, b, c, d, *_ = operands(0)
    size = modulus(a, b) * modulus(c, d)
    worst = 0.0
    for i, j in [(i, j) for i in BOTH for j in BOTH]:
        re, im = product_part(a * c, -b * d, real, i), product_part(a * d, b * c, imaginary, j)
        worst = max(worst, (modulus(re - (a * c - b * d), im - (a * d + b * c)) / size).max() / U)
    assert worst <= constant
    assert worst >= 0.8 * constant


@pytest.mark.parametrize(
    ("fused", "constant"),
    [((False, False), ACCUMULATED_PRODUCT), ((True, False), ACCUMULATED_PRODUCT), ((True, True), FUSED_PRODUCT)],
)
def test_constants_of_an_accumulated_product_hold_however_it_is_contracted(fused, constant):
    a, b, c, d, e, f = operands(1)
    size = modulus(a, b) * modulus(c, d)
    for i, j in [(i, j) for i in BOTH for j in BOTH]:
        re, im = added_part(a * c, -b * d, e, fused, i), added_part(a * d, b * c, f, fused, j)
        error = modulus(re - (e + a * c - b * d), im - (f + a * d + b * c))
        # the last addition rounds its result; (1 + 2u) is the room for second order that the bounds take
        allowed = U * (constant * size + ADDEND * modulus(e, f)) * (1 + 2 * U) + U * modulus(re, im)
        assert np.all(error <= allowed)
        # without what the addend costs the bound would be wrong
        assert np.any(error > U * size * constant * 0.8 + U * modulus(re, im))


def test_models_know_their_constants():
    assert pytest.approx([COMPLEX_PRODUCT**2, ACCUMULATED_PRODUCT**2, FUSED_PRODUCT, ADDEND]) == [5, 5, 2, 1]
    unknown, separate, fused = (RoundingModel.of_dtype("float32", fused=f) for f in (None, False, True))
    assert (separate.product, separate.addend) == (COMPLEX_PRODUCT, 0)
    assert (fused.product, fused.addend) == (FUSED_PRODUCT, ADDEND)
    assert unknown.product == max(separate.product, fused.product, ACCUMULATED_PRODUCT)
    assert unknown.addend == max(separate.addend, fused.addend)


def test_bad_scans_are_named():
    with pytest.raises(ValueError, match="scan='tree' is unknown; allowed: sequential, any"):
        RoundingModel.of_dtype("float32", scan="tree")
    with pytest.raises(ValueError, match="scan_chunk=0 with scan='any'"):
        RoundingModel.of_dtype("float32", scan="any", scan_chunk=0)
    with pytest.raises(ValueError, match="scan_chunk=8 with scan='sequential'"):
        RoundingModel.of_dtype("float32", scan_chunk=8)


def test_finer_states_and_tables_are_those_of_a_finer_dtype():
    model = RoundingModel.of_dtype("float32", state_dtype="float64", table_dtype="float64", pairwise=True)
    assert (model.unit, model.state_unit, model.table_unit) == (2.0**-24, 2.0**-53, 2.0**-53)
    states = model.in_states
    assert (states.unit, states.tiny, states.state_unit) == (2.0**-53, 2.0**-1074, None)
    assert states.pairwise
    assert model.finest == 2.0**-53
    assert model.in_working_precision.finest == model.in_working_precision.unit == 2.0**-24
    same = RoundingModel.of_dtype("float64", state_dtype="float64", table_dtype="float32")
    assert (same.state_unit, same.table_unit) == (None, None)
    assert same.in_states is same


def test_scaled_states_cost_two_conversions():
    scaled, plain = (RoundingModel.of_dtype("float32", scaled_states=s) for s in (True, False))
    assert (1 + U32 + U32**2) ** 2 - 1 <= scaled.conversion <= 2 * U32 * (1 + 4 * U32)
    assert plain.conversion == 0
    assert plain.unscaled is plain
    assert scaled.unscaled == plain


def test_bad_kernels_chunks_and_precisions_are_named():
    with pytest.raises(ValueError, match="kernels='fft' is unknown; allowed: recurrence, tables"):
        RoundingModel.of_dtype("float32", kernels="fft")
    with pytest.raises(ValueError, match="linear_chunk=0 with scan='sequential'"):
        RoundingModel.of_dtype("float32", linear_chunk=0)
    with pytest.raises(ValueError, match="linear_chunk=8 with scan='any'"):
        RoundingModel.of_dtype("float32", linear_chunk=8, scan="any")
    with pytest.raises(ValueError, match=r"state_unit=[0-9.]+ is not finer"):
        RoundingModel(2.0**-24, 0.0, state_unit=0.5)


def test_only_float32_has_factors_of_fewer_bits():
    """tf32 keeps 11 bits of a number by truncation, bfloat16 8 bits by rounding to nearest."""
    units = {name: RoundingModel.of_dtype("float32", factor_dtype=name).factor_unit for name in ("tf32", "bfloat16")}
    assert units == {"tf32": 2.0**-10, "bfloat16": 2.0**-8}
    rng = np.random.default_rng(0)
    x = np.concatenate([1 + rng.random(100_000), [2 - 2.0**-23, 1 + 2.0**-10 - 2.0**-23, 1 + 2.0**-8]]).astype(
        np.float32
    )
    truncated = (x.view(np.uint32) >> 13 << 13).view(np.float32)
    to_nearest = (x.view(np.uint32) + 0x7FFF + (x.view(np.uint32) >> 16 & 1)) >> 16 << 16  # to nearest, ties to even
    for short, unit in ((truncated, units["tf32"]), (to_nearest.view(np.float32), units["bfloat16"])):
        worst = (np.abs(short.astype(float) - x) / x).max()
        assert 0.99 * unit <= worst <= unit
    assert RoundingModel.of_dtype("float32").factor_unit is None
    assert RoundingModel.of_dtype("float64", factor_dtype="bfloat16").factor_unit is None
    with pytest.raises(ValueError, match="factor_dtype='float16' is unknown; allowed: tf32, bfloat16, None"):
        RoundingModel.of_dtype("float32", factor_dtype="float16")
    for wrong in (2.0**-24, 2.0**-30, 0.5):
        with pytest.raises(ValueError, match="allowed: coarser than unit, below 2\\^-6"):
            RoundingModel(2.0**-24, 0.0, factor_unit=wrong)


def test_correlations_in_other_brackets_are_scans_of_their_own():
    model = RoundingModel.of_dtype("float32", linear_chunk=8, correlations="sums")
    assert model.for_correlations.scan == "any"
    assert model.for_correlations.scan_chunk is None
    assert model.scan == "sequential"
    plain = RoundingModel.of_dtype("float32", linear_chunk=8)
    assert plain.for_correlations is plain
    chunks = RoundingModel.of_dtype("float32", scan="any", scan_chunk=4, correlations="any")
    assert chunks.for_correlations is chunks
