"""Layers and models over a sequence whose time is divided among processes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from ..errors import DTypeError, LiquidSSMError, ParameterError, ShapeError
from ..nn import Block, SequenceModel, SSMLayer
from ..nn.model import ModelState, require_steps
from ..nn.model_inputs import raise_not_finite, require_finite_output, require_numbers, require_shape
from ..nn.normalisation import BatchNorm
from ..nn.parameters import require_finite_parameters
from ..nn.stability import clamped, layer_limit
from ..tensors import HALVES, narrowed
from .agreement import require_agreement
from .exchange import Members, attempt, note_of, settle
from .reductions import batch_norm, total
from .scan import Job, run, starts_of


def forward(
    module: SSMLayer | SequenceModel,
    u_local: torch.Tensor,
    *,
    group: Any = None,
    state: Any = None,
    rate: float | torch.Tensor = 1.0,
    return_state: bool = False,
) -> Any:
    """What `module(u)` gives on one process, of this rank's steps.

    Every rank calls it with the same module and its own slice, and runs the backward pass; then
    `sum_gradients(module)`.  A batch norm in training takes its statistics from all ranks; dropout is drawn by each
    rank for its own steps, and a layer's `recheck` is not made.

    Args:
        module: an `SSMLayer`, or a `SequenceModel` of them: modes and structures as in `apply`.
        u_local: this rank's steps, as `module` takes them, (batch, own length, features); all rows have that length.
        state: the state before the first step of the sequence; in `SSMLayer`s only that of the first rank is looked
            at.  None is rest.
        rate: as in `SSMLayer.forward`.
        return_state: also return the state after the last step of the sequence, on every rank.

    Returns:
        As `module(u)`: outputs of this rank's steps; with pooling `last` or `mean` the one output of the whole
        sequence, the same on every rank: divide its loss by the number of ranks, since losses are added up.

    Raises:
        ParameterError, ShapeError: the module has no such form, or bad input on some rank; on every rank.
        others: as `apply`.
    """
    if isinstance(module, SSMLayer):
        y, final = _layer(module, u_local, group, state, rate, return_state)
        y = _settled(partial(_output, module, y, u_local.dtype), u_local, group)
        return (y, final) if return_state else y
    if isinstance(module, SequenceModel):
        y, final = _model(module, u_local, group, state, rate, return_state)
        _settled(partial(require_finite_output, module, u_local, y), u_local, group)
        return (y, final) if return_state else y
    raise ParameterError(
        f"{type(module).__name__} has no form for slices; give an SSMLayer or a SequenceModel, or put "
        "liquid_ssm.parallel.forward in the place of the SSMLayer inside of it."
    )


def _settled(check: Callable[[], Any], u: torch.Tensor, group: Any) -> Any:
    """What check() returns, or on every rank the error that it raises on one."""
    members = Members.of(group, u)
    found, failure = attempt(check, None)
    notes = members.gather_notes("output", note_of(failure) | {"steps": u.shape[1]})
    settle(notes, failure, members.rank, starts_of(notes))
    return found


def _output(layer: SSMLayer, y: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Outputs of a layer, checked, in the dtype of its input."""
    layer._require_finite(y)
    return narrowed(y, dtype) if dtype in HALVES else y


def _layer(
    layer: SSMLayer, u: torch.Tensor, group: Any, state: Any, rate: float | torch.Tensor, return_state: bool
) -> tuple[torch.Tensor, Any]:
    """y in single precision or better, and the state after it if that is asked for."""

    def job() -> Job:
        if layer.bidirectional:
            raise ParameterError("a bidirectional layer is not divided among ranks; use bidirectional=False.")
        _require_tensor(u)
        layer._check(u)
        system = layer.system(rate)
        inputs = _single(u).transpose(1, 2)
        if layer.max_gain is not None:
            inputs = clamped(inputs, layer_limit(layer, system).to(inputs.dtype)[:, None])
        return Job.of(system, inputs.contiguous(), layer.spec, layer.backend, layer.tolerance)

    device = u.device.type if isinstance(u, torch.Tensor) else "cpu"
    with torch.autocast(device, enabled=False):
        try:
            found = run(job, u, group, state, return_state)
        except LiquidSSMError as error:
            require_finite_parameters(layer, error)
            raise
        y, final = found if return_state else (found, None)
        y = y.transpose(1, 2)
        if layer.D is not None:
            y = torch.addcmul(y, layer.D.to(y.dtype), _single(u))
    return y, final


