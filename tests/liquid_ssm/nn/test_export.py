"""Steps and sequences in split-real form against the layer, by themselves, exported, and run by onnxruntime."""

from __future__ import annotations

from functools import partial
from itertools import combinations, product
from math import prod
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch

from liquid_ssm.compute import problem_of
from liquid_ssm.errors import DTypeError, ParameterError, ShapeError
from liquid_ssm.nn import LTC, SSMLayer
from liquid_ssm.nn.export import SplitRealForward, SplitRealStep, join_state, split_state
from liquid_ssm.nn.stability import clamped, input_limit
from liquid_ssm.oracle.reference import reference
from liquid_ssm.oracle.rounding import RoundingModel
from liquid_ssm.registry import get_backend
from liquid_ssm.rounding_errors import options, realization_of, rounding_models

STRUCTURES = {
    "diagonal": {"init": "s4d-lin"},
    "dplr": {"init": "legs"},
    "dense": {"init": "legs", "discretization": "zoh"},
    "mimo": {"init": "s5"},
}
MODES = {
    "s4": {"mode": "s4"},
    "liquid": {"mode": "liquid"},
    "truncated": {"mode": "truncated"},
    "truncated-1": {"mode": "truncated", "order": 1},
    "kb-1": {"mode": "kb", "order": 1},
    "kb-all": {"mode": "kb"},
    "kb-adjacent": {"mode": "kb", "correlations": "adjacent"},
    "kb-all-window": {"mode": "kb", "window": 5},
    "kb-adjacent-window": {"mode": "kb", "correlations": "adjacent", "window": 5},
    "pb-1": {"mode": "pb", "order": 1, "window": 2},
    "pb-all": {"mode": "pb"},
    "pb-adjacent": {"mode": "pb", "correlations": "adjacent"},
    "pb-all-window": {"mode": "pb", "window": 5},
    "pb-adjacent-window": {"mode": "pb", "correlations": "adjacent", "window": 5},
}
SCALAR = ("kb-all", "kb-adjacent", "pb-all", "pb-adjacent")  # products of scalar inputs, which mimo does not have
CASES = [(structure, mode) for structure in STRUCTURES for mode in MODES]
CASES = [case for case in CASES if not (case[0] == "mimo" and case[1].startswith(SCALAR))]
# Exports take a second each: every mode once, on the structure that has most to export, and the other structures.
EXPORTED = [("dplr", mode) for mode in MODES] + [("diagonal", "kb-all"), ("dense", "liquid"), ("mimo", "liquid")]
LOOPS = [("diagonal", "liquid"), ("dplr", "pb-all-window"), ("dense", "kb-adjacent")]
# Modes by their names in conftest.  Full matrices and shared states are plain torch, compiled in some seconds each.
COMPILED = [
    *product(["diagonal", "dplr"], ["s4", "liquid", "truncated"]),
    *product(["diagonal", "dplr"], ["kb-all", "kb-adjacent", "kb-window", "pb-all", "pb-adjacent", "pb-window"]),
    *product(["dense", "mimo"], ["liquid"]),
]
LENGTH = 14
over_all = pytest.mark.parametrize("case", CASES, ids="-".join)


def layer_of(case, **changes):
    """Large steps, so that no order of a liquid expansion is small beside the rounding errors of the others."""
    given = {
        "backend": "numpy",
        "seed": 3,
        "liquid_scale": 1.0,
        "dt_min": 0.1,
        "dt_max": 0.5,
        **STRUCTURES[case[0]],
        **MODES[case[1]],
    }
    return SSMLayer(2, 4 if case[0] == "dense" else 8, **given | changes)


def signal(batch=2, length=LENGTH):
    return 0.7 * torch.randn(batch, length, 2, generator=torch.Generator().manual_seed(1))


def exact(layer, u):
    """The exact y (batch, length, H), and how far the step in real arithmetic and the layer's may be from it.

    Both bounds are the oracle's, of a computation whose sums run in any order, for the layer's that of its backend.
    D u adds a product and a sum.
    """
    with torch.no_grad():
        system = layer.system().to_numpy()
    signals = u.mT.contiguous().numpy()
    theirs = rounding_models(get_backend(layer.backend), problem_of(system, signals, layer.spec, state=True))
    found = reference(
        realization_of(system),
        signals,
        layer.spec.mode,
        models=[RoundingModel.of_dtype(signals.dtype, correlations="sums"), *theirs],
        dtype=np.longdouble,
        **options(layer.spec),
    )
    through = 0 * signals if layer.D is None else layer.D.detach().numpy().astype(float)[:, None] * signals
    value = np.asarray(found.value, float) + through
    unit = np.finfo(signals.dtype).eps / 2
    outer = unit * (2 * np.abs(through) + np.abs(value)) + found.radius
    own, *others = (bound.componentwise for bound in found.bounds)
    own = own + of_windows(layer.spec, system, signals, unit)
    # One more roundoff for terms of second order.
    own, their = ((1 + 4 * unit) * (bound + outer) for bound in (own, sum(others)))
    return tuple(np.swapaxes(array, 1, 2).astype(float) for array in (value, own, their))


