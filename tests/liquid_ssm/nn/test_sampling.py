"""Irregular sampling: each step with its own interval, in the liquid term too."""

from __future__ import annotations

from functools import partial
from itertools import combinations
from math import comb
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import liquid_ssm as ls
from liquid_ssm.nn import ContinuousParameters, sampling

KINDS = [
    (structure, mode, method)
    for structure in ("diagonal", "dplr", "mimo")
    for mode in ("s4", "liquid", "truncated")
    for method in ("euler", "bilinear", "zoh")
]


def intervals(batch, length, seed=3):
    return 0.5 + 2 * torch.rand(batch, length, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def allowed(rounded):
    """allowed(layer, u, dt, terms): of outputs and final states."""
    return rounded.of_layer


def within(found, expected, bound):
    return bool(np.all(np.abs(found.detach().numpy() - expected) <= bound))


def by_steps(layer, u, systems):
    """y, D u among it, and final states of u (batch, length, H) by NumPy, row and step by systems[row][step]."""
    outputs, finals = [], []
    for row, inputs in zip(systems, u.numpy(), strict=True):
        state, y = None, []
        for system, u_k in zip(row, inputs, strict=True):
            value, state = ls.step(
                system, u_k[None], state, mode=layer.spec.mode, order=layer.spec.order, backend="numpy"
            )
            y.append(value[0])
        outputs.append(y)
        finals.append(state[0])
    return np.array(outputs) + (layer.D * u).detach().numpy(), np.array(finals)


@pytest.mark.parametrize("backend", ["first", "torch"])
@pytest.mark.parametrize(("structure", "mode", "method"), KINDS)
def test_every_step_is_that_of_a_system_with_its_step_size(
    structure, mode, method, backend, make_layer, make_signal, allowed, rounded, in_double
):
    layer = make_layer(structure, mode, discretization=method, dt_max=0.02, backend=backend)
    u, dt = make_signal(2, 12).double(), intervals(2, 12)
    y, final = layer(u, dt=dt, return_state=True)
    of_y, of_state = allowed(layer, u, dt)
    value, last = by_steps(layer, u, rounded.systems_at(layer, dt))
    assert within(y, value, 2 * of_y)
    assert within(final, last, 2 * of_state)


@pytest.mark.parametrize("mode", ["s4", "liquid", "truncated"])
def test_equal_intervals_are_a_rate(mode, make_layer, make_signal, exact, allowed, in_double):
    layer, u = make_layer("dplr", mode), make_signal(2, 30).double()
    dt = torch.full((2, 30), 1.5, dtype=torch.float64)
    value, _ = exact(SimpleNamespace(system=partial(layer.system, 3.0), spec=layer.spec, D=layer.D), u)
    # The system of one rate has errors of its own.
    assert within(layer(u, dt=dt, rate=2.0), value, 2 * allowed(layer, u, 2 * dt)[0])


def test_pieces_and_steps_carry_on(make_layer, make_signal, allowed, in_double):
    layer, u, dt = make_layer(), make_signal(2, 30).double(), intervals(2, 30)
    whole = layer(u, dt=dt)
    first, state = layer.prefill(u[:, :11], dt=dt[:, :11])
    second, state = layer.prefill(u[:, 11:29], state, dt=dt[:, 11:29])
    with torch.no_grad():
        last, _ = layer.step(u[:, 29], state, dt=dt[:, 29])
    assert within(torch.cat([first, second, last[:, None]], 1), whole.detach().numpy(), 2 * allowed(layer, u, dt)[0])


@pytest.mark.parametrize(("structure", "modes"), [("dplr", 2), ("dense", 4)])
def test_gradients_reach_intervals_inputs_states_and_parameters(
    structure, modes, make_layer, make_signal, monkeypatch, in_double
):
    monkeypatch.setattr(sampling, "_STEPS", 2)  # several chunks
    layer = make_layer(structure, "liquid", n_channels=2, n_state=4)
    u, dt = make_signal(1, 5, 2).double().requires_grad_(), intervals(1, 5).requires_grad_()
    state = torch.randn(1, 2, modes, dtype=torch.complex128, requires_grad=True)
    parameters = tuple(layer.parameters())

    def run(u, dt, state, *_):
        return layer(u, dt=dt, state=state)

    assert torch.autograd.gradcheck(run, (u, dt, state, *parameters))


def test_memory_does_not_hold_the_states_of_all_steps(make_layer, make_signal):
    layer, held = make_layer("diagonal", "liquid", n_channels=4, n_state=32), []

    def pack(tensor):
        held.append(tensor.numel() * tensor.element_size())
        return tensor

    def kept(length):
        held.clear()
        u, dt = make_signal(1, length, 4), torch.ones(1, length)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            layer(u, dt=dt)
        return sum(held)

    # Inputs, outputs, intervals, and one state of 4 × 16 complex numbers per 64 steps; all states would be 512 bytes
    # more per step.
    assert (kept(2048) - kept(1024)) / 1024 <= 8 * 4 * 4 + 4 * 16 * 8 / 64


@pytest.mark.parametrize("order", [2, 3])
def test_kb_over_all_tuples_of_a_diagonal_system_is_truncated(
    order, make_layer, make_signal, exact, allowed, in_double
):
    layer, twin = (make_layer("diagonal", mode, order=order) for mode in ("kb-all", "truncated"))
    u, dt = make_signal(2, 12).double(), intervals(2, 12)
    # The oracle has every Ā in front of every B̄.  The system of one step size has errors of its own.
    ones = torch.ones(2, 12)
    assert within(layer(u, dt=ones), exact(layer, u)[0], 2 * allowed(layer, u, ones)[0])
    found, final = layer(u, dt=dt, return_state=True)
    expected, last = twin(u, dt=dt, return_state=True)
    assert torch.equal(found, expected)
    assert isinstance(final, ls.State)
    assert torch.equal(final.x, last)
    first, state = layer.prefill(u[:, :7], dt=dt[:, :7])
    second, _ = layer.prefill(u[:, 7:], state, dt=dt[:, 7:])
    of_y, _ = allowed(layer, u, dt)
    assert within(torch.cat([first, second], 1), found.detach().numpy(), 2 * of_y)
    # By definition: over all tuples, every transition after the oldest input, and the inputs' own B̄.
    A_bar, B_bar, *_ = layer.continuous.discretize("bilinear", dt[0])
    C = torch.view_as_complex(layer.continuous.C)
    total = layer.D * u[0, 11]
    for p in range(1, order + 1):
        for tuple_ in combinations(range(12), p):
            between = [k for k in range(tuple_[0] + 1, 12) if k not in tuple_]
            terms = (B_bar[list(tuple_)] * u[0, list(tuple_), :, None]).prod(0) * A_bar[between].prod(0)
            total = total + 2 * (C * terms).real.sum(-1)
    # A product of at most 12 numbers takes no more roundings than as many steps; one sum is of all tuples.
    tuples = sum(comb(12, p) for p in range(1, order + 1))
    both = of_y[0, 11] + allowed(layer, u, dt, terms=tuples)[0][0, 11]
    assert within(found[0, 11], total.detach().numpy(), both)
    assert (layer(u, dt=dt) - make_layer("diagonal", "s4")(u, dt=dt)).abs().max() > 1e-3


@pytest.mark.parametrize("mode", ["kb-all", "kb-adjacent", "pb-all", "pb-window"])
@pytest.mark.parametrize("structure", ["diagonal", "dplr"])
def test_the_first_order_of_every_mode_is_s4(structure, mode, make_layer, make_signal, in_double):
    layer, u, dt = make_layer(structure, mode, order=1), make_signal().double(), intervals(2, 21)
    found, final = layer(u, dt=dt, return_state=True)
    expected, last = make_layer(structure, "s4")(u, dt=dt, return_state=True)
    assert torch.equal(found, expected)
    assert torch.equal(final.x[:, 0], last)


@pytest.mark.parametrize(
    ("structure", "mode"),
    [
        *((structure, mode) for structure in ("diagonal", "dplr") for mode in ("kb-window", "kb-adjacent-window")),
        ("diagonal", "pb-window"), ("dplr", "pb-window"), ("dplr", "kb-all"),
    ],
)  # fmt: skip
def test_modes_without_a_recurrence_are_refused(structure, mode, make_layer, make_signal):
    with pytest.raises(ls.ParameterError, match=f"{structure} system .* s4, liquid, truncated, .*without window"):
        make_layer(structure, mode)(make_signal(), dt=torch.ones(2, 21))


def test_one_discretisation_per_step_and_none_besides(make_layer, make_signal, monkeypatch):
    layer, sizes = make_layer(backend="torch"), []
    discretize = ContinuousParameters.discretize

    def counted(self, method, rate=1.0, **options):
        sizes.append(tuple(rate.shape))
        return discretize(self, method, rate, **options)

    monkeypatch.setattr(ContinuousParameters, "discretize", counted)
    monkeypatch.setattr(ContinuousParameters, "system", None)
    layer(make_signal(2, 70), dt=torch.ones(2, 70))
    assert sizes == [(64, 2), (6, 2)]


@pytest.mark.parametrize(
    ("dt", "error", "message"),
    [
        (torch.ones(21), ls.ShapeError, r"\(2, 21\)"),
        (torch.ones(2, 20), ls.ShapeError, r"\(2, 20\).*\(2, 21\)"),
        (torch.zeros(2, 21), ls.ParameterError, "positive"),
        (torch.full((2, 21), float("nan")), ls.ParameterError, "nan; intervals are positive"),
        (torch.full((2, 21), float("inf")), ls.ParameterError, "inf; intervals are positive"),
    ],
)
def test_bad_intervals_are_named(dt, error, message, make_layer, make_signal):
    with pytest.raises(error, match=message):
        make_layer()(make_signal(), dt=dt)


def test_an_overflow_is_an_error(make_layer, make_signal):
    with pytest.raises(ls.UnstableRecurrence, match=r"step .*, channel"):
        make_layer(dt_min=1, dt_max=1)(100 * make_signal(1, 400) + 200, dt=torch.ones(1, 400))


@pytest.mark.parametrize("mode", ["s4", "liquid", "truncated"])
def test_full_matrices_carry_on(mode, make_layer, make_signal, allowed, rounded, monkeypatch, in_double):
    layer, u, dt = make_layer("dense", mode), make_signal(2, 9).double(), intervals(2, 9)
    rested, state = layer.prefill(u[:, :0], dt=dt[:, :0])
    assert rested.shape == (2, 0, 3)
    first, state = layer.prefill(u[:, :1], state, dt=dt[:, :1])
    monkeypatch.setattr(sampling, "_STEPS", 3)  # several pieces
    second, state = layer.prefill(u[:, 1:8], state, dt=dt[:, 1:8])
    with torch.no_grad():
        last, _ = layer.step(u[:, 8], state, dt=dt[:, 8])
    y, _ = by_steps(layer, u, rounded.systems_at(layer, dt, [1, 3, 3, 1, 1]))
    assert within(torch.cat([first, second, last[:, None]], 1), y, 2 * allowed(layer, u, dt)[0])


def test_states_of_full_matrices_go_from_one_interval_to_many(make_layer, make_signal, allowed, rounded, in_double):
    layer, u, dt = make_layer("dense"), make_signal(2, 9).double(), torch.ones(2, 4)
    first, state = layer.prefill(u[:, :5])
    second, _ = layer.prefill(u[:, 5:], state, dt=dt)
    with torch.no_grad():
        system = layer.system().to_numpy()
    y, _ = by_steps(layer, u, [[system] * 5 + systems for systems in rounded.systems_at(layer, dt)])
    assert within(torch.cat([first, second], 1), y, 2 * allowed(layer, u, torch.ones(2, 9))[0])
