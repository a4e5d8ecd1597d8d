"""Layers by integrators: `adams-bashforth` and `bilinear-exact` against mpmath, and everything that layers do."""

from __future__ import annotations

import copy
import pickle
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import liquid_ssm as ls
from liquid_ssm import nn
from liquid_ssm.nn import sampling
from liquid_ssm.nn.multistep import MultistepState, largest_root, scan_multistep, starting_state
from liquid_ssm.oracle.integrator_reference import integrator_reference
from liquid_ssm.oracle.rounding import RoundingModel
from liquid_ssm.tensors import each_part

METHODS = ("adams-bashforth", "bilinear-exact")
# Adams-Bashforth is stable for small δt |λ| alone.
OPTIONS = {"adams-bashforth": {"dt_max": 0.02}, "bilinear-exact": {"dt_max": 0.5}}
STRUCTURES = {"diagonal": {}, "dplr": {}, "rank 2": {"init": "fout"}, "mimo": {}}
over_methods = pytest.mark.parametrize("method", METHODS)
over_structures = pytest.mark.parametrize("structure", STRUCTURES)


@pytest.fixture
def make(make_layer):
    def layer(structure, method, **changes):
        given = {"n_channels": 2, "discretization": method, **OPTIONS[method], **STRUCTURES[structure], **changes}
        mode = given.pop("mode", "liquid")
        return make_layer("dplr" if structure == "rank 2" else structure, mode, **given)

    return layer


@pytest.fixture
def expected(integrated, rounded):
    """expected(layer, u, dt, start): exact outputs and states, and what those of the layer may be off by."""

    def found(layer, u, dt, start=None):
        x0 = None if start is None else start.detach()
        values = integrated.exact(layer, u.detach(), dt.detach(), None if x0 is None else x0.numpy())
        return *values, *integrated.allowed(rounded, layer, u.detach(), dt.detach(), x0)

    return found


def ones(u):
    return torch.ones(u.shape[:2], dtype=u.dtype)


