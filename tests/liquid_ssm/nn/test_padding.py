"""Rows of different lengths in one batch give what each gives by itself."""

from __future__ import annotations

import pytest
import torch

import liquid_ssm as ls
from liquid_ssm.nn import padding
from liquid_ssm.nn.padding import mask, require_padding
from liquid_ssm.tensors import each_part

pytestmark = pytest.mark.usefixtures("in_double")

LENGTHS = torch.tensor([21, 9, 0, 14, 9])
# Of every power of two that is in 21, alone and with others.
EVERY = torch.tensor([21, 16, 15, 8, 5, 1, 0])
# The same recurrence, in chunks or FFTs of another length: below 1000 roundings, 21 steps of some 40 each.
NEAR = 1000 * torch.finfo(torch.float64).eps


def padded(u, side, lengths=LENGTHS):
    """The rows of u, cut to their lengths, with junk outside."""
    found = torch.full_like(u, float("nan"))
    for row, length in enumerate(lengths.tolist()):
        at = slice(0, length) if side == "right" else slice(u.shape[1] - length, None)
        found[row, at] = u[row, :length]
    return found


def part(state, row):
    return each_part(state, lambda held: held[row : row + 1])


def close(one, other):
    parts = zip(*((s if isinstance(s, tuple) else (s,)) for s in (one, other)), strict=True)
    given = [(a, b) for a, b in parts if a is not None or b is not None]
    return all(
        torch.allclose(a, b, rtol=0, atol=NEAR * max(1.0, float(b.detach().abs().max()) if b.numel() else 0))
        for a, b in given
    )


@pytest.mark.parametrize("given", [False, True], ids=["from-rest", "from-a-state"])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("mode", ["s4", "liquid", "truncated", "kb-adjacent", "kb-window", "pb-all", "pb-adjacent"])
def test_rows_are_what_they_are_by_themselves(mode, side, given, make_layer, make_signal):
    layer, u = make_layer("diagonal", mode), make_signal(5)
    state = layer.prefill(make_signal(5, 4, seed=7))[1] if given else None
    y = layer(padded(u, side), LENGTHS, state, padding=side)
    again, final = layer(padded(u, side), LENGTHS, state, padding=side, return_state=True)
    assert torch.equal(torch.isfinite(y), torch.ones_like(y, dtype=torch.bool))
    for row, length in enumerate(LENGTHS.tolist()):
        before = part(state, row) if given else None
        alone, after = layer(u[row : row + 1, :length], state=before, return_state=True)
        at = slice(0, length) if side == "right" else slice(21 - length, None)
        for found in (y, again):
            assert close(found[row, at], alone[0])
            assert not found[row].any() if length == 0 else True
        assert close(part(final, row), after)
    outside = ~mask(LENGTHS, (5, 21), side, u.device)
    assert not y[outside].any()


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("mode", ["liquid", "kb-all"])
def test_intervals_move_with_their_rows(side, mode, make_layer, make_signal):
    layer, u = make_layer("diagonal", mode), make_signal(5)
    dt = 0.5 + torch.rand(5, 21, generator=torch.Generator().manual_seed(1))
    given = padded(dt[..., None], side)[..., 0]
    y, final = layer(padded(u, side), LENGTHS, dt=given, padding=side, return_state=True)
    for row, length in enumerate(LENGTHS.tolist()):
        alone, after = layer(u[row : row + 1, :length], dt=dt[row : row + 1, :length], return_state=True)
        at = slice(0, length) if side == "right" else slice(21 - length, None)
        assert close(y[row, at], alone[0])
        assert close(part(final, row), after)


def test_gradients_stop_at_the_padding(make_layer, make_signal):
    layer = make_layer()
    u = make_signal(5).requires_grad_()
    layer(u, LENGTHS).square().sum().backward()
    outside = ~mask(LENGTHS, (5, 21), "right", u.device)
    assert not u.grad[outside].any()
    assert u.grad[~outside].all()


@pytest.mark.parametrize("given", [False, True], ids=["from-rest", "from-a-state"])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize(
    ("mode", "options", "timed"),
    [
        ("s4", {}, False),
        ("liquid", {"structure": "mimo"}, False),
        ("truncated", {"structure": "dplr"}, True),
        ("kb-adjacent", {}, True),
        ("kb-window", {}, False),
        ("pb-all", {}, True),
        ("liquid", {"discretization": "bilinear-exact", "dt_max": 1e-2}, False),
        ("liquid", {"discretization": "adams-bashforth", "dt_max": 1e-2}, True),
    ],
)
def test_without_numbers_rows_are_what_they_are(
    mode, options, timed, side, given, make_layer, make_signal, monkeypatch
):
    """As a compiler runs it, which may not look at lengths."""
    layer = make_layer(**{"structure": "diagonal", "mode": mode} | options)
    u, dt = padded(make_signal(7), side, EVERY), None
    if timed:
        dt = 0.5 + torch.rand(7, 21, generator=torch.Generator().manual_seed(1))
    state = layer(make_signal(7, 4, seed=7), dt=None if dt is None else dt[:, :4], return_state=True)[1]
    options = {"state": state if given else None, "dt": dt, "padding": side, "return_state": True}
    y, final = layer(u, EVERY, **options)
    monkeypatch.setattr(padding, "has_numbers", lambda tensor: False)
    found, after = layer(u, EVERY, **options)
    assert close(found, y)
    assert type(after) is type(final)
    assert close(after, final)


