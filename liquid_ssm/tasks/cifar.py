"""CIFAR-10, pixel by pixel: in gray as in Long Range Arena, or in colour."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from ..data_folder import GENERATED, Generated, check_sums, read_generated, sparse
from ..errors import DataError
from .batch import Sample
from .data import Checked, Said, TaskData, limited
from .generated_folder import generated_above
from .images import Pixels, Rows, split_rows, standardised
from .task import CLASSIFICATION, Task

SIDE = 32
LENGTH = SIDE * SIDE
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FOLDER = "cifar-10-batches-py"
TRAIN_FILES = tuple(f"data_batch_{i}" for i in range(1, 6))
TEST_FILE, META_FILE = "test_batch", "batches.meta"
# Source: the page of the data set and torchvision's loader.
MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
    "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
}
PUBLISHED_BATCH = 10_000
# Luma of ITU-R 601-2 in units of 2^-16, with which Pillow converts colours to gray.
_LUMA = np.array([19595, 38470, 7471], dtype=np.uint32)
_EXPECTED = f"{FOLDER} with data_batch_1 to data_batch_5, test_batch and batches.meta, the Python version of CIFAR-10"


class Images(NamedTuple):
    """Images of a file.

    Attributes:
        pixels: (n, 1024, 3) red, green and blue from 0 to 255, row by row.
        labels: (n,).
    """

    pixels: Pixels
    labels: Rows


class _Pixels(Dataset[Sample]):
    """Rows of images in memory, standardised where they are asked for."""

    def __init__(
        self, images: Images, rows: Rows, mean: tuple[float, ...], deviation: tuple[float, ...]
    ) -> None:  # fmt: skip
        self.images, self.rows, self.mean, self.deviation = images, rows, mean, deviation

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        row = self.rows[index]
        u = standardised(self.images.pixels[row], self.mean, self.deviation)
        return Sample(u, int(self.images.labels[row]))


class _CIFAR(TaskData):
    """The Python batches, which stay in memory as bytes (180 MB); every tenth training image is for validation.

    Batches are pickles, which could run any program.  Nothing that they name is called: arrays are put together here.
    """

    mean: ClassVar[tuple[float, ...]]
    deviation: ClassVar[tuple[float, ...]]

    def __init__(self, data: str | Path | None, **options: Any) -> None:
        super().__init__(data, **options)
        assert self.folder is not None
        self.folder = generated_above(self.folder, "cifar")
        self._images: tuple[Images, Images] | None = None

    @property
    def n_inputs(self) -> int:
        return len(self.mean)

    @property
    def generated(self) -> Generated | None:
        assert self.folder is not None
        return super().generated or read_generated(self.folder / FOLDER)

    def description(self) -> dict[str, Any]:
        return {**super().description(), "mean": list(self.mean), "deviation": list(self.deviation)}

    def check(self, said: Said | None = None) -> Checked:
        assert self.folder is not None
        place = self._place()
        sums = sum(check_sums(folder, sparse(said)) for folder in {self.folder, place})
        train, test = self._read(said)
        generated = self.generated
        if generated is None:
            sums += len(MD5)
        counts = {part: len(rows) for part, rows in self._parts(train, test).items()}
        return Checked(counts, files=len(MD5), sums=sums, generated=generated)

    def setup(self, stage: str | None = None) -> None:
        if self._images is None:
            train, test = self._read(None)
            self._images = self._converted(train), self._converted(test)
        train, test = self._images
        for part, rows in self._parts(train, test).items():
            samples = _Pixels(test if part == "test" else train, rows, self.mean, self.deviation)
            setattr(self, part, limited(samples, self.limit.get(part)))

    def _converted(self, images: Images) -> Images:
        return images

    def _parts(self, train: Images, test: Images) -> Mapping[str, Rows]:
        count = len(train.labels)
        # As published: rounded down for training.
        most = int(count * (1 - 0.1))
        first, second = split_rows([most, count - most])
        parts = {"train": first, "validation": second, "test": np.arange(len(test.labels))}
        found = {part: len(rows) for part, rows in parts.items()}
        generated = self.generated
        if generated is not None and generated.counts and dict(generated.counts) != found:
            listed, wanted = (
                ", ".join(f"{n:,} {part}" for part, n in each.items()) for each in (found, generated.counts)
            )
            raise DataError(
                f"{self._place()} holds {listed}; expected {wanted} ({GENERATED} says so). Generate it again."
            )
        if empty := [part for part, n in found.items() if n == 0]:
            raise DataError(f"{self._place()} has no images for {', '.join(empty)}. {self._wanted()}")
        return parts

    def _place(self) -> Path:
        """The folder of the batches.

        Raises:
            DataError: there is none, or what is there is of another form.
        """
        assert self.folder is not None
        for place in (self.folder, self.folder / FOLDER):
            if any((place / name).exists() for name in (*TRAIN_FILES, TEST_FILE)):
                if missing := [name for name in MD5 if not (place / name).is_file()]:
                    raise DataError(
                        f"{place} has no {', '.join(missing)}; the download is incomplete. {self._wanted()}"
                    )
                return place
        raise DataError(f"{self.folder} holds no batches of CIFAR-10: {_instead(self.folder)}. {self._wanted()}")

    def _read(self, said: Said | None) -> tuple[Images, Images]:
        place, published = self._place(), self.generated is None
        found: dict[str, Images] = {}
        for i, (name, md5) in enumerate(MD5.items()):
            path = place / name
            content = _content(path, md5 if published else None)
            if name == META_FILE:
                _check_names(path, content)
            else:
                found[name] = _images(path, content)
                count = len(found[name].labels)
                if published and count != PUBLISHED_BATCH:
                    raise DataError(f"{path} holds {count:,} images; expected {PUBLISHED_BATCH:,}. {self._wanted()}")
            if said is not None:
                said(i + 1, len(MD5), f"reading {name}")
        train = Images(
            np.concatenate([found[name].pixels for name in TRAIN_FILES]),
            np.concatenate([found[name].labels for name in TRAIN_FILES]),
        )
        return train, found[TEST_FILE]


class GrayCIFAR(_CIFAR):
    """Long Range Arena's CIFAR-10: gray, (1024, 1), 10 % of the training images for validation."""

    mean, deviation = (122.6 / 255,), (61 / 255,)
    task = Task(
        name="cifar",
        title="CIFAR",
        kind=CLASSIFICATION,
        length=LENGTH,
        n_inputs=1,
        n_outputs=len(CLASSES),
        classes=CLASSES,
        expected=_EXPECTED,
        paper={"pb": 89.50, "s4": 88.65, "s4d_legs": 88.19, "s4d_inv": 87.83, "s5": 86.14, "transformer": 42.44},
    )

    def _converted(self, images: Images) -> Images:
        return Images(luma(images.pixels), images.labels)


