"""A result and its JSON."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from liquid_ssm.bench.result import Result
from liquid_ssm.errors import ParameterError


def test_json_comes_back_as_it_was(result):
    text = result.to_json()
    assert Result.from_json(text) == result
    assert Result.from_json(text).to_json() == text


def test_json_has_what_programs_need(result):
    found = json.loads(result.to_json())
    assert (found["schema"], found["schema_version"]) == ("liquid-ssm/bench", 1)
    assert found["rows"][0]["seconds"] == {"median": 5e-3, "minimum": 4e-3, "maximum": 6e-3, "runs": 7, "inner": 1}
    assert found["rows"][0]["shape"]["n_state"] == 64
    assert found["targets"][1]["met"] is False


def test_a_run_without_a_start_comes_back(result):
    without = replace(result, start_up=None)
    assert Result.from_json(without.to_json()) == without


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"runs": 7}', "schema is None; a benchmark has 'liquid-ssm/bench'"),
        ("[]", "schema is 'list'"),
        ('{"schema": "liquid-ssm/bench", "schema_version": 99}', "schema_version is 99; this version reads 1"),
    ],
)
def test_other_documents_are_refused(text, message):
    with pytest.raises(ParameterError, match=message):
        Result.from_json(text)
