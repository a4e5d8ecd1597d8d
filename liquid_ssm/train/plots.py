"""Pictures of runs: curves, kernels, spectra, timescales, liquid orders, confusion.  Each function draws one figure."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from math import ceil, isfinite, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import liquid_ssm as ls

from ..errors import CheckpointError
from ..nn.layer import SSMLayer
from ..nn.stability import transition
from ..registry import FIRST
from ..report_plots import COLOURS, DPI, INK, NO_METADATA

if TYPE_CHECKING:
    from ..nn.diagnosis import Diagnosis
    from .evaluate import Evaluation

METRICS_FILE = "metrics.csv"
# Of a layer's kernels, and of the channels whose eigenvalues are found of full matrices.
_KERNELS, _CHANNELS = 6, 16

Curve = tuple[list[float], list[float]]


def read_curves(path: Path) -> dict[str, Curve]:
    """Columns of a `metrics.csv` as (epochs, values), without the cells that are empty.

    Raises:
        CheckpointError: the file is missing or has no column `epoch`.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist; a run writes it as it goes. Give the folder of a run or a seed.")
    found: dict[str, Curve] = {}
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if "epoch" not in (reader.fieldnames or ()):
            raise CheckpointError(f"{path} has no column 'epoch'; it is no metrics file of a run.")
        for row in reader:
            epoch = _number(row.get("epoch"))
            for name, cell in row.items():
                value = _number(cell)
                if name not in (None, "epoch", "step") and value is not None and epoch is not None:
                    epochs, values = found.setdefault(name, ([], []))
                    epochs.append(epoch)
                    values.append(value)
    return found


def _number(cell: Any) -> float | None:
    try:
        return float(cell)
    except (TypeError, ValueError):
        return None


def draw_curves(seeds: Mapping[str, Mapping[str, Curve]], path: str | Path) -> None:
    """Loss and metric by epoch: colours are parts of the data, one line per seed.

    Args:
        seeds: of `read_curves`, by the seed's name.
        path: of the picture; its ending is the format.
    """
    names = list(dict.fromkeys(name for curves in seeds.values() for name in curves))
    groups = {
        "loss": [name for name in names if "loss" in name],
        "accuracy": [name for name in names if "accuracy" in name],
        "RMSE [unit of the target]": [name for name in names if "rmse" in name],
    }
    panels = {title: members for title, members in groups.items() if members}
    with _figure(max(len(panels), 1), 1) as (figure, axes):
        for axis, (title, members) in zip(axes, panels.items(), strict=False):
            for colour, name in zip(COLOURS, members, strict=False):
                for i, curves in enumerate(seeds.values()):
                    epochs, values = _by_epoch(*curves.get(name, ([], [])))
                    label = name.replace("_", " ") if i == 0 else None
                    marker = "o" if len(epochs) < 30 else None
                    axis.plot(epochs, values, color=colour, label=label, marker=marker, alpha=0.9 if i == 0 else 0.5)
            positive = [v for n in members for c in seeds.values() for v in c.get(n, ([], []))[1] if v > 0]
            if title != "accuracy" and positive and max(positive) > 20 * min(positive):
                axis.set_yscale("log")
            axis.set_xlabel("epoch")
            axis.set_ylabel(title)
            axis.xaxis.get_major_locator().set_params(integer=True)
            axis.legend(frameon=False)
        if len(seeds) > 1:
            figure.suptitle(f"{len(seeds)} seeds, one line each")
        _save(figure, path)


def _by_epoch(epochs: Sequence[float], values: Sequence[float]) -> Curve:
    """The mean of what was logged in an epoch, counted from 1, after which a person would say it was."""
    means: dict[float, list[float]] = {}
    for epoch, value in zip(epochs, values, strict=True):
        means.setdefault(epoch + 1, []).append(value)
    return list(means), [sum(found) / len(found) for found in means.values()]


def ssm_layers(model: Any) -> dict[str, SSMLayer]:
    """The state-space layers of a model by name, `layer 1` first."""
    found = [module for module in model.modules() if isinstance(module, SSMLayer)]
    return {f"layer {i + 1}": layer for i, layer in enumerate(found)}


