"""Pathfinder's generator: labels are those of the geometry, measured anew, and nothing simpler tells of them."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression

from liquid_ssm.data_folder import check_sums, read_generated
from liquid_ssm.errors import ParameterError
from liquid_ssm.generate import pathfinder
from liquid_ssm.generate.draw import Draw
from liquid_ssm.generate.pathfinder import (
    DASHES,
    DISTRACTOR_DASHES,
    KIND,
    LARGE,
    SMALL,
    Scene,
    Style,
    _Plane,
    draw_scene,
    generate_pathfinder,
    generate_pathx,
    paint,
)

# Distances are sums of 14 steps of fewer than 16 roundings each, of numbers below 128.
ROUNDING = 14 * 16 * 128 * 2**-53
CASES = [(SMALL, 5, index) for index in range(25)] + [(LARGE, 8, index) for index in range(8)]


def to_segment(point: complex, start: complex, end: complex) -> float:
    along = ((point - start) / (end - start)).real
    return abs(point - start - min(max(along, 0.0), 1.0) * (end - start))


def crosses(a: complex, b: complex, c: complex, d: complex) -> bool:
    def side(p: complex, q: complex, r: complex) -> float:
        return ((q - p).conjugate() * (r - p)).imag

    return side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0


def apart(one: tuple[complex, complex], other: tuple[complex, complex]) -> float:
    if crosses(*one, *other):
        return 0.0
    return min([to_segment(p, *other) for p in one] + [to_segment(p, *one) for p in other])


def components(scene: Scene, style: Style) -> list[set[int]]:
    """Dashes, numbered through, joined where they are a gap apart."""
    dashes = [(dash.start, dash.end) for contour in scene.contours for dash in contour]
    found = [{i} for i in range(len(dashes))]
    for i, one in enumerate(dashes):
        for j in range(i):
            if apart(one, dashes[j]) <= style.gap + ROUNDING:
                joined = next(s for s in found if i in s) | next(s for s in found if j in s)
                found = [s for s in found if not s & joined] + [joined]
    return found


@pytest.mark.parametrize(("style", "distractors", "index"), CASES)
def test_labels_are_those_of_the_geometry(style, distractors, index):
    scene = draw_scene(style, 3, index, distractors)
    dashes = [(dash.start, dash.end) for contour in scene.contours for dash in contour]
    contours = components(scene, style)
    # Which dashes belong together does not depend on who drew them.
    assert sorted(map(len, contours)) == [DISTRACTOR_DASHES] * distractors + [DASHES] * 2

    def contour_of(disc: complex) -> int:
        (at,) = [i for i, ends in enumerate(dashes) for end in ends if end == disc]
        neighbours = sum(apart(dashes[at], dashes[j]) <= style.gap + ROUNDING for j in range(len(dashes)) if j != at)
        assert neighbours == 1
        (number,) = [k for k, contour in enumerate(contours) if at in contour]
        assert len(contours[number]) == DASHES
        return number

    a, b = map(contour_of, scene.connected)
    c, d = map(contour_of, scene.separate)
    assert a == b
    assert scene.connected[0] != scene.connected[1]
    assert c != d
    assert abs(abs(scene.connected[0] - scene.connected[1]) - abs(scene.separate[0] - scene.separate[1])) <= (
        style.side / 32 + ROUNDING
    )


@pytest.mark.parametrize(("style", "distractors", "index"), CASES)
def test_nothing_comes_near_enough_to_be_mistaken(style, distractors, index):
    scene = draw_scene(style, 3, index, distractors)
    numbered = [(k, i, dash) for k, contour in enumerate(scene.contours) for i, dash in enumerate(contour)]
    for n, (k, i, dash) in enumerate(numbered):
        assert abs(abs(dash.end - dash.start) - style.dash) < ROUNDING
        for point in (dash.start, dash.end):
            assert style.thickness <= min(point.real, point.imag)
            assert max(point.real, point.imag) <= style.side - style.thickness
        for m, j, other in numbered[:n]:
            distance = apart((dash.start, dash.end), (other.start, other.end))
            if m == k and abs(i - j) == 1:
                assert abs(distance - style.gap) < ROUNDING
                turn = dash.direction * other.direction.conjugate()
                assert abs(math.atan2(turn.imag, turn.real)) <= style.turn + ROUNDING
            else:
                assert distance >= style.clearance - ROUNDING
    ends = [point for contour in scene.contours[:2] for point in (contour[0].start, contour[-1].end)]
    for n, disc in enumerate(ends):
        # Wholly inside the image.
        assert min(disc.real, disc.imag) >= style.radius
        assert max(disc.real, disc.imag) <= style.side - style.radius
        assert all(abs(disc - other) >= 2 * style.radius + style.gap - ROUNDING for other in ends[:n])
        for _, _, dash in numbered:
            if disc not in (dash.start, dash.end):
                assert to_segment(disc, dash.start, dash.end) >= style.radius + style.gap - ROUNDING


def test_a_contour_that_curls_keeps_clear_of_its_own_discs():
    style = replace(SMALL, side=20, turn=1.1)
    draw = Draw(0)
    nearest = []
    while len(nearest) < 200:
        plane = _Plane(style, draw)
        if plane.add(DASHES, discs=True):
            (contour,) = plane.contours
            start, end = contour[0].start, contour[-1].end
            assert abs(end - start) >= 2 * style.radius + style.gap - ROUNDING
            nearest.append(min(to_segment(start, dash.start, dash.end) for dash in contour[2:]))
            nearest.append(min(to_segment(end, dash.start, dash.end) for dash in contour[:-2]))
    least = style.radius + style.gap
    assert min(nearest) >= least - ROUNDING
    # Some came about as near as they may.
    assert min(nearest) < least + style.gap / 4


@pytest.mark.parametrize(("style", "distractors"), [(SMALL, 5), (LARGE, 8)])
@pytest.mark.parametrize("label", [0, 1])
def test_images_show_the_scene(style, distractors, label):
    scene = draw_scene(style, 4, 0, distractors)
    image = np.array(paint(scene, style, label)).astype(float) / 255
    assert image.shape == (style.side, style.side)
    discs = scene.connected if label else scene.separate
    dashes = [dash for contour in scene.contours for dash in contour]
    half = math.ceil(style.dash / 2)
    for dash in dashes:
        x, y = int(dash.middle.real), int(dash.middle.imag)
        near = image[max(y - half, 0) : y + half + 1, max(x - half, 0) : x + half + 1].sum()
        # The area of a dash, less a finer pixel along its edge.
        assert near >= style.dash * style.thickness - 2 * (style.dash + style.thickness) / style.scale
    # Half the diagonal of a pixel, and one and a half of a finer one, to which edges are rounded.
    reach = math.sqrt(0.5) + 1.5 / style.scale
    x, y = np.meshgrid(*[np.arange(style.side) + 0.5] * 2)
    centres = x + 1j * y
    to_disc = np.min([np.abs(centres - disc) for disc in discs], axis=0)
    assert (image[to_disc <= style.radius - reach] == 1).all()
    there = [(centres - dash.middle) * dash.direction.conjugate() for dash in dashes]
    to_dash = np.min([np.hypot(np.maximum(abs(z.real) - style.dash / 2, 0), z.imag) for z in there], axis=0)
    assert (image[(to_disc > style.radius + reach) & (to_dash > style.thickness / 2 + reach)] == 0).all()


def test_summaries_of_an_image_do_not_tell_its_label():
    scenes = [draw_scene(SMALL, 5, index, 5) for index in range(300)]

    def summaries(scene: Scene, label: int) -> list[float]:
        image = np.array(paint(scene, SMALL, label)).astype(float)
        ends = scene.connected if label else scene.separate
        quarters = [image[i : i + 16, j : j + 16].mean() for i in (0, 16) for j in (0, 16)]
        rows, columns = np.nonzero(image == 255)
        centre = [rows.mean(), columns.mean(), rows.std(), columns.std()]
        counts = [np.count_nonzero(image), np.count_nonzero(image > 127), len(rows)]
        return [image.mean(), image.std(), *quarters, *centre, *counts, abs(ends[0] - ends[1])]

    x = np.array([[summaries(scene, label) for label in (0, 1)] for scene in scenes])
    # One by one, of the same scene with either label: the mean difference is within 4.5 of its standard errors, which
    # for 14 summaries chance exceeds once in 10,000 seeds.
    difference = x[:, 1] - x[:, 0]
    assert (np.abs(difference.mean(0)) <= 4.5 * difference.std(0) / math.sqrt(len(scenes))).all()
    # All together, learned from half of the scenes: as many of the others are right as of 300 tosses of a coin.
    x = (x - x.mean((0, 1))) / x.std((0, 1))
    half, labels = len(scenes) // 2, np.tile([0, 1], len(scenes) // 2)
    learned = LogisticRegression(max_iter=1000).fit(x[:half].reshape(2 * half, -1), labels)
    right = learned.score(x[half:].reshape(2 * half, -1), labels)
    assert abs(right - 0.5) <= 4.5 * math.sqrt(0.25 / (2 * half))


@pytest.mark.parametrize(
    ("make", "style", "distractors"), [(generate_pathfinder, SMALL, 5), (generate_pathx, LARGE, 8)]
)
def test_files_are_in_the_published_layout(tmp_path, monkeypatch, make, style, distractors):
    monkeypatch.setattr(pathfinder, "_PER_FOLDER", 7)
    told: list[tuple[int, int, str]] = []
    made = make(tmp_path / "new", seed=6, images=22, progress=lambda *what: told.append(what))
    place = tmp_path / "new" / "pathfinder" / f"pathfinder{style.side}" / KIND
    assert made == read_generated(tmp_path / "new")
    assert dict(made.counts) == {"train": 18, "validation": 2, "test": 2}
    assert told[-1] == (22, 22, "images")
    # Images, and metadata by seven of them.
    assert check_sums(tmp_path / "new") == 22 + 4
    labels = []
    for batch in range(4):
        lines = (place / "metadata" / f"{batch}.npy").read_text(encoding="ascii").splitlines()
        assert len(lines) == (7 if batch < 3 else 1)
        for number, line in enumerate(lines):
            folder, file, nth, label, *more = line.split(" ")
            assert (folder, file, nth) == (f"imgs/{batch}", f"sample_{number}.png", str(number))
            assert more[1:3] == ["14", "4"]
            assert len(more) == 7
            labels.append(int(label))
            with Image.open(place / folder / file) as image:
                assert (image.format, image.mode) == ("PNG", "L")
                scene = draw_scene(style, 6, 7 * batch + number, distractors)
                assert np.array_equal(np.array(image), np.array(paint(scene, style, int(label))))
    assert sum(labels) == 11
    assert labels != sorted(labels)
    assert labels != sorted(labels, reverse=True)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_seed_decides_everything(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        generate_pathfinder(tmp_path / name, seed=seed, images=10)
    first, again, other = (contents(tmp_path / name) for name in "abc")
    assert first == again
    assert first.keys() == other.keys()
    images = [name for name in first if name.endswith(".png")]
    assert not {first[name] for name in images} & {other[name] for name in images}
    # Seeds may be large.
    draw_scene(SMALL, 2**70, 0, 5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"images": 9}, "images is 9; at least 10"),
        ({"seed": -1}, "seed is -1; at least 0"),
        ({"distractors": -1}, "distractors is -1; at least 0"),
    ],
)
def test_numbers_out_of_range_are_named(tmp_path, options, said):
    with pytest.raises(ParameterError, match=said):
        generate_pathfinder(tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


def test_too_many_distractors_are_refused(monkeypatch):
    monkeypatch.setattr(pathfinder, "_SCENES", 3)
    with pytest.raises(ParameterError, match=r"distractors is 60; so many do not fit into 32 × 32 pixels\. Give fewer"):
        draw_scene(SMALL, 0, 0, 60)


def test_a_folder_that_is_not_empty_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ParameterError, match="is not empty"):
        generate_pathx(tmp_path, images=10)


def test_nothing_heavy_is_imported():
    code = (
        "import sys; from liquid_ssm.generate import get_generator; get_generator('pathx'); "
        "print(sorted({'torch', 'lightning', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
