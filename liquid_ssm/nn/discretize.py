"""Discretisation of parameters that are trained: differentiable, for one step size per channel or per time step.

The formulas are those of `liquid_ssm.discretize`; `Number` is a complex tensor or a `Split` of two real ones.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from ..complex_numbers import Number, Split, conj, each_part, join, plus, times
from ..discretize import require_accurate_exponential
from ..errors import ParameterError, UnstableRecurrence
from ..tensors import has_numbers

METHODS = ("euler", "bilinear", "zoh")
DIVERGED = (
    "Where training led here, load the last finite state_dict, then lower the learning rate (ssm_lr of "
    "parameter_groups) or clip gradients (torch.nn.utils.clip_grad_norm_)."
)
# Of the liquid system itself, with no Ā and B̄ that hold for every input: `liquid_ssm.integrators`.
ADAMS_BASHFORTH, BILINEAR_EXACT = INTEGRATORS = ("adams-bashforth", "bilinear-exact")


class Discrete(NamedTuple):
    """Ā and B̄ of one step or of many; leading axes are those of the step size.

    Attributes:
        A_bar: diagonal (..., H, M), for `mimo` (..., M); of a low-rank system the diagonal part Λ̄, and by `zoh` the
            full matrix (..., H, N, N) on [x; conj x].
        B_bar: (..., H, M), for `mimo` (..., M, H); beside a full matrix (..., H, N).
        P_bar, Q_bar: low-rank factors (R, ..., H, M), or None.
    """

    A_bar: Number
    B_bar: Number
    P_bar: Number | None = None
    Q_bar: Number | None = None


def discretize_diagonal(method: str, Lambda: Number, B: Number, dt: torch.Tensor) -> Discrete:
    """Ā and B̄ of a diagonal system, elementwise.

    Args:
        method: `euler`, `bilinear` or `zoh`.
        Lambda: (H, M), Re λ < 0, or (M,) with B (M, H).
        dt: step sizes that broadcast against Lambda: (H, 1) or (..., H, 1), for `mimo` (M,) or (..., M).
    """
    A_bar, gain = _transition_and_gain(method, Lambda * dt, dt)
    shared = len(B.shape) > 1 and len(Lambda.shape) == 1
    return Discrete(A_bar, B * (gain[..., None] if shared else gain))


def discretize_dplr(method: str, Lambda: Number, P: Number, B: Number, dt: torch.Tensor) -> Discrete:
    """The factors of Ā = Λ̄ − P̄ Q̄* and B̄ for A = Λ − P P* over both halves of every conjugate pair.

    Bilinear by Woodbury, as in `liquid_ssm.discretize`.

    Args:
        method: `euler` or `bilinear`; `zoh` has no such factors, see `full_exponential`.
        Lambda, B: (H, M), or (..., H, M).
        P: (R, H, M).
        dt: (H, 1) or (..., H, 1).
    """
    P = P[(slice(None), *(None,) * (max(len(Lambda.shape), dt.ndim) - 2))]
    if method == "euler":
        return Discrete(1 + Lambda * dt, B * dt, P * dt, P * torch.ones_like(dt))
    if method != "bilinear":
        raise ParameterError(f"discretization {method!r} has no low-rank factors; allowed: euler, bilinear.")
    h = dt / 2
    m = times(Lambda, h)
    inverse = 1 / (1 - m)
    DP, DB = inverse * P, inverse * times(B, dt)
    DPW = _solved(P, DP, h)
    share = _both_halves(conj(P) * DB)  # (R, ..., H)
    return Discrete(
        (1 + m) * inverse,
        DB - times(_summed(times(DPW, share[..., None])), h),
        times(DPW, 2 * h),
        conj(inverse) * P,
    )


def discretize_driven(Lambda: Number, drive: Number, P: Number | None, dt: torch.Tensor) -> Discrete:
    """`bilinear-exact`: the bilinear step of M = A + diag(B u), another one for every input.

    Args:
        Lambda: (H, M), for `mimo` (M,).
        drive: B u, (..., H, M), for `mimo` (..., M).
        P: (R, H, M), or None.
        dt: as in `discretize_diagonal`.

    Returns:
        Ā = (I − h M)⁻¹ (I + h M), h = δt/2, and as B̄ what is added to Ā x: (I − h M)⁻¹ δt B u.

    References: Eq. 3 on Eq. 10 of arXiv 2209.12951, the transform that Appendix D leaves open.
    """
    moved = plus(Lambda, drive)
    if P is None:
        A_bar, gain = _transition_and_gain("bilinear", times(moved, dt), dt)
        return Discrete(A_bar, drive * gain)
    return discretize_dplr("bilinear", moved, P, drive, dt)


def driven_by(B: Number, u: torch.Tensor, *, shared: bool) -> Number:
    """B u of inputs (..., H): (..., H, M), for a shared state (`mimo`) (..., M)."""
    if shared:
        products = times(B, u[..., None, :])
        return products.map(lambda part: part.sum(-1)) if isinstance(products, Split) else products.sum(-1)
    return times(B, u[..., None])


def full_exponential(Lambda: torch.Tensor, P: torch.Tensor, B: torch.Tensor, dt: torch.Tensor) -> Discrete:
    """Zero-order hold of Λ − P P*: Ā (..., H, N, N) and B̄ (..., H, N) on the full state [x; conj x].

    Args:
        Lambda, B: (H, M) complex.
        P: (R, H, M).
        dt: (..., H, 1).

    Raises:
        UnstableRecurrence: the exponential would have lost more than float32 resolves.
    """
    Lambda, P, B = (torch.cat([v, v.conj()], -1) for v in (Lambda, P, B))
    z = torch.diag_embed(Lambda) - torch.einsum("rhn,rhm->hnm", P, P.conj())
    if has_numbers(z) and has_numbers(dt):
        _require_accurate_exponential(torch.linalg.matrix_norm(z.detach(), 1) * dt.detach()[..., 0], z.shape[-1])
    augmented = torch.cat([z, B[..., None]], -1) * dt[..., None]
    # The first N rows of the exponential of [[z, B], [0, 0]].
    both = torch.linalg.matrix_exp(torch.nn.functional.pad(augmented, (0, 0, 0, 1)))[..., :-1, :]
    return Discrete(both[..., :-1], both[..., -1])


def _require_accurate_exponential(sizes: torch.Tensor, n_state: int) -> None:
    """As `liquid_ssm.discretize`, for the norms (..., H) of matrices that training may have made what they are."""
    if sizes.numel() == 0:
        return
    try:
        require_accurate_exponential(float(sizes.amax()), n_state)
    except ParameterError as error:
        raise UnstableRecurrence(
            f"{error} {DIVERGED}", step=0, channel=int(sizes.argmax()) % sizes.shape[-1], input_bound=None
        ) from error


def _transition_and_gain(method: str, z: Number, dt: torch.Tensor) -> tuple[Number, Number]:
    """Ā and B̄/B for z = δt λ."""
    if method == "euler":
        return 1 + z, dt
    if method == "bilinear":
        inverse = 1 / (1 - z * 0.5)
        return (1 + z * 0.5) * inverse, times(inverse, dt)
    if method == "zoh":
        return _exponential(z), _phi1(z) * dt
    raise ParameterError(f"discretization {method!r} has no Ā and B̄; allowed: {', '.join(METHODS)}.")


def _exponential(z: Number) -> Number:
    if not isinstance(z, Split):
        return torch.exp(z)
    size = torch.exp(z.re)
    return Split(size * torch.cos(z.im), size * torch.sin(z.im))


def _phi1(z: Number) -> Number:
    """(e^z − 1)/z, without cancellation; 1 + z/2 where that is all there is in floating point."""
    a, b = (z.re, z.im) if isinstance(z, Split) else (z.real, z.imag)
    small = (a * a + b * b) < torch.finfo(a.dtype).eps ** 2
    # Both branches of a `where` are differentiated, so the quotient must be finite in both.
    a, b = torch.where(small, 1.0, a), torch.where(small, 0.0, b)
    re = torch.expm1(a) * torch.cos(b) - 2 * torch.sin(b / 2) ** 2
    im = torch.exp(a) * torch.sin(b)
    size = a * a + b * b
    quotient = Split((re * a + im * b) / size, (im * a - re * b) / size)
    near = 1 + z * 0.5
    found = Split(torch.where(small, near.real, quotient.re), torch.where(small, near.imag, quotient.im))
    return found if isinstance(z, Split) else join(found)


def _both_halves(z: Number) -> torch.Tensor:
    """Sums over the modes of both halves of every conjugate pair, which are real."""
    total: torch.Tensor = z.real.sum(-1)
    return 2 * total


def _summed(z: Number) -> Number:
    return z.map(lambda part: part.sum(0)) if isinstance(z, Split) else z.sum(0)


def _solved(P: Number, DP: Number, h: torch.Tensor) -> Number:
    """DP W with W = (I + h P* D P)⁻¹, R × R and real; rows are the factors."""
    rank = P.shape[0]
    gram = _both_halves(conj(P)[:, None] * DP[None])  # (R, R, ..., H)
    if rank == 1:
        divisor = 1 + gram[0, 0][..., None] * h
        return each_part(DP, lambda part: part / divisor)
    unit = torch.eye(rank, dtype=gram.dtype, device=gram.device)
    core = unit + gram.movedim((0, 1), (-2, -1)) * h[..., None]

    def solve(part: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = torch.linalg.solve(core.mT, part.movedim(0, -2))
        return found.movedim(-2, 0)

    if isinstance(DP, Split):
        return DP.map(solve)
    return torch.complex(solve(DP.real), solve(DP.imag))
