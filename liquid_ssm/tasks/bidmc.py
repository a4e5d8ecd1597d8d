"""BIDMC: heart rate, respiratory rate or oxygen saturation from 32 s of electrocardiogram and photoplethysmogram."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..data_folder import GENERATED, check_sums, sha256, sparse
from ..errors import DataError
from .data import Checked, Said, TaskData, limited
from .generated_folder import generated_above
from .splits import reshuffled
from .task import REGRESSION, Task
from .ts_file import Series, read_ts
from .window_store import FORMAT, TARGETS, WINDOWS, Windows, make_windows, map_array, open_windows

LENGTH, FEATURES = 4000, 2
# Names of the parts in `.npy` files.
PARTS = {"train": "train", "validation": "valid", "test": "test"}
# Where the files may be below the folder that is given.
_PLACES = ("", "bidmc", "Monash_UEA_UCR_Regression_Archive")
# Windows that are checked at a time: 16 MB.
_BLOCK = 512


def _task(name: str, title: str, target: str, paper: Mapping[str, float]) -> Task:
    return Task(
        name=name,
        title=title,
        kind=REGRESSION,
        length=LENGTH,
        n_inputs=FEATURES,
        n_outputs=1,
        expected=f"BIDMC32{target}_TRAIN.ts and BIDMC32{target}_TEST.ts, or "
        f"bidmc/{target}/reshuffle/{{train,valid,test}}{{x,y}}.npy",
        paper=paper,
        part="test",
    )


class _BIDMC(TaskData):
    """The regression archive's files, TRAIN and TEST joined and split 70/15/15, or `.npy` files that are split so.

    Signals are taken as they are, without normalisation.  Where both forms are there, the `.npy` files are used.
    Text is converted once, into the cache folder, under a hash of the files' contents; `.npy` files are used in place.
    """

    target: ClassVar[str]
    # Series of the published TRAIN and TEST.
    published: ClassVar[tuple[int, int]] = (5550, 2399)

    def __init__(self, data: str | Path | None, **options: Any) -> None:
        super().__init__(data, **options)
        assert self.folder is not None
        self.folder = generated_above(self.folder, "bidmc")
        self._opened: dict[str, Windows] | None = None

    @property
    def n_inputs(self) -> int:
        return FEATURES

    def check(self, said: Said | None = None) -> Checked:
        assert self.folder is not None
        sums = check_sums(self.folder, sparse(said))
        arrays = self._arrays()
        parts = self._parts(said)
        if arrays is not None:
            for i, part in enumerate(PARTS):
                _check_finite(parts[part])
                if said is not None:
                    said(i + 1, len(PARTS), f"checking {part}")
        counts = {part: len(windows) for part, windows in parts.items()}
        return Checked(counts, files=2 if arrays is None else 2 * len(PARTS), sums=sums, generated=self.generated)

    def setup(self, stage: str | None = None) -> None:
        for part, windows in self._parts().items():
            setattr(self, part, limited(windows, self.limit.get(part)))

    def _parts(self, said: Said | None = None) -> dict[str, Windows]:
        if self._opened is None:
            place = self._arrays()
            self._opened = self._of_text(said) if place is None else self._of_arrays(place)
        return self._opened

    def _arrays(self) -> Path | None:
        """The folder of the `.npy` files, if there is one."""
        assert self.folder is not None
        places = [self.folder / below / self.target for below in _PLACES]
        # Nothing in the files says which target they are of, but the folder does.
        if self.folder.absolute().name == self.target:
            places.append(self.folder)
        for place in (place / "reshuffle" for place in places):
            if any((place / f"{name}{kind}.npy").exists() for name in PARTS.values() for kind in "xy"):
                return place
        return None

    def _of_arrays(self, place: Path) -> dict[str, Windows]:
        files = {part: (place / f"{name}x.npy", place / f"{name}y.npy") for part, name in PARTS.items()}
        if missing := [path.name for pair in files.values() for path in pair if not path.is_file()]:
            raise DataError(f"{place}: {', '.join(missing)} missing; the download is incomplete. {self._wanted()}")
        found: dict[str, Windows] = {}
        for part, (x, y) in files.items():
            windows, targets = map_array(x), map_array(y)
            for path, array, shape in ((x, windows, (LENGTH, FEATURES)), (y, targets, ())):
                fits = array.ndim > 0 and array.shape[1:] in (shape, shape or (1,))
                if not fits or array.dtype.kind != "f":
                    what = f"{array.dtype} of shape {array.shape}"
                    shapes = ", ".join(map(str, ("n", *shape)))
                    raise DataError(f"{path} holds {what}; expected floating numbers of shape ({shapes}).")
            if len(windows) != len(targets):
                raise DataError(f"{x} holds {len(windows):,} windows, but {y.name} {len(targets):,} targets.")
            found[part] = Windows(x, y, np.arange(len(windows)))
        generated = self.generated
        split = reshuffled(sum(self.published))
        wanted = dict(zip(PARTS, map(len, split), strict=True)) if generated is None else dict(generated.counts)
        counts = {part: len(windows) for part, windows in found.items()}
        if counts != wanted:
            raise self._wrong_counts(place, _listed(counts), _listed(wanted))
        return found

    def _of_text(self, said: Said | None) -> dict[str, Windows]:
        files = self._text_files()
        key = hashlib.sha256(json.dumps([FORMAT, LENGTH, FEATURES]).encode())
        for i, path in enumerate(files):
            try:
                key.update(sha256(path).encode())
            except OSError as error:
                raise DataError(f"{path} cannot be read: {error.strerror}.") from None
            if said is not None:
                said(i + 1, len(files), f"reading {path.name}")
        name = f"{self.task.name}-{key.hexdigest()[:32]}"
        generated = self.generated
        count = sum(self.published) if generated is None else sum(generated.counts.values())
        # A store is written only from files with the right counts, but GENERATED.json may have changed since.
        folder = open_windows(name)
        if folder is None or len(map_array(folder / TARGETS)) != count:
            folder = make_windows(name, lambda: self._joined(files, count, said), count, LENGTH, FEATURES)
        split = reshuffled(count)
        return {part: Windows(folder / WINDOWS, folder / TARGETS, getattr(split, part)) for part in PARTS}

    def _text_files(self) -> tuple[Path, Path]:
        assert self.folder is not None
        names = [f"BIDMC32{self.target}_{part}.ts" for part in ("TRAIN", "TEST")]
        for below in _PLACES:
            for place in ("", self.target, f"BIDMC32{self.target}"):
                train, test = (self.folder / below / place / name for name in names)
                if missing := [path for path in (train, test) if not path.is_file()]:
                    if len(missing) == 1:
                        raise DataError(f"{missing[0]} is missing; the download is incomplete. {self._wanted()}")
                else:
                    return train, test
        found = sorted(path.name for path in self.folder.iterdir())
        listed = ", ".join(found[:8]) + (", …" if len(found) > 8 else "") if found else "nothing"
        raise DataError(f"{self.folder} holds no data of {self.task.title}: found {listed}. {self._wanted()}")

    def _joined(self, files: tuple[Path, Path], count: int, said: Said | None) -> Iterator[Series]:
        """The series of TRAIN and then of TEST.

        Raises:
            DataError: damage, or numbers of series that are not the known ones.
        """
        tell = sparse(said)
        done, found = 0, []
        for path in files:
            before = done
            for series in read_ts(path, dimensions=FEATURES, length=LENGTH):
                done += 1
                if done <= count:
                    tell(done, count, f"converting {path.name}")
                    yield series
            found.append(done - before)
        generated = self.generated
        right = tuple(found) == self.published if generated is None else done == count
        if not right:
            wanted = "{:,} and {:,}".format(*self.published) if generated is None else f"{count:,} together"
            names = " and ".join(path.name for path in files)
            raise self._wrong_counts(files[0].parent, f"{found[0]:,} and {found[1]:,} series in {names}", wanted)

    def _wrong_counts(self, place: Path, found: str, wanted: str) -> DataError:
        if self.generated is not None:
            return DataError(f"{place} holds {found}; expected {wanted} ({GENERATED} says so). Generate it again.")
        return DataError(
            f"{place} holds {found}; expected {wanted} (the published sizes). The download is incomplete or of another "
            f"version; a set of other sizes says so in {GENERATED}."
        )


class HeartRate(_BIDMC):
    """BIDMC32HR: heart rate [beats per minute]."""

    target = "HR"
    task = _task("bidmc-hr", "BIDMC HR", target, {"pb": 0.303, "s4": 0.332, "s4d_legs": 0.367})


class RespiratoryRate(_BIDMC):
    """BIDMC32RR: respiratory rate [breaths per minute]."""

    target = "RR"
    published = (5471, 2399)
    task = _task(
        "bidmc-rr", "BIDMC RR", target, {"pb": 0.158, "s4": 0.247, "s4d_legs": 0.248, "s4_legs_fout": 0.163}
    )  # fmt: skip


class OxygenSaturation(_BIDMC):
    """BIDMC32SpO2: oxygen saturation of the blood [%]."""

    target = "SpO2"
    task = _task("bidmc-spo2", "BIDMC SpO2", target, {"pb": 0.066, "s4": 0.090, "s4d_legs": 0.102, "s4_fout": 0.068})


def _check_finite(windows: Windows) -> None:
    largest = np.finfo(np.float32).max
    for path in (windows.x, windows.y):
        array = map_array(path)
        for start in range(0, len(array), _BLOCK):
            # False for NaN, too.
            good = np.abs(array[start : start + _BLOCK]) <= largest
            if not good.all():
                at = [int(i) for i in np.argwhere(~good)[0]]
                at[0] += start
                value = array[tuple(at)]
                raise DataError(
                    f"{path} holds {value} at index {tuple(at)}, counted from 0; expected finite numbers of float32. "
                    "The file is damaged; get it again."
                )


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {part}" for part, count in counts.items())
