"""Identities between modes, and what is no identity."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ...compute import problem_of
from ...oracle.convolution import kernel_and_size
from ...oracle.kernel_error import kernel_error
from ...oracle.reference import Bound
from ...problem import ModeSpec
from ...rounding_errors import realization_of, rounding_model
from ..example import Array, Example
from ..strategies import plain_system
from ..subject import PropertyViolation, Subject, added, require_equal
from .property import Property

_WINDOWED = ("kb-all-window", "kb-adjacent-window", "pb-all-window", "pb-adjacent-window")
_ORDERED = ("truncated", "kb-all", "kb-adjacent", "pb-all", "pb-adjacent", *_WINDOWED)


def _scaled(bound: Bound, factor: float) -> Bound:
    return Bound(factor * bound.componentwise, factor * bound.normwise)


def _same_mode(subject: Subject, example: Example, other: ModeSpec) -> None:
    """The outputs of two modes that have the same exact value."""
    changed = example.having(spec=other)
    bounds = [subject.bound(e) for e in (example, changed)]
    require_equal(
        subject.outputs(example), subject.outputs(changed), bounds, f"y of {example.spec.label}", f"y of {other.label}"
    )


def _linear(subject: Subject, example: Example) -> None:
    # u and v have no step in common and powers of two scale exactly, so that 2u - 4v has no rounding error.
    even = np.arange(example.length) % 2 == 0
    u, v = example.u * even, example.u * ~even
    pieces = [example.having(u=w.astype(example.u.dtype)) for w in (2 * u - 4 * v, u, v)]
    y, first, second = (subject.outputs(e) for e in pieces)
    bounds = [subject.bound(e) for e in pieces]
    sums = _rounded(4 * np.abs(first) + 8 * np.abs(second))
    allowed = [bounds[0], _scaled(bounds[1], 2), _scaled(bounds[2], 4), sums]
    require_equal(y, 2 * first - 4 * second, allowed, "y(2u - 4v)", "2 y(u) - 4 y(v)")


def _rounded(magnitude: Array) -> Bound:
    """What a few additions of numbers of this magnitude may lose."""
    unit = float(np.finfo(magnitude.dtype).eps)
    tiny = float(np.finfo(magnitude.dtype).smallest_subnormal)
    return Bound(unit * magnitude.astype(float) + 4 * tiny, np.zeros(magnitude.shape[:2]))


def _homogeneous(subject: Subject, example: Example) -> None:
    """The order-P term, y of order P minus y of order P - 1, of 2u and of u."""
    order = example.spec.order
    if order == 1:
        return
    lower = replace(example.spec, order=order - 1)
    terms, bounds, size = [], [], np.zeros(example.u.shape, example.u.dtype)
    for factor, weight in ((2, 1.0), (1, 2.0**order)):
        scaled = [example.having(u=factor * example.u, spec=spec) for spec in (example.spec, lower)]
        y, below = (subject.outputs(e) for e in scaled)
        terms.append(y.dtype.type(weight) * (y - below))
        bounds += [_scaled(subject.bound(e), weight) for e in scaled]
        size += y.dtype.type(weight) * (np.abs(y) + np.abs(below))
    require_equal(
        terms[0],
        terms[1],
        [*bounds, _rounded(size)],
        f"the term of order {order} of 2u",
        f"2^{order} times the term of order {order} of u",
    )


def _first_order(subject: Subject, example: Example) -> None:
    # A window of 1 holds one input: no product fits in.
    window = None if example.spec.window is None else 1
    _same_mode(subject, example.having(spec=replace(example.spec, order=1, window=window)), ModeSpec("s4"))


def _all_orders(subject: Subject, example: Example) -> None:
    spec = ModeSpec("truncated", max(1, example.length + example.choice % 2))
    _same_mode(subject, example.having(spec=spec), ModeSpec("liquid"))


def _whole(example: Example) -> Example:
    """The example with a window that holds the whole sequence."""
    window = max(example.spec.order, example.length + example.choice % 3)
    return example.having(spec=replace(example.spec, window=window))


def _kb_is_truncated(subject: Subject, example: Example) -> None:
    # Without a window `kb` of a diagonal system is computed as `truncated`: two equal calls would be compared.
    _same_mode(subject, _whole(example), ModeSpec("truncated", example.spec.order))


def _whole_window(subject: Subject, example: Example) -> None:
    wide = _whole(example)
    _same_mode(subject, wide, replace(wide.spec, window=None))


def _proposition_1(subject: Subject, example: Example) -> None:
    """Σ_n k_{i,n} B̄_n^{p-1} = C Āⁱ B̄^{∘p}, k_i = (C Āⁱ) ∘ B̄ being the kernel before the sum over the state.

    For diagonal Ā the left side is the kernel of the system with output vector C ∘ B̄^{p-1}.
    """
    power, length = 1 + example.choice % 4, max(1, example.length)
    system = example.system
    arrays = {**system.parameters, "C": system.C * system.B_bar ** (power - 1)}
    moved = type(system)(**arrays, conjugate_pairs=system.conjugate_pairs)
    left = subject.backend.kernel(moved, length)
    right = subject.backend.kernel(system, length, power=power)
    model = rounding_model(subject.backend, problem_of(system, example.u, ModeSpec("s4")))
    errors = [
        kernel_error(realization_of(s), length, p, model) * subject.bound_factor
        for s, p in ((moved, 1), (system, power))
    ]
    # Kernels read off a recurrence have no more roundings than those from tables of powers.
    # The products in C ∘ B̄^{p-1} round too, relative to the kernel of the moduli, and may underflow.
    info = np.finfo(system.dtype)
    lost = 16 * system.n_modes * float(info.smallest_subnormal) * (1 + float(np.abs(system.B_bar).max()))
    rounded = 2 * power * float(info.eps) * kernel_and_size(realization_of(system), length, power)[1] + lost
    allowed = Bound((errors[0] + errors[1] + rounded)[None], np.zeros((1, len(left))))
    require_equal(left[None], right[None], [allowed], "the kernel of C ∘ B̄^{p-1}", f"the kernel of power {power}")


def _scaling(subject: Subject, example: Example) -> None:
    """B̄ → 2B̄, C → C/2: nothing changes in a linear system, but the liquid term doubles."""
    system = example.system
    factors = {"B_bar": system.dtype.type(2), "C": system.dtype.type(0.5)}
    arrays = {name: array * factors.get(name, system.dtype.type(1)) for name, array in system.parameters.items()}
    scaled = example.having(system=type(system)(**arrays, conjugate_pairs=system.conjugate_pairs))
    bounds = [subject.bound(e) for e in (example, scaled)]
    y, z = subject.outputs(example), subject.outputs(scaled)
    if example.spec.mode == "s4":
        require_equal(z, y, bounds, "y with 2 B̄ and C/2", "y")
        return
    if not np.any(np.abs(z - y) > added(*bounds).componentwise + added(*bounds).normwise[..., None]):
        raise PropertyViolation("y with 2 B̄ and C/2 equals y: the liquid term has no effect")


def _visible(structure: str, form: str, dtype: str) -> Iterator[Example]:
    for channels, modes in ((1, 1), (2, 3)):
        system = plain_system(structure, n_channels=channels, n_modes=modes, conjugate_pairs=structure != "dense")
        u = 0.25 * np.ones((1, channels, 6))
        yield Example(system.astype(dtype), u.astype(dtype), ModeSpec(form, 2))


ALGEBRA = (
    Property("linearity", "s4 is linear: y(2u - 4v) = 2 y(u) - 4 y(v)", _linear, forms=("s4",)),
    Property(
        "homogeneity",
        "the term of order p is homogeneous of degree p in u",
        _homogeneous,
        forms=_ORDERED,
        options={"max_order": 3},
    ),
    Property("first-order", "order 1 of every mode is s4", _first_order, forms=_ORDERED, modes=("s4",)),
    Property(
        "all-orders",
        "truncated with at least as many orders as time steps is liquid",
        _all_orders,
        forms=("truncated",),
        modes=("liquid",),
        options={"max_length": 6},
    ),
    Property(
        "kb-is-truncated",
        "kb over all index tuples, by its chains, is truncated where Ā is diagonal",
        _kb_is_truncated,
        forms=("kb-all-window",),
        structures=("diagonal",),
        modes=("truncated",),
    ),
    Property(
        "whole-window",
        "a window over the whole sequence changes nothing",
        _whole_window,
        forms=_WINDOWED,
    ),
    Property(
        "proposition-1",
        "the liquid kernel of order p is the product of the S4 kernel before the sum over the state with B̄^{p-1}",
        _proposition_1,
        forms=("s4",),
        structures=("diagonal",),
        primitive="kernel",
        options={"min_length": 1},
    ),
    Property(
        "scaling",
        "B̄ times 2 with C divided by 2 leaves s4 as it is and changes liquid and truncated",
        _scaling,
        forms=("s4", "liquid", "truncated"),
        fixed=_visible,
    ),
)
