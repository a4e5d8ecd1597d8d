"""In which order the numbers of a signal (batch, H, L) lie in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from liquid_ssm.arrays import is_channels_last

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class MemoryOrder:
    """Row after row, or channels last: as a contiguous array (batch, L, H), as layers have their signals.

    Args:
        shape: (batch, H, L).
        channels_last: which of the two.
    """

    shape: tuple[int, ...]
    channels_last: bool

    @classmethod
    def of(cls, u: Array) -> MemoryOrder:
        """That of u; row after row where both are the same, and for every other order, which is to be copied."""
        return cls(u.shape, is_channels_last(u))

    @property
    def apart(self) -> int:
        """Numbers from one time step of a row to the next."""
        return self.shape[1] if self.channels_last else 1

    def starts(self) -> Array:
        """(batch · H,) where each row begins."""
        batch, n_channels, length = self.shape
        rows = np.arange(batch * n_channels)
        if not self.channels_last:
            return rows * length
        return rows // n_channels * (n_channels * length) + rows % n_channels

    def empty(self, dtype: npt.DTypeLike) -> Array:
        """An array (batch, H, L) in this order, not filled."""
        if not self.channels_last:
            return np.empty(self.shape, dtype)
        batch, n_channels, length = self.shape
        return np.empty((batch, length, n_channels), dtype).swapaxes(1, 2)

    def arranged(self, array: Array) -> Array:
        """The array in this order: itself where it is, else a copy."""
        if not self.channels_last:
            return np.ascontiguousarray(array)
        return np.ascontiguousarray(array.swapaxes(1, 2)).swapaxes(1, 2)

    def flat(self, array: Array) -> Array:
        """Its numbers in this order, one-dimensional; the array's own memory where they lie so."""
        arranged = self.arranged(array)
        return (arranged.swapaxes(1, 2) if self.channels_last else arranged).reshape(-1)

    def cotangent(self, grad: Array | None, dtype: npt.DTypeLike) -> Array:
        """`flat` of the cotangent of an output; zeros for None."""
        return np.zeros(int(np.prod(self.shape)), dtype) if grad is None else self.flat(grad)
