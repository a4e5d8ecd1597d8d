from __future__ import annotations

import numpy as np
from hypothesis.vendor.pretty import pretty

from liquid_ssm import apply
from liquid_ssm.problem import ModeSpec
from liquid_ssm.systems import DiagonalSystem
from liquid_ssm.testing.example import Example
from liquid_ssm.testing.strategies import random_system

SYSTEM = DiagonalSystem([[0.5j]], [[0.1]], [[1.0]])


def example(**changes):
    values = {"system": SYSTEM, "u": np.ones((2, 1, 3)), "spec": ModeSpec("kb", 2, "adjacent", 5)}
    return Example(**(values | changes))


def test_options_are_those_of_apply():
    assert example().options == {"mode": "kb", "order": 2, "correlations": "adjacent", "window": 5}
    assert apply(SYSTEM, example().u, **example().options).shape == (2, 1, 3)


def test_length_is_that_of_time():
    assert example(u=np.zeros((2, 1, 7))).length == 7


def test_having_changes_only_what_is_named():
    old = example(choice=3)
    new = old.having(u=np.zeros((1, 1, 1)))
    assert (new.u.shape, old.u.shape) == ((1, 1, 1), (2, 1, 3))
    assert (new.system, new.spec, new.choice) == (old.system, old.spec, 3)


def test_it_prints_everything_that_it_takes_to_repeat_it():
    shown = repr(example(u=np.array([[[-0.0, 0.1, 1e-300]]]), state=np.array([[[2 + 1j]]]), choice=7))
    assert shown.splitlines() == [
        "mode kb(2, adjacent, window 5), diagonal, float64, conjugate_pairs=True, batch 1, H 1, M 1, L 3",
        "  A_bar = [[0.+0.5j]]",
        "  B_bar = [[0.1]]",
        "  C = [[1.]]",
        "  u = [[[-0.e+000, 1.e-001, 1.e-300]]]",
        "  state = [[[2.+1.j]]]",
        "  choice = 7",
    ]


def test_printed_numbers_are_the_exact_ones():
    for dtype in ("float32", "float64"):
        values = np.random.default_rng(0).normal(size=(1, 1, 9)).astype(dtype)
        line = next(line for line in repr(example(u=values)).splitlines() if "  u = " in line)
        read = np.array(line.partition("[[[")[2].rstrip("]").split(", "), dtype)
        assert read.tobytes() == values.tobytes()


def test_long_arrays_are_abbreviated_and_stay_on_one_line():
    lines = repr(Example(random_system("dense", n_modes=5), np.ones((1, 2, 1000)), ModeSpec("s4"))).splitlines()
    assert [line.split(" = ")[0] for line in lines[1:]] == ["  A_bar", "  B_bar", "  C", "  u", "  choice"]
    assert "..., 1., 1., 1." in lines[-2]
    assert len("".join(lines)) < len(str(np.ones((1, 2, 1000)).tolist()))


def test_hypothesis_prints_it_in_the_same_way():
    assert pretty(example()) == repr(example())
