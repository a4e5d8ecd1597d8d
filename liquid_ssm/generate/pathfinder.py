"""Pathfinder: are two discs on the same dashed contour?  Images of the kind `curv_contour_length_14`, as published.

The task is that of Linsley et al. (arXiv 1805.08315) as Long Range Arena has it (Tay et al. 2020), with its numbers of
dashes, lengths and radii; the images are drawn by rules of our own, so their statistics are not exactly the published
ones.
"""

from __future__ import annotations

from cmath import rect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import tau
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw

from ..data_folder import Generated, write_generated
from ..environment import package_version
from ..errors import ParameterError
from .draw import Draw, at_least, new_folder

Progress = Callable[[int, int, str], None]

KIND = "curv_contour_length_14"
DASHES, DISTRACTOR_DASHES = 14, 4
# Images of a folder, and lines of a metadata file, as in the release of Long Range Arena.
_PER_FOLDER = 1000
# Of a search: directions that are tried for a dash, dashes that are tried for each one of a contour, places for a
# contour, and scenes.
_DIRECTIONS, _DASHES, _PLACES, _SCENES = 6, 12, 20, 200


@dataclass(frozen=True)
class Style:
    """How images of one size look [pixels].

    Attributes:
        side: of the image.
        dash, thickness: of a dash.
        gap: between the ends of dashes that follow each other.
        clearance: smallest distance between the middle lines of dashes that do not; larger than the gap, and than half
            a dash, so that dashes which cross are too near at one of their ends.
        radius: of a disc; its edge is at least a gap away from dashes and discs that it is not on.
        turn: largest angle between dashes that follow each other [rad].
        scale: points per pixel, along each axis, that grey values are means of.
    """

    side: int
    dash: float
    thickness: float
    gap: float
    clearance: float
    radius: float
    turn: float
    scale: int

    @property
    def tolerance(self) -> float:
        """Most by which the distance of the discs depends on the label."""
        return self.side / 32


SMALL = Style(side=32, dash=2.0, thickness=0.9, gap=1.0, clearance=2.0, radius=1.5, turn=0.8, scale=8)
LARGE = Style(side=128, dash=5.0, thickness=1.5, gap=2.5, clearance=5.0, radius=3.0, turn=0.6, scale=4)


class Dash(NamedTuple):
    """A dash, in a plane of complex numbers, x + i·y with y down [pixels]; its direction has size 1."""

    start: complex
    middle: complex
    end: complex
    direction: complex


class Scene(NamedTuple):
    """What an image shows, and the two pairs of discs for either label.

    Attributes:
        contours: dashes of each, in order; the first two contours are the long ones.
        connected: both ends of one long contour.
        separate: an end of each long contour, nearly as far apart.
    """

    contours: list[list[Dash]]
    connected: tuple[complex, complex]
    separate: tuple[complex, complex]


def generate_pathfinder(
    folder: Path, *, seed: int = 0, images: int = 10_000, distractors: int = 5, progress: Progress | None = None
) -> Generated:
    """Write Pathfinder images of 32 × 32 pixels as `pathfinder/pathfinder32/curv_contour_length_14/{imgs,metadata}`.

    Every image has two contours of 14 dashes, two discs at ends of them, and shorter contours.  The label is 1 where
    the discs are on one contour, in half of the images.  A scene would serve for both labels, with discs that are
    equally far apart to 1/32 of the image's side.

    Args:
        folder: new or empty.
        seed: of everything that is drawn.
        images: number of them; 80, 10 and 10 % are for training, validation and test.
        distractors: contours of 4 dashes.
        progress: told (done, total, what).

    Raises:
        ParameterError: a number out of range, more distractors than there is room for, or a folder that is not empty.
    """
    return _generate("pathfinder", SMALL, folder, seed, images, distractors, progress)


def generate_pathx(
    folder: Path, *, seed: int = 0, images: int = 5_000, distractors: int = 8, progress: Progress | None = None
) -> Generated:
    """Write Path-X images of 128 × 128 pixels as `pathfinder/pathfinder128/curv_contour_length_14/{imgs,metadata}`.

    Args and what is raised are those of `generate_pathfinder`.
    """
    return _generate("pathx", LARGE, folder, seed, images, distractors, progress)


