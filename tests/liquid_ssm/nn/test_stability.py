"""liquid_ssm.nn.stability: gains and limits against their definitions, the clamp, the regulariser; initial scale."""

from __future__ import annotations

import copy
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import liquid_ssm as ls
from liquid_ssm.errors import ParameterError, UnstableRecurrence
from liquid_ssm.initialize import INITIALIZATIONS
from liquid_ssm.instability import full_transition, safe_input_bound
from liquid_ssm.nn import SSMLayer
from liquid_ssm.nn.stability import FULL, clamped, gain, input_limit, radius_of

# Roundoffs: of float32 and of float64.
UNIT, FINE = 2.0**-24, 2.0**-53
# By so many roundoffs times the bound the gain at a computed limit may exceed it, for moduli within 3 roundoffs.  The
# square, |ā|² + 2 |Re ā b̄*| L + |b̄|² L², of three terms below the bound's, moves by 6 with |ā| and 3 with its distance
# from the bound, 4 with the real part, 9 with |b̄|² under the root, 12 with root, sums and quotient: 34, and half that
# without the square.  Limits of sums of moduli over 3 channels are quotients of fewer.
OF_LIMIT = 17

STRUCTURES = {
    "diagonal": {},
    "dplr": {"structure": "dplr"},
    "dense": {"structure": "dplr", "discretization": "zoh"},
    "mimo": {"structure": "mimo"},
}


def layer_of(n_channels: int = 3, n_state: int = 8, **options: Any) -> SSMLayer:
    return SSMLayer(n_channels, n_state, **{"backend": "first", "seed": 1, "liquid_scale": 1.0, **options})


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def double(system: Any) -> Any:
    return system.astype(torch.float64)


def of_norm(matrices: Any) -> float:
    """What a largest singular value may be off by.

    2N reflections of N rows make a matrix bidiagonal, and as many rotations of sweeps diagonal; each moves it by
    γ_6N in the Frobenius norm (Higham, Lemma 19.3).
    """
    N = matrices.shape[-1]
    return float(4 * N * 6 * N * FINE * np.sqrt((np.abs(matrices) ** 2).sum((-2, -1))).max())


def of_gain(system: Any, u: np.ndarray) -> float:
    """What the gain of inputs (batch, 3, length) may be off by: products, sums, and a modulus within 3 roundoffs."""
    numbers, largest = system.to_numpy(), np.abs(u).max((0, 2))[:, None]
    if system.structure == "mimo":
        return float(7 * FINE * (np.abs(numbers.A_bar) + np.abs(numbers.B_bar) @ largest[:, 0]).max())
    if system.structure == "diagonal":
        return float(5 * FINE * (np.abs(numbers.A_bar) + np.abs(numbers.B_bar) * largest).max())
    drive = np.abs(numbers.B_bar).max() * largest.max()
    full = [np.abs(full_transition(numbers, h)) for h in range(3)]
    # Ā's entries are sums of Λ̄ and a product, for conjugate pairs in another basis.
    entries = max(float(np.sqrt(((matrix + drive * np.eye(len(matrix))) ** 2).sum())) for matrix in full)
    return of_norm(np.array(full) + drive * np.eye(len(full[0]))) + 8 * FINE * entries


@pytest.fixture(params=STRUCTURES)
def system(request: pytest.FixtureRequest) -> Any:
    with torch.no_grad():
        return double(layer_of(**STRUCTURES[request.param]).system())


def test_gain_is_the_largest_of_all_steps_and_modes(system: Any) -> None:
    u = normal(2, 3, 20).double() + 0.3
    numbers, inputs = system.to_numpy(), u.numpy()
    found = []
    for row in inputs:
        for k in range(20):
            if system.structure == "mimo":
                found.append(np.abs(numbers.A_bar + numbers.B_bar @ row[:, k]).max())
            elif system.structure == "diagonal":
                found.append(np.abs(numbers.A_bar + numbers.B_bar * row[:, k, None]).max())
            else:
                for h in range(3):
                    b = (
                        numbers.B_bar[h]
                        if system.structure == "dense"
                        else np.r_[numbers.B_bar[h], numbers.B_bar[h].conj()]
                    )
                    found.append(np.linalg.norm(full_transition(numbers, h) + np.diag(b * row[h, k]), 2))
    assert abs(float(gain(system, u)) - max(found)) <= 2 * of_gain(system, inputs)


