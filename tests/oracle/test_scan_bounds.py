"""Scans in every bracketing stay within the bound of T3 around T1, and scans with a bug do not."""

from __future__ import annotations

from functools import partial
from itertools import accumulate, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liquid_ssm.oracle import scalar_recurrence
from liquid_ssm.oracle.correlation import adjacent_products
from liquid_ssm.oracle.enclosure import enclose
from liquid_ssm.oracle.metrics import absolute_error
from liquid_ssm.oracle.realization import Realization
from liquid_ssm.oracle.reference import reference
from liquid_ssm.oracle.rounding import RoundingModel
from liquid_ssm.oracle.scan_bounds import ScanErrors, elementary, levels, running_sums
from liquid_ssm.rounding_errors import realization_of
from liquid_ssm.testing.strategies import random_system

U = 2.0**-24


# --- scans of elements (a, w), time first, by pairs of arrays -------------------------------------------------------


def combine(older, newer):
    return newer[0] * older[0], newer[0] * older[1] + newer[1]


def part(elements, index):
    return tuple(v[index] for v in elements)


def sequential(elements):
    return np.array([w for _, w in accumulate(zip(*elements, strict=True), combine)])


def hillis_steele(elements):
    a, w = (v.copy() for v in elements)
    distance = 1
    while distance < len(a):
        a[distance:], w[distance:] = combine((a[:-distance], w[:-distance]), (a[distance:], w[distance:]))
        distance *= 2
    return w


def blelloch(elements):
    """Up-sweep and down-sweep over a power of two, exclusive; then every step's own element."""
    length = len(elements[0])
    size = 1 << max(0, length - 1).bit_length()
    neutral = (Product(0), Sum({})) if elements[0].dtype == object else (1, 0)
    a, w = (
        np.concatenate([v, np.full((size - length, *v.shape[1:]), n, v.dtype)])
        for v, n in zip(elements, neutral, strict=True)
    )
    step = 1
    while step < size:
        left, right = slice(step - 1, None, 2 * step), slice(2 * step - 1, None, 2 * step)
        a[right], w[right] = combine((a[left], w[left]), (a[right], w[right]))
        step *= 2
    a[-1:], w[-1:] = neutral
    while step > 1:
        step //= 2
        left, right = slice(step - 1, None, 2 * step), slice(2 * step - 1, None, 2 * step)
        below = a[left].copy(), w[left].copy()
        a[left], w[left] = a[right], w[right]
        a[right], w[right] = combine((a[right], w[right]), below)
    return combine((a[:length], w[:length]), elements)[1]


def chunked(elements, chunk, *, rerun, inner=sequential):
    """Two passes: every chunk by itself, then its carry is added (or the chunk is run again from it)."""
    a = elements[0]
    carry, pieces = None, []
    for start in range(0, len(a), chunk):
        piece = part(elements, slice(start, start + chunk))
        local = inner(piece)
        decay = np.cumprod(piece[0], axis=0)
        if carry is None:
            pieces.append(local)
        elif rerun:
            first = piece[0][:1] * carry + piece[1][:1]
            pieces.append(sequential((piece[0], np.concatenate([first, piece[1][1:]]))))
        else:
            pieces.append(decay * carry + local)
        carry = local[-1] if carry is None else decay[-1] * carry + local[-1]
    return np.concatenate(pieces)


SCANS = {
    "sequential": sequential,
    "Hillis-Steele": hillis_steele,
    "Blelloch": blelloch,
    "trees in chunks of 8": partial(chunked, chunk=8, rerun=False, inner=hillis_steele),
}
CHUNKED = {
    f"chunks of {q}, {'run again' if rerun else 'carry added'}": (q, partial(chunked, chunk=q, rerun=rerun))
    for q in (1, 4, 16, 33)
    for rerun in (False, True)
}
SCANS |= {name: scan for name, (_, scan) in CHUNKED.items()}


