from __future__ import annotations

import json

import pytest

from liquid_ssm.errors import ParameterError
from liquid_ssm.testing.certify import ConformanceReport, certify
from liquid_ssm.testing.runner import Outcome
from liquid_ssm.testing.suite import Check

WRONG = """
import os, time

class Wrong(Good):
    def scan(self, a, b, c, u, state):
        y, x = super().scan(a, b, c, u, state)
        if u.dtype == "float32":
            return y, x
        if state is not None:
            return y + 1, x
        if len(u) == 0:
            time.sleep(600)
        if len(u) == 2:
            os._exit(9)
        return y, x
"""


def outcome(name, status="pass", dtype="float64", **more):
    return Outcome(Check(name, "liquid", "diagonal", dtype), status, seconds=0.25, examples=10, **more)


def report(*outcomes):
    return ConformanceReport("m:C", "mine", outcomes, 25, 60.0, 1.5)


BAD = outcome("initial-state", "fail", kind="violated", message="initial-state: off.\nby 1")
WORSE = outcome("initial-state", "fail", "float32", kind="hang", message="not shown")


def test_all_passed():
    found = report(outcome("within-bound"), outcome("causality"))
    assert found.passed
    assert found.failures == ()
    assert found.verdict == "mine: all 2 checks passed"


def test_some_failed():
    found = report(outcome("within-bound"), BAD, WORSE)
    assert not found.passed
    assert found.failures == (BAD, WORSE)
    assert found.verdict == "mine: REJECTED, 2 of 3 checks failed (1 violated, 1 hang)"


def test_nothing_was_checked():
    assert not report().passed
    assert report().verdict == "mine: nothing was checked; no check fits what it claims and what was asked for"


def test_the_table_has_a_line_per_property_and_the_first_failure_of_each():
    lines = report(outcome("within-bound"), outcome("within-bound"), BAD, WORSE).table().splitlines()
    assert lines[0].split() == ["property", "passed", "examples", "time", "statement"]
    assert lines[1].split(maxsplit=5)[:5] == ["within-bound", "2/2", "20", "0.5", "s"]
    assert lines[1].endswith("y is within its derived error bound of the exact value")
    assert lines[2].split(maxsplit=5)[:5] == ["initial-state", "0/2", "20", "0.5", "s"]
    assert lines[3:] == [
        "",
        "FAILED (violated): initial-state [liquid, diagonal, float64]",
        "initial-state: off.",
        "by 1",
    ]


def test_json_has_every_outcome_and_the_environment():
    document = json.loads(report(outcome("within-bound"), BAD).to_json())
    assert {k: document[k] for k in ("backend", "target", "passed", "max_examples", "time_limit", "seconds")} == {
        "backend": "mine",
        "target": "m:C",
        "passed": False,
        "max_examples": 25,
        "time_limit": 60.0,
        "seconds": 1.5,
    }
    assert document["verdict"] == report(outcome("within-bound"), BAD).verdict
    assert document["checks"][1] == {
        "property": "initial-state",
        "form": "liquid",
        "structure": "diagonal",
        "dtype": "float64",
        "status": "fail",
        "kind": "violated",
        "message": "initial-state: off.\nby 1",
        "seconds": 0.25,
        "examples": 10,
    }
    assert "numpy" in document["environment"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_examples": 0}, "max_examples is 0; at least 1"),
        ({"time_limit": 0.0}, "time_limit is 0.0; it must be from 0.01"),
        ({"time_limit": float("nan")}, "time_limit is nan"),
        ({"properties": ["causalty"]}, "unknown property 'causalty'.*Did you mean 'causality'"),
        ({"dtypes": ["float46"]}, "unknown dtype 'float46'.*Did you mean 'float64'"),
    ],
)
def test_bad_arguments(options, said):
    with pytest.raises(ParameterError, match=said):
        certify("no_such_module:Class", **options)


def test_a_target_that_is_not_there():
    with pytest.raises(ParameterError, match="cannot import 'no_such_module'"):
        certify("no_such_module:Class")


def test_only_what_was_asked_for(write):
    asked = ["repeatability", "causality"]
    seen = []
    found = certify(
        f"{write()}:Good", max_examples=2, properties=asked, dtypes=["float32"], progress=lambda *a: seen.append(a)
    )
    assert [str(o.check) for o in found.outcomes] == [f"{n} [liquid, diagonal, float32]" for n in reversed(asked)]
    assert found.passed
    assert [o.examples for o in found.outcomes] == [4, 2]
    assert (found.name, found.max_examples, found.time_limit) == ("Good", 2, 60.0)
    assert seen == [(0, 2, str(found.outcomes[0].check)), (1, 2, str(found.outcomes[1].check)), (2, 2, "done")]
    assert found.seconds >= sum(o.seconds for o in found.outcomes)


def test_nothing_fits(write):
    assert certify(f"{write()}:Good", properties=["linearity"]).verdict.startswith("Good: nothing was checked")


def test_the_run_goes_on_after_every_kind_of_failure(write):
    asked = ["initial-state", "empty", "batch-order", "conjugate-pairs-from-state"]
    found = certify(f"{write(WRONG)}:Wrong", max_examples=4, time_limit=2.0, properties=asked)
    assert [(o.check.property, o.check.dtype, o.kind) for o in found.outcomes] == [
        *((name, "float32", "") for name in asked),
        ("initial-state", "float64", "violated"),
        ("empty", "float64", "hang"),
        ("batch-order", "float64", "crash"),
        ("conjugate-pairs-from-state", "float64", ""),  # both outputs are off by the same
    ]
    assert found.verdict == "Wrong: REJECTED, 3 of 8 checks failed (1 violated, 1 hang, 1 crash)"


def test_an_import_that_crashes_is_the_one_outcome(write):
    found = certify(f"{write('import os' + chr(10) + 'os._exit(4)' + chr(10))}:Good")
    assert [(o.check.property, o.status, o.kind) for o in found.outcomes] == [("load", "fail", "crash")]
    assert "the process died with exit code 4" in found.table()
    assert found.verdict.endswith(":Good: REJECTED, 1 of 1 checks failed (1 crash)")