def intervals(batch, length):
    return 0.5 + torch.rand(batch, length, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def steps(layer, u, state=None, dt=None, rate=1.0):
    outputs = []
    for k in range(u.shape[1]):
        y, state = layer.step(u[:, k], state, rate, None if dt is None else dt[:, k])
        outputs.append(y)
    return torch.stack(outputs, 1), state


def x_of(state):
    return getattr(state, "x", state).detach().numpy()


def within(found, value, bound):
    found = found.detach().numpy() if isinstance(found, torch.Tensor) else found
    return bool(np.all(np.abs(found - value) <= bound))


@over_methods
@over_structures
def test_sequence_pieces_and_steps_are_the_integrator(structure, method, make, make_signal, expected, in_double):
    layer, u = make(structure, method), make_signal(2, 9, 2).double()
    value, last, of_y, of_x = expected(layer, u, ones(u))
    y, final = layer(u, return_state=True)
    first, state = layer.prefill(u[:, :4])
    second, state = layer.prefill(u[:, 4:], state)
    with torch.no_grad():
        stepped, stepped_state = steps(layer, u, layer.initial_state(2))
    for outputs, x in ((y, final), (torch.cat([first, second], 1), state), (stepped, stepped_state)):
        assert within(outputs, value, of_y)
        assert within(x_of(x), last, of_x)
    # The bound sees the liquid term, and which of the two methods it is.
    assert np.max(of_y) < 1e-12
    other = make(structure, METHODS[1 - METHODS.index(method)], dt_max=layer.continuous.dt().max().item())
    other.load_state_dict(layer.state_dict())
    assert not within(other(u), value, 1e6 * of_y)


@over_methods
@over_structures
def test_every_step_has_its_own_interval(structure, method, make, make_signal, expected, in_double):
    layer, u, dt = make(structure, method), make_signal(2, 7, 2).double(), intervals(2, 7)
    value, last, of_y, of_x = expected(layer, u, 2 * dt)
    y, final = layer(u, dt=dt, rate=2.0, return_state=True)
    assert within(y, value, of_y)
    assert within(x_of(final), last, of_x)
    stepped, state = steps(layer, u, dt=dt, rate=2.0)
    assert within(stepped, value, of_y)
    assert within(x_of(state), last, of_x)
    assert not within(layer(u), value, 1e6 * of_y)


@over_methods
def test_equal_intervals_are_a_rate(method, make, make_signal, in_double):
    layer, u = make("dplr", method), make_signal(2, 9, 2).double()
    assert torch.equal(layer(u, rate=1.5), layer(u, dt=torch.full((2, 9), 1.5)))
    assert torch.equal(layer(u, rate=torch.tensor(1.5)), layer(u, rate=1.5))


@over_methods
def test_a_state_goes_on_as_x(method, make, make_signal, expected, in_double):
    layer, u = make("diagonal", method), make_signal(2, 6, 2).double()
    start = torch.randn(2, 2, 4, dtype=torch.complex128, generator=torch.Generator().manual_seed(1))
    value, _, of_y, _ = expected(layer, u, ones(u), start)
    assert within(layer(u, state=start), value, of_y)


@over_methods
def test_single_precision_is_within_the_bound_of_the_integrator(method, make, make_signal):
    layer, u = make("diagonal", method, n_state=16), make_signal(2, 300, 2)
    continuous = layer.continuous.continuous()
    # Adams-Bashforth computes with rounded parameters, the exact bilinear step rounds what comes of them.
    kinds = (np.complex64, np.float32) if method == METHODS[0] else (complex, float)
    Lambda, dt = continuous.Lambda.astype(kinds[0]), continuous.dt.astype(kinds[1])
    signals = u.mT.contiguous().numpy()
    C = continuous.C
    found = integrator_reference(
        method, Lambda, continuous.B, C, dt, signals, models=[RoundingModel.of_dtype(np.float32)]
    )
    layer.D = None
    y = layer(u).detach().mT.numpy()
    assert within(y, found.value.astype(float), found.bounds[0].componentwise + found.radius)


@over_methods
@over_structures
def test_gradients_reach_every_parameter_the_input_intervals_and_the_state(
    structure, method, make, make_signal, monkeypatch, in_double
):
    monkeypatch.setattr(sampling, "_STEPS", 2)  # several pieces
    layer = make(structure, method, n_state=4)
    u, dt = make_signal(1, 5, 2).double().requires_grad_(), intervals(1, 5).requires_grad_()
    start = (0.1 * torch.randn_like(x_of_tensor(layer.prefill(u)[1]))).detach().requires_grad_()
    parameters = tuple(layer.parameters())

    def outputs(u, dt, start, *_):
        y, final = layer(u, dt=dt, state=start, return_state=True)
        return y, torch.view_as_real(x_of_tensor(final))

    assert torch.autograd.gradcheck(outputs, (u, dt, start, *parameters))
    outputs(u, dt, start)[0].square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in (*parameters, u, dt, start))


def x_of_tensor(state):
    return state.x if isinstance(state, MultistepState) else state


@over_methods
@pytest.mark.parametrize("padding", ["right", "left"])
def test_padding_has_no_influence(method, padding, make, make_signal, in_double):
    layer, u, lengths = make("dplr", method), make_signal(3, 12, 2).double(), torch.tensor([12, 5, 0])
    dt = intervals(3, 12)
    start = layer.prefill(make_signal(3, 2, 2, seed=4).double())[1]
    for options in ({}, {"state": start}):
        found, final = layer(u, lengths, dt=dt, padding=padding, return_state=True, **options)
        assert torch.equal(layer(u, lengths, dt=dt, padding=padding, **options), found)
        for row, length in enumerate(lengths.tolist()):
            real = slice(length) if padding == "right" else slice(12 - length, 12)
            own = None
            if options:
                own = each_part(start, lambda part, row=row: part[row : row + 1])
            alone, last = layer(u[row : row + 1, real], state=own, dt=dt[row : row + 1, real], return_state=True)
            # The same operations on the same numbers.
            assert torch.equal(found[row, real], alone[0])
            assert np.array_equal(x_of(final)[row], x_of(last)[0])
            assert not found[row].masked_select(mask_of(real)[:, None]).any()
    empty, none = layer(u[:0], lengths[:0], state=None, return_state=True)
    assert empty.shape == (0, 12, 2)
    assert len(x_of(none)) == 0


