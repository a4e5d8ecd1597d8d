"""Causal convolution by the fast Fourier transform and as the direct sum, and their gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn.functional import pad

from .._fft_convolution import power_of_two
from .._pieces import pieces

# Memory of the temporaries of one piece.
PIECE_BYTES = 2**28

# Elements of the products that the direct sum forms at once.
BLOCK_ELEMENTS = 2**24
# Lags that are worked on at once where it is not known how many numbers these are.
OPEN_LAGS = 16


def fft_convolution(kernel: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """y_k = Σ_{i<=k} K_i u_{k-i} by zero-padded real transforms.

    The transform length is the next power of two n >= L + min(K, L) - 1, because the error bound is derived for it.

    Args:
        kernel: (H, K) real; entries from L on reach no output.
        u: (batch, H, L) float32 or float64.

    Returns:
        (batch, H, L) in u's dtype; the transforms are computed in it too.

    Accuracy:
        Normwise per row: two forward transforms, one complex product per frequency, one inverse transform, all of
        length n (docs/bounds-kernels.md; its roots of unity are those of pocketfft, other libraries must be as good).

    References:
        Eq. 6.
    """
    length = u.shape[-1]
    kernel = kernel[:, :length].to(u.dtype)
    if kernel.shape[1] == 0 or u.numel() == 0:
        return torch.zeros_like(u, memory_format=torch.contiguous_format)
    n = power_of_two(length + kernel.shape[1] - 1)

    def convolved(rows: slice, channels: slice) -> torch.Tensor:
        spectrum = torch.fft.rfft(u[rows, channels], n) * torch.fft.rfft(kernel[channels], n)
        y: torch.Tensor = torch.fft.irfft(spectrum, n)
        return y[..., :length]

    batch, n_channels, _ = u.shape
    return _in_pieces(convolved, batch, n_channels, 4 * n * u.element_size())


def fft_convolution_vjp(kernel: torch.Tensor, u: torch.Tensor, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of kernel (H, K) and u from the cotangent of y: grad u_i = Σ_k g_k K_{k-i}, grad K_j = Σ g_k u_{k-j}.

    Accuracy:
        As `fft_convolution` of the reversed cotangent with the kernel, per row; and with u, where the products of a
        channel's rows are added up before the inverse transform, batch - 1 additions.
    """
    length, taps = u.shape[-1], kernel.shape[1]
    used = kernel[:, :length].to(u.dtype)
    reach = used.shape[1]
    if reach == 0 or u.numel() == 0:
        return kernel.new_zeros(kernel.shape, dtype=u.dtype), torch.zeros_like(u)
    n = power_of_two(length + reach - 1)
    batch, n_channels, _ = u.shape
    grads_kernel, grads_u = [], []
    for (channels,) in pieces((n_channels,), 6 * n * batch * u.element_size(), PIECE_BYTES):
        cotangent = torch.fft.rfft(grad[:, channels].to(u.dtype), n)
        grads_u.append(torch.fft.irfft(cotangent * torch.fft.rfft(used[channels], n).conj(), n)[..., :length])
        product = (cotangent * torch.fft.rfft(u[:, channels], n).conj()).sum(0)
        grads_kernel.append(torch.fft.irfft(product, n)[..., :reach])
    return pad(_joined(grads_kernel, 0), (0, taps - reach)), _joined(grads_u, 1).contiguous()


def direct_convolution(kernel: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """y_k = Σ_{j<=k} K_j u_{k-j} as the sum, in real arithmetic and without matrix products (no TF32).

    Args:
        kernel: (H, K) real; entries from L on reach no output.
        u: (batch, H, L) float32 or float64.

    Returns:
        (batch, H, L) in u's dtype.

    Accuracy:
        One product and at most min(K, L) additions of unknown order on every term.

    References:
        Eq. 6.
    """
    length = u.shape[-1]
    kernel = kernel[:, :length].to(u.dtype)
    y = torch.zeros_like(u, memory_format=torch.contiguous_format)
    for first, last in _lags(kernel.shape[1], u):
        reversed_kernel = kernel[:, None, first:last].flip(-1)
        y = y + pad((_newest(u, first, last) * reversed_kernel).sum(-1), (first, 0))
    return y


def direct_convolution_vjp(
    kernel: torch.Tensor, u: torch.Tensor, grad: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of kernel (H, K) and u from the cotangent of y, as sums of unknown order.

    Accuracy:
        One product and at most min(K, L) additions on every term of u's gradient, batch · L of the kernel's.
    """
    length, taps = u.shape[-1], kernel.shape[1]
    grad = grad.to(u.dtype)
    grad_u = direct_convolution(kernel, grad.flip(-1)).flip(-1)
    reach = min(taps, length)
    sums = [(_newest(u, first, last) * grad[..., first:, None]).sum((0, 2)).flip(-1) for first, last in _lags(reach, u)]
    grad_kernel = torch.cat(sums, -1) if sums else u.new_zeros((u.shape[1], 0))
    return pad(grad_kernel, (0, taps - reach)), grad_u


def _lags(count: int, u: torch.Tensor) -> list[tuple[int, int]]:
    """Ranges of lags whose products with u fit into memory."""
    numbers = u.numel()
    # Where an export leaves a size open, the graph is one for every size.
    most = OPEN_LAGS if isinstance(numbers, torch.SymInt) else BLOCK_ELEMENTS // max(1, numbers)
    step = max(1, min(count, most))
    return [(first, min(first + step, count)) for first in range(0, count, step)]


def _newest(u: torch.Tensor, first: int, last: int) -> torch.Tensor:
    """(..., L - first, last - first), a view: at steps k >= first the inputs u_{k-last+1} … u_{k-first}."""
    lags = last - first
    return pad(u[..., : u.shape[-1] - first], (lags - 1, 0)).unfold(-1, lags, 1)


def _in_pieces(
    function: Callable[[slice, slice], torch.Tensor], batch: int, n_channels: int, row_bytes: int
) -> torch.Tensor:
    """(batch, H, L) from pieces of rows and channels."""
    if isinstance(batch, torch.SymInt):  # left open by an export, whose graph is one for every number of rows
        every = slice(None)
        parts = [function(every, channels) for (channels,) in pieces((n_channels,), row_bytes, PIECE_BYTES)]
        return _joined(parts, 1).contiguous()
    by_channels: dict[int, list[torch.Tensor]] = {}
    for channels, rows in pieces((n_channels, batch), row_bytes, PIECE_BYTES):
        by_channels.setdefault(channels.start, []).append(function(rows, channels))
    return _joined([_joined(parts, 0) for parts in by_channels.values()], 1).contiguous()


def _joined(parts: list[torch.Tensor], dim: int) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)
