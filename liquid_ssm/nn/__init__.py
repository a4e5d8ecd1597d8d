"""The model as layers for torch: causal, streaming, trainable, and checked like every backend."""

from ..errors import BackendUnavailable

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as missing:
    raise BackendUnavailable("liquid_ssm.nn needs torch. Run: pip install 'liquid-ssm[torch]'") from missing

from .block import Block
from .layer import SSMLayer
from .model import ModelState, SequenceModel
from .models import (
    MODELS,
    dss,
    liquid_s4,
    liquid_s4_kb,
    liquid_s4_pb,
    liquid_s4_truncated,
    liquid_s5,
    s4_fout,
    s4_legs,
    s4_legs_fout,
    s4d_inv,
    s4d_legs,
    s4d_lin,
    s5,
)
from .optim import parameter_groups
from .parameters import ContinuousParameters

__all__ = [
    "MODELS",
    "Block",
    "ContinuousParameters",
    "ModelState",
    "SSMLayer",
    "SequenceModel",
    "dss",
    "liquid_s4",
    "liquid_s4_kb",
    "liquid_s4_pb",
    "liquid_s4_truncated",
    "liquid_s5",
    "parameter_groups",
    "s4_fout",
    "s4_legs",
    "s4_legs_fout",
    "s4d_inv",
    "s4d_legs",
    "s4d_lin",
    "s5",
]
