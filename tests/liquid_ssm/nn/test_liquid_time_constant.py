from __future__ import annotations

import copy
from fractions import Fraction
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

import liquid_ssm as ls
from liquid_ssm.errors import DTypeError, ParameterError, ShapeError, UnstableRecurrence
from liquid_ssm.nn import liquid_time_constant as ltc
from liquid_ssm.nn.liquid_time_constant import LTC, linearised

N_INPUTS, N = 2, 4
EPS = 2.0**-52
BOTH = pytest.mark.parametrize("solver", ["fused", "ode"])
FEEDBACK = pytest.mark.parametrize("feedback", [True, False], ids=["feedback", "no feedback"])
SIDES = pytest.mark.parametrize("padding", ["right", "left"])


def network(solver: str = "ode", *, seed: int = 0, dtype: torch.dtype = torch.float64, **options: Any) -> LTC:
    """An LTC whose parameters, b too, are of size 1; with rounded parameters, so that every dtype has the same."""
    torch.manual_seed(seed)
    layer = LTC(N_INPUTS, N, solver=solver, **options)
    with torch.no_grad():
        layer.log_tau.uniform_(-0.5, 0.5)
        layer.log_gain.uniform_(-0.5, 0.5)
        layer.b.normal_()
    return layer.to(dtype)


def inputs(batch: int = 3, length: int = 6, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, length, N_INPUTS, generator=generator).to(dtype)


def numbers(layer: LTC) -> dict[str, np.ndarray]:
    return {name: value.detach().double().numpy() for name, value in layer.named_parameters()}


def decay_of_differences(layer: LTC) -> float:
    """By what a difference of two solutions, in the largest coordinate, shrinks at least over one input, < 1.

    The logarithmic norm of the Jacobian diag(−1/τ − f) + diag(g σ' (A − x)) W_x is at most the largest of
    −1/τ + g |A| |W_x row| / 4, since σ' ≤ 1/4, and x stays between 0 and A.
    """
    p = numbers(layer)
    row = np.abs(p["W_x"]).sum(1) if "W_x" in p else 0.0
    norm = np.max(-np.exp(-p["log_tau"]) + np.exp(p["log_gain"]) * np.abs(p["A"]) * row / 4)
    return float(np.exp(norm * layer.dt))


def contracting(solver: str = "ode", **options: Any) -> LTC:
    """With feedback that is weak enough for `decay_of_differences` to be below 1."""
    layer = network(solver, **options)
    with torch.no_grad():
        layer.W_x *= 0.3
    assert decay_of_differences(layer) < 0.9
    return layer


def solution(layer: LTC, u: torch.Tensor, state: Any = None, factor: Any = 1.0) -> np.ndarray:
    """x after every input by SciPy's solver of order 8, (batch, length, N)."""
    p = numbers(layer)
    found = np.empty((*u.shape[:2], N))
    factors = np.broadcast_to(factor, tuple(u.shape[:2]))
    for row, drives in enumerate(u.double().numpy() @ p["W_u"].T + p["b"]):
        x = np.zeros(N) if state is None else np.asarray(state[row])
        for k, drive in enumerate(drives):

            def right_side(t: float, x: np.ndarray, drive: np.ndarray = drive) -> np.ndarray:
                f = np.exp(p["log_gain"]) / (1 + np.exp(-drive - (p["W_x"] @ x if "W_x" in p else 0)))
                return -(np.exp(-p["log_tau"]) + f) * x + f * p["A"]

            x = solve_ivp(right_side, (0.0, layer.dt * factors[row, k]), x, "DOP853", rtol=1e-12, atol=1e-14).y[:, -1]
            found[row, k] = x
    return found


def closed_form(layer: LTC, u: torch.Tensor, x: torch.Tensor, rate: torch.Tensor, dt: torch.Tensor) -> torch.Tensor:
    """x after every input without feedback: it relaxes exponentially."""
    states = []
    for k in range(u.shape[1]):
        f = layer.log_gain.exp() * torch.sigmoid(u[:, k] @ layer.W_u.mT + layer.b)
        speed = (-layer.log_tau).exp() + f
        rest = f * layer.A / speed
        x = rest + (x - rest) * torch.exp(-speed * layer.dt * rate * dt[:, k, None])
        states.append(x)
    return torch.stack(states, 1)


