"""Measure speed and tightness of bounds on this machine: `python benchmarks/run.py FOLDER`.

Writes FOLDER/speed.json and FOLDER/tightness.json and prints both as tables.  Times are medians with the
spread of at least 7 runs; inputs are made outside the timing.  Only ratios within one run mean anything.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
from scipy import fft
from tightness import LIMITS, complaints, show, tightness

import liquid_ssm as ls
from liquid_ssm.apply import problem_of
from liquid_ssm.environment import environment
from liquid_ssm.problem import ModeSpec
from liquid_ssm.registry import backend_names, rejection

RUNS = 7
SHAPES = [(1, 4, 64, 1024), (4, 16, 64, 1024), (4, 16, 64, 4096), (4, 16, 8, 4096)]  # batch, H, N, L
SPECS = [
    ModeSpec("s4"),
    ModeSpec("liquid"),
    ModeSpec("truncated", 3),
    ModeSpec("kb", 3, "all"),
    ModeSpec("kb", 3, "adjacent"),
    ModeSpec("pb", 3, "all"),
    ModeSpec("pb", 3, "adjacent"),
]


def timed(function: Callable[[], object]) -> dict[str, float]:
    """Median, minimum and maximum seconds of RUNS calls after one warm-up."""
    function()
    seconds = []
    for _ in range(RUNS):
        start = perf_counter()
        function()
        seconds.append(perf_counter() - start)
    return {"median": median(seconds), "min": min(seconds), "max": max(seconds)}


def options(spec: ModeSpec) -> dict[str, object]:
    return {"mode": spec.mode, "order": spec.order, "correlations": spec.correlations, "window": spec.window}


def convolve(u: np.ndarray, kernel: np.ndarray, size: int) -> np.ndarray:
    """What a user of the linear model would write: one FFT convolution with all cores, kernel given."""
    spectrum = fft.rfft(u, size, workers=-1) * fft.rfft(kernel, size, workers=-1)
    return fft.irfft(spectrum, size, workers=-1)[..., : u.shape[-1]]


def speed() -> list[dict[str, object]]:
    """Seconds of every backend and mode over the shapes, next to a bare scipy.fft convolution with a ready kernel."""
    rows: list[dict[str, object]] = []
    for batch, H, N, L in SHAPES:
        continuous = ls.initialize("s4d-lin", n_channels=H, n_state=N, dt_min=1e-3, dt_max=1e-2)
        system = continuous.discretize("bilinear").astype("float32")
        u = np.random.default_rng(0).normal(size=(batch, H, L)).astype(np.float32)
        kernel = np.random.default_rng(1).normal(size=(H, L)).astype(np.float32)
        size = fft.next_fast_len(2 * L, real=True)

        bare = timed(partial(convolve, u, kernel, size))
        shape = {"batch": batch, "n_channels": H, "n_state": N, "length": L}
        for spec in SPECS:
            for name in backend_names():
                if rejection(name, problem_of(system, u, spec)) is not None:
                    continue
                found = timed(partial(ls.apply, system, u, backend=name, **options(spec)))
                row = {**shape, "backend": name, "mode": spec.label, "seconds": found}
                rows.append({**row, "fft_convolution_seconds": bare, "ratio": found["median"] / bare["median"]})
    return rows


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = speed()
    write(folder / "speed.json", {"runs": RUNS, "rows": rows})
    for row in rows:
        print("  ".join(f"{v['median']:.3g} s" if isinstance(v, dict) else _short(v) for v in row.values()))
    bounds = tightness()
    write(folder / "tightness.json", {"limits": LIMITS, "rows": bounds})
    print(show(bounds))
    found = complaints(bounds)
    if found:
        raise SystemExit("\n".join(found))


def write(path: Path, result: dict[str, object]) -> None:
    path.write_text(json.dumps({"environment": environment(), **result}, indent=1) + "\n")
    print(f"\n{path}")


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(f"usage: python {sys.argv[0]} FOLDER")
    main(Path(sys.argv[1]))
