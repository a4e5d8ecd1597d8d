"""The backend of a call: certificates are used inside their domain, and made or missed outside it."""

from __future__ import annotations

import logging
import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

import liquid_ssm as ls
from liquid_ssm.certificate_store import CertificateStore
from liquid_ssm.errors import BackendRejected, NotCertified, ParameterError, UnstableRecurrence
from liquid_ssm.selection import auto


def stored():
    return [certificate for _, certificate in CertificateStore().all()]


def calls(system, u, **options):
    """The number of certificates on disk after a call, and its y."""
    y = ls.apply(system, u, **{"mode": "liquid", **options})
    return len(stored()), y


def test_one_selection_serves_a_domain_and_no_more(system, u, only):
    only("numpy", "scipy")
    assert calls(system, u)[0] == 1
    inside = (u * 0.9, u[..., :35], np.concatenate([u, u[:1]]), u[:, :, ::-1])
    assert [calls(system, other)[0] for other in inside] == [1, 1, 1, 1]
    assert calls(system, u[..., :31])[0] == 2  # another bucket of lengths
    assert calls(system, u[:1])[0] == 3  # … of batches
    assert calls(system, 100 * u[..., :8], mode="s4")[0] == 4
    assert calls(system, u, mode="s4")[0] == 5
    assert calls(system, u, mode="s4", tolerance=1e-3)[0] == 6
    assert calls(system.astype("float32"), u.astype("float32"))[0] == 7
    assert calls(system, u, return_state=True)[0] == 8


def test_larger_inputs_and_longer_memories_are_outside(system, u, only):
    only("numpy")
    assert calls(system, u, mode="s4")[0] == 1
    assert calls(system, 300 * u, mode="s4")[0] == 2
    slow = ls.DiagonalSystem(system.A_bar**0.001, system.B_bar, system.C)
    assert calls(slow, u, mode="s4")[0] == 3


def test_results_are_those_of_the_named_backend(system, u, only):
    only("numpy")
    assert (ls.apply(system, u, mode="liquid") == ls.apply(system, u, mode="liquid", backend="numpy")).all()
    y, state = ls.step(system, u[..., 0], mode="liquid")
    named, _ = ls.step(system, u[..., 0], mode="liquid", backend="numpy")
    assert (y == named).all()
    found = ls.vjp(system, u, u, mode="liquid")
    assert (found.u == ls.vjp(system, u, u, mode="liquid", backend="numpy").u).all()
    assert state.shape == (2, 2, 4)


def test_certified_only_takes_what_is_there_and_makes_nothing(system, u, only):
    only("numpy")
    with pytest.raises(NotCertified, match="no valid certificate holds this call"):
        ls.apply(system, u, mode="liquid", backend="certified-only")
    assert not stored()
    ls.apply(system, u, mode="liquid")
    auto.forget()
    y = ls.apply(system, u, mode="liquid", backend="certified-only")
    assert (y == ls.apply(system, u, mode="liquid", backend="numpy")).all()
    with pytest.raises(NotCertified):
        ls.apply(system, 300 * u, mode="s4", backend="certified-only")
    with pytest.raises(NotCertified):
        ls.apply(system, u[..., :20], mode="liquid", backend="certified-only")
    assert len(stored()) == 1


def test_certified_only_sees_the_one_value_that_is_outside(only):
    only("numpy")
    system = ls.DiagonalSystem(np.full((1, 2), 0.5), np.full((1, 2), 0.01), np.ones((1, 2)), conjugate_pairs=False)
    u = np.ones((1, 1, 40_000))
    ls.apply(system, u, mode="s4")
    ls.apply(system, u, mode="s4", backend="certified-only")
    u[0, 0, 39_999] = 1e4
    with pytest.raises(NotCertified):
        ls.apply(system, u, mode="s4", backend="certified-only")


def test_a_certificate_of_disk_is_read_by_a_new_process(system, u, only, caplog):
    only("numpy")
    ls.apply(system, u, mode="liquid")
    auto.forget()  # as a new process knows nothing
    (path,) = [path for path, _ in CertificateStore().all()]
    before = path.read_text()
    ls.apply(system, u, mode="liquid")
    assert path.read_text() == before


