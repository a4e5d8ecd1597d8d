from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from liquid_ssm.backends._recurrence import run, run_vjp
from liquid_ssm.backends._scan import Scan
from liquid_ssm.systems import DiagonalSystem

# One channel, one pair of modes, numbers that binary fractions hold exactly.
SYSTEM = DiagonalSystem(*np.array([[[0.5 + 0.5j]], [[1j]], [[1 - 1j]]]))
U = np.array([[[1.0, -2.0]]])


def test_linear_by_hand() -> None:
    # x_0 = (½ + ½j)·2 + j = 1 + 2j, x_1 = (½ + ½j)(1 + 2j) - 2j = -½ - ½j, y = 2 Re((1 - j) x).
    y, final = run(Scan(SYSTEM, liquid=False), U, np.array([[[2 + 0j]]]))
    np.testing.assert_array_equal(y, [[[6, -2]]])
    np.testing.assert_array_equal(final, [[[-0.5 - 0.5j]]])


def test_liquid_by_hand() -> None:
    # a_0 = ½ + 1½j, x_0 = 1 + 3j + j = 1 + 4j; a_1 = ½ - 1½j, x_1 = 6½ + ½j - 2j = 6½ - 1½j.
    y, final = run(Scan(SYSTEM, liquid=True), U, np.array([[[2 + 0j]]]))
    np.testing.assert_array_equal(y, [[[10, 10]]])
    np.testing.assert_array_equal(final, [[[6.5 - 1.5j]]])


def test_liquid_gradients_by_hand() -> None:
    # One step: x = (a + b u) x' + b u and y = 2 Re(c x), so dL/dx = λ = 2 g conj(c) and
    # dL/da = conj(x') λ, dL/db = u (conj(x') + 1) λ, dL/du = Re(conj(b)(conj(x') + 1) λ).
    before, u, g = np.array([[[2 + 1j]]]), np.array([[[3.0]]]), np.array([[[1.0]]])
    gradients, grad_u, grad_state = run_vjp(Scan(SYSTEM, liquid=True), u, before, g, None)
    cotangent = 2 + 2j
    np.testing.assert_array_equal(gradients["A_bar"], [[(2 - 1j) * cotangent]])
    np.testing.assert_array_equal(gradients["B_bar"], [[3 * (3 - 1j) * cotangent]])
    # x = (½ + ½j + 3j)(2 + j) + 3j = -2½ + 10½j
    np.testing.assert_array_equal(gradients["C"], [[2 * (-2.5 - 10.5j)]])
    np.testing.assert_array_equal(grad_u, [[[((-1j) * (3 - 1j) * cotangent).real]]])
    np.testing.assert_array_equal(grad_state, [[[(0.5 - 3.5j) * cotangent]]])


def test_the_transition_is_formed_before_the_product() -> None:
    # a = (1 + 2^-24) rounds to 1 in float32, so x stays 2^24; (x + w x) would be 2^24 + 2.
    one = np.ones((1, 1), np.float32)
    system = DiagonalSystem(one, one * np.float32(2.0**-24), one, conjugate_pairs=False)
    state = np.full((1, 1, 1), 2.0**24 - 1, np.float32)
    _, final = run(Scan(system, liquid=True), np.ones((1, 1, 1), np.float32), state)
    np.testing.assert_array_equal(final, state)


@pytest.mark.parametrize("liquid", [False, True])
def test_zero_input_is_the_matrix_power(liquid: bool) -> None:
    state: Any = np.array([[[1 + 0j]]])
    y, final = run(Scan(SYSTEM, liquid=liquid), np.zeros((1, 1, 8)), state)
    # (½ + ½j)^8 = (½j)^4 = 1/16
    np.testing.assert_array_equal(final, [[[0.0625]]])
    np.testing.assert_array_equal(y[0, 0, -1], 0.125)
