"""Signals from files, and the one shipped with the package.

Every file is read as an array (channels, length) of float64; whatever cannot be read exactly that way is a
`SignalError`.  Nothing is resampled, cut or normalised.
"""

from __future__ import annotations

import csv
import re
import struct
import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from importlib.resources import files
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from .errors import ParameterError, SignalError

Array = npt.NDArray[Any]
Float64Array = npt.NDArray[np.float64]

SUFFIXES = (".wav", ".csv", ".tsv", ".txt", ".npy", ".npz")

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_COMPRESSED = {2: "ADPCM", 6: "A-law", 7: "mu-law", 0x11: "IMA ADPCM", 0x55: "MP3"}
# Bytes 2 to 15 of every sub-format of WAVE_FORMAT_EXTENSIBLE that stands for a plain format tag.
_GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")

# What NumPy's readers raise on a damaged file: their own checks, the archive's, Python's parser, which reads the
# header, and a header that asks for more memory than there is.
_DAMAGED = (
    ValueError,
    TypeError,
    EOFError,
    OSError,
    MemoryError,
    RuntimeError,
    SyntaxError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True, eq=False)
class Signal:
    """Samples and what is known about them.

    Attributes:
        samples: (channels, length) float64, finite, neither axis empty, read-only.
        rate: samples per second, None where the file does not say.
        name: short name, the file's.
        description: one line for people: kind of file, scale, what was assumed.
    """

    samples: Float64Array
    rate: float | None
    name: str
    description: str

    @property
    def n_channels(self) -> int:
        return int(self.samples.shape[0])

    @property
    def length(self) -> int:
        return int(self.samples.shape[1])


def default_signal() -> Signal:
    """The electrocardiogram that PyWavelets distributes, divided by 250 so that max |u| = 1.

    Returns:
        One channel of 1,024 samples; unit and sampling rate are not documented at the source (data/README.md).
    """
    with files("liquid_ssm.data").joinpath("ecg.npy").open("rb") as file:
        samples = np.load(file, allow_pickle=False).astype(np.float64)
    scaled = samples[None, :] / np.abs(samples).max()
    return _checked(scaled, None, "ecg", "electrocardiogram distributed by PyWavelets, scaled to max |u| = 1")


def load_signal(path: str | PathLike[str]) -> Signal:
    """Read a WAV, CSV, NPY or NPZ file.

    * `.wav`: PCM of 8, 16, 24 or 32 bits (also WAVE_FORMAT_EXTENSIBLE) divided by 2^(bits-1), an exact operation,
      so that samples lie in [-1, 1); floats of 32 or 64 bits as they are.
    * `.csv`, `.tsv`, `.txt`: one column is one channel; separated by semicolon, tab, comma or blanks, the first of
      these that occurs in the first line; a first row without any number is a header; blank lines and lines
      that start with # are skipped.
    * `.npy`, `.npz`: 1-D, or 2-D with the longer axis as time (equal axes: rows are channels).  An archive with
      several arrays needs the name of one of them: `recording.npz:left`.

    Args:
        path: the file.

    Returns:
        The samples, (channels, length) float64, unscaled except for PCM.

    Raises:
        SignalError: the file is missing, unreadable, damaged, of another kind, empty, or holds samples that are
            not finite real numbers; the message says where.

    Accuracy: exact, except that integers beyond 2^53, long doubles and decimal text are rounded to float64.
    """
    file, member = _locate(path)
    suffix = file.suffix.lower()
    try:
        with file.open("rb") as stream:
            if suffix == ".wav":
                return _read_wav(file.name, stream.read())
            if suffix == ".npy":
                return _read_npy(file.name, stream)
            if suffix == ".npz":
                return _read_npz(file.name, stream, member)
            return _read_text(file.name, stream.read())
    except OSError as error:
        raise SignalError(f"cannot read {str(file)!r}: {error.strerror}. Check its permissions.") from None


def as_batch(signal: Signal, n_channels: int) -> Float64Array:
    """u (batch, H, L) in which every system channel sees every signal channel.

    Channel c of the signal becomes row c of the batch, repeated for the H channels of the system, so a stereo file
    gives batch 2: u[c, h, k] = samples[c, k].

    Args:
        signal: (channels, L).
        n_channels: H >= 1.

    Raises:
        ParameterError: n_channels is below 1.
    """
    if n_channels < 1:
        raise ParameterError(f"n_channels is {n_channels}; a system has at least one channel.")
    return np.repeat(signal.samples[:, None, :], n_channels, axis=1)


