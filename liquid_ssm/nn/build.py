"""Models from descriptions that a file can hold: no training code, no Python objects."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from math import inf, isqrt
from numbers import Real
from typing import Any

import torch
from torch import nn

from ..errors import ParameterError, require_whole, unknown_name
from .baselines import DEFAULT_HEADS, LSTM, Transformer, width_unit
from .block import ACTIVATIONS
from .layer import SSMLayer
from .liquid_time_constant import LTC
from .model import POOLINGS, SequenceModel
from .models import MODELS
from .normalisation import NORMS
from .pair import PairModel

# Short names of the table's rows.  `s4d` is S4D-Lin, whose parameters are closed formulas and the default of diagonal
# layers here; the two of the paper's tables are `s4d_legs` and `s4d_inv`.
SHORT = {
    "liquid": "liquid_s4",
    "truncated": "liquid_s4_truncated",
    "pb": "liquid_s4_pb",
    "kb": "liquid_s4_kb",
    "s4": "s4_legs",
    "s4d": "s4d_lin",
    "liquid-s5": "liquid_s5",
}
BASELINES = ("lstm", "transformer")
MODEL_NAMES = (*SHORT, "s5", *BASELINES, *(name for name in MODELS if name != "s5"))

# Set by the configuration itself.
_OWN_OPTIONS = ("order", "bidirectional", "dt_min", "dt_max")


@dataclass(frozen=True)
class ModelConfig:
    """All that it takes to build a model.

    Args:
        model: one of `MODEL_NAMES`.
        n_inputs: features of a step, or with `tokens` the size of the vocabulary.
        n_outputs: of the head.
        tokens, n_layers, n_channels, norm, prenorm, activation, dropout, glu, pooling: as in `SequenceModel`.
        pair: two sequences per sample, as in `PairModel`.
        n_state: N of each channel; `ltc` has n_channels states.
        dt_min, dt_max, bidirectional: as in `SSMLayer`.
        order: highest liquid order of `truncated`, `kb` and `pb`; others have none.
        options: more of what the model's layer takes: `backend`, `liquid_scale`, `n_blocks`, `max_gain`, …; of `ltc`
            those of `LTC`; of `transformer`: `heads`; of `lstm`: none.

    Of `lstm` and `transformer`, `norm`, `glu`, `n_state`, `dt_min`, `dt_max`, `order` have no meaning; a `transformer`
    always sees both directions.

    Raises:
        ParameterError: an unknown name, a number outside its range, or an option that the model does not have.
    """

    model: str = "liquid"
    n_inputs: int = 1
    n_outputs: int = 2
    tokens: bool = False
    pair: bool = False
    n_layers: int = 4
    n_channels: int = 128
    n_state: int = 64
    norm: str = "layer"
    prenorm: bool = True
    activation: str = "gelu"
    dropout: float = 0.0
    glu: bool = True
    pooling: str = "mean"
    dt_min: float = 1e-3
    dt_max: float = 1e-1
    order: int = 3
    bidirectional: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, allowed in (
            ("model", MODEL_NAMES), ("norm", NORMS), ("activation", tuple(ACTIVATIONS)), ("pooling", POOLINGS),
        ):  # fmt: skip
            if getattr(self, name) not in allowed:
                raise unknown_name(name, getattr(self, name), allowed)
        for name in ("n_inputs", "n_outputs", "n_layers", "n_channels", "n_state", "order"):
            require_whole(name, getattr(self, name))
        for name in ("tokens", "pair", "prenorm", "glu", "bidirectional"):
            if not isinstance(getattr(self, name), bool):
                raise ParameterError(f"{name} is {getattr(self, name)!r}; give true or false.")
        for name in ("dropout", "dt_min", "dt_max"):
            if isinstance(getattr(self, name), bool) or not isinstance(getattr(self, name), Real):
                raise ParameterError(f"{name} is {getattr(self, name)!r}; give a number.")
        if not 0 <= self.dropout < 1:
            raise ParameterError(f"dropout is {self.dropout}; it is a share of features, at least 0 and below 1.")
        if not 0 < self.dt_min <= self.dt_max < inf:
            raise ParameterError(f"dt_min is {self.dt_min} and dt_max {self.dt_max}; needed: 0 < dt_min <= dt_max < ∞.")
        if self.pair and self.pooling == "none":
            raise ParameterError("pooling is 'none'; a model of pairs compares one vector of each: 'mean' or 'last'.")
        if self.bidirectional and self.kind in ("lstm", "ltc"):
            raise ParameterError(f"bidirectional is true; a model {self.model!r} is causal. Set it to false.")
        if not isinstance(self.options, Mapping):
            raise ParameterError(f"options are {self.options!r}; give a mapping from names to values.")
        allowed = tuple(_allowed_options(self.kind))
        for name in self.options:
            if name in _OWN_OPTIONS:
                raise ParameterError(f"options hold {name!r}, which is a field of the configuration; set that.")
            if name not in allowed:
                raise unknown_name(f"option of {self.model}", name, allowed or ("none",))
        object.__setattr__(self, "options", dict(self.options))

    @property
    def kind(self) -> str:
        """The key in `MODELS`, or `lstm` or `transformer`."""
        return SHORT.get(self.model, self.model)

    @property
    def title(self) -> str:
        """As people write it."""
        return {"lstm": "LSTM", "transformer": "Transformer"}.get(self.kind) or MODELS[self.kind].title

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as JSON has them."""
        return asdict(self)


