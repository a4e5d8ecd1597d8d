"""Gradients of a contender against exact ones, and inside the real shape."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from liquid_ssm.backends.numpy_backend import NumPyBackend
from liquid_ssm.problem import ModeSpec, Problem
from liquid_ssm.selection import gradient_check as module
from liquid_ssm.selection.contenders import Contender
from liquid_ssm.selection.data import canonical
from liquid_ssm.selection.gradient_check import check_gradients
from liquid_ssm.selection.verification import Refused

PROBLEM = Problem(ModeSpec("liquid"), "diagonal", 3, 3, 4, 30, "float64", gradient=True)


def check(backend, problem=PROBLEM):
    return check_gradients(Contender(backend.name, backend, problem), canonical(problem))


@pytest.mark.parametrize("mode", ["s4", "liquid", "truncated", "kb", "pb"])
@pytest.mark.parametrize("structure", ["diagonal", "dplr", "dense", "mimo"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_right_gradients_are_within_their_bounds(structure, mode, dtype):
    if structure == "mimo" and mode in ("kb", "pb"):
        pytest.skip("these modes multiply scalar inputs, which mimo systems do not have")
    found = check(NumPyBackend(), replace(PROBLEM, structure=structure, spec=ModeSpec(mode, 2), dtype=dtype))
    assert 0 < found.error < (1e-4 if dtype == "float32" else 1e-12)
    assert 0 < found.ratio <= 1


class OneParameter(NumPyBackend):
    """The gradient of one parameter is off by more than rounding."""

    def __init__(self, parameter):
        self.parameter = parameter

    def scan_vjp(self, *args, **options):
        found = super().scan_vjp(*args, **options)
        if self.parameter == "u":
            return found._replace(u=found.u * (1 + 1e-10))
        changed = found.parameters[self.parameter] * (1 + 1e-10)
        return found._replace(parameters={**found.parameters, self.parameter: changed})


@pytest.mark.parametrize("parameter", ["u", "A_bar", "B_bar", "C"])
def test_each_gradient_counts(parameter):
    assert check(OneParameter(parameter)).ratio > 1


class Reaches(NumPyBackend):
    """Right for one row and one channel; in the whole, one reaches another."""

    def __init__(self, where):
        self.where = where

    def scan_vjp(self, *args, **options):
        found = super().scan_vjp(*args, **options)
        if found.u.shape[:2] != (3, 3):
            return found
        if self.where == "u":
            return found._replace(u=found.u + 1e-300)
        changed = found.parameters[self.where] + 1e-300
        return found._replace(parameters={**found.parameters, self.where: changed})


@pytest.mark.parametrize(("where", "words"), [("u", "inputs of other rows"), ("C", "reaches C of another")])
def test_what_reaches_other_rows_and_channels_is_refused(where, words):
    with pytest.raises(Refused, match=words):
        check(Reaches(where))


def test_gradients_without_a_finite_bound_are_refused(monkeypatch):
    from liquid_ssm.oracle import adjoint_bounds

    usual = adjoint_bounds.gradient_bounds
    monkeypatch.setattr(
        adjoint_bounds, "gradient_bounds", lambda *a, **o: {k: v * np.inf + 1 for k, v in usual(*a, **o).items()}
    )
    with np.errstate(invalid="ignore"), pytest.raises(Refused, match="not finite here"):
        check(NumPyBackend())

    def none(*args, **options):
        raise ValueError("there is none")

    monkeypatch.setattr(adjoint_bounds, "gradient_bounds", none)
    with pytest.raises(Refused, match="no bound is derived for its gradients: there is none"):
        check(NumPyBackend())


def test_exact_gradients_are_found_once_for_all_contenders(monkeypatch):
    from liquid_ssm.oracle import adjoint

    usual, calls = adjoint.gradients, []
    monkeypatch.setattr(adjoint, "gradients", lambda *a, **o: calls.append(1) or usual(*a, **o))
    data = canonical(PROBLEM)
    for _ in range(3):
        assert check_gradients(Contender("numpy", NumPyBackend(), PROBLEM), data).ratio <= 1
    assert len(calls) == 1


@pytest.mark.parametrize(("structure", "modes"), [("diagonal", 6), ("dplr", 2), ("dense", 2)])
def test_how_many_modes_have_exact_derivatives_by_duals(structure, modes, monkeypatch):
    """Six modes of a matrix would take the whole budget."""
    from liquid_ssm.oracle import adjoint

    usual, seen = adjoint.gradients_by_duals, []
    monkeypatch.setattr(adjoint, "gradients_by_duals", lambda r, *a, **o: seen.append(r.n_modes) or usual(r, *a, **o))
    check(NumPyBackend(), replace(PROBLEM, structure=structure, spec=ModeSpec("kb", 2), n_modes=8))
    assert seen == [modes]
    assert module._EXACT_MODES == 6
