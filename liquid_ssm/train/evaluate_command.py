"""The command `liquid-ssm evaluate`.

Exit codes: 0 evaluated, 1 the recurrent mode is not the same function, 2 usage or input error.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..console import check_target, progress, write_json, writing
from ..errors import ParameterError
from .options import OUTPUT, JsonOption

if TYPE_CHECKING:
    from .evaluate import Evaluation

NOT_THE_SAME = 1
_WHAT = "What is evaluated"
# The deviation from the published code that an evaluation can switch back.
PUBLISHED_RATE = "zero-shot"


def evaluate(
    checkpoint: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT",
            help="A run's folder (every seed), a seed's folder, a model's folder, or a .ckpt of `liquid-ssm train`.",
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="The task's data, see `liquid-ssm train --list`.", rich_help_panel=_WHAT),
    ] = None,
    part: Annotated[
        str, typer.Option(metavar="NAME", help="test, validation or train.", rich_help_panel=_WHAT)
    ] = "test",
    zero_shot: Annotated[
        bool,
        typer.Option(
            "--zero-shot",
            help="Also at half the sampling rate: every second step, step sizes doubled, in the liquid term, too.",
            rich_help_panel=_WHAT,
        ),
    ] = False,
    every: Annotated[
        int | None,
        typer.Option(metavar="N", min=2, help="As --zero-shot, with each N-th step.", rich_help_panel=_WHAT),
    ] = None,
    as_published: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="zero-shot: other rates also as the published code has them, whose liquid term keeps the step sizes "
            "of training; mode pb.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    recurrent: Annotated[
        bool,
        typer.Option(
            "--recurrent", help="Also run the model step by step, and compare the two.", rich_help_panel=_WHAT
        ),
    ] = False,
    batch_size: Annotated[int, typer.Option(metavar="B", min=1, help="Samples at once.", rich_help_panel=_WHAT)] = 64,
    workers: Annotated[
        int, typer.Option(metavar="N", min=0, help="Processes that load data.", rich_help_panel=_WHAT)
    ] = 0,
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Only the first N samples.", rich_help_panel=_WHAT)
    ] = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="cpu or cuda.", rich_help_panel=_WHAT)] = "cpu",
    json: JsonOption = None,
    plot: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="Draw the confusion of the classes, or true against found numbers; .svg, .png or .pdf.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print the metrics only.", rich_help_panel=OUTPUT)
    ] = False,
) -> None:
    """Say how good a trained model is on all samples: exact metrics, a table of classes, other rates, step by step."""
    check_target("--json", json)
    _check_plot(plot)
    from .evaluate import PARTS, open_data
    from .evaluate import evaluate as run
    from .published_rate import require_pb
    from .recurrence import require_step
    from .trained import open_checkpoints

    if part not in PARTS:
        from ..errors import unknown_name

        raise unknown_name("part", part, PARTS)
    _check_device(device)
    _check_published(as_published, zero_shot or every is not None)
    opened = open_checkpoints(checkpoint)
    for one in opened:
        if recurrent:
            require_step(one.config)
        if as_published:
            require_pb(one.model)
    rates = [(1, False), *([(every or 2, False)] if zero_shot or every else [])]
    if as_published:
        rates.append((every or 2, True))
    options: dict[str, Any] = {"batch_size": batch_size, "workers": workers}
    if limit is not None:
        options["limit"] = {part: limit}
    loaded = open_data(opened[0], data, **options)
    found: list[Evaluation] = []
    with progress(quiet or json == "-") as step:
        for one in opened:
            for rate, published in rates:
                # The published form has no steps.
                how: dict[str, Any] = {"every": rate, "published_rate": published}
                how["recurrent"] = recurrent and not published
                found.append(run(one, loaded, part=part, **how, device=device, said=step))
    _write(found, json, plot)
    if json != "-":
        _print(found, quiet)
    if any(one.recurrent is not None and not one.recurrent.same for one in found):
        print("error: run by step, the model is not the same function; see the differences above.", file=sys.stderr)
        raise typer.Exit(NOT_THE_SAME)


def _check_plot(plot: str | None) -> None:
    if plot is None:
        return
    check_target("--plot", plot)
    from ..report_plots import need_matplotlib

    need_matplotlib("leave --plot out")
    if not plot.endswith((".svg", ".png", ".pdf")):
        raise ParameterError(f"--plot {plot!r} has another ending than .svg, .png or .pdf; give one of them.")


def _check_published(name: str | None, other_rate: bool) -> None:
    if name is None:
        return
    if name != PUBLISHED_RATE:
        from ..errors import unknown_name

        raise unknown_name("deviation of an evaluation", name, (PUBLISHED_RATE,))
    if not other_rate:
        raise ParameterError(f"--as-published {name} is about other rates; give --zero-shot or --every, too.")


def _check_device(device: str) -> None:
    if device not in ("cpu", "cuda"):
        from ..errors import unknown_name

        raise unknown_name("device", device, ("cpu", "cuda"))
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise ParameterError("--device cuda needs a GPU, and torch finds none. Leave --device out.")


def _write(found: list[Evaluation], json: str | None, plot: str | None) -> None:
    from ..report import dump_json

    write_json(dump_json({"evaluations": [one.as_dict() for one in found], "summary": _summary(found)}), json)
    if plot is not None:
        from .plots import draw_evaluations

        with writing("--plot", plot):
            draw_evaluations([one for one in found if one.every == 1], plot)


def _summary(found: list[Evaluation]) -> list[dict[str, Any]]:
    """Mean and standard deviation over seeds, by rate."""
    from .evaluate import mean_and_deviation

    rows: list[dict[str, Any]] = []
    for rate in dict.fromkeys(map(_rate, found)):
        values = [one.value for one in found if _rate(one) == rate]
        mean, deviation = mean_and_deviation(values)
        row = {"metric": found[0].metric, "mean": mean, "deviation": deviation, "models": len(values)}
        rows.append({"every": rate[0], "published_rate": rate[1], **row})
    return rows


def _rate(one: Evaluation) -> tuple[int, bool]:
    return one.every, one.published_rate


def _said(every: int, published_rate: bool) -> str:
    return (f", every {every}. step" if every > 1 else "") + (", as published" if published_rate else "")


def _print(found: list[Evaluation], quiet: bool) -> None:
    first = found[0]
    if not quiet:
        print(f"{first.task}, {first.part}: {first.n_samples:,} samples, all of them counted")
    for one in found:
        rate = _said(*_rate(one))
        print(f"{one.name}{rate}: {one.metric} {_number(one.metric, one.value)}")
        if one.recurrent is not None:
            print(f"{one.name}{rate}, by step: {one.metric} {_number(one.metric, one.recurrent.metric)}")
            if not quiet:
                print(f"  {_recurrence(one)}")
    if len(found) > len({_rate(one) for one in found}):
        for row in _summary(found):
            rate = _said(row["every"], row["published_rate"])
            deviation = _number(row["metric"], row["deviation"])
            print(f"mean of {row['models']}{rate}: {row['metric']} {_number(row['metric'], row['mean'])} ± {deviation}")
    if not quiet and first.classes:
        _print_classes(found)


def _print_classes(found: list[Evaluation]) -> None:
    """One table: of the models together, at the full rate."""
    from .evaluate import class_rows

    full = [one for one in found if one.every == 1]
    counts = [
        [sum(cells) for cells in zip(*rows, strict=True)]
        for rows in zip(*(one.confusion for one in full), strict=True)
    ]  # fmt: skip
    rows = class_rows([row.name for row in full[0].classes], counts)
    width = max(5, *(len(row.name) for row in rows))
    together = "" if len(full) == 1 else f" ({len(full)} models together)"
    print(f"\n{'class':<{width}}  precision  recall  support{together}")
    for row in rows:
        print(f"{row.name:<{width}}  {_share(row.precision):>9}  {_share(row.recall):>6}  {row.support:>7,}")


def _recurrence(one: Evaluation) -> str:
    found = one.recurrent
    assert found is not None
    others = f"; {found.others} samples of another class, {found.ties} of them ties" if one.classes else ""
    return (
        f"outputs differ by at most {found.largest_difference:.2g}{others}; in float64 by "
        f"{found.float64_difference:.2g} of the largest, where rounding allows {found.float64_bound:.2g}"
    )


def _number(metric: str, value: float) -> str:
    return f"{100 * value:.2f} %" if metric == "accuracy" else f"{value:.4g}"


def _share(value: float) -> str:
    return "–" if value != value else f"{100 * value:.1f} %"
