"""A folder of their own for the certificates of each test, and what a process remembers forgotten."""

from __future__ import annotations

import numpy as np
import pytest

import liquid_ssm as ls
from liquid_ssm import registry
from liquid_ssm.selection import auto


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LIQUID_SSM_CACHE_DIR", str(tmp_path / "cache"))
    auto.forget()
    yield tmp_path / "cache"
    auto.forget()


@pytest.fixture
def only(monkeypatch):
    """Take all backends but the named ones out of the registry: selections are quick, and who wins is known."""

    def keep(*names: str, **more: str) -> None:
        targets = {name: target for name, target in registry.BUILT_IN if name in names}
        monkeypatch.setattr(registry, "_targets", lambda: {**more, **targets})
        registry._named.cache_clear()

    yield keep
    registry._named.cache_clear()


@pytest.fixture
def system():
    return ls.initialize("s4d-lin", n_channels=2, n_state=8, dt_min=1e-2, dt_max=1e-1, seed=0).discretize("bilinear")


@pytest.fixture
def u():
    return np.random.default_rng(0).normal(size=(2, 2, 40))
