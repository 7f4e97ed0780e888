"""LSTM and GRU layers on crossbars: bit for bit torch's cells on quantised numbers, and torch's own layers in float."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import reference_recurrent
import torch
from bitline.models.lstm import RowLSTM
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune

import bitline
from bitline.data import open_dataset
from bitline.errors import ConversionError, DataError
from bitline.layers import Gates, LayerKind, OperationKind
from bitline.network.conversion import CrossbarNetwork, convert, matrix_layers, operations
from bitline.network.graph import trace

HW = bitline.load_hardware("tinyadc")
CELLS = (nn.LSTM, nn.GRU)


def rnn(cell, inputs=5, hidden=6, seed=0, **options):
    torch.manual_seed(seed)
    return cell(inputs, hidden, **options).eval()


def sequences(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Wrap(nn.Module):
    """A recurrent layer ``rnn`` and a function of (self, x) that calls it."""

    def __init__(self, function, module, **others):
        super().__init__()
        self.rnn, self.function = module, function
        for name, other in others.items():
            setattr(self, name, other)

    def forward(self, x):
        return self.function(self, x)


def flat(value):
    """All tensors of a result, whatever it is nested in."""
    return [value] if isinstance(value, torch.Tensor) else [tensor for part in value for tensor in flat(part)]


def twin(converted: CrossbarNetwork, module, x):
    """The plain twin with the scales of a converted layer."""
    scales = {record.layer.rpartition(".")[2]: record.scale for record in converted.calibration}
    signed = {layer.name.rpartition(".")[2]: layer.signed_inputs for layer in converted.layers}
    bits = converted.hw.input_bits, converted.hw.weight_bits
    y, h, c = reference_recurrent.quantised(module, x, scales, signed, bits)
    return [y, h, c] if isinstance(module, nn.LSTM) else [y, h]


# --- the numbers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["bitserial", "certified", "exact"])
@pytest.mark.parametrize(
    "options",
    [
        {"batch_first": True},
        {"batch_first": True, "num_layers": 2},
        {"batch_first": True, "bias": False},
        {"batch_first": True, "num_layers": 2, "bidirectional": True, "dropout": 0.5},
    ],
)
@pytest.mark.parametrize("cell", CELLS)
def test_crossbars_equal_torchs_cell_on_quantised_numbers(cell, options, engine):
    module = rnn(cell, **options)
    x = sequences(9, 7, 5)
    converted = convert(module, x, HW, engine=engine)
    assert converted.certificate is not None
    assert converted.certificate.lossless
    for mine, wanted in zip(flat(converted(x)), twin(converted, module, x), strict=True):
        assert torch.equal(mine, wanted)
    assert all(counters.vectors == 9 * 7 for counters in converted.counters)


@settings(max_examples=8)
@given(data=st.data())
def test_any_size_on_any_hardware_equals_the_twin(data):
    cell = data.draw(st.sampled_from(CELLS))
    inputs, hidden, steps, batch = (data.draw(st.integers(1, high)) for high in (9, 20, 5, 4))
    hw = bitline.load_hardware(
        "tinyadc",
        rows=data.draw(st.sampled_from([8, 128])),
        input_bits=data.draw(st.sampled_from([4, 8, 16])),
        weight_bits=data.draw(st.sampled_from([3, 8])),
        dac_bits=data.draw(st.sampled_from([1, 2])),
        encoding=data.draw(st.sampled_from(["differential", "offset", "offset_flip"])),
    )
    module = rnn(cell, inputs, hidden, seed=data.draw(st.integers(0, 99)), batch_first=True)
    x = sequences(batch, steps, inputs)
    converted = convert(module, x, hw)
    assert all(torch.equal(a, b) for a, b in zip(flat(converted(x)), twin(converted, module, x), strict=True))


@pytest.mark.parametrize("cell", CELLS)
def test_engines_agree_where_conversions_saturate(cell):
    module, x = rnn(cell, 20, 24, batch_first=True), sequences(8, 5, 20)
    outputs, saturations = [], []
    converted = convert(module, x, HW.replace(adc_bits=4))
    for engine in ("bitserial", "certified", "exact"):
        converted.reset_counters()
        converted.engine = engine
        outputs.append(flat(converted(x))[0])
        saturations.append([counters.saturations for counters in converted.counters])
    assert min(saturations[0]) > 0
    assert saturations[0] == saturations[1]
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


def test_one_step_by_hand():
    # Weights and biases 0: all sigmoids give 1/2, tanh(0) = 0. LSTM: c = 1/2 c0 = 1, h = 1/2 tanh(1) = 0.380797.
    # GRU: n = 0, h = z h0 = 1.
    zero = torch.zeros(1, 1, 1)
    for cell, state, wanted in ((nn.LSTM, (zero, zero + 2), 0.3807970780), (nn.GRU, zero + 2, 1.0)):
        module = rnn(cell, 1, 1, batch_first=True)
        for parameter in module.parameters():
            nn.init.zeros_(parameter)
        network = Wrap(lambda self, x, state=state: self.rnn(x, state)[0], module)
        assert convert(network, zero, HW)(zero).item() == pytest.approx(wanted, abs=1e-7)


@pytest.mark.parametrize("cell", CELLS)
def test_outputs_do_not_depend_on_the_batch(cell):
    module, x = rnn(cell, 5, 19, batch_first=True), sequences(11, 6, 5)
    converted = convert(Wrap(lambda self, x: self.rnn(x)[0], module), x, HW, engine="exact")
    assert torch.equal(converted(x), torch.cat([converted(part) for part in x.split([1, 3, 7])]))


@pytest.mark.parametrize("options", [{"num_layers": 3}, {"batch_first": True, "num_layers": 2, "bidirectional": True}])
@pytest.mark.parametrize("cell", CELLS)
def test_the_unfolded_float_graph_is_torchs_layer(cell, options):
    """Layout, layers, directions, initial and final states: only the products' rounding may differ."""
    module = rnn(cell, **options).double()
    count = module.num_layers * (2 if module.bidirectional else 1)
    h, c = sequences(count, 4, 6, seed=2).double(), sequences(count, 4, 6, seed=3).double()
    state = (h, c) if cell is nn.LSTM else h
    x = sequences(*((4, 7, 5) if module.batch_first else (7, 4, 5))).double()
    for arguments in ((), (state,)):
        network = Wrap(lambda self, x, arguments=arguments: self.rnn(x, *arguments), module)
        for mine, wanted in zip(flat(trace(network)(x)), flat(module(x, *arguments)), strict=True):
            torch.testing.assert_close(mine, wanted, atol=1e-12, rtol=0)


