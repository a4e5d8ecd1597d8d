"""Every primitive on every structure against the definition written out on the full matrices."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from itertools import combinations, pairwise
from math import ceil, factorial, log2, sqrt
from typing import Any

import numpy as np
import pytest

from liquid_ssm.backend import CorrelationKind
from liquid_ssm.backends.numpy_backend import NumPyBackend
from liquid_ssm.errors import BackendRejected, DTypeError, ParameterError, ShapeError
from liquid_ssm.systems import DenseSystem, DiagonalSystem, DPLRSystem, MIMOSystem, System

BACKEND = NumPyBackend()
REAL = {"float32": np.float32, "float64": np.float64}
STRUCTURES = ["diagonal", "diagonal all-modes", "dplr", "dplr all-modes", "dense", "dense real", "mimo", "mimo real"]
SINGLE = [name for name in STRUCTURES if not name.startswith("mimo")]


def make(name: str, draw: Callable[..., Any], H: int = 2, M: int = 3, R: int = 2) -> System:
    """A system of that structure; `draw(*shape, real)` fills its arrays."""
    structure, _, variant = name.partition(" ")
    real, pairs = variant == "real", not variant
    B, C = draw(H, M, real=real), draw(H, M, real=real)
    if structure == "diagonal":
        return DiagonalSystem(draw(H, M), B, C, conjugate_pairs=pairs)
    if structure == "dplr":
        return DPLRSystem(draw(H, M), draw(R, H, M), draw(R, H, M), B, C, conjugate_pairs=pairs)
    if structure == "dense":
        return DenseSystem(draw(H, M, M, real=real), B, C)
    return MIMOSystem(draw(M, real=real), draw(M, H, real=real), C, conjugate_pairs=pairs)


def floats(seed: int) -> Callable[..., Any]:
    rng = np.random.default_rng(seed)

    def draw(*shape: int, real: bool = False) -> Any:
        values = 0.5 * rng.standard_normal(shape)
        return values if real else values + 0.5j * rng.standard_normal(shape)

    return draw


def integers(seed: int) -> Callable[..., Any]:
    rng = np.random.default_rng(seed)

    def draw(*shape: int, real: bool = False) -> Any:
        values = rng.integers(-1, 2, shape).astype(float)
        return values if real else values + 1j * rng.integers(-1, 2, shape)

    return draw


def state_of(system: System, draw: Callable[..., Any], batch: int, *order: int | None) -> Any:
    """Initial states for a cascade of that order, or one state; None for the order None."""
    if order == (None,):
        return None
    shape = (batch, *order, *([] if system.structure == "mimo" else [system.n_channels]), system.n_modes)
    return draw(*shape, real=not any(map(np.iscomplexobj, system.parameters.values())))


# The reference: full matrices in extended precision, one channel after the other.


def both_halves(v: Any, system: System, axis: int = -1) -> Any:
    v = np.asarray(v, np.clongdouble)
    return np.concatenate([v, np.conj(v)], axis=axis) if system.conjugate_pairs else v


def full_matrices(system: System) -> list[tuple[Any, Any, Any]]:
    """(Ā (n, n), B̄ (n, inputs), C (outputs, n)) with y = Re(C x), per channel; for `mimo` one for all."""
    if isinstance(system, MIMOSystem):
        A = np.diag(both_halves(system.A_bar, system))
        return [(A, both_halves(system.B_bar, system, axis=0), both_halves(system.C, system))]
    matrices = []
    for h in range(system.n_channels):
        if isinstance(system, DenseSystem):
            A = system.A_bar[h].astype(np.clongdouble)
        elif isinstance(system, DPLRSystem):
            P, Q = both_halves(system.P_bar[:, h], system), both_halves(system.Q_bar[:, h], system)
            A = np.diag(both_halves(system.Lambda_bar[h], system)) - P.T @ np.conj(Q)
        else:
            A = np.diag(both_halves(system.A_bar[h], system))
        matrices.append((A, both_halves(system.B_bar[h], system)[:, None], both_halves(system.C[h], system)[None]))
    return matrices


def absolute(matrices: list[tuple[Any, Any, Any]]) -> list[tuple[Any, Any, Any]]:
    return [(np.abs(A), np.abs(B), np.abs(C)) for A, B, C in matrices]


Step = Callable[[Any, Any, Any, Any], Any]  # (A, drive, inputs, states (order, n)) -> states


def linear_step(A: Any, w: Any, u: Any, x: Any) -> Any:
    return np.array([A @ x[0] + w])


def liquid_step(A: Any, w: Any, u: Any, x: Any) -> Any:
    return np.array([(A + np.diag(w)) @ x[0] + w])


def truncated_step(A: Any, w: Any, u: Any, x: Any) -> Any:
    return np.array([A @ x[0] + w, *(A @ x[p] + w * x[p - 1] for p in range(1, len(x)))])


def chain_step(A: Any, w: Any, u: Any, x: Any) -> Any:
    return np.array([A @ x[0] + w, *(A @ x[j] + u * x[j - 1] for j in range(1, len(x)))])


def recur(matrices: Any, u: Any, states: Any, step: Step, last_only: bool) -> tuple[Any, Any]:
    """y (batch, H, L) and final states (batch, order, groups, n) from states of that shape."""
    u, states = u.astype(np.longdouble), states.copy()
    y = np.zeros(u.shape, np.longdouble)
    width = u.shape[1] // len(matrices)
    for b, g in np.ndindex(len(u), len(matrices)):
        A, B, C = matrices[g]
        channels = slice(g * width, (g + 1) * width)
        for k in range(u.shape[-1]):
            inputs = u[b, channels, k]
            states[b, :, g] = step(A, B @ inputs, inputs, states[b, :, g])
            read = states[b, -1, g] if last_only else states[b, :, g].sum(axis=0)
            y[b, channels, k] = (C @ read).real
    return y, states


def full_states(system: System, state: Any, batch: int, order: int, cascade: bool) -> Any:
    """The backend's state with both halves and one axis per group of channels."""
    groups = 1 if system.structure == "mimo" else system.n_channels
    if state is None:
        n = system.n_modes * (2 if system.conjugate_pairs else 1)
        return np.zeros((batch, order, groups, n), np.clongdouble)
    state = state if cascade else state[:, None]
    return both_halves(state.reshape(batch, order, groups, system.n_modes), system)


