"""Windows in memory-mapped files: what comes out is what went in, and damage is found."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
import torch

from liquid_ssm.errors import DataError
from liquid_ssm.tasks import window_store
from liquid_ssm.tasks.ts_file import Series
from liquid_ssm.tasks.window_store import TARGETS, WINDOWS, Windows, make_windows, map_array, open_windows


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LIQUID_SSM_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


SERIES = [Series(np.arange(6.0).reshape(3, 2) + 10 * k, 0.5 + k) for k in range(4)]


def make(name="a"):
    return make_windows(name, lambda: SERIES, 4, 3, 2)


def test_windows_come_back_in_the_order_of_the_rows():
    folder = make()
    assert open_windows("a") == folder
    windows = Windows(folder / WINDOWS, folder / TARGETS, np.array([2, 0]))
    assert len(windows) == 2
    for sample, k in zip((windows[0], windows[1]), (2, 0), strict=True):
        assert sample.u.dtype == sample.target.dtype == torch.float32
        assert sample.u.tolist() == SERIES[k].values.tolist()
        assert sample.target.tolist() == [SERIES[k].target]


def test_a_copy_for_a_worker_holds_no_windows():
    folder = make()
    windows = Windows(folder / WINDOWS, folder / TARGETS, np.arange(4))
    windows[0]
    copy = pickle.loads(pickle.dumps(windows))
    assert copy._mapped is None
    assert torch.equal(copy[3].u, windows[3].u)


def test_files_are_mapped(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((2, 3)))
    assert isinstance(map_array(tmp_path / "x.npy"), np.memmap)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e39])
@pytest.mark.parametrize("where", ["x", "y"])
def test_a_window_that_is_not_finite_is_named(tmp_path, where, bad):
    arrays = {"x": np.zeros((2, 3, 2)), "y": np.zeros(2)}
    arrays[where][1] = bad
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    windows = Windows(tmp_path / "x.npy", tmp_path / "y.npy", np.arange(2))
    assert windows[0].target.tolist() == [0]
    with pytest.raises(DataError, match=r"x\.npy .* not finite, in window 1"):
        windows[1]


def test_a_pickle_is_never_loaded(tmp_path):
    marker = tmp_path / "ran"

    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(marker),))

    np.save(tmp_path / "x.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    (tmp_path / "y.npy").write_bytes(pickle.dumps(Trap()))
    for name in ("x", "y"):
        with pytest.raises(DataError, match=rf"{name}\.npy .*pickle"):
            map_array(tmp_path / f"{name}.npy")
    assert not marker.exists()


def test_every_cut_of_an_array_is_found(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.arange(6.0))
    whole = path.read_bytes()
    for n in range(len(whole)):
        path.write_bytes(whole[:n])
        with pytest.raises(DataError, match=r"x\.npy is damaged or no \.npy file"):
            map_array(path)


def test_an_archive_and_nothing_are_no_array(tmp_path):
    np.savez(tmp_path / "x.npy.npz", a=np.zeros(2))
    (tmp_path / "x.npy.npz").rename(tmp_path / "x.npy")
    with pytest.raises(DataError, match="it is an archive"):
        map_array(tmp_path / "x.npy")
    (tmp_path / "x.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-9])
    with pytest.raises(DataError, match="it is an archive"):
        map_array(tmp_path / "x.npy")
    with pytest.raises(DataError, match="is missing"):
        map_array(tmp_path / "none.npy")


@pytest.mark.parametrize("file", [WINDOWS, TARGETS, "windows.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_store_is_made_again(file, damage):
    path = make() / file
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.unlink()
    if damage != "remove":
        path.write_bytes(data if damage == "flip" else data[:-3])
    assert open_windows("a") is None
    assert open_windows(make().name) is not None


def test_what_the_series_raise_leaves_nothing_behind(cache):
    def broken():
        yield SERIES[0]
        raise DataError("line 7 is damaged")

    with pytest.raises(DataError, match="line 7"):
        make_windows("a", broken, 4, 3, 2)
    assert list((cache / "windows").iterdir()) == []


def test_the_faster_process_wins(monkeypatch):
    real = window_store._publish

    def late(new, target):
        # Another process publishes the same windows just before.
        monkeypatch.setattr(window_store, "_publish", real)
        make()
        monkeypatch.setattr(window_store.shutil, "rmtree", lambda *args, **options: None)
        real(new, target)

    monkeypatch.setattr(window_store, "_publish", late)
    assert open_windows(make().name) is not None


def test_a_cache_that_cannot_be_written_is_named(cache):
    cache.write_text("a file in its place")
    with pytest.raises(DataError, match=r"cannot be written: .* LIQUID_SSM_CACHE_DIR"):
        make()
