"""`liquid_ssm::scan`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from liquid_ssm.backends.numba_backend import NumbaBackend
from liquid_ssm.backends.operators.scan import scan, scan_backward
from liquid_ssm.errors import ShapeError
from liquid_ssm.systems import DiagonalSystem, DPLRSystem

OP = scan
NUMBA = NumbaBackend()
STRUCTURES = ("diagonal", "dplr")


def arguments(draw, structure, *, state=True, liquid=True, pairs=True, real=False, length=5):
    parameters = draw.parameters(structure, real=real)
    start = None
    if state:
        start = draw.real(2, 2, 3) if real else draw.complex(2, 2, 3)
    return [draw.real(2, 2, length), *parameters, start, liquid, pairs, ""]


def system_of(args):
    A, B, C, P, Q = (None if p is None else p.detach().numpy() for p in args[1:6])
    if P is None:
        return DiagonalSystem(A, B, C, conjugate_pairs=args[8])
    return DPLRSystem(A, P, Q, B, C, conjugate_pairs=args[8])


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("state", [False, True])
def test_torch_finds_it_well_defined(draw, holds, structure, dtype, state):
    holds.is_well_defined(OP, arguments(draw(dtype), structure, state=state, liquid=state))


@pytest.mark.parametrize("structure", STRUCTURES)
def test_torch_finds_its_backward_well_defined(draw, holds, structure):
    args = arguments(draw(), structure)
    found = torch.library.opcheck(scan_backward, (draw().real(2, 2, 5), None, *args))
    assert set(found.values()) == {"SUCCESS"}


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("liquid", [False, True])
def test_gradients_are_those_of_differences(draw, holds, structure, real, liquid):
    holds.has_right_gradients(OP, arguments(draw(), structure, real=real, liquid=liquid, pairs=not real, length=3))


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_it_compiles_whole(draw, holds, structure, backend):
    holds.is_compiled_whole(OP, arguments(draw("float32"), structure), backend)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("length", [0, 1, 40])
def test_bits_are_those_of_the_backend_on_arrays(draw, holds, structure, dtype, length):
    args = holds.leaves(arguments(draw(dtype), structure, length=length), True)
    u, start = args[0].detach().numpy(), args[6].detach().numpy()
    y, final = OP(*args)
    holds.are_equal((y, final), NUMBA.scan(system_of(args), u, start, liquid=True))

    grad_y, grad_final = draw(dtype, 1).real(*y.shape), draw(dtype, 2).complex(*final.shape)
    torch.autograd.backward((y, final), (grad_y, grad_final))
    cotangents = grad_y.numpy(), grad_final.numpy()
    expected = NUMBA.scan_vjp(system_of(args), u, start, *cotangents, liquid=True)
    names = ("A_bar" if structure == "diagonal" else "Lambda_bar", "B_bar", "C", "P_bar", "Q_bar")
    parameters = [expected.parameters[name] for name in names if name in expected.parameters]
    holds.are_equal(holds.gradients(args), [expected.u, *parameters, expected.state])


# (u, A, B, C, P, Q, state), then options.
MAPPED = {
    "signals": (1, None, None, None, None, None, 0),
    "signals from one state": (2, None, None, None, None, None, None),
    "states": (None, None, None, None, None, None, 2),
    "parameters": (None, 0, 2, 1, 0, 3, None),
    "one parameter": (None, None, 1, None, None, None, None),
    "everything": (3, 1, 0, 0, 1, 0, 0),
}


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("dims", MAPPED.values(), ids=MAPPED)
def test_vmap_is_a_loop(draw, holds, structure, dims):
    args = arguments(draw(whole=True), structure, liquid=False, length=4)
    dims = [None if a is None else d for a, d in zip(args[:7], dims, strict=True)]
    holds.is_mapped(OP, args, [*dims, None, None, None], 2)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_vmap_of_the_backward_operator_is_a_loop(draw, holds, structure):
    args = arguments(draw(whole=True), structure, liquid=False, length=4)
    cotangents = [draw(whole=True).real(2, 2, 4), None]
    tensors = [a for a in args if isinstance(a, torch.Tensor)]
    for mapped in (0, 2):
        dims = [None] * (2 + len(args))
        dims[mapped] = 0
        holds.is_mapped(scan_backward, [*cotangents, *args], dims, len(tensors))


def test_a_second_length_is_not_compiled_again(draw, holds):
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    torch._dynamo.reset()
    compiled = torch.compile(OP, backend=counter, fullgraph=True)
    for length in (6, 9, 17):
        args = holds.leaves(arguments(draw(), "diagonal", length=length), True)
        torch._dynamo.mark_dynamic(args[0], 2)
        y, final = compiled(*args)
        holds.are_equal((y, final), OP(*args))
        (y.sum() + final.real.sum()).backward()
        assert args[0].grad.shape == (2, 2, length)
    assert counter.frame_count == 1


def test_only_gradients_that_are_asked_for_are_returned(draw, holds):
    args = holds.leaves(arguments(draw(), "diagonal"), False)
    args[2].requires_grad_()
    y, _ = OP(*args)
    y.sum().backward()
    assert [a.grad is not None for a in args if isinstance(a, torch.Tensor)] == [False, False, True, False, False]


def test_a_cotangent_that_is_not_there_is_not_made_up(draw, holds, monkeypatch):
    given = []
    original = NumbaBackend.scan_vjp

    def spy(self, system, u, state, grad_y, grad_state, *, liquid):
        given.append((grad_y is None, grad_state is None))
        return original(self, system, u, state, grad_y, grad_state, liquid=liquid)

    monkeypatch.setattr(NumbaBackend, "scan_vjp", spy)
    args = holds.leaves(arguments(draw(), "diagonal"), True)
    OP(*args)[0].sum().backward()
    OP(*args)[1].real.sum().backward()
    assert given == [(False, True), (True, False)]


def test_second_derivatives_say_what_to_do(draw, holds):
    args = holds.leaves(arguments(draw(), "diagonal"), True)
    (first,) = torch.autograd.grad(OP(*args)[0].square().sum(), args[0], create_graph=True)
    with pytest.raises(NotImplementedError, match=r"liquid_ssm::scan are not implemented\. .*forward mode"):
        first.sum().backward()


def test_layouts_that_numpy_knows_and_those_it_does_not(draw, holds):
    args = arguments(draw(), "diagonal")
    u = draw().real(5, 2, 2).movedim(0, -1)[:, ::1]
    expanded = draw().real(1, 2, 5).expand(2, 2, 5)
    negative = draw().complex(2, 2, 5).conj().imag
    conjugate = draw().complex(2, 2, 3).conj()
    assert conjugate.is_conj()
    assert negative.is_neg()
    for signal in (u, expanded, negative):
        given = [signal, args[1].conj(), *args[2:6], conjugate, *args[7:]]
        plain = [
            a.clone().resolve_conj().resolve_neg().contiguous() if isinstance(a, torch.Tensor) else a for a in given
        ]
        holds.are_equal(OP(*given), OP(*plain))
        holds.are_equal(scan_backward(signal, conjugate, *given), scan_backward(plain[0], plain[6], *plain))


def test_wrong_arguments_are_refused_by_real_and_fake_alike(draw):
    args = arguments(draw(), "diagonal")
    args[1] = args[1][:1]
    with pytest.raises(ShapeError, match="B_bar has shape"):
        OP(*args)
    with pytest.raises(ShapeError, match="B_bar has shape"), torch._subclasses.FakeTensorMode() as mode:
        OP(*(mode.from_tensor(a) if isinstance(a, torch.Tensor) else a for a in args))


def test_float64_states_of_float32_data(draw, holds):
    args = arguments(draw("float32"), "diagonal")
    args[6], args[9] = args[6].to(torch.complex128), "numba-wide-state"
    y, final = OP(*args)
    assert (y.dtype, final.dtype) == (torch.float32, torch.complex128)
    wide = NumbaBackend(state_dtype="float64")
    holds.are_equal((y, final), wide.scan(system_of(args), args[0].numpy(), args[6].numpy(), liquid=True))
    holds.is_well_defined(OP, args)


def test_autocast_computes_halves_in_float32(draw, holds):
    args = arguments(draw("float32"), "diagonal", state=False)
    half = [args[0].bfloat16(), *args[1:]]
    with torch.autocast("cpu"):
        found = OP(*half)
        double = OP(*arguments(draw("float64"), "diagonal"))
    holds.are_equal(found, OP(half[0].float(), *args[1:]))
    assert double[0].dtype == torch.float64


def test_no_bit_depends_on_the_threads(draw, holds):
    NumbaBackend(threads=1), NumbaBackend(threads=3)
    results = []
    for threads in (1, 3):
        args = holds.leaves(arguments(draw(), "diagonal", length=100), True)
        args[9] = f"numba(threads={threads}, state_dtype=None)"
        y, final = OP(*args)
        (y.square().sum() + final.real.sum()).backward()
        results.append([y, final, *holds.gradients(args)])
    holds.are_equal(*results)


def test_signals_states_and_results_are_not_copied(draw, monkeypatch):
    seen = []
    original = NumbaBackend.scan

    def spy(self, system, u, state=None, *, liquid):
        result = original(self, system, u, state, liquid=liquid)
        seen.extend((u, state, *result))
        return result

    monkeypatch.setattr(NumbaBackend, "scan", spy)
    args = arguments(draw(), "diagonal")
    y, final = OP(*args)
    for tensor, array in zip((args[0], args[6], y, final), seen, strict=True):
        assert isinstance(array, np.ndarray)
        assert tensor.data_ptr() == array.ctypes.data
