"""The backend `numba` given tensors: its methods are operators."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import liquid_ssm as ls
from liquid_ssm.backends.numba_backend import NumbaBackend, float64_state
from liquid_ssm.compute import problem_of
from liquid_ssm.errors import BackendRejected, DTypeError, ParameterError
from liquid_ssm.modes import state_shapes
from liquid_ssm.oracle.adjoint import gradients, gradients_by_duals
from liquid_ssm.oracle.adjoint_bounds import gradient_bounds
from liquid_ssm.oracle.enclosure import enclose
from liquid_ssm.oracle.reference import reference
from liquid_ssm.problem import ModeSpec
from liquid_ssm.rounding_errors import realization_of, rounding_model
from liquid_ssm.systems import DiagonalSystem, DPLRSystem
from liquid_ssm.testing.properties.accuracy import RECURRENCES
from liquid_ssm.testing.properties.gradients import _NAMES, _require_gradient
from liquid_ssm.testing.strategies import FORMS, random_system
from liquid_ssm.testing.subject import added, require_exact

NUMBA = NumbaBackend()
SPECS = [
    ModeSpec(form.partition("-")[0], 3, "adjacent" if "adjacent" in form else "all", 4 if "window" in form else None)
    for form in FORMS
]


def options(spec):
    return {"mode": spec.mode, "order": spec.order, "correlations": spec.correlations, "window": spec.window}


def inputs(batch, n_channels, length, dtype="float64", seed=0):
    return np.random.default_rng(seed).normal(size=(batch, n_channels, length)).astype(dtype)


# --- results -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("structure", ["diagonal", "dplr"])
@pytest.mark.parametrize("backend", [NUMBA, NumbaBackend(threads=2), float64_state()], ids=["", "threads", "wide"])
def test_each_method_gives_the_bits_that_it_gives_for_arrays(holds, structure, backend):
    system, u = random_system(structure).astype("float32"), inputs(2, 2, 20, "float32")
    other, v = system.to_torch(), torch.from_numpy(u)
    holds.are_equal([backend.kernel(other, 7, 2)], [backend.kernel(system, 7, 2)])
    kernel = backend.kernel(system, 7)
    holds.are_equal([backend.convolve(torch.from_numpy(kernel), v)], [backend.convolve(kernel, u)])
    y, state = backend.scan(system, u, liquid=True)
    z, carried = backend.scan(other, v, liquid=True)
    holds.are_equal([z, carried], [y, state])
    holds.are_equal(backend.scan(other, v, carried, liquid=False), backend.scan(system, u, state, liquid=False))
    for given in ({"kind": "truncated"}, {"kind": "chain"}):
        holds.are_equal(backend.cascade(other, v, order=3, **given), backend.cascade(system, u, order=3, **given))
    found = backend.cascade(other, v, order=3, kind="chain", window=5)
    assert found[1] is None
    holds.are_equal(found[:1], backend.cascade(system, u, order=3, kind="chain", window=5)[:1])
    for given in ({"kind": "products"}, {"kind": "running"}, {"kind": "elementary", "window": 5}):
        terms, sums = backend.correlate(v, order=3, **given)
        expected, last = backend.correlate(u, order=3, **given)
        holds.are_equal(
            [terms, sums] if sums is not None else [terms], [expected, last] if last is not None else [expected]
        )
        assert (sums is None) == (last is None)
    total, responses = y.copy(), np.ones((2, 2), "float32")
    sums = backend.add_correlations(total, u, responses, order=3, kind="running")
    found = backend.added_correlations(z, v, torch.from_numpy(responses), order=3, kind="running")
    holds.are_equal(found, (total, sums))
    holds.are_equal([backend.joint_scan(other, v, order=3)], [backend.joint_scan(system, u, order=3)])


@pytest.mark.parametrize("structure", ["diagonal", "dplr"])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.label)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_outputs_are_within_the_bound_of_how_it_says_it_rounds_tensors(structure, spec, dtype):
    system, u = random_system(structure).astype(dtype), inputs(2, 2, 30, dtype)
    problem = replace(problem_of(system, u, spec), arrays="torch")
    assert rounding_model(NUMBA, problem).joint_adjacent
    assert not rounding_model(NUMBA, replace(problem, state=True)).joint_adjacent
    y = ls.apply(system.to_torch(), torch.from_numpy(u), backend=NUMBA, **options(spec))
    realization, models = realization_of(system), [rounding_model(NUMBA, problem)]
    bound = added(*reference(realization, u, models=models, **options(spec)).bounds)
    require_exact(y.numpy(), enclose(realization, u, **options(spec)), bound)


@pytest.mark.parametrize("length", [0, 1])
def test_short_signals(holds, length):
    system, u = random_system("diagonal"), inputs(2, 2, length)
    found = NUMBA.scan(system.to_torch(), torch.from_numpy(u), liquid=True)
    holds.are_equal(found, NUMBA.scan(system, u, liquid=True))


def test_systems_and_states_are_cast_as_those_of_arrays_are(holds):
    system, u = random_system("diagonal"), inputs(2, 2, 9, "float32")
    state = np.ones((2, 2, 3), "complex128")
    found = NUMBA.scan(system.to_torch(), torch.from_numpy(u), torch.from_numpy(state), liquid=True)
    holds.are_equal(found, NUMBA.scan(system, u, state, liquid=True))
    real = torch.ones(2, 2, 3)
    found = NUMBA.scan(system.to_torch(), torch.from_numpy(u), real, liquid=True)
    holds.are_equal(found, NUMBA.scan(system, u, real.numpy(), liquid=True))
    real_system = DiagonalSystem(*(p.real for p in system.parameters.values())).to_torch()
    with pytest.raises(DTypeError, match=r"state has dtype torch.complex128; it must be torch.float32"):
        NUMBA.scan(real_system, torch.from_numpy(u), torch.from_numpy(state), liquid=True)


def test_what_does_not_go_together_is_refused():
    system, u = random_system("diagonal"), torch.ones(1, 2, 3, dtype=torch.float64)
    for method in (
        lambda: NUMBA.scan(system, u, liquid=True),
        lambda: NUMBA.cascade(system, u, order=2, kind="chain"),
    ):
        with pytest.raises(ParameterError, match=r"u is a torch tensor and the system has NumPy arrays.*to_torch\(\)"):
            method()
    with pytest.raises(BackendRejected, match="needs diagonal or dplr"):
        NUMBA.scan(random_system("dense").to_torch(), u, liquid=True)
    with pytest.raises(DTypeError, match=r"u has dtype torch\.bfloat16"):
        NUMBA.scan(system.to_torch(), u.bfloat16(), liquid=True)


def test_autocast_casts_halves(holds):
    system, u = random_system("diagonal").astype("float32").to_torch(), torch.ones(1, 2, 3)
    with torch.autocast("cpu"):
        found = NUMBA.scan(system, u.bfloat16(), liquid=True)
    holds.are_equal(found, NUMBA.scan(system, u, liquid=True))


# --- torch.compile -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", [NUMBA, NumbaBackend(threads=2)], ids=["", "threads"])
def test_methods_compile_whole(holds, backend):
    def function(u, A_bar, B_bar, C, state):
        system = DiagonalSystem(A_bar, B_bar, C)
        y, final = backend.scan(system, u, state, liquid=True)
        z, _ = backend.cascade(system, u, order=3, kind="truncated")
        terms, sums = backend.correlate(u, order=3, kind="running")
        responses = torch.stack([backend.kernel(system, 1, p)[:, 0] for p in (2, 3)])
        w, _ = backend.added_correlations(
            backend.convolve(backend.kernel(system, 4), u), u, responses, order=3, kind="running"
        )
        return y, final, z, terms, sums, w

    system = random_system("diagonal").to_torch()
    state = torch.ones(2, 2, 3, dtype=torch.complex128)
    args = [torch.from_numpy(inputs(2, 2, 6)), *system.parameters.values(), state]
    plain, traced = holds.leaves(args, True), holds.leaves(args, True)
    torch._dynamo.reset()
    expected, found = function(*plain), torch.compile(function, backend="aot_eager", fullgraph=True)(*traced)
    holds.are_equal(found, expected)
    for results in (expected, found):
        sum(r.abs().square().sum() for r in results).backward()
    holds.are_equal(holds.gradients(traced), holds.gradients(plain))


def test_a_dplr_system_compiles_whole(holds):
    system = random_system("dplr").to_torch()
    u = torch.from_numpy(inputs(2, 2, 6))
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda u, *parameters: NUMBA.scan(DPLRSystem(*parameters), u, liquid=True), backend="aot_eager", fullgraph=True
    )
    holds.are_equal(compiled(u, *system.parameters.values()), NUMBA.scan(system, u, liquid=True))


# --- gradients ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("structure", ["diagonal", "dplr"])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.label)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("seed", [0, 1])
def test_gradients_are_within_their_bounds_of_the_exact_ones(structure, spec, dtype, seed):
    rng = np.random.default_rng(seed)
    system = random_system(structure, n_modes=2, seed=seed).astype(dtype)
    u, grad_y = rng.normal(size=(2, 2, 2, 5)).astype(dtype)
    complex_dtype = np.result_type(dtype, np.complex64)
    state = grad_state = None
    if spec.mode in RECURRENCES:
        shape = state_shapes(system, spec, 2)["x"]
        state, grad_state = ((rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(complex_dtype) for _ in "ab")

    tensor = {name: None if a is None else torch.from_numpy(a) for name, a in (("s", state), ("g", grad_state))}
    found = ls.vjp(
        system.to_torch(),
        torch.from_numpy(u),
        torch.from_numpy(grad_y),
        backend=NUMBA,
        state=tensor["s"],
        grad_state=tensor["g"],
        **options(spec),
    )

    realization = realization_of(system)
    arguments = {"grad_y": grad_y, "grad_state": grad_state, **options(spec)}
    model = replace(rounding_model(NUMBA, problem_of(system, u, spec, gradient=True)), fft=False)
    bounds = gradient_bounds(realization, u, state=state, model=model, **arguments)
    if spec.mode in RECURRENCES:
        only = {k: arguments[k] for k in ("mode", "grad_y", "grad_state", "order")}
        exact = gradients(realization, u, state=state, **only)
    else:
        exact = gradients_by_duals(realization, u, **arguments)
    pairs = [("u", found.u, "u")] + [(name, found.parameters[name], _NAMES[name]) for name in system.parameters]
    if state is not None:
        pairs.append(("state", found.state, "state"))
    for name, gradient, key in pairs:
        assert gradient.dtype == (torch.from_numpy(u).dtype if name == "u" else getattr(torch, complex_dtype.name))
        _require_gradient(name, gradient.numpy(), exact[key], bounds[key])
