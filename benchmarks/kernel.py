"""One layer, every conversion: X (1024, 1152) uint8 times W (1152, 256) int8, 128 rows, 2-bit cells, 1-bit inputs.

Beside the engines, in the same run: what a user without Bitline writes in plain torch (bit planes times cell slices by
float32 GEMM a row tile, clip, shift and add), the machine's population-count bound on the same number of words, and the
bare products (float32 GEMM, torch's int8 product) that know nothing of crossbars. Then one thread's sweeps over CP
rate, ADC bits, rows and cell bits. Every product is checked against the plain torch one, its saturations too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray

import bitline
from benchmarks.measure import median_seconds, thread_counts, use_threads
from benchmarks.workload import layer
from bitline.crossbar.encoding import encode
from bitline.crossbar.engines import LEAST_BITSLICED, Crossbars
from bitline.crossbar.kernels import popcount
from bitline.hardware import Hardware

DENSE, SATURATING = "dense weights, ADC 8 bits", "dense weights, ADC 6 bits (saturates)"
PRUNED = "CP rate 16, ADC as certified"
BOUND = "population-count bound, 1 thread"
WORDS = 4
"""Words counted for a conversion of the bound: 128 rows of 2-bit cells."""


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

    Column sums are at most rows times the largest level, far below 2^24, so the float32 products are exact.
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


class _Layer:
    """One product on one design, by every means; a measurement is named by how and by threads."""

    def __init__(self, x: NDArray[np.uint8], w: NDArray[np.int8], hw: Hardware) -> None:
        self.x, self.hw = x, hw
        self.bits = bitline.certify(w, hw).adc.bits
        self.crossbars = Crossbars(w, hw)
        self.product = self.crossbars.multiply(x)
        self.levels = torch.from_numpy(encode(w.astype(np.int32), hw).levels.astype(np.float32))
        y, saturations = self._plain()
        assert np.array_equal(y.numpy(), self.product.y), "the baseline disagrees"
        assert saturations == self.product.saturations, "the baseline counts other saturations"

    def measure(self, repeats: int) -> Iterator[tuple[str, dict[str, float]]]:
        """Seconds and conversions a second and core, with the threads that are set."""
        threads = numba.get_num_threads()
        # the same conversions by the kernel for few vectors, one after the other
        few = LEAST_BITSLICED - 1
        parts = [self.x[start : start + few] for start in range(0, len(self.x), few)]
        certified = self.crossbars.multiply(self.x, engine="certified")
        assert np.array_equal(certified.y, self.product.y), "the certified engine disagrees"
        assert certified.saturations == self.product.saturations, "the certified engine counts other saturations"
        assert certified.conversions == self.product.conversions, "the certified engine counts other conversions"
        works = {
            "bitserial": lambda: self.crossbars.multiply(self.x),
            "certified": lambda: self.crossbars.multiply(self.x, engine="certified"),
            "bitserial by population counts": lambda: [self.crossbars.multiply(part) for part in parts],
            "plain torch": self._plain,
        }
        for name, work in works.items():
            seconds = median_seconds(work, repeats=min(repeats, 3) if name == "plain torch" else repeats)
            yield (
                f"{name}, {threads} threads",
                seconds
                | {
                    "conversions": self.product.conversions,
                    "saturations": self.product.saturations,
                    "conversions_per_s_and_core": self.product.conversions / seconds["median"] / threads,
                },
            )

    def _plain(self) -> tuple[torch.Tensor, int]:
        return plain_torch(torch.from_numpy(self.x), self.levels, self.hw, self.bits)


def run(quick: bool = False) -> dict[str, Any]:
    """Measure the three layers at every thread count, the bound, the bare products, and the sweeps by one thread."""
    repeats = 1 if quick else 7
    hw = bitline.load_hardware("tinyadc")
    cases = {DENSE: (0, hw.replace(adc_bits=8)), SATURATING: (0, hw.replace(adc_bits=6)), PRUNED: (8, hw)}
    results: dict[str, Any] = {}
    for name, (nonzeros, design) in cases.items():
        product = _Layer(*layer(nonzeros, quick), design)
        results[name] = {"adc_bits": product.bits}
        for threads in thread_counts():
            use_threads(threads)
            results[name].update(product.measure(repeats))
    use_threads(1)
    results[BOUND] = bound(repeats)
    results["bare products"] = bare_products(quick, repeats)
    results["sweep"] = sweep(quick, 1 if quick else 5)
    return results


def bound(repeats: int) -> dict[str, float]:
    """The machine's population counts a second, as conversions of four words."""
    rng = np.random.default_rng(0)
    words = rng.integers(0, 1 << 63, (WORDS, 512), dtype=np.uint64)  # 16 KiB: stays in the first-level cache
    digits, sums = rng.integers(0, 1 << 63, 20000, dtype=np.uint64), np.zeros(512, np.int64)
    seconds = median_seconds(lambda: count_words(digits, words, sums), repeats)
    return seconds | {"conversions_per_s_and_core": digits.size * sums.size / seconds["median"]}


def bare_products(quick: bool, repeats: int) -> dict[str, Any]:
    """The product alone, no crossbars: float32 GEMM (not exact), and torch's int8 product (of inputs of 7 bits)."""
    x, w = layer(quick=quick)
    weights = torch.from_numpy(w)
    signed = torch.from_numpy((x >> 1).astype(np.int8))
    floats = torch.from_numpy(x).float(), weights.float()
    works = {
        "float32 GEMM": lambda: floats[0] @ floats[1],
        "torch._int_mm": lambda: torch._int_mm(signed, weights),
    }
    results = {}
    for threads in thread_counts():
        use_threads(threads)
        for name, work in works.items():
            results[f"{name}, {threads} threads"] = median_seconds(work, repeats)
    return results


def sweep(quick: bool, repeats: int) -> dict[str, Any]:
    """One thread over CP rate, ADC bits, rows of a crossbar and cell bits, everything else as in the first layer.

    The CP rate is of 128 rows, its ADC as certified; over rows and cell bits too, so that nothing saturates.
    """
    hw = bitline.load_hardware("tinyadc")
    points: dict[str, dict[int, tuple[int, Hardware]]] = {
        "CP rate": {rate: (0 if rate == 1 else 128 // rate, hw) for rate in (1, 2, 4, 8, 16, 32, 64)},
        "ADC bits": {bits: (0, hw.replace(adc_bits=bits)) for bits in (4, 5, 6, 7, 8, 9)},
        "rows": {rows: (0, hw.replace(rows=rows)) for rows in (32, 64, 128, 192, 256)},
        "cell bits": {bits: (0, hw.replace(cell_bits=bits)) for bits in (1, 2, 4)},
    }
    use_threads(1)
    results: dict[str, Any] = {}
    for over, values in points.items():
        for value, (nonzeros, design) in list(values.items())[: 2 if quick else None]:
            product = _Layer(*layer(nonzeros, quick), design)
            results.setdefault(over, {})[str(value)] = {
                "adc_bits": product.bits,
                "words_per_conversion": -(-design.rows // 64) * design.cell_bits,
            } | dict(product.measure(repeats))
    return results
