from __future__ import annotations

import io
import json
import math
import re
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from liquid_ssm.curves import Curves, ErrorCurve
from liquid_ssm.errors import ParameterError
from liquid_ssm.report import DiscretizationRow, Report, RoundingRow, TruncationRow, dump_json

LONGEST_MODE = "pb(3, adjacent, window 32)"


def row(status: str = "pass", backend: str = "numpy", mode: str = "liquid", dtype: str = "float64") -> RoundingRow:
    if status == "rejected":
        return RoundingRow(backend, mode, dtype, status, reason="primitive: needs cascade, got liquid")
    return RoundingRow(
        backend,
        mode,
        dtype,
        status,
        componentwise_error=1.234e-16,
        relative_error=2.345e-17,
        norm_inf_error=3.456e-18,
        error_over_bound=0.04567 if status == "pass" else 1.7,
        bound_kind="componentwise",
        worst_step=812,
        oracle="T1",
        radius=5.678e-30,
        coverage="all 1024 steps",
        seconds=0.01234,
        reason="" if status == "pass" else "the error exceeds the bound",
    )


def report(*statuses: str) -> Report:
    return Report(tuple(row(status) for status in statuses))


FULL = Report(
    rounding=(
        row(mode=LONGEST_MODE),
        row("fail", mode="s4"),
        row("inconclusive", backend="scipy", mode="kb(3, all)"),
        row("rejected", backend="scipy", dtype="float32"),
        row("rejected", backend="scipy", mode="kb(3, all)", dtype="float32"),
        row(dtype="float32"),
    ),
    truncation=(TruncationRow("s4", 6.2e-3, 0.98, 960),),
    discretization=(DiscretizationRow("euler", 7.3e-3, 2.2e-2, 3),),
    environment={"python": "3.11"},
    problem={"length": 1024},
    notes=("Channel 0 alone.",),
)


