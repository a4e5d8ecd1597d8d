"""Options in common: under the same names in every command."""

from __future__ import annotations

import pytest

from liquid_ssm.train import command, evaluate_command, plot_command

JSON, QUIET = "standard output, which then carries nothing else", "Print nothing but errors"


@pytest.mark.parametrize(
    ("named", "said"),
    [(command.train, (JSON, QUIET)), (evaluate_command.evaluate, (JSON,)), (plot_command.plot, (QUIET,))],
)
def test_what_is_shared_is_in_the_help_of_the_commands(run_command, monkeypatch, named, said):
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = run_command(named)("--help")
    assert code == 0
    words = " ".join(out.replace("│", " ").split())
    for text in said:
        assert text in words
    assert "-q" in words
