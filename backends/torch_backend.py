"""Backend `torch`: plain torch operations on any device, with gradients."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from functools import cache
from importlib import metadata
from typing import Any, final

from liquid_ssm.backend import (
    Arithmetic,
    Backend,
    Capabilities,
    CascadeKind,
    CorrelationKind,
    Gradients,
    Rejection,
)
from liquid_ssm.errors import BackendRejected, ParameterError, unknown_name
from liquid_ssm.problem import Problem, commutes
from liquid_ssm.systems import System

from ._arguments import at_least
from ._tensors import on_tensors

Tensor = Any  # torch is imported when the first method computes

OLDEST = (2, 4)
_KERNELS = ("diagonal", "dplr")
_SINGLE_INPUT = ("diagonal", "dplr", "dense")
_ALL = (*_SINGLE_INPUT, "mimo")


@final
class TorchBackend(Backend):
    """Every primitive in plain torch operations, on the device of its tensors, differentiable by autograd.

    A system is cast to u's precision first.  A state is complex exactly if a parameter of the system is.  Tensors are
    never written to, results never share memory with them, and nothing depends on `torch.autocast`.  Second
    derivatives of `scan`, `cascade` and the rest are errors.

    Args:
        split: complex numbers are kept as two real tensors, for compilers, export formats and devices without complex
            numbers: none is formed but from a complex parameter or state that is given and for a state that is
            returned.  There is no FFT then, so the linear term is a recurrence, and so are kernels of dplr and dense
            systems, the latter of which are computed with it only.
        chunk_steps: steps whose states are kept at once; None for at most 64, and at most 2²⁰ numbers.

    Raises:
        ParameterError: chunk_steps below 1.

    Accuracy:
        Sums run in an order that depends on the shape and the device.  Recurrences run in the order of time but for
        scans of few rows (`arithmetic_for`); none is a matrix product, which flags of torch may round to fewer bits.
        docs/bounds.md counts the operations.
    """

    name = "torch"
    requires = ("torch",)
    install = "pip install 'liquid-ssm[torch]'"
    capabilities = Capabilities(
        primitives={
            "kernel": _KERNELS,
            "convolve": (),
            "scan": _ALL,
            "cascade": _ALL,
            "correlate": (),
        },
        devices=("any",),
        arrays=("numpy", "torch"),
        gradients=True,
    )
    linear_method = "convolution"
    arithmetic = Arithmetic(
        summation="any",
        fused=None,
        kernels="tables",
        kernel_dtype="float64",
        table_dtype="float64",
        fft_gradients=True,
    )
    # Where NumPy arrays are computed.
    numpy_device = "cpu"

    def __init__(self, *, split: bool = False, chunk_steps: int | None = None) -> None:
        self.split = split
        self.chunk_steps = None if chunk_steps is None else at_least("chunk_steps", chunk_steps, 1)
        if split:
            self.__dict__.update(
                name="torch-split-real",
                linear_method="recurrence",
                arithmetic=replace(self.arithmetic, fft_gradients=False),
                capabilities=replace(
                    self.capabilities, primitives={**self.capabilities.primitives, "kernel": _SINGLE_INPUT}
                ),
            )

    def warm_up_seconds(self) -> float:
        """Importing torch takes some seconds."""
        return 0.0 if "torch" in sys.modules else 3.0

    def reject(self, problem: Problem) -> Rejection | None:
        if not self.missing_packages() and _version()[: len(OLDEST)] < OLDEST:
            found, needed = metadata.version("torch"), ".".join(map(str, OLDEST))
            return Rejection(self.name, "package", f"torch >= {needed}", found, "run: pip install --upgrade torch")
        return super().reject(problem)

    def arithmetic_for(self, problem: Problem) -> Arithmetic:
        """How a problem of this shape is rounded.

        Scans of diagonal and `mimo` systems with few rows run in pieces, linear ones of diagonal systems in chunks
        where that is faster.  Vector-Jacobian products never do, and it is they that a problem with gradients means:
        outputs of tensors that ask for gradients are those, bit for bit, of the problem without.
        """
        # Elsewhere running sums are doubled (`eager.sliding`).
        usual = self.arithmetic if problem.device == "cpu" else replace(self.arithmetic, correlations="sums")
        if self.split and problem.structure in ("dplr", "dense"):
            usual = replace(usual, kernels="recurrence", kernel_dtype=None)
        if problem.gradient:
            return usual
        spec = problem.spec
        linear = spec.mode in ("s4", "kb", "pb") and not commutes(problem.structure, spec)
        if not linear and spec.mode != "liquid":
            return usual
        from .eager.operations import linear_chunk, scan_piece
        from .eager.precision import factor_dtype

        structure, length, dtype = problem.structure, problem.length, problem.dtype
        chunk = linear_chunk(structure, problem.n_modes, length, dtype) if linear else None
        if chunk is not None:
            return replace(usual, linear_chunk=chunk, factor_dtype=factor_dtype(dtype, problem.device))
        rows = problem.batch * (1 if structure == "mimo" else problem.n_channels)
        piece = scan_piece(structure, rows * problem.n_modes, length)
        return usual if piece is None else replace(usual, scan="any", scan_chunk=piece)

    @on_tensors
    def kernel(self, system: System, length: int, power: int = 1) -> Tensor:
        """K_i = weight · Re(C Āⁱ B̄^{∘power}), i = 0 … length - 1, (H, length).

        Accuracy: diagonal systems from tables of powers in float64, rounded once to the system's precision; dplr ones
        in float64 by Cauchy sums; dplr and dense ones with `split` as the recurrence's answer to an impulse
        (docs/bounds-kernels.md).

        References: Eq. 5, Eq. 14, Algorithm 1.
        """
        self._require(system, "kernel", self.capabilities.primitives["kernel"])
        length, power = at_least("length", length, 0), at_least("power", power, 1)
        run = self._operations

        def forward(tensors: Any) -> Any:
            return (run.kernel(system, tensors, length, power),)

        def adjoint(tensors: Any, grads: Any) -> Any:
            return tuple(run.kernel_vjp(system, tensors, length, power, *grads).values())

        return self._differentiable("kernel", forward, adjoint, tuple(system.parameters.values()))[0]

    @on_tensors
    def kernel_vjp(self, system: System, length: int, power: int, grad: Tensor | None) -> dict[str, Tensor]:
        """Gradients of the system's parameters from the cotangent (H, length) of the kernel."""
        from .eager.arguments import optional

        self._require(system, "kernel", self.capabilities.primitives["kernel"])
        length, power = at_least("length", length, 0), at_least("power", power, 1)
        grad = optional("grad", grad, (system.n_channels, length), system.dtype, system.C)
        found: dict[str, Tensor] = self._operations.kernel_vjp(system, _values(system), length, power, grad)
        return found

    @on_tensors
    def convolve(self, kernel: Tensor, u: Tensor) -> Tensor:
        """y_k = Σ_{i<=k} K_i u_{k-i}, (batch, H, L), by FFT, or with `split` as the direct sum."""
        run = self._operations

        def forward(tensors: Any) -> Any:
            return (run.convolve(*tensors),)

        def adjoint(tensors: Any, grads: Any) -> Any:
            return run.convolve_vjp(*tensors, *grads)

        return self._differentiable("convolve", forward, adjoint, (_checked_kernel(kernel, u), u))[0]

    @on_tensors
    def convolve_vjp(self, kernel: Tensor, u: Tensor, grad: Tensor | None) -> tuple[Tensor, Tensor]:
        """Gradients of kernel and u from the cotangent of y."""
        from .eager.arguments import optional

        kernel = _checked_kernel(kernel, u)
        grad = optional("grad", grad, tuple(u.shape), u.dtype, u)
        grad_kernel, grad_u = self._operations.convolve_vjp(kernel, u, grad)
        return grad_kernel, grad_u

    @on_tensors
    def scan(self, system: System, u: Tensor, state: Tensor | None = None, *, liquid: bool) -> tuple[Tensor, Tensor]:
        """Eq. 11, or Eq. 2 without `liquid`: y (batch, H, L) and the final state.

        Memory: y, and the states of one chunk of steps.
        """
        system, state = self._recurrence(system, u, state, (), "scan", _ALL)
        run = self._operations

        def forward(tensors: Any) -> Any:
            u, state, *parameters = tensors
            return run.scan(system, parameters, u, state, liquid)

        def adjoint(tensors: Any, grads: Any) -> Any:
            u, state, *parameters = tensors
            by_name, grad_u, grad_state = run.scan_vjp(system, parameters, u, state, *grads, liquid)
            return grad_u, None if state is None else grad_state, *by_name.values()

        y, final_state = self._differentiable("scan", forward, adjoint, (u, state, *_values(system)))
        return y, final_state

    @on_tensors
    def scan_vjp(
        self,
        system: System,
        u: Tensor,
        state: Tensor | None,
        grad_y: Tensor | None,
        grad_state: Tensor | None,
        *,
        liquid: bool,
    ) -> Gradients:
        """Adjoint of `scan`, in the order of time.

        Memory: one state per chunk of steps, and the states of one chunk.
        """
        from .eager.arguments import optional

        system, start = self._recurrence(system, u, state, (), "scan", _ALL)
        grad_y = optional("grad_y", grad_y, tuple(u.shape), u.dtype, u)
        grad_state = self._state(system, u, grad_state, (), "grad_state")
        found = self._operations.scan_vjp(system, _values(system), u, start, grad_y, grad_state, liquid)
        return _in_dtype_of(state, Gradients(*found))

    @on_tensors
    def cascade(
        self,
        system: System,
        u: Tensor,
        state: Tensor | None = None,
        *,
        order: int,
        kind: CascadeKind,
        window: int | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Orders 1 … `order` of Eq. 12, or the index sum of Eq. 14: y and the final states (batch, order, H, M).

        With `window`, O(window) work per step and no states: the second result is None.
        """
        system, state = self._cascade(system, u, state, order, kind, window)
        run = self._operations

        def forward(tensors: Any) -> Any:
            u, state, *parameters = tensors
            return run.cascade(system, parameters, u, state, order, kind, window)

        def adjoint(tensors: Any, grads: Any) -> Any:
            u, state, *parameters = tensors
            grad_y, grad_states = grads if window is None else (*grads, None)
            by_name, grad_u, grad_state = run.cascade_vjp(
                system, parameters, u, state, grad_y, grad_states, order, kind, window
            )
            return grad_u, None if state is None else grad_state, *by_name.values()

        found = self._differentiable("cascade", forward, adjoint, (u, state, *_values(system)))
        return found[0], None if window is not None else found[1]

    @on_tensors
    def cascade_vjp(
        self,
        system: System,
        u: Tensor,
        state: Tensor | None,
        grad_y: Tensor | None,
        grad_state: Tensor | None,
        *,
        order: int,
        kind: CascadeKind,
        window: int | None = None,
    ) -> Gradients:
        """Adjoint of `cascade`, in the order of time; with `window` the gradient of the state is None.

        Memory: as `scan_vjp`, times the order.
        """
        from .eager.arguments import optional

        system, start = self._cascade(system, u, state, order, kind, window)
        if window is not None and grad_state is not None:
            raise ParameterError("grad_state was given, but a cascade with a window has no states; pass None.")
        grad_y = optional("grad_y", grad_y, tuple(u.shape), u.dtype, u)
        grad_state = self._state(system, u, grad_state, (order,), "grad_state")
        found = self._operations.cascade_vjp(system, _values(system), u, start, grad_y, grad_state, order, kind, window)
        return _in_dtype_of(state, Gradients(*found))

    @on_tensors
    def correlate(
        self,
        u: Tensor,
        *,
        order: int,
        kind: CorrelationKind,
        window: int | None = None,
        sums: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Products of adjacent inputs, their sums, or elementary symmetric polynomials, by order; see `Backend`."""
        run = self._operations
        with_sums = kind != "products" and window is None

        def forward(tensors: Any) -> Any:
            terms, final_sums = run.correlate(*tensors, order=order, kind=kind, window=window)
            return (terms, final_sums) if with_sums else (terms,)

        def adjoint(tensors: Any, grads: Any) -> Any:
            both = grads if with_sums else (*grads, None)
            return run.correlate_vjp(*tensors, *both, order=order, kind=kind, window=window)

        found = self._differentiable("correlate", forward, adjoint, (u, sums, previous))
        return found[0], found[1] if with_sums else None

    @on_tensors
    def correlate_vjp(
        self,
        u: Tensor,
        grad_terms: Tensor | None,
        grad_sums: Tensor | None,
        *,
        order: int,
        kind: CorrelationKind,
        window: int | None = None,
        sums: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Gradients of u, `sums` and `previous`; None where the argument was not given."""
        grad_u, grad_start, grad_previous = self._operations.correlate_vjp(
            u, sums, previous, grad_terms, grad_sums, order=order, kind=kind, window=window
        )
        return grad_u, grad_start, grad_previous

    @property
    def _operations(self) -> Any:
        from .eager.operations import Operations

        return Operations(self.split, self.chunk_steps)

    def _differentiable(self, what: str, forward: Any, adjoint: Any, tensors: Any) -> Any:
        from .eager.autograd import differentiable

        return differentiable(f"{self.name}: {what}", forward, adjoint, tensors)

    def _require(self, system: System, what: str, structures: tuple[str, ...]) -> None:
        if system.structure not in structures:
            reason = Rejection(self.name, "structure", f"{' or '.join(structures)} for {what}", system.structure)
            raise BackendRejected(f"{self.name} does not compute {what} for this system:", [reason])

    def _recurrence(
        self,
        system: System,
        u: Tensor,
        state: Tensor | None,
        orders: tuple[int, ...],
        what: str,
        structures: tuple[str, ...],
    ) -> tuple[System, Tensor | None]:
        """The system in u's precision and the state in its dtype."""
        from .eager.arguments import signal

        self._require(system, what, structures)
        system = system.astype(signal(u, system).dtype)
        return system, self._state(system, u, state, orders, "state")

    def _state(
        self, system: System, u: Tensor, state: Tensor | None, orders: tuple[int, ...], name: str
    ) -> Tensor | None:
        from .eager.arguments import complex_of, optional

        modes = (system.n_modes,) if system.structure == "mimo" else (system.n_channels, system.n_modes)
        dtype = complex_of(u.dtype) if system.is_complex else u.dtype
        return optional(name, state, (u.shape[0], *orders, *modes), dtype, u)

    def _cascade(
        self, system: System, u: Tensor, state: Tensor | None, order: int, kind: str, window: int | None
    ) -> tuple[System, Tensor | None]:
        at_least("order", order, 1)
        if kind not in ("truncated", "chain"):
            raise unknown_name("cascade kind", kind, ("truncated", "chain"))
        if window is not None:
            at_least("window", window, order)
            if kind != "chain" or state is not None:
                raise ParameterError(
                    f"window is {window} with kind {kind!r} and {'no' if state is None else 'a'} state; a window needs "
                    "kind 'chain', which starts at rest. Leave out the window or the state."
                )
        structures = _SINGLE_INPUT if kind == "chain" else _ALL
        return self._recurrence(system, u, state, (order,), f"a cascade of kind {kind}", structures)


def split_real() -> TorchBackend:
    """The backend `torch-split-real`: real and imaginary parts apart, without complex tensors inside."""
    return TorchBackend(split=True)


@cache
def _version() -> tuple[int, ...]:
    """The installed torch's, as numbers; nothing is imported for it."""
    return tuple(int(part) for part in re.findall(r"\d+", metadata.version("torch").partition("+")[0])[:3])


def _values(system: System) -> tuple[Tensor, ...]:
    return tuple(system.parameters.values())


def _checked_kernel(kernel: Tensor, u: Tensor) -> Tensor:
    from .eager.arguments import shaped, signal

    n_entries = kernel.shape[-1] if kernel.ndim else 0
    return shaped("kernel", kernel, (signal(u).shape[1], n_entries), u.dtype, u)


def _in_dtype_of(state: Tensor | None, gradients: Gradients) -> Gradients:
    """The gradient of a state in the dtype of the state that was given, the real part for a real one."""
    from .eager.recurrence import like

    if state is None or gradients.state is None:
        return gradients
    return gradients._replace(state=like(state, gradients.state))
