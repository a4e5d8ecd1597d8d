"""Transported errors against brute force on the augmented system, and blocks against one long block."""

from __future__ import annotations

import numpy as np
import pytest

from liquid_ssm.oracle import error_transport
from liquid_ssm.oracle.error_transport import SECOND_ORDER, Arrivals, ConstantBlocks, Frame, Steps, varying_block

T, M, K = 20, 3, 2
# The same sums of products in another order: far below the room that the bound takes.
ROOM = SECOND_ORDER * (1 + 2.0**-30)


def complex_normal(rng, *shape):
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


class Problem:
    """One channel on its full state, with the pairs of a conjugate system or without, and local errors (K, p, T, M)."""

    def __init__(self, order, pairs, link=None, seed=0):
        rng = np.random.default_rng(seed)
        self.order, self.pairs, self.link = order, pairs, link
        F, G = complex_normal(rng, 2, M, M)
        self.A = np.block([[F, G], [G.conj(), F.conj()]]) if pairs else F
        self.A = 0.9 * self.A / np.linalg.norm(self.A, 2)
        c = complex_normal(rng, M)
        self.C = np.concatenate([c, c.conj()]) if pairs else c
        self.w = 0.3 * complex_normal(rng, T, M)
        self.u = rng.normal(size=(T, 1))
        self.local = rng.random((K, order, T, M))
        self.frame = Frame(pairs)

    @property
    def full(self):
        return len(self.A)

    def both(self, v):
        return np.concatenate([v, v.conj()], axis=-1) if self.pairs else v

    def transition(self, k):
        """Of step k on all orders of the full state, as one matrix."""
        eye = np.eye(self.order)
        own = self.A + (np.diag(self.both(self.w[k])) if self.link == "liquid" else 0)
        fed = {"drive": self.both(self.w[k]), "input": np.full(self.full, self.u[k, 0])}.get(self.link)
        return np.kron(eye, own) + (0 if fed is None else np.kron(np.eye(self.order, k=-1), np.diag(fed)))

    def brute(self, summed):
        """Σ_j |C M_k … M_{j+1}| λ_j (K, T), and ‖Σ_j |M_k … M_{j+1}| λ_j‖ of the stored half (K, p, T)."""
        read = np.kron(np.ones(self.order) if summed else np.eye(self.order)[-1], self.C)
        y, norm = np.zeros((K, T)), np.zeros((K, self.order, T))
        local = self.both(self.local).swapaxes(1, 2).reshape(K, T, -1)
        for k in range(T):
            product, total = np.eye(self.order * self.full, dtype=complex), np.zeros((K, self.order * self.full))
            for j in range(k, -1, -1):
                y[:, k] += local[:, j] @ np.abs(read @ product)
                total += local[:, j] @ np.abs(product).T
                product = product @ self.transition(j)
            half = total.reshape(K, self.order, -1)[..., :M]
            norm[..., k] = np.linalg.norm(half, axis=-1)
        return y, norm

    def steps(self, part=slice(None)):
        A, C = self.frame.matrix(self.A), self.frame.row(self.C)
        shift = self.w[part] if self.link == "liquid" else None
        feed = {"drive": self.w[part], "input": self.u[part]}.get(self.link)
        return Steps(ConstantBlocks(A, C, self.frame), shift, feed)

    def arrivals(self):
        return Arrivals(self.frame, K, self.order, self.full)

    def run(self, part, start, summed):
        return varying_block(self.steps(part), self.local[:, :, part], start, summed=summed)


PROBLEMS = [(1, None), (1, "liquid"), (2, "drive"), (3, "drive"), (2, "input"), (3, "input")]


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize(("order", "link"), PROBLEMS)
@pytest.mark.parametrize("summed", [False, True])
def test_outputs_are_the_exact_sensitivities(order, link, pairs, summed):
    problem = Problem(order, pairs, link)
    wanted, sizes = problem.brute(summed)
    y, norm = problem.run(slice(0, T), problem.arrivals(), summed)
    assert np.all(y >= wanted)
    assert np.all(y <= wanted * ROOM)
    # norms inside a block are bounded coarsely, but not at its end
    assert np.all(norm[..., -1] <= sizes[..., -1] * ROOM)


