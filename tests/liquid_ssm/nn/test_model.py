"""Whole models: pooling, padding, streaming, size."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import liquid_ssm as ls
from liquid_ssm.nn import Block, SequenceModel, SSMLayer
from liquid_ssm.nn.padding import mask

LENGTHS = torch.tensor([20, 13, 7])


def near(one, other, error):
    """Whether two ways to compute differ by no more than twice what either may be off by."""
    return bool(((one - other).abs() <= 2 * error).all())


def model(**options):
    torch.manual_seed(1)
    given = {"n_layers": 2, "n_channels": 8, "n_state": 8, "backend": "first", **options}
    return SequenceModel(3, 5, **given)


def inputs():
    return torch.randn(3, 20, 3, generator=torch.Generator().manual_seed(0))


def test_the_speech_commands_model_has_the_papers_224k_parameters():
    speech = SequenceModel(1, 35, n_layers=6, n_channels=128, n_state=7, init="legs", norm="batch", prenorm=True)
    # The paper says 224K; 224.4k to 224.7k is what its published code counts.
    assert sum(p.numel() for p in speech.parameters()) == 224_675


@pytest.mark.parametrize("pooling", ["last", "mean", "none"])
@pytest.mark.parametrize("norm", ["layer", "batch"])
@pytest.mark.parametrize("prenorm", [True, False])
def test_padding_has_no_influence_on_either_side(pooling, norm, prenorm, exact, rounded, in_double):
    found, u = model(pooling=pooling, norm=norm, prenorm=prenorm).eval(), inputs()
    y = found(u, LENGTHS)
    left = torch.zeros_like(u)
    for row, length in enumerate(LENGTHS.tolist()):
        left[row, 20 - length :] = u[row, :length]
    other = found(left, LENGTHS, padding="left")
    for row, length in enumerate(LENGTHS.tolist()):
        alone = found(u[row : row + 1, :length])[0]
        value, error = rounded.analysed(rounded.sequence_model, found, u[row : row + 1, :length], exact)
        assert near(alone, value[0], error[0])
        assert near(y[row, :length] if pooling == "none" else y[row], alone, error[0])
        assert near(other[row, 20 - length :] if pooling == "none" else other[row], alone, error[0])
    changed = u.clone()
    changed[1, 13:] = 50.0
    assert torch.equal(
        found(changed, LENGTHS)[: None if pooling != "none" else 1], y[: None if pooling != "none" else 1]
    )


@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_lengths_are_checked_once_for_the_whole_model(norm, monkeypatch):
    calls = []
    for module in ("layer", "block", "model"):

        def counted(*given, module=module):
            calls.append(module)
            return mask(*given)

        monkeypatch.setattr(f"liquid_ssm.nn.{module}.mask", counted)
    found, u = model(norm=norm), inputs()
    y = found(u, LENGTHS)
    assert calls == ["model"]
    # Blocks and layers by themselves check as well, and so do those that have a forward of their own.
    calls.clear()
    alone = found.blocks[0](found.encoder(u), LENGTHS)
    assert calls == ["block"]
    found.blocks[0].layer(found.encoder(u), LENGTHS)
    assert calls == ["block", "layer"]

    class Own(SSMLayer):
        def forward(self, u, lengths=None, state=None, rate=1.0, dt=None, *, padding="right", return_state=False):
            return super().forward(u, lengths, state, rate, dt, padding=padding, return_state=return_state)

    class OwnBlock(Block):
        def forward(self, x, lengths=None, state=None, rate=1.0, dt=None, *, padding="right", return_state=False):
            return super().forward(x, lengths, state, rate, dt, padding=padding, return_state=return_state)

    found.blocks[0].layer.__class__, found.blocks[1].__class__ = Own, OwnBlock
    calls.clear()
    assert torch.equal(found(u, LENGTHS), y)
    assert calls == ["model", "layer", "block"]
    assert torch.equal(found.blocks[0](found.encoder(u), LENGTHS), alone)


def test_padding_has_no_influence_in_training_with_batch_norm():
    u = inputs()
    changed = u.clone()
    changed[1, 13:], changed[2, 7:] = 50.0, -3.0
    one, other = model(norm="batch"), model(norm="batch")
    assert torch.equal(one(u, LENGTHS), other(changed, LENGTHS))
    assert torch.equal(one.blocks[1].norm.norm.running_var, other.blocks[1].norm.norm.running_var)


@pytest.mark.parametrize("pooling", ["last", "mean", "none"])
@pytest.mark.parametrize("mode", [{"mode": "liquid"}, {"mode": "pb"}, {"mode": "kb", "correlations": "adjacent"}])
def test_pieces_and_steps_are_the_whole_sequence_so_far(pooling, mode, exact, rounded, in_double):
    found, u = model(pooling=pooling, **mode).eval(), inputs()
    state = found.initial_state(3)
    with torch.no_grad():
        y, state = found.prefill(u[:, :9], state)
        for end in (9, 12, 20):
            whole, (_, error) = found(u[:, :end]), rounded.analysed(rounded.sequence_model, found, u[:, :end], exact)
            if pooling == "none":
                whole, error = (part[:, -y.shape[1] :] for part in (whole, error))
            assert near(y, whole, error)
            for k in range(end, {9: 12, 12: 20, 20: 20}[end]):
                y, state = found.step(u[:, k], state)
            y = y if pooling != "none" else y[:, None]


def test_tokens_are_embedded_and_stepped(exact, rounded, in_double):
    tokens = torch.randint(11, (2, 9), generator=torch.Generator().manual_seed(0))
    found = SequenceModel(11, 4, n_layers=1, n_channels=8, n_state=4, tokens=True, backend="first")
    state = None
    for k in range(9):
        y, state = found.step(tokens[:, k], state)
    assert near(y, found(tokens), rounded.analysed(rounded.sequence_model, found, tokens, exact)[1])
    with pytest.raises(ls.ParameterError, match="whole numbers"):
        found(tokens.float())


def test_a_state_carries_gradients_to_the_piece_before(rounded, rounded_gradients, in_double):
    found, u = model(pooling="mean"), inputs().requires_grad_()
    _, state = found.prefill(u[:, :9])
    y, _ = found.prefill(u[:, 9:], state)
    y.square().sum().backward()
    assert u.grad[:, :9].abs().max() > 0
    whole = copy.deepcopy(found)
    again = inputs().requires_grad_()
    whole(again).square().sum().backward()
    network = rounded_gradients.Network()
    y = rounded_gradients.Passes(network, whole, rounded).training(again)
    loss = network.polynomial(torch.mul, 1, 1, y, y).sum()
    (error,) = network.errors(*network.gradients(loss, [again]))
    # Pieces are one more bracketing of the same sums.
    assert near(u.grad, again.grad, error)
    # One that a state did not carry would be missing.
    assert bool((error < 1e-3 * again.grad.abs().max()).all())


def test_rates_reach_every_layer(in_double):
    found, u = model(), inputs()
    doubled = copy.deepcopy(found)
    for block in doubled.blocks:
        block.layer.continuous.dt = lambda dt=block.layer.continuous.dt: 2 * dt()
    # A power of two: the same step sizes, and so the same operations, in every bit.
    assert torch.equal(found(u, rate=2.0), doubled(u))
    assert torch.equal(found(u, dt=torch.full((3, 20), 2.0)), doubled(u, dt=torch.ones(3, 20)))
    assert not torch.allclose(found(u), found(u, rate=2.0), rtol=0, atol=1e-3)


def test_a_layer_of_ones_own_takes_the_place():
    found = SequenceModel(3, 5, layer=lambda features: SSMLayer(features, 4, mode="s4", backend="first"), n_channels=6)
    assert {block.layer.spec.mode for block in found.blocks} == {"s4"}
    assert found(inputs()).shape == (3, 5)
    with pytest.raises(ls.ParameterError, match="n_state"):
        SequenceModel(3, 5, layer=SSMLayer, n_state=4)
    with pytest.raises(ls.ParameterError, match="layer is a SSMLayer; give what makes one"):
        SequenceModel(3, 5, layer=SSMLayer(6, 4), n_channels=6)
    with pytest.raises(ls.ParameterError, match="n_channels is 6, but the layer that was made has 5"):
        SequenceModel(3, 5, layer=lambda features: SSMLayer(5, 4), n_channels=6)


@pytest.mark.parametrize("shape", [(3, 20), (3, 20, 4), (20, 3)])
def test_wrong_shapes_are_named(shape):
    with pytest.raises(ls.ShapeError, match="batch, length, 3"):
        model()(torch.zeros(shape))


@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("padding", ["right", "left"])
def test_no_steps_have_no_last_one_and_no_mean(pooling, padding):
    with pytest.raises((ls.ShapeError, ls.ParameterError), match="no steps"):
        model(pooling=pooling)(torch.zeros(2, 0, 3))
    with pytest.raises(ls.ParameterError, match="row 1 has no steps"):
        model(pooling=pooling)(inputs(), torch.tensor([20, 0, 3]), padding=padding)


def test_what_is_no_state_and_no_token_is_named():
    found, u = model(), inputs()
    _, state = found.prefill(u)
    for call in (found, found.step):
        with pytest.raises(ls.ParameterError, match="state is that of tuple; give a ModelState of 2 layers"):
            call(u if call is found else u[:, 0], state=tuple(state))
    with pytest.raises(ls.ParameterError, match="state is that of 2 layers; give a ModelState of 3"):
        model(n_layers=3)(u, state=state)
    words = SequenceModel(11, 4, n_layers=1, n_channels=8, n_state=4, tokens=True, backend="first")
    with pytest.raises(ls.ParameterError, match="tokens from 3 to 11; this model's vocabulary is 0 to 10"):
        words(torch.tensor([[3, 11]]))


@pytest.mark.parametrize("outside", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("norm", ["layer", "batch"])
@pytest.mark.parametrize("prenorm", [True, False])
@pytest.mark.parametrize("padding", ["right", "left"])
def test_gradients_do_not_see_what_is_outside_of_a_row(outside, norm, prenorm, padding):
    found, u = model(norm=norm, prenorm=prenorm, pooling="mean"), inputs()
    real = mask(LENGTHS, (3, 20), padding, u.device)[..., None]

    def gradients(filled):
        given = torch.where(real, u, filled).requires_grad_()
        found(given, LENGTHS, padding=padding).square().sum().backward()
        parts = [given.grad, *(p.grad for p in found.parameters())]
        found.zero_grad(set_to_none=True)
        return parts

    expected = gradients(0.0)
    assert all(bool(torch.isfinite(gradient).all()) for gradient in expected)
    assert all(map(torch.equal, gradients(outside), expected))


def test_tokens_outside_of_a_row_may_be_any():
    words = SequenceModel(11, 4, n_layers=1, n_channels=8, n_state=4, tokens=True, backend="first")
    lengths, tokens = torch.tensor([2, 3]), torch.tensor([[3, 1, -1], [0, 1, 10]])
    expected = words(tokens.clamp_min(0), lengths)
    assert torch.equal(words(tokens, lengths), expected)
    assert torch.equal(words(tokens.to(torch.int16), lengths), expected)
    with pytest.raises(ls.ParameterError, match="tokens from -1 to 10"):
        words(tokens, torch.tensor([3, 3]))


@pytest.mark.parametrize("prenorm", [True, False])
def test_numbers_that_leave_the_range_between_layers_are_an_error(prenorm):
    found, u = model(prenorm=prenorm, n_layers=2, mode="s4"), inputs()
    # The variance of features of size 1e25 is not one of float32.
    with pytest.raises(ls.UnstableRecurrence, match=r"NaN or infinite values, though what was given is finite"):
        found(1e25 * u)
    with pytest.raises(ls.UnstableRecurrence, match=r"NaN or infinite values, though what was given is finite"):
        found.step(1e25 * u[:, 0])
    with pytest.raises(ls.ParameterError, match=r"u holds 1 value\(s\).* batch 1, channel 2, step 4"):
        found(u.index_put((torch.tensor(1), torch.tensor(4), torch.tensor(2)), torch.tensor(torch.nan)))
    # What fails for another reason stays what it is.
    with pytest.raises(ls.ParameterError, match="intervals are positive"):
        found(u, dt=torch.zeros(3, 20))


@pytest.mark.parametrize("name", ["encoder.weight", "head.bias", "blocks.1.output.0.weight", "blocks.0.norm.weight"])
def test_parameters_that_are_not_finite_are_named(name):
    found, u = model(n_layers=2), inputs()
    with torch.no_grad():
        found.get_parameter(name).view(-1)[1] = float("nan")
    for call in (lambda: found(u), lambda: found.step(u[:, 0])):
        with pytest.raises(
            ls.UnstableRecurrence, match=rf"parameters hold NaN .*: {name.removeprefix('blocks.0.')} \(1 of"
        ):
            call()


def test_a_mean_goes_on_from_a_sum():
    found, u = model(pooling="mean"), inputs()
    _, state = found.prefill(u[:, :5])
    with pytest.raises(ls.ParameterError, match=r"no sum of features .*pooling 'mean'"):
        found.prefill(u[:, 5:], type(state)(state.layers))


@pytest.mark.parametrize("name", ["n_inputs", "n_outputs", "n_layers", "n_channels"])
@pytest.mark.parametrize("value", [0, -1, 2.0, True])
def test_sizes_are_whole_numbers_from_one(name, value):
    with pytest.raises(ls.ParameterError, match=f"{name} is {value}; give a whole number from 1"):
        SequenceModel(**{"n_inputs": 3, "n_outputs": 2, "n_channels": 4, "n_state": 4, name: value})


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m, u: m(u.numpy()), ls.DTypeError, "u is a ndarray; give a torch tensor"),
        (lambda m, u: m(u.double()), ls.DTypeError, r"float64, this model's parameters torch.float32; give u.to"),
        (lambda m, u: m.step(u[:, 0].double()), ls.DTypeError, r"float64, this model's parameters"),
        (lambda m, u: m(u.long()), ls.DTypeError, "int64; give real numbers"),
        (lambda m, u: m.step(u[0]), None, ""),
        (lambda m, u: m.step(u), ls.ShapeError, r"\(3, 20, 3\); this model takes \(batch, 3\)"),
        (lambda m, u: m.step(u[:, 0, :2]), ls.ShapeError, r"\(3, 2\); this model takes \(batch, 3\)"),
        (lambda m, u: m(u, padding="both"), ls.ParameterError, "padding 'both'"),
    ],
)
def test_what_is_no_input_is_named(call, error, message):
    found, u = model(), inputs()
    if error is None:
        assert call(found, u)[0].shape == (20, 5)
        return
    with pytest.raises(error, match=message):
        call(found, u)


def test_a_step_of_a_token_is_looked_at():
    words = SequenceModel(11, 4, n_layers=1, n_channels=8, n_state=4, tokens=True, backend="first")
    for bad, message in ((torch.tensor([11]), "tokens from 11 to 11"), (torch.tensor([1.0]), "whole numbers")):
        with pytest.raises(ls.ParameterError, match=message):
            words.step(bad)
    with pytest.raises(ls.ShapeError, match=r"takes \(batch,\)"):
        words.step(torch.tensor([[1]]))


def test_an_unknown_pooling_is_named():
    with pytest.raises(ls.ParameterError, match="pooling 'max'"):
        model(pooling="max")


def test_autocast_trains_with_the_recurrences_in_float32():
    found, u = model(), inputs()
    with torch.autocast("cpu", torch.bfloat16):
        y = found(u)
        y.float().square().mean().backward()
    assert y.dtype == torch.bfloat16
    # bfloat16 rounds to 8 bits in the maps between the layers, some of them one after another.
    assert torch.allclose(y.float(), found(u), rtol=0, atol=0.1)
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in found.parameters())


@pytest.mark.parametrize("pooling", ["last", "mean", "none"])
def test_the_whole_model_compiles_as_one_graph(pooling, exact, rounded, in_double):
    found, u = model(pooling=pooling, init="legs").eval(), inputs()
    compiled = torch.compile(found, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        error = rounded.analysed(rounded.sequence_model, found, u, exact)[1]
        assert near(compiled(u), found(u), error)
        padded, expected = compiled(u, LENGTHS), found(u, LENGTHS)
        for row, length in enumerate(LENGTHS.tolist()):
            at = (row, slice(length)) if pooling == "none" else row
            _, error = rounded.analysed(rounded.sequence_model, found, u[row : row + 1, :length], exact)
            assert near(padded[at], expected[at], error[0])
        state = found.initial_state(3)
        step = torch.compile(found.step, fullgraph=True, backend="aot_eager")
        y, _ = step(u[:, 0], state)
        error = rounded.analysed(rounded.sequence_model, found, u[:, :1], exact)[1]
        assert near(y, found.step(u[:, 0], state)[0], error[:, 0] if pooling == "none" else error)


@pytest.mark.parametrize("pooling", ["last", "mean", "none"])
@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_models_export_for_any_batch_and_length(norm, pooling, exact, rounded, in_double):
    found, u = model(norm=norm, pooling=pooling).eval(), inputs()
    dynamic = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    with torch.no_grad():
        program = torch.export.export(found, (u,), dynamic_shapes=(dynamic,)).module()
        for part in (u, u[:2, :7], u[:, :13]):
            error = rounded.analysed(rounded.sequence_model, found, part, exact)[1]
            assert near(program(part), found(part), error)


class Recording(nn.Module):
    """A layer that hands on its input, and remembers the rate and the intervals that it was given."""

    def __init__(self, n_channels):
        super().__init__()
        self.n_channels, self.given = n_channels, []

    def forward(self, u, state=None, rate=1.0, dt=None, return_state=False, **_):
        self.given.append((rate, dt))
        return (u, state) if return_state else u

    def step(self, u_k, state, rate, dt):
        return self(u_k, state, rate, dt, return_state=True)


@pytest.mark.parametrize("pooling", ["last", "mean", "none"])
def test_rates_and_intervals_reach_every_layer_of_steps_and_pieces(pooling):
    found, u = SequenceModel(3, 5, n_layers=2, n_channels=8, layer=Recording, pooling=pooling), inputs()
    dt = 0.5 + torch.rand(3, 20, generator=torch.Generator().manual_seed(1))
    for call, intervals, layers in (
        (lambda: found(u, rate=2.0, dt=dt), dt, 2),
        (lambda: found.prefill(u, rate=2.0, dt=dt), dt, 2),
        (lambda: found.step(u[:, 3], rate=2.0, dt=dt[:, 3]), dt[:, 3], 2),
        (lambda: found.blocks[1].prefill(torch.zeros(3, 20, 8), None, 2.0, dt), dt, 1),
    ):
        call()
        seen = [pair for block in found.blocks for pair in block.layer.given]
        assert len(seen) == layers
        assert all(rate == 2.0 and torch.equal(each, intervals) for rate, each in seen)
        for block in found.blocks:
            block.layer.given.clear()


@pytest.mark.parametrize(("part", "shape"), [("total", (1, 8)), ("total", (3, 7)), ("steps", (1,))])
def test_a_sum_of_other_rows_is_refused(part, shape):
    found, u = model(pooling="mean").eval(), inputs()
    state = found.prefill(u)[1]._replace(**{part: torch.ones(shape)})
    for call in (lambda: found.prefill(u, state), lambda: found.step(u[:, 0], state)):
        with pytest.raises(ls.ShapeError, match=f"{part} of the state has shape"):
            call()
