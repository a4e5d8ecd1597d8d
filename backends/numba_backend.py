"""Backend `numba`: recurrences compiled for this machine, in explicit vectors and on all cores."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from importlib import import_module
from math import prod
from typing import Any, Literal, final
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from liquid_ssm.arrays import is_channels_last, is_tensor
from liquid_ssm.backend import (
    Arithmetic,
    Backend,
    Capabilities,
    CascadeKind,
    CorrelationKind,
    Gradients,
    PreparedStep,
    Rejection,
)
from liquid_ssm.errors import BackendRejected, ParameterError, unknown_name
from liquid_ssm.problem import ModeSpec, Problem, commutes
from liquid_ssm.systems import DiagonalSystem, DPLRSystem, MIMOSystem, System

from ._arguments import at_least, fitting, optional, shaped, signal
from ._correlations import checked
from ._memory_order import MemoryOrder
from .operators.implementations import register

Array = npt.NDArray[Any]
Tensor = Any  # torch.Tensor

_STRUCTURES = ("diagonal", "dplr")
_RECURRENCES = (*_STRUCTURES, "mimo")
# Kinds of correlations whose terms are added to an output.
_ADDED = ("running", "elementary")

# Kernels of length 1 by power, of systems of arrays, which never change, that are still in use.
_responses: WeakKeyDictionary[System, dict[int, Array]] = WeakKeyDictionary()
_stacked: WeakKeyDictionary[System, dict[int, Array]] = WeakKeyDictionary()
_heads: WeakKeyDictionary[System, dict[tuple[int, int], Array]] = WeakKeyDictionary()
_Kind = Literal["linear", "liquid"]


@cache
def _module(name: str) -> Any:
    """A module of kernels: an import statement in a method costs a single step as much as a tenth of its arithmetic."""
    return import_module(f".compiled.{name}", __package__)


def _on_tensors() -> Any:
    """The methods for tensors, whose module imports torch and with it is there for whoever has a tensor."""
    from .operators import methods

    return methods


@final
class NumbaBackend(Backend):
    """Every primitive on diagonal and diagonal-plus-low-rank systems, with its vector-Jacobian product; the recurrences
    of `mimo` systems too.

    A system is cast to u's precision first.  A state is complex exactly if a parameter of the system is.  Inputs are
    never written to and results never share memory with them.  The first call with a dtype compiles (some seconds,
    kept on disk for later processes).  Tensors on the CPU are computed with where they are, by the operators of
    `operators`: with gradients, and under torch.compile.  The vector-Jacobian products take NumPy arrays.

    Args:
        threads: at most so many; by default what Numba is set to (`NUMBA_NUM_THREADS`), at most the cores that this
            process may use.  No result depends on it, in any bit.
        state_dtype: `float64` computes recurrences of float32 data, states included, in float64 and rounds y once; the
            states that are returned are float64 too.

    Raises:
        ParameterError: threads below 1, or another state_dtype.

    Accuracy:
        Multiply-adds are fused; sums over modes run in an order that depends on the shape.  Recurrences run in the
        order of time but for scans of few rows over many steps (`arithmetic_for`).  docs/bounds.md counts the
        operations.
    """

    name = "numba"
    requires = ("numba", "platformdirs")
    install = "pip install 'liquid-ssm[numba]'"
    capabilities = Capabilities(
        primitives={
            "kernel": _STRUCTURES,
            "convolve": (),
            "scan": _RECURRENCES,
            "cascade": _RECURRENCES,
            "correlate": (),
        },
        fused={
            "add_correlations": (),
            "add_correlations_vjp": (),
            "joint_scan": _STRUCTURES,
            "single_step": _STRUCTURES,
        },
        channels_last={form: _STRUCTURES for form in ("scan", "cascade", "joint_scan", "add_correlations")},
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
        joint_adjacent=True,
    )

    def __init__(self, threads: int | None = None, state_dtype: str | None = None) -> None:
        self._threads = None if threads is None else at_least("threads", threads, 1)
        if state_dtype not in (None, "float64"):
            raise ParameterError(
                f"state_dtype is {state_dtype!r}; allowed: 'float64' for a float64 state under float32 data, None for "
                "u's own dtype."
            )
        self.state_dtype = state_dtype
        if state_dtype is not None:
            self.__dict__["arithmetic"] = replace(self.arithmetic, state_dtype=state_dtype)
        # What operators are told of the options; equal backends have equal names, so that no program is traced twice.
        self._operators = "numba" if state_dtype is None else "numba-wide-state"
        if threads is not None:
            self._operators = f"numba(threads={threads}, state_dtype={state_dtype})"
            register(self._operators, self, on_numpy=True)

    @property
    def threads(self) -> int:
        """Threads that a call may use."""
        return int(_module("threads").available_threads()) if self._threads is None else self._threads

    def arithmetic_for(self, problem: Problem) -> Arithmetic:
        """How a problem of this shape is rounded.

        float32 states may be kept divided by B̄, the linear recurrence takes chunks at once where that is faster, and a
        scan of few rows and many steps runs in pieces.  Gradients of the linear recurrence take chunks of their
        own.
        """
        usual = self.arithmetic
        if problem.gradient:
            chunk = self._gradient_chunk(problem) if self._has_linear_scan(problem) else None
            return replace(usual, gradient_chunk=chunk)
        if problem.structure != "diagonal" or problem.length <= 1:
            return usual
        scaled = problem.dtype == "float32" and self.state_dtype is None
        usual = replace(usual, scaled_states=scaled)
        linear = problem.spec.mode in ("s4", "kb", "pb")
        chunk = self._chunk(problem) if linear else None
        if chunk is not None:
            return replace(usual, linear_chunk=chunk)
        pieces = self._pieces(problem) if linear or problem.spec.mode == "liquid" else 1
        if pieces > 1:
            return replace(usual, scan="any", scan_chunk=problem.length // pieces)
        return usual

    def kernel(self, system: System, length: int, power: int = 1) -> Array:
        """K_i = weight · Re(C Āⁱ B̄^{∘power}), i = 0 … length - 1, (H, length).

        Accuracy: diagonal systems from tables of powers in float64, multiplied in the system's precision; dplr ones in
        float64 and rounded once (docs/bounds-kernels.md).

        References: Eq. 5, Eq. 14, Algorithm 1.
        """
        self._require(system, "kernel")
        length, power = at_least("length", length, 0), at_least("power", power, 1)
        if system.is_torch:
            return _on_tensors().kernel(self._operators, system, length, power)  # type: ignore[no-any-return]
        if length != 1:
            return self._new_kernel(system, length, power)
        # What `pb` multiplies correlations with (Eq. 15), at every single step.
        known = _responses.setdefault(system, {})
        if power not in known:
            known[power] = self._new_kernel(system, 1, power)
        return known[power].copy()

    def _new_kernel(self, system: System, length: int, power: int) -> Array:
        if isinstance(system, DPLRSystem):
            from .compiled.cauchy import dplr_kernel

            exact = {name: parameter.astype(np.complex128) for name, parameter in system.parameters.items()}
            B_bar = exact["B_bar"]
            for _ in range(power - 1):
                exact["B_bar"] = exact["B_bar"] * B_bar
            pairs = system.conjugate_pairs
            return dplr_kernel(**exact, length=length, conjugate_pairs=pairs, threads=self.threads).astype(system.dtype)
        from .compiled.vandermonde import diagonal_kernel

        assert isinstance(system, DiagonalSystem)
        return diagonal_kernel(
            system.A_bar, system.B_bar, system.C, length, power, system.weight, system.dtype, self.threads
        )

    def kernel_vjp(self, system: System, length: int, power: int, grad: Array | None) -> dict[str, Array]:
        """Gradients of the system's parameters from the cotangent (H, length) of the kernel, an impulse's answer.

        A kernel of one entry has the closed form that the adjoint recurrence of one step comes down to, in every bit.
        """
        self._require(system, "kernel")
        length, power = at_least("length", length, 0), at_least("power", power, 1)
        grad = optional("grad", grad, (system.n_channels, length), system.dtype)
        if length == 1 and grad is not None:
            return _response_vjp(system, power, grad)
        impulse = np.zeros((1, system.n_channels, length), system.dtype)
        impulse[..., :1] = 1
        powered = system.with_input_power(power)
        gradients = self.scan_vjp(powered, impulse, None, None if grad is None else grad[None], None, liquid=False)
        if power > 1:
            slope = power * system.with_input_power(power - 1).B_bar
            product = np.conj(slope) * gradients.parameters["B_bar"]
            gradients.parameters["B_bar"] = product.astype(system.B_bar.dtype)
        return gradients.parameters

    def convolve(self, kernel: Array, u: Array) -> Array:
        """y_k = Σ_{i<=k} K_i u_{k-i}, (batch, H, L), as the direct sum: min(K, L) multiply-adds per step."""
        if type(u) is not np.ndarray and is_tensor(u):
            return _on_tensors().convolve(self._operators, kernel, u)  # type: ignore[no-any-return]
        from .compiled.convolution import causal_convolution

        return causal_convolution(_kernel(kernel, u), u, self.threads)

    def convolve_vjp(self, kernel: Array, u: Array, grad: Array | None) -> tuple[Array, Array]:
        """Gradients of kernel and u from the cotangent of y."""
        from .compiled.convolution import causal_convolution_vjp

        kernel = _kernel(kernel, u)
        grad = _cotangent(grad, u)
        if grad is None:
            return np.zeros_like(kernel), np.zeros(u.shape, u.dtype)
        return causal_convolution_vjp(kernel, u, np.ascontiguousarray(grad), self.threads)

    def scan(self, system: System, u: Array, state: Array | None = None, *, liquid: bool) -> tuple[Array, Array]:
        """Eq. 11, or Eq. 2 without `liquid`: y (batch, H, L) and the final state (batch, H, M).

        Memory: y, and some hundred kilobytes per thread.
        """
        if type(u) is not np.ndarray and is_tensor(u):
            self._require_tensors(system, "scan")
            if isinstance(system, MIMOSystem):
                return self._shared_of_tensors(system, u, state, None, liquid)
            return _on_tensors().scan(self._operators, system, u, state, liquid=liquid, state_dtype=self.state_dtype)  # type: ignore[no-any-return]
        system, state = self._recurrence(system, u, state, "scan", ())
        if isinstance(system, MIMOSystem):
            states = None if state is None else state[:, None]
            y, final = _module("shared_state").shared_run(system, u, states, order=1, liquid=liquid, **self._options)
            return y, final[:, 0]
        if isinstance(system, DPLRSystem):
            if u.shape[-1] == 1 and _module("lowrank_step").takes(system):
                options = self._step_options(u.shape)
                return _module("lowrank_step").lowrank_step(system, u, state, liquid=liquid, **options)  # type: ignore[no-any-return]
            from .compiled.lowrank import lowrank_run

            states = None if state is None else state[:, None]
            kind: _Kind = "liquid" if liquid else "linear"
            y, final = lowrank_run(system, u, states, order=1, kind=kind, keeps=True, **self._options)
            return y, final[:, 0]
        assert isinstance(system, DiagonalSystem)
        if u.shape[-1] == 1:
            y, final_state = _module("step").step(system, u, state, liquid=liquid, **self._step_options(u.shape))
            return y, final_state
        problem = _shape_of(system, u)
        chunk = None if liquid else self._chunk(problem)
        if chunk is not None:
            tables = self._chunk_tables(system, chunk)
            if tables.finite:
                from .compiled.chunked import chunked_scan

                return chunked_scan(tables, u, state, self.threads)
        pieces = self._pieces(problem)
        if pieces > 1:
            from .compiled.pieces import scan_in_pieces

            return scan_in_pieces(system, u, state, liquid=liquid, pieces=pieces, **self._options)
        from .compiled import diagonal

        return diagonal.scan(system, u, state, liquid=liquid, **self._options)

    def scan_vjp(
        self,
        system: System,
        u: Array,
        state: Array | None,
        grad_y: Array | None,
        grad_state: Array | None,
        *,
        liquid: bool,
    ) -> Gradients:
        """Adjoint of `scan`; states are found again block by block.

        Memory: gradients, and per thread one state of every row of a tile per 128 steps.
        """
        given = state
        system, state = self._recurrence(system, u, state, "scan", ())
        grad_y = _cotangent(grad_y, u)
        grad_state = self._state(system, u, grad_state, (), "grad_state")
        if isinstance(system, MIMOSystem):
            from .compiled.shared_state import shared_vjp

            states, final = (None if x is None else x[:, None] for x in (state, grad_state))
            found = shared_vjp(system, u, states, grad_y, final, order=1, liquid=liquid, **self._options)
            found = found._replace(state=found.state[:, 0])
        elif isinstance(system, DPLRSystem):
            from .compiled.lowrank import lowrank_vjp

            states, final = (None if x is None else x[:, None] for x in (state, grad_state))
            kind: _Kind = "liquid" if liquid else "linear"
            found = lowrank_vjp(system, u, states, grad_y, final, order=1, kind=kind, keeps=True, **self._options)
            found = found._replace(state=found.state[:, 0])
        else:
            assert isinstance(system, DiagonalSystem)
            chunk, by_chunks = None if liquid else self._gradient_chunk(_shape_of(system, u)), None
            if chunk is not None:
                from .compiled.chunk_gradients import chunked_vjp

                by_chunks = chunked_vjp(system, chunk, u, state, grad_y, grad_state, self.threads)
            if by_chunks is None:
                from .compiled import diagonal

                found = diagonal.scan_vjp(system, u, state, grad_y, grad_state, liquid=liquid, **self._options)
            else:
                found = by_chunks
        return _in_dtype_of(given, found)

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
        """Orders 1 … `order` of Eq. 12, or the index sum of Eq. 14: y and the final states (batch, order, H, M).

        With `window` there are no states: the second result is None.
        """
        if type(u) is not np.ndarray and is_tensor(u):
            self._require_tensors(system, "cascade")
            if isinstance(system, MIMOSystem):
                self._require_cascade(system, state, order, kind, window)
                return self._shared_of_tensors(system, u, state, order, False)
            options = {"order": order, "kind": kind, "window": window, "state_dtype": self.state_dtype}
            return _on_tensors().cascade(self._operators, system, u, state, **options)  # type: ignore[no-any-return]
        system, state = self._cascade(system, u, state, order, kind, window)
        if isinstance(system, MIMOSystem):
            return _module("shared_state").shared_run(system, u, state, order=order, liquid=False, **self._options)  # type: ignore[no-any-return]
        assert isinstance(system, DiagonalSystem | DPLRSystem)
        if window is not None:
            from .compiled.windowed_chain import windowed_chain

            return windowed_chain(system, u, order, window, self.threads), None
        if isinstance(system, DPLRSystem):
            from .compiled.lowrank import lowrank_run

            return lowrank_run(system, u, state, order=order, kind=kind, keeps=True, **self._options)
        from .compiled import diagonal, scaled_cascade

        scalable = kind == "truncated" and order in scaled_cascade.ORDERS
        if scalable and diagonal.can_scale(system, u, self.state_dtype):
            found = scaled_cascade.scaled_cascade(system, u, state, order=order, threads=self.threads)
            if found is not None:
                return found
        return diagonal.cascade(system, u, state, order=order, chain=kind == "chain", **self._options)

    def cascade_vjp(
        self,
        system: System,
        u: Array,
        state: Array | None,
        grad_y: Array | None,
        grad_state: Array | None,
        *,
        order: int,
        kind: CascadeKind,
        window: int | None = None,
    ) -> Gradients:
        """Adjoint of `cascade`; with `window` the gradient of the state is None.

        Memory: as `scan_vjp`, times the order.
        """
        given = state
        system, state = self._cascade(system, u, state, order, kind, window)
        grad_y = _cotangent(grad_y, u)
        if isinstance(system, MIMOSystem):
            from .compiled.shared_state import shared_vjp

            grad_state = self._state(system, u, grad_state, (order,), "grad_state")
            found = shared_vjp(system, u, state, grad_y, grad_state, order=order, liquid=False, **self._options)
            return _in_dtype_of(given, found)
        assert isinstance(system, DiagonalSystem | DPLRSystem)
        if window is not None:
            if grad_state is not None:
                raise ParameterError("grad_state was given, but a cascade with a window has no states; pass None.")
            from .compiled.windowed_chain import windowed_chain_vjp

            return windowed_chain_vjp(system, u, grad_y, order, window, self.threads)
        grad_state = self._state(system, u, grad_state, (order,), "grad_state")
        if isinstance(system, DPLRSystem):
            from .compiled.lowrank import lowrank_vjp

            found = lowrank_vjp(
                system, u, state, grad_y, grad_state, order=order, kind=kind, keeps=True, **self._options
            )
        else:
            from .compiled import diagonal

            chain = kind == "chain"
            found = diagonal.cascade_vjp(
                system, u, state, grad_y, grad_state, order=order, chain=chain, **self._options
            )
        return _in_dtype_of(given, found)

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
        """Products of adjacent inputs, their sums, or elementary symmetric polynomials, by order; see `Backend`."""
        if type(u) is not np.ndarray and is_tensor(u):
            options = {"order": order, "kind": kind, "window": window, "sums": sums, "previous": previous}
            return _on_tensors().correlate(self._operators, u, **options)  # type: ignore[no-any-return]
        from .compiled import correlations

        sums, _ = checked(u, order, kind, window, sums, previous)
        return correlations.correlate(
            u, order=order, kind=kind, window=window, sums=sums, previous=previous, threads=self.threads
        )

    def correlate_vjp(
        self,
        u: Array,
        grad_terms: Array | None,
        grad_sums: Array | None,
        *,
        order: int,
        kind: CorrelationKind,
        window: int | None = None,
        sums: Array | None = None,
        previous: Array | None = None,
    ) -> tuple[Array, Array | None, Array | None]:
        """Gradients of u, `sums` and `previous`; None where the argument was not given."""
        from .compiled import correlations

        checked(u, order, kind, window, sums, previous)
        return correlations.correlate_vjp(
            u,
            grad_terms,
            grad_sums,
            order=order,
            kind=kind,
            window=window,
            sums=sums,
            previous=previous,
            threads=self.threads,
        )

    def add_correlations(
        self,
        y: Array,
        u: Array,
        responses: Array,
        *,
        order: int,
        kind: CorrelationKind,
        sums: Array | None = None,
        previous: Array | None = None,
    ) -> Array | None:
        """y ← y + Σ_p responses_p · term_p in place and in one pass; the final sums.  See `Backend`.

        For arrays; tensors, through which gradients flow, are not written to: `added_correlations`.
        """
        in_place = y.flags.c_contiguous or is_channels_last(y)
        if y.shape != u.shape or y.dtype != u.dtype or not in_place:
            raise ParameterError(
                f"y is {y.shape} {y.dtype}, contiguous or channels last: {in_place}; it is written to and must be a "
                f"contiguous array {u.shape} {u.dtype}, or one that lies in memory as a contiguous (batch, L, H)."
            )
        return self._add_correlations(y, y, u, responses, order, kind, sums, previous)

    def added_correlations(
        self,
        y: Array,
        u: Array,
        responses: Array,
        *,
        order: int,
        kind: CorrelationKind,
        sums: Array | None = None,
        previous: Array | None = None,
    ) -> tuple[Array, Array]:
        """y + Σ_p responses_p · term_p, which is new memory, and the final sums; of tensors with gradients."""
        if type(u) is not np.ndarray and is_tensor(u):
            options = {"order": order, "kind": kind, "sums": sums, "previous": previous}
            return _on_tensors().added_correlations(self._operators, y, u, responses, **options)  # type: ignore[no-any-return]
        total = MemoryOrder.of(signal(u)).empty(u.dtype)
        y = _as_signal("y", y, u)
        return total, self._add_correlations(y, total, u, responses, order, kind, sums, previous)

    def _add_correlations(
        self,
        y: Array,
        total: Array,
        u: Array,
        responses: Array,
        order: int,
        kind: CorrelationKind,
        sums: Array | None,
        previous: Array | None,
    ) -> Array:
        from .compiled.added_correlations import add_correlations

        responses, options = self._added(u, responses, order, kind, sums, previous)
        return add_correlations(y, total, u, responses, **options)

    def add_correlations_vjp(
        self,
        u: Array,
        responses: Array,
        grad_y: Array | None,
        grad_sums: Array | None,
        *,
        order: int,
        kind: CorrelationKind,
        sums: Array | None = None,
        previous: Array | None = None,
    ) -> tuple[Array, Array, Array | None, Array | None]:
        """Gradients of u, the responses, `sums` and `previous`, None where the last two were not given, in one pass.

        Memory: the gradients, and per thread the sums of every row of a tile per 64 steps.
        """
        from .compiled.added_correlations_adjoint import add_correlations_vjp

        responses, options = self._added(u, responses, order, kind, sums, previous)
        n_sums = order if kind == "elementary" else order - 1
        grad_sums = optional("grad_sums", grad_sums, (n_sums, *u.shape[:-1]), u.dtype)
        grad_y = _cotangent(grad_y, u)
        if grad_y is None:
            grad_y = np.zeros(u.shape, u.dtype)
        return add_correlations_vjp(u, responses, grad_y, grad_sums, **options)

    def _added(
        self, u: Array, responses: Array, order: int, kind: str, sums: Array | None, previous: Array | None
    ) -> tuple[Array, dict[str, Any]]:
        """The responses in u's dtype, and what the kernels take by name, checked."""
        if kind not in _ADDED:
            raise unknown_name("correlation kind", kind, _ADDED)
        sums, _ = checked(u, order, kind, None, sums, previous)
        options = {"order": order, "elementary": kind == "elementary", "sums": sums, "previous": previous}
        return shaped("responses", responses, (order - 1, u.shape[1]), u.dtype), options | {"threads": self.threads}

    def joint_scan(self, system: System, u: Array, *, order: int) -> Array:
        """`kb` over adjacent index tuples from rest, all orders as one recurrence: y (batch, H, L).  See `Backend`."""
        if type(u) is not np.ndarray and is_tensor(u):
            self._require_joint(system)
            self._require_tensors(system, "scan")
            return _on_tensors().joint_scan(self._operators, system, u, order=order)  # type: ignore[no-any-return]
        system = self._joint(system, u)
        order = at_least("order", order, 1)
        if isinstance(system, DPLRSystem):
            from .compiled.lowrank_joint import lowrank_joint_scan

            return lowrank_joint_scan(system, u, order=order, **self._options)
        from .compiled.joint import joint_scan

        assert isinstance(system, DiagonalSystem)
        return joint_scan(system, u, order=order, **self._options)

    def joint_scan_vjp(self, system: System, u: Array, grad_y: Array | None, *, order: int) -> Gradients:
        """Adjoint of `joint_scan`, by one adjoint recurrence; see `Backend` for the gradient of the state.

        Memory: as `scan_vjp`.
        """
        system = self._joint(system, u)
        order, grad_y = at_least("order", order, 1), _cotangent(grad_y, u)
        if isinstance(system, DPLRSystem):
            from .compiled.lowrank_joint import lowrank_joint_vjp

            return lowrank_joint_vjp(system, u, grad_y, order=order, **self._options)
        from .compiled.joint_adjoint import joint_vjp

        assert isinstance(system, DiagonalSystem)
        return joint_vjp(system, u, grad_y, order=order, **self._options)

    def single_step(
        self, system: System, u: Array, spec: ModeSpec, x: Array, sums: Array | None, inputs: Array | None
    ) -> tuple[Array, Array, Array | None, Array | None] | None:
        """One step of `truncated`, `kb` or `pb`, u (batch, H, 1), in one pass.  See `Backend`.

        For arrays.  None for a float64 state under float32 data, and for dplr systems without conjugate pairs, of
        another rank than 1, or with `kb` over all index tuples of a window: the primitives compute those.
        """
        module = _module("orders_step")
        if self.state_dtype is not None or not module.takes(system, spec):
            return None
        threads = self._step_options(u.shape)["threads"]
        return module.orders_step(system, u, spec, x, sums, inputs, self._factors(system, spec), threads=threads)  # type: ignore[no-any-return]

    def prepared_step(
        self, system: System, spec: ModeSpec, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> PreparedStep | None:
        """The calls of `scan` and `single_step` for one step, with what depends on shapes found beforehand.

        None for shared states, real systems, and where a step has several calls or goes to several threads.
        """
        options = self._step_options(shape)
        if system.structure not in _STRUCTURES or not system.is_complex or options["threads"] > 1:
            return None
        if spec.mode not in ("s4", "liquid"):
            module = _module("orders_step")
            if self.state_dtype is not None or not module.takes(system, spec):
                return None
            return module.prepared(system, shape, dtype, spec, self._factors(system, spec), threads=1)  # type: ignore[no-any-return]
        module = _module("step" if system.structure == "diagonal" else "lowrank_step")
        if system.structure == "dplr" and not module.takes(system):
            return None
        return module.prepared(system, shape, dtype, liquid=spec.mode == "liquid", **options)  # type: ignore[no-any-return]

    def sampled_rows(
        self,
        Lambda: Array,
        B: Array,
        C: Array,
        P: Array,
        step_sizes: Array,
        u: Array,
        dt: Array,
        kind: Literal["linear", "liquid", "driven"],
        order: int = 1,
    ) -> Any:
        """The bilinear recurrence of a continuous system whose steps have intervals of their own, and its adjoint.

        Computed in float64 whatever u is, threads as in other calls; y and the gradient of u are rounded once.

        Args:
            Lambda, B, C: (H, M) complex128, one mode of each conjugate pair.
            P: (R, H, M) complex128, R = 0 for a diagonal system.
            step_sizes: (H,) float64.
            u: (batch, H, L), C-contiguous.
            dt: (batch, L) float64, factors of the step sizes.
            kind: `linear`, of any order, each one driven by that below it; `liquid`, or `driven`, which is
                `bilinear-exact`, of order 1.

        Returns:
            A `compiled.sampled.SampledRows`, to be run and run back.
        """
        module = _module("sampled")
        return module.SampledRows(module.Parameters(Lambda, B, C, P, step_sizes), u, dt, kind, order, self.threads)

    def _factors(self, system: System, spec: ModeSpec) -> Array | None:
        """Of `pb` its responses, of windowed `kb` the heads of its kernels."""
        if spec.mode == "pb" and spec.order > 1:
            return self._responses(system, spec.order)
        if spec.mode == "kb" and spec.window is not None and spec.order > 1:
            return self._heads(system, spec.order, spec.window)
        return None

    def _responses(self, system: System, order: int) -> Array:
        """What `pb` multiplies correlations of order 2 … `order` with (Eq. 15), (order - 1, H)."""
        known = _stacked.setdefault(system, {})
        if order not in known:
            known[order] = np.concatenate([self.kernel(system, 1, p).T for p in range(2, order + 1)])
        return known[order]

    def _heads(self, system: System, order: int, window: int) -> Array:
        """The kernels of order 2 … `order` of windowed `kb` (Eq. 14), (order - 1, window - 1, H), zeros at the end."""
        known = _heads.setdefault(system, {})
        if (order, window) not in known:
            heads = np.zeros((order - 1, window - 1, system.n_channels), system.dtype)
            for p in range(2, order + 1):
                heads[p - 2, : window - p + 1] = self.kernel(system.with_input_power(p), window - p + 1).T
            known[order, window] = heads
        return known[order, window]

    def compile_seconds(self) -> float:
        """Seconds that Numba has compiled in this process; what is found on disk costs none."""
        seconds: float = _module("caching").compile_seconds()
        return seconds

    def limits(self) -> dict[str, float]:
        """What this machine can do at most, measured now: multiply-adds and copied bytes per second, on all threads."""
        from .compiled.limits import copy_rate, fma_rate

        threads = self.threads
        return {
            "threads": threads,
            "fma_float32": fma_rate(np.float32, threads),
            "fma_float64": fma_rate(np.float64, threads),
            "copy": copy_rate(threads),
        }

    def compiled_step_seconds(self, system: DiagonalSystem, batch: int, steps: int) -> float:
        """Seconds per `liquid` time step inside a compiled loop, on one thread, by `compiled.step.step_rows`."""
        from .compiled.step import seconds_per_step

        return seconds_per_step(system, batch, steps)

    @property
    def _options(self) -> dict[str, Any]:
        return {"threads": self.threads, "state_dtype": self.state_dtype}

    def _step_options(self, shape: tuple[int, ...]) -> dict[str, Any]:
        # How many threads there are is asked of the system: not for a step that takes one.
        threads = self.threads if prod(shape) > _module("step").ROWS_AT_ONCE else 1
        return {"threads": threads, "state_dtype": self.state_dtype}

    def _pieces(self, problem: Problem) -> int:
        from .compiled.pieces import pieces_for

        rows = problem.batch * problem.n_channels
        return pieces_for(rows, problem.n_modes, problem.length, self.state_dtype or problem.dtype)

    def _chunk(self, problem: Problem) -> int | None:
        """Steps that the linear recurrence takes at once, or None."""
        from .compiled.chunked import best_chunk, pays

        if self.state_dtype is not None:
            return None
        rows, n_channels = problem.batch * problem.n_channels, problem.n_channels
        if not pays(problem.n_modes, rows, problem.length, problem.dtype, n_channels):
            return None
        return best_chunk(problem.n_modes, problem.dtype)

    def _has_linear_scan(self, problem: Problem) -> bool:
        """Whether a term of the problem is a linear recurrence by itself, `scan` without `liquid`."""
        spec = problem.spec
        if spec.mode == "kb" and spec.order > 1:
            joined = (spec.correlations, spec.window, problem.state) == ("adjacent", None, False)
            return not (joined or commutes(problem.structure, spec))
        return spec.mode in ("s4", "kb", "pb")

    def _gradient_chunk(self, problem: Problem) -> int | None:
        """Steps that gradients of the linear recurrence take at once, or None."""
        from .compiled.chunk_gradients import best_chunk

        if problem.structure != "diagonal" or problem.dtype != "float32" or self.state_dtype is not None:
            return None
        return best_chunk(problem.n_modes, problem.batch, problem.n_channels, problem.length)

    def _chunk_tables(self, system: DiagonalSystem, chunk: int) -> Any:
        from .compiled.chunked import chunk_tables

        return chunk_tables(system, chunk, system.dtype, self.threads)

    def _require(self, system: System, what: str) -> None:
        allowed = self.capabilities.primitives[what]
        if system.structure not in allowed:
            raise self._rejected(what, allowed, system)

    def _require_tensors(self, system: System, what: str) -> None:
        self._require(system, what)
        if not system.is_torch:
            raise ParameterError(
                "u is a torch tensor and the system has NumPy arrays; give both as one or the other, for instance "
                "system.to_torch()."
            )

    def _rejected(self, what: str, allowed: tuple[str, ...], system: System) -> BackendRejected:
        reason = Rejection(self.name, "structure", f"{' or '.join(allowed)} for {what}", system.structure)
        return BackendRejected(f"{self.name} does not compute {what} for this system:", [reason])

    def _joint(self, system: System, u: Array) -> System:
        """The system of a joint recurrence in u's precision."""
        self._require_joint(system)
        return system.astype(signal(u, system.n_channels).dtype)

    def _require_joint(self, system: System) -> None:
        allowed = self.capabilities.fused["joint_scan"]
        if system.structure not in allowed:
            raise self._rejected("joint_scan", allowed, system)

    def _recurrence(
        self, system: System, u: Array, state: Array | None, what: str, orders: tuple[int, ...]
    ) -> tuple[System, Array | None]:
        """The system in u's precision and the state in the one it is computed with."""
        self._require(system, "cascade" if what == "cascade" else "scan")
        system = system.astype(signal(u, system.n_channels).dtype)
        return system, self._state(system, u, state, orders, "state")

    def _state(self, system: System, u: Array, state: Array | None, orders: tuple[int, ...], name: str) -> Array | None:
        if state is None:
            return None
        real = np.dtype(self.state_dtype or u.dtype)
        kind = np.result_type(real, np.complex64) if system.is_complex else real
        modes = (system.n_modes,) if system.structure == "mimo" else (system.n_channels, system.n_modes)
        return fitting(name, state, (u.shape[0], *orders, *modes), kind)

    def _cascade(
        self, system: System, u: Array, state: Array | None, order: int, kind: str, window: int | None
    ) -> tuple[System, Array | None]:
        self._require_cascade(system, state, order, kind, window)
        return self._recurrence(system, u, state, "cascade", (order,))

    def _require_cascade(self, system: System, state: Array | None, order: int, kind: str, window: int | None) -> None:
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
        if system.structure == "mimo" and kind == "chain":
            raise self._rejected("a cascade of kind chain", _STRUCTURES, system)

    def _shared_of_tensors(
        self, system: MIMOSystem, u: Tensor, state: Tensor | None, order: int | None, liquid: bool
    ) -> tuple[Tensor, Tensor]:
        """`scan`, or `cascade` with an order, of a `mimo` system."""
        from .operators.shared_state import run_shared

        return run_shared(self._operators, system, u, state, order=order, liquid=liquid, state_dtype=self.state_dtype)


def float64_state() -> NumbaBackend:
    """The backend `numba-wide-state`: float32 data with a float64 state, for tolerances below float32's recurrences."""
    backend = NumbaBackend(state_dtype="float64")
    backend.__dict__.update(
        name="numba-wide-state", capabilities=replace(NumbaBackend.capabilities, dtypes=("float32",))
    )
    return backend


def _kernel(kernel: Array, u: Array) -> Array:
    n_entries = kernel.shape[-1] if kernel.ndim else 0
    return shaped("kernel", kernel, (signal(u).shape[1], n_entries), u.dtype)


def _response_vjp(system: System, power: int, grad: Array) -> dict[str, Array]:
    """Gradients of weight · Re Σ_n C_n B̄_n^power from its cotangent (H, 1): of B̄ and C, zero for all others."""
    gradients = {name: np.zeros_like(parameter) for name, parameter in system.parameters.items()}
    B_bar, C = system.parameters["B_bar"], system.parameters["C"]
    powers = [B_bar]
    for _ in range(power - 1):
        powers.append(powers[-1] * B_bar)
    grad = system.weight * grad
    gradients["C"][...] = _part(grad * powers[-1].conj(), C)
    of_B = _part(grad * C.conj(), B_bar)
    gradients["B_bar"][...] = of_B if power == 1 else (power * powers[-2]).conj() * of_B
    return gradients


def _part(gradient: Array, parameter: Array) -> Array:
    """Of a real parameter the real part."""
    return gradient if np.iscomplexobj(parameter) else gradient.real


def _cotangent(grad: Array | None, u: Array) -> Array | None:
    """The cotangent of y, as `_as_signal`; None for None."""
    return None if grad is None else _as_signal("grad_y", grad, u)


def _as_signal(name: str, value: Array, u: Array) -> Array:
    """A signal like u, itself where shape and dtype are right, in any order: it may be as large as all else."""
    if value.shape == u.shape and value.dtype == u.dtype:
        return value
    return shaped(name, value, u.shape, u.dtype)


def _shape_of(system: System, u: Array) -> Problem:
    """The linear problem of this shape; modes do not matter for how a scan is laid out."""
    batch, n_channels, length = u.shape
    return Problem(
        ModeSpec("s4"), system.structure, batch, n_channels, system.n_modes, length, u.dtype.name, gradient=False
    )


def _in_dtype_of(state: Array | None, gradients: Gradients) -> Gradients:
    """The gradient of a state in the dtype of the state that was given, the real part for a real one."""
    if state is None or gradients.state.dtype == state.dtype:
        return gradients
    found = gradients.state if np.iscomplexobj(state) else gradients.state.real
    return gradients._replace(state=np.ascontiguousarray(found, dtype=state.dtype))
