"""CIFAR-10 in grey and in colour, from small files in the layout of the Python version."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from liquid_ssm.data_folder import CHECK_SUMS, GENERATED, Generated, write_generated
from liquid_ssm.errors import DataError
from liquid_ssm.tasks import cifar
from liquid_ssm.tasks.cifar import FILES, GrayCIFAR, SequentialCIFAR
from liquid_ssm.tasks.cifar_batch import CLASSES
from liquid_ssm.tasks.images import split_rows

EACH, N_TEST = 10, 7
COUNTS = {"train": 45, "validation": 5, "test": 7}


def write(path, entries):
    path.write_bytes(pickle.dumps(entries, protocol=2))


@pytest.fixture
def images():
    """(57, 32, 32, 3): of the five batches, and then of the test; white, black and the pure colours first."""
    found = np.random.default_rng(1).integers(0, 256, (5 * EACH + N_TEST, 32, 32, 3), dtype=np.uint8)
    found[0, 0, :8] = 255 * np.array(list(np.ndindex(2, 2, 2)))
    return found


@pytest.fixture
def labels():
    return np.random.default_rng(2).integers(0, 10, 5 * EACH + N_TEST).tolist()


@pytest.fixture
def folder(tmp_path, images, labels):
    place = tmp_path / "data" / "cifar-10-batches-py"
    place.mkdir(parents=True)
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    for k, name in enumerate([*cifar.TRAIN, *cifar.TEST]):
        rows = slice(EACH * k, EACH * (k + 1) if k < 5 else None)
        entries = {b"batch_label": b"a batch", b"labels": labels[rows], b"data": planes[rows], b"filenames": []}
        write(place / name, entries)
    names = [name.encode() for name in CLASSES]
    write(place / "batches.meta", {b"num_cases_per_batch": EACH, b"label_names": names, b"num_vis": 3072})
    write_generated(tmp_path / "data", Generated("cifar", 0, "1", COUNTS), [place / name for name in FILES])
    return tmp_path / "data"


@pytest.fixture
def real(folder, monkeypatch):
    """The same files as if they were the published ones."""
    for names in (cifar.TRAIN, cifar.TEST, cifar.NAMES):
        for name in names:
            md5 = hashlib.md5((folder / "cifar-10-batches-py" / name).read_bytes()).hexdigest()
            monkeypatch.setitem(names, name, md5)
    monkeypatch.setattr(cifar, "_PUBLISHED", COUNTS)
    (folder / GENERATED).unlink()
    (folder / CHECK_SUMS).unlink()
    return folder


def standardised(image, mean, std):
    """As torchvision's ToTensor and Normalize, in single precision."""
    values = np.asarray(image, np.float32).reshape(1024, -1) / np.float32(255)
    return (values - np.array(mean, np.float32)) / np.array(std, np.float32)


def rows(n_train=50):
    order = torch.randperm(n_train, generator=torch.Generator().manual_seed(42)).tolist()
    n_kept = int(n_train * 0.9)
    return {"train": order[:n_kept], "validation": order[n_kept:], "test": range(n_train, n_train + N_TEST)}


@pytest.mark.parametrize("task", [GrayCIFAR, SequentialCIFAR])
def test_samples_are_those_of_torchvisions_transforms(folder, images, labels, task):
    data = task(folder)
    assert dict(data.check().counts) == COUNTS
    data.setup()
    for part, wanted in rows().items():
        samples = getattr(data, part)
        assert len(samples) == len(wanted)
        for sample, row in zip((samples[i] for i in range(len(samples))), wanted, strict=True):
            if task is GrayCIFAR:
                grey = Image.fromarray(images[row]).convert("L")
                u = standardised(grey, [122.6 / 255], [61 / 255])
            else:
                u = standardised(images[row], [0.4914, 0.4822, 0.4465], [0.247, 0.243, 0.261])
            assert sample.u.dtype == torch.float32
            assert np.array_equal(sample.u.numpy(), u)
            assert sample.target == labels[row]
    assert data.n_inputs == data.task.n_inputs == sample.u.shape[1]
    batch = next(iter(data.test_dataloader()))
    assert batch.u.shape == (N_TEST, 1024, data.n_inputs)
    assert batch.lengths is None


def test_the_grey_of_every_kind_of_colour():
    # Every red and green at 16 blues, and the other way round.
    grid = np.stack(np.meshgrid(np.arange(256), np.arange(256), np.arange(0, 256, 17)), axis=-1).astype(np.uint8)
    for colours in (grid, grid[..., ::-1]):
        colours = np.ascontiguousarray(colours.reshape(256, -1, 3))
        wanted = np.array(Image.fromarray(colours).convert("L"))
        assert np.array_equal(GrayCIFAR._channels(colours)[..., 0], wanted)


def test_the_split_of_the_published_data():
    # The first images of train and of validation, as torch's generator gives them on every machine.
    rows = split_rows({"train": 45_000, "validation": 5_000})
    assert rows["train"][:3].tolist() == [37542, 44491, 216]
    assert rows["validation"][:3].tolist() == [17408, 40845, 3378]


