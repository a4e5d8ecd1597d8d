"""On whole numbers all operations are exact, so every primitive must equal the NumPy backend's in every bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from liquid_ssm.backends.eager.operations import linear_chunk, scan_piece
from liquid_ssm.backends.numpy_backend import NumPyBackend
from liquid_ssm.backends.torch_backend import TorchBackend, split_real

NUMPY = NumPyBackend()
BACKENDS = {"torch": TorchBackend(), "torch-split-real": split_real(), "chunks of 2": TorchBackend(chunk_steps=2)}
STRUCTURES = ("diagonal", "dplr", "dense", "mimo")
CASES = [(structure, pairs) for structure in STRUCTURES for pairs in (True, False) if pairs or structure != "dense"]
# Which parameters are real: none, all, and each half of those that are multiplied with the state.
REAL = ((), ("A_bar", "Lambda_bar", "P_bar", "Q_bar", "B_bar", "C"), ("A_bar", "B_bar", "Q_bar"), ("C", "P_bar"))


def same(found, expected):
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name in expected:
            same(found[name], expected[name])
    elif isinstance(expected, tuple):
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            same(a, b)
    elif expected is None:
        assert found is None
    else:
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


@pytest.fixture(params=BACKENDS)
def backend(request):
    return BACKENDS[request.param]


@pytest.mark.parametrize("real", REAL)
@pytest.mark.parametrize("liquid", [False, True])
@pytest.mark.parametrize(("structure", "pairs"), CASES)
def test_scan_and_its_adjoint_are_those_of_numpy(backend, whole, structure, pairs, liquid, real):
    system = whole.system(structure, conjugate_pairs=pairs, real=real)
    u, state, grad_state = whole.real(2, 2, 5), whole.state(system, 2), whole.state(system, 2)
    for start in (None, state):
        same(backend.scan(system, u, start, liquid=liquid), NUMPY.scan(system, u, start, liquid=liquid))
    for grads in ((None, None), (whole.real(2, 2, 5), None), (None, grad_state), (whole.real(2, 2, 5), grad_state)):
        for start in (None, state):
            same(
                backend.scan_vjp(system, u, start, *grads, liquid=liquid),
                NUMPY.scan_vjp(system, u, start, *grads, liquid=liquid),
            )


@pytest.mark.parametrize("real", REAL)
@pytest.mark.parametrize(("kind", "window"), [("truncated", None), ("chain", None), ("chain", 3), ("chain", 9)])
@pytest.mark.parametrize(("structure", "pairs"), CASES)
def test_cascades_and_their_adjoints_are_those_of_numpy(backend, whole, structure, pairs, kind, window, real):
    if structure == "mimo" and kind == "chain":
        return
    system = whole.system(structure, conjugate_pairs=pairs, real=real, n_modes=2)
    u = whole.real(2, 2, 5)
    for order in (1, 3):
        options = {"order": order, "kind": kind, "window": window}
        states = [None] if window else [None, whole.state(system, 2, order)]
        for state in states:
            same(backend.cascade(system, u, state, **options), NUMPY.cascade(system, u, state, **options))
            for grads in ((None, None), (whole.real(2, 2, 5), None if window else whole.state(system, 2, order))):
                same(
                    backend.cascade_vjp(system, u, state, *grads, **options),
                    NUMPY.cascade_vjp(system, u, state, *grads, **options),
                )


@pytest.mark.parametrize("power", [1, 3])
@pytest.mark.parametrize(("structure", "pairs"), [case for case in CASES if case[0] in ("diagonal", "dplr")])
def test_adjoints_of_kernels_are_those_of_numpy(backend, whole, structure, pairs, power):
    system = whole.system(structure, conjugate_pairs=pairs)
    for grad in (None, whole.real(2, 4)):
        same(backend.kernel_vjp(system, 4, power, grad), NUMPY.kernel_vjp(system, 4, power, grad))


@pytest.mark.parametrize("pairs", [True, False])
def test_without_complex_numbers_kernels_of_dplr_systems_are_answers_to_an_impulse(whole, pairs):
    system = whole.system("dplr", conjugate_pairs=pairs)
    for power in (1, 3):
        same(BACKENDS["torch-split-real"].kernel(system, 5, power), NUMPY.kernel(system, 5, power))


@pytest.mark.parametrize("structure", ["diagonal", "mimo"])
@pytest.mark.parametrize("liquid", [False, True])
@pytest.mark.parametrize("length", [31, 32, 128, 131, 600])
def test_every_arrangement_of_a_long_scan_is_exact_on_numbers_that_stay_whole(whole, structure, liquid, length):
    system = whole.system(structure, n_modes=1)
    # Transitions of modulus 0 or 1, now and then of 3, and inputs so sparse that states stay below 2^53.
    units = np.array([1j, -1, 1, -1j])
    shape = system.A_bar.shape
    system = type(system)(units[: np.prod(shape)].reshape(shape), np.ones_like(system.B_bar), system.C)
    u = np.zeros((2, 2, length))
    u[..., ::29] = whole.real(*u[..., ::29].shape)
    state = whole.state(system, 2)
    for backend in BACKENDS.values():
        for start in (None, state):
            same(backend.scan(system, u, start, liquid=liquid), NUMPY.scan(system, u, start, liquid=liquid))


def test_arrangements_depend_on_structure_and_shape_alone():
    assert linear_chunk("mimo", 4, 10_000, "float32") is None
    assert linear_chunk("diagonal", 4, 10_000, "float32") is not None
    assert scan_piece("dplr", 8, 10_000) is None
    assert scan_piece("diagonal", 8, 10_000) == scan_piece("mimo", 8, 10_000) == 70


def test_results_share_no_memory_with_arguments(backend, whole):
    system = whole.system("diagonal").to_torch()
    state, states = (torch.from_numpy(whole.state(system, 2, *orders)) for orders in ((), (1,)))
    for length in (0, 1, 3):
        u = torch.ones((2, 2, length), dtype=torch.float64)
        results = [
            *backend.scan(system, u, state, liquid=True),
            *backend.cascade(system, u, states, order=1, kind="truncated"),
            *backend.scan_vjp(system, u, state, None, state, liquid=True)[1:],
            *backend.cascade_vjp(system, u, states, None, states, order=1, kind="truncated")[1:],
        ]
        before = (state.clone(), states.clone(), u.clone())
        for result in results:
            assert result.is_contiguous()
            result.fill_(7)
        for now, then in zip((state, states, u), before, strict=True):
            assert torch.equal(now, then)
