"""`liquid_ssm::convolve`."""

from __future__ import annotations

import pytest
import torch

from liquid_ssm.backends.numba_backend import NumbaBackend
from liquid_ssm.backends.operators.convolve import convolve, convolve_backward
from liquid_ssm.errors import DTypeError, ShapeError

OP = convolve
NUMBA = NumbaBackend()


def arguments(draw, size=4, length=6):
    return [draw.real(3, size), draw.real(2, 3, length), ""]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_torch_finds_it_well_defined(draw, holds, dtype):
    holds.is_well_defined(OP, arguments(draw(dtype)))
    holds.is_well_defined(convolve_backward, [draw(dtype).real(2, 3, 6), *arguments(draw(dtype))])


@pytest.mark.parametrize("size", [1, 4, 9])
def test_gradients_are_those_of_differences(draw, holds, size):
    holds.has_right_gradients(OP, arguments(draw(), size))
    holds.has_right_gradients(convolve_backward, [draw().real(2, 3, 6), *arguments(draw(), size)])


@pytest.mark.parametrize("wanted", [(True, True), (True, False), (False, True)])
def test_second_derivatives_are_those_of_differences(draw, wanted):
    kernel, u, _ = arguments(draw())
    kernel.requires_grad_(wanted[0])
    u.requires_grad_(wanted[1])
    given = [tensor for tensor in (kernel, u) if tensor.requires_grad]
    assert torch.autograd.gradgradcheck(lambda *_: OP(kernel, u, ""), given)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_it_compiles_whole(draw, holds, backend):
    holds.is_compiled_whole(OP, arguments(draw("float32")), backend)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("size", "length"), [(0, 5), (3, 0), (40, 40), (7, 100)])
def test_bits_are_those_of_the_backend_on_arrays(draw, holds, dtype, size, length):
    args = holds.leaves(arguments(draw(dtype), size, length), True)
    kernel, u = (a.detach().numpy() for a in args[:2])
    y = OP(*args)
    holds.are_equal([y], [NUMBA.convolve(kernel, u)])
    grad = draw(dtype, 1).real(*y.shape)
    y.backward(grad)
    holds.are_equal(holds.gradients(args), NUMBA.convolve_vjp(kernel, u, grad.numpy()))


@pytest.mark.parametrize("dims", [(0, None), (None, 3), (2, 1)])
def test_vmap_is_a_loop(draw, holds, dims):
    holds.is_mapped(OP, arguments(draw(whole=True)), [*dims, None], 1)
    grad = draw(whole=True).real(2, 3, 6)
    holds.is_mapped(convolve_backward, [grad, *arguments(draw(whole=True))], [0, *dims, None], 2)


def test_wrong_arguments_are_refused_by_real_and_fake_alike(draw):
    kernel, u, _ = arguments(draw())
    for args, error, message in [
        ((kernel[:2], u, ""), ShapeError, r"kernel has shape \(2, 4\); it must be \(H, n\) with H = 3"),
        ((kernel.float(), u, ""), DTypeError, "kernel has dtype torch.float32; it must be torch.float64"),
        ((kernel, u[0], ""), ShapeError, r"it must be \(batch, H, L\)"),
        ((kernel, u.long(), ""), DTypeError, "u has dtype torch.int64"),
    ]:
        with pytest.raises(error, match=message):
            OP(*args)
        with pytest.raises(error, match=message), torch._subclasses.FakeTensorMode() as mode:
            OP(*(mode.from_tensor(a) if isinstance(a, torch.Tensor) else a for a in args))
