"""liquid_ssm.nn.diagnosis: every number against its definition, and what a model may be and do meanwhile."""

from __future__ import annotations

import json
from itertools import pairwise
from math import inf, log10
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import liquid_ssm as ls
from liquid_ssm.errors import ParameterError
from liquid_ssm.nn import SSMLayer
from liquid_ssm.nn.diagnosis import LayerDiagnosis, _Fine, diagnose
from liquid_ssm.nn.regularisation import recorded_inputs
from liquid_ssm.nn.stability import gain, input_limit, transition

LARGEST = float(torch.finfo(torch.float32).max)


def layer_of(n_channels: int = 2, n_state: int = 8, **options: Any) -> SSMLayer:
    return SSMLayer(n_channels, n_state, **{"backend": "first", "seed": 1, "liquid_scale": 1.0, **options})


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def only(model: nn.Module, u: torch.Tensor, **options: Any) -> LayerDiagnosis:
    (found,) = diagnose(model, u, **options).layers
    return found


class Stack(nn.Module):
    """A linear and a liquid layer, the second called twice, dropout between them."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([layer_of(mode="s4", structure="dplr"), layer_of()])
        self.dropout = nn.Dropout(0.5)

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        y = self.blocks[1](self.dropout(self.blocks[0](u)))
        out: torch.Tensor = self.blocks[1](y)
        return out


def test_every_call_is_a_row_with_name_mode_structure_and_backend() -> None:
    found = diagnose(Stack(), normal(2, 30, 2))
    assert [layer.name for layer in found.layers] == ["blocks.0", "blocks.1", "blocks.1 (call 2)"]
    assert [layer.mode for layer in found.layers] == ["s4", "liquid", "liquid"]
    assert [layer.structure for layer in found.layers] == ["dplr", "diagonal", "diagonal"]
    assert {layer.certificate for layer in found.layers} == {None}
    assert found.failure is None
    assert [layer.backend for layer in diagnose(layer_of(backend="torch"), normal(1, 9, 2)).layers] == ["torch"]


def test_the_model_is_left_as_it_was_and_runs_in_evaluation_mode() -> None:
    model = Stack()
    model.blocks[0].eval()
    first, second = (diagnose(model, normal(2, 30, 2)) for _ in range(2))
    assert first == second  # no dropout
    assert (model.training, model.blocks[0].training, model.dropout.training) == (True, False, True)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_selected_backend_is_named_with_its_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = ("torch", SimpleNamespace(id="an id"))
    monkeypatch.setattr("liquid_ssm.selection.auto.selected", lambda *_, **__: chosen)
    found = only(layer_of(backend="auto"), normal(1, 9, 2))
    assert (found.backend, found.certificate) == ("torch", "an id")


def test_gain_and_largest_input_are_of_all_rows() -> None:
    layer, u = layer_of(), normal(5, 30, 2)
    u[4, 3, 1] = 20.0
    found = only(layer, u, rows=1)
    with torch.no_grad():
        assert found.gain == float(gain(layer.system(), u.mT))
        assert only(layer, u, rate=2.0).gain == float(gain(layer.system(2.0), u.mT))
        linear = layer_of(mode="s4")
        assert only(linear, u).gain == float(linear.system().A_bar.abs().max())
    assert found.largest_input == 20.0


def test_clamped_inputs_are_counted_and_the_gain_is_that_behind_the_clamp() -> None:
    layer, u = layer_of(max_gain=1.01), normal(2, 50, 2) * 3
    found = only(layer, u)
    cut = (u.abs() > input_limit(layer.system(), 1.01)).double().mean()
    assert found.clamped == pytest.approx(float(cut), abs=1e-12)
    assert 0 < found.clamped < 1
    assert found.gain <= 1.01 + 1e-6
    # One interval everywhere is none.
    assert only(layer, u, dt=torch.ones(2, 50)).clamped == found.clamped


@pytest.mark.parametrize("mode", ["s4", "liquid", "truncated", "pb"])
def test_distance_to_overflow_is_that_of_the_largest_state_or_output(mode: str) -> None:
    layer, u = layer_of(mode=mode, feedthrough=False), normal(1, 30, 2) * 5
    largest, state = 0.0, None
    with torch.no_grad():
        for k in range(30):
            y, state = layer.step(u[:, k], state)
            parts = (state.x, state.sums) if isinstance(state, ls.modes.State) else (state,)
            largest = max(largest, *(float(part.abs().max()) for part in (y, *parts)))
    # 30 steps in float32 against float64: some 1e-5 of the number, less than that of its logarithm.
    assert only(layer, u).decades_to_overflow == pytest.approx(log10(LARGEST / largest), abs=1e-5)


def test_an_overflow_is_described_instead_of_raised() -> None:
    u = normal(1, 300, 2) * 30
    model = nn.Sequential(layer_of(dt_min=0.1), layer_of())
    found = diagnose(model, u)
    assert found.failure is not None
    assert "left the range" in found.failure
    (first,) = found.layers  # the second was never reached
    assert -inf < first.decades_to_overflow < 0
    assert "stopped:" in found.table()
    # Beyond float64 as well nothing is left to measure.
    beyond = diagnose(layer_of(dt_min=0.1), normal(1, 2000, 2) * 30)
    assert beyond.layers[0].decades_to_overflow == -inf
    assert json.loads(beyond.to_json())["layers"][0]["decades_to_overflow"] is None
    assert json.loads(beyond.to_json())["layers"][0]["orders"] == [None] * 4


@pytest.mark.parametrize("structure", ["diagonal", "dplr", "mimo"])
def test_orders_of_liquid_are_differences_of_truncations(structure: str) -> None:
    layer, u = layer_of(structure=structure), normal(2, 40, 2) * 2
    found = only(layer, u, orders=3)
    with torch.no_grad():
        system = layer.continuous.double().system("bilinear")
        inputs = u.double().mT.contiguous()
        sums = [ls.apply(system, inputs, mode="truncated", order=p, backend="first") for p in (1, 2, 3)]
        sums.append(ls.apply(system, inputs, mode="liquid", backend="first"))
    terms = [sums[0], *(after - before for before, after in pairwise(sums))]
    energies = torch.stack([term.square().sum() for term in terms])
    expected = (energies / energies.sum()).tolist()
    # Both are float64; the smallest share is above 1e-8.
    assert [*found.orders, found.rest] == pytest.approx(expected, rel=1e-6)
    assert min(expected) > 1e-8


@pytest.mark.parametrize(("mode", "order"), [("truncated", 3), ("kb", 2), ("pb", 3), ("pb", 1), ("s4", 3)])
def test_orders_of_a_series_are_its_own_and_add_up_to_one(mode: str, order: int) -> None:
    found = only(layer_of(mode=mode, order=order), normal(2, 40, 2))
    assert len(found.orders) == (1 if mode == "s4" else order)
    assert sum(found.orders) == pytest.approx(1)
    assert found.rest == 0
    # y⁽ᵖ⁾ grows as the p-th power of u.
    if mode != "s4" and order > 1:
        small = only(layer_of(mode=mode, order=order), normal(2, 40, 2) / 100)
        ratio = (small.orders[1] / small.orders[0]) / (found.orders[1] / found.orders[0])
        assert ratio == pytest.approx(1e-4, rel=1e-5)


def test_a_silent_input_has_no_energy_and_no_limit() -> None:
    found = only(layer_of(), torch.zeros(1, 5, 2))
    assert found.orders == (0.0,) * 4
    assert found.decades_to_overflow == inf
    assert only(layer_of(), torch.zeros(1, 0, 2)).largest_input == 0


def test_modes_without_influence_are_dead() -> None:
    layer, u = layer_of(), normal(1, 50, 2)
    assert only(layer, u).dead_modes == 0
    with torch.no_grad():
        layer.continuous.C[0, :2] = 0
        layer.continuous.B[1, 3] *= 1e-6
    assert only(layer, u).dead_modes == 3 / 8
    assert only(layer, u, dead=1e-20).dead_modes == 2 / 8


@pytest.mark.parametrize("length", [1, 13])
@pytest.mark.parametrize(
    "options",
    [{}, {"structure": "dplr"}, {"structure": "dplr", "discretization": "zoh"}, {"structure": "mimo"}],
    ids=["diagonal", "dplr", "dense", "mimo"],
)
def test_influence_is_the_energy_of_white_noise(options: dict[str, Any], length: int) -> None:
    layer = layer_of(**options)
    with torch.no_grad(), recorded_inputs(layer) as inputs:
        layer(normal(1, 4, 2))
        fine = _Fine(layer, inputs[0], normal(1, 2, 4))
        system = fine.system()
        powers = []
        if system.structure in ("dplr", "dense"):
            x, A = system.B_bar, transition(system)
            for _ in range(length):
                powers.append(x.abs().square())
                if system.structure == "dplr":
                    both = (A @ torch.cat([x.real, x.imag], -1)[..., None])[..., 0]
                    x = torch.complex(*both.chunk(2, -1))
                else:
                    x = (A @ x[..., None])[..., 0]
        else:
            a = system.A_bar if system.structure == "diagonal" else system.A_bar[:, None]
            powers = [(a**k * system.B_bar).abs().square() for k in range(length)]
        total = torch.stack(powers).sum(0)
        weight = system.C.abs().square()
        expected = weight.sum(0) * total.sum(1) if system.structure == "mimo" else weight * total
        # Powers up to the length, of some roundings each, and sums of positive terms.
        torch.testing.assert_close(
            fine.influence(length), expected, rtol=16 * length * torch.finfo(torch.float64).eps, atol=0
        )


def test_memory_is_the_time_in_which_a_mode_decays() -> None:
    layer = layer_of(discretization="zoh", dt_min=0.02, dt_max=0.02)
    found = only(layer, normal(1, 9, 2))
    # |ā| = exp(−δt/2); Λ and δt have been rounded to float32.
    assert found.memory_median == pytest.approx(100, rel=1e-6)
    assert found.memory_longest == pytest.approx(100, rel=1e-6)
    assert only(layer, normal(1, 9, 2), rate=2.0).memory_longest == pytest.approx(50, rel=1e-6)
    # HiPPO-LegS has the eigenvalues −1, −2, …, −N.
    legs = only(layer_of(structure="dplr", dt_min=0.02, dt_max=0.02), normal(1, 9, 2))
    a = (1 - 0.01) / (1 + 0.01)
    assert legs.memory_longest == pytest.approx(-1 / torch.tensor(a).double().log().item(), rel=1e-5)


def test_memory_is_infinite_where_the_transition_does_not_decay() -> None:
    layer = layer_of(n_state=64, discretization="euler", dt_min=0.1, dt_max=0.1)
    assert only(layer, normal(1, 5, 2)).memory_longest == inf


@pytest.mark.parametrize(("options", "slowest"), [({}, 4), ({"rate": 2.0}, 2), ({"dt": torch.full((1, 6), 2.0)}, 2)])
def test_modes_beyond_half_the_sampling_rate_are_aliased(options: dict[str, Any], slowest: int) -> None:
    # Im λ = πn: aliased where n δt > 1.
    layer = layer_of(n_state=16, dt_min=0.3, dt_max=0.3)
    found = only(layer, normal(1, 6, 2), **options)
    assert found.aliased_modes == 2 * (8 - slowest)
    assert found.aliased_share == (8 - slowest) / 8


def test_padding_and_intervals_are_those_of_the_call() -> None:
    layer, u = layer_of(), normal(2, 20, 2)
    padded = u.clone()
    padded[1, 12:] = 1e5
    zeros = u.clone()
    zeros[1, 12:] = 0
    found = only(layer, padded, lengths=torch.tensor([20, 12]))
    assert found == only(layer, zeros)
    by_dt, by_rate = only(layer, u, dt=torch.full((2, 20), 1.5)), only(layer, u, rate=1.5)
    assert by_dt.orders == pytest.approx(by_rate.orders, rel=1e-6)
    assert by_dt.decades_to_overflow == pytest.approx(by_rate.decades_to_overflow, rel=1e-6)
    assert by_dt.backend == "torch, step by step (dt)"


@pytest.mark.parametrize("lag", [0, 1])
def test_both_directions_are_looked_at(lag: int) -> None:
    layer = layer_of(bidirectional=True, reverse_lag=lag, mode="s4", feedthrough=False)
    u = normal(1, 30, 2)
    with torch.no_grad(), recorded_inputs(layer) as inputs:
        y = layer(u)
        largest, found = _Fine(layer, inputs[0], u.mT).by_order(1)
    # 30 steps of at most 20 roundings, in both directions, of numbers no larger than the largest output.
    allowed = 2 * 30 * 20 * torch.finfo(torch.float32).eps * float(y.detach().abs().max())
    torch.testing.assert_close(found[0], y.mT.double(), rtol=0, atol=allowed)
    assert largest > 0


def test_table_and_json_hold_every_layer() -> None:
    found = diagnose(Stack(), normal(1, 30, 2))
    table = found.table().splitlines()
    assert table[0].split()[:3] == ["layer", "blocks.0", "blocks.1"]
    assert any(line.startswith("decades to overflow") for line in table)
    held = json.loads(found.to_json())
    assert [layer["name"] for layer in held["layers"]] == [layer.name for layer in found.layers]
    assert held["layers"][1]["orders"] == list(found.layers[1].orders)
    assert held["failure"] is None


def test_what_cannot_be_diagnosed_is_refused() -> None:
    with pytest.raises(ParameterError, match="Linear called no SSMLayer"):
        diagnose(nn.Linear(2, 2), normal(1, 2))
    with pytest.raises(ParameterError, match="starts at rest"):
        diagnose(layer_of(), normal(1, 4, 2), state=torch.zeros(1, 2, 4, dtype=torch.complex64))
    for option in ("rows", "orders"):
        with pytest.raises(ParameterError, match=f"{option} is 0"):
            diagnose(layer_of(), normal(1, 4, 2), **{option: 0})
