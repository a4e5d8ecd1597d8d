"""What a step keeps from the last one is used only while every parameter and every option is the same."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from liquid_ssm.nn import latest
from liquid_ssm.problem import ModeSpec


@pytest.fixture
def made(monkeypatch):
    """The systems that steps were prepared with."""
    found = []

    class Counted(latest.PreparedStep):
        def __init__(self, system, *arguments, **options):
            found.append(system)
            super().__init__(system, *arguments, **options)

    monkeypatch.setattr(latest, "PreparedStep", Counted)
    return found


@pytest.fixture
def layer(make_layer):
    return make_layer(backend="numba")


def test_steps_of_the_same_layer_prepare_once(layer, made):
    u = torch.ones(2, layer.n_channels)
    with torch.no_grad():
        for _ in range(3):
            layer.step(u)
    assert len(made) == 1


@pytest.mark.parametrize("name", ["log_dt", "B", "C", "D"])
def test_the_smallest_change_of_any_parameter_is_seen(layer, made, name):
    u = torch.ones(2, layer.n_channels)
    parameter = layer.D if name == "D" else getattr(layer.continuous, name)
    numbers = parameter.data.numpy().reshape(-1)
    with torch.no_grad():
        layer.step(u)
        kept = numbers[-1]
        numbers[-1] = np.nextafter(kept, np.float32(np.inf))
        layer.step(u)
        assert len(made) == 2
        numbers[-1] = kept
        layer.step(u)
        assert len(made) == 3


def test_zeros_of_two_signs_are_two_numbers(layer, made):
    u = torch.ones(2, layer.n_channels)
    with torch.no_grad():
        for zero in (0.0, -0.0):
            layer.D.data[0] = zero
            layer.step(u)
    assert len(made) == 2


def test_parameters_that_are_other_tensors_are_seen(layer, made):
    u = torch.ones(2, layer.n_channels)
    with torch.no_grad():
        layer.step(u)
        layer.D.data = layer.D.data.clone()
        layer.step(u)
        assert len(made) == 1  # the same numbers
        layer.D.data = 2 * layer.D.data
        layer.step(u)
    assert len(made) == 2


def test_a_parameter_that_is_not_contiguous(layer, made):
    u = torch.ones(2, layer.n_channels)
    with torch.no_grad():
        layer.step(u)
        layer.D.data = torch.stack([layer.D.data, layer.D.data], 1)[:, 0]
        assert not layer.D.is_contiguous()
        layer.step(u)
        assert len(made) == 1
        layer.D.data[0] += 1
        layer.step(u)
    assert len(made) == 2


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_gain", 1.1), ("backend", "torch"), ("backend", "numba"), ("discretization", "euler"),
        ("spec", ModeSpec("s4")), ("tolerance", 1e-4), ("recheck", 0.5),
    ],
)  # fmt: skip
def test_options_that_change_are_seen(make_layer, made, option, value):
    layer = make_layer(backend="auto" if option in ("tolerance", "recheck") else "first")
    u = torch.full((2, layer.n_channels), 0.5)
    with torch.no_grad():
        _, state = layer.step(u)
        setattr(layer, option, value)
        y, _ = layer.step(u, state)
        layer.step(u, rate=2.0)
        assert len(made) == 3
        # A copy knows nothing of what was before.
        assert torch.equal(y, copy.deepcopy(layer).step(u, state)[0])


def test_a_copy_of_a_layer_keeps_nothing(layer, made):
    u = torch.ones(2, layer.n_channels)
    with torch.no_grad():
        first, _ = layer.step(u)
        second, _ = copy.deepcopy(layer).step(u)
    assert torch.equal(first, second)
    assert len(made) == 2


def test_numbers_written_to_a_parameter_s_new_place_are_seen(layer, made):
    u = torch.ones(2, layer.n_channels)
    with torch.no_grad():
        layer.step(u)
        before, layer.D.data = layer.D.data, layer.D.data.clone()
        layer.step(u)
        before += 1  # which is no parameter any more
        layer.step(u)
        assert len(made) == 1
        layer.D.data += 1
        layer.step(u)
    assert len(made) == 2


def test_another_form_of_the_same_place_is_seen(layer, made):
    u, values = torch.ones(2, layer.n_channels), torch.arange(6.0)
    with torch.no_grad():
        layer.D.data = values[:3]
        layer.step(u)
        layer.D.data = values[::2]
        layer.step(u)
    assert len(made) == 2


def test_numbers_in_formats_that_numpy_lacks_are_seen(layer, made):
    u = torch.ones(2, layer.n_channels)
    with torch.no_grad():
        layer.D.data = layer.D.data.bfloat16()
        layer.step(u)
        layer.step(u)
        assert len(made) == 1
        layer.D.data[0] += 1
        layer.step(u)
        assert len(made) == 2
        layer.D = None
        layer.step(u)
    assert len(made) == 3


@pytest.mark.parametrize("name", ["B", "D"])
def test_parameters_that_are_made_of_others_are_made_anew_at_every_step(layer, made, name):
    class Doubled(torch.nn.Module):
        def forward(self, x):
            return 2 * x

    module = layer if name == "D" else layer.continuous
    u = torch.ones(2, layer.n_channels)
    torch.nn.utils.parametrize.register_parametrization(module, name, Doubled())
    original = getattr(module.parametrizations, name).original
    with torch.no_grad():
        for _ in range(2):
            found, expected = layer.step(u)[0], layer(u[:, None])[:, 0]
            assert torch.equal(found, expected)
            original.mul_(3)
    assert not made
