"""The tables: numbers that read well, every target, and why rows are missing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from liquid_ssm.bench.limits import Limits
from liquid_ssm.bench.tables import (
    Table,
    left_out,
    limits_text,
    markdown,
    seconds_text,
    spread_text,
    target_table,
    text,
)
from liquid_ssm.timing import Timing


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1.234e-5, "12.3 us"), (9.996e-4, "1 ms"), (0.0123, "12.3 ms"), (0.9999, "1 s"), (7.5, "7.5 s")],
)
def test_seconds(value, shown):
    assert seconds_text(value) == shown


def test_spread():
    assert spread_text(Timing(2.0, 1.0, 5.0, 7)) == "0.50-2.50"
    assert spread_text(None) == "-"


def test_columns_line_up():
    table = Table("title", ("subject", "time"), (("a", "1 s"), ("long name", "10 ms")))
    assert table.text().splitlines() == [
        "title",
        "subject     time",
        "---------  -----",
        "a            1 s",
        "long name  10 ms",
    ]
    assert table.markdown().splitlines()[1] == "| --- | ---: |"


def test_a_target_that_is_not_met_stands_out(result):
    rows = target_table(result.targets).rows
    assert [row[-1] for row in rows] == ["yes", "NO", "not measured"]
    assert rows[2][3] == "no step was measured"


def test_text_has_every_part(result):
    shown = text(result)
    for part in (
        "A processor",
        "200",
        "Targets",
        "4 x 128 x 4096, N 64, float32",
        "Kernels alone",
        "One step",
        "a note.",
    ):
        assert part in shown
    line = next(line for line in shown.splitlines() if line.startswith("numba") and "3.0e-02" in line)
    assert "5 ms" in line
    assert "0.40" in line
    # 10·32 slots of W at 2e11 a second are 3.36 ms of the 5 ms.
    assert "67 %" in line
    assert "fma" in line
    assert "backward" not in {cell for cell in line.split("  ") if cell}


def test_limits_that_are_not_known_say_what_to_do(result):
    assert limits_text(replace(result, limits=Limits(reason="needs numba: pip install x"))).endswith("pip install x")


def test_rows_that_share_a_reason_share_a_line(result):
    lines = left_out(result)
    assert any(
        line.startswith("torch.fft, 2^k: needs torch: pip install torch: ") and "2 more" in line for line in lines
    )
    assert any("it failed" in line for line in lines)
    slow = [
        replace(
            row,
            seconds=None,
            reason=f"not measured: one call took {i + 1.5} s, more than the 0.3 s that a row may take",
        )
        for i, row in enumerate(result.rows[:2])
    ]
    (line,) = left_out(replace(result, rows=tuple(slow), peaks=()))
    assert "one call took more than the 0.3 s" in line
    assert "1 more" in line


def test_markdown_has_the_same_rows(result):
    page = markdown(result)
    assert "### Targets" in page
    assert "| 1b | ratio | <= 0.5 x | 0.70 x | NO |" in page
    assert "4 x 128 x 4096, N 64 | numba | liquid | forward | 5 ms" in page
    widths = {line.count("|") for line in page.splitlines() if line.startswith("| 4 x") or line.startswith("| 1 x")}
    assert len(widths) == 1
