"""Sums over time: of everything so far and of the newest terms.  Time is the last axis."""

from __future__ import annotations

import torch
from torch.nn.functional import pad


def delayed(terms: torch.Tensor, steps: int) -> torch.Tensor:
    """terms[..., k - steps], zeros before the start."""
    length = terms.shape[-1]
    steps = min(steps, length)
    return pad(terms[..., : length - steps], (steps, 0))


def advanced(terms: torch.Tensor, steps: int) -> torch.Tensor:
    """terms[..., k + steps], zeros after the end: the adjoint of `delayed`."""
    steps = min(steps, terms.shape[-1])
    return pad(terms[..., steps:], (0, steps))


def running_sum(terms: torch.Tensor) -> torch.Tensor:
    """Σ of the terms up to each step.

    On a CPU torch adds them in the order of time, float32 in float64; elsewhere they are doubled, because
    `torch.cumsum` on a GPU is refused where determinism is asked for.

    Accuracy:
        Every addition has sums of consecutive terms as arguments, k of them behind entry k: what docs/bounds.md
        ("Running sums") asks of a bracketing.  A term passes through at most L - 1 of them in the order of time and
        ceil(log2 L) of them where sums are doubled.
    """
    return torch.cumsum(terms, -1) if terms.device.type == "cpu" else doubled_sum(terms)


def doubled_sum(terms: torch.Tensor) -> torch.Tensor:
    """`running_sum` by ceil(log2 L) additions of delayed sums, in the same order on every device.

    References: Hillis, Steele, Comm. ACM 29 (1986), 1170-1183.
    """
    reach = 1
    while reach < terms.shape[-1]:
        # Entries before `reach` are complete; not even a zero is added to them.
        terms = torch.cat([terms[..., :reach], terms[..., reach:] + terms[..., :-reach]], -1)
        reach *= 2
    return terms


def reversed_sum(terms: torch.Tensor) -> torch.Tensor:
    """Σ of the terms from each step on: the adjoint of `running_sum`."""
    return running_sum(terms.flip(-1)).flip(-1)


def moving_sum(terms: torch.Tensor, window: int) -> torch.Tensor:
    """Σ of the newest `window` >= 1 terms, zeros before the start.

    Sums of 1, 2, 4, … terms are doubled, and those that make up `window` joined from the newest to the oldest: nothing
    is ever subtracted.

    Accuracy:
        A term passes through at most ceil(log2 min(window, L)) additions.
    """
    window = min(window, max(1, terms.shape[-1]))
    part, total, covered = terms, None, 0
    for bit in range(window.bit_length()):
        size = 1 << bit
        if window & size:
            total = part if total is None else total + delayed(part, covered)
            covered += size
        if window >= 2 * size:
            part = part + delayed(part, size)
    # A window of one step is the terms themselves, of which the caller gets a copy.
    return terms.clone() if total is None or total is terms else total