@pytest.mark.parametrize("first", [0.0, 3.0])
def test_the_states_scale_comes_from_what_the_product_reads(first):
    """From the initial state and all outputs but the last, which nothing reads."""
    module = rnn(nn.GRU, batch_first=True)
    x, state = sequences(4, 3, 5), torch.full((1, 4, 6), first)
    x[:, -1] *= 100  # the last outputs are the largest
    outputs = module(x, state)[0]
    read = max(first, outputs[:, :-1].abs().max().item())
    assert outputs[:, -1].abs().max().item() != read
    network = Wrap(lambda self, x: self.rnn(x, x.new_full((1, x.shape[0], 6), first))[0], module)
    converted = convert(network, x, HW, calibrator="max")
    assert converted.calibration[1].layer == "rnn.weight_hh_l0"
    assert converted.calibration[1].scale == pytest.approx(read / 127, rel=0.01)  # -128 would take a larger negative


def test_a_layer_called_twice_shares_its_crossbars():
    module = rnn(nn.GRU, 6, 6, batch_first=True)
    network, x = Wrap(lambda self, x: self.rnn(self.rnn(x)[0])[0], module), sequences(4, 3, 6)
    converted = convert(network, x, HW)
    assert [layer.name for layer in converted.layers] == ["rnn.weight_ih_l0", "rnn.weight_hh_l0"]
    assert [counters.vectors for counters in (converted(x), converted.counters)[1]] == [24, 24]
    torch.testing.assert_close(converted(x), network(x), atol=0.02, rtol=0)


def test_pruned_by_torchs_hooks():
    module = rnn(nn.LSTM, batch_first=True)
    prune.l1_unstructured(module, "weight_hh_l0", amount=0.75)
    found = {layer.name: layer for layer in matrix_layers(module, HW).layers}
    assert np.count_nonzero(found["0.weight_hh_l0"].codes) <= 6 * 24 // 4


# --- what is on crossbars --------------------------------------------------------------------------------------------