def strict(text: str) -> dict[str, Any]:
    """Parsed as RFC 8259 has it: the words NaN and Infinity, which Python would take, are errors."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return dict(json.loads(text, parse_constant=refuse))


@pytest.mark.parametrize(
    ("statuses", "passed", "verdict"),
    [
        (["pass", "pass"], True, "PASS: 2 of 2 rows within their bound"),
        (["pass", "rejected"], True, "PASS: 1 of 1 rows within their bound; 1 rejected"),
        (["pass", "fail"], False, "FAIL: 1 of 2 rows outside their bound (numpy liquid float64)"),
        (
            ["pass", "inconclusive", "rejected"],
            False,
            "INCONCLUSIVE: 1 of 2 rows not decided by the reference (numpy liquid float64); 1 rejected",
        ),
        (
            ["fail", "inconclusive"],
            False,
            "FAIL: 1 of 2 rows outside their bound (numpy liquid float64); "
            "1 of 2 rows not decided by the reference (numpy liquid float64)",
        ),
        (["rejected", "rejected"], False, "NOTHING VERIFIED: no row was computed; 2 rejected"),
        ([], False, "NOTHING VERIFIED: no row was computed"),
    ],
)
def test_verdict(statuses: list[str], passed: bool, verdict: str) -> None:
    found = report(*statuses)
    assert found.passed is passed
    assert found.verdict == verdict
    assert found.table().replace("\n  ", " ").endswith(verdict)


def test_verdict_names_at_most_four_rows() -> None:
    assert report(*["fail"] * 6).verdict.endswith("numpy liquid float64 and 2 more)")
    assert report(*["fail"] * 6).verdict.count("numpy") == 4


def test_an_unknown_status_is_refused() -> None:
    with pytest.raises(ParameterError, match="'passed'; allowed: pass, fail, inconclusive, rejected"):
        RoundingRow("numpy", "s4", "float64", "passed")


def test_rows_and_report_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        FULL.rounding[0].status = "pass"  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        FULL.notes = ()  # type: ignore[misc]


def test_table_at_full_width() -> None:
    text = FULL.table()
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= 100
    # Numbers with two significant digits.
    assert f"numpy    {LONGEST_MODE}  1.2e-16  2.3e-17  4.6e-02  T1    5.7e-30  12 ms  pass" in text.splitlines()
    # It computed nothing in float32, which the remarks say.
    assert not any(line.startswith("scipy    liquid ") for line in text.splitlines())
    titles = [line for line in text.splitlines() if re.match("Rounding|Truncation|Discretisation", line)]
    assert [title.partition(":")[0] for title in titles] == [
        "Rounding, float64",
        "Rounding, float32",
        "Truncation",
        "Discretisation",
    ]
    assert "s4    9.8e-01  6.2e-03      960" in text
    assert "euler   2.2e-02  7.3e-03        3" in text


def test_table_says_what_was_covered_and_why_rows_did_not_pass() -> None:
    text = FULL.table(1000)
    assert "\ncovered in 4 rows: all 1024 steps\n" in text
    assert "\nfail: numpy s4 float64, largest at step 812: the error exceeds the bound\n" in text
    assert "\ninconclusive: scipy kb(3, all) float64, largest at step 812: the error exceeds the bound\n" in text
    assert "\nrejected: scipy, every mode in float32: primitive: needs cascade, got liquid\n" in text
    assert "\nChannel 0 alone.\n" in text


def test_table_on_a_narrow_terminal() -> None:
    narrow = replace(FULL, rounding=tuple(r for r in FULL.rounding if r.status != "inconclusive"))
    text = narrow.table(80)
    assert max(map(len, text.splitlines())) <= 80
    assert f"numpy    {LONGEST_MODE}  1.2e-16  4.6e-02  T1    12 ms  pass" in text.splitlines()
    assert "2-norm and radius need 100 columns" in text


@pytest.mark.parametrize(
    ("value", "cell"), [(0.0, "0"), (math.nan, "nan"), (math.inf, "inf"), (9.96e-7, "1.0e-06"), (-0.0, "0")]
)
def test_special_numbers_are_shown_as_they_are(value: float, cell: str) -> None:
    line = Report((replace(row("fail"), componentwise_error=value),)).table().splitlines()[3]
    assert line.split()[2] == cell


@pytest.mark.parametrize(
    ("seconds", "cell"),
    [
        (0.0, "0.0 ms"),
        (0.00994, "9.9 ms"),
        (0.00996, "10 ms"),
        (0.0994, "99 ms"),
        (0.0996, "0.1 s"),
        (1.25, "1.2 s"),
        (123.4, "123.4 s"),
    ],
)
def test_times(seconds: float, cell: str) -> None:
    assert f"  {cell}  pass" in Report((replace(row(), seconds=seconds),)).table()


def test_json_is_strict_and_reads_back() -> None:
    odd = replace(row("fail"), componentwise_error=math.nan, relative_error=math.inf, norm_inf_error=-math.inf)
    problem = {
        "length": np.int64(5),
        "dt": np.float32(0.5),
        "bad": np.float64("nan"),
        "shape": (1, 2),
        "rate": None,
        "name": "naïve\udcff",
    }
    document = strict(replace(FULL, rounding=(odd, row("rejected")), problem=problem).to_json())
    assert document["schema"] == "liquid-ssm/report"
    assert document["schema_version"] == 1
    assert document["passed"] is False
    assert document["verdict"].startswith("FAIL")
    assert document["problem"] == {**problem, "length": 5, "dt": 0.5, "bad": "nan", "shape": [1, 2]}
    assert document["environment"] == {"python": "3.11"}
    assert document["notes"] == ["Channel 0 alone."]
    first, second = document["rounding"]
    assert list(first) == [field.name for field in fields(RoundingRow)]
    assert [first[k] for k in ("componentwise_error", "relative_error", "norm_inf_error")] == ["nan", "inf", "-inf"]
    assert math.isnan(float(second["seconds"]))
    assert document["truncation"] == [{"mode": "s4", "relative_error": 6.2e-3, "max_error": 0.98, "worst_step": 960}]
    assert document["discretization"][0]["method"] == "euler"


def test_json_keeps_every_digit(tmp_path: Path) -> None:
    value = 0.1 + 0.2
    found = Report((replace(row(), radius=value),))
    text = found.to_json(tmp_path / "r.json")
    assert strict(text)["rounding"][0]["radius"] == value
    assert (tmp_path / "r.json").read_text() == text + "\n"


def test_json_refuses_what_it_has_no_form_for() -> None:
    with pytest.raises(TypeError):
        dump_json({"u": np.zeros(3)})


def test_json_has_the_curves_and_the_command() -> None:
    curve = ErrorCurve(
        "numpy", "liquid", "float64", "step", (0, 1), (1e-16, math.inf), (2e-16, 3e-16), batch=0, channel=1
    )
    document = strict(replace(FULL, curves=Curves((curve,)), command="liquid-ssm verify").to_json())
    assert document["command"] == "liquid-ssm verify"
    stored = document["curves"]["errors"][0]
    assert [field.name for field in fields(ErrorCurve)] == list(stored)
    assert (stored["x"], stored["error"]) == ([0, 1], [1e-16, "inf"])
    assert list(document["curves"]) == [field.name for field in fields(Curves)]
    assert strict(FULL.to_json())["curves"] is None


def on_console(found: Report, **options: Any) -> str:
    from rich.console import Console

    stream = io.StringIO()
    found.print(Console(file=stream, **options))
    return stream.getvalue()


def test_print_is_plain_where_there_is_no_terminal() -> None:
    assert on_console(FULL, force_terminal=False) == FULL.table() + "\n"


@pytest.mark.parametrize("width", [60, 80, 99, 100, 140])
def test_print_on_a_terminal_fits_and_says_the_same(width: int) -> None:
    text = on_console(FULL, force_terminal=True, width=width, color_system="standard")
    assert "\x1b[" in text
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert max(map(len, plain.splitlines())) <= width
    words = plain.split()
    assert ("5.7e-30" in words) == (width >= 100)
    for word in ("Rounding,", "Truncation:", "Discretisation:", "inconclusive", "rejected", "4.6e-02", "9.8e-01"):
        assert word in words
    assert "".join(FULL.verdict.split()) in "".join(words)


def test_print_takes_brackets_literally() -> None:
    assert "[red]" in on_console(Report((row(backend="[red]"),)), force_terminal=True, width=120)


@pytest.mark.parametrize("package", ["rich", "matplotlib"])
def test_the_module_loads_without(package: str) -> None:
    code = f"import sys, liquid_ssm.report, liquid_ssm.report_page; print({package!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_rejections_are_told_in_as_few_words_as_possible() -> None:
    some = Report((row(), row(mode="s4"), row("rejected", backend="b", mode="s4"), row(backend="b")))
    assert "\nrejected: b, s4: " in some.table(1000)
    assert any(line.startswith("b ") and line.endswith("rejected") for line in some.table(1000).splitlines())
    kinds = [
        row("rejected", backend="b", mode=mode, dtype=d) for mode in ("s4", "liquid") for d in ("float32", "float64")
    ]
    every = Report((row(), row(dtype="float32"), *kinds))
    assert "\nrejected: b, every mode: " in every.table(1000)
    nothing = Report(tuple(kinds))
    assert "Rounding" not in nothing.table(1000)
    assert "every mode" in nothing.table(1000)
