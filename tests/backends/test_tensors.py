"""Methods for tensors that take NumPy arrays too."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from liquid_ssm.backend import Gradients
from liquid_ssm.backends._tensors import on_tensors
from liquid_ssm.testing.strategies import random_system


class Host:
    """Remembers what its methods were called with."""

    numpy_device = "cpu"

    @on_tensors
    def everything(self, system, u, state=None, *, options=None):
        self.seen = (system, u, state, options)
        self.recording = torch.is_grad_enabled()
        return Gradients({"C": system.C.conj()}, -u, None if state is None else (2 * state, {"twice": state}))

    @on_tensors
    def identity(self, u):
        return u


SYSTEM = random_system("diagonal")
U = np.arange(6.0).reshape(1, 2, 3)


def test_arrays_become_tensors_and_results_arrays():
    host = Host()
    found = host.everything(SYSTEM, U, U[..., :1], options=3)
    system, u, state, options = host.seen
    assert system.is_torch
    assert isinstance(u, torch.Tensor)
    assert isinstance(state, torch.Tensor)
    assert options == 3
    assert not host.recording
    assert isinstance(found, Gradients)
    assert (found.parameters["C"] == SYSTEM.C.conj()).all()
    assert (found.u == -U).all()
    assert (found.state[0] == 2 * U[..., :1]).all()
    assert (found.state[1]["twice"] == U[..., :1]).all()
    assert all(isinstance(a, np.ndarray) for a in (found.parameters["C"], found.u, found.state[0]))


def test_tensors_pass_as_they_are_and_gradients_are_recorded():
    host, u = Host(), torch.ones(1, 2, 3, requires_grad=True)
    assert host.identity(u) is u
    found = host.everything(SYSTEM.to_torch(), u)
    assert host.recording
    assert found.u.requires_grad
    assert found.state is None


def test_writeable_arrays_share_their_memory_and_others_are_copied():
    host = Host()
    host.everything(SYSTEM, U)
    assert host.seen[1].data_ptr() == U.ctypes.data
    frozen = U.copy()
    frozen.flags.writeable = False
    for layout in (frozen, U[..., ::-1], np.asfortranarray(U)):
        host.everything(SYSTEM, layout)
        assert (host.seen[1].numpy() == layout).all()
    host.everything(SYSTEM, frozen)
    assert host.seen[1].data_ptr() != frozen.ctypes.data


@pytest.mark.parametrize("array", [U.astype("float32"), U.astype("complex128"), np.zeros((0, 2, 3))])
def test_dtypes_and_empty_arrays_stay(array):
    found = Host().identity(array)
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
