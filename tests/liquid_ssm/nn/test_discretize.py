"""Differentiable discretisation against that of `liquid_ssm.discretize`, which is checked against the oracle."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import liquid_ssm as ls
from liquid_ssm.complex_numbers import join, split
from liquid_ssm.discretize import require_accurate_exponential
from liquid_ssm.nn.discretize import discretize_diagonal, discretize_dplr, full_exponential
from liquid_ssm.oracle.discretisation_rounding import COMPLEX_QUOTIENT, discretisation_bounds
from liquid_ssm.oracle.rounding import COMPLEX_PRODUCT

ROUNDING = 2.0**-53
INITS = {"diagonal": ["s4d-lin", "s4d-inv", "s4d-legs"], "dplr": ["legs", "fout"], "mimo": ["s5"]}
CASES = [
    (name, method)
    for structure, names in INITS.items()
    for name in names
    for method in (("euler", "bilinear") if structure == "dplr" else ("euler", "bilinear", "zoh"))
]


# A layer multiplies by reciprocals where NumPy divides: a quotient costs a product more.
BY_RECIPROCALS = 1 + COMPLEX_PRODUCT / COMPLEX_QUOTIENT


def tensors(continuous):
    return [None if a is None else torch.tensor(a) for a in (continuous.Lambda, continuous.B, continuous.P)]


def allowed(continuous, method):
    """What Ā, B̄, P̄ and Q̄ by NumPy may be off by, entry by entry."""
    bounds = discretisation_bounds(continuous.Lambda, continuous.B, continuous.dt, method, P=continuous.P)
    return bounds.A, bounds.B, bounds.P, bounds.Q


@pytest.mark.parametrize("whole", [True, False], ids=["complex", "split"])
@pytest.mark.parametrize(("name", "method"), CASES)
def test_systems_are_those_of_numpy(name, method, whole):
    continuous = ls.initialize(name, n_channels=3, n_state=16, dt_min=1e-4, dt_max=1.0, seed=2)
    expected = continuous.discretize(method).parameters
    dt = torch.tensor(continuous.dt)
    Lambda, B, P = (v if whole or v is None else split(v) for v in tensors(continuous))
    if P is not None:
        found = discretize_dplr(method, Lambda, P, B, dt[:, None])
        names = ("Lambda_bar", "B_bar", "P_bar", "Q_bar")
    else:
        found = discretize_diagonal(method, Lambda, B, dt if name == "s5" else dt[:, None])
        names = ("A_bar", "B_bar")
    for key, value, bound in zip(names, found, allowed(continuous, method), strict=False):
        assert np.all(np.abs(join(value).numpy() - expected[key]) <= (1 + BY_RECIPROCALS) * bound), key


def test_several_ranks_couple_in_the_inverse():
    random = np.random.default_rng(0)
    legs = ls.initialize("legs", n_channels=2, n_state=8, seed=1)
    P = np.concatenate([legs.P, 0.3 * (random.normal(size=legs.P.shape) + 1j * random.normal(size=legs.P.shape))])
    continuous = ls.ContinuousSystem(legs.Lambda, legs.B, legs.C, legs.dt, P)
    expected = continuous.discretize("bilinear").parameters
    names = ("Lambda_bar", "B_bar", "P_bar", "Q_bar")
    Lambda, B, factors = tensors(continuous)
    for given in ((Lambda, factors, B), tuple(map(split, (Lambda, factors, B)))):
        found = discretize_dplr("bilinear", *given, torch.tensor(continuous.dt)[:, None])
        for key, value, bound in zip(names, found, allowed(continuous, "bilinear"), strict=True):
            assert np.all(np.abs(join(value).numpy() - expected[key]) <= (1 + BY_RECIPROCALS) * bound), key


def test_the_full_exponential_is_that_of_scipy():
    continuous = ls.initialize("legs", n_channels=2, n_state=8, seed=1)
    Lambda, B, P = tensors(continuous)
    factors = torch.tensor([[1.0, 0.5], [2.0, 3.0]], dtype=torch.float64)
    dt = torch.tensor(continuous.dt)[:, None]
    many = full_exponential(Lambda, P, B, factors[..., None, None] * dt)
    found = [(1.0, *full_exponential(Lambda, P, B, dt)[:2])]
    found += [(float(factors[at]), many.A_bar[at], many.B_bar[at]) for at in np.ndindex(2, 2)]
    for factor, A_bar, B_bar in found:
        expected = continuous.with_dt(factor * continuous.dt).discretize("zoh")
        # No bound is derived for either; N roundings times the condition of the exponential, here below 100, are
        # expected.
        assert np.abs(A_bar.numpy() - expected.A_bar).max() <= 100 * 8 * ROUNDING * np.abs(expected.A_bar).max()
        assert np.abs(B_bar.numpy() - expected.B_bar).max() <= 100 * 8 * ROUNDING * np.abs(expected.B_bar).max()


@pytest.mark.parametrize(("name", "method"), CASES)
def test_one_step_size_per_time_step_is_each_by_itself(name, method):
    continuous = ls.initialize(name, n_channels=3, n_state=8, seed=2)
    Lambda, B, P = tensors(continuous)
    dt = torch.tensor(continuous.dt)
    rates = torch.tensor([[0.5, 1.0], [2.0, 3.0]], dtype=torch.float64)

    def run(steps):
        steps = steps if name == "s5" else steps[..., None]
        if P is None:
            return discretize_diagonal(method, Lambda, B, steps)
        return discretize_dplr(method, Lambda, P, B, steps)

    together = run(rates[..., None] * dt)
    for index in np.ndindex(2, 2):
        alone = run(rates[index] * dt)
        bounds = allowed(continuous.with_dt((rates[index] * dt).numpy()), method)
        for one, other, bound, leading in zip(together, alone, bounds, (0, 0, 1, 1), strict=True):
            if one is not None:
                picked = one[(slice(None),) * leading + index] if one.ndim > other.ndim else one
                assert np.all(np.abs((picked - other).numpy()) <= 2 * BY_RECIPROCALS * bound)


@pytest.mark.parametrize("method", ["euler", "bilinear", "zoh"])
def test_gradients_are_those_of_finite_differences(method):
    continuous = ls.initialize("legs", n_channels=2, n_state=4, seed=1)
    Lambda, B, P = tensors(continuous)
    Lambda[0, 0] = -1e-20  # where φ₁ is a quotient of two zeros
    dt = torch.tensor(continuous.dt)[:, None]
    given = tuple(v.clone().requires_grad_() for v in (Lambda, B, dt))
    assert torch.autograd.gradcheck(lambda *v: discretize_diagonal(method, *v)[:2], given)
    if method != "zoh":
        given = tuple(v.clone().requires_grad_() for v in (Lambda, P, B, dt))
        assert torch.autograd.gradcheck(lambda L, p, b, t: tuple(discretize_dplr(method, L, p, b, t)), given)


def test_an_unknown_method_is_named():
    Lambda, B, P = tensors(ls.initialize("legs", n_channels=1, n_state=4))
    with pytest.raises(ls.ParameterError, match=r"'rk4'.*euler, bilinear, zoh"):
        discretize_diagonal("rk4", Lambda, B, torch.ones(1, 1, dtype=torch.float64))
    for method in ("rk4", "zoh"):
        with pytest.raises(ls.ParameterError, match=rf"'{method}' has no low-rank factors.*euler, bilinear"):
            discretize_dplr(method, Lambda, P, B, torch.ones(1, 1, dtype=torch.float64))


@pytest.mark.parametrize("factors", [(), (2, 3)])
def test_an_exponential_that_loses_its_slow_modes_is_refused(factors):
    continuous = ls.initialize("legs", n_channels=2, n_state=8, seed=1)
    # 10 N (1 + ‖z‖) u is 2^-24 at ‖z‖ = 2^29 / 80.
    fast = continuous.Lambda.copy()
    fast[1, 2] = -(2.0**30) / 80 / continuous.dt[1]
    stiff = ls.ContinuousSystem(fast, continuous.B, continuous.C, continuous.dt, continuous.P)
    Lambda, B, P = tensors(stiff)
    dt = torch.tensor(stiff.dt)[:, None] * torch.ones((*factors, 1, 1), dtype=torch.float64)
    with pytest.raises(ls.UnstableRecurrence, match=r"‖dt·A‖ is 1\..*e\+07.*discretization='bilinear'") as caught:
        full_exponential(Lambda, P, B, dt)
    assert caught.value.channel == 1
    with pytest.raises(ls.ParameterError, match=r"‖dt·A‖ is 1\..*e\+07.*discretization='bilinear'"):
        stiff.discretize("zoh")
    limit = 2.0**29 / 80
    require_accurate_exponential(limit, 8)
    with pytest.raises(ls.ParameterError, match="fewer than 24 bits"):
        require_accurate_exponential(np.nextafter(limit, np.inf), 8)
