"""The backend `numba` as a whole; its kernels have tests of their own, the property suite holds it to its bounds."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import liquid_ssm as ls
from liquid_ssm import backend as contract
from liquid_ssm.backends.compiled.chunk_gradients import CHUNKS
from liquid_ssm.backends.numba_backend import NumbaBackend, float64_state
from liquid_ssm.backends.numpy_backend import NumPyBackend
from liquid_ssm.errors import BackendRejected, ParameterError, ShapeError
from liquid_ssm.problem import ModeSpec, Problem
from liquid_ssm.systems import DiagonalSystem
from liquid_ssm.testing.example import Example
from liquid_ssm.testing.strategies import FORMS, random_system
from liquid_ssm.testing.subject import Subject, require_exact

NUMBA, NUMPY = NumbaBackend(), NumPyBackend()
SPECS = [
    ModeSpec(form.partition("-")[0], 3, "adjacent" if "adjacent" in form else "all", 5 if "window" in form else None)
    for form in FORMS
]


def options(spec):
    return {"mode": spec.mode, "order": spec.order, "correlations": spec.correlations, "window": spec.window}


def inputs(batch, n_channels, length, dtype="float64", seed=0):
    return np.random.default_rng(seed).normal(size=(batch, n_channels, length)).astype(dtype)


# --- declaration -------------------------------------------------------------------------------------------


def test_looking_at_it_loads_no_numba(tmp_path):
    code = (
        "import sys, liquid_ssm.backends.numba_backend as m; m.NumbaBackend(threads=2); m.float64_state(); "
        "print('numba' in sys.modules, 'llvmlite' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False False"


def test_what_it_declares_it_has():
    for primitive in NUMBA.capabilities.primitives:
        assert callable(getattr(NUMBA, primitive))
        assert callable(getattr(NUMBA, f"{primitive}_vjp"))
    for form in NUMBA.capabilities.fused:
        assert form in contract.FUSED
        assert callable(getattr(NUMBA, form))


def test_without_numba_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(contract, "_installed", set())
    monkeypatch.setattr(contract, "find_spec", lambda name: None)
    problem = Problem(ModeSpec("liquid"), "diagonal", 1, 1, 1, 1, "float64")
    found = NUMBA.reject(problem)
    assert found is not None
    assert found.reason == "package"
    assert "pip install 'liquid-ssm[numba]'" in str(found)


@pytest.mark.parametrize("arguments", [{"threads": 0}, {"state_dtype": "float32"}, {"state_dtype": "longdouble"}])
def test_arguments_out_of_their_range_are_refused(arguments):
    with pytest.raises(ParameterError, match=f"{next(iter(arguments))} is"):
        NumbaBackend(**arguments)


def test_structures_it_does_not_have_are_refused():
    with pytest.raises(BackendRejected, match="needs diagonal or dplr"):
        NUMBA.scan(random_system("dense"), inputs(1, 2, 3), liquid=True)
    for method in (NUMBA.joint_scan, lambda system, u, order: NUMBA.joint_scan_vjp(system, u, u, order=order)):
        with pytest.raises(BackendRejected, match="needs diagonal or dplr for joint_scan"):
            method(random_system("dense"), inputs(1, 2, 3), order=2)
        with pytest.raises(ParameterError, match="order is 0"):
            method(random_system("dplr"), inputs(1, 2, 3), order=0)
        with pytest.raises(ShapeError, match="3 channel"):
            method(random_system("dplr"), inputs(1, 3, 3), order=2)


@pytest.mark.parametrize("y", [np.zeros((1, 2, 4)), np.zeros((1, 2, 3), "float32"), np.zeros((1, 2, 6))[..., ::2]])
def test_what_is_written_to_must_fit(y):
    with pytest.raises(ParameterError, match="contiguous"):
        NUMBA.add_correlations(y, inputs(1, 2, 3), np.ones((1, 2)), order=2, kind="running")


def test_arguments_of_added_correlations_are_checked():
    u, responses = inputs(1, 2, 3), np.ones((1, 2))
    for method in (
        lambda kind, r, **o: NUMBA.add_correlations(u.copy(), u, r, order=2, kind=kind, **o),
        lambda kind, r, **o: NUMBA.added_correlations(u, u, r, order=2, kind=kind, **o),
        lambda kind, r, **o: NUMBA.add_correlations_vjp(u, r, u, None, order=2, kind=kind, **o),
    ):
        with pytest.raises(ParameterError, match="unknown correlation kind 'products'; allowed: running, elementary"):
            method("products", responses)
        with pytest.raises(ShapeError, match=r"responses has shape \(2, 2\); it must be \(1, 2\)"):
            method("running", np.ones((2, 2)))
        with pytest.raises(ShapeError, match=r"sums has shape \(1, 1, 2\); it must be \(2, 1, 2\)"):
            method("elementary", responses, sums=np.ones((1, 1, 2)))
    with pytest.raises(ShapeError, match=r"grad_y has shape \(1, 2, 2\)"):
        NUMBA.add_correlations_vjp(u, responses, u[..., :2], None, order=2, kind="running")
    with pytest.raises(ShapeError, match=r"grad_sums has shape \(1, 1, 2\); it must be \(2, 1, 2\)"):
        NUMBA.add_correlations_vjp(u, responses, u, np.ones((1, 1, 2)), order=2, kind="elementary")
    with pytest.raises(ShapeError, match=r"y has shape \(1, 2, 2\)"):
        NUMBA.added_correlations(u[..., :2], u, responses, order=2, kind="running")


def test_a_window_and_a_state_exclude_each_other():
    system, u = random_system("diagonal"), inputs(1, 2, 3)
    with pytest.raises(ParameterError, match="a window needs kind 'chain'"):
        NUMBA.cascade(system, u, order=2, kind="truncated", window=3)
    state = np.zeros((1, 2, 2, 2), complex)
    with pytest.raises(ParameterError, match="no states; pass None"):
        NUMBA.cascade_vjp(system, u, None, u, state, order=2, kind="chain", window=3)
    with pytest.raises(ShapeError, match="state has shape"):
        NUMBA.scan(system, u, np.zeros((1, 2), complex), liquid=True)


# --- results -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("structure", ["diagonal", "dplr"])
@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.label)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_bit_of_any_mode_depends_on_the_threads(structure, spec, dtype):
    system, u = random_system(structure, n_channels=5, n_modes=3).astype(dtype), inputs(7, 5, 40, dtype)
    one, three = (NumbaBackend(threads=n) for n in (1, 3))
    results = [ls.apply(system, u, backend=b, return_state=True, **options(spec)) for b in (one, three)]
    gradients = [ls.vjp(system, u, u, backend=b, **options(spec)) for b in (one, three)]
    assert results[0][0].tobytes() == results[1][0].tobytes()
    assert gradients[0].u.tobytes() == gradients[1].u.tobytes()
    for name, gradient in gradients[0].parameters.items():
        assert gradient.tobytes() == gradients[1].parameters[name].tobytes()


@pytest.mark.parametrize(
    ("mode", "shape"),
    [
        ("liquid", (1, 1, 3, 16384)),  # in pieces
        ("s4", (1, 1, 3, 16384)),
        ("s4", (4, 2, 32, 800)),  # in chunks
        ("liquid", (2, 4, 24, 400)),  # scaled
        ("truncated", (2, 4, 24, 100)),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ways_that_only_some_shapes_take_are_within_their_bounds(mode, shape, dtype):
    batch, n_channels, n_modes, length = shape
    continuous = ls.initialize("s4d-lin", n_channels=n_channels, n_state=2 * n_modes, dt_min=1e-3, dt_max=1e-1, seed=0)
    system = continuous.discretize("bilinear").astype(dtype)
    example = Example(system, inputs(batch, n_channels, length, dtype), ModeSpec(mode, 3))
    subject = Subject(NUMBA)
    require_exact(subject.outputs(example), subject.enclosure(example), subject.bound(example))


def test_how_it_rounds_depends_on_the_shape_alone():
    def of(**changes):
        shape = {"batch": 2, "n_channels": 4, "n_modes": 32, "length": 4000, "dtype": "float32", **changes}
        return NUMBA.arithmetic_for(Problem(ModeSpec(shape.pop("mode", "s4")), "diagonal", **shape))

    assert of().linear_chunk == 2 * of(dtype="float64").linear_chunk > 0
    assert of(mode="liquid").linear_chunk is None
    assert of(mode="liquid").scaled_states
    assert not of(mode="liquid", dtype="float64").scaled_states
    pieces = of(mode="liquid", batch=1, n_channels=1, n_modes=3, length=16384)
    assert (pieces.scan, pieces.scan_chunk) == ("any", 16384 // 32)
    assert of(length=1) == NUMBA.arithmetic


def test_gradients_of_linear_recurrences_take_chunks():
    def chunk_of(spec, structure="diagonal", dtype="float32", backend=NUMBA, **options):
        problem = Problem(spec, structure, 8, 16, 32, 4096, dtype, gradient=True, **options)
        arithmetic = backend.arithmetic_for(problem)
        assert arithmetic == replace(backend.arithmetic, gradient_chunk=arithmetic.gradient_chunk)
        return arithmetic.gradient_chunk

    adjacent = ModeSpec("kb", 2, correlations="adjacent")
    for spec in (ModeSpec("s4"), ModeSpec("pb", 3), ModeSpec("kb", 1), replace(adjacent, window=8)):
        assert chunk_of(spec) == CHUNKS[0]
        assert chunk_of(spec, dtype="float64") is None
        assert chunk_of(spec, structure="dplr") is None
        assert chunk_of(spec, backend=float64_state()) is None
    # Other recurrences; one for all orders of `kb`, but one for each where states are carried.
    for spec in (ModeSpec("liquid"), ModeSpec("truncated", 3), ModeSpec("kb", 3), adjacent):
        assert chunk_of(spec) is None
    assert chunk_of(adjacent, state=True) == CHUNKS[0]


@pytest.mark.parametrize("structure", ["diagonal", "dplr"])
@pytest.mark.parametrize("power", [1, 3])
@pytest.mark.parametrize("length", [0, 1, 7])
def test_gradients_of_kernels(structure, power, length):
    system = random_system(structure, n_channels=2, n_modes=3)
    grad = np.random.default_rng(0).normal(size=(2, length))
    found = NUMBA.kernel_vjp(system, length, power, grad)
    expected = NUMPY.kernel_vjp(system, length, power, grad)
    for name, gradient in expected.items():
        # A few dozen roundings of numbers of the gradient's size.
        limit = 1e3 * np.finfo(float).eps * max(1.0, float(np.abs(gradient).max(initial=0)))
        assert np.abs(found[name] - gradient).max(initial=0) <= limit


@pytest.mark.parametrize("structure", ["diagonal", "dplr"])
@pytest.mark.parametrize("power", [1, 2, 4])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("real", [(), ("B_bar",), ("C",), ("A_bar", "B_bar", "C")])
def test_gradients_of_kernels_of_one_entry_are_those_of_the_recurrence(structure, power, dtype, real):
    """In every bit, for real and complex parameters, with narrow and wide states."""
    drawn = random_system(structure, n_channels=5, n_modes=3)
    parts = {name: a.real if name in real else a for name, a in drawn.parameters.items()}
    system = type(drawn)(**parts, conjugate_pairs=drawn.conjugate_pairs).astype(dtype)
    grad, impulse = np.random.default_rng(0).normal(size=(5, 1)).astype(dtype), np.ones((1, 5, 1), dtype)
    for backend in (NUMBA, float64_state()) if dtype == "float32" else (NUMBA,):
        found = backend.kernel_vjp(system, 1, power, grad)
        expected = backend.scan_vjp(
            system.with_input_power(power), impulse, None, grad[None], None, liquid=False
        ).parameters
        if power > 1:
            slope = power * system.with_input_power(power - 1).B_bar
            expected["B_bar"] = np.conj(slope) * expected["B_bar"]
            expected["B_bar"] = expected["B_bar"].astype(system.B_bar.dtype)
        assert list(found) == list(system.parameters)
        for name, gradient in expected.items():
            assert (found[name].dtype, found[name].flags.writeable) == (system.parameters[name].dtype, True)
            assert np.array_equal(found[name], gradient), name
    none = NUMBA.kernel_vjp(system, 1, power, None)
    assert not any(gradient.any() for gradient in none.values())


@pytest.mark.parametrize("correlations", ["all", "adjacent"])
def test_pb_in_one_pass_is_the_composition(correlations):
    class Composed(contract.Backend):
        name = "composed"
        capabilities = contract.Capabilities(primitives=NUMBA.capabilities.primitives)

        def __getattr__(self, name):
            return getattr(NUMBA, name)

    system, u = random_system("diagonal", n_channels=3, n_modes=4), inputs(2, 3, 70)
    given = {"mode": "pb", "order": 4, "correlations": correlations, "return_state": True}
    y, state = ls.apply(system, u, backend=NUMBA, **given)
    z, other = ls.apply(system, u, backend=Composed(), **given)
    # Terms are added by one fused operation instead of a product and a sum: at most one unit roundoff of each more.
    size = np.abs(y).max() + np.abs(z).max()
    assert np.abs(y - z).max() <= 16 * np.finfo(float).eps * size
    assert np.array_equal(state.x, other.x)
    assert np.abs(state.sums - other.sums).max() <= 16 * np.finfo(float).eps * np.abs(other.sums).max()


def test_float64_states_are_returned_accepted_and_better():
    wide = float64_state()
    assert wide.name == "numba-wide-state"
    assert wide.capabilities.dtypes == ("float32",)
    continuous = ls.initialize("s4d-lin", n_channels=2, n_state=16, dt_min=1e-4, dt_max=1e-4, seed=0)
    system, u = continuous.discretize("bilinear").astype("float32"), inputs(1, 2, 3000, "float32")
    exact = ls.apply(system.astype("float64"), u.astype("float64"), mode="liquid", backend="numpy")
    y, state = ls.apply(system, u, mode="liquid", backend=wide, return_state=True)
    assert (y.dtype, state.dtype) == (np.float32, np.complex128)
    half, carried = ls.apply(system, u[..., :1500], mode="liquid", backend=wide, return_state=True)
    rest = ls.apply(system, u[..., 1500:], mode="liquid", backend=wide, state=carried)
    assert np.array_equal(np.concatenate([half, rest], axis=-1), y)
    narrow = ls.apply(system, u, mode="liquid", backend=NUMBA)
    assert np.abs(y - exact).max() <= np.finfo(np.float32).eps * np.abs(exact).max()
    assert np.abs(narrow - exact).max() > 2 * np.abs(y - exact).max()


def test_results_share_no_memory_and_arguments_are_left_alone():
    system, u = random_system("diagonal", n_channels=2, n_modes=3), inputs(1, 2, 9)
    state = np.ones((1, 2, 3), complex)
    before = u.copy(), state.copy()
    for length in (0, 1, 9):
        y, final = NUMBA.scan(system, u[..., :length], state, liquid=True)
        assert not np.shares_memory(final, state)
        assert not np.shares_memory(y, u)
        final[...] = 0
    assert np.array_equal(u, before[0])
    assert np.array_equal(state, before[1])


def test_limits_and_compiled_steps_are_measured(monkeypatch):
    from liquid_ssm.backends.compiled import limits

    monkeypatch.setattr(limits, "ROUNDS", 1000)
    monkeypatch.setattr(limits, "COPY_BYTES", 1 << 16)
    found = NumbaBackend(threads=1).limits()
    assert set(found) == {"threads", "fma_float32", "fma_float64", "copy"}
    assert all(value > 0 for value in found.values())
    assert NUMBA.compiled_step_seconds(random_system("diagonal", n_channels=2, n_modes=3), 1, 10) > 0


def test_a_response_is_kept_by_system_and_power_and_handed_out_as_a_copy():
    rng = np.random.default_rng(0)
    arrays = rng.normal(size=(2, 3, 2, 4)) + 1j * rng.normal(size=(2, 3, 2, 4))
    one, other = (DiagonalSystem(*(0.5 * part)) for part in arrays)
    backend = NumbaBackend()
    for power in (1, 2, 3):
        expected = {id(made): 2 * (made.C * made.B_bar**power).real.sum(-1) for made in (one, other)}
        for made in (one, other, one):
            found = backend.kernel(made, 1, power=power)
            # A power of three products and a sum of four terms in float64.
            assert np.abs(found[:, 0] - expected[id(made)]).max() <= 1e-14
            found[:] = np.nan
