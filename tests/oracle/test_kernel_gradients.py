"""Gradients of kernels by explicit sums, written here in NumPy, are within their bounds; wrong ones are not."""

from __future__ import annotations

from dataclasses import replace
from math import isqrt
from typing import Any

import numpy as np
import pytest

from liquid_ssm.oracle.adjoint import gradients
from liquid_ssm.oracle.kernel_gradients import kernel_gradient_bounds, kernel_gradients
from liquid_ssm.oracle.realization import Realization
from liquid_ssm.oracle.rounding import RoundingModel

DTYPES = ("float32", "float64")


def random_case(seed: int, length: int, dtype: str, *, decay: float, modes: int = 3, turning: bool = True) -> Any:
    """A diagonal system of two channels and a cotangent of its kernel; |ā| from e^-decay to 1."""
    rng = np.random.default_rng(seed)
    kind = np.result_type(dtype, np.complex64)

    def normal() -> Any:
        return (rng.normal(size=(2, modes)) + 1j * rng.normal(size=(2, modes))).astype(kind)

    angle = rng.uniform(-np.pi, np.pi, (2, modes)) * turning
    A = np.exp(-decay * rng.random((2, modes)) + 1j * angle).astype(kind)
    return Realization("diagonal", A, normal(), normal()), rng.normal(size=(2, length)).astype(dtype)


def exact_gradients(r: Realization, grad: Any, power: int, precision: Any = "longdouble") -> dict[str, Any]:
    """By the adjoint recurrence of the answer to an impulse, with B̄^p for B̄."""
    wide = np.clongdouble
    B = r.B.astype(wide)
    impulse = np.zeros((1, *grad.shape))
    impulse[..., :1] = 1
    powered = replace(r, A=r.A.astype(wide), B=B**power, C=r.C.astype(wide))
    found = gradients(powered, impulse, "s4", grad[None], precision=precision)
    return {"A": found["A"], "B": found["B"] * np.conj(power * B ** (power - 1)), "C": found["C"]}


def sums(r: Realization, table: Any, before: Any, grad: Any, power: int, *, inside: bool = False) -> dict[str, Any]:
    """The three gradients from ā^l and ā^{l-1}, (H, M, length), by sums from left to right."""
    B, C, kind = r.B, r.C, table.dtype
    g = (r.weight * grad[:, None]).astype(table.real.dtype)
    steps = np.arange(grad.shape[-1]).astype(g.dtype)
    below = B ** (power - 1) if power > 1 else np.ones_like(B)

    def total(terms: Any) -> Any:
        return np.cumsum(terms, axis=-1)[..., -1].astype(kind) if terms.shape[-1] else np.zeros(B.shape, kind)

    factors = {"A": C * below * B, "B": power * C * below, "C": below * B}
    terms = {"A": g * steps * before, "B": g * table, "C": g * table}
    if inside:
        return {n: np.conj(total(terms[n] * f[..., None])) for n, f in factors.items()}
    return {n: np.conj(f * total(terms[n])) for n, f in factors.items()}


def by_exponentials(r: Realization, grad: Any, power: int, *, divide: bool = False, inside: bool = False) -> Any:
    steps = np.arange(grad.shape[-1]).astype(grad.dtype)
    log = np.log(r.A)[..., None]
    table = np.exp(log * steps)
    before = table / r.A[..., None] if divide else np.exp(log * (steps - 1).clip(0))
    return sums(r, table, before, grad, power, inside=inside)


def by_products(r: Realization, grad: Any, power: int) -> Any:
    """Baby steps ā^j and giant steps ā^{kQ} in the given precision."""
    length = grad.shape[-1]
    Q = isqrt(max(0, length - 1)) + 1
    baby = np.cumprod(np.stack([np.ones_like(r.A), *[r.A] * (Q - 1)], axis=-1), axis=-1)
    giant = np.cumprod(np.stack([np.ones_like(r.A), *[baby[..., -1] * r.A] * Q], axis=-1), axis=-1)
    table = (giant[..., None] * baby[..., None, :]).reshape(*r.A.shape, -1)[..., :length]
    before = np.concatenate([np.zeros_like(table[..., :1]), table[..., :-1]], axis=-1)[..., :length]
    return sums(r, table, before, grad, power)


def units(found: dict[str, Any], exact: dict[str, Any], bounds: dict[str, Any]) -> dict[str, float]:
    return {n: float((np.abs(found[n] - exact[n]) / bounds[n]).max(initial=0.0)) for n in exact}


