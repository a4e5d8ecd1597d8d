"""The model as layers for torch: causal, streaming, trainable, and checked like every backend."""

from ..errors import BackendUnavailable

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as missing:
    raise BackendUnavailable("liquid_ssm.nn needs torch. Run: pip install 'liquid-ssm[torch]'") from missing

from .baselines import LSTM, Transformer
from .block import Block
from .build import MODEL_NAMES, ModelConfig, build, n_parameters, width_for
from .diagnosis import Diagnosis, diagnose
from .export import SplitRealForward, SplitRealStep, join_state, split_state
from .layer import SSMLayer
from .liquid_time_constant import LTC, Linearised, linearised
from .model import ModelState, SequenceModel
from .model_file import LoadedModel, load_model, save_model
from .models import (
    MODELS,
    dss,
    linear_ltc,
    liquid_s4,
    liquid_s4_kb,
    liquid_s4_pb,
    liquid_s4_truncated,
    liquid_s5,
    ltc,
    s4_fout,
    s4_legs,
    s4_legs_fout,
    s4d_inv,
    s4d_legs,
    s4d_lin,
    s5,
)
from .multistep import MultistepState
from .optim import parameter_groups
from .pair import PairModel
from .parameters import ContinuousParameters
from .published import from_published
from .regularisation import gain_penalty, recorded_inputs
from .stability import gain, input_limit

__all__ = [
    "LSTM",
    "LTC",
    "MODELS",
    "MODEL_NAMES",
    "Block",
    "ContinuousParameters",
    "Diagnosis",
    "Linearised",
    "LoadedModel",
    "ModelConfig",
    "ModelState",
    "MultistepState",
    "PairModel",
    "SSMLayer",
    "SequenceModel",
    "SplitRealForward",
    "SplitRealStep",
    "Transformer",
    "build",
    "diagnose",
    "dss",
    "from_published",
    "gain",
    "gain_penalty",
    "input_limit",
    "join_state",
    "linear_ltc",
    "linearised",
    "liquid_s4",
    "liquid_s4_kb",
    "liquid_s4_pb",
    "liquid_s4_truncated",
    "liquid_s5",
    "load_model",
    "ltc",
    "n_parameters",
    "parameter_groups",
    "recorded_inputs",
    "s4_fout",
    "s4_legs",
    "s4_legs_fout",
    "s4d_inv",
    "s4d_legs",
    "s4d_lin",
    "s5",
    "save_model",
    "split_state",
    "width_for",
]
