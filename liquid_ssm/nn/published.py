"""`from_published`: the parameters of the published S4 and S4D layers as an `SSMLayer`."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ..continuous import ContinuousSystem
from ..errors import DTypeError, ParameterError, ShapeError, require_whole, unknown_name
from .layer import SSMLayer
from .state_files import read_state_dict

# Names of Re and Im of the diagonal by version, and the sign of the second: λ = −decay + sign·i·frequency.
_DIAGONALS = {
    "log_w_real": ("w_imag", 1),
    "inv_w_real": ("w_imag", 1),
    "inv_A_real": ("A_imag", 1),
    "log_A_real": ("A_imag", 1),
    "A_real": ("A_imag", -1),
}
# The minimal S4D, where B is 1, and the S4D of version 2, whose C is the product of C and B.
_WITHOUT_B = ("log_A_real", "log_w_real")
_STEPS = ("log_dt", "inv_dt")
_LENGTHS = ("L", "l_kernel")
# z is a function of omega alone.
_KERNEL = (*_DIAGONALS, "w_imag", "A_imag", "A", *_STEPS, "B", "C", "P", *_LENGTHS, "omega", "z")

# log of what the published code makes of a stored real number.  `relu` differs between its versions.
_LOGARITHMS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "exp": lambda x: x,
    "none": torch.log,
    "sigmoid": lambda x: -torch.nn.functional.softplus(-x),
    "softplus": lambda x: torch.log(torch.nn.functional.softplus(x)),
}

# Options of `SSMLayer` that the arrays decide.
_DECIDED = (
    "n_channels", "n_state", "structure", "init", "reverse_lag", "dt_min", "dt_max", "n_blocks", "seed",
)  # fmt: skip


def from_published(
    source: Mapping[str, Any] | str | Path,
    *,
    prefix: str = "",
    mode: str = "s4",
    discretization: str | None = None,
    kernel_length: int | None = None,
    real_transform: str = "exp",
    dt_transform: str = "exp",
    ignore: Collection[str] = (),
    feedthrough: bool = True,
    bidirectional: bool | None = None,
    **options: Any,
) -> SSMLayer:
    """The layer with the parameters of a published S4 or S4D layer, whose kernel it has:  K_i = 2 Re(C Āⁱ B̄).

    Logarithms are copied as they are stored, so that no rounding comes in between.  A C that holds the length
    correction, C̃ = Cᵀ(I − Ā^L), is freed of it: K is then the published kernel for every length, and of i < L to the
    last parameter, trained or not.  H systems that share n_ssm < H sets of Λ, B and P get one copy each, channel h set
    h mod n_ssm; they train apart from here on.

    A bidirectional layer, whose C has two channels, becomes one with `reverse_lag` 1: the published kernel
    pad(K⁰, (0, L)) + pad(flip(K¹), (L, 0)), convolved by transforms of 2L, has K¹_i at the lag −1 − i, so that
    y_k = Σ_{j ≤ k} K⁰_{k−j} u_j + Σ_{j > k} K¹_{j−k−1} u_j + D u_k.

    Args:
        source: arrays or tensors by name, or a file of them: `.safetensors`, `.npz`, or `.pt`, `.pth` with a plain
            state dict, read without running any code that it holds.
        prefix: what the names of one layer begin with, up to its `D` and its `kernel.`; such as `layers.0.layer.`.
        mode: of the layer, any that `SSMLayer` has.  With another than `s4` the parameters are a start for training.
        discretization: `bilinear` or `zoh`.  It can be left out for S4 (always bilinear) and for names of the minimal
            S4D (`log_A_real`, always zoh); otherwise arrays do not tell.
        kernel_length: L of the length correction where the arrays do not tell; 0 where there was none.
        real_transform, dt_transform: what the published options of that name were (`real_type` in older versions):
            `exp`, `none`, `sigmoid` or `softplus`.
        ignore: arrays that are no part of y = K * u + D u, by name or by the part before a dot: `("output_linear",)`.
        feedthrough: False for K alone, without D.
        bidirectional: what the published option of that name was, needed only where C has two channels and no D tells
            whether they are two directions or two outputs.
        options: further options of `SSMLayer`: `backend`, `frozen`, `order`, …

    Returns:
        SSMLayer: in float64 if any array is, else in float32.

    Raises:
        ParameterError: arrays that are missing, that would change the function in a way that a layer has not
            (several output channels, untied step sizes), or that nothing is known about; an option that contradicts
            the arrays; a source of another type; a file that is missing or cannot be read.
        ShapeError, DTypeError: arrays that do not fit each other.
        BackendUnavailable: a `.safetensors` file without the package safetensors.

    Accuracy: parameters are exact for `exp` in the dtype of the arrays, else within a few roundings.  Removing the
        length correction is done in float64: ‖ΔC‖₂ ≲ 2⁻⁵³ N L κ(I − δt/2 A) ‖(I − Ā^L)⁻¹‖₂ ‖C‖₂ to first order:
        ‖Ā‖₂ ≤ 1, so that Ā^L multiplies an error of Ā by at most L.

    Source: names, shapes and conventions as in the repositories state-spaces/s4 (versions 1 to 4, the standalone
        files) and raminmh/liquid-s4; C̃ is that of Algorithm 1.
    """
    decided = [name for name in options if name in _DECIDED]
    if decided:
        raise ParameterError(f"{', '.join(decided)}: decided by the arrays; leave it out.")
    if isinstance(ignore, str):
        raise ParameterError(f"ignore is the string {ignore!r}; it is a tuple of names: ignore=({ignore!r},).")
    arrays = _one_layer(read_state_dict(source), prefix, ignore, feedthrough)
    directions = _output_vectors(arrays, bidirectional)
    if not feedthrough:
        arrays.pop("D", None)
    found = _parameters(arrays, directions, real_transform, dt_transform)
    dtype = torch.float64 if any(a.dtype == torch.float64 for a in arrays.values()) else torch.float32
    discretization = _discretization(discretization, arrays)
    system = found.system()
    if (length := _length(kernel_length, arrays)) > 0:
        freed = [_without_length_correction(system, C, length) for C in directions]
        found = found._replace(C=freed[0], C_reverse=freed[1] if len(freed) > 1 else None)
    D = _feedthrough(arrays["D"], system.n_channels) if feedthrough else None
    layer = SSMLayer(
        system.n_channels,
        system.n_state,
        mode=mode,
        init=system,
        discretization=discretization,
        feedthrough=feedthrough,
        bidirectional=found.C_reverse is not None,
        reverse_lag=0 if found.C_reverse is None else 1,
        seed=0,
        **options,
    ).to(dtype)
    with torch.no_grad():
        held = dict(layer.named_parameters())
        for name, value in found._asdict().items():
            if value is not None:
                held[f"continuous.{name}"].copy_(value)
        if D is not None:
            held["D"].copy_(D)
    return layer


class _Parameters(NamedTuple):
    """As `ContinuousParameters` has them, in float64."""

    log_decay: torch.Tensor
    frequency: torch.Tensor
    log_dt: torch.Tensor
    B: torch.Tensor
    P: torch.Tensor | None
    C: torch.Tensor
    C_reverse: torch.Tensor | None

    def system(self) -> ContinuousSystem:
        B, C, P = (None if x is None else torch.view_as_complex(x).numpy() for x in (self.B, self.C, self.P))
        Lambda = torch.complex(-self.log_decay.exp(), self.frequency).numpy()
        return ContinuousSystem(Lambda, B, C, self.log_dt.exp().numpy(), P)


def _one_layer(
    source: Mapping[str, Any], prefix: str, ignore: Collection[str], feedthrough: bool
) -> dict[str, torch.Tensor]:
    """The arrays of the layer under their last names, after all that is there has been accounted for."""
    arrays: dict[str, torch.Tensor] = {}
    unknown: list[str] = []
    passed: set[str] = set()
    needed: set[str] = set()
    for full in source:
        if not isinstance(full, str):
            raise ParameterError(f"source has the name {full!r}; arrays go by names, as in a state_dict.")
        if not full.startswith(prefix):
            continue
        name = full[len(prefix) :]
        last = name.removeprefix("kernel.").removeprefix("kernel.")
        kernel, known = last in _KERNEL, last in _KERNEL or name == "D"
        matching = {entry for entry in ignore if name == entry or name.startswith(f"{entry}.")}
        if kernel:
            needed |= matching
        else:
            passed |= matching
            if matching:
                continue
        if not known:
            unknown.append(name)
        elif last in arrays:
            raise ParameterError(f"{last} is there twice under prefix {prefix!r}; make the prefix longer.")
        else:
            arrays[last] = _tensor(full, source[full])
    if "C" not in arrays and arrays.keys() - {"D"}:
        raise ParameterError(
            f"C is missing under prefix {prefix!r}, beside {', '.join(sorted(arrays))}; take the file as it was saved."
        )
    if "C" not in arrays:
        raise ParameterError(f"no kernel under prefix {prefix!r}: C is missing. {_where(source)}")
    if unknown:
        raise ParameterError(
            f"not known: {', '.join(sorted(unknown))}. An array that is left out may change what the layer computes. "
            "If it only works on y = K * u + D u, give its name, or the part before a dot, in ignore: "
            "ignore=('output_linear',)."
        )
    for entry in ignore:
        if entry in needed - passed:
            raise ParameterError(f"ignore has {entry!r}, but the kernel consists of these arrays; leave it out.")
        if entry not in passed:
            raise ParameterError(f"ignore has {entry!r}, which nothing under prefix {prefix!r} is called.")
    if feedthrough and "D" not in arrays:
        raise ParameterError(
            f"D is missing under prefix {prefix!r}: it stands beside the kernel. Shorten the prefix, or pass "
            "feedthrough=False for a layer without it."
        )
    return arrays


def _tensor(name: str, value: Any) -> torch.Tensor:
    if not isinstance(value, torch.Tensor):
        array = np.asarray(value)
        if array.dtype.kind not in "fciu":
            raise DTypeError(f"{name} has dtype {array.dtype}; parameters are numbers. Check the file.")
        value = torch.tensor(array)
    tensor: torch.Tensor = value.detach().cpu()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    if not tensor.is_floating_point() and name.rpartition(".")[2] not in _LENGTHS:
        raise DTypeError(f"{name} has dtype {tensor.dtype}; parameters are floating point. Check the file.")
    if name.rpartition(".")[2] not in _LENGTHS and not bool(torch.isfinite(tensor).all()):
        raise ParameterError(f"{name} holds NaN or infinite values; take a file from before training diverged.")
    return tensor


def _where(source: Mapping[str, Any]) -> str:
    layers = [name[:-1].removesuffix("kernel.").removesuffix("kernel.") for name in source if _is_output(name)]
    if layers:
        return f"There are kernels under: {', '.join(map(repr, layers))}. Give one of them as prefix."
    if isinstance(source.get("state_dict"), Mapping):
        return "This is a whole checkpoint: pass what it has as 'state_dict'."
    return f"There is none under any prefix; the first names are: {', '.join(list(source)[:5]) or 'none'}."


def _is_output(name: str) -> bool:
    return name == "C" or name.endswith(".C")


def _parameters(
    arrays: dict[str, torch.Tensor], directions: list[torch.Tensor], real_transform: str, dt_transform: str
) -> _Parameters:
    real, imaginary, sign = _diagonal_names(arrays)
    steps = _only_one(_STEPS, arrays, "the step sizes")
    H, M = directions[0].shape[:2]
    dt = arrays[steps]
    if dt.ndim == 2 and dt.shape[1] > 1:
        raise ParameterError(
            f"{steps} has shape {tuple(dt.shape)}: a step size for each mode (dt_tie=False); an SSMLayer has one for "
            "each channel."
        )
    if tuple(dt.shape) not in ((H,), (H, 1)):
        raise ShapeError(f"{steps} has shape {tuple(dt.shape)}; with C for {H} channels it is ({H},) or ({H}, 1).")
    decay = arrays[real]
    S = decay.shape[0] if decay.ndim == 2 else 0
    if S == 0 or H % S or decay.shape[1] != M:
        raise ShapeError(
            f"{real} has shape {tuple(decay.shape)}; with C for {H} channels and {M} modes it is (n_ssm, {M}), n_ssm a "
            f"divisor of {H}."
        )
    wanted = {imaginary: ((S, M),), "B": ((S, M, 2), (1, S, M, 2))}
    for name, shapes in wanted.items():
        if name in arrays and tuple(arrays[name].shape) not in shapes:
            raise ShapeError(
                f"{name} has shape {tuple(arrays[name].shape)}; with {real} of {(S, M)} it is "
                f"{' or '.join(map(str, shapes))}."
            )
    P = arrays.get("P")
    if P is not None and (P.ndim != 4 or tuple(P.shape[1:]) != (S, M, 2) or P.shape[0] == 0):
        raise ShapeError(f"P has shape {tuple(P.shape)}; with {real} of {(S, M)} it is (rank, {S}, {M}, 2).")
    if P is not None and "B" not in arrays:
        raise ParameterError("B is missing: S4, which has a low-rank part P, always has it.")
    if "B" not in arrays and real not in _WITHOUT_B:
        raise ParameterError(
            f"B is missing: a published layer with {real} has it. Only the S4D with log_A_real (or log_w_real, which "
            "has B in C) has none. Check the file; where B is 1, put it in: ones and zeros of shape "
            f"{(S, M, 2)}."
        )

    def each_channel(x: torch.Tensor, axis: int = 0) -> torch.Tensor:
        # Channel h has set h mod S.
        return torch.cat([x.double()] * (H // S), axis)

    B = arrays["B"].reshape(S, M, 2) if "B" in arrays else torch.tensor([1.0, 0.0]).expand(S, M, 2)
    return _Parameters(
        log_decay=each_channel(_logarithm(real, decay, "real_transform", real_transform)),
        frequency=each_channel(sign * arrays[imaginary]),
        log_dt=_logarithm(steps, dt.reshape(H), "dt_transform", dt_transform).double(),
        B=each_channel(B),
        P=None if P is None else each_channel(P, 1),
        C=directions[0],
        C_reverse=directions[1] if len(directions) > 1 else None,
    )


def _diagonal_names(arrays: Mapping[str, torch.Tensor]) -> tuple[str, str, int]:
    real = _only_one(tuple(_DIAGONALS), arrays, "the real part of the diagonal")
    imaginary, sign = _DIAGONALS[real]
    if imaginary not in arrays:
        raise ParameterError(
            f"{imaginary} is missing, which goes with {real}. A real-valued system (is_real=True) has none, and an "
            "SSMLayer has conjugate pairs."
        )
    other = {"w_imag", "A_imag"} - {imaginary}
    if other & set(arrays):
        raise ParameterError(f"{', '.join(other)} does not go with {real}: names of two versions. Check the prefix.")
    # Some versions of S4D also register the initial diagonal as A, and read it nowhere.
    if "A" in arrays and real != "inv_A_real":
        raise ParameterError("A, a full or complex matrix, is not read here beside " + real + "; check the prefix.")
    return real, imaginary, sign


def _output_vectors(arrays: Mapping[str, torch.Tensor], bidirectional: bool | None) -> list[torch.Tensor]:
    """C (H, M, 2) of each direction."""
    C = arrays["C"]
    if C.ndim == 3:
        C = C[None]
    if C.ndim != 4 or C.shape[-1] != 2 or 0 in C.shape:
        raise ShapeError(
            f"C has shape {tuple(arrays['C'].shape)}; it is (1, H, N/2, 2) or (H, N/2, 2), bidirectional "
            "(2, H, N/2, 2), real and imaginary parts last."
        )
    channels, D = len(C), arrays.get("D")
    if D is not None:
        outputs = len(D) if D.ndim == 2 else 1
        told = {outputs: False, 2 * outputs: True}.get(channels)
        if told is not None and bidirectional not in (None, told):
            raise ParameterError(
                f"bidirectional is {bidirectional}, but C has {channels} channels and D {outputs}; leave it out."
            )
        bidirectional = told
    elif channels == 2 and bidirectional is None:
        raise ParameterError(
            "C has 2 channels, and there is no D to tell whether they are two directions or two outputs. Pass "
            "bidirectional=True, or of two outputs one alone: C[i : i + 1]."
        )
    if channels != (2 if bidirectional else 1):
        if bidirectional and channels == 1:
            raise ParameterError("bidirectional is True, but C has one channel: one direction. Leave it out.")
        take = f"C[[i, i + {channels // 2}]]" if bidirectional else "C[i : i + 1]"
        raise ParameterError(
            f"C has {channels} channels, several outputs for each input, of which an SSMLayer has one. To take one "
            f"alone, pass {take}, and its D[i : i + 1]."
        )
    return [part.double().contiguous() for part in C]


def _only_one(names: tuple[str, ...], arrays: Mapping[str, torch.Tensor], what: str) -> str:
    there = [name for name in names if name in arrays]
    if len(there) == 1:
        return there[0]
    raise ParameterError(
        f"{what} {'is missing' if not there else 'is there under two names: ' + ', '.join(there)}; it is one of: "
        f"{', '.join(names)}. There is: {', '.join(sorted(arrays))}."
    )


def _logarithm(name: str, values: torch.Tensor, option: str, transform: str) -> torch.Tensor:
    if transform not in _LOGARITHMS:
        raise unknown_name(option, transform, _LOGARITHMS)
    if name.startswith("log_") and transform != "exp":
        raise ParameterError(f"{option} is {transform!r}, but {name} is a logarithm: leave the option out.")
    if transform == "none" and (values <= 0).any():
        raise ParameterError(
            f"{name} holds {values.min().item():.6g}, but {option} is 'none': stored numbers are taken as they are for "
            f"{'-Re λ' if option == 'real_transform' else 'dt'}, which is > 0. Leave the option out if they are "
            "logarithms ('exp'), or pass what the published option of that name was."
        )
    return _LOGARITHMS[transform](values.double())


def _discretization(given: str | None, arrays: Mapping[str, torch.Tensor]) -> str:
    if given not in (None, "bilinear", "zoh"):
        raise unknown_name("discretization", given, ("bilinear", "zoh"))
    only = "bilinear" if "P" in arrays else "zoh" if "log_A_real" in arrays else None
    if given is None and only is None:
        raise ParameterError(
            "discretization is missing: arrays of S4D do not tell which of bilinear and zoh the option disc was. Its "
            "default is 'zoh' in version 4 (A_real), 'bilinear' before (inv_A_real, log_w_real)."
        )
    if given is not None and only is not None and given != only:
        raise ParameterError(f"discretization is {given!r}, but the published layer of these names is always {only}.")
    return given or str(only)


def _length(given: int | None, arrays: Mapping[str, torch.Tensor]) -> int:
    """L of the length correction in C; 0 for none."""
    there = [name for name in _LENGTHS if name in arrays]
    if "P" not in arrays:
        if given or there or "omega" in arrays:
            raise ParameterError(
                "a kernel length belongs to S4, which has a low-rank part P. Either P is missing, or the arrays are of "
                "S4D: then leave kernel_length out."
            )
        return 0
    found = None
    if there:
        buffer = arrays[there[0]]
        if buffer.numel() != 1 or not (0 <= buffer.item() < math.inf) or buffer.item() != int(buffer.item()):
            raise ParameterError(f"{there[0]} is {buffer.tolist()}; a kernel length is one whole number, at least 0.")
        found = int(buffer.item())
    elif "omega" in arrays:
        found = _length_of_nodes(arrays["omega"])
    if given is not None:
        require_whole("kernel_length", given, 0)
        if found not in (None, given):
            raise ParameterError(f"kernel_length is {given}, but the arrays say {found}; leave it out.")
    if given is None and found is None:
        raise ParameterError(
            f"the kernel length is missing ({', '.join(_LENGTHS)} or omega): without it the length correction in C "
            "cannot be undone. Pass kernel_length, the l_max of the layer, or 0 if the layer was never run."
        )
    return (found or 0) if given is None else given


def _length_of_nodes(omega: torch.Tensor) -> int:
    """L of the nodes exp(−2πi k/L), k = 0 … L/2, that version 1 stores."""
    if omega.ndim == 2 and omega.shape[1] == 2 and len(omega) > 1:
        re, im = omega[1].tolist()
        angle = math.atan2(-im, re)
        length = round(2 * math.pi / angle) if angle > 0 else 0
        if length // 2 + 1 == len(omega):
            return length
    raise ParameterError("omega does not hold nodes exp(-2 pi i k/L), k = 0 to L/2; pass kernel_length.")


def _without_length_correction(system: ContinuousSystem, C_tilde: torch.Tensor, length: int) -> torch.Tensor:
    """C (H, M, 2) from C̃ᵀ = Cᵀ(I − Ā^L), over both halves of every conjugate pair."""
    A, _, corrected = replace(system, C=torch.view_as_complex(C_tilde).numpy()).full_matrices()
    unit = np.eye(A.shape[-1])
    C = np.empty_like(system.C)
    # A channel at a time: the matrices of all of them can be larger than the layer by far.
    for h, dt in enumerate(system.dt):
        half = dt / 2 * A[h]
        A_bar = np.linalg.solve(unit - half, unit + half)
        inverse = np.linalg.solve((unit - np.linalg.matrix_power(A_bar, length)).T, corrected[h])
        C[h] = inverse[: system.n_modes]
    return torch.view_as_real(torch.from_numpy(C))


def _feedthrough(D: torch.Tensor, H: int) -> torch.Tensor:
    if tuple(D.shape) not in ((H,), (1, H)):
        raise ShapeError(f"D has shape {tuple(D.shape)}; with C for {H} channels it is ({H},) or (1, {H}).")
    return D.reshape(H)
