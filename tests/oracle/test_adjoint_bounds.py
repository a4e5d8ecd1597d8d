"""Bounds on gradients: computed gradients stay below them, wrong ones do not, and they are not much too large."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import count
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import liquid_ssm as ls
from liquid_ssm.backends import _cascade, _ports, _scan, _transition
from liquid_ssm.modes import state_shapes
from liquid_ssm.oracle.adjoint import gradients
from liquid_ssm.oracle.adjoint_bounds import _Running, gradient_bounds
from liquid_ssm.oracle.adjoint_moduli import GradientProblem
from liquid_ssm.oracle.realization import Realization
from liquid_ssm.oracle.rounding import RoundingModel
from liquid_ssm.problem import ModeSpec
from liquid_ssm.rounding_errors import realization_of
from liquid_ssm.testing.strategies import DISCRETE_STRUCTURES, random_system

NAMES = {"A_bar": "A", "Lambda_bar": "A", "B_bar": "B", "C": "C", "P_bar": "P", "Q_bar": "Q"}
RECURRENT = ("s4", "liquid", "truncated")
DTYPES = ("float32", "float64")


def to_float(array: Any) -> Any:
    """Exact numbers in the widest floats; longdouble arrays as they are."""
    if array.dtype != object:
        return array
    parts = [np.array([_longdouble(z.real), _longdouble(z.imag)]) for z in array.ravel()]
    return np.array([p[0] + 1j * p[1] for p in parts], np.clongdouble).reshape(array.shape)


def _longdouble(value: Any) -> Any:
    """A rational as longdouble: its leading float64 and the float64 of what remains."""
    head = float(value)
    return np.longdouble(head) + np.longdouble(float(value - Fraction(head)))


def model_of(dtype: str, **changes: Any) -> RoundingModel:
    """As the numpy backend computes."""
    return RoundingModel.of_dtype(dtype, pairwise=True, **changes)


class Case:
    """One system, one signal, cotangents and states, in one dtype."""

    def __init__(
        self, structure: str, mode: str, dtype: str, seed: int, length: int, *, order: int = 3, **system: Any
    ) -> None:
        rng = np.random.default_rng(seed)
        self.spec = ModeSpec(mode, order)
        options = {"n_channels": 2, "n_modes": 3, "seed": seed} | system
        self.system = random_system(structure, **options).astype(dtype)
        self.u, self.grad_y = rng.normal(size=(2, 2, 2, length)).astype(dtype)
        shape = state_shapes(self.system, self.spec, 2)["x"]
        states = rng.normal(size=(2, *shape)) + 1j * rng.normal(size=(2, *shape))
        self.state, self.grad_state = states.astype(np.result_type(np.dtype(dtype), np.complex64))
        self.dtype = dtype

    def computed(self, **changes: Any) -> dict[str, Any]:
        """By the numpy backend."""
        given = {"u": self.u, "grad_y": self.grad_y, "state": self.state, "grad_state": self.grad_state} | changes
        u, grad_y = given.pop("u"), given.pop("grad_y")
        options = {"mode": self.spec.mode, "order": self.spec.order, "backend": "numpy"}
        found = ls.vjp(self.system, u, grad_y, **options, **given)
        parameters = {NAMES[name]: found.parameters[name] for name in self.system.parameters}
        return {"u": found.u, "state": found.state, **parameters}

    def exact(self, precision: Any = "exact") -> dict[str, Any]:
        r, s = realization_of(self.system), self.spec
        options: Any = {"order": s.order, "state": self.state, "precision": precision}
        return gradients(r, self.u, s.mode, self.grad_y, self.grad_state, **options)

    def bounds(self, model: RoundingModel | None = None) -> dict[str, Any]:
        return gradient_bounds(
            realization_of(self.system),
            self.u,
            mode=self.spec.mode,
            grad_y=self.grad_y,
            grad_state=self.grad_state,
            order=self.spec.order,
            state=self.state,
            model=model or model_of(self.dtype),
        )


def exceeded(computed: dict[str, Any], exact: dict[str, Any], bounds: dict[str, Any]) -> list[str]:
    """Names of the gradients that are not within their bounds; a NaN is not."""
    assert set(computed) <= set(bounds) == set(exact)
    wrong = []
    for name, value in computed.items():
        assert value.shape == bounds[name].shape == exact[name].shape, name
        if not np.all(np.abs(value - to_float(exact[name])) <= bounds[name]):
            wrong.append(name)
    return wrong


@pytest.mark.parametrize("structure", DISCRETE_STRUCTURES)
@pytest.mark.parametrize("mode", RECURRENT)
@settings(max_examples=8)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 6),
    st.sampled_from(DTYPES),
    st.sampled_from([0.0, 0.1, 3.0]),
    st.sampled_from([1e-3, 0.5]),
    st.integers(1, 3),
)
def test_computed_gradients_are_within_the_bounds(
    structure: str, mode: str, seed: int, length: int, dtype: str, decay: float, drive: float, order: int
) -> None:
    case = Case(structure, mode, dtype, seed, length, order=order, decay=decay, drive=drive)
    assert exceeded(case.computed(), case.exact(), case.bounds()) == []


@pytest.mark.parametrize("structure", DISCRETE_STRUCTURES)
@pytest.mark.parametrize("mode", RECURRENT)
def test_long_sequences_are_within_bounds_that_still_say_something(structure: str, mode: str) -> None:
    # The reference is longdouble, whose own error is bounded in the same way; 100 steps are several blocks.
    case = Case(structure, mode, "float32", 1, 100, decay=0.05, drive=0.1)
    exact, bounds = case.exact("longdouble"), case.bounds()
    assert exceeded(case.computed(), exact, bounds) == []
    for name, value in exact.items():
        # float32 has 24 bits; every gradient keeps at least five of them as a whole.
        assert np.linalg.norm(bounds[name]) <= 2.0**-5 * np.linalg.norm(np.abs(value).astype(float)), name
    # By moduli alone nothing is left of them where the modes turn.
    by_moduli = case.bounds(model_of("float32", scan="any"))
    assert all(np.all(bounds[name] <= by_moduli[name]) for name in bounds)
    assert np.linalg.norm(by_moduli["A"]) > 10 * np.linalg.norm(bounds["A"])


SPECS = [
    *(ModeSpec(mode, 3) for mode in RECURRENT),
    *(ModeSpec("kb", p, correlations, w) for p in (1, 3) for correlations in ("all", "adjacent") for w in (None, 4)),
    *(ModeSpec("pb", p, correlations, w) for p in (1, 3) for correlations in ("all", "adjacent") for w in (None, 4)),
]


class Coherent:
    """Arithmetic in which every real operation is off by exactly u, in the same or in random directions."""

    def __init__(self, unit: float, seed: int | None) -> None:
        self.unit = unit
        self.rng = None if seed is None else np.random.default_rng(seed)

    def rounded(self, x: Any) -> Any:
        sign = 1.0 if self.rng is None else self.rng.choice([-1.0, 1.0], np.shape(x))
        return x * (1 + np.longdouble(self.unit) * sign)

    def add(self, z: Any, w: Any) -> Any:
        s = z + w
        return self.rounded(s.real) + 1j * self.rounded(s.imag)

    def mul(self, z: Any, w: Any) -> Any:
        products = [self.rounded(p) for p in (z.real * w.real, z.imag * w.imag, z.real * w.imag, z.imag * w.real)]
        return self.rounded(products[0] - products[1]) + 1j * self.rounded(products[2] + products[3])

    def scale(self, r: Any, z: Any) -> Any:
        return self.rounded(r * z.real) + 1j * self.rounded(r * z.imag)


class Channel:
    """Forward and adjoint recurrence of one channel, every operation by `a`, sums from left to right."""

    def __init__(self, r: Realization, mode: str, order: int, a: Coherent) -> None:
        self.r, self.mode, self.order, self.a = r, mode, order, a
        self.A, self.B, self.C = r.A[0], r.B[0], r.C[0]
        low_rank = () if r.P is None or r.Q is None else zip(r.P[:, 0], r.Q[:, 0], strict=True)
        self.low_rank = list(low_rank)
        self.dense = r.structure == "dense"

    def sum(self, terms: Any) -> Any:
        total = terms[0]
        for term in terms[1:]:
            total = self.a.add(total, term)
        return total

    def project(self, factor: Any, x: Any) -> Any:
        s = self.sum(self.a.mul(np.conj(factor), x))
        return 2 * s.real if self.r.weight == 2 else s

    def apply(self, x: Any, w: Any) -> Any:
        """(Ā + diag w) x, Ā x for w = None."""
        a = self.a
        if self.dense:
            y = self.sum([a.mul(column, x_m) for column, x_m in zip(self.A.T, x, strict=True)])
            return y if w is None else a.add(y, a.mul(w, x))
        y = a.mul(self.A if w is None else a.add(self.A, w), x)
        for P, Q in self.low_rank:
            y = a.add(y, -a.mul(P, self.project(Q, x) + 0j))
        return y

    def adjoint(self, g: Any, w: Any) -> Any:
        a = self.a
        if self.dense:
            y = self.sum([a.mul(np.conj(row), g_n) for row, g_n in zip(self.A, g, strict=True)])
            return y if w is None else a.add(y, a.mul(np.conj(w), g))
        y = a.mul(np.conj(self.A if w is None else a.add(self.A, w)), g)
        for P, Q in self.low_rank:
            y = a.add(y, -a.mul(Q, self.project(P, g) + 0j))
        return y

    def transition_gradients(self, g: Any, x: Any) -> dict[str, Any]:
        if self.dense:
            return {"A": np.stack([self.a.mul(g_n, np.conj(x)) for g_n in g])}
        found = {"A": self.a.mul(np.conj(x), g)}
        if self.low_rank:
            found["P"] = np.stack([-self.a.mul(g, np.conj(self.project(Q, x) + 0j)) for _, Q in self.low_rank])
            found["Q"] = np.stack([-self.a.mul(x, np.conj(self.project(P, g) + 0j)) for P, _ in self.low_rank])
        return found

    def states(self, u: Any) -> tuple[list[Any], list[Any]]:
        """Drives, and the states before the first and after each: one list of orders each."""
        a, order, liquid = self.a, self.order, self.mode == "liquid"
        drives = [a.scale(u_k, self.B) for u_k in u[0, 0]]
        x = [np.zeros(len(self.B), np.clongdouble)] * order
        states = [x]
        for w in drives:
            moved = [self.apply(v, w if liquid else None) for v in x]
            x = [a.add(moved[0], w), *(a.add(moved[p], a.mul(w, x[p - 1])) for p in range(1, order))]
            states.append(x)
        return drives, states

    def gradients(self, u: Any, grad_y: Any) -> dict[str, Any]:
        a, B, C, order, liquid = self.a, self.B, self.C, self.order, self.mode == "liquid"
        drives, states = self.states(u)
        after = states[1:]
        g: list[Any] = [np.zeros(len(B), np.clongdouble)] * order
        sums: dict[str, Any] = {}
        grad_u = np.zeros(u.shape, np.longdouble)
        for k in reversed(range(u.shape[2])):
            w, u_k, gy, before = drives[k], u[0, 0, k], grad_y[0, 0, k], states[k]
            g = [a.add(v, a.scale(self.r.weight * gy, np.conj(C))) for v in g]
            grad_w = a.add(g[0], a.mul(np.conj(before[0]), g[0])) if liquid else g[0]
            for p in range(1, order):
                grad_w = a.add(grad_w, a.mul(g[p], np.conj(before[p - 1])))
            total = np.longdouble(0)
            for term in a.mul(np.conj(B), grad_w).real:
                total = a.rounded(total + term)
            grad_u[0, 0, k] = total
            found = {"B": a.scale(u_k, grad_w), "C": a.scale(self.r.weight * gy, np.conj(self.sum(after[k])))}
            for step in (found, *(self.transition_gradients(g[p], before[p]) for p in range(order))):
                for name, value in step.items():
                    sums[name] = a.add(sums[name], value) if name in sums else value
            higher = [a.mul(np.conj(w), v) for v in g[1:]]
            back = [self.adjoint(v, w if liquid else None) for v in g]
            g = [*(a.add(v, h) for v, h in zip(back[:-1], higher, strict=True)), back[-1]]
        state = np.stack(g)[None, :, None] if self.mode == "truncated" else g[0][None, None]
        sums = {name: value[:, None] if name in ("P", "Q") else value[None] for name, value in sums.items()}
        return {"u": grad_u, "state": state, **sums}


def worst_case(structure: str, positive: bool, rng: Any) -> Realization:
    """A realization with one channel, positive or turning, that neither decays nor grows much."""

    def numbers(low: float, high: float, *shape: int) -> Any:
        size = rng.uniform(low, high, shape)
        return size + 0j if positive else size * np.exp(2j * np.pi * rng.random(shape))

    B, C = numbers(0.05, 0.3, 1, 2), numbers(0.05, 0.3, 1, 2)
    if structure == "dense":
        return Realization("dense", numbers(0.2, 0.45, 1, 2, 2), B, C, conjugate_pairs=False)
    A = numbers(0.5, 1, 1, 2)
    if structure == "diagonal":
        return Realization("diagonal", A, B, C)
    # −P Q* adds where everything is positive
    return Realization("dplr", A / 2, B, C, -numbers(0.2, 0.4, 1, 1, 2), numbers(0.2, 0.4, 1, 1, 2))


@pytest.mark.parametrize("structure", ["diagonal", "dplr", "dense"])
@pytest.mark.parametrize("mode", RECURRENT)
@pytest.mark.parametrize("positive", [True, False])
@settings(max_examples=5)
@given(seed=st.integers(0, 2**32 - 1), length=st.integers(1, 25), coherent=st.booleans())
@example(seed=0, length=25, coherent=True)
@example(seed=0, length=40, coherent=False)
@example(seed=0, length=3, coherent=True)
def test_the_worst_rounding_of_every_operation_stays_within(
    structure: str, mode: str, positive: bool, seed: int, length: int, coherent: bool
) -> None:
    # Not what a machine does but what the model allows: every operation is off by its largest error.
    rng = np.random.default_rng(seed)
    order = 3 if mode == "truncated" else 1
    r = worst_case(structure, positive, rng)
    if length < 5:
        # so strong a drive that the highest order is the largest, with what it takes from those below
        r = replace(r, B=20 * r.B)
    u, grad_y = rng.uniform(0.5, 1, (2, 1, 1, length)) if positive else rng.normal(size=(2, 1, 1, length))
    unit = 2.0**-20
    found = Channel(r, mode, order, Coherent(unit, None if coherent else seed)).gradients(u, grad_y)
    exact = gradients(r, u, mode, grad_y, order=order, precision="longdouble")
    bounds = gradient_bounds(r, u, mode=mode, grad_y=grad_y, order=order, model=RoundingModel(unit, 0.0))
    assert exceeded(found, exact, bounds) == []
    if positive and coherent and structure == "diagonal":
        # All errors have one sign and add up. A product of positive numbers is off by 2u here, where the bound has
        # √5 u and one more for a fused sum; orders of `truncated` count each sum twice.
        for name in ("u", "state"):
            error = np.abs(found[name] - exact[name])
            assert np.all(error >= bounds[name] / 4), name


@pytest.mark.parametrize("structure", ["diagonal", "dplr", "dense"])
@pytest.mark.parametrize("mode", RECURRENT)
@pytest.mark.parametrize("length", [3, 40])
def test_states_are_within_the_bounds_that_gradients_start_from(structure: str, mode: str, length: int) -> None:
    rng = np.random.default_rng(length)
    order = 3 if mode == "truncated" else 1
    r = worst_case(structure, True, rng)
    r = replace(r, B=20 * r.B) if length == 3 else r
    u, unit = rng.uniform(0.5, 1, (1, 1, length)), 2.0**-20
    noisy, quiet = (Channel(r, mode, order, Coherent(v, None)).states(u)[1] for v in (unit, 0.0))
    link = {"s4": None, "liquid": "self", "truncated": "drive"}[mode]
    problem = GradientProblem(r, u, mode, order, "all", None, None, 0 * u, None)
    running = _Running(problem, link, order, RoundingModel(unit, 0.0))
    points = list(running.forward(np.zeros((order, 1, 1, 2), np.clongdouble)))
    for computed, exact, point in zip(noisy, quiet, points, strict=True):
        error = np.abs(np.array(computed) - np.array(exact))
        assert np.all(error <= point.error[:, 0, 0])
        if structure == "diagonal":
            # Products of positive numbers are off by 2u of the √5 u allowed, each sum by one of the two.
            assert np.all(error >= point.error[:, 0, 0] / 2)


@pytest.mark.parametrize("structure", DISCRETE_STRUCTURES)
@pytest.mark.parametrize("mode", RECURRENT)
def test_scales_at_which_products_underflow(structure: str, mode: str) -> None:
    for scale in (1e-20, 1e-38, 1e-44):
        case = Case(structure, mode, "float32", 2, 4)
        case.u, case.grad_y = (np.asarray(scale * v, np.float32) for v in (case.u, case.grad_y))
        case.state, case.grad_state = 0 * case.state, np.complex64(scale) * case.grad_state
        exact, bounds = case.exact(), case.bounds()
        assert exceeded(case.computed(), exact, bounds) == []
        by_moduli = case.bounds(model_of("float32", scan="any"))
        assert exceeded(case.computed(), exact, by_moduli) == []


# Tests of the tests: mistakes that a backend could make.


def without_conjugate(self: Any, cotangent: Any, w: Any = None) -> Any:
    return self._with(w) * cotangent


def without_liquid_factor(self: Any, before: Any, u: Any, cotangent: Any) -> Any:
    return cotangent, np.zeros_like(u)


def without_liquid_term(self: Any, cotangent: Any, u: Any, w: Any) -> Any:
    return self.transition.adjoint(cotangent)


def with_state_of_the_next_step(self: Any, x: Any, cotangent: Any) -> Any:
    return {"A_bar": (np.conj(np.roll(x, -1, axis=0)) * cotangent).reshape(-1, *self.A_bar.shape).sum(0)}


def first_order_only(self: Any, before: Any, u: Any, cotangent: Any) -> Any:
    return cotangent[:, 0], np.zeros_like(u)


def without_link(self: Any, cotangent: Any, u: Any, w: Any) -> Any:
    return self.transition.adjoint(cotangent)


def without_the_weight(self: Any, x: Any, cotangent: Any) -> Any:
    return (cotangent[..., None] * np.conj(x)).sum((0, 1))


def of_the_first_row(self: Any, u: Any, cotangent: Any) -> Any:
    return (cotangent * u[..., None])[:, 0].sum(0)


def half_of_the_pair(self: Any, factor: Any, x: Any) -> Any:
    return (np.conj(factor) * x).sum(-1)[..., None].real


def transposed(self: Any, cotangent: Any, w: Any = None) -> Any:
    return self.apply(cotangent, w)


BUGS: list[tuple[str, str, Any, str, Callable[..., Any]]] = [
    ("diagonal", "s4", _transition.Diagonal, "adjoint", without_conjugate),
    ("dplr", "liquid", _transition.Diagonal, "adjoint", without_conjugate),
    ("diagonal", "liquid", _scan.Scan, "input_cotangents", without_liquid_factor),
    ("mimo", "liquid", _scan.Scan, "input_cotangents", without_liquid_factor),
    ("dense", "liquid", _scan.Scan, "input_cotangents", without_liquid_factor),
    ("diagonal", "liquid", _scan.Scan, "adjoint", without_liquid_term),
    ("diagonal", "s4", _transition.Diagonal, "gradients", with_state_of_the_next_step),
    ("mimo", "truncated", _transition.Diagonal, "gradients", with_state_of_the_next_step),
    ("diagonal", "truncated", _cascade.Truncated, "input_cotangents", first_order_only),
    ("dplr", "truncated", _cascade.Truncated, "adjoint", without_link),
    ("diagonal", "liquid", _ports.Ports, "read_gradient", without_the_weight),
    ("diagonal", "s4", _ports.Ports, "drive_gradient", of_the_first_row),
    ("dplr", "s4", _transition.DiagonalPlusLowRank, "_overlap", half_of_the_pair),
    ("dense", "truncated", _transition.Dense, "adjoint", transposed),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("structure", "mode", "owner", "name", "bug"), BUGS, ids=lambda v: getattr(v, "__name__", v))
def test_mistakes_in_a_backend_exceed_the_bounds(
    structure: str,
    mode: str,
    owner: Any,
    name: str,
    bug: Callable[..., Any],
    dtype: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = Case(structure, mode, dtype, 3, 12)
    exact, bounds = case.exact("longdouble"), case.bounds()
    assert exceeded(case.computed(), exact, bounds) == []
    monkeypatch.setattr(owner, name, bug)
    assert exceeded(case.computed(), exact, bounds) != []


@pytest.mark.parametrize("structure", DISCRETE_STRUCTURES)
@pytest.mark.parametrize("mode", RECURRENT)
def test_mistakes_with_states_and_precision_exceed_the_bounds(structure: str, mode: str) -> None:
    case = Case(structure, mode, "float64", 4, 12)
    exact, bounds, good = case.exact("longdouble"), case.bounds(), case.computed()
    assert "state" in exceeded(case.computed(grad_state=None), exact, bounds)
    # the gradient of the initial state, one step early
    early = case.computed(u=case.u[..., 1:], grad_y=case.grad_y[..., 1:])["state"]
    assert exceeded(good | {"state": early}, exact, bounds) == ["state"]
    # the state that the sequence starts from, forgotten on the way back
    assert exceeded(case.computed(state=0 * case.state), exact, bounds) != []
    # float32 where float64 is claimed
    kinds = {"c": np.complex64, "f": np.float32}
    rounded = {name: value.astype(kinds[value.dtype.kind]) for name, value in good.items()}
    assert set(exceeded(rounded, exact, bounds)) == set(bounds)


# How tight they are.

LENGTHS = (1, 4, 15, 40)


def ratios(structure: str, mode: str) -> Any:
    """bound/|error| of every entry of every gradient in float32, over lengths, dampings and drives."""
    seeds, found = count(), []
    for length in LENGTHS:
        for decay in (0.0, 1e-4, 0.1, 3.0):
            for drive in (1e-3, 0.5):
                case = Case(structure, mode, "float32", next(seeds), length, decay=decay, drive=drive)
                computed, exact, bounds = case.computed(), case.exact("longdouble"), case.bounds()
                assert exceeded(computed, exact, bounds) == []
                for name, value in computed.items():
                    error = np.abs(value - exact[name]).astype(float)
                    found.append((bounds[name][error > 0] / error[error > 0]).ravel())
    return np.concatenate(found)


# The requirement is 100 for recurrences. Orders of `truncated` pass errors on from order to order, and a matrix sums
# over N terms: their bounds add the moduli of more terms, whose rounding errors do not all have one sign.
@pytest.mark.parametrize(
    ("structure", "mode", "limit"),
    [
        *((structure, mode, 100) for structure in ("diagonal", "mimo", "dplr") for mode in ("s4", "liquid")),
        *((structure, "truncated", 150) for structure in ("diagonal", "mimo", "dplr")),
        *(("dense", mode, 150) for mode in RECURRENT),
    ],
)
def test_tightness(structure: str, mode: str, limit: int) -> None:
    found = ratios(structure, mode)
    median, least = np.median(found), found.min()
    print(f"{structure} {mode}: median of bound/error {median:.0f}, smallest {least:.1f}")
    assert median <= limit
    assert least >= 1


# What the arguments mean.


def test_less_knowledge_of_the_computation_gives_larger_bounds() -> None:
    case = Case("diagonal", "liquid", "float64", 5, 9)
    best = case.bounds()
    for model in (model_of("float64", scan="any"), RoundingModel.of_dtype("float64"), model_of("float32")):
        other = case.bounds(model)
        assert all(np.all(best[name] <= other[name]) for name in best)


def test_bounds_have_the_keys_and_shapes_of_the_gradients() -> None:
    for structure in DISCRETE_STRUCTURES:
        for mode in RECURRENT:
            for length in (0, 2):
                case = Case(structure, mode, "float64", 0, length)
                exact, bounds = case.exact(), case.bounds()
                assert {n: v.shape for n, v in exact.items()} == {n: v.shape for n, v in bounds.items()}
                assert all(v.dtype == np.float64 and np.isfinite(v).all() for v in bounds.values())
                one = replace(case.spec, mode=mode)
                single = case.state[:, 0] if mode == "truncated" else case.state
                r = realization_of(case.system)
                options: Any = {"mode": one.mode, "order": 3, "state": single}
                given_one = gradient_bounds(r, case.u, grad_y=case.grad_y, model=model_of("float64"), **options)
                assert given_one["state"].shape == bounds["state"].shape


@pytest.mark.parametrize("shape", [(0, 2, 3), (0, 2, 0), (1, 2, 0)])
def test_nothing_in_the_batch(shape: tuple[int, ...]) -> None:
    for structure in DISCRETE_STRUCTURES:
        r = realization_of(random_system(structure))
        for spec in SPECS if structure != "mimo" else SPECS[:3]:
            options: Any = {"order": spec.order, "correlations": spec.correlations, "window": spec.window}
            u = np.zeros(shape)
            bounds = gradient_bounds(r, u, mode=spec.mode, grad_y=u, model=model_of("float64"), **options)
            assert bounds["u"].shape == shape
            assert bounds["A"].shape == r.A.shape


@pytest.mark.parametrize("structure", DISCRETE_STRUCTURES)
@pytest.mark.parametrize("mode", ["liquid", "truncated"])
def test_a_bound_that_overflows_is_infinite(structure: str, mode: str) -> None:
    r = realization_of(random_system(structure, n_channels=1, n_modes=2))
    r = replace(r, B=1e200 * r.B)
    u = np.full((1, 1, 30), 1e200)
    # In longdouble some of these gradients exist, in float64 none of them does.
    bounds = gradient_bounds(r, u, mode=mode, grad_y=u, model=model_of("float64"))
    assert np.isinf(bounds["B"]).all()
    assert not any(np.isnan(bound).any() for bound in bounds.values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "lti"}, "mode is 'lti'; allowed: s4, liquid, truncated, kb, pb"),
        ({"mode": "pb", "correlations": "some"}, "correlations is 'some'; allowed: all, adjacent"),
        ({"mode": "truncated", "order": 0}, "order is 0; the lowest order is 1"),
        ({"window": 3}, "window is 3, but mode 'liquid' has none"),
        ({"mode": "pb", "window": 0}, "window is 0; it must be at least 1"),
        ({"mode": "kb", "state": np.zeros((1, 1, 2))}, "mode 'kb' is defined from rest"),
        ({"grad_y": np.ones((1, 1, 4))}, r"u has shape \(1, 1, 3\), grad_y \(1, 1, 4\)"),
        ({"u": np.ones((1, 1, 3)) * 1j}, "both must be real"),
        ({"u": np.full((1, 1, 3), np.nan)}, "u has NaN or infinite elements"),
        ({"state": np.zeros((1, 1, 3))}, r"state has shape \(1, 1, 3\); it must be \(1, 1, 2\)"),
        ({"grad_state": np.zeros((1, 2))}, r"grad_state has shape \(1, 2\)"),
        (
            {
                "mode": "kb",
                "correlations": "adjacent",
                "window": 3,
                "model": RoundingModel.of_dtype("float64", powers="exponentials"),
            },
            "the kernels of windowed kb need 'products'",
        ),
        ({"model": RoundingModel(2.0**-113, 0.0)}, "finer than that of NumPy's longdouble"),
    ],
)
def test_wrong_arguments_are_refused(changes: dict[str, Any], message: str) -> None:
    r = Realization("diagonal", *np.full((3, 1, 2), 0.5 + 0.25j))
    u = np.ones((1, 1, 3))
    arguments: dict[str, Any] = {"u": u, "mode": "liquid", "grad_y": u, "model": model_of("float64")}
    with pytest.raises(ValueError, match=message):
        gradient_bounds(r, **(arguments | changes))


def test_mimo_has_no_correlations() -> None:
    r = realization_of(random_system("mimo"))
    with pytest.raises(ValueError, match="mode 'pb' is not defined for mimo"):
        gradient_bounds(r, np.ones((1, 2, 3)), mode="pb", grad_y=np.ones((1, 2, 3)), model=model_of("float64"))


# Recurrences and sums in float64 for data in float32.


class FinerCase(Case):
    """Gradients computed in float64 from float32 numbers, each rounded once."""

    def computed(self, **changes: Any) -> dict[str, Any]:
        wide = {"u": self.u.astype(float), "grad_y": self.grad_y.astype(float)}
        wide |= {"state": self.state.astype(complex), "grad_state": self.grad_state.astype(complex)}
        narrow, self.system = self.system, self.system.astype("float64")
        found = super().computed(**wide | changes)
        self.system = narrow
        return {n: v.astype(np.complex64 if np.iscomplexobj(v) else np.float32) for n, v in found.items()}

    def bounds(self, model: RoundingModel | None = None) -> dict[str, Any]:
        return super().bounds(model or model_of("float32", state_dtype="float64"))


@pytest.mark.parametrize("structure", DISCRETE_STRUCTURES)
@pytest.mark.parametrize("mode", RECURRENT)
def test_gradients_of_finer_recurrences_are_rounded_once(structure: str, mode: str) -> None:
    ratios = []
    for seed, length in enumerate((1, 2, 5, 12)):
        case = FinerCase(structure, mode, "float32", seed, length, decay=0.1, drive=(0.5, 1e-2)[seed % 2])
        computed, exact, bounds = case.computed(), case.exact(), case.bounds()
        assert exceeded(computed, exact, bounds) == []
        by_moduli = case.bounds(model_of("float32", state_dtype="float64", scan="any"))
        assert exceeded(computed, exact, by_moduli) == []
        for name, value in computed.items():
            error = np.abs(value - to_float(exact[name]))
            ratios += list((bounds[name][error > 0] / error[error > 0]).ravel())
            if length > 2:
                # moved to the next floats but one, which two roundings could reach and one cannot
                moved = value.real + 3 * np.spacing(value.real) + 1j * value.imag
                assert exceeded({name: moved if np.iscomplexobj(value) else moved.real}, exact, bounds) == [name]
    assert np.median(ratios) < 5


@pytest.mark.parametrize("mode", RECURRENT)
def test_gradients_in_the_working_precision_exceed_the_bounds_of_finer_ones(mode: str) -> None:
    case = FinerCase("diagonal", mode, "float32", 3, 40, decay=0.05, drive=0.1)
    exact = case.exact("longdouble")
    assert exceeded(case.computed(), exact, case.bounds()) == []
    assert set(exceeded(Case.computed(case), exact, case.bounds())) >= {"u", "A", "B"}


@pytest.mark.parametrize("spec", [s for s in SPECS if s.mode in ("kb", "pb")], ids=lambda s: s.label)
def test_composed_gradients_keep_the_working_precision(spec: ModeSpec) -> None:
    system = random_system("diagonal", n_channels=1, n_modes=2, drive=0.3, seed=1).astype("float32")
    u, grad_y = np.random.default_rng(0).normal(size=(2, 1, 1, 6)).astype(np.float32)
    arguments: dict[str, Any] = {"mode": spec.mode, "grad_y": grad_y, "order": spec.order}
    arguments |= {"correlations": spec.correlations, "window": spec.window}
    plain, finer = (
        gradient_bounds(realization_of(system), u, model=model_of("float32", state_dtype=d), **arguments)
        for d in (None, "float64")
    )
    one = spec.order == 1 or (spec.mode, spec.correlations, spec.window) == ("kb", "all", None)
    for name, bound in plain.items():
        assert np.all(finer[name] < bound / 2) if one else np.array_equal(finer[name], bound), name
    tables = model_of("float32", kernels="tables")
    wider = gradient_bounds(realization_of(system), u, model=tables, **arguments)
    assert all(np.all(wider[name] >= plain[name]) for name in plain)
    assert one or np.any(wider["B"] > plain["B"])
