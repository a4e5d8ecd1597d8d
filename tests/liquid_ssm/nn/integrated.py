"""Layers that integrate, in mpmath by the definitions, and what they may be off by in float64.

The definitions are those of `liquid_ssm.integrators` with full matrices M_k = A + diag(B u_k) on both halves of every
conjugate pair; the bounds are of the layers' own formulas, by `rounded.Roundings`.
"""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
import torch

from liquid_ssm.oracle.rounding import COMPLEX_PRODUCT

DIGITS = 40
# Roundings of a complex product and of a quotient by Smith's or any scaled algorithm (docs/bounds.md, "Integrators").
PRODUCT, QUOTIENT = 3, 10
assert PRODUCT >= COMPLEX_PRODUCT


def exact(layer: Any, u: torch.Tensor, dt: torch.Tensor, start: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Outputs (batch, length, H) and final states (batch, H, M), `mimo` (batch, M), D u among the outputs.

    Args:
        u: (batch, length, H).
        dt: intervals in units of δt, (batch, length).
        start: x_{-1}, complex, in the shape of final states.
    """
    c = layer.continuous.continuous()
    shared = c.structure == "mimo"
    groups = [list(range(layer.n_channels))] if shared else [[h] for h in range(layer.n_channels)]
    y = np.zeros(tuple(u.shape))
    finals = np.zeros((len(u), *((c.n_modes,) if shared else (layer.n_channels, c.n_modes))), complex)
    D = None if layer.D is None else layer.D.detach().numpy()
    with mpmath.workdps(DIGITS):
        for row in range(len(u)):
            for channels in groups:
                at = channels[0]
                x0 = None if start is None else (start[row] if shared else start[row, at])
                outputs, final = _integrated(layer.discretization, c, channels, u[row].numpy(), dt[row].numpy(), x0)
                for h, values in zip(channels, outputs, strict=True):
                    for k, value in enumerate(values):
                        through = 0 if D is None else mpmath.mpf(float(D[h])) * float(u[row, k, h])
                        y[row, k, h] = float(value + through)
                finals[(row,) if shared else (row, at)] = final
    return y, finals


def _both(stored: Any) -> list[Any]:
    """One of each conjugate pair, then the others."""
    half = [mpmath.mpc(complex(z)) for z in stored]
    return half + [mpmath.conj(z) for z in half]


def _integrated(method: str, c: Any, channels: list[int], u: np.ndarray, dt: np.ndarray, x0: Any) -> Any:
    shared, h0 = c.structure == "mimo", channels[0]
    Lambda = _both(c.Lambda if shared else c.Lambda[h0])
    B = [_both(c.B[:, h] if shared else c.B[h]) for h in channels]
    C = [_both(c.C[h]) for h in channels]
    steps = [mpmath.mpf(float(t)) for t in (c.dt if shared else np.full(c.n_modes, c.dt[h0]))] * 2
    factors = [] if c.P is None else [_both(P[h0]) for P in c.P]
    n = range(len(Lambda))
    x = [mpmath.mpc(0)] * len(Lambda) if x0 is None else _both(x0)
    before, outputs = None, [[] for _ in channels]

    def along(v: Any, w: Any) -> Any:
        """(A + diag(w)) v."""
        found = [(Lambda[i] + w[i]) * v[i] for i in n]
        for P in factors:
            inner = mpmath.fsum(mpmath.conj(P[i]) * v[i] for i in n)
            found = [found[i] - P[i] * inner for i in n]
        return found

    for k in range(len(u)):
        w = [mpmath.fsum(B[j][i] * float(u[k, h]) for j, h in enumerate(channels)) for i in n]
        interval = mpmath.mpf(float(dt[k]))
        f = [along(x, w)[i] + w[i] for i in n]
        if method == "adams-bashforth":
            ratio = 0 if k == 0 else interval / mpmath.mpf(float(dt[k - 1]))
            slope = f if before is None else [(1 + ratio / 2) * f[i] - ratio / 2 * before[i] for i in n]
            x, before = [x[i] + interval * steps[i] * slope[i] for i in n], f
        else:
            # x_k = x_{k−1} + (I − h M)⁻¹ δt (M x_{k−1} + B u)
            left = mpmath.matrix(len(Lambda), len(Lambda))
            for i in n:
                for j in n:
                    entry = (Lambda[i] + w[i]) if i == j else mpmath.mpc(0)
                    entry -= mpmath.fsum(P[i] * mpmath.conj(P[j]) for P in factors)
                    left[i, j] = (i == j) - interval * steps[i] / 2 * entry
            right = mpmath.matrix([interval * steps[i] * f[i] for i in n])
            moved = mpmath.lu_solve(left, right)
            x = [x[i] + moved[i] for i in n]
        for j in range(len(channels)):
            outputs[j].append(mpmath.fsum(C[j][i] * x[i] for i in n).real)
    return outputs, [complex(z) for z in x[: len(x) // 2]]


def allowed(rounded: Any, layer: Any, u: torch.Tensor, dt: torch.Tensor, start: Any = None) -> tuple[Any, Any]:
    """How far computed outputs and final states may be from exact ones, in float64 and to first order.

    Args:
        rounded: the module of that name.
    """
    result = []
    for final in (False, True):
        value, error = rounded.analysed(_network, layer, u, dt, start, final)
        # One more for the exact numbers, which are rounded to float64.
        bound = error + rounded.gamma(1) * value.abs()
        result.append((torch.view_as_complex(bound).abs() if final else bound).detach().numpy())
    return tuple(result)


def _network(r: Any, layer: Any, u: torch.Tensor, dt: torch.Tensor, start: Any, final: bool) -> torch.Tensor:
    """Outputs, or final states as pairs of real numbers, with a place at every rounding."""
    parameters = layer.continuous
    Lambda, B, P = (None if part is None else part.detach() for part in parameters.joined())
    C = parameters.output_vectors().detach()
    shared = layer.structure == "mimo"
    M = C.shape[-1]
    # Λ and δt are rounded to the dtype of the layer.
    Lambda = r.relative(Lambda.expand(len(u), *Lambda.shape))
    steps = parameters.step_sizes(dt.mT).detach()
    x = Lambda.new_zeros(Lambda.shape) if start is None else start
    f, last, outputs = torch.zeros_like(x), torch.full_like(dt[:, 0], torch.inf), []
    step = _multistep if layer.discretization == "adams-bashforth" else _exact_step
    for k in range(u.shape[1]):
        inputs = u[:, k]
        if shared:
            drive = r.at(
                (B @ inputs[..., None].to(B))[..., 0], r.gamma(len(inputs[0])) * (B.abs() @ inputs.abs().mT).mT
            )
        else:
            drive = r.relative(B * inputs[..., None])
        x, f = step(r, Lambda, drive, P, r.relative(steps[k], 2), x, f, dt[:, k] / last)
        last = dt[:, k]
        terms = C * (x[:, None] if shared else x)
        read = 2 * terms.real.sum(-1)
        outputs.append(r.at(read, 2 * r.gamma(M + 2) * terms.abs().sum(-1)))
    if final:
        return torch.view_as_real(x)
    y = torch.stack(outputs, 1)
    if layer.D is not None:
        through = (layer.D * u).detach()
        y = r.relative(y + r.relative(through))
    return y


def _inner(r: Any, Q: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """2 Re Σ Q* x."""
    terms = Q.conj() * x
    return r.at(2 * terms.real.sum(-1, keepdim=True), 2 * r.gamma(x.shape[-1] + 2) * terms.abs().sum(-1, keepdim=True))


def _multistep(r: Any, Lambda: Any, drive: Any, P: Any, dt: Any, x: Any, before: Any, ratio: Any) -> tuple[Any, Any]:
    f = r.relative(r.relative(r.relative(Lambda + drive) * x, PRODUCT) + drive)
    for p in () if P is None else P:
        f = r.relative(f - r.relative(p * _inner(r, p, x)))
    half = r.relative(ratio.reshape(-1, *(1,) * (x.ndim - 1)) / 2)
    slope = r.relative(r.relative(r.relative(1 + half) * f) - r.relative(half * before))
    return r.relative(x + r.relative(dt * slope)), f


def _exact_step(r: Any, Lambda: Any, drive: Any, P: Any, dt: Any, x: Any, _: Any, __: Any) -> tuple[Any, Any]:
    m = r.relative(r.relative(Lambda + drive) * (dt / 2))
    inverse = r.relative(1 / r.relative(1 - m), QUOTIENT)
    A_bar = r.relative(r.relative(1 + m) * inverse, PRODUCT + 1)
    if P is None:
        B_bar = r.relative(drive * r.relative(inverse * dt), PRODUCT + 1)
        return r.relative(r.relative(A_bar * x, PRODUCT) + B_bar), None
    h, ranks = dt / 2, range(len(P))
    DP = [r.relative(inverse * p, PRODUCT) for p in P]
    DB = r.relative(inverse * r.relative(drive * dt), PRODUCT)
    core = [[r.relative((s == t) + r.relative(_inner(r, P[s], DP[t]) * h)) for t in ranks] for s in ranks]
    core = torch.stack([torch.stack(row, -1) for row in core], -2)[..., 0, :, :]
    # γ_3R |L||U| of Gaussian elimination (Higham, Theorem 9.4), entries of L at most 1, of U 2^(R−1) times the largest.
    size = len(P) * 2 ** (len(P) - 1) * core.abs().amax((-2, -1), keepdim=True)
    core = r.at(core, r.gamma(3 * len(P)) * size.expand(core.shape))
    W = torch.linalg.inv(core)  # exact, of a core that is off
    DPW = [sum(DP[s] * W[..., s, t, None] for s in ranks) for t in ranks]
    shares = [_inner(r, p, DB) for p in P]
    terms = [r.relative(DPW[s] * shares[s]) for s in ranks]
    total = r.at(sum(terms), r.gamma(len(P)) * sum(term.abs() for term in terms))
    B_bar = r.relative(r.relative(DB - r.relative(total * h)))
    after = r.relative(A_bar * x, PRODUCT)
    for s in ranks:
        P_bar, Q_bar = r.relative(DPW[s] * (2 * h), 2), r.relative(inverse.conj() * P[s], PRODUCT + 1)
        after = r.relative(after - r.relative(P_bar * _inner(r, Q_bar, x)))
    return r.relative(after + B_bar), None
