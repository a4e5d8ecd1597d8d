"""Kernels are compiled for an H100 by Triton and ptxas, which need no GPU: nothing is spilled to memory."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

_TOOLS = Path(find_spec("triton").origin).parent / "backends" / "nvidia" / "bin"

# In a process of its own: here kernels may be interpreted.
_PROGRAM = """
import re, subprocess, sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from liquid_ssm.backends.triton_kernels import configurations as c
from liquid_ssm.backends.triton_kernels.added_correlations import ROWS, LOG, added_correlations_kernel
from liquid_ssm.backends.triton_kernels.pieces import summary_kernel
from liquid_ssm.backends.triton_kernels.recurrence import recurrence_kernel
from liquid_ssm.backends.triton_kernels.recurrence_adjoint import adjoint_kernel
from liquid_ssm.backends.triton_kernels.vandermonde import DEPTH, TILE, table_product_kernel

def compiled(kernel, constants, num_warps=4, enable_fp_fusion=True, real="fp32"):
    names = kernel.arg_names
    kinds = {n: "constexpr" if n in constants else "*" + real if n.endswith("_ptr") else "i32" for n in names}
    places = {(names.index(n),): value for n, value in constants.items()}
    aligned = {(i,): [["tt.divisibility", 16]] for i, n in enumerate(names) if kinds[n] != "constexpr"}
    source = ASTSource(kernel, kinds, constexprs=places, attrs=aligned)
    options = {"num_warps": num_warps, "enable_fp_fusion": enable_fp_fusion}
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["cubin"]

def laid_out(kernel, configuration, real="fp32", **constants):
    options = configuration.options(coupled=constants.get("RANK", 0) > 0)
    extra = {k: options.pop(k) for k in ("ROWS", "MODES", "LOG")}
    return compiled(kernel, {**constants, **extra}, real=real, **options)

def form(kind, order, rank=0):
    return {"KIND": kind, "ORDER": order, "RANK": rank, "PAIRED": True}

rows, modes = 512, 32
forward = lambda order, coupled=False: c.forward_configurations(rows, modes, order=order, coupled=coupled)
adjoint = lambda order, coupled=False: c.adjoint_configurations(rows, modes, order=order, coupled=coupled)
cubins = {}
for i, configuration in enumerate(forward(1)):
    cubins[f"liquid {i}"] = laid_out(recurrence_kernel, configuration, **form(1, 1), WRITE_Y=True, KEPT=0)
cubins["liquid float64"] = laid_out(recurrence_kernel, forward(1)[0], "fp64", **form(1, 1), WRITE_Y=True, KEPT=0)
cubins["kept"] = laid_out(recurrence_kernel, forward(1)[0], **form(1, 1), WRITE_Y=False, KEPT=64)
cubins["truncated 3"] = laid_out(recurrence_kernel, forward(3)[0], **form(2, 3), WRITE_Y=True, KEPT=0)
cubins["chain 4"] = laid_out(recurrence_kernel, forward(4)[0], **form(3, 4), WRITE_Y=True, KEPT=0)
cubins["dplr"] = laid_out(recurrence_kernel, forward(1, True)[0], **form(1, 1, 1), WRITE_Y=True, KEPT=0)
cubins["liquid adjoint"] = laid_out(adjoint_kernel, adjoint(1)[0], **form(1, 1), KEPT=64)
cubins["truncated 3 adjoint"] = laid_out(adjoint_kernel, adjoint(3)[0], **form(2, 3), KEPT=64)
cubins["dplr adjoint"] = laid_out(adjoint_kernel, adjoint(1, True)[0], **form(1, 1, 1), KEPT=64)
cubins["pieces"] = laid_out(summary_kernel, c.piece_configuration(forward(1)[0]), KIND=1)
cubins["elementary"] = compiled(
    added_correlations_kernel, {"ORDER": 3, "ELEMENTARY": True, "ROWS": ROWS, "LOG": LOG}, num_warps=1
)
cubins["table product"] = compiled(table_product_kernel, {"TILE_G": TILE, "TILE_B": TILE, "DEPTH": DEPTH})
for name, cubin in cubins.items():
    open("kernel.cubin", "wb").write(cubin)
    tool = [sys.argv[1], "-res-usage", "kernel.cubin"]
    text = subprocess.run(tool, capture_output=True, text=True, check=True).stdout
    stack, local = (int(re.search(key + r":(\\d+)", text).group(1)) for key in ("STACK", "LOCAL"))
    print(f"{name}: stack {stack} local {local}")
"""


@pytest.mark.skipif(not (_TOOLS / "cuobjdump").exists(), reason="this Triton brings no tools for CUDA")
def test_no_kernel_spills_on_an_h100(tmp_path):
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path / "cache")}
    script = tmp_path / "compile_kernels.py"
    script.write_text(_PROGRAM)
    done = subprocess.run(
        [sys.executable, str(script), str(_TOOLS / "cuobjdump")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 15
    assert [line for line in lines if not line.endswith("stack 0 local 0")] == []
