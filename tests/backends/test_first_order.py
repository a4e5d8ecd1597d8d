from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from liquid_ssm.backends._first_order import constant_recurrence, varying_recurrence

Array = npt.NDArray[Any]
KINDS = ["float32", "float64", "complex64", "complex128"]


def gaussian_integers(rng: np.random.Generator, shape: tuple[int, ...], kind: str) -> Array:
    value = rng.integers(-2, 3, shape) + 1j * rng.integers(-2, 3, shape)
    return (value if kind.startswith("c") else value.real).astype(kind)


def loop(a: Array, drive: Array, start: Any) -> Array:
    x = [start]
    for a_k, v in zip(a, drive, strict=True):
        x.append(a_k * x[-1] + v)
    return np.array(x)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [0, 1, 2, 9])
def test_constant_recurrence_is_exact_for_integers(steps: int, kind: str) -> None:
    rng = np.random.default_rng(steps)
    drive, start = gaussian_integers(rng, (3, steps), kind), gaussian_integers(rng, (3,), kind)
    # |x_9| < 3^10·3 stays below 2^24, so every operation is exact.
    a = np.array([1 - 1j if kind.startswith("c") else -2], kind)[0]
    x = constant_recurrence(a, drive, start)
    assert x.dtype == kind
    for row in range(3):
        assert np.array_equal(x[row], loop(np.full(steps, a), drive[row], start[row]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [0, 1, 2, 9])
def test_varying_recurrence_is_exact_for_integers(steps: int, kind: str) -> None:
    rng = np.random.default_rng(steps)
    a, drive = gaussian_integers(rng, (2, steps), kind)
    start = gaussian_integers(rng, (1,), kind)[0]
    x = varying_recurrence(a, drive, start)
    assert x.dtype == kind
    assert np.array_equal(x, loop(a, drive, start))


@pytest.mark.parametrize("kind", ["complex64", "complex128"])
def test_no_pivoting(kind: str) -> None:
    """Coefficients far above the unit diagonal would make a pivoting solver swap rows and round otherwise."""
    a = np.full(5, 2.0**20, kind)
    drive = np.ones(5, kind)
    expected = loop(a, drive, a.dtype.type(0))
    assert np.array_equal(varying_recurrence(a, drive, 0), expected)


def random(kind: str, n: int) -> tuple[Array, Array]:
    """Coefficients with |a| near 0.9 and a drive."""
    rng = np.random.default_rng(1)
    a, drive = 0.9 * np.exp(1j * rng.uniform(0, 6, n)), rng.standard_normal(n) + 1j * rng.standard_normal(n)
    return (
        (a.astype(kind), drive.astype(kind)) if kind.startswith("c") else (a.real.astype(kind), drive.real.astype(kind))
    )


def running_bound(a: Array, drive: Array, exact: Array) -> Array:
    """Error of x_k = a_k x_{k-1} + v_k with √5 u per product and u per addition, in any association.

    Adding the real products to v one after the other costs at most 3 u (|a x| + |v|) per component, √2 times
    that for both: used for every step.
    """
    unit, bound = np.finfo(drive.dtype).eps / 2, [0.0]
    for a_k, v, x in zip(np.abs(a), np.abs(drive), np.abs(exact), strict=False):
        size = float(a_k) * (float(x) + bound[-1]) + float(v)
        bound.append(float(a_k) * bound[-1] + 3 * np.sqrt(2) * unit * size)
    # longdouble is no better than double on some machines: the error of `exact` then has the same bound.
    return np.array(bound) * (2 if np.finfo(np.longdouble).eps == np.finfo(drive.dtype).eps else 1)


@pytest.mark.parametrize("kind", KINDS)
def test_cutting_and_carrying(kind: str) -> None:
    a, drive = random(kind, 50)
    whole = varying_recurrence(a, drive, a[7])
    first = varying_recurrence(a[:17], drive[:17], a[7])
    cut = np.append(first, varying_recurrence(a[17:], drive[17:], first[-1])[1:])
    if kind == "complex64":
        # Some versions of BLAS round every second step otherwise; equal within twice the bound.
        assert (np.abs(cut - whole) <= 2 * running_bound(a, drive, whole)).all()
    else:
        assert np.array_equal(cut, whole)
    rows, start = np.stack([drive, a]), a[:2]
    whole = constant_recurrence(a[5], rows, start)
    first = constant_recurrence(a[5], rows[:, :17], start)
    rest = constant_recurrence(a[5], rows[:, 17:], first[:, -1])
    assert np.array_equal(np.concatenate([first, rest[:, 1:]], axis=1), whole)


@pytest.mark.parametrize("kind", KINDS)
def test_arguments_are_not_written_to(kind: str) -> None:
    a, drive, start = np.full(4, 2, kind), np.ones((1, 4), kind), np.ones(1, kind)
    for argument in (a, drive, start):
        argument.flags.writeable = False
    assert np.array_equal(varying_recurrence(a, drive[0], start[0]), [1, 3, 7, 15, 31])
    assert np.array_equal(constant_recurrence(a[0], drive, start), [[1, 3, 7, 15, 31]])


@pytest.mark.parametrize("kind", KINDS)
def test_rounding_is_that_of_one_product_and_one_addition(kind: str) -> None:
    a, drive = random(kind, 300)
    wide = np.clongdouble if kind.startswith("c") else np.longdouble
    exact = loop(a.astype(wide), drive.astype(wide), wide(0))
    assert (np.abs(varying_recurrence(a, drive, 0) - exact) <= running_bound(a, drive, exact)).all()
    same = np.full(300, a[0])
    exact = loop(same.astype(wide), drive.astype(wide), wide(0))
    got = constant_recurrence(a[0], drive[None], np.zeros(1, kind))[0]
    assert (np.abs(got - exact) <= running_bound(same, drive, exact)).all()