def rounding(layer: LTC) -> float:
    """What other orders of summation may change, per coordinate of x.

    A product of N + N_INPUTS terms of a size below 10 in W u, and some ten operations on x in each of at most 100 steps
    per input, all of it summed up over the inputs.
    """
    with torch.no_grad():
        size = max(1.0, float(layer.A.abs().max()))
    return (10 * (N + N_INPUTS) + 10 * 100) * EPS * size / (1 - decay_of_differences(layer))


def fraction(value: float) -> Fraction:
    """The fraction of small numbers that a float is the rounding of."""
    found = Fraction(value).limit_denominator(400_000)
    assert float(found) == value
    return found


def test_tableau_is_of_order_5_with_an_estimate_of_order_4() -> None:
    weights = np.full((7, 7), Fraction(0))
    for i, row in enumerate(ltc._STAGES):
        weights[i + 1, : len(row)] = [fraction(value) for value in row]
    times, result = weights.sum(1), weights[-1]
    difference = np.array([fraction(value) for value in ltc._ERROR])
    assert times.tolist() == [0, Fraction(1, 5), Fraction(3, 10), Fraction(4, 5), Fraction(8, 9), 1, 1]
    # Conditions on nodes and on chains of stages.
    for power in range(5):
        assert result @ times**power == Fraction(1, power + 1)
        assert (difference @ times**power == 0) == (power < 4)
    assert result @ weights @ times == Fraction(1, 6)
    assert result @ weights @ times**2 == Fraction(1, 12)
    assert result @ weights @ weights @ times == Fraction(1, 24)
    assert result @ weights @ weights @ times**2 == Fraction(1, 60)
    assert difference @ weights @ times == 0


@pytest.mark.parametrize("rtol", [1e-3, 1e-6, 1e-9, 1e-11])
def test_ode_reaches_its_tolerance(rtol: float) -> None:
    layer = contracting(rtol=rtol, atol=rtol / 10)
    u = inputs()
    y = layer(u).detach().numpy()
    expected = solution(layer, u)
    # Over each input at most atol + rtol |x| is added (here with the bound on |x| that A is), and what there was
    # before shrinks.  The reference's own error, 1e-12 |x| per step of some 10 steps, is taken the same way.
    size = float(layer.A.detach().abs().max())
    allowed = (rtol / 10 + rtol * size + 1e-11 * size) / (1 - decay_of_differences(layer))
    assert np.abs(y - expected).max() <= allowed


def test_ode_takes_no_more_than_it_needs() -> None:
    # The step size follows the error per unit of time, h⁴: from 1e-5 to 1e-9 there are 10 times as many steps.
    counts = []
    for rtol in (1e-5, 1e-9):
        layer = contracting(rtol=rtol, atol=rtol)
        with patch.object(ltc._Network, "slope", autospec=True, side_effect=ltc._Network.slope) as slope:
            layer(inputs(1, 1), dt=torch.full((1, 1), 20.0))
        counts.append(slope.call_count)
    assert 3 < counts[1] / counts[0] < 20


def test_ode_computes_in_float64_and_rounds_once_per_input() -> None:
    layer = contracting(rtol=1e-10, atol=1e-12)
    u = inputs().float()
    exact = layer(u.double())
    y = copy.deepcopy(layer).float()(u)
    assert y.dtype == torch.float32
    # Half a unit in the last place per input, and float32 parameters: each, log τ and log g too, is off by 2⁻²⁴ of its
    # size, and moves the rest point by at most |A| times that of 1/τ, f (through a sum of N + N_INPUTS + 1 terms below
    # 10 in size, times σ' ≤ 1/4) and A.
    size = float(layer.A.detach().abs().max())
    allowed = 2.0**-24 * size * (1 + 1 + 3 + 10 * (N + N_INPUTS + 1) / 4) / (1 - decay_of_differences(layer))
    assert float((y - exact).detach().abs().max()) <= allowed


