"""Backend `triton`: fused kernels for CUDA GPUs, in Triton; on a CPU in Triton's interpreter, to check results."""

from __future__ import annotations

from dataclasses import replace
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
from .triton_kernels.configurations import interpreting, pieces_for
from .triton_kernels.devices import OLDEST_INTERPRETER, OLDEST_TORCH, OLDEST_TRITON, has_gpu, version

Tensor = Any  # torch is imported when the first method computes

_STRUCTURES = ("diagonal", "dplr")


@final
class TritonBackend(Backend):
    """Every primitive on diagonal and diagonal-plus-low-rank systems, with its vector-Jacobian product.

    Recurrences, kernels of diagonal systems and correlations that are added to an output are Triton kernels, states in
    registers from the first step to the last; what plain torch does as well (convolutions, correlations, windowed
    chains, kernels of dplr systems) is done by it.  Tensors stay where they are, NumPy arrays go to the GPU and come
    back.  With TRITON_INTERPRET=1 in the environment before triton is imported, kernels run on a CPU, slowly.

    Verified in the interpreter and compiled for an H100 (sm_90); figures from a GPU are not measured yet.

    A system is cast to u's precision first.  A state is complex exactly if a parameter of the system is.  Tensors are
    never written to and results never share memory with them.  Second derivatives are errors.

    Args:
        interval: steps between the states that gradients keep, a power of two; longer ones take less memory.
        tune: measure on this GPU which of several configurations of `scan` and `cascade` is fastest, once per shape and
            process, each verified before it is timed.  Then bits of results may differ from process to process.

    Raises:
        ParameterError: interval is no power of two.

    Accuracy:
        Multiply-adds are contracted or not, sums over modes run in an order that depends on the shape.  Recurrences run
        in the order of time but for scans of few rows over many steps (`arithmetic_for`), sums of correlations in any
        order.  docs/bounds.md counts the operations.
    """

    name = "triton"
    requires = ("torch", "triton")
    install = "pip install 'liquid-ssm[triton]'"
    capabilities = Capabilities(
        primitives={
            "kernel": _STRUCTURES,
            "convolve": (),
            "scan": _STRUCTURES,
            "cascade": _STRUCTURES,
            "correlate": (),
        },
        fused={"add_correlations": ()},
        devices=("cuda", "cpu"),
        arrays=("numpy", "torch"),
        gradients=True,
    )
    linear_method = "recurrence"
    gradients_apart = True
    arithmetic = Arithmetic(
        summation="any",
        fused=None,
        kernels="tables",
        kernel_dtype="float64",
        table_dtype="float64",
        correlations="sums",
    )

    def __init__(self, *, interval: int = 64, tune: bool = False) -> None:
        self.interval, self.tune = at_least("interval", interval, 1), tune
        if interval & (interval - 1):
            raise ParameterError(f"interval is {interval}; it must be a power of two, for instance 64.")
        # What operators are told of the options; equal backends have equal names, so that no program is traced twice.
        self._operators = "triton"
        if (interval, tune) != (64, False):
            from .operators.implementations import register

            self._operators = f"triton(interval={interval}, tune={tune})"
            register(self._operators, self, on_numpy=False)

    @property
    def numpy_device(self) -> str:
        """Where NumPy arrays are computed."""
        return "cpu" if interpreting() else "cuda"

    def reject(self, problem: Problem) -> Rejection | None:
        return super().reject(problem) or self._too_old() or self._no_device(problem)

    def arithmetic_for(self, problem: Problem) -> Arithmetic:
        """How a problem of this shape is rounded: a scan of few rows and many steps runs in pieces, gradients never."""
        spec = problem.spec
        scans = spec.mode == "liquid" or (spec.mode in ("s4", "kb", "pb") and not commutes(problem.structure, spec))
        if problem.structure != "diagonal" or problem.gradient or not scans:
            return self.arithmetic
        pieces = pieces_for(problem.batch * problem.n_channels, problem.n_modes, problem.length)
        if pieces == 1:
            return self.arithmetic
        return replace(self.arithmetic, scan="any", scan_chunk=problem.length // pieces)

    # --- kernels and convolutions ------------------------------------------------------------------------------

    @on_tensors
    def kernel(self, system: System, length: int, power: int = 1) -> Tensor:
        """K_i = weight · Re(C Āⁱ B̄^{∘power}), i = 0 … length - 1, (H, length).

        Accuracy: diagonal systems from tables of powers in float64, multiplied in the system's precision; dplr ones in
        float64 by Cauchy sums and rounded once (docs/bounds-kernels.md).

        References: Eq. 5, Eq. 14, Algorithm 1.
        """
        self._require(system, "kernel")
        length, power = at_least("length", length, 0), at_least("power", power, 1)
        if self._outside(system.parameters.values()):
            return _methods().kernel(self._operators, system, length, power)
        self._require_here(system.C)
        if system.structure == "dplr":
            return self._plain.kernel(system, _values(system), length, power)
        from .triton_kernels.vandermonde import diagonal_kernel

        return diagonal_kernel(system, length, power)

    @on_tensors
    def kernel_vjp(self, system: System, length: int, power: int, grad: Tensor | None) -> dict[str, Tensor]:
        """Gradients of the system's parameters from the cotangent (H, length) of the kernel."""
        from .eager.arguments import optional

        self._require(system, "kernel")
        length, power = at_least("length", length, 0), at_least("power", power, 1)
        grad = optional("grad", grad, (system.n_channels, length), system.dtype, system.C)
        return self._plain.kernel_vjp(system, _values(system), length, power, grad)  # type: ignore[no-any-return]

    @on_tensors
    def convolve(self, kernel: Tensor, u: Tensor) -> Tensor:
        """y_k = Σ_{i<=k} K_i u_{k-i}, (batch, H, L), as the direct sum: min(K, L) multiply-adds per step."""
        from .eager.convolution import direct_convolution

        kernel = _checked_kernel(kernel, u)
        if self._outside((kernel, u)):
            return _methods().convolve(self._operators, kernel, u)
        return direct_convolution(kernel, u)

    @on_tensors
    def convolve_vjp(self, kernel: Tensor, u: Tensor, grad: Tensor | None) -> tuple[Tensor, Tensor]:
        """Gradients of kernel and u from the cotangent of y."""
        import torch

        from .eager.arguments import optional
        from .eager.convolution import direct_convolution_vjp

        kernel = _checked_kernel(kernel, u)
        grad = optional("grad", grad, tuple(u.shape), u.dtype, u)
        if grad is None:
            return torch.zeros_like(kernel), torch.zeros_like(u)
        return direct_convolution_vjp(kernel, u, grad)

    # --- recurrences -------------------------------------------------------------------------------------------

    @on_tensors
    def scan(self, system: System, u: Tensor, state: Tensor | None = None, *, liquid: bool) -> tuple[Tensor, Tensor]:
        """Eq. 11, or Eq. 2 without `liquid`: y (batch, H, L) and the final state (batch, H, M).

        Memory: y, and for more than 128 modes of a diagonal system as much again for every 128.
        """
        self._require(system, "scan")
        if self._outside((u, state, *_values(system))):
            return _methods().scan(  # type: ignore[no-any-return]
                self._operators, system, u, state, liquid=liquid, state_dtype=None
            )
        system, state = self._recurrence(system, u, state, ())
        states = None if state is None else state[:, None]
        kind = "liquid" if liquid else "linear"
        batch, n_channels, length = u.shape
        pieces = pieces_for(batch * n_channels, system.n_modes, length)
        if pieces > 1 and system.structure == "diagonal":
            from .triton_kernels.pieces import scan_in_pieces

            y, final_states = scan_in_pieces(system, u, states, liquid=liquid, pieces=pieces)
        else:
            y, final_states = self._run(system, u, states, kind, 1)
        return y, final_states[:, 0].contiguous()

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
        """Adjoint of `scan`, in the order of time; states are computed again chunk by chunk.

        Memory: per row one state per `interval` steps, and one per 8 steps of an interval.
        """
        self._require(system, "scan")
        given = state
        system, state = self._recurrence(system, u, state, ())
        grad_state = self._state(system, u, grad_state, (), "grad_state")
        states, final_cotangents = (None if x is None else x[:, None] for x in (state, grad_state))
        found = self._adjoint(system, u, states, grad_y, final_cotangents, "liquid" if liquid else "linear", 1)
        return _in_dtype_of(given, found._replace(state=found.state[:, 0]))

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

        With `window`, O(window) work per step in plain torch, and no states: the second result is None.
        """
        self._check_cascade(system, state, order, kind, window)
        if self._outside((u, state, *_values(system))):
            options = {"order": order, "kind": kind, "window": window, "state_dtype": None}
            return _methods().cascade(self._operators, system, u, state, **options)  # type: ignore[no-any-return]
        system, state = self._recurrence(system, u, state, (order,))
        if window is not None:
            return self._plain.cascade(system, _values(system), u, None, order, kind, window)[0], None
        return self._run(system, u, state, kind, order)

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
        self._check_cascade(system, state, order, kind, window)
        if window is not None and grad_state is not None:
            raise ParameterError("grad_state was given, but a cascade with a window has no states; pass None.")
        given = state
        system, state = self._recurrence(system, u, state, (order,))
        if window is not None:
            grad_y = _cotangent(grad_y, u)
            values = _values(system)
            return Gradients(*self._plain.cascade_vjp(system, values, u, None, grad_y, None, order, kind, window))
        grad_state = self._state(system, u, grad_state, (order,), "grad_state")
        return _in_dtype_of(given, self._adjoint(system, u, state, grad_y, grad_state, kind, order))

    # --- correlations ------------------------------------------------------------------------------------------

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
        options = {"order": order, "kind": kind, "window": window}
        if self._outside((u, sums, previous)):
            return _methods().correlate(  # type: ignore[no-any-return]
                self._operators, u, sums=sums, previous=previous, **options
            )
        return self._plain.correlate(u, sums, previous, **options)  # type: ignore[no-any-return]

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
        return self._plain.correlate_vjp(  # type: ignore[no-any-return]
            u, sums, previous, grad_terms, grad_sums, order=order, kind=kind, window=window
        )

    def add_correlations(
        self,
        y: Any,
        u: Any,
        responses: Any,
        *,
        order: int,
        kind: CorrelationKind,
        sums: Any = None,
        previous: Any = None,
    ) -> Any:
        """y ← y + Σ_p responses_p · term_p in place and in one pass; the final sums.  See `Backend`."""
        given = {"order": order, "kind": kind, "sums": sums, "previous": previous}
        final_sums, total = self._added(y, u, responses, **given)
        if total is not y:
            y[...] = total
        return final_sums

    def added_correlations(
        self,
        y: Tensor,
        u: Tensor,
        responses: Tensor,
        *,
        order: int,
        kind: CorrelationKind,
        sums: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """`add_correlations` for tensors: y + Σ_p responses_p · term_p and the final sums, with gradients."""
        options = {"order": order, "kind": kind, "sums": sums, "previous": previous}
        return _methods().added_correlations(  # type: ignore[no-any-return]
            self._operators, y, u, responses, **options
        )

    @on_tensors
    def _added(self, y: Tensor, u: Tensor, responses: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
        """The final sums and y, written to; for arrays that live elsewhere y is a copy."""
        from .eager.arguments import shaped
        from .operators import checks
        from .triton_kernels.added_correlations import add_correlations

        order, kind, sums, previous = (options[name] for name in ("order", "kind", "sums", "previous"))
        checks.correlations(u, sums, previous, order, kind, None, ("running", "elementary"))
        responses = shaped("responses", responses, (order - 1, u.shape[1]), u.dtype, u)
        if y.shape != u.shape or y.dtype != u.dtype or not y.is_contiguous():
            raise ParameterError(
                f"y is {tuple(y.shape)} {y.dtype}, contiguous: {y.is_contiguous()}; it is written to and must be a "
                f"contiguous tensor {tuple(u.shape)} {u.dtype}."
            )
        self._require_here(u)
        elementary = kind == "elementary"
        final_sums = add_correlations(y, u, responses, order=order, elementary=elementary, sums=sums, previous=previous)
        return final_sums, y

    # --- parts -------------------------------------------------------------------------------------------------

    @property
    def _plain(self) -> Any:
        """What plain torch does as well."""
        from .eager.operations import Operations

        return Operations(split=False, chunk_steps=None)

    def _run(self, system: System, u: Tensor, states: Tensor | None, kind: str, order: int) -> tuple[Tensor, Tensor]:
        from .triton_kernels.recurrences import recurrence

        configuration = None
        if self.tune and not interpreting() and system.structure == "diagonal" and u.numel():
            from .triton_kernels.autotune import best_recurrence

            configuration = best_recurrence(type(system), u, system.n_modes, kind, order)
        return recurrence(system, u, states, kind=kind, order=order, configuration=configuration)

    def _adjoint(
        self,
        system: System,
        u: Tensor,
        states: Tensor | None,
        grad_y: Tensor | None,
        grad_states: Tensor | None,
        kind: str,
        order: int,
    ) -> Gradients:
        from .triton_kernels.recurrences import recurrence_vjp

        grad_y = _cotangent(grad_y, u)
        return recurrence_vjp(system, u, states, grad_y, grad_states, kind=kind, order=order, interval=self.interval)

    def _recurrence(
        self, system: System, u: Tensor, state: Tensor | None, orders: tuple[int, ...]
    ) -> tuple[System, Tensor | None]:
        """The system in u's precision and the state in its dtype."""
        from .eager.arguments import signal

        system = system.astype(signal(u, system).dtype)
        self._require_here(u)
        return system, self._state(system, u, state, orders, "state")

    def _state(
        self, system: System, u: Tensor, state: Tensor | None, orders: tuple[int, ...], name: str
    ) -> Tensor | None:
        from .eager.arguments import optional

        dtype = u.dtype.to_complex() if system.is_complex else u.dtype
        return optional(name, state, (u.shape[0], *orders, system.n_channels, system.n_modes), dtype, u)

    def _check_cascade(self, system: System, state: Tensor | None, order: int, kind: str, window: int | None) -> None:
        self._require(system, "cascade")
        at_least("order", order, 1)
        if kind not in ("truncated", "chain"):
            raise unknown_name("cascade kind", kind, ("truncated", "chain"))
        if window is None:
            return
        at_least("window", window, order)
        if kind != "chain" or state is not None:
            raise ParameterError(
                f"window is {window} with kind {kind!r} and {'no' if state is None else 'a'} state; a window needs "
                "kind 'chain', which starts at rest. Leave out the window or the state."
            )

    def _require(self, system: System, what: str) -> None:
        if system.structure not in _STRUCTURES:
            reason = Rejection(self.name, "structure", f"{' or '.join(_STRUCTURES)} for {what}", system.structure)
            raise BackendRejected(f"{self.name} does not compute {what} for this system:", [reason])

    def _require_here(self, tensor: Tensor) -> None:
        if tensor.device.type != "cuda" and not interpreting():
            raise ParameterError(
                f"the tensors are on {tensor.device}; kernels of {self.name!r} run on a CUDA GPU. Move them with "
                ".to('cuda'), or set TRITON_INTERPRET=1 before Python starts to check results on the CPU."
            )

    def _outside(self, tensors: Any) -> bool:
        """Whether autograd or a compiler looks on, for which there are operators; these call with plain tensors."""
        import torch

        if torch.compiler.is_compiling():
            return True
        given = [tensor for tensor in tensors if tensor is not None]
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given):
            return True
        wrapped = torch._C._functorch.is_functorch_wrapped_tensor
        return any(wrapped(tensor) or isinstance(tensor, torch._subclasses.FakeTensor) for tensor in given)

    def _too_old(self) -> Rejection | None:
        oldest = OLDEST_INTERPRETER if interpreting() else OLDEST_TRITON
        for package, needed in (("torch", OLDEST_TORCH), ("triton", oldest)):
            if version(package) < needed:
                found = ".".join(map(str, version(package)))
                wanted = ".".join(map(str, needed))
                hint = f"run: pip install --upgrade {package}"
                return Rejection(self.name, "package", f"{package} >= {wanted}", found, hint)
        return None

    def _no_device(self, problem: Problem) -> Rejection | None:
        if interpreting():
            return None
        if not has_gpu():
            hint = "set TRITON_INTERPRET=1 to check results on the CPU"
            return Rejection(self.name, "device", "a CUDA GPU, or the interpreter", "neither", hint)
        if problem.arrays == "torch" and problem.device == "cpu":
            return Rejection(self.name, "device", "tensors on a CUDA GPU", "cpu", "move them with .to('cuda')")
        return None


def _methods() -> Any:
    """The methods by operators."""
    from .operators import methods

    return methods


def _values(system: System) -> tuple[Tensor, ...]:
    return tuple(system.parameters.values())


def _cotangent(grad: Tensor | None, u: Tensor) -> Tensor | None:
    from .eager.arguments import optional

    return optional("grad_y", grad, tuple(u.shape), u.dtype, u)


def _checked_kernel(kernel: Tensor, u: Tensor) -> Tensor:
    from .eager.arguments import shaped, signal

    n_entries = kernel.shape[-1] if kernel.ndim else 0
    return shaped("kernel", kernel, (signal(u).shape[1], n_entries), u.dtype, u)


def _in_dtype_of(state: Tensor | None, gradients: Gradients) -> Gradients:
    """The gradient of a state in the dtype of the state that was given, the real part for a real one."""
    from .triton_kernels.rows import in_dtype_of

    found = gradients.state
    return gradients._replace(state=found.contiguous() if state is None else in_dtype_of(state, found))
