"""Plots: files for what was measured, a clear error where they cannot be drawn."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from liquid_ssm.bench import plots
from liquid_ssm.bench.plots import draw
from liquid_ssm.bench.work import BOTH
from liquid_ssm.errors import ParameterError

needs_matplotlib = pytest.mark.skipif(find_spec("matplotlib") is None, reason="needs matplotlib: see the extra bench")


@needs_matplotlib
def test_two_small_pictures(result, tmp_path):
    made = draw(result, tmp_path / "new" / "folder")
    assert [path.name for path in made] == ["time-by-length.png", "limit-by-shape.png"]
    assert all(path.read_bytes()[1:4] == b"PNG" and path.stat().st_size < 200_000 for path in made)


@needs_matplotlib
def test_time_against_length_has_the_limit_drawn_in(result):
    figure = plots._time_by_length(result)
    for axis, direction in zip(figure.axes, ("forward", BOTH), strict=True):
        lines = {line.get_label(): line for line in axis.lines}
        assert axis.get_title() == direction
        assert list(lines["numba, liquid"].get_xdata()) == [2**10, 2**12]
        limit = lines["limit of the machine, liquid"]
        rows = [r for r in result.rows if r.mode == "liquid" and r.direction == direction and r.shape.batch == 1]
        assert list(limit.get_ydata()) == [r.seconds.median * r.limit_fraction for r in rows]


@needs_matplotlib
def test_without_rows_there_is_no_picture(result, tmp_path):
    from dataclasses import replace

    assert draw(replace(result, rows=()), tmp_path) == []


def test_without_matplotlib_the_error_has_the_command(monkeypatch, tmp_path, result):
    monkeypatch.setattr(plots, "find_spec", lambda name: None)
    with pytest.raises(ParameterError, match=r"matplotlib.*pip install 'liquid-ssm\[bench\]'"):
        draw(result, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
