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
        with pytest.raises(ParameterError, match=r"holds more than arrays: Python objects .* can run code") as refused:
            read_state_dict(tmp_path / name)
        assert "damaged" not in str(refused.value)
    assert not made.exists()
    pickle.loads((tmp_path / "plain.pt").read_bytes())
    assert made.exists()  # and it would have


def test_other_files(tmp_path):
    with pytest.raises(ParameterError, match=r"one\.pkl has the ending '\.pkl'; read are: \.safetensors, \.npz"):
        read_state_dict(tmp_path / "one.pkl")
    torch.save(torch.zeros(3), tmp_path / "one.pt")
    with pytest.raises(ParameterError, match="holds a Tensor; needed: a state dict"):
        read_state_dict(tmp_path / "one.pt")
    np.save(tmp_path / "one", np.zeros(3))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    with pytest.raises(ParameterError, match="holds a ndarray; needed: a state dict"):
        read_state_dict(tmp_path / "one.npz")


@pytest.mark.parametrize("ending", ["npz", "pt", "pth", "safetensors"])
def test_a_file_that_cannot_be_opened(ending, tmp_path):
    missing, folder = tmp_path / f"none.{ending}", tmp_path / f"folder.{ending}"
    folder.mkdir()
    with pytest.raises(ParameterError, match=r"there is no file .*Check the path") as refused:
        read_state_dict(str(missing))
    assert str(missing) in str(refused.value)
    assert isinstance(refused.value.__cause__, FileNotFoundError)
    with pytest.raises(ParameterError, match=rf"folder\.{ending} cannot be opened: .*Give the path") as refused:
        read_state_dict(folder)
    assert isinstance(refused.value.__cause__, OSError)
    with pytest.raises(ParameterError, match="cannot be opened: embedded null"):
        read_state_dict(f"one\0.{ending}")


@pytest.mark.parametrize("source", [None, [1.0], 3, b"one.npz"])
def test_another_type_of_source(source):
    with pytest.raises(ParameterError, match=rf"of type {type(source).__name__}; allowed: a mapping .*str or a Path"):
        read_state_dict(source)


def half(data):
    return data[: len(data) // 2]


def empty(data):
    return b""


def text(data):
    return b"hello world, this is text"


def junk(data):
    return bytes(range(256))


def first_array_flipped(data):
    # The header of a member has 30 bytes, its name and 20 more; then come 128 bytes of NumPy's header.
    at = 30 + len("kernel.C.npy") + 20 + 128 + 3
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


def first_block_changed(data):
    # The two bits of the type of the first deflate block: 3 is none.
    at = 30 + len("kernel.C.npy") + 20
    return data[:at] + bytes([data[at] | 6]) + data[at + 1 :]


def header_flipped(data):
    # A parenthesis of the shape: NumPy reads the header before zipfile has seen the sum of a member this large.
    return data.replace(b"(1000, 3)", b"(1000, 3i", 1)


def member_flags_changed(data):
    # Bit 0 of the flags in the central directory: encrypted.
    at = data.index(b"PK\x01\x02") + 8
    return data[:at] + bytes([data[at] | 1]) + data[at + 1 :]


DAMAGED = [
    *((name, change) for name in ("one.npz", "packed.npz", "one.pt", "old.pt", "one.safetensors")
      for change in (half, empty, text, junk)),
    ("one.npz", first_array_flipped), ("packed.npz", first_block_changed), ("large.npz", header_flipped),
    ("one.npz", member_flags_changed),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change"), DAMAGED, ids=[f"{name}-{change.__name__}" for name, change in DAMAGED])
def test_a_damaged_file(name, change, tmp_path):
    path = tmp_path / name
    match name:
        case "one.npz":
            np.savez(path, **ARRAYS)
        case "packed.npz":
            np.savez_compressed(path, **ARRAYS)
        case "large.npz":
            np.savez(path, C=np.zeros((1000, 3)))
        case "one.safetensors":
            save_file(TENSORS, path)
        case _:
            torch.save(TENSORS, path, _use_new_zipfile_serialization=name == "one.pt")
    before = path.read_bytes()
    path.write_bytes(change(before))
    assert path.read_bytes() != before
    with pytest.raises(ParameterError, match=rf"{name} is damaged.*(Copy it again|load it yourself)") as refused:
        read_state_dict(path)
    assert isinstance(refused.value.__cause__, Exception)
    # Only an unpickler can have met an object.
    assert ("more than arrays" in str(refused.value)) == isinstance(refused.value.__cause__, pickle.UnpicklingError)


def test_an_interrupt_is_not_an_error_of_the_file(tmp_path, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    (tmp_path / "one.pt").write_bytes(b"")
    monkeypatch.setattr(torch, "load", interrupted)
    with pytest.raises(KeyboardInterrupt):
        read_state_dict(tmp_path / "one.pt")
