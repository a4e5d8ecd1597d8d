"""Samples, and batches of them padded on the right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch


class Sample(NamedTuple):
    """One sample.

    Attributes:
        u: (length, features) floating, or (length,) int64 tokens; for pairs a tuple of two of them.
        target: a class, or (n_outputs,) numbers.
    """

    u: torch.Tensor | tuple[torch.Tensor, torch.Tensor]
    target: int | torch.Tensor


class Batch(NamedTuple):
    """A batch.

    Attributes:
        u: (batch, length, features) float32 or (batch, length) int64; for pairs (batch, 2, length, …).
        target: (batch,) int64 classes or (batch, n_outputs) float32.
        lengths: (batch,) true lengths int64, for pairs (batch, 2); None where all are u's.
        rate: factor of every step size: 2 where u is sampled half as often as in training.
        counts: False where another process has these samples, and this one only keeps in step.
    """

    u: torch.Tensor
    target: torch.Tensor
    lengths: torch.Tensor | None = None
    rate: float = 1.0
    counts: bool = True


# Lengths of one remainder modulo this count as the same when a backend is selected for training.
_UNIT = 128


def padded_length(lengths: Sequence[int]) -> int:
    """To how many steps sequences of these lengths are padded.

    The longest where all have the same length.  Else the next power of two, above 128 the next multiple of 128:
    batches of a few lengths instead of hundreds, for each of which a backend would have to be selected, and graphs
    compiled.
    """
    longest = max(lengths)
    if min(lengths) == longest:
        return longest
    if longest <= _UNIT:
        return 1 << (longest - 1).bit_length()
    return -(-longest // _UNIT) * _UNIT


def collate(samples: Sequence[Sample], rate: float = 1.0) -> Batch:
    """A batch of samples, padded with zeros (token 0) on the right to `padded_length`."""
    target = torch.stack([torch.as_tensor(sample.target) for sample in samples])
    if not isinstance(samples[0].u, torch.Tensor):
        flat = [u for sample in samples for u in sample.u]
        u, lengths = _padded(flat)
        return Batch(u.view(len(samples), 2, *u.shape[1:]), target, lengths.view(len(samples), 2), rate)
    u, lengths = _padded([sample.u for sample in samples])  # type: ignore[misc]
    return Batch(u, target, None if bool((lengths == u.shape[1]).all()) else lengths, rate)


def _padded(sequences: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    lengths = [len(u) for u in sequences]
    u = sequences[0].new_zeros((len(sequences), padded_length(lengths), *sequences[0].shape[1:]))
    for row, sequence in zip(u, sequences, strict=True):
        row[: len(sequence)] = sequence
    return u, torch.tensor(lengths)
