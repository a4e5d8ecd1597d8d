"""Speech Commands: hand-written clips in the archive's layout through the real loaders."""

from __future__ import annotations

import json
import os
import pickle
import wave
from fractions import Fraction

import numpy as np
import pytest
import torch

from liquid_ssm.data_folder import Generated, write_generated
from liquid_ssm.errors import DataError, ParameterError
from liquid_ssm.tasks import speech_commands
from liquid_ssm.tasks.speech_commands import EPSILON, PER_TIME_INDEX, SC10, SC35, TEN_WORDS
from liquid_ssm.tasks.speech_folder import WORDS
from liquid_ssm.tasks.splits import reshuffled
from liquid_ssm.tasks.waveforms import LONGEST

# A difference and a quotient, whose parts are rounded in float64, and one rounding to float32.
NEAR = 2 * torch.finfo(torch.float32).eps
PER_WORD, SHORT = 9, 1_000


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LIQUID_SSM_CACHE_DIR", str(tmp_path / "cache"))


def write(path, samples):
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(samples.astype("<i2").tobytes())


def samples_of(word, i):
    """Number 8 of every word is short."""
    random = np.random.RandomState([sorted(WORDS).index(word), i])
    return random.randint(-3_000, 3_001, SHORT if i == 8 else LONGEST)


def name_of(word, i):
    return f"{word}/0000000{i}_nohash_0.wav"


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """The ten words, 9 clips of each: of those of a word the first is for validation and the second one for test."""
    folder = tmp_path_factory.mktemp("archive")
    for word in TEN_WORDS:
        (folder / word).mkdir()
        for i in range(PER_WORD):
            write(folder / name_of(word, i), samples_of(word, i))
    for file, i in (("validation_list.txt", 0), ("testing_list.txt", 1)):
        (folder / file).write_text("".join(f"{name_of(word, i)}\n" for word in TEN_WORDS))
    counts = {"train": 70, "validation": 10, "test": 10}
    write_generated(folder, Generated("speech-commands", 0, "1", counts, {"words": list(TEN_WORDS)}), [])
    return folder


@pytest.fixture
def folder(archive, tmp_path):
    """With files of its own where a test changes them."""
    copy = tmp_path / "data"
    copy.mkdir()
    for path in archive.iterdir():
        if path.is_dir():
            (copy / path.name).mkdir()
            for clip in path.iterdir():
                os.link(clip, copy / path.name / clip.name)
        else:
            (copy / path.name).write_bytes(path.read_bytes())
    return copy


def padded(word, i):
    found = np.zeros(LONGEST)
    samples = samples_of(word, i)
    found[: len(samples)] = samples / 32_768
    return found


TRAIN_35 = [(word, i) for word in sorted(TEN_WORDS) for i in range(2, PER_WORD)]


def test_lists_make_the_parts_of_35_words(archive):
    data = SC35(archive)
    assert data.check().counts == {"train": 70, "validation": 10, "test": 10}
    data.setup()
    train = np.stack([padded(*clip) for clip in TRAIN_35])
    mean, deviation = train.mean(), train.std()
    for samples, clips in (
        (data.train, TRAIN_35),
        (data.validation, [(word, 0) for word in sorted(TEN_WORDS)]),
        (data.test, [(word, 1) for word in sorted(TEN_WORDS)]),
    ):
        assert len(samples) == len(clips)
        for k, (word, i) in enumerate(clips):
            sample = samples[k]
            assert sample.target == sorted(WORDS).index(word)
            assert data.task.classes[sample.target] == word
            assert sample.u.shape == (LONGEST, 1)
            assert sample.u.dtype == torch.float32
            expected = torch.from_numpy((padded(word, i) - mean) / deviation)
            assert (sample.u[:, 0] - expected).abs().max() < NEAR * expected.abs().max()


def test_published_standardisation_is_per_time(archive):
    data = SC35(archive, as_published=(PER_TIME_INDEX,))
    data.setup()
    train = np.stack([padded(*clip) for clip in TRAIN_35])
    expected = (train[:5] - train.mean(axis=0)) / (train.std(axis=0, ddof=1) + EPSILON)
    for k in range(5):
        assert np.abs(data.train[k].u[:, 0].numpy() - expected[k]).max() < NEAR * np.abs(expected).max()


def test_ten_words_are_whole_clips_in_the_published_split(archive):
    data = SC10(archive)
    counts = data.check().counts
    assert counts == {"train": 56, "validation": 12, "test": 12}
    data.setup()
    whole = [(word, i) for word in TEN_WORDS for i in range(8)]
    labels = np.repeat(np.arange(10), 8)
    split = reshuffled(80, labels)
    train = np.stack([padded(*whole[k]) for k in split.train])
    mean, deviation = train.mean(), train.std()
    for part in ("train", "validation", "test"):
        for sample, k in zip((getattr(data, part)[i] for i in range(counts[part])), getattr(split, part), strict=True):
            assert sample.target == labels[k]
            expected = torch.from_numpy((padded(*whole[k]) - mean) / deviation)
            assert (sample.u[:, 0] - expected).abs().max() < NEAR * expected.abs().max()


