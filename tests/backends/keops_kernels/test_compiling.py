"""Compilation: reported, kept, silent on stdout, done once, and clear where it cannot be done."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from liquid_ssm.backends.keops_kernels import compiling
from liquid_ssm.backends.keops_kernels.vandermonde import diagonal_kernel
from liquid_ssm.errors import BackendUnavailable

# Two channels, two modes, any numbers.
CALL = """
import logging
logging.basicConfig(level=logging.INFO, format="%(name)s|%(message)s")
import liquid_ssm as ls
from liquid_ssm.backends.keops_backend import KeOpsBackend
from liquid_ssm.testing.strategies import random_system
assert KeOpsBackend().kernel(random_system("diagonal"), 5).shape == (2, 5)
"""


def python(code, folder, **environment):
    base = {k: v for k, v in os.environ.items() if k not in ("KEOPS_CACHE_FOLDER", "PYKEOPS_VERBOSE", "KEOPS_VERBOSE")}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=folder,
        env=base | {compiling.ENVIRONMENT_VARIABLE: str(folder)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def cold(tmp_path_factory):
    """A cache folder, what a process said that had to fill it, and one after it."""
    folder = tmp_path_factory.mktemp("cache")
    return folder, python(CALL, folder), python(CALL, folder)


def test_the_first_use_is_logged_with_its_duration_and_folder(cold):
    folder, first, _ = cold
    assert first.returncode == 0, first.stderr
    (line,) = first.stderr.splitlines()
    assert line.startswith("liquid_ssm|KeOps compiled vandermonde for torch.float64 on cpu in ")
    assert str(folder) in line
    assert list(folder.glob("keops-*/*/pykeops_cpp_*.so"))


def test_later_processes_find_the_code_and_say_nothing(cold):
    _, _, second = cold
    assert (second.returncode, second.stderr) == (0, "")


def test_standard_output_stays_clean(cold):
    _, first, second = cold
    assert (first.stdout, second.stdout) == ("", "")


def test_what_is_compiled_needs_no_compiler_any_more(cold, tmp_path):
    folder, _, _ = cold
    done = python(CALL, folder, PATH=str(tmp_path), CXX="")
    assert (done.returncode, done.stderr) == (0, "")


def test_without_a_compiler_the_error_says_what_to_install(tmp_path):
    (tmp_path / "empty").mkdir()
    done = python(CALL, tmp_path, PATH=str(tmp_path / "empty"), CXX="")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "KeOps could not compile vandermonde with no C++ compiler" in last
    assert "apt-get install g++" in last
    # and is not remembered as compiled
    assert not list(tmp_path.glob("keops-*/*/liquid_ssm_vandermonde*"))


def test_flags_that_change_values_are_refused(tmp_path):
    done = python(CALL, tmp_path, CXXFLAGS="-g -ffast-math")
    assert done.returncode == 1
    assert "CXXFLAGS is '-g -ffast-math'" in done.stderr
    assert "Remove that from CXXFLAGS" in done.stderr


def test_the_flags_of_keops_change_no_value():
    flags = compiling.load().config.pykeops_base.get_cpp_flags().split()
    assert not [flag for flag in flags if flag in compiling.UNSAFE_FLAGS]


def test_a_folder_of_the_user_stands(tmp_path):
    code = "from liquid_ssm.backends.keops_kernels.compiling import load; print(load().get_build_folder())"
    done = python(code, tmp_path / "..", KEOPS_CACHE_FOLDER=str(tmp_path / "own"))
    assert done.stdout.startswith(str(tmp_path / "own"))
    assert done.stderr == ""


def test_a_folder_that_cannot_be_written_to_is_replaced_for_the_process(tmp_path):
    (tmp_path / "file").touch()
    code = (
        "from liquid_ssm.backends.keops_kernels.compiling import load; import os; folder = load().get_build_folder(); "
        "print(os.path.isdir(folder), 'liquid-ssm-keops-' in folder)"
    )
    done = python(code, tmp_path, LIQUID_SSM_CACHE_DIR=str(tmp_path / "file"))
    assert done.stdout.strip() == "True True"
    assert "set LIQUID_SSM_CACHE_DIR to a folder that can be written to" in done.stderr


def test_importing_keops_leaves_the_environment_as_it_was(tmp_path):
    code = (
        "import os; before = dict(os.environ); from liquid_ssm.backends.keops_kernels.compiling import load; load(); "
        "names = ('KEOPS_CACHE_FOLDER', 'PYKEOPS_VERBOSE', 'KEOPS_VERBOSE', 'CXX'); "
        "print([n for n in names if os.environ.get(n) != before.get(n)])"
    )
    assert python(code, tmp_path).stdout.strip() == "[]"


def test_no_size_is_compiled_in():
    def kernel(n_channels, n_modes, length):
        parameters = torch.ones((3, n_channels, n_modes), dtype=torch.complex128)
        return diagonal_kernel(*parameters, length=length, power=1, weight=2, dtype=torch.float64)

    kernel(1, 1, 1)
    folder = compiling.load().get_build_folder()
    before = sorted(os.listdir(folder))
    for sizes in [(1, 1, 2), (1, 7, 1), (3, 1, 300), (2, 200, 5)]:
        assert torch.equal(kernel(*sizes), torch.full(sizes[::2], 2.0 * sizes[1], dtype=torch.float64))
    assert sorted(os.listdir(folder)) == before


def test_fast_maths_is_off(monkeypatch):
    from pykeops.torch import Genred

    seen = {}
    monkeypatch.setattr(
        "pykeops.torch.Genred", lambda *args, **options: seen.update(options) or Genred(*args, **options)
    )
    reduction = compiling.Reduction("sum", "x * y", ("x = Vi(1)", "y = Vj(1)"))
    compiling._operation.__wrapped__(reduction)
    assert seen == {"axis": 1, "use_fast_math": False}


class Recorded:
    """In place of a KeOps operation: the options of its calls."""

    def __init__(self):
        self.options = []

    def __call__(self, x, y, **options):
        self.options.append(options)
        return x


@pytest.fixture
def recorded(monkeypatch):
    operation = Recorded()
    monkeypatch.setattr(compiling, "_operation", lambda reduction: operation)
    monkeypatch.setattr(compiling, "_compiled", {(SUM, "torch.float64", d) for d in ("cpu", "meta")})
    return operation


SUM = compiling.Reduction("sum", "x * y", ("x = Vi(1)", "y = Vj(1)"))


def test_the_device_is_that_of_the_tensors_and_said_outright(recorded, monkeypatch):
    monkeypatch.setattr(compiling.load().config, "gpu_available", True)
    for device, expected in [("cpu", "CPU"), ("meta", "GPU_1D")]:
        x = torch.ones((1, 2, 1), dtype=torch.float64, device=device)
        SUM(x, x)
        assert recorded.options.pop() == {"backend": expected}


def test_a_gpu_that_keops_does_not_find_is_an_error(recorded, monkeypatch):
    monkeypatch.setattr(compiling.load().config, "gpu_available", False)
    x = torch.ones((1, 2, 1), dtype=torch.float64, device="meta")
    with pytest.raises(BackendUnavailable, match=r"KeOps found no CUDA driver with NVRTC.*\.cpu\(\)"):
        SUM(x, x)
    assert not recorded.options


@pytest.mark.parametrize(
    ("names", "given", "expected"),
    [
        (("g++", "clang++"), None, "g++"),
        (("clang++",), None, "clang++"),
        (("clang++", "mine"), "mine", "mine"),
        (("g++",), "not-there", "g++"),
        ((), None, None),
    ],
)
def test_the_compiler_is_cxx_or_one_that_is_there(monkeypatch, names, given, expected):
    monkeypatch.setattr(compiling.shutil, "which", lambda name: f"/bin/{name}" if name in names else None)
    if given is None:
        monkeypatch.delenv("CXX", raising=False)
    else:
        monkeypatch.setenv("CXX", given)
    assert compiling.find_compiler.__wrapped__() == expected
