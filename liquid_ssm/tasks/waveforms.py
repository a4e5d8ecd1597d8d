"""Clips of speech: WAV files of 16-bit PCM, one channel, 16 kHz."""

from __future__ import annotations

import struct
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import DataError

RATE = 16_000
# Samples of the longest clip: one second.
LONGEST = 16_000


def clip_length(path: Path) -> int:
    """Samples of a clip, from its header.

    Raises:
        DataError: the file cannot be read, or is no such clip.
    """
    with _opened(path) as file:
        return file.getnframes()


def read_clip(path: Path) -> npt.NDArray[np.int16]:
    """The samples of a clip, 1 to 16,000 of them.

    Raises:
        DataError: the file cannot be read, is cut, or is no such clip.
    """
    with _opened(path) as file:
        length = file.getnframes()
        data = file.readframes(length)
    if len(data) != 2 * length:
        raise _damaged(path, f"its header says {length:,} samples, but {len(data) // 2:,} are there")
    return np.frombuffer(data, "<i2").astype(np.int16)


@contextmanager
def _opened(path: Path) -> Iterator[wave.Wave_read]:
    try:
        with wave.open(str(path), "rb") as file:
            form = file.getsampwidth() * 8, file.getnchannels(), file.getframerate()
            if form != (16, 1, RATE):
                bits, channels, rate = form
                raise _damaged(
                    path, f"it has {bits} bits, {channels} channel(s), {rate:,} Hz; expected 16, 1, {RATE:,}"
                )
            if not 1 <= file.getnframes() <= LONGEST:
                raise _damaged(path, f"it has {file.getnframes():,} samples; expected 1 to {LONGEST:,}")
            yield file
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    except (wave.Error, EOFError, struct.error, ValueError, RuntimeError) as error:
        if isinstance(error, DataError):
            raise
        raise _damaged(path, str(error) or "it ends too early") from None


def _damaged(path: Path, what: str) -> DataError:
    return DataError(f"{path} is damaged or no clip of Speech Commands: {what}. Get it again.")
