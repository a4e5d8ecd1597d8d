"""Backend `scipy`: FFT convolutions and compiled recurrences from SciPy."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from liquid_ssm.backend import Arithmetic, Backend, Capabilities, CascadeKind, CorrelationKind, Rejection
from liquid_ssm.errors import BackendRejected, ParameterError, unknown_name
from liquid_ssm.summation import pairwise_sum
from liquid_ssm.systems import DenseSystem, DiagonalSystem, DPLRSystem, System

from . import _sliding_correlations as correlations
from ._arguments import at_least, optional, shaped, signal
from ._cauchy import dplr_kernel
from ._fft_convolution import causal_convolution
from ._first_order import constant_recurrence, varying_recurrence
from ._matrix_powers import dense_kernel
from ._pieces import pieces
from ._read_out import read_out
from ._vandermonde import diagonal_kernel
from ._windowed_chain import windowed_chain

Array = npt.NDArray[Any]


class SciPyBackend(Backend):
    """Convolutions by `scipy.fft`, kernels by matrix products, recurrences by LAPACK and `scipy.signal`.

    Kernels are computed in double precision and rounded once; everything else in the precision of u.

    Args:
        workers: threads of the FFT, by default one per available core.  No result depends on them.

    Raises:
        ParameterError: workers below 1.
    """

    name = "scipy"
    requires = ("scipy",)
    install = "pip install scipy"
    capabilities = Capabilities(
        primitives={
            "kernel": ("diagonal", "dplr", "dense"),
            "convolve": (),
            "scan": ("diagonal",),
            "cascade": ("diagonal",),
            "correlate": (),
        }
    )
    linear_method = "convolution"
    arithmetic = Arithmetic(summation="pairwise", kernel_dtype="float64")

    def __init__(self, workers: int | None = None) -> None:
        self.workers = available_cores() if workers is None else at_least("workers", workers, 1)

    def kernel(self, system: System, length: int, power: int = 1) -> Array:
        """K_i = weight · Re(C Āⁱ B̄^{∘power}), i = 0 … length - 1, (H, length).

        Accuracy: as `diagonal_kernel`, `dplr_kernel` or `dense_kernel`; B̄^{∘power} adds power - 1
        rounded complex products, and the result is rounded once to the system's dtype.

        References: Eq. 5, Eq. 14, Algorithm 1.
        """
        self._accept(system, "kernel")
        length = at_least("length", length, 0)
        kind = np.float64 if isinstance(system, DenseSystem) and not is_complex(system) else np.complex128
        exact = {name: parameter.astype(kind) for name, parameter in system.parameters.items()}
        B_bar = exact["B_bar"]
        for _ in range(at_least("power", power, 1) - 1):
            exact["B_bar"] = exact["B_bar"] * B_bar
        if isinstance(system, DPLRSystem):
            kernel = dplr_kernel(**exact, length=length, conjugate_pairs=system.conjugate_pairs)
        elif isinstance(system, DenseSystem):
            kernel = dense_kernel(**exact, length=length)
        else:
            kernel = diagonal_kernel(**exact, length=length, weight=system.weight)
        return kernel.astype(system.dtype)

    def convolve(self, kernel: Array, u: Array) -> Array:
        """y_k = Σ_{i<=k} K_i u_{k-i}, (batch, H, L); see `causal_convolution`."""
        n_entries = kernel.shape[-1] if kernel.ndim else 0
        return causal_convolution(shaped("kernel", kernel, (signal(u).shape[1], n_entries), u.dtype), u, self.workers)

    def scan(self, system: System, u: Array, state: Array | None = None, *, liquid: bool) -> tuple[Array, Array]:
        """x_k = (Ā + B̄ u_k [liquid]) ∘ x_{k-1} + B̄ u_k, y_k = weight · Re(C x_k) (Eq. 11, Eq. 2).

        Args:
            u: (batch, H, L).
            state: x_{-1}, (batch, H, M), zero if None.
            liquid: with the input in the transition.

        Returns:
            y (batch, H, L) and x_{L-1} (batch, H, M).

        Accuracy: per step and mode B̄ u (one real-by-complex product), with `liquid` one addition Ā + B̄ u,
        one complex product and one complex addition; the output as `read_out`.
        """
        A_bar, B_bar, C = self._parameters(system, "scan", u)
        y, final = np.empty(u.shape, u.dtype), _start(state, (len(u), *C.shape), C.dtype)
        # Drive, transition, solution and read-out terms of one time step.
        for h, rows, times in _time_pieces(u, 4 * C.shape[1] * C.itemsize):
            drive = B_bar[h, :, None, None] * u[rows, h, times]
            states = np.empty((*drive.shape[:2], drive.shape[2] + 1), drive.dtype)
            for m, a in enumerate(A_bar[h]):
                start = final[rows, h, m]
                if liquid:
                    for row, v in enumerate(drive[m]):
                        states[m, row] = varying_recurrence(a + v, v, start[row])
                else:
                    states[m] = constant_recurrence(a, drive[m], start)
            y[rows, h, times] = read_out(C[h, :, None, None], states[..., 1:], system.weight, axis=0)
            final[rows, h] = states[..., -1].T
        return y, final

    def cascade(
        self,
        system: System,
        u: Array,
        state: Array | None = None,
        *,
        order: int,
        kind: CascadeKind,
        window: int | None = None,
    ) -> tuple[Array, Array | None]:
        """The recurrences of the liquid orders one after the other (Eq. 12, Eq. 14).

        `truncated`: x^(p)_k = Ā x^(p)_{k-1} + (B̄ u_k) ∘ x^(p-1)_{k-1}, y = weight · Re(C Σ_p x^(p)).
        `chain`: vʲ_k = Ā vʲ_{k-1} + u_k vʲ⁻¹_{k-1}, y = weight · Re(C v^order).  Both start from B̄ u_k.

        Args:
            u: (batch, H, L).
            state: (batch, order, H, M), zero if None.
            order: number of recurrences >= 1.
            kind: `truncated` or `chain`.
            window: each y_k from a chain that starts at rest `window` inputs ago; `chain` only.

        Returns:
            y (batch, H, L) and the final states (batch, order, H, M), None with a window.

        Accuracy: per step, mode and order the drive (`truncated`: B̄ u and one complex product, `chain`:
        one real-by-complex product, first order: B̄ u), one complex product and one complex addition;
        the sum over the orders is a balanced tree; the output as `read_out`.
        """
        A_bar, B_bar, C = self._parameters(system, "cascade", u)
        at_least("order", order, 1)
        if kind not in ("truncated", "chain"):
            raise unknown_name("cascade kind", kind, ("truncated", "chain"))
        if window is not None:
            if kind != "chain" or state is not None:
                raise ParameterError(
                    f"window is {window} with kind {kind!r} and {'no' if state is None else 'a'} state; a window "
                    "needs kind 'chain', which starts at rest. Leave out the window or the state."
                )
            return windowed_chain(A_bar, B_bar, C, u, order, at_least("window", window, order), system.weight), None
        y = np.empty(u.shape, u.dtype)
        final = _start(state, (len(u), order, *C.shape), C.dtype)
        # All orders, two drives and the read-out terms of one time step.
        for h, rows, times in _time_pieces(u, (order + 4) * C.shape[1] * C.itemsize):
            inputs = u[rows, h, times]
            B_u = B_bar[h, :, None, None] * inputs
            states = np.empty((order, *B_u.shape[:2], B_u.shape[2] + 1), C.dtype)
            factor = B_u if kind == "truncated" else inputs[None]
            for p in range(order):
                drive = B_u if p == 0 else factor * states[p - 1, ..., :-1]
                for m, a in enumerate(A_bar[h]):
                    states[p, m] = constant_recurrence(a, drive[m], final[rows, p, h, m])
            x = pairwise_sum(states[..., 1:], axis=0) if kind == "truncated" else states[-1, ..., 1:]
            y[rows, h, times] = read_out(C[h, :, None, None], x, system.weight, axis=0)
            final[rows, :, h] = states[..., -1].transpose(2, 0, 1)
        return y, final

    def correlate(
        self,
        u: Array,
        *,
        order: int,
        kind: CorrelationKind,
        window: int | None = None,
        sums: Array | None = None,
        previous: Array | None = None,
    ) -> tuple[Array, Array | None]:
        """Products of p different inputs for p = 2 … order (Eq. 14, Eq. 15); see `Backend`.

        Args:
            u: (batch, H, L).
            order: highest order P.
            kind: `products` u_k … u_{k-p+1}, `running` their sum, or `elementary` e_p.
            window: how many of the newest inputs a sum may use.
            sums: sums so far; without a window only.
            previous: inputs before u_0, (batch, H, any number), newest last; zeros if None.
                `elementary` without a window does not use them: its sums hold them already.

        Returns:
            terms (order-1, batch, H, L), entry p-2 of order p, and the final sums or None.

        Accuracy: each product of p inputs has p - 1 rounded products behind it.  Sums without a window
        run in time order, one addition per step; with a window w at most w - p additions (`running`) or
        w + p - 2 (`elementary`) are behind each product.
        """
        batch, n_channels, _ = signal(u).shape
        at_least("order", order, 1)
        if kind not in ("products", "running", "elementary"):
            raise unknown_name("correlation kind", kind, ("products", "running", "elementary"))
        if sums is not None and (kind == "products" or window is not None):
            raise ParameterError(
                f"sums were given with kind {kind!r} and window {window}; only sums over all inputs are carried. "
                "Leave them out and give the previous inputs."
            )
        if window is not None:
            at_least("window", window, order)
        held = order if kind == "elementary" else order - 1
        sums = optional("sums", sums, (held, batch, n_channels), u.dtype)
        if previous is not None:
            n_previous = previous.shape[-1] if previous.ndim else 0
            previous = shaped("previous", previous, (batch, n_channels, n_previous), u.dtype)
        if kind == "products":
            return correlations.adjacent_products(u, order, previous), None
        if kind == "running":
            if window is None:
                return correlations.running_products(u, order, sums, previous)
            return correlations.moving_products(u, order, window, previous), None
        if window is None:
            return correlations.elementary(u, order, sums)
        return correlations.moving_elementary(u, order, window, previous), None

    def _accept(self, system: System, primitive: str) -> None:
        allowed = self.capabilities.primitives[primitive]
        if system.structure not in allowed:
            raise BackendRejected(
                f"{self.name} has no {primitive} for this structure; use backend='numpy'.",
                [Rejection(self.name, "structure", " or ".join(allowed), system.structure)],
            )

    def _parameters(self, system: System, primitive: str, u: Array) -> tuple[Array, Array, Array]:
        """(Ā, B̄, C) of a diagonal system in u's precision, all complex if one of them is."""
        self._accept(system, primitive)
        assert isinstance(system, DiagonalSystem)
        system = system.astype(signal(u, system.n_channels).dtype)
        kind = np.result_type(*system.parameters.values())
        return system.A_bar.astype(kind), system.B_bar.astype(kind), system.C.astype(kind)


def is_complex(system: System) -> bool:
    """Whether a parameter is complex, and with it the state."""
    return any(np.iscomplexobj(parameter) for parameter in system.parameters.values())


def _start(state: Array | None, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """A writable copy of the initial state."""
    return np.zeros(shape, dtype) if state is None else shaped("state", state, shape, dtype)


def _time_pieces(u: Array, step_bytes: int) -> Iterator[tuple[int, slice, slice]]:
    """(channel, rows, times) over all of u; per channel and rows the times in their order."""
    batch, n_channels, length = u.shape
    for h in range(n_channels):
        for rows, times in pieces((batch, length), step_bytes):
            yield h, rows, times


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
