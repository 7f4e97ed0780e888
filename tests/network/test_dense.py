"""Dense convolutions of codes: exact at the bound, quantised and rescaled like the plain functions, layouts kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numba import get_num_threads, set_num_threads
from tests.reference import dequantise
from torch import nn

import bitline
from bitline.crossbar import byte_products, engines, matrices
from bitline.crossbar.rescaling import dequantise_columns, dequantise_rows, quantise_lines
from bitline.errors import ConversionError, DataError
from bitline.layers import Window
from bitline.network import crossbar_modules
from bitline.network.conversion import convert
from bitline.network.crossbar_modules import CrossbarModule
from bitline.network.dense import DenseConvolution
from bitline.network.integer import IntegerConvolution
from bitline.network.patches import pad_images, patches
from bitline.network.quantisation import quantise


def plain_product(x, w, window):
    """Receptive fields times weights in 64-bit integers; x (n, H, W, G * C) codes, w (G, K, N)."""
    images = x.transpose(0, 3, 1, 2).astype(np.int64)
    height, width = window.output_size(*images.shape[2:])
    fields = patches(images, window, slice(0, height), width).reshape(-1, *w.shape[:2])
    return np.einsum("mgk,gkn->mgn", fields, w.astype(np.int64)).reshape(len(fields), -1)


# --- exactness -------------------------------------------------------------------------------------------------------


def weights_of_bound(total, rows, outputs, rng):
    """Columns whose magnitudes sum to ``total``: of one sign, of the other, and of both."""
    w = np.full((rows, outputs), total // rows, np.int64)
    w[: total % rows] += 1
    w[:, 1] *= -1
    w[:, 2:] *= rng.choice([-1, 1], size=(rows, outputs - 2))
    for column in w.T:
        rng.shuffle(column)
    assert (np.abs(w).sum(axis=0) == total).all()
    return w[None]


@pytest.mark.parametrize(("total", "parts"), [(65793, 1), (65794, 2), (3 * 65000, 3)])
def test_exact_at_the_bound(total, parts):
    """255 * 65793 = 2^24 - 1: up to there one product, beyond it runs of channels. 3x3, stride 1: Winograd's case."""
    rng = np.random.default_rng(total)
    channels = 64 * parts if parts > 1 else 64
    w = weights_of_bound(total, 9 * channels, 16, rng)
    window = Window(kernel=(3, 3))
    dense = DenseConvolution(w, window, (0, 255))
    assert len(dense._parts) == parts
    x = rng.choice([0, 254, 255], size=(4, 9, 9, channels))
    x[0] = 255
    x[1] = np.where(rng.random(x[1].shape) < 0.001, 254, 255)  # odd sums near the bound
    y = dense.multiply(x.astype(np.float32))
    expected = plain_product(x, w, window)
    assert np.abs(expected).max() == 255 * total
    np.testing.assert_array_equal(y.astype(np.int64), expected)
    if parts == 1:
        assert IntegerConvolution.supports(w, 255)
        twin = IntegerConvolution(w, 255, window).multiply(x.astype(np.float32))
        np.testing.assert_array_equal(twin.astype(np.int64), expected)
    else:
        assert not IntegerConvolution.supports(w, 255)


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("code_range", [(0, 255), (-128, 127), (-4, 3), (0, 1)])
@pytest.mark.parametrize(
    "window",
    [
        Window(),
        Window(stride=(2, 3)),
        Window(kernel=(3, 2), stride=(2, 1), dilation=(1, 2)),
        Window(kernel=(1, 5)),
    ],
)
def test_windows_groups_and_signs(window, code_range, groups):
    rng = np.random.default_rng(7)
    w = rng.integers(-128, 128, size=(groups, 5 * window.kernel[0] * window.kernel[1], 4))
    x = rng.integers(code_range[0], code_range[1] + 1, size=(2, 7, 11, 5 * groups))
    dense = DenseConvolution(w, window, code_range)
    y = dense.multiply(x.astype(np.float32))
    expected = plain_product(x, w, window)
    np.testing.assert_array_equal(y.astype(np.int64), expected)
    twin = IntegerConvolution(w, 255, window).multiply(x.astype(np.float32))
    np.testing.assert_array_equal(twin.astype(np.int64), expected)


def test_what_is_not_supported():
    w = np.ones((1, 4, 2), np.int32)
    assert DenseConvolution.supports(w, Window(), (0, 255))
    assert DenseConvolution.supports(w, Window(), (-128, 127))
    assert not DenseConvolution.supports(w, Window(), (0, 256))
    assert not DenseConvolution.supports(128 * w, Window(), (0, 255))
    assert not DenseConvolution.supports(w, Window(kernel=(23, 23)), (0, 255))  # 529 * 128 * 255 > 2^24
    assert not IntegerConvolution.supports(256 * w, 255)
    assert not IntegerConvolution.supports(w, 256)


