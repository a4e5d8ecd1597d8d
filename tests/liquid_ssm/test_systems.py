from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import liquid_ssm as ls
from liquid_ssm.errors import DTypeError, ParameterError, ShapeError
from liquid_ssm.systems import DenseSystem, DiagonalSystem, DPLRSystem, MIMOSystem
from liquid_ssm.testing.strategies import random_system

H, M, R = 2, 3, 2
CLASSES: dict[str, Any] = {"diagonal": DiagonalSystem, "dplr": DPLRSystem, "dense": DenseSystem, "mimo": MIMOSystem}
SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "diagonal": {"A_bar": (H, M), "B_bar": (H, M), "C": (H, M)},
    "dplr": {"Lambda_bar": (H, M), "P_bar": (R, H, M), "Q_bar": (R, H, M), "B_bar": (H, M), "C": (H, M)},
    "dense": {"A_bar": (H, M, M), "B_bar": (H, M), "C": (H, M)},
    "mimo": {"A_bar": (M,), "B_bar": (M, H), "C": (H, M)},
}
EVERY_ARRAY = [(structure, name) for structure, shapes in SHAPES.items() for name in shapes]


def parameters(structure: str, dtype: Any = np.complex128) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {n: (random.normal(size=s) + 1j * random.normal(size=s)).astype(dtype) for n, s in SHAPES[structure].items()}


@pytest.mark.parametrize("structure", SHAPES)
def test_sizes(structure: str) -> None:
    system = CLASSES[structure](**parameters(structure))
    assert system.structure == structure
    assert (system.n_channels, system.n_modes) == (H, M)
    assert list(system.parameters) == list(SHAPES[structure])
    assert system.weight == (1 if structure == "dense" else 2)
    if structure != "dense":
        assert CLASSES[structure](**parameters(structure), conjugate_pairs=False).weight == 1
    if structure == "dplr":
        assert system.rank == R


@pytest.mark.parametrize("structure", SHAPES)
def test_arrays_are_read_only_copies(structure: str) -> None:
    given = parameters(structure)
    system = CLASSES[structure](**given)
    for name, stored in system.parameters.items():
        before = stored.copy()
        given[name][...] = 7
        np.testing.assert_array_equal(stored, before)
        with pytest.raises(ValueError, match="read-only"):
            stored[...] = 0
    with pytest.raises(AttributeError):
        system.C = 0


@pytest.mark.parametrize(
    ("dtypes", "complex_kind", "real_kind"),
    [
        ((np.complex64, np.float32, np.float32), np.complex64, np.float32),
        ((np.complex128, np.float32, np.complex64), np.complex128, np.float64),
        ((np.complex64, np.float64, np.float32), np.complex128, np.float64),
        ((np.complex64, np.int64, np.float32), np.complex128, np.float64),
    ],
)
def test_arrays_share_the_widest_precision(dtypes: Any, complex_kind: type, real_kind: type) -> None:
    system = DiagonalSystem(*(np.ones((H, M), dtype) for dtype in dtypes))
    assert system.dtype == real_kind
    for array, dtype in zip(system.parameters.values(), dtypes, strict=True):
        assert array.dtype == (complex_kind if np.dtype(dtype).kind == "c" else real_kind)
        assert not array.flags.writeable


@pytest.mark.parametrize("structure", SHAPES)
def test_astype_rounds_every_array_once(structure: str) -> None:
    pairs = structure == "dense"
    options = {} if pairs else {"conjugate_pairs": False}
    system = CLASSES[structure](**parameters(structure), **options)
    single = system.astype("float32")
    assert single.dtype == np.float32
    assert type(single) is type(system)
    assert single.conjugate_pairs == system.conjugate_pairs
    for name, array in system.parameters.items():
        assert single.parameters[name].dtype == np.complex64
        np.testing.assert_array_equal(single.parameters[name], array.astype(np.complex64))
    assert system.astype(np.float64) is system
    with pytest.raises(DTypeError, match="cannot be cast to float16"):
        system.astype(np.float16)


def test_astype_reports_overflow() -> None:
    system = DiagonalSystem(np.ones((1, 1)), np.ones((1, 1)), np.full((1, 1), 1e300))
    with pytest.raises(ParameterError, match="C is not finite"):
        system.astype(np.float32)


@pytest.mark.parametrize("structure", SHAPES)
@pytest.mark.parametrize("power", [1, 2, 5])
def test_input_power_changes_b_only(structure: str, power: int) -> None:
    system = CLASSES[structure](**parameters(structure))
    powered = system.with_input_power(power)
    for name, array in system.parameters.items():
        if name != "B_bar":
            np.testing.assert_array_equal(powered.parameters[name], array)
    # power - 1 rounded complex products, and as much for NumPy's own power.
    bound = 2 * power * np.sqrt(5) * 2.0**-53
    np.testing.assert_allclose(powered.B_bar, system.B_bar**power, rtol=bound, atol=0)
    assert powered.conjugate_pairs == system.conjugate_pairs


