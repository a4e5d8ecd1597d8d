"""How far a layer's transition is from growing: measured, and kept below a bound by a clamp.

|ā + b̄ u| < 1 at every step keeps a liquid state bounded; it is sufficient, not necessary.  For `diagonal` and `mimo`
it is a number per mode.  For `dplr` and `dense` it is ‖Ā + diag(b̄ u)‖₂ on the full state: A = Λ − P P* with
Re λ < 0 is dissipative, so Ā of `bilinear` and `zoh` contracts in that norm, by as little as 1e-5 for `legs` of 64
states.
"""

from __future__ import annotations

from math import isfinite
from numbers import Real
from typing import TYPE_CHECKING, Any

import torch

from ..errors import ParameterError
from ..tensors import has_numbers
from .discretize import ADAMS_BASHFORTH, BILINEAR_EXACT
from .exact_step import gain_limit
from .pieces import steps_at_once

if TYPE_CHECKING:
    from .layer import SSMLayer
    from .parameters import ContinuousParameters

FULL = ("dplr", "dense")


def gain(system: Any, u: torch.Tensor) -> torch.Tensor:
    """The largest |ā + b̄ u| over rows, steps, channels and modes; differentiable.

    Diagonal: max |ā_n + b̄_n u_k|.  `mimo`: max |ā_n + Σ_h b̄_nh u_hk|.  `dplr` and `dense`: max ‖Ā + diag(b̄ u_k)‖₂,
    by one singular value decomposition of N × N for each channel's least and largest input.

    Args:
        system: of tensors.
        u: (batch, H, L); without any values it is the gain at 0.

    Accuracy: a modulus is convex in a real u, as a norm is, so that the least and the largest u of a channel decide
        exactly.
    """
    if u.numel() == 0:
        u = u.new_zeros((1, system.n_channels, 1))
    if system.structure == "mimo":
        drive = torch.einsum("mh,bhl->bml", system.B_bar, u.to(system.B_bar))
        largest: torch.Tensor = (system.A_bar[:, None] + drive).abs().amax()
        return largest
    ends = torch.stack([u.amin((0, 2)), u.amax((0, 2))])[..., None]  # (2, H, 1)
    if system.structure in FULL:
        largest = torch.linalg.matrix_norm(transition(system) + _diagonal_drive(system, ends), 2).amax()
    else:
        largest = (system.A_bar + system.B_bar * ends.to(system.B_bar)).abs().amax()
    return largest


def input_limit(system: Any, bound: float, *, contracts: bool = False) -> torch.Tensor:
    """|u| up to which |ā + b̄ u| <= bound in every mode, whatever its sign: (H,), detached.

    Diagonal: the root of |ā|² + 2 |Re ā b̄*| |u| + |b̄|² u² = bound², least over the modes, which the sign that is the
    worse for that mode attains.  Others, for which inputs or modes mix: (bound − |ā|)/|b̄|, for `mimo` with
    |b̄| = Σ_h |b̄_nh| over all channels, for `dplr` and `dense` with ‖Ā‖₂ and max |b̄|.  0 where bound <= |ā|, infinite
    where no b̄ is other than 0.  With bound = 1 it is at least `UnstableRecurrence.input_bound`.

    Detached: gradients through it would train B and δt to let more input through instead of to fit, and they would
    belong to the one mode that decides.

    Args:
        system: of tensors.
        bound: positive.
        contracts: ‖Ā‖₂ <= 1 is known, and 1 is taken for it: no singular values of `dplr` and `dense`.
    """
    with torch.no_grad():
        if system.structure == "diagonal":
            limit = _sharp_limit(system.A_bar, system.B_bar, bound)
        else:
            limit = _limit(bound - radius_of(system, contracts), drive_of(system))
        return limit.amin().expand(system.n_channels) if system.structure == "mimo" else limit.amin(-1)


