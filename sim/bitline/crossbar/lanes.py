"""1024 one-bit lanes as one value in Numba kernels: logic, loads and stores, packing and unpacking.

The lanes are 512 input vectors, twice: the left half is of an even input digit, the right half of the next one. Numba
has no vector type, and LLVM does not find these vectors by itself in loops over words. Here a value is LLVM's ``<16 x
i64>``: two registers with AVX-512, more elsewhere. A *number* is a tuple of values, its bits from the lowest one up: a
number a lane. Addresses are plain integers, because a kernel that takes arrays counts their references at every call;
whoever takes an array's address must keep the array alive. Without the compiler (``NUMBA_DISABLE_JIT=1``) a value is a
Python integer of 1024 bits.

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
    "DIGITS",
    "HALF",
    "PLANE",
    "VECTORS",
    "above",
    "add_number",
    "address",
    "any_set",
    "both",
    "clipped",
    "copy",
    "copy_every",
    "count_ones",
    "different",
    "full_add",
    "half_add",
    "increased",
    "inverted",
    "load",
    "load_left",
    "load_member",
    "load_word",
    "ones_beyond",
    "pack64",
    "right_half",
    "right_to_left",
    "store",
    "store_left",
    "store_word",
    "unpack64",
    "zeros",
]

VECTORS = 512
"""Input vectors converted together: the bits of the widest vector register."""

DIGITS = 2
"""Input digits converted together: a loop over cells then ends, unpredictably, half as often."""

HALF = VECTORS // 8
"""Bytes of a plane of one digit."""

PLANE = DIGITS * HALF
"""Bytes of a plane."""

_EASY_BITS = 31
"""Bits of a number that int32 holds, whatever the sign."""

_LEFT = (1 << VECTORS) - 1
_ALL = (1 << (DIGITS * VECTORS)) - 1

if config.DISABLE_JIT:  # type: ignore[attr-defined]
    # plain stand-ins of the vector operations below: the lanes are one Python integer, the left half its low bits

    def zeros() -> int:
        return 0

    def right_half() -> int:
        return _ALL ^ _LEFT

    def address(array: Any) -> int:
        return int(array.ctypes.data)

    def copy(target: int, source: int, count: int) -> None:
        ctypes.memmove(int(target), int(source), int(count))

    def copy_every(step: int, source: int, count: int, codes: Any, first: int) -> None:
        size = codes.itemsize
        bytes_read = ctypes.string_at(int(source), int(((count - 1) * step + 1) * size))
        codes[first : first + count] = np.frombuffer(bytes_read, codes.dtype)[::step]

    def load(address: int) -> int:
        return int.from_bytes(ctypes.string_at(int(address), PLANE), "little")

    def store(address: int, lanes: int) -> None:
        ctypes.memmove(int(address), lanes.to_bytes(PLANE, "little"), PLANE)

    def load_left(address: int) -> int:
        return int.from_bytes(ctypes.string_at(int(address), HALF), "little")

    def store_left(address: int, lanes: int) -> None:
        ctypes.memmove(int(address), (lanes & _LEFT).to_bytes(HALF, "little"), HALF)

    def load_word(table: int, k: int) -> int:
        return ctypes.c_int64.from_address(int(table + 8 * k)).value

    def store_word(table: int, k: int, value: int) -> None:
        ctypes.c_int64.from_address(int(table + 8 * k)).value = int(value)

    def load_member(inputs: int, members: int, k: int) -> int:
        return load(inputs + 8 * ctypes.c_uint16.from_address(int(members + 2 * k)).value)

    def full_add(a: int, b: int, c: int) -> tuple[int, int]:
        return a ^ b ^ c, (a & b) | (c & (a ^ b))

    def half_add(a: int, b: int) -> tuple[int, int]:
        return a ^ b, a & b

    def both(a: int, b: int) -> int:
        return a & b

    def different(a: int, b: int) -> int:
        return a ^ b

    def inverted(a: int) -> int:
        return a ^ _ALL

    def right_to_left(a: int) -> int:
        return a >> VECTORS

    def any_set(a: int) -> bool:
        return a != 0

    def count_ones(a: int) -> int:
        return a.bit_count()

    def _every_lane(words: int, b: int) -> int:
        return _ALL if ctypes.c_uint64.from_address(int(words) + 8 * b).value else 0

    def increased(number: tuple[int, ...], carry: int) -> tuple[int, ...]:
        bits = []
        for plane in number:
            total, carry = half_add(plane, carry)
            bits.append(total)
        return tuple(bits)

    def add_number(target: int, number: tuple[int, ...]) -> int:
        carry = 0
        for b, plane in enumerate(number):
            total, carry = full_add(load(target + b * PLANE), plane, carry)
            store(target + b * PLANE, total)
        return carry

    def above(number: tuple[int, ...], words: int) -> int:
        greater = 0
        for b, plane in enumerate(number):
            _, greater = full_add(plane, _every_lane(words, b), greater)
        return greater

    def ones_beyond(number: tuple[int, ...], words: int) -> int:
        over = 0
        for b, plane in enumerate(number):
            over |= plane & _every_lane(words, b)
        return over

    def clipped(number: tuple[int, ...], over: int, words: int) -> tuple[int, ...]:
        return tuple((plane | over) & inverted(_every_lane(words, b)) for b, plane in enumerate(number))

    def pack64(codes: Any, first: int, bit: Any) -> np.uint64:
        bits = (codes[first : first + 64].astype(np.uint64) >> np.uint64(bit)) & np.uint64(1)
        return np.uint64(int((bits << np.arange(64, dtype=np.uint64)).sum(dtype=np.uint64)))

    def unpack64(planes: int, bits: int, target: int) -> None:
        total = np.zeros(64, np.int64)
        for b in range(bits):
            word = np.uint64(ctypes.c_uint64.from_address(int(planes) + b * HALF).value)
            ones = ((word >> np.arange(64, dtype=np.uint64)) & np.uint64(1)).astype(np.int64)
            total += (ones << b) * (-1 if b == bits - 1 else 1)
        ctypes.memmove(int(target), total.tobytes(), total.nbytes)

else:
    # <8 x i64> is one register with AVX-512 and is split by LLVM elsewhere

    class _LanesType(types.Type):
        """Numba's name for 1024 one-bit lanes."""

        def __init__(self) -> None:
            super().__init__(name="Lanes1024")

    _LANES = _LanesType()
    _REGISTER = ir.VectorType(ir.IntType(64), 8)
    _VECTOR = ir.VectorType(ir.IntType(64), 16)
    _HAS_TERNARY_LOGIC = (
        not config.CPU_NAME and bool(config.ENABLE_AVX) and bool(get_host_cpu_features().get("avx512f"))  # type: ignore[attr-defined]
    )

    @register_model(_LanesType)
    class _LanesModel(models.PrimitiveModel):
        def __init__(self, manager: Any, lanes_type: Any) -> None:
            super().__init__(manager, lanes_type, _VECTOR)

    def _pointer(builder: ir.IRBuilder, address: Any, pointee: Any) -> Any:
        return builder.inttoptr(address, ir.PointerType(pointee))

    def _element(context: Any, builder: ir.IRBuilder, array_type: Any, array: Any, index: Any) -> Any:
        """Pointer to an element of a contiguous array, seen as flat."""
        return builder.gep(context.make_array(array_type)(context, builder, array).data, [index])

    def _load(builder: ir.IRBuilder, address: Any, vector: Any) -> Any:
        value = builder.load(_pointer(builder, address, vector))
        value.align = 8
        return value

    def _store(builder: ir.IRBuilder, address: Any, value: Any) -> None:
        builder.store(value, _pointer(builder, address, value.type)).align = 8

    def _offset(builder: ir.IRBuilder, address: Any, count: int) -> Any:
        return builder.add(address, ir.Constant(ir.IntType(64), count))

    def _shuffled(builder: ir.IRBuilder, a: Any, b: Any, order: list[int]) -> Any:
        indices = ir.Constant(ir.VectorType(ir.IntType(32), len(order)), order)
        return builder.shuffle_vector(a, b, indices)

    def _half(builder: ir.IRBuilder, lanes: Any, right: int) -> Any:
        return _shuffled(builder, lanes, ir.Constant(_VECTOR, ir.Undefined), list(range(8 * right, 8 * right + 8)))

    def _splat(builder: ir.IRBuilder, words: Any, b: int) -> Any:
        """Word b of a table in every word of the lanes."""
        word = builder.load(_pointer(builder, _offset(builder, words, 8 * b), ir.IntType(64)))
        undefined = ir.Constant(_VECTOR, ir.Undefined)
        single = builder.insert_element(undefined, word, ir.Constant(ir.IntType(32), 0))
        return _shuffled(builder, single, undefined, [0] * 16)

    def _ternary_logic(builder: ir.IRBuilder, a: Any, b: Any, c: Any, table: int) -> Any:
        """An AVX-512 instruction for any function of three bits; LLVM does not find it for a sum with its carry."""
        function_type = ir.FunctionType(_REGISTER, [_REGISTER, _REGISTER, _REGISTER, ir.IntType(32)])
        function = cgutils.get_or_insert_function(builder.module, function_type, "llvm.x86.avx512.pternlog.q.512")
        halves = [
            builder.call(function, [*(_half(builder, x, right) for x in (a, b, c)), ir.Constant(ir.IntType(32), table)])
            for right in (0, 1)
        ]
        return _shuffled(builder, halves[0], halves[1], list(range(16)))

    def _sum(builder: ir.IRBuilder, a: Any, b: Any, c: Any) -> Any:
        if _HAS_TERNARY_LOGIC:
            return _ternary_logic(builder, a, b, c, 0x96)
        return builder.xor(builder.xor(a, b), c)

    def _majority(builder: ir.IRBuilder, a: Any, b: Any, c: Any) -> Any:
        if _HAS_TERNARY_LOGIC:
            return _ternary_logic(builder, a, b, c, 0xE8)
        return builder.or_(builder.and_(a, b), builder.and_(builder.xor(a, b), c))

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
        return _LANES(), lambda context, builder, signature, args: ir.Constant(_VECTOR, [0] * 16)

    @intrinsic
    def right_half(typingctx: Any) -> Any:
        """The right half of the lanes."""
        return _LANES(), lambda context, builder, signature, args: ir.Constant(_VECTOR, [0] * 8 + [-1] * 8)

    @intrinsic
    def copy(typingctx: Any, target: Any, source: Any, count: Any) -> Any:
        """Copy bytes from one address to another."""

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            target, source = (_pointer(builder, place, ir.IntType(8)) for place in args[:2])
            cgutils.raw_memcpy(builder, target, source, args[2], 1)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64), codegen

    @intrinsic
    def copy_every(typingctx: Any, step: Any, source: Any, count: Any, codes: Any, first: Any) -> Any:
        """Copy every ``step``-th element from an address to a contiguous array, from its element ``first`` on."""

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            step, source, count, codes, first = args
            target = _element(context, builder, signature.args[3], codes, first)
            source = _pointer(builder, source, target.type.pointee)
            with cgutils.for_range(builder, count, intp=ir.IntType(64)) as loop:
                element = builder.load(builder.gep(source, [builder.mul(loop.index, step)]))
                builder.store(element, builder.gep(target, [loop.index]))
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64, codes, types.int64), codegen

    @intrinsic
    def load(typingctx: Any, address: Any) -> Any:
        """The plane at an address."""
        return _LANES(types.int64), lambda context, builder, signature, args: _load(builder, args[0], _VECTOR)

    @intrinsic
    def store(typingctx: Any, address: Any, lanes: Any) -> Any:
        """Write a plane to an address."""

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            _store(builder, *args)
            return context.get_dummy_value()

        return types.void(types.int64, _LANES), codegen

    @intrinsic
    def load_left(typingctx: Any, address: Any) -> Any:
        """The plane of one digit at an address, in the left half."""

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            half = _load(builder, args[0], _REGISTER)
            return _shuffled(builder, half, ir.Constant(_REGISTER, [0] * 8), list(range(16)))

        return _LANES(types.int64), codegen

    @intrinsic
    def store_left(typingctx: Any, address: Any, lanes: Any) -> Any:
        """Write the left half, a plane of one digit, to an address."""

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            _store(builder, args[0], _half(builder, args[1], 0))
            return context.get_dummy_value()

        return types.void(types.int64, _LANES), codegen

    @intrinsic
    def load_word(typingctx: Any, table: Any, k: Any) -> Any:
        """Entry k of a table of int64."""

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            return builder.load(builder.gep(_pointer(builder, args[0], ir.IntType(64)), [args[1]]))

        return types.int64(types.int64, types.int64), codegen

    @intrinsic
    def store_word(typingctx: Any, table: Any, k: Any, value: Any) -> Any:
        """Write entry k of a table of int64."""

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            builder.store(args[2], builder.gep(_pointer(builder, args[0], ir.IntType(64)), [args[1]]))
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64), codegen

    @intrinsic
    def load_member(typingctx: Any, inputs: Any, members: Any, k: Any) -> Any:
        """The plane of inputs that member k of a list names by its distance in words."""

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            inputs, members, k = args
            words = builder.zext(
                builder.load(builder.gep(_pointer(builder, members, ir.IntType(16)), [k])), ir.IntType(64)
            )
            distance = builder.mul(words, ir.Constant(ir.IntType(64), 8))
            return _load(builder, builder.add(inputs, distance), _VECTOR)

        return _LANES(types.int64, types.int64, types.int64), codegen

    @intrinsic
    def full_add(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
        """Sum and carry of three bits a lane."""

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            return context.make_tuple(builder, signature.return_type, [_sum(builder, *args), _majority(builder, *args)])

        return types.UniTuple(_LANES, 2)(_LANES, _LANES, _LANES), codegen

    @intrinsic
    def half_add(typingctx: Any, a: Any, b: Any) -> Any:
        """Sum and carry of two bits a lane."""

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            pair = [builder.xor(args[0], args[1]), builder.and_(args[0], args[1])]
            return context.make_tuple(builder, signature.return_type, pair)

        return types.UniTuple(_LANES, 2)(_LANES, _LANES), codegen

    @intrinsic
    def both(typingctx: Any, a: Any, b: Any) -> Any:
        """Lanes set in both."""
        return _LANES(_LANES, _LANES), lambda context, builder, signature, args: builder.and_(args[0], args[1])

    @intrinsic
    def different(typingctx: Any, a: Any, b: Any) -> Any:
        """Lanes set in one of two only."""
        return _LANES(_LANES, _LANES), lambda context, builder, signature, args: builder.xor(args[0], args[1])

    @intrinsic
    def inverted(typingctx: Any, a: Any) -> Any:
        """Lanes not set."""
        return _LANES(_LANES), lambda context, builder, signature, args: builder.not_(args[0])

    @intrinsic
    def right_to_left(typingctx: Any, a: Any) -> Any:
        """The right half in the left one, and none in the right one."""

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            return _shuffled(builder, args[0], ir.Constant(_VECTOR, [0] * 16), list(range(8, 24)))

        return _LANES(_LANES), codegen

    @intrinsic
    def increased(typingctx: Any, number: Any, carry: Any) -> Any:
        """A number plus one bit; what goes beyond its planes is lost."""

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            carry, planes = args[1], []
            for plane in cgutils.unpack_tuple(builder, args[0]):
                planes.append(builder.xor(plane, carry))
                carry = builder.and_(plane, carry)
            return context.make_tuple(builder, signature.return_type, planes)

        return number(number, _LANES), codegen

    @intrinsic
    def add_number(typingctx: Any, target: Any, number: Any) -> Any:
        """Add a number to the planes at an address; returns the carry."""

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            carry = ir.Constant(_VECTOR, [0] * 16)
            for b, plane in enumerate(cgutils.unpack_tuple(builder, args[1])):
                place = _offset(builder, args[0], b * PLANE)
                old = _load(builder, place, _VECTOR)
                _store(builder, place, _sum(builder, old, plane, carry))
                carry = _majority(builder, old, plane, carry)
            return carry

        return _LANES(types.int64, number), codegen

    @intrinsic
    def above(typingctx: Any, number: Any, words: Any) -> Any:
        """Lanes where a number is above a limit, of which word b at an address holds 64 times the inverse of bit b."""

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            greater = ir.Constant(_VECTOR, [0] * 16)
            for b, plane in enumerate(cgutils.unpack_tuple(builder, args[0])):
                greater = _majority(builder, plane, _splat(builder, args[1], b), greater)
            return greater

        return _LANES(number, types.int64), codegen

    @intrinsic
    def ones_beyond(typingctx: Any, number: Any, words: Any) -> Any:
        """Lanes where a number has a one in a plane b for which word b at an address is all ones, not zero."""

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            over = ir.Constant(_VECTOR, [0] * 16)
            for b, plane in enumerate(cgutils.unpack_tuple(builder, args[0])):
                over = builder.or_(over, builder.and_(plane, _splat(builder, args[1], b)))
            return over

        return _LANES(number, types.int64), codegen

    @intrinsic
    def clipped(typingctx: Any, number: Any, over: Any, words: Any) -> Any:
        """A number with ones in the lanes of ``over``, and zeros in the planes whose words (see above) are ones."""

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            planes = [
                builder.and_(builder.or_(plane, args[1]), builder.not_(_splat(builder, args[2], b)))
                for b, plane in enumerate(cgutils.unpack_tuple(builder, args[0]))
            ]
            return context.make_tuple(builder, signature.return_type, planes)

        return number(number, _LANES, types.int64), codegen

    @intrinsic
    def any_set(typingctx: Any, a: Any) -> Any:
        """Whether a lane is set."""

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            either = builder.or_(_half(builder, args[0], 0), _half(builder, args[0], 1))
            words = builder.icmp_unsigned("!=", either, ir.Constant(_REGISTER, [0] * 8))
            return builder.icmp_unsigned("!=", builder.bitcast(words, ir.IntType(8)), ir.Constant(ir.IntType(8), 0))

        return types.boolean(_LANES), codegen

    @intrinsic
    def count_ones(typingctx: Any, a: Any) -> Any:
        """Number of lanes set."""

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            count_type = ir.FunctionType(_VECTOR, [_VECTOR])
            count = cgutils.get_or_insert_function(builder.module, count_type, "llvm.ctpop.v16i64")
            sum_type = ir.FunctionType(ir.IntType(64), [_VECTOR])
            add = cgutils.get_or_insert_function(builder.module, sum_type, "llvm.vector.reduce.add.v16i64")
            return builder.call(add, [builder.call(count, args)])

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
    def unpack64(typingctx: Any, planes: Any, bits: Any, target: Any) -> Any:
        """Write 64 two's complement numbers as int64 to an address: of each plane of one digit a word."""

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            planes, bits, target = args
            i32, i64 = ir.IntType(32), ir.IntType(64)
            narrow, wide = ir.VectorType(i32, 64), ir.VectorType(i64, 64)
            words = ir.Constant(i64, HALF // 8)

            def splat(value: Any) -> Any:
                vector = ir.VectorType(value.type, 64)
                single = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(i32, 0))
                return _shuffled(builder, single, ir.Constant(vector, ir.Undefined), [0] * 64)

            numbers = cgutils.alloca_once_value(builder, ir.Constant(wide, [0] * 64))
            part = cgutils.alloca_once(builder, narrow)
            step = ir.Constant(i64, _EASY_BITS)
            # by 32-bit arithmetic, up to its sign bit, and then only widened
            with cgutils.for_range_slice(builder, ir.Constant(i64, 0), bits, step) as (first, _):
                end = builder.add(first, step)
                last = builder.select(builder.icmp_signed("<", end, bits), end, bits)
                builder.store(ir.Constant(narrow, [0] * 64), part)
                with cgutils.for_range_slice(builder, first, last, ir.Constant(i64, 1)) as (b, _):
                    word = builder.load(builder.gep(_pointer(builder, planes, i64), [builder.mul(b, words)]))
                    is_set = builder.bitcast(word, ir.VectorType(ir.IntType(1), 64))
                    weight = builder.shl(ir.Constant(i32, 1), builder.trunc(builder.sub(b, first), i32))
                    is_sign = builder.icmp_signed("==", builder.add(b, ir.Constant(i64, 1)), bits)
                    weight = splat(builder.select(is_sign, builder.neg(weight), weight))
                    addend = builder.select(is_set, weight, ir.Constant(narrow, [0] * 64))
                    builder.store(builder.add(builder.load(part), addend), part)
                shifted = builder.shl(builder.sext(builder.load(part), wide), splat(first))
                builder.store(builder.add(builder.load(numbers), shifted), numbers)
            _store(builder, target, builder.load(numbers))
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64), codegen
