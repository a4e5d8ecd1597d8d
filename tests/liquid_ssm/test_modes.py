"""Relations between modes, and the states that carry them; errors against the oracle are in test_conformance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import liquid_ssm as ls
from liquid_ssm.compute import problem_of
from liquid_ssm.modes import State, joins_orders, requirements, state_shapes
from liquid_ssm.oracle.reference import reference
from liquid_ssm.problem import ModeSpec, Problem
from liquid_ssm.registry import get_backend
from liquid_ssm.rounding_errors import realization_of, rounding_model
from liquid_ssm.testing.strategies import mode_specs, random_system, systems

U = np.random.default_rng(0).normal(size=(2, 2, 10))


def options(spec):
    return {"order": spec.order, "correlations": spec.correlations, "window": spec.window}


@settings(deadline=None)
@given(data=st.data())
def test_split_sequences_join_bit_for_bit_in_numpy(data):
    """Computed in the order of time, a carried state changes nothing at all, except where windows are re-blocked."""
    system = data.draw(systems())
    spec = data.draw(mode_specs(system.structure))
    if spec.window is not None:
        return  # sliding blocks start elsewhere; test_conformance holds these to the bound
    u = np.random.default_rng(data.draw(st.integers(0, 99))).normal(size=(1, system.n_channels, 11))
    cut = data.draw(st.integers(0, 11))
    whole, end = ls.apply(system, u, mode=spec.mode, backend="numpy", return_state=True, **options(spec))
    first, state = ls.apply(system, u[..., :cut], mode=spec.mode, backend="numpy", return_state=True, **options(spec))
    second, final = ls.apply(
        system, u[..., cut:], mode=spec.mode, backend="numpy", state=state, return_state=True, **options(spec)
    )
    assert np.array_equal(np.concatenate([first, second], axis=-1), whole)
    for a, b in zip(*([s if isinstance(s, State) else (s,)][0] for s in (final, end)), strict=True):
        assert (a is None and b is None) or np.array_equal(a, b)


def test_truncated_of_length_order_is_liquid():
    """Order L and above hold every term; both sum the same numbers, so they agree to rounding."""
    system = random_system("dense", n_channels=2, n_modes=2, seed=3)
    liquid = ls.apply(system, U, mode="liquid")
    full = ls.apply(system, U, mode="truncated", order=10)
    size = np.abs(liquid).max()
    # 10 orders of 10 steps, below 20 roundings each, of numbers not larger than a few times the output
    assert np.abs(full - liquid).max() < 10 * 10 * 20 * 2.0**-53 * 10 * size
    assert np.abs(ls.apply(system, U, mode="truncated", order=2) - liquid).max() > 1e-3 * size


def test_order_one_is_s4():
    system = random_system("diagonal")
    s4 = ls.apply(system, U, mode="s4", backend="numpy")
    for mode in ("truncated", "kb", "pb"):
        assert np.array_equal(ls.apply(system, U, mode=mode, order=1, backend="numpy"), s4)


def test_kb_differs_from_truncated_where_matrices_do_not_commute():
    system = random_system("dense", n_modes=3)
    kb, truncated = (ls.apply(system, U, mode=m, order=2) for m in ("kb", "truncated"))
    assert np.abs(kb - truncated).max() > 1e-3 * np.abs(truncated).max()


def test_order_p_terms_are_homogeneous_of_degree_p():
    """Scaling u by 2 scales the order-p part by 2^p, exactly."""
    system = random_system("diagonal")
    for mode in ("kb", "pb"):
        for kind in ("all", "adjacent"):
            terms = {}
            for scale in (1.0, 2.0):
                high, low = (
                    ls.apply(system, scale * U, mode=mode, order=p, correlations=kind, backend="numpy") for p in (3, 2)
                )
                terms[scale] = high - low
            # the difference of two sums of rounded terms of size |high|: a few units each
            slack = 8 * 2.0**-53 * np.abs(high).max()
            assert np.abs(terms[2.0] - 8 * terms[1.0]).max() <= slack * 9


def test_scaling_B_against_C_changes_the_liquid_mode_only():
    system = random_system("diagonal")
    scaled = ls.DiagonalSystem(system.A_bar, 2 * system.B_bar, system.C / 2)
    assert np.array_equal(
        ls.apply(scaled, U, mode="s4", backend="numpy"), ls.apply(system, U, mode="s4", backend="numpy")
    )
    assert not np.allclose(ls.apply(scaled, U, mode="liquid"), ls.apply(system, U, mode="liquid"))


def test_conjugate_pairs_equal_the_full_system():
    pairs = random_system("diagonal", n_modes=4)
    full = ls.DiagonalSystem(
        *(np.concatenate([v, v.conj()], axis=1) for v in pairs.parameters.values()), conjugate_pairs=False
    )
    for mode in ("s4", "liquid", "truncated", "kb", "pb"):
        a, b = (ls.apply(s, U, mode=mode, backend="numpy") for s in (pairs, full))
        # the same products; only the tree of the sum over 4 or 8 modes differs, by one level
        assert np.abs(a - b).max() <= 64 * 2.0**-53 * np.abs(a).max() * 4


def test_batch_and_channels_are_independent():
    system = random_system("diagonal", n_channels=3)
    u = np.random.default_rng(1).normal(size=(4, 3, 9))
    y = ls.apply(system, u, mode="liquid", backend="numpy")
    rows, channels = [2, 0, 3, 1], [1, 2, 0]
    again = ls.apply(system.take(channels), u[rows][:, channels], mode="liquid", backend="numpy")
    assert np.array_equal(again, y[rows][:, channels])


def test_leading_zeros_shift_the_output():
    """Time-invariance: from rest, zeros in front only delay."""
    system = random_system("diagonal")
    padded = np.concatenate([np.zeros((2, 2, 3)), U], axis=-1)
    for mode in ("liquid", "truncated", "kb", "pb"):
        a, b = (ls.apply(system, v, mode=mode, backend="numpy") for v in (padded, U))
        assert np.array_equal(a[..., 3:], b)
        assert not a[..., :3].any()


def test_a_plain_state_is_the_linear_state_of_every_mode():
    """With u = 0 every mode from x_{-1} = x is the free response C Ā^{k+1} x."""
    system = random_system("dplr")
    x = np.random.default_rng(3).normal(size=(1, 2, 3)) + 0j
    zero = np.zeros((1, 2, 5))
    free = ls.apply(system, zero, mode="s4", state=x)
    assert np.abs(free).max() > 0.01
    for mode in ("liquid", "truncated", "kb", "pb"):
        for kind in ("all", "adjacent"):
            assert np.array_equal(ls.apply(system, zero, mode=mode, correlations=kind, state=x), free)


@pytest.mark.parametrize("structure", ["diagonal", "dplr"])
def test_documented_state_shapes(structure):
    system = random_system(structure, n_channels=2, n_modes=3)
    shapes = {
        ModeSpec("liquid"): {"x": (4, 2, 3)},
        ModeSpec("truncated", 3): {"x": (4, 3, 2, 3)},
        ModeSpec("kb", 3): {"x": (4, 3 if structure == "diagonal" else 6, 2, 3)},
        ModeSpec("kb", 3, "adjacent"): {"x": (4, 3, 2, 3), "inputs": (4, 2, 2)},
        ModeSpec("kb", 3, "all", 8): {"x": (4, 1, 2, 3), "inputs": (4, 2, 7)},
        ModeSpec("pb", 3): {"x": (4, 1, 2, 3), "sums": (4, 3, 2)},
        ModeSpec("pb", 3, "adjacent"): {"x": (4, 1, 2, 3), "sums": (4, 2, 2), "inputs": (4, 2, 2)},
        ModeSpec("pb", 3, "all", 8): {"x": (4, 1, 2, 3), "inputs": (4, 2, 7)},
    }
    for spec, wanted in shapes.items():
        assert state_shapes(system, spec, 4) == wanted
        _, state = ls.apply(system, np.ones((4, 2, 9)), mode=spec.mode, return_state=True, **options(spec))
        parts = state._asdict() if isinstance(state, State) else {"x": state}
        assert {k: v.shape for k, v in parts.items() if v is not None} == wanted


def test_requirements_name_what_a_mode_uses():
    def needed(name, spec, *, state=False):
        return requirements(Problem(spec, "diagonal", 1, 1, 1, 1, "float64", state=state), get_backend(name))

    assert needed("scipy", ModeSpec("s4")) == ("kernel", "convolve")
    assert needed("scipy", ModeSpec("s4"), state=True) == ("scan",)
    assert needed("numpy", ModeSpec("s4")) == ("scan",)
    assert needed("numpy", ModeSpec("kb", 2)) == ("cascade",)
    assert needed("numpy", ModeSpec("pb", 2)) == ("scan", "correlate", "kernel")


def test_only_one_form_joins_its_orders_and_only_where_a_backend_can():
    numba = get_backend("numba")
    for structure in ("diagonal", "dplr"):
        assert joins_orders(numba, structure, ModeSpec("kb", 3, "adjacent"))
        assert not joins_orders(get_backend("numpy"), structure, ModeSpec("kb", 3, "adjacent"))
    for spec in (
        ModeSpec("kb", 1, "adjacent"),
        ModeSpec("kb", 3, "adjacent", 5),
        ModeSpec("kb", 3, "all"),
        ModeSpec("pb", 3, "adjacent"),
        ModeSpec("s4"),
    ):
        assert not joins_orders(numba, "dplr", spec)
    assert not joins_orders(numba, "dense", ModeSpec("kb", 3, "adjacent"))


@pytest.mark.parametrize("structure", ["diagonal", "dplr"])
def test_orders_are_joined_where_no_state_is_given_or_asked_for(structure, monkeypatch):
    system, numba = random_system(structure).astype("float32"), get_backend("numba")
    options = {"mode": "kb", "order": 3, "correlations": "adjacent", "backend": "numba"}
    u = U.astype("float32")
    joint = numba.joint_scan(system, u, order=3)
    assert np.array_equal(ls.apply(system, u, **options), joint)

    def refuse(*_, **__):
        raise AssertionError

    monkeypatch.setattr(type(numba), "joint_scan", refuse)
    apart, state = ls.apply(system, u, return_state=True, **options)
    spec = ModeSpec("kb", 3, "adjacent")
    models = [rounding_model(numba, problem_of(system, u, spec, state=given)) for given in (False, True)]
    exact = reference(realization_of(system), u, "kb", order=3, correlations="adjacent", models=models)
    for y, bound in zip((joint, apart), exact.bounds, strict=True):
        assert (np.abs(y - exact.value) <= bound.componentwise + exact.radius).all()
    ls.apply(system, u, state=state, **options)
