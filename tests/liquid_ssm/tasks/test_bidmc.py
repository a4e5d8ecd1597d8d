"""BIDMC: hand-written and generated files through the real loader, in both layouts."""

from __future__ import annotations

import pickle
import shutil

import numpy as np
import pytest
import torch

from liquid_ssm.data_folder import CHECK_SUMS, GENERATED, Generated, write_generated
from liquid_ssm.errors import DataError
from liquid_ssm.generate.bidmc import generate_bidmc
from liquid_ssm.tasks.bidmc import FEATURES, LENGTH, HeartRate, OxygenSaturation, RespiratoryRate
from liquid_ssm.tasks.splits import reshuffled

TASKS = {"HR": HeartRate, "RR": RespiratoryRate, "SpO2": OxygenSaturation}
TRAIN, TEST = 7, 3


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LIQUID_SSM_CACHE_DIR", str(tmp_path / "cache"))


def header(target):
    return (
        f"@problemName BIDMC32{target}\n@timeStamps false\n@missing false\n@univariate false\n@dimensions 2\n"
        f"@equalLength true\n@seriesLength {LENGTH}\n@targetlabel true\n@data\n"
    )


def line(k):
    """The series number k: its first dimension counts from k, the second one is k; the target is k + 1/2."""
    return f"{','.join(str(k + i) for i in range(LENGTH))}:{','.join([str(k)] * LENGTH)}:{k + 0.5}\n"


@pytest.fixture
def text(tmp_path):
    """Ten series in the archive's layout, as if they were the published ones of HR."""
    folder = tmp_path / "data"
    (folder / "BIDMC32HR").mkdir(parents=True)
    for part, rows in (("TRAIN", range(TRAIN)), ("TEST", range(TRAIN, TRAIN + TEST))):
        path = folder / "BIDMC32HR" / f"BIDMC32HR_{part}.ts"
        path.write_text(header("HR") + "".join(map(line, rows)), encoding="ascii")
    return folder


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(HeartRate, "published", (TRAIN, TEST))


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "new"
    generate_bidmc(folder, seed=2, windows=10)
    return folder


@pytest.fixture
def folder(generated, tmp_path):
    shutil.copytree(generated, tmp_path / "copy")
    (tmp_path / "copy" / CHECK_SUMS).unlink()
    return tmp_path / "copy"


def rows(samples):
    return [int(samples[i].u[0, 0]) for i in range(len(samples))]


@pytest.mark.usefixtures("small")
def test_train_and_test_are_joined_and_split_as_published(text):
    data = HeartRate(text, batch_size=4)
    assert dict(data.check().counts) == {"train": 7, "validation": 1, "test": 2}
    data.setup()
    split = reshuffled(TRAIN + TEST)
    for part in ("train", "validation", "test"):
        assert rows(getattr(data, part)) == getattr(split, part).tolist()
    for k, sample in zip(split.train, (data.train[i] for i in range(7)), strict=True):
        # Not normalised.
        assert torch.equal(sample.u[:, 0], torch.arange(LENGTH) + float(k))
        assert torch.equal(sample.u[:, 1], torch.full((LENGTH,), float(k)))
        assert sample.target.tolist() == [k + 0.5]
    batch = next(iter(data.train_dataloader()))
    assert batch.u.shape == (4, LENGTH, FEATURES)
    assert batch.target.shape == (4, 1)
    assert batch.u.dtype == batch.target.dtype == torch.float32
    assert batch.lengths is None
    assert (data.n_inputs, data.task.n_outputs, data.task.metric, data.task.part) == (2, 1, "rmse", "test")


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("place", ["", "bidmc", "bidmc/HR", "HR", "Monash_UEA_UCR_Regression_Archive/BIDMC32HR"])
def test_the_files_are_found_where_people_unpack_them(text, tmp_path, place):
    (tmp_path / "there" / place).parent.mkdir(parents=True, exist_ok=True)
    (text / "BIDMC32HR").rename(tmp_path / "there" / place)
    assert HeartRate(tmp_path / "there").check().files == 2


