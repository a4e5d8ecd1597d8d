"""Clips: the samples of the file, and every damage named."""

from __future__ import annotations

import wave
from contextlib import suppress

import numpy as np
import pytest

from liquid_ssm.errors import DataError
from liquid_ssm.tasks.waveforms import clip_length, read_clip

SAMPLES = np.array([0, 1, -1, 32_767, -32_768, 256], np.int16)


def write(path, samples=SAMPLES, *, rate=16_000, channels=1, width=2):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(samples.astype(f"<i{width}" if width > 1 else "u1").tobytes())
    return path


def test_samples_are_those_of_the_file(tmp_path):
    path = write(tmp_path / "a.wav")
    clip = read_clip(path)
    assert clip.dtype == np.int16
    assert clip.tolist() == SAMPLES.tolist()
    assert clip_length(path) == len(SAMPLES)


@pytest.mark.parametrize("length", [1, 16_000])
def test_both_ends_of_the_range_of_lengths(tmp_path, length):
    assert len(read_clip(write(tmp_path / "a.wav", np.zeros(length, np.int16)))) == length


@pytest.mark.parametrize(
    ("samples", "options", "words"),
    [
        (SAMPLES, {"rate": 8_000}, "16 bits, 1 channel.* 8,000 Hz; expected 16, 1, 16,000"),
        (SAMPLES, {"channels": 2}, "2 channel"),
        (SAMPLES, {"width": 1}, "8 bits"),
        (SAMPLES, {"width": 4}, "32 bits"),
        (SAMPLES[:0], {}, "0 samples; expected 1 to 16,000"),
        (np.zeros(16_001, np.int16), {}, "16,001 samples"),
    ],
)
def test_other_forms_are_named(tmp_path, samples, options, words):
    path = write(tmp_path / "a.wav", samples, **options)
    for read in (read_clip, clip_length):
        with pytest.raises(DataError, match=f"{words}.* Get it again") as caught:
            read(path)
        assert str(path) in str(caught.value)


def test_every_cut_of_a_clip_is_found(tmp_path):
    path = write(tmp_path / "a.wav")
    whole = path.read_bytes()
    for n in range(len(whole)):
        path.write_bytes(whole[:n])
        with pytest.raises(DataError, match=r"a\.wav is damaged"):
            read_clip(path)


@pytest.mark.parametrize("value", [0x00, 0x01, 0x7F, 0xFF])
def test_no_byte_of_the_header_makes_a_raw_error(tmp_path, value):
    path = write(tmp_path / "a.wav")
    whole = path.read_bytes()
    for n in range(44):
        path.write_bytes(whole[:n] + bytes([value]) + whole[n + 1 :])
        # Sizes of the whole file and bytes per second say nothing that is needed.
        with suppress(DataError):
            clip = read_clip(path)
            assert clip.tolist() == SAMPLES.tolist()[: len(clip)]


def test_a_file_that_is_none_is_named(tmp_path):
    path = tmp_path / "a.wav"
    for read in (read_clip, clip_length):
        with pytest.raises(DataError, match=r"a\.wav cannot be read: No such file"):
            read(path)
    path.write_bytes(b"<html>404</html>")
    with pytest.raises(DataError, match="RIFF"):
        read_clip(path)
