"""Tier T0. Every comparison is exact equality of rationals; there is no tolerance in this file."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from liquid_ssm.oracle.exact import (
    ComplexRational,
    exact_array,
    final_state,
    full_system,
    kernel,
    outputs,
    parts,
)
from liquid_ssm.oracle.realization import Realization

RECURRENT = ("s4", "liquid", "truncated")
eighths = st.integers(-12, 12).map(lambda i: i / 8)


def reals(shape: tuple[int, ...]) -> Any:
    return hnp.arrays(np.float64, shape, elements=eighths)


def complexes(shape: tuple[int, ...]) -> Any:
    return st.tuples(reals(shape), reals(shape)).map(lambda z: z[0] + 1j * z[1])


@st.composite
def realizations(draw: Any, structures: tuple[str, ...] = ("diagonal", "dplr", "dense", "mimo")) -> Realization:
    structure = draw(st.sampled_from(structures))
    H, M = draw(st.integers(1, 2)), draw(st.integers(1, 3 if structure == "diagonal" else 2))
    pairs = structure != "dense" and draw(st.booleans())
    numbers = draw(st.sampled_from([reals, complexes])) if not pairs else complexes
    if structure == "mimo":
        return Realization("mimo", *(draw(numbers(s)) for s in ((M,), (M, H), (H, M))), conjugate_pairs=pairs)
    A, B, C = (draw(numbers((H, M, M) if i == 0 and structure == "dense" else (H, M))) for i in range(3))
    P, Q = (draw(numbers((1, H, M))) if structure == "dplr" else None for _ in range(2))
    return Realization(structure, A, B, C, P, Q, conjugate_pairs=pairs)


@st.composite
def signals(draw: Any, r: Realization, max_length: int = 5) -> Any:
    return draw(reals((draw(st.integers(1, 2)), r.n_channels, draw(st.integers(0, max_length)))))


def state_shape(r: Realization, batch: int) -> tuple[int, ...]:
    return (batch, r.n_modes) if r.structure == "mimo" else (batch, *r.C.shape)


def joined(pair: tuple[Any, Any]) -> Any:
    """An array of exact complex numbers from the two parts that final_state returns."""
    array = np.empty(pair[0].shape, dtype=object)
    for i in np.ndindex(array.shape):
        array[i] = ComplexRational(pair[0][i], pair[1][i])
    return array


def one_channel(A: float, B: float, C: float) -> Realization:
    return Realization("diagonal", *(np.array([[v]]) for v in (A, B, C)), conjugate_pairs=False)


def fraction(value: float) -> Fraction:
    return Fraction(value)


# Two rotated modes; Ā and diag(B̄) do not commute.
DENSE = Realization(
    "dense",
    np.array([[[0.5, 0.25], [-0.5, 0.75]]]),
    np.array([[1.0, -0.5]]),
    np.array([[0.75, 1.25]]),
    conjugate_pairs=False,
)
SIGNAL = np.array([[[1.0, -0.5, 0.75, 1.5, -1.25]]])


# Numbers


@given(hnp.arrays(np.float64, 3, elements=st.floats(allow_nan=False, allow_infinity=False)))
def test_floats_become_the_rationals_they_are(values: Any) -> None:
    assert list(exact_array(values)) == [Fraction(v) for v in values.tolist()]
    assert [float(v) for v in exact_array(values)] == values.tolist()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble, np.complex64, np.complex128, np.clongdouble])
def test_every_dtype_keeps_its_value(dtype: Any) -> None:
    third = (np.ones(1, dtype) / 3).astype(dtype)
    z = exact_array(third)[0]
    is_complex = np.dtype(dtype).kind == "c"
    assert isinstance(z, ComplexRational if is_complex else Fraction)
    real = z.real if is_complex else z
    assert real == Fraction(*third.real[0].as_integer_ratio())
    assert real != Fraction(1, 3)


def test_integers_and_exact_objects_pass() -> None:
    third = Fraction(1, 3)
    assert list(exact_array(np.array([2, -3]))) == [2, -3]
    assert exact_array(np.array([third], dtype=object))[0] is third


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1j * np.inf])
def test_what_is_not_finite_is_refused_with_its_place(bad: Any) -> None:
    with pytest.raises(ValueError, match=r"u is .* at index \(1,\); only finite"):
        exact_array(np.array([0, bad]), "u")


@given(st.tuples(*[eighths] * 4))
def test_complex_rationals_agree_with_python_complex(v: tuple[float, ...]) -> None:
    # Products of multiples of 1/8 up to 12/8 have few bits, so Python's complex is exact here; division is checked
    # by multiplying back.
    z, w = complex(v[0], v[1]), complex(v[2], v[3])
    a, b = exact_array(np.array([z, w]))
    for result, expected in (
        (a + b, z + w),
        (a - b, z - w),
        (a * b, z * w),
        (-a, -z),
        (a.conjugate(), z.conjugate()),
        (2 - a, 2 - z),
        (a - 2, z - 2),
        (2 * a + 1, 2 * z + 1),
    ):
        assert result == exact_array(np.array([expected]))[0]
    if b != 0:
        assert a / b * b == a
        assert 1 / b * b == 1
    assert a / Fraction(3) * 3 == a
    array = np.array([a, b], dtype=object)
    assert (a * array).tolist() == (array * a).tolist() == [a * a, a * b]
    assert (a + array).tolist() == [a + a, a + b]
    assert (a - array).tolist() == [0, a - b]
    assert (a == a.real) is (z.imag == 0)


# Shapes and kinds of results


@pytest.mark.parametrize("mode", [*RECURRENT, "kb", "pb"])
@pytest.mark.parametrize("shape", [(0, 1, 3), (2, 1, 0), (2, 1, 3)])
def test_shapes_with_nothing_in_them(mode: str, shape: tuple[int, ...]) -> None:
    y = outputs(DENSE, np.ones(shape), mode)
    assert y.shape == shape
    assert y.dtype == object
    assert all(isinstance(value, Fraction) for value in y.flat)


@given(st.data())
def test_results_are_fractions_in_every_structure(data: st.DataObject) -> None:
    r = data.draw(realizations())
    u = data.draw(signals(r))
    mode = data.draw(st.sampled_from(RECURRENT if r.structure == "mimo" else (*RECURRENT, "kb", "pb")))
    assert all(isinstance(value, Fraction) for value in outputs(r, u, mode).flat)
    if mode in RECURRENT:
        re, im = final_state(r, u, mode, order=2)
        shape = state_shape(r, len(u))
        assert re.shape == im.shape == ((len(u), 2, *shape[1:]) if mode == "truncated" else shape)
        assert all(isinstance(value, Fraction) for value in (*re.flat, *im.flat))


# Closed forms


@given(st.data())
def test_zero_input_from_rest_gives_zero(data: st.DataObject) -> None:
    r = data.draw(realizations(("diagonal", "dplr", "dense")))
    for mode in (*RECURRENT, "kb", "pb"):
        assert (outputs(r, np.zeros((1, r.n_channels, 3)), mode) == 0).all()


@given(st.data())
def test_zero_input_from_a_state_gives_the_free_response(data: st.DataObject) -> None:
    r = data.draw(realizations(("diagonal", "dplr", "dense")))
    x0 = data.draw(complexes((1, *r.C.shape)))
    A, _, C = full_system(r)
    x = exact_array(np.concatenate([x0, x0.conj()], axis=-1) if r.conjugate_pairs else x0)
    expected = np.empty((1, r.n_channels, 3), dtype=object)
    for k in range(3):
        x = np.stack([np.stack([A[h] @ x[0, h] for h in range(r.n_channels)])])
        expected[:, :, k] = parts((C * x).sum(-1))[0]
    for mode in RECURRENT:
        assert (outputs(r, np.zeros((1, r.n_channels, 3)), mode, state=x0) == expected).all()


@given(eighths, eighths, eighths, eighths, st.integers(0, 6))
def test_one_real_mode_under_constant_input(a: float, b: float, c: float, v: float, length: int) -> None:
    r, u = one_channel(a, b, c), np.full((1, 1, length), v)
    a_, b_, c_, v_ = map(fraction, (a, b, c, v))

    def geometric(q: Fraction, n: int) -> Fraction:
        return Fraction(n) if q == 1 else (1 - q**n) / (1 - q)

    s4 = [c_ * b_ * v_ * geometric(a_, k + 1) for k in range(length)]
    liquid = [c_ * b_ * v_ * geometric(a_ + b_ * v_, k + 1) for k in range(length)]
    assert outputs(r, u, "s4")[0, 0].tolist() == s4
    assert outputs(r, u, "liquid")[0, 0].tolist() == liquid


@given(eighths, eighths, eighths, reals((1, 1, 5)))
def test_without_transition_only_a_chain_of_inputs_remains(a: float, b: float, c: float, u: Any) -> None:
    # Ā = 0: x_k = b u_k (1 + x_{k-1}), so order p of y_k is c b^p u_k u_{k-1} … u_{k-p+1}.
    r = one_channel(0.0, b, c)
    v = [fraction(x) for x in u[0, 0]]
    b_, c_ = fraction(b), fraction(c)

    def chains(k: int, order: int) -> Fraction:
        total, term = Fraction(0), Fraction(1)
        for p in range(min(order, k + 1)):
            term *= b_ * v[k - p]
            total += term
        return c_ * total

    assert outputs(r, u, "liquid")[0, 0].tolist() == [chains(k, 5) for k in range(5)]
    assert outputs(r, u, "truncated", order=2)[0, 0].tolist() == [chains(k, 2) for k in range(5)]


@given(st.data())
def test_impulse_response_is_the_kernel(data: st.DataObject) -> None:
    r = data.draw(realizations(("diagonal", "dplr", "dense")))
    u = np.zeros((1, r.n_channels, 5))
    u[:, :, 0] = 1
    K = kernel(r, 5)
    for mode in (*RECURRENT, "kb", "pb"):
        # One non-zero input makes no correlation; in `liquid` B̄ u_k vanishes after step 0.
        assert (outputs(r, u, mode)[0] == K).all()


@given(st.data())
def test_kernel_powers(data: st.DataObject) -> None:
    r = data.draw(realizations(("diagonal", "dplr", "dense")))
    A, B, C = full_system(r)
    power = data.draw(st.integers(1, 3))
    K = kernel(r, 4, power)
    for h, i in np.ndindex(K.shape):
        state = B[h] if power == 1 else B[h] * B[h] if power == 2 else B[h] * B[h] * B[h]
        for _ in range(i):
            state = A[h] @ state
        assert K[h, i] == parts(np.array([(C[h] * state).sum()]))[0][0]


def test_small_modes_by_hand() -> None:
    # One mode, a = 1/2, b = 1/4, c = 1, and u = 1, 2, 3, written out from Eq. 11 to 15.
    r, u = one_channel(0.5, 0.25, 1.0), np.array([[[1.0, 2.0, 3.0]]])
    a, b = Fraction(1, 2), Fraction(1, 4)
    first = [b, a * b + 2 * b, a * a * b + 2 * a * b + 3 * b]
    assert outputs(r, u, "s4")[0, 0].tolist() == first
    pairs = [Fraction(0), 2 * b**2, a * b**2 * (2 + 3) + 6 * b**2]
    assert outputs(r, u, "kb", order=2)[0, 0].tolist() == [x + y for x, y in zip(first, pairs, strict=True)]
    assert outputs(r, u, "kb", order=3)[0, 0, 2] == first[2] + pairs[2] + 6 * b**3
    assert outputs(r, u, "liquid")[0, 0, 2] == first[2] + pairs[2] + 6 * b**3
    assert outputs(r, u, "kb", order=2, correlations="adjacent")[0, 0, 2] == first[2] + 2 * a * b**2 + 6 * b**2
    assert outputs(r, u, "pb", order=2)[0, 0, 2] == first[2] + (2 + 3 + 6) * b**2
    assert outputs(r, u, "pb", order=2, correlations="adjacent")[0, 0, 2] == first[2] + (2 + 6) * b**2
    assert outputs(r, u, "pb", order=2, window=2)[0, 0, 2] == first[2] + 6 * b**2
    assert outputs(r, u, "kb", order=2, window=2)[0, 0, 2] == first[2] + 6 * b**2


# The low-rank part and conjugate pairs


@given(st.data())
def test_conjugate_pairs_are_the_full_system(data: st.DataObject) -> None:
    r = data.draw(realizations().filter(lambda r: r.conjugate_pairs))
    u = data.draw(signals(r))
    x0 = data.draw(complexes(state_shape(r, len(u))))

    def both(v: Any, axis: int = -1) -> Any:
        return None if v is None else np.concatenate([v, v.conj()], axis=axis)

    full = Realization(
        r.structure,
        both(r.A),
        both(r.B, 0 if r.structure == "mimo" else -1),
        both(r.C),
        both(r.P),
        both(r.Q),
        conjugate_pairs=False,
    )
    mode = data.draw(st.sampled_from(RECURRENT))
    assert (outputs(r, u, mode, state=x0) == outputs(full, u, mode, state=both(x0))).all()
    for half, whole in zip(final_state(r, u, mode), final_state(full, u, mode), strict=True):
        assert (half == whole[..., : r.n_modes]).all()
    if r.structure != "mimo":
        mode = data.draw(st.sampled_from((*RECURRENT, "kb", "pb")))
        y = outputs(r, u, mode)
        assert (y == outputs(full, u, mode)).all()
        A, B, C = full_system(r)
        assert (y == outputs(Realization("dense", A, B, C, conjugate_pairs=False), u, mode)).all()


def test_low_rank_part_couples_both_halves() -> None:
    # One stored mode: Ā x = λ x - p·2 Re(conj(q) x), so Ā B̄ = 0.5j(1+2j) - (1+1j)·2·Re((2-1j)(1+2j)).
    one = np.array([[1.0]])
    r = Realization("dplr", one * 0.5j, one * (1 + 2j), one * (1 - 1j), (one * (1 + 1j))[None], (one * (2 + 1j))[None])
    after = 0.5j * (1 + 2j) - (1 + 1j) * 2 * ((2 - 1j) * (1 + 2j)).real
    assert kernel(r, 2)[0].tolist() == [2 * ((1 - 1j) * (1 + 2j)).real, 2 * ((1 - 1j) * after).real]


@given(st.data())
def test_mimo_with_one_channel_is_diagonal(data: st.DataObject) -> None:
    r = data.draw(realizations(("mimo",)).filter(lambda r: r.n_channels == 1))
    u = data.draw(signals(r))
    diagonal = Realization("diagonal", r.A[None], r.B.T, r.C, conjugate_pairs=r.conjugate_pairs)
    for mode in RECURRENT:
        assert (outputs(r, u, mode) == outputs(diagonal, u, mode)).all()


def test_mimo_sums_the_channels_and_shares_the_state() -> None:
    r = Realization("mimo", np.array([0.5]), np.array([[0.25, -1.0]]), np.array([[2.0], [3.0]]), conjugate_pairs=False)
    u = np.array([[[1.0, 2.0], [0.5, 1.0]]])
    v = [Fraction(1, 4) - Fraction(1, 2), Fraction(1, 2) - 1]
    x = [v[0], (Fraction(1, 2) + v[1]) * v[0] + v[1]]
    assert outputs(r, u, "liquid")[0].tolist() == [[2 * x[0], 2 * x[1]], [3 * x[0], 3 * x[1]]]


# How the modes relate


@given(st.data())
def test_kb_is_truncated_where_the_letters_commute(data: st.DataObject) -> None:
    r = data.draw(realizations(("diagonal",)))
    u = data.draw(signals(r))
    for order in (1, 2, 3, 4):
        assert (outputs(r, u, "kb", order=order) == outputs(r, u, "truncated", order=order)).all()


def test_kb_is_not_truncated_for_a_dense_matrix() -> None:
    kb, truncated = (outputs(DENSE, SIGNAL, mode, order=2)[0, 0] for mode in ("kb", "truncated"))
    # Two inputs: the only correlation is u_0 u_1 without any Ā. From step 2 on a word has Ā and diag(B̄) u_j.
    assert (kb == truncated).tolist() == [True, True, False, False, False]


@given(st.data())
def test_orders_from_the_length_on_give_liquid(data: st.DataObject) -> None:
    r = data.draw(realizations())
    u = data.draw(signals(r, max_length=4))
    liquid = outputs(r, u, "liquid")
    for order in (max(1, u.shape[2]), u.shape[2] + 2):
        assert (outputs(r, u, "truncated", order=order) == liquid).all()


def test_lower_orders_differ_from_liquid() -> None:
    liquid = outputs(DENSE, SIGNAL, "liquid")[0, 0]
    for order in (1, 2, 3, 4):
        same = (outputs(DENSE, SIGNAL, "truncated", order=order)[0, 0] == liquid).tolist()
        assert same == [k < order for k in range(5)]


@given(st.data())
def test_first_order_is_s4_in_every_mode(data: st.DataObject) -> None:
    r = data.draw(realizations(("diagonal", "dplr", "dense")))
    u = data.draw(signals(r))
    s4 = outputs(r, u, "s4")
    for mode in ("truncated", "kb", "pb"):
        assert (outputs(r, u, mode, order=1) == s4).all()
    K = kernel(r, u.shape[2])
    for b, h, k in np.ndindex(u.shape):
        assert s4[b, h, k] == sum(K[h, k - i] * fraction(u[b, h, i]) for i in range(k + 1))


@given(st.data())
def test_order_p_is_homogeneous_of_degree_p(data: st.DataObject) -> None:
    r = data.draw(realizations(("diagonal", "dplr", "dense")))
    u = data.draw(signals(r))
    scale = data.draw(st.sampled_from([-1.0, 2.0, 0.5]))
    mode, p = data.draw(st.sampled_from(["truncated", "kb", "pb"])), data.draw(st.integers(2, 3))
    terms = [outputs(r, v, mode, order=p) - outputs(r, v, mode, order=p - 1) for v in (u, scale * u)]
    assert (terms[1] == fraction(scale) ** p * terms[0]).all()


@given(st.data())
def test_pb_with_unit_transition_is_kb(data: st.DataObject) -> None:
    # Eq. 15 is Eq. 14 with Ā = I in the correlations, and for Ā = I nothing is left to differ.
    H, M = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 2))
    B, C = data.draw(complexes((H, M))), data.draw(complexes((H, M)))
    r = Realization("diagonal", np.ones((H, M)), B, C)
    u = data.draw(signals(r))
    for correlations in ("all", "adjacent"):
        kb, pb = (outputs(r, u, mode, correlations=correlations) for mode in ("kb", "pb"))
        assert (kb == pb).all()


@given(reals((1, 1, 5)), st.sampled_from(["all", "adjacent"]), st.sampled_from([None, 3, 4]))
def test_pb_by_its_recurrences(u: Any, correlations: str, window: int | None) -> None:
    # With C B̄^{∘p} = 1 (one mode, b = c = 1, a = 0) the terms are e_p, or the running sum of adjacent products.
    r = one_channel(0.0, 1.0, 1.0)
    v = [fraction(x) for x in u[0, 0]]
    for k in range(5):
        seen = v[: k + 1] if window is None else v[max(0, k - window + 1) : k + 1]
        if correlations == "all":
            e = [Fraction(1)] + [Fraction(0)] * 3
            for x in seen:
                e = [e[0], *(e[p] + x * e[p - 1] for p in (1, 2, 3))]
            expected = v[k] + e[2] + e[3]
        else:
            pairs = [x * y for x, y in pairwise(seen)]
            triples = [x * y * z for x, y, z in zip(seen, seen[1:], seen[2:], strict=False)]
            expected = v[k] + sum(pairs) + sum(triples)
        assert outputs(r, u, "pb", correlations=correlations, window=window)[0, 0, k] == expected


@given(st.data())
def test_kb_by_its_cascades(data: st.DataObject) -> None:
    # v¹ = Ā v¹ + B̄^{∘p} u, vʲ = Ā vʲ + u vʲ⁻¹; adjacent: one convolution with (C Āᵐ B̄^{∘p})_m, delayed by p - 1.
    r = data.draw(realizations(("diagonal", "dplr", "dense")))
    u = data.draw(signals(r))
    A, B, C = full_system(r)
    batch, H, length = u.shape
    for p in (2, 3):
        terms = {
            c: outputs(r, u, "kb", order=p, correlations=c) - outputs(r, u, "kb", order=p - 1, correlations=c)
            for c in ("all", "adjacent")
        }
        K = kernel(r, length, p)
        for b, h in np.ndindex(batch, H):
            v = [fraction(x) for x in u[b, h]]
            start = B[h] * B[h] if p == 2 else B[h] * B[h] * B[h]
            chain = [0 * start] * p
            for k in range(length):
                lower = [start, *chain[:-1]]
                chain = [A[h] @ x + v[k] * y for x, y in zip(chain, lower, strict=True)]
                assert terms["all"][b, h, k] == parts(np.array([(C[h] * chain[-1]).sum()]))[0][0]
                products = [np.prod(np.array(v[i : i + p], dtype=object)) for i in range(k - p + 2)]
                delayed = sum(K[h, k - p + 1 - i] * q for i, q in enumerate(products))
                assert terms["adjacent"][b, h, k] == delayed


@given(st.data())
def test_a_window_of_the_whole_length_changes_nothing(data: st.DataObject) -> None:
    r = data.draw(realizations(("diagonal", "dplr", "dense")))
    u = data.draw(signals(r))
    mode, correlations = data.draw(st.sampled_from(["kb", "pb"])), data.draw(st.sampled_from(["all", "adjacent"]))
    y = outputs(r, u, mode, correlations=correlations)
    for window in (max(1, u.shape[2]), u.shape[2] + 3):
        assert (outputs(r, u, mode, correlations=correlations, window=window) == y).all()


@given(st.data())
def test_windowed_correlations_are_those_of_the_newest_inputs(data: st.DataObject) -> None:
    # Beyond the linear term, y_k with a window equals y_k of the newest `window` inputs alone, started at rest.
    r = data.draw(realizations(("diagonal", "dplr", "dense")))
    u = data.draw(signals(r))
    window = data.draw(st.integers(1, 4))
    linear = outputs(r, u, "s4")
    mode, correlations = data.draw(st.sampled_from(["kb", "pb"])), data.draw(st.sampled_from(["all", "adjacent"]))
    higher = outputs(r, u, mode, correlations=correlations, window=window) - linear
    for k in range(u.shape[2]):
        newest = u[:, :, max(0, k - window + 1) : k + 1]
        alone = outputs(r, newest, mode, correlations=correlations) - outputs(r, newest, "s4")
        assert (higher[:, :, k] == alone[:, :, -1]).all()


def test_a_short_window_matters() -> None:
    for mode, correlations in product(("kb", "pb"), ("all", "adjacent")):
        whole = outputs(DENSE, SIGNAL, mode, correlations=correlations)[0, 0]
        windowed = outputs(DENSE, SIGNAL, mode, correlations=correlations, window=3)[0, 0]
        assert (windowed == whole).tolist() == [True] * 3 + [False] * 2


# Prop. 1


@given(st.data())
def test_proposition_1_holds_before_the_sum_over_the_state(data: st.DataObject) -> None:
    r = data.draw(realizations(("diagonal", "dplr", "dense")))
    A, B, C = full_system(r)
    for h in range(r.n_channels):
        row = C[h]
        for i in range(4):
            unsummed, factor = row * B[h], 1 + 0 * B[h]
            for p in (1, 2, 3):
                by_definition = kernel(r, i + 1, p)[h, i]
                assert parts(np.array([(unsummed * factor).sum()]))[0][0] == by_definition
                factor = factor * B[h]
            row = row @ A[h]


def test_proposition_1_fails_after_the_sum() -> None:
    # B̄ = (1, -1/2): no single factor takes the summed kernel K_i to Σ_n k_{i,n} B̄_n for both i = 0 and i = 1.
    K, K2 = kernel(DENSE, 2, 1)[0], kernel(DENSE, 2, 2)[0]
    assert K2[0] * K[1] != K2[1] * K[0]


# States


@given(st.data())
def test_a_split_sequence_carries_its_state(data: st.DataObject) -> None:
    r = data.draw(realizations())
    u = data.draw(signals(r))
    cut = data.draw(st.integers(0, u.shape[2]))
    x0 = data.draw(complexes(state_shape(r, len(u))))
    mode = data.draw(st.sampled_from(RECURRENT))
    whole, ending = outputs(r, u, mode, state=x0), final_state(r, u, mode, state=x0)
    middle = joined(final_state(r, u[:, :, :cut], mode, state=x0))
    head, tail = outputs(r, u[:, :, :cut], mode, state=x0), outputs(r, u[:, :, cut:], mode, state=middle)
    assert (np.concatenate([head, tail], axis=2) == whole).all()
    for half, end in zip(final_state(r, u[:, :, cut:], mode, state=middle), ending, strict=True):
        assert (half == end).all()


def test_truncated_takes_a_single_state_as_its_first_order() -> None:
    x0 = np.array([[[1.0, -2.0]]])
    stacked = np.stack([x0, 0 * x0, 0 * x0], axis=1)
    single, whole = (outputs(DENSE, SIGNAL, "truncated", state=s) for s in (x0, stacked))
    assert (single == whole).all()
    in_second = np.stack([0 * x0, x0, 0 * x0], axis=1)
    assert not (outputs(DENSE, SIGNAL, "truncated", state=in_second) == single).all()


@given(st.data())
def test_no_output_depends_on_a_later_input(data: st.DataObject) -> None:
    r = data.draw(realizations(("diagonal", "dplr", "dense")))
    u = data.draw(signals(r))
    cut = data.draw(st.integers(0, u.shape[2]))
    mode = data.draw(st.sampled_from((*RECURRENT, "kb", "pb")))
    assert (outputs(r, u, mode)[:, :, :cut] == outputs(r, u[:, :, :cut], mode)).all()


# Refusals


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "exact"}, "mode is 'exact'; allowed here: s4, liquid, truncated, kb, pb"),
        ({"mode": "truncated", "order": 0}, "order is 0; the lowest order is 1"),
        ({"mode": "kb", "correlations": "some"}, "correlations is 'some'; allowed: all, adjacent"),
        ({"mode": "liquid", "window": 3}, "window is 3, but mode 'liquid' has none"),
        ({"mode": "pb", "window": 0}, "window is 0; it must be at least 1"),
        ({"mode": "kb", "state": np.zeros((1, 1, 2))}, "mode 'kb' is defined from rest"),
        ({"mode": "liquid", "state": np.zeros((1, 2))}, r"state has shape \(1, 2\); it must be \(1, 1, 2\)"),
        ({"mode": "liquid", "state": np.zeros((1, 1, 1, 2))}, r"state has shape \(1, 1, 1, 2\)"),
        ({"mode": "liquid", "u": np.zeros((1, 2, 3))}, r"u has shape \(1, 2, 3\)"),
        ({"mode": "liquid", "u": np.zeros((1, 1, 3)) * 1j}, "dtype complex128; it must be real"),
        ({"mode": "liquid", "u": np.array([[[0.0, np.nan]]])}, r"u is nan at index \(0, 0, 1\)"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        outputs(DENSE, **{"u": SIGNAL, **arguments})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"structure": "banded"}, "structure is 'banded'; allowed: diagonal, dplr, dense, mimo"),
        ({"structure": "diagonal"}, r"A has shape \(1, 2, 2\); structure 'diagonal' with C \(1, 2\) needs \(1, 2\)"),
        ({"B": np.ones((1, 1))}, r"B has shape \(1, 1\)"),
        ({"conjugate_pairs": True}, "a dense realization stores the full state"),
        ({"structure": "dplr", "A": np.ones((1, 2))}, r"P has shape \(\); .* needs \(0, 1, 2\)"),
    ],
)
def test_wrong_realizations_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        outputs(replace(DENSE, **changes), SIGNAL, "liquid")


def test_what_mimo_has_not_is_refused() -> None:
    r = Realization("mimo", np.ones(1), np.ones((1, 1)), np.ones((1, 1)))
    for mode in ("kb", "pb"):
        with pytest.raises(ValueError, match="not defined for mimo"):
            outputs(r, SIGNAL, mode)
    with pytest.raises(ValueError, match="H x H kernel"):
        kernel(r, 3)
    with pytest.raises(ValueError, match="no matrix per channel"):
        full_system(r)


def test_final_state_and_kernel_refuse_what_they_do_not_have() -> None:
    with pytest.raises(ValueError, match="allowed here: s4, liquid, truncated"):
        final_state(DENSE, SIGNAL, "kb")
    with pytest.raises(ValueError, match="power is 0"):
        kernel(DENSE, 3, 0)
