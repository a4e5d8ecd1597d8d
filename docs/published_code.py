"""Numbers and figures of published-code.md, computed when the documentation is built."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import liquid_ssm as ls
from liquid_ssm.oracle import published
from liquid_ssm.oracle.realization import Realization
from liquid_ssm.oracle.reference import reference
from liquid_ssm.problem import DEFAULT_ORDER
from liquid_ssm.signals import as_batch, default_signal

Array = npt.NDArray[Any]

RECORDED = Path(__file__).parents[1] / "tests" / "data" / "published_liquid.npz"
SETTINGS = [(kernel, allcombs) for kernel in published.LIQUID_KERNELS for allcombs in (True, False)]
# The channel that is drawn: the first, whose step size is the largest.
CHANNEL = 0

# Colours of Okabe and Ito, told apart with any colour vision; width and dashes differ as well.
BLACK, ORANGE, PURPLE, BLUE, GREEN = "#000000", "#d55e00", "#cc79a7", "#0072b2", "#009e73"


@dataclass(frozen=True)
class Comparison:
    """The default problem of `liquid-ssm verify`, and a published layer with the same linear part."""

    u: Array
    dt: Array
    realization: Realization
    layer: published.Layer

    @classmethod
    def default(cls) -> Comparison:
        continuous = ls.initialize("s4d-lin", n_channels=4)
        system = continuous.discretize("bilinear")
        u = as_batch(default_signal(), system.n_channels)
        realization = Realization("diagonal", system.A_bar, system.B_bar, system.C)
        impulse = np.zeros(u.shape)
        impulse[..., 0] = 1
        kernel = reference(realization, impulse, "s4").value[0].astype(np.float64)
        # The published kernel belongs to the conjugate of the C that the layer holds.
        layer = published.Layer(
            continuous.Lambda, continuous.B, continuous.C.conj(), continuous.dt, np.zeros(len(kernel)), kernel
        )
        return cls(u, continuous.dt, realization, layer)

    def exact(self, mode: str, last: float = 0.0, **options: Any) -> Array:
        """Tier T3 of the oracle, (H, L), with `last` added to the last input."""
        u = self.u.copy()
        u[..., -1] += last
        return reference(self.realization, u, mode, **options).value[0].astype(np.float64)

    def published(self, liquid_kernel: str, allcombs: bool, last: float = 0.0) -> Array:
        """The parallel pass, (H, L), with `last` added to the last input."""
        u = self.u.copy()
        u[..., -1] += last
        options: dict[str, Any] = {"order": DEFAULT_ORDER, "liquid_kernel": liquid_kernel, "allcombs": allcombs}
        return published.outputs(self.layer, u, **options)[0]


def write_published_code(folder: Path) -> None:
    """Figures and fragments for published-code.md."""
    comparison = Comparison.default()
    liquid = comparison.exact("liquid")
    parallel = {setting: comparison.published(*setting) for setting in SETTINGS}
    changed = {setting: np.abs(comparison.published(*setting, last=1.0) - parallel[setting]) for setting in SETTINGS}
    exact_change = np.abs(comparison.exact("liquid", last=1.0) - liquid)
    fragments = {
        "recorded": recorded(),
        "system": system(comparison),
        "distance": distance(comparison, liquid, parallel),
        "causality": causality(exact_change, changed),
        "recurrent": recurrent(comparison, parallel),
    }
    for name, text in fragments.items():
        (folder / f"published-code-{name}.md").write_text(text + "\n", encoding="utf-8")
    draw_outputs(comparison, liquid, parallel).savefig(folder / "published-code-outputs.png", dpi=160)
    draw_causality(exact_change, changed).savefig(folder / "published-code-causality.png", dpi=160)


def name(setting: tuple[str, bool]) -> str:
    return f"`{setting[0]}`, `allcombs={setting[1]}`"


def ratio(value: float) -> str:
    """Two digits, without an exponent where it would not shorten the number."""
    return f"{float(f'{value:.2g}'):g}"


def table(header: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, ["---"] * len(header), *rows])


def recorded() -> str:
    """How far `outputs` and the liquid terms are from the recorded cases."""
    data = np.load(RECORDED)
    cases = sorted({key.rpartition("/")[0] for key in data.files})
    of_liquid, of_y = [], []
    for case in cases:
        liquid_kernel, allcombs, _, size = case.split("/")
        layer = published.Layer(*(data[f"{case}/{key}"] for key in ("w", "B", "C", "dt", "D", "K")))
        u, y, y_linear = (data[f"{case}/{key}"].astype(np.float64) for key in ("u", "y", "y_linear"))
        term = published.polyb_term if liquid_kernel == "polyb" else published.kb_term
        order = int(size.rpartition("_p")[2])
        error = np.abs(term(layer, u, order=order, allcombs=allcombs.endswith("True")) - (y - y_linear)).max()
        of_liquid.append(error / np.abs(y - y_linear).max())
        of_y.append(error / np.abs(y).max())
    return (
        f"These formulas were compared with {len(cases)} recorded float32 runs of the published code. All liquid parts "
        f"agree to {max(of_liquid):.1e} of their maximum, and to {max(of_y) / 2**-24:.1f} unit roundoffs of float32 "
        "relative to the largest output."
    )


def system(c: Comparison) -> str:
    length = c.u.shape[2]
    newest = [f"order {p} the newest {published.combined_inputs(p, length)}" for p in range(2, DEFAULT_ORDER + 1)]
    return (
        f"The problem is the default of `liquid-ssm verify`: the electrocardiogram, L = {length}, max |u| = 1; "
        f"`s4d-lin`, N = {2 * c.layer.w.shape[1]}, {len(c.dt)} channels with δt = "
        f"{', '.join(f'{dt:.3g}' for dt in c.dt)}, bilinear; order P = {DEFAULT_ORDER}. Of the {length} inputs, the "
        f"products with `allcombs=True` use very few: those of {', of '.join(newest)}."
    )


def distance(c: Comparison, liquid: Array, parallel: dict[tuple[str, bool], Array]) -> str:
    order: dict[str, Any] = {"order": DEFAULT_ORDER}
    ways = {
        "Eq. 2, `s4`: no liquid term": c.exact("s4"),
        f"Eq. 12, `truncated`, P = {DEFAULT_ORDER}": c.exact("truncated", **order),
        "Eq. 14, `kb`, adjacent": c.exact("kb", correlations="adjacent", **order),
        "Eq. 15, `pb`, adjacent": c.exact("pb", correlations="adjacent", **order),
        "Eq. 15, `pb`, all": c.exact("pb", **order),
        **{f"published {name(setting)}": y for setting, y in parallel.items()},
    }
    size = np.abs(liquid).max(-1)
    rows = [[way, *(ratio(r) for r in np.abs(y - liquid).max(-1) / size)] for way, y in ways.items()]
    return table(["", *(f"δt = {dt:.3g}" for dt in c.dt)], rows)


def causality(exact: Array, changed: dict[tuple[str, bool], Array]) -> str:
    rows = []
    for way, change in {"Eq. 11": exact, **{f"published {name(s)}": c for s, c in changed.items()}}.items():
        early = change[CHANNEL, :-1]
        # Unchanged outputs differ by nothing, or by the rounding of an FFT.
        count = int((early > 1e-9).sum())
        rows.append([way, str(count), ratio(early.max()) if count else "0", ratio(early[0]) if count else "0"])
    return table(["", "earlier outputs that change", "by at most", "$y_0$ by"], rows)


def recurrent(c: Comparison, parallel: dict[tuple[str, bool], Array]) -> str:
    state, y_step = None, np.empty(c.u.shape[1:])
    for k in range(c.u.shape[2]):
        y_k, state = published.step(c.layer, c.u[..., k], state)
        y_step[:, k] = y_k[0]
    size = np.abs(y_step).max(-1)
    rows = [[name(s), *(ratio(r) for r in np.abs(y - y_step).max(-1) / size)] for s, y in parallel.items()]
    return table(["published", *(f"δt = {dt:.3g}" for dt in c.dt)], rows)


def frame(axes: Axes, title: str, ylabel: str) -> None:
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_ylabel(ylabel)
    axes.set_axisbelow(True)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.01)


def draw_outputs(c: Comparison, liquid: Array, parallel: dict[tuple[str, bool], Array]) -> Figure:
    """The outputs, and the liquid part alone."""
    figure = Figure(figsize=(8, 6.4), layout="constrained")
    upper, lower = figure.subplots(2, sharex=True)
    linear = c.exact("s4")[CHANNEL]
    adjacent = c.exact("pb", order=DEFAULT_ORDER, correlations="adjacent")
    mirrored = parallel["polyb", False]
    curves = [
        (liquid, BLACK, 2.4, "-", "Eq. 11, all orders, exact"),
        (c.exact("truncated", order=DEFAULT_ORDER), GREEN, 1.2, "--", f"Eq. 12 to order {DEFAULT_ORDER}, exact"),
        (adjacent, PURPLE, 1.2, "-.", "Eq. 15 (PB), adjacent products, exact"),
        (parallel["polyb", True], ORANGE, 1.2, "-", "published polyb, allcombs=True"),
        (mirrored, BLUE, 1.2, "-", "published polyb, allcombs=False"),
    ]
    for y, color, width, dashes, label in curves:
        upper.plot(y[CHANNEL], color=color, linewidth=width, linestyle=dashes, label=label)
        lower.plot(y[CHANNEL] - linear, color=color, linewidth=width, linestyle=dashes)
    peak = int(np.argmax(mirrored[CHANNEL] - linear))
    lower.annotate(
        f"heart beat at k = {len(linear) - 1 - peak}, put at L − 1 − k = {peak}",
        (peak - 4, (mirrored[CHANNEL] - linear)[peak]),
        (-12, -4),
        textcoords="offset points",
        ha="right",
        fontsize=9,
    )
    frame(upper, "(a) Output", "$y_k$  [max |u|]")
    frame(lower, "(b) Liquid part of it", "$y_k - (K * u)_k$  [max |u|]")
    lower.set_xlabel("step $k$  [samples]")
    figure.align_ylabels()
    figure.legend(*upper.get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=9, frameon=False)
    return figure


def draw_causality(exact: Array, changed: dict[tuple[str, bool], Array]) -> Figure:
    """How far each output moves when only the last input does."""
    figure = Figure(figsize=(8, 5.2), layout="constrained")
    panels = figure.subplots(2, sharex=True, sharey=True)
    steps = np.arange(exact.shape[1])
    for axes, kernel, letter in zip(panels, published.LIQUID_KERNELS, "ab", strict=True):
        many, few = changed[kernel, True][CHANNEL], changed[kernel, False][CHANNEL]
        axes.vlines(steps[:-1], 0, many[:-1], color=ORANGE, linewidth=0.7, label="published, allcombs=True")
        seen = steps[:-1][few[:-1] > 1e-9]
        axes.plot(seen, few[seen], "o", color=BLUE, markersize=2, label="published, allcombs=False")
        axes.plot(steps[:-1], exact[CHANNEL, :-1], color=BLACK, linewidth=2.4, label="Eq. 11: no change")
        frame(axes, f"({letter}) {kernel}", "$|\\Delta y_k|\\,/\\,\\Delta u_{L-1}$  [1]")
    panels[1].set_xlabel("step $k < L - 1$  [samples]")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=9, frameon=False
    )
    return figure
