"""Networks in float64 with bounds on their rounding errors, for sums in any order.

A network is computed by the formulas below.  At every result that is rounded stands a zero, of which autograd tells
how far the outputs follow it, and besides it how large it may be: an output is off by the sum of both over all places,
to first order.  Any other way of computing by these formulas is off by no more, so two ways differ by at most twice
the error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

import liquid_ssm as ls
from liquid_ssm.oracle.discretisation_rounding import COMPLEX_QUOTIENT, discretisation_bounds
from liquid_ssm.oracle.rounding import COMPLEX_PRODUCT

# Room for products of two errors, below 1e-13 each, times second derivatives.
SECOND_ORDER = 1 + 2.0**-10


def gamma(roundings: float) -> float:
    """γ_n: a product of n factors 1 + δ, |δ| <= u, differs from 1 by no more (Higham, Lemma 3.1)."""
    return roundings * 2.0**-53 / (1 - roundings * 2.0**-53)


def analysed(network: Callable[..., torch.Tensor], *given: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """network(roundings, *given) (batch, ...), and how far computed outputs may be from exact ones.

    No row of the outputs depends on another one.
    """
    with torch.enable_grad():
        roundings = Roundings()
        y = network(roundings, *given)
        return y.detach(), roundings.error(y)


def of_moments(x: torch.Tensor, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What the mean and the variance of n numbers may be off by.

    Their mean m is off by γ_n of the mean of their moduli.  The variance is a sum of n products of numbers no larger
    than |x| + m(|x|), in one pass or two: off by γ_3n of the mean of these, besides what it is by m.
    """
    n = x.shape[dim]
    middle = x.abs().mean(dim, keepdim=True)
    sizes, centred = x.abs() + middle, (x - x.mean(dim, keepdim=True)).abs()
    of_mean = gamma(n) * middle
    return of_mean, (2 * centred * of_mean + gamma(3 * n) * sizes.square()).mean(dim, keepdim=True)


def of_normalised(x: torch.Tensor, dim: int, eps: float) -> torch.Tensor:
    """What (x - m) / √(v + ε) times a number of size 1, plus another, may be off by; γ_4 of that one comes on top.

    A sum, root and reciprocal take 3u; products of x and of m with them, their difference, w and b 4u.
    """
    of_mean, of_variance = of_moments(x, dim)
    sizes = x.abs() + x.abs().mean(dim, keepdim=True)
    centred = (x - x.mean(dim, keepdim=True)).abs()
    variance = x.var(dim, unbiased=False, keepdim=True) + eps
    each = of_mean + centred * (of_variance / (2 * variance) + gamma(3)) + gamma(4) * sizes
    return variance.rsqrt() * each


