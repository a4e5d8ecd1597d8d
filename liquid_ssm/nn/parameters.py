"""The parameters of a continuous system as what an optimiser changes."""

from __future__ import annotations

import math
from collections.abc import Collection
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import nn

from ..complex_numbers import Number, Split, join
from ..continuous import ContinuousSystem
from ..errors import ParameterError, ShapeError, UnstableRecurrence, unknown_name
from ..systems import Array, DenseSystem, DiagonalSystem, DPLRSystem, MIMOSystem, System
from ..tensors import has_numbers
from .discretize import (
    DIVERGED,
    INTEGRATORS,
    METHODS,
    Discrete,
    discretize_diagonal,
    discretize_dplr,
    discretize_driven,
    driven_by,
    full_exponential,
)
from .exact_step import require_no_pole

# Parts that can be kept from training, and the tensors that hold them.
PARTS = {
    "Lambda": ("log_decay", "frequency"),
    "P": ("P",),
    "B": ("B",),
    "C": ("C", "C_reverse"),
    "dt": ("log_dt",),
}

# Logarithms beyond it are taken for it: exp(80) = 6e34 and its reciprocal are ordinary numbers in every precision.
_LARGEST_LOG = 80.0


class Sizes(NamedTuple):
    """Of a discrete system, by its names: what its states look like."""

    structure: str
    n_channels: int
    n_modes: int
    is_complex: bool = True


