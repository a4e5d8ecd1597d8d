"""Sequences that are divided among processes: each rank of a torch.distributed group holds a slice of time."""

from .exchange import ExchangeFailed
from .layers import forward
from .reductions import sum_gradients
from .scan import apply
from .shares import share

__all__ = ["ExchangeFailed", "apply", "forward", "share", "sum_gradients"]
