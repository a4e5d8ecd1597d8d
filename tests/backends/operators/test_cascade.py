"""`liquid_ssm::cascade`."""

from __future__ import annotations

import pytest
import torch

from liquid_ssm.backends.numba_backend import NumbaBackend
from liquid_ssm.backends.operators.cascade import cascade, cascade_backward
from liquid_ssm.errors import ParameterError, ShapeError
from liquid_ssm.systems import DiagonalSystem, DPLRSystem

OP = cascade
NUMBA = NumbaBackend()
STRUCTURES = ("diagonal", "dplr")
FORMS = {"truncated": ("truncated", None), "chain": ("chain", None), "windowed": ("chain", 4)}
ORDER = 3


def arguments(draw, structure, form, *, state=True, pairs=True, real=False, length=6):
    kind, window = FORMS[form]
    parameters = draw.parameters(structure, real=real)
    start = None
    if state and window is None:
        start = draw.real(2, ORDER, 2, 3) if real else draw.complex(2, ORDER, 2, 3)
    return [draw.real(2, 2, length), *parameters, start, ORDER, kind, window, pairs, ""]


def system_of(args):
    A, B, C, P, Q = (None if p is None else p.detach().numpy() for p in args[1:6])
    return DiagonalSystem(A, B, C) if P is None else DPLRSystem(A, P, Q, B, C)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("dtype", "state"), [("float32", True), ("float64", False)])
def test_torch_finds_it_well_defined(draw, holds, structure, form, dtype, state):
    holds.is_well_defined(OP, arguments(draw(dtype), structure, form, state=state))


@pytest.mark.parametrize("form", FORMS)
def test_torch_finds_its_backward_well_defined(draw, form):
    args = arguments(draw(), "diagonal", form)
    grad_final = None if args[6] is None else draw().complex(2, ORDER, 2, 3)
    found = torch.library.opcheck(cascade_backward, (draw().real(2, 2, 6), grad_final, *args))
    assert set(found.values()) == {"SUCCESS"}


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("real", [False, True])
def test_gradients_are_those_of_differences(draw, holds, structure, form, real):
    holds.has_right_gradients(OP, arguments(draw(), structure, form, real=real, pairs=not real, length=4))


@pytest.mark.parametrize(
    ("structure", "form", "backend"),
    [
        ("diagonal", "truncated", "aot_eager"),
        ("dplr", "chain", "inductor"),
        ("diagonal", "windowed", "inductor"),
    ],
)
def test_it_compiles_whole(draw, holds, structure, form, backend):
    holds.is_compiled_whole(OP, arguments(draw("float32"), structure, form), backend)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("length", [0, 40])
def test_bits_are_those_of_the_backend_on_arrays(draw, holds, structure, form, dtype, length):
    args = holds.leaves(arguments(draw(dtype), structure, form, length=length), True)
    kind, window = FORMS[form]
    options = {"order": ORDER, "kind": kind, "window": window}
    u, start = args[0].detach().numpy(), None if args[6] is None else args[6].detach().numpy()
    y, final = OP(*args)
    expected_y, expected_final = NUMBA.cascade(system_of(args), u, start, **options)
    holds.are_equal([y], [expected_y])
    grad_y, grad_final = draw(dtype, 1).real(*y.shape), draw(dtype, 2).complex(*final.shape)
    if window is None:
        holds.are_equal([final], [expected_final])
        torch.autograd.backward((y, final), (grad_y, grad_final))
    else:
        assert final.shape == (2, 0, 2, 3)
        torch.autograd.backward(y, grad_y)
    cotangents = grad_y.numpy(), grad_final.numpy() if window is None else None
    expected = NUMBA.cascade_vjp(system_of(args), u, start, *cotangents, **options)
    names = ("A_bar" if structure == "diagonal" else "Lambda_bar", "B_bar", "C", "P_bar", "Q_bar")
    parameters = [expected.parameters[name] for name in names if name in expected.parameters]
    states = [] if window is not None else [expected.state]
    holds.are_equal(holds.gradients(args), [expected.u, *parameters, *states])


MAPPED = {
    "signals": (0, None, None, None, None, None, None),
    "signals and states": (2, None, None, None, None, None, 1),
    "parameters": (None, 0, 1, None, 2, None, None),
    "everything": (1, 0, 0, 0, 0, 0, 3),
}


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dims", MAPPED.values(), ids=MAPPED)
def test_vmap_is_a_loop(draw, holds, structure, form, dims):
    args = arguments(draw(whole=True), structure, form, length=4)
    dims = [None if a is None else d for a, d in zip(args[:7], dims, strict=True)]
    holds.is_mapped(OP, args, [*dims, *[None] * 5], 2)


def test_vmap_of_the_backward_operator_is_a_loop(draw, holds):
    args = arguments(draw(whole=True), "diagonal", "truncated", length=4)
    cotangents = [draw(whole=True).real(2, 2, 4), draw(whole=True).complex(2, ORDER, 2, 3)]
    dims = [1, 2, None, None, None, None, None, None, None, *[None] * 5]
    holds.is_mapped(cascade_backward, [*cotangents, *args], dims, 5)


def test_second_derivatives_say_what_to_do(draw, holds):
    args = holds.leaves(arguments(draw(), "diagonal", "truncated"), True)
    (first,) = torch.autograd.grad(OP(*args)[0].square().sum(), args[0], create_graph=True)
    with pytest.raises(NotImplementedError, match=r"liquid_ssm::cascade are not implemented\. .*forward mode"):
        first.sum().backward()


def test_wrong_arguments_are_refused_by_real_and_fake_alike(draw):
    good = arguments(draw(), "diagonal", "chain")
    short = [*good[:6], good[6][:, :2], *good[7:]]
    windowed = [*good[:9], 5, *good[10:]]
    unknown = [*good[:8], "tree", *good[9:]]
    for args, error, message in [
        (short, ShapeError, r"\(batch, order, H, M\) = \(2, 3, 2, 3\)"),
        (windowed, ParameterError, "which starts at rest"),
        (unknown, ParameterError, "unknown cascade kind 'tree'"),
        ([*good[:7], 0, *good[8:]], ParameterError, "order is 0"),
        ([*good[:6], None, 3, "chain", 2, *good[10:]], ParameterError, "window is 2; it must be at least 3"),
    ]:
        with pytest.raises(error, match=message):
            OP(*args)
        with pytest.raises(error, match=message), torch._subclasses.FakeTensorMode() as mode:
            OP(*(mode.from_tensor(a) if isinstance(a, torch.Tensor) else a for a in args))
