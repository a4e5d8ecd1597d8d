"""The backend `triton` as a whole; its kernels have tests of their own, the property suite holds it to its bounds.

On a machine with a CUDA GPU these tests run there, elsewhere in Triton's interpreter; the last ones need a GPU.
"""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

import liquid_ssm as ls
from liquid_ssm import backend as contract
from liquid_ssm.backends import triton_backend
from liquid_ssm.backends.numpy_backend import NumPyBackend
from liquid_ssm.backends.triton_backend import TritonBackend
from liquid_ssm.backends.triton_kernels import devices
from liquid_ssm.errors import BackendRejected, DTypeError, ParameterError, ShapeError
from liquid_ssm.problem import ModeSpec, Problem
from liquid_ssm.testing.example import Example
from liquid_ssm.testing.strategies import FORMS, random_system
from liquid_ssm.testing.subject import Subject, require_equal, require_exact
from liquid_ssm.testing.suite import checks, run

pytest.importorskip("triton", reason="Triton is there for Linux only")

GPU = devices.has_gpu()

TRITON, NUMPY = TritonBackend(), NumPyBackend()
DEVICE = "cuda" if GPU else "cpu"
SPECS = [
    ModeSpec(form.partition("-")[0], 3, "adjacent" if "adjacent" in form else "all", 5 if "window" in form else None)
    for form in FORMS
]
# Those whose examples are few and small; lengths are tried by the tests of the kernels.
PROPERTIES = ("within-bound", "initial-state", "pieces", "steps", "causality", "gradients", "gradients-of-states")
on_gpu = pytest.mark.skipif(not GPU, reason="needs a CUDA GPU; interpreted, these shapes take hours")


def options(spec):
    return {"mode": spec.mode, "order": spec.order, "correlations": spec.correlations, "window": spec.window}


def inputs(batch, n_channels, length, dtype="float64", seed=0):
    return np.random.default_rng(seed).normal(size=(batch, n_channels, length)).astype(dtype)


def problem(**changes):
    shape = {"batch": 1, "n_channels": 1, "n_modes": 1, "length": 1, "dtype": "float64", **changes}
    return Problem(ModeSpec(shape.pop("mode", "liquid")), shape.pop("structure", "diagonal"), **shape)


# --- declaration -------------------------------------------------------------------------------------------


