"""Blocks: the layer within norm, activation, dropout, output map and residual."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import liquid_ssm as ls
from liquid_ssm.nn import Block


def test_a_block_is_its_formula(make_layer, make_signal):
    layer, u = make_layer(), make_signal()
    for prenorm, glu in ((True, True), (True, False), (False, True)):
        block = Block(layer, prenorm=prenorm, glu=glu, activation="silu")
        y = layer(block.norm(u) if prenorm else u)
        y = block.output(nn.functional.silu(y))
        expected = u + y if prenorm else block.norm(u + y)
        assert torch.equal(block(u), expected)
        linear = block.output[0] if glu else block.output
        assert linear.weight.shape == ((6, 3) if glu else (3, 3))


@pytest.mark.parametrize("norm", ["layer", "batch"])
@pytest.mark.parametrize("prenorm", [True, False])
def test_steps_and_pieces_are_the_whole(norm, prenorm, make_layer, make_signal, in_double):
    block, u = Block(make_layer("diagonal", "pb-all"), norm=norm, prenorm=prenorm).eval(), make_signal()
    whole = block(u)
    first, state = block.prefill(u[:, :20], block.initial_state(2))
    last, _ = block.step(u[:, 20], state)
    # 21 steps of at most 20 roundings, and 80 for norm, gate and maps of 3 features.
    allowed = 500 * torch.finfo(torch.float64).eps * float(whole.detach().abs().max())
    assert torch.allclose(torch.cat([first, last[:, None]], 1), whole, rtol=0, atol=allowed)


@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_padding_has_no_influence(norm, make_layer, make_signal):
    block, u = Block(make_layer(), norm=norm), make_signal()
    lengths = torch.tensor([21, 8])
    junk = u.clone()
    junk[1, 8:] = 1e3
    for training in (True, False):
        block.train(training)
        assert torch.equal(block(junk, lengths)[1, :8], block(u, lengths)[1, :8])
        assert torch.equal(block(junk, lengths)[0], block(u, lengths)[0])


@pytest.mark.parametrize("norm", ["layer", "batch"])
@pytest.mark.parametrize("prenorm", [True, False])
def test_gradients_do_not_see_padding(norm, prenorm, make_layer, make_signal):
    block, u = Block(make_layer(), norm=norm, prenorm=prenorm), make_signal()
    lengths = torch.tensor([21, 8])
    u[1, 8:] = float("nan")
    block(u, lengths)[1, :8].square().sum().backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in block.parameters())


def test_a_layer_without_channels_is_refused():
    with pytest.raises(ls.ParameterError, match="layer is a LSTM without n_channels; give an SSMLayer"):
        Block(nn.LSTM(2, 2))


def test_a_norm_that_leaves_the_range_is_an_error(make_layer, make_signal):
    block, u = Block(make_layer()), 1e25 * make_signal()
    for call in (lambda: block(u), lambda: block.step(u[:, 0])):
        with pytest.raises(ls.UnstableRecurrence, match=r"norm before a layer holds NaN .* learning rate"):
            call()
    # What was not finite before is refused by the layer, as ever.
    u[0, 3, 1] = float("inf")
    with pytest.raises(ls.ParameterError, match="u holds"):
        block(u)


def test_dropout_is_of_training_only(make_layer, make_signal):
    block, u = Block(make_layer(), dropout=0.5), make_signal()
    torch.manual_seed(0)
    assert not torch.equal(block(u), block(u))
    block.eval()
    assert torch.equal(block(u), block(u))


def test_a_step_has_no_batch_statistics(make_layer):
    with pytest.raises(ls.ParameterError, match=r"\.eval\(\)"):
        Block(make_layer(), norm="batch").step(torch.zeros(2, 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"activation": "softmax"}, "'softmax'"), ({"dropout": 1.0}, "dropout is 1.0"), ({"norm": "none"}, "norm 'none'")],
)
def test_bad_options_are_named(options, message, make_layer):
    with pytest.raises(ls.ParameterError, match=message):
        Block(make_layer(), **options)