def stored(system: System, states: Any, shape: tuple[int, ...]) -> Any:
    return states[..., : system.n_modes].reshape(shape)


def roundings(system: System, steps: int, order: int = 1) -> float:
    """Units of roundoff that any product of inputs and parameters collects on its way to the output.

    Counted generously per step: three complex products (√5 each), the drive, one sum over modes and one
    over channels, the low-rank sum and its subtraction, three additions; at the end the sum over the
    orders, two real products and additions, and the sum over modes.
    """
    modes, channels = ceil(log2(max(system.n_modes, 1))), ceil(log2(max(system.n_channels, 1)))
    rank = system.rank if isinstance(system, DPLRSystem) else 0
    return steps * (3 * sqrt(5) + 1 + modes + channels + rank + 4) + order + 3 + modes


def assert_within(computed: Any, exact: Any, majorant: Any, count: float) -> None:
    """Each monomial of the result is off by at most (1 + u)^count - 1, in both computations.

    `majorant` is the same quantity with every parameter and input replaced by its absolute value.
    """
    unit = sum(float(np.finfo(t).eps) / 2 for t in (computed.dtype, np.longdouble))
    assert computed.shape == exact.shape
    assert np.all(np.abs(computed - exact) <= np.expm1(count * np.log1p(unit)) * majorant)


def by_index_tuples(matrices: Any, u: Any, order: int, window: int | None = None, *, chain: bool) -> Any:
    """Order `order` of Eq. 12, or of Eq. 14 (`chain`), from rest: one term per tuple i_1 < … < i_p <= k."""
    u = u.astype(np.longdouble)
    y = np.zeros(u.shape, np.longdouble)
    width = u.shape[1] // len(matrices)
    for b, g, k in np.ndindex(len(u), len(matrices), u.shape[-1]):
        A, B, C = matrices[g]
        channels = slice(g * width, (g + 1) * width)
        powers = [np.eye(len(A), dtype=A.dtype)]
        for _ in range(k):
            powers.append(powers[-1] @ A)
        oldest = 0 if window is None else max(0, k - window + 1)
        for chosen in combinations(range(oldest, k + 1), order):
            drives = [B @ u[b, channels, i] for i in chosen]
            if chain:
                x = powers[k + 1 - order - chosen[0]] @ drives[0] * np.prod(u[b, channels, list(chosen[1:])])
            else:
                x = drives[0]
                for i, (before, after) in enumerate(pairwise(chosen), start=1):
                    x = drives[i] * (powers[after - before - 1] @ x)
                x = powers[k - chosen[-1]] @ x
            y[b, channels, k] += (C @ x).real
    return y


def problem(name: str, dtype: str, seed: int = 0, length: int = 7, batch: int = 2) -> tuple[System, Any, Any]:
    draw = floats(seed)
    system = make(name, draw).astype(dtype)
    u = draw(batch, system.n_channels, length, real=True).astype(dtype)
    return system, u, draw


