"""What a user would pick instead of this package, on the same inputs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from ..registry import get_backend
from .subjects import Subject

Array = npt.NDArray[Any]
Call = Callable[[], Array]

# Steps that torch.compile sees as one piece of straight code.
UNROLLED = 16


@dataclass(frozen=True)
class Rival:
    """One way to compute a mode without this package.

    Attributes:
        name: as it stands in the tables.
        mode: label of the mode that it computes.
        prepare: (subject, threads) -> a call without arguments that returns y (batch, H, L); kernels and other
            things that do not depend on u are made here, outside the timing.
        package: what must be installed, with the command to install it.
        compiler: it needs a C++ compiler.
        given: what it gets for nothing, for the tables.
        largest: mode-steps (batch · channels · L · N/2) beyond which it is left out; None for no end.
    """

    name: str
    mode: str
    prepare: Callable[[Subject, int], Call]
    package: str = "scipy"
    compiler: bool = False
    given: str = ""
    largest: int | None = None

    def missing(self) -> str:
        """Why it cannot run here, or an empty string."""
        if find_spec(self.package) is None:
            return f"needs {self.package}: pip install {self.package}"
        if self.compiler and not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
            return "needs a C++ compiler, which torch.compile calls; on Debian: apt-get install g++"
        return ""


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _kernel(subject: Subject) -> Array:
    kernel: Array = get_backend("scipy").kernel(subject.system, subject.shape.length)  # type: ignore[attr-defined]
    return kernel


def _scipy_fft(size_of: Callable[[int], int]) -> Callable[[Subject, int], Call]:
    def prepare(subject: Subject, threads: int) -> Call:
        from scipy import fft  # type: ignore[import-untyped, unused-ignore]

        kernel, u, length = _kernel(subject), subject.u, subject.shape.length
        size = size_of(length)

        def call() -> Array:
            spectrum = fft.rfft(u, size, workers=threads) * fft.rfft(kernel, size, workers=threads)
            y: Array = fft.irfft(spectrum, size, workers=threads)[..., :length]
            return y

        return call

    return prepare


def power_of_two(length: int) -> int:
    """The least power of two that holds a causal convolution without wrapping."""
    return 1 << (2 * length - 1).bit_length() if length > 1 else 2


def _fast_len(length: int) -> int:
    from scipy import fft

    return int(fft.next_fast_len(2 * length - 1, real=True))


def _kernel_and_fft(subject: Subject, threads: int) -> Call:
    from scipy import fft

    backend: Any = get_backend("scipy")
    system, u, length = subject.system, subject.u, subject.shape.length
    size = _fast_len(length)

    def call() -> Array:
        kernel = backend.kernel(system, length)
        spectrum = fft.rfft(u, size, workers=threads) * fft.rfft(kernel, size, workers=threads)
        y: Array = fft.irfft(spectrum, size, workers=threads)[..., :length]
        return y

    return call


def _lfilter(subject: Subject, threads: int) -> Call:
    from scipy.signal import lfilter  # type: ignore[import-untyped, unused-ignore]

    system, u = subject.system, subject.u
    one = np.ones((), system.A_bar.dtype)
    filters = [
        [(np.array([c * b]), np.array([one, -a])) for a, b, c in zip(*modes, strict=True)]
        for modes in zip(system.A_bar, system.B_bar, system.C, strict=True)
    ]

    def call() -> Array:
        y: Array = np.zeros_like(u)
        for h, modes in enumerate(filters):
            for numerator, denominator in modes:
                y[:, h] += lfilter(numerator, denominator, u[:, h]).real
        y *= system.weight
        return y

    return call


def _dlsim(subject: Subject, threads: int) -> Call:
    from scipy.signal import dlsim

    system, u = subject.system, subject.u
    systems = []
    for a, b, c in zip(system.A_bar, system.B_bar, system.C, strict=True):
        # dlsim's outputs come from the state before the step, in real arithmetic.
        transition = np.block([[np.diag(a.real), -np.diag(a.imag)], [np.diag(a.imag), np.diag(a.real)]])
        drive = np.concatenate([b.real, b.imag])[:, None]
        output = system.weight * np.concatenate([c.real, -c.imag])[None]
        systems.append((transition, drive, output @ transition, output @ drive, 1.0))

    def call() -> Array:
        y = np.empty_like(u)
        for h, lti in enumerate(systems):
            for row in range(len(u)):
                y[row, h] = dlsim(lti, u[row, h])[1][:, 0]
        return y

    return call


def _torch_fft(subject: Subject, threads: int) -> Call:
    import torch  # type: ignore[import-not-found, import-untyped, unused-ignore]

    torch.set_num_threads(threads)
    length = subject.shape.length
    size = power_of_two(length)
    u, kernel = torch.from_numpy(subject.u), torch.from_numpy(_kernel(subject))

    def call() -> Array:
        spectrum = torch.fft.rfft(u, size) * torch.fft.rfft(kernel, size)
        y: Array = torch.fft.irfft(spectrum, size)[..., :length].numpy()
        return y

    return call


def _associative_scan(subject: Subject, threads: int) -> Call:
    import torch
    from torch._higher_order_ops.associative_scan import (  # type: ignore[import-not-found, import-untyped, unused-ignore]
        associative_scan,
    )

    torch.set_num_threads(threads)
    u, weight = torch.from_numpy(subject.u), subject.system.weight
    a, b, c = (
        torch.from_numpy(np.array(v))[:, None] for v in (subject.system.A_bar, subject.system.B_bar, subject.system.C)
    )

    def combine(left: Any, right: Any) -> Any:
        return left[0] * right[0], right[0] * left[1] + right[1]

    def call() -> Array:
        drive = u[..., None] * b
        _, states = associative_scan(combine, (a + drive, drive), dim=2, combine_mode="generic")
        y: Array = (weight * (states * c).sum(-1).real).numpy()
        return y

    return call


def _torch_loop(subject: Subject, threads: int) -> Call:
    import torch

    torch.set_num_threads(threads)
    system, shape = subject.system, subject.shape
    parts = [np.array(part) for v in (system.A_bar, system.B_bar, system.C) for part in (v.real, v.imag)]
    ar, ai, br, bi, cr, ci = (torch.from_numpy(part) for part in parts)
    u = torch.from_numpy(subject.u)

    def steps(xr: Any, xi: Any, inputs: Any) -> Any:
        outputs = []
        for k in range(inputs.shape[0]):
            v = inputs[k][..., None]
            dr, di = br * v, bi * v
            qr, qi = ar + dr, ai + di
            xr, xi = qr * xr - qi * xi + dr, qr * xi + qi * xr + di
            outputs.append((cr * xr - ci * xi).sum(-1))
        return xr, xi, torch.stack(outputs)

    compiled = torch.compile(steps)

    def call() -> Array:
        xr = torch.zeros(shape.batch, *ar.shape, dtype=u.dtype)
        xi = torch.zeros_like(xr)
        inputs, outputs = u.permute(2, 0, 1).contiguous(), []
        for start in range(0, shape.length, UNROLLED):
            xr, xi, part = compiled(xr, xi, inputs[start : start + UNROLLED])
            outputs.append(part)
        y: Array = (system.weight * torch.cat(outputs)).permute(1, 2, 0).numpy()
        return y

    return call


READY = "kernel given"
CONVOLUTIONS = (
    Rival("scipy.fft, 2^k", "s4", _scipy_fft(power_of_two), given=READY),
    Rival("scipy.fft, next_fast_len", "s4", _scipy_fft(_fast_len), given=READY),
)
TORCH_CONVOLUTION = Rival("torch.fft, 2^k", "s4", _torch_fft, "torch", given=READY)
WITH_KERNEL = Rival("scipy kernel + scipy.fft", "s4", _kernel_and_fft)
# Measured next to the compiled backend, as the targets compare it with them; the slow ones come last.
QUICK_OTHERS = (TORCH_CONVOLUTION, WITH_KERNEL)
SLOW = (
    Rival("scipy.signal.lfilter, one per mode", "s4", _lfilter),
    Rival("scipy.signal.dlsim", "s4", _dlsim, largest=2**19),
    Rival("torch associative_scan", "liquid", _associative_scan, "torch", largest=2**23),
    Rival(f"torch.compile, {UNROLLED} steps at a time", "liquid", _torch_loop, "torch", compiler=True),
)
