"""Arguments of operators, and what must hold for every operator."""

from __future__ import annotations

import warnings
from importlib.util import find_spec

import numpy as np
import pytest

if find_spec("torch") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    import torch

    COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}


class Draw:
    """Random tensors of moderate size; with `whole`, small (Gaussian) integers, whose sums and products are exact."""

    def __init__(self, dtype="float64", seed=0, *, whole=False):
        self.dtype, self.whole = getattr(torch, dtype), whole
        self.rng = np.random.default_rng(seed)

    def real(self, *shape):
        if self.whole:
            return torch.as_tensor(self.rng.integers(-2, 3, shape)).to(self.dtype)
        return torch.as_tensor(self.rng.normal(size=shape)).to(self.dtype)

    def complex(self, *shape):
        return torch.complex(self.real(*shape), self.real(*shape))

    def parameters(self, structure, n_channels=2, n_modes=3, rank=1, *, real=False):
        """A_bar, B_bar, C, P_bar, Q_bar of an operator; |Ā| is below 1 unless they are integers."""
        numbers = self.real if real else self.complex
        size = 1 if self.whole else 0.3
        A, B, C = (numbers(n_channels, n_modes) for _ in range(3))
        if structure == "diagonal":
            return [size * A, size * B, C, None, None]
        P, Q = (numbers(rank, n_channels, n_modes) for _ in range(2))
        return [size * A, size * B, C, size * P, size * Q]


class Holds:
    """What holds for an operator `op` and positional arguments `args`."""

    def is_well_defined(self, op, args):
        """torch's own checks: schema, registrations, fake tensors, tracing with dynamic shapes."""
        for grad in (False, True):
            found = torch.library.opcheck(op, self.leaves(args, grad))
            assert set(found.values()) == {"SUCCESS"}
            assert len(found) == 4

    def has_right_gradients(self, op, args):
        """Numerical differentiation of all results by all tensors."""
        args = self.leaves(args, True)
        tensors = [i for i, a in enumerate(args) if isinstance(a, torch.Tensor)]

        def function(*given):
            replaced = list(args)
            for i, tensor in zip(tensors, given, strict=True):
                replaced[i] = tensor
            return [result for result in self.results(op, replaced) if result.numel()]

        assert torch.autograd.gradcheck(function, [args[i] for i in tensors])

    def is_compiled_whole(self, op, args, backend):
        """The same bits, forwards and backwards, under torch.compile(fullgraph=True)."""
        torch._dynamo.reset()
        # Something around the operator, so that there is a graph with more than it.
        compiled = torch.compile(lambda *given: self.results(op, given, scale=2), backend=backend, fullgraph=True)
        plain, traced = self.leaves(args, True), self.leaves(args, True)
        with warnings.catch_warnings():
            # What inductor says on its import, and where a number around the operator is complex.
            warnings.filterwarnings("ignore", r"`torch\.jit\.script_method` is deprecated", DeprecationWarning)
            warnings.filterwarnings("ignore", "Torchinductor does not support code generation for complex", UserWarning)
            expected, found = self.results(op, plain, scale=2), compiled(*traced)
            self.are_equal(found, expected)
            for results in (expected, found):
                sum((r.real * r.real + r.imag if r.is_complex() else r * r).sum() for r in results).backward()
        self.are_equal(self.gradients(traced), self.gradients(plain))

    def is_mapped(self, op, args, dims, results):
        """vmap gives what a loop gives, for integer arguments in every bit.

        Args:
            dims: for each argument the mapped axis, or None.
        """
        size = 3

        def stacked(tensor, dim, shift):
            return tensor if dim is None else torch.stack([tensor + shift * i for i in range(size)], dim)

        for shift in (0, 1):
            given = [
                stacked(a, d, shift) if isinstance(a, torch.Tensor) else a for a, d in zip(args, dims, strict=True)
            ]
            found = torch.vmap(lambda *a: tuple(self.results(op, a)), tuple(dims))(*given)
            assert len(found) == results
            for i in range(size):
                one = [
                    a.select(d, i) if isinstance(a, torch.Tensor) and d is not None else a
                    for a, d in zip(given, dims, strict=True)
                ]
                self.are_equal([part[i] for part in found], self.results(op, one))

    @staticmethod
    def results(op, args, scale=1):
        found = op(*args)
        return [scale * r for r in found] if isinstance(found, (tuple, list)) else [scale * found]

    @staticmethod
    def leaves(args, grad):
        return [a.detach().clone().requires_grad_(grad) if isinstance(a, torch.Tensor) else a for a in args]

    @staticmethod
    def gradients(args):
        return [a.grad for a in args if isinstance(a, torch.Tensor)]

    @staticmethod
    def are_equal(found, expected):
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            if b is None:
                assert a is None
                continue
            a, b = (np.asarray(t.detach().resolve_conj() if isinstance(t, torch.Tensor) else t) for t in (a, b))
            assert (a.dtype, a.shape) == (b.dtype, b.shape)
            assert np.array_equal(a, b)


@pytest.fixture
def draw():
    return Draw


@pytest.fixture
def holds():
    return Holds()
