"""Outputs, states and gradients of sequences in slices, against exact ones; one process in two, four and one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import distributed

import liquid_ssm as ls
from liquid_ssm import parallel
from liquid_ssm.compute import problem_of
from liquid_ssm.oracle.adjoint import gradients
from liquid_ssm.oracle.adjoint_bounds import gradient_bounds
from liquid_ssm.oracle.reference import reference
from liquid_ssm.problem import ModeSpec
from liquid_ssm.registry import get_backend
from liquid_ssm.rounding_errors import realization_of, rounding_model

# What joining adds to the bound of scans, of states below 2^20 and at most four slices: docs/parallel.md.
JOINED = 1 + 2 * 3 * 2.0 ** (20 - 60)
LONGDOUBLE = 2.0**-10  # of the reference for float64, in units of that dtype's roundoff


def arithmetic(system, u, spec, backend="torch"):
    """The backend's, in any bracketing of steps."""
    problem = problem_of(system, u, spec, state=True, gradient=True)
    return replace(rounding_model(get_backend(backend), problem), scan="any", fft=False)


def check(found, ranks, structure, mode, dtype, lengths, backend="torch", options=None):
    options = options or {}
    system, _ = ranks.system_of(structure, dtype, **options.get("system", {}))
    u, state, grad_y, grad_state = ranks.signals(structure, mode, dtype, sum(lengths), **options.get("signals", {}))
    if options.get("last_only"):
        grad_y[..., :-1] = 0
        grad_state.zero_()
    system = system.to_numpy()
    u, state, grad_y, grad_state = (array.numpy() for array in (u, state, grad_y, grad_state))
    spec = ModeSpec(mode, ranks.ORDER)
    model = arithmetic(system, u, spec, backend)
    realization = realization_of(system)

    # The tail shows the final state: it goes on from there.
    tail = ranks.signals(structure, mode, dtype, 6)[0].numpy()
    finals = [rank["final"] for rank in found]
    assert all(torch.equal(final, finals[0]) for final in finals)
    given = {"mode": mode, "order": ranks.ORDER}
    behind = ls.apply(system, tail, **given, backend="numpy", state=finals[0].numpy())
    y = np.concatenate([*(rank["y"].numpy() for rank in found), behind], -1)
    whole = np.concatenate([u, tail], -1)
    exact = reference(realization, whole, **given, state=state, models=[model], dtype=np.longdouble)
    assert (np.abs(y - exact.value) <= JOINED * exact.bounds[0].componentwise + exact.radius).all()

    posed = {"mode": mode, "grad_y": grad_y, "grad_state": grad_state, "order": ranks.ORDER, "state": state}
    true = gradients(realization, u, **posed, precision="longdouble")
    bounds = gradient_bounds(realization, u, **posed, model=model)
    grads = [rank["grads"] for rank in found]
    computed = {"u": torch.cat([g[0] for g in grads], -1), "state": sum(g[1] for g in grads)}
    computed |= {name: sum(g[i] for g in grads) for i, name in ((2, "A"), (3, "B"), (4, "C"))}
    for name, gradient in computed.items():
        value, bound = true[name], bounds[name]
        if name == "state" and mode == "truncated":
            value, bound = value[:, 0], bound[:, 0]
        allowed = JOINED * bound + LONGDOUBLE * np.abs(np.asarray(value)) * np.finfo(u.dtype).eps
        assert (np.abs(gradient.numpy() - value) <= allowed).all(), name
        assert np.isfinite(bound).all()


CASES = [
    pytest.param(size, structure, mode, dtype, id=f"{size}-{structure}-{mode}-{dtype}")
    for size in (2, 4)
    for structure, mode in [
        *((structure, mode) for structure in ("diagonal", "mimo") for mode in ("s4", "liquid", "truncated")),
        ("real", "liquid"),
    ]
    for dtype in ("float32", "float64")
]


@pytest.mark.parametrize(("size", "structure", "mode", "dtype"), CASES)
def test_slices_give_what_the_whole_gives(size, structure, mode, dtype, results, ranks):
    found = [rank["scan"] for rank in results(size)]
    for lengths in ranks.SLICES[size]:
        check([part[structure, mode, dtype, lengths] for part in found], ranks, structure, mode, dtype, lengths)


@pytest.mark.parametrize("size", [2, 4])
def test_gradients_that_a_product_of_1e_minus_31_per_slice_leaves_are_right_in_every_digit(size, results, ranks):
    lengths, options = ranks.SPECIAL[size]["decay"]
    found = [rank["scan"]["decay"] for rank in results(size)]
    assert 0 < found[0]["grads"][0].abs().max() < 1e-25
    check(found, ranks, "diagonal", "liquid", "float64", lengths, options=options)


def test_transitions_may_grow(results, ranks):
    lengths, options = ranks.SPECIAL[4]["growth"]
    found = [rank["scan"]["growth"] for rank in results(4)]
    assert found[-1]["y"].abs().max() > 100
    check(found, ranks, "diagonal", "liquid", "float64", lengths, options=options)


@pytest.mark.parametrize("size", [2, 4])
def test_the_default_order_of_backends(size, results, ranks):
    found = [rank["scan"]["first"] for rank in results(size)]
    check(found, ranks, "diagonal", "liquid", "float32", ranks.SLICES[size][0], backend="numba")


def test_one_rank_with_finer_states_makes_all_exchange_fine_ones(results, ranks):
    found = [rank["scan"]["wide"] for rank in results(4)]
    assert all(rank["final"].dtype == torch.complex128 for rank in found)
    check(found, ranks, "diagonal", "liquid", "float32", ranks.SLICES[4][0])


@pytest.mark.parametrize("size", [2, 4])
def test_exchanges_are_16_bytes_per_row_channel_and_mode_whatever_the_length(size, results, ranks):
    states = 1024 + 16 * ranks.BATCH * ranks.CHANNELS * ranks.STATES
    expected = [("header", 1024), ("states", states), ("closing", 1024), ("cotangents", states)]
    for rank in results(size):
        assert rank["sizes"] == {4: expected, 400: expected}


@pytest.mark.parametrize("size", [2, 4])
def test_gradients_that_only_one_rank_asks_for_pass_through_all(size, results):
    first, *others = (rank["one asks"] for rank in results(size))
    # 2 (1 + 1/2 + … ), as many terms as there are steps from there on: exact.
    assert first[0, 0].tolist() == [2 * (2 - 2.0 ** -(3 * size - k - 1)) for k in range(3)]
    assert others == [None] * (size - 1)


@pytest.fixture
def alone(tmp_path):
    """A group of this process only."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.parametrize("mode", ["s4", "liquid", "truncated"])
def test_a_group_of_one_is_one_process(mode, alone, ranks):
    system, _ = ranks.system_of("diagonal", "float64")
    u, state, grad_y, _ = ranks.signals("diagonal", mode, "float64", 21)
    given = {"mode": mode, "backend": "torch", "state": state, "return_state": True}
    found, expected = parallel.apply(system, u, **given), ls.apply(system, u, **given)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    one, other = (
        torch.autograd.grad([y, final], list(system.parameters.values()), [grad_y, torch.ones_like(final)])
        for y, final in (found, expected)
    )
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_without_gradients_no_graph_is_kept(alone, ranks):
    system, _ = ranks.system_of("diagonal", "float64")
    with torch.no_grad():
        y = parallel.apply(
            system, ranks.signals("diagonal", "liquid", "float64", 21)[0], mode="liquid", backend="torch"
        )
    assert y.grad_fn is None
