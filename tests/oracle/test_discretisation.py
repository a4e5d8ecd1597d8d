"""Discretisations and integrators of the oracle: exact where they are rational, else against closed forms.

A relative comparison at `DIGITS` digits allows 10^-(DIGITS - 10): ten digits for at most 10^10 roundings' growth.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from liquid_ssm.oracle.discretisation import adams_bashforth, bilinear_exact, discretize, held_input_solution
from liquid_ssm.oracle.exact import ComplexRational, exact_array, full_system, parts
from liquid_ssm.oracle.realization import Realization

DIGITS = 40
INTEGRATORS = (adams_bashforth, bilinear_exact, held_input_solution)
eighths = st.integers(-12, 12).map(lambda i: i / 8)
steps = st.sampled_from([1.0, 0.5, 0.1, 1e-3])


def complexes(shape: tuple[int, ...]) -> Any:
    arrays = hnp.arrays(np.float64, shape, elements=eighths)
    return st.tuples(arrays, arrays).map(lambda z: z[0] + 1j * z[1])


def left_half_plane(shape: tuple[int, ...]) -> Any:
    """Re < 0, so that no I - dt/2 λ is singular."""
    return complexes(shape).map(lambda z: -abs(z.real) - 0.25 + 1j * z.imag)


def legs(n_state: int) -> tuple[Any, Any]:
    """HiPPO-LegS (Eq. 7)."""
    n = np.arange(n_state)
    root = np.sqrt(2 * n + 1)
    return -(np.tril(np.outer(root, root), -1) + np.diag(n + 1.0))[None], root[None]


def assert_close(given: Any, expected: Any, digits: int = DIGITS) -> None:
    given, expected = np.asarray(given, dtype=object), np.asarray(expected, dtype=object)
    assert given.shape == expected.shape
    with mpmath.workdps(digits + 10):
        scale = max((abs(mpmath.mpmathify(e)) for e in expected.flat), default=mpmath.mpf(0))
        for g, e in zip(given.flat, expected.flat, strict=True):
            assert abs(g - e) <= mpmath.mpf(10) ** (10 - digits) * scale


# The three discretisations


@given(st.data())
def test_euler_and_bilinear_satisfy_their_equations(data: st.DataObject) -> None:
    # (I - δt/2 A) Ā = I + δt/2 A and (I - δt/2 A) B̄ = δt B, without any division.
    dt = data.draw(steps)
    h, lam, B = Fraction(dt), data.draw(left_half_plane((1, 2))), data.draw(complexes((1, 2)))
    a, b = exact_array(lam), exact_array(B)
    A_bar, B_bar = discretize(lam, B, np.array([dt]), "euler")
    assert (A_bar == 1 + h * a).all()
    assert (B_bar == h * b).all()
    A_bar, B_bar = discretize(lam, B, np.array([dt]), "bilinear")
    assert ((1 - h / 2 * a) * A_bar == 1 + h / 2 * a).all()
    assert ((1 - h / 2 * a) * B_bar == h * b).all()


@given(st.data())
def test_dense_euler_and_bilinear_satisfy_their_equations(data: st.DataObject) -> None:
    dt, n = data.draw(steps), data.draw(st.integers(1, 3))
    # Row sums of |off-diagonal| stay below |Re| of the diagonal, so I - dt/2 A is regular.
    A = data.draw(complexes((1, n, n))) - 8 * np.eye(n)
    B, identity = data.draw(complexes((1, n))), np.eye(n, dtype=int).astype(object)
    h, a = Fraction(dt), exact_array(A)[0]
    A_bar, B_bar = discretize(A, B, np.array([dt]), "euler")
    assert (A_bar[0] == identity + h * a).all()
    assert (B_bar == h * exact_array(B)).all()
    A_bar, B_bar = discretize(A, B, np.array([dt]), "bilinear")
    assert ((identity - h / 2 * a) @ A_bar[0] == identity + h / 2 * a).all()
    assert ((identity - h / 2 * a) @ B_bar[0] == h * exact_array(B)[0]).all()


def test_dense_bilinear_with_a_zero_pivot() -> None:
    # I - δt/2 A = [[0, -1/4], [-1/4, 1]] has the inverse [[-16, -4], [-4, 0]].
    A, B = np.array([[[4.0, 1.0], [1.0, 0.0]]]), np.array([[1.0, 2.0]])
    A_bar, B_bar = discretize(A, B, [0.5], "bilinear")
    # Ā = 2 (I - δt/2 A)⁻¹ - I
    assert A_bar[0].tolist() == [[-33, -8], [-8, -1]]
    assert B_bar[0].tolist() == [-12, -2]


@given(st.data())
def test_the_difference_of_bilinear_and_euler(data: st.DataObject) -> None:
    # Ā_bilinear - Ā_euler = (δt²/2) A² (I - δt/2 A)⁻¹; the inverse is B̄_bilinear/δt for unit columns B.
    n, dt = 2, data.draw(steps)
    A = data.draw(complexes((1, n, n))) - 8 * np.eye(n)
    h, a = Fraction(dt), exact_array(A)[0]
    difference = discretize(A, A[0, :1], np.array([dt]), "bilinear")[0] - discretize(A, A[0, :1], [dt], "euler")[0]
    columns = [discretize(A, unit[None], np.array([dt]), "bilinear")[1][0] for unit in np.eye(n)]
    inverse = np.stack(columns, axis=-1) * (1 / h)
    assert (difference[0] == h * h / 2 * (a @ a @ inverse)).all()
    lam = data.draw(left_half_plane((1, 2)))
    A_b, A_e = (discretize(lam, lam, np.array([dt]), method)[0] for method in ("bilinear", "euler"))
    # Re λ <= 0 gives |1 - δt/2 λ| >= 1 and so |difference| <= δt²/2 |λ|², squared here to stay rational.
    re, im = parts(A_b - A_e)
    l_re, l_im = parts(exact_array(lam))
    assert (re * re + im * im <= (h * h / 2) ** 2 * (l_re * l_re + l_im * l_im) ** 2).all()


@pytest.mark.parametrize(("n_state", "ratio"), [(4, "40"), (7, "349"), (16, "9.0e+03")])
def test_the_bound_of_appendix_d_fails(n_state: int, ratio: str) -> None:
    A, B = legs(n_state)
    bilinear, euler = (discretize(A, B, np.array([1e-3]), m, precision=DIGITS)[0] for m in ("bilinear", "euler"))
    found = np.linalg.norm((bilinear - euler)[0].astype(float), 2) / 1e-6
    assert float(ratio) == float(f"{found:.{2 if n_state == 16 else len(ratio)}g}")
    assert found > 1


@given(st.data())
def test_euler_is_stable_up_to_its_step_bound(data: st.DataObject) -> None:
    # |1 + δt λ| <= 1 exactly when δt <= -2 Re λ/|λ|², in rationals.
    lam, dt = data.draw(left_half_plane((1, 1))), data.draw(steps)
    a = discretize(lam, lam, np.array([dt]), "euler")[0][0, 0]
    z = exact_array(lam)[0, 0]
    stable = a.real * a.real + a.imag * a.imag <= 1
    assert stable == (Fraction(dt) <= -2 * z.real / (z.real * z.real + z.imag * z.imag))
    b = discretize(lam, lam, np.array([dt]), "bilinear")[0][0, 0]
    assert b.real * b.real + b.imag * b.imag < 1


def test_spectral_radius_of_legs_at_a_tenth() -> None:
    # LegS is triangular: Ā has its eigenvalues on the diagonal.
    for n_state, euler, bilinear in ((16, 0.9, 0.905), (64, 5.4, 0.905)):
        lam = np.diagonal(legs(n_state)[0], axis1=1, axis2=2)
        for method, radius in (("euler", euler), ("bilinear", bilinear)):
            diagonal = discretize(lam, lam, np.array([0.1]), method)[0].astype(float)
            assert round(float(abs(diagonal).max()), 3) == radius


def test_zoh_of_one_mode_is_the_exponential() -> None:
    lam, B, dt = np.array([[-0.5 + 3j, -2 + 0j]]), np.array([[1 - 1j, 0.5 + 2j]]), np.array([0.1])
    A_bar, B_bar = discretize(lam, B, dt, "zoh", precision=DIGITS)
    with mpmath.workdps(DIGITS + 20):
        z = [mpmath.mpmathify(complex(v)) * mpmath.mpf(0.1) for v in lam[0]]
        assert_close(A_bar[0], [mpmath.exp(v) for v in z])
        expected = [(mpmath.exp(v) - 1) / v * mpmath.mpf(0.1) * complex(b) for v, b in zip(z, B[0], strict=True)]
        assert_close(B_bar[0], expected)


@pytest.mark.parametrize("size", [0.0, 1e-300, 1e-20, 1e-9, 1e-3])
def test_zoh_does_not_cancel_near_zero(size: float) -> None:
    # φ₁(z) = Σ z^j/(j+1)!; five terms leave a relative remainder below |z|⁵/720 < 10^-17 at 1e-3.
    lam = np.array([[size * (1 + 1j)]])
    one = np.ones((1, 1)) + 0j
    with mpmath.workdps(DIGITS + 20):
        z = mpmath.mpmathify(complex(lam[0, 0]))
        series = sum(z**j / mpmath.factorial(j + 1) for j in range(20))
        assert_close(discretize(lam, one, np.array([1.0]), "zoh", precision=DIGITS)[1][0], [series])
        rounded = discretize(lam, one, np.array([1.0]), "zoh", precision="longdouble")[1]
        value = exact_array(rounded)[0, 0]
        error = mpmath.mpc(*(mpmath.mpf(p.numerator) / p.denominator for p in (value.real, value.imag))) - series
        # expm1 and the division each cost a few roundings.
        assert abs(error) <= 16 * float(np.finfo(np.longdouble).eps)
    if size == 0:
        A_bar, B_bar = discretize(lam, 2 * one, np.array([0.25]), "zoh", precision=DIGITS)
        assert (A_bar[0, 0], B_bar[0, 0]) == (1, 0.5)


def test_zoh_of_a_jordan_block() -> None:
    # e^{t [[λ, 1], [0, λ]]} = e^{λt} [[1, t], [0, 1]], singular at λ = 0 where φ₁ = [[1, t/2], [0, 1]].
    for lam in (0.0, -0.75):
        A, B = np.array([[[lam, 1.0], [0.0, lam]]]), np.array([[0.0, 1.0]])
        A_bar, B_bar = discretize(A, B, np.array([0.5]), "zoh", precision=DIGITS)
        with mpmath.workdps(DIGITS + 20):
            e, t, x = mpmath.exp(lam / 2), mpmath.mpf(0.5), mpmath.mpf(lam)
            assert_close(A_bar[0], [[e, t * e], [0, e]])
            # ∫₀ᵗ e^{λs} (s, 1) ds
            by_parts = t * t / 2 if lam == 0 else (e * (x * t - 1) + 1) / x**2
            assert_close(B_bar[0], [by_parts, t if lam == 0 else (e - 1) / x])


@pytest.mark.parametrize("method", ["euler", "bilinear", "zoh"])
def test_every_precision_gives_the_same(method: str) -> None:
    lam, B, dt = np.array([[-0.5 + 3j, -2 + 0.25j]] * 2), np.array([[1 - 1j, 0.5 + 2j]] * 2), np.array([0.1, 0.01])
    low, high = (discretize(lam, B, dt, method, precision=digits) for digits in (DIGITS, DIGITS + 20))
    rounded = discretize(lam, B, dt, method, precision="longdouble")
    for coarse, fine, floats in zip(low, high, rounded, strict=True):
        assert_close(coarse, fine)
        assert floats.dtype == np.clongdouble
        # At most 16 roundings of each entry (the entries are of order dt to 1, the argument below 1).
        eps = float(np.finfo(np.longdouble).eps)
        for x, y in zip(exact_array(floats).flat, fine.flat, strict=True):
            with mpmath.workdps(DIGITS):
                difference = mpmath.mpc(*(mpmath.mpf(p.numerator) / p.denominator for p in (x.real, x.imag))) - y
                assert abs(difference) <= 16 * eps * max(1, abs(y))
    if method != "zoh":
        with mpmath.workdps(DIGITS + 20):
            for exact, fine in zip(discretize(lam, B, dt, method), high, strict=True):
                as_mpmath = [
                    mpmath.mpc(*(mpmath.mpf(p.numerator) / p.denominator for p in (z.real, z.imag))) for z in exact.flat
                ]
                assert_close(fine.ravel(), as_mpmath)


@pytest.mark.parametrize("method", ["euler", "bilinear", "zoh"])
def test_a_diagonal_matrix_is_a_diagonal_system(method: str) -> None:
    lam, B, dt = np.array([[-0.5 + 3j, -2 + 0.25j]] * 2), np.array([[1 - 1j, 0.5 + 2j]] * 2), np.array([0.1, 0.5])
    precision: Any = DIGITS if method == "zoh" else "exact"
    diagonal = discretize(lam, B, dt, method, precision=precision)
    dense = discretize(lam[..., None] * np.eye(2), B, dt, method, precision=precision)
    on_diagonal = np.diagonal(dense[0], axis1=1, axis2=2)
    if precision == "exact":
        assert (on_diagonal == diagonal[0]).all()
        assert (dense[1] == diagonal[1]).all()
    else:
        assert_close(on_diagonal, diagonal[0])
        assert_close(dense[1], diagonal[1])
    assert all(dense[0][h, 0, 1] == dense[0][h, 1, 0] == 0 for h in range(2))


@pytest.mark.parametrize("conjugate_pairs", [True, False])
def test_low_rank_goes_through_the_full_matrix(conjugate_pairs: bool) -> None:
    lam, B, dt = np.array([[-0.5 + 3j, -2 + 0.25j]]), np.array([[1 - 1j, 0.5 + 2j]]), np.array([0.5])
    P = np.array([[[0.5 + 0.25j, 1 - 0.5j]]])
    A, B_full, _ = full_system(Realization("dplr", lam, B, B, P, P, conjugate_pairs))
    n = 4 if conjugate_pairs else 2
    half = P[0, 0]
    p = np.concatenate([half, half.conj()]) if conjugate_pairs else half
    values = np.concatenate([lam[0], lam[0].conj()]) if conjugate_pairs else lam[0]
    # All entries are small multiples of 1/16, exact in complex128.
    assert (A[0] == exact_array(np.diag(values) - np.outer(p, p.conj()))).all()
    for method in ("euler", "bilinear"):
        by_factors = discretize(lam, B, dt, method, P=P, conjugate_pairs=conjugate_pairs)
        by_matrix = discretize(A, B_full, dt, method)
        assert by_factors[0].shape == (1, n, n)
        for x, y in zip(by_factors, by_matrix, strict=True):
            assert (x == y).all()
    by_factors = discretize(lam, B, dt, "zoh", P=P, conjugate_pairs=conjugate_pairs, precision=DIGITS)
    by_matrix = discretize(A, B_full, dt, "zoh", precision=DIGITS)
    for x, y in zip(by_factors, by_matrix, strict=True):
        assert_close(x, y)


# Integrators


def test_adams_bashforth_by_hand() -> None:
    # One real mode: a = -1, b = 1/2, c = 2, dt = 1/4, u = 1, 2, -1, from rest; f_k = (a + b u_k) x + b u_k.
    u = [Fraction(1), Fraction(2), Fraction(-1)]
    x, before, expected = Fraction(0), None, []
    for v in u:
        f = (v / 2 - 1) * x + v / 2
        x += Fraction(1, 4) * (f if before is None else Fraction(3, 2) * f - Fraction(1, 2) * before)
        before = f
        expected.append(2 * x)
    assert expected[0] == Fraction(1, 4)
    one = np.ones((1, 1))
    y = adams_bashforth(
        -one, one / 2, 2 * one, [0.25], np.array([[u]], dtype=float), conjugate_pairs=False, precision="exact"
    )
    assert y[0, 0].tolist() == expected


@given(st.data())
def test_bilinear_exact_satisfies_its_equation(data: st.DataObject) -> None:
    # x_k - δt/2 M_k x_k = x_{k-1} + δt/2 M_k x_{k-1} + δt b u_k, read out with C = 1 on a real mode.
    a, b = -2 - abs(data.draw(eighths)), data.draw(eighths)
    dt, u = data.draw(st.sampled_from([0.5, 0.1])), data.draw(hnp.arrays(np.float64, (1, 1, 4), elements=eighths))
    y = bilinear_exact(
        np.array([[a]]), np.array([[b]]), np.ones((1, 1)), [dt], u, conjugate_pairs=False, precision="exact"
    )
    h, x = Fraction(dt), Fraction(0)
    for k, v in enumerate(exact_array(u)[0, 0]):
        m, new = Fraction(a) + Fraction(b) * v, y[0, 0, k]
        assert new - h / 2 * m * new == x + h / 2 * m * x + h * Fraction(b) * v
        x = new


@pytest.mark.parametrize("integrator", INTEGRATORS)
def test_held_input_with_dense_matrices(integrator: Any) -> None:
    # Diagonal, dense and low-rank forms of one system; each goes through its own branch.
    lam, B, C = np.array([[-0.5 + 3j, -2 + 0.25j]]), np.array([[1 - 1j, 0.5 + 2j]]), np.array([[1.5, 0.5 - 1j]])
    u, dt = np.array([[[1.0, -0.5, 0.25]], [[0.5, 0.0, 2.0]]]), np.array([0.25])
    x0 = np.array([[[1 - 1j, 0.5]], [[0.25j, 2.0]]])
    low, high = (
        integrator(lam, B, C, dt, u, conjugate_pairs=False, state=x0, precision=d) for d in (DIGITS, DIGITS + 20)
    )
    assert_close(low, high)
    dense = integrator(lam[..., None] * np.eye(2), B, C, dt, u, state=x0, precision=DIGITS)
    assert_close(dense, low)
    # Conjugate pairs stored once, and with both halves.
    pairs = integrator(lam, B, C, dt, u, state=x0, precision=DIGITS)

    def both(v: Any) -> Any:
        return np.concatenate([v, v.conj()], axis=-1)

    whole = integrator(both(lam), both(B), both(C), dt, u, conjugate_pairs=False, state=both(x0), precision=DIGITS)
    assert_close(whole, pairs)
    P = np.array([[[0.5 + 0.25j, 1 - 0.5j]]])
    A, _, _ = full_system(Realization("dplr", lam, B, C, P, P))
    by_factors = integrator(lam, B, C, dt, u, P=P, state=x0, precision=DIGITS)
    by_matrix = integrator(A, both(B), both(C), dt, u, state=both(x0), precision=DIGITS)
    assert_close(by_factors, by_matrix)
    # The low-rank part is of order 1, so it must show.
    assert abs(by_factors[0, 0, 0] - pairs[0, 0, 0]) > 1e-3
    if integrator is not held_input_solution:
        exact = integrator(lam, B, C, dt, u, P=P, state=x0, precision="exact")
        assert all(isinstance(value, Fraction) for value in exact.flat)
        with mpmath.workdps(DIGITS):
            as_mpmath = [mpmath.mpf(v.numerator) / v.denominator for v in exact.flat]
            assert_close(by_factors.ravel(), as_mpmath)


def test_held_input_against_closed_forms() -> None:
    one, dt = np.ones((1, 1)), np.array([0.5])
    u = np.array([[[2.0]]])
    with mpmath.workdps(DIGITS + 20):
        # One real mode under constant input: x = (e^{mt} - 1) b u/m with m = a + b u = -1.
        y = held_input_solution(-4 * one, 1.5 * one, one, dt, u, conjugate_pairs=False, precision=DIGITS)
        assert_close(y[0, 0], [(mpmath.exp(mpmath.mpf(-0.5)) - 1) * 3 / -1])
        # m = 0: x = x_{-1} + t b u.
        y = held_input_solution(-2 * one, one, one, dt, u, conjugate_pairs=False, state=one[None], precision=DIGITS)
        assert y[0, 0, 0] == 2
        # A + diag(B) u = [[0, 1], [-1, 0]] turns: e^{tM} = [[cos, sin], [-sin, cos]].
        A, B = np.array([[[-1.0, 1.0], [-1.0, 1.0]]]), np.array([[0.5, -0.5]])
        x0, t = np.array([[[2.0, 3.0]]]), mpmath.mpf(0.5)
        c, s = mpmath.cos(t), mpmath.sin(t)
        # ∫₀ᵗ e^{sM} ds (1, -1) = (sin + cos - 1, cos - 1 - sin), with B u = (1, -1).
        for C, expected in (
            ([1.0, 0.0], 2 * c + 3 * s + (s + c - 1)),
            ([0.0, 1.0], -2 * s + 3 * c + (c - 1 - s)),
        ):
            y = held_input_solution(A, B, np.array([C]), dt, u, state=x0, precision=DIGITS)
            assert_close(y[0, 0], [expected])


def test_held_input_does_not_depend_on_the_subdivision() -> None:
    # Two half steps with the same input are one step; the liquid term included.
    lam, B, C = np.array([[-0.5 + 3j]]), np.array([[1 - 1j]]), np.array([[1.5 + 1j]])
    u = np.array([[[1.0, -0.5, 0.25]]])
    coarse = held_input_solution(lam, B, C, [0.5], u, precision=DIGITS)
    fine = held_input_solution(lam, B, C, [0.25], np.repeat(u, 2, axis=2), precision=DIGITS)
    assert_close(fine[:, :, 1::2], coarse)


@given(st.data())
def test_a_split_run_carries_its_state(data: st.DataObject) -> None:
    # C reads one state each time; Adams-Bashforth carries the last right-hand side too.
    a, b = -abs(data.draw(eighths)) - 0.25, data.draw(eighths)
    u = data.draw(hnp.arrays(np.float64, (1, 1, 4), elements=eighths))
    A, B, C = (np.array([[v]]) for v in (a, b, 1.0))
    options: Any = {"conjugate_pairs": False, "precision": "exact"}
    for integrator in (adams_bashforth, bilinear_exact):
        y = integrator(A, B, C, [0.25], u, **options)
        state = y[:, :, 1:2]
        extra = {}
        if integrator is adams_bashforth:
            x0, v = y[0, 0, 0], Fraction(b) * Fraction(u[0, 0, 1])
            extra = {"previous": np.array([[[Fraction(a) * x0 + v * x0 + v]]], dtype=object)}
        assert (integrator(A, B, C, [0.25], u[:, :, 2:], state=state, **extra, **options) == y[:, :, 2:]).all()


@pytest.mark.parametrize("integrator", INTEGRATORS)
def test_longdouble_stays_within_its_rounding(integrator: Any) -> None:
    # With q = δt (max|λ| + max|b u|) < 1/2 every step multiplies |x| and its error by at most e^{2q}: 1 + 2q for
    # Adams-Bashforth, (1 + q/2)/(1 - q/2) for bilinear_exact, e^q for the solution. It adds at most 2 δt max|b u| to
    # |x| and commits fewer than 32 roundings (1 + q) of what it handles. So |x| <= g L 2δt|b u| and the error is at
    # most 32 eps (1 + q) L g |x| with g = e^{2qL}.
    rng = np.random.default_rng(5)
    batch, H, M, L, dt = 2, 3, 4, 24, 1 / 64
    lam = -rng.uniform(0.25, 1, (H, M)) + 1j * rng.uniform(-2, 2, (H, M))
    B, C = rng.standard_normal((2, H, M, 2)) @ [0.5, 0.5j]
    u = rng.uniform(-1, 1, (batch, H, L))
    steps = np.full(H, dt)
    y = integrator(lam, B, C, steps, u)
    assert y.dtype == np.longdouble
    assert y.shape == u.shape
    expected = integrator(lam, B, C, steps, u, precision=DIGITS)
    drive = abs(B).max() * abs(u).max()
    q = dt * (abs(lam).max() + drive)
    assert q < 0.5
    growth = np.exp(2 * q * L)
    bound = 32 * np.finfo(np.longdouble).eps * (1 + q) * L * growth * (growth * L * 2 * dt * drive)
    bound = 2 * abs(C).sum(-1).max() * bound
    with mpmath.workdps(DIGITS):
        for value, reference in zip(exact_array(y).flat, expected.flat, strict=True):
            error = abs(mpmath.mpf(value.numerator) / value.denominator - reference)
            assert error <= float(bound)
    # The bound still tells longdouble from a computation in float64, where that is another format.
    assert bound < 1e-10


# Orders of convergence


def slope(steps: list[int], errors: list[float]) -> float:
    return float(-np.polyfit(np.log(steps), np.log(errors), 1)[0])


def eq11(lam: Any, B: Any, C: Any, dt: Any, u: Any, method: str, liquid: bool = True) -> Any:
    """Eq. 11, or Eq. 2, with a discretisation put in, in longdouble."""
    A_bar, B_bar = discretize(lam, B, dt, method, precision="longdouble")
    x, y = np.zeros((1, *lam.shape), np.clongdouble), np.empty(u.shape, np.longdouble)
    for k in range(u.shape[2]):
        v = B_bar * u[:, :, k, None]
        x = (A_bar + v if liquid else A_bar) * x + v
        y[:, :, k] = 2 * (C * x).sum(-1).real
    return y


LAM, B1, C1 = np.array([[-1 + 2j]]), np.array([[0.75 - 0.5j]]), np.array([[1 + 1j]])
REFINEMENTS = [64, 128, 256]


def held_error(run: Any, n: int) -> float:
    """Error at t = 4 where u has four plateaus of length 1 and each is cut into n steps."""
    plateaus = np.array([[[1.0, -0.75, 0.5, 1.25]]])
    reference = held_input_solution(LAM, B1, C1, [1.0], plateaus)[0, 0, -1]
    return float(abs(run(np.array([1.0 / n]), np.repeat(plateaus, n, axis=2))[0, 0, -1] - reference))


@pytest.mark.parametrize(
    ("run", "order"),
    [
        pytest.param(lambda dt, u: eq11(LAM, B1, C1, dt, u, "euler"), 1, id="euler"),
        # The liquid term of Eq. 11 is explicit whatever Ā is, so these two are of first order for it.
        pytest.param(lambda dt, u: eq11(LAM, B1, C1, dt, u, "bilinear"), 1, id="bilinear"),
        pytest.param(lambda dt, u: eq11(LAM, B1, C1, dt, u, "zoh"), 1, id="zoh"),
        pytest.param(lambda dt, u: bilinear_exact(LAM, B1, C1, dt, u), 2, id="bilinear-exact"),
        # f_{k-1} belongs to another input at each jump of u, which costs one order.
        pytest.param(lambda dt, u: adams_bashforth(LAM, B1, C1, dt, u), 1, id="adams-bashforth"),
    ],
)
def test_orders_of_convergence_for_held_input(run: Any, order: int) -> None:
    # error = c δt^p (1 + O(δt)) and δt <= 1/64, so the fitted slope is within 0.1 of p.
    assert abs(slope(REFINEMENTS, [held_error(run, n) for n in REFINEMENTS]) - order) < 0.1


def test_linear_orders_of_convergence_for_held_input() -> None:
    # Eq. 2: euler 1, bilinear 2, and zoh exact, so that its steps may be subdivided at will.
    plateaus = np.array([[[1.0, -0.75, 0.5, 1.25]]])
    reference = eq11(LAM, B1, C1, np.array([1.0]), plateaus, "zoh", liquid=False)[0, 0, -1]
    for method, order in (("euler", 1), ("bilinear", 2)):
        errors = [
            float(
                abs(
                    eq11(LAM, B1, C1, np.array([1.0 / n]), np.repeat(plateaus, n, axis=2), method, liquid=False)[
                        0, 0, -1
                    ]
                    - reference
                )
            )
            for n in REFINEMENTS
        ]
        assert abs(slope(REFINEMENTS, errors) - order) < 0.1
    subdivided = eq11(LAM, B1, C1, np.array([1.0 / 64]), np.repeat(plateaus, 64, axis=2), "zoh", liquid=False)
    # 256 steps with fewer than 32 roundings each, of a state that |λ| and u keep below 4; |2 C| < 4.
    assert abs(subdivided[0, 0, -1] - reference) <= 256 * 32 * 4 * 4 * np.finfo(np.longdouble).eps


def test_orders_of_convergence_for_smooth_input() -> None:
    # x' = (a + b u) x + b u with u = 1 + t - t² has x(T) = ∫ exp(∫_s^T (a + b u)) b u(s) ds; no solver is involved.
    a, b, c = (complex(v[0, 0]) for v in (LAM, B1, C1))

    def u(t: Any) -> Any:
        return 1 + t - t**2

    def integral_of_u(t: Any) -> Any:
        return t + t**2 / 2 - t**3 / 3

    end = 2
    with mpmath.workdps(30):
        x = mpmath.quad(
            lambda s: mpmath.exp(a * (end - s) + b * (integral_of_u(end) - integral_of_u(s))) * b * u(s), [0, 1, end]
        )
        reference = np.longdouble(mpmath.nstr(2 * (c * x).real, 25))
    # One-step methods take u at the middle of a step, Adams-Bashforth and euler at its start.
    for run, shift, order in (
        (lambda dt, v: eq11(LAM, B1, C1, dt, v, "euler"), 0, 1),
        (lambda dt, v: adams_bashforth(LAM, B1, C1, dt, v), 0, 2),
        (lambda dt, v: bilinear_exact(LAM, B1, C1, dt, v), 0.5, 2),
        (lambda dt, v: held_input_solution(LAM, B1, C1, dt, v), 0.5, 2),
    ):
        errors = []
        for n in REFINEMENTS:
            t = (np.arange(n) + shift) * end / n
            errors.append(float(abs(run(np.array([end / n]), u(t)[None, None])[0, 0, -1] - reference)))
        assert abs(slope(REFINEMENTS, errors) - order) < 0.1


# Housekeeping


@pytest.mark.parametrize("integrator", INTEGRATORS)
def test_shapes_with_nothing_in_them(integrator: Any) -> None:
    one = np.ones((1, 1))
    for shape in ((0, 1, 3), (2, 1, 0)):
        for precision in ("longdouble", 20):
            y = integrator(-one, one, one, [0.5], np.ones(shape), precision=precision)
            assert y.shape == shape


def test_global_precision_is_restored() -> None:
    one, u = np.ones((1, 1)), np.ones((1, 1, 2))
    with mpmath.workdps(23):
        discretize(-one, one, [0.5], "zoh", precision=50)
        held_input_solution(-one, one, one, [0.5], u, precision=50)
        with pytest.raises(ValueError, match="method is"):
            discretize(-one, one, [0.5], "heun", precision=50)
        assert mpmath.mp.dps == 23


def test_complex_parameters_stay_complex_and_real_ones_real() -> None:
    one = np.ones((1, 1))
    assert isinstance(discretize(-one, one, [0.5], "bilinear")[0][0, 0], Fraction)
    assert isinstance(discretize(-one + 0j, one, [0.5], "bilinear")[0][0, 0], ComplexRational)


ONE = np.ones((1, 1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "heun"}, "method is 'heun'; allowed: euler, bilinear, zoh"),
        ({"method": "zoh"}, "zoh is not rational"),
        ({"precision": "double"}, "precision is 'double'; allowed: 'exact', 'longdouble'"),
        ({"precision": 0}, "precision is 0"),
        ({"dt": [0.0]}, "every step size must be greater than 0"),
        ({"dt": [np.nan]}, "every step size must be greater than 0"),
        ({"dt": [0.5, 0.5]}, r"dt \(2,\); they must be"),
        ({"B": np.ones((1, 2))}, r"A has shape \(1, 1\), B \(1, 2\)"),
        ({"A": np.full((1, 1), np.inf)}, "is inf at index"),
        ({"A": np.full((1, 1), np.inf), "precision": "longdouble"}, "NaN or infinite"),
        ({"A": ONE[None], "precision": "longdouble"}, "'longdouble' serves diagonal A only"),
        ({"P": ONE[None], "precision": "longdouble"}, "'longdouble' serves diagonal A only"),
        ({"A": ONE[None], "P": ONE[None]}, "A is a full matrix and P is given"),
    ],
)
def test_wrong_arguments_are_refused(changes: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"A": -ONE, "B": ONE, "dt": [0.5], "method": "bilinear"}
    with pytest.raises(ValueError, match=message):
        discretize(**{**arguments, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"u": np.ones((1, 2, 3))}, r"u has shape \(1, 2, 3\)"),
        ({"u": np.ones((1, 1, 3)) * 1j}, "dtype complex128"),
        ({"C": np.ones((1, 2))}, r"C \(1, 2\)"),
        ({"precision": "exact"}, "exponentials are not rational"),
        ({"u": np.full((1, 1, 3), np.nan)}, "NaN or infinite"),
    ],
)
def test_integrators_refuse_wrong_arguments(changes: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"A": -ONE, "B": ONE, "C": ONE, "dt": [0.5], "u": np.ones((1, 1, 3))}
    with pytest.raises(ValueError, match=message):
        held_input_solution(**{**arguments, **changes})


def test_a_singular_bilinear_step_is_an_error() -> None:
    for A in (4 * ONE, 4 * ONE[None]):
        with pytest.raises(ZeroDivisionError):
            discretize(A, ONE, [0.5], "bilinear")


@pytest.mark.parametrize("solve", [adams_bashforth, bilinear_exact, held_input_solution])
def test_float64_is_the_same_recurrence_in_less_precision(solve):
    rng = np.random.default_rng(0)
    Lambda = -0.5 + 1j * rng.uniform(0, 3, (2, 3))
    B, C = rng.normal(size=(2, 2, 3)) + 0j
    u, dt = rng.normal(size=(1, 2, 50)), np.array([0.01, 0.02])
    wide, narrow = (solve(Lambda, B, C, dt, u, precision=p) for p in ("longdouble", "float64"))
    assert narrow.dtype == np.float64
    # 50 contracting steps of below 40 roundings each, read out over 3 modes
    assert np.abs(wide - narrow).max() <= 50 * 40 * 3 * 2.0**-53 * np.abs(wide).max() * 10
    assert np.abs(wide - narrow).max() > 0
