"""Vectors of floats as values in compiled code, one machine register each.

LLVM's vectoriser decides by heuristics that change between versions, and prefers half-width registers; with vectors
as values the generated code is what is written.  A vector has `VECTOR_BYTES` bytes; how many lanes that is follows
from the dtype of the array that it is loaded from.
"""

from __future__ import annotations

import operator
from functools import cache
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import config, types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model
from numba.np.arrayobj import make_array

from .caching import inlined


@cache
def cpu_features() -> frozenset[str]:
    """The instruction sets that Numba compiles for: those of this machine unless its configuration says otherwise."""
    if config.CPU_FEATURES:
        return frozenset(name[1:] for name in config.CPU_FEATURES.split(",") if name.startswith("+"))
    if config.CPU_NAME and binding.get_host_cpu_name() != config.CPU_NAME:
        return frozenset()
    return frozenset(name for name, present in binding.get_host_cpu_features().items() if present)


def vector_bytes(features: frozenset[str]) -> int:
    """Width of the widest registers that these instruction sets have."""
    if "avx512f" in features:
        return 64
    return 32 if "avx2" in features else 16


VECTOR_BYTES = vector_bytes(cpu_features())
# Every 64-bit ARM has it, x86 since AVX2.  Without it a product and a sum are two roundings.
HAS_FMA = "fma" in cpu_features() or not binding.get_process_triple().startswith(("x86", "i686"))


def lanes(dtype: Any) -> int:
    """Numbers of this dtype in a vector."""
    return VECTOR_BYTES // int(np.dtype(dtype).itemsize)


class Vector(types.Type):
    """Numba's type of a vector of `lanes` numbers of a real dtype."""

    def __init__(self, dtype: Any, n_lanes: int) -> None:
        self.dtype, self.lanes = dtype, n_lanes
        super().__init__(name=f"Vector({dtype} x {n_lanes})")


def _vector_of(dtype: Any) -> Vector:
    return Vector(dtype, VECTOR_BYTES * 8 // dtype.bitwidth)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        super().__init__(manager, kind, ir.VectorType(manager.lookup(kind.dtype).get_value_type(), kind.lanes))


def _pointer(context: Any, builder: Any, kind: Any, array: Any, index: Any, vector: Any) -> Any:
    data = make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())


def _converted(builder: Any, value: Any, source: Any, target: Any, n_lanes: int, context: Any) -> Any:
    """A vector in another real dtype; narrower rounds to nearest."""
    if source == target:
        return value
    wide = ir.VectorType(context.get_value_type(target), n_lanes)
    return builder.fpext(value, wide) if target.bitwidth > source.bitwidth else builder.fptrunc(value, wide)


