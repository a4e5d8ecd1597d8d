"""Pathfinder and Path-X: generated files through the real loader, and every damage named before training."""

from __future__ import annotations

import pickle
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from liquid_ssm.data_folder import CHECK_SUMS, GENERATED, Generated, write_generated
from liquid_ssm.errors import DataError
from liquid_ssm.generate import pathfinder as generator
from liquid_ssm.generate.pathfinder import generate_pathfinder, generate_pathx
from liquid_ssm.tasks import pathfinder
from liquid_ssm.tasks.images import split_rows
from liquid_ssm.tasks.pathfinder import KIND, Pathfinder, PathX

IMAGES, PER_FOLDER = 36, 3
COUNTS = {"train": 30, "validation": 3, "test": 3}
BELOW = f"pathfinder/pathfinder32/{KIND}"


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    """Twelve files of metadata, so that 10 comes after 9 only by number."""
    folder = tmp_path_factory.mktemp("data") / "new"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generator, "_PER_FOLDER", PER_FOLDER)
        generate_pathfinder(folder, seed=3, images=IMAGES)
    return folder


@pytest.fixture
def folder(generated, tmp_path):
    shutil.copytree(generated, tmp_path / "data")
    (tmp_path / "data" / CHECK_SUMS).unlink()
    return tmp_path / "data"


@pytest.fixture
def place(folder):
    return folder / BELOW


