"""Layers and models over slices against the same on one process, in float64."""

from __future__ import annotations

import pytest
import torch

from liquid_ssm import nn

# At most 20 roundings per step in each of 2 layers for 21 steps, and norms, gates and maps of 8 features between them:
# below 2000 in all on the way to an output, twice as many to a gradient, which adds up 42 rows and steps.
ROUNDINGS = 2 * 2000 + 42
NAMES = ("liquid", "clamped", "mimo", "last", "mean", "none")


def near(found, expected):
    """Equal up to that many roundings of numbers of the size of the largest, times ten for terms that cancel."""
    largest = max(1.0, float(expected.abs().max())) if expected.numel() else 1.0
    return torch.allclose(found, expected, rtol=0, atol=10 * ROUNDINGS * torch.finfo(torch.float64).eps * largest)


@pytest.fixture(
    scope="module", params=[(size, case, name) for size in (2, 4) for case in (0, 1) for name in NAMES], ids=str
)
def pair(request, results, ranks):
    """What the ranks have found, and what one process finds."""
    size, case, name = request.param
    lengths = ranks.SLICES[size][case]
    module = {**ranks.layers(), **ranks.models()}[name]
    u, weights = ranks.features(sum(lengths))
    u.requires_grad_()
    y, state = module(u, return_state=True)
    loss = y.square().sum() if isinstance(module, nn.SSMLayer) else ranks.loss_of(y, weights)
    loss.backward()
    with torch.no_grad():
        again = module.eval()(u, state=state)
    return [rank["module"][name, lengths] for rank in results(size)], (module, u, y, state, again)


def joined(parts, expected):
    """Outputs per step of all ranks, or the one that all of them have."""
    if expected.ndim == 3:
        return torch.cat(parts, 1)
    assert all(torch.equal(part, parts[0]) for part in parts)
    return parts[0]


def test_outputs_and_states(pair):
    found, (_, _, y, state, again) = pair
    assert near(joined([rank["y"] for rank in found], y), y.detach())
    assert near(joined([rank["again"] for rank in found], again), again)
    last = state if isinstance(state, torch.Tensor) else state.layers[-1]
    assert all(near(torch.view_as_real(rank["state"]), torch.view_as_real(last.detach())) for rank in found)


def test_gradients_after_their_sum(pair):
    found, (module, u, _, _, _) = pair
    assert near(torch.cat([rank["u"] for rank in found], 1), u.grad)
    expected = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    for rank in found:
        assert rank["grads"].keys() == expected.keys()
        assert all(near(rank["grads"][name], gradient) for name, gradient in expected.items())
    assert all(gradient.abs().max() > 0 for gradient in expected.values())


def test_running_statistics(pair):
    found, (module, _, _, _, _) = pair
    for name, buffer in module.named_buffers():
        assert all(near(rank["buffers"][name].double(), buffer.double()) for rank in found)


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


@pytest.mark.parametrize("size", [2, 4])
def test_half_precision_is_computed_in_float32(size, results, ranks):
    lengths = ranks.SLICES[size][0]
    with torch.no_grad():
        whole = ranks.layers()["liquid"].float()(ranks.features(sum(lengths))[0].bfloat16())
    found = torch.cat([rank["half"] for rank in results(size)], 1)
    assert found.dtype == torch.bfloat16
    # float32's errors are far below bfloat16's spacing, so two roundings differ by one such spacing at most.
    assert torch.allclose(found.float(), whole.float(), rtol=2.0**-7, atol=1e-5)
