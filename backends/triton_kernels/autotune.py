"""The fastest of several configurations, none of which is timed before its outputs have been verified.

Candidates run on inputs made for the purpose, whose recurrences contract, so that a bound on the error says something;
their outputs go into arrays of their own that are filled with NaN first.  Two candidates add up the modes in different
orders, so they need not agree bit by bit: each must be within the error bound of a float64 run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

import torch

from .configurations import Configuration, forward_configurations, power_of_two

Tensor = torch.Tensor

REPETITIONS = 7
# Longer sequences take longer in proportion; more steps would only loosen the bound.
LONGEST = 4096


@dataclass(frozen=True)
class Trial:
    """One kernel on inputs for the verification of its configurations.

    Args:
        run: outputs of a configuration, written into arrays that `empty` makes.
        expected: what they should be, in float64.
        allowed: bounds on their errors, of the same shapes.
    """

    run: Callable[[Configuration, Any], tuple[Tensor, ...]]
    expected: tuple[Tensor, ...]
    allowed: tuple[Tensor, ...]


@dataclass(frozen=True)
class Outcome:
    """What became of a candidate: its median time in seconds, or None and why it was refused."""

    configuration: Configuration
    seconds: float | None
    refused: str = ""


# By kernel, shape and device; in this process only, so that no result depends on files.
_chosen: dict[tuple[Any, ...], tuple[Outcome, ...]] = {}


def poisoned(shape: tuple[int, ...], *, dtype: torch.dtype, device: Any) -> Tensor:
    """An array full of NaN: what a kernel forgets to write is found."""
    return torch.full(shape, float("nan"), dtype=dtype, device=device)


def verified(trial: Trial, configuration: Configuration) -> str:
    """Empty if every output of the configuration is within its bound, else what is wrong."""
    for number, (found, expected, allowed) in enumerate(
        zip(trial.run(configuration, poisoned), trial.expected, trial.allowed, strict=True)
    ):
        error = (found.to(expected.dtype) - expected).abs()
        # NaN is not within anything.
        wrong = ~(error <= allowed)
        if bool(wrong.any()):
            where = tuple(int(i) for i in wrong.nonzero()[0])
            return f"output {number} is {found[where]} at {where}, expected {expected[where]} ± {allowed[where]:.3g}"
    return ""


def tuned(
    key: tuple[Any, ...],
    candidates: Sequence[Configuration],
    make_trial: Callable[[], Trial],
    seconds: Callable[[Callable[[], Any]], float] | None = None,
) -> tuple[Outcome, ...]:
    """What became of every candidate, the fastest verified one first; measured once per key.

    Args:
        key: kernel, shape and device.
        candidates: the usual configuration first; it is taken where all are equally fast.
        make_trial: called once if nothing is known for the key.
        seconds: measures a call; tests give their own.

    Raises:
        RuntimeError: no candidate computes correctly on this device.
    """
    if key in _chosen:
        return _chosen[key]
    trial, measure = make_trial(), seconds or _seconds
    outcomes = []
    for configuration in candidates:
        refused = verified(trial, configuration)
        time = None if refused else measure(lambda c=configuration: trial.run(c, torch.empty))
        outcomes.append(Outcome(configuration, time, refused))
    good = [outcome for outcome in outcomes if outcome.seconds is not None]
    if not good:
        reasons = "\n".join(f"  - {outcome.configuration}: {outcome.refused}" for outcome in outcomes)
        raise RuntimeError(f"no configuration of {key} computes correctly on this device:\n{reasons}")
    refused_ones = [outcome for outcome in outcomes if outcome.seconds is None]
    _chosen[key] = (*sorted(good, key=lambda outcome: outcome.seconds or 0.0), *refused_ones)
    return _chosen[key]


def recurrence_trial(
    system_type: Any, shape: tuple[int, int, int], n_modes: int, dtype: torch.dtype, device: Any, kind: str, order: int
) -> Trial:
    """A trial of `recurrence` on a random diagonal system with |ā| <= 1/2 and |b̄ u| <= 1/4.

    The bound is one by moduli: with every number replaced by its modulus the output adds up the moduli of all terms of
    y_k, and none passes more than 8 roundings per step (docs/bounds.md: v, ā + v, a product of at most √5 + 1 and two
    additions) and M + order + 1 in the read-out.  The expected values come from the usual configuration in float64.
    """
    from .recurrences import recurrence

    batch, n_channels, length = shape
    generator = torch.Generator().manual_seed(0)

    def uniform(*size: int) -> Tensor:
        return torch.rand(*size, generator=generator, dtype=torch.float64)

    def on_disc(radius: float) -> Tensor:
        return torch.polar(radius * uniform(n_channels, n_modes), 6.2831853 * uniform(n_channels, n_modes))

    def prepared(*parameters: Tensor) -> Any:
        pair = torch.complex64 if dtype == torch.float32 else torch.complex128
        return system_type(*(p.to(pair).to(device) for p in parameters))

    A_bar, B_bar, C = on_disc(0.5), on_disc(0.25), on_disc(1.0)
    u = (2 * uniform(batch, n_channels, length) - 1).to(dtype).to(device)
    system = prepared(A_bar, B_bar, C)
    double = system.astype(torch.float64)
    moduli = system_type(*(p.abs() + 0j for p in double.parameters.values()))
    y, final = recurrence(double, u.double(), None, kind=kind, order=order)
    size, final_size = recurrence(moduli, u.double().abs(), None, kind=kind, order=order)
    passed = (8 * (length + 1) + n_modes + order + 3) * torch.finfo(dtype).eps / 2
    # γ of the roundings; the rest covers those of the float64 runs.
    relative = passed / (1 - passed) * (1 + 2.0**-20)

    def run(configuration: Configuration, empty: Any) -> tuple[Tensor, ...]:
        y, final = recurrence(system, u, None, kind=kind, order=order, configuration=configuration, empty=empty)
        return y, torch.view_as_real(final)

    sizes = (size, final_size.abs()[..., None].expand(*final_size.shape, 2))
    return Trial(run, (y, torch.view_as_real(final)), tuple(relative * part for part in sizes))


def best_recurrence(system_type: Any, u: Tensor, n_modes: int, kind: str, order: int) -> Configuration:
    """The fastest verified configuration for recurrences of this shape on this device.

    Shapes whose rows and lengths are the same up to a power of two share what was measured.
    """
    batch, n_channels, length = u.shape
    rows, length = power_of_two(batch * n_channels), min(power_of_two(length), LONGEST)
    key = (kind, order, rows, n_modes, length, u.dtype, torch.cuda.get_device_name(u.device))

    def make_trial() -> Trial:
        return recurrence_trial(system_type, (1, rows, length), n_modes, u.dtype, u.device, kind, order)

    outcomes = tuned(key, forward_configurations(rows, n_modes, order=order), make_trial)
    return outcomes[0].configuration


def _seconds(call: Callable[[], Any]) -> float:
    """Median of several calls, waited for, after one that compiles."""
    times = []
    call()
    for _ in range(REPETITIONS):
        torch.cuda.synchronize()
        begin = perf_counter()
        call()
        torch.cuda.synchronize()
        times.append(perf_counter() - begin)
    return median(times)