# Values.


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("liquid", [False, True])
def test_scan_is_the_recurrence_on_the_full_matrices(name: str, dtype: str, liquid: bool) -> None:
    system, u, draw = problem(name, dtype)
    state = state_of(system, draw, len(u))
    step = liquid_step if liquid else linear_step
    state = np.asarray(state, np.result_type(*system.parameters.values()))
    y, final = BACKEND.scan(system, u, state, liquid=liquid)
    matrices, start = full_matrices(system), full_states(system, state, len(u), 1, False)
    exact, exact_final = recur(matrices, u, start, step, True)
    bound, bound_final = recur(absolute(matrices), np.abs(u), np.abs(start), step, True)
    count = roundings(system, u.shape[-1])
    assert_within(y, exact, bound, count)
    stored_final, stored_bound = (stored(system, v, final.shape) for v in (exact_final, bound_final))
    assert_within(final, stored_final, stored_bound, count)


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize(
    ("name", "kind"), [*((name, "truncated") for name in STRUCTURES), *((name, "chain") for name in SINGLE)]
)
def test_cascade_is_the_recurrence_on_the_full_matrices(name: str, kind: Any, dtype: str) -> None:
    system, u, draw = problem(name, dtype, seed=1)
    order = 3
    state = state_of(system, draw, len(u), order).astype(np.result_type(*system.parameters.values()))
    y, final = BACKEND.cascade(system, u, state, order=order, kind=kind)
    assert final is not None
    matrices, start = full_matrices(system), full_states(system, state, len(u), order, True)
    step, last_only = (chain_step, True) if kind == "chain" else (truncated_step, False)
    exact, exact_final = recur(matrices, u, start, step, last_only)
    bound, bound_final = recur(absolute(matrices), np.abs(u), np.abs(start), step, last_only)
    count = roundings(system, u.shape[-1], order)
    assert_within(y, exact, bound, count)
    stored_final, stored_bound = (stored(system, v, final.shape) for v in (exact_final, bound_final))
    assert_within(final, stored_final, stored_bound, count)


@pytest.mark.parametrize("name", STRUCTURES)
def test_truncated_cascade_is_the_sum_of_the_words_of_eq_12(name: str) -> None:
    system, u, _ = problem(name, "float64", seed=2, length=5)
    y, _ = BACKEND.cascade(system, u, order=3, kind="truncated")
    matrices = full_matrices(system)
    exact = sum(by_index_tuples(matrices, u, p, chain=False) for p in (1, 2, 3))
    bound = sum(by_index_tuples(absolute(matrices), np.abs(u), p, chain=False) for p in (1, 2, 3))
    assert_within(y, exact, bound, roundings(system, 5, 3))


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("window", [None, 3, 4, 5, 9])
@pytest.mark.parametrize("name", SINGLE)
def test_chain_is_the_sum_over_index_tuples_of_eq_14(name: str, window: int | None, dtype: str) -> None:
    system, u, _ = problem(name, dtype, seed=3, length=6)
    y, final = BACKEND.cascade(system, u, order=3, kind="chain", window=window)
    assert (final is None) == (window is not None)
    matrices = full_matrices(system)
    exact = by_index_tuples(matrices, u, 3, window, chain=True)
    bound = by_index_tuples(absolute(matrices), np.abs(u), 3, window, chain=True)
    assert np.any(exact)
    assert_within(y, exact, bound, roundings(system, 6, 3))


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("power", [1, 2, 3])
@pytest.mark.parametrize("name", SINGLE)
def test_kernel_is_c_a_power_b(name: str, power: int, dtype: str) -> None:
    system, _, _ = problem(name, dtype, seed=4)
    K = BACKEND.kernel(system, 9, power)
    exact, bound = np.zeros((2, 2, 9), np.longdouble)
    for v, matrices in ((exact, full_matrices(system)), (bound, absolute(full_matrices(system)))):
        for h, (A, B, C) in enumerate(matrices):
            x = B[:, 0] ** power
            for i in range(9):
                v[h, i] = (C[0] @ x).real
                x = A @ x
    # The elementwise power adds power - 1 complex products.
    assert_within(K, exact, bound, roundings(system, 9) + (power - 1) * sqrt(5))


def test_kernel_and_convolution_are_the_linear_scan() -> None:
    # Whole numbers: both ways are exact.
    draw = integers(5)
    for name in SINGLE:
        system = make(name, draw)
        u = draw(2, 2, 6, real=True)
        y, _ = BACKEND.scan(system, u, liquid=False)
        np.testing.assert_array_equal(BACKEND.convolve(BACKEND.kernel(system, 6), u), y)


