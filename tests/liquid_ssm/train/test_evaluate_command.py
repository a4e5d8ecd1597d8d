"""The command `evaluate`: what it prints and writes, and with which code it leaves."""

from __future__ import annotations

import json

import pytest

from liquid_ssm.train import evaluate_command
from liquid_ssm.train.evaluate import evaluate as evaluated
from liquid_ssm.train.evaluate import open_data
from liquid_ssm.train.trained import open_checkpoints


@pytest.fixture
def run(run_command):
    return run_command(evaluate_command.evaluate)


def test_a_run_is_its_seeds_and_their_mean(run, run_folder, tmp_path):
    code, out, err = run(run_folder, "--limit", 40, "--zero-shot", "--json", tmp_path / "found.json")
    assert code == 0, err
    found = json.loads((tmp_path / "found.json").read_text())
    values = {(one["name"], one["every"]): one["value"] for one in found["evaluations"]}
    assert set(values) == {("seed-2", 1), ("seed-2", 2), ("seed-10", 1), ("seed-10", 2)}
    for one in open_checkpoints(run_folder):
        data = open_data(one, None, batch_size=64, limit={"test": 40})
        for every in (1, 2):
            assert values[one.name, every] == evaluated(one, data, every=every).value
    first, second = (values[name, 1] for name in ("seed-2", "seed-10"))
    row = found["summary"][0]
    assert row["mean"] == pytest.approx((first + second) / 2, rel=1e-15)
    # Of two numbers: their distance over √2.
    assert row["deviation"] == pytest.approx(abs(first - second) / 2**0.5, rel=1e-12, abs=1e-15)
    assert "digits, test: 40 samples, all of them counted" in out
    assert f"seed-2: accuracy {100 * first:.2f} %" in out
    assert f"mean of 2: accuracy {50 * (first + second):.2f} %" in out
    assert "seed-10, every 2. step: accuracy" in out
    # Two models together: every sample twice.
    assert sum(int(line.split()[-1]) for line in out.splitlines() if line[:1].isdigit()) == 80


def test_every_and_zero_shot_are_the_same_at_two(run, run_folder):
    seed = run_folder / "seed-2"
    assert run(seed, "--limit", 20, "-q", "--every", 2)[1] == run(seed, "--limit", 20, "-q", "--zero-shot")[1]
    assert "every 4. step" in run(seed, "--limit", 20, "-q", "--zero-shot", "--every", 4)[1]


def test_the_published_form_of_another_rate_comes_besides(run, make_seed, tmp_path):
    make_seed(tmp_path, 1, model="pb")
    code, out, err = run(tmp_path / "seed-1", "--limit", 20, "--zero-shot", "--as-published", "zero-shot")
    assert code == 0, err
    lines = [line.partition(": ")[0] for line in out.splitlines() if "accuracy" in line]
    assert lines == ["seed-1", "seed-1, every 2. step", "seed-1, every 2. step, as published"]


def test_the_published_form_needs_a_rate_and_a_model_that_has_it(run, run_folder):
    seed = run_folder / "seed-2"
    assert "mode s4" in run(seed, "--zero-shot", "--as-published", "zero-shot")[2]
    assert "give --zero-shot or --every" in run(seed, "--as-published", "zero-shot")[2]
    assert "unknown deviation of an evaluation" in run(seed, "--zero-shot", "--as-published", "all")[2]


def test_json_alone_goes_to_standard_output(run, run_folder):
    code, out, _ = run(run_folder / "seed-2", "--limit", 20, "--json", "-")
    assert code == 0
    assert json.loads(out)["evaluations"][0]["n_samples"] == 20


def test_the_recurrent_mode_is_compared_and_a_difference_is_a_failure(run, run_folder, monkeypatch):
    seed = run_folder / "seed-2"
    code, out, _ = run(seed, "--limit", 20, "--recurrent")
    assert code == 0
    assert "by step: accuracy" in out
    assert "in float64 by" in out
    kind = type(open_checkpoints(seed)[0].model)
    right = kind.step
    # The state is forgotten.
    monkeypatch.setattr(kind, "step", lambda self, u_k, state=None, rate=1.0: right(self, u_k, None, rate))
    code, _, err = run(seed, "--limit", 20, "--recurrent")
    assert code == 1
    assert "not the same function" in err


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_the_confusion_is_drawn(run, run_folder, tmp_path, ending):
    path = tmp_path / f"confusion.{ending}"
    assert run(run_folder, "--limit", 40, "-q", "--plot", path)[0] == 0
    assert path.stat().st_size > 1000


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--part", "valid"), "unknown part 'valid'"),
        (("--plot", "confusion.bmp"), "another ending"),
        (("--json", "nowhere/found.json"), "no directory 'nowhere'"),
        (("--device", "tpu"), "unknown device 'tpu'"),
        (("--data", "nowhere-at-all"), "does not exist"),
        (("--every", "1"), "greater than or equal to 2"),
    ],
)
def test_bad_options_are_refused_before_anything_is_computed(run, run_folder, monkeypatch, options, said):
    from liquid_ssm.train import evaluate as module

    monkeypatch.setattr(module, "evaluate", lambda *_, **__: pytest.fail("it was computed"))
    code, _, err = run(run_folder / "seed-2", *options)
    assert code == 2
    assert said in err


def test_models_without_steps_are_refused(run, make_seed, tmp_path):
    seed = make_seed(tmp_path, 0, model="transformer", options={})
    assert run(seed, "--limit", 5, "-q")[0] == 0
    code, _, err = run(seed, "--recurrent")
    assert code == 2
    assert "no recurrent mode" in err
    assert run(tmp_path / "nothing")[0] == 2
