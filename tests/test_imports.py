"""What an import loads, and how long it takes; each check in a fresh interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("scipy", "mpmath", "flint", "torch", "numba", "pykeops", "triton", "rich", "typer")


def run(code: str, folder: Path) -> str:
    """Standard output of `code` in a new interpreter, away from the source tree."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    # Byte code of an editable install goes where the test can write, and later runs find it as after an install.
    environment["PYTHONPYCACHEPREFIX"] = str(folder / "cache")
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded_by(imports: str, folder: Path) -> set[str]:
    return set(run(f"import sys\n{imports}\nprint(*sorted(sys.modules))", folder).split())


EVERY_MODULE = """
import importlib, pkgutil, {package}
for module in pkgutil.walk_packages({package}.__path__, "{package}."):
    importlib.import_module(module.name)
"""


def test_import_is_lazy(tmp_path: Path) -> None:
    loaded = loaded_by("import liquid_ssm", tmp_path)
    assert "liquid_ssm" in loaded
    assert not loaded & set(HEAVY)


def test_import_takes_under_50_ms_more_than_numpy(tmp_path: Path) -> None:
    code = "import numpy, time; t = time.process_time(); import liquid_ssm; print(time.process_time() - t)"
    # Processor time, and one good try of ten: other processes and a cold file cache only ever add.
    assert any(float(run(code, tmp_path)) < 0.05 for _ in range(10))


@pytest.mark.parametrize("package", ["liquid_ssm.backends", "liquid_ssm.oracle"])
def test_folders_never_load_under_their_bare_names(package: str, tmp_path: Path) -> None:
    loaded = loaded_by(EVERY_MODULE.format(package=package), tmp_path)
    assert package in loaded
    assert not {name.partition(".")[0] for name in loaded} & {"backends", "oracle"}