@intrinsic
def load(typing: Any, array: Any, index: Any) -> Any:
    """The vector at `index` of a contiguous one-dimensional array."""
    result = _vector_of(array.dtype)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array_, index_ = args
        at = _pointer(context, builder, signature.args[0], array_, index_, context.get_value_type(result))
        return builder.load(at, align=array.dtype.bitwidth // 8)

    return result(array, types.intp), generate


@intrinsic
def load_as(typing: Any, array: Any, index: Any, like: Any) -> Any:
    """As many numbers at `index` of a contiguous one-dimensional array as a vector of `like` has, in its dtype."""
    result = _vector_of(like.dtype)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        narrow = ir.VectorType(context.get_value_type(array.dtype), result.lanes)
        at = _pointer(context, builder, signature.args[0], args[0], args[1], narrow)
        value = builder.load(at, align=array.dtype.bitwidth // 8)
        return _converted(builder, value, array.dtype, like.dtype, result.lanes, context)

    return result(array, types.intp, like), generate


@intrinsic
def store(typing: Any, array: Any, index: Any, vector: Any) -> Any:
    """Write a vector to `index` of a contiguous one-dimensional array, rounded to its dtype."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = _converted(builder, args[2], vector.dtype, array.dtype, vector.lanes, context)
        at = _pointer(context, builder, signature.args[0], args[0], args[1], value.type)
        builder.store(value, at, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


@intrinsic
def splat(typing: Any, number: Any) -> Any:
    """A vector whose every lane is the number."""
    result = _vector_of(number)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _splat(builder, args[0], result.lanes)

    return result(number), generate


def _splat(builder: Any, value: Any, n_lanes: int) -> Any:
    kind = ir.VectorType(value.type, n_lanes)
    int32 = ir.IntType(32)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, int32(0))
    zeros = ir.Constant(ir.VectorType(int32, n_lanes), [0] * n_lanes)
    return builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), zeros)


@intrinsic
def width(typing: Any, array: Any) -> Any:
    """How many lanes a vector of this array's dtype has, a constant."""
    value = VECTOR_BYTES * 8 // array.dtype.bitwidth

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.get_constant(types.intp, value)

    return types.intp(array), generate


@intrinsic
def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """a·b + c with one rounding; with two where the machine has no such instruction (`HAS_FMA`)."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = args[0].type
        suffix = f"v{a.lanes}f{a.dtype.bitwidth}"
        # An instruction that the machine lacks would become a slow call into the C library.
        name = f"llvm.fma.{suffix}" if HAS_FMA else f"llvm.fmuladd.{suffix}"
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), name)
        return builder.call(function, args)

    return a(a, b, c), generate


def _operator(function: Any, instruction: str, operands: int) -> None:
    """Give an operator of Python its meaning for vectors: one instruction."""

    @infer_global(function)
    class _Typing(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            same = len(args) == operands and isinstance(args[0], Vector) and all(a == args[0] for a in args)
            return signature(args[0], *args) if same else None

    @lower_builtin(function, *[Vector] * operands)
    def _generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return getattr(builder, instruction)(*args)


_operator(operator.add, "fadd", 2)
_operator(operator.sub, "fsub", 2)
_operator(operator.mul, "fmul", 2)
_operator(operator.truediv, "fdiv", 2)
_operator(operator.neg, "fneg", 1)


@intrinsic
def from_lane(typing: Any, first: Any, new: Any, old: Any) -> Any:
    """The lanes `first`, `first` + 1, … of `new`, those before of `old`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        int32 = ir.IntType(32)
        kind = ir.VectorType(int32, old.lanes)
        start = _splat(builder, builder.trunc(args[0], int32), old.lanes)
        inside = builder.icmp_signed(">=", ir.Constant(kind, list(range(old.lanes))), start)
        return builder.select(inside, args[1], args[2])

    return old(types.intp, new, old), generate


@intrinsic
def total(typing: Any, a: Any) -> Any:
    """The sum of all lanes, by a balanced tree."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value, n, int32 = args[0], a.lanes, ir.IntType(32)
        while n > 1:
            n //= 2
            halves = [
                builder.shuffle_vector(
                    value,
                    ir.Constant(value.type, ir.Undefined),
                    ir.Constant(ir.VectorType(int32, n), list(range(start, start + n))),
                )
                for start in (0, n)
            ]
            value = builder.fadd(*halves)
        return builder.extract_element(value, int32(0))

    return a.dtype(a), generate


@intrinsic
def load_pairs(typing: Any, array: Any, index: Any) -> Any:
    """(even, odd) numbers of the 2·lanes at `index`: real and imaginary parts of complex numbers in memory."""
    vector = _vector_of(array.dtype)
    n = vector.lanes
    result = types.UniTuple(vector, 2)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        int32, kind = ir.IntType(32), context.get_value_type(vector)
        halves = []
        for start in (0, n):
            at = builder.add(args[1], context.get_constant(types.intp, start))
            where = _pointer(context, builder, signature.args[0], args[0], at, kind)
            halves.append(builder.load(where, align=array.dtype.bitwidth // 8))
        parts = [
            builder.shuffle_vector(*halves, ir.Constant(ir.VectorType(int32, n), list(range(first, 2 * n, 2))))
            for first in (0, 1)
        ]
        return context.make_tuple(builder, result, parts)

    return result(array, types.intp), generate


@intrinsic
def store_pairs(typing: Any, array: Any, index: Any, even: Any, odd: Any) -> Any:
    """The inverse of `load_pairs`, for an array of the vectors' dtype."""
    n = even.lanes

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        int32 = ir.IntType(32)
        for start in (0, n):
            order = [start // 2 + i // 2 + (i % 2) * n for i in range(n)]
            value = builder.shuffle_vector(args[2], args[3], ir.Constant(ir.VectorType(int32, n), order))
            at = builder.add(args[1], context.get_constant(types.intp, start))
            where = _pointer(context, builder, signature.args[0], args[0], at, value.type)
            builder.store(value, where, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, even, odd), generate


def _transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """The transpose of a square block: in step d lanes change places with rows that differ in bit d."""
    n = len(rows)
    int32 = ir.IntType(32)
    d = 1
    while d < n:
        upper = [j if j & d == 0 else n + j - d for j in range(n)]
        lower = [j + d if j & d == 0 else n + j for j in range(n)]
        masks = [ir.Constant(ir.VectorType(int32, n), mask) for mask in (upper, lower)]
        for i in range(n):
            if i & d == 0:
                a, b = rows[i], rows[i + d]
                rows[i], rows[i + d] = (builder.shuffle_vector(a, b, mask) for mask in masks)
        d *= 2
    return rows


@intrinsic
def gather_block(typing: Any, source: Any, start: Any, offsets: Any, first: Any, target: Any, index: Any) -> Any:
    """target[index + lanes·t + l] = source[start + offsets[first + l] + t], t and l below the lanes of `target`.

    `source` may have a narrower or wider dtype than `target`.
    """
    vector = _vector_of(target.dtype)
    n = vector.lanes

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        intp = context.get_value_type(types.intp)
        narrow = ir.VectorType(context.get_value_type(source.dtype), n)
        places = make_array(kinds[2])(context, builder, args[2]).data
        rows = []
        for lane in range(n):
            at = builder.load(builder.gep(places, [builder.add(args[3], intp(lane))]))
            where = _pointer(context, builder, kinds[0], args[0], builder.add(args[1], at), narrow)
            row = builder.load(where, align=source.dtype.bitwidth // 8)
            rows.append(_converted(builder, row, source.dtype, target.dtype, n, context))
        for t, row in enumerate(_transposed(builder, rows)):
            at = builder.add(args[5], intp(t * n))
            where = _pointer(context, builder, kinds[4], args[4], at, row.type)
            builder.store(row, where, align=target.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(source, types.intp, offsets, types.intp, target, types.intp), generate


@intrinsic
def transpose_apart(
    typing: Any, source: Any, start: Any, apart: Any, target: Any, index: Any, target_apart: Any
) -> Any:
    """target[index + target_apart·l + t] = source[start + apart·t + l], a square block of one dtype."""
    vector = _vector_of(source.dtype)
    n = vector.lanes

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        intp = context.get_value_type(types.intp)
        kind = context.get_value_type(vector)
        align = source.dtype.bitwidth // 8

        def place(first: Any, step: Any, i: int) -> Any:
            return builder.add(first, builder.mul(step, intp(i)))

        rows = []
        for t in range(n):
            at = place(args[1], args[2], t)
            rows.append(builder.load(_pointer(context, builder, signature.args[0], args[0], at, kind), align=align))
        for lane, row in enumerate(_transposed(builder, rows)):
            at = place(args[4], args[5], lane)
            builder.store(row, _pointer(context, builder, signature.args[3], args[3], at, kind), align=align)
        return context.get_dummy_value()

    return types.void(source, types.intp, types.intp, target, types.intp, types.intp), generate


@inlined
def transpose_block(source, start, target, index):  # type: ignore[no-untyped-def]
    """target[index + lanes·l + t] = source[start + lanes·t + l], a square block of one dtype."""
    w = width(source)
    transpose_apart(source, start, w, target, index, w)