@FEEDBACK
def test_fused_is_of_first_order(feedback: bool) -> None:
    u = inputs()
    errors = []
    for unfolds in (64, 128):
        layer = network("fused", unfolds=unfolds, feedback=feedback)
        errors.append(np.abs(layer(u).detach().numpy() - solution(layer, u)).max())
    # Error = c h + O(h²) with h = 1/64 and rates below e^0.5 · 2: the second term is some hundredths of the first.
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.1)
    assert errors[1] > 1e-5


def test_fused_step_by_hand() -> None:
    layer = network("fused", unfolds=1, dt=0.5)
    u, x = inputs(1, 1), torch.tensor([[0.3, -0.2, 0.1, 2.0]], dtype=torch.float64)
    p = numbers(layer)
    given = x[0].numpy(), u[0, 0].numpy()
    f = np.exp(p["log_gain"]) / (1 + np.exp(-(p["W_x"] @ given[0] + p["W_u"] @ given[1] + p["b"])))
    below = 1 + 0.5 * (np.exp(-p["log_tau"]) + f)
    expected = (given[0] + 0.5 * f * p["A"]) / below
    # f follows its exponent, a sum of products, by no more than itself, and has two exponentials of two roundoffs each,
    # a sum and two more; above the bar two products and a sum, below it an exponential, two sums and a product.
    sizes = abs(p["W_x"]) @ abs(given[0]) + abs(p["W_u"]) @ abs(given[1]) + abs(p["b"])
    of_f = ((N + N_INPUTS + 1) * sizes + 7) * EPS / 2
    sizes = (abs(given[0]) + abs(0.5 * f * p["A"])) / below
    allowed = 1.01 * ((of_f + 3 * EPS / 2) * sizes + (of_f + 6 * EPS / 2) * abs(expected))
    assert np.all(abs(layer(u, state=x)[0, 0].detach().numpy() - expected) <= 2 * allowed)


@pytest.mark.parametrize("dt", [1e-6, 1.0, 1e3, 1e12])
@pytest.mark.parametrize("seed", range(3))
def test_fused_stays_between_the_first_state_and_A_and_zero(dt: float, seed: int) -> None:
    layer = network("fused", seed=seed, dtype=torch.float32)
    with torch.no_grad():
        for weight in (layer.W_x, layer.W_u, layer.log_tau, layer.log_gain):
            weight *= 20
    u = 100 * inputs(8, 20, torch.float32)
    start = 3 * torch.randn(8, N, generator=torch.Generator().manual_seed(seed))
    y = layer(u, state=start, dt=torch.full(u.shape[:2], dt)).detach()
    corners = torch.stack([start, layer.A.detach().expand_as(start), torch.zeros_like(start)])
    low, high = corners.amin(0)[:, None], corners.amax(0)[:, None]
    # Five roundings per step can take x out of the interval by five units of 2⁻²⁴, in each of 120 steps.
    slack = 5 * 120 * 2.0**-24 * corners.abs().amax(0)[:, None]
    assert bool(((y >= low - slack) & (y <= high + slack)).all())


def test_fused_goes_to_the_rest_point_for_a_huge_step() -> None:
    layer = network("fused", feedback=False)
    u = inputs(2, 1)
    f = layer.log_gain.exp() * torch.sigmoid(u @ layer.W_u.mT + layer.b)
    rest = f * layer.A / ((-layer.log_tau).exp() + f)
    # A step leaves less than 1e-11 of the distance, and there are six.  Besides, there are below 6 roundoffs here and 8
    # in the last step, and f follows its exponent, a sum of products, by no more than itself.
    sizes = (u.abs() @ layer.W_u.abs().mT + layer.b.abs()).detach()
    allowed = 1.01 * (14 + 2 * (N_INPUTS + 1) * sizes) * EPS / 2 * rest.detach().abs()
    assert bool(((layer(u, rate=1e13) - rest).detach().abs() <= allowed).all())


