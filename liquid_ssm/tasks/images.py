"""What the tasks of images share: pixels as a sequence, random splits, and numbers of samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Subset, random_split

from ..data_folder import GENERATED, Generated
from ..errors import DataError

# Of every split that the published pipeline draws.
SPLIT_SEED = 42


def scaled(pixels: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """(length, channels) float32: (pixels/255 - mean)/std, each step rounded as torchvision's transforms round it.

    Args:
        pixels: (length, channels) uint8.
        mean, std: of each channel, of values from 0 to 1.
    """
    u = pixels.to(torch.float32) / 255
    return (u - torch.tensor(mean, dtype=torch.float32)) / torch.tensor(std, dtype=torch.float32)


def split_rows(sizes: Mapping[str, int]) -> dict[str, torch.Tensor]:
    """Rows of each part, drawn as the published pipeline draws them: `random_split` of torch with seed 42.

    Args:
        sizes: of the parts, in the order in which the published code has them.
    """
    everything: Any = range(sum(sizes.values()))
    parts: list[Subset[int]] = random_split(
        everything, list(sizes.values()), generator=torch.Generator().manual_seed(SPLIT_SEED)
    )
    return {name: torch.tensor(part.indices, dtype=torch.int64) for name, part in zip(sizes, parts, strict=True)}


def check_counts(
    place: Path, found: Mapping[str, int], published: Mapping[str, int], generated: Generated | None, hint: str = ""
) -> None:
    """Compare numbers of samples with what a generator says, or with the published ones.

    Args:
        place: where they were found.
        found: samples of train, validation and test.
        published: the same of the real data.
        generated: what made the data, if they say so; where it does not name a validation part, its training part is
            what validation is taken from.
        hint: added to the message.

    Raises:
        DataError: they differ, or a part has no sample.
    """
    wanted = published if generated is None else generated.counts
    have = dict(found)
    if "validation" not in wanted:
        have["train"] += have.pop("validation")
    if have != dict(wanted):
        said = "the published sizes" if generated is None else f"{GENERATED} says so"
        next_step = (
            f"The download is incomplete or of another version; a set of other sizes says so in {GENERATED}."
            if generated is None
            else "Generate the folder again."
        )
        message = f"{place} holds {_listed(have)} images; expected {_listed(wanted)} ({said}). {hint}{next_step}"
        raise DataError(message)
    if empty := [part for part, count in found.items() if not count]:
        raise DataError(f"{place} holds too few images: none for {' and '.join(empty)}.")


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {part}" for part, count in counts.items()) or "nothing"
