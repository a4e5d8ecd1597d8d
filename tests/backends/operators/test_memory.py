"""Tensors as arrays and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from liquid_ssm.backends.operators.memory import array_of, tensor_of


@pytest.mark.parametrize("tensor", [torch.ones(2, 3), torch.ones(3, 2).T, torch.ones(1, 3).expand(2, 3)])
def test_arrays_are_the_memory_of_tensors(tensor):
    array = array_of(tensor.requires_grad_())
    assert array.shape == tuple(tensor.shape)
    assert array.__array_interface__["data"][0] == tensor.data_ptr()


def test_conjugated_and_negated_views_are_written_out():
    tensor = torch.complex(torch.ones(2), torch.ones(2)).conj()
    assert np.array_equal(array_of(tensor), np.array([1 - 1j, 1 - 1j]))
    assert np.array_equal(array_of(tensor.imag), np.array([-1.0, -1.0]))


def test_nothing_is_nothing():
    assert array_of(None) is None
    assert array_of(torch.ones(2, 0)).shape == (2, 0)


def test_tensors_are_the_memory_of_arrays():
    array = np.ones((2, 3))
    assert tensor_of(array).data_ptr() == array.ctypes.data
    for given in (array.T, torch.ones(3, 2).T, torch.complex(torch.ones(2), torch.ones(2)).conj()):
        found = tensor_of(given)
        assert found.is_contiguous()
        assert not found.is_conj()
        assert np.array_equal(found, given.resolve_conj() if isinstance(given, torch.Tensor) else given)