def of_windows(spec, system, u, unit):
    """What a sum over a window, in any order, rounds more than the schemes that the oracle knows.

    A term K_p[m] u_{i_1} … u_{i_p} passes p products, one rounding of K_p, at most n - 1 additions in running sums and
    n - p in the sum over m, and P - 1 where the orders are added: at most 2n + P roundings for n inputs.
    """
    bound = np.zeros(u.shape)
    if spec.window is None or spec.order == 1:
        return bound
    numpy = get_backend("numpy")
    for p in range(2, spec.order + 1):
        kernel = np.abs(numpy.kernel(system.with_input_power(p), spec.window))
        for k in range(u.shape[-1]):
            for tuple_ in combinations(range(max(0, k - spec.window + 1), k + 1), p):
                adjacent = tuple_[-1] - tuple_[0] == p - 1
                if adjacent or spec.correlations == "all":
                    age = 0 if spec.mode == "pb" else k + 1 - p - tuple_[0]
                    bound[..., k] += kernel[:, age] * prod(np.abs(u[..., i]) for i in tuple_)
    return (2 * spec.window + spec.order) * unit * bound


def run(step, u, parts):
    """y (batch, length, H) and the parts after it, one step after the other."""
    outputs = []
    for u_k in u.unbind(1):
        y, *parts = step(u_k, *parts)
        outputs.append(y)
    return torch.stack(outputs, 1), tuple(parts)


def run_layer(layer, u, state, **options):
    outputs = []
    for u_k in u.unbind(1):
        y, state = layer.step(u_k, state, **options)
        outputs.append(y)
    return torch.stack(outputs, 1), state


def within(found, value, bound):
    return bool(np.all(np.abs(np.asarray(found, float) - value) <= bound))


def same(one, other):
    return len(one) == len(other) and all(map(torch.equal, one, other))


def dtypes(program):
    """Of every value in the graphs of an exported program."""
    found = set()
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            values = node.meta.get("val")
            values = values if isinstance(values, (tuple, list)) else [values]
            found |= {value.dtype for value in values if isinstance(value, torch.Tensor)}
    return found | {value.dtype for value in program.state_dict.values()}


@over_all
@torch.no_grad()
def test_the_step_is_the_layers(case, in_double):
    layer, u = layer_of(case), signal().double()
    value, own, theirs = exact(layer, u)
    step = SplitRealStep(layer)
    y, parts = run(step, u, step.initial_state(2))
    y_layer, state = run_layer(layer, u, layer.initial_state(2))
    assert within(y, value, own)
    assert within(y_layer, value, theirs)
    assert within(y, y_layer.numpy(), own + theirs)
    # Each goes on from where the other is.
    _, parts_between = run(step, u[:, :8], step.initial_state(2))
    _, state_between = run_layer(layer, u[:, :8], None)
    y_split, _ = run(step, u[:, 8:], split_state(layer, state_between))
    y_joined, _ = run_layer(layer, u[:, 8:], join_state(layer, parts_between))
    assert within(y_split, value[:, 8:], (own + theirs)[:, 8:])
    assert within(y_joined, value[:, 8:], (own + theirs)[:, 8:])
    assert same(split_state(layer, join_state(layer, parts)), parts)
    assert [tuple(part.shape) for part in split_state(layer, state)] == [tuple(part.shape) for part in parts]
    assert len(step.state_names) == len(parts)


@over_all
@torch.no_grad()
def test_the_sequence_is_its_steps(case):
    layer, u = layer_of(case), signal()
    step, forward = SplitRealStep(layer), SplitRealForward(layer)
    y, parts = run(step, u, step.initial_state(2))
    assert same(forward(u), (y, *parts))
    first, *between = forward(u[:, :7])
    second, *final = SplitRealForward(layer, length=LENGTH - 7)(u[:, 7:], *between)
    assert torch.equal(torch.cat([first, second], 1), y)
    assert same(final, parts)
    assert same(forward(u[:, :0], *parts), (u[:, :0], *parts))


