"""Correlations added to an output against terms that are formed and added."""

from __future__ import annotations

import numpy as np
import pytest


def tensors(device, *arrays):
    import torch

    return [None if a is None else torch.tensor(np.ascontiguousarray(a), device=device) for a in arrays]


@pytest.mark.parametrize("kind", ["running", "elementary"])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 19])
def test_every_kind_order_and_length(readable, device, close, kind, order, length):
    from liquid_ssm.backends.triton_kernels.added_correlations import add_correlations

    rng = np.random.default_rng(0)
    u, y = rng.normal(size=(2, 2, 5, length))
    responses = rng.normal(size=(order - 1, 5))
    elementary = kind == "elementary"
    sums = rng.normal(size=(order if elementary else order - 1, 2, 5))
    previous = None if elementary else rng.normal(size=(2, 5, 2))
    terms, expected_sums = readable.correlate(u, order=order, kind=kind, sums=sums, previous=previous)
    expected = y + np.einsum("ph,pbhl->bhl", responses, terms)
    total, inputs, factors, start, before = tensors(device, y, u, responses, sums, previous)
    final = add_correlations(total, inputs, factors, order=order, elementary=elementary, sums=start, previous=before)
    close(total.cpu(), expected)
    close(final.cpu(), expected_sums)


@pytest.mark.parametrize("elementary", [True, False])
def test_sums_that_are_not_given_are_zero(device, elementary):
    from liquid_ssm.backends.triton_kernels.added_correlations import add_correlations

    rng = np.random.default_rng(1)
    u, y, responses = tensors(device, rng.normal(size=(2, 3, 20)), rng.normal(size=(2, 3, 20)), np.ones((2, 3)))
    zeros = u.new_zeros((3 if elementary else 2, 2, 3))
    one, two = y.clone(), y.clone()
    options = {"order": 3, "elementary": elementary, "previous": None}
    first = add_correlations(one, u, responses, sums=None, **options)
    second = add_correlations(two, u, responses, sums=zeros, **options)
    assert one.equal(two)
    assert first.equal(second)
    assert not one.equal(y)
    assert not zeros.any()


def test_rows_in_several_programs(device, close, monkeypatch):
    from liquid_ssm.backends.triton_kernels import added_correlations

    rng = np.random.default_rng(2)
    u, y, responses = tensors(device, rng.normal(size=(3, 7, 9)), rng.normal(size=(3, 7, 9)), rng.normal(size=(2, 7)))
    options = {"order": 3, "elementary": True, "sums": None, "previous": None}
    one, two = y.clone(), y.clone()
    added_correlations.add_correlations(one, u, responses, **options)
    monkeypatch.setattr(added_correlations, "interpreting", lambda: False)
    monkeypatch.setattr(added_correlations, "ROWS", 4)
    added_correlations.add_correlations(two, u, responses, **options)
    close(two.cpu(), one.cpu().numpy())