@pytest.mark.parametrize(("order", "link"), [(1, "liquid"), (3, "drive"), (3, "input")])
@pytest.mark.parametrize("cuts", [(7,), (3, 4, 12), tuple(range(1, T))])
def test_blocks_join_as_if_they_were_one(order, link, cuts):
    """Products since earlier blocks are exact, so cutting costs only that a block's own terms are gathered first."""
    problem = Problem(order, True, link)
    wanted, _ = problem.brute(True)
    start, pieces = problem.arrivals(), []
    for first, last in zip((0, *cuts), (*cuts, T), strict=True):
        pieces.append(problem.run(slice(first, last), start, True)[0])
    joined = np.concatenate(pieces, axis=-1)
    assert np.all(joined >= wanted)
    assert np.all(joined <= 4 * wanted)


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize(("order", "link"), PROBLEMS)
def test_actual_errors_stay_below(order, link, pairs, monkeypatch):
    """Random errors within λ, propagated exactly, never exceed either bound, also beyond the remembered blocks."""
    monkeypatch.setattr(error_transport, "_REMEMBERED", 2)
    for seed in range(5):
        problem = Problem(order, pairs, link, seed)
        rng = np.random.default_rng(seed)
        e, start = np.zeros((order, problem.full), complex), problem.arrivals()
        for first in range(0, T, 4):
            y, norm = problem.run(slice(first, first + 4), start, False)
            for k in range(4):
                own = problem.local[0, :, first + k] * np.exp(2j * np.pi * rng.random((order, M)))
                e = (problem.transition(first + k) @ e.ravel()).reshape(e.shape) + problem.both(own)
                assert abs((problem.C @ e[-1]).real) <= y[0, k]
                assert np.all(np.linalg.norm(e[:, :M], axis=1) <= norm[0, :, k])
        assert np.any(start.rest > 0)


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize(("order", "link"), PROBLEMS)
@pytest.mark.parametrize(("block", "remembered"), [(4, 1), (4, 3), (10, 1), (T, 1)])
def test_the_error_of_one_step_is_never_lost(order, link, block, remembered, pairs, monkeypatch):
    """From step 0 through blocks, through norms between them, and out of memory."""
    monkeypatch.setattr(error_transport, "_REMEMBERED", remembered)
    problem = Problem(order, pairs, link)
    problem.local[:, :, 1:] = 0
    rng = np.random.default_rng(1)
    start, product = problem.arrivals(), np.eye(order * problem.full)
    own = problem.local[0, :, 0] * np.exp(2j * np.pi * rng.random((100, order, M)))
    e = problem.both(own).reshape(100, -1)
    for first in range(0, T, block):
        y, norm = problem.run(slice(first, first + block), start, False)
        for k in range(first, first + block):
            product = problem.transition(k) @ product if k else product
            found = (e @ product.T).reshape(100, order, -1)
            assert np.abs((found[:, -1] @ problem.C).real).max() <= y[0, k - first]
            assert np.all(np.linalg.norm(found[..., :M], axis=-1).max(axis=0) <= norm[0, :, k - first])


@pytest.mark.parametrize("pairs", [False, True])
def test_norms_of_a_chain_are_those_of_its_products(pairs):
    """Inside a block ‖e‖₂ of order p is at most Σ_j Σ_q ‖coefficient q of Φ(k, j)‖₂ ‖λ of order p − q‖₂."""
    problem = Problem(3, pairs, "input")
    start = problem.arrivals()
    start.norm[:] = [1.0, 2.0, 3.0]
    _, norm = problem.run(slice(0, T), start, True)
    added = np.linalg.norm(problem.local, axis=3)
    for k in range(T - 1):
        wanted, product = np.zeros((K, 3)), np.eye(3 * problem.full)
        for j in range(k, -2, -1):
            sizes = [
                np.linalg.norm(product[q * problem.full : (q + 1) * problem.full, : problem.full], 2) for q in range(3)
            ]
            own = added[:, :, j] if j >= 0 else np.array([1.0, 2.0, 3.0])
            for p in range(3):
                wanted[:, p] += sum(sizes[q] * own[..., p - q] for q in range(p + 1))
            product = product @ problem.transition(j)
        assert np.all(norm[..., k] >= wanted * (1 - 2.0**-30))
        assert np.all(norm[..., k] <= wanted * ROOM)


