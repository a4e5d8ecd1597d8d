"""The paper's experiments at a size for two cores: `liquid-ssm generate` and `train`, model after model, as a table.

Run: python benchmarks/experiments.py listops --json PATH [--models liquid s4 …]

Every model has the same budget of parameters, the same settings and three seeds.  No setting was chosen by comparing
models; those of speech and of the heart rate were found in trials of S4D-Lin alone.
The commands are those that anyone can type, and are kept with the results.  Data that exist already in the folder are
used.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from experiments_report import text

from liquid_ssm.environment import environment
from liquid_ssm.report import dump_json

STATE_SPACE = ("liquid", "truncated", "kb", "pb", "s4", "s4d", "s5")
BASELINES = ("transformer", "lstm")
SEEDS = "0,1,2"
# Rows with settings of their own.
CLAMPED = "liquid-clamped"
OWN = {CLAMPED: ("liquid", ", max_gain 1.05", ("--set", 'options={"max_gain": 1.05}'))}


@dataclass(frozen=True)
class Experiment:
    """Data and settings.

    Attributes:
        title: for people.
        task: of `liquid-ssm train`.
        generate: arguments of `liquid-ssm generate` but the folder; empty for a task whose data come with a package.
        train: arguments of `liquid-ssm train` but model, data, seeds and folder.
        models: in the order in which they run; names of `liquid-ssm train` or of `OWN`.
    """

    title: str
    task: str
    generate: tuple[str, ...]
    train: tuple[str, ...]
    models: tuple[str, ...] = STATE_SPACE


EXPERIMENTS = {
    "listops": Experiment(
        "ListOps, generated, 5 to 30 tokens",
        "listops",
        (
            "listops", "--seed", "0", "--count", "train=6000", "--count", "validation=1000", "--count", "test=1000",
            "--set", "min_length=5", "--set", "max_length=30", "--set", "max_depth=4", "--set", "max_args=5",
        ),
        (
            "--preset", "small", "--budget", "30000", "--set", "n_layers=2", "--set", "norm=layer", "--set", "epochs=6",
            "--set", "clip=1.0",
        ),
        STATE_SPACE + BASELINES,
    ),
    "digits": Experiment(
        "sequential digits, L = 64",
        "digits",
        (),
        ("--preset", "small", "--budget", "10000", "--set", "epochs=15", "--set", "clip=1.0"),
        STATE_SPACE + BASELINES,
    ),
    "speech": Experiment(
        "ten words spoken by espeak-ng, L = 16,000",
        "sc10",
        (
            "speech-commands", "--seed", "0", "--count", "train=400", "--count", "validation=60", "--count", "test=100",
            "--set", "words=yes,no,up,down,left,right,on,off,stop,go", "--set", "speakers=20", "--set", "short=0",
        ),
        (
            "--preset", "small", "--budget", "3000", "--set", "n_layers=2", "--set", "n_state=8", "--set",
            "batch_size=4", "--set", "epochs=4", "--set", "warmup_steps=20", "--set", "lr=0.01", "--set",
            "dt_min=0.001", "--set", "dt_max=0.1", "--set", "clip=1.0",
        ),
        # Without a clamp the exact model leaves the range of float32 here: both are shown.
        ("liquid", CLAMPED, *STATE_SPACE[1:]),
    ),
    "bidmc": Experiment(
        "heart rate of generated signals, L = 4,000",
        "bidmc-hr",
        ("bidmc", "--seed", "0", "--set", "windows=400", "--set", "layout=npy"),
        (
            "--preset", "small", "--budget", "5000", "--set", "n_layers=2", "--set", "n_state=16", "--set",
            "batch_size=4", "--set", "epochs=12", "--set", "warmup_steps=20", "--set", "lr=0.01", "--set", "clip=1.0",
        ),
    ),
}  # fmt: skip


def run(experiment: Experiment, folder: Path, models: Sequence[str], threads: int, target: Path) -> dict[str, Any]:
    """Data, then every model; the document is written after each, so that a run that is stopped keeps what it has."""
    program = str(Path(sys.executable).with_name("liquid-ssm"))
    data = folder / "data"
    commands = []
    if experiment.generate:
        generate = ["generate", *experiment.generate, "--to", "data"]
        commands.append(generate)
        if not data.exists():
            subprocess.run([program, *generate, "--quiet"], cwd=folder, check=True)
    rows: list[dict[str, Any]] = []
    document: dict[str, Any] = {
        "title": experiment.title,
        "task": experiment.task,
        "environment": environment() | {"torch threads": threads},
        "commands": [],
        "rows": rows,
    }
    for model in models:
        name, addition, own = OWN.get(model, (model, "", ()))
        command = ["train", experiment.task, "--model", name, *experiment.train, *own, "--seeds", SEEDS, "--run", model]
        if experiment.generate:
            command += ["--data", "data"]
        commands.append(command)
        start = perf_counter()
        done = subprocess.run([program, *command, "--threads", str(threads)], cwd=folder, check=False)
        if done.returncode not in (0, 1):
            raise SystemExit(f"{shlex.join(['liquid-ssm', *command])}: exit code {done.returncode}")
        found = json.loads((folder / model / "results.json").read_text(encoding="utf-8"))
        rows.append(
            {
                "model": model,
                "title": found["seeds"][0]["title"] + addition,
                "parameters": found["seeds"][0]["parameters"],
                "n_channels": found["seeds"][0]["n_channels"],
                "seconds": perf_counter() - start,
                "seeds": found["seeds"],
                "summary": found["summary"],
                "counts": found["data"]["counts"],
            }
        )
        document["commands"] = [shlex.join(["liquid-ssm", *command]) for command in commands]
        target.write_text(dump_json(document) + "\n", encoding="utf-8")
    return document


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("--json", required=True, type=Path, help="where the results go")
    parser.add_argument("--models", nargs="+", help="instead of all of the experiment's")
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument("--folder", type=Path, help="keeps data and runs; default: a temporary one")
    given = parser.parse_args()
    experiment = EXPERIMENTS[given.experiment]
    models = given.models or experiment.models
    with TemporaryDirectory() as temporary:
        folder = (given.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        document = run(experiment, folder, models, given.threads, given.json.resolve())
    print(text(document))


if __name__ == "__main__":
    main()
