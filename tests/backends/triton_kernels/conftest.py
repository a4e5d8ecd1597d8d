"""Triton kernels on a GPU where there is one, else in Triton's interpreter; the readable backend to compare with."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from liquid_ssm.backends.numpy_backend import NumPyBackend
from liquid_ssm.testing.strategies import random_system

pytest.importorskip("triton", reason="Triton is there for Linux only")


def assert_close(found, expected, dtype="float64"):
    """Equal but for rounding: sums of some thousand terms of which each passes some hundred roundings of moderate size.

    A wrong index, sign or factor changes results by far more; what bounds allow is judged by the property suite.
    """
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    scale = float(np.abs(expected).max(initial=0.0))
    assert np.abs(found - expected).max(initial=0.0) <= 2000 * np.finfo(dtype).eps * max(scale, 1e-30)


@pytest.fixture
def close():
    return assert_close


@pytest.fixture(scope="session")
def readable():
    return NumPyBackend()


@pytest.fixture(scope="session")
def device():
    from liquid_ssm.backends.triton_kernels.configurations import interpreting

    return "cpu" if interpreting() else "cuda"


@pytest.fixture(scope="session")
def poisoned():
    """What makes arrays full of NaN: an entry that a kernel forgets is seen."""
    from liquid_ssm.backends.triton_kernels.autotune import poisoned

    return poisoned


@pytest.fixture
def case(device):
    """A system, inputs, states and cotangents, as arrays for the readable backend and as tensors for kernels."""
    import torch

    def make(structure="diagonal", batch=2, n_channels=3, n_modes=5, length=20, order=1, dtype="float64", **options):
        rng = np.random.default_rng(0)
        system = random_system(structure, n_channels=n_channels, n_modes=n_modes, **options).astype(dtype)
        kind = np.result_type(dtype, np.complex64)
        u, grad_y = rng.normal(size=(2, batch, n_channels, length)).astype(dtype)
        shape = (2, batch, order, n_channels, n_modes)
        states, grad_states = (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(kind)
        arrays = {"u": u, "states": states, "grad_y": grad_y, "grad_states": grad_states}
        tensors = {name: torch.tensor(array, device=device) for name, array in arrays.items()}
        return SimpleNamespace(system=system, **arrays), SimpleNamespace(system=system.to_torch(device), **tensors)

    return make


@pytest.fixture
def expected(readable):
    """y and final states (batch, order, H, M) of the readable backend."""

    def run(arrays, kind, order=1):
        if kind in ("linear", "liquid"):
            y, final = readable.scan(arrays.system, arrays.u, arrays.states[:, 0], liquid=kind == "liquid")
            return y, final[:, None]
        return readable.cascade(arrays.system, arrays.u, arrays.states, order=order, kind=kind)

    return run


@pytest.fixture
def expected_vjp(readable):
    """Its gradients, that of the states (batch, order, H, M)."""

    def run(arrays, kind, order=1):
        a = arrays
        if kind in ("linear", "liquid"):
            found = readable.scan_vjp(
                a.system, a.u, a.states[:, 0], a.grad_y, a.grad_states[:, 0], liquid=kind == "liquid"
            )
            return found._replace(state=found.state[:, None])
        return readable.cascade_vjp(a.system, a.u, a.states, a.grad_y, a.grad_states, order=order, kind=kind)

    return run
