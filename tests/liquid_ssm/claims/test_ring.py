from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from liquid_ssm.claims import ring
from liquid_ssm.claims.samples import rationals

N = 3


@pytest.fixture
def matrices() -> tuple[Any, Any]:
    draw = rationals(2 * N * N, seed=11)
    return tuple([draw[k + i * N : k + (i + 1) * N] for i in range(N)] for k in (0, N * N))  # type: ignore[return-value]


def test_products_are_those_of_numpy(matrices: tuple[Any, Any]) -> None:
    A, B = (np.array(m, object) for m in matrices)
    x = rationals(N, seed=12)
    assert ring.multiply(*matrices) == (A @ B).tolist()
    assert ring.apply(matrices[0], x) == (A @ np.array(x, object)).tolist()
    assert ring.repeat(matrices[0], x, 2) == (A @ A @ np.array(x, object)).tolist()
    assert ring.repeat(matrices[0], x, 0) == x
    assert ring.combine(*matrices, Fraction(2, 3)) == (A + Fraction(2, 3) * B).tolist()
    assert ring.transpose(matrices[0]) == A.T.tolist()
    assert ring.flat(matrices[0]) == A.ravel().tolist()
    assert ring.multiply(ring.identity(N), matrices[0]) == A.tolist()
    assert ring.apply(ring.diagonal(x), x) == ring.hadamard(x, x) == ring.power(x, 2)


def test_sums_need_no_zero() -> None:
    assert ring.total([]) == 0
    assert ring.total(["a", "b"]) == "ab"
    assert ring.add([1, 2], [3, 4], [5, 6]) == [9, 12]
    assert ring.difference([3, 4], [1, 1]) == [2, 3]
    assert ring.scale(3, [1, 2]) == [3, 6]
    assert ring.power([2, 3], 0) == [1, 1]


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match=r"shorter|longer"):
        ring.dot([1, 2], [1])


def test_all_zero() -> None:
    assert ring.all_zero([0, Fraction(0), 0.0])
    assert not ring.all_zero([0, Fraction(1, 10**20)])
