"""Launches of recurrences: what they say when memory runs out."""

from __future__ import annotations

import pytest

from liquid_ssm.backends.triton_kernels import memory


@pytest.fixture
def full(monkeypatch):
    """An allocator that has no memory left, on a device with 4 KiB free."""
    import torch

    monkeypatch.setattr(memory, "free_bytes", lambda device: 4096)

    def refuse(*_, **__):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    return refuse


def test_an_output_that_does_not_fit_says_what_part_of_the_batch_would(case, full):
    import torch

    from liquid_ssm.backends.triton_kernels.recurrences import recurrence

    _, t = case(batch=7, n_channels=1, n_modes=1, length=100)
    # A row: 8 bytes of output per step, and the parts of two states.
    with pytest.raises(torch.cuda.OutOfMemoryError, match=r"enough for 4 of 7 row\(s\)"):
        recurrence(t.system, t.u, None, kind="liquid", empty=full)


def test_an_adjoint_that_does_not_fit_says_which_interval_would(case, full, monkeypatch):
    import torch

    from liquid_ssm.backends.triton_kernels.recurrences import recurrence_vjp

    _, t = case(batch=1, n_channels=1, n_modes=1, length=100)
    arguments = (t.system, t.u, None, t.grad_y, None)
    with pytest.raises(torch.cuda.OutOfMemoryError, match=r"TritonBackend\(interval=\d+\)"):
        recurrence_vjp(*arguments, kind="liquid", interval=2, empty=full)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 512)
    with pytest.raises(torch.cuda.OutOfMemoryError, match=r"no interval fits\. Use a smaller batch"):
        recurrence_vjp(*arguments, kind="liquid", interval=2, empty=full)
