"""What the state-space layers of a model do with an input: how near to overflow they are, what carries the output."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass
from inspect import signature
from itertools import pairwise
from math import inf, isfinite, log10, nan
from numbers import Real
from typing import Any

import torch
from torch import nn

import liquid_ssm as ls

from ..backend import Backend
from ..errors import ParameterError, UnstableRecurrence, require_whole
from ..modes import State
from ..problem import ModeSpec
from ..registry import FIRST, default_backend
from ..tensors import checked, problem_of_tensors
from . import sampled_compiled, sampled_correlations
from .discretize import ADAMS_BASHFORTH
from .exact_step import largest_gain
from .layer import SSMLayer
from .liquid_time_constant import LTC
from .multistep import MultistepState, largest_root, scan_by_steps
from .padding import mask
from .regularisation import LayerInput, recorded_inputs
from .stability import clamped, gain, layer_limit, sampled_limit, transition

# States are looked at at the ends of so many pieces of the signal.
_PIECES = 32
# Of inputs that leave the first order alone.
_SMALL = 2.0**-30
_NOT_FINITE = (
    "{} NaN or infinite values, though u is finite: numbers left the range of their dtype, or a parameter is not "
    "finite; scale u down."
)


@dataclass(frozen=True)
class LayerDiagnosis:
    """One call of one layer.

    Attributes:
        name, mode, structure: of the layer; the mode with its options.
        backend: that computed this call, or that none was selected, where selection met the failure.  Steps by numba's
            kernels include those that the kernels leave to torch: near a pole, and after an overflow.
        certificate: that chose it; None where the fixed order or the layer did.
        largest_input: the largest |u| [units of u].
        gain: the largest |ā + b̄ u| of the recurrence (`stability.gain`), above 1 where a state may grow; with dt that
            of the shortest and longest interval; mode `s4`: of ā alone.  `bilinear-exact`: of its transition
            (`exact_step.largest_gain`); `adams-bashforth`: the largest factor per step of a constant input
            (`multistep.largest_root`).
        clamped: share of the inputs that `max_gain` cuts.
        decades_to_overflow: log10 of the dtype's largest number over the largest |y − D u| and the largest |state|;
            negative after an overflow.  The outputs are those of all steps, the states those at 32 of them.
        dead_modes: share of modes without influence: E|C_n x_n|² after these many steps of white noise, linear term
            alone, is below `dead` times the largest of the channel (`mimo`: of the layer).  Diagonal:
            |C_n B̄_n|² (1 − |ā_n|^2L)/(1 − |ā_n|²).
        memory_median, memory_longest: 1/(−log |ā_n|) over the modes, `dplr` and `dense` over the eigenvalues of Ā
            [steps]; infinite where |ā| >= 1.  Eigenvalues of `legs` beyond the largest few are ill-conditioned.
        aliased_modes, aliased_share: modes with |Im λ| δt > π, which a sampled input cannot tell from slower ones; λ
            of the normal part for `dplr`; with dt at the longest interval.  Of an integrator, memory and dead modes
            are those of its linear part by `bilinear`.
        orders: Σ (y⁽ᵖ⁾)² by liquid order p = 1, 2, …, as shares of their sum; NaN after an overflow
            in float64.  Of an integrator the first alone is told apart.
        rest: the same of all higher orders of `liquid`; 0 elsewhere.
    """

    name: str
    mode: str
    structure: str
    backend: str
    certificate: str | None
    largest_input: float
    gain: float
    clamped: float
    decades_to_overflow: float
    dead_modes: float
    memory_median: float
    memory_longest: float
    aliased_modes: int
    aliased_share: float
    orders: tuple[float, ...]
    rest: float


@dataclass(frozen=True)
class Diagnosis:
    """The layers of a model, in the order of their calls.

    Attributes:
        layers: those that were reached with finite inputs, and have finite parameters.
        failure: what `UnstableRecurrence` said, or what was given NaN or infinite values or has them as its output,
            though u is finite; else None.
    """

    layers: tuple[LayerDiagnosis, ...]
    failure: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values; numbers that are not finite are None, as JSON has none."""
        return {"layers": [_plain(asdict(layer)) for layer in self.layers], "failure": self.failure}

    def to_json(self) -> str:
        """`as_dict` as JSON text."""
        return json.dumps(self.as_dict(), indent=2, ensure_ascii=False)

    def table(self) -> str:
        """Plain text: one row per quantity, one column per call of a layer."""
        rows = [["layer", *(layer.name for layer in self.layers)]]
        rows += [[title, *(show(layer) for layer in self.layers)] for title, show in _ROWS.items()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([*lines, *([] if self.failure is None else ["", f"stopped: {self.failure}"])])


def diagnose(
    model: nn.Module,
    u: Any,
    *,
    orders: int = 4,
    rows: int = 2,
    dead: float | None = None,
    **forward_options: Any,
) -> Diagnosis:
    """Run the model once, in evaluation mode and without gradients, and look at each of its `SSMLayer` calls.

    Cost beyond the run: for up to `rows` rows of each call, on the CPU in float64, one more pass of the layer and one
    per liquid order below the highest (`liquid`: `orders`); for `dplr` also a singular value decomposition, an
    eigenvalue problem and 2 log2 L matrix products of N × N per channel.  With backend `auto` a layer may have to be
    selected for, as in any first call.

    Args:
        model: an `SSMLayer`, or any module with some in it.
        u: what the model takes, a tensor.
        orders: liquid orders of mode `liquid` that are told apart.
        rows: rows of the batch for decades and orders; gain and largest input are of all rows.
        dead: share of energy, from 0 to 1, below which a mode is dead; None for the unit roundoff's double,
            `finfo.eps`, of the layer's dtype.
        forward_options: more of what the model takes, such as lengths, rate or dt.

    Raises:
        ParameterError: no `SSMLayer` was called, a state was given to one, u is no tensor, u is not finite and so the
            model fails, or a number is outside its range.
    """
    for name, value in (("orders", orders), ("rows", rows)):
        require_whole(name, value)
    if dead is not None and (isinstance(dead, bool) or not isinstance(dead, Real) or not 0 <= dead <= 1):
        raise ParameterError(f"dead is {dead!r}; it is a share of energy, from 0 to 1, or None.")
    if not isinstance(u, torch.Tensor):
        raise ParameterError(f"u is a {type(u).__name__}; a torch tensor is wanted: give torch.as_tensor(u).")
    if not any(isinstance(module, SSMLayer) for module in model.modules()):
        raise _nothing_called(model)
    training = {module: module.training for module in model.modules()}
    with torch.no_grad(), recorded_inputs(model) as inputs:
        model.eval()
        try:
            failure = _run(model, u, forward_options)
        finally:
            for module, mode in training.items():
                module.training = mode
        if not inputs and failure is None:
            raise _nothing_called(model)
        calls: Counter[str] = Counter()
        found = []
        for given in inputs:
            calls[given.name] += 1
            name = given.name if calls[given.name] == 1 else f"{given.name} (call {calls[given.name]})"
            if all(bool(torch.isfinite(part).all()) for part in (given.u, *given.layer.parameters())):
                found.append(_diagnosed(name, given, orders, rows, dead))
    return Diagnosis(tuple(found), failure)


def _nothing_called(model: nn.Module) -> ParameterError:
    others = any(isinstance(module, LTC) for module in model.modules())
    return ParameterError(
        f"{type(model).__name__} called no SSMLayer; give a model that has one and is not compiled."
        + (" Layers of class LTC hold no modes and are not reported." if others else "")
    )


def _run(model: nn.Module, u: torch.Tensor, options: dict[str, Any]) -> str | None:
    """Run the model; what left the range of its dtype, if anything did.

    Raises:
        ParameterError: the model's, for any other reason; or that u is not finite.
    """
    last: dict[str, Any] = {}

    def watch(name: str, layer: nn.Module) -> Any:
        parameters = signature(type(layer).forward)

        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            last.update(name=name, given=parameters.bind(layer, *args, **kwargs).arguments)

        return layer.register_forward_pre_hook(hook, with_kwargs=True)

    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, (SSMLayer, LTC))]
    handles = [watch(name or type(module).__name__, module) for name, module in layers]
    cause: Exception | None = None
    try:
        outputs = model(u, **options)
        if not any(bool(_bad(part, u, options).any()) for part in _tensors(outputs)):
            return None
        failure = _NOT_FINITE.format(f"the output of {type(model).__name__} holds")
    except UnstableRecurrence as error:
        cause, failure = error, str(error)
    except ParameterError as error:
        if not last or not bool(_bad(last["given"]["u"], last["given"]["u"], last["given"]).any()):
            raise
        cause, failure = error, _NOT_FINITE.format(f"{last['name']} was given")
    finally:
        for handle in handles:
            handle.remove()
    bad = _bad(u, u, options).nonzero()
    if len(bad):
        first = tuple(bad[0].tolist())
        axes = ("batch", "step", "channel") if u.ndim == 3 else [f"axis {i}" for i in range(u.ndim)]
        at = ", ".join(f"{axis} {i}" for axis, i in zip(axes, first, strict=True))
        raise ParameterError(
            f"u holds {len(bad)} value(s) that are NaN or infinite; the first is {u[first].item()} at {at}. Replace "
            "or cut them."
        ) from cause
    return failure


