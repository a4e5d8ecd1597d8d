"""Presets: the paper's table, where sources disagree, and what is refused."""

from __future__ import annotations

import pytest

from liquid_ssm.errors import ParameterError
from liquid_ssm.nn import n_parameters
from liquid_ssm.tasks import TASKS
from liquid_ssm.train.presets import PRESETS, get_preset, preset_names

# The paper's table: depth, H, N, norm, prenorm, dropout, lr, batch, epochs, weight decay, dt_min, dt_max, p.
TABLE = """
listops    9 128   7 batch yes .01 .002  12  30 .03 .002  .2 5
imdb       4 128   7 batch yes .1  .003   8  50 .01 .002  .2 6
aan        6 256  64 batch no  .2  .005  16  20 .05 .001  .1 2
cifar      6 512 512 layer no  .1  .01   16 200 .03 .002  .2 3
pathfinder 6 256  64 batch yes 0   .0004  4 200 .03 .001  .1 2
pathx      6 320  64 batch yes 0   .001   8  60 .05 .0001 .1 2
sc35       6 128   7 batch yes 0   .008  10  50 .05 .002  .2 2
sc10       6 128   7 batch yes 0   .008  10  50 .05 .002  .2 2
bidmc-hr   6 128 256 layer yes 0   .005  32 500 .01 .001  .1 3
bidmc-rr   6 128 256 layer yes 0   .01   32 500 .01 .001  .1 2
bidmc-spo2 6 128 256 layer yes 0   .01   32 500 .01 .001  .1 4
scifar     6 512 512 layer no  .1  .01   50 200 .03 .001  .1 3
"""
FIELDS = (
    "n_layers", "n_channels", "n_state", "norm", "prenorm", "dropout", "lr", "batch_size", "epochs", "weight_decay",
    "dt_min", "dt_max", "order",
)  # fmt: skip
ROWS = [line.split() for line in TABLE.strip().splitlines()]
# Where the published configuration is another one.
PUBLISHED = {
    "listops": {"epochs": 40},
    "aan": {"prenorm": True},
    "cifar": {"batch_size": 50, "bidirectional": True},
    "pathfinder": {"lr": 0.004},
    "scifar": {"n_state": 64, "weight_decay": 0.05, "bidirectional": True},
    **{f"bidmc-{name}": {"bidirectional": True} for name in ("hr", "rr", "spo2")},
}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_papers_table(row):
    preset = get_preset(row[0], "paper")
    for name, cell in zip(FIELDS, row[1:], strict=True):
        wanted = cell if name == "norm" else cell == "yes" if name == "prenorm" else float(cell)
        assert getattr(preset, name) == wanted, name
    assert not preset.bidirectional
    assert preset.model == "pb"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_published_configuration_and_a_note_of_each_difference(row):
    paper, published = get_preset(row[0], "paper"), get_preset(row[0], "published")
    differs = {"order": 2, **PUBLISHED.get(row[0], {})}
    for name in (*FIELDS, "ssm_lr", "bidirectional", "warmup_steps", "schedule", "halve_every"):
        assert getattr(published, name) == differs.get(name, getattr(paper, name)), name
    assert published.notes == paper.notes
    for name, value in differs.items():
        said = [note for note in paper.notes if note.startswith(f"{name}:")]
        assert said, name
        if name not in ("bidirectional",):
            assert str(value) in said[0]
            assert str(getattr(paper, name)) in said[0]
    # A bidirectional layer of the published code begins its second direction at the next input.
    assert published.options == ({"reverse_lag": 1} if published.bidirectional else {})


def test_rates_and_schedules_that_the_table_does_not_have():
    assert {task: get_preset(task).warmup_steps for task in ("aan", "pathfinder", "pathx", "listops", "sc35")} == {
        "aan": 2500, "pathfinder": 2500, "pathx": 10000, "listops": 1000, "sc35": 1000,
    }  # fmt: skip
    rates = {"listops": 9e-4, "imdb": 9e-4, "pathx": 5e-4}
    for row in ROWS:
        preset = get_preset(row[0])
        assert preset.ssm_lr == rates.get(row[0], 1e-3)
        assert preset.schedule == ("halve" if row[0].startswith("bidmc") else "cosine")
        assert preset.halve_every == 100


def test_notes_say_where_the_text_disagrees_with_the_table():
    notes = " ".join(get_preset("aan").notes)
    assert "0.2 everywhere" in notes
    assert "3 as a norm" in notes
    # 0.001 · 4000
    assert "4/L" in notes
    assert "0.2 everywhere" not in " ".join(get_preset("listops").notes)


def test_every_task_has_presets_and_a_default():
    assert set(PRESETS) == set(TASKS)
    for task in TASKS:
        assert "small" in preset_names(task)
        default = get_preset(task)
        assert default.name == ("small" if task == "digits" else "paper")
        for name in preset_names(task):
            assert (get_preset(task, name).task, get_preset(task, name).name) == (task, name)


def test_the_sc35_model_has_the_papers_224k_parameters():
    for name in ("paper", "published"):
        config = get_preset("sc35", name).model_config(n_inputs=1, n_outputs=35)
        assert 224_400 <= n_parameters(config) <= 224_700


def test_only_state_space_layers_are_bidirectional():
    preset = get_preset("cifar", "published")
    found = preset.model_config("pb", n_inputs=1, n_outputs=10)
    assert (found.bidirectional, found.options, found.order, found.n_state) == (True, {"reverse_lag": 1}, 2, 512)
    for model in ("lstm", "transformer", "ltc"):
        config = preset.model_config(model, n_inputs=1, n_outputs=10)
        assert (config.bidirectional, config.options, config.n_channels) == (False, {}, 512)
    one = preset.override(bidirectional=False, n_channels=8)
    assert one.model_config("s4", n_inputs=1, n_outputs=10).options == {}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": 2.5}, "batch_size is 2.5"),
        ({"lr": 0}, "lr is 0"),
        ({"lr": "fast"}, "lr is 'fast'"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1"),
        ({"ssm_lr": float("inf")}, "ssm_lr is inf"),
        ({"dropout": 1}, "dropout is 1"),
        ({"dt_min": 0.5}, "0 < dt_min <= dt_max"),
        ({"dt_min": 0.0}, "0 < dt_min <= dt_max"),
        ({"norm": "group"}, "unknown norm"),
        ({"schedule": "step"}, "unknown schedule"),
        ({"head_start": "zero"}, "unknown head_start"),
        ({"prenorm": "yes"}, "prenorm is 'yes'"),
        ({"warmup_steps": -1}, "warmup_steps is -1"),
        ({"order": 0}, "order is 0"),
        ({"n_chanels": 3}, "Did you mean 'n_channels'"),
        ({"task": "imdb"}, "unknown setting"),
    ],
)
def test_overrides_that_are_invalid_are_refused(change, said):
    with pytest.raises(ParameterError, match=said):
        get_preset("listops").override(**change)


def test_only_the_small_presets_of_regressions_start_from_the_targets():
    found = {(task, name) for task, row in PRESETS.items() for name in row if row[name].head_start == "targets"}
    assert found == {(f"bidmc-{target}", "small") for target in ("hr", "rr", "spo2")}


def test_unknown_names_are_refused():
    with pytest.raises(ParameterError, match="unknown task 'listop'"):
        get_preset("listop")
    with pytest.raises(ParameterError, match="unknown preset of digits"):
        get_preset("digits", "paper")
    with pytest.raises(ParameterError, match="unknown model"):
        get_preset("digits").model_config("liqid", n_inputs=1, n_outputs=2)
