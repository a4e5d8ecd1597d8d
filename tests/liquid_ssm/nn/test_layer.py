"""Layers against the exact recurrence, in every mode, structure and way of running."""

from __future__ import annotations

import copy
import io
import pickle
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import liquid_ssm as ls
from liquid_ssm.nn import LTC, ContinuousParameters, SequenceModel, SSMLayer
from liquid_ssm.oracle.discretisation_rounding import COMPLEX_QUOTIENT, discretisation_bounds
from liquid_ssm.oracle.rounding import COMPLEX_PRODUCT

PARAMETERS = {"continuous.log_decay", "continuous.frequency", "continuous.log_dt", "continuous.B", "continuous.C", "D"}


def within(found, value, bound):
    return bool(np.all(np.abs(found.detach().double().numpy() - value) <= bound))


def steps(layer, u, state=None):
    outputs = []
    for k in range(u.shape[1]):
        y, state = layer.step(u[:, k], state)
        outputs.append(y)
    return torch.stack(outputs, 1), state


def same(one, other):
    """Two states, bit for bit."""
    parts = zip(*((s if isinstance(s, ls.State) else (s,)) for s in (one, other)), strict=True)
    return all((a is None and b is None) or torch.equal(a, b) for a, b in parts)


def test_forward_prefill_and_step_are_the_exact_mode(kind, make_layer, make_signal, exact):
    layer, u = make_layer(*kind), make_signal()
    value, bound = exact(layer, u)
    assert within(layer(u), value, bound)
    first, state = layer.prefill(u[:, :8])
    second, final = layer.prefill(u[:, 8:], state)
    assert within(torch.cat([first, second], 1), value, bound)
    recorded, last = steps(layer, u)
    assert within(recorded, value, bound)
    with torch.no_grad():
        kept, again = steps(layer, u, layer.initial_state(2))
    assert within(kept, value, bound)
    # What follows shows the final states, by 8 outputs: 4 modes are as many real numbers, and no window is longer.
    tail = make_signal(2, 8, seed=1)
    value, bound = exact(layer, torch.cat([u, tail], 1))
    for state in (final, last, again):
        assert within(layer.prefill(tail, state)[0], value[:, 21:], bound[:, 21:])


def test_no_output_depends_on_later_inputs(kind, make_layer, make_signal):
    layer, u = make_layer(*kind), make_signal()
    changed = u.clone()
    changed[:, 13:] += 1
    before, after = layer(u), layer(changed)
    assert torch.equal(before[:, :13], after[:, :13])
    assert not torch.equal(before[:, 13], after[:, 13])


def test_gradients_reach_every_parameter_the_input_and_both_states(kind, make_layer, make_signal, in_double):
    structure, _ = kind
    layer, u = make_layer(*kind, n_channels=2, n_state=4), make_signal(1, 5, 2).double().requires_grad_()
    names = PARAMETERS | ({"continuous.P"} if structure in ("dplr", "dense") else set())
    assert {name for name, _ in layer.named_parameters()} == names
    start = torch.randn_like(layer.prefill(u)[1].x[:, 0] if layer.spec.mode in ("kb", "pb") else layer.prefill(u)[1])
    start = (0.1 * start).detach().requires_grad_()
    parameters = list(layer.parameters())

    def outputs(u, start, *_):
        y, final = layer(u, state=start, return_state=True)
        parts = final if isinstance(final, ls.State) else (final,)
        return (y, *(torch.view_as_real(p) if p.is_complex() else p for p in parts if p is not None))

    # Finite differences of 1e-6 in float64 are good to some 1e-8; gradcheck's own tolerances are 1e-5 and 1e-3.
    assert torch.autograd.gradcheck(outputs, (u, start, *parameters))
    torch.autograd.backward(outputs(u, start)[0].square().sum())
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in [*parameters, u, start])