def model(dtype: str, powers: Any = "exponentials", **more: Any) -> RoundingModel:
    return RoundingModel.of_dtype(dtype, fft=True, powers=powers, **more)


@pytest.mark.parametrize("power", [1, 2, 3])
@pytest.mark.parametrize("length", [0, 1, 2, 7])
def test_exact_gradients_are_those_of_the_answer_to_an_impulse(power: int, length: int) -> None:
    r, grad = random_case(power, length, "float32", decay=0.3)
    found, wanted = kernel_gradients(r, grad, power), exact_gradients(r, grad, power)
    for name in wanted:
        assert np.allclose(found[name], wanted[name], rtol=1e-15, atol=1e-16)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("powers", ["exponentials", "products"])
def test_random_and_slow_systems_are_within_the_bounds(dtype: str, powers: Any, capsys: Any) -> None:
    ratios: list[float] = []
    for seed in range(24):
        decay, length, power = (0.0, 1e-3, 0.1, 2.0)[seed % 4], (1, 5, 60, 300)[seed // 4 % 4], 1 + seed % 3
        r, grad = random_case(seed, length, dtype, decay=decay, turning=bool(seed % 5))
        exact, bounds = kernel_gradients(r, grad, power), kernel_gradient_bounds(r, grad, power, model(dtype, powers))
        programs = [by_products] if powers == "products" else [
            by_exponentials,
            lambda *a: by_exponentials(*a, divide=True),
            lambda *a: by_exponentials(*a, inside=True),
        ]  # fmt: skip
        for program in programs:
            found = units(program(r, grad, power), exact, bounds)
            assert all(ratio <= 1 for ratio in found.values()), (seed, found)
            ratios += [ratio for ratio in found.values() if ratio]
    with capsys.disabled():
        print(f"\n{powers}, {dtype}: bound over error, median {np.median(1 / np.array(ratios)):.0f}")
    assert np.median(ratios) >= 1 / 100


@pytest.mark.parametrize("powers", ["exponentials", "products"])
def test_what_is_computed_in_float64_is_rounded_once(powers: Any) -> None:
    ratios = []
    for power in (1, 3):
        r, grad = random_case(power, 50, "float32", decay=0.1)
        program = by_products if powers == "products" else by_exponentials
        # a system keeps B̄^{∘p} in its own dtype, and the slope p B̄^{p-1} is applied to a rounded gradient
        powered = replace(r, B=(r.B**power).astype(np.complex64))
        found = program(powered.astype(np.complex128), grad.astype(float), 1)
        found = {name: value.astype(np.complex64) for name, value in found.items()}
        found["B"] = found["B"] * np.conj(np.float32(power) * r.B ** (power - 1))
        bounds = kernel_gradient_bounds(r, grad, power, model("float32", powers, kernel_dtype="float64"))
        ratios += list(units(found, kernel_gradients(r, grad, power), bounds).values())
    assert max(ratios) <= 1
    assert max(ratios) > 0.1
    r, grad = random_case(1, 50, "float32", decay=0.1)
    bounds = kernel_gradient_bounds(r, grad, 1, model("float32", powers, kernel_dtype="float64"))
    in_float32 = units(program(r, grad, 1), kernel_gradients(r, grad, 1), bounds)
    assert max(in_float32.values()) > 1


def test_every_largest_error_in_one_direction_comes_near_the_bound() -> None:
    """One mode, ā = 1/2, all numbers positive: each operation of the count is off by its whole share, the same way."""
    unit, power, length = 2.0**-20, 2, 6
    A, B, C = (np.full((1, 1), v + 0j) for v in (0.5, 2.0, 3.0))
    r, grad = Realization("diagonal", A, B, C, conjugate_pairs=False), np.ones((1, length))
    bounds = kernel_gradient_bounds(r, grad, power, RoundingModel(unit, 0.0, fft=True, powers="exponentials"))
    i = np.arange(length)
    fixed = 5**0.5 * (power + 1) + 2 + 2 * length + 4 * 2 + 1 + 9 * i * np.log(2)
    wanted = {
        "A": (i * 3 * 4 * 0.5 ** (i - 1.0) * (fixed + 13)).sum(),
        "B": (2 * 2 * 3 * 0.5**i * fixed).sum(),
        "C": (4 * 0.5**i * fixed).sum(),
    }
    for name, value in wanted.items():
        assert bounds[name][0, 0] == pytest.approx(value * unit, rel=1e-3), name
    products = kernel_gradient_bounds(r, grad, power, RoundingModel(unit, 0.0, fft=True))
    fixed = 5**0.5 * (power + 1) + 2 + 2 * length + (5**0.5 + 2) * i
    assert products["C"][0, 0] == pytest.approx((4 * 0.5**i * fixed).sum() * unit, rel=1e-3)


def test_an_error_of_the_cotangent_is_passed_on() -> None:
    r, grad = random_case(3, 40, "float64", decay=0.05)
    off = np.array([1e-6, 1e-3])
    exact, plain = kernel_gradients(r, grad), kernel_gradient_bounds(r, grad, 1, model("float64"))
    bounds = kernel_gradient_bounds(r, grad, 1, model("float64"), grad_error=off)
    steps = np.arange(40)
    for name, slope in (("C", r.B[..., None]), ("B", r.C[..., None]), ("A", (r.B * r.C)[..., None])):
        # the direction that does most harm to the first mode
        d = slope * r.A[..., None] ** steps if name != "A" else slope * steps * r.A[..., None] ** (steps - 1.0)
        worst = d[:, 0].real
        moved = kernel_gradients(r, grad + off[:, None] * worst / np.linalg.norm(worst, axis=1)[:, None])
        change = np.abs(moved[name] - exact[name])[:, 0]
        allowed = (bounds[name] - plain[name])[:, 0]
        assert np.all(change <= allowed * (1 + 1e-9))
        assert np.all(change >= allowed / 2)


def wrong_ones(r: Realization, grad: Any, power: int) -> list[dict[str, Any]]:
    good = by_exponentials(r, grad, power)
    steps = np.arange(grad.shape[-1]).astype(grad.dtype)
    half = (r.A.real.astype(np.float16) + 1j * r.A.imag.astype(np.float16)).astype(r.A.dtype)
    return [
        {name: value.conj() for name, value in good.items()},
        {name: value / r.weight for name, value in good.items()},
        good | {"B": good["B"] / power},
        good | {"A": by_exponentials(r, grad * (steps + 1) / steps.clip(1), power)["A"]},
        by_exponentials(r, np.roll(grad, 1, axis=-1), power),
        by_exponentials(replace(r, A=half), grad, power),
    ]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [2, 4, 100])
