"""Errors for a GPU without memory, tried with numbers in place of a GPU."""

from __future__ import annotations

import re

import pytest
import torch

from liquid_ssm.backends.eager import memory
from liquid_ssm.backends.torch_backend import TorchBackend
from liquid_ssm.testing.strategies import random_system


def test_a_step_takes_its_numbers_times_the_arrays_that_live_together():
    assert memory.bytes_per_step(1000, 8, 6) == 48_000


@pytest.mark.parametrize(
    ("per_step", "free", "said"),
    [
        (2**20, 10 * 2**20 + 5, r"one step takes about 1 MiB .* 10 MiB are free: .*TorchBackend\(chunk_steps=10\)"),
        (2**20, 2**20, r"at most 1 step"),
        (2**20, 2**20 - 1, r"not even one step fits. Use a smaller batch"),
    ],
)
def test_the_advice_is_the_longest_chunk_that_fits(per_step, free, said):
    assert re.search(said, memory.advice(per_step, free))


def test_a_gpu_without_memory_raises_the_same_error_with_advice(monkeypatch):
    system = random_system("diagonal", n_channels=2, n_modes=3).astype("float32").to_torch()
    monkeypatch.setattr(memory, "free_bytes", lambda device: 10_000)

    def full(*args, **options):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr("liquid_ssm.backends.eager.operations.run", full)
    # 4 rows of 2 channels and 3 modes, 8 bytes each, 6 arrays: 1152 bytes per step.
    with pytest.raises(
        torch.cuda.OutOfMemoryError, match=r"scan ran out of memory on cpu(.|\n)*chunk_steps=8\)"
    ) as found:
        TorchBackend().scan(system, torch.zeros((4, 2, 5)), liquid=True)
    assert "Tried to allocate 2 GiB" in str(found.value)


def test_other_errors_stay_what_they_are():
    with pytest.raises(ZeroDivisionError), memory.explained("scan", 1, torch.device("cpu")):
        raise ZeroDivisionError


def test_what_torch_holds_without_using_it_counts_as_free(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 50)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 20)
    assert memory.free_bytes(torch.device("cuda")) == 130
    assert memory.free_bytes(torch.device("cpu")) == 0
