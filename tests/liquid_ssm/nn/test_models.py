"""The named models: what each is, and that it runs, streams and learns."""

from __future__ import annotations

import pytest
import torch

from liquid_ssm import nn

TABLE = {
    "liquid_s4": ("dplr", "liquid", "bilinear"),
    "liquid_s4_truncated": ("dplr", "truncated(3)", "bilinear"),
    "liquid_s4_kb": ("dplr", "kb(3, adjacent)", "bilinear"),
    "liquid_s4_pb": ("dplr", "pb(3, adjacent)", "bilinear"),
    "s4_legs": ("dplr", "s4", "bilinear"),
    "s4_fout": ("dplr", "s4", "bilinear"),
    "s4_legs_fout": ("dplr", "s4", "bilinear"),
    "s4d_legs": ("diagonal", "s4", "bilinear"),
    "s4d_inv": ("diagonal", "s4", "bilinear"),
    "s4d_lin": ("diagonal", "s4", "bilinear"),
    "dss": ("diagonal", "s4", "zoh"),
    "s5": ("mimo", "s4", "zoh"),
    "liquid_s5": ("mimo", "liquid", "zoh"),
    "linear_ltc": ("diagonal", "liquid", "bilinear"),
}


def test_the_table_lists_every_named_constructor():
    assert set(nn.MODELS) == {*TABLE, "ltc"}
    assert all(getattr(nn, name) is row for name, row in nn.MODELS.items())
    assert all(name in nn.__all__ for name in nn.MODELS)
    assert len({row.title for row in nn.MODELS.values()}) == len(nn.MODELS)


@pytest.mark.parametrize("name", TABLE)
def test_each_is_what_the_table_says_and_runs_streams_and_learns(name, in_double):
    layer = nn.MODELS[name](4, 8, seed=1, backend="first")
    assert (layer.structure, layer.spec.label, layer.discretization) == TABLE[name]
    u = 0.3 * torch.randn(2, 12, 4, generator=torch.Generator().manual_seed(0))
    y = layer(u)
    state, steps = None, []
    with torch.no_grad():
        for k in range(12):
            y_k, state = layer.step(u[:, k], state)
            steps.append(y_k)
    # 12 steps of at most 50 roundings, three orders among them.
    allowed = 600 * torch.finfo(torch.float64).eps * float(y.detach().abs().max())
    assert torch.allclose(torch.stack(steps, 1), y, rtol=0, atol=allowed)
    y.square().sum().backward()
    assert all(p.grad.abs().max() > 0 for p in layer.parameters())


def test_options_take_the_place_of_those_of_the_row():
    assert nn.liquid_s4_pb(2, 4, order=2, correlations="all").spec.label == "pb(2, all)"


def test_the_liquid_time_constant_network_stands_in_a_model_like_the_others(in_double):
    assert isinstance(nn.ltc(3, 5), nn.LTC)
    model = nn.SequenceModel(2, 3, n_layers=2, n_channels=4, layer=lambda features: nn.ltc(features, features)).eval()
    u = torch.randn(2, 9, 2, generator=torch.Generator().manual_seed(0))
    state = model.initial_state(2)
    with torch.no_grad():
        for k in range(9):
            y, state = model.step(u[:, k], state)
        # 9 steps of 6 unfolded ones of at most 20 roundings, in 2 layers, of numbers below 10.
        assert torch.allclose(y, model(u), rtol=0, atol=9 * 6 * 20 * 2 * 10 * torch.finfo(torch.float64).eps)
