from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest

from liquid_ssm.backend import Gradients
from liquid_ssm.backends.compiled import lowrank
from liquid_ssm.backends.compiled.lowrank import Kind, layout_of, lowrank_run, lowrank_vjp
from liquid_ssm.backends.compiled.lowrank_forward import STEPS
from liquid_ssm.backends.compiled.simd import lanes
from liquid_ssm.backends.compiled.tiles import Layout
from liquid_ssm.backends.numpy_backend import NumPyBackend
from liquid_ssm.oracle.adjoint_bounds import gradient_bounds
from liquid_ssm.oracle.realization import Realization
from liquid_ssm.oracle.reference import reference
from liquid_ssm.oracle.rounding import RoundingModel
from liquid_ssm.systems import DPLRSystem

Array = npt.NDArray[Any]
Results = dict[str, Array]

DTYPES = [np.float32, np.float64]
KINDS: list[tuple[Kind, int]] = [("linear", 1), ("liquid", 1), ("truncated", 3), ("chain", 3), ("truncated", 1)]


def system(
    n_channels: int, n_modes: int, rank: int, dtype: Any, *, paired: bool = True, real: bool = False, seed: int = 0
) -> DPLRSystem:
    """Damped so much that the same system of moduli does not grow either."""
    rng = np.random.default_rng(seed)

    def numbers(size: float, *shape: int) -> Array:
        values = rng.uniform(0.3, 1, shape) * (rng.choice([-1, 1], shape) if real else np.exp(6.3j * rng.random(shape)))
        return np.asarray(size * values)

    shape = (n_channels, n_modes)
    factor = np.sqrt(0.1 / (n_modes * max(rank, 1)))
    P, Q = numbers(factor, rank, *shape), numbers(factor, rank, *shape)
    made = DPLRSystem(numbers(0.7, *shape), P, Q, numbers(0.1, *shape), numbers(1.0, *shape), conjugate_pairs=paired)
    return made.astype(dtype)


def arguments(s: DPLRSystem, batch: int, length: int, order: int, seed: int = 1) -> tuple[Array, Array, Array, Array]:
    """u, states, and cotangents of y and of the final states."""
    rng = np.random.default_rng(seed)
    kind = np.result_type(*s.parameters.values())
    states = rng.normal(size=(4, batch, order, s.n_channels, s.n_modes))
    x, g = (states[:2] + 1j * states[2:]) if kind.kind == "c" else states[:2]
    u, grad_y = rng.normal(size=(2, batch, s.n_channels, length)).astype(s.dtype)
    return u, x.astype(kind), grad_y, g.astype(kind)


def everything(s: DPLRSystem, kind: Kind, order: int, u: Array, x: Any, gy: Any, g: Any, **options: Any) -> Results:
    options = {"threads": 1, **options}
    y, final = lowrank_run(s, u, x, order=order, kind=kind, **options)
    gradients = lowrank_vjp(s, u, x, gy, g, order=order, kind=kind, **options)
    return named(y, final, gradients)


def named(y: Array, final: Array, gradients: Gradients) -> Results:
    return {"y": y, "final": final, "u": gradients.u, "state": gradients.state, **gradients.parameters}


def by_numpy(s: DPLRSystem, kind: Kind, order: int, u: Array, x: Any, gy: Any, g: Any) -> Results:
    """The same in float64 by the numpy backend."""
    u, x, gy, g = (None if v is None else v.astype(np.result_type(v, np.float64)) for v in (u, x, gy, g))  # type: ignore[assignment]
    backend = NumPyBackend()
    if kind in ("truncated", "chain"):
        options: Any = {"order": order, "kind": kind}
        y, final = backend.cascade(s.astype(float), u, x, **options)
        return named(y, cast(Array, final), backend.cascade_vjp(s.astype(float), u, x, gy, g, **options))
    x, g = (None if v is None else v[:, 0] for v in (x, g))
    y, final = backend.scan(s.astype(float), u, x, liquid=kind == "liquid")
    gradients = backend.scan_vjp(s.astype(float), u, x, gy, g, liquid=kind == "liquid")
    return named(y, final[:, None], gradients._replace(state=gradients.state[:, None]))


def bounds(s: DPLRSystem, kind: Kind, order: int, u: Array, x: Any, gy: Any, g: Any, unit: float) -> Results:
    """γ_n times the same results of the system of moduli (docs/bounds-gradients.md), for ours and for the reference.

    n: in each step two sums over modes, at most 2√2 units per term with all modes, a product and an addition for
    each r and 12 more units; then sums over time, batch, modes and orders of as many terms.
    """
    moduli = {name: np.abs(value).astype(float) for name, value in s.parameters.items()}
    moduli["P_bar"] = -moduli["P_bar"]
    of_moduli = DPLRSystem(**moduli, conjugate_pairs=s.conjugate_pairs)
    sizes = by_numpy(of_moduli, kind, order, *(None if v is None else np.abs(v) for v in (u, x, gy, g)))  # type: ignore[arg-type]
    n = (u.shape[-1] + 1) * (6 * s.n_modes + 6 * s.rank + 12) + 3 * (u[:, 0].size + s.n_modes) * order + 20
    assert n * unit < 0.1
    return {name: 2 * n * unit / (1 - n * unit) * np.abs(size) for name, size in sizes.items()}


