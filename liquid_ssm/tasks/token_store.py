"""Token sequences in memory-mapped files, in the cache folder: made once from the same source files, read in place.

A sequence costs one byte a token (two beyond 256 symbols), so ListOps takes 0.1 GB of disk, IMDB 0.07 GB and AAN at
most 1.2 GB; of memory only the pages in use, which all processes share.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from ..cache_folder import ENVIRONMENT_VARIABLE, cache_folder
from ..data_folder import sha256
from ..errors import DataError
from .batch import Sample
from .text import Document, Vocabulary

FORMAT = 1
_ABOUT = "store.json"
# What a killed process left unfinished.
_STALE_SECONDS = 24 * 3600


class Row(NamedTuple):
    """A sample before its symbols have numbers: one document, or two for pairs, and its class."""

    documents: tuple[Document, ...]
    target: int


Rows = Callable[[], Iterable[Row]]


@dataclass(frozen=True)
class TokenStore:
    """Finished token sequences.

    Attributes:
        folder: holds them.
        vocabulary: of the tokens.
        counts: samples by part.
        documents: per sample: 1, or 2 for pairs.
    """

    folder: Path
    vocabulary: Vocabulary
    counts: Mapping[str, int]
    documents: int

    def part(self, name: str) -> TokenSamples:
        """The samples of a part."""
        return TokenSamples(self.folder, name, self.vocabulary.dtype, self.counts[name], self.documents)


class TokenSamples(Dataset[Sample]):
    """Samples of a part of a store.  Files are mapped where a sample is asked for, so that workers get no copies."""

    def __init__(self, folder: Path, part: str, dtype: np.dtype[Any], count: int, documents: int) -> None:
        self.folder, self.part, self.dtype = folder, part, dtype
        self.count, self.documents = count, documents
        self._mapped: tuple[Any, Any, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_mapped": None}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if not -self.count <= index < self.count:
            raise IndexError(index)
        if self._mapped is None:
            kinds = {"tokens": self.dtype, "ends": np.dtype("<i8"), "targets": np.dtype("<i8")}
            tokens, ends, targets = (
                np.memmap(self.folder / f"{self.part}.{what}", dtype, mode="r") for what, dtype in kinds.items()
            )
            self._mapped = tokens, ends, targets
        tokens, ends, targets = self._mapped
        first = (index % self.count) * self.documents
        u = []
        for i in range(first, first + self.documents):
            start = int(ends[i - 1]) if i else 0
            u.append(torch.from_numpy(tokens[start : int(ends[i])].astype(np.int64)))
        return Sample(u[0] if len(u) == 1 else (u[0], u[1]), int(targets[index]))


def store_key(files: Mapping[str, Path], options: Mapping[str, Any], said: Callable[[int, int, str], None]) -> str:
    """What names a store: a hash of the contents of its source files and of how they are read.

    Args:
        files: what is read, by a name that does not depend on where the data are.
        options: how.
        said: told (done, total, name) after each file.

    Raises:
        DataError: a file cannot be read.
    """
    found = hashlib.sha256(json.dumps([FORMAT, options], sort_keys=True).encode())
    for i, (name, path) in enumerate(sorted(files.items()), start=1):
        try:
            found.update(json.dumps([name, sha256(path)]).encode())
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}.") from None
        said(i, len(files), f"reading {name}")
    return found.hexdigest()[:32]


def open_store(name: str) -> TokenStore | None:
    """The store of this name in the cache; None where there is none, or a damaged one."""
    folder = _stores() / name
    try:
        about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        if about["format"] != FORMAT or any(sha256(folder / file) != sum for file, sum in about["sums"].items()):
            return None
        return TokenStore(folder, Vocabulary(about["vocabulary"]), about["counts"], about["documents"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def make_store(name: str, parts: Mapping[str, Rows], vocabulary: Vocabulary, max_length: int) -> TokenStore:
    """Write a store.  It appears when it is whole; where two processes write it, either one's is kept.

    Args:
        name: of the store.
        parts: rows by name of the part.
        vocabulary: of the tokens.
        max_length: most tokens of a sequence, `<eos>` included [steps].

    Raises:
        DataError: the cache folder cannot be written to, or what the rows raise.
    """
    stores = _stores()
    try:
        stores.mkdir(parents=True, exist_ok=True)
        _sweep(stores, name)
        with TemporaryDirectory(dir=stores, prefix=f".{name}-", ignore_cleanup_errors=True) as place:
            new = Path(place) / "store"
            new.mkdir()
            counts, documents = {}, 1
            for part, rows in parts.items():
                counts[part], documents = _write_part(new, part, rows(), vocabulary, max_length)
            about = {
                "format": FORMAT,
                "vocabulary": vocabulary.symbols,
                "counts": counts,
                "documents": documents,
                "sums": {path.name: sha256(path) for path in sorted(new.iterdir())},
            }
            (new / _ABOUT).write_text(json.dumps(about), encoding="utf-8")
            _publish(new, stores / name)
    except OSError as error:
        raise DataError(
            f"the cache of tokens in {str(stores)!r} cannot be written: {error.strerror or error}. Set "
            f"{ENVIRONMENT_VARIABLE} to a folder with room."
        ) from None
    return TokenStore(stores / name, vocabulary, counts, documents)


def _stores() -> Path:
    return cache_folder() / "tokens"


def _write_part(
    folder: Path, part: str, rows: Iterable[Row], vocabulary: Vocabulary, max_length: int
) -> tuple[int, int]:
    """The number of samples, and of documents in each."""
    count = end = 0
    documents = 1
    with (
        (folder / f"{part}.tokens").open("wb") as tokens,
        (folder / f"{part}.ends").open("wb") as ends,
        (folder / f"{part}.targets").open("wb") as targets,
    ):
        for row in rows:
            for document in row.documents:
                encoded = vocabulary.encode(document, max_length)
                end += len(encoded)
                tokens.write(encoded.tobytes())
                _write_number(ends, end)
            _write_number(targets, row.target)
            count, documents = count + 1, len(row.documents)
    return count, documents


def _write_number(file: BinaryIO, number: int) -> None:
    file.write(number.to_bytes(8, "little", signed=True))


def _publish(new: Path, target: Path) -> None:
    if target.exists():
        # Whoever calls has found it damaged.
        shutil.rmtree(target, ignore_errors=True)
    try:
        new.rename(target)
    except OSError:
        # Another process was faster.
        if open_store(target.name) is None:
            raise


def _sweep(stores: Path, name: str) -> None:
    for left in _unfinished(stores, name):
        if time.time() - left.stat().st_mtime > _STALE_SECONDS:
            shutil.rmtree(left, ignore_errors=True)


def _unfinished(stores: Path, name: str) -> Iterator[Path]:
    return stores.glob(f".{name}-*")
