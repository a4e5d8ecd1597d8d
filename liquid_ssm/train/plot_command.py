"""The command `liquid-ssm plot`.

Exit codes: 0 drawn, 2 usage or input error.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..console import check_folder, writing
from ..errors import CheckpointError, DataError, ParameterError
from .options import OUTPUT, QuietOption

if TYPE_CHECKING:
    from .trained import Checkpoint

FORMATS = ("svg", "png", "pdf")


def plot(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run's folder, a seed's folder, a model's folder or a .ckpt.")
    ],
    to: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Where the pictures go. Default: RUN/plots.", rich_help_panel=OUTPUT),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="The task's data, which the contribution of the liquid orders depends on."),
    ] = None,
    samples: Annotated[
        int, typer.Option(metavar="N", min=1, help="Samples of the validation part for the liquid orders.")
    ] = 8,
    orders: Annotated[int, typer.Option(metavar="P", min=1, help="Liquid orders that are told apart.")] = 4,
    format: Annotated[str, typer.Option(metavar="NAME", help=f"{', '.join(FORMATS)}.", rich_help_panel=OUTPUT)] = "svg",
    quiet: QuietOption = False,
) -> None:
    """Draw a run: curves, and its model's kernels, learned spectra, timescales and liquid orders."""
    if format not in FORMATS:
        from ..errors import unknown_name

        raise unknown_name("format", format, FORMATS)
    from ..report_plots import need_matplotlib

    need_matplotlib("look at metrics.csv yourself")
    where = Path(run)
    if not where.exists():
        raise CheckpointError(f"{where} does not exist; give the folder of a run, a seed or a model.")
    target = Path(to) if to is not None else (where if where.is_dir() else where.parent) / "plots"
    check_folder("--to", str(target))
    drawn: list[Path] = []
    left_out: list[str] = []
    with writing("--to", str(target)):
        target.mkdir(parents=True, exist_ok=True)
        drawn += _curves(where, target, format, left_out)
        drawn += _model(where, target, data, samples, orders, format, left_out)
    if not drawn:
        raise CheckpointError(f"{where} holds nothing to draw: {'; '.join(left_out)}.")
    for reason in left_out:
        print(f"left out: {reason}", file=sys.stderr)
    if not quiet:
        for path in drawn:
            print(path)


def _curves(where: Path, target: Path, format: str, left_out: list[str]) -> list[Path]:
    from .plots import METRICS_FILE, draw_curves, read_curves

    if not where.is_dir():
        return []
    folders = [where] if (where / METRICS_FILE).is_file() else sorted(where.glob("seed-*"))
    files = {folder.name: folder / METRICS_FILE for folder in folders if (folder / METRICS_FILE).is_file()}
    if not files:
        left_out.append(f"curves, since there is no {METRICS_FILE}")
        return []
    path = target / f"curves.{format}"
    draw_curves({name: read_curves(file) for name, file in files.items()}, path)
    return [path]


def _model(
    where: Path, target: Path, data: str | None, samples: int, orders: int, format: str, left_out: list[str]
) -> list[Path]:
    """Of several seeds, the first one's."""
    from .plots import draw_kernels, draw_spectra, draw_timescales, ssm_layers
    from .trained import open_checkpoints

    try:
        checkpoint = open_checkpoints(where)[0]
    except CheckpointError as error:
        left_out.append(f"the model ({error})")
        return []
    layers = ssm_layers(checkpoint.model)
    if not layers:
        left_out.append(f"kernels, spectra and orders, since {checkpoint.config.title} has no state-space layers")
        return []
    length = _length(checkpoint)
    paths = {name: target / f"{name}.{format}" for name in ("kernels", "spectra", "timescales")}
    draw_kernels(layers, length, paths["kernels"])
    draw_spectra(layers, paths["spectra"])
    draw_timescales(layers, length, paths["timescales"])
    return [*paths.values(), *_orders(checkpoint, target, data, samples, orders, format, left_out)]


def _length(checkpoint: Checkpoint) -> int:
    from ..tasks import get_task

    return get_task(checkpoint.task).task.length


def _orders(
    checkpoint: Checkpoint,
    target: Path,
    data: str | None,
    samples: int,
    orders: int,
    format: str,
    left_out: list[str],
) -> list[Path]:
    from ..nn.diagnosis import diagnose
    from .evaluate import open_data
    from .plots import draw_orders

    try:
        loaded = open_data(checkpoint, data, batch_size=samples, limit={"validation": samples})
    except DataError as error:
        if data is not None:
            raise
        left_out.append(f"the contribution of the liquid orders, which depends on the inputs ({error})")
        return []
    batch: Any = next(iter(loaded.val_dataloader()))
    diagnosis = diagnose(checkpoint.model, batch.u, orders=orders, rows=samples, lengths=batch.lengths)
    if diagnosis.failure is not None:
        raise ParameterError(f"the model overflows on its validation data: {diagnosis.failure}")
    path = target / f"orders.{format}"
    draw_orders(diagnosis, path)
    return [path]
