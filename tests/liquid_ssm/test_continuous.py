from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from liquid_ssm.continuous import ContinuousSystem
from liquid_ssm.errors import DTypeError, ParameterError, ShapeError
from liquid_ssm.hippo import hippo
from liquid_ssm.systems import DenseSystem, DiagonalSystem, DPLRSystem, MIMOSystem

H, M, R = 2, 3, 2


def parameters(structure: str) -> dict[str, Any]:
    random = np.random.default_rng(0)

    def complex_normal(*shape: int) -> np.ndarray:
        return random.normal(size=shape) + 1j * random.normal(size=shape)

    def stable(*shape: int) -> np.ndarray:
        return -random.uniform(0.1, 1, shape) + 1j * random.normal(size=shape)

    if structure == "mimo":
        return {"Lambda": stable(M), "B": complex_normal(M, H), "C": complex_normal(H, M), "dt": np.full(M, 0.1)}
    arrays = {"B": complex_normal(H, M), "C": complex_normal(H, M), "dt": np.array([0.1, 0.2])}
    if structure == "dense":
        return {"A": random.normal(size=(H, M, M)) - 9 * np.eye(M), **arrays}
    arrays["Lambda"] = stable(H, M)
    return {**arrays, "P": complex_normal(R, H, M)} if structure == "dplr" else arrays


def build(structure: str, **changes: Any) -> ContinuousSystem:
    make = ContinuousSystem.dense if structure == "dense" else ContinuousSystem
    return make(**{**parameters(structure), **changes})


STRUCTURES = ("diagonal", "dplr", "mimo", "dense")


@pytest.mark.parametrize("structure", STRUCTURES)
def test_structure_and_sizes(structure: str) -> None:
    system = build(structure)
    assert system.structure == structure
    assert (system.n_channels, system.n_modes) == (H, M)
    assert system.n_state == (M if structure == "dense" else 2 * M)
    assert system.weight == (1 if structure == "dense" else 2)
    assert system.dtype == np.float64


@pytest.mark.parametrize("structure", STRUCTURES)
def test_arrays_are_read_only_copies(structure: str) -> None:
    given = parameters(structure)
    system = build(structure, **given)
    for name, array in given.items():
        stored = getattr(system, name)
        before = stored.copy()
        array[...] = 7
        np.testing.assert_array_equal(stored, before)
        with pytest.raises(ValueError, match="read-only"):
            stored[...] = 0
    with pytest.raises(AttributeError):
        system.dt = np.ones(H)  # type: ignore[misc]


def test_single_precision_is_widened_exactly() -> None:
    given = {
        name: a.astype(np.complex64 if a.dtype.kind == "c" else np.float32) for name, a in parameters("dplr").items()
    }
    system = ContinuousSystem(**given)
    for name, array in given.items():
        assert getattr(system, name).dtype.itemsize == 2 * array.dtype.itemsize
        np.testing.assert_array_equal(getattr(system, name), array)
        assert not getattr(system, name).flags.writeable


@pytest.mark.parametrize("structure", STRUCTURES)
def test_one_dt_stands_for_all(structure: str) -> None:
    expected = np.full(M if structure == "mimo" else H, 0.25)
    np.testing.assert_array_equal(build(structure, dt=0.25).dt, expected)
    np.testing.assert_array_equal(build(structure).with_dt(0.25).dt, expected)


def test_with_dt_keeps_the_rest() -> None:
    system = build("dplr")
    faster = system.with_dt([0.3, 0.4])
    np.testing.assert_array_equal(faster.dt, [0.3, 0.4])
    for name in ("Lambda", "P", "B", "C"):
        np.testing.assert_array_equal(getattr(faster, name), getattr(system, name))


@pytest.mark.parametrize("pairs", [True, False])
@pytest.mark.parametrize("structure", ["diagonal", "dplr"])
def test_full_matrices(structure: str, pairs: bool) -> None:
    system = build(structure, conjugate_pairs=pairs)
    A, B, C = system.full_matrices()
    N = 2 * M if pairs else M
    assert system.n_state == N
    assert A.shape == (H, N, N)
    x = np.random.default_rng(1).normal(size=(H, M)) + 1j
    full = np.concatenate([x, x.conj()], axis=1) if pairs else x
    weight = 2 if pairs else 1
    for channel in range(H):
        stored = system.Lambda[channel] * x[channel]
        if system.P is not None:
            for P in system.P[:, channel]:
                inner = P.conj() @ x[channel]
                stored = stored - P * (2 * inner.real if pairs else inner)
        # N terms of size at most 10: far below 1e-13.
        np.testing.assert_allclose((A[channel] @ full[channel])[:M], stored, rtol=0, atol=1e-13)
        if pairs:
            np.testing.assert_allclose((A[channel] @ full[channel])[M:], stored.conj(), rtol=0, atol=1e-13)
        y = (C[channel] @ full[channel]).real
        np.testing.assert_allclose(y, weight * (system.C[channel] @ x[channel]).real, rtol=0, atol=1e-13)
        np.testing.assert_array_equal(B[channel][:M], system.B[channel])