def mask_of(real):
    mask = torch.ones(12, dtype=torch.bool)
    mask[real] = False
    return mask


@over_methods
def test_no_output_depends_on_later_inputs(method, make, make_signal):
    layer, u = make("dplr", method), make_signal(2, 21, 2)
    changed = u.clone()
    changed[:, 13:] += 1
    before, after = layer(u), layer(changed)
    assert torch.equal(before[:, :13], after[:, :13])
    assert not torch.equal(before[:, 13], after[:, 13])


@over_methods
def test_a_second_direction_runs_backwards(method, make, make_signal, in_double):
    layer, u = make("diagonal", method, bidirectional=True), make_signal(2, 9, 2).double()
    first, second = copy.deepcopy(layer), copy.deepcopy(layer)
    for one in (first, second):
        one.bidirectional, one.D = False, None
    second.continuous.C = layer.continuous.C_reverse
    assert torch.equal(layer(u), torch.addcmul(first(u) + second(u.flip(1)).flip(1), layer.D, u))
    lengths = torch.tensor([9, 4])
    if method == "bilinear-exact":
        assert torch.equal(layer(u, lengths)[1:, :4], layer(u[1:, :4]))
    else:
        with pytest.raises(ls.ParameterError, match="takes no lengths"):
            layer(u, lengths)


@over_methods
def test_layers_are_copied_saved_compiled_and_cast(method, make, make_signal):
    layer, u = make("dplr", method), make_signal(2, 9, 2)
    y = layer(u)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(u), y)
    other = make("dplr", method, seed=8)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(u), y)
    half = layer(u.to(torch.bfloat16))
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, layer(u.to(torch.bfloat16).float()).to(torch.bfloat16))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(u), y)


@over_methods
def test_compiled_whole(method, make, make_signal, expected, in_double):
    layer, u = make("diagonal", method), make_signal(1, 5, 2).double()
    value, _, of_y, _ = expected(layer, u, ones(u))
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    assert within(compiled(u), value, of_y)
    compiled(u).square().sum().backward()
    assert layer.continuous.B.grad.abs().max() > 0


@over_methods
def test_models_train_and_stream(method, make_signal, integrated, rounded, in_double):
    torch.manual_seed(0)
    options = {"discretization": method, "dt_max": 0.02, "pooling": "none", "backend": "first"}
    model = nn.SequenceModel(2, 3, n_layers=2, n_channels=2, n_state=4, **options)
    u = make_signal(2, 6, 2).double()
    model(u).square().mean().backward()
    assert all(p.grad is not None for p in model.parameters())
    model.eval()

    def bounded(layer, given):
        return None, integrated.allowed(rounded, layer, given, ones(given))[0]

    _, bound = rounded.analysed(rounded.sequence_model, model, u, bounded)
    with torch.no_grad():
        y = model(u)
        stepped, state = steps(model, u)
        first, between = model.prefill(u[:, :2])
        second, final = model.prefill(u[:, 2:], between)
    # Each is off by the bound.
    assert within(stepped, y.numpy(), 2 * bound.numpy())
    assert within(torch.cat([first, second], 1), y.numpy(), 2 * bound.numpy())
    assert type(final.layers[0]) is type(state.layers[0])