@pytest.mark.parametrize("discretization", ["euler", "bilinear", "zoh"])
@pytest.mark.parametrize("structure", ["diagonal", "dplr", "mimo"])
def test_every_discretization_steps_as_it_runs(structure, discretization, make_layer, make_signal, exact):
    layer = make_layer(structure, "liquid", discretization=discretization, dt_max=0.01)
    u = make_signal()
    value, bound = exact(layer, u)
    assert within(layer(u), value, bound)
    with torch.no_grad():
        assert within(steps(layer, u)[0], value, bound)


class Copies(TorchDispatchMode):
    """The operations that write all numbers of a tensor like `u` again."""

    def __init__(self, u):
        super().__init__()
        self.size, self.found = u.numel(), []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in ("clone", "copy_", "_to_copy") and result.numel() == self.size:
            self.found.append(name)
        return result


@pytest.mark.parametrize("structure", ["diagonal", "dplr"])
@pytest.mark.parametrize("mode", ["s4", "liquid", "truncated", "kb-all", "kb-adjacent"])
def test_signals_are_not_copied_on_their_way_through_the_compiled_recurrences(structure, mode, make_layer):
    layer = make_layer(structure, mode, n_channels=5, backend="numba")
    u, grad_y = (0.1 * torch.randn(3, 40, 5, generator=torch.Generator().manual_seed(0)) for _ in range(2))
    u.requires_grad_()
    with Copies(u) as copies:
        layer(u).backward(grad_y)
    assert copies.found == []
    assert u.grad.is_contiguous()
    # The mode sees what there is to see.
    with Copies(u) as copies:
        u.transpose(1, 2).contiguous()
    assert copies.found == ["clone"]


@pytest.mark.parametrize("mode", ["s4", "liquid", "pb-all"])
def test_a_rate_is_a_factor_of_every_step_size_in_the_liquid_term_too(mode, make_layer, make_signal, exact, in_double):
    layer, u = make_layer("diagonal", mode), make_signal().double()
    continuous, found = layer.continuous.continuous(), layer.system(2.0).to_numpy()
    expected = continuous.with_dt(2 * continuous.dt).discretize("bilinear")
    allowed = discretisation_bounds(continuous.Lambda, continuous.B, 2 * continuous.dt, "bilinear")
    # Both are off by the bound; a layer multiplies by the reciprocal, which costs a product more than the quotient.
    both = 2 + COMPLEX_PRODUCT / COMPLEX_QUOTIENT
    assert np.all(np.abs(found.A_bar - expected.A_bar) <= both * allowed.A)
    assert np.all(np.abs(found.B_bar - expected.B_bar) <= both * allowed.B)
    value, bound = exact(SimpleNamespace(system=partial(layer.system, 2.0), spec=layer.spec, D=layer.D), u)
    assert within(layer(u, rate=2.0), value, bound)
    assert not within(layer(u), value, 1e-3)
    with torch.no_grad():
        for rate in (2.0, torch.tensor(2.0)):
            assert within(layer.step(u[:, 0], rate=rate)[0], value[:, 0], bound[:, 0])


def test_a_step_sees_every_change_of_a_parameter(make_layer, make_signal, exact):
    layer, u = make_layer(), make_signal()[:, 0]
    with torch.no_grad():
        before = layer.step(u)[0]
        assert torch.equal(layer.step(u)[0], before)
        layer.continuous.B.data[0, 0, 0] += 0.5  # which no version counter counts
        after = layer.step(u)[0]
        assert not torch.equal(after[:, 0], before[:, 0])
        assert torch.equal(after[:, 1:], before[:, 1:])
        value, bound = exact(layer, u[:, None])
        assert within(after, value[:, 0], bound[:, 0])


