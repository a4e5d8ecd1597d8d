"""LSTM and Transformer: padding, causality, steps, positions."""

from __future__ import annotations

import math

import pytest
import torch

from liquid_ssm.errors import DTypeError, ParameterError, ShapeError, UnstableRecurrence
from liquid_ssm.nn import LSTM, Transformer
from liquid_ssm.nn.baselines import positions

LENGTHS = torch.tensor([12, 5, 1])


def make(baseline, **options):
    torch.manual_seed(0)
    return baseline(3, 4, n_layers=2, n_channels=8, **options).double().eval()


def inputs():
    return torch.randn(3, 12, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def lstm(r, model, u):
    """Outputs of an LSTM of whole rows u, by its formulas."""
    x = r.linear(u, model.encoder.weight, model.encoder.bias)
    for layer in range(model.lstm.num_layers):
        names = ("weight_ih", "bias_ih", "weight_hh", "bias_hh")
        W, b, V, c = (getattr(model.lstm, f"{name}_l{layer}") for name in names)
        h = cell = x.new_zeros(len(u), model.lstm.hidden_size)
        outputs = []
        for x_k in x.unbind(1):
            i, f, g, o = r.relative(r.linear(x_k, W, b) + r.linear(h, V, c)).chunk(4, -1)
            kept, new = r.relative(r.sigmoid(f) * cell), r.relative(r.sigmoid(i) * r.tanh(g))
            cell = r.relative(kept + new)
            h = r.relative(r.sigmoid(o) * r.tanh(cell))
            outputs.append(h)
        x = torch.stack(outputs, 1)
    return r.linear(r.pooled(x, model.pooling), model.head.weight, model.head.bias)


def attention(r, module, x):
    """Each head's softmax(q k' / √d) v, joined and mapped."""
    mapped = r.linear(x, module.in_proj_weight, module.in_proj_bias)
    q, k, v = (part.unflatten(-1, (module.num_heads, -1)).transpose(1, 2) for part in mapped.chunk(3, -1))
    # 1 / √d once, or its root in both factors: at most 3 roundings each.
    scores = r.relative(r.product(q, k.mT) * q.shape[-1] ** -0.5, 6)
    y = r.product(r.softmax(scores), v).transpose(1, 2).flatten(2)
    return r.linear(y, module.out_proj.weight, module.out_proj.bias)


def transformer(r, model, u):
    """As `lstm`, of a Transformer with norms before."""
    x = r.linear(u, model.encoder.weight, model.encoder.bias)
    x = r.relative(x + positions(*x.shape[1:]))
    for layer in model.layers.layers:
        x = r.relative(x + attention(r, layer.self_attn, r.layer_norm(x, layer.norm1)))
        y = r.gelu(r.linear(r.layer_norm(x, layer.norm2), layer.linear1.weight, layer.linear1.bias))
        x = r.relative(x + r.linear(y, layer.linear2.weight, layer.linear2.bias))
    x = r.layer_norm(x, model.layers.norm)
    return r.linear(r.pooled(x, model.pooling), model.head.weight, model.head.bias)


def near(one, other, error):
    """Whether two ways to compute differ by no more than twice what either may be off by."""
    return bool(((one - other).abs() <= 2 * error).all())


@pytest.mark.parametrize(("baseline", "formula"), [(LSTM, lstm), (Transformer, transformer)])
@pytest.mark.parametrize("pooling", ["mean", "last", "none"])
@pytest.mark.parametrize("gradients", [False, True])
def test_padding_has_no_influence(baseline, formula, pooling, gradients, rounded):
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
            assert torch.equal(again, found)
            value, error = rounded.analysed(formula, model, u[row : row + 1, :length])
            assert near(found, alone, error[0])
            assert near(alone, value[0], error[0])


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


def test_the_lstm_is_causal_and_steps_give_what_sequences_give(rounded):
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
            whole, (_, error) = model(u[:, : k + 1]), rounded.analysed(lstm, model, u[:, : k + 1])
            assert near(found, *((part[:, -1] for part in (whole, error)) if pooling == "none" else (whole, error)))


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
    # sin and cos of one angle, each within one unit in the last place: 2 roundoffs, 4 of its square, and 2 more.
    squares = positions(9, 4).view(9, 2, 2).square().sum(-1)
    assert float((squares - 1).abs().max()) <= 3 * torch.finfo(torch.float64).eps
    # A rate that is no float32 number, too.
    for rate, k, i in ((1.0, 0, 0), (1.0, 7, 1), (1.0, 49, 2), (0.1, 49, 0)):
        found = positions(50, 6, rate)[k, 2 * i : 2 * i + 2]
        angle = rate * k * 10_000 ** (-2 * i / 6)
        # Exponents up to 6.2, rounded three times here and twice there, an exponential and two products each.
        wanted = torch.tensor([math.sin(angle), math.cos(angle)], dtype=torch.float64)
        assert torch.allclose(found, wanted, rtol=0, atol=(5 * 6.2 + 8) * max(angle, 1) * 2**-53)
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


@pytest.mark.parametrize("baseline", [LSTM, Transformer])
def test_what_is_not_finite_is_an_error(baseline):
    model, u = make(baseline), inputs()
    u[1, 4, 2] = float("nan")
    with pytest.raises(ParameterError, match="NaN or infinite"):
        model(u)
    assert torch.isfinite(model(u, torch.tensor([12, 4, 12]))).all()
    with pytest.raises(ParameterError, match=r"^rate is nan"):
        model(inputs(), rate=float("nan"))
    with torch.no_grad():
        model.head.weight[0, 0] = float("inf")
    with pytest.raises(UnstableRecurrence, match=r"head\.weight"):
        model(inputs())


def test_bad_steps_of_an_lstm_are_refused():
    model = make(LSTM)
    for u, error, message in (
        (torch.zeros(2, 5, dtype=torch.float64), ShapeError, r"takes \(batch, 3\)"),
        ([1.0], DTypeError, "u is a list"),
        (torch.zeros(2, 3, dtype=torch.float16), DTypeError, "u has dtype torch.float16"),
    ):
        with pytest.raises(error, match=message):
            model.step(u)
