"""The transition of the exact bilinear step: where it has no value, and how large it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import liquid_ssm as ls
from liquid_ssm import nn
from liquid_ssm.nn.exact_step import dissipative_limit, gain_limit, largest_gain

STRUCTURES = {"diagonal": "s4d-lin", "dplr": "legs", "rank 2": "fout", "mimo": "s5"}
# Of NumPy's inverses and norms of 8 × 8 matrices whose entries are of order 1.
ROUNDED = 1e-12
UNIT = 2.0**-53
over_structures = pytest.mark.parametrize("structure", STRUCTURES)


def layer_of(structure, **changes):
    options = {"init": STRUCTURES[structure], "discretization": "bilinear-exact", "liquid_scale": 1.0, "seed": 2}
    return nn.SSMLayer(2, 8, **options | {"dt_min": 0.1, "dt_max": 0.5, "backend": "first"} | changes)


def transitions(layer, u, dt=1.0):
    """(I − h M)⁻¹ (I + h M) of every channel for inputs u (H,), on both halves of every conjugate pair."""
    system = layer.continuous.continuous()
    shared = system.structure == "mimo"
    found = []
    for h in range(1 if shared else layer.n_channels):
        Lambda = system.Lambda if shared else system.Lambda[h]
        drive = system.B @ u if shared else system.B[h] * u[h]
        step = np.tile(system.dt if shared else np.full(len(Lambda), system.dt[h]), 2) * dt
        M = np.diag(np.concatenate([v := Lambda + drive, v.conj()]))
        for P in () if system.P is None else system.P[:, h]:
            both = np.concatenate([P, P.conj()])
            M = M - np.outer(both, both.conj())
        z = step[:, None] / 2 * M
        found.append(np.linalg.solve(np.eye(len(z)) - z, np.eye(len(z)) + z))
    return found


def gains(layer, u, dt):
    """max |(1 + m)/(1 − m)|, m = h (λ + B u), where modes do not mix, and what the same in float64 may be off by."""
    system = layer.continuous.continuous()
    shared = system.structure == "mimo"
    Lambda, B = system.Lambda.astype(np.clongdouble), system.B.astype(np.clongdouble)
    h = (system.dt if shared else system.dt[:, None]).astype(np.longdouble) * dt / 2
    drive, size = (B @ u, np.abs(B) @ np.abs(u)) if shared else (B * u[:, None], np.abs(B * u[:, None]))
    m = h * (Lambda + drive)
    gain = np.abs((1 + m) / (1 - m))
    # m is off by the products with u, sums over the channels, one with λ, and 4 of h times them; the gain by
    # |2/(1 − m²)| of that, relatively, by the two sums, a quotient of at most 10 roundoffs and a modulus of 2.
    of_m = UNIT * (1 + u.size + 1 + 4) * h * (np.abs(Lambda) + size)
    relative = 2 * of_m / np.abs(1 - m * m) + 14 * UNIT
    return float(gain.max()), float((gain * relative).max() * (1 + 2.0**-10))


def norms(layer, u, dt=1.0):
    return max(np.linalg.norm(matrix, 2) for matrix in transitions(layer, u, dt))


@over_structures
@pytest.mark.parametrize("bound", [1.0, 1.1, 1.5])
def test_the_clamp_keeps_every_transition_within_its_bound(structure, bound, in_double):
    layer = layer_of(structure, max_gain=bound)
    Lambda, B, _ = layer.continuous.joined()
    limit = gain_limit(Lambda, B, layer.continuous.step_sizes(), bound).detach().expand(2).numpy()
    assert (limit > 0).all()
    for signs in ([1, 1], [1, -1], [-1, 1], [-1, -1]):
        assert norms(layer, limit * signs) <= bound + ROUNDED
    if structure == "diagonal" and bound == 1:
        # Modes do not mix, and Re B = |B|: beyond the limit one of them grows.
        assert norms(layer, 1.01 * limit) > 1
    u = 3 * torch.randn(2, 40, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    twin = layer_of(structure)
    twin.load_state_dict(layer.state_dict())
    clamped = torch.clamp(u, -torch.from_numpy(limit), torch.from_numpy(limit))
    layer.D = twin.D = None
    assert torch.equal(layer(u), twin(clamped))
    assert not torch.equal(clamped, u)
    with torch.no_grad():
        assert torch.equal(layer.step(u[:, 0])[0], layer(u[:, :1])[:, 0])
    dt = torch.full((2, 40), 1.7, dtype=torch.float64)
    assert torch.equal(layer(u, dt=dt), layer(u, rate=1.7))


@over_structures
@given(size=st.floats(0.0, 3.0), sign=st.sampled_from([1, -1]), dt=st.floats(0.1, 4.0))
def test_the_gain_is_that_of_the_transition_or_above(structure, size, sign, dt):
    layer = layer_of(structure).double()
    u = np.array([size, sign * size])
    signal = torch.from_numpy(u)[None, :, None]
    found = largest_gain(*layer.continuous.joined(), layer.continuous.step_sizes(dt), signal)
    if structure in ("dplr", "rank 2"):
        assert norms(layer, u, dt) <= found * (1 + 1e-9)
        return
    exact, off = gains(layer, u, dt)
    assert abs(found - exact) <= off


@over_structures
def test_gains_are_the_largest_of_all_inputs(structure, in_double):
    layer = layer_of(structure)
    parts, dt = layer.continuous.joined(), layer.continuous.step_sizes()
    u = torch.randn(3, 2, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    each = [largest_gain(*parts, dt, u[b : b + 1, :, k : k + 1]) for b in range(3) for k in range(50)]
    # The same operations, of which a vector may round a quotient and a modulus in another way: 14 roundoffs each.
    assert largest_gain(*parts, dt, u) == pytest.approx(max(each), rel=28 * UNIT)
    assert largest_gain(*parts, dt, u[..., :0]) == pytest.approx(largest_gain(*parts, dt, 0 * u), rel=28 * UNIT)


def test_far_inputs_have_no_bound_in_low_rank_systems(in_double):
    layer = layer_of("dplr")
    u = torch.full((1, 2, 1), 1e3, dtype=torch.float64)
    assert largest_gain(*layer.continuous.joined(), layer.continuous.step_sizes(), u) == torch.inf


@over_structures
def test_below_its_limit_a_step_contracts(structure, in_double):
    layer = layer_of(structure)
    Lambda, B, _ = layer.continuous.joined()
    limit = dissipative_limit(Lambda, B).detach().expand(2).numpy()
    integrator = layer.continuous.continuous().discretize("bilinear-exact")
    # −Re λ over a modulus, of 2 roundoffs, or a sum of them, and a quotient, in both.
    assert limit == pytest.approx([integrator.input_bound(h) for h in range(2)], rel=2 * (2 + 1 + 1) * UNIT)
    assert norms(layer, limit * [1, -1]) <= 1 + ROUNDED
    # No mode without input has a limit.
    assert torch.isinf(dissipative_limit(Lambda, 0 * B)).all()
    assert not dissipative_limit(Lambda, B, Lambda.real.min() - 1).any()


def test_a_pole_is_an_error_with_its_place(integrated, rounded, in_double):
    system = ls.ContinuousSystem(
        np.array([[-0.5 + 0j, -1.0]]), np.array([[1.0 + 0j, 0.5]]), np.ones((1, 2), complex), np.array([0.25])
    )
    layer = nn.SSMLayer(1, 4, init=system, discretization="bilinear-exact")
    u = torch.zeros(2, 70, 1, dtype=torch.float64)
    u[1, 66] = 8.5  # 1 − (−0.5 + 8.5)/8 = 0
    with pytest.raises(
        ls.UnstableRecurrence, match=r"pole.*at step 66, channel 0 \(\|u\| there: 8.5\).*\|u\| < 0.5;"
    ) as caught:
        layer(u)
    assert (caught.value.step, caught.value.channel, caught.value.input_bound) == (66, 0, 0.5)
    # A divisor of one or two roundings may as well be 0.
    for ulps in (-2, -1, 1, 2):
        u[1, 66] = 8.5 + ulps * 2.0**-49
        with pytest.raises(ls.UnstableRecurrence, match="pole"):
            layer(u)
    # So near to it that 30 of 52 digits are lost, there is a result, within the bound.
    u = torch.tensor([[[0.3], [8.5 * (1 + 2.0**-30)], [-0.2]]], dtype=torch.float64)
    ones = torch.ones(1, 3, dtype=torch.float64)
    value, _ = integrated.exact(layer, u, ones)
    bound, _ = integrated.allowed(rounded, layer, u, ones)
    assert (np.abs(layer(u).detach().numpy() - value) <= bound).all()
    assert np.abs(value).max() > 2.0**29


def test_a_singular_core_of_a_low_rank_system_is_a_pole(in_double):
    # Two equal real modes and one factor: I − h M is singular where its eigenvalue 1 − h (λ − 4 + u) is.
    system = ls.ContinuousSystem(
        np.array([[-1.0 + 0j, -1.0]]), np.ones((1, 2), complex), np.ones((1, 2), complex), np.array([0.5]),
        np.ones((1, 1, 2), complex),
    )  # fmt: skip
    layer = nn.SSMLayer(1, 4, init=system, discretization="bilinear-exact")
    # M = (u − 1) I − 1 1*: eigenvalues u − 1 (three times) and u − 5.
    for value, pole in ((5.0, True), (9.0, True), (9.0 - 2.0**-49, True), (9.0 + 2.0**-49, True), (7.0, False)):
        u = torch.full((1, 1, 1), value, dtype=torch.float64)
        if pole:
            with pytest.raises(ls.UnstableRecurrence, match="pole"):
                layer(u)
        else:
            assert torch.isfinite(layer(u)).all()


def test_what_has_no_clamp_is_refused(in_double):
    for bound, message in ((0.9, "max_gain is 0.9; a step of bilinear-exact"), (float("nan"), "max_gain is nan")):
        with pytest.raises(ls.ParameterError, match=message):
            layer_of("diagonal", max_gain=bound)
    with pytest.raises(ls.ParameterError, match="a step of adams-bashforth takes two"):
        layer_of("diagonal", discretization="adams-bashforth", max_gain=1.1)


def test_diagnoses_know_the_clamp(in_double):
    layer = layer_of("diagonal", max_gain=1.05)
    u = 3 * torch.randn(2, 40, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = nn.diagnose(layer, u).layers[0]
    assert 0 < found.clamped < 1
    assert found.gain <= 1.05 + ROUNDED
    assert nn.diagnose(layer, u, rate=2.0).layers[0].clamped > found.clamped
