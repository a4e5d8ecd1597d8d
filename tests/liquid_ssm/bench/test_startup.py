"""The start, in fresh processes."""

from __future__ import annotations

import pytest

from liquid_ssm.bench import startup
from liquid_ssm.bench.startup import HEAVY, start_up


@pytest.mark.usefixtures("no_compiled")
def test_the_import_is_measured_and_heavy_packages_are_named():
    found = start_up(processes=2)
    assert 0 < found.import_seconds < 10
    assert found.loaded == ()
    assert found.first_cold is None
    assert "pip install" in found.reason


@pytest.mark.usefixtures("no_compiled")
def test_a_heavy_package_is_found(monkeypatch):
    monkeypatch.setattr(startup, "IMPORT", startup.IMPORT.replace("import liquid_ssm;", "import mpmath;"))
    assert "mpmath" in HEAVY
    assert start_up(processes=1).loaded == ("mpmath",)


@pytest.mark.usefixtures("compiled")
def test_cold_and_warm_share_one_folder_that_was_empty(monkeypatch):
    code = (
        "import os, pathlib; folder = pathlib.Path(os.environ['LIQUID_SSM_CACHE_DIR']); "
        "print(len(list(folder.iterdir())), 7); (folder / 'compiled').touch()"
    )
    monkeypatch.setattr(startup, "FIRST", code)
    found = start_up(processes=1)
    assert (found.first_cold, found.first_warm, found.backward_cold) == (0, 1, 7)


@pytest.mark.usefixtures("compiled")
def test_a_child_that_fails_is_an_error_with_its_message(monkeypatch):
    monkeypatch.setattr(startup, "FIRST", "raise SystemExit('no compiler here')")
    with pytest.raises(RuntimeError, match="no compiler here"):
        start_up(processes=1)