def test_a_bidirectional_layer_adds_the_reversed_run_of_its_second_output_vectors(
    make_layer, make_signal, exact_both_ways
):
    layer, u = make_layer(bidirectional=True), make_signal()
    forwards, backwards = copy.deepcopy(layer), copy.deepcopy(layer)
    for one in (forwards, backwards):
        one.bidirectional, one.D = False, None
    backwards.continuous.C = layer.continuous.C_reverse
    first, second = forwards(u), backwards(u.flip(1)).flip(1)
    assert torch.equal(layer(u), torch.addcmul(first + second, layer.D, u))
    layer.reverse_lag = 1
    later = nn.functional.pad(second[:, 1:], (0, 0, 0, 1))
    assert torch.equal(layer(u), torch.addcmul(first + later, layer.D, u))
    layer, u, lengths = layer.double(), u.double(), torch.tensor([21, 9])
    for lag in (0, 1):
        layer.reverse_lag = lag
        assert within(layer(u), *exact_both_ways(layer, u))
        assert layer(u[:, :0]).shape == (2, 0, 3)
        for side, at in (("right", slice(9)), ("left", slice(12, 21))):
            found = layer(u, lengths, padding=side)[1:, at]
            assert within(found, *exact_both_ways(layer, u[1:, at]))
    layer(u).sum().backward()
    assert layer.continuous.C_reverse.grad.abs().max() > 0
    for call in (
        lambda: layer.step(u[:, 0]),
        lambda: layer(u, return_state=True),
        lambda: layer(u, dt=u[..., 0].abs()),
    ):
        with pytest.raises(ls.ParameterError, match="bidirectional"):
            call()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_inputs_and_autocast_are_computed_in_float32(dtype, make_layer, make_signal):
    layer, u = make_layer(), make_signal().to(dtype)
    single = layer(u.float())
    y, state = layer(u, return_state=True)
    assert (y.dtype, state.dtype) == (dtype, torch.complex64)
    assert torch.equal(y, single.to(dtype))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(u.float()), single)
    layer.to(dtype)
    assert layer(u).dtype == dtype
    assert layer.system().dtype == torch.float32


def test_frozen_parts_stay_and_the_rest_learns(make_layer, make_signal):
    layer, u = make_layer("dplr", frozen=("Lambda", "B", "D")), make_signal()
    before = copy.deepcopy(layer.state_dict())
    layer(u).square().mean().backward()
    torch.optim.SGD([p for p in layer.parameters() if p.requires_grad], lr=0.1).step()
    changed = {name for name, value in layer.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"continuous.P", "continuous.C", "continuous.log_dt"}


def test_what_is_saved_does_not_depend_on_lengths_and_comes_back(make_layer, make_signal, tmp_path):
    layer, u = make_layer("dplr", "pb-all"), make_signal()
    shapes = {name: value.shape for name, value in layer.state_dict().items()}
    y = layer(u)
    layer(make_signal(1, 300))
    with torch.no_grad():
        layer.step(u[:, 0])
    assert {name: value.shape for name, value in layer.state_dict().items()} == shapes
    buffer = io.BytesIO()
    torch.save(layer.state_dict(), buffer)
    buffer.seek(0)
    fresh = make_layer("dplr", "pb-all", seed=6)
    assert not torch.equal(fresh(u), y)
    fresh.load_state_dict(torch.load(buffer, weights_only=True))
    for other in (fresh, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(u), y)
    from safetensors.torch import load_file, save_file

    save_file(layer.state_dict(), tmp_path / "layer.safetensors")
    again = make_layer("dplr", "pb-all", seed=7)
    again.load_state_dict(load_file(tmp_path / "layer.safetensors"))
    assert torch.equal(again(u), y)


def test_the_seed_decides_and_is_torchs_own_if_not_given():
    torch.manual_seed(3)
    one, two = SSMLayer(2, 4), SSMLayer(2, 4)
    torch.manual_seed(3)
    three = SSMLayer(2, 4)
    assert torch.equal(one.continuous.C, three.continuous.C)
    assert torch.equal(one.D, three.D)
    assert not torch.equal(one.continuous.C, two.continuous.C)
    assert torch.equal(SSMLayer(2, 4, seed=9).continuous.C, SSMLayer(2, 4, seed=9).continuous.C)


