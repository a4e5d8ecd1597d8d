from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from liquid_ssm.backends._windowed_chain import windowed_chain

Array = npt.NDArray[Any]


def restarted(A: Array, B: Array, C: Array, u: Array, order: int, window: int, weight: int) -> Array:
    """For every k the chain run from rest over its own window, as defined."""
    y = np.zeros(u.shape, np.result_type(u.dtype, C.real.dtype))
    for k in range(u.shape[-1]):
        v = np.zeros((order, *u.shape[:2], A.shape[1]), np.result_type(A, u))
        for j in range(max(0, k - window + 1), k + 1):
            u_j = u[..., j, None]
            v = A * v + np.concatenate([(B * u_j)[None], u_j * v[:-1]])
        y[..., k] = weight * (C * v[-1]).sum(axis=-1).real
    return y


def integers(seed: int, length: int) -> tuple[Array, Array, Array, Array]:
    rng = np.random.default_rng(seed)
    A, B, C = rng.integers(-1, 2, (3, 3, 2)) + 1j * rng.integers(-1, 2, (3, 3, 2))
    return A, B, C, rng.integers(-1, 3, (2, 3, length)).astype(float)


@pytest.mark.parametrize(("order", "window"), [(1, 1), (1, 4), (2, 2), (2, 5), (3, 3), (3, 4), (4, 7), (2, 30)])
@pytest.mark.parametrize("length", [0, 1, 2, 7, 12])
def test_exact_for_integers(length: int, order: int, window: int) -> None:
    A, B, C, u = integers(length, length)
    y = windowed_chain(A, B, C, u, order, window, 2)
    assert np.array_equal(y, restarted(A, B, C, u, order, window, 2))


def test_inputs_that_left_the_window_leave_no_trace() -> None:
    A, B, C, u = integers(0, 20)
    A, u = 0.9 * A, u + 0.1
    spoiled = u.copy()
    spoiled[..., 3] = 1e100
    y = windowed_chain(A, B, C, u, 3, 5, 2)
    assert np.array_equal(windowed_chain(A, B, C, spoiled, 3, 5, 2)[..., 8:], y[..., 8:])


def test_pieces_change_no_bit() -> None:
    A, B, C, u = integers(1, 23)
    A, u = 0.7 * A, u + 0.1
    y = windowed_chain(A, B, C, u, 3, 4, 2)
    block = 2 * 3 * 4 * 2 * 16
    for blocks in (1, 2, 7, 20):
        assert np.array_equal(windowed_chain(A, B, C, u, 3, 4, 2, limit=blocks * block), y)


@pytest.mark.parametrize(
    ("dtype", "kind"), [("float32", "complex64"), ("float64", "complex128"), ("float32", "float32")]
)
def test_dtype_is_kept(dtype: str, kind: str) -> None:
    A, B, C, u = integers(2, 9)
    if kind == dtype:
        A, B, C = A.real, B.real, C.real
    y = windowed_chain(A.astype(kind), B.astype(kind), C.astype(kind), u.astype(dtype), 2, 3, 1)
    assert y.dtype == dtype
    assert np.array_equal(y, restarted(A, B, C, u, 2, 3, 1))


@pytest.mark.parametrize(("dtype", "kind"), [("float32", "complex64"), ("float64", "complex128")])
def test_rounding_stays_within_the_counted_operations(dtype: str, kind: str) -> None:
    """window - 1 products and window + order - 2 additions, one product with B̄, then the read-out's
    two products, one subtraction and ceil(log2 M) additions, on the sum of absolute values."""
    rng = np.random.default_rng(5)
    order, window, n_modes = 3, 9, 4
    A = (rng.uniform(0.5, 1, (2, n_modes)) * np.exp(1j * rng.uniform(0, 3, (2, n_modes)))).astype(kind)
    B, C = (rng.standard_normal((2, 2, n_modes)) + 1j * rng.standard_normal((2, 2, n_modes))).astype(kind)
    u = rng.standard_normal((2, 2, 40)).astype(dtype)
    A_long, B_long, C_long = (v.astype(np.clongdouble) for v in (A, B, C))
    exact = restarted(A_long, B_long, C_long, u.astype(np.longdouble), order, window, 2)
    A_abs, B_abs, C_abs = (np.abs(v).astype(float) for v in (A, B, C))
    size = restarted(A_abs, B_abs, C_abs, np.abs(u).astype(float), order, window, 2)
    unit = np.finfo(dtype).eps / 2
    # One more unit for evaluating the size, and where longdouble is double as much again for `exact`.
    count = window * np.sqrt(5) + (window + order - 2) + 2 + np.ceil(np.log2(n_modes)) + 1
    count *= 2 if np.finfo(np.longdouble).eps == np.finfo(dtype).eps else 1
    error = np.abs(windowed_chain(A, B, C, u, order, window, 2) - exact)
    assert (error <= np.expm1(count * np.log1p(unit)) * size).all()


def test_arguments_are_not_written_to() -> None:
    A, B, C, u = integers(3, 5)
    for argument in (A, B, C, u):
        argument.flags.writeable = False
    assert windowed_chain(A, B, C, u, 2, 3, 2).shape == u.shape
