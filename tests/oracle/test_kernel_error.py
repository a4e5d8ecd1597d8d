"""Kernels of the SciPy backend are within their bounds, which are of a useful size and which wrong kernels exceed."""

from __future__ import annotations

import numpy as np
import pytest

import liquid_ssm as ls
from liquid_ssm.backends import _cauchy, _vandermonde, scipy_backend
from liquid_ssm.oracle.convolution import kernel_and_size, kernel_moduli
from liquid_ssm.oracle.enclosure import enclose_kernel
from liquid_ssm.oracle.kernel_error import kernel_error
from liquid_ssm.oracle.metrics import absolute_error
from liquid_ssm.oracle.reference import _kernel_and_error, reference
from liquid_ssm.oracle.rounding import RoundingModel
from liquid_ssm.registry import get_backend
from liquid_ssm.rounding_errors import realization_of
from liquid_ssm.testing.strategies import random_system

STRUCTURES = ["diagonal", "dplr", "dense"]


def model(dtype):
    return RoundingModel.of_dtype(dtype, pairwise=True, fft=True, kernel_dtype="float64")


def ratio(system, length, power=1, kernel=None):
    """‖error‖₂/‖bound‖₂ and ‖bound‖₂/‖K‖₂ of every channel."""
    if kernel is None:
        kernel = get_backend("scipy").kernel(system, length, power=power)
    exact = enclose_kernel(realization_of(system), length, power)
    error = np.linalg.norm((kernel - exact.hi) - exact.lo, axis=1) + np.linalg.norm(exact.radius, axis=1)
    bound = np.linalg.norm(kernel_error(realization_of(system), length, power, model(system.dtype)), axis=1)
    return error / bound, bound / np.linalg.norm(exact.hi, axis=1)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("length", [1, 2, 33, 64, 65])
def test_random_kernels_are_within_their_bounds(structure, dtype, length):
    for seed in range(4):
        system = random_system(structure, n_channels=2, n_modes=3, seed=seed, drive=0.5).astype(dtype)
        for power in (1, 2, 3):
            errors, relative = ratio(system, length, power)
            assert errors.max() <= 1
            # a bound above this would let whole wrong digits pass
            assert relative.max() < (1e-6 if dtype == "float32" else 1e-12)


@pytest.mark.parametrize("init", ["legs", "fout", "s4d-inv", "s4d-lin"])
@pytest.mark.parametrize("n_state", [4, 64])
def test_kernels_of_initialisations_are_within_their_bounds(init, n_state):
    system = ls.initialize(init, n_channels=2, n_state=n_state, seed=1).discretize("bilinear")
    errors, relative = ratio(system, 200)
    assert errors.max() <= 1
    assert relative.max() < 1e-11


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_kernel_of_the_wrong_power_exceeds_the_bound(structure, dtype):
    system = random_system(structure, n_modes=3, seed=5).astype(dtype)
    for power in (2, 3):
        wrong = get_backend("scipy").kernel(system, 40, power=power - 1)
        assert ratio(system, 40, power, wrong)[0].min() > 1e4


@pytest.mark.parametrize(("structure", "name"), [("diagonal", "C"), ("dplr", "Q_bar"), ("dense", "C")])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_dropped_conjugate_exceeds_the_bound(structure, name, dtype):
    system = random_system(structure, n_modes=3, seed=6).astype(dtype)
    parameters = dict(system.parameters)
    parameters[name] = parameters[name].conj()
    options = {} if structure == "dense" else {"conjugate_pairs": system.conjugate_pairs}
    wrong = get_backend("scipy").kernel(type(system)(**parameters, **options), 40)
    assert ratio(system, 40, 1, wrong)[0].min() > 1e3


@pytest.mark.parametrize("structure", STRUCTURES)
def test_one_table_in_single_precision_exceeds_the_bound(structure, monkeypatch):
    """Rounding that a float64 kernel must not have, in one of its tables only."""

    def single(values):
        return values.astype(np.complex64 if np.iscomplexobj(values) else np.float32).astype(values.dtype)

    system = random_system(structure, n_modes=3, seed=7)
    power_table, resolvent, dense = _vandermonde.power_table, _cauchy._resolvent, scipy_backend.dense_kernel
    monkeypatch.setattr(_vandermonde, "power_table", lambda a, count: single(power_table(a, count)))
    monkeypatch.setattr(_cauchy, "_resolvent", lambda weights, *rest: resolvent(single(weights), *rest))
    monkeypatch.setattr(scipy_backend, "dense_kernel", lambda A_bar, **rest: dense(A_bar=single(A_bar), **rest))
    assert ratio(system, 40)[0].min() > 1e3


