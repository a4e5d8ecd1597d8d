"""Parameters as tensors: what they stand for, whatever an optimiser does to them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import liquid_ssm as ls
from liquid_ssm.nn import ContinuousParameters, SSMLayer, diagnose
from liquid_ssm.oracle.discretisation_rounding import COMPLEX_QUOTIENT, discretisation_bounds
from liquid_ssm.oracle.rounding import COMPLEX_PRODUCT

UNIT = 2.0**-53


def bounds_by_name(continuous, discrete):
    """How far the parameters of a layer's bilinear system in float64 may be from those by NumPy, entry by entry."""
    found = discretisation_bounds(continuous.Lambda, continuous.B, continuous.dt, "bilinear", P=continuous.P)
    # Both are off by the bound; a layer multiplies by reciprocals, which costs a product more.
    both = 2 + COMPLEX_PRODUCT / COMPLEX_QUOTIENT
    bounds = {"A_bar": found.A, "Lambda_bar": found.A, "B_bar": found.B, "P_bar": found.P, "Q_bar": found.Q}
    return {name: both * bounds[name] if name in bounds else 0.0 for name in discrete}


@pytest.mark.parametrize("init", ["s4d-lin", "legs", "fout", "s5"])
def test_they_hold_the_system_they_are_made_from(init, in_double):
    system = ls.initialize(init, n_channels=3, n_state=8, seed=2)
    held = ContinuousParameters(system)
    found = held.continuous()
    assert (held.structure, held.n_channels, held.n_modes) == (system.structure, 3, found.n_modes)
    for name in ("Lambda", "B", "C", "P", "dt"):
        one, other = getattr(found, name), getattr(system, name)
        assert (one is None) == (other is None)
        if one is not None:
            # Decays and step sizes x go through a logarithm and back, each within one unit in the last place, two
            # roundoffs: 2 |log x| of the one, as an error of the exponent, and 2 of the other.
            through = {"Lambda": np.abs(other.real), "dt": other}.get(name)
            off = 0.0 if through is None else (2 * np.abs(np.log(through)) + 2) * UNIT * through * (1 + 2.0**-10)
            assert np.all(np.abs(one - other) <= off), name
    fine = found.discretize("bilinear").parameters
    bounds = bounds_by_name(found, fine)
    for name, value in held.system("bilinear").to_numpy().parameters.items():
        assert np.all(np.abs(value - fine[name]) <= bounds[name]), name


def test_the_system_of_float32_parameters_is_computed_in_float64_and_rounded_once():
    held = ContinuousParameters(ls.initialize("legs", n_channels=2, n_state=16, seed=2))
    single = held.system("bilinear")
    assert single.dtype == torch.float32
    continuous = held.continuous()
    fine = continuous.discretize("bilinear").parameters
    bounds = bounds_by_name(continuous, fine)
    for name, value in single.parameters.items():
        error = torch.view_as_real(value.detach().cdouble()).numpy() - fine[name].view(float).reshape(*value.shape, 2)
        off = bounds[name]
        # One rounding of float32 in each part.
        assert np.all(np.abs(error) <= (off + 2.0**-24 * (np.abs(fine[name]) + off))[..., None]), name


@pytest.mark.parametrize("value", [-1e30, -1e3, 0.0, 1e3, 1e30])
def test_eigenvalues_decay_and_steps_are_positive_whatever_the_tensors_hold(value):
    held = ContinuousParameters(ls.initialize("s4d-lin", n_channels=2, n_state=4))
    with torch.no_grad():
        held.log_decay.fill_(value)
        held.log_dt.fill_(-value)
    Lambda, dt = held.Lambda(), held.dt()
    assert bool((Lambda.re < 0).all())
    assert bool((dt > 0).all())
    assert bool(torch.isfinite(Lambda.re).all() and torch.isfinite(dt).all())
    held.continuous()  # which refuses everything else


@pytest.mark.parametrize("value", [float("inf"), -float("inf"), float("nan")])
@pytest.mark.parametrize("name", ["log_decay", "log_dt", "frequency", "B", "C"])
def test_what_training_has_made_infinite_is_named(name, value):
    """Bounded exponentials do not hide it."""
    layer = SSMLayer(2, 4, backend="first")
    with torch.no_grad():
        getattr(layer.continuous, name).view(-1)[1] = value
    u, dt = torch.ones(1, 3, 2), torch.ones(1, 3)
    for call in (lambda: layer(u), lambda: layer(u, dt=dt), lambda: layer.step(u[:, 0])):
        with pytest.raises(ls.UnstableRecurrence, match=rf"continuous\.{name} \(1 of"):
            call()
        with torch.no_grad(), pytest.raises(ls.UnstableRecurrence, match=rf"continuous\.{name} \(1 of"):
            call()
    report = diagnose(layer, u)
    assert f"continuous.{name}" in (report.failure or "")


