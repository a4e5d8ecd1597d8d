"""Peak memory of a computation, measured in a fresh process."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..problem import ModeSpec
from ..registry import get_backend
from .shapes import Shape
from .work import BACKWARD, BOTH, CHECKPOINT, FORWARD

KERNEL = "kernel"
TIMEOUT = 300.0  # seconds for one child process


@dataclass(frozen=True)
class Peak:
    """The peak memory of one computation.

    Attributes:
        computed: `forward`, `forward + backward`, or `kernel` of a system.
        whole: largest resident size of the process, interpreter included [bytes].
        added: how much of it came on top of the process with its inputs [bytes].
        inputs, outputs: sizes of the arrays [bytes]; `added` has the outputs in it, not the inputs.
        seconds: that the process took, imports and inputs included.
        reason: why nothing was measured, else empty.
    """

    subject: str
    mode: str
    computed: str
    dtype: str
    shape: Shape
    whole: int | None = None
    added: int | None = None
    inputs: int | None = None
    outputs: int | None = None
    reason: str = ""

    @property
    def beyond(self) -> int | None:
        """Bytes beyond inputs and outputs."""
        return None if self.added is None or self.outputs is None else max(0, self.added - self.outputs)

    @property
    def allowed(self) -> float:
        """Bytes of one complex state every 64 steps, kept as 16 bytes per mode: 16·(N/2)·L/64 per batch and channel."""
        return 16 * self.shape.n_modes * self.shape.elements / CHECKPOINT


def peak(name: str, spec: ModeSpec, computed: str, dtype: str, shape: Shape, *, structure: str = "diagonal") -> Peak:
    """Run the computation once in a fresh process and read its high-water mark."""
    row = Peak(name, spec.label if computed != KERNEL else f"kernel, {structure}", computed, dtype, shape)
    job = {
        "backend": name,
        "spec": asdict(spec),
        "computed": computed,
        "dtype": dtype,
        "shape": asdict(shape),
        "structure": structure,
    }
    # -P: a folder liquid_ssm in the working directory must not hide the installed package.
    command = [sys.executable, "-P", "-c", "from liquid_ssm.bench.memory import child; child()", json.dumps(job)]
    # A fixed threshold, so that freed arrays go back to the system at once instead of serving the measured call.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        return replace(row, reason=f"not measured: the process took more than {TIMEOUT:.0f} s")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return replace(row, reason=f"not measured: the process ended with code {done.returncode}: {last}")
    return replace(row, **json.loads(done.stdout))


def child() -> None:
    """What the fresh process runs: the job of its first argument; prints the figures as JSON."""
    from .subjects import arrays, call, subject

    job = json.loads(sys.argv[1])
    shape, spec, backend = Shape(**job["shape"]), ModeSpec(**job["spec"]), get_backend(job["backend"])
    computed, dtype = job["computed"], job["dtype"]
    held: list[Any] = []

    def run(size: Shape) -> tuple[int, Any]:
        """Bytes of the inputs, and what is to be called."""
        if computed == KERNEL:
            system = kernel_system(job["structure"], size.n_channels, size.n_state).astype(dtype)
            return sum(a.nbytes for a in arrays(system.parameters)), lambda: backend.kernel(system, size.length)  # type: ignore[attr-defined]
        one = subject(size, dtype)
        forward, backward = (call(one, spec, backend, direction) for direction in (FORWARD, BACKWARD))
        inputs = [one.u, *([one.grad_y] if computed == BOTH else []), *arrays(one.system.parameters)]
        return sum(a.nbytes for a in inputs), (lambda: (forward(), backward())) if computed == BOTH else forward

    # Code, threads and tables that do not depend on the length.
    run(replace(shape, length=min(shape.length, 256)))[1]()
    inputs, measured = run(shape)
    gc.collect()
    before = resident()
    reset_peak()
    held.append(measured())
    top = high_water()
    outputs = sum(a.nbytes for a in arrays(held[0]))
    print(json.dumps({"whole": top, "added": top - before, "inputs": inputs, "outputs": outputs}))


def kernel_system(structure: str, n_channels: int, n_state: int) -> Any:
    """s4d-lin for `diagonal`, HiPPO-LegS for `dplr`, both bilinear."""
    from ..initialize import initialize

    name = "s4d-lin" if structure == "diagonal" else "legs"
    made = initialize(name, n_channels=n_channels, n_state=n_state, dt_min=1e-3, dt_max=1e-1, seed=0)
    return made.discretize("bilinear")


def _status(key: str) -> int | None:
    path = Path("/proc/self/status")
    if not path.exists():
        return None
    line = next(line for line in path.read_text().splitlines() if line.startswith(key))
    return 1024 * int(line.split()[1])


def resident() -> int:
    """Bytes of this process in memory now; where /proc is missing, the largest so far."""
    return _status("VmRSS") or high_water()


def high_water() -> int:
    """The largest resident size since the start or the last `reset_peak` [bytes]."""
    found = _status("VmHWM")
    if found is not None:
        return found
    import resource

    # macOS gives bytes, Linux (without /proc) KiB.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def reset_peak() -> None:
    """Forget earlier peaks, where Linux lets a process do so."""
    path = Path("/proc/self/clear_refs")
    if path.exists() and os.access(path, os.W_OK):
        path.write_text("5")
