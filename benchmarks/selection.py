"""What selection costs: a call with a valid certificate next to the same call of the named backend, and a selection.

Run: python benchmarks/selection.py --json PATH
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np

import liquid_ssm as ls
from liquid_ssm import certificate_store
from liquid_ssm.environment import environment
from liquid_ssm.problem import ModeSpec, Problem
from liquid_ssm.report import dump_json
from liquid_ssm.selection import auto
from liquid_ssm.selection.data import canonical

# (batch, channels, modes, length)
CALLS = ((1, 1, 4, 1), (1, 4, 32, 64), (8, 16, 32, 1024), (16, 64, 32, 2048))
SELECTIONS = ((4, 8, 32, 1000), (8, 64, 32, 2048))
MODES = ("s4", "liquid", "truncated", "kb", "pb")


def overhead(shape: tuple[int, int, int, int], dtype: str, strict: bool, pairs: int) -> dict[str, object]:
    """Seconds that a call pays for its certificate: median over alternated pairs of calls, and their quartiles."""
    batch, channels, modes, length = shape
    state = length == 1
    data = canonical(Problem(ModeSpec("liquid"), "diagonal", batch, channels, modes, length, dtype, state=state))
    kind = "certified-only" if strict else "auto"

    def call(backend: str) -> Any:
        return ls.apply(data.system, data.u, mode="liquid", backend=backend, return_state=state)

    call("auto")
    chosen = next(g.certificate.backend for grants in auto._grants.values() for g in grants)
    differences, named = [], []
    for _ in range(pairs):
        start = perf_counter()
        call(chosen)
        middle = perf_counter()
        call(kind)
        end = perf_counter()
        named.append(middle - start)
        differences.append(end - middle - named[-1])
    quarters = np.quantile(differences, [0.25, 0.75]).tolist()
    return {
        "batch": batch, "n_channels": channels, "n_modes": modes, "length": length, "dtype": dtype, "backend": kind,
        "chosen": chosen, "call_seconds": median(named), "overhead_seconds": median(differences),
        "overhead_quartiles": quarters, "pairs": pairs,
    }  # fmt: skip


def selection(shape: tuple[int, int, int, int], mode: str, structure: str, **needs: bool) -> dict[str, object]:
    """Seconds of a second selection: the first one loads and compiles."""
    batch, channels, modes, length = shape
    problem = Problem(ModeSpec(mode), structure, batch, channels, modes, length, "float32", **needs)
    ls.select(problem, again=True)
    start = perf_counter()
    choice = ls.select(problem, again=True)
    seconds = perf_counter() - start
    return {
        "spec": problem.spec.label, "structure": structure, "batch": batch, "n_channels": channels, "n_modes": modes,
        "length": length, "dtype": "float32", **needs, "seconds": seconds, "backend": choice.backend,
        "candidates": {c.name: c.status for c in choice.candidates}, "coverage": choice.certificate.oracle["coverage"],
        "residues": choice.certificate.oracle["residues"],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", required=True, help="where the results go")
    parser.add_argument("--pairs", type=int, default=400, help="pairs of calls per row")
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        certificate_store.cache_folder = lambda: Path(folder)
        calls = []
        for shape, dtype, strict in product(CALLS, ("float32", "float64"), (False, True)):
            auto.forget()
            calls.append(overhead(shape, dtype, strict, given.pairs))
            print(calls[-1])
        selections = []
        for shape, mode, structure in product(SELECTIONS, MODES, ("diagonal", "dplr")):
            selections.append(selection(shape, mode, structure))
            print(selections[-1])
        for needs in ({"gradient": True}, {"state": True}):
            for mode in MODES:
                selections.append(selection(SELECTIONS[0], mode, "diagonal", **needs))
                print(selections[-1])
    document = {"environment": environment(), "calls": calls, "selections": selections}
    Path(given.json).write_text(dump_json(document) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
