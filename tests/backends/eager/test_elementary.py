from __future__ import annotations

from math import ceil, log2
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from liquid_ssm.backends import _elementary as readable
from liquid_ssm.backends.eager import elementary as eager
from liquid_ssm.backends.eager import sliding
from liquid_ssm.oracle import correlation, scan_bounds
from liquid_ssm.oracle.rounding import RoundingModel

Array = npt.NDArray[Any]
LENGTHS = [0, 1, 2, 3, 4, 5, 8, 9, 17]


def integers(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(-2, 3, shape).astype(float))


@pytest.fixture(params=["in the order of time", "doubled"])
def any_sum(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of `running_sum`, of which a CPU has one."""
    if request.param == "doubled":
        monkeypatch.setattr(eager, "running_sum", sliding.doubled_sum)
        monkeypatch.setattr(eager, "reversed_sum", lambda x: sliding.doubled_sum(x.flip(-1)).flip(-1))


@pytest.mark.usefixtures("any_sum")
@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("length", LENGTHS)
def test_values_and_gradients_are_exact_where_nothing_rounds(length: int, order: int) -> None:
    u, start = integers(0, 2, length), integers(1, order, 2)
    grad, grad_final = integers(2, order, 2, length), integers(3, order, 2)
    e = eager.elementary(u, start)
    expected = readable.elementary(u.numpy(), start.numpy())
    assert np.array_equal(e[..., 0].numpy(), start.numpy())
    assert np.array_equal(e[..., 1:].numpy(), expected)
    found = eager.elementary_vjp(u, e, grad, grad_final)
    others = readable.elementary_vjp(u.numpy(), start.numpy(), expected, grad.numpy(), grad_final.numpy())
    for x, y in zip(found, others, strict=True):
        assert np.array_equal(x.numpy(), y)
    without = eager.elementary_vjp(u, e, grad, None)
    zero = eager.elementary_vjp(u, e, grad, torch.zeros_like(grad_final))
    assert all(torch.equal(x, y) for x, y in zip(without, zero, strict=True))


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("window", [5, 6, 7, 8, 9, 40])
@pytest.mark.parametrize("length", LENGTHS)
def test_windows_are_exact_where_nothing_rounds(length: int, window: int, order: int) -> None:
    u, grad = integers(4, 2, length), integers(5, order, 2, length)
    e = eager.windowed_elementary(u, order, window)
    assert np.array_equal(e.numpy(), readable.windowed_elementary(u.numpy(), order, window))
    gradient = eager.windowed_elementary_vjp(u, order, window, grad)
    assert np.array_equal(gradient.numpy(), readable.windowed_elementary_vjp(u.numpy(), order, window, grad.numpy()))


@pytest.mark.usefixtures("any_sum")
@pytest.mark.parametrize("length", [1, 2, 33, 500])
def test_within_the_bound_of_running_sums_in_any_bracketing(length: int) -> None:
    u = np.random.default_rng(length).standard_normal((3, length)).astype(np.float32)
    model = RoundingModel.of_dtype("float32", scan="any")
    values, bounds = scan_bounds.elementary(u.astype(np.longdouble), 4, [model])
    found = eager.elementary(torch.from_numpy(u), torch.zeros(4, 3))[..., 1:].numpy()
    for p in range(4):
        assert (np.abs(found[p] - values[p]) <= bounds[p][0]).all()


@pytest.mark.parametrize("window", [4, 5, 7, 8, 9, 16, 17, 33, 100])
def test_windows_are_within_their_bound(window: int) -> None:
    u = np.random.default_rng(window).standard_normal((3, 150)).astype(np.float32)
    values, bounds = correlation.windowed_elementary(
        u.astype(np.longdouble), 4, window, [RoundingModel.of_dtype("float32")]
    )
    found = eager.windowed_elementary(torch.from_numpy(u), 4, window).numpy()
    for p in range(4):
        assert (np.abs(found[p] - values[p]) <= bounds[p][0]).all()


def test_no_window_needs_more_roundings_than_the_bound_allows() -> None:
    # The docstring's counts against window + 2p + 2, and against its double for gradients (docs/bounds-gradients.md).
    for window in range(1, 3000):
        levels = ceil(log2(window))
        for p in range(1, min(window, 40) + 1):
            additions = ceil(log2(p + 1))
            forwards = p - 1 + levels * additions
            assert forwards <= window + 2 * p + 2
            backwards = p + levels * (ceil(log2(p)) + 2)
            assert forwards + backwards <= 2 * (window + 2 * p + 2)


def moduli_bound(gradient: Array, roundings: int) -> Array:
    """γ_n times the gradient of moduli, and the float64 reference's share of it."""
    unit = roundings * 2.0**-24
    return np.asarray((unit / (1 - unit)) * (1 + 2.0**-20) * gradient)


@pytest.mark.usefixtures("any_sum")
@pytest.mark.parametrize("length", [1, 5, 64])
def test_gradients_are_within_the_counted_roundings(length: int) -> None:
    rng, order = np.random.default_rng(length), 3
    u, start = rng.standard_normal((2, length)).astype(np.float32), rng.standard_normal((order, 2)).astype(np.float32)
    grad, last = rng.standard_normal((order, 2, length)), rng.standard_normal((order, 2))
    grad, last = grad.astype(np.float32), last.astype(np.float32)
    e = eager.elementary(torch.from_numpy(u), torch.from_numpy(start))
    found = eager.elementary_vjp(torch.from_numpy(u), e, torch.from_numpy(grad), torch.from_numpy(last))

    def exact(*arrays: Array) -> tuple[Array, Array]:
        v, first, g, final = (a.astype(float) for a in arrays)
        return readable.elementary_vjp(v, first, readable.elementary(v, first), g, final)

    expected, sizes = exact(u, start, grad, last), exact(*(np.abs(a) for a in (u, start, grad, last)))
    # Per order and direction a sum over time with two terms joined before it and a product; P for the last sum.
    roundings = 2 * order * (length + 1 + 2 + 1) + order
    for x, y, size in zip(found, expected, sizes, strict=True):
        assert (np.abs(x.numpy() - y) <= moduli_bound(size, roundings)).all()


@pytest.mark.parametrize("window", [3, 6, 17, 64])
def test_gradients_of_windows_are_within_the_counted_roundings(window: int) -> None:
    rng, order = np.random.default_rng(window), 3
    u, grad = rng.standard_normal((2, 90)).astype(np.float32), rng.standard_normal((order, 2, 90)).astype(np.float32)
    found = eager.windowed_elementary_vjp(torch.from_numpy(u), order, window, torch.from_numpy(grad)).numpy()
    expected = readable.windowed_elementary_vjp(u.astype(float), order, window, grad.astype(float))
    size = readable.windowed_elementary_vjp(np.abs(u).astype(float), order, window, np.abs(grad).astype(float))
    # Both directions, at most `window` cotangents of p <= order outputs besides.
    roundings = 2 * (window + 2 * order + 2)
    assert (np.abs(found - expected) <= moduli_bound(size, roundings)).all()


def test_autograd_agrees_with_finite_differences() -> None:
    u, start = integers(6, 2, 7).requires_grad_(), integers(7, 3, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda *v: eager.elementary(*v), (u, start))
    assert torch.autograd.gradcheck(lambda v: eager.windowed_elementary(v, 3, 5), (u,))


def test_can_be_compiled_as_one_graph() -> None:
    u, start = integers(8, 2, 9), integers(9, 3, 2)

    def everything(u: torch.Tensor, start: torch.Tensor) -> tuple[torch.Tensor, ...]:
        e = eager.elementary(u, start)
        windowed = eager.windowed_elementary(u, 3, 5)
        return e, *eager.elementary_vjp(u, e, windowed, start), eager.windowed_elementary_vjp(u, 3, 5, windowed)

    compiled = torch.compile(everything, backend="eager", fullgraph=True)
    assert all(torch.equal(x, y) for x, y in zip(compiled(u, start), everything(u, start), strict=True))
