"""Derivatives of operators by `torch.func`; those by `backward()` are tested with each operator."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch.autograd import forward_ad

from liquid_ssm.backends.operators.convolve import convolve
from liquid_ssm.backends.operators.differentiation import not_traced
from liquid_ssm.backends.operators.scan import scan

# torch says so when it first looks for forward derivatives of its own.
of_torch = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


@pytest.fixture
def given(draw):
    """u and a function of it; integers, so that no order of operations changes a bit."""
    made = draw(whole=True)
    parameters, state = made.parameters("diagonal"), made.complex(2, 2, 3)

    def loss(u):
        y, final = scan(u, *parameters, state, False, True, "")
        return y.square().sum() + final.imag.sum()

    return made.real(2, 2, 5), loss


def backward(loss, u):
    u = u.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(u), u)
    return gradient


def test_func_grad_is_backward(given):
    u, loss = given
    assert torch.equal(torch.func.grad(loss)(u), backward(loss, u))


def test_vmap_and_grad_in_either_order_are_a_loop(given):
    u, loss = given
    us = torch.stack([u, 2 * u, u + 1])
    expected = torch.stack([backward(loss, one) for one in us])
    assert torch.equal(torch.vmap(torch.func.grad(loss))(us), expected)
    assert torch.equal(torch.func.grad(lambda v: torch.vmap(loss)(v).sum())(us), expected)


def test_jacrev_is_row_by_row(draw):
    made = draw(whole=True)
    parameters, u = made.parameters("diagonal"), made.real(1, 2, 3)

    def outputs(u):
        return scan(u, *parameters, None, False, True, "")[0].flatten()

    jacobian = torch.func.jacrev(outputs)(u)
    assert jacobian.shape == (6, 1, 2, 3)
    assert jacobian.abs().max() > 0
    for i, row in enumerate(jacobian):
        assert torch.equal(row, backward(lambda u, i=i: outputs(u)[i], u))


def test_gradients_of_parameters_per_sample(given, draw):
    u, _ = given
    made = draw(whole=True, seed=1)
    parameters = made.parameters("diagonal")

    def loss(B_bar, u):
        return scan(u, parameters[0], B_bar, *parameters[2:], None, False, True, "")[0].square().sum()

    us = torch.stack([u, u + 1])
    found = torch.vmap(torch.func.grad(loss), (None, 0))(parameters[1], us)
    for i in range(2):
        assert torch.equal(found[i], backward(lambda B, i=i: loss(B, us[i]), parameters[1]))


def test_it_compiles_under_func(given):
    u, loss = given
    torch._dynamo.reset()
    compiled = torch.compile(torch.func.grad(loss), backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(u), backward(loss, u))


def test_nested_gradients_of_a_convolution_are_right(draw):
    made = draw(whole=True)
    kernel, u, v = made.real(2, 3), made.real(1, 2, 5), made.real(1, 2, 5)

    def loss(kernel, u):
        return (convolve(kernel, u, "").square() * v).sum()

    found = torch.func.jacrev(torch.func.grad(loss, 1))(kernel, u)
    leaf, signal = kernel.clone().requires_grad_(), u.clone().requires_grad_()
    (first,) = torch.autograd.grad(loss(leaf, signal), signal, create_graph=True)
    assert found.abs().max() > 0
    for place in torch.cartesian_prod(*map(torch.arange, u.shape)).tolist():
        (row,) = torch.autograd.grad(first[tuple(place)], leaf, retain_graph=True)
        assert torch.equal(found[tuple(place)], row)


def test_nested_gradients_that_are_not_there_are_an_error_and_not_zero(given):
    u, loss = given
    with pytest.raises(NotImplementedError, match=r"second derivatives of liquid_ssm::scan"):
        torch.func.grad(lambda v: torch.func.grad(loss)(v).sum())(u)


@of_torch
def test_forward_mode_is_an_error_and_not_zero(given):
    u, loss = given
    message = r"liquid_ssm::scan has no derivative in forward mode .*backend='torch'"
    with pytest.raises(NotImplementedError, match=message):
        torch.func.jvp(loss, (u,), (torch.ones_like(u),))
    with pytest.raises(NotImplementedError, match=message), forward_ad.dual_level():
        loss(forward_ad.make_dual(u, torch.ones_like(u)))
    with pytest.raises(NotImplementedError, match=message):
        torch.func.hessian(loss)(u)
    # A tangent elsewhere is none of the operator's business.
    value, tangent = torch.func.jvp(lambda scale: scale * loss(u), (torch.ones(()),), (torch.ones(()),))
    assert value == tangent == loss(u)


def test_the_compiler_is_not_loaded_for_an_operator(tmp_path):
    code = (
        "import sys, torch\n"
        "from liquid_ssm.backends.operators.convolve import convolve\n"
        "convolve(torch.ones(1, 2, requires_grad=True), torch.ones(1, 1, 3), '').sum().backward()\n"
        "print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_functions_that_are_not_traced_are_called_as_they_are():
    seen = []

    def function(a, b):
        seen.append(torch.compiler.is_compiling())
        return a + b

    torch._dynamo.reset()
    assert not_traced(function)(1, 2) == 3
    assert torch.compile(lambda a: not_traced(function)(a, 1) + 1, backend="eager")(torch.ones(())) == 3
    assert seen == [False, False]