def clamped(u: torch.Tensor, limit: torch.Tensor) -> torch.Tensor:
    """u within ±limit; what is infinite stays so, for the computation to name it."""
    return torch.where(torch.isfinite(u), torch.clamp(u, -limit, limit), u)


def layer_limit(layer: SSMLayer, system: Any) -> torch.Tensor:
    """`input_limit` of a layer with `max_gain`, for its system at some rate: (H,).

    Raises:
        ParameterError: a limit is 0, which would silence a channel (not looked for while torch compiles or
            transforms: the channel's recurrence then gets inputs of 0).
    """
    limit = input_limit(system, layer.max_gain or 0.0, contracts=contracts_always(layer))
    _require_open(layer, limit, system)
    return limit


def sampled_limit(layer: SSMLayer, dt: torch.Tensor) -> torch.Tensor:
    """`input_limit` where step k has Ā(dt_k δt) and B̄(dt_k δt): (batch, H, L) for dt (batch, L).

    Of `bilinear-exact`, by `exact_step.gain_limit`.  Some steps at a time: memory does not grow with length times
    modes.
    """
    parameters: ContinuousParameters = layer.continuous
    if layer.structure == "dplr" and not contracts_always(layer):
        raise ParameterError(
            "max_gain with dt of a dplr layer needs a transition that contracts; use discretization='bilinear' or "
            f"'zoh', not {layer.discretization!r}."
        )
    bound, shared = layer.max_gain or 0.0, layer.structure == "mimo"
    exact = layer.discretization == BILINEAR_EXACT
    steps = steps_at_once(len(dt) * parameters.numbers_per_step(layer.discretization))
    found = []
    with torch.no_grad():
        for start in range(0, dt.shape[1], steps):
            piece = dt[:, start : start + steps]
            if exact:
                Lambda, B, _ = parameters.joined()
                limit = gain_limit(Lambda, B, parameters.step_sizes(piece), bound)
                found.append(limit[..., None].expand(*limit.shape, layer.n_channels) if shared else limit)
                continue
            at = parameters.discretize(layer.discretization, piece)
            if layer.structure == "diagonal":
                limit = _sharp_limit(at.A_bar, at.B_bar, bound).amin(-1)
            elif shared:
                limit = _limit(bound - at.A_bar.abs(), at.B_bar.abs().sum(-1)).amin(-1)
                limit = limit[..., None].expand(*limit.shape, layer.n_channels)
            else:
                drive = at.B_bar.abs().amax(-1)
                limit = _limit(bound - torch.ones_like(drive), drive)
            found.append(limit)
    if not found:
        return dt.new_empty((len(dt), layer.n_channels, 0))
    limit = torch.cat(found, 1).mT
    _require_open(layer, limit, None)
    return limit


def require_max_gain(layer: SSMLayer) -> None:
    """Raise a `ParameterError` unless the layer's `max_gain` leaves its recurrence some input."""
    bound = layer.max_gain
    if bound is None:
        return
    if isinstance(bound, bool) or not isinstance(bound, Real) or not (bound > 0 and isfinite(bound)):
        raise ParameterError(f"max_gain is {bound!r}; it is a positive bound of |ā + b̄ u|, such as 1.1, or None.")
    if layer.spec.mode == "s4":
        raise ParameterError("max_gain bounds |ā + b̄ u|, but in mode 's4' no transition depends on u; leave it out.")
    if layer.discretization == ADAMS_BASHFORTH:
        raise ParameterError(
            f"max_gain bounds the transition of one step, and a step of {ADAMS_BASHFORTH} takes two; leave it out, or "
            f"use {BILINEAR_EXACT}."
        )
    if layer.discretization == BILINEAR_EXACT:
        if bound < 1:
            raise ParameterError(
                f"max_gain is {bound}; a step of {BILINEAR_EXACT} is known to have a norm below bounds from 1 on. Give "
                "1, which keeps it dissipative, or more."
            )
        return
    layer_limit(layer, layer.system())


