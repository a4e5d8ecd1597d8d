"""Clips by espeak-ng: the archive's layout, and that the words can be told apart."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import wave

import numpy as np
import pytest

from liquid_ssm.data_folder import check_sums, read_generated
from liquid_ssm.errors import BackendUnavailable, ParameterError
from liquid_ssm.generate import speech_commands
from liquid_ssm.generate.speech_commands import espeak_version, generate_speech_commands
from liquid_ssm.tasks.speech_folder import WORDS
from liquid_ssm.tasks.waveforms import read_clip

needs_espeak = pytest.mark.skipif(
    shutil.which("espeak-ng") is None, reason="the program espeak-ng is not installed (apt-get install espeak-ng)"
)
COUNTS = {"train": 24, "validation": 7, "test": 5}
CHOSEN = ("six", "no", "yes")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speech")
    generate_speech_commands(folder, seed=3, words=CHOSEN, speakers=10, noise=0.0, short=0.3, **COUNTS)
    return folder


def clips(folder):
    return sorted(path.relative_to(folder).as_posix() for word in CHOSEN for path in (folder / word).iterdir())


def listed(folder, part):
    name = {"validation": "validation_list.txt", "test": "testing_list.txt"}[part]
    return (folder / name).read_text(encoding="ascii").splitlines()


@needs_espeak
def test_the_archives_layout(folder):
    names = clips(folder)
    assert len(names) == sum(COUNTS.values())
    assert all(re.fullmatch(r"(six|no|yes)/[0-9a-f]{8}_nohash_\d+\.wav", name) for name in names)
    for part in ("validation", "test"):
        assert len(set(listed(folder, part))) == COUNTS[part]
        assert set(listed(folder, part)) < set(names)
    assert sorted(path.name for path in folder.iterdir()) == [
        "GENERATED.json",
        "SHA256SUMS",
        "_background_noise_",
        "no",
        "six",
        "testing_list.txt",
        "validation_list.txt",
        "yes",
    ]
    assert len(list((folder / "_background_noise_").glob("*.wav"))) == 2


@needs_espeak
def test_words_are_balanced_and_speakers_belong_to_one_part(folder):
    parts = {part: listed(folder, part) for part in ("validation", "test")}
    parts["train"] = sorted(set(clips(folder)) - set(parts["validation"]) - set(parts["test"]))
    speakers = {}
    for part, names in parts.items():
        counts = [sum(name.startswith(f"{word}/") for name in names) for word in CHOSEN]
        assert max(counts) - min(counts) <= 1
        speakers[part] = {name.split("/")[1][:8] for name in names}
    assert {part: len(found) for part, found in speakers.items()} == {"train": 8, "validation": 1, "test": 1}
    assert len(set.union(*speakers.values())) == 10


@needs_espeak
def test_clips_are_short_or_a_second_and_all_different(folder):
    found = [read_clip(folder / name) for name in clips(folder)]
    short = [len(clip) for clip in found if len(clip) < 16_000]
    assert all(8_000 <= length <= 15_840 for length in short)
    # 36 clips with a chance of 0.3 each: outside of 2 … 22 less than once in 10,000, and the seed is fixed.
    assert 2 <= len(short) <= 22
    assert len({clip.tobytes() for clip in found}) == len(found)
    for clip in found:
        # Between 0.2 and 0.8 of full scale, where the word was not cut.
        assert np.abs(clip).max() <= 0.8 * 32_767 + 1
        assert np.abs(clip).max() >= 0.2 * 32_767 - 1 or len(clip) < 16_000


@needs_espeak
def test_hissing_words_have_more_high_frequencies(folder):
    share = {}
    for word in ("six", "no"):
        share[word] = []
        for path in (folder / word).iterdir():
            power = np.abs(np.fft.rfft(read_clip(path).astype(float))) ** 2
            high = np.fft.rfftfreq(2 * len(power) - 2, 1 / 16_000) > 4_000
            share[word].append(power[high].sum() / power.sum())
    # "six" has the fricative s twice, "no" is voiced throughout.
    assert min(share["six"]) > max(share["no"])


@needs_espeak
def test_the_same_seed_gives_the_same_bytes(folder, tmp_path):
    told = []
    generate_speech_commands(
        tmp_path / "a",
        seed=3,
        words=list(CHOSEN),
        speakers=10,
        noise=0.0,
        short=0.3,
        **COUNTS,
        progress=lambda *step: told.append(step),
    )
    files = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    assert files == {path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file()}
    assert all((folder / path).read_bytes() == (tmp_path / "a" / path).read_bytes() for path in files)
    assert [done for done, *_ in told] == list(range(1, 37))
    assert told[-1] == (36, 36, "test")
    generate_speech_commands(
        tmp_path / "b", seed=4, words=CHOSEN, speakers=10, train=3, validation=3, test=3
    )  # fmt: skip
    assert not {path.read_bytes() for path in (tmp_path / "b").rglob("*.wav")} & {
        (folder / path).read_bytes() for path in files
    }


@needs_espeak
def test_noise_is_as_loud_as_it_says(tmp_path):
    options = {"seed": 3, "words": ("no",), "speakers": 3, "short": 0.0, "train": 1, "validation": 1, "test": 1}
    generate_speech_commands(tmp_path / "a", noise=0.0, **options)
    generate_speech_commands(tmp_path / "b", noise=0.01, **options)
    names = [path.relative_to(tmp_path / "a") for path in (tmp_path / "a" / "no").iterdir()]
    for name in names:
        noise = (read_clip(tmp_path / "b" / name) - read_clip(tmp_path / "a" / name).astype(float)) / 32_767
        # The deviation of 16,000 normal numbers is right to 1/sqrt(32,000); 5 of that, and the rounding to 16 bits.
        assert abs(noise.std() / 0.01 - 1) < 5 / 32_000**0.5 + 1e-3


@needs_espeak
def test_what_was_made_is_written_beside_it(folder):
    about = read_generated(folder)
    assert (about.task, about.seed, about.counts) == ("speech-commands", 3, COUNTS)
    assert about.options == {"words": list(CHOSEN), "speakers": 10, "short": 0.3, "noise": 0.0}
    assert about.tools["espeak-ng"] == espeak_version()
    assert re.match(r"\d+\.\d+", espeak_version())
    # The clips, two lists, and the two files of noise.
    assert check_sums(folder) == 36 + 2 + 2


@needs_espeak
def test_every_word_can_be_spoken(tmp_path):
    generate_speech_commands(tmp_path, train=35, validation=1, test=1, speakers=3)
    assert {path.parent.name for path in tmp_path.rglob("*_nohash_*.wav")} == set(WORDS)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"train": 0}, "train is 0; at least 1"),
        ({"speakers": 2}, "speakers is 2; at least 3"),
        ({"seed": -1}, "seed is -1"),
        ({"words": ()}, "words are none"),
        ({"words": ("no", "no")}, "none twice"),
        ({"words": ("nein",)}, "unknown word 'nein'"),
        ({"short": 1.5}, "short is 1.5; a number from 0 to 1"),
        ({"noise": float("nan")}, "noise is nan"),
    ],
)
def test_options_outside_their_range(tmp_path, options, words):
    with pytest.raises(ParameterError, match=words):
        generate_speech_commands(tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


@needs_espeak
def test_a_folder_that_is_not_empty_is_refused(folder):
    with pytest.raises(ParameterError, match="is not empty"):
        generate_speech_commands(folder)


def test_without_the_program_it_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BackendUnavailable, match=r"espeak-ng is not installed\. Run: apt-get install espeak-ng"):
        generate_speech_commands(tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("script", ["exit 1", "exit 0", "echo 1.52"])
def test_a_program_that_fails_is_named(tmp_path, monkeypatch, script):
    program = tmp_path / "espeak-ng"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BackendUnavailable, match="does not run" if script == "exit 1" else "espeak-ng -v .* failed"):
        generate_speech_commands(tmp_path / "new")


def test_sound_is_resampled(tmp_path, monkeypatch):
    def sine(command, **options):
        with wave.open(command[command.index("-w") + 1], "wb") as file:
            file.setparams((1, 2, 22_050, 0, "NONE", ""))
            time = np.arange(22_050) / 22_050
            file.writeframes(np.rint(10_000 * np.sin(2 * np.pi * 1_000 * time)).astype("<i2").tobytes())

    monkeypatch.setattr(speech_commands.subprocess, "run", sine)
    speaker = speech_commands._Speaker("0", "en-gb+m1", 50, 150)
    found = speech_commands._speak("no", speaker, speech_commands.Draw(0), tmp_path / "x.wav")
    # A second, but for what is soft at its ends: parts of a period, of 16 samples.
    assert abs(len(found) - 16_000) <= 16
    assert np.abs(np.fft.rfft(found)).argmax() == pytest.approx(len(found) * 1_000 / 16_000, abs=0.5)
    assert np.abs(found).max() == 1


def test_silence_is_named(tmp_path, monkeypatch):
    speaker = speech_commands._Speaker("0", "en-gb+m1", 50, 150)

    def quiet(command, **options):
        path = command[command.index("-w") + 1]
        speech_commands._write_wav(speech_commands.Path(path), np.zeros(100))

    monkeypatch.setattr(speech_commands.subprocess, "run", quiet)
    with pytest.raises(BackendUnavailable, match="gave silence"):
        speech_commands._speak("no", speaker, speech_commands.Draw(0), tmp_path / "x.wav")


def test_neither_torch_nor_lightning_is_imported():
    code = (
        "import sys, liquid_ssm.generate.speech_commands;assert not {'torch', 'lightning', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