# --- there and back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "dtype"), [(0, 255, np.uint8), (-128, 127, np.int8), (-8, 7, np.int8), (0, 65535, np.uint16)]
)
def test_lines_are_quantised_like_numbers(low, high, dtype):
    rng = np.random.default_rng(1)
    x = (rng.integers(-600, 600, size=(2, 3, 5, 6)) * 0.25).astype(np.float32)  # ties among them
    x[0, 0, 0, :2] = 3e38, -3e38
    x[1, 1, 1, :2] = -0.0, 1e-42
    window = Window(padding=(2, 1, 1, 3))
    expected = pad_images(quantise(x, 0.5, low, high, np.dtype(dtype)), window)
    out = np.full(expected.shape, 77, dtype)
    assert quantise_lines(x.reshape(6, 5, 6), 0.5, (low, high), out.reshape(6, *expected.shape[2:]), first=-1, left=2)
    np.testing.assert_array_equal(out, expected)
    later = np.full((2, 3, 4, 6), 77, np.float32)  # lines 2 to 5 of the image, the last beyond it
    assert quantise_lines(x.reshape(6, 5, 6), 0.5, (low, high), later.reshape(6, 4, 6), first=2)
    np.testing.assert_array_equal(later, expected[:, :, 3:7, 2:8])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_seen(value):
    x = np.zeros((2, 3, 40), np.float32)
    out = np.empty((2, 3, 40), np.uint8)
    assert quantise_lines(x, 1.0, (0, 255), out)
    x[1, 2, 39] = value
    assert not quantise_lines(x, 1.0, (0, 255), out)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_products_are_rescaled_like_numbers(dtype):
    rng = np.random.default_rng(2)
    y = rng.integers(-(2**24), 2**24, size=(50, 7))
    scale, bias = rng.random(7) * 1e-3, rng.normal(size=7)
    bias[0], scale[1] = 0.0, 1e-40
    expected = dequantise(y, 1.0, scale, bias).view(np.int32)
    out = np.empty(y.shape, np.float32)
    dequantise_rows(y.astype(dtype), scale, bias, out)
    np.testing.assert_array_equal(out.view(np.int32), expected)
    images = np.empty((5, 7, 10), np.float32)
    for order in "CF":
        dequantise_columns(np.asarray(y.T, dtype, order), scale, bias, images)
        np.testing.assert_array_equal(images.transpose(0, 2, 1).reshape(50, 7).view(np.int32), expected)
    dequantise_rows(np.zeros((1, 7), dtype) * dtype(-1), scale, np.zeros(7), out[:1])
    assert not np.signbit(out[0]).any()


# --- networks --------------------------------------------------------------------------------------------------------


