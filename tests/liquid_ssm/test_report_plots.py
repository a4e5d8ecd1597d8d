from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from liquid_ssm.curves import Band, Curves, DiscretizationCurve, ErrorCurve, TimeCurve, TruncationCurve
from liquid_ssm.report import Report, RoundingRow
from liquid_ssm.report_plots import INK, SENTINEL, plots, svg

ROW = RoundingRow("numpy", "liquid", "float64", "pass", error_over_bound=0.05)
CURVES = Curves(
    (
        ErrorCurve("numpy", "liquid", "float64", "step", (0, 1, 2), (0.0, 1e-16, 2e-16), (1e-16, 1e-15, 2e-15)),
        ErrorCurve("numpy", "liquid", "float64", "length", (1, 2, 3), (1e-17, 1e-16, 2e-16), (1e-16, 1e-15, 2e-15)),
        ErrorCurve("scipy", "s4", "float64", "length", (64, 99), (1e-16, 2e-16), (1e-13, 2e-13), own_runs=True),
    ),
    (TruncationCurve("truncated", (1, 2), (0.1, 0.01)), TruncationCurve("pb (all)", (1, 2), (0.1, float("inf")))),
    (
        DiscretizationCurve("euler", (0.1, 0.05), (float("inf"), 1e30), float("nan")),
        DiscretizationCurve("zoh", (0.1, 0.05), (0.02, 0.01), 0.987),
    ),
    (
        TimeCurve("numpy", "liquid", "float32", False, (64, 128), (1e-3, 2e-3)),
        TimeCurve("limit: memory", "liquid", "float32", True, (64, 128), (1e-6, 2e-6)),
    ),
    (
        Band("u", 0, 0, (0, 1), (0.0, 1.0), (0.5, 1.0)),
        Band("liquid", 0, 0, (0, 1), (0.0, 1.0), (0.5, 1.0)),
        Band("liquid", 0, 1, (0, 1), (0.0, 1.0), (0.5, 1.0)),
    ),
)
REPORT = Report((ROW, replace(ROW, backend="scipy", dtype="float32")), curves=CURVES)
NAMES = [
    "error-by-step-liquid-float64",
    "error-by-length-liquid-float64",
    "error-by-length-s4-float64",
    "bound-tightness-float32",
    "bound-tightness-float64",
    "truncation-by-order",
    "discretisation-by-step-size",
    "time-by-length-liquid-float32",
    "signal",
    "output-liquid",
]


def texts(element: str) -> list[str]:
    """What is written in a plot."""
    found = ElementTree.fromstring(element.replace("xlink:href", "href"))
    return ["".join(e.itertext()).strip() for e in found.iter() if e.tag.rpartition("}")[2] == "text"]


def test_every_curve_has_its_plot_and_each_plot_a_name() -> None:
    found = plots(REPORT)
    assert [plot.name for plot in found] == NAMES
    assert all(plot.title and plot.caption.endswith(".") for plot in found)


def test_what_has_no_data_has_no_plot() -> None:
    assert plots(Report(())) == []
    assert [plot.name for plot in plots(Report((ROW,)))] == ["bound-tightness-float64"]
    assert plots(Report((replace(ROW, error_over_bound=float("nan")),))) == []


def test_errors_that_are_all_zero_have_no_plot() -> None:
    """As those of a silent signal, whose bounds are subnormal."""
    nothing = (0.0, 5e-324)
    found = Curves(
        (ErrorCurve("numpy", "s4", "float64", "step", (0, 1), (0.0, 0.0), nothing),),
        (TruncationCurve("truncated", (1, 2), (0.0, 0.0)),),
        (DiscretizationCurve("zoh", (0.1, 0.05), (0.0, float("inf")), float("nan")),),
        bands=(Band("u", 0, 0, (0, 1), (0.0, 0.0), (0.0, 0.0)),),
    )
    drawn = plots(Report((), curves=found))
    assert [plot.name for plot in drawn] == ["signal"]
    assert svg(drawn[0], 1)


def test_a_row_that_is_not_bounded_or_has_no_error_has_no_dot() -> None:
    odd = [replace(ROW, mode=str(value), error_over_bound=value) for value in (0.0, float("inf"))]
    (plot,) = plots(Report((ROW, *odd)))
    assert {"0.0", "inf"}.isdisjoint(texts(svg(plot, 1)))


@pytest.mark.parametrize("name", NAMES)
def test_axes_have_labels_and_a_legend(name: str) -> None:
    plot = next(plot for plot in plots(REPORT) if plot.name == name)
    written = texts(svg(plot, 1))
    labels = {
        "error-by-step": ["step k", "|error| (units of y)", "numpy", "bound"],
        "error-by-length": ["length L (steps)", "largest |error| (units of y)", "bound"],
        "bound-tightness": ["bound / observed error", "liquid", "bound reached"],
        "truncation": ["order P", "relative error (2-norm)", "truncated", "pb (all)"],
        "discretisation": ["largest step size dt (time)", "relative error (2-norm)", "euler: no slope", "zoh: 0.99"],
        "time": ["length L (steps)", "time of one call (s)", "numpy", "limit: memory"],
        "signal": ["step k", "u (units of u)", "signal row 0"],
        "output": ["step k", "y (units of y)", "channel 0", "channel 1"],
    }
    assert set(next(found for start, found in labels.items() if name.startswith(start))) <= set(written)


def test_a_plot_for_a_page_takes_the_pages_colour_and_is_named() -> None:
    plot = plots(REPORT)[0]
    element = svg(plot, 7)
    assert element.startswith('<svg viewBox="')
    root = ElementTree.fromstring(element.replace("xlink:href", "href"))
    assert root.get("role") == "img"
    assert root.get("aria-label") == f"{plot.title}. {plot.caption}"
    assert {"width", "height"}.isdisjoint(root.keys())
    assert "currentColor" in element
    assert SENTINEL not in element
    # No ground of its own, black or white, which one of the two schemes would show.
    assert not re.search(r"#(fff|ffffff|000|000000)\b", element)


def test_dashed_bounds_and_solid_errors_are_drawn() -> None:
    element = svg(plots(REPORT)[0], 1)
    assert element.count("stroke-dasharray") >= 2
    # The error that is zero has no place on a logarithmic axis; the other two make the line.
    assert re.search(r'd="M [\d.]+ [\d.]+ *\n?L [\d.]+ [\d.]+ *\n?" clip-path', element)


def test_files_are_png_and_svg_of_every_plot_and_the_same_each_time(tmp_path: Path) -> None:
    made = REPORT.to_plots(tmp_path / "new" / "a")
    assert [path.name for path in made] == [f"{name}.{kind}" for name in NAMES for kind in ("png", "svg")]
    again = REPORT.to_plots(tmp_path / "b")
    for one, other in zip(made, again, strict=True):
        assert one.read_bytes() == other.read_bytes()
        assert one.read_bytes().startswith(b"\x89PNG" if one.suffix == ".png" else b"<?xml")
    text = made[1].read_text()
    assert INK in text
    assert "liquid, float64" in text  # the title, which a page writes above
    assert "<dc:date>" not in text


def test_a_users_style_changes_nothing() -> None:
    import matplotlib

    plot = plots(REPORT)[0]
    with matplotlib.rc_context({"axes.linewidth": 9, "lines.linewidth": 9, "font.size": 30}):
        styled = svg(plot, 1)
    assert styled == svg(plot, 1)
