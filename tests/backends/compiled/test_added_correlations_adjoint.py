"""The adjoint of the terms of `pb` in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liquid_ssm.backends.compiled import added_correlations_adjoint
from liquid_ssm.backends.compiled.added_correlations_adjoint import add_correlations_vjp
from liquid_ssm.backends.compiled.scan import STEPS
from liquid_ssm.backends.numba_backend import NumbaBackend, float64_state

NUMBA = NumbaBackend()
KINDS = ("elementary", "running")
NAMES = ("u", "responses", "sums", "previous")


@dataclass
class Case:
    """Arguments and cotangents of `add_correlations`; None where there are none."""

    u: Any
    responses: Any
    grad_y: Any
    grad_sums: Any
    sums: Any
    previous: Any
    order: int
    kind: str

    @classmethod
    def drawn(cls, kind, order, shape, dtype="float64", *, carried=True, final=True, whole=False, seed=0):
        """Random; small whole numbers, whose sums and products are exact, with `whole`."""
        rng = np.random.default_rng(seed)

        def numbers(*size):
            found = rng.integers(-2, 3, size) if whole else rng.normal(size=size) / 2
            return found.astype(dtype)

        rows, n_sums = shape[:2], order if kind == "elementary" else order - 1
        return cls(
            numbers(*shape),
            numbers(order - 1, shape[1]),
            numbers(*shape),
            numbers(n_sums, *rows) if final else None,
            numbers(n_sums, *rows) if carried else None,
            # One more than is needed, and for order 4 one less.
            numbers(*rows, order if order != 4 else 2) if carried and kind == "running" else None,
            order,
            kind,
        )

    def found(self, backend=NUMBA):
        options = {"order": self.order, "kind": self.kind, "sums": self.sums, "previous": self.previous}
        result = backend.add_correlations_vjp(self.u, self.responses, self.grad_y, self.grad_sums, **options)
        for gradient, argument in zip(result, (self.u, self.responses, self.sums, self.previous), strict=True):
            assert (gradient is None) == (argument is None)
            if argument is not None:
                assert (gradient.shape, gradient.dtype) == (argument.shape, self.u.dtype)
        return dict(zip(NAMES, result, strict=True))

    def value(self, shift=0, direction=None):
        """Σ grad_y · y + Σ grad_sums · final sums of the forward pass, where the arguments are moved."""
        moved = {name: getattr(self, name) for name in NAMES}
        if direction is not None:
            moved = {name: None if a is None else a + shift * direction[name] for name, a in moved.items()}
        y = np.zeros_like(self.u)
        u, responses = moved.pop("u"), moved.pop("responses")
        final = NUMBA.add_correlations(y, u, responses, order=self.order, kind=self.kind, **moved)
        return (y * self.grad_y).sum() + (0 if self.grad_sums is None else (final * self.grad_sums).sum())

    def composed(self):
        """By terms that are stored and their gradients."""
        options = {"order": self.order, "kind": self.kind, "sums": self.sums, "previous": self.previous}
        terms, _ = NUMBA.correlate(self.u, **options)
        grad_terms = self.responses[:, None, :, None] * self.grad_y
        grad_u, *others = NUMBA.correlate_vjp(self.u, grad_terms, self.grad_sums, **options)
        return dict(zip(NAMES, (grad_u, (terms * self.grad_y).sum(axis=(1, 3)), *others), strict=True))

    def written_out(self, of_number):
        """The gradients by the definition in longdouble, numbers and with of_number=abs their moduli."""

        def wide(array, *shape):
            return np.zeros(shape, np.longdouble) if array is None else of_number(array.astype(np.longdouble))

        rows, P = self.u.shape[:2], self.order
        u, g, responses = wide(self.u), wide(self.grad_y), wide(self.responses)
        if self.kind == "elementary":
            return self._polynomials(u, g, responses, wide(self.sums, P, *rows), wide(self.grad_sums, P, *rows))
        return self._products(
            u,
            g,
            responses,
            wide(self.sums, P - 1, *rows),
            wide(self.grad_sums, P - 1, *rows),
            wide(self.previous, *rows, 0),
        )

    def _polynomials(self, u, g, responses, sums, a):
        length, P = u.shape[-1], self.order
        e = [np.concatenate([np.ones((1, *sums.shape[1:]), np.longdouble), sums])]
        for k in range(length):
            e.append(np.concatenate([e[-1][:1], e[-1][1:] + u[..., k] * e[-1][:-1]]))
        of_u, of_responses = np.zeros_like(u), np.zeros_like(responses)
        for k in reversed(range(length)):
            for p in range(2, P + 1):
                of_responses[p - 2] += (g[..., k] * e[k + 1][p]).sum(axis=0)
                a[p - 1] += responses[p - 2] * g[..., k]
            of_u[..., k] = (a * e[k][:-1]).sum(axis=0)
            a[:-1] += u[..., k] * a[1:]
        return {"u": of_u, "responses": of_responses, "sums": a}

    def _products(self, u, g, responses, sums, of_sums, previous):
        length, P = u.shape[-1], self.order
        known = previous.shape[-1]
        nothing = np.zeros((*previous.shape[:-1], P), np.longdouble)
        v = np.concatenate([nothing, previous, u], axis=-1)
        start = P + known
        of_v, of_responses = np.zeros_like(v), np.zeros_like(responses)
        for p in range(2, P + 1):
            total = sums[p - 2].copy()
            for k in range(start, start + length):
                total += np.prod(v[..., k - p + 1 : k + 1], axis=-1)
                of_responses[p - 2] += (g[..., k - start] * total).sum(axis=0)
            for k in reversed(range(start, start + length)):
                of_sums[p - 2] += responses[p - 2] * g[..., k - start]
                for i in range(p):
                    others = [k - j for j in range(p) if j != i]
                    of_v[..., k - i] += of_sums[p - 2] * np.prod(v[..., others], axis=-1)
        parts = {"u": of_v[..., start:], "responses": of_responses, "sums": of_sums}
        return parts | {"previous": of_v[..., P:start]}

    def bounds(self, sizes, unit):
        """γ_n of the moduli, with the counts of docs/bounds-gradients.md, The correlations of `pb` in one pass."""
        (batch, _, length), P = self.u.shape, self.order
        step = max(2 * length + 2 * P, length + 4 * P)
        counts = dict.fromkeys(NAMES, step)
        counts["responses"] = length + P + min(STEPS, length) + ceil(length / STEPS) + batch + 1
        return {name: counts[name] * unit / (1 - counts[name] * unit) * size for name, size in sizes.items()}

    def require_within_bounds(self, found):
        unit, wide = (float(np.finfo(d).eps) / 2 for d in (self.u.dtype, np.longdouble))
        expected, sizes = self.written_out(lambda x: x), self.written_out(np.abs)
        ours = self.bounds(sizes, unit)
        for name, gradient in found.items():
            if gradient is not None:
                # What is written out adds up step by step and row by row, at most twice for each of them.
                n = 4 * (self.u.size + 4 * self.order + 4)
                bound = ours[name] + n * wide * sizes[name]
                assert np.all(np.abs(gradient - expected[name]) <= bound), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("length", [0, 1, STEPS - 1, STEPS, STEPS + 1])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients_are_within_their_bounds(kind, order, length, dtype):
    for carried in (True, False):
        for final in (True, False):
            case = Case.drawn(kind, order, (2, 17, length), dtype, carried=carried, final=final)
            case.require_within_bounds(case.found())


@settings(max_examples=40)
@given(
    kind=st.sampled_from(KINDS),
    order=st.integers(1, 5),
    shape=st.tuples(st.integers(0, 4), st.integers(1, 37), st.sampled_from([0, 1, 2, 5, 17, 63, 64, 129, 200])),
    dtype=st.sampled_from(["float32", "float64"]),
    carried=st.booleans(),
    final=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_every_shape(kind, order, shape, dtype, carried, final, seed):
    case = Case.drawn(kind, order, shape, dtype, carried=carried, final=final, seed=seed)
    case.require_within_bounds(case.found())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("length", [0, 1, STEPS - 1, STEPS, STEPS + 1])
@pytest.mark.parametrize("carried", [True, False])
def test_the_adjoint_of_the_derivative_in_whole_numbers(kind, order, length, carried):
    """Σ gradient · v is the derivative along v, which differences of a polynomial of degree 6 have exactly."""
    case = Case.drawn(kind, order, (2, 5, length), carried=carried, final=carried, whole=True)
    along = vars(Case.drawn(kind, order, (2, 5, length), carried=carried, whole=True, seed=1))
    differences = [case.value(shift, along) for shift in range(order + 2)]
    derivative = 0
    for m in range(1, order + 2):
        differences = np.diff(differences)
        derivative += (-1) ** (m - 1) * (60 // m) * differences[0]
    product = sum((g * along[name]).sum() for name, g in case.found().items() if g is not None)
    assert derivative == 60 * product


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", [2, 3, 5])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_it_is_the_composition(kind, order, dtype):
    """Both within the bound for gradients of terms that are added up in any order, docs/bounds-gradients.md."""
    case = Case.drawn(kind, order, (3, 20, 3 * STEPS + 5), dtype)
    composed, sizes = case.composed(), case.written_out(np.abs)
    ours = case.bounds(sizes, np.finfo(dtype).eps / 2)
    n = 2 * (case.u.shape[-1] + 2 * order + 2) + 1
    theirs = dict.fromkeys(NAMES, n) | {"responses": n + case.u[:, 0].size}
    for name, gradient in case.found().items():
        if gradient is not None:
            gamma = theirs[name] * np.finfo(dtype).eps  # γ_n < 2nu
            assert np.all(np.abs(gradient - composed[name]) <= ours[name] + gamma * sizes[name]), name


def test_more_orders_than_steps_in_a_block():
    """Inputs of modulus 1, so that every order counts and all numbers are whole: no rounding at all."""
    order = STEPS + 3
    case = Case.drawn("running", order, (1, 2, 2 * STEPS + 10), whole=True, seed=3)
    case.u, case.previous = (np.where(a > 0, 1.0, -1.0) for a in (case.u, case.previous))
    expected = case.written_out(lambda x: x)
    for name, gradient in case.found().items():
        assert np.array_equal(gradient, expected[name].astype(float)), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", [2, 3])
def test_no_bit_depends_on_the_threads(kind, order, monkeypatch):
    monkeypatch.setattr(added_correlations_adjoint, "ALONE", 0)
    case = Case.drawn(kind, order, (5, 20, 200), "float32")
    one, two = (case.found(NumbaBackend(threads=n)) for n in (1, 2))
    assert all(one[name] is two[name] or one[name].tobytes() == two[name].tobytes() for name in NAMES)


@pytest.mark.parametrize("kind", KINDS)
def test_missing_cotangents_are_zero(kind):
    case = Case.drawn(kind, 3, (2, 3, 70))
    case.grad_y = case.grad_sums = None
    assert not any(gradient.any() for gradient in case.found().values() if gradient is not None)
    case = Case.drawn(kind, 3, (2, 3, 70))
    given, case.grad_y = case.grad_y, None
    missing = case.found()
    case.grad_y = 0 * given
    for name, gradient in case.found().items():
        assert gradient is None or np.array_equal(missing[name], gradient)


@pytest.mark.parametrize("kind", KINDS)
def test_float64_states_change_nothing(kind):
    """Sums of products of inputs are in the precision of the data, forwards and backwards."""
    case = Case.drawn(kind, 3, (2, 3, 70), "float32")
    found, wide = case.found(), case.found(float64_state())
    assert all(found[name] is wide[name] or np.array_equal(found[name], wide[name]) for name in NAMES)


def test_memory_in_another_layout_is_read_as_it_is():
    case = Case.drawn("elementary", 3, (2, 3, 70))
    expected = case.found()["u"]
    turned = (np.ascontiguousarray(a.T).T for a in (case.u, case.grad_y))
    found = add_correlations_vjp(
        next(turned), case.responses, next(turned), case.grad_sums, order=3, elementary=True, sums=case.sums,
        previous=None, threads=1,
    )  # fmt: skip
    assert np.array_equal(found[0], expected)
