"""Stand-ins for Speech Commands: its words, spoken by the speech synthesiser espeak-ng, in the archive's layout.

They are no recordings: some voices of one program, in a quiet room.  An accuracy on them says nothing about one on the
published set.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import wave
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from ..data_folder import Generated, write_generated
from ..environment import package_version
from ..errors import BackendUnavailable, ParameterError, unknown_name
from ..tasks.speech_folder import LISTS, WORDS
from .draw import Draw, at_least, new_folder

Array = npt.NDArray[np.float64]

RATE = LENGTH = 16_000
PROGRAM = "espeak-ng"
INSTALL = "apt-get install espeak-ng, or see https://github.com/espeak-ng/espeak-ng"
# Accents and voices that every version has; of others the program may take its standard voice without a word.
_ACCENTS = ("en-gb", "en-us", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029")
_VOICES = ("m1", "m2", "m3", "m4", "m5", "m6", "m7", "f1", "f2", "f3", "f4")
# Pitch on its scale from 0 to 99, and words per minute.
_PITCHES, _SPEEDS = (25, 75), (130, 190)
# Softer than this part of the loudest sample is the silence around a word.
_SILENCE = 0.02
_BACKGROUND_SECONDS = 5
_SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}


@dataclass(frozen=True)
class _Speaker:
    name: str
    voice: str
    pitch: int
    speed: int


def generate_speech_commands(
    folder: Path,
    *,
    seed: int = 0,
    train: int = 1_400,
    validation: int = 350,
    test: int = 350,
    words: Sequence[str] = tuple(WORDS),
    speakers: int = 50,
    short: float = 0.1,
    noise: float = 0.005,
    progress: Callable[[int, int, str], None] | None = None,
) -> Generated:
    """Write clips of `espeak-ng` as `WORD/SPEAKER_nohash_N.wav`, with `validation_list.txt` and `testing_list.txt`.

    A speaker is an accent, a voice, a pitch and a speed; each belongs to one part.  Clips of a speaker differ in pitch,
    speed, loudness, place of the word in the second, and noise.  `_background_noise_` holds two longer files.

    Args:
        folder: new or empty.
        seed: of everything that is drawn; the same seed gives the same bytes with the same version of espeak-ng.
        train, validation, test: clips of each part, words in turn.
        words: some of the 35 of the published set.
        speakers: number of them: 80, 10 and 10 % for training, validation and test, at least one each.
        short: share of the clips that are shorter than a second: 0.5 to 0.99 s.
        noise: standard deviation of white noise, relative to full scale.
        progress: told (done, total, part).

    Raises:
        BackendUnavailable: espeak-ng is not installed.
        ParameterError: a number out of range, an unknown word, or a folder that is not empty.
    """
    counts = {"train": train, "validation": validation, "test": test}
    at_least(0, seed=seed)
    at_least(1, **counts)
    at_least(len(counts), speakers=speakers)
    words = tuple(words)
    if not words or len(set(words)) < len(words):
        raise ParameterError(f"words are {', '.join(words) or 'none'}; at least one is needed, and none twice.")
    for word in words:
        if word not in WORDS:
            raise unknown_name("word", word, WORDS)
    for name, value, most in (("short", short, 1.0), ("noise", noise, 0.1)):
        if not 0 <= value <= most:
            raise ParameterError(f"{name} is {value}; a number from 0 to {most} is needed.")
    version = espeak_version()
    place = new_folder(Path(folder))
    draw, random = Draw(seed), np.random.RandomState(seed)
    files = []
    done, total = 0, sum(counts.values())
    with TemporaryDirectory() as scratch:
        for part, cast in _casts(draw, speakers).items():
            names = []
            for k in range(counts[part]):
                word, turn = words[k % len(words)], k // len(words)
                speaker, repeat = cast[turn % len(cast)], turn // len(cast)
                length = draw.within(LENGTH // 2, LENGTH * 99 // 100) if draw.uniform() < short else LENGTH
                clip = _placed(_speak(word, speaker, draw, Path(scratch) / "word.wav"), length, draw)
                clip += noise * random.standard_normal(length)
                names.append(f"{word}/{speaker.name}_nohash_{repeat}.wav")
                files.append(place / names[-1])
                _write_wav(files[-1], clip)
                done += 1
                if progress is not None:
                    progress(done, total, part)
            if part in LISTS:
                files.append(place / LISTS[part])
                files[-1].write_text("".join(f"{name}\n" for name in sorted(names)), encoding="ascii", newline="\n")
    files += _write_background(place / "_background_noise_", random)
    options = {"words": list(words), "speakers": speakers, "short": short, "noise": noise}
    tools = {PROGRAM: version, **{name: package_version(name) for name in ("numpy", "scipy")}}
    about = Generated("speech-commands", seed, package_version("liquid-ssm"), counts, options, tools)
    write_generated(place, about, files)
    return about


def espeak_version() -> str:
    """The version of espeak-ng.

    Raises:
        BackendUnavailable: it is not installed, or does not run.
    """
    if shutil.which(PROGRAM) is None:
        raise BackendUnavailable(f"the program {PROGRAM} is not installed. Run: {INSTALL}.")
    try:
        said = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise BackendUnavailable(
            f"the program {PROGRAM} does not run ({error}). Install it again: {INSTALL}."
        ) from None
    found = re.search(r"\d+\.\d[\w.-]*", said)
    return found[0] if found else said.strip()


def _casts(draw: Draw, speakers: int) -> dict[str, list[_Speaker]]:
    """Speakers by part; all of them differ by name, and by accent and voice as far as these go."""
    pairs = draw.shuffled([f"{accent}+{voice}" for accent in _ACCENTS for voice in _VOICES])
    found: dict[str, _Speaker] = {}
    while len(found) < speakers:
        name = f"{draw.below(16**8):08x}"
        voice = pairs[len(found) % len(pairs)]
        found.setdefault(name, _Speaker(name, voice, draw.within(*_PITCHES), draw.within(*_SPEEDS)))
    everyone = list(found.values())
    few = {part: max(1, round(_SHARES[part] * speakers)) for part in ("validation", "test")}
    first, second = few["validation"], sum(few.values())
    return {"train": everyone[second:], "validation": everyone[:first], "test": everyone[first:second]}


def _speak(word: str, speaker: _Speaker, draw: Draw, path: Path) -> Array:
    """The word at 16 kHz, without silence around it, its loudest sample 1."""
    from scipy.signal import resample_poly

    settings = {
        "-v": speaker.voice,
        "-p": min(max(speaker.pitch + draw.within(-4, 4), 0), 99),
        "-s": speaker.speed + draw.within(-10, 10),
        "-w": path,
    }
    command = [PROGRAM, *(str(each) for pair in settings.items() for each in pair), word]
    try:
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        with wave.open(str(path), "rb") as file:
            rate, samples = file.getframerate(), np.frombuffer(file.readframes(file.getnframes()), "<i2")
    except (OSError, subprocess.SubprocessError, wave.Error, EOFError, ValueError) as error:
        said = getattr(error, "stderr", None) or error
        raise BackendUnavailable(f"{' '.join(command)} failed: {str(said).strip()}. Try it in a shell.") from None
    sound = resample_poly(samples.astype(np.float64), RATE, rate)
    loud = np.flatnonzero(np.abs(sound) > _SILENCE * np.abs(sound).max())
    if not len(loud):
        raise BackendUnavailable(f"{' '.join(command)} gave silence. Try it in a shell.")
    sound = sound[loud[0] : loud[-1] + 1]
    return np.asarray(sound / np.abs(sound).max())


def _placed(sound: Array, length: int, draw: Draw) -> Array:
    """The sound, louder or softer, anywhere in a clip of the length; its end is lost where it is longer."""
    sound = sound[:length] * (0.2 + 0.6 * draw.uniform())
    clip = np.zeros(length)
    start = draw.below(length - len(sound) + 1)
    clip[start : start + len(sound)] = sound
    return clip


def _write_background(place: Path, random: np.random.RandomState) -> list[Path]:
    n = _BACKGROUND_SECONDS * RATE
    white = random.standard_normal(n)
    frequencies = np.fft.rfftfreq(n, 1 / RATE)
    frequencies[0] = frequencies[1]
    # Power falls as 1/f.
    pink = np.fft.irfft(np.fft.rfft(white) / np.sqrt(frequencies), n)
    files = []
    for name, sound in (("white_noise", white), ("pink_noise", pink)):
        files.append(place / f"{name}.wav")
        _write_wav(files[-1], 0.1 * sound / sound.std())
    return files


def _write_wav(path: Path, samples: Array) -> None:
    path.parent.mkdir(exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(np.clip(np.rint(samples * 32_767), -32_768, 32_767).astype("<i2").tobytes())
