"""The primitives on tensors that have been checked, and their vector-Jacobian products, without autograd.

Tensors come in and go out as torch has them; complex ones are taken apart and put together here where the backend
works on real and imaginary parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import torch

from liquid_ssm.complex_numbers import Number, conj, join

from . import convolution, correlations
from .cascade import Chain, Truncated
from .cauchy import dplr_kernel
from .chunked import best_chunk, chunked_scan
from .memory import BACKWARD_TEMPORARIES, FORWARD_TEMPORARIES, bytes_per_step, explained
from .model import Model, as_number
from .pieces import piece_steps, scan_in_pieces
from .recurrence import Recurrence, like, run, run_vjp
from .scan import Scan
from .vandermonde import diagonal_kernel, diagonal_kernel_vjp, to_power
from .windowed import run_windowed, run_windowed_vjp

Tensors = tuple[torch.Tensor | None, ...]


@dataclass(frozen=True)
class Operations:
    """The primitives as functions of a tuple of tensors, a system being its parameters in their order.

    Args:
        split: complex numbers are kept as two real tensors.
        chunk_steps: steps whose states are kept at once, None for what fits.
    """

    split: bool
    chunk_steps: int | None

    # --- kernels and convolutions ------------------------------------------------------------------------------

    def kernel(self, system: Any, parameters: Sequence[Any], length: int, power: int) -> torch.Tensor:
        """(H, length)."""
        model = self._model(system, parameters)
        with _without_autocast(model.real):
            if model.structure == "diagonal":
                return diagonal_kernel(**model.parameters, length=length, power=power, weight=model.weight)
            if not self.split:
                pairs = model.conjugate_pairs
                return dplr_kernel(**model.parameters, length=length, power=power, conjugate_pairs=pairs)
            recurrence, impulse = _impulse_response(model, length, power)
            y, _ = run(recurrence, impulse, recurrence.at_rest(impulse), self.chunk_steps)
            return y[0].contiguous()

    def kernel_vjp(
        self, system: Any, parameters: Sequence[Any], length: int, power: int, grad: torch.Tensor | None
    ) -> dict[str, torch.Tensor]:
        """Cotangents by the parameters' names; those of dplr and dense systems are adjoints of an impulse's answer."""
        model = self._model(system, parameters)
        named = dict(zip(system.parameters, parameters, strict=True))
        if grad is None:
            return {name: like(tensor, None) for name, tensor in named.items()}
        with _without_autocast(grad):
            if model.structure == "diagonal":
                found: dict[str, Number | None] = dict(
                    diagonal_kernel_vjp(**model.parameters, length=length, power=power, weight=model.weight, grad=grad)
                )
            else:
                recurrence, impulse = _impulse_response(model, length, power)
                rest = recurrence.at_rest(impulse)
                found, _, _ = run_vjp(recurrence, impulse, rest, grad[None], None, self.chunk_steps)
                if power > 1 and found["B_bar"] is not None:
                    slope = to_power(model.parameters["B_bar"], power - 1) * power
                    found["B_bar"] = conj(slope) * found["B_bar"]
            return {name: like(tensor, found[name]) for name, tensor in named.items()}

    def convolve(self, kernel: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        """(batch, H, L)."""
        with _without_autocast(u):
            return (convolution.direct_convolution if self.split else convolution.fft_convolution)(kernel, u)

    def convolve_vjp(
        self, kernel: torch.Tensor, u: torch.Tensor, grad: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Cotangents of kernel and u."""
        if grad is None:
            return torch.zeros_like(kernel), torch.zeros_like(u)
        with _without_autocast(u):
            adjoint = convolution.direct_convolution_vjp if self.split else convolution.fft_convolution_vjp
            return adjoint(kernel, u, grad)

    # --- recurrences -------------------------------------------------------------------------------------------

    def scan(
        self, system: Any, parameters: Sequence[Any], u: torch.Tensor, state: torch.Tensor | None, liquid: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """y and the final state."""
        scan = Scan(self._model(system, parameters), liquid=liquid)
        with self._computing("scan", scan, u, FORWARD_TEMPORARIES):
            start = None if state is None else self._number(state)
            y, final = self._run_scan(scan, u, start)
            # Without steps the final state is the initial one, which results must not share memory with.
            return y, join(final) if u.shape[-1] else join(final).clone()

    def scan_vjp(
        self,
        system: Any,
        parameters: Sequence[Any],
        u: torch.Tensor,
        state: torch.Tensor | None,
        grad_y: torch.Tensor | None,
        grad_state: torch.Tensor | None,
        liquid: bool,
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
        """Cotangents of the parameters by name, of u and of the initial state."""
        scan = Scan(self._model(system, parameters), liquid=liquid)
        with self._computing("the gradient of scan", scan, u, BACKWARD_TEMPORARIES):
            start, last = (scan.at_rest(u) if x is None else self._number(x) for x in (state, grad_state))
            found, grad_u, grad_initial = run_vjp(scan, u, start, grad_y, last, self.chunk_steps)
            initial = join(grad_initial)
            return self._by_name(system, parameters, found), grad_u, initial if u.shape[-1] else initial.clone()

    def cascade(
        self,
        system: Any,
        parameters: Sequence[Any],
        u: torch.Tensor,
        state: torch.Tensor | None,
        order: int,
        kind: str,
        window: int | None,
    ) -> tuple[torch.Tensor, ...]:
        """y and, without a window, the final states (batch, order, …)."""
        cascade = self._cascade(system, parameters, order, kind)
        with self._computing("cascade", cascade, u, FORWARD_TEMPORARIES):
            if window is not None:
                return (run_windowed(cascade, u, window, self.chunk_steps),)
            y, final = run(cascade, u, self._orders_first(cascade, u, state), self.chunk_steps)
            return y, _batch_first(join(final))

    def cascade_vjp(
        self,
        system: Any,
        parameters: Sequence[Any],
        u: torch.Tensor,
        state: torch.Tensor | None,
        grad_y: torch.Tensor | None,
        grad_state: torch.Tensor | None,
        order: int,
        kind: str,
        window: int | None,
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor | None]:
        """Cotangents of the parameters by name, of u and of the initial states (None with a window)."""
        cascade = self._cascade(system, parameters, order, kind)
        with self._computing("the gradient of cascade", cascade, u, BACKWARD_TEMPORARIES):
            if window is not None:
                found, grad_u = run_windowed_vjp(cascade, u, window, grad_y, self.chunk_steps)
                return self._by_name(system, parameters, found), grad_u, None
            start, last = (self._orders_first(cascade, u, x) for x in (state, grad_state))
            found, grad_u, grad_initial = run_vjp(cascade, u, start, grad_y, last, self.chunk_steps)
            return self._by_name(system, parameters, found), grad_u, _batch_first(join(grad_initial))

    # --- correlations ------------------------------------------------------------------------------------------

    def correlate(
        self, u: torch.Tensor, sums: torch.Tensor | None, previous: torch.Tensor | None, **options: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Terms and final sums."""
        with _without_autocast(u):
            return correlations.correlate(u, sums=sums, previous=previous, **options)

    def correlate_vjp(
        self,
        u: torch.Tensor,
        sums: torch.Tensor | None,
        previous: torch.Tensor | None,
        grad_terms: torch.Tensor | None,
        grad_sums: torch.Tensor | None,
        **options: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Cotangents of u, `sums` and `previous`."""
        with _without_autocast(u):
            return correlations.correlate_vjp(u, grad_terms, grad_sums, sums=sums, previous=previous, **options)

    # --- parts -------------------------------------------------------------------------------------------------

    def _model(self, system: Any, parameters: Sequence[Any]) -> Model:
        return Model.having(system, dict(zip(system.parameters, parameters, strict=True)), self.split)

    def _cascade(self, system: Any, parameters: Sequence[Any], order: int, kind: str) -> Truncated | Chain:
        return (Chain if kind == "chain" else Truncated)(self._model(system, parameters), order=order)

    def _run_scan(self, scan: Scan, u: torch.Tensor, start: Number | None) -> tuple[torch.Tensor, Number]:
        model, length = scan.model, u.shape[-1]
        dtype = str(u.dtype).removeprefix("torch.")
        chunk = None if scan.liquid else linear_chunk(model.structure, int(scan.ports.C.shape[1]), length, dtype)
        if chunk is not None:
            A_bar, B_bar, C = (model.parameters[name] for name in ("A_bar", "B_bar", "C"))
            return chunked_scan(A_bar, B_bar, C, u, start, chunk, model.weight)
        piece = scan_piece(model.structure, prod(scan.state_shape(tuple(u.shape[:-1]))), length)
        if piece is not None:
            return scan_in_pieces(scan, u, start, piece, self.chunk_steps)
        return run(scan, u, scan.at_rest(u) if start is None else start, self.chunk_steps)

    def _number(self, state: torch.Tensor) -> Number:
        return as_number(state, self.split and state.is_complex())

    def _orders_first(self, cascade: Recurrence, u: torch.Tensor, state: torch.Tensor | None) -> Number:
        return cascade.at_rest(u) if state is None else self._number(_batch_first(state))

    def _by_name(
        self, system: Any, parameters: Sequence[Any], found: dict[str, Number | None]
    ) -> dict[str, torch.Tensor]:
        named = zip(system.parameters, parameters, strict=True)
        return {name: like(tensor, found[name]) for name, tensor in named}

    @contextmanager
    def _computing(self, what: str, recurrence: Recurrence, u: torch.Tensor, temporaries: int) -> Iterator[None]:
        elements = prod(recurrence.state_shape(tuple(u.shape[:-1]))) * recurrence.spread
        itemsize = u.element_size() * (2 if recurrence.model.is_complex else 1)
        with _without_autocast(u), explained(what, bytes_per_step(elements, itemsize, temporaries), u.device):
            yield


def linear_chunk(structure: str, n_modes: int, length: int, dtype: str) -> int | None:
    """Steps that the linear recurrence takes at once by tables, or None; the shape alone decides."""
    return best_chunk(n_modes, length, dtype) if structure == "diagonal" else None


def scan_piece(structure: str, elements: int, length: int) -> int | None:
    """Steps of the pieces of a scan whose state has so many numbers, or None for the order of time."""
    return piece_steps(elements, length) if structure in ("diagonal", "mimo") else None


def _impulse_response(model: Model, length: int, power: int) -> tuple[Scan, torch.Tensor]:
    """The recurrence with B̄^{∘power} and the impulse whose answer the kernel is."""
    powered = {**model.parameters, "B_bar": to_power(model.parameters["B_bar"], power)}
    impulse = model.real.new_zeros((1, int(model.real.shape[0]), length))
    impulse[..., :1] = 1
    return Scan(model._replace(parameters=powered), liquid=False), impulse


def _batch_first(state: torch.Tensor) -> torch.Tensor:
    """A copy of states (order, batch, …) as (batch, order, …), or the other way round."""
    return state.transpose(0, 1).clone(memory_format=torch.contiguous_format)


def _without_autocast(beside: torch.Tensor) -> Any:
    """Autocast would round to half precision here and there."""
    return torch.autocast(beside.device.type, enabled=False)
