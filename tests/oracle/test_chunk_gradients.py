"""Bounds on gradients by chunks of time: what is computed so stays below them, what is wrong does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from liquid_ssm.oracle.adjoint import gradients
from liquid_ssm.oracle.adjoint_bounds import gradient_bounds
from liquid_ssm.oracle.adjoint_moduli import GradientProblem
from liquid_ssm.oracle.chunk_gradients import chunked_gradient_bounds
from liquid_ssm.oracle.realization import Realization
from liquid_ssm.oracle.rounding import RoundingModel

Array = npt.NDArray[Any]
MODEL = RoundingModel.of_dtype("float32", fused=None, table_dtype="float64", gradient_chunk=32)


class Nearest:
    """float32, round to nearest, sums as NumPy makes them."""

    def table(self, x: Array) -> Array:
        return np.asarray(x, np.float32)

    def products(self, left: Array, right: Array) -> Array:
        return left @ right

    def state(self, x: Array) -> Array:
        return self.table(x)


class Upwards(Nearest):
    """float32 where every operation rounds up: on positive numbers all errors have the same sign."""

    def table(self, x: Array) -> Array:
        near = np.asarray(x, np.float32)
        return np.where(near < x, np.nextafter(near, np.float32(np.inf)), near)

    def products(self, left: Array, right: Array) -> Array:
        total = np.zeros((left.shape[0], right.shape[1]), np.float32)
        for k in range(left.shape[1]):
            term = self.table(left[:, k, None].astype(float) * right[k].astype(float))
            total = self.table(total.astype(float) + term)
        return total


def chunked(
    r: Realization, u: Array, g: Array, state: Array, final: Array, Q: int, how: Nearest, wrong: str = ""
) -> dict[str, Array]:
    """Gradients of one channel's linear recurrence by tables of chunks, as plain as it gets.

    Args:
        wrong: which mistake to make.
    """
    a, b, c = (v[0].astype(complex) for v in (r.A, r.B, r.weight * r.C))
    M, i = len(a), np.arange(Q)
    powers = a[:, None] ** i
    V = (powers * b[:, None])[:, ::-1]
    G = powers * (1 if wrong == "outputs one power short" else a[:, None]) * c[:, None]
    D = a ** (Q - 1 if wrong == "transition one power short" else Q)
    K = (c * b @ powers).real
    coarse = np.float16 if wrong == "tables in half precision" else np.float64
    tables = np.concatenate([V.real, V.imag]), np.concatenate([G.real, -G.imag]).T, real_matrix(D)
    V_r, G_r, D_r = (how.table(t.astype(coarse).astype(float)) for t in tables)
    lower = np.tril(np.ones((Q, Q)))
    lag = i[:, None] - i
    K_r = how.table(np.where(lower > 0, K[np.maximum(lag, 0)], 0))
    chunks = u.shape[-1] // Q
    # columns: rows of the batch
    U, H = (v[:, 0].reshape(len(u), chunks, Q).transpose(1, 2, 0) for v in (u, g))
    z = how.state(np.concatenate([state[:, 0].real.T, state[:, 0].imag.T]))
    states = []
    for k in range(chunks):
        states.append(z)
        z = how.products(np.concatenate([D_r, V_r], axis=1), np.concatenate([z, U[k]]))
    nu = how.state(np.concatenate([final[:, 0].real.T, final[:, 0].imag.T]))
    if wrong == "final cotangent forgotten":
        nu = 0 * nu
    later, du = [], np.empty_like(u)
    for k in reversed(range(chunks)):
        later.append(nu)
        back = np.concatenate([K_r.T, V_r.T], axis=1)
        if wrong == "inputs of the next step":
            back = np.roll(back, 1, axis=0)
        du[:, 0, k * Q : (k + 1) * Q] = how.products(back, np.concatenate([H[k], nu])).T
        D_t = D_r if wrong == "transition not transposed" else D_r.T
        nu = how.products(np.concatenate([D_t, G_r.T], axis=1), np.concatenate([nu, H[k]]))
    Z, N, U, H = (np.concatenate(list(v), axis=1) for v in (states, later[::-1], U, H))
    if wrong == "last row of the batch forgotten":
        H = np.where(np.arange(H.shape[1]) % len(u) == len(u) - 1, 0, H)
    of_D, of_V, of_G, of_M = (how.products(x, y.T).astype(float) for x, y in ((N, Z), (N, U), (H, Z), (H, U)))
    of_K = np.array([np.trace(of_M, -k) for k in range(Q)])
    if wrong == "kernels forgotten":
        of_K = 0 * of_K
    d = np.diag(of_D[:M, :M]) + np.diag(of_D[M:, M:]) + 1j * (np.diag(of_D[M:, :M]) - np.diag(of_D[:M, M:]))
    v, e = of_V[:M] + 1j * of_V[M:], (of_G[:, :M] - 1j * of_G[:, M:]).T
    slope = i * np.concatenate([0 * a[:, None], powers[:, :-1]], axis=1)  # of ā^i
    steps = Q - 1 if wrong == "slope of the transition" else Q
    of_a = np.conj(steps * a ** (Q - 1)) * d + (np.conj(slope * b[:, None])[:, ::-1] * v).sum(axis=1)
    of_a += (np.conj((i + 1) * powers * c[:, None]) * e).sum(axis=1) + np.conj(slope * (b * c)[:, None]) @ of_K
    of_b = (np.conj(powers)[:, ::-1] * v).sum(axis=1) + np.conj(powers * c[:, None]) @ of_K
    of_c = (np.conj(powers * a[:, None]) * e).sum(axis=1) + np.conj(powers * b[:, None]) @ of_K
    if wrong == "not conjugated":
        of_b = np.conj(of_b)
    found = {"A": of_a, "B": of_b, "C": (1 if wrong == "weight forgotten" else r.weight) * of_c}
    parts = {name: how.table(value.real) + 1j * how.table(value.imag) for name, value in found.items()}
    start = (nu[:M] + 1j * nu[M:]).T[:, None]
    return {"u": du, "state": start, **{name: value[None] for name, value in parts.items()}}


def real_matrix(D: Array) -> Array:
    return np.block([[np.diag(D.real), -np.diag(D.imag)], [np.diag(D.imag), np.diag(D.real)]])


def drawn(
    seed: int, batch: int, modes: int, length: int, damping: float, *, pairs: bool = True, positive: bool = False
) -> tuple[Realization, list[Array]]:
    """A system of one channel, u, grad_y, state and grad_state, float32."""
    rng = np.random.default_rng(seed)

    def numbers(*shape: int) -> Array:
        if positive:
            return rng.uniform(0.5, 1, shape).astype("float32")
        return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype("complex64")

    turn = np.zeros((1, modes)) if positive else rng.uniform(-3, 3, (1, modes))
    A = (np.exp(-damping * rng.uniform(0, 1, (1, modes)) + 1j * turn)).astype("complex64")
    r = Realization("diagonal", A, numbers(1, modes), numbers(1, modes), conjugate_pairs=pairs)
    signals = [v.real.astype("float32") for v in (numbers(batch, 1, length), numbers(batch, 1, length))]
    return r, [*signals, numbers(batch, 1, modes), numbers(batch, 1, modes)]


def exact(r: Realization, u: Array, g: Array, state: Array, final: Array) -> dict[str, Array]:
    found = gradients(r, u, "s4", g, final, state=state, precision="longdouble")
    return {name: found[name] for name in ("u", "A", "B", "C", "state")}


def bounds(
    r: Realization, u: Array, g: Array, state: Array, final: Array, model: RoundingModel = MODEL
) -> dict[str, Array]:
    return chunked_gradient_bounds(GradientProblem(r, u, "s4", 1, "all", None, state, g, final), model)


def ratios(
    found: dict[str, Array], r: Realization, given: list[Array], model: RoundingModel = MODEL
) -> dict[str, Array]:
    """Error over bound.  The exact gradients are rounded as longdouble is."""
    expected, limit = exact(r, *given), bounds(r, *given, model=model)
    return {name: np.abs(found[name] - expected[name]) / limit[name] for name in expected}


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    batch=st.sampled_from([1, 2, 5]),
    modes=st.sampled_from([1, 3, 8]),
    chunks=st.integers(1, 6),
    damping=st.sampled_from([0.0, 1e-3, 0.1, 3.0]),
    pairs=st.booleans(),
    chunk=st.sampled_from([8, 32]),
)
@example(seed=0, batch=2, modes=3, chunks=40, damping=0.0, pairs=True, chunk=8)
def test_what_is_computed_stays_within(
    seed: int, batch: int, modes: int, chunks: int, damping: float, pairs: bool, chunk: int
) -> None:
    r, given_ = drawn(seed, batch, modes, chunk * chunks, damping, pairs=pairs)
    found = chunked(r, *given_, chunk, Nearest())
    for name, ratio in ratios(found, r, given_, replace(MODEL, gradient_chunk=chunk)).items():
        assert ratio.max() <= 1, name


@pytest.mark.parametrize("damping", [0.0, 0.05])
def test_errors_that_all_add_up_stay_within_and_come_near(damping: float) -> None:
    """One real mode, positive numbers, every operation rounded up."""
    r, given_ = drawn(1, 1, 1, 128, damping, positive=True, pairs=False)
    r = replace(r, A=r.A.real.astype(complex), B=r.B.astype(complex), C=r.C.astype(complex))
    given_ = [*given_[:2], *(v.astype(complex) for v in given_[2:])]
    found = chunked(r, *given_, 32, Upwards())
    reached = {name: float(ratio.max()) for name, ratio in ratios(found, r, given_).items()}
    assert max(reached.values()) <= 1
    # An operation loses half of what it may on average, and bounds of complex numbers have a factor √2.
    assert min(reached.values()) > 1 / 5


WRONG = (
    "outputs one power short",
    "transition one power short",
    "tables in half precision",
    "final cotangent forgotten",
    "inputs of the next step",
    "transition not transposed",
    "last row of the batch forgotten",
    "kernels forgotten",
    "slope of the transition",
    "not conjugated",
    "weight forgotten",
)


@pytest.mark.parametrize("wrong", WRONG)
def test_mistakes_exceed_them(wrong: str) -> None:
    r, given_ = drawn(2, 2, 3, 96, 0.05)
    assert max(ratio.max() for ratio in ratios(chunked(r, *given_, 32, Nearest()), r, given_).values()) <= 1
    found = chunked(r, *given_, 32, Nearest(), wrong)
    assert max(ratio.max() for ratio in ratios(found, r, given_).values()) > 1


def test_they_are_those_of_gradient_bounds_for_every_mode_with_that_recurrence() -> None:
    r, (u, g, state, final) = drawn(3, 2, 3, 64, 0.0)
    own = bounds(r, u, g, state, final)
    found = gradient_bounds(r, u, mode="s4", grad_y=g, grad_state=final, state=state, model=MODEL)
    by_moduli = gradient_bounds(
        r, u, mode="s4", grad_y=g, grad_state=final, state=state, model=replace(MODEL, gradient_chunk=None, scan="any")
    )
    assert all((found[name] <= own[name] * (1 + 2.0**-20)).all() for name in own)
    assert any((found[name] < by_moduli[name] / 2).all() for name in own)
    nothing = np.zeros_like(state)
    own = bounds(r, u, g, nothing, nothing)
    for options in ({"mode": "kb", "order": 1}, {"mode": "pb", "order": 1}):
        found = gradient_bounds(r, u, grad_y=g, model=MODEL, **options)  # type: ignore[arg-type]
        assert all((found[name] <= own[name] * (1 + 2.0**-20)).all() for name in found)
    # The linear term of pb: more than half of what it would be by moduli is left out.
    whole = gradient_bounds(r, u, mode="pb", order=2, grad_y=g, model=replace(MODEL, gradient_chunk=None, scan="any"))
    found = gradient_bounds(r, u, mode="pb", order=2, grad_y=g, model=MODEL)
    assert (found["A"] < whole["A"] / 2).all()


@pytest.mark.parametrize("options", [{"mode": "liquid"}, {"mode": "truncated", "order": 2}, {"mode": "kb", "order": 2}])
def test_other_recurrences_take_no_chunks(options: dict[str, Any]) -> None:
    r, (u, g, _, _) = drawn(4, 1, 3, 64, 0.1)
    small = replace(r, B=0.1 * r.B)
    found, steps = (
        gradient_bounds(small, u, grad_y=g, model=replace(MODEL, gradient_chunk=chunk), **options)
        for chunk in (32, None)
    )
    assert all((found[name] == steps[name]).all() for name in found)


def test_without_a_whole_number_of_chunks_the_bound_by_moduli_is_left() -> None:
    r, (u, g, state, final) = drawn(5, 1, 3, 33, 0.1)
    found, any_order = (
        gradient_bounds(r, u, mode="s4", grad_y=g, model=replace(MODEL, **changes))  # type: ignore[arg-type]
        for changes in ({}, {"gradient_chunk": None, "scan": "any"})
    )
    assert all((found[name] <= any_order[name]).all() for name in found)
    with pytest.raises(ValueError, match="gradient_chunk is 32 for 33 steps"):
        bounds(r, u, g, state, final)


def test_models_refuse_chunks_in_another_order_than_that_of_time() -> None:
    with pytest.raises(ValueError, match="gradient_chunk=32 with scan='any'"):
        replace(MODEL, scan="any")
    with pytest.raises(ValueError, match=r"gradient_chunk=4.*steps >= 8"):
        replace(MODEL, gradient_chunk=4)
