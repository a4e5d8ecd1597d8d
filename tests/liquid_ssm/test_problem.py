"""Modes and their options."""

from __future__ import annotations

import numpy as np
import pytest

import liquid_ssm as ls
from liquid_ssm.problem import ModeSpec


@pytest.mark.parametrize(
    ("spec", "label"),
    [
        (ModeSpec("s4", 5), "s4"),
        (ModeSpec("truncated", 2), "truncated(2)"),
        (ModeSpec("kb"), "kb(3, all)"),
        (ModeSpec("pb", 2, "adjacent", 7), "pb(2, adjacent, window 7)"),
    ],
)
def test_labels_say_what_matters(spec, label):
    assert spec.label == label


def test_numpy_integers_are_whole_numbers():
    assert ModeSpec("pb", np.int64(2), window=np.int32(4)) == ModeSpec("pb", 2, window=4)


@pytest.mark.parametrize("value", [True, 2.0, "3", None])
def test_other_orders_are_refused(value):
    with pytest.raises(ls.ParameterError, match="whole number"):
        ModeSpec("kb", value)


def test_a_window_as_wide_as_the_order_is_enough():
    assert ModeSpec("kb", 3, window=3).window == 3
    with pytest.raises(ls.ParameterError, match="do not fit"):
        ModeSpec("kb", 3, window=2)
