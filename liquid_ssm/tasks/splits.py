"""The split 70/15/15 that the published preparation of BIDMC and of Speech Commands with ten words makes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import DataError

Rows = npt.NDArray[np.int64]


class Split(NamedTuple):
    """Rows of each part, in the order of the split."""

    train: Rows
    validation: Rows
    test: Rows


def reshuffled(count: int, labels: npt.NDArray[np.int64] | None = None) -> Split:
    """70 % for training with seed 0, and half of the rest each for validation and test with seed 1.

    Args:
        count: of the rows.
        labels: (count,) classes of which every part gets the same share; None for no such care.

    Raises:
        DataError: too few rows, of any class.

    Source: scikit-learn's `train_test_split`, called as in the published preparation of the data (state-spaces/s4).
    """
    from sklearn.model_selection import train_test_split

    def halves(rows: Rows, share: float, seed: int) -> tuple[Rows, Rows]:
        first, second = train_test_split(
            rows, train_size=share, random_state=seed, stratify=None if labels is None else labels[rows]
        )
        return first, second

    try:
        train, rest = halves(np.arange(count), 0.7, 0)
        return Split(train, *halves(rest, 0.5, 1))
    except ValueError:
        classes = "" if labels is None else f" of {len(np.unique(labels))} classes"
        raise DataError(f"{count} samples{classes} are too few to be split into 70, 15 and 15 %.") from None
