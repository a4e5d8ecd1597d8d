"""State-space systems: continuous parameters and what discretisation makes of them.

Shapes: H channels, N state size, M stored modes (N/2 where one of each conjugate pair is stored),
R rank of the low-rank part.  Every class is frozen.  Parameters are NumPy arrays, of which a system keeps read-only
copies, or torch tensors, which it keeps as they are: gradients flow to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self
from weakref import WeakKeyDictionary

import numpy as np

from .arrays import dtype_name, is_tensor, namespace
from .errors import DTypeError, ParameterError, ShapeError

Array = Any  # numpy.ndarray or torch.Tensor

# Systems of arrays with powers of B̄ for B̄.
_POWERS: WeakKeyDictionary[Any, dict[int, Any]] = WeakKeyDictionary()

_REAL_OF = {"complex64": "float32", "complex128": "float64", "float32": "float32", "float64": "float64"}


def _frozen(name: str, value: Any, ndim: int) -> Array:
    if is_tensor(value):
        return _checked_tensor(name, value, ndim)
    array = np.array(value)  # a copy: later changes of the caller's array must not reach the system
    if array.dtype.kind in "iub":
        array = array.astype(np.float64)
    if array.dtype.name not in _REAL_OF:
        raise DTypeError(
            f"{name} has dtype {array.dtype}; allowed: {', '.join(_REAL_OF)}. Convert it with .astype(...)."
        )
    if array.ndim != ndim:
        raise ShapeError(f"{name} has shape {array.shape}; it needs {ndim} dimension(s).")
    if not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ParameterError(f"{name} is not finite at index {where}: {array[where]}.")
    array.flags.writeable = False
    return array


def _checked_tensor(name: str, tensor: Array, ndim: int) -> Array:
    # Whether it is finite is not asked: on a GPU that waits for all that was launched, and a compiler cannot know it.
    if dtype_name(tensor.dtype) not in _REAL_OF:
        raise DTypeError(
            f"{name} has dtype {tensor.dtype}; allowed: {', '.join(_REAL_OF)}. Convert it with .to(torch.complex64)."
        )
    if tensor.ndim != ndim:
        raise ShapeError(f"{name} has shape {tuple(tensor.shape)}; it needs {ndim} dimension(s).")
    return tensor


def _same_shape(reference: str, shape: tuple[int, ...], **arrays: Array) -> None:
    for name, array in arrays.items():
        if tuple(array.shape) != tuple(shape):
            raise ShapeError(f"{name} has shape {tuple(array.shape)}; {reference} asks for {tuple(shape)}.")


@dataclass(frozen=True, eq=False, kw_only=True)
class _System:
    """What all discrete systems share: one floating-point precision, casts, and the output rule."""

    structure: ClassVar[str]
    conjugate_pairs: bool = True

    def _arrays(self) -> dict[str, Array]:
        return dict(self.__dict__["_named"])

    def _set(self, **arrays: Array) -> None:
        """Store validated arrays in their common precision."""
        tensors = [name for name, array in arrays.items() if is_tensor(array)]
        if tensors and len(tensors) < len(arrays):
            others = [name for name in arrays if name not in tensors]
            raise ParameterError(
                f"{', '.join(tensors)} of this system are torch tensors and {', '.join(others)} are NumPy arrays; give "
                "all of them as one or the other."
            )
        if tensors:
            return self._set_tensors(arrays)
        common = np.result_type(*arrays.values())
        # What every call asks a system for is found once: one time step takes some ten microseconds.
        real = np.dtype(_REAL_OF[common.name])
        named: dict[str, Array] = {}
        self.__dict__.update(_named=named, _real_dtype=real, _is_complex=any(map(np.iscomplexobj, arrays.values())))
        for name, array in arrays.items():
            kind = np.result_type(common, np.complex64) if array.dtype.kind == "c" else common.type(0).real.dtype
            stored = np.ascontiguousarray(array, dtype=kind)
            stored.flags.writeable = False
            named[name] = stored
            object.__setattr__(self, name, stored)

    def _set_tensors(self, arrays: dict[str, Array]) -> None:
        devices = {str(array.device) for array in arrays.values()}
        if len(devices) > 1:
            places = ", ".join(f"{name} on {array.device}" for name, array in arrays.items())
            raise ParameterError(f"the parameters are on different devices ({places}); move them to one with .to(...).")
        torch = namespace(arrays["C"])
        double = any(_REAL_OF[dtype_name(array.dtype)] == "float64" for array in arrays.values())
        real, pair = (torch.float64, torch.complex128) if double else (torch.float32, torch.complex64)
        named = {name: array.to(pair if array.is_complex() else real) for name, array in arrays.items()}
        is_complex = any(array.is_complex() for array in arrays.values())
        self.__dict__.update(_named=named, _real_dtype=real, _is_complex=is_complex, **named)

    @property
    def parameters(self) -> dict[str, Array]:
        """The arrays by name, the order of the constructor."""
        return self._arrays()

    @property
    def dtype(self) -> Any:
        """Real dtype of the computation: float32 or float64, of NumPy or torch as the parameters are."""
        return self.__dict__["_real_dtype"]

    @property
    def is_complex(self) -> bool:
        """Whether a parameter is complex, and with it the state."""
        return bool(self.__dict__["_is_complex"])

    @property
    def is_torch(self) -> bool:
        """Whether the parameters are torch tensors."""
        return is_tensor(self.__dict__["_named"]["C"])

    def astype(self, dtype: Any) -> Self:
        """The same system with every parameter rounded to float32 or float64 (or their complex)."""
        if dtype == self.dtype:
            return self
        name = dtype_name(dtype)
        if name == dtype_name(self.dtype):
            return self
        if name not in ("float32", "float64"):
            raise DTypeError(f"a system cannot be cast to {name}; allowed: float32, float64.")
        if self.is_torch:
            torch = namespace(self.__dict__["_named"]["C"])
            real, pair = getattr(torch, name), getattr(torch, "complex64" if name == "float32" else "complex128")
            cast = {key: a.to(pair if a.is_complex() else real) for key, a in self._arrays().items()}
            return type(self)(**cast, conjugate_pairs=self.conjugate_pairs)
        kinds = {"c": np.result_type(name, np.complex64), "f": np.dtype(name)}
        # A float64 parameter beyond float32's range becomes inf; the constructor reports it.
        with np.errstate(over="ignore"):
            cast = {key: a.astype(kinds[a.dtype.kind]) for key, a in self._arrays().items()}
        return type(self)(**cast, conjugate_pairs=self.conjugate_pairs)

    def to_torch(self, device: Any = None) -> Self:
        """The same system with torch tensors, on `device` if given; tensors that are there stay what they are."""
        import torch

        if self.is_torch:
            moved = {name: tensor.to(device) for name, tensor in self._arrays().items()} if device else self._arrays()
        else:
            # Copies: torch has no read-only tensors.
            moved = {name: torch.as_tensor(array.copy(), device=device) for name, array in self._arrays().items()}
        return type(self)(**moved, conjugate_pairs=self.conjugate_pairs)

    def to_numpy(self) -> Self:
        """The same system with NumPy arrays; no gradient flows through it."""
        if not self.is_torch:
            return self
        arrays = {name: tensor.numpy(force=True) for name, tensor in self._arrays().items()}
        return type(self)(**arrays, conjugate_pairs=self.conjugate_pairs)

    @property
    def n_channels(self) -> int:
        return int(self.__dict__["_named"]["C"].shape[0])

    @property
    def n_modes(self) -> int:
        """Stored modes per channel; half of the state size where one of each conjugate pair is stored."""
        return int(self.__dict__["_named"]["C"].shape[1])

    @property
    def weight(self) -> int:
        """y = weight · Re(C x): 2 where one of each conjugate pair is stored, else 1."""
        return 2 if self.conjugate_pairs else 1

    def take(self, channels: Sequence[int]) -> Self:
        """The system of the given channels, in that order; not for `mimo`, whose channels share one state."""
        if self.structure == "mimo":
            raise ParameterError("a mimo system has one state for all channels; its channels cannot be taken apart.")
        axes = {"P_bar": 1, "Q_bar": 1}
        index = list(channels)
        taken = {name: a[:, index] if axes.get(name) else a[index] for name, a in self._arrays().items()}
        return type(self)(**taken, conjugate_pairs=self.conjugate_pairs)

    def with_input_power(self, power: int) -> Self:
        """The same system with B̄ replaced by its elementwise power B̄^{∘power} (Eq. 14).

        Of arrays, which never change, it is the same object at every call: backends keep what they derive from one.

        Accuracy: power - 1 rounded products, relative error at most (power - 1)·√5·u.
        """
        known: dict[int, Self] = {} if self.is_torch else _POWERS.setdefault(self, {})
        if power not in known:
            arrays = self._arrays()
            for _ in range(power - 1):
                arrays["B_bar"] = arrays["B_bar"] * self.B_bar  # type: ignore[attr-defined]  # every system has one
            known[power] = type(self)(**arrays, conjugate_pairs=self.conjugate_pairs)
        return known[power]


@dataclass(frozen=True, eq=False)
class DiagonalSystem(_System):
    """Discrete diagonal system x_k = Ā∘x_{k-1} + B̄ u_k, y_k = 2 Re Σ_n C_n x_n (Eq. 2).

    Args:
        A_bar: discrete eigenvalues, (H, M) complex (or real).
        B_bar: discrete input vector, (H, M).
        C: output vector, (H, M).
        conjugate_pairs: True if one of each conjugate pair is stored (the output is then
            2 Re C x); False if all modes are stored (the output is Re C x).

    Raises:
        ShapeError, DTypeError, ParameterError: shapes differ, a dtype is not floating, or a
            parameter is not finite.
    """

    A_bar: Array
    B_bar: Array
    C: Array
    structure: ClassVar[str] = "diagonal"

    def __post_init__(self) -> None:
        A_bar, B_bar, C = (_frozen(n, getattr(self, n), 2) for n in ("A_bar", "B_bar", "C"))
        _same_shape("A_bar (H, M)", A_bar.shape, B_bar=B_bar, C=C)
        self._set(A_bar=A_bar, B_bar=B_bar, C=C)


@dataclass(frozen=True, eq=False)
class DPLRSystem(_System):
    """Discrete diagonal-plus-low-rank system, Ā = diag(Λ̄) − P̄ Q̄* (S4, Eq. 8 after Eq. 3).

    With conjugate pairs the low-rank part couples a mode with the conjugates of the others:
    (Ā x)_n = Λ̄_n x_n − Σ_r P̄_rn · 2 Re Σ_m conj(Q̄_rm) x_m.  That is the matrix
    diag(Λ̄, conj Λ̄) − [P̄; conj P̄][Q̄; conj Q̄]* on the full state, applied to one half of it.

    Args:
        Lambda_bar: (H, M) complex.
        P_bar, Q_bar: low-rank factors, (R, H, M) complex.
        B_bar, C: (H, M).
        conjugate_pairs: as in `DiagonalSystem`.
    """

    Lambda_bar: Array
    P_bar: Array
    Q_bar: Array
    B_bar: Array
    C: Array
    structure: ClassVar[str] = "dplr"

    def __post_init__(self) -> None:
        Lambda_bar, B_bar, C = (_frozen(n, getattr(self, n), 2) for n in ("Lambda_bar", "B_bar", "C"))
        P_bar, Q_bar = (_frozen(n, getattr(self, n), 3) for n in ("P_bar", "Q_bar"))
        _same_shape("Lambda_bar (H, M)", Lambda_bar.shape, B_bar=B_bar, C=C)
        _same_shape("(R, H, M)", (P_bar.shape[0], *Lambda_bar.shape), P_bar=P_bar, Q_bar=Q_bar)
        self._set(Lambda_bar=Lambda_bar, P_bar=P_bar, Q_bar=Q_bar, B_bar=B_bar, C=C)

    @property
    def rank(self) -> int:
        return int(self.P_bar.shape[0])


@dataclass(frozen=True, eq=False)
class DenseSystem(_System):
    """Discrete system with a full matrix Ā per channel; y = Re(C x).

    Args:
        A_bar: (H, N, N).
        B_bar, C: (H, N).
        conjugate_pairs: must stay False; a full matrix mixes the halves of a conjugate pair.
    """

    A_bar: Array
    B_bar: Array
    C: Array
    conjugate_pairs: bool = field(default=False, kw_only=True)
    structure: ClassVar[str] = "dense"

    def __post_init__(self) -> None:
        A_bar = _frozen("A_bar", self.A_bar, 3)
        B_bar, C = _frozen("B_bar", self.B_bar, 2), _frozen("C", self.C, 2)
        _same_shape("A_bar (H, N, N)", (*C.shape, C.shape[1]), A_bar=A_bar)
        _same_shape("A_bar (H, N, N)", C.shape, B_bar=B_bar)
        if self.conjugate_pairs:
            raise ParameterError(
                "a DenseSystem stores all N states; give the full matrix and leave conjugate_pairs=False."
            )
        self._set(A_bar=A_bar, B_bar=B_bar, C=C)


@dataclass(frozen=True, eq=False)
class MIMOSystem(_System):
    """Discrete diagonal system whose one state all channels share (S5).

    x_k = Ā∘x_{k-1} + B̄ u_k with u_k ∈ R^H, y_k = 2 Re(C x_k) ∈ R^H; the liquid form adds the input
    drive to the transition elementwise, x_k = (Ā + B̄ u_k)∘x_{k-1} + B̄ u_k.

    Args:
        A_bar: (M,).
        B_bar: (M, H).
        C: (H, M).
    """

    A_bar: Array
    B_bar: Array
    C: Array
    structure: ClassVar[str] = "mimo"

    def __post_init__(self) -> None:
        A_bar = _frozen("A_bar", self.A_bar, 1)
        B_bar, C = _frozen("B_bar", self.B_bar, 2), _frozen("C", self.C, 2)
        _same_shape("A_bar (M,) and C (H, M)", (A_bar.shape[0], C.shape[0]), B_bar=B_bar)
        _same_shape("A_bar (M,) and B_bar (M, H)", B_bar.shape[::-1], C=C)
        self._set(A_bar=A_bar, B_bar=B_bar, C=C)


System = DiagonalSystem | DPLRSystem | DenseSystem | MIMOSystem
