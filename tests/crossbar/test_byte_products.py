"""Products of bytes: equal to plain integers for every window, tile and range, at the bound, from reals to reals."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import config, get_num_threads, set_num_threads
from tests.reference import convolve

from bitline.crossbar import byte_products
from bitline.crossbar.byte_products import ByteProducts
from bitline.crossbar.rescaling import dequantise_rows, quantise_lines
from bitline.layers import Window

WINDOWS = [
    Window(),
    Window(stride=(2, 3)),
    Window(kernel=(3, 3)),
    Window(kernel=(3, 2), stride=(2, 1), dilation=(1, 2)),
    Window(kernel=(1, 5), dilation=(3, 1)),
    Window(kernel=(2, 2), stride=(1, 2), dilation=(2, 1)),
]


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize(("groups", "channels", "outputs"), [(1, 3, 10), (1, 4, 17), (2, 5, 33), (3, 1, 4)])
@pytest.mark.parametrize("code_range", [(0, 255), (-128, 127), (-4, 3), (0, 1)])
def test_every_window(window: Window, groups: int, channels: int, outputs: int, code_range: tuple[int, int]) -> None:
    rng = np.random.default_rng(7)
    w = rng.integers(-128, 128, size=(groups, channels * window.kernel[0] * window.kernel[1], outputs))
    x = rng.integers(code_range[0], code_range[1] + 1, size=(2, 7, 11, groups * channels))
    np.testing.assert_array_equal(ByteProducts(w, window, code_range).convolve_codes(x), convolve(x, w, window))


@given(
    vectors=st.integers(0, 70),
    rows=st.integers(1, 20),
    outputs=st.integers(1, 70),
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from([np.uint8, np.int64]),
)
def test_every_tile(vectors: int, rows: int, outputs: int, seed: int, dtype: Any) -> None:
    """Positions and outputs that fill whole tiles of registers, and that do not."""
    rng = np.random.default_rng(seed)
    x, w = rng.integers(0, 256, (vectors, rows)), rng.integers(-128, 128, (rows, outputs))
    y = ByteProducts(w[None], Window(), (0, 255)).multiply(x.astype(dtype))
    assert y.dtype == np.int64
    np.testing.assert_array_equal(y, x @ w)


@pytest.mark.parametrize(("code", "code_range"), [(255, (0, 255)), (-128, (-128, 127)), (127, (-128, 127))])
def test_exact_at_the_bound(code: int, code_range: tuple[int, int]) -> None:
    """255 * 8421504 = 2^31 - 128: the largest sum of magnitudes whose products 32 bits hold."""
    w = np.zeros((66312, 2), np.int64)
    w[:66311, 0] = 127
    w[66311, 0] = 7
    w[:, 1] = -w[:, 0]
    assert np.abs(w).sum(axis=0).tolist() == [8421504, 8421504]
    products = ByteProducts(w[None], Window(), code_range)
    x = np.full((1, len(w)), code)
    assert products.multiply(x).tolist() == [[8421504 * code, -8421504 * code]]


def test_what_is_supported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byte_products, "HAS_BYTE_DOTS", True)
    w = np.full((1, 66312, 1), 127)
    w[0, 66311] = 7
    assert ByteProducts.supports(w, (0, 255))
    assert ByteProducts.supports(w, (-128, 127))
    w[0, 66311] = 8  # 255 * 8421505 = 2^31 + 127
    assert not ByteProducts.supports(w, (0, 255))
    small = np.ones((1, 4, 2), np.int32)
    assert ByteProducts.supports(small, (0, 255))
    assert ByteProducts.supports(-128 * small, (0, 255))
    assert not ByteProducts.supports(128 * small, (0, 255))
    assert not ByteProducts.supports(-129 * small, (0, 255))
    assert not ByteProducts.supports(small, (0, 256))
    assert not ByteProducts.supports(small[:, :0], (0, 255))
    assert not ByteProducts.supports(np.ones((8, 9, 1), np.int32), (0, 255))  # a depthwise layer
    monkeypatch.setattr(byte_products, "HAS_BYTE_DOTS", False)
    assert not ByteProducts.supports(small, (0, 255))


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("padding", [(0, 0, 0, 0), (2, 1, 0, 3)])
@pytest.mark.parametrize("code_range", [(0, 255), (-8, 7)])
def test_from_reals_to_reals(window: Window, padding: tuple[int, int, int, int], code_range: tuple[int, int]) -> None:
    """Quantising, multiplying and rescaling one after the other gives the same bits."""
    rng = np.random.default_rng(1)
    w = rng.integers(-128, 128, size=(2, 3 * window.kernel[0] * window.kernel[1], 5))
    x = (rng.integers(-600, 600, size=(3, 8, 13, 6)) * 0.25).astype(np.float32)  # ties among them
    scale, bias = rng.random(10) * 1e-3, rng.normal(size=10)
    left, right, top, bottom = padding
    codes = np.empty((3, top + 8 + bottom, left + 13 + right, 6), np.int64)
    lines = codes.reshape(*codes.shape[:2], -1)
    assert quantise_lines(x.reshape(3, 8, -1), 0.5, code_range, lines, first=-top, left=6 * left)
    products = convolve(codes, w, window)
    expected = np.empty(products.shape, np.float32)
    dequantise_rows(products, scale, bias, expected)
    for dtype in (np.float32, np.float64):
        y = ByteProducts(w, window, code_range).convolve_reals(x.astype(dtype), padding, 0.5, scale, bias)
        assert y is not None
        assert y.shape[:3] == (3, *window.output_size(*codes.shape[1:3]))
        np.testing.assert_array_equal(y.reshape(-1, 10).view(np.int32), expected.view(np.int32))


def test_bands_and_threads_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    w, x = rng.integers(-128, 128, (1, 18, 20)), rng.normal(size=(3, 9, 10, 2)).astype(np.float32)
    products = ByteProducts(w, Window(kernel=(3, 3), stride=(2, 1)), (0, 255))
    codes = rng.integers(0, 256, (3, 9, 10, 2))
    whole_codes = products.convolve_codes(codes)
    padding, scale = (1, 1, 1, 1), np.ones(20)
    whole, threads = products.convolve_reals(x, padding, 0.01, scale, scale), get_num_threads()
    for band_bytes in (1, 60, 1 << 20):
        monkeypatch.setattr(byte_products, "_BAND_BYTES", band_bytes)
        for number in range(1, threads + 1):
            try:
                set_num_threads(number)
                np.testing.assert_array_equal(products.convolve_reals(x, padding, 0.01, scale, scale), whole)
                np.testing.assert_array_equal(products.convolve_codes(codes), whole_codes)
            finally:
                set_num_threads(threads)


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")  # without the compiler, NumPy warns
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("window", [Window(), Window(kernel=(2, 2))])
def test_what_is_not_finite_is_seen(value: float, window: Window) -> None:
    products = ByteProducts(np.ones((1, 3 * window.kernel[0] * window.kernel[1], 2), int), window, (0, 255))
    x, one = np.zeros((2, 12, 9, 3)), np.ones(2)
    assert products.convolve_reals(x, (0, 0, 0, 0), 1.0, one, one) is not None
    x[1, 11, 8, 2] = value
    assert products.convolve_reals(x, (0, 0, 0, 0), 1.0, one, one) is None


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
@pytest.mark.parametrize("band_bytes", [1, 60, 1 << 20])
def test_what_no_window_reads_must_be_finite_too(band_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines between windows, between tasks and after the last window: the answer does not depend on the tasks."""
    monkeypatch.setattr(byte_products, "_BAND_BYTES", band_bytes)
    products, one = ByteProducts(np.ones((1, 4, 2), int), Window(kernel=(2, 1), stride=(4, 3)), (0, 255)), np.ones(2)
    for line in range(13):  # windows read lines 0, 1, 4, 5, 8 and 9 with the margin
        x = np.zeros((2, 13, 5, 2))
        x[1, line, 4, 1] = np.nan
        assert products.convolve_reals(x, (0, 0, 1, 0), 1.0, one, one) is None


