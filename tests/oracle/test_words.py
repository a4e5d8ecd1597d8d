"""Eq. 12 by words, and the recurrences of tier T0 against it: exact equality throughout."""

from __future__ import annotations

from fractions import Fraction
from math import comb
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from liquid_ssm.oracle.exact import outputs
from liquid_ssm.oracle.realization import Realization
from liquid_ssm.oracle.words import outputs_by_words

STRUCTURES = ("diagonal", "dplr", "dense", "mimo")
eighths = st.integers(-12, 12).map(lambda i: i / 8)


@st.composite
def realizations(draw: Any, structure: str) -> Realization:
    H, M = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    pairs = structure != "dense" and draw(st.booleans())

    def numbers(*shape: int) -> Any:
        re, im = (draw(hnp.arrays(np.float64, shape, elements=eighths)) for _ in range(2))
        return re + 1j * im

    if structure == "mimo":
        return Realization("mimo", numbers(M), numbers(M, H), numbers(H, M), conjugate_pairs=pairs)
    A = numbers(H, M, M) if structure == "dense" else numbers(H, M)
    low_rank = [numbers(1, H, M), numbers(1, H, M)] if structure == "dplr" else [None, None]
    return Realization(structure, A, numbers(H, M), numbers(H, M), *low_rank, conjugate_pairs=pairs)


@pytest.mark.parametrize("structure", STRUCTURES)
@given(data=st.data())
def test_recurrences_are_sums_over_words(structure: str, data: st.DataObject) -> None:
    r = data.draw(realizations(structure))
    length = data.draw(st.integers(0, 5 if r.n_modes == 1 else 4))
    u = data.draw(hnp.arrays(np.float64, (1, r.n_channels, length), elements=eighths))
    order = data.draw(st.sampled_from([None, 1, 2, 3, 4]))
    if order is None:
        assert (outputs_by_words(r, u) == outputs(r, u, "liquid")).all()
    else:
        assert (outputs_by_words(r, u, order) == outputs(r, u, "truncated", order=order)).all()


def rotation(C: list[float]) -> Realization:
    # Ā = [[0, -1], [1, 0]] and diag(B̄) = diag(1, 2) do not commute.
    A, B = np.array([[[0.0, -1.0], [1.0, 0.0]]]), np.array([[1.0, 2.0]])
    return Realization("dense", A, B, np.array([C]), conjugate_pairs=False)


def test_the_order_of_the_letters_counts() -> None:
    # u_0 = u_2 = 1, u_1 = 0. The paper writes the u_0 u_2 term C Ā B̄²; Eq. 11 gives C diag(B̄) Ā B̄:
    # Ā B̄ = (-2, 1), diag(B̄) Ā B̄ = (-2, 2), while Ā B̄^{∘2} = (-4, 1).
    u = np.array([[[1.0, 0.0, 1.0]]])
    for C, expected in (([1.0, 0.0], -2), ([0.0, 1.0], 2)):
        second = outputs_by_words(rotation(C), u, 2) - outputs_by_words(rotation(C), u, 1)
        assert second[0, 0].tolist() == [0, 0, expected]


def test_words_are_counted_right() -> None:
    # With Ā = B̄ = C = u = 1 every word contributes 1: Σ_{n≤k} Σ_{j<p} binomial(n, j), and Σ 2^n for all orders.
    one = np.ones((1, 1))
    r, u = Realization("diagonal", one, one, one, conjugate_pairs=False), np.ones((1, 1, 6))
    for order in (1, 2, 3):
        counts = [sum(comb(n, j) for n in range(k + 1) for j in range(order)) for k in range(6)]
        assert outputs_by_words(r, u, order)[0, 0].tolist() == counts
    assert outputs_by_words(r, u)[0, 0].tolist() == [2 ** (k + 1) - 1 for k in range(6)]


@pytest.mark.parametrize("shape", [(0, 1, 3), (1, 1, 0)])
def test_shapes_with_nothing_in_them(shape: tuple[int, ...]) -> None:
    assert outputs_by_words(rotation([1.0, 1.0]), np.ones(shape)).shape == shape


def test_results_are_fractions() -> None:
    y = outputs_by_words(rotation([0.1, 0.7]), np.full((1, 1, 3), 0.3))
    assert all(isinstance(value, Fraction) for value in y.flat)


def test_an_order_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="order is 0; the lowest order is 1, or None"):
        outputs_by_words(rotation([1.0, 1.0]), np.ones((1, 1, 2)), 0)
