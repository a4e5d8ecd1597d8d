"""Recurrences with an interval for every step: within intervals that hold what these formulas can be rounded to."""

from __future__ import annotations

import numpy as np
import pytest
from mpmath import iv

from liquid_ssm.registry import get_backend

KINDS = [("linear", 1), ("linear", 3), ("liquid", 1), ("driven", 1)]


class Complex:
    """Complex numbers of intervals."""

    def __init__(self, re, im=0):
        self.re, self.im = iv.mpf(re), iv.mpf(im)

    def __add__(self, other):
        return Complex(self.re + other.re, self.im + other.im)

    def __sub__(self, other):
        return Complex(self.re - other.re, self.im - other.im)

    def __mul__(self, other):
        return Complex(self.re * other.re - self.im * other.im, self.re * other.im + self.im * other.re)

    def conj(self):
        return Complex(self.re, -self.im)

    def inverse(self):
        size = self.re * self.re + self.im * self.im
        return Complex(self.re / size, -self.im / size)


@pytest.fixture
def wide_roundings():
    """Every operation on intervals is wider than eight roundings to float64, and so than a sum of eight terms."""
    before, iv.prec = iv.prec, 50
    yield
    iv.prec = before


def numbers(values):
    return [Complex(float(value.real), float(value.imag)) for value in values]


def both(P, x):
    """P* x over both halves of every conjugate pair."""
    return 2 * sum((p.conj() * value).re for p, value in zip(P, x, strict=True))


def inverted(matrix):
    """By elimination without pivots."""
    n = len(matrix)
    rows = [[*row, *(iv.mpf(i == j) for j in range(n))] for i, row in enumerate(matrix)]
    for i in range(n):
        rows[i] = [value / rows[i][i] for value in rows[i]]
        for j in range(n):
            if j != i:
                rows[j] = [value - rows[j][i] * of_i for value, of_i in zip(rows[j], rows[i], strict=True)]
    return [row[n:] for row in rows]


def enclosed(system, channel, u, intervals, states, kind):
    """y and the states of one row, intervals."""
    Lambda, B, C = (numbers(system[name][channel]) for name in ("Lambda", "B", "C"))
    P = [numbers(factor[channel]) for factor in system["P"]]
    states, y = [numbers(state) for state in states], []
    one = Complex(1)
    for u_k, interval in zip(u, intervals, strict=True):
        step = iv.mpf(float(interval)) * iv.mpf(float(system["dt"][channel]))
        h, now = Complex(step / 2), Complex(float(u_k))
        moved = [z + b * now for z, b in zip(Lambda, B, strict=True)] if kind == "driven" else Lambda
        D = [(one - h * z).inverse() for z in moved]
        core = [[iv.mpf(r == s) + h.re * both(p, mul(D, q)) for s, q in enumerate(P)] for r, p in enumerate(P)]
        K = [[h.re * value for value in row] for row in inverted(core)]

        def low_rank(v, D=D, K=K):
            sums = [both(p, mul(D, v)) for p in P]
            found = [Complex(0)] * len(v)
            for row, p in zip(K, P, strict=True):
                k = Complex(sum((a * b for a, b in zip(row, sums, strict=True)), iv.mpf(0)))
                found = [a + b * k for a, b in zip(found, p, strict=True)]
            return found

        drive = [Complex(step) * b for b in B]
        B_bar = mul(D, minus(drive, low_rank(drive)))
        before = states
        states = []
        for p, x in enumerate(before):
            forcing = [one] * len(x) if p == 0 else before[p - 1]
            if kind == "liquid":
                forcing = [one + value for value in x]
            a = [(one + h * z) * d for z, d in zip(moved, D, strict=True)]
            after = minus(mul(a, x), mul(D, low_rank([Complex(2) * value for value in x])))
            states.append([v + now * b * f for v, b, f in zip(after, B_bar, forcing, strict=True)])
        y.append(2 * sum((c * value).re for x in states for c, value in zip(C, x, strict=True)))
    return y, states


def mul(x, y):
    return [a * b for a, b in zip(x, y, strict=True)]


def minus(x, y):
    return [a - b for a, b in zip(x, y, strict=True)]


def drawn(rank, order=1, batch=2, channels=2, length=5, modes=3):
    random = np.random.default_rng([rank, order, length])

    def normal(*shape):
        return random.normal(size=shape) + 1j * random.normal(size=shape)

    system = {
        "Lambda": -np.exp(random.normal(size=(channels, modes))) + 3j * random.normal(size=(channels, modes)),
        "B": normal(channels, modes),
        "C": normal(channels, modes),
        "P": normal(rank, channels, modes),
        "dt": np.exp(random.normal(size=channels) - 1),
    }
    u, dt = random.normal(size=(batch, channels, length)), np.exp(0.5 * random.normal(size=(batch, length)))
    return system, u, dt, normal(batch, order, channels, modes)


