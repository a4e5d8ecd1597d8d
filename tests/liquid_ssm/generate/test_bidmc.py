"""BIDMC-like signals: the rates and the saturation that they are made from are found in them again."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest

from liquid_ssm.data_folder import check_sums, read_generated
from liquid_ssm.errors import ParameterError
from liquid_ssm.generate import bidmc
from liquid_ssm.generate.bidmc import (
    HEART_RATES,
    INFRARED_PULSE,
    LENGTH,
    RATE,
    RESPIRATORY_RATES,
    SATURATIONS,
    TARGETS,
    generate_bidmc,
    simulate,
)
from liquid_ssm.tasks.splits import reshuffled

SECONDS = LENGTH / RATE
WINDOWS = [(seed, index) for seed in range(2) for index in range(6)]


def strongest(signal, least, most):
    """The strongest frequency in between [1/min], to a bin of 1/32 s."""
    power = np.abs(np.fft.rfft(signal - signal.mean()))
    per_minute = 60 * np.fft.rfftfreq(LENGTH, 1 / RATE)
    power[(per_minute < least) | (per_minute > most)] = 0
    return per_minute[power.argmax()]


@pytest.mark.parametrize(("seed", "index"), WINDOWS)
def test_heart_rate_is_that_of_the_pulses_spectrum(seed, index):
    window = simulate(seed, index, 0.01)
    # The bin next to the frequency is at most half a bin away; breathing may put the power into a neighbour of it.
    assert abs(strongest(window.signals[:, 0], 40, 140) - window.targets[0]) <= 1.5 * 60 / SECONDS


@pytest.mark.parametrize(("seed", "index"), WINDOWS)
def test_heart_rate_is_that_of_the_r_waves(seed, index):
    window = simulate(seed, index, 0.0)
    ecg, (heart, breath, _) = window.signals[:, 1], window.targets
    # R waves are the parts that are steep: P and T are longer, and base lines move slowly.
    steep = np.abs(np.diff(ecg, prepend=ecg[0]))
    peaks: list[int] = []
    for k in np.argsort(-steep)[: 20 * int(heart * SECONDS / 60)]:
        if steep[k] > 0.5 * steep.max() and all(abs(int(k) - peak) > 0.3 * RATE for peak in peaks):
            peaks.append(int(k))
    peaks.sort()
    seconds = (peaks[-1] - peaks[0]) / RATE
    found = 60 * (len(peaks) - 1) / seconds
    # Each end is right to the width of an R wave, 0.05 s; the mean of 5 % of a sine over a time t is below
    # 0.05/(pi f t), once for the window and once for the part between the ends.
    bound = 0.1 / seconds + 0.05 * (1 / seconds + 1 / SECONDS) / (np.pi * breath / 60)
    assert abs(found / heart - 1) <= bound


@pytest.mark.parametrize(("seed", "index"), WINDOWS)
def test_respiratory_rate_is_that_of_the_base_lines(seed, index):
    window = simulate(seed, index, 0.01)
    for channel in range(2):
        assert abs(strongest(window.signals[:, channel], 5, 30) - window.targets[1]) <= 60 / SECONDS


@pytest.mark.parametrize(("seed", "index"), WINDOWS)
def test_saturation_is_that_of_the_pulses_height(seed, index, monkeypatch):
    # Breathing changes heights; without it they are those of the target.
    monkeypatch.setattr(bidmc, "_PULSE_MODULATION", 0.0)
    monkeypatch.setattr(bidmc, "_WANDER", 0.0)
    window = simulate(seed, index, 0.0)
    ppg, (heart, _, saturation) = window.signals[:, 0], window.targets
    height = np.ptp(ppg) / ppg.mean()
    # The part of a beat that is left over moves the mean by at most its height over the number of beats.
    bound = 25 * height / INFRARED_PULSE * height / (heart * SECONDS / 60 - 1)
    assert abs(110 - 25 * height / INFRARED_PULSE - saturation) <= bound


def test_breathing_changes_the_pulses_height(monkeypatch):
    monkeypatch.setattr(bidmc, "_WANDER", 0.0)
    ppg = simulate(0, 0, 0.0).signals[:, 0]
    heart = simulate(0, 0, 0.0).targets[0]
    beat = int(60 / heart * RATE * 1.06)
    heights = [np.ptp(ppg[k : k + beat]) for k in range(0, LENGTH - beat, beat)]
    # By 10 % up and down: to 1.1/0.9 at most; one of 8 or more breaths has beats within a sixth of both ends.
    assert 1 + 0.2 * np.cos(np.pi / 3) < max(heights) / min(heights) <= 1.1 / 0.9 + 1e-9


def test_targets_span_their_ranges():
    targets = np.array([simulate(0, k, 0.0).targets for k in range(20)])
    for column, (least, most) in zip(targets.T, (HEART_RATES, RESPIRATORY_RATES, SATURATIONS), strict=True):
        # The mean heart rate may leave its range by the breath that is cut.
        assert least * 0.99 <= column.min() < column.max() <= most * 1.01
        # 20 even draws all in one half: a chance of 2^-19, and the seed is fixed.
        assert column.min() < (least + most) / 2 < column.max()


def test_windows_depend_on_seed_and_index_alone():
    assert np.array_equal(simulate(3, 5, 0.01).signals, simulate(3, 5, 0.01).signals)
    for other in ((3, 6), (4, 5)):
        assert not np.array_equal(simulate(3, 5, 0.01).signals, simulate(*other, 0.01).signals)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bidmc")
    generate_bidmc(folder, seed=4, windows=6, noise=0.02)
    return folder


def test_text_is_in_the_archives_layout(folder):
    windows = [simulate(4, k, 0.02) for k in range(6)]
    for i, target in enumerate(TARGETS):
        rows = []
        # 70 % of 6 are 4.2.
        for part, count in (("TRAIN", 4), ("TEST", 2)):
            text = (folder / "bidmc" / target / f"BIDMC32{target}_{part}.ts").read_text(encoding="ascii")
            head, _, data = text.partition("@data\n")
            assert head.splitlines()[0] == f"@problemName BIDMC32{target}"
            assert "@dimensions 2\n@equalLength true\n@seriesLength 4000\n@targetlabel true\n" in head
            assert len(data.splitlines()) == count
            rows += data.splitlines()
        for row, window in zip(rows, windows, strict=True):
            *columns, label = row.split(":")
            values = np.array([[float(value) for value in column.split(",")] for column in columns]).T
            # Six digits.
            assert np.abs(values - window.signals).max() <= 0.5e-6 + 1e-15
            assert abs(float(label) - window.targets[i]) <= 0.5e-6 + 1e-13


def test_arrays_are_the_text_in_the_order_of_the_split(folder):
    split = reshuffled(6)
    for i, target in enumerate(TARGETS):
        for part, rows in zip(("train", "valid", "test"), split, strict=True):
            x, y = (np.load(folder / "bidmc" / target / "reshuffle" / f"{part}{kind}.npy") for kind in "xy")
            assert x.dtype == y.dtype == np.float64
            assert x.shape == (len(rows), LENGTH, 2)
            for k, (values, label) in zip(rows, zip(x, y, strict=True), strict=True):
                window = simulate(4, int(k), 0.02)
                assert np.abs(values - window.signals).max() <= 0.5e-6 + 1e-15
                assert abs(label - window.targets[i]) <= 0.5e-6 + 1e-13


def test_what_was_made_is_written_beside_it(folder):
    about = read_generated(folder)
    assert (about.task, about.seed, about.counts) == ("bidmc", 4, {"train": 4, "validation": 1, "test": 1})
    assert about.options == {"windows": 6, "layout": "both", "noise": 0.02}
    assert re.fullmatch(r"\d+\..*", about.tools["neurokit2"])
    files = [path for path in folder.rglob("*") if path.suffix in (".ts", ".npy")]
    assert check_sums(folder) == len(files) == 24


@pytest.mark.parametrize(("layout", "suffix"), [("ts", ".ts"), ("npy", ".npy")])
def test_one_layout_and_the_same_bytes_again(folder, tmp_path, layout, suffix):
    told = []
    generate_bidmc(
        tmp_path, seed=4, windows=6, noise=0.02, layout=layout, progress=lambda *step: told.append(step)
    )  # fmt: skip
    assert told == [(k, 6, "windows") for k in range(1, 7)]
    found = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*.[tn]*") if path.is_file()}
    wanted = {path.relative_to(folder): path.read_bytes() for path in folder.rglob(f"*{suffix}")}
    assert found == wanted


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"windows": 3}, "windows is 3; at least 4"),
        ({"seed": -1}, "seed is -1"),
        ({"layout": "csv"}, "unknown layout 'csv'; allowed: ts, npy, both"),
        ({"noise": -0.1}, "noise is -0.1"),
        ({"noise": float("nan")}, "noise is nan"),
    ],
)
def test_options_outside_their_range(tmp_path, options, words):
    with pytest.raises(ParameterError, match=words):
        generate_bidmc(tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


def test_a_folder_that_is_not_empty_is_refused(folder):
    with pytest.raises(ParameterError, match="is not empty"):
        generate_bidmc(folder, windows=4)


def test_neither_torch_nor_lightning_is_imported():
    code = (
        "import sys; from liquid_ssm.generate.bidmc import simulate; simulate(0, 0, 0.0);"
        "assert not {'torch', 'lightning'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
