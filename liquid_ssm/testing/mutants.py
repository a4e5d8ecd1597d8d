"""Seeded bugs: a good backend with one mistake each, to test the suite that must find them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..backend import Arithmetic, Backend, Gradients
from ..problem import Problem
from ..registry import get_backend
from .example import Array

Method = Callable[..., Any]


class _Changed(Backend):
    """A backend with some methods replaced; a replacement gets the original as its first argument."""

    def __init__(self, original: Backend, name: str, **replaced: Method) -> None:
        self._original = original
        self.__dict__.update(
            name=name,
            capabilities=original.capabilities,
            linear_method=original.linear_method,
            arithmetic=original.arithmetic,
        )
        for method, replacement in replaced.items():
            self.__dict__[method] = partial(replacement, getattr(original, method))

    def arithmetic_for(self, problem: Problem) -> Arithmetic:
        return self._original.arithmetic_for(problem)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)


@dataclass(frozen=True)
class Mutant:
    """One mistake.

    Attributes:
        name: what is wrong.
        form, structure, dtype: where the suite must find it.
        make: a new backend with the mistake.
        slight: an error of a few hundred unit roundoffs: a bound that is 1,000 times too wide does not see it.
        base: the good backend that was changed.
    """

    name: str
    form: str
    structure: str
    make: Callable[[], Backend]
    dtype: str = "float64"
    slight: bool = False
    base: str = "numpy"


def _delayed(u: Array, steps: int = 1) -> Array:
    """u shifted to later (or, for negative steps, earlier) time steps, zeros in its place."""
    shifted = np.zeros_like(u)
    if steps > 0:
        shifted[..., steps:] = u[..., :-steps]
    else:
        shifted[..., :steps] = u[..., -steps:]
    return shifted


def _with(system: Any, **changes: Array) -> Any:
    return type(system)(**{**system.parameters, **changes}, conjugate_pairs=system.conjugate_pairs)


def _scan(system: Any, u: Array, state: Array | None, step: Callable[..., Any]) -> tuple[Array, Array]:
    """A diagonal recurrence with a step x, w_k, u_k -> x of its own."""
    kind = np.result_type(u.dtype, np.complex64)
    x = np.zeros((u.shape[0], *system.A_bar.shape), kind) if state is None else state
    y = np.zeros_like(u)
    for k in range(u.shape[-1]):
        u_k = u[..., k, None]
        x = step(x, system.B_bar * u_k, u_k)
        y[..., k] = system.weight * (system.C * x).sum(axis=-1).real
    return y, x.astype(kind)


# scan: modes liquid and s4


def _late_input(scan: Method, system: Any, u: Array, state: Any = None, **o: Any) -> Any:
    return scan(system, _delayed(u), state, **o)


def _early_input(scan: Method, system: Any, u: Array, state: Any = None, **o: Any) -> Any:
    return scan(system, _delayed(u, -1), state, **o)


def _slight_leak(scan: Method, system: Any, u: Array, state: Any = None, **o: Any) -> Any:
    y, final = scan(system, u, state, **o)
    return y + y.dtype.type(2.0**-50) * _delayed(u, -1), final


def _late_output(scan: Method, system: Any, u: Array, state: Any = None, **o: Any) -> Any:
    y, final = scan(system, u, state, **o)
    return _delayed(y), final


def _conjugated_output(scan: Method, system: Any, u: Array, state: Any = None, **o: Any) -> Any:
    return scan(_with(system, C=system.C.conj()), u, state, **o)


def _forgetful(scan: Method, system: Any, u: Array, state: Any = None, **o: Any) -> Any:
    y, final = scan(system, u, None, **o)
    if state is None or not u.size:
        return y, final if state is None else state
    decay, last = scan(system, np.zeros_like(u), state, **o)
    return y + decay, final + last


def _transition_late(scan: Method, system: Any, u: Array, state: Any = None, *, liquid: bool) -> Any:
    previous = [np.zeros_like(u[..., :1])]

    def step(x: Array, w: Array, u_k: Array) -> Array:
        before, previous[0] = previous[0], u_k
        return np.asarray((system.A_bar + system.B_bar * before * liquid) * x + w)

    return _scan(system, u, state, step)


def _one_nan(scan: Method, system: Any, u: Array, state: Any = None, **o: Any) -> Any:
    y, final = scan(system, u, state, **o)
    if y.size > 2:
        y = y.copy()
        y.flat[y.size // 2] = np.nan
    return y, final


def _single_precision(scan: Method, system: Any, u: Array, state: Any = None, **o: Any) -> Any:
    start = None if state is None else state.astype(np.complex64)
    y, final = scan(system.astype("float32"), u.astype(np.float32), start, **o)
    return y.astype(u.dtype), final.astype(np.result_type(u.dtype, np.complex64))


def _one_row(scan: Method, system: Any, u: Array, state: Any = None, **o: Any) -> Any:
    y, final = scan(system, np.repeat(u[:1], len(u), axis=0), state, **o)
    return y, final


def _shifted_variable(scan: Method, system: Any, u: Array, state: Any = None, *, liquid: bool) -> Any:
    # z = x + 1 turns Eq. 11 into z_k = a_k z_{k-1} + 1 - ā: fewer operations, but x is a difference near 1.
    if not liquid:
        return scan(system, u, state, liquid=liquid)
    one = u.dtype.type(1)
    return _scan(system, u, state, lambda x, w, _: (system.A_bar + w) * (x + one) + (one - system.A_bar) - one)


def _stale_state(scan: Method, system: Any, u: Array, state: Any = None, **o: Any) -> Any:
    y, final = scan(system, u, state, **o)
    if u.shape[-1]:
        _, final = scan(system, u[..., :-1], state, **o)
    return y, final


def _one_half(scan: Method, system: Any, u: Array, state: Any = None, **o: Any) -> Any:
    y, final = scan(system, u, state, **o)
    return y / system.weight, final


def _rough(name: str, roundoffs: float, scan: Method, system: Any, u: Array, state: Any = None, **o: Any) -> Any:
    """A parameter that is wrong in its last digits."""
    factor = u.dtype.type(1 + roundoffs * np.finfo(u.dtype).eps / 2)
    return scan(_with(system, **{name: getattr(system, name) * factor}), u, state, **o)


def _noisy(scan: Method, system: Any, u: Array, state: Any = None, **o: Any) -> Any:
    y, final = scan(system, u, state, **o)
    _noisy_calls[0] += 1
    return (np.nextafter(y, y + 1) if _noisy_calls[0] % 2 else y), final


_noisy_calls = [0]


def _cached_by_shape() -> Method:
    seen: dict[Any, Any] = {}

    def scan(original: Method, system: Any, u: Array, state: Any = None, **o: Any) -> Any:
        key = (system.A_bar.shape, u.shape, str(u.dtype), state is None, *o.values())
        if key not in seen:
            seen[key] = original(system, u, state, **o)
        return seen[key]

    return scan


def _no_low_rank(scan: Method, system: Any, u: Array, state: Any = None, **o: Any) -> Any:
    return scan(_with(system, P_bar=0 * system.P_bar), u, state, **o)


def _unconjugated_low_rank(scan: Method, system: Any, u: Array, state: Any = None, **o: Any) -> Any:
    return scan(_with(system, Q_bar=system.Q_bar.conj()), u, state, **o)


def _transposed(scan: Method, system: Any, u: Array, state: Any = None, **o: Any) -> Any:
    return scan(_with(system, A_bar=np.swapaxes(system.A_bar, 1, 2)), u, state, **o)


def _first_input_only(scan: Method, system: Any, u: Array, state: Any = None, **o: Any) -> Any:
    B_bar = system.B_bar.copy()
    B_bar[:, 1:] = 0
    return scan(_with(system, B_bar=B_bar), u, state, **o)


# kernel and convolve: mode s4 by FFT, and what kb and pb take from kernels


def _lower_power(kernel: Method, system: Any, length: int, power: int = 1) -> Any:
    return kernel(system, length, power=max(1, power - 1))


def _short_kernel(kernel: Method, system: Any, length: int, power: int = 1) -> Any:
    values = kernel(system, length, power=power).copy()
    values[:, 100:] = 0
    return values


def _tail(kernel: Method, system: Any, length: int, power: int = 1) -> Any:
    # Algorithm 1, line 8, takes the last entries of a longer kernel instead of the first.
    return kernel(system, 2 * length, power=power)[:, length:]


def _conjugated_kernel(kernel: Method, system: Any, length: int, power: int = 1) -> Any:
    return kernel(_with(system, B_bar=system.B_bar.conj()), length, power=power)


def _rough_kernel(kernel: Method, system: Any, length: int, power: int = 1) -> Any:
    values = kernel(system, length, power=power)
    return values * values.dtype.type(1 + 8000 * np.finfo(values.dtype).eps)


def _circular(convolve: Method, kernel: Array, u: Array) -> Any:
    length = u.shape[-1]
    if not u.size:
        return u.copy()
    return np.fft.irfft(np.fft.rfft(u) * np.fft.rfft(kernel, length), length).astype(u.dtype)


def _single_convolution(convolve: Method, kernel: Array, u: Array) -> Any:
    return convolve(kernel.astype(np.float32), u.astype(np.float32)).astype(u.dtype)


# cascade: modes truncated and kb


def _one_order_less(cascade: Method, system: Any, u: Array, state: Any = None, *, order: int, **o: Any) -> Any:
    if order == 1:
        return cascade(system, u, state, order=order, **o)
    y, final = cascade(system, u, None if state is None else state[:, :-1], order=order - 1, **o)
    if final is not None:
        final = np.concatenate([final, np.zeros_like(final[:, :1])], axis=1)
    return y, final


def _highest_order_only(cascade: Method, system: Any, u: Array, state: Any = None, *, order: int, **o: Any) -> Any:
    y, final = cascade(system, u, state, order=order, **o)
    if order == 1:
        return y, final
    below, _ = cascade(system, u, None if state is None else state[:, :-1], order=order - 1, **o)
    return y - below, final


def _fed_too_early(cascade: Method, system: Any, u: Array, state: Any = None, *, order: int, **o: Any) -> Any:
    """x^(p)_k takes x^(p-1)_k instead of x^(p-1)_{k-1}."""
    kind = np.result_type(u.dtype, np.complex64)
    shape = (order, u.shape[0], *system.A_bar.shape)
    x = np.zeros(shape, kind) if state is None else np.moveaxis(state, 1, 0).copy()
    y = np.zeros_like(u)
    for k in range(u.shape[-1]):
        w = system.B_bar * u[..., k, None]
        x = system.A_bar * x
        x[0] += w
        for p in range(1, order):
            x[p] += w * x[p - 1]
        y[..., k] = system.weight * (system.C * x.sum(axis=0)).sum(axis=-1).real
    return y, np.moveaxis(x, 0, 1).copy()


def _wider_window(cascade: Method, system: Any, u: Array, state: Any = None, *, window: Any = None, **o: Any) -> Any:
    return cascade(system, u, state, window=None if window is None else window + 1, **o)


def _lost_states(cascade: Method, system: Any, u: Array, state: Any = None, **o: Any) -> Any:
    y, final = cascade(system, u, state, **o)
    if final is not None:
        final = final.copy()
        final[:, 1:] = 0
    return y, final


# correlate: modes kb and pb


def _wider_correlation(correlate: Method, u: Array, *, window: Any = None, **o: Any) -> Any:
    return correlate(u, window=None if window is None else window + 1, **o)


def _skipping(correlate: Method, u: Array, *, kind: str, previous: Any = None, **o: Any) -> Any:
    terms, sums = correlate(u, kind=kind, previous=previous, **o)
    if kind == "products" and len(terms):
        terms = terms.copy()
        terms[0] = u * _delayed(u, 2)  # u_k u_{k-2}
    return terms, sums


def _no_carried_sums(correlate: Method, u: Array, *, sums: Any = None, **o: Any) -> Any:
    return correlate(u, sums=None if sums is None else 0 * sums, **o)


def _no_previous(correlate: Method, u: Array, *, previous: Any = None, **o: Any) -> Any:
    return correlate(u, previous=None if previous is None else 0 * previous, **o)


def _power_sums(correlate: Method, u: Array, *, order: int, kind: str, **o: Any) -> Any:
    terms, sums = correlate(u, order=order, kind=kind, **o)
    if kind == "elementary" and order > 1:
        terms = terms.copy()
        terms[0] += np.cumsum(u * u, axis=-1)  # u_k u_k is no pair of different inputs
    return terms, sums


def _remembered() -> Method:
    first: list[Any] = []

    def correlate(original: Method, u: Array, **o: Any) -> Any:
        if not first or first[0][0].shape != (o["order"] - 1, *u.shape) or first[0][0].dtype != u.dtype:
            first[:] = [original(u, **o)]
        return first[0]

    return correlate


# fused forms and finer states


def _without_highest_order(joint_scan: Method, system: Any, u: Array, *, order: int) -> Any:
    return joint_scan(system, u, order=max(1, order - 1))


def _correlations_from_rest(add_correlations: Method, *arguments: Any, sums: Any = None, **o: Any) -> Any:
    return add_correlations(*arguments, sums=None, **o)


def _inputs_of_the_step_before(single_step: Method, *arguments: Any) -> Any:
    found = single_step(*arguments)
    return None if found is None else (*found[:3], arguments[-1])


def _narrow_state(scan: Method, system: Any, u: Array, state: Any = None, **o: Any) -> Any:
    start = None if state is None else state.astype(np.complex64)
    narrow: Any = get_backend("numba")
    y, final = narrow.scan(system, u, start, **o)
    return y, final.astype(np.complex128)


# vector-Jacobian products


def _unconjugated_gradient(vjp: Method, *arguments: Any, **o: Any) -> Any:
    found = vjp(*arguments, **o)
    return Gradients({**found.parameters, "A_bar": found.parameters["A_bar"].conj()}, found.u, found.state)


def _linear_gradient(vjp: Method, *arguments: Any, liquid: bool) -> Any:
    return vjp(*arguments, liquid=False)


def _no_state_gradient(vjp: Method, *arguments: Any, **o: Any) -> Any:
    found = vjp(*arguments, **o)
    return Gradients(found.parameters, found.u, None if found.state is None else 0 * found.state)


def _no_final_cotangent(vjp: Method, system: Any, u: Array, state: Any, grad_y: Any, grad_state: Any, **o: Any) -> Any:
    return vjp(system, u, state, grad_y, None, **o)


def _no_exponent(joint_scan_vjp: Method, system: Any, u: Array, grad_y: Any, *, order: int) -> Any:
    """B̄^{p-1} without the factor p in the gradient of the highest order."""
    found = joint_scan_vjp(system, u, grad_y, order=order)
    lower = joint_scan_vjp(system, u, grad_y, order=max(1, order - 1))
    part = (found.parameters["B_bar"] - lower.parameters["B_bar"]) / order
    return found._replace(parameters={**found.parameters, "B_bar": lower.parameters["B_bar"] + part})


def _highest_term_left_out(add_correlations_vjp: Method, u: Array, responses: Array, *arguments: Any, **o: Any) -> Any:
    """The gradient of u without what the highest order adds to it."""
    lower = responses.copy()
    lower[-1] = 0
    found = add_correlations_vjp(u, lower, *arguments, **o)
    return found[0], *add_correlations_vjp(u, responses, *arguments, **o)[1:]


def _changed(name: str, base: str = "numpy", **methods: Method) -> Callable[[], Backend]:
    return lambda: _Changed(get_backend(base), name, **methods)


def _mutant(name: str, form: str, structure: str, base: str = "numpy", **methods: Method) -> Mutant:
    return Mutant(name, form, structure, _changed(name, base, **methods), base=base)


def _slight(name: str, form: str, dtype: str, base: str = "numpy", **methods: Method) -> Mutant:
    return Mutant(name, form, "diagonal", _changed(name, base, **methods), dtype, slight=True, base=base)


MUTANTS: tuple[Mutant, ...] = (
    _mutant("input one step late", "liquid", "diagonal", scan=_late_input),
    _mutant("input one step early", "liquid", "diagonal", scan=_early_input),
    _mutant("the next input leaks in at 2^-50", "liquid", "diagonal", scan=_slight_leak),
    _mutant("output one step late", "liquid", "diagonal", scan=_late_output),
    _mutant("conjugate dropped in C", "liquid", "diagonal", scan=_conjugated_output),
    _mutant("initial state without the liquid term", "liquid", "diagonal", scan=_forgetful),
    _mutant("transition of the step before", "liquid", "diagonal", scan=_transition_late),
    _mutant("NaN in one element", "liquid", "diagonal", scan=_one_nan),
    _mutant("float32 where float64 is claimed", "liquid", "diagonal", scan=_single_precision),
    _mutant("missing batch stride", "liquid", "diagonal", scan=_one_row),
    _mutant("final state of the step before", "liquid", "diagonal", scan=_stale_state),
    _mutant("Re instead of 2 Re", "liquid", "diagonal", scan=_one_half),
    _mutant("last bit differs from call to call", "liquid", "diagonal", scan=_noisy),
    Mutant(
        "cache by shape",
        "liquid",
        "diagonal",
        lambda: _Changed(get_backend("numpy"), "cache by shape", scan=_cached_by_shape()),
    ),
    _slight("substitution z = x + 1", "liquid", "float32", scan=_shifted_variable),
    _slight("B̄ off by 300 roundoffs", "liquid", "float64", scan=partial(_rough, "B_bar", 300.0)),
    _slight("C off by 300 roundoffs", "s4", "float32", scan=partial(_rough, "C", 300.0)),
    _slight("Ā off by 500 roundoffs", "truncated", "float64", cascade=partial(_rough, "A_bar", 500.0)),
    _slight("C off by 300 roundoffs among the orders", "kb-all", "float32", cascade=partial(_rough, "C", 300.0)),
    _slight("kernel off by 16,000 roundoffs", "s4", "float64", "scipy", kernel=_rough_kernel),
    _mutant("no low rank", "liquid", "dplr", scan=_no_low_rank),
    _mutant("Q for Q*", "s4", "dplr", scan=_unconjugated_low_rank),
    _mutant("transposed transition", "liquid", "dense", scan=_transposed),
    _mutant("first input only", "liquid", "mimo", scan=_first_input_only),
    _mutant("kernel ends after 100 entries", "s4", "diagonal", "scipy", kernel=_short_kernel),
    _mutant("conjugate dropped in a kernel", "s4", "diagonal", "scipy", kernel=_conjugated_kernel),
    _mutant("circular convolution", "s4", "diagonal", "scipy", convolve=_circular),
    _mutant("convolution in float32", "s4", "diagonal", "scipy", convolve=_single_convolution),
    _mutant("one order less", "truncated", "diagonal", cascade=_one_order_less),
    _mutant("highest order only", "truncated", "diagonal", cascade=_highest_order_only),
    _mutant("orders fed one step early", "truncated", "diagonal", cascade=_fed_too_early),
    _mutant("states of the higher orders lost", "truncated", "dense", cascade=_lost_states),
    _mutant("chains one order short", "kb-all", "dplr", cascade=_one_order_less),
    _mutant("chains lose their states", "kb-all", "dense", cascade=_lost_states),
    _mutant("window one input too wide", "kb-all-window", "diagonal", cascade=_wider_window),
    _mutant("u_k u_{k-2} for u_k u_{k-1}", "kb-adjacent", "diagonal", correlate=_skipping),
    _mutant("products forget the last call", "kb-adjacent", "diagonal", correlate=_no_previous),
    _mutant("tail of the kernel for its head", "kb-adjacent-window", "diagonal", kernel=_tail),
    _mutant("B̄^{p-1} for B̄^p", "pb-all", "diagonal", kernel=_lower_power),
    _mutant("squares among the pairs", "pb-all", "diagonal", correlate=_power_sums),
    _mutant("sums forget the last call", "pb-adjacent", "diagonal", correlate=_no_carried_sums),
    _mutant("correlations one input too wide", "pb-all-window", "diagonal", correlate=_wider_correlation),
    _mutant("B̄^{p-1} for B̄^p in a window", "pb-adjacent-window", "dplr", kernel=_lower_power),
    Mutant(
        "correlations of the call before",
        "pb-adjacent",
        "diagonal",
        lambda: _Changed(get_backend("numpy"), "correlations of the call before", correlate=_remembered()),
    ),
    _mutant(
        "highest order missing in a joint recurrence",
        "kb-adjacent",
        "diagonal",
        "numba",
        joint_scan=_without_highest_order,
    ),
    _mutant(
        "sums of one pass forget the last call", "pb-all", "diagonal", "numba", add_correlations=_correlations_from_rest
    ),
    _mutant(
        "a step that keeps the inputs of the one before",
        "kb-adjacent",
        "diagonal",
        "numba",
        single_step=_inputs_of_the_step_before,
    ),
    Mutant(
        "float32 states where float64 ones are claimed",
        "liquid",
        "diagonal",
        _changed("float32 states where float64 ones are claimed", "numba-wide-state", scan=_narrow_state),
        "float32",
        slight=True,
        base="numba-wide-state",
    ),
    _mutant("gradient of Ā not conjugated", "liquid", "diagonal", scan_vjp=_unconjugated_gradient),
    _mutant("gradient without the liquid term", "liquid", "diagonal", scan_vjp=_linear_gradient),
    _mutant("no gradient of the initial state", "truncated", "diagonal", cascade_vjp=_no_state_gradient),
    _mutant(
        "power of B̄ without its exponent in a gradient", "kb-adjacent", "dplr", "numba", joint_scan_vjp=_no_exponent
    ),
    _mutant(
        "gradient of an input without the highest term",
        "pb-adjacent",
        "diagonal",
        "numba",
        add_correlations_vjp=_highest_term_left_out,
    ),
    _mutant("no gradient through the final state", "s4", "dplr", scan_vjp=_no_final_cotangent),
)
