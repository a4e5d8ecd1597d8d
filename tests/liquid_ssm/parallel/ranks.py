"""What one rank does in the tests of this folder; each test reads what the ranks have written.

Run: python ranks.py PROGRAM RANK SIZE FOLDER
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import nullcontext
from datetime import timedelta

import torch
from torch import distributed

import liquid_ssm as ls
from liquid_ssm import nn, parallel
from liquid_ssm.parallel import scan

BATCH, CHANNELS, STATES, ORDER = 2, 3, 4, 3
SLICES = {
    2: [(13, 8), (0, 21), (21, 0), (1, 20)],
    4: [(6, 5, 3, 7), (5, 0, 9, 7), (0, 0, 10, 11), (21, 0, 0, 0), (0, 20, 1, 0), (0, 0, 0, 0)],
}
KINDS = [(structure, mode) for structure in ("diagonal", "mimo") for mode in ("s4", "liquid", "truncated")]
KINDS += [("real", "liquid")]
DTYPES = ("float32", "float64")


def system_of(structure, dtype, radius=0.9, drive=0.3, seed=0):
    """Poles in every direction, input vectors of every sign, as leaves that ask for gradients."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    shape = (STATES,) if structure == "mimo" else (CHANNELS, STATES)
    A = torch.polar(torch.full(shape, radius, dtype=torch.float64), normal(*shape))
    B = torch.complex(normal(*shape), normal(*shape)) * drive
    if structure == "mimo":
        B = torch.complex(normal(STATES, CHANNELS), normal(STATES, CHANNELS)) * drive
    C = torch.complex(normal(CHANNELS, STATES), normal(CHANNELS, STATES))
    parts = [part.real.clone() if structure == "real" else part for part in (A, B, C)]
    kind = getattr(torch, dtype) if structure == "real" else {"float32": torch.complex64}.get(dtype, torch.complex128)
    leaves = [part.to(kind).requires_grad_() for part in parts]
    make = ls.MIMOSystem if structure == "mimo" else ls.DiagonalSystem
    return make(*leaves, conjugate_pairs=structure != "real"), leaves


def state_shape(structure, mode):
    modes = (STATES,) if structure == "mimo" else (CHANNELS, STATES)
    return (BATCH, ORDER, *modes) if mode == "truncated" else (BATCH, *modes)


def signals(structure, mode, dtype, length, size=0.5):
    """u, the linear state before it, and cotangents of y and of the state behind it."""
    draw = torch.Generator().manual_seed(1)
    real = getattr(torch, dtype)

    def normal(*shape):
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    def state(mode):
        shape = state_shape(structure, mode)
        found = torch.complex(normal(*shape), normal(*shape))
        return found.real.to(real) if structure == "real" else found.to(real.to_complex())

    u, grad_y = size * normal(BATCH, CHANNELS, length), normal(BATCH, CHANNELS, length)
    return u.to(real), state("liquid"), grad_y.to(real), state(mode)


def own(lengths, rank):
    begin = sum(lengths[:rank])
    return slice(begin, begin + lengths[rank])


def one_case(rank, size, structure, mode, dtype, lengths, backend="torch", options=None):
    """y, the final state and every gradient of this rank's part, for a loss that all ranks share in."""
    options = options or {}
    system, leaves = system_of(structure, dtype, **options.get("system", {}))
    u, state, grad_y, grad_state = signals(structure, mode, dtype, sum(lengths), **options.get("signals", {}))
    if options.get("last_only"):
        grad_y[..., :-1] = 0
        grad_state.zero_()
    mine = own(lengths, rank)
    part, start = u[..., mine].clone().requires_grad_(), state.clone().requires_grad_()
    y, final = parallel.apply(
        system, part, mode=mode, order=ORDER, backend=backend, state=start if rank == 0 else None, return_state=True
    )
    # The final state is on every rank, and so are parts of its cotangent, whose sum is exact.
    share = grad_state / size
    wanted = [part, start, *leaves]
    found = torch.autograd.grad(
        [y, final], wanted, [grad_y[..., mine], share.to(final.dtype)], allow_unused=True, materialize_grads=True
    )
    return {"y": y.detach(), "final": final.detach(), "grads": [g.detach() for g in found]}


