"""Every validator is changed once, at its source, and the change is seen and said."""

from __future__ import annotations

import ctypes
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import timeit
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from liquid_ssm import blas, environment, machine
from liquid_ssm import validators as module
from liquid_ssm.errors import BackendUnavailable, ParameterError
from liquid_ssm.validators import CODE_VARIABLES, PACKAGES, THREAD_VARIABLES, changed, forget, live, validators

Change = Callable[[pytest.MonkeyPatch, Path], Any]


@pytest.fixture(autouse=True)
def _nothing_is_remembered() -> Iterator[None]:
    forget()
    yield
    forget()


def package(name: str) -> Change:
    real = importlib.metadata.version

    def change(patch: pytest.MonkeyPatch, _: Path) -> None:
        patch.setattr(environment, "version", lambda asked: "0.0.9" if asked == name else real(asked))

    return change


def variable(name: str) -> Change:
    return lambda patch, _: patch.setenv(name, "7")


def attribute(owner: Any, name: str, value: Any) -> Change:
    return lambda patch, _: patch.setattr(owner, name, value)


def a_source_file(patch: pytest.MonkeyPatch, folder: Path) -> None:
    copies = copied_packages(patch, folder)
    with (copies["liquid_ssm.oracle"] / "exact.py").open("a") as file:
        file.write("\n")


def copied_packages(patch: pytest.MonkeyPatch, folder: Path) -> dict[str, Path]:
    """Copies of the three packages, in which `validators` then looks."""
    real = module.find_spec
    copies = {}
    for name in ("liquid_ssm", "liquid_ssm.backends", "liquid_ssm.oracle"):
        spec = real(name)
        assert spec is not None
        assert spec.submodule_search_locations
        # In an installation the other two lie in the first, whose copy must not hide theirs.
        others = shutil.ignore_patterns(*(["backends", "oracle"] if name == "liquid_ssm" else []), "__pycache__")
        copies[name] = Path(shutil.copytree(spec.submodule_search_locations[0], folder / name, ignore=others))

    def find(name: str) -> ModuleSpec | None:
        if name not in copies:
            return real(name)
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(copies[name])]
        return spec

    patch.setattr(module, "find_spec", find)
    return copies


def a_backend(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """An installed distribution with a backend, as pip would leave it."""
    info = folder / "mine-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[liquid_ssm.backends]\nmine = its_module.inner.backend:Mine\n")
    (folder / "its_module" / "inner").mkdir(parents=True)
    for name in ("__init__", "inner/__init__", "inner/backend", "inner/helper"):
        (folder / "its_module" / f"{name}.py").write_text("raise RuntimeError('imported')\n")
    patch.syspath_prepend(folder)


@contextmanager
def blas_threads() -> Iterator[None]:
    library = blas._openblas(blas._numpy_folder())[0]
    set_threads = getattr(library, "scipy_openblas_set_num_threads64_", None) or library.openblas_set_num_threads64_
    before = blas.threads()
    assert before is not None
    set_threads(1 if before > 1 else 2)
    try:
        yield
    finally:
        set_threads(before)


def a_compiler(patch: pytest.MonkeyPatch, folder: Path) -> None:
    (folder / "g++").write_text("#!/bin/sh\necho 'g++ 99.1'\n")
    (folder / "g++").chmod(0o755)
    patch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def numba_threads(patch: pytest.MonkeyPatch, _: Path) -> None:
    from numba.core import config

    patch.setattr(config, "NUMBA_NUM_THREADS", config.NUMBA_NUM_THREADS + 1)


@contextmanager
def flush() -> Iterator[None]:
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush to zero")
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@contextmanager
def rounding_up() -> Iterator[None]:
    upward = {"x86_64": 0x800, "aarch64": 0x400000, "arm64": 0x400000}.get(platform.machine())
    if upward is None or os.name == "nt":
        pytest.skip(f"how to set the rounding of {platform.machine()} is not known here")
    library = ctypes.CDLL(None if sys.platform == "darwin" else "libm.so.6")
    assert library.fesetround(upward) == 0
    try:
        yield
    finally:
        library.fesetround(0)


@contextmanager
def torch_setting(get: Callable[[], Any], put: Callable[[Any], Any], value: Any) -> Iterator[None]:
    before = get()
    put(value)
    try:
        yield
    finally:
        put(before)


