from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from liquid_ssm.backends.compiled import windowed_chain as module
from liquid_ssm.backends.compiled.windowed_chain import windowed_chain, windowed_chain_vjp
from liquid_ssm.backends.numpy_backend import NumPyBackend
from liquid_ssm.systems import DiagonalSystem, DPLRSystem

Array = npt.NDArray[Any]
KINDS = ["complex", "real", "mixed"]
STRUCTURES = ["diagonal", "dplr"]


def system(structure: str, kind: str = "complex", n_channels: int = 3, n_modes: int = 5) -> Any:
    rng = np.random.default_rng(n_modes)

    def entries(*shape: int, real: bool = kind == "real") -> Array:
        return rng.standard_normal(shape) + (0 if real else 1j * rng.standard_normal(shape))

    A = entries(n_channels, n_modes)
    A *= rng.uniform(0.5, 1, A.shape) / np.abs(A)
    B, C = entries(n_channels, n_modes, real=kind != "complex"), entries(n_channels, n_modes)
    if structure == "diagonal":
        return DiagonalSystem(A, B, C, conjugate_pairs=kind == "complex")
    P, Q = 0.2 * entries(1, n_channels, n_modes), 0.2 * entries(1, n_channels, n_modes)
    return DPLRSystem(A, P, Q, B, C, conjugate_pairs=kind == "complex")


def moduli(s: Any) -> Any:
    """Minus signs become pluses: P̄ changes its sign, since Ā = Λ̄ - P̄ Q̄*."""
    parts = {name: np.abs(v).astype(float) * (-1 if name == "P_bar" else 1) for name, v in s.parameters.items()}
    return type(s)(**parts, conjugate_pairs=s.conjugate_pairs)


def count(s: Any, order: int, window: int) -> float:
    """Roundings behind a term forwards, docs/bounds.md, with κ = √5; low rank: 2·2M + 5 more per step for its sums."""
    per_step = np.sqrt(5) + 2 + (4 * s.n_modes + 5 if isinstance(s, DPLRSystem) else 0)
    return float(window * per_step + order * (2 * np.sqrt(5) + 2) + np.sqrt(5) + 3 + 2 * s.n_modes)


def chain(s: Any, u: Array, order: int, window: int) -> Array:
    return NumPyBackend().cascade(s, u, None, order=order, kind="chain", window=window)[0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("structure", STRUCTURES)
def test_within_the_bounds_of_the_counted_operations(structure: str, kind: str, dtype: Any) -> None:
    rng = np.random.default_rng(0)
    s, order, unit = system(structure, kind).astype(dtype), 3, float(np.finfo(dtype).eps) / 2
    for length, window in ((0, 4), (3, 4), (4, 4), (5, 4), (23, 5), (23, 40)):
        u, grad = rng.standard_normal((2, 2, 3, length)).astype(dtype)
        wide = s.astype(np.float64), u.astype(float), grad.astype(float)
        sizes = moduli(s), np.abs(wide[1]), np.abs(wide[2])
        y = windowed_chain(s, u, order, window, 1)
        assert y.dtype == dtype
        # The reference in float64 has at most as many roundings.
        n = count(s, order, min(window, max(length, 1))) * (unit + 2.0**-53)
        assert (np.abs(y - chain(*wide[:2], order, window)) <= n / (1 - n) * chain(*sizes[:2], order, window)).all()
        found = windowed_chain_vjp(s, u, grad, order, window, 1)
        arguments: dict[str, Any] = {"order": order, "kind": "chain", "window": window}
        exact, size = (NumPyBackend().cascade_vjp(a, b, None, g, None, **arguments) for a, b, g in (wide, sizes))
        assert found.state is None
        # Backwards the same steps once more with an addition each, and at most 64 steps and their 2·order products
        # per window are added up in the working precision; in float64, all of them.
        terms = 2 * order * (64 + 2 * length * 2.0**-29)
        n = (2 * n / (unit + 2.0**-53) + window + terms) * (unit + 2.0**-53)
        assert (np.abs(found.u - exact.u) <= n / (1 - n) * size.u).all()
        for name, gradient in exact.parameters.items():
            assert found.parameters[name].dtype == s.parameters[name].dtype
            error = np.abs(found.parameters[name] - gradient)
            # √2 for errors of real and imaginary part.
            assert (error <= np.sqrt(2) * n / (1 - n) * np.abs(size.parameters[name])).all(), name


@pytest.mark.parametrize("structure", STRUCTURES)
def test_an_empty_batch_and_no_cotangent(structure: str) -> None:
    s = system(structure)
    u = np.empty((0, 3, 9))
    assert windowed_chain(s, u, 2, 4, 1).shape == u.shape
    found = windowed_chain_vjp(s, u, u, 2, 4, 1)
    assert found.u.shape == u.shape
    assert not any(g.any() for g in found.parameters.values())
    found = windowed_chain_vjp(s, np.ones((1, 3, 9)), None, 2, 4, 1)
    assert not any(g.any() for g in (found.u, *found.parameters.values()))


@pytest.mark.parametrize("structure", STRUCTURES)
def test_threads_and_layout_change_no_bit(structure: str) -> None:
    rng = np.random.default_rng(1)
    s = system(structure, n_channels=7)
    u, grad = rng.standard_normal((2, 5, 7, 29))
    for argument in (u, grad):
        argument.flags.writeable = False
    y, one = windowed_chain(s, u, 2, 6, 1), windowed_chain_vjp(s, u, grad, 2, 6, 1)
    for v, threads in ((u, 2), (u, 3), (np.asfortranarray(u), 2)):
        np.testing.assert_array_equal(windowed_chain(s, v, 2, 6, threads), y)
        found = windowed_chain_vjp(s, v, grad, 2, 6, threads)
        np.testing.assert_array_equal(found.u, one.u)
        for name, gradient in one.parameters.items():
            np.testing.assert_array_equal(found.parameters[name], gradient)


def test_parts_of_the_windows_of_low_rank_fit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    s, u = system("dplr"), np.random.default_rng(2).standard_normal((2, 3, 12))
    y, gradients = windowed_chain(s, u, 2, 4, 1), windowed_chain_vjp(s, u, u, 2, 4, 1)
    monkeypatch.setattr(module, "AT_ONCE", 5 * 2 * 3 * 20)
    # Tiles hold other rows then, which changes no row.
    np.testing.assert_allclose(windowed_chain(s, u, 2, 4, 1), y, rtol=1e-12, atol=1e-12)
    parts = windowed_chain_vjp(s, u, u, 2, 4, 1)
    np.testing.assert_allclose(parts.u, gradients.u, rtol=1e-11, atol=1e-11)
    for name, gradient in gradients.parameters.items():
        np.testing.assert_allclose(parts.parameters[name], gradient, rtol=1e-11, atol=1e-11)