def _locate(path: str | PathLike[str]) -> tuple[Path, str | None]:
    """The file, checked, and the array name behind `.npz:` if there is one."""
    file, member = Path(path), None
    parts = re.fullmatch(r"(.+\.npz):(.*)", str(path), re.IGNORECASE | re.DOTALL)
    try:
        if parts and not file.exists():
            file, member = Path(parts[1]), parts[2]
        if not file.exists():
            raise SignalError(f"there is no file {str(file)!r} (looked in {file.absolute().parent}). Check the path.")
        if file.is_dir():
            raise SignalError(f"{str(file)!r} is a directory; give one file ({', '.join(SUFFIXES)}).")
        if file.suffix.lower() not in SUFFIXES:
            raise SignalError(
                f"{str(file)!r} has the suffix {file.suffix!r}; allowed: {', '.join(SUFFIXES)}. "
                "Convert the file, or rename it if it is one of these."
            )
        if not file.is_file():
            raise SignalError(f"{str(file)!r} is not a regular file; copy its contents to one.")
        if file.stat().st_size == 0:
            raise SignalError(f"{str(file)!r} is empty (0 bytes); give a file with at least one sample.")
    except OSError as error:
        raise SignalError(f"cannot look up {str(file)!r}: {error.strerror}. Check path and permissions.") from None
    return file, member


def _checked(samples: Array, rate: float | None, name: str, description: str) -> Signal:
    """The one door through which samples become a `Signal`."""
    if 0 in samples.shape:
        channels, length = samples.shape
        raise SignalError(f"{name} is empty: {channels} channel(s) of {length} sample(s); give at least one of each.")
    # A long double beyond the range of float64 becomes inf, and the next lines report it.
    with np.errstate(over="ignore"):
        values = np.array(samples, dtype=np.float64, order="C")
    bad = ~np.isfinite(values)
    if bad.any():
        # In time order, so that the first bad sample is the earliest one.
        k, channel = (int(i) for i in np.argwhere(bad.T)[0])
        raise SignalError(
            f"{name} has {int(bad.sum())} sample(s) that are not finite; the first is {values[channel, k]} at "
            f"index {k} of channel {channel} (both counted from 0). Replace or cut them."
        )
    values.flags.writeable = False
    return Signal(values, rate, name, description)


