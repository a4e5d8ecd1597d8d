"""The order of the data: by seed and epoch alone, shared out among processes, resumable between any two batches."""

from __future__ import annotations

from itertools import chain

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from liquid_ssm.tasks.order import BatchOrder, ResumableLoader


def loader(n_samples: int = 10, batch_size: int = 3, seed: int | None = 1, workers: int = 0) -> ResumableLoader:
    order = BatchOrder(n_samples, batch_size, seed=seed)
    found = ResumableLoader(torch.arange(n_samples), batch_sampler=order, num_workers=workers)
    found.order = order
    return found


def seen(batches: ResumableLoader) -> list[list[int]]:
    return [batch.tolist() for batch in batches]


@given(st.integers(0, 40), st.integers(1, 7), st.integers(0, 5), st.integers(0, 3))
def test_one_process_sees_every_sample_once(n_samples: int, batch_size: int, seed: int, epoch: int) -> None:
    order = BatchOrder(n_samples, batch_size, seed=seed)
    order.set_epoch(epoch)
    batches = list(order)
    assert len(batches) == len(order)
    assert sorted(i for batch in batches for i in batch) == list(range(n_samples))
    assert all(len(batch) == batch_size for batch in batches[:-1])


@given(st.integers(0, 60), st.integers(1, 4), st.integers(2, 4), st.booleans())
def test_processes_together_see_what_one_sees(n_samples: int, batch_size: int, ranks: int, drop_last: bool) -> None:
    one = list(BatchOrder(n_samples, batch_size * ranks, seed=7, drop_last=drop_last))
    orders = [
        BatchOrder(n_samples, batch_size, seed=7, drop_last=drop_last, rank=rank, ranks=ranks) for rank in range(ranks)
    ]
    together = []
    for k, step in enumerate(zip(*map(list, orders), strict=True)):
        # A process for which nothing is left keeps in step with a sample that does not count.
        own = [share if order.counts(k) else [] for order, share in zip(orders, step, strict=True)]
        assert all(step)
        assert max(map(len, own)) - min(map(len, own)) <= 1
        together.append([i for share in own for i in share])
    assert together == one


def test_the_last_batch_can_be_left_out() -> None:
    assert [len(batch) for batch in BatchOrder(10, 4, seed=None, drop_last=True)] == [4, 4]
    assert len(BatchOrder(8, 4, seed=None, drop_last=True)) == 2


def test_without_a_seed_the_order_is_that_of_the_data() -> None:
    assert list(BatchOrder(5, 2, seed=None)) == [[0, 1], [2, 3], [4]]


def test_the_order_depends_on_seed_and_epoch_and_nothing_else() -> None:
    def permutation(seed: int, epoch: int) -> tuple[int, ...]:
        order = BatchOrder(100, 100, seed=seed)
        order.set_epoch(epoch)
        return tuple(next(iter(order)))

    found = {(seed, epoch): permutation(seed, epoch) for seed in range(4) for epoch in range(4)}
    # Two of 16 are equal with probability 120/100!.
    assert len(set(found.values())) == 16
    torch.manual_seed(123)
    state = torch.get_rng_state()
    assert permutation(2, 3) == found[2, 3]
    assert torch.equal(torch.get_rng_state(), state)


def test_a_new_epoch_starts_at_its_first_batch_and_the_same_one_goes_on() -> None:
    order = BatchOrder(6, 2, seed=0)
    order.done = 2
    order.set_epoch(0)
    assert len(list(order)) == 1
    order.set_epoch(1)
    assert order.done == 0
    assert len(list(order)) == 3


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", range(5))
def test_it_goes_on_between_any_two_batches(stop: int, workers: int) -> None:
    first = loader()
    first.order.set_epoch(4)
    whole = seen(first)
    again = loader(workers=workers)
    again.order.set_epoch(4)
    batches = iter(again)
    head = [next(batches).tolist() for _ in range(stop)]
    state = again.state_dict()
    assert state == {"epoch": 4, "done": stop}
    resumed = loader(workers=workers)
    resumed.load_state_dict(state)
    resumed.order.set_epoch(4)
    assert head + seen(resumed) == whole
    # And only once, also where it is broken off.
    assert seen(resumed) == whole
    resumed.load_state_dict(state)
    next(iter(resumed), None)
    assert seen(resumed) == whole


def test_an_iteration_that_is_broken_off_leaves_no_mark() -> None:
    """Lightning looks at two batches of validation before training, and then at all of them."""
    validation = loader(seed=None)
    for _ in zip(range(2), validation, strict=False):
        pass
    assert seen(validation) == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]


def test_a_finished_epoch_is_followed_by_a_whole_one() -> None:
    batches = loader()
    first = seen(batches)
    assert batches.state_dict() == {"epoch": 0, "done": 0}
    batches.order.set_epoch(1)
    second = seen(batches)
    assert first != second
    assert sorted(chain(*first)) == sorted(chain(*second)) == list(range(10))
