"""Which problems one certificate covers: names, powers-of-two buckets of sizes, ranges of the data."""

from __future__ import annotations

import math
import sys
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ..arrays import is_channels_last, is_tensor
from ..certificate import Domain, Range
from ..problem import Problem

# One range of |b̄u| and one of the distance of |ā| from 1 spans this factor: wide enough that a training run does not
# leave it at every step, narrow enough that rounding errors within it are comparable.
STEP = 16.0
_LOG_STEP = math.log(STEP)
# Beyond this many values max |u| is taken from blocks that are spread over the array.
EXACT_UP_TO = 1 << 15
# Values of so few are looked at in two passes, which take less time than two reductions.
_FEW = 4096
_BLOCKS, _BLOCK = 32, 128

# The largest |ā| and the largest |b̄| of a system, and for tensors the version of each parameter that they are from.
_MEASURED: WeakKeyDictionary[Any, tuple[tuple[int | None, ...], float, float]] = WeakKeyDictionary()


def domain_of(problem: Problem, radius: float, drive: float, tolerance: float | None, dt: Any = None) -> Domain:
    """The domain in which a problem lies.

    Args:
        radius: largest |ā|, as `measures` gives it.
        drive: largest |b̄u|.
        tolerance: largest relative error that is asked for.
        dt: step sizes [time], where they are known.
    """
    spec = problem.spec
    return Domain(
        mode=spec.mode,
        order=spec.order if spec.has_order else None,
        correlations=spec.correlations if spec.has_correlations else None,
        window=spec.window if spec.has_correlations else None,
        structure=problem.structure,
        dtype=problem.dtype,
        device=problem.device,
        arrays=problem.arrays,
        gradient=problem.gradient,
        state=problem.state,
        batch=bucket(problem.batch),
        n_channels=bucket(problem.n_channels),
        n_modes=bucket(problem.n_modes),
        length=bucket(problem.length),
        radius=radius_range(radius),
        drive=power_range(drive),
        dt=None if dt is None else dt_range(dt),
        tolerance=tolerance,
    )


def outside(domain: Domain, problem: Problem, radius: float, drive: float, dt: Any = None) -> list[str]:
    """Why a problem is not in a domain, one sentence per reason; [] if it is."""
    spec = problem.spec
    names = {
        "mode": spec.mode,
        "order": spec.order if spec.has_order else None,
        "correlations": spec.correlations if spec.has_correlations else None,
        "window": spec.window if spec.has_correlations else None,
        **{name: getattr(problem, name) for name in ("structure", "dtype", "device", "arrays", "gradient", "state")},
    }
    reasons = [
        f"{name} is {value}, the certificate's is {getattr(domain, name)}"
        for name, value in names.items()
        if value != getattr(domain, name)
    ]
    for name in ("batch", "n_channels", "n_modes", "length"):
        low, high = getattr(domain, name)
        if not low <= getattr(problem, name) <= high:
            reasons.append(f"{name} is {getattr(problem, name)}, the certificate covers {low} to {high}")
    values = [("the largest |a|", radius, domain.radius), ("the largest |b u|", drive, domain.drive)]
    if dt is not None and domain.dt is not None:
        values += [("dt", float(value), domain.dt) for value in (np.min(dt), np.max(dt))]
    reasons += [
        f"{name} is {value:.6g}, the certificate covers {range_.low:.6g} to {range_.high:.6g}"
        for name, value, range_ in values
        if value not in range_
    ]
    return reasons


def bucket(size: int) -> tuple[int, int]:
    """The sizes with as many binary digits: (2^k, 2^(k+1) - 1), for 0 (0, 0)."""
    digits = int(size).bit_length()
    return (1 << digits >> 1, (1 << digits) - 1)