@pytest.mark.parametrize("discretization", ["euler", "adams-bashforth"])
def test_without_numbers_no_state_grows_beyond_its_row(discretization, make_layer, make_signal, monkeypatch):
    layer = make_layer(discretization=discretization, dt_min=10.0, dt_max=10.0)
    u, lengths = make_signal(2, 300), torch.tensor([2, 0])
    state = layer.prefill(u[:, :2])[1]
    state = each_part(state, lambda held: held.detach().requires_grad_())
    x = state if torch.is_tensor(state) else state.x
    with pytest.raises(ls.UnstableRecurrence):
        layer(torch.zeros_like(u), state=state)
    found = []
    for _ in range(2):
        y, final = layer(u, lengths, state, return_state=True)
        found.append((y, *torch.autograd.grad(y.square().sum(), [x, layer.continuous.B]), final))
        monkeypatch.setattr(padding, "has_numbers", lambda tensor: False)
    (*plain, final), (*traced, after) = found
    assert close(tuple(traced), tuple(plain))
    assert close(after, final)


@pytest.mark.parametrize(
    ("mode", "side", "options"),
    [
        ("liquid", "right", {}),
        ("pb-all", "left", {}),
        ("liquid", "left", {"discretization": "adams-bashforth", "dt_max": 1e-2}),
    ],
)
def test_compiled_rows_and_their_gradients_are_what_they_are(mode, side, options, make_layer, make_signal):
    layer = make_layer("diagonal", mode, n_channels=2, **options)
    u, lengths = make_signal(4, 9, 2), torch.tensor([9, 4, 0, 7])
    state = layer.prefill(make_signal(4, 3, 2, seed=7))[1]
    state = each_part(state, lambda held: held.detach().requires_grad_())
    found = []
    for call in (layer, torch.compile(layer, fullgraph=True, backend="aot_eager")):
        given = padded(u, side, lengths).requires_grad_()
        y, final = call(given, lengths, state, padding=side, return_state=True)
        x = final if torch.is_tensor(final) else final.x
        before = state if torch.is_tensor(state) else state.x
        loss = y.square().sum() + x.abs().square().sum()
        found.append((y, *torch.autograd.grad(loss, [given, before, layer.continuous.B]), final))
    # The way back is the same recurrence from the end to the start.
    (*plain, final), (*traced, after) = found
    assert close(tuple(traced), tuple(plain))
    assert close(after, final)


def test_rows_with_a_state_export(make_layer, make_signal):
    layer, u = make_layer(n_channels=2), make_signal(2, 6, 2)
    state = layer.prefill(u[:, :2])[1].detach()
    exported = torch.export.export(layer, (u, torch.tensor([6, 3]), state), {"return_state": True}).module()
    for lengths in (torch.tensor([6, 3]), torch.tensor([0, 5])):
        found, after = exported(u, lengths, state, return_state=True)
        y, final = layer(u, lengths, state, return_state=True)
        assert close(found, y)
        assert close(after, final)


@pytest.mark.parametrize(
    ("lengths", "error", "message"),
    [
        (torch.tensor([3.0, 2.0]), ls.ParameterError, "dtype torch.float32"),
        (torch.tensor([3]), ls.ShapeError, r"\(1,\).*2 rows"),
        (torch.tensor([3, 22]), ls.ParameterError, r"lengths\[1\] is 22; the rows have 21 steps"),
        (torch.tensor([-1, 3]), ls.ParameterError, r"lengths\[0\] is -1"),
    ],
)
def test_bad_lengths_are_named(lengths, error, message, make_layer, make_signal):
    with pytest.raises(error, match=message):
        make_layer()(make_signal(), lengths)


def test_an_unknown_side_is_named(make_layer, make_signal):
    with pytest.raises(ls.ParameterError, match="padding 'both'"):
        make_layer()(make_signal(), torch.tensor([3, 2]), padding="both")


@pytest.mark.parametrize("side", ["both", "foo"])
def test_a_side_is_checked_by_itself(side):
    with pytest.raises(ls.ParameterError, match=f"unknown padding '{side}'; allowed: right, left"):
        require_padding(side)
    assert all(require_padding(known) is None for known in padding.SIDES)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.uint16])
def test_lengths_of_every_whole_dtype_are_the_same(dtype, side):
    """Though the dtype may not hold the number of steps."""
    lengths = [5, 100, 0]
    found = mask(torch.tensor(lengths, dtype=dtype), (3, 40_000), side, torch.device("cpu"))
    assert found.sum(1).tolist() == lengths
    assert torch.equal(found, mask(lengths, (3, 40_000), side, torch.device("cpu")))


@pytest.mark.parametrize("return_state", [False, True])
@pytest.mark.parametrize("discretization", ["bilinear", "adams-bashforth"])
def test_a_state_of_other_rows_is_refused(discretization, return_state, make_layer, make_signal):
    layer, u = make_layer(discretization=discretization), make_signal(2)
    for rows in (0, 1, 3):
        with pytest.raises(ls.ShapeError, match=rf"state has .*shape \({rows}, 3, 4\)"):
            layer(u, torch.tensor([21, 9]), layer.initial_state(rows), return_state=return_state)
    for state in ([0.0], "rest"):
        with pytest.raises(ls.ParameterError, match="state"):
            layer(u, torch.tensor([21, 9]), state, return_state=return_state)


@pytest.mark.parametrize("side", ["right", "left"])
def test_padded_rows_export_for_any_batch_and_length(side, make_layer, make_signal):
    layer, batch, length = make_layer(), torch.export.Dim("batch"), torch.export.Dim("length")
    shapes = {"u": {0: batch, 1: length}, "lengths": {0: batch}, "padding": None}
    with torch.no_grad():
        given = {"lengths": torch.tensor([6, 3]), "padding": side}
        program = torch.export.export(layer, (make_signal(2, 7),), given, dynamic_shapes=shapes).module()
        u, lengths = make_signal(5), LENGTHS
        assert close(program(u, lengths=lengths, padding=side), layer(u, lengths, padding=side))
