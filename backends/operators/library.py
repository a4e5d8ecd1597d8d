"""How an operator is put together: definition, fake, derivative, batching and autocast, and how a backend is called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import numpy as np
import torch

from liquid_ssm.arrays import is_channels_last
from liquid_ssm.backend import Backend
from liquid_ssm.systems import DiagonalSystem, DPLRSystem

from .. import _kept
from .batching import Places, Results, batching_rule
from .conjugation import marks_count
from .differentiation import is_plain, not_traced, register_derivative
from .implementations import implementation, require_gradients
from .memory import array_of, empty_signal, tensor_of

Tensor = torch.Tensor
Operator = Any  # a torch._ops.OpOverload

# Operators are there as long as this is.
_library: Any = torch.library.Library("liquid_ssm", "FRAGMENT")  # type: ignore[no-untyped-call, unused-ignore]

PARAMETERS = "Tensor A_bar, Tensor B_bar, Tensor C, Tensor? P_bar, Tensor? Q_bar"


class Call:
    """One call of the implementation of an operator, on its kind of arrays.

    Args:
        name: the operator's argument `backend`.
        tensor: any of the tensors, for the device.
    """

    def __init__(self, name: str, tensor: Tensor) -> None:
        self.backend: Backend
        self.backend, self.on_numpy = implementation(name, tensor.device.type)

    def take(self, tensor: Tensor | None) -> Any:
        """An argument for the backend."""
        if self.on_numpy or tensor is None:
            return array_of(tensor)
        # What a kernel reads is memory, where a conjugation is not.
        return tensor.detach().resolve_conj().resolve_neg()

    def system(self, parameters: Sequence[Tensor | None], pairs: bool) -> DiagonalSystem | DPLRSystem:
        """A system of the backend's kind of arrays, from Ā (or Λ̄), B̄, C, P̄ and Q̄."""
        A, B, C, P, Q = map(self.take, parameters)
        if P is None:
            return DiagonalSystem(A, B, C, conjugate_pairs=pairs)
        return DPLRSystem(Lambda_bar=A, P_bar=P, Q_bar=Q, B_bar=B, C=C, conjugate_pairs=pairs)

    def channels_last(self, form: str, u: Tensor, parameters: Sequence[Tensor | None] = (None,)) -> bool:
        """Whether results like u have their channels last in memory: u has, and the backend keeps that.

        Args:
            parameters: of the system, where one enters.
        """
        structure = "diagonal" if parameters[-1] is None else "dplr"
        return self.backend.capabilities.keeps_channels_last(form, structure) and is_channels_last(u)

    def __getattr__(self, primitive: str) -> Any:
        return getattr(self.backend, primitive)


def empty_gradients(tensors: Sequence[Tensor | None], channels_last: bool) -> list[Tensor]:
    """Room for the gradient of each given tensor, of which the first is the signal u."""
    u, *others = tensors
    assert u is not None
    return [empty_signal(u, channels_last), *(t.new_empty(t.shape) for t in others if t is not None)]


def by_argument(gradients: dict[str, Any]) -> list[Tensor]:
    """Gradients of a system's parameters in the order of an operator's arguments; P̄ and Q̄ only where there are some."""
    first = gradients["A_bar"] if "A_bar" in gradients else gradients["Lambda_bar"]
    names = [name for name in ("B_bar", "C", "P_bar", "Q_bar") if name in gradients]
    return [tensor_of(gradient) for gradient in (first, *(gradients[name] for name in names))]


def operator(
    schema: str, real: Callable[..., Any], fake: Callable[..., Any], arguments: Places, results: Results
) -> Operator:
    """Define `liquid_ssm::…` without a derivative.

    Args:
        schema: name, arguments (tensors first) and results.
        real: computes it.
        fake: empty results of the right shapes and dtypes, for tracing; raises the errors that `real` raises.
        arguments, results: of `batching_rule`.
    """

    @wraps(real)
    def without_gradients(*given: Any) -> Any:
        # A backend on tensors may look whether gradients are recorded; here they are by no one but the operator.
        # What overflows is found in the results, and named.
        with torch.no_grad(), np.errstate(over="ignore", invalid="ignore"):
            return real(*given)

    name = schema.partition("(")[0]
    _library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    _library.impl(name, not_traced(marks_count(without_gradients)), "CompositeExplicitAutograd")
    defined: Operator = getattr(torch.ops.liquid_ssm, name).default
    qualified = f"liquid_ssm::{name}"
    torch.library.register_fake(qualified, fake, lib=_library)
    # Later than torch 2.4, with which operators work outside of vmap and, for halves, of autocast.
    if hasattr(torch.library, "register_vmap"):
        torch.library.register_vmap(qualified, batching_rule(defined, arguments, results), lib=_library)
    if hasattr(torch.library, "register_autocast"):
        for device in ("cpu", "cuda"):
            torch.library.register_autocast(qualified, device, torch.float32, lib=_library)
    return defined


def remember(name: str, n_tensors: int) -> Callable[..., None]:
    """A `setup_context` that keeps the inputs of an operator, and the states that it has left for its derivative."""

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        tensors, options = inputs[:n_tensors], inputs[n_tensors:]
        require_gradients(options[-1], next(t for t in tensors if t is not None).device.type, name)
        ctx.set_materialize_grads(False)
        # Saved like tensors, they are let go after the backward pass.
        ctx.save_for_backward(*tensors, *([] if ctx.kept is None else [ctx.kept]))
        del ctx.kept
        ctx.options = options

    return setup


def differentiable(name: str, defined: Operator, backward: Operator, n_tensors: int) -> None:
    """Register `backward(cotangents, tensors, options)` -> [gradient of each given tensor] as the derivative."""

    def gradients(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        tensors, kept = saved[:n_tensors], saved[n_tensors:]
        absent = (None,) * len(ctx.options)
        if all(cotangent is None for cotangent in cotangents):
            return (*(None for _ in tensors), *absent)
        with _kept.handing(array_of(kept[0]) if kept and is_plain() else None):
            found = iter(backward(*cotangents, *tensors, *ctx.options))
        given = [None if tensor is None else next(found) for tensor in tensors]
        return (*masked(ctx, given), *absent)

    derivative(defined, remember(name, n_tensors), gradients)


def derivative(defined: Operator, setup: Callable[..., None], gradients: Callable[..., tuple[Any, ...]]) -> None:
    """Register gradients(ctx, *cotangents) -> a gradient or None per argument, after setup(ctx, inputs, output)."""
    register_derivative(_library, defined, setup, gradients)


def masked(ctx: Any, gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The gradients that are asked for."""
    wanted = ctx.needs_input_grad
    return [gradient if wanted[i] else None for i, gradient in enumerate(gradients)]


def differentiable_once(name: str, backward: Operator) -> None:
    """Make derivatives of a backward operator an error that says what to do."""

    def refuse(ctx: Any, *cotangents: Any) -> tuple[Any, ...]:
        raise NotImplementedError(
            f"second derivatives of liquid_ssm::{name} are not implemented. Leave out create_graph=True where first "
            "ones are enough, or use forward mode (torch.func.jvp of jvp, jacfwd of jacfwd) with backend='torch'."
        )

    derivative(backward, lambda ctx, inputs, output: None, refuse)


def present(*places: Any) -> Results:
    """Places of the results of a backward operator: those of the tensors that are given, after its cotangents."""

    def of(tensors: Sequence[Any]) -> Places:
        inputs = tensors[len(tensors) - len(places) :]
        return [place for tensor, place in zip(inputs, places, strict=True) if tensor is not None]

    return of
