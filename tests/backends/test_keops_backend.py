"""The backend `keops` as a whole; its reductions have tests of their own, the property suite holds it to its bounds."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from liquid_ssm import backend as contract
from liquid_ssm.backends.keops_backend import KeOpsBackend
from liquid_ssm.backends.keops_kernels import compiling
from liquid_ssm.backends.numpy_backend import NumPyBackend
from liquid_ssm.errors import BackendRejected, ParameterError, ShapeError
from liquid_ssm.oracle.kernel_error import kernel_error
from liquid_ssm.oracle.kernel_gradients import kernel_gradient_bounds, kernel_gradients
from liquid_ssm.problem import ModeSpec, Problem
from liquid_ssm.rounding_errors import realization_of, rounding_model
from liquid_ssm.systems import DiagonalSystem, DPLRSystem
from liquid_ssm.testing.example import Example
from liquid_ssm.testing.strategies import random_system
from liquid_ssm.testing.subject import Subject, require_exact

pytestmark = pytest.mark.skipif(compiling.find_compiler() is None, reason="no C++ compiler; apt-get install g++")

KEOPS, SINGLE = KeOpsBackend(), KeOpsBackend(kernel_dtype="float32")
STRUCTURES = ("diagonal", "dplr")
FORMS = [
    ModeSpec("s4"),
    ModeSpec("pb", 3),
    ModeSpec("pb", 3, "adjacent", 5),
    ModeSpec("kb", 3, "adjacent"),
    ModeSpec("kb", 3, "adjacent", 5),
]


def problem(structure="diagonal", spec=FORMS[0], dtype="float64", **options):
    return Problem(spec, structure, 1, 2, 3, 8, dtype, **options)


# --- declaration -------------------------------------------------------------------------------------------


def test_looking_at_it_loads_neither_torch_nor_keops(tmp_path):
    code = (
        "import sys; from liquid_ssm.backends.keops_backend import KeOpsBackend as B; "
        "from liquid_ssm.problem import ModeSpec, Problem; "
        "r = B(device='cpu').reject(Problem(ModeSpec('s4'), 'diagonal', 1, 1, 1, 1, 'float64')); "
        "print(r, 'torch' in sys.modules, 'pykeops' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None False False"


def test_what_it_declares_it_has():
    for primitive in KEOPS.capabilities.primitives:
        assert callable(getattr(KEOPS, primitive))
        assert callable(getattr(KEOPS, f"{primitive}_vjp"))


def test_without_keops_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(contract, "_installed", set())
    monkeypatch.setattr(contract, "find_spec", lambda name: None)
    reason = KEOPS.reject(problem())
    assert reason.reason == "package"
    assert "pykeops" in reason.needed
    assert "pip install 'liquid-ssm[keops]'" in reason.hint


def test_without_a_compiler_it_names_the_package(monkeypatch):
    monkeypatch.setattr(compiling, "find_compiler", lambda: None)
    reason = KEOPS.reject(problem())
    assert str(reason) == (
        "keops: package: needs a C++ compiler (g++ or clang++), got none found; run: apt-get install g++ (or set CXX)"
    )


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (problem("dense"), "primitive"),
        (problem("mimo"), "primitive"),
        (problem(spec=ModeSpec("liquid")), "primitive"),
        (problem(spec=ModeSpec("truncated", 2)), "primitive"),
        (problem(spec=ModeSpec("kb", 3)), "primitive"),
        (problem(state=True), "primitive"),
        (problem(dtype="float16"), "dtype"),
        (problem(device="mps", arrays="torch"), "device"),
    ],
)
def test_every_other_problem_is_rejected_with_its_reason(asked, reason):
    assert KEOPS.reject(asked).reason == reason


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("spec", FORMS, ids=lambda spec: spec.label)
@pytest.mark.parametrize("arrays", ["numpy", "torch"])
def test_it_takes_what_kernels_and_convolutions_make(structure, spec, arrays):
    refused = KEOPS.reject(problem(structure, spec, arrays=arrays, gradient=True))
    if (structure, arrays) == ("dplr", "numpy"):
        # `vjp` of arrays promises a bound, and none is derived for these.
        assert refused.reason == "gradient"
        refused = KEOPS.reject(problem(structure, spec, arrays=arrays))
    assert refused is None


def test_unknown_options_are_errors():
    with pytest.raises(ParameterError, match="unknown device 'gpu'"):
        KeOpsBackend(device="gpu")
    with pytest.raises(ParameterError, match="unknown kernel_dtype 'float16'"):
        KeOpsBackend(kernel_dtype="float16")


def test_numpy_arrays_go_where_they_are_told_to():
    assert KeOpsBackend().numpy_device == KeOpsBackend(device="cpu").numpy_device == "cpu"
    assert KeOpsBackend(device="cuda").numpy_device == "cuda"


# --- values ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("spec", FORMS, ids=lambda spec: spec.label)
def test_every_mode_is_within_its_bound_of_the_exact_value(structure, dtype, spec):
    system = random_system(structure, n_channels=2, n_modes=3, seed=1).astype(dtype)
    u = np.random.default_rng(2).normal(size=(2, 2, 30)).astype(dtype)
    example, subject = Example(system, u, spec), Subject(KEOPS)
    require_exact(subject.outputs(example), subject.enclosure(example), subject.bound(example))


def exact_kernel(system, length, power):
    A, B, C = (v.astype(np.clongdouble) for v in realization_of(system).full_matrices())
    x, entries = B**power, []
    for _ in range(length):
        entries.append((C * x).sum(axis=1).real)
        x = (A @ x[..., None])[..., 0]
    return np.stack(entries, axis=-1)


@pytest.mark.parametrize("backend", [KEOPS, SINGLE], ids=["float64 inside", "float32 inside"])
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("power", [1, 3])
def test_float32_kernels_are_within_the_bound_of_what_is_declared(backend, structure, power):
    system = random_system(structure, n_channels=2, n_modes=3, seed=3, decay=0.01).astype("float32")
    found = backend.kernel(system, 500, power)
    model = rounding_model(backend, problem(structure, dtype="float32"))
    bound = np.linalg.norm(kernel_error(realization_of(system), 500, power, model), axis=1)
    assert found.dtype == np.float32
    error = np.linalg.norm((found - exact_kernel(system, 500, power)).astype(float), axis=1)
    assert (error <= bound).all()


@pytest.mark.parametrize("backend", [KEOPS, SINGLE], ids=["float64 inside", "float32 inside"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("power", [1, 3])
def test_gradients_of_diagonal_kernels_are_within_their_bound(backend, dtype, power):
    system = random_system("diagonal", n_channels=2, n_modes=3, seed=4).astype(dtype)
    grad = np.random.default_rng(5).normal(size=(2, 100)).astype(dtype)
    found = backend.kernel_vjp(system, 100, power, grad)
    model = rounding_model(backend, problem(dtype=dtype, gradient=True))
    exact = kernel_gradients(realization_of(system), grad, power)
    bounds = kernel_gradient_bounds(realization_of(system), grad, power, model)
    for name, key in [("A_bar", "A"), ("B_bar", "B"), ("C", "C")]:
        assert found[name].dtype == system.parameters[name].dtype
        assert (np.abs(found[name] - exact[key]) <= bounds[key]).all(), name


def test_float32_inside_is_what_it_says():
    system = random_system("diagonal", n_channels=1, n_modes=2, seed=6, decay=0.0).astype("float32")
    wide, single = KEOPS.kernel(system, 2000), SINGLE.kernel(system, 2000)
    assert np.abs(wide - single).max() > 2.0**-22 * np.abs(wide).max()
    assert SINGLE.arithmetic.kernel_dtype is None
    assert SINGLE.arithmetic_for(problem("dplr")).kernel_dtype == "float64"


@pytest.mark.parametrize("structure", STRUCTURES)
def test_real_parameters_have_real_gradients(structure):
    real = {"A_bar": np.array([[0.5, -0.25]]), "B_bar": np.array([[1.0, 0.0]]), "C": np.array([[1.0, 2.0]])}
    if structure == "dplr":
        low_rank = np.array([[[0.1, 0.2]]])
        system = DPLRSystem(real["A_bar"], low_rank, low_rank, real["B_bar"], real["C"], conjugate_pairs=False)
    else:
        system = DiagonalSystem(**real, conjugate_pairs=False)
    found = KEOPS.kernel_vjp(system, 6, 2, np.ones((1, 6)))
    other = NumPyBackend().kernel_vjp(system, 6, 2, np.ones((1, 6)))
    for name, gradient in found.items():
        assert gradient.dtype == np.float64
        # small dyadic numbers: the other backend's sums are exact but for some roundings
        assert np.abs(gradient - other[name]).max() <= 2.0**-45


@pytest.mark.parametrize("structure", STRUCTURES)
def test_no_cotangent_is_no_gradient(structure):
    system = random_system(structure)
    found = KEOPS.kernel_vjp(system, 4, 1, None)
    assert {name: g.shape for name, g in found.items()} == {n: p.shape for n, p in system.parameters.items()}
    assert not any(gradient.any() for gradient in found.values())


def test_a_cotangent_of_another_shape_is_an_error():
    with pytest.raises(ShapeError, match=r"grad has shape \(2, 5\); it must be \(2, 4\)"):
        KEOPS.kernel_vjp(random_system("diagonal"), 4, 1, np.ones((2, 5)))


def test_other_structures_are_refused():
    with pytest.raises(BackendRejected, match="keops: structure: needs diagonal or dplr for kernel, got dense"):
        KEOPS.kernel(random_system("dense"), 4)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_nothing_is_written_to_and_results_own_their_memory(structure):
    system = random_system(structure).to_torch()
    before = {name: tensor.clone() for name, tensor in system.parameters.items()}
    grad = torch.ones(2, 5, dtype=torch.float64)
    results = [KEOPS.kernel(system, 5, 1), *KEOPS.kernel_vjp(system, 5, 1, grad).values()]
    given = {t.untyped_storage().data_ptr() for t in (*system.parameters.values(), grad)}
    assert all(r.untyped_storage().data_ptr() not in given and r.is_contiguous() for r in results)
    for result in results:
        result.fill_(7)
    assert all(torch.equal(tensor, before[name]) for name, tensor in system.parameters.items())
    assert torch.equal(grad, torch.ones_like(grad))


# --- tensors -----------------------------------------------------------------------------------------------


def leaves_of(system):
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in system.to_torch().parameters.items()}
    return leaves, type(system)(**leaves, conjugate_pairs=system.conjugate_pairs)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("backend", [KEOPS, SINGLE], ids=["float64 inside", "float32 inside"])
def test_gradients_flow_to_tensors(structure, backend):
    system = random_system(structure, seed=7).astype("float32")
    leaves, live = leaves_of(system)
    grad = torch.randn((2, 9), generator=torch.Generator().manual_seed(0))
    found = torch.autograd.grad(backend.kernel(live, 9, 2), list(leaves.values()), grad)
    expected = backend.kernel_vjp(system.to_torch(), 9, 2, grad)
    assert all(torch.equal(gradient, expected[name]) for name, gradient in zip(leaves, found, strict=True))


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("pairs", [True, False])
def test_gradcheck_passes(structure, pairs):
    system = random_system(structure, n_modes=2, seed=8, conjugate_pairs=pairs)
    leaves, _ = leaves_of(system)

    def kernel(*tensors):
        return KEOPS.kernel(type(system)(**dict(zip(leaves, tensors, strict=True)), conjugate_pairs=pairs), 6, 2)

    assert torch.autograd.gradcheck(kernel, tuple(leaves.values()))


@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_compiler_gets_the_same_values_and_gradients(structure):
    system = random_system(structure, seed=9)
    leaves, _ = leaves_of(system)
    u = torch.randn((1, 2, 12), dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()

    def output(u, *tensors):
        live = type(system)(**dict(zip(leaves, tensors, strict=True)))
        return KEOPS.convolve(KEOPS.kernel(live, 12), u)

    y = output(u, *leaves.values())
    traced = torch.compile(output, fullgraph=True, backend="aot_eager")(u, *leaves.values())
    assert torch.equal(traced, y)
    wanted = [u, *leaves.values()]
    both = (torch.autograd.grad(result.square().sum(), wanted) for result in (traced, y))
    assert all(torch.equal(a, b) for a, b in zip(*both, strict=True))


@pytest.mark.parametrize("structure", STRUCTURES)
def test_tensors_that_are_marked_as_conjugated_are_read_as_such_by_compiled_code(structure):
    parameters = random_system(structure, seed=10).to_torch().parameters
    system = random_system(structure, seed=10)
    expected = KEOPS.kernel(type(system)(**{name: tensor.conj_physical() for name, tensor in parameters.items()}), 7)

    def kernel(*tensors):
        return KEOPS.kernel(type(system)(**dict(zip(parameters, tensors, strict=True))), 7)

    marked = [tensor.conj() for tensor in parameters.values()]
    assert torch.equal(torch.compile(kernel, fullgraph=True, backend="aot_eager")(*marked), expected)
    assert torch.equal(kernel(*marked), expected)


# --- memory ------------------------------------------------------------------------------------------------

MEASURE = """
import resource, sys, torch
from liquid_ssm.backends.keops_backend import KeOpsBackend
from liquid_ssm.testing.strategies import discretized_system
structure, adjoint, n_channels, length = sys.argv[1], sys.argv[2] == "adjoint", int(sys.argv[3]), 2**18
system = discretized_system(structure, n_channels=n_channels, n_modes=32, dt=1e-3).to_torch()
backend = KeOpsBackend()
def peak():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
def call(length):
    grad = torch.ones((n_channels, length), dtype=torch.float64)
    backend.kernel_vjp(system, length, 1, grad) if adjoint else backend.kernel(system, length)
call(256)
before = peak()
call(length)
print((peak() - before) / (n_channels * length))
"""


@pytest.mark.parametrize(
    ("structure", "what", "n_channels", "numbers"),
    # Numbers of 8 bytes per step and channel that are alive at once: signals; for dplr, whose sums are (1 + R)² complex
    # numbers for every second step, half a dozen of those, in the adjoint a dozen more.
    [
        ("diagonal", "kernel", 1, 8),
        ("diagonal", "kernel", 4, 8),
        ("diagonal", "adjoint", 1, 8),
        ("diagonal", "adjoint", 4, 8),
        ("dplr", "kernel", 1, 24),
        ("dplr", "adjoint", 1, 50),
    ],
)
def test_memory_grows_with_the_length_and_not_with_modes_times_length(tmp_path, structure, what, n_channels, numbers):
    command = [sys.executable, "-c", MEASURE, structure, what, str(n_channels)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    bytes_per_step = float(done.stdout)
    # The complex matrix of 32 modes and all steps alone has 64 numbers per step (134 MB per channel).
    assert bytes_per_step <= 8 * numbers < 8 * 64
