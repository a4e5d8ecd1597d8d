"""What tests of trained models and of commands share: a run's folder, without the training, and a command by itself."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

from liquid_ssm.errors import LiquidSSMError
from liquid_ssm.nn import ModelConfig, build, save_model
from liquid_ssm.tasks import get_task

METRICS = """epoch,lr,step,train_loss,validation_accuracy,validation_loss
0,0.1,3,2.0,,
0,0.1,3,,0.25,1.5
1,0.1,6,1.0,,
1,0.1,6,,0.5,1.25
"""


def _seed(run: Path, seed: int, **options: Any) -> Path:
    """A seed's folder with a model that is as it is made, its curves and a checkpoint as Lightning writes it."""
    given = {"model": "s4d", "n_layers": 2, "n_channels": 4, "n_state": 4, "options": {"backend": "first"}, **options}
    config = ModelConfig(n_inputs=1, n_outputs=10, **given)
    torch.manual_seed(seed)
    model = build(config)
    data = get_task("digits")(None)
    folder = run / f"seed-{seed}"
    save_model(folder / "model", model, config, {"task": data.description(), "training": {"as_published": []}})
    (folder / "metrics.csv").write_text(METRICS)
    (folder / "checkpoints").mkdir()
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 1}, folder / "checkpoints" / "last.ckpt")
    return folder


@pytest.fixture(scope="session")
def make_seed() -> Callable[..., Path]:
    """make_seed(run, seed, **fields of the configuration) -> its folder."""
    return _seed


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two seeds on the digits."""
    run = tmp_path_factory.mktemp("runs") / "run"
    for seed in (2, 10):
        _seed(run, seed)
    return run


@pytest.fixture(scope="session")
def digits() -> Any:
    """The data, set up, few of the test part."""
    data = get_task("digits")(None, batch_size=16, limit={"test": 40})
    data.setup()
    return data


@pytest.fixture
def run_command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Callable[..., tuple[int, str, str]]]:
    """run_command(command)(*arguments) -> (exit code, standard output, standard error)."""

    def made(command: Callable[..., None]) -> Callable[..., tuple[int, str, str]]:
        app = typer.Typer(pretty_exceptions_enable=False)
        app.command()(command)

        def call(*arguments: object) -> tuple[int, str, str]:
            try:
                app([str(each) for each in arguments])
            except SystemExit as left:
                code = int(left.code or 0)
            except LiquidSSMError as error:
                # As the command line does it.
                print(error, file=sys.stderr)
                code = 2
            found = capsys.readouterr()
            return code, found.out, found.err

        return call

    return made
