"""Gradients of convolutions by FFT, played in NumPy, are within their bounds, and wrong ones are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import fft as scipy_fft

from liquid_ssm.backend import Arithmetic, Backend, Capabilities
from liquid_ssm.backends._correlations import correlate, correlate_vjp
from liquid_ssm.gradients import run_vjp
from liquid_ssm.oracle import fft_gradients
from liquid_ssm.oracle.adjoint import gradients, gradients_by_duals
from liquid_ssm.oracle.adjoint_bounds import gradient_bounds
from liquid_ssm.oracle.adjoint_moduli import GradientProblem, moduli_gradients, roundings
from liquid_ssm.oracle.rounding import RoundingModel
from liquid_ssm.problem import ModeSpec
from liquid_ssm.registry import get_backend
from liquid_ssm.rounding_errors import realization_of
from liquid_ssm.testing.strategies import random_system

DTYPES = ("float32", "float64")
SPECS = [
    ModeSpec("s4"),
    ModeSpec("kb", 3, "adjacent"),
    ModeSpec("kb", 3, "adjacent", 3),
    ModeSpec("kb", 2, "adjacent", 7),
    ModeSpec("pb", 3, "all"),
    ModeSpec("pb", 3, "adjacent"),
    ModeSpec("pb", 2, "all", 3),
]


NAMES = {"A_bar": "A", "Lambda_bar": "A", "B_bar": "B", "C": "C", "P_bar": "P", "Q_bar": "Q"}


class Convolutions(Backend):
    """Kernels by exponentials, everything linear by FFT, all of it in the dtype of the system; no recurrence."""

    name = "convolutions"
    capabilities = Capabilities({"kernel": ("diagonal",), "convolve": (), "correlate": ()}, gradients=True)
    arithmetic = Arithmetic(powers="exponentials")
    linear_method = "convolution"

    def kernel(self, system: Any, length: int, power: int = 1) -> Any:
        weights = system.C * system.B_bar**power
        return system.weight * (weights[..., None] * self.powers(system, length)).sum(axis=1).real

    def powers(self, system: Any, length: int) -> Any:
        steps = np.arange(length).astype(system.dtype)
        return np.exp(np.log(system.A_bar)[..., None] * steps)  # (H, M, length)

    def kernel_vjp(self, system: Any, length: int, power: int, grad: Any) -> dict[str, Any]:
        table = self.powers(system, length)
        steps = np.arange(length).astype(system.dtype)
        # a time step in front makes l āˡ⁻¹ without a division
        before = np.concatenate([0 * table[..., :1], table[..., :-1]], axis=-1)
        B, C, w = system.B_bar, system.C, system.weight
        whole = w * (grad[:, None] * table).sum(axis=-1)
        slope = w * ((grad * steps)[:, None] * before).sum(axis=-1)
        return {
            "A_bar": np.conj(C * B**power * slope),
            "B_bar": np.conj(power * B ** (power - 1) * C * whole),
            "C": np.conj(B**power * whole),
        }

    def convolve_vjp(self, kernel: Any, u: Any, grad: Any) -> tuple[Any, Any]:
        length, size = u.shape[-1], kernel.shape[-1]
        n = 1 << (length + size - 2).bit_length()
        F, G, U = (scipy_fft.rfft(v, n) for v in (kernel, grad, u))
        grad_kernel = scipy_fft.irfft(self.conjugate(U) * G, n).astype(u.dtype)[..., :size].sum(axis=0)
        return grad_kernel, scipy_fft.irfft(self.conjugate(F) * G, n).astype(u.dtype)[..., :length]

    def conjugate(self, spectrum: Any) -> Any:
        return np.conj(spectrum)

    def correlate(self, u: Any, **options: Any) -> Any:
        return correlate(u, **({"window": None, "sums": None, "previous": None} | options))

    def correlate_vjp(self, u: Any, grad_terms: Any, grad_sums: Any, **options: Any) -> Any:
        return correlate_vjp(u, grad_terms, grad_sums, **({"window": None, "sums": None, "previous": None} | options))


class Case:
    def __init__(self, spec: ModeSpec, dtype: str, seed: int, length: int, **system: Any) -> None:
        rng = np.random.default_rng(seed)
        options = {"n_channels": 2, "n_modes": 2, "seed": seed, "drive": 0.5, "decay": 0.3} | system
        self.system = random_system(options.pop("structure", "diagonal"), **options).astype(dtype)
        self.u, self.grad_y = rng.normal(size=(2, 2, 2, length)).astype(dtype)
        self.spec, self.dtype = spec, dtype
        self.options: dict[str, Any] = {
            "mode": spec.mode, "order": spec.order, "correlations": spec.correlations, "window": spec.window
        }  # fmt: skip

    def computed(self, backend: Backend) -> dict[str, Any]:
        found = run_vjp(backend, self.system, self.u, self.spec, self.grad_y)
        return {"u": found.u, **{NAMES[name]: value for name, value in found.parameters.items()}}

    def exact(self) -> dict[str, Any]:
        found = gradients_by_duals(realization_of(self.system), self.u, grad_y=self.grad_y, **self.options)
        return {
            name: np.array([complex(z.real, z.imag) for z in v.ravel()]).reshape(v.shape) for name, v in found.items()
        }

    def bounds(self, *, linear_fft: bool = True, **model: Any) -> dict[str, Any]:
        options = {"fft": True, "powers": "exponentials"} | model
        arithmetic = RoundingModel.of_dtype(self.dtype, **options)
        r = realization_of(self.system)
        return gradient_bounds(r, self.u, grad_y=self.grad_y, model=arithmetic, linear_fft=linear_fft, **self.options)


def largest(computed: dict[str, Any], exact: dict[str, Any], bounds: dict[str, Any]) -> dict[str, float]:
    """Error over bound for each gradient, where it is largest."""
    assert set(computed) == set(exact) == set(bounds)
    found = {}
    for name, value in computed.items():
        assert value.shape == bounds[name].shape, name
        error = np.abs(value - exact[name])
        found[name] = float((error / (bounds[name] + 2.0**-52 * np.abs(exact[name]))).max())
    return found


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.label)
def test_gradients_by_fft_are_within_bounds_that_say_something(spec: ModeSpec, dtype: str) -> None:
    ratios = []
    for seed, length in enumerate((1, 2, 3, 4, 4, 9)):
        case = Case(spec, dtype, seed, length, decay=(0.0, 0.3, 2.0)[seed % 3])
        exact, bounds = case.exact(), case.bounds()
        found = largest(case.computed(Convolutions()), exact, bounds)
        assert all(ratio <= 1 for ratio in found.values()), found
        for name, value in exact.items():
            # no gradient may be wrong by its size as a whole
            assert np.linalg.norm(bounds[name]) < 0.01 * np.linalg.norm(value) or length == 1, name
        ratios += list(found.values())
    print(f"{spec.label} {dtype}: bound over error, nearest of a gradient, median {1 / np.median(ratios):.0f}")
    assert np.median(ratios) >= 1 / 300


class WithoutConjugate(Convolutions):
    def conjugate(self, spectrum: Any) -> Any:
        return spectrum


class LateByOne(Convolutions):
    def convolve_vjp(self, kernel: Any, u: Any, grad: Any) -> tuple[Any, Any]:
        grad_kernel, grad_u = super().convolve_vjp(kernel, u, grad)
        return np.roll(grad_kernel, 1, axis=-1), grad_u


class WithoutRows(Convolutions):
    def convolve_vjp(self, kernel: Any, u: Any, grad: Any) -> tuple[Any, Any]:
        return super().convolve_vjp(kernel, u[:1], grad[:1])[0], super().convolve_vjp(kernel, u, grad)[1]


class WithoutWeight(Convolutions):
    def kernel_vjp(self, system: Any, length: int, power: int, grad: Any) -> dict[str, Any]:
        return {name: value / 2 for name, value in super().kernel_vjp(system, length, power, grad).items()}


class WithoutPower(Convolutions):
    def kernel_vjp(self, system: Any, length: int, power: int, grad: Any) -> dict[str, Any]:
        found = super().kernel_vjp(system, length, power, grad)
        return found | {"B_bar": found["B_bar"] / power}


class WithoutSteps(Convolutions):
    def kernel_vjp(self, system: Any, length: int, power: int, grad: Any) -> dict[str, Any]:
        steps = np.arange(length).clip(1).astype(grad.dtype)
        return super().kernel_vjp(system, length, power, grad) | {
            "A_bar": super().kernel_vjp(system, length, power, grad / steps)["A_bar"]
        }


class NotConjugated(Convolutions):
    def kernel_vjp(self, system: Any, length: int, power: int, grad: Any) -> dict[str, Any]:
        return {name: value.conj() for name, value in super().kernel_vjp(system, length, power, grad).items()}


class InHalfPrecision(Convolutions):
    def convolve_vjp(self, kernel: Any, u: Any, grad: Any) -> tuple[Any, Any]:
        lower = {"float32": np.float16, "float64": np.float32}[u.dtype.name]
        return tuple(v.astype(lower).astype(u.dtype) for v in super().convolve_vjp(kernel, u, grad))  # type: ignore


class WithRecurrence(Convolutions):
    """A backend with a recurrence, whose kernels of low-rank systems are its answers to an impulse."""

    capabilities = Capabilities(
        {"kernel": ("diagonal", "dplr"), "convolve": (), "correlate": (), "scan": ("diagonal", "dplr")}, gradients=True
    )
    late = 0

    def kernel(self, system: Any, length: int, power: int = 1) -> Any:
        return get_backend("numpy").kernel(system, length, power)

    def kernel_vjp(self, system: Any, length: int, power: int, grad: Any) -> dict[str, Any]:
        grad = np.roll(grad, self.late, axis=-1)
        if system.structure == "diagonal":
            return super().kernel_vjp(system, length, power, grad)
        return get_backend("numpy").kernel_vjp(system, length, power, grad)

    def scan_vjp(self, *arguments: Any, **options: Any) -> Any:
        return get_backend("numpy").scan_vjp(*arguments, **options)


class RecurrenceLate(WithRecurrence):
    late = 1


class RecurrenceInHalfPrecision(WithRecurrence):
    def convolve_vjp(self, kernel: Any, u: Any, grad: Any) -> tuple[Any, Any]:
        return InHalfPrecision().convolve_vjp(kernel, u, grad)


class RecurrenceWithoutConjugate(WithRecurrence):
    def conjugate(self, spectrum: Any) -> Any:
        return spectrum


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("structure", ["diagonal", "dplr"])
@pytest.mark.parametrize("window", [3, 6])
def test_heads_by_fft_beside_a_recurrence_are_within_their_bounds(structure: str, window: int, dtype: str) -> None:
    ratios = []
    for seed, length in enumerate((1, 2, 4, 5)):
        case = Case(ModeSpec("kb", 3, "adjacent", window), dtype, seed, length, structure=structure)
        exact, bounds = case.exact(), case.bounds(linear_fft=False)
        found = largest(case.computed(WithRecurrence()), exact, bounds)
        assert all(ratio <= 1 for ratio in found.values()), found
        ratios += list(found.values())
        if length > 1:
            for bug, least in ((RecurrenceLate, 10), (RecurrenceWithoutConjugate, 10), (RecurrenceInHalfPrecision, 2)):
                assert max(largest(case.computed(bug()), exact, bounds).values()) > least, bug
    print(f"{structure}, window {window}, {dtype}: bound over error, median {1 / np.median(ratios):.0f}")
    assert np.median(ratios) >= 1 / 1000


def test_modes_without_fft_keep_their_bounds() -> None:
    """With a recurrence only windowed heads are FFTs; of liquid modes nothing ever is."""
    r = realization_of(random_system("diagonal", n_channels=1, n_modes=2))
    u = np.random.default_rng(0).normal(size=(1, 1, 4))
    fft, none = (RoundingModel.of_dtype("float64", fft=value) for value in (True, False))
    for linear_fft, modes in (
        (False, ("s4", "liquid", "truncated", "kb", "pb")),
        (True, ("liquid", "truncated", "kb")),
    ):
        for mode in modes:
            given = {"mode": mode, "grad_y": u, "order": 3}
            by_fft = gradient_bounds(r, u, model=fft, linear_fft=linear_fft, **given)
            plain = gradient_bounds(r, u, model=none, **given)
            assert set(by_fft) == set(plain)
            assert all(np.array_equal(by_fft[name], plain[name]) for name in plain)


BUGS = [WithoutConjugate, LateByOne, WithoutRows, WithoutWeight, WithoutSteps, NotConjugated, InHalfPrecision]


@pytest.mark.parametrize("length", [100, 300])
@pytest.mark.parametrize("decay", [0.0, 0.05, 0.5])
def test_long_sequences_are_within_bounds_that_still_say_something(length: int, decay: float) -> None:
    case = Case(ModeSpec("s4"), "float32", 1, length, decay=decay, n_modes=4)
    exact = gradients(realization_of(case.system), case.u, "s4", case.grad_y, precision="longdouble")
    del exact["state"]
    bounds = case.bounds()
    assert max(largest(case.computed(Convolutions()), exact, bounds).values()) <= 1
    for name, value in exact.items():
        # float32 has 24 bits; every gradient keeps at least five of them as a whole
        assert np.linalg.norm(bounds[name]) <= 2.0**-5 * np.linalg.norm(np.abs(value).astype(float)), name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bug", BUGS)
@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.label)
def test_mistakes_exceed_the_bounds_in_four_steps(bug: type[Convolutions], spec: ModeSpec, dtype: str) -> None:
    case = Case(spec, dtype, 5, 4)
    assert max(largest(case.computed(bug()), case.exact(), case.bounds()).values()) > 10


@pytest.mark.parametrize("spec", [s for s in SPECS if s.mode == "pb"], ids=lambda s: s.label)
def test_a_missing_power_of_a_response_exceeds_the_bounds(spec: ModeSpec) -> None:
    case = Case(spec, "float32", 5, 4)
    assert max(largest(case.computed(WithoutPower()), case.exact(), case.bounds()).values()) > 10


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.label)
def test_less_knowledge_of_the_computation_gives_larger_bounds(spec: ModeSpec) -> None:
    case = Case(spec, "float32", 1, 4)
    # kernels in float64 cost one rounding
    whole, finer = case.bounds(), case.bounds(kernel_dtype="float64")
    assert all(np.all(finer[name] <= whole[name]) for name in whole)
    assert any(np.any(finer[name] < whole[name]) for name in whole)
    wider = case.bounds(correlations="any")
    assert all(np.all(whole[name] <= wider[name]) for name in whole)


def slopes(r: Any, power: int, size: int) -> dict[str, Any]:
    """|∂K_l/∂θ| for l < size, (size, H, M), of a diagonal system."""
    steps = np.arange(size)[:, None, None]
    A, B, C = (np.abs(v).astype(float) for v in (r.A, r.B, r.C))
    return {
        "A": r.weight * steps * C * B**power * A ** np.maximum(steps - 1, 0),
        "B": r.weight * power * B ** (power - 1) * C * A**steps,
        "C": r.weight * B**power * A**steps,
    }


# Errors of one rounding are far below what the derivation allows for them, so random ones do not show whether a term is
# there.  Here each transform is off by 1, which hides everything else.


def let_transforms_be_off_by(norm: float, monkeypatch: Any) -> None:
    def bound(kernel: Any, kernel_error: Any, source: Any, *rest: Any) -> Any:
        return np.full(source.shape[:2], norm)

    monkeypatch.setattr(fft_gradients.convolution, "fft_bound", bound)


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("linear_fft", [True, False])
def test_errors_of_transforms_are_passed_on(window: int | None, linear_fft: bool, monkeypatch: Any) -> None:
    if window is None and not linear_fft:
        return
    case = Case(ModeSpec("kb", 3, "adjacent", window), "float64", 2, 4, decay=0.2)
    r, batch, length = realization_of(case.system), *case.u.shape[::2]
    monkeypatch.setattr(
        fft_gradients.convolution, "fft_bound", lambda kernel, error, source, *rest: np.ones(source.shape[:2])
    )
    found = case.bounds(linear_fft=linear_fft)
    sizes = {p: length if window is None else window - p + 1 for p in (2, 3)}
    wanted = {name: np.zeros(r.C.shape) for name in "ABC"}
    for p, size in (({1: length} if linear_fft else {}) | sizes).items():
        for name, d in slopes(r, p, size).items():
            # the cotangent of the kernel is off by 1 for each row of the batch
            wanted[name] += batch * np.sqrt((d**2).sum(axis=0))
    for name, bound in wanted.items():
        assert np.allclose(found[name], bound, rtol=1e-9), name
    v = np.pad(np.abs(case.u), ((0, 0), (0, 0), (2, 2)))
    left, right = (v[..., 2 - i : 2 - i + length] for i in (1, -1)), (v[..., 2 - i : 2 - i + length] for i in (2, -2))
    (before, after), (earlier, later) = left, right
    products = before + after  # of order 2
    # order 3: u_j with the two inputs before, around or after it; places beyond the end have no cotangent
    products = products + before * earlier + before * after + after * later
    assert np.allclose(found["u"], products + linear_fft, rtol=1e-9)


def test_errors_of_transforms_are_passed_on_to_low_rank_systems(monkeypatch: Any) -> None:
    case = Case(ModeSpec("kb", 2, "adjacent", 3), "float64", 2, 4, structure="dplr")
    r, batch = realization_of(case.system), len(case.u)
    monkeypatch.setattr(
        fft_gradients.convolution, "fft_bound", lambda kernel, error, source, *rest: np.ones(source.shape[:2])
    )
    found = case.bounds(linear_fft=False)
    powered = type(r)("dplr", r.A, r.B**2, r.C, r.P, r.Q, conjugate_pairs=r.conjugate_pairs)
    impulse = np.zeros((1, *case.u.shape[1:2], 2))
    impulse[..., 0] = 1
    runs = [
        gradients(powered, impulse, "s4", np.broadcast_to(np.eye(2)[i], impulse.shape), precision="longdouble")
        for i in range(2)
    ]
    for name in "ABCPQ":
        scale = np.abs(2 * r.B) if name == "B" else 1.0
        wanted = batch * scale * np.sqrt(sum(np.abs(run[name]) ** 2 for run in runs)).astype(float)
        assert np.allclose(found[name], wanted, rtol=1e-9, atol=1e-12), name


@pytest.mark.parametrize("spec", [s for s in SPECS if s.mode == "pb"], ids=lambda s: s.label)
def test_what_is_no_convolution_keeps_its_bound_by_moduli(spec: ModeSpec, monkeypatch: Any) -> None:
    case = Case(spec, "float64", 2, 4)
    r = realization_of(case.system)
    zeros = {name: np.zeros(r.C.shape) for name in "ABC"}
    monkeypatch.setattr(
        fft_gradients.convolution, "fft_bound", lambda kernel, error, source, *rest: np.zeros(source.shape[:2])
    )
    monkeypatch.setattr(fft_gradients, "kernel_gradient_bounds", lambda *args, **more: zeros)
    found = case.bounds()
    model = RoundingModel.of_dtype("float64", fft=True, powers="exponentials")
    problem = GradientProblem(r, case.u, spec.mode, spec.order, spec.correlations, spec.window, None, case.grad_y, None)
    whole, linear = moduli_gradients(problem, model), moduli_gradients(problem.linear, model)
    n = roundings(problem, model)
    for name in "ABCu":
        others = whole[name] - linear[name]
        assert np.all(found[name] >= 2.0**-53 * n * others)
        assert np.all(found[name] <= 2.0**-53 * ((n + 20) * 1.01 * others + 20 * linear[name]) + 1e-300)


def test_nothing_in_the_batch_or_in_time() -> None:
    for spec in SPECS:
        for batch, length in ((0, 3), (2, 0), (0, 0)):
            case = Case(spec, "float64", 0, 3)
            case.u = case.grad_y = np.zeros((batch, 2, length))
            bounds = case.bounds()
            assert bounds["u"].shape == case.u.shape
            assert bounds["A"].shape == (2, 2)
            assert all(np.isfinite(bound).all() for bound in bounds.values())


@pytest.mark.parametrize("structure", ["dplr", "dense"])
def test_coupled_structures_are_refused(structure: str) -> None:
    r = realization_of(random_system(structure, n_channels=1))
    u = np.ones((1, 1, 3))
    with pytest.raises(ValueError, match=f"diagonal realizations, not for '{structure}'"):
        gradient_bounds(r, u, mode="s4", grad_y=u, model=RoundingModel.of_dtype("float64", fft=True))


def test_a_state_is_refused() -> None:
    r = realization_of(random_system("diagonal", n_channels=1, n_modes=2))
    u = np.ones((1, 1, 3))
    model = RoundingModel.of_dtype("float64", fft=True)
    with pytest.raises(ValueError, match="by FFT, which have no state"):
        gradient_bounds(r, u, mode="s4", grad_y=u, state=np.ones((1, 1, 2), complex), model=model)
