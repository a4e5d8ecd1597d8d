"""Scans that are parallel in time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from liquid_ssm.backends.eager.model import Model
from liquid_ssm.backends.eager.pieces import piece_steps, scan_in_pieces
from liquid_ssm.backends.eager.recurrence import run
from liquid_ssm.backends.eager.scan import Scan
from liquid_ssm.complex_numbers import join


@pytest.mark.parametrize(
    ("elements", "length", "steps"),
    [(8, 127, None), (8, 128, 8), (4096, 128, 8), (4097, 128, None), (0, 128, None), (8, 20_000, 100)],
)
def test_few_rows_over_many_steps_are_cut_where_operations_in_a_row_are_fewest(elements, length, steps):
    assert piece_steps(elements, length) == steps
    if steps is not None:
        assert 2 * steps + length // steps < 2 * (2 * length) ** 0.5 + 4


def scan_of(whole, structure, parts, liquid):
    system = whole.system(structure, n_modes=1).to_torch()
    # Rotations, so that states of whole numbers stay small; where u is not 0 the transition may have modulus 3.
    turned = torch.full_like(system.A_bar, 1j)
    system = type(system)(turned, torch.ones_like(system.B_bar), system.C)
    return Scan(Model.having(system, system.parameters, parts), liquid=liquid)


@pytest.mark.parametrize("parts", [False, True])
@pytest.mark.parametrize("structure", ["diagonal", "mimo"])
@pytest.mark.parametrize("liquid", [False, True])
@pytest.mark.parametrize(("length", "piece"), [(12, 4), (13, 4), (12, 12), (12, 5), (7, 1)])
@pytest.mark.parametrize("chunk_steps", [None, 1, 7])
def test_on_whole_numbers_pieces_give_what_the_order_of_time_gives(
    whole, structure, parts, liquid, length, piece, chunk_steps
):
    scan = scan_of(whole, structure, parts, liquid)
    u = torch.from_numpy(whole.real(2, 2, length))
    y, final = run(scan, u, scan.at_rest(u))
    z, last = scan_in_pieces(scan, u, None, piece, chunk_steps)
    assert torch.equal(y, z)
    assert torch.equal(join(final), join(last))
    # The second half from the state after the first.
    z, last = scan_in_pieces(scan, u, final, piece, chunk_steps)
    y, final = run(scan, u, final)
    assert torch.equal(y, z)
    assert torch.equal(join(final), join(last))


def test_from_rest_the_product_of_the_first_piece_may_overflow():
    big = torch.full((1, 1), 1e200, dtype=torch.float64)
    model = Model("diagonal", {"A_bar": big, "B_bar": big, "C": big}, False, False, False)
    u = torch.zeros((1, 1, 8), dtype=torch.float64)
    y, final = scan_in_pieces(Scan(model, liquid=False), u, None, 4)
    assert np.array_equal(y, u)
    assert final.item() == 0
