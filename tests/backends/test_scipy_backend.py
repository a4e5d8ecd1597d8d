from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from liquid_ssm.backends import scipy_backend
from liquid_ssm.backends.scipy_backend import SciPyBackend, available_cores
from liquid_ssm.errors import BackendRejected, DTypeError, ParameterError, ShapeError
from liquid_ssm.problem import ModeSpec, Problem
from liquid_ssm.systems import DenseSystem, DiagonalSystem, DPLRSystem, MIMOSystem

Array = npt.NDArray[Any]
GOLDEN = Path(__file__).parents[1] / "data" / "s4_kernels.npz"
SCIPY = SciPyBackend()


def integer_system(seed: int, *, n_channels: int = 3, n_modes: int = 2, real: bool = False, **options: Any) -> Any:
    """Parameters in {-1, 0, 1} + i{-1, 0, 1}: short computations are exact in float32."""
    rng = np.random.default_rng(seed)
    parts = rng.integers(-1, 2, (2, 3, n_channels, n_modes)).astype(float)
    return DiagonalSystem(*(parts[0] if real else parts[0] + 1j * parts[1]), **options)


def integer_inputs(seed: int, *shape: int, dtype: str = "float64") -> Array:
    return np.random.default_rng(seed).integers(-1, 2, shape).astype(dtype)


def liquid(system: Any, u: Array, x: Array, *, on: bool = True) -> tuple[Array, Array]:
    y = np.empty(u.shape)
    for k in range(u.shape[-1]):
        w = system.B_bar * u[..., k, None]
        x = (system.A_bar + w * on) * x + w
        y[..., k] = system.weight * (system.C * x).sum(axis=-1).real
    return y, x


def cascade(system: Any, u: Array, states: Array, kind: str) -> tuple[Array, Array]:
    y, x = np.empty(u.shape), states.swapaxes(0, 1)
    for k in range(u.shape[-1]):
        u_k = u[..., k, None]
        w = system.B_bar * u_k
        x = system.A_bar * x + np.concatenate([w[None], (w if kind == "truncated" else u_k) * x[:-1]])
        out = x.sum(axis=0) if kind == "truncated" else x[-1]
        y[..., k] = system.weight * (system.C * out).sum(axis=-1).real
    return y, x.swapaxes(0, 1)


def random_system(seed: int, dtype: str = "float64") -> DiagonalSystem:
    rng = np.random.default_rng(seed)
    A = rng.uniform(0.7, 1, (3, 5)) * np.exp(1j * rng.uniform(0, 3, (3, 5)))
    B, C = rng.standard_normal((2, 3, 5)) + 1j * rng.standard_normal((2, 3, 5))
    return DiagonalSystem(A, 0.1 * B, C).astype(dtype)


SHAPES = [(2, 3, 6), (1, 3, 1), (0, 3, 4), (2, 3, 0), (0, 3, 0)]


# --- declaration -------------------------------------------------------------------------------------------


def test_import_loads_no_scipy(tmp_path: Path) -> None:
    code = "import sys, liquid_ssm.backends.scipy_backend as m; m.SciPyBackend(); print('scipy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_declaration() -> None:
    assert (SCIPY.name, SCIPY.requires, SCIPY.install) == ("scipy", ("scipy",), "pip install scipy")
    assert SCIPY.linear_method == "convolution"
    assert (SCIPY.arithmetic.summation, SCIPY.arithmetic.kernel_dtype) == ("pairwise", "float64")
    for primitive in SCIPY.capabilities.primitives:
        assert callable(getattr(SCIPY, primitive))
    assert not SCIPY.capabilities.gradients


@pytest.mark.parametrize("mode", ["liquid", "truncated"])
def test_structures_without_a_recurrence_are_rejected(mode: str) -> None:
    problem = Problem(ModeSpec(mode), "dplr", 1, 1, 2, 8, "float64")
    rejection = SCIPY.reject(problem)
    assert rejection is not None
    assert (rejection.reason, rejection.given) == ("structure", "dplr")
    assert SCIPY.reject(Problem(ModeSpec(mode), "diagonal", 1, 1, 2, 8, "float64")) is None
    assert SCIPY.reject(Problem(ModeSpec("s4"), "dplr", 1, 1, 2, 8, "float64")) is None


