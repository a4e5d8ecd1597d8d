"""The archive's folders and lists: what is found, and what is missing or too much."""

from __future__ import annotations

import pytest

from liquid_ssm.data_folder import Generated
from liquid_ssm.errors import DataError
from liquid_ssm.tasks import speech_folder
from liquid_ssm.tasks.speech_folder import LISTED, WORDS, open_speech

SMALL = dict.fromkeys(WORDS, 4)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Four empty clips of each word, as if they were the published ones: one each for validation and test."""
    monkeypatch.setattr(speech_folder, "WORDS", SMALL)
    monkeypatch.setattr(speech_folder, "LISTED", {"validation": 35, "test": 35})
    for word in WORDS:
        (tmp_path / word).mkdir()
        for i in range(4):
            (tmp_path / word / f"0000000{i:x}_nohash_0.wav").touch()
    (tmp_path / "_background_noise_").mkdir()
    (tmp_path / "README.md").touch()
    for file, i in (("validation_list.txt", 0), ("testing_list.txt", 3)):
        (tmp_path / file).write_text("".join(f"{word}/0000000{i}_nohash_0.wav\n" for word in WORDS))
    return tmp_path


def opened(folder, words=tuple(WORDS), generated=None, lists=True):
    return open_speech(folder, words, generated, "Expected.", lists=lists)


def test_the_published_counts_of_version_2():
    # Known from two sources: the archive's size, and that of the parts.
    assert sum(WORDS.values()) == 105_829
    assert 105_829 - sum(LISTED.values()) == 84_843
    assert list(WORDS) == sorted(WORDS)
    assert len(WORDS) == 35


def test_clips_are_listed_by_word_and_name(folder):
    found = opened(folder)
    assert found.folder == folder
    assert [clip.name for clip in found.clips[:5]] == [
        *(f"backward/0000000{i}_nohash_0.wav" for i in range(4)),
        "bed/00000000_nohash_0.wav",
    ]
    assert [clip.label for clip in found.clips] == [label for label in range(35) for _ in range(4)]
    assert found.parts["zero/00000000_nohash_0.wav"] == "validation"
    assert found.parts["zero/00000003_nohash_0.wav"] == "test"
    assert len(found.parts) == 70


def test_some_words_in_another_order(folder):
    found = opened(folder, ("yes", "no"), lists=False)
    assert [(clip.name.split("/")[0], clip.label) for clip in found.clips] == [("yes", 0)] * 4 + [("no", 1)] * 4
    assert not found.parts


@pytest.mark.parametrize("below", ["speech_commands_v0.02", "SpeechCommands/speech_commands_v0.02", "SpeechCommands"])
def test_the_archive_may_be_below(folder, tmp_path_factory, below):
    top = tmp_path_factory.mktemp("top")
    (top / below).parent.mkdir(exist_ok=True)
    folder.rename(top / below)
    assert opened(top).folder == top / below
    (top / below).rename(folder)


def test_hidden_files_are_passed_over(folder):
    (folder / "yes" / ".DS_Store").touch()
    assert len(opened(folder).clips) == 140


def refused(folder, match, **options):
    with pytest.raises(DataError, match=match):
        opened(folder, **options)


def test_an_archive_that_is_not_unpacked(tmp_path):
    (tmp_path / "speech_commands_v0.02.tar.gz").touch()
    refused(tmp_path, r"holds speech_commands_v0\.02\.tar\.gz, which is not unpacked\. Run: .*tar -xf")


def test_another_folder(tmp_path):
    refused(tmp_path, r"found nothing\. Expected\.")
    (tmp_path / "x.txt").touch()
    refused(tmp_path, r"found x\.txt\. Expected\.")


def test_version_1(folder):
    for word in ("backward", "follow", "forward", "learn", "visual"):
        (folder / word).rename(folder / f"_{word}")
    refused(folder, r"version 0\.01 .* 30 words, without backward, follow, forward, learn, visual.* version 0\.02")


def test_a_missing_word(folder):
    (folder / "tree").rename(folder / "_tree")
    refused(folder, "the folders tree are missing")
    assert len(opened(folder, ("yes", "no"), lists=False).clips) == 8


def test_a_missing_clip_and_one_too_many(folder):
    (folder / "cat" / "00000001_nohash_0.wav").unlink()
    refused(folder, r"not hold the clips of version 0\.02: cat 3 of 4\.")
    (folder / "cat" / "00000001_nohash_0.wav").touch()
    (folder / "dog" / "00000009_nohash_0.wav").touch()
    refused(folder, r"dog 5 of 4\.")


def test_many_wrong_counts_are_summed_up(folder):
    for word in WORDS:
        (folder / word / "00000001_nohash_0.wav").unlink()
    refused(folder, "and 30 more words")


@pytest.mark.parametrize("name", ["a.wav", "00000009_nohash_0.wav.part", "0000000g_nohash_0.wav", "x"])
def test_a_file_of_another_name(folder, name):
    (folder / "cat" / name).touch()
    refused(folder, f"{name} is no clip of the archive")


@pytest.mark.parametrize("file", ["validation_list.txt", "testing_list.txt"])
def test_lists(folder, file):
    path = folder / file
    text = path.read_text()
    for change, words in {
        text[: len(text) // 2].rpartition("\n")[0]: r"lists \d+ clips; expected 35 \(version 0\.02\)",
        text + "zero/00000002_nohash_0.wav\n": "lists 36 clips",
        text[:-5]: "line 35: 'zero/0000000._nohash_0' is listed, but there is no such clip",
        text + "up/99999999_nohash_0.wav\n": "line 36: .* no such clip",
        text + text[:30].partition("\n")[0]: "line 36: 'backward/.*' is listed twice",
    }.items():
        path.write_text(change)
        refused(folder, words)
    path.write_bytes(b"\xff\xfe")
    refused(folder, f"{file} cannot be read")
    path.unlink()
    refused(folder, f"{file} is missing")
    assert opened(folder, lists=False).parts == {}


def test_a_clip_in_both_lists(folder):
    (folder / "testing_list.txt").write_text((folder / "validation_list.txt").read_text())
    refused(folder, r"testing_list\.txt, line 1: .* is listed twice, the other time for validation")


def test_generated_words_and_counts(folder):
    for word in set(WORDS) - {"no", "yes"}:
        (folder / word).rename(folder / f"_{word}")
    for file, i in (("validation_list.txt", 0), ("testing_list.txt", 3)):
        (folder / file).write_text(f"no/0000000{i}_nohash_0.wav\nyes/0000000{i}_nohash_0.wav\n")
    about = {"task": "speech-commands", "seed": 0, "version": "1", "options": {"words": ["yes", "no"]}}
    counts = {"train": 4, "validation": 2, "test": 2}
    found = opened(folder, generated=Generated(counts=counts, **about))
    assert {clip.name.split("/")[0]: clip.label for clip in found.clips} == {"no": 18, "yes": 33}
    refused(
        folder,
        r"holds 8 clips; expected 9 \(GENERATED\.json",
        generated=Generated(counts={**counts, "train": 5}, **about),
    )
    refused(
        folder,
        r"validation_list\.txt lists 2 clips; expected 3 \(GENERATED\.json\)",
        generated=Generated(counts={"train": 3, "validation": 3, "test": 2}, **about),
    )