@pytest.mark.parametrize("case", EXPORTED, ids="-".join)
@torch.no_grad()
def test_the_exported_step_is_the_step_of_any_batch_without_complex_numbers(case):
    step = SplitRealStep(layer_of(case))
    program = torch.export.export(
        step, (torch.zeros(2, 2), *step.initial_state(2)), dynamic_shapes=step.dynamic_shapes()
    )
    assert dtypes(program) <= {torch.float32, torch.int64}
    u = signal(batch=3)
    y, parts = run(program.module(), u, step.initial_state(3))
    expected, wanted = run(step, u, step.initial_state(3))
    # The same operations on the same numbers.
    assert torch.equal(y, expected)
    assert same(parts, wanted)


@pytest.mark.parametrize("case", LOOPS, ids="-".join)
@torch.no_grad()
def test_the_exported_sequence_is_the_sequence_of_any_length_without_complex_numbers(case):
    layer = layer_of(case)
    forward = SplitRealForward(layer)
    program = torch.export.export(
        forward, (signal(2, 5), *forward.initial_state(2)), dynamic_shapes=forward.dynamic_shapes()
    )
    assert dtypes(program) <= {torch.float32, torch.int64}
    u = signal(3)
    assert same(program.module()(u, *forward.initial_state(3)), forward(u))


@torch.no_grad()
def test_a_sequence_of_fixed_length_exports_without_a_loop():
    forward = SplitRealForward(layer_of(("dplr", "liquid")), length=5)
    program = torch.export.export(
        forward, (signal(2, 5), *forward.initial_state(2)), dynamic_shapes=forward.dynamic_shapes()
    )
    assert dtypes(program) <= {torch.float32, torch.int64}
    assert not any("scan" in str(node.target) for node in program.graph.nodes)
    assert same(program.module()(signal(3, 5), *forward.initial_state(3)), forward(signal(3, 5)))
    with pytest.raises(ShapeError, match="6 steps; this export is for 5"):
        forward(signal(2, 6))
    with pytest.raises(ParameterError, match="whole number from 1"):
        SplitRealForward(layer_of(("dplr", "liquid")), length=0)


def onnx_session(module, *args):
    """The module as ONNX, with any batch, in onnxruntime: a function of NumPy arrays."""
    program = torch.onnx.export(module, args, dynamo=True, dynamic_shapes=module.dynamic_shapes(), verbose=False)
    assert program is not None
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    assert len(names) == len(args)  # no part of a state is left out
    return lambda *arrays: session.run(None, dict(zip(names, arrays, strict=True)))


# What torch says of itself while it exports.
torchs_own = pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning")


@torchs_own
@pytest.mark.parametrize(
    "case",
    [("diagonal", "liquid"), ("diagonal", "pb-all"), ("dplr", "liquid"), ("dplr", "pb-all-window")],
    ids="-".join,
)
@torch.no_grad()
def test_onnxruntime_takes_the_layers_steps(case):
    layer, u = layer_of(case), signal(3, 20)
    value, own, theirs = exact(layer, u)
    step = SplitRealStep(layer)
    session = onnx_session(step, torch.zeros(2, 2), *step.initial_state(2))
    parts = [part.numpy() for part in step.initial_state(3)]
    outputs = []
    for u_k in u.unbind(1):
        y, *parts = session(u_k.numpy(), *parts)
        outputs.append(y)
    y = np.stack(outputs, 1)
    assert within(y, value, own)
    assert within(y, run_layer(layer, u, None)[0].numpy(), own + theirs)


@torchs_own
@torch.no_grad()
def test_onnxruntime_takes_sequences_of_any_length():
    layer, u = layer_of(("diagonal", "liquid")), signal(3)
    value, own, _ = exact(layer, u)
    forward = SplitRealForward(layer)
    session = onnx_session(forward, signal(2, 5), *forward.initial_state(2))
    y, _ = session(u.numpy(), *(part.numpy() for part in forward.initial_state(3)))
    assert within(y, value, own)


