from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from liquid_ssm.bench.operators import (
    ASSOCIATIVE,
    COMPILED_OPERATORS,
    OPERATOR_BACKENDS,
    OPERATORS,
    Operator,
    _tensors,
    operator_rows,
)
from liquid_ssm.bench.result import Result
from liquid_ssm.bench.run import bench
from liquid_ssm.bench.shapes import WORK, Shape
from liquid_ssm.bench.subjects import subject
from liquid_ssm.bench.tables import markdown, operator_table, text
from liquid_ssm.bench.work import BOTH, FORWARD
from liquid_ssm.registry import get_backend

SHAPE = Shape(1, 2, 8, 64)


def named(name: str) -> Operator:
    return next(operator for operator in OPERATORS if operator.name == name)


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda o: o.name)
def test_every_way_to_compute_an_operator_gives_the_same(operator):
    problem = _tensors(operator, subject(SHAPE, "float64"))
    results = {}
    for name in OPERATOR_BACKENDS:
        structures = get_backend(name).capabilities.primitives.get(operator.primitive)
        if structures is not None and (not structures or operator.structure in structures):
            results[name] = operator.prepare(get_backend(name), problem)().detach()
    assert len(results) >= 3
    first = results[COMPILED_OPERATORS]
    for other in results.values():
        # The same operator, not how accurate it is: that is what the property suite is for.
        torch.testing.assert_close(other, first, rtol=0, atol=1e-9 * float(first.abs().max()))


def test_rows_are_timed_forward_and_with_gradients_next_to_torchs_own_scan():
    rows = list(operator_rows(named("scan, liquid"), subject(SHAPE, "float32"), 10.0))
    assert {(row.subject, row.direction) for row in rows} == {
        (name, direction)
        for name in (COMPILED_OPERATORS, "torch", "torch-split-real", ASSOCIATIVE)
        for direction in (FORWARD, BOTH)
    }
    assert all(row.seconds is not None and row.slots for row in rows)
    table = operator_table("", rows)
    assert [cells[-1] for cells in table.rows if cells[0].startswith(COMPILED_OPERATORS)] == ["1", "1"]


def test_torchs_own_scan_computes_the_same():
    from liquid_ssm.bench.operators import _associative_scan

    problem = _tensors(named("scan, liquid"), subject(SHAPE, "float64"))
    y = get_backend("numba").scan(problem.system, problem.u, liquid=True)[0]
    torch.testing.assert_close(_associative_scan(problem)(), y, rtol=0, atol=1e-12 * float(y.detach().abs().max()))


def test_what_is_too_slow_or_not_there_says_so(monkeypatch):
    (slow, *_) = operator_rows(named("correlate, elementary(3)"), subject(SHAPE, "float32"), 1e-9)
    assert "more than the 1e-09 s" in slow.reason
    rows = list(operator_rows(replace(named("scan, liquid")), subject(replace(WORK, length=2048), "float32"), 1e-9))
    assert [row.reason for row in rows if row.subject == ASSOCIATIVE] == [
        "not measured: it would take many seconds a call"
    ] * 2
    monkeypatch.setattr("liquid_ssm.backend._installed", set())
    monkeypatch.setattr("liquid_ssm.backend.find_spec", lambda package: None)
    assert all("not installed" in r.reason for r in operator_rows(named("kernel, dplr"), subject(SHAPE, "float32"), 1))


def test_the_grid_of_operators_has_only_these(monkeypatch):
    monkeypatch.setattr("liquid_ssm.bench.run.shapes_of", lambda grid: (SHAPE,))
    monkeypatch.setattr("liquid_ssm.bench.run.OPERATORS", OPERATORS[:1])
    result = bench("operators")
    assert result.operators
    assert not result.rows + result.kernels
    assert not result.targets
    assert not result.errors
    assert "Torch operators, 1 x 2 x 64, N 8" in text(result)
    assert "### Torch operators" in markdown(result)
    assert Result.from_json(result.to_json()) == replace(
        result, settings={k: list(v) if isinstance(v, tuple) else v for k, v in result.settings.items()}
    )
