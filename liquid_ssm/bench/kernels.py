"""Convolution kernels alone: the compiled backend against its limit and against the plain NumPy formula."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..timing import TooSlow
from .memory import kernel_system
from .rows import ITEMSIZE, Row, timed_row
from .shapes import Shape
from .subjects import NotANumber, checked

Array = npt.NDArray[Any]

VANDERMONDE = Shape(1, 512, 64, 16384)
# The plain formula keeps L x N numbers per channel, so it gets few channels.
CAUCHY = Shape(1, 4, 64, 16384)
PLAIN = "plain NumPy Cauchy sum"


def kernel_slots(structure: str, shape: Shape) -> float:
    """Multiply-add slots: 2 per mode and entry of a Vandermonde product, about 15 of a Cauchy sum (no FFT counted)."""
    per_mode = 2 if structure == "diagonal" else 15
    return float(per_mode * shape.n_modes * shape.n_channels * shape.length)


def kernel_row(name: str, backend: Any, structure: str, dtype: str, shape: Shape, limit: float | None) -> Row:
    """Time of `backend.kernel(system, L)`."""
    row = Row(
        name,
        "backend",
        f"kernel, {structure}",
        "forward",
        dtype,
        shape,
        slots=kernel_slots(structure, shape),
        traffic=float(ITEMSIZE[dtype] * shape.elements),
    )
    if structure not in backend.capabilities.primitives.get("kernel", ()):
        return _without(row, f"backend {name!r} has no kernel for {structure} systems")
    system = kernel_system(structure, shape.n_channels, shape.n_state).astype(dtype)
    try:
        checked(lambda: backend.kernel(system, shape.length), shape.elements, dtype)
        return timed_row(row, lambda: backend.kernel(system, shape.length), limit=limit)
    except TooSlow as error:
        return _without(row, f"not measured: {error}")
    except NotANumber as error:
        return _without(row, f"error: {error}")


def plain_row(dtype: str, shape: Shape, limit: float | None) -> Row:
    """Time of the plain NumPy formula for a diagonal-plus-low-rank system."""
    row = Row(PLAIN, "rival", "kernel, dplr", "forward", dtype, shape)
    system = kernel_system("dplr", shape.n_channels, shape.n_state).astype(dtype)
    try:
        return timed_row(row, lambda: plain_cauchy_kernel(system, shape.length), limit=limit)
    except TooSlow as error:
        return _without(row, f"not measured: {error}")


def _without(row: Row, reason: str) -> Row:
    return replace(row, reason=reason)


def plain_cauchy_kernel(system: Any, length: int) -> Array:
    """K (H, length) of a rank-one `dplr` system as its paper writes it, with all L x N temporaries.

    K̂(z) = C̃ (I - z Ā)⁻¹ B̄ at the roots of unity by Woodbury, where C̃ = C (I - Ā^L); K = irfft(K̂).  In the
    precision of the system, without the circle of smaller radius that keeps `scipy`'s kernel accurate.
    """

    def both(v: Array) -> Array:
        return np.concatenate([v, v.conj()], axis=-1)

    lam, b, c = both(system.Lambda_bar), both(system.B_bar), both(system.C)
    p, q = both(system.P_bar[0]), both(system.Q_bar[0]).conj()
    transition = lam[..., None] * np.eye(lam.shape[-1]) - p[..., None] * q[:, None]
    c = c - (c[:, None] @ np.linalg.matrix_power(transition, length))[:, 0]
    z = np.exp(-2j * np.pi * np.arange(length // 2 + 1) / length).astype(lam.dtype)
    # (H, L/2 + 1, N): the plain way keeps them all.
    resolvent = 1 / (1 - z[:, None] * lam[:, None])
    cb, cp, qb, qp = ((v[:, None] * resolvent).sum(-1) for v in (c * b, c * p, q * b, q * p))
    return np.fft.irfft(cb - z * cp * qb / (1 + z * qp), length).astype(system.dtype)
