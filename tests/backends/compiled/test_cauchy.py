"""The kernel is within the bound that is derived for `_cauchy.py`, whose roundings it shares or undercuts."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import liquid_ssm as ls
from liquid_ssm.backends import _cauchy as readable
from liquid_ssm.backends.compiled import cauchy
from liquid_ssm.backends.compiled.cauchy import cauchy_sums, dplr_kernel
from liquid_ssm.oracle.cauchy_error import Channel, cauchy_error
from liquid_ssm.oracle.enclosure import enclose_kernel
from liquid_ssm.oracle.realization import Realization

Array = npt.NDArray[Any]
U = 2.0**-53


def system(n_channels: int, n_modes: int, rank: int, seed: int, radius: float = 0.5) -> tuple[Array, ...]:
    """Λ̄, P̄, Q̄, B̄, C."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> Array:
        return rng.normal(size=shape) + 1j * rng.normal(size=shape)

    poles = radius * np.exp(1j * rng.uniform(0, np.pi, (n_channels, n_modes)))
    P, Q = 0.1 * normal(2, rank, n_channels, n_modes)
    return poles, P, Q, normal(n_channels, n_modes), normal(n_channels, n_modes)


def units(parts: tuple[Array, ...], length: int, paired: bool) -> float:
    """‖error‖₂/bound, the largest of the channels."""
    poles, P, Q, B, C = parts
    exact = enclose_kernel(Realization("dplr", poles, B, C, P, Q, conjugate_pairs=paired), length)
    kernel = dplr_kernel(*parts, length, paired, 1)
    error = np.linalg.norm((kernel - exact.hi) - exact.lo, axis=1) + np.linalg.norm(exact.radius, axis=1)
    channels = [Channel(poles[h], P[:, h], Q[:, h], B[h], C[h], paired) for h in range(len(C))]
    return float(np.max(error / [cauchy_error(c, length, 1, U) for c in channels]))


@pytest.mark.parametrize("rank", [0, 1, 2, 3])
@pytest.mark.parametrize("paired", [True, False])
# Half spectra of 2, 2, 9, 17 and 65 points, whole ones of 2, 4, 16, 32 and 128: below, at and above whole vectors.
@pytest.mark.parametrize("length", [2, 3, 16, 31, 65])
def test_within_the_bound(rank: int, paired: bool, length: int) -> None:
    for n_modes in (1, 4):
        assert 1e-4 <= units(system(2, n_modes, rank, length), length, paired) <= 1


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("radius", [0.99, 1.0, 1.2])
def test_poles_inside_on_and_outside_the_circle(radius: float, paired: bool) -> None:
    poles, P, Q, B, C = system(1, 3, 1, 0, radius)
    assert units((poles, 1e-2 * P, 1e-2 * Q, B, C), 100, paired) <= 1


@pytest.mark.parametrize("dt", [1e-6, 1e-3, 1.0])
def test_slow_and_stiff_systems(dt: float) -> None:
    s = ls.initialize("legs", n_channels=1, n_state=16, dt_min=dt, dt_max=dt, seed=2).discretize("bilinear")
    assert units((s.Lambda_bar, s.P_bar, s.Q_bar, s.B_bar, s.C), 150, True) <= 1


@pytest.mark.parametrize("length", [0, 1])
def test_shortest_kernels_are_those_of_the_readable_one(length: int) -> None:
    parts = system(2, 3, 1, 0)
    expected = readable.dplr_kernel(*parts, length, conjugate_pairs=True)
    assert np.array_equal(dplr_kernel(*parts, length, True, 1), expected)


def test_a_power_beyond_the_range_is_nan_in_its_channel_only() -> None:
    Lambda, one = np.array([[0.5], [3.0], [0.5]]), np.ones((3, 1))
    P = 0.25 * np.ones((1, 3, 1))
    with np.errstate(over="ignore", invalid="ignore"):
        kernel = dplr_kernel(Lambda, P, P, one, one, 2000, True, 1)
    assert np.isnan(kernel[1]).all()
    assert np.isfinite(kernel[[0, 2]]).all()


def test_threads_change_no_bit() -> None:
    parts = system(5, 3, 1, 1)
    alone = dplr_kernel(*parts, 50, True, 1)
    for threads in (2, 3):
        assert np.array_equal(dplr_kernel(*parts, 50, True, threads), alone)
    assert np.array_equal(dplr_kernel(*(v[..., 3:4, :] for v in parts), 50, True, 1), alone[3:4])


def test_slow_modes_near_the_circle_keep_their_digits() -> None:
    """1/(1 - zλ) for 1 - λ = 2⁻⁴⁰ and a 1 - z that z itself cannot hold."""
    gap = 2.0**-41 * (1 + 2.0**-20)
    z = np.full(8, 1 - gap + 0j)
    value = cauchy_sums(np.ones((1, 1, 1)) + 0j, np.array([1 - 2.0**-40 + 0j]), z, np.full(8, gap + 0j), False)
    exact = 1 / (gap + (1 - gap) * 2.0**-40)
    # Ten operations on positive numbers, one unit each.
    assert (np.abs(value - exact) <= 10 * U * exact).all()


def test_no_array_of_modes_times_frequencies(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    empty = np.empty

    def recorded(*args: Any, **kwargs: Any) -> Array:
        array = empty(*args, **kwargs)
        sizes.append(array.size)
        return array

    monkeypatch.setattr(cauchy.np, "empty", recorded)
    dplr_kernel(*system(1, 64, 1, 0), 4096, True, 1)
    # Four sums of 2049 frequencies, real and imaginary parts, in whole vectors.
    assert max(sizes) <= 8 * (2049 + 8)
