"""log ā to full relative accuracy, also where |ā| is close to 1, on any device."""

from __future__ import annotations

import torch

Tensor = torch.Tensor

# exp of it is 0 in float32 and float64, and exp(0 · it) is 1: what a mode with ā = 0 needs.
LOG_OF_ZERO = -800.0
_SPLITTER = 2.0**27 + 1


def log_parts(z: Tensor) -> tuple[Tensor, Tensor]:
    """Real and imaginary part of log z for complex128 z; `LOG_OF_ZERO` and 0 for z = 0.

    Accuracy: each part within 4 ulps (8u) of itself, as `oracle.exponential_powers` asks, if `log` and `log1p` are
    within one and `hypot` and `atan2` within two.  A logarithm of the rounded modulus, which CUDA's torch takes
    (thrust), has no correct digit where |z| - 1 is below the unit roundoff.  For 1/2 < |z| < 2, |z|² - 1 is rounded
    once, and log1p makes at most 2.2u of that (at |z| = 1/2).  Elsewhere |log|z|| > 0.69, so two ulps of hypot add at
    most 5.8u.
    """
    x, y = z.real, z.imag
    size = torch.hypot(x, y)
    near = (size > 0.5) & (size < 2)
    gap = _square_minus_one(torch.where(near, x, torch.ones_like(x)), torch.where(near, y, torch.zeros_like(y)))
    zero = size == 0
    far = torch.log(torch.where(near | zero, torch.full_like(size, 2.0), size))
    real = torch.where(near, 0.5 * torch.log1p(gap), far)
    real = torch.where(zero, torch.full_like(real, LOG_OF_ZERO), real)
    return real, torch.atan2(y, x)


def _square_minus_one(x: Tensor, y: Tensor) -> Tensor:
    """x² + y² - 1, for numbers of moderate size.

    Both squares are split into two floats each without error, and the five terms are added as in three-fold precision:
    an error of u relative to the result and 2^-147 besides (Ogita, Rump, Oishi, Accurate sum and dot product, SIAM J.
    Sci. Comput. 26 (2005), proposition 4.10, K = 3).
    """
    terms = [-torch.ones_like(x), *_product(x, x), *_product(y, y)]
    for _ in range(2):
        for k in range(1, len(terms)):
            terms[k], terms[k - 1] = _sum(terms[k], terms[k - 1])
    total = terms[0]
    for term in terms[1:-1]:
        total = total + term
    return total + terms[-1]


def _sum(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """a + b rounded, and the error (Knuth)."""
    total = a + b
    shadow = total - a
    return total, (a - (total - shadow)) + (b - shadow)


def _product(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """a·b rounded, and the error (Dekker, Veltkamp)."""
    product = a * b
    a_high, b_high = _high(a), _high(b)
    a_low, b_low = a - a_high, b - b_high
    return product, a_low * b_low - (((product - a_high * b_high) - a_low * b_high) - a_high * b_low)


def _high(a: Tensor) -> Tensor:
    scaled = _SPLITTER * a
    return scaled - (scaled - a)
