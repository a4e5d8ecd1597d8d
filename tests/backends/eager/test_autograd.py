"""Primitives under torch's autograd: gradients, none of the second order, compilers, export."""

from __future__ import annotations

import pytest
import torch

from liquid_ssm.backends.torch_backend import TorchBackend, split_real
from liquid_ssm.errors import BackendRejected
from liquid_ssm.testing.strategies import random_system

BACKENDS = {"torch": TorchBackend(), "torch-split-real": split_real()}
STRUCTURES = ("diagonal", "dplr", "dense", "mimo")


@pytest.fixture(params=BACKENDS)
def backend(request):
    return BACKENDS[request.param]


def normal(*shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


class Case:
    """A random system whose parameters, input and state ask for gradients."""

    def __init__(self, structure, *orders, length=4, dtype=torch.float64):
        self.system = random_system(structure, n_channels=2, n_modes=2, rank=2, seed=1).to_torch().astype(dtype)
        self.parameters = [p.clone().requires_grad_() for p in self.system.parameters.values()]
        modes = (2,) if structure == "mimo" else (2, 2)
        pair = torch.complex128 if dtype == torch.float64 else torch.complex64
        self.u = normal(2, 2, length, dtype=dtype).requires_grad_()
        self.state = normal(2, *orders, *modes, dtype=pair, seed=1).requires_grad_()

    def make(self, parameters):
        named = dict(zip(self.system.parameters, parameters, strict=True))
        return type(self.system)(**named, conjugate_pairs=self.system.conjugate_pairs)


def calls(structure, backend):
    """Every operation on a system, by name, as a function of (backend, system, u, state), and its orders."""
    yield "linear", (), lambda b, s, u, x: b.scan(s, u, x, liquid=False)
    yield "liquid", (), lambda b, s, u, x: b.scan(s, u, x, liquid=True)
    yield "truncated", (2,), lambda b, s, u, x: b.cascade(s, u, x, order=2, kind="truncated")
    if structure != "mimo":
        yield "chain", (2,), lambda b, s, u, x: b.cascade(s, u, x, order=2, kind="chain")
        yield "window", (), lambda b, s, u, x: b.cascade(s, u, order=2, kind="chain", window=3)[0]
    if structure in backend.capabilities.primitives["kernel"]:
        yield "kernel", (), lambda b, s, u, x: b.convolve(b.kernel(s, 3, 2), u)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_gradients_of_everything_are_those_of_differences(backend, structure):
    for name, orders, call in calls(structure, backend):
        case = Case(structure, *orders)

        def of_tensors(u, state, *parameters, call=call, case=case):
            return call(backend, case.make(parameters), u, state)

        assert torch.autograd.gradcheck(of_tensors, (case.u, case.state, *case.parameters)), name


def test_gradients_of_correlations_are_those_of_differences(backend):
    u, sums, previous = (normal(*shape).requires_grad_() for shape in ((2, 2, 4), (3, 2, 2), (2, 2, 2)))
    for kind, window in (("products", None), ("running", None), ("running", 3), ("elementary", None)):
        start = {"running": sums[:2], "elementary": sums}.get(kind) if window is None else None

        def correlate(u, previous, start, kind=kind, window=window):
            # What was before u_0 is in the sums of this kind.
            before = None if kind == "elementary" else previous
            found = backend.correlate(u, order=3, kind=kind, window=window, sums=start, previous=before)
            return found if found[1] is not None else found[0]

        assert torch.autograd.gradcheck(correlate, (u, previous, start)), (kind, window)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_autograd_gives_what_the_vector_jacobian_product_gives(backend, structure):
    case = Case(structure, length=5)
    system = case.make(case.parameters)
    y, final = backend.scan(system, case.u, case.state, liquid=True)
    grad_y, grad_final = normal(*y.shape, seed=2), normal(*final.shape, dtype=final.dtype, seed=3)
    wanted = [case.u, case.state, *case.parameters]
    found = torch.autograd.grad((y, final), wanted, (grad_y, grad_final))
    expected = backend.scan_vjp(case.system, case.u, case.state, grad_y, grad_final, liquid=True)
    for a, b in zip(found, (expected.u, expected.state, *expected.parameters.values()), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_outputs_do_not_depend_on_whether_gradients_are_recorded(backend, structure):
    for length in (5, 140):
        for name, orders, call in calls(structure, backend):
            case = Case(structure, *orders, length=length, dtype=torch.float32)
            recorded = call(backend, case.make(case.parameters), case.u, case.state)
            plain = call(backend, case.system, case.u.detach(), case.state.detach())
            for a, b in zip(*((r if isinstance(r, tuple) else (r,)) for r in (recorded, plain)), strict=True):
                assert a.requires_grad
                assert not b.requires_grad
                assert torch.equal(a, b), name


def test_gradients_of_real_parameters_are_real():
    case = Case("diagonal")
    C = normal(2, 2).requires_grad_()
    y, _ = BACKENDS["torch"].scan(case.make([*case.parameters[:2], C]), case.u, liquid=True)
    (found,) = torch.autograd.grad(y.sum(), C)
    assert found.dtype == torch.float64


def test_a_parameter_in_finer_precision_than_u_gets_its_gradient_in_its_own(backend):
    case = Case("diagonal")
    y, _ = backend.scan(case.make(case.parameters), case.u.detach().float(), liquid=True)
    found = torch.autograd.grad(y.sum(), case.parameters)
    assert [g.dtype for g in found] == [torch.complex128] * 3


def test_a_second_derivative_is_an_error_that_says_what_to_do(backend):
    case = Case("diagonal")
    y, _ = backend.scan(case.system, case.u, liquid=True)
    (first,) = torch.autograd.grad(y.sum(), case.u, create_graph=True)
    with pytest.raises(BackendRejected, match=r"scan cannot be differentiated twice(.|\n)*forward mode"):
        first.sum().backward()


# Where torch's compiler meets an autograd function it makes one, which torch itself deprecates.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("structure", ["diagonal", "dplr"])
def test_a_compiled_scan_is_one_graph_with_the_same_values_and_gradients(backend, structure):
    case = Case(structure, length=3, dtype=torch.float32)

    def of_u(u):
        return backend.scan(case.system, u, liquid=True)[0]

    torch._dynamo.reset()
    compiled = torch.compile(of_u, fullgraph=True, backend="aot_eager")
    y, z = of_u(case.u), compiled(case.u)
    assert torch.equal(y, z)
    grads = [torch.autograd.grad(output.sum(), case.u)[0] for output in (y, z)]
    assert torch.equal(*grads)


def test_without_gradients_the_graph_can_be_exported(backend):
    system = random_system("diagonal", n_modes=2).astype("float32").to_torch()

    class Layer(torch.nn.Module):
        def forward(self, u):
            return backend.scan(system, u, liquid=True)[0]

    u = normal(1, 2, 3, dtype=torch.float32)
    program = torch.export.export(Layer(), (u,))
    assert torch.equal(program.module()(u), Layer()(u))


@pytest.mark.parametrize("gradient", [False, True])
def test_batching_by_torch_is_refused(backend, gradient):
    case = Case("dense")
    system, u = case.make([p.detach() for p in case.parameters]), torch.stack([case.u.detach()] * 3)

    def loss(u):
        return backend.scan(system, u, None, liquid=True)[0].sum()

    with pytest.raises(BackendRejected, match=r"(?s)scan has no batching rule.*torch\.func\.vmap.*loop over the calls"):
        torch.func.vmap(torch.func.grad(loss) if gradient else loss)(u)
    # A batch is that of u.
    assert loss(u[0]).ndim == 0


def test_other_errors_are_not_taken_for_it(backend, monkeypatch):
    def fail(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(type(backend._operations), "scan", fail)
    case = Case("diagonal")
    with pytest.raises(RuntimeError, match="out of memory"):
        backend.scan(case.system, case.u.detach(), None, liquid=True)


@pytest.mark.parametrize(
    "derivative", [torch.func.hessian, lambda f: lambda u: torch.func.jvp(torch.func.grad(f), (u,), (u,))]
)
def test_a_derivative_of_a_gradient_in_forward_mode_is_refused(backend, derivative):
    case = Case("diagonal")
    system = case.make([p.detach() for p in case.parameters])

    def loss(u):
        return backend.scan(system, u, None, liquid=True)[0].square().sum()

    with pytest.raises(BackendRejected, match=r"(?s)cannot be differentiated twice.*torch\.func\.jvp of grad.*jacfwd"):
        derivative(loss)(case.u.detach())
