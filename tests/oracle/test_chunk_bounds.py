"""The linear recurrence by chunks of Q steps stays within its bound wherever chunks begin, and wrong ones do not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from liquid_ssm.oracle import chunk_bounds
from liquid_ssm.oracle.chunk_bounds import chunked_errors
from liquid_ssm.oracle.enclosure import enclose
from liquid_ssm.oracle.metrics import absolute_error
from liquid_ssm.oracle.realization import Realization
from liquid_ssm.oracle.reference import reference
from liquid_ssm.oracle.rounding import RoundingModel

U = 2.0**-24


def chain(left, right, start, real, *, fused, last=False):
    """start + Σ left right in the order given; `last`: the start is added last."""
    total = real(0) if last else start
    for a, b in zip(left, right, strict=True):
        # products of float32 are exact in float64; where data are float64, longdouble rounds once more, far below
        exact = np.multiply(a, b, dtype=np.longdouble)
        total = real(exact + total) if fused else real(real(exact) + total)
    return real(total + start) if last else total


class Chunks:
    """One channel, every operation rounded to the dtype; sums forwards or backwards, with fused products or not.

    Args:
        tables: dtype in which powers are formed.
        finer: states are kept in complex128 between chunks and in plain steps.
        scaled: plain steps are taken in x / B̄, to which a state is converted before and from which after.
    """

    scaled = False

    def __init__(self, system, Q, dtype, tables, *, backwards=False, fused=False, state_first=False, finer=False):
        self.real = np.dtype(dtype).type
        self.kind = np.result_type(dtype, np.complex64)
        self.state_kind = np.complex128 if finer else self.kind
        self.step, self.fused, self.state_first, self.Q = (-1 if backwards else 1), fused, state_first, Q
        self.weight = system.weight
        self.A, self.B, self.C = (getattr(system, name)[0] for name in "ABC")
        wide = np.result_type(tables, np.complex64)
        a, b, c = (v.astype(wide) for v in (self.A, self.B, self.C))
        powers = np.cumprod(np.stack([np.ones_like(a), *[a] * Q]), axis=0)
        self.K = (self.weight * (c * (powers[:Q] * b)).real.sum(axis=1)).astype(dtype)
        self.V = (powers[:Q] * b).astype(self.kind)
        self.G = (self.weight * (c * powers[1:])).astype(self.kind)
        self.D = powers[Q].astype(self.kind)

    def chunk(self, u, x):
        x, real = x.astype(self.kind), self.real
        y = np.empty(self.Q, real)
        for q in range(self.Q):
            left = np.concatenate([self.K[q::-1], self.G[q].real, -self.G[q].imag])[:: self.step]
            right = np.concatenate([u[: q + 1], x.real, x.imag])[:: self.step]
            y[q] = chain(left, right, real(0), real, fused=self.fused)
        moved = (self.D * x).astype(self.kind)
        new = np.empty_like(moved)
        for n in range(len(x)):
            pair = [
                chain(self.V[::-1, n].real[:: self.step], u[:: self.step], moved[n].real, real, **self._how),
                chain(self.V[::-1, n].imag[:: self.step], u[:: self.step], moved[n].imag, real, **self._how),
            ]
            new[n] = pair[0] + 1j * pair[1]
        return y, new.astype(self.state_kind)

    @property
    def _how(self):
        return {"fused": self.fused, "last": not self.state_first}

    def plain(self, u, x):
        A, B, C = (v.astype(self.state_kind) for v in (self.A, self.B, self.C))
        if self.scaled:
            wide = B.astype(np.clongdouble)
            z = (A * (x / wide).astype(self.state_kind) + u.astype(x.real.dtype)).astype(self.state_kind)
            D = (C * wide).astype(self.state_kind)
            y = self.real(self.weight * (D.real * z.real - D.imag * z.imag).sum())
            return y, (z * wide).astype(self.state_kind)
        x = (A * x + B * u.astype(x.real.dtype)).astype(self.state_kind)
        return self.real(self.weight * (C.real * x.real - C.imag * x.imag).sum()), x

    def run(self, u, x, cuts=()):
        """y (L,): chunks from every cut on as long as they fit."""
        y, k, x = [], 0, x.astype(self.state_kind)
        for end in (*cuts, len(u)):
            while k < end:
                if end - k >= self.Q:
                    found, x = self.chunk(u[k : k + self.Q], x)
                    y.extend(found)
                    k += self.Q
                else:
                    found, x = self.plain(u[k], x)
                    y.append(found)
                    k += 1
        return np.array(y)


def random_case(seed, length, modes, dtype, *, decay, drive=0.1, scale=1.0, start=True, turning=True):
    """A diagonal system of one channel, u and x0: |ā| from e^-decay to 1."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.result_type(dtype, np.complex64))

    angle = rng.uniform(0, np.pi, (1, modes)) * turning
    A = np.exp(-decay * rng.random((1, modes)) + 1j * angle).astype(normal(1).dtype)
    system = Realization("diagonal", A, (drive * normal(1, modes)).astype(A.dtype), normal(1, modes))
    u = (scale * rng.normal(size=length)).astype(dtype)
    return system, u, (scale * normal(1, 1, modes) * start).astype(A.dtype)


