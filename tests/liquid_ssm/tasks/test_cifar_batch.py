"""Batches of CIFAR-10 as Python 2 and 3 write them, and pickles that want to do something else."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import struct

import numpy as np
import pytest

from liquid_ssm.errors import DataError
from liquid_ssm.tasks.cifar_batch import CLASSES, check_names, read_batch


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (5, 3072), dtype=np.uint8)


LABELS = [3, 0, 9, 9, 1]


def write(path, entries, protocol=2):
    path.write_bytes(pickle.dumps(entries, protocol=protocol))
    return path


def short(text):
    return b"U" + bytes([len(text)]) + text


def of_python_2(pixels, labels):
    """The published files' form: byte strings, and NumPy's old names; opcodes of protocol 2."""
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + short(b"b") + b"\x87R(K\x01"
        b"K" + bytes([len(pixels)]) + b"M" + struct.pack("<H", pixels.shape[1]) + b"\x86cnumpy\ndtype\n" + short(b"u1")
        + b"K\x00K\x01\x87R(K\x03" + short(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
        + struct.pack("<I", pixels.size) + pixels.tobytes() + b"tb"
    )  # fmt: skip
    listed = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(" + short(b"data") + array + short(b"labels") + listed + b"u."


def test_the_form_of_python_2_is_what_numpy_reads(pixels):
    found = pickle.loads(of_python_2(pixels, LABELS), encoding="bytes")
    assert np.array_equal(found[b"data"], pixels)
    assert found[b"labels"] == LABELS


@pytest.mark.parametrize("form", ["python 2", *range(2, pickle.HIGHEST_PROTOCOL + 1)])
@pytest.mark.parametrize("key", [str, str.encode])
def test_pixels_are_those_of_the_planes(tmp_path, pixels, form, key):
    path = tmp_path / "batch"
    if form == "python 2":
        path.write_bytes(of_python_2(pixels, LABELS))
    else:
        write(path, {key("data"): pixels, key("labels"): LABELS, key("filenames"): [b"a.png"] * 5}, form)
    batch = read_batch(path, hashlib.md5(path.read_bytes()).hexdigest())
    assert batch.pixels.shape == (5, 1024, 3)
    for k in range(5):
        for channel in range(3):
            # 1024 red ones row by row, then green, then blue.
            assert np.array_equal(batch.pixels[k, :, channel], pixels[k, 1024 * channel : 1024 * (channel + 1)])
    assert batch.labels.tolist() == LABELS


class Runs:
    def __init__(self, call, *arguments):
        self.call = call, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("place", ["alone", "key", "pixels", "labels"])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_is_run(tmp_path, pixels, place, protocol):
    mark = tmp_path / "run"
    bad = Runs(os.mkdir, str(mark))
    entries = {
        "alone": bad,
        "key": {b"data": pixels, b"labels": LABELS, b"x": bad},
        "pixels": {b"data": bad, b"labels": LABELS},
        "labels": {b"data": pixels, b"labels": [bad, *LABELS[1:]]},
    }[place]
    path = write(tmp_path / "batch", entries, protocol)
    with pytest.raises(DataError, match=r"batch is damaged or no file.*asks for \w+\.mkdir, .* nothing of it was run"):
        read_batch(path, None)
    assert not mark.exists()
    # It would have been.
    pickle.loads(path.read_bytes(), encoding="bytes")
    assert mark.is_dir()


@pytest.mark.parametrize("call", [eval, getattr, np.load, np.fromfile, np.array])
def test_nor_is_anything_else_of_python_or_numpy(tmp_path, call):
    with pytest.raises(DataError, match="which no batch of CIFAR-10 does"):
        read_batch(write(tmp_path / "batch", {b"data": Runs(call, "x")}), None)


def test_codecs_are_not_run(tmp_path):
    content = b"\x80\x02c_codecs\nencode\n" + short(b"x") + short(b"rot13") + b"\x86R."
    (tmp_path / "batch").write_bytes(content)
    with pytest.raises(DataError, match="encoding b'rot13'"):
        read_batch(tmp_path / "batch", None)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([1], "does not hold a dictionary"),
        ({}, "data is no array"),
        ({b"fine_labels": []}, "is of CIFAR-100; expected CIFAR-10"),
        ({b"data": np.zeros((5, 3072)), b"labels": LABELS}, r"array of f8 of shape \(5, 3072\); expected uint8"),
        ({b"data": np.zeros((5, 3071), np.uint8), b"labels": LABELS}, r"array of u1 of shape \(5, 3071\)"),
        ({b"data": np.zeros(3072, np.uint8), b"labels": LABELS}, r"array of u1 of shape \(3072,\)"),
        ({b"data": np.zeros((5, 3072), np.uint8, order="F"), b"labels": LABELS}, "row by row"),
        ({b"data": np.array([[None] * 3072]), b"labels": [1]}, "an array of objects"),
        ({b"data": np.zeros((5, 3072), np.uint8), b"labels": LABELS[:4]}, "4 labels for 5 images"),
        ({b"data": np.zeros((5, 3072), np.uint8)}, "no list of labels for 5 images"),
        (
            {b"data": np.zeros((5, 3072), np.uint8), b"labels": [1, 2, 10, 3, 4]},
            "label of image 2, .*, is 10; expected",
        ),
        ({b"data": np.zeros((5, 3072), np.uint8), b"labels": [1, 2, 3, 3, True]}, "label of image 4, .*, is True"),
    ],
)
def test_other_contents_are_named(tmp_path, entries, said):
    with pytest.raises(DataError, match=said):
        read_batch(write(tmp_path / "batch", entries), None)


def test_damage_is_an_error_of_ours_wherever_it_is(tmp_path, pixels):
    content = of_python_2(pixels[:1], LABELS[:1])
    path = tmp_path / "batch"
    # Not within the pixels, of which any are valid.
    ends = [*range(200), *range(len(content) - 40, len(content))]
    for end in ends:
        path.write_bytes(content[:end])
        with pytest.raises(DataError, match="batch is damaged"):
            read_batch(path, None)
    for at in ends:
        changed = bytearray(content)
        changed[at] ^= 0x11
        path.write_bytes(changed)
        # Some changes are of a name that is not used, or of a label.
        with contextlib.suppress(DataError):
            assert read_batch(path, None).pixels.shape == (1, 1024, 3)
        with pytest.raises(DataError, match="its MD5 is"):
            read_batch(path, hashlib.md5(content).hexdigest())


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match="batch is missing"):
        read_batch(tmp_path / "batch", None)
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_batch(tmp_path, None)


@pytest.mark.parametrize("kind", [str, str.encode])
def test_names_of_classes(tmp_path, kind):
    names = list(map(kind, CLASSES))
    check_names(write(tmp_path / "meta", {kind("label_names"): names}), None)
    with pytest.raises(DataError, match=r"label_names are \['airplane', 'car'.*expected airplane, automobile"):
        check_names(write(tmp_path / "meta", {kind("label_names"): [kind("airplane"), kind("car")]}), None)
    with pytest.raises(DataError, match="label_names are None"):
        check_names(write(tmp_path / "meta", {}), None)
