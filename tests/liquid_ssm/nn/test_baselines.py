"""LSTM and Transformer: padding, causality, steps, positions."""

from __future__ import annotations

import pytest
import torch

from liquid_ssm.errors import ParameterError, ShapeError
from liquid_ssm.nn import LSTM, Transformer
from liquid_ssm.nn.baselines import positions

LENGTHS = torch.tensor([12, 5, 1])
# 12 steps of 2 layers with sums of at most 40 products, fewer than 2000 roundings in all, of numbers below 10.
NEAR = 2000 * 10 * torch.finfo(torch.float64).eps


def make(baseline, **options):
    torch.manual_seed(0)
    return baseline(3, 4, n_layers=2, n_channels=8, **options).double().eval()


def inputs():
    return torch.randn(3, 12, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("baseline", [LSTM, Transformer])
@pytest.mark.parametrize("pooling", ["mean", "last", "none"])
@pytest.mark.parametrize("gradients", [False, True])
def test_padding_has_no_influence(baseline, pooling, gradients):
    model, u = make(baseline, pooling=pooling), inputs()
    # Without gradients torch's Transformer takes a way of its own.
    with torch.set_grad_enabled(gradients):
        y = model(u, LENGTHS)
        changed = u.clone()
        changed[1, 5:], changed[2, 1:] = 50.0, -50.0
        other = model(changed, LENGTHS)
        for row, length in enumerate(LENGTHS.tolist()):
            alone = model(u[row : row + 1, :length])[0]
            found, again = (part[row, :length] if pooling == "none" else part[row] for part in (y, other))
            assert torch.allclose(found, alone, rtol=0, atol=NEAR)
            assert torch.allclose(again, alone, rtol=0, atol=NEAR)


def test_tokens_are_embedded_and_those_outside_the_vocabulary_refused():
    for baseline in (LSTM, Transformer):
        model = make(baseline, tokens=True)
        assert model(torch.tensor([[0, 2, 1]])).shape == (1, 4)
        with pytest.raises(ParameterError, match="vocabulary is 0 to 2"):
            model(torch.tensor([[3]]))
        with pytest.raises(ParameterError, match="whole numbers"):
            model(torch.zeros(1, 3))


@pytest.mark.parametrize("baseline", [LSTM, Transformer])
def test_bad_inputs_are_refused(baseline):
    model = make(baseline)
    with pytest.raises(ShapeError, match=r"takes \(batch, length, 3\)"):
        model(torch.zeros(2, 5))
    with pytest.raises(ParameterError, match="no steps"):
        model(inputs(), torch.tensor([12, 0, 1]))
    with pytest.raises(ParameterError, match="no steps"):
        model(inputs()[:, :0])
    with pytest.raises(ParameterError, match=r"lengths\[0\] is 13"):
        model(inputs(), torch.tensor([13, 1, 1]))
    with pytest.raises(ParameterError, match="unknown pooling"):
        make(baseline, pooling="max")


def test_the_lstm_is_causal_and_steps_give_what_sequences_give():
    u = inputs()
    model = make(LSTM, pooling="none")
    y = model(u)
    changed = u.clone()
    changed[:, 7:] += 1
    assert torch.equal(model(changed)[:, :7], y[:, :7])
    assert not torch.equal(model(changed)[:, 7:], y[:, 7:])
    for pooling in ("none", "mean", "last"):
        model, state = make(LSTM, pooling=pooling), None
        for k in range(12):
            found, state = model.step(u[:, k], state)
            # Of pooling mean: that of the sequence so far.
            whole = model(u[:, : k + 1])
            assert torch.allclose(found, whole[:, -1] if pooling == "none" else whole, rtol=0, atol=NEAR)


def test_a_layer_of_an_lstm_drops_without_a_warning():
    # torch warns of dropout between the layers of a single one; warnings are errors here.
    LSTM(1, 2, n_layers=1, n_channels=4, dropout=0.5)
    torch.manual_seed(0)
    model = LSTM(1, 2, n_layers=1, n_channels=64, dropout=0.5)
    u = torch.randn(1, 4, 1)
    assert not torch.equal(model(u), model(u))
    assert torch.equal(model.eval()(u), model(u))


def test_positions_are_those_of_time():
    assert torch.equal(positions(5, 6, 2.0), positions(10, 6)[::2])
    # sin and cos of one angle.
    assert torch.allclose(positions(9, 4).view(9, 2, 2).square().sum(-1), torch.ones(9, 2, dtype=torch.float64))
    model, u = make(Transformer), inputs()
    assert not torch.allclose(model(u), model(u, rate=2.0))
    # Without positions the mean over all steps would not see their order.
    assert not torch.allclose(model(u), model(u.flip(1)))


def test_a_transformer_whose_width_does_not_fit_is_refused():
    with pytest.raises(ParameterError, match="multiple of 6"):
        Transformer(1, 2, n_channels=8, heads=3)
    with pytest.raises(ParameterError, match="heads is 0"):
        Transformer(1, 2, n_channels=8, heads=0)
    with pytest.raises(ParameterError, match="unknown activation"):
        Transformer(1, 2, n_channels=8, activation="swish")
