"""`liquid_ssm::correlate`."""

from __future__ import annotations

import pytest
import torch

from liquid_ssm.backends.numba_backend import NumbaBackend
from liquid_ssm.backends.operators.correlate import correlate, correlate_backward
from liquid_ssm.errors import DTypeError, ParameterError, ShapeError

OP = correlate
NUMBA = NumbaBackend()
ORDER = 3
# Kind, window, whether there are sums and inputs before.
FORMS = {
    "products": ("products", None, False, False),
    "products after others": ("products", None, False, True),
    "running": ("running", None, False, False),
    "running after others": ("running", None, True, True),
    "running in a window": ("running", 4, False, True),
    "elementary": ("elementary", None, False, False),
    "elementary after others": ("elementary", None, True, False),
    "elementary in a window": ("elementary", 4, False, True),
}


def arguments(draw, form, length=6):
    kind, window, summed, preceded = FORMS[form]
    sums = draw.real(ORDER if kind == "elementary" else ORDER - 1, 2, 3) if summed else None
    previous = draw.real(2, 3, 2) if preceded else None
    return [draw.real(2, 3, length), sums, previous, ORDER, kind, window, ""]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_torch_finds_it_well_defined(draw, holds, form, dtype):
    holds.is_well_defined(OP, arguments(draw(dtype), form))


@pytest.mark.parametrize("form", ["products", "running after others"])
def test_torch_finds_its_backward_well_defined(draw, form):
    args = arguments(draw(), form)
    found = torch.library.opcheck(correlate_backward, (draw().real(2, 2, 3, 6), None, *args))
    assert set(found.values()) == {"SUCCESS"}


@pytest.mark.parametrize("form", FORMS)
def test_gradients_are_those_of_differences(draw, holds, form):
    holds.has_right_gradients(OP, arguments(draw(), form, length=5))


@pytest.mark.parametrize(("form", "backend"), [("running after others", "aot_eager"), ("elementary", "inductor")])
def test_it_compiles_whole(draw, holds, form, backend):
    holds.is_compiled_whole(OP, arguments(draw("float32"), form), backend)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("length", [0, 40])
def test_bits_are_those_of_the_backend_on_arrays(draw, holds, form, dtype, length):
    args = holds.leaves(arguments(draw(dtype), form, length), True)
    u, sums, previous = (None if a is None else a.detach().numpy() for a in args[:3])
    options = {"order": ORDER, "kind": args[4], "window": args[5], "sums": sums, "previous": previous}
    terms, final = OP(*args)
    expected_terms, expected_final = NUMBA.correlate(u, **options)
    holds.are_equal([terms], [expected_terms])
    results, cotangents = [terms], [draw(dtype, 1).real(*terms.shape)]
    if expected_final is None:
        assert final.shape == (0, 2, 3)
    else:
        holds.are_equal([final], [expected_final])
        results.append(final)
        cotangents.append(draw(dtype, 2).real(*final.shape))
    torch.autograd.backward(results, cotangents)
    given = [c.numpy() for c in cotangents] + [None] * (2 - len(cotangents))
    expected = NUMBA.correlate_vjp(u, *given, **options)
    holds.are_equal(holds.gradients(args), [gradient for gradient in expected if gradient is not None])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dims", [(0, None, None), (3, 1, 2), (None, 3, 0)])
def test_vmap_is_a_loop(draw, holds, form, dims):
    args = arguments(draw(whole=True), form)
    dims = [None if a is None else d for a, d in zip(args[:3], dims, strict=True)]
    if not any(d is not None for d in dims):
        dims[0] = 1
    holds.is_mapped(OP, args, [*dims, *[None] * 4], 2)


def test_vmap_of_the_backward_operator_is_a_loop(draw, holds):
    args = arguments(draw(whole=True), "running after others")
    given = [draw(whole=True).real(2, 2, 3, 6), None, *args]
    holds.is_mapped(correlate_backward, given, [1, None, 3, *[None] * 6], 3)


def test_second_derivatives_say_what_to_do(draw, holds):
    args = holds.leaves(arguments(draw(), "running"), True)
    (first,) = torch.autograd.grad(OP(*args)[0].square().sum(), args[0], create_graph=True)
    with pytest.raises(NotImplementedError, match=r"liquid_ssm::correlate are not implemented\. .*forward mode"):
        first.sum().backward()


def test_wrong_arguments_are_refused_by_real_and_fake_alike(draw):
    u, sums, previous = draw().real(2, 3, 6), draw().real(2, 2, 3), draw().real(2, 3, 2)
    for args, error, message in [
        ((u, sums, None, 3, "products", None, ""), ParameterError, "sums were given for kind 'products'"),
        ((u, None, previous, 3, "elementary", None, ""), ParameterError, "what came before u_0 is in `sums`"),
        ((u, sums, None, 3, "elementary", None, ""), ShapeError, r"\(sums, batch, H\) = \(3, 2, 3\)"),
        ((u, None, previous[:1], 3, "products", None, ""), ShapeError, "previous has shape"),
        ((u, sums.float(), None, 3, "running", None, ""), DTypeError, r"sums has dtype torch.float32"),
        ((u, None, None, 3, "sorted", None, ""), ParameterError, "unknown correlation kind"),
        ((u.half(), None, None, 3, "running", None, ""), DTypeError, r"\.float\(\), or use liquid_ssm\.apply"),
    ]:
        with pytest.raises(error, match=message):
            OP(*args)
        with pytest.raises(error, match=message), torch._subclasses.FakeTensorMode() as mode:
            OP(*(mode.from_tensor(a) if isinstance(a, torch.Tensor) else a for a in args))
