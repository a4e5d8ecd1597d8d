"""What torch's flags let a matrix product of float32 numbers round its factors to."""

from __future__ import annotations

from typing import Literal

import torch

FactorDtype = Literal["tf32", "bfloat16"]

_FORMATS: dict[str, FactorDtype] = {"tf32": "tf32", "bf16": "bfloat16", "high": "tf32", "medium": "bfloat16"}
# Which part of torch multiplies matrices where.
_LIBRARIES = {"cuda": "cuda", "cpu": "mkldnn"}


def factor_dtype(dtype: str, device: str) -> FactorDtype | None:
    """The format, as the flags are now; None where factors stay what they are, float64 ones always.

    Args:
        dtype: `float32` or `float64`.
        device: `cpu`, `cuda`, `cuda:1`, …
    """
    if dtype != "float32":
        return None
    library = getattr(torch.backends, _LIBRARIES.get(device.partition(":")[0], ""), None)
    # Since torch 2.9 each library has a flag of its own, and asking for the old one may raise.
    own = getattr(getattr(library, "matmul", None), "fp32_precision", None)
    if own is not None:
        return _FORMATS.get(own)
    if library is torch.backends.cuda and torch.backends.cuda.matmul.allow_tf32:
        return _FORMATS.get(torch.get_float32_matmul_precision(), "tf32")
    return _FORMATS.get(torch.get_float32_matmul_precision())