class Small(nn.Module):
    """Signed first layer, a residual sum, odd shapes, groups, a view, an average; nothing folds to a whole image."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.first = nn.Conv2d(6, 6, 3, padding=1, groups=2)
        self.second = nn.Conv2d(6, 8, (3, 1), stride=2, padding=(2, 0), bias=False)
        self.point = nn.Conv2d(8, 5, 1)
        self.head = nn.Linear(5 * 3 * 2, 4)

    def forward(self, x):
        x = F.relu(self.stem(x))
        x = self.second(F.relu(self.first(x)) + x)
        x = F.relu(F.max_pool2d(self.point(x), 2))
        mean = x.mean((2, 3))
        return torch.cat([self.head(x.view(x.shape[0], -1)), mean], 1)


def random_images(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


def run(network, x, engine):
    network.engine = engine
    network.reset_counters()
    y = network(x)
    return y, [(c.vectors, c.conversions, c.saturations) for c in network.counters]


@pytest.mark.parametrize("byte_dots", [True, False])
@pytest.mark.parametrize(
    ("encoding", "readout", "dac_bits", "way"),
    [
        ("differential", "digital", 1, "cost"),
        ("differential", "digital", 1, "excess"),
        ("differential", "digital", 1, "split"),
        ("differential", "digital", 1, "bitserial"),
        ("differential", "digital", 2, "cost"),
        ("differential", "digital", 2, "split"),
        ("differential", "analog", 1, "cost"),
        ("differential", "analog", 1, "split"),
        ("offset", "digital", 1, "cost"),
        ("offset", "digital", 1, "split"),
        ("offset_flip", "digital", 1, "cost"),
        ("offset_flip", "digital", 1, "split"),
    ],
)
def test_engines_agree_at_every_resolution(encoding, readout, dac_bits, way, byte_dots, monkeypatch):
    """Outputs, vectors, conversions and saturations: with nothing saturated, something, and almost everything."""
    monkeypatch.setattr(byte_products, "HAS_BYTE_DOTS", byte_dots)
    if way != "cost":
        monkeypatch.setattr(engines.Crossbars, "_excess_pays", lambda *_, **__: way == "excess")
        monkeypatch.setattr(engines.Crossbars, "bitserial_is_cheaper", way == "bitserial")
    monkeypatch.setattr(matrices, "LEAST_BITSLICED", 32)
    hw = bitline.load_hardware("tinyadc", rows=20, encoding=encoding, readout=readout, dac_bits=dac_bits, adc_bits=12)
    x = random_images(3, 3, 11, 9)
    network = convert(Small(), x, hw, calibrator="max")
    exact = run(network, x, "exact")[0]
    saturated = []
    for bits in (12, 7, 6, 5, 4, 3, 2, 1):
        network.use_hardware(hw.replace(adc_bits=bits))
        y, counts = run(network, x, "bitserial")
        again, counts_again = run(network, x, "certified")
        assert torch.equal(y, again)
        assert counts == counts_again
        saturated.append(sum(count[2] for count in counts))
        assert torch.equal(y, exact) or saturated[-1]
    assert saturated[0] == 0 < saturated[-1]
    assert torch.equal(run(network, x, "exact")[0], exact)


@pytest.mark.parametrize("byte_dots", [True, False])
@pytest.mark.parametrize("bits", [9, 4])
def test_batches_blocks_and_threads_do_not_matter(bits, byte_dots, monkeypatch):
    monkeypatch.setattr(byte_products, "HAS_BYTE_DOTS", byte_dots)
    hw = bitline.load_hardware("tinyadc", adc_bits=bits)
    x = random_images(5, 3, 11, 9)
    network = convert(Small(), x, hw, calibrator="max")
    threads = get_num_threads()
    for engine in ("certified", "exact"):
        whole, counts = run(network, x, engine)
        assert torch.equal(torch.cat([network(image[None]) for image in x]), whole)
        assert torch.equal(network(x.to(memory_format=torch.channels_last)), whole)
        with monkeypatch.context() as patch:
            patch.setattr(crossbar_modules, "_BLOCK_BYTES", 1500)  # bands of an image
            patch.setattr(byte_products, "_BAND_BYTES", 60)
            for number in range(1, threads + 1):
                try:
                    set_num_threads(number)
                    assert run(network, x, engine)[1] == counts
                    assert torch.equal(network(x), whole)
                finally:
                    set_num_threads(threads)


@pytest.mark.parametrize("engine", ["bitserial", "certified", "exact"])
@pytest.mark.parametrize("byte_dots", [True, False])
def test_one_number_that_is_not_finite_is_named(engine, byte_dots, monkeypatch):
    monkeypatch.setattr(byte_products, "HAS_BYTE_DOTS", byte_dots)
    monkeypatch.setattr(crossbar_modules, "_BLOCK_BYTES", 1500)
    x = random_images(4, 3, 11, 9)
    network = convert(Small(), x, bitline.load_hardware("tinyadc"), engine=engine, calibrator="max")
    bad = x.clone()
    bad[3, 2, 10, 8] = float("nan")
    with pytest.raises(DataError, match="layer stem: NaN or infinite activations"):
        network(bad)


@pytest.mark.parametrize("engine", ["bitserial", "certified", "exact"])
@pytest.mark.parametrize("byte_dots", [True, False])
@pytest.mark.parametrize("line", [2, 3, 7, 10, 11])
def test_a_number_that_no_window_reads_is_named_too(line, engine, byte_dots, monkeypatch):
    monkeypatch.setattr(byte_products, "HAS_BYTE_DOTS", byte_dots)
    monkeypatch.setattr(byte_products, "_BAND_BYTES", 1)
    monkeypatch.setattr(crossbar_modules, "_BLOCK_BYTES", 1)
    x = random_images(2, 3, 12, 9)  # lines 0, 1, 4, 5, 8 and 9 are read
    conv = nn.Conv2d(3, 8, (2, 1), stride=4).eval()
    network = convert(conv, x, bitline.load_hardware("tinyadc"), engine=engine, calibrator="max")
    bad = x.clone()
    bad[1, 2, line, 8] = float("inf")
    with pytest.raises(DataError, match="NaN or infinite activations"):
        network(bad)


@pytest.mark.parametrize("engine", ["bitserial", "certified", "exact"])
@pytest.mark.parametrize("byte_dots", [True, False])
def test_no_images(engine, byte_dots, monkeypatch):
    monkeypatch.setattr(byte_products, "HAS_BYTE_DOTS", byte_dots)
    x = random_images(2, 3, 6, 5)
    network = convert(nn.Conv2d(3, 8, 3, padding=1).eval(), x, bitline.load_hardware("tinyadc"), engine=engine)
    assert network(x[:0]).shape == (0, 8, 6, 5)
    assert network.counters[0].vectors == 0
    with pytest.raises(ConversionError, match=r"input of \(0, 5\) is smaller than kernel"):
        network(x[:, :, :0])


def test_traces_do_not_depend_on_the_engine():
    x = random_images(3, 3, 11, 9)
    network = convert(Small(), x, bitline.load_hardware("tinyadc"), calibrator="max")
    recorded = []
    for engine in ("bitserial", "certified", "exact"):
        network.reset_counters()
        network.engine = engine
        network.record_traces(40)
        network(x)
        recorded.append([trace.x for trace in network.traces])
    for others in recorded[1:]:
        for mine, other in zip(recorded[0], others, strict=True):
            np.testing.assert_array_equal(mine, other)


# --- layouts ---------------------------------------------------------------------------------------------------------


class Layouts(nn.Module):
    """Readers of a convolution that care about the layout, before and after it is overwritten in place."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(6)
        self.a = nn.Conv2d(3, 16, 3, padding=1)
        self.b = nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x):
        y = self.a(x)
        before = y.mean((2, 3))
        F.relu_(y)
        z = self.b(y) + y
        return before, y.mean((2, 3)), z.sum((1, 2, 3)), y.view(y.shape[0], -1), z


