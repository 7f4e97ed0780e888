"""512 vectors at once: the same integers as the twin, one vector or more than a block of them."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference as twin
from bitline import load_hardware
from bitline.crossbar import matrices
from bitline.crossbar.adc import AdcBits
from bitline.crossbar.cell_lists import BitslicedCells, list_members
from bitline.crossbar.engines import Crossbars
from bitline.crossbar.lanes import VECTORS
from bitline.errors import RangeError, ShapeError
from bitline.layers import Window
from strategies import SMALL, Problem, examples, hardware, problems

DESIGN = {"encoding": "differential", "readout": "digital", "dac_bits": 1}


@pytest.fixture(autouse=True, scope="module")
def always_bitsliced() -> Any:
    """However few the vectors."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matrices, "LEAST_BITSLICED", 0)
        yield


def assert_same(product: Any, expected: Any) -> None:
    """Values, conversions, saturations and the largest column sum."""
    np.testing.assert_array_equal(product.y, expected.y)
    assert product.conversions == expected.conversions
    assert product.saturations == expected.saturations
    assert product.max_column_sum == expected.max_column_sum


@examples(150)
@given(problems(hardware(**DESIGN)))
def test_equals_the_twin(problem: Problem) -> None:
    """Any differential digital design with 1-bit inputs."""
    crossbars = Crossbars(problem.w, problem.hw, signed_inputs=problem.signed_inputs)
    assert crossbars._matrices[0].can_bitslice
    adc = twin.resolve_adc(problem.w, problem.hw, problem.signed_inputs)
    assert_same(
        crossbars.multiply(problem.x), twin.matmul(problem.x, problem.w, problem.hw, adc, problem.signed_inputs)
    )


@examples(60)
@given(problems(hardware(**DESIGN)), st.lists(st.integers(0, 6), min_size=16, max_size=16), st.integers(1, 6))
def test_a_resolution_for_every_slice(problem: Problem, bits: list[int], unit: int) -> None:
    """Slices clip at their own resolution."""
    adc = twin.Adc(tuple(max(1, b) for b in bits[: problem.hw.slices]), unit)
    resolved = AdcBits(per_slice=adc.slices, unit=None)
    crossbars = Crossbars(problem.w, problem.hw, signed_inputs=problem.signed_inputs, adc=resolved)
    assert_same(
        crossbars.multiply(problem.x), twin.matmul(problem.x, problem.w, problem.hw, adc, problem.signed_inputs)
    )


@pytest.mark.parametrize("ones", [0, 1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 31, 60, 61, 63, 64, 65, 100, 127, 128, 255])
def test_counts_of_every_length(ones: int) -> None:
    """A column of ``ones`` cells of level 1, all driven, reads ``ones``; all but one driven, one less."""
    hw = load_hardware("tinyadc", rows=255, input_bits=1, weight_bits=2, cell_bits=1, adc_bits=8)
    w = np.zeros((255, 1), np.int8)
    w[:ones] = 1
    x = np.ones((2, 255), np.uint8)
    x[1, 0] = 0
    product = Crossbars(w, hw).multiply(x)
    assert product.y.tolist() == [[ones], [max(ones - 1, 0)]]
    assert (product.saturations, product.max_column_sum) == (0, ones)


