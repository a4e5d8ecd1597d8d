"""Which folder a generator has filled, where `--data` names one below it."""

from __future__ import annotations

from pathlib import Path

from ..data_folder import GENERATED, read_generated

# The layouts go two folders deep below the one that is generated into.
_DEPTH = 2


def generated_above(folder: Path, task: str) -> Path:
    """The folder, or the one above it that a generator of this name has filled, so that its counts and sums are known.

    Args:
        folder: as it is given.
        task: name of the generator.

    Raises:
        DataError: what the generator wrote about the folder is damaged.
    """
    for place in (folder, *folder.absolute().parents[:_DEPTH]):
        if (place / GENERATED).exists():
            generated = read_generated(place)
            if generated is not None and generated.task == task:
                return place
    return folder
