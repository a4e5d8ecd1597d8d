"""What flags of torch are read as."""

from __future__ import annotations

import pytest
import torch

from liquid_ssm.backends.eager.precision import factor_dtype


@pytest.fixture(autouse=True)
def flags_as_before():
    yield
    torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:1", "xpu"])
def test_by_default_no_factor_is_rounded(device):
    assert factor_dtype("float32", device) is None


@pytest.mark.parametrize("device", ["cpu", "cuda:0", "xpu"])
def test_lower_precision_is_that_of_tf32(device):
    torch.set_float32_matmul_precision("high")
    assert factor_dtype("float32", device) == "tf32"
    assert factor_dtype("float64", device) is None


def test_the_lowest_precision_is_bfloat16_where_there_are_such_products():
    torch.set_float32_matmul_precision("medium")
    assert factor_dtype("float32", "cpu") == "bfloat16"
    assert factor_dtype("float32", "cuda") in ("tf32", "bfloat16")


def test_the_flag_of_one_library_says_nothing_of_another():
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        assert factor_dtype("float32", "cuda") == "tf32"
        assert factor_dtype("float32", "cpu") is None
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False


def test_without_flags_of_libraries_the_common_one_counts(monkeypatch):
    class Old:
        allow_tf32 = False

    monkeypatch.setattr(torch.backends.cuda, "matmul", Old)
    monkeypatch.setattr(torch.backends.mkldnn, "matmul", Old)
    assert factor_dtype("float32", "cuda") is None
    torch._C._set_float32_matmul_precision("medium")
    assert factor_dtype("float32", "cpu") == "bfloat16"
    assert factor_dtype("float32", "cuda") == "bfloat16"
    torch._C._set_float32_matmul_precision("highest")
    Old.allow_tf32 = True
    assert factor_dtype("float32", "cuda") == "tf32"
    assert factor_dtype("float32", "cpu") is None