def test_the_scale_of_the_liquid_term_leaves_the_linear_part(make_layer, make_signal, exact, in_double):
    u = make_signal().double()

    def run(scale, order):
        layer = make_layer("diagonal", "truncated", liquid_scale=scale, order=order)
        return layer(u).detach().numpy(), exact(layer, u)[1]

    (linear, of_linear), (whole, of_whole), (half, of_half) = run(1.0, 1), run(1.0, 2), run(0.5, 2)
    # A power of two changes exponents only, of B̄ and of states, and C takes it back.
    assert np.array_equal(run(0.5, 1)[0], linear)
    # Half of the second order is linear + (whole - linear) / 2, here with one rounding, besides those of the outputs.
    allowed = of_half + (of_whole + of_linear) / 2 + 2.0**-53 * np.abs(whole + linear)
    assert np.all(np.abs(half - (whole + linear) / 2) <= allowed)
    assert np.abs(whole - linear).max() > 1e-3


@pytest.mark.parametrize(
    ("options", "scale"),
    [
        ({"mode": "liquid"}, 0.125),
        ({"mode": "pb", "init": "fout"}, 0.125),
        ({"mode": "liquid", "init": "legs"}, 1.0),
        ({"mode": "s4"}, 1.0),
        ({"mode": "liquid", "liquid_scale": 2.0}, 2.0),
    ],
)
def test_the_scale_is_small_where_a_mean_would_make_states_grow(options, scale):
    layer = SSMLayer(2, 8, seed=0, **options)
    start = ls.initialize(options.get("init", "s4d-lin"), n_channels=2, n_state=8, seed=0)
    found = layer.continuous.continuous()
    # Powers of two are exact; a layer holds float32.
    assert np.array_equal(found.B, (scale * start.B).astype(np.complex64))
    assert np.array_equal(found.C, (start.C / scale).astype(np.complex64))


def test_both_directions_start_with_outputs_of_one_size():
    for options in ({}, {"mode": "s4"}, {"init": "legs"}):
        held = SSMLayer(8, 64, bidirectional=True, seed=0, **options).continuous
        # 512 normal numbers each: their deviations differ by some percent.
        assert 0.8 < float((held.C_reverse.std() / held.C.std()).detach()) < 1.25


@pytest.mark.parametrize("init", ["s4d-lin", "s4d-inv", "s4d-legs", "dss", "legs", "fout", "legs/fout", "s5"])
def test_inputs_with_a_mean_of_one_do_not_make_states_grow(init):
    layer = SSMLayer(4, 64, init=init, seed=1, backend="first", feedthrough=False)
    length = 512 if init == "s5" else 8192
    for sign in (1.0, -1.0):
        # A linear system answers a constant with its gain, here below 10; the liquid term may double it.
        assert layer(torch.full((1, length, 4), sign)).abs().max() < 20


def test_parameters_may_be_given_as_a_system(in_double):
    system = ls.initialize("s4d-inv", n_channels=2, n_state=6, seed=4)
    found = SSMLayer(2, 6, init=system).continuous.continuous()
    assert np.array_equal(found.B, system.B)
    assert np.array_equal(found.C, system.C)
    assert np.array_equal(found.Lambda.imag, system.Lambda.imag)
    for one, other in ((found.dt, system.dt), (found.Lambda.real, system.Lambda.real)):
        # log and exp are within one unit in the last place, eps: that of the logarithm is a relative one of exp.
        allowed = (1 + np.abs(np.log(np.abs(other)))) * np.finfo(float).eps
        assert np.all(np.abs(one - other) <= allowed * np.abs(other))


def test_an_overflow_is_an_error_and_no_nan(make_layer, make_signal):
    for call in (make_layer(dt_min=1, dt_max=1), make_layer("mimo", dt_min=1, dt_max=1)):
        with pytest.raises(ls.UnstableRecurrence, match="step"):
            call(100 * make_signal(1, 400) + 200)


NOT_FINITE = [
    (structure, name)
    for structure in ("diagonal", "dplr", "mimo", "dense")
    for name in ("log_decay", "frequency", "log_dt", "B", "C", "D", *(["P"] if structure in ("dplr", "dense") else []))
]


