"""What is to be computed: a mode, its options, and the shapes, as one frozen value."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Literal, get_args

from .errors import ParameterError, unknown_name

Mode = Literal["s4", "liquid", "truncated", "kb", "pb"]
Correlations = Literal["all", "adjacent"]

MODES: tuple[str, ...] = get_args(Mode)
CORRELATIONS: tuple[str, ...] = get_args(Correlations)
STRUCTURES = ("diagonal", "dplr", "dense", "mimo", "integrator")
DTYPES = ("float32", "float64")

DEFAULT_ORDER = 3  # the paper's recommendation, Appendix C


@dataclass(frozen=True)
class ModeSpec:
    """A mode of the model with its options.

    Args:
        mode: `s4` (Eq. 2), `liquid` (Eq. 11), `truncated` (Eq. 12), `kb` (Eq. 14) or `pb` (Eq. 15).
        order: highest liquid order P >= 1; `truncated`, `kb` and `pb` only.
        correlations: `all` or `adjacent` index tuples; `kb` and `pb` only.
        window: how many of the newest inputs a correlation may use, >= order; `kb` and `pb` only.

    Raises:
        ParameterError: an unknown name, an order below 1, or a window below the order.
    """

    mode: str
    order: int = DEFAULT_ORDER
    correlations: str = "all"
    window: int | None = None

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise unknown_name("mode", self.mode, MODES)
        if self.correlations not in CORRELATIONS:
            raise unknown_name("correlations", self.correlations, CORRELATIONS)
        for name in ("order", "window"):
            value = getattr(self, name)
            if value is None and name == "window":
                continue
            if isinstance(value, bool) or not isinstance(value, Integral):
                raise ParameterError(f"{name} is {value!r}; it must be a whole number.")
            object.__setattr__(self, name, int(value))
        if self.order < 1:
            raise ParameterError(f"order is {self.order}; the lowest order is 1 (the linear term).")
        if self.window is not None:
            if self.mode not in ("kb", "pb"):
                raise ParameterError(
                    f"window applies to the modes kb and pb, not to {self.mode!r}; leave it out or choose one of them."
                )
            if self.window < self.order:
                raise ParameterError(
                    f"window is {self.window} but order is {self.order}: {self.order} different inputs do not fit "
                    f"into {self.window}. Give window >= order."
                )

    @property
    def has_order(self) -> bool:
        return self.mode in ("truncated", "kb", "pb")

    @property
    def has_correlations(self) -> bool:
        return self.mode in ("kb", "pb")

    @property
    def label(self) -> str:
        """Short name for tables, for instance `kb(3, adjacent, window 64)`."""
        if not self.has_order:
            return self.mode
        parts = [str(self.order)]
        if self.has_correlations:
            parts.append(self.correlations)
        if self.window is not None:
            parts.append(f"window {self.window}")
        return f"{self.mode}({', '.join(parts)})"


@dataclass(frozen=True)
class Problem:
    """One computation as a backend sees it before any array exists.

    Args:
        spec: mode and options.
        structure: `diagonal`, `dplr`, `dense`, `mimo` or `integrator`.
        batch, n_channels, n_modes, length: sizes; batch and length may be 0.
        dtype: `float32` or `float64`.
        device: `cpu`, `cuda`, …
        gradient: vector-Jacobian products are needed.
        state: an initial state is given or the final state is asked for.
        arrays: `numpy` or `torch`, what the arrays are.
    """

    spec: ModeSpec
    structure: str
    batch: int
    n_channels: int
    n_modes: int
    length: int
    dtype: str
    device: str = "cpu"
    gradient: bool = False
    state: bool = False
    arrays: str = "numpy"


def commutes(structure: str, spec: ModeSpec) -> bool:
    """Whether `kb` is computed as `truncated`: with diagonal matrices the two are equal."""
    unwindowed = spec.mode == "kb" and spec.correlations == "all" and spec.window is None
    return unwindowed and structure == "diagonal" and spec.order > 1