class Roundings:
    """Operations, and what each of them may be off by for exact inputs."""

    gamma = staticmethod(gamma)

    def __init__(self) -> None:
        self.places: list[torch.Tensor] = []
        self.sizes: list[torch.Tensor] = []

    def at(self, value: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
        """value, off by at most size."""
        place = torch.zeros_like(value, requires_grad=True)
        self.places.append(place)
        self.sizes.append(size.detach())
        return value + place

    def error(self, y: torch.Tensor) -> torch.Tensor:
        """What y (batch, ...) may be off by."""
        found = []
        for outputs in y.flatten(1).unbind(1):
            # Rows do not meet, so the gradient of their sum is each row's own.
            gradients = torch.autograd.grad(outputs.sum(), self.places, retain_graph=True, allow_unused=True)
            parts = [
                (g.abs() * size).flatten(1).sum(1)
                for g, size in zip(gradients, self.sizes, strict=True)
                if g is not None
            ]
            found.append(torch.stack(parts).sum(0))
        return torch.stack(found, 1).view_as(y) * SECOND_ORDER

    def relative(self, value: torch.Tensor, roundings: float = 1) -> torch.Tensor:
        """A sum or product of two numbers, or what else is off by so many roundoffs."""
        return self.at(value, gamma(roundings) * value.abs())

    def linear(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        sizes = functional.linear(x.abs(), weight.abs(), bias.abs())
        return self.at(functional.linear(x, weight, bias), gamma(weight.shape[1] + 1) * sizes)

    def product(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Of matrices."""
        return self.at(x @ y, gamma(x.shape[-1]) * (x.abs() @ y.abs()))

    def pooled(self, x: torch.Tensor, pooling: str) -> torch.Tensor:
        """The mean over L steps: L - 1 sums and a quotient."""
        if pooling == "mean":
            return self.at(x.mean(1), gamma(x.shape[1]) * x.abs().mean(1))
        return x if pooling == "none" else x[:, -1]

    def sigmoid(self, x: torch.Tensor) -> torch.Tensor:
        """An exponential within one unit in the last place, which is two roundoffs, a sum and a quotient."""
        return self.relative(x.sigmoid(), 4)

    def tanh(self, x: torch.Tensor) -> torch.Tensor:
        """Within one unit in the last place."""
        return self.relative(x.tanh(), 2)

    def gelu(self, x: torch.Tensor) -> torch.Tensor:
        """x (1 + erf z) / 2 with z = x / √2.

        z is off by 2u, which moves erf z by less than u, as |z erf' z| < 1/2; erf by 2u and its sum with 1 by at most
        2u more; the product by u.
        """
        return self.at(functional.gelu(x), gamma(6) * x.abs())

    def glu(self, x: torch.Tensor) -> torch.Tensor:
        value, gate = x.chunk(2, -1)
        return self.relative(value * self.sigmoid(gate))

    def softmax(self, x: torch.Tensor) -> torch.Tensor:
        """p_i = e^(x_i - max) / Σ, of n numbers.

        A roundoff of each difference, above and below; two of each exponential, above and below; n - 1 of the sum; one
        of a quotient, or two of a reciprocal.
        """
        p, differences = x.softmax(-1), x.amax(-1, keepdim=True) - x.amin(-1, keepdim=True)
        return self.at(p, p * (gamma(2) * differences + gamma(x.shape[-1] + 5)))

    def layer_norm(self, x: torch.Tensor, norm: torch.nn.LayerNorm) -> torch.Tensor:
        """w x̂ + b, x̂ the features in units of their deviation."""
        weight, bias = norm.weight.abs(), norm.bias.abs()
        y = functional.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps)
        return self.at(y, weight * of_normalised(x, -1, norm.eps) + gamma(4) * bias)

    def batch_norm(self, x: torch.Tensor, norm: torch.nn.BatchNorm1d) -> torch.Tensor:
        """w (x - m) / √(v + ε) + b of running m and v: sum, root and quotient, products and sums, 8 in all."""
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        sizes = (x.abs() + norm.running_mean.abs()) * scale.abs() + norm.bias.abs()
        return self.at((x - norm.running_mean) * scale + norm.bias, gamma(8) * sizes)


def of_moduli(system: Any) -> Any:
    """The system whose outputs for |u| are the sums of the moduli of all terms of those for u."""
    parameters = {name: np.abs(value) + 0j for name, value in system.parameters.items()}
    if "P_bar" in parameters:  # Ā = Λ̄ - P̄ Q̄*
        parameters["P_bar"] = -parameters["P_bar"]
    return type(system)(**parameters)


def system_at(layer: Any, factor: Any) -> Any:
    """By NumPy, that of the step size times factor."""
    continuous = layer.continuous.continuous()
    return continuous.with_dt(continuous.dt * float(factor)).discretize(layer.discretization)


def is_full(layer: Any) -> bool:
    """Whether Ā is a full matrix, of whose exponential no bound is known."""
    return bool(layer.continuous.sizes(layer.discretization).structure == "dense")


def systems_at(layer: Any, dt: torch.Tensor, pieces: Sequence[int] | None = None) -> list[list[Any]]:
    """For every row and step of dt (batch, length), `system_at`; full matrices are the layer's own.

    Args:
        pieces: lengths of the pieces of time in which the layer computes exponentials, whose last bits depend on it.
    """
    if not is_full(layer):
        return [[system_at(layer, factor) for factor in row] for row in dt]
    with torch.no_grad():
        C = layer.continuous.output_vectors()
        C = torch.cat([C, C.conj_physical()], -1).numpy()
        found = [
            layer.continuous.discretize(layer.discretization, part.mT) for part in dt.split(pieces or dt.shape[1], 1)
        ]
    A_bar, B_bar = (np.concatenate(parts) for parts in zip(*((at.A_bar, at.B_bar) for at in found), strict=True))
    rows = zip(A_bar.swapaxes(0, 1), B_bar.swapaxes(0, 1), strict=True)
    return [[ls.DenseSystem(A, B, C) for A, B in zip(*row, strict=True)] for row in rows]


def of_parameters(layer: Any, factor: Any) -> float:
    """Roundings that a discrete parameter's relative error comes to, at most, besides those of `systems_at`.

    A layer multiplies by reciprocals where NumPy divides: a quotient costs a product more.
    """
    if is_full(layer):
        return 0.0
    continuous, system = layer.continuous.continuous(), system_at(layer, factor)
    bounds = discretisation_bounds(
        continuous.Lambda, continuous.B, continuous.dt * float(factor), layer.discretization, P=continuous.P
    )
    names = {"A_bar": bounds.A, "Lambda_bar": bounds.A, "B_bar": bounds.B, "P_bar": bounds.P, "Q_bar": bounds.Q}
    relative = max(float(np.max(names[name] / np.abs(v))) for name, v in system.parameters.items() if name in names)
    return (1 + COMPLEX_PRODUCT / COMPLEX_QUOTIENT) * relative / 2.0**-53


def coupled(layer: Any) -> int:
    """Roundings of a step where its modes meet: of sums over a low-rank factor and over all factors, or over a row."""
    M, P = layer.continuous.n_modes, layer.continuous.P
    if is_full(layer):
        return 2 * int(M)
    return 0 if P is None else int(M) + 1 + len(P)


def of_layer(layer: Any, u: torch.Tensor, dt: torch.Tensor, terms: float = 0) -> tuple[np.ndarray, np.ndarray]:
    """How far computed outputs (batch, length, H) and final states may be from those of the continuous parameters.

    Both are sums of products.  Each is off by at most γ_n times the same sum of moduli if no term passes more than n
    roundings.  A complex product counts as 3, which is more than √5.  Of M modes, H channels and R factors:

    * per step, 2H + 1 of B̄ u and, in the liquid term, of its sum with Ā; then 3 of the product with the state, or, by
      way of a low-rank factor, 3 of the product with Q̄, M of their sum and 1 of that with P̄; R + 1 of the sums of all,
      or, of a full matrix, 2M more of a sum;
    * and the errors of the parameters, one of Ā or B̄, or those of P̄ and Q̄;
    * at the end, 3 + M of C x, or 2M as a matrix product, the sum of the orders, and that with D u, which has 2.

    Args:
        terms: roundings besides, of another way to add up.
    """
    H, M, R = layer.n_channels, layer.continuous.n_modes, 0 if layer.continuous.P is None else len(layer.continuous.P)
    truncated = layer.spec.mode in ("truncated", "kb")
    order = layer.spec.order if truncated else 1
    parameters = max(of_parameters(layer, factor) for factor in set(dt.flatten().tolist()))
    step = 2 * H + 1 + 3 + coupled(layer) + 1 + (2 if R else 1) * parameters
    roundings = u.shape[1] * step + 3 + 2 * M + order + 1 + terms
    systems = systems_at(layer, dt)
    finals: list[np.ndarray] = []
    sizes = np.zeros(tuple(u.shape))
    for row in range(len(u)):
        state = None
        for k in range(u.shape[1]):
            size, state = ls.step(
                of_moduli(systems[row][k]),
                np.abs(u[row : row + 1, k].numpy()),
                state,
                mode="truncated" if truncated else layer.spec.mode,
                order=order,
                backend="numpy",
            )
            sizes[row, k] = size[0]
        finals.append(state[0])
    through = np.zeros(tuple(u.shape)) if layer.D is None else np.abs((layer.D * u).detach().numpy())
    return gamma(roundings) * sizes + gamma(2 + terms) * through, gamma(roundings) * np.abs(finals)


def sequence_model(r: Roundings, model: Any, u: torch.Tensor, exact: Callable[..., Any]) -> torch.Tensor:
    """A `SequenceModel` in evaluation, of whole rows, tokens or not."""

    def normed(x: torch.Tensor, norm: Any) -> torch.Tensor:
        return r.layer_norm(x, norm) if isinstance(norm, torch.nn.LayerNorm) else r.batch_norm(x, norm.norm)

    encoder, head = model.encoder, model.head
    x = encoder(u) if model.tokens else r.linear(u, encoder.weight, encoder.bias)
    for block in model.blocks:
        given = normed(x, block.norm) if block.prenorm else x
        y = r.gelu(r.at(block.layer(given), torch.from_numpy(exact(block.layer, given.detach())[1])))
        x = r.relative(x + r.glu(r.linear(y, block.output[0].weight, block.output[0].bias)))
        x = x if block.prenorm else normed(x, block.norm)
    x = x if model.norm is None else normed(x, model.norm)
    return r.linear(r.pooled(x, model.pooling), head.weight, head.bias)