@BOTH
def test_eq_9_is_the_network_of_x_over_A(solver: str) -> None:
    layer = contracting(solver, rtol=1e-9, atol=1e-11)
    scaled = copy.deepcopy(layer)
    with torch.no_grad():
        scaled.W_x *= layer.A
        scaled.A.fill_(1.0)
    u = inputs()
    # Rounding for `fused`; for `ode` both networks' tolerances, as in test_ode_reaches_its_tolerance, with |x/A| <= 1.
    size, allowed = float(layer.A.detach().abs().max()), rounding(layer)
    if solver == "ode":
        first, second = (1 - decay_of_differences(each) for each in (layer, scaled))
        assert second > 0
        allowed += (1e-11 + 1e-9 * size) / first + size * (1e-11 + 1e-9) / second
    torch.testing.assert_close(layer(u), scaled(u) * layer.A, rtol=0, atol=allowed)


@BOTH
@FEEDBACK
@pytest.mark.parametrize("cuts", [[1] * 6, [2, 0, 4]], ids=["step", "prefill"])
def test_in_pieces_it_is_the_whole(solver: str, feedback: bool, cuts: list[int]) -> None:
    layer = contracting(solver) if feedback else network(solver, feedback=False)
    u, state = inputs(), layer.initial_state(3)
    dt = torch.linspace(0.3, 2.0, 18, dtype=torch.float64).reshape(3, 6)
    whole, final = layer(u, rate=1.5, dt=dt, return_state=True)
    pieces, at = [], 0
    for cut in cuts:
        if cut == 1:
            y, state = layer.step(u[:, at], state, 1.5, dt[:, at])
            y = y[:, None]
        else:
            y, state = layer.prefill(u[:, at : at + cut], state, 1.5, dt[:, at : at + cut])
        pieces.append(y)
        at += cut
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=0, atol=rounding(layer))
    torch.testing.assert_close(state, final, rtol=0, atol=rounding(layer))
    assert torch.equal(final, whole[:, -1])


@BOTH
@SIDES
@pytest.mark.parametrize("given", [False, True], ids=["from 0", "from a state"])
def test_padding_has_no_influence(solver: str, padding: str, given: bool) -> None:
    layer = contracting(solver)
    u, lengths = inputs(4, 5), torch.tensor([5, 2, 0, 1])
    at = torch.arange(5)
    real = at < lengths[:, None] if padding == "right" else at >= 5 - lengths[:, None]
    dt = torch.linspace(0.5, 2.0, 20, dtype=torch.float64).reshape(4, 5)
    state = torch.linspace(-1, 1, 16, dtype=torch.float64).reshape(4, 4) if given else None
    # What lies in the padding is not looked at.
    dirty, dirty_dt = u.masked_fill(~real[..., None], torch.nan), dt.masked_fill(~real, -1.0)
    y, final = layer(dirty, lengths, state, dt=dirty_dt, padding=padding, return_state=True)
    assert not bool(y[~real].any())
    for row in range(4):
        keep = real[row]
        alone, end = layer(
            u[row, keep][None],
            state=None if state is None else state[row][None],
            dt=dt[row, keep][None],
            return_state=True,
        )
        torch.testing.assert_close(y[row, keep], alone[0], rtol=0, atol=rounding(layer))
        torch.testing.assert_close(final[row], end[0], rtol=0, atol=rounding(layer))


def test_rows_do_not_influence_each_other() -> None:
    # In `ode` every row has its own step size, so that a fast row does not refine a slow one.
    layer = contracting(rtol=1e-3, atol=1e-3)
    u = inputs(2, 4)
    other = torch.stack([u[0], 50 * u[1]])
    torch.testing.assert_close(layer(u)[0], layer(other)[0], rtol=0, atol=rounding(layer))