@pytest.mark.parametrize(("structure", "name"), NOT_FINITE)
def test_parameters_that_are_not_finite_are_named(structure, name, make_layer, make_signal):
    layer, u = make_layer(structure), make_signal()
    full = name if name == "D" else f"continuous.{name}"
    values = dict(layer.named_parameters())[full].data
    # The middle channel, where the parameter belongs to one.
    owned = structure != "mimo" or name in ("B", "C", "D")
    middle = values.select(1 if name == "P" or (structure, name) == ("mimo", "B") else 0, 1)
    middle[(0,) * middle.ndim] = torch.nan
    calls = [lambda: layer(u), lambda: layer(u, torch.tensor([21, 3])), lambda: layer.step(u[:, 0])]
    if structure != "dense":
        calls.append(lambda: layer(u, dt=torch.ones(2, 21)))
    for call in calls:
        for gradients in (True, False):
            with torch.set_grad_enabled(gradients), pytest.raises(ls.UnstableRecurrence) as raised:
                call()
            assert f"NaN or infinite values: {full} (1 of {values.numel()} numbers). Training has diverged" in str(
                raised.value
            )
            assert (raised.value.step, raised.value.channel) == (0, 1 if owned else 0)


def test_training_that_diverges_says_what_to_do(make_layer, make_signal):
    layer, u = make_layer(bidirectional=True), make_signal()
    optimizer = torch.optim.SGD(layer.parameters(), lr=torch.inf)
    layer(u).square().sum().backward()
    optimizer.step()
    with pytest.raises(ls.UnstableRecurrence, match=r"C_reverse \(.* numbers\)\. .* learning rate .* clip .* max_gain"):
        layer(u)


def test_parameters_are_not_looked_at_where_all_is_well(make_layer, make_signal, monkeypatch):
    def fail(*_):
        raise AssertionError

    monkeypatch.setattr("liquid_ssm.nn.layer.require_finite_parameters", fail)
    layer, u = make_layer(), make_signal()
    layer(u).sum().backward()
    with torch.no_grad():
        layer.step(u[:, 0])
        # A sum of D that overflows is no D that is not finite.
        monkeypatch.undo()
        layer.D.fill_(3e38)
        assert bool(torch.isfinite(layer(0 * u)).all())


