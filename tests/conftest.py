"""Hypothesis profiles: `HYPOTHESIS_PROFILE=dev|ci|nightly`, by default `ci` where CI is set and `dev` elsewhere."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import HealthCheck, settings

from liquid_ssm import certificate_store
from liquid_ssm.registry import FIRST
from liquid_ssm.selection import auto

CACHE = "LIQUID_SSM_CACHE_DIR"
ABOUT_SELECTION = ("/selection/", "_selection", "test_select", "test_examples")

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


@pytest.fixture(scope="session", autouse=True)
def own_certificates(tmp_path_factory):
    """Certificates of tests stay with them, unless a test names a folder by LIQUID_SSM_CACHE_DIR itself."""
    folder, given, usual = tmp_path_factory.mktemp("cache"), os.environ.get(CACHE), certificate_store.cache_folder
    with pytest.MonkeyPatch.context() as patch:
        own = lambda: folder if os.environ.get(CACHE) == given else usual()  # noqa: E731
        patch.setattr(certificate_store, "cache_folder", own)
        yield


@pytest.fixture(scope="session", autouse=True)
def fixed_order():
    """Calls that name no backend take the first, unless selection is what a test is about: it would take minutes."""
    usual = auto.selected

    def selected(*args, tolerance=None, strict=False, **options):
        test = os.environ.get("PYTEST_CURRENT_TEST", "")
        if tolerance is None and not strict and not any(name in test for name in ABOUT_SELECTION):
            return FIRST, None
        return usual(*args, tolerance=tolerance, strict=strict, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auto, "selected", selected)
        yield


def pytest_configure(config):
    # What tests/properties/test_mutants.py found, in this process and, with `pytest -n`, in the others.
    config.mutants = {"found": 0, "tried": 0, "lines": []}


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["mutants"] = session.config.mutants


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    for name, value in getattr(node, "workeroutput", {}).get("mutants", {}).items():
        node.config.mutants[name] += value


def pytest_terminal_summary(terminalreporter, config):
    found, tried, lines = config.mutants.values()
    if tried:
        terminalreporter.write_line(f"seeded bugs: {found} of {tried} killed ({100 * found / tried:.0f} %)")
    for line in lines:
        terminalreporter.write_line(line)
