"""How far the error bounds are from the errors: `python benchmarks/tightness.py [--cases N] [--json PATH]`.

A case is one output of one backend for a generated system and signal, in one mode and dtype, compared with the
oracle's value in extended precision.  Per backend, structure, mode and dtype the program prints the median and the
largest bound/observed, and the largest observed/bound.  It exits with 1 if an error exceeds its bound, if a bound
is infinite, or if a median is above 100 where bounds hold step by step, or above 300 where they hold in the
2-norm over time because an FFT mixes the errors of all steps.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

import liquid_ssm as ls
from liquid_ssm.compute import problem_of
from liquid_ssm.environment import environment
from liquid_ssm.errors import UnstableRecurrence
from liquid_ssm.oracle.metrics import absolute_error
from liquid_ssm.oracle.reference import Bound, reference
from liquid_ssm.problem import CORRELATIONS, DTYPES, ModeSpec
from liquid_ssm.registry import backend_names, get_backend, rejection
from liquid_ssm.rounding_errors import options, realization_of, rounding_model
from liquid_ssm.testing.strategies import DISCRETE_STRUCTURES, random_system

LIMITS = {"componentwise": 100.0, "normwise": 300.0}  # of the median of bound/observed
DECAYS, DRIVES = (0.0, 1e-3, 0.1, 1.0), (1e-3, 0.1, 0.3)

Key = tuple[str, str, str, str, str]  # backend, structure, mode, dtype, kind of bound
Case = tuple[Key, float, bool]  # observed/bound, and whether it is certainly above 1


def specs(structure: str, order: int, window: int) -> list[ModeSpec]:
    """Every form of every mode that a structure has."""
    forms = [ModeSpec("s4"), ModeSpec("liquid"), ModeSpec("truncated", order)]
    if structure != "mimo":
        forms += [ModeSpec(m, order, c, w) for m in ("kb", "pb") for c in CORRELATIONS for w in (None, window)]
    return forms


def label(spec: ModeSpec) -> str:
    """The mode and what makes it another algorithm, without numbers."""
    if not spec.has_correlations:
        return spec.mode
    return f"{spec.mode}({spec.correlations}{', window' if spec.window is not None else ''})"


def draw(structure: str, seed: int) -> tuple[Any, np.ndarray, int, int]:
    """A system, a signal (batch, H, L), an order and a window."""
    rng = np.random.default_rng([DISCRETE_STRUCTURES.index(structure), seed])
    system = random_system(
        structure,
        n_channels=int(rng.integers(1, 3)),
        n_modes=int(rng.integers(1, 9)),
        seed=seed,
        decay=float(rng.choice(DECAYS)),
        drive=float(rng.choice(DRIVES)),
        rank=int(rng.integers(1, 3)) if structure == "dplr" else 1,
        conjugate_pairs=structure != "dense" and bool(rng.integers(2)),
    )
    # lengths by their logarithm: short signals as often as long ones
    length = int(np.exp(rng.uniform(0, np.log(1000))))
    u = rng.normal(size=(int(rng.integers(1, 3)), system.n_channels, length))
    order = int(rng.integers(2, 5))
    return system, u, order, order + int(rng.integers(0, 12))


def compare(structure: str, seed: int) -> list[Case]:
    """All cases of one system and signal; none for a mode that overflows on it."""
    drawn, signal, order, window = draw(structure, seed)
    cases: list[Case] = []
    for dtype in DTYPES:
        system, u = drawn.astype(dtype), signal.astype(dtype)
        realization = realization_of(system)
        shared: dict[Any, Any] = {}
        for spec in specs(structure, order, window):
            problem = problem_of(system, u, spec)
            able = [name for name in backend_names() if rejection(name, problem) is None]
            try:
                outputs = [ls.apply(system, u, mode=spec.mode, backend=name, **options(spec)) for name in able]
            except UnstableRecurrence:
                continue  # outside the domain of every bound, and said so by the package
            models = [rounding_model(get_backend(name), problem) for name in able]
            exact = reference(realization, u, spec.mode, models=models, shared=shared, **options(spec))
            for name, y, bound in zip(able, outputs, exact.bounds, strict=True):
                error = absolute_error(y, exact.value)
                kind = "componentwise" if bound.is_componentwise else "normwise"
                key = (name, structure, label(spec), dtype, kind)
                exceeds = not bound.units(np.maximum(error - exact.radius, 0)) <= 1
                cases.append((key, _ratio(error, bound), exceeds))
    return cases


def _ratio(error: np.ndarray, bound: Bound) -> float:
    """Observed over bound; infinite where the bound is, since that is no statement."""
    finite = np.isfinite(bound.componentwise).all() and np.isfinite(bound.normwise).all()
    return bound.units(error) if finite else float("inf")


def generate(count: int, seed: int, processes: int) -> Iterator[Case]:
    """At least `count` cases, structures in turn."""
    jobs = ((structure, seed + i) for i in range(count) for structure in DISCRETE_STRUCTURES)
    found = 0
    # fresh processes: threads of a linear algebra library do not survive a fork
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_quiet) as pool:
        while found < count:
            # about 30 cases come from one system; all structures in every round
            size = 4 * max(1, min(4 * processes, (count - found) // 120))
            for cases in pool.map(_compare, islice(jobs, size)):
                found += len(cases)
                yield from cases


def _quiet() -> None:
    warnings.simplefilter("error")


def _compare(job: tuple[str, int]) -> list[Case]:
    return compare(*job)


def table(cases: Iterable[Case]) -> list[dict[str, Any]]:
    """One row per backend, structure, mode, dtype and kind of bound."""
    groups: dict[Key, list[tuple[float, bool]]] = defaultdict(list)
    for key, ratio, exceeds in cases:
        groups[key].append((ratio, exceeds))
    rows = []
    for key, found in sorted(groups.items()):
        ratios = [ratio for ratio, _ in found]
        inverses = [1 / ratio for ratio in ratios if 0 < ratio < np.inf]
        row: dict[str, Any] = dict(zip(("backend", "structure", "mode", "dtype", "kind"), key, strict=True))
        row["cases"] = len(found)
        row["without_error"] = ratios.count(0.0)
        row["unbounded"] = ratios.count(float("inf"))
        row["exceeding"] = sum(exceeds for _, exceeds in found)
        # none where every error was zero
        row["median"] = median(inverses) if inverses else None
        row["largest"] = max(inverses, default=None)
        row["smallest"] = min(inverses, default=None)
        row["largest_observed_over_bound"] = max(ratios)
        rows.append(row)
    return rows


def complaints(rows: Iterable[dict[str, Any]]) -> list[str]:
    """What the limits object to."""
    found = []
    for row in rows:
        name = " ".join(str(row[k]) for k in ("backend", "structure", "mode", "dtype", "kind"))
        limit = LIMITS[row["kind"]]
        if row["exceeding"]:
            found.append(f"{name}: {row['exceeding']} errors exceed their bound")
        if row["unbounded"]:
            found.append(f"{name}: {row['unbounded']} bounds are infinite")
        if row["median"] is not None and not row["median"] <= limit:
            found.append(f"{name}: the median of bound/observed is {row['median']:.3g}, above {limit:g}")
    return found


def tightness(count: int = 2000, seed: int = 0, processes: int = 2) -> list[dict[str, Any]]:
    """The table of at least `count` cases."""
    return table(generate(count, seed, processes))


def show(rows: Iterable[dict[str, Any]]) -> str:
    """The table as text."""
    heads = ("backend", "structure", "mode", "dtype", "kind", "cases", "zero", "median", "largest", "observed/bound")
    lines = [heads]
    for row in rows:
        names = tuple(str(row[k]) for k in ("backend", "structure", "mode", "dtype", "kind", "cases", "without_error"))
        numbers = (row["median"], row["largest"], row["largest_observed_over_bound"])
        lines.append((*names, *("–" if v is None else f"{v:.3g}" for v in numbers)))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="How far the error bounds are from the errors.")
    parser.add_argument("--cases", type=int, default=2000, help="at least so many cases (default 2000)")
    parser.add_argument("--seed", type=int, default=0, help="the first seed of the systems (default 0)")
    parser.add_argument("--processes", type=int, default=2, help="worker processes (default 2)")
    parser.add_argument("--json", type=Path, help="write the table here too")
    given = parser.parse_args(arguments)
    if given.cases < 1 or given.processes < 1:
        parser.error(f"cases is {given.cases} and processes {given.processes}; both must be at least 1")
    start = perf_counter()
    rows = tightness(given.cases, given.seed, given.processes)
    print(show(rows))
    total = sum(row["cases"] for row in rows)
    print(f"{total} cases in {perf_counter() - start:.0f} s")
    if given.json is not None:
        result = {"environment": environment(), "limits": LIMITS, "seed": given.seed, "rows": rows}
        given.json.write_text(json.dumps(result, indent=1) + "\n")
    found = complaints(rows)
    for complaint in found:
        print(complaint, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