def test_gradients_are_rejected() -> None:
    rejection = SCIPY.reject(Problem(ModeSpec("s4"), "diagonal", 1, 1, 2, 8, "float64", gradient=True))
    assert rejection is not None
    assert rejection.reason == "gradient"


def test_workers() -> None:
    assert SciPyBackend().workers == available_cores() >= 1
    assert SciPyBackend(workers=3).workers == 3
    with pytest.raises(ParameterError, match="workers is 0"):
        SciPyBackend(workers=0)


def test_a_system_that_is_not_covered_is_refused_by_name() -> None:
    dense = DenseSystem(np.ones((3, 2, 2)), np.ones((3, 2)), np.ones((3, 2)))
    mimo = MIMOSystem(np.ones(2), np.ones((2, 3)), np.ones((3, 2)))
    u = np.zeros((1, 3, 2))
    for call in (
        lambda: SCIPY.scan(dense, u, liquid=True),
        lambda: SCIPY.cascade(dense, u, order=2, kind="truncated"),
        lambda: SCIPY.kernel(mimo, 3),
    ):
        with pytest.raises(BackendRejected, match=r"needs diagonal.*got (dense|mimo)"):
            call()


# --- kernel ------------------------------------------------------------------------------------------------


def test_kernels_of_the_three_structures_are_those_of_one_system() -> None:
    """Exact in half-integers: a diagonal system, itself as a rank-0 DPLR, and its full matrix."""
    A, B, C = np.array([[0.5j, -0.5]]), np.array([[1 + 1j, 2]]), np.array([[1, -1j]])
    diagonal = DiagonalSystem(A, B, C)
    both = [np.concatenate([v, v.conj()], axis=1) for v in (A, B, C)]
    dense = DenseSystem(np.diag(both[0][0])[None], both[1], both[2])
    none = np.zeros((0, 1, 2), complex)
    dplr = DPLRSystem(Lambda_bar=A, P_bar=none, Q_bar=none, B_bar=B, C=C)
    i = np.arange(9)
    for power in (1, 2, 3):
        expected = 2 * ((1 + 1j) ** power * 0.5**i * 1j**i).real + 2 * (-1j * 2.0**power * (-0.5) ** i).real
        assert np.array_equal(SCIPY.kernel(diagonal, 9, power)[0], expected)
        assert np.array_equal(SCIPY.kernel(dense, 9, power)[0], expected)
        # 16 points with poles 0.4 or more away: 16 values of size <= 16, a few units of 2^-53 each.
        assert np.abs(SCIPY.kernel(dplr, 9, power)[0] - expected).max() <= 16 * 16 * 10 * 2.0**-53
        assert np.array_equal(SCIPY.kernel(dplr, 1, power)[0], expected[:1])


def test_kernel_of_all_modes_stored() -> None:
    """Without conjugate pairs the kernel is Re(C Āⁱ B̄) of the stored modes alone, in both structures."""
    A, B, C = np.array([[0.5j]]), np.array([[1 + 1j]]), np.array([[1 - 2j]])
    expected = [3.0, 0.5, -0.75, -0.125]  # (3 - i) (i/2)^k
    diagonal = DiagonalSystem(A, B, C, conjugate_pairs=False)
    assert np.array_equal(SCIPY.kernel(diagonal, 4)[0], expected)
    low_rank = np.ones((1, 1, 1))
    dplr = DPLRSystem(
        Lambda_bar=A + 1, P_bar=low_rank, Q_bar=low_rank, B_bar=B, C=C, conjugate_pairs=False
    )  # the same matrix, 1 x 1
    # 4 points, poles at least 0.4 away, a handful of operations of size <= 16 each.
    assert np.abs(SCIPY.kernel(dplr, 4)[0] - expected).max() <= 4 * 16 * 10 * 2.0**-53


def test_power_of_the_input_vector() -> None:
    system = integer_system(0)
    assert np.array_equal(SCIPY.kernel(system, 6, 3), SCIPY.kernel(system.with_input_power(3), 6))


