"""What discretisations of a layer cost: a training step of one layer, beside `bilinear` by the selected backend.

Run: python benchmarks/layer_discretisations.py --json PATH
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from liquid_ssm.environment import environment
from liquid_ssm.nn import SSMLayer
from liquid_ssm.report import dump_json

BATCH, LENGTH, CHANNELS, STATES = 4, 1024, 128, 64
INITS = ("s4d-lin", "legs", "s5")
# The last is `bilinear` with intervals of its own for every step.
WAYS = ("bilinear", "adams-bashforth", "bilinear-exact", "bilinear, dt")


def training_step(init: str, way: str) -> Callable[[], None]:
    """Forward and backward pass of one layer, with respect to every parameter and the input."""
    method, _, sampled = way.partition(", ")
    # Where `adams-bashforth` is stable for HiPPO matrices of this size, too.
    layer = SSMLayer(CHANNELS, STATES, init=init, discretization=method, dt_min=1e-5, dt_max=1e-4, seed=0)
    u = torch.randn(BATCH, LENGTH, CHANNELS, generator=torch.Generator().manual_seed(0)).requires_grad_()
    dt = torch.ones(BATCH, LENGTH) if sampled else None

    def step() -> None:
        layer.zero_grad(set_to_none=True)
        layer(u, dt=dt).square().mean().backward()

    return step


def rows(init: str, runs: int) -> list[dict[str, object]]:
    """All ways take turns."""
    steps = {way: training_step(init, way) for way in WAYS}
    taken: dict[str, list[float]] = {way: [] for way in WAYS}
    for run in range(runs + 1):
        for way, step in steps.items():
            start = perf_counter()
            step()
            if run:  # the first compiles and selects
                taken[way].append(perf_counter() - start)
    middle = {way: float(np.median(seconds)) for way, seconds in taken.items()}
    return [
        {"init": init, "way": way, "runs": runs, "seconds": seconds, "ratio": seconds / middle["bilinear"]}
        for way, seconds in middle.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", required=True, help="where the results go")
    parser.add_argument("--runs", type=int, default=5, help="timed training steps of each")
    given = parser.parse_args()
    found = []
    for init in INITS:
        found += rows(init, given.runs)
        print(*found[-len(WAYS) :], sep="\n")
    size = {"batch": BATCH, "length": LENGTH, "n_channels": CHANNELS, "n_state": STATES}
    document = {"environment": environment(), "size": size, "rows": found}
    Path(given.json).write_text(dump_json(document) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