def tree_sum(terms):
    while terms.shape[-1] > 1:
        half = terms.shape[-1] // 2
        paired = terms[..., : 2 * half : 2] + terms[..., 1 : 2 * half : 2]
        terms = np.concatenate([paired, terms[..., 2 * half :]], axis=-1)
    return terms[..., 0]


def outputs(system, u, x0, mode, scan, order=2, dtype=np.complex64):
    """One channel by scans, as a backend would: y (L,)."""
    A, B, C = (getattr(system, name)[0].astype(dtype) for name in "ABC")
    u = u[0, 0].astype(np.dtype(dtype).type(0).real.dtype)
    w = B * u[:, None]
    a = A + w if mode == "liquid" else np.broadcast_to(A, w.shape).astype(dtype)
    first = w.copy()
    first[:1] = a[:1] * x0[0, 0].astype(dtype) + w[:1]
    x = scan((a, first))
    if mode == "truncated":
        states, below = [x], np.concatenate([x0[0].astype(dtype), x[:-1]])
        for _ in range(order - 1):
            states.append(scan((a, w * below)))
            below = np.concatenate([np.zeros_like(x[:1]), states[-1][:-1]])
        x = sum(states[1:], states[0])
    return system.weight * tree_sum(C.real * x.real - C.imag * x.imag)


def compare(system, u, x0, mode, scan, dtype=np.complex64, order=2, chunk=None):
    """The largest error in units of the bound, errors (L,) and bounds (L,)."""
    narrow = np.dtype(dtype).type(0).real.dtype
    model = RoundingModel.of_dtype(narrow, pairwise=True, scan="any", scan_chunk=chunk)
    exact = enclose(system, u, mode, order=order, state=x0)
    bound = reference(system, u, mode, order=order, state=x0, models=[model]).bounds[0]
    error = absolute_error(outputs(system, u, x0, mode, scan, order, dtype)[None, None], exact.hi, exact.lo)
    error = np.maximum(error - exact.radius, 0)
    return bound.units(error), error[0, 0].astype(float), bound.componentwise[0, 0]