def test_gain_without_inputs_is_that_of_the_linear_part(system: Any) -> None:
    assert float(gain(system, torch.zeros(1, 3, 0).double())) == float(gain(system, torch.zeros(1, 3, 1).double()))


def test_gain_has_gradients(system: Any) -> None:
    u = (normal(2, 3, 6).double()).requires_grad_()
    # Where one mode and one step decide, it is smooth.
    assert torch.autograd.gradcheck(lambda v: gain(system, v), (u,))


def test_input_limit_at_one_is_the_safe_input_bound_or_more(system: Any) -> None:
    expected = [safe_input_bound(system.to_numpy(), h) for h in range(3)]
    found = input_limit(system, 1.0).numpy()
    if system.structure == "diagonal":
        # That bound leaves the phases out.
        assert (found > expected).all()
    else:
        # What |ā| is off by is one of its distance from 1; |b̄| has sums over 3 channels, and there is a quotient.
        radius = radius_of(system, False).max().item()
        relative = of_gain(system, np.zeros((1, 3, 1))) / (1 - radius) + 8 * FINE
        np.testing.assert_allclose(found, expected, rtol=2 * relative)


@pytest.mark.parametrize("bound", [1.0, 1.2])
def test_no_input_within_the_limit_exceeds_the_bound(system: Any, bound: float) -> None:
    limit = input_limit(system, bound)
    assert bool((limit > 0).all())
    signs = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    found = [float(gain(system, (sign * limit)[None, :, None])) for sign in signs]
    off = OF_LIMIT * FINE * bound + 2 * of_gain(system, limit[None, :, None].numpy())
    assert max(found) <= bound + off
    if system.structure == "diagonal":
        for h in range(3):
            channel = system.take([h])
            found = [float(gain(channel, (sign * limit[h])[None, None])) for sign in signs]
            assert abs(max(found) - bound) <= off


def test_limit_is_zero_at_or_below_the_largest_modulus_and_infinite_without_drive() -> None:
    A = torch.tensor([[0.5 + 0j, 0.9], [0.5, 0.3]], dtype=torch.complex128)
    B = torch.tensor([[1.0 + 0j, 1.0], [0.0, 0.0]], dtype=torch.complex128)
    held = ls.DiagonalSystem(A, B, B)
    assert input_limit(held, 0.9).tolist() == [0.0, np.inf]
    assert input_limit(held, 0.5).tolist() == [0.0, 0.0]
    # The gain is 0.9 + u there, and 0.9 is rounded.
    assert input_limit(held, 1.0).tolist() == pytest.approx([0.1, np.inf], rel=0, abs=(OF_LIMIT + 1) * FINE)


def test_limit_is_detached_and_contraction_is_taken_for_one() -> None:
    system = layer_of(structure="dplr").system()
    assert system.B_bar.requires_grad
    limit = input_limit(system, 1.1, contracts=True)
    assert not limit.requires_grad
    assert torch.equal(limit, (1.1 - torch.ones(3)) / system.B_bar.detach().abs().amax(-1))
    # The norm is below 1, so that this limit is the smaller one.
    assert bool((limit < input_limit(system, 1.1)).all())


