from __future__ import annotations

from itertools import combinations
from math import prod
from typing import Any

import numpy as np
import pytest

from liquid_ssm.backends._correlations import correlate, correlate_vjp
from liquid_ssm.errors import ParameterError, ShapeError

BATCH, H, LENGTH = 2, 2, 6


def integers(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).integers(-3, 4, shape).astype(float)


def call(u: Any, *, order: int, kind: Any, window: Any = None, sums: Any = None, previous: Any = None) -> Any:
    return correlate(u, order=order, kind=kind, window=window, sums=sums, previous=previous)


def expected_terms(u: Any, order: int, kind: str, window: int | None, before: int) -> Any:
    """By the definitions of the contract, for u with `before` earlier inputs in front."""
    length = u.shape[-1]
    terms = np.zeros((order - 1, *u.shape))
    for index in np.ndindex(u.shape[:-1]):
        v = u[index].tolist()
        products = {
            p: [prod(v[i - p + 1 : i + 1]) if i >= p - 1 else 0 for i in range(length)] for p in range(1, order + 1)
        }
        for p in range(2, order + 1):
            for k in range(length):
                oldest = before if window is None else max(0, k - window + p)
                if kind == "products":
                    term = products[p][k]
                elif kind == "running":
                    term = sum(products[p][oldest : k + 1])
                else:
                    first = 0 if window is None else max(0, k - window + 1)
                    term = sum(prod(chosen) for chosen in combinations(v[first : k + 1], p))
                terms[(p - 2, *index, k)] = term
    return terms[..., before:]


CASES = [
    ("products", None, 0),
    ("products", None, 5),
    ("products", 4, 1),
    ("running", None, 0),
    ("running", None, 1),
    ("running", None, 7),
    ("running", 4, 0),
    ("running", 4, 2),
    ("running", 4, 9),
    ("elementary", None, 0),
    ("elementary", 4, 0),
    ("elementary", 4, 2),
    ("elementary", 4, 9),
    ("elementary", 50, 3),
]


@pytest.mark.parametrize("order", [1, 2, 4])
@pytest.mark.parametrize(("kind", "window", "before"), CASES)
def test_terms_are_exact(kind: str, window: int | None, before: int, order: int) -> None:
    whole = integers(0, BATCH, H, before + LENGTH)
    previous = whole[..., :before] if before else None
    terms, _ = call(whole[..., before:], order=order, kind=kind, window=window, previous=previous)
    np.testing.assert_array_equal(terms, expected_terms(whole, order, kind, window, before))


@pytest.mark.parametrize("cut", [0, 1, 3, 6])
@pytest.mark.parametrize(
    ("kind", "window"), [("products", None), ("running", None), ("running", 5), ("elementary", None), ("elementary", 5)]
)
def test_split_signal_with_carried_sums_and_inputs(kind: str, window: int | None, cut: int) -> None:
    # Bitwise also for numbers that round: the sequential sums continue, the windowed sums see the same tree.
    u = integers(1, BATCH, H, LENGTH) * (1 if kind == "elementary" and window else 0.1)
    whole, last = call(u, order=3, kind=kind, window=window)
    head, sums = call(u[..., :cut], order=3, kind=kind, window=window)
    previous = None if kind == "elementary" and window is None else u[..., :cut]
    tail, final = call(u[..., cut:], order=3, kind=kind, window=window, sums=sums, previous=previous)
    np.testing.assert_array_equal(np.concatenate([head, tail], axis=-1), whole)
    assert (sums is None) == (final is None) == (last is None) == (kind == "products" or window is not None)
    if last is not None:
        np.testing.assert_array_equal(final, last)


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize(("kind", "window", "before"), CASES)
def test_vjp_is_exact(kind: Any, window: int | None, before: int, order: int) -> None:
    # Every term is linear in each single input, carried sum and previous input.
    u = integers(2, BATCH, H, LENGTH)
    n_sums = order if kind == "elementary" else order - 1
    stateful = kind != "products" and window is None
    sums = integers(3, n_sums, BATCH, H) if stateful else None
    previous = integers(4, BATCH, H, before) if before else None
    g = integers(5, order - 1, *u.shape)
    g_sums = integers(6, n_sums, BATCH, H) if stateful else None

    def value(**moved: Any) -> float:
        arguments = {"u": u, "sums": sums, "previous": previous} | moved
        terms, final = call(arguments.pop("u"), order=order, kind=kind, window=window, **arguments)
        return float(np.sum(g * terms) + (np.sum(g_sums * final) if stateful else 0))

    grads: Any = correlate_vjp(u, g, g_sums, order=order, kind=kind, window=window, sums=sums, previous=previous)
    for name, argument, grad in zip(("u", "sums", "previous"), (u, sums, previous), grads, strict=True):
        assert (argument is None) == (grad is None)
        if argument is None:
            continue
        assert grad.shape == argument.shape
        for index in np.ndindex(argument.shape):
            moved = argument.copy()
            moved[index] += 1
            assert grad[index] == value(**{name: moved}) - value()


def test_cotangents_given_as_none_are_zero() -> None:
    u = integers(7, BATCH, H, LENGTH)
    options: Any = {"order": 3, "kind": "elementary", "window": None, "sums": None, "previous": None}
    grad_u, *others = correlate_vjp(u, None, None, **options)
    np.testing.assert_array_equal(grad_u, np.zeros_like(u))
    assert others == [None, None]
    g_sums = integers(8, 3, BATCH, H)
    terms = np.zeros((2, *u.shape))
    np.testing.assert_array_equal(
        correlate_vjp(u, None, g_sums, **options)[0], correlate_vjp(u, terms, g_sums, **options)[0]
    )


def test_what_makes_no_sense_is_refused() -> None:
    u = np.ones((1, 1, 3))
    with pytest.raises(ParameterError, match=r"unknown correlation kind 'adjacent'; allowed: products"):
        call(u, order=2, kind="adjacent")
    with pytest.raises(ParameterError, match="order is 0"):
        call(u, order=0, kind="products")
    with pytest.raises(ParameterError, match="window is 2; it must be at least 3"):
        call(u, order=3, kind="running", window=2)
    for options in ({"kind": "products"}, {"kind": "running", "window": 3}):
        with pytest.raises(ParameterError, match="only `running` and `elementary` without a window carry sums"):
            call(u, order=2, sums=np.zeros((1, 1, 1)), **options)
    with pytest.raises(ParameterError, match="what came before u_0 is in `sums`"):
        call(u, order=2, kind="elementary", previous=u)
    with pytest.raises(ShapeError, match=r"sums has shape \(1, 1, 1\); it must be \(2, 1, 1\)"):
        call(u, order=2, kind="elementary", sums=np.zeros((1, 1, 1)))
    with pytest.raises(ShapeError, match=r"previous has shape \(2, 1, 3\); it must be \(1, 1, 'n'\)"):
        call(u, order=2, kind="products", previous=np.ones((2, 1, 3)))
    with pytest.raises(ParameterError, match="grad_sums was given"):
        correlate_vjp(u, None, np.zeros((1, 1, 1)), order=2, kind="products", window=None, sums=None, previous=None)