def test_looking_at_it_loads_neither_triton_nor_torch(tmp_path):
    code = (
        "import sys, liquid_ssm as ls; from liquid_ssm.registry import get_backend; "
        "from liquid_ssm.problem import ModeSpec, Problem; b = get_backend('triton'); "
        "b.reject(Problem(ModeSpec('liquid'), 'diagonal', 1, 1, 1, 1, 'float64')); "
        "print('triton' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False False"


def test_what_it_declares_it_has():
    for primitive in TRITON.capabilities.primitives:
        assert callable(getattr(TRITON, primitive))
        assert callable(getattr(TRITON, f"{primitive}_vjp"))
    for form in TRITON.capabilities.fused:
        assert form in contract.FUSED
        assert callable(getattr(TRITON, form))


def test_without_its_packages_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(contract, "_installed", set())
    monkeypatch.setattr(contract, "find_spec", lambda name: None)
    found = TRITON.reject(problem())
    assert found is not None
    assert found.reason == "package"
    assert "pip install 'liquid-ssm[triton]'" in str(found)


@pytest.mark.parametrize(
    ("package", "installed", "interpreted", "needed"),
    [
        ("triton", (3, 2, 0), False, "triton >= 3.3"),
        ("triton", (3, 8, 0), True, "triton >= 3.9"),
        ("torch", (2, 3, 1), False, "torch >= 2.4"),
    ],
)
def test_old_packages_are_refused(monkeypatch, package, installed, interpreted, needed):
    monkeypatch.setattr(triton_backend, "interpreting", lambda: interpreted)
    monkeypatch.setattr(triton_backend, "version", lambda name: installed if name == package else (99, 0))
    found = TRITON.reject(problem())
    assert found is not None
    assert (found.reason, found.needed) == ("package", needed)
    assert found.hint == f"run: pip install --upgrade {package}"


def test_without_a_gpu_it_names_the_interpreter(monkeypatch):
    monkeypatch.setattr(triton_backend, "interpreting", lambda: False)
    monkeypatch.setattr(triton_backend, "has_gpu", lambda: False)
    found = TRITON.reject(problem())
    assert found is not None
    assert (found.reason, found.needed) == ("device", "a CUDA GPU, or the interpreter")
    assert "TRITON_INTERPRET=1" in found.hint


def test_tensors_on_the_cpu_of_a_machine_with_a_gpu_are_to_be_moved(monkeypatch):
    monkeypatch.setattr(triton_backend, "interpreting", lambda: False)
    monkeypatch.setattr(triton_backend, "has_gpu", lambda: True)
    found = TRITON.reject(problem(arrays="torch"))
    assert found is not None
    assert found.reason == "device"
    assert ".to('cuda')" in found.hint
    assert TRITON.reject(problem(arrays="torch", device="cuda")) is None
    # NumPy arrays are moved by the backend.
    assert TRITON.reject(problem()) is None


@pytest.mark.skipif(GPU, reason="here tensors on the CPU are refused")
def test_tensors_that_no_kernel_can_reach_are_an_error(monkeypatch):
    monkeypatch.setattr(triton_backend, "interpreting", lambda: False)
    with pytest.raises(ParameterError, match=r"\.to\('cuda'\), or set TRITON_INTERPRET=1"):
        TRITON.scan(random_system("diagonal").to_torch(), torch.zeros(1, 2, 3, dtype=torch.float64), liquid=True)


@pytest.mark.parametrize("interval", [0, -1, 3, 96])
def test_intervals_are_powers_of_two(interval):
    with pytest.raises(ParameterError, match="interval is"):
        TritonBackend(interval=interval)


def test_structures_it_does_not_have_are_refused():
    for structure in ("dense", "mimo"):
        with pytest.raises(BackendRejected, match="needs diagonal or dplr"):
            TRITON.scan(random_system(structure), inputs(1, 2, 3), liquid=True)
        assert TRITON.reject(problem(structure=structure)) is not None


def test_arguments_that_do_not_fit_are_refused():
    system, u = random_system("diagonal"), inputs(1, 2, 3)
    with pytest.raises(ParameterError, match="a window needs kind 'chain'"):
        TRITON.cascade(system, u, order=2, kind="truncated", window=3)
    with pytest.raises(ParameterError, match="unknown cascade kind"):
        TRITON.cascade(system, u, order=2, kind="chains")
    with pytest.raises(ParameterError, match="no states; pass None"):
        TRITON.cascade_vjp(system, u, None, u, np.zeros((1, 2, 2, 3), complex), order=2, kind="chain", window=3)
    with pytest.raises(ShapeError, match="state has shape"):
        TRITON.scan(system, u, np.zeros((1, 2), complex), liquid=True)
    with pytest.raises(DTypeError, match=r"u has dtype torch\.int64"):
        TRITON.scan(system, np.ones((1, 2, 3), int), liquid=True)


@pytest.mark.parametrize("y", [np.zeros((1, 2, 4)), np.zeros((1, 2, 3), "float32"), np.zeros((1, 2, 6))[..., ::2]])
def test_what_is_written_to_must_fit(y):
    with pytest.raises(ParameterError, match="contiguous"):
        TRITON.add_correlations(y, inputs(1, 2, 3), np.ones((1, 2)), order=2, kind="running")


def test_how_it_rounds_depends_on_the_shape_alone():
    pieces = TRITON.arithmetic_for(problem(n_modes=3, length=4096))
    assert (pieces.scan, pieces.scan_chunk) == ("any", 256)
    assert TRITON.arithmetic_for(problem(n_modes=3, length=4096, gradient=True)) == TRITON.arithmetic
    assert TRITON.arithmetic_for(problem(n_modes=3, length=4096, structure="dplr")) == TRITON.arithmetic
    assert TRITON.arithmetic_for(problem(n_modes=3, length=4096, mode="truncated")) == TRITON.arithmetic
    # Over all index tuples `kb` of a diagonal system is computed as `truncated`.
    assert TRITON.arithmetic_for(problem(n_modes=3, length=4096, mode="kb")) == TRITON.arithmetic
    assert TRITON.arithmetic_for(problem(batch=512, n_modes=32, length=4096)) == TRITON.arithmetic


# --- results -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", [c for c in checks(TRITON) if c.property in PROPERTIES], ids=str)
def test_property(check):
    run(check, Subject(TRITON), max_examples=1)


@pytest.mark.parametrize("structure", ["diagonal", "dplr"])
@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.label)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_it_agrees_with_numpy_within_the_sum_of_the_bounds(structure, spec, dtype):
    system = random_system(structure, n_channels=3, n_modes=5, seed=1).astype(dtype)
    example = Example(system, inputs(2, 3, 20, dtype), spec)
    ours, theirs = Subject(TRITON), Subject(NUMPY)
    bounds = [ours.bound(example), theirs.bound(example)]
    require_equal(ours.outputs(example), theirs.outputs(example), bounds, "triton", "numpy")


