from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from liquid_ssm.arrays import dtype_name, is_channels_last, is_tensor, kind_of, namespace


def test_tensors_are_told_from_arrays():
    assert is_tensor(torch.zeros(2))
    assert is_tensor(torch.nn.Parameter(torch.zeros(2)))
    assert not any(is_tensor(value) for value in (np.zeros(2), [1.0], None, 3))
    assert (kind_of(torch.zeros(2)), kind_of(np.zeros(2)), kind_of([1.0])) == ("torch", "numpy", "numpy")
    assert namespace(torch.zeros(2)) is torch
    assert namespace(np.zeros(2)) is np


@pytest.mark.parametrize("make", [np.zeros, torch.zeros])
def test_channels_are_last_in_memory_where_nothing_else_is_true(make):
    assert is_channels_last(make((2, 5, 3)).swapaxes(1, 2))
    others = [make((2, 3, 5)), make((5, 3, 2)).swapaxes(0, 2), make((2, 10, 3)).swapaxes(1, 2)[..., ::2]]
    # Both orders at once: row after row is what it counts as.
    both = [make((2, 5, 1)).swapaxes(1, 2), make((2, 1, 3)).swapaxes(1, 2), make((0, 5, 3)).swapaxes(1, 2)]
    assert not any(map(is_channels_last, [*others, *both]))


@pytest.mark.parametrize("name", ["float32", "float64", "complex64", "complex128", "bfloat16", "int64"])
def test_a_dtype_of_torch_is_called_as_in_numpy(name):
    assert dtype_name(getattr(torch, name)) == name


@pytest.mark.parametrize("given", [np.float32, np.dtype("float32"), "float32", np.zeros(1, "float32").dtype])
def test_every_spelling_of_a_numpy_dtype_is_understood(given):
    assert dtype_name(given) == "float32"


def test_asking_does_not_import_torch():
    code = (
        "import sys, numpy, liquid_ssm.arrays as a; a.is_tensor(1); a.namespace(numpy.ones(1)); "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