@pytest.mark.parametrize("task", [SC10, SC35])
def test_half_the_samples_with_steps_twice_as_long(archive, task):
    whole, half = task(archive, batch_size=10), task(archive, batch_size=10, every=2)
    for data in (whole, half):
        data.setup()
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        one, other = (next(iter(getattr(data, loader)())) for data in (whole, half))
        assert (one.rate, other.rate) == (1.0, 2.0)
        assert other.u.shape == (10, 8_000, 1)
        assert torch.equal(one.u[:, ::2], other.u)
        assert torch.equal(one.target, other.target)


@pytest.mark.parametrize("every", [0, -1, 16_001, 1.5])
def test_other_strides_are_refused(archive, every):
    with pytest.raises(ParameterError, match=rf"every is {every}; a whole number from 1 to 16,000"):
        SC35(archive, every=every)


def test_workers_read_the_same(archive):
    plain, data = (SC35(archive, batch_size=16, workers=workers, limit={"train": 20}) for workers in (0, 2))
    for each in (plain, data):
        each.setup()
    pickle.loads(pickle.dumps(data.train))
    for one, other in zip(plain.train_dataloader(), data.train_dataloader(), strict=True):
        assert torch.equal(one.u, other.u)
        assert torch.equal(one.target, other.target)


@pytest.mark.parametrize("task", [SC10, SC35])
@pytest.mark.parametrize("i", [0, 4, 8])
def test_a_corrupt_clip_is_named_before_training(folder, task, i):
    path = folder / name_of("right", i)
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:-100])
    with pytest.raises(DataError, match=rf"right/0000000{i}_nohash_0\.wav is damaged.*samples, but"):
        task(folder).check()


def test_a_clip_that_changes_in_place_is_noticed_by_the_check(folder):
    first = SC35(folder)
    # Which keeps what it finds.
    first.setup()
    path = folder / name_of("right", 4)
    times = path.stat()
    path.unlink()
    write(path, 10 * samples_of("right", 4))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    second = SC35(folder)
    second.check()
    assert second.description()["deviation"] > first.description()["deviation"]
    # And for whoever only sets up.
    third = SC35(folder)
    assert third.description() == second.description()


def test_descriptions_can_be_written(archive):
    data = SC35(archive)
    found = json.loads(json.dumps(data.description()))
    train = np.stack([padded(*clip) for clip in TRAIN_35])
    assert found["sample_rate"] == 16_000
    assert found["n_outputs"] == 35
    # Sums of whole numbers are exact.
    wide = np.rint(train * 2**15).astype(np.int64)
    total, squares, count = int(wide.sum()), int((wide * wide).sum()), wide.size
    assert found["mean"] == total / count / 2**15
    # A conversion, half of which is left by the root, that within one unit in the last place, and a quotient.
    variance = Fraction(count * squares - total * total, (count * 2**15) ** 2)
    assert abs(Fraction(found["deviation"]) ** 2 / variance - 1) <= 2 * Fraction(4, 2**53)
    assert len(SC35(archive, as_published=("all",)).description()["mean"]) == LONGEST


def test_ten_words_must_be_there(folder):
    counts = {"train": 63, "validation": 9, "test": 9}
    for path in (folder / "go").iterdir():
        path.unlink()
    (folder / "go").rmdir()
    words = [word for word in TEN_WORDS if word != "go"]
    write_generated(folder, Generated("speech-commands", 0, "1", counts, {"words": words}), [])
    with pytest.raises(DataError, match=r"no clips of go .* needs yes, no, up"):
        SC10(folder).check()


def test_the_published_numbers_are_the_default(folder, monkeypatch):
    (folder / "GENERATED.json").unlink()
    with pytest.raises(DataError, match=r"the folders backward, bed, .* are missing"):
        SC35(folder).check()
    with pytest.raises(DataError, match=r"down 9 of 3,917, .* and 5 more words"):
        SC10(folder).check()
    monkeypatch.setattr("liquid_ssm.tasks.speech_folder.WORDS", dict.fromkeys(WORDS, PER_WORD))
    with pytest.raises(DataError, match="holds 80 clips of 16,000 samples of the ten words; expected 34,975"):
        SC10(folder).check()
    monkeypatch.setattr(speech_commands, "WHOLE_CLIPS", 80)
    assert SC10(folder).check().counts["train"] == 56


def test_progress_is_told_to_the_end(archive):
    told = []
    SC35(archive).check(lambda *step: told.append(step))
    assert told[-1] == (90, 90, "reading clips")


def test_what_the_tasks_say():
    assert SC35.task.classes == tuple(sorted(WORDS))
    assert SC10.task.classes == TEN_WORDS
    for task in (SC35.task, SC10.task):
        assert (task.length, task.n_outputs, task.metric) == (LONGEST, len(task.classes), "accuracy")
        assert set(task.deviations) == {PER_TIME_INDEX}
