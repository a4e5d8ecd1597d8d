"""Conjugates and negatives that torch only marks, for what runs inside an operator.

torch 2.13 calls an operator of a compiled function (backend aot_eager) with the two dispatch keys switched off that
make marks count: `x.conj() * 1` is then `x`, without a word.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch

_C: Any = torch._C
_KEYS = (_C.DispatchKey.Conjugate, _C.DispatchKey.Negative)


def marks_count(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, run with both keys switched on."""

    @wraps(function)
    def call(*arguments: Any) -> Any:
        off = [key for key in _KEYS if _C._dispatch_tls_is_dispatch_key_excluded(key)]
        for key in off:
            _C._dispatch_tls_set_dispatch_key_excluded(key, False)
        try:
            return function(*arguments)
        finally:
            for key in off:
                _C._dispatch_tls_set_dispatch_key_excluded(key, True)

    return call
