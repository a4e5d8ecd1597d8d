"""Kernels from Cauchy sums are within their bound: slow, oscillating, growing, of several ranks, without pairs."""

from __future__ import annotations

import numpy as np
import pytest

import liquid_ssm as ls
from liquid_ssm.backends import _cauchy
from liquid_ssm.backends._cauchy import dplr_kernel, real_matrix
from liquid_ssm.oracle import cauchy_error as module
from liquid_ssm.oracle.cauchy_error import Channel, cauchy_error
from liquid_ssm.oracle.enclosure import enclose_kernel
from liquid_ssm.oracle.realization import Realization
from liquid_ssm.testing.strategies import random_system

U = 2.0**-53


def channel(n_modes, rank, seed, *, paired=True, radius=0.5, low_rank=0.1):
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.normal(size=shape) + 1j * rng.normal(size=shape)

    poles = radius * np.exp(1j * rng.uniform(0, np.pi, n_modes))
    P, Q = low_rank * normal(2, rank, n_modes)
    return Channel(poles, P, Q, normal(n_modes), normal(n_modes), paired)


def realization(c):
    return Realization(
        "dplr", c.Lambda[None], c.B[None], c.C[None], c.P[:, None], c.Q[:, None], conjugate_pairs=c.conjugate_pairs
    )


def computed(c, length, power=1):
    B = c.B
    for _ in range(power - 1):
        B = B * c.B
    return dplr_kernel(
        c.Lambda[None], c.P[:, None], c.Q[:, None], B[None], c.C[None], length, conjugate_pairs=c.conjugate_pairs
    )


def units(c, length, power=1, kernel=None):
    """‖error‖₂/bound."""
    exact = enclose_kernel(realization(c), length, power)
    kernel = computed(c, length, power) if kernel is None else kernel
    error = np.linalg.norm((kernel - exact.hi) - exact.lo) + np.linalg.norm(exact.radius)
    return float(error / cauchy_error(c, length, power, U))


@pytest.mark.parametrize("rank", [0, 1, 2, 3])
@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("length", [2, 3, 31, 64, 65])
def test_random_systems(rank, paired, length):
    for seed in range(3):
        for power in (1, 2):
            found = units(channel(1 + seed, rank, seed, paired=paired), length, power)
            assert found <= 1
            assert found >= 1e-4


@pytest.mark.parametrize("radius", [1e-3, 0.99, 1.0, 1.02, 1.2])
@pytest.mark.parametrize("paired", [True, False])
def test_poles_inside_on_and_outside_the_circle(radius, paired):
    """With poles on the circle r = 1 would divide by zero; growth makes r small."""
    for seed in range(3):
        assert units(channel(3, 1, seed, paired=paired, radius=radius, low_rank=1e-3), 100) <= 1


@pytest.mark.parametrize("dt", [1e-6, 1e-3, 0.1, 1.0])
@pytest.mark.parametrize("init", ["legs", "fout"])
def test_slow_and_stiff_systems(dt, init):
    system = ls.initialize(init, n_channels=1, n_state=16, dt_min=dt, dt_max=dt, seed=2).discretize("bilinear")
    c = Channel(system.Lambda_bar[0], system.P_bar[:, 0], system.Q_bar[:, 0], system.B_bar[0], system.C[0], True)
    found = units(c, 150)
    assert found <= 1
    # HiPPO matrices cancel heavily inside Woodbury's formula; errors that the sums share must not be counted twice
    assert found >= 1e-4


def test_an_integrator():
    none = np.zeros((0, 1), complex)
    assert units(Channel(np.ones(1, complex), none, none, np.ones(1) + 0j, np.ones(1) + 0j, True), 64) <= 1


def test_wrong_kernels_exceed_the_bound(monkeypatch):
    c = channel(3, 1, 4, radius=0.9)
    resolvent, truncated = _cauchy._resolvent, _cauchy._truncated_output
    no_truncation = lambda Lambda, P, Q, C, n, paired: (truncated(Lambda, P, Q, C, n, paired)[0], C)  # noqa: E731
    single = lambda *args: resolvent(*(v.astype(np.complex64).astype(complex) for v in args[:1]), *args[1:])  # noqa: E731
    late = lambda weights, poles, z, gap: resolvent(weights, poles, z, gap * (1 + 1e-13))  # noqa: E731
    for name, replacement in (("_truncated_output", no_truncation), ("_resolvent", single), ("_resolvent", late)):
        with monkeypatch.context() as patch:
            patch.setattr(_cauchy, name, replacement)
            # 64 steps leave a tail of 0.9^64 ≈ 1e-3 that C̃ must take away
            assert units(c, 64) > 1, name
    assert units(c, 64) <= 1


