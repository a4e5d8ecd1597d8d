"""States that forward passes keep for backward passes: no bit changes, and they are used, let go and never mistaken."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch
from torch.utils.checkpoint import checkpoint

from liquid_ssm.backends import _kept
from liquid_ssm.backends.operators.cascade import cascade, cascade_backward
from liquid_ssm.backends.operators.joint_scan import joint_scan, joint_scan_backward
from liquid_ssm.backends.operators.scan import scan, scan_backward

# An operator, its backward operator, orders of its state (None: it has none), its options.
CASES = {
    "linear": (scan, scan_backward, (), (False,)),
    "liquid": (scan, scan_backward, (), (True,)),
    "truncated": (cascade, cascade_backward, (2,), (2, "truncated", None)),
    "chain": (cascade, cascade_backward, (2,), (2, "chain", None)),
    "joint": (joint_scan, joint_scan_backward, None, (3,)),
}


@pytest.fixture
def traffic(monkeypatch):
    """What is kept, and for each backward pass whether it got something."""
    kept, got = [], []
    keep, look = _kept.keep, _kept.kept

    def looked(*args):
        found = look(*args)
        got.append(found is not None)
        return found

    monkeypatch.setattr(_kept, "keep", lambda states: (kept.append(weakref.ref(states)), keep(states)))
    monkeypatch.setattr(_kept, "kept", looked)
    return kept, got


def arguments(draw, name, length=150, *, batch=3, n_channels=3, rank=1, real=False, pairs=True, backend=""):
    op, backward, orders, options = CASES[name]
    numbers = draw.real if real else draw.complex
    state = [] if orders is None else [0.1 * numbers(batch, *orders, n_channels, 4)]
    if state and backend == "numba-wide-state":
        state = [state[0].to(torch.float64 if real else torch.complex128)]
    parameters = draw.parameters("dplr", n_channels=n_channels, n_modes=4, rank=rank, real=real)
    return op, backward, [0.3 * draw.real(batch, n_channels, length), *parameters, *state, *options, pairs, backend]


def gradients_of(op, args, holds, weights=None):
    leaves = holds.leaves(args, True)
    results = holds.results(op, leaves)
    weights = weights or [torch.ones_like(result) for result in results]
    torch.autograd.backward(results, weights)
    return holds.gradients(leaves)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    "options",
    [
        {"length": 2},
        {"length": 64, "rank": 2},
        {"length": 65, "real": True, "pairs": False},
        {"length": 200, "pairs": False, "batch": 1},
        {"backend": "numba-wide-state"},
    ],
)
def test_bits_are_those_of_states_that_are_computed_again(draw, holds, traffic, name, options):
    op, backward, args = arguments(draw("float32"), name, **options)
    results = holds.results(op, args)
    weights = [torch.full_like(result, 0.1) for result in results]
    found = [g for g in gradients_of(op, args, holds, weights) if g is not None]
    kept, got = traffic
    assert (len(kept), got) == (1, [True])
    expected = backward(*weights, *args)
    assert got == [True, False]
    holds.are_equal(found, expected)


@pytest.mark.parametrize("name", CASES)
def test_what_is_kept_is_used(draw, holds, monkeypatch, name):
    op, _, args = arguments(draw("float64"), name)
    expected = gradients_of(op, args, holds)
    look = _kept.kept
    monkeypatch.setattr(_kept, "kept", lambda *given: look(*given) + 1)
    assert not torch.equal(gradients_of(op, args, holds)[1], expected[1])


def test_nothing_is_kept_without_gradients(draw, holds, traffic):
    for name in CASES:
        op, _, args = arguments(draw("float32"), name)
        op(*args)
        with torch.no_grad():
            op(*holds.leaves(args, True))
    assert traffic == ([], [])


def test_windows_keep_nothing(draw, holds, traffic):
    args = arguments(draw("float32"), "chain")[2]
    args[6:9] = [None, 2, "chain"]
    gradients_of(cascade, [*args[:9], 150, *args[10:]], holds)
    assert traffic == ([], [])


def test_what_is_kept_is_let_go_after_the_backward_pass(draw, holds, traffic):
    op, _, args = arguments(draw("float32"), "linear")
    y, final = op(*holds.leaves(args, True))
    gc.collect()
    (states,), _ = traffic
    assert states() is not None
    (y.sum() + final.real.sum()).backward()
    gc.collect()
    assert states() is None


def test_a_graph_may_be_walked_twice(draw, holds, traffic):
    op, _, args = arguments(draw("float32"), "liquid")
    leaves = holds.leaves(args, True)
    y, _ = op(*leaves)
    twice = [torch.autograd.grad(y.sum(), leaves[:4], retain_graph=retain) for retain in (True, False)]
    holds.are_equal(*twice)
    assert traffic[1] == [True, True]


def test_cotangents_side_by_side_find_their_own_states(draw, traffic):
    """vmap of the backward pass has other rows than the forward pass had; one row and two have one tile."""
    op, _, args = arguments(draw("float32", whole=True), "linear", length=3, batch=1, n_channels=1)
    u = args[0].requires_grad_()
    y, _ = op(*args)
    weights = draw("float32", seed=1, whole=True).real(2, *y.shape)
    together = torch.vmap(lambda weight: torch.autograd.grad(y, u, weight, retain_graph=True)[0])(weights)
    alone = [torch.autograd.grad(y, u, weight, retain_graph=True)[0] for weight in weights]
    assert torch.equal(together, torch.stack(alone))
    assert traffic[1] == [False, True, True]


def test_functional_gradients_compute_states_again(draw, holds, traffic):
    op, _, args = arguments(draw("float32"), "liquid")
    found = torch.func.grad(lambda u: op(u, *args[1:])[0].sum())(args[0])
    assert traffic == ([], [False])
    leaves = [args[0].clone().requires_grad_(), *args[1:]]
    op(*leaves)[0].sum().backward()
    holds.are_equal([found], [leaves[0].grad])


def test_forward_passes_that_are_repeated_keep_anew(draw, holds, traffic):
    op, _, args = arguments(draw("float32"), "truncated")
    leaves, again = holds.leaves(args, True), holds.leaves(args, True)
    op(*leaves)[0].sum().backward()
    checkpoint(lambda *given: op(*given)[0], *again, use_reentrant=False).sum().backward()
    holds.are_equal(holds.gradients(again), holds.gradients(leaves))
    kept, got = traffic
    assert (len(kept), got) == (3, [True, True])


def test_inputs_that_change_in_between_are_an_error(draw, holds):
    op, _, args = arguments(draw("float32"), "linear")
    u = args[0].clone().requires_grad_()
    scaled = u * 1
    y, _ = op(scaled, *args[1:])
    scaled.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_states_of_other_rows_are_not_taken():
    states = np.zeros((3, 4), "float32")
    with _kept.handing(states):
        assert _kept.kept((3, 4), "float32") is states
        assert _kept.kept((4, 3), "float32") is None
        assert _kept.kept((3, 4), "float64") is None
    assert _kept.kept((3, 4), "float32") is None
