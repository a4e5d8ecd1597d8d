"""One step of each bound holds every term of its derivation (docs/bounds.md), no more and no less."""

from __future__ import annotations

import numpy as np
import pytest

from liquid_ssm.oracle.rounding import RoundingModel
from liquid_ssm.oracle.scalar_recurrence import Drive, cascade_states, chunks, liquid_states, read_out

U = 2.0**-24
MODEL = RoundingModel(U, 0.0, pairwise=True)
# (fused, κ, α): of a complex product and of what it may be added to
CLASSES = [(None, 5**0.5, 1.0), (False, 5**0.5, 0.0), (True, 2.0, 1.0)]
A = np.array([[0.5 + 0.5j]])
W = np.array([[[[0.25 - 0.125j]]]])  # (L, batch, H, M)
X = np.array([[[2.0 - 1.0j]]])
# The factors for second-order terms: a few u, never a visible part of the bound.
SLACK = 1 + 2.0**-20


def one_step(states, *arguments, drive_error=0.0):
    """The state and its bound after one step; `Drive` among the arguments stands for the drive W."""
    drive = Drive(W, np.full((1, *W.shape), drive_error))
    (found,) = states(*(iter([(slice(0, 1), drive)]) if a is Drive else a for a in arguments))
    return found[1], found[2]


@pytest.mark.parametrize(("fused", "kappa", "alpha"), CLASSES)
def test_a_liquid_step_has_every_term(fused, kappa, alpha):
    dw = U * abs(W.item())
    _, E = one_step(liquid_states, A, Drive, X, [RoundingModel(U, 0.0, fused=fused)], drive_error=dw)
    a, w, x = abs((A + W).item()), abs(W.item()), abs(X.item())
    new = abs(((A + W) * X + W).item())
    wanted = U * ((a + w) * x + kappa * a * x + (1 + alpha) * w + new)
    assert wanted <= E.item() <= wanted * SLACK


@pytest.mark.parametrize(("fused", "kappa", "alpha"), CLASSES)
def test_a_linear_step_and_a_fed_one_have_every_term(fused, kappa, alpha):
    dw = U * abs(W.item())
    start = np.array([[[2.0 - 1.0j]]])
    model = RoundingModel(U, 0.0, fused=fused)
    x, E = one_step(cascade_states, A, Drive, None, 2, start, [model], drive_error=dw)
    a, w, x0 = abs(A.item()), abs(W.item()), abs(start.item())
    first = U * (kappa * a * x0 + (1 + alpha) * w + abs(x[0].item()))
    # the second order is still zero, so its own product is
    second = U * ((1 + kappa + alpha) * w * x0 + abs(x[1].item()))
    assert first <= E[0, 0].item() <= first * SLACK
    assert second <= E[0, 1].item() <= second * SLACK


@pytest.mark.parametrize(("fused", "kappa", "alpha"), CLASSES)
def test_a_chain_multiplies_by_an_exact_real_input(fused, kappa, alpha):
    link = np.full((1, 1, 1, 1), 3.0)
    model = RoundingModel(U, 0.0, fused=fused)
    x, E = one_step(cascade_states, A, Drive, link, 2, X, [model])
    second = U * ((1 + alpha) * 3 * abs(X.item()) + abs(x[1].item()))
    assert second <= E[0, 1].item() <= second * SLACK


@pytest.mark.parametrize("large", ["own", "fed"])
def test_either_product_of_a_fed_step_may_be_added_to(large):
    """Second step of two orders: α counts the larger of ā x and w x'."""
    w = np.array([4.0, 0.01] if large == "own" else [0.01, 4.0]).reshape(2, 1, 1, 1) * (1 + 0j)
    drive = Drive(w, np.zeros((1, *w.shape)))
    local = {}
    for fused in (None, False):
        ((_, x, E),) = cascade_states(A, iter([(slice(0, 2), drive)]), None, 2, X, [RoundingModel(U, 0.0, fused=fused)])
        local[fused] = E[0, 1, 1].item() - abs(A.item()) * E[0, 1, 0].item() - abs(w[1].item()) * E[0, 0, 0].item()
    own, fed = abs(A.item() * x[1, 0].item()), abs(w[1].item() * x[0, 0].item())
    assert (own > fed) == (large == "own")
    assert local[None] - local[False] == pytest.approx(U * max(own, fed), rel=1e-3)


# --- every contraction of a step, played in an arithmetic of few bits ---------------------------------------------

BITS = 9
SMALL = 2.0**-BITS


def rn(x):
    """Rounded to BITS bits, part by part; sums of products of such numbers are exact before it."""

    def part(v):
        mantissa, exponent = np.frexp(v)
        return np.ldexp(np.rint(np.ldexp(mantissa, BITS)), exponent - BITS)

    return part(np.real(x)) + 1j * part(np.imag(x))


def halves(z, x):
    """z x as the two complex numbers that its real products form, in one of the two ways of splitting them."""
    return z.real * x, 1j * z.imag * x


