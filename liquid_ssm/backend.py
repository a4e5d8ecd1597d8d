"""The contract of a backend: primitives, declared capabilities, reasons for rejection.

A backend implements some of the primitives below; `modes.py` composes every mode from them.
Shapes: u and y (batch, H, L) real; a state (batch, H, M), for `mimo` systems (batch, M).
Arrays have the dtype of u (or its complex dtype) and are never written to.  They are NumPy arrays or torch tensors, all
of a call, the system's parameters among them, the same; `Capabilities.arrays` says which a backend takes.  They may lie
in memory in any order; `Capabilities.channels_last` says where y lies as u does, elsewhere it is the backend's choice.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, ClassVar, Literal, NamedTuple

from .problem import ModeSpec, Problem

# u (batch, H, 1), x, sums and inputs of a `liquid_ssm.modes.State` give y (batch, H, 1), those parts after the step and
# whether all of that is finite, without warnings of an overflow.
PreparedStep = Callable[[Any, Any, Any, Any], tuple[Any, Any, Any, Any, bool]]

PRIMITIVES = ("kernel", "convolve", "scan", "cascade", "correlate")
# Compositions of primitives that a backend may offer in one piece, because that is faster.
FUSED = ("add_correlations", "add_correlations_vjp", "joint_scan", "single_step")

CorrelationKind = Literal["products", "running", "elementary"]
CascadeKind = Literal["truncated", "chain"]


@dataclass(frozen=True)
class Rejection:
    """Why a backend does not take a problem, as data.

    Args:
        backend: its name.
        reason: `package`, `arrays`, `primitive`, `structure`, `dtype`, `device`, `gradient` or `size`.
        needed: what the backend would need.
        given: what the problem has.
        hint: what to do next, if anything helps.
    """

    backend: str
    reason: str
    needed: str
    given: str
    hint: str = ""

    def __str__(self) -> str:
        text = f"{self.backend}: {self.reason}: needs {self.needed}, got {self.given}"
        return f"{text}; {self.hint}" if self.hint else text


@dataclass(frozen=True)
class Capabilities:
    """What a backend offers.  What is not declared is neither tested nor offered.

    Args:
        primitives: for each primitive the structures it covers; an empty tuple for the two
            primitives that no system enters (`convolve`, `correlate`).
        dtypes: of u.
        devices: `cpu`, `cuda`, …, or `any`.
        arrays: what its methods take and give: `numpy`, or also `torch`; all arrays of a call are the same.
        gradients: True if every declared primitive has its vector-Jacobian product.
        fused: for each of the `FUSED` forms that it offers the structures, as in `primitives`.
        channels_last: for each of `scan`, `cascade` (without window), `joint_scan` and `add_correlations` that keeps
            the memory order of signals, their cotangents among them, the structures: a u (batch, H, L) that lies in
            memory as a contiguous array (batch, L, H) is read there, and y and the gradient of u are given in that
            order, in the same bits as for a contiguous u.
    """

    primitives: Mapping[str, tuple[str, ...]]
    dtypes: tuple[str, ...] = ("float32", "float64")
    devices: tuple[str, ...] = ("cpu",)
    arrays: tuple[str, ...] = ("numpy",)
    gradients: bool = False
    fused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    channels_last: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def fuses(self, form: str, structure: str) -> bool:
        """Whether the fused form is offered for systems of this structure."""
        structures = self.fused.get(form)
        return structures is not None and (not structures or structure in structures)

    def keeps_channels_last(self, form: str, structure: str) -> bool:
        """Whether this primitive or fused form keeps the memory order of signals, for systems of this structure."""
        return structure in self.channels_last.get(form, ())


class Gradients(NamedTuple):
    """Cotangents of one primitive.

    A complex array's gradient is dL/dRe + i·dL/dIm (torch's convention).

    Attributes:
        parameters: by the system's field name.
        u: shape of u.
        state: shape of the initial state.
    """

    parameters: dict[str, Any]
    u: Any
    state: Any


@dataclass(frozen=True)
class Arithmetic:
    """How a backend rounds, as far as the error bounds depend on it (docs/bounds.md).

    Args:
        summation: `pairwise` where every sum over n terms is a balanced tree (depth ceil(log2 n)),
            `any` where the order is not known.
        kernel_dtype: dtype in which convolution kernels are computed before they are rounded to
            u's; None for u's own.
        fused: multiply and add are contracted (True), never (False), or it is not known (None).
        scan: `sequential` where recurrences run in the order of time, `any` where the scan may be
            bracketed in another way (tree, chunks).
        powers: `products` where powers of Ā are products, `exponentials` for exp(i log ā).
        scan_chunk: with `scan='any'`, a number of steps after which the state is passed on in the order of
            time; None where that is not so.
        state_dtype: real dtype of states where it is finer than u's: scans and cascades are computed in it, u and
            parameters enter exactly, y is rounded once, and states are returned and accepted in it (or its complex
            dtype); None for u's.
        kernels: without FFT, `recurrence` where a kernel is the recurrence's answer to an impulse, `tables` where
            that of a diagonal system comes from two tables of powers and that of others as `kernel_dtype` says.
        table_dtype: dtype in which tables of powers (of kernels, `linear_chunk` and `gradient_chunk`) are formed before
            they are rounded to u's, where it is finer; None for u's own.
        joint_adjacent: `kb` over adjacent index tuples, without window and without states that are given or asked
            for, is one recurrence for all orders on diagonal and dplr systems, and so are its gradients; else one
            recurrence per order.
        linear_chunk: steps that the linear recurrence of a diagonal system takes at once, by tables; steps that do
            not fill a chunk are plain ones.  None for plain steps only.
        scaled_states: scans of diagonal systems, single steps among them or not, may keep x / B̄ in place of x where
            no entry of B̄ is 0, add u to it as it is, and read out with C B̄; the orders p of `truncated` likewise
            x / B̄^p.  These products and every change between x and x / B̄ are computed in a finer precision than that
            of states and rounded to it once.
        factor_dtype: `tf32` or `bfloat16` where the matrix products of `linear_chunk` on float32 numbers may round both
            factors to that format first and truncate while they add up; None where they do not.
        gradient_chunk: steps that gradients of the linear recurrence of a diagonal system take at once, counted from
            the first, by tables, forwards and backwards; None for step by step.
        correlations: `sequential` where sums and polynomials of inputs run in the order of time, `sums` where running
            sums may be bracketed in another way, one order after the other, `any` where products of polynomials may be,
            too.
        fft_gradients: vector-Jacobian products of `convolve` are FFTs, and those of `kernel` sums over its entries or
            the adjoint of an impulse's answer.
    """

    summation: Literal["pairwise", "any"] = "any"
    kernel_dtype: str | None = None
    fused: bool | None = None
    scan: Literal["sequential", "any"] = "sequential"
    powers: Literal["products", "exponentials"] = "products"
    scan_chunk: int | None = None
    state_dtype: str | None = None
    kernels: Literal["recurrence", "tables"] = "recurrence"
    table_dtype: str | None = None
    joint_adjacent: bool = False
    linear_chunk: int | None = None
    scaled_states: bool = False
    factor_dtype: Literal["tf32", "bfloat16"] | None = None
    gradient_chunk: int | None = None
    correlations: Literal["sequential", "sums", "any"] = "sequential"
    fft_gradients: bool = False


_installed: set[str] = set()


def _is_installed(package: str) -> bool:
    # What was found stays; looking again would cost a single time step more than its arithmetic.
    if package not in _installed and find_spec(package) is not None:
        _installed.add(package)
    return package in _installed


class Backend(ABC):
    """One way to compute.  Concrete backends are final: a new one is a new file, not a subclass.

    The methods, each optional and declared in `capabilities`:

    * `kernel(system, length, power=1)` -> (H, length): K_i = weight · Re(C Āⁱ B̄^{∘power}).
    * `convolve(kernel, u)` -> (batch, H, L): causal; kernel (H, any length), missing tail = 0.
    * `scan(system, u, state=None, *, liquid)` -> (y, final state): Eq. 11, without `liquid` Eq. 2.
    * `cascade(system, u, state=None, *, order, kind, window=None)` -> (y, final states), states
      (batch, order, H, M) (`mimo`: (batch, order, M)).
      kind `truncated`: x^(1) as in `scan` without liquid, x^(p)_k = Ā x^(p)_{k-1} + (B̄ u_k)∘x^(p-1)_{k-1},
      y = weight · Re(C Σ_p x^(p)).
      kind `chain`: v¹_k = Ā v¹_{k-1} + B̄ u_k, vʲ_k = Ā vʲ_{k-1} + u_k vʲ⁻¹_{k-1}, y = weight · Re(C v^order).
      `window` (kind `chain` only, no states): y_k is that of a chain started at rest `window` inputs ago.
    * `correlate(u, *, order, kind, window=None, sums=None, previous=None)` -> (terms, final sums):
      terms (order-1, batch, H, L), entry p-2 belongs to order p.
      `products`: u_k u_{k-1} … u_{k-p+1} (sums: None).
      `running`: the sum of those products up to k, or over the newest window-p+1 of them
      (sums: (order-1, batch, H), entry p-2 the sum so far).
      `elementary`: e_p of all inputs so far, or of the newest `window` (sums: (order, batch, H), entry
      p-1 is e_p so far).
      `previous` (batch, H, n): inputs before u_0, zeros if None.  No sums with a window.
    * for each of them `<name>_vjp`, taking the same arguments and the cotangents of its results:
      `kernel_vjp(system, length, power, grad)` -> {name: grad},
      `convolve_vjp(kernel, u, grad)` -> (grad of kernel, grad of u),
      `scan_vjp(system, u, state, grad_y, grad_state, *, liquid)` -> Gradients,
      `cascade_vjp(system, u, state, grad_y, grad_state, *, order, kind, window=None)` -> Gradients,
      `correlate_vjp(u, grad_terms, grad_sums, *, order, kind, window=None, sums=None, previous=None)`
      -> (grad of u, grad of sums or None, grad of previous or None).
      A cotangent given as None is zero.
    * fused forms, optional and declared in `capabilities.fused`, without gradients of their own but where one is named:
      `add_correlations(y, u, responses, *, order, kind, sums=None, previous=None)` -> final sums: adds
      Σ_{p=2..order} responses_p term_p to y in place, the terms those of `correlate` without window, kind `running`
      or `elementary`; y (batch, H, L) contiguous (or with channels last, where that is declared), responses
      (order-1, H).  Backends that take tensors have
      `added_correlations` beside it, with the same arguments -> (y + …, final sums), which writes nothing.
      `add_correlations_vjp(u, responses, grad_y, grad_sums, *, order, kind, sums=None, previous=None)` -> (grad of u,
      grad of responses, grad of sums or None, grad of previous or None); the gradient of y is grad_y.  Declared on its
      own, since without it gradients are composed of `correlate` and `correlate_vjp`.
      `joint_scan(system, u, *, order)` -> y: Σ_p K_p * (u_k … u_{k-p+1}) from rest, `kb` over adjacent tuples, and
      `joint_scan_vjp(system, u, grad_y, *, order)` -> Gradients, whose state is a pair: of the initial state
      (batch, H, M), the same for every order, and of the order-1 inputs before u_0 (batch, H, order-1).
      `single_step(system, u, spec, x, sums, inputs)` -> (y, x, sums, inputs), or None where it has no such form: one
      step of `truncated`, `kb` or `pb`, u (batch, H, 1), the parts those of a `liquid_ssm.modes.State`.
    """

    name: ClassVar[str]
    requires: ClassVar[tuple[str, ...]] = ()
    install: ClassVar[str] = ""
    capabilities: ClassVar[Capabilities]
    linear_method: ClassVar[Literal["recurrence", "convolution"]] = "recurrence"
    arithmetic: ClassVar[Arithmetic] = Arithmetic()
    # Outputs are computed alike whether gradients will be asked for or not; `arithmetic_for` a problem with gradients
    # is then how these are computed, and without them how outputs are.
    gradients_apart: ClassVar[bool] = False

    def arithmetic_for(self, problem: Problem) -> Arithmetic:
        """How `problem` is computed; the same for all problems unless a backend rounds differently by shape."""
        return self.arithmetic

    def prepared_step(self, system: Any, spec: ModeSpec, shape: tuple[int, ...], dtype: Any) -> PreparedStep | None:
        """One time step of this system for inputs (batch, H, 1) of one shape and dtype, to be taken again and again.

        Where a backend has one, it gives what its primitives do, bit for bit, and checks nothing that does not change
        from step to step.  None: the primitives are called.

        Args:
            system: of arrays of that dtype, which do not change.
        """
        return None

    def warm_up_seconds(self) -> float:
        """Seconds that a first call may load packages and compile, where those are more than one or two."""
        return 0.0

    def compile_seconds(self) -> float:
        """Seconds that this process has spent on compiling for this backend so far, as far as it counts them."""
        return 0.0

    def missing_packages(self) -> tuple[str, ...]:
        """The packages of `requires` that are not installed."""
        return tuple(package for package in self.requires if not _is_installed(package))

    def reject(self, problem: Problem) -> Rejection | None:
        """The first reason why this backend does not take `problem`, or None.  Pure and cheap."""
        able = self.capabilities
        missing = self.missing_packages()
        if missing:
            return Rejection(self.name, "package", ", ".join(missing), "none installed", f"run: {self.install}")
        if problem.dtype not in able.dtypes:
            return Rejection(self.name, "dtype", " or ".join(able.dtypes), problem.dtype, "convert u with .astype")
        if problem.arrays not in able.arrays:
            hint = "pass u.numpy(), or leave backend out" if problem.arrays == "torch" else ""
            return Rejection(self.name, "arrays", f"{' or '.join(able.arrays)} arrays", problem.arrays, hint)
        if problem.device not in able.devices and "any" not in able.devices:
            return Rejection(self.name, "device", " or ".join(able.devices), problem.device)
        if problem.gradient and not able.gradients:
            return Rejection(self.name, "gradient", "a problem without gradients", "gradient=True")
        from .modes import requirements

        for primitive in requirements(problem, self):
            structures = able.primitives.get(primitive)
            if structures is None:
                return Rejection(self.name, "primitive", f"{primitive}, which it does not have", problem.spec.label)
            if structures and problem.structure not in structures:
                return Rejection(
                    self.name,
                    "structure",
                    f"{' or '.join(structures)} for {primitive}",
                    problem.structure,
                    "try backend='numpy', which covers every structure" if self.name != "numpy" else "",
                )
        return None
