"""Chunks of steps: their length must not change a result, and gradients come in the parameters' dtypes."""

from __future__ import annotations

import pytest
import torch

from liquid_ssm.backends.eager import recurrence as module
from liquid_ssm.backends.eager.cascade import Truncated
from liquid_ssm.backends.eager.model import Model
from liquid_ssm.backends.eager.recurrence import chunks, final_state, like, run, run_vjp, time_first
from liquid_ssm.backends.eager.scan import Scan
from liquid_ssm.complex_numbers import Split, join


def recurrences(whole, structure):
    system = whole.system(structure, n_modes=2).to_torch()
    for parts in (False, True):
        model = Model.having(system, system.parameters, parts)
        yield Scan(model, liquid=True)
        yield Truncated(model, order=2)


@pytest.mark.parametrize("structure", ["diagonal", "dplr", "dense", "mimo"])
def test_the_length_of_chunks_changes_nothing(whole, structure):
    u, grad = torch.from_numpy(whole.real(2, 2, 6)), torch.from_numpy(whole.real(2, 2, 6))
    for recurrence in recurrences(whole, structure):
        rest = recurrence.at_rest(u)
        y, final = run(recurrence, u, rest)
        whole_gradients = run_vjp(recurrence, u, rest, grad, final)
        for steps in (1, 4, 6, 100):
            z, last = run(recurrence, u, rest, steps)
            assert torch.equal(y, z)
            assert torch.equal(join(final), join(last))
            assert torch.equal(join(final), join(final_state(recurrence, u, rest, steps)))
            by_name, grad_u, grad_state = run_vjp(recurrence, u, rest, grad, final, steps)
            assert torch.equal(grad_u, whole_gradients[1])
            assert torch.equal(join(grad_state), join(whole_gradients[2]))
            for name, gradient in by_name.items():
                assert torch.equal(join(gradient), join(whole_gradients[0][name]))


def test_a_chunk_is_as_long_as_its_largest_temporary_allows(whole, monkeypatch):
    system = whole.system("dense", n_modes=3).to_torch()
    scan = Scan(Model.having(system, system.parameters, False), liquid=False)
    state = torch.zeros((2, 2, 3))
    assert chunks(scan, 130, state, None) == [(0, 64), (64, 128), (128, 130)]
    # 12 numbers, 3 times as many in a product with the matrix.
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", 36 * 5 + 35)
    assert chunks(scan, 12, state, None) == [(0, 5), (5, 10), (10, 12)]
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", 35)
    assert chunks(scan, 2, state, None) == [(0, 1), (1, 2)]
    assert chunks(scan, 5, state, 3) == [(0, 3), (3, 5)]
    assert chunks(scan, 0, state, None) == []


def test_nothing_in_gives_nothing_out(whole):
    for recurrence in recurrences(whole, "diagonal"):
        for shape in ((0, 2, 5), (2, 2, 0)):
            u = torch.zeros(shape, dtype=torch.float64)
            state = recurrence.at_rest(u)
            y, final = run(recurrence, u, state)
            assert y.shape == shape
            assert final.shape == state.shape
            assert run_vjp(recurrence, u, state, u, state)[1].shape == shape


def test_a_gradient_has_the_dtype_and_kind_of_its_parameter():
    re, im = torch.tensor([-1.0, 2.0]), torch.tensor([3.0, 4.0])
    real, pair = torch.zeros(2, dtype=torch.float64), torch.zeros(2, dtype=torch.complex128)
    for gradient in (Split(re, im), torch.complex(re, im)):
        assert torch.equal(like(real, gradient), re.double())
        assert torch.equal(like(pair, gradient), torch.complex(re, im).to(torch.complex128))
    assert torch.equal(like(pair, None), pair)
    assert like(pair, re).dtype == torch.complex128


def test_steps_come_first():
    u = torch.arange(12.0).reshape(1, 2, 6)
    taken = time_first(u, 1, 4)
    assert taken.is_contiguous()
    assert taken.tolist() == [[[1.0, 7.0]], [[2.0, 8.0]], [[3.0, 9.0]]]
