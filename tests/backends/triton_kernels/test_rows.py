"""Systems and states as planes of real and imaginary parts, and back."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def rows(case):
    from liquid_ssm.backends.triton_kernels.rows import Rows

    def make(structure="diagonal", order=2, **options):
        _, tensors = case(structure, order=order, length=4, **options)
        return Rows(tensors.system, tensors.u, "truncated", order), tensors

    return make


def test_states_come_back_as_they_went_in(rows):
    made, tensors = rows()
    planes = made.states_in(tensors.states)
    assert tuple(planes.shape) == (4, 6, 5)
    assert planes[2].view(2, 3, 5).equal(tensors.states[:, 1].real)
    assert planes[3].view(2, 3, 5).equal(tensors.states[:, 1].imag)
    assert made.states_out(planes).equal(tensors.states)
    assert not made.states_in(None).any()


def test_planes_have_the_weight_in_what_is_read_with(rows):
    made, tensors = rows("dplr", rank=2)
    system = tensors.system
    assert tuple(made.planes.shape) == (14, 3, 5)
    assert made.planes[0].equal(system.Lambda_bar.real)
    assert made.planes[5].equal(2 * system.C.imag)
    assert made.planes[10].equal(system.P_bar[1].real)
    assert made.planes[13].equal(2 * system.Q_bar[1].imag)


def test_all_modes_stored_have_no_weight(rows):
    made, tensors = rows(conjugate_pairs=False)
    assert made.planes[4].equal(tensors.system.C.real)


def test_gradients_are_added_up_over_the_batch(rows):
    import torch

    made, tensors = rows("dplr", rank=1)
    planes = torch.randn(10, 6, 5, dtype=torch.float64, device=tensors.u.device)
    found = made.gradients(planes)
    total = planes.view(10, 2, 3, 5).sum(1).cpu().numpy()
    whole = total[0::2] + 1j * total[1::2]
    expected = {
        "Lambda_bar": whole[0],
        "B_bar": whole[1],
        "C": 2 * whole[2],
        "P_bar": -whole[3:4],
        "Q_bar": -2 * whole[4:5],
    }
    assert found.keys() == tensors.system.parameters.keys()
    for name, value in expected.items():
        assert np.array_equal(found[name].cpu(), value)