def test_full_matrices_of_a_dense_system_are_its_own() -> None:
    system = build("dense")
    for given, array in zip((system.A, system.B, system.C), system.full_matrices(), strict=True):
        assert given is array


def test_mimo_has_no_full_matrices() -> None:
    with pytest.raises(ParameterError, match="one state for all channels"):
        build("mimo").full_matrices()


@pytest.mark.parametrize(
    ("structure", "method", "kind"),
    [
        ("diagonal", "bilinear", DiagonalSystem),
        ("mimo", "zoh", MIMOSystem),
        ("dplr", "euler", DPLRSystem),
        ("dplr", "bilinear", DPLRSystem),
        ("dplr", "zoh", DenseSystem),
        ("dense", "bilinear", DenseSystem),
    ],
)
def test_discretize_gives_the_documented_class(structure: str, method: str, kind: type) -> None:
    assert type(build(structure).discretize(method)) is kind


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("method", ["adams-bashforth", "bilinear-exact"])
def test_discretize_gives_integrators(structure: str, method: str) -> None:
    integrator = build(structure).discretize(method)
    assert (integrator.structure, integrator.name) == ("integrator", method)


def test_unknown_method_names_the_nearest() -> None:
    with pytest.raises(ParameterError, match=r"unknown discretization 'billinear'.*Did you mean 'bilinear'"):
        build("diagonal").discretize("billinear")


def with_value(array: np.ndarray, where: Any, value: complex) -> np.ndarray:
    changed = array.copy()
    changed[where] = value
    return changed


@pytest.mark.parametrize("value", [0.0, 1j, 0.3 + 1j, 1e-300, -0.0])
def test_modes_that_do_not_decay(value: complex) -> None:
    Lambda = with_value(parameters("diagonal")["Lambda"], (1, 2), value)
    with pytest.raises(ParameterError, match=r"Re λ = .* at channel 1, mode 2 \(1 such value"):
        build("diagonal", Lambda=Lambda)
    with pytest.raises(ParameterError, match="at channel 1, mode 2"):
        build("dplr", Lambda=Lambda)
    with pytest.raises(ParameterError, match="at mode 1"):
        build("mimo", Lambda=with_value(parameters("mimo")["Lambda"], 1, value))


@pytest.mark.parametrize("value", [0.0, -0.1])
def test_dt_must_be_positive(value: float) -> None:
    for structure in STRUCTURES:
        dt = with_value(parameters(structure)["dt"], 1, value)
        with pytest.raises(ParameterError, match=f"dt is {value:.6g} at index 1"):
            build(structure, dt=dt)


def test_dt_must_be_real() -> None:
    with pytest.raises(DTypeError, match="dt has dtype complex128"):
        build("diagonal", dt=np.array([0.1 + 0j, 0.2]))


@pytest.mark.parametrize(
    ("structure", "name"),
    [
        *[(s, n) for s in STRUCTURES for n in ("B", "C", "dt")],
        *[(s, "Lambda") for s in ("diagonal", "dplr", "mimo")],
        ("dplr", "P"),
        ("dense", "A"),
    ],
)
def test_values_must_be_finite_and_floating(structure: str, name: str) -> None:
    array = parameters(structure)[name]
    last = tuple(n - 1 for n in array.shape)
    for bad in (np.nan, np.inf):
        with pytest.raises(ParameterError, match=f"{name} is not finite at index \\({last[0]}"):
            build(structure, **{name: with_value(array, last, bad)})
    with pytest.raises(DTypeError, match=f"{name} has dtype object"):
        build(structure, **{name: array.astype(object)})


