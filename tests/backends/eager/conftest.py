"""Systems and signals of small whole numbers, on which every order of operations gives the same, exact result."""

from __future__ import annotations

import numpy as np
import pytest

from liquid_ssm.systems import DenseSystem, DiagonalSystem, DPLRSystem, MIMOSystem


class WholeNumbers:
    """Arrays of whole numbers between -2 and 2, complex ones with such parts."""

    def __init__(self, seed=0):
        self.rng = np.random.default_rng(seed)

    def real(self, *shape):
        return self.rng.integers(-2, 3, shape).astype("float64")

    def complex(self, *shape):
        return self.real(*shape) + 1j * self.real(*shape)

    def system(self, structure, *, n_channels=2, n_modes=3, rank=2, conjugate_pairs=True, real=(), dtype="float64"):
        """A system; the parameters named in `real` are real."""
        H, M = n_channels, n_modes
        names = {"A_bar": (H, M), "B_bar": (H, M), "C": (H, M)}
        kind, pairs = DiagonalSystem, {"conjugate_pairs": conjugate_pairs}
        if structure == "dplr":
            kind = DPLRSystem
            names = {"Lambda_bar": (H, M), "P_bar": (rank, H, M), "Q_bar": (rank, H, M), **names}
            del names["A_bar"]
        elif structure == "dense":
            kind, names["A_bar"], pairs = DenseSystem, (H, M, M), {}
        elif structure == "mimo":
            kind, names["A_bar"], names["B_bar"] = MIMOSystem, (M,), (M, H)
        arrays = {name: (self.real if name in real else self.complex)(*shape) for name, shape in names.items()}
        return kind(**arrays, **pairs).astype(dtype)

    def state(self, system, batch, *orders):
        shape = (batch, *orders, system.n_modes)
        if system.structure != "mimo":
            shape = (batch, *orders, system.n_channels, system.n_modes)
        return self.complex(*shape) if system.is_complex else self.real(*shape)


@pytest.fixture
def whole():
    return WholeNumbers()