@pytest.mark.parametrize("place", ["", "cifar-10-batches-py", "cifar", "cifar/cifar-10-batches-py"])
def test_files_are_found_where_people_unpack_them(real, tmp_path, place):
    (tmp_path / "there" / place).parent.mkdir(parents=True, exist_ok=True)
    (real / "cifar-10-batches-py").rename(tmp_path / "there" / place)
    found = GrayCIFAR(tmp_path / "there").check()
    assert (found.files, found.sums, found.generated) == (7, 7, None)


def test_a_generated_folder_is_known_from_below(folder):
    told = []
    found = GrayCIFAR(folder / "cifar-10-batches-py").check(lambda *what: told.append(what))
    assert found.generated.task == "cifar"
    assert found.sums == 7
    assert told[-1][:2] == (7, 7)
    (folder / GENERATED).write_text((folder / GENERATED).read_text().replace('"train": 45', '"train": 46'))
    with pytest.raises(DataError, match=r"45 train, 5 validation, 7 test images; expected 46 train.*GENERATED\.json"):
        GrayCIFAR(folder).setup()


def test_a_file_that_is_not_the_published_one_is_refused(real, folder):
    path = real / "cifar-10-batches-py" / "data_batch_3"
    content = bytearray(path.read_bytes())
    # Within the pixels: only the sum tells.
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    for run in (GrayCIFAR(real).check, SequentialCIFAR(real).setup):
        with pytest.raises(DataError, match=r"data_batch_3 is damaged or no file .* its MD5 is"):
            run()


def test_sums_of_generated_files_are_compared(folder):
    path = folder / "cifar-10-batches-py" / "test_batch"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="test_batch is not the file that SHA256SUMS lists"):
        GrayCIFAR(folder).check()


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder, name):
    (folder / "cifar-10-batches-py" / name).unlink()
    with pytest.raises(DataError, match=rf"cifar-10-batches-py: {name} missing; the download is incomplete\. Expected"):
        GrayCIFAR(folder).check()


def test_other_folders_are_told_what_is_there(tmp_path):
    with pytest.raises(
        DataError, match=r"holds no Python version of CIFAR-10: found nothing\. Expected there: cifar-10-ba"
    ):
        GrayCIFAR(tmp_path).check()
    (tmp_path / "cifar-10-batches-bin").mkdir()
    with pytest.raises(DataError, match="found cifar-10-batches-bin"):
        GrayCIFAR(tmp_path).check()
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"")
    with pytest.raises(DataError, match=r"cifar-10-python\.tar\.gz is not unpacked\. Run: tar -xzf"):
        GrayCIFAR(tmp_path).check()
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(DataError, match=r"cifar-10-python\.tar\.gz is not unpacked"):
        GrayCIFAR(tmp_path / "cifar-10-batches-py").check()


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("name", FILES)
def test_a_malicious_file_is_refused_and_not_run(folder, tmp_path, name):
    write(folder / "cifar-10-batches-py" / name, {b"data": Malicious(str(tmp_path / "run")), b"label_names": []})
    (folder / CHECK_SUMS).unlink()
    for run in (GrayCIFAR(folder).check, GrayCIFAR(folder).setup):
        with pytest.raises(DataError, match=rf"{name} .* asks for \w+\.mkdir, .* nothing of it was run"):
            run()
    (folder / GENERATED).unlink()
    with pytest.raises(DataError, match=r"is damaged or no file .* MD5"):
        GrayCIFAR(folder).check()
    assert not (tmp_path / "run").exists()


def test_the_published_sizes_are_the_default(real, monkeypatch):
    monkeypatch.undo()
    assert cifar._PUBLISHED == {"train": 45_000, "validation": 5_000, "test": 10_000}
    with pytest.raises(DataError, match=r"data_batch_1 .* that of the published file c99cafc152244af753f735de768cd75f"):
        GrayCIFAR(real).check()


def test_deviations_workers_and_limits(folder):
    data = GrayCIFAR(folder, batch_size=3, workers=2, as_published=["all"], limit={"train": 8})
    data.setup()
    assert data.as_published == {"drop-last", "batch-means"}
    plain = GrayCIFAR(folder, batch_size=3, limit={"train": 8})
    plain.setup()
    pairs = list(zip(data.train_dataloader(), plain.train_dataloader(), strict=True))
    assert [len(batch.u) for batch, _ in pairs] == [3, 3, 2]
    for one, other in pairs:
        assert torch.equal(one.u, other.u)
        assert torch.equal(one.target, other.target)
    # 7 test images: the published pipeline drops the last one of them.
    assert [len(batch.u) for batch in data.test_dataloader()] == [3, 3]
    assert [len(batch.u) for batch in plain.test_dataloader()] == [3, 3, 1]
    again = pickle.loads(pickle.dumps(data.validation))
    assert torch.equal(again[4].u, data.validation[4].u)


def test_links_out_of_the_folder_are_fine(folder, tmp_path):
    shutil.move(folder / "cifar-10-batches-py", tmp_path / "elsewhere")
    (folder / "cifar-10-batches-py").symlink_to(tmp_path / "elsewhere")
    assert GrayCIFAR(folder).check().files == 7


def test_what_a_model_file_keeps(folder):
    assert GrayCIFAR(folder).description() == {
        "task": "cifar", "n_inputs": 1, "n_outputs": 10, "height": 32, "width": 32, "mean": [122.6 / 255],
        "std": [61 / 255],
    }  # fmt: skip
