"""`SSMLayer`: a state-space model, liquid or not, as a layer: causal, streaming, trainable."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import nn

import liquid_ssm as ls

from ..apply import SELECTING, require_no_selection
from ..errors import LiquidSSMError, ParameterError, ShapeError, UnstableRecurrence, require_whole, unknown_name
from ..initialize import DEFAULT_DISCRETIZATION, INITIALIZATIONS
from ..modes import require_mode
from ..problem import DEFAULT_ORDER, ModeSpec
from ..registry import AUTO, CERTIFIED_ONLY, FIRST, backend_names
from ..systems import System
from ..tensors import HALVES, all_finite_there, has_numbers, narrowed, require_tensor
from .discretize import ADAMS_BASHFORTH, INTEGRATORS, METHODS
from .latest import Latest
from .multistep import MultistepState, scan_by_steps, starting_state
from .padding import mask, require_padding, run_padded
from .parameters import PARTS, ContinuousParameters, require_finite_parameters, require_finite_system
from .sampled_compiled import BACKEND as COMPILED
from .sampled_compiled import has_kernels
from .sampled_correlations import require_one_interval
from .sampled_correlations import takes as takes_correlations
from .sampling import require_intervals
from .stability import clamped, layer_limit, require_max_gain, sampled_limit

_STRUCTURE_OF = {name: "diagonal" for name in INITIALIZATIONS} | {
    "legs": "dplr", "fout": "dplr", "legs/fout": "dplr", "s5": "mimo",
}  # fmt: skip
# A power of two: the linear part stays what it is in every bit.
LIQUID_SCALE = 0.125
_INIT_OF = {"diagonal": "s4d-lin", "dplr": "legs", "mimo": "s5"}

State = Any  # a complex tensor, or liquid_ssm.State


class SSMLayer(nn.Module):
    """H state-space systems side by side, one per channel: u (batch, length, H) -> y (batch, length, H).

    y_k = 2 Re(C x_k) + D u_k with x_k of the mode: `liquid`, x_k = (Ā + diag(B̄) u_k) x_{k−1} + B̄ u_k (Eq. 11), or its
    approximations and the linear model (docs/model.md).  Every mode is causal, and `step` and `prefill` give what
    `forward` gives.

    Args:
        n_channels: H.
        n_state: N; N/2 modes are stored, one of each conjugate pair, and of an odd N, as in the published code,
            (N − 1)/2.
        mode, order, correlations, window: the mode, as in `liquid_ssm.apply`.
        structure: `diagonal` (S4D), `dplr` (S4) or `mimo` (S5: one state for all channels); that of `init` if None.
        init: initial parameters, one of `liquid_ssm.initialize`; `s4d-lin`, `legs` and `s5` by structure if None.  Or
            a `ContinuousSystem` with the parameters themselves.
        discretization: `euler`, `bilinear` or `zoh`; None for that of `init`.  In mode `liquid` also `adams-bashforth`
            and `bilinear-exact`, which integrate Eq. 10 itself (`liquid_ssm.integrators`), step by step; nothing is
            selected for them.
        bidirectional: adds the same system, with output vectors of its own, run from the end to the start: y_k then
            depends on every input, and there is no state and no `step`.
        reverse_lag: the second direction of y_k begins at u_{k + reverse_lag}: at 0, the present input; at 1, the next
            one, as in the published code, so that only the first direction and D have the present one.
        backend, tolerance, recheck: as in `liquid_ssm.apply`.
        dt_min, dt_max: range of the initial step sizes [time].
        liquid_scale: initial size of the liquid term: B of `init` times this, C divided by it, which leaves the linear
            part as it is and multiplies order p by the power p − 1.  None: 1/8 in liquid modes, so that inputs of
            size 1 whose mean is not zero do not make states grow for thousands of steps; but 1 for `legs`, which
            bears them, for mode `s4`, and where init is a system.
        n_blocks: blocks of `s5`.
        frozen: parameters that are not trained: some of `Lambda`, `P`, `B`, `C`, `dt`, `D`.
        feedthrough: with D, initially standard normal.
        max_gain: bound of |ā + b̄ u|: the input of the recurrence, not that of D u, is clamped to what keeps every mode
            within it, with no gradient beyond (`liquid_ssm.nn.stability.input_limit`); above the largest |ā|, for
            `dplr` above 1.  1 keeps every state bounded, and cuts more than that needs.  None: no clamp.
        seed: of the initial parameters; None draws one from torch's generator.

    Attributes:
        continuous: the parameters but D, a `ContinuousParameters`.
        D: (H,), or None.

    Raises:
        ParameterError: an unknown name, a number outside its range, or options that exclude each other.
    """

    D: nn.Parameter | None

    def __init__(
        self,
        n_channels: int,
        n_state: int = 64,
        *,
        mode: str = "liquid",
        order: int = DEFAULT_ORDER,
        correlations: str = "all",
        window: int | None = None,
        structure: str | None = None,
        init: str | ls.ContinuousSystem | None = None,
        discretization: str | None = None,
        bidirectional: bool = False,
        reverse_lag: int = 0,
        backend: str | ls.backend.Backend | None = "auto",
        tolerance: float | None = None,
        recheck: float = 0.0,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        liquid_scale: float | None = None,
        n_blocks: int = 1,
        frozen: Collection[str] = (),
        feedthrough: bool = True,
        max_gain: float | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        _require_selection(backend, tolerance, recheck)
        for option, value in (("bidirectional", bidirectional), ("feedthrough", feedthrough)):
            if not isinstance(value, bool):
                raise ParameterError(f"{option} is {value!r}; give True or False.")
        if seed is None:
            seed = int(torch.randint(2**31, ()))
        if isinstance(init, ls.ContinuousSystem):
            system = _fitting(init, n_channels, n_state, structure)
        else:
            name = _init_of(structure, init)
            if liquid_scale is None and mode != "s4" and name != "legs":
                liquid_scale = LIQUID_SCALE
            system = ls.initialize(
                name, n_channels=n_channels, n_state=n_state, dt_min=dt_min, dt_max=dt_max, seed=seed, n_blocks=n_blocks
            )
            discretization = discretization or DEFAULT_DISCRETIZATION[name]
        if (discretization := discretization or "bilinear") not in (*METHODS, *INTEGRATORS):
            raise unknown_name("discretization", discretization, (*METHODS, *INTEGRATORS))
        if liquid_scale is not None:
            system = _scaled(system, liquid_scale)
        self.spec = ModeSpec(mode, order, correlations, window)
        require_mode(system.discretize(discretization) if discretization in INTEGRATORS else system, self.spec)
        self.n_state = n_state
        self.discretization = discretization
        if reverse_lag not in (0, 1) or (reverse_lag and not bidirectional):
            raise ParameterError(f"reverse_lag is {reverse_lag}; it is 0 or, with bidirectional=True, 1.")
        self.bidirectional, self.reverse_lag = bidirectional, reverse_lag
        self.backend, self.tolerance, self.recheck = backend, tolerance, recheck
        reverse = None
        random = np.random.default_rng([seed, n_channels])
        if bidirectional:
            size = np.sqrt(0.5) / (liquid_scale or 1.0)
            reverse = torch.tensor(random.normal(scale=size, size=(*system.C.shape, 2)))
        if isinstance(frozen, str) or not isinstance(frozen, Collection):
            raise ParameterError(f"frozen is {frozen!r}; give a tuple of names, such as ('Lambda',).")
        for part in frozen:
            if part not in (*PARTS, "D"):
                raise unknown_name("part", part, (*PARTS, "D"))
        self.continuous = ContinuousParameters(
            system, frozen=[part for part in frozen if part != "D"], C_reverse=reverse
        )
        D = None
        if feedthrough:
            values = torch.tensor(random.normal(size=n_channels), dtype=self.continuous.log_dt.dtype)
            D = nn.Parameter(values, requires_grad="D" not in frozen)
        self.register_parameter("D", D)
        self._latest = Latest()
        self._require_backend()
        self.max_gain = max_gain
        require_max_gain(self)

    @property
    def n_channels(self) -> int:
        """Features of inputs and outputs, H."""
        return self.continuous.n_channels

    @property
    def structure(self) -> str:
        """`diagonal`, `dplr` or `mimo`."""
        return self.continuous.structure

    @property
    def integrates(self) -> bool:
        """Whether steps are those of an integrator, without a discrete system: `adams-bashforth`, `bilinear-exact`."""
        return self.discretization in INTEGRATORS

    @property
    def linear_discretization(self) -> str:
        """The discretisation of the linear part: of an integrator `bilinear`, which that of `bilinear-exact` is."""
        return "bilinear" if self.integrates else self.discretization

    def system(self, rate: float | torch.Tensor = 1.0, *, reverse: bool = False) -> System:
        """The discrete system of the parameters as they are now, with gradients to them.

        Args:
            rate: factor of every step size.
            reverse: that of the other direction.

        Raises:
            ParameterError: an integrator has none.
        """
        return self.continuous.system(self.discretization, rate, reverse=reverse)

    def forward(
        self,
        u: torch.Tensor,
        lengths: torch.Tensor | None = None,
        state: State | None = None,
        rate: float | torch.Tensor = 1.0,
        dt: torch.Tensor | None = None,
        *,
        padding: str = "right",
        return_state: bool = False,
        _real: torch.Tensor | None = None,
    ) -> Any:
        """Outputs of whole sequences.

        Args:
            u: (batch, length, H); bfloat16 and float16 are computed in float32.
            lengths: true length of each row, (batch,) whole numbers; what lies outside is not looked at, and y is 0
                there.  None: all of it.
            state: x_{-1}, as an earlier call or `initial_state` returned it; None is rest.
            rate: factor of every step size, 2 for a signal that is sampled half as often.
            dt: intervals between samples relative to those of training, (batch, length): entry k is the time from
                sample k−1 to sample k.  Step by step, without selection, whose options are refused.  Modes `s4`,
                `liquid`, `truncated`, and `kb` and `pb` without window, but `kb` over all index tuples only for
                `diagonal`.
            padding: `right` or `left`: where rows shorter than the longest are padded.
            return_state: also return the state after the last true input of each row.

        Returns:
            y (batch, length, H) in u's dtype, or (y, state).

        Raises:
            ShapeError, DTypeError, ParameterError: what was given does not fit, or is not finite.
            UnstableRecurrence: the state or the output left the range of the dtype, or a parameter is no longer finite.
            BackendRejected, BackendUnavailable, NotCertified: as `liquid_ssm.apply`.

        Accuracy: that of `liquid_ssm.apply` for `system(rate)`, whose parameters are computed in float64 and rounded
            once to the layer's dtype; D u adds one product and one sum.  With dt, dt · rate is formed in float64.
        """
        self._check(u)
        require_padding(padding)
        if dt is not None:
            require_tensor("dt", dt, whole=True)
        self._require_own(state)
        if self.bidirectional and (state is not None or return_state):
            raise ParameterError("a bidirectional layer has no state; leave state and return_state out.")
        half = u.dtype in HALVES
        x = u.float() if half else u
        with torch.autocast(u.device.type, enabled=False):
            if lengths is None:
                y, final = self._run(x, state, rate, dt, return_state)
            else:
                real = mask(lengths, u.shape[:2], padding, u.device) if _real is None else _real
                x = x.masked_fill(~real[..., None], 0.0)
                rests = self.discretization != ADAMS_BASHFORTH
                if self.bidirectional and not rests:
                    raise ParameterError(
                        f"a bidirectional layer with {ADAMS_BASHFORTH} takes no lengths: from the end to the start "
                        "its first step would follow one of padding. Use bilinear-exact, or give rows of one length."
                    )
                y, final = run_padded(self._run, x, real, padding, state, rate, dt, return_state, rests=rests)
            if self.D is not None:
                y = torch.addcmul(y, self.D.to(y.dtype), x)
            if self.D is not None or self.bidirectional:
                self._require_finite(y)
        y = narrowed(y, u.dtype) if half else y
        return (y, final) if return_state else y

    def prefill(
        self,
        chunk: torch.Tensor,
        state: State | None = None,
        rate: float | torch.Tensor = 1.0,
        dt: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, State]:
        """The next piece of a sequence: chunk (batch, any length, H) and the state before it give y and that after.

        Raises:
            others: as `forward`.
        """
        y, final = self(chunk, state=state, rate=rate, dt=dt, return_state=True)
        return y, final

    def step(
        self,
        u_k: torch.Tensor,
        state: State | None = None,
        rate: float | torch.Tensor = 1.0,
        dt: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, State]:
        """One time step: u_k (batch, H) and the state before it give y_k (batch, H) and the state after it.

        Without gradients the discrete system is kept from step to step, for as long as no parameter has changed in any
        bit.  dt is the interval before this sample, (batch,).

        Raises:
            others: as `forward`.
        """
        require_tensor("u_k", u_k)
        if u_k.ndim != 2 or u_k.shape[1] != self.n_channels:
            raise ShapeError(f"u_k has shape {tuple(u_k.shape)}; step takes (batch, {self.n_channels}).")
        if dt is not None:
            require_tensor("dt", dt, whole=True)
            if tuple(dt.shape) != u_k.shape[:1]:
                raise ShapeError(f"dt has shape {tuple(dt.shape)}; one interval per row is ({len(u_k)},).")
        self._require_own(state)
        if dt is None and not torch.is_grad_enabled() and not self.bidirectional and not self.integrates:
            try:
                found = self._latest.step(self, u_k, state, rate)
            except LiquidSSMError as error:
                require_one_interval(state)
                require_finite_parameters(self, error)
                if isinstance(error, ParameterError):
                    require_finite_system(self, rate, error)
                raise
            if found is not None:
                return found
        y, final = self(u_k[:, None], state=state, rate=rate, dt=None if dt is None else dt[:, None], return_state=True)
        return y[:, 0], final

    def initial_state(self, batch: int) -> State:
        """Rest: the state before the first input.

        Raises:
            ParameterError: the layer is bidirectional, and has none, or batch is no whole number from 0.
        """
        if self.bidirectional:
            raise ParameterError("a bidirectional layer has no state; leave state and return_state out.")
        require_whole("batch", batch, 0)
        like = self.continuous.log_dt.new_empty((batch, self.n_channels, 0), dtype=self.continuous.dtype)
        return self._starting_state(like, None)

    def _starting_state(self, u: torch.Tensor, state: State | None) -> State:
        """The state before the first step of u (batch, H, L), in the form that the layer carries."""
        if self.discretization == ADAMS_BASHFORTH:
            return starting_state(self.continuous, u, state)
        return ls.modes.initial_state(self.continuous.sizes(self.discretization), self.spec, u, state)

    def extra_repr(self) -> str:
        text = f"{self.n_channels}, n_state={self.n_state}, {self.spec.label}, {self.structure}, {self.discretization}"
        return text if self.max_gain is None else f"{text}, max_gain={self.max_gain}"

    def _run(
        self,
        x: torch.Tensor,
        state: State | None,
        rate: float | torch.Tensor,
        dt: torch.Tensor | None,
        return_state: bool,
    ) -> tuple[torch.Tensor, State | None]:
        if torch.compiler.is_compiling():
            return self._directions(x, state, rate, dt, return_state)
        # Parameters are looked at only once something has failed: where all is well, it costs nothing.
        try:
            return self._directions(x, state, rate, dt, return_state)
        except LiquidSSMError as error:
            require_finite_parameters(self, error)
            if dt is None and isinstance(error, ParameterError):
                require_finite_system(self, rate, error)
            raise

    def _directions(
        self,
        x: torch.Tensor,
        state: State | None,
        rate: float | torch.Tensor,
        dt: torch.Tensor | None,
        return_state: bool,
    ) -> tuple[torch.Tensor, State | None]:
        u = x.transpose(1, 2)
        y, final = self._direction(u, state, rate, dt, return_state, reverse=False)
        if self.bidirectional:
            if dt is not None:
                raise ParameterError("a bidirectional layer takes no dt: from the end to the start, intervals shift.")
            back, _ = self._direction(u.flip(-1), None, rate, None, False, reverse=True)
            back, lag = back.flip(-1), self.reverse_lag
            y = y + (nn.functional.pad(back, (0, lag))[..., lag:] if lag else back)
        # What comes after, its gradients above all, is up to ten times slower on a transposed view.  The compiled
        # recurrences give y in u's memory order: then nothing is copied.
        return y.transpose(1, 2).contiguous(), final

    def _direction(
        self,
        u: torch.Tensor,
        state: State | None,
        rate: float | torch.Tensor,
        dt: torch.Tensor | None,
        return_state: bool,
        *,
        reverse: bool,
    ) -> tuple[torch.Tensor, State | None]:
        if dt is not None or self.integrates:
            self._require_backend(sampled=True)
            every = self.continuous.intervals(u, rate, dt)
            if self.max_gain is not None:
                require_intervals(u, every)
                u = clamped(u, sampled_limit(self, every).to(u.dtype))
            how = self.discretization, self.spec
            return scan_by_steps(
                self.continuous, *how, u, every, state, rate=rate, reverse=reverse, backend=self.backend
            )
        require_one_interval(state)
        system = self.system(rate, reverse=reverse)
        if self.max_gain is not None:
            u = clamped(u, layer_limit(self, system).to(u.dtype)[:, None])
        result = ls.apply(
            system,
            u,
            mode=self.spec.mode,
            order=self.spec.order,
            correlations=self.spec.correlations,
            window=self.spec.window,
            backend=self.backend,
            tolerance=self.tolerance,
            recheck=self.recheck,
            state=state,
            return_state=return_state,
        )
        return result if return_state else (result, None)

    def _require_backend(self, *, sampled: bool = False) -> None:
        """Raise a `ParameterError` for options of selection where nothing is selected: integrators, steps with dt."""
        if not (self.integrates or sampled):
            return
        method, spec = self.discretization, self.spec
        kernels = has_kernels(self.structure, method) and not takes_correlations(self.structure, method, spec)
        named = ("torch", *((COMPILED,) if kernels else ()))
        for name, value, allowed in (
            ("backend", self.backend, (None, AUTO, FIRST, *named)),
            ("tolerance", self.tolerance, (None,)),
            ("recheck", self.recheck, (0,)),
        ):
            if value not in allowed:
                where = f"discretization {method!r}" if self.integrates else "steps with dt"
                other = f"discretise with {', '.join(METHODS)}" if self.integrates else "give one interval as rate"
                raise ParameterError(
                    f"{name} is {value!r}, but nothing is selected for {where}; leave {name} out"
                    f"{', name ' + ' or '.join(named) if name == 'backend' else ''}, or {other}."
                )

    def _require_own(self, state: Any) -> None:
        if isinstance(state, MultistepState) and self.discretization != ADAMS_BASHFORTH:
            raise ParameterError(
                f"state is that of a layer with {ADAMS_BASHFORTH}; this one discretises with {self.discretization}. "
                "Give a state that it returned itself, or None."
            )

    def _require_finite(self, y: torch.Tensor) -> None:
        """Raise an `UnstableRecurrence` unless y is finite, the sum of D u and of finite outputs of recurrences."""
        if not has_numbers(y) or all_finite_there(y.detach()):
            return
        require_finite_parameters(self)
        bad = (~torch.isfinite(y)).nonzero()
        _, step, channel = bad[bad[:, 1].argmin()].tolist()
        raise UnstableRecurrence(
            f"the output left the range of {y.dtype} at step {step}, channel {channel}, in the sum of D u and what the "
            "recurrences give; scale u or D down.",
            step=step,
            channel=channel,
            input_bound=None,
        )

    def _check(self, u: torch.Tensor) -> None:
        require_tensor("u", u)
        if u.ndim != 3 or u.shape[2] != self.n_channels:
            raise ShapeError(
                f"u has shape {tuple(u.shape)}; this layer takes (batch, length, {self.n_channels}). "
                + ("Add the missing axis." if u.ndim != 3 else "Swap axes of a (batch, channels, length) signal.")
            )


def _require_selection(backend: Any, tolerance: Any, recheck: Any) -> None:
    """Raise a `ParameterError` for an unknown backend, or options of selection that are none or do not go with it."""
    if not (backend is None or isinstance(backend, (str, ls.backend.Backend))):
        raise ParameterError(f"backend is {backend!r}; give the name of a backend, a Backend, or 'auto'.")
    # A name may have a dtype after a colon.
    if isinstance(backend, str) and backend not in (*SELECTING, FIRST) and _name(backend) not in backend_names():
        raise unknown_name("backend", backend, (AUTO, CERTIFIED_ONLY, FIRST, *backend_names()))
    if tolerance is not None and not (_is_number(tolerance) and 0 < tolerance < math.inf):
        raise ParameterError(f"tolerance is {tolerance!r}; give a positive relative error, such as 1e-5, or None.")
    if not (_is_number(recheck) and 0 <= recheck <= 1):
        raise ParameterError(f"recheck is {recheck!r}; it is a share of calls, from 0 to 1, such as 1e-4.")
    if backend not in SELECTING:
        require_no_selection(backend, tolerance, recheck)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _name(backend: str) -> str:
    return backend.partition(":")[0]


def _fitting(system: ls.ContinuousSystem, n_channels: int, n_state: int, structure: str | None) -> ls.ContinuousSystem:
    if (system.n_channels, system.n_state) != (n_channels, n_state):
        raise ParameterError(
            f"n_channels is {n_channels} and n_state {n_state}, but init has {system.n_channels} channels and "
            f"{system.n_state} states; give the same numbers."
        )
    if structure not in (None, system.structure):
        raise ParameterError(f"structure is {structure!r}, but init is {system.structure!r}; leave structure out.")
    return system


def _scaled(system: ls.ContinuousSystem, scale: float) -> ls.ContinuousSystem:
    if not _is_number(scale) or not 0 < scale < math.inf:
        raise ParameterError(f"liquid_scale is {scale!r}; it is a positive factor of B, such as 0.125.")
    return replace(system, B=scale * system.B, C=system.C / scale)


def _init_of(structure: str | None, init: str | None) -> str:
    if structure is not None and structure not in _INIT_OF:
        raise unknown_name("structure", structure, tuple(_INIT_OF))
    if init is None:
        return _INIT_OF[structure or "diagonal"]
    if init not in INITIALIZATIONS:
        raise unknown_name("init", init, INITIALIZATIONS)
    if structure not in (None, _STRUCTURE_OF[init]):
        fitting = [name for name, found in _STRUCTURE_OF.items() if found == structure]
        raise ParameterError(
            f"init {init!r} is of structure {_STRUCTURE_OF[init]!r}, not {structure!r}; leave structure out, or take "
            f"init from: {', '.join(fitting)}."
        )
    return init
