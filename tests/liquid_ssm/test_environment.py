from __future__ import annotations

import platform
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from liquid_ssm.environment import environment, matmul_precision, package_version


def test_environment_names_what_a_result_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    found = environment()
    assert found["python"].endswith(platform.python_version())
    assert found["numpy"] == np.__version__
    assert found["OMP_NUM_THREADS"] == "3"
    assert "MKL_NUM_THREADS" not in found
    for name in ("liquid-ssm", "scipy", "mpmath", "python-flint", "blas", "platform", "cpu", "cores"):
        assert found[name]
    assert all(isinstance(value, str) for value in found.values())


def test_what_decides_how_torch_rounds_is_there() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("highest")
        usual = environment()
        torch.set_float32_matmul_precision("medium")
        changed = environment()
    finally:
        torch.set_float32_matmul_precision(before)
    differing = {name for name, value in usual.items() if changed[name] != value}
    assert "torch float32 matmul" in differing
    assert all(name.startswith("torch float32 matmul") for name in differing)
    assert usual["torch deterministic algorithms"] == "False"
    assert usual["torch device"]


def test_a_missing_package_is_said() -> None:
    assert package_version("no-such-distribution-0") == "not installed"


def test_older_versions_of_torch_have_one_precision_for_all_libraries() -> None:
    older = SimpleNamespace(backends=SimpleNamespace(), get_float32_matmul_precision=lambda: "highest")
    assert matmul_precision(older, "mkldnn") == "highest"
    # Newer ones have one for each, and some refuse to be asked for the common one.
    own = SimpleNamespace(mkldnn=SimpleNamespace(matmul=SimpleNamespace(fp32_precision="bf16")))
    assert matmul_precision(SimpleNamespace(backends=own), "mkldnn") == "bf16"
