"""How a kernel is laid out on the chip: rows and modes per program, steps per block, warps; by the shape alone."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

# More modes than these are shared out to programs, whose outputs are added in a second pass.
MOST_MODES = 128
# Rows times modes below which one mode per thread fills more of the chip than several: H100 has 16,896 lanes.
FEW = 32_768
# Modes that the threads of one warp hold, one and four per thread.
NARROW, WIDE = 32, 128
# Sequences below this length are done before a second pass would begin; pieces below the other are mostly overhead.
LONG, SHORTEST, MOST_PIECES = 2048, 256, 64
# Elements of a tile under the interpreter, whose time is per operation and not per element.
INTERPRETED = 1 << 14


@dataclass(frozen=True)
class Configuration:
    """One way to lay a recurrence out.

    Args:
        rows: per program, a power of two.
        modes: per program, a power of two.
        log_steps: log₂ of the steps that are read, computed and written at once.
        warps: per program.
    """

    rows: int
    modes: int
    log_steps: int
    warps: int = 1

    def options(self, *, coupled: bool = False) -> dict[str, Any]:
        """Keyword arguments of a launch.

        Args:
            coupled: modes are coupled: complex products must be formed whole before they are added (docs/bounds.md),
                so nothing is contracted.
        """
        # Contraction is asked for by name: Triton 3.9 warns where it is left open, and later ones leave it out.
        return {
            "ROWS": self.rows,
            "MODES": self.modes,
            "LOG": self.log_steps,
            "num_warps": self.warps,
            "enable_fp_fusion": not coupled,
        }

    def mode_blocks(self, n_modes: int) -> int:
        """Programs that share the modes of a row."""
        return -(-n_modes // self.modes)


def interpreting() -> bool:
    """Whether Triton runs its kernels in Python; decided by the environment when triton is imported."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "y", "yes")


def power_of_two(n: int) -> int:
    """The smallest power of two >= max(1, n)."""
    return 1 << max(0, n - 1).bit_length()


def forward_configurations(rows: int, n_modes: int, *, order: int = 1, coupled: bool = False) -> list[Configuration]:
    """Ways to run a recurrence forwards, the usual one first.

    Args:
        rows: independent sequences.
        coupled: all modes of a row must be in one program, because every step sums over them.
    """
    modes = _modes(n_modes, coupled)
    if interpreting():
        return [Configuration(_interpreted(rows, modes), modes, 3)]
    warps = max(1, modes // (WIDE * 4))
    one, four = max(1, NARROW // modes), max(1, WIDE // modes)
    log = 4 if order == 1 else 3
    narrow = [Configuration(one, modes, log, warps), Configuration(one, modes, log - 1, warps)]
    wide = [Configuration(four, modes, 3, warps), Configuration(2 * one, modes, log, warps)]
    return narrow + wide if rows * modes <= FEW else wide + narrow


def adjoint_configurations(rows: int, n_modes: int, *, order: int = 1, coupled: bool = False) -> list[Configuration]:
    """Ways to run an adjoint recurrence, the usual one first; arguments as in `forward_configurations`.

    The states of a block of steps stay in registers, so blocks are shorter for more orders.
    """
    modes = _modes(n_modes, coupled)
    if interpreting():
        return [Configuration(_interpreted(rows, modes), modes, 1)]
    warps = max(1, modes // WIDE)
    one = max(1, NARROW // modes)
    log = 3 if order <= 2 else 2
    return [Configuration(one, modes, log, warps), Configuration(2 * one, modes, 2, warps)]


def piece_configuration(forward: Configuration) -> Configuration:
    """The first pass over pieces in the layout of the second; it has no outputs to sum, so shorter blocks will do."""
    return replace(forward, log_steps=min(forward.log_steps, 3))


def pieces_for(rows: int, n_modes: int, length: int) -> int:
    """How many pieces a scan of this shape is cut into; 1 where there are rows enough, by the shape alone."""
    lanes = rows * power_of_two(n_modes)
    if length < LONG or not 0 < lanes <= FEW // 8:
        return 1
    return min(MOST_PIECES, length // SHORTEST, FEW // lanes)


def _modes(n_modes: int, coupled: bool) -> int:
    return power_of_two(n_modes) if coupled else min(power_of_two(n_modes), MOST_MODES)


def _interpreted(rows: int, modes: int) -> int:
    return max(1, min(power_of_two(rows), INTERPRETED // modes))