def listed(place):
    """Path and label of each image, in the order of the numbers."""
    found = []
    for batch in range(IMAGES // PER_FOLDER):
        for line in (place / "metadata" / f"{batch}.npy").read_text().splitlines():
            columns = line.split(" ")
            found.append((place / columns[0] / columns[1], int(columns[3])))
    return found


@pytest.mark.parametrize("task", [Pathfinder, PathX])
def test_samples_are_the_files_pixels_in_the_published_split(generated, tmp_path, task):
    folder, side = generated, 32
    if task is PathX:
        folder, side = tmp_path / "new", 128
        generate_pathx(folder, seed=3, images=IMAGES)
    data = task(folder)
    found = data.check()
    assert dict(found.counts) == COUNTS
    assert found.sums == found.files == IMAGES + (12 if side == 32 else 1)
    assert found.generated.task == task.task.name
    data.setup()
    if side == 32:
        files = listed(folder / BELOW)
    else:
        place = folder / "pathfinder" / "pathfinder128" / KIND
        labels = [int(line.split()[3]) for line in (place / "metadata" / "0.npy").read_text().splitlines()]
        files = [(place / "imgs" / "0" / f"sample_{k}.png", label) for k, label in enumerate(labels)]
    order = torch.randperm(IMAGES, generator=torch.Generator().manual_seed(42)).tolist()
    for part, rows in (("train", order[:30]), ("validation", order[30:33]), ("test", order[33:])):
        samples = getattr(data, part)
        assert len(samples) == len(rows)
        for i, row in enumerate(rows):
            with Image.open(files[row][0]) as image:
                pixels = np.asarray(image, np.float32).reshape(-1, 1)
            wanted = (pixels / np.float32(255) - np.float32(0.5)) / np.float32(0.5)
            assert samples[i].u.shape == (side * side, 1)
            assert samples[i].u.dtype == torch.float32
            assert np.array_equal(samples[i].u.numpy(), wanted)
            assert samples[i].target == files[row][1]
    assert data.n_inputs == data.task.n_inputs == 1
    assert data.task.length == side * side


def test_the_split_of_the_published_data():
    assert pathfinder._sizes(200_000) == {"train": 160_000, "validation": 20_000, "test": 20_000}
    # The first images of each part, as torch's generator gives them on every machine.
    rows = split_rows(pathfinder._sizes(200_000))
    assert [part[:3].tolist() for part in rows.values()] == [
        [37542, 143173, 127710], [122036, 135593, 30913], [143170, 45464, 153084],
    ]  # fmt: skip


def test_generator_and_loader_agree_on_the_sizes_of_parts(folder):
    for count in range(10, 2000):
        assert pathfinder._sizes(count)["test"] == count // 10


@pytest.mark.parametrize("below", ["", "pathfinder", "pathfinder/pathfinder32"])
def test_a_generated_folder_is_known_from_below(generated, below):
    assert Pathfinder(generated / below).check().generated.seed == 3


@pytest.mark.parametrize("below", ["", "pathfinder", "lra_release", "lra_release/lra_release"])
def test_files_are_found_where_people_unpack_them(folder, tmp_path, monkeypatch, below):
    monkeypatch.setattr(pathfinder, "PUBLISHED", IMAGES)
    (tmp_path / "there" / below).mkdir(parents=True, exist_ok=True)
    (folder / "pathfinder" / "pathfinder32").rename(tmp_path / "there" / below / "pathfinder32")
    # Other kinds and sizes of the release, and other systems' marks of files.
    (tmp_path / "there" / below / "pathfinder32" / "curv_baseline").mkdir()
    (tmp_path / "there" / below / "pathfinder64").mkdir()
    (tmp_path / "there" / below / "pathfinder32" / KIND / "metadata" / "._0.npy").write_bytes(b"\0\5")
    for start in (tmp_path / "there", tmp_path / "there" / below, tmp_path / "there" / below / "pathfinder32"):
        found = Pathfinder(start).check()
        assert (dict(found.counts), found.sums, found.generated) == (COUNTS, 0, None)


def test_missing_folders_are_named(folder, place):
    with pytest.raises(
        DataError, match=r"holds no data of Path-X: found GENERATED\.json, pathfinder\. Expected there: pa"
    ):
        PathX(folder).check()
    shutil.move(place / "metadata", place / "elsewhere")
    with pytest.raises(DataError, match=r"metadata is missing; the download is incomplete"):
        Pathfinder(folder).check()
    shutil.move(place / "elsewhere", place / "metadata")
    shutil.rmtree(place / "imgs")
    with pytest.raises(DataError, match=r"imgs is missing; the download is incomplete"):
        Pathfinder(folder).setup()
    place.rename(place.parent / "curv_baseline")
    with pytest.raises(
        DataError, match=r"pathfinder32 holds no data of Pathfinder: found curv_baseline\..* with imgs/K"
    ):
        Pathfinder(folder).check()


def test_the_published_sizes_are_the_default(folder, place):
    (folder / GENERATED).unlink()
    (place / "metadata" / "4.npy").unlink()
    with pytest.raises(
        DataError,
        match=r"expected 160,000 train, 20,000 validation, 20,000 test .*Not in .*metadata: 4\.npy\. The downl",
    ):
        Pathfinder(folder).check()


def test_images_that_are_not_listed_are_missed(folder, place):
    (place / "metadata" / "11.npy").unlink()
    with pytest.raises(
        DataError, match=r"27 train, 3 validation, 3 test images; expected 30 train, .* \(GENERATED\.json"
    ):
        Pathfinder(folder).setup()


def png(size, mode="L"):
    def act(path):
        Image.new(mode, size).save(path, format="PNG")

    return act


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda path: path.unlink(), "is missing, which the metadata list; the download is incomplete"),
        (lambda path: path.write_bytes(b""), "is damaged or no PNG image: it is empty. Get it again"),
        (lambda path: path.write_bytes(path.read_bytes()[:-20]), "is damaged or no PNG image"),
        (lambda path: path.write_bytes(b"<html>404</html>"), "is damaged or no PNG image"),
        (lambda path: Image.new("L", (32, 32)).save(path, format="BMP"), "is damaged or no PNG image"),
        (png((128, 128)), "has 128 × 128 pixels; expected 32 × 32"),
        (png((32, 31)), "has 32 × 31 pixels; expected 32 × 32"),
        (lambda path: (path.unlink(), path.mkdir()), "cannot be read: Is a directory"),
    ],
)
def test_an_image_in_the_middle_is_named(folder, place, act, said):
    path, _ = listed(place)[17]
    act(path)
    data = Pathfinder(folder)
    with pytest.raises(DataError, match=rf"{re.escape(str(path))} {said}"):
        data.check()
    # A run that was not checked does not go on without it either.
    data.setup()
    with pytest.raises(DataError, match=re.escape(str(path))):
        [part[i] for part in (data.train, data.validation, data.test) for i in range(len(part))]


def test_every_changed_byte_is_found_or_changes_nothing(folder, place):
    path, _ = listed(place)[0]
    content = path.read_bytes()
    data = Pathfinder(folder)
    data.setup()
    (where,) = [
        (part, i) for part in (data.train, data.validation, data.test) for i in range(len(part)) if part.rows[i] == 0
    ]
    good = where[0].pixels(where[1])
    n_found = 0
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        try:
            assert torch.equal(where[0].pixels(where[1]), good)
        except DataError:
            n_found += 1
    # Only the end mark, 12 bytes without a word of data, need not be read.
    assert n_found >= len(content) - 12
    path.write_bytes(content)
    with Image.open(path) as image:
        image.convert("RGBA").save(path)
    assert torch.equal(where[0].pixels(where[1]), good)


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda line: line.split()[0], "line 2: imgs/5 has 1 columns; expected folder, file, number, label"),
        (lambda line: "imgs/5 sample_1.png 1", r"line 2: imgs/5 sample_1\.png 1 has 3 columns"),
        (lambda line: "", "line 2:  has 0 columns"),
        (lambda line: line.replace("sample_1.png 1 ", "sample_1.png 1 7"), "line 2: label '7.*'; expected 0 or 1"),
        (lambda line: line.replace("imgs/5", "../5"), "line 2: '../5/sample_1.png' is no file below"),
        (lambda line: line.replace("imgs/5", "/imgs/5"), "line 2: '/imgs/5/sample_1.png' is no file below"),
        (lambda line: line.replace("sample_1", "sample_0"), r"line 2: imgs/5/sample_0\.png is listed a second time"),
        (lambda line: "\x93" + line, "holds bytes that are no ASCII text"),
    ],
)
def test_a_damaged_line_is_named(folder, place, act, said):
    path = place / "metadata" / "5.npy"
    lines = path.read_text().splitlines()
    lines[1] = act(lines[1])
    path.write_text("\n".join(lines) + "\n")
    for run in (Pathfinder(folder).check, Pathfinder(folder).setup):
        with pytest.raises(DataError, match=rf"5\.npy(,| is damaged:|) .*{said}|5\.npy, {said}"):
            run()


