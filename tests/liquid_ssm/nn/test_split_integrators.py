"""Integrators in split-real form: against mpmath, the layer, exports and onnxruntime."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch

import liquid_ssm as ls
from liquid_ssm import nn
from liquid_ssm.nn.exact_step import gain_limit
from liquid_ssm.nn.multistep import MultistepState

METHODS = ("adams-bashforth", "bilinear-exact")
KINDS = [(method, init) for method in METHODS for init in ("s4d-lin", "legs", "fout", "s5")]
over_kinds = pytest.mark.parametrize(("method", "init"), KINDS)


def layer_of(method, init, n_state=8, **changes):
    dt = {"adams-bashforth": 0.02, "bilinear-exact": 0.5}[method]
    options = {"init": init, "discretization": method, "liquid_scale": 1.0, "seed": 2, "backend": "first"}
    return nn.SSMLayer(2, n_state, **options | {"dt_max": dt} | changes)


def signal(batch=2, length=9):
    return 0.7 * torch.randn(batch, length, 2, generator=torch.Generator().manual_seed(1))


def run(step, u, parts):
    outputs = []
    for u_k in u.unbind(1):
        y, *parts = step(u_k, *parts)
        outputs.append(y)
    return torch.stack(outputs, 1), tuple(parts)


def same(one, other):
    return len(one) == len(other) and all(map(torch.equal, one, other))


def within(found, value, bound):
    return bool(np.all(np.abs(np.asarray(found, float) - value) <= bound))


@over_kinds
@torch.no_grad()
def test_steps_are_those_of_the_layer(method, init, integrated, rounded, in_double):
    layer, u = layer_of(method, init), signal().double()
    dt = torch.full((2, 9), 1.5, dtype=torch.float64)
    value, _ = integrated.exact(layer, u, dt)
    bound, _ = integrated.allowed(rounded, layer, u, dt)
    step = nn.SplitRealStep(layer, rate=1.5)
    y, parts = run(step, u, step.initial_state(2))
    assert within(y, value, bound)
    # Each goes on from where the other is.
    _, between = run(step, u[:, :4], step.initial_state(2))
    _, state = layer.prefill(u[:, :4], rate=1.5)
    assert within(run(step, u[:, 4:], nn.split_state(layer, state))[0], value[:, 4:], bound[:, 4:])
    assert within(layer(u[:, 4:], state=nn.join_state(layer, between), rate=1.5), value[:, 4:], bound[:, 4:])
    assert same(nn.split_state(layer, nn.join_state(layer, parts)), parts)
    assert isinstance(nn.join_state(layer, parts), MultistepState) == (method == "adams-bashforth")
    assert step.state_names == (("x", "f", "interval") if method == "adams-bashforth" else ("x",))
    forward = nn.SplitRealForward(layer, rate=1.5)
    assert same(forward(u), (y, *parts))
    assert same(forward(u[:, :0], *parts), (u[:, :0], *parts))


@over_kinds
def test_exports_are_the_steps_of_any_batch_and_length(method, init):
    step, forward = (make(layer_of(method, init)) for make in (nn.SplitRealStep, nn.SplitRealForward))
    with torch.no_grad():
        one = torch.export.export(
            step, (torch.zeros(2, 2), *step.initial_state(2)), dynamic_shapes=step.dynamic_shapes()
        )
        whole = torch.export.export(
            forward, (signal(2, 5), *forward.initial_state(2)), dynamic_shapes=forward.dynamic_shapes()
        )
        u = signal(3)
        expected = run(step, u, step.initial_state(3))
        found = run(one.module(), u, step.initial_state(3))
    assert torch.equal(found[0], expected[0])
    assert same(found[1], expected[1])
    assert same(whole.module()(u, *forward.initial_state(3)), (expected[0], *expected[1]))
    kinds = {node.meta["val"].dtype for node in one.graph.nodes if isinstance(node.meta.get("val"), torch.Tensor)}
    assert not any(kind.is_complex for kind in kinds)


# What torch says of itself while it exports.
@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning")
@pytest.mark.parametrize(("method", "init"), [(method, "legs") for method in METHODS])
@torch.no_grad()
def test_onnxruntime_takes_the_steps(method, init, integrated, rounded, in_double):
    layer, u = layer_of(method, init), signal(3).double()
    step = nn.SplitRealStep(layer)
    args = (torch.zeros(2, 2), *step.initial_state(2))
    program = torch.onnx.export(step, args, dynamo=True, dynamic_shapes=step.dynamic_shapes(), verbose=False)
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    assert len(names) == len(args)
    parts = [part.numpy() for part in step.initial_state(3)]
    outputs = []
    for u_k in u.unbind(1):
        y, *parts = session.run(None, dict(zip(names, (u_k.numpy(), *parts), strict=True)))
        outputs.append(y)
    ones = torch.ones(3, 9, dtype=torch.float64)
    value, _ = integrated.exact(layer, u, ones)
    assert within(np.stack(outputs, 1), value, integrated.allowed(rounded, layer, u, ones)[0])


@over_kinds
def test_parameters_that_are_not_frozen_get_gradients(method, init, in_double):
    layer, u = layer_of(method, init, n_state=4 if init != "s5" else 8), signal(1, 4).double().requires_grad_()
    trained = nn.SplitRealStep(layer, frozen=False)
    assert {id(parameter) for parameter in trained.parameters()} == {id(p) for p in layer.parameters()}
    parameters = tuple(layer.parameters())
    assert torch.autograd.gradcheck(lambda u, *_: run(trained, u, trained.initial_state(1))[0], (u, *parameters))
    frozen = nn.SplitRealStep(layer)
    with torch.no_grad():
        before = run(frozen, u, frozen.initial_state(1))[0]
        layer.continuous.B.mul_(2)
        assert torch.equal(run(frozen, u, frozen.initial_state(1))[0], before)
        assert not torch.equal(run(trained, u, trained.initial_state(1))[0], before)


def test_the_clamp_is_in_the_graph():
    layer = layer_of("bilinear-exact", "s4d-lin", max_gain=1.05)
    u = 5 * signal()
    step = nn.SplitRealStep(layer, rate=2.0)
    assert step.limit is not None
    limit, D = step.limit, layer.D
    Lambda, B, _ = layer.continuous.joined()
    assert torch.equal(limit, gain_limit(Lambda, B, layer.continuous.step_sizes(2.0), 1.05).float())
    with torch.no_grad():
        clamped = u.clamp(-limit, limit)
        twin = layer_of("bilinear-exact", "s4d-lin", feedthrough=False)
        twin.load_state_dict({k: v for k, v in layer.state_dict().items() if k != "D"})
        other = nn.SplitRealStep(twin, rate=2.0)
        expected = run(other, clamped, other.initial_state(2))[0] + D * u
        assert torch.equal(run(step, u, step.initial_state(2))[0], expected)
    with pytest.raises(ls.ParameterError, match="clamp of max_gain is a constant"):
        nn.SplitRealStep(layer, frozen=False)


def test_parts_of_another_shape_are_refused():
    layer = layer_of("adams-bashforth", "s4d-lin")
    step = nn.SplitRealStep(layer)
    x, f, _ = step.initial_state(2)
    with pytest.raises(ls.ShapeError, match=r"liquid has x, f, interval"):
        step(signal()[:, 0], x)
    with pytest.raises(ls.ShapeError, match="interval has shape"):
        step(signal()[:, 0], x, f, torch.ones(3))
    with pytest.raises(ls.ShapeError, match="has the parts"):
        nn.join_state(layer, (x,))
