"""Verification at run time: one row of a call in so many is compared with the reference while the caller goes on."""

from __future__ import annotations

import logging
import queue
import random
import threading
import warnings
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays import is_tensor, namespace
from ..cache_folder import cache_folder
from ..certificate import Certificate
from ..certificate_store import CertificateStore
from ..compute import Array
from ..problem import ModeSpec
from ..registry import get_backend
from .contenders import Contender
from .data import to_numpy

if TYPE_CHECKING:
    from .truth import Truth

# The reference runs behind the caller's back: so many steps, and at most this many rows that wait for it.
STEPS = 512
_waiting: queue.Queue[_Sample] = queue.Queue(maxsize=4)
_lock = threading.Lock()
_worker: threading.Thread | None = None
_random = random.Random()


@dataclass(frozen=True)
class _Sample:
    """One row and one channel of a call (`mimo`: all channels), copied."""

    certificate: Certificate
    system: Any
    u: Array
    y: Array
    state: Array | None
    rounding: tuple[float, float]  # to y's dtype, at most: relative, and of numbers below the normal range


def watch(certificate: Certificate, system: Any, u: Array, y: Array, state: Any, share: float) -> None:
    """Have this call checked with probability `share`.

    Calls of `truncated`, `kb` and `pb` that start from a state are passed over: the reference has none there.
    """
    if _random.random() >= share:
        return
    if state is not None and certificate.domain.mode not in ("s4", "liquid"):
        return
    u = u if is_tensor(u) else np.asarray(u)
    backend = get_backend(certificate.backend.partition(":")[0])
    # The bound of a transform needs the whole signal.
    n = u.shape[2] if backend.linear_method == "convolution" else min(STEPS, u.shape[2])
    row = _random.randrange(u.shape[0])
    channels = slice(None)
    one = system.to_numpy()
    if one.structure != "mimo":
        h = _random.randrange(u.shape[1])
        channels, one = slice(h, h + 1), one.take([h])
    start = None if state is None else to_numpy(_row_of(state, row, channels, one.structure))
    sample = _Sample(certificate, one, _copy(u, row, channels, n), _copy(y, row, channels, n), start, _rounding(y))
    _start()
    # If four rows wait already, this call is one more than can be checked.
    with suppress(queue.Full):
        _waiting.put_nowait(sample)


def _row_of(state: Any, row: int, channels: slice, structure: str) -> Any:
    return state[row : row + 1] if structure == "mimo" else state[row : row + 1, ..., channels, :]


def _copy(array: Any, row: int, channels: slice, n: int) -> Array:
    part = array[row : row + 1, channels, :n]
    if is_tensor(part) and part.dtype.itemsize < 4:
        part = part.float()
    return np.array(to_numpy(part))


def _rounding(y: Any) -> tuple[float, float]:
    found: Any = np.finfo(y.dtype) if not is_tensor(y) else namespace(y).finfo(y.dtype)
    return float(found.eps) / 2, float(found.smallest_normal) * float(found.eps) / 2


def wait() -> None:
    """Return when every row that waits has been checked."""
    _waiting.join()


def _start() -> None:
    global _worker
    with _lock:
        if _worker is None or not _worker.is_alive():
            _worker = threading.Thread(target=_work, name="liquid_ssm recheck", daemon=True)
            _worker.start()


def _work() -> None:
    while True:
        sample = _waiting.get()
        try:
            _check(sample)
        except Exception as error:  # in a thread nobody else would say so, and the rows that wait would stay
            _say(
                f"a call of backend {sample.certificate.backend!r} could not be checked: {type(error).__name__}: "
                f"{error}; certificate {sample.certificate.id} stays as it is."
            )
        finally:
            _waiting.task_done()


def _check(sample: _Sample) -> None:
    from .choose import verdict
    from .truth import Truth

    if CertificateStore().why_not(sample.certificate, sample.certificate.validators):
        return  # an earlier row has had it quarantined
    domain = sample.certificate.domain
    name, _, dtype = sample.certificate.backend.partition(":")
    spec = ModeSpec(domain.mode, domain.order or 1, domain.correlations or "all", domain.window)
    from ..compute import problem_of

    dtype = dtype or domain.dtype
    u = sample.u.astype(dtype)
    problem = problem_of(sample.system.astype(dtype), u, spec, state=domain.state)
    contender = Contender(sample.certificate.backend, get_backend(name), problem)
    systems = {d: (sample.system.astype(d), sample.u.astype(d)) for d in {dtype, domain.dtype}}
    truth = Truth([contender], systems, domain.dtype, u.shape[-1], state=sample.state)
    finding = truth.finding(contender, _before_rounding(sample, truth, dtype))
    reason = verdict(finding, domain.tolerance, " in a later call", margin=1.0)[1]
    if reason:
        _quarantine(sample, reason)


def _before_rounding(sample: _Sample, truth: Truth, dtype: str) -> Array:
    """y in the dtype it was computed in: where its own is coarser, what is nearest to the exact value of all that may
    have been rounded to it."""
    unit, tiny = sample.rounding
    y = sample.y.astype(dtype)
    if unit <= float(np.finfo(dtype).eps) / 2:
        return y
    # Twice the unit: it is relative to what was rounded, and there may have been a rounding in between.
    room = 2 * unit * np.abs(y) + tiny
    return np.asarray(np.clip(truth.references[dtype].value, y - room, y + room)).astype(dtype)


def _quarantine(sample: _Sample, reason: str) -> None:
    from .auto import withdraw

    certificate = sample.certificate
    withdraw(certificate)
    store = CertificateStore()
    name = f"recheck-{certificate.id}.npz"
    path = cache_folder() / "rechecks" / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        given = {} if sample.state is None else {"state": sample.state}
        np.savez(path, u=sample.u, y=sample.y, **sample.system.parameters, **given)
        where = str(path)
    except OSError as error:
        where = f"not kept ({error.strerror})"
    domain = certificate.domain
    options = {"mode": domain.mode, "order": domain.order, "correlations": domain.correlations, "window": domain.window}
    details = {"arrays": where, "structure": domain.structure, "options": {k: v for k, v in options.items() if v}}
    store.quarantine(certificate, reason, details)
    _say(
        f"backend {certificate.backend!r} is quarantined for {domain.mode} on {domain.structure} systems "
        f"({domain.dtype}): {reason}. The result of that call was returned before this was known. The system, u, y and "
        f"the state are in {where}; conjugate_pairs={sample.system.conjugate_pairs}, options {details['options']}; "
        f"certificate {certificate.id}. The next call selects again."
    )


def _say(message: str) -> None:
    # Where warnings are errors it must not end the thread that says it.
    try:
        warnings.warn(message, RuntimeWarning, stacklevel=3)
    except RuntimeWarning:
        logging.getLogger("liquid_ssm").warning(message)