def test_matrices_codes_and_operations():
    module = rnn(nn.LSTM, batch_first=True)
    network = Wrap(lambda self, x: self.fc(self.rnn(torch.relu(x))[0].flatten(1)), module, fc=nn.Linear(42, 3))
    found = matrix_layers(network, HW, input_shape=(7, 5))
    facts = [(layer.name, layer.kind, layer.codes.shape, layer.signed_inputs) for layer in found.layers]
    assert facts == [
        ("rnn.weight_ih_l0", LayerKind.LINEAR, (1, 5, 24), False),  # what it reads is behind a ReLU
        ("rnn.weight_hh_l0", LayerKind.RECURRENT, (1, 6, 24), True),
        ("fc", LayerKind.LINEAR, (1, 42, 3), True),
    ]
    assert [layer.output_positions for layer in found.layers] == [7, 7, 1]
    codes, scale = reference_recurrent.quantised_weights(module.weight_hh_l0, 8)
    np.testing.assert_array_equal(found.layers[1].codes[0], codes.T.numpy())
    np.testing.assert_array_equal(found.layers[1].weight_scale[0], scale.detach().numpy())
    flow = {operation.name: operation for operation in operations(network, (7, 5))}
    assert flow["rnn.weight_ih_l0"].output_shape == (24, 1, 7)
    assert flow["rnn.weight_hh_l0"].output_shape == (6, 1, 7)
    assert flow["rnn.weight_hh_l0"].macs == 7 * 6 * 24
    assert flow["rnn.weight_hh_l0"].gates == Gates(functions=30, arithmetic=48, moved=66)  # 5, 8, 11 of each output
    assert flow["fc"].inputs == ("rnn.weight_hh_l0",)


def test_a_backward_direction_waits_for_the_whole_sequence():
    module = rnn(nn.GRU, batch_first=True, bidirectional=True)
    flow = {o.name: o for o in operations(Wrap(lambda self, x: self.rnn(x)[0], module), (7, 5))}
    assert flow["flip"].inputs == ("rnn.weight_ih_l0_reverse",)
    assert flow["flip"].output_shape == (18, 1, 7)
    assert flow["flip"].window.output_size(1, 7) != (1, 7)  # so the scheduler waits for everything
    assert flow["rnn.weight_hh_l0_reverse"].inputs == ("flip",)
    assert flow["both_directions"].kind is OperationKind.CONCAT
    assert flow["both_directions"].output_shape == (12, 1, 7)


def test_what_is_refused_is_listed_or_said_in_one_line():
    network = Wrap(
        lambda self, x: self.elman(self.rnn(x)[0])[0],
        nn.LSTM(5, 6, batch_first=True, proj_size=4),
        elman=nn.RNN(4, 4, batch_first=True),
    )
    found = matrix_layers(network, HW)
    assert found.layers == []
    assert [(kept.name, kept.kind) for kept in found.kept] == [("rnn", "LSTM"), ("elman", "RNN")]
    assert all("recurrent layer" in kept.reason for kept in found.kept)
    module, x = rnn(nn.GRU, batch_first=True), sequences(4, 3, 5)
    converted = convert(module, x, HW)
    with pytest.raises(ConversionError, match="expected a batch of sequences with at least one step"):
        converted(x[0])
    with pytest.raises(ConversionError, match="expected a batch of sequences with at least one step"):
        converted(x[:, :0])
    with pytest.raises(DataError, match=r"layer 0\.weight_ih_l0: NaN"):
        converted(x * float("nan"))


# --- a small real task: digits row by row ----------------------------------------------------------------------------


class RowGRU(nn.Module):
    """A GRU over the rows of an image and a linear layer over its last output."""

    def __init__(self):
        super().__init__()
        self.gru, self.fc = nn.GRU(8, 16, batch_first=True), nn.Linear(16, 10)

    def forward(self, x):
        return self.fc(self.gru(torch.flatten(x, 1, 2))[0][:, -1])


@pytest.mark.parametrize("make", [lambda: RowLSTM(8, 16, 8, 10), RowGRU])
def test_trained_on_digits_row_by_row(make):
    torch.manual_seed(0)
    data, module = open_dataset("digits:8"), make()
    assert data.train is not None
    images, labels = data.train.images(0, len(data.train)), torch.from_numpy(data.train.labels)
    optimiser = torch.optim.Adam(module.parameters(), lr=0.03)
    for _ in range(16):
        for chosen in torch.randperm(len(images)).split(108):
            optimiser.zero_grad()
            nn.functional.cross_entropy(module(images[chosen]), labels[chosen]).backward()
            optimiser.step()
    converted = convert(copy.deepcopy(module), images[::12], HW)
    test, truth = data.test.images(0, len(data.test)), torch.from_numpy(data.test.labels)
    simulated = converted(test)
    converted.engine = "exact"
    assert torch.equal(simulated, converted(test))
    assert sum(counters.saturations for counters in converted.counters) == 0
    accuracy = [(scores.argmax(1) == truth).float().mean().item() for scores in (module(test), simulated)]
    assert accuracy[0] > 0.9  # chance is 0.1
    assert abs(accuracy[0] - accuracy[1]) < 0.02