@pytest.mark.parametrize(("structure", "name"), EVERY_ARRAY)
def test_shapes_must_fit(structure: str, name: str) -> None:
    given = parameters(structure)
    for bad in (given[name][..., :-1], given[name][..., None]):
        with pytest.raises(ShapeError, match="shape"):
            CLASSES[structure](**{**given, name: bad})


@pytest.mark.parametrize(("structure", "name"), EVERY_ARRAY)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_must_be_finite(structure: str, name: str, value: float) -> None:
    given = parameters(structure)
    last = tuple(n - 1 for n in given[name].shape)
    given[name][last] = value
    where = str(last).replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(ParameterError, match=f"{name} is not finite at index {where}"):
        CLASSES[structure](**given)


@pytest.mark.parametrize(("structure", "name"), EVERY_ARRAY)
@pytest.mark.parametrize("dtype", [object, np.float16, np.str_])
def test_dtypes_must_be_floating(structure: str, name: str, dtype: Any) -> None:
    given = parameters(structure)
    bad = np.ones(given[name].shape).astype(dtype)
    with pytest.raises(DTypeError, match=f"{name} has dtype"):
        CLASSES[structure](**{**given, name: bad})


def test_a_dense_system_has_no_conjugate_pairs() -> None:
    with pytest.raises(ParameterError, match="conjugate_pairs=False"):
        DenseSystem(**parameters("dense"), conjugate_pairs=True)


TENSORS = [random_system(structure) for structure in ("diagonal", "dplr", "dense", "mimo")]


@pytest.mark.parametrize("system", TENSORS, ids=lambda s: s.structure)
def test_a_system_of_tensors_is_the_same_system(system):
    moved = system.to_torch()
    assert moved.is_torch
    assert not system.is_torch
    assert (moved.n_channels, moved.n_modes, moved.weight, moved.is_complex) == (
        system.n_channels,
        system.n_modes,
        system.weight,
        system.is_complex,
    )
    assert moved.dtype == torch.float64
    back = moved.astype("float32").astype(torch.float64).to_numpy()
    for name, array in system.astype("float32").astype("float64").parameters.items():
        assert (back.parameters[name] == array).all()
    powered, expected = moved.with_input_power(3).to_numpy().B_bar, system.with_input_power(3).B_bar
    # Two products on either side, each within √5 u; torch and NumPy contract them in different ways.
    assert (np.abs(powered - expected) <= 4 * 5**0.5 * 2.0**-53 * (1 + 2.0**-50) * np.abs(expected)).all()
    if system.structure != "mimo":
        taken = moved.take([1, 0]).to_numpy()
        for name, array in system.take([1, 0]).parameters.items():
            assert (taken.parameters[name] == array).all()


def test_gradients_flow_to_the_tensors_of_a_system():
    a = torch.rand(2, 3, dtype=torch.complex64, requires_grad=True)
    system = ls.DiagonalSystem(a, a, a)
    assert system.A_bar is a
    system.astype(torch.float64).with_input_power(2).B_bar.abs().sum().backward()
    assert a.grad is not None


def test_tensors_keep_their_common_precision():
    system = ls.DiagonalSystem(
        torch.ones(1, 1, dtype=torch.complex64), torch.ones(1, 1, dtype=torch.float64), torch.ones(1, 1)
    )
    assert [t.dtype for t in system.parameters.values()] == [torch.complex128, torch.float64, torch.float64]


def test_tensors_and_arrays_are_not_mixed():
    with pytest.raises(ls.ParameterError, match="A_bar of this system are torch tensors and B_bar, C are NumPy arrays"):
        ls.DiagonalSystem(torch.ones(1, 1), np.ones((1, 1)), np.ones((1, 1)))


@pytest.mark.parametrize(
    ("parameter", "error", "words"),
    [
        (torch.ones(1, 1, dtype=torch.int64), ls.DTypeError, "int64; allowed: complex64"),
        (torch.ones(1, 1, dtype=torch.bfloat16), ls.DTypeError, "bfloat16; allowed"),
        (torch.ones(1), ls.ShapeError, "dimension"),
        (torch.ones(1, 2), ls.ShapeError, "asks for"),
        (torch.ones(1, 1, device="meta"), ls.ParameterError, "C on meta.* move them to one"),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused(parameter, error, words):
    with pytest.raises(error, match=words):
        ls.DiagonalSystem(torch.ones(1, 1), torch.ones(1, 1), parameter)