@pytest.mark.usefixtures("small")
def test_text_is_converted_once(text, monkeypatch):
    HeartRate(text).check()

    def never(*args, **options):
        raise AssertionError("converted again")

    monkeypatch.setattr("liquid_ssm.tasks.bidmc.read_ts", never)
    assert HeartRate(text).check().counts["train"] == 7
    path = text / "BIDMC32HR" / "BIDMC32HR_TEST.ts"
    path.write_text(path.read_text().replace("9.5\n", "9.25\n"))
    with pytest.raises(AssertionError, match="converted again"):
        HeartRate(text).check()


@pytest.mark.parametrize("target", TASKS)
def test_both_layouts_of_generated_windows_are_the_same(folder, target):
    first = TASKS[target](folder)
    found = first.check()
    assert found.files == 6
    assert found.generated.task == "bidmc"
    first.setup()
    shutil.copytree(folder, text := folder.parent / "text")
    for place in text.glob("*/*/reshuffle"):
        shutil.rmtree(place)
    # Below the folder with what the generator says.
    second = TASKS[target](text / "bidmc" / target)
    assert second.check().counts == found.counts == {"train": 7, "validation": 1, "test": 2}
    second.setup()
    for part, count in found.counts.items():
        ours, theirs = getattr(first, part), getattr(second, part)
        assert len(ours) == len(theirs) == count
        for i in range(count):
            assert torch.equal(ours[i].u, theirs[i].u)
            assert torch.equal(ours[i].target, theirs[i].target)


def test_generated_files_agree_with_their_sums(generated, tmp_path):
    # 6 files of text, and 6 arrays for each of 3 targets.
    assert HeartRate(generated).check().sums == 24
    shutil.copytree(generated, copy := tmp_path / "bad")
    path = copy / "bidmc" / "RR" / "reshuffle" / "trainx.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"trainx\.npy is not the file that SHA256SUMS lists"):
        HeartRate(copy).check()


def test_workers_and_copies(folder):
    data = HeartRate(folder, batch_size=3, workers=2, limit={"train": 5})
    data.setup()
    pickle.loads(pickle.dumps(data.train))
    plain = HeartRate(folder, batch_size=3, limit={"train": 5})
    plain.setup()
    pairs = list(zip(data.train_dataloader(), plain.train_dataloader(), strict=True))
    assert [len(batch.u) for batch, _ in pairs] == [3, 2]
    for one, other in pairs:
        assert torch.equal(one.u, other.u)


@pytest.mark.parametrize("part", ["TRAIN", "TEST"])
@pytest.mark.usefixtures("small")
def test_a_file_that_is_missing_is_named(text, part):
    (text / "BIDMC32HR" / f"BIDMC32HR_{part}.ts").unlink()
    with pytest.raises(DataError, match=rf"BIDMC32HR_{part}\.ts is missing"):
        HeartRate(text).check()


@pytest.mark.usefixtures("small")
def test_another_target_is_not_taken(text):
    with pytest.raises(DataError, match=r"found BIDMC32HR\. Expected there: BIDMC32RR_TRAIN\.ts"):
        RespiratoryRate(text).check()
    (text.parent / "empty").mkdir()
    with pytest.raises(DataError, match="found nothing"):
        HeartRate(text.parent / "empty").check()


@pytest.mark.parametrize(("train", "test"), [(6, 3), (7, 2), (8, 2), (8, 3), (2, 1)])
@pytest.mark.usefixtures("small")
def test_other_counts_are_refused(text, train, test):
    rows = iter(range(20))
    for part, count in (("TRAIN", train), ("TEST", test)):
        path = text / "BIDMC32HR" / f"BIDMC32HR_{part}.ts"
        path.write_text(header("HR") + "".join(line(next(rows)) for _ in range(count)), encoding="ascii")
    with pytest.raises(DataError, match=rf"holds {train} and {test} series .* expected 7 and 3 \(the published sizes"):
        HeartRate(text).check()


def test_the_published_counts_are_the_default(text):
    with pytest.raises(DataError, match=r"7 and 3 series .* expected 5,550 and 2,399"):
        HeartRate(text).check()
    assert RespiratoryRate.published == (5471, 2399)


