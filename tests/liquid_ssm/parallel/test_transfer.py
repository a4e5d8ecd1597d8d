"""What a slice does to a state: products of numbers and of polynomials, on one process."""

from __future__ import annotations

import pytest
import torch

from liquid_ssm.errors import UnstableRecurrence
from liquid_ssm.parallel.transfer import SCALES, Transfer, difference, handed_on, passed, require_in_range, seed


def whole(*shape):
    """Small whole numbers: their products and sums are exact."""
    return torch.randint(-3, 4, shape, generator=torch.Generator().manual_seed(sum(shape))).to(torch.complex128)


def test_slices_in_turn_are_one_recurrence():
    slices = Transfer(whole(4, 2, 3, 5), whole(4, 2, 3, 5) + 1)
    x = [slices.end[0]]
    for rank in (1, 2, 3):
        x.append(slices.product[rank] * x[-1] + slices.end[rank])
    assert torch.equal(torch.stack(handed_on(slices, orders=False)), torch.stack(x))
    # That of the first slice is not looked at: its end has the state before it.
    slices.product[0] = float("nan")
    assert torch.equal(torch.stack(handed_on(slices, orders=False)), torch.stack(x))


def test_orders_are_multiplied_like_polynomials_without_what_is_too_high():
    product, x = whole(2, 3, 4, 5), whole(2, 3, 4, 5) + 1
    a, b, c = product.unbind(1)
    p, q, r = x.unbind(1)
    expected = torch.stack([a * p, a * q + b * p, a * r + b * q + c * p], 1)
    assert torch.equal(passed(product, x, orders=True), expected)


def test_the_adjoint_is_the_same_product_of_reversed_coefficients():
    product, x, g = whole(2, 3, 4, 5), whole(2, 3, 4, 5) + 1, whole(2, 3, 4, 5) - 2
    forward = (passed(product, x, orders=True) * g).sum()
    turned = passed(product, g.flip(1), orders=True).flip(1)
    assert torch.equal(forward, (x * turned).sum())


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_two_runs_give_product_and_end(dtype):
    scale = SCALES["float32" if dtype == torch.complex64 else "float64"]
    # Numbers of few bits, so that every operation is exact; the end is as large as the state it is taken from.
    product, end = torch.full((1, 1, 2), 0.75 - 0.5j, dtype=dtype), torch.full((1, 1, 2), scale / 4, dtype=dtype)
    found = difference(scale * product + end, end, scale)
    assert torch.equal(found.product, product.to(torch.complex128))
    assert torch.equal(found.end, end.to(torch.complex128))


def test_the_seed_is_in_one_order():
    like = torch.zeros(2, 3, 4, 5, dtype=torch.complex64)
    assert torch.equal(seed(like, 8.0, at=None), torch.full_like(like, 8))
    for order in (0, -1):
        found = seed(like, 8.0, at=order)
        assert (found[:, order] == 8).all()
        assert found.sum() == 8 * 2 * 4 * 5


def test_a_state_beyond_the_scale_is_named():
    x = torch.zeros(1, 3, 2, dtype=torch.complex128)
    require_in_range(x + 2.0**60, 2.0**60, "x", shared=False)
    for bad in (2.0**61, float("inf"), float("nan")):
        x[0, 2, 1] = bad
        with pytest.raises(UnstableRecurrence, match=r"x is beyond 1.15e\+18 in channel 2") as raised:
            require_in_range(x, 2.0**60, "x", shared=False)
        assert raised.value.channel == 2
        with pytest.raises(UnstableRecurrence, match="channel 0"):
            require_in_range(x, 2.0**60, "x", shared=True)
