"""Tiles of a product of bytes in registers: unsigned codes times signed weights, summed in 32 bits, in Numba kernels.

A tile is some positions times one or two registers of 16 outputs. Its sums stay in registers while codes and weights
pass by, four rows of the weight matrix an instruction (AVX-512 VNNI's ``vpdpbusd``, which adds four products to 32 bits
without saturating on the way). Elsewhere LLVM makes of it what the processor has: the same integers, slower. Addresses
are plain integers, as in :mod:`bitline.crossbar.lanes`; without the compiler a tile is a NumPy product.

Numba's cache looks at the file of the kernel only: after a change here, touch the kernels' file.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = ["HAS_BYTE_DOTS", "LANES", "STEP", "byte_tile"]

LANES = 16
"""Outputs of a register: 32-bit sums in 512 bits."""
STEP = 4
"""Rows of the weight matrix an instruction multiplies."""

HAS_BYTE_DOTS: bool = not config.CPU_NAME and bool(get_host_cpu_features().get("avx512vnni"))  # type: ignore[attr-defined]
"""Whether this processor multiplies and adds bytes in one instruction: four times as many as float32 numbers."""


def byte_tile(positions: int, registers: int) -> Callable[..., None]:
    """Make the operation on tiles of so many positions and registers.

    ``tile(codes, step, offsets, runs, steps, weights, sums, sums_step)``, all int64: ``codes`` the address of the first
    position's codes, ``step`` bytes to the next position's; ``offsets`` the address of ``runs`` int64 distances, at
    each of which ``4 * steps`` codes are read; ``weights`` the address of (runs * steps, registers, 16, 4) int8;
    ``sums`` the address of the first position's 32-bit sums, overwritten, ``sums_step`` bytes to the next position's.
    """
    return _plain_tile(positions, registers) if config.DISABLE_JIT else _tile(positions, registers)  # type: ignore[attr-defined]


def _plain_tile(positions: int, registers: int) -> Callable[..., None]:
    def tile(
        codes: int, step: int, offsets: int, runs: int, steps: int, weights: int, sums: int, sums_step: int
    ) -> None:
        w = _read(weights, runs * steps * registers * LANES * STEP, np.int8)
        w = w.reshape(runs * steps, registers, LANES, STEP).transpose(0, 3, 1, 2).reshape(-1, registers * LANES)
        for p in range(positions):
            runs_at = [codes + p * step + int(offset) for offset in _read(offsets, 8 * runs, np.int64)]
            x = np.concatenate([_read(run, STEP * steps, np.uint8) for run in runs_at])
            y = (x.astype(np.int64) @ w.astype(np.int64)).astype(np.int32)
            ctypes.memmove(int(sums + p * sums_step), y.tobytes(), y.nbytes)

    return tile


def _read(address: int, size: int, dtype: Any) -> Any:
    return np.frombuffer(ctypes.string_at(int(address), int(size)), dtype)


def _tile(positions: int, registers: int) -> Callable[..., None]:
    i32, i64 = ir.IntType(32), ir.IntType(64)
    lanes = ir.VectorType(i32, LANES)

    def number(value: int) -> ir.Constant:
        return ir.Constant(i64, value)

    def at(builder: ir.IRBuilder, address: Any, pointee: Any) -> Any:
        return builder.inttoptr(address, ir.PointerType(pointee))

    def splat(builder: ir.IRBuilder, value: Any) -> Any:
        undefined = ir.Constant(lanes, ir.Undefined)
        single = builder.insert_element(undefined, value, ir.Constant(i32, 0))
        return builder.shuffle_vector(single, undefined, ir.Constant(lanes, [0] * LANES))

    def dot(builder: ir.IRBuilder, total: Any, codes: Any, weights: Any) -> Any:
        """Add the products of four unsigned bytes of ``codes`` and four signed ones of ``weights``, lane by lane."""
        if HAS_BYTE_DOTS:
            function_type = ir.FunctionType(lanes, [lanes, lanes, lanes])
            name = "llvm.x86.avx512.vpdpbusd.512"
            return builder.call(
                cgutils.get_or_insert_function(builder.module, function_type, name), [total, codes, weights]
            )
        for byte in range(STEP):
            code = builder.and_(
                builder.lshr(codes, ir.Constant(lanes, [8 * byte] * LANES)), ir.Constant(lanes, [255] * LANES)
            )
            weight = builder.shl(weights, ir.Constant(lanes, [24 - 8 * byte] * LANES))
            weight = builder.ashr(weight, ir.Constant(lanes, [24] * LANES))
            total = builder.add(total, builder.mul(code, weight))
        return total

    @intrinsic
    def tile(
        typingctx: Any,
        codes: Any,
        step: Any,
        offsets: Any,
        runs: Any,
        steps: Any,
        weights: Any,
        sums: Any,
        sums_step: Any,
    ) -> Any:
        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            codes, step, offsets, runs, steps, weights, sums, sums_step = args
            nothing = ir.Constant(lanes, [0] * LANES)
            totals = [[cgutils.alloca_once(builder, lanes) for _ in range(registers)] for _ in range(positions)]
            for total in (total for row in totals for total in row):
                builder.store(nothing, total)  # at every call: an alloca's own initial value is stored once a function
            rows = [codes]
            for _ in range(positions - 1):
                rows.append(builder.add(rows[-1], step))
            run_bytes = builder.mul(steps, number(registers * LANES * STEP))
            with cgutils.for_range(builder, runs) as run:
                distance = builder.load(builder.gep(at(builder, offsets, i64), [run.index]))
                first_weight = builder.add(weights, builder.mul(run.index, run_bytes))
                with cgutils.for_range(builder, steps) as place:
                    weight = builder.add(first_weight, builder.mul(place.index, number(registers * LANES * STEP)))
                    loaded = []
                    for register in range(registers):
                        address = builder.add(weight, number(register * LANES * STEP))
                        loaded.append(builder.load(at(builder, address, lanes)))
                        loaded[-1].align = 1
                    here = builder.add(distance, builder.mul(place.index, number(STEP)))
                    for row, mine in zip(rows, totals, strict=True):
                        four = builder.load(at(builder, builder.add(row, here), i32))
                        four.align = 1
                        for total, values in zip(mine, loaded, strict=True):
                            builder.store(dot(builder, builder.load(total), splat(builder, four), values), total)
            for position, mine in enumerate(totals):
                row = builder.add(sums, builder.mul(sums_step, number(position)))
                for register, total in enumerate(mine):
                    address = builder.add(row, number(register * LANES * 4))
                    builder.store(builder.load(total), at(builder, address, lanes)).align = 1
            return context.get_dummy_value()

        return types.void(*[types.int64] * 8), codegen

    return tile
