"""`apply` over a sequence whose time is divided among processes: exact, forwards and backwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from ..apply import SELECTING, require_no_selection
from ..arrays import dtype_name
from ..backend import Backend
from ..compute import compute
from ..errors import BackendRejected, DTypeError, ParameterError, UnstableRecurrence
from ..modes import initial_state, state_shapes
from ..problem import DEFAULT_ORDER, DTYPES, ModeSpec, Problem
from ..registry import AUTO, CERTIFIED_ONLY, FIRST, default_backend, get_backend
from ..tensors import checked, problem_of_tensors
from .agreement import fingerprint, require_agreement
from .exchange import NOTE, Members, Note, attempt, note_of, read, settle, written
from .transfer import SCALES, Transfer, difference, handed_on, require_in_range, seed

MODES = ("s4", "liquid", "truncated")
STRUCTURES = ("diagonal", "mimo")
# What a header holds that must be the same on all ranks.
_AGREED = (
    "call", "mode", "structure", "dtype", "batch", "n_channels", "n_modes", "gradients", "return_state", "parameters",
)  # fmt: skip


def apply(
    system: Any,
    u_local: torch.Tensor,
    *,
    mode: str,
    order: int = DEFAULT_ORDER,
    group: Any = None,
    backend: str | Backend | None = AUTO,
    tolerance: float | None = None,
    state: torch.Tensor | None = None,
    return_state: bool = False,
) -> Any:
    """This rank's outputs of a sequence whose steps are divided among the ranks of a group, in rank order.

    Every rank calls it, with its own slice of the same sequence; slices may differ in length and be empty.  A loss is
    the sum of what the ranks compute, and every rank runs the backward pass: its gradients of parameters are those of
    its own steps, which `sum_gradients` adds up.

    Args:
        system: diagonal or mimo, the same bit for bit on all ranks.
        u_local: this rank's inputs (batch, H, own length), float32 or float64.
        mode: `s4`, `liquid` or `truncated`.
        order: highest liquid order P >= 1 of `truncated`.
        group: of torch.distributed; None for the default one.
        backend, tolerance: as in `liquid_ssm.apply`, chosen by each rank for its own slice.
        state: the state before the first step of the sequence, on the first rank; what others give is not looked at.
            None is rest.
        return_state: also return the state after the last step of the sequence, on every rank.

    Returns:
        y (batch, H, own length), or (y, state).

    Raises:
        ShapeError, DTypeError, ParameterError, BackendRejected: bad input on some rank, or ranks that do not agree;
            on every rank.
        UnstableRecurrence: a state, or a product of transitions over a slice, left its range; on every rank, with
            the step of the whole sequence.
        ExchangeFailed: a rank has ended or did not come within the group's timeout.

    Accuracy: that of scans in any bracketing (docs/bounds.md) with the factor that docs/parallel.md derives, 1 + 2^-35
        for states up to 2^24 in float32.
    """
    return run(
        lambda: Job.of(system, u_local, ModeSpec(mode, order), backend, tolerance),
        u_local,
        group,
        state,
        return_state,
    )


@dataclass(frozen=True)
class Job:
    """One rank's part of a computation.

    Args:
        system: of tensors in the dtype of u.
        u: (batch, H, own length).
        backend: chosen for it.
        wide: states are float64 although u is float32.
    """

    system: Any
    u: torch.Tensor
    spec: ModeSpec
    backend: str | Backend
    wide: bool

    @classmethod
    def of(cls, system: Any, u: Any, spec: ModeSpec, backend: str | Backend | None, tolerance: float | None) -> Job:
        """The job, checked.

        Raises:
            DTypeError, ShapeError, ParameterError, BackendRejected: it cannot be computed.
        """
        if not isinstance(u, torch.Tensor):
            raise DTypeError(f"u_local is a {type(u).__name__}; give a tensor, torch.as_tensor(u_local).")
        if dtype_name(u.dtype) not in DTYPES:
            raise DTypeError(f"u_local has dtype {u.dtype}; allowed: {', '.join(DTYPES)}. Convert it with .float().")
        _require_joinable(system, spec)
        system, u = checked(system, u)
        gradient = torch.is_grad_enabled() and any(t.requires_grad for t in (u, *system.parameters.values()))
        if backend in SELECTING:
            from ..selection.auto import selected  # what it needs costs more than the rest of the package's import

            backend, _ = selected(
                system, u, spec, gradient=gradient, state=True, tolerance=tolerance, strict=backend == CERTIFIED_ONLY
            )
        else:
            require_no_selection(backend, tolerance, 0.0)
        assert backend is not None
        return cls(
            system,
            u,
            spec,
            backend,
            _is_wide(backend, problem_of_tensors(system, u, spec, gradient=gradient, state=True)),
        )

    @property
    def steps(self) -> int:
        return int(self.u.shape[2])

    @property
    def orders(self) -> bool:
        """Whether states have an axis of orders."""
        return self.spec.mode == "truncated"

    @property
    def state_shape(self) -> torch.Size:
        return torch.Size(state_shapes(self.system, self.spec, self.u.shape[0])["x"])

    @property
    def state_dtype(self) -> torch.dtype:
        """That of this rank's states."""
        fine = self.wide or self.u.dtype == torch.float64
        if self.system.is_complex:
            return torch.complex128 if fine else torch.complex64
        return torch.float64 if fine else torch.float32

    @property
    def scale(self) -> float:
        """`SCALES` of the dtype that is computed in."""
        narrow = str(self.backend).endswith(":float32")
        return SCALES["float32" if narrow else dtype_name(self.u.dtype)]

    def header(self, return_state: bool) -> Note:
        """What the other ranks must know of this job."""
        needed = any(tensor.requires_grad for tensor in (self.u, *self.system.parameters.values()))
        return {
            "call": "apply",
            "mode": self.spec.label,
            "structure": self.system.structure,
            "dtype": dtype_name(self.u.dtype),
            "batch": self.u.shape[0],
            "n_channels": self.system.n_channels,
            "n_modes": self.system.n_modes,
            "gradients": torch.is_grad_enabled(),
            "return_state": return_state,
            "parameters": fingerprint(self.system),
            "needed": needed,
            "steps": self.steps,
            "wide": self.wide,
        }

    def scan(
        self, u: torch.Tensor, x: torch.Tensor, parameters: Sequence[torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """y and the end state of this rank's steps from the state x before them."""
        if self.steps == 0:
            return torch.zeros_like(u), x
        system = self.system
        if parameters is not None:
            named = dict(zip(system.parameters, parameters, strict=True))
            system = type(system)(**named, conjugate_pairs=system.conjugate_pairs)
        y, final = compute(system, u, self.spec, backend=self.backend, state=x, return_state=True)
        return y, final


def run(prepare: Callable[[], Job], u_local: Any, group: Any, state: Any, return_state: bool) -> Any:
    """`apply` for a job that is made inside, so that what is wrong with one rank's reaches all of them."""
    members = Members.of(group, u_local)

    def ready() -> tuple[Job, torch.Tensor | None]:
        job = prepare()
        if members.rank:
            return job, None
        fine = "float64" if job.state_dtype in (torch.complex128, torch.float64) else None
        return job, initial_state(job.system, job.spec, job.u, state, fine)

    found, failure = attempt(ready, None)
    header = note_of(failure)
    if found is not None:
        header = found[0].header(return_state)
        header["needed"] |= found[1] is not None and found[1].requires_grad
    notes = members.gather_notes("header", header)
    settle(notes, failure, members.rank)
    require_agreement(notes, _AGREED)
    job, start = found
    needed = torch.is_grad_enabled() and any(note["needed"] for note in notes)
    plan = _Plan(job, members, starts_of(notes), any(note["wide"] for note in notes), return_state, needed)
    # Gradients pass through every rank that any of them needs, whatever its own tensors ask for.
    anchor = torch.zeros((), requires_grad=needed)
    given = (job.u, start, *job.system.parameters.values())
    y, final = _Scan.apply(plan, anchor, *given)  # type: ignore[no-untyped-call]
    return (y, final) if return_state else y


@dataclass(frozen=True)
class _Plan:
    """What one call knows once all ranks agree.

    Args:
        starts: the step at which each rank's slice begins.
        wide: states are exchanged in complex128 although u is float32: some rank has them.
        gradient: a backward pass may follow.
    """

    job: Job
    members: Members
    starts: list[int]
    wide: bool
    return_state: bool
    gradient: bool

    @property
    def between(self) -> bool:
        """Whether there are ranks before and after this one."""
        return 0 < self.members.rank < self.members.size - 1

    @property
    def kind(self) -> torch.dtype:
        """Complex dtype of the states that are exchanged."""
        return torch.complex128 if self.wide or self.job.u.dtype == torch.float64 else torch.complex64

    def exchanged(self, name: str, transfer: Transfer | None, failure: Exception | None) -> Transfer:
        """All ranks' transfers, behind a note from each, or the error that one of them met."""
        shape = (2, *self.job.state_shape)
        numbers = torch.zeros(shape, dtype=self.kind, device=self.members.device)
        if transfer is not None:
            numbers[0], numbers[1] = transfer.product, transfer.end
        note = written(note_of(failure)).to(self.members.device)
        found = self.members.gather(name, torch.cat([note, numbers.view(-1).view(torch.uint8)]))
        settle([read(row) for row in found[:, :NOTE].cpu()], failure, self.members.rank, self.starts)
        rows = found[:, NOTE:].contiguous().view(-1).view(self.kind).view(self.members.size, *shape)
        rows = rows.to(self.job.u.device, torch.complex128)
        return Transfer(rows[:, 0], rows[:, 1])

    @property
    def shared(self) -> bool:
        """Whether all channels have one state."""
        return bool(self.job.system.structure == "mimo")

    def incoming(self, x: torch.Tensor) -> torch.Tensor:
        """What the other ranks hand on, in the dtype of this rank's states."""
        return (x if self.job.system.is_complex else x.real).to(self.job.state_dtype)


class _Local:
    """This rank's own pass, with the graph that its backward pass needs."""

    def __init__(
        self, plan: _Plan, u: torch.Tensor, x: torch.Tensor, parameters: Sequence[torch.Tensor], needs: Sequence[bool]
    ) -> None:
        self.plan = plan
        if not plan.gradient:
            self.y, self.final = plan.job.scan(u, x)
            return
        self.x = x.detach().requires_grad_()
        leaves = [t.detach().requires_grad_(need) for t, need in zip((u, *parameters), needs, strict=True)]
        with torch.enable_grad():
            self.y, self.final = plan.job.scan(leaves[0], self.x, leaves[1:])
        self.wanted = [leaf if leaf.requires_grad else None for leaf in leaves]

    def state_cotangent(self, grad_y: torch.Tensor, grad_final: torch.Tensor) -> torch.Tensor:
        """That of the state before the slice."""
        return self._pulled([self.x], grad_y, grad_final)[0]

    def cotangents(
        self, grad_y: torch.Tensor, grad_final: torch.Tensor
    ) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
        """Those of the state before the slice, and of u and the parameters, None where none is needed."""
        leaves = [leaf for leaf in self.wanted if leaf is not None]
        state, *found = self._pulled([self.x, *leaves], grad_y, grad_final)
        rest = iter(found)
        return state, [None if leaf is None else next(rest) for leaf in self.wanted]

    def _pulled(
        self, wanted: list[torch.Tensor], grad_y: torch.Tensor, grad_final: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        # Without steps y depends on nothing.
        pairs = [(y, g) for y, g in ((self.y, grad_y), (self.final, grad_final)) if y.requires_grad]
        return torch.autograd.grad(
            [y for y, _ in pairs],
            wanted,
            [g.to(y.dtype) for y, g in pairs],
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )


class _Scan(torch.autograd.Function):
    """y of this rank, and the final state; backwards cotangents are handed on from the last rank to the first."""

    @staticmethod
    def forward(
        ctx: Any,
        plan: _Plan,
        anchor: torch.Tensor,
        u: torch.Tensor,
        state: torch.Tensor | None,
        *parameters: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        job, members = plan.job, plan.members
        needs = [ctx.needs_input_grad[2], *ctx.needs_input_grad[4:]]

        def local(x: torch.Tensor) -> _Local:
            return _Local(plan, u, x, parameters, needs)

        def before() -> tuple[_Local | None, Transfer | None]:
            if state is not None:
                own = local(state)
                return own, Transfer(torch.zeros_like(own.final), own.final.detach())
            return None, _transfer(job) if plan.between else None

        (own, transfer), failure = attempt(before, (None, None))
        if members.size > 1:
            slices = plan.exchanged("states", transfer, failure)

            def after() -> _Local:
                x = handed_on(slices, orders=job.orders)[members.rank - 1]
                require_in_range(x, job.scale, "the state before this slice", shared=plan.shared)
                return local(plan.incoming(x))

            if members.rank:
                own, failure = attempt(after, None)
        settle(members.gather_notes("closing", note_of(failure)), failure, members.rank, plan.starts)
        assert own is not None
        ctx.plan, ctx.own = plan, own if plan.gradient else None
        final = torch.empty(0, device=u.device)
        if plan.return_state:
            final = own.final.detach().to(plan.kind if job.system.is_complex else plan.kind.to_real())
            final = members.from_rank("final state", members.size - 1, final)
        return own.y.detach(), final

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: torch.Tensor, grad_final: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        plan, own = ctx.plan, ctx.own
        job, members = plan.job, plan.members
        rank, last = members.rank, members.size - 1
        zero = torch.zeros_like(own.x)
        end = members.total("final cotangent", grad_final).to(own.x.dtype) if plan.return_state else zero

        def turned(transfer: Transfer) -> Transfer:
            # The adjoint of a polynomial's product is the same product of coefficients in reverse.
            return Transfer(transfer.product.flip(1), transfer.end.flip(1)) if job.orders else transfer

        def before() -> tuple[Any, Transfer | None]:
            if rank == last:
                found = own.cotangents(grad_y, end)
                return found, turned(Transfer(torch.zeros_like(found[0]), found[0]))
            return None, turned(_adjoint_transfer(own, grad_y)) if plan.between else None

        (found, transfer), failure = attempt(before, (None, None))
        if members.size > 1:
            slices = plan.exchanged("cotangents", transfer, failure)
            backwards = Transfer(slices.product.flip(0), slices.end.flip(0))
            behind = handed_on(backwards, orders=job.orders)[-2::-1]
            # Every rank looks at all of them, so that all raise or none.
            for r, cotangent in enumerate(behind):
                what = f"the cotangent of the state behind the slice of rank {r}"
                require_in_range(cotangent, job.scale, what, shared=plan.shared, step=plan.starts[r + 1])
            if rank < last:
                handed = plan.incoming(behind[rank].flip(1) if job.orders else behind[rank])
                found = own.cotangents(grad_y, handed)
        elif failure is not None:
            raise failure
        state, (u, *parameters) = found
        return None, None, u, state if ctx.needs_input_grad[3] else None, *parameters


def _transfer(job: Job) -> Transfer:
    """That of a slice, from two runs."""
    rest = torch.zeros(job.state_shape, dtype=job.state_dtype, device=job.u.device)
    _, end = job.scan(job.u, rest)
    try:
        _, scaled = job.scan(job.u, seed(rest, job.scale, at=0 if job.orders else None))
    except UnstableRecurrence as error:
        raise UnstableRecurrence(
            f"the product of |ā + b̄ u| over this slice is beyond {job.scale:.3g}, more than slices can hand on in this "
            f"dtype: a state of that size is followed to where it leaves the range. {error}",
            step=error.step,
            channel=error.channel,
            input_bound=error.input_bound,
        ) from error
    return difference(scaled, end, job.scale)


def _adjoint_transfer(own: _Local, grad_y: torch.Tensor) -> Transfer:
    """That of cotangents, from the end of a slice to its start."""
    job, rest = own.plan.job, torch.zeros_like(own.x)
    near = own.state_cotangent(grad_y, rest)
    far = own.state_cotangent(grad_y, seed(rest, job.scale, at=-1 if job.orders else None))
    return difference(far, near, job.scale)


def starts_of(notes: Sequence[Note]) -> list[int]:
    """The step of the whole sequence at which each rank's slice begins, from its number of steps in every note."""
    return [0, *accumulate(note["steps"] for note in notes[:-1])]


def _require_joinable(system: Any, spec: ModeSpec) -> None:
    """Raise where the end state of a slice is no diagonal product of the state before it, plus a constant."""
    if system.structure not in STRUCTURES:
        raise BackendRejected(
            f"the slices of a {system.structure} system are not joined: what a slice does to a state is a full matrix "
            "per row and channel, N × N numbers in place of N. Use a diagonal system (init='s4d-lin' and others), or "
            "run the slices one after the other with return_state=True."
        )
    if spec.mode not in MODES:
        equal = " kb over all index tuples is mode='truncated' for a diagonal system." if spec.mode == "kb" else ""
        raise ParameterError(
            f"mode is {spec.mode!r}; slices are joined in the modes {', '.join(MODES)}.{equal} For the others run the "
            "slices one after the other with return_state=True."
        )


def _is_wide(backend: str | Backend, problem: Problem) -> bool:
    """Whether states are float64 although u is float32."""
    name = default_backend(problem).backend if backend == FIRST else backend
    if isinstance(name, str):
        name, _, dtype = name.partition(":")
        if dtype == "float64":
            return problem.dtype == "float32"
    found = name if isinstance(name, Backend) else get_backend(name)
    return problem.dtype == "float32" and found.arithmetic.state_dtype == "float64"
