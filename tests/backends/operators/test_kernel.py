"""`liquid_ssm::kernel`."""

from __future__ import annotations

import pytest
import torch

from liquid_ssm.backends.numba_backend import NumbaBackend
from liquid_ssm.backends.operators.kernel import kernel, kernel_backward
from liquid_ssm.errors import DTypeError, ParameterError, ShapeError
from liquid_ssm.systems import DiagonalSystem, DPLRSystem

OP = kernel
NUMBA = NumbaBackend()
STRUCTURES = ("diagonal", "dplr")


def arguments(draw, structure, *, length=5, power=2, pairs=True, real=False):
    return [*draw.parameters(structure, real=real), length, power, pairs, ""]


def system_of(args):
    A, B, C, P, Q = (None if p is None else p.detach().numpy() for p in args[:5])
    return DiagonalSystem(A, B, C) if P is None else DPLRSystem(A, P, Q, B, C)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_torch_finds_it_well_defined(draw, holds, structure, dtype):
    holds.is_well_defined(OP, arguments(draw(dtype), structure))


@pytest.mark.parametrize("structure", STRUCTURES)
def test_torch_finds_its_backward_well_defined(draw, structure):
    found = torch.library.opcheck(kernel_backward, (draw().real(2, 5), *arguments(draw(), structure)))
    assert set(found.values()) == {"SUCCESS"}


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("power", [1, 3])
def test_gradients_are_those_of_differences(draw, holds, structure, real, power):
    holds.has_right_gradients(OP, arguments(draw(), structure, power=power, real=real, pairs=not real))


@pytest.mark.parametrize(("structure", "backend"), [("diagonal", "aot_eager"), ("dplr", "inductor")])
def test_it_compiles_whole(draw, holds, structure, backend):
    holds.is_compiled_whole(OP, arguments(draw("float32"), structure), backend)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("length", [0, 1, 40])
def test_bits_are_those_of_the_backend_on_arrays(draw, holds, structure, dtype, length):
    args = holds.leaves(arguments(draw(dtype), structure, length=length), True)
    found = OP(*args)
    holds.are_equal([found], [NUMBA.kernel(system_of(args), length, 2)])
    grad = draw(dtype, 1).real(2, length)
    found.backward(grad)
    expected = NUMBA.kernel_vjp(system_of(args), length, 2, grad.numpy())
    names = ("A_bar" if structure == "diagonal" else "Lambda_bar", "B_bar", "C", "P_bar", "Q_bar")
    holds.are_equal(holds.gradients(args), [expected[name] for name in names if name in expected])


@pytest.mark.parametrize("dims", [(0, None, None), (1, 2, 0)])
def test_vmap_is_a_loop(draw, holds, dims):
    args = arguments(draw(whole=True), "diagonal")
    holds.is_mapped(OP, args, [*dims, *[None] * 6], 1)


def test_vmap_of_a_dplr_kernel_is_a_loop(draw):
    # Its transform rounds, but channel by channel: no number depends on how many channels there are.
    args = arguments(draw(), "dplr")
    factors = torch.stack([args[3], 2 * args[3]], 1)
    found = torch.vmap(lambda P: OP(*args[:3], P, *args[4:]), 1)(factors)
    for i in range(2):
        assert torch.equal(found[i], OP(*args[:3], factors[:, i], *args[4:]))


@pytest.mark.parametrize("dims", [(0, None, None, None), (1, 0, None, 2)])
def test_vmap_of_the_backward_operator_is_a_loop(draw, holds, dims):
    args = [draw(whole=True).real(2, 5), *arguments(draw(whole=True), "diagonal")]
    holds.is_mapped(kernel_backward, args, [*dims, *[None] * 6], 3)


def test_second_derivatives_say_what_to_do(draw, holds):
    args = holds.leaves(arguments(draw(), "diagonal"), True)
    (first,) = torch.autograd.grad(OP(*args).square().sum(), args[2], create_graph=True)
    with pytest.raises(NotImplementedError, match=r"liquid_ssm::kernel are not implemented\. .*forward mode"):
        first.real.sum().backward()


def test_a_second_length_is_not_compiled_again(draw):
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    torch._dynamo.reset()
    args = arguments(draw(), "diagonal")
    compiled = torch.compile(lambda u: OP(*args[:5], u.shape[-1], *args[6:]), backend=counter, fullgraph=True)
    for length in (6, 9, 17):
        u = draw().real(length)
        torch._dynamo.mark_dynamic(u, 0)
        assert torch.equal(compiled(u), OP(*args[:5], length, *args[6:]))
    assert counter.frame_count == 1


def test_wrong_arguments_are_refused_by_real_and_fake_alike(draw):
    good = arguments(draw(), "dplr")
    for args, error, message in [
        ([good[0].real.half(), *good[1:]], DTypeError, "A_bar has dtype torch.float16"),
        ([good[0][0], *good[1:]], ShapeError, r"A_bar has shape .* it must be \(H, M\)"),
        ([*good[:2], good[2].to(torch.complex64), *good[3:]], DTypeError, "C has dtype torch.complex64 and A_bar"),
        ([*good[:4], None, *good[5:]], ParameterError, "P_bar is given without Q_bar"),
        ([*good[:4], good[4][:, :1], *good[5:]], ShapeError, "Q_bar has shape"),
        ([*good[:5], -1, *good[6:]], ParameterError, "length is -1"),
        ([*good[:6], 0, *good[7:]], ParameterError, "power is 0"),
    ]:
        with pytest.raises(error, match=message):
            OP(*args)
        with pytest.raises(error, match=message), torch._subclasses.FakeTensorMode() as mode:
            OP(*(mode.from_tensor(a) if isinstance(a, torch.Tensor) else a for a in args))