# Precision, state, shapes.


@pytest.mark.parametrize("structure", ["diagonal", "dplr", "dense", "mimo"])
@pytest.mark.parametrize("liquid", [False, True])
def test_no_step_is_computed_in_higher_precision(structure: str, liquid: bool) -> None:
    # In float32, 2^24 absorbs the 1 that every step adds; in float64 it would grow to 2^24 + 8.
    one, zero = np.ones((1, 1), np.float32), np.zeros((1, 1, 1), np.float32)
    small = np.float32(2.0**-24) * one
    systems: dict[str, System] = {
        "diagonal": DiagonalSystem(one, small, one, conjugate_pairs=False),
        "dplr": DPLRSystem(one, zero, zero, small, one, conjugate_pairs=False),
        "dense": DenseSystem(one[None], small, one),
        "mimo": MIMOSystem(one[0], small, one, conjugate_pairs=False),
    }
    system = systems[structure]
    u = np.full((1, 1, 8), 1 if liquid else 2.0**24, np.float32)
    state = np.full((1, 1) if structure == "mimo" else (1, 1, 1), 2.0**24, np.float32)
    y, final = BACKEND.scan(system, u, state, liquid=liquid)
    np.testing.assert_array_equal(y, np.full_like(u, 2.0**24))
    assert y.dtype == final.dtype == np.float32


def all_calls(system: System, u: Any, state: Any, states: Any) -> dict[str, Callable[[], Any]]:
    """Every method of the backend once, with every optional argument."""
    single = system.structure != "mimo"
    sums, grad_terms = np.stack([u[..., 0]] * 2), np.stack([u] * 2)
    kernel = u[0]
    calls: dict[str, Callable[[], Any]] = {
        "scan": lambda: BACKEND.scan(system, u, state, liquid=False),
        "liquid": lambda: BACKEND.scan(system, u, state, liquid=True),
        "scan_vjp": lambda: BACKEND.scan_vjp(system, u, state, u, state, liquid=True),
        "linear_vjp": lambda: BACKEND.scan_vjp(system, u, state, u, state, liquid=False),
        "truncated": lambda: BACKEND.cascade(system, u, states, order=3, kind="truncated"),
        "truncated_vjp": lambda: BACKEND.cascade_vjp(system, u, states, u, states, order=3, kind="truncated"),
        "convolve": lambda: BACKEND.convolve(kernel, u),
        "convolve_vjp": lambda: BACKEND.convolve_vjp(kernel, u, u),
        "products": lambda: BACKEND.correlate(u, order=3, kind="products", previous=u),
        "running": lambda: BACKEND.correlate(u, order=3, kind="running", sums=sums, previous=u),
        "elementary": lambda: BACKEND.correlate(u, order=2, kind="elementary", sums=sums),
        "products_vjp": lambda: BACKEND.correlate_vjp(u, grad_terms, None, order=3, kind="products", previous=u),
        "running_vjp": lambda: BACKEND.correlate_vjp(
            u, grad_terms, sums, order=3, kind="running", sums=sums, previous=u
        ),
        "elementary_vjp": lambda: BACKEND.correlate_vjp(u, grad_terms[:1], sums, order=2, kind="elementary", sums=sums),
    }
    kinds: tuple[CorrelationKind, ...] = ("running", "elementary")
    for kind in kinds:
        options: Any = {"order": 3, "kind": kind, "window": 4, "previous": u}
        calls[f"windowed {kind}"] = partial(BACKEND.correlate, u, **options)
        calls[f"windowed {kind}_vjp"] = partial(BACKEND.correlate_vjp, u, grad_terms, None, **options)
    if single:
        calls |= {
            "kernel": lambda: BACKEND.kernel(system, u.shape[-1], 2),
            "kernel_vjp": lambda: BACKEND.kernel_vjp(system, u.shape[-1], 2, kernel),
            "chain": lambda: BACKEND.cascade(system, u, states, order=3, kind="chain"),
            "chain_vjp": lambda: BACKEND.cascade_vjp(system, u, states, u, states, order=3, kind="chain"),
            "windowed chain": lambda: BACKEND.cascade(system, u, order=3, kind="chain", window=4),
            "windowed chain_vjp": lambda: BACKEND.cascade_vjp(
                system, u, None, u, None, order=3, kind="chain", window=4
            ),
        }
    return calls


def arrays_in(result: Any) -> list[Any]:
    if isinstance(result, np.ndarray):
        return [result]
    if isinstance(result, dict):
        return [a for value in result.values() for a in arrays_in(value)]
    return [] if result is None else [a for value in result for a in arrays_in(value)]


