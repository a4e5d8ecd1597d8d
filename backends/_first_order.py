"""First-order linear recurrences by compiled solvers: SciPy's filter and LAPACK's banded solve.

Both take the start as an additional first step, so that a sequence that is cut and continued from
the carried state goes through the same operations.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def constant_recurrence(a: Any, drive: Array, start: Array) -> Array:
    """x_k = a x_{k-1} + v_k for several sequences by `scipy.signal.lfilter`.

    Args:
        a: one number.
        drive: v, (rows, T), float32 to complex128; not changed.
        start: x_{-1}, (rows,) of the same dtype.

    Returns:
        (rows, T + 1) of drive's dtype: x_{-1}, x_0, …, x_{T-1}.

    Accuracy:
        One rounded product and one rounded addition per step, complex if drive is.
    """
    from scipy.signal import lfilter  # type: ignore[import-untyped, unused-ignore]

    one = drive.dtype.type(1)
    numerator, denominator = np.array([one]), np.array([one, -a], drive.dtype)
    return np.asarray(lfilter(numerator, denominator, np.concatenate([start[:, None], drive], axis=1)))


def varying_recurrence(a: Array, drive: Array, start: Any) -> Array:
    """x_k = a_k x_{k-1} + v_k for one sequence by LAPACK `?tbtrs`.

    This is the system with unit diagonal and -a_k below it, right-hand side x_{-1}, v_0, v_1, …;
    the solve is a forward substitution without pivoting.

    Args:
        a, drive: (T,), float32 to complex128, both of one dtype; not changed.
        start: x_{-1}.

    Returns:
        (T + 1,) of drive's dtype: x_{-1}, x_0, …, x_{T-1}.

    Accuracy:
        One rounded product and one rounded addition per step, complex if drive is.  BLAS may fuse the
        two, that is add the real products to v_k in another order, and OpenBLAS 0.3.21 (SciPy 1.12) does
        so at every second complex64 step: there a cut changes the rounding.
    """
    from scipy.linalg import lapack  # type: ignore[import-untyped, unused-ignore]

    (solve,) = lapack.get_lapack_funcs(("tbtrs",), (drive,))
    # Fortran order: column k of the band holds the diagonal and the entry below it.
    band = np.empty((2, len(a) + 1), drive.dtype, order="F")
    band[0] = 1
    np.negative(a, out=band[1, :-1])
    band[1, -1] = 0
    x = np.empty((len(a) + 1, 1), drive.dtype, order="F")
    x[0], x[1:, 0] = start, drive
    x, info = solve(band, x, uplo="L", diag="U", overwrite_b=True)
    assert info == 0, f"?tbtrs returned {info}"
    return np.asarray(x[:, 0])
