"""Input and output of a state against the NumPy backend's, exactly, on whole numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from liquid_ssm.backends import _ports as reference
from liquid_ssm.backends.eager.model import Model, as_number
from liquid_ssm.backends.eager.ports import Ports
from liquid_ssm.complex_numbers import join


@pytest.mark.parametrize("parts", [False, True])
@pytest.mark.parametrize("real", [(), ("C",), ("B_bar",), ("A_bar", "B_bar", "C")])
@pytest.mark.parametrize("structure", ["diagonal", "mimo"])
def test_drives_and_outputs_and_their_adjoints_are_those_of_numpy(whole, structure, real, parts):
    for pairs in (True, False):
        system = whole.system(structure, conjugate_pairs=pairs, real=real)
        tensors = system.to_torch()
        found = Ports(Model.having(tensors, tensors.parameters, parts))
        expected = reference.Ports(system)
        u, x = whole.real(5, 3, 2), np.stack([whole.state(system, 3) for _ in range(5)])
        U, X = torch.from_numpy(u), as_number(torch.from_numpy(x), parts and system.is_complex)
        for name, numbers, arrays in (
            ("drive", (U,), (u,)),
            ("drive_adjoint", (X,), (x,)),
            ("drive_gradient", (U, X), (u, x)),
            ("read", (X,), (x,)),
            ("read_adjoint", (U,), (u,)),
            ("read_gradient", (X, U), (x, u)),
        ):
            result = join(getattr(found, name)(*numbers))
            np.testing.assert_array_equal(result, getattr(expected, name)(*arrays), err_msg=name)
        assert (found.spread, found.shared, found.weight) == (expected.spread, expected.shared, expected.weight)
