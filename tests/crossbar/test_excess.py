"""What saturation takes from an exact product: the twin's integers, from the conversions the twin cannot leave out."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference as twin
from bitline import load_hardware
from bitline.crossbar import excess_cells, matrices
from bitline.crossbar.adc import AdcBits
from bitline.crossbar.engines import Crossbars
from bitline.crossbar.excess_cells import SAMPLE, ExcessCells, Fields
from bitline.errors import ConfigError, RangeError, ShapeError
from bitline.layers import Window
from strategies import SMALL, Problem, examples, hardware, problems

DESIGN = {"encoding": "differential", "readout": "digital", "dac_bits": 1}


def as_fields(x: np.ndarray, hw: Any) -> Fields:
    """Input vectors (M, K), each an image of one pixel."""
    return Fields.of_images(matrices.bit_patterns(x, hw)[:, :, None, None], Window(), slice(0, 1), 1)


def assert_certified(crossbars: Crossbars, x: np.ndarray, expected: Any) -> None:
    """The certified engine gives the twin's integers and counts."""
    product = crossbars.multiply(x, engine="certified")
    np.testing.assert_array_equal(product.y, expected.y)
    assert product.conversions == expected.conversions
    assert product.saturations == expected.saturations
    assert product.max_column_sum is None


def test_by_hand() -> None:
    """Levels 3, 3, 1 in slice 0 of a positive column, codes up to 3: two driven rows can reach 4, one cannot.

    Input 1, 1, 1 drives all rows in digit 0: sum 7, excess 4. Input 2, 0, 2 drives two in digit 1: sum 4, excess 1,
    worth 2. Input 2, 0, 0 drives one: not converted. In the negative column of output 1 levels are 2, 2, 0: the sum of
    two rows is 4, excess 1.
    """
    hw = load_hardware("tinyadc", adc_bits=2, input_bits=2)
    w = np.array([[3, -2], [3, -2], [1, 0]], np.int32)
    x = np.array([[1, 1, 1], [2, 0, 2], [2, 0, 0]])
    crossbars = Crossbars(w, hw)
    cells = ExcessCells(w, hw, crossbars.adc, False, 1)
    y = np.zeros((3, 2), np.int64)
    performed, saturations = cells.subtract(as_fields(x, hw), 0, y)
    assert y.tolist() == [[-4, 1], [-2, 0], [0, 0]]
    assert (cells.columns, performed, saturations) == (2, 4, 3)
    product = crossbars.multiply(x, engine="certified")
    assert product.y.tolist() == [[3, -3], [6, -4], [6, -4]]
    assert (product.conversions, product.saturations) == (3 * 2 * 16, 3)


def test_rows_of_the_next_tile_are_not_counted() -> None:
    """Two channels, two kernel positions, tiles of three rows: of channel 1 the first tile has position 0 alone.

    An image drives channel 0 at position 0 and channel 1 at position 1: one row of the first tile, not enough. Another
    drives channel 1 at position 0 instead: two rows, sum 2, excess 1.
    """
    hw = load_hardware("tinyadc", rows=3, adc_bits=1, input_bits=1)
    crossbars, window = Crossbars(np.ones((4, 1), np.int8), hw), Window(kernel=(1, 2))
    x = np.array([[[[1, 0]], [[0, 1]]], [[[1, 0]], [[1, 0]]]], np.uint8)
    for image, counts in zip(x, ((0, 0), (1, 1)), strict=True):
        y = np.zeros((1, 1), np.int64)
        fields = Fields.of_images(image[None], window, slice(0, 1), 1)
        assert crossbars._excess.cells(window)[0].subtract(fields, 0, y) == counts
        assert y[0, 0] == -counts[1]