class SequentialCIFAR(_CIFAR):
    """CIFAR-10 in colour, (1024, 3), without augmentation, 10 % of the training images for validation."""

    mean, deviation = (0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)
    task = Task(
        name="scifar",
        title="sCIFAR",
        kind=CLASSIFICATION,
        length=LENGTH,
        n_inputs=3,
        n_outputs=len(CLASSES),
        classes=CLASSES,
        expected=_EXPECTED,
        paper={"pb": 92.02, "kb": 91.86, "s4": 91.80, "s4d_legs": 89.92, "s5": 89.66},
    )


def luma(pixels: Pixels) -> Pixels:
    """Gray, rounded to whole numbers as Pillow's `convert("L")` does.

    Args:
        pixels: (…, 3) red, green, blue.

    Returns:
        (…, 1).

    Source: ITU-R 601-2, 299/1000 red, 587/1000 green and 114/1000 blue.
    """
    found = np.empty((*pixels.shape[:-1], 1), dtype=np.uint8)
    # By image, so that sums of four bytes need little memory.
    for gray, colours in zip(found, pixels, strict=True):
        gray[..., 0] = (colours @ _LUMA + (1 << 15)) >> 16
    return found


class _Refused(pickle.UnpicklingError):
    """The pickle names something that no batch needs."""


class _Byte:
    """In place of NumPy's dtype."""

    def __init__(self, name: Any, *_: Any) -> None:
        if name not in ("u1", b"u1"):
            raise _Refused(f"it holds an array of {name!r}, not of bytes")

    def __setstate__(self, state: Any) -> None:
        """Order of bytes and such: a byte has none."""


class _Array:
    """In place of NumPy's array."""

    value: Pixels | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        if not isinstance(dtype, _Byte) or not isinstance(content, bytes):
            raise _Refused("it holds an array that is not of bytes")
        self.value = np.frombuffer(content, np.uint8).reshape(shape, order="F" if fortran else "C")


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _encode(text: str, encoding: str = "latin1", *_: Any) -> bytes:
    """In place of the function with which Python 3 writes bytes into pickles of protocol 2."""
    if encoding != "latin1":
        raise _Refused(f"it encodes text as {encoding!r}")
    return text.encode("latin1")