def random_case(seed, length, modes, dtype, *, decay, drive, scale=1.0, start=True):
    """A diagonal system of one channel with floats of dtype; |ā| from e^-decay to 1, a few up to e^(decay/8)."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(dtype)

    real = np.dtype(dtype).type(0).real.dtype
    growth = -decay * rng.random((1, modes)) * (1 - 1.125 * (rng.random((1, modes)) < 0.1))
    A = np.exp(growth + 1j * rng.uniform(0, np.pi, (1, modes))).astype(dtype)
    B, C = (drive * normal(1, modes)).astype(dtype), normal(1, modes)
    u = (scale * rng.normal(size=(1, 1, length))).astype(real).astype(float)
    x0 = (scale * normal(1, 1, modes) * start).astype(dtype)
    return Realization("diagonal", A, B, C), u, x0


@st.composite
def cases(draw, dtype, mode):
    # scales at which neither outputs nor products of transitions overflow
    scales = [1.0, 1e-12, 1e-30, 1e20] if mode == "s4" else [1.0, 1e-12, 1e-30]
    return random_case(
        draw(st.integers(0, 2**32 - 1)),
        draw(st.integers(1, 70)),
        draw(st.integers(1, 4)),
        dtype,
        decay=draw(st.sampled_from([0.0, 1e-4, 0.1, 3.0])),
        drive=draw(st.sampled_from([1e-6, 1e-2, 0.3, 0.6])),
        scale=draw(st.sampled_from(scales)),
        start=draw(st.booleans()),
    )


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize("mode", ["s4", "liquid", "truncated"])
@settings(deadline=None)
@given(data=st.data())
def test_every_bracketing_is_within_the_bound(dtype, mode, data):
    case = data.draw(cases(dtype, mode))
    name = data.draw(st.sampled_from(sorted(SCANS)))
    units, _, _ = compare(*case, mode, SCANS[name], dtype)
    assert units <= 1


@pytest.mark.parametrize("mode", ["s4", "liquid", "truncated"])
@settings(deadline=None)
@given(data=st.data())
def test_chunks_of_a_known_length_are_within_their_sharper_bound(mode, data):
    case = data.draw(cases(np.complex64, mode))
    name = data.draw(st.sampled_from(sorted(CHUNKED)))
    chunk, scan = CHUNKED[name]
    units, _, _ = compare(*case, mode, scan, chunk=chunk)
    assert units <= 1


# --- scaled states: scans of (a, u), x / b̄ enters every call and x leaves it ------------------------------------------


def scaled_outputs(system, u, x0, mode, scan, cuts):
    """`outputs` by calls that begin at the cuts; conversions and C B̄ in complex128, rounded once."""
    A, B, C = (getattr(system, name)[0].astype(np.complex64) for name in "ABC")
    wide = B.astype(complex)
    read, inputs, x = (C * wide).astype(np.complex64), u[0, 0].astype(np.float32)[:, None], x0[0, 0]
    y, edges = [], [0, *cuts, len(inputs)]
    for start, end in pairwise(edges):
        if start == end:
            continue
        first = np.broadcast_to(inputs[start:end], (end - start, len(A))).astype(np.complex64)
        a = A + B * inputs[start:end] if mode == "liquid" else np.broadcast_to(A, first.shape).astype(np.complex64)
        first[:1] = a[:1] * (x / wide).astype(np.complex64) + first[:1]
        z = scan((a, first))
        y.append(system.weight * tree_sum(read.real * z.real - read.imag * z.imag))
        x = (z[-1] * wide).astype(np.complex64)
    return np.concatenate(y)


@pytest.mark.parametrize("mode", ["s4", "liquid"])
def test_scans_of_scaled_states_cut_anywhere_are_within_their_tight_bound(mode, capsys):
    nearest = []
    for seed, name in enumerate(sorted(SCANS) * 2):
        length = (30, 64, 200)[seed % 3]
        system, u, x0 = random_case(seed, length, 4, np.complex64, decay=(0.1, 1.0, 0.02)[seed % 3], drive=0.1)
        cuts = [[], list(range(1, length)), sorted(np.random.default_rng(seed).integers(1, length, 5))][seed // 3 % 3]
        # chunks are counted from the first step, so where their length is known the signal is one call
        chunk = CHUNKED[name][0] if name in CHUNKED and not cuts else None
        y = scaled_outputs(system, u, x0, mode, SCANS[name], cuts)
        model = RoundingModel.of_dtype("float32", pairwise=True, scan="any", scan_chunk=chunk, scaled_states=True)
        exact = enclose(system, u, mode, state=x0)
        bound = reference(system, u, mode, state=x0, models=[model]).bounds[0]
        error = np.maximum(absolute_error(y[None, None], exact.hi, exact.lo) - exact.radius, 0)
        nearest.append(1 / bound.units(error))
    with capsys.disabled():
        print(f"\nscans of scaled states, {mode}: median {np.median(nearest):.0f}, from {min(nearest):.0f}")
    assert min(nearest) >= 1
    assert np.median(nearest) <= 100


# --- the counts that the bound rests on, exactly ------------------------------------------------------------------


class Product:
    """A product of `factors` transitions."""

    def __init__(self, factors):
        self.factors = factors

    def __mul__(self, other):
        if isinstance(other, Product):
            return Product(self.factors + other.factors)
        return Sum({j: (p + self.factors, s, n) for j, (p, s, n) in other.terms.items()})


class Sum:
    """A partial result: for each term how many products, sums, and sums in which it was the newer part."""

    def __init__(self, terms):
        self.terms = terms

    def __add__(self, newer):
        if not (self.terms and newer.terms):  # a sum with the neutral element does not round
            return Sum(self.terms | newer.terms)
        assert not self.terms.keys() & newer.terms.keys()
        older = {j: (p, s + 1, n) for j, (p, s, n) in self.terms.items()}
        return Sum(older | {j: (p, s + 1, n + 1) for j, (p, s, n) in newer.terms.items()})


@pytest.mark.parametrize("name", sorted(SCANS))
def test_every_term_passes_the_counted_operations(name):
    """k - j products, each with one sum at most besides those in which the term was newer, of which D less one."""
    for length in (1, 2, 3, 8, 31, 33, 64, 100):
        a, w = np.empty((2, length, 1), object)
        a[:, 0], w[:, 0] = [Product(1)] * length, [Sum({j: (0, 0, 0)}) for j in range(length)]
        for k, found in enumerate(SCANS[name]((a, w))[:, 0]):
            assert sorted(found.terms) == list(range(k + 1))
            for j, (products, sums, newer) in found.terms.items():
                assert products == k - j
                assert sums - newer <= k - j
                assert newer <= levels(length) - 1  # one is left for the initial state


# --- tight, and exceeded by bugs ----------------------------------------------------------------------------------

POPULATION = [
    (mode, name, seed, length, decay)
    for seed, (mode, name) in enumerate((m, n) for m in ("s4", "liquid", "truncated") for n in sorted(SCANS))
    for length, decay in ((64, 0.1), (64, 1.0), (200, 0.02))
]


def test_the_bound_is_tight_over_a_population(capsys):
    """Bound over observed error where they are nearest, as reports give it; the median over steps is for the eye."""
    nearest, typical = [], []
    for mode, name, seed, length, decay in POPULATION:
        case = random_case(seed, length, 4, np.complex64, decay=decay, drive=0.1)
        units, error, bound = compare(*case, mode, SCANS[name])
        nearest.append(1 / units)
        typical.append(np.median(bound[error > 0] / error[error > 0]))
    with capsys.disabled():
        print(
            f"\nscan bounds, {len(POPULATION)} signals: bound/observed median {np.median(nearest):.0f}, "
            f"from {min(nearest):.0f} to {max(nearest):.0f}; over single steps median {np.median(typical):.0f}"
        )
    assert min(nearest) >= 1
    assert np.median(nearest) <= 100


def wrong_order(elements):
    """combine() with its arguments exchanged in the second level of the tree."""
    a, w = (v.copy() for v in elements)
    distance = 1
    while distance < len(a):
        older, newer = (a[:-distance], w[:-distance]), (a[distance:], w[distance:])
        a[distance:], w[distance:] = combine(newer, older) if distance == 2 else combine(older, newer)
        distance *= 2
    return w


def dropped_factor(elements):
    """The products of a chunk begin one factor late: its carry decays one step too little."""
    first = elements[0].copy()
    first[16] = 1
    return chunked((first, elements[1]), 16, rerun=False)


def dropped_level(elements):
    """The last level of the tree is left out."""
    half = 1 << (max(1, len(elements[0]) - 1).bit_length() - 1)
    return np.concatenate(
        [hillis_steele(part(elements, slice(half))), hillis_steele(part(elements, slice(half, None)))]
    )


def late_element(elements):
    """Blelloch's exclusive scan, joined with the element before its own."""
    a, w = elements
    return blelloch((a, np.concatenate([w[:1], w[:-1]])))


