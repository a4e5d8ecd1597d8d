"""`liquid_ssm::add_correlations`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from liquid_ssm.backend import Backend, Capabilities
from liquid_ssm.backends.numba_backend import NumbaBackend
from liquid_ssm.backends.operators import implementations
from liquid_ssm.backends.operators.added_correlations import add_correlations, add_correlations_backward
from liquid_ssm.errors import DTypeError, ParameterError, ShapeError

OP = add_correlations
NUMBA = NumbaBackend()
# Kind, whether there are sums and inputs before.
FORMS = {
    "running": ("running", False, False),
    "running after others": ("running", True, True),
    "elementary": ("elementary", False, False),
    "elementary after others": ("elementary", True, False),
}


def arguments(draw, form, order=3, length=6):
    kind, summed, preceded = FORMS[form]
    sums = draw.real(order if kind == "elementary" else order - 1, 2, 3) if summed else None
    previous = draw.real(2, 3, 2) if preceded else None
    signals = draw.real(2, 3, length), draw.real(2, 3, length)
    return [*signals, draw.real(order - 1, 3), sums, previous, order, kind, ""]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_torch_finds_it_well_defined(draw, holds, form, dtype):
    holds.is_well_defined(OP, arguments(draw(dtype), form))


@pytest.mark.parametrize("form", FORMS)
def test_torch_finds_its_backward_well_defined(draw, form):
    args = arguments(draw(), form)[1:]
    found = torch.library.opcheck(add_correlations_backward, (draw().real(2, 3, 6), None, *args))
    assert set(found.values()) == {"SUCCESS"}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("order", [2, 3, 4])
def test_gradients_are_those_of_differences(draw, holds, form, order):
    holds.has_right_gradients(OP, arguments(draw(), form, order, length=4))


@pytest.mark.parametrize("form", FORMS)
def test_order_one_adds_nothing(draw, holds, form):
    args = holds.leaves(arguments(draw(), form, order=1), True)
    total, _ = OP(*args)
    total.sum().backward()
    assert torch.equal(total, args[0])
    assert (args[0].grad == 1).all()
    assert (args[1].grad == 0).all()


@pytest.mark.parametrize(("form", "backend"), [("running after others", "aot_eager"), ("elementary", "inductor")])
def test_it_compiles_whole(draw, holds, form, backend):
    holds.is_compiled_whole(OP, arguments(draw("float32"), form), backend)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("length", [0, 40])
def test_bits_are_those_of_the_backend_on_arrays(draw, holds, form, dtype, length):
    args = arguments(draw(dtype), form, length=length)
    y, u, responses, sums, previous = (None if a is None else a.numpy() for a in args[:5])
    before = y.copy()
    found = OP(*args)
    assert (y == before).all()
    total = y.copy()
    final = NUMBA.add_correlations(total, u, responses, order=3, kind=args[6], sums=sums, previous=previous)
    holds.are_equal(found, (total, final))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("length", [0, 40])
def test_gradients_are_those_of_the_backend_on_arrays(draw, holds, form, dtype, length):
    args = holds.leaves(arguments(draw(dtype), form, length=length), True)
    total, final = OP(*args)
    grad_y, grad_sums = draw(dtype, 1).real(*total.shape), draw(dtype, 2).real(*final.shape)
    torch.autograd.backward((total, final), (grad_y, grad_sums))
    u, responses, sums, previous = (None if a is None else a.detach().numpy() for a in args[1:5])
    given = {"order": 3, "kind": args[6], "sums": sums, "previous": previous}
    expected = NUMBA.add_correlations_vjp(u, responses, grad_y.numpy(), grad_sums.numpy(), **given)
    holds.are_equal(holds.gradients(args), [grad_y, *(g for g in expected if g is not None)])


class OnTensors(Backend):
    """A backend on tensors without the gradients of the fused form."""

    name = "on-tensors"
    capabilities = Capabilities({"correlate": ()}, arrays=("torch",), gradients=True, fused={"add_correlations": ()})

    def __getattr__(self, name):
        def of_tensors(*given, **options):
            options = {key: _each(torch.Tensor, torch.Tensor.numpy, a) for key, a in options.items()}
            found = getattr(NUMBA, name)(*(_each(torch.Tensor, torch.Tensor.numpy, a) for a in given), **options)
            return [_each(np.ndarray, torch.as_tensor, a) for a in found] if name != "add_correlations" else found

        return of_tensors


def _each(kind, convert, value):
    return convert(value) if isinstance(value, kind) else value


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("order", [1, 3])
def test_without_the_fused_form_gradients_are_composed(draw, holds, form, order, monkeypatch):
    monkeypatch.setattr(implementations, "_configured", dict(implementations._configured))
    implementations.register("on-tensors", OnTensors(), on_numpy=False)
    good = arguments(draw(whole=True), form, order)
    cotangents = [draw(whole=True, seed=1).real(*result.shape) for result in OP(*good)]
    for given in (cotangents, (cotangents[0], None), (None, cotangents[1])):
        expected = add_correlations_backward(*given, *good[1:])
        holds.are_equal(add_correlations_backward(*given, *good[1:-1], "on-tensors"), expected)
    holds.are_equal(OP(*good[:-1], "on-tensors"), OP(*good))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dims", [(None, 0, None, None, None), (1, 2, None, None, None), (0, None, 1, 2, 0)])
def test_vmap_is_a_loop(draw, holds, form, dims):
    args = arguments(draw(whole=True), form)
    dims = [None if a is None else d for a, d in zip(args[:5], dims, strict=True)]
    holds.is_mapped(OP, args, [*dims, *[None] * 3], 2)


def test_vmap_of_the_backward_operator_is_a_loop(draw, holds):
    args = arguments(draw(whole=True), "running after others")[1:]
    given = [draw(whole=True).real(2, 3, 6), draw(whole=True).real(2, 2, 3), *args]
    holds.is_mapped(add_correlations_backward, given, [0, 1, 2, *[None] * 6], 4)


def test_second_derivatives_say_what_to_do(draw, holds):
    args = holds.leaves(arguments(draw(), "running"), True)
    (first,) = torch.autograd.grad(OP(*args)[0].square().sum(), args[1], create_graph=True)
    with pytest.raises(NotImplementedError, match=r"liquid_ssm::add_correlations are not implemented\. .*forward mode"):
        first.sum().backward()


def test_wrong_arguments_are_refused_by_real_and_fake_alike(draw):
    good = arguments(draw(), "running")
    for args, error, message in [
        ([good[0][..., :3], *good[1:]], ShapeError, r"y has shape .* \(batch, H, L\) of u"),
        ([good[0].float(), *good[1:]], DTypeError, "y has dtype torch.float32"),
        ([*good[:2], good[2][:1], *good[3:]], ShapeError, r"\(order - 1, H\) = \(2, 3\)"),
        ([*good[:6], "products", ""], ParameterError, "unknown correlation kind 'products'; allowed: running, element"),
    ]:
        with pytest.raises(error, match=message):
            OP(*args)
        with pytest.raises(error, match=message), torch._subclasses.FakeTensorMode() as mode:
            OP(*(mode.from_tensor(a) if isinstance(a, torch.Tensor) else a for a in args))
