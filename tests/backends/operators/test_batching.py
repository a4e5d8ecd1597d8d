"""The rule for vmap, on an operator that is not differentiable or compiled: an ordinary function."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from liquid_ssm.backends.operators.batching import Place, batching_rule

SIGNAL, PARAMETER = Place(0, 1), Place(None, 0)
INFO = SimpleNamespace(batch_size=3)


@pytest.mark.parametrize(
    ("dims", "of_factor", "called"),
    [
        ((0, None), False, (6, 4, 5)),  # rows of one batch
        ((2, 0), False, (2, 12, 5)),  # channels, since a parameter is mapped
        ((0, None), True, (2, 12, 5)),  # channels, since a result belongs to a parameter
    ],
)
def test_the_mapped_axis_goes_where_it_may(dims, of_factor, called):
    calls = []

    def multiply(u, factor, other, exponent):
        calls.append(tuple(u.shape))
        return [u * factor[:, None] ** exponent, *([2 * factor] if of_factor else [])]

    us = torch.stack([torch.randn(2, 4, 5) for _ in range(3)], dims[0])
    factors = torch.randn(4) if dims[1] is None else torch.stack([torch.randn(4) for _ in range(3)], dims[1])
    places = [SIGNAL, *([PARAMETER] if of_factor else [])]
    rule = batching_rule(multiply, (SIGNAL, PARAMETER, SIGNAL), lambda tensors: places)
    found, axes = rule(INFO, (*dims, None, None), us, factors, None, 2)
    assert calls == [called]
    for i in range(3):
        factor = factors if dims[1] is None else factors.select(dims[1], i)
        expected = multiply(us.select(dims[0], i), factor, None, 2)
        for part, axis, one in zip(found, axes, expected, strict=True):
            assert torch.equal(part.select(axis, i), one)


def test_a_single_tensor_stays_one():
    rule = batching_rule(lambda u, k: u + k, (SIGNAL,), lambda tensors: (SIGNAL,))
    found, axis = rule(INFO, (1, None), torch.arange(24.0).reshape(2, 3, 4, 1), 1)
    assert torch.equal(found.movedim(axis, 0), torch.arange(24.0).reshape(2, 3, 4, 1).movedim(1, 0) + 1)


def test_nothing_to_map_over_has_no_entries():
    rule = batching_rule(lambda u: u + 1, (SIGNAL,), lambda tensors: (SIGNAL,))
    found, axis = rule(SimpleNamespace(batch_size=3), (0,), torch.zeros(3, 2, 4, 0))
    assert found.movedim(axis, 0).shape == (3, 2, 4, 0)
