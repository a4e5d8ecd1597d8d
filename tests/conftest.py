"""Hypothesis profiles: `HYPOTHESIS_PROFILE=dev|ci|nightly`, by default `ci` where CI is set and `dev` elsewhere."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import HealthCheck, settings

# Without a GPU the Triton kernels run in Triton's interpreter, which must be chosen before triton is imported.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# No profile has a deadline: the machines share their cores, so a slow example says nothing.
settings.register_profile("dev", deadline=None, max_examples=50)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
# Random and long; failing examples stay in .hypothesis/ and are tried first next time.
settings.register_profile(
    "nightly", deadline=None, max_examples=2000, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))


# With `pytest -n` each process has its share of the cores.
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)


def pytest_configure(config):
    config.mutant_report = pytest.StashKey()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["mutants"] = session.config.stash.get(session.config.mutant_report, [])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    lines = node.config.stash.setdefault(node.config.mutant_report, [])
    lines.extend(getattr(node, "workeroutput", {}).get("mutants", []))


def pytest_terminal_summary(terminalreporter, config):
    for line in config.stash.get(config.mutant_report, []):
        terminalreporter.write_line(line)
