"""Full matrices of every structure give the same outputs as the structure itself."""

from __future__ import annotations

import numpy as np
import pytest

from liquid_ssm.oracle.realization import Realization
from liquid_ssm.oracle.reference import reference
from liquid_ssm.rounding_errors import realization_of
from liquid_ssm.testing.strategies import random_system


@pytest.mark.parametrize(
    ("structure", "pairs"), [("diagonal", True), ("diagonal", False), ("dplr", True), ("dplr", False), ("dense", False)]
)
def test_full_matrices_are_the_same_system(structure, pairs):
    realization = realization_of(random_system(structure, n_modes=3, conjugate_pairs=pairs))
    full = Realization("dense", *realization.full_matrices(), conjugate_pairs=False)
    assert full.n_modes == (6 if pairs else 3)
    u = np.random.default_rng(0).normal(size=(1, 2, 20))
    a, b = reference(realization, u, "liquid"), reference(full, u, "liquid")
    # the entries of a low-rank product are rounded to float64 when the matrix is formed
    slack = a.radius + b.radius + (20 * 8 * 2.0**-53 if structure == "dplr" else 0) * np.abs(a.value).max()
    assert np.all(np.abs(a.value - b.value) <= slack)


def test_a_shared_state_has_no_matrix_per_channel():
    with pytest.raises(ValueError, match="one state for all channels"):
        realization_of(random_system("mimo")).full_matrices()


def test_casting_keeps_every_number():
    realization = realization_of(random_system("dplr"))
    wide = realization.astype(np.clongdouble)
    assert wide.A.dtype == np.clongdouble
    assert np.array_equal(wide.A, realization.A)
    assert wide.P is not None
    assert np.array_equal(wide.P, realization.P)
    assert wide.conjugate_pairs == realization.conjugate_pairs
