"""What slices of time on several processes exchange, and what they cost beside one process on the same cores.

Run: python benchmarks/sequence_parallel.py --json PATH
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import distributed, multiprocessing

import liquid_ssm as ls
from liquid_ssm import nn, parallel
from liquid_ssm.environment import environment
from liquid_ssm.parallel import exchange
from liquid_ssm.report import dump_json

# batch, H, N
SIZES = ((1, 64, 64), (1, 256, 64), (4, 128, 64))
LENGTHS = (1024, 8192, 65536)
MODES = (("liquid", 1), ("truncated", 3))
TIMED = (1, 64, 64, 131072)


@contextmanager
def recorded() -> Iterator[list[tuple[str, int]]]:
    """Collectives with the bytes that this rank gives to each."""
    calls: list[tuple[str, int]] = []
    usual = exchange.Members._run
    gather = exchange._all_gather

    def run(self: Any, name: str, collective: Callable[[], Any]) -> None:
        calls.append((name, 0))
        usual(self, name, collective)

    def counted(found: torch.Tensor, given: torch.Tensor, group: Any = None) -> None:
        calls[-1] = (calls[-1][0], given.numel() * given.element_size())
        gather(found, given, group=group)

    exchange.Members._run, exchange._all_gather = run, counted  # type: ignore[method-assign]
    try:
        yield calls
    finally:
        exchange.Members._run, exchange._all_gather = usual, gather  # type: ignore[method-assign]


def layer_of(n_channels: int, n_state: int, mode: str, order: int, backend: str) -> nn.SSMLayer:
    return nn.SSMLayer(n_channels, n_state, mode=mode, order=order, seed=0, backend=backend)


def sizes(backend: str) -> list[dict[str, Any]]:
    """Bytes per exchange of one training step, for each size, mode and length."""
    rank, size = distributed.get_rank(), distributed.get_world_size()
    rows = []
    for batch, n_channels, n_state in SIZES:
        for mode, order in MODES:
            layer = layer_of(n_channels, n_state, mode, order, backend)
            for length in LENGTHS:
                u = 0.1 * torch.randn(batch, length, n_channels)[:, parallel.share(length, rank, size)]
                with recorded() as calls:
                    parallel.forward(layer, u).sum().backward()
                shape = {"batch": batch, "n_channels": n_channels, "n_modes": n_state // 2, "length": length}
                sent = {name.replace(" ", "_"): count for name, count in calls}
                rows.append({"ranks": size, "mode": mode, "order": order, **shape, **sent})
    return rows


def set_threads(count: int) -> None:
    import numba

    torch.set_num_threads(count)
    numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))


def timings(runs: int, backend: str) -> list[dict[str, Any]]:
    """Seconds of forward passes and training steps; all ranks with a thread each, then rank 0 alone with all of it."""
    rank, size = distributed.get_rank(), distributed.get_world_size()
    batch, n_channels, n_state, length = TIMED
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.manual_seed(0)
    u = 0.3 * torch.randn(batch, length, n_channels)
    layer = layer_of(n_channels, n_state, "liquid", 1, backend)
    system = layer.system()
    system = type(system)(**{name: tensor.detach() for name, tensor in system.parameters.items()})
    own = u[:, parallel.share(length, rank, size)].mT.contiguous()
    whole = u.mT.contiguous()

    def slices(u: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = parallel.apply(system, u, mode="liquid", backend=backend)
        return y

    def alone(u: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = ls.apply(system, u, mode="liquid", backend=backend)
        return y

    def forward(function: Callable[[torch.Tensor], torch.Tensor], u: torch.Tensor) -> None:
        with torch.no_grad():
            function(u)

    def training(function: Callable[[torch.Tensor], torch.Tensor], u: torch.Tensor) -> None:
        u = u.detach().requires_grad_()
        function(u).square().sum().backward()

    rows = []
    for what in (forward, training):
        taken: dict[tuple[int, int], list[float]] = {(size, 1): [], (1, 1): [], (1, cores): []}
        for run in range(runs + 1):
            for processes, threads in taken:
                set_threads(threads)
                distributed.barrier()
                start = perf_counter()
                if processes == size:
                    what(slices, own)
                elif rank == 0:
                    what(alone, whole)
                distributed.barrier()
                if run:  # the first compiles and selects
                    taken[processes, threads].append(perf_counter() - start)
        for (processes, threads), seconds in taken.items():
            low, middle, high = np.quantile(seconds, [0.25, 0.5, 0.75]).tolist()
            row = {"what": what.__name__, "processes": processes, "threads_each": threads, "runs": runs}
            rows.append({**row, "seconds": middle, "seconds_low": low, "seconds_high": high})
    return rows


def rank_of(rank: int, size: int, folder: str, runs: int, backend: str) -> None:
    """What each process does; the first one writes what it has found."""
    set_threads(1)
    meet = f"file://{folder}/meet{size}"
    limit = timedelta(minutes=5)
    distributed.init_process_group("gloo", init_method=meet, rank=rank, world_size=size, timeout=limit)
    found = {"sizes": sizes(backend), "timings": timings(runs, backend)}
    if rank == 0:
        Path(folder, f"{size}.json").write_text(json.dumps(found), encoding="utf-8")
    distributed.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", required=True, help="where the results go")
    parser.add_argument("--runs", type=int, default=7, help="timed runs of each")
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4], help="numbers of processes")
    parser.add_argument("--backend", default="numba", help="of the scans")
    given = parser.parse_args()
    found: dict[str, list[Any]] = {"sizes": [], "timings": []}
    with tempfile.TemporaryDirectory() as folder:
        for size in given.ranks:
            multiprocessing.spawn(rank_of, (size, folder, given.runs, given.backend), nprocs=size)
            for name, rows in json.loads(Path(folder, f"{size}.json").read_text(encoding="utf-8")).items():
                found[name] += [{"ranks": size, **row} for row in rows]
    for row in found["timings"]:
        print(row)
    shape = dict(zip(("batch", "n_channels", "n_state", "length"), TIMED, strict=True))
    document = {"environment": environment(), "timed": shape, **found}
    Path(given.json).write_text(dump_json(document) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
