"""liquid_ssm.nn.diagnosis: every number against its definition, and what a model may be and do meanwhile."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from itertools import pairwise
from math import inf, log, log10, nan
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import liquid_ssm as ls
from liquid_ssm.compute import problem_of
from liquid_ssm.errors import ParameterError
from liquid_ssm.nn import LTC, ModelConfig, SequenceModel, SSMLayer, build, liquid_s4
from liquid_ssm.nn.diagnosis import LayerDiagnosis, _Fine, diagnose
from liquid_ssm.nn.regularisation import recorded_inputs
from liquid_ssm.nn.sampled_compiled import scan_compiled
from liquid_ssm.nn.stability import gain, input_limit, transition
from liquid_ssm.oracle.reference import reference
from liquid_ssm.problem import ModeSpec
from liquid_ssm.registry import default_backend, get_backend
from liquid_ssm.rounding_errors import options, realization_of, rounding_models

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
    assert found.clamped == float(cut)
    assert 0 < found.clamped < 1
    # What a limit is off by (test_stability), and the product, sum and modulus of a gain, in float32.
    assert found.gain <= 1.01 * (1 + (17 + 5) * 2.0**-24)
    # One interval everywhere is none.
    assert only(layer, u, dt=torch.ones(2, 50)).clamped == found.clamped


@pytest.mark.parametrize("mode", ["s4", "liquid", "truncated", "pb"])
def test_distance_to_overflow_is_that_of_the_largest_state_or_output(mode: str) -> None:
    layer, u = layer_of(mode=mode, feedthrough=False), normal(1, 30, 2) * 5
    fine, largest, state = deepcopy(layer).double(), 0.0, None
    with torch.no_grad():
        for k in range(30):
            y, state = fine.step(u[:, k].double(), state)
            parts = (state.x, state.sums) if isinstance(state, ls.modes.State) else (state,)
            largest = max(largest, *(float(part.abs().max()) for part in (y, *parts)))
    # Both are steps in float64.
    assert only(layer, u).decades_to_overflow == log10(LARGEST) - log10(largest)


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


def test_an_overflow_that_ends_a_selection_is_described() -> None:
    layer, u = liquid_s4(3, 16, seed=1), normal(2, 400, 3)
    small = only(layer, u * 0.01)
    assert small.certificate is not None
    for one in (layer, liquid_s4(3, 16, seed=2)):  # with a certificate of small inputs and without
        found = diagnose(one, u * 500)
        assert found.failure is not None
        assert "left the range" in found.failure
        (told,) = found.layers
        assert (told.backend, told.certificate) == ("none: selection met the failure", None)
        assert told.decades_to_overflow == -inf
        assert "none: selection met the failure" in found.table()
    model = SequenceModel(3, 2, n_layers=2, n_channels=3, n_state=16, structure="dplr", seed=1)
    with torch.no_grad():
        model.blocks[1].norm.weight *= 500
    found = diagnose(model, u)
    assert found.failure is not None
    first, second = found.layers
    assert first.certificate is not None
    assert first.decades_to_overflow > 0
    assert (second.backend, second.decades_to_overflow) == ("none: selection met the failure", -inf)


class Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        return u * self.factor


def test_what_is_not_finite_between_layers_is_described() -> None:
    u = normal(1, 20, 2)
    for after, name in ((layer_of(), "2"), (LTC(2, 2), "2"), (nn.Sequential(nn.Identity(), layer_of()), "2.1")):
        found = diagnose(nn.Sequential(layer_of(mode="s4"), Times(inf), after), u)
        assert [layer.name for layer in found.layers] == ["0"]
        assert found.failure is not None
        assert f"{name} was given NaN or infinite values, though u is finite" in found.failure
        assert "stopped:" in found.table()
    first = diagnose(nn.Sequential(Times(inf), layer_of()), u)
    assert first.layers == ()
    assert "stopped: 1 was given" in first.table()
    # A norm of finite numbers.
    large = 1e25 * u
    found = diagnose(nn.Sequential(layer_of(mode="s4"), nn.LayerNorm(2), layer_of()), large)
    assert [layer.name for layer in found.layers] == ["0"]
    assert found.failure is not None


def test_a_model_that_says_itself_that_it_left_the_range_is_described() -> None:
    config = ModelConfig("kb", n_layers=2, n_channels=4, n_state=8, prenorm=False, pooling="none")
    found = diagnose(build(config), 1e10 * normal(2, 20, 1))
    assert [layer.name for layer in found.layers] == ["blocks.0.layer"]
    assert found.failure is not None


def test_layers_whose_parameters_are_not_finite_are_left_out() -> None:
    model = nn.Sequential(layer_of(mode="s4"), layer_of(structure="dplr"))
    with torch.no_grad():
        model[1].continuous.B[0] = nan
    found = diagnose(model, normal(1, 9, 2))
    assert [layer.name for layer in found.layers] == ["0"]
    assert found.failure is not None
    assert "parameters hold NaN" in found.failure


class Pair(nn.Module):
    """Outputs in containers, one of them beyond float32."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.layer, self.kind = layer_of(), kind

    def forward(self, u: torch.Tensor) -> Any:
        y = self.layer(u)
        return self.kind((("one", y), ("other", y * inf)) if self.kind is dict else (y, y * inf))


