"""The discrete parameters as the oracle takes them: plain arrays whose floats count as exact numbers.

The oracle knows nothing of the package; this is its whole input, apart from the signal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Realization:
    """x_k = Ā x_{k-1} + B̄ u_k, y_k = weight · Re(C x_k), in one of four structures.

    Attributes:
        structure: `diagonal`: A (H, M), B (H, M), C (H, M);
            `dplr`: A = Λ̄ (H, M) and Ā = diag(Λ̄) − Σ_r P_r Q_r* with P, Q (R, H, M), where with
            conjugate pairs the product runs over both halves: P_r · 2 Re(Q_r* x);
            `dense`: A (H, N, N), B (H, N), C (H, N), no conjugate pairs;
            `mimo`: A (M,), B (M, H), C (H, M), one state for all channels.
        conjugate_pairs: one of each conjugate pair is stored, weight = 2; else weight = 1.
    """

    structure: str
    A: Array
    B: Array
    C: Array
    P: Array | None = None
    Q: Array | None = None
    conjugate_pairs: bool = True

    @property
    def weight(self) -> int:
        return 2 if self.conjugate_pairs else 1

    @property
    def n_channels(self) -> int:
        return int(self.C.shape[0])

    @property
    def n_modes(self) -> int:
        return int(self.C.shape[1])

    def astype(self, dtype: npt.DTypeLike) -> Realization:
        """The same numbers in another dtype, wide enough to hold them."""

        def cast(v: Array) -> Array:
            return v.astype(dtype)

        P, Q = (None if v is None else cast(v) for v in (self.P, self.Q))
        return Realization(
            self.structure, cast(self.A), cast(self.B), cast(self.C), P, Q, conjugate_pairs=self.conjugate_pairs
        )

    def full_matrices(self) -> tuple[Array, Array, Array]:
        """(A (H, N, N), B (H, N), C (H, N)) on the full state, both halves of every pair; y = Re(C x).

        Entries are copied, negated or conjugated, except for the low-rank part of `dplr`, whose products
        are formed in the working precision: exact tiers form it themselves from P and Q.
        """
        if self.structure == "dense":
            return self.A, self.B, self.C
        if self.structure == "mimo":
            raise ValueError("a mimo realization has one state for all channels; it has no matrix per channel")

        def both(v: Array) -> Array:
            return np.concatenate([v, v.conj()], axis=-1) if self.conjugate_pairs else v

        A, B, C = both(self.A), both(self.B), both(self.C)
        full = A[..., None] * np.eye(A.shape[-1])
        if self.structure == "dplr" and self.P is not None and self.Q is not None:
            P, Q = both(self.P), both(self.Q)
            full = full - np.einsum("rhn,rhm->hnm", P, Q.conj())
        return full, B, C
