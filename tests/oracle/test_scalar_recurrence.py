"""One step of each bound holds every term of its derivation (docs/bounds.md), no more and no less."""

from __future__ import annotations

import numpy as np
import pytest

from liquid_ssm.oracle.rounding import ACCUMULATED_PRODUCT, COMPLEX_PRODUCT, RoundingModel
from liquid_ssm.oracle.scalar_recurrence import Drive, cascade_states, chunks, liquid_states, read_out

U = 2.0**-24
MODEL = RoundingModel(U, 0.0, pairwise=True)
A = np.array([[0.5 + 0.5j]])
W = np.array([[[[0.25 - 0.125j]]]])  # (L, batch, H, M)
X = np.array([[[2.0 - 1.0j]]])
# The factors for second-order terms: a few u, never a visible part of the bound.
SLACK = 1 + 2.0**-20


def one_step(states, *arguments, drive_error=0.0):
    drive = Drive(W, np.full((1, *W.shape), drive_error))
    (found,) = states(*(iter([(slice(0, 1), drive)]) if a is Drive else a for a in arguments))
    return found[1], found[2]


def test_a_liquid_step_has_every_term():
    dw = U * abs(W.item())
    _, E = one_step(liquid_states, A, Drive, X, [MODEL], drive_error=dw)
    a, w, x = abs((A + W).item()), abs(W.item()), abs(X.item())
    new = abs(((A + W) * X + W).item())
    wanted = U * ((a + w) * x + ACCUMULATED_PRODUCT * a * x + (1 + np.sqrt(2)) * w + 2 * new)
    assert wanted <= E.item() <= wanted * SLACK


def test_a_linear_step_and_a_fed_one_have_every_term():
    dw = U * abs(W.item())
    start = np.array([[[2.0 - 1.0j]]])
    x, E = one_step(cascade_states, A, Drive, None, 2, start, [MODEL], drive_error=dw)
    a, w, x0 = abs(A.item()), abs(W.item()), abs(start.item())
    first = U * (COMPLEX_PRODUCT * a * x0 + (1 + np.sqrt(2)) * w + 2 * abs(x[0].item()))
    second = U * ((1 + COMPLEX_PRODUCT) * w * x0 + 2 * abs(x[1].item()))
    assert first <= E[0, 0].item() <= first * SLACK
    assert second <= E[0, 1].item() <= second * SLACK


def test_a_chain_multiplies_by_an_exact_real_input():
    link = np.full((1, 1, 1, 1), 3.0)
    x, E = one_step(cascade_states, A, Drive, link, 2, X, [MODEL])
    second = U * (3 * abs(X.item()) + 2 * abs(x[1].item()))
    assert second <= E[0, 1].item() <= second * SLACK


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
