"""Gradients of the joint recurrence of `kb` over adjacent tuples are within their bound, and wrong ones are not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import liquid_ssm as ls
from liquid_ssm.oracle.adjoint import gradients_by_duals
from liquid_ssm.oracle.adjoint_bounds import gradient_bounds
from liquid_ssm.oracle.adjoint_moduli import GradientProblem
from liquid_ssm.oracle.joint_adjoint import JointDrive
from liquid_ssm.oracle.realization import Realization
from liquid_ssm.oracle.rounding import RoundingModel
from liquid_ssm.rounding_errors import realization_of
from liquid_ssm.testing.strategies import random_system

U = 2.0**-24
SLACK = 1 + 2.0**-20
NAMES = {"A_bar": "A", "Lambda_bar": "A", "B_bar": "B", "C": "C", "P_bar": "P", "Q_bar": "Q"}


def earlier(values, steps):
    """Values of `steps` steps before, zeros before the first."""
    moved = np.zeros_like(values)
    moved[..., steps:] = values[..., : max(0, values.shape[-1] - steps)]
    return moved


def joint_vjp(r, u, grad_y, order, bug=""):
    """By NumPy in float32, one rounding after the other: the adjoint recurrence of Σ_p B̄^p c_p(k)."""
    A, B, C, weight = r.A, r.B, r.C, np.float32(r.weight)
    factors = [] if r.P is None else list(zip(r.P, r.Q, strict=True))

    def project(factor, x):
        s = (np.conj(factor) * x).sum(-1, keepdims=True)
        return weight * s.real if r.conjugate_pairs else s

    powers, terms = [B], [u]
    for p in range(2, order + 1):
        powers.append(powers[-1] * B)
        terms.append(terms[-1] * earlier(u, p if bug == "delay" else p - 1))
    x = np.zeros((len(u), *B.shape), B.dtype)
    states = [x]
    for k in range(u.shape[-1]):
        drive = sum(power * c[..., k, None] for power, c in zip(powers[::-1], terms[::-1], strict=True))
        moved = A * x
        for P, Q in factors:
            moved = moved - P * project(Q, x)
        x = moved + drive
        states.append(x)
    found = {"A": np.zeros_like(A), "C": np.zeros_like(C)}
    if factors:
        found |= {"P": np.zeros_like(r.P), "Q": np.zeros_like(r.Q)}
    of_powers, of_terms = [np.zeros_like(B) for _ in powers], [np.zeros_like(u) for _ in terms]
    nu = np.zeros_like(x)
    for k in reversed(range(u.shape[-1])):
        g = weight * grad_y[..., k, None]
        nu = nu + g * np.conj(C)
        found["C"] += (g * np.conj(states[k + 1])).sum(0)
        found["A"] += (nu * np.conj(states[k])).sum(0)
        for i, (power, c) in enumerate(zip(powers, terms, strict=True)):
            of_powers[i] += (nu * c[..., k, None]).sum(0)
            turned = power if bug == "conjugate" else np.conj(power)
            of_terms[i][..., k] = (turned * nu).real.sum(-1)
        back = np.conj(A) * nu
        for i, (P, Q) in enumerate(factors):
            found["P"][i] -= (nu * np.conj(project(Q, states[k]))).sum(0)
            found["Q"][i] -= (states[k] * np.conj(project(P, nu))).sum(0)
            back = back - Q * project(P, nu)
        nu = back
    found["B"] = sum(
        (of_power if p == 1 else np.float32(1 if bug == "exponent" else p) * np.conj(powers[p - 2]) * of_power)
        for p, of_power in enumerate(of_powers[: order - 1 if bug == "order" else order], start=1)
    )
    found["u"] = np.zeros_like(u)
    for p, of_term in enumerate(of_terms, start=1):
        for i in range(p):
            product = of_term
            for j in range(p):
                product = product if j == i else product * earlier(u, j)
            shown = product[..., i:] if bug != "place" else product[..., : u.shape[-1] - i]
            found["u"][..., : u.shape[-1] - i] += shown
    return found


def case(structure, seed, length, *, order, rank=1, pairs=True):
    rng = np.random.default_rng(seed)
    options = {"rank": rank, "conjugate_pairs": pairs, "drive": (0.3, 1.0)[seed % 2], "decay": (0.1, 0.0)[seed % 2]}
    r = realization_of(random_system(structure, n_channels=1, n_modes=2, seed=seed, **options).astype("float32"))
    u, grad_y = rng.normal(size=(2, 2, 1, length)).astype(np.float32)
    return r, u, grad_y, {"order": order, "correlations": "adjacent"}


def bounds_of(r, u, grad_y, options, **model):
    model = RoundingModel.of_dtype("float32", **{"joint_adjacent": True, "fused": False, **model})
    return gradient_bounds(r, u, mode="kb", grad_y=grad_y, model=model, **options)


def exact_of(r, u, grad_y, options):
    found = gradients_by_duals(r, u, "kb", grad_y, **options)
    return {n: np.array([complex(z.real, z.imag) for z in v.ravel()]).reshape(v.shape) for n, v in found.items()}


def exceeded(found, exact, bounds):
    # The conversion of the exact value rounds once more.
    return [n for n, v in found.items() if not np.all(np.abs(v - exact[n]) <= bounds[n] + 2.0**-52 * np.abs(exact[n]))]


@pytest.mark.parametrize(("structure", "rank", "pairs"), [("diagonal", 1, True), ("dplr", 1, True), ("dplr", 2, False)])
@pytest.mark.parametrize("order", [2, 3, 4])
def test_gradients_one_rounding_after_the_other_are_within_the_bound(structure, rank, pairs, order):
    nearest = []
    for seed in range(4):
        r, u, grad_y, options = case(structure, seed, 1 + 2 * seed, order=order, rank=rank, pairs=pairs)
        found, exact = joint_vjp(r, u, grad_y, order), exact_of(r, u, grad_y, options)
        bounds = bounds_of(r, u, grad_y, options)
        assert set(found) == set(exact) == set(bounds)
        assert exceeded(found, exact, bounds) == []
        assert exceeded(found, exact, bounds_of(r, u, grad_y, options, scan="any")) == []
        for name, value in found.items():
            error = np.abs(value - exact[name])
            nearest += list((bounds[name][error > 0] / error[error > 0]).ravel())
    # Not much too large either: more would mean that a sum is charged twice.
    assert np.median(nearest) < 200


@pytest.mark.parametrize("structure", ["diagonal", "dplr"])
@pytest.mark.parametrize(
    ("bug", "wrong"),
    [("delay", "B"), ("conjugate", "u"), ("exponent", "B"), ("order", "B"), ("place", "u")],
)
def test_a_bug_exceeds_the_bound(structure, bug, wrong):
    r, u, grad_y, options = case(structure, 2, 6, order=3)
    exact, bounds = exact_of(r, u, grad_y, options), bounds_of(r, u, grad_y, options)
    assert wrong in exceeded(joint_vjp(r, u, grad_y, 3, bug), exact, bounds)


@pytest.mark.parametrize(("name", "length"), [("s4d-lin", 300), ("legs", 60)])
def test_on_long_signals_it_still_says_something(name, length):
    rng = np.random.default_rng(0)
    system = ls.initialize(name, n_channels=1, n_state=8, dt_min=1e-2, dt_max=1e-1, seed=0).discretize("bilinear")
    system = system.astype("float32")
    u, grad_y = rng.normal(size=(2, 1, 1, length)).astype(np.float32)
    r, options = realization_of(system), {"order": 3, "correlations": "adjacent"}
    bounds, found = bounds_of(r, u, grad_y, options), joint_vjp(r, u, grad_y, 3)
    given = system.astype("float64"), u.astype(float), grad_y.astype(float)
    wide = ls.vjp(*given, mode="kb", backend="numpy", **options)
    exact = {"u": wide.u, **{NAMES[n]: v for n, v in wide.parameters.items()}}
    for key, value in exact.items():
        # float64 is 2^29 times as fine: its error is far below a thousandth of this bound.
        assert np.all(np.abs(found[key] - value) <= 1.001 * bounds[key]), key
        assert np.linalg.norm(bounds[key]) <= 2.0**-10 * np.linalg.norm(value), key
    # One recurrence per order has only the bound by moduli for the higher ones.
    apart = bounds_of(r, u, grad_y, options, joint_adjacent=False)
    assert np.linalg.norm(bounds["B"]) < np.linalg.norm(apart["B"])


def problem_of(B, u, order):
    r = Realization("diagonal", np.full((1, 1), 0.5 + 0j), np.array([[B]]), np.ones((1, 1), complex))
    signal = np.array(u, float).reshape(1, 1, -1)
    return GradientProblem(r, signal, "kb", order, "adjacent", None, None, signal, None)


def test_a_drive_has_every_term():
    B, u = 0.5 + 0.5j, [3.0, 2.0, 5.0]
    problem = problem_of(B, u, 3)
    drive = JointDrive(problem, problem.realization.B.astype(np.clongdouble), RoundingModel(U, 0.0))
    w, dw = drive.at(2)
    terms = [5.0, 10.0, 30.0]
    assert complex(w.item()) == pytest.approx(sum(B**p * c for p, c in enumerate(terms, start=1)))
    sizes = [abs(B) ** p * c for p, c in enumerate(terms, start=1)]
    wanted = U * sum((3 + (p - 1) * (5**0.5 + 1)) * size for p, size in enumerate(sizes, start=1))
    assert wanted <= dw.item() <= wanted * SLACK


def test_what_cotangents_of_products_give_to_the_inputs():
    problem = problem_of(0.5, [3.0, -2.0, 5.0], 3)
    drive = JointDrive(problem, problem.realization.B, RoundingModel(U, 0.0))
    errors = [np.array([[[a, b, c]]]) for a, b, c in ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0), (7.0, 8.0, 9.0))]
    nothing = [np.zeros((1, 1, 3))] * 3
    # u_0 is in c_1(0), c_2(0) with u_{-1} = 0, c_2(1) = u_1 u_0, c_3(2) = u_2 u_1 u_0, and so on.
    expected = np.array([1 + 5 * 2 + 9 * 10, 2 + 5 * 3 + 6 * 5 + 9 * 15, 3 + 6 * 2 + 9 * 6])
    found = drive.of_inputs(errors, nothing)[0, 0]
    assert np.all(expected <= found)
    assert np.all(found <= expected * SLACK * (1 + 13 * U))
    # Roundings on the way: 4 P of what is pulled back, P = 3.
    found = drive.of_inputs(nothing, errors)[0, 0]
    assert np.all(12 * U * expected <= found)
    assert np.all(found <= 12 * U * expected * SLACK)


def test_what_gradients_of_powers_give_to_that_of_the_input_matrix():
    B = 0.6 + 0.8j  # of modulus 1
    problem = problem_of(B, [1.0], 3)
    drive = JointDrive(problem, problem.realization.B, RoundingModel(U, 0.0))
    errors, sizes = [np.array([[e]]) for e in (1.0, 2.0, 3.0)], [np.array([[e]]) for e in (5.0, 6.0, 7.0)]
    nothing = [np.zeros((1, 1))] * 3
    assert drive.of_B(errors, nothing).item() == pytest.approx(1 + 2 * 2 + 3 * 3, rel=20 * U)
    omega = [p * 5**0.5 + 5 for p in (1, 2, 3)]
    wanted = U * sum(p * size * n for p, size, n in zip((1, 2, 3), (5, 6, 7), omega, strict=True))
    assert drive.of_B(nothing, sizes).item() == pytest.approx(wanted, rel=20 * U)


def test_underflow_is_covered():
    problem = problem_of(1e-30, [1e-20, 3.0, 1e-20], 3)
    model = RoundingModel.of_dtype("float32")
    drive = JointDrive(problem, problem.realization.B, model)
    assert drive.at(1)[1].item() >= 3.0 * model.tiny  # B̄² is zero in float32
    nothing = [np.zeros((1, 1, 3))] * 3
    assert np.all(drive.of_inputs(nothing, nothing) >= 27 * model.tiny)
    assert drive.of_B([np.ones((1, 1))] * 3, nothing[:3]).min() >= model.tiny


@pytest.mark.parametrize("structure", ["diagonal", "dplr", "dense"])
def test_other_forms_do_not_depend_on_it(structure):
    rng = np.random.default_rng(0)
    r = realization_of(random_system(structure, n_channels=1, n_modes=2))
    u, grad_y = rng.normal(size=(2, 1, 1, 5))
    forms = [("kb", "all", None), ("kb", "adjacent", 4), ("pb", "adjacent", None), ("s4", "all", None)]
    if structure == "dense":
        forms.append(("kb", "adjacent", None))
    model = RoundingModel.of_dtype("float64")
    for mode, correlations, window in forms:
        options = {"mode": mode, "correlations": correlations, "window": window, "grad_y": grad_y}
        plain, joint = (gradient_bounds(r, u, model=replace(model, joint_adjacent=j), **options) for j in (False, True))
        assert all(np.array_equal(plain[name], joint[name]) for name in plain)


def test_a_sum_that_drives_is_counted():
    r, u, grad_y, options = case("dplr", 0, 5, order=4)
    joint, apart = (bounds_of(r, u, grad_y, options, scan="any", joint_adjacent=j) for j in (True, False))
    assert all(np.all(joint[name] > apart[name]) for name in joint)