@pytest.mark.parametrize("name", STRUCTURES)
def test_precision_and_inputs_are_kept_by_every_method(name: str) -> None:
    system, u, draw = problem(name, "float32", seed=6)
    dtype = np.result_type(*system.parameters.values())
    state, states = (state_of(system, draw, len(u), *order).astype(dtype) for order in ((), (3,)))
    values = [a.copy() for a in (u, state, states)]
    for array in (u, state, states):
        array.flags.writeable = False
    for method, call in all_calls(system, u, state, states).items():
        results = arrays_in(call())
        assert results, method
        for result in results:
            assert result.dtype.name in ("float32", "complex64"), method
            assert np.isfinite(result).all(), method
            assert not any(np.shares_memory(result, a) for a in (u, state, states, *system.parameters.values()))
            assert result.flags.writeable, method
    for array, value in zip((u, state, states), values, strict=True):
        np.testing.assert_array_equal(array, value)


@pytest.mark.parametrize("name", STRUCTURES)
def test_strided_inputs_give_the_same_bits(name: str) -> None:
    system, u, draw = problem(name, "float64", seed=7)
    states = state_of(system, draw, len(u), 3)
    contiguous = all_calls(system, u, states[:, 0], states)
    spread_u = np.repeat(u[..., ::-1], 2, axis=-1)[..., ::-2]
    spread = np.asfortranarray(states)
    np.testing.assert_array_equal(spread_u, u)
    strided = all_calls(system, spread_u, spread[:, 0], spread)
    for method, call in contiguous.items():
        for a, b in zip(arrays_in(call()), arrays_in(strided[method]()), strict=True):
            np.testing.assert_array_equal(a, b, err_msg=method)


@pytest.mark.parametrize(
    ("H", "M", "batch", "length"), [(1, 1, 1, 1), (2, 3, 0, 5), (2, 3, 2, 0), (1, 5, 3, 2), (3, 1, 1, 7)]
)
@pytest.mark.parametrize("name", STRUCTURES)
def test_shapes(name: str, H: int, M: int, batch: int, length: int) -> None:
    draw = floats(8)
    system = make(name, draw, H, M)
    u = draw(batch, H, length, real=True)
    states = state_of(system, draw, batch, 3)
    if batch and length:
        for method, call in all_calls(system, u, states[:, 0], states).items():
            assert all(np.isfinite(a).all() for a in arrays_in(call())), method
    modes = states.shape[2:]
    y, final = BACKEND.scan(system, u, liquid=True)
    assert (y.shape, final.shape) == (u.shape, (batch, *modes))
    y, final = BACKEND.cascade(system, u, order=2, kind="truncated")  # type: ignore[assignment]
    assert (y.shape, final.shape) == (u.shape, (batch, 2, *modes))
    grads = BACKEND.scan_vjp(system, u, None, u, final[:, 0], liquid=True)
    assert (grads.u.shape, grads.state.shape) == (u.shape, (batch, *modes))
    grads = BACKEND.cascade_vjp(system, u, final, u, final, order=2, kind="truncated")
    assert (grads.u.shape, grads.state.shape) == (u.shape, final.shape)
    assert {n: g.shape for n, g in grads.parameters.items()} == {n: p.shape for n, p in system.parameters.items()}
    kinds: tuple[CorrelationKind, ...] = ("products", "running", "elementary")
    for kind in kinds:
        for window in (None, 3):
            terms, sums = BACKEND.correlate(u, order=3, kind=kind, window=window)
            assert terms.shape == (2, *u.shape)
            grad_u, _, _ = BACKEND.correlate_vjp(u, terms, sums, order=3, kind=kind, window=window)
            assert grad_u.shape == u.shape
    assert BACKEND.convolve(np.ones((H, 4)), u).shape == u.shape
    assert [g.shape for g in BACKEND.convolve_vjp(np.ones((H, 4)), u, u)] == [(H, 4), u.shape]
    if not name.startswith("mimo"):
        assert BACKEND.kernel(system, length).shape == (H, length)
        assert BACKEND.cascade(system, u, order=2, kind="chain", window=2)[0].shape == u.shape
        grads = BACKEND.cascade_vjp(system, u, None, u, None, order=2, kind="chain", window=2)
        assert (grads.u.shape, grads.state) == (u.shape, None)


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("name", STRUCTURES)
def test_split_sequence_with_carried_state_gives_the_same_bits(name: str, dtype: str) -> None:
    # 70 steps: the split also falls between chunks of 64 and inside one.
    system, u, draw = problem(name, dtype, seed=9, length=70)
    u = u * np.asarray(0.1, u.dtype)
    calls: list[tuple[Any, dict[str, Any], tuple[int, ...]]] = [
        (BACKEND.scan, {"liquid": False}, ()),
        (BACKEND.scan, {"liquid": True}, ()),
        (BACKEND.cascade, {"order": 3, "kind": "truncated"}, (3,)),
    ]
    if not name.startswith("mimo"):
        calls.append((BACKEND.cascade, {"order": 3, "kind": "chain"}, (3,)))
    for method, options, order in calls:
        state = state_of(system, draw, len(u), *order)
        whole, final = method(system, u, state, **options)
        for cut in (1, 33, 64, 69):
            head, carried = method(system, u[..., :cut], state, **options)
            tail, end = method(system, u[..., cut:], carried, **options)
            np.testing.assert_array_equal(np.concatenate([head, tail], axis=-1), whole)
            np.testing.assert_array_equal(end, final)