@BOTH
def test_causal(solver: str) -> None:
    layer = network(solver)
    u = inputs()
    changed = u.clone()
    changed[:, 3:] += 1
    y, other = layer(u), layer(changed)
    assert torch.equal(y[:, :3], other[:, :3])
    assert not torch.equal(y[:, 3], other[:, 3])


@BOTH
def test_rate_and_dt_are_factors_of_the_step_size(solver: str) -> None:
    layer = network(solver, dt=0.5)
    slow = network(solver, dt=1.25)
    u = inputs()
    expected = slow(u)
    assert torch.equal(layer(u, rate=2.5), expected)
    assert torch.equal(layer(u, rate=torch.tensor(2.5)), expected)
    assert torch.equal(layer(u, dt=torch.full((3, 6), 2.5)), expected)
    assert torch.equal(layer(u, rate=0.5, dt=torch.full((3, 6), 5.0)), expected)


def test_dt_per_step_is_the_time_over_which_an_input_is_held() -> None:
    layer = contracting(rtol=1e-10, atol=1e-11, dt=0.5)
    u = inputs(2, 4)
    dt = np.array([[0.1, 2.0, 0.7, 1.0], [3.0, 0.2, 1.0, 0.5]])
    y = layer(u, rate=2.0, dt=torch.tensor(dt)).detach().numpy()
    # As in test_ode_reaches_its_tolerance, without shrinking: four inputs.
    allowed = 4 * (1e-11 + 2e-10 * float(layer.A.detach().abs().max()))
    np.testing.assert_allclose(y, solution(layer, u, factor=2 * dt), rtol=0, atol=allowed)


def test_gradients_of_ode_are_those_of_the_solution() -> None:
    layer = network(rtol=1e-9, atol=1e-11, feedback=False)
    u = inputs(2, 4).requires_grad_()
    state = torch.linspace(-1, 1, 2 * N, dtype=torch.float64).reshape(2, N).requires_grad_()
    rate = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    dt = torch.tensor([[0.5, 1.0, 2.0, 1.0], [1.0, 3.0, 0.2, 0.7]], dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 4, N, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    wanted = [*layer.parameters(), u, state, rate, dt]
    y, final = layer(u, state=state, rate=rate, dt=dt, return_state=True)
    found = torch.autograd.grad((weights * y).sum() + final.sum(), wanted)
    exact = closed_form(layer, u, state, rate, dt)
    expected = torch.autograd.grad((weights * exact).sum() + exact[:, -1].sum(), wanted)
    # The graph is the same method for the equation of the derivatives, with the same order and steps: its errors are
    # the result's, rtol over each input, times a constant of size 1 (10 allowed); 2 · 4 · N terms, weights below 3.
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9 * 10 * 2 * 4 * N * 3)


def test_gradients_of_ode_with_feedback() -> None:
    layer = contracting(rtol=1e-10, atol=1e-12)
    u = inputs(2, 3)
    layer(u).sum().backward()
    direction = {name: torch.randn_like(value) for name, value in layer.named_parameters()}
    found = sum(float((value.grad * direction[name]).sum()) for name, value in layer.named_parameters())

    def moved(by: float) -> float:
        other = copy.deepcopy(layer)
        with torch.no_grad():
            for name, value in other.named_parameters():
                value += by * direction[name]
        return float(solution(other, u).sum())

    near, far = ((moved(h) - moved(-h)) / (2 * h) for h in (1e-3, 2e-3))
    # Central differences are of order 2, so the near one errs by a third of how far they are apart.  The solver and
    # the reference add 1e-10 and, over h, 1e-11 of |x| to each of 24 terms.
    assert abs(far - near) < 1e-4
    assert found == pytest.approx(near, abs=abs(far - near) + 24 * (1e-10 * 10 + 1e-11 / 1e-3))


