"""Finding backends by name, and the reasons why one is not taken."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.metadata import EntryPoint

import pytest

import liquid_ssm as ls
from liquid_ssm import registry
from liquid_ssm.backend import Backend, Capabilities
from liquid_ssm.problem import ModeSpec, Problem


def problem(**changes):
    values = {
        "spec": ModeSpec("liquid"), "structure": "diagonal", "batch": 1, "n_channels": 1, "n_modes": 1, "length": 1,
        "dtype": "float64",
    }  # fmt: skip
    return Problem(**(values | changes))


class Absent(Backend):
    name = "absent"
    requires = ("a_package_that_is_not_there",)
    install = "pip install a-package"
    capabilities = Capabilities(primitives={"scan": ("diagonal",)})


class Present(Backend):
    name = "present"
    capabilities = Capabilities(primitives={"scan": ("diagonal",)}, dtypes=("float64",))


@pytest.fixture
def third_party(monkeypatch):
    points = [EntryPoint(c.name, f"{__name__}:{c.__name__}", registry.ENTRY_POINT_GROUP) for c in (Absent, Present)]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: points)
    monkeypatch.setattr(registry, "import_module", lambda name: sys.modules.get(name) or import_module(name))
    registry._targets.cache_clear()
    registry._named.cache_clear()
    yield
    monkeypatch.undo()
    registry._targets.cache_clear()
    registry._named.cache_clear()


def test_built_in_backends_come_first_and_are_cached():
    assert registry.backend_names()[:4] == ("numba", "scipy", "numpy", "numba-wide-state")
    assert registry.get_backend("numpy") is registry.get_backend("numpy")


def test_an_unknown_backend_is_answered_with_near_names():
    with pytest.raises(ls.ParameterError, match="'numpy'"):
        registry.get_backend("nump")


def test_the_fixed_order_and_its_explanation():
    choice = registry.default_backend(problem())
    assert choice.backend == "numba"
    choice = registry.default_backend(problem(structure="dense"))
    assert choice.backend == "numpy"
    assert "numba: structure: needs diagonal or dplr or mimo for scan, got dense" in choice.explain()
    assert "scipy: structure: needs diagonal for scan, got dense" in choice.explain()


def test_if_nobody_can_every_reason_is_carried():
    with pytest.raises(ls.BackendRejected) as caught:
        registry.default_backend(problem(dtype="float16"))
    assert [(r.backend, r.reason, r.given) for r in caught.value.rejections] == [
        (name, "dtype", "float16") for name in registry.backend_names()
    ]
    assert "scipy: dtype: needs float32 or float64, got float16" in str(caught.value)


def test_tensors_find_a_backend_for_their_device():
    assert registry.default_backend(problem(arrays="torch")).backend == "numba"
    choice = registry.default_backend(problem(arrays="torch", device="meta"))
    assert choice.backend == "torch"
    assert {(r.backend, r.reason) for r in choice.rejections} == {
        ("numba", "device"),
        ("scipy", "arrays"),
        ("numpy", "arrays"),
        ("numba-wide-state", "dtype"),
        ("triton", "device"),
    }


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("numpy", {"dtype": "float16"}, "dtype"),
        ("numpy", {"device": "cuda"}, "device"),
        ("scipy", {"gradient": True}, "gradient"),
        ("scipy", {"structure": "dplr"}, "structure"),
        ("numba", {"structure": "dense"}, "structure"),
        ("numba", {"dtype": "float16"}, "dtype"),
        ("numba", {"device": "cuda"}, "device"),
        ("numba-wide-state", {"dtype": "float64"}, "dtype"),
    ],
)
def test_each_reason(name, changes, reason):
    found = registry.rejection(name, problem(**changes))
    assert found is not None
    assert found.reason == reason


@pytest.mark.usefixtures("third_party")
def test_a_missing_package_is_a_rejection_with_the_install_command():
    found = registry.rejection("absent", problem())
    assert found is not None
    assert found.reason == "package"
    assert "pip install a-package" in str(found)
    with pytest.raises(ls.BackendUnavailable, match="pip install a-package"):
        registry.get_backend("absent")


def test_a_backend_object_stands_for_itself():
    mine = Present()
    assert registry.get_backend(mine) is mine
    assert "present" not in registry.backend_names()
    assert registry.rejection(mine, problem()) is None
    found = registry.rejection(mine, problem(dtype="float32"))
    assert found is not None
    assert (found.backend, found.reason, found.given) == ("present", "dtype", "float32")


def test_a_backend_object_needs_its_packages():
    found = registry.rejection(Absent(), problem())
    assert found is not None
    assert found.reason == "package"
    with pytest.raises(ls.BackendUnavailable, match=r"'absent' needs a_package_that_is_not_there.* pip install a-p"):
        registry.get_backend(Absent())


@pytest.mark.usefixtures("third_party")
def test_a_missing_primitive_is_a_rejection():
    found = registry.rejection("present", problem(spec=ModeSpec("truncated")))
    assert found is not None
    assert (found.reason, found.needed) == ("primitive", "cascade, which it does not have")
    assert registry.rejection("present", problem()) is None


@pytest.mark.usefixtures("third_party")
def test_a_broken_backend_is_an_error_not_a_rejection(monkeypatch):
    def broken(name):
        raise ImportError("libfoo.so: undefined symbol")

    monkeypatch.setattr(registry, "import_module", broken)
    registry._named.cache_clear()
    with pytest.raises(ImportError, match="undefined symbol"):
        registry.rejection("present", problem())