class ContinuousParameters(nn.Module):
    """Λ = −exp(log_decay) + i·frequency, δt = exp(log_dt), and P, B, C as pairs of real numbers.

    Re λ < 0 and δt > 0 whatever an optimiser does to the tensors.  Complex parameters are real tensors with a last
    axis of 2, (real, imaginary), so that every optimiser and file format takes them.

    Args:
        system: the initial values, of structure `diagonal`, `dplr` or `mimo`, one of each conjugate pair stored.
        frozen: parts that get no gradients: some of `Lambda`, `P`, `B`, `C`, `dt`.
        C_reverse: output vectors of a second direction, of C's shape, or None.

    Attributes:
        log_decay, frequency: shape of Λ [log 1/time, 1/time].
        log_dt: (H,), `mimo` (M,) [log time].
        B, C: (H, M, 2), `mimo` B (M, H, 2).
        P: (R, H, M, 2) or None.
        C_reverse: (H, M, 2) or None.

    Raises:
        ParameterError: a `dense` system, all modes of conjugate pairs stored, or an unknown part.
    """

    log_decay: nn.Parameter
    frequency: nn.Parameter
    log_dt: nn.Parameter
    B: nn.Parameter
    C: nn.Parameter
    P: nn.Parameter | None
    C_reverse: nn.Parameter | None

    def __init__(
        self, system: ContinuousSystem, *, frozen: Collection[str] = (), C_reverse: torch.Tensor | None = None
    ) -> None:
        super().__init__()
        if system.Lambda is None or not system.conjugate_pairs:
            raise ParameterError(
                f"a layer holds one eigenvalue of each conjugate pair; this {system.structure} system holds "
                f"{'a full matrix' if system.Lambda is None else 'all of them'}. Diagonalise it, or use apply."
            )
        for part in frozen:
            if part not in PARTS:
                raise unknown_name("part", part, tuple(PARTS))
        self.structure = system.structure
        values = {
            "log_decay": torch.tensor(-system.Lambda.real).log(),
            "frequency": torch.tensor(system.Lambda.imag),
            "log_dt": torch.tensor(system.dt).log(),
            "B": _pairs(system.B),
            "C": _pairs(system.C),
            "P": None if system.P is None else _pairs(system.P),
            "C_reverse": C_reverse,
        }
        without = {tensor for part in frozen for tensor in PARTS[part]}
        for name, value in values.items():
            held = None
            if value is not None:
                held = nn.Parameter(value.to(torch.get_default_dtype()), requires_grad=name not in without)
            self.register_parameter(name, held)

    @property
    def n_channels(self) -> int:
        """H."""
        return int(self.C.shape[0])

    @property
    def n_modes(self) -> int:
        """Stored modes M = N/2."""
        return int(self.C.shape[1])

    @property
    def dtype(self) -> torch.dtype:
        """Of the discrete system: float64 for float64 parameters, else float32."""
        return torch.float64 if self.log_dt.dtype == torch.float64 else torch.float32

    def Lambda(self) -> Split:
        """The eigenvalues, in the precision of discretisation."""
        return Split(-bounded_exp(self._fine(self.log_decay)), self._fine(self.frequency))

    def dt(self) -> torch.Tensor:
        """The step sizes, in the precision of discretisation."""
        return bounded_exp(self._fine(self.log_dt))

    def named(self, rate: float) -> dict[str, Number]:
        """What an integrator takes, real and imaginary parts apart: Λ, B, P and δt times rate, in float64, and C."""
        found: dict[str, Number] = {"Lambda": self.Lambda(), "B": self._split(self.B), "dt": self.step_sizes(rate)}
        if self.P is not None:
            found["P"] = self._split(self.P)
        return found | {"C": Split(*self.C.unbind(-1))}

    def step_sizes(self, rate: float | torch.Tensor = 1.0) -> torch.Tensor:
        """δt times rate, against Λ: (..., H, 1), `mimo` (..., M), with the axes of a rate (...) in front."""
        dt = self.dt()
        dt = (rate[(..., *(None,) * dt.ndim)] if isinstance(rate, torch.Tensor) else rate) * dt
        return dt if self.structure == "mimo" else dt[..., None]

    def joined(self) -> tuple[torch.Tensor, torch.Tensor, Any]:
        """Λ, B and P, which may be None, as complex tensors in the precision of discretisation."""
        P = self._split(self.P)
        return join(self.Lambda()), join(self._split(self.B)), None if P is None else join(P)

    def intervals(self, u: torch.Tensor, rate: float | torch.Tensor, dt: torch.Tensor | None = None) -> torch.Tensor:
        """Factors of the step size before every step of u (batch, H, L), rate times dt, or rate alone: (batch, L)."""
        require_rate(rate)
        if dt is not None:
            return self._fine(dt) * (self._fine(rate) if isinstance(rate, torch.Tensor) else rate)
        fine = self._fine(rate) if isinstance(rate, torch.Tensor) else self._fine(self.log_dt).new_tensor(rate)
        return fine.expand(u.shape[0], u.shape[2])

    def discretize(self, method: str, rate: float | torch.Tensor = 1.0, *, split: bool = False) -> Discrete:
        """Ā and B̄ in float64 (where the device has it): what is rounded once to become a system.

        Args:
            method: `euler`, `bilinear` or `zoh`.
            rate: factor of every step size; a tensor puts its shape in front, one discretisation per entry.
            split: as real and imaginary parts apart; not for `zoh` of a `dplr` system, a full matrix.
        """
        if self.sizes(method).structure == "dense":
            if split:
                raise ParameterError("zoh of a dplr system is the exponential of a complex matrix; leave split=False.")
            eigenvalues, inputs, factors = self.joined()
            return full_exponential(eigenvalues, factors, inputs, self.step_sizes(rate))
        Lambda, B, P = self.Lambda(), self._split(self.B), self._split(self.P)
        parts: tuple[Number, ...] = (Lambda, B) if P is None else (Lambda, B, P)
        if not split:
            parts = tuple(map(join, parts))
        steps = self.step_sizes(rate)
        if len(parts) == 3:
            return discretize_dplr(method, parts[0], parts[2], parts[1], steps)
        return discretize_diagonal(method, parts[0], parts[1], steps)

    def system(self, method: str, rate: float | torch.Tensor = 1.0, *, reverse: bool = False) -> System:
        """The discrete system, differentiable: computed in float64 where the device has it, rounded once.

        Args:
            method: `euler`, `bilinear` or `zoh`; `zoh` of a `dplr` system is a `DenseSystem`.
            rate: factor of every step size.
            reverse: with the output vectors of the second direction.

        Raises:
            ShapeError, ParameterError: an unknown method, or a rate that is no positive number.
            UnstableRecurrence: `zoh` of a `dplr` system whose exponential would have lost its slow modes.
        """
        if method in INTEGRATORS:
            raise ParameterError(
                f"discretization {method!r} has no Ā and B̄ that hold for every input, and so no discrete system; "
                f"continuous().discretize({method!r}) is the integrator on NumPy arrays."
            )
        if method not in METHODS:
            raise unknown_name("discretization", method, METHODS)
        require_rate(rate)
        with torch.autocast(self.log_dt.device.type, enabled=False):
            C = self.output_vectors(reverse=reverse)
            A_bar, B_bar, P_bar, Q_bar = self.discretize(method, rate)
            if self.sizes(method).structure == "dense":
                return DenseSystem(A_bar.to(C), B_bar.to(C), torch.cat([C, C.conj()], -1))
            if P_bar is not None and Q_bar is not None:
                return DPLRSystem(A_bar.to(C), P_bar.to(C), Q_bar.to(C), B_bar.to(C), C)
            build = MIMOSystem if self.structure == "mimo" else DiagonalSystem
            return build(A_bar.to(C), B_bar.to(C), C)

    def driven(self, u: torch.Tensor, rate: torch.Tensor, start: int = 0) -> Discrete:
        """`discretize_driven` of some steps, in float64 as in `discretize`.

        Args:
            u: (steps, batch, H).
            rate: factors of every step size, (steps, batch).
            start: number of the first step, for errors.

        Raises:
            UnstableRecurrence: what is divided by cannot be told from 0.
        """
        (Lambda, B, P), dt = self.joined(), self.step_sizes(rate)
        drive = driven_by(B, u.to(dt.dtype), shared=self.structure == "mimo")
        require_no_pole(Lambda, B, P, drive, dt, u, start)
        return discretize_driven(Lambda, drive, P, dt)

    def output_vectors(self, *, reverse: bool = False) -> torch.Tensor:
        """C (H, M), complex, in the precision of the discrete system.

        Args:
            reverse: that of the second direction.
        """
        held = self.C_reverse if reverse else self.C
        if held is None:
            raise ParameterError("there is no second direction; this layer is not bidirectional.")
        return torch.view_as_complex(held.to(self.dtype).contiguous())

    def read(self, x: torch.Tensor, *, reverse: bool = False) -> torch.Tensor:
        """2 Re(C x): (..., H) of states (..., H, M), for `mimo` (..., M); Re([C, C*] x) of full ones (..., H, 2 M)."""
        C = self.output_vectors(reverse=reverse).to(x.dtype)
        if x.shape[-1] != self.n_modes:
            return (torch.cat([C, C.conj()], -1) * x).real.sum(-1)
        if self.structure == "mimo":
            return 2 * (x @ C.mT).real
        return 2 * (C * x).real.sum(-1)

    def sizes(self, method: str) -> Sizes:
        """Those of `system(method)`, without discretising."""
        if self.structure == "dplr" and method == "zoh":
            return Sizes("dense", self.n_channels, 2 * self.n_modes)
        return Sizes(self.structure, self.n_channels, self.n_modes)

    def numbers_per_step(self, method: str) -> int:
        """Those of the largest part of `discretize` of one step and row."""
        found = self.n_channels * self.n_modes
        return found if self.sizes(method).structure != "dense" else 4 * self.n_modes * found

    def continuous(self) -> ContinuousSystem:
        """The parameters as they are now, as NumPy arrays."""
        with torch.no_grad():
            parts = [
                None if part is None else join(part).cpu().numpy()
                for part in (self.Lambda(), self._split(self.B), self._split(self.C), self._split(self.P))
            ]
            Lambda, B, C, P = parts
            return ContinuousSystem(Lambda, B, C, self.dt().cpu().numpy(), P)

    def extra_repr(self) -> str:
        return f"{self.structure}, n_channels={self.n_channels}, n_modes={self.n_modes}"

    def _fine(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(torch.float32 if tensor.device.type == "mps" else torch.float64)

    def _split(self, pairs: torch.Tensor | None) -> Split | None:
        return None if pairs is None else Split(*self._fine(pairs).unbind(-1))


def require_finite_parameters(layer: Any, cause: Exception | None = None) -> None:
    """Raise an `UnstableRecurrence` that names the parameters which hold NaN or infinite values, if there are any.

    Args:
        layer: a module; the error names the channel if it has a `ContinuousParameters` as `continuous`.
        cause: what was raised because of them.
    """
    bad = {name: ~torch.isfinite(p) for name, p in layer.named_parameters() if p.numel() and has_numbers(p)}
    bad = {name: where for name, where in bad.items() if bool(where.any())}
    if not bad:
        return
    name, where = next(iter(bad.items()))
    part, continuous = name.rpartition(".")[2], getattr(layer, "continuous", None)
    shared = continuous is not None and continuous.structure == "mimo"
    axis = 1 if part == "P" or (shared and part == "B") else 0
    # Λ and δt of one state for all channels belong to none of them.
    owned = continuous is not None and (not shared or part in ("B", "C", "C_reverse", "D"))
    counts = (f"{name} ({int(where.sum())} of {where.numel()} numbers)" for name, where in bad.items())
    raise UnstableRecurrence(
        f"parameters hold NaN or infinite values: {', '.join(counts)}. Training has diverged, and no later step "
        "repairs it: load the last finite state_dict, then lower the learning rate (ssm_lr of parameter_groups), clip "
        "gradients (torch.nn.utils.clip_grad_norm_) or, in liquid modes, bound the recurrence with max_gain.",
        step=0,
        channel=int(where.nonzero()[0, axis]) if owned else 0,
        input_bound=None,
    ) from cause


@torch.no_grad()
def require_finite_system(layer: Any, rate: float | torch.Tensor, cause: Exception) -> None:
    """Raise an `UnstableRecurrence` where Ā, B̄ or a power of B̄ that the mode takes leaves the range of the dtype.

    Args:
        layer: an `SSMLayer`, whose parameters are finite.
        cause: what was raised because of that.
    """
    continuous, spec = layer.continuous, layer.spec
    if layer.integrates or not has_numbers(continuous.log_dt):
        return
    require_rate(rate)
    at = continuous.discretize(layer.discretization, rate)
    kind = continuous.output_vectors().dtype
    parts = {name: part.to(kind) for name, part in at._asdict().items() if part is not None}
    if spec.mode in ("kb", "pb"):
        for p in range(2, spec.order + 1):
            parts[f"B_bar to the power {p}"] = parts["B_bar"] ** p
    shared = continuous.structure == "mimo"
    for name, part in parts.items():
        bad = (~torch.isfinite(part)).nonzero()
        if not len(bad):
            continue
        axis = 1 if name in ("P_bar", "Q_bar") or (shared and name == "B_bar") else 0
        raise UnstableRecurrence(
            f"{name} leaves the range of {continuous.dtype} in the discrete system ({len(bad)} of {part.numel()} "
            f"numbers); scale B, dt or rate down. {DIVERGED}",
            step=0,
            # Ā of one state for all channels belongs to none of them.
            channel=0 if shared and name == "A_bar" else int(bad[0, axis]),
            input_bound=None,
        ) from cause


def _pairs(array: Array) -> torch.Tensor:
    return torch.view_as_real(torch.tensor(array, dtype=torch.complex128))


def require_rate(rate: float | torch.Tensor) -> None:
    """Raise a `ShapeError` or `ParameterError` unless rate is one positive number."""
    if isinstance(rate, torch.Tensor):
        if rate.is_complex() or rate.dtype == torch.bool:
            raise ParameterError(f"rate has dtype {rate.dtype}; it is a positive factor of the step sizes.")
        if rate.ndim:
            raise ShapeError(
                f"rate has shape {tuple(rate.shape)}; it is one number. Intervals that differ from step to step go "
                "into dt."
            )
        if not has_numbers(rate):
            return
    elif not torch.compiler.is_compiling() and (isinstance(rate, bool) or not isinstance(rate, Real)):
        raise ParameterError(f"rate is {rate!r}; it is a positive factor of the step sizes.")
    if not 0 < rate < math.inf:
        raise ParameterError(f"rate is {float(rate)}; it is a positive factor of the step sizes.")


def bounded_exp(logarithm: torch.Tensor) -> torch.Tensor:
    """exp, which neither underflows nor overflows; NaN of what is not finite, which no number should hide."""
    return torch.exp(logarithm.clamp(-_LARGEST_LOG, _LARGEST_LOG)) + 0.0 * logarithm
