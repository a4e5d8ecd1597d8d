"""What all operators have in common."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from liquid_ssm.backend import Backend, Capabilities, Gradients
from liquid_ssm.backends.numpy_backend import NumPyBackend
from liquid_ssm.backends.operators import implementations
from liquid_ssm.backends.operators.library import Call, by_argument, masked
from liquid_ssm.backends.operators.scan import scan
from liquid_ssm.errors import BackendRejected
from liquid_ssm.systems import DiagonalSystem, DPLRSystem


class OnTensors(Backend):
    """The readable backend, on tensors only; its results are laid out in a way that no operator promises."""

    name = "on-tensors"
    capabilities = Capabilities(primitives={"scan": ("diagonal", "dplr")}, arrays=("torch",), gradients=True)

    def scan(self, system, u, state=None, *, liquid):
        return tuple(map(self._out, NumPyBackend().scan(*self._in(system, u, state), liquid=liquid)))

    def scan_vjp(self, system, u, state, grad_y, grad_state, *, liquid):
        given = self._in(system, u, state, grad_y, grad_state)
        found = NumPyBackend().scan_vjp(*given, liquid=liquid)
        parameters = {name: self._out(gradient) for name, gradient in found.parameters.items()}
        return Gradients(parameters, self._out(found.u), self._out(found.state))

    def _in(self, system, *tensors):
        assert system.is_torch
        assert all(t is None or (isinstance(t, torch.Tensor) and not t.requires_grad) for t in tensors)
        # conj(1 · conj(t)): t only if torch keeps track of what it marks as conjugated.
        twice = (None if t is None else (t.conj() * 1).conj().resolve_conj() for t in tensors)
        return [system.to_numpy(), *(None if t is None else t.numpy() for t in twice)]

    @staticmethod
    def _out(array):
        return torch.from_numpy(np.ascontiguousarray(array.T)).permute(*reversed(range(array.ndim)))


class Forwards(OnTensors):
    name = "forwards"
    capabilities = Capabilities(primitives={"scan": ("diagonal", "dplr")}, arrays=("torch",))


@pytest.fixture(autouse=True)
def others(monkeypatch):
    monkeypatch.setattr(implementations, "_configured", dict(implementations._configured))
    for backend in (OnTensors(), Forwards()):
        implementations.register(backend.name, backend, on_numpy=False)


def arguments(draw, structure, backend=""):
    return [draw.real(2, 2, 5), *draw.parameters(structure), draw.complex(2, 2, 3), True, True, backend]


@pytest.mark.parametrize("structure", ["diagonal", "dplr"])
def test_a_backend_on_tensors_is_given_tensors(draw, holds, structure):
    args = arguments(draw(), structure, "on-tensors")
    holds.is_well_defined(scan, args)
    given = holds.leaves(args, True)
    y, final = scan(*given)
    assert y.is_contiguous()
    assert final.is_contiguous()
    (y.square().sum() + final.imag.sum()).backward()
    other = holds.leaves(arguments(draw(), structure, "numba"), True)
    z, last = scan(*other)
    (z.square().sum() + last.imag.sum()).backward()
    # Two ways to add up a few dozen numbers of moderate size.
    for a, b in zip([y, final, *holds.gradients(given)], [z, last, *holds.gradients(other)], strict=True):
        assert (a - b).abs().max() <= 1e3 * torch.finfo(torch.float64).eps * b.abs().max()


def test_requires_grad_without_gradients_names_the_backend(draw, holds):
    args = arguments(draw(), "diagonal", "forwards")
    scan(*args)
    with torch.no_grad():
        scan(*holds.leaves(args, True))
    with pytest.raises(BackendRejected, match=r"forwards has no gradient of liquid_ssm::scan"):
        scan(*holds.leaves(args, True))


def test_inputs_and_nothing_else_are_kept_for_the_backward_pass(draw, holds):
    args = holds.leaves(arguments(draw(), "diagonal"), True)
    y, _ = scan(*args)
    kept = y.grad_fn.saved_tensors
    tensors = [a for a in args if isinstance(a, torch.Tensor)]
    assert {t.data_ptr() for t in kept if t is not None} == {t.data_ptr() for t in tensors}


def test_a_call_hands_over_systems_of_its_kind(draw):
    for structure, kind in (("diagonal", DiagonalSystem), ("dplr", DPLRSystem)):
        parameters = draw().parameters(structure)
        for backend, tensors in (("numba", False), ("on-tensors", True)):
            system = Call(backend, parameters[0]).system(parameters, False)
            assert type(system) is kind
            assert system.is_torch is tensors
            assert not system.conjugate_pairs


def test_gradients_come_in_the_order_of_arguments():
    names = ("Lambda_bar", "P_bar", "Q_bar", "B_bar", "C")
    gradients = {name: np.full(1, float(i)) for i, name in enumerate(names)}
    assert [int(g) for g in by_argument(gradients)] == [0, 3, 4, 1, 2]
    assert [int(g) for g in by_argument({"A_bar": np.zeros(1), "C": np.ones(1), "B_bar": np.full(1, 2.0)})] == [0, 2, 1]


def test_gradients_that_nobody_asks_for_are_dropped():
    given = [torch.ones(1), torch.ones(2), None]
    found = masked(SimpleNamespace(needs_input_grad=(False, True, True, False)), given)
    assert found[0] is None
    assert found[1] is given[1]
    assert found[2] is None
