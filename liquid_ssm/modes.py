"""Every mode of the model as a composition of a backend's primitives, written once.

Equation numbers are those of arXiv 2209.12951.  The linear term K ∗ u is computed as a recurrence or as
an FFT convolution, whichever the backend declares; with a state in play it is always the recurrence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from .arrays import dtype_name, is_channels_last, is_tensor, namespace
from .errors import ParameterError, ShapeError
from .finite import all_finite
from .problem import ModeSpec, Problem, commutes

if TYPE_CHECKING:
    from .backend import Backend

Array = Any
Primitives = Any  # a Backend, by the primitives that it happens to have


class State(NamedTuple):
    """What `kb` and `pb` carry from one call to the next; `None` where a mode needs no such part.

    Attributes:
        x: linear states (batch, S, H, M).  S = P for `kb` with adjacent correlations (one linear
            recurrence per order) and for `kb` on diagonal systems (the orders of `truncated`),
            S = P(P+1)/2 for `kb` on other structures (chains of length 1 … P, one after the other),
            S = 1 for `pb` and for every windowed form.
        sums: `pb` without window: e_1 … e_P (batch, P, H), or the P-1 running sums of adjacent products.
        inputs: the newest inputs that later correlations still use (batch, H, n).
    """

    x: Array
    sums: Array | None = None
    inputs: Array | None = None


def linear_method(problem: Problem, backend: Backend) -> Literal["recurrence", "convolution"]:
    """How `backend` computes the linear term of `problem`.

    With a state it is the recurrence.  With gradients, too, where the backend has one: their errors are bounded entry
    by entry, those of transforms only in norm.
    """
    primitives = backend.capabilities.primitives
    convolves = backend.linear_method == "convolution" and problem.structure in primitives.get("kernel", ())
    differentiated = problem.gradient and problem.structure in primitives.get("scan", ())
    return "convolution" if convolves and not (problem.state or differentiated) else "recurrence"


def requirements(problem: Problem, backend: Backend) -> tuple[str, ...]:
    """The primitives that `backend` needs for `problem`."""
    spec = problem.spec
    linear = ("kernel", "convolve") if linear_method(problem, backend) == "convolution" else ("scan",)
    if spec.mode == "liquid":
        return ("scan",)
    if spec.mode == "truncated":
        return ("cascade",)
    if spec.mode == "s4" or spec.order == 1:
        return linear
    if spec.mode == "pb":
        return (*linear, "correlate", "kernel")
    if commutes(problem.structure, spec):
        return ("cascade",)
    if spec.correlations == "all":
        return (*linear, "cascade")
    return (*linear, "correlate") if spec.window is None else (*linear, "correlate", "kernel", "convolve")


def joins_orders(backend: Backend, structure: str, spec: ModeSpec) -> bool:
    """Whether `backend` computes all orders as one recurrence where no state is given or asked for."""
    adjacent = spec.mode == "kb" and spec.correlations == "adjacent" and spec.window is None and spec.order > 1
    return adjacent and backend.capabilities.fuses("joint_scan", structure)


def keeps_channels_last(backend: Primitives, structure: str, spec: ModeSpec, *, carry: bool) -> bool:
    """Whether all that `backend` computes y of this mode by keeps the memory order of signals.

    Args:
        carry: a state is given or asked for.
    """
    forms: tuple[str, ...] = ()
    if not carry and joins_orders(backend, structure, spec):
        forms = ("joint_scan",)
    elif spec.mode == "truncated" or commutes(structure, spec):
        forms = ("cascade",)
    elif spec.mode in ("s4", "liquid") or spec.order == 1:
        forms = ("scan",)
    elif spec.window is None and spec.mode == "pb":
        forms = ("scan", "add_correlations")
    elif spec.window is None and spec.correlations == "all":
        forms = ("scan", "cascade")
    return bool(forms) and all(backend.capabilities.keeps_channels_last(form, structure) for form in forms)


def scalar_inputs_only(spec: ModeSpec) -> bool:
    """Whether the mode multiplies scalar inputs (Eq. 13 to 15), which a `mimo` system does not have."""
    return spec.mode in ("kb", "pb") and spec.order > 1


def require_mode(system: Any, spec: ModeSpec) -> None:
    """Raise a `ParameterError` if the mode has no meaning for the structure of the system."""
    if system.structure == "mimo" and scalar_inputs_only(spec):
        raise ParameterError(
            f"{spec.label} multiplies scalar inputs (Eq. 13 to 15); a mimo system has one state for all channels. "
            "Use s4, liquid or truncated."
        )
    if system.structure == "integrator" and spec.mode != "liquid":
        raise ParameterError(
            f"{system.name} integrates the liquid system and has no Ā and B̄ for {spec.label}. "
            "Use mode='liquid', or discretise with euler, bilinear or zoh."
        )


def run(
    backend: Primitives,
    system: Any,
    u: Array,
    spec: ModeSpec,
    state: Any = None,
    *,
    carry: bool = False,
    gradient: bool = False,
) -> tuple[Array, Any]:
    """y (batch, H, L) and, if `carry` or a state is given, the final state (else None).

    Args:
        backend: one that does not reject the problem.
        system: in the dtype of u.
        u: inputs (batch, H, L).
        state: as returned by an earlier call, or a linear state x_{-1} (batch, H, M), or None (rest).
        carry: the final state is wanted.
        gradient: gradients will flow back through the result (tensors).
    """
    carry = carry or state is not None
    start = initial_state(system, spec, u, state, backend.arithmetic.state_dtype) if carry else None
    return run_from(backend, system, u, spec, start, gradient=gradient)


def run_from(
    backend: Primitives, system: Any, u: Array, spec: ModeSpec, start: Any, *, gradient: bool = False
) -> tuple[Array, Any]:
    """`run` from a state in the form that `initial_state` gives; None is rest, and then there is no final state."""
    carry = start is not None
    if carry and spec.has_order and u.shape[-1] == 1 and not is_tensor(u):
        found = _single_step(backend, system, u, spec, start)
        if found is not None:
            return found
    if is_channels_last(u) and not keeps_channels_last(backend, system.structure, spec, carry=carry):
        # One copy, where every primitive would make its own.  Any other order is the backend's to bear.
        u = u.contiguous() if is_tensor(u) else np.ascontiguousarray(u)
    if spec.mode == "liquid":
        y, final = backend.scan(system, u, start, liquid=True)
    elif spec.mode == "s4":
        y, final = _linear(backend, system, u, start, carry, gradient)
    elif spec.mode == "truncated":
        y, final = backend.cascade(system, u, start, order=spec.order, kind="truncated")
    else:
        y, final = _with_correlations(backend, system, u, spec, start, gradient)
    return y, final if carry else None


def _single_step(backend: Primitives, system: Any, u: Array, spec: ModeSpec, start: Any) -> tuple[Array, Any] | None:
    """One step in one call of the backend, None where it has no such form for this problem."""
    if not backend.capabilities.fuses("single_step", system.structure):
        return None
    structured = isinstance(start, State)
    x, sums, inputs = start if structured else (start, None, None)
    found = backend.single_step(system, u, spec, x, sums, inputs)
    if found is None:
        return None
    y, *parts = found
    return y, State(*parts) if structured else parts[0]


def _linear(
    backend: Primitives, system: Any, u: Array, x: Array | None, carry: bool, gradient: bool
) -> tuple[Array, Array | None]:
    primitives = backend.capabilities.primitives
    by_kernel = backend.linear_method == "convolution" and system.structure in primitives.get("kernel", ())
    differentiated = gradient and system.structure in primitives.get("scan", ())
    if by_kernel and not (carry or differentiated):
        return backend.convolve(backend.kernel(system, u.shape[-1]), u), None
    y, final = backend.scan(system, u, x, liquid=False)
    return y, final


def _with_correlations(
    backend: Primitives, system: Any, u: Array, spec: ModeSpec, start: State | None, gradient: bool
) -> tuple[Array, State | None]:
    xp, tensors = namespace(u), is_tensor(u)
    carry = start is not None
    if commutes(system.structure, spec):
        # Diagonal matrices commute, so every order equals that of `truncated` at 1/P of the cost.
        y, x = backend.cascade(system, u, start.x if start else None, order=spec.order, kind="truncated")
        return y, State(x) if carry else None

    if not carry and joins_orders(backend, system.structure, spec):
        return backend.joint_scan(system, u, order=spec.order), None
    y, x0 = _linear(backend, system, u, start.x[:, 0] if start else None, carry, gradient)
    states: list[Array] = [x0]
    sums = None
    orders = range(2, spec.order + 1)
    length = u.shape[-1]
    previous = start.inputs if start else None
    held = 0 if previous is None else previous.shape[-1]
    extended = u if previous is None else xp.concatenate([previous, u], -1)

    if spec.order > 1 and spec.mode == "pb":
        options = {
            "order": spec.order,
            "kind": "elementary" if spec.correlations == "all" else "running",
            "sums": order_first(start.sums) if start else None,
            "previous": previous,
        }
        responses = [input_power_response(backend, system, p) for p in orders]
        if spec.window is None and backend.capabilities.fuses("add_correlations", system.structure):
            if tensors:
                y, sums = backend.added_correlations(y, u, xp.stack(responses), **options)
            else:
                sums = backend.add_correlations(y, u, xp.stack(responses), **options)
        else:
            terms, sums = backend.correlate(u, window=spec.window, **options)
            for response, term in zip(responses, terms, strict=True):
                y = y + response[:, None] * term
        sums = order_first(sums)
    elif spec.correlations == "all":
        for p in orders:
            powered = system.with_input_power(p)
            if spec.window is None:
                chain = start.x[:, p * (p - 1) // 2 : p * (p + 1) // 2] if start else None
                term, final = backend.cascade(powered, u, chain, order=p, kind="chain")
                states.extend(final.swapaxes(0, 1) if carry else [])
            else:
                term, _ = backend.cascade(powered, extended, order=p, kind="chain", window=spec.window)
                term = term[..., held:]
            y = y + term
    elif spec.order > 1:
        source = extended if spec.window else u
        terms, _ = backend.correlate(
            source, order=spec.order, kind="products", previous=None if spec.window else previous
        )
        for p in orders:
            powered = system.with_input_power(p)
            if spec.window is None:
                before = start.x[:, p - 1] if start else None
                term, final = _linear(backend, powered, terms[p - 2], before, carry, gradient)
                states.append(final)
            else:
                head = backend.kernel(powered, min(spec.window - p + 1, source.shape[-1]))
                term = backend.convolve(head, terms[p - 2])[..., held:]
            y = y + term
    if not carry:
        return y, None
    # A copy, so that the rest of the inputs is freed.
    kept = None if previous is None else xp.concatenate([extended[..., length:]])
    return y, State(xp.stack(states, 1), sums, kept)


def input_power_response(backend: Primitives, system: Any, power: int) -> Array:
    """weight · Re(C B̄^{∘power}), (H,): what Eq. 15 multiplies a correlation with."""
    return backend.kernel(system, 1, power=power)[:, 0]


def order_first(sums: Array | None) -> Array | None:
    """Sums between the layout of a `State` (batch, n, H) and that of `correlate` (n, batch, H)."""
    return None if sums is None else sums.swapaxes(0, 1)


def state_shapes(system: Any, spec: ModeSpec, batch: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the parts of a state: `x`, and for `kb` and `pb` maybe `sums` and `inputs`."""
    modes: tuple[int, ...] = (system.n_modes,)
    if system.structure != "mimo":
        modes = (system.n_channels, *modes)
    P, H = spec.order, system.n_channels
    if spec.mode in ("s4", "liquid"):
        return {"x": (batch, *modes)}
    if spec.mode == "truncated":
        return {"x": (batch, P, *modes)}
    windowed = spec.window is not None and P > 1
    chains = P if system.structure == "diagonal" else P * (P + 1) // 2
    linear = 1 if spec.mode == "pb" or windowed else chains if spec.correlations == "all" else P
    shapes = {"x": (batch, linear, *modes)}
    if spec.mode == "pb" and not windowed and P > 1:
        shapes["sums"] = (batch, P if spec.correlations == "all" else P - 1, H)
    held = spec.window - 1 if windowed and spec.window else P - 1 if spec.correlations == "adjacent" else 0
    if held:
        shapes["inputs"] = (batch, H, held)
    return shapes


