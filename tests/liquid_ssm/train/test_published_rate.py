"""The published form of another rate: Eq. 15 with the step sizes of training in its liquid term."""

from __future__ import annotations

import pytest
import torch

import liquid_ssm as ls
from liquid_ssm.errors import ParameterError
from liquid_ssm.nn import ModelConfig, SSMLayer, build
from liquid_ssm.train.published_rate import PublishedRate, require_pb, with_published_rate


@pytest.fixture
def layer() -> SSMLayer:
    torch.manual_seed(0)
    return SSMLayer(3, 8, mode="pb", order=3, backend="torch").double()


@torch.no_grad()
def test_the_linear_term_has_the_rate_and_the_liquid_term_that_of_training(layer: SSMLayer) -> None:
    u = torch.randn(2, 12, 3, dtype=torch.float64)
    through = layer.D * u

    def of(rate: float, mode: str) -> torch.Tensor:
        options = {"mode": mode, "order": 3, "backend": "torch"}
        y: torch.Tensor = ls.apply(layer.system(rate), u.mT.contiguous(), **options).mT
        return y

    parts = of(2.0, "s4"), of(1.0, "pb"), -of(1.0, "s4"), through
    # Three layers with a product and a sum each, two sums of theirs; the three sums here and the product with D.
    allowed = 12 * 2.0**-53 * (sum(map(abs, parts)) + 2 * abs(through))
    found = PublishedRate(layer)(u, rate=2.0)
    # Σ_p C B̄^p c_p, p ≥ 2, is what `pb` has more than `s4`.
    assert (abs(found - sum(parts)) <= allowed).all()
    assert (abs(found - layer(u, rate=2.0)) > allowed).any()
    # At the rate of training there is nothing to forget.
    assert (abs(PublishedRate(layer)(u) - layer(u)) <= allowed + 12 * 2.0**-53 * abs(of(1.0, "s4"))).all()


def test_states_are_refused(layer: SSMLayer) -> None:
    u = torch.zeros(1, 4, 3, dtype=torch.float64)
    for given in ({"state": 1}, {"dt": torch.ones(1, 4)}, {"return_state": True}):
        with pytest.raises(ParameterError, match="no states and no intervals"):
            PublishedRate(layer)(u, rate=2.0, **given)


def config(model: str) -> ModelConfig:
    return ModelConfig(model, n_inputs=2, n_outputs=3, n_layers=2, n_channels=4, n_state=4)


def test_every_layer_of_a_copy_is_replaced() -> None:
    model = build(config("pb"))
    found = with_published_rate(model)
    assert [type(block.layer) for block in found.blocks] == [PublishedRate] * 2
    assert [type(block.layer) for block in model.blocks] == [SSMLayer] * 2
    assert sum(p.numel() for p in found.parameters()) == sum(p.numel() for p in model.parameters())
    u, lengths = torch.randn(2, 9, 2), torch.tensor([9, 4])
    with torch.no_grad():
        assert not torch.equal(found(u, lengths=lengths, rate=2.0), model(u, lengths=lengths, rate=2.0))


@pytest.mark.parametrize(("model", "what"), [("kb", "mode kb"), ("liquid", "mode liquid"), ("lstm", "no state-space")])
def test_other_models_have_no_such_form(model: str, what: str) -> None:
    with pytest.raises(ParameterError, match=what):
        require_pb(build(config(model)))
