"""Kernels of diagonal-plus-low-rank systems and their gradients: Cauchy sums, over modes and over frequencies.

KeOps reads memory, so complex conjugates are written out (`conj_physical`), not marked.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .._fft_convolution import power_of_two
from ..eager.cauchy import circle_points
from ..eager.truncation import Truncation, truncate
from .compiling import Reduction, concatenated
from .truncation import real_matrix_vjp, truncate_vjp

Tensor = torch.Tensor

# d = (1 - z) + (1 - λ) z and what its inverse conj(d)/|d|² is made of.
_D_RE, _D_IM = "(gap_re + (p_re * z_re - p_im * z_im))", "(gap_im + (p_re * z_im + p_im * z_re))"
_SCALE = f"Inv(Square({_D_RE}) + Square({_D_IM}))"
_INVERSE_RE, _INVERSE_IM = f"({_D_RE} * {_SCALE})", f"Minus({_D_IM} * {_SCALE})"
# Of the square of the inverse.
_SQUARE_RE = f"(({_D_RE} - {_D_IM}) * ({_D_RE} + {_D_IM}) * Square({_SCALE}))"
_SQUARE_IM = f"(IntCst(-2) * {_D_RE} * {_D_IM} * Square({_SCALE}))"


def _over_modes(terms: int) -> Reduction:
    """Σ_n w_n / (z_gap_j + p_n z_j), a vector of `terms` complex sums."""
    return Reduction(
        f"cauchy_{terms}",
        concatenated(
            [
                f"{_INVERSE_RE} * w_re - {_INVERSE_IM} * w_im",
                f"{_INVERSE_RE} * w_im + {_INVERSE_IM} * w_re",
            ]
        ),
        (
            *(f"{name} = Vi(1)" for name in ("z_re", "z_im", "gap_re", "gap_im")),
            *(f"{name} = Vj(1)" for name in ("p_re", "p_im")),
            *(f"{name} = Vj({terms})" for name in ("w_re", "w_im")),
        ),
    )


def _over_frequencies(terms: int) -> Reduction:
    """Σ_j g_j / d_nj and Σ_j h_j / d_nj², vectors of `terms` complex sums."""
    return Reduction(
        f"cauchy_transposed_{terms}",
        concatenated(
            [
                f"{_INVERSE_RE} * g_re - {_INVERSE_IM} * g_im",
                f"{_SQUARE_RE} * h_re - {_SQUARE_IM} * h_im",
                f"{_INVERSE_RE} * g_im + {_INVERSE_IM} * g_re",
                f"{_SQUARE_RE} * h_im + {_SQUARE_IM} * h_re",
            ]
        ),
        (
            *(f"{name} = Vi(1)" for name in ("p_re", "p_im")),
            *(f"{name} = Vj(1)" for name in ("z_re", "z_im", "gap_re", "gap_im")),
            *(f"{name} = Vj({terms})" for name in ("g_re", "g_im", "h_re", "h_im")),
        ),
    )


@dataclass(frozen=True)
class _Resolvent:
    """C̃ (I - zĀ)⁻¹ B̄ at all points, and what its gradients need of it.

    Attributes:
        z, z_gap: points of the circle and 1 - z, (H, F) complex128.
        rows: C̃ and conj Q̄_r over the full state, (H, 1 + R, N).
        columns: B̄ and P̄_r, (H, 1 + R, N).
        gaps: 1 - λ, (H, N).
        sums: Σ_n row_a column_b / (1 - zλ_n), (H, F, 1 + R, 1 + R).
        capacitance: I + z Q̄*(…)⁻¹P̄, (H, F, R, R).
        values: (H, F).
    """

    z: Tensor
    z_gap: Tensor
    rows: Tensor
    columns: Tensor
    gaps: Tensor
    sums: Tensor
    capacitance: Tensor
    values: Tensor


def dplr_kernel(
    Lambda_bar: Tensor, P_bar: Tensor, Q_bar: Tensor, B_bar: Tensor, C: Tensor, length: int, *, conjugate_pairs: bool
) -> Tensor:
    """K_i = weight · Re(C Āⁱ B̄) for Ā = diag(Λ̄) - P̄ Q̄*, computed in float64: the method of `backends/_cauchy.py`.

    Args:
        Lambda_bar, B_bar, C: (H, M) complex128.
        P_bar, Q_bar: (R, H, M) complex128.
        length: number of kernel entries.

    Returns:
        (H, length) float64; a channel whose Āⁿ leaves float64's range is NaN.

    Accuracy:
        `oracle.cauchy_error`, which counts the operations: the inverses conj(d)/|d|² are formed first and are the same
        in all sums, and each part of a sum has 2N real terms in an order of its own.
    """
    n_channels, n_modes = C.shape
    if n_channels == 0 or n_modes == 0 or length == 0:
        return C.real.new_zeros((n_channels, length))
    if length == 1:
        # C B̄ alone, which needs no resolvent.
        return ((1 + conjugate_pairs) * (C.real * B_bar.real - C.imag * B_bar.imag)).sum(dim=-1, keepdim=True)
    truncation, lost = _truncated(Lambda_bar, P_bar, Q_bar, C, length, conjugate_pairs)
    values = _resolvent(truncation, Lambda_bar, P_bar, Q_bar, B_bar, length, conjugate_pairs).values
    n = power_of_two(length)
    damped = torch.fft.irfft(values, n) if conjugate_pairs else torch.fft.ifft(values).real
    kernel = damped[:, :length] * _undamping(truncation, length)
    return torch.where(lost[:, None], torch.full_like(kernel, torch.nan), kernel)


def dplr_kernel_vjp(
    Lambda_bar: Tensor, P_bar: Tensor, Q_bar: Tensor, B_bar: Tensor, C: Tensor, grad: Tensor, *, conjugate_pairs: bool
) -> dict[str, Tensor]:
    """Gradients of Λ̄, P̄, Q̄, B̄ and C, complex128, from the cotangent (H, length) float64 of `dplr_kernel`.

    The kernel does not depend on the radius of the circle, so that is a constant here.  Every derivative is a sum over
    the frequencies, Σ_j g_j / d_nj or Σ_j h_j / d_nj²; no matrix of modes and frequencies is formed.
    """
    zeros = {"Lambda_bar": Lambda_bar, "P_bar": P_bar, "Q_bar": Q_bar, "B_bar": B_bar, "C": C}
    found = {name: torch.zeros_like(tensor) for name, tensor in zeros.items()}
    n_channels, n_modes = C.shape
    length = grad.shape[-1]
    if n_channels == 0 or n_modes == 0 or length == 0:
        return found
    if length == 1:
        cotangent = (1 + conjugate_pairs) * grad
        return found | {"B_bar": cotangent * C.conj_physical(), "C": cotangent * B_bar.conj_physical()}
    truncation, lost = _truncated(Lambda_bar, P_bar, Q_bar, C, length, conjugate_pairs)
    resolvent = _resolvent(truncation, Lambda_bar, P_bar, Q_bar, B_bar, length, conjugate_pairs)
    cotangent = _value_cotangent(grad * _undamping(truncation, length), length, conjugate_pairs)
    # From here on D stands for dL = Re(D dx), the conjugate of the gradient.
    D_rows, D_columns, D_gaps = _resolvent_vjp(resolvent, cotangent)
    if conjugate_pairs:
        D_rows, D_columns, D_gaps = (_folded(D) for D in (D_rows, D_columns, D_gaps))
    grad_C, grad_matrix = truncate_vjp(truncation, C, D_rows[:, 0])
    grad_Lambda, grad_P, grad_Q = real_matrix_vjp(P_bar, Q_bar, grad_matrix, conjugate_pairs)
    found = {
        "Lambda_bar": grad_Lambda - D_gaps.conj_physical(),
        "P_bar": grad_P + D_columns[:, 1:].conj_physical().transpose(0, 1),
        "Q_bar": grad_Q + D_rows[:, 1:].transpose(0, 1),
        "B_bar": D_columns[:, 0].conj_physical(),
        "C": grad_C,
    }
    nothing = torch.where(lost, torch.nan, 0.0)[:, None]
    return {name: tensor + nothing for name, tensor in found.items()}


def _truncated(
    Lambda_bar: Tensor, P_bar: Tensor, Q_bar: Tensor, C: Tensor, length: int, conjugate_pairs: bool
) -> tuple[Truncation, Tensor]:
    """The truncation, harmless where Āⁿ overflowed, and the channels where it did."""
    found = truncate(Lambda_bar, P_bar, Q_bar, C, power_of_two(length), conjugate_pairs=conjugate_pairs)
    fine = found.damping.isfinite() & torch.view_as_real(found.C_tilde).isfinite().all(dim=-1).all(dim=-1)
    damping = torch.where(fine, found.damping, torch.zeros_like(found.damping))
    C_tilde = torch.where(fine[:, None], found.C_tilde, torch.zeros_like(found.C_tilde))
    return Truncation(damping, C_tilde, found.powers, found.factor, found.far), ~fine


def _undamping(truncation: Truncation, length: int) -> Tensor:
    """r^(-i), (H, length)."""
    damping = truncation.damping[:, None]
    return torch.exp(damping / power_of_two(length) * torch.arange(length, device=damping.device))


def _circle(truncation: Truncation, length: int, conjugate_pairs: bool) -> tuple[Tensor, Tensor]:
    """z_j = r e^(-2πij/n) and 1 - z_j, (H, F); half of the points where the kernel is known to be real."""
    n = power_of_two(length)
    damping = truncation.damping[:, None]
    points = circle_points(n, n // 2 + 1 if conjugate_pairs else n)
    root, gap = (value.to(damping.device) for value in points)
    radius = torch.exp(-damping / n)
    return radius * root, radius * gap - torch.expm1(-damping / n)


def _resolvent(
    truncation: Truncation,
    Lambda_bar: Tensor,
    P_bar: Tensor,
    Q_bar: Tensor,
    B_bar: Tensor,
    length: int,
    conjugate_pairs: bool,
) -> _Resolvent:
    """C̃ (I - zĀ)⁻¹ B̄ by Woodbury from sums over the modes."""
    z, z_gap = _circle(truncation, length, conjugate_pairs)
    rows = torch.cat([truncation.C_tilde[:, None], Q_bar.transpose(0, 1).conj_physical()], dim=1)
    columns = torch.cat([B_bar[:, None], P_bar.transpose(0, 1)], dim=1)
    gaps = 1 - Lambda_bar
    if conjugate_pairs:
        rows, columns, gaps = (torch.cat([v, v.conj_physical()], dim=-1) for v in (rows, columns, gaps))
    size = rows.shape[1]
    weights = (rows[:, :, None] * columns[:, None]).flatten(1, 2).mT
    found = _over_modes(size**2)(*_scalars(z), *_scalars(z_gap), *_scalars(gaps), *_parts(weights))
    sums = _complex(found).reshape(*z.shape, size, size)
    plain, left, right, inner = sums[..., 0, 0], sums[..., 0, 1:], sums[..., 1:, 0], sums[..., 1:, 1:]
    capacitance = torch.eye(size - 1, dtype=z.dtype, device=z.device) + z[..., None, None] * inner
    values = plain - z * (left * _solve(capacitance, right)).sum(dim=-1)
    return _Resolvent(z, z_gap, rows, columns, gaps, sums, capacitance, values)


def _resolvent_vjp(resolvent: _Resolvent, cotangent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """D of rows, columns, both (H, 1 + R, N), and gaps (H, N), from D of the values (H, F).

    The value is [1, l] S [1; r] with l = -z S_0P 𝒞⁻¹ and r = -z 𝒞⁻¹ S_Q0, and so is its change with that of S.
    """
    z, sums, size = resolvent.z, resolvent.sums, resolvent.sums.shape[-1]
    one = torch.ones_like(z)[..., None]
    left = torch.cat([one, -z[..., None] * _solve(resolvent.capacitance.mT, sums[..., 0, 1:])], dim=-1)
    right = torch.cat([one, -z[..., None] * _solve(resolvent.capacitance, sums[..., 1:, 0])], dim=-1)
    D_sums = ((cotangent[..., None] * left)[..., None] * right[..., None, :]).flatten(-2)
    found = _over_frequencies(size**2)(
        *_scalars(resolvent.gaps),
        *_scalars(z),
        *_scalars(resolvent.z_gap),
        *_parts(D_sums),
        *_parts(z[..., None] * D_sums),
    )
    # Of the weights, and of the squares of the inverses.
    rows, columns = resolvent.rows, resolvent.columns
    shape = len(rows), size, size, rows.shape[-1]
    of_weights, of_squares = (part.mT.reshape(shape) for part in _complex(found).chunk(2, dim=-1))
    D_rows = (of_weights * columns[:, None]).sum(dim=2)
    D_columns = (of_weights * rows[:, :, None]).sum(dim=1)
    D_gaps = -(of_squares * rows[:, :, None] * columns[:, None]).sum(dim=(1, 2))
    return D_rows, D_columns, D_gaps


def _value_cotangent(grad: Tensor, length: int, conjugate_pairs: bool) -> Tensor:
    """D of the values at the points from the gradient of the damped kernel, (H, length)."""
    n = power_of_two(length)
    if not conjugate_pairs:
        spectrum: Tensor = torch.fft.fft(grad, n).conj_physical()
        return spectrum / n
    copies = torch.full((n // 2 + 1,), 2.0 / n, dtype=grad.dtype, device=grad.device)
    copies[0] = copies[-1] = 1.0 / n  # these two points are their own conjugates
    half: Tensor = torch.fft.rfft(grad, n).conj_physical()
    return half * copies


def _folded(D: Tensor) -> Tensor:
    """D of x where D of [x, conj x] is given."""
    first, second = D.chunk(2, dim=-1)
    return first + second.conj_physical()


def _solve(matrix: Tensor, vector: Tensor) -> Tensor:
    """matrix⁻¹ vector for (…, R, R) and (…, R); where the matrix is singular, not finite."""
    if vector.shape[-1] == 0:
        return vector
    if vector.shape[-1] == 1:
        # 1/d = conj(d)/|d|²: how devices divide complex numbers differs.
        d = matrix[..., 0]
        scale = 1 / (d.real * d.real + d.imag * d.imag)
        return vector * torch.complex(d.real * scale, -d.imag * scale)
    solved: Tensor = torch.linalg.solve_ex(matrix, vector[..., None])[0][..., 0]
    return solved


def _parts(z: Tensor) -> tuple[Tensor, Tensor]:
    return z.real, z.imag


def _scalars(z: Tensor) -> tuple[Tensor, Tensor]:
    re, im = _parts(z)
    return re[..., None], im[..., None]


def _complex(found: Tensor) -> Tensor:
    """Real parts, then imaginary ones, along the last axis."""
    re, im = found.chunk(2, dim=-1)
    return torch.complex(re.contiguous(), im.contiguous())
