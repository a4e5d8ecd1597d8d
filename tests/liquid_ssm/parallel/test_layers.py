"""Layers and models over slices against the same on one process, in float64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from liquid_ssm import nn
from liquid_ssm.compute import problem_of
from liquid_ssm.oracle.reference import reference
from liquid_ssm.registry import get_backend
from liquid_ssm.rounding_errors import realization_of, rounding_model

NAMES = ("liquid", "clamped", "mimo", "last", "mean", "none")


def near(found, expected, error):
    """Whether slices and the whole differ by no more than twice what either may be off by."""
    return bool(((found - expected).detach().abs() <= 2 * error).all())


@pytest.fixture(scope="module")
def errors(ranks, rounded, rounded_gradients):
    """errors(name): of outputs, states, gradients, statistics, and of the outputs that go on from there."""
    known = {}

    def of(name):
        if name not in known:
            module = {**ranks.layers(), **ranks.models()}[name]
            u, weights = ranks.features(21)
            u.requires_grad_()
            network, statistics = rounded_gradients.Network(), {}
            if isinstance(module, nn.SSMLayer):
                y, state = network.layer(module, u)
                loss = network.polynomial(torch.mul, 1, 1, y, y).sum()
                again, _ = network.layer(module, u, state)
            else:
                passes = rounded_gradients.Passes(network, module, rounded)
                y = passes.training(u)
                loss, state = ranks.loss_of(y, weights), passes.states[-1]
                again = passes.evaluation(u)
                names = {norm: name for name, norm in module.named_modules()}
                for norm, (mean, variance) in passes.statistics.items():
                    statistics |= {
                        f"{names[norm]}.norm.running_mean": mean,
                        f"{names[norm]}.norm.running_var": variance,
                    }
            parameters = dict(module.named_parameters())
            gradients = network.gradients(loss, [u, *parameters.values()])
            values = {"y": y, "state": state, "again": again, **statistics, "u": gradients[0]}
            values |= {f"gradient of {one}": g for one, g in zip(parameters, gradients[1:], strict=True)}
            known[name] = dict(zip(values, network.errors(*values.values()), strict=True))
        return known[name]

    return of


@pytest.fixture(
    scope="module", params=[(size, case, name) for size in (2, 4) for case in (0, 1) for name in NAMES], ids=str
)
def pair(request, results, ranks, errors):
    """What the ranks have found, what one process finds, and what either may be off by."""
    size, case, name = request.param
    lengths = ranks.SLICES[size][case]
    assert sum(lengths) == 21
    module = {**ranks.layers(), **ranks.models()}[name]
    u, weights = ranks.features(sum(lengths))
    u.requires_grad_()
    y, state = module(u, return_state=True)
    loss = y.square().sum() if isinstance(module, nn.SSMLayer) else ranks.loss_of(y, weights)
    loss.backward()
    with torch.no_grad():
        again = module.eval()(u, state=state)
    return [rank["module"][name, lengths] for rank in results(size)], (module, u, y, state, again), errors(name)


def joined(parts, expected):
    """Outputs per step of all ranks, or the one that all of them have."""
    if expected.ndim == 3:
        return torch.cat(parts, 1)
    assert all(torch.equal(part, parts[0]) for part in parts)
    return parts[0]


def test_outputs_and_states(pair):
    found, (_, _, y, state, again), error = pair
    assert near(joined([rank["y"] for rank in found], y), y, error["y"])
    assert near(joined([rank["again"] for rank in found], again), again, error["again"])
    last = torch.view_as_real(state if isinstance(state, torch.Tensor) else state.layers[-1])
    assert all(near(torch.view_as_real(rank["state"]), last, error["state"]) for rank in found)


def test_gradients_after_their_sum(pair):
    found, (module, u, _, _, _), error = pair
    assert near(torch.cat([rank["u"] for rank in found], 1), u.grad, error["u"])
    expected = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    for rank in found:
        assert rank["grads"].keys() == expected.keys()
        for name, gradient in expected.items():
            assert near(rank["grads"][name], gradient, error[f"gradient of {name}"]), name
    assert all(gradient.abs().max() > 0 for gradient in expected.values())


def test_running_statistics(pair):
    found, (module, _, _, _, _), error = pair
    for name, buffer in module.named_buffers():
        for rank in found:
            if name in error:
                assert near(rank["buffers"][name], buffer, error[name]), name
            else:
                assert name.endswith("num_batches_tracked")
                assert torch.equal(rank["buffers"][name], buffer)


@pytest.mark.parametrize("size", [2, 4])
def test_what_has_no_form_for_slices_is_an_error_on_every_rank(size, results):
    for rank in results(size):
        assert rank["bad module"]["error"] == "ParameterError"
        assert "bidirectional=False" in rank["bad module"]["message"]
        assert rank["bad features"]["error"] == "ShapeError"
        assert "this model takes (batch, length, 3)" in rank["bad features"]["message"]
        assert rank["no steps"]["error"] == "ShapeError"
        assert "pooling='none'" in rank["no steps"]["message"]
        for name in ("numpy layer", "numpy model"):
            assert rank[name]["error"] == "DTypeError"
            assert "u_local is a ndarray" in rank[name]["message"]
        assert rank["other"]["error"] == "ParameterError"
        assert "Linear has no form for slices" in rank["other"]["message"]


NOT_FINITE = {
    "D": ("UnstableRecurrence", "parameters hold NaN or infinite values: D (1 of"),
    "head": ("UnstableRecurrence", "parameters hold NaN or infinite values: head.weight (1 of"),
    "step size": ("UnstableRecurrence", "parameters hold NaN or infinite values: continuous.log_dt (1 of"),
    "no step yet": ("ParameterError", "row 0 has no steps"),
    "between": ("UnstableRecurrence", "of this model holds NaN or infinite values, though what was given is finite"),
    "D u": ("UnstableRecurrence", "in the sum of D u and what the recurrences give"),
    "half": ("ParameterError", "y leaves the range of torch.float16"),
}


@pytest.mark.parametrize("name", NOT_FINITE)
@pytest.mark.parametrize("size", [2, 4])
def test_no_output_hides_what_is_not_finite(size, name, results):
    error, message = NOT_FINITE[name]
    for rank in results(size):
        found = rank["not finite"][name]
        assert found["error"] == error, found
        assert message in found["message"]


def exact(layer, u):
    """The exact y (batch, length, H) and how far that of slices may be from it: scans in any bracketing, and D u."""
    with torch.no_grad():
        system, D = layer.system().to_numpy(), layer.D.double()
    signals = u.mT.contiguous().numpy()
    model = rounding_model(get_backend("torch"), problem_of(system, signals, layer.spec, state=True))
    models = [replace(model, scan="any", fft=False)]
    found = reference(realization_of(system), signals, layer.spec.mode, models=models, dtype=np.longdouble)
    value, bound, radius = (
        torch.from_numpy(np.asarray(part, float)).mT
        for part in (found.value, found.bounds[0].componentwise, found.radius)
    )
    through, unit = D * u.double(), 2.0**-24
    # D u is a product and a sum; joining adds less than a roundoff of the bound (docs/parallel.md), as do both errors'
    # products.
    bound = (1 + 4 * unit) * (bound + unit * (2 * through.abs() + (value + through).abs())) + radius
    return value + through, bound


@pytest.mark.parametrize("size", [2, 4])
def test_half_precision_is_computed_in_float32(size, results, ranks):
    u = ranks.features(sum(ranks.SLICES[size][0]))[0].bfloat16()
    found = torch.cat([rank["half"] for rank in results(size)], 1)
    assert found.dtype == torch.bfloat16
    value, bound = exact(ranks.layers()["liquid"].float(), u.float())
    # To bfloat16 it is rounded once, by 2⁻⁸ of what is rounded at most.
    assert ((found.double() - value).abs() <= bound + 2.0**-8 * (value.abs() + bound)).all()
