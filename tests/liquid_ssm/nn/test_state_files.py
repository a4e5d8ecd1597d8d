"""State dicts from files; what could run code is refused."""

from __future__ import annotations

import os
import pickle
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from liquid_ssm.errors import BackendUnavailable, ParameterError
from liquid_ssm.nn.state_files import read_state_dict

ARRAYS = {"kernel.C": np.arange(6.0).reshape(2, 3), "D": np.ones(2, np.float32)}
TENSORS = {name: torch.tensor(values) for name, values in ARRAYS.items()}


class Payload:
    """Its unpickling makes a folder."""

    def __init__(self, made):
        self.made = made

    def __reduce__(self):
        return os.mkdir, (self.made,)


def test_a_mapping_is_itself():
    assert read_state_dict(ARRAYS) is ARRAYS


@pytest.mark.parametrize("name", ["one.npz", "one.pt", "one.pth", "one.safetensors"])
def test_every_kind_of_file_gives_its_arrays(name, tmp_path):
    np.savez(tmp_path / "one.npz", **ARRAYS)
    for ending in ("pt", "pth"):
        torch.save(TENSORS, tmp_path / f"one.{ending}")
    save_file(TENSORS, tmp_path / "one.safetensors")
    for path in (tmp_path / name, str(tmp_path / name)):
        found = read_state_dict(path)
        assert found.keys() == ARRAYS.keys()
        assert all(np.array_equal(found[key], ARRAYS[key]) for key in ARRAYS)


def test_without_safetensors(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(BackendUnavailable, match="pip install safetensors"):
        read_state_dict(tmp_path / "one.safetensors")


def test_no_code_of_a_file_runs(tmp_path):
    made = tmp_path / "made"
    harmful = {**TENSORS, "extra": Payload(str(made))}
    torch.save(harmful, tmp_path / "one.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(harmful, protocol=2))
    np.savez(tmp_path / "one.npz", **ARRAYS, extra=np.array([Payload(str(made))]))
    for name in ("one.pt", "plain.pt", "one.npz"):
        with pytest.raises(ParameterError, match="Python objects are not read, because that can run code"):
            read_state_dict(tmp_path / name)
    assert not made.exists()
    pickle.loads((tmp_path / "plain.pt").read_bytes())
    assert made.exists()  # and it would have


def test_other_files(tmp_path):
    with pytest.raises(ParameterError, match=r"one\.pkl has the ending '\.pkl'; read are: \.safetensors, \.npz"):
        read_state_dict(tmp_path / "one.pkl")
    torch.save(torch.zeros(3), tmp_path / "one.pt")
    with pytest.raises(ParameterError, match="holds a Tensor; needed: a state dict"):
        read_state_dict(tmp_path / "one.pt")
    with pytest.raises(FileNotFoundError):
        read_state_dict(tmp_path / "none.npz")
