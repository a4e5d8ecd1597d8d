"""Sums over the lanes of one row, and room for vectors that starts where a cache line does."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.extending import intrinsic

from .caching import inlined
from .simd import VECTOR_BYTES, width


@intrinsic(prefer_literal=True)
def exchanged(typing: Any, vector: Any, bit: Any) -> Any:
    """The vector with each lane replaced by the one whose number differs in `bit`, a constant power of two."""
    n, d = vector.lanes, bit.literal_value
    # A vector with fewer lanes has no such bit: code that is compiled but never reached.
    order = [lane ^ d if d < n else lane for lane in range(n)]

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = args[0].type
        mask = ir.Constant(ir.VectorType(ir.IntType(32), n), order)
        return builder.shuffle_vector(args[0], ir.Constant(kind, ir.Undefined), mask)

    return vector(vector, bit), generate


@inlined
def row_sum(vector, group):  # type: ignore[no-untyped-def]
    """In each lane the sum over the `group` <= 16 lanes of its row, a balanced tree."""
    if group > 1:
        vector = vector + exchanged(vector, 1)
    if group > 2:
        vector = vector + exchanged(vector, 2)
    if group > 4:
        vector = vector + exchanged(vector, 4)
    if group > 8:
        vector = vector + exchanged(vector, 8)
    return vector


@inlined
def aligned(like, count):  # type: ignore[no-untyped-def]
    """`count` numbers of the dtype of `like`; a vector that crosses cache lines costs two loads."""
    buffer = np.empty(count + width(like), like.dtype)
    skip = (-buffer.ctypes.data % VECTOR_BYTES) // buffer.itemsize
    return buffer[skip : skip + count]