def precision(name: str, value: str) -> Change:
    """The flag of torch that newer versions call by this name below torch.backends."""

    def change(patch: pytest.MonkeyPatch, _: Path) -> Any:
        owner: Any = torch.backends
        for part in name.split("."):
            owner = getattr(owner, part, None)
        if hasattr(owner, "fp32_precision"):
            return torch_setting(lambda: owner.fp32_precision, lambda to: setattr(owner, "fp32_precision", to), value)
        if name.startswith("mkldnn"):
            return torch_setting(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "medium")
        older: Any = torch.backends.cuda.matmul if "matmul" in name else torch.backends.cudnn
        return patch.setattr(older, "allow_tf32", not older.allow_tf32)

    return change


REAL_PROCESSOR = machine._first_processor()
REAL_NUMPY = np.show_config(mode="dicts")

# A change is made by the function, or holds as long as the context that it returns.
CHANGES: dict[str, tuple[Change, str]] = {
    "python": (attribute(platform, "python_version", lambda: "9.9"), r"python was CPython \S+ and is CPython 9\.9"),
    **{name: (package(name), rf"{name} was .+ and is 0\.0\.9") for name in PACKAGES},
    "code": (a_source_file, r"code of liquid_ssm has changed \([0-9a-f]{16} to [0-9a-f]{16}\)"),
    "third-party backends": (
        a_backend,
        r"third-party backends were none and are mine = its_module\.inner\.backend:Mine \(mine 1\.2, code \w{16}\)",
    ),
    "BLAS": (attribute(blas, "kernels", lambda: "Made-up"), "BLAS was .* kernels and is .*, Made-up kernels"),
    "BLAS threads": (lambda *_: blas_threads(), r"BLAS threads were \d+ and are \d+"),
    "NumPy's CPU features": (
        attribute(np, "show_config", lambda mode: {**REAL_NUMPY, "SIMD Extensions": {"baseline": ["OLD"]}}),
        r"NumPy's CPU features have changed: now without .+ and with OLD",
    ),
    "C++ compiler": (a_compiler, r"C\+\+ compiler was .+ and is g\+\+ 99\.1"),
    "system": (attribute(platform, "machine", lambda: "riscv64"), r"system was \w+ \w+ and is \w+ riscv64"),
    "C library": (attribute(os, "confstr", lambda _: "glibc 9.9"), r"C library was .+ and is glibc 9\.9"),
    "CPU": (
        attribute(machine, "_first_processor", lambda: {**REAL_PROCESSOR, "model name": "Other"}),
        "CPU was .+ and is Other",
    ),
    "CPU features": (
        attribute(machine, "_first_processor", lambda: {**REAL_PROCESSOR, "flags": "fma sve9", "Features": "sve9"}),
        "CPU features have changed: now without .+ and with sve9",
    ),
    "usable cores": (
        attribute(os, "sched_getaffinity", lambda _: set(range(77))),
        r"usable cores were \d+ and are 77",
    ),
    "CPU quota": (attribute(machine, "cpu_quota", lambda: 1.5), "CPU quota was .+ and is 1.5 cores"),
    **{name: (variable(name), rf"{name} was .+ and is 7") for name in (*THREAD_VARIABLES, *CODE_VARIABLES)},
    "numba threads": (numba_threads, r"numba threads were \d+ and are \d+"),
    "flush to zero": (lambda *_: flush(), "flush to zero was off and is on"),
    "rounding": (lambda *_: rounding_up(), "rounding was to nearest and is up"),
    "torch float32 matmul": (precision("mkldnn.matmul", "bf16"), "torch float32 matmul was .+ and is (bf16|medium)"),
    "torch float32 matmul on cuda": (
        precision("cuda.matmul", "tf32"),
        "torch float32 matmul on cuda was .+ and is tf32",
    ),
    "torch float32 convolution on cuda": (
        precision("cudnn.conv", "ieee"),
        "torch float32 convolution on cuda was .+ and is (ieee|none)",
    ),
    "torch deterministic algorithms": (
        lambda *_: torch_setting(torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms, True),
        "torch deterministic algorithms was False and is True",
    ),
    "torch threads": (
        lambda *_: torch_setting(torch.get_num_threads, torch.set_num_threads, torch.get_num_threads() + 1),
        r"torch threads were \d+ and are \d+",
    ),
    "torch CPU capability": (
        attribute(torch.backends.cpu, "get_cpu_capability", lambda: "MADE-UP"),
        "torch CPU capability was .+ and is MADE-UP",
    ),
    "TRITON_INTERPRET": (variable("TRITON_INTERPRET"), "TRITON_INTERPRET was .+ and is 7"),
}
# What follows from the change of another.
FOLLOWING = {
    "usable cores": {"numba threads"},
    "NUMBA_NUM_THREADS": {"numba threads"},
    "CXX": {"C++ compiler"},
    "numba": {"numba threads"},
    "pykeops": {"C++ compiler"},
}


