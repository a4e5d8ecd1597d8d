"""Sums and polynomials of inputs in any brackets, played in float32, are within their bounds; wrong ones are not."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from liquid_ssm.oracle import correlation, scan_bounds
from liquid_ssm.oracle import correlation_brackets as brackets
from liquid_ssm.oracle.realization import Realization
from liquid_ssm.oracle.reference import reference
from liquid_ssm.oracle.rounding import RoundingModel

ORDER = 5


def model(**more: Any) -> RoundingModel:
    return RoundingModel.of_dtype("float32", **more)


def signal(seed: int, length: int, *, positive: bool = False) -> Any:
    u = np.random.default_rng(seed).normal(size=length).astype(np.float32)
    return np.abs(u) if positive else u


def product(p: Any, q: Any, *, backwards: bool = False) -> Any:
    """Two polynomials mod t^(ORDER + 1) in float32; the terms of a coefficient are added forwards or backwards."""
    result = np.zeros(ORDER + 1, np.float32)
    for m in range(ORDER + 1):
        total = np.float32(0)
        for i in range(m + 1)[:: -1 if backwards else 1]:
            total = np.float32(total + p[i] * q[m - i])
        result[m] = total
    return result


def factor(u_j: Any) -> Any:
    return np.array([1, u_j, *[0] * (ORDER - 1)], np.float32)


def bracketed(u: Any, how: str, rng: Any) -> Any:
    """The product of all 1 + u_j t in one of many brackets."""
    parts = [factor(v) for v in u]
    while len(parts) > 1:
        if how == "balanced":
            pairs = [product(*parts[i : i + 2]) for i in range(0, len(parts) - 1, 2)]
            parts = pairs + ([parts[-1]] if len(parts) % 2 else [])
            continue
        i = {"forwards": 0, "backwards": len(parts) - 2, "random": int(rng.integers(len(parts) - 1))}[how]
        parts[i : i + 2] = [product(parts[i], parts[i + 1], backwards=bool(rng.integers(2)))]
    return parts[0]


def exact_elementary(u: Any) -> Any:
    """(ORDER, L) as rationals."""
    e = [Fraction(1), *[Fraction(0)] * ORDER]
    rows = []
    for v in u:
        for p in range(ORDER, 0, -1):
            e[p] += Fraction(float(v)) * e[p - 1]
        rows.append(e[1:])
    return np.array(rows).T


def off(found: Any, exact: Any) -> Any:
    """|found − exact|, the difference formed exactly."""
    return np.array([abs(float(Fraction(float(a)) - b)) for a, b in zip(found.ravel(), exact.ravel(), strict=True)])


@pytest.mark.parametrize("how", ["balanced", "forwards", "backwards", "random"])
@pytest.mark.parametrize("positive", [True, False])
def test_products_of_polynomials_in_any_brackets_are_within_the_bound(how: str, positive: bool) -> None:
    rng, nearest = np.random.default_rng(0), []
    for seed in range(6):
        u = signal(seed, (2, 5, 9, 33, 64, 100)[seed], positive=positive)
        exact = exact_elementary(u)[:, -1]
        found = brackets.elementary(u[None, None], ORDER, [model(correlations="any")])[1]
        bounds = np.array([b[0, 0, 0, -1] for b in found])
        error = off(bracketed(u, how, rng)[1:], exact)
        assert np.all(error <= bounds)
        if positive:
            nearest.append((error / bounds).max())
            # no coefficient that is off by as much as 2^-10 passes
            assert np.all(bounds <= 2.0**-10 * np.abs(exact.astype(float)) + 1e-30) or len(u) < ORDER
    if positive:
        assert max(nearest) > 1 / 100


@pytest.mark.parametrize("chunk", [4, 16, 50])
@pytest.mark.parametrize("how", ["balanced", "random", "forwards"])
def test_blocks_that_are_passed_on_in_time_are_within_a_smaller_bound(chunk: int, how: str) -> None:
    rng = np.random.default_rng(1)
    u = signal(3, 200)
    carry, found = factor(0), []
    for start in range(0, len(u), chunk):
        block = u[start : start + chunk]
        rows = [product(carry, bracketed(block[: k + 1], how, rng)) for k in range(len(block))]
        found += rows
        carry = rows[-1]
    exact = exact_elementary(u)
    error = off(np.array(found)[:, 1:].T, exact).reshape(exact.shape)
    known, unknown = (
        np.array([b[0, 0, 0] for b in brackets.elementary(u[None, None], ORDER, [model(correlations="any", **how)])[1]])
        for how in ({"correlation_chunk": chunk}, {})
    )
    assert np.all(error <= known)
    # where blocks are passed on the bound follows what cancels
    assert np.all(known[1:, -1] < unknown[1:, -1] / 5)
    assert np.linalg.norm(known[2]) < 0.2 * np.linalg.norm(exact[2].astype(float))
    # one step late
    late = np.array([factor(0), *found[:-1]])[:, 1:].T
    assert np.any(off(late, exact).reshape(exact.shape) > 10 * known)


def test_running_sums_in_any_brackets_have_the_bounds_of_scans() -> None:
    u = signal(4, 40)[None, None].astype(float)
    terms, errors = correlation.adjacent_products(u, 3, [model()])
    wanted = scan_bounds.running_sums(terms, errors, [model(scan="any")])[1]
    for name in ("sums", "any"):
        found = brackets.running_sums(terms, errors, [model(correlations=name)])[1]
        assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))
        scanned = brackets.elementary(u, 3, [model(scan="any")])[1]
        summed = brackets.elementary(u, 3, [model(correlations=name)])[1]
        assert all(
            np.all(a >= b) if name == "any" else np.array_equal(a, b) for a, b in zip(summed, scanned, strict=True)
        )


def test_one_order_after_the_other_by_pairwise_running_sums() -> None:
    """e_p as the running sum of u e_{p-1}, each by a tree (Hillis and Steele)."""
    for seed in range(4):
        u = signal(seed, (7, 30, 64, 150)[seed])
        exact, below, found = exact_elementary(u), np.ones_like(u), []
        for p in range(ORDER):
            total = u * below if p == 0 else u * np.concatenate([[np.float32(0)], below[:-1]])
            step = 1
            while step < len(u):
                total = total + np.concatenate([np.zeros(step, np.float32), total[:-step]])
                step *= 2
            below = total
            found.append(total)
        for name in ("sums", "any"):
            bounds = brackets.elementary(u[None, None], ORDER, [model(correlations=name)])[1]
            error = off(np.array(found), exact).reshape(exact.shape)
            assert np.all(error <= np.array([b[0, 0, 0] for b in bounds]) + 1e-45)


@pytest.mark.parametrize("how", ["balanced", "random"])
def test_windows_in_any_brackets_are_within_the_bound(how: str) -> None:
    rng = np.random.default_rng(2)
    for window in (5, 12):
        u = signal(window, 30, positive=True)
        bounds = brackets.windowed_elementary(u[None, None], ORDER, window, [model(correlations="any")])[1]
        for k in range(len(u)):
            newest = u[max(0, k + 1 - window) : k + 1]
            error = off(bracketed(newest, how, rng)[1:], exact_elementary(newest)[:, -1])
            assert np.all(error <= [b[0, 0, 0, k] for b in bounds])


def test_windows_of_high_order_are_charged_for_the_sums_where_factors_meet() -> None:
    u = signal(0, 30)[None, None].astype(float)
    plain, other = (
        brackets.windowed_elementary(u, 8, 8, [model(correlations=name)])[1] for name in ("sequential", "any")
    )
    # p - 1 products and p(p + 1)/2 - 1 additions: more than 2p + 2 from p = 5 on
    ratios = [float((b / a).max()) for a, b in zip(plain, other, strict=True)]
    wanted = [(8 + max(2 * p + 2, p * (p + 1) // 2 + p - 2)) / (8 + 2 * p + 2) for p in range(1, 9)]
    assert ratios == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("correlations", ["all", "adjacent"])
@pytest.mark.parametrize("window", [None, 6])
def test_the_reference_takes_the_brackets_of_the_model(correlations: str, window: int | None) -> None:
    one = np.full((1, 2), 0.5 + 0.1j)
    r, u = Realization("diagonal", one, one, one), signal(5, 40)[None, None]
    names = ["sequential", "sums", "any"]
    models = [model(correlations=name) for name in names] + [model(correlations="any", correlation_chunk=8)]
    bounds = [
        b.componentwise
        for b in reference(r, u, "pb", order=5, correlations=correlations, window=window, models=models).bounds
    ]
    in_time, sums, unknown, blocks = bounds
    if window is None:
        # at the first steps that in time is the larger one: it counts an addition to nothing
        assert in_time[0, 0, -1] < sums[0, 0, -1]
        assert np.all(sums <= unknown)
        assert correlations == "adjacent" or blocks[0, 0, -1] < unknown[0, 0, -1]
    else:
        assert np.all(in_time <= unknown)


def test_models_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="correlations='tree' is unknown; allowed: sequential, sums, any"):
        model(correlations="tree")
    with pytest.raises(ValueError, match="correlation_chunk=8 with correlations='sums'"):
        model(correlations="sums", correlation_chunk=8)
    with pytest.raises(ValueError, match="correlation_chunk=0"):
        replace(model(correlations="any"), correlation_chunk=0)


def test_blocks_of_one_step_by_hand() -> None:
    """e_p(k) from e_p(k-1) and u_k e_{p-1}(k-1): what was wrong before, and n = 1 + p(p + 1)/2 + 2p roundings."""
    u = np.array([1.0, -2.0, 0.5, 3.0, -1.5, 2.0])
    unit, order = 2.0**-24, 3
    e, E = [1.0, *[0.0] * order], [0.0] * (order + 1)
    rows = []
    for v in u:
        below, wrong = [0.0, *e[:-1]], [0.0, *E[:-1]]
        n = [1 + p * (p + 1) / 2 + 2 * p for p in range(order + 1)]
        E = [
            E[p] + abs(v) * wrong[p] + (n[p] * unit * (abs(e[p]) + abs(v * below[p])) if p else 0.0)
            for p in range(order + 1)
        ]
        e = [a + v * b for a, b in zip(e, below, strict=True)]
        rows.append(E[1:])
    one = RoundingModel(unit, 0.0, correlations="any", correlation_chunk=1)
    values = correlation.elementary(u[None, None], order, ())[0]
    found = np.array(brackets._by_polynomials(u[None, None], values, order, one))[:, 0, 0]
    assert np.allclose(found, np.array(rows).T, rtol=1e-4, atol=0)
