"""Runs of several processes, each made once and read by many tests: starting one takes seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch

RANKS = Path(__file__).with_name("ranks.py")


def _launched(program: str, size: int, folder: Path, **environment: str) -> list[tuple[int, str]]:
    """Exit status and errors of each rank."""
    folder.mkdir()
    given = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", **environment}
    command = [sys.executable, "-W", "error", str(RANKS), program]
    ranks = [
        subprocess.Popen([*command, str(rank), str(size), str(folder)], stderr=subprocess.PIPE, text=True, env=given)
        for rank in range(size)
    ]
    try:
        errors = [rank.communicate(timeout=300)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    return [(rank.returncode, error) for rank, error in zip(ranks, errors, strict=True)]


def _read(folder: Path, size: int) -> list:
    paths = [folder / f"{rank}.pt" for rank in range(size)]
    return [torch.load(path, weights_only=False) if path.exists() else None for path in paths]


@pytest.fixture(scope="session")
def ranks():
    """The module that the processes run."""
    spec = spec_from_file_location("ranks", RANKS)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    """results(size): what each rank of the program `everything` has written."""
    known = {}

    def of(size):
        if size not in known:
            folder = tmp_path_factory.mktemp("parallel") / str(size)
            ended = _launched("everything", size, folder)
            assert all(code == 0 for code, _ in ended), ended
            known[size] = _read(folder, size)
        return known[size]

    return of


@pytest.fixture
def deaths(tmp_path):
    """deaths(when, size): what the ranks of the program `dying` have written, None for the one that died."""

    def of(when, size):
        ended = _launched("dying", size, tmp_path / "ranks", DIES=when)
        assert [code for code, _ in ended] == [7 if rank == size - 2 else 0 for rank in range(size)], ended
        return _read(tmp_path / "ranks", size)

    return of
