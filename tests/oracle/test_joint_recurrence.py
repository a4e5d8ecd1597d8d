"""One recurrence for all orders of `kb` over adjacent tuples is within its bound in every contraction, bugs are not."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

import liquid_ssm as ls
from liquid_ssm.oracle.enclosure import enclose
from liquid_ssm.oracle.joint_recurrence import joint_drives
from liquid_ssm.oracle.metrics import absolute_error
from liquid_ssm.oracle.realization import Realization
from liquid_ssm.oracle.reference import reference
from liquid_ssm.oracle.rounding import RoundingModel
from liquid_ssm.rounding_errors import realization_of
from liquid_ssm.testing.strategies import random_system

U = 2.0**-24
SLACK = 1 + 2.0**-20


def fma(a, b, c, real, fused):
    """a b + c of parts in float32 or float64; exact products of float32 in longdouble."""
    exact = np.multiply(a, b, dtype=np.longdouble)
    return real(exact + c) if fused else real(real(exact) + c)


def times(z, x, v, real, fused):
    """z x accumulated to v, part by part."""
    re = fma(-z.imag, x.imag, fma(z.real, x.real, v.real, real, fused), real, fused)
    im = fma(z.imag, x.real, fma(z.real, x.imag, v.imag, real, fused), real, fused)
    return re + 1j * im


def joint(system, u, order, *, lowest_first, fused, states="float32", drive_last=False, bug=""):
    """y (L,) in float32 of one channel; states and sums in `states`, powers formed there and rounded to float32.

    A product with Λ̄ is accumulated to the drive, or with `drive_last` formed whole and the drive added at the end; the
    low-rank part is subtracted after that product.
    """
    real = np.dtype(states).type
    kind = np.result_type(states, np.complex64)
    B = system.B[0].astype(complex)
    powers = [
        (B ** (p - 1 if bug == "power" and p > 1 else p)).astype(np.complex64).astype(kind) for p in range(1, order + 1)
    ]
    terms = [u]
    for p in range(2, order + 1):
        delay = p if bug == "delay" else p - 1
        terms.append(terms[-1] * np.concatenate([np.zeros(delay, u.dtype), u[: len(u) - delay]]))
    orders = range(order - 1 if bug == "order" else order)
    x, y = np.zeros(len(B), kind), []
    A, C = system.A[0].astype(kind), system.C[0].astype(kind)
    for k in range(len(u)):
        d = np.zeros(len(B), kind)
        for p in orders if lowest_first else reversed(orders):
            c = real(terms[p][k])
            d = fma(powers[p].real, c, d.real, real, fused) + 1j * fma(powers[p].imag, c, d.imag, real, fused)
        rank = 0 if bug == "low rank" or system.P is None else len(system.P)
        rest = [low_rank(system, r, x, real, fused) for r in range(rank)]
        x = times(A, x, 0 * d if drive_last else d, real, fused)
        for part in rest:
            x = x - part
            x = real(x.real) + 1j * real(x.imag)
        if drive_last:
            x = real(x.real + d.real) + 1j * real(x.imag + d.imag)
        x = x.astype(kind)
        y.append(np.float32(system.weight * (C.real * x.real - C.imag * x.imag).sum()))
    return np.array(y)


def low_rank(system, r, x, real, fused):
    """P̄_r s_r with s_r = 2 Re Σ conj(Q̄_r) x, a sum in the order of the modes."""
    P, Q = system.P[r, 0], system.Q[r, 0]
    s = real(0)
    for q, z in zip(Q, x, strict=True):
        s = fma(q.imag, z.imag, fma(q.real, z.real, s, real, fused), real, fused)
    s = real(2 * s)
    return real(P.real * s) + 1j * real(P.imag * s)


def dplr_case(seed, length, *, rank, drive, modes=3):
    """Random and damped; every other one of rank 1 a bilinear step of HiPPO-LegS, with modes that hardly decay."""
    system = random_system("dplr", n_channels=1, n_modes=modes, seed=seed, drive=drive, rank=rank)
    if rank == 1 and seed % 2:
        system = ls.initialize("legs", n_channels=1, n_state=2 * modes, seed=seed).discretize("bilinear")
        system = replace(system, B_bar=system.B_bar * drive / np.abs(system.B_bar).max())
    return realization_of(system.astype("float32")), np.random.default_rng(seed).normal(size=length).astype(np.float32)


def case(seed, length, *, decay, drive, modes=3):
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)

    A = np.exp(-decay * rng.random((1, modes)) + 1j * rng.uniform(0, np.pi, (1, modes))).astype(np.complex64)
    u = rng.normal(size=length).astype(np.float32)
    return Realization("diagonal", A, (drive * normal(1, modes)).astype(np.complex64), normal(1, modes)), u


def compare(system, u, order, models):
    """Functions y -> largest error in units of the bound of each model, and the bounds."""
    given = u[None, None].astype(float)
    options = {"order": order, "correlations": "adjacent"}
    exact = enclose(system, given, "kb", **options)
    bounds = reference(system, given, "kb", models=models, **options).bounds

    def units(y, i=0):
        error = absolute_error(y[None, None], exact.hi, exact.lo)
        return bounds[i].units(np.maximum(error - exact.radius, 0))

    return units, bounds


CASES = [(seed, decay, drive) for seed, (decay, drive) in enumerate(product((0.0, 0.02, 1.0), (0.05, 0.5, 1.5)))]


@pytest.mark.parametrize("states", ["float32", "float64"])
@pytest.mark.parametrize(("seed", "decay", "drive"), CASES)
def test_every_contraction_is_within_the_bound(states, seed, decay, drive):
    system, u = case(seed, 60, decay=decay, drive=drive)
    order = 2 + seed % 3
    for lowest_first, fused in product((False, True), repeat=2):
        model = RoundingModel.of_dtype("float32", joint_adjacent=True, state_dtype=states, fused=None)
        units, _ = compare(system, u, order, [model])
        y = joint(system, u, order, lowest_first=lowest_first, fused=fused, states=states)
        assert units(y) <= 1


@pytest.mark.parametrize("states", ["float32", "float64"])
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(("seed", "drive"), [(0, 0.05), (1, 0.5), (2, 1.5)])
def test_every_contraction_of_a_low_rank_system_is_within_the_bound(states, rank, seed, drive):
    system, u = dplr_case(seed, 60, rank=rank, drive=drive)
    order = 2 + seed % 3
    model = RoundingModel.of_dtype("float32", joint_adjacent=True, state_dtype=states, fused=None)
    units, _ = compare(system, u, order, [model])
    for lowest_first, fused, drive_last in product((False, True), repeat=3):
        y = joint(system, u, order, lowest_first=lowest_first, fused=fused, states=states, drive_last=drive_last)
        assert units(y) <= 1


@pytest.mark.parametrize("bug", ["power", "delay", "order", "low rank"])
def test_a_bug_in_a_low_rank_system_exceeds_the_bound(bug):
    system, u = dplr_case(1, 60, rank=1, drive=0.3)
    model = RoundingModel.of_dtype("float32", joint_adjacent=True)
    units, _ = compare(system, u, 3, [model])
    assert units(joint(system, u, 3, lowest_first=True, fused=True, bug=bug)) > 100


@pytest.mark.parametrize("states", ["float32", "float64"])
@pytest.mark.parametrize("bug", ["power", "delay", "order"])
def test_a_bug_exceeds_the_bound(states, bug):
    system, u = case(1, 60, decay=0.1, drive=0.3)
    model = RoundingModel.of_dtype("float32", joint_adjacent=True, state_dtype=states)
    units, _ = compare(system, u, 3, [model])
    assert units(joint(system, u, 3, lowest_first=True, fused=True, states=states, bug=bug)) > 100


@pytest.mark.parametrize("states", ["float32", "float64"])
@pytest.mark.parametrize("structure", ["diagonal", "dplr"])
def test_the_bound_is_tight_over_a_population(states, structure, capsys):
    nearest = []
    for seed in range(16):
        drive = (0.05, 0.3)[seed % 2]
        if structure == "diagonal":
            system, u = case(seed, 100, decay=(0.0, 0.01, 0.1, 1.0)[seed % 4], drive=drive, modes=4)
        else:
            system, u = dplr_case(seed, 100, rank=1, drive=drive, modes=4)
        model = RoundingModel.of_dtype("float32", joint_adjacent=True, state_dtype=states)
        units, _ = compare(system, u, 3, [model])
        nearest.append(1 / units(joint(system, u, 3, lowest_first=bool(seed % 3), fused=True, states=states)))
    with capsys.disabled():
        print(f"\njoint kb, {structure}, states in {states}: median {np.median(nearest):.1f}, from {min(nearest):.1f}")
    assert min(nearest) >= 1
    assert np.median(nearest) <= 100


def test_a_drive_has_every_term():
    B, u, dc = 0.5 + 0.5j, 3.0, 7 * U
    terms = [np.full((1, 1, 1), u), np.full((1, 1, 1), u**2), np.full((1, 1, 1), u**3)]
    errors = [np.full((1, 1, 1, 1), p * dc) for p in range(3)]
    model = RoundingModel(U, 0.0)
    ((_, drive),) = joint_drives(np.array([[B]]), terms, errors, [model], 1)
    sizes = [abs(B) ** p * u**p for p in (1, 2, 3)]
    wanted = 3 * U * sum(sizes) + sum((p - 1) * 5**0.5 * U * s for p, s in enumerate(sizes, start=1))
    wanted += sum(abs(B) ** p * (p - 1) * dc for p in (1, 2, 3))
    assert drive.value.item() == pytest.approx(sum((B * u) ** p for p in (1, 2, 3)))
    assert wanted <= drive.error.item() <= wanted * SLACK
    # finer sums round less, powers and products as much
    ((_, finer),) = joint_drives(np.array([[B]]), terms, errors, [RoundingModel(U, 0.0, state_unit=U / 2**20)], 1)
    wanted -= 3 * U * (1 - 2.0**-20) * sum(sizes)
    assert wanted <= finer.error.item() <= wanted * SLACK


@pytest.mark.parametrize("structure", ["diagonal", "dplr"])
def test_only_this_form_is_joint_and_other_models_keep_their_bounds(structure):
    system, u = case(3, 50, decay=0.1, drive=0.3) if structure == "diagonal" else dplr_case(3, 50, rank=1, drive=0.3)
    plain, with_joint = (RoundingModel.of_dtype("float32", joint_adjacent=j) for j in (False, True))
    alone = reference(system, u[None, None], "kb", correlations="adjacent", models=[plain])
    both = reference(system, u[None, None], "kb", correlations="adjacent", models=[with_joint, plain])
    assert np.array_equal(alone.value, both.value)
    assert np.array_equal(alone.radius, both.radius)
    assert np.array_equal(alone.bounds[0].componentwise, both.bounds[1].componentwise)
    ratio = both.bounds[0].componentwise / both.bounds[1].componentwise
    # the same system and signal: neither form is far from the other
    assert np.any(ratio != 1)
    assert 0.3 < np.median(ratio) < 2
    for options in ({"window": 5, "correlations": "adjacent"}, {"correlations": "all"}):
        first, second = reference(system, u[None, None], "kb", models=[with_joint, plain], **options).bounds
        assert np.array_equal(first.componentwise, second.componentwise)
