"""Stand-ins for BIDMC: signals with known heart rate, respiratory rate and oxygen saturation, in the archive's layouts.

They are no recordings.  The shapes of beats and breaths are those of neurokit2's models; how breathing modulates them
and how the amplitude of the pulse tells of oxygen are the textbook relations below, without any disease or movement.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from ..data_folder import Generated, write_generated
from ..environment import package_version
from ..errors import ParameterError, unknown_name
from ..tasks.splits import reshuffled
from .draw import at_least, new_folder

Array = npt.NDArray[np.float64]

RATE, LENGTH = 125, 4000
TARGETS = ("HR", "RR", "SpO2")
LAYOUTS = ("ts", "npy", "both")
# Ranges from which the targets of a window are drawn: beats and breaths per minute, and per cent.
HEART_RATES, RESPIRATORY_RATES, SATURATIONS = (50.0, 120.0), (8.0, 25.0), (85.0, 100.0)
# Saturation [%] of a ratio of ratios R, the usual calibration of pulse oximeters: 110 - 25 R (Webster 1997).
_OFFSET, _SLOPE = 110.0, 25.0
# Pulse of infrared light relative to its mean.  A monitor compares it with that of red light; here it is the same in
# all windows, so that the one channel, red, tells of the saturation.  Skin has a tenth of it.
INFRARED_PULSE = 0.4
# By breathing: of the heart's rate, of the pulse's height, and of both base lines relative to the height.
_SINUS_ARRHYTHMIA, _PULSE_MODULATION, _WANDER = 0.05, 0.10, 0.15
# From the R wave to the pulse in the finger [s].
_TRANSIT = 0.25
# The published sizes of TRAIN and TEST are about 70 : 30.
_TRAIN_SHARE = 0.7
_NAMES = {"train": "train", "validation": "valid", "test": "test"}


class Window(NamedTuple):
    """Signals of 32 s and what is known of them.

    Attributes:
        signals: (4000, 2): photoplethysmogram, electrocardiogram [mV].
        targets: heart rate [1/min], respiratory rate [1/min], oxygen saturation [%].
    """

    signals: Array
    targets: tuple[float, float, float]


def generate_bidmc(
    folder: Path,
    *,
    seed: int = 0,
    windows: int = 300,
    layout: str = "both",
    noise: float = 0.01,
    progress: Callable[[int, int, str], None] | None = None,
) -> Generated:
    """Write BIDMC-like windows of 32 s at 125 Hz, the same for the targets HR, RR and SpO2, as `.ts` and `.npy` files.

    The rates and the saturation of each window are drawn evenly.  The heart's rate varies with breathing by 5 %; the
    target is its mean over the window.  Breathing also moves base lines and the height of the pulse (Charlton et al.
    2018).  One channel of light cannot tell the saturation of real blood: the height of the pulse relative to its mean
    stands for that of red light, with that of infrared light known, 0.4: SpO2 = 110 - 25 · height/(mean · 0.4).

    Args:
        folder: new or empty.
        seed: of everything that is drawn.
        windows: number of them; 70, 15 and 15 % are for training, validation and test.
        layout: `ts` for `bidmc/HR/BIDMC32HR_{TRAIN,TEST}.ts`, `npy` for
            `bidmc/HR/reshuffle/{train,valid,test}{x,y}.npy`, or `both`; 0.3 MB a window each.
        noise: standard deviation of white noise: [mV], and relative to the highest pulse.
        progress: told (done, total, what).

    Raises:
        ParameterError: a number out of range, or a folder that is not empty.
    """
    at_least(0, seed=seed)
    # Fewer cannot be split.
    at_least(4, windows=windows)
    if layout not in LAYOUTS:
        raise unknown_name("layout", layout, LAYOUTS)
    if not 0 <= noise < float("inf"):
        raise ParameterError(f"noise is {noise}; 0 or more is needed.")
    place = new_folder(Path(folder)) / "bidmc"
    split = reshuffled(windows)
    with ExitStack() as stack:
        writers: list[Callable[[int, list[list[str]], list[str]], None]] = []
        files: list[Path] = []
        if layout != "npy":
            writers.append(_text_writer(place, windows, files, stack))
        if layout != "ts":
            writers.append(_array_writer(place, split._asdict(), files, stack))
        for k in range(windows):
            window = simulate(seed, k, noise)
            columns = [[f"{value:.6f}" for value in column] for column in window.signals.T.tolist()]
            targets = [f"{value:.6f}" for value in window.targets]
            for write in writers:
                write(k, columns, targets)
            if progress is not None:
                progress(k + 1, windows, "windows")
    if layout != "ts":
        # Signals are the same for all targets.
        for name in _NAMES.values():
            for target in TARGETS[1:]:
                path = place / target / "reshuffle" / f"{name}x.npy"
                shutil.copyfile(place / TARGETS[0] / "reshuffle" / f"{name}x.npy", path)
                files.append(path)
    counts = {part: len(rows) for part, rows in split._asdict().items()}
    tools = {name: package_version(name) for name in ("neurokit2", "numpy", "scipy")}
    options = {"windows": windows, "layout": layout, "noise": noise}
    about = Generated("bidmc", seed, package_version("liquid-ssm"), counts, options, tools)
    write_generated(Path(folder), about, files)
    return about


def simulate(seed: int, index: int, noise: float) -> Window:
    """One window: a function of its arguments and of neurokit2's version alone.

    Args:
        seed, index: of the draws.
        noise: standard deviation: [mV], and relative to the highest pulse.
    """
    random = np.random.RandomState([seed, index])
    heart, breath, saturation = (random.uniform(*ends) for ends in (HEART_RATES, RESPIRATORY_RATES, SATURATIONS))
    breathing = _breathing(breath, random)
    beats_per_second = heart / 60 * (1 + _SINUS_ARRHYTHMIA * breathing)
    phase = random.uniform() + np.concatenate(([0.0], np.cumsum(beats_per_second[:-1]))) / RATE
    ecg_beat, ppg_beat = _beats(heart, random)
    ecg = _played(ecg_beat, phase) + _WANDER * breathing
    pulse = _played(ppg_beat, phase - _TRANSIT * heart / 60) * (1 + _PULSE_MODULATION * breathing)
    height = INFRARED_PULSE * (_OFFSET - saturation) / _SLOPE
    mean = random.uniform(0.4, 0.6)
    ppg = mean * (1 + height * (pulse + _WANDER * breathing))
    ecg += noise * random.standard_normal(LENGTH)
    ppg += noise * mean * INFRARED_PULSE * random.standard_normal(LENGTH)
    return Window(np.stack((ppg, ecg), axis=1), (60 * float(beats_per_second.mean()), breath, saturation))


def _breathing(rate: float, random: np.random.RandomState) -> Array:
    """Between -1 and 1, from any place of a breath."""
    start = random.randint(int(60 * RATE / rate))
    seconds = (LENGTH + start) // RATE + 1
    found = _neurokit().rsp_simulate(
        duration=seconds, sampling_rate=RATE, respiratory_rate=rate, method="sinusoidal", noise=0
    )
    return 2 * np.asarray(found[start : start + LENGTH])


def _beats(rate: float, random: np.random.RandomState) -> tuple[Array, Array]:
    """A beat each of electrocardiogram, from one R wave to the next [mV], and of pulse, with mean 0 and height 1."""
    neurokit, sampling = _neurokit(), 500
    period = 60 / rate
    # The heights of P, Q, R, S and T around those of the model.
    heights = np.array([1.2, -5, 30, -7.5, 0.75]) * random.uniform(0.8, 1.2, 5)
    drawn = {"heart_rate": rate, "sampling_rate": sampling, "random_state": int(random.randint(2**31))}
    n = round(period * sampling)
    ecg = neurokit.ecg_simulate(duration=None, length=4 * n, heart_rate_std=0, noise=0, ai=heights, **drawn)
    peak = n // 2 + int(np.argmax(ecg[n // 2 : n // 2 + n]))
    quiet = dict.fromkeys(
        ("frequency_modulation", "ibi_randomness", "drift", "motion_amplitude", "powerline_amplitude"), 0
    )
    ppg = neurokit.ppg_simulate(duration=4 * period, burst_amplitude=0, **quiet, **drawn)
    pulse = _closed(ppg[n : 2 * n + 1])
    return _closed(ecg[peak : peak + n + 1]), (pulse - pulse.mean()) / np.ptp(pulse)


def _closed(beat: Array) -> Array:
    """The beat without its last sample, which is made equal to the first by a slope."""
    n = len(beat) - 1
    return np.asarray(beat[:n] - (beat[n] - beat[0]) * np.arange(n) / n)


def _played(beat: Array, phase: Array) -> Array:
    """The beat at phases [beats], between its samples linearly."""
    return np.asarray(np.interp(phase % 1 * len(beat), np.arange(len(beat) + 1), np.append(beat, beat[0])))


def _neurokit() -> Any:
    with warnings.catch_warnings():
        # Of modules of SciPy that neurokit2 imports, about themselves.
        warnings.filterwarnings("ignore", r"scipy\.", DeprecationWarning)
        import neurokit2
    return neurokit2


def _text_writer(
    place: Path, windows: int, files: list[Path], stack: ExitStack
) -> Callable[[int, list[list[str]], list[str]], None]:
    train = round(_TRAIN_SHARE * windows)
    outputs = []
    for target in TARGETS:
        (place / target).mkdir(parents=True, exist_ok=True)
        for part in ("TRAIN", "TEST"):
            path = place / target / f"BIDMC32{target}_{part}.ts"
            file = stack.enter_context(path.open("w", encoding="ascii", newline="\n"))
            file.write(
                f"@problemName BIDMC32{target}\n@timeStamps false\n@missing false\n@univariate false\n@dimensions 2\n"
                f"@equalLength true\n@seriesLength {LENGTH}\n@targetlabel true\n@data\n"
            )
            files.append(path)
            outputs.append(file)

    def write(k: int, columns: list[list[str]], targets: list[str]) -> None:
        line = ":".join(map(",".join, columns))
        for i, target in enumerate(targets):
            outputs[2 * i + (k >= train)].write(f"{line}:{target}\n")

    return write


def _array_writer(
    place: Path, split: dict[str, Any], files: list[Path], stack: ExitStack
) -> Callable[[int, list[list[str]], list[str]], None]:
    rows = {int(k): (part, at) for part, found in split.items() for at, k in enumerate(found)}
    outputs: dict[tuple[str, str], tuple[BinaryIO, int]] = {}

    def start(target: str, part: str, kind: str, shape: tuple[int, ...]) -> None:
        path = place / target / "reshuffle" / f"{_NAMES[part]}{kind}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        file = stack.enter_context(path.open("wb"))
        header = {"descr": "<f8", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        files.append(path)
        outputs[part, f"{target}{kind}"] = file, file.tell()

    for part, found in split.items():
        start(TARGETS[0], part, "x", (len(found), LENGTH, 2))
        for target in TARGETS:
            start(target, part, "y", (len(found),))

    def put(part: str, name: str, at: int, values: Array) -> None:
        file, first = outputs[part, name]
        file.seek(first + at * values.nbytes)
        file.write(values.astype("<f8").tobytes())

    def write(k: int, columns: list[list[str]], targets: list[str]) -> None:
        part, at = rows[k]
        # What the text says, so that both layouts hold the same numbers.
        put(part, f"{TARGETS[0]}x", at, np.array(columns, dtype=np.float64).T)
        for target, value in zip(TARGETS, targets, strict=True):
            put(part, f"{target}y", at, np.array([float(value)]))

    return write