def stale_carry(elements):
    """Every chunk gets the carry of the one before the last."""
    x = chunked(elements, 8, rerun=False)
    y = x.copy()
    decay = np.cumprod(elements[0][24:32], axis=0)
    y[24:32] += decay * (x[15] - x[23])
    return y


def half_precision_level(elements):
    """One level of the tree keeps its products in half precision."""
    a, w = (v.copy() for v in elements)
    distance = 1
    while distance < len(a):
        a[distance:], w[distance:] = combine((a[:-distance], w[:-distance]), (a[distance:], w[distance:]))
        if distance == 2:
            a = (a.real.astype(np.float16) + 1j * a.imag.astype(np.float16)).astype(w.dtype)
        distance *= 2
    return w


MUTANTS = [wrong_order, dropped_factor, dropped_level, late_element, stale_carry, half_precision_level]


@pytest.mark.parametrize("mode", ["s4", "liquid", "truncated"])
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.__name__)
def test_a_bug_exceeds_the_bound(mutant, mode):
    case = random_case(1, 64, 3, np.complex64, decay=0.1, drive=0.1)
    units, _, _ = compare(*case, mode, mutant)
    assert units > 10


@pytest.mark.parametrize("mode", ["liquid", "truncated"])
def test_a_start_that_misses_its_liquid_term_exceeds_the_bound(mode):
    """The bug of a public port: the initial state is multiplied by Ā alone."""
    system, u, x0 = random_case(1, 64, 3, np.complex64, decay=0.1, drive=0.1)
    model = RoundingModel.of_dtype("float32", pairwise=True, scan="any")
    right = reference(system, u, mode, order=2, state=x0, models=[model])
    rest = reference(system, u, mode, order=2)
    linear = reference(system, np.zeros_like(u), "s4", state=x0)
    assert right.bounds[0].units(absolute_error(rest.value + linear.value, right.value)) > 100