def test_damage_in_the_middle_is_named_before_training(text, small):
    path = text / "BIDMC32HR" / "BIDMC32HR_TRAIN.ts"
    path.write_text(path.read_text().replace(",3999:", ",?:"))
    for step in ("check", "setup"):
        with pytest.raises(DataError, match=r"TRAIN\.ts, line 10, has a missing value \(\?\) as value 4,000"):
            getattr(HeartRate(text), step)()


def test_generated_counts_are_compared(folder):
    write_generated(folder, Generated("bidmc", 2, "1", {"train": 8, "validation": 1, "test": 2}), [])
    with pytest.raises(DataError, match=r"holds 7 train, .* expected 8 train, .*GENERATED\.json says so"):
        HeartRate(folder).check()
    for place in folder.glob("*/*/reshuffle"):
        shutil.rmtree(place)
    with pytest.raises(DataError, match=r"holds 7 and 3 series .* expected 11 together"):
        HeartRate(folder).check()


ARRAYS = {
    "shape": (lambda x: x[:, :-1], r"float64 of shape \(7, 3999, 2\); expected .* \(n, 4000, 2\)"),
    "turned": (lambda x: x.swapaxes(1, 2), r"shape \(7, 2, 4000\)"),
    "flat": (lambda x: x.ravel(), "of shape"),
    "whole numbers": (lambda x: x.astype(int), "int64 of shape"),
    "fewer": (lambda x: x[:-1], "6 windows, but trainy.npy 7 targets"),
    "nan": (lambda x: np.where(np.arange(LENGTH)[:, None] == 17, np.nan, x), r"nan at index \(0, 17, 0\)"),
    "huge": (lambda x: np.where(np.arange(7)[:, None, None] == 3, 1e39, x), r"1e\+39 at index \(3, 0, 0\)"),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_a_damaged_array_is_named(folder, case, monkeypatch):
    # Of the 7 windows.
    monkeypatch.setattr("liquid_ssm.tasks.bidmc._BLOCK", 2)
    act, words = ARRAYS[case]
    path = folder / "bidmc" / "HR" / "reshuffle" / "trainx.npy"
    np.save(path, act(np.load(path)))
    with pytest.raises(DataError, match=words) as caught:
        HeartRate(folder).check()
    assert str(path) in str(caught.value)


def test_an_array_that_is_missing_or_cut_is_named(folder):
    path = folder / "bidmc" / "HR" / "reshuffle" / "validx.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"validx\.npy is damaged"):
        HeartRate(folder).check()
    path.unlink()
    with pytest.raises(DataError, match=r"validx\.npy missing"):
        HeartRate(folder).check()
    # The other targets are whole.
    assert RespiratoryRate(folder).check().counts["train"] == 7


def test_arrays_of_another_target_are_not_taken(folder, monkeypatch):
    # The sizes of what is there, which is then not taken for generated.
    for name in (GENERATED, "bidmc/RR/BIDMC32RR_TRAIN.ts", "bidmc/RR/BIDMC32RR_TEST.ts"):
        (folder / name).unlink()
    for task in (HeartRate, RespiratoryRate):
        monkeypatch.setattr(task, "published", (7, 3))
    for place in (folder / "bidmc" / "RR", folder / "bidmc" / "RR" / "reshuffle"):
        with pytest.raises(DataError, match="holds no data of BIDMC HR"):
            HeartRate(place).check()
    monkeypatch.chdir(folder / "bidmc" / "RR")
    for place in (".", folder / "bidmc" / "RR", folder / "bidmc", folder):
        assert RespiratoryRate(place).check().counts["train"] == 7


def test_targets_may_be_a_column(folder):
    path = folder / "bidmc" / "HR" / "reshuffle" / "trainy.npy"
    y = np.load(path)
    np.save(path, y[:, None])
    data = HeartRate(folder)
    data.check()
    data.setup()
    assert [data.train[i].target.tolist() for i in range(7)] == np.float32(y)[:, None].tolist()


def test_published_sizes_of_the_arrays_are_the_default(folder):
    (folder / GENERATED).unlink()
    with pytest.raises(DataError, match="expected 5,564 train, 1,192 validation, 1,193 test"):
        HeartRate(folder).check()
