"""Constants of single steps that Gappa proved, in unit roundoffs (docs/proofs.md).

The scripts are in `proofs/`; `python proofs/check.py` runs Gappa over them and compares, `--update` prints `PROVED`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import frexp, hypot
from typing import Literal

from .local_bounds import Box, allowed

DTYPES = ("float32", "float64")

# Constants are rounded up to multiples of this.
GRAIN = 1 / 1024

Measure = Literal["modulus", "part"]

# primitive, box, fused, what is compared, the parts of the result in float32, the same in float64
Row = tuple[str, Box, bool, Measure, tuple[float, ...], tuple[float, ...]]

PROVED: tuple[Row, ...] = (
    ("complex_product", {}, False, "modulus", (2.0, 2.0), (2.0, 2.0)),
    ("complex_product", {}, True, "modulus", (1.5, 1.5), (1.5, 1.5)),
    ("complex_product", {"a": 1.0078125, "b": 1.0078125}, False, "part", (4.0, 4.0), (4.0, 4.0)),
    ("complex_product", {"a": 1.0078125, "b": 1.0078125}, True, "part", (3.0, 3.0), (3.0, 3.0)),
    ("accumulated_product", {}, False, "modulus", (4.0, 4.0), (4.0, 4.0)),
    ("accumulated_product", {}, True, "modulus", (3.0, 3.0), (3.0, 3.0)),
    ("accumulated_product", {"v": 0.0078125}, False, "modulus", (4.0, 4.0), (4.0, 4.0)),
    ("accumulated_product", {"v": 0.0078125}, True, "modulus", (3.0, 3.0), (3.0, 3.0)),
    ("accumulated_product", {"a": 0.0078125}, False, "modulus", (2.0078125, 2.0078125), (2.0078125, 2.0078125)),
    ("accumulated_product", {"a": 0.0078125}, True, "modulus", (2.0, 2.0), (2.0, 2.0)),
    ("real_times_complex", {}, False, "modulus", (0.5, 0.5), (0.5, 0.5)),
    ("real_times_complex", {"b": 1.0078125}, False, "modulus", (1.0, 1.0), (1.0, 1.0)),
    ("square", {}, False, "modulus", (1.5, 2.0), (1.5, 2.0)),
    ("square", {}, True, "modulus", (1.0, 1.5), (1.0, 1.5)),
    ("square", {"a": 1.0078125}, False, "part", (3.0, 4.0), (3.0, 4.0)),
    ("square", {"a": 1.0078125}, True, "part", (2.0, 3.0), (2.0, 3.0)),
    ("liquid_step", {}, False, "modulus", (11.5, 11.5), (11.5, 11.5)),
    ("liquid_step", {}, True, "modulus", (9.5, 9.5), (9.5, 9.5)),
    (
        "liquid_step",
        {"A": 0.984375, "b": 0.0078125},
        False,
        "modulus",
        (4.01171875, 4.01171875),
        (4.01171875, 4.01171875),
    ),
    (
        "liquid_step",
        {"A": 0.984375, "b": 0.0078125},
        True,
        "modulus",
        (3.50390625, 3.50390625),
        (3.50390625, 3.50390625),
    ),
    ("liquid_step", {"b": 0.0078125}, False, "part", (8.01171875, 8.01171875), (8.01171875, 8.01171875)),
    ("liquid_step", {"b": 0.0078125}, True, "part", (7.00390625, 7.00390625), (7.00390625, 7.00390625)),
    ("liquid_step", {"A": 0.0078125}, False, "part", (9.5, 9.5), (9.5, 9.5)),
    ("liquid_step", {"A": 0.0078125}, True, "part", (7.5, 7.5), (7.5, 7.5)),
    ("liquid_step", {"x": 0.0078125}, False, "modulus", (1.5546875, 1.5546875), (1.5546875, 1.5546875)),
    ("liquid_step", {"x": 0.0078125}, True, "modulus", (1.5390625, 1.5390625), (1.5390625, 1.5390625)),
    ("liquid_step_accumulated", {}, False, "modulus", (11.5, 11.5), (11.5, 11.5)),
    ("liquid_step_accumulated", {}, True, "modulus", (8.5, 8.5), (8.5, 8.5)),
    (
        "liquid_step_accumulated",
        {"A": 0.984375, "b": 0.0078125},
        False,
        "modulus",
        (3.51171875, 3.51171875),
        (3.51171875, 3.51171875),
    ),
    (
        "liquid_step_accumulated",
        {"A": 0.984375, "b": 0.0078125},
        True,
        "modulus",
        (2.50390625, 2.50390625),
        (2.50390625, 2.50390625),
    ),
    ("liquid_step_accumulated", {"b": 0.0078125}, False, "part", (7.01171875, 7.01171875), (7.01171875, 7.01171875)),
    ("liquid_step_accumulated", {"b": 0.0078125}, True, "part", (5.00390625, 5.00390625), (5.00390625, 5.00390625)),
    ("liquid_step_accumulated", {"A": 0.0078125}, False, "modulus", (9.5, 9.5), (9.5, 9.5)),
    ("liquid_step_accumulated", {"A": 0.0078125}, True, "modulus", (6.5, 6.5), (6.5, 6.5)),
    ("liquid_step_accumulated", {"x": 0.0078125}, False, "modulus", (2.5390625, 2.5390625), (2.5390625, 2.5390625)),
    ("liquid_step_accumulated", {"x": 0.0078125}, True, "modulus", (2.515625, 2.515625), (2.515625, 2.515625)),
    ("linear_step", {}, False, "modulus", (4.5, 4.5), (4.5, 4.5)),
    ("linear_step", {}, True, "modulus", (4.0, 4.0), (4.0, 4.0)),
    ("linear_step", {"b": 0.0078125}, False, "modulus", (4.00390625, 4.00390625), (4.00390625, 4.00390625)),
    ("linear_step", {"b": 0.0078125}, True, "modulus", (3.50390625, 3.50390625), (3.50390625, 3.50390625)),
    ("linear_step", {"x": 0.0078125}, False, "modulus", (1.515625, 1.515625), (1.515625, 1.515625)),
    ("linear_step", {"x": 0.0078125}, True, "modulus", (1.51171875, 1.51171875), (1.51171875, 1.51171875)),
    ("linear_step_accumulated", {}, False, "modulus", (4.5, 4.5), (4.5, 4.5)),
    ("linear_step_accumulated", {}, True, "modulus", (3.5, 3.5), (3.5, 3.5)),
    ("linear_step_accumulated", {"b": 0.0078125}, False, "modulus", (4.00390625, 4.00390625), (4.00390625, 4.00390625)),
    ("linear_step_accumulated", {"b": 0.0078125}, True, "modulus", (3.00390625, 3.00390625), (3.00390625, 3.00390625)),
    ("linear_step_accumulated", {"x": 0.0078125}, False, "modulus", (2.5078125, 2.5078125), (2.5078125, 2.5078125)),
    ("linear_step_accumulated", {"x": 0.0078125}, True, "modulus", (2.5, 2.5), (2.5, 2.5)),
    ("truncated_step", {}, False, "modulus", (7.0, 7.0), (7.0, 7.0)),
    ("truncated_step", {}, True, "modulus", (6.0, 6.0), (6.0, 6.0)),
    ("truncated_step", {"v": 0.0078125}, False, "modulus", (4.0234375, 4.0234375), (4.0234375, 4.0234375)),
    ("truncated_step", {"v": 0.0078125}, True, "modulus", (3.51953125, 3.51953125), (3.51953125, 3.51953125)),
    ("truncated_step", {"x": 0.0078125}, False, "modulus", (5.015625, 5.015625), (5.015625, 5.015625)),
    ("truncated_step", {"x": 0.0078125}, True, "modulus", (4.51171875, 4.51171875), (4.51171875, 4.51171875)),
    ("truncated_step_accumulated", {}, False, "modulus", (8.0, 8.0), (8.0, 8.0)),
    ("truncated_step_accumulated", {}, True, "modulus", (6.5, 6.5), (6.5, 6.5)),
    ("truncated_step_accumulated", {"v": 0.0078125}, False, "modulus", (6.015625, 6.015625), (6.015625, 6.015625)),
    ("truncated_step_accumulated", {"v": 0.0078125}, True, "modulus", (5.5078125, 5.5078125), (5.5078125, 5.5078125)),
    ("truncated_step_accumulated", {"x": 0.0078125}, False, "modulus", (5.015625, 5.015625), (5.015625, 5.015625)),
    (
        "truncated_step_accumulated",
        {"x": 0.0078125},
        True,
        "modulus",
        (4.01171875, 4.01171875),
        (4.01171875, 4.01171875),
    ),
    ("chain_step", {}, False, "modulus", (4.5, 4.5), (4.5, 4.5)),
    ("chain_step", {}, True, "modulus", (3.5, 3.5), (3.5, 3.5)),
    ("chain_step", {"v": 0.0078125}, False, "modulus", (4.00390625, 4.00390625), (4.00390625, 4.00390625)),
    ("chain_step", {"v": 0.0078125}, True, "modulus", (3.5, 3.5), (3.5, 3.5)),
    ("chain_step", {"x": 0.0078125}, False, "modulus", (1.515625, 1.515625), (1.515625, 1.515625)),
    ("chain_step", {"x": 0.0078125}, True, "modulus", (1.01171875, 1.01171875), (1.01171875, 1.01171875)),
    ("chain_step_accumulated", {}, False, "modulus", (4.5, 4.5), (4.5, 4.5)),
    ("chain_step_accumulated", {}, True, "modulus", (3.5, 3.5), (3.5, 3.5)),
    ("chain_step_accumulated", {"v": 0.0078125}, False, "modulus", (4.00390625, 4.00390625), (4.00390625, 4.00390625)),
    ("chain_step_accumulated", {"v": 0.0078125}, True, "modulus", (3.00390625, 3.00390625), (3.00390625, 3.00390625)),
    ("chain_step_accumulated", {"x": 0.0078125}, False, "modulus", (2.5078125, 2.5078125), (2.5078125, 2.5078125)),
    ("chain_step_accumulated", {"x": 0.0078125}, True, "modulus", (2.5, 2.5), (2.5, 2.5)),
    ("low_rank_step", {}, False, "modulus", (12.0, 12.0), (12.0, 12.0)),
    ("low_rank_step", {}, True, "modulus", (8.5, 8.5), (8.5, 8.5)),
    ("low_rank_step", {"l": 0.0078125}, False, "modulus", (10.015625, 10.015625), (10.015625, 10.015625)),
    ("low_rank_step", {"l": 0.0078125}, True, "modulus", (7.01171875, 7.01171875), (7.01171875, 7.01171875)),
    ("low_rank_step", {"p": 0.0078125}, False, "modulus", (4.046875, 4.046875), (4.046875, 4.046875)),
    ("low_rank_step", {"p": 0.0078125}, True, "modulus", (3.5234375, 3.5234375), (3.5234375, 3.5234375)),
    ("elementary_step", {}, False, "modulus", (1.5,), (1.5,)),
    ("elementary_step", {}, True, "modulus", (1.0,), (1.0,)),
    ("elementary_step", {"u": 0.0078125}, False, "modulus", (1.00390625,), (1.00390625,)),
    ("elementary_step", {"u": 0.0078125}, True, "modulus", (1.0,), (1.0,)),
    ("elementary_step", {"e": 0.0078125}, False, "modulus", (1.5,), (1.5,)),
    ("elementary_step", {"e": 0.0078125}, True, "modulus", (1.0,), (1.0,)),
    ("running_sum_step", {}, False, "modulus", (1.5,), (1.5,)),
    ("running_sum_step", {}, True, "modulus", (1.0,), (1.0,)),
    ("running_sum_step", {"u": 0.0078125}, False, "modulus", (1.00390625,), (1.00390625,)),
    ("running_sum_step", {"u": 0.0078125}, True, "modulus", (1.0,), (1.0,)),
    ("running_sum_step", {"s": 0.0078125}, False, "modulus", (1.5,), (1.5,)),
    ("running_sum_step", {"s": 0.0078125}, True, "modulus", (1.0,), (1.0,)),
    ("read_out", {}, False, "modulus", (6.0,), (6.0,)),
    ("read_out", {}, True, "modulus", (5.0,), (5.0,)),
    ("read_out", {"d": 0.0078125}, False, "modulus", (4.015625,), (4.015625,)),
    ("read_out", {"d": 0.0078125}, True, "modulus", (3.51171875,), (3.51171875,)),
    ("adjoint_step", {}, False, "modulus", (20.0, 20.0), (20.0, 20.0)),
    ("adjoint_step", {}, True, "modulus", (14.0, 14.0), (14.0, 14.0)),
    ("adjoint_step", {"b": 0.0078125}, False, "modulus", (15.0390625, 15.0390625), (15.0390625, 15.0390625)),
    ("adjoint_step", {"b": 0.0078125}, True, "modulus", (12.015625, 12.015625), (12.015625, 12.015625)),
    ("adjoint_step", {"g": 0.984375, "c": 0.0078125}, False, "modulus", (8.9921875, 8.9921875), (8.9921875, 8.9921875)),
    ("adjoint_step", {"c": 0.0078125}, False, "part", (15.0390625, 15.0390625), (15.0390625, 15.0390625)),
    ("adjoint_step", {"g": 0.984375, "c": 0.0078125}, True, "modulus", (6.984375, 6.984375), (6.984375, 6.984375)),
    ("adjoint_step", {"c": 0.0078125}, True, "part", (12.015625, 12.015625), (12.015625, 12.015625)),
    ("adjoint_step", {"g": 0.0078125}, False, "modulus", (17.0234375, 17.0234375), (17.0234375, 17.0234375)),
    ("adjoint_step", {"g": 0.0078125}, True, "modulus", (12.015625, 12.015625), (12.015625, 12.015625)),
    ("input_gradient", {}, False, "modulus", (16.0,), (16.0,)),
    ("input_gradient", {}, True, "modulus", (13.0,), (13.0,)),
    ("input_gradient", {"x": 0.0078125}, False, "modulus", (6.03125,), (6.03125,)),
    ("input_gradient", {"x": 0.0078125}, True, "modulus", (5.0234375,), (5.0234375,)),
    ("butterfly", {}, False, "modulus", (6.0, 6.0), (6.0, 6.0)),
    ("butterfly", {}, True, "modulus", (5.5, 5.5), (5.5, 5.5)),
    ("butterfly", {"v": 0.0078125}, False, "modulus", (6.0, 6.0), (6.0, 6.0)),
    ("butterfly", {"v": 0.0078125}, True, "modulus", (5.5, 5.5), (5.5, 5.5)),
    ("butterfly", {"z": 0.0078125}, False, "modulus", (1.03125, 1.03125), (1.03125, 1.03125)),
    ("butterfly", {"z": 0.0078125}, True, "modulus", (1.02734375, 1.02734375), (1.02734375, 1.02734375)),
    ("exponential_power", {}, False, "modulus", (13.0009765625, 9.0), (13.0009765625, 9.0)),
    ("exponential_power", {"T": 8.0, "Y": 8.0}, False, "modulus", (76.0009765625, 72.0), (76.0009765625, 72.0)),
    ("complex_quotient", {}, False, "modulus", (11.7666015625, 11.7666015625), (11.7666015625, 11.7666015625)),
    ("complex_quotient", {}, True, "modulus", (9.9580078125, 9.9580078125), (9.9580078125, 9.9580078125)),
    (
        "bilinear",
        {"Hr": (-0.125, 0.0), "Hi": (0.0, 0.125)},
        False,
        "modulus",
        (4.12890625, 1.3349609375),
        (4.12890625, 1.3349609375),
    ),
    (
        "bilinear",
        {"Hr": (-0.125, 0.0), "Hi": (0.0, 0.125)},
        True,
        "modulus",
        (4.11328125, 1.2705078125),
        (4.11328125, 1.2705078125),
    ),
    (
        "bilinear",
        {"Hr": (-0.125, 0.0), "Hi": (0.875, 1.0)},
        False,
        "modulus",
        (2.65625, 7.9453125),
        (2.65625, 7.9453125),
    ),
    (
        "bilinear",
        {"Hr": (-0.125, 0.0), "Hi": (0.875, 1.0)},
        True,
        "modulus",
        (2.4580078125, 7.3408203125),
        (2.4580078125, 7.3408203125),
    ),
    (
        "bilinear",
        {"Hr": (-1.0, -0.875), "Hi": (0.0, 0.125)},
        False,
        "modulus",
        (0.529296875, 0.3662109375),
        (0.529296875, 0.3662109375),
    ),
    (
        "bilinear",
        {"Hr": (-1.0, -0.875), "Hi": (0.0, 0.125)},
        True,
        "modulus",
        (0.5244140625, 0.3642578125),
        (0.5244140625, 0.3642578125),
    ),
    ("phi1_real", {}, False, "modulus", (3.0009765625,), (3.0009765625,)),
    ("phi1_numerator", {}, False, "part", (6.0009765625, 5.0009765625), (6.0009765625, 5.0009765625)),
    ("phi1_numerator", {}, True, "part", (6.0009765625, 5.0009765625), (6.0, 5.0009765625)),
)


@dataclass(frozen=True)
class LocalConstant:
    """|computed − exact| <= constant · u in each part of the result of one step, for all floats of a box.

    Attributes:
        primitive: the script `proofs/<primitive>.gappa` and the key of `local_bounds.PRIMITIVES`.
        box: operand or one part of it -> largest magnitude of each part, or an interval; all others are at most 1.
        fused: multiply and add are contracted where the script says so.
        measure: `modulus` if the square root of the squares of all parts is compared with the oracle's bound, `part`
            if the largest of them is.
        dtype: float32 or float64.
        parts: real and imaginary part, or the only one.
    """

    primitive: str
    box: Box
    fused: bool
    measure: Measure
    dtype: str
    parts: tuple[float, ...]

    @property
    def proved(self) -> float:
        """What the oracle's bound must not be below."""
        return hypot(*self.parts) if self.measure == "modulus" else max(self.parts)

    @property
    def allowed(self) -> float:
        """What the bounds of the oracle have for the same step at the worst corner of the box."""
        return allowed(self.primitive, self.box, fused=self.fused, dtype=self.dtype)


def local_constants() -> Iterator[LocalConstant]:
    """Every entry of the table, one for each dtype."""
    for primitive, box, fused, measure, *by_dtype in PROVED:
        for dtype, parts in zip(DTYPES, by_dtype, strict=True):
            yield LocalConstant(primitive, box, fused, measure, dtype, parts)


def box_text(box: Box) -> str:
    """A box in words: `b ≤ 2^-7, else ≤ 1`."""
    limits = [
        f"{name} ∈ [{k[0]:g}, {k[1]:g}]" if isinstance(k, tuple) else f"{name} ≤ {_power(k)}" for name, k in box.items()
    ]
    return ", ".join([*limits, "else ≤ 1"]) if limits else "all ≤ 1"


def _power(limit: float) -> str:
    """2^-7, 1 - 2^-6 or 1 + 2^-7 where a number is one of these, else its digits."""
    for rest, prefix in ((limit, ""), (1 - limit, "1 - "), (limit - 1, "1 + ")):
        if 0 < rest < 0.5 and frexp(rest)[0] == 0.5:
            return f"{prefix}2^{frexp(rest)[1] - 1}"
    return f"{limit:g}"