def kernels(layer: SSMLayer, length: int, channels: int = _KERNELS) -> np.ndarray:
    """K_i = C Āⁱ B̄ of the first direction's linear part for i < length, in float64: (channels, length).

    Of a layer whose channels share a state, the answer of channel h to channel h.  Channels are those with the largest
    Σ K², most first.
    """
    fine = deepcopy(layer).cpu().double()
    with torch.no_grad():
        system = fine.continuous.system(layer.linear_discretization)
        if layer.structure == "mimo":
            # As many rows as channels, each with an impulse in one of them.
            few = min(layer.n_channels, 4 * channels)
            u = torch.zeros(few, layer.n_channels, length, dtype=torch.float64)
            u[range(few), range(few), 0] = 1
            y = ls.apply(system, u, mode="s4", backend=FIRST)[range(few), range(few)]
        else:
            u = torch.zeros(1, layer.n_channels, length, dtype=torch.float64)
            u[..., 0] = 1
            y = ls.apply(system, u, mode="s4", backend=FIRST)[0]
    strongest = y.square().sum(-1).argsort(descending=True)[:channels]
    return np.asarray(y[strongest])


def draw_kernels(layers: Mapping[str, SSMLayer], length: int, path: str | Path) -> None:
    """The strongest kernels of each layer over the lag, which has a logarithmic axis."""
    with _figure(len(layers), 3, each=(4.2, 2.6)) as (figure, axes):
        lag = np.arange(1, length + 1)
        for axis, (name, layer) in zip(axes, layers.items(), strict=False):
            for colour, kernel in zip(COLOURS, kernels(layer, length), strict=False):
                axis.plot(lag, kernel, color=colour)
            axis.axhline(0, color=INK, linewidth=0.6)
            axis.set_xscale("log")
            axis.set_title(name)
            axis.set_xlabel("lag i + 1 [steps]")
            axis.set_ylabel("$K_i$")
        formula = r"$K_i = C\,\bar{A}^i\,\bar{B}$"
        figure.suptitle(f"Kernels {formula} of the linear part, the {_KERNELS} strongest channels of each layer")
        _save(figure, path)


def spectrum(layer: SSMLayer) -> tuple[np.ndarray, np.ndarray]:
    """Λ and δt of every mode, flat and of one size; of `dplr`, Λ is that of the normal part."""
    with torch.no_grad():
        parameters = deepcopy(layer.continuous).cpu().double()
        found, dt = parameters.Lambda(), parameters.dt()
        values = (found.re + 1j * found.im).numpy()
        steps = dt.numpy() if layer.structure == "mimo" else dt.numpy()[:, None]
    return values.ravel(), np.broadcast_to(steps, values.shape).ravel()


def draw_spectra(layers: Mapping[str, SSMLayer], path: str | Path) -> None:
    """Learned eigenvalues in the complex plane, and their angle and decay per step beside the limit of sampling."""
    with _figure(2, 2, each=(5.2, 4.4)) as (figure, axes):
        low = high = 1.0
        normal = False
        for i, (name, layer) in enumerate(layers.items()):
            values, dt = spectrum(layer)
            normal = normal or layer.structure == "dplr"
            colour, marker = _style(i)
            look = {"s": 9, "marker": marker, "color": colour, "alpha": 0.5, "linewidths": 0, "label": name}
            axes[0].scatter(-values.real, np.abs(values.imag), **look)
            angle = np.abs(values.imag) * dt
            axes[1].scatter(-values.real * dt, angle, **look)
            low, high = min(low, float(angle[angle > 0].min(initial=low))), max(high, float(angle.max()))
        axes[0].set_xlabel("decay −Re λ [1/time]")
        axes[0].set_ylabel("frequency |Im λ| [1/time]")
        of = ", of the normal part" if normal else ""
        axes[0].set_title(f"Eigenvalues λ{of}: a quarter of the complex plane")
        axes[0].set_yscale("symlog", linthresh=1)
        axes[1].axhline(np.pi, color=INK, linestyle="--", linewidth=1)
        axes[1].text(
            0.01,
            np.pi * 1.15,
            "π: faster modes are aliased",
            transform=axes[1].get_yaxis_transform(),
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.8},
        )
        axes[1].set_xlabel("decay per step −Re λ δt")
        axes[1].set_ylabel("angle per step |Im λ| δt [radians]")
        axes[1].set_title("Eigenvalues per step")
        axes[1].set_yscale("log")
        axes[1].set_ylim(low / 1.5, max(high, np.pi) * 2)
        for axis in axes:
            axis.set_xscale("log")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6), frameon=False)
        _save(figure, path)


