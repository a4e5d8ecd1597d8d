"""What every task's data have in common, on the digits."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from liquid_ssm.errors import DataError, ParameterError
from liquid_ssm.tasks.data import limited
from liquid_ssm.tasks.digits import Digits
from liquid_ssm.tasks.listops import ListOps


def ready(**options: object) -> Digits:
    data = Digits(None, **options)
    data.setup()
    return data


def test_numbers_out_of_range_are_named() -> None:
    with pytest.raises(ParameterError, match="batch_size is 0; at least 1"):
        Digits(None, batch_size=0)
    with pytest.raises(ParameterError, match="eval_batch_size is -1; at least 1"):
        Digits(None, eval_batch_size=-1)
    with pytest.raises(ParameterError, match="workers is -1; 0 loads in the process itself"):
        Digits(None, workers=-1)
    with pytest.raises(ParameterError, match="limit of test is 0; at least 1"):
        Digits(None, limit={"test": 0})
    with pytest.raises(ParameterError, match=r"unknown part of the data 'tests'.*Did you mean 'test'"):
        Digits(None, limit={"tests": 5})


def test_deviations_are_known_by_name() -> None:
    with pytest.raises(ParameterError, match=r"unknown deviation of digits 'drop-lost'.*Did you mean 'drop-last'"):
        Digits(None, as_published=["drop-lost"])
    assert Digits(None).as_published == frozenset()
    assert Digits(None, as_published=["all"]).as_published == {"drop-last", "batch-means"}


def test_a_task_with_files_needs_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ListOps needs its data: give their folder with --data\. Expected there: lis"):
        ListOps(None)
    with pytest.raises(DataError, match=r"'.*nowhere' does not exist"):
        ListOps(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"'.*file' is a file"):
        ListOps(tmp_path / "file")
    with pytest.raises(DataError, match="does not exist"):
        Digits(tmp_path / "nowhere")


def test_validation_and_test_hold_every_sample_in_order() -> None:
    data = ready(batch_size=32, eval_batch_size=100)
    for loader, samples in ((data.val_dataloader(), data.validation), (data.test_dataloader(), data.test)):
        batches = list(loader)
        assert [len(batch.u) for batch in batches] == [100, 100, 100, len(samples) - 300]
        assert torch.equal(torch.cat([batch.u for batch in batches]), samples.tensors[0])


def test_the_published_pipeline_leaves_out_the_last_batch_of_validation_and_test_only() -> None:
    data = ready(batch_size=100, as_published=["drop-last"])
    assert [len(loader) for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())] == [
        11, 3, 3,
    ]  # fmt: skip


def test_training_is_shuffled_by_the_seed() -> None:
    def targets(seed: int) -> list[int]:
        return [int(target) for batch in ready(seed=seed).train_dataloader() for target in batch.target]

    first = targets(0)
    assert first == targets(0)
    assert first != targets(1)
    assert sorted(first) == sorted(targets(1)) == sorted(int(label) for label in ready().train.tensors[1])


def test_processes_share_a_batch() -> None:
    whole = [batch.target.tolist() for batch in ready(batch_size=50).train_dataloader()]
    shares = []
    for rank in range(2):
        data = ready(batch_size=50)
        data.trainer = SimpleNamespace(global_rank=rank, world_size=2)
        shares.append([batch.target.tolist() for batch in data.train_dataloader()])
    assert [a + b for a, b in zip(*shares, strict=True)] == whole


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    data = ready(batch_size=50)
    data.trainer = SimpleNamespace(global_rank=0, world_size=4)
    with pytest.raises(ParameterError, match="batch_size is 50; it is shared by 4 processes"):
        data.train_dataloader()


def test_workers_hand_out_the_same_batches() -> None:
    data, helped = ready(batch_size=64), ready(batch_size=64, workers=2)
    for ours, theirs in zip(data.train_dataloader(), helped.train_dataloader(), strict=True):
        assert torch.equal(ours.u, theirs.u)
        assert torch.equal(ours.target, theirs.target)


def test_batches_say_how_many_samples_were_left_out_between() -> None:
    data = ready()
    data.every = 2
    assert next(iter(data.test_dataloader())).rate == 2.0


def test_what_a_model_file_keeps() -> None:
    assert ready().description() == {"task": "digits", "n_inputs": 1, "n_outputs": 10}
    assert ready().generated is None


def test_data_sets_can_be_sent_to_workers() -> None:
    data = ready(limit={"train": 3})
    again = pickle.loads(pickle.dumps(data.train))
    assert len(again) == 3
    assert torch.equal(again[2].u, data.train[2].u)


def test_a_limit_beyond_the_end_is_none() -> None:
    assert limited([1, 2], None) == [1, 2]
    assert limited([1, 2], 2) == [1, 2]
    assert list(limited([1, 2], 1)) == [1]
