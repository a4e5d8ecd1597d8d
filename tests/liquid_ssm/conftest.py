"""What the tests of certificates share, and bounds on the rounding errors of networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from liquid_ssm import validators
from liquid_ssm.certificate import Candidate, Certificate, Domain, Range


def _candidate(name: str, status: str, reason: str = "", **numbers: Any) -> Candidate:
    known: dict[str, Any] = dict.fromkeys(
        ("error", "bound", "error_over_bound", "seconds", "seconds_min", "seconds_max", "compile_seconds")
    )
    return Candidate(name, status, reason, **{**known, "runs": 0, **numbers})


@pytest.fixture(scope="session")
def make_certificate() -> Callable[..., Certificate]:
    """A certificate like those of a selection; keywords replace fields of it or of its domain."""
    domain = Domain(
        mode="truncated",
        order=3,
        correlations=None,
        window=None,
        structure="diagonal",
        dtype="float32",
        device="cpu",
        arrays="numpy",
        gradient=False,
        state=True,
        batch=(1, 4),
        n_channels=(3, 4),
        n_modes=(64, 64),
        length=(1025, 2048),
        radius=Range(0.9, 1 - 2.0**-10),
        drive=Range(0.0, 0.1),
        dt=Range(1e-3, 0.1),
        tolerance=1e-5,
    )
    timed = {"error": 3.1e-7, "bound": 2e-6, "error_over_bound": 0.155, "runs": 30, "compile_seconds": 1.25}
    candidates = (
        _candidate("numba", "chosen", "", **timed, seconds=0.0031, seconds_min=0.003, seconds_max=0.0040),
        _candidate("numpy", "passed", "slower", **timed, seconds=1.5, seconds_min=1.4, seconds_max=1.7),
        _candidate("numba-wide-state", "refused", "[red]its error is 1.2 times the bound", error_over_bound=1.2),
        _candidate("keops", "unavailable", "pykeops is not installed"),
    )
    certificate = Certificate(
        backend="numba",
        domain=domain,
        problem={"shape": (4, 4, 2048), "seed": 0, "spec": {"mode": "truncated", "order": 3}},
        candidates=candidates,
        oracle={"tier": "T1", "radius": 1.2e-32, "coverage": "every step"},
        validators={"numba": "0.61.2", "cpu": "a processor"},
        created="2026-01-02T03:04:05+00:00",
    )

    def make(**changes: Any) -> Certificate:
        of_domain = {name: changes.pop(name) for name in list(changes) if hasattr(domain, name)}
        return replace(certificate, domain=replace(domain, **of_domain), **changes)

    return make


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The validators that `liquid_ssm.validators` gives as long as the test runs; change them in place."""
    current = {"numba": "0.61.2", "cpu": "a processor"}
    monkeypatch.setattr(validators, "validators", lambda arrays="numpy", device="cpu": dict(current))
    return current


def _beside_layers(name: str) -> Any:
    """A module of helpers in the folder of the tests of layers."""
    spec = spec_from_file_location(name, Path(__file__).parent / "nn" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def rounded() -> Any:
    """The module of networks with bounds on their rounding errors."""
    return _beside_layers("rounded")


@pytest.fixture(scope="session")
def integrated() -> Any:
    """The module of layers that integrate, in mpmath, with bounds."""
    return _beside_layers("integrated")


@pytest.fixture(scope="session")
def rounded_gradients() -> Any:
    """The same of networks in training, with bounds on those of gradients."""
    return _beside_layers("rounded_gradients")
