"""A run: what it writes, exact resumption, several processes, failures."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import stdev
from time import sleep
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from liquid_ssm.errors import CheckpointError, ParameterError
from liquid_ssm.nn import ModelConfig, build, load_model
from liquid_ssm.tasks import get_task
from liquid_ssm.train.checkpoints import WholeFiles
from liquid_ssm.train.configuration import Configuration, with_place
from liquid_ssm.train.learner import Learner
from liquid_ssm.train.run import comparison, model_config, resume, start, summary, train
from liquid_ssm.train.schedule import Schedule
from liquid_ssm.train.steps import StepFile

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


def steps(folder: Path) -> str:
    return (folder / "steps.csv").read_text()


def logged(folder: Path, name: str) -> list[tuple[int, float]]:
    """Steps and values of a curve as TensorBoard shows it."""
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


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
            "metrics.csv", "steps.csv", "result.json", "checkpoints/last.ckpt", "checkpoints/best.ckpt",
            "model/model.json", "model/model.safetensors", "last-model/model.json", "last-model/model.safetensors",
        } <= found  # fmt: skip
        assert not [name for name in found if name.endswith(".new")]
        assert [row["epoch"] for row in rows(place)] == ["0", "1", "2"]
        # 52 samples in batches of 8: none is dropped.
        assert [row["step"] for row in rows(place)] == ["7", "14", "21"]
    assert document["notes"] == []
    assert document["data"]["counts"] == LIMIT
    assert document["data"]["generated"] is None


def test_every_step_has_its_loss_and_the_rate_it_was_done_with(finished: tuple[Path, dict[str, Any]]) -> None:
    place = finished[0] / "seed-0"
    with (place / "steps.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [row["step"] for row in found] == [str(step) for step in range(1, 22)]
    assert [row["epoch"] for row in found] == [str(step // 7) for step in range(21)]
    preset = configured().resolved
    schedule = Schedule(preset, 7, 3)
    # The first step is done with a fifth of the largest rate, not with the second's.
    assert [float(row["lr"]) for row in found] == [preset.lr * schedule(step) for step in range(21)]
    sizes = [8] * 6 + [4]
    for epoch, row in enumerate(rows(place)):
        losses = [float(each["loss"]) for each in found[7 * epoch : 7 * epoch + 7]]
        mean = sum(size * loss for size, loss in zip(sizes, losses, strict=True)) / 52
        # A float32 sum of 7 positive numbers: a product, 7 additions and a quotient.
        assert float(row["training_loss"]) == pytest.approx(mean, rel=9 * 2**-24)
    for name, column in (("step/loss", "loss"), ("step/lr", "lr")):
        # TensorBoard keeps float32.
        values = [(int(row["step"]), float(torch.tensor(float(row[column])))) for row in found]
        assert logged(place, name) == values


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


def test_validation_is_new_in_every_epoch(finished: tuple[Path, dict[str, Any]]) -> None:
    # Accuracies of 30 samples may be equal by chance.
    assert len({row["validation_loss"] for row in rows(finished[0] / "seed-3")}) == 3


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
    # TensorBoard reads its files in the order of the seconds in which they were begun.
    sleep(1)
    # Other draws before the continuation must not show.
    torch.manual_seed(99)
    train(resume(folder), folder)
    whole = finished[0] / "seed-0"
    assert rows(folder / "seed-0") == rows(whole)
    assert steps(folder / "seed-0") == steps(whole)
    for name in ("step/loss", "validation_loss"):
        assert logged(folder / "seed-0", name) == logged(whole, name)
    for name in ("model", "last-model"):
        ours, theirs = (load_file(place / name / "model.safetensors") for place in (folder / "seed-0", whole))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs), name


def test_a_warmup_longer_than_the_run_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    for warmup in (7, 8):
        configuration = configured({"epochs": 1, "warmup_steps": warmup})
        folder = tmp_path / str(warmup)
        start(folder, configuration)
        document = train(configuration, folder, told=said.append)
        # After 7 steps the largest rate is reached, with a warmup of 7.
        assert document["notes"] == said[:-1]
        assert len(said) == warmup - 6
        assert json.loads((folder / "results.json").read_text())["notes"] == document["notes"]
        if warmup == 7:
            said.clear()
    assert "warmup_steps is 8, but the run has 7 steps (1 epochs of 7): the learning rates rise to 0.88" in said[0]


def test_a_run_that_goes_on_with_other_packages_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configuration = configured({"epochs": 2})
    start(tmp_path, configuration)
    with monkeypatch.context() as patch:
        patch.setattr("liquid_ssm.train.checkpoints.package_version", lambda name: "0.0.1")
        patch.setattr("liquid_ssm.train.run._tested", raising(lambda *_: True))
        with pytest.raises(Stopped):
            train(configuration, tmp_path)
    with pytest.raises(CheckpointError, match=r"was written by liquid-ssm 0\.0\.1, .*--other-version"):
        train(configuration, tmp_path)
    assert not (tmp_path / "seed-0" / "result.json").exists()
    said: list[str] = []
    document = train(configuration, tmp_path, other_version=True, told=said.append)
    changed = [f"seed 0: after 14 steps {name} changed from 0.0.1" for name in ("liquid-ssm", "torch", "lightning")]
    assert [note.partition(" to ")[0] for note in document["notes"]] == changed
    assert said[:-1] == document["notes"]
    # Also where nothing of that seed is run any more.
    assert train(configuration, tmp_path)["notes"] == document["notes"]


def test_changes_of_packages_are_kept_in_later_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configuration = configured({"epochs": 3})
    start(tmp_path, configuration)
    for torch_version, step in (("1.0", 8), ("2.0", 15)):
        with monkeypatch.context() as patch:
            known = {"torch": torch_version}
            patch.setattr(
                "liquid_ssm.train.checkpoints.package_version", lambda name, known=known: known.get(name, "0.0.1")
            )
            patch.setattr(
                Learner,
                "training_step",
                raising(lambda self, *_, step=step: self.global_step == step, Learner.training_step),
            )
            with pytest.raises(Stopped):
                train(configuration, tmp_path)
    notes = train(configuration, tmp_path, other_version=True)["notes"]
    assert notes[0].startswith("seed 0: after 7 steps torch changed from 1.0 to 2.0;")
    assert [note.split()[2:6] for note in notes[1:]] == [
        ["after", "14", "steps", name] for name in ("liquid-ssm", "torch", "lightning")
    ]


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
    sleep(1)
    torch.manual_seed(99)
    train(resume(cut), cut)
    assert rows(cut / "seed-0") == rows(whole / "seed-0")
    assert steps(cut / "seed-0") == steps(whole / "seed-0")
    assert logged(cut / "seed-0", "step/loss") == logged(whole / "seed-0", "step/loss")
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


def test_what_was_logged_is_on_disk_before_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def recorded(kind: Any, name: str) -> None:
        before = getattr(kind, name)
        monkeypatch.setattr(kind, name, lambda *given, **more: (calls.append(kind.__name__), before(*given, **more))[1])

    recorded(StepFile, "sync")
    recorded(TensorBoardLogger, "save")
    recorded(WholeFiles, "save_checkpoint")
    train(configured({"epochs": 1}), tmp_path / "run", new=True)
    wanted = ["StepFile", "TensorBoardLogger", "WholeFiles"]
    ends = [i + 1 for i, call in enumerate(calls) if call == "WholeFiles"]
    # Those of the best and of the last epoch.
    assert len(ends) == 2
    assert all(calls[end - 3 : end] == wanted for end in ends)


def test_a_run_may_go_on_in_another_place_with_more_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configuration = configured({"epochs": 2})
    with monkeypatch.context() as patch:
        patch.setattr(Learner, "training_step", raising(lambda self, *_: self.global_step == 8, Learner.training_step))
        with pytest.raises(Stopped):
            train(configuration, tmp_path / "run", new=True)
    (tmp_path / "run").rename(tmp_path / "moved")
    elsewhere = with_place(resume(tmp_path / "moved"), seeds=(0, 3), workers=1, threads=2)
    assert [result["failure"] for result in train(elsewhere, tmp_path / "moved")["seeds"]] == [None, None]


def test_a_finished_run_is_not_trained_again(
    finished: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Learner, "training_step", None)
    assert train(resume(finished[0]), finished[0])["seeds"] == finished[1]["seeds"]


def test_classes_have_no_targets_to_start_from(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="head_start is 'targets', but digits has classes"):
        train(configured({"head_start": "targets"}), tmp_path / "run", new=True)
    assert not (tmp_path / "run").exists()


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
    assert document["seeds"][0]["failure"].startswith("UnstableRecurrence: ")
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


def test_the_papers_figure_is_that_of_the_model() -> None:
    task = get_task("sc35").task
    found = {
        model: comparison(task, ModelConfig(model)) for model in ("pb", "liquid_s4_pb", "s4", "s4d", "liquid", "lstm")
    }
    # Under both of its names; not the figure at 8 kHz.
    assert found["pb"] == found["liquid_s4_pb"] == {"name": "pb", "figure": 96.78, "unit": "%"}
    assert found["s4"] == {"name": "s4", "figure": 96.08, "unit": "%"}
    # S4D-Lin is not the paper's S4D-LegS, and the exact model none of its approximations.
    assert found["s4d"] is found["liquid"] is found["lstm"] is None
    rate = get_task("bidmc-hr").task
    assert comparison(rate, ModelConfig("pb")) == {
        "name": "pb", "figure": rate.paper["pb"], "unit": "unit of the target",
    }  # fmt: skip


def test_generated_data_are_compared_with_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = get_task("digits")
    monkeypatch.setattr(data, "task", replace(data.task, paper={"s4d": 90.0}))
    found = {}
    for generated in (None, SimpleNamespace(generator="digits")):
        monkeypatch.setattr(data, "generated", generated)
        configuration = configured({"epochs": 1}, model="s4d")
        found[generated is None] = train(configuration, tmp_path / str(generated is None), new=True)["paper"]
    assert found[True]["comparison"] == {"name": "s4d", "figure": 90.0, "unit": "%"}
    assert found[False] == {**found[True], "comparison": None}


def test_a_budget_decides_the_width() -> None:
    data = get_task("digits")(None)
    data.setup()
    config = model_config(configured(budget=2000), data)
    assert config.n_channels != SMALL["n_channels"]
    assert config.options["backend"] == "first"


def test_options_that_are_given_are_those_of_the_model() -> None:
    data = get_task("digits")(None)
    data.setup()
    config = model_config(configured({"options": {"solver": "ode"}}, model="ltc"), data)
    assert config.options == {"solver": "ode"}
    assert build(config).blocks[0].layer.solver == "ode"
    for model, settings, said in (
        ("transformer", {"options": {"nonsense": 5}}, "unknown option of transformer 'nonsense'"),
        ("lstm", {"options": {"heads": 5}}, "unknown option of lstm 'heads'"),
        ("lstm", {"bidirectional": True}, "a model 'lstm' has no second direction"),
    ):
        with pytest.raises(ParameterError, match=said):
            model_config(configured(settings, model=model), data)


@pytest.mark.parametrize(
    ("settings", "given"),
    [({}, {"backend": "nope"}), ({"options": {"max_gain": 0.5}}, {"model": "pb"}), ({"n_state": 1}, {})],
)
def test_nothing_is_written_for_a_model_that_cannot_be_built(
    settings: dict[str, Any], given: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(ParameterError):
        train(configured(settings, **given), tmp_path / "run", new=True)
    assert not (tmp_path / "run").exists()


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
        # Four digits are what is claimed.  No bound holds for a whole run: Adam divides gradients by their own size, so
        # that one which is rounding alone moves its parameter as far as any.  Gradients have theirs in
        # nn/test_distributed.py.
        assert float(two["training_loss"]) == pytest.approx(float(one["training_loss"]), rel=1e-4)
        assert float(two["validation_loss"]) == pytest.approx(float(one["validation_loss"]), rel=1e-4)
    results = [json.loads((tmp_path / name / "results.json").read_text()) for name in "12"]
    assert results[0]["data"]["counts"] == results[1]["data"]["counts"]
    assert results[0]["seeds"][0]["metrics"].keys() == results[1]["seeds"][0]["metrics"].keys()