@pytest.mark.parametrize("structure", ["diagonal", "dplr", "dense"])
def test_float32_kernel_is_the_double_precision_kernel_rounded_once(structure: str) -> None:
    single = random_system(1, "float32")
    rng = np.random.default_rng(2)
    if structure == "dplr":
        factor = (0.1 * rng.standard_normal((1, 3, 5))).astype("complex64")
        arguments: dict[str, Any] = {"P_bar": factor, "Q_bar": factor, "B_bar": single.B_bar, "C": single.C}
        system: Any = DPLRSystem(Lambda_bar=0.7 * single.A_bar, **arguments)
    elif structure == "dense":
        system = DenseSystem(rng.standard_normal((3, 5, 5)).astype("f") / 5, single.B_bar, single.C)
    else:
        system = single
    kernel = SCIPY.kernel(system, 40, 2)
    assert kernel.dtype == np.float32
    assert np.array_equal(kernel, SCIPY.kernel(system.astype("float64"), 40, 2).astype("float32"))


def test_real_dense_system_stays_real(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def recorded(A_bar: Array, B_bar: Array, C: Array, length: int) -> Array:
        seen.append(A_bar.dtype.name)
        return np.zeros((len(C), length))

    monkeypatch.setattr(scipy_backend, "dense_kernel", recorded)
    SCIPY.kernel(DenseSystem(np.eye(2, dtype="f")[None], np.ones((1, 2), "f"), np.ones((1, 2), "f")), 3)
    SCIPY.kernel(DenseSystem(np.eye(2)[None], np.ones((1, 2)), np.ones((1, 2)) * 1j), 3)
    assert seen == ["float64", "complex128"]


def golden_cases() -> list[str]:
    with np.load(GOLDEN) as data:
        return sorted({key.rpartition("/")[0] for key in data if key.startswith("diag")})


@pytest.mark.parametrize("case", golden_cases())
def test_golden_kernels(case: str) -> None:
    with np.load(GOLDEN) as data:
        w, B, C, dt, K = (data[f"{case}/{name}"] for name in ("w", "B", "C", "dt", "K"))
    z = dt[:, None] * w
    if "bilinear" in case:
        system = DiagonalSystem((1 + z / 2) / (1 - z / 2), dt[:, None] * B / (1 - z / 2), C)
    else:
        system = DiagonalSystem(np.exp(z), np.expm1(z) / w * B, C)
    error = np.abs(SCIPY.kernel(system, K.shape[1]) - K)
    # Agreement stated with the golden values; test_cauchy.py has the DPLR cases.
    assert (error <= 1e-12 * np.abs(K).max(axis=1, keepdims=True)).all()


@pytest.mark.parametrize(("length", "power", "named"), [(-1, 1, "length"), (3, 0, "power")])
def test_kernel_sizes_out_of_range(length: int, power: int, named: str) -> None:
    with pytest.raises(ParameterError, match=f"{named} is {min(length, power)}"):
        SCIPY.kernel(integer_system(0), length, power)


# --- scan and cascade --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("on", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_scan_is_exact_for_integers(shape: tuple[int, ...], on: bool, real: bool, dtype: str) -> None:
    system = integer_system(1, real=real).astype(dtype)
    u = integer_inputs(2, *shape, dtype=dtype)
    start = integer_inputs(3, shape[0], 3, 2) + (0 if real else 1j)
    kind = start.dtype if dtype == "float64" else np.dtype("float32" if real else "complex64")
    for state in (None, start.astype(kind)):
        y, final = SCIPY.scan(system, u, state, liquid=on)
        expected, last = liquid(system, u, np.zeros((shape[0], 3, 2)) if state is None else state, on=on)
        assert (y.dtype, final.dtype) == (np.dtype(dtype), kind)
        assert np.array_equal(y, expected)
        assert np.array_equal(final, last)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("kind", ["truncated", "chain"])
@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("shape", SHAPES)
def test_cascade_is_exact_for_integers(shape: tuple[int, ...], order: int, kind: Any, real: bool, dtype: str) -> None:
    system = integer_system(1, real=real).astype(dtype)
    u = integer_inputs(2, *shape, dtype=dtype)
    start = integer_inputs(3, shape[0], order, 3, 2) + (0 if real else 1j)
    state_kind = start.dtype if dtype == "float64" else np.dtype("float32" if real else "complex64")
    for state in (None, start.astype(state_kind)):
        y, final = SCIPY.cascade(system, u, state, order=order, kind=kind)
        assert final is not None
        expected, last = cascade(system, u, np.zeros(start.shape) if state is None else state, kind)
        assert (y.dtype, final.dtype) == (np.dtype(dtype), state_kind)
        assert np.array_equal(y, expected)
        assert np.array_equal(final, last)


def test_all_modes_stored() -> None:
    system = integer_system(4, conjugate_pairs=False)
    u = integer_inputs(5, 2, 3, 6)
    assert np.array_equal(SCIPY.scan(system, u, liquid=True)[0], liquid(system, u, np.zeros((2, 3, 2)))[0])


@pytest.mark.parametrize(("n_channels", "n_modes"), [(1, 1), (1, 4), (5, 1)])
def test_single_channels_and_modes(n_channels: int, n_modes: int) -> None:
    system = integer_system(6, n_channels=n_channels, n_modes=n_modes)
    u = integer_inputs(7, 2, n_channels, 6)
    zero = np.zeros((2, n_channels, n_modes))
    assert np.array_equal(SCIPY.scan(system, u, liquid=True)[0], liquid(system, u, zero)[0])


def computations(system: DiagonalSystem, u: Array, state: Array | None = None) -> list[tuple[Any, Any]]:
    """Every form of a recurrence with its final state; `state` for the scans only."""
    stacked = None if state is None else np.repeat(state[:, None], 3, axis=1)
    return [
        SCIPY.scan(system, u, state, liquid=True),
        SCIPY.scan(system, u, state, liquid=False),
        SCIPY.cascade(system, u, stacked, order=3, kind="truncated"),
        SCIPY.cascade(system, u, stacked, order=3, kind="chain"),
    ]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cutting_and_carrying_changes_no_bit(dtype: str) -> None:
    system = random_system(0, dtype)
    u = np.random.default_rng(1).standard_normal((2, 3, 60)).astype(dtype)
    runs: list[Any] = [
        lambda v, x: SCIPY.scan(system, v, x, liquid=False),
        lambda v, x: SCIPY.cascade(system, v, x, order=3, kind="truncated"),
        lambda v, x: SCIPY.cascade(system, v, x, order=3, kind="chain"),
    ]
    if dtype == "float64":
        # In single precision some versions of BLAS round every second step otherwise (test_first_order.py).
        runs.append(lambda v, x: SCIPY.scan(system, v, x, liquid=True))
    for run in runs:
        y, final = run(u, None)
        for cut in (1, 31, 60):
            first, carried = run(u[..., :cut], None)
            rest, last = run(u[..., cut:], carried)
            assert np.array_equal(np.concatenate([first, rest], axis=-1), y)
            assert np.array_equal(last, final)


def test_pieces_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    system = random_system(0)
    rng = np.random.default_rng(1)
    u, state = rng.standard_normal((3, 3, 40)), rng.standard_normal((3, 3, 5)) + 0j
    expected = computations(system, u, state)
    whole = scipy_backend.pieces
    for steps in (1, 7, 80):
        monkeypatch.setattr(scipy_backend, "pieces", lambda sizes, item, n=steps: whole(sizes, item, n * item))
        for (y, final), (y_whole, final_whole) in zip(computations(system, u, state), expected, strict=True):
            assert np.array_equal(y, y_whole)
            assert np.array_equal(final, final_whole)


def test_runs_and_memory_order_change_no_bit() -> None:
    system = random_system(0)
    u = np.random.default_rng(1).standard_normal((2, 3, 40))
    strided = np.zeros((2, 3, 80))[..., ::2]
    strided[...] = u
    for again in (u, np.asfortranarray(u), strided):
        for (y, final), (y_first, final_first) in zip(
            computations(system, again), computations(system, u), strict=True
        ):
            assert np.array_equal(y, y_first)
            assert np.array_equal(final, final_first)


def test_arguments_are_not_written_to() -> None:
    system = integer_system(0)
    u, state = np.ones((1, 3, 4)), np.ones((1, 3, 2), complex)
    u.flags.writeable = state.flags.writeable = False
    for _, final in computations(system, u, state):
        assert not np.shares_memory(final, state)
    empty = SCIPY.scan(system, u[..., :0], state, liquid=True)[1]
    assert not np.shares_memory(empty, state)
    assert (state == 1).all()


def test_recurrences_compute_in_single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """No float32 problem is computed in double precision: only single-precision arrays enter and leave the solvers."""
    seen = set()

    def recorded(function: Any) -> Any:
        def call(a: Any, drive: Array, start: Any) -> Array:
            x = function(a, drive, start)
            seen.update({np.asarray(v).dtype.name for v in (a, drive, start, x)})
            return np.asarray(x)

        return call

    for name in ("constant_recurrence", "varying_recurrence"):
        monkeypatch.setattr(scipy_backend, name, recorded(getattr(scipy_backend, name)))
    computations(random_system(0, "float32"), np.ones((1, 3, 5), "f"))
    assert seen == {"complex64"}


def test_output_within_the_rounding_of_working_precision() -> None:
    """Running bound of `scan`: per step √5 + 1 + 1 units for a = ā + b̄u, product and sum, in any association 3√2.

    Read-out: 3 + ceil(log2 M) units.  The reference is the same recurrence in twice the precision.
    """
    unit = 2.0**-24
    system = random_system(0, "float32")
    u = np.random.default_rng(1).standard_normal((2, 3, 200)).astype("f")
    A, B, C = (v.astype("complex128") for v in (system.A_bar, system.B_bar, system.C))
    x, error = np.zeros((2, 3, 5), complex), np.zeros((2, 3, 5))
    got, _ = SCIPY.scan(system, u, liquid=True)
    for k in range(200):
        w = B * u[..., k, None].astype(float)
        a = A + w
        # |δa| <= u (2 |w| + |a|), and 3√2 units for product and sum.
        error = np.abs(a) * error + unit * ((2 * np.abs(w) + np.abs(a)) * (np.abs(x) + error) + np.abs(w))
        x = a * x + w
        error += 3 * np.sqrt(2) * unit * (np.abs(x) + error + 2 * np.abs(w))
        y = 2 * (C * x).sum(axis=-1).real
        limit = 2 * (np.abs(C) * (error + 6 * unit * (np.abs(x) + error))).sum(axis=-1)
        assert (np.abs(got[..., k] - y) <= limit).all()


# --- convolve, correlate, windows --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_convolve_keeps_dtype_and_ignores_workers(dtype: str) -> None:
    rng = np.random.default_rng(0)
    kernel, u = rng.standard_normal((3, 70)).astype(dtype), rng.standard_normal((4, 3, 50)).astype(dtype)
    results = [SciPyBackend(workers=n).convolve(kernel, u) for n in (1, 2, 5)]
    assert results[0].dtype == dtype
    for other in results[1:]:
        assert np.array_equal(other, results[0])


def test_convolution_with_the_kernel_is_the_linear_scan() -> None:
    system = integer_system(1)
    u = integer_inputs(2, 2, 3, 8)
    y = SCIPY.convolve(SCIPY.kernel(system, 8), u)
    # Integers that far from half of one: rounding must give the exact ones.
    assert np.array_equal(np.rint(y), SCIPY.scan(system, u, liquid=False)[0])


def test_windowed_chain_with_every_input_in_the_window_is_the_chain() -> None:
    system = integer_system(1)
    u = integer_inputs(2, 2, 3, 6)
    y, none = SCIPY.cascade(system, u, order=2, kind="chain", window=6)
    assert none is None
    assert np.array_equal(y, SCIPY.cascade(system, u, order=2, kind="chain")[0])
    windowed, _ = SCIPY.cascade(system, u, order=2, kind="chain", window=2)
    for k in range(1, 6):
        restarted, _ = SCIPY.cascade(system, u[..., k - 1 : k + 1], order=2, kind="chain")
        assert np.array_equal(windowed[..., k], restarted[..., -1])


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("kind", ["products", "running", "elementary"])
def test_correlate_reaches_the_right_function(kind: Any, window: int | None) -> None:
    u = np.array([[[1.0, 2, 3, 4]]])
    expected = {
        ("products", None): [0, 2, 6, 12],
        ("products", 3): [0, 2, 6, 12],
        ("running", None): [0, 2, 8, 20],
        ("running", 3): [0, 2, 8, 18],
        ("elementary", None): [0, 2, 11, 35],
        ("elementary", 3): [0, 2, 11, 26],
    }[kind, window]
    terms, sums = SCIPY.correlate(u, order=2, kind=kind, window=window)
    assert np.array_equal(terms, [[[expected]]])
    assert (sums is None) == (kind == "products" or window is not None)
    if sums is not None:
        assert np.array_equal(sums[:, 0, 0], [20] if kind == "running" else [10, 35])


@pytest.mark.parametrize("kind", ["running", "elementary"])
def test_correlate_carries_sums_and_previous_inputs(kind: Any) -> None:
    u = integer_inputs(0, 2, 3, 9)
    whole, final = SCIPY.correlate(u, order=3, kind=kind)
    first, sums = SCIPY.correlate(u[..., :4], order=3, kind=kind)
    rest, last = SCIPY.correlate(u[..., 4:], order=3, kind=kind, sums=sums, previous=u[..., :4])
    assert np.array_equal(np.concatenate([first, rest], axis=-1), whole)
    assert last is not None
    assert np.array_equal(last, final)
    windowed, _ = SCIPY.correlate(u, order=3, kind=kind, window=4)
    tail, _ = SCIPY.correlate(u[..., 4:], order=3, kind=kind, window=4, previous=u[..., 1:4])
    assert np.array_equal(tail, windowed[..., 4:])


@pytest.mark.parametrize("kind", ["products", "running", "elementary"])
@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("order", [1, 3])
def test_correlate_shapes(order: int, shape: tuple[int, ...], window: int | None, kind: Any) -> None:
    u = integer_inputs(0, *shape, dtype="float32")
    terms, sums = SCIPY.correlate(u, order=order, kind=kind, window=window, previous=np.ones((shape[0], 3, 2), "f"))
    assert (terms.shape, terms.dtype) == ((order - 1, *shape), np.float32)
    if sums is not None:
        assert sums.shape == (order if kind == "elementary" else order - 1, *shape[:2])


# --- what is refused ---------------------------------------------------------------------------------------


def test_options_that_do_not_fit_together() -> None:
    system, u = integer_system(0), np.zeros((1, 3, 4))
    with pytest.raises(ParameterError, match=r"unknown cascade kind 'chains'.*Did you mean 'chain'"):
        SCIPY.cascade(system, u, order=2, kind="chains")  # type: ignore[arg-type, unused-ignore]
    with pytest.raises(ParameterError, match="window is 3 with kind 'truncated'"):
        SCIPY.cascade(system, u, order=2, kind="truncated", window=3)
    with pytest.raises(ParameterError, match="window is 3 with kind 'chain' and a state"):
        SCIPY.cascade(system, u, np.zeros((1, 2, 3, 2), complex), order=2, kind="chain", window=3)
    with pytest.raises(ParameterError, match="window is 1; it must be at least 2"):
        SCIPY.cascade(system, u, order=2, kind="chain", window=1)
    with pytest.raises(ParameterError, match="order is 0"):
        SCIPY.cascade(system, u, order=0, kind="chain")
    with pytest.raises(ParameterError, match="order is 0"):
        SCIPY.correlate(u, order=0, kind="products")
    with pytest.raises(ParameterError, match="window is 1; it must be at least 2"):
        SCIPY.correlate(u, order=2, kind="running", window=1)
    with pytest.raises(ParameterError, match=r"unknown correlation kind 'product'.*'products'"):
        SCIPY.correlate(u, order=2, kind="product")  # type: ignore[arg-type, unused-ignore]
    with pytest.raises(ParameterError, match="only sums over all inputs are carried"):
        SCIPY.correlate(u, order=2, kind="running", window=3, sums=np.zeros((1, 1, 3)))


def test_shapes_and_dtypes_that_do_not_fit() -> None:
    system, u = integer_system(0), np.zeros((1, 3, 4))
    with pytest.raises(ShapeError, match="state has shape"):
        SCIPY.scan(system, u, np.zeros((3, 2), complex), liquid=True)
    with pytest.raises(ShapeError, match="system has 3"):
        SCIPY.scan(system, u[:, :2], liquid=True)
    with pytest.raises(ShapeError, match="kernel has shape"):
        SCIPY.convolve(np.zeros((2, 4)), u)
    with pytest.raises(ShapeError, match="previous has shape"):
        SCIPY.correlate(u, order=2, kind="products", previous=np.zeros((3, 1)))
    with pytest.raises(ShapeError, match="sums has shape"):
        SCIPY.correlate(u, order=2, kind="elementary", sums=np.zeros((1, 1, 3)))
    with pytest.raises(DTypeError, match="int64"):
        SCIPY.convolve(np.zeros((3, 4)), np.zeros((1, 3, 4), int))
