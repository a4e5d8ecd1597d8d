"""IMDB: is a film review positive?  The text as characters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..errors import DataError
from .reviews import CLASSES, SHARDS, TABLES, read_reviews, review_files
from .task import CLASSIFICATION, Task
from .token_data import TokenData
from .token_store import Row

TEST_AS_VALIDATION = "imdb-test-as-validation"
# Of each class of the published training set, for validation.
VALIDATION_SHARE, VALIDATION_SEED = 0.1, 42

_SETS = ("train", "test")


class IMDB(TokenData):
    """Large Movie Review Dataset (Maas et al. 2011): its folders, or a Parquet or CSV file each of train and test.

    The published pipeline validates on the test set.  By default validation is a tenth of the training set, the same
    share of each class, drawn by NumPy's RandomState(42), whose numbers stay the same in all versions; neither training
    nor the vocabulary sees it.
    """

    task = Task(
        name="imdb",
        title="IMDB",
        kind=CLASSIFICATION,
        length=4096,
        n_inputs=None,
        n_outputs=2,
        classes=CLASSES,
        expected="aclImdb/{train,test}/{pos,neg}/ID_RATING.txt, or train and test as .parquet or .csv with the columns "
        "text and label",
        paper={"pb": 89.02, "s4": 86.82, "s4d_legs": 86.18, "s4d_inv": 87.34, "s5": 86.51, "transformer": 64.27},
        deviations={
            TEST_AS_VALIDATION: "validation is the test set, and all of the training set is trained on; by default a "
            "tenth of each class of the training set, drawn with seed 42, is kept for validation"
        },
    )
    level = "characters"
    min_frequency = 15
    places = ("aclImdb", "imdb", "imdb/aclImdb", "plain_text", "imdb/plain_text")
    published: ClassVar = {"train": 25_000, "test": 25_000}
    source = "the sizes of the published set"

    @property
    def _published_split(self) -> bool:
        return TEST_AS_VALIDATION in self.as_published

    def _options(self) -> dict[str, Any]:
        return {**super()._options(), TEST_AS_VALIDATION: self._published_split}

    def _sets(self) -> tuple[Path, dict[str, dict[str, Path]]]:
        names = (name for part in _SETS for name in (part, f"{part}{SHARDS}", *(f"{part}.{form}" for form in TABLES)))
        place = self._place(names)
        sets = {name: review_files(place, name) for name in _SETS}
        if missing := [name for name, files in sets.items() if not files]:
            raise DataError(f"{place}: the set {missing[0]} is missing; the download is incomplete. {self._wanted()}")
        return place, sets

    def _files(self) -> Mapping[str, Path]:
        place, sets = self._sets()
        # Folders are counted at once; how many reviews a table holds is known after reading it.
        if all(next(iter(files)).endswith(".txt") for files in sets.values()):
            self._compare({name: len(files) for name, files in sets.items()}, self.published)
            for name, files in sets.items():
                neg, pos = (sum(key.startswith(f"{name}/{label}/") for key in files) for label in CLASSES)
                if neg != pos:
                    raise DataError(
                        f"{place}: {name} holds {neg:,} neg and {pos:,} pos; both classes have as many reviews. Get "
                        "the data again."
                    )
        return {key: path for files in sets.values() for key, path in files.items()}

    def _check_counts(self, found: Mapping[str, int]) -> None:
        kept = 0 if self._published_split else found["validation"]
        self._compare({"train": found["train"] + kept, "test": found["test"]}, self.published)

    def _rows(self, part: str) -> Iterator[Row]:
        _, sets = self._sets()
        if part == "test" or (part == "validation" and self._published_split):
            for text, label in read_reviews(sets["test"]):
                yield Row((text,), label)
            return
        kept = set() if self._published_split else _kept([label for _, label in read_reviews(sets["train"])])
        for i, (text, label) in enumerate(read_reviews(sets["train"])):
            if (i in kept) == (part == "validation"):
                yield Row((text,), label)


def _kept(labels: list[int]) -> set[int]:
    """Indices of the reviews for validation."""
    random = np.random.RandomState(VALIDATION_SEED)
    kept: set[int] = set()
    for label in range(len(CLASSES)):
        rows = np.flatnonzero(np.asarray(labels) == label)
        kept.update(random.permutation(rows)[: round(len(rows) * VALIDATION_SHARE)].tolist())
    return kept
