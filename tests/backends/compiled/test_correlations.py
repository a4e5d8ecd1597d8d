from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from liquid_ssm.backends import _correlations as readable
from liquid_ssm.backends.compiled.correlations import correlate, correlate_vjp
from liquid_ssm.backends.compiled.elementary_step import STEPS
from liquid_ssm.errors import ParameterError, ShapeError

Array = npt.NDArray[Any]
# Edges of a block of steps, and of windows of 5 and 8.
LENGTHS = (0, 1, 2, 7, 8, 9, STEPS - 1, STEPS, STEPS + 1, 131)
CASES: list[tuple[Any, int | None]] = [
    ("products", None),
    ("running", None),
    ("running", 5),
    ("running", 8),
    ("running", STEPS + 1),
    ("running", 500),
    ("elementary", None),
    ("elementary", 5),
    ("elementary", 8),
    ("elementary", STEPS + 1),
    ("elementary", 500),
]


def integers(seed: int, *shape: int) -> Array:
    """Small integers, mostly 0 and ±1: every sum of products of at most five of them is exact in float64."""
    return np.random.default_rng(seed).integers(-2, 3, shape).astype(float)


def n_sums(kind: str, order: int) -> int:
    return order if kind == "elementary" else order - 1


@pytest.mark.parametrize(("kind", "window"), CASES)
def test_exact_for_integers(kind: Any, window: int | None) -> None:
    stateful = kind != "products" and window is None
    # 9 and 17 rows: one more than a vector of float64 or two has on machines with 512 bits.
    for shape, length, order in product([(0, 2), (1, 1), (3, 3), (1, 17)], LENGTHS, (1, 2, 3, 5)):
        u = integers(length, *shape, length)
        given: list[dict[str, Any]] = [{"sums": None, "previous": None}]
        if stateful:
            given.append({"sums": integers(1, n_sums(kind, order), *shape), "previous": None})
        if kind != "elementary" or window is not None:
            given += [{"sums": None, "previous": integers(2, *shape, n)} for n in (0, 2, 80)]
        for arguments in given:
            arguments |= {"order": order, "kind": kind, "window": window}
            terms, sums = correlate(u, **arguments, threads=1)
            expected, expected_sums = readable.correlate(u, **arguments)
            np.testing.assert_array_equal(terms, expected)
            assert terms.shape == expected.shape
            assert (sums is None) == (expected_sums is None)
            if sums is not None:
                np.testing.assert_array_equal(sums, expected_sums)


@pytest.mark.parametrize(("kind", "window"), CASES)
def test_gradients_are_exact_for_integers(kind: Any, window: int | None) -> None:
    stateful = kind != "products" and window is None
    for length, order in product((0, 1, 9, STEPS + 1), (1, 3)):
        u, grad = integers(length, 2, 3, length), integers(3, order - 1, 2, 3, length)
        given: list[dict[str, Any]] = [{"sums": None, "previous": None}]
        if stateful:
            given.append({"sums": integers(1, n_sums(kind, order), 2, 3), "previous": None})
        if kind != "elementary" or window is not None:
            given.append({"sums": None, "previous": integers(2, 2, 3, 12)})
        grad_sums = integers(4, n_sums(kind, order), 2, 3) if stateful else None
        for arguments, g, g_sums in product(given, (grad, None), {id(grad_sums): grad_sums, 0: None}.values()):
            arguments = arguments | {"order": order, "kind": kind, "window": window}
            found = correlate_vjp(u, g, g_sums, **arguments, threads=1)
            for value, expected in zip(found, readable.correlate_vjp(u, g, g_sums, **arguments), strict=True):
                assert (value is None) == (expected is None)
                if value is not None and expected is not None:
                    np.testing.assert_array_equal(value, expected)
                    assert not np.shares_memory(value, u)


def roundings(kind: str, window: int | None, order: int, steps: Array) -> Array:
    """Roundings behind a monomial of each term, (order - 1, L), as `correlate` counts them."""
    p = np.arange(2, order + 1)[:, None]
    if kind == "products":
        return p - 1 + 0 * steps
    if kind == "running":
        return p - 1 + (steps if window is None else np.minimum(window - p + 1, steps))
    return steps if window is None else np.minimum(window, steps) + p


@pytest.mark.parametrize(("kind", "window"), [case for case in CASES if case[1] != 5])
def test_rounding_stays_within_the_counted_operations(kind: Any, window: int | None) -> None:
    """The error is at most γ_n times the same sum of absolute values, the reference in float64 being exact enough."""
    u = np.random.default_rng(5).standard_normal((2, 9, 140)).astype(np.float32)
    arguments: dict[str, Any] = {"order": 4, "kind": kind, "window": window, "sums": None, "previous": None}
    exact, _ = readable.correlate(u.astype(float), **arguments)
    size, _ = readable.correlate(np.abs(u).astype(float), **arguments)
    terms, _ = correlate(u, **arguments, threads=1)
    assert terms.dtype == np.float32
    # γ for float32, and for float64 of the reference with at most 300 roundings.
    n = np.broadcast_to(roundings(kind, window, 4, np.arange(1, 141)), (3, 140))[:, None, None] * 2.0**-24
    assert (np.abs(terms - exact) <= (n / (1 - n) + 300 * 2.0**-52) * size).all()


@pytest.mark.parametrize("kind", ["running", "elementary"])
def test_inputs_that_left_the_window_leave_no_trace(kind: Any) -> None:
    u = integers(0, 1, 3, 40) + 0.5
    spoiled = u.copy()
    spoiled[..., 7] = 1e80
    arguments: dict[str, Any] = {"order": 3, "kind": kind, "window": 6, "sums": None, "previous": None, "threads": 1}
    terms, _ = correlate(u, **arguments)
    np.testing.assert_array_equal(correlate(spoiled, **arguments)[0][..., 13:], terms[..., 13:])


@pytest.mark.parametrize(("kind", "window"), CASES)
def test_threads_and_layout_change_no_bit(kind: Any, window: int | None) -> None:
    u = np.random.default_rng(1).standard_normal((4, 11, 70))
    u.flags.writeable = False
    arguments: dict[str, Any] = {"order": 3, "kind": kind, "window": window, "sums": None, "previous": None}
    terms, _ = correlate(u, **arguments, threads=1)
    gradient, _, _ = correlate_vjp(u, terms, None, **arguments, threads=1)
    strided = np.asfortranarray(u)[..., ::-1][..., ::-1]
    for v, threads in ((u, 2), (u, 3), (strided, 2)):
        np.testing.assert_array_equal(correlate(v, **arguments, threads=threads)[0], terms)
        np.testing.assert_array_equal(correlate_vjp(v, terms, None, **arguments, threads=threads)[0], gradient)


def test_cotangents_are_checked() -> None:
    u = integers(0, 1, 2, 9)
    arguments: dict[str, Any] = {"order": 2, "kind": "elementary", "sums": None, "previous": None, "threads": 1}
    with pytest.raises(ShapeError, match="grad_terms"):
        correlate_vjp(u, u, None, window=None, **arguments)
    with pytest.raises(ShapeError, match="grad_sums"):
        correlate_vjp(u, None, u, window=None, **arguments)
    with pytest.raises(ParameterError, match="grad_sums was given"):
        correlate_vjp(u, None, u, window=4, **arguments)