@over_methods
def test_what_does_not_go_together_is_refused(method, make, make_signal):
    for changes, message in (
        ({"mode": "pb-all"}, "integrates the liquid system"),
        ({"mode": "s4"}, "integrates the liquid system"),
        ({"backend": "scipy"}, "backend is 'scipy', but nothing is selected for discretization"),
        ({"backend": "certified-only"}, "backend is 'certified-only'"),
        ({"backend": "auto", "tolerance": 1e-3}, "tolerance is 0.001"),
        ({"backend": "auto", "recheck": 0.5}, "recheck is 0.5"),
    ):
        with pytest.raises(ls.ParameterError, match=message):
            make("diagonal", method, **changes)
    with pytest.raises(ls.ParameterError, match="unknown discretization"):
        make("diagonal", method, **{"discretization": "rk4"})
    layer = make("diagonal", method)
    with pytest.raises(ls.ParameterError, match="no discrete system"):
        layer.system()
    layer.backend = "scipy"
    with pytest.raises(ls.ParameterError, match="backend is 'scipy'"):
        layer(make_signal(2, 5, 2))
    # Where it has kernels, their backend may be named.
    if method == "bilinear-exact":
        make("diagonal", method, backend="numba")(make_signal(2, 5, 2))
    for structure in ("mimo",) if method == "bilinear-exact" else ("diagonal", "dplr", "mimo"):
        with pytest.raises(ls.ParameterError, match="backend is 'numba'"):
            make(structure, method, backend="numba")
    layer.backend = "torch"
    for bad in (0.0, float("nan")):
        with pytest.raises(ls.ParameterError, match="rate is"):
            layer(make_signal(2, 5, 2), rate=bad)
    u = make_signal(2, 5, 2)
    u[1, 3, 0] = float("nan")
    with pytest.raises(ls.ParameterError, match="the first is nan at batch 1, channel 0, step 3"):
        layer(u)


def test_an_overflow_is_named(make, make_signal):
    layer = make("diagonal", "adams-bashforth", dt_min=1.0, dt_max=1.0)
    with pytest.raises(ls.UnstableRecurrence, match=r"adams-bashforth left the range of torch.float32 at step \d+"):
        layer(make_signal(1, 400, 2) + 200)


def test_parameters_that_are_not_finite_are_named(make, make_signal):
    layer = make("diagonal", "adams-bashforth")
    with torch.no_grad():
        layer.continuous.B[0, 0, 0] = float("nan")
    with pytest.raises(ls.UnstableRecurrence, match=r"continuous\.B"):
        layer(make_signal(1, 4, 2))


def test_another_state_is_refused(make, make_signal):
    layer, u = make("diagonal", "adams-bashforth"), make_signal(2, 5, 2)
    x = torch.zeros(2, 2, 4, dtype=torch.complex64)
    with pytest.raises(ls.ParameterError, match="carries its state as MultistepState, not as State"):
        layer(u, state=ls.State(x))
    with pytest.raises(ls.ShapeError, match=r"interval has shape \(3,\)"):
        layer(u, state=MultistepState(x, x, torch.ones(3)))
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(ls.ParameterError, match="interval of the state holds"):
            layer(u, state=MultistepState(x, x, torch.tensor([1.0, bad])))
    with pytest.raises(ls.ShapeError, match=r"\(2, 2, 4\)"):
        layer(u, state=MultistepState(x, x[:, :1], torch.ones(2)))


@over_methods
def test_states_that_are_not_finite_are_named(method, make, make_signal):
    layer, u = make("diagonal", method), make_signal(2, 5, 2)
    x = torch.zeros(2, 2, 4, dtype=torch.complex64)
    x[1, 0, 2] = float("nan")
    with pytest.raises(ls.ParameterError, match="state holds NaN"):
        layer(u, state=x)
    # What overflows is seen where no output has a part of it, too.
    with torch.no_grad():
        layer.continuous.C.zero_()
    with pytest.raises(ls.UnstableRecurrence, match=r"left the range .* at step 0, channel 0"):
        layer(u, state=torch.full((2, 2, 4), 3.4e38 + 3.4e38j, dtype=torch.complex64))