@pytest.mark.parametrize("structure", STRUCTURES)
def test_kernels_without_entries_and_of_one_entry(structure):
    system = realization_of(random_system(structure, n_channels=2, n_modes=2))
    assert kernel_error(system, 0, 1, model("float64")).shape == (2, 0)
    for power in (1, 3):
        bound = kernel_error(system, 1, power, model("float64"))
        size = system.weight * (np.abs(system.C) * np.abs(system.B) ** power).sum(axis=1)
        assert np.all((bound[:, 0] > 0) & (bound[:, 0] <= 20 * 2.0**-53 * size))


@pytest.mark.parametrize("structure", STRUCTURES)
def test_tiny_and_huge_systems_have_bounds_of_their_size(structure):
    """Scaling C by a power of two scales the kernel exactly; squares of these numbers are out of range."""
    system = random_system(structure, n_modes=2, seed=8)
    plain = kernel_error(realization_of(system), 20, 1, model("float64"))
    options = {} if structure == "dense" else {"conjugate_pairs": system.conjugate_pairs}
    for scale in (2.0**-700, 2.0**700):
        moved = type(system)(**{**system.parameters, "C": scale * system.C}, **options)
        assert np.allclose(
            kernel_error(realization_of(moved), 20, 1, model("float64")) / scale, plain, rtol=1e-9, atol=0
        )


def test_diagonal_counts():
    """Entry i of one mode: i + p complex products, two real terms; then the rounding to the working precision."""
    system = random_system("diagonal", n_channels=1, n_modes=1, decay=0.0)
    u = 2.0**-53
    for power in (1, 2):
        found = kernel_error(realization_of(system), 5, power, model("float64"))[0]
        size = (
            2
            * np.abs(system.C[0, 0])
            * np.abs(system.B_bar[0, 0]) ** power
            * np.abs(system.A_bar[0, 0]) ** np.arange(5)
        )
        assert np.allclose(found, (5**0.5 * (np.arange(5) + power) + 2) * u * size, rtol=1e-9, atol=0)
    single = system.astype("float32")
    found = kernel_error(realization_of(single), 5, 1, model("float32"))[0]
    values, _ = kernel_and_size(realization_of(single), 5)
    assert np.allclose(found, 2.0**-24 * np.abs(values[0]), rtol=1e-6, atol=0)


def test_kernel_values_and_sizes():
    system = random_system("diagonal", n_channels=1, n_modes=2)
    values, sizes = kernel_and_size(realization_of(system), 700)
    exact = enclose_kernel(realization_of(system), 700)
    # 700 complex products in float64 behind each of the last entries
    assert np.all(np.abs(values - exact.hi) <= 700 * 8 * 2.0**-53 * sizes)
    assert np.all(np.abs(values) <= sizes * (1 + 1e-12))


# --- tables that are rounded before they are multiplied -----------------------------------------------------------


