"""`kb` over adjacent tuples as one recurrence on low-rank systems, forwards and backwards."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import liquid_ssm as ls
from liquid_ssm.backends.compiled import lowrank
from liquid_ssm.backends.compiled.lowrank_forward import STEPS
from liquid_ssm.backends.compiled.lowrank_joint import lowrank_joint_scan, lowrank_joint_vjp
from liquid_ssm.backends.compiled.simd import lanes
from liquid_ssm.backends.compiled.tiles import Layout
from liquid_ssm.oracle.adjoint import gradients_by_duals
from liquid_ssm.oracle.adjoint_bounds import gradient_bounds
from liquid_ssm.oracle.exact import outputs
from liquid_ssm.oracle.rounding import RoundingModel
from liquid_ssm.rounding_errors import realization_of
from liquid_ssm.systems import DPLRSystem

NAMES = {"Lambda_bar": "A", "P_bar": "P", "Q_bar": "Q", "B_bar": "B", "C": "C"}


def system(n_channels, n_modes, rank=1, dtype="float64", *, paired=True, real=False, whole=False, seed=0):
    """Damped so much that the same system of moduli does not grow either, or of small (Gaussian) integers."""
    rng = np.random.default_rng(seed)
    shape = (n_channels, n_modes)

    def numbers(size, *shape):
        if whole:
            return rng.integers(-1, 2, shape) + (0 if real else 1j * rng.integers(-1, 2, shape))
        values = rng.uniform(0.3, 1, shape) * (rng.choice([-1, 1], shape) if real else np.exp(6.3j * rng.random(shape)))
        return size * values

    factor = np.sqrt(0.1 / (n_modes * max(rank, 1)))
    P, Q = numbers(factor, rank, *shape), numbers(factor, rank, *shape)
    parts = numbers(0.7, *shape), P, Q, numbers(0.4, *shape), numbers(1.0, *shape)
    dtype = np.dtype(dtype) if real else np.result_type(dtype, np.complex64)
    return DPLRSystem(*(part.astype(dtype) for part in parts), conjugate_pairs=paired)


def check(case, **options):
    options = {"threads": 1, "order": case.order, **options}
    y = lowrank_joint_scan(case.system, case.u, **options)
    found = lowrank_joint_vjp(case.system, case.u, case.grad_y, **options)
    state_dtype = options.get("state_dtype")
    case.require_outputs(y, state_dtype)
    case.require_gradients(found, state_dtype)
    return y, found


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("length", [0, 1, 2, STEPS - 1, STEPS, STEPS + 1, 2 * STEPS + 3])
def test_lengths_around_blocks(joint_case, dtype, order, length):
    check(joint_case(system(3, 5, 1, dtype), 2, length, order))


@pytest.mark.parametrize("order", [1, 3, 4])
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("paired", [True, False])
def test_ranks_and_structures(joint_case, order, rank, paired):
    for n_channels, n_modes, real in ((1, 1, False), (3, 7, False), (2, 4, True)):
        check(joint_case(system(n_channels, n_modes, rank, "float32", paired=paired, real=real), 3, 19, order))


def test_without_a_low_rank_part_it_is_as_if_that_were_zero(joint_case):
    case = joint_case(system(3, 5, 0, "float32"), 2, 70, 3)
    zeros = np.zeros((1, 3, 5), np.complex64)
    parts = case.system
    same = DPLRSystem(parts.Lambda_bar, zeros, zeros, parts.B_bar, parts.C)
    y, z = (lowrank_joint_scan(s, case.u, order=3, threads=1) for s in (parts, same))
    assert y.tobytes() == z.tobytes()
    found, other = (lowrank_joint_vjp(s, case.u, case.grad_y, order=3, threads=1) for s in (parts, same))
    assert found.u.tobytes() == other.u.tobytes()
    assert found.parameters["P_bar"].shape == (0, 3, 5)
    for name in ("Lambda_bar", "B_bar", "C"):
        assert found.parameters[name].tobytes() == other.parameters[name].tobytes()


@settings(max_examples=40)
@given(
    shape=st.tuples(st.integers(0, 4), st.integers(1, 5), st.integers(1, 20)),
    length=st.sampled_from([0, 1, 2, 3, 7, 13, 31, 61, 64, 67, 97, 131]),
    order=st.integers(1, 4),
    rank=st.integers(1, 2),
    paired=st.booleans(),
    dtype=st.sampled_from(["float32", "float64"]),
    seed=st.integers(0, 1000),
)
def test_every_shape(joint_case, shape, length, order, rank, paired, dtype, seed):
    batch, n_channels, n_modes = shape
    drawn = system(n_channels, n_modes, rank, dtype, paired=paired, seed=seed)
    check(joint_case(drawn, batch, length, order, seed))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("order", [3, 4])
def test_every_layout(joint_case, dtype, order, monkeypatch):
    case = joint_case(system(5, 9, 2, dtype), 5, 70, order)
    for group in (1 << i for i in range(lanes(dtype).bit_length())):
        layout = Layout(25, 5, 9, lanes(dtype), group)
        monkeypatch.setattr(lowrank, "layout_of", lambda *_, layout=layout: layout)
        check(case)


def test_more_orders_than_steps_in_a_block(joint_case):
    """Inputs and powers of modulus 1 and no low-rank part, so that every order counts and all numbers are whole."""
    rng = np.random.default_rng(0)
    turns = 1j ** rng.integers(0, 4, (3, 2, 3))
    zeros = np.zeros((1, 2, 3), complex)
    s = DPLRSystem(turns[0], zeros, zeros, turns[1], turns[2])
    case = joint_case(s, 1, 2 * STEPS + 10, STEPS + 3)
    u, grad_y = rng.choice([-1.0, 1.0], (2, *case.u.shape))
    y = lowrank_joint_scan(s, u, order=case.order, threads=1)
    assert np.array_equal(y, ls.apply(s, u, backend="numpy", **case.options))
    found = lowrank_joint_vjp(s, u, grad_y, order=case.order, threads=1)
    expected = ls.vjp(s, u, grad_y, backend="numpy", **case.options)
    assert np.array_equal(found.u, expected.u)
    assert np.array_equal(found.state[1], expected.state.inputs)
    for name, gradient in expected.parameters.items():
        assert np.array_equal(found.parameters[name], gradient)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("rank", "paired", "real"), [(1, True, False), (2, True, False), (2, False, False), (1, False, True)]
)
def test_whole_numbers_give_exact_results(order, rank, paired, real):
    """Sums and products of integers below 2^53, in any order: not a single rounding."""
    s = system(2, 2, rank, paired=paired, real=real, whole=True, seed=order)
    u, grad_y = np.random.default_rng(order).integers(-2, 3, (2, 2, 2, 5)).astype(float)
    options = {"order": order, "correlations": "adjacent"}
    y = lowrank_joint_scan(s, u, order=order, threads=1)
    exact = outputs(realization_of(s), u, "kb", **options)
    assert np.array_equal(y, np.array([complex(z).real for z in exact.ravel()]).reshape(y.shape))
    found = lowrank_joint_vjp(s, u, grad_y, order=order, threads=1)
    duals = gradients_by_duals(realization_of(s), u, "kb", grad_y, **options)
    for gradient, name in [(found.u, "u"), *((found.parameters[ours], theirs) for ours, theirs in NAMES.items())]:
        expected = np.array([complex(z.real, z.imag) for z in duals[name].ravel()]).reshape(gradient.shape)
        assert np.array_equal(gradient, expected if np.iscomplexobj(gradient) else expected.real), name


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("order", [2, 3, 4])
@pytest.mark.parametrize(("rank", "paired"), [(1, True), (2, True), (2, False), (3, True)])
def test_gradients_are_within_the_running_bound(dtype, order, rank, paired):
    for seed in range(3):
        s = system(1, 2, rank, dtype, paired=paired, seed=seed)
        u, grad_y = np.random.default_rng(seed).normal(size=(2, 2, 1, 6)).astype(dtype)
        options = {"order": order, "correlations": "adjacent"}
        model = RoundingModel.of_dtype(dtype, fused=True, joint_adjacent=True)
        bounds = gradient_bounds(realization_of(s), u, mode="kb", grad_y=grad_y, model=model, **options)
        exact = gradients_by_duals(realization_of(s), u, "kb", grad_y, **options)
        found = lowrank_joint_vjp(s, u, grad_y, order=order, threads=1)
        for gradient, name in [(found.u, "u"), *((found.parameters[ours], theirs) for ours, theirs in NAMES.items())]:
            expected = np.array([complex(z.real, z.imag) for z in exact[name].ravel()]).reshape(gradient.shape)
            # The conversion of the exact value rounds once more.
            assert np.all(np.abs(gradient - expected) <= bounds[name] + 2.0**-52 * np.abs(expected)), name


@pytest.mark.parametrize("order", [2, 3])
def test_wide_states_under_narrow_data(joint_case, order):
    case = joint_case(system(3, 5, 1, "float32"), 2, 70, order)
    _, found = check(case, state_dtype="float64")
    assert found.state[0].dtype == np.complex128


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch", [1, 23])
def test_threads_change_nothing(joint_case, dtype, batch):
    case = joint_case(system(3, 6, 1, dtype), batch, 70, 3)
    one, three = (
        [
            lowrank_joint_scan(case.system, case.u, order=3, threads=n),
            lowrank_joint_vjp(case.system, case.u, case.grad_y, order=3, threads=n),
        ]
        for n in (1, 3)
    )
    assert one[0].tobytes() == three[0].tobytes()
    for a, b in zip([one[1].u, *one[1].parameters.values()], [three[1].u, *three[1].parameters.values()], strict=True):
        assert a.tobytes() == b.tobytes()


def test_a_missing_cotangent_is_zero_and_no_rows_have_no_gradient(joint_case):
    case = joint_case(system(2, 3), 2, 70, 3)
    found = lowrank_joint_vjp(case.system, case.u, None, order=3, threads=1)
    assert not any(gradient.any() for gradient in (found.u, *found.state, *found.parameters.values()))
    check(joint_case(system(2, 3), 0, 9, 3))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("step", [0, 40, 64, 99])
def test_what_is_not_finite_stays_in_its_row_and_does_not_go_back_in_time(joint_case, bad, step):
    case = joint_case(system(3, 5, 2, "float32"), 2, 100, 3)
    y = lowrank_joint_scan(case.system, case.u, order=3, threads=1)
    case.u[1, 2, step] = bad
    z = lowrank_joint_scan(case.system, case.u, order=3, threads=1)
    assert not np.isfinite(z[1, 2, step:]).any()
    z[1, 2, step:] = y[1, 2, step:]
    assert np.array_equal(z, y)


def test_gradients_are_causal(joint_case):
    case = joint_case(system(3, 5, 1, "float32"), 2, 100, 3)
    case.grad_y[..., 70:] = 0
    found = lowrank_joint_vjp(case.system, case.u, case.grad_y, order=3, threads=1)
    assert found.u[..., 69].any()
    assert not found.u[..., 70:].any()
