"""The pytest option `--liquid-backend module:Class`, for `--pyargs liquid_ssm.testing.conformance`.

Loaded by every pytest run where liquid-ssm is installed, so it imports nothing beyond the package itself: no oracle, no
Hypothesis, no SciPy.
"""

from __future__ import annotations

from typing import Any


def pytest_addoption(parser: Any) -> None:
    group = parser.getgroup("liquid-ssm", "conformance of a backend of Liquid-S4")
    group.addoption("--liquid-backend", metavar="MODULE:CLASS", help="the backend or adapter under test")
    group.addoption("--liquid-examples", type=int, default=25, metavar="N", help="examples per check (default: 25)")
    group.addoption("--liquid-time-limit", type=float, default=60.0, metavar="SECONDS", help="per check (default: 60)")