def test_system_is_cast_to_the_precision_of_the_input() -> None:
    system, u, _ = problem("diagonal", "float64", seed=10)
    single = u.astype(np.float32)
    y, final = BACKEND.scan(system, single, liquid=True)
    expected, expected_final = BACKEND.scan(system.astype(np.float32), single, liquid=True)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(final, expected_final)


def test_state_is_complex_exactly_if_a_parameter_is() -> None:
    one = np.ones((1, 1))
    u = np.ones((1, 1, 2))
    for complex_one in ("A_bar", "B_bar", "C"):
        arrays: dict[str, Any] = {"A_bar": one, "B_bar": one, "C": one}
        real = DiagonalSystem(**arrays)
        mixed = DiagonalSystem(**{**arrays, complex_one: one + 1j})
        assert BACKEND.scan(real, u, liquid=True)[1].dtype == np.float64
        assert BACKEND.scan(mixed, u, liquid=True)[1].dtype == np.complex128
        gradients = BACKEND.scan_vjp(mixed, u, np.ones((1, 1, 1)), u, None, liquid=True)
        assert {n for n, g in gradients.parameters.items() if np.iscomplexobj(g)} == {complex_one}
        # A real initial state has a real gradient.
        assert gradients.state.dtype == np.float64


# Gradients.


def derivative(f: Callable[[int], float]) -> Fraction:
    """f'(0) of a polynomial of degree <= 10 from its values at -5 … 5, exactly.

    The central difference formula of order 10 has no truncation error for such a polynomial.
    """
    m = 5
    total = Fraction(0)
    for j in range(1, m + 1):
        weight = Fraction((-1) ** (j + 1) * factorial(m) ** 2, j * factorial(m - j) * factorial(m + j))
        total += weight * (Fraction(f(j)) - Fraction(f(-j)))
    return total


def inner(a: Any, b: Any) -> float:
    return float(np.sum(np.real(a) * np.real(b) + np.imag(a) * np.imag(b)))


def moved(system: System, directions: dict[str, Any], t: float) -> System:
    arrays = {name: value + t * directions[name] for name, value in system.parameters.items()}
    return type(system)(**arrays, conjugate_pairs=system.conjugate_pairs)


def directions_of(system: System, draw: Callable[..., Any]) -> dict[str, Any]:
    return {name: draw(*v.shape, real=not np.iscomplexobj(v)) for name, v in system.parameters.items()}


# name, forward, reverse, keyword arguments, and the order of the states: none, one, or without states
RECURRENT: list[tuple[str, Any, Any, dict[str, Any], tuple[int | None, ...]]] = [
    ("linear", BACKEND.scan, BACKEND.scan_vjp, {"liquid": False}, ()),
    ("liquid", BACKEND.scan, BACKEND.scan_vjp, {"liquid": True}, ()),
    ("truncated", BACKEND.cascade, BACKEND.cascade_vjp, {"order": 3, "kind": "truncated"}, (3,)),
    ("chain", BACKEND.cascade, BACKEND.cascade_vjp, {"order": 3, "kind": "chain"}, (3,)),
    ("window", BACKEND.cascade, BACKEND.cascade_vjp, {"order": 2, "kind": "chain", "window": 3}, (None,)),
]
RECURRENT_CASES = [
    pytest.param(name, case, id=f"{name}-{case[0]}")
    for name in STRUCTURES
    for case in RECURRENT
    if name in SINGLE or case[0] not in ("chain", "window")
]


