"""Operators on signals that lie in memory as (batch, L, H): results in that order, real and fake ones alike."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from liquid_ssm.arrays import is_channels_last
from liquid_ssm.backends.operators.added_correlations import add_correlations, add_correlations_backward
from liquid_ssm.backends.operators.cascade import cascade, cascade_backward
from liquid_ssm.backends.operators.joint_scan import joint_scan, joint_scan_backward
from liquid_ssm.backends.operators.scan import scan, scan_backward

STRUCTURES = ("diagonal", "dplr")
# An operator, its backward operator, orders of its state (None: it has none), its options, whether it keeps the order.
CASES = {
    "scan": (scan, scan_backward, (), (True,), True),
    "truncated": (cascade, cascade_backward, (2,), (2, "truncated", None), True),
    "chain": (cascade, cascade_backward, (2,), (2, "chain", None), True),
    "window": (cascade, cascade_backward, None, (2, "chain", 3), False),
    "joint": (joint_scan, joint_scan_backward, None, (3,), True),
}
KINDS = ("elementary", "running")


def swapped(tensor):
    return tensor.transpose(1, 2).contiguous().transpose(1, 2)


def arguments(draw, name, structure, batch=2, length=5):
    op, backward, orders, options, keeps = CASES[name]
    state = [] if op is joint_scan else [None if orders is None else draw.complex(batch, *orders, 3, 3)]
    args = [draw.real(batch, 3, length), *draw.parameters(structure, n_channels=3), *state, *options, True, ""]
    return op, backward, args, keeps


def every(found):
    return found if isinstance(found, (tuple, list)) else [found]


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("name", CASES)
def test_bits_are_those_of_contiguous_signals(draw, holds, name, structure):
    op, _, args, keeps = arguments(draw("float32"), name, structure, length=70)
    results, gradients = [], []
    for u in (args[0], swapped(args[0])):
        leaves = [u.clone().requires_grad_(), *holds.leaves(args[1:], True)]
        assert is_channels_last(leaves[0]) == is_channels_last(u)
        found = holds.results(op, leaves)
        assert is_channels_last(found[0]) == (keeps and is_channels_last(u))
        # Cotangents in the order of y and in the other one.
        for cotangent in (torch.ones_like(found[0]), swapped(torch.ones_like(found[0]))):
            pulled = torch.autograd.grad(found[0], leaves[0], cotangent, retain_graph=True)
            assert is_channels_last(pulled[0]) == (keeps and is_channels_last(u))
        found[0].square().sum().backward()
        results.append(found)
        gradients.append(holds.gradients(leaves))
    holds.are_equal(*results)
    holds.are_equal(*gradients)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("name", CASES)
def test_torch_finds_them_well_defined(draw, name, structure):
    op, backward, args, _ = arguments(draw(), name, structure)
    y = every(op(*args))[0]
    args[0] = swapped(args[0])
    for grad in (False, True):
        given = [a.requires_grad_(grad) if isinstance(a, torch.Tensor) else a for a in args]
        assert set(torch.library.opcheck(op, given).values()) == {"SUCCESS"}
    args = [a.detach() if isinstance(a, torch.Tensor) else a for a in args]
    for cotangent in (y, swapped(y)):
        cotangents = [cotangent] if op is joint_scan else [cotangent, None]
        assert set(torch.library.opcheck(backward, (*cotangents, *args)).values()) == {"SUCCESS"}


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("batch", "length"), [(2, 5), (1, 5), (2, 1), (0, 5)])
def test_fake_results_have_the_strides_of_real_ones(draw, name, structure, batch, length):
    op, backward, args, _ = arguments(draw(), name, structure, batch, length)
    args[0] = swapped(args[0])
    cotangents = [swapped(args[0])] if op is joint_scan else [swapped(args[0]), None]
    for called, given in ((op, args), (backward, [*cotangents, *args])):
        real = called(*given)
        with FakeTensorMode() as mode:
            fakes = [mode.from_tensor(a) if isinstance(a, torch.Tensor) else a for a in given]
            fake = called(*fakes)
        for one, other in zip(every(real), every(fake), strict=True):
            assert (one.shape, one.dtype) == (other.shape, other.dtype)
            assert one.numel() == 0 or one.stride() == other.stride()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_transposed_view_compiles_whole(draw, holds, name, backend):
    op, _, args, _ = arguments(draw("float32"), name, "diagonal")
    args[0] = args[0].transpose(1, 2).contiguous()

    def layer(x, *given):
        y = every(op((0.5 * x).transpose(1, 2), *given))[0]
        return y.transpose(1, 2).contiguous() + x

    holds.is_compiled_whole(layer, args, backend)


@pytest.mark.parametrize("name", CASES)
def test_vmap_is_a_loop(draw, holds, name):
    op, _, args, _ = arguments(draw(whole=True), name, "diagonal", length=4)
    args[0] = swapped(args[0])
    if name == "scan":
        args[7] = False  # liquid powers leave the whole numbers that are exact
    results = len(holds.results(op, args))
    holds.is_mapped(op, args, [0, *[None] * (len(args) - 1)], results)


def added(draw, kind, batch=2, length=5, n_channels=3):
    """Arguments of `add_correlations` of order 3: y, u, responses, sums and inputs before."""
    elementary = kind == "elementary"
    before = draw.real(3 - (not elementary), batch, n_channels), None if elementary else draw.real(batch, n_channels, 2)
    return [*(draw.real(batch, n_channels, length) for _ in "yu"), draw.real(2, n_channels), *before, 3, kind, ""]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_channels", [3, 16, 21])
def test_bits_of_added_correlations(draw, holds, kind, n_channels):
    args = added(draw("float32"), kind, 2, 70, n_channels)
    results, gradients = [], []
    for y in (args[0], swapped(args[0])):
        for u in (args[1], swapped(args[1])):
            leaves = [y, u.clone().requires_grad_(), *holds.leaves(args[2:], True)]
            found = holds.results(add_correlations, leaves)
            assert is_channels_last(found[0]) == is_channels_last(u)
            for cotangent in (torch.ones_like(found[0]), swapped(torch.ones_like(found[0]))):
                pulled = torch.autograd.grad(found[0], leaves[1], cotangent, retain_graph=True)
                assert is_channels_last(pulled[0]) == is_channels_last(u)
            sum(part.square().sum() for part in found).backward()
            results.append(found)
            gradients.append(holds.gradients(leaves))
    for others in (results, gradients):
        for other in others[1:]:
            holds.are_equal(others[0], other)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("batch", "length"), [(2, 5), (1, 5), (2, 1), (0, 5)])
def test_fake_results_of_added_correlations(draw, kind, batch, length):
    args = added(draw(), kind, batch, length)
    args[1] = swapped(args[1])
    results = list(add_correlations(*args))
    for called, given in ((add_correlations, args), (add_correlations_backward, [*results, *args[1:]])):
        real = called(*given)
        with FakeTensorMode() as mode:
            fake = called(*(mode.from_tensor(a) if isinstance(a, torch.Tensor) else a for a in given))
        for one, other in zip(real, fake, strict=True):
            assert (one.shape, one.dtype) == (other.shape, other.dtype)
            assert one.numel() == 0 or one.stride() == other.stride()
        if batch:
            assert set(torch.library.opcheck(called, given).values()) == {"SUCCESS"}
