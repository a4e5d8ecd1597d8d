from __future__ import annotations

from pathlib import Path

import platformdirs
import pytest

from liquid_ssm.backends.compiled import caching
from liquid_ssm.cache_folder import ENVIRONMENT_VARIABLE, cache_folder


def test_the_environment_names_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LIQUID_SSM_CACHE_DIR", str(tmp_path / "new"))
    assert cache_folder() == tmp_path / "new"
    # Asking makes nothing.
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("value", [None, ""])
def test_else_it_is_the_users(value: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if value is None:
        monkeypatch.delenv("LIQUID_SSM_CACHE_DIR", raising=False)
    else:
        monkeypatch.setenv("LIQUID_SSM_CACHE_DIR", value)
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / name)
    assert cache_folder() == tmp_path / "liquid-ssm"


def test_compiled_kernels_are_below_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LIQUID_SSM_CACHE_DIR", str(tmp_path))
    assert caching.ENVIRONMENT_VARIABLE == ENVIRONMENT_VARIABLE
    # Not the cached result, which belongs to this process.
    compiled = caching.cache_folder.__wrapped__()
    assert compiled is not None
    assert compiled.is_relative_to(cache_folder())
