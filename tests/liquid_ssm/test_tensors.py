"""`apply`, `step` and `vjp` on torch tensors; their accuracy is a matter of tests/properties/test_tensors.py."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

import liquid_ssm as ls
from liquid_ssm.backend import Arithmetic, Backend, Capabilities
from liquid_ssm.oracle.adjoint import gradients_by_duals
from liquid_ssm.oracle.adjoint_bounds import gradient_bounds
from liquid_ssm.oracle.rounding import RoundingModel
from liquid_ssm.registry import get_backend
from liquid_ssm.rounding_errors import realization_of
from liquid_ssm.tensors import HALVES, all_finite_there, require_recent
from liquid_ssm.testing.strategies import random_system

SYSTEM = random_system("diagonal", n_channels=2, n_modes=3, seed=1).astype("float32")
U = torch.tensor(np.random.default_rng(2).normal(size=(2, 2, 9)), dtype=torch.float32)
MODES = {
    "s4": {"mode": "s4"},
    "liquid": {"mode": "liquid"},
    "truncated": {"mode": "truncated", "order": 3},
    "kb-all": {"mode": "kb", "order": 3},
    "kb-all-window": {"mode": "kb", "order": 3, "window": 4},
    "kb-adjacent": {"mode": "kb", "order": 3, "correlations": "adjacent"},
    "kb-adjacent-window": {"mode": "kb", "order": 3, "correlations": "adjacent", "window": 4},
    "pb-all": {"mode": "pb", "order": 3},
    "pb-all-window": {"mode": "pb", "order": 3, "window": 4},
    "pb-adjacent": {"mode": "pb", "order": 3, "correlations": "adjacent"},
    "pb-adjacent-window": {"mode": "pb", "order": 3, "correlations": "adjacent", "window": 4},
}
BACKENDS = ("numba", "torch", "torch-split-real")

every_mode = pytest.mark.parametrize("options", MODES.values(), ids=MODES)
every_backend = pytest.mark.parametrize("backend", BACKENDS)


def leaf_system(dtype=torch.complex64):
    """A system whose parameters are leaves that gradients are kept in."""
    return ls.DiagonalSystem(
        **{n: torch.tensor(a, dtype=dtype, requires_grad=True) for n, a in SYSTEM.parameters.items()}
    )


@every_mode
@every_backend
def test_tensors_give_tensors_that_gradients_flow_through(options, backend):
    system, u = leaf_system(), U.clone().requires_grad_()
    y, final = ls.apply(system, u, backend=backend, return_state=True, **options)
    assert (y.dtype, y.shape, y.device) == (u.dtype, u.shape, u.device)
    loss = y.square().sum()
    for part in final if isinstance(final, ls.State) else (final,):
        loss = loss + (part.abs().square().sum() if part is not None else 0)
    loss.backward()
    for tensor in (u, *system.parameters.values()):
        assert tensor.grad is not None
        assert torch.isfinite(tensor.grad).all()
        assert tensor.grad.abs().max() > 0


@every_mode
def test_the_first_backend_for_tensors_is_the_compiled_one(options, caplog):
    with caplog.at_level(logging.INFO, logger="liquid_ssm"):
        y = ls.apply(SYSTEM, U, backend="first", **options)
    assert "took numba" in caplog.text
    assert torch.equal(y, ls.apply(SYSTEM, U, backend="numba", **options))


def test_structures_that_the_compiled_backend_lacks_go_to_torch(caplog):
    system = random_system("dense").astype("float32")
    with caplog.at_level(logging.INFO, logger="liquid_ssm"):
        ls.apply(system, torch.ones(1, system.n_channels, 4), mode="liquid", backend="first")
    assert "took torch" in caplog.text


@every_mode
@every_backend
def test_step_after_step_gives_the_sequence(options, backend):
    # Within twenty times what the dtype resolves of the largest output; the bound is checked by the property suite.
    state, outputs = None, []
    for k in range(U.shape[-1]):
        y_k, state = ls.step(SYSTEM, U[..., k], state, backend=backend, **options)
        outputs.append(y_k)
    y = ls.apply(SYSTEM, U, backend=backend, **options)
    torch.testing.assert_close(torch.stack(outputs, -1), y, rtol=0, atol=20 * 2.0**-24 * float(y.abs().max()))


@every_mode
@every_backend
@pytest.mark.parametrize("half", HALVES, ids=str)
def test_half_precision_is_computed_in_float32(options, backend, half):
    u = U.to(half)
    y, final = ls.apply(SYSTEM, u, backend=backend, return_state=True, **options)
    wide, last = ls.apply(SYSTEM, u.float(), backend=backend, return_state=True, **options)
    assert y.dtype == half
    assert torch.equal(y, wide.to(half))
    x, expected = (s.x if isinstance(s, ls.State) else s for s in (final, last))
    assert x.dtype == torch.complex64
    assert torch.equal(x, expected)


def test_an_output_beyond_float16_is_an_error_and_not_infinite():
    with pytest.raises(ls.ParameterError, match=r"range of torch.float16, whose largest number is 6.55e"):
        ls.apply(ls.DiagonalSystem(*(torch.ones(1, 1),) * 3), torch.full((1, 1, 9), 3e4).half(), mode="s4")


@every_mode
@every_backend
def test_autocast_changes_nothing(options, backend):
    system, u = leaf_system(), U.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = ls.apply(system, u, backend=backend, **options)
    y.sum().backward()
    other, v = leaf_system(), U.clone().requires_grad_()
    plain = ls.apply(other, v, backend=backend, **options)
    plain.sum().backward()
    assert torch.equal(y, plain)
    assert torch.equal(u.grad, v.grad)
    assert torch.equal(system.A_bar.grad, other.A_bar.grad)


@every_mode
@every_backend
def test_the_memory_layout_of_u_does_not_matter_and_u_is_not_written_to(options, backend):
    y = ls.apply(SYSTEM, U, backend=backend, **options)
    for layout in (U.transpose(0, 2).contiguous().transpose(0, 2), torch.cat([U, U], -1)[..., : U.shape[-1]]):
        before = layout.clone()
        assert torch.equal(ls.apply(SYSTEM, layout, backend=backend, **options), y)
        assert torch.equal(layout, before)
    same = U[:1].expand(3, -1, -1)
    rows = ls.apply(SYSTEM, same, backend=backend, **options)
    alone = ls.apply(SYSTEM, U[:1], backend=backend, **options)
    torch.testing.assert_close(rows, alone.expand(3, -1, -1), rtol=0, atol=20 * 2.0**-24 * float(alone.abs().max()))


@every_mode
@every_backend
def test_every_mode_compiles_as_one_graph(options, backend):
    parameters = [torch.tensor(a) for a in SYSTEM.parameters.values()]

    def loss(u, *arrays):
        y = ls.apply(ls.DiagonalSystem(*arrays), u, backend=backend, **options)
        return y.square().sum()

    def gradients(function):
        # Few steps: the compiler unrolls the loops of eager backends.
        leaves = [t.clone().requires_grad_() for t in (U[..., :5], *parameters)]
        value = function(*leaves)
        return value.detach(), torch.autograd.grad(value, leaves)

    torch.compiler.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    value, found = gradients(compiled)
    expected, wanted = gradients(loss)
    assert torch.equal(value, expected)
    for got, want in zip(found, wanted, strict=True):
        assert torch.equal(got, want)


def test_the_default_backend_compiles_as_one_graph_with_a_state():
    torch.compiler.reset()

    @torch.compile(fullgraph=True, backend="aot_eager")
    def run(u, state):
        return ls.apply(SYSTEM.to_torch(), u, mode="liquid", state=state, return_state=True)

    start = torch.ones(2, 2, 3, dtype=torch.complex64)
    y, final = run(U, start)
    expected, last = ls.apply(SYSTEM, U, mode="liquid", state=start, return_state=True)
    assert torch.equal(y, expected)
    assert torch.equal(final, last)


def test_vjp_of_tensors_is_that_of_arrays():
    grad_y = torch.ones_like(U)
    for backend in BACKENDS:
        found = ls.vjp(SYSTEM, U, grad_y, mode="liquid", backend=backend)
        arrays = ls.vjp(SYSTEM, U.numpy(), grad_y.numpy(), mode="liquid", backend=backend)
        assert (found.u.numpy() == arrays.u).all()
        assert (found.state.numpy() == arrays.state).all()
        assert {n: a.tolist() for n, a in found.parameters.items()} == {
            n: a.tolist() for n, a in arrays.parameters.items()
        }


# Of exact gradients below 2^10, converted to complex128.
REST = 2.0 ** (10 - 53)


def true_gradients(realization, u, **options):
    """Exact ones of `u` and, if a state is given, of that, rounded once."""
    found = gradients_by_duals(realization, u, **options)
    return {
        name: np.array([complex(z.real, z.imag) for z in found[name].ravel()]).reshape(found[name].shape)
        for name in ("u", "state")
        if name in found
    }


@pytest.mark.parametrize("structure", ["diagonal", "dplr"])
def test_vjp_of_joined_orders_is_what_flows_back_through_apply(structure):
    system = random_system(structure, n_channels=U.shape[1])
    grad_y = torch.ones_like(U)
    options = {"mode": "kb", "order": 3, "correlations": "adjacent", "backend": "numba"}
    found = ls.vjp(system, U, grad_y, **options)
    arrays = ls.vjp(system, U.numpy(), grad_y.numpy(), **options)
    leaves = [p.requires_grad_() for p in system.to_torch().parameters.values()]
    u = U.clone().requires_grad_()
    y = ls.apply(type(system)(*leaves), u, **options)
    through = torch.autograd.grad(y, [u, *leaves], grad_y)
    for gradient, other, expected in zip(
        [found.u, *found.parameters.values()], through, [arrays.u, *arrays.parameters.values()], strict=True
    ):
        assert (gradient.numpy() == expected).all()
        assert (other.numpy() == expected).all()
    # With states every order has its own recurrence.  The gradient of a linear state is that of `s4`; that of earlier
    # inputs is one of a signal with as many zeros in front, without the linear response, which is the state's.
    exact, rounding = realization_of(system.astype("float32")), RoundingModel.of_dtype("float32", kernels="tables")
    rest = np.zeros((len(U), U.shape[1], system.n_modes), complex)
    longer, seed = (np.concatenate([np.zeros((2, 2, 2)), array.numpy()], -1) for array in (U, grad_y))
    of_kb = {"mode": "kb", "grad_y": seed, "order": 3, "correlations": "adjacent"}
    of_s4 = {"mode": "s4", "grad_y": grad_y.numpy(), "state": rest}
    wanted = true_gradients(exact, U.numpy(), **of_s4)["state"]
    bound = gradient_bounds(exact, U.numpy(), **of_s4, model=rounding)["state"]
    for p in range(3):
        assert (abs(found.state.x[:, p].numpy() - wanted) <= bound + REST).all()
    linear = true_gradients(exact, longer, mode="s4", grad_y=seed)["u"]
    inputs = (true_gradients(exact, longer, **of_kb)["u"] - linear)[..., :2]
    bound = gradient_bounds(exact, longer, **of_kb, model=rounding)["u"][..., :2]
    assert (abs(found.state.inputs.numpy() - inputs) <= bound + REST).all()


def test_a_tolerance_takes_a_wide_state():
    slow = ls.DiagonalSystem(*(torch.full((1, 1), v) for v in (0.9999, 1e-4, 1.0)))
    u = torch.ones(1, 1, 20000)
    with pytest.raises(ls.ParameterError, match="goes with a backend that is selected"):
        ls.apply(slow, u, mode="s4", tolerance=1e-5, backend="numba")
    exact = ls.apply(slow.astype(torch.float64), u.double(), mode="s4", backend="torch")
    y = ls.apply(slow, u, mode="s4", tolerance=1e-7)
    assert ((y - exact).abs() <= 1e-7 * exact.abs().max()).all()
    narrow = ls.apply(slow, u, mode="s4", backend="numba")
    assert not ((narrow - exact).abs() <= 1e-7 * exact.abs().max()).all()


def test_empty_tensors_give_empty_tensors():
    for shape in ((0, 2, 3), (2, 2, 0), (0, 2, 0)):
        for backend in BACKENDS:
            assert ls.apply(SYSTEM, torch.zeros(shape), mode="liquid", backend=backend).shape == shape


@pytest.mark.parametrize(
    ("u", "error", "words"),
    [
        (torch.ones(2, 2, 3, dtype=torch.int32), ls.DTypeError, r"int32; allowed: float32, float64.*\.to\("),
        (torch.ones(2, 2, 3, dtype=torch.complex64), ls.DTypeError, "complex64; allowed"),
        (torch.ones(2, 3), ls.ShapeError, "three dimensions"),
        (torch.ones(2, 3, 4), ls.ShapeError, "3 channels.*the system has 2"),
        (torch.ones(2, 2, 3, device="meta"), ls.ParameterError, r"u is on meta, the system on cpu.*to_torch\('meta'\)"),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused(u, error, words):
    with pytest.raises(error, match=words):
        ls.apply(SYSTEM.to_torch(), u, mode="liquid")


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (np.zeros((2, 2, 3), "complex64"), "state is no torch tensor"),
        (torch.zeros(2, 2, 3, dtype=torch.complex64, device="meta"), "state is on meta, u on cpu"),
        (torch.zeros(2, 2, 4, dtype=torch.complex64), r"state has shape \(2, 2, 4\)"),
        (torch.zeros(2, 2, 3, dtype=torch.bool), "bool"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(state, words):
    with pytest.raises((ls.ParameterError, ls.ShapeError), match=words):
        ls.apply(SYSTEM, U, mode="liquid", state=state)


def test_arrays_and_tensors_are_not_mixed():
    with pytest.raises(ls.ParameterError, match=r"u is not; pass torch.as_tensor"):
        ls.apply(SYSTEM.to_torch(), U.numpy(), mode="s4")
    with pytest.raises(ls.ParameterError, match="state is a torch tensor, but u is not"):
        ls.apply(SYSTEM, U.numpy(), mode="s4", state=torch.zeros(2, 2, 3, dtype=torch.complex64))
    with pytest.raises(ls.ShapeError, match="grad_y has shape"):
        ls.vjp(SYSTEM, U, U[..., 1:], mode="s4")


@pytest.mark.parametrize("backend", ["scipy", "numpy"])
def test_backends_of_arrays_refuse_tensors(backend):
    with pytest.raises(ls.BackendRejected, match="needs numpy arrays, got torch") as caught:
        ls.apply(SYSTEM, U, mode="s4", backend=backend)
    assert [r.reason for r in caught.value.rejections] == ["arrays"]


class Forward(Backend):
    """Takes tensors and has no gradients."""

    name = "forward"
    capabilities = Capabilities({"scan": ("diagonal",)}, arrays=("torch",))
    arithmetic = Arithmetic()

    def scan(self, system, u, state=None, *, liquid):
        return get_backend("torch").scan(system, u.detach(), state, liquid=liquid)


def test_gradients_of_a_backend_that_has_none_are_refused_at_once():
    with pytest.raises(ls.BackendRejected, match="gradient: needs a problem without gradients") as caught:
        ls.apply(SYSTEM, U.clone().requires_grad_(), mode="liquid", backend=Forward())
    assert [r.reason for r in caught.value.rejections] == ["gradient"]
    with torch.no_grad():
        ls.apply(SYSTEM, U.clone().requires_grad_(), mode="liquid", backend=Forward())
    ls.apply(SYSTEM, U, mode="liquid", backend=Forward())


@every_backend
def test_an_overflow_is_named_and_not_returned(backend):
    system = ls.DiagonalSystem(*(torch.full((1, 1), v) for v in (0.9, 1.0, 1.0)))
    with pytest.raises(ls.UnstableRecurrence, match=r"step 8[0-9]") as caught:
        ls.apply(system, torch.full((1, 1, 200), 2.0), mode="liquid", backend=backend)
    assert caught.value.input_bound == pytest.approx(0.1, rel=1e-6)


@every_backend
def test_what_is_not_finite_in_u_is_named(backend):
    u = U.clone()
    u[1, 0, 4] = float("nan")
    with pytest.raises(ls.ParameterError, match="nan at batch 1, channel 0, step 4"):
        ls.apply(SYSTEM, u, mode="liquid", backend=backend)


@pytest.mark.parametrize(
    ("values", "finite"),
    [
        ([], True),
        ([1.0, -2.0], True),
        ([1.0, float("nan")], False),
        ([float("-inf")], False),
        ([complex(3e38, 3e38)], True),  # whose modulus is beyond float32
        ([complex(0, float("nan"))], False),
        ([complex(float("inf"), 0), 1j], False),
    ],
)
def test_what_is_finite_is_found_on_every_device(values, finite):
    dtype = torch.complex64 if any(isinstance(v, complex) for v in values) else torch.float32
    assert all_finite_there(torch.tensor(values, dtype=dtype)) is finite


def test_function_transforms_pass_through():
    batch = torch.stack([U, 2 * U])
    y = torch.vmap(lambda u: ls.apply(SYSTEM, u, mode="liquid", backend="numba"))(batch)
    for row, u in zip(y, batch, strict=True):
        assert torch.equal(row, ls.apply(SYSTEM, u, mode="liquid", backend="numba"))


@pytest.mark.parametrize("backend", ["torch", "torch-split-real"])
def test_forward_mode_gives_second_derivatives(backend):
    system, u, v = SYSTEM.astype("float64"), U.double(), U.flip(-1).double()

    def total(t):
        return ls.apply(system, u + t * v, mode="truncated", order=2, backend=backend).sum()

    def slope(t):
        return torch.func.jvp(total, (t,), (torch.ones_like(t),))[1]

    zero = torch.zeros((), dtype=torch.float64)
    second = torch.func.jvp(slope, (zero,), (torch.ones_like(zero),))[1]
    # Of a polynomial of degree 2 differences are exact but for rounding: some hundred operations.
    values = [total(zero + t) for t in (-1, 0, 1)]
    difference = values[0] - 2 * values[1] + values[2]
    size = sum(ls.apply(system, u + t * v, mode="truncated", order=2).abs().sum() for t in (-1, 0, 1))
    assert abs(second - difference) <= 2**10 * 2.0**-53 * size
    assert abs(second) > 1e-3


def test_a_torch_without_operators_is_refused():
    for version in ("2.4.0", "2.13.0+cpu", "3.0.0a1"):
        require_recent(version)
    with pytest.raises(ls.BackendUnavailable, match=r"need torch >= 2.4; 2.3.1\+cu121 is installed. Run: pip install"):
        require_recent("2.3.1+cu121")


def test_an_integrator_takes_no_tensors():
    continuous = ls.initialize("s4d-lin", n_channels=2, n_state=4, seed=0)
    with pytest.raises(ls.ParameterError, match="takes NumPy arrays only"):
        ls.apply(continuous.discretize("bilinear-exact"), U, mode="liquid")
