"""The conformance suite as tests: `pytest --liquid-backend module:Class --pyargs liquid_ssm.testing.conformance`."""

from __future__ import annotations

from typing import Any

import pytest

from ..errors import ParameterError
from .runner import Outcome, Runner
from .suite import Check

_RUNNER = pytest.StashKey[Runner]()


def pytest_generate_tests(metafunc: Any) -> None:
    config = metafunc.config
    target = config.getoption("--liquid-backend")
    if target is None:
        raise pytest.UsageError(
            "liquid_ssm.testing.conformance needs the backend under test: add --liquid-backend module:Class"
        )
    if config.getoption("--liquid-examples") < 1:
        raise pytest.UsageError("--liquid-examples must be at least 1")
    try:
        runner = Runner(target, time_limit=config.getoption("--liquid-time-limit"))
        config.add_cleanup(runner.close)  # not the fixture: --collect-only uses none
        loaded = runner.load()
    except ParameterError as error:
        raise pytest.UsageError(str(error)) from None
    config.stash[_RUNNER] = runner
    cases = [loaded] if isinstance(loaded, Outcome) else loaded
    if not cases:  # pytest would skip, and so pass
        raise pytest.UsageError(f"{runner.name} claims no mode that the suite knows, so nothing can be checked")
    metafunc.parametrize("check", cases, ids=[str(getattr(case, "check", case)) for case in cases])


@pytest.fixture(scope="session")
def runner(pytestconfig: pytest.Config) -> Runner:
    """The process in which the backend runs."""
    return pytestconfig.stash[_RUNNER]


def test_backend(check: Check | Outcome, runner: Runner, pytestconfig: pytest.Config) -> None:
    """The backend has the property."""
    outcome = check if isinstance(check, Outcome) else runner.run(check, pytestconfig.getoption("--liquid-examples"))
    if outcome.status != "pass":
        pytest.fail(f"{outcome.kind}: {outcome.message}", pytrace=False)
