"""Recurrences whose states are kept as z = x / B̄ in some calls stay within their bound, and wrong ones do not."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from liquid_ssm.backend import Arithmetic
from liquid_ssm.oracle import scan_bounds
from liquid_ssm.oracle.enclosure import enclose
from liquid_ssm.oracle.metrics import absolute_error
from liquid_ssm.oracle.realization import Realization
from liquid_ssm.oracle.reference import reference
from liquid_ssm.oracle.rounding import RoundingModel
from liquid_ssm.oracle.scalar_recurrence import Drive, cascade_states, liquid_states, read_out
from liquid_ssm.problem import ModeSpec, Problem
from liquid_ssm.registry import get_backend
from liquid_ssm.rounding_errors import realization_of, rounding_model
from liquid_ssm.testing.strategies import random_system

# --- the computation, played in an arithmetic of few bits --------------------------------------------------------


def rn(x, bits):
    """Rounded to so many bits, part by part; what it is applied to is exact, or 2^-53 is far below its last bit."""

    def part(v):
        mantissa, exponent = np.frexp(v)
        return np.ldexp(np.rint(np.ldexp(mantissa, bits)), exponent - bits)

    return part(np.real(x)) + 1j * part(np.imag(x)) if np.iscomplexobj(x) else part(x)


def accumulated(a, x, v, fused, bits):
    """fl(a x + v): a chain of fused multiply-adds that begins with v, or every product and sum rounded."""
    terms = (a.real * x.real, -a.imag * x.imag, np.real(v)), (a.real * x.imag, a.imag * x.real, np.imag(v))
    if fused:
        re, im = (rn(rn(addend + inner, bits) + outer, bits) for outer, inner, addend in terms)
    else:
        re, im = (rn(rn(rn(p, bits) + rn(q, bits), bits) + addend, bits) for p, q, addend in terms)
    return re + 1j * im


def to_scaled(x, b, bits):
    return rn(x / b, bits)


def to_plain(z, b, bits):
    return rn(z * b, bits)


class Player:
    """One channel; every operation rounded to so many bits, conversions and C B̄ in complex128 and rounded once."""

    enters, leaves, table = staticmethod(to_scaled), staticmethod(to_plain), staticmethod(lambda c, b: c * b)

    def __init__(self, system, mode, bits, fused):
        self.mode, self.bits, self.fused, self.weight = mode, bits, fused, system.weight
        self.A, self.B, self.C = (np.asarray(getattr(system, name)[0], complex) for name in "ABC")

    def step(self, x, u, scaled):
        w = rn(self.B * u, self.bits)
        a = self.A
        if self.mode == "liquid":
            a = rn(self.A + (self.B * u if self.fused else w), self.bits)
        return accumulated(a, x, u if scaled else w, self.fused, self.bits)

    def read(self, C, x):
        total = 0.0
        for c, v in zip(C, x, strict=True):
            outer, inner = c.real * v.real, rn(c.imag * v.imag, self.bits)
            total = rn(total + rn((outer if self.fused else rn(outer, self.bits)) - inner, self.bits), self.bits)
        return self.weight * total

    def run(self, u, x, calls):
        """y (L,) of one call after the other: pairs (end, scaled)."""
        y, k = [], 0
        for end, scaled in calls:
            C = rn(self.table(self.C, self.B), self.bits) if scaled else self.C
            x = self.enters(x, self.B, self.bits) if scaled else x
            for u_k in u[k:end]:
                x = self.step(x, u_k, scaled)
                y.append(self.read(C, x))
            x, k = self.leaves(x, self.B, self.bits) if scaled else x, end
        return np.array(y)


def random_case(seed, length, modes, bits, *, decay, drive=0.1):
    """A diagonal system of one channel, u and x0 of so many bits: |ā| from e^-decay to 1."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rn(rng.normal(size=shape) + 1j * rng.normal(size=shape), bits)

    A = rn(np.exp(-decay * rng.random((1, modes)) + 1j * rng.uniform(0, np.pi, (1, modes))), bits)
    system = Realization("diagonal", A, rn(drive * normal(1, modes), bits), normal(1, modes))
    return system, rn(rng.normal(size=length), bits), normal(1, 1, modes)


