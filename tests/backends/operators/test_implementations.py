"""Which backend computes an operator."""

from __future__ import annotations

import subprocess
import sys

import pytest

from liquid_ssm import backend as contract
from liquid_ssm.backends.numba_backend import NumbaBackend
from liquid_ssm.backends.numpy_backend import NumPyBackend
from liquid_ssm.backends.operators import implementations
from liquid_ssm.backends.operators.implementations import implementation, register, require_gradients
from liquid_ssm.errors import BackendRejected, BackendUnavailable, ParameterError


@pytest.fixture
def fresh():
    implementations._built_in.cache_clear()
    yield
    implementations._built_in.cache_clear()


def test_looking_at_the_table_loads_no_torch(tmp_path):
    code = (
        "import sys, liquid_ssm.backends.operators.implementations as m; m.implementation('', 'cpu'); "
        "print('torch' in sys.modules, 'numba' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False False"


def test_without_a_name_the_device_decides():
    backend, on_numpy = implementation("", "cpu")
    assert isinstance(backend, NumbaBackend)
    assert on_numpy
    assert implementation("numba", "cpu")[0] is backend
    assert implementation("numba-wide-state", "cpu")[0].state_dtype == "float64"


def test_a_device_without_kernels_is_refused():
    with pytest.raises(ParameterError, match="on 'mps'; operators are compiled for cpu and cuda"):
        implementation("", "mps")


def test_a_backend_of_the_cpu_takes_nothing_else():
    with pytest.raises(ParameterError, match="on 'cuda' and 'numba' computes on the CPU"):
        implementation("numba", "cuda")


def test_names_that_do_not_exist_are_refused():
    with pytest.raises(ParameterError, match=r"implementation of operators 'nunba'; allowed: .* mean 'numba'"):
        implementation("nunba", "cpu")


def test_a_missing_package_is_named_with_what_to_run(monkeypatch, fresh):
    monkeypatch.setattr(contract, "_installed", set())
    monkeypatch.setattr(contract, "find_spec", lambda name: None)
    with pytest.raises(BackendUnavailable, match=r"need numba, platformdirs.*pip install 'liquid-ssm\[numba\]'"):
        implementation("numba", "cpu")


def test_backends_with_options_are_found_by_all_of_them():
    backend = NumbaBackend(threads=7)
    found, on_numpy = implementation("numba(threads=7, state_dtype=None)", "cpu")
    assert found is backend
    assert on_numpy


def test_an_implementation_without_gradients_is_named(monkeypatch):
    monkeypatch.setattr(implementations, "_configured", dict(implementations._configured))

    class Forwards(NumPyBackend):
        name = "forwards"
        capabilities = contract.Capabilities(primitives={"scan": ("diagonal",)})

    register("forwards", Forwards(), on_numpy=True)
    require_gradients("numba", "cpu", "scan")
    with pytest.raises(BackendRejected, match=r"forwards has no gradient of liquid_ssm::scan(.|\n)*torch\.no_grad\(\)"):
        require_gradients("forwards", "cpu", "scan")
