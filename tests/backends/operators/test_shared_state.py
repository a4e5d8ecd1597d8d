"""`liquid_ssm::shared_state`, and the backend `numba` given `mimo` systems of tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from liquid_ssm.backends.numba_backend import NumbaBackend, float64_state
from liquid_ssm.backends.operators.shared_state import shared_state, shared_state_backward
from liquid_ssm.errors import BackendRejected, ParameterError, ShapeError
from liquid_ssm.systems import MIMOSystem
from liquid_ssm.testing.strategies import random_system

OP = shared_state
NUMBA = NumbaBackend()
ORDERS = (None, 3)


def arguments(draw, *, order=None, state=True, liquid=True, pairs=True, real=False, length=5, systems=1):
    """Two rows, three channels, two modes; |Ā| is below 1 unless they are integers."""
    numbers = draw.real if real else draw.complex
    size = 1 if draw.whole else 0.3
    A, B, C = (numbers(systems, *shape) for shape in ((2,), (2, 3), (3, 2)))
    start = numbers(2, systems, *(() if order is None else (order,)), 2) if state else None
    return [draw.real(2, systems, 3, length), size * A, size * B, C, start, order, liquid and order is None, pairs, ""]


def system_of(args):
    return MIMOSystem(*(p.detach()[0].numpy() for p in args[1:4]), conjugate_pairs=args[7])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("state", [False, True])
def test_torch_finds_it_well_defined(draw, holds, order, dtype, state):
    holds.is_well_defined(OP, arguments(draw(dtype), order=order, state=state, liquid=state))


@pytest.mark.parametrize("order", ORDERS)
def test_torch_finds_its_backward_well_defined(draw, order):
    args = arguments(draw(), order=order)
    found = torch.library.opcheck(shared_state_backward, (draw().real(2, 1, 3, 5), None, *args))
    assert set(found.values()) == {"SUCCESS"}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("systems", [1, 2])
def test_gradients_are_those_of_differences(draw, holds, order, real, systems):
    holds.has_right_gradients(OP, arguments(draw(), order=order, real=real, pairs=not real, length=3, systems=systems))


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_it_compiles_whole(draw, holds, backend):
    holds.is_compiled_whole(OP, arguments(draw("float32")), backend)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("length", [0, 1, 40])
def test_bits_are_those_of_the_backend_on_arrays(draw, holds, order, dtype, length):
    args = holds.leaves(arguments(draw(dtype), order=order, length=length), True)
    u, start = args[0].detach()[:, 0].numpy(), args[4].detach()[:, 0].numpy()
    y, final = OP(*args)
    run, back = (NUMBA.scan, NUMBA.scan_vjp) if order is None else (NUMBA.cascade, NUMBA.cascade_vjp)
    options = {"liquid": True} if order is None else {"order": 3, "kind": "truncated"}
    holds.are_equal((y[:, 0], final[:, 0]), run(system_of(args), u, start, **options))

    grad_y, grad_final = draw(dtype, 1).real(*y.shape), draw(dtype, 2).complex(*final.shape)
    torch.autograd.backward((y, final), (grad_y, grad_final))
    expected = back(system_of(args), u, start, grad_y[:, 0].numpy(), grad_final[:, 0].numpy(), **options)
    found = holds.gradients(args)
    parameters = [expected.parameters[name] for name in ("A_bar", "B_bar", "C")]
    holds.are_equal(
        [found[0][:, 0], *(g[0] for g in found[1:4]), found[4][:, 0]], [expected.u, *parameters, expected.state]
    )


# (u, A, B, C, state), then options.
MAPPED = {
    "signals": (1, None, None, None, 0),
    "states": (None, None, None, None, 2),
    "parameters": (None, 0, 2, 1, None),
    "one parameter": (None, None, 1, None, None),
    "everything": (3, 1, 0, 0, 0),
}


@pytest.mark.parametrize("dims", MAPPED.values(), ids=MAPPED)
def test_vmap_is_a_loop(draw, holds, dims):
    args = arguments(draw(whole=True), liquid=False, length=4)
    holds.is_mapped(OP, args, [*dims, None, None, None, None], 2)


def test_vmap_of_the_backward_operator_is_a_loop(draw, holds):
    args = arguments(draw(whole=True), liquid=False, length=4)
    cotangents = [draw(whole=True).real(2, 1, 3, 4), None]
    for mapped in (0, 2):
        dims = [None] * (2 + len(args))
        dims[mapped] = 0
        holds.is_mapped(shared_state_backward, [*cotangents, *args], dims, 5)


def test_gradients_of_each_row_by_vmap_of_grad(draw):
    """What `torch.func` users call per-sample gradients."""
    backend, u = NUMBA, draw().real(4, 3, 6)
    A, B, C = (p[0] for p in arguments(draw())[1:4])

    def loss(C, one):
        return backend.scan(MIMOSystem(A, B, C), one[None], liquid=True)[0].square().sum()

    found = torch.vmap(torch.func.grad(loss), (None, 0))(C, u)
    for b in range(4):
        # The same products and sums, in the order of one row's time.
        assert torch.equal(found[b], torch.func.grad(loss)(C, u[b]))


def test_a_second_length_is_not_compiled_again(draw, holds):
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    torch._dynamo.reset()
    compiled = torch.compile(OP, backend=counter, fullgraph=True)
    for length in (6, 9, 17):
        args = holds.leaves(arguments(draw(), length=length), True)
        torch._dynamo.mark_dynamic(args[0], 3)
        y, final = compiled(*args)
        holds.are_equal((y, final), OP(*args))
        (y.sum() + final.real.sum()).backward()
    assert counter.frame_count == 1


def test_second_derivatives_say_what_to_do(draw, holds):
    args = holds.leaves(arguments(draw()), True)
    (first,) = torch.autograd.grad(OP(*args)[0].square().sum(), args[0], create_graph=True)
    with pytest.raises(NotImplementedError, match=r"liquid_ssm::shared_state are not implemented\. .*forward mode"):
        first.sum().backward()


@pytest.mark.parametrize(
    ("position", "wrong", "message"),
    [
        (0, lambda t: t[:, 0], r"u has shape \(2, 3, 5\) and A_bar \(1, 2\)"),
        (0, lambda t: t.expand(2, 2, 3, 5), r"u is given for 2 system\(s\) and A_bar for 1"),
        (2, lambda t: t[:, :1], "B_bar has shape"),
        (3, lambda t: t[:, :2], "C has shape"),
        (4, lambda t: t[:1], "state has shape"),
    ],
)
def test_wrong_arguments_are_refused_by_real_and_fake_alike(draw, position, wrong, message):
    args = arguments(draw())
    args[position] = wrong(args[position])
    with pytest.raises(ShapeError, match=message):
        OP(*args)
    with pytest.raises(ShapeError, match=message), torch._subclasses.FakeTensorMode() as mode:
        OP(*(mode.from_tensor(a) if isinstance(a, torch.Tensor) else a for a in args))


# --- the backend ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", [NUMBA, NumbaBackend(threads=2), float64_state()], ids=["", "threads", "wide"])
def test_each_method_gives_the_bits_that_it_gives_for_arrays(holds, backend):
    system = random_system("mimo", n_channels=3, n_modes=5).astype("float32")
    u = np.random.default_rng(0).normal(size=(2, 3, 20)).astype("float32")
    other, v = system.to_torch(), torch.from_numpy(u)
    y, state = backend.scan(system, u, liquid=True)
    z, carried = backend.scan(other, v, liquid=True)
    holds.are_equal([z, carried], [y, state])
    holds.are_equal(backend.scan(other, v, carried, liquid=False), backend.scan(system, u, state, liquid=False))
    options = {"order": 3, "kind": "truncated"}
    y, states = backend.cascade(system, u, **options)
    holds.are_equal(backend.cascade(other, v, **options), [y, states])
    holds.are_equal(
        backend.cascade(other, v, torch.from_numpy(states), **options), backend.cascade(system, u, states, **options)
    )


@pytest.mark.parametrize("on", ["arrays", "tensors"])
def test_what_mimo_does_not_have_is_refused(on):
    system, u = random_system("mimo"), np.zeros((1, 2, 3))
    if on == "tensors":
        system, u = system.to_torch(), torch.from_numpy(u)
    with pytest.raises(BackendRejected, match="needs diagonal or dplr for a cascade of kind chain, got mimo"):
        NUMBA.cascade(system, u, order=2, kind="chain")
    with pytest.raises(ParameterError, match="a window needs kind 'chain'"):
        NUMBA.cascade(system, u, order=2, kind="truncated", window=3)
    with pytest.raises(ShapeError, match="state has shape"):
        NUMBA.scan(system, u, 0 * u, liquid=True)
    with pytest.raises(ShapeError, match="u has shape"):
        NUMBA.scan(system, u[0], liquid=True)
    with pytest.raises(BackendRejected, match="needs diagonal or dplr for kernel, got mimo"):
        NUMBA.kernel(system, 3)
