"""Generators by name."""

from __future__ import annotations

import subprocess
import sys

import pytest

from liquid_ssm import generate
from liquid_ssm.errors import BackendUnavailable, ParameterError
from liquid_ssm.generate import GENERATORS, get_generator


def test_names() -> None:
    assert set(GENERATORS) == {"listops", "imdb", "aan", "pathfinder", "pathx", "speech-commands", "bidmc"}
    assert get_generator("aan").__name__ == "generate_aan"


def test_an_unknown_name_is_told_the_nearest() -> None:
    with pytest.raises(ParameterError, match=r"unknown generator 'pathfinders'; .*Did you mean 'pathfinder'"):
        get_generator("pathfinders")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(name: str, package: str) -> None:
        raise ModuleNotFoundError("No module named 'neurokit2'", name="neurokit2")

    monkeypatch.setattr(generate, "import_module", fails)
    with pytest.raises(BackendUnavailable, match=r"neurokit2 is not installed\. Run: pip install 'liquid-ssm\[generat"):
        get_generator("bidmc")


def test_a_missing_module_of_ours_is_no_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(GENERATORS, "bidmc", "no_such_module:generate")
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        get_generator("bidmc")


def test_text_is_generated_without_torch() -> None:
    code = (
        "import sys; from liquid_ssm.generate import get_generator, command; get_generator('listops'); "
        "get_generator('imdb'); print(sorted({'torch', 'lightning', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