def test_nothing_but_the_indifferent_sees_another_layout():
    """Sums in another order differ in the last bit: every output is that of a network that never changes the layout."""
    x = random_images(4, 3, 12, 12) + 0.3
    network = convert(Layouts(), x, bitline.load_hardware("tinyadc"), engine="certified", calibrator="max")
    modules = [module for module in network.modules() if isinstance(module, CrossbarModule)]
    assert all(module.channels_last for module in modules)
    out = network(x)
    for module in modules:
        module.channels_last = False
    for mine, usual in zip(out, network(x), strict=True):
        assert torch.equal(mine, usual)
        assert mine.is_contiguous()


class OverwrittenView(nn.Module):
    """Overwrites a convolution's output through a view of it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(6)
        self.a = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        y = self.a(x)
        flat = y.view(y.shape[0], -1)
        F.relu_(flat)
        return y + 1


def test_a_view_that_is_overwritten_keeps_the_usual_layout():
    x = random_images(2, 3, 6, 6)
    network = convert(OverwrittenView(), x, bitline.load_hardware("tinyadc"), engine="certified", calibrator="max")
    assert network(x).min() >= 1
    assert not next(m for m in network.modules() if isinstance(m, CrossbarModule)).channels_last


class OverwrittenLater(Layouts):
    """A view is taken of a feature map that is overwritten afterwards."""

    def __init__(self):
        nn.Module.__init__(self)
        self.conv, self.head = nn.Conv2d(2, 3, 3, padding=1), nn.Linear(48, 4)

    def forward(self, x):
        """Flatten, then overwrite."""
        y = self.conv(x)
        flat = y.flatten(1)
        y.relu_()
        return self.head(flat)


def test_a_view_sees_what_is_overwritten_later():
    torch.manual_seed(0)
    network, x = OverwrittenLater().eval(), torch.randn(8, 2, 4, 4)
    converted = convert(network, x, bitline.load_hardware("tinyadc"))
    assert not any(m.channels_last for m in converted.modules() if isinstance(m, CrossbarModule))
    with torch.no_grad():
        assert (converted(x) - network(x)).abs().max() < 0.05  # 0.4 with a copy in place of the view


@pytest.mark.parametrize(("kernel", "stride", "size"), [((5, 5), (1, 2), (8, 6)), ((2, 3), (2, 1), (3, 7))])
def test_one_output_position_along_a_side(kernel, stride, size):
    """One channel, one output column, a wide stride: oneDNN 3 gives wrong sums (8 x 6, stride (1, 2))."""
    rng = np.random.default_rng(3)
    w, x = rng.integers(-128, 128, (1, kernel[0] * kernel[1], 8)), rng.integers(0, 256, (2, *size, 1))
    window = Window(kernel=kernel, stride=stride)
    dense = DenseConvolution(w, window, (0, 255))
    expected = plain_product(x, w, window)
    assert np.array_equal(dense.multiply(x.astype(np.float32)), expected)
    exact = IntegerConvolution(w, 255, window)
    assert np.array_equal(exact.multiply(x.astype(np.float32)), expected)


@pytest.mark.parametrize("engine", ["bitserial", "certified", "exact"])
def test_inference_mode(engine):
    network = nn.Sequential(nn.Conv2d(2, 3, 3)).eval()
    x = torch.rand(4, 2, 6, 6)
    converted = convert(network, x, bitline.load_hardware("tinyadc"))
    converted.engine = engine
    expected = converted(x)
    with torch.inference_mode():
        assert torch.equal(converted(x), expected)
