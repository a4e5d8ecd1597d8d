"""A run: what it writes, exact resumption, several processes, failures."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import stdev
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from liquid_ssm.errors import CheckpointError, ParameterError
from liquid_ssm.nn import load_model
from liquid_ssm.tasks import get_task
from liquid_ssm.train.checkpoints import WholeFiles
from liquid_ssm.train.configuration import Configuration
from liquid_ssm.train.learner import Learner
from liquid_ssm.train.run import model_config, resume, start, summary, train

SMALL = {"n_channels": 8, "n_state": 4, "n_layers": 2, "epochs": 3, "batch_size": 8, "warmup_steps": 5, "dropout": 0.2}
LIMIT = {"train": 52, "validation": 30, "test": 31}


def configured(settings: dict[str, Any] | None = None, **given: Any) -> Configuration:
    # A named order of backends: what is selected by time may differ from run to run.
    shared: dict[str, Any] = {"backend": "first", "limit": LIMIT, "threads": 1}
    return Configuration("digits", settings={**SMALL, **(settings or {})}, **{**shared, **given})


def rows(folder: Path) -> list[dict[str, str]]:
    """Of `metrics.csv`, but for the time."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("runs") / "run"
    configuration = configured(seeds=(0, 3), save_every=4)
    start(folder, configuration)
    return folder, train(configuration, folder)


