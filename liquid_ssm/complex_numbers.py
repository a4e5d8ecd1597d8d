"""Complex numbers as torch has them, or as two real tensors: one spelling for both.

Formulas of the eager backends and of the layers are written once, for real tensors, complex tensors and `Split`.  The
last is what devices, compilers and export formats without complex numbers need.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch

Number = Any  # torch.Tensor or Split


class Split:
    """re + i·im, two real tensors of one shape.

    A product is (ac - bd) + i (ad + bc): four products and two sums, each rounded by itself or contracted.  A quotient
    z / w is z conj(w) / |w|², which overflows or underflows where |w|² does.
    """

    def __init__(self, re: torch.Tensor, im: torch.Tensor) -> None:
        self.re, self.im = re, im

    @property
    def shape(self) -> torch.Size:
        return self.re.shape

    @property
    def real(self) -> torch.Tensor:
        return self.re

    @property
    def imag(self) -> torch.Tensor:
        return self.im

    def __add__(self, other: Number) -> Split:
        if isinstance(other, Split):
            return Split(self.re + other.re, self.im + other.im)
        re = self.re + other
        return Split(re, self.im.expand(re.shape))

    __radd__ = __add__

    def __neg__(self) -> Split:
        return Split(-self.re, -self.im)

    def __sub__(self, other: Number) -> Split:
        return self.__add__(-other)

    def __mul__(self, other: Number) -> Split:
        if isinstance(other, Split):
            a, b, c, d = self.re, self.im, other.re, other.im
            return Split(a * c - b * d, a * d + b * c)
        return Split(self.re * other, self.im * other)

    __rmul__ = __mul__

    def __rsub__(self, other: Number) -> Split:
        negative: Split = -self
        return negative.__add__(other)

    def __truediv__(self, other: Number) -> Split:
        if isinstance(other, Split):
            size = other.re * other.re + other.im * other.im
            return (self * Split(other.re, -other.im)).map(lambda part: part / size)
        return Split(self.re / other, self.im / other)

    def __rtruediv__(self, other: Number) -> Split:
        size = self.re * self.re + self.im * self.im
        return Split(self.re * other / size, -self.im * other / size)

    def __getitem__(self, index: Any) -> Split:
        return self.map(lambda part: part[index])

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Split:
        """The function of each part: for what treats both the same (views, sums over an axis, casts)."""
        return Split(function(self.re), function(self.im))


def each_part(z: Number, function: Callable[[torch.Tensor], torch.Tensor]) -> Number:
    """`function` of a tensor, or of both parts of a `Split`; it must be linear and keep complex numbers complex."""
    return z.map(function) if isinstance(z, Split) else function(z)


def conj(z: Number) -> Number:
    """The complex conjugate; real tensors are their own."""
    # torch's lazy conjugate would be formed again by every operation that reads it, in loops once per step
    return Split(z.re, -z.im) if isinstance(z, Split) else torch.conj_physical(z)


def is_complex(z: Number) -> bool:
    return isinstance(z, Split) or z.is_complex()


def imag(z: Number) -> torch.Tensor:
    """The imaginary part, zeros for a real tensor."""
    return z.imag if is_complex(z) else torch.zeros_like(z)


def split(z: torch.Tensor) -> Number:
    """A complex tensor as `Split`; a real one as it is."""
    return Split(z.real, z.imag) if z.is_complex() else z


def join(z: Number) -> torch.Tensor:
    """The inverse of `split`."""
    return torch.complex(z.re, z.im) if isinstance(z, Split) else z


def cat(parts: Sequence[Number], dim: int) -> Number:
    """`torch.cat`; real numbers beside complex ones become complex."""
    return _together(torch.cat, parts, dim)


def stack(parts: Sequence[Number], dim: int) -> Number:
    """`torch.stack`."""
    return _together(torch.stack, parts, dim)


def unbind(z: Number) -> list[Number]:
    """The entries along the first axis."""
    if isinstance(z, Split):
        return [Split(re, im) for re, im in zip(z.re.unbind(0), z.im.unbind(0), strict=True)]
    return list(z.unbind(0))


def size(z: Number) -> int:
    """How many numbers there are."""
    return prod(z.shape)


def _together(function: Callable[..., torch.Tensor], parts: Sequence[Number], dim: int) -> Number:
    if not any(isinstance(z, Split) for z in parts):
        return function(list(parts), dim)
    return Split(function([z.real for z in parts], dim), function([imag(z) for z in parts], dim))


def in_double(z: Number) -> Number:
    """The number as float64 or as `Split` of two: for tables that are rounded once, at the end.

    A device without float64 (mps) has them on the CPU.
    """

    def widened(part: torch.Tensor) -> torch.Tensor:
        return (part.cpu() if part.device.type == "mps" else part).to(torch.float64)

    return each_part(z if isinstance(z, Split) else split(z), widened)


def rounded_like(value: Number, like: Number) -> Number:
    """A number from `in_double`, rounded once to the dtype, device and kind of `like`; its real part for a real one."""
    if not is_complex(like):
        return value.real.to(like)
    if isinstance(like, Split):
        return Split(value.real.to(like.re), imag(value).to(like.im))
    return torch.complex(value.real, imag(value)).to(like)


def times(a: Number, b: Number) -> Number:
    """a·b for numbers of any two kinds: `*` between a tensor and a `Split` is more than torch.compile understands."""
    if isinstance(a, Split):
        return a.__mul__(b)
    return b.__mul__(a) if isinstance(b, Split) else a * b


def plus(a: Number, b: Number) -> Number:
    """a + b for numbers of any two kinds; see `times`."""
    if isinstance(a, Split):
        return a.__add__(b)
    return b.__add__(a) if isinstance(b, Split) else a + b
