"""The wheel holds exactly the tracked files, each where the package mapping puts it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAPPING = {"liquid_ssm": "liquid_ssm", "backends": "liquid_ssm/backends", "oracle": "liquid_ssm/oracle"}


def source_files() -> list[str]:
    """Paths from the root of every file that belongs to the package: git's word if this is a checkout."""
    if (ROOT / ".git").exists():
        # With files not yet added, so that the test holds before a commit as after it.
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *MAPPING]
        listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        return sorted(name for name in listed.split("\0") if name and (ROOT / name).is_file())
    found = (path for folder in MAPPING for path in (ROOT / folder).rglob("*") if path.is_file())
    return sorted(path.relative_to(ROOT).as_posix() for path in found if "__pycache__" not in path.parts)


def installed_name(source: str) -> str:
    folder, _, rest = source.partition("/")
    return f"{MAPPING[folder]}/{rest}"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """A wheel built from a copy: setuptools would pack what an earlier build left in the tree."""
    copy = tmp_path_factory.mktemp("source")
    for name in [*source_files(), "pyproject.toml", "README.md", "LICENSE"]:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, copy / name)
    target = tmp_path_factory.mktemp("wheel")
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", build, str(target)], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return zipfile.ZipFile(next(target.glob("*.whl")))


def test_a_python_started_in_the_checkout_finds_every_part_there(tmp_path: Path) -> None:
    for folder in MAPPING:
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    code = (
        "import liquid_ssm, liquid_ssm.backends.compiled, liquid_ssm.oracle\n"
        "print(liquid_ssm.__file__, liquid_ssm.backends.compiled.__file__, liquid_ssm.oracle.__file__, sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    folders = ["liquid_ssm", "backends/compiled", "oracle"]
    assert done.stdout.split() == [str(tmp_path / folder / "__init__.py") for folder in folders]


def test_wheel_holds_the_tracked_files_and_no_others(wheel: zipfile.ZipFile) -> None:
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert packed == {installed_name(name) for name in source_files()}


def test_wheel_files_are_the_source_files(wheel: zipfile.ZipFile) -> None:
    for name in source_files():
        assert wheel.read(installed_name(name)) == (ROOT / name).read_bytes(), name


def test_wheel_has_metadata_licence_and_command(wheel: zipfile.ZipFile) -> None:
    info = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")).removesuffix("METADATA")
    metadata = message_from_bytes(wheel.read(f"{info}METADATA"))
    assert metadata["License-Expression"] == "Apache-2.0"
    assert wheel.read(f"{info}licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert "liquid-ssm = liquid_ssm.cli:main" in wheel.read(f"{info}entry_points.txt").decode()
    extras = {
        "train",
        "generate",
        "numba",
        "bench",
        "plots",
        "torch",
        "keops",
        "triton",
        "safetensors",
        "onnx",
        "test",
        "docs",
        "all",
    }
    assert set(metadata.get_all("Provides-Extra", [])) == extras