def test_gradients_reach_the_tensors_through_every_discretization():
    for init, methods in {"s4d-lin": ("euler", "bilinear", "zoh"), "legs": ("euler", "bilinear", "zoh")}.items():
        for method in methods:
            held = ContinuousParameters(ls.initialize(init, n_channels=2, n_state=4))
            sum(p.abs().square().sum() for p in held.system(method).parameters.values()).backward()
            assert all(p.grad is not None and p.grad.abs().max() > 0 for p in held.parameters()), (init, method)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf"), torch.tensor(0.0)])
def test_a_rate_is_a_positive_number(rate):
    with pytest.raises(ls.ParameterError, match="positive factor"):
        ContinuousParameters(ls.initialize("s5", n_channels=2, n_state=4)).system("zoh", rate)
    with pytest.raises(ls.ShapeError, match=r"rate has shape \(2,\)"):
        ContinuousParameters(ls.initialize("s5", n_channels=2, n_state=4)).system("zoh", torch.ones(2))


def test_frozen_parts_ask_for_no_gradient():
    held = ContinuousParameters(ls.initialize("legs", n_channels=2, n_state=4), frozen=["Lambda", "dt"])
    frozen = {name for name, p in held.named_parameters() if not p.requires_grad}
    assert frozen == {"log_decay", "frequency", "log_dt"}
    with pytest.raises(ls.ParameterError, match="part 'A'"):
        ContinuousParameters(ls.initialize("legs", n_channels=2, n_state=4), frozen=["A"])


def test_systems_that_are_not_half_spectra_are_refused():
    dense = ls.ContinuousSystem.dense(-np.eye(2)[None], np.ones((1, 2)), np.ones((1, 2)), 0.1)
    with pytest.raises(ls.ParameterError, match="full matrix"):
        ContinuousParameters(dense)
    both = ls.ContinuousSystem(np.full((1, 2), -1.0), np.ones((1, 2)), np.ones((1, 2)), 0.1, conjugate_pairs=False)
    with pytest.raises(ls.ParameterError, match="conjugate pair"):
        ContinuousParameters(both)
    with pytest.raises(ls.ParameterError, match="'adams-bashforth'"):
        ContinuousParameters(ls.initialize("s5", n_channels=2, n_state=4)).system("adams-bashforth")


@pytest.mark.parametrize(
    ("changes", "values", "message"),
    [
        ({"discretization": "euler"}, {"log_dt": 30.0, "log_decay": 70.0}, "A_bar leaves the range of torch.float32"),
        ({"discretization": "euler", "init": "legs"}, {"log_dt": 30.0, "log_decay": 70.0}, "A_bar leaves the range"),
        ({"init": "s5", "discretization": "euler"}, {"log_dt": 50.0, "B": 1e30}, "B_bar leaves the range"),
        ({"mode": "kb", "order": 3, "window": 4}, {"B": 1e20, "log_dt": 0.0}, "B_bar to the power 2 leaves the range"),
        ({"init": "legs", "discretization": "zoh"}, {"log_decay": 50.0}, r"‖dt·A‖ is .*discretization='bilinear'"),
    ],
)
def test_a_discrete_system_out_of_range_is_named(changes, values, message):
    """Its parameters are finite."""
    layer = SSMLayer(2, 4, backend="first", **changes)
    with torch.no_grad():
        for name, value in values.items():
            getattr(layer.continuous, name).fill_(value)
    u = torch.ones(1, 3, 2)
    for call in (lambda: layer(u), lambda: layer.step(u[:, 0])):
        with pytest.raises(ls.UnstableRecurrence, match=message + ".*lower the learning rate"):
            call()
        with torch.no_grad(), pytest.raises(ls.UnstableRecurrence, match=message + ".*lower the learning rate"):
            call()


@pytest.mark.parametrize("rate", [1e3, 1e6, 1e12])
@pytest.mark.parametrize(
    "options",
    [
        {"init": "legs", "mode": "s4"},
        {"init": "legs", "mode": "liquid"},
        {"init": "legs", "mode": "kb", "window": 4},
        {"init": "legs", "mode": "kb", "correlations": "adjacent"},
        {"init": "legs", "discretization": "zoh"},
        {"init": "s5", "mode": "liquid"},
        {"mode": "s4"},
        {"mode": "kb", "window": 4},
        {"mode": "pb"},
        {"mode": "truncated"},
        {"discretization": "euler"},
    ],
)
def test_training_that_diverges_ends_in_one_error(options, rate):
    """Without warnings of what overflows on the way, which the suite takes for errors."""
    layer = SSMLayer(3, 6, backend="first", seed=1, **options)
    u = torch.randn(2, 40, 3, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.SGD(layer.parameters(), lr=rate)

    def train():
        for _ in range(40):
            optimizer.zero_grad()
            (layer(u) - 1).square().mean().backward()
            optimizer.step()

    with pytest.raises(ls.UnstableRecurrence):
        train()
