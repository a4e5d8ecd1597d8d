"""The published layer's arithmetic against 32 recorded cases of the published code, and what sets it apart.

The cases are float32. Their liquid part is y − y_linear, a difference of two rounded numbers that are up to 1,000
times larger, so storage alone leaves it uncertain by up to 2^-24 (|y| + |y_linear|), in the smallest case 1.2e-4 of its
maximum. `TOLERANCE` is the agreement that the data were handed over with; float32 is all that it has to cover.
"""

from __future__ import annotations

from dataclasses import replace
from math import comb, prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from liquid_ssm.oracle import published
from liquid_ssm.oracle.published import Layer, combined_inputs, correlation, kb_term, outputs, polyb_term, step

GOLDEN = np.load(Path(__file__).parents[1] / "data" / "published_liquid.npz")
CASES = sorted({key.rpartition("/")[0] for key in GOLDEN.files})
TOLERANCE = 5e-5
UNIT = 2.0**-53
SETTINGS = [(kernel, allcombs) for kernel in ("polyb", "kb") for allcombs in (True, False)]


def largest(values: Any) -> float:
    return float(np.abs(values).max())


def recorded(case: str) -> tuple[Layer, dict[str, Any], dict[str, Any]]:
    """(layer, options of `outputs`, the case's arrays in double precision)."""
    liquid_kernel, allcombs, structure, size = case.split("/")
    arrays = {key: GOLDEN[f"{case}/{key}"] for key in ("u", "y", "y_linear", "K", "w", "B", "C", "dt", "D")}
    arrays = {key: value.astype(np.result_type(value, np.float64)) for key, value in arrays.items()}
    # The layers are LegS, where P_n = √(n + ½) and B_n = √(2n + 1) before the change of basis.
    P = arrays["B"][None] / np.sqrt(2) if structure == "nplr" else None
    layer = Layer(*(arrays[key] for key in ("w", "B", "C", "dt", "D", "K")), P)
    options = {
        "order": int(size.rpartition("_p")[2]),
        "liquid_kernel": liquid_kernel,
        "allcombs": allcombs == "allcombs=True",
    }
    return layer, options, arrays


def random_layer(length: int, *, channels: int = 2, modes: int = 3, seed: int = 0) -> Layer:
    rng = np.random.default_rng(seed)
    B, C = rng.normal(size=(2, channels, modes)) + 1j * rng.normal(size=(2, channels, modes))
    w = -0.5 + 1j * rng.uniform(1, 20, size=(channels, modes))
    dt, kernel = rng.uniform(0.01, 0.1, size=channels), rng.normal(size=(channels, length))
    return Layer(w, B, C, dt, rng.normal(size=channels), kernel)


def signal(layer: Layer, seed: int = 1) -> Any:
    return np.random.default_rng(seed).normal(size=(2, *layer.kernel.shape))


def recurrent(layer: Layer, u: Any) -> Any:
    state, y = None, np.empty(u.shape)
    for k in range(u.shape[2]):
        y[..., k], state = step(layer, u[..., k], state)
    return y


# The recorded cases


def test_all_cases_are_there() -> None:
    assert len(CASES) == 32


@pytest.mark.parametrize("case", CASES)
def test_recorded_outputs(case: str) -> None:
    layer, options, golden = recorded(case)
    liquid = golden["y"] - golden["y_linear"]
    allowed = TOLERANCE * largest(liquid)
    term = polyb_term if options["liquid_kernel"] == "polyb" else kb_term
    computed = term(layer, golden["u"], order=options["order"], allcombs=options["allcombs"])
    assert largest(computed - liquid) <= allowed
    y = outputs(layer, golden["u"], **options)
    assert largest(y - golden["y"]) <= TOLERANCE * largest(golden["y"])


@pytest.mark.parametrize("case", CASES)
def test_recorded_liquid_parts_are_known_to_the_tolerance(case: str) -> None:
    _, _, golden = recorded(case)
    stored = 2.0**-24 * (largest(golden["y"]) + largest(golden["y_linear"]))
    assert stored <= 2.5 * TOLERANCE * largest(golden["y"] - golden["y_linear"])