def test_other_files_of_metadata_are_named(folder, place):
    np.save(place / "metadata" / "3.npy", np.array([["imgs/3", "sample_0.png", "0", "1"]]))
    with pytest.raises(
        DataError, match=r"3\.npy is an array of NumPy; expected text, as in the release of Long Range Ar"
    ):
        Pathfinder(folder).check()
    (place / "metadata" / "3.npy").rename(place / "metadata" / "3a.npy")
    with pytest.raises(DataError, match=r"3a\.npy is no file of metadata; expected names such as 0\.npy"):
        Pathfinder(folder).check()
    shutil.rmtree(place / "metadata")
    (place / "metadata").mkdir()
    with pytest.raises(DataError, match=r"metadata holds no metadata; expected 0\.npy"):
        Pathfinder(folder).check()


def test_a_huge_number_of_metadata_is_no_list_of_gaps(folder, place):
    (place / "metadata" / "11.npy").rename(place / "metadata" / f"{10**18}.npy")
    assert dict(Pathfinder(folder).check().counts) == COUNTS


def test_sums_of_generated_files_are_compared(generated, tmp_path):
    shutil.copytree(generated, tmp_path / "copy")
    path, _ = listed(tmp_path / "copy" / BELOW)[20]
    Image.new("L", (32, 32)).save(path)
    with pytest.raises(DataError, match=rf"{re.escape(str(path))} is not the file that SHA256SUMS lists"):
        Pathfinder(tmp_path / "copy").check()


def test_progress_ends_with_all_images(folder, monkeypatch):
    monkeypatch.setattr(pathfinder, "_BLOCK", 5)
    told = []
    Pathfinder(folder).check(lambda *what: told.append(what))
    assert [done for done, _, _ in told] == [5, 10, 15, 20, 25, 30, 35, 36]
    assert told[-1] == (36, 36, "checking images")


def test_deviations_workers_and_limits(folder):
    data = Pathfinder(folder, batch_size=2, workers=2, as_published=["drop-last"], limit={"train": 5})
    data.setup()
    plain = Pathfinder(folder, batch_size=2, limit={"train": 5})
    plain.setup()
    pairs = list(zip(data.train_dataloader(), plain.train_dataloader(), strict=True))
    assert [len(batch.u) for batch, _ in pairs] == [2, 2, 1]
    for one, other in pairs:
        assert torch.equal(one.u, other.u)
        assert torch.equal(one.target, other.target)
    # 3 test images: the published pipeline drops the last one of them.
    assert [len(batch.u) for batch in data.test_dataloader()] == [2]
    assert [len(batch.u) for batch in plain.test_dataloader()] == [2, 1]


def test_data_sets_are_small_where_they_are_sent(folder, place):
    data = Pathfinder(folder)
    data.setup()
    content = pickle.dumps(data.train)
    # Less than the pixels: names and labels alone.
    assert len(content) < len(data.train) * 1024
    assert torch.equal(pickle.loads(content)[0].u, data.train[0].u)


def test_too_few_images_are_refused(folder, place):
    for batch in range(1, 12):
        (place / "metadata" / f"{batch}.npy").unlink()
    write_generated(folder, Generated("pathfinder", 0, "1", {"train": 3, "validation": 0, "test": 0}), [])
    with pytest.raises(DataError, match="too few images: none for validation and test"):
        Pathfinder(folder).check()


def test_what_a_model_file_keeps(folder):
    assert Pathfinder(folder).description() == {
        "task": "pathfinder", "n_inputs": 1, "n_outputs": 2, "height": 32, "width": 32, "mean": [0.5], "std": [0.5],
    }  # fmt: skip
