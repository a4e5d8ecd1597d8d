"""The folder of Speech Commands: its words, clips and lists."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..data_folder import GENERATED, Generated
from ..errors import DataError

# Clips of each word in version 0.02.  Source: table 1 of arXiv 1804.03209; together 105,829.
WORDS = {
    "backward": 1664, "bed": 2014, "bird": 2064, "cat": 2031, "dog": 2128, "down": 3917, "eight": 3787, "five": 4052,
    "follow": 1579, "forward": 1557, "four": 3728, "go": 3880, "happy": 2054, "house": 2113, "learn": 1575,
    "left": 3801, "marvin": 2100, "nine": 3934, "no": 3941, "off": 3745, "on": 3845, "one": 3890, "right": 3778,
    "seven": 3998, "sheila": 2022, "six": 3860, "stop": 3872, "three": 3727, "tree": 1759, "two": 3880, "up": 3723,
    "visual": 1592, "wow": 2123, "yes": 4044, "zero": 4052,
}  # fmt: skip
# Lines of the lists of version 0.02.
LISTED = {"validation": 9981, "test": 11005}
LISTS = {"validation": "validation_list.txt", "test": "testing_list.txt"}
_ONLY_IN_V2 = {"backward", "follow", "forward", "learn", "visual"}
_PLACES = (
    "",
    "speech_commands_v0.02",
    "SpeechCommands",
    "SpeechCommands/speech_commands_v0.02",
    "speech_commands",
)
_ARCHIVES = (".tar.gz", ".tgz", ".tar", ".zip")
_CLIP = re.compile(r"[0-9a-f]{8}_nohash_\d+\.wav")


class Clip(NamedTuple):
    """A clip.

    Attributes:
        name: below the folder, `word/SPEAKER_nohash_N.wav`.
        label: number of its word.
    """

    name: str
    label: int


@dataclass(frozen=True)
class SpeechFolder:
    """What the archive holds.

    Attributes:
        folder: with the folders of words.
        clips: of the words that were asked for, word by word in their order, sorted by name.
        parts: of the clips by name that the lists tell: `validation` or `test`; all others are for training.  Empty
            where they were not asked for.
    """

    folder: Path
    clips: list[Clip]
    parts: Mapping[str, str]


def open_speech(
    folder: Path, words: Collection[str], generated: Generated | None, wanted: str, *, lists: bool
) -> SpeechFolder:
    """Find the clips of words, and compare what is there with the published counts or those of the generator.

    Args:
        folder: that is given, or one above the archive's.
        words: in the order of their numbers; of generated data those that the generator did not say are left out.
        generated: what the generator says.
        lists: read the lists, too.
        wanted: sentence that says what is expected.

    Raises:
        DataError: what is missing or too much: a folder, a list, a clip that a list names, a count.
    """
    place = _place(folder, wanted)
    # A generator counts the clips of all its words together.
    spoken = set(words if generated is None else generated.options.get("words", WORDS))
    there = {path.name for path in place.iterdir() if path.is_dir()}
    if generated is None and there & set(WORDS) == set(WORDS) - _ONLY_IN_V2:
        raise DataError(
            f"{place} is version 0.01 of Speech Commands: it has 30 words, without {', '.join(sorted(_ONLY_IN_V2))}. "
            "The paper's experiments are on version 0.02, with 35."
        )
    if missing := sorted(spoken - there):
        raise DataError(f"{place}: the folders {', '.join(missing)} are missing; the archive is not whole. {wanted}")
    names = {word: _clips_of(place / word) for word in sorted(spoken)}
    _check_counts(place, names, generated)
    parts = {}
    if lists:
        parts = _read_lists(place, {f"{word}/{name}" for word, found in names.items() for name in found}, generated)
    clips = [Clip(f"{word}/{name}", label) for label, word in enumerate(words) for name in names.get(word, ())]
    return SpeechFolder(place, clips, parts)


def _place(folder: Path, wanted: str) -> Path:
    for below in _PLACES:
        place = folder / below
        if any((place / name).is_file() for name in LISTS.values()) or any((place / word).is_dir() for word in WORDS):
            return place
    found = sorted(path.name for path in folder.iterdir())
    archives = [name for name in found if name.lower().endswith(_ARCHIVES)]
    if archives:
        raise DataError(
            f"{folder} holds {archives[0]}, which is not unpacked. Run: mkdir -p {folder}/speech_commands && tar -xf "
            f"{folder / archives[0]} -C {folder}/speech_commands"
        )
    listed = ", ".join(found[:8]) + (", …" if len(found) > 8 else "") if found else "nothing"
    raise DataError(f"{folder} holds no data of Speech Commands: found {listed}. {wanted}")


def _clips_of(folder: Path) -> list[str]:
    # Some systems leave files such as .DS_Store.
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    for name in names:
        if not _CLIP.fullmatch(name):
            raise DataError(
                f"{folder / name} is no clip of the archive; expected names such as 0a7c2a8d_nohash_0.wav. Remove it, "
                "or unpack the archive again."
            )
    return names


def _check_counts(place: Path, names: Mapping[str, list[str]], generated: Generated | None) -> None:
    if generated is not None:
        found, wanted = sum(map(len, names.values())), sum(generated.counts.values())
        if found != wanted:
            raise DataError(
                f"{place} holds {found:,} clips; expected {wanted:,} ({GENERATED} says so). Generate the folder again."
            )
        return
    wrong = [f"{word} {len(found):,} of {WORDS[word]:,}" for word, found in names.items() if len(found) != WORDS[word]]
    if wrong:
        listed = ", ".join(wrong[:5]) + (f" and {len(wrong) - 5} more words" if len(wrong) > 5 else "")
        raise DataError(
            f"{place} does not hold the clips of version 0.02: {listed}. The archive is not whole or of another "
            f"version; unpack it again. A set of other sizes says so in {GENERATED}."
        )


def _read_lists(place: Path, known: set[str], generated: Generated | None) -> dict[str, str]:
    parts: dict[str, str] = {}
    for part, file in LISTS.items():
        path = place / file
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            raise DataError(f"{path} is missing; the archive is not whole, unpack it again.") from None
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read ({error}); unpack the archive again.") from None
        names = [(i, line.strip()) for i, line in enumerate(lines, start=1) if line.strip()]
        for i, name in names:
            if name in parts:
                what = f"is listed twice, the other time for {parts[name]}"
            elif name not in known:
                what = "is listed, but there is no such clip"
            else:
                parts[name] = part
                continue
            raise DataError(f"{path}, line {i}: {name[:80]!r} {what}. Unpack the archive again.")
        wanted = LISTED[part] if generated is None else generated.counts.get(part, 0)
        if len(names) != wanted:
            source = "version 0.02" if generated is None else GENERATED
            raise DataError(f"{path} lists {len(names):,} clips; expected {wanted:,} ({source}). It is not whole.")
    return parts