# --- every term of the recursion ----------------------------------------------------------------------------------

SLACK = 1 + 2.0**-18


@pytest.mark.parametrize("accumulated", [False, True])
@pytest.mark.parametrize(("fused", "kappa", "alpha"), [(None, 5**0.5, 1), (False, 5**0.5, 0), (True, 2, 1)])
def test_three_steps_have_every_term(fused, kappa, alpha, accumulated):
    run = ScanErrors((1,), [RoundingModel(U, 0.0, fused=fused, scan="any")], 3, accumulated=accumulated)
    a, da, w, dw, x = 0.5 + np.arange(3) / 8, 3 * U, 2.0, 5 * U, 7 + np.arange(3)
    shape = (1, 3, 1)
    found = run.advance(
        a[:, None], np.full(shape, da), np.full((3, 1), w), np.full(shape, dw), x[:, None].astype(float)
    )[0, :, 0]
    R, S, T, depth = 0.0, 7.0, 0.0, 2 + 6
    for k in range(3):
        R, S, T = a[k] * R + da * x[k] + dw, a[k] * S + w, a[k] * (T + S)
        wanted = R + U * ((kappa + 1 + alpha * accumulated) * T + (1 + alpha) * depth * S)
        assert wanted <= found[k] <= wanted * SLACK


def test_changes_of_scaled_states_travel_as_terms_of_their_own():
    """No computed scan comes near enough to its bound, in moduli of terms, to show 2u|x| beside the rest."""
    shape = (1, 4, 1)
    a, x, found = 0.5 + np.arange(4) / 8, 7.0 + np.arange(4), []
    for chunk in (None, 2):
        for scaled in (True, False):
            run = ScanErrors((1,), [RoundingModel(U, 0.0, scan="any", scan_chunk=chunk, scaled_states=scaled)], 4)
            found.append(
                run.advance(a[:, None], np.zeros(shape), np.ones((4, 1)), np.zeros(shape), x[:, None])[0, :, 0]
            )
    wanted, V = [], 0.0
    for k in range(4):
        V = a[k] * (V + 2 * U * x[k])
        wanted.append(V)
    for scaled, plain in (found[:2], found[2:]):
        assert np.all(wanted <= scaled - plain)
        assert np.all(scaled - plain <= np.array(wanted) * (1 + 2.0**-12))


def test_a_chunk_starts_from_the_state_before_it():
    model = RoundingModel(U, 0.0, scan="any", scan_chunk=2)
    run = ScanErrors((1,), [model], 4)
    ones, none = np.ones((4, 1)), np.zeros((1, 4, 1))
    E = run.advance(0.5 * ones, none, 3 * ones, none, 8 * ones)[0, :, 0]
    # each chunk: |x| = 8 enters; D = 1 + 6, α = 1
    step = [U * ((5**0.5 + 1) * 4 + 14 * 7), U * ((5**0.5 + 1) * (2 + 3.5) + 14 * 6.5)]
    for k, wanted in enumerate([*step, step[0] + E[1] / 2, step[1] + E[1] / 4]):
        assert wanted <= E[k] <= wanted * SLACK