def test_the_state_at_rest_is_known_without_discretising(kind, make_layer, monkeypatch):
    layer = make_layer(*kind)
    like = torch.empty(2, 3, 0)
    expected = ls.modes.initial_state(layer.system(), layer.spec, like, None)

    def fail(*_, **__):
        raise AssertionError

    monkeypatch.setattr(ContinuousParameters, "system", fail)
    monkeypatch.setattr(ContinuousParameters, "discretize", fail)
    assert same(layer.initial_state(2), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reverse_lag": 1}, "reverse_lag is 1; it is 0 or, with bidirectional=True, 1"),
        ({"reverse_lag": 2, "bidirectional": True}, "reverse_lag is 2"),
        ({"structure": "triangular"}, "structure 'triangular'"),
        ({"init": "hippo"}, "init 'hippo'"),
        ({"init": "legs", "structure": "diagonal"}, "init 'legs' is of structure 'dplr'"),
        ({"discretization": "rk4"}, "discretization 'rk4'"),
        ({"mode": "lti"}, "mode 'lti'"),
        ({"mode": "pb", "structure": "mimo"}, "mimo"),
        ({"frozen": ("A",)}, "part 'A'; allowed: Lambda, P, B, C, dt, D"),
        ({"frozen": "Lambda"}, "frozen is 'Lambda'; give a tuple"),
        ({"frozen": None}, "frozen is None; give a tuple"),
        ({"n_state": 0}, "n_state is 0"),
        ({"dt_min": 0.0}, "dt_min"),
        ({"liquid_scale": 0.0}, "liquid_scale is 0.0"),
        ({"liquid_scale": "a"}, "liquid_scale is 'a'"),
        ({"max_gain": "1"}, "max_gain is '1'"),
        ({"backend": "numba", "tolerance": 1e-3}, "tolerance"),
        ({"backend": "nope"}, "backend 'nope'; allowed: auto, certified-only, first, numba"),
        ({"tolerance": -1.0}, "tolerance is -1.0; give a positive relative error"),
        ({"tolerance": 0}, "tolerance is 0; give a positive relative error"),
        ({"tolerance": "x"}, "tolerance is 'x'"),
        ({"recheck": 2}, "recheck is 2; it is a share of calls"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ls.ParameterError, match=message):
        SSMLayer(4, **{"n_state": 8, **options})


def test_a_backend_may_compute_in_another_dtype(make_signal):
    y = SSMLayer(3, 4, backend="numba:float32", seed=0, feedthrough=False).double()(make_signal().double())
    assert y.dtype == torch.float64
    assert torch.equal(y.float().double(), y)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda layer, u: layer(u.numpy()), ls.DTypeError, "u is a ndarray; give a torch tensor"),
        (lambda layer, u: layer(u.long()), ls.DTypeError, "int64; give real numbers"),
        (lambda layer, u: layer(u, dt=1.5), ls.DTypeError, "dt is a float; give a torch tensor"),
        (lambda layer, u: layer(u, dt=1j * torch.ones(2, 21)), ls.DTypeError, "dt has dtype torch.complex64"),
        (lambda layer, u: layer.step(u[:, 0], dt=1.5), ls.DTypeError, "dt is a float; give a torch tensor"),
        (lambda layer, u: layer.step(u[:, 0], dt=torch.ones(3)), ls.ShapeError, r"dt has shape \(3,\); .* \(2,\)"),
        (lambda layer, u: layer.step(u[:, 0, :2]), ls.ShapeError, r"u_k has shape \(2, 2\); step takes \(batch, 3\)"),
        (lambda layer, u: layer(u, rate="2"), ls.ParameterError, "rate is '2'; it is a positive factor"),
        (lambda layer, u: layer(u, rate=None), ls.ParameterError, "rate is None"),
        (lambda layer, u: layer(u, padding="both"), ls.ParameterError, "padding 'both'"),
    ],
)
def test_what_is_no_input_is_named(call, error, message, make_layer, make_signal):
    with pytest.raises(error, match=message):
        call(make_layer(), make_signal())


def test_intervals_may_be_whole_numbers(make_layer, make_signal):
    layer, u = make_layer(), make_signal()
    assert torch.equal(layer(u, dt=torch.full((2, 21), 2)), layer(u, dt=torch.full((2, 21), 2.0)))


@pytest.mark.parametrize("dt", [None, torch.ones(2, 21)])
def test_a_state_of_another_integrator_is_named(dt, make_layer, make_signal):
    other, u = make_layer(discretization="adams-bashforth", dt_max=1e-2), make_signal()
    state = other.initial_state(2)
    with pytest.raises(ls.ParameterError, match=r"adams-bashforth; this one discretises with zoh"):
        make_layer(discretization="zoh")(u, state=state, dt=dt)
    with torch.no_grad(), pytest.raises(ls.ParameterError, match=r"adams-bashforth; this one discretises with zoh"):
        make_layer(discretization="zoh").step(u[:, 0], state)


def test_both_directions_have_no_state():
    with pytest.raises(ls.ParameterError, match="bidirectional layer has no state"):
        SSMLayer(2, 4, bidirectional=True).initial_state(1)


@pytest.mark.parametrize("batch", [-1, 2.0, "2"])
@pytest.mark.parametrize("made", [SSMLayer(2, 4), LTC(2, 3), SequenceModel(1, 1, n_layers=1, n_channels=2, n_state=4)])
def test_a_number_of_rows_is_a_whole_number_from_0(made, batch):
    with pytest.raises(ls.ParameterError, match=r"batch is .*; give a whole number from 0"):
        made.initial_state(batch)
    assert made.initial_state(0) is not None