def timescales(layer: SSMLayer) -> np.ndarray:
    """1/(−log |ā|) of the modes [steps], infinite where |ā| >= 1; of full matrices the eigenvalues of some channels."""
    with torch.no_grad():
        system: Any = deepcopy(layer.continuous).cpu().double().system(layer.linear_discretization)
        if system.structure in ("dplr", "dense"):
            some = range(0, layer.n_channels, max(1, ceil(layer.n_channels / _CHANNELS)))
            radius = torch.linalg.eigvals(transition(_channels(system, list(some)))).abs()
        else:
            radius = system.A_bar.abs()
        return np.asarray(torch.where(radius < 1, -1 / radius.log(), torch.inf)).ravel()


def _channels(system: Any, rows: list[int]) -> Any:
    """The same system with some of its channels."""
    from dataclasses import fields, replace

    parts = {each.name: getattr(system, each.name) for each in fields(system)}
    changed = {}
    for name, part in parts.items():
        if isinstance(part, torch.Tensor):
            # Factors of low rank have the rank first.
            changed[name] = part[:, rows] if name in ("P_bar", "Q_bar") else part[rows]
    return replace(system, **changed)


def draw_timescales(layers: Mapping[str, SSMLayer], length: int, path: str | Path) -> None:
    """How long modes remember, and their step sizes: one row per layer, the share of modes as its height."""
    with _figure(2, 2, each=(5.2, max(2.6, 0.6 * len(layers) + 1.4))) as (figure, axes):
        memory = {name: timescales(layer) for name, layer in layers.items()}
        steps = {name: spectrum(layer)[1] for name, layer in layers.items()}
        _ridges(axes[0], memory)
        axes[0].axvline(length, color=INK, linestyle="--", linewidth=1)
        axes[0].text(length, 1.0, f" L = {length:,}", transform=axes[0].get_xaxis_transform(), va="top")
        axes[0].set_xlabel("memory 1/(−log |ā|) [steps]")
        _ridges(axes[1], steps)
        axes[1].set_xlabel("step size δt [time]")
        figure.suptitle("Learned timescales; height is the share of modes, the mark their median")
        _save(figure, path)


def _ridges(axis: Any, rows: Mapping[str, np.ndarray]) -> None:
    finite = {name: values[np.isfinite(values) & (values > 0)] for name, values in rows.items()}
    every = np.concatenate(list(finite.values()))
    low, high = (every.min() / 1.3, every.max() * 1.3) if len(every) else (0.1, 10)
    edges = np.geomspace(low, high, 49)
    for i, (name, values) in enumerate(finite.items()):
        height = len(rows) - 1 - i
        colour = COLOURS[i % len(COLOURS)]
        counts = np.histogram(values, edges)[0]
        axis.stairs(height + 0.85 * counts / max(counts.max(), 1), edges, baseline=height, fill=True, color=colour)
        if len(values):
            axis.plot([np.median(values)], [height], marker="^", color=INK, markersize=6, clip_on=False)
        lost = int((~np.isfinite(rows[name])).sum())
        if lost:
            axis.text(high, height + 0.3, f"{lost} without end ", ha="right")
    axis.set_xscale("log")
    axis.set_xlim(low, high)
    axis.set_ylim(0, len(rows))
    axis.set_yticks(range(len(rows)), list(rows)[::-1], va="bottom")


def draw_orders(diagnosis: Diagnosis, path: str | Path) -> None:
    """What each liquid order contributes to each layer's output, as shares of energy on a logarithmic axis."""
    layers = diagnosis.layers
    most = max(len(layer.orders) for layer in layers)
    with _figure(1, 1, each=(max(5.2, 1.1 * len(layers) + 2.5), 3.8)) as (figure, axes):
        axis = axes[0]
        names = [f"order {p + 1}" for p in range(most)]
        groups = [[layer.orders[p] if p < len(layer.orders) else 0.0 for layer in layers] for p in range(most)]
        if any(layer.rest for layer in layers):
            names.append(f"orders above {most}")
            groups.append([layer.rest for layer in layers])
        width = 0.8 / len(groups)
        shown = [share for group in groups for share in group if isfinite(share) and share > 0]
        least = 10.0 ** np.floor(np.log10(min(shown, default=0.1)))
        for k, (name, group) in enumerate(zip(names, groups, strict=True)):
            # A bar of a logarithmic axis needs a place to stand on: nothing at all is no bar.
            heights = [share if isfinite(share) and share > 0 else nan for share in group]
            at = np.arange(len(layers)) + (k - (len(groups) - 1) / 2) * width
            axis.bar(at, heights, width, color=COLOURS[k % len(COLOURS)], label=name)
        axis.set_yscale("log")
        axis.set_ylim(max(least, 1e-20), 2)
        axis.set_xticks(range(len(layers)), [f"layer {i + 1}" for i in range(len(layers))])
        axis.grid(visible=False, axis="x")
        axis.set_ylabel("share of Σ (y⁽ᵖ⁾)²")
        axis.set_title(f"Contribution of the liquid orders, mode {layers[0].mode}")
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
        _save(figure, path)


