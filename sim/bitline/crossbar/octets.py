"""Eight integers of 64 bits as one value in Numba kernels: logic, sums, population counts, loads and stores.

As :mod:`bitline.crossbar.lanes`, whose lanes are single bits: a value is LLVM's ``<8 x i64>``, one register with
AVX-512 and several elsewhere; addresses are plain integers; without the compiler a value is a Python integer.

Numba's cache looks at the file of the kernel only: after a change here, touch the kernels' file.
"""

from __future__ import annotations

import ctypes
from typing import Any

from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

__all__ = [
    "OCTET",
    "add",
    "both",
    "broadcast",
    "count_ones_each",
    "either",
    "larger",
    "load",
    "load_word",
    "positive",
    "shift_left",
    "shift_right",
    "store",
    "subtract",
    "zeros",
]

OCTET = 64
"""Bytes of a value."""

if config.DISABLE_JIT:  # type: ignore[attr-defined]
    # plain stand-ins of the vector operations below

    def zeros() -> int:
        return 0

    def load(address: int) -> int:
        return int.from_bytes(ctypes.string_at(int(address), 64), "little")

    def store(address: int, lanes: int) -> None:
        ctypes.memmove(int(address), lanes.to_bytes(64, "little"), 64)

    def either(a: int, b: int) -> int:
        return a | b

    def both(a: int, b: int) -> int:
        return a & b

    def _integers(a: int) -> list[int]:
        """The eight integers, signed."""
        words = [(a >> 64 * i) & 0xFFFFFFFFFFFFFFFF for i in range(8)]
        return [word - (word >> 63 << 64) for word in words]

    def _value(integers: Any) -> int:
        return sum((int(integer) & 0xFFFFFFFFFFFFFFFF) << 64 * i for i, integer in enumerate(integers))

    def load_word(address: int) -> int:
        return _value([ctypes.c_int64.from_address(int(address)).value] * 8)

    def broadcast(word: Any) -> int:
        return _value([word] * 8)

    def add(a: int, b: int) -> int:
        return _value(x + y for x, y in zip(_integers(a), _integers(b), strict=True))

    def subtract(a: int, b: int) -> int:
        return _value(x - y for x, y in zip(_integers(a), _integers(b), strict=True))

    def larger(a: int, b: int) -> int:
        return _value(map(max, _integers(a), _integers(b)))

    def shift_left(a: int, bits: int) -> int:
        return _value(x << int(bits) for x in _integers(a))

    def shift_right(a: int, bits: int) -> int:
        return _value((x & 0xFFFFFFFFFFFFFFFF) >> int(bits) for x in _integers(a))

    def count_ones_each(a: int) -> int:
        return _value((x & 0xFFFFFFFFFFFFFFFF).bit_count() for x in _integers(a))

    def positive(a: int) -> int:
        return sum(int(x > 0) << i for i, x in enumerate(_integers(a)))