@pytest.mark.parametrize("structure", STRUCTURES)
def test_max_gain_bounds_the_recurrence_and_leaves_the_feedthrough(structure: str) -> None:
    layer = layer_of(max_gain=1.02, **STRUCTURES[structure])
    u = normal(2, 40, 3) * 3
    with torch.no_grad():
        system = layer.system()
        held = clamped(u, input_limit(system, 1.02, contracts=True))
        assert not torch.equal(held, u)
        # Rounded to float32, what contracts may have a norm above 1; so may the bound, by a roundoff.
        fine = double(system)
        above = max(0.0, float(radius_of(fine, False).max()) - 1) if system.structure in FULL else 0.0
        assert float(gain(fine, held.mT.double())) <= 1.02 * (1 + (OF_LIMIT + 1) * UNIT) + above
        y = ls.apply(system, held.mT.contiguous(), mode="liquid", backend="first").mT
        assert torch.equal(layer(u), torch.addcmul(y, layer.D, u))


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("rate", [1.0, 2.0])
def test_step_clamps_as_forward_does(structure: str, rate: float, exact: Any) -> None:
    layer = layer_of(max_gain=1.02, **STRUCTURES[structure])
    u = normal(2, 12, 3) * 3
    with torch.no_grad():
        y = layer(u, rate=rate).numpy()
        held = clamped(u, input_limit(layer.system(rate), 1.02, contracts=True))
        state, found = layer.initial_state(2), []
        for k in range(12):
            outputs, state = layer.step(u[:, k], state, rate)
            found.append(outputs)
    value, bound = exact(SimpleNamespace(system=partial(layer.system, rate), spec=layer.spec, D=None), held)
    # D u, which is not clamped, is a product and a sum.
    through = (layer.D.detach().double() * u.double()).numpy()
    bound = bound + UNIT * (np.abs(through) + (1 + UNIT) * (np.abs(value + through) + bound + np.abs(through)))
    for outputs in (y, torch.stack(found, 1).numpy()):
        assert np.all(np.abs(outputs - (value + through)) <= bound)


def test_step_follows_a_change_of_max_gain(exact: Any) -> None:
    layer, u = layer_of(max_gain=1.02), normal(1, 3) * 9
    with torch.no_grad():
        y = layer.step(u)[0]
        layer.max_gain = None
        free = layer.step(u)[0]
    value, bound = exact(layer, u[:, None])
    assert np.all(np.abs(free.numpy() - value[:, 0]) <= bound[:, 0])
    assert not np.all(np.abs(y.numpy() - value[:, 0]) <= bound[:, 0])


@pytest.mark.parametrize("structure", STRUCTURES)
def test_per_step_intervals_are_clamped_by_their_own_limits(structure: str) -> None:
    layer = layer_of(max_gain=1.02, **STRUCTURES[structure])
    u, dt = normal(2, 10, 3) * 3, torch.rand(2, 10, generator=torch.Generator().manual_seed(1)) + 0.5
    with torch.no_grad():
        found = layer(u, dt=dt)
        held = torch.empty_like(u)
        fine = copy.deepcopy(layer).double()
        for row in range(2):
            for k in range(10):
                limit = input_limit(fine.system(dt[row, k]), 1.02, contracts=True)
                held[row, k] = clamped(u[row, k], limit.to(u.dtype))
        layer.max_gain, D, layer.D = None, layer.D, None
        # Limits are those of parameters in float64; everything else is the same operations.
        assert torch.equal(found, torch.addcmul(layer(held, dt=dt), D, u))


def test_bidirectional_layers_clamp_both_directions() -> None:
    layer = layer_of(max_gain=1.02, bidirectional=True)
    u = normal(1, 30, 3) * 3
    with torch.no_grad():
        found, limit = layer(u), input_limit(layer.system(), 1.02)
        held = clamped(u, limit)
        layer.max_gain, D, layer.D = None, layer.D, None
        assert torch.equal(found, torch.addcmul(layer(held), D, u))


def test_clamped_inputs_have_no_gradient_through_the_recurrence() -> None:
    layer = layer_of(max_gain=1.02, feedthrough=False)
    u = (normal(1, 20, 3) * 3).requires_grad_()
    limit = input_limit(layer.system(), 1.02)
    layer(u).sum().backward()
    assert u.grad is not None
    cut = u.detach().abs() > limit
    assert 0 < int(cut.sum()) < cut.numel()
    assert bool((u.grad[cut] == 0).all())
    assert bool((u.grad[~cut] != 0).all())


