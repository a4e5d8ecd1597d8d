"""A property that no backend can violate checks nothing, so each is seen failing once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest

from liquid_ssm.backend import Backend
from liquid_ssm.registry import get_backend
from liquid_ssm.testing.contract import BackendFault
from liquid_ssm.testing.properties import PROPERTIES
from liquid_ssm.testing.subject import PropertyViolation, Subject
from liquid_ssm.testing.suite import Check, run


class Changed(Backend):
    """The numpy backend with one method replaced; the replacement gets the original first."""

    def __init__(self, method: str, replacement: Callable[..., Any]) -> None:
        self._original = original = get_backend("numpy")
        self.__dict__.update(name="changed", capabilities=original.capabilities, arithmetic=original.arithmetic)
        self.__dict__[method] = partial(replacement, getattr(original, method))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)


def of_y(change):
    """A method that changes its outputs by a function of y and u."""

    def changed(method, system, u, *a, **o):
        y, final = method(system, u, *a, **o)
        return np.asarray(change(y, u), y.dtype), final

    return changed


def of_final(change):
    """A scan that changes its final state."""

    def changed(method, *a, **o):
        y, final = method(*a, **o)
        return y, change(final)

    return changed


def late(method, system, u, state=None, **o):
    """The state enters one step late."""
    if state is None or not u.size:
        return method(system, u, state, **o)
    y, _ = method(system, u[..., :1], None, **o)
    rest, final = method(system, u[..., 1:], state, **o)
    return np.concatenate([y, rest], axis=-1), final


def always_liquid(method, *a, liquid):
    return method(*a, liquid=True)


def never_liquid(method, *a, liquid):
    return method(*a, liquid=False)


def one_order_less(method, system, u, state=None, *, order, **o):
    y, _ = method(system, u, order=max(1, order - 1), **o)
    _, final = method(system, u, state, order=order, **o)
    return y, final


def highest_order_alone(method, system, u, state=None, *, order, **o):
    y, final = method(system, u, state, order=order, **o)
    return (y - method(system, u, order=order - 1, **o)[0] if order > 1 else y), final


def narrower(method, *a, order, window=None, **o):
    return method(*a, order=order, window=None if window is None else max(order, window // 2), **o)


def lower_power(method, system, length, power=1):
    return method(system, length, power=max(1, power - 1))


def one_half(method, system, *a, **o):
    y, final = method(system, *a, **o)
    return y / system.weight, final


def no_empty_batch(method, system, u, *a, **o):
    u[0]
    return method(system, u, *a, **o)


def noise():
    calls = []

    def changed(y, u):
        calls.append(None)
        return y + len(calls)

    return of_y(changed)


@dataclass(frozen=True)
class Wrong:
    """A backend that has every property but one, as far as that one is concerned."""

    method: str
    change: Callable[..., Any]
    form: str = "liquid"
    said: str = ""
    error: type[Exception] = PropertyViolation


def scan(change, *rest):
    return Wrong("scan", change, *rest)


def cascade(change, form, *rest):
    return Wrong("cascade", change, form, *rest)


WRONG = {
    "within-bound": scan(of_y(lambda y, u: y * (1 + 1e-9)), "liquid", "the exact value is"),
    "initial-state": scan(late, "liquid", "the exact value is"),
    "lengths": scan(of_y(lambda y, u: y * (u.shape[-1] != 128 + 37)), "liquid", "H 1, M 2, L 165\n"),
    "empty": Wrong("scan", no_empty_batch, "liquid", "scan raised IndexError", BackendFault),
    "causality": scan(of_y(lambda y, u: y + 2.0**-50 * u.sum(axis=-1, keepdims=True)), "liquid", "y differs from its"),
    "steps": scan(of_final(lambda x: x * 0.75), "liquid", "y computed step by step"),
    "steps-from-state": scan(of_final(lambda x: x.conj()), "liquid", "y computed step by step"),
    "pieces": scan(of_final(lambda x: 0 * x), "liquid", "y computed in two pieces"),
    "padding": scan(of_y(lambda y, u: y * (2 if u.shape[-1] > 6 else 1)), "liquid", "zeros were appended to u"),
    "time-invariance": scan(of_y(lambda y, u: y * (1 + np.arange(u.shape[-1]))), "liquid", "y delayed by"),
    "repeatability": Wrong("scan", noise(), "liquid", "y of a second call"),
    "linearity": scan(always_liquid, "s4", "2 y(u) - 4 y(v)"),
    "homogeneity": cascade(highest_order_alone, "truncated", "times the term of order"),
    "first-order": cascade(of_y(lambda y, u: 2 * y), "truncated", "y of s4"),
    "all-orders": cascade(one_order_less, "truncated", "y of liquid"),
    "kb-is-truncated": cascade(narrower, "kb-all-window", "y of truncated"),
    "whole-window": cascade(narrower, "kb-all-window", "y of kb"),
    "proposition-1": Wrong("kernel", lower_power, "s4", "the kernel of power"),
    "scaling": scan(never_liquid, "liquid", "the liquid term has no effect"),
    "batch-rows": scan(of_y(lambda y, u: y + np.arange(len(y))[:, None, None]), "liquid", "the row alone"),
    "batch-order": scan(of_y(lambda y, u: y + np.arange(len(y))[:, None, None]), "liquid", "y of permuted rows"),
    "channel-order": scan(of_y(lambda y, u: y + np.arange(y.shape[1])[:, None]), "liquid", "y of permuted channels"),
    "strides": scan(of_y(lambda y, u: y * (1 if u.flags.c_contiguous else 2)), "liquid", "y of u"),
    "conjugate-pairs": scan(one_half, "liquid", "y of the full system"),
    "conjugate-pairs-from-state": scan(one_half, "liquid", "y of the full system"),
}


def test_the_table_has_every_property_but_gradients():
    assert set(WRONG) == {item.name for item in PROPERTIES if not item.gradient}


@pytest.mark.parametrize("name", WRONG)
def test_every_property_can_fail(name):
    wrong = WRONG[name]
    check = Check(name, wrong.form, "diagonal", "float64")
    options = {"max_examples": 50, "derandomize": True, "database": None}
    with pytest.raises(wrong.error, match=f"^{name}: ") as caught:
        run(check, Subject(Changed(wrong.method, wrong.change)), **options)
    assert wrong.said in str(caught.value)
    # Nothing but the change is to blame.
    run(check, Subject(get_backend("numpy")), **{**options, "max_examples": 2})


def test_scaling_is_an_invariance_of_s4():
    check = Check("scaling", "s4", "diagonal", "float64")
    with pytest.raises(PropertyViolation, match="y with 2 B̄ and C/2"):
        run(check, Subject(Changed("scan", always_liquid)))


@pytest.mark.parametrize("form", ["kb-adjacent-window", "pb-all-window", "pb-adjacent-window"])
def test_a_whole_window_can_fail_in_the_other_forms(form):
    def short(kernel, system, length, power=1):
        return kernel(system, length, power=power) * (np.arange(length) < max(1, length // 2))

    changed = Changed("kernel", short) if form.startswith("kb") else Changed("correlate", narrower)
    check = Check("whole-window", form, "diagonal", "float64")
    with pytest.raises(PropertyViolation, match=r"^whole-window: "):
        run(check, Subject(changed), max_examples=50, derandomize=True, database=None)
