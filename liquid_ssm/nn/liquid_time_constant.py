"""`LTC`: the liquid time-constant network (Eq. 9) as a layer, and the system of Eq. 10 that approximates it."""

from __future__ import annotations

import math
from copy import deepcopy
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import nn

from ..continuous import ContinuousSystem
from ..errors import DTypeError, ParameterError, ShapeError, UnstableRecurrence, require_whole, unknown_name
from ..systems import Array
from ..tensors import HALVES, has_numbers, require_tensor
from .padding import mask, require_padding
from .parameters import bounded_exp

SOLVERS = ("fused", "ode")

# Dormand and Prince's pair of orders 5 and 4 (1980): row i holds the weights of the slopes that stage i + 1 starts
# from, the last row those of the result; _ERROR is what the result of order 5 has more than that of order 4.
_STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_ERROR = (71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
_ATTEMPTS = 10_000

# What float64 can still tell apart after the sums of a step.
_LEAST_RTOL = 1e-12


class LTC(nn.Module):
    """A liquid time-constant network: u (batch, length, n_inputs) -> x (batch, length, n_state), x after every step.

    dx/dt = −(1/τ + f) ∘ x + f ∘ A with the gate f = g ∘ σ(W_x x + W_u u + b), σ the logistic function, and u held over
    a step.  Eq. 9 of the paper writes A for 1/τ, B for g and 1 for A: x/A obeys it, with B > 0.  τ, g > 0 at all times.

    σ is the only gate: f ≥ 0 is what keeps the time constant 1/(1/τ + f) positive and the state bounded.  With tanh
    1/τ + f may vanish or be negative, and then so may the denominator of the fused step.

    Solvers:
        fused: `unfolds` steps x ← (x + h f A)/(1 + h (1/τ + f)) with f of the old x (Hasani et al. 2021, Algorithm 1).
            The new x is a weighted mean of the old one, A and 0, so no h, however large, takes a coordinate out of
            the interval that holds its first value, A and 0.  Of first order in h.
        ode: Dormand and Prince's pair with a step size of its own for every row, in float64 (float32 where the device
            has no other), differentiable through the steps it takes.  Not traceable, since it looks at numbers.

    Args:
        n_inputs: features of u.
        n_state: N, features of x.
        solver: `fused` or `ode`.
        unfolds: steps of `fused` per input.
        dt: time between inputs [time].
        rtol, atol: of `ode`: the estimated errors over one input add up to at most atol + rtol |x| in every coordinate,
            |x| the largest over it.
        feedback: with W_x; without it the gate depends on the input alone.

    Attributes:
        log_tau: log τ, (N,) [log time]; initially τ is log-uniform in [dt, 100 dt].
        log_gain: log g, (N,) [log 1/time]; initially g is log-uniform in [0.01/dt, 1/dt].
        A: where an open gate pulls the state to, (N,).
        W_x: (N, N), or None without feedback.
        W_u: (N, n_inputs).
        b: (N,).

    Raises:
        ParameterError: an unknown solver, or a number outside its range.
    """

    W_x: torch.Tensor | None

    def __init__(
        self,
        n_inputs: int,
        n_state: int,
        *,
        solver: str = "fused",
        unfolds: int = 6,
        dt: float = 1.0,
        rtol: float = 1e-6,
        atol: float = 1e-9,
        feedback: bool = True,
    ) -> None:
        super().__init__()
        if solver not in SOLVERS:
            raise unknown_name("solver", solver, SOLVERS)
        for name, count in (("n_inputs", n_inputs), ("n_state", n_state), ("unfolds", unfolds)):
            require_whole(name, count)
        for name, value, least in (("dt", dt, 0.0), ("atol", atol, 0.0), ("rtol", rtol, _LEAST_RTOL)):
            if not isinstance(value, Real) or not (value >= least and 0 < value < math.inf):
                what = "a positive number" if least == 0 else f"a number from {least}, the least that float64 resolves"
                raise ParameterError(f"{name} is {value!r}; give {what}.")
        self.n_inputs, self.n_state = n_inputs, n_state
        self.solver, self.unfolds, self.dt, self.rtol, self.atol = solver, unfolds, dt, rtol, atol
        span = math.log(100)
        self.log_tau = nn.Parameter(math.log(dt) + span * torch.rand(n_state))
        self.log_gain = nn.Parameter(-math.log(dt) - span * torch.rand(n_state))
        self.A = nn.Parameter(torch.randn(n_state))
        W_x = nn.Parameter(torch.randn(n_state, n_state) / math.sqrt(n_state)) if feedback else None
        self.register_parameter("W_x", W_x)
        self.W_u = nn.Parameter(torch.randn(n_state, n_inputs) / math.sqrt(n_inputs))
        self.b = nn.Parameter(torch.zeros(n_state))

    @property
    def n_channels(self) -> int:
        """Features of the output, N."""
        return self.n_state

    def forward(
        self,
        u: torch.Tensor,
        lengths: torch.Tensor | None = None,
        state: torch.Tensor | None = None,
        rate: float | torch.Tensor = 1.0,
        dt: torch.Tensor | None = None,
        *,
        padding: str = "right",
        return_state: bool = False,
    ) -> Any:
        """The state after every input of whole sequences.

        Args:
            u: (batch, length, n_inputs); bfloat16 and float16 are computed in float32.
            lengths: true length of each row, (batch,) whole numbers; what lies outside is not looked at, the state
                waits there, and y is 0.  None: all of it.
            state: x before the first input, (batch, N); None is 0.
            rate: factor of the time between inputs, 2 for a signal that is sampled half as often.
            dt: intervals between samples relative to those of training, (batch, length): entry k is the time from
                sample k−1 to sample k, over which input k is held.
            padding: `right` or `left`: where rows shorter than the longest are padded.
            return_state: also return the state after the last true input of each row.

        Returns:
            y (batch, length, N) in u's dtype, or (y, state).

        Raises:
            ShapeError, DTypeError, ParameterError: what was given does not fit or is not finite, or `ode` does not
                reach its tolerances.
            UnstableRecurrence: the state left the range of the dtype, or a parameter is not finite.

        Accuracy: see `LTC`.  x is rounded to the dtype after every input, so that `step` and `prefill` go on from what
            `forward` goes on from.
        """
        self._check(u)
        require_padding(padding)
        dtype = torch.float32 if u.dtype in HALVES else u.dtype
        with torch.autocast(u.device.type, enabled=False):
            real = None if lengths is None else mask(lengths, u.shape[:2], padding, u.device)
            v = u if real is None else u.masked_fill(~real[..., None], 0.0)
            time = self._time(v, rate, dt, real)
            x = self._start(state, v, dtype)
            _require_finite("u", v)
            y, x = self._run(v, x, time, dtype)
            if real is not None:
                y = y.masked_fill(~real[..., None], 0.0)
        y = y.to(u.dtype)
        return (y, x) if return_state else y

    def prefill(
        self,
        chunk: torch.Tensor,
        state: torch.Tensor | None = None,
        rate: float | torch.Tensor = 1.0,
        dt: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The next piece of a sequence: chunk (batch, any length, n_inputs) and the state before it give y and x."""
        y, x = self(chunk, state=state, rate=rate, dt=dt, return_state=True)
        return y, x

    def step(
        self,
        u_k: torch.Tensor,
        state: torch.Tensor | None = None,
        rate: float | torch.Tensor = 1.0,
        dt: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One input: u_k (batch, n_inputs) and the state before it give y_k (batch, N) and the state after it.

        dt is the interval before this sample, over which u_k is held, (batch,).
        """
        require_tensor("u_k", u_k, whole=True)
        if u_k.ndim != 2:
            raise ShapeError(f"u_k has shape {tuple(u_k.shape)}; step takes (batch, {self.n_inputs}).")
        if dt is not None:
            require_tensor("dt", dt, whole=True)
        y, x = self(u_k[:, None], state=state, rate=rate, dt=None if dt is None else dt[:, None], return_state=True)
        return y[:, 0], x

    def initial_state(self, batch: int) -> torch.Tensor:
        """The state before the first input, 0; it is no rest point, since f A drives the state without input too."""
        require_whole("batch", batch, 0)
        return torch.zeros(batch, self.n_state, dtype=self.A.dtype, device=self.A.device)

    def extra_repr(self) -> str:
        how = f"unfolds={self.unfolds}" if self.solver == "fused" else f"rtol={self.rtol}, atol={self.atol}"
        feedback = "" if self.W_x is not None else ", feedback=False"
        return f"{self.n_inputs}, {self.n_state}, solver={self.solver!r}, {how}, dt={self.dt}{feedback}"

    def _run(
        self, u: torch.Tensor, x: torch.Tensor, time: torch.Tensor, dtype: torch.dtype
    ) -> tuple[torch.Tensor, torch.Tensor]:
        network = _Network(self, dtype if self.solver == "fused" or u.device.type == "mps" else torch.float64)
        drive, time = network.drive(u), time.to(network.dtype)[..., None]
        states = []
        for k in range(u.shape[1]):
            if self.solver == "fused":
                x = _fused(network, x, drive[:, k], time[:, k], self.unfolds)
            else:
                x = _adaptive(network, x.to(network.dtype), drive[:, k], time[:, k], self.rtol, self.atol, k).to(dtype)
            states.append(x)
        if not states:
            return x.new_empty(u.shape[0], 0, self.n_state), x
        y = torch.stack(states, 1)
        if has_numbers(y) and not bool(torch.isfinite(y).all()):
            step, channel = (~torch.isfinite(y)).any(0).nonzero()[0].tolist()
            raise UnstableRecurrence(
                f"the state left the range of {dtype} at step {step}, channel {channel}; see whether every parameter "
                "is finite, and scale A or dt down.",
                step=step,
                channel=channel,
                input_bound=None,
            )
        return y, x

    def _time(
        self, u: torch.Tensor, rate: float | torch.Tensor, dt: torch.Tensor | None, real: torch.Tensor | None
    ) -> torch.Tensor:
        """How long each input is held, (batch, length); 0, which leaves a state as it is, where there is none."""
        shape = tuple(u.shape[:2])
        fine = torch.float32 if u.device.type == "mps" else torch.float64
        if not torch.compiler.is_compiling() and not isinstance(rate, (Real, torch.Tensor)):
            raise ParameterError(f"rate is {rate!r}; it is a positive factor of the step size.")
        rate = torch.as_tensor(rate, dtype=fine, device=u.device)
        if rate.ndim:
            raise ShapeError(f"rate has shape {tuple(rate.shape)}; it is one number. Intervals go into dt.")
        if dt is not None:
            require_tensor("dt", dt, whole=True)
        if dt is None:
            dt = rate.new_ones(shape)
        elif tuple(dt.shape) != shape:
            raise ShapeError(f"dt has shape {tuple(dt.shape)}; one interval per row and step is {shape}.")
        if real is not None:
            dt = dt.masked_fill(~real, 1.0)
        for name, value in (("rate", rate), ("dt", dt)):
            if has_numbers(value) and not bool(((value > 0) & (value < math.inf)).all()):
                bad = value[~((value > 0) & (value < math.inf))]
                raise ParameterError(f"{name} holds {float(bad[0]):.3g}; give positive factors of the step size.")
        time = dt.to(rate) * (rate * self.dt)
        return time if real is None else time.masked_fill(~real, 0.0)

    def _start(self, state: torch.Tensor | None, u: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        shape = (u.shape[0], self.n_state)
        if state is None:
            return torch.zeros(shape, dtype=dtype, device=u.device)
        require_tensor("state", state)
        if tuple(state.shape) != shape:
            raise ShapeError(f"state has shape {tuple(state.shape)}; this layer and u take {shape}.")
        _require_finite("state", state)
        return state.to(dtype)

    def _check(self, u: torch.Tensor) -> None:
        require_tensor("u", u, whole=True)
        if u.ndim != 3 or u.shape[2] != self.n_inputs:
            raise ShapeError(
                f"u has shape {tuple(u.shape)}; this layer takes (batch, length, {self.n_inputs}). "
                + ("Add the missing axis." if u.ndim != 3 else "Swap axes of a (batch, features, length) signal.")
            )
        if not u.is_floating_point():
            raise DTypeError(f"u has dtype {u.dtype}; allowed: float32, float64, bfloat16, float16. Use u.float().")
        if self.solver == "ode" and not has_numbers(u):
            raise ParameterError(
                "solver 'ode' chooses its steps by numbers, which a compiler or transform does not have; use 'fused'."
            )


class _Network:
    """The right side of the equation, in the precision of a solver."""

    def __init__(self, layer: LTC, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.decay = bounded_exp(-layer.log_tau.to(dtype))
        self.gain = bounded_exp(layer.log_gain.to(dtype))
        self.A, self.b, self.W_u = layer.A.to(dtype), layer.b.to(dtype), layer.W_u.to(dtype)
        self.W_x = None if layer.W_x is None else layer.W_x.to(dtype)

    def drive(self, u: torch.Tensor) -> torch.Tensor:
        """W_u u + b."""
        return nn.functional.linear(u.to(self.dtype), self.W_u, self.b)

    def gate(self, x: torch.Tensor, drive: torch.Tensor) -> torch.Tensor:
        """f, (batch, N)."""
        return self.gain * torch.sigmoid(drive if self.W_x is None else torch.addmm(drive, x, self.W_x.mT))

    def slope(self, x: torch.Tensor, drive: torch.Tensor) -> torch.Tensor:
        """dx/dt, (batch, N)."""
        return self.gate(x, drive) * (self.A - x) - self.decay * x


def _fused(network: _Network, x: torch.Tensor, drive: torch.Tensor, time: torch.Tensor, unfolds: int) -> torch.Tensor:
    h = time / unfolds
    for _ in range(unfolds):
        f = network.gate(x, drive)
        x = (x + h * f * network.A) / (1 + h * (network.decay + f))
    return x


def _adaptive(
    network: _Network,
    x: torch.Tensor,
    drive: torch.Tensor,
    time: torch.Tensor,
    rtol: float,
    atol: float,
    index: int,
) -> torch.Tensor:
    """x after `time` (batch, 1), as the time from 0 to 1 of an equation whose slope is `time` times as large.

    A step is accepted if its estimated error per unit of that time is within the tolerance, so that the errors of all
    steps add up to no more.  Step sizes are numbers, not part of the graph.
    """
    with torch.no_grad():
        # No coordinate is faster than 1/τ + g, so the first attempt is within the region of stability.
        fastest = time * (network.decay + network.gain).max()
        h = (1 / fastest).clamp(max=1.0)
        done = torch.zeros_like(h)
    first = time * network.slope(x, drive)
    for _ in range(_ATTEMPTS):
        last = h >= 1 - done
        h = torch.where(last, 1 - done, h)
        slopes = [first]
        for weights in _STAGES:
            new = x + h * _combined(weights, slopes)
            slopes.append(time * network.slope(new, drive))
        with torch.no_grad():
            allowed = atol + rtol * torch.maximum(x.abs(), new.abs())
            error = (_combined(_ERROR, slopes).abs() / allowed).amax(1, keepdim=True)
            # NaN is accepted, and with it the row is done: the caller finds it in the result.
            accepted = ~(error > 1)
            done = torch.where(accepted, torch.where(last, 1.0, done + h), done)
            # The error per unit of time grows as h⁴.
            h = h * (0.9 * error**-0.25).clamp(0.2, 5.0)
        if bool(accepted.any()):
            x, first = torch.where(accepted, new, x), torch.where(accepted, slopes[-1], first)
        if not bool((done < 1).any()):
            return x
    raise ParameterError(
        f"solver 'ode' did not reach rtol {rtol:.3g} and atol {atol:.3g} in {_ATTEMPTS} steps at input {index}, over "
        f"which the fastest state may decay by e to the {float(fastest.max()):.3g}; use larger tolerances, a smaller "
        "dt, or solver 'fused'."
    )


def _combined(weights: tuple[float, ...], slopes: list[torch.Tensor]) -> torch.Tensor:
    total = weights[0] * slopes[0]
    for weight, slope in zip(weights[1:], slopes[1:], strict=True):
        if weight:
            total = total + weight * slope
    return total


class Linearised(NamedTuple):
    """An approximation of an `LTC`: x(t) ≈ offset + y(t), y the output of `system` in mode `liquid` for W_u u(t).

    Attributes:
        system: N channels of one real mode each, for the inputs W_u u, one per channel.
        W_u: (N, n_inputs).
        offset: the rest point x₀, (N,).
    """

    system: ContinuousSystem
    W_u: Array
    offset: Array


def linearised(layer: LTC) -> Linearised:
    """The system of Eq. 10 that an LTC without feedback is for small inputs: its first-order bilinear Taylor form.

    With W_x = 0 the gate is f(v) = g σ(v + b) of v = W_u u, and at v = 0 the state rests at x₀ = f₀ A/(1/τ + f₀), with
    f₀ = f(0).  For z = (x − x₀)/(x₀ − A) the network is Eq. 10 without any approximation,

        z' = (−(1/τ + f₀) − g' φ) z − g' φ,    φ(v) = (f(v) − f₀)/g',    g' = f'(0) = g σ'(b),

    one mode per coordinate with Λ = −(1/τ + f₀), B = −g', C = x₀ − A, and the input φ(v) in place of v.  (x = A, where
    the input changes nothing, is z = −1: hence the signs.)  Taking φ(v) ≈ v is all that the linearisation does: it
    drops f''(0) v²/2 and higher powers of v, in the drive and in the product with z.  So if u and x − x₀ are of size a,
    the error is O(a²), and O(a³) where b = 0, since σ''(0) = 0.  For b ≠ 0 the linear model, without the product
    B v z, errs by the same power; only for b = 0 does the product gain one.

    With feedback there is no such statement.  Terms x_m x_n, which Eq. 10 does not have, are as large as the products
    x_n u that it keeps, so its error would be that of the linear model; that is refused.

    Args:
        layer: an `LTC` with feedback=False, or with W_x = 0.

    Returns:
        The system, with the step size `layer.dt`, and what its input and output stand for; NumPy arrays, float64.

    Raises:
        ParameterError: a layer with feedback.

    Accuracy: parameters by formulas in float64; the order of the error in the inputs' size is measured by test.
    """
    if not isinstance(layer, LTC):
        raise ParameterError(f"layer is a {type(layer).__name__}; what is linearised is an LTC.")
    if layer.W_x is not None and bool(torch.any(layer.W_x != 0)):
        raise ParameterError(
            "this LTC has feedback (W_x ≠ 0): products of states, which Eq. 10 leaves out, are as large as the "
            "products with the input that it keeps. Use LTC(..., feedback=False), or set W_x to 0."
        )
    with torch.no_grad():
        network = _Network(deepcopy(layer).cpu(), torch.float64)  # some devices have no float64
        open_share = torch.sigmoid(network.b)
        f = network.gain * open_share
        rate = network.decay + f
        offset = f * network.A / rate
        # x₀ − A, without the cancellation where the gate is much faster than 1/τ.
        scale = -network.decay * network.A / rate
        parts = [part.numpy() for part in (-rate, -f * torch.sigmoid(-network.b), scale)]
        Lambda, B, C = (part[:, None] for part in parts)
        system = ContinuousSystem(Lambda, B, C, layer.dt, conjugate_pairs=False)
        return Linearised(system, network.W_u.numpy(), offset.numpy())


def _require_finite(name: str, values: torch.Tensor) -> None:
    if has_numbers(values) and not bool(torch.isfinite(values).all()):
        at = tuple((~torch.isfinite(values)).nonzero()[0].tolist())
        raise ParameterError(f"{name} holds {float(values[at])} at {at}; give finite numbers.")