def _bad(values: torch.Tensor, u: torch.Tensor, options: dict[str, Any]) -> torch.Tensor:
    """Where values are NaN or infinite; not in what `lengths` of the options leave out of u, if they have its axes."""
    bad = ~torch.isfinite(values)
    lengths = options.get("lengths")
    if lengths is not None and bool(bad.any()):
        lengths = torch.as_tensor(lengths)
        shape = u.shape[: lengths.ndim + 1]  # of pairs, lengths have two axes
        if bad.shape[: len(shape)] == shape:
            rows = lengths.numel(), shape[-1]
            bad &= mask(lengths.flatten(), rows, options.get("padding", "right"), u.device).view(
                *shape, *(1,) * (bad.ndim - len(shape))
            )
    return bad


def _tensors(outputs: Any) -> list[torch.Tensor]:
    """What a model gives, but for states that have parts."""
    if isinstance(outputs, dict):
        outputs = tuple(outputs.values())
    parts = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
    return [part for part in parts if isinstance(part, torch.Tensor)]


def _diagnosed(name: str, given: LayerInput, orders: int, rows: int, dead: float | None) -> LayerDiagnosis:
    layer = given.layer
    if not given.from_rest:
        raise ParameterError(f"{name} was given a state; diagnose starts at rest. Leave state out.")
    backend, certificate = _backend_of(given)
    u = given.u.transpose(1, 2)
    driven = _driven(given, u)
    # In float64 a state that overflowed float32 has a size.
    fine = _Fine(layer, given, driven[:rows])
    largest, outputs = fine.by_order(orders)
    energies = [float(y.square().sum()) for y in outputs]
    total = sum(energies)
    shares = tuple((energy / total if isfinite(total) else nan) if total else 0.0 for energy in energies)
    told = len(shares) - (layer.spec.mode == "liquid")
    memory = fine.memory()
    if dead is None:
        dead = torch.finfo(layer.continuous.dtype).eps
    influence = fine.influence(u.shape[-1])
    # Where all modes of a channel have none, none is below any other.
    share_dead = ((influence == 0) | (influence < dead * influence.amax(-1, keepdim=True))).double().mean()
    aliased = fine.parameters.Lambda().im.abs() * fine.steps() > torch.pi
    linear = layer.spec.mode == "s4"
    return LayerDiagnosis(
        name=name,
        mode=layer.spec.label,
        structure=layer.structure,
        backend=backend,
        certificate=certificate,
        largest_input=float(u.abs().max()) if u.numel() else 0.0,
        gain=_gain(given, torch.zeros_like(driven) if linear else driven),
        clamped=float((driven != u).double().mean()) if u.numel() else 0.0,
        decades_to_overflow=_decades(largest, torch.promote_types(u.dtype, torch.float32)),
        dead_modes=float(share_dead),
        memory_median=float(memory.median()),
        memory_longest=float(memory.max()),
        aliased_modes=int(aliased.sum()),
        aliased_share=float(aliased.double().mean()),
        orders=shares[:told],
        rest=sum(shares[told:]),
    )