def test_an_infinite_input_is_named_and_not_clamped() -> None:
    u = normal(1, 20, 3)
    u[0, 7, 1] = torch.inf
    with pytest.raises(ParameterError, match="batch 0, channel 1, step 7"):
        layer_of(max_gain=1.02)(u)


def test_max_gain_keeps_a_layer_finite_that_overflows_without_it() -> None:
    u = normal(1, 500, 3) * 1e4
    with pytest.raises(UnstableRecurrence):
        layer_of()(u)
    assert bool(torch.isfinite(layer_of(max_gain=1.0)(u)).all())


def test_max_gain_compiles_as_one_graph() -> None:
    layer = layer_of(max_gain=1.02)
    u = normal(2, 16, 3) * 3
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        assert torch.equal(compiled(u), layer(u))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_gain": 0.0}, "positive bound"),
        ({"max_gain": -1.0}, "positive bound"),
        ({"max_gain": float("nan")}, "positive bound"),
        ({"max_gain": float("inf")}, "positive bound"),
        ({"max_gain": 0.5}, r"largest \|ā\| is 0\.9"),
        ({"max_gain": 1.0, "structure": "dplr"}, "may have norm 1"),
        ({"max_gain": 1.1, "mode": "s4"}, "no transition depends on u"),
    ],
)
def test_a_max_gain_that_means_nothing_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        layer_of(**options)


def test_a_layer_that_training_closes_says_so() -> None:
    layer = layer_of(max_gain=0.9999)
    with torch.no_grad():
        layer.continuous.log_decay.fill_(-20.0)
    with pytest.raises(ParameterError, match="would get no input at all"):
        layer(normal(1, 4, 3))
    with pytest.raises(ParameterError, match="would get no input at all"):
        layer(normal(1, 4, 3), dt=torch.ones(1, 4))


MODES = {
    "s4": {"mode": "s4"},
    "liquid": {"mode": "liquid"},
    "truncated(2)": {"mode": "truncated", "order": 2},
    "truncated(3)": {"mode": "truncated", "order": 3},
    "kb(2)": {"mode": "kb", "order": 2},
    "kb(3)": {"mode": "kb", "order": 3},
    "kb(3, adjacent)": {"mode": "kb", "order": 3, "correlations": "adjacent"},
    "pb(2, adjacent)": {"mode": "pb", "order": 2, "correlations": "adjacent"},
    "pb(3, adjacent)": {"mode": "pb", "order": 3, "correlations": "adjacent"},
    "pb(2, window 64)": {"mode": "pb", "order": 2, "window": 64},
    "pb(3, window 64)": {"mode": "pb", "order": 3, "window": 64},
    "pb(2)": {"mode": "pb", "order": 2},
    "pb(3)": {"mode": "pb", "order": 3},
}


def exists(mode: str, structure: str) -> bool:
    return structure not in ("mimo", "s5") or mode.startswith(("s4", "liquid", "truncated"))


# A full matrix is slow step by step; its overflows are found where all are.
OVERFLOWS = [
    (mode, structure)
    for mode in MODES
    for structure in STRUCTURES
    if exists(mode, structure) and (structure != "dense" or mode == "liquid")
]


class Amplifier(nn.Module):
    """A layer behind a trained amplitude."""

    def __init__(self, layer: SSMLayer) -> None:
        super().__init__()
        self.layer, self.log_amplitude = layer, nn.Parameter(torch.zeros(()))

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        return self.layer(u * self.log_amplitude.exp())