else:
    # <8 x i64> is one register with AVX-512 and is split by LLVM elsewhere

    class _OctetType(types.Type):
        """Numba's name for eight integers."""

        def __init__(self) -> None:
            super().__init__(name="Octet")

    _OCTET = _OctetType()
    _VECTOR = ir.VectorType(ir.IntType(64), 8)

    @register_model(_OctetType)
    class _OctetModel(models.PrimitiveModel):
        def __init__(self, manager: Any, octet_type: Any) -> None:
            super().__init__(manager, octet_type, _VECTOR)

    def _pointer(builder: ir.IRBuilder, address: Any, pointee: Any) -> Any:
        return builder.inttoptr(address, ir.PointerType(pointee))

    @intrinsic
    def zeros(typingctx: Any) -> Any:
        """Eight zeros."""
        return _OCTET(), lambda context, builder, signature, args: ir.Constant(_VECTOR, [0] * 8)

    @intrinsic
    def load(typingctx: Any, address: Any) -> Any:
        """The plane at an address."""

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            value = builder.load(_pointer(builder, args[0], _VECTOR))
            value.align = 8
            return value

        return _OCTET(types.int64), codegen

    @intrinsic
    def store(typingctx: Any, address: Any, lanes: Any) -> Any:
        """Write a plane to an address."""

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            builder.store(args[1], _pointer(builder, args[0], _VECTOR)).align = 8
            return context.get_dummy_value()

        return types.void(types.int64, _OCTET), codegen

    @intrinsic
    def either(typingctx: Any, a: Any, b: Any) -> Any:
        """Lanes set in either."""
        return _OCTET(_OCTET, _OCTET), lambda context, builder, signature, args: builder.or_(args[0], args[1])

    @intrinsic
    def both(typingctx: Any, a: Any, b: Any) -> Any:
        """Lanes set in both."""
        return _OCTET(_OCTET, _OCTET), lambda context, builder, signature, args: builder.and_(args[0], args[1])

    def _splat(builder: ir.IRBuilder, word: Any) -> Any:
        undefined = ir.Constant(_VECTOR, ir.Undefined)
        single = builder.insert_element(undefined, word, ir.Constant(ir.IntType(32), 0))
        return builder.shuffle_vector(single, undefined, ir.Constant(ir.VectorType(ir.IntType(32), 8), [0] * 8))

    @intrinsic
    def broadcast(typingctx: Any, word: Any) -> Any:
        """Eight times the same 64 bits."""
        return _OCTET(types.uint64), lambda context, builder, signature, args: _splat(builder, args[0])

    @intrinsic
    def load_word(typingctx: Any, address: Any) -> Any:
        """Eight times the 64 bits at an address."""

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            return _splat(builder, builder.load(_pointer(builder, args[0], ir.IntType(64))))

        return _OCTET(types.int64), codegen

    @intrinsic
    def add(typingctx: Any, a: Any, b: Any) -> Any:
        """Sums of eight integers each."""
        return _OCTET(_OCTET, _OCTET), lambda context, builder, signature, args: builder.add(*args)

    @intrinsic
    def subtract(typingctx: Any, a: Any, b: Any) -> Any:
        """Differences of eight integers each."""
        return _OCTET(_OCTET, _OCTET), lambda context, builder, signature, args: builder.sub(*args)

    @intrinsic
    def larger(typingctx: Any, a: Any, b: Any) -> Any:
        """The larger of eight pairs of signed integers."""

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            return builder.select(builder.icmp_signed(">", *args), *args)

        return _OCTET(_OCTET, _OCTET), codegen

    @intrinsic
    def shift_left(typingctx: Any, a: Any, bits: Any) -> Any:
        """Eight integers, shifted left."""

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            return builder.shl(args[0], _splat(builder, args[1]))

        return _OCTET(_OCTET, types.int64), codegen

    @intrinsic
    def shift_right(typingctx: Any, a: Any, bits: Any) -> Any:
        """Eight unsigned integers, shifted right."""

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            return builder.lshr(args[0], _splat(builder, args[1]))

        return _OCTET(_OCTET, types.int64), codegen

    @intrinsic
    def count_ones_each(typingctx: Any, a: Any) -> Any:
        """Number of ones in each of eight integers."""

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            count_type = ir.FunctionType(_VECTOR, [_VECTOR])
            return builder.call(cgutils.get_or_insert_function(builder.module, count_type, "llvm.ctpop.v8i64"), args)

        return _OCTET(_OCTET), codegen

    @intrinsic
    def positive(typingctx: Any, a: Any) -> Any:
        """Which of eight signed integers are above 0, as bits."""

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            found = builder.icmp_signed(">", args[0], ir.Constant(_VECTOR, [0] * 8))
            return builder.zext(builder.bitcast(found, ir.IntType(8)), ir.IntType(64))

        return types.int64(_OCTET), codegen