@pytest.mark.parametrize("case", [("diagonal", "pb-all"), ("dplr", "liquid"), ("mimo", "liquid")], ids="-".join)
def test_parameters_that_are_not_frozen_are_discretised_in_the_graph_and_get_gradients(case, in_double):
    layer, u = layer_of(case), signal().double()
    trained = SplitRealStep(layer, rate=1.5, frozen=False)
    assert {id(parameter) for parameter in trained.parameters()} == {id(p) for p in layer.parameters()}
    y, _ = run(trained, u, trained.initial_state(2))
    found = torch.autograd.grad(y.square().sum(), list(layer.parameters()))
    # Complex numbers, forwards and backwards, beside real ones: 14 steps, 3 orders, 8 modes and a gradient, below
    # 4000 roundings of numbers that are no larger than the largest result.
    allowed = 4000 * np.finfo(float).eps
    whole = SSMLayer(
        2, 8, init=layer.continuous.continuous(), discretization=layer.discretization, backend="first", **MODES[case[1]]
    )
    whole.load_state_dict(layer.state_dict())
    expected = torch.autograd.grad(whole(u, rate=1.5).square().sum(), list(whole.parameters()))
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=allowed * float(other.detach().abs().max()))
    # Later changes of a parameter reach what is not frozen, and nothing else.
    frozen = SplitRealStep(layer, rate=1.5)
    before = run(frozen, u, frozen.initial_state(2))[0]
    with torch.no_grad():
        assert torch.allclose(before, y, rtol=0, atol=allowed * float(y.detach().abs().max()))
        layer.continuous.C.mul_(2)
        layer.D.mul_(2)
        assert torch.allclose(
            run(trained, u, trained.initial_state(2))[0], 2 * y, rtol=0, atol=allowed * float(y.detach().abs().max())
        )
        assert torch.equal(run(frozen, u, frozen.initial_state(2))[0], before)


@torch.no_grad()
def test_parameters_that_are_not_frozen_export():
    forward = SplitRealForward(layer_of(("dplr", "liquid")), frozen=False)
    program = torch.export.export(
        forward, (signal(2, 5), *forward.initial_state(2)), dynamic_shapes=forward.dynamic_shapes()
    )
    # Discretisation is in float64.
    assert dtypes(program) <= {torch.float32, torch.float64, torch.int64, torch.bool}
    u = signal(3)
    assert same(program.module()(u, *forward.initial_state(3)), forward(u))


@torch.no_grad()
def test_the_rate_is_that_of_the_layer(in_double):
    layer, u = layer_of(("dplr", "liquid")), signal().double()
    y, _ = run(SplitRealStep(layer, rate=2.0), u, ())
    faster = SimpleNamespace(system=partial(layer.system, 2.0), spec=layer.spec, D=layer.D, backend=layer.backend)
    value, own, theirs = exact(faster, u)
    assert within(y, value, own)
    assert within(run_layer(layer, u, None, rate=2.0)[0], value, theirs)
    assert not within(run(SplitRealStep(layer), u, ())[0], value, own)


def test_the_clamp_of_a_gain_is_exported():
    layer, u = layer_of(("diagonal", "liquid"), max_gain=1.05), 3 * signal()
    step = SplitRealStep(layer)
    exported = torch.export.export(step, (u[:, 0], *step.initial_state(2))).module()
    with torch.no_grad():
        expected, _ = layer.step(u[:, 0])
        unclamped, _ = layer_of(("diagonal", "liquid")).step(u[:, 0])
        held = clamped(u[:, :1], input_limit(layer.system(), 1.05))
    value, own, theirs = exact(SimpleNamespace(system=layer.system, spec=layer.spec, D=None, backend="numpy"), held)
    # D u is not clamped, and has a product and a sum.
    through, unit = layer.D.detach().double().numpy() * u[:, :1].double().numpy(), 2.0**-24
    more = (1 + 4 * unit) * unit * (2 * np.abs(through) + np.abs(value + through))
    value, own, theirs = value + through, (1 + 2 * unit) * own + more, (1 + 2 * unit) * theirs + more
    assert within(exported(u[:, 0], *step.initial_state(2))[0].detach()[:, None], value, own)
    assert within(expected[:, None], value, theirs)
    assert not within(unclamped[:, None], value, theirs)
    with pytest.raises(ParameterError, match="max_gain"):
        SplitRealStep(layer, frozen=False)


def test_what_cannot_be_exported_is_refused():
    with pytest.raises(ParameterError, match="bidirectional=False"):
        SplitRealStep(SSMLayer(2, 8, bidirectional=True))
    with pytest.raises(ParameterError, match="frozen=True"):
        SplitRealForward(layer_of(("dense", "liquid")), frozen=False)


