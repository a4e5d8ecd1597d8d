"""Eq. 12 and the chains of Eq. 14 as they are written, on whole numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from liquid_ssm.backends.eager.cascade import Chain, Truncated
from liquid_ssm.backends.eager.model import Model, as_number
from liquid_ssm.backends.eager.recurrence import run
from liquid_ssm.complex_numbers import join


@pytest.mark.parametrize("parts", [False, True])
@pytest.mark.parametrize("real", [(), ("B_bar",)])
@pytest.mark.parametrize("kind", [Truncated, Chain])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_orders_follow_the_equations(whole, kind, order, real, parts):
    system = whole.system("diagonal", real=real)
    u, x = whole.real(2, 2, 4), np.stack([whole.state(system, 2) for _ in range(order)])
    tensors = system.to_torch()
    cascade = kind(Model.having(tensors, tensors.parameters, parts), order=order)
    assert cascade.state_shape((2, 2)) == x.shape
    y, final = run(cascade, torch.from_numpy(u), as_number(torch.from_numpy(x), parts))
    outputs = []
    for k in range(4):
        now = u[..., k, None]
        w = system.B_bar * now
        factor = w if kind is Truncated else now
        x = np.stack([system.A_bar * x[p] + (w if p == 0 else factor * x[p - 1]) for p in range(order)])
        seen = x.sum(0) if kind is Truncated else x[-1]
        outputs.append(system.weight * (system.C * seen).sum(-1).real)
    np.testing.assert_array_equal(y, np.stack(outputs, -1))
    np.testing.assert_array_equal(join(final), x)