@pytest.mark.parametrize(("name", "case"), RECURRENT_CASES)
def test_recurrent_gradients_are_exact_for_whole_numbers(name: str, case: Any) -> None:
    # Everything moves at once along t·(whole numbers): three steps, or a window of three, make a polynomial in t
    # of degree at most 8 (the state 1, every step at most 2 more, C 1), and every value below 2^53 is exact.
    label, forward, reverse, options, order = case
    draw = integers(11)
    system = make(name, draw, M=2)
    u, du, grad_y = (draw(2, 2, 4 if label == "window" else 3, real=True) for _ in range(3))
    state, dstate, grad_state = (state_of(system, draw, 2, *order) for _ in range(3))
    directions = directions_of(system, draw)
    gradients = reverse(system, u, state, grad_y, grad_state, **options)

    def loss(t: int) -> float:
        start = None if state is None else state + t * dstate
        y, final = forward(moved(system, directions, t), u + t * du, start, **options)
        return inner(grad_y, y) + (0 if grad_state is None else inner(grad_state, final))

    along = sum(inner(g, directions[n]) for n, g in gradients.parameters.items()) + inner(gradients.u, du)
    along += 0 if state is None else inner(gradients.state, dstate)
    assert along != 0
    assert along == derivative(loss)


@pytest.mark.parametrize(("name", "case"), RECURRENT_CASES)
def test_each_gradient_alone_is_exact_for_whole_numbers(name: str, case: Any) -> None:
    # As above, one argument after the other, so that no two errors can cancel.
    label, forward, reverse, options, order = case
    draw = integers(12)
    system = make(name, draw, M=2)
    u, du, grad_y = (draw(1, system.n_channels, 4 if label == "window" else 3, real=True) for _ in range(3))
    state, dstate = (state_of(system, draw, 1, *order) for _ in range(2))
    gradients = reverse(system, u, state, grad_y, None, **options)
    directions = directions_of(system, draw)
    nothing = {name: np.zeros_like(value) for name, value in directions.items()}
    for parameter, direction in directions.items():
        only = {**nothing, parameter: direction}
        losses = {t: inner(grad_y, forward(moved(system, only, t), u, state, **options)[0]) for t in range(-5, 6)}
        assert inner(gradients.parameters[parameter], direction) == derivative(losses.__getitem__)
    slope = derivative(lambda t: inner(grad_y, forward(system, u + t * du, state, **options)[0]))
    assert inner(gradients.u, du) == slope
    if state is not None:
        # Affine in the state: one difference is the derivative.
        change = forward(system, u, state + dstate, **options)[0] - forward(system, u, state, **options)[0]
        assert inner(gradients.state, dstate) == inner(grad_y, change)


@pytest.mark.parametrize("power", [1, 2, 3])
@pytest.mark.parametrize("name", SINGLE)
def test_kernel_gradients_are_exact_for_whole_numbers(name: str, power: int) -> None:
    # Degree at most power + 2·2 + 1.
    draw = integers(13)
    system = make(name, draw, M=2)
    grad, directions = draw(2, 3, real=True), directions_of(system, draw)
    gradients = BACKEND.kernel_vjp(system, 3, power, grad)
    assert gradients.keys() == directions.keys()
    along = sum(inner(gradients[n], directions[n]) for n in directions)
    assert along == derivative(lambda t: inner(grad, BACKEND.kernel(moved(system, directions, t), 3, power)))
    for value in BACKEND.kernel_vjp(system, 3, power, None).values():
        np.testing.assert_array_equal(value, np.zeros_like(value))


@pytest.mark.parametrize(("name", "case"), RECURRENT_CASES)
def test_gradients_follow_central_differences_on_long_signals(name: str, case: Any) -> None:
    # Two chunks of time and several summation trees.  D_h has the error c h² + O(h⁴), which |D_2h - D_h| ≈ 3 c h²
    # covers.  With M(t) the loss of the absolute values at |θ| + t|dθ|, a loss is rounded by at most count·u·M(2h)
    # and its derivative is at most M(2h)/2h by convexity: D_h, D_2h and the gradient add up to 4 count·u·M(2h)/h.
    _, forward, reverse, options, order = case
    draw = floats(14)
    system = make(name, lambda *shape, real=False: 0.3 * draw(*shape, real=real))
    u, du, grad_y = (draw(2, 2, 70, real=True) for _ in range(3))
    state, dstate, grad_state = (state_of(system, draw, 2, *order) for _ in range(3))
    directions = directions_of(system, draw)
    gradients = reverse(system, u, state, grad_y, grad_state, **options)
    along = sum(inner(g, directions[n]) for n, g in gradients.parameters.items()) + inner(gradients.u, du)
    along += 0 if state is None else inner(gradients.state, dstate)

    def loss(t: float) -> float:
        start = None if state is None else state + t * dstate
        y, final = forward(moved(system, directions, t), u + t * du, start, **options)
        return inner(grad_y, y) + (0 if state is None else inner(grad_state, final))

    h = 2.0**-14
    central, coarse = ((loss(t) - loss(-t)) / (2 * t) for t in (h, 2 * h))
    # The low-rank part is subtracted, so its absolute value needs a negative factor.
    signs = {"P_bar": -1}
    arrays = {n: signs.get(n, 1) * (np.abs(v) + 2 * h * np.abs(directions[n])) for n, v in system.parameters.items()}
    largest = type(system)(**arrays, conjugate_pairs=system.conjugate_pairs)
    start = None if state is None else np.abs(state) + 2 * h * np.abs(dstate)
    y, final = forward(largest, np.abs(u) + 2 * h * np.abs(du), start, **options)
    majorant = inner(np.abs(grad_y), y) + (0 if state is None else inner(np.abs(grad_state), final))
    # Forward and backward, then the sum over all outputs in the inner products.
    count = 2 * roundings(system, u.shape[-1], 3) + grad_y.size
    tolerance = abs(coarse - central) + 4 * count * 2.0**-53 * majorant / h
    assert abs(central - along) <= tolerance
    assert tolerance < 1e-3 * abs(along)