def mutants(case: str, layer: Layer, options: dict[str, Any], u: Any, monkeypatch: Any) -> dict[str, Any]:
    """The liquid term with one mistake each."""
    order, allcombs = options["order"], options["allcombs"]
    term = polyb_term if options["liquid_kernel"] == "polyb" else kb_term
    found = {}
    for name, mistake in {
        "not reversed": lambda c: c[..., ::-1],
        "one index late": lambda c: np.roll(c, 1, axis=-1),
        "one index early": lambda c: np.roll(c, -1, axis=-1),
    }.items():
        with monkeypatch.context() as patch:
            patch.setattr(published, "correlation", lambda u, p, a, wrong=mistake: wrong(correlation(u, p, a)))
            found[name] = term(layer, u, order=order, allcombs=allcombs)
    # Older inputs by one: the products of the indices before.
    earlier = np.concatenate([np.zeros_like(u[..., :1]), u[..., :-1]], axis=-1)
    found["inputs of the step before"] = term(layer, earlier, order=order, allcombs=allcombs)
    found["without the highest order"] = 0 * u if order == 2 else term(layer, u, order=order - 1, allcombs=allcombs)
    if term is polyb_term:
        C = np.concatenate([layer.C, layer.C.conj()], axis=-1)
        for name, shift in (("B̄^p for β^p", 0), ("B̄^{p-1}, Algorithm 1, line 13", 1)):
            gains = [(C * layer.B_bar ** (p - shift)).sum(-1).real for p in range(2, order + 1)]
            products = [correlation(u, p, allcombs)[..., ::-1] for p in range(2, order + 1)]
            found[name] = sum(g[:, None] * c for g, c in zip(gains, products, strict=True))
        found["C* for C"] = term(replace(layer, C=layer.C.conj()), u, order=order, allcombs=allcombs)
    else:
        found["S^p for S^{p-1}"] = layer.B_bar.sum(-1).real[:, None] * term(layer, u, order=order, allcombs=allcombs)
        found["one grid"] = one_grid(layer, u, order, allcombs)
    return found


def one_grid(layer: Layer, u: Any, order: int, allcombs: bool) -> Any:
    """What `kb_term` would be if both transforms had 2L points: a causal convolution of reversed products."""
    y, kappa = np.zeros_like(u), layer.kernel
    for p in range(2, order + 1):
        kappa = layer.B_bar.sum(-1).real[:, None] * kappa
        products = correlation(u, p, allcombs)[..., ::-1]
        for b, h in np.ndindex(u.shape[:2]):
            y[b, h] += np.convolve(kappa[h], products[b, h])[: u.shape[2]]
    return y


