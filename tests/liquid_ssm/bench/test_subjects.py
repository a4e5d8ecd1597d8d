"""What is measured: the same inputs every time, results checked for NaN, threads where a backend takes them."""

from __future__ import annotations

import numpy as np
import pytest

import liquid_ssm as ls
from liquid_ssm.bench.shapes import Shape
from liquid_ssm.bench.subjects import (
    SPECS,
    NotANumber,
    arrays,
    call,
    checked,
    subject,
    takes_threads,
    with_threads,
)
from liquid_ssm.bench.work import BACKWARD, FORWARD
from liquid_ssm.registry import get_backend

TINY = Shape(2, 3, 4, 8)


def test_the_same_problem_every_time():
    first, second = subject(TINY, "float32"), subject(TINY, "float32")
    np.testing.assert_array_equal(first.u, second.u)
    assert first.u.shape == first.grad_y.shape == (2, 3, 8)
    assert first.u.dtype == first.system.dtype == np.float32
    assert not np.array_equal(first.u, first.grad_y)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.label)
def test_calls_are_apply_and_vjp(spec):
    one = subject(TINY, "float64")
    chosen = {"mode": spec.mode, "correlations": spec.correlations, "backend": "numpy"}
    np.testing.assert_array_equal(call(one, spec, "numpy", FORWARD)(), ls.apply(one.system, one.u, **chosen))
    gradients = call(one, spec, "numpy", BACKWARD)()
    np.testing.assert_array_equal(gradients.u, ls.vjp(one.system, one.u, one.grad_y, **chosen).u)


def test_a_nan_is_an_error():
    good = np.ones((2, 3))
    assert checked(lambda: good, 6, "float32") is good
    bad = np.array([1.0, np.nan, np.nan])
    with pytest.raises(NotANumber, match=r"array 1 of the result, shape \(3,\), holds 2 NaN; .*liquid-ssm verify"):
        checked(lambda: (good, {"A_bar": bad}), 6, "float32")


def test_memory_that_was_not_written_is_found():
    # Most allocators hand out the freed block again; where one does not, the zeros of the system are no NaN.
    assert all(not np.isnan(a).any() for a in arrays(checked(lambda: np.zeros(1000), 1000, "float64")))


def test_arrays_of_nested_results():
    found = arrays(({"a": np.ones(2), "b": None}, (np.zeros(1), None)))
    assert [len(a) for a in found] == [2, 1]


def test_threads_go_to_those_that_take_them(compiled):
    assert with_threads(compiled, 5).threads == 5
    assert with_threads(compiled, None) is compiled
    # What else it was made with stays.
    assert with_threads(type(compiled)(2, "special"), 5).flavour == "special"
    assert with_threads(get_backend("scipy"), 5).workers == 5
    numpy = get_backend("numpy")
    assert with_threads(numpy, 5) is numpy
    assert (takes_threads(compiled), takes_threads(numpy)) == (True, False)