def attempted(function):
    try:
        return function()
    except Exception as error:
        step = getattr(error, "step", None)
        return {"error": type(error).__name__, "message": str(error), "step": step}


def not_finite(rank):
    """Each name with numbers that no output may hide; what is asked for is right on every rank."""
    u = 0.1 * features(5)[0]

    def changed(module, name, value):
        parameter = dict(module.named_parameters())[name]
        with torch.no_grad():
            parameter.view(-1)[0] = value
        return module

    layer, model, mean = layers()["liquid"], models()["none"], models()["mean"].eval()
    large = changed(models()["none"], "encoder.weight", 1e308)
    loud = changed(layers()["liquid"].float(), "D", 3e38)
    return {
        "D": lambda: parallel.forward(changed(layer, "D", float("nan")), u),
        "head": lambda: parallel.forward(changed(model, "head.weight", float("inf")), u),
        "step size": lambda: parallel.forward(changed(layers()["liquid"], "continuous.log_dt", float("nan")), u),
        "no step yet": lambda: parallel.forward(mean, u[:, :0], state=mean.initial_state(len(u))),
        "between": lambda: parallel.forward(large, 1e4 * u),
        # On the last rank alone.
        "D u": lambda: parallel.forward(loud, (u * 0 + 10 * rank).float()),
        "half": lambda: parallel.forward(changed(layers()["liquid"].float(), "D", 1e4), (u * 0 + 10 * rank).half()),
    }


def bad_cases(rank, size):
    """Each name with what this rank does; all of them, and then again something that works."""
    system, _ = system_of("diagonal", "float32")
    other, _ = system_of("diagonal", "float32", seed=3)
    u = torch.full((BATCH, CHANNELS, 5), 0.1)
    odd = rank == size - 1

    def run(system=system, u=u, mode="liquid", **options):
        return lambda: parallel.apply(system, u, **{"mode": mode, "backend": "torch", **options})

    def without_gradients():
        with torch.no_grad() if odd else nullcontext():
            return run()()

    def broken():
        usual = scan.compute
        try:
            if odd or size > 2:
                scan.compute = lambda *args, **options: (_ for _ in ()).throw(MemoryError("no room"))
            return run()()
        finally:
            scan.compute = usual

    wrong = u.clone()
    wrong[1, 2, 3] = float("nan")
    # Transitions of modulus 3: 3^55 is above 2^60, 3^(4 · 55) far beyond float32.
    growing = ls.DiagonalSystem(*[torch.full((1, 1), v, dtype=torch.complex64) for v in (0.0, 1.0, 1.0)])
    quiet, loud = torch.zeros(1, 1, 55), torch.full((1, 1, 55), 3.0)
    dplr = nn.SSMLayer(CHANNELS, 8, init="legs", seed=0).system()
    pole = torch.full((1, 1), 1.0, dtype=torch.complex64)
    return {
        "batch": run(u=u[:1] if odd else u),
        "channels": run(system=system.take([0, 1]) if odd else system, u=u[:, :2] if odd else u),
        "dtype": run(u=u.double() if odd else u),
        "mode": run(mode="s4" if odd else "liquid"),
        "order": run(mode="truncated", order=2 if odd else 3),
        "parameters": run(system=other if odd else system),
        "gradients": without_gradients,
        "return_state": run(return_state=odd),
        "shape": run(u=u[0] if odd else u),
        "nan": run(u=wrong if odd else u),
        "numpy": run(u=u.numpy() if odd else u),
        "half": run(u=u.half()),
        "backend": run(backend="nimba" if odd else "torch"),
        "tolerance": run(tolerance=1e-3),
        "state": run(state=torch.zeros(7)),
        "dplr": run(system=dplr),
        "kb": run(mode="kb"),
        "unknown": run(mode="liquit"),
        "memory": broken,
        "far": run(system=growing, u=torch.full((1, 1, 100), 3.0)),
        "product": run(system=growing, u=loud if 0 < rank < size - 1 else quiet),
        "handed": run(
            system=ls.DiagonalSystem(pole, pole, pole),
            u=quiet,
            mode="s4",
            state=torch.full((1, 1, 1), 1e30, dtype=torch.complex64),
        ),
        "last": run(system=growing, u=torch.full((1, 1, 100), 3.0) if odd else quiet),
        "works": lambda: {"y": run()().detach()},
    }


