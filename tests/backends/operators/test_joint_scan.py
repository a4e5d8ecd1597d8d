"""`liquid_ssm::joint_scan`."""

from __future__ import annotations

import pytest
import torch

from liquid_ssm.backends.numba_backend import NumbaBackend
from liquid_ssm.backends.operators.joint_scan import joint_scan, joint_scan_backward
from liquid_ssm.errors import ParameterError, ShapeError
from liquid_ssm.systems import DiagonalSystem, DPLRSystem

OP = joint_scan
NUMBA = NumbaBackend()
STRUCTURES = ("diagonal", "dplr")


def arguments(draw, structure, *, order=3, rank=1, pairs=True, real=False, length=6):
    parameters = draw.parameters(structure, rank=rank, real=real)
    return [draw.real(2, 2, length), *parameters, order, pairs, ""]


def system_of(args):
    A, B, C, P, Q = (None if p is None else p.detach().numpy() for p in args[1:6])
    return DiagonalSystem(A, B, C) if P is None else DPLRSystem(A, P, Q, B, C)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_torch_finds_it_well_defined(draw, holds, structure, dtype):
    holds.is_well_defined(OP, arguments(draw(dtype), structure))


@pytest.mark.parametrize("structure", STRUCTURES)
def test_torch_finds_its_backward_well_defined(draw, structure):
    found = torch.library.opcheck(joint_scan_backward, (draw().real(2, 2, 6), *arguments(draw(), structure)))
    assert set(found.values()) == {"SUCCESS"}


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize(("rank", "real"), [(1, False), (2, False), (1, True)])
def test_gradients_are_those_of_differences(draw, holds, structure, order, rank, real):
    holds.has_right_gradients(
        OP, arguments(draw(), structure, order=order, rank=rank, real=real, pairs=not real, length=5)
    )


@pytest.mark.parametrize("structure", STRUCTURES)
def test_it_compiles_whole(draw, holds, structure):
    holds.is_compiled_whole(OP, arguments(draw("float32"), structure), "aot_eager")


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("length", [0, 40])
def test_bits_are_those_of_the_backend_on_arrays(draw, holds, structure, dtype, length):
    args = holds.leaves(arguments(draw(dtype), structure, length=length), True)
    u = args[0].detach().numpy()
    y = OP(*args)
    holds.are_equal([y], [NUMBA.joint_scan(system_of(args), u, order=3)])
    grad_y = draw(dtype, 1).real(*y.shape)
    y.backward(grad_y)
    expected = NUMBA.joint_scan_vjp(system_of(args), u, grad_y.numpy(), order=3)
    names = ("A_bar" if structure == "diagonal" else "Lambda_bar", "B_bar", "C", "P_bar", "Q_bar")
    parameters = [expected.parameters[name] for name in names if name in expected.parameters]
    holds.are_equal(holds.gradients(args), [expected.u, *parameters])


MAPPED = {
    "signals": (0, None, None, None, None, None),
    "parameters": (None, 0, 1, None, 2, None),
    "everything": (1, 0, 0, 0, 0, 0),
}


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("dims", MAPPED.values(), ids=MAPPED)
def test_vmap_is_a_loop(draw, holds, structure, dims):
    args = arguments(draw(whole=True), structure, length=4)
    dims = [None if a is None else d for a, d in zip(args[:6], dims, strict=True)]
    holds.is_mapped(OP, args, [*dims, *[None] * 3], 1)


def test_vmap_of_the_backward_operator_is_a_loop(draw, holds):
    args = arguments(draw(whole=True), "diagonal", length=4)
    dims = [1, None, None, None, None, None, None, *[None] * 3]
    holds.is_mapped(joint_scan_backward, [draw(whole=True).real(2, 2, 4), *args], dims, 4)


def test_second_derivatives_say_what_to_do(draw, holds):
    args = holds.leaves(arguments(draw(), "diagonal"), True)
    (first,) = torch.autograd.grad(OP(*args).square().sum(), args[0], create_graph=True)
    with pytest.raises(NotImplementedError, match=r"liquid_ssm::joint_scan are not implemented\. .*forward mode"):
        first.sum().backward()


def test_wrong_arguments_are_refused_by_real_and_fake_alike(draw):
    good = arguments(draw(), "dplr")
    for args, error, message in [
        ([*good[:6], 0, *good[7:]], ParameterError, "order is 0"),
        ([good[0][:, :1], *good[1:]], ShapeError, r"so 1 channel\(s\); the system has 2"),
        ([*good[:5], None, *good[6:]], ParameterError, "P_bar is given without Q_bar"),
    ]:
        with pytest.raises(error, match=message):
            OP(*args)
        with pytest.raises(error, match=message), torch._subclasses.FakeTensorMode() as mode:
            OP(*(mode.from_tensor(a) if isinstance(a, torch.Tensor) else a for a in args))
