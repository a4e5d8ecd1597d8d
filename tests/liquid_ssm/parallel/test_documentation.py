"""The script of docs/parallel.md gives the losses of one process under torchrun; its table is what was measured."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "parallel.md").read_text(encoding="utf-8")
RESULT = ROOT / "benchmarks" / "results" / "epyc-2-cores" / "sequence_parallel.json"


def losses(script: Path, size: int) -> list[float]:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(size),
        str(script),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=200, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    return [float(loss) for loss in re.findall(r"loss (\d+\.\d{4})", done.stdout)]


def test_the_script_gives_the_losses_of_one_process(tmp_path):
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    script = tmp_path / "train.py"
    script.write_text(code, encoding="utf-8")
    one, two = losses(script, 1), losses(script, 2)
    assert len(one) == len(two) == 3
    # Float32's rounding is far below the four digits that are printed, of which the last may round either way.
    assert one == pytest.approx(two, rel=0, abs=1.5e-4)
    assert one[2] < one[0]


def test_the_table_of_exchanges_is_what_was_measured_and_has_no_length_in_it():
    measured = json.loads(RESULT.read_text(encoding="utf-8"))["sizes"]
    rows = re.findall(r"^\| (\d+) \| (\d+) \| `(\w+)`(?:, P = (\d))? \| (.*) \|$", PAGE, re.MULTILINE)
    assert len(rows) == 6
    for batch, n_channels, mode, order, cells in rows:
        header, states, closing, cotangents, formula = (int(cell.replace(",", "")) for cell in cells.split(" | "))
        chosen = [
            row
            for row in measured
            if (row["batch"], row["n_channels"], row["mode"]) == (int(batch), int(n_channels), mode)
        ]
        assert {row["ranks"] for row in chosen} == {2, 4}
        assert len({row["length"] for row in chosen}) == 3
        for row in chosen:
            found = (row["header"], row["states"], row["closing"], row["cotangents"])
            assert found == (header, states, closing, cotangents)
            assert formula == 16 * row["batch"] * row["n_channels"] * row["n_modes"] * int(order or 1) == states - 1024
