from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from liquid_ssm import machine
from liquid_ssm.machine import (
    _first_processor,
    c_library,
    compiler_version,
    cores,
    cpp_compiler,
    cpu_features,
    cpu_model,
    cpu_quota,
    memory,
    nvidia_driver,
)


@pytest.fixture(autouse=True)
def _nothing_is_remembered() -> object:
    remembered = (cpu_model, cpu_features, c_library, compiler_version, nvidia_driver)
    for function in remembered:
        function.cache_clear()
    yield
    for function in remembered:
        function.cache_clear()


def test_this_machine() -> None:
    total, usable = cores()
    assert 1 <= usable <= total
    assert cpu_model()
    assert c_library()
    amount = memory()
    assert amount is None or amount > 2**28
    quota = cpu_quota()
    assert quota is None or quota > 0


def test_only_the_first_processor_is_read(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: A: B\nflags\t\t: fma\n\nmodel name\t: C\n")
    assert _first_processor(tmp_path / "cpuinfo") == {"processor": "0", "model name": "A: B", "flags": "fma"}
    assert _first_processor(tmp_path / "none") == {}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not describe processors in /proc/cpuinfo")
@pytest.mark.parametrize(
    ("fields", "model", "features"),
    [
        ({"model name": "Xeon", "flags": "fpu smep avx2 fma sse2 avx512f"}, "Xeon", ("avx2", "avx512f", "fma", "sse2")),
        (
            {"CPU implementer": "0x41", "CPU part": "0xd40", "Features": "fp asimd sve sha1"},
            "Arm Neoverse V1",
            ("asimd", "sve"),
        ),
        ({"CPU implementer": "0x41", "CPU part": "0xfff"}, "Arm design 0xfff", ()),
    ],
)
def test_processors(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, str], model: str, features: tuple[str, ...]
) -> None:
    monkeypatch.setattr(machine, "_first_processor", lambda: fields)
    assert cpu_model() == model
    assert cpu_features() == features


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_quota_of_version_2_is_the_smallest_of_all_groups_around(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "0::/outer/inner\n")
    assert cpu_quota(tmp_path) is None
    write(tmp_path / "sys/fs/cgroup/outer/inner/cpu.max", "max 100000\n")
    assert cpu_quota(tmp_path) is None
    write(tmp_path / "sys/fs/cgroup/outer/cpu.max", "150000 100000\n")
    assert cpu_quota(tmp_path) == 1.5
    write(tmp_path / "sys/fs/cgroup/cpu.max", "400000 100000\n")
    assert cpu_quota(tmp_path) == 1.5
    write(tmp_path / "sys/fs/cgroup/outer/inner/cpu.max", "50000 100000\n")
    assert cpu_quota(tmp_path) == 0.5


def test_quota_of_a_container_that_sees_its_own_group_only(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "0::/docker/1ac1\n")
    write(tmp_path / "sys/fs/cgroup/cpu.max", "200000 100000\n")
    assert cpu_quota(tmp_path) == 2


@pytest.mark.parametrize("mount", ["cpu,cpuacct", "cpu"])
def test_quota_of_version_1(tmp_path: Path, mount: str) -> None:
    write(tmp_path / "proc/self/cgroup", "4:memory:/m\n1:cpu,cpuacct:/group\n")
    folder = tmp_path / "sys/fs/cgroup" / mount / "group"
    write(folder / "cpu.cfs_period_us", "100000\n")
    write(folder / "cpu.cfs_quota_us", "-1\n")
    assert cpu_quota(tmp_path) is None
    write(folder / "cpu.cfs_quota_us", "250000\n")
    assert cpu_quota(tmp_path) == 2.5


@pytest.mark.parametrize("text", ["", "garbage", "1 0", "1 x"])
def test_quota_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    write(tmp_path / "proc/self/cgroup", "0::/\n")
    write(tmp_path / "sys/fs/cgroup/cpu.max", text)
    assert cpu_quota(tmp_path) is None


def program(path: Path, text: str) -> Path:
    write(path, f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.mark.skipif(os.name == "nt", reason="the stand-ins for programs are shell scripts")
def test_compilers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cpp_compiler() is None
    clang = program(tmp_path / "clang++", "echo usage; exit 1")
    assert cpp_compiler() == str(clang)
    assert compiler_version(str(clang)) == f"{clang}, which does not tell its version"
    gcc = program(tmp_path / "g++", "echo 'g++ 99.1'; echo more")
    assert cpp_compiler() == str(gcc)
    assert compiler_version(str(gcc)) == "g++ 99.1"
    other = program(tmp_path / "other", "exit 0")
    monkeypatch.setenv("CXX", "other")
    assert cpp_compiler() == str(other)
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert cpp_compiler() == str(gcc)


@pytest.mark.skipif(os.name == "nt", reason="the stand-ins for programs are shell scripts")
def test_drivers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    said = tmp_path / "version"
    assert nvidia_driver(said) == "none found"
    nvidia_driver.cache_clear()
    program(tmp_path / "nvidia-smi", "echo 551.23")
    assert nvidia_driver(said) == "551.23"
    nvidia_driver.cache_clear()
    said.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5\nGCC version: gcc 12.2.0\n")
    assert nvidia_driver(said) == "550.54.15"