def test_an_overflowing_bound_is_infinite():
    run = ScanErrors((1,), [RoundingModel(U, 1e-45, scan="any")], 4)
    shape = (1, 4, 1)
    E = run.advance(
        np.array([1e60, 1e200, 1e200, 0.0])[:, None], np.zeros(shape), np.ones((4, 1)), np.zeros(shape), np.ones((4, 1))
    )
    assert np.isfinite(E[0, 0])
    assert np.all(E[0, 1:] == np.inf)


def test_what_underflows_is_counted():
    """Products of transitions below the normal range lose whole digits; the bound says so by an absolute term."""
    run = ScanErrors((1,), [RoundingModel(U, 1e-45, scan="any")], 2)
    E = run.advance(np.full((2, 1), 1e-30), np.zeros((1, 2, 1)), np.zeros((2, 1)), np.zeros((1, 2, 1)), np.ones((2, 1)))
    assert E[0, 1, 0] >= 2 * 1e-45


# --- wired into the reference -------------------------------------------------------------------------------------

ANY = RoundingModel.of_dtype("float32", pairwise=True, scan="any")
IN_TIME = RoundingModel.of_dtype("float32", pairwise=True)


@pytest.mark.parametrize("mode", ["s4", "liquid", "truncated", "kb", "pb"])
@pytest.mark.parametrize("correlations", ["all", "adjacent"])
def test_the_other_models_keep_their_bounds(mode, correlations):
    system, u, _ = random_case(3, 50, 3, np.complex64, decay=0.1, drive=0.2)
    options = {"correlations": correlations, "dtype": np.float64}
    alone = reference(system, u, mode, models=[IN_TIME], **options)
    mixed = reference(system, u, mode, models=[ANY, IN_TIME, ANY], **options)
    assert np.array_equal(alone.value, mixed.value)
    assert np.array_equal(alone.radius, mixed.radius)
    assert np.array_equal(alone.bounds[0].componentwise, mixed.bounds[1].componentwise)
    assert np.array_equal(mixed.bounds[0].componentwise, mixed.bounds[2].componentwise)
    assert np.all(mixed.bounds[0].componentwise > mixed.bounds[1].componentwise)


@pytest.mark.parametrize("mode", ["liquid", "truncated"])
def test_pieces_of_the_reference_do_not_show(mode, monkeypatch):
    """The bounds are the same when the oracle itself works in pieces of a few steps."""
    system, u, x0 = random_case(5, 40, 3, np.complex64, decay=0.1, drive=0.2)
    models = [ANY, RoundingModel.of_dtype("float32", scan="any", scan_chunk=7)]
    whole = reference(system, u, mode, state=x0, models=models)
    monkeypatch.setattr(scalar_recurrence, "_CHUNK_ELEMENTS", 15)
    pieces = reference(system, u, mode, state=x0, models=models)
    for one, other in zip(whole.bounds, pieces.bounds, strict=True):
        assert np.array_equal(one.componentwise, other.componentwise)


def test_known_chunks_sharpen_the_bound_of_slow_modes():
    system, u, _ = random_case(7, 1500, 2, np.complex64, decay=1e-3, drive=0.01)
    chunk = RoundingModel.of_dtype("float32", pairwise=True, scan="any", scan_chunk=16)
    unknown, known, ordered = reference(system, u, "s4", models=[ANY, chunk, IN_TIME], dtype=np.float64).bounds
    assert np.median(unknown.componentwise / known.componentwise) > 5
    assert np.all(known.componentwise > ordered.componentwise)


