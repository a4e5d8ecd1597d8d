"""One spelling for real tensors, complex tensors and real and imaginary parts apart."""

from __future__ import annotations

import itertools

import pytest
import torch

from liquid_ssm import complex_numbers as numbers
from liquid_ssm.complex_numbers import Split, join


def values():
    re, im = torch.tensor([[1.0, -2.0], [3.0, 0.5]]), torch.tensor([[-1.0, 4.0], [2.0, 0.25]])
    return {"real": re, "complex": torch.complex(re, im), "split": Split(re, im)}


PAIRS = [(a, b) for a, b in itertools.product(values(), repeat=2) if {a, b} != {"complex", "split"}]  # which never meet


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_products_sums_and_differences_are_those_of_complex_tensors(a, b):
    x, y = values()[a], values()[b]
    p, q = join(x), join(y)
    assert torch.equal(join(numbers.times(x, y)), p * q)
    assert torch.equal(join(numbers.plus(x, y)), p + q)
    if a != "real" or b != "split":
        assert torch.equal(join(x - y), p - q)
    assert torch.equal(join(numbers.cat([x, y], 1)), torch.cat([p, q], 1))


@pytest.mark.parametrize(("a", "b"), [("split", "split"), ("split", "real"), ("real", "split")])
def test_quotients_and_differences_of_any_two_kinds(a, b):
    x, y = values()[a], values()[b]
    p, q = join(x), join(y)
    one = values()["real"] + 1
    for found, expected in ((x / y, p / q), (1 - x, 1 - p), (one / y, one / q)):
        # A product, a sum of squares and a division: some roundings of a float32.
        assert torch.allclose(join(found), expected, rtol=8 * torch.finfo(torch.float32).eps, atol=0)


@pytest.mark.parametrize("kind", values())
def test_functions_of_one_number_are_those_of_torch(kind):
    z = values()[kind]
    whole = join(z)
    assert torch.equal(join(numbers.conj(z)), whole.conj())
    assert not join(numbers.conj(z)).is_conj()
    assert numbers.is_complex(z) == whole.is_complex()
    assert torch.equal(numbers.imag(z), whole.imag if whole.is_complex() else torch.zeros_like(whole))
    assert torch.equal(join(numbers.stack([z, z], 0)), torch.stack([whole, whole], 0))
    assert torch.equal(join(numbers.unbind(z)[1]), whole[1])
    assert torch.equal(join(numbers.each_part(z, lambda part: part.sum(-1))), whole.sum(-1))
    assert torch.equal(join(z[0]), whole[0])
    assert torch.equal(join(-z), -whole)
    assert numbers.size(z) == 4
    assert z.shape == (2, 2)


def test_a_complex_tensor_is_split_and_joined_again():
    whole = values()["complex"]
    assert torch.equal(join(numbers.split(whole)), whole)
    real = values()["real"]
    assert numbers.split(real) is real


@pytest.mark.parametrize("kind", values())
def test_what_was_widened_is_rounded_once(kind):
    z = values()[kind]
    wide = numbers.in_double(z)
    assert wide.real.dtype == torch.float64
    back = numbers.rounded_like(wide * (1 + 2.0**-40), z)
    assert torch.equal(join(back), join(z))
    assert join(back).dtype == join(z).dtype
