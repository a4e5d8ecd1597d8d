"""Norms of (batch, length, features) that leave padding out."""

from __future__ import annotations

import pytest
import torch

import liquid_ssm as ls
from liquid_ssm.nn.normalisation import BatchNorm, normalisation

REAL = torch.arange(7) < torch.tensor([[7], [3]])


def test_statistics_are_those_of_true_steps():
    x = torch.randn(2, 7, 4, generator=torch.Generator().manual_seed(0))
    junk = x.masked_fill(~REAL[..., None], float("nan"))
    norm, plain = BatchNorm(4), torch.nn.BatchNorm1d(4)
    found, expected = norm(junk, REAL), plain(x[REAL])
    assert torch.equal(found[REAL], expected)
    assert not found[~REAL].any()
    assert torch.equal(norm.norm.running_mean, plain.running_mean)
    norm.eval()
    plain.eval()
    assert torch.equal(norm(junk, REAL)[REAL], plain(x[REAL]))
    assert torch.equal(norm(x[:, 0]), plain(x[:, 0]))


def test_without_padding_they_are_torchs_own(rounded, in_double):
    x = torch.randn(2, 7, 4, generator=torch.Generator().manual_seed(0))
    plain = torch.nn.BatchNorm1d(4)(x.mT).mT
    # The sums run in another order; weights are 1, and what is added is 0.
    allowed = 2 * rounded.of_normalised(x.flatten(0, 1), 0, 1e-5)
    assert bool(((BatchNorm(4)(x) - plain).abs() <= allowed.view_as(x)).all())
    assert torch.equal(normalisation("layer", 4)(x, REAL), torch.nn.LayerNorm(4)(x))


def compiled(norm):
    return torch.compile(norm, fullgraph=True, backend="aot_eager")


@pytest.mark.parametrize("momentum", [0.25, None])
def test_traced_statistics_are_those_of_true_steps(momentum, rounded, in_double):
    norm, plain = BatchNorm(4), torch.nn.BatchNorm1d(4)
    norm.norm.momentum = plain.momentum = momentum
    with torch.no_grad():
        for each in (norm.norm, plain):
            each.weight.copy_(torch.tensor([1.0, -2.0, 0.5, 3.0]))
            each.bias.copy_(torch.tensor([0.0, 1.0, -1.0, 2.0]))
    call = compiled(norm)
    of_running = torch.zeros(2, 4)
    for seed, real in enumerate((REAL, REAL.flip(0))):
        x = 1 + torch.randn(2, 7, 4, generator=torch.Generator().manual_seed(seed))
        steps, junk = x[real], x.masked_fill(~real[..., None], float("nan"))
        held = torch.stack([plain.running_mean, plain.running_var])
        found, expected = call(junk, real), plain(steps)
        # n true steps: the quotient by n - 1 in place of n makes a variance larger.
        n, moments = len(steps), torch.cat(rounded.of_moments(steps, 0))
        allowed = plain.weight.abs() * rounded.of_normalised(steps, 0, plain.eps)
        allowed = 2 * (allowed + rounded.gamma(4) * plain.bias.abs())
        assert bool(((found[real] - expected).abs() <= allowed).all())
        assert not found[~real].any()
        # A complement or difference, two products and a sum: 4 roundings of numbers whose moduli add up.
        share = 1 / (seed + 1) if momentum is None else momentum
        sizes = torch.stack([steps.abs().mean(0), steps.square().sum(0) / (n - 1)])
        of_running = of_running + share * moments * n / (n - 1) + rounded.gamma(4) * (sizes + held.abs())
        for name, bound in zip(("running_mean", "running_var"), of_running, strict=True):
            assert bool(((getattr(norm.norm, name) - getattr(plain, name)).abs() <= 2 * bound).all()), name
        assert torch.equal(norm.norm.num_batches_tracked, plain.num_batches_tracked)


