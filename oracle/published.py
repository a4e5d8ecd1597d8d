"""What the authors' published Liquid-S4 layer computes; none of the modes of Eq. 11 to 15, and not causal.

Kept so that the difference can be seen and the published setting reproduced; nothing else builds on it. Options have
the names they have there: `liquid_kernel` (`polyb` is PB), `allcombs`. The page docs/published-code.md goes through
the formulas and compares them with Eq. 11.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

LIQUID_KERNELS = ("polyb", "kb")


@dataclass(frozen=True, eq=False)
class Layer:
    """The arrays of one layer, checked; one of each conjugate pair, M = N/2, while sums run over both halves.

    Attributes:
        w: eigenvalues of the normal part of A, (H, M) complex [1/time].
        B: input vectors, (H, M) complex.
        C: output vectors as the layer holds them, (H, M) complex. The liquid term of `polyb` uses C; the kernel and
            `step` use its conjugate C*.
        dt: step sizes > 0, (H,) [time].
        D: feed-through, (H,).
        kernel: K, (H, L); in the published layer the bilinear kernel of (A, B, C*).
        P: low-rank part, A = diag(w) − Σ_r P_r P_r*, (R, H, M) complex; None for a diagonal A. Only `step` uses it.

    Raises:
        ValueError: a shape that does not fit, a value that is not finite, or dt <= 0.
    """

    w: Array
    B: Array
    C: Array
    dt: Array
    D: Array
    kernel: Array
    P: Array | None = None

    def __post_init__(self) -> None:
        w, kernel = _numbers("w", self.w, 2), _numbers("kernel", self.kernel, 2, real=True)
        P = np.zeros((0, *w.shape)) if self.P is None else self.P
        checked = {
            "w": w,
            "B": _numbers("B", self.B, 2),
            "C": _numbers("C", self.C, 2),
            "dt": _numbers("dt", self.dt, 1, real=True),
            "D": _numbers("D", self.D, 1, real=True),
            "kernel": kernel,
            "P": _numbers("P", P, 3),
        }
        n_channels, length = kernel.shape
        shapes = {"w": (n_channels, w.shape[1]), "B": w.shape, "C": w.shape, "dt": (n_channels,), "D": (n_channels,)}
        shapes["P"] = (len(checked["P"]), *w.shape)
        for name, shape in shapes.items():
            if checked[name].shape != shape:
                raise ValueError(
                    f"{name} has shape {checked[name].shape}; beside kernel {kernel.shape} and w {w.shape} it must be "
                    f"{shape}: (H, M) for w, B and C, (H,) for dt and D, (R, H, M) for P."
                )
        if length < 1:
            raise ValueError(f"kernel has shape {kernel.shape}; give at least one sample.")
        if not (checked["dt"] > 0).all():
            raise ValueError(f"dt is {checked['dt'].min()} in one channel; step sizes are positive.")
        if (checked["dt"][:, None] / 2 * w == 1).any():
            raise ValueError("w is 2/dt in one mode, where the bilinear step divides by zero; give w with Re w < 0.")
        for name, array in checked.items():
            object.__setattr__(self, name, array)

    @property
    def B_bar(self) -> Array:
        """B̄_n = δt B_n / (1 − ½ δt w_n), both halves, (H, N): bilinear (Eq. 3) without the low-rank part."""
        dt = self.dt[:, None]
        return _both_halves(dt * self.B / (1 - dt / 2 * self.w))


def combined_inputs(p: int, length: int) -> int:
    """How many of the newest inputs `allcombs=True` combines: the least m ≥ 2 with binom(m, p) ≥ L.

    Args:
        p: inputs per product, at least 2.
        length: L, at least p + 3: below that the published search finds no m and the code stops with an error.

    Returns:
        int: m, which grows only like (p! L)^{1/p}; earlier inputs are in no product.

    Raises:
        ValueError: p < 2 or L < p + 3.
    """
    _check_order("p", p)
    if length < p + 3:
        raise ValueError(
            f"L is {length}; products of {p} inputs with allcombs=True need L >= {p + 3}, in the published code too. "
            "Give a longer signal or allcombs=False."
        )
    return next(m for m in range(2, length) if comb(m, p) >= length)


def correlation(u: npt.ArrayLike, p: int, allcombs: bool) -> Array:
    """The products c^{(p)} of inputs, L of them.

    allcombs=True: of all combinations of p indices, in lexicographic order, the last L; c_j is the product over the
    j-th. They come from the newest m inputs (`combined_inputs`), and the place j does not say when.
    allcombs=False: c^{(1)} = u, c^{(p)}_k = c^{(p−1)}_k c^{(p−1)}_{k−1}, zero before the start. In closed form
    c^{(p)}_k = Π_j u_{k−j}^{binom(p−1, j)}: u_k u²_{k−1} u_{k−2} for p = 3, of degree 2^{p−1} instead of p.

    Args:
        u: real inputs, (batch, H, L).
        p: which order, at least 2.
        allcombs: which of the two.

    Returns:
        Array: float64, (batch, H, L).

    Raises:
        ValueError: p < 2, with allcombs=True L < p + 3, or a bad u.

    Accuracy: p − 1 rounded products per entry, 2^{p−1} − 1 for allcombs=False.
    """
    u = _numbers("u", u, 3, real=True)
    _check_order("p", p)
    length = u.shape[-1]
    if allcombs:
        newest = range(length - combined_inputs(p, length), length)
        indices = np.array(list(combinations(newest, p))[-length:])
        return np.asarray(np.prod(u[..., indices], axis=-1))
    product = u
    for _ in range(p - 1):
        previous = np.zeros_like(product)
        previous[..., 1:] = product[..., :-1]
        product = product * previous
    return product


@np.errstate(over="ignore", invalid="ignore")
def polyb_term(layer: Layer, u: npt.ArrayLike, *, order: int, allcombs: bool) -> Array:
    """The liquid term of `liquid_kernel="polyb"`: Σ_{p=2}^P (Σ_n C_n β^{(p)}_n) c^{(p)}_{L−1−k}.

    β^{(1)} = B̄ and β^{(p)} = β^{(p−1)} Σ_n β^{(p−1)}_n; in closed form β^{(p)} = S^{2^{p−1}−1} B̄ with S = Σ_n B̄_n,
    where Eq. 15 has B̄^{∘p}. The products run backwards in time and are not summed.

    Args:
        layer: its C, w, B and dt are used.
        u: real inputs, (batch, H, L).
        order: highest order P >= 2.
        allcombs: which products, see `correlation`.

    Returns:
        Array: float64, (batch, H, L).

    Raises:
        ValueError: a bad order or u, or what `correlation` raises.
        OverflowError: the result leaves the range of float64.

    Accuracy: rounding errors of float64; the published code computes in float32.

    References: stands for Eq. 15 of arXiv 2209.12951.
    """
    u, C, beta = _signal(layer, u), _both_halves(layer.C), layer.B_bar
    _check_order("order", order)
    term = np.zeros_like(u)
    for p in range(2, order + 1):
        beta = beta * beta.sum(-1, keepdims=True)
        gain = (C * beta).sum(-1).real
        term += gain[:, None] * correlation(u, p, allcombs)[..., ::-1]
    return _in_range(term)


@np.errstate(over="ignore", invalid="ignore")
def kb_term(layer: Layer, u: npt.ArrayLike, *, order: int, allcombs: bool) -> Array:
    """The liquid term of `liquid_kernel="kb"`: irfft_{2L} of Σ_{p=2}^P rfft_{2L}(c^{(p)}_{L−1−k}) fft_{L+1}(κ^{(p)}).

    κ^{(1)} = K, κ^{(p)} = S κ^{(p−1)}, S = Σ_n B̄_n, where Eq. 14 has the kernel C Āⁱ B̄^{∘p}. Bin j of the first
    transform belongs to the frequency 2πj/(2L), of the second to 2πj/(L+1): multiplied bin by bin, they are no
    convolution. The first L samples of the result are kept.

    Args:
        layer: its kernel, w, B and dt are used.
        u: real inputs, (batch, H, L).
        order: highest order P >= 2.
        allcombs: which products, see `correlation`.

    Returns:
        Array: float64, (batch, H, L).

    Raises:
        ValueError: a bad order or u, or what `correlation` raises.
        OverflowError: the result leaves the range of float64.

    Accuracy: rounding errors of float64; the published code computes in float32.

    References: stands for Eq. 14 of arXiv 2209.12951.
    """
    u, kappa, length = _signal(layer, u), layer.kernel, layer.kernel.shape[1]
    _check_order("order", order)
    S = layer.B_bar.sum(-1).real
    spectrum = np.zeros((*u.shape[:-1], length + 1), np.complex128)
    for p in range(2, order + 1):
        kappa = S[:, None] * kappa
        products = correlation(u, p, allcombs)[..., ::-1]
        spectrum += np.fft.rfft(products, 2 * length) * np.fft.fft(kappa, length + 1)
    return _in_range(np.fft.irfft(spectrum, 2 * length)[..., :length])


@np.errstate(over="ignore", invalid="ignore")
def outputs(layer: Layer, u: npt.ArrayLike, *, order: int, liquid_kernel: str, allcombs: bool) -> Array:
    """The parallel pass of the layer, before its activation: y = K ∗ u + D u + the liquid term.

    Args:
        layer: everything but P is used.
        u: real inputs, (batch, H, L).
        order: highest order P >= 2.
        liquid_kernel: `polyb` or `kb`.
        allcombs: which products, see `correlation`.

    Returns:
        Array: float64, (batch, H, L). y_0 depends on u_{L−1} with either kernel.

    Raises:
        ValueError: an unknown liquid_kernel, a bad order or u, or what `correlation` raises.
        OverflowError: the result leaves the range of float64.

    Accuracy: rounding errors of float64. The 32 recorded cases of the published code, which computes in float32,
    agree to 5e-5 of their largest liquid part.
    """
    if liquid_kernel not in LIQUID_KERNELS:
        raise ValueError(f"liquid_kernel is {liquid_kernel!r}; allowed: {', '.join(LIQUID_KERNELS)}.")
    u = _signal(layer, u)
    y = (polyb_term if liquid_kernel == "polyb" else kb_term)(layer, u, order=order, allcombs=allcombs)
    y += layer.D[:, None] * u
    # Direct sums, not an FFT: an input that enters no sum changes no bit of it.
    for b, h in np.ndindex(u.shape[:2]):
        y[b, h] += np.convolve(layer.kernel[h], u[b, h])[: u.shape[2]]
    return _in_range(y)


def step(layer: Layer, u_k: npt.ArrayLike, state: npt.ArrayLike | None = None) -> tuple[Array, Array]:
    """The layer's recurrent mode: x_k = Ā x_{k−1} + B̄ u_k, y_k = C* x_k + D u_k, without any liquid term.

    (I − δt/2 A) x_k = (I + δt/2 A) x_{k−1} + δt B u_k, here with the low-rank part of A.

    Args:
        layer: everything but the kernel is used.
        u_k: one real input per channel, (batch, H).
        state: x_{k−1}, (batch, H, N) complex, both halves; None for rest.

    Returns:
        (y_k, x_k): (batch, H) and (batch, H, N).

    Raises:
        ValueError: a shape that does not fit or a value that is not finite.
        numpy.linalg.LinAlgError: I − δt/2 A is singular, which it never is for a stable A.

    Accuracy: rounding errors of float64.

    References: Eq. 2 and 3 of arXiv 2209.12951. The step of its Appendix E, with liquid terms, is not in that code.
    """
    w, B, C = (_both_halves(v) for v in (layer.w, layer.B, layer.C))
    n_channels, size = w.shape
    u_k = _numbers("u_k", u_k, 2, real=True)
    x = np.zeros((len(u_k), *w.shape), np.complex128) if state is None else _numbers("state", state, 3)
    if u_k.shape[1] != n_channels or x.shape != (len(u_k), n_channels, size):
        raise ValueError(
            f"u_k has shape {u_k.shape} and state {x.shape}; they must be (batch, {n_channels}) and "
            f"(batch, {n_channels}, {size}) with the same batch."
        )
    A = w[:, :, None] * np.eye(size)
    for P_r in _both_halves(np.asarray(layer.P)):
        A -= P_r[:, :, None] * P_r[:, None, :].conj()
    half = layer.dt[:, None] / 2
    forward = x + half * (A @ x[..., None])[..., 0] + 2 * half * B * u_k[..., None]
    x = np.linalg.solve(np.eye(size) - half[..., None] * A, forward[..., None])[..., 0]
    return (C.conj() * x).sum(-1).real + layer.D * u_k, x


def _numbers(name: str, value: npt.ArrayLike, ndim: int, *, real: bool = False) -> Array:
    array = np.asarray(value)
    if array.dtype.kind not in ("fiu" if real else "fiuc"):
        raise ValueError(f"{name} has dtype {array.dtype}; give {'real' if real else 'real or complex'} numbers.")
    if array.ndim != ndim:
        raise ValueError(f"{name} has shape {array.shape}; it must have {ndim} dimension(s).")
    if not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(f"{name} is {array[where]} at index {where}; give finite numbers.")
    return array.astype(np.float64 if real else np.complex128)


def _signal(layer: Layer, u: npt.ArrayLike) -> Array:
    array = _numbers("u", u, 3, real=True)
    if array.shape[1:] != layer.kernel.shape:
        H, L = layer.kernel.shape
        raise ValueError(f"u has shape {array.shape}; it must be (batch, {H}, {L}), as long as the kernel.")
    return array


def _in_range(values: Array) -> Array:
    if not np.isfinite(values).all():
        raise OverflowError("the published layer leaves the range of float64 on this input; scale u or the order down.")
    return values


def _check_order(name: str, order: int) -> None:
    if not isinstance(order, int | np.integer) or order < 2:
        raise ValueError(f"{name} is {order!r}; it must be a whole number, at least 2 (1 is the linear term).")


def _both_halves(v: Array) -> Array:
    return np.concatenate([v, v.conj()], axis=-1)