@pytest.mark.parametrize(
    "damage", [lambda text: text[:500], lambda text: text.replace("numpy", "scipy", 1), lambda _: ""]
)
def test_a_damaged_certificate_is_said_and_made_anew(system, u, only, caplog, damage):
    only("numpy")
    y = ls.apply(system, u, mode="liquid")
    auto.forget()
    (path,) = [path for path, _ in CertificateStore().all()]
    path.write_text(damage(path.read_text()))
    with caplog.at_level(logging.INFO, "liquid_ssm"):
        assert (ls.apply(system, u, mode="liquid") == y).all()
    assert f"selecting again: file {path.name}" in caplog.text
    assert stored()[0].backend == "numpy"


def test_a_setting_that_changes_in_the_process_asks_again(system, u, only, monkeypatch):
    only("numpy")
    ls.apply(system, u, mode="liquid")
    asked = []
    monkeypatch.setattr(auto, "live", lambda arrays: ("changed",))
    monkeypatch.setattr(auto, "_certified", lambda *args: asked.append(args) or ("numpy", None))
    ls.apply(system, u, mode="liquid")
    assert len(asked) == 1


def test_what_has_no_numbers_needs_no_certificate(system, u, only):
    only("numpy")
    for empty in (u[:0], u[..., :0]):
        assert ls.apply(system, empty, mode="liquid").shape == empty.shape
        assert ls.apply(system, empty, mode="liquid", backend="certified-only").shape == empty.shape
    integrator = ls.initialize("s4d-lin", n_channels=2, n_state=8).discretize("bilinear-exact")
    assert ls.apply(integrator, u, mode="liquid").shape == u.shape
    with pytest.raises(ParameterError, match="leave the tolerance out"):
        ls.apply(integrator, u, mode="liquid", tolerance=1e-3)
    assert not stored()


def test_errors_of_the_caller_reach_the_caller(system, u, only):
    only("numpy", "scipy")
    with pytest.raises(ParameterError, match="NaN or infinite"):
        ls.apply(system, np.where(np.arange(40) == 7, np.nan, u), mode="liquid")
    unstable = ls.DiagonalSystem(np.full((2, 4), 2.0), system.B_bar, system.C)
    with pytest.raises(UnstableRecurrence):
        ls.apply(unstable, np.ones((1, 2, 3000)), mode="liquid")
    with pytest.raises(ls.ShapeError):
        ls.apply(system, u[0], mode="liquid")
    for tolerance in (0.0, -1.0, np.nan):
        with pytest.raises(ParameterError, match="positive"):
            ls.apply(system, u, mode="liquid", tolerance=tolerance)
    with pytest.raises(ParameterError, match="goes with a backend that is selected"):
        ls.apply(system, u, mode="liquid", tolerance=1e-3, backend="numpy")
    with pytest.raises(ParameterError, match="from 0 to 1"):
        ls.apply(system, u, mode="liquid", recheck=2.0)
    with pytest.raises(BackendRejected, match="tolerance 1e-30"):
        ls.apply(system, u, mode="liquid", tolerance=1e-30)
    assert not stored()


