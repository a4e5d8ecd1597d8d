"""Rows of different lengths in one batch give what each gives by itself."""

from __future__ import annotations

import pytest
import torch

import liquid_ssm as ls
from liquid_ssm.nn.padding import mask

pytestmark = pytest.mark.usefixtures("in_double")

LENGTHS = torch.tensor([21, 9, 0, 14, 9])
# The same recurrence, in chunks or FFTs of another length: below 1000 roundings, 21 steps of some 40 each.
NEAR = 1000 * torch.finfo(torch.float64).eps


def padded(u, side):
    """The rows of u, cut to LENGTHS, with junk outside."""
    found = torch.full_like(u, float("nan"))
    for row, length in enumerate(LENGTHS.tolist()):
        at = slice(0, length) if side == "right" else slice(u.shape[1] - length, None)
        found[row, at] = u[row, :length]
    return found


def part(state, row):
    if isinstance(state, ls.State):
        return ls.State(*(None if p is None else p[row : row + 1] for p in state))
    return state[row : row + 1]


def close(one, other):
    parts = zip(*((s if isinstance(s, ls.State) else (s,)) for s in (one, other)), strict=True)
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
