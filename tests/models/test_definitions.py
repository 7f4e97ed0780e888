"""The definitions against facts from elsewhere: published parameter counts, and a plain interpreter of their graphs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bitline.network.architectures import build_architecture, build_network, check_input, list_architectures
from bitline.network.checkpoint import load_checkpoint

#: torchvision's documented parameter counts ("num_params" of each model's weights).
TORCHVISION_PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "vgg11_bn": 132_868_840,
    "vgg16_bn": 138_365_992,
    "vgg16": 138_357_544,
    "squeezenet1_0": 1_248_424,
    "squeezenet1_1": 1_235_496,
    "mobilenet_v2": 3_504_872,
}

#: He et al., CVPR 2016, table 6 (millions, two digits); option A, no parameters in the shortcuts.
PAPER_MILLIONS = {"resnet20": 0.27, "resnet32": 0.46, "resnet44": 0.66, "resnet56": 0.85, "resnet110": 1.7}


def parameters(name: str) -> int:
    with torch.device("meta"):
        module = build_architecture(name).module
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("name", "published"), TORCHVISION_PARAMETERS.items())
def test_parameter_counts_of_torchvision(name: str, published: int) -> None:
    assert parameters(name) == published


@pytest.mark.parametrize(("name", "published"), PAPER_MILLIONS.items())
def test_parameter_counts_of_the_resnet_paper(name: str, published: float) -> None:
    assert round(parameters(name) / 1e6, 2 if published < 1 else 1) == published


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("resnet20", ["conv1.weight", "layer3.2.bn2.running_var", "linear.bias"]),
        ("resnet20_b", ["layer2.0.shortcut.0.weight", "layer2.0.shortcut.1.running_mean", "linear.weight"]),
        ("resnet20_distiller", ["layer2.0.downsample.0.weight", "layer3.0.downsample.1.bias", "fc.weight"]),
        ("resnet18_cifar", ["layer4.1.conv2.weight", "layer2.0.shortcut.0.weight", "linear.weight"]),
        ("resnet50_cifar", ["layer1.0.shortcut.0.weight", "layer1.0.conv3.weight", "layer4.2.bn3.weight"]),
        ("resnet50", ["layer1.0.downsample.0.weight", "layer4.2.conv3.weight", "fc.weight"]),
        ("vgg16_bn", ["features.0.weight", "features.41.running_var", "features.40.bias", "classifier.6.weight"]),
        ("vgg16_bn_cifar", ["features.40.weight", "classifier.weight"]),
        ("squeezenet1_1", ["features.12.expand3x3.bias", "features.3.squeeze.weight", "classifier.1.weight"]),
        ("mobilenet_v2", ["features.0.1.weight", "features.1.conv.0.0.weight", "features.17.conv.3.running_mean"]),
    ],
)
def test_keys_are_those_of_peoples_checkpoints(name: str, keys: list[str]) -> None:
    with torch.device("meta"):
        state = build_architecture(name).module.state_dict()
    for key in keys:
        assert key in state


@pytest.mark.parametrize(
    ("name", "layer", "size"),
    [
        ("resnet18", "layer4", 7),
        ("resnet50", "layer2", 28),
        ("resnet18_cifar", "layer4", 4),
        ("resnet20", "layer3", 8),
        ("vgg16_bn", "features", 7),
        ("vgg16_bn_cifar", "features", 1),
        ("squeezenet1_0", "features", 13),
        ("squeezenet1_0_caffe", "features", 13),
        ("squeezenet1_0_caffe", "classifier.1", 15),
        ("squeezenet1_1", "features", 13),
        ("mobilenet_v2", "features", 7),
        ("mobilenet_v2_cifar", "features", 4),
        ("mobilenet_v1_025_128", "conv26", 4),
        ("mlperftiny_resnet8", "conv08", 8),
    ],
)
def test_image_sizes_of_the_papers(name: str, layer: str, size: int) -> None:
    """Sizes from each paper's architecture table (Caffe's conv10 pads a 13 x 13 image to 15 x 15)."""
    seen: dict[str, Any] = {}
    with torch.device("meta"):
        network = build_architecture(name)
        network.module.get_submodule(layer).register_forward_hook(lambda _m, _i, out: seen.update(shape=out.shape))
        network.module(torch.zeros(1, *network.input_shape))
    assert tuple(seen["shape"][-2:]) == (size, size)


@pytest.mark.parametrize("name", [n for n in list_architectures() if not n.startswith("resnet110")])
def test_every_network_is_traced_and_gives_classes(name: str) -> None:
    with torch.device("meta"):
        network = build_architecture(name, classes=6)
        graph = torch.fx.symbolic_trace(network.module)
        assert graph(torch.zeros(2, *network.input_shape)).shape == (2, 6)


def test_lstm_stays_one_node() -> None:
    graph = torch.fx.symbolic_trace(build_architecture("lstm_mnist").module).graph
    assert [str(node.target) for node in graph.nodes if node.op == "call_module"] == ["lstm", "fc"]


def test_padding_shortcut_by_hand() -> None:
    """Option A of the ResNet paper: every second pixel, a quarter of the new channels in zeros on either side."""
    shortcut = build_architecture("resnet20").module.get_submodule("layer2.0.shortcut")
    x = torch.rand(1, 16, 4, 4)
    expected = torch.zeros(1, 32, 2, 2)
    for channel in range(16):
        for row in range(2):
            for column in range(2):
                expected[0, channel + 8, row, column] = x[0, channel, 2 * row, 2 * column]
    assert torch.equal(shortcut(x), expected)


def test_random_weights_are_seeded_and_leave_the_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.rand(1)
    torch.manual_seed(5)
    one, two, other = (build_architecture("mlp", seed=seed).module for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), before)
    assert torch.equal(one.get_submodule("fc1").weight, two.get_submodule("fc1").weight)
    assert not torch.equal(one.get_submodule("fc1").weight, other.get_submodule("fc1").weight)


def test_classes_and_input_channels_are_free() -> None:
    assert check_input(build_architecture("resnet18_cifar", in_channels=1, classes=4), (1, 16, 16)) == (4,)


# ---- against the graphs that came with the real checkpoints ---------------------------------------------------------


def run_graph(graph: dict[str, Any], weights: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """A plain interpreter of a .graph.json file: the list of operations that its network was read from."""
    values = {graph["input"]: x}
    for op in graph["ops"]:
        value = values[op["input"]]
        if op["op"] == "conv2d":
            value = F.pad(value, op["pad_left_right_top_bottom"])
            weight, bias = weights[op["param"] + ".weight"], weights[op["param"] + ".bias"]
            value = F.conv2d(value, weight, bias, stride=op["stride"], groups=op["groups"])
        elif op["op"] == "add":
            value = value + values[op["input2"]]
        elif op["op"] == "avgpool2d":
            value = value.mean((2, 3), keepdim=True) if op["kernel"] is None else F.avg_pool2d(value, op["kernel"])
        elif op["op"] == "flatten":
            value = value.permute(0, 2, 3, 1).flatten(1)
        else:
            assert op["op"] == "linear"
            value = F.linear(value, weights[op["param"] + ".weight"], weights[op["param"] + ".bias"])
        value = {"relu": F.relu, "relu6": F.relu6, "none": nn.Identity()}[op["activation"]](value)
        values[op["output"]] = value
    return values[graph["output"]]


@pytest.mark.realdata
@pytest.mark.parametrize(
    "name", ["cifar10/mlperftiny_resnet8", "kws/mlperftiny_dscnn", "imagenet/mobilenet_v1_0.25_128_quant"]
)
def test_definitions_compute_their_graphs(shared_data: Path, name: str) -> None:
    path = shared_data / "checkpoints" / f"{name}.pth"
    graph = json.loads(path.with_suffix(".graph.json").read_text())
    checkpoint = load_checkpoint(path)
    network = build_network(checkpoint)
    assert network.input_shape == tuple(graph["input_shape_nchw"][1:])
    x = torch.rand(2, *network.input_shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found, expected = network.module(x), run_graph(graph, checkpoint.state_dict, x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert found.std() > 1e-3
