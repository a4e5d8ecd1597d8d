from __future__ import annotations

import pytest

from liquid_ssm.backend import Backend, Capabilities
from liquid_ssm.problem import ModeSpec
from liquid_ssm.registry import get_backend
from liquid_ssm.testing.properties.property import Property, spec_of
from liquid_ssm.testing.strategies import FORMS


def nothing(subject, example):
    """No statement."""


class Scan(Backend):
    name = "scan"
    capabilities = Capabilities(primitives={"scan": ("diagonal", "dense")}, dtypes=("float64",))


def applies(backend, structure="diagonal", form="liquid", dtype="float64", **limits):
    return Property("name", "statement", nothing, **limits).applies(backend, structure, form, dtype)


def test_without_limits_it_applies_wherever_the_backend_does():
    assert applies(Scan())
    assert applies(Scan(), form="s4")
    assert applies(Scan(), "dense")
    assert not applies(Scan(), "mimo")
    assert not applies(Scan(), form="truncated")
    assert not applies(Scan(), dtype="float32")


@pytest.mark.parametrize(
    "limits",
    [
        {"forms": ("s4", "truncated")},
        {"structures": ("dense", "mimo")},
        {"gradient": True},
        {"modes": ("truncated",)},
        {"modes": ("s4", "kb")},
        {"primitive": "kernel"},
    ],
    ids=str,
)
def test_each_limit(limits):
    assert not applies(Scan(), **limits)


def test_limits_that_are_kept():
    assert applies(Scan(), forms=("liquid",), structures=("diagonal",), state=True, modes=("s4",), primitive="scan")
    assert applies(get_backend("numpy"), gradient=True, primitive="kernel", modes=("kb", "pb", "truncated"))
    assert not applies(get_backend("scipy"), gradient=True)


def test_a_primitive_must_cover_the_structure():
    assert not applies(Scan(), "mimo", primitive="scan")
    assert not applies(get_backend("scipy"), "dense", primitive="kernel")


@pytest.mark.parametrize("form", FORMS)
def test_spec_of_is_of_its_form(form):
    spec = spec_of(form)
    assert spec.order == 2
    mode, _, rest = form.partition("-")
    window = 2 if rest.endswith("window") else None
    assert spec == ModeSpec(mode, 2, rest.partition("-")[0] or "all", window)
