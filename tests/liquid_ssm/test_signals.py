from __future__ import annotations

import hashlib
import struct
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from liquid_ssm.errors import ParameterError, SignalError
from liquid_ssm.signals import Signal, as_batch, default_signal, load_signal

GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")


def write_pcm(path: Path, values: list[list[int]], width: int, rate: int = 48000) -> Path:
    """A PCM file by the standard library; values are frames of signed integers (8 bits: unsigned)."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(values[0]))
        file.setsampwidth(width)
        file.setframerate(rate)
        data = b"".join(v.to_bytes(width, "little", signed=width > 1) for frame in values for v in frame)
        file.writeframes(data)
    return path


def riff(*chunks: tuple[bytes, bytes], order: str = "<") -> bytes:
    body = b"".join(
        kind + struct.pack(f"{order}I", len(data)) + data + b"\0" * (len(data) % 2) for kind, data in chunks
    )
    return (b"RIFF" if order == "<" else b"RIFX") + struct.pack(f"{order}I", 4 + len(body)) + b"WAVE" + body


def fmt(tag: int, channels: int, width: int, rate: int = 8000, bits: int | None = None, order: str = "<") -> bytes:
    block = channels * width
    return struct.pack(f"{order}HHIIHH", tag, channels, rate, rate * block, block, 8 * width if bits is None else bits)


def extensible(tag: int, channels: int, width: int) -> bytes:
    return fmt(0xFFFE, channels, width) + struct.pack("<HHI", 22, 8 * width, 0) + struct.pack("<H", tag) + GUID_TAIL


def refused(path: str | Path, *said: str) -> None:
    with pytest.raises(SignalError) as caught:
        load_signal(path)
    message = str(caught.value)
    assert "\n" not in message
    for part in said:
        assert part in message


def test_default_signal_is_the_electrocardiogram_of_pywavelets() -> None:
    signal = default_signal()
    counts = np.round(signal.samples[0] * 250).astype("<i4")
    # Digest of pywt.data.ecg() of PyWavelets 1.9.0 as little-endian int32.
    digest = "96b58a5df18fc798a1db5af5e7041d86ad0dce11f552420bf14a0cc07de66b89"
    assert hashlib.sha256(counts.tobytes()).hexdigest() == digest
    np.testing.assert_array_equal(signal.samples[0], counts / 250)
    assert signal.samples.shape == (1, 1024)
    assert np.abs(signal.samples).max() == 1.0
    assert signal.rate is None
    assert "PyWavelets" in signal.description
    assert "scaled to max |u| = 1" in signal.description


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_wav_pcm_is_scaled_by_a_power_of_two(tmp_path: Path, width: int) -> None:
    full = 2 ** (8 * width - 1)
    signed = [[-full, full - 1], [0, 1], [-1, full // 2]]
    stored = [[v + (128 if width == 1 else 0) for v in frame] for frame in signed]
    signal = load_signal(write_pcm(tmp_path / "a.wav", stored, width))
    np.testing.assert_array_equal(signal.samples, np.array(signed, dtype=np.float64).T / full)
    assert signal.samples.min() == -1.0
    assert signal.samples.max() < 1.0
    assert signal.rate == 48000.0
    assert f"{8 * width}-bit PCM" in signal.description


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_wav_pcm_agrees_with_scipy(tmp_path: Path, width: int) -> None:
    wavfile = pytest.importorskip("scipy.io.wavfile")
    rng = np.random.default_rng(0)
    low, high = (0, 256) if width == 1 else (-(2 ** (8 * width - 1)), 2 ** (8 * width - 1))
    path = write_pcm(tmp_path / "a.wav", rng.integers(low, high, (50, 3)).tolist(), width)
    _, data = wavfile.read(path)
    # SciPy justifies samples to the left of the smallest NumPy integer, bytes of 8-bit files excepted.
    expected = (data - 128.0) / 128.0 if width == 1 else data / 2.0 ** (8 * data.itemsize - 1)
    np.testing.assert_array_equal(load_signal(path).samples, expected.T)


@pytest.mark.parametrize("dtype", ["<f4", "<f8"])
def test_wav_float_is_taken_as_it_is(tmp_path: Path, dtype: str) -> None:
    values = np.array([[0.1, -2.5], [3e-39, 7.0], [1.0, -0.0]], dtype=dtype)
    path = tmp_path / "a.wav"
    path.write_bytes(riff((b"fmt ", fmt(3, 2, values.itemsize)), (b"data", values.tobytes())))
    np.testing.assert_array_equal(load_signal(path).samples, values.T.astype(np.float64))


@pytest.mark.parametrize(("tag", "dtype"), [(1, "<i2"), (1, "<i4"), (3, "<f4")])
def test_wav_extensible_with_other_chunks_around(tmp_path: Path, tag: int, dtype: str) -> None:
    wavfile = pytest.importorskip("scipy.io.wavfile")
    values = np.array([[1, -2], [300, 4]], dtype=dtype)
    path = tmp_path / "a.wav"
    header = (b"fmt ", extensible(tag, 2, values.itemsize))
    # The first chunk has an odd size, so a byte of padding follows it.
    path.write_bytes(riff((b"LIST", b"abc"), header, (b"data", values.tobytes())))
    scale = 1.0 if tag == 3 else 2.0 ** (8 * values.itemsize - 1)
    np.testing.assert_array_equal(load_signal(path).samples, (values / scale).T)
    np.testing.assert_array_equal(wavfile.read(path)[1], values)


@pytest.mark.parametrize("width", [2, 3])
def test_wav_big_endian(tmp_path: Path, width: int) -> None:
    values = [-(2 ** (8 * width - 1)), 77, -3]
    data = b"".join(v.to_bytes(width, "big", signed=True) for v in values)
    path = tmp_path / "a.wav"
    path.write_bytes(riff((b"fmt ", fmt(1, 1, width, order=">")), (b"data", data), order=">"))
    np.testing.assert_array_equal(load_signal(path).samples[0], np.array(values) / 2.0 ** (8 * width - 1))


def test_wav_mono_of_odd_size_ignores_the_padding_byte(tmp_path: Path) -> None:
    path = write_pcm(tmp_path / "A.WAV", [[0], [128], [255]], 1)
    np.testing.assert_array_equal(load_signal(path).samples, [[-1.0, 0.0, 127 / 128]])


def test_wav_debris_behind_the_samples_is_ignored(tmp_path: Path) -> None:
    path = write_pcm(tmp_path / "a.wav", [[1], [2]], 2)
    path.write_bytes(path.read_bytes() + b"LIST\xff\xff\0\0ab")
    assert load_signal(path).length == 2


@pytest.mark.parametrize("lost", [1, 2, 3, 7])
def test_wav_truncated(tmp_path: Path, lost: int) -> None:
    path = write_pcm(tmp_path / "a.wav", [[1, 2]] * 10, 2)
    path.write_bytes(path.read_bytes()[:-lost])
    refused(path, "a.wav", "truncated", "announces 40 bytes", f"holds {40 - lost}")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"not a wave file at all", "not a RIFF WAV"),
        (b"RF64\xff\xff\xff\xffWAVE", "RF64"),
        (riff((b"data", b"\0\0")), "'fmt ' chunk"),
        (riff((b"fmt ", fmt(1, 1, 2))), "'data' chunk"),
        (riff((b"fmt ", fmt(1, 1, 2)[:14]), (b"data", b"\0\0")), "14 bytes"),
        (riff((b"fmt ", fmt(6, 1, 1)), (b"data", b"\0\0")), "A-law"),
        (riff((b"fmt ", fmt(1, 1, 8)), (b"data", b"\0" * 8)), "64 bits"),
        (riff((b"fmt ", fmt(3, 1, 2)), (b"data", b"\0\0")), "16 bits"),
        (riff((b"fmt ", fmt(1, 0, 2)), (b"data", b"\0\0")), "0 channel(s)"),
        (riff((b"fmt ", fmt(1, 1, 2, bits=32)), (b"data", b"\0\0")), "32 bits"),
        (riff((b"fmt ", fmt(1, 1, 2)), (b"data", b"")), "is empty"),
        (riff((b"fmt ", fmt(1, 2, 2)), (b"data", b"\0" * 6)), "last frame has 2 of 4 bytes"),
        (riff((b"fmt ", fmt(3, 1, 4)), (b"data", struct.pack("<2f", 0, np.nan))), "nan at index 1 of channel 0"),
    ],
)
def test_wav_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    refused(path, "a.wav", said)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1\n2\n-3e-2\n", [[1, 2, -0.03]]),
        ("1,2\n3,4\n5,6", [[1, 3, 5], [2, 4, 6]]),
        ("left;right\n1;2\n\n3;4\n", [[1, 3], [2, 4]]),
        ("# made by hand\n1\t2\r\n# between\r\n3\t4\r\n", [[1, 3], [2, 4]]),
        ("  1   2\n 3 4  \n", [[1, 3], [2, 4]]),
        ("left, mV;right, mV\n1;2\n", [[1], [2]]),
        ('"time, s","u"\n"0.5", 1\n', [[0.5], [1]]),
        ("\ufeff1,2\n3,4\n", [[1, 3], [2, 4]]),
        ("7", [[7]]),
    ],
)
def test_text(tmp_path: Path, text: str, expected: list[list[float]]) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(text.encode())
    np.testing.assert_array_equal(load_signal(path).samples, expected)


def test_text_says_which_columns_became_channels(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("left right\n1 2\n")
    assert load_signal(path).description == "text, 2 column(s) (left, right), one channel each"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\n\n", "no line with numbers"),
        ("# only a comment\n", "no line with numbers"),
        ("left,right\n", "line 1 holds no number"),
        ("1,2\n3,x\n", "line 2, column 2: 'x'"),
        ("a,b\n\n1,2\n3,\n", "line 4, column 2: ''"),
        ("1;2\n1,5;2\n", "line 2, column 1: '1,5' is not a number. Write decimals with a point."),
        ("1,2\n3\n", "line 2 has 1 column(s), line 1 has 2"),
        ("1,2\n1+2j,3\n", "'1+2j'"),
        ("1\n1_000\n", "'1_000'"),
        ("1,2\n3,nan\n5,6\n", "nan at index 1 of channel 1"),
        ("1\n-inf\n", "-inf at index 1 of channel 0"),
        ("1\n1e999\n", "inf at index 1"),
        ("1,2\n" + "9" * 140_000 + ",1\n", "line 2 cannot be split"),
    ],
)
def test_text_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    refused(path, "a.csv", said)


def test_text_in_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("1,2\n".encode("utf-16"))
    refused(path, "not text in UTF-8 (byte 0)")


@pytest.mark.parametrize(
    ("array", "expected", "said"),
    [
        (np.arange(3, dtype=np.int16), [[0, 1, 2]], "int16"),
        (np.array([[1.0, 2, 3], [4, 5, 6]]), [[1, 2, 3], [4, 5, 6]], "2 x 3 taken as channels x length"),
        (np.array([[1.0, 4], [2, 5], [3, 6]]), [[1, 2, 3], [4, 5, 6]], "3 x 2 taken as length x channels"),
        (np.array([[1.0, 2], [3, 4]]), [[1, 2], [3, 4]], "2 x 2 taken as channels x length"),
        (np.array([0.1], dtype=np.float32), [[float(np.float32(0.1))]], "float32"),
        (np.array([1, 2], dtype=">f8"), [[1, 2]], "f8"),
    ],
)
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_numpy_files(
    tmp_path: Path, array: np.ndarray[Any, Any], expected: list[list[float]], said: str, suffix: str
) -> None:
    path = tmp_path / f"a.{suffix}"
    (np.save if suffix == "npy" else np.savez)(path, array)
    signal = load_signal(path)
    np.testing.assert_array_equal(signal.samples, expected)
    assert signal.samples.dtype == np.float64
    assert signal.samples.flags.c_contiguous
    assert not signal.samples.flags.writeable
    assert said in signal.description


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.array([1 + 2j]), "complex"),
        (np.array(["a"]), "not numeric"),
        (np.array([True]), "bool"),
        (np.array([{}], dtype=object), "pickle"),
        (np.float64(3), "shape ()"),
        (np.zeros((2, 3, 4)), "shape (2, 3, 4)"),
        (np.zeros(0), "is empty"),
        (np.zeros((0, 5)), "is empty"),
        (
            np.array([[0, 1, 2, np.inf], [0, 1, np.nan, 3]]),
            "2 sample(s) that are not finite; the first is nan at index 2 of channel 1",
        ),
    ],
)
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_numpy_files_refused(tmp_path: Path, array: np.ndarray[Any, Any], said: str, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    (np.save if suffix == "npy" else np.savez)(path, array)
    refused(path, f"a.{suffix}", said)


def test_long_double_beyond_the_range_of_float64_is_refused(tmp_path: Path) -> None:
    if np.finfo(np.longdouble).max == np.finfo(np.float64).max:
        pytest.skip("long double is float64 on this machine")
    np.save(tmp_path / "a.npy", np.array([1, np.finfo(np.longdouble).max]))
    refused(tmp_path / "a.npy", "inf at index 1")


def test_archive_with_several_arrays(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, left=np.array([1.0, 2]), right=np.array([3.0]))
    refused(path, "which array of a.npz? It holds left, right; name one: a.npz:left")
    refused(f"{path}:middle", "no array 'middle' in a.npz", "left, right")
    signal = load_signal(f"{path}:right")
    np.testing.assert_array_equal(signal.samples, [[3.0]])
    assert signal.name == "a.npz:right"


def test_archive_without_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz")
    refused(tmp_path / "a.npz", "holds nothing")


@pytest.mark.parametrize("content", [b"\x93NUMPY", b"anything"])
def test_archive_that_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(2)) if content.startswith(b"\x93") else file.write(content)
    refused(path, "not an NPZ file")


def test_a_header_that_announces_more_than_memory_holds(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (2**56,)})
    refused(path, "a.npy is truncated or damaged")


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    # A bare pickle that would create a file; numpy.load without its guard would run it.
    path.write_bytes(b"cpathlib\nPath.touch\n(cpathlib\nPath\n(V%s\ntRtR." % str(tmp_path / "touched").encode())
    refused(path, "no NumPy signature")
    assert not (tmp_path / "touched").exists()


def test_paths_refused(tmp_path: Path) -> None:
    refused(tmp_path / "missing.wav", "no file", "missing.wav")
    refused(tmp_path / "missing.npz", "no file")
    refused(str(tmp_path / "missing.npz") + ":u", "no file")
    refused(tmp_path, "is a directory")
    refused("nul\0byte.wav", "no file")
    (tmp_path / "empty.wav").touch()
    refused(tmp_path / "empty.wav", "empty (0 bytes)")
    (tmp_path / "a.mp3").write_bytes(b"ID3")
    refused(tmp_path / "a.mp3", "'.mp3'", ".wav, .csv, .tsv, .txt, .npy, .npz")
    refused(tmp_path / ("n" * 5000 + ".wav"), "cannot look up")


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_pcm(tmp_path / "a.wav", [[1]], 2)

    def refuse(self: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied")

    # A superuser, which test machines often are, may read everything; so the refusal is simulated.
    monkeypatch.setattr(Path, "open", refuse)
    refused(path, "cannot read", "Permission denied", "permissions")


@pytest.mark.parametrize("suffix", ["wav", "npy", "npz", "csv"])
def test_damaged_files_are_refused_or_read_and_never_crash(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix == "wav":
        write_pcm(path, [[1, 2], [3, 4]], 3)
    elif suffix == "csv":
        path.write_text("a;b\n1;2\n3;4\n")
    else:
        (np.save if suffix == "npy" else np.savez_compressed)(path, np.arange(6.0).reshape(2, 3))
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [good[:cut] for cut in range(len(good))]
    damaged += [good[:k] + bytes([good[k] ^ int(rng.integers(1, 256))]) + good[k + 1 :] for k in range(len(good))]
    refusals = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            assert np.isfinite(load_signal(path).samples).all()
        except SignalError:
            refusals += 1
    # Every truncation of the binary formats is noticed.
    assert refusals >= (1 if suffix == "csv" else len(good))


def test_as_batch_makes_one_row_per_signal_channel() -> None:
    samples = np.array([[1.0, 2, 3], [4, 5, 6]])
    u = as_batch(Signal(samples, None, "a", ""), 4)
    assert u.shape == (2, 4, 3)
    for channel in range(4):
        np.testing.assert_array_equal(u[:, channel], samples)
    assert u.flags.c_contiguous
    assert u.flags.writeable


def test_as_batch_needs_a_channel() -> None:
    with pytest.raises(ParameterError, match="n_channels is 0"):
        as_batch(default_signal(), 0)
