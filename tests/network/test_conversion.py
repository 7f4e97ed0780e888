"""A converted network against plain loops over its integers, its engines against each other, and against torch."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import bitline
from bitline.errors import ConfigError, ConversionError, DataError
from bitline.layers import LayerKind
from bitline.network import crossbar_modules
from bitline.network.conversion import CrossbarNetwork, convert

HW = bitline.load_hardware("tinyadc")


class Wrap(nn.Module):
    """A network from a function of (self, x) and named modules."""

    def __init__(self, function, **modules):
        super().__init__()
        for name, module in modules.items():
            setattr(self, name, module)
        self.function = function

    def forward(self, x):
        return self.function(self, x)


def used_batch_norm(channels, cls=nn.BatchNorm2d):
    norm = cls(channels)
    generator = torch.Generator().manual_seed(channels)
    norm.running_mean = torch.randn(channels, generator=generator)
    norm.running_var = torch.rand(channels, generator=generator) + 0.2
    norm.weight = nn.Parameter(torch.rand(channels, generator=generator) + 0.5)
    norm.bias = nn.Parameter(torch.randn(channels, generator=generator))
    return norm.eval()


def random_input(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# --- one layer against plain loops -----------------------------------------------------------------------------------


def plain_codes(x, scale, low, high):
    """Python's round is half to even, its floats are float64."""
    return [min(max(round(float(value) / scale), low), high) for value in x]


def plain_layer(x, layer, scale, hw):
    """One matrix layer on one image (C, H, W), by loops over Python integers; (outputs, H', W') float32."""
    channels, height, width = x.shape
    low, high = hw.input_range(layer.signed_inputs)
    codes = np.array(plain_codes(x.reshape(-1), scale, low, high), dtype=object).reshape(x.shape)
    (kh, kw), (sh, sw), (dh, dw) = layer.window.kernel, layer.window.stride, layer.window.dilation
    left, right, top, bottom = layer.window.padding
    out_h = (height + top + bottom - dh * (kh - 1) - 1) // sh + 1
    out_w = (width + left + right - dw * (kw - 1) - 1) // sw + 1
    out = np.zeros((layer.groups * layer.columns, out_h, out_w), np.float32)
    per_group = channels // layer.groups
    for g in range(layer.groups):
        for n in range(layer.columns):
            for i in range(out_h):
                for j in range(out_w):
                    y, k = 0, 0
                    for c in range(g * per_group, (g + 1) * per_group):
                        for a in range(kh):
                            for b in range(kw):
                                row, column = i * sh + a * dh - top, j * sw + b * dw - left
                                if 0 <= row < height and 0 <= column < width:
                                    y += codes[c, row, column] * int(layer.codes[g, k, n])
                                k += 1
                    real = y * (scale * float(layer.weight_scale[g, n]))
                    if layer.bias is not None:
                        real += float(layer.bias[g, n])
                    out[g * layer.columns + n, i, j] = np.float32(real)
    return out