@FEEDBACK
def test_gradients_of_fused(feedback: bool) -> None:
    layer = network("fused", unfolds=2, feedback=feedback)
    names, values = zip(*layer.named_parameters(), strict=True)
    dt = torch.tensor([[0.5, 1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    state = torch.ones(1, N, dtype=torch.float64, requires_grad=True)

    def run(u: torch.Tensor, state: torch.Tensor, dt: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (u, None, state, 1.5, dt))

    assert torch.autograd.gradcheck(run, (inputs(1, 3).requires_grad_(), state, dt, *values))


def test_a_gradient_does_not_pass_padding() -> None:
    layer = network()
    u = inputs().requires_grad_()
    layer(u, torch.tensor([6, 2, 0])).sum().backward()
    assert bool(u.grad[0].all())
    assert bool(u.grad[1, :2].all())
    assert not bool(u.grad[1, 2:].any())
    assert not bool(u.grad[2].any())
    assert all(bool(torch.isfinite(value.grad).all()) for value in layer.parameters())


@BOTH
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(solver: str, dtype: torch.dtype) -> None:
    layer = network(solver, dtype=torch.float32)
    u = inputs().to(dtype)
    y, final = layer(u, return_state=True)
    exact, end = layer(u.float(), return_state=True)
    assert (y.dtype, final.dtype) == (dtype, torch.float32)
    assert torch.equal(y, exact.to(dtype))
    assert torch.equal(final, end)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(u), y)


def test_fused_can_be_compiled_and_exported() -> None:
    layer = network("fused")
    u, lengths = inputs(), torch.tensor([6, 2, 0])
    expected = layer(u, lengths, rate=2.0)
    whole = torch.compile(layer, backend="eager", fullgraph=True)
    assert torch.equal(whole(u, lengths, rate=2.0), expected)
    exported = torch.export.export(layer, (u, lengths), {"rate": 2.0}).module()
    assert torch.equal(exported(u, lengths, rate=2.0), expected)


def test_ode_cannot_be_traced() -> None:
    with pytest.raises(ParameterError, match="use 'fused'"):
        torch.func.vmap(network())(inputs()[None])


@BOTH
@FEEDBACK
def test_copies_and_files(solver: str, feedback: bool, tmp_path: Any) -> None:
    layer, u = network(solver, feedback=feedback), inputs()
    names = {"log_tau", "log_gain", "A", "W_u", "b"} | ({"W_x"} if feedback else set())
    assert set(layer.state_dict()) == names
    torch.save(layer.state_dict(), tmp_path / "layer.pt")
    other = network(solver, seed=5, feedback=feedback)
    assert not torch.equal(other(u), layer(u))
    other.load_state_dict(torch.load(tmp_path / "layer.pt", weights_only=True))
    assert torch.equal(other(u), layer(u))
    assert torch.equal(copy.deepcopy(layer)(u), layer(u))


def test_initial_scale() -> None:
    torch.manual_seed(0)
    layer = LTC(3, 200, dt=0.02)
    tau, gain = layer.log_tau.detach().exp() / 0.02, layer.log_gain.detach().exp() * 0.02
    # A uniform draw of 200 stays out of the lowest or highest tenth with probability 0.9^200 = 7e-10.
    for values, low in ((tau, 1.0), (gain, 0.01)):
        position = (values / low).log10() / 2
        # A product and a sum of logarithms below 9 in size, an exponential, a product and a quotient, in float32; the
        # logarithm to base 10, below 2, two roundoffs and all of these by 0.43; and half of that.
        slack = (2 * 9 + 2 + 1 + 1 + 4 / 0.43) * 0.43 / 2 * 2.0**-24
        assert float(position.min()) >= -slack
        assert float(position.max()) <= 1 + slack
        assert float(position.min()) < 0.1
        assert float(position.max()) > 0.9
    y = layer(torch.randn(2, 300, 3)).detach()
    # x lies between 0 and A, whose variance is 1; where the gate is as fast as 1/τ it is half of A.
    assert 0.02 < float(y[:, -1].var()) < 1


def test_no_input_and_no_rows() -> None:
    layer, state = network(), torch.ones(3, N, dtype=torch.float64)
    y, final = layer(inputs(3, 0), state=state, return_state=True)
    assert y.shape == (3, 0, N)
    assert torch.equal(final, state)
    assert layer(inputs(0, 2)).shape == (0, 2, N)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "euler"}, "unknown solver 'euler'"),
        ({"unfolds": 0}, "unfolds is 0"),
        ({"unfolds": 2.5}, "unfolds is 2.5"),
        ({"dt": 0.0}, "dt is 0.0"),
        ({"dt": float("nan")}, "dt is nan"),
        ({"atol": 0.0}, "atol is 0.0; give a positive"),
        ({"rtol": 1e-14}, "rtol is 1e-14; give a number from 1e-12"),
    ],
)
def test_options_outside_their_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        LTC(N_INPUTS, N, **options)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"u": torch.zeros(3, 6)}, ShapeError, "Add the missing axis"),
        ({"u": torch.zeros(3, N_INPUTS, 6)}, ShapeError, "Swap axes"),
        ({"u": torch.zeros(3, 6, N_INPUTS, dtype=torch.int64)}, DTypeError, "int64"),
        ({"u": torch.full((3, 6, N_INPUTS), torch.inf)}, ParameterError, r"u holds inf at \(0, 0, 0\)"),
        ({"state": torch.zeros(2, N)}, ShapeError, "state has shape"),
        ({"state": torch.full((3, N), torch.nan)}, ParameterError, "state holds nan"),
        ({"rate": 0.0}, ParameterError, "rate holds 0"),
        ({"rate": torch.ones(3)}, ShapeError, "rate has shape"),
        ({"rate": "2"}, ParameterError, "rate is '2'"),
        ({"u": [[[1.0]]]}, DTypeError, "u is a list; give a torch tensor"),
        ({"dt": 0.5}, DTypeError, "dt is a float; give a torch tensor"),
        ({"dt": torch.ones(3)}, ShapeError, "dt has shape"),
        ({"dt": -torch.ones(3, 6)}, ParameterError, "dt holds -1"),
        ({"lengths": torch.tensor([7, 1, 1])}, ParameterError, r"lengths\[0\] is 7"),
        ({"lengths": torch.tensor([1, 1, 1]), "padding": "both"}, ParameterError, "unknown padding"),
    ],
)
def test_what_does_not_fit(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        network()(**({"u": inputs()} | changes))


def test_a_step_has_no_length() -> None:
    with pytest.raises(ShapeError, match="step takes"):
        network().step(inputs())


@BOTH
def test_a_parameter_that_is_not_finite_is_an_error(solver: str) -> None:
    layer = network(solver)
    with torch.no_grad():
        layer.b[2] = torch.nan
    with pytest.raises(UnstableRecurrence, match="step 0, channel") as caught:
        layer(inputs())
    assert caught.value.step == 0


def test_a_tolerance_that_is_not_reached_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ltc, "_ATTEMPTS", 3)
    with pytest.raises(ParameterError, match=r"did not reach rtol 1e-12 .* at input 0"):
        network(rtol=1e-12)(inputs())