def by_tables(realization, length, power, dtype, tables, *, baby=None, order=1, fused=False, bug=""):
    """K_(kQ+j) = weight · Re Σ (c b̄ᵖ ā^(kQ)) (āʲ), tables formed in one dtype, sums of 2M products in another."""
    real, kind = np.dtype(dtype).type, np.result_type(dtype, np.complex64)
    wide = np.result_type(tables, np.complex64)
    a, b, c = (getattr(realization, name).astype(wide) for name in "ABC")
    start = c
    for _ in range(power - 1 if bug == "power" else power):
        start = start * b
    if length == 1:
        return (realization.weight * start.real.sum(axis=1)).astype(real)[:, None]
    Q = baby or int(np.ceil(np.sqrt(length)))
    babies, giants = [np.ones_like(a)], [start]
    for _ in range(Q - 1):
        babies.append(babies[-1] * a)
    step = babies[-1] * a
    for _ in range(-(-length // Q) - 1):
        giants.append(giants[-1] * step)
    if bug == "half":
        babies = [(v.real.astype(np.float16) + 1j * v.imag.astype(np.float16)) for v in babies]
    kernel = np.empty((realization.n_channels, length), real)
    for i in range(length):
        x, y = giants[i // Q].astype(kind), babies[i % Q].astype(kind)
        left = (realization.weight * np.concatenate([x.real, -x.imag], axis=1))[:, ::order].astype(real)
        right = np.concatenate([y.real, y.imag], axis=1)[:, ::order]
        total = np.zeros(len(x), real)
        for m in range(left.shape[1]):
            product = np.multiply(left[:, m], right[:, m], dtype=np.longdouble)
            total = ((product if fused else product.astype(real)) + total).astype(real)
        kernel[:, i] = total
    return kernel


def of_tables(dtype, tables="float64"):
    return RoundingModel.of_dtype(dtype, kernels="tables", table_dtype=tables, kernel_dtype="float64")


def entries_over_bound(realization, kernel, power, model):
    exact = enclose_kernel(realization, kernel.shape[1], power)
    error = np.abs((kernel - exact.hi) - exact.lo)
    bound = kernel_error(realization, kernel.shape[1], power, model)
    assert np.all(exact.radius <= 2.0**-20 * bound)
    return (error - exact.radius) / bound


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("tables", ["float32", "float64"])
@pytest.mark.parametrize("length", [1, 2, 33, 100])
def test_kernels_from_tables_are_within_their_bounds(dtype, tables, length):
    if dtype == "float64" and tables == "float32":
        pytest.skip("tables are no coarser than the kernel")
    for seed in range(6):
        system = random_system("diagonal", n_channels=2, n_modes=1 + seed, seed=seed, drive=0.5).astype(dtype)
        realization = realization_of(system)
        for power in (1, 3):
            how = {"baby": (None, 8)[seed % 2], "order": (1, -1)[seed // 2 % 2], "fused": seed > 3}
            kernel = by_tables(realization, length, power, dtype, tables, **how)
            # fused products of float64 are played in longdouble, which rounds twice
            assert entries_over_bound(realization, kernel, power, of_tables(dtype, tables)).max() <= 1 + 2.0**-10


@pytest.mark.parametrize("length", [1, 64])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bounds_of_tables_are_tight(dtype, length):
    ratios = []
    for seed in range(20):
        realization = realization_of(random_system("diagonal", n_channels=2, n_modes=4, seed=seed).astype(dtype))
        kernel = by_tables(realization, length, 2, dtype, "float64")
        worst = entries_over_bound(realization, kernel, 2, of_tables(dtype)).max()
        ratios.append(1 / worst)
    assert np.median(ratios) <= 100


@pytest.mark.parametrize("bug", ["power", "half"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_bug_in_a_table_exceeds_the_bound(bug, dtype):
    realization = realization_of(random_system("diagonal", n_modes=3, seed=1).astype(dtype))
    kernel = by_tables(realization, 40, 2, dtype, "float64", bug=bug)
    assert entries_over_bound(realization, kernel, 2, of_tables(dtype)).max() > 10


def test_a_single_entry_is_rounded_once():
    """Not a sum of rounded entries: float32 arithmetic of the same number exceeds the bound."""
    realization = realization_of(random_system("diagonal", n_modes=6, n_channels=50, seed=3).astype("float32"))
    good, bad = (by_tables(realization, 1, 3, "float32", tables) for tables in ("float64", "float32"))
    assert entries_over_bound(realization, good, 3, of_tables("float32")).max() <= 1
    assert entries_over_bound(realization, bad, 3, of_tables("float32")).max() > 1


def test_counts_of_tables():
    """Entry i: i + p products of the tables' precision, two roundings of entries and 2M terms of the kernel's."""
    realization = realization_of(random_system("diagonal", n_modes=2, n_channels=1, decay=0.0).astype("float32"))
    values, sizes = kernel_and_size(realization, 5)
    found = kernel_error(realization, 5, 1, of_tables("float32"))
    assert np.allclose(found, (2 + 2 * 2) * 2.0**-24 * sizes, rtol=1e-5, atol=0)
    found = kernel_error(realization, 5, 1, of_tables("float32", "float32"))
    assert np.allclose(found, (5**0.5 * (np.arange(5) + 1) + 4) * 2.0**-24 * sizes, rtol=1e-5, atol=0)
    found = kernel_error(realization, 1, 1, of_tables("float32"))
    assert np.allclose(found, 2.0**-24 * np.abs(values[:, :1]), rtol=1e-5, atol=0)


@pytest.mark.parametrize("structure", ["diagonal", "dplr"])
@pytest.mark.parametrize("correlations", ["adjacent", "all"])
def test_windowed_modes_with_kernels_from_tables(structure, correlations):
    """Heads of `kb`: powers of B̄ in float32, kernels from them, direct sums; and the responses of `pb`."""
    window, order = 6, 3
    system = random_system(structure, n_channels=2, n_modes=3, seed=2, drive=0.5).astype("float32")
    realization, u = realization_of(system), np.random.default_rng(0).normal(size=(1, 2, 50)).astype(np.float32)
    model = RoundingModel.of_dtype(
        "float32", pairwise=True, kernels="tables", table_dtype="float64", kernel_dtype="float64"
    )

    def kernel(powered, length, power=1):
        r = realization_of(powered)
        if structure == "diagonal":
            return by_tables(r, length, power, "float32", "float64")
        return get_backend("scipy").kernel(powered, length, power=power)

    numpy = get_backend("numpy")
    for mode in ("kb", "pb"):
        if mode == "kb" and correlations == "all":
            continue
        kind = "products" if mode == "kb" else "running" if correlations == "adjacent" else "elementary"
        terms, _ = numpy.correlate(u, order=order, kind=kind, window=None if mode == "kb" else window)
        linear, _ = numpy.scan(system, u, liquid=False)

        def total(shift=0, linear=linear, terms=terms, mode=mode):
            y = linear
            for p in range(2, order + 1):
                if mode == "pb":
                    y = y + kernel(system, 1, power=p + shift)[:, :1] * terms[p - 2]
                else:
                    head = kernel(system.with_input_power(p + shift), window - p + 1)
                    y = y + numpy.convolve(head, terms[p - 2])
            return y

        options = {"order": order, "correlations": correlations, "window": window}
        found = reference(realization, u, mode, models=[model], **options)
        bound = found.bounds[0]
        assert bound.is_componentwise
        assert bound.units(absolute_error(total(), found.value)) <= 1
        assert bound.units(absolute_error(total(shift=1), found.value)) > 1e3
        assert np.median(bound.componentwise / np.abs(np.asarray(found.value, float))) < 1e-4


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("fft", [False, True])
def test_heads_of_float32_powers_of_the_input_vector(structure, fft):
    """A float64 kernel of B̄³ in float32 is off by more than its own rounding, and within what heads are given."""
    system = random_system(structure, n_channels=3, n_modes=2, seed=4, drive=0.5).astype("float32")
    powered = system.with_input_power(3).astype("float64")
    kernel = enclose_kernel(realization_of(powered), 30, 1).hi
    exact = enclose_kernel(realization_of(system), 30, 3)
    tabulated = RoundingModel.of_dtype(
        "float32", fft=fft, kernels="tables", table_dtype="float64", kernel_dtype="float64"
    )
    # without the rounding of entries, only that of the power is left
    _, error, norm = _kernel_and_error(realization_of(system), 30, 3, tabulated)
    entries = np.abs((kernel - exact.hi) - exact.lo)
    own = kernel_error(realization_of(system), 30, 3, RoundingModel.of_dtype("float64"))
    assert np.all(np.linalg.norm(entries, axis=1) > 10 * np.linalg.norm(own, axis=1))
    # the rounding of the entries and of tables is part of the error, and not of these kernels
    rounded = 2.0**-24 * np.abs(exact.hi)
    if fft or structure == "dplr":
        assert np.all(np.linalg.norm(entries, axis=1) <= np.linalg.norm(error, axis=1) + norm)
    wrong = 2 * 5**0.5 * 2.0**-24 * kernel_moduli(realization_of(system), 30, 3)
    if not fft:
        assert np.all(entries <= wrong + own)
        assert np.all(error >= rounded + wrong)
    else:
        assert np.all(norm >= np.linalg.norm(wrong, axis=1))