def _require_tensor(u: Any) -> None:
    if not isinstance(u, torch.Tensor):
        raise DTypeError(f"u_local is a {type(u).__name__}; give a tensor, torch.as_tensor(u_local).")


def _single(u: torch.Tensor) -> torch.Tensor:
    return u.float() if u.dtype in HALVES else u


def _model(
    model: SequenceModel, u: torch.Tensor, group: Any, state: Any, rate: float | torch.Tensor, return_state: bool
) -> tuple[torch.Tensor, ModelState]:
    members = Members.of(group, u)

    def described() -> dict[str, Any]:
        _require_tensor(u)
        require_shape(model, u)
        require_numbers(model, u)
        model._check_state(state, u)
        for block in model.blocks:
            if not (isinstance(block, Block) and isinstance(block.layer, SSMLayer)):
                raise ParameterError(f"a block of the model is no Block of an SSMLayer: {type(block).__name__}.")
        return {
            "call": "model",
            "batch": u.shape[0],
            "pooling": model.pooling,
            "training": model.training,
            "steps": u.shape[1],
        }

    note, failure = attempt(described, None)
    notes = members.gather_notes("model", note_of(failure) if note is None else note)
    settle(notes, failure, members.rank)
    require_agreement(notes, ("call", "batch", "pooling", "training"))

    x = model._encoded(u)
    finals = []
    for i, block in enumerate(model.blocks):
        before = None if state is None else state.layers[i]
        normed = _normed(block.norm, x, members) if block.prenorm else x
        try:
            y, final = _layer(block.layer, normed, group, before, rate, return_state)
        except ParameterError as error:
            if not bool(torch.isfinite(normed).all()):
                raise_not_finite(model, u, f"the input of block {i}", error)
            raise
        finals.append(final)
        x = block._joined(x, y.to(x.dtype))
        if not block.prenorm:
            x = _normed(block.norm, x, members)
    if model.norm is not None:
        x = _normed(model.norm, x, members)
    pooled, sums, count = _pooled(model, x, members, [note["steps"] for note in notes], state)
    out = model.head(pooled)
    return out, ModelState(tuple(finals), sums, count)


def _normed(norm: nn.Module, x: torch.Tensor, members: Members) -> torch.Tensor:
    if norm.training and isinstance(norm, BatchNorm):
        return batch_norm(norm.norm, x, members)
    found: torch.Tensor = norm(x)
    return found


def _pooled(
    model: SequenceModel, x: torch.Tensor, members: Members, steps: list[int], state: ModelState | None
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """As `SequenceModel._pooled`, over the steps of all ranks."""
    if model.pooling == "none":
        return x, None, None
    before = None if state is None else state.steps
    if sum(steps) == 0 and (model.pooling == "last" or before is None):
        raise ShapeError("no rank has a step, and so there is neither a last one nor a mean; use pooling='none'.")
    if model.pooling == "last":
        last = max(rank for rank, own in enumerate(steps) if own)
        # Zeros, which add nothing, of a sum over no steps: every rank takes part in the backward pass.
        return total(x[:, -1] if members.rank == last else x[:, :0].sum(1), members), None, None
    sums = total(x.sum(1), members)
    count = sums.new_full((len(x),), sum(steps))
    if state is not None and state.total is not None and state.steps is not None:
        sums, count = sums + state.total, count + state.steps
    require_steps(count)
    return sums / count[:, None], sums, count
