from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from liquid_ssm.backends._ports import Ports
from liquid_ssm.systems import DiagonalSystem, MIMOSystem

H, M = 2, 3


def integers(rng: np.random.Generator, *shape: int, real: bool = False) -> Any:
    """Small whole numbers, so that every sum and product below is exact."""
    values = rng.integers(-4, 5, shape).astype(float)
    return values if real else values + 1j * rng.integers(-4, 5, shape)


def make(name: str) -> Any:
    rng = np.random.default_rng(0)
    real = name.endswith("real")
    if name.startswith("mimo"):
        return MIMOSystem(integers(rng, M), integers(rng, M, H, real=real), integers(rng, H, M, real=real))
    return DiagonalSystem(integers(rng, H, M), integers(rng, H, M, real=real), integers(rng, H, M, real=real))


NAMES = ["single", "single real", "mimo", "mimo real"]


def inner(a: Any, b: Any) -> float:
    return float(np.sum(a.real * b.real + a.imag * b.imag))


def test_by_hand() -> None:
    # y = 2 Re((1 + 2j)(3 - 1j) + (-1j)(2j)) = 2·(5 + 2) = 14
    arrays = np.array([[[1, 1]], [[1j, 2]], [[1 + 2j, -1j]]])
    ports = Ports(DiagonalSystem(*arrays))
    np.testing.assert_array_equal(ports.drive(np.array([3.0])), [[3j, 6]])
    np.testing.assert_array_equal(ports.read(np.array([[3 - 1j, 2j]])), [14])
    one_sided = Ports(DiagonalSystem(*arrays, conjugate_pairs=False))
    np.testing.assert_array_equal(one_sided.read(np.array([[3 - 1j, 2j]])), [7])


def test_shared_state_by_hand() -> None:
    ports = Ports(MIMOSystem(np.ones(2), np.array([[1, 1j], [2, 3]]), np.array([[1, 0], [1j, 1]])))
    np.testing.assert_array_equal(ports.drive(np.array([5.0, 7.0])), [5 + 7j, 31])
    np.testing.assert_array_equal(ports.read(np.array([1 + 1j, 4.0])), [2, 6])


@pytest.mark.parametrize("name", NAMES)
def test_adjoints_and_gradients_are_exact(name: str) -> None:
    system, rng = make(name), np.random.default_rng(1)
    ports = Ports(system)
    u, g = integers(rng, 4, 5, H, real=True), integers(rng, 4, 5, H, real=True)
    lead = (4, 5) if ports.shared else (4, 5, H)
    x, cotangent = integers(rng, *lead, M), integers(rng, *lead, M)
    assert inner(cotangent, ports.drive(u)) == inner(ports.drive_adjoint(cotangent), u)
    assert inner(g, ports.read(x)) == inner(ports.read_adjoint(g), x)
    # w is linear in B̄ and y in C, so pairing the gradient with the parameter gives back the pairing.
    grad_B, grad_C = ports.drive_gradient(u, cotangent), ports.read_gradient(x, g)
    assert grad_B.shape == system.B_bar.shape
    assert grad_C.shape == system.C.shape
    assert inner(grad_B, system.B_bar) == inner(cotangent, ports.drive(u))
    assert inner(grad_C, system.C) == inner(g, ports.read(x))


@pytest.mark.parametrize("name", NAMES)
def test_precision_is_kept(name: str) -> None:
    ports = Ports(make(name).astype(np.float32))
    u = np.ones((2, H), np.float32)
    x = ports.drive(u) + np.complex64(1j)
    results = [ports.read(x), ports.drive_adjoint(x), ports.drive_gradient(u, x), ports.read_gradient(x, u)]
    assert {r.dtype.name for r in [x, *results]} <= {"float32", "complex64"}
    assert ports.read_adjoint(u).dtype == ports.C.dtype


def test_read_out_is_a_balanced_sum() -> None:
    # (2^24 + 1) is absorbed and 1 + 1 = 2 is not: the tree over four modes.
    ones = np.ones((1, 4), np.float32)
    ports = Ports(DiagonalSystem(ones, ones, ones, conjugate_pairs=False))
    np.testing.assert_array_equal(ports.read(np.array([[2.0**24, 1, 1, 1]], np.float32)), [2.0**24 + 2])
