"""The backend `torch` as a whole; its parts have tests of their own, the property suite holds it to its bounds."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from liquid_ssm import backend as contract
from liquid_ssm.backends import torch_backend
from liquid_ssm.backends.torch_backend import TorchBackend, split_real
from liquid_ssm.errors import BackendRejected, DTypeError, ParameterError, ShapeError
from liquid_ssm.modes import scalar_inputs_only
from liquid_ssm.problem import ModeSpec, Problem
from liquid_ssm.systems import DenseSystem, DPLRSystem
from liquid_ssm.testing.example import Example
from liquid_ssm.testing.strategies import FORMS, random_system
from liquid_ssm.testing.subject import Subject, require_exact

BACKENDS = {"torch": TorchBackend(), "torch-split-real": split_real()}
SPECS = [
    ModeSpec(form.partition("-")[0], 3, "adjacent" if "adjacent" in form else "all", 5 if "window" in form else None)
    for form in FORMS
]


@pytest.fixture(params=BACKENDS)
def backend(request):
    return BACKENDS[request.param]


def inputs(batch, n_channels, length, dtype="float32", seed=0):
    return np.random.default_rng(seed).normal(size=(batch, n_channels, length)).astype(dtype)


def problem(mode="liquid", structure="diagonal", length=300, dtype="float32", device="cpu", **options):
    return Problem(ModeSpec(mode), structure, 1, 2, 3, length, dtype, device, **options)


# --- declaration -------------------------------------------------------------------------------------------


def test_looking_at_it_loads_no_torch(tmp_path):
    code = (
        "import sys, liquid_ssm.backends.torch_backend as m; from liquid_ssm.problem import ModeSpec, Problem; "
        "p = Problem(ModeSpec('kb'), 'diagonal', 1, 1, 1, 9, 'float32', arrays='torch'); "
        "print(m.TorchBackend().reject(p), m.split_real().reject(p), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None None False"


def test_what_it_declares_it_has(backend):
    for primitive in backend.capabilities.primitives:
        assert callable(getattr(backend, primitive))
        assert callable(getattr(backend, f"{primitive}_vjp"))


def test_the_two_variants_have_names_and_linear_methods_of_their_own():
    assert (BACKENDS["torch"].name, BACKENDS["torch"].linear_method) == ("torch", "convolution")
    assert (split_real().name, split_real().linear_method) == ("torch-split-real", "recurrence")
    assert TorchBackend.name == "torch"


def test_without_torch_it_says_what_to_install(backend, monkeypatch):
    monkeypatch.setattr(contract, "_installed", set())
    monkeypatch.setattr(contract, "find_spec", lambda name: None)
    found = backend.reject(problem())
    assert found is not None
    assert found.reason == "package"
    assert "pip install 'liquid-ssm[torch]'" in str(found)


@pytest.mark.parametrize(
    ("version", "old"), [("1.13.1", True), ("2.3.1+cu118", True), ("2.4.0", False), ("10.0", False)]
)
def test_a_torch_that_is_too_old_is_refused_by_its_version(backend, monkeypatch, version, old):
    monkeypatch.setattr(torch_backend.metadata, "version", lambda name: version)
    torch_backend._version.cache_clear()
    found = backend.reject(problem())
    torch_backend._version.cache_clear()
    assert (found is not None) == old
    if found is not None:
        assert (found.reason, found.needed, found.given) == ("package", "torch >= 2.4", version)
        assert found.hint == "run: pip install --upgrade torch"


def test_devices_of_any_name_are_taken_and_half_precision_is_not(backend):
    assert backend.reject(problem(device="cuda", arrays="torch")) is None
    assert backend.reject(problem(dtype="bfloat16")).reason == "dtype"


@pytest.mark.parametrize("mode", ["kb", "pb"])
def test_modes_that_need_kernels_of_dense_systems_are_taken_without_transforms_only(mode):
    windowed = Problem(ModeSpec(mode, 3, "adjacent", 5), "dense", 1, 2, 3, 9, "float32")
    assert BACKENDS["torch"].reject(windowed).reason == "structure"
    assert BACKENDS["torch-split-real"].reject(windowed) is None


# --- how it rounds -----------------------------------------------------------------------------------------


def test_scans_of_few_rows_are_declared_to_run_in_pieces(backend):
    assert backend.arithmetic_for(problem("liquid")).scan_chunk == 12
    assert backend.arithmetic_for(problem("liquid", "mimo")).scan_chunk == 12
    assert backend.arithmetic_for(problem("s4", "mimo")).scan_chunk == 12
    for other in (problem("liquid", "dplr"), problem("truncated"), problem("kb"), problem("liquid", length=127)):
        assert backend.arithmetic_for(other).scan == "sequential"
    many_rows = Problem(ModeSpec("liquid"), "diagonal", 64, 64, 4, 300, "float32")
    assert backend.arithmetic_for(many_rows).scan == "sequential"


def test_linear_scans_of_diagonal_systems_are_declared_to_run_in_chunks(backend):
    declared = backend.arithmetic_for(problem("s4", length=2000))
    assert declared.linear_chunk is not None
    assert declared.scan == "sequential"
    assert backend.arithmetic_for(problem("s4", "dplr", length=2000)).linear_chunk is None
    assert backend.arithmetic_for(problem("s4", length=2000, gradient=True)).linear_chunk is None


def test_flags_that_let_matrix_products_round_are_declared_where_there_are_such_products(backend):
    linear, liquid = problem("s4", length=2000), problem("liquid", length=2000)
    assert backend.arithmetic_for(linear).factor_dtype is None
    try:
        for precision, factor in (("high", "tf32"), ("medium", "bfloat16")):
            torch.set_float32_matmul_precision(precision)
            assert backend.arithmetic_for(linear).factor_dtype == factor
            assert backend.arithmetic_for(liquid).factor_dtype is None
            assert backend.arithmetic_for(problem("s4", length=2000, dtype="float64")).factor_dtype is None
    finally:
        torch.set_float32_matmul_precision("highest")


def test_kernels_of_dplr_systems_are_recurrences_only_without_complex_numbers():
    pb = problem("pb", "dplr")
    assert BACKENDS["torch"].arithmetic_for(pb).kernels == "tables"
    assert BACKENDS["torch-split-real"].arithmetic_for(pb).kernels == "recurrence"


def test_running_sums_are_in_the_order_of_time_only_on_a_cpu(backend):
    assert backend.arithmetic_for(problem("pb")).correlations == "sequential"
    assert backend.arithmetic_for(problem("pb", device="cuda")).correlations == "sums"


# --- results -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.label)
@pytest.mark.parametrize("structure", ["diagonal", "dplr", "dense", "mimo"])
def test_every_mode_is_within_its_bound_of_the_exact_value(backend, structure, spec):
    system = random_system(structure, n_channels=1, n_modes=2, seed=5).astype("float32")
    example = Example(system, inputs(1, 1, 40), spec)
    subject = Subject(backend)
    if structure == "mimo" and scalar_inputs_only(spec):
        return
    if subject.accepts(example):
        require_exact(subject.outputs(example), subject.enclosure(example), subject.bound(example))


@pytest.mark.parametrize("structure", ["dplr", "dense"])
def test_powers_of_an_impulse_are_rounded_as_declared(structure):
    """C B̄² is small beside its terms, and so the error of B̄² large beside it."""
    B, C = np.array([[1.1, 1.3]], "float32"), np.array([[1.69, -1.21]], "float32")
    zero = np.zeros((1, 2, 2), "float32")
    system = DPLRSystem(zero[0, :1], zero[:, :1], zero[:, :1], B, C, conjugate_pairs=False)
    if structure == "dense":
        system = DenseSystem(zero, B, C)
    u = np.array([[[1000.0, 1.7]]], "float32")
    example, subject = Example(system, u, ModeSpec("pb", 2, "adjacent")), Subject(BACKENDS["torch-split-real"])
    require_exact(subject.outputs(example), subject.enclosure(example), subject.bound(example))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("mode", "structure"), [("liquid", "diagonal"), ("liquid", "mimo"), ("s4", "mimo")])
def test_scans_in_pieces_are_within_their_bound_of_the_exact_value(backend, mode, structure, dtype):
    system = random_system(structure, n_channels=1, n_modes=2, seed=6, decay=0.01).astype(dtype)
    example = Example(system, inputs(1, 1, 135, dtype), ModeSpec(mode))
    subject = Subject(backend)
    assert backend.arithmetic_for(subject._problem(example)).scan == "any"
    require_exact(subject.outputs(example), subject.enclosure(example), subject.bound(example))


@pytest.mark.parametrize("structure", ["diagonal", "dplr", "dense", "mimo"])
def test_tensors_and_arrays_give_the_same(backend, structure):
    system, u = random_system(structure).astype("float32"), inputs(2, 2, 20)
    y, final = backend.scan(system, u, liquid=True)
    z, last = backend.scan(system.to_torch(), torch.from_numpy(u), liquid=True)
    assert isinstance(z, torch.Tensor)
    np.testing.assert_array_equal(y, z)
    np.testing.assert_array_equal(final, last)


def layouts(u):
    yield "a slice", torch.repeat_interleave(u, 2, -1)[..., ::2]
    yield "time first", u.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    yield "a lazy negative", torch._neg_view(-u)


@pytest.mark.parametrize("structure", ["diagonal", "dplr", "dense", "mimo"])
def test_the_layout_of_tensors_does_not_matter_and_none_is_written_to(backend, structure):
    system = random_system(structure).astype("float32").to_torch()
    u = torch.from_numpy(inputs(2, 2, 9))
    expanded = u[:1, :, :1].expand(2, 2, 9)
    pairs = [(expanded, expanded.contiguous())] + [(v, u) for _, v in layouts(u)]
    for v, plain in pairs:
        before = v.clone()
        for call in (
            lambda x: backend.scan(system, x, liquid=True),
            lambda x: backend.cascade(system, x, order=2, kind="truncated"),
            lambda x: backend.scan_vjp(system, x, None, x, None, liquid=True)[1:],
        ):
            for a, b in zip(call(v), call(plain), strict=True):
                torch.testing.assert_close(a, b, rtol=0, atol=0)
        assert torch.equal(v, before)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing(backend, half):
    system, u = random_system("diagonal").astype("float32").to_torch(), torch.from_numpy(inputs(2, 2, 70))

    def everything():
        kernel = backend.kernel(system, 40)
        yield kernel
        yield backend.convolve(kernel, u)
        yield from backend.scan(system, u, liquid=True)
        yield from backend.scan(system, u, liquid=False)
        yield from backend.cascade(system, u, order=2, kind="truncated")
        yield from backend.correlate(u, order=3, kind="elementary")
        yield from backend.scan_vjp(system, u, None, u, None, liquid=True).parameters.values()

    plain = list(everything())
    with torch.autocast("cpu", dtype=half):
        cast = list(everything())
    for a, b in zip(plain, cast, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


# --- memory and dtypes inside ------------------------------------------------------------------------------


class Watched(TorchDispatchMode):
    """The largest tensor and the complex operations seen."""

    def __init__(self):
        super().__init__()
        self.largest, self.complex = 0, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(found):
            if isinstance(leaf, torch.Tensor):
                self.largest = max(self.largest, leaf.numel())
                if leaf.is_complex():
                    self.complex.append(str(func))
        return found


@pytest.mark.parametrize("structure", ["diagonal", "dplr", "dense", "mimo"])
def test_no_tensor_holds_the_states_of_all_steps(backend, structure):
    system = random_system(structure, n_channels=2, n_modes=8).astype("float32").to_torch()
    u = torch.from_numpy(inputs(3, 2, 1024))
    states = 3 * 8 * 1024 * (1 if structure == "mimo" else 2)
    # A mimo chunk holds products with every channel, a dense one those with every entry of a matrix.  A complex
    # number is seen as two real ones.
    chunk = 2 * 2 * 3 * 8 * 33 * {"diagonal": 2, "dplr": 2, "dense": 16, "mimo": 2}[structure]
    small = TorchBackend(split=backend.split, chunk_steps=32)
    with Watched() as watched:
        small.scan(system, u, liquid=True)
        small.scan(system, u, liquid=False)
        small.scan_vjp(system, u, None, u, None, liquid=True)
    assert watched.largest < states
    with Watched() as watched:
        small.cascade(system, u, order=2, kind="truncated")
        small.cascade_vjp(system, u, None, u, None, order=2, kind="truncated")
    assert watched.largest <= max(chunk, u.numel())
    assert chunk < 2 * states


@pytest.mark.parametrize("structure", ["diagonal", "dplr", "dense", "mimo"])
def test_without_complex_numbers_there_are_none_between_entry_and_exit(structure):
    backend = BACKENDS["torch-split-real"]
    system = random_system(structure, n_modes=2).astype("float32").to_torch()
    u = torch.from_numpy(inputs(2, 2, 140))
    with Watched() as watched:
        backend.scan(system, u, liquid=True)
        backend.scan(system, u, liquid=False)
        backend.scan_vjp(system, u, None, u, None, liquid=True)
        backend.cascade(system, u[..., :9], order=2, kind="truncated")
        if structure != "mimo":
            backend.cascade_vjp(system, u[..., :9], None, u[..., :9], None, order=2, kind="chain", window=3)
        if structure != "mimo":
            backend.convolve(backend.kernel(system, 9, 2), u)
            backend.kernel_vjp(system, 9, 2, u[0, :, :9])
    # Only what puts results together or copies what is given: no arithmetic.
    kinds = {name.split(".")[1] for name in watched.complex}
    assert kinds <= {"complex", "clone", "transpose", "_to_copy", "detach", "select", "alias", "view"}


def test_real_systems_never_meet_a_complex_number(backend):
    system = random_system("diagonal")
    real = type(system)(*(p.real.astype("float32") for p in system.parameters.values()), conjugate_pairs=False)
    u = torch.from_numpy(inputs(2, 2, 40))
    with Watched() as watched:
        y, final = backend.scan(real.to_torch(), u, liquid=True)
        backend.scan(real.to_torch(), u, liquid=False)
        backend.cascade_vjp(real.to_torch(), u, None, u, None, order=2, kind="truncated")
    assert y.dtype == final.dtype == torch.float32
    assert watched.complex == []


# --- bad input ---------------------------------------------------------------------------------------------


def test_arguments_out_of_their_range_are_refused(backend):
    system, u = random_system("diagonal").astype("float32"), inputs(1, 2, 6)
    with pytest.raises(ParameterError, match="chunk_steps is 0"):
        TorchBackend(chunk_steps=0)
    for options, message in (
        ({"order": 0, "kind": "chain"}, "order is 0"),
        ({"order": 2, "kind": "chian"}, "Did you mean 'chain'"),
        ({"order": 3, "kind": "chain", "window": 2}, "window is 2"),
        ({"order": 2, "kind": "truncated", "window": 4}, "a window needs kind 'chain'"),
    ):
        with pytest.raises(ParameterError, match=message):
            backend.cascade(system, u, **options)
    with pytest.raises(ParameterError, match="a window needs kind 'chain', which starts at rest"):
        backend.cascade(system, u, np.zeros((1, 2, 2, 3), "complex64"), order=2, kind="chain", window=4)
    with pytest.raises(ParameterError, match="grad_state was given"):
        backend.cascade_vjp(system, u, None, None, np.zeros((1, 2, 2, 3)), order=2, kind="chain", window=4)
    with pytest.raises(ParameterError, match="power is 0"):
        backend.kernel(system, 3, 0)
    with pytest.raises(ShapeError, match=r"kernel has shape \(3, 4\); it must be \(2, 4\)"):
        backend.convolve(np.zeros((3, 4), "float32"), u)


def test_structures_it_does_not_have_are_refused(backend):
    u = inputs(1, 2, 3)
    with pytest.raises(BackendRejected, match=r"needs diagonal or dplr.* for kernel"):
        backend.kernel(random_system("mimo"), 3)
    with pytest.raises(BackendRejected, match="needs diagonal or dplr or dense for a cascade of kind chain"):
        backend.cascade(random_system("mimo"), u, order=2, kind="chain")


def test_inputs_of_another_kind_are_refused(backend):
    system = random_system("diagonal").astype("float32").to_torch()
    with pytest.raises(DTypeError, match=r"u has dtype torch.int64; allowed: torch.float32, torch.float64"):
        backend.scan(system, torch.ones((1, 2, 3), dtype=torch.int64), liquid=True)
    with pytest.raises(DTypeError, match=r"u has dtype torch\.bfloat16"):
        backend.scan(system, torch.ones((1, 2, 3), dtype=torch.bfloat16), liquid=True)
    u = torch.ones((1, 2, 3))
    with pytest.raises(ParameterError, match="u is on cpu but the system's parameters on meta; move one"):
        backend.scan(system.to_torch("meta"), u, liquid=True)
    with pytest.raises(ParameterError, match="u is on cpu but state on meta"):
        backend.scan(system, u, torch.zeros((1, 2, 3), dtype=torch.complex64, device="meta"), liquid=True)
    with pytest.raises(ShapeError, match=r"state has shape \(2, 3\); it must be \(1, 2, 3\)"):
        backend.scan(system, u, torch.zeros((2, 3)), liquid=True)
