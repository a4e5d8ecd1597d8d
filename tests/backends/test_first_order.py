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
    expected = loop(a, drive, a[0] * 0)
    assert np.array_equal(varying_recurrence(a, drive, 0), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_cutting_and_carrying_changes_no_bit(kind: str) -> None:
    rng = np.random.default_rng(0)
    a: Array = rng.standard_normal((2, 50)).astype(kind)
    drive: Array = rng.standard_normal(50).astype(kind)
    if kind.startswith("c"):
        a, drive = a * (1 - 0.5j), drive * (0.3 + 1j)
        a, drive = a.astype(kind), drive.astype(kind)
    whole = varying_recurrence(a[0], drive, a[1, 0])
    first = varying_recurrence(a[0, :17], drive[:17], a[1, 0])
    assert np.array_equal(np.append(first, varying_recurrence(a[0, 17:], drive[17:], first[-1])[1:]), whole)
    rows, start = np.stack([drive, a[1]]), a[0, :2]
    whole = constant_recurrence(a[0, 5], rows, start)
    first = constant_recurrence(a[0, 5], rows[:, :17], start)
    rest = constant_recurrence(a[0, 5], rows[:, 17:], first[:, -1])
    assert np.array_equal(np.concatenate([first, rest[:, 1:]], axis=1), whole)


@pytest.mark.parametrize("kind", KINDS)
def test_arguments_are_not_written_to(kind: str) -> None:
    a, drive, start = np.full(4, 2, kind), np.ones((1, 4), kind), np.ones(1, kind)
    for argument in (a, drive, start):
        argument.flags.writeable = False
    assert np.array_equal(varying_recurrence(a, drive[0], start[0]), [1, 3, 7, 15, 31])
    assert np.array_equal(constant_recurrence(a[0], drive, start), [[1, 3, 7, 15, 31]])


@pytest.mark.parametrize(("kind", "u"), [("complex64", 2.0**-24), ("complex128", 2.0**-53)])
def test_rounding_is_that_of_one_product_and_one_addition(kind: str, u: float) -> None:
    """Error at most the running bound with √5 u per product and u per addition, in any association.

    Adding the real products to v in another order than product first costs at most 3 u (|a x| + |v|) per
    component, √2 times that for both: used for every step.
    """
    rng = np.random.default_rng(1)
    a = (0.9 * np.exp(1j * rng.uniform(0, 6, 300))).astype(kind)
    drive = (rng.standard_normal(300) + 1j * rng.standard_normal(300)).astype(kind)
    exact = loop(a.astype(np.clongdouble), drive.astype(np.clongdouble), np.clongdouble(0))
    bound = [0.0]
    for a_k, v, x in zip(np.abs(a), np.abs(drive), np.abs(exact), strict=False):
        size = float(a_k) * (float(x) + bound[-1]) + float(v)
        bound.append(float(a_k) * bound[-1] + 3 * np.sqrt(2) * u * size)
    # longdouble is no better than double on some machines: its own error has the same bound.
    slack = 2 if np.finfo(np.longdouble).eps == np.finfo(np.float64).eps else 1
    assert (np.abs(varying_recurrence(a, drive, 0) - exact) <= slack * np.array(bound)).all()
    # `constant_recurrence` with one coefficient, the same bound.
    exact = loop(np.full(300, a[0]).astype(np.clongdouble), drive.astype(np.clongdouble), np.clongdouble(0))
    bound = [0.0]
    for v, x in zip(np.abs(drive), np.abs(exact), strict=False):
        size = float(abs(a[0])) * (float(x) + bound[-1]) + float(v)
        bound.append(float(abs(a[0])) * bound[-1] + 3 * np.sqrt(2) * u * size)
    got = constant_recurrence(a[0], drive[None], np.zeros(1, kind))[0]
    assert (np.abs(got - exact) <= slack * np.array(bound)).all()
