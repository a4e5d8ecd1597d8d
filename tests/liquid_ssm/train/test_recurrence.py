"""The recurrent mode: the same numbers by step, for every model that has steps."""

from __future__ import annotations

import pytest
import torch

from liquid_ssm.errors import ParameterError
from liquid_ssm.nn import MODEL_NAMES, ModelConfig, build
from liquid_ssm.tasks import get_task
from liquid_ssm.tasks.batch import Batch
from liquid_ssm.train.recurrence import by_step, compared, in_float64, require_step

SMALL = {"n_layers": 2, "n_channels": 4, "n_state": 4, "n_outputs": 3}
CAUSAL = [name for name in MODEL_NAMES if name != "transformer"]


def first(model: str) -> dict[str, str]:
    """Options that spare a selection of the backend."""
    return {} if model in ("lstm", "transformer", "ltc") else {"backend": "first"}


def batch(tokens: bool = False, rate: float = 1.0) -> Batch:
    generator = torch.Generator().manual_seed(0)
    u = torch.randint(5, (3, 11), generator=generator) if tokens else torch.randn(3, 11, 1, generator=generator)
    return Batch(u, torch.zeros(3, dtype=torch.long), torch.tensor([11, 4, 1]), rate)


@pytest.mark.parametrize("model", CAUSAL)
@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_steps_are_the_same_function(model, pooling):
    config = ModelConfig(model=model, pooling=pooling, norm="batch", options=first(model), **SMALL)
    require_step(config)
    torch.manual_seed(0)
    found = build(config).eval()
    for rate in (1.0, 2.0):
        with torch.no_grad():
            difference, bound = in_float64(found, batch(rate=rate), config)
        # 10 · 32 roundings of 2⁻⁵³ in 2 layers and 11 steps.
        assert bound == 10 * 32 * 2 * 11 * 2.0**-53
        assert difference <= bound
    assert next(found.parameters()).dtype == torch.float32


def test_a_pair_is_two_sequences():
    config = ModelConfig(model="pb", pair=True, tokens=True, n_inputs=5, options=first("pb"), **SMALL)
    torch.manual_seed(0)
    found = build(config).double().eval()
    u = torch.randint(5, (2, 2, 9), generator=torch.Generator().manual_seed(0))
    given = Batch(u, torch.zeros(2, dtype=torch.long), torch.tensor([[9, 3], [1, 6]]))
    with torch.no_grad():
        whole = found(u, lengths=given.lengths)
        # As above, and a head of 16 and 4 products.
        assert torch.allclose(by_step(found, given), whole, rtol=0, atol=10 * 32 * 3 * 9 * 2.0**-53 * 10)
        assert in_float64(found, given, config)[1] == 10 * 32 * 2 * 9 * 2.0**-53


def test_a_model_whose_steps_differ_is_found():
    config = ModelConfig(model="liquid", options=first("liquid"), **SMALL)
    torch.manual_seed(0)
    found = build(config).eval()
    right = type(found).step

    class Wrong(type(found)):
        def step(self, u_k, state=None, rate=1.0, dt=None):
            # The rate is forgotten.
            return right(self, u_k, state, 1.0, dt)

    found.__class__ = Wrong
    with torch.no_grad():
        difference, bound = in_float64(found, batch(), config)
        assert difference <= bound
        difference, bound = in_float64(found, batch(rate=2.0), config)
    assert difference > 1000 * bound


def test_classes_may_differ_for_ties_alone():
    task = get_task("digits").task
    whole = torch.tensor([[1.0, 0.0], [1.0, 1.0 - 1e-6], [0.0, 1.0]])
    stepped = torch.tensor([[1.0, 0.0], [1.0, 1.0 + 1e-6], [0.0, 1.0]])
    found = compared(task, whole, stepped, 0.5, 0.0, 1e-9)
    assert (found.others, found.ties, found.same, found.metric) == (1, 1, True, 0.5)
    stepped[2] = torch.tensor([0.3, 0.2])
    found = compared(task, whole, stepped, 0.5, 0.0, 1e-9)
    # 1 apart, where the outputs moved by 0.8 at most: that could be a tie; in float64 it is none.
    assert (found.others, found.ties) == (2, 2)
    assert found.largest_difference == pytest.approx(0.8)
    assert not compared(task, whole, stepped, 0.5, 1e-3, 1e-9).same


@pytest.mark.parametrize("change", [{"model": "transformer"}, {"model": "s4", "bidirectional": True}])
def test_models_that_see_the_whole_sequence_have_no_steps(change):
    with pytest.raises(ParameterError, match="no recurrent mode"):
        require_step(ModelConfig(**{**SMALL, **change}))
