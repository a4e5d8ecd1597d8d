"""Initial parameters by name: HiPPO (S4), its diagonal forms (S4D, DSS) and S5."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from types import MappingProxyType

import numpy as np

from .continuous import ContinuousSystem
from .errors import ParameterError, unknown_name
from .hippo import NormalPlusLowRank, diagonalise
from .systems import Array

INITIALIZATIONS = ("legs", "fout", "legs/fout", "s4d-legs", "s4d-inv", "s4d-lin", "dss", "s5")

DEFAULT_DISCRETIZATION: Mapping[str, str] = MappingProxyType(
    {name: "zoh" if name == "dss" else "bilinear" for name in INITIALIZATIONS}
)


def initialize(
    name: str,
    *,
    n_channels: int,
    n_state: int = 64,
    dt_min: float = 1e-3,
    dt_max: float = 1e-1,
    seed: int = 0,
    n_blocks: int = 1,
) -> ContinuousSystem:
    """A continuous system with the parameters of a published initialisation.

    M = n_state // 2 modes, one of each conjugate pair (an odd n_state loses its unpaired real mode, as in the
    published code):

    * `legs`, `fout`: HiPPO-LegS and HiPPO-FouT diagonalised, with their rank-one part (`liquid_ssm.hippo`).
    * `legs/fout`: `legs` in the first ⌈H/2⌉ channels, `fout` in the others.
    * `s4d-legs`: Λ of `legs` without the low rank, B = 1.  `dss`: the same numbers; its Λ = −exp(·) + i(·)
      concerns training, and its usual discretisation is `zoh` (`DEFAULT_DISCRETIZATION`).
    * `s4d-inv`: Λ_n = −½ + i (N/π)(N/(2n+1) − 1); `s4d-lin`: Λ_n = −½ + iπn; B = 1.
    * `s5`: one `mimo` state of n_blocks diagonal blocks, each with Λ of `legs` of size n_state/n_blocks;
      B = V* B' with B' real, (block size, H) per block, a normal distribution cut at two standard deviations
      with variance 1/n_state (Lecun normal).

    C is complex standard normal, E|C|² = 1.  δt is log-uniform in [dt_min, dt_max], per channel (`s5`: per mode).

    Args:
        name: one of `INITIALIZATIONS`.
        n_channels: H ≥ 1.
        n_state: N ≥ 2 (`fout`: N ≥ 4; `s5`: a multiple of n_blocks, blocks of at least 2).
        dt_min, dt_max: range of δt [time], 0 < dt_min ≤ dt_max.
        seed: whole number ≥ 0; the same seed gives the same arrays.  Every channel has its own random stream,
            so more channels leave the first ones as they are (except for `s5`, which they share).
        n_blocks: number of blocks J, `s5` only.

    Returns:
        ContinuousSystem: `dplr` for `legs`, `fout` and `legs/fout`, `mimo` for `s5`, else `diagonal`.

    Raises:
        ParameterError: an unknown name or a number outside its range.

    Accuracy: `s4d-inv` and `s4d-lin` are within 4u of their formulas, u = 2⁻⁵³; the others as `hippo.diagonalise`.

    References: Gu et al., arXiv 2111.00396, 2206.11893 (S4D), 2206.12037; Gupta et al., arXiv 2203.14343 (DSS);
        Smith et al., arXiv 2208.04933 (S5).
    """
    if name not in INITIALIZATIONS:
        raise unknown_name("initialization", name, INITIALIZATIONS)
    n_channels = _whole("n_channels", n_channels, 1, "at least one channel")
    n_state = _whole("n_state", n_state, 2, "one conjugate pair")
    n_blocks = _whole("n_blocks", n_blocks, 1, "a single block")
    seed = _whole("seed", seed, 0, "the first seed")
    if not (np.isfinite(dt_min) and np.isfinite(dt_max) and 0 < dt_min <= dt_max):
        raise ParameterError(f"dt_min = {dt_min} and dt_max = {dt_max}; they need 0 < dt_min <= dt_max, finite.")
    if n_blocks != 1 and name != "s5":
        raise ParameterError(f"n_blocks is {n_blocks}, but {name!r} has no blocks; leave it out or use 's5'.")
    if name == "s5":
        return _s5(n_channels, n_state, n_blocks, dt_min, dt_max, seed)

    M = n_state // 2
    C = np.empty((n_channels, M), np.complex128)
    dt = np.empty(n_channels)
    for channel, stream in enumerate(np.random.SeedSequence(seed).spawn(n_channels)):
        random = np.random.default_rng(stream)
        dt[channel] = _log_uniform(random, dt_min, dt_max, 1)[0]
        C[channel] = _complex_normal(random, (M,))

    if name in ("legs", "fout", "legs/fout"):
        forms = [diagonalise(measure, n_state) for measure in name.split("/")]
        first = n_channels if len(forms) == 1 else (n_channels + 1) // 2
        per_channel = [forms[0] if channel < first else forms[-1] for channel in range(n_channels)]
        return _dplr(per_channel, C, dt)
    Lambda = np.tile(_diagonal_modes(name, n_state), (n_channels, 1))
    return ContinuousSystem(Lambda, np.ones_like(C), C, dt)


def _whole(name: str, value: int, least: int, meaning: str) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ParameterError(f"{name} is {value!r}; it must be a whole number.")
    if value < least:
        raise ParameterError(f"{name} is {value}; the least is {least} ({meaning}).")
    return int(value)


def _log_uniform(random: np.random.Generator, low: float, high: float, count: int) -> Array:
    drawn = np.exp(random.uniform(np.log(low), np.log(high), count))
    # exp(log(low)) may round to just below low.
    return np.asarray(np.clip(drawn, low, high))


def _complex_normal(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    parts = random.normal(scale=np.sqrt(0.5), size=(2, *shape))
    return np.asarray(parts[0] + 1j * parts[1])


def _lecun_normal(random: np.random.Generator, shape: tuple[int, int]) -> Array:
    """Normal cut at two standard deviations, variance 1/shape[0] after the cut."""
    drawn = random.normal(size=shape)
    while len(outside := np.argwhere(np.abs(drawn) > 2)):
        drawn[tuple(outside.T)] = random.normal(size=len(outside))
    # Standard deviation of a standard normal cut at ±2: sqrt(1 - 4 pdf(2)/(2 cdf(2) - 1)).
    return np.asarray(drawn / (0.87962566103423978 * np.sqrt(shape[0])))


def _dplr(forms: list[NormalPlusLowRank], C: Array, dt: Array) -> ContinuousSystem:
    Lambda, P, B = (np.stack([getattr(form, part) for form in forms]) for part in ("Lambda", "P", "B"))
    return ContinuousSystem(Lambda, B, C, dt, P[None])


def _diagonal_modes(name: str, n_state: int) -> Array:
    n = np.arange(n_state // 2)
    if name == "s4d-lin":
        return np.asarray(-0.5 + 1j * (np.pi * n))
    if name == "s4d-inv":
        # N/(2n+1) - 1 would cancel for the last modes.
        return np.asarray(-0.5 + 1j * (n_state * (n_state - 2 * n - 1) / (2 * n + 1) / np.pi))
    return diagonalise("legs", n_state).Lambda


def _s5(n_channels: int, n_state: int, n_blocks: int, dt_min: float, dt_max: float, seed: int) -> ContinuousSystem:
    size, rest = divmod(n_state, n_blocks)
    if rest or size < 2:
        raise ParameterError(
            f"n_state is {n_state} and n_blocks is {n_blocks}; s5 needs n_state to be a multiple of n_blocks, "
            "with blocks of at least 2."
        )
    form = diagonalise("legs", size)
    steps, inputs, outputs = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(3))
    real_B = _lecun_normal(inputs, (n_state, n_channels)).reshape(n_blocks, size, n_channels)
    B = (form.V.conj().T @ real_B).reshape(-1, n_channels)
    M = B.shape[0]
    return ContinuousSystem(
        np.tile(form.Lambda, n_blocks),
        B,
        _complex_normal(outputs, (n_channels, M)),
        _log_uniform(steps, dt_min, dt_max, M),
    )