def _gain(given: LayerInput, u: torch.Tensor) -> float:
    if not given.layer.integrates:
        return max(float(gain(system, u)) for system in given.systems())
    parameters = given.layer.continuous
    largest = largest_root if given.layer.discretization == ADAMS_BASHFORTH else largest_gain
    return max(largest(*parameters.joined(), parameters.step_sizes(rate), u) for rate in given.rates())


def _driven(given: LayerInput, u: torch.Tensor) -> torch.Tensor:
    """What the recurrence gets of u (batch, H, L)."""
    layer = given.layer
    if layer.max_gain is None:
        return u
    if given.dt is not None or layer.integrates:
        every = layer.continuous.intervals(u, given.rate, given.dt)
        return clamped(u, sampled_limit(layer, every).to(u.dtype))
    return clamped(u, layer_limit(layer, layer.system(given.rate)).to(u.dtype)[:, None])


def _backend_of(given: LayerInput) -> tuple[str, str | None]:
    """The backend of this call, found as the call finds it, and its certificate."""
    layer = given.layer
    if given.dt is not None or layer.integrates:
        by = "numba" if _is_compiled(given) else "torch"
        return f"{by}, step by step ({layer.discretization if given.dt is None else 'dt'})", None
    system, u = layer.system(given.rate), given.u.transpose(1, 2).contiguous()
    wanted, certificate = layer.backend, None
    if wanted in (None, "auto", "certified-only"):
        from ..selection.auto import selected

        strict = wanted == "certified-only"
        try:
            wanted, found = selected(system, u, layer.spec, tolerance=layer.tolerance, strict=strict)
        except UnstableRecurrence:
            return "none: selection met the failure", None
        certificate = None if found is None else found.id
    if wanted == FIRST:
        problem = problem_of_tensors(*checked(system, u), layer.spec, gradient=False, state=False)
        wanted = default_backend(problem).backend
    return wanted.name if isinstance(wanted, Backend) else str(wanted), certificate


