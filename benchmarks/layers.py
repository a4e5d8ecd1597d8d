"""What layers cost: a training step of a whole model by the selected backend and by KeOps kernels with torch's FFT.

Beside each, the exact liquid model, which has no kernel, by the selected backend, and the model without its layers: the
norms, gates and linear maps that every way has.

Run: python benchmarks/layers.py --json PATH
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from liquid_ssm.environment import environment
from liquid_ssm.nn import MODELS, SequenceModel, SSMLayer
from liquid_ssm.report import dump_json

BATCH, LENGTH, CHANNELS, STATES, LAYERS = 4, 4096, 128, 64, 4
# Modes that KeOps' kernels and torch's FFT compute.
TRAINED = ("s4_legs", "liquid_s4_kb", "liquid_s4_pb", "s4d_lin")
STEPPED = ("liquid_s4", "liquid_s4_kb", "liquid_s4_pb", "liquid_s4_truncated", "s4d_lin")


NOTHING = "without layers"


class Nothing(torch.nn.Module):
    """In the place of a layer."""

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.n_channels = n_channels

    def forward(self, u: torch.Tensor, **options: object) -> torch.Tensor:
        return u


def quartiles(seconds: list[float]) -> dict[str, float]:
    low, middle, high = np.quantile(seconds, [0.25, 0.5, 0.75]).tolist()
    return {"seconds": middle, "seconds_low": low, "seconds_high": high}


def training_step(name: str, backend: str) -> Callable[[], None]:
    """Forward and backward pass of the model, with respect to every parameter."""
    torch.manual_seed(0)
    model = SequenceModel(
        1,
        10,
        n_layers=LAYERS,
        n_channels=CHANNELS,
        pooling="mean",
        layer=Nothing if name == NOTHING else lambda features: MODELS[name](features, STATES, backend=backend),
    )
    u, labels = torch.randn(BATCH, LENGTH, 1), torch.randint(10, (BATCH,))

    def step() -> None:
        model.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(model(u), labels).backward()

    return step


def training(name: str, runs: int, baseline: str = "keops") -> list[dict[str, object]]:
    """Rows of one model: the selected backend, the baseline, the exact liquid model and none take turns."""
    exact = "liquid_s4" if MODELS[name].options["init"] == "legs" else "linear_ltc"
    ways = {
        (name, "auto"): training_step(name, "auto"),
        (name, baseline): training_step(name, baseline),
        (exact, "auto"): training_step(exact, "auto"),
        (NOTHING, ""): training_step(NOTHING, ""),
    }
    taken: dict[tuple[str, str], list[float]] = {way: [] for way in ways}
    for run in range(runs + 1):
        for way, step in ways.items():
            start = perf_counter()
            step()
            if run:  # the first compiles and selects
                taken[way].append(perf_counter() - start)
    return [
        {"group": name, "model": model, "backend": backend, "runs": runs, **quartiles(seconds)}
        for (model, backend), seconds in taken.items()
    ]


def stepping(name: str, backend: str, n_channels: int, calls: int) -> dict[str, object]:
    """Seconds of one step of one layer, called from Python."""
    torch.manual_seed(0)
    layer: SSMLayer = MODELS[name](n_channels, STATES, backend=backend)
    u, state = 0.1 * torch.randn(1, n_channels), layer.initial_state(1)
    taken = []
    with torch.no_grad():
        for call in range(calls + 50):
            start = perf_counter()
            _, state = layer.step(u, state)
            if call >= 50:
                taken.append(perf_counter() - start)
    return {"model": name, "backend": backend, "n_channels": n_channels, "calls": calls, **quartiles(taken)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", required=True, help="where the results go")
    parser.add_argument("--runs", type=int, default=7, help="timed training steps of each")
    parser.add_argument("--calls", type=int, default=2000, help="timed single steps of each")
    given = parser.parse_args()
    steps = [stepping(name, backend, 256, given.calls) for name in STEPPED for backend in ("auto", "first")]
    for row in steps:
        print(row)
    trained = []
    for name in TRAINED:
        trained += training(name, given.runs)
        print(*trained[-4:], sep="\n")
    size = {
        "batch": BATCH,
        "length": LENGTH,
        "n_channels": CHANNELS,
        "n_state": STATES,
        "n_layers": LAYERS,
    }
    document = {"environment": environment(), "size": size, "training": trained, "steps": steps}
    Path(given.json).write_text(dump_json(document) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