def test_models_do_not_mix():
    """Several models at once give what each gives alone."""
    problem = Problem(2, True, "drive")
    together, norm = problem.run(slice(0, T), problem.arrivals(), True)
    for i in range(K):
        alone = Problem(2, True, "drive")
        alone.local = problem.local[[i, i]]
        y, size = alone.run(slice(0, T), alone.arrivals(), True)
        assert np.allclose(y, together[[i, i]], rtol=2.0**-45)
        assert np.allclose(size, norm[[i, i]], rtol=2.0**-45)


@pytest.mark.parametrize("pairs", [False, True])
def test_a_frame_stores_the_same_map(pairs):
    problem = Problem(1, pairs)
    frame, rng = problem.frame, np.random.default_rng(1)
    A, C = frame.matrix(problem.A), frame.row(problem.C)
    e, w = complex_normal(rng, 2, M)
    stored = np.concatenate([e.real, e.imag]) if pairs else e
    moved = (problem.A @ problem.both(e))[:M]
    assert np.allclose(A @ stored, np.concatenate([moved.real, moved.imag]) if pairs else moved)
    assert np.isclose((C @ stored).real, (problem.C @ problem.both(e)).real)
    scaled = (problem.C * problem.both(w)) @ problem.both(e)
    assert np.isclose((frame.scaled(C, w) @ stored).real, scaled.real)
    assert np.allclose(frame.scaled(C, np.array([0.5])), 0.5 * C)
    # the same norm, and moduli that are reached by some e of those sizes
    assert np.isclose(np.linalg.norm(A, 2), np.linalg.norm(problem.A, 2))
    weight = 2 if pairs else 1
    assert np.allclose(frame.row_sizes(C), weight * np.abs(problem.C[:M]))
    F, G = problem.A[:M, :M], problem.A[:M, M:]
    assert np.allclose(frame.sizes(A), np.abs(F) + (np.abs(G) if pairs else 0))


def test_constant_blocks_agree_with_the_general_ones():
    problem = Problem(1, True)
    steps = problem.steps()
    wanted, _ = problem.brute(False)
    y, norm = steps.powers.advance(problem.local[:, 0], np.zeros((K, T)), np.zeros(K))
    assert np.all(y >= wanted)
    assert np.all(y <= wanted * ROOM)
    one = np.linalg.norm(problem.local[:, 0], axis=-1)
    powers = [np.linalg.norm(np.linalg.matrix_power(problem.A, d), 2) for d in range(T)]
    assert norm[:, -1] == pytest.approx(one[:, ::-1] @ powers, rel=2.0**-8)
    # what arrives by its norm alone, and what was there before
    more, _ = steps.powers.advance(problem.local[:, 0], np.ones((K, T)), np.ones(K))
    assert np.all(more > y)


def test_constant_blocks_are_computed_once_for_each_matrix_and_block(monkeypatch):
    powers = Problem(1, True).steps().powers
    one = ConstantBlocks.of(powers.A, powers.C, powers.frame)
    assert ConstantBlocks.of(powers.A.copy(), powers.C.copy(), powers.frame) is one
    other = ConstantBlocks.of(powers.A * 0.5, powers.C, powers.frame)
    assert other.norms[1] == pytest.approx(one.norms[1] / 2)
    monkeypatch.setattr(error_transport, "BLOCK", 7)
    assert len(ConstantBlocks.of(powers.A, powers.C, powers.frame).norms) == 8


def test_what_is_only_known_by_its_norm_is_carried_by_norms():
    product = np.array([[[0.5, 0], [0, 0.25]], [[3.0, 0], [0, 0]]], complex)
    start = Arrivals(Frame(False), 1, 2, 2)
    start.rest[:] = [1.0, 10.0]
    start.advance(product, np.zeros((1, 2, 2)))
    # order 1 through the first coefficient alone, order 2 from itself and from order 1
    assert np.all(start.rest >= [0.5, 5 + 3])
    assert np.all(start.rest <= np.array([0.5, 8]) * SECOND_ORDER)
    assert np.array_equal(start.norm, start.rest)
