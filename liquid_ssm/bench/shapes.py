"""Which shapes are measured."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import unknown_name


@dataclass(frozen=True)
class Shape:
    """Sizes of one problem.

    Args:
        batch, n_channels: u is (batch, n_channels, length).
        n_state: state size N per channel; N/2 modes are stored.
        length: time steps.
    """

    batch: int
    n_channels: int
    n_state: int
    length: int

    @property
    def n_modes(self) -> int:
        return max(1, self.n_state // 2)

    @property
    def rows(self) -> int:
        """batch · channels."""
        return self.batch * self.n_channels

    @property
    def elements(self) -> int:
        """batch · channels · length."""
        return self.rows * self.length

    @property
    def label(self) -> str:
        return f"{self.batch} x {self.n_channels} x {self.length}, N {self.n_state}"


# "Work W" of the targets, the same with one batch row, and with few modes.
WORK = Shape(4, 128, 64, 4096)
WORK_1 = Shape(1, 128, 64, 4096)
WORK_SMALL_STATE = Shape(4, 128, 8, 4096)
# For what would take too long on W.
WORK_SIXTEENTH = Shape(1, 32, 64, 4096)

# One shape varies at a time.
LENGTHS = tuple(Shape(1, 64, 64, 2**k) for k in range(10, 21, 2))
STATES = tuple(Shape(4, 16, n, 4096) for n in (4, 8, 16, 32, 64, 128, 256))
ROWS = tuple(
    Shape(batch, n_channels, 64, 1024)
    for batch, n_channels in ((1, 1), (1, 4), (1, 16), (4, 16), (4, 64), (8, 128), (8, 512))
)

QUICK = (Shape(1, 4, 64, 1024), Shape(4, 16, 8, 4096), WORK)
TARGETS = (WORK, WORK_1, WORK_SMALL_STATE, WORK_SIXTEENTH)

GRIDS = ("quick", "targets", "full", "operators")


def grid(name: str) -> tuple[Shape, ...]:
    """The shapes of a grid, `quick`, `targets`, `full` or `operators`, each once.

    `full` has L from 2^10 to 2^20, N from 4 to 256 and batch·channels from 1 to 4096, one varied at a time, after
    the shapes of the targets.

    Raises:
        ParameterError: there is no such grid.
    """
    if name not in GRIDS:
        raise unknown_name("grid", name, GRIDS)
    shapes = {
        "quick": QUICK,
        # The targets on linearity need the sweeps too, for the compiled backend alone: see `plan`.
        "targets": TARGETS,
        "full": (*TARGETS, *LENGTHS, *STATES, *ROWS),
        "operators": (WORK_SIXTEENTH, WORK),
    }[name]
    return tuple(dict.fromkeys(shapes))