def draw_scene(style: Style, seed: int, index: int, distractors: int) -> Scene:
    """A scene: a function of its arguments alone, from which the images of both labels can be painted.

    Raises:
        ParameterError: no room for so many distractors was found.
    """
    draw = Draw((seed << 32) + index + 1)
    for _ in range(_SCENES):
        plane = _Plane(style, draw)
        for contour in range(2 + distractors):
            long = contour < 2
            if not any(plane.add(DASHES if long else DISTRACTOR_DASHES, discs=long) for _ in range(_PLACES)):
                break
            if contour == 1 and _difference(plane.pairs()) > style.tolerance:
                break
        else:
            return Scene(plane.contours, *plane.pairs())
    raise ParameterError(
        f"distractors is {distractors}; so many do not fit into {style.side} × {style.side} pixels. Give fewer."
    )


def paint(scene: Scene, style: Style, label: int) -> Image.Image:
    """The image, white on black, with discs at the ends that the label names."""
    image = Image.new("L", (style.side * style.scale,) * 2)
    draw = ImageDraw.Draw(image)
    for contour in scene.contours:
        for dash in contour:
            start, end = style.scale * dash.start, style.scale * dash.end
            width = round(style.thickness * style.scale)
            draw.line([start.real, start.imag, end.real, end.imag], fill=255, width=width)
    for centre in scene.connected if label else scene.separate:
        draw.circle([style.scale * centre.real, style.scale * centre.imag], style.scale * style.radius, fill=255)
    return image.reduce(style.scale)


class _Plane:
    """Contours that keep clear of each other, as they are added."""

    def __init__(self, style: Style, draw: Draw) -> None:
        self.style, self.draw = style, draw
        self.contours: list[list[Dash]] = []
        self.dashes: list[Dash] = []
        self.discs: list[complex] = []

    def add(self, dashes: int, *, discs: bool) -> bool:
        """Try to add a contour from a random place, with room for discs at its ends; say whether there was room."""
        style, draw = self.style, self.draw
        first = _dash(self._anywhere(), rect(1, tau * draw.uniform()), style)
        if not self._clear(first, (), self.discs) or (discs and not self._clear_disc(first.start, (), self.discs)):
            return False
        around = [*self.discs, first.start] if discs else self.discs
        ours, left = [first], [_DIRECTIONS]
        for _ in range(_DASHES * dashes):
            turn = style.turn * (2 * draw.uniform() - 1)
            tried = self._next(ours[-1], turn)
            good = self._clear(tried, ours[:-1], around)
            if good and discs and len(ours) == dashes - 1:
                good = self._clear_disc(tried.end, ours, around)
            if good:
                ours.append(tried)
                left.append(_DIRECTIONS)
                if len(ours) == dashes:
                    self._keep(ours, discs)
                    return True
                continue
            # Where no direction is left, the dash before is tried anew.
            left[-1] -= 1
            while not left[-1]:
                ours.pop()
                left.pop()
                if not ours:
                    return False
                left[-1] -= 1
        return False

    def pairs(self) -> tuple[tuple[complex, complex], tuple[complex, complex]]:
        """Both ends of one contour, and an end of each, whose distances differ least."""
        a, b, c, d = self.discs
        found = ((one, two) for one in ((a, b), (c, d)) for two in ((a, c), (a, d), (b, c), (b, d)))
        return min(found, key=_difference)

    def _anywhere(self) -> complex:
        return complex(self.style.side * self.draw.uniform(), self.style.side * self.draw.uniform())

    def _next(self, last: Dash, turn: float) -> Dash:
        """The dash after another one: half of the turn before the gap, half of it after."""
        half = rect(1, turn / 2)
        direction = last.direction * half * half
        # Rounding must not add up along a contour.
        direction /= abs(direction)
        return _dash(last.end + self.style.gap * last.direction * half, direction, self.style)

    def _keep(self, contour: list[Dash], discs: bool) -> None:
        self.contours.append(contour)
        self.dashes += contour
        if discs:
            self.discs += [contour[0].start, contour[-1].end]

    def _clear(self, dash: Dash, ours: Iterable[Dash], discs: Iterable[complex]) -> bool:
        """Is the dash inside the image, and far enough from others and from discs?"""
        style, middle = self.style, dash.middle
        if not (_inside(dash.start, style.side, style.thickness) and _inside(dash.end, style.side, style.thickness)):
            return False
        # Whatever is farther from the middle needs no closer look.
        reach, disc_reach = style.clearance + style.dash, style.radius + style.gap + style.dash / 2
        for disc in discs:
            if abs(disc - middle) < disc_reach and _distance(disc, dash, style) < style.radius + style.gap:
                return False
        for others in (ours, self.dashes):
            for other in others:
                if abs(other.middle - middle) < reach and _apart(dash, other, style) < style.clearance:
                    return False
        return True

    def _clear_disc(self, centre: complex, ours: Iterable[Dash], discs: Iterable[complex]) -> bool:
        """Is there room for a disc, inside the image and far enough from dashes and from other discs?"""
        style = self.style
        return (
            _inside(centre, style.side, style.radius)
            and all(abs(disc - centre) >= 2 * style.radius + style.gap for disc in discs)
            and all(
                _distance(centre, dash, style) >= style.radius + style.gap
                for others in (ours, self.dashes)
                for dash in others
            )
        )