def test_a_shared_state_is_scanned_too():
    rng = np.random.default_rng(0)
    A = (0.9 * np.exp(1j * rng.uniform(0, np.pi, 3))).astype(np.complex64)
    B, C = ((rng.normal(size=(2, 6)) + 1j * rng.normal(size=(2, 6))) / 4).astype(np.complex64)
    system = Realization("mimo", A, B.reshape(3, 2), C.reshape(2, 3))
    u = rng.normal(size=(1, 2, 60)).astype(np.float32)
    w = (B.reshape(3, 2) @ u[0]).T
    x = blelloch((A + w, w))
    y = 2 * tree_sum(system.C.real * x.real[:, None] - system.C.imag * x.imag[:, None]).T
    exact = enclose(system, u, "liquid")
    found = reference(system, u, "liquid", models=[ANY]).bounds[0]
    assert found.units(absolute_error(y[None], exact.hi, exact.lo)) <= 1
    assert found.units(absolute_error(y[None] * (1 + 1e-3), exact.hi, exact.lo)) > 1


@pytest.mark.parametrize("kind", ["all", "adjacent"])
def test_running_sums_in_any_bracketing(kind):
    """Sums by a tree scan, as a device's cumsum forms them: within the bound, and the bound is far below the sums."""
    u = np.random.default_rng(2).normal(size=(1, 1, 200)).astype(np.float32)
    if kind == "all":
        values, bounds = elementary(u.astype(np.longdouble), 3, [ANY])
    else:
        values, bounds = running_sums(*adjacent_products(u.astype(np.longdouble), 3, [ANY]), [ANY])
    ones = np.ones_like(u[0].T)
    term, total = u[0].T, hillis_steele((ones, u[0].T))
    for p in range(3):
        error = np.abs(total[:, 0] - values[p][0, 0])
        assert np.all(error <= bounds[p][0, 0, 0])
        assert bounds[p].max() <= 1e-2 * np.abs(values[p]).max()
        delayed = np.zeros_like(u[0].T)
        if kind == "all":
            delayed[1:] = total[:-1]
            term = u[0].T * delayed
        else:
            delayed[p + 1 :] = u[0].T[: -p - 1]
            term = term * delayed
        total = hillis_steele((ones, term))


def test_running_sums_have_every_term():
    terms, wrong = [np.array([1.0, -3.0, 1.0, 8.0])], [np.full((1, 4), 5 * U)]
    _, (bound,) = running_sums(terms, wrong, [RoundingModel(U, 0.0, scan="any")])
    # sums 1, -2, -1, 7: sum k adds k times, each time a number of at most twice the largest sum so far
    wanted = U * np.array([5, 10 + 2 * 2, 15 + 4 * 2, 20 + 6 * 7])
    assert np.all(bound[0] >= wanted)
    assert np.all(bound[0] <= wanted * SLACK)
    _, (first, second) = elementary(np.array([2.0, 1.0, 3.0]), 2, [RoundingModel(U, 0.0, scan="any")])
    wanted = U * np.array([0, 2 * 3, 4 * 6])
    assert np.all(first[0] >= wanted)
    assert np.all(first[0] <= wanted * SLACK)
    # e_2 = 0, 2, 11 from products 0, 2, 9
    inherited = np.array([0, 2 * U, 9 * U + 3 * first[0, 1]])
    wanted = np.cumsum(inherited) + U * np.array([0, 2 * 2, 4 * 11])
    assert np.all(second[0] >= wanted)
    assert np.all(second[0] <= wanted * SLACK)


@pytest.mark.parametrize("structure", ["dplr", "dense"])
def test_coupled_transitions_have_no_such_bound_and_say_so(structure):
    system = realization_of(random_system(structure, n_channels=1))
    u = np.ones((1, 1, 20))
    for mode in ("s4", "liquid", "truncated", "kb"):
        with pytest.raises(ValueError, match=f"not for '{structure}'; give scan='sequential'"):
            reference(system, u, mode, models=[ANY])
    # the linear term by FFT is no scan
    by_fft = RoundingModel.of_dtype("float32", pairwise=True, scan="any", fft=True, kernel_dtype="float64")
    assert np.isfinite(reference(system, u, "s4", models=[by_fft]).bounds[0].normwise).all()
