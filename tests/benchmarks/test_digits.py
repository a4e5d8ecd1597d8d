"""The training run on digits: its data, its budget, what it writes, and the table and plot that are made of it."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from liquid_ssm.errors import UnstableRecurrence

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def program(report):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_WAIT_POLICY", "passive")  # which the program sets
        patch.setitem(sys.modules, "digits_report", report)
        before = torch.get_num_threads()
        yield load("digits", patch)
        torch.set_num_threads(before)  # which it sets, too


@pytest.fixture(scope="module")
def report():
    with pytest.MonkeyPatch.context() as patch:
        yield load("digits_report", patch)


def load(name, patch):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    patch.setitem(sys.modules, name, module)  # where dataclasses look
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def settings(program):
    """Small, without a selection, and with one thread: two wait for each other on a busy machine."""
    return program.Settings(budget=900, n_layers=1, n_state=4, batch=8, threads=1, backend="first")


def few(program):
    """Parts of 20 samples."""

    def parts(length, seed):
        return tuple(program.Part(part.u[:20], part.labels[:20]) for part in program.data(length, seed))

    return parts


@pytest.fixture(scope="module")
def document(program, settings, tmp_path_factory):
    path = tmp_path_factory.mktemp("digits") / "digits.json"
    program.run(path, lengths=(64,), seeds=(0, 1), epochs=2, settings=settings, parts=few(program))
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_parts_are_disjoint_complete_and_stratified(program):
    labels = load_digits().target
    parts = program.split(labels, 0)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(1797))
    for rows, share in zip(parts, (0.6, 0.2, 0.2), strict=True):
        # Each of the two cuts rounds the size of a part, and then the number of a class, to whole samples.
        counts = np.bincount(labels[rows], minlength=10)
        assert np.all(np.abs(counts - share * np.bincount(labels)) <= 2)
    assert all(np.array_equal(a, b) for a, b in zip(parts, program.split(labels, 0), strict=True))


def test_a_pixel_becomes_a_square_of_itself(program):
    images = np.random.default_rng(0).normal(size=(3, 8, 8))
    assert np.array_equal(program.sequences(images, 64), images.reshape(3, 64, 1))
    large = program.sequences(images, 1024).reshape(3, 32, 32)
    for row, column in ((0, 0), (3, 4), (31, 17)):
        assert np.array_equal(large[:, row, column], images[:, row // 4, column // 4])
    with pytest.raises(ValueError, match="length is 100"):
        program.sequences(images, 100)


def test_the_training_set_is_standardised_by_itself(program):
    train, validation, test = program.data(1024, 0)
    # u is rounded to float32, its sums are not: both statistics are those of a standardised signal up to 2^-24.
    u = train.u.double()
    assert abs(float(u.mean())) < 1e-6
    assert abs(float(u.std(correction=0)) - 1) < 1e-6
    images = load_digits().images
    rows = program.split(load_digits().target, 0)
    pixels = images[rows[0]]
    for part, chosen in zip((train, validation, test), rows, strict=True):
        wanted = (images[chosen] - pixels.mean()) / pixels.std()
        # A difference and a quotient, rounded to float32.
        assert np.allclose(
            part.u[:, 0, 0], wanted[:, 0, 0], rtol=0, atol=4 * np.finfo(np.float32).eps * np.abs(wanted).max()
        )
        assert np.array_equal(part.labels, load_digits().target[chosen])


def test_every_model_is_within_five_percent_of_the_budget(program):
    settings = program.Settings()
    for name in program.TITLES:
        width = program.width_of(name, settings)
        count = program.size(program.make(name, width, settings))
        assert abs(count / settings.budget - 1) <= 0.05, name
        # And no other width comes nearer.
        unit = 4 if name == "transformer" else 1
        for other in (width - unit, width + unit):
            there = program.size(program.make(name, other, settings))
            assert abs(there - settings.budget) >= abs(count - settings.budget), name


def test_the_rate_rises_falls_and_ends_near_zero(program, settings):
    rate = program.scheduled(settings, 100)
    assert [rate(step) for step in (0, 4, 9, 10)] == [0.1, 0.5, 1.0, 1.0]
    assert rate(55) == pytest.approx(0.5)
    assert 0 < rate(99) < 1e-3
    assert program.scheduled(settings, 1)(0) == 1.0


def test_every_run_is_a_row_with_every_field(program, settings, document):
    assert set(document) == {"environment", "settings", "rows", "summary"}
    assert document["environment"]["scikit-learn"] != "not installed"
    assert document["settings"]["epochs"] == {"64": 2}
    assert document["settings"]["samples"] == [20, 20, 20]
    assert [(row["seed"], row["model"]) for row in document["rows"]] == [(s, m) for s in (0, 1) for m in program.TITLES]
    for row in document["rows"]:
        assert row["failure"] is None
        assert len(row["validation_curve"]) == len(row["loss_curve"]) == len(row["seconds"]) == 2
        assert row["validation_accuracy"] == row["validation_curve"][-1]
        # 20 samples: accuracies are whole twentieths.
        assert (20 * row["test_accuracy"]) == pytest.approx(round(20 * row["test_accuracy"]))
        assert min(row["seconds"]) <= row["seconds_per_epoch"] <= max(row["seconds"])
        assert abs(row["parameters"] / settings.budget - 1) < 0.2  # a small budget is met less closely
    assert len(document["summary"]) == len(program.TITLES)


def test_a_run_is_the_same_again_and_another_seed_is_not(program, settings, document):
    parts = few(program)(64, 0)
    fixed = ("loss_curve", "validation_curve", "test_accuracy")
    for name in ("liquid_s4", "lstm"):
        first = next(row for row in document["rows"] if (row["model"], row["seed"]) == (name, 0))
        again, other = (program.train(name, 64, seed, 2, settings, parts) for seed in (0, 1))
        assert all(first[key] == again[key] for key in fixed)
        assert other["loss_curve"] != again["loss_curve"]


def test_training_lowers_the_loss(program, settings):
    # One batch is the whole set: the first loss is that of the initial parameters, and without steps it stays.
    parts = [program.Part(part.u[:8], part.labels[:8]) for part in program.data(64, 0)]
    for name in program.TITLES:
        losses = program.train(name, 64, 0, 6, replace(settings, lr=1e-2), parts)["loss_curve"]
        assert losses[-1] < losses[0], name


def test_what_was_finished_is_kept(program, settings, tmp_path, monkeypatch):
    calls = []

    def stopped(*given):
        calls.append(given)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return trained(*given)

    trained = program.train
    monkeypatch.setattr(program, "train", stopped)
    path = tmp_path / "digits.json"
    with pytest.raises(KeyboardInterrupt):
        program.run(path, lengths=(64,), seeds=(0,), epochs=1, settings=settings, parts=few(program))
    kept = json.loads(path.read_text(encoding="utf-8"))
    assert len(kept["rows"]) == len(kept["summary"]) == 1


def test_a_run_that_breaks_down_is_a_row(program, settings, monkeypatch):
    def unstable(*given):
        raise UnstableRecurrence("the state overflows", step=3, channel=0, input_bound=1.0)

    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.functional, "cross_entropy", lambda y, labels: y.sum() * torch.nan)
        row = program.train("lstm", 64, 0, 2, settings, few(program)(64, 0))
    assert row["failure"] == "FloatingPointError: the norm of the gradient is nan"
    monkeypatch.setattr(program, "accuracy", unstable)
    row = program.train("lstm", 64, 0, 2, settings, few(program)(64, 0))
    assert row["failure"].startswith("UnstableRecurrence: the state overflows")
    assert row["test_accuracy"] is row["validation_accuracy"] is row["seconds_per_epoch"] is None


def rows_of(accuracies, model="a", length=64):
    common = {"model": model, "title": model.upper(), "length": length, "width": 3, "parameters": 99}
    return [
        common | {"seed": seed, "failure": None if value is not None else "unstable", "test_accuracy": value,
                  "validation_accuracy": value, "validation_curve": [] if value is None else [0.1, value],
                  "seconds_per_epoch": None if value is None else seed + 1.0}
        for seed, value in enumerate(accuracies)
    ]  # fmt: skip


def test_mean_and_deviation_over_the_seeds_that_finished(report):
    (entry,) = report.summary(rows_of([0.8, 0.9, 1.0]))
    assert entry["test_mean"] == pytest.approx(0.9)
    assert entry["test_deviation"] == pytest.approx(0.1)  # √((0.01 + 0 + 0.01)/2)
    assert entry["seconds_per_epoch"] == 2.0
    assert report.cells(entry) == ["A", "3", "99", "3", "90.0 % ± 10.0", "90.0 % ± 10.0", "2.00"]
    (some,) = report.summary(rows_of([0.8, None, None]))
    assert report.cells(some)[3:] == ["3, 2 failed", "80.0 %", "80.0 %", "1.00"]
    (none,) = report.summary(rows_of([None, None]))
    assert report.cells(none)[3:] == ["2, 2 failed", "–", "–", "–"]


def test_a_table_per_length(report):
    rows = rows_of([0.5], length=1024) + rows_of([0.7, 0.9], "b") + rows_of([0.6])
    made = {"settings": {"epochs": {"64": 5, "1024": 2}}, "rows": rows, "summary": report.summary(rows)}
    lines = report.markdown(made, level=2).splitlines()
    assert [line for line in lines if line.startswith("#")] == ["## L = 64, 5 epochs", "## L = 1024, 2 epochs"]
    assert [line for line in lines if line.startswith(("| A", "| B"))] == [
        "| B | 3 | 99 | 2 | 80.0 % ± 14.1 | 80.0 % ± 14.1 | 1.50 |",
        "| A | 3 | 99 | 1 | 60.0 % | 60.0 % | 1.00 |",
        "| A | 3 | 99 | 1 | 50.0 % | 50.0 % | 1.00 |",
    ]
    assert len(report.text(made).splitlines()) == 4


def test_a_plot_of_every_run_that_finished_and_the_same_again(report, document, tmp_path):
    made = report.draw(document, tmp_path / "new" / "digits.svg")
    assert made.read_bytes().startswith(b"<?xml")
    assert made.read_bytes() == report.draw(document, tmp_path / "again.svg").read_bytes()
    rows = rows_of([None]) + rows_of([0.5, None], "b")
    failed = {"rows": rows, "summary": report.summary(rows)}
    assert report.draw(failed, tmp_path / "failed.png").read_bytes()[1:4] == b"PNG"
