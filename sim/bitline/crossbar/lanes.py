"""512 one-bit lanes, or eight integers of 64 bits, as one value in Numba kernels: logic, sums, loads, stores, packing.

Numba has no vector type, and LLVM does not find these vectors by itself in loops over words. Here a value is LLVM's
``<8 x i64>``: one register with AVX-512, several elsewhere. Addresses are plain integers, because a kernel that takes
arrays counts their references at every call; whoever takes an array's address must keep the array alive. Without the
compiler (``NUMBA_DISABLE_JIT=1``) a value is a Python integer of 512 bits.

Numba's cache looks at the file of the kernel only: after a change here, touch the kernels' file.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

__all__ = [
    "PLANE",
    "VECTORS",
    "add",
    "address",
    "any_set",
    "both",
    "broadcast",
    "count_ones",
    "count_ones_each",
    "either",
    "full_add",
    "half_add",
    "inverted",
    "larger",
    "load",
    "load_member",
    "load_word",
    "pack64",
    "positive",
    "shift_left",
    "shift_right",
    "store",
    "subtract",
    "unpack64",
    "zeros",
]

VECTORS = 512
"""Input vectors converted together: the bits of the widest vector register."""

PLANE = 64
"""Bytes of a plane."""

_ALL = (1 << VECTORS) - 1

if config.DISABLE_JIT:  # type: ignore[attr-defined]
    # plain stand-ins of the vector operations below: 512 lanes are one Python integer

    def zeros() -> int:
        return 0

    def address(array: Any) -> int:
        return int(array.ctypes.data)

    def load(address: int) -> int:
        return int.from_bytes(ctypes.string_at(int(address), 64), "little")

    def store(address: int, lanes: int) -> None:
        ctypes.memmove(int(address), lanes.to_bytes(64, "little"), 64)

    def load_member(inputs: int, members: int, k: int) -> int:
        return load(inputs + ctypes.c_int32.from_address(int(members + 4 * k)).value)

    def full_add(a: int, b: int, c: int) -> tuple[int, int]:
        return a ^ b ^ c, (a & b) | (c & (a ^ b))

    def half_add(a: int, b: int) -> tuple[int, int]:
        return a ^ b, a & b

    def either(a: int, b: int) -> int:
        return a | b

    def both(a: int, b: int) -> int:
        return a & b

    def inverted(a: int) -> int:
        return a ^ _ALL

    def any_set(a: int) -> bool:
        return a != 0

    def count_ones(a: int) -> int:
        return a.bit_count()

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

    def pack64(codes: Any, first: int, bit: Any) -> np.uint64:
        bits = (codes[first : first + 64].astype(np.uint64) >> np.uint64(bit)) & np.uint64(1)
        return np.uint64(int((bits << np.arange(64, dtype=np.uint64)).sum(dtype=np.uint64)))

    def unpack64(planes: Any, word: int, first: int, last: int, negative: bool, values: Any) -> None:
        total = np.zeros(64, np.int64)
        for row in range(first, last):
            weight = -(1 << (row - first)) if negative and row == last - 1 else 1 << (row - first)
            total += ((planes[row, word] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)).astype(np.int64) * weight
        values[64 * word : 64 * word + 64] += total << first

else:
    # <8 x i64> is one register with AVX-512 and is split by LLVM elsewhere

    class _LanesType(types.Type):
        """Numba's name for 512 one-bit lanes."""

        def __init__(self) -> None:
            super().__init__(name="Lanes512")

    _LANES = _LanesType()
    _VECTOR = ir.VectorType(ir.IntType(64), 8)
    _HAS_TERNARY_LOGIC = not config.CPU_NAME and bool(get_host_cpu_features().get("avx512f"))  # type: ignore[attr-defined]

    @register_model(_LanesType)
    class _LanesModel(models.PrimitiveModel):
        def __init__(self, manager: Any, lanes_type: Any) -> None:
            super().__init__(manager, lanes_type, _VECTOR)

    def _pointer(builder: ir.IRBuilder, address: Any, pointee: Any) -> Any:
        return builder.inttoptr(address, ir.PointerType(pointee))

    def _element(context: Any, builder: ir.IRBuilder, array_type: Any, array: Any, index: Any) -> Any:
        """Pointer to an element of a contiguous array, seen as flat."""
        return builder.gep(context.make_array(array_type)(context, builder, array).data, [index])

    @intrinsic
    def address(typingctx: Any, array: Any) -> Any:
        """Where an array's data begins: kernels that take arrays count references at every call, numbers are free."""

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            data = context.make_array(signature.args[0])(context, builder, args[0]).data
            return builder.ptrtoint(data, ir.IntType(64))

        return types.int64(array), codegen

    @intrinsic
    def zeros(typingctx: Any) -> Any:
        """No lane set."""
        return _LANES(), lambda context, builder, signature, args: ir.Constant(_VECTOR, [0] * 8)

    @intrinsic
    def load(typingctx: Any, address: Any) -> Any:
        """The plane at an address."""

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            value = builder.load(_pointer(builder, args[0], _VECTOR))
            value.align = 8
            return value

        return _LANES(types.int64), codegen

    @intrinsic
    def store(typingctx: Any, address: Any, lanes: Any) -> Any:
        """Write a plane to an address."""

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            builder.store(args[1], _pointer(builder, args[0], _VECTOR)).align = 8
            return context.get_dummy_value()

        return types.void(types.int64, _LANES), codegen

    @intrinsic
    def load_member(typingctx: Any, inputs: Any, members: Any, k: Any) -> Any:
        """The plane of inputs that member k of a list names by its distance in bytes."""

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            inputs, members, k = args
            distance = builder.load(builder.gep(_pointer(builder, members, ir.IntType(32)), [k]))
            address = builder.add(inputs, builder.zext(distance, ir.IntType(64)))
            value = builder.load(_pointer(builder, address, _VECTOR))
            value.align = 8
            return value

        return _LANES(types.int64, types.int64, types.int64), codegen

    def _ternary_logic(builder: ir.IRBuilder, a: Any, b: Any, c: Any, table: int) -> Any:
        """One AVX-512 instruction for any function of three bits; LLVM does not find it for a sum with its carry."""
        function_type = ir.FunctionType(_VECTOR, [_VECTOR, _VECTOR, _VECTOR, ir.IntType(32)])
        function = cgutils.get_or_insert_function(builder.module, function_type, "llvm.x86.avx512.pternlog.q.512")
        return builder.call(function, [a, b, c, ir.Constant(ir.IntType(32), table)])

    @intrinsic
    def full_add(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
        """Sum and carry of three bits a lane."""

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            a, b, c = args
            if _HAS_TERNARY_LOGIC:
                pair = [_ternary_logic(builder, a, b, c, 0x96), _ternary_logic(builder, a, b, c, 0xE8)]
            else:
                differ = builder.xor(a, b)
                carry = builder.or_(builder.and_(a, b), builder.and_(differ, c))
                pair = [builder.xor(differ, c), carry]
            return context.make_tuple(builder, signature.return_type, pair)

        return types.UniTuple(_LANES, 2)(_LANES, _LANES, _LANES), codegen

    @intrinsic
    def half_add(typingctx: Any, a: Any, b: Any) -> Any:
        """Sum and carry of two bits a lane."""

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            pair = [builder.xor(args[0], args[1]), builder.and_(args[0], args[1])]
            return context.make_tuple(builder, signature.return_type, pair)

        return types.UniTuple(_LANES, 2)(_LANES, _LANES), codegen

    @intrinsic
    def either(typingctx: Any, a: Any, b: Any) -> Any:
        """Lanes set in either."""
        return _LANES(_LANES, _LANES), lambda context, builder, signature, args: builder.or_(args[0], args[1])

    @intrinsic
    def both(typingctx: Any, a: Any, b: Any) -> Any:
        """Lanes set in both."""
        return _LANES(_LANES, _LANES), lambda context, builder, signature, args: builder.and_(args[0], args[1])

    @intrinsic
    def inverted(typingctx: Any, a: Any) -> Any:
        """Lanes not set."""
        return _LANES(_LANES), lambda context, builder, signature, args: builder.not_(args[0])

    @intrinsic
    def any_set(typingctx: Any, a: Any) -> Any:
        """Whether a lane is set."""

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            words = builder.icmp_unsigned("!=", args[0], ir.Constant(_VECTOR, [0] * 8))
            return builder.icmp_unsigned("!=", builder.bitcast(words, ir.IntType(8)), ir.Constant(ir.IntType(8), 0))

        return types.boolean(_LANES), codegen

    @intrinsic
    def count_ones(typingctx: Any, a: Any) -> Any:
        """Number of lanes set."""

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            count_type = ir.FunctionType(_VECTOR, [_VECTOR])
            count = cgutils.get_or_insert_function(builder.module, count_type, "llvm.ctpop.v8i64")
            sum_type = ir.FunctionType(ir.IntType(64), [_VECTOR])
            add = cgutils.get_or_insert_function(builder.module, sum_type, "llvm.vector.reduce.add.v8i64")
            return builder.call(add, [builder.call(count, args)])

        return types.int64(_LANES), codegen

    def _splat(builder: ir.IRBuilder, word: Any) -> Any:
        undefined = ir.Constant(_VECTOR, ir.Undefined)
        single = builder.insert_element(undefined, word, ir.Constant(ir.IntType(32), 0))
        return builder.shuffle_vector(single, undefined, ir.Constant(ir.VectorType(ir.IntType(32), 8), [0] * 8))

    @intrinsic
    def broadcast(typingctx: Any, word: Any) -> Any:
        """Eight times the same 64 bits."""
        return _LANES(types.uint64), lambda context, builder, signature, args: _splat(builder, args[0])

    @intrinsic
    def load_word(typingctx: Any, address: Any) -> Any:
        """Eight times the 64 bits at an address."""

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            return _splat(builder, builder.load(_pointer(builder, args[0], ir.IntType(64))))

        return _LANES(types.int64), codegen

    @intrinsic
    def add(typingctx: Any, a: Any, b: Any) -> Any:
        """Sums of eight integers each."""
        return _LANES(_LANES, _LANES), lambda context, builder, signature, args: builder.add(*args)

    @intrinsic
    def subtract(typingctx: Any, a: Any, b: Any) -> Any:
        """Differences of eight integers each."""
        return _LANES(_LANES, _LANES), lambda context, builder, signature, args: builder.sub(*args)

    @intrinsic
    def larger(typingctx: Any, a: Any, b: Any) -> Any:
        """The larger of eight pairs of signed integers."""

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            return builder.select(builder.icmp_signed(">", *args), *args)

        return _LANES(_LANES, _LANES), codegen

    @intrinsic
    def shift_left(typingctx: Any, a: Any, bits: Any) -> Any:
        """Eight integers, shifted left."""

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            return builder.shl(args[0], _splat(builder, args[1]))

        return _LANES(_LANES, types.int64), codegen

    @intrinsic
    def shift_right(typingctx: Any, a: Any, bits: Any) -> Any:
        """Eight unsigned integers, shifted right."""

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            return builder.lshr(args[0], _splat(builder, args[1]))

        return _LANES(_LANES, types.int64), codegen

    @intrinsic
    def count_ones_each(typingctx: Any, a: Any) -> Any:
        """Number of ones in each of eight integers."""

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            count_type = ir.FunctionType(_VECTOR, [_VECTOR])
            return builder.call(cgutils.get_or_insert_function(builder.module, count_type, "llvm.ctpop.v8i64"), args)

        return _LANES(_LANES), codegen

    @intrinsic
    def positive(typingctx: Any, a: Any) -> Any:
        """Which of eight signed integers are above 0, as bits."""

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            found = builder.icmp_signed(">", args[0], ir.Constant(_VECTOR, [0] * 8))
            return builder.zext(builder.bitcast(found, ir.IntType(8)), ir.IntType(64))

        return types.int64(_LANES), codegen

    @intrinsic
    def pack64(typingctx: Any, codes: Any, first: Any, bit: Any) -> Any:
        """One bit of 64 consecutive codes of a contiguous array as a word."""

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            pointer = _element(context, builder, signature.args[0], args[0], args[1])
            element = pointer.type.pointee
            vector = ir.VectorType(element, 64)
            values = builder.load(builder.bitcast(pointer, vector.as_pointer()))
            values.align = element.width // 8
            mask = builder.shl(ir.Constant(element, 1), builder.trunc(args[2], element))
            single = builder.insert_element(ir.Constant(vector, ir.Undefined), mask, ir.Constant(ir.IntType(32), 0))
            zeros = ir.Constant(ir.VectorType(ir.IntType(32), 64), [0] * 64)
            splat = builder.shuffle_vector(single, ir.Constant(vector, ir.Undefined), zeros)
            is_set = builder.icmp_unsigned("!=", builder.and_(values, splat), ir.Constant(vector, [0] * 64))
            return builder.bitcast(is_set, ir.IntType(64))

        return types.uint64(codes, types.intp, types.int64), codegen

    @intrinsic
    def unpack64(typingctx: Any, planes: Any, word: Any, first: Any, last: Any, negative: Any, values: Any) -> Any:
        """Add 64 numbers, bits ``first`` to ``last - 1`` (31 at most) of a word of the planes, to int64 values.

        The last bit counts negatively where asked for (two's complement).
        """

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            planes, word, first, last, negative, values = args
            i32, i64 = ir.IntType(32), ir.IntType(64)
            narrow, wide = ir.VectorType(i32, 64), ir.VectorType(i64, 64)

            def splat(value: Any, vector: Any) -> Any:
                undefined = ir.Constant(vector, ir.Undefined)
                single = builder.insert_element(undefined, value, ir.Constant(i32, 0))
                return builder.shuffle_vector(single, undefined, ir.Constant(narrow, [0] * 64))

            total = cgutils.alloca_once(builder, narrow)
            builder.store(ir.Constant(narrow, [0] * 64), total)
            data = context.make_array(signature.args[0])(context, builder, planes).data
            top = builder.sub(last, ir.Constant(i64, 1))
            with cgutils.for_range_slice(builder, first, last, ir.Constant(i64, 1)) as (row, _):
                index = builder.add(builder.mul(row, ir.Constant(i64, 8)), word)
                bits = builder.bitcast(builder.load(builder.gep(data, [index])), ir.VectorType(ir.IntType(1), 64))
                weight = builder.shl(ir.Constant(i32, 1), builder.trunc(builder.sub(row, first), i32))
                is_negative = builder.and_(negative, builder.icmp_signed("==", row, top))
                weight = builder.select(is_negative, builder.neg(weight), weight)
                addend = builder.select(bits, splat(weight, narrow), ir.Constant(narrow, [0] * 64))
                builder.store(builder.add(builder.load(total), addend), total)
            target = _element(context, builder, signature.args[5], values, builder.mul(word, ir.Constant(i64, 64)))
            target = builder.bitcast(target, wide.as_pointer())
            old = builder.load(target)
            old.align = 8
            shifted = builder.shl(builder.sext(builder.load(total), wide), splat(first, wide))
            builder.store(builder.add(old, shifted), target).align = 8
            return context.get_dummy_value()

        signature = types.void(planes, types.intp, types.intp, types.intp, types.boolean, values)
        return signature, codegen
