from __future__ import annotations

from collections.abc import Callable
from math import ceil, log2

import numpy as np
import pytest
import torch

from liquid_ssm.backends.eager.sliding import advanced, delayed, doubled_sum, moving_sum, reversed_sum, running_sum
from liquid_ssm.oracle import scan_bounds
from liquid_ssm.oracle.rounding import RoundingModel

LENGTHS = [0, 1, 2, 3, 4, 5, 7, 8, 9, 13, 31, 32, 33]
SUMS = [running_sum, doubled_sum]


def integers(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(sum(shape)).integers(-9, 10, shape).astype(float))


@pytest.mark.parametrize("total", SUMS)
@pytest.mark.parametrize("length", LENGTHS)
def test_running_sums_are_exact_where_no_sum_rounds(total: Callable[..., torch.Tensor], length: int) -> None:
    terms = integers(2, 3, length)
    assert np.array_equal(total(terms).numpy(), np.cumsum(terms.numpy(), -1))
    assert np.array_equal(reversed_sum(terms).numpy(), np.cumsum(terms.numpy()[..., ::-1], -1)[..., ::-1])


@pytest.mark.parametrize("total", SUMS)
@pytest.mark.parametrize("length", [1, 2, 17, 64, 1000])
def test_running_sums_are_within_the_bound_of_any_bracketing(total: Callable[..., torch.Tensor], length: int) -> None:
    terms = np.random.default_rng(length).standard_normal((2, 3, length)).astype(np.float32)
    model = RoundingModel.of_dtype("float32", scan="any")
    exact = terms.astype(np.longdouble)
    (sums,), (bound,) = scan_bounds.running_sums([exact], [np.zeros((1, *terms.shape))], [model])
    error = np.abs(total(torch.from_numpy(terms)).numpy() - sums)
    assert (error <= bound[0]).all()


@pytest.mark.parametrize("length", LENGTHS[2:])
def test_doubling_passes_a_term_through_the_logarithm_of_additions(length: int) -> None:
    # Added to 1 one after the other, in the order of time, all of these are lost.
    terms = torch.full((length,), 2.0**-24)
    terms[0] = 1.0
    exact = 1 + (length - 1) * 2.0**-24
    assert abs(float(doubled_sum(terms)[-1]) - exact) <= ceil(log2(length)) * 2.0**-24 * exact


@pytest.mark.parametrize("total", SUMS)
def test_no_sum_depends_on_later_terms(total: Callable[..., torch.Tensor]) -> None:
    terms = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 21)))
    expected = total(terms)
    for k in range(20):
        changed = terms.clone()
        changed[..., k + 1 :] = torch.nan
        assert torch.equal(total(changed)[..., : k + 1], expected[..., : k + 1])


@pytest.mark.parametrize("window", [1, 2, 3, 4, 5, 7, 8, 9, 50])
@pytest.mark.parametrize("length", LENGTHS)
def test_moving_sums_are_exact_where_no_sum_rounds(length: int, window: int) -> None:
    terms = integers(2, length)
    padded = np.concatenate([np.zeros((2, window - 1)), terms.numpy()], -1)
    expected = np.lib.stride_tricks.sliding_window_view(padded, window, axis=-1).sum(-1) if length else terms.numpy()
    found = moving_sum(terms, window)
    assert np.array_equal(found.numpy(), expected)
    assert length == 0 or found.data_ptr() != terms.data_ptr()


def test_what_left_the_window_leaves_no_trace() -> None:
    terms = torch.ones(1, 40)
    terms[..., 7] = 1e30
    assert torch.equal(moving_sum(terms, 6)[..., 13:], torch.full((1, 27), 6.0))


@pytest.mark.parametrize("steps", [0, 1, 3, 4, 9])
def test_advancing_is_the_adjoint_of_delaying(steps: int) -> None:
    x, y = integers(2, 4), integers(4, 2).T
    assert (delayed(x, steps) * y).sum() == (x * advanced(y, steps)).sum()
    expected = np.zeros((2, 4))
    expected[:, steps:] = x.numpy()[:, : max(0, 4 - steps)]
    assert np.array_equal(delayed(x, steps).numpy(), expected)


@pytest.mark.parametrize("function", [running_sum, doubled_sum, reversed_sum, lambda x: moving_sum(x, 5)])
def test_can_be_compiled_as_one_graph_and_differentiated(function: Callable[..., torch.Tensor]) -> None:
    terms = integers(2, 11).requires_grad_()
    assert torch.equal(torch.compile(function, backend="eager", fullgraph=True)(terms), function(terms))
    assert torch.autograd.gradcheck(function, (terms,))
