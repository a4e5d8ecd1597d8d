"""The list of what can be trained."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from liquid_ssm.errors import ParameterError
from liquid_ssm.nn import MODEL_NAMES
from liquid_ssm.tasks import get_task
from liquid_ssm.train import listing
from liquid_ssm.train.estimate import Estimate
from liquid_ssm.train.presets import get_preset


@pytest.fixture
def asked(monkeypatch):
    """Estimates of 3 s, and what they were asked for."""
    calls = []

    def estimate(task, preset, model):
        calls.append((task.name, preset.name, model))
        return Estimate(0.5, 6, "none")

    monkeypatch.setattr(listing, "estimate", estimate)
    return calls


def test_rows_have_sizes_and_times(asked):
    said = []
    (row,) = listing.rows(["digits"], model="lstm", said=lambda *given: said.append(given))
    assert (row.task, row.preset, row.model, row.samples) == ("digits", "small", "lstm", 1077)
    preset = get_preset("digits")
    H, n = preset.n_channels, preset.n_layers
    # Encoder 2 H, each layer four gates of 2 H² + 2 H, head 11 · 10 with H features.
    assert row.parameters == 2 * H + n * 4 * (2 * H * H + 2 * H) + 10 * H + 10
    assert row.time.seconds == 3
    assert asked == [("digits", "small", "lstm")]
    assert said == [(0, 1, "digits, small")]
    assert listing.rows(["digits"])[0].model == "liquid"


def test_no_time_is_spent_on_estimates_that_nobody_wants_or_that_would_take_too_long(asked):
    assert listing.rows(["digits"], time=False)[0].time is None
    assert listing.rows(["digits"], budget=0.0)[0].time is None
    assert asked == []


def test_json_has_the_notes_and_says_what_is_an_estimate(asked):
    document = json.loads(listing.to_json(listing.rows(["digits"])))
    (row,) = document["rows"]
    assert row["time"] == {"seconds_per_step": 0.5, "steps": 6, "trial": "none", "seconds": 3.0, "is": "an estimate"}
    assert row["notes"] == list(get_preset("digits").notes)
    assert document["models"] == list(MODEL_NAMES)
    assert "estimates" in document["about_estimates"]
    assert "cpu" in document["environment"]


def test_the_table_names_data_figures_and_what_is_an_estimate(asked, monkeypatch):
    task = get_task("digits").task
    from dataclasses import replace

    told = replace(task, paper={"Liquid-S4": 96.78, "S4": 96.08}, part="validation", expected="[brackets]/files")
    monkeypatch.setattr(get_task("digits"), "task", told)
    out = io.StringIO()
    listing.show(listing.rows(["digits"]), Console(file=out, width=140))
    text = out.getvalue()
    for words in (
        "digits", "small", "3.0 s", "accuracy, validation: Liquid-S4 96.78 %; S4 96.08 %", "[brackets]/files",
        "estimates", "the paper's, to compare with",
    ):  # fmt: skip
        assert words in text
    out.truncate(0)
    listing.show(listing.rows(["digits"], time=False), Console(file=out, width=140))
    assert "estimates" not in out.getvalue()


def test_durations_are_said_in_the_unit_that_people_use():
    said = {3.14: "3.1 s", 59: "59 s", 90: "90 s", 150: "2.5 minutes", 7200: "2.0 hours", 86400 * 30: "30 days"}
    assert {seconds: listing.duration(seconds) for seconds in said} == said
    assert listing.duration(86400 * 365.25 * 3) == "3.0 years"


def test_unknown_names_are_refused(asked):
    with pytest.raises(ParameterError, match="unknown task"):
        listing.rows(["digit"])
    with pytest.raises(ParameterError, match="unknown model"):
        listing.rows(["digits"], model="liqid")
