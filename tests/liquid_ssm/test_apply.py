"""`apply`, `step`, `vjp`: what they accept, what they refuse, and in which words."""

from __future__ import annotations

import logging

import numpy as np
import pytest

import liquid_ssm as ls
from liquid_ssm.backend import Backend, Capabilities
from liquid_ssm.registry import get_backend
from liquid_ssm.testing.strategies import random_system

SYSTEM = random_system("diagonal", n_channels=2, n_modes=3)
U = np.random.default_rng(0).normal(size=(1, 2, 8))


def test_a_liquid_step_by_hand():
    """x_0 = b u_0, x_1 = (a + b u_1) x_0 + b u_1, in dyadic numbers: exact."""
    system = ls.DiagonalSystem([[0.5j]], [[0.25]], [[1 - 1j]])
    y = ls.apply(system, np.array([[[2.0, -4.0]]]), mode="liquid", backend="numpy")
    x0 = 0.5
    x1 = (0.5j - 1.0) * x0 - 1.0
    assert y.tolist() == [[[2 * ((1 - 1j) * x0).real, 2 * ((1 - 1j) * x1).real]]]


def test_results_keep_the_dtype_and_the_input_its_values():
    u = U.astype(np.float32)
    u.flags.writeable = False
    assert ls.apply(SYSTEM, u, mode="liquid").dtype == np.float32


def test_non_contiguous_and_reversed_inputs():
    wide = np.random.default_rng(1).normal(size=(8, 2, 2))
    view = wide.transpose(1, 2, 0)[:, :, ::-1]
    for mode in ("s4", "liquid", "pb"):
        assert np.array_equal(
            ls.apply(SYSTEM, view, mode=mode), ls.apply(SYSTEM, np.ascontiguousarray(view), mode=mode)
        )


@pytest.mark.parametrize("shape", [(0, 2, 5), (3, 2, 0), (0, 2, 0)])
@pytest.mark.parametrize("mode", ["s4", "liquid", "truncated", "kb", "pb"])
def test_empty_batches_and_sequences(shape, mode):
    y, state = ls.apply(SYSTEM, np.zeros(shape), mode=mode, return_state=True)
    assert y.shape == shape
    assert ls.step(SYSTEM, np.zeros(shape[:2]), state, mode=mode)[0].shape == shape[:2]


@pytest.mark.parametrize(
    ("u", "error", "words"),
    [
        (U[0], ls.ShapeError, "three dimensions"),
        (U[:, :1], ls.ShapeError, "1 channels"),
        (U.astype(int), ls.DTypeError, "int64; allowed: float32, float64"),
        (U.astype(np.float16), ls.DTypeError, "float16"),
        (U + 0j, ls.DTypeError, "complex128"),
        (np.where(np.arange(8) == 5, np.nan, U), ls.ParameterError, "nan at batch 0, channel 0, step 5"),
        (np.where(np.arange(8) == 2, -np.inf, U), ls.ParameterError, "-inf at batch 0, channel 0, step 2"),
    ],
)
def test_bad_inputs_are_refused(u, error, words):
    with pytest.raises(error, match=words):
        ls.apply(SYSTEM, u, mode="liquid")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": "lquid"}, "'liquid'"),
        ({"mode": "kb", "order": 0}, "order is 0"),
        ({"mode": "kb", "order": 2.5}, "whole number"),
        ({"mode": "kb", "order": True}, "whole number"),
        ({"mode": "pb", "order": 4, "window": 3}, "window is 3 but order is 4"),
        ({"mode": "liquid", "window": 3}, "modes kb and pb"),
        ({"mode": "pb", "correlations": "adjacnt"}, "'adjacent'"),
        ({"mode": "liquid", "backend": "nunpy"}, "'numpy'"),
    ],
)
def test_bad_options_are_refused_with_the_nearest_names(options, words):
    with pytest.raises(ls.ParameterError, match=words):
        ls.apply(SYSTEM, U, **options)


def test_a_named_backend_never_falls_back():
    system = random_system("dplr")
    with pytest.raises(ls.BackendRejected, match="needs diagonal for scan, got dplr") as caught:
        ls.apply(system, U, mode="liquid", backend="scipy")
    assert [r.reason for r in caught.value.rejections] == ["structure"]


class Doubled(Backend):
    """The scan of NumPy times two, so that who computed is seen in the result."""

    name = "doubled"
    capabilities = Capabilities(primitives={"scan": ("diagonal",)}, dtypes=("float64",), gradients=True)

    def scan(self, *a, **o):
        y, final = get_backend("numpy").scan(*a, **o)
        return 2 * y, final

    def scan_vjp(self, *a, **o):
        found = get_backend("numpy").scan_vjp(*a, **o)
        return ls.Gradients(found.parameters, 2 * found.u, found.state)


