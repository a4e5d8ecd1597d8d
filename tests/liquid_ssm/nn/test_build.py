"""Models from descriptions: names, what is refused, sizes without building."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from liquid_ssm.errors import ParameterError
from liquid_ssm.nn import LTC, MODEL_NAMES, MODELS, ModelConfig, SSMLayer, build, n_parameters, width_for

SMALL = {"n_layers": 2, "n_channels": 8, "n_state": 8, "n_outputs": 5}


def first(model: str) -> dict[str, str]:
    """Options that spare a selection of the backend."""
    return {} if model in ("lstm", "transformer", "ltc") else {"backend": "first"}


def size(config: ModelConfig) -> int:
    return sum(p.numel() for p in build(config).parameters() if p.requires_grad)


def test_short_names_are_rows_of_the_table_and_every_row_has_its_own_name():
    assert set(MODELS) <= set(MODEL_NAMES)
    kinds = {name: ModelConfig(model=name).kind for name in MODEL_NAMES}
    assert (kinds["liquid"], kinds["truncated"], kinds["pb"], kinds["kb"]) == (
        "liquid_s4", "liquid_s4_truncated", "liquid_s4_pb", "liquid_s4_kb",
    )  # fmt: skip
    assert (kinds["s4"], kinds["s4d"], kinds["s5"], kinds["liquid-s5"]) == ("s4_legs", "s4d_lin", "s5", "liquid_s5")
    assert ModelConfig(model="lstm").title == "LSTM"
    assert ModelConfig(model="pb").title == MODELS["liquid_s4_pb"].title


@pytest.mark.parametrize("model", MODEL_NAMES)
@pytest.mark.parametrize("pair", [False, True])
def test_every_model_runs_with_lengths_and_rate(model, pair):
    found = build(ModelConfig(model=model, tokens=pair, pair=pair, n_inputs=7, options=first(model), **SMALL)).eval()
    u = torch.randint(7, (3, 2, 9)) if pair else torch.randn(3, 9, 7)
    lengths = torch.tensor([[9, 2], [4, 4], [1, 8]] if pair else [9, 2, 4])
    y = found(u, lengths=lengths, rate=2.0)
    assert y.shape == (3, 5)
    assert torch.isfinite(y).all()


@pytest.mark.parametrize("model", ["pb", "kb", "truncated", "liquid", "s4"])
def test_layers_are_what_the_configuration_says(model):
    config = ModelConfig(model=model, order=4, dt_min=0.02, dt_max=0.03, options={"backend": "first"}, **SMALL)
    layers = [module for module in build(config).modules() if isinstance(module, SSMLayer)]
    assert len(layers) == 2
    for layer in layers:
        assert layer.structure == "dplr"
        assert (layer.n_channels, layer.n_state, layer.backend) == (8, 8, "first")
        # exp(log 0.02) may be off by the roundings of float32.
        assert 0.0199 < layer.continuous.dt().min() <= layer.continuous.dt().max() < 0.0301
        if layer.spec.has_order:
            assert layer.spec.order == 4
    both = build(ModelConfig(model="s4", bidirectional=True, options={"reverse_lag": 1}, **SMALL))
    assert [block.layer.reverse_lag for block in both.blocks] == [1, 1]


def test_an_ltc_has_as_many_states_as_channels():
    found = build(ModelConfig(model="ltc", options={"unfolds": 2}, **SMALL))
    assert all(isinstance(block.layer, LTC) and block.layer.n_state == 8 for block in found.blocks)


@pytest.mark.parametrize("model", MODEL_NAMES)
@pytest.mark.parametrize("more", [{}, {"pair": True, "tokens": True, "n_inputs": 11}, {"glu": False, "prenorm": False}])
def test_sizes_are_counted_without_building(model, more):
    # 34 modes are beyond what is built to count them, and three layers, too.
    config = ModelConfig(model=model, **{**SMALL, "n_layers": 3, "n_channels": 12, "n_state": 68}, **more)
    assert n_parameters(config) == size(config)


@pytest.mark.parametrize("n_state", [7, 19])
def test_an_odd_state_size_counts_its_pairs(n_state):
    config = ModelConfig(model="liquid", **{**SMALL, "n_state": n_state})
    assert n_parameters(config) == size(config) == n_parameters(replace(config, n_state=n_state - 1))


def test_blocks_and_frozen_parts_are_counted():
    for options in ({"n_blocks": 3}, {"frozen": ["B", "dt"]}):
        config = ModelConfig(model="s5", **{**SMALL, "n_state": 60}, options=options)
        assert n_parameters(config) == size(config)


@pytest.mark.parametrize("model", ["liquid", "s5", "lstm", "transformer", "ltc"])
@pytest.mark.parametrize("budget", [1, 900, 10_000])
def test_no_other_width_is_nearer_to_the_budget(model, budget):
    config = ModelConfig(model=model, **SMALL)
    unit = 4 if model == "transformer" else 1
    width = width_for(config, budget)
    assert width % unit == 0
    missed = abs(size(replace(config, n_channels=width)) - budget)
    for other in (width - unit, width + unit):
        if other:
            assert abs(size(replace(config, n_channels=other)) - budget) >= missed


def test_counting_draws_no_random_numbers():
    torch.manual_seed(3)
    expected = torch.rand(())
    torch.manual_seed(3)
    width_for(ModelConfig(model="liquid", **SMALL), 5000)
    assert torch.rand(()) == expected


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": "liqid"}, "Did you mean 'liquid'"),
        ({"n_layers": 0}, "n_layers is 0"),
        ({"n_channels": 8.0}, "n_channels is 8.0"),
        ({"n_state": True}, "n_state is True"),
        ({"order": "3"}, "order is '3'"),
        ({"norm": "group"}, "unknown norm"),
        ({"pooling": "max"}, "unknown pooling"),
        ({"activation": "swish"}, "unknown activation"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"dropout": float("nan")}, "dropout is nan"),
        ({"dt_min": 0.2, "dt_max": 0.1}, "0 < dt_min <= dt_max"),
        ({"dt_max": float("inf")}, "0 < dt_min <= dt_max"),
        ({"bidirectional": 1}, "bidirectional is 1"),
        ({"model": "lstm", "bidirectional": True}, "is causal"),
        ({"pair": True, "pooling": "none"}, "pairs"),
        ({"options": {"order": 2}}, "a field of the configuration"),
        ({"options": {"bakend": "first"}}, "Did you mean 'backend'"),
        ({"options": {"mode": "pb"}}, "unknown option"),
        ({"model": "lstm", "options": {"backend": "first"}}, "unknown option of lstm"),
        ({"options": [1]}, "give a mapping"),
    ],
)
def test_bad_descriptions_are_refused(change, said):
    with pytest.raises(ParameterError, match=said.replace("(", r"\(")):
        ModelConfig(**{**SMALL, **change})


@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        ("transformer", {"heads": 0}, "heads is 0"),
        ("s5", {"n_blocks": 0}, "n_blocks is 0"),
        ("s5", {"n_blocks": "x"}, "n_blocks is 'x'"),
    ],
)
def test_bad_options_are_named_before_anything_is_counted(model, options, said):
    config = ModelConfig(model=model, **{**SMALL, "options": options})
    for count in (n_parameters, lambda config: width_for(config, 5000)):
        with pytest.raises(ParameterError, match=said):
            count(config)


def test_a_width_that_heads_do_not_divide_is_refused():
    config = ModelConfig(model="transformer", **{**SMALL, "n_channels": 10})
    for call in (build, n_parameters):
        with pytest.raises(ParameterError, match="multiple of 4"):
            call(config)
    assert width_for(replace(config, options={"heads": 3}), 5000) % 6 == 0
    with pytest.raises(ParameterError, match="budget is 0"):
        width_for(config, 0)