LAYERS = {
    "plain": (nn.Conv2d(2, 3, 3), (2, 6, 5)),
    "stride and padding": (nn.Conv2d(2, 3, 3, stride=2, padding=1), (2, 6, 5)),
    "asymmetric": (nn.Conv2d(2, 3, (1, 3), stride=(2, 1), padding=(0, 2)), (2, 6, 5)),
    "same, even kernel": (nn.Conv2d(2, 3, (2, 4), padding="same"), (2, 6, 5)),
    "same, dilated": (nn.Conv2d(2, 2, 3, padding="same", dilation=2), (2, 6, 5)),
    "valid": (nn.Conv2d(2, 3, 3, padding="valid", bias=False), (2, 6, 5)),
    "dilation": (nn.Conv2d(2, 3, 2, dilation=(2, 3)), (2, 6, 5)),
    "groups": (nn.Conv2d(4, 6, 3, groups=2), (4, 5, 5)),
    "depthwise": (nn.Conv2d(3, 6, 3, groups=3, padding=1), (3, 5, 5)),
    "pointwise": (nn.Conv2d(5, 3, 1, bias=False), (5, 3, 3)),
    "one dimension": (nn.Conv1d(3, 4, 3, stride=2, padding=1, dilation=2), (3, 9)),
    "one dimension, groups": (nn.Conv1d(4, 4, 2, groups=4, padding="same"), (4, 9)),
    "linear": (nn.Linear(7, 4), (7,)),
    "linear without bias": (nn.Linear(7, 4, bias=False), (7,)),
    "linear of a sequence": (nn.Linear(5, 4), (3, 5)),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_one_layer_equals_plain_loops(name, signed):
    module, shape = LAYERS[name]
    network = nn.Sequential(module) if signed else nn.Sequential(nn.ReLU(), module)
    x = random_input(4, *shape)
    converted = convert(network, x[2:], HW)  # inputs beyond what calibration saw are clipped
    (layer,), (record,) = converted.layers, converted.calibration
    assert layer.signed_inputs is signed
    given = x if signed else x.clamp(min=0)
    if layer.kind is LayerKind.LINEAR:
        images = given.reshape(-1, shape[-1], 1, 1).numpy()
    else:
        images = (given if len(shape) == 3 else given[:, :, None]).numpy()
    expected = np.stack([plain_layer(image, layer, record.scale, HW) for image in images])
    float_shape = network(x).shape
    if layer.kind is LayerKind.LINEAR:
        expected = expected.reshape(float_shape)
    for engine in ("exact", "bitserial", "certified"):
        converted.engine = engine
        out = converted(x)
        assert out.shape == float_shape
        assert out.dtype == torch.float32
        np.testing.assert_array_equal(out.numpy().reshape(expected.shape), expected, err_msg=engine)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize("padding", [(1, 2), "same"])
def test_other_paddings_equal_padding_first(mode, padding):
    conv = nn.Conv2d(2, 3, 3, padding=padding, padding_mode=mode)
    x = random_input(3, 2, 6, 7)
    sides = (2, 2, 1, 1) if padding == (1, 2) else (1, 1, 1, 1)
    bare = nn.Conv2d(2, 3, 3)
    bare.load_state_dict(conv.state_dict())
    padded = convert(nn.Sequential(conv), x, HW)
    first = convert(nn.Sequential(bare), F.pad(x, sides, mode=mode), HW)
    first_scale = first.calibration[0].scale
    for module in padded.graph_module.modules():
        if isinstance(module, crossbar_modules.CrossbarModule):
            module.input_scale = first_scale  # the samples differ, what is tested does not
    torch.testing.assert_close(padded(x), first(F.pad(x, sides, mode=mode)), rtol=0, atol=0)
    one = nn.Conv1d(2, 2, 3, padding=1, padding_mode=mode)
    assert convert(nn.Sequential(one), x[:, :, 0], HW)(x[:, :, 0]).shape == (3, 2, 7)


@st.composite
def geometries(draw):
    groups = draw(st.integers(1, 3))
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    return {
        "in_channels": groups * draw(st.integers(1, 2)),
        "out_channels": groups * draw(st.integers(1, 2)),
        "kernel_size": kernel,
        "stride": draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        "padding": draw(st.tuples(st.integers(0, 2), st.integers(0, 2))),
        "dilation": dilation,
        "groups": groups,
    }, [r + draw(st.integers(0, 4)) for r in reach]


@given(geometries(), st.integers(0, 2**31))
@settings(max_examples=40)
def test_any_convolution_of_integers_equals_torch(geometry, seed):
    options, size = geometry
    rng = np.random.default_rng(seed)
    conv = nn.Conv2d(**options, bias=False)
    weight = rng.integers(-127, 128, conv.weight.shape)
    weight[:, 0, 0, 0] = 127  # so that a unit of code is exactly 1
    conv.weight = nn.Parameter(torch.from_numpy(weight).float())
    x = torch.from_numpy(rng.integers(0, 256, (2, options["in_channels"], *size))).double()
    x[0, 0, 0, 0] = 255
    converted = convert(nn.Sequential(nn.ReLU(), conv), x, HW, calibrator="max", engine="bitserial")
    assert converted.calibration[0].scale == 1.0
    function_options = {key: options[key] for key in ("stride", "padding", "dilation", "groups")}
    expected = F.conv2d(x, torch.from_numpy(weight).double(), **function_options)
    assert torch.equal(converted(x).double(), expected)


# --- whole networks --------------------------------------------------------------------------------------------------


def residual():
    torch.manual_seed(1)

    def function(self, x):
        y = F.relu(self.norm_1(self.conv_1(x)))
        z = self.norm_2(self.conv_2(y))
        z += self.drop(y)
        z = self.act(z)
        z = F.max_pool2d(z, 2)
        z = F.adaptive_avg_pool2d(z, 1)
        return self.fc(torch.flatten(z, 1))

    return Wrap(
        function,
        conv_1=nn.Conv2d(3, 6, 3, padding=1, bias=False),
        norm_1=used_batch_norm(6),
        conv_2=nn.Conv2d(6, 6, 3, padding=1, groups=2),
        norm_2=used_batch_norm(6),
        drop=nn.Dropout(0.5),
        act=nn.ReLU(inplace=True),
        fc=nn.Linear(6, 4),
    ).eval()


def concatenating():
    torch.manual_seed(2)

    def function(self, x):
        s = self.squeeze(x).relu()
        y = torch.cat([self.act(self.left(s)), F.hardswish(self.right(s))], dim=1)
        y = self.after(y) * torch.sigmoid(self.gate(F.adaptive_avg_pool2d(y, 1)))
        return y.mean((2, 3))

    return Wrap(
        function,
        squeeze=nn.Conv2d(3, 4, 1),
        left=nn.Conv2d(4, 4, 1),
        right=nn.Conv2d(4, 4, 3, padding=1),
        after=nn.Conv2d(8, 5, 3, stride=2),
        gate=nn.Conv2d(8, 5, 1),
        act=nn.SiLU(),
    ).eval()


@pytest.mark.parametrize("make", [residual, concatenating])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"encoding": "offset"},
        {"encoding": "offset_flip", "rows": 20},
        {"readout": "analog", "dac_bits": 2, "cell_bits": 1},
        {"weight_bits": 16, "input_bits": 16},
        {"weight_bits": 2, "input_bits": 3},
    ],
)
def test_engines_are_identical_bit_for_bit_where_nothing_saturates(make, options):
    hw = HW.replace(**options)
    x = random_input(5, 3, 8, 8)
    network = convert(make(), x, hw)
    assert network.certificate.lossless
    outputs = {}
    for engine in ("bitserial", "certified", "exact"):
        network.engine = engine
        assert network.engine == engine
        outputs[engine] = network(x)
    assert torch.equal(outputs["bitserial"], outputs["exact"])
    assert torch.equal(outputs["certified"], outputs["exact"])
    assert all(counters.saturations == 0 for counters in network.counters)
    if options.get("weight_bits", 8) == 16:
        torch.testing.assert_close(outputs["exact"], make()(x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("make", [residual, concatenating])
def test_converted_network_is_close_to_the_float_network(make):
    network, x = make(), random_input(16, 3, 8, 8)
    wanted = network(x)
    converted = convert(network, x, HW, engine="exact")
    torch.testing.assert_close(converted.float_forward(x), wanted, rtol=0, atol=0)
    error = (converted(x) - wanted).norm() / wanted.norm()
    assert 0 < error < 0.03
    assert converted.kept == []


def test_too_few_adc_bits_change_the_result_the_same_way_in_both_crossbar_engines():
    x = random_input(4, 3, 8, 8)
    network = convert(residual(), x, HW)
    lossless = network(x)
    few = HW.replace(adc_bits=3)
    network.use_hardware(few)
    assert not network.certificate.lossless
    assert [counters.vectors for counters in network.counters] == [0, 0, 0]
    out = network(x)
    assert sum(counters.saturations for counters in network.counters) > 0
    assert not torch.equal(out, lossless)
    network.engine = "certified"
    assert torch.equal(network(x), out)
    network.engine = "exact"
    assert torch.equal(network(x), lossless)
    assert torch.equal(convert(residual(), x, few)(x), out)
    with pytest.raises(ConfigError, match="input_bits 4 and weight_bits 8 differ"):
        network.use_hardware(HW.replace(input_bits=4))


@pytest.mark.parametrize("engine", ["exact", "bitserial"])
@pytest.mark.parametrize("make", [residual, concatenating])
def test_results_do_not_depend_on_batch_size_blocks_or_threads(make, engine, monkeypatch):
    x = random_input(7, 3, 9, 9)
    network = convert(make(), x, HW, engine=engine)
    whole = network(x)
    assert torch.equal(torch.cat([network(image[None]) for image in x]), whole)
    assert torch.equal(torch.cat([network(x[:3]), network(x[3:])]), whole)
    monkeypatch.setattr(crossbar_modules, "_BUDGET_BYTES", 3000)  # bands of an image
    assert torch.equal(network(x), whole)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert torch.equal(network(x), whole)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("act", [nn.Sigmoid(), nn.Tanh(), nn.GELU(), nn.SiLU(inplace=True), nn.Softmax(1), torch.exp])
def test_elementary_functions_do_not_depend_on_their_place_in_the_batch(act):
    network = Wrap(lambda self, x: act(self.conv(x)) if self.act is None else self.act(self.conv(x)), act=None)
    network.act = act if isinstance(act, nn.Module) else None
    network.conv = nn.Conv2d(1, 3, 1)
    x = random_input(301, 1, 3, 3)  # nine numbers an image: no multiple of a vector register
    converted = convert(network, x, HW, engine="exact")
    assert torch.equal(torch.cat([converted(image[None]) for image in x]), converted(x))
    assert converted(x).dtype == torch.float32


def test_memory_layout_of_the_input_does_not_matter():
    x = random_input(3, 3, 8, 8)
    network = convert(residual(), x, HW, engine="exact")
    wanted = network(x)
    assert torch.equal(network(x.to(memory_format=torch.channels_last)), wanted)
    assert torch.equal(network(x.double()), wanted)
    assert torch.equal(network(x.clone().requires_grad_()), wanted)


def test_a_shared_layer_has_one_matrix_and_a_scale_for_each_call():
    network = Wrap(lambda self, x: self.a(10 * self.a(x)), a=nn.Linear(4, 4)).eval()
    x = random_input(6, 4)
    converted = convert(network, x, HW)
    assert [layer.name for layer in converted.layers] == ["a"]
    assert [record.layer for record in converted.calibration] == ["a", "a#2"]
    first, second = (record.scale for record in converted.calibration)
    assert second > 3 * first
    out = converted(x)
    assert converted.counters[0].vectors == 12
    (layer,) = converted.layers
    inner = 10 * plain_layers(x, layer, first)
    np.testing.assert_array_equal(out.numpy(), plain_layers(inner, layer, second))
    assert layer.output_positions == 2


def plain_layers(x, layer, scale):
    return np.stack([plain_layer(np.asarray(row)[:, None, None], layer, scale, HW)[:, 0, 0] for row in x])


def test_tied_weights_are_two_layers():
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    network[2].weight = network[0].weight
    converted = convert(network, random_input(6, 4), HW)
    np.testing.assert_array_equal(converted.layers[0].codes, converted.layers[1].codes)
    assert [layer.signed_inputs for layer in converted.layers] == [True, False]


def test_the_callers_module_and_data_are_never_changed():
    network = Wrap(
        lambda self, x: self.last(self.norm(self.conv(F.relu(x, inplace=True)))),
        conv=nn.Conv2d(3, 4, 3),
        norm=used_batch_norm(4),
        last=nn.ReLU(inplace=True),
    ).double()
    network.train()
    state, x = copy.deepcopy(network.state_dict()), random_input(4, 3, 6, 6)
    kept, modules = x.clone(), [*network.named_modules()]
    converted = convert(network, x, HW)
    assert torch.equal(x, kept)
    assert network.training
    assert [*network.named_modules()] == modules
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert all(parameter.requires_grad for parameter in network.parameters())
    with torch.no_grad():
        network.conv.weight.zero_()
    assert not torch.equal(converted.float_forward(x.clone()), torch.relu(network.eval()(x.clone().double())))
    assert not converted.train().training
    assert not converted.graph_module.training


def test_weight_codes_in_double_precision_come_from_double_precision():
    linear = nn.Linear(2, 1, bias=False).double()
    linear.weight = nn.Parameter(torch.tensor([[127.0, 0.5 + 1e-12]], dtype=torch.float64))
    assert convert(linear, random_input(3, 2).double(), HW).layers[0].codes.ravel().tolist() == [127, 1]


def test_unplaceable_layers_run_in_torch_between_crossbars():
    network = Wrap(
        lambda self, x: self.fc(self.rnn(self.embed(x))[0][:, -1]),
        embed=nn.Conv1d(3, 4, 1),
        rnn=nn.RNN(5, 6, batch_first=True),
        fc=nn.Linear(6, 2),
    ).eval()
    x = random_input(8, 3, 5)
    converted = convert(network, x, HW, engine="exact")
    assert [(kept.name, kept.kind) for kept in converted.kept] == [("rnn", "RNN")]
    torch.testing.assert_close(converted(x), network(x), atol=0.02, rtol=0.05)


def test_receptive_fields_from_images_equal_the_matrix_of_them():
    """Counting histograms needs the matrix; outputs and counters do not change."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(4, 6, (3, 2), stride=(1, 2), padding=1, groups=2), nn.ReLU(), nn.Conv2d(6, 4, 3, dilation=2)
    ).eval()
    images = random_input(3, 4, 17, 23)
    network = convert(module, images, bitline.load_hardware("tinyadc", adc_bits=4), engine="bitserial")
    runs = []
    for histograms in (False, True):
        network.reset_counters()
        network.record_histograms(histograms)
        assert [runner.reads_images for runner in network._runners] == [not histograms] * 2
        outputs = network(images)
        counted = [(c.vectors, c.conversions, c.saturations, c.max_column_sum) for c in network.counters]
        runs.append((outputs, counted))
    assert torch.equal(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]
    assert all(saturations > 0 for _, _, saturations, _ in runs[0][1])


# --- counters, histograms, traces ------------------------------------------------------------------------------------


def test_counters_histograms_and_traces():
    x = random_input(3, 3, 8, 8)
    network = convert(residual(), x, HW)
    assert network.engine == "certified"  # only outputs and counts are wanted, until somebody records sums
    network.record_histograms(True)
    network.record_traces(10)
    network(x)
    counters = {counter.name: counter for counter in network.counters}
    assert [counter.vectors for counter in network.counters] == [3 * 64, 3 * 64, 3]
    # conv_1: 27 rows in one tile, 6 outputs x 4 slices x 2 signs, 8 input cycles (signed, 1-bit DAC)
    assert counters["conv_1"].conversions == 3 * 64 * 6 * 4 * 2 * 8
    for counter in network.counters:
        assert counter.histogram.sum() == counter.conversions
        sums = np.flatnonzero(counter.histogram.sum(axis=0))
        assert sums.max() == counter.max_column_sum > 0
    traces = {trace.name: trace for trace in network.traces}
    assert {name: trace.x.shape for name, trace in traces.items()} == {
        "conv_1": (10, 27),
        "conv_2": (10, 54),
        "fc": (3, 6),
    }
    fc = traces["fc"]
    by_hand = fc.x.astype(np.int64) @ fc.codes[0]
    scale = network.calibration[-1].scale * network.layers[-1].weight_scale[0]
    expected = (by_hand * scale + network.layers[-1].bias[0]).astype(np.float32)
    np.testing.assert_array_equal(network(x).numpy(), expected)
    network.record_histograms(False)
    before = counters["fc"].histogram.sum()
    network(x)
    assert network.counters[2].histogram.sum() == before
    network.reset_counters()
    network.record_traces(0)
    network.engine = "certified"
    network(x)
    assert network.traces == []
    assert network.counters[0].max_column_sum is None
    assert network.counters[0].conversions == 3 * 64 * 6 * 4 * 2 * 8
    network.reset_counters()
    network.engine = "exact"
    network(x)
    assert (network.counters[0].vectors, network.counters[0].conversions) == (3 * 64, 0)


# --- calibration data ------------------------------------------------------------------------------------------------


def test_batches_of_calibration_data_equal_one_tensor():
    x = random_input(12, 3, 8, 8)
    one = convert(residual(), x, HW, calibrator="max")
    parts = convert(residual(), iter([x[:5], x[5:6], x[6:]]), HW, calibrator="max")
    for a, b in zip(one.calibration, parts.calibration, strict=True):
        assert a.scale == pytest.approx(b.scale, rel=1e-3)
        assert set(a.errors) == {"max", "percentile_99.99", "percentile_99.9", "mse"}


def test_auto_is_what_convert_uses_and_reports():
    x = random_input(40, 3, 8, 8)
    x[0, 0, 0, 0] = 60.0
    hw = HW.replace(input_bits=4)
    chosen = convert(residual(), x, hw).calibration
    assert all(record.errors[record.calibrator] == min(record.errors.values()) for record in chosen)
    assert {record.calibrator for record in convert(residual(), x, hw, calibrator="max").calibration} == {"max"}


def test_progress_counts_up_to_its_total():
    steps = []
    convert(residual(), random_input(40, 3, 8, 8), HW, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(i, steps[-1][1]) for i in range(1, steps[-1][1] + 1)]


@pytest.mark.parametrize(
    ("calibration", "error", "message"),
    [
        (torch.zeros(0, 3, 8, 8), DataError, "expected a batch"),
        (iter([]), DataError, "no inputs"),
        (torch.full((2, 3, 8, 8), math.nan), DataError, "NaN or infinite inputs"),
        ([np.zeros((2, 3, 8, 8))], DataError, "found ndarray"),
        (torch.zeros(2, 1, 8, 8), ConversionError, r"does not run on an input of shape \(1, 8, 8\)"),
        (torch.full((2, 3, 8, 8), 3e38), DataError, "NaN or infinite activations"),
    ],
)
def test_bad_calibration_data_is_one_line(calibration, error, message):
    with pytest.raises(error, match=message) as caught:
        convert(residual(), calibration, HW)
    assert "\n" not in str(caught.value)


def test_all_zero_calibration_gives_scale_one():
    network = convert(residual(), torch.zeros(2, 3, 8, 8), HW)
    assert network.calibration[0].scale == 1.0
    assert torch.isfinite(network(random_input(2, 3, 8, 8))).all()


def test_bad_options_and_inputs():
    x = random_input(2, 3, 8, 8)
    with pytest.raises(ConfigError, match="engine: must be one of bitserial, certified, exact, not 'fast'"):
        convert(residual(), x, HW, engine="fast")
    with pytest.raises(ConfigError, match="calibrator: must be auto"):
        convert(residual(), x, HW, calibrator="best")
    with pytest.raises(ConversionError, match="Sequential: has no convolution or linear layer"):
        convert(nn.Sequential(nn.ReLU()), x, HW)
    network = convert(residual(), x, HW)
    with pytest.raises(ConfigError, match="engine: must be one of"):
        network.engine = "fast"
    with pytest.raises(ConversionError, match=r"layer conv_1: expected input of shape \(batch, 3, height, width\)"):
        network(random_input(2, 4, 8, 8))
    with pytest.raises(DataError, match="layer conv_1: NaN or infinite activations"):
        network(torch.full((1, 3, 8, 8), math.inf))
    folded = convert(nn.Sequential(nn.Linear(3, 2), used_batch_norm(2, nn.BatchNorm1d)), x[:, :, 0, 0], HW)
    with pytest.raises(ConversionError, match=r"layer 0: expected input of shape \(batch, 3\), got \(1, 2, 3\)"):
        folded(random_input(1, 2, 3))


def test_convert_is_bitlines():
    assert bitline.convert is convert
    assert isinstance(bitline.convert(nn.Linear(2, 2), random_input(2, 2), HW), CrossbarNetwork)


class _OptionalArgument(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return self.fc(x if mask is None else x * mask)


def test_optional_arguments_stay_at_their_defaults() -> None:
    torch.manual_seed(0)
    module, x = _OptionalArgument(), torch.randn(5, 6)
    network = convert(module, x, bitline.load_hardware("tinyadc"))
    assert torch.allclose(network(x), module(x), atol=0.05)
