"""Layers without complex numbers, for `torch.export` and ONNX: one time step, and whole sequences."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..complex_numbers import Number, Split, is_complex
from ..errors import BackendUnavailable, DTypeError, ParameterError, ShapeError, require_whole
from ..modes import State, state_shapes
from .discretize import ADAMS_BASHFORTH, INTEGRATORS
from .layer import SSMLayer
from .multistep import MultistepState
from .parameters import require_rate
from .split_integrators import ExactStep, MultistepStep, arithmetic_of
from .split_real import RealArithmetic, parts_of
from .stability import clamped, layer_limit, sampled_limit

Parts = tuple[torch.Tensor, ...]


class SplitReal(nn.Module):
    """What `SplitRealStep` and `SplitRealForward` share: the constants of a layer, and the parts of a state.

    A state is a tuple of real tensors: `x`, with a last axis of 2, (real, imaginary), and for some modes `sums` and
    `inputs` (`liquid_ssm.State`).  `split_state` and `join_state` go between it and the state of the layer.

    Args:
        layer: what is exported; not bidirectional.
        rate: factor of every step size.
        frozen: Ā, B̄, C and D are computed once, from the parameters as they are now, and kept as buffers.  Otherwise
            the layer's parameters are those of this module, every call discretises them, and gradients reach them.

    Raises:
        ParameterError: a bidirectional layer; frozen=False for `zoh` of a `dplr` layer, or with `max_gain`.

    Accuracy: the parameters are rounded as those of `layer.system(rate)`; every product and sum after that is rounded
        by itself, in the layer's dtype.  Powers of B̄ and kernels of windows are computed in float64 and rounded once.
        Nothing looks for NaN: a recurrence that leaves the range of its dtype gives inf and NaN.
    """

    C_re: torch.Tensor
    D: torch.Tensor | None
    limit: torch.Tensor | None

    def __init__(self, layer: SSMLayer, rate: float = 1.0, frozen: bool = True) -> None:
        super().__init__()
        if layer.bidirectional:
            raise ParameterError(
                "a bidirectional layer has neither state nor step; export a layer with bidirectional=False."
            )
        if layer.continuous.sizes(layer.discretization).structure == "dense" and not frozen:
            raise ParameterError(
                "frozen=False discretises in the graph, and zoh of a dplr layer is the exponential of a complex "
                "matrix; leave frozen=True, or give the layer discretization euler or bilinear."
            )
        if layer.max_gain is not None and not frozen:
            raise ParameterError("the clamp of max_gain is a constant of the graph; leave frozen=True.")
        require_rate(rate)
        self.rate, self.frozen, self.discretization = float(rate), frozen, layer.discretization
        self.n_channels = layer.n_channels
        self.shapes, self.label = _shapes(layer, 1), layer.spec.label
        self._constants: dict[str, tuple[str, ...]] = {}
        self.arithmetic: RealArithmetic | ExactStep | MultistepStep
        with torch.no_grad():
            if layer.integrates:
                self.arithmetic = arithmetic_of(layer, self.rate)
                parameters = layer.continuous.named(self.rate)
                limit = None if layer.max_gain is None else sampled_limit(layer, torch.full((1, 1), self.rate))[0, :, 0]
            else:
                system: Any = layer.system(rate)
                self.arithmetic = RealArithmetic(layer.spec, system.structure, system.weight)
                parameters = system.parameters
                limit = None if layer.max_gain is None else layer_limit(layer, system)
        dtype = layer.continuous.dtype
        self.register_buffer("limit", None if limit is None else limit.to(dtype))
        if not frozen:
            self.continuous = layer.continuous
            self.register_parameter("D", layer.D)
            return
        for name, value in self.arithmetic.constants(parameters).items():
            parts = {f"{name}_re": value.real, f"{name}_im": value.imag} if is_complex(value) else {name: value}
            self._constants[name] = tuple(parts)
            for key, part in parts.items():
                self.register_buffer(key, part.detach().clone(memory_format=torch.contiguous_format))
        self.register_buffer("D", None if layer.D is None else layer.D.detach().to(dtype).clone())
        self.eval()

    @property
    def state_names(self) -> tuple[str, ...]:
        """The parts of a state in their order: `x`, and for some modes `sums` and `inputs`."""
        return tuple(self.shapes)

    @property
    def dtype(self) -> torch.dtype:
        """Of inputs, states and outputs."""
        return self.C_re.dtype if self.frozen else self.continuous.dtype

    def initial_state(self, batch: int) -> Parts:
        """Rest."""
        like = self.continuous.C if not self.frozen else self.C_re
        return tuple(
            torch.full(
                self._shape(name, batch), torch.inf if name == "interval" else 0.0, dtype=self.dtype, device=like.device
            )
            for name in self.state_names
        )

    def constants(self) -> dict[str, Number]:
        """What the arithmetic of a step takes."""
        if self.frozen:
            held = {name: [getattr(self, key) for key in keys] for name, keys in self._constants.items()}
            return {name: Split(*parts) if len(parts) == 2 else parts[0] for name, parts in held.items()}
        if self.discretization in INTEGRATORS:
            return self.arithmetic.constants(self.continuous.named(self.rate))
        found = self.continuous.discretize(self.discretization, self.rate, split=True)._asdict()
        found["C"] = Split(*self.continuous.C.unbind(-1))
        # Copies: tensors that share memory do not go into a loop.
        rounded = {
            name: part.map(lambda value: value.to(self.dtype, copy=True))
            for name, part in found.items()
            if part is not None
        }
        return self.arithmetic.constants(rounded)

    def _held(self, u: torch.Tensor, parts: Parts) -> Any:
        if u.shape[-1] != self.n_channels:
            raise ShapeError(f"u has shape {tuple(u.shape)}; its last axis must be the {self.n_channels} channels.")
        parts = parts or self.initial_state(u.shape[0])
        if len(parts) != len(self.shapes):
            raise ShapeError(f"{len(parts)} parts of a state were given; {self.label} has {', '.join(self.shapes)}.")
        for name, value in zip(("u", *self.shapes), (u, *parts), strict=True):
            if value.dtype != self.dtype:
                raise DTypeError(f"{name} has dtype {value.dtype}; this export computes in {self.dtype}. Convert it.")
        found: dict[str, Any] = dict(zip(self.shapes, parts, strict=True))
        for name, part in found.items():
            if tuple(part.shape) != self._shape(name, u.shape[0]):
                raise ShapeError(f"{name} has shape {tuple(part.shape)}; it must be {self._shape(name, u.shape[0])}.")
        for name in self.arithmetic.complex_parts:
            found[name] = Split(*found[name].unbind(-1))
        return self.arithmetic.state_type(**found)

    def _step(self, at: dict[str, Number], u: torch.Tensor, held: Any) -> tuple[torch.Tensor, Any]:
        y, held = self.arithmetic.step(at, u if self.limit is None else clamped(u, self.limit), held)
        return y if self.D is None else y + self.D.to(self.dtype) * u, held

    def _dynamic_state(self) -> tuple[Any, ...]:
        # Not by the name of u's axis: exporters find that the two are one, and would say that a name is not used.
        return ({0: torch.export.Dim.DYNAMIC},) * len(self.shapes)

    def _shape(self, name: str, batch: int) -> tuple[int, ...]:
        shape = (batch, *self.shapes[name][1:])
        return (*shape, 2) if name in self.arithmetic.complex_parts else shape


class SplitRealStep(SplitReal):
    """`SSMLayer.step` in real tensors: u_k (batch, H) and the parts of the state give y_k (batch, H) and the parts.

    For every mode, structure and discretisation.  The graph does not grow with a window.
    """

    def forward(self, u_k: torch.Tensor, *state: torch.Tensor) -> Parts:
        """(y_k, *state) from u_k and the state before it; without a state, from rest.

        Raises:
            ShapeError, DTypeError: what was given does not fit.
        """
        if u_k.ndim != 2:
            raise ShapeError(f"u_k has shape {tuple(u_k.shape)}; a step takes (batch, {self.n_channels}).")
        y, held = self._step(self.constants(), u_k, self._held(u_k, state))
        return (y, *parts_of(held))

    def dynamic_shapes(self) -> tuple[Any, ...]:
        """For `torch.export.export` and `torch.onnx.export`: any batch."""
        return {0: torch.export.Dim("batch")}, self._dynamic_state()


class SplitRealForward(SplitReal):
    """`SSMLayer.prefill` in real tensors: u (batch, length, H) and the parts of a state give y and the parts after it.

    The steps of `SplitRealStep` one after the other: length times their work, and memory for y and one state.

    Args:
        layer, rate, frozen: as in `SplitReal`.
        length: None exports a loop over any length, torch's `scan` and ONNX's `Scan`; with frozen=False under
            `torch.no_grad()`.  A number exports that many steps one after the other, for u of that length, a graph
            that every runtime takes.
    """

    def __init__(self, layer: SSMLayer, rate: float = 1.0, frozen: bool = True, *, length: int | None = None) -> None:
        super().__init__(layer, rate, frozen)
        if length is not None:
            require_whole("length", length)
        self.length = length

    def forward(self, u: torch.Tensor, *state: torch.Tensor) -> Parts:
        """(y, *state) from u and the state before it; without a state, from rest.

        Raises:
            ShapeError, DTypeError: what was given does not fit.
            BackendUnavailable: exported for any length by a torch without `scan`.
        """
        if u.ndim != 3:
            raise ShapeError(f"u has shape {tuple(u.shape)}; a sequence is (batch, length, {self.n_channels}).")
        if self.length is not None and u.shape[1] != self.length:
            raise ShapeError(f"u has {u.shape[1]} steps; this export is for {self.length}. Leave length out for any.")
        at, held = self.constants(), self._held(u, state)
        if self.length is None and torch.compiler.is_compiling():
            return self._scanned(at, u, held)
        y = []
        for u_k in u.unbind(1):
            y_k, held = self._step(at, u_k, held)
            y.append(y_k)
        return (torch.stack(y, 1) if y else torch.zeros_like(u), *parts_of(held))

    def dynamic_shapes(self) -> tuple[Any, ...]:
        """For `torch.export.export` and `torch.onnx.export`: any batch, and any length if it is None."""
        u = {0: torch.export.Dim("batch")}
        return u if self.length is not None else u | {1: torch.export.Dim("length")}, self._dynamic_state()

    def _scanned(self, at: dict[str, Number], u: torch.Tensor, held: Any) -> Parts:
        try:
            from torch._higher_order_ops.scan import scan
        except ImportError as missing:
            raise BackendUnavailable(
                f"torch {torch.__version__} has no scan, which sequences of any length are exported with; give length, "
                "or upgrade torch."
            ) from missing

        def combine(parts: Parts, u_k: torch.Tensor) -> tuple[Parts, torch.Tensor]:
            y_k, after = self._step(at, u_k, self._held(u_k, parts))
            return parts_of(after), y_k

        final, y = scan(combine, parts_of(held), u.transpose(0, 1))
        return (y.transpose(0, 1), *final)


def split_state(layer: SSMLayer, state: Any) -> Parts:
    """A state of the layer in the parts that `SplitReal` takes.

    Args:
        layer: whose state it is.
        state: as its `step`, `forward` or `initial_state` returned it, or x_{-1}.

    Raises:
        ShapeError, ParameterError: no state of this layer.
    """
    x = state.x if isinstance(state, (State, MultistepState)) else state
    if not isinstance(x, torch.Tensor) or x.ndim == 0:
        raise ParameterError(f"state is a {type(state).__name__}; give what step, forward or initial_state returned.")
    like = layer.continuous.log_dt.new_empty((x.shape[0], layer.n_channels, 0), dtype=layer.continuous.dtype)
    whole = layer._starting_state(like, state)
    parts = [part for part in whole if part is not None] if isinstance(whole, tuple) else [whole]
    return tuple(torch.view_as_real(part.resolve_conj()) if part.is_complex() else part for part in parts)


def join_state(layer: SSMLayer, parts: Parts) -> Any:
    """The inverse of `split_state`.

    Raises:
        ShapeError: other parts than those of a state of this layer.
    """
    shapes = _shapes(layer, len(parts[0]) if parts and parts[0].ndim else 0)
    wanted = {name: (*shape, 2) if name in ("x", "f") else shape for name, shape in shapes.items()}
    found = [tuple(part.shape) for part in parts]
    if found != list(wanted.values()):
        raise ShapeError(f"the state of {layer.spec.label} has the parts {wanted}; the shapes given are {found}.")
    held: dict[str, Any] = dict(zip(wanted, parts, strict=True))
    held |= {name: torch.view_as_complex(held[name].contiguous()) for name in ("x", "f") if name in held}
    if layer.discretization == ADAMS_BASHFORTH:
        return MultistepState(**held)
    return State(**held) if layer.spec.has_correlations else held["x"]


def _shapes(layer: SSMLayer, batch: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the parts of a state, complex ones as they are."""
    shapes = state_shapes(layer.continuous.sizes(layer.discretization), layer.spec, batch)
    return shapes | {"f": shapes["x"], "interval": (batch,)} if layer.discretization == ADAMS_BASHFORTH else shapes
