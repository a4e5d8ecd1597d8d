"""`kb` over adjacent tuples and `pb` with intervals of their own, against the sums over all tuples."""

from __future__ import annotations

from functools import partial
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import liquid_ssm as ls
from liquid_ssm import nn
from liquid_ssm.nn import sampling

KINDS = [(structure, mode) for structure in ("diagonal", "dplr") for mode in ("kb-adjacent", "pb-all", "pb-adjacent")]


def intervals(batch, length, seed=3):
    return 0.5 + 2 * torch.rand(batch, length, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def within(found, expected, bound):
    return bool(np.all(np.abs(found.detach().numpy() - expected) <= bound))


def matrices(system, h):
    """Ā and vectors B̄ and C of one channel, on both halves of every conjugate pair."""

    def both(values):
        values = values.astype(np.clongdouble)
        return np.concatenate([values, values.conj()])

    if system.structure == "dense":
        return tuple(values[h].astype(np.clongdouble) for values in (system.A_bar, system.B_bar, system.C))
    if system.structure == "diagonal":
        return np.diag(both(system.A_bar[h])), both(system.B_bar[h]), both(system.C[h])
    A = np.diag(both(system.Lambda_bar[h]))
    for P, Q in zip(system.P_bar, system.Q_bar, strict=True):
        A = A - np.outer(both(P[h]), both(Q[h]).conj())
    return A, both(system.B_bar[h]), both(system.C[h])


def by_definition(systems, u, spec):
    """y (L, H) of u (L, H) without D: every tuple by itself, step k by systems[k]."""
    length, n_channels = u.shape
    y = np.zeros(u.shape, np.longdouble)
    for h in range(n_channels):
        found = [matrices(system, h) for system in systems]
        w = [B * np.longdouble(now) for (_, B, _), now in zip(found, u[:, h], strict=True)]
        for p in range(1, spec.order + 1):
            for chosen in combinations(range(length), p):
                if spec.correlations == "adjacent" and chosen[-1] - chosen[0] >= p:
                    continue
                term = np.prod([w[i] for i in chosen], 0)
                for k in range(chosen[0], length):
                    if k not in chosen and (spec.mode == "kb" or p == 1):
                        term = found[k][0] @ term
                    if k >= chosen[-1]:
                        y[k, h] += (found[k][2] @ term).real
    return y


@pytest.fixture
def definition(rounded):
    """definition(layer, u, dt): exact y of the rounded systems of every step, and what a layer may be off from it.

    Of the sums of moduli of all terms, whose factors `rounded.of_layer` counts, at most: w of a tuple stands where Ā
    does otherwise, and is multiplied by one that is at hand.  A term of `pb` is added up over as many steps and orders.
    """

    def found(layer, u, dt):
        y, sizes = np.zeros(tuple(u.shape)), np.zeros(tuple(u.shape))
        for row, systems in enumerate(rounded.systems_at(layer, dt)):
            y[row] = by_definition(systems, u[row].numpy(), layer.spec)
            sizes[row] = by_definition([rounded.of_moduli(s) for s in systems], np.abs(u[row].numpy()), layer.spec)
        parameters = max(rounded.of_parameters(layer, factor) for factor in set(dt.flatten().tolist()))
        M, R = layer.continuous.n_modes, 0 if layer.continuous.P is None else len(layer.continuous.P)
        step = 3 + 3 + rounded.coupled(layer) + 1 + (2 if R else 1) * parameters
        roundings = u.shape[1] * step + 3 + 2 * M + layer.spec.order + 1
        through = (layer.D * u).detach().numpy()
        # The systems are off by as much as the layer's own; one for the result in float64.
        bound = 2 * rounded.gamma(roundings) * sizes + rounded.gamma(3) * (np.abs(through) + np.abs(y))
        return y + through, bound

    return found


@pytest.mark.parametrize(("structure", "mode"), KINDS)
@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("method", ["bilinear", "euler", "zoh"])
def test_outputs_are_the_sums_over_all_tuples(
    method, order, structure, mode, make_layer, make_signal, definition, in_double
):
    layer = make_layer(structure, mode, order=order, discretization=method, dt_max=0.02, dt_min=0.01)
    u, dt = make_signal(2, 8).double(), intervals(2, 8)
    expected, bound = definition(layer, u, dt)
    assert within(layer(u, dt=dt), expected, bound)
    # What differs from s4 is far above the bound.
    linear = make_layer(structure, "s4", discretization=method, dt_max=0.02, dt_min=0.01)(u, dt=dt)
    assert np.abs(linear.detach().numpy() - expected).max() > 1e3 * bound.max()


@pytest.mark.parametrize("rank", [2, 3])
def test_any_rank(rank, make_layer, make_signal, definition, in_double):
    random = np.random.default_rng(0)
    P = 0.3 * (random.normal(size=(rank, 2, 4)) + 1j * random.normal(size=(rank, 2, 4)))
    Lambda = -0.5 + 1j * np.pi * np.arange(4) + np.zeros((2, 1))
    system = ls.ContinuousSystem(Lambda, np.ones((2, 4)) + 0j, np.ones((2, 4)) + 0.5j, np.full(2, 0.05), P)
    layer = make_layer("dplr", "kb-adjacent", n_channels=2, init=system, discretization="bilinear")
    u, dt = make_signal(1, 8, 2).double(), intervals(1, 8)
    assert within(layer(u, dt=dt), *definition(layer, u, dt))


@pytest.mark.parametrize(("structure", "mode"), KINDS)
def test_equal_intervals_are_a_rate(structure, mode, make_layer, make_signal, exact, definition, in_double):
    layer, u = make_layer(structure, mode), make_signal(2, 8).double()
    value, _ = exact(SimpleNamespace(system=partial(layer.system, 3.0), spec=layer.spec, D=layer.D), u)
    dt = torch.full((2, 8), 1.5, dtype=torch.float64)
    assert within(layer(u, dt=dt, rate=2.0), value, definition(layer, u, 2 * dt)[1])


@pytest.mark.parametrize(("structure", "mode"), KINDS)
def test_pieces_and_steps_carry_on(structure, mode, make_layer, make_signal, definition, monkeypatch, in_double):
    layer, u, dt = make_layer(structure, mode), make_signal(2, 9).double(), intervals(2, 9)
    expected, bound = definition(layer, u, dt)
    first, state = layer.prefill(u[:, :1], layer.initial_state(2), dt=dt[:, :1])
    monkeypatch.setattr(sampling, "_STEPS", 3)  # several chunks
    second, state = layer.prefill(u[:, 1:8], state, dt=dt[:, 1:8])
    nothing, state = layer.prefill(u[:, 8:8], state, dt=dt[:, 8:8])
    assert nothing.shape == (2, 0, 3)
    with torch.no_grad():
        last, final = layer.step(u[:, 8], state, dt=dt[:, 8])
    assert within(torch.cat([first, second, last[:, None]], 1), expected, bound)
    assert [None if part is None else part.shape for part in final] == [
        None if part is None else part.shape for part in state
    ]


@pytest.mark.parametrize(("structure", "mode"), KINDS)
def test_steps_of_one_interval_may_come_before(structure, mode, make_layer, make_signal, definition, in_double):
    layer, u, dt = make_layer(structure, mode), make_signal(2, 8).double(), intervals(2, 8)
    dt[:, :4] = 1
    first, state = layer.prefill(u[:, :4], rate=1.5)
    second, _ = layer.prefill(u[:, 4:], state, rate=1.5, dt=dt[:, 4:])
    assert within(torch.cat([first, second], 1), *definition(layer, u, 1.5 * dt))


@pytest.mark.parametrize("padding", ["right", "left"])
@pytest.mark.parametrize("mode", ["kb-adjacent", "pb-all", "pb-adjacent"])
def test_padding_has_no_influence(mode, padding, make_layer, make_signal, in_double):
    layer, u, dt = make_layer("dplr", mode), make_signal(2, 9).double(), intervals(2, 9)
    lengths = torch.tensor([9, 6])
    real = slice(None, 6) if padding == "right" else slice(3, None)
    y, state = layer(u, lengths, dt=dt, padding=padding, return_state=True)
    alone, own = layer(u[1:, real], dt=dt[1:, real], return_state=True)
    # Zeros before the first input leave sums of zeros, and the same operations follow.
    assert torch.equal(y[1:, real], alone)
    for part, mine in zip(state, own, strict=True):
        assert part is mine is None or torch.equal(part[1:], mine)


@pytest.mark.parametrize("mode", ["kb-adjacent", "pb-all", "pb-adjacent"])
def test_gradients_reach_intervals_inputs_states_and_parameters(mode, make_layer, make_signal, monkeypatch, in_double):
    monkeypatch.setattr(sampling, "_STEPS", 2)  # several chunks
    layer = make_layer("dplr", mode, n_channels=2, n_state=4)
    u, dt = make_signal(1, 5, 2).double().requires_grad_(), intervals(1, 5).requires_grad_()
    _, given = layer.prefill(make_signal(1, 4, 2, seed=1).double(), dt=intervals(1, 4, seed=1))
    parts = [part.detach().requires_grad_() for part in given if part is not None]
    parameters = tuple(layer.parameters())

    def run(u, dt, *others):
        found = iter(others)
        state = ls.State(*(None if part is None else next(found) for part in given))
        y, final = layer(u, dt=dt, state=state, return_state=True)
        return y, *(part for part in final if part is not None)

    assert torch.autograd.gradcheck(run, (u, dt, *parts, *parameters))


@pytest.mark.parametrize("mode", ["kb-adjacent", "pb-all", "pb-adjacent"])
def test_compiled_without_breaks(mode, make_layer, make_signal, definition, in_double):
    layer, u, dt = make_layer("dplr", mode), make_signal(2, 6).double(), intervals(2, 6)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert within(compiled(u, dt=dt), *definition(layer, u, dt))


def test_a_state_of_dt_goes_on_with_dt(make_layer, make_signal):
    layer, u = make_layer("diagonal", "pb-adjacent"), make_signal()
    _, state = layer.prefill(u, dt=torch.ones(2, 21))
    with pytest.raises(ls.ParameterError, match=r"a call with dt.*torch\.ones\(batch, length\)"):
        layer.prefill(u, state)
    with torch.no_grad(), pytest.raises(ls.ParameterError, match="a call with dt"):
        layer.step(u[:, 0], state)


def test_states_that_do_not_fit_are_named(make_layer, make_signal):
    layer, u = make_layer("diagonal", "pb-adjacent"), make_signal()
    _, state = layer.prefill(u, dt=torch.ones(2, 21))
    with pytest.raises(ls.ShapeError, match=r"x \(2, 1, 3, 4\), sums \(2, 2, 3, 4\).*with dt.*sums \(1, 2, 3, 4\)"):
        layer.prefill(u[:1], state, dt=torch.ones(1, 21))
    with pytest.raises(ls.ShapeError, match=r"inputs None.*inputs \(2, 3, 2, 4\)"):
        layer.prefill(u, state._replace(inputs=None), dt=torch.ones(2, 21))
    with pytest.raises(ls.ParameterError, match="a state must be finite"):
        layer.prefill(u, state._replace(sums=state.sums * torch.nan), dt=torch.ones(2, 21))


def test_an_overflow_is_an_error(make_layer, make_signal):
    layer = make_layer("diagonal", "pb-all")
    with pytest.raises(ls.UnstableRecurrence, match=r"pb\(3, all\).*step .*, channel"):
        layer(1e25 * make_signal(1, 40), dt=torch.full((1, 40), 1e4))


def test_diagnoses_take_intervals(make_layer, make_signal):
    layer = make_layer("dplr", "kb-adjacent")
    # The digits of a table do not tell one interval from many that are equal; only who computed is another.
    given, found = (
        [line for line in nn.diagnose(layer, make_signal(), **options).table().splitlines() if "backend" not in line]
        for options in ({"dt": torch.ones(2, 21)}, {})
    )
    assert given == found
    assert any(line.startswith("energy of orders") for line in found)