def power_range(value: float) -> Range:
    """The range [STEP^k, STEP^(k+1)] of a positive value, open above where that is no float; [0, 0] for 0."""
    if value == 0:
        return Range(0.0, 0.0)
    k = math.floor(math.log(min(value, sys.float_info.max)) / _LOG_STEP)
    # The logarithm is rounded: near a power of STEP the value may lie just beyond.
    while value < _power(k):
        k -= 1
    while value > _power(k + 1):
        k += 1
    return Range(_power(k), _power(k + 1))


def _power(k: int) -> float:
    """STEP^k, infinity beyond the largest float."""
    try:
        return STEP**k
    except OverflowError:
        return math.inf


def radius_range(radius: float) -> Range:
    """The range of the largest |ā|: what counts is its distance from 1, where memories are long."""
    if radius == 1:
        return Range(1.0, 1.0)
    if radius > 1:
        away = power_range(radius - 1)
        return Range(1 + away.low, 1 + away.high)
    # A radius below 2^-54 is 0 as seen from 1, and belongs to the range that ends there.
    away = power_range(min(1 - radius, 1 - sys.float_info.epsilon))
    return Range(max(0.0, 1 - away.high), 1 - away.low)


def dt_range(dt: Any) -> Range:
    """From the power of STEP below the smallest step size to the one above the largest [time]."""
    return Range(power_range(float(np.min(dt))).low, power_range(float(np.max(dt))).high)


def measures(system: Any, u: Any, *, exact: bool) -> tuple[float, float]:
    """The largest |ā| of the system and the largest |b̄u| of the call.

    For `dplr` |ā| is that of the diagonal part, for `dense` the smaller of the largest row and column sum of |Ā|; for
    `mimo` |b̄u| adds up the channels.

    Args:
        exact: look at every value of u; else, above EXACT_UP_TO values, at blocks spread over it.
    """
    radius, drive = of_system(system)
    return radius, drive * largest(u, exact=exact)


def of_system(system: Any) -> tuple[float, float]:
    """The largest |ā| and the largest |b̄|, as `measures` takes them."""
    versions = tuple(map(_version, system.parameters.values())) if system.is_torch else ()
    known = None if None in versions else _MEASURED.get(system)
    if known is not None and known[0] == versions:
        return known[1:]
    structure = system.structure
    transition = np.abs(_array(system.Lambda_bar if structure == "dplr" else system.A_bar))
    if structure == "dense":
        radius = max((min(a.sum(axis=0).max(), a.sum(axis=1).max()) for a in transition), default=0.0)
    else:
        radius = transition.max(initial=0.0)
    drive = np.abs(_array(system.B_bar))
    if structure == "mimo":
        drive = drive.sum(axis=1)
    found = (float(radius), float(drive.max(initial=0.0)))
    _MEASURED[system] = (versions, *found)
    return found


def _version(tensor: Any) -> int | None:
    """How often a tensor has been changed in place; None for tensors of inference mode, which do not count."""
    return None if tensor.is_inference() else int(tensor._version)


def _array(values: Any) -> Any:
    return values.numpy(force=True) if is_tensor(values) else values


def largest(u: Any, *, exact: bool) -> float:
    """max |u|, from every value, or above EXACT_UP_TO values from blocks that are spread over the array."""
    if type(u) is np.ndarray and 0 < u.size <= _FEW:
        return float(np.maximum.reduce(np.abs(u), axis=None))
    if is_tensor(u):
        u = u.detach()
        if u.device.type != "cpu":
            return float(u.abs().max()) if u.numel() else 0.0
        u = (u.float() if u.dtype.itemsize < 4 else u).numpy(force=True)
    if u.ndim == 3 and is_channels_last(u):
        u = u.swapaxes(1, 2)
    if u.size > EXACT_UP_TO and not exact and u.flags.c_contiguous:
        stride = u.size // _BLOCKS
        u = u.reshape(-1)[: _BLOCKS * stride].reshape(_BLOCKS, stride)[:, :_BLOCK]
    return float(max(np.maximum.reduce(u, axis=None, initial=0.0), -np.minimum.reduce(u, axis=None, initial=0.0)))