def layers():
    torch.manual_seed(0)
    given = {"n_state": 8, "backend": "torch", "liquid_scale": 1.0}
    return {
        "liquid": nn.SSMLayer(CHANNELS, seed=1, **given).double(),
        "clamped": nn.SSMLayer(CHANNELS, seed=1, max_gain=1.0, **given).double(),
        "mimo": nn.SSMLayer(CHANNELS, structure="mimo", seed=1, **given).double(),
    }


def models():
    found = {}
    for pooling, norm, prenorm in (("last", "layer", True), ("mean", "batch", False), ("none", "batch", True)):
        torch.manual_seed(0)
        options = {"n_layers": 2, "n_channels": 4, "n_state": 6, "backend": "torch", "prenorm": prenorm}
        found[pooling] = nn.SequenceModel(CHANNELS, 2, pooling=pooling, norm=norm, **options).double()
    return found


def features(length):
    draw = torch.Generator().manual_seed(2)
    u = 0.5 * torch.randn(BATCH, length, CHANNELS, generator=draw, dtype=torch.float64)
    return u, torch.randn(BATCH, length, 2, generator=draw, dtype=torch.float64)


def loss_of(y, weights):
    """Of outputs per step, or of one output."""
    return (y * (weights if y.ndim == 3 else weights.sum(1))).sum()


def module_case(module, rank, size, lengths):
    u, weights = features(sum(lengths))
    mine = own(lengths, rank)
    part = u[:, mine].clone().requires_grad_()
    y, state = parallel.forward(module, part, return_state=True)
    if isinstance(module, nn.SSMLayer):
        loss = y.square().sum()
    else:
        loss = loss_of(y, weights[:, mine]) if y.ndim == 3 else loss_of(y, weights) / size
    loss.backward()
    parallel.sum_gradients(module)
    layer_states = state if isinstance(state, torch.Tensor) else state.layers[-1]
    grads = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    # A second call goes on from the state; its outputs show that it is the right one.
    with torch.no_grad():
        module.eval()
        again = parallel.forward(module, u[:, mine], state=state)
    buffers = dict(module.named_buffers())
    return {
        "y": y.detach(),
        "u": part.grad,
        "grads": grads,
        "state": layer_states.detach(),
        "again": again,
        "buffers": buffers,
    }


def everything(rank, size):
    found = {"scan": {}, "module": {}}
    for lengths in SLICES[size]:
        for structure, mode in KINDS:
            for dtype in DTYPES:
                found["scan"][structure, mode, dtype, lengths] = one_case(rank, size, structure, mode, dtype, lengths)
    for name, (lengths, options) in SPECIAL[size].items():
        found["scan"][name] = one_case(rank, size, "diagonal", "liquid", "float64", lengths, options=options)
    found["scan"]["first"] = one_case(rank, size, "diagonal", "liquid", "float32", SLICES[size][0], backend="first")
    if size == 4:
        found["scan"]["wide"] = one_case(
            rank, size, "diagonal", "liquid", "float32", SLICES[size][0], backend=WIDE if rank == 1 else "torch"
        )
    for lengths in SLICES[size][:2]:
        for name, module in {**layers(), **models()}.items():
            found["module"][name, lengths] = module_case(module, rank, size, lengths)
    found["bad"] = {name: attempted(case) for name, case in bad_cases(rank, size).items()}
    found["sizes"] = exchange_sizes(rank, size)
    found["one asks"] = attempted(lambda: one_asks(rank, size))
    found["cotangent"] = attempted(lambda: steep(size))
    found["bad module"] = attempted(lambda: parallel.forward(two_ways(), features(5)[0].float()))
    found["bad features"] = attempted(
        lambda: parallel.forward(models()["none"], features(5)[0][..., : 2 if rank else 3])
    )
    found["no steps"] = attempted(lambda: parallel.forward(models()["last"], features(0)[0]))
    found["not finite"] = {name: attempted(case) for name, case in not_finite(rank).items()}
    found["other"] = attempted(lambda: parallel.forward(torch.nn.Linear(3, 3), features(5)[0]))
    for name, module in (("numpy layer", layers()["liquid"]), ("numpy model", models()["none"])):
        u = features(5)[0]
        found[name] = attempted(lambda module=module, u=u: parallel.forward(module, u.numpy() if rank else u))
    with torch.no_grad():
        u = features(sum(SLICES[size][0]))[0].bfloat16()[:, own(SLICES[size][0], rank)]
        found["half"] = parallel.forward(layers()["liquid"].float(), u)
    parameter = torch.nn.Parameter(torch.zeros(3))
    parameter.grad = torch.full((3,), float(rank)) if rank else None
    parallel.sum_gradients([parameter])
    found["summed"] = parameter.grad
    if size == 2:
        group = distributed.new_group(timeout=timedelta(seconds=2))
        if rank:
            time.sleep(5)
        u = torch.zeros(BATCH, CHANNELS, 5)
        system, _ = system_of("diagonal", "float32")
        found["late"] = attempted(lambda: parallel.apply(system, u, mode="s4", backend="torch", group=group))
    return found


