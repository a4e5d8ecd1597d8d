"""`scan_sampled` by compiled kernels, on the CPU: discretised, stepped and differentiated in one pass, in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch.autograd import forward_ad
from torch.nn.utils.parametrize import is_parametrized

from ..backend import Backend
from ..errors import BackendUnavailable
from ..finite import all_finite
from ..problem import ModeSpec
from ..registry import AUTO, FIRST, get_backend
from ..tensors import has_numbers
from .discretize import BILINEAR_EXACT
from .parameters import ContinuousParameters
from .recompute import Tensors, differentiated, with_parameters

BACKEND = "numba"

_METHODS = ("bilinear", BILINEAR_EXACT)


@cache
def _is_installed() -> bool:
    try:
        get_backend(BACKEND)
    except BackendUnavailable:
        return False
    return True


def has_kernels(structure: str, method: str) -> bool:
    """Whether there are kernels for these steps at all."""
    return method in _METHODS and structure in ("diagonal", "dplr")


def takes(structure: str, method: str, backend: str | Backend | None, u: torch.Tensor) -> bool:
    """Whether `scan_compiled` computes this: bilinear steps of `diagonal` and `dplr`, eagerly, on the CPU.

    Args:
        backend: that of the layer; another one than `numba` by its name is not meant.
    """
    if not has_kernels(structure, method) or backend not in (None, AUTO, FIRST, BACKEND):
        return False
    plain = not torch.compiler.is_compiling() and not torch._C._are_functorch_transforms_active()
    plain = plain and forward_ad._current_level < 0 and u.device.type == "cpu" and has_numbers(u)
    return plain and _is_installed()


def scan_compiled(
    parameters: ContinuousParameters,
    method: str,
    spec: ModeSpec,
    u: torch.Tensor,
    dt: torch.Tensor,
    x: torch.Tensor,
    by_torch: Callable[..., Tensors],
    *,
    reverse: bool = False,
) -> tuple[torch.Tensor, ...] | None:
    """Outputs and final state, with gradients of every order; None if they are not finite, or a step is near a pole.

    Whoever calls then computes by torch, which says what is wrong, and where.  None, too, for parameters that
    parametrizations compute, through which the gradients would have to go.

    Args:
        spec: mode `s4`, `liquid` or `truncated`.
        x: (batch, H, M), or (batch, order, H, M) for `truncated`.
        by_torch: by_torch(parameters, u, dt, x) computes the same, for gradients of gradients.
        others: as in `sampling.scan_sampled`.

    Accuracy: the operations of `sampling.scan_sampled`, states included, in float64; y and the state are rounded once.
    """
    if is_parametrized(parameters):
        return None
    names = [name for name, held in parameters._parameters.items() if held is not None]
    tensors = (u, dt, x, *(parameters._parameters[name] for name in names))
    call = _Call(method, spec, reverse)
    keep = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)
    found = call.rows(parameters, u, dt).run(_orders(x), keep=keep)
    if found is None:
        return None
    y, final, starts = map(torch.from_numpy, found)
    results = y, final.to(x.dtype).view_as(x)
    if not all_finite(*(part.numpy() for part in results)):
        return None
    if not keep:
        return results
    recorded: Tensors = _Compiled.apply(call, by_torch, parameters, names, (*results, starts), *tensors)  # type: ignore[no-untyped-call]
    return recorded


class _Call(NamedTuple):
    """What is computed."""

    method: str
    spec: ModeSpec
    reverse: bool

    def continuous(self, parameters: ContinuousParameters) -> Tensors:
        """Λ, B, C, P, which has no rows for a diagonal system, and δt, in float64."""
        Lambda, B, P = parameters.joined()
        C = parameters.output_vectors(reverse=self.reverse).to(Lambda.dtype)
        return Lambda, B, C, Lambda.new_empty((0, *Lambda.shape)) if P is None else P, parameters.dt()

    def rows(self, parameters: ContinuousParameters, u: torch.Tensor, dt: torch.Tensor) -> Any:
        """A `SampledRows` of the backend."""
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            parts = self.continuous(parameters)
        backend: Any = get_backend(BACKEND)
        return backend.sampled_rows(
            *(part.numpy(force=True) for part in parts),
            u.contiguous().numpy(force=True),
            dt.to(torch.float64).contiguous().numpy(force=True),
            kind="driven" if self.method == BILINEAR_EXACT else "liquid" if self.spec.mode == "liquid" else "linear",
            order=self.spec.order if self.spec.mode == "truncated" else 1,
        )


class _Compiled(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        call: _Call,
        by_torch: Callable[..., Tensors],
        parameters: ContinuousParameters,
        names: list[str],
        found: Tensors,
        *tensors: torch.Tensor,
    ) -> Tensors:
        ctx.call, ctx.by_torch, ctx.parameters, ctx.names = call, by_torch, parameters, names
        ctx.set_materialize_grads(False)
        y, final, starts = found
        ctx.save_for_backward(*tensors, starts)
        return y, final

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        *tensors, starts = ctx.saved_tensors
        needed = ctx.needs_input_grad[-len(tensors) :]
        if torch.is_grad_enabled():  # gradients of gradients are wanted
            found = differentiated(ctx.by_torch, ctx.parameters, ctx.names, tensors, needed, cotangents)
        else:
            found = _gradients(ctx, tensors, needed, starts, cotangents)
        return (*(None,) * (len(ctx.needs_input_grad) - len(tensors)), *found)


def _gradients(
    ctx: Any,
    tensors: Sequence[torch.Tensor],
    needed: Sequence[bool],
    starts: torch.Tensor,
    cotangents: Sequence[torch.Tensor | None],
) -> list[torch.Tensor | None]:
    """Of u, dt, x and the parameters, by the kernels as far as the continuous system, from there by autograd."""
    u, dt, x, *values = tensors
    of_y, of_final = (
        torch.zeros_like(like) if cotangent is None else cotangent
        for like, cotangent in zip((u, x), cotangents, strict=True)
    )
    with torch.enable_grad(), torch.autocast("cpu", enabled=False):
        held = [value.detach().requires_grad_(wanted) for value, wanted in zip(values, needed[3:], strict=True)]
        twin: Any = with_parameters(ctx.parameters, ctx.names, held)
        parts = ctx.call.continuous(twin)
    rows = ctx.call.rows(twin, u, dt)
    of_u, of_dt, of_x, of_parts = rows.run_back(starts.numpy(), of_y.numpy(force=True), _orders(of_final))
    given = (
        torch.from_numpy(of_u), torch.from_numpy(of_dt).to(dt.dtype), torch.from_numpy(of_x).to(x.dtype).view_as(x)
    )  # fmt: skip
    pairs = [(part, torch.from_numpy(of)) for part, of in zip(parts, of_parts, strict=True) if part.requires_grad]
    wanted = [value for value in held if value.requires_grad]
    found = iter(
        torch.autograd.grad([part for part, _ in pairs], wanted, [of for _, of in pairs], allow_unused=True)
        if wanted
        else ()
    )
    of_given = [gradient if want else None for gradient, want in zip(given, needed[:3], strict=True)]
    return [*of_given, *(next(found) if value.requires_grad else None for value in held)]


def _orders(x: torch.Tensor) -> Any:
    """(batch, order, H, M) complex128 of a state with or without orders."""
    array = x.to(torch.complex128).numpy(force=True)
    return array if x.ndim == 4 else array[:, None]
