"""The compiled recurrences on signals that lie in memory as (batch, L, H): read and written there, in the same bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import liquid_ssm as ls
from liquid_ssm.backends._memory_order import MemoryOrder
from liquid_ssm.backends.compiled.diagonal import Tiles
from liquid_ssm.backends.compiled.lowrank import layout_of
from liquid_ssm.backends.compiled.pieces import pieces_for
from liquid_ssm.backends.numba_backend import NumbaBackend, float64_state
from liquid_ssm.problem import ModeSpec, Problem
from liquid_ssm.testing.strategies import FORMS, random_system

NUMBA, WIDE = NumbaBackend(), float64_state()
STRUCTURES = ("diagonal", "dplr")
# What computes, its options, and how many states of a row it has; None: it takes none.
FORM = {
    "linear": ("scan", {"liquid": False}, ()),
    "liquid": ("scan", {"liquid": True}, ()),
    "truncated 1": ("cascade", {"order": 1, "kind": "truncated"}, (1,)),
    "truncated 2": ("cascade", {"order": 2, "kind": "truncated"}, (2,)),
    "truncated 4": ("cascade", {"order": 4, "kind": "truncated"}, (4,)),
    "chain": ("cascade", {"order": 3, "kind": "chain"}, (3,)),
    "joint 1": ("joint_scan", {"order": 1}, None),
    "joint 3": ("joint_scan", {"order": 3}, None),
    "joint 4": ("joint_scan", {"order": 4}, None),
}
# (batch, H, L, modes): in lanes for rows, for modes and for both, in pieces, in chunks; channels that fill no vector.
SHAPES = [
    (2, 16, 130, 3),
    (3, 32, 65, 2),
    (2, 37, 200, 5),
    (1, 5, 70, 33),
    (3, 3, 17, 1),
    (1, 2, 16384 + 7, 2),
    (1, 2, 64 * 512, 2),
    (8, 3, 403, 32),
    (0, 3, 4, 2),
    (2, 1, 5, 3),
    (2, 3, 1, 2),
    (2, 3, 0, 2),
]


def swapped(array):
    """The same numbers with channels last in memory."""
    return np.ascontiguousarray(array.swapaxes(1, 2)).swapaxes(1, 2)


def as_u(array, u):
    """Whether it lies in memory as u does; numbers of an axis of one entry lie anywhere."""
    return MemoryOrder.of(array) == MemoryOrder.of(u)


def arrays(found):
    """All arrays of a result, in one order."""
    if isinstance(found, dict):
        return [found[name] for name in sorted(found)]
    if isinstance(found, tuple):
        return [array for part in found for array in arrays(part)]
    return [] if found is None else [found]


def require_same(found, expected):
    pairs = list(zip(arrays(found), arrays(expected), strict=True))
    assert pairs
    for one, other in pairs:
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        assert np.ascontiguousarray(one).tobytes() == np.ascontiguousarray(other).tobytes()


def require_equal_forms(backend, structure, form, dtype, shape, with_state, seed):
    batch, n_channels, length, n_modes = shape
    primitive, options, orders = FORM[form]
    system = random_system(structure, n_channels=n_channels, n_modes=n_modes, seed=seed, drive=0.1).astype(dtype)
    rng = np.random.default_rng(seed)
    u, grad_y = rng.uniform(-1, 1, (2, batch, n_channels, length)).astype(dtype)
    states = (None, None) if orders is not None else ()
    if with_state and orders is not None:
        kind = "complex128" if backend is WIDE or dtype == "float64" else "complex64"
        draw = rng.normal(size=(2, 2, batch, *orders, n_channels, n_modes))
        states = (draw[0, 0] + 1j * draw[0, 1]).astype(kind), (draw[1, 0] + 1j * draw[1, 1]).astype(kind)
    run, pull = getattr(backend, primitive), getattr(backend, f"{primitive}_vjp")
    y, z = run(system, u, *states[:1], **options), run(system, swapped(u), *states[:1], **options)
    require_same(z, y)
    assert as_u(z[0] if isinstance(z, tuple) else z, swapped(u))
    expected = pull(system, u, *states[:1], grad_y, *states[1:], **options)
    # The order of u decides, whatever that of the cotangent is.
    for signal in (u, swapped(u)):
        for cotangent in (grad_y, swapped(grad_y)):
            found = pull(system, signal, *states[:1], cotangent, *states[1:], **options)
            require_same(found, expected)
            assert as_u(found.u, signal)
    without = pull(system, swapped(u), *states[:1], None, *states[1:], **options)
    require_same(without, pull(system, u, *states[:1], None, *states[1:], **options))


def every_shape(test):
    for shape in SHAPES:
        test = example(shape=shape, with_state=True, seed=0)(example(shape=shape, with_state=False, seed=1)(test))
    return test


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("form", FORM)
@pytest.mark.parametrize(("backend", "dtype"), [(NUMBA, "float32"), (NUMBA, "float64"), (WIDE, "float32")])
@every_shape
@given(
    shape=st.tuples(st.integers(0, 3), st.integers(1, 40), st.integers(0, 150), st.integers(1, 9)),
    with_state=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_results_are_those_of_contiguous_signals_bit_for_bit(structure, form, backend, dtype, shape, with_state, seed):
    require_equal_forms(backend, structure, form, dtype, shape, with_state, seed)


@pytest.mark.parametrize("kind", ["elementary", "running"])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("shape", [(2, 16, 130), (3, 5, 65), (1, 37, 64), (2, 3, 1), (2, 3, 0), (0, 3, 4), (2, 1, 5)])
def test_added_correlations_are_those_of_contiguous_signals_bit_for_bit(kind, order, shape):
    rng = np.random.default_rng(order)
    y, u, grad_y = rng.uniform(-1, 1, (3, *shape)).astype("float32")
    n_sums = order if kind == "elementary" else order - 1
    sums, grad_sums = rng.uniform(-1, 1, (2, n_sums, *shape[:2])).astype("float32")
    options = {"order": order, "kind": kind, "sums": sums}
    if kind == "running":
        options["previous"] = rng.uniform(-1, 1, (*shape[:2], 2)).astype("float32")
    responses = rng.uniform(-1, 1, (order - 1, shape[1])).astype("float32")
    expected = NUMBA.added_correlations(y, u, responses, **options)
    pulled = NUMBA.add_correlations_vjp(u, responses, grad_y, grad_sums, **options)
    for signal in (u, swapped(u)):
        for one, cotangent in ((y, grad_y), (swapped(y), swapped(grad_y))):
            total, final = NUMBA.added_correlations(one, signal, responses, **options)
            require_same((total, final), expected)
            assert as_u(total, signal)
            # In place, whatever the order of u is.
            target = one.copy(order="K")
            assert as_u(target, one)
            final = NUMBA.add_correlations(target, signal, responses, **options)
            require_same((target, final), expected)
            gradients = NUMBA.add_correlations_vjp(signal, responses, cotangent, grad_sums, **options)
            require_same(gradients, pulled)
            assert as_u(gradients[0], signal)


def test_only_two_orders_are_written_to_in_place():
    u = np.zeros((2, 3, 8))
    with pytest.raises(ls.ParameterError, match=r"contiguous or channels last: False.*\(batch, L, H\)"):
        NUMBA.add_correlations(np.zeros((2, 3, 16))[..., ::2], u, np.zeros((1, 3)), order=2, kind="running")


def test_the_shapes_are_laid_out_in_all_ways():
    groups = set()
    for batch, n_channels, length, n_modes in SHAPES:
        u = np.zeros((batch, n_channels, length), "float32")
        groups.add(Tiles(random_system("diagonal", n_channels=n_channels, n_modes=n_modes), u).layout.group)
        groups.add(layout_of(batch * n_channels, n_channels, n_modes, 1, "float32").group)
    pieces = {pieces_for(b * h, m, length, "float32") for b, h, length, m in SHAPES}
    chunked = [
        NUMBA.arithmetic_for(Problem(ModeSpec("s4"), "diagonal", b, h, m, length, "float32")).linear_chunk
        for b, h, length, m in SHAPES
    ]
    assert len(groups) > 1
    assert {1, 32, 64} <= pieces
    assert any(chunked)
    assert not all(chunked)


def test_contiguous_channels_last_signals_are_not_copied():
    system, u = random_system("diagonal", n_channels=32), swapped(np.ones((2, 32, 100)))
    assert np.shares_memory(Tiles(system, u).u, u)


# One state for all channels has no scalar inputs to multiply.
MODES = [(s, f) for s in STRUCTURES for f in FORMS] + [("mimo", f) for f in ("s4", "liquid", "truncated")]


@pytest.mark.parametrize(("structure", "form"), MODES)
@pytest.mark.parametrize("with_state", [False, True])
def test_every_mode_takes_them(structure, form, with_state):
    mode, window = form.partition("-")[0], 5 if "window" in form else None
    spec = ModeSpec(mode, 3, "adjacent" if "adjacent" in form else "all", window)
    system = random_system(structure, n_channels=5, n_modes=4)
    u, grad_y = np.random.default_rng(0).uniform(-1, 1, (2, 2, 5, 40))
    options = {"mode": spec.mode, "order": spec.order, "correlations": spec.correlations, "window": spec.window}
    results = [ls.apply(system, x, backend=NUMBA, return_state=with_state, **options) for x in (swapped(u), u)]
    require_same(*results)
    pairs = (swapped(u), swapped(grad_y)), (u, grad_y)
    gradients = [ls.vjp(system, x, g, backend=NUMBA, **options) for x, g in pairs]
    require_same(*gradients)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_windows_are_given_row_after_row(structure):
    system, u = random_system(structure, n_channels=3), swapped(np.ones((2, 3, 20)))
    y, _ = NUMBA.cascade(system, u, order=2, kind="chain", window=4)
    found = NUMBA.cascade_vjp(system, u, None, u, None, order=2, kind="chain", window=4)
    assert y.flags.c_contiguous
    assert MemoryOrder.of(found.u) == MemoryOrder(u.shape, channels_last=False)