def test_a_backend_object_computes_without_being_registered():
    mine = Doubled()
    for mode in ("s4", "liquid"):
        expected = ls.apply(SYSTEM, U, mode=mode, backend="numpy")
        y, state = ls.apply(SYSTEM, U, mode=mode, backend=mine, return_state=True)
        assert np.array_equal(y, 2 * expected)
        y_k, _ = ls.step(SYSTEM, U[..., 0], state, mode=mode, backend=mine)
        assert np.array_equal(y_k, 2 * ls.step(SYSTEM, U[..., 0], state, mode=mode, backend="numpy")[0])
        gradient = ls.vjp(SYSTEM, U, U, mode=mode, backend=mine).u
        assert np.array_equal(gradient, 2 * ls.vjp(SYSTEM, U, U, mode=mode, backend="numpy").u)
    assert np.array_equal(ls.apply(SYSTEM, U, mode="liquid"), ls.apply(SYSTEM, U, mode="liquid", backend="numba"))


def test_a_backend_object_never_falls_back():
    said = "backend 'doubled' does not compute truncated.*doubled: primitive: needs cascade"
    with pytest.raises(ls.BackendRejected, match=f"(?s){said}"):
        ls.apply(SYSTEM, U, mode="truncated", backend=Doubled())
    with pytest.raises(ls.BackendRejected, match="needs float64, got float32"):
        ls.apply(SYSTEM, U.astype(np.float32), mode="liquid", backend=Doubled())


def test_an_overflow_in_a_backend_object_names_it():
    class Infinite(Backend):
        name = "infinite"
        linear_method = "convolution"
        capabilities = Capabilities(primitives={"kernel": ("diagonal",), "convolve": ()})

        def kernel(self, system, length, power=1):
            return np.ones((2, length))

        def convolve(self, kernel, u):
            return u + np.inf

    with pytest.raises(ls.UnstableRecurrence, match="FFT of backend 'infinite'"):
        ls.apply(SYSTEM, U, mode="s4", backend=Infinite())


def test_the_default_backend_is_named_in_the_log(caplog):
    with caplog.at_level(logging.INFO, "liquid_ssm"):
        ls.apply(random_system("dense"), U, mode="liquid", backend="first")
    assert "took numpy" in caplog.text
    assert "scipy: structure" in caplog.text


@pytest.mark.parametrize("backend", ["numba", "numpy", "scipy", None])
def test_overflow_is_found_at_its_first_step(backend):
    """x_k = 2^(k+1) - 1 and y = 2x: in float32 y rounds to 2^128, out of range, first at k = 126."""
    system = ls.DiagonalSystem([[1.0 + 0j]], [[1.0]], [[1.0]])
    u = np.ones((1, 1, 200), np.float32)
    with pytest.raises(ls.UnstableRecurrence, match="step 126, channel 0") as caught:
        ls.apply(system, u, mode="liquid", backend=backend)
    assert caught.value.step == 126
    assert caught.value.input_bound == 0


def test_overflow_of_a_convolution_is_found_at_its_step_too():
    system = ls.DiagonalSystem([[2.0 + 0j]], [[1.0]], [[1.0]])
    with pytest.raises(ls.UnstableRecurrence) as caught:
        ls.apply(system, np.ones((1, 1, 200), np.float32), mode="s4", backend="scipy")
    assert caught.value.step == 126  # as above, although the FFT makes every output NaN


def test_kb_and_pb_need_scalar_inputs():
    with pytest.raises(ls.ParameterError, match="mimo"):
        ls.apply(random_system("mimo"), U, mode="pb")


def test_states_are_checked():
    with pytest.raises(ls.ShapeError, match=r"\(1, 2, 3\)"):
        ls.apply(SYSTEM, U, mode="liquid", state=np.zeros((2, 3)))
    with pytest.raises(ls.ParameterError, match="NaN"):
        ls.apply(SYSTEM, U, mode="liquid", state=np.full((1, 2, 3), np.nan))
    _, state = ls.apply(SYSTEM, U, mode="pb", order=3, return_state=True)
    with pytest.raises(ls.ShapeError, match="parts"):
        ls.apply(SYSTEM, U, mode="pb", order=2, state=state)
    with pytest.raises(ls.ShapeError, match="State"):
        ls.apply(SYSTEM, U, mode="liquid", state=state)


def test_step_takes_one_step():
    with pytest.raises(ls.ShapeError, match=r"\(batch, H\)"):
        ls.step(SYSTEM, U, mode="liquid")


def test_vjp_needs_a_cotangent_of_the_right_shape():
    with pytest.raises(ls.ShapeError, match="grad_y"):
        ls.vjp(SYSTEM, U, U[..., 1:], mode="liquid")
    with pytest.raises(ls.BackendRejected, match="gradient"):
        ls.vjp(SYSTEM, U, U, mode="s4", backend="scipy")


def test_an_integrator_runs_through_apply():
    continuous = ls.initialize("s4d-lin", n_channels=2, n_state=4, dt_max=1e-2)
    integrator = continuous.discretize("bilinear-exact")
    assert np.array_equal(ls.apply(integrator, U, mode="liquid"), integrator.scan(U)[0])
    with pytest.raises(ls.ParameterError, match="integrates the liquid system"):
        ls.apply(integrator, U, mode="kb")
    for other in ("scipy", Doubled()):
        with pytest.raises(ls.BackendRejected, match="own NumPy code"):
            ls.apply(integrator, U, mode="liquid", backend=other)
    with pytest.raises(ls.ParameterError, match="no gradients"):
        ls.vjp(integrator, U, U, mode="liquid")