def test_real_forms_agree_with_the_backend_and_their_moduli_bound_every_term():
    for paired in (True, False):
        c = channel(3, 2, 5, paired=paired)
        matrix, moduli = c.real_form(1.0)
        # An entry is a sum of one number and at most 2R products, R = 2: the longest path has one product, four
        # additions and a scaling by 2, which is exact; in both forms.
        allowed = 2 * 5 * 2.0**-53 * (1 + 2.0**-40) * moduli
        assert np.all(np.abs(matrix - real_matrix(c.Lambda - 1, c.P, c.Q, paired)) <= allowed)
        assert np.all(np.abs(matrix) <= moduli * (1 + 1e-15))


def test_both_ways_of_a_close_choice_are_covered(monkeypatch):
    """S = ±1/2 + …: ‖S‖ and ‖X‖ nearly equal, so the computation may square either."""
    none = np.zeros((0, 1), complex)
    c = Channel(np.array([0.5 + 0j]), none, none, np.ones(1, complex), np.ones(1, complex), True)
    assert module._to_the(8, c, U, 1.0).tied
    calls = []
    power = module._to_the

    def counted(*args):
        calls.append(args[-1])
        return power(*args)

    monkeypatch.setattr(module, "_to_the", counted)
    assert units(c, 8) <= 1
    assert len(calls) == 2
    assert not power(8, channel(3, 1, 0), U, 1.0).tied


def test_first_order_terms_of_the_power_are_transported_exactly():
    """Perturb Ā^(2^s) by the bound itself at one level and square on: the change of C Āⁿ Āⁱ B̄ is what is predicted."""
    rng = np.random.default_rng(6)
    A = rng.normal(size=(3, 3)) / 3
    c, b = rng.normal(size=(2, 3))
    n, length = 8, 5
    rows, columns = module._orbit(A.T, c, n), module._orbit(A, b, n + length - 1)
    assert np.allclose(rows[3], c @ np.linalg.matrix_power(A, 3), rtol=1e-9, atol=0)
    assert np.allclose(columns[-1], np.linalg.matrix_power(A, n + length - 2) @ b, rtol=1e-9, atol=0)
    for s in range(4):
        bound = 1e-6 * rng.random((3, 3))
        predicted = module._transported(np.abs(rows), np.abs(columns), [np.zeros((3, 3))] * s + [bound], length)
        largest = np.zeros(length)
        for signs in rng.choice([-1, 1], size=(200, 3, 3)):
            power = np.linalg.matrix_power(A, 1 << s) + signs * bound
            changed = np.linalg.matrix_power(power, n >> s) - np.linalg.matrix_power(A, n)
            largest = np.maximum(largest, np.abs([c @ changed @ columns[i] for i in range(length)]))
        assert np.all(largest <= predicted * (1 + 1e-4))
        assert np.all(largest >= predicted / 30)


def test_the_error_of_the_truncation_is_part_of_the_bound(monkeypatch):
    c = channel(3, 1, 10)
    monkeypatch.setattr(module, "_transported", lambda rows, columns, local, length: np.full(length, 1e3))
    # ‖·‖₂ over 16 entries of twice the real part, times ‖rⁿĀⁿ‖ with r = 1
    assert cauchy_error(c, 16, 1, U) > 1e3 * 2 * 4 * 0.99


def test_undoing_the_damping_amplifies_errors(monkeypatch):
    """r = e^{-8/16}: the error of the damped kernel grows by r^{-9} over ten entries, and has the transform's added."""
    truncation = module._Truncation(8.0, True, np.zeros(1), 0.0)
    monkeypatch.setattr(module, "_truncate", lambda *_: truncation)
    one = channel(1, 0, 0)
    scale = np.abs(one.B[0] * one.C[0]) / np.abs(np.prod([module.normalised(v)[0][0] for v in (one.B, one.C)]))
    undo, epsilon = np.exp(8 * 9 / 16) * scale / 4, module.transform_error(16, U)
    monkeypatch.setattr(module, "_generating_function", lambda *_: (1.0, 0.0))
    assert cauchy_error(one, 10, 1, U) == pytest.approx(undo, rel=2e-3, abs=0)
    monkeypatch.setattr(module, "_generating_function", lambda *_: (0.0, 1.0))
    # (damping + 3) u from the exponential that undoes it
    assert cauchy_error(one, 10, 1, U) == pytest.approx(undo * (epsilon + 11 * U), rel=2e-3, abs=0)


