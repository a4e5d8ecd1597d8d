from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from liquid_ssm.claims import ring
from liquid_ssm.claims.counting import Tally


def test_products_of_matrices_are_counted() -> None:
    tally = Tally()
    A, B = ([tally.numbers([Fraction(1, 2)] * 3) for _ in range(3)] for _ in range(2))
    ring.multiply(A, B)
    assert (tally.multiplications, tally.additions) == (27, 18)
    ring.hadamard(A[0], B[0])
    assert tally.multiplications == 30


def test_known_results_are_free() -> None:
    tally = Tally()
    (x,) = tally.numbers([Fraction(3)])
    assert 0 + x == x
    assert x * 1 == 1 * x == x
    assert x * 0 == 0 * x == 0
    assert -x == -3
    assert (tally.multiplications, tally.additions) == (0, 0)
    assert 2 * x == 6
    assert x - 1 == 2
    assert 1 - x == -2
    assert (tally.multiplications, tally.additions) == (1, 2)


@given(st.lists(st.fractions(), min_size=1, max_size=6))
def test_values_are_those_of_plain_numbers(values: list[Fraction]) -> None:
    numbers = Tally().numbers(values)
    assert ring.dot(numbers, numbers) == ring.dot(values, values)
    assert ring.total(numbers) == sum(values)
