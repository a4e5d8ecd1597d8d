from __future__ import annotations

import numpy as np
import pytest

from liquid_ssm.claims.fast_series import PRIME, Array, FastSeries, direct_kernel, direct_low_rank_kernel


def draw(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(1, PRIME, size=shape)


@pytest.mark.parametrize("n", [1, 2, 8, 64])
def test_transforms_are_values_at_roots_of_unity(n: int) -> None:
    a = draw(n)
    root = pow(3, (PRIME - 1) // n, PRIME)
    values = [sum(int(c) * pow(root, i * j, PRIME) for i, c in enumerate(a)) % PRIME for j in range(n)]
    series = FastSeries()
    found = series.transform(a)
    assert found.tolist() == values
    assert series.multiplications == n // 2 * (n.bit_length() - 1)
    assert (series.transform(found, inverse=True) == a * n % PRIME).all()


def test_products_along_leading_axes() -> None:
    a, b = draw(2, 5), draw(2, 3, seed=1)
    found = FastSeries().product(a, b)
    for k in range(2):
        wanted = [sum(int(a[k, i]) * int(b[k, j - i]) for i in range(5) if 0 <= j - i < 3) % PRIME for j in range(7)]
        assert found[k].tolist() == wanted


@pytest.mark.parametrize("length", [1, 2, 7, 33])
def test_reciprocal(length: int) -> None:
    a = draw(9)
    a[0] = 1
    series = FastSeries()
    product = series.product(a, series.reciprocal(a, length))[:length]
    assert product.tolist() == [1] + [0] * (length - 1)


@pytest.mark.parametrize("n", [1, 2, 16, 64])
@pytest.mark.parametrize("length", [1, 5, 64, 150])
def test_kernels_are_those_of_the_definition(n: int, length: int) -> None:
    weights, poles = draw(2, n)
    assert (FastSeries().kernel(weights, poles, length) == direct_kernel(weights, poles, length)).all()
    parameters = list(draw(5, n))
    found = FastSeries().low_rank_kernel(parameters, length)
    assert (found == direct_low_rank_kernel(parameters, length)).all()


def test_direct_kernels_by_hand() -> None:
    weights, poles = np.array([2, 3]), np.array([1, 5])
    assert direct_kernel(weights, poles, 3).tolist() == [5, 17, 77]
    # Ā = diag(1, 5) − (1, 0)(0, 1)ᵀ = [[1, −1], [0, 5]], B̄ = (2, 3): (2, 3), (−1, 15), (−16, 75).
    parameters = [np.array(v) for v in ([1, 5], [1, 0], [0, 1], [2, 3], [1, 1])]
    assert direct_low_rank_kernel(parameters, 3).tolist() == [5, 14, 59]
