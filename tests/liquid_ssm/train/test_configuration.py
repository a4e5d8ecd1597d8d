"""The typed configuration: order of precedence, files, and everything that is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from liquid_ssm.errors import ParameterError
from liquid_ssm.train.configuration import Configuration, configuration, from_texts, restored, with_place


def test_options_go_before_the_file_and_the_file_before_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('task = "digits"\nmodel = "pb"\nlr = 0.5\nepochs = 7\nseeds = [1, 2]\nlimit = {train = 9}\n')
    found = configuration(file, lr=0.25, model=None)
    assert (found.model, found.resolved.lr, found.resolved.epochs) == ("pb", 0.25, 7)
    assert (found.seeds, found.limit) == ((1, 2), {"train": 9})
    # Of the preset.
    assert found.resolved.batch_size == 16


def test_a_setting_of_its_own_goes_before_the_table_of_settings(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text('{"task": "digits", "lr": 0.25, "settings": {"lr": 0.5, "epochs": 7}}')
    found = configuration(file).resolved
    assert (found.lr, found.epochs) == (0.25, 7)


def test_a_run_can_be_made_again_from_what_it_keeps(tmp_path: Path) -> None:
    found = configuration(task="digits", model="s4d", lr=0.125, seeds=[4], clip=1, ema=0.5)
    kept = json.loads(json.dumps(found.as_dict()))
    assert restored(kept) == found
    file = tmp_path / "configuration.json"
    file.write_text(json.dumps(kept))
    assert configuration(file) == found
    assert with_place(found, data="elsewhere", threads=None).data == "elsewhere"


def test_texts_are_values_as_json_has_them() -> None:
    assert from_texts(["lr=1e-3", "model=pb", "prenorm=false", "clip=null", "options={\"max_gain\": 2.0}"]) == {
        "lr": 1e-3, "model": "pb", "prenorm": False, "clip": None, "options": {"max_gain": 2.0},
    }  # fmt: skip
    # As options are written.
    assert from_texts([" n-state = 8"]) == {"n_state": 8}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lr": True}, r"lr is True; give a number"),
        ({"budget": True}, r"budget is True; give a whole number"),
        ({"lr": -1}, r"lr is -1\.0; give a number from 0"),
        ({"lr": "fast"}, r"lr is 'fast'; give a number"),
        ({"n_state": 0}, r"n_state is 0; give a whole number from 1"),
        ({"n_state": 2.5}, r"n_state is 2\.5; give a whole number"),
        ({"prenorm": 1}, r"prenorm is 1; give true or false"),
        ({"lrr": 1}, r"unknown setting 'lrr'.*Did you mean 'lr'"),
        ({"preset": "papr"}, r"unknown preset of digits 'papr'"),
        ({"precision": "8"}, r"unknown precision '8'; allowed: 32-true"),
        ({"seeds": [1, 1]}, r"seeds are \[1, 1\]; give different whole numbers"),
        ({"seeds": []}, r"at least one"),
        ({"seeds": 3}, r"seeds is 3; give a list"),
        ({"clip": 0.0}, r"clip is 0\.0; give a positive norm"),
        ({"ema": 1.0}, r"ema is 1\.0; it is a decay between 0 and 1"),
        ({"budget": 0}, r"budget is 0; give a whole number from 1"),
        ({"devices": 3}, r"batch_size is 16 and devices 3"),
        ({"limit": {"train": "all"}}, r"limit\.train is 'all'; give a whole number"),
        ({"dt_min": 1.0, "dt_max": 0.5}, r"needed: 0 < dt_min <= dt_max"),
    ],
)
def test_what_is_not_allowed_is_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        configuration(task="digits", **given)


def test_a_task_is_needed() -> None:
    with pytest.raises(ParameterError, match="no task is given"):
        configuration()
    with pytest.raises(ParameterError, match="unknown task 'digit'"):
        Configuration("digit")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "lr: 1", r"the name of a \.toml or \.json file is needed"),
        ("a.toml", "lr = ", r"is no TOML"),
        ("a.json", "[1]", r"holds a list; a table of settings is needed"),
        ("a.json", '{"settings": 3}', r"settings is 3; give a table"),
    ],
)
def test_files_that_hold_no_configuration(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ParameterError, match=message):
        configuration(tmp_path / name, task="digits")
    with pytest.raises(ParameterError, match="cannot be read: No such file"):
        configuration(tmp_path / "none.toml")


@pytest.mark.parametrize(("text", "message"), [("lr", "is not of the form"), ("=1", "is not of the form")])
def test_texts_of_another_form(text: str, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        from_texts([text])
    with pytest.raises(ParameterError, match="--set gives lr twice"):
        from_texts(["lr=1", "lr=2"])