def rows(system, u, dt, kind, order=1, backend=None):
    parts = (system[name] for name in ("Lambda", "B", "C", "P", "dt"))
    return (backend or get_backend("numba")).sampled_rows(*parts, u, dt, kind, order)


@pytest.mark.parametrize("rank", [0, 1, 2, 3])
@pytest.mark.parametrize(("kind", "order"), KINDS)
def test_steps_are_within_what_their_formulas_can_be_rounded_to(kind, order, rank, wide_roundings):
    system, u, dt, states = drawn(rank, order)
    y, final, _ = rows(system, u, dt, kind, order).run(states, keep=False)
    widest = 0.0
    for batch in range(2):
        for channel in range(2):
            inside, last = enclosed(
                system, channel, u[batch, channel], dt[batch], states[batch, :, channel], kind
            )  # fmt: skip
            for value, allowed in zip(y[batch, channel], inside, strict=True):
                assert float(value) in allowed
                widest = max(widest, float(allowed.delta))
            for p, x in enumerate(last):
                for n, allowed in enumerate(x):
                    assert float(final[batch, p, channel, n].real) in allowed.re
                    assert float(final[batch, p, channel, n].imag) in allowed.im
    # A bound that is narrow enough to see a single operation gone wrong.
    assert widest < 1e-8 * float(np.abs(y).max())


@pytest.mark.parametrize(("kind", "order"), KINDS)
def test_no_bit_depends_on_threads_rows_or_what_is_kept(kind, order):
    from liquid_ssm.backends.numba_backend import NumbaBackend

    system, u, dt, states = drawn(1, order, batch=3, length=130)
    many, one = (rows(system, u, dt, kind, order, NumbaBackend(threads=n)) for n in (2, 1))
    y, final, starts = many.run(states, keep=True)
    assert starts.shape[:2] == (6, 3)
    grad = np.random.default_rng(1).normal(size=y.shape)
    found = many.run_back(starts, grad, states)
    for result, other in zip((y, final), one.run(states, keep=False)[:2], strict=True):
        assert np.array_equal(result, other)
    for result, other in zip(found[:3], one.run_back(starts, grad, states)[:3], strict=True):
        assert np.array_equal(result, other)
    alone = rows(system, u[1:2], dt[1:2], kind, order)
    assert np.array_equal(alone.run(states[1:2], keep=False)[0][0], y[1])
    assert np.array_equal(alone.run_back(starts[2:4], grad[1:2], states[1:2])[0][0], found[0][1])


def test_float32_is_rounded_once():
    system, u, dt, states = drawn(2, length=70)
    narrow = u.astype(np.float32)
    y, _, starts = rows(system, narrow, dt, "liquid").run(states, keep=True)
    wide, _, same = rows(system, narrow.astype(float), dt, "liquid").run(states, keep=True)
    assert np.array_equal(y, wide.astype(np.float32))
    assert np.array_equal(starts, same)
    grad_u = rows(system, narrow, dt, "liquid").run_back(starts, narrow, states)[0]
    expected = rows(system, narrow.astype(float), dt, "liquid").run_back(starts, narrow.astype(float), states)[0]
    assert np.array_equal(grad_u, expected.astype(np.float32))


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_driven_step_near_a_pole_is_not_computed(rank):
    system, u, dt, states = drawn(rank, batch=1, channels=1, modes=1)
    system |= {"Lambda": np.array([[-1.0 + 0j]]), "B": np.array([[1.0 + 0j]]), "dt": np.array([2.0])}
    dt[:] = 1.0
    u[:] = 0.5
    assert rows(system, u, dt, "driven").run(states, keep=False) is not None
    # 1 - h (λ + B u) is 2 - u, and of rank 1 the core is 1 + h P* P/(2 - u).
    weight = 2 * float((np.abs(system["P"]) ** 2).sum())
    for pole in (2.0, 2.0 + weight if rank == 1 else 2.0):
        for near, computed in ((1e-9, False), (1e-2, True)):
            u[..., 3] = pole + near
            assert (rows(system, u, dt, "driven").run(states, keep=False) is not None) == computed


def test_no_rows_and_no_steps():
    system, u, dt, states = drawn(1)
    y, final, starts = rows(system, u[:0], dt[:0], "liquid").run(states[:0], keep=True)
    assert (y.shape, final.shape, starts.shape[0]) == ((0, 2, 5), (0, 1, 2, 3), 0)
    call = rows(system, u[..., :0].copy(), dt[:, :0].copy(), "liquid")
    y, final, starts = call.run(states, keep=True)
    assert y.shape == (2, 2, 0)
    assert np.array_equal(final, states)
    *_, back, parts = call.run_back(starts, y, states)
    assert np.array_equal(back, states)
    assert not parts.Lambda.any()


@pytest.mark.parametrize("name", ["Lambda", "B", "dt"])
def test_numbers_whose_squares_overflow_are_not_computed(name):
    system, u, dt, states = drawn(0)
    system[name] = system[name] * 1e155
    with np.errstate(over="ignore"):
        assert rows(system, u, dt, "liquid").run(states, keep=False) is None
