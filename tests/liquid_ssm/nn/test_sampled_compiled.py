"""Steps with intervals of their own by compiled kernels: when, with which gradients, and as torch computes them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import liquid_ssm as ls
from liquid_ssm.nn import SSMLayer, sampled_compiled, sampling

KINDS = [
    (rank, mode, method)
    for rank in (0, 1, 2)
    for mode, method in (
        ("s4", "bilinear"), ("liquid", "bilinear"), ("truncated", "bilinear"), ("liquid", "bilinear-exact")
    )
]  # fmt: skip


def layer_of(rank, mode, method, **options):
    """A layer of 2 channels and 4 states."""
    random = np.random.default_rng(rank)

    def normal(*shape):
        return random.normal(size=shape) + 1j * random.normal(size=shape)

    P = normal(rank, 2, 2) if rank else None
    system = ls.ContinuousSystem(
        -0.5 - random.random((2, 2)) + 2j * random.normal(size=(2, 2)), normal(2, 2), normal(2, 2), np.full(2, 0.2), P
    )
    return SSMLayer(2, 4, init=system, mode=mode, order=2, discretization=method, seed=0, **options)


def given(length, seed=0, batch=1):
    generator = torch.Generator().manual_seed(seed)
    u = 0.3 * torch.randn(batch, length, 2, generator=generator)
    return u, 0.5 + torch.rand(batch, length, generator=generator)


@pytest.fixture
def calls(monkeypatch):
    """What the kernels were called for."""
    found = []
    scan = sampled_compiled.scan_compiled

    def counted(*args, **options):
        found.append(args[1])
        return scan(*args, **options)

    monkeypatch.setattr(sampling, "scan_compiled", counted)
    return found


@pytest.mark.parametrize(("rank", "mode", "method"), KINDS)
def test_gradients_are_those_of_differences(rank, mode, method, calls, in_double):
    layer, (u, dt) = layer_of(rank, mode, method), given(66, batch=2)  # more than one block of steps
    state = torch.randn(*((2, 2, 2, 2) if mode == "truncated" else (2, 2, 2)), dtype=torch.complex128)
    tensors = [tensor.requires_grad_() for tensor in (u, dt, state)]

    def run(u, dt, state, *_):
        return layer(u, dt=dt, state=state, return_state=True)

    assert torch.autograd.gradcheck(run, (*tensors, *layer.parameters()), fast_mode=True)
    assert calls


@pytest.mark.parametrize(("rank", "mode", "method"), [KINDS[5], KINDS[6], KINDS[7]])
def test_gradients_of_gradients_are_those_of_differences(rank, mode, method, calls, in_double):
    layer, (u, dt) = layer_of(rank, mode, method), given(3)
    tensors = [tensor.requires_grad_() for tensor in (u, dt)]
    assert torch.autograd.gradgradcheck(lambda u, dt, *_: layer(u, dt=dt), (*tensors, *layer.parameters()))
    assert calls


@pytest.mark.parametrize(("rank", "mode", "method"), KINDS)
def test_float32_layers_are_those_of_float64_rounded_once(rank, mode, method):
    layer, (u, dt) = layer_of(rank, mode, method, feedthrough=False), given(70)
    y, state = layer(u, dt=dt, return_state=True)
    y.square().sum().backward()
    twin = layer_of(rank, mode, method, feedthrough=False).double()
    twin.load_state_dict(layer.state_dict())
    # C is rounded to complex64 either way, being a float32 parameter.
    wide, last = twin(u.double(), dt=dt.double(), return_state=True)
    assert torch.equal(y, wide.float())
    assert torch.equal(state, last.to(torch.complex64))


def test_only_wanted_gradients_are_given(in_double):
    layer, (u, dt) = layer_of(1, "liquid", "bilinear", frozen=("Lambda", "C")), given(5)
    _, state = layer(u, dt=dt, return_state=True)
    state.abs().square().sum().backward()  # y has no cotangent
    assert {name for name, p in layer.named_parameters() if p.grad is not None} == {
        f"continuous.{name}" for name in ("B", "P", "log_dt")
    }
    assert u.grad is None
    assert not layer(u, dt=dt).detach().requires_grad
    with torch.no_grad():
        assert not layer(u, dt=dt).requires_grad


@pytest.mark.parametrize("method", ["bilinear", "euler"])
def test_gradients_reach_what_parametrizations_compute_from(method, in_double):
    class Half(torch.nn.Module):
        def forward(self, x):
            return 0.5 * x

    layer, (u, dt) = layer_of(1, "liquid", method), given(5)
    plain = layer_of(1, "liquid", method, backend="torch")
    torch.nn.utils.parametrize.register_parametrization(layer.continuous, "B", Half())
    with torch.no_grad():
        plain.continuous.B.mul_(0.5)
    for one in (plain, layer):
        one(u, dt=dt).square().sum().backward()
    # Halves are exact.
    assert torch.equal(layer.continuous.parametrizations.B.original.grad, 0.5 * plain.continuous.B.grad)


@pytest.mark.parametrize("case", ["torch.func", "compile", "forward", "backend", "euler", "shared"])
def test_what_kernels_do_not_compute_is_left_to_torch(case, calls, in_double):
    layer, (u, dt) = layer_of(1, "liquid", "bilinear"), given(5)
    layer(u, dt=dt)
    assert len(calls) == 1
    if case == "torch.func":
        torch.func.grad(lambda u: layer(u, dt=dt).sum())(u)
    elif case == "compile":
        torch.compile(layer, fullgraph=True, backend="eager")(u, dt=dt)
    elif case == "forward":
        with torch.autograd.forward_ad.dual_level(), torch.no_grad():
            y = layer(torch.autograd.forward_ad.make_dual(u, torch.ones_like(u)), dt=dt)
            # No tangent is lost.
            assert torch.autograd.forward_ad.unpack_dual(y).tangent.abs().max() > 0.01
    elif case == "backend":
        layer.backend = "torch"
        layer(u, dt=dt)
    elif case == "euler":
        layer_of(1, "liquid", "euler")(u, dt=dt)
    else:
        SSMLayer(2, 4, init="s5", discretization="bilinear")(u, dt=dt)
    assert len(calls) == 1


def test_without_numba_torch_computes(monkeypatch):
    def missing(name):
        raise ls.BackendUnavailable(name)

    monkeypatch.setattr(sampled_compiled, "get_backend", missing)
    sampled_compiled._is_installed.cache_clear()
    u = torch.zeros(1, 2, 3)
    assert not sampled_compiled.takes("diagonal", "bilinear", None, u)
    monkeypatch.undo()
    sampled_compiled._is_installed.cache_clear()
    assert sampled_compiled.takes("diagonal", "bilinear", None, u)


@pytest.mark.parametrize("mode", ["s4", "liquid"])
def test_an_overflow_of_the_dtype_is_seen_in_states_alone(mode, calls):
    layer, (u, dt) = layer_of(0, mode, "bilinear", feedthrough=False), given(5)
    with torch.no_grad():
        layer.continuous.C.zero_()
    for step in range(5):
        large = u.clone()
        large[0, step] = 3e38
        with torch.no_grad():
            layer.continuous.B.fill_(100.0)
        with pytest.raises(ls.UnstableRecurrence, match=rf"float32 at step {step}, channel 0"):
            layer(large[:, : step + 1], dt=dt[:, : step + 1])
    assert len(calls) == 5


def test_a_pole_is_told_by_torch(in_double):
    layer = layer_of(0, "liquid", "bilinear-exact")
    with torch.no_grad():
        layer.continuous.B.copy_(torch.tensor([1.0, 0.0]))
        layer.continuous.frequency.zero_()
        pole = 2 / layer.continuous.dt()[0] - layer.continuous.Lambda().re[0, 0]
    u = torch.zeros(1, 4, 2)
    u[0, 2, 0] = pole
    with pytest.raises(ls.UnstableRecurrence, match=r"step 2"):
        layer(u)