def products(z, x, fused):
    """Values that fl(z x) may take."""
    for one, other in (halves(z, x), halves(x, z)):
        for inner, outer in ((one, other), (other, one)):
            yield rn(rn(inner) + (outer if fused else rn(outer)))


def additions(p, z, x, fused):
    """Values that fl(p + z x) may take where z x is added part by part."""
    for one, other in (halves(z, x), halves(x, z)):
        for inner, outer in ((one, other), (other, one)):
            yield rn(rn(p + (inner if fused else rn(inner))) + (outer if fused else rn(outer)))


def numbers(rng, n):
    return rn((rng.normal(size=n) + 1j * rng.normal(size=n)) * 2.0 ** rng.integers(-2, 2, n))


def bound_of(states, value, error, fused, *arguments):
    """E after one step with the model of BITS bits; every mode of the state is a sample."""
    drive = Drive(value[None, None, None], np.asarray(error)[None, None, None, None])
    model = RoundingModel(SMALL, 0.0, fused=fused)
    (found,) = states(*(iter([(slice(0, 1), drive)]) if a is Drive else a for a in arguments), [model])
    return found[1], found[2]


def test_every_contraction_of_a_liquid_step_is_within_its_bound():
    rng = np.random.default_rng(0)
    n = 40_000
    b, a0, x = (numbers(rng, n) for _ in range(3))
    u = rn(rng.normal(size=n)).real
    w = b * u
    exact = (a0 + w) * x + w

    def results(fused):
        for a in (rn(a0 + rn(w)), rn(a0 + w)) if fused else (rn(a0 + rn(w)),):
            for p in products(a, x, fused):
                yield rn(p + rn(w)), False
                if fused:
                    yield rn(p + w), False
            for s in additions(rn(w), a, x, fused):
                yield s, True
            if fused:  # b̄ u contracted with the innermost product
                for one, other in (halves(a, x), halves(x, a)):
                    yield rn(rn(w + rn(one)) + other), True

    for fused in (False, True):
        for model in (fused, None):
            _, E = bound_of(liquid_states, w, SMALL * np.abs(w), model, a0[None], Drive, x[None, None])
            for found, accumulated in results(fused):
                if model is not False or not accumulated:
                    assert np.all(np.abs(found - exact) <= E[0, 0, 0, 0])


def test_every_contraction_of_a_fed_step_is_within_its_bound():
    rng = np.random.default_rng(1)
    n = 40_000
    a, w, x1, x2 = (numbers(rng, n) for _ in range(4))
    exact = a * x2 + w * x1

    def bound(fused):
        """The local part of the formula, whose terms the tests above find in the code."""
        model = RoundingModel(SMALL, 0.0, fused=fused)
        kappa, alpha = model.product, model.addend
        own, fed = np.abs(a * x2), np.abs(w * x1)
        local = kappa * (own + fed) + alpha * np.maximum(own, fed)
        return SMALL * local * (1 + 2 * SMALL) + SMALL * np.abs(exact) * (1 + 2 * SMALL)

    for fused in (False, True):
        for model in (fused, None):
            for p, q in ((products(a, x2, fused), (w, x1)), (products(w, x1, fused), (a, x2))):
                for first in p:
                    for second in products(*q, fused):
                        assert np.all(np.abs(rn(first + second) - exact) <= bound(model))
                    if model is not False:
                        for found in additions(first, *q, fused):
                            assert np.all(np.abs(found - exact) <= bound(model))


@pytest.mark.parametrize(("modes", "additions"), [(1, 0), (2, 0), (5, 0), (8, 2)])
def test_the_read_out_counts_products_tree_and_orders(modes, additions):
    rng = np.random.default_rng(modes)
    C, x = rng.normal(size=(2, 1, modes)) + 1j * rng.normal(size=(2, 1, modes))
    y, error = read_out(C, 2, x, np.zeros((1, 1, modes)), [MODEL], additions)
    assert y == pytest.approx(2 * (C * x).sum(axis=-1).real, rel=2.0**-45)
    depth = int(np.ceil(np.log2(modes)))
    wanted = 2 * (2 + depth + additions) * U * (np.abs(C) * np.abs(x)).sum()
    assert wanted <= error.item() <= wanted * SLACK
    _, inherited = read_out(C, 2, x, np.ones((1, 1, modes)), [MODEL], additions)
    assert inherited.item() >= error.item() + 2 * np.abs(C).sum()


def test_errors_of_a_step_reach_the_next_through_the_transition():
    drive = Drive(np.zeros((2, 1, 1, 1), complex), np.array([1.0, 0.0]).reshape(1, 2, 1, 1, 1))
    ((_, _, E),) = cascade_states(A, iter([(slice(0, 2), drive)]), None, 1, np.zeros((1, 1, 1), complex), [MODEL])
    assert E[0, 0, 0].item() >= 1
    assert abs(A.item()) <= E[0, 0, 1].item() <= abs(A.item()) * SLACK


def test_chunks_cover_every_step_once():
    for elements in (1, 7, 1 << 20):
        covered = [k for part in chunks(100, elements) for k in range(part.start, part.stop)]
        assert covered == list(range(100))