def _inside(point: complex, side: int, margin: float) -> bool:
    return margin <= point.real <= side - margin and margin <= point.imag <= side - margin


def _dash(start: complex, direction: complex, style: Style) -> Dash:
    half = style.dash / 2 * direction
    return Dash(start, start + half, start + 2 * half, direction)


def _distance(point: complex, dash: Dash, style: Style) -> float:
    """From a point to a dash."""
    there = (point - dash.middle) * dash.direction.conjugate()
    beyond = abs(there.real) - style.dash / 2
    return abs(there.imag) if beyond <= 0 else abs(complex(beyond, there.imag))


def _apart(dash: Dash, other: Dash, style: Style) -> float:
    """The distance of dashes that do not cross is that of an end of one of them from the other."""
    return min(
        _distance(dash.start, other, style),
        _distance(dash.end, other, style),
        _distance(other.start, dash, style),
        _distance(other.end, dash, style),
    )


def _difference(pairs: tuple[tuple[complex, complex], tuple[complex, complex]]) -> float:
    (a, b), (c, d) = pairs
    return abs(abs(a - b) - abs(c - d))


def _generate(
    name: str, style: Style, folder: Path, seed: int, images: int, distractors: int, progress: Progress | None
) -> Generated:
    at_least(0, seed=seed, distractors=distractors)
    # Fewer leave validation and test empty.
    at_least(10, images=images)
    # Before anything is written.
    draw_scene(style, seed, 0, distractors)
    place = new_folder(Path(folder)) / "pathfinder" / f"pathfinder{style.side}" / KIND
    (place / "metadata").mkdir(parents=True)
    labels = Draw(seed << 32).shuffled([k % 2 for k in range(images)])
    files: list[Path] = []
    for first in range(0, images, _PER_FOLDER):
        batch = first // _PER_FOLDER
        (place / "imgs" / str(batch)).mkdir(parents=True)
        lines = []
        for index in range(first, min(first + _PER_FOLDER, images)):
            label = labels[index]
            path = place / "imgs" / str(batch) / f"sample_{index - first}.png"
            paint(draw_scene(style, seed, index, distractors), style, label).save(path)
            files.append(path)
            # The published columns: place, name, number, label, smoothness, dashes of a contour and of a distractor,
            # length and thickness of a dash, margin, number of contrasts.
            lines.append(
                f"imgs/{batch} {path.name} {index - first} {label} {style.turn} {DASHES} {DISTRACTOR_DASHES} "
                f"{style.dash} {style.thickness} {style.gap} 1\n"
            )
            if progress is not None:
                progress(index + 1, images, "images")
        metadata = place / "metadata" / f"{batch}.npy"
        metadata.write_text("".join(lines), encoding="ascii", newline="\n")
        files.append(metadata)
    tenth = images // 10
    counts = {"train": images - 2 * tenth, "validation": tenth, "test": tenth}
    options = {"images": images, "distractors": distractors}
    about = Generated(name, seed, package_version("liquid-ssm"), counts, options, {"pillow": package_version("pillow")})
    write_generated(Path(folder), about, files)
    return about
