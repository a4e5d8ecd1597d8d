"""Methods written for torch tensors that take NumPy arrays as well and then answer with NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from liquid_ssm.backend import Gradients

Method = Callable[..., Any]


def on_tensors(method: Method) -> Method:
    """A method of a backend whose array arguments (and system) are all tensors, made to take NumPy arrays too.

    Called with tensors it is the method itself.  Called with NumPy arrays it runs on tensors that share their memory
    where that is writeable, on the backend's `numpy_device`, without recording gradients.
    """

    @wraps(method)
    def either(self: Any, *args: Any, **options: Any) -> Any:
        if not any(_is_numpy(value) for value in (*args, *options.values())):
            return method(self, *args, **options)
        import torch

        device = self.numpy_device
        with torch.no_grad():
            moved = [_to_tensor(value, device) for value in args]
            named = {name: _to_tensor(value, device) for name, value in options.items()}
            return _to_numpy(method(self, *moved, **named))

    return either


def _is_numpy(value: Any) -> bool:
    return isinstance(value, np.ndarray) or getattr(value, "is_torch", True) is False


def _to_tensor(value: Any, device: str) -> Any:
    if isinstance(value, np.ndarray):
        import torch

        if not value.flags.writeable or any(stride < 0 for stride in value.strides):
            value = value.copy()  # torch has neither read-only tensors nor negative strides
        return torch.from_numpy(value).to(device)
    return value.to_torch(device) if _is_numpy(value) else value


def _to_numpy(value: Any) -> Any:
    if isinstance(value, Gradients):
        return Gradients(*(_to_numpy(part) for part in value))
    if isinstance(value, tuple):
        return tuple(_to_numpy(part) for part in value)
    if isinstance(value, dict):
        return {name: _to_numpy(part) for name, part in value.items()}
    return value.detach().cpu().resolve_conj().resolve_neg().numpy() if hasattr(value, "detach") else value