def test_wrong_gradients_exceed_the_bounds(dtype: str, length: int) -> None:
    r, grad = random_case(7, length, dtype, decay=0.02)
    exact, bounds = kernel_gradients(r, grad, 2), kernel_gradient_bounds(r, grad, 2, model(dtype))
    assert max(units(by_exponentials(r, grad, 2), exact, bounds).values()) <= 1
    for wrong in wrong_ones(r, grad, 2):
        assert max(units(wrong, exact, bounds).values()) > 10


def test_scales_at_which_products_underflow() -> None:
    for scale in (1e-20, 1e-38, 1e-44):
        r, grad = random_case(2, 12, "float32", decay=3.0)
        r, grad = replace(r, B=(scale * r.B).astype(np.complex64)), grad.astype(np.float32)
        for power in (1, 2):
            bounds = kernel_gradient_bounds(r, grad, power, model("float32"))
            found = by_exponentials(r, grad, power)
            assert all(ratio <= 1 for ratio in units(found, kernel_gradients(r, grad, power), bounds).values())


@pytest.mark.parametrize("powers", ["exponentials", "products"])
def test_a_mode_without_a_logarithm_has_two_powers(powers: Any) -> None:
    A, one = np.array([[0.5 + 0j, 0.0]]), np.ones((1, 2), complex)
    r, grad = Realization("diagonal", A, one, one), np.ones((1, 30))
    whole, short = (kernel_gradient_bounds(r, grad[:, :n], 1, model("float64", powers)) for n in (30, 2))
    for name in whole:
        assert np.all(np.isfinite(whole[name]) & (whole[name] > 0))
        # later entries add nothing but their count to the one that is not zero
        assert whole[name][0, 1] < 10 * short[name][0, 1]
    exact = kernel_gradients(r, grad)
    assert exact["A"][0, 1] == 2  # the weight, from l = 1
    assert max(units(by_products(r, grad, 1), exact, whole).values()) <= 1


def test_other_structures_are_refused() -> None:
    one = np.ones((1, 2), complex)
    with pytest.raises(ValueError, match="diagonal realizations, not for 'dplr'"):
        kernel_gradient_bounds(
            Realization("dplr", one, one, one, one[None], one[None]), np.ones((1, 3)), 1, model("float64")
        )