@pytest.mark.parametrize(
    ("structure", "changes"),
    [
        ("diagonal", {"Lambda": -np.ones((H, M, 1))}),
        ("diagonal", {"B": np.ones((H, M + 1))}),
        ("diagonal", {"C": np.ones((H + 1, M))}),
        ("diagonal", {"dt": np.ones(M)}),
        ("diagonal", {"dt": np.ones((H, 1))}),
        ("dplr", {"P": np.ones((H, M))}),
        ("dplr", {"P": np.ones((R, M, H))}),
        ("mimo", {"B": np.ones((H, M))}),
        ("mimo", {"C": np.ones((M, H))}),
        ("mimo", {"C": np.ones((H + 1, M))}),
        ("mimo", {"C": np.ones((H, M + 1))}),
        ("mimo", {"B": np.ones((M + 1, H)), "C": np.ones((H, M + 1))}),
        ("mimo", {"dt": np.ones(H)}),
        ("dense", {"A": -np.ones((H, M, M + 1))}),
        ("dense", {"A": -np.ones((M, M))}),
        ("dense", {"B": np.ones((H, M + 1))}),
        ("dense", {"dt": np.ones(M)}),
    ],
)
def test_shapes_must_fit(structure: str, changes: dict[str, np.ndarray]) -> None:
    with pytest.raises(ShapeError, match="shape"):
        build(structure, **changes)


def test_exactly_one_description_of_the_transition() -> None:
    dense, diagonal = parameters("dense"), parameters("diagonal")
    with pytest.raises(ParameterError, match="neither Lambda nor A"):
        ContinuousSystem(None, dense["B"], dense["C"], dense["dt"])
    with pytest.raises(ParameterError, match="either A alone or Lambda"):
        ContinuousSystem(**diagonal, A=dense["A"], conjugate_pairs=False)
    with pytest.raises(ParameterError, match="stores all N states"):
        ContinuousSystem(None, **dense)
    with pytest.raises(ParameterError, match=r"mimo system .* has no low-rank part"):
        build("mimo", P=np.ones((1, H, M)))


def dense_of(A: np.ndarray) -> ContinuousSystem:
    N = len(A)
    stable = -np.eye(N)
    # The matrix in question is channel 1.
    return ContinuousSystem.dense(np.stack([stable, A]), np.ones((2, N)), np.ones((2, N)), 0.1)


def rotated(A: np.ndarray, seed: int = 5) -> np.ndarray:
    Q = np.linalg.qr(np.random.default_rng(seed).normal(size=A.shape))[0]
    return Q @ A @ Q.T


def far_from_normal(eigenvalue: float, seed: int) -> np.ndarray:
    """Its slowest eigenvalue has κ = 3e5, so the eigensolver finds it to 2e-8 only, and δ is 8e-14."""
    return rotated(np.diag([eigenvalue, -1, -2, -3, -4, -5]) + np.triu(np.full((6, 6), 30.0), 1), seed)


@pytest.mark.parametrize(
    "A",
    [
        hippo("legs", 64)[0],
        rotated(hippo("legs", 64)[0]),
        # A zero eigenvalue that rounding cannot tell from a negative one.
        hippo("fout", 16)[0],
        # A defective stable matrix, whose computed eigenvalues spread by u^(1/4).
        rotated(-0.1 * np.eye(4) + np.eye(4, k=1)),
        np.array([[-1e-3]]),
        # Of these, some are found with a positive real part.
        *[far_from_normal(-1e-10, seed) for seed in range(6)],
    ],
)
def test_stable_dense_matrices_are_taken(A: np.ndarray) -> None:
    np.testing.assert_array_equal(dense_of(A).A[1], A)


@pytest.mark.parametrize(
    "A",
    [
        np.zeros((1, 1)),
        np.array([[1e-20]]),
        np.diag([-1.0, -2.0, 1e-12]),
        rotated(np.diag([-1.0, -2.0, 1e-3])),
        *[far_from_normal(1e-6, seed) for seed in range(3)],
        # Defective: the eigenvalue's condition number is infinite, the matrix is unstable all the same.
        np.array([[1.0, 1.0], [0.0, 1.0]]),
        np.array([[-1.0, 5.0], [-5.0, 1.5]]),
        np.array([[1j - 1, 0], [3.0, 1j + 1e-6]]),
    ],
)
def test_unstable_dense_matrices_are_refused(A: np.ndarray) -> None:
    with pytest.raises(ParameterError, match=r"A of channel 1 has the eigenvalue .* real part is not negative"):
        dense_of(A)
