"""Liquid structural state-space models (Liquid-S4, arXiv 2209.12951), checked against an exact reference."""

from os import path as _path
from typing import Any

from .apply import apply, step, vjp
from .backend import Gradients
from .continuous import ContinuousSystem
from .errors import (
    BackendRejected,
    BackendUnavailable,
    CertificateInvalid,
    DTypeError,
    LiquidSSMError,
    NotCertified,
    OracleInconclusive,
    ParameterError,
    ShapeError,
    SignalError,
    UnstableRecurrence,
)
from .initialize import initialize
from .modes import State
from .problem import ModeSpec, Problem
from .registry import default_backend
from .select import Choice, select
from .systems import DenseSystem, DiagonalSystem, DPLRSystem, MIMOSystem
from .verify import verify

__all__ = [
    "BackendRejected",
    "BackendUnavailable",
    "CertificateInvalid",
    "Choice",
    "ContinuousSystem",
    "DPLRSystem",
    "DTypeError",
    "DenseSystem",
    "DiagonalSystem",
    "Gradients",
    "LiquidSSMError",
    "MIMOSystem",
    "ModeSpec",
    "NotCertified",
    "OracleInconclusive",
    "ParameterError",
    "Problem",
    "ShapeError",
    "SignalError",
    "State",
    "UnstableRecurrence",
    "apply",
    "default_backend",
    "initialize",
    "select",
    "step",
    "verify",
    "vjp",
]

# In a checkout `backends` and `oracle` lie beside this folder, not in it, and a Python started there imports this one
# in preference to an installed one.
if not _path.isdir(_path.join(__path__[0], "backends")):
    __path__.append(_path.dirname(__path__[0]))


def __getattr__(name: str) -> Any:
    if name == "__version__":
        # importlib.metadata costs more than the rest of the import, so only who asks pays.
        from importlib.metadata import version

        return version("liquid-ssm")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
