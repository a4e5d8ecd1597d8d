"""One step of the state against the NumPy backend's, exactly, on whole numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from liquid_ssm.backends import _transition as reference
from liquid_ssm.backends.eager.model import Model, as_number
from liquid_ssm.backends.eager.transition import sum_leading, transition_of
from liquid_ssm.complex_numbers import conj, join


@pytest.mark.parametrize("parts", [False, True])
@pytest.mark.parametrize("driven", [False, True])
@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize("structure", ["diagonal", "dplr", "dense", "mimo"])
def test_steps_adjoints_and_gradients_are_those_of_numpy(whole, structure, rank, driven, parts):
    for pairs in (True, False):
        options = {} if structure == "dense" else {"conjugate_pairs": pairs}
        system = whole.system(structure, rank=rank, **options)
        tensors = system.to_torch()
        found = transition_of(Model.having(tensors, tensors.parameters, parts))
        expected = reference.transition_of(system)
        x, g, w = whole.state(system, 4), whole.state(system, 4), whole.state(system, 4) if driven else None
        X, G, W = (None if a is None else as_number(torch.from_numpy(a), parts) for a in (x, g, w))
        diagonal = found.diagonal(W)
        np.testing.assert_array_equal(join(found.apply(X, diagonal)), expected.apply(x, w))
        turned = None if diagonal is None else conj(diagonal)
        np.testing.assert_array_equal(join(found.adjoint(G, turned)), expected.adjoint(g, w))
        gradients = expected.gradients(x, g)
        assert found.spread == expected.spread
        assert found.gradients(X, G).keys() == gradients.keys()
        for name, gradient in found.gradients(X, G).items():
            np.testing.assert_array_equal(join(gradient), gradients[name])


def test_sums_run_over_all_leading_axes_and_over_none():
    terms = torch.arange(24.0).reshape(2, 3, 4)
    assert torch.equal(sum_leading(terms, 1), terms.sum((0, 1)))
    assert torch.equal(sum_leading(terms, 3), terms)
