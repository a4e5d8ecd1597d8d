"""Backend `keops`: convolution kernels as symbolic reductions, on the CPU or a GPU."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, final

from liquid_ssm.backend import Arithmetic, Backend, Capabilities, CorrelationKind, Rejection
from liquid_ssm.errors import BackendRejected, ParameterError, unknown_name
from liquid_ssm.problem import Problem
from liquid_ssm.systems import DPLRSystem, System

from ._arguments import at_least
from ._tensors import on_tensors
from .torch_backend import TorchBackend

Tensor = Any  # torch is imported when the first method computes

_KERNELS = ("diagonal", "dplr")
_DEVICES = ("cpu", "cuda")
_DTYPES = ("float32", "float64")
# A constant of the module: compilers see through it.
_EAGER = TorchBackend()


@final
class KeOpsBackend(Backend):
    """Kernels by KeOps, which adds up a formula over modes or over time without a matrix of both: memory O(N + L).

    Tensors are computed where they are, and KeOps is told so; nothing is chosen by what hardware there is.  The first
    call with a formula compiles it (some seconds, reported on the logger `liquid_ssm` and kept on disk).  Convolutions
    and correlations are those of the backend `torch`.  There is no recurrence, so no state and no liquid modes.

    Args:
        device: `cpu` or `cuda`: where NumPy arrays are computed; None for the CPU.  Tensors are on a device already.
        kernel_dtype: `float64` computes kernels of float32 problems in float64 and rounds them once; `float32` computes
            those of diagonal systems in float32, which is faster on GPUs without fast float64 and loses digits in
            proportion to the length, those of dplr systems in float64 all the same.

    Raises:
        ParameterError: another device or kernel_dtype.

    Accuracy:
        Powers are exponentials of logarithms (docs/bounds-kernels.md, "Exponentials"), without fast maths, so that the
        functions are those of the C++ or CUDA library.
    """

    name = "keops"
    requires = ("torch", "pykeops", "platformdirs")
    install = "pip install 'liquid-ssm[keops]'"
    capabilities = Capabilities(
        primitives={"kernel": _KERNELS, "convolve": (), "correlate": ()},
        devices=_DEVICES,
        arrays=("numpy", "torch"),
        gradients=True,
    )
    linear_method = "convolution"
    arithmetic = Arithmetic(
        summation="any",
        kernel_dtype="float64",
        fused=None,
        powers="exponentials",
        correlations="sums",
        fft_gradients=True,
    )

    def __init__(
        self,
        device: Literal["cpu", "cuda"] | None = None,
        *,
        kernel_dtype: Literal["float32", "float64"] = "float64",
    ) -> None:
        if device is not None and device not in _DEVICES:
            raise unknown_name("device", device, _DEVICES)
        if kernel_dtype not in _DTYPES:
            raise unknown_name("kernel_dtype", kernel_dtype, _DTYPES)
        self.numpy_device = device or "cpu"
        self.kernel_dtype = kernel_dtype
        # How operators, which take no objects, find this backend.
        self._key = self.name
        if kernel_dtype == "float32":
            self._key = f"{self.name}, kernels in float32"
            self.__dict__["arithmetic"] = replace(type(self).arithmetic, kernel_dtype=None)

    def warm_up_seconds(self) -> float:
        """KeOps compiles a formula for some ten seconds, unless it is on disk, which is not looked up here."""
        return 30.0

    def arithmetic_for(self, problem: Problem) -> Arithmetic:
        """How a problem of this structure is rounded: kernels of dplr systems are always computed in float64."""
        return type(self).arithmetic if problem.structure == "dplr" else self.arithmetic

    def reject(self, problem: Problem) -> Rejection | None:
        """As `Backend.reject`; without a C++ compiler every problem is rejected, compiled formulas or not."""
        reason = super().reject(problem)
        if reason is not None:
            return reason
        from .keops_kernels.compiling import find_compiler

        if find_compiler() is None:
            hint = "run: apt-get install g++ (or set CXX)"
            return Rejection(self.name, "package", "a C++ compiler (g++ or clang++)", "none found", hint)
        if problem.gradient and problem.arrays == "numpy" and problem.structure == "dplr":
            hint = "its Cauchy gradients have no error bound yet; use another backend, or tensors"
            return Rejection(self.name, "gradient", "a diagonal system for gradients", "dplr", hint)
        return None

    @on_tensors
    def kernel(self, system: System, length: int, power: int = 1) -> Tensor:
        """K_i = weight · Re(C Āⁱ B̄^{∘power}), i = 0 … length - 1, (H, length).

        Accuracy: as `keops_kernels.vandermonde.diagonal_kernel` or `keops_kernels.cauchy.dplr_kernel`; B̄^{∘power} adds
        power - 1 rounded complex products, and the result is rounded once to the system's dtype.

        References: Eq. 5, Eq. 14, Algorithm 1.
        """
        self._require(system)
        length, power = at_least("length", length, 0), at_least("power", power, 1)
        if _observed(*system.parameters.values()):
            return self._operators.kernel(self._operator_key(), system, length, power)
        exact = _in_double(system)
        if isinstance(system, DPLRSystem):
            from .keops_kernels.cauchy import dplr_kernel

            exact["B_bar"] = _to_the(exact["B_bar"], power)
            kernel = dplr_kernel(**exact, length=length, conjugate_pairs=system.conjugate_pairs)
        else:
            from .keops_kernels.vandermonde import diagonal_kernel

            kernel = diagonal_kernel(
                **exact, length=length, power=power, weight=system.weight, dtype=self._real(system)
            )
        return kernel.to(system.dtype)

    @on_tensors
    def kernel_vjp(self, system: System, length: int, power: int, grad: Tensor | None) -> dict[str, Tensor]:
        """Gradients of the system's parameters from the cotangent (H, length) of the kernel.

        Accuracy: as `keops_kernels.vandermonde.diagonal_kernel_vjp`, in the precision of the kernel, rounded once to
        the parameters' dtype.  Those of dplr systems are computed in float64, without a bound.

        Memory: O(N + L) for diagonal systems, O(N² log L + R² L) for dplr ones.
        """
        from .eager.arguments import optional

        self._require(system)
        length, power = at_least("length", length, 0), at_least("power", power, 1)
        grad = optional("grad", grad, (system.n_channels, length), system.dtype, system.C)
        if grad is None:
            return {name: tensor.new_zeros(tensor.shape) for name, tensor in system.parameters.items()}
        exact = _in_double(system)
        if isinstance(system, DPLRSystem):
            from .keops_kernels.cauchy import dplr_kernel_vjp

            B_bar = exact["B_bar"]
            exact["B_bar"] = _to_the(B_bar, power)
            found = dplr_kernel_vjp(**exact, grad=_plain(grad).double(), conjugate_pairs=system.conjugate_pairs)
            if power > 1:
                found["B_bar"] = found["B_bar"] * (power * _to_the(B_bar, power - 1)).conj_physical()
        else:
            from .keops_kernels.vandermonde import diagonal_kernel_vjp

            cotangent = _plain(grad).to(self._real(system))
            grads = diagonal_kernel_vjp(**exact, power=power, weight=system.weight, grad=cotangent)
            found = dict(zip(("A_bar", "B_bar", "C"), grads, strict=True))
        return {name: _like(tensor, found[name]) for name, tensor in system.parameters.items()}

    @on_tensors
    def convolve(self, kernel: Tensor, u: Tensor) -> Tensor:
        """y_k = Σ_{i<=k} K_i u_{k-i}, (batch, H, L), by FFT: as the backend `torch`."""
        if _observed(kernel, u):
            return self._operators.convolve(self._operator_key(), kernel, u)
        return _EAGER.convolve(kernel, u)

    @on_tensors
    def convolve_vjp(self, kernel: Tensor, u: Tensor, grad: Tensor | None) -> tuple[Tensor, Tensor]:
        """Gradients of kernel and u from the cotangent of y."""
        return _EAGER.convolve_vjp(kernel, u, grad)  # type: ignore[no-any-return]

    @on_tensors
    def correlate(
        self,
        u: Tensor,
        *,
        order: int,
        kind: CorrelationKind,
        window: int | None = None,
        sums: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Products of adjacent inputs, their sums, or elementary symmetric polynomials: as the backend `torch`."""
        if _observed(u, sums, previous):
            given = {"window": window, "sums": sums, "previous": previous}
            return self._operators.correlate(self._operator_key(), u, order=order, kind=kind, **given)  # type: ignore[no-any-return]
        return _EAGER.correlate(u, order=order, kind=kind, window=window, sums=sums, previous=previous)  # type: ignore[no-any-return]

    @on_tensors
    def correlate_vjp(
        self,
        u: Tensor,
        grad_terms: Tensor | None,
        grad_sums: Tensor | None,
        *,
        order: int,
        kind: CorrelationKind,
        window: int | None = None,
        sums: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Gradients of u, `sums` and `previous`; None where the argument was not given."""
        return _EAGER.correlate_vjp(  # type: ignore[no-any-return]
            u, grad_terms, grad_sums, order=order, kind=kind, window=window, sums=sums, previous=previous
        )

    def _require(self, system: System) -> None:
        if system.structure not in _KERNELS:
            reason = Rejection(self.name, "structure", f"{' or '.join(_KERNELS)} for kernel", system.structure)
            raise BackendRejected(f"{self.name} does not compute kernel for this system:", [reason])
        device = system.C.device.type
        if device not in _DEVICES:
            raise ParameterError(
                f"the system is on {device}; keops computes on {' and '.join(_DEVICES)}. Move it there."
            )

    def _real(self, system: System) -> Any:
        """The dtype in which kernels of diagonal systems are computed."""
        import torch

        return system.dtype if self.kernel_dtype == "float32" else torch.float64

    @property
    def _operators(self) -> Any:
        from .operators import methods

        return methods

    def _operator_key(self) -> str:
        if self._key != self.name:
            from .operators.implementations import register

            register(self._key, self, on_numpy=False)
        return self._key


def _observed(*tensors: Tensor | None) -> bool:
    """Whether somebody looks on, who needs an operator: autograd, a compiler, or a transform of `torch.func`."""
    import torch

    if torch.compiler.is_compiling() or torch._C._functorch.peek_interpreter_stack() is not None:
        return True
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def _in_double(system: System) -> dict[str, Tensor]:
    """The parameters as complex128, and no gradient asked of them."""
    import torch

    return {name: _plain(tensor).to(torch.complex128) for name, tensor in system.parameters.items()}


def _plain(tensor: Tensor) -> Tensor:
    """The values as they lie in memory: KeOps reads that, where a mark that they are conjugated or negated is not."""
    return tensor.detach().resolve_conj().resolve_neg()


def _to_the(base: Tensor, power: int) -> Tensor:
    result = base
    for _ in range(power - 1):
        result = result * base
    return result


def _like(parameter: Tensor, gradient: Tensor) -> Tensor:
    """A complex gradient in the parameter's dtype, the real part for a real one."""
    found = gradient if parameter.is_complex() else gradient.real
    return found.to(parameter.dtype).contiguous()
