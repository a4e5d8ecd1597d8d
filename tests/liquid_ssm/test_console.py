"""Output paths are refused before the time is spent; JSON goes where it was asked to go."""

from __future__ import annotations

import pytest

from liquid_ssm.console import check_target, progress, write_json, writing
from liquid_ssm.errors import ParameterError


@pytest.mark.parametrize("path", [None, "-"])
def test_no_file_and_standard_output_are_fine(path):
    check_target("--json", path)


def test_a_directory_is_no_file(tmp_path):
    with pytest.raises(ParameterError, match=r"--json .* is a directory"):
        check_target("--json", str(tmp_path))
    with pytest.raises(ParameterError, match="is a directory"):
        check_target("--json", "")


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(ParameterError, match="there is no directory"):
        check_target("--html", str(tmp_path / "nowhere" / "report.html"))


def test_a_failure_to_write_names_the_option(tmp_path):
    with pytest.raises(ParameterError, match=r"--json .* cannot be written"), writing("--json", str(tmp_path)):
        tmp_path.write_text("")


def test_json_goes_to_the_file_or_to_standard_output_or_nowhere(tmp_path, capsys):
    write_json("{}", str(tmp_path / "out.json"))
    assert (tmp_path / "out.json").read_text() == "{}\n"
    write_json("{}", None)
    assert capsys.readouterr().out == ""
    write_json("[1]", "-")
    assert capsys.readouterr().out == "[1]\n"


def test_progress_is_silent_when_quiet_and_a_log_without_a_terminal(capsys):
    with progress(quiet=True) as report:
        assert report is None
    with progress(quiet=False) as report:
        report(1, 20, "something")
    line = capsys.readouterr().err
    assert line.startswith("[ 1/20]")
    assert line.rstrip().endswith("something")
