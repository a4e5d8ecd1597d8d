"""What every call of a backend must keep: no exception, the right shape and dtype, finite values, no writes."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from traceback import extract_tb
from typing import Any

import numpy as np

from ..backend import FUSED, PRIMITIVES, Arithmetic, Backend, Gradients, Rejection
from ..problem import Problem
from .example import Array

# Whose frames say nothing about foreign code.
_OURS = (Path(__file__).parent, Path(importlib.__file__).parent)


class BackendFault(Exception):
    """A backend broke the contract of a call.

    Attributes:
        kind: `raised`, `type`, `shape`, `dtype`, `not finite`, `mutated` or `not repeatable`.
    """

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        super().__init__(message)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.kind, *self.args)


class CheckedBackend(Backend):
    """A backend whose every call is checked; what it computes is not changed.

    Raises:
        BackendFault: a call broke the contract.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        # What is asked of a backend is declared on it; mypy knows these as class variables.
        self.__dict__.update(
            name=backend.name,
            requires=backend.requires,
            install=backend.install,
            capabilities=backend.capabilities,
            linear_method=backend.linear_method,
            arithmetic=backend.arithmetic,
        )

    def arithmetic_for(self, problem: Problem) -> Arithmetic:
        return self._backend.arithmetic_for(problem)

    def reject(self, problem: Problem) -> Rejection | None:
        return self._backend.reject(problem)

    def missing_packages(self) -> tuple[str, ...]:
        return self._backend.missing_packages()

    def __getattr__(self, name: str) -> Any:
        if name.removesuffix("_vjp") not in (*PRIMITIVES, *FUSED):
            raise AttributeError(name)
        method = getattr(self._backend, name)
        expected = _EXPECTED[name]
        if name in ("scan", "cascade"):  # the two that return states
            expected = partial(expected, finer=self.arithmetic.state_dtype)

        def checked(*args: Any, **options: Any) -> Any:
            # `add_correlations` writes to its first argument, as its contract says.
            given = _arrays((args[name == "add_correlations" :], options))
            before = [array.tobytes() for array in given]
            try:
                result = method(*args, **options)
            except KeyboardInterrupt:
                raise
            except BackendFault:
                raise
            except BaseException as error:  # SystemExit too: code under test may do anything
                raise BackendFault("raised", f"{name} raised {described(error)}") from error
            for array, content in zip(given, before, strict=True):
                if array.tobytes() != content:
                    raise BackendFault("mutated", f"{name} wrote into an array of shape {array.shape} it was given")
            expected(name, result, *args, **options)
            return result

        return checked


def described(error: BaseException) -> str:
    """Type and message of an error, and the innermost line of the file in which foreign code was entered."""
    text = f"{type(error).__name__}: {error}".removesuffix(": ")
    frames = [f for f in extract_tb(error.__traceback__) if Path(f.filename).is_file()]  # others are frozen
    foreign = [f for f in frames if Path(f.filename).parent not in _OURS]
    if not foreign:
        return text
    last = [f for f in foreign if f.filename == foreign[0].filename][-1]
    return f"{text} ({Path(last.filename).name}, line {last.lineno})"


def check_array(what: str, value: Any, shape: tuple[int, ...], dtype: Any) -> None:
    """Raise a `BackendFault` unless `value` is a finite array of this shape and dtype."""
    if not isinstance(value, np.ndarray):
        raise BackendFault("type", f"{what} is a {type(value).__module__}.{type(value).__name__}, not a NumPy array")
    if value.shape != shape:
        raise BackendFault("shape", f"{what} has shape {value.shape}; expected {shape}")
    if value.dtype != dtype:
        raise BackendFault("dtype", f"{what} has dtype {value.dtype}; expected {np.dtype(dtype)}")
    if not np.isfinite(value).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(value))[0])
        raise BackendFault("not finite", f"{what} is {value[where]} at index {where}; every exact value is finite")


def _pair(what: str, result: Any, names: str) -> tuple[Any, Any]:
    if not (isinstance(result, tuple) and len(result) == 2):
        raise BackendFault("type", f"{what} returned {type(result).__name__}; expected the pair {names}")
    return result


def _arrays(value: Any) -> list[Array]:
    """Every array that a call can reach."""
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, (tuple, list)):
        return [array for part in value for array in _arrays(part)]
    if isinstance(value, Mapping):
        return _arrays(list(value.values()))
    return _arrays(value.parameters) if hasattr(value, "parameters") else []


def _state_dtype(system: Any, u: Array, finer: str | None) -> Any:
    is_complex = any(np.iscomplexobj(array) for array in system.parameters.values())
    return np.result_type(u.dtype, *([finer] if finer else []), *([np.complex64] if is_complex else []))


