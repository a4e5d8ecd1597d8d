"""Chains over the newest inputs: each output is that of a chain over its own window, and so are the gradients."""

from __future__ import annotations

import pytest
import torch

from liquid_ssm.backends.eager import windowed as module
from liquid_ssm.backends.eager.cascade import Chain
from liquid_ssm.backends.eager.model import Model
from liquid_ssm.backends.eager.recurrence import run
from liquid_ssm.backends.eager.windowed import run_windowed, run_windowed_vjp
from liquid_ssm.complex_numbers import join


def chain_of(whole, structure, parts):
    system = whole.system(structure, n_modes=2).to_torch()
    return Chain(Model.having(system, system.parameters, parts), order=2)


@pytest.mark.parametrize("parts", [False, True])
@pytest.mark.parametrize("structure", ["diagonal", "dplr", "dense"])
def test_an_output_is_that_of_a_chain_that_starts_at_rest_a_window_ago(whole, structure, parts):
    chain = chain_of(whole, structure, parts)
    u = torch.from_numpy(whole.real(2, 2, 6))
    for window in (2, 3, 9):
        for steps in (None, 1, 4):
            y = run_windowed(chain, u, window, steps)
            for k in range(6):
                own = u[..., max(0, k + 1 - window) : k + 1]
                assert torch.equal(run(chain, own, chain.at_rest(own))[0][..., -1], y[..., k])


@pytest.mark.parametrize("steps", [None, 1, 4])
def test_gradients_do_not_depend_on_the_blocks(whole, steps, monkeypatch):
    chain = chain_of(whole, "dplr", False)
    u, grad = (torch.from_numpy(whole.real(2, 2, 6)) for _ in range(2))
    by_name, grad_u = run_windowed_vjp(chain, u, 3, grad)
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", 1)
    others, other = run_windowed_vjp(chain, u, 3, grad, steps)
    assert torch.equal(grad_u, other)
    for name, gradient in by_name.items():
        assert torch.equal(join(gradient), join(others[name]))


def test_without_a_cotangent_or_steps_there_is_nothing_to_add_up(whole):
    chain = chain_of(whole, "diagonal", True)
    for length in (0, 3):
        u = torch.ones((1, 2, length), dtype=torch.float64)
        by_name, grad_u = run_windowed_vjp(chain, u, 4, None)
        assert set(by_name.values()) == {None}
        assert torch.equal(grad_u, torch.zeros_like(u))
        assert run_windowed(chain, u, 4).shape == u.shape
    u = torch.ones((1, 2, 0), dtype=torch.float64)
    assert run_windowed_vjp(chain, u, 4, u)[1].shape == u.shape
