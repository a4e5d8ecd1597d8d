"""What goes wrong on one rank is said on all of them: bad input, ranks that disagree, that die, that are late."""

from __future__ import annotations

import json

import pytest
import torch

from liquid_ssm import errors, parallel
from liquid_ssm.parallel import ExchangeFailed, exchange

# Error, words of its message on rank 0, and words on the last rank.
BAD = {
    "batch": ("ShapeError", "agree on batch: 2 on rank", "agree on batch"),
    "channels": ("ShapeError", "agree on n_channels: 3 on rank", "agree on n_channels"),
    "dtype": ("DTypeError", "agree on dtype: float32", "agree on dtype"),
    "mode": ("ParameterError", "agree on mode: liquid", "agree on mode"),
    "order": ("ParameterError", "agree on mode: truncated(3)", "truncated(2) on rank"),
    "parameters": ("ParameterError", "agree on parameters", "bit for bit"),
    "gradients": ("ParameterError", "agree on gradients: True", "torch.no_grad"),
    "return_state": ("ParameterError", "agree on return_state", "agree on return_state"),
    "shape": ("ShapeError", "failed: u has shape (3, 5)", "u has shape (3, 5)"),
    "nan": ("ParameterError", "failed: u holds 1 value(s)", "u holds 1 value(s)"),
    "numpy": ("DTypeError", "failed: u_local is a ndarray", "torch.as_tensor"),
    "half": ("DTypeError", "torch.float16", "torch.float16"),
    "backend": ("ParameterError", "failed: unknown backend 'nimba'", "unknown backend 'nimba'"),
    "tolerance": ("ParameterError", "tolerance=0.001", "tolerance=0.001"),
    "state": ("ShapeError", "state has shape (7,)", "rank 0 of"),
    "dplr": ("BackendRejected", "dplr", "return_state=True"),
    "kb": ("ParameterError", "mode='truncated'", "return_state=True"),
    "unknown": ("ParameterError", "unknown mode 'liquit'", "unknown mode 'liquit'"),
}


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_the_same_error_on_every_rank(name, size, results):
    kind, first, last = BAD[name]
    found = [rank["bad"][name] for rank in results(size)]
    assert [rank["error"] for rank in found] == [kind] * size
    assert first in found[0]["message"]
    assert last in found[-1]["message"]


@pytest.mark.parametrize("size", [2, 4])
def test_the_group_works_after_all_of_that(size, results):
    assert all(rank["bad"]["works"]["y"].isfinite().all() for rank in results(size))


@pytest.mark.parametrize("size", [2, 4])
def test_an_error_of_python_is_told_to_the_others(size, results):
    found = [rank["bad"]["memory"] for rank in results(size)]
    silent = 0 if size == 2 else 3
    assert found[1]["error"] == "MemoryError"
    # With four ranks the last one has no pass of its own before the exchange.
    assert found[silent]["error"] == "ExchangeFailed"
    assert "no room [MemoryError]" in found[silent]["message"]


@pytest.mark.parametrize(
    ("name", "size", "step", "words"),
    [
        # 3^k / 2 and 3^k · 1/2 pass 2^128 at step 80; y, twice as large, one step before.
        ("far", 2, 79, "on rank 0 of 2"),
        ("far", 4, 79, "on rank 0 of 4"),
        # 2^60 · 3^k, twice as large, at step 42 of the second slice.
        ("product", 4, 55 + 42, "the product of |ā + b̄ u| over this slice is beyond 1.15e+18"),
        ("handed", 2, 55, "the state before this slice is beyond 1.15e+18 in channel 0"),
        ("last", 2, 55 + 79, "on rank 1 of 2, whose slice begins at step 55"),
        ("last", 4, 165 + 79, "on rank 3 of 4, whose slice begins at step 165"),
    ],
)
def test_a_recurrence_that_leaves_its_range_is_named_with_rank_and_step_on_every_rank(name, size, step, words, results):
    for rank in results(size):
        found = rank["bad"][name]
        assert (found["error"], found["step"]) == ("UnstableRecurrence", step)
        assert words in found["message"]


@pytest.mark.parametrize("size", [2, 4])
def test_a_cotangent_that_cannot_be_handed_on_is_named_on_every_rank(size, results):
    for rank in results(size):
        assert (rank["cotangent"]["error"], rank["cotangent"]["step"]) == ("UnstableRecurrence", 5)
        assert (
            "the cotangent of the state behind the slice of rank 0 is beyond 1.15e+18" in rank["cotangent"]["message"]
        )


@pytest.mark.parametrize(("when", "size"), [("first pass", 4), ("backward", 2), ("before", 2)])
def test_a_rank_that_dies_is_an_error_on_all_others_and_nobody_waits(when, size, deaths):
    found = deaths(when, size)
    for rank, part in enumerate(found):
        if rank == size - 2:
            continue
        name = {"first pass": "states", "backward": "cotangents", "before": "header"}[when]
        assert part["error"] == "ExchangeFailed"
        assert f"exchange {name!r} failed on rank {rank} of {size}" in part["message"]
        assert "start all of them again" in part["message"]
        # Below the group's timeout: the connection has closed.
        assert part["seconds"] < 60


def test_a_rank_that_comes_too_late_is_an_error_after_the_groups_timeout(results):
    found = results(2)[0]["late"]
    assert found["error"] == "ExchangeFailed"
    assert "exchange 'header' failed on rank 0 of 2" in found["message"]
    assert "timeout" in found["message"]


def test_without_a_group(ranks):
    system, _ = ranks.system_of("diagonal", "float32")
    with pytest.raises(errors.ParameterError, match="init_process_group"):
        parallel.apply(system, torch.zeros(1, ranks.CHANNELS, 5), mode="s4")


def test_a_long_message_is_cut_to_a_notes_size():
    note = exchange.note_of(errors.ShapeError("ā" * 3000 + "end"))
    data = exchange.written(note)
    assert data.numel() == exchange.NOTE
    read = exchange.read(data)
    assert read["error"] == "ShapeError"
    assert read["message"].endswith("ā …")
    assert len(read["message"].encode()) > exchange.NOTE // 2
    assert exchange.read(exchange.written({})) == {}
    assert json.loads(bytes(data.numpy())) == read


def test_whose_error_is_raised():
    notes = [{}, exchange.note_of(errors.ShapeError("one")), exchange.note_of(ValueError("two"))]
    with pytest.raises(errors.ShapeError, match=r"rank 1 of 3 failed.*as did ranks 2.*one"):
        exchange.settle(notes, None, 0)
    own = ValueError("two")
    with pytest.raises(ValueError, match=r"^two$"):
        exchange.settle(notes, own, 2)
    with pytest.raises(ExchangeFailed, match=r"rank 1 of 2 failed: two \[ValueError\]"):
        exchange.settle([{}, notes[2]], None, 0)
    exchange.settle([{}, {}], None, 0)