def _modes(system: Any) -> tuple[int, ...]:
    return (system.n_modes,) if system.structure == "mimo" else (system.n_channels, system.n_modes)


def _kernel(name: str, result: Any, system: Any, length: int, power: int = 1) -> None:
    check_array(name, result, (system.n_channels, length), system.dtype)


def _convolve(name: str, result: Any, kernel: Array, u: Array) -> None:
    check_array(name, result, u.shape, u.dtype)


def _scan(name: str, result: Any, system: Any, u: Array, state: Any = None, *, finer: str | None, **_: Any) -> None:
    y, final = _pair(name, result, "(y, final_state)")
    check_array(f"y of {name}", y, u.shape, u.dtype)
    check_array(f"final_state of {name}", final, (u.shape[0], *_modes(system)), _state_dtype(system, u, finer))


def _cascade(
    name: str,
    result: Any,
    system: Any,
    u: Array,
    state: Any = None,
    *,
    order: int,
    finer: str | None,
    window: int | None = None,
    **_: Any,
) -> None:
    y, final = _pair(name, result, "(y, final states)")
    check_array(f"y of {name}", y, u.shape, u.dtype)
    if window is None:
        shape = (u.shape[0], order, *_modes(system))
        check_array(f"final states of {name}", final, shape, _state_dtype(system, u, finer))


def _correlate(name: str, result: Any, u: Array, *, order: int, **_: Any) -> None:
    terms, sums = _pair(name, result, "(terms, final sums)")
    check_array(f"terms of {name}", terms, (order - 1, *u.shape), u.dtype)
    if sums is not None:
        check_array(f"sums of {name}", sums, (np.shape(sums)[0], *u.shape[:2]), u.dtype)


def _added_gradients(
    name: str,
    result: Any,
    u: Array,
    responses: Array,
    *_: Any,
    sums: Array | None = None,
    previous: Array | None = None,
    **__: Any,
) -> None:
    if not (isinstance(result, tuple) and len(result) == 4):
        raise BackendFault("type", f"{name} returned {type(result).__name__}; expected four gradients")
    named = {"u": u, "responses": responses, "sums": sums, "previous": previous}
    for (what, given), gradient in zip(named.items(), result, strict=True):
        if given is not None:
            check_array(f"gradient of {what}", gradient, given.shape, given.dtype)


def _joint_scan(name: str, result: Any, system: Any, u: Array, *, order: int) -> None:
    check_array(name, result, u.shape, u.dtype)


def _joint_gradients(name: str, result: Any, system: Any, u: Array, *rest: Any, order: int) -> None:
    _gradients(name, result, system, u, *rest)
    x, inputs = _pair(f"state of {name}", result.state, "(initial state, earlier inputs)")
    # The state's dtype may be finer than that of u.
    check_array(f"gradient of the state of {name}", x, (u.shape[0], *_modes(system)), x.dtype)
    check_array(f"gradient of earlier inputs of {name}", inputs, (*u.shape[:2], order - 1), u.dtype)


def _single_step(name: str, result: Any, system: Any, u: Array, spec: Any, *parts: Array | None) -> None:
    if result is None:
        return
    y, *after = result
    check_array(name, y, u.shape, u.dtype)
    for what, part, before in zip(("x", "sums", "inputs"), after, parts, strict=True):
        if before is not None:
            check_array(f"{what} of {name}", part, before.shape, before.dtype)


def _gradients(name: str, result: Any, system: Any, u: Array, *_: Any, **__: Any) -> None:
    if not isinstance(result, Gradients):
        raise BackendFault("type", f"{name} returned {type(result).__name__}; expected Gradients")
    for key, parameter in system.parameters.items():
        check_array(f"gradient of {key}", result.parameters.get(key), parameter.shape, parameter.dtype)
    check_array("gradient of u", result.u, u.shape, u.dtype)


def _anything(name: str, result: Any, *_: Any, **__: Any) -> None:
    """No further shape is promised."""


_EXPECTED: dict[str, Any] = {
    "kernel": _kernel,
    "convolve": _convolve,
    "scan": _scan,
    "cascade": _cascade,
    "correlate": _correlate,
    "add_correlations": _anything,
    "add_correlations_vjp": _added_gradients,
    "joint_scan": _joint_scan,
    "single_step": _single_step,
    "kernel_vjp": _anything,
    "convolve_vjp": _anything,
    "scan_vjp": _gradients,
    "cascade_vjp": _gradients,
    "joint_scan_vjp": _joint_gradients,
    "correlate_vjp": _anything,
}