def test_rest_for_as_many_rows_as_an_input_has_compiles(make_layer):
    layer = make_layer()
    rest = torch.compile(lambda u: layer.initial_state(u.shape[0]), fullgraph=True, backend="eager", dynamic=True)
    for batch in (2, 3):
        assert same(rest(torch.zeros(batch, 3)), layer.initial_state(batch))


def test_a_system_that_does_not_fit_is_refused():
    system = ls.initialize("s4d-lin", n_channels=2, n_state=6)
    with pytest.raises(ls.ParameterError, match="2 channels and 6 states"):
        SSMLayer(3, 6, init=system)
    with pytest.raises(ls.ParameterError, match="leave structure out"):
        SSMLayer(2, 6, init=system, structure="dplr")


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 21), (2, 5, 3, 1)])
def test_wrong_shapes_are_named(shape, make_layer):
    with pytest.raises(ls.ShapeError, match="batch, length, 3"):
        make_layer()(torch.zeros(shape))
    with pytest.raises(ls.ShapeError, match="batch, 3"):
        make_layer().step(torch.zeros(2, 1, 3))


@pytest.mark.parametrize("mode", ["s4", "liquid", "truncated", "pb-all", "kb-adjacent"])
def test_no_rows_and_no_steps(mode, make_layer):
    layer = make_layer("diagonal", mode)
    assert layer(torch.zeros(0, 5, 3)).shape == (0, 5, 3)
    y, state = layer(torch.zeros(2, 0, 3), return_state=True)
    assert y.shape == (2, 0, 3)
    assert same(state, layer.initial_state(2))


@pytest.mark.parametrize(
    ("dtype", "size", "error"), [(torch.float32, 1e37, ls.UnstableRecurrence), (torch.float16, 2e3, ls.ParameterError)]
)
def test_a_feedthrough_that_leaves_the_range_is_an_error(dtype, size, error, make_layer):
    layer, u = make_layer(mode="s4"), torch.zeros(2, 9, 3, dtype=dtype)
    u[1, 3:] = size
    with torch.no_grad():
        layer.D.fill_(100.0)
    with pytest.raises(error, match=f"left the range of {dtype} at step 3" if dtype == torch.float32 else "y leaves"):
        layer(u)
    with torch.no_grad(), pytest.raises(error, match="range of"):
        layer.step(u[:, 3])


def test_a_sum_of_directions_that_leaves_the_range_is_an_error(make_layer):
    layer, u = make_layer(mode="s4", bidirectional=True, feedthrough=False), torch.full((2, 1, 3), 1e30)
    C, back = layer.continuous.C, layer.continuous.C_reverse
    with torch.no_grad():
        back.zero_()
        C *= 3e38 / float(layer(u).abs().max())  # below the largest number, 3.4e38
        assert torch.isfinite(layer(u)).all()
        back.copy_(C)  # of one step, both directions are then the same
    with pytest.raises(ls.UnstableRecurrence, match=r"the output left the range of torch\.float32 at step 0"):
        layer(u)


RATES = [-1.0, 0.0, float("nan"), float("inf"), "2", None, 1 + 0j, True, torch.tensor(1 + 0j), torch.ones(2, 1)]


@pytest.mark.parametrize("rate", RATES, ids=repr)
@pytest.mark.parametrize("mode", ["liquid", "pb-adjacent"])
def test_a_rate_is_one_positive_number_everywhere(mode, rate, make_layer, make_signal):
    layer, u = make_layer("diagonal", mode), make_signal()
    dt = torch.full((2, 21), -1.0)  # times -1 it would be positive
    refused = pytest.raises((ls.ParameterError, ls.ShapeError), match=r"^rate ")
    for call in (
        lambda: layer(u, rate=rate),
        lambda: layer(u, rate=rate, dt=dt),
        lambda: layer.step(u[:, 0], rate=rate),
    ):
        with refused:
            call()
        with torch.no_grad(), refused:
            call()


