"""Mean and deviation from exact sums, and their cache."""

from __future__ import annotations

import os
import wave

import numpy as np
import pytest

from liquid_ssm.errors import DataError
from liquid_ssm.tasks import clip_sums
from liquid_ssm.tasks.clip_sums import SCALE, ClipSums, keep_sums, kept_sums
from liquid_ssm.tasks.waveforms import LONGEST

# A quotient and a root, each rounded once, against NumPy's pairwise sums of 48,000 terms (below 2 * 16 roundings
# each way), with a mean that is not small against the deviation.
NEAR = 100 * np.finfo(np.float64).eps


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LIQUID_SSM_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def clips():
    random = np.random.RandomState(0)
    return [random.randint(-32_768, 32_768, length).astype(np.int16) for length in (LONGEST, 9_000, 1)]


def padded():
    return np.stack([np.pad(clip.astype(np.float64), (0, LONGEST - len(clip))) for clip in clips()]) / SCALE


def summed():
    sums = ClipSums()
    for clip in clips():
        sums.add(clip)
    return sums


def test_one_mean_and_deviation_of_all_samples():
    mean, deviation = summed().of_all()
    # The mean is small against the samples: its error is relative to their size, which is below 1.
    assert abs(mean - padded().mean()) < NEAR
    assert abs(deviation - padded().std()) < NEAR


def test_means_and_deviations_at_each_time():
    means, deviations = summed().of_times()
    assert np.abs(means - padded().mean(axis=0)).max() < NEAR
    assert np.abs(deviations - padded().std(axis=0, ddof=1)).max() < NEAR


def test_sums_are_exact_for_more_clips_than_there_are():
    sums = ClipSums()
    # At full scale: squares of sums need 66 bits.
    sums.count = 200_000
    sums.sums[:] = -32_768 * sums.count
    sums.squares[:] = 32_768**2 * sums.count
    assert sums.of_times()[0].tolist() == [-1.0] * LONGEST
    assert not sums.of_times()[1].any()
    sums.sums[0] += 32_768
    sums.squares[0] -= 32_768**2
    # Half of them at each end: the squares alone.
    sums.sums[1] = 0
    assert sums.of_times()[1][1] == pytest.approx((sums.count / (sums.count - 1)) ** 0.5, rel=NEAR)
    # One sample of n is 0 and the others are -1: the variance with n - 1 is 1/n.
    assert sums.of_times()[1][0] == pytest.approx(sums.count**-0.5, rel=NEAR)


def test_silence_and_single_clips_are_refused():
    sums = ClipSums()
    sums.add(np.zeros(5, np.int16))
    with pytest.raises(DataError, match="silent"):
        sums.of_all()
    with pytest.raises(DataError, match="1 clips for training"):
        sums.of_times()


@pytest.fixture
def folder(tmp_path):
    for i, clip in enumerate(clips()):
        with wave.open(str(tmp_path / f"{i}.wav"), "wb") as file:
            file.setparams((1, 2, 16_000, 0, "NONE", ""))
            file.writeframes(clip.astype("<i2").tobytes())
    return tmp_path


NAMES = ["0.wav", "1.wav", "2.wav"]


def same(one, other):
    return (
        one.count == other.count and np.array_equal(one.sums, other.sums) and np.array_equal(one.squares, other.squares)
    )


def test_files_are_read_once(folder, monkeypatch):
    assert same(kept_sums(folder, NAMES), summed())
    monkeypatch.setattr(clip_sums, "read_clip", None)
    assert same(kept_sums(folder, NAMES), summed())
    with pytest.raises(TypeError):
        kept_sums(folder, NAMES[:2])


def test_a_changed_file_is_read_again(folder, monkeypatch):
    kept_sums(folder, NAMES)
    os.utime(folder / "1.wav", ns=(1, 1))
    monkeypatch.setattr(clip_sums, "read_clip", None)
    with pytest.raises(TypeError):
        kept_sums(folder, NAMES)


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "other"])
def test_a_damaged_cache_is_made_again(folder, cache, damage):
    kept_sums(folder, NAMES)
    (path,) = (cache / "speech").iterdir()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    if damage == "other":
        np.savez(path, format=1, count=3, sums=np.zeros(4), squares=np.zeros(4))
    else:
        path.write_bytes({"cut": data[:-9], "flip": data, "empty": b""}[damage])
    assert same(kept_sums(folder, NAMES), summed())


def test_what_is_kept_is_replaced(folder):
    kept_sums(folder, NAMES)
    other = ClipSums()
    other.count = 3
    keep_sums(other, folder, NAMES)
    assert same(kept_sums(folder, NAMES), other)


def test_a_cache_that_cannot_be_written_and_a_missing_clip_are_named(folder, cache):
    with pytest.raises(DataError, match=r"3\.wav cannot be read"):
        kept_sums(folder, [*NAMES, "3.wav"])
    cache.write_text("a file in its place")
    with pytest.raises(DataError, match=r"cannot be written: .* LIQUID_SSM_CACHE_DIR"):
        kept_sums(folder, NAMES)
