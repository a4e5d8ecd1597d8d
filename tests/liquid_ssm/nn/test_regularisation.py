"""The regulariser of the gain: what it adds up, and that training with it reaches its bound."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from liquid_ssm.errors import ParameterError
from liquid_ssm.nn import SSMLayer
from liquid_ssm.nn.regularisation import gain_penalty, recorded_inputs
from liquid_ssm.nn.stability import gain, input_limit


def layer_of(n_channels: int = 3, n_state: int = 8, **options: Any) -> SSMLayer:
    return SSMLayer(n_channels, n_state, **{"backend": "first", "seed": 1, "liquid_scale": 1.0, **options})


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Stack(nn.Module):
    """Two layers behind a projection."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Linear(2, 3)
        self.first, self.second = layer_of(**options), layer_of(**options)

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        return self.second(torch.tanh(self.first(self.encoder(u))))


def test_the_penalty_is_its_formula() -> None:
    model, u = Stack(), normal(2, 30, 2) * 3
    with recorded_inputs(model) as inputs:
        model(u)
    assert [given.name for given in inputs] == ["first", "second"]
    expected = []
    for given in inputs:
        with torch.no_grad():
            system = given.layer.system()
        drive = system.B_bar * given.u.abs().amax((0, 1))[:, None]
        excess = torch.maximum((system.A_bar + drive).abs(), (system.A_bar - drive).abs()) - 0.9
        expected.append(excess.clamp(min=0).square().mean().detach())
    assert min(expected) > 0
    # The same operations.
    assert torch.equal(gain_penalty(inputs, 0.9), torch.stack(expected).mean())


@pytest.mark.parametrize("structure", ["diagonal", "dplr", "mimo"])
def test_training_with_the_penalty_brings_the_gain_below_the_bound(structure: str) -> None:
    bound, ends = 1.05, []
    for weight, steps in ((0.0, 10), (1000.0, 40)):
        model, u = Stack(structure=structure), normal(2, 30, 2) * (60 if structure == "mimo" else 3)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        gains = []
        for _ in range(steps):
            optimizer.zero_grad()
            with recorded_inputs(model) as inputs:
                y = model(u)
            # A task that wants larger outputs.
            loss = weight * gain_penalty(inputs, bound) - 1e-3 * y.square().mean().log()
            loss.backward()
            optimizer.step()
            gains.append(max(float(gain(given.layer.system(), given.u.mT).detach()) for given in inputs))
        ends.append((gains[0], gains[-1]))
    (_, without), (first, last) = ends
    assert without > bound
    assert first > bound > last


def test_the_penalty_is_zero_within_the_limits_and_positive_just_beyond() -> None:
    layer = layer_of()
    limit = input_limit(layer.system(), 1.05)
    for factor, zero in ((0.999, True), (1.001, False)):
        with recorded_inputs(layer) as inputs:
            layer((factor * limit)[None, None])
        assert (float(gain_penalty(inputs, 1.05).detach()) == 0) is zero


def test_recording_looks_at_true_inputs_and_intervals_only() -> None:
    layer, u = layer_of(), normal(2, 6, 3)
    padded = u.clone()
    padded[1, 4:] = 1e6
    dt = torch.full((2, 6), 2.0)
    with recorded_inputs(layer) as inputs:
        layer(padded, lengths=torch.tensor([6, 4]))
        layer(u, dt=dt)
        layer(u, rate=2.0)
        layer(u.bfloat16())
    assert float(inputs[0].u.abs().max()) < 10
    assert inputs[3].u.dtype == torch.float32
    by_dt, by_rate = (float(gain_penalty([given]).detach()) for given in inputs[1:3])
    # The shortest and the longest interval are the one rate.
    assert by_dt == by_rate
    layer(u)
    assert len(inputs) == 4  # no hook is left


def test_of_unequal_intervals_the_one_with_the_larger_penalty_counts() -> None:
    layer, u = layer_of(), 3 * normal(2, 6, 3)
    dt = torch.ones(2, 6)
    dt[0, 2], dt[1, 4] = 0.25, 4.0
    lengths = torch.tensor([6, 5])
    dt[1, 5] = 1e6  # outside
    with recorded_inputs(layer) as inputs:
        layer(u, lengths, dt=dt)
        for end in (0.25, 4.0):
            layer(u, lengths, rate=end)
    both, *ends = (float(gain_penalty([given], 0.9).detach()) for given in inputs)
    assert min(ends) > 0
    assert ends[0] != ends[1]
    assert both == max(ends)


def test_the_penalty_of_a_linear_layer_has_no_input_term() -> None:
    layer = layer_of(mode="s4")
    with recorded_inputs(layer) as inputs:
        layer(normal(1, 9, 3) * 100)
    assert float(gain_penalty(inputs).detach()) == 0


def test_penalties_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ParameterError, match="no call of an SSMLayer"):
        gain_penalty([])
    layer = layer_of(structure="dplr")
    with recorded_inputs(layer) as inputs:
        layer(normal(1, 4, 3))
    with pytest.raises(ParameterError, match="bound above 1"):
        gain_penalty(inputs, 1.0)
    for bound in (0.0, "a", None, True, float("inf")):
        with pytest.raises(ParameterError, match="positive bound"):
            gain_penalty(inputs, bound)
