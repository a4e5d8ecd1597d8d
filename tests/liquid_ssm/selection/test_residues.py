"""Lengths that a certificate holds: all of its domain, or those with a residue that was verified."""

from __future__ import annotations

from dataclasses import replace

import pytest

from liquid_ssm.certificate import Certificate
from liquid_ssm.selection.residues import holds_length, residues_of


@pytest.mark.parametrize(
    ("recorded", "held", "not_held"),
    [("all", [0, 1, 64, 12345], []), ([40], [40, 168, 1064], [0, 41, 39, 128]), ([0, 64], [64, 128], [1, 65])],
)
def test_lengths(make_certificate, recorded, held, not_held):
    certificate = replace(make_certificate(), oracle={"residues": recorded})
    for one in (certificate, Certificate.from_json(certificate.to_json())):
        assert all(holds_length(one, length) for length in held)
        assert not any(holds_length(one, length) for length in not_held)
        assert residues_of(one) == (None if recorded == "all" else frozenset(recorded))
