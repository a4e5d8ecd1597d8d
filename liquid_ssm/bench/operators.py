"""The differentiable torch operators, one by one: compiled ones, eager torch, KeOps, and torch's own scan."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import BackendUnavailable
from ..problem import ModeSpec
from ..registry import get_backend
from ..timing import TooSlow
from .memory import kernel_system
from .result import ERROR
from .rows import ITEMSIZE, Row, timed_row
from .subjects import Subject
from .work import BOTH, FORWARD, slots, traffic

# Entries of the kernel that a signal is convolved with: direct sums, as windows need them.
HEAD = 64
# Combinations of torch's own scan at a time; beyond, it needs many seconds a call.
ASSOCIATIVE_LARGEST = 2**23
COMPILED_OPERATORS = "numba"
OPERATOR_BACKENDS = (COMPILED_OPERATORS, "torch", "torch-split-real", "keops")
ASSOCIATIVE = "torch associative_scan"

Call = Callable[[], Any]


@dataclass(frozen=True)
class Operator:
    """One operator.

    Attributes:
        name: as it stands in the tables.
        primitive: the method of a backend that computes it.
        prepare: (backend, problem) -> a call without arguments that returns a tensor.
        structure: of the system.
        spec: mode whose least work it has, or None.
    """

    name: str
    primitive: str
    prepare: Callable[[Any, _Tensors], Call]
    structure: str = "diagonal"
    spec: ModeSpec | None = None


@dataclass(frozen=True)
class _Tensors:
    """A problem as leaves that gradients are asked for."""

    system: Any
    u: Any
    head: Any

    @property
    def leaves(self) -> tuple[Any, ...]:
        return (self.u, self.head, *self.system.parameters.values())


OPERATORS = (
    Operator(
        "scan, liquid",
        "scan",
        lambda b, p: lambda: b.scan(p.system, p.u, liquid=True)[0],
        spec=ModeSpec("liquid"),
    ),
    Operator("scan, linear", "scan", lambda b, p: lambda: b.scan(p.system, p.u, liquid=False)[0], spec=ModeSpec("s4")),
    Operator("scan, liquid, dplr", "scan", lambda b, p: lambda: b.scan(p.system, p.u, liquid=True)[0], "dplr"),
    Operator(
        "cascade, truncated(3)",
        "cascade",
        lambda b, p: lambda: b.cascade(p.system, p.u, order=3, kind="truncated")[0],
        spec=ModeSpec("truncated", 3),
    ),
    Operator(
        "correlate, elementary(3)", "correlate", lambda b, p: lambda: b.correlate(p.u, order=3, kind="elementary")[0]
    ),
    Operator("kernel, diagonal", "kernel", lambda b, p: lambda: b.kernel(p.system, p.u.shape[-1])),
    Operator("kernel, dplr", "kernel", lambda b, p: lambda: b.kernel(p.system, p.u.shape[-1]), "dplr"),
    Operator(f"convolve, {HEAD} entries", "convolve", lambda b, p: lambda: b.convolve(p.head, p.u)),
)


def operator_rows(operator: Operator, subject: Subject, limit: float) -> Iterator[Row]:
    """Forward, and forward + backward through torch's automatic differentiation, for every way to compute it."""
    problem = _tensors(operator, subject)
    for name in OPERATOR_BACKENDS:
        rows = [_row(name, "backend", operator, direction, subject) for direction in (FORWARD, BOTH)]
        try:
            backend: Any = get_backend(name)
        except BackendUnavailable as error:
            yield from (replace(row, reason=str(error)) for row in rows)
            continue
        structures = backend.capabilities.primitives.get(operator.primitive)
        if structures is None or (structures and operator.structure not in structures):
            continue
        for row in rows:
            yield _measured(row, operator.prepare(backend, problem), problem, limit)
    if operator.name == "scan, liquid":
        for direction in (FORWARD, BOTH):
            row = _row(ASSOCIATIVE, "rival", operator, direction, subject)
            if subject.shape.elements * subject.shape.n_modes > ASSOCIATIVE_LARGEST:
                yield replace(row, reason="not measured: it would take many seconds a call")
            else:
                yield _measured(row, _associative_scan(problem), problem, limit)


def _row(subject: str, kind: str, operator: Operator, direction: str, problem: Subject) -> Row:
    work = None if operator.spec is None else slots(operator.spec, direction, problem.shape)
    return Row(
        subject,
        kind,
        operator.name,
        direction,
        problem.dtype,
        problem.shape,
        slots=work,
        traffic=None if work is None else traffic(direction, problem.shape, ITEMSIZE[problem.dtype]),
    )


def _tensors(operator: Operator, subject: Subject) -> _Tensors:
    import torch  # type: ignore[import-not-found, import-untyped, unused-ignore]

    system = subject.system
    if operator.structure != "diagonal":
        shape = subject.shape
        system = kernel_system(operator.structure, shape.n_channels, shape.n_state).astype(subject.dtype)
    leaves = {name: torch.tensor(array, requires_grad=True) for name, array in system.parameters.items()}
    head = np.random.default_rng(1).normal(size=(subject.shape.n_channels, HEAD)).astype(subject.dtype)
    return _Tensors(
        type(system)(**leaves, conjugate_pairs=system.conjugate_pairs),
        torch.tensor(subject.u, requires_grad=True),
        torch.tensor(head, requires_grad=True),
    )


def _measured(row: Row, call: Call, problem: _Tensors, limit: float) -> Row:
    import torch

    def forward() -> Any:
        with torch.no_grad():
            return call()

    def both() -> Any:
        return torch.autograd.grad(call().sum(), problem.leaves, allow_unused=True)

    try:
        found = timed_row(row, forward if row.direction == FORWARD else both, limit=limit, compiles=True)
    except TooSlow as slow:
        return replace(row, reason=f"not measured: {slow}")
    if not bool(torch.isfinite(forward()).all()):
        return replace(row, reason=f"{ERROR}the result holds NaN or infinite values; run `liquid-ssm verify`")
    return found


def _associative_scan(problem: _Tensors) -> Call:
    from torch._higher_order_ops.associative_scan import (  # type: ignore[import-not-found, import-untyped, unused-ignore]
        associative_scan,
    )

    def combine(left: Any, right: Any) -> Any:
        return left[0] * right[0], right[0] * left[1] + right[1]

    def call() -> Any:
        system = problem.system
        drive = problem.u[..., None] * system.B_bar[:, None]
        transition = system.A_bar[:, None] + drive
        _, states = associative_scan(combine, (transition, drive), dim=2, combine_mode="generic")
        return system.weight * (states * system.C[:, None]).sum(-1).real

    return call