def random_calls(seed, length):
    """Whole, in single steps, or cut anywhere; all scaled, or some."""
    rng = np.random.default_rng(seed)
    cuts = [[], range(1, length), sorted(rng.integers(1, length, 6))][seed % 3]
    return [(int(end), bool(rng.random() < (1.0, 0.6)[seed // 3 % 2])) for end in (*cuts, length)]


def compare(case, mode, y, model):
    """The largest error in units of the bound."""
    system, u, x0 = case
    exact = enclose(system, u[None, None], mode, state=x0)
    bound = reference(system, u[None, None], mode, state=x0, models=[model]).bounds[0]
    return bound.units(np.maximum(absolute_error(y[None, None], exact.hi, exact.lo) - exact.radius, 0))


def model_of(bits, fused, **more):
    return RoundingModel(2.0**-bits, 0.0, fused=fused, **{"scaled_states": True, **more})


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("bits", [9, 24])
@pytest.mark.parametrize("mode", ["s4", "liquid"])
def test_calls_of_both_kinds_are_within_the_bound_and_it_is_tight(mode, bits, fused, capsys):
    nearest = []
    for seed in range(24):
        length, decay = (2, 20, 40, 100)[seed % 4], (0.02, 0.1, 1.0, 3.0)[seed // 6]
        case = random_case(seed, length, (1, 2, 8)[seed % 3], bits, decay=decay)
        y = Player(case[0], mode, bits, fused).run(case[1], case[2][0, 0], random_calls(seed, length))
        found = compare(case, mode, y, model_of(bits, fused))
        assert found <= 1
        assert compare(case, mode, y, model_of(bits, None)) <= 1
        nearest.append(1 / found)
    with capsys.disabled():
        print(f"\nscaled states, {mode}, {bits} bits, fused={fused}: median {np.median(nearest):.0f}")
    assert np.median(nearest) <= 100


class TruncatedPlayer(Player):
    """Orders 1 … `order`, states (order, M); scaled by the powers of B̄."""

    order = 3

    def __init__(self, system, bits, fused):
        super().__init__(system, "truncated", bits, fused)
        self.powers = np.cumprod(np.repeat(self.B[None], self.order, axis=0), axis=0)

    def fed(self, link, q, scaled):
        """The other product of a fed step, formed whole; a real multiple is rounded part by part."""
        if scaled:
            return rn(link * q, self.bits)
        outer, inner = link.real * q.real, rn(link.imag * q.imag, self.bits)
        real = rn((outer if self.fused else rn(outer, self.bits)) - inner, self.bits)
        outer, inner = link.real * q.imag, rn(link.imag * q.real, self.bits)
        return real + 1j * rn((outer if self.fused else rn(outer, self.bits)) + inner, self.bits)

    def run(self, u, x, calls):
        y, k = [], 0
        x = np.array([x, *np.zeros((self.order - 1, len(x)))], complex)
        for end, scaled in calls:
            C = rn(self.C * self.powers, self.bits) if scaled else np.repeat(self.C[None], self.order, axis=0)
            x = rn(x / self.powers, self.bits) if scaled else x
            for u_k in u[k:end]:
                link = u_k if scaled else rn(self.B * u_k, self.bits)
                drives = [link + 0 * self.A, *(self.fed(link, q, scaled) for q in x[:-1])]
                x = np.array([accumulated(self.A, v, w, self.fused, self.bits) for v, w in zip(x, drives, strict=True)])
                y.append(self.read_orders(C, x))
            x, k = rn(x * self.powers, self.bits) if scaled else x, end
        return np.array(y)

    def read_orders(self, C, x):
        """Orders first, then modes, real and imaginary parts apart."""
        sums = []
        for c, v in ((C.real, x.real), (C.imag, x.imag)):
            modes = rn(c[0] * v[0], self.bits)
            for p in range(1, self.order):
                product = c[p] * v[p]
                modes = rn(modes + (product if self.fused else rn(product, self.bits)), self.bits)
            total = 0.0
            for term in modes:
                total = rn(total + term, self.bits)
            sums.append(total)
        return self.weight * rn(sums[0] - sums[1], self.bits)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("bits", [9, 24])
def test_truncated_in_calls_of_both_kinds_is_within_the_bound_and_it_is_tight(bits, fused):
    nearest = []
    for seed in range(24):
        length, decay = (2, 20, 40, 100)[seed % 4], (0.02, 0.1, 1.0, 3.0)[seed // 6]
        case = random_case(seed, length, (1, 2, 8)[seed % 3], bits, decay=decay, drive=0.4)
        y = TruncatedPlayer(case[0], bits, fused).run(case[1], case[2][0, 0], random_calls(seed, length))
        found = compare(case, "truncated", y, model_of(bits, fused))
        assert found <= 1
        nearest.append(1 / found)
    assert np.median(nearest) <= 100


class StaysScaled(Player):
    leaves = staticmethod(lambda z, b, bits: z)


class ReadsUnscaled(Player):
    table = staticmethod(lambda c, b: c)


class ConjugatedScale(Player):
    enters = staticmethod(lambda x, b, bits: to_scaled(x, b.conj(), bits))


class CoarseConversion(Player):
    enters = staticmethod(lambda x, b, bits: to_scaled(x, b, bits - 6))


@pytest.mark.parametrize("bug", [StaysScaled, ReadsUnscaled, ConjugatedScale, CoarseConversion])
def test_a_bug_exceeds_the_bound(bug):
    case = random_case(1, 40, 3, 24, decay=0.1)
    calls = [(10, True), (20, False), (40, True)]
    for player, exceeds in ((Player, False), (bug, True)):
        y = player(case[0], "liquid", 24, True).run(case[1], case[2][0, 0], calls)
        assert (compare(case, "liquid", y, model_of(24, True)) > 1) == exceeds


# --- every term, as a number and where it is needed ---------------------------------------------------------------

U = 2.0**-24
A = np.array([[0.5 + 0.5j]])
W = np.array([[[[0.25 - 0.125j]]]])  # (L, batch, H, M)
X = np.array([[[2.0 - 1.0j]]])
# The factors for second-order terms: a few u, never a visible part of the bound.
SLACK = 1 + 2.0**-20


def one_step(states, models, *arguments, error=0.0):
    drive = Drive(W, np.full((len(models), *W.shape), error))
    (found,) = states(*(iter([(slice(0, 1), drive)]) if a is Drive else a for a in arguments), models)
    return found[2]


@pytest.mark.parametrize("mode", ["liquid", "linear"])
def test_a_step_begins_with_a_state_that_was_converted_twice(mode):
    models = [RoundingModel(U, 0.0, scaled_states=s) for s in (True, False)]
    states, arguments = (liquid_states, (A, Drive, X)) if mode == "liquid" else (cascade_states, (A, Drive, None, 1, X))
    scaled, plain = one_step(states, models, *arguments)
    wanted = 2 * U * abs((A + W * (mode == "liquid")).item() * X.item())
    assert wanted <= (scaled - plain).item() <= wanted * SLACK


def test_later_steps_convert_what_they_inherit():
    """At u = 1/64 the second order shows: E (1 + c) + c|x| with (1 + u + u²)² − 1 ≤ c."""
    u = 2.0**-6
    c = (1 + u + u * u) ** 2 - 1
    values = np.zeros((2, 1, 1, 1), complex)
    drive = Drive(values, np.array([1.0, 0.0] * 2).reshape(2, 2, 1, 1, 1))
    models = [RoundingModel(u, 0.0, scaled_states=s) for s in (True, False)]
    for states, more in ((liquid_states, ()), (cascade_states, (None, 1))):
        ((_, _, E),) = states(A, iter([(slice(0, 2), drive)]), *more, 0 * X, models)
        errors = E.reshape(2, 2)
        assert errors[0, 0] == errors[1, 0]
        assert (1 + c) <= errors[0, 1] / errors[1, 1] <= 1 + c + 2 * u * u


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("scan", ["sequential", "any"])
def test_orders_of_truncated_are_scaled_in_the_order_of_time_and_chains_are_not(scan, order):
    models = [RoundingModel(U, 0.0, scan=scan, scaled_states=s) for s in (True, False)]
    for link in (None, np.full((1, 1, 1, 1), 3.0)):
        scaled, plain = one_step(partial(scan_bounds.cascade_states, length=1), models, A, Drive, link, order, X)
        expected = order == 1 if scan == "any" else link is None
        assert np.array_equal(scaled, plain) != expected


def test_an_order_inherits_the_conversion_of_the_one_below():
    # Two steps with nothing but the conversion of x^1_0 = 1 entering order 2 at step 1, through the link w_1 = 1.
    values = np.array([1.0, 1.0], complex).reshape(2, 1, 1, 1)
    errors = []
    for scaled in (True, False):
        models = [RoundingModel(U, 0.0, fused=False, scaled_states=scaled)]
        drive = Drive(values, np.zeros((1, 2, 1, 1, 1)))
        ((_, _, E),) = cascade_states(0 * A, iter([(slice(0, 2), drive)]), None, 2, 0 * X, models)
        errors.append(E[0, 1, 1].item())
    assert errors[0] - errors[1] == pytest.approx(2 * U, rel=1e-3)


def worst(ratios, seed, bits, count):
    """`ratios` of `count` complex numbers of so many bits, and the last one real: the worst that a search finds.

    It begins where one rounding costs most, at parts just above a power of two, and moves the worst 1,000 on by a few
    units in the last place.
    """
    rng, n = np.random.default_rng(seed), 100_000
    parts = rng.choice([-1, 1], (2, count, n)) * (
        1 + rng.integers(0, 2 ** (bits - 4), (2, count, n)) * 2.0 ** (1 - bits)
    )
    numbers = (parts[0] + 1j * parts[1] * rng.choice([0, 2.0**-3, 1], (count, n))) * rng.choice([1, 1j], (count, n))
    numbers[-1] = parts[0, -1] * 2.0 ** rng.integers(-14, -4, n)
    found = 0.0
    for _ in range(6):
        values = ratios(*numbers[:-1], numbers[-1].real)
        found = max(found, values.max())
        numbers = np.tile(numbers[:, np.argsort(values)[-1000:]], n // 1000)
        steps = rng.integers(-3, 4, (2, count, n)) * 2.0**-bits
        re, im = (part * (1 + step) for part, step in zip((numbers.real, numbers.imag), steps, strict=True))
        numbers = rn(re + 1j * im, bits)
    return found


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("mode", ["liquid", "s4"])
def test_without_conversions_the_bound_would_be_exceeded(mode, fused):
    """One step from a state that was scaled, handed on and scaled again: what it costs is seen beside all the rest."""
    bits = 9

    def ratios(a, b, z, u, scaled):
        x, w = b * z, b * u
        taken = to_scaled(to_plain(z, b, bits), b, bits)
        exact = (a + w) * x + w if mode == "liquid" else a * x + w
        computed = rn(a + (w if fused else rn(w, bits)), bits) if mode == "liquid" else a
        # the product is formed whole, in one of the ways in which it costs κ units
        product = accumulated(computed, taken, 0 * u, fused, bits)
        error = np.abs(b * rn(product + u, bits) - exact)
        drive = Drive(w[None, None, None], 2.0**-bits * np.abs(w)[None, None, None, None])
        states, more = (liquid_states, ()) if mode == "liquid" else (cascade_states, (None, 1))
        models = [model_of(bits, fused, scaled_states=scaled)]
        ((_, _, E),) = states(a[None], iter([(slice(0, 1), drive)]), *more, x[None, None], models)
        return error / E.ravel()

    assert 0.7 < worst(partial(ratios, scaled=True), 3, bits, 4) <= 1
    assert worst(partial(ratios, scaled=False), 3, bits, 4) > 1.05


@pytest.mark.parametrize("fused", [False, True])
def test_without_the_rounding_of_its_vector_a_read_out_would_exceed_the_bound(fused):
    bits = 9

    def ratios(c, b, z, _, scaled):
        d, x = rn(c * b, bits), (b * z)[:, None]
        outer = d.real * z.real
        y = rn((outer if fused else rn(outer, bits)) - rn(d.imag * z.imag, bits), bits)
        none, models = np.zeros((1, len(z), 1)), [model_of(bits, fused, scaled_states=scaled)]
        exact, bound = read_out(c[:, None], 1, x, none, models)
        return np.abs(y - exact) / bound[0]

    assert 0.7 < worst(partial(ratios, scaled=True), 4, bits, 4) <= 1
    assert worst(partial(ratios, scaled=False), 4, bits, 4) > 1.05


@pytest.mark.parametrize("more", [{}, {"scan": "any"}, {"linear_chunk": 4}])
def test_what_underflows_in_a_scaled_state_is_counted(more):
    """|b̄| = 1024: three subnormals times 3/4 are two, which is off by 256 subnormals of the state."""
    system = Realization("diagonal", *(np.full((1, 1), v + 0j) for v in (0.75, 1024.0, 1.0)), conjugate_pairs=False)
    u = np.array([3 * 2.0**-149, 0.0], np.float32)
    z = np.float32(0.75) * u[0]
    y = np.array([float(u[0]), float(z)]) * 1024
    models = [RoundingModel.of_dtype("float32", scaled_states=s, **more) for s in (True, False)]
    found = reference(system, u[None, None].astype(float), "s4", models=models)
    scaled, plain = (bound.units(np.abs(y - found.value)) for bound in found.bounds)
    assert scaled <= 1 < plain


# --- wired into the reference and the backends --------------------------------------------------------------------

SCALED = {"s4": 1, "liquid": 1, "truncated": 1, "pb": 1}


@pytest.mark.parametrize("mode", SCALED)
@pytest.mark.parametrize("structure", ["diagonal", "mimo", "dense", "dplr"])
@pytest.mark.parametrize("more", [{}, {"scan": "any"}, {"state_unit": 2.0**-53, "state_tiny": 0.0}])
def test_only_recurrences_of_diagonal_systems_are_scaled(mode, structure, more):
    if structure == "mimo" and mode == "pb":
        pytest.skip("a mode that mimo does not have")
    if structure in ("dense", "dplr") and "scan" in more:
        pytest.skip("a scan that has no bound")
    system = realization_of(random_system(structure, n_channels=2, n_modes=3, seed=2))
    u = np.random.default_rng(2).normal(size=(1, 2, 30))
    models = [RoundingModel(U, 0.0, scaled_states=s, **more) for s in (True, False)]
    scaled, plain = (b.componentwise for b in reference(system, u, mode, models=models).bounds)
    if structure == "diagonal":
        assert np.all(scaled >= plain)
        # outputs are rounded once to the working precision, beside which finer states cost little; a scan of several
        # orders takes the read-out's rounding only
        little = "state_unit" in more or (mode == "truncated" and "scan" in more)
        assert np.median(scaled / plain) > (1 if little else 1.02)
    else:
        assert np.array_equal(scaled, plain)


def test_orders_of_kb_are_scaled_where_each_has_a_linear_recurrence():
    system = realization_of(random_system("diagonal", n_channels=2, n_modes=3, seed=2))
    u = np.random.default_rng(2).normal(size=(1, 2, 30))
    for correlations, joint, changes in (("adjacent", False, True), ("adjacent", True, True), ("all", False, True)):
        models = [RoundingModel(U, 0.0, scaled_states=s, joint_adjacent=joint) for s in (True, False)]
        found = reference(system, u, "kb", correlations=correlations, models=models).bounds
        assert np.array_equal(found[0].componentwise, found[1].componentwise) != changes


def test_finer_states_are_scaled_in_their_precision():
    model = RoundingModel.of_dtype("float32", state_dtype="float64", scaled_states=True)
    assert model.in_states.conversion == pytest.approx(2.0**-52)
    assert model.unscaled.in_states.conversion == 0
    assert model.unscaled == replace(model, scaled_states=False)


def test_a_backend_says_so():
    backend = get_backend("numpy")
    problem = Problem(ModeSpec("liquid"), "diagonal", 1, 1, 2, 10, "float32")
    assert not rounding_model(backend, problem).scaled_states

    class Scaling(type(backend)):
        def arithmetic_for(self, problem):
            return Arithmetic(scaled_states=problem.structure == "diagonal")

    assert rounding_model(Scaling(), problem).scaled_states
    assert not rounding_model(Scaling(), replace(problem, structure="mimo")).scaled_states