def draw_evaluations(evaluations: Sequence[Evaluation], path: str | Path) -> None:
    """Confusion of the classes of several models together; of a regression, true against found numbers."""
    first = evaluations[0]
    if not first.classes:
        _draw_numbers(evaluations, path)
        return
    counts = np.sum([np.array(one.confusion) for one in evaluations], axis=0)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    names = [row.name for row in first.classes]
    size = max(4.2, 0.32 * len(names) + 1.8)
    with _figure(1, 1, each=(size + 0.8, size)) as (figure, axes):
        axis = axes[0]
        axis.grid(visible=False)
        image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        figure.colorbar(image, ax=axis, label="share of the true class", fraction=0.046, pad=0.03)
        small = len(names) > 12
        axis.set_xticks(range(len(names)), names, rotation=90 if max(map(len, names)) > 2 else 0)
        axis.set_yticks(range(len(names)), names)
        for i, row in enumerate(counts):
            for j, count in enumerate(row):
                if count:
                    colour = "white" if shares[i, j] > 0.5 else INK
                    axis.text(j, i, str(count), ha="center", va="center", color=colour, fontsize=6 if small else 8)
        axis.set_xlabel("found class")
        axis.set_ylabel("true class")
        value = sum(one.value for one in evaluations) / len(evaluations)
        models = "" if len(evaluations) == 1 else f", {len(evaluations)} models"
        axis.set_title(f"{first.task}, {first.part}{models}: accuracy {100 * value:.2f} %")
        _save(figure, path)


def _draw_numbers(evaluations: Sequence[Evaluation], path: str | Path) -> None:
    with _figure(1, 1, each=(4.6, 4.4)) as (figure, axes):
        axis = axes[0]
        for i, one in enumerate(evaluations):
            target, found = one.targets.numpy().ravel(), one.outputs.numpy().ravel()
            colour, marker = _style(i)
            axis.scatter(target, found, s=10, alpha=0.5, color=colour, marker=marker, linewidths=0, label=one.name)
        low, high = axis.get_xlim()
        axis.plot([low, high], [low, high], color=INK, linestyle="--", linewidth=1)
        axis.set_xlabel("true value [unit of the data]")
        axis.set_ylabel("found value [unit of the data]")
        value = sum(one.value for one in evaluations) / len(evaluations)
        axis.set_title(f"{evaluations[0].task}, {evaluations[0].part}: RMSE {value:.4g}")
        if len(evaluations) > 1:
            axis.legend(frameon=False)
        _save(figure, path)


def _style(i: int) -> tuple[str, str]:
    return COLOURS[i % len(COLOURS)], "osD^vP"[i // len(COLOURS) % 6]


@contextmanager
def _figure(panels: int, columns: int, each: tuple[float, float] = (5.2, 3.6)) -> Iterator[tuple[Any, list[Any]]]:
    """A figure and its axes, those that are not needed hidden, under settings of its own."""
    from matplotlib import style

    # Without pyplot, so that no window system is asked for.
    from matplotlib.figure import Figure

    settings = {
        "svg.hashsalt": "liquid-ssm",
        "font.size": 10,
        "axes.titlesize": 10,
        "figure.titlesize": 11,
        "legend.fontsize": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#808080",
        "grid.alpha": 0.25,
        "lines.linewidth": 1.3,
        "lines.markersize": 4,
    }
    columns = panels if columns == 1 else min(columns, panels)
    rows = ceil(panels / columns)
    with style.context(["default", settings]):
        figure = Figure(figsize=(each[0] * columns, each[1] * rows), layout="constrained")
        axes = list(figure.subplots(rows, columns, squeeze=False).ravel())
        for axis in axes[panels:]:
            axis.set_visible(False)
        yield figure, axes


def _save(figure: Any, path: str | Path) -> None:
    vector = {"metadata": NO_METADATA} if str(path).endswith(".svg") else {}
    figure.savefig(path, dpi=DPI, **vector)
