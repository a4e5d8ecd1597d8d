"""The learning rate by step, in units of the largest."""

from __future__ import annotations

import math

from .presets import Preset


class Schedule:
    """Linear warmup, then a cosine to 0 over the rest of all steps, or halving every so many epochs.

    Args:
        preset: `schedule`, `warmup_steps`, `halve_every`.
        steps_per_epoch, epochs: of the run.
    """

    def __init__(self, preset: Preset, steps_per_epoch: int, epochs: int) -> None:
        self.cosine = preset.schedule == "cosine"
        self.warmup = preset.warmup_steps
        self.total = steps_per_epoch * epochs
        self.halving = preset.halve_every * steps_per_epoch

    def __call__(self, step: int) -> float:
        if step < self.warmup:
            return (step + 1) / self.warmup
        if not self.cosine:
            return 0.5 ** (step // self.halving)
        done = (step - self.warmup) / max(1, self.total - self.warmup)
        return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