@examples(120)
@given(problems(hardware(**DESIGN)), st.lists(st.integers(1, 9), min_size=16, max_size=16), st.booleans())
def test_equals_the_twin(problem: Problem, bits: list[int], by_slice: bool) -> None:
    """Any differential digital design with 1-bit inputs, any resolution; only what population counts leave open."""
    hw, signed = problem.hw, problem.signed_inputs
    adc = twin.resolve_adc(problem.w, hw, signed)
    if by_slice:
        adc = twin.Adc(tuple(bits[: hw.slices]), 1)
    resolved = AdcBits(per_slice=adc.slices, unit=None)
    expected = twin.excess(problem.x, problem.w, hw, adc, signed)
    cells = ExcessCells(problem.w.astype(np.int32), hw, resolved, signed, 1)
    y = np.zeros(expected.y.shape, np.int64)
    performed, saturations = cells.subtract(as_fields(problem.x, hw), 0, y)
    np.testing.assert_array_equal(y, expected.y)
    assert (performed, saturations) == (expected.performed, expected.saturations)
    product = twin.matmul(problem.x, problem.w, hw, adc, signed)
    np.testing.assert_array_equal(problem.x.astype(np.int64) @ problem.w.astype(np.int64) + y, product.y)
    assert saturations == product.saturations
    assert_certified(Crossbars(problem.w, hw, signed_inputs=signed, adc=resolved), problem.x, product)


