"""`pytest --liquid-backend module:Class --pyargs liquid_ssm.testing.conformance`, run as a third party would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from liquid_ssm.testing import conformance

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"

GOOD = """
import numpy as np

class Good:
    dtypes = ("float64",)

    def scan(self, a, b, c, u, state):
        x = np.zeros((len(u), *a.shape), a.dtype) if state is None else state
        y = np.zeros_like(u)
        for k in range(u.shape[-1]):
            w = b * u[..., k, None]
            x = (a + w) * x + w
            y[..., k] = 2 * (c * x).sum(axis=-1).real
        return y, x

class Bad(Good):
    def scan(self, *arguments):
        1 / 0
"""


@pytest.fixture
def run(tmp_path):
    """pytest in an empty folder of its own, with everything in it that it needs and no settings of ours."""
    (tmp_path / "mine.py").write_text(GOOD)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "HYPOTHESIS"))}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"

    def call(*arguments, **more):
        command = [sys.executable, "-P", "-m", "pytest", "-p", "no:cacheprovider", "-W", "error", *arguments]
        command += ["--pyargs", "liquid_ssm.testing.conformance"]
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=120, env={**environment, **more}
        )

    return call


def test_a_good_adapter_passes(run, tmp_path):
    done = run("--liquid-backend", "mine:Good", "--liquid-examples", "1", "-v", "-k", "not lengths")
    assert done.returncode == 0, done.stdout
    assert "test_backend[within-bound [liquid, diagonal, float64]] PASSED" in done.stdout
    assert "17 passed, 1 deselected" in done.stdout
    assert [path.name for path in tmp_path.iterdir() if path.name != ".hypothesis"] == ["mine.py"]


def test_a_wrong_one_fails_with_the_property_and_a_minimal_example(run):
    done = run("--liquid-backend", "forgetful_scan:ForgetfulScan", "-k", "initial-state", PYTHONPATH=str(EXAMPLES))
    assert done.returncode == 1
    assert "test_backend[initial-state [liquid, diagonal, float64]]" in done.stdout
    assert "violated: initial-state: started from a given state, y is within its derived error bound" in done.stdout
    assert "batch 1, H 1, M 1, L 1\n" in done.stdout
    assert "Traceback" not in done.stdout


def test_one_that_raises_fails_where_it_raises(run):
    done = run("--liquid-backend", "mine:Bad", "--liquid-examples", "1", "-k", "repeatability or empty")
    assert done.returncode == 1
    assert "raised: repeatability: the same call gives the same result" in done.stdout
    assert "scan raised ZeroDivisionError: division by zero (mine.py, line 18)" in done.stdout
    assert "2 failed" in done.stdout


@pytest.fixture
def generate(tmp_path, monkeypatch):
    """The cases that are collected with some options, and their names; at the end pytest would clean up."""
    (tmp_path / "endless.py").write_text("import time\ntime.sleep(600)\n")
    (tmp_path / "mine.py").write_text(
        "from liquid_ssm.backend import Backend, Capabilities\n"
        "class Claimless(Backend):\n    name, capabilities = 'claimless', Capabilities(primitives={})\n"
    )
    monkeypatch.chdir(tmp_path)
    cleanups, found = [], []

    def call(**options):
        given = {"--liquid-backend": "mine:Good", "--liquid-examples": 1, "--liquid-time-limit": 60.0, **options}
        config = SimpleNamespace(getoption=given.__getitem__, add_cleanup=cleanups.append, stash={})
        metafunc = SimpleNamespace(config=config, parametrize=lambda name, cases, ids: found.extend([cases, ids]))
        conformance.pytest_generate_tests(metafunc)
        return found

    yield call
    for cleanup in cleanups:
        cleanup()


def test_without_the_option_it_says_what_to_add(run):
    done = run()
    assert done.returncode == 2
    assert "liquid_ssm.testing.conformance needs the backend under test: add --liquid-backend module:Class" in (
        done.stdout
    )
    assert "1 error" in done.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"--liquid-backend": "mine"}, "'mine' names no class; write module:Class"),
        ({"--liquid-backend": "mine:Missing"}, "module 'mine' has no 'Missing'"),
        ({"--liquid-examples": 0}, "--liquid-examples must be at least 1"),
        ({"--liquid-time-limit": 0.0}, "time_limit is 0.0; it must be from 0.01"),
        # pytest skips a test without cases, and a run of skipped tests passes.
        ({"--liquid-backend": "mine:Claimless"}, "claimless claims no mode that the suite knows"),
    ],
)
def test_other_usage_errors(options, said, generate):
    with pytest.raises(pytest.UsageError, match=said):
        generate(**options)


def test_a_module_that_hangs_is_the_one_case_and_fails(generate):
    (case,), (name,) = generate(**{"--liquid-backend": "endless:Class", "--liquid-time-limit": 0.5})
    assert name == "load [-, -, -]"
    with pytest.raises(pytest.fail.Exception, match=r"^hang: load: did not finish within 0\.5 s"):
        conformance.test_backend(case, None, None)