def compare(case, y, model):
    """The largest error in units of the bound."""
    system, u, x0 = case
    exact = enclose(system, u[None, None].astype(float), "s4", state=x0)
    bound = reference(system, u[None, None].astype(float), "s4", state=x0, models=[model]).bounds[0]
    error = np.maximum(absolute_error(y[None, None], exact.hi, exact.lo) - exact.radius, 0)
    return bound.units(error)


def model_of(dtype, Q, tables="float64", **more):
    return RoundingModel.of_dtype(dtype, table_dtype=tables, linear_chunk=Q, **more)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    length=st.integers(0, 70),
    modes=st.integers(1, 4),
    Q=st.sampled_from([1, 2, 7, 16, 32]),
    dtype=st.sampled_from(["float32", "float64"]),
    decay=st.sampled_from([0.0, 1e-3, 0.1, 1.0, 4.0]),
    scale=st.sampled_from([1.0, 1e-30]),
    cuts=st.lists(st.integers(0, 70), max_size=3),
    how=st.tuples(*[st.booleans()] * 5),
)
@example(0, 64, 2, 16, "float32", 0.0, 1.0, [], (False, False, False, True, False))
@example(1, 64, 2, 16, "float32", 0.0, 1.0, [5, 27, 50], (False, False, False, False, True))
def test_chunks_anywhere_are_within_the_bound(seed, length, modes, Q, dtype, decay, scale, cuts, how):
    case = random_case(seed, length, modes, dtype, decay=decay, scale=scale)
    backwards, fused, state_first, finer, scaled = how
    tables = "float64" if seed % 4 else dtype
    program = Chunks(case[0], Q, dtype, tables, backwards=backwards, fused=fused, state_first=state_first, finer=finer)
    program.scaled = scaled
    y = program.run(case[1], case[2][0, 0], sorted(min(c, length) for c in cuts))
    # fma chains are played in longdouble, which for float64 data rounds twice: 2^-11 of a unit more
    slack = 1 + 2.0**-10
    model = model_of(dtype, Q, tables, state_dtype="float64" if finer else None, scaled_states=scaled)
    assert compare(case, y, model) <= slack


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("Q", [16, 32, 64])
def test_the_bound_is_tight_over_a_population(dtype, Q, capsys):
    """Bound over observed error where they are nearest, whole calls from rest; |ā| = 1 included."""
    nearest = []
    for seed, decay in enumerate([0.0, 1e-3, 0.02, 0.1, 1.0] * 3):
        case = random_case(seed, (100, 200, 400)[seed % 3], (2, 8, 16)[seed // 5], dtype, decay=decay, start=False)
        program = Chunks(case[0], Q, dtype, "float64", fused=bool(seed % 2))
        nearest.append(1 / compare(case, program.run(case[1], case[2][0, 0]), model_of(dtype, Q)))
    with capsys.disabled():
        print(f"\nchunks of {Q}, {dtype}: median {np.median(nearest):.0f}, {min(nearest):.0f} to {max(nearest):.0f}")
    assert min(nearest) >= 1
    assert np.median(nearest) <= 100


def test_the_bound_of_scaled_plain_steps_is_tight(capsys):
    nearest = []
    for seed, decay in enumerate([0.0, 1e-3, 0.02, 0.1, 1.0] * 3):
        length = (100, 200, 400)[seed % 3]
        case = random_case(seed, length, (2, 8, 16)[seed // 5], "float32", decay=decay)
        program = Chunks(case[0], 16, "float32", "float64", fused=bool(seed % 2))
        program.scaled = True
        y = program.run(case[1], case[2][0, 0], sorted(np.random.default_rng(seed).integers(0, length, 8)))
        nearest.append(1 / compare(case, y, model_of("float32", 16, scaled_states=True)))
    with capsys.disabled():
        print(f"\nchunks of 16 and scaled steps: median {np.median(nearest):.0f}, from {min(nearest):.0f}")
    assert min(nearest) >= 1
    assert np.median(nearest) <= 100


def late_kernel(program):
    program.K = np.concatenate([program.K[1:], program.K[:1]])


def early_state(program):
    program.D = (program.D / program.A).astype(program.kind)


def half_precision_table(program):
    program.G = (program.G.real.astype(np.float16) + 1j * program.G.imag.astype(np.float16)).astype(program.kind)


def conjugated_input_table(program):
    program.V = program.V.conj()


@pytest.mark.parametrize("bug", [late_kernel, early_state, half_precision_table, conjugated_input_table])
def test_a_bug_exceeds_the_bound(bug):
    case = random_case(1, 64, 3, "float32", decay=0.1)
    program = Chunks(case[0], 16, "float32", "float64")
    assert compare(case, program.run(case[1], case[2][0, 0]), model_of("float32", 16)) <= 1
    bug(program)
    assert compare(case, program.run(case[1], case[2][0, 0]), model_of("float32", 16)) > 10


def adjacent(case, Q, order, power_of=lambda B, p: B**p):
    """`kb` over adjacent tuples by one chunked recurrence per order, powers and products in float32."""
    system, u, _ = case
    y, product = np.float32(0), u
    for p in range(1, order + 1):
        if p > 1:
            delayed = np.concatenate([np.zeros(p - 1, u.dtype), u[: 1 - p]])
            product = product * delayed
        powered = replace(system, B=power_of(system.B, p).astype(np.complex64))
        y = y + Chunks(powered, Q, "float32", "float64").run(product, np.zeros(system.n_modes, np.complex64))
    return y


@pytest.mark.parametrize("seed", range(6))
def test_orders_of_kb_are_within_their_bound(seed):
    case = random_case(seed, 60, 3, "float32", decay=(0.0, 0.1, 1.0)[seed % 3], drive=0.7)
    system, u = case[0], case[1][None, None].astype(float)
    exact = enclose(system, u, "kb", order=3, correlations="adjacent")
    bound = reference(system, u, "kb", order=3, correlations="adjacent", models=[model_of("float32", 16)]).bounds[0]

    def units(y):
        error = absolute_error(y[None, None], exact.hi, exact.lo)
        return bound.units(np.maximum(error - exact.radius, 0))

    assert units(adjacent(case, 16, 3)) <= 1
    assert units(adjacent(case, 16, 2)) > 10
    assert units(adjacent(case, 16, 3, lambda B, p: B ** max(1, p - 1))) > 10


# --- every term of the recursion, by hand -------------------------------------------------------------------------

A, B, C, X0 = 0.5, 2.0, 3.0, 7.0
SLACK = 1 + 2.0**-16


def by_hand(u, Q, M, zeta=0.0, *, outer=U, inner=0.0, entering=0.0, kappa=5**0.5, alpha=1.0, power=1, scaled=0, f=0.0):
    """Bounds of M equal real positive modes from the formulas of docs/bounds.md, to first order."""

    def begun(k):
        return E[k] + 2 * scaled * U * x[k]

    rho, b = (power - 1) * 5**0.5 * U, B**power
    lost = 2 if f else 1  # what an addition costs a matrix unit
    x, E = [X0], [entering * U * X0]
    y = []
    for k, u_k in enumerate(u):
        x.append(A * x[-1] + b * u_k)
        dw = b * (zeta + rho * u_k)
        states = [A * begun(k) + U * (kappa * A * x[k] + (1 + alpha) * b * u_k + x[k + 1]) + dw]
        if k >= Q - 1:
            old, e = x[k + 1 - Q], begun(k + 1 - Q)
            terms = [A**i * b * u[k - i] for i in range(Q)]
            found = A**Q * e + (outer + 5**0.5 * inner * (Q - 1) + entering * U) * A**Q * old
            found += sum((outer + 5**0.5 * inner * i + 2 * f) * t for i, t in enumerate(terms))
            found += sum(A**i * b * (zeta + rho * u[k - i]) for i in range(Q))
            states.append(found + lost * (Q + 2) * U * (sum(terms) + 2**0.5 * A**Q * old))
        E.append(max(states))
        outputs = [M * C * E[k + 1] + (2 + scaled + np.log2(M)) * U * M * C * x[k + 1]]
        for q in range(min(Q, k + 1)):
            if k - q > len(u) - Q:
                continue
            old, e = x[k - q], begun(k - q)
            gamma, G = lost * (q + 1 + 2 * M) * U, M * C * A ** (q + 1)
            found = G * e + (outer + 5**0.5 * inner * (q + 1) + entering * U + 2 * f + gamma) * G * old
            for i in range(q + 1):
                K = M * C * A**i * b
                table = outer + 5**0.5 * inner * (i + 1) + 2 * M * inner + rho + 2 * f
                found += K * zeta + (table + gamma) * K * u[k - i]
            outputs.append(found)
        y.append(max(outputs))
    return np.array(y)


# What scaling adds hides in played chunks behind the roundings of Q + 2 terms, few of which are felt; here it shows.
@pytest.mark.parametrize(
    "more",
    [{}, {"outer": 0.0, "inner": U}, {"zeta": 5 * U}, {"entering": 1.0}, {"power": 3}, {"scaled": 1}, {"f": 2.0**-20}],
)
@pytest.mark.parametrize("Q", [1, 3, 4])
@pytest.mark.parametrize("M", [1, 8])
def test_every_term_is_there(M, Q, more):
    """One mode, where the states' errors decide, and eight, where those of the sums do."""
    u = np.array([1.0, 2.0, 0.5, 4.0, 1.0, 3.0, 2.0])
    system = Realization("diagonal", *(np.full((1, M), v + 0j) for v in (A, B, C)), conjugate_pairs=False)
    model = RoundingModel(U, 0.0, pairwise=True, linear_chunk=Q, table_unit=None if more.get("inner") else 2.0**-60)
    model = replace(model, state_unit=2.0**-53) if more.get("entering") else model
    model = replace(model, scaled_states=bool(more.get("scaled")), factor_unit=more.get("f"))
    wrong = np.full((1, 1, len(u)), more.get("zeta", 0.0))
    power = more.get("power", 1)
    found = chunked_errors(system, np.full((1, 1, M), X0 + 0j), u[None, None], power, wrong, model)[0, 0]
    wanted = by_hand(u, Q, M, **more)
    assert np.all(wanted <= found * (1 + 1e-12))
    assert np.all(found <= wanted * SLACK)


def test_pieces_do_not_show(monkeypatch):
    system, u, x0 = random_case(5, 90, 3, "float32", decay=0.1)
    arguments = (system, x0, u[None, None].astype(float), 2, 1e-6 * np.abs(u[None, None]), model_of("float32", 7))
    whole = chunked_errors(*arguments)
    monkeypatch.setattr(chunk_bounds, "_PIECE_ELEMENTS", 1)
    assert np.allclose(chunked_errors(*arguments), whole, rtol=1e-9, atol=0)


def test_an_overflow_becomes_an_infinite_bound():
    system = Realization("diagonal", *(np.full((1, 1), v + 0j) for v in (1e60, 1.0, 1.0)))
    found = chunked_errors(
        system, np.ones((1, 1, 1)), np.ones((1, 1, 8)), 1, np.zeros((1, 1, 8)), model_of("float64", 4)
    )
    assert found[0, 0, -1] == np.inf


def test_channels_and_batch_rows_have_their_own_bounds():
    cases = [random_case(seed, 40, 2, "float32", decay=0.2) for seed in range(2)]
    A, B, C = (np.concatenate([getattr(c[0], name) for c in cases]) for name in "ABC")
    u = np.stack([cases[0][1], cases[1][1]])[None].astype(float)
    x0 = np.concatenate([c[2] for c in cases], axis=1)
    model = model_of("float32", 8)
    both = chunked_errors(
        Realization("diagonal", A, B, C),
        np.concatenate([x0, 2 * x0]),
        np.concatenate([u, 2 * u]),
        1,
        np.zeros((2, 2, 40)),
        model,
    )
    for h, (system, inputs, state) in enumerate(cases):
        alone = chunked_errors(system, state, inputs[None, None].astype(float), 1, np.zeros((1, 1, 40)), model)[0, 0]
        assert np.allclose(both[0, h], alone, rtol=1e-9, atol=0)
        assert np.allclose(both[1, h], 2 * alone, rtol=1e-6, atol=1e-40)


# --- wired into the reference -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["s4", "kb", "pb", "liquid", "truncated"])
def test_only_linear_recurrences_are_chunked(mode):
    system, u, _ = random_case(3, 50, 3, "float32", decay=0.1)
    plain, chunked = RoundingModel.of_dtype("float32"), model_of("float32", 16)
    found = reference(system, u[None, None], mode, correlations="adjacent", models=[plain, chunked, plain])
    first, second, third = (b.componentwise for b in found.bounds)
    assert np.array_equal(first, third)
    if mode in ("s4", "kb", "pb"):
        assert np.all(second >= first * (1 - 1e-6))
        assert np.any(second > 1.1 * first)
    else:
        assert np.array_equal(first, second)


def test_a_signal_shorter_than_a_chunk_has_the_bound_of_plain_steps():
    system, u, x0 = random_case(4, 15, 3, "float32", decay=0.1)
    models = [RoundingModel.of_dtype("float32"), model_of("float32", 16)]
    plain, chunked = reference(system, u[None, None], "s4", state=x0, models=models).bounds
    assert np.allclose(plain.componentwise, chunked.componentwise, rtol=1e-6)


# --- factors that matrix units round before they multiply ---------------------------------------------------------


def shortened(values, bits, *, nearest):
    """float32 numbers with so many significant bits, by truncation or to the nearest, ties away from zero."""
    dropped = 24 - bits
    whole = np.asarray(values, np.float32).view(np.uint32).astype(np.uint64)
    whole = whole + (1 << (dropped - 1)) if nearest else whole
    return (whole >> dropped << dropped).astype(np.uint32).view(np.float32)


def truncating_sum(left, right, start):
    """start + Σ left right; products are exact, and every partial sum loses the bits beyond the 24th."""
    total = float(start)
    for a, b in zip(left, right, strict=True):
        exact = float(a) * float(b) + total
        rounded = np.float32(exact)
        total = float(rounded if abs(rounded) <= abs(exact) else np.nextafter(rounded, np.float32(0)))
    return np.float32(total)


class MatrixUnit(Chunks):
    """Chunks whose sums a matrix unit forms: factors are shortened, sums truncated; D x is formed outside."""

    def __init__(self, system, Q, bits, *, nearest):
        super().__init__(system, Q, "float32", "float64")
        self.bits, self.nearest = bits, nearest

    def short(self, values):
        return shortened(np.ascontiguousarray(values), self.bits, nearest=self.nearest)

    def chunk(self, u, x):
        u_short, parts = self.short(u), self.short(np.concatenate([x.real, x.imag]))
        G = self.short(np.concatenate([self.G.real, -self.G.imag], axis=1))
        K, V = self.short(self.K), (self.short(self.V.real), self.short(self.V.imag))
        y = np.empty(self.Q, np.float32)
        for q in range(self.Q):
            left, right = np.concatenate([K[q::-1], G[q]]), np.concatenate([u_short[: q + 1], parts])
            y[q] = truncating_sum(left, right, 0)
        moved = (self.D * x).astype(self.kind)
        sums = [
            [truncating_sum(part[::-1, n], u_short, start[n]) for n in range(len(x))]
            for part, start in zip(V, (moved.real, moved.imag), strict=True)
        ]
        return y, np.array(sums[0]) + 1j * np.array(sums[1])


FORMATS = [("tf32", 11, False), ("tf32", 11, True), ("bfloat16", 8, True)]


@pytest.mark.parametrize(("name", "bits", "nearest"), FORMATS)
@pytest.mark.parametrize("seed", range(4))
def test_shortened_factors_are_within_their_bound_and_exceed_that_of_whole_ones(name, bits, nearest, seed):
    Q = (4, 16)[seed % 2]
    case = random_case(seed, (64, 70)[seed // 2], 3, "float32", decay=(0.0, 1e-2, 0.3, 1.0)[seed])
    y = MatrixUnit(case[0], Q, bits, nearest=nearest).run(case[1], case[2][0, 0], [5, 33])
    assert compare(case, y, model_of("float32", Q, factor_dtype=name)) <= 1
    assert compare(case, y, model_of("float32", Q)) > 10


def test_bounds_of_shortened_factors_are_tight_and_know_one_format_from_the_other(capsys):
    nearest = {name: [] for name, _, _ in FORMATS}
    for seed in range(8):
        case = random_case(seed, 96, (2, 8)[seed % 2], "float32", decay=(0.0, 1e-3, 0.1, 1.0)[seed // 2], start=False)
        for name, bits, to_nearest in FORMATS:
            y = MatrixUnit(case[0], 16, bits, nearest=to_nearest).run(case[1], case[2][0, 0])
            nearest[name].append(1 / compare(case, y, model_of("float32", 16, factor_dtype=name)))
    with capsys.disabled():
        for name, found in nearest.items():
            print(f"\n{name}: bound over error, median {np.median(found):.1f}, from {min(found):.1f}")
    assert all(min(found) >= 1 and np.median(found) <= 30 for found in nearest.values())
    # a factor read as bfloat16 where tf32 is claimed
    case = random_case(1, 96, 2, "float32", decay=0.1)
    y = MatrixUnit(case[0], 16, 7, nearest=False).run(case[1], case[2][0, 0])
    assert compare(case, y, model_of("float32", 16, factor_dtype="tf32")) > 1


def test_a_product_of_two_truncated_factors_comes_near_its_bound():
    """One product, both factors with all 13 dropped bits set: nothing is left to luck."""
    factor = np.float32(1 + 2.0**-10 - 2.0**-23)
    system = Realization("diagonal", np.zeros((1, 1), complex), np.full((1, 1), factor + 0j), np.ones((1, 1), complex))
    system = replace(system, conjugate_pairs=False)
    u = np.array([factor])
    y = MatrixUnit(system, 1, 11, nearest=False).run(u, np.zeros(1, np.complex64))
    units = compare((system, u, np.zeros((1, 1, 1))), y, model_of("float32", 1, factor_dtype="tf32"))
    assert 0.99 <= units <= 1


def test_longer_factors_have_smaller_bounds():
    case = random_case(2, 50, 3, "float32", decay=0.1)
    names = [None, "tf32", "bfloat16"]
    models = [model_of("float32", 8, factor_dtype=name) for name in names]
    bounds = reference(case[0], case[1][None, None], "s4", state=case[2], models=models).bounds
    whole, tf32, bfloat16 = (bound.componentwise for bound in bounds)
    # step 0 may be one of a chunk as well as a plain one
    assert np.all(whole < tf32)
    assert np.all(tf32 < bfloat16)
    # float64 is never shortened
    assert RoundingModel.of_dtype("float64", factor_dtype="tf32").factor_unit is None
