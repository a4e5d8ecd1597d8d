"""Measure speed and tightness of bounds on this machine: `python benchmarks/run.py FOLDER [SECONDS]`.

Writes FOLDER/speed.json (the grid `full` of `liquid-ssm bench`, targets included), FOLDER/operators.json (the grid
`operators`), FOLDER/tightness.json, and FOLDER/*.png, and prints the tables.  SECONDS ends the measuring of speed, 1500
by default; rows that it cuts off are listed.  Only ratios within one run mean anything.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tightness import LIMITS, complaints, show, tightness

from liquid_ssm.bench.plots import draw
from liquid_ssm.bench.result import Result
from liquid_ssm.bench.run import bench
from liquid_ssm.bench.tables import text
from liquid_ssm.console import progress
from liquid_ssm.environment import environment

BUDGET = 1500.0


def main(folder: Path, budget: float) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with progress(quiet=False) as step:
        result = bench("full", budget=budget, progress=step)
    write_speed(folder, result)
    with progress(quiet=False) as step:
        operators = bench("operators", progress=step)
    (folder / "operators.json").write_text(operators.to_json() + "\n", encoding="utf-8")
    print(text(operators))
    bounds = tightness()
    document = {"environment": environment(), "limits": LIMITS, "rows": bounds}
    (folder / "tightness.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(f"\n{show(bounds)}")
    found = complaints(bounds)
    if found:
        raise SystemExit("\n".join(found))


def write_speed(folder: Path, result: Result) -> None:
    """speed.json and the plots of a result, and its tables on standard output."""
    (folder / "speed.json").write_text(result.to_json() + "\n", encoding="utf-8")
    draw(result, folder)
    print(text(result))


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        raise SystemExit(f"usage: python {sys.argv[0]} FOLDER [SECONDS]")
    main(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) == 3 else BUDGET)
