"""The order of the data: a function of seed and epoch alone, resumable between any two batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler


class BatchOrder(Sampler[list[int]]):
    """Batches of indices.  The permutation of an epoch depends on `seed` and the epoch, not on any generator's state.

    Args:
        n_samples, batch_size: of the data; `batch_size` is that of one process.
        seed: of the shuffling; None for the order of the data.
        drop_last: leave out a last batch that is smaller.
        rank, ranks: this process and the number of them: the batch of all of them is ranks · batch_size consecutive
            samples of the permutation, so that n processes see in each step what one process with n times the batch
            sees.  What is left over at the end of an epoch is shared out as evenly as it goes; a process for which
            nothing is left is handed a sample of another one, which does not count.

    Attributes:
        epoch, done: where the iteration is: batches of this epoch that were handed out.
    """

    def __init__(
        self,
        n_samples: int,
        batch_size: int,
        *,
        seed: int | None,
        drop_last: bool = False,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.n_samples, self.batch_size, self.seed, self.drop_last = n_samples, batch_size, seed, drop_last
        self.rank, self.ranks = rank, ranks
        self.epoch, self.done = 0, 0

    def set_epoch(self, epoch: int) -> None:
        """The permutation of the next iteration; a new epoch starts at its first batch."""
        if epoch != self.epoch:
            self.epoch, self.done = epoch, 0

    def __len__(self) -> int:
        whole, rest = divmod(self.n_samples, self.batch_size * self.ranks)
        return whole + (not self.drop_last and rest > 0)

    def __iter__(self) -> Iterator[list[int]]:
        order = self._permutation()
        for k in range(self.done, len(self)):
            first, last = self._share(k)
            yield order[first:last] or order[first : first + 1] or order[-1:]

    def counts(self, k: int) -> bool:
        """Whether the samples of batch k are this process's own."""
        first, last = self._share(k)
        return last > first

    def _share(self, k: int) -> tuple[int, int]:
        step = self.batch_size * self.ranks
        together = min(step, self.n_samples - k * step)
        first, last = (k * step + rank * together // self.ranks for rank in (self.rank, self.rank + 1))
        return first, last

    def _permutation(self) -> list[int]:
        if self.seed is None:
            return list(range(self.n_samples))
        # Not seed + epoch: run 1's first epoch would be run 0's second.
        mixed = torch.Generator().manual_seed(self.seed)
        start = int(torch.randint(2**62, (), generator=mixed))
        generator = torch.Generator().manual_seed((start + self.epoch) % 2**63)
        return list(torch.randperm(self.n_samples, generator=generator).tolist())


class ResumableLoader(DataLoader[Any]):
    """A `DataLoader` over a `BatchOrder` whose position Lightning keeps in its checkpoints."""

    order: BatchOrder
    # A position that was loaded holds for one iteration.
    loaded = False

    def __iter__(self) -> Any:
        if not self.loaded:
            # An iteration that was broken off, such as Lightning's sanity check of validation, leaves no mark.
            self.order.done = 0
        self.loaded = False
        for batch in super().__iter__():
            # Counted as it is handed out: workers draw indices ahead of it.
            self.order.done += 1
            yield batch if self.order.counts(self.order.done - 1) else batch._replace(counts=False)
        self.order.done = 0

    def state_dict(self) -> dict[str, int]:
        """Where the iteration is."""
        return {"epoch": self.order.epoch, "done": self.order.done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on there: the next iteration starts with the batch that was not handed out yet."""
        self.order.epoch, self.order.done = state["epoch"], state["done"]
        self.loaded = True
