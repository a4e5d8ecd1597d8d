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


def test_without_padding_they_are_torchs_own():
    x = torch.randn(2, 7, 4, generator=torch.Generator().manual_seed(0))
    plain = torch.nn.BatchNorm1d(4)(x.mT).mT
    # The sums run in another order.
    assert torch.allclose(BatchNorm(4)(x), plain, rtol=0, atol=1e-5)
    assert torch.equal(normalisation("layer", 4)(x, REAL), torch.nn.LayerNorm(4)(x))


def test_gradients_pass_true_steps_only():
    x = torch.randn(2, 7, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    BatchNorm(4)(x, REAL).square().mul(torch.arange(4)).sum().backward()
    assert not x.grad[~REAL].any()
    assert x.grad[REAL].any()


def test_an_unknown_norm_is_named():
    with pytest.raises(ls.ParameterError, match="norm 'group'"):
        normalisation("group", 4)