def train_upwards(model: nn.Module, u: torch.Tensor, losses: list[float]) -> None:
    """Training that never stops to make |y| larger, with the losses on its way."""
    optimizer = torch.optim.Adam(model.parameters(), lr=2.0, maximize=True)
    for _ in range(60):
        optimizer.zero_grad()
        loss = model(u).abs().amax().log()
        losses.append(float(loss.detach()))
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize(("mode", "structure"), OVERFLOWS)
def test_training_that_diverges_names_step_and_channel(mode: str, structure: str) -> None:
    layer = layer_of(frozen=("Lambda", "P", "B", "C", "dt", "D"), **(MODES[mode] | STRUCTURES[structure]))
    if mode == "s4":
        # Linear: with outputs below the inputs it would be u that overflows.
        with torch.no_grad():
            layer.continuous.C *= 1e10
    losses: list[float] = []
    with pytest.raises(UnstableRecurrence) as raised:
        train_upwards(Amplifier(layer), normal(1, 20, 3), losses)
    assert len(losses) > 1
    assert np.isfinite(losses).all()
    error = raised.value
    assert 0 <= error.step < 20
    assert 0 <= error.channel < 3
    assert f"step {error.step}, channel {error.channel}" in str(error)


@pytest.mark.parametrize("mode", ["s4", "liquid", "truncated(3)"])
def test_per_step_intervals_that_diverge_name_step_and_channel(mode: str) -> None:
    layer = layer_of(frozen=("Lambda", "P", "dt"), **MODES[mode])
    with torch.no_grad():
        layer.continuous.B[1] *= 1e38
        layer.continuous.C[1] *= 1e10
    with pytest.raises(UnstableRecurrence, match="channel 1") as raised:
        layer(normal(1, 80, 3), dt=torch.ones(1, 80))
    assert raised.value.channel == 1


# Initial scale.  With white inputs of unit variance and E|C|² = 1, the expected variance of a linear output is
# 2 Σ_n |B̄_n|²/(1 − |ā_n|²), for B = 1, Re λ = −½ and bilinear exactly N δt (test below), for zoh at most that; of
# `legs` at most N δt, since its stationary covariance is at most δt I; of `s5` (variance of B' 1/N) H times the mean of
# δt.  For N = 64 and δt in [1e-3, 1e-1] that is 0.064 to 6.4.  The exact liquid form has 1/(1 − δt) times as much for
# diagonal systems.  One draw of a channel's C, with few modes that matter, is off by some factor: 0.01 to 100 is a
# factor of 6 below and of 16 above.
LOWEST, HIGHEST = 0.01, 100.0

# Not O(1), so not tested to be: e_p of all k inputs has variance binom(k, p), which grows without end, and Eq. 15 has
# no decay in front of it.  At L = 16384 variances of single channels up to 8e5 have been measured.
# With a window, or adjacent correlations, the same modes are in range.
UNBOUNDED = ("pb(2)", "pb(3)")

SCALES = [(init, mode) for init in INITIALIZATIONS for mode in MODES if exists(mode, init) and mode not in UNBOUNDED]


@pytest.mark.parametrize(("init", "mode"), SCALES)
def test_initial_outputs_are_of_order_one(init: str, mode: str) -> None:
    layer = layer_of(4, 64, init=init, feedthrough=False, **MODES[mode])
    with torch.no_grad():
        variances = layer(normal(1, 16384, 4))[0].var(0)
    assert float(variances.min()) > LOWEST, variances
    assert float(variances.max()) < HIGHEST, variances


@pytest.mark.parametrize("init", ["s4d-lin", "s4d-inv", "s4d-legs"])
def test_the_expected_variance_of_a_diagonal_layer_is_n_state_times_dt(init: str) -> None:
    layer = layer_of(4, 64, init=init).double()
    with torch.no_grad():
        system = layer.system()
        power = system.B_bar.abs().square() / (1 - system.A_bar.abs().square())
        found = 2 * power.sum(-1) / layer.continuous.dt()
        # With Re λ and |B|² for N = 64: |log Re λ| and 2 roundoffs of float32.  Some tens of float64, some of which
        # 1 - |ā|² amplifies, are a hundredth of one.
        off = (float(layer.continuous.log_decay.abs().max()) + 2) * UNIT
        fine = 64 * FINE / float((1 - system.A_bar.abs().square()).min())
    assert fine < 0.01 * UNIT
    np.testing.assert_allclose(found.numpy(), 64.0, rtol=off + fine)