def test_both_halves_of_the_frequencies_count():
    """A system with conjugate pairs and the same one with both halves written out."""
    c = channel(3, 1, 11)
    C_tilde = np.arange(1, 4) + 1j
    both = [np.concatenate([v, v.conj()], axis=-1) for v in (c.Lambda, c.P, c.Q, c.B, c.C)]
    written_out = Channel(*both, False)
    for damping in (0.0, 1.0):
        half = module._Truncation(damping, damping > 0, C_tilde, 0.0)
        full = module._Truncation(damping, damping > 0, np.concatenate([C_tilde, C_tilde.conj()]), 0.0)
        found = module._generating_function(c, half, 16, 1, U)
        wanted = module._generating_function(written_out, full, 16, 1, U)
        assert np.allclose(found, wanted, rtol=1e-9, atol=0)


def test_too_large_perturbations_have_no_bound():
    """Low precision: where 1 - zλ̄ loses all digits the bound is infinite, never small or NaN."""
    c = channel(3, 1, 7, radius=1.0, low_rank=1e-3)
    assert np.isfinite(cauchy_error(c, 64, 1, 2.0**-24))
    assert cauchy_error(c, 1 << 14, 1, 2.0**-12) == np.inf


def test_powers_beyond_the_range_have_no_bound():
    c = channel(2, 1, 8, radius=3.0)
    assert cauchy_error(c, 2000, 1, U) == np.inf


def test_blocks_of_frequencies_and_coordinates_change_nothing(monkeypatch):
    for paired in (True, False):
        c = channel(3, 1, 9, paired=paired)
        whole = cauchy_error(c, 200, 1, U)
        monkeypatch.setattr(module, "_BLOCK_ENTRIES", 100)
        assert cauchy_error(c, 200, 1, U) == pytest.approx(whole, rel=1e-9, abs=0)
        monkeypatch.undo()


def test_random_systems_of_the_suite_have_bounds_near_their_errors():
    """Median of bound/error over 30 kernels: the pessimism of counting roundings, not of norms."""
    ratios = []
    for seed in range(30):
        s = random_system("dplr", n_channels=1, n_modes=1 + seed % 5, seed=seed)
        c = Channel(s.Lambda_bar[0], s.P_bar[:, 0], s.Q_bar[:, 0], s.B_bar[0], s.C[0], True)
        ratios.append(1 / units(c, 8 + seed))
    assert np.median(ratios) < 120