def held(system: ls.ContinuousSystem, v: np.ndarray, z: np.ndarray, *, product: bool = True) -> np.ndarray:
    """Outputs y (length, N) of z' = (Λ + B v) z + B v for held v (length, N), solved exactly, one mode per channel."""
    Lambda, B, C = (part[:, 0] for part in (system.Lambda, system.B, system.C))
    outputs = []
    for v_k in v:
        rate = Lambda + B * v_k * product
        z = np.exp(rate * system.dt) * z + np.expm1(rate * system.dt) / rate * B * v_k
        outputs.append(C * z)
    return np.array(outputs)


def without_feedback(**changes: float) -> LTC:
    layer = network(feedback=False, rtol=1e-12, atol=1e-14, dt=0.5)
    with torch.no_grad():
        for name, value in changes.items():
            getattr(layer, name).fill_(value)
    return layer


def test_without_feedback_it_is_eq_10_for_another_input() -> None:
    layer = without_feedback()
    form = linearised(layer)
    u = 3 * inputs(1, 8)
    p = numbers(layer)

    def gate(v: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-v - p["b"]))

    slope = gate(np.zeros(N)) * (1 - gate(np.zeros(N)))
    phi = (gate(u[0].numpy() @ form.W_u.T) - gate(np.zeros(N))) / slope
    start = np.array([1.0, -2.0, 0.5, 0.0])
    y = layer(u, state=torch.tensor(start)[None])[0].detach().numpy()
    z = (start - form.offset) / form.system.C[:, 0]
    # Eight inputs with atol + rtol |x| each, of the start too; rounding of exponentials is a hundredth of it.
    size = max(float(np.abs(y).max()), 2.0)
    allowed = 8 * 1.01 * (1e-14 + 1e-12 * size)
    np.testing.assert_allclose(form.offset + held(form.system, phi, z), y, rtol=0, atol=allowed)


