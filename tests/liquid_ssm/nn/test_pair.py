"""Models of pairs: one encoder for both, and what the head sees."""

from __future__ import annotations

import pytest
import torch

from liquid_ssm.errors import ShapeError
from liquid_ssm.nn import ModelConfig, PairModel, SequenceModel, build

LENGTHS = torch.tensor([[6, 3], [2, 6]])


def make():
    torch.manual_seed(0)
    config = ModelConfig(
        model="s4d", n_inputs=5, n_outputs=2, tokens=True, pair=True, n_layers=1, n_channels=4, n_state=4,
        options={"backend": "first"},
    )  # fmt: skip
    return build(config).double().eval()


def test_both_are_encoded_alike_and_the_head_sees_what_the_paper_says():
    model = make()
    assert isinstance(model, PairModel)
    u = torch.tensor([[[0, 1, 2, 3, 4, 1], [1, 4, 4, 0, 0, 0]], [[2, 2, 0, 0, 0, 0], [0, 1, 2, 3, 4, 4]]])
    a, b = model.encoder(u[:, 0], lengths=LENGTHS[:, 0]), model.encoder(u[:, 1], lengths=LENGTHS[:, 1])
    first, activation, last = model.head
    hidden = activation(torch.cat([a, b, a - b, a * b], 1) @ first.weight.T + first.bias)
    assert first.weight.shape == (4, 16)
    expected = hidden @ last.weight.T + last.bias
    # Sums of 16 and of 4 numbers below 10, in another order; the encoder's rows are computed alike up to as many.
    assert torch.allclose(model(u, LENGTHS), expected, rtol=0, atol=100 * 10 * torch.finfo(torch.float64).eps)
    padded = u.clone()
    padded[0, 1, 3:] = 4
    assert torch.equal(model(padded, LENGTHS), model(u, LENGTHS))
    assert not torch.equal(model(u.flip(1), LENGTHS.flip(1)), model(u, LENGTHS))
    assert not torch.equal(model(u, LENGTHS, rate=2.0), model(u, LENGTHS))


def test_what_is_no_pair_is_refused():
    model = make()
    with pytest.raises(ShapeError, match="a model of pairs"):
        model(torch.zeros(2, 6, dtype=torch.long))
    with pytest.raises(ShapeError, match=r"2 pairs have \(2, 2\)"):
        model(torch.zeros(2, 2, 6, dtype=torch.long), torch.tensor([6, 6]))


def test_features_of_every_step_are_not_compared():
    encoder = SequenceModel(3, 4, n_layers=1, n_channels=4, n_state=4, pooling="none")
    with pytest.raises(ShapeError, match=r"features of shape \(4, 6, 4\).*pooling 'mean' or 'last'"):
        PairModel(encoder, 4, 2)(torch.zeros(2, 2, 6, 3))


def test_lengths_may_be_a_list():
    u = torch.zeros(2, 2, 6, dtype=torch.long)
    assert torch.equal(make()(u, LENGTHS.tolist()), make()(u, LENGTHS))
