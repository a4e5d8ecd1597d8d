"""Who is asked: everyone, each with a reason if not."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

import liquid_ssm as ls
from liquid_ssm.backends.numpy_backend import NumPyBackend
from liquid_ssm.certificate import Candidate
from liquid_ssm.problem import ModeSpec, Problem
from liquid_ssm.selection.contenders import Contender, contenders

PROBLEM = Problem(ModeSpec("liquid"), "diagonal", 2, 2, 4, 40, "float64")


class Absent(NumPyBackend):
    name = "absent"
    requires = ("a_package_that_is_not_there",)
    install = "pip install a-package"


class Asking(NumPyBackend):
    name = "asking"

    def reject(self, problem):
        raise ZeroDivisionError("while it was asked")


@pytest.fixture
def planted(only, monkeypatch):
    monkeypatch.setitem(sys.modules, "planted_backends", sys.modules[__name__])
    only(
        "numpy", absent="planted_backends:Absent", asking="planted_backends:Asking", gone="no_such_module_anywhere:Gone"
    )


def found(problem=PROBLEM, **options):
    return {c.name: c for c in contenders(problem, **{"other_dtypes": False, **options})}


@pytest.mark.usefixtures("planted")
def test_whatever_is_wrong_with_one_stops_no_other():
    all_of_them = found()
    assert isinstance(all_of_them["numpy"], Contender)
    states = {c.name: (c.status, c.reason) for c in all_of_them.values() if isinstance(c, Candidate)}
    assert states["absent"][0] == "unavailable"
    assert "pip install a-package" in states["absent"][1]
    assert states["asking"] == ("failed", "ZeroDivisionError: while it was asked")
    assert states["gone"][0] == "failed"
    assert "no_such_module_anywhere" in states["gone"][1]


@pytest.mark.usefixtures("planted")
def test_a_call_survives_an_installation_that_is_broken(system, u):
    assert (ls.apply(system, u, mode="liquid") == ls.apply(system, u, mode="liquid", backend="numpy")).all()
    assert (ls.apply(system, u, mode="liquid", tolerance=1e-3)).shape == u.shape


def test_other_dtypes_come_last_and_only_where_asked():
    names = list(found(only=("numba", "numpy"), other_dtypes=True))
    assert names == ["numba", "numpy", "numba:float32", "numpy:float32"]
    narrow = found(only=("numpy",), other_dtypes=True)["numpy:float32"]
    assert narrow.problem == replace(PROBLEM, dtype="float32")
    assert list(found(replace(PROBLEM, dtype="float32"), only=("numpy",), other_dtypes=True)) == [
        "numpy", "numpy:float64"
    ]  # fmt: skip


def test_a_name_that_is_unknown_is_an_error_of_the_caller():
    with pytest.raises(ls.ParameterError, match="'numpy'"):
        found(only=("nunpy",))


def test_capabilities_count():
    dense = found(replace(PROBLEM, structure="dense"))
    assert dense["numba"].status == "rejected"
    assert "got dense" in dense["numba"].reason
    assert found(replace(PROBLEM, gradient=True))["scipy"].status == "rejected"
    assert found(replace(PROBLEM, arrays="torch"))["numpy"].status == "rejected"
    assert isinstance(found(replace(PROBLEM, arrays="torch"))["torch"], Contender)
