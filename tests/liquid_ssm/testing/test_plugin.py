from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from liquid_ssm.testing import plugin


def test_pytest_loads_it(pytestconfig):
    assert pytestconfig.pluginmanager.has_plugin("liquid_ssm")
    assert [p.value for p in entry_points(group="pytest11", name="liquid_ssm")] == [plugin.__name__]


def test_options_and_their_defaults(pytestconfig):
    assert pytestconfig.getoption("--liquid-backend") is None
    assert pytestconfig.getoption("--liquid-examples") == 25
    assert pytestconfig.getoption("--liquid-time-limit") == 60


@pytest.mark.parametrize(("option", "value"), [("--liquid-examples", "many"), ("--liquid-time-limit", "long")])
def test_values_of_another_type_are_usage_errors(option, value, tmp_path):
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", option, value]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 4
    assert f"argument {option}: invalid" in done.stderr


def test_runs_that_do_not_use_it_import_nothing_but_the_package(tmp_path):
    code = (
        "import sys, liquid_ssm; before = set(sys.modules)\n"
        "import liquid_ssm.testing.plugin; print(*set(sys.modules) - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {"liquid_ssm.testing", "liquid_ssm.testing.plugin"}
