"""Tests of formulas need a compiler; the first run compiles each (some seconds) and the cache folder keeps it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from liquid_ssm.backends.keops_kernels.compiling import find_compiler
from liquid_ssm.testing.strategies import discretized_system, random_system


def pytest_collection_modifyitems(items):
    if find_compiler() is None:
        for item in items:
            if "keops" in str(item.path):
                item.add_marker(pytest.mark.skip(reason="no C++ compiler; apt-get install g++"))


@pytest.fixture
def near_one():
    """Systems whose eigenvalues have moduli from 0.999 to 1 (diagonal), or of a discretised slow system (dplr)."""

    def make(structure, n_channels=1, n_modes=4, seed=0, **options):
        if structure == "diagonal":
            return random_system(
                structure, n_channels=n_channels, n_modes=n_modes, seed=seed, decay=1e-3, drive=0.5, **options
            )
        return discretized_system(structure, n_channels=n_channels, n_modes=n_modes, seed=seed, dt=1e-3, **options)

    return make


@pytest.fixture
def exact_kernel():
    """(H, length) in longdouble: the recurrence's answer to an impulse, its error L·2⁻⁶² of the moduli at most."""

    def compute(realization, length, power=1):
        A, B, C = (v.astype(np.clongdouble) for v in realization.full_matrices())
        x, entries = B**power, []
        for _ in range(length):
            entries.append((C * x).sum(axis=1).real)
            x = (A @ x[..., None])[..., 0]
        return np.stack(entries, axis=-1)

    return compute


def in_double(system):
    """The parameters as complex128 tensors."""
    return {name: torch.tensor(array).to(torch.complex128) for name, array in system.parameters.items()}


@pytest.fixture
def double():
    return in_double