def test_a_run_writes_what_the_documentation_says(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, document = finished
    assert json.loads((folder / "results.json").read_text()) == json.loads(json.dumps(document))
    for seed in (0, 3):
        place = folder / f"seed-{seed}"
        found = {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}
        assert {
            "metrics.csv", "result.json", "checkpoints/last.ckpt", "checkpoints/best.ckpt", "model/model.json",
            "model/model.safetensors", "last-model/model.json", "last-model/model.safetensors",
        } <= found  # fmt: skip
        assert not [name for name in found if name.endswith(".new")]
        assert [row["epoch"] for row in rows(place)] == ["0", "1", "2"]
        # 52 samples in batches of 8: none is dropped.
        assert [row["step"] for row in rows(place)] == ["7", "14", "21"]
    assert document["data"]["counts"] == LIMIT
    assert document["data"]["generated"] is None


def test_metrics_are_those_of_the_saved_model_over_all_samples(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, document = finished
    data = get_task("digits")(None, limit=LIMIT)
    data.setup()
    for name, prefix in (("model", ""), ("last-model", "last_")):
        model = load_model(folder / "seed-3" / name).model
        for part in ("validation", "test"):
            samples = [getattr(data, part)[i] for i in range(LIMIT[part])]
            with torch.no_grad():
                found = model(torch.stack([sample.u for sample in samples])).argmax(1)
            right = sum(int(a) == sample.target for a, sample in zip(found, samples, strict=True))
            # A quotient of whole numbers, rounded once to float32.
            said = document["seeds"][1]["metrics"][f"{prefix}{part}_accuracy"]
            assert said == pytest.approx(right / LIMIT[part], rel=2**-23)


def test_best_is_the_best_epoch_of_the_validation_part(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, document = finished
    for result in document["seeds"]:
        values = [float(row["validation_accuracy"]) for row in rows(folder / f"seed-{result['seed']}")]
        assert result["best_epoch"] == values.index(max(values))
        assert result["metrics"]["validation_accuracy"] == max(values)
        assert result["metrics"]["last_validation_accuracy"] == values[-1]


def test_mean_and_deviation_are_over_seeds(finished: tuple[Path, dict[str, Any]]) -> None:
    values = [result["metrics"]["test_accuracy"] for result in finished[1]["seeds"]]
    found = finished[1]["summary"]["test_accuracy"]
    assert found["mean"] == pytest.approx(sum(values) / 2)
    assert found["deviation"] == pytest.approx(stdev(values))
    failed = {"failure": "Diverged: …", "metrics": {}}
    assert summary([failed]) == {"seeds": 1, "failed": 1}
    one = summary([failed, finished[1]["seeds"][0]])
    assert (one["failed"], one["test_accuracy"]) == (1, {"mean": values[0], "deviation": None})


# Within the first epoch after one checkpoint; within the second, after none of that epoch; before anything was kept.
@pytest.mark.parametrize(("before", "save_every"), [(6, 4), (12, None), (11, 4), (2, None)])
def test_a_killed_run_goes_on_bit_for_bit(
    before: int, save_every: int | None, finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    configuration = configured(save_every=save_every)
    folder = tmp_path / "run"
    script = Path(__file__).with_name("killed.py")
    killed = subprocess.run(
        [sys.executable, str(script), str(folder), str(before), json.dumps(configuration.as_dict())],
        capture_output=True,
        text=True,
    )
    assert killed.returncode == -9, killed.stderr
    assert not (folder / "seed-0" / "result.json").exists()
    # Other draws before the continuation must not show.
    torch.manual_seed(99)
    train(resume(folder), folder)
    whole = finished[0] / "seed-0"
    assert rows(folder / "seed-0") == rows(whole)
    for name in ("model", "last-model"):
        ours, theirs = (load_file(place / name / "model.safetensors") for place in (folder / "seed-0", whole))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs), name


class Stopped(BaseException):
    """As a kill, within this process."""


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ({"ema": 0.9, "save_every": 4}, "step 11"),
        ({"ema": 0.9}, "test"),
        ({"patience": 1, "settings": {"lr": 1e-30, "ssm_lr": 1e-30, "weight_decay": 0.0, "epochs": 5}}, "test"),
        ({"settings": {"norm": "batch"}}, "step 11"),
        ({"workers": 1}, "step 8"),
        ({}, "last.ckpt"),
    ],
    ids=["average-within-epoch", "average-at-the-end", "early-stop", "batch-norm", "worker", "between-checkpoints"],
)
def test_what_else_a_run_keeps_goes_on_bit_for_bit(
    given: dict[str, Any], place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configuration = configured(**given)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    start(whole, configuration)
    train(configuration, whole)
    start(cut, configuration)
    with monkeypatch.context() as patch:
        if place == "test":
            patch.setattr("liquid_ssm.train.run._tested", raising(lambda *_: True))
        elif place == "last.ckpt":
            second = iter((False, True))
            # The second epoch's, after its best model was written.
            patch.setattr(
                WholeFiles, "save_checkpoint",
                raising(lambda _, __, path, *___: path.name == place and next(second), WholeFiles.save_checkpoint),
            )  # fmt: skip
        else:
            step = int(place.split()[1])
            patch.setattr(
                Learner, "training_step", raising(lambda self, *_: self.global_step == step, Learner.training_step)
            )
        with pytest.raises(Stopped):
            train(configuration, cut)
    torch.manual_seed(99)
    train(resume(cut), cut)
    assert rows(cut / "seed-0") == rows(whole / "seed-0")
    for name in ("model", "last-model"):
        ours, theirs = (load_file(run / "seed-0" / name / "model.safetensors") for run in (cut, whole))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs), name


def raising(now: Callable[..., bool], otherwise: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """A function that stops the run where `now` holds of its arguments, and else is `otherwise`."""

    def replacement(*arguments: Any, **options: Any) -> Any:
        if now(*arguments):
            raise Stopped
        assert otherwise is not None
        return otherwise(*arguments, **options)

    return replacement


def test_a_finished_run_is_not_trained_again(
    finished: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Learner, "training_step", None)
    assert train(resume(finished[0]), finished[0])["seeds"] == finished[1]["seeds"]


def test_a_folder_that_holds_something_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ParameterError, match=r"is not empty.*--resume"):
        start(tmp_path, configured())
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_what_is_no_run_does_not_go_on(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no configuration\.json"):
        resume(tmp_path)
    (tmp_path / "configuration.json").write_text("{")
    with pytest.raises(CheckpointError, match="is damaged"):
        resume(tmp_path)


def test_a_seed_that_breaks_down_is_a_result(tmp_path: Path) -> None:
    configuration = configured({"lr": 1e30, "warmup_steps": 0}, seeds=(0,))
    start(tmp_path / "run", configuration)
    document = train(configuration, tmp_path / "run")
    assert document["summary"] == {"seeds": 1, "failed": 1}
    assert document["seeds"][0]["failure"].startswith("Diverged: ")
    assert json.loads((tmp_path / "run" / "seed-0" / "result.json").read_text())["failure"] is not None


def test_early_stopping_and_averaged_weights(tmp_path: Path) -> None:
    # With a rate of 1e-30 no weight changes in float32, so that no epoch is better than the first.
    configuration = configured({"lr": 1e-30, "ssm_lr": 1e-30, "weight_decay": 0.0, "epochs": 9}, patience=2, ema=0.5)
    start(tmp_path / "run", configuration)
    result = train(configuration, tmp_path / "run")["seeds"][0]
    assert (result["best_epoch"], result["epochs"]) == (0, 3)


def test_averaged_weights_are_what_is_kept(tmp_path: Path) -> None:
    configuration = configured({"epochs": 1}, ema=0.9)
    start(tmp_path / "run", configuration)
    train(configuration, tmp_path / "run")
    seed = tmp_path / "run" / "seed-0"
    kept, last = (load_file(seed / name / "model.safetensors") for name in ("model", "last-model"))
    plain = configured({"epochs": 1})
    start(tmp_path / "plain", plain)
    train(plain, tmp_path / "plain")
    raw = load_file(tmp_path / "plain" / "seed-0" / "model" / "model.safetensors")
    assert all(torch.equal(kept[name], last[name]) for name in kept)
    assert not torch.equal(kept["head.weight"], raw["head.weight"])


def test_a_budget_decides_the_width() -> None:
    data = get_task("digits")(None)
    data.setup()
    config = model_config(configured(budget=2000), data)
    assert config.n_channels != SMALL["n_channels"]
    assert config.options["backend"] == "first"


def test_two_processes_have_the_loss_curve_of_one(tmp_path: Path) -> None:
    """Gradients of shares are averaged by their sizes; 33 samples in batches of 8 leave one, for one process alone."""
    lines = []
    for devices in (1, 2):
        settings = {**SMALL, "dropout": 0.0, "limit": {**LIMIT, "train": 33}}
        options = [f"--set={name}={json.dumps(value)}" for name, value in settings.items()]
        program = Path(sys.executable).with_name("liquid-ssm")
        done = subprocess.run(
            [program, "train", "digits", *options, "--backend", "first", "--threads", "1", "--devices", str(devices),
             "--run", str(tmp_path / str(devices))],
            capture_output=True, text=True, env={**os.environ, "MASTER_ADDR": "127.0.0.1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        lines.append(rows(tmp_path / str(devices) / "seed-0"))
    for one, two in zip(*lines, strict=True):
        assert one["step"] == two["step"]
        # Sums of 8 numbers in another order, for 15 steps of Adam, which divides gradients by their own size: a
        # difference of 2⁻²³ relative to the largest gradient of a batch grows by the factor between gradients.
        assert float(two["training_loss"]) == pytest.approx(float(one["training_loss"]), rel=1e-4)
        assert float(two["validation_loss"]) == pytest.approx(float(one["validation_loss"]), rel=1e-4)
    results = [json.loads((tmp_path / name / "results.json").read_text()) for name in "12"]
    assert results[0]["data"]["counts"] == results[1]["data"]["counts"]
    assert results[0]["seeds"][0]["metrics"].keys() == results[1]["seeds"][0]["metrics"].keys()