class _Unpickler(pickle.Unpickler):
    """Numbers, text, lists, dictionaries, and arrays of bytes that are put together here."""

    known: ClassVar[Mapping[tuple[str, str], Any]] = {
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Byte,
        ("_codecs", "encode"): _encode,
    }

    def find_class(self, module_name: str, global_name: str) -> Any:
        try:
            return self.known[module_name, global_name]
        except KeyError:
            raise _Refused(f"it asks for {module_name}.{global_name}, which no batch needs and which was not run") from None


def _content(path: Path, md5: str | None) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    if not content:
        raise DataError(f"{path} is empty; the download is incomplete. Unpack the archive again.")
    if md5 is not None:
        found = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if found != md5:
            raise DataError(
                f"{path} is not the published file: MD5 {found}, expected {md5}. It is damaged or of another version; "
                f"unpack the archive again. Data that are not the published ones say so in {GENERATED}."
            )
    return content


def _loaded(path: Path, content: bytes) -> dict[Any, Any]:
    try:
        found = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    except _Refused as error:
        raise DataError(f"{path} is no batch of CIFAR-10: {error}. Get the data from where you trust them.") from None
    except Exception as error:
        # A damaged pickle may raise anything.
        raise DataError(f"{path} is damaged ({type(error).__name__}: {error}); unpack the archive again.") from None
    if not isinstance(found, dict):
        raise DataError(f"{path} holds {type(found).__name__}; expected a dictionary as in the Python version of CIFAR-10.")
    return found


def _images(path: Path, content: bytes) -> Images:
    found = _loaded(path, content)
    if missing := [key.decode() for key in (b"data", b"labels") if key not in found]:
        other = " It looks like CIFAR-100." if b"fine_labels" in found else ""
        raise DataError(f"{path} has no {' and '.join(missing)}; expected a batch of CIFAR-10.{other}")
    pixels = found[b"data"].value if isinstance(found[b"data"], _Array) else None
    if pixels is None or pixels.ndim != 2 or pixels.shape[1] != 3 * LENGTH:
        what = "no array of bytes" if pixels is None else f"shape {pixels.shape}"
        raise DataError(f"{path}: data are of {what}; expected bytes of shape (n, {3 * LENGTH})." )
    labels = found[b"labels"]
    if not isinstance(labels, list) or len(labels) != len(pixels):
        what = f"{len(labels):,}" if isinstance(labels, list) else f"a {type(labels).__name__}"
        raise DataError(f"{path} holds {len(pixels):,} images, but labels are {what}; expected a list of as many.")
    for i, label in enumerate(labels):
        if type(label) is not int or not 0 <= label < len(CLASSES):
            raise DataError(
                f"{path}: the label of image {i}, counted from 0, is {label!r}; expected 0 to {len(CLASSES) - 1}."
            )
    # All red comes first.
    colours = np.ascontiguousarray(pixels.reshape(-1, 3, LENGTH).transpose(0, 2, 1))
    return Images(colours, np.array(labels, dtype=np.int64))


def _check_names(path: Path, content: bytes) -> None:
    names = _loaded(path, content).get(b"label_names")
    wanted = [name.encode() for name in CLASSES]
    if names != wanted:
        raise DataError(f"{path}: label_names are {names!r}; expected {wanted!r}, the classes of CIFAR-10.")


def _instead(folder: Path) -> str:
    """What the folder holds in place of the batches, and what to do."""
    found = sorted(path.name for path in folder.iterdir())
    for name in found:
        if name.endswith((".tar.gz", ".tgz", ".tar")) and name.startswith("cifar-10"):
            return f"found {name}, which is packed. Unpack it: tar -xf {name} -C {str(folder)!r}"
    others = {
        "cifar-10-batches-bin": "the binary version",
        "data_batch_1.bin": "the binary version",
        "cifar-10-batches-mat": "the version for Matlab",
        "data_batch_1.mat": "the version for Matlab",
        "cifar-100-python": "CIFAR-100",
    }
    for name, what in others.items():
        if name in found:
            return f"found {name}, {what}"
    listed = ", ".join(found[:8]) + (", …" if len(found) > 8 else "") if found else "nothing"
    return f"found {listed}"