def test_tensors_are_selected_for_by_themselves(system, only):
    only("torch", "numba", "numpy")
    u = torch.randn(1, 2, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = ls.apply(system, u, mode="liquid")
    assert [(c.domain.arrays, c.domain.gradient) for c in stored()] == [("torch", False)]
    parameters = {name: p.requires_grad_() for name, p in system.to_torch().parameters.items()}
    ls.apply(ls.DiagonalSystem(**parameters), u, mode="liquid").sum().backward()
    assert all(p.grad is not None for p in parameters.values())
    assert sorted(c.domain.gradient for c in stored()) == [False, True]
    half = ls.apply(system, u.bfloat16(), mode="liquid")
    assert half.dtype == torch.bfloat16
    assert (half.double() - y).abs().max() < 0.02 * y.abs().max()


def test_while_torch_traces_the_fixed_order_is_used(system, only):
    only("torch")
    u = torch.ones(1, 2, 8, dtype=torch.float64)
    tensors = system.to_torch()
    expected = ls.apply(tensors, u, mode="s4", backend="torch")
    found = torch.func.vmap(lambda row: ls.apply(tensors, row[None], mode="s4")[0])(u)
    assert torch.allclose(found, expected)
    assert not stored()
    with pytest.raises(NotCertified, match="name the backend there"):
        torch.func.vmap(lambda row: ls.apply(tensors, row[None], mode="s4", backend="certified-only")[0])(u)


def test_parameters_that_change_in_place_are_measured_again(system, only):
    only("torch")
    u = torch.ones(1, 2, 20, dtype=torch.float64)
    tensors = system.to_torch()
    ls.apply(tensors, u, mode="s4")
    with torch.no_grad():
        tensors.parameters["B_bar"].mul_(1000)
    ls.apply(tensors, u, mode="s4")
    assert len(stored()) == 2


def test_lengths_that_were_not_verified_are_outside(system, u, only):
    only("numpy")
    ls.apply(system, u, mode="liquid")
    (certificate,) = stored()
    assert certificate.oracle["residues"] == "all"
    partial = replace(certificate, oracle={**certificate.oracle, "residues": [40]})
    CertificateStore().save(partial)
    auto.forget()
    ls.apply(system, u, mode="liquid", backend="certified-only")
    with pytest.raises(NotCertified, match="length 41 is none of those that were verified"):
        ls.apply(system, np.concatenate([u, u[..., :1]], axis=-1), mode="liquid", backend="certified-only")


NO_TORCH = """
import sys
import numpy as np
import liquid_ssm as ls
system = ls.initialize("s4d-lin", n_channels=2, n_state=8).discretize("bilinear")
ls.apply(system, np.ones((1, 2, 20)), mode="liquid")
assert "torch" not in sys.modules
"""


def test_arrays_of_numpy_do_not_load_torch():
    done = subprocess.run([sys.executable, "-c", NO_TORCH], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


EIGHT = """
import numpy as np
import liquid_ssm as ls
system = ls.initialize("s4d-lin", n_channels=2, n_state=8, seed=0).discretize("bilinear")
u = np.random.default_rng(0).normal(size=(1, 2, 20))
y = ls.apply(system, u, mode="liquid")
assert np.abs(y - ls.apply(system, u, mode="liquid", backend="numpy")).max() < 1e-12
"""


def test_eight_processes_select_at_once():
    running = [
        subprocess.Popen([sys.executable, "-W", "error", "-c", EIGHT], stderr=subprocess.PIPE, text=True)
        for _ in range(8)
    ]
    for process in running:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    found = list(CertificateStore().all())
    assert len(found) == 1
    assert isinstance(found[0][1], type(stored()[0]))
    assert [path.suffix for path in CertificateStore().folder.iterdir()] == [".json"]


def test_a_home_that_cannot_be_written_costs_a_warning_and_nothing_else(system, u, only, monkeypatch, tmp_path):
    only("numpy")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LIQUID_SSM_CACHE_DIR", str(tmp_path / "file" / "below"))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        y = ls.apply(system, u, mode="liquid")
    assert (y == ls.apply(system, u, mode="liquid", backend="numpy")).all()
    assert all("certificate" in str(warning.message) for warning in said)


@pytest.mark.parametrize("shape", [(1, 2, 40), (8, 16, 1024)])
def test_a_call_with_a_certificate_pays_at_most_50_us(shape):
    from time import perf_counter

    system = ls.initialize("s4d-lin", n_channels=shape[1], n_state=16, seed=0).discretize("bilinear")
    u = np.random.default_rng(0).normal(size=shape)
    ls.apply(system, u, mode="liquid")
    spec, taken = ls.ModeSpec("liquid"), []
    for _ in range(500):
        start = perf_counter()
        auto.selected(system, u, spec)
        taken.append(perf_counter() - start)
    # What a busy machine adds is not the package's.
    assert sorted(taken)[50] < 50e-6


def test_lengths_in_turn_with_gradients_are_selected_for_once_each(system, u, only, monkeypatch):
    only("numpy")
    usual, asked = auto._certified, []
    monkeypatch.setattr(auto, "_certified", lambda *args: asked.append(args[2].shape) or usual(*args))
    for _ in range(3):
        for length in (40, 39):
            ls.vjp(system, u[..., :length], u[..., :length], mode="liquid")
    assert len(asked) == 2


def test_two_backends_share_the_lengths_of_a_domain(system, u, only, monkeypatch):
    """One that is faster at some lengths must not make the other be selected anew at each call."""
    only("numpy", "scipy")
    from liquid_ssm.selection import certify

    usual, asked = certify.certify, []

    def by_length(data, **options):
        asked.append(data.problem.length)
        certificate, _, _ = usual(data, only=("numpy" if data.problem.length == 40 else "scipy",))
        return replace(certificate, oracle={**certificate.oracle, "residues": [data.problem.length]}), [], True

    monkeypatch.setattr(certify, "certify", by_length)
    for _ in range(3):
        for length in (40, 39):
            ls.apply(system, u[..., :length], mode="liquid")
    assert asked == [40, 39]


def test_inference_mode_of_torch(system, only):
    only("torch", "numba")
    with torch.inference_mode():
        tensors = system.to_torch()
        u = torch.ones(1, 2, 20, dtype=torch.float64)
        for _ in range(2):
            y = ls.apply(tensors, u, mode="liquid")
        assert torch.equal(y, ls.apply(tensors, u, mode="liquid", backend="certified-only"))
    assert [c.domain.gradient for c in stored()] == [False]


@pytest.mark.parametrize("scale", [1e-320, 1e307])
def test_inputs_at_the_ends_of_the_range(scale, system, u, only):
    only("numpy")
    y = ls.apply(system, scale * np.sign(u), mode="s4")
    assert np.isfinite(y).all()
    unstable = ls.DiagonalSystem(system.A_bar, 1e200 * system.B_bar, system.C)
    with pytest.raises(UnstableRecurrence):
        ls.apply(unstable, 1e200 * u, mode="s4")


@pytest.mark.parametrize("setting", ["numba", "torch"])
def test_threads_that_change_in_the_process_are_another_certificate(setting, system, only, monkeypatch):
    """And the same one again when they are as they were."""
    only("torch", "numba")
    u = torch.ones(1, 2, 20, dtype=torch.float64)
    ls.apply(system, u, mode="liquid")
    before = torch.get_num_threads()
    try:
        with monkeypatch.context() as patch:
            if setting == "numba":
                from numba.core import config

                patch.setattr(config, "NUMBA_NUM_THREADS", config.NUMBA_NUM_THREADS + 1)
            else:
                torch.set_num_threads(before + 1)
            with pytest.raises(NotCertified, match=f"{setting} threads were"):
                ls.apply(system, u, mode="liquid", backend="certified-only")
            ls.apply(system, u, mode="liquid")
            assert len(stored()) == 2
    finally:
        torch.set_num_threads(before)
    ls.apply(system, u, mode="liquid", backend="certified-only")
    assert len(stored()) == 2


def test_the_error_names_the_certificates_that_come_nearest(system, u, only):
    only("numpy")
    ls.apply(system, u, mode="liquid")
    with pytest.raises(NotCertified) as caught:
        ls.apply(system, u[..., :20], mode="liquid", backend="certified-only")
    assert "length is 20, the certificate covers 32 to 63" in str(caught.value)
    with pytest.raises(NotCertified) as caught:
        ls.apply(system, u, mode="liquid", backend="certified-only", tolerance=1e-3)
    assert "the tolerance is 0.001, the certificate's is None" in str(caught.value)


def test_gradients_have_a_tolerance(system, u, only):
    only("numpy")
    found = ls.vjp(system, u, u, mode="liquid", tolerance=1e-9)
    assert (found.u == ls.vjp(system, u, u, mode="liquid", backend="numpy").u).all()
    assert [(c.domain.gradient, c.domain.tolerance) for c in stored()] == [(True, 1e-9)]
    with pytest.raises(ParameterError, match="goes with a backend that is selected"):
        ls.vjp(system, u, u, mode="liquid", tolerance=1e-9, backend="numpy")
