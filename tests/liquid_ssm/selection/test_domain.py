"""Domains: every problem is in its own, buckets and ranges tile, what is outside is named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import liquid_ssm as ls
from liquid_ssm.problem import ModeSpec, Problem
from liquid_ssm.selection.domain import (
    EXACT_UP_TO,
    STEP,
    bucket,
    domain_of,
    dt_range,
    largest,
    measures,
    outside,
    power_range,
    radius_range,
)

PROBLEM = Problem(ModeSpec("kb", 3, "adjacent"), "diagonal", 3, 5, 8, 100, "float32")


@given(st.integers(0, 2**40))
def test_a_size_is_in_its_bucket_which_doubles(size):
    low, high = bucket(size)
    assert low <= size <= high
    assert (low, high) == (0, 0) or high == 2 * low - 1
    assert bucket(low) == bucket(high) == (low, high)


@given(st.floats(1e-300, 1e300))
def test_a_value_is_in_its_range_of_a_factor(value):
    found = power_range(value)
    assert value in found
    assert found.high == STEP * found.low


@given(st.floats(0, allow_nan=False))
def test_every_float_is_in_its_range_subnormal_and_infinite_ones_too(value):
    assert value in power_range(value)


@given(st.floats(0, 1e300))
def test_ranges_tile(value):
    """The two ends of a range are in it or begin the next: nothing lies between."""
    found = power_range(value)
    for end in (found.low, found.high):
        other = power_range(end)
        assert other == found or found.high == other.low or other.high == found.low
    for beyond in (np.nextafter(found.high, np.inf), np.nextafter(found.low, 0.0)):
        other = power_range(float(beyond))
        assert float(beyond) in other
        assert other == found or other.low in (found.high, 0.0) or other.high == found.low


@given(
    st.one_of(st.floats(0, 4), st.floats(0.999999, 1.000001), st.floats(0, 1e-10), st.floats(4, 1e308, width=64)),
)
def test_a_radius_is_in_its_range(radius):
    assert radius in radius_range(radius)


def test_what_is_near_one_is_told_apart():
    assert radius_range(0.9) != radius_range(0.9999)
    assert radius_range(1.0).low == radius_range(1.0).high == 1.0
    assert 1.0 not in radius_range(1 - 1e-6)
    assert power_range(0.0) == replace(power_range(1.0), low=0.0, high=0.0)
    assert 0.001 in dt_range(np.array([0.001, 0.1]))
    assert 0.1 in dt_range(np.array([0.001, 0.1]))


@given(st.floats(0, 1.5), st.floats(0, 100), st.sampled_from([None, 1e-3]))
def test_a_problem_is_inside_its_own_domain(radius, drive, tolerance):
    assert outside(domain_of(PROBLEM, radius, drive, tolerance), PROBLEM, radius, drive) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"batch": 4}, "batch is 4, the certificate covers 2 to 3"),
        ({"n_channels": 8}, "n_channels is 8"),
        ({"n_modes": 7}, "n_modes is 7"),
        ({"length": 128}, "length is 128, the certificate covers 64 to 127"),
        ({"dtype": "float64"}, "dtype is float64"),
        ({"device": "cuda"}, "device is cuda"),
        ({"structure": "dplr"}, "structure is dplr"),
        ({"gradient": True}, "gradient is True"),
        ({"state": True}, "state is True"),
        ({"arrays": "torch"}, "arrays is torch"),
        ({"spec": ModeSpec("pb", 3, "adjacent")}, "mode is pb"),
        ({"spec": ModeSpec("kb", 2, "adjacent")}, "order is 2"),
        ({"spec": ModeSpec("kb", 3, "all")}, "correlations is all"),
        ({"spec": ModeSpec("kb", 3, "adjacent", 9)}, "window is 9"),
    ],
)
def test_each_part_counts(change, words):
    domain = domain_of(PROBLEM, 0.9, 0.1, None, dt=np.array([0.01]))
    (reason,) = outside(domain, replace(PROBLEM, **change), 0.9, 0.1)
    assert words in reason
    assert domain_of(replace(PROBLEM, **change), 0.9, 0.1, None).key != domain.key


def test_each_range_counts():
    domain = domain_of(PROBLEM, 0.9, 0.1, None, dt=np.array([0.01]))
    for values, words in (
        ((0.99999, 0.1, [0.01]), "largest |a|"),
        ((0.9, 7.0, [0.01]), "largest |b u|"),
        ((0.9, 0.1, [3.0]), "dt is 3"),
    ):
        reasons = outside(domain, PROBLEM, values[0], values[1], np.array(values[2]))
        assert all(words in reason for reason in reasons)
        assert reasons


def test_measures_of_every_structure():
    u = np.array([[[0.5, -2.0]]])
    diagonal = ls.DiagonalSystem(np.array([[0.5, 0.9j]]), np.array([[0.1, -0.3]]), np.ones((1, 2)))
    assert measures(diagonal, u, exact=True) == pytest.approx((0.9, 0.6))
    dense = ls.DenseSystem(
        np.array([[[0.5, 0.4], [0.0, 0.2]]]), np.array([[1.0, 0.0]]), np.ones((1, 2)), conjugate_pairs=False
    )
    assert measures(dense, u, exact=True) == pytest.approx((0.6, 2.0))
    mimo = ls.MIMOSystem(np.array([0.5]), np.array([[0.25, -0.5]]), np.ones((2, 1)), conjugate_pairs=False)
    assert measures(mimo, np.ones((1, 2, 3)), exact=True) == pytest.approx((0.5, 0.75))


def test_large_arrays_are_sampled_unless_every_value_counts():
    u = np.ones(EXACT_UP_TO + 8)
    u[EXACT_UP_TO // 2 + 700] = -9.0
    u = u[None, None]
    assert largest(u, exact=True) == 9.0
    assert largest(u, exact=False) == 1.0
    assert largest(u[..., ::-1], exact=False) == 9.0  # what cannot be cut into blocks is looked at as a whole
    assert largest(u[..., :EXACT_UP_TO], exact=False) == 9.0
    channels_last = u.reshape(1, -1, 4).swapaxes(1, 2)
    assert not channels_last.flags.c_contiguous
    assert largest(channels_last, exact=True) == 9.0
    assert largest(channels_last, exact=False) == 1.0


def test_tensors_of_inference_mode_are_measured_at_every_call():
    """They do not count their changes, so that nothing may be remembered."""
    with torch.inference_mode():
        system = ls.DiagonalSystem(
            torch.full((1, 2), 0.5 + 0j),
            torch.ones(1, 2, dtype=torch.complex64),
            torch.ones(1, 2, dtype=torch.complex64),
        )
        u = torch.ones(1, 1, 3)
        assert measures(system, u, exact=True) == (0.5, 1.0)
        system.parameters["A_bar"].mul_(1.5)
        assert measures(system, u, exact=True) == (0.75, 1.0)


def test_what_is_known_of_tensors_ends_with_a_change_in_place(monkeypatch):
    from liquid_ssm.selection import domain

    system = ls.initialize("s4d-lin", n_channels=2, n_state=8).discretize("bilinear").to_torch()
    u = torch.ones(1, 2, 3, dtype=torch.float64)
    usual, asked = domain._array, []
    monkeypatch.setattr(domain, "_array", lambda values: asked.append(1) or usual(values))
    first = measures(system, u, exact=True)
    known = len(asked)
    assert measures(system, u, exact=True) == first
    assert len(asked) == known
    with torch.no_grad():
        system.parameters["B_bar"].mul_(4)
    assert measures(system, u, exact=True) == (first[0], 4 * first[1])


def test_the_largest_of_a_lazily_negated_tensor():
    """As of the imaginary part of a conjugate, on which `.numpy()` fails."""
    u = torch.randn(2, 3, 4, dtype=torch.complex64).conj().imag
    assert u.is_neg()
    assert largest(u, exact=True) == float(u.abs().max())
