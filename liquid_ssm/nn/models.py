"""The paper's models by name: one constructor each, and the table of what they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .layer import SSMLayer
from .liquid_time_constant import LTC


@dataclass(frozen=True)
class Model:
    """A named constructor of a layer, and its row of the table.

    Args:
        title: as the paper, or the model's own paper, writes it.
        source: equation of arXiv 2209.12951, or the reference.
        options: those of the layer that make it.
        make: the layer, of (n_channels, n_state, **options).
    """

    title: str
    source: str
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    make: Callable[..., Any] = SSMLayer

    def __call__(self, n_channels: int, n_state: int = 64, **options: Any) -> Any:
        """The layer; options besides, or in place of, those of the row."""
        return self.make(n_channels, n_state, **{**self.options, **options})


liquid_s4 = Model("Liquid-S4, exact", "Eq. 11", {"init": "legs", "mode": "liquid"})
liquid_s4_truncated = Model("Liquid-S4, truncated", "Eq. 12", {"init": "legs", "mode": "truncated"})
liquid_s4_kb = Model("Liquid-S4-KB", "Eq. 14, Algorithm 1", {"init": "legs", "mode": "kb", "correlations": "adjacent"})
liquid_s4_pb = Model("Liquid-S4-PB", "Eq. 15, Algorithm 1", {"init": "legs", "mode": "pb", "correlations": "adjacent"})
s4_legs = Model("S4-LegS", "arXiv 2111.00396", {"init": "legs", "mode": "s4"})
s4_fout = Model("S4-FouT", "arXiv 2206.12037", {"init": "fout", "mode": "s4"})
s4_legs_fout = Model("S4-(LegS/FouT)", "arXiv 2206.12037", {"init": "legs/fout", "mode": "s4"})
s4d_legs = Model("S4D-LegS", "arXiv 2206.11893", {"init": "s4d-legs", "mode": "s4"})
s4d_inv = Model("S4D-Inv", "arXiv 2206.11893", {"init": "s4d-inv", "mode": "s4"})
s4d_lin = Model("S4D-Lin", "arXiv 2206.11893", {"init": "s4d-lin", "mode": "s4"})
dss = Model("DSS", "arXiv 2203.14343", {"init": "dss", "mode": "s4", "discretization": "zoh"})
s5 = Model("S5", "arXiv 2208.04933", {"init": "s5", "mode": "s4", "discretization": "zoh"})
liquid_s5 = Model("Liquid-S5", "Appendix F", {"init": "s5", "mode": "liquid", "discretization": "zoh"})
ltc = Model("LTC", "Eq. 9, arXiv 2006.04439", make=LTC)
linear_ltc = Model("Linear LTC", "Eq. 10, 11", {"init": "s4d-lin", "mode": "liquid"})

MODELS: dict[str, Model] = {name: row for name, row in list(globals().items()) if isinstance(row, Model)}