@pytest.mark.parametrize("mode", ["liquid", "s4"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_scans_in_pieces_are_within_their_bounds(mode, dtype):
    continuous = ls.initialize("s4d-lin", n_channels=1, n_state=4, dt_min=1e-3, dt_max=1e-1, seed=0)
    system = continuous.discretize("bilinear").astype(dtype)
    example = Example(system, inputs(1, 1, 2050, dtype), ModeSpec(mode))
    assert TRITON.arithmetic_for(problem(mode=mode, n_modes=2, length=2050)).scan_chunk == 256
    subject = Subject(TRITON)
    require_exact(subject.outputs(example), subject.enclosure(example), subject.bound(example))


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.label)
def test_gradients_of_tensors_are_those_of_arrays(spec):
    system, u = random_system("diagonal", n_channels=2, n_modes=3), inputs(2, 2, 7)
    expected = ls.vjp(system, u, u, backend=NUMPY, **options(spec))
    tensor = torch.tensor(u, device=DEVICE, requires_grad=True)
    leaves = {n: torch.tensor(p, device=DEVICE, requires_grad=True) for n, p in system.parameters.items()}
    y = ls.apply(type(system)(**leaves), tensor, backend=TRITON, **options(spec))
    y.backward(tensor.detach())
    for name, gradient in [("u", tensor.grad), *((n, leaf.grad) for n, leaf in leaves.items())]:
        wanted = expected.u if name == "u" else expected.parameters[name]
        error = np.abs(gradient.cpu().numpy() - wanted).max()
        # Sums of some hundred terms, each of which passes some ten roundings in either backend.
        assert error <= 2000 * 2.0**-52 * np.abs(wanted).max(), name


@pytest.mark.parametrize("interval", [1, 8])
def test_an_interval_changes_no_gradient_but_by_rounding(interval):
    system, u = random_system("diagonal"), inputs(1, 2, 19)
    usual = TRITON.scan_vjp(system, u, None, u, None, liquid=True)
    found = TritonBackend(interval=interval).scan_vjp(system, u, None, u, None, liquid=True)
    np.testing.assert_allclose(found.u, usual.u, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.parameters["A_bar"], usual.parameters["A_bar"], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("structure", ["diagonal", "dplr"])
@pytest.mark.parametrize("power", [1, 3])
def test_kernels_are_answers_to_impulses(structure, power):
    system = random_system(structure, n_channels=3, n_modes=4, seed=2)
    found = TRITON.kernel(system, 33, power)
    expected = NUMPY.kernel(system, 33, power)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    gradients = TRITON.kernel_vjp(system, 33, power, expected)
    for name, gradient in NUMPY.kernel_vjp(system, 33, power, expected).items():
        np.testing.assert_allclose(gradients[name], gradient, rtol=0, atol=1e-12 * np.abs(gradient).max())


def test_a_state_of_an_array_comes_back_as_one():
    system, u = random_system("diagonal"), inputs(2, 2, 9)
    y, state = TRITON.scan(system, u, liquid=True)
    assert (type(y), type(state), state.dtype) == (np.ndarray, np.ndarray, np.complex128)
    half, middle = TRITON.scan(system, u[..., :4], liquid=True)
    rest, final = TRITON.scan(system, u[..., 4:], middle, liquid=True)
    np.testing.assert_allclose(np.concatenate([half, rest], -1), y, rtol=1e-12)
    np.testing.assert_allclose(final, state, rtol=1e-12)


# --- at full shapes, on a GPU ------------------------------------------------------------------------------


@on_gpu
@pytest.mark.parametrize("spec", [s for s in SPECS if s.window is None], ids=lambda s: s.label)
@pytest.mark.parametrize("structure", ["diagonal", "dplr"])
def test_gpu_and_cpu_agree_at_full_shapes(structure, spec):
    system = random_system(structure, n_channels=128, n_modes=32, decay=0.1, drive=0.05).astype("float32")
    example = Example(system, inputs(4, 128, 4096, "float32"), spec)
    ours, theirs = Subject(TRITON), Subject(NUMPY)
    # One channel has the bound of all: it is evaluated for a few.
    some = Example(system.take([0, 77]), example.u[:, [0, 77]], spec)
    bounds = [ours.bound(some), theirs.bound(some)]
    require_equal(ours.outputs(example)[:, [0, 77]], theirs.outputs(some), bounds, "the GPU", "numpy")


@on_gpu
@pytest.mark.parametrize("spec", [s for s in SPECS if s.window is None], ids=lambda s: s.label)
def test_gradients_at_full_shapes_agree_with_float64(spec):
    system = random_system("diagonal", n_channels=128, n_modes=32, decay=0.1, drive=0.05).astype("float32")
    u = inputs(4, 128, 4096, "float32")
    found = ls.vjp(system, u, u, backend=TRITON, **options(spec))
    exact = ls.vjp(system.astype("float64"), u.astype("float64"), u.astype("float64"), backend=TRITON, **options(spec))
    for name, gradient in [("u", found.u), *found.parameters.items()]:
        wanted = exact.u if name == "u" else exact.parameters[name]
        # 16,384 additions in float32 at most, whose errors cancel only in part.
        assert np.abs(gradient - wanted).max() <= 16384 * 2.0**-24 * np.abs(wanted).max(), name


@on_gpu
@pytest.mark.parametrize(("mode", "order"), [("liquid", 1), ("truncated", 3)])
def test_tuned_configurations_give_the_same_at_full_shapes(mode, order):
    system = random_system("diagonal", n_channels=128, n_modes=32, decay=0.1, drive=0.05).astype("float32")
    example = Example(system, inputs(4, 128, 4096, "float32"), ModeSpec(mode, order))
    usual, tuned = Subject(TRITON), Subject(TritonBackend(tune=True))
    some = Example(system.take([0]), example.u[:, [0]], example.spec)
    found = tuned.outputs(example)[:, [0]]
    require_equal(found, usual.outputs(example)[:, [0]], [usual.bound(some)] * 2, "tuned", "usual")
