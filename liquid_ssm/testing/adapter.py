"""Backends of other people: from "module:Class" to something that the suite can run."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from ..backend import Arithmetic, Backend, Capabilities, Rejection
from ..errors import ParameterError
from ..problem import DTYPES, Problem
from .contract import BackendFault, described
from .example import Array

_FORM = "An adapter is a class without constructor arguments with a method scan(a, b, c, u, state) -> (y, final_state)"


class AdapterBackend(Backend):
    """A class that only has `scan(a, b, c, u, state) -> (y, final_state)`, as a backend.

    The adapter computes x_k = (a + b u_k) x_{k-1} + b u_k, y_k = 2 Re Σ_n c_n x_{k,n} (Eq. 11): a, b, c (H, M)
    complex, one of each conjugate pair; u (batch, H, L) real; state x_{-1} (batch, H, M) complex or None for rest;
    y like u, final_state x_{L-1} like a state.  All arrays have the precision of u.

    What else an adapter may have:

    * `name`: how reports call it; by default the name of the class.
    * `dtypes`: of u, by default ("float32", "float64").
    * `scan_order`: "sequential" if it runs in the order of time; by default "any", which also allows trees and
      chunks and has the wider error bound.
    * `scan_chunk`: with `scan_order` "any", the number of steps after which the state is passed on in the order of
      time; the bound is then narrower.
    * `linear_scan(a, b, c, u, state)`: the same for Eq. 2, x_k = a x_{k-1} + b u_k: mode `s4`.
    * `truncated_scan(a, b, c, u, state, order)`: mode `truncated`; states (batch, order, H, M), y sums the orders.
    """

    capabilities: Capabilities  # type: ignore[misc]  # an adapter's own

    def __init__(self, adapter: Any) -> None:
        self._adapter = adapter
        dtypes = getattr(adapter, "dtypes", DTYPES)
        order: Any = getattr(adapter, "scan_order", "any")
        if not (isinstance(dtypes, (tuple, list)) and dtypes and all(dtype in DTYPES for dtype in dtypes)):
            allowed = f"a tuple of some of {', '.join(map(repr, DTYPES))}"
            raise ParameterError(f"dtypes of the adapter is {dtypes!r}; allowed: {allowed}.")
        if order not in ("sequential", "any"):
            raise ParameterError(f"scan_order of the adapter is {order!r}; allowed: 'sequential', 'any'.")
        chunk = getattr(adapter, "scan_chunk", None)
        if chunk is not None and not (order == "any" and type(chunk) is int and chunk >= 1):
            raise ParameterError(
                f"scan_chunk of the adapter is {chunk!r} with scan_order {order!r}; allowed: a number of steps "
                ">= 1 with scan_order 'any', or None."
            )
        primitives = {"scan": ("diagonal",)}
        if hasattr(adapter, "truncated_scan"):
            primitives["cascade"] = ("diagonal",)
        self.__dict__.update(
            name=str(getattr(adapter, "name", type(adapter).__name__)),
            capabilities=Capabilities(primitives=primitives, dtypes=tuple(map(str, dtypes))),
            arithmetic=Arithmetic(scan=order, scan_chunk=chunk),
        )

    @property
    def has_linear(self) -> bool:
        return hasattr(self._adapter, "linear_scan")

    def reject(self, problem: Problem) -> Rejection | None:
        if problem.spec.mode not in ("liquid", "truncated", "s4"):
            return Rejection(self.name, "primitive", "mode s4, liquid or truncated", problem.spec.label)
        if problem.spec.mode == "s4" and not self.has_linear:
            return Rejection(self.name, "primitive", "a method linear_scan", problem.spec.label)
        return super().reject(problem)

    def scan(self, system: Any, u: Array, state: Array | None = None, *, liquid: bool) -> Any:
        method = self._adapter.scan if liquid else self._adapter.linear_scan
        return self._call("scan" if liquid else "linear_scan", method, system, u, state)

    def cascade(self, system: Any, u: Array, state: Array | None = None, *, order: int, **_: Any) -> Any:
        return self._call("truncated_scan", self._adapter.truncated_scan, system, u, state, order)

    def _call(self, name: str, method: Any, system: Any, u: Array, state: Array | None, *order: int) -> Any:
        kind = np.result_type(u.dtype, np.complex64)
        c = system.C if system.conjugate_pairs else system.C / 2  # exact: y is Re(c x) where no half is left out
        # Writable copies: who writes into them is told so, instead of failing on a read-only array.
        given = {
            "a": np.array(system.A_bar, kind),
            "b": np.array(system.B_bar, kind),
            "c": np.array(c, kind),
            "u": np.array(u),
            "state": None if state is None else np.array(state, kind),
        }
        before = {key: None if array is None else array.tobytes() for key, array in given.items()}
        result = method(*given.values(), *order)
        for key, array in given.items():
            if array is not None and array.tobytes() != before[key]:
                raise BackendFault("mutated", f"{name} wrote into its argument {key}")
        return result


def load_backend(target: str) -> Backend:
    """The backend that "module:Class" names: an adapter, or a class of `liquid_ssm.backend.Backend`.

    Raises:
        ParameterError: the text has another form, the module or class does not exist, or it is no backend.
    """
    module, colon, attribute = target.partition(":")
    if not (module and colon and attribute):
        raise ParameterError(f"{target!r} names no class; write module:Class, for instance my_package.scan:Scan.")
    try:
        factory: Any = import_module(module)
    except ModuleNotFoundError as error:
        # Its own name, or that of a package around it; else it is found and needs what is missing.
        absent = f"{module}.".startswith(f"{error.name}.")
        hint = "Run from the folder that holds it, or install it." if absent else f"{module!r} needs it; install it."
        raise ParameterError(f"cannot import {module!r}: {error}. {hint}") from error
    except (Exception, SystemExit) as error:  # foreign code may do anything; what it did is told
        raise ParameterError(f"cannot import {module!r}: {described(error)}.") from error
    for part in attribute.split("."):
        if not hasattr(factory, part):
            raise ParameterError(f"module {module!r} has no {attribute!r}.")
        factory = getattr(factory, part)
    if not callable(factory):
        raise ParameterError(f"{target!r} is a {type(factory).__name__}, not a class. {_FORM}.")
    try:
        adapter = factory()
    except (Exception, SystemExit) as error:
        raise ParameterError(f"{target!r} cannot be made without arguments: {described(error)}. {_FORM}.") from error
    if isinstance(adapter, Backend):
        undeclared = [name for name in ("name", "capabilities") if not hasattr(adapter, name)]
        if undeclared:
            raise ParameterError(f"{target!r} does not declare {' and '.join(undeclared)}; every Backend does.")
        return adapter
    if not callable(getattr(adapter, "scan", None)):
        raise ParameterError(f"{target!r} has no method scan. {_FORM}.")
    return AdapterBackend(adapter)
