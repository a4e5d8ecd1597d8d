from __future__ import annotations

import hashlib
import shlex
from pathlib import Path

import pytest

from liquid_ssm.reproduce import command_line, file_hash


def test_options_become_words_that_a_shell_reads_back() -> None:
    signal = "my recording's $HOME.npz:left; rm"
    options = {"signal": signal, "dt_min": 1e-3, "mode": ["kb", "pb"], "dtype": None, "no_window": True, "quiet": False}
    line = command_line("verify", options)
    assert shlex.split(line) == [
        *("liquid-ssm", "verify", "--signal", signal, "--dt-min", "0.001"),
        *("--mode", "kb", "--mode", "pb", "--no-window"),
    ]


def test_numbers_keep_every_digit() -> None:
    assert command_line("verify", {"dt_max": 0.1 + 0.2}).split()[-1] == "0.30000000000000004"


@pytest.mark.parametrize("suffix", ["", ":left"])
def test_hash_is_that_of_the_file(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / "u.npz"
    file.write_bytes(b"some bytes")
    assert file_hash(f"{file}{suffix}") == hashlib.sha256(b"some bytes").hexdigest()