def test_traced_gradients_pass_true_steps_only(rounded, rounded_gradients, in_double):
    norm, random = BatchNorm(4), torch.Generator().manual_seed(0)
    x, cotangent = torch.randn(2, 2, 7, 4, generator=random)
    torch.nn.init.normal_(norm.norm.weight, generator=random)
    found = []
    for call in (norm, compiled(norm)):
        given = x.masked_fill(~REAL[..., None], float("nan")).requires_grad_()
        y = call(given, REAL)
        found.append(torch.autograd.grad(y, [given, norm.norm.weight, norm.norm.bias], cotangent))
        assert not found[-1][0][~REAL].any()
    network = rounded_gradients.Network()
    wanted = [x[REAL].requires_grad_(), norm.norm.weight, norm.norm.bias]
    y = network.normalised(*wanted, norm.norm.eps, 0, rounded)
    gradients = network.gradients((y * cotangent[REAL]).sum(), wanted)
    for plain, traced, error in zip(*found, network.errors(*gradients), strict=True):
        steps = REAL if plain.ndim == 3 else slice(None)
        assert bool(((traced[steps] - plain[steps]).abs() <= 2 * error).all())


def test_traced_one_true_step_is_nan_and_none_is_nothing():
    norm, x = BatchNorm(4), torch.ones(2, 7, 4, requires_grad=True)
    call, before = compiled(norm), {name: held.clone() for name, held in norm.named_buffers()}
    one = torch.zeros(2, 7, dtype=torch.bool)
    empty = call(x, one)
    empty.sum().backward()
    assert not empty.any()
    assert not x.grad.any()
    assert not norm.norm.weight.grad.any()
    one[1, 3] = True
    found = call(x, one)
    assert bool(found[1, 3].isnan().all())
    assert not found[~one].any()
    for name in ("norm.running_mean", "norm.running_var"):
        assert torch.equal(norm.get_buffer(name), before[name])


def test_traced_halves_are_computed_in_float32():
    x = torch.randn(2, 7, 4, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    norm = BatchNorm(4)
    expected, found = compiled(norm)(x.float(), REAL), compiled(norm)(x, REAL)
    assert torch.equal(found, expected.to(torch.bfloat16))
    assert found.dtype == BatchNorm(4)(x, REAL).dtype


def test_frozen_statistics_are_used_for_every_step():
    norm, x = BatchNorm(4), torch.randn(2, 7, 4, generator=torch.Generator().manual_seed(0))
    norm.norm.eval()
    for call in (norm, compiled(norm)):
        assert torch.equal(call(x, REAL), norm.norm(x.flatten(0, 1)).view_as(x))


def test_what_is_no_batch_norm_of_one_process_is_not_traced():
    norm = BatchNorm(4)
    norm.norm = torch.nn.SyncBatchNorm(4)
    with pytest.raises(Exception, match="SyncBatchNorm in training has no form for lengths"):
        torch.compile(norm, fullgraph=True, backend="eager")(torch.ones(2, 7, 4), REAL)


@pytest.mark.parametrize("steps", [1, 3])
def test_one_true_step_has_no_variance(steps):
    norm, x = BatchNorm(4), torch.ones(1, steps, 4)
    real = None if steps == 1 else torch.tensor([[True, False, False]])
    with pytest.raises(ls.ParameterError, match=rf"one true step in all.*\(1, {steps}, 4\).*Give more rows"):
        norm(x, real)
    assert norm.norm.num_batches_tracked == 0
    assert norm.eval()(x, real).shape == x.shape


def test_gradients_pass_true_steps_only():
    x = torch.randn(2, 7, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    BatchNorm(4)(x, REAL).square().mul(torch.arange(4)).sum().backward()
    assert not x.grad[~REAL].any()
    assert x.grad[REAL].any()


def test_an_unknown_norm_is_named():
    with pytest.raises(ls.ParameterError, match="norm 'group'"):
        normalisation("group", 4)