@pytest.mark.parametrize("case", CASES)
def test_each_mistake_exceeds_the_tolerance(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, options, golden = recorded(case)
    liquid = golden["y"] - golden["y_linear"]
    for name, wrong in mutants(case, layer, options, golden["u"], monkeypatch).items():
        assert not largest(wrong - liquid) <= 10 * TOLERANCE * largest(liquid), name


@pytest.mark.parametrize("case", CASES)
def test_recurrent_mode_is_the_linear_part_alone(case: str) -> None:
    layer, _, golden = recorded(case)
    liquid = golden["y"] - golden["y_linear"]
    difference = recurrent(layer, golden["u"]) - golden["y"]
    allowed = TOLERANCE * largest(golden["y_linear"])
    assert largest(difference + liquid) <= allowed
    # What the two modes differ by is the liquid part, not rounding.
    assert largest(difference) > 0.99 * largest(liquid) > 10 * allowed


@pytest.mark.parametrize("case", CASES)
def test_kernel_belongs_to_the_conjugate_of_the_C_in_the_liquid_term(case: str) -> None:
    layer, _, golden = recorded(case)
    impulse = np.zeros((1, *golden["K"].shape))
    impulse[..., 0] = 1
    without_D = replace(layer, D=0 * layer.D)
    assert largest(recurrent(without_D, impulse)[0] - golden["K"]) <= TOLERANCE * largest(golden["K"])
    conjugate = replace(without_D, C=layer.C.conj())
    assert largest(recurrent(conjugate, impulse)[0] - golden["K"]) > 0.5 * largest(golden["K"])


# The formulas


@given(st.data())
def test_adjacent_products_in_closed_form(data: st.DataObject) -> None:
    p = data.draw(st.integers(2, 4))
    u = data.draw(hnp.arrays(np.float64, (1, 1, data.draw(st.integers(1, 9))), elements=st.integers(-3, 3)))
    # Small integers: every product is exact.
    for k, value in enumerate(correlation(u, p, False)[0, 0]):
        inputs = [u[0, 0, k - j] if k >= j else 0.0 for j in range(p)]
        assert value == prod(x ** comb(p - 1, j) for j, x in enumerate(inputs))


@given(st.integers(2, 5), st.integers(0, 60), st.integers(0, 2**32 - 1))
def test_combinations_of_the_newest_inputs(p: int, more: int, seed: int) -> None:
    length = p + 3 + more
    m = combined_inputs(p, length)
    assert comb(m, p) >= length
    assert m == 2 or comb(m - 1, p) < length
    u = np.random.default_rng(seed).integers(-3, 4, size=(1, 1, length)).astype(float)
    products = correlation(u, p, True)
    assert products[0, 0, -1] == prod(u[0, 0, -p:])
    older = u.copy()
    older[..., : length - m] += 1
    assert np.array_equal(correlation(older, p, True), products)


def test_pairs_of_five_inputs_by_hand() -> None:
    # m = 4 of binom(4, 2) = 6 ≥ 5; the first of (1,2) (1,3) (1,4) (2,3) (2,4) (3,4) is dropped.
    u = np.array([[[2.0, 3.0, 5.0, 7.0, 11.0]]])
    assert correlation(u, 2, True)[0, 0].tolist() == [3 * 7, 3 * 11, 5 * 7, 5 * 11, 7 * 11]
    assert correlation(u, 2, False)[0, 0].tolist() == [0, 6, 15, 35, 77]
    assert correlation(u, 3, False)[0, 0].tolist() == [0, 0, 6 * 15, 15 * 35, 35 * 77]


@pytest.mark.parametrize("allcombs", [True, False])
def test_polyb_in_closed_form(allcombs: bool) -> None:
    layer = random_layer(12)
    u = signal(layer)
    B_bar = 2 * layer.dt[:, None] * layer.B / (2 - layer.dt[:, None] * layer.w)
    S, CB = 2 * B_bar.sum(-1).real, 2 * (layer.C * B_bar).sum(-1).real
    # β^{(p)} = S^{2^{p-1} - 1} B̄
    gains = [S * CB, S**3 * CB, S**7 * CB]
    products = [correlation(u, p, allcombs)[..., ::-1] for p in (2, 3, 4)]
    expected = sum(g[:, None] * c for g, c in zip(gains, products, strict=True))
    # At most 100 roundings on the way of any term, of products and sums alone: the same formula in moduli bounds it.
    S, CB = 2 * np.abs(B_bar).sum(-1), 2 * np.abs(layer.C * B_bar).sum(-1)
    size = sum(g[:, None] * np.abs(c) for g, c in zip([S * CB, S**3 * CB, S**7 * CB], products, strict=True))
    assert (np.abs(polyb_term(layer, u, order=4, allcombs=allcombs) - expected) <= 100 * UNIT * size).all()


@pytest.mark.parametrize("length", [6, 7])
@pytest.mark.parametrize("allcombs", [True, False])
def test_kb_by_sums_over_both_grids(length: int, allcombs: bool) -> None:
    layer = random_layer(length)
    u = signal(layer)
    t, j = np.arange(length), np.arange(length + 1)[:, None]
    fine, coarse = np.exp(-2j * np.pi * j * t / (2 * length)), np.exp(-2j * np.pi * j * t / (length + 1))
    S = 2 * (layer.dt[:, None] * layer.B / (1 - layer.dt[:, None] / 2 * layer.w)).sum(-1).real
    expected, size, weight = np.zeros(u.shape), 0.0, np.abs(layer.kernel).sum(-1).max()
    for p in (2, 3):
        K_hat = (S ** (p - 1))[:, None] * (layer.kernel @ coarse.T)
        half = (correlation(u, p, allcombs)[..., ::-1] @ fine.T) * K_hat
        # A real inverse transform takes real ends and adds the mirrored half.
        half[..., 0] = half[..., 0].real
        half[..., -1] = half[..., -1].real
        full = np.concatenate([half, half[..., length - 1 : 0 : -1].conj()], axis=-1)
        back = np.exp(2j * np.pi * np.arange(2 * length)[:, None] * t / (2 * length))
        expected += (full @ back).real / (2 * length)
        size += np.abs(correlation(u, p, allcombs)).sum(-1).max() * np.abs(S ** (p - 1)).max() * weight
    # At most 200 roundings; no entry is larger than the sum of all moduli.
    assert largest(kb_term(layer, u, order=3, allcombs=allcombs) - expected) <= 200 * UNIT * size


@pytest.mark.parametrize("liquid_kernel", published.LIQUID_KERNELS)
def test_outputs_are_linear_part_and_liquid_term(liquid_kernel: str) -> None:
    layer = random_layer(9)
    u = signal(layer)
    term = {"polyb": polyb_term, "kb": kb_term}[liquid_kernel](layer, u, order=3, allcombs=True)
    linear = layer.D[:, None] * u
    size = np.abs(linear) + np.abs(term)
    for i in range(9):
        linear[..., i:] += layer.kernel[:, i : i + 1] * u[..., : 9 - i]
        size[..., i:] += np.abs(layer.kernel[:, i : i + 1] * u[..., : 9 - i])
    y = outputs(layer, u, order=3, liquid_kernel=liquid_kernel, allcombs=True)
    assert (np.abs(y - linear - term) <= 30 * UNIT * size).all()  # two sums of 11 terms each


# What the paper's model does not do


@pytest.mark.parametrize(("liquid_kernel", "allcombs"), SETTINGS)
def test_first_output_depends_on_the_last_input(liquid_kernel: str, allcombs: bool) -> None:
    layer = random_layer(24)
    u = signal(layer)
    later = u.copy()
    later[..., -1] += 1
    options = {"order": 3, "liquid_kernel": liquid_kernel, "allcombs": allcombs}
    change = outputs(layer, later, **options) - outputs(layer, u, **options)
    # Seven orders above what rounding can do, if no causal part depended on it.
    assert (np.abs(change[..., 0]) > 1e9 * UNIT * largest(outputs(layer, u, **options))).all()
    if liquid_kernel == "polyb":
        C, beta = np.concatenate([layer.C, layer.C.conj()], axis=-1), layer.B_bar
        expected = np.zeros(u.shape[:2])
        for p in (2, 3):
            beta = beta * beta.sum(-1, keepdims=True)
            neighbours = u[..., -2] * (1 if p == 2 else u[..., -3] * (1 if allcombs else u[..., -2]))
            expected += (C * beta).sum(-1).real * neighbours
        # 10^4 roundings, where two outputs of a few dozen are subtracted.
        assert largest(change[..., 0] - expected) <= 1e4 * UNIT * largest(outputs(layer, u, **options))


@pytest.mark.parametrize("P", [None, 1.0])
def test_step_is_causal_and_linear(P: float | None) -> None:
    layer = random_layer(8)
    if P is not None:
        layer = replace(layer, P=layer.B[None])
    u = signal(layer)
    y = recurrent(layer, u)
    assert np.array_equal(recurrent(layer, 2 * u), 2 * y)
    later = u.copy()
    later[..., -1] += 1
    assert np.array_equal(recurrent(layer, later)[..., :-1], y[..., :-1])
    for liquid_kernel, allcombs in SETTINGS:
        options = {"order": 2, "liquid_kernel": liquid_kernel, "allcombs": allcombs}
        liquid = outputs(layer, 2 * u, **options) - 2 * outputs(layer, u, **options)
        assert largest(liquid) > 0.01 * largest(y), "the parallel pass is not linear"


# Bad input


def test_a_signal_too_short_for_combinations() -> None:
    layer = random_layer(5)
    with pytest.raises(ValueError, match=r"L is 5; products of 3 inputs with allcombs=True need L >= 6"):
        polyb_term(layer, signal(layer), order=3, allcombs=True)
    assert polyb_term(layer, signal(layer), order=3, allcombs=False).shape == (2, 2, 5)


@pytest.mark.parametrize("order", [1, 0, 2.0, True])
def test_bad_orders(order: Any) -> None:
    layer = random_layer(9)
    for call in (
        lambda: polyb_term(layer, signal(layer), order=order, allcombs=True),
        lambda: kb_term(layer, signal(layer), order=order, allcombs=False),
        lambda: correlation(signal(layer), order, True),
        lambda: combined_inputs(order, 9),
    ):
        with pytest.raises(ValueError, match=rf"is {order!r}; it must be a whole number, at least 2"):
            call()


def test_an_unknown_kernel() -> None:
    layer = random_layer(9)
    with pytest.raises(ValueError, match="liquid_kernel is 'pb'; allowed: polyb, kb"):
        outputs(layer, signal(layer), order=2, liquid_kernel="pb", allcombs=True)


@pytest.mark.parametrize(
    ("u", "message"),
    [
        (np.zeros((2, 9)), "must have 3 dimension"),
        (np.zeros((2, 3, 9)), r"must be \(batch, 2, 9\)"),
        (np.zeros((2, 2, 8)), "as long as the kernel"),
        (np.full((1, 2, 9), np.nan), "u is nan at index"),
        (np.zeros((1, 2, 9), complex), "give real numbers"),
    ],
)
def test_bad_signals(u: Any, message: str) -> None:
    for term in (polyb_term, kb_term):
        with pytest.raises(ValueError, match=message):
            term(random_layer(9), u, order=2, allcombs=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"B": np.zeros((2, 2), complex)}, r"B has shape \(2, 2\); .* it must be \(2, 3\)"),
        ({"C": np.zeros((1, 3), complex)}, r"C has shape \(1, 3\)"),
        ({"dt": np.array([0.1])}, r"dt has shape \(1,\)"),
        ({"dt": np.array([0.1, 0.0])}, "step sizes are positive"),
        ({"D": np.zeros((2, 1))}, "D has shape"),
        ({"kernel": np.zeros((3, 9))}, r"w has shape \(2, 3\)"),
        ({"kernel": np.zeros((2, 0))}, "at least one sample"),
        ({"kernel": np.zeros((2, 9), complex)}, "kernel has dtype complex128; give real numbers"),
        ({"P": np.zeros((2, 3))}, "P has shape"),
        ({"P": np.zeros((1, 2, 4))}, "P has shape"),
        ({"w": np.full((2, 3), np.inf)}, "w is .*inf.* at index"),
        ({"w": np.full((2, 3), 20.0), "dt": np.array([0.3, 0.1])}, "divides by zero"),
    ],
)
def test_bad_layers(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(random_layer(9), **change)


@pytest.mark.parametrize(
    ("u_k", "state"),
    [(np.zeros((1, 3)), None), (np.zeros((1, 2)), np.zeros((1, 2, 3))), (np.zeros((1, 2)), np.zeros((2, 2, 6)))],
)
def test_bad_steps(u_k: Any, state: Any) -> None:
    with pytest.raises(ValueError, match=r"they must be \(batch, 2\) and \(batch, 2, 6\)"):
        step(random_layer(9), u_k, state)


@pytest.mark.parametrize(("liquid_kernel", "allcombs"), SETTINGS)
def test_overflow_is_said(liquid_kernel: str, allcombs: bool) -> None:
    layer = random_layer(9)
    with pytest.raises(OverflowError, match="leaves the range of float64"):
        outputs(layer, 1e200 * signal(layer), order=3, liquid_kernel=liquid_kernel, allcombs=allcombs)