def test_no_images() -> None:
    products, one = ByteProducts(np.ones((1, 18, 5), int), Window(kernel=(3, 3)), (0, 255)), np.ones(5)
    y = products.convolve_reals(np.zeros((0, 4, 6, 2), np.float32), (1, 1, 1, 1), 1.0, one, one)
    assert y is not None
    assert y.shape == (0, 4, 6, 5)
    assert products.convolve_codes(np.zeros((0, 4, 6, 2), np.uint8)).shape == (0, 5)


def test_a_compiler_without_avx() -> None:
    """LLVM would end the process: it cannot split the instruction."""
    program = "from bitline.crossbar.byte_tiles import HAS_BYTE_DOTS\nassert not HAS_BYTE_DOTS\n"
    environment = os.environ | {"NUMBA_ENABLE_AVX": "0"}
    assert subprocess.run([sys.executable, "-c", program], env=environment, check=False).returncode == 0


@pytest.mark.skipif(config.DISABLE_JIT, reason="compiles for another processor")
def test_a_processor_without_byte_products() -> None:
    """What LLVM makes of the plain operations gives the same integers."""
    program = (
        "import numpy as np\n"
        "from bitline.crossbar.byte_products import HAS_BYTE_DOTS, ByteProducts\n"
        "from bitline.layers import Window\n"
        "rng = np.random.default_rng(3)\n"
        "x, w = rng.integers(0, 256, (21, 30)), rng.integers(-128, 128, (30, 50))\n"
        "assert not HAS_BYTE_DOTS\n"
        "assert np.array_equal(ByteProducts(w[None], Window(), (0, 255)).multiply(x), x @ w)\n"
    )
    environment = os.environ | {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    assert subprocess.run([sys.executable, "-c", program], env=environment, check=False).returncode == 0
