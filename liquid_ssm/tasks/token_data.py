"""`TokenData`: what the tasks whose inputs are text have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from ..data_folder import GENERATED, check_sums, read_generated, sparse
from ..errors import DataError
from .data import Checked, Said, TaskData, limited
from .text import Vocabulary
from .token_store import Row, TokenStore, make_store, open_store, store_key

PARTS = ("train", "validation", "test")


class TokenData(TaskData):
    """Text as tokens, `<eos>` at the end, numbered by a vocabulary of the training part.

    The first look at the files reads and checks all of them and keeps the tokens in the cache folder, under a hash of
    the files' contents; later ones compare hashes, which finds every change, and map the tokens into memory.
    """

    level: ClassVar[str]
    min_frequency: ClassVar[int] = 1
    # Where the files may be below the folder that is given.
    places: ClassVar[tuple[str, ...]]
    # Samples of the published files, and where that is known from.
    published: ClassVar[Mapping[str, int]]
    source: ClassVar[str]

    def __init__(self, data: str | Path | None, **options: Any) -> None:
        super().__init__(data, **options)
        assert self.folder is not None
        self.folder = _beside_generated(self.folder, self.task.name)
        self._store: TokenStore | None = None

    @abstractmethod
    def _files(self) -> Mapping[str, Path]:
        """Everything that is read, by its name below the folder.

        Raises:
            DataError: what is missing.
        """

    @abstractmethod
    def _rows(self, part: str) -> Iterator[Row]:
        """The samples of a part, each one checked.

        Raises:
            DataError: what is damaged: the file, its line, what was found and expected.
        """

    def check(self, said: Said | None = None) -> Checked:
        assert self.folder is not None
        files = self._files()
        sums = check_sums(self.folder, sparse(said))
        store = self._opened(said)
        return Checked(dict(store.counts), files=len(files), sums=sums, generated=self.generated)

    def setup(self, stage: str | None = None) -> None:
        store = self._opened()
        for part in PARTS:
            setattr(self, part, limited(store.part(part), self.limit.get(part)))

    @property
    def n_inputs(self) -> int:
        return len(self._opened().vocabulary)

    def description(self) -> dict[str, Any]:
        symbols = list(self._opened().vocabulary.symbols)
        return {**super().description(), "level": self.level, "max_length": self.task.length, "vocabulary": symbols}

    def _options(self) -> dict[str, Any]:
        """What the stored tokens depend on, besides the files."""
        return {"max_length": self.task.length, "min_frequency": self.min_frequency}

    def _opened(self, said: Said | None = None) -> TokenStore:
        if self._store is None:
            key = store_key(self._files(), self._options(), sparse(said))
            store = open_store(name := f"{self.task.name}-{key}") or self._made(name, sparse(said))
            self._check_counts(store.counts)
            self._store = store
        return self._store

    def _made(self, name: str, said: Said) -> TokenStore:
        counts: Counter[str] = Counter()
        found = dict.fromkeys(PARTS, 0)
        for i, part in enumerate(PARTS):
            said(i, 2 * len(PARTS), f"checking {part}")
            for row in self._rows(part):
                found[part] += 1
                if part == "train":
                    for document in row.documents:
                        counts.update(document[: self.task.length - 1])
        for part, count in found.items():
            if count == 0:
                raise DataError(f"{self.folder}: the {part} part holds no samples. {self._wanted()}")
        # Before much is written.
        self._check_counts(found)
        vocabulary = Vocabulary.of_counts(counts, self.min_frequency)
        said(len(PARTS), 2 * len(PARTS), "keeping the tokens in the cache")
        return make_store(name, {part: partial(self._rows, part) for part in PARTS}, vocabulary, self.task.length)

    def _check_counts(self, found: Mapping[str, int]) -> None:
        self._compare(found, self.published)

    def _compare(self, found: Mapping[str, int], published: Mapping[str, int]) -> None:
        """Compare numbers of samples with what the generator says, or with those of the published files."""
        generated = self.generated
        wanted = published if generated is None else generated.counts
        said = self.source if generated is None else f"{GENERATED} says so"
        if {part: found[part] for part in published} == dict(wanted):
            return
        hint = (
            f"The download is incomplete or of another version; a set of other sizes says so in {GENERATED}."
            if generated is None
            else "Generate the folder again."
        )
        raise DataError(
            f"{self.folder} holds {_listed(found, published)}; expected {_listed(wanted, wanted)} ({said}). {hint}"
        )

    def _place(self, names: Iterable[str]) -> Path:
        """The folder, or the one of `places` below it, that holds at least one of the names, which may have stars."""
        assert self.folder is not None
        names = tuple(names)
        for place in ("", *self.places):
            if any(any((self.folder / place).glob(name)) for name in names):
                return self.folder / place
        found = sorted(path.name for path in self.folder.iterdir())
        listed = ", ".join(found[:8]) + (", …" if len(found) > 8 else "") if found else "nothing"
        raise DataError(
            f"{self.folder} holds no data of {self.task.title}: found {listed}. {self._wanted()} It may be below "
            f"{' or '.join(f'{place}/' for place in self.places)} there."
        )


def named_files(place: Path, names: Iterable[str], wanted: str) -> dict[str, Path]:
    """Files by name, of which none may be missing."""
    files = {name: place / name for name in names}
    if missing := [name for name, path in files.items() if not path.is_file()]:
        raise DataError(f"{place}: {', '.join(missing)} missing; the download is incomplete. {wanted}")
    return files


def _beside_generated(folder: Path, task: str) -> Path:
    """The folder, or its parent where that is the one that a generator of this task has filled."""
    parent = folder.absolute().parent
    if (folder / GENERATED).exists() or not (parent / GENERATED).is_file():
        return folder
    generated = read_generated(parent)
    return parent if generated is not None and generated.task == task else folder


def _listed(counts: Mapping[str, int], parts: Iterable[str]) -> str:
    return ", ".join(f"{counts[part]:,} {part}" for part in parts)
