"""Estimates of time: what is scaled by what, and what is kept."""

from __future__ import annotations

import json

import pytest
import torch

from liquid_ssm.tasks import TASKS, get_task
from liquid_ssm.train import estimate as module
from liquid_ssm.train.presets import get_preset


@pytest.fixture
def timed(monkeypatch, tmp_path):
    """A machine on which a step takes 1 ms and 10 µs per step of a sequence, and what was timed on it."""
    monkeypatch.setattr(module, "cache_folder", lambda: tmp_path)
    calls = []

    def step(model, optimiser, config, rows, length):
        calls.append((config, rows, length))
        return 1e-3 + 1e-5 * rows * length

    monkeypatch.setattr(module, "_step_time", step)
    return calls


def test_work_is_depth_times_batch_times_length(timed):
    task, preset = get_task("digits").task, get_preset("digits")
    found = module.estimate(task, preset, "s4d")
    config, rows, length = timed[-1]
    assert (config.n_layers, config.n_channels, config.n_state) == (1, preset.n_channels, preset.n_state)
    assert config.options["backend"] == "first"
    # The whole batch of short sequences is still little work.
    assert (rows, length) == (16, 64)
    # Two layers of 1 ms + 16 · 64 · 10 µs.
    assert found.seconds_per_step == pytest.approx(2 * (1e-3 + 1e-5 * 16 * 64), rel=1e-12)
    # ⌈1077/16⌉ steps in each of 20 epochs.
    assert found.steps == 20 * 68
    assert found.seconds == pytest.approx(found.seconds_per_step * found.steps, rel=1e-12)
    assert "16 sequences of 64 steps" in found.trial


def test_a_trial_stops_where_it_is_long_enough(timed):
    task = get_task("digits").task.__class__(
        name="sc35", title="", kind="classification", length=16000, n_inputs=1, n_outputs=35
    )
    preset = get_preset("sc35").override(n_layers=3)
    found = module.estimate(task, preset, "s4d")
    _, rows, length = timed[-1]
    assert 0.1 < 1e-3 + 1e-5 * rows * length < 0.5
    # All 10 rows, which at 1024 steps do not take nearly twice as long as 8.
    assert (rows, length) == (10, 2048)
    # Scaled from there; the millisecond of each call is scaled with it, at most 1 % here.
    assert found.seconds_per_step == pytest.approx(3 * 1e-5 * 10 * 16000, rel=0.01)


def test_pairs_are_two_sequences(timed):
    task = get_task("digits").task.__class__(
        name="aan", title="", kind="classification", length=64, n_inputs=None, n_outputs=2, pair=True
    )
    found = module.estimate(task, get_preset("aan").override(batch_size=2, n_layers=1), "s4d")
    assert found.seconds_per_step == pytest.approx(1e-3 + 1e-5 * 4 * 64, rel=1e-12)
    config = timed[-1][0]
    assert (config.tokens, config.n_inputs, config.pair) == (True, 98, False)


def test_estimates_are_kept_and_damaged_ones_made_again(timed, tmp_path):
    task, preset = get_task("digits").task, get_preset("digits")
    found = module.estimate(task, preset, "s4d")
    count = len(timed)
    assert module.estimate(task, preset, "s4d") == found
    assert len(timed) == count
    (kept,) = (tmp_path / "estimates").iterdir()
    for content in ("{", json.dumps({"trial": [-1.0, 16, 64]}), json.dumps({"trial": [1.0, 0, 64]}), "[]"):
        kept.write_text(content)
        count = len(timed)
        assert module.estimate(task, preset, "s4d") == found
        assert len(timed) > count
    # Another width is another trial.
    count = len(timed)
    module.estimate(task, preset.override(n_channels=8), "s4d")
    assert len(timed) > count


def test_a_cache_that_cannot_be_written_is_no_error(timed, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(module, "cache_folder", lambda: tmp_path / "file")
    assert module.estimate(get_task("digits").task, get_preset("digits"), "s4d").steps == 1360


def test_a_real_trial_leaves_the_random_numbers_and_the_threads(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "cache_folder", lambda: tmp_path)
    torch.manual_seed(3)
    expected = torch.rand(())
    torch.manual_seed(3)
    threads = torch.get_num_threads()
    preset = get_preset("digits").override(n_channels=4, n_state=4, batch_size=2)
    for model in ("s4d", "lstm", "transformer"):
        assert module.estimate(get_task("digits").task, preset, model).seconds_per_step > 0
    assert torch.rand(()) == expected
    assert torch.get_num_threads() == threads


def test_every_task_has_a_number_of_samples():
    assert set(module.TRAINING_SAMPLES) == set(TASKS)
