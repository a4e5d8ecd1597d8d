"""What models refuse of their inputs and outputs: state-space models, and those that they are compared with."""

from __future__ import annotations

import pytest
import torch

import liquid_ssm as ls
from liquid_ssm.nn import LSTM, SequenceModel, Transformer
from liquid_ssm.nn.model_inputs import require_finite_output, require_numbers, require_shape

MODELS = [SequenceModel, LSTM, Transformer]


def make(model_class, **options):
    return model_class(3, 2, n_layers=1, n_channels=4, **options)


@pytest.mark.parametrize("model_class", MODELS)
@pytest.mark.parametrize(
    ("tokens", "step", "shape", "wanted"),
    [
        (False, False, (2, 5), r"\(batch, length, 3\)"),
        (False, False, (2, 5, 4), r"\(batch, length, 3\)"),
        (False, True, (2, 5, 3), r"\(batch, 3\)"),
        (True, False, (2, 5, 3), r"\(batch, length\)"),
        (True, True, (2, 5), r"\(batch,\)"),
    ],
)
def test_other_axes_are_refused_with_those_that_are_taken(model_class, tokens, step, shape, wanted):
    with pytest.raises(ls.ShapeError, match=f"u has shape .*; this model takes {wanted}"):
        require_shape(make(model_class, tokens=tokens), torch.zeros(shape), step=step)


@pytest.mark.parametrize("model_class", MODELS)
def test_right_inputs_are_taken(model_class):
    for tokens, u, step in (
        (False, torch.zeros(2, 5, 3), False), (False, torch.zeros(2, 3), True),
        (True, torch.ones(2, 5, dtype=torch.uint8), False), (True, torch.tensor([2, 0]), True),
    ):  # fmt: skip
        require_shape(make(model_class, tokens=tokens), u, step=step)
        require_numbers(make(model_class, tokens=tokens), u)


@pytest.mark.parametrize("model_class", MODELS)
@pytest.mark.parametrize(
    ("tokens", "u", "error", "message"),
    [
        (False, torch.zeros(2, 5, 3, dtype=torch.float64), ls.DTypeError, "this model's parameters torch.float32"),
        (False, torch.zeros(2, 5, 3, dtype=torch.long), ls.DTypeError, "give real numbers"),
        (True, torch.zeros(2, 5), ls.ParameterError, "tokens are whole numbers"),
        (True, torch.zeros(2, 5, dtype=torch.bool), ls.ParameterError, "tokens are whole numbers"),
        (True, torch.tensor([[0, 3]]), ls.ParameterError, "tokens from 0 to 3; this model's vocabulary is 0 to 2"),
        (True, torch.tensor([[-1, 1]]), ls.ParameterError, "tokens from -1 to 1"),
    ],
)
def test_numbers_that_the_model_does_not_take_are_named(model_class, tokens, u, error, message):
    with pytest.raises(error, match=message):
        require_numbers(make(model_class, tokens=tokens), u)


def test_outputs_that_are_not_finite_are_told_by_what_made_them_so():
    model, u = make(SequenceModel), torch.ones(1, 5, 3)
    require_finite_output(model, u, torch.ones(1, 2))
    y = torch.tensor([[1.0, float("inf")]])
    with pytest.raises(ls.UnstableRecurrence, match="the output of this model holds NaN or infinite values, though"):
        require_finite_output(model, u, y)
    with pytest.raises(ls.ParameterError, match="u holds 1 value"):
        require_finite_output(model, u.index_fill(1, torch.tensor(2), float("nan"))[..., :1], y)
    with torch.no_grad():
        model.encoder.bias[1] = float("nan")
    with pytest.raises(ls.UnstableRecurrence, match=r"encoder\.bias \(1 of 4 numbers\)"):
        require_finite_output(model, u, y)
