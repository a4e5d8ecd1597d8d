"""Sums over ranks: gradients, and batch norms, which are those of torch where there is one rank."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import distributed

from liquid_ssm.errors import ParameterError
from liquid_ssm.parallel import sum_gradients
from liquid_ssm.parallel.exchange import Members
from liquid_ssm.parallel.reductions import batch_norm


@pytest.fixture
def alone(tmp_path):
    """The members of a group of this process only."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield Members.of(None, torch.zeros(0))
    distributed.destroy_process_group()


@pytest.mark.parametrize("momentum", [0.1, None])
def test_a_batch_norm_of_one_rank_is_that_of_torch(momentum, alone, rounded):
    torch.manual_seed(0)
    norm = torch.nn.BatchNorm1d(3, momentum=momentum).double()
    torch.nn.init.normal_(norm.weight)
    other = copy.deepcopy(norm)
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    flat = x.reshape(-1, 3)
    with torch.no_grad():
        error = norm.weight.abs() * rounded.of_normalised(flat, 0, norm.eps) + rounded.gamma(4) * norm.bias.abs()
    for _ in range(2):
        found, expected = batch_norm(norm, x, alone), other(flat).view_as(x)
        assert bool(((found - expected).abs() <= 2 * error.view_as(x)).all())
    assert norm.num_batches_tracked == other.num_batches_tracked == 2
    # The unbiased variance has a quotient and a product more.
    factor, (of_mean, of_variance) = 10 / 9, rounded.of_moments(flat, 0)
    variance = flat.var(0)
    of_variance = factor * of_variance[0] + rounded.gamma(2) * variance
    for name, value, of_value in (
        ("running_mean", flat.mean(0), of_mean[0]),
        ("running_var", variance, of_variance),
    ):
        running, error = torch.zeros(3) if name == "running_mean" else torch.ones(3), torch.zeros(3)
        for count in (1, 2):
            share = momentum or 1 / count
            # A weighted mean of two numbers: a difference, two products and a sum.
            error = (1 - share) * error + share * of_value + rounded.gamma(4) * (running.abs() + value.abs())
            running = running + share * (value - running)
        assert bool(((getattr(norm, name) - getattr(other, name)).abs() <= 2 * error).all()), name


def test_a_batch_norm_of_one_step_has_no_variance(alone):
    with pytest.raises(ParameterError, match="needs two rows or steps, and the ranks have 1"):
        batch_norm(torch.nn.BatchNorm1d(3), torch.zeros(1, 1, 3), alone)


def test_gradients_of_every_dtype_are_summed_and_missing_ones_are_zero(alone):
    parameters = [
        torch.nn.Parameter(torch.zeros(2, 3)),
        torch.nn.Parameter(torch.zeros(4, dtype=torch.complex64)),
        torch.nn.Parameter(torch.zeros(2, dtype=torch.float64)),
        torch.nn.Parameter(torch.zeros(3), requires_grad=False),
    ]
    given = [torch.arange(6.0).view(2, 3), torch.tensor([1, 2j, 3, 4], dtype=torch.complex64)]
    for parameter, grad in zip(parameters, given, strict=False):
        parameter.grad = grad.clone()
    sum_gradients(parameters)
    assert all(torch.equal(p.grad, g) for p, g in zip(parameters, given, strict=False))
    assert torch.equal(parameters[2].grad, torch.zeros(2, dtype=torch.float64))
    assert parameters[3].grad is None


@pytest.mark.parametrize("size", [2, 4])
def test_sums_are_those_of_all_ranks(size, results):
    for rank in results(size):
        assert torch.equal(rank["summed"], torch.full((3,), float(sum(range(size)))))
