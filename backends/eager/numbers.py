"""Complex numbers as torch has them, or as two real tensors: one spelling for both.

Formulas in this folder are written once, for real tensors, complex tensors and `Split`.  The last is what devices,
compilers and export formats without complex numbers need.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

Number = Any  # torch.Tensor or Split


class Split:
    """re + i·im, two real tensors of one shape.

    A product is (ac - bd) + i (ad + bc): four products and two sums, each rounded by itself or contracted.
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
        return Split(*torch.broadcast_tensors(self.re + other, self.im))

    __radd__ = __add__

    def __neg__(self) -> Split:
        return Split(-self.re, -self.im)

    def __sub__(self, other: Number) -> Split:
        return self + (-other)

    def __mul__(self, other: Number) -> Split:
        if isinstance(other, Split):
            a, b, c, d = self.re, self.im, other.re, other.im
            return Split(a * c - b * d, a * d + b * c)
        return Split(self.re * other, self.im * other)

    __rmul__ = __mul__

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
    return Split(z.re, -z.im) if isinstance(z, Split) else z.conj()


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
    """`torch.cat`."""
    return _together(torch.cat, parts, dim)


def stack(parts: Sequence[Number], dim: int) -> Number:
    """`torch.stack`."""
    return _together(torch.stack, parts, dim)


def _together(function: Callable[..., torch.Tensor], parts: Sequence[Number], dim: int) -> Number:
    if isinstance(parts[0], Split):
        return Split(function([z.re for z in parts], dim), function([z.im for z in parts], dim))
    return function(list(parts), dim)