def _is_compiled(given: LayerInput) -> bool:
    """Whether numba's kernels compute the steps of this call, as `scan_by_steps` and `scan_sampled` decide it."""
    layer, method = given.layer, given.layer.discretization
    if sampled_correlations.takes(layer.structure, method, layer.spec):
        return False
    return sampled_compiled.takes(layer.structure, method, layer.backend, given.u.transpose(1, 2))


class _Fine:
    """A layer in float64 on the CPU, with some rows of its input."""

    def __init__(self, layer: SSMLayer, given: LayerInput, u: torch.Tensor) -> None:
        self.layer, self.spec = layer, layer.spec
        self.parameters = deepcopy(layer.continuous).to("cpu", torch.float64)
        self.u = u.to("cpu", torch.float64).contiguous()
        self.rate = given.rate.cpu() if isinstance(given.rate, torch.Tensor) else given.rate
        self.dt = None if given.dt is None else self.parameters.intervals(self.u, self.rate, given.dt[: len(u)].cpu())
        if self.dt is None and layer.integrates:
            self.dt = self.parameters.intervals(self.u, self.rate)

    def system(self, *, reverse: bool = False) -> Any:
        """At the longest interval, where there are several; of an integrator its linear part by `bilinear`."""
        rate = self.rate if self.dt is None or not self.dt.numel() else self.dt.max()
        return self.parameters.system(self.layer.linear_discretization, rate, reverse=reverse)

    def steps(self) -> torch.Tensor:
        """δt in the shape that broadcasts against Λ."""
        rate = self.rate if self.dt is None or not self.dt.numel() else self.dt.max()
        return self.parameters.step_sizes(float(rate))

    def by_order(self, orders: int) -> tuple[float, list[torch.Tensor]]:
        """The largest |y| and |state|, and y⁽¹⁾, y⁽²⁾, …, in mode `liquid` ended by what they leave of y."""
        spec = self.spec
        if spec.mode == "s4" or (spec.has_order and spec.order == 1):
            largest, y = self.run(spec)
            return largest, [y]
        if self.layer.integrates:
            # Higher ones are no recurrences of their own.  y(εu)/ε, ε a power of 2, is off by ε y⁽²⁾ alone.
            largest, y = self.run(spec)
            first = self.run(spec, pieces=1, scale=_SMALL)[1] / _SMALL
            return largest, [first, y - first]
        if spec.mode == "liquid":
            lower = [ModeSpec("truncated", p) for p in range(1, orders + 1)]
        else:
            lower = [ModeSpec(spec.mode, p, spec.correlations, spec.window) for p in range(1, spec.order)]
        largest, y = self.run(spec)
        sums = [self.run(each, pieces=1)[1] for each in lower] + [y]
        return largest, [sums[0], *(after - before for before, after in pairwise(sums))]

    def run(self, spec: ModeSpec, pieces: int = _PIECES, scale: float = 1.0) -> tuple[float, torch.Tensor]:
        """The largest |y| and |state|, both infinite after an overflow, and y without D u, for inputs times scale."""
        length = self.u.shape[-1]
        step = max(1, -(-length // pieces))
        y, largest = torch.zeros_like(self.u), 0.0
        for reverse in (False, True)[: 1 + self.layer.bidirectional]:
            u = scale * (self.u.flip(-1) if reverse else self.u)
            system = None if self.dt is not None else self.system(reverse=reverse)
            state: Any = None
            parts = []
            for start in range(0, length, step):
                try:
                    at = slice(start, start + step)
                    part, state = self._piece(system, u, spec, state, at, reverse)
                except UnstableRecurrence:
                    return inf, torch.full_like(self.u, inf)
                parts.append(part)
                largest = max(largest, _size(part), _size(state))
            if parts:
                whole = torch.cat(parts, -1)
                if reverse:
                    lag = self.layer.reverse_lag
                    whole = nn.functional.pad(whole.flip(-1), (0, lag))[..., lag:]
                y = y + whole
        return largest, y

    def _piece(self, system: Any, u: torch.Tensor, spec: ModeSpec, state: Any, at: slice, reverse: bool) -> Any:
        if self.dt is not None:
            dt = self.dt[:, at]
            method = self.layer.discretization
            return scan_by_steps(self.parameters, method, spec, u[..., at], dt, state, reverse=reverse)
        return ls.apply(
            system,
            u[..., at].contiguous(),
            mode=spec.mode,
            order=spec.order,
            correlations=spec.correlations,
            window=spec.window,
            backend=FIRST,
            state=state,
            return_state=True,
        )

    def memory(self) -> torch.Tensor:
        """1/(−log |ā|) of every mode."""
        system = self.system()
        if system.structure in ("dplr", "dense"):
            radius = torch.linalg.eigvals(transition(system)).abs()
        else:
            radius = system.A_bar.abs()
        return torch.where(radius < 1, -1 / radius.log(), inf)

    def influence(self, length: int) -> torch.Tensor:
        """E|C_n x_n|² after `length` steps of white noise in every channel."""
        system = self.system()
        weight: torch.Tensor = system.C.abs().square()
        if system.structure in ("dplr", "dense"):
            return weight * _covariance(system, length)
        # Σ_{k<L} |ā|^2k
        log = 2 * system.A_bar.abs().log()
        steps = torch.where(log == 0, float(length), torch.expm1(length * log) / torch.expm1(log))
        drive: torch.Tensor = system.B_bar.abs().square()
        return weight.sum(0) * (drive.sum(1) * steps) if system.structure == "mimo" else weight * (drive * steps)


def _covariance(system: Any, length: int) -> torch.Tensor:
    """E|x_n|² = (Σ_{k<L} Āᵏ B̄ B̄* Āᵏ*)_nn, by doubling the number of terms."""
    A, B = transition(system), system.B_bar
    paired = system.conjugate_pairs
    B = torch.cat([B.real, B.imag], -1) if paired else B
    total, power = torch.zeros_like(A), torch.eye(A.shape[-1], dtype=A.dtype).expand_as(A)
    once = B[..., :, None] * B[..., None, :].conj()
    # Bits of the length, highest first: S_{2k} = S_k + Āᵏ S_k Āᵏ*, S_{k+1} = S_k + (Āᵏ B̄)(Āᵏ B̄)*.
    for bit in bin(length)[2:]:
        total = total + power @ total @ power.mH
        power = power @ power
        if bit == "1":
            total = total + power @ once @ power.mH
            power = power @ A
    found = total.diagonal(dim1=-2, dim2=-1).real
    return found[..., : found.shape[-1] // 2] + found[..., found.shape[-1] // 2 :] if paired else found


def _size(values: Any) -> float:
    """The largest modulus in an array or in the parts of a state that are computed."""
    parts: tuple[Any, ...] = (values,)
    if isinstance(values, State):
        parts = values.x, values.sums
    elif isinstance(values, MultistepState):
        parts = (values.x,)
    return max((float(part.abs().max()) for part in parts if part is not None and part.numel()), default=0.0)


def _decades(largest: float, dtype: torch.dtype) -> float:
    if largest == inf:
        return -inf
    return inf if largest == 0 else log10(torch.finfo(dtype).max) - log10(largest)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        if isinstance(value, tuple):
            return [plain(each) for each in value]
        return None if isinstance(value, float) and not isfinite(value) else value

    return {name: plain(value) for name, value in values.items()}


_ROWS: dict[str, Callable[[LayerDiagnosis], str]] = {
    "mode": lambda layer: layer.mode,
    "structure": lambda layer: layer.structure,
    "backend": lambda layer: layer.backend,
    "certificate": lambda layer: layer.certificate or "none",
    "largest |u|": lambda layer: f"{layer.largest_input:.3g}",
    "gain |a + b u|": lambda layer: f"{layer.gain:.6g}",
    "inputs clamped": lambda layer: f"{layer.clamped:.2%}",
    "decades to overflow": lambda layer: f"{layer.decades_to_overflow:.1f}",
    "dead modes": lambda layer: f"{layer.dead_modes:.2%}",
    "memory, median": lambda layer: f"{layer.memory_median:.3g} steps",
    "memory, longest": lambda layer: f"{layer.memory_longest:.3g} steps",
    "aliased modes": lambda layer: f"{layer.aliased_modes} ({layer.aliased_share:.2%})",
    "energy of orders 1, 2, …": lambda layer: " ".join(f"{share:.2%}" for share in layer.orders),
    "energy of the rest": lambda layer: f"{layer.rest:.2%}",
}