def test_outputs_that_are_not_finite_are_described() -> None:
    u = normal(1, 20, 2)
    for model in (nn.Sequential(layer_of(), Times(inf)), Pair(tuple), Pair(dict)):
        found = diagnose(model, u)
        assert len(found.layers) == 1
        assert found.failure is not None
        assert f"the output of {type(model).__name__} holds NaN or infinite values" in found.failure
    # Not those of a state, where an interval before the first step is infinite.
    layer = layer_of(discretization="adams-bashforth")
    assert diagnose(layer, u[:, :0], return_state=True).failure is None


@pytest.mark.parametrize("value", [nan, inf])
def test_an_input_that_is_not_finite_is_refused(value: float) -> None:
    u = normal(2, 20, 2)
    u[1, 7, 0] = value
    message = f"u holds 1 value.* the first is {value} at batch 1, step 7, channel 0"
    sequence = SequenceModel(2, 2, n_layers=1, n_channels=2, n_state=8, backend="first")
    between = nn.Sequential(nn.LayerNorm(2), layer_of())
    for model in (layer_of(), between, nn.Sequential(layer_of(), layer_of()), sequence):
        with pytest.raises(ParameterError, match=message):
            diagnose(model, u)

    class Output(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer_of()

        def forward(self, u: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.layer(torch.zeros_like(u)) + u
            return out

    with pytest.raises(ParameterError, match=message):
        diagnose(Output(), u)
    # What lies outside of the lengths is not looked at, in outputs neither.
    lengths = torch.tensor([20, 7])

    class Padded(Output):
        def forward(self, u: torch.Tensor, lengths: torch.Tensor, factor: float = 1.0) -> torch.Tensor:
            out: torch.Tensor = factor * self.layer(u, lengths) + u
            return out

    assert diagnose(Padded(), u, lengths=lengths).failure is None
    assert diagnose(Padded(), u, lengths=lengths, factor=inf).failure is not None
    # An error of another kind stays what it is.
    with pytest.raises(ParameterError, match="rate is"):
        diagnose(layer_of(), u, lengths=lengths, rate=-1.0)


def test_padding_of_pairs_is_not_looked_at() -> None:
    u = normal(2, 2, 9, 1)
    u[1, 0, 6:] = nan
    lengths = torch.tensor([[9, 9], [6, 9]])
    model = build(ModelConfig("liquid", n_layers=1, n_channels=2, n_state=8, pair=True, options={"backend": "first"}))
    assert diagnose(model, u, lengths=lengths).failure is None
    with torch.no_grad():
        model.head[2].bias[0] = inf
    failed = diagnose(model, u, lengths=lengths)
    assert failed.failure is not None
    assert len(failed.layers) == 1


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
    energies = [float(term.square().sum()) for term in terms]
    # The same operations in float64: the backend's steps in time order, however they are divided.
    assert [*found.orders, found.rest] == [energy / sum(energies) for energy in energies]
    assert min(energies) > 0


def of_second_order(layer: SSMLayer, u: torch.Tensor) -> float:
    """What the quotient of the energies of y⁽²⁾ and y⁽¹⁾, computed in float64, may be off by, relative to it.

    y⁽²⁾ is the difference of two sums of orders, which are within the oracle's bound.
    """
    fine, signals = deepcopy(layer).double(), u.double().mT.contiguous().numpy()
    with torch.no_grad():
        system = fine.system().to_numpy()
    values, offs = [], []
    for p in (1, 2):
        spec = replace(layer.spec, order=p)
        problem = problem_of(system, signals, spec, state=True)
        models = rounding_models(get_backend(default_backend(problem).backend), problem)
        given = {"models": models, "dtype": np.longdouble, **options(spec)}
        found = reference(realization_of(system), signals, spec.mode, **given)
        values.append(np.asarray(found.value, float))
        offs.append(sum(bound.componentwise for bound in found.bounds).astype(float))
    second = values[1] - values[0]
    terms = ((values[0], offs[0]), (second, offs[0] + offs[1] + 2.0**-53 * abs(second)))
    # Squares, their sums, and quotients: of orders by the total, and of these; a roundoff more for the second order.
    of_energies = [float((2 * abs(y) * off + off**2).sum() / (y**2).sum()) for y, off in terms]
    return sum(of_energies) + (2 * u.numel() + 6) * 2.0**-53


@pytest.mark.parametrize(("mode", "order"), [("truncated", 3), ("kb", 2), ("pb", 3), ("pb", 1), ("s4", 3)])
def test_orders_of_a_series_are_its_own_and_add_up_to_one(mode: str, order: int) -> None:
    layer, u = layer_of(mode=mode, order=order), normal(2, 40, 2)
    found = only(layer, u)
    assert len(found.orders) == (1 if mode == "s4" else order)
    # P quotients and, there and here, P - 1 sums.
    assert sum(found.orders) == pytest.approx(1, rel=0, abs=2 * order * 2.0**-53)
    assert found.rest == 0
    # y⁽ᵖ⁾ grows as the p-th power of u.
    if mode != "s4" and order > 1:
        small = only(layer, u / 128)
        ratio = (small.orders[1] / small.orders[0]) / (found.orders[1] / found.orders[0])
        off = sum(of_second_order(layer, signal) for signal in (u, u / 128))
        assert ratio == pytest.approx(2.0**-14, rel=off)


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
    with torch.no_grad():
        layer.continuous.C[0] = 0  # all of a channel
    assert only(layer, u, dead=0.0).dead_modes == 4 / 8


def energies_of(A: torch.Tensor, x: torch.Tensor, length: int) -> torch.Tensor:
    """Σ_k (Aᵏ x)², of real matrices."""
    total = torch.zeros_like(x)
    for _ in range(length):
        total = total + x.square()
        x = (A @ x[..., None])[..., 0]
    return total


@pytest.mark.parametrize("length", [1, 13])
@pytest.mark.parametrize(
    "options",
    [{}, {"structure": "dplr"}, {"structure": "dplr", "discretization": "zoh"}, {"structure": "mimo"}],
    ids=["diagonal", "dplr", "dense", "mimo"],
)
def test_influence_is_the_energy_of_white_noise(options: dict[str, Any], length: int, rounded: Any) -> None:
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
            N, B = A.shape[-1], system.B_bar
            parts = torch.cat([B.real, B.imag], -1) if system.structure == "dplr" else B
            sizes = energies_of(A.abs(), parts.abs(), length).unflatten(-1, (-1, B.shape[-1])).sum(-2)
        else:
            x, N = system.B_bar, 1
            a = system.A_bar if system.structure == "diagonal" else system.A_bar[:, None]
            for _ in range(length):
                powers.append(x.abs().square())
                x = a * x
            sizes = torch.stack(powers).sum(0)
        weight = system.C.abs().square()

        def weighted(total: torch.Tensor) -> torch.Tensor:
            return weight.sum(0) * total.sum(1) if system.structure == "mimo" else weight * total

        # A term passes products with matrices up to the length, a complex one of N terms with N + 2 roundings each, on
        # both sides; where numbers of terms are doubled, two such products and a sum per bit of the length besides, or,
        # as powers e^(k log |ā|²), 7 per step; and some 24 in moduli, squares and their sums.
        n = 2 * length * (N + 3) + 2 * (2 * N + 5) * length.bit_length() + 24
        allowed = 2 * rounded.gamma(n) * weighted(sizes)
        assert bool(((fine.influence(length) - weighted(torch.stack(powers).sum(0))).abs() <= allowed).all())


def test_memory_is_the_time_in_which_a_mode_decays() -> None:
    layer = layer_of(discretization="zoh", dt_min=0.02, dt_max=0.02)
    found = only(layer, normal(1, 9, 2))
    # |ā| = exp(−δt/2).  The logarithms of 1/2 and 0.02 are rounded to float32; in float64 |ā| = 0.99 is within some
    # ten roundoffs, its logarithm a hundred times that.
    off = (abs(log(0.5)) + abs(log(0.02))) * 2.0**-24 + 1000 * 2.0**-53
    assert found.memory_median == pytest.approx(100, rel=off)
    assert found.memory_longest == pytest.approx(100, rel=off)
    assert only(layer, normal(1, 9, 2), rate=2.0).memory_longest == pytest.approx(50, rel=off)
    # HiPPO-LegS has the eigenvalues −1, −2, …, −N.
    layer = layer_of(structure="dplr", dt_min=0.02, dt_max=0.02)
    legs = only(layer, normal(1, 9, 2))
    # −1/log |ā| of λ = −1 follows it by 1 + 1e-4 at most, and λ what was rounded by its eigenvectors: Λ, whose decay
    # is a logarithm, and twice P.
    held = layer.continuous.continuous()
    P = np.concatenate([held.P[0, 0], held.P[0, 0].conj()])
    Lambda = np.concatenate([held.Lambda[0], held.Lambda[0].conj()])
    values, right = np.linalg.eig(np.diag(Lambda) - np.outer(P, P.conj()))
    slowest = np.abs(values + 1).argmin()
    left = np.linalg.inv(right)[slowest]
    size = np.diag(np.abs(np.log(-Lambda.real) * Lambda.real) + np.abs(Lambda.imag)) + 2 * np.outer(abs(P), abs(P))
    off = 1.01 * 2.0**-24 * (abs(left) @ size @ abs(right[:, slowest]) + abs(log(0.02)))
    a = (1 - 0.01) / (1 + 0.01)
    assert legs.memory_longest == pytest.approx(-1 / log(a), rel=off)


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


def of_shares(rounded: Any, layer: SSMLayer, u: torch.Tensor, rate: float) -> list[float]:
    """What the energies of orders and of the rest may be off by, relative to them, for liquid outputs at a rate."""
    fine, signals = deepcopy(layer).double(), u.double()
    fine.D = None
    sums, offs = [], []
    specs = [ModeSpec("truncated", p) for p in range(1, len(only(layer, u).orders) + 1)]
    for spec in (*specs, ModeSpec("liquid")):
        fine.spec = spec
        with torch.no_grad():
            sums.append(fine(signals, rate=rate).numpy())
            offs.append(rounded.of_layer(fine, signals, torch.full(u.shape[:2], rate, dtype=torch.float64))[0])
    terms = [(sums[0], offs[0])]
    for before, after, one, other in zip(sums, sums[1:], offs, offs[1:], strict=False):
        # Those found here are off as well.
        terms.append((after - before, 2 * (one + other) + 2.0**-53 * abs(after - before)))
    energies = [(y**2).sum() for y, _ in terms]
    off = [(2 * abs(y) * off + off**2).sum() for y, off in terms]
    rounding = (u.numel() + 6) * 2.0**-53
    return [
        float(one / energy + sum(off) / sum(energies) + rounding) for one, energy in zip(off, energies, strict=True)
    ]


def test_padding_and_intervals_are_those_of_the_call(rounded: Any) -> None:
    layer, u = layer_of(), normal(2, 20, 2)
    padded = u.clone()
    padded[1, 12:] = 1e5
    zeros = u.clone()
    zeros[1, 12:] = 0
    found = only(layer, padded, lengths=torch.tensor([20, 12]))
    assert found == only(layer, zeros)
    by_dt, by_rate = only(layer, u, dt=torch.full((2, 20), 1.5)), only(layer, u, rate=1.5)
    offs = of_shares(rounded, layer, u, 1.5)
    for one, other, off in zip((*by_dt.orders, by_dt.rest), (*by_rate.orders, by_rate.rest), offs, strict=True):
        assert one == pytest.approx(other, rel=2 * off)
    # The largest of states and outputs is off by no more than the largest error of any.
    fine = deepcopy(layer).double()
    ends = [
        rounded.of_layer(fine, u[:, :k].double(), torch.full((2, k), 1.5, dtype=torch.float64)) for k in (5, 10, 20)
    ]
    largest = 10 ** (log10(LARGEST) - by_rate.decades_to_overflow)
    off = max(part.max() for end in ends for part in end) / largest
    assert by_dt.decades_to_overflow == pytest.approx(by_rate.decades_to_overflow, rel=0, abs=2 * off)


@pytest.mark.parametrize("structure", ["diagonal", "dplr"])
@pytest.mark.parametrize(
    ("options", "compiled"),
    [
        ({}, True),
        ({"mode": "s4"}, True),
        ({"mode": "truncated", "order": 2}, True),
        ({"mode": "pb", "order": 1}, True),
        ({"mode": "pb", "order": 2}, False),
        ({"mode": "kb", "order": 2, "correlations": "adjacent"}, False),
        ({"discretization": "euler"}, False),
        ({"discretization": "bilinear-exact"}, True),
        ({"discretization": "adams-bashforth"}, False),
        ({"discretization": "bilinear-exact", "structure": "mimo"}, False),
        ({"structure": "mimo"}, False),
        ({"backend": "torch"}, False),
    ],
)
def test_steps_are_told_by_what_computes_them(
    structure: str, options: dict[str, Any], compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[bool] = []

    def counted(*args: Any, **given: Any) -> Any:
        calls.append(True)
        return scan_compiled(*args, **given)

    monkeypatch.setattr("liquid_ssm.nn.sampling.scan_compiled", counted)
    layer, u = layer_of(**{"structure": structure, **options}), normal(2, 9, 2)
    with torch.no_grad():
        layer(u, dt=torch.ones(2, 9))
    assert bool(calls) == compiled
    by = "numba" if compiled else "torch"
    assert only(layer, u, dt=torch.ones(2, 9)).backend == f"{by}, step by step (dt)"
    if layer.integrates:
        assert only(layer, u).backend == f"{by}, step by step ({layer.discretization})"


def test_steps_without_numba_are_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("liquid_ssm.nn.sampled_compiled._is_installed", lambda: False)
    assert only(layer_of(), normal(1, 9, 2), dt=torch.ones(1, 9)).backend == "torch, step by step (dt)"


@pytest.mark.parametrize("lag", [0, 1])
def test_both_directions_are_looked_at(lag: int, exact_both_ways: Any) -> None:
    layer = layer_of(bidirectional=True, reverse_lag=lag, mode="s4", feedthrough=False)
    u = normal(1, 30, 2)
    with torch.no_grad(), recorded_inputs(layer) as inputs:
        layer(u)
        largest, found = _Fine(layer, inputs[0], u.mT).by_order(1)
    value, bound = exact_both_ways(deepcopy(layer).double(), u.double())
    assert np.all(np.abs(found[0].mT.numpy() - value) <= bound)
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
    for value in (0, 2.5, "a", True, None):
        for option in ("rows", "orders"):
            with pytest.raises(ParameterError, match=f"{option} is {value!r}; give a whole number from 1"):
                diagnose(layer_of(), normal(1, 4, 2), **{option: value})
    for dead in ("a", -1, 1.5, nan, True):
        with pytest.raises(ParameterError, match=f"dead is {dead!r}; it is a share of energy, from 0 to 1, or None"):
            diagnose(layer_of(), normal(1, 4, 2), dead=dead)
    for given in (normal(1, 4, 2).numpy(), normal(1, 4, 2).tolist()):
        with pytest.raises(ParameterError, match=r"u is a .*; a torch tensor is wanted: give torch\.as_tensor\(u\)"):
            diagnose(layer_of(), given)


def test_models_of_other_layers_are_told_what_is_not_reported() -> None:
    network = SequenceModel(1, 2, n_layers=1, n_channels=2, layer=lambda features: LTC(features, features))
    with pytest.raises(
        ParameterError, match=r"SequenceModel called no SSMLayer.* LTC hold no modes and are not reported"
    ):
        diagnose(network, normal(1, 4, 1))
    with pytest.raises(ParameterError) as caught:
        diagnose(nn.Linear(2, 2), normal(1, 2))
    assert "LTC" not in str(caught.value)
