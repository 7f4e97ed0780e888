"""Weight codes, activation codes and the way back, by hand arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from tests.reference import dequantise

import bitline
from bitline.crossbar.rescaling import dequantise_rows
from bitline.layers import Window
from bitline.network import quantisation
from bitline.network.integer import IntegerMatrices
from bitline.network.patches import blocks, gather_patches, pad_images, patches
from bitline.network.quantisation import code_dtype, quantise, quantise_weights

HW = bitline.load_hardware("tinyadc")


def test_weight_codes_by_hand():
    # 3 bits: codes -3 .. 3. Column 0: scale 6 / 3 = 2, so 1 -> 0.5 -> 0 and 3 -> 1.5 -> 2, ties to even
    weight = np.array([[6.0, 0.0], [1.0, 0.0], [3.0, 0.0], [-5.0, 0.0], [-3.0, 0.0]])
    codes, scale = quantise_weights(weight, 3)
    assert codes.dtype == np.int32
    assert codes[:, 0].tolist() == [3, 0, 2, -2, -2]
    assert codes[:, 1].tolist() == [0, 0, 0, 0, 0]
    assert scale.tolist() == [2.0, 1.0]


def test_weight_scale_is_per_group_and_output():
    _, scale = quantise_weights(np.array([[[1.27, 2.54]], [[-12.7, 0.0]]]), 8)
    np.testing.assert_allclose(scale, [[0.01, 0.02], [0.1, 1.0]], rtol=1e-15)


@given(
    st.integers(2, 16),
    npst.arrays(np.float64, (5, 3), elements=st.floats(-1e300, 1e300) | st.floats(-1e-300, 1e-300)),
)
def test_weight_codes_are_symmetric_and_as_near_as_codes_can_be(bits, weight):
    codes, scale = quantise_weights(weight, bits)
    high = 2 ** (bits - 1) - 1
    assert np.abs(codes).max() <= high
    assert (scale > 0).all()
    largest = np.abs(weight).max(axis=0)
    normal = largest > 1e-290  # below, float64 itself has no digits left
    assert (np.abs(codes).max(axis=0)[normal] == high).all()
    error = np.abs(codes * scale - weight)[:, normal] / scale[normal]
    assert (error <= 0.5 + 1e-9).all()


def test_weight_codes_do_not_depend_on_how_many_outputs_are_done_at_once(monkeypatch):
    weight = np.random.default_rng(0).normal(size=(2, 5, 7))
    codes, scale = quantise_weights(weight, 5)
    for size in (1, 30):
        monkeypatch.setattr(quantisation, "_BLOCK_WEIGHTS", size)
        again = quantise_weights(weight, 5)
        np.testing.assert_array_equal(again[0], codes)
        np.testing.assert_array_equal(again[1], scale)


def test_smallest_weights_do_not_divide_by_zero():
    codes, scale = quantise_weights(np.array([[5e-324], [0.0]]), 8)
    assert np.isfinite(scale).all()
    assert np.abs(codes).max() <= 127


def test_activation_codes_round_half_to_even_and_clip():
    x = np.array([0.25, 0.75, 1.25, 1.75, 127.75, 200.0, -0.25, -3.0], np.float32)
    low, high = HW.input_range(False)
    assert quantise(x, 0.5, low, high, np.dtype(np.uint8)).tolist() == [0, 2, 2, 4, 255, 255, 0, 0]
    x = np.array([0.25, -0.25, -0.75, 63.4, 63.5, 63.75, 70.0, -64.0, -64.25, -99.0], np.float32)
    low, high = HW.input_range(True)
    codes = quantise(x, 0.5, low, high, np.dtype(np.int8))
    assert codes.tolist() == [0, 0, -2, 127, 127, 127, 127, -128, -128, -128]


@pytest.mark.parametrize(
    ("bits", "signed", "dtype"),
    [(1, False, "uint8"), (8, False, "uint8"), (8, True, "int8"), (9, False, "uint16"), (16, True, "int16")],
)
def test_code_type_holds_the_whole_range(bits, signed, dtype):
    hw = HW.replace(input_bits=bits)
    assert code_dtype(hw, signed) == np.dtype(dtype)
    low, high = hw.input_range(signed)
    assert quantise(np.array([-1e9, 1e9]), 1.0, low, high, np.dtype(dtype)).tolist() == [low, high]


def test_product_is_rescaled_in_float64_and_rounded_once():
    y, scale = np.array([[3, 2**40 + 1]], np.int64), np.array([0.1 * 0.3, 0.1 * 1.0])
    expected = [3 * (0.1 * 0.3) + 0.7, (2**40 + 1) * (0.1 * 1.0) + -1.0]  # Python's floats are float64
    out = np.empty((1, 2), np.float32)
    dequantise_rows(y, scale, np.array([0.7, -1.0]), out)
    assert out.tolist() == [[float(np.float32(v)) for v in expected]]
    assert dequantise(y, 0.1, np.array([0.3, 1.0]), np.array([0.7, -1.0])).tolist() == out.tolist()
    # 0.1 as a float32 would leave 1.49
    dequantise_rows(np.array([[10**9]]), np.array([0.1]), np.array([-1e8]), out[:, :1])
    assert abs(out[0, 0]) < 1e-7


# --- the exact product -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "weight", "code", "dtype"),
    [
        (131, 127, 1008, "float32"),  # 131 * 127 * 1008 = 16 770 096 < 2^24 = 16 777 216
        (132, 127, 1008, "float64"),
        (3, 32767, 65535, "float64"),
        (4, 2**31 - 1, 2**22, "int64"),
    ],
)
def test_exact_product_picks_a_type_that_cannot_round(rows, weight, code, dtype):
    w = np.full((1, rows, 2), weight)
    w[0, :, 1] *= -1
    w[0, 0, 0] -= 1
    matrices = IntegerMatrices(w, code)
    assert matrices.dtype == np.dtype(dtype)
    x = np.full((2, rows), code, np.int64)
    x[1, 0] = 1
    expected = [[sum(int(a) * int(b) for a, b in zip(row, column, strict=True)) for column in w[0].T] for row in x]
    assert matrices.multiply(x).tolist() == expected


def test_exact_product_of_groups_is_group_major():
    w = np.array([[[1, 2]], [[10, 20]]])
    assert IntegerMatrices(w, 255).multiply(np.array([[3, 4]], np.uint8)).tolist() == [[3, 6, 40, 80]]


# --- input vectors ---------------------------------------------------------------------------------------------------


def plain_patches(x, window):
    """Receptive fields by loops."""
    n, channels, height, width = x.shape
    (kh, kw), (sh, sw), (dh, dw) = window.kernel, window.stride, window.dilation
    left, right, top, bottom = window.padding
    out_h = (height + top + bottom - dh * (kh - 1) - 1) // sh + 1
    out_w = (width + left + right - dw * (kw - 1) - 1) // sw + 1
    rows = []
    for image in range(n):
        for i in range(out_h):
            for j in range(out_w):
                row = []
                for c in range(channels):
                    for a in range(kh):
                        for b in range(kw):
                            y, z = i * sh + a * dh - top, j * sw + b * dw - left
                            row.append(int(x[image, c, y, z]) if 0 <= y < height and 0 <= z < width else 0)
                rows.append(row)
    return np.array(rows).reshape(len(rows), -1), out_h, out_w


windows = st.builds(
    Window,
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.tuples(*[st.integers(0, 2)] * 4),
)


@given(windows, st.integers(1, 3), st.integers(1, 3), st.integers(5, 7), st.integers(5, 6), st.integers(1, 400))
def test_input_vectors_in_blocks_equal_plain_loops(window, images, channels, height, width, budget):
    x = np.arange(images * channels * height * width, dtype=np.uint8).reshape(images, channels, height, width)
    expected, out_h, out_w = plain_patches(x, window)
    assert window.output_size(height, width) == (out_h, out_w)
    padded = pad_images(x, window)
    vector_bytes = expected.shape[1]
    parts = []
    for block in blocks(images, out_h, out_w, vector_bytes, budget):
        part = patches(padded[block.images], window, block.rows, out_w)
        assert part.nbytes <= max(budget, out_w * vector_bytes)
        parts.append(part)
    np.testing.assert_array_equal(np.concatenate(parts), expected)
    some = np.arange(0, len(expected), 3)
    np.testing.assert_array_equal(gather_patches(padded, window, some), expected[some])