@pytest.mark.parametrize("discretization", ["bilinear", "adams-bashforth"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_intervals_are_multiplied_with_the_rate_in_float64(dtype, discretization, make_layer, make_signal, in_double):
    layer, u = make_layer(discretization=discretization), make_signal().double()
    dt = (1 + torch.arange(42).reshape(2, 21) % 3).to(dtype)
    assert torch.equal(layer(u, dt=dt, rate=0.3), layer(u, dt=dt.double() * 0.3))


def test_intervals_are_looked_at_before_the_clamp(make_layer, make_signal):
    layer, u = make_layer(max_gain=1.1), make_signal()
    for value in (float("nan"), float("inf"), -1.0):
        with pytest.raises(ls.ParameterError, match="dt times rate holds"):
            layer(u, dt=torch.full((2, 21), value))
    with pytest.raises(ls.ShapeError, match="dt has shape"):
        layer(u, dt=torch.ones(5))


@pytest.mark.parametrize(
    "state", [[0.0], "rest", (1, 2), np.zeros((2, 3, 4), complex), torch.zeros(2, 3, 4, device="meta")]
)
def test_what_is_no_state_is_refused_by_steps_too(state, make_layer, make_signal):
    layer, u = make_layer(), make_signal()
    messages = []
    for call in (lambda: layer(u, state=state), lambda: layer.step(u[:, 0], state)):
        with torch.no_grad(), pytest.raises(ls.LiquidSSMError) as caught:
            call()
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


@pytest.mark.parametrize("backend", ["auto", "first", "torch"])
@pytest.mark.parametrize(("structure", "mode"), [("diagonal", "liquid"), ("dplr", "pb-adjacent"), ("mimo", "liquid")])
def test_lazily_negated_inputs_are_like_others(structure, mode, backend, make_layer):
    """As of the imaginary part of a conjugate: torch keeps the numbers that it was made of, and a mark."""
    layer = make_layer(structure, mode, backend=backend)
    u = 0.1 * torch.randn(2, 9, 3, dtype=torch.complex64).conj().imag
    lazy = torch.complex(torch.zeros_like(u), -u).conj().imag
    assert lazy.is_neg()
    for _ in range(2):
        assert torch.equal(layer(lazy), layer(u))
        with torch.no_grad():
            assert torch.equal(layer.step(lazy[:, 0])[0], layer.step(u[:, 0])[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": 3}, "backend is 3; give the name"),
        ({"bidirectional": "no"}, "bidirectional is 'no'; give True or False"),
        ({"feedthrough": 0}, "feedthrough is 0; give True or False"),
    ],
)
def test_options_of_another_type_are_named(options, message):
    with pytest.raises(ls.ParameterError, match=message):
        SSMLayer(2, 4, **options)


@pytest.mark.parametrize(
    ("mode", "options", "message"),
    [
        (
            "liquid",
            {"backend": "certified-only"},
            "backend is 'certified-only', but nothing is selected for steps with dt",
        ),
        ("liquid", {"backend": "scipy"}, "backend is 'scipy'.* name torch or numba, or give one interval as rate"),
        ("liquid", {"backend": "numba:float64"}, "backend is 'numba:float64'"),
        ("pb-adjacent", {"backend": "numba"}, "backend is 'numba'.* name torch, or"),
        ("liquid", {"backend": "numba", "discretization": "zoh"}, "backend is 'numba'.* name torch, or"),
        ("liquid", {"backend": "auto", "tolerance": 1e-3}, "tolerance is 0.001, but"),
        ("liquid", {"backend": "auto", "recheck": 0.5}, "recheck is 0.5, but"),
    ],
)
def test_options_of_selection_mean_nothing_with_intervals_and_are_refused(
    mode, options, message, make_layer, make_signal
):
    layer, u = make_layer("diagonal", mode, **options), make_signal()
    for call in (lambda: layer(u, dt=torch.ones(2, 21)), lambda: layer.step(u[:, 0], dt=torch.ones(2))):
        with pytest.raises(ls.ParameterError, match=message):
            call()
    for backend in (None, "auto", "first", "torch"):
        again = make_layer("diagonal", mode, backend=backend)
        assert torch.isfinite(again(u, dt=torch.ones(2, 21))).all()
