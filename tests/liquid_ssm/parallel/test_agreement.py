"""What ranks must have in common, and how a difference is worded."""

from __future__ import annotations

import pytest
import torch

import liquid_ssm as ls
from liquid_ssm.errors import DTypeError, ParameterError, ShapeError
from liquid_ssm.parallel.agreement import fingerprint, require_agreement


def system(change=0.0):
    A_bar = torch.full((2, 3), 0.5 + 0.1j, dtype=torch.complex64)
    A_bar[1, 2] += change
    return ls.DiagonalSystem(A_bar, torch.ones_like(A_bar), torch.ones_like(A_bar))


def test_a_fingerprint_sees_every_bit():
    assert fingerprint(system()) == fingerprint(system())
    assert fingerprint(system()) != fingerprint(system(2.0**-24))
    swapped = ls.DiagonalSystem(system().B_bar, system().A_bar, system().C)
    assert fingerprint(system()) != fingerprint(swapped)


@pytest.mark.parametrize(("name", "error"), [("mode", ParameterError), ("batch", ShapeError), ("dtype", DTypeError)])
def test_who_has_what(name, error):
    notes = [{name: "a"}, {name: "b"}, {name: "a"}, {name: "a"}]
    with pytest.raises(error, match=f"agree on {name}: a on ranks 0, 2, 3; b on rank 1"):
        require_agreement(notes, (name,))
    require_agreement(notes[2:], (name,))


def test_many_ranks_are_not_listed_one_by_one():
    notes = [{"mode": "a"}] * 63 + [{"mode": "b"}]
    with pytest.raises(ParameterError, match="a on ranks 0, 1, 2, 3, 4, 5, 6, 7, …; b on rank 63"):
        require_agreement(notes, ("mode",))
