"""The contract, checked on every backend: what is declared exists, what is not is not offered."""

from __future__ import annotations

import inspect

import pytest

from liquid_ssm.backend import PRIMITIVES
from liquid_ssm.problem import DTYPES, STRUCTURES, ModeSpec, Problem
from liquid_ssm.registry import backend_names, get_backend


@pytest.mark.parametrize("name", backend_names())
def test_declared_primitives_exist_with_their_gradients(name):
    backend = get_backend(name)
    assert backend.name == name
    for primitive, structures in backend.capabilities.primitives.items():
        assert primitive in PRIMITIVES
        assert set(structures) <= set(STRUCTURES)
        assert callable(getattr(backend, primitive))
        assert callable(getattr(backend, f"{primitive}_vjp", None)) == backend.capabilities.gradients
    assert set(backend.capabilities.dtypes) <= set(DTYPES)


@pytest.mark.parametrize("name", backend_names())
def test_undeclared_primitives_do_not_exist(name):
    backend = get_backend(name)
    for primitive in set(PRIMITIVES) - set(backend.capabilities.primitives):
        assert not hasattr(backend, primitive)


@pytest.mark.parametrize("name", backend_names())
def test_backends_are_final(name):
    """Concrete backends derive from Backend alone."""
    cls = type(get_backend(name))
    assert [c.__name__ for c in inspect.getmro(cls)[1:]] == ["Backend", "ABC", "object"]


@pytest.mark.parametrize("name", backend_names())
@pytest.mark.parametrize("mode", ["s4", "liquid", "truncated", "kb", "pb"])
def test_every_mode_of_a_diagonal_system_is_offered(name, mode):
    if name == "keops":  # kernels and no recurrence
        problem = Problem(ModeSpec(mode, 2, "adjacent"), "diagonal", 1, 2, 3, 4, "float32")
        assert (get_backend(name).reject(problem) is None) == (mode in ("s4", "kb", "pb"))
        return
    for state in (False, True):
        problem = Problem(ModeSpec(mode), "diagonal", 1, 2, 3, 4, "float32", state=state)
        assert get_backend(name).reject(problem) is None
