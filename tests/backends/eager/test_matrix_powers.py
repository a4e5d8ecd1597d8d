from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from liquid_ssm.backends.eager import matrix_powers
from liquid_ssm.backends.eager.matrix_powers import dense_kernel
from liquid_ssm.oracle.kernel_error import kernel_error
from liquid_ssm.oracle.realization import Realization
from liquid_ssm.oracle.rounding import RoundingModel

Array = npt.NDArray[Any]
LENGTHS = [0, 1, 2, 3, 4, 15, 16, 17, 31, 97]


def contracting(n_channels: int, n_state: int, dtype: str, seed: int = 0) -> tuple[Array, Array, Array]:
    """Ā of norm 0.95, B̄ and C."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> Array:
        real = rng.standard_normal(shape)
        return (real + 1j * rng.standard_normal(shape) if dtype.startswith("complex") else real).astype(dtype)

    A = normal(n_channels, n_state, n_state)
    A = 0.95 * A / np.linalg.norm(A, 2, axis=(1, 2))[:, None, None]
    return A.astype(dtype), normal(n_channels, n_state), normal(n_channels, n_state)


def tensors(arrays: tuple[Array, ...]) -> list[torch.Tensor]:
    return [torch.from_numpy(v) for v in arrays]


def exact_kernel(arrays: tuple[Array, ...], length: int, power: int) -> Array:
    """Re(C Āⁱ B̄), one application of Ā after the other, in extended precision."""
    A, B, C = (v.astype(np.clongdouble) for v in arrays)
    x, rows = B**power, []
    for _ in range(length):
        rows.append((C * x).sum(-1).real)
        x = (A * x[:, None]).sum(-1)
    return np.array(rows, np.longdouble).T.reshape(len(C), length)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("power", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_every_entry_is_within_its_bound(dtype: str, power: int, length: int) -> None:
    arrays = contracting(3, 5, dtype)
    found = dense_kernel(*tensors(arrays), length, power)
    real = "float32" if dtype in ("float32", "complex64") else "float64"
    assert found.shape == (3, length)
    assert found.dtype == getattr(torch, real)
    realization = Realization("dense", *arrays, conjugate_pairs=False)
    model = RoundingModel.of_dtype(real, fft=True, kernel_dtype="float64")
    # 2^-10 of the bound for the reference.
    bound = kernel_error(realization, length, power, model) * (1 + 2.0**-10)
    assert np.all(np.abs(found.numpy() - exact_kernel(arrays, length, power)) <= bound)


def test_channels_are_worked_on_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    given = tensors(contracting(5, 4, "complex64"))
    whole = dense_kernel(*given, 33, 2)
    monkeypatch.setattr(matrix_powers, "PIECE_BYTES", 1)
    sizes: list[int] = []
    run = matrix_powers._channels

    def counted(A: torch.Tensor, *others: Any) -> torch.Tensor:
        sizes.append(len(A))
        return run(A, *others)

    monkeypatch.setattr(matrix_powers, "_channels", counted)
    apart = dense_kernel(*given, 33, 2)
    assert sizes == [1] * 5
    # Both are rounded once from float64: off by no more than a unit in the last place.
    assert bool((apart - whole).abs().le(2.0**-23 * whole.abs()).all())


def test_powers_beyond_the_last_one_may_overflow() -> None:
    A = torch.full((1, 1, 1), 1e30, dtype=torch.float64)
    one = torch.ones(1, 1, dtype=torch.float64)
    found = dense_kernel(A, one, one, 11, 1)
    assert found[0].tolist() == pytest.approx([10.0 ** (30 * i) for i in range(11)], rel=11 * 2.0**-52)


@pytest.mark.parametrize("n_channels", [0, 2])
def test_nothing_gives_nothing(n_channels: int) -> None:
    given = tensors(contracting(2, 3, "float32"))
    assert dense_kernel(*(v[:n_channels] for v in given), 0, 1).shape == (n_channels, 0)
    assert dense_kernel(*(v[:0] for v in given), 7, 1).shape == (0, 7)
