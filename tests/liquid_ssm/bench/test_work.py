"""The least work of each mode, against counts by hand."""

from __future__ import annotations

import pytest

from liquid_ssm.bench.shapes import WORK, Shape
from liquid_ssm.bench.work import BACKWARD, BOTH, DIRECTIONS, FORWARD, element_slots, mode_slots, slots, traffic
from liquid_ssm.problem import ModeSpec


@pytest.mark.parametrize(
    ("spec", "per_mode"),
    [
        (ModeSpec("s4"), 8),
        (ModeSpec("liquid"), 10),
        (ModeSpec("truncated", 1), 8),
        (ModeSpec("truncated", 3), 28),
        (ModeSpec("kb", 3, "all"), 28),
        (ModeSpec("kb", 3, "adjacent"), 12),
        (ModeSpec("pb", 3, "all"), 8),
        (ModeSpec("kb", 3, "adjacent", 8), None),
        (ModeSpec("pb", 3, "all", 8), None),
    ],
)
def test_slots_per_mode(spec, per_mode):
    assert mode_slots(spec) == per_mode
    assert (slots(spec, FORWARD, WORK) is None) == (per_mode is None)


def test_the_work_of_w_is_the_one_of_the_targets():
    # performance.md: 10·32 slots forward, 40·32 forward and backward, per batch row, channel and step
    liquid = ModeSpec("liquid")
    assert slots(liquid, FORWARD, WORK) == 10 * 32 * 4 * 128 * 4096
    assert slots(liquid, BOTH, WORK) == 40 * 32 * 4 * 128 * 4096
    assert slots(liquid, BACKWARD, WORK) == slots(liquid, BOTH, WORK) - slots(liquid, FORWARD, WORK)


def test_orders_of_pb_cost_per_element():
    shape = Shape(1, 1, 64, 100)
    assert element_slots(ModeSpec("pb", 3)) == 6
    assert slots(ModeSpec("pb", 3), FORWARD, shape) - slots(ModeSpec("s4"), FORWARD, shape) == 600


def test_traffic():
    # 8 bytes forward; 20 and a state of 8 bytes a mode every 64 steps, written and read, for both
    assert traffic(FORWARD, WORK, 4) == 8 * WORK.elements
    assert traffic(BOTH, WORK, 4) == (20 + 2 * 8 * 32 / 64) * WORK.elements
    assert traffic(BOTH, WORK, 8) == 2 * traffic(BOTH, WORK, 4)
    assert len({traffic(direction, WORK, 4) for direction in DIRECTIONS}) == 3
