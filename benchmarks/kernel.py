"""One layer, every conversion: X (1024, 1152) uint8 times W (1152, 256) int8, 128 rows, 2-bit cells, 1-bit inputs.

Beside the engines, in the same run: what a user without Bitline writes in plain torch (bit planes times cell slices by
float32 GEMM a row tile, clip, shift and add), and the machine's population-count bound on the same number of words.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray

import bitline
from benchmarks.measure import median_seconds
from bitline.crossbar.encoding import encode
from bitline.crossbar.engines import LEAST_BITSLICED, Crossbars
from bitline.crossbar.kernels import popcount
from bitline.hardware import Hardware

VECTORS, ROWS, OUTPUTS = 1024, 1152, 256


@numba.njit
def count_words(digits, words, sums):  # type: ignore[no-untyped-def]
    """Population counts alone, without conversions: sums[c] += ones of (digit & words[q, c]), four words a column.

    Nothing is reduced across lanes, and words (4, C) and sums (C,) stay in the first-level cache.
    """
    w0, w1, w2, w3 = words[0], words[1], words[2], words[3]
    for m in range(digits.shape[0]):
        d = digits[m]
        for c in range(sums.shape[0]):
            sums[c] += popcount(d & w0[c]) + popcount(d & w1[c]) + popcount(d & w2[c]) + popcount(d & w3[c])


def plain_torch(x: torch.Tensor, levels: torch.Tensor, hw: Hardware, adc_bits: int) -> tuple[torch.Tensor, int]:
    """How a user would do it: x (M, K) uint8, levels (K, P, S, N) float32; returns y (M, N) int64 and saturations.

    Column sums are at most 384, far below 2^24, so the float32 products are exact.
    """
    rows, _, slices, outputs = levels.shape
    limit = float((1 << adc_bits) - 1)
    y = torch.zeros(x.shape[0], outputs, dtype=torch.int64)
    saturations = 0
    for i in range(hw.input_bits):
        digit = ((x >> i) & 1).to(torch.float32)
        for start in range(0, rows, hw.rows):
            cells = levels[start : start + hw.rows].reshape(min(hw.rows, rows - start), -1)
            sums = digit[:, start : start + hw.rows] @ cells
            saturations += int((sums > limit).sum())
            codes = sums.clamp_(max=limit).to(torch.int64).reshape(-1, 2, slices, outputs)
            for j in range(slices):
                y += (codes[:, 0, j] - codes[:, 1, j]) << (i + hw.cell_bits * j)
    return y, saturations


def cp_prune(w: NDArray[np.int8], nonzeros: int) -> NDArray[np.int8]:
    """Keep the largest magnitudes of every column of every 128 rows."""
    out = w.copy()
    for start in range(0, len(w), 128):
        block = out[start : start + 128]
        order = np.argsort(-np.abs(block.astype(np.int16)), axis=0, kind="stable")
        np.put_along_axis(block, order[nonzeros:], 0, axis=0)
    return out


def run() -> dict[str, Any]:
    """Measure; every product is checked against x @ w or against the plain torch one."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (VECTORS, ROWS), dtype=np.uint8)
    dense = rng.integers(-127, 128, (ROWS, OUTPUTS), dtype=np.int8)
    cases = {"dense weights, ADC 8 bits": (dense, 8), "dense weights, ADC 6 bits (saturates)": (dense, 6)}
    cases["CP rate 16, ADC as certified"] = (cp_prune(dense, 8), 0)
    results: dict[str, Any] = {}
    for name, (w, adc_bits) in cases.items():
        hw = bitline.load_hardware("tinyadc")
        if adc_bits:
            hw = hw.replace(adc_bits=adc_bits)
        bits = bitline.certify(w, hw).adc.bits
        crossbars = Crossbars(w, hw)
        levels = torch.from_numpy(encode(w.astype(np.int32), hw).levels.astype(np.float32))
        xt = torch.from_numpy(x)
        results[name] = {"adc_bits": bits}
        for threads in (1, numba.config.NUMBA_NUM_THREADS):
            numba.set_num_threads(threads)
            torch.set_num_threads(threads)
            for engine in ("bitserial", "certified"):
                product = crossbars.multiply(x, engine=engine)
                seconds = median_seconds(lambda c=crossbars, e=engine: c.multiply(x, engine=e))
                results[name][f"{engine}, {threads} threads"] = seconds | {
                    "conversions": product.conversions,
                    "saturations": product.saturations,
                    "conversions_per_s_and_core": product.conversions / seconds["median"] / threads,
                }
            # the same conversions by the kernel for few vectors, one after the other
            few = LEAST_BITSLICED - 1
            parts = [x[start : start + few] for start in range(0, VECTORS, few)]
            seconds = median_seconds(lambda c=crossbars, p=parts: [c.multiply(part) for part in p])
            results[name][f"bitserial by population counts, {threads} threads"] = seconds | {
                "conversions_per_s_and_core": product.conversions / seconds["median"] / threads
            }
            y, saturations = plain_torch(xt, levels, hw, bits)
            assert np.array_equal(y.numpy(), product.y), "the baseline disagrees"
            assert saturations == product.saturations, "the baseline counts other saturations"
            seconds = median_seconds(lambda a=xt, b=levels, h=hw, n=bits: plain_torch(a, b, h, n), repeats=3)
            results[name][f"plain torch, {threads} threads"] = seconds | {
                "conversions_per_s_and_core": product.conversions / seconds["median"] / threads
            }
    words = rng.integers(0, 1 << 63, (4, 512), dtype=np.uint64)  # 16 KiB: stays in the first-level cache
    digits, sums = rng.integers(0, 1 << 63, 20000, dtype=np.uint64), np.zeros(512, np.int64)
    bound = median_seconds(lambda: count_words(digits, words, sums))
    # 128 rows of 2-bit cells: 4 words a conversion
    results["population-count bound, 1 thread"] = bound | {
        "conversions_per_s_and_core": digits.size * sums.size / bound["median"]
    }
    return results