@pytest.mark.skipif(np.finfo(np.longdouble).eps > 2.0**-60, reason="needs a longdouble wider than float64")
@pytest.mark.parametrize("damping", [0.0, 1.7])
@pytest.mark.parametrize("n", [8, 64, 1024])
def test_points_and_denominators_are_as_wrong_as_they_may_be(n, damping):
    """z and 1 - zλ̄ as the backend computes them, against extended precision: within the bound, and near it."""
    poles = np.concatenate([np.exp(-0.1 + 1j * np.linspace(0, 3, 5)), 1 - np.array([1e-3, 1e-6 + 1e-6j])])
    k = np.arange(n // 2 + 1)
    root, gap = np.exp(-2j * np.pi / n * k), -np.expm1(-2j * np.pi / n * k)
    radius = np.exp(-damping / n)
    z, z_gap = radius * root, radius * gap - np.expm1(-damping / n)
    d = z_gap + (1 - poles)[:, None] * z
    angle = k * (8 * np.arctan(np.longdouble(1)) / n)
    half, shrink = np.sin(angle / 2), np.longdouble(damping) / n
    exact_z = np.exp(-shrink) * (np.cos(angle) - 1j * np.sin(angle))
    exact_gap = np.exp(-shrink) * (2 * half**2 + 1j * np.sin(angle)) - np.expm1(-shrink)
    exact_d = exact_gap + (1 - poles.astype(np.clongdouble))[:, None] * exact_z

    truncation = module._Truncation(damping, damping > 0, np.zeros(0), 0.0)
    point = module._point(k, n, truncation, poles, U)
    wrong = np.abs(z - exact_z) / (point.wrong_z * np.exp(-damping / n))
    assert wrong.max() <= 1
    assert wrong.max() >= 0.1
    # the bound also covers the five units of the inverse
    wrong = np.abs(d - exact_d) / point.wrong_d
    assert wrong.max() <= 1
    assert wrong.max() >= 0.1


def test_the_counts_at_a_point():
    """A pole 1 at z = -1, where 1 - z = 2 sin²(π/2) + i sin π: 8 u, 1.5 π u, and the five of sum and inverse."""
    truncation = module._Truncation(0.0, False, np.zeros(0), 0.0)
    point = module._point(np.array([8]), 16, truncation, np.ones(1), U)
    assert point.wrong_z[0] == pytest.approx((1.5 * np.pi + np.sqrt(2)) * U, rel=1e-9, abs=0)
    assert point.wrong_d[0, 0] == pytest.approx((np.hypot(16, 1.5 * np.pi) + 10) * U, rel=1e-9, abs=0)
    # a pole -1 adds |1 - λ̄||z| = 2 with z's error, a subtraction and a product
    point = module._point(np.array([8]), 16, truncation, -np.ones(1), U)
    wanted = np.hypot(16, 1.5 * np.pi) + 2 * (1.5 * np.pi + np.sqrt(2) + 1 + np.sqrt(5))
    assert point.wrong_d[0, 0] == pytest.approx(wanted * U, rel=1e-9, abs=0)
    # a radius below 1: an exponential and a product more, and a difference
    truncation = module._Truncation(16 * np.log(2), True, np.zeros(0), 0.0)
    point = module._point(np.array([8]), 16, truncation, np.ones(1), U)
    assert point.wrong_z[0] == pytest.approx((1.5 * np.pi + np.sqrt(2) + 3) * U, rel=1e-9, abs=0)
    wanted = 0.5 * (np.hypot(16, 1.5 * np.pi) + 3 * 2) + 2 * 0.5 + 1.5 + 5 * 1.5
    assert point.wrong_d[0, 0] == pytest.approx(wanted * U, rel=1e-9, abs=0)


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_changes_of_the_denominators_are_carried_through_the_whole_resolvent(rank):
    """Denominators moved by the bound itself, in random directions: the value moves by at most what is predicted."""
    rng = np.random.default_rng(rank)

    def normal(*shape):
        return rng.normal(size=shape) + 1j * rng.normal(size=shape)

    P, Q, B, C = 0.3 * normal(rank, 4), 0.3 * normal(rank, 4), normal(4), normal(4)
    z, d = np.exp(-1j * np.array([0.0, 0.5, 2.0])), 1 + 0.5 * normal(4, 3)
    wrong = 1e-5 * rng.random((4, 3))
    point = module._Point(z, np.zeros(3), d, wrong)
    predicted, value = module._resolvent_error(point, P, Q, B, C, 1, 0.0)

    def evaluate(d):
        return np.array([C @ np.linalg.solve(np.diag(d[:, f]) + z[f] * P.T @ Q.conj(), B) for f in range(3)])

    assert np.allclose(value, np.abs(evaluate(d)), rtol=1e-12, atol=0)
    largest = np.zeros(3)
    for _ in range(300):
        moved = d + wrong * np.exp(2j * np.pi * rng.random(d.shape))
        largest = np.maximum(largest, np.abs(evaluate(moved) - evaluate(d)))
    assert np.all(largest <= predicted)
    assert np.all(largest >= predicted / 5)
    # errors of B̄² are shared by all sums too
    powered, _ = module._resolvent_error(point, P, Q, B, C, 2, 1e-9)
    plain, _ = module._resolvent_error(point, P, Q, B, C, 1, 1e-9)
    row = np.array([np.linalg.solve((np.diag(d[:, f]) + z[f] * P.T @ Q.conj()).T, C) for f in range(3)])
    assert np.allclose(powered - plain, np.sqrt(5) * 1e-9 * np.abs(row * B).sum(axis=1), rtol=1e-2, atol=0)


def test_changes_of_the_sums_are_carried_through_woodbury():
    """With exact denominators: a unit u = 1e-9 in every sum, product and solution, from the formula's own terms."""
    rng = np.random.default_rng(3)

    def normal(*shape):
        return rng.normal(size=shape) + 1j * rng.normal(size=shape)

    P, Q, B, C = 0.3 * normal(1, 4), 0.3 * normal(1, 4), normal(4), normal(4)
    z, d = np.exp(-1j * np.array([0.0, 0.5, 2.0])), 1 + 0.5 * normal(4, 3)
    u = 1e-9
    predicted, _ = module._resolvent_error(module._Point(z, np.zeros(3), d, np.zeros((4, 3))), P, Q, B, C, 1, u)
    rows, columns = np.concatenate([C[None], Q.conj()]), np.concatenate([B[None], P])
    terms = rows[:, None, :, None] * columns[None, :, :, None] / d

    def evaluate(S):
        return S[0, 0] - z * S[0, 1] * S[1, 0] / (1 + z * S[1, 1])

    # what the sums alone may be off by: √5 u for the weights, √2 γ_2N for the inner product
    size = (np.sqrt(5) + np.sqrt(2) * 8) * u * np.abs(terms).sum(axis=2)
    exact, largest = evaluate(terms.sum(axis=2)), np.zeros(3)
    for _ in range(300):
        moved = terms.sum(axis=2) + size * np.exp(2j * np.pi * rng.random(size.shape))
        largest = np.maximum(largest, np.abs(evaluate(moved) - exact))
    assert np.all(largest <= predicted)
    assert np.all(largest >= predicted / 5)
