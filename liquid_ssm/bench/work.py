"""The least work of each mode: multiply-add slots and bytes, from which the limits of a row follow."""

from __future__ import annotations

from ..problem import ModeSpec
from .shapes import Shape

FORWARD, BACKWARD, BOTH = "forward", "backward", "forward + backward"
DIRECTIONS = (FORWARD, BACKWARD, BOTH)

# Steps between two states that a backward pass keeps.
CHECKPOINT = 64


def mode_slots(spec: ModeSpec) -> float | None:
    """Multiply-add slots per stored mode, step, channel and batch row, forward; None where none were counted.

    A slot is one lane of one multiply, add or multiply-add instruction on real numbers.  With Ā, B̄, C complex and u
    real:
      s4: Ā x + B̄ u is 6 and Re(C x) is 2: 8.
      liquid: the transition Ā + B̄ u is 2 more: 10.
      truncated(P), kb(P, all), which is the same on diagonal systems: order 1 as s4; each further order is two
      complex products and one addition to the sum of the states, 10: 8 + 10 (P - 1).
      kb(P, adjacent): one linear recurrence driven by Σ_p B̄^p v_p, 2 more for each order: 8 + 2 (P - 1).
      pb(P): as s4; the rest is not per mode (`element_slots`).
    These are counts of plain recurrences.  The linear ones can also take many steps at once as matrix products, with
    fewer slots, so s4 and pb may pass 100 % of the limit.
    """
    if spec.mode == "liquid":
        return 10
    if spec.mode in ("s4", "pb"):
        return 8 if spec.window is None else None
    if spec.mode == "truncated" or (spec.correlations == "all" and spec.window is None):
        return 8 + 10 * (spec.order - 1)
    return 8 + 2 * (spec.order - 1) if spec.window is None else None


def element_slots(spec: ModeSpec) -> float:
    """Multiply-add slots per step, channel and batch row, whatever the number of modes: 3 per order of kb and pb."""
    return 3 * (spec.order - 1) if spec.has_correlations else 0


def slots(spec: ModeSpec, direction: str, shape: Shape) -> float | None:
    """Multiply-add slots of the whole computation.

    Forward and backward together are four times the forward: 40 for liquid, which is one forward, one repetition of
    it from the kept states, and an adjoint of twice the work.
    """
    per_mode = mode_slots(spec)
    if per_mode is None:
        return None
    forward = shape.elements * (per_mode * shape.n_modes + element_slots(spec))
    return {FORWARD: 1, BACKWARD: 3, BOTH: 4}[direction] * forward


def traffic(direction: str, shape: Shape, itemsize: int) -> float:
    """Bytes that must pass memory: u and y forward; backward u, the cotangents of y and u, and the kept states."""
    forward = 2 * itemsize * shape.elements
    # One complex state every CHECKPOINT steps, written and read.
    states = 2 * 2 * itemsize * shape.n_modes * shape.elements / CHECKPOINT
    backward = 3 * itemsize * shape.elements + states
    return {FORWARD: forward, BACKWARD: backward, BOTH: forward + backward}[direction]
