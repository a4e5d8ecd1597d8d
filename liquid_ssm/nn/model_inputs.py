"""What models take, and what they never give: their inputs and outputs, checked.

A model here has `tokens`, `n_inputs` and an `encoder`, as `SequenceModel` and what it is compared with.
"""

from __future__ import annotations

from typing import Any

import torch

from ..errors import DTypeError, ParameterError, ShapeError
from ..instability import require_finite_input
from ..tensors import all_finite_there, has_numbers, require_tensor
from .block import out_of_range
from .parameters import require_finite_parameters


def require_shape(model: Any, u: torch.Tensor, *, step: bool = False) -> None:
    """Raise a `DTypeError` or `ShapeError` unless u has the type and the axes that this model takes."""
    axes = ["batch"] if step else ["batch", "length"]
    if not model.tokens:
        axes.append(str(model.n_inputs))
    if not isinstance(u, torch.Tensor):
        raise DTypeError(f"u is a {type(u).__name__}; give a torch tensor, as of torch.as_tensor.")
    if u.ndim != len(axes) or not (model.tokens or u.shape[-1] == model.n_inputs):
        wanted = ", ".join(axes) + ("," if len(axes) == 1 else "")
        raise ShapeError(f"u has shape {tuple(u.shape)}; this model takes ({wanted}).")


def require_numbers(model: Any, u: torch.Tensor) -> None:
    """Raise a `DTypeError` or `ParameterError` unless u has numbers that this model takes."""
    if not model.tokens:
        held = model.encoder.weight
        require_tensor("u", u)
        if u.dtype != held.dtype and held.is_floating_point() and not torch.is_autocast_enabled(u.device.type):
            raise DTypeError(
                f"u has dtype {u.dtype}, this model's parameters {held.dtype}; give u.to({held.dtype}), or move "
                "the model with .to()."
            )
        return
    if u.is_floating_point() or u.is_complex() or u.dtype == torch.bool:
        raise ParameterError(f"u has dtype {u.dtype}; tokens are whole numbers, as with .long().")
    if u.numel() and has_numbers(u) and not 0 <= int(u.min()) <= int(u.max()) < model.n_inputs:
        raise ParameterError(
            f"u holds tokens from {int(u.min())} to {int(u.max())}; this model's vocabulary is 0 to "
            f"{model.n_inputs - 1}."
        )


def require_finite_output(model: Any, u: torch.Tensor, y: torch.Tensor) -> None:
    """Raise what `raise_not_finite` raises unless the outputs y of a model for u are finite."""
    if has_numbers(y) and not all_finite_there(y.detach()):
        raise_not_finite(model, u, "the output", None)


def raise_not_finite(model: Any, u: torch.Tensor, where: str, cause: Exception | None) -> None:
    """Raise what is not finite first: inputs, parameters, or a number that is computed from them."""
    if not model.tokens:
        steps = u if u.ndim == 3 else u[:, None]
        require_finite_input(steps.movedim(1, 2).double().numpy(force=True))
    require_finite_parameters(model, cause)
    raise out_of_range(f"{where} of this model", u) from cause
