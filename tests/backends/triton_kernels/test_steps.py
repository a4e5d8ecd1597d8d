"""Steps of the kernels against the plain loop: every kind, order, structure and block of steps."""

from __future__ import annotations

import numpy as np
import pytest

from liquid_ssm.backends.triton_kernels.configurations import Configuration

KINDS = [("linear", 1), ("liquid", 1), ("truncated", 1), ("truncated", 2), ("truncated", 4), ("chain", 1), ("chain", 4)]


@pytest.fixture
def recurrence():
    from liquid_ssm.backends.triton_kernels.recurrences import recurrence

    return recurrence


@pytest.mark.parametrize("pairs", [True, False])
@pytest.mark.parametrize("rank", [None, 1, 2])
@pytest.mark.parametrize(("kind", "order"), KINDS)
def test_every_kind_is_that_of_the_plain_loop(case, expected, recurrence, poisoned, close, kind, order, rank, pairs):
    structure = "diagonal" if rank is None else "dplr"
    options = {} if rank is None else {"rank": rank}
    arrays, tensors = case(structure, order=order, length=6, conjugate_pairs=pairs, **options)
    y, final = recurrence(tensors.system, tensors.u, tensors.states, kind=kind, order=order, empty=poisoned)
    expected_y, expected_final = expected(arrays, kind, order)
    close(y.cpu(), expected_y)
    close(final.cpu(), expected_final)


@pytest.mark.parametrize("log_steps", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("modes", [1, 8])
def test_no_bit_of_a_state_depends_on_the_block(case, recurrence, poisoned, close, log_steps, modes):
    _, tensors = case(n_modes=modes, length=67)
    usual = recurrence(tensors.system, tensors.u, tensors.states, kind="liquid")
    configuration = Configuration(8, modes, log_steps)
    y, final = recurrence(
        tensors.system, tensors.u, tensors.states, kind="liquid", configuration=configuration, empty=poisoned
    )
    close(y.cpu(), usual[0].cpu())
    # Interpreted, every operation is NumPy's; compiled, contraction may differ from one configuration to the next.
    close(final.cpu(), usual[1].cpu())
    if tensors.u.device.type == "cpu":
        assert np.array_equal(final, usual[1])