def _read_wav(name: str, data: bytes) -> Signal:
    order = {b"RIFF": "<", b"RIFX": ">"}.get(data[:4])
    if order is None or data[8:12] != b"WAVE":
        hint = "RF64 (over 4 GiB) is not read; cut the file" if data[:4] == b"RF64" else "save it as RIFF WAV"
        raise SignalError(f"{name} is not a RIFF WAV file: it starts with {data[:12]!r}; {hint}.")
    chunks = _riff_chunks(name, data, order)
    for needed in (b"fmt ", b"data"):
        if needed not in chunks:
            raise SignalError(f"{name} is truncated or damaged: it has no {needed.decode()!r} chunk. Copy it again.")
    header, body = chunks[b"fmt "], chunks[b"data"]
    if len(header) < 16:
        raise SignalError(f"{name} has a 'fmt ' chunk of {len(header)} bytes; it needs 16. Copy the file again.")
    tag, channels, rate, _, block, bits = struct.unpack(f"{order}HHIIHH", header[:16])
    if tag == _EXTENSIBLE and header[26:40] == _GUID_TAIL:
        tag = struct.unpack(f"{order}H", header[24:26])[0]
    if tag not in (_PCM, _FLOAT):
        kind = _COMPRESSED.get(tag, "not known here")
        raise SignalError(f"{name} has format tag {tag:#x} ({kind}); allowed: PCM and float. Save it as PCM.")
    width = block // channels if channels else 0
    allowed = (4, 8) if tag == _FLOAT else (1, 2, 3, 4)
    # Each sample must fill its container up to less than a byte; 8-bit containers alone are unsigned.
    if not channels or block != channels * width or width not in allowed or width != -(-bits // 8):
        raise SignalError(
            f"{name} says {bits} bits, {channels} channel(s), {block} bytes per frame; "
            "allowed: PCM of 8, 16, 24 or 32 bits, floats of 32 or 64 bits. Convert it."
        )
    if rest := len(body) % block:
        raise SignalError(f"{name} is truncated: its last frame has {rest} of {block} bytes. Copy it again.")
    frames = _decode(body, tag, width, order).reshape(-1, channels)
    seconds = f", {len(frames) / rate:.3g} s at {rate} Hz" if rate else ""
    scale = "as it is" if tag == _FLOAT else f"divided by 2^{8 * width - 1} into [-1, 1)"
    kind = "float" if tag == _FLOAT else "PCM"
    return _checked(frames.T, float(rate) if rate else None, name, f"WAV, {bits}-bit {kind}, {scale}{seconds}")


def _riff_chunks(name: str, data: bytes, order: str) -> dict[bytes, bytes]:
    """Contents by chunk id, the first of each; a short data chunk is an error, other debris at the end is not."""
    found: dict[bytes, bytes] = {}
    at = 12
    while at + 8 <= len(data):
        kind, size = data[at : at + 4], struct.unpack(f"{order}I", data[at + 4 : at + 8])[0]
        body = data[at + 8 : at + 8 + size]
        if kind == b"data" and len(body) < size:
            raise SignalError(
                f"{name} is truncated: its header announces {size} bytes of samples, the file holds {len(body)}. "
                "Copy it again (or, if it was written to a pipe, save it to a file)."
            )
        found.setdefault(kind, body)
        # Chunks of odd size are followed by one byte of padding.
        at += 8 + size + size % 2
    return found


def _decode(body: bytes, tag: int, width: int, order: str) -> Float64Array:
    if tag == _FLOAT:
        return np.frombuffer(body, f"{order}f{width}").astype(np.float64)
    if width == 1:
        return (np.frombuffer(body, np.uint8).astype(np.float64) - 128.0) / 128.0
    # Put the bytes at the significant end of 32 bits: one division then serves every width, exactly.
    left = np.zeros((len(body) // width, 4), np.uint8)
    left[:, slice(4 - width, 4) if order == "<" else slice(width)] = np.frombuffer(body, np.uint8).reshape(-1, width)
    return left.view(f"{order}i4")[:, 0].astype(np.float64) / 2.0**31


def _read_npy(name: str, stream: BinaryIO) -> Signal:
    if stream.read(6) != b"\x93NUMPY":
        raise SignalError(f"{name} is not an NPY file (no NumPy signature). Write it with numpy.save.")
    stream.seek(0)
    try:
        array = np.load(stream, allow_pickle=False)
    except _DAMAGED as error:
        raise SignalError(_why_not(name, error)) from None
    return _from_array(name, array, "NPY")


def _read_npz(name: str, stream: BinaryIO, member: str | None) -> Signal:
    if not zipfile.is_zipfile(stream):
        raise SignalError(f"{name} is not an NPZ file (no complete zip archive). Write it with numpy.savez.")
    stream.seek(0)
    try:
        with np.load(stream, allow_pickle=False) as archive:
            names = list(archive.files)
            if member is None and len(names) == 1:
                member = names[0]
            array = archive[member] if member in names else None
    except _DAMAGED as error:
        raise SignalError(_why_not(name, error)) from None
    if array is None:
        asked = "which array of" if member is None else f"there is no array {member!r} in"
        listed = ", ".join(names) or "nothing"
        raise SignalError(f"{asked} {name}? It holds {listed}; name one: {name}:{names[0] if names else 'u'}.")
    if not isinstance(array, np.ndarray):
        raise SignalError(f"{name} holds {member!r}, which is not an array. Write it with numpy.savez.")
    return _from_array(f"{name}:{member}", array, "NPZ")


def _why_not(name: str, error: BaseException) -> str:
    if "allow_pickle" in str(error):
        return f"{name} holds Python objects (a pickle), which could run code and is never loaded. Save numbers only."
    return f"{name} is truncated or damaged: {error or type(error).__name__}. Write it again."


def _from_array(name: str, array: Array, kind: str) -> Signal:
    if array.dtype.kind not in "iuf":
        what = "complex" if array.dtype.kind == "c" else "not numeric"
        raise SignalError(
            f"{name} has dtype {array.dtype}, which is {what}; allowed: integers and floats. "
            "Convert it (for a complex signal, save real and imaginary part as two channels)."
        )
    if array.ndim == 1:
        return _checked(array[None, :], None, name, f"{kind}, {array.dtype}")
    if array.ndim != 2:
        raise SignalError(f"{name} has shape {array.shape}; allowed: (length,) or (channels, length).")
    rows, columns = array.shape
    if rows > columns:
        return _checked(array.T, None, name, f"{kind}, {array.dtype}, {rows} x {columns} taken as length x channels")
    return _checked(array, None, name, f"{kind}, {array.dtype}, {rows} x {columns} taken as channels x length")


def _read_text(name: str, data: bytes) -> Signal:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SignalError(f"{name} is not text in UTF-8 (byte {error.start}). Save it as plain CSV.") from None
    numbered = enumerate(text.splitlines(), 1)
    lines = [(n, line) for n, line in numbered if line.strip() and not line.lstrip().startswith("#")]
    if not lines:
        raise SignalError(f"{name} is empty: it has no line with numbers; give at least one.")
    separator = next((mark for mark in ";\t," if mark in lines[0][1]), None)
    rows = [(n, _cells(name, n, line, separator)) for n, line in lines]
    first, head = rows[0]
    has_header = not any(_is_number(cell) for cell in head)
    values = rows[1:] if has_header else rows
    if not values:
        raise SignalError(f"{name} is empty: line {first} holds no number and nothing follows it; give samples.")
    samples = np.empty((len(head), len(values)))
    for k, (n, cells) in enumerate(values):
        if len(cells) != len(head):
            raise SignalError(
                f"{name} line {n} has {len(cells)} column(s), line {first} has {len(head)}; make them equal."
            )
        for channel, cell in enumerate(cells):
            if not _is_number(cell):
                hint = "Write decimals with a point." if "," in cell else "Below the header every cell is a number."
                raise SignalError(f"{name} line {n}, column {channel + 1}: {cell!r} is not a number. {hint}")
            samples[channel, k] = float(cell)
    names = f" ({', '.join(head)})" if has_header else ""
    return _checked(samples, None, name, f"text, {len(head)} column(s){names}, one channel each")


def _cells(name: str, number: int, line: str, separator: str | None) -> list[str]:
    if separator is None:
        return line.split()
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=separator))]
    except csv.Error as error:
        raise SignalError(f"{name} line {number} cannot be split into cells: {error}. Write it again.") from None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    # float() takes 1_000 for a thousand; a file that has it is more likely to be damaged.
    return "_" not in cell