def _require_open(layer: SSMLayer, limit: torch.Tensor, system: Any) -> None:
    if not has_numbers(limit) or bool((limit > 0).all()):
        return
    if layer.structure == "dplr" and contracts_always(layer):
        found = "the linear part of a dplr layer may have norm 1"
    elif system is None:
        found = "the largest |ā| of the intervals in dt is not below it"
    else:
        with torch.no_grad():
            found = f"the largest |ā| is {float(radius_of(system, False).amax()):.8g}"
    raise ParameterError(
        f"max_gain is {layer.max_gain}, but {found}: the recurrence would get no input at all. Give a larger max_gain"
        f"{', such as 1.1' if (layer.max_gain or 0) < 1.1 else ''}; where training led here, lower lr or ssm_lr."
    )


def transition(system: Any) -> torch.Tensor:
    """Ā of a `dplr` or `dense` system as matrices, (H, N, N).

    Of conjugate pairs on (Re x, Im x), real: that on (x, conj x)/√2 after a unitary change of basis.
    """
    if system.structure == "dense":
        full: torch.Tensor = system.A_bar
        return full
    Lambda, P, Q = system.Lambda_bar, system.P_bar, system.Q_bar
    if not system.conjugate_pairs:
        return torch.diag_embed(Lambda) - torch.einsum("rhn,rhm->hnm", P, Q.conj())
    P, Q = (torch.cat([part.real, part.imag], -1) for part in (P, Q))
    return _diagonal(Lambda) - 2 * torch.einsum("rhn,rhm->hnm", P, Q)


def _diagonal_drive(system: Any, u: torch.Tensor) -> torch.Tensor:
    """diag(b̄ u) in the form of `transition`, for u (..., H, 1)."""
    drive = system.B_bar * u.to(system.B_bar)
    return _diagonal(drive) if system.conjugate_pairs else torch.diag_embed(drive)


def _diagonal(z: torch.Tensor) -> torch.Tensor:
    """diag(z) on (Re x, Im x)."""
    re, im = torch.diag_embed(z.real), torch.diag_embed(z.imag)
    return torch.cat([torch.cat([re, -im], -1), torch.cat([im, re], -1)], -2)


def radius_of(system: Any, contracts: bool) -> torch.Tensor:
    """|ā|: (H, M), `mimo` (M,); the norm of a full transition, (H, 1)."""
    radius: torch.Tensor
    if system.structure not in FULL:
        radius = system.A_bar.abs()
    elif contracts:
        radius = system.B_bar.real.new_ones((system.n_channels, 1))
    else:
        radius = torch.linalg.matrix_norm(transition(system), 2)[:, None]
    return radius


def drive_of(system: Any) -> torch.Tensor:
    """|b̄| per unit of input, in the shape of `radius_of`."""
    size: torch.Tensor = system.B_bar.abs()
    if system.structure == "mimo":
        return size.sum(-1)
    return size.amax(-1, keepdim=True) if system.structure in FULL else size


def _limit(room: torch.Tensor, drive: torch.Tensor) -> torch.Tensor:
    # 0/0 is a mode at the bound without input.
    return torch.where(room > 0, room / drive, torch.zeros_like(room))


def _sharp_limit(A_bar: torch.Tensor, B_bar: torch.Tensor, bound: float) -> torch.Tensor:
    """The largest |u| with |ā ± b̄ u| <= bound, per mode."""
    radius = A_bar.abs()
    room = (bound - radius) * (bound + radius)
    along = (A_bar * B_bar.conj()).real.abs()
    return _limit(room, along + torch.sqrt(along.square() + room.clamp(min=0) * B_bar.abs().square()))


def contracts_always(layer: SSMLayer) -> bool:
    """Whether ‖Ā‖₂ <= 1 whatever the parameters are: Re λ < 0 and A − Λ negative by parametrisation."""
    return layer.discretization in ("bilinear", "zoh", BILINEAR_EXACT)
