"""Parameters as numbers."""

from __future__ import annotations

import torch

from liquid_ssm.backends.eager.model import Model, as_number
from liquid_ssm.complex_numbers import Split, join


def test_with_parts_every_parameter_of_a_complex_system_is_split_and_none_of_a_real_one(whole):
    mixed = whole.system("diagonal", real=("A_bar",)).to_torch()
    model = Model.having(mixed, mixed.parameters, True)
    assert all(isinstance(z, Split) for z in model.parameters.values())
    for name, z in model.parameters.items():
        assert torch.equal(join(z), mixed.parameters[name].to(torch.complex128))
    real = whole.system("diagonal", real=("A_bar", "B_bar", "C")).to_torch()
    assert Model.having(real, real.parameters, True).parameters == real.parameters


def test_parts_are_contiguous():
    z = torch.ones((2, 3), dtype=torch.complex64).mT
    parts = as_number(z, True)
    assert parts.re.is_contiguous()
    assert parts.im.is_contiguous()
    assert as_number(z, False) is z


def test_rest_is_of_the_kind_of_the_state(whole):
    pair, real = whole.system("diagonal").to_torch(), whole.system("diagonal", real=("A_bar", "B_bar", "C")).to_torch()
    assert Model.having(pair, pair.parameters, False).zeros((2,)).dtype == torch.complex128
    assert isinstance(Model.having(pair, pair.parameters, True).zeros((2,)), Split)
    for parts in (False, True):
        assert Model.having(real, real.parameters, parts).zeros((2,)).dtype == torch.float64


def test_the_weight_is_two_for_pairs(whole):
    for pairs in (True, False):
        system = whole.system("dplr", conjugate_pairs=pairs).to_torch()
        assert Model.having(system, system.parameters, False).weight == (2 if pairs else 1)
