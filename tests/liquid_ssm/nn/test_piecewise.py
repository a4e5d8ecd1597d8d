"""Pieces of time as one operation: the gradients of every order, and only those that are wanted."""

from __future__ import annotations

import pytest
import torch

from liquid_ssm.nn import SSMLayer, piecewise, sampling
from liquid_ssm.tensors import each_part

OPTIONS = {
    "s4": {"mode": "s4"},
    "liquid mimo": {"structure": "mimo"},
    "kb": {"mode": "kb", "correlations": "adjacent", "order": 2},
    "pb": {"mode": "pb", "order": 2},
    "pb adjacent": {"mode": "pb", "correlations": "adjacent", "order": 2, "init": "legs"},
    "adams-bashforth": {"discretization": "adams-bashforth", "dt_max": 0.01},
}


@pytest.fixture(autouse=True)
def _pieces_of_two_steps(monkeypatch):
    monkeypatch.setattr(sampling, "_STEPS", 2)


def given(name):
    """A layer and inputs of five steps: two whole pieces and one of one step."""
    layer = SSMLayer(2, 4, backend="torch", seed=0, **OPTIONS[name]).double()
    generator = torch.Generator().manual_seed(0)
    u = 0.3 * torch.randn(1, 5, 2, generator=generator, dtype=torch.float64)
    return layer, u, 0.5 + torch.rand(1, 5, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", OPTIONS)
def test_gradients_of_every_order_are_those_of_differences(name, in_double):
    layer, u, dt = given(name)
    state = layer.prefill(u.flip(1), dt=dt)[1]
    parts = [part.detach() for part in (state if isinstance(state, tuple) else (state,)) if part is not None]
    given_parts = [part.requires_grad_() for part in parts]

    def run(u, dt, *rest):
        held = iter(rest[: len(given_parts)])
        y, final = layer(u, dt=dt, state=each_part(state, lambda _: next(held)), return_state=True)
        return y, *(part for part in (final if isinstance(final, tuple) else (final,)) if part is not None)

    inputs = (u.requires_grad_(), dt.requires_grad_(), *given_parts, *layer.parameters())
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, inputs, fast_mode=True)


@pytest.mark.parametrize("name", OPTIONS)
def test_it_is_one_record_that_gives_what_is_wanted(name, monkeypatch, in_double):
    layer, u, dt = given(name)
    weights = torch.randn(5, generator=torch.Generator().manual_seed(1))[:, None]

    def gradients(*wanted):
        return torch.autograd.grad((weights * layer(u, dt=dt)).sum(), wanted, allow_unused=True)

    alone = []
    for tensor in (u, dt, *layer.parameters()):
        for other in (u, dt, *layer.parameters()):
            other.requires_grad_(other is tensor)
        alone += gradients(tensor)
    for tensor in (u, dt, *layer.parameters()):
        tensor.requires_grad_()
    together = gradients(u, dt, *layer.parameters())
    monkeypatch.setattr(piecewise, "recomputes", lambda module: False)
    apart = gradients(u, dt, *layer.parameters())
    for one, each, other in zip(together, alone, apart, strict=True):
        assert torch.equal(one, each)
        # The same operations, and sums over the pieces from the last to the first.
        assert torch.equal(one, other)


def test_nothing_is_recorded_without_gradients():
    layer, u, dt = given("pb")
    with torch.no_grad():
        assert torch.equal(layer(u, dt=dt), layer(u.requires_grad_(), dt=dt).detach())
    for parameter in layer.parameters():
        parameter.requires_grad_(False)
    assert layer(u.detach(), dt=dt).grad_fn is None
