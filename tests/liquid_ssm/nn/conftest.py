"""What tests of layers share: layers of every kind, and how far their outputs may be from the exact ones."""

from __future__ import annotations

import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from liquid_ssm.compute import problem_of
from liquid_ssm.nn import SSMLayer
from liquid_ssm.oracle.reference import reference
from liquid_ssm.registry import default_backend, get_backend
from liquid_ssm.rounding_errors import options, realization_of, rounding_models

STRUCTURES = {
    "diagonal": {"init": "s4d-lin"},
    "dplr": {"init": "legs"},
    "mimo": {"init": "s5"},
    "dense": {"init": "fout", "discretization": "zoh"},
}
MODES = {
    "s4": {"mode": "s4"},
    "liquid": {"mode": "liquid"},
    "truncated": {"mode": "truncated", "order": 3},
    "kb-all": {"mode": "kb", "order": 2},
    "kb-adjacent": {"mode": "kb", "order": 3, "correlations": "adjacent"},
    "kb-window": {"mode": "kb", "order": 2, "window": 4},
    "kb-adjacent-window": {"mode": "kb", "order": 3, "correlations": "adjacent", "window": 5},
    "pb-all": {"mode": "pb", "order": 3},
    "pb-adjacent": {"mode": "pb", "order": 3, "correlations": "adjacent"},
    "pb-window": {"mode": "pb", "order": 2, "window": 5},
}
# kb and pb multiply scalar inputs, which a state that all channels share does not have.
LEFT_OUT = {"mimo": {mode for mode in MODES if mode[:2] in ("kb", "pb")}}
KINDS = [(structure, mode) for structure in STRUCTURES for mode in MODES if mode not in LEFT_OUT.get(structure, ())]


def _layer(structure: str = "diagonal", mode: str = "liquid", n_channels: int = 3, **changes) -> SSMLayer:
    # Liquid terms of full size: the smaller they are, the less a test of them sees.
    given = {
        "n_state": 8,
        "seed": 5,
        "backend": "first",
        "liquid_scale": 1.0,
        **STRUCTURES[structure],
        **MODES[mode],
        **changes,
    }
    return SSMLayer(n_channels, **given)


def _signal(batch: int = 2, length: int = 21, n_channels: int = 3, seed: int = 0) -> torch.Tensor:
    return 0.4 * torch.randn(batch, length, n_channels, generator=torch.Generator().manual_seed(seed))


def _exact(layer: SSMLayer, u: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The exact y (batch, length, H), D u among it, and how far one in the layer's precision may be from it.

    The bound is that of the recurrence with a state, which the whole sequence and the steps share, and for D u a
    product and a sum, each rounded by itself.
    """
    with torch.no_grad():
        system = layer.system().to_numpy()
    signals = u.transpose(1, 2).contiguous().numpy()
    problem = problem_of(system, signals, layer.spec, state=True)
    backend = get_backend(default_backend(problem).backend)
    models = rounding_models(backend, problem)
    found = reference(
        realization_of(system), signals, layer.spec.mode, models=models, dtype=np.longdouble, **options(layer.spec)
    )
    through = layer.D.detach().numpy().astype(float)[:, None] * signals if layer.D is not None else 0 * signals
    value = np.asarray(found.value, float)
    rounding = np.finfo(signals.dtype).eps / 2
    allowed = sum(bound.componentwise + bound.normwise[..., None] for bound in found.bounds)
    bound = allowed + rounding * (2 * np.abs(through) + np.abs(value + through))
    # One more roundoff for terms of second order.
    bound = (1 + 4 * rounding) * np.asarray(bound, float) + np.asarray(found.radius, float)
    return (value + through).transpose(0, 2, 1), bound.transpose(0, 2, 1)


def _exact_both_ways(layer: SSMLayer, u: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """As `_exact`, of a bidirectional layer: the two directions' bounds, their sum's rounding, and those of D u."""
    forwards = SimpleNamespace(system=layer.system, spec=layer.spec, D=None)
    backwards = SimpleNamespace(system=partial(layer.system, reverse=True), spec=layer.spec, D=None)
    first, bound = _exact(forwards, u)
    second, more = (part[:, ::-1] for part in _exact(backwards, u.flip(1)))
    if layer.reverse_lag:
        second, more = (np.pad(part[:, 1:], ((0, 0), (0, 1), (0, 0))) for part in (second, more))
    through = np.zeros(u.shape) if layer.D is None else (layer.D * u).detach().numpy()
    unit = torch.finfo(u.dtype).eps / 2
    value = first + second + through
    rounded = np.abs(first + second) + 2 * np.abs(through) + np.abs(value)
    # One more roundoff for terms of second order, as there.
    return value, (1 + 4 * unit) * (bound + more + unit * rounded)


def pytest_generate_tests(metafunc):
    if "kind" in metafunc.fixturenames:
        metafunc.parametrize("kind", KINDS, ids="-".join)


@pytest.fixture(scope="session")
def make_layer():
    """layer(structure, mode, n_channels, **options)."""
    return _layer


@pytest.fixture(scope="session")
def make_signal():
    """signal(batch, length, n_channels, seed) -> u (batch, length, n_channels)."""
    return _signal


@pytest.fixture(scope="session")
def exact():
    """exact(layer, u) -> (exact y, bound)."""
    return _exact


@pytest.fixture(scope="session")
def exact_both_ways():
    """exact_both_ways(layer, u) -> (exact y, bound) of a bidirectional layer."""
    return _exact_both_ways


@pytest.fixture(autouse=True)
def no_earlier_graphs():
    """Graphs of other tests' layers do not count towards the limit of `torch.compile`."""
    yield
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()


@pytest.fixture
def in_double():
    """New parameters are float64."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