def test_what_does_not_fit_is_refused():
    layer = layer_of(("diagonal", "pb-adjacent"))
    step, forward = SplitRealStep(layer), SplitRealForward(layer)
    state = step.initial_state(2)
    with pytest.raises(ShapeError, match=r"a step takes \(batch, 2\)"):
        step(torch.zeros(2, 1, 2))
    with pytest.raises(ShapeError, match=r"a sequence is \(batch, length, 2\)"):
        forward(torch.zeros(2, 2))
    with pytest.raises(ShapeError, match="2 channels"):
        step(torch.zeros(2, 3))
    with pytest.raises(ShapeError, match=r"1 parts .* has x, sums, inputs"):
        step(torch.zeros(2, 2), state[0])
    with pytest.raises(ShapeError, match=r"x has shape \(2, 1, 2, 4, 2\); it must be \(3,"):
        step(torch.zeros(3, 2), *state)
    with pytest.raises(DTypeError, match=r"u has dtype torch\.float16"):
        step(torch.zeros(2, 2).half())
    with pytest.raises(ShapeError, match="needs the parts"):
        split_state(layer_of(("diagonal", "pb-all")), join_state(layer, state))
    with pytest.raises(ShapeError, match="has the parts"):
        join_state(layer, state[:2])


@pytest.mark.parametrize("case", COMPILED, ids="-".join)
def test_layers_compile_whole(case, make_layer, make_signal):
    layer, u = make_layer(*case, n_channels=1), make_signal(length=3, n_channels=1)
    torch.compiler.reset()

    def both(u, u_k, state):
        return layer(u), *layer.step(u_k, state)

    compiled = torch.compile(both, fullgraph=True, backend="eager")
    given = u, u[:, 0], layer.initial_state(2)
    y, y_k, _ = compiled(*given)
    expected, expected_k, _ = both(*given)
    assert torch.equal(y, expected)
    assert torch.equal(y_k, expected_k)


@pytest.mark.parametrize("structure", ["diagonal", "dplr", "mimo"])
@torch.no_grad()
def test_layers_export_as_they_are(structure, make_layer, make_signal):
    """With operators and complex numbers, for any batch and length."""
    layer = make_layer(structure, "liquid")
    dynamic = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    program = torch.export.export(layer, (make_signal(2, 7),), dynamic_shapes=(dynamic,))
    u = make_signal(3)
    assert torch.equal(program.module()(u), layer(u))


@pytest.mark.parametrize("rate", [-1.0, 0.0, float("nan"), "2"])
@pytest.mark.parametrize("discretization", ["bilinear", "bilinear-exact", "adams-bashforth"])
def test_a_rate_of_an_export_is_positive(discretization, rate, make_layer):
    with pytest.raises(ParameterError, match=r"^rate is"):
        SplitRealStep(make_layer(discretization=discretization), rate)


@pytest.mark.parametrize("length", [2.5, "3", 0, True])
def test_a_length_of_an_export_is_a_whole_number(length, make_layer):
    with pytest.raises(ParameterError, match=r"length is .*; give a whole number from 1"):
        SplitRealForward(make_layer(), length=length)


@pytest.mark.parametrize("frozen", [True, False])
def test_an_export_can_be_moved_to_another_dtype(frozen, make_layer, make_signal):
    step, u = SplitRealStep(make_layer(), frozen=frozen).double(), make_signal().double()
    state = step.initial_state(2)
    for k in range(3):
        y, *state = step(u[:, k], *state)
    assert step.dtype == y.dtype == state[0].dtype == torch.float64


def test_what_is_no_state_is_named(make_layer):
    layer = make_layer()
    for state in (None, [1.0], torch.tensor(1.0)):
        with pytest.raises(ParameterError, match="state is a"):
            split_state(layer, state)
    for parts in ((), (torch.tensor(1.0),)):
        with pytest.raises(ShapeError, match="has the parts"):
            join_state(layer, parts)


OPEN = {
    "LTC": lambda make: LTC(3, 4),
    "bilinear-exact": lambda make: make(discretization="bilinear-exact", backend="torch"),
    "adams-bashforth": lambda make: make(discretization="adams-bashforth"),
    **{
        f"zoh of dplr, {mode}": partial(lambda mode, make: make("dense", mode), mode)
        for mode in ("s4", "liquid", "kb-all", "kb-window", "kb-adjacent-window", "pb-all", "pb-window")
    },
}


@pytest.mark.parametrize("case", OPEN)
def test_layers_that_go_step_by_step_export_for_any_batch(case, make_layer, make_signal):
    layer = OPEN[case](make_layer)
    with torch.no_grad():
        program = torch.export.export(
            layer, (make_signal(2, 7),), dynamic_shapes=({0: torch.export.Dim("batch")},)
        ).module()
        for batch in (2, 5):
            u = make_signal(batch, 7)
            # The same operations of torch.
            assert torch.equal(program(u), layer(u))