def build(config: ModelConfig) -> Any:
    """The model, a module with `model(u, lengths=None, rate=1.0)`, new parameters drawn from torch's generator.

    Raises:
        ParameterError: numbers that do not go together, such as an odd width of a Transformer.
    """
    encoder = _encoder(config)
    return PairModel(encoder, config.n_channels, config.n_outputs) if config.pair else encoder


def _encoder(config: ModelConfig) -> Any:
    n_outputs = config.n_channels if config.pair else config.n_outputs
    shared: dict[str, Any] = {
        name: getattr(config, name) for name in ("n_layers", "n_channels", "tokens", "pooling", "dropout")
    }
    if config.kind == "lstm":
        return LSTM(config.n_inputs, n_outputs, **shared)
    shared |= {"prenorm": config.prenorm, "activation": config.activation}
    if config.kind == "transformer":
        return Transformer(config.n_inputs, n_outputs, **shared, **config.options)
    return SequenceModel(
        config.n_inputs, n_outputs, **shared, norm=config.norm, glu=config.glu, layer=lambda H: _layer(config, H)
    )


def _layer(config: ModelConfig, n_channels: int) -> nn.Module:
    row = MODELS[config.kind]
    options = dict(config.options)
    if row.make is LTC:
        made: nn.Module = row(n_channels, n_channels, **options)
        return made
    options |= {"dt_min": config.dt_min, "dt_max": config.dt_max, "bidirectional": config.bidirectional}
    if row.options["mode"] in ("truncated", "kb", "pb"):
        options["order"] = config.order
    made = row(n_channels, config.n_state, **options)
    return made


def _allowed_options(kind: str) -> list[str]:
    if kind in BASELINES:
        return ["heads"] if kind == "transformer" else []
    row = MODELS[kind]
    found = inspect.signature(row.make if row.make is LTC else SSMLayer).parameters.values()
    given = {*row.options, *_OWN_OPTIONS}
    return [each.name for each in found if each.kind is inspect.Parameter.KEYWORD_ONLY and each.name not in given]


def n_parameters(config: ModelConfig) -> int:
    """How many numbers are trained in `build(config)`, without building it at its full width, depth and state size.

    The number is linear in the depth and the modes and quadratic in the width: every tensor has at most two axes of it.

    Raises:
        ParameterError: numbers that do not go together, such as an odd width of a Transformer.
    """
    unit = _unit(config)
    if config.n_channels % unit:
        build(replace(config, n_layers=1))
    blocks: int = config.options.get("n_blocks", 1)
    require_whole("n_blocks", blocks)
    few, more = 8 * blocks, 16 * blocks
    if config.n_state > more and config.kind not in BASELINES:
        a, b = (n_parameters(replace(config, n_state=n)) for n in (few, more))
        return a + (b - a) * (config.n_state // 2 - few // 2) // (more // 2 - few // 2)
    widths = [k * unit for k in (1, 2, 3)]
    one, two = ([_counted(replace(config, n_channels=w, n_layers=n)) for w in widths] for n in (1, 2))
    by_width = [a + (config.n_layers - 1) * (b - a) for a, b in zip(one, two, strict=True)]
    return _at(by_width, config.n_channels // unit)


def width_for(config: ModelConfig, budget: int) -> int:
    """The n_channels with which a model like `config` has the number of parameters that is nearest to a budget.

    Args:
        config: its n_channels is not looked at.
        budget: parameters that are trained.

    Raises:
        ParameterError: a budget below 1.
    """
    require_whole("budget", budget)
    unit = _unit(config)
    by_width = [n_parameters(replace(config, n_channels=k * unit)) for k in (1, 2, 3)]
    # More than k² parameters of a width k, and more the wider it is.
    high = isqrt(budget) + 1
    low = 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _at(by_width, middle) >= budget else (middle + 1, high)
    return unit * min((k for k in (low - 1, low) if k), key=lambda k: abs(_at(by_width, k) - budget))


def _unit(config: ModelConfig) -> int:
    if config.kind != "transformer":
        return 1
    heads = config.options.get("heads", DEFAULT_HEADS)
    require_whole("heads", heads)
    return width_unit(heads)


def _at(values: list[int], k: int) -> int:
    """The quadratic through values at 1, 2, 3, at k (Newton's form)."""
    first, second = values[1] - values[0], values[2] - 2 * values[1] + values[0]
    return values[0] + (k - 1) * first + (k - 1) * (k - 2) // 2 * second


def _counted(config: ModelConfig) -> int:
    with torch.random.fork_rng(devices=[]):
        model = build(config)
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