@pytest.mark.parametrize("signed_inputs", [False, True])
@pytest.mark.parametrize("adc_bits", [1, 3, 7])
def test_blocks(adc_bits: int, signed_inputs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """More columns, vectors and planes than are held at once, on any number of threads."""
    rng = np.random.default_rng(adc_bits)
    hw = load_hardware("tinyadc", rows=20, adc_bits=adc_bits)
    low, high = hw.input_range(signed_inputs)
    vectors, outputs = (3, 4) if SMALL else (700, 90)
    monkeypatch.setattr(excess_cells, "_PLANE_BYTES", 64 * 300)
    x, w = rng.integers(low, high + 1, (vectors, 33)), rng.integers(-127, 128, (33, outputs))
    x[::3] &= 1  # few digits drive rows: others are converted with few columns, or none
    crossbars = Crossbars(w, hw, signed_inputs=signed_inputs)
    monkeypatch.setattr(crossbars, "_excess_pays", lambda *_, **__: True)
    expected = crossbars.multiply(x)
    assert expected.saturations > 0 or adc_bits == 7
    before = numba.get_num_threads()
    try:
        for threads in {1, before}:
            numba.set_num_threads(threads)
            assert_certified(crossbars, x, expected)
    finally:
        numba.set_num_threads(before)


def test_wide_numbers() -> None:
    """16-bit codes and weights at their extremes: the excess of 300 rows driven in every digit, and the sign's."""
    hw = load_hardware("tinyadc", input_bits=16, weight_bits=16, adc_bits=1)
    w = np.full((300, 2), 32767, np.int32)
    w[:, 1] = -32767
    product = Crossbars(w, hw).multiply(np.full((1, 300), 65535), engine="certified")
    # three tiles read 1 of every column; slices are worth 1, 4, ..., 4^7, the last one holds a single bit
    top = 3 * 65535 * sum(4**j for j in range(8))
    assert product.y.tolist() == [[top, -top]]
    assert product.saturations == 2 * 3 * 16 * 8
    signed = Crossbars(w, hw, signed_inputs=True).multiply(np.full((1, 300), -1), engine="certified")
    assert signed.y.tolist() == [[-3 * sum(4**j for j in range(8)), 3 * sum(4**j for j in range(8))]]


@pytest.mark.parametrize("pays", [False, True])
@pytest.mark.parametrize("adc_bits", [1, 2, 4, 9])
def test_whatever_is_chosen(adc_bits: int, pays: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups by their excess, by splitting them, and bit-serially give the same integers."""
    rng = np.random.default_rng(adc_bits)
    hw = load_hardware("tinyadc", rows=6, adc_bits=adc_bits)
    x, w = rng.integers(0, 256, (5, 21)), rng.integers(-127, 128, (3, 7, 2))
    w[0] = rng.integers(-1, 2, (7, 2))  # proven sooner than the others
    expected = twin.matmul(x, w, hw, adc_bits)
    crossbars = Crossbars(w, hw)
    monkeypatch.setattr(crossbars, "_excess_pays", lambda *_, **__: pays)
    for cheaper in (False, True):
        monkeypatch.setitem(crossbars.__dict__, "bitserial_is_cheaper", cheaper)
        assert_certified(crossbars, x, expected)


def test_the_choice_is_by_counted_work() -> None:
    """Dense weights: what a few columns may saturate is formed; nearly all conversions at once by the wide kernel.

    Inputs below 2 drive rows in one digit of eight only, so there even a low resolution leaves little open.
    """
    if SMALL:
        pytest.skip("needs the kernel for 512 vectors at its speed")
    rng = np.random.default_rng(0)
    x, w = rng.integers(0, 256, (600, 256)), rng.integers(-127, 128, (256, 64))
    whole = (Window(), slice(0, 1), 1)
    for adc_bits, codes, pays in ((7, x, True), (5, x, False), (5, x & (x < 2), True)):
        hw = load_hardware("tinyadc", adc_bits=adc_bits)
        crossbars = Crossbars(w, hw)
        assert not crossbars.lossless
        assert crossbars._excess_pays(codes[:, :, None, None], *whole, vectors=True) == pays
        assert_certified(crossbars, codes, crossbars.multiply(codes))
    few = x[:100, :, None, None]
    assert crossbars.excess_pays(few, *whole)
    offset = Crossbars(w, load_hardware("tinyadc", adc_bits=6, encoding="offset"))
    assert not offset.excess_pays(few, *whole)


@examples(80)
@given(st.data())
def test_convolution_equals_its_patches(data: st.DataObject) -> None:
    """Receptive fields collected from planes of pixels are those of the matrix of patches, wherever tiles cut them."""
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    window = Window(kernel=data.draw(pair), stride=data.draw(pair), dilation=data.draw(pair))
    height, width = data.draw(st.integers(7, 9)), data.draw(st.integers(7, 12))
    images, groups = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    channels = data.draw(st.integers(1, 3) if SMALL else st.sampled_from((1, 2, 3, 20, 63, 64, 70, 130)))
    signed_inputs = data.draw(st.booleans())
    out_height, out_width = window.output_size(height, width)
    start = data.draw(st.integers(0, out_height - 1))
    lines = slice(start, data.draw(st.integers(start + 1, out_height)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    rows = data.draw(st.sampled_from((10, 64, 100, 128, 200)))
    design = {"rows": rows, "adc_bits": data.draw(st.integers(1, 8)), "input_bits": data.draw(st.sampled_from((8, 11)))}
    hw = load_hardware("tinyadc", cell_bits=data.draw(st.sampled_from((1, 2, 2, 4))), **design)
    low, high = hw.input_range(signed_inputs)
    x = rng.integers(low, high + 1, (images, groups * channels, height, width))
    x[rng.random(x.shape) < data.draw(st.sampled_from((0.0, 0.5, 0.9)))] = 0
    (down, across), (kernel_h, kernel_w), (dilate_h, dilate_w) = window.stride, window.kernel, window.dilation
    w = rng.integers(-127, 128, (groups, channels * kernel_h * kernel_w, 2))
    patches = [
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
    matrix = np.array([field[:, :kernel_h, :kernel_w].reshape(-1) for field in patches])
    crossbars = Crossbars(w, hw, signed_inputs=signed_inputs)
    expected = crossbars.multiply(matrix)
    # channels first or innermost in memory, as they are or as narrow bit patterns
    if data.draw(st.booleans()):
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    if data.draw(st.booleans()):
        x = x.astype((np.int8 if hw.input_bits <= 8 else np.int16) if signed_inputs else np.uint16)
    parts = np.split(matrix, groups, axis=1)
    y = np.concatenate([part @ codes for part, codes in zip(parts, w, strict=True)], axis=1)
    assert crossbars.subtract_excess(x, window, lines, out_width, y) == expected.saturations
    np.testing.assert_array_equal(y, expected.y)
    # no conversion is performed that the matrix of patches could leave out
    vectors, pixels = as_fields(matrix, hw), Fields.of_images(matrices.bit_patterns(x, hw), window, lines, out_width)
    for g in range(groups):
        counts = []
        for form, fields in ((Window(), vectors), (window, pixels)):
            cells = crossbars._excess.cells(form)[g]
            counts.append(cells.subtract(fields, g, np.zeros((len(matrix), 2 * groups), np.int64)))
        assert counts[0] == counts[1]


def test_nothing_refuted() -> None:
    """A lossless layer has no excess."""
    y = np.full((18, 1), 7, np.int64)
    crossbars = Crossbars(np.ones((18, 1), np.int8), load_hardware("tinyadc"))
    x = np.full((2, 2, 5, 5), 255, np.uint8)
    assert crossbars.subtract_excess(x, Window(kernel=(3, 3)), slice(0, 3), 3, y) == 0
    assert (y == 7).all()


def test_images_and_products_that_do_not_fit() -> None:
    """Refused before a kernel reads or writes beyond the array."""
    crossbars = Crossbars(np.ones((18, 2), np.int8), load_hardware("tinyadc", adc_bits=2))
    window, x, y = Window(kernel=(3, 3)), np.zeros((1, 2, 5, 5), np.uint8), np.zeros((9, 2), np.int64)
    assert crossbars.subtract_excess(x, window, slice(0, 3), 3, y) == 0
    with pytest.raises(ShapeError, match="2, H, W"):
        crossbars.subtract_excess(x[:, :1], window, slice(0, 3), 3, y)
    with pytest.raises(ShapeError, match="the window reaches"):
        crossbars.excess_pays(x, window, slice(0, 4), 3)
    with pytest.raises(RangeError):
        crossbars.subtract_excess(x.astype(np.int64) - 1, window, slice(0, 3), 3, y)
    for wrong in (y[:8], y[:, :1], np.asfortranarray(y), y.astype(np.int32)):
        with pytest.raises(ShapeError, match="'y' must be contiguous int64 of shape"):
            crossbars.subtract_excess(x, window, slice(0, 3), 3, wrong)
    for fields in ({"dac_bits": 2}, {"encoding": "offset"}, {"readout": "analog"}):
        other = Crossbars(np.ones((18, 2), np.int8), load_hardware("tinyadc", adc_bits=2, **fields))
        assert not other.excess_pays(x, window, slice(0, 3), 3)
        with pytest.raises(ConfigError, match="encoding 'differential'"):
            other.subtract_excess(x, window, slice(0, 3), 3, y)


@pytest.mark.parametrize(
    ("shape", "lines", "width", "vectors"),
    [
        ((1000, 1, 1, 1), slice(0, 1), 1, SAMPLE + 3),  # every 15th vector
        ((10, 2, 32, 32), slice(0, 32), 32, SAMPLE),  # two lines of one image
        ((10, 2, 8, 8), slice(0, 8), 8, SAMPLE),
        ((10, 2, 4, 4), slice(0, 4), 4, 5 * 16),  # all lines of every other image
        ((3, 2, 9, 200), slice(5, 9), 200, 200),  # a line
        ((1, 2, 3, 3), slice(2, 3), 3, 3),
    ],
)
def test_samples(shape: tuple[int, ...], lines: slice, width: int, vectors: int) -> None:
    """About as many receptive fields as asked for, in whole lines."""
    fields = Fields.sample(np.zeros(shape, np.uint8), Window(), lines, width)
    assert fields.vectors == vectors