def test_rest_is_a_state_without_a_step(make):
    layer = make("diagonal", "adams-bashforth")
    rest = layer.initial_state(3)
    assert torch.isinf(rest.interval).all()
    assert not rest.f.any()
    same = starting_state(layer.continuous, torch.zeros(3, 2, 0), rest)
    assert all(torch.equal(one, other) for one, other in zip(same, rest, strict=True))
    y, final = scan_multistep(layer.continuous, torch.zeros(3, 2, 0), torch.ones(3, 0))
    assert y.shape == (3, 2, 0)
    assert torch.isinf(final.interval).all()


@pytest.mark.parametrize("structure", ["diagonal", "dplr", "mimo"])
def test_the_largest_root_is_the_growth_of_a_constant_input(structure, make, in_double):
    layer = make(structure, "adams-bashforth")
    u = torch.full((1, 2, 1), 0.7, dtype=torch.float64)
    parts = layer.continuous.joined()
    dt = layer.continuous.step_sizes()
    found = largest_root(*parts, dt, u)
    system = layer.continuous.continuous()
    radii = []
    for h in range(1 if structure == "mimo" else 2):
        Lambda, B = (system.Lambda, system.B.sum(1)) if structure == "mimo" else (system.Lambda[h], system.B[h])
        A = np.diag(np.concatenate([Lambda, Lambda.conj()]))
        for P in () if system.P is None else system.P[:, h]:
            both = np.concatenate([P, P.conj()])
            A = A - np.outer(both, both.conj())
        step = system.dt if structure == "mimo" else np.full(len(Lambda), system.dt[h])
        z = np.tile(step, 2)[:, None] * (A + np.diag(0.7 * np.concatenate([B, B.conj()])))
        unit = np.eye(len(z))
        radii.append(np.abs(np.linalg.eigvals(np.block([[unit + 1.5 * z, -0.5 * unit], [z, 0 * unit]]))).max())
    assert found == pytest.approx(max(radii), rel=1e-10)
    at_rest = largest_root(*parts, dt, u[..., :0])
    assert at_rest == pytest.approx(largest_root(*parts, dt, 0 * u))
    assert largest_root(*parts, dt, torch.stack([u[..., 0], -u[..., 0]], -1)) >= found


@over_methods
@pytest.mark.parametrize("bidirectional", [False, True])
def test_diagnoses_report_what_a_step_does(method, bidirectional, make, make_signal, exact, in_double):
    layer, u = make("diagonal", method, bidirectional=bidirectional), make_signal(2, 64, 2).double()
    (found,) = nn.diagnose(layer, u).layers
    by = "numba" if method == "bilinear-exact" else "torch"
    assert found.backend == f"{by}, step by step ({method})"
    assert found.certificate is None
    assert len(found.orders) == 1
    assert found.orders[0] + found.rest == pytest.approx(1)
    # y(εu)/ε for small ε, by another one.
    small = layer(u * 2.0**-20) * 2.0**20
    with torch.no_grad():
        whole, first = (y - layer.D * u for y in (layer(u), small))
        energies = [float(part.square().sum()) for part in (first, whole - first)]
    assert found.rest == pytest.approx(energies[1] / sum(energies), rel=1e-4)
    if method == "bilinear-exact" and not bidirectional:
        linear = SimpleNamespace(system=partial(layer.continuous.system, "bilinear"), D=None)
        linear.spec = ls.ModeSpec("s4")
        value, _ = exact(linear, u)
        assert np.abs(first.numpy() - value).max() < 1e-5 * np.abs(value).max()
    twice = nn.diagnose(layer, u, rate=2.0).layers[0]
    assert twice.memory_median == pytest.approx(found.memory_median / 2, rel=0.05)
    if not bidirectional:  # which takes no dt
        assert nn.diagnose(layer, u, dt=2 * ones(u)).layers[0].gain == pytest.approx(twice.gain)
    with nn.recorded_inputs(layer) as inputs:
        layer(u)
    with pytest.raises(ls.ParameterError, match="no ā \\+ b̄ u to bound"):
        nn.gain_penalty(inputs)