# What it declares and refuses.


def test_declaration() -> None:
    assert (BACKEND.name, BACKEND.requires, BACKEND.linear_method) == ("numpy", ("numpy",), "recurrence")
    assert BACKEND.arithmetic.summation == "pairwise"
    assert BACKEND.capabilities.gradients
    single = ("diagonal", "dplr", "dense")
    assert dict(BACKEND.capabilities.primitives) == {
        "kernel": single,
        "convolve": (),
        "scan": (*single, "mimo"),
        "cascade": (*single, "mimo"),
        "correlate": (),
    }


def test_what_makes_no_sense_is_refused() -> None:
    system, u, _ = problem("diagonal", "float64")
    mimo, _, _ = problem("mimo", "float64")
    state = np.zeros((2, 2, 3))
    for call in (
        lambda: BACKEND.kernel(mimo, 4),
        lambda: BACKEND.kernel_vjp(mimo, 4, 1, None),
        lambda: BACKEND.cascade(mimo, u, order=2, kind="chain"),
    ):
        with pytest.raises(BackendRejected, match=r"needs diagonal or dplr or dense for .*, got mimo"):
            call()
    with pytest.raises(ParameterError, match=r"unknown cascade kind 'chains'.*Did you mean 'chain'"):
        BACKEND.cascade(system, u, order=2, kind="chains")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="'truncated' has none"):
        BACKEND.cascade(system, u, order=2, kind="truncated", window=4)
    with pytest.raises(ParameterError, match="window is 2; it must be at least 3"):
        BACKEND.cascade(system, u, order=3, kind="chain", window=2)
    with pytest.raises(ParameterError, match="a windowed chain starts at rest"):
        BACKEND.cascade(system, u, np.zeros((2, 2, 2, 3)), order=2, kind="chain", window=4)
    with pytest.raises(ParameterError, match="a cascade with a window has no states"):
        BACKEND.cascade_vjp(system, u, None, u, state, order=2, kind="chain", window=4)
    with pytest.raises(ParameterError, match="order is 0"):
        BACKEND.cascade(system, u, order=0, kind="chain")
    with pytest.raises(ParameterError, match="power is 0"):
        BACKEND.kernel(system, 4, 0)
    with pytest.raises(ParameterError, match="length is -1"):
        BACKEND.kernel(system, -1)
    with pytest.raises(ShapeError, match=r"u has shape \(2, 1, 7\), so 1 channel\(s\); the system has 2"):
        BACKEND.scan(system, u[:, :1], liquid=True)
    with pytest.raises(DTypeError, match="u has dtype int64"):
        BACKEND.scan(system, u.astype(np.int64), liquid=True)
    with pytest.raises(ShapeError, match=r"state has shape \(2, 2, 3\); it must be \(2, 3, 2, 3\)"):
        BACKEND.cascade(system, u, state, order=3, kind="truncated")
    with pytest.raises(ShapeError, match="grad_state has shape"):
        BACKEND.scan_vjp(system, u, None, None, state[:1], liquid=True)
    with pytest.raises(ShapeError, match=r"kernel has shape \(3, 4\); it must be \(2, 4\)"):
        BACKEND.convolve(np.ones((3, 4)), u)
    with pytest.raises(DTypeError, match="state has dtype complex128 but every parameter is real"):
        BACKEND.scan(make("dense real", floats(0)), u, state + 1j, liquid=True)