def initial_state(system: Any, spec: ModeSpec, u: Array, state: Any, state_dtype: str | None = None) -> Any:
    """The state in the form that `spec` carries; zeros for None.

    A plain array with the shape of one linear state is x_{-1}; in the forms with several linear states it
    is the first (order 1), the others start at rest.

    Args:
        state_dtype: real dtype of linear states where it is finer than u's (`Arithmetic.state_dtype`).

    Raises:
        ShapeError: no form that this mode takes.
    """
    shapes = state_shapes(system, spec, u.shape[0])
    one = shapes["x"] if spec.mode in ("s4", "liquid") else (shapes["x"][0], *shapes["x"][2:])
    stacked = spec.has_order
    xp = namespace(u)
    real = dtype_name(u.dtype)
    fine = "float64" if "float64" in (real, state_dtype) else real
    kinds = {"x": ("complex128" if fine == "float64" else "complex64") if system.is_complex else fine}
    kinds |= {"sums": real, "inputs": real}
    structured = stacked and spec.mode != "truncated"

    def rest(name: str, shape: tuple[int, ...]) -> Array:
        place = {"device": u.device} if is_tensor(u) else {}
        return xp.zeros(shape, dtype=getattr(xp, kinds[name]), **place)

    if isinstance(state, State):
        if not structured:
            raise ShapeError(f"mode {spec.mode!r} takes its state as one array {shapes['x']}, not as a State.")
        given = {name: part for name, part in state._asdict().items() if part is not None}
        found = {name: tuple(np.shape(part)) for name, part in given.items()}
        if found != shapes:
            raise ShapeError(f"the state of {spec.label} needs the parts {shapes}; it has {found}.")
        return State(**{name: _as_kind(name, part, kinds[name], u) for name, part in given.items()})
    x = None
    if state is not None:
        array = _as_kind("state", state, kinds["x"], u)
        shape = tuple(array.shape)
        if shape == one and stacked:
            others = rest("x", (one[0], shapes["x"][1] - 1, *one[1:]))
            x = xp.concatenate([array[:, None], others], 1)
        elif shape == shapes["x"] and not structured:
            x = array
        else:
            allowed = [one] if structured or not stacked else [one, shapes["x"]]
            raise ShapeError(
                f"state has shape {shape}; {spec.label} takes {' or '.join(map(str, allowed))}"
                f"{', or the State of an earlier call' if structured else ''}."
            )
    parts = {name: x if name == "x" and x is not None else rest(name, shape) for name, shape in shapes.items()}
    return State(**parts) if structured else parts["x"]


