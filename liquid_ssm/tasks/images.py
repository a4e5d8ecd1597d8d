"""Images as sequences of their pixels, row by row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import random_split

Pixels = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]

# Of every split of images in the published pipeline.
SPLIT_SEED = 42


def split_rows(sizes: Sequence[int]) -> list[Rows]:
    """Rows of each part, in the order of the published split.

    Source: `random_split` of PyTorch with a generator of seed 42, as in the published loaders (state-spaces/s4).
    """
    generator = torch.Generator().manual_seed(SPLIT_SEED)
    return [np.array(part.indices, dtype=np.int64) for part in random_split(range(sum(sizes)), sizes, generator)]


def standardised(pixels: Pixels, mean: Sequence[float], deviation: Sequence[float]) -> torch.Tensor:
    """Pixels relative to white, less the mean, over the deviation, in float32.

    Args:
        pixels: (length, features) from 0 to 255.
        mean, deviation: by feature, relative to white.
    """
    u = torch.from_numpy(pixels.astype(np.float32)) / 255
    return (u - torch.tensor(mean)) / torch.tensor(deviation)