@pytest.mark.parametrize("vectors", [1, 63, 64, 65, VECTORS - 1, VECTORS, VECTORS + 1, 3 * VECTORS + 7])
@pytest.mark.parametrize("signed_inputs", [False, True])
def test_any_number_of_vectors(vectors: int, signed_inputs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every lane of every block holds its own vector, and an idle lane counts nothing."""
    rng = np.random.default_rng(vectors)
    hw = load_hardware("tinyadc", rows=5, adc_bits=2, input_bits=3, weight_bits=4)
    low, high = hw.input_range(signed_inputs)
    x = rng.integers(low, high + 1, (vectors, 7))
    w = rng.integers(-7, 8, (7, 3))
    crossbars = Crossbars(w, hw, signed_inputs=signed_inputs)
    product = crossbars.multiply(x)
    monkeypatch.setattr(matrices, "LEAST_BITSLICED", vectors + 1)
    assert_same(product, crossbars.multiply(x))
    if vectors <= VECTORS + 1:
        assert_same(product, twin.matmul(x, w, hw, 2, signed_inputs))


def test_wide_numbers() -> None:
    """16-bit codes and weights at their extremes: products of more than 32 bits."""
    hw = load_hardware("tinyadc", input_bits=16, weight_bits=16, adc_bits=9)
    x = np.full((2, 300), 65535, np.uint16)
    x[1, ::2] = 0
    w = np.full((300, 2), 32767, np.int32)
    w[:, 1] = -32767
    product = Crossbars(w, hw).multiply(x)
    top = 300 * 65535 * 32767
    assert product.y.tolist() == [[top, -top], [top // 2, -top // 2]]
    assert product.saturations == 0
    signed = Crossbars(w, hw, signed_inputs=True).multiply(np.full((1, 300), -32768))
    assert signed.y.tolist() == [[-300 * 32768 * 32767, 300 * 32768 * 32767]]


def test_members_by_hand() -> None:
    """Column 0 has levels 1, 0, 2 and column 1 levels 3, 3, 3, in tiles of two rows; row 2 is the one of zeros."""
    members, starts = list_members(np.array([[1, 3], [0, 3], [2, 3]], np.uint8), 2, 2)
    lists = [[members[a:b].tolist() for a, b in itertools.pairwise(tile)] for tile in starts]
    zero = 32
    assert lists[0] == [[], [0, zero, zero, zero], [0, 16, zero, zero], [0, 16, zero, zero]]
    assert lists[1] == [[0, zero, zero, zero], [], [0, zero, zero, zero], [0, zero, zero, zero]]
    lengths = np.diff(list_members(np.tri(20, dtype=np.uint8), 20, 1)[1][0])
    assert lengths.tolist() == [24] * 4 + [16] * 8 + [8] * 4 + [4] * 4


def test_which_designs() -> None:
    """Everything else keeps to the population counts."""
    assert BitslicedCells.supports(load_hardware("tinyadc"), 1152)
    for fields in (
        {"dac_bits": 2},
        {"encoding": "offset"},
        {"encoding": "offset_flip"},
        {"readout": "analog"},
        {"rows": 256},
    ):
        assert not BitslicedCells.supports(load_hardware("tinyadc", **fields), 1152), fields
    assert BitslicedCells.supports(load_hardware("tinyadc", rows=256), 255)


def test_matrices_too_large_to_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """They keep to the population counts, with the same integers, and no lists are made."""
    rng = np.random.default_rng(1)
    x, w = rng.integers(0, 256, (3, 20)), rng.integers(-127, 128, (20, 2))
    crossbars = Crossbars(w, load_hardware("tinyadc"))
    expected = crossbars.multiply(x)
    monkeypatch.setattr(matrices, "_MOST_LISTED", w.size - 1)
    monkeypatch.setattr(matrices.BitslicedCells, "__init__", lambda *_: pytest.fail("lists were made"))
    other = Crossbars(w, load_hardware("tinyadc"))
    assert not other.convolves(1000)
    assert_same(other.multiply(x), expected)


def test_independent_of_threads() -> None:
    """Blocks of vectors belong to one thread each."""
    rng = np.random.default_rng(0)
    x, w = rng.integers(0, 256, (40 if SMALL else 2000, 70)), rng.integers(-127, 128, (70, 5))
    crossbars = Crossbars(w, load_hardware("tinyadc", adc_bits=4))
    before = numba.get_num_threads()
    try:
        results = []
        for threads in {1, before}:
            numba.set_num_threads(threads)
            results.append(crossbars.multiply(x))
    finally:
        numba.set_num_threads(before)
    for result in results:
        assert_same(result, results[0])


@examples(80)
@given(st.data())
def test_convolution_equals_its_patches(data: st.DataObject) -> None:
    """Receptive fields read from the images are those of the matrix of patches."""
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    window = Window(kernel=data.draw(pair), stride=data.draw(pair), dilation=data.draw(pair))
    height, width = data.draw(st.integers(7, 11)), data.draw(st.integers(7, 40))
    images, channels, groups = (data.draw(st.integers(1, 3)) for _ in range(3))
    signed_inputs = data.draw(st.booleans())
    out_height, out_width = window.output_size(height, width)
    start = data.draw(st.integers(0, out_height - 1))
    lines = slice(start, data.draw(st.integers(start + 1, out_height)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    hw = load_hardware("tinyadc", rows=10, adc_bits=3)
    low, high = hw.input_range(signed_inputs)
    dtype = data.draw(st.sampled_from([np.int8 if signed_inputs else np.uint8, np.int64]))
    x = rng.integers(low, high + 1, (images, groups * channels, height, width), dtype=dtype)
    (down, across), (kernel_h, kernel_w), (dilate_h, dilate_w) = window.stride, window.kernel, window.dilation
    w = rng.integers(-127, 128, (groups, channels * kernel_h * kernel_w, 2), dtype=np.int8)
    fields = [
        x[
            n,
            :,
            i * down : i * down + dilate_h * kernel_h : dilate_h,
            j * across : j * across + dilate_w * kernel_w : dilate_w,
        ]
        for n in range(images)
        for i in range(lines.start, lines.stop)
        for j in range(out_width)
    ]
    matrix = np.array([field[:, :kernel_h, :kernel_w].reshape(-1) for field in fields])
    crossbars = Crossbars(w, hw, signed_inputs=signed_inputs)
    expected = crossbars.multiply(matrix)
    assert_same(crossbars.convolve(x, window, lines, out_width), expected)
    # refuted columns alone, added to the product of what is proven
    parts = np.split(matrix.astype(np.int64), groups, axis=1)
    y = np.concatenate([part @ codes for part, codes in zip(parts, crossbars.proven, strict=True)], axis=1)
    assert crossbars.add_refuted(x, window, lines, out_width, y) == expected.saturations
    np.testing.assert_array_equal(y, expected.y)


def test_images_that_do_not_fit() -> None:
    """Too few channels or lines, and codes out of range, are refused before a kernel reads beyond the array."""
    crossbars = Crossbars(np.ones((18, 1), np.int8), load_hardware("tinyadc"))
    window, x = Window(kernel=(3, 3)), np.zeros((1, 2, 5, 5), np.uint8)
    assert crossbars.convolve(x, window, slice(0, 3), 3).y.shape == (9, 1)
    with pytest.raises(ShapeError, match="2, H, W"):
        crossbars.convolve(x[:, :1], window, slice(0, 3), 3)
    for lines, width in ((slice(0, 4), 3), (slice(0, 3), 4)):
        with pytest.raises(ShapeError, match="the window reaches"):
            crossbars.convolve(x, window, lines, width)
    with pytest.raises(ShapeError):
        crossbars.convolve(x, window, slice(2, 2), 3)
    with pytest.raises(RangeError):
        crossbars.convolve(x.astype(np.int64) - 1, window, slice(0, 3), 3)
    with pytest.raises(ShapeError, match="kernel that divides 18 rows"):
        crossbars.convolve(x, Window(kernel=(2, 4)), slice(0, 1), 2)
    for wrong in (np.zeros((8, 1), np.int64), np.zeros((9, 1), np.int32)):
        with pytest.raises(ShapeError, match="'y' must be contiguous int64 of shape"):
            crossbars.add_refuted(x, window, slice(0, 3), 3, wrong)


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="compiles for another processor")
@pytest.mark.parametrize(
    "environment",
    [{"NUMBA_ENABLE_AVX": "0"}, {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}],
    ids=["without_avx", "generic"],
)
def test_other_processors(environment: dict[str, str]) -> None:
    """LLVM ends the process where it is given an instruction that it was told not to use."""
    program = (
        "import numba, numpy as np\n"
        "from bitline.crossbar.lanes import PLANE, address, full_add, load, store\n"
        "@numba.njit\n"
        "def add(planes):\n"
        "    at = address(planes)\n"
        "    total, carry = full_add(load(at), load(at + PLANE), load(at + 2 * PLANE))\n"
        "    store(at, total)\n"
        "    store(at + PLANE, carry)\n"
        "planes = np.repeat(np.array([[1], [6], [3]], np.uint64), 16, axis=1)\n"
        "add(planes)\n"
        "assert (planes[0] == 4).all() and (planes[1] == 3).all()\n"  # 001 ^ 110 ^ 011, and where two of them are set
    )
    subprocess.run([sys.executable, "-c", program], env=os.environ | environment, check=True)
