"""Groups of parameters for an optimiser."""

from __future__ import annotations

import pytest
import torch

import liquid_ssm as ls
from liquid_ssm.nn import SequenceModel, parameter_groups


def model(**options):
    return SequenceModel(2, 3, n_layers=2, n_channels=4, n_state=4, init="legs", backend="first", **options)


def test_every_parameter_is_in_one_group_and_state_space_ones_in_their_own():
    found = model()
    groups = {g["name"]: g for g in parameter_groups(found, lr=0.1, weight_decay=0.01, ssm_lr=1e-3)}
    assert {name: (g["lr"], g["weight_decay"]) for name, g in groups.items()} == {
        "ordinary": (0.1, 0.01),
        "Lambda": (1e-3, 0.0),
        "P": (1e-3, 0.0),
        "B": (1e-3, 0.0),
        "dt": (1e-3, 0.0),
    }
    names = {p: name for name, p in found.named_parameters()}
    endings = {name: {names[p].rsplit(".", 1)[1] for p in g["params"]} for name, g in groups.items()}
    assert endings["Lambda"] == {"log_decay", "frequency"}
    assert (endings["P"], endings["B"], endings["dt"]) == ({"P"}, {"B"}, {"log_dt"})
    assert {"C", "D", "weight", "bias"} == endings["ordinary"]
    listed = [p for g in groups.values() for p in g["params"]]
    assert len(listed) == len(set(listed)) == len(names)


def test_an_optimiser_moves_each_group_at_its_rate():
    found = model()
    before = {name: p.detach().clone() for name, p in found.named_parameters()}
    optimiser = torch.optim.SGD(parameter_groups(found, lr=0.0, ssm_lr={"dt": 0.1}))
    found(torch.randn(2, 9, 2)).square().sum().backward()
    optimiser.step()
    moved = {name for name, p in found.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {f"blocks.{i}.layer.continuous.log_dt" for i in range(2)}


def test_frozen_and_shared_parameters_are_counted_right():
    found = model(frozen=("P", "B"))
    found.blocks[1].layer.continuous.log_dt = found.blocks[0].layer.continuous.log_dt
    groups = {g["name"]: g["params"] for g in parameter_groups(found, lr=0.1)}
    assert "P" not in groups
    assert "B" not in groups
    assert len(groups["dt"]) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ssm_lr": {"C": 1.0}}, "names C"),
        ({"ssm_lr": -1.0}, "Lambda is -1.0"),
        ({"weight_decay": float("nan")}, "weight_decay is nan"),
        ({"lr": "a"}, "lr is 'a'; give a finite number from 0"),
        ({"lr": True}, "lr is True"),
        ({"lr": None}, "lr is None"),
        ({"lr": float("inf")}, "lr is inf"),
        ({"ssm_lr": {"dt": "1e-3"}}, "dt is '1e-3'"),
    ],
)
def test_bad_rates_are_named(options, message):
    with pytest.raises(ls.ParameterError, match=message):
        parameter_groups(model(), **{"lr": 0.1, **options})


def test_rates_may_be_tensors_as_in_torch():
    rate = torch.tensor(0.5)
    assert parameter_groups(model(), lr=rate)[0]["lr"] is rate
