"""Eq. 11 and Eq. 2 as they are written, on whole numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from liquid_ssm.backends.eager.model import Model, as_number
from liquid_ssm.backends.eager.recurrence import run
from liquid_ssm.backends.eager.scan import Scan
from liquid_ssm.complex_numbers import join


@pytest.mark.parametrize("parts", [False, True])
@pytest.mark.parametrize("liquid", [False, True])
@pytest.mark.parametrize("structure", ["diagonal", "dense", "mimo"])
def test_states_follow_the_equation(whole, structure, liquid, parts):
    system = whole.system(structure)
    u, x = whole.real(2, 2, 4), whole.state(system, 2)
    tensors = system.to_torch()
    scan = Scan(Model.having(tensors, tensors.parameters, parts), liquid=liquid)
    assert scan.state_shape((2, 2)) == x.shape
    y, final = run(scan, torch.from_numpy(u), as_number(torch.from_numpy(x), parts))
    outputs = []
    for k in range(4):
        w = u[..., k] @ system.B_bar.T if structure == "mimo" else system.B_bar * u[..., k, None]
        moved = np.einsum("hnm,bhm->bhn", system.A_bar, x) if structure == "dense" else system.A_bar * x
        x = moved + (w * x if liquid else 0) + w
        outputs.append(system.weight * (x @ system.C.T if structure == "mimo" else (system.C * x).sum(-1)).real)
    np.testing.assert_array_equal(y, np.stack(outputs, -1))
    np.testing.assert_array_equal(join(final), x)
