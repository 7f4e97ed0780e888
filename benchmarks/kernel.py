"""One layer, every conversion: X (1024, 1152) uint8 times W (1152, 256) int8, 128 rows, 2-bit cells, 1-bit inputs.

Beside the engines, in the same run: what a user without Bitline writes in plain torch (bit planes times cell slices by
float32 GEMM a row tile, clip, shift and add), what the machine allows (benchmarks/bounds.py), and the bare products
(float32 GEMM, torch's int8 product) that know nothing of crossbars. Then, by one thread, both engines with fewer ADC
bits than are certified, and sweeps over CP rate, ADC bits, rows and cell bits. Every product is checked against the
plain torch one, its saturations too; of a sweep the first vectors are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray

import bitline
from benchmarks.bounds import ADDER_BOUND, BYTE_BOUND, COUNT_BOUND, adder_rate, byte_rate, count_rate, full_adders
from benchmarks.measure import median_seconds, thread_counts, use_threads
from benchmarks.workload import layer
from bitline.crossbar.encoding import encode
from bitline.crossbar.engines import Crossbars, Product
from bitline.crossbar.matrices import LEAST_BITSLICED
from bitline.hardware import Hardware

DENSE, SATURATING = "dense weights, ADC 8 bits", "dense weights, ADC 6 bits (saturates)"
PRUNED = "CP rate 16, ADC as certified"
BARE, BELOW = "bare products", "dense weights, ADC below the certified resolution"
BASELINE_VECTORS = 256
"""Of the sweeps: the baseline runs so many of the input vectors, in calls of this size; its rate is hardly another."""


def plain_torch(
    x: torch.Tensor, levels: torch.Tensor, hw: Hardware, adc_bits: int, signed_inputs: bool = False
) -> tuple[torch.Tensor, int]:
    """How a user would do it: x (M, K) integers, levels (K, P, S, N) float32; returns y (M, N) int64 and saturations.

    Column sums are at most rows times the largest level, far below 2^24, so the float32 products are exact.
    """
    rows, _, slices, outputs = levels.shape
    limit = float((1 << adc_bits) - 1)
    y = torch.zeros(x.shape[0], outputs, dtype=torch.int64)
    saturations = 0
    for i in range(hw.input_bits):
        digit = ((x >> i) & 1).to(torch.float32)
        sign = -1 if signed_inputs and i == hw.input_bits - 1 else 1  # two's complement
        for start in range(0, rows, hw.rows):
            cells = levels[start : start + hw.rows].reshape(min(hw.rows, rows - start), -1)
            sums = digit[:, start : start + hw.rows] @ cells
            saturations += int((sums > limit).sum())
            codes = sums.clamp_(max=limit).to(torch.int64).reshape(-1, 2, slices, outputs)
            for j in range(slices):
                y += sign * ((codes[:, 0, j] - codes[:, 1, j]) << (i + hw.cell_bits * j))
    return y, saturations


class _Layer:
    """One product on one design, by every means; a measurement is named by how and by threads.

    The plain torch baseline runs the first ``baseline`` vectors only.
    """

    def __init__(self, x: NDArray[np.uint8], w: NDArray[np.int8], hw: Hardware, baseline: int | None = None) -> None:
        self.x, self.hw = x, hw
        self.bits = bitline.certify(w, hw).adc.bits
        self.crossbars = Crossbars(w, hw)
        self.product = self.crossbars.multiply(x)
        self.first = x[:baseline]
        self.levels = torch.from_numpy(encode(w.astype(np.int32), hw).levels.astype(np.float32))
        y, saturations = self._plain()
        self.counted = self.crossbars.multiply(self.first)
        assert np.array_equal(y.numpy(), self.product.y[: len(self.first)]), "the baseline disagrees"
        assert saturations == self.counted.saturations, "the baseline counts other saturations"

    def measure(self, repeats: int) -> Iterator[tuple[str, dict[str, float]]]:
        """Seconds and conversions a second and core, with the threads that are set."""
        # the same conversions by the kernel for few vectors, one after the other
        few = LEAST_BITSLICED - 1
        parts = [self.x[start : start + few] for start in range(0, len(self.x), few)]
        yield from self.engines(repeats)
        works = {
            "bitserial by population counts": lambda: [self.crossbars.multiply(part) for part in parts],
            "plain torch": self._plain,
        }
        for name, work in works.items():
            product = self.counted if name == "plain torch" else self.product
            yield _measured(name, work, product, min(repeats, 3) if name == "plain torch" else repeats)

    def engines(self, repeats: int) -> Iterator[tuple[str, dict[str, float]]]:
        """Both engines alone, compared."""
        certified = self.crossbars.multiply(self.x, engine="certified")
        assert np.array_equal(certified.y, self.product.y), "the certified engine disagrees"
        assert certified.saturations == self.product.saturations, "the certified engine counts other saturations"
        assert certified.conversions == self.product.conversions, "the certified engine counts other conversions"
        yield _measured("bitserial", lambda: self.crossbars.multiply(self.x), self.product, repeats)
        certify = partial(self.crossbars.multiply, self.x, engine="certified")
        yield _measured("certified", certify, self.product, repeats)

    def _plain(self) -> tuple[torch.Tensor, int]:
        return plain_torch(torch.from_numpy(self.first), self.levels, self.hw, self.bits)


def _measured(name: str, work: Callable[[], Any], product: Product, repeats: int) -> tuple[str, dict[str, float]]:
    """Seconds of a product by one means with the threads that are set, and what it converted."""
    threads = numba.get_num_threads()
    seconds = median_seconds(work, repeats)
    return f"{name}, {threads} threads", seconds | {
        "conversions": product.conversions,
        "saturations": product.saturations,
        "conversions_per_s_and_core": product.conversions / seconds["median"] / threads,
    }


def run(quick: bool = False) -> dict[str, Any]:
    """Measure the bounds, the bare products, the three layers at every thread count; the rest by one thread."""
    repeats = 1 if quick else 7
    hw = bitline.load_hardware("tinyadc")
    use_threads(1)
    rounds = [10] if quick else []
    adders, macs = adder_rate(repeats, *rounds), byte_rate(repeats, *rounds)
    results: dict[str, Any] = {
        COUNT_BOUND: count_rate(repeats),
        ADDER_BOUND: adders,
        BYTE_BOUND: macs,
        BARE: bare_products(quick, repeats),
    }
    cases = {DENSE: (0, hw.replace(adc_bits=8)), SATURATING: (0, hw.replace(adc_bits=6)), PRUNED: (8, hw)}
    for name, (nonzeros, design) in cases.items():
        x, w = layer(nonzeros, quick)
        product = _Layer(x, w, design)
        results[name] = {"adc_bits": product.bits}
        for threads in thread_counts():
            use_threads(threads)
            results[name].update(product.measure(repeats))
        results[name]["bounds"] = _bounds(product, full_adders(w, design.input_bits, len(x)), adders, macs)
    use_threads(1)
    results[BELOW] = below(quick, repeats)
    results["sweep"] = sweep(quick, 1 if quick else 5)
    return results


def _bounds(product: _Layer, count: float, adders: dict[str, float], macs: dict[str, float]) -> dict[str, float]:
    """Seconds that one thread needs at least, bit-serially by full adders and certified by products of bytes."""
    seconds = count / adders["full_adders_per_s_and_core"]
    bounds = {
        "full_adders": count,
        "full_adder_s": seconds,
        "full_adder_conversions_per_s_and_core": product.product.conversions / seconds,
    }
    if macs:
        bounds["byte_product_s"] = len(product.x) * product.crossbars.codes.size / macs["macs_per_s_and_core"]
    return bounds


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
            seconds = median_seconds(work, repeats)
            results[f"{name}, {threads} threads"] = seconds | {"macs_per_s": x.size * w.shape[1] / seconds["median"]}
    use_threads(1)
    return results


def below(quick: bool, repeats: int) -> dict[str, Any]:
    """Both engines on the dense layer with one, two and three ADC bits less than are certified, by ADC bits."""
    x, w = layer(quick=quick)
    hw = bitline.load_hardware("tinyadc")
    certified = bitline.certify(w, hw).bits
    results = {}
    for bits in (certified - 1, certified - 2, certified - 3)[: 1 if quick else None]:
        product = _Layer(x, w, hw.replace(adc_bits=bits), BASELINE_VECTORS)
        results[str(bits)] = {"certified_bits": certified} | dict(product.engines(repeats))
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
            x, w = layer(nonzeros, quick)
            product = _Layer(x, w, design, BASELINE_VECTORS)
            results.setdefault(over, {})[str(value)] = {
                "adc_bits": product.bits,
                "words_per_conversion": -(-design.rows // 64) * design.cell_bits,
                "full_adders": full_adders(w, design.input_bits, len(x)),
            } | dict(product.measure(repeats))
    return results