WIDE = "numba-wide-state"
# Products of 1e-31 over a slice with a loss of the last step only; and transitions that grow.
SPECIAL = {
    2: {"decay": ((60, 60), {"system": {"radius": 0.3, "drive": 0.03}, "last_only": True})},
    4: {
        "decay": ((60, 60, 60, 60), {"system": {"radius": 0.3, "drive": 0.03}, "last_only": True}),
        "growth": ((40, 30, 30, 20), {"system": {"radius": 1.0, "drive": 0.4}, "signals": {"size": 1.0}}),
    },
}


def two_ways():
    return nn.SSMLayer(CHANNELS, 8, bidirectional=True, backend="torch", seed=1)


def one_asks(rank, size):
    """Only the first rank's inputs ask for gradients; every later output depends on them."""
    half, one = torch.full((1, 1), 0.5, dtype=torch.complex64), torch.ones(1, 1, dtype=torch.complex64)
    u = torch.zeros(1, 1, 3, requires_grad=rank == 0)
    parallel.apply(ls.DiagonalSystem(half, one, one), u, mode="s4", backend="torch").sum().backward()
    return u.grad


def steep(size):
    """A loss whose derivative is beyond what slices hand on, while every state is small."""
    one = torch.ones(1, 1, dtype=torch.complex64, requires_grad=True)
    y = parallel.apply(ls.DiagonalSystem(one, one, one), torch.zeros(1, 1, 5), mode="s4", backend="torch")
    (1e30 * y).sum().backward()


def exchange_sizes(rank, size):
    """Bytes that this rank gives to each exchange, of two calls whose lengths differ a hundredfold."""
    found = {}
    usual = parallel.exchange.Members.gather
    for steps in (4, 400):
        sent = []
        parallel.exchange.Members.gather = lambda self, name, payload, sent=sent: (
            sent.append((name, payload.numel())),
            usual(self, name, payload),
        )[1]
        try:
            system, _ = system_of("diagonal", "float32")
            u = torch.full((BATCH, CHANNELS, steps), 0.1)
            parallel.apply(system, u, mode="liquid", backend="torch").sum().backward()
        finally:
            parallel.exchange.Members.gather = usual
        found[steps] = sent
    return found


def dying(rank, size):
    """The last but one rank ends: before it tells the others anything, in its first pass, or in its backward pass."""
    when = os.environ["DIES"]
    system, _ = system_of("diagonal", "float32")
    u = torch.full((BATCH, CHANNELS, 5), 0.1)
    dies = rank == size - 2
    if dies and when == "before":
        os._exit(7)
    if dies and when == "first pass":
        scan.compute = lambda *args, **options: os._exit(7)
    start = time.perf_counter()

    def training_step():
        y = parallel.apply(system, u, mode="liquid", backend="torch")
        if dies and when == "backward":
            y.register_hook(lambda grad: os._exit(7))
        y.sum().backward()

    return {**attempted(training_step), "seconds": time.perf_counter() - start}


def main():
    program, rank, size, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size, timeout=timedelta(seconds=60)
    )
    found = {"everything": everything, "dying": dying}[program](rank, size)
    torch.save(found, f"{folder}/{rank}.pt")
    if program == "everything":
        distributed.destroy_process_group()


if __name__ == "__main__":
    main()