def _as_kind(name: str, value: Any, kind: str, u: Array) -> Array:
    """A part of a state in its dtype, of the same kind of array as u and on its device."""
    if is_tensor(u):
        if not is_tensor(value):
            raise ParameterError(f"{name} is no torch tensor, but u is one; give torch.as_tensor({name}).")
        if value.device != u.device:
            raise ParameterError(f"{name} is on {value.device}, u on {u.device}; move one with .to(...).")
        if (value.is_complex() and "complex" not in kind) or dtype_name(value.dtype) == "bool":
            raise ParameterError(f"{name} has dtype {value.dtype}; this mode and system need {kind}.")
        return value.to(getattr(namespace(u), kind))
    if is_tensor(value):
        raise ParameterError(f"{name} is a torch tensor, but u is not; give {name}.numpy(), or u as a tensor.")
    array = np.asarray(value)
    if array.dtype.kind not in "fciu" or (array.dtype.kind == "c" and "complex" not in kind):
        raise ParameterError(f"{name} has dtype {array.dtype}; this mode and system need {kind}.")
    return array.astype(kind, copy=False)


def require_finite_state(state: Any) -> None:
    """Raise a `ParameterError` if a state holds NaN or infinite values."""
    named = state._asdict() if isinstance(state, State) else {"state": state}
    for name, part in named.items():
        if part is not None and not all_finite(np.asarray(part)):
            raise ParameterError(f"{name} holds NaN or infinite values; a state must be finite.")