def test_every_validator_is_changed_below() -> None:
    assert set(CHANGES) == set(validators("torch", "cpu"))


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_seen_and_said(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if name == "BLAS threads" and blas.threads() is None:
        pytest.skip("NumPy's BLAS here does not tell its threads")
    monkeypatch.delenv("CXX", raising=False)
    change, said = CHANGES[name]
    before = validators("torch", "cpu")
    assert changed(before, validators("torch", "cpu")) == []
    held = change(monkeypatch, tmp_path)
    forget()
    if hasattr(held, "__enter__"):
        with held:
            after = validators("torch", "cpu")
    else:
        after = validators("torch", "cpu")
    differing = {key for key in before if before[key] != after[key]}
    assert name in differing
    assert differing <= {name, *FOLLOWING.get(name, set())}
    sentences = changed(before, after)
    assert len(sentences) == len(differing)
    assert [sentence for sentence in sentences if re.fullmatch(said, sentence)], sentences


def test_every_value_is_text_and_says_something() -> None:
    assert all(isinstance(value, str) and value for value in validators("torch", "cpu").values())
    assert set(validators("numpy")) < set(validators("torch"))


def test_what_cannot_change_is_found_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = validators()
    monkeypatch.setattr(environment, "version", lambda _: "0.0.9")
    assert validators() == first
    assert min(timeit.repeat(validators, number=1, repeat=5)) < 0.03
    forget()
    assert validators()["numpy"] == "0.0.9"


@pytest.mark.parametrize("change", ["edit", "new", "gone", "renamed", "moved line"])
@pytest.mark.parametrize("where", ["liquid_ssm", "liquid_ssm.backends", "liquid_ssm.oracle"])
def test_code(where: str, change: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = validators()["code"]
    folder = copied_packages(monkeypatch, tmp_path)[where]
    forget()
    # The place does not matter, nor does what is no code.
    (folder / "notes.txt").write_text("x")
    assert validators()["code"] == real
    first, second = sorted(folder.rglob("*.py"), key=lambda path: -path.stat().st_size)[:2]
    if change == "edit":
        first.write_bytes(first.read_bytes().replace(b"return", b"retorn", 1))
    elif change == "new":
        (folder / "new.py").touch()
    elif change == "gone":
        first.unlink()
    elif change == "renamed":
        first.rename(first.with_name("renamed.py"))
    else:
        last = second.read_bytes()[-1:]
        second.write_bytes(second.read_bytes()[:-1])
        first.write_bytes(last + first.read_bytes())
    forget()
    assert validators()["code"] != real


def test_code_beside_the_package_in_a_checkout_does_not_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    copied_packages(monkeypatch, tmp_path)
    before, find = validators()["code"], module.find_spec
    (tmp_path / "beside.py").touch()

    def find_with_checkout(name: str) -> ModuleSpec | None:
        spec = find(name)
        if name == "liquid_ssm":
            assert spec is not None
            assert spec.submodule_search_locations is not None
            spec.submodule_search_locations.append(str(tmp_path))
        return spec

    monkeypatch.setattr(module, "find_spec", find_with_checkout)
    forget()
    assert validators()["code"] == before


@pytest.mark.parametrize("name", ["inner/backend", "inner/helper"])
def test_code_of_a_third_party_backend(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    a_backend(monkeypatch, tmp_path)
    before = validators()
    (tmp_path / "its_module" / f"{name}.py").write_text("different = True\n")
    forget()
    (sentence,) = changed(before, validators())
    assert sentence.startswith("third-party backends were mine = its_module.inner.backend:Mine (mine 1.2, code ")
    assert "its_module" not in sys.modules


@pytest.mark.parametrize(
    ("target", "files"),
    [
        ("single_file:B", ["single_file.py"]),
        ("whole_package:B", ["whole_package/__init__.py", "whole_package/sub/deep.py"]),
        ("whole_package.sub:B", ["whole_package/sub/deep.py"]),
        ("whole_package.sub.deep:B", ["whole_package/sub/deep.py"]),
        ("no_such_module:B", []),
        (":B", []),
    ],
)
def test_which_files_are_a_backends(
    target: str, files: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("single_file.py", "whole_package/__init__.py", "whole_package/sub/deep.py", "other.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.syspath_prepend(tmp_path)
    found = [path.relative_to(tmp_path).as_posix() for _, path in module._module_files(target.partition(":")[0])]
    assert sorted(found) == files


def test_a_backend_whose_module_is_gone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    a_backend(monkeypatch, tmp_path)
    shutil.rmtree(tmp_path / "its_module")
    assert validators()["third-party backends"] == "mine = its_module.inner.backend:Mine (mine 1.2, no such file)"


def test_a_package_that_is_gone_and_one_that_has_come() -> None:
    here = {"numba": "0.61.2", "torch": "not installed"}
    there = {"numba": "not installed", "torch": "2.9.1"}
    assert changed(here, there) == [
        "numba was 0.61.2 and is not installed",
        "torch was not installed and is 2.9.1",
    ]


def test_keys_on_one_side_only() -> None:
    assert changed({"numpy": "2.0", "old": "x"}, {"numpy": "2.0", "numba threads": "2"}) == [
        "numba threads were not recorded and are 2",
        "old was x and is not known here",
    ]
    assert changed({"CPU features": "avx fma"}, {"CPU features": "fma"}) == [
        "CPU features have changed: now without avx"
    ]
    assert changed({}, {}) == []


def test_numba_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "numba.core.config", raising=False)
    monkeypatch.setattr(module, "package_version", lambda name: "not installed")
    found = validators()
    assert found["numba threads"] == found["numba"] == "not installed"
    assert found["C++ compiler"] == "not needed without pykeops"


@pytest.mark.parametrize("number", ["", "3", "many"])
def test_processes_agree_whatever_they_have_imported(number: str) -> None:
    code = "import json; from liquid_ssm.validators import validators; print(json.dumps(validators()))"
    environment = {**os.environ, "NUMBA_NUM_THREADS": number} if number else dict(os.environ)
    found = [
        json.loads(
            subprocess.run(
                [sys.executable, "-W", "ignore", "-c", f"{first}\n{code}"],
                capture_output=True,
                text=True,
                check=True,
                env=environment,
            ).stdout.splitlines()[-1]
        )
        for first in ("", "import numba, scipy.linalg, torch")
    ]
    assert changed(*found) == []
    if number == "3":
        assert found[0]["numba threads"] == "3"


def test_flush_to_zero_is_that_of_the_calling_thread() -> None:
    found: dict[str, object] = {}

    def other() -> None:
        with flush():
            found["other"] = validators()["flush to zero"]
            found["live"] = live()

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert found["other"] == "on"
    assert found["live"] != live()
    assert validators()["flush to zero"] == "off"


def test_live_sees_what_changes_in_a_running_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (
        *("flush to zero", "rounding", "torch float32 matmul", "torch float32 matmul on cuda"),
        *("torch float32 convolution on cuda", "torch deterministic algorithms", "torch threads"),
    ):
        before = live("torch")
        with pytest.MonkeyPatch.context() as patch:
            held = CHANGES[name][0](patch, tmp_path)
            if hasattr(held, "__enter__"):
                with held:
                    during = live("torch")
            else:
                during = live("torch")
        assert during != before, name
        assert live("torch") == before, name
    before = live()
    numba_threads(monkeypatch, tmp_path)
    assert live() != before
    assert live("torch")[: len(before)] == live()


def test_live_takes_no_time_and_imports_nothing() -> None:
    for arrays in ("numpy", "torch"):
        live(arrays)
        # Some 0.4 and 1.7 µs where this was written; the machines that run this are slower, and shared.
        assert min(timeit.repeat(lambda arrays=arrays: live(arrays), number=1000, repeat=20)) < 1000 * 8e-6
    code = (
        "import sys; from liquid_ssm.validators import live; before = live('torch')\n"
        "assert not {'numba', 'torch', 'scipy'} & set(sys.modules)\n"
        "import numba\n"
        "assert live('torch') == before, before"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def fake_torch(**changes: Any) -> ModuleType:
    """A torch that sees a GPU; as old as the flag `allow_tf32`."""
    values = {
        "name": "H100",
        "capability": (9, 0),
        "cuda": "12.4",
        "hip": None,
        "cudnn": 90100,
        "tf32": False,
    } | changes
    fake: Any = ModuleType("torch")
    fake._C = SimpleNamespace()
    fake.cuda = SimpleNamespace(
        get_device_name=lambda device: f"{values['name']} at {device}",
        get_device_capability=lambda device: values["capability"],
    )
    fake.version = SimpleNamespace(cuda=values["cuda"], hip=values["hip"])
    fake.backends = SimpleNamespace(
        cpu=SimpleNamespace(get_cpu_capability=lambda: "AVX2"),
        cuda=SimpleNamespace(matmul=SimpleNamespace(allow_tf32=values["tf32"])),
        cudnn=SimpleNamespace(version=lambda: values["cudnn"], allow_tf32=values["tf32"]),
    )
    fake.get_float32_matmul_precision = lambda: "highest"
    fake.are_deterministic_algorithms_enabled = lambda: False
    fake.get_num_threads = lambda: 4
    return fake  # type: ignore[no-any-return]


CUDA_CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "GPU": ({"name": "H200"}, "GPU was H100 at cuda:1 and is H200 at cuda:1"),
    "GPU compute capability": ({"capability": (8, 6)}, "GPU compute capability was 9.0 and is 8.6"),
    "GPU driver": ({}, "GPU driver was 550.1 and is 560.2"),
    "CUDA": ({"cuda": None, "hip": "6.1"}, "CUDA was 12.4 and is HIP 6.1"),
    "cuDNN": ({"cudnn": 90200}, "cuDNN was 90100 and is 90200"),
    "NVIDIA_TF32_OVERRIDE": ({}, "NVIDIA_TF32_OVERRIDE was not set and is 1"),
}


@pytest.mark.parametrize("name", CUDA_CHANGES)
def test_changes_of_a_gpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    driver = ["550.1"]
    monkeypatch.setattr(machine, "nvidia_driver", Driver(driver))
    monkeypatch.setitem(sys.modules, "torch", fake_torch())
    before = validators("torch", "cuda:1")
    assert set(before) == set(CHANGES) | set(CUDA_CHANGES)
    changes, said = CUDA_CHANGES[name]
    monkeypatch.setitem(sys.modules, "torch", fake_torch(**changes))
    if name == "GPU driver":
        driver[0] = "560.2"
    elif name == "NVIDIA_TF32_OVERRIDE":
        monkeypatch.setenv(name, "1")
    assert changed(before, validators("torch", "cuda:1")) == [said]


class Driver:
    """Stands in for `machine.nvidia_driver`, which remembers."""

    def __init__(self, version: list[str]) -> None:
        self.version = version

    def __call__(self) -> str:
        return self.version[0]

    def cache_clear(self) -> None:
        """Nothing is remembered."""


def test_flags_of_an_older_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", fake_torch())
    before, first = validators("torch"), live("torch")
    monkeypatch.setitem(sys.modules, "torch", fake_torch(tf32=True))
    assert changed(before, validators("torch")) == [
        "torch float32 matmul on cuda was none and is tf32",
        "torch float32 convolution on cuda was none and is tf32",
    ]
    assert live("torch") != first


def test_a_gpu_adds_to_numpy_arrays_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", fake_torch())
    assert set(validators("numpy", "cuda")) - set(validators("numpy")) == set(CUDA_CHANGES)


def test_what_cannot_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ParameterError, match="unknown kind of arrays 'jax'; allowed: numpy, torch"):
        validators("jax")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(BackendUnavailable, match=r"pip install 'liquid-ssm\[torch\]'"):
        validators("torch")