def order_of_error(layer: LTC, *, product: bool = True) -> float:
    """The power of the inputs' and the state's size by which the linearisation errs, by halving it."""
    form = linearised(layer)
    u, direction = inputs(1, 8), np.array([1.0, -0.5, 0.3, -1.0])
    errors = []
    for size in (0.02, 0.01):
        start = form.offset + size * direction
        x = layer(size * u, state=torch.tensor(start)[None])[0].detach().numpy()
        z = size * direction / form.system.C[:, 0]
        found = form.offset + held(form.system, size * u[0].numpy() @ form.W_u.T, z, product=product)
        errors.append(np.abs(found - x).max())
    assert errors[-1] > 1e-9  # far above the tolerance
    return float(np.log2(errors[0] / errors[1]))


def test_order_of_the_linearisation() -> None:
    # The next power changes the quotient of the errors by 0.02 times a constant of size 1, the fitted order by 0.03.
    assert order_of_error(without_feedback()) == pytest.approx(2, abs=0.1)
    assert order_of_error(without_feedback(b=0.0)) == pytest.approx(3, abs=0.1)
    assert order_of_error(without_feedback(b=0.0), product=False) == pytest.approx(2, abs=0.1)


def test_the_linearisation_rests_where_the_network_does() -> None:
    layer = without_feedback()
    form = linearised(layer)
    rest = torch.tensor(form.offset)[None]
    y = layer(torch.zeros(1, 3, N_INPUTS, dtype=torch.float64), state=rest)
    # Three inputs with atol + rtol |x| each; rounding is a hundredth of it.
    allowed = 3 * 1.01 * (1e-14 + 1e-12 * float(rest.abs().max()))
    torch.testing.assert_close(y, rest.expand(3, N)[None], rtol=0, atol=allowed)


def test_mode_liquid_computes_the_linearisation() -> None:
    # Eq. 11 approaches Eq. 10 with the first power of the step size.
    errors = []
    for count in (64, 128):
        layer = without_feedback()
        layer.dt = 1 / count
        form = linearised(layer)
        v = np.broadcast_to(form.W_u @ [1.0, -0.5], (count, N))
        y = ls.apply(form.system.discretize("zoh"), v.T[None].copy(), mode="liquid", backend="first")
        errors.append(np.abs(y[0, :, -1] - held(form.system, v, np.zeros(N))[-1]).max())
    # As above: error = c δt + O(δt²), with rates of a size of 3 the second term is some hundredths.
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.1)
    assert errors[1] > 1e-6


def test_feedback_has_no_such_form() -> None:
    with pytest.raises(ParameterError, match="layer is a Linear; what is linearised is an LTC"):
        linearised(torch.nn.Linear(2, 2))
    layer = network()
    with pytest.raises(ParameterError, match="feedback=False"):
        linearised(layer)
    with torch.no_grad():
        layer.W_x.zero_()
    expected = network(feedback=False)
    expected.load_state_dict({name: value for name, value in layer.state_dict().items() if name != "W_x"})
    np.testing.assert_array_equal(linearised(layer).system.B, linearised(expected).system.B)
