"""Exact gradients: dual numbers against finite differences, adjoint recurrences against dual numbers."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from liquid_ssm.oracle.adjoint import gradients, gradients_by_duals
from liquid_ssm.oracle.adjoint_bounds import gradient_bounds
from liquid_ssm.oracle.exact import ComplexRational, exact_array, final_state, outputs, parts
from liquid_ssm.oracle.realization import Realization
from liquid_ssm.oracle.rounding import RoundingModel

STRUCTURES = ("diagonal", "dplr", "dense", "mimo")
RECURRENT = ("s4", "liquid", "truncated")
eighths = st.integers(-12, 12).map(lambda i: i / 8)


def reals(shape: tuple[int, ...]) -> Any:
    return hnp.arrays(np.float64, shape, elements=eighths)


def complexes(shape: tuple[int, ...]) -> Any:
    return st.tuples(reals(shape), reals(shape)).map(lambda z: z[0] + 1j * z[1])


@st.composite
def realizations(draw: Any, structures: tuple[str, ...] = STRUCTURES) -> Realization:
    structure = draw(st.sampled_from(structures))
    H, M = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    pairs = structure != "dense" and draw(st.booleans())
    numbers = draw(st.sampled_from([reals, complexes])) if not pairs else complexes
    if structure == "mimo":
        return Realization("mimo", *(draw(numbers(s)) for s in ((M,), (M, H), (H, M))), conjugate_pairs=pairs)
    A, B, C = (draw(numbers((H, M, M) if i == 0 and structure == "dense" else (H, M))) for i in range(3))
    P, Q = (draw(numbers((1, H, M))) if structure == "dplr" else None for _ in range(2))
    return Realization(structure, A, B, C, P, Q, conjugate_pairs=pairs)


@st.composite
def problems(draw: Any, structures: tuple[str, ...] = STRUCTURES) -> dict[str, Any]:
    """Everything that a gradient of a recurrent mode depends on."""
    r, mode = draw(realizations(structures)), draw(st.sampled_from(RECURRENT))
    batch, order = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    shape = (batch, r.n_channels, draw(st.integers(0, 3)))
    single = (batch, r.n_modes) if r.structure == "mimo" else (batch, *r.C.shape)
    state = (batch, order, *single[1:]) if mode == "truncated" else single
    return {
        "realization": r,
        "u": draw(reals(shape)),
        "mode": mode,
        "grad_y": draw(reals(shape)),
        "grad_state": draw(complexes(state)),
        "order": order,
        "state": draw(draw(st.sampled_from([reals, complexes]))(state)),
    }


def loss(p: dict[str, Any]) -> Fraction:
    y = outputs(p["realization"], p["u"], p["mode"], order=p["order"], state=p["state"])
    re, im = final_state(p["realization"], p["u"], p["mode"], order=p["order"], state=p["state"])
    g_re, g_im = parts(exact_array(p["grad_state"]))
    return Fraction((exact_array(p["grad_y"]) * y).sum() + (g_re * re).sum() + (g_im * im).sum())


def derivative_at_zero(values: list[Fraction]) -> Fraction:
    """f'(0) of a polynomial of degree at most len(values) - 1 from f(0), f(1), …: Newton's forward differences."""
    derivative, row = Fraction(0), values
    for n in range(1, len(values)):
        row = [b - a for a, b in pairwise(row)]
        # d/dx binomial(x, n) at 0 is (-1)^{n-1}/n.
        derivative += Fraction((-1) ** (n - 1), n) * row[0]
    return derivative


def test_differences_of_a_polynomial_give_its_derivative() -> None:
    assert derivative_at_zero([Fraction(5 + 3 * x - 2 * x**2 + x**4) for x in range(5)]) == 3


@given(problems(), st.data())
def test_duals_are_the_derivative_along_any_direction(p: dict[str, Any], data: st.DataObject) -> None:
    # Along a direction of one array the loss is a polynomial of degree at most L + 1: that array enters each step of
    # a state once. Its L + 4 exact values give the exact derivative.
    g = gradients_by_duals(**p)
    name = data.draw(st.sampled_from(sorted(g)))
    r = p["realization"]
    array = p[name] if name in p else getattr(r, name)
    complex_ = array.dtype.kind == "c"
    direction = data.draw(complexes(array.shape) if complex_ else reals(array.shape))

    def at(t: int) -> Fraction:
        moved = {name: array + t * direction}
        changed = p | moved if name in p else p | {"realization": replace(r, **moved)}
        return loss(changed)

    slope = derivative_at_zero([at(t) for t in range(p["u"].shape[2] + 4)])
    g_parts, d_parts = parts(g[name]), parts(exact_array(direction))
    assert slope == sum((a * b).sum() for a, b in zip(g_parts, d_parts, strict=True))


@given(problems())
def test_adjoint_recurrences_are_the_duals(p: dict[str, Any]) -> None:
    by_recurrence, by_duals = gradients(**p), gradients_by_duals(**p)
    assert set(by_recurrence) == set(by_duals)
    for name, expected in by_duals.items():
        assert by_recurrence[name].shape == expected.shape, name
        assert (by_recurrence[name] == expected).all(), name


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("mode", RECURRENT)
@pytest.mark.parametrize("conjugate_pairs", [True, False])
def test_every_structure_and_mode_once(structure: str, mode: str, conjugate_pairs: bool) -> None:
    # Full arrays of complex numbers, which random draws of a few cases may miss.
    rng = np.random.default_rng(3)
    H, M, L = 2, 2, 3

    def numbers(*shape: int) -> Any:
        return rng.integers(1, 9, (*shape, 2)) / 8 @ np.array([1, -1j])

    A = {"mimo": (M,), "dense": (H, M, M)}.get(structure, (H, M))
    B = (M, H) if structure == "mimo" else (H, M)
    low_rank = (numbers(2, H, M), numbers(2, H, M)) if structure == "dplr" else (None, None)
    pairs = conjugate_pairs and structure != "dense"
    r = Realization(structure, numbers(*A), numbers(*B), numbers(H, M), *low_rank, pairs)
    u, grad_y = rng.integers(1, 9, (2, 1, H, L)) / 8
    single = (1, M) if structure == "mimo" else (1, H, M)
    state = (1, 2, *single[1:]) if mode == "truncated" else single
    arguments, x0 = (r, u, mode, grad_y, numbers(*state)), numbers(*single)
    by_recurrence, by_duals = (f(*arguments, order=2, state=x0) for f in (gradients, gradients_by_duals))
    first = by_recurrence["state"][:, 0] if mode == "truncated" else by_recurrence["state"]
    assert set(by_recurrence) == set(by_duals)
    for name, expected in by_duals.items():
        assert ((first if name == "state" else by_recurrence[name]) == expected).all(), name


@given(problems())
def test_without_cotangent_or_state_they_are_zero(p: dict[str, Any]) -> None:
    zero = p | {"grad_state": 0 * p["grad_state"], "state": 0j * p["state"]}
    none = p | {"grad_state": None, "state": None}
    with_zero, with_none = gradients(**zero), gradients(**none)
    for name, expected in with_zero.items():
        assert (with_none[name] == expected).all(), name
    for name, expected in gradients_by_duals(**none).items():
        assert (with_none[name] == expected).all(), name


@given(problems())
def test_a_real_array_has_a_real_gradient(p: dict[str, Any]) -> None:
    for function in (gradients, gradients_by_duals):
        for name, gradient in function(**p).items():
            array = p[name] if name in p else getattr(p["realization"], name)
            kind = ComplexRational if array.dtype.kind == "c" else Fraction
            assert all(isinstance(value, kind) for value in gradient.flat), name


@given(realizations(("diagonal", "dplr", "dense")), st.data())
def test_correlation_modes_by_differences(r: Realization, data: st.DataObject) -> None:
    # kb and pb are linear in C, so the gradient with respect to C is the loss of unit vectors; u has degree 3.
    shape = (1, r.n_channels, data.draw(st.integers(0, 3)))
    u, grad_y, du = (data.draw(reals(shape)) for _ in range(3))
    mode, correlations = data.draw(st.sampled_from(["kb", "pb"])), data.draw(st.sampled_from(["all", "adjacent"]))
    options: Any = {"correlations": correlations, "window": data.draw(st.sampled_from([None, 3]))}

    def at(realization: Realization, signal: Any) -> Fraction:
        return Fraction((exact_array(grad_y) * outputs(realization, signal, mode, **options)).sum())

    g = gradients_by_duals(r, u, mode, grad_y, **options)
    assert derivative_at_zero([at(r, u + t * du) for t in range(4)]) == (g["u"] * exact_array(du)).sum()
    for i in np.ndindex(r.C.shape):
        unit = np.zeros_like(r.C)
        unit[i] = 1
        assert parts(g["C"])[0][i] == at(replace(r, C=unit), u)
    for name in ("A", "B"):
        array = getattr(r, name)
        direction = data.draw((complexes if array.dtype.kind == "c" else reals)(array.shape))
        # Degree at most 3 in either: B̄^{∘3}, and Ā² where there are three inputs at the most.
        slope = derivative_at_zero([at(replace(r, **{name: array + t * direction}), u) for t in range(4)])
        d_parts = parts(exact_array(direction))
        assert slope == sum((x * y).sum() for x, y in zip(parts(g[name]), d_parts, strict=True))


def test_kb_has_the_gradient_of_truncated_where_they_agree() -> None:
    # Equal functions of every parameter of a diagonal system, so their gradients are equal as well.
    rng = np.random.default_rng(0)
    r = Realization("diagonal", *(rng.integers(-8, 9, (3, 1, 2, 2)) / 8 @ [1, 1j]))
    u, grad_y = rng.integers(-8, 9, (2, 2, 1, 5)) / 8
    kb, truncated = (gradients_by_duals(r, u, mode, grad_y) for mode in ("kb", "truncated"))
    assert set(kb) == set(truncated) == {"u", "A", "B", "C"}
    for name in kb:
        assert (kb[name] == truncated[name]).all(), name


def test_one_mode_by_hand() -> None:
    # y_0 = 2 Re(C B u) with C = 1 + 2j, B = 3 - 1j, u = 2, cotangent 5: dL/dC = 10·conj(B u), dL/du = 10 Re(C B).
    one = np.ones((1, 1))
    r = Realization("diagonal", one * 0.5j, one * (3 - 1j), one * (1 + 2j))
    g = gradients(r, np.full((1, 1, 1), 2.0), "liquid", np.full((1, 1, 1), 5.0))
    assert g["C"][0, 0] == ComplexRational(60, 20)
    assert g["B"][0, 0] == ComplexRational(20, -40)
    assert g["u"][0, 0, 0] == 50
    assert g["A"][0, 0] == 0
    # x_{-1} enters y_0 through a + b u = 6 - 1.5j: dL/dx = 10 conj(C (6 - 1.5j)).
    assert g["state"][0, 0, 0] == ComplexRational(90, Fraction(-105))


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("mode", RECURRENT)
def test_longdouble_stays_within_its_rounding(structure: str, mode: str) -> None:
    # In any order of evaluation: the code sums from left to right and takes liquid steps as Ā x + v(1 + x).
    rng = np.random.default_rng(1)
    H, M, L = 2, 2, 12

    def numbers(*shape: int) -> Any:
        return rng.standard_normal((*shape, 2)) / 4 @ np.array([1, 1j])

    A = {"mimo": (M,), "dense": (H, M, M)}.get(structure, (H, M))
    B = (M, H) if structure == "mimo" else (H, M)
    low_rank = (numbers(1, H, M), numbers(1, H, M)) if structure == "dplr" else (None, None)
    r = Realization(structure, numbers(*A), numbers(*B), numbers(H, M), *low_rank, structure != "dense")
    u, grad_y = rng.standard_normal((2, 2, H, L))
    model = RoundingModel.of_dtype(np.longdouble, scan="any")
    bounds = gradient_bounds(r, u, mode=mode, grad_y=grad_y, model=model)
    exact = gradients(r, u, mode, grad_y)
    rounded = gradients(r, u, mode, grad_y, precision="longdouble")
    for name, expected in exact.items():
        assert rounded[name].dtype == (np.longdouble if name == "u" else np.clongdouble)
        for part in parts(exact_array(rounded[name]) - expected):
            assert (abs(part) <= exact_array(bounds[name])).all(), name


@pytest.mark.parametrize("precision", ["exact", "longdouble"])
@pytest.mark.parametrize("shape", [(0, 1, 2), (1, 1, 0), (0, 1, 0)])
def test_shapes_with_nothing_in_them(precision: Any, shape: tuple[int, ...]) -> None:
    r = Realization("diagonal", *np.full((3, 1, 2), 0.5 + 0.25j))
    for mode in RECURRENT:
        g = gradients(r, np.ones(shape), mode, np.ones(shape), precision=precision)
        assert g["u"].shape == shape
        assert g["A"].shape == g["B"].shape == g["C"].shape == (1, 2)
        assert all((g[name] == 0).all() for name in "ABC")
        assert g["state"].shape == ((shape[0], 3, 1, 2) if mode == "truncated" else (shape[0], 1, 2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "kb"}, "mode is 'kb'; allowed: s4, liquid, truncated. Try gradients_by_duals"),
        ({"order": 0}, "order is 0; the lowest order is 1"),
        ({"precision": "double"}, "precision is 'double'; allowed: 'exact', 'longdouble'"),
        ({"grad_y": np.ones((1, 1, 4))}, r"u has shape \(1, 1, 3\), grad_y \(1, 1, 4\)"),
        ({"grad_state": np.ones((1, 2))}, r"grad_state has shape \(1, 2\); it must be \(1, 1, 2\)"),
        ({"state": np.ones((1, 1, 1, 2))}, r"state has shape \(1, 1, 1, 2\)"),
        ({"u": np.full((1, 1, 3), np.inf)}, "u is inf at index"),
        ({"u": np.full((1, 1, 3), np.inf), "precision": "longdouble"}, "u has NaN or infinite elements"),
    ],
)
def test_wrong_arguments_are_refused(changes: dict[str, Any], message: str) -> None:
    r = Realization("diagonal", *np.full((3, 1, 2), 0.5 + 0.25j))
    arguments: dict[str, Any] = {"u": np.ones((1, 1, 3)), "mode": "liquid", "grad_y": np.ones((1, 1, 3))}
    with pytest.raises(ValueError, match=message):
        gradients(r, **{**arguments, **changes})


def test_duals_refuse_a_cotangent_that_does_not_fit() -> None:
    r = Realization("diagonal", *np.full((3, 1, 2), 0.5 + 0.25j))
    with pytest.raises(ValueError, match=r"grad_y has shape \(1, 1, 2\); it must be \(1, 1, 3\)"):
        gradients_by_duals(r, np.ones((1, 1, 3)), "liquid", np.ones((1, 1, 2)))
