"""How far a layer's transition is from growing: measured, kept below a bound by a regulariser, or by a clamp.

|ā + b̄ u| < 1 at every step keeps a liquid state bounded; it is sufficient, not necessary.  For `diagonal` and `mimo`
it is a number per mode.  For `dplr` and `dense` it is ‖Ā + diag(b̄ u)‖₂ on the full state: A = Λ − P P* with
Re λ < 0 is dissipative, so Ā of `bilinear` and `zoh` contracts in that norm, by as little as 1e-5 for `legs` of 64
states.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from math import isfinite
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..errors import ParameterError
from ..tensors import has_numbers
from .padding import mask

if TYPE_CHECKING:
    from .layer import SSMLayer
    from .parameters import ContinuousParameters

# Numbers of one temporary: some tens of megabytes at most.
_ELEMENTS = 1 << 20

_FULL = ("dplr", "dense")


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
    if system.structure in _FULL:
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
            limit = _limit(bound - _radius(system, contracts), _drive(system))
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
    limit = input_limit(system, layer.max_gain or 0.0, contracts=_contracts(layer))
    _require_open(layer, limit, system)
    return limit


def sampled_limit(layer: SSMLayer, dt: torch.Tensor) -> torch.Tensor:
    """`input_limit` where step k has Ā(dt_k δt) and B̄(dt_k δt): (batch, H, L) for dt (batch, L).

    Some steps at a time: memory does not grow with length times modes.
    """
    parameters: ContinuousParameters = layer.continuous
    if layer.structure == "dplr" and not _contracts(layer):
        raise ParameterError(
            "max_gain with dt of a dplr layer needs a transition that contracts; use discretization='bilinear', not "
            f"{layer.discretization!r}."
        )
    bound, shared = layer.max_gain or 0.0, layer.structure == "mimo"
    steps = max(1, _ELEMENTS // max(1, len(dt) * parameters.n_channels * parameters.n_modes))
    found = []
    with torch.no_grad():
        for start in range(0, dt.shape[1], steps):
            at = parameters.discretize(layer.discretization, dt[:, start : start + steps])
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
    if not (bound > 0 and isfinite(bound)):
        raise ParameterError(f"max_gain is {bound}; it is a positive bound of |ā + b̄ u|, such as 1.1, or None.")
    if layer.spec.mode == "s4":
        raise ParameterError("max_gain bounds |ā + b̄ u|, but in mode 's4' no transition depends on u; leave it out.")
    layer_limit(layer, layer.system())


def _require_open(layer: SSMLayer, limit: torch.Tensor, system: Any) -> None:
    if not has_numbers(limit) or bool((limit > 0).all()):
        return
    if layer.structure == "dplr" and _contracts(layer):
        found = "the linear part of a dplr layer may have norm 1"
    elif system is None:
        found = "the largest |ā| of the intervals in dt is not below it"
    else:
        with torch.no_grad():
            found = f"the largest |ā| is {float(_radius(system, False).amax()):.8g}"
    raise ParameterError(
        f"max_gain is {layer.max_gain}, but {found}: the recurrence would get no input at all. Give a larger max_gain, "
        "such as 1.1."
    )


@dataclass(frozen=True, eq=False)
class LayerInput:
    """What one call of an `SSMLayer` was given.

    Attributes:
        name: of the layer in the model.
        layer: itself.
        u: (batch, length, H), float32 or float64, 0 outside of true lengths, with its gradient.
        rate, dt: as in `SSMLayer.forward`.
        from_rest: whether no state was given.
    """

    name: str
    layer: SSMLayer
    u: torch.Tensor
    rate: float | torch.Tensor = 1.0
    dt: torch.Tensor | None = None
    from_rest: bool = True

    def systems(self) -> list[Any]:
        """The discrete system, with gradients; with dt those of the shortest and of the longest interval."""
        if self.dt is None or self.dt.numel() == 0:
            return [self.layer.system(self.rate)]
        return [self.layer.system(end * self.rate) for end in (self.dt.amin(), self.dt.amax())]


@contextmanager
def recorded_inputs(model: nn.Module) -> Iterator[list[LayerInput]]:
    """Within the block, every call of an `SSMLayer` in the model adds its input to the list, in the order of calls.

        with recorded_inputs(model) as inputs:
            y = model(u)
        loss = criterion(y, target) + 0.1 * gain_penalty(inputs, bound=1.1)

    By forward hooks, which a model that `torch.compile` has already compiled does not call.
    """
    from .layer import SSMLayer

    inputs: list[LayerInput] = []
    handles = []

    def watch(name: str, layer: SSMLayer) -> Any:
        parameters = signature(type(layer).forward)

        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = parameters.bind(layer, *args, **kwargs)
            given.apply_defaults()
            inputs.append(_layer_input(name, layer, **given.arguments))

        return layer.register_forward_pre_hook(hook, with_kwargs=True)

    try:
        for name, module in model.named_modules():
            if isinstance(module, SSMLayer):
                handles.append(watch(name or type(module).__name__, module))
        yield inputs
    finally:
        for handle in handles:
            handle.remove()


def gain_penalty(inputs: Sequence[LayerInput], bound: float = 1.0) -> torch.Tensor:
    """A regulariser: mean over layers of the mean over modes of relu(g − bound)², g the mode's largest gain.

    For inputs up to ±m, m the largest |u| of the channel: diagonal, g = max |ā ± b̄ m|; `mimo`, |ā| + Σ_h |b̄_h| m_h;
    `dplr` and `dense`, one per channel, ‖Ā‖₂ + max |b̄| m, with 1 for ‖Ā‖₂ where Ā is known to contract; mode `s4`,
    which has no b̄ u, |ā|.  Gradients reach ā and b̄ of every mode above the bound and, through m, what comes before
    the layer.

    Args:
        inputs: of `recorded_inputs`.  Those of a layer with `max_gain` count as they were before the clamp.
        bound: positive; for `dplr` layers above 1.

    Raises:
        ParameterError: nothing was recorded, or a bound that no input satisfies.
    """
    if not inputs:
        raise ParameterError(
            "no call of an SSMLayer was recorded; run the model, uncompiled, within recorded_inputs(model)."
        )
    if not (bound > 0 and isfinite(bound)):
        raise ParameterError(f"bound is {bound}; it is a positive bound of |ā + b̄ u|, such as 1.1.")
    return torch.stack([_penalty(given, bound) for given in inputs]).mean()


def _penalty(given: LayerInput, bound: float) -> torch.Tensor:
    contracts = _contracts(given.layer)
    largest = given.u.abs().amax((0, 1)) if given.u.numel() else given.u.new_zeros(given.layer.n_channels)
    terms = []
    for system in given.systems():
        if system.structure in _FULL and contracts and bound <= 1:
            raise ParameterError(
                f"bound is {bound}, but the linear part of {given.name} ({given.layer.structure}) may have norm 1, "
                "which leaves no input; give a bound above 1, such as 1.1."
            )
        unmoved = given.layer.spec.mode == "s4"
        found = _largest_gains(system, torch.zeros_like(largest) if unmoved else largest, contracts)
        terms.append(torch.relu(found - bound).square().mean())
    return torch.stack(terms).amax()


def _largest_gains(system: Any, largest: torch.Tensor, contracts: bool) -> torch.Tensor:
    """The largest gain of each mode for inputs up to ±largest (H,), or a bound of it where modes or channels mix."""
    size = largest.to(system.B_bar.real)
    if system.structure == "diagonal":
        drive = system.B_bar * size[:, None]
        return torch.maximum((system.A_bar + drive).abs(), (system.A_bar - drive).abs())
    added = system.B_bar.abs() @ size if system.structure == "mimo" else _drive(system) * size[:, None]
    return _radius(system, contracts) + added


def _layer_input(
    name: str,
    layer: SSMLayer,
    u: torch.Tensor,
    lengths: torch.Tensor | None,
    state: Any,
    rate: float | torch.Tensor,
    dt: torch.Tensor | None,
    padding: str,
    **_: Any,
) -> LayerInput:
    if u.dtype in (torch.bfloat16, torch.float16):
        u = u.float()
    if lengths is not None and u.ndim == 3:
        real = mask(lengths, u.shape[:2], padding, u.device)
        u = u.masked_fill(~real[..., None], 0.0)
        dt = None if dt is None else dt.masked_fill(~real, 1.0)
    return LayerInput(name, layer, u, rate, dt, state is None)


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


def _radius(system: Any, contracts: bool) -> torch.Tensor:
    """|ā|: (H, M), `mimo` (M,); the norm of a full transition, (H, 1)."""
    radius: torch.Tensor
    if system.structure not in _FULL:
        radius = system.A_bar.abs()
    elif contracts:
        radius = system.B_bar.real.new_ones((system.n_channels, 1))
    else:
        radius = torch.linalg.matrix_norm(transition(system), 2)[:, None]
    return radius


def _drive(system: Any) -> torch.Tensor:
    """|b̄| per unit of input, in the shape of `_radius`."""
    size: torch.Tensor = system.B_bar.abs()
    if system.structure == "mimo":
        return size.sum(-1)
    return size.amax(-1, keepdim=True) if system.structure in _FULL else size


def _limit(room: torch.Tensor, drive: torch.Tensor) -> torch.Tensor:
    # 0/0 is a mode at the bound without input.
    return torch.where(room > 0, room / drive, torch.zeros_like(room))


def _sharp_limit(A_bar: torch.Tensor, B_bar: torch.Tensor, bound: float) -> torch.Tensor:
    """The largest |u| with |ā ± b̄ u| <= bound, per mode."""
    radius = A_bar.abs()
    room = (bound - radius) * (bound + radius)
    along = (A_bar * B_bar.conj()).real.abs()
    return _limit(room, along + torch.sqrt(along.square() + room.clamp(min=0) * B_bar.abs().square()))


def _contracts(layer: SSMLayer) -> bool:
    """Whether ‖Ā‖₂ <= 1 whatever the parameters are: Re λ < 0 and A − Λ negative by parametrisation."""
    return layer.discretization in ("bilinear", "zoh")
