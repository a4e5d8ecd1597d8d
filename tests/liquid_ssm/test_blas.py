from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from liquid_ssm import blas
from liquid_ssm.blas import ARM_KERNELS, X86_KERNELS, description, kernels, name_and_version, threads, verdict

AVX2 = ("avx", "avx2", "fma", "sse2")
AVX512 = (*AVX2, "avx512f", "avx512dq", "avx512cd", "avx512bw", "avx512vl")


def test_the_library_is_described() -> None:
    name, version = name_and_version()
    assert description().startswith(f"{name} {version}".strip())
    assert kernels() in description()


def test_a_numpy_without_bundled_openblas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "numpy").mkdir()
    monkeypatch.setattr(blas, "_numpy_folder", lambda: tmp_path / "numpy")
    assert kernels() == ""
    assert threads() is None
    assert "kernels" not in description()


@pytest.mark.parametrize(
    ("chosen", "features", "machine", "asked", "said"),
    [
        ("SkylakeX", AVX512, "x86_64", None, "right: SkylakeX kernels use AVX-512, the widest that this CPU has"),
        ("SapphireRapids", AVX512, "x86_64", "SapphireRapids", "right: "),
        ("Haswell", AVX2, "AMD64", None, "right: Haswell kernels use AVX2"),
        ("Zen", AVX2, "x86_64", None, "right: "),
        ("Nehalem", ("sse2",), "x86_64", None, "right: "),
        ("Haswell", AVX512, "x86_64", "Haswell", "wrong: Haswell kernels use AVX2 though this CPU has AVX-512; unset "),
        ("Prescott", AVX2, "x86_64", None, "wrong: Prescott kernels use SSE though this CPU has AVX2; OpenBLAS does "),
        # AVX-512 without all of its parts has no kernels of its own.
        ("Haswell", (*AVX2, "avx512f"), "x86_64", None, "right: "),
        ("Haswell", ("avx", "avx2", "sse2"), "x86_64", "Haswell", "wrong: Haswell kernels need AVX2, which this CPU"),
        ("neoversev1", ("asimd", "sve"), "aarch64", None, "right: neoversev1 kernels use SVE"),
        ("neoversen1", ("asimd",), "aarch64", None, "right: "),
        ("neoversen1", ("asimd", "sve"), "arm64", None, "wrong: neoversen1 kernels use Advanced SIMD though"),
        ("armv8", ("asimd",), "aarch64", None, "unknown (nothing is known here about armv8 kernels on aarch64)"),
        ("POWER10", (), "ppc64le", None, "unknown (nothing is known"),
        ("Haswell", (), "x86_64", None, "unknown (this system does not tell"),
        ("", AVX2, "x86_64", None, "unknown (OpenBLAS does not tell which kernels it runs)"),
    ],
)
def test_verdict(chosen: str, features: tuple[str, ...], machine: str, asked: str | None, said: str) -> None:
    assert verdict(chosen, features, machine, asked).startswith(said)


def test_what_to_do_about_wrong_kernels() -> None:
    assert verdict("Haswell", AVX512, "x86_64", "Haswell").endswith("unset OPENBLAS_CORETYPE, which is Haswell")
    assert verdict("Zen", AVX512, "x86_64", None).endswith("update NumPy, or set OPENBLAS_CORETYPE=SkylakeX")


def test_another_library_is_called_by_its_name() -> None:
    assert verdict("", AVX2, "x86_64", None, "accelerate") == "unknown (accelerate does not tell which kernels it runs)"


def test_no_family_is_in_two_levels() -> None:
    for levels in (X86_KERNELS, ARM_KERNELS):
        names = [name for family in levels.values() for name in family]
        assert len(names) == len(set(names))
        assert all(name == name.lower() for name in names)


@pytest.mark.skipif(
    platform.machine() != "x86_64" or not kernels(), reason="NumPy's BLAS here is no OpenBLAS with kernels to choose"
)
def test_kernels_of_an_openblas_that_was_told_which_to_run() -> None:
    code = (
        "import json, numpy; from liquid_ssm import blas, machine; chosen = blas.kernels(); "
        "print(json.dumps([chosen, blas.verdict(chosen, machine.cpu_features(), 'x86_64', 'Nehalem')]))"
    )
    environment = {**os.environ, "OPENBLAS_CORETYPE": "Nehalem"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    chosen, said = json.loads(done.stdout)
    assert chosen == "Nehalem"
    assert said.startswith(("wrong: Nehalem kernels use SSE though this CPU has AVX", "right", "unknown"))
    assert said.startswith("wrong") == (verdict("Nehalem", blas_features(), "x86_64", None).startswith("wrong"))


def blas_features() -> tuple[str, ...]:
    from liquid_ssm.machine import cpu_features

    return cpu_features()