def check(s: DPLRSystem, kind: Kind, order: int, u: Array, x: Any, gy: Any, g: Any, **options: Any) -> Results:
    got = everything(s, kind, order, u, x, gy, g, **options)
    expected = by_numpy(s, kind, order, u, x, gy, g)
    # The smallest subnormal, for each of at most 10^5 operations, where a result is that small.
    floor = 1e5 * float(np.finfo(s.dtype).smallest_subnormal)
    limits = bounds(s, kind, order, u, x, gy, g, float(np.finfo(s.dtype).eps) / 2)
    for name, value in got.items():
        assert value.shape == expected[name].shape, name
        assert value.dtype == s.dtype if name in ("y", "u") else value.dtype.kind == expected[name].dtype.kind, name
        assert (np.abs(value - expected[name]) <= limits[name] + floor).all(), name
    return got


@pytest.mark.parametrize(("kind", "order"), KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_lengths_around_blocks(kind: Kind, order: int, dtype: Any) -> None:
    s = system(3, 5, 1, dtype)
    for length in (1, 2, STEPS - 1, STEPS, STEPS + 1, 2 * STEPS + 3):
        check(s, kind, order, *arguments(s, 2, length, order))


@pytest.mark.parametrize(("kind", "order"), KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rank", [0, 1, 2, 3])
@pytest.mark.parametrize("paired", [True, False])
def test_ranks_and_structures(kind: Kind, order: int, dtype: Any, rank: int, paired: bool) -> None:
    for n_channels, n_modes, real in ((1, 1, False), (3, 7, False), (2, 4, True)):
        s = system(n_channels, n_modes, rank, dtype, paired=paired, real=real)
        got = check(s, kind, order, *arguments(s, 3, 19, order))
        assert np.iscomplexobj(got["final"]) is not real


@pytest.mark.parametrize(("kind", "order"), KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_layout(kind: Kind, order: int, dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    s = system(5, 9, 2, dtype)
    u, x, gy, g = arguments(s, 5, 40, order)
    for group in (1 << i for i in range(lanes(dtype).bit_length())):
        layout = Layout(25, 5, 9, lanes(dtype), group)
        monkeypatch.setattr(lowrank, "layout_of", lambda *_, layout=layout: layout)
        check(s, kind, order, u, x, gy, g)


@pytest.mark.parametrize(("kind", "order"), KINDS)
def test_missing_states_and_cotangents_are_zero(kind: Kind, order: int) -> None:
    s = system(2, 3, 1, np.float32)
    u, x, gy, g = arguments(s, 2, 70, order)
    for given in ((u, None, gy, None), (u, x, None, g), (u, None, None, None)):
        check(s, kind, order, *given)
    nothing = everything(s, kind, order, u, x, None, None)
    assert not any(nothing[name].any() for name in ("u", "state", *s.parameters))


@pytest.mark.parametrize(("kind", "order"), KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch", [1, 23])
def test_threads_change_nothing(kind: Kind, order: int, dtype: Any, batch: int) -> None:
    s = system(3, 6, 1, dtype)
    given = arguments(s, batch, 70, order)
    alone = everything(s, kind, order, *given)
    for threads in (2, 3):
        for name, value in everything(s, kind, order, *given, threads=threads).items():
            np.testing.assert_array_equal(value, alone[name], strict=True)


@pytest.mark.parametrize(("kind", "order"), KINDS)
@pytest.mark.parametrize(("rank", "paired"), [(1, True), (2, True), (2, False)])
def test_a_state_goes_on_bit_for_bit(kind: Kind, order: int, rank: int, paired: bool) -> None:
    s = system(3, 11, rank, np.float32, paired=paired)
    u, x, _, _ = arguments(s, 2, 100, order)
    y, final = lowrank_run(s, u, x, order=order, kind=kind, threads=1)
    for cut in (0, 1, 37, 64, 100):
        first, between = lowrank_run(s, u[..., :cut], x, order=order, kind=kind, threads=1)
        second, last = lowrank_run(s, u[..., cut:], between, order=order, kind=kind, threads=1)
        np.testing.assert_array_equal(np.concatenate([first, second], axis=-1), y)
        np.testing.assert_array_equal(last, final)


@pytest.mark.parametrize(("kind", "order"), KINDS)
def test_no_steps_and_no_rows(kind: Kind, order: int) -> None:
    s = system(2, 3, 2, np.float32)
    u, x, gy, g = arguments(s, 2, 0, order)
    got = everything(s, kind, order, u, x, gy, g)
    np.testing.assert_array_equal(got["final"], x)
    np.testing.assert_array_equal(got["state"], g)
    assert not any(got[name].any() for name in s.parameters)
    assert not np.shares_memory(got["final"], x)
    assert not np.shares_memory(got["state"], g)
    u, x, gy, g = arguments(s, 0, 9, order)
    got = everything(s, kind, order, u, x, gy, g)
    assert got["y"].shape == got["u"].shape == (0, 2, 9)
    assert got["final"].shape == got["state"].shape == (0, order, 2, 3)
    for name, parameter in s.parameters.items():
        np.testing.assert_array_equal(got[name], np.zeros_like(parameter), strict=True)


def test_inputs_of_any_strides_are_read_and_not_written() -> None:
    s = system(3, 5, 1, np.float32)
    given = arguments(s, 2, 70, 2)
    expected = everything(s, "truncated", 2, *given)
    spread = [np.repeat(np.moveaxis(v, 0, -1), 2, axis=0)[::2] for v in given]
    scattered = [np.moveaxis(v, -1, 0) for v in spread]
    for value in scattered:
        value.flags.writeable = False
    for name, value in everything(s, "truncated", 2, *scattered).items():
        np.testing.assert_array_equal(value, expected[name])
        assert value.flags.writeable


@pytest.mark.parametrize(("kind", "order"), KINDS)
def test_wide_states_under_narrow_data(kind: Kind, order: int) -> None:
    s = system(3, 5, 1, np.float32)
    u, x, gy, g = arguments(s, 2, 70, order)
    got = everything(s, kind, order, u, x.astype(complex), gy, g.astype(complex), state_dtype=np.float64)
    expected, limits = by_numpy(s, kind, order, u, x, gy, g), bounds(s, kind, order, u, x, gy, g, 2.0**-53)
    for name, value in got.items():
        wide = name in ("final", "state")
        assert value.real.dtype == (np.float64 if wide else np.float32), name
        # Data and parameters are rounded once, part by part.
        rounding = 0 if wide else 1.001 * 2.0**-24 * np.abs(expected[name])
        assert (np.abs(value - expected[name]) <= limits[name] + rounding).all(), name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("kind", "order"), [("linear", 1), ("liquid", 1), ("truncated", 3)])
@pytest.mark.parametrize(("rank", "paired", "n_modes"), [(1, True, 1), (2, True, 4), (1, False, 1), (2, False, 3)])
def test_within_the_bounds_of_the_oracle(
    kind: Kind, order: int, dtype: Any, rank: int, paired: bool, n_modes: int
) -> None:
    mode = {"linear": "s4", "liquid": "liquid", "truncated": "truncated"}[kind]
    model = RoundingModel.of_dtype(dtype, pairwise=False, fused=True)
    for seed in range(4):
        s = system(2, n_modes, rank, dtype, paired=paired, seed=seed)
        u, x, gy, g = arguments(s, 2, 24, order, seed)
        x[:, 1:] = 0
        exact = Realization("dplr", s.Lambda_bar, s.B_bar, s.C, P=s.P_bar, Q=s.Q_bar, conjugate_pairs=s.conjugate_pairs)
        got = everything(s, kind, order, u, x, gy, g)
        true = reference(exact, u, mode, order=order, state=x[:, 0], models=[model])
        assert true.bounds[0].units(np.abs(got["y"] - true.value) - true.radius) <= 1
        # One order has its states without an axis for orders.
        states = {"state": x, "grad_state": g} if kind == "truncated" else {"state": x[:, 0], "grad_state": g[:, 0]}
        limits = gradient_bounds(exact, u, mode=mode, order=order, grad_y=gy, **states, model=model)
        expected = by_numpy(s, kind, order, u, x, gy, g)
        # In float64 the reference is as wrong as the bound allows what is tested to be: its sums are no longer.
        shares = 2 if dtype is np.float64 else 1.001
        names = {"Lambda_bar": "A", "P_bar": "P", "Q_bar": "Q", "B_bar": "B", "C": "C", "u": "u", "state": "state"}
        for ours, theirs in names.items():
            limit = limits[theirs].reshape(got[ours].shape)
            assert (np.abs(got[ours] - expected[ours]) <= shares * limit).all(), ours


def test_layouts() -> None:
    n = lanes(np.float32)
    assert layout_of(64 * n, 64, 32, 1, np.float32).group == 1
    assert layout_of(1, 1, 4 * n, 1, np.float32).group == n
    assert layout_of(0, 3, 1, 1, np.float64).group == 1
