"""Tracing, placement, folding and the signedness of activations."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune

import bitline
from bitline.errors import CheckpointError, ConversionError
from bitline.layers import LayerKind, Window
from bitline.network.conversion import matrix_layers
from bitline.network.folding import as_float64, fold_batch_norm
from bitline.network.graph import private_copy, trace
from bitline.network.placement import place

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


def used_batch_norm(channels, cls=nn.BatchNorm2d, **options):
    """A batch norm whose statistics and affine map are not the initial ones."""
    norm = cls(channels, **options)
    generator = torch.Generator().manual_seed(channels)
    norm.running_mean = torch.randn(channels, generator=generator)
    norm.running_var = torch.rand(channels, generator=generator) + 0.2
    if norm.affine:
        norm.weight = nn.Parameter(torch.randn(channels, generator=generator))
        norm.bias = nn.Parameter(torch.randn(channels, generator=generator))
    return norm.eval()


# --- tracing ---------------------------------------------------------------------------------------------------------


def test_untraceable_network_is_one_line_that_says_what_to_do():
    network = Wrap(lambda self, x: self.a(x) if x.sum() > 0 else x, a=nn.Linear(2, 2))
    with pytest.raises(ConversionError, match=r"Wrap: torch.fx cannot trace .*control flow") as error:
        trace(network)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("thing", [3, "resnet", nn.Parameter(torch.ones(2))])
def test_something_else_than_a_module_is_refused(thing):
    with pytest.raises(ConversionError, match=r"expected a torch\.nn\.Module"):
        trace(thing)


def test_two_inputs_are_refused_and_defaults_are_not():
    class Two(nn.Module):
        def forward(self, x, y):
            return x + y

    class Optional(nn.Module):
        def forward(self, x, mask=None):
            return x

    with pytest.raises(ConversionError, match=r"one tensor argument, found 2 \(x, y\)"):
        trace(Two())
    assert trace(Optional())(torch.ones(1)) == 1


def test_weights_that_do_not_exist_are_refused():
    with pytest.raises(ConversionError, match=r"0\.weight has no values"):
        trace(nn.Sequential(nn.LazyLinear(3)))
    with torch.device("meta"), pytest.raises(ConversionError, match="has no values"):
        trace(nn.Linear(2, 2))


def test_dropout_and_identity_disappear():
    gone = Wrap(
        lambda self, x: F.dropout(self.drop(self.same(x)), training=self.training),
        drop=nn.Dropout(0.9),
        same=nn.Identity(),
    )
    assert [node.op for node in trace(gone).graph.nodes] == ["placeholder", "output"]


def test_the_result_of_an_inplace_call_that_is_thrown_away_still_counts():
    def function(self, x):
        y = self.conv(x)
        y.relu_()
        self.relu(y)
        F.relu(y, inplace=True)
        return y

    graph = trace(Wrap(function, conv=nn.Conv2d(1, 1, 1), relu=nn.ReLU(inplace=True)))
    assert [str(node.target) for node in graph.graph.nodes][2:4] == ["relu_", "relu"]
    assert (graph(torch.randn(2, 1, 5, 5)) >= 0).all()


def test_unused_layers_are_neither_traced_nor_placed():
    def function(self, x):
        self.dead(x)
        return self.live(x)

    network = Wrap(function, live=nn.Linear(3, 2), dead=nn.Linear(3, 9), never=nn.BatchNorm1d(2))
    found = matrix_layers(network, HW)
    assert [layer.name for layer in found.layers] == ["live"]
    assert found.kept == []


def test_pruning_masks_are_applied_and_the_callers_module_is_left_alone():
    conv = nn.Conv2d(2, 3, 3)
    prune.random_unstructured(conv, "weight", amount=0.5)
    with torch.no_grad():  # as after loading a state dict: ``weight`` is stale until the hook runs
        conv.weight_orig.fill_(1.0)
    stale = conv.weight.clone()
    twin = private_copy(conv)
    torch.testing.assert_close(twin.weight, conv.weight_mask, rtol=0, atol=0)
    torch.testing.assert_close(conv.weight, stale, rtol=0, atol=0)
    assert conv.weight_orig.requires_grad


def test_data_parallel_is_unwrapped():
    found = matrix_layers(nn.DataParallel(nn.Sequential(nn.Linear(2, 2))), HW)
    assert [layer.name for layer in found.layers] == ["0"]


# --- folding ---------------------------------------------------------------------------------------------------------


def test_folding_by_hand():
    norm = nn.BatchNorm2d(1, eps=0.0)
    norm.running_mean, norm.running_var = torch.tensor([3.0]), torch.tensor([4.0])
    norm.weight, norm.bias = nn.Parameter(torch.tensor([6.0])), nn.Parameter(torch.tensor([0.5]))
    weight, bias = fold_batch_norm(np.array([[2.0]]), np.array([5.0]), norm)
    # g = 6 / sqrt(4) = 3; 2 * 3; (5 - 3) * 3 + 0.5
    assert (weight.item(), bias.item()) == (6.0, 6.5)
    weight, bias = fold_batch_norm(np.array([[2.0]]), None, norm)
    assert (weight.item(), bias.item()) == (6.0, -8.5)


@pytest.mark.parametrize("options", [{}, {"affine": False}, {"eps": 0.1}])
@pytest.mark.parametrize("bias", [True, False])
def test_folded_convolution_equals_convolution_and_batch_norm(options, bias):
    conv = nn.Conv2d(4, 6, 3, groups=2, bias=bias)
    norm = used_batch_norm(6, **options)
    (matrix,) = place(trace(nn.Sequential(conv, norm))).matrices
    x = torch.randn(2, 4, 7, 7)
    weight = torch.from_numpy(matrix.weight.transpose(0, 2, 1).reshape(6, 2, 3, 3))
    folded = F.conv2d(x.double(), weight, torch.from_numpy(matrix.bias.reshape(-1)), groups=2)
    expected = norm.double()(conv.double()(x.double()))
    torch.testing.assert_close(folded, expected, rtol=1e-12, atol=1e-12)


def test_batch_norm_folds_only_where_it_alone_reads_the_layer():
    def branch(self, x):
        y = self.conv(x)
        return self.norm(y) + y

    shared = Wrap(branch, conv=nn.Conv2d(2, 2, 1), norm=used_batch_norm(2))
    found = matrix_layers(shared, HW)
    assert [(kept.name, kept.kind) for kept in found.kept] == [("norm", "BatchNorm2d")]
    assert found.layers[0].bias.ravel().tolist() == as_float64(shared.conv.bias).tolist()

    before = Wrap(lambda self, x: self.conv(self.norm(x)), conv=nn.Conv2d(2, 2, 1), norm=used_batch_norm(2))
    assert [kept.name for kept in matrix_layers(before, HW).kept] == ["norm"]

    through_dropout = nn.Sequential(nn.Linear(3, 2), nn.Dropout(), used_batch_norm(2, nn.BatchNorm1d))
    assert matrix_layers(through_dropout, HW, input_shape=(3,)).kept == []


def test_a_layer_shared_under_two_batch_norms_keeps_both_and_under_one_folds():
    two = Wrap(
        lambda self, x: self.b(self.conv(self.a(self.conv(x)))),
        conv=nn.Conv2d(2, 2, 1),
        a=used_batch_norm(2),
        b=used_batch_norm(2),
    )
    found = matrix_layers(two, HW)
    assert [layer.name for layer in found.layers] == ["conv"]
    assert [kept.name for kept in found.kept] == ["a", "b"]
    one = Wrap(lambda self, x: self.a(self.conv(self.a(self.conv(x)))), conv=nn.Conv2d(2, 2, 1), a=used_batch_norm(2))
    assert matrix_layers(one, HW).kept == []


# --- placement -------------------------------------------------------------------------------------------------------


def test_rows_are_in_order_channel_kernel_row_kernel_column_and_groups_apart():
    conv = nn.Conv2d(4, 2, (2, 3), groups=2, bias=False)
    conv.weight = nn.Parameter(torch.arange(24.0).reshape(2, 2, 2, 3))
    (layer,) = matrix_layers(conv, HW.replace(weight_bits=16)).layers
    assert layer.codes.shape == (2, 12, 1)
    # one scale per output: 11 / 32767 and 23 / 32767
    np.testing.assert_array_equal(layer.codes[0, :, 0], np.rint(np.arange(12) * 32767 / 11))
    np.testing.assert_array_equal(layer.codes[1, :, 0], np.rint(np.arange(12, 24) * 32767 / 23))
    assert layer.weight_scale.shape == (2, 1)
    assert layer.bias is None


@pytest.mark.parametrize(
    ("module", "kind", "window"),
    [
        (nn.Linear(3, 2), LayerKind.LINEAR, Window()),
        (
            nn.Conv1d(1, 1, 5, stride=2, padding=3, dilation=4),
            LayerKind.CONV1D,
            Window(kernel=(1, 5), stride=(1, 2), padding=(3, 3, 0, 0), dilation=(1, 4)),
        ),
        (
            nn.Conv2d(1, 1, (2, 3), stride=(4, 5), padding=(6, 7), dilation=(8, 9)),
            LayerKind.CONV2D,
            Window(kernel=(2, 3), stride=(4, 5), padding=(7, 7, 6, 6), dilation=(8, 9)),
        ),
        # 'same' of an even kernel: torch puts the odd zero right and below
        (nn.Conv2d(1, 1, (2, 4), padding="same"), LayerKind.CONV2D, Window(kernel=(2, 4), padding=(1, 2, 0, 1))),
        (nn.Conv2d(1, 1, 3, padding="valid"), LayerKind.CONV2D, Window(kernel=(3, 3))),
    ],
)
def test_windows(module, kind, window):
    (layer,) = matrix_layers(module, HW).layers
    assert (layer.kind, layer.window) == (kind, window)


def test_functional_layers_are_placed_where_their_weights_are_the_networks():
    class Masked(nn.Conv2d):
        def forward(self, x):
            return F.conv2d(x, self.weight * (self.weight.abs() > 0.1), self.bias, self.stride, self.padding)

    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.masked = Masked(1, 2, 3, padding=1)
            self.fc_weight = nn.Parameter(torch.randn(4, 2))
            self.key = nn.Linear(2, 2)

        def forward(self, x):
            x = self.masked(x).mean((2, 3))
            y = F.linear(x, self.fc_weight)
            return F.linear(y, F.linear(x, self.key.weight.t() @ self.fc_weight.t()))

    network = Functional()
    found = matrix_layers(network, HW)
    assert [layer.name for layer in found.layers][:2] == ["masked", "fc"]
    assert len(found.layers) == 3
    np.testing.assert_array_equal(
        found.layers[0].codes.reshape(9, 2)[:, 1] == 0, (network.masked.weight[1].abs() <= 0.1).reshape(9).numpy()
    )
    (kept,) = found.kept  # and not the product of parameters alone
    assert (kept.kind, "computed from the input" in kept.reason) == ("linear", True)


def test_a_subclass_that_keeps_the_forward_is_placed_under_its_name():
    class Renamed(nn.Conv2d):
        pass

    assert [layer.name for layer in matrix_layers(nn.Sequential(Renamed(1, 1, 1)), HW).layers] == ["0"]


def test_what_stays_in_torch_is_listed_with_a_reason():
    class Attention(nn.Module):
        def forward(self, x):
            return torch.matmul(x, x.transpose(1, 2)) @ x

    network = nn.Sequential(
        nn.Embedding(5, 4),
        nn.MultiheadAttention(4, 1),
        nn.LSTM(4, 4, proj_size=3),
        nn.ConvTranspose2d(1, 1, 2),
        nn.LayerNorm(4),
    )

    def function(self, x):
        x = self.parts[0](x)
        x, _ = self.parts[1](x, x, x)
        x, _ = self.parts[2](x)
        x = self.parts[4](self.parts[3](x))
        return self.attention(self.prelu(self.linear(x)))

    whole = Wrap(function, parts=network, attention=Attention(), prelu=nn.PReLU(), linear=nn.Linear(4, 4))
    found = matrix_layers(whole, HW)
    assert [layer.name for layer in found.layers] == ["linear"]
    kinds = {kept.kind for kept in found.kept}
    assert kinds >= {"Embedding", "MultiheadAttention", "LSTM", "ConvTranspose2d", "LayerNorm", "PReLU", "matmul"}
    assert all(kept.reason for kept in found.kept)
    assert [kept.name for kept in found.kept if kept.kind == "matmul"] == ["attention"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["conv.weight", "conv.bias", "norm.running_var", "free.weight", "lstm.weight_hh_l0"])
def test_weights_that_are_not_finite_name_the_layer(bad, name):
    modules = {
        "conv": nn.Conv1d(2, 3, 1),
        "norm": nn.BatchNorm1d(3),
        "free": nn.BatchNorm1d(3),
        "lstm": nn.LSTM(4, 3, batch_first=True),
    }
    network = Wrap(lambda self, x: self.lstm(self.free(self.norm(self.conv(x)).relu()))[0], **modules)
    network.state_dict(keep_vars=True)[name].data.view(-1)[0] = bad
    layer = {"norm.running_var": "conv", "lstm.weight_hh_l0": name}.get(name, name.split(".")[0])
    if bad == float("inf") and name == "norm.running_var":  # 1 / sqrt(inf) = 0 is finite
        matrix_layers(network, HW)
        return
    with pytest.raises(CheckpointError, match=f"^layer {layer}: .*NaN or infinite"):
        matrix_layers(network, HW)


def test_negative_variance_is_named_with_its_batch_norm():
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    network[1].running_var.fill_(-1.0)
    with pytest.raises(CheckpointError, match="layer 0: weight with batch norm 1 folded in has 1 NaN"):
        matrix_layers(network, HW)


def test_matrix_layers_needs_no_data_and_changes_nothing():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), used_batch_norm(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)).train()
    before = copy.deepcopy(network.state_dict())
    first, second = matrix_layers(network, HW), matrix_layers(network, HW, input_shape=(1, 4, 4))
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    for a, b in zip(first.layers, second.layers, strict=True):
        np.testing.assert_array_equal(a.codes, b.codes)
        np.testing.assert_array_equal(a.weight_scale, b.weight_scale)
    assert [layer.output_positions for layer in first.layers] == [None, None]
    assert [layer.output_positions for layer in second.layers] == [4, 1]
    assert [layer.macs for layer in second.layers] == [4 * 9 * 2, 8 * 3]


# --- signedness ------------------------------------------------------------------------------------------------------

relu = torch.relu


@pytest.mark.parametrize(
    ("before", "signed"),
    [
        (lambda x: x, True),
        (relu, False),
        (lambda x: x.relu(), False),
        (nn.ReLU(), False),
        (nn.ReLU6(), False),
        (nn.Sigmoid(), False),
        (nn.Hardsigmoid(), False),
        (nn.Softmax(-1), False),
        (lambda x: x.softmax(-1), False),
        (nn.Softplus(), False),
        (lambda x: x.abs(), False),
        (lambda x: x * x, False),
        (lambda x: x**2, False),
        (lambda x: x**3, True),
        (lambda x: torch.exp(x), False),
        (lambda x: x.clamp(min=0), False),
        (lambda x: x.clamp(0, 6), False),
        (lambda x: torch.clamp(x, min=-1), True),
        (lambda x: relu(x).clamp(max=6), False),
        (lambda x: relu(x).clamp(max=-1), True),
        (nn.Hardtanh(0, 6), False),
        (nn.Hardtanh(), True),
        (lambda x: F.hardtanh(relu(x)), False),
        (nn.Threshold(0.1, 0.0), False),
        (nn.Threshold(-0.1, 0.0), True),
        (nn.LeakyReLU(), True),
        (nn.Sequential(nn.ReLU(), nn.LeakyReLU()), False),
        (nn.GELU(), True),
        (nn.SiLU(), True),
        (nn.Hardswish(), True),
        (nn.ELU(), True),
        (nn.Tanh(), True),
        (lambda x: torch.tanh(relu(x)), False),
        (lambda x: F.max_pool1d(relu(x), 2, stride=1, padding=1)[:, :, :4], False),
        (lambda x: F.avg_pool1d(relu(x), 1), False),
        (lambda x: F.avg_pool1d(x, 1), True),
        (lambda x: relu(x).view(x.size(0), -1).view(x.shape[0], 4, 4), False),
        (lambda x: relu(x).flatten(1).reshape(-1, 4, 4).permute(0, 2, 1).contiguous(), False),
        (lambda x: torch.cat([relu(x)[:, :2], x.abs()[:, 2:]], 1), False),
        (lambda x: torch.cat([relu(x)[:, :2], x[:, 2:]], 1), True),
        (lambda x: relu(x) + x.sigmoid(), False),
        (lambda x: relu(x) + x, True),
        (lambda x: relu(x) + 1, False),
        (lambda x: relu(x) - 1, True),
        (lambda x: relu(x) + (-1), True),
        (lambda x: relu(x) * x.sigmoid(), False),
        (lambda x: x * x.sigmoid(), True),
        (lambda x: torch.add(relu(x), relu(x), alpha=-1), True),
        (lambda x: relu(x) / 3, False),
        (lambda x: relu(x) / -3, True),
        (lambda x: -relu(x), True),
        (lambda x: 1 - x.sigmoid(), True),
        (lambda x: F.pad(relu(x)[:, :, :3], (0, 1)), False),
        (lambda x: F.pad(relu(x)[:, :, :3], (0, 1), "constant", -1.0), True),
        (lambda x: F.pad(relu(x)[:, :, :3], (0, 1), value=2.0), False),
        (nn.Sequential(nn.ReLU(), nn.Linear(4, 4)), True),
        (nn.Sequential(nn.ReLU(), nn.BatchNorm1d(4)), True),
        (nn.Sequential(nn.ReLU(), nn.Dropout(), nn.Identity()), False),
        (lambda x: relu(x).sub_(1), True),
        (lambda x: F.dropout(relu(x), training=False), False),
        (lambda x: F.interpolate(relu(x), 4), False),
        (lambda x: relu(x).mean((1,), keepdim=True).expand(-1, 4, -1), False),
    ],
)
def test_signedness(before, signed):
    network = Wrap(lambda self, x: self.last(self.before(x) if self.before is not None else before(x)), before=None)
    network.before = before if isinstance(before, nn.Module) else None
    network.last = nn.Linear(4, 4)
    network.eval()
    layers = matrix_layers(network, HW).layers
    assert layers[-1].name == "last"
    assert layers[-1].signed_inputs is signed
    seen = []
    network.last.register_forward_pre_hook(lambda module, args: seen.append(args[0].min()))
    network(torch.randn(8, 4, 4) * 3)
    assert signed or seen[0] >= 0  # and the claim is true of real numbers


def test_overwriting_a_non_negative_value_through_a_view_is_noticed():
    def function(self, x):
        y = torch.relu(x)
        y.view(-1).sub_(1)
        return self.last(y)

    assert matrix_layers(Wrap(function, last=nn.Linear(4, 4)), HW).layers[0].signed_inputs


def test_constants_count_by_their_sign():
    network = Wrap(lambda self, x: self.last(torch.relu(x) * self.gain), last=nn.Linear(4, 4))
    network.register_buffer("gain", torch.tensor([0.0, 1.0, 2.0, 3.0]))
    assert not matrix_layers(network, HW).layers[0].signed_inputs
    network.gain[0] = -1
    assert matrix_layers(network, HW).layers[0].signed_inputs


def test_a_shared_layer_is_signed_where_any_call_is():
    network = Wrap(lambda self, x: self.a(self.a(x).relu()), a=nn.Linear(4, 4))
    (layer,) = matrix_layers(network, HW).layers
    assert layer.signed_inputs
    network = Wrap(lambda self, x: self.a(self.a(x.relu()).relu()), a=nn.Linear(4, 4))
    assert not matrix_layers(network, HW).layers[0].signed_inputs


class OtherLibrarys(torch.Tensor):
    """What torchao and its like keep weights in."""


def test_weights_of_another_library_are_refused_by_name():
    linear = nn.Linear(4, 2)
    linear.weight = nn.Parameter(torch.ones(2, 4).as_subclass(OtherLibrarys))
    net = nn.Sequential(nn.ReLU(), linear)
    with pytest.raises(ConversionError, match=r"'1\.weight' is a tensor of a special class \(OtherLibrarys\)"):
        bitline.convert(net, torch.ones(2, 4), HW)
    with pytest.raises(ConversionError, match=r"'1\.weight' is a tensor of a special class"):
        matrix_layers(net, HW)
