"""Networks are recognised from their weights, round trip through every kind of file, and reproduce known accuracies."""

from __future__ import annotations

import csv
import gzip
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import prune

from bitline.data.normalisation import PRESETS
from bitline.errors import ArchitectureError, ShapeError
from bitline.network.architectures import (
    build_architecture,
    build_network,
    check_input,
    list_architectures,
)
from bitline.network.checkpoint import Checkpoint, load_checkpoint

#: Networks whose weights alone do not name them: another one has the same names and shapes.
AMBIGUOUS = {"squeezenet1_0_caffe": "squeezenet1_0"}

#: Small enough to run and save in every test.
QUICK = ["resnet20", "resnet20_b", "resnet20_distiller", "mlp", "lstm_mnist", "mlperftiny_resnet8", "mlperftiny_dscnn"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small products lose more to handing work around than threads win, above all where tests run side by side."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def as_checkpoint(module: nn.Module | dict[str, torch.Tensor], **fields: object) -> Checkpoint:
    state = module if isinstance(module, dict) else module.state_dict()
    weights = {key: tensor for key, tensor in state.items() if not key.endswith("num_batches_tracked")}
    return Checkpoint(path=Path("net.pt"), sha256="", state_dict=weights, **fields)  # type: ignore[arg-type]


def small(name: str) -> str:
    """Whether a network is small enough to be built with real weights in every test."""
    return "vgg" not in name or name.endswith("_cifar")


# ---- round trips ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in list_architectures() if small(name) and "110" not in name])
def test_every_architecture_is_recognised_from_its_own_weights(name: str) -> None:
    built = build_architecture(name, seed=1)
    checkpoint = as_checkpoint(built.module)
    recognised = build_network(checkpoint)
    assert recognised.architecture == AMBIGUOUS.get(name, name)
    named = build_network(checkpoint, name)
    assert named.architecture == name
    for network in (named, *([] if name in AMBIGUOUS else [recognised])):
        assert network.classes == built.classes
        assert network.input_shape == built.input_shape
        assert not network.module.training
        assert not any(parameter.requires_grad for parameter in network.module.parameters())
        for key, tensor in network.module.state_dict().items():
            assert torch.equal(tensor, built.module.state_dict()[key]), key
    torch.fx.symbolic_trace(named.module)


@pytest.mark.parametrize("name", list_architectures())
def test_normalisation_hints_are_presets(name: str) -> None:
    with torch.device("meta"):  # shapes only
        network = build_architecture(name)
    assert network.normalisation is None or network.normalisation in PRESETS
    assert network.input_shape is not None


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("kind", ["zip", "legacy", "wrapped", "parallel", "safetensors", "pruned"])
def test_round_trip_through_files(tmp_path: Path, name: str, kind: str) -> None:
    original = build_architecture(name, seed=2)
    module = original.module.requires_grad_(True)
    x = torch.rand(2, *original.input_shape, generator=torch.Generator().manual_seed(0))
    path = tmp_path / "net.pth"
    if kind == "pruned":
        for part in module.modules():
            if isinstance(part, (nn.Conv2d, nn.Linear)):
                prune.l1_unstructured(part, "weight", 0.5)
    with torch.no_grad():
        expected = module(x)
    state = module.state_dict()
    if kind == "wrapped":
        torch.save({"epoch": 7, "state_dict": state, "optimizer": {"state": {}}}, path)
    elif kind == "parallel":
        torch.save(nn.DataParallel(module).state_dict(), path)
    elif kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind != "legacy")
    network = build_network(load_checkpoint(path))
    assert network.architecture == name
    assert torch.equal(network.module(x), expected)


@pytest.mark.parametrize("name", QUICK)
def test_output_does_not_depend_on_the_batch(name: str) -> None:
    network = build_architecture(name)
    x = torch.rand(3, *network.input_shape, generator=torch.Generator().manual_seed(0))
    together = network.module(x)
    alone = torch.cat([network.module(x[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_odd_widths_classes_and_channels_come_from_the_shapes() -> None:
    weights = dict(build_architecture("resnet20_distiller", classes=7, in_channels=1).module.state_dict())
    # Take 5 of the 16 channels between the two convolutions of a block away, as channel pruning does.
    for key in [k for k in weights if k.startswith("layer1.1.")]:
        if "conv1" in key or ("bn1" in key and "tracked" not in key):
            weights[key] = weights[key][:11].clone()
    weights["layer1.1.conv2.weight"] = weights["layer1.1.conv2.weight"][:, :11].clone()
    network = build_network(as_checkpoint(weights))
    assert (network.architecture, network.classes, network.input_shape) == ("resnet20_distiller", 7, (1, 32, 32))
    assert network.module.get_submodule("layer1.1.conv1").out_channels == 11
    assert check_input(network, (1, 32, 32)) == (7,)


@pytest.mark.parametrize(
    ("layers", "shape"),
    [
        ({"0": (16, 64), "2": (10, 16)}, (1, 8, 8)),
        ({"fc1": (9, 3072), "fc2": (8, 9), "fc10": (2, 8)}, (3, 32, 32)),
        ({"layers.0": (4, 10), "layers.3": (3, 4)}, (10, 1, 1)),
        ({"linear1": (5, 784)}, (1, 28, 28)),
    ],
)
def test_perceptrons_of_any_numbered_names(layers: dict[str, tuple[int, int]], shape: tuple[int, int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = {f"{name}.weight": torch.randn(size, generator=generator) for name, size in layers.items()}
    weights |= {f"{name}.bias": torch.randn(size[0], generator=generator) for name, size in layers.items()}
    network = build_network(as_checkpoint(weights))
    assert network.architecture == "mlp"
    assert network.input_shape == shape
    x = torch.randn(5, *shape, generator=generator)
    # By hand: a ReLU between each two layers, none after the last.
    expected = x.flatten(1).double()
    for index, name in enumerate(layers):
        expected = expected if index == 0 else expected.clamp(min=0)
        expected = expected @ weights[f"{name}.weight"].double().T + weights[f"{name}.bias"].double()
    torch.testing.assert_close(network.module(x).double(), expected, rtol=1e-3, atol=1e-3)


def test_network_is_a_copy_of_the_checkpoint() -> None:
    checkpoint = as_checkpoint(build_architecture("mlp").module)
    before = checkpoint.state_dict["fc1.weight"].clone()
    build_network(checkpoint).module.get_submodule("fc1").weight.zero_()
    assert torch.equal(checkpoint.state_dict["fc1.weight"], before)


def test_metadata_names_architecture_input_and_normalisation() -> None:
    weights = as_checkpoint(build_architecture("squeezenet1_0").module).state_dict
    plain = build_network(as_checkpoint(weights))
    assert plain.architecture == "squeezenet1_0"
    assert "squeezenet1_0_caffe" in plain.assumptions[0]
    metadata = {"architecture": "squeezenet1_0_caffe", "normalisation": "half", "input_shape": "3x64x48"}
    network = build_network(as_checkpoint(weights, metadata=metadata))
    assert network.architecture == "squeezenet1_0_caffe"
    assert network.normalisation == "half"
    assert network.input_shape == (3, 64, 48)
    assert network.module.get_submodule("classifier.1").padding == (1, 1)
    # What the user says goes before what the file says.
    assert build_network(as_checkpoint(weights, metadata=metadata), "squeezenet1_0").architecture == "squeezenet1_0"
    odd = build_network(as_checkpoint(weights, metadata={"architecture": "somenet", "input_shape": "wide"}))
    assert odd.architecture == "squeezenet1_0"
    assert odd.input_shape == (3, 224, 224)


def test_mobilenet_strides_are_an_assumption() -> None:
    ten = as_checkpoint(build_architecture("mobilenet_v2", classes=10).module)
    assert build_network(ten).architecture == "mobilenet_v2_cifar"
    assert "mobilenet_v2" in build_network(ten).assumptions[0]
    assert build_network(ten, "mobilenet_v2").input_shape == (3, 224, 224)


# ---- what does not fit ---------------------------------------------------------------------------------------------


def mismatch(checkpoint: Checkpoint, arch: str | None, *words: str) -> None:
    with pytest.raises(ArchitectureError) as caught:
        build_network(checkpoint, arch)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 1000
    for word in words:
        assert word in message, message


def test_unknown_architecture_lists_names() -> None:
    checkpoint = as_checkpoint({"a.weight": torch.ones(2, 2)})
    mismatch(checkpoint, "resnet21", "unknown architecture 'resnet21'", "'resnet20'")
    with pytest.raises(ArchitectureError, match="unknown architecture 'nonsense"):
        build_architecture("nonsense\n")
    mismatch(checkpoint, None, "no known architecture", "'a.weight'", "--arch")


def test_first_keys_that_differ_are_named() -> None:
    resnet20 = as_checkpoint(build_architecture("resnet20").module)
    mismatch(resnet20, "resnet32", "weights 60 missing ('layer1.3.conv1.weight', ", "looks like 'resnet20'")
    mismatch(resnet20, "resnet20_distiller", "missing ('layer2.0.downsample.0.weight'", "unexpected ('linear.weight'")
    mismatch(resnet20, "mlp", "missing ('fc1.weight'", "unexpected ('conv1.weight'")


def test_a_missing_an_extra_and_a_misshapen_weight() -> None:
    weights = dict(as_checkpoint(build_architecture("resnet20").module).state_dict)
    del weights["layer2.1.bn1.bias"]
    mismatch(as_checkpoint(weights), None, "'resnet20'", "1 missing ('layer2.1.bn1.bias')")
    weights["layer2.1.bn1.bias"] = torch.ones(32)
    weights["layer9.gate\n"] = torch.ones(1)
    mismatch(as_checkpoint(weights), None, "1 unexpected ('layer9.gate\\n')")
    del weights["layer9.gate\n"]
    weights["layer2.1.bn1.bias"] = torch.ones(31)
    mismatch(
        as_checkpoint(weights),
        None,
        "1 of another shape ('layer2.1.bn1.bias': (31,) in the file, (32,) in the network)",
    )


def test_absurd_shapes_cost_no_memory() -> None:
    """Widths from different weights could multiply to a layer of terabytes; it is compared before it is made."""
    weights = dict(as_checkpoint(build_architecture("resnet20").module).state_dict)
    weights["conv1.weight"] = torch.zeros(1).expand(10**6, 3, 3, 3)
    weights["layer1.0.conv1.weight"] = torch.zeros(1).expand(10**6, 1, 1, 1)
    mismatch(as_checkpoint(weights), None, "of another shape")


def test_input_of_another_shape() -> None:
    network = build_architecture("resnet20")
    assert check_input(network, (3, 32, 32)) == (10,)
    with pytest.raises(ShapeError, match="'resnet20' does not take inputs of 1x32x32; it usually takes 3x32x32"):
        check_input(network, (1, 32, 32))


# ---- the user's own module -----------------------------------------------------------------------------------------

USER_CODE = """
import torch
from torch import nn

class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    def forward(self, x):
        return self.model(x)

def factory():
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 3))

def broken():
    raise KeyError("no\\nsuch")

def number():
    return 5

def leaves():
    raise SystemExit(3)

constant = 7
"""


@pytest.fixture
def user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "own_net_for_test.py").write_text(USER_CODE)
    (tmp_path / "own_broken_for_test.py").write_text("import nothing_of_this_name_exists\n")
    (tmp_path / "own_syntax_for_test.py").write_text("def (\n")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in [n for n in sys.modules if n.startswith("own_") and n.endswith("_for_test")]:
        del sys.modules[name]


def test_users_module_from_the_current_folder(user_folder: Path) -> None:
    path = list(sys.path)
    weight, bias = torch.randn(3, 4), torch.randn(3)
    network = build_network(as_checkpoint({"1.weight": weight, "1.bias": bias}), "own_net_for_test:factory")
    assert network.architecture == "own_net_for_test:factory"
    assert network.classes is None
    x = torch.randn(2, 4)
    torch.testing.assert_close(network.module(x), x @ weight.T + bias)
    assert sys.path == path
    assert build_architecture("own_net_for_test:Own").module.get_submodule("model.1").in_features == 4


def test_users_module_that_has_the_prefix_itself(user_folder: Path) -> None:
    torch.save({"model.1.weight": torch.ones(3, 4), "model.1.bias": torch.ones(3)}, user_folder / "net.pt")
    loaded = load_checkpoint(user_folder / "net.pt")
    assert loaded.prefix == "model."
    network = build_network(loaded, "own_net_for_test:Own")
    assert torch.equal(network.module(torch.ones(1, 4)), torch.full((1, 3), 5.0))


def test_users_module_that_multiplies_its_mask_itself(user_folder: Path) -> None:
    """It takes the raw weight and the mask of the file; others take the product."""
    torch.save({"fc.weight": torch.full((1, 2), 2.0), "fc.mask": torch.tensor([[1.0, 0.0]])}, user_folder / "net.pt")
    (user_folder / "own_masked_for_test.py").write_text(
        "import torch\nfrom torch import nn\n\n\nclass Layer(nn.Linear):\n    def forward(self, x):\n"
        "        return nn.functional.linear(x, self.weight * self.mask)\n\n\n"
        "def net(masked=True):\n    module = nn.Module()\n    module.fc = Layer(2, 1, bias=False)\n"
        "    if masked:\n        module.fc.register_buffer('mask', torch.ones(1, 2))\n    return module\n\n\n"
        "def plain():\n    return net(False)\n"
    )
    loaded = load_checkpoint(user_folder / "net.pt")
    own = build_network(loaded, "own_masked_for_test:net")
    assert own.module.fc.weight.tolist() == [[2.0, 2.0]]
    assert own.module.fc.mask.tolist() == [[1.0, 0.0]]
    plain = build_network(loaded, "own_masked_for_test:plain")
    assert plain.module.fc.weight.tolist() == [[2.0, 0.0]]
    assert "masks among the weights were multiplied in: of fc.weight (1 in all)" in plain.assumptions


def test_users_module_that_is_compiled_or_named_module(user_folder: Path) -> None:
    """The file's names without wrappers are put where the module, itself wrapped, has them."""
    (user_folder / "own_wrapped_for_test.py").write_text(
        "from torch import nn\n\n\ndef net():\n    outer = nn.Module()\n    outer.module = nn.Module()\n"
        "    outer.module.fc = nn.Linear(2, 1, bias=False)\n    return outer\n"
    )
    for name in ("fc.weight", "module.fc.weight", "_orig_mod.module.fc.weight"):
        torch.save({name: torch.full((1, 2), 3.0)}, user_folder / "net.pt")
        network = build_network(load_checkpoint(user_folder / "net.pt"), "own_wrapped_for_test:net")
        assert network.module.module.fc.weight.tolist() == [[3.0, 3.0]]


def test_users_module_of_a_quantising_library(user_folder: Path) -> None:
    """torchao keeps weights as tensors of its own classes; torch's own helper makes one here."""
    (user_folder / "own_quantised_for_test.py").write_text(
        "import torch\nfrom torch import nn\n\n\nclass Int8(torch.Tensor):\n    pass\n\n\ndef net():\n"
        "    module = nn.Linear(2, 1, bias=False)\n    weight = torch.ones(1, 2).as_subclass(Int8)\n"
        "    module.weight = nn.Parameter(weight)\n    return module\n"
    )
    checkpoint = as_checkpoint({"weight": torch.ones(1, 2)})
    with pytest.raises(ArchitectureError, match=r"'weight' is a tensor of a special class \(Int8\)"):
        build_network(checkpoint, "own_quantised_for_test:net")
    with pytest.raises(ArchitectureError, match=r"'weight' is a tensor of a special class \(Int8\)"):
        build_architecture("own_quantised_for_test:net")


def test_the_key_that_does_not_go_with_the_others_is_named() -> None:
    keys = {f"model.conv{n}.weight": torch.ones(1, 1, 3, 3) for n in range(5)} | {"criterion.centre": torch.ones(3)}
    mismatch(as_checkpoint(keys), None, "all but 'criterion.centre' begin with 'model.'")


@pytest.mark.parametrize(
    ("arch", "words"),
    [
        ("own_net_for_test:absent", "has no 'absent'"),
        ("own_net_for_test:constant", "is a int, not callable"),
        ("own_net_for_test:broken", "failed (KeyError"),
        ("own_net_for_test:number", "returned a int; expected an nn.Module"),
        ("own_net_for_test:leaves", "failed (SystemExit: 3"),
        ("own_broken_for_test:factory", "cannot import 'own_broken_for_test' (ModuleNotFoundError"),
        ("own_syntax_for_test:factory", "cannot import 'own_syntax_for_test' (SyntaxError"),
        ("no_module_of_this_name:factory", "cannot import 'no_module_of_this_name'"),
        ("no_module_of_this_name:factory", "looked in the current folder '"),
        ("own_net_for_test:broken", "needs no arguments and returns an nn.Module"),
        ("a b:c", "not of the form"),
        (":factory", "not of the form"),
        ("own_net_for_test:", "not of the form"),
        ("own_net_for_test:factory", "of another shape ('1.weight': (3, 5) in the file, (3, 4) in the network)"),
    ],
)
def test_users_module_errors_are_one_line(user_folder: Path, arch: str, words: str) -> None:
    mismatch(as_checkpoint({"1.weight": torch.ones(3, 5), "1.bias": torch.ones(3)}), arch, words)


# ---- real checkpoints ----------------------------------------------------------------------------------------------


def cifar_images(shared_data: Path, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The first CIFAR-10 test images, pixels 0..255, from the shared folder's 50 x 50 mosaics."""
    folder = shared_data / "cifar10"
    mosaic = np.asarray(Image.open(folder / "test_00.webp"))
    images = mosaic.reshape(50, 32, 50, 32, 3).transpose(0, 2, 4, 1, 3).reshape(2500, 3, 32, 32)
    labels = np.load(folder / "test_labels.npy")[:number].astype(np.int64)
    return torch.tensor(images[:number]).float(), torch.tensor(labels)


IMAGENET = [torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
HALVED: Callable[[torch.Tensor], torch.Tensor] = lambda x: x / 127.5 - 1  # noqa: E731


def correct(module: nn.Module, x: torch.Tensor, y: torch.Tensor) -> int:
    with torch.no_grad():
        return sum(int((module(a).argmax(1) == b).sum()) for a, b in zip(x.split(100), y.split(100), strict=True))


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "architecture", "normalise", "manifest"),
    [
        ("resnet20-12fca82f.th", "resnet20", lambda x: (x / 255 - IMAGENET[0]) / IMAGENET[1], 91.73),
        ("distiller_resnet20_dense.pth.tar", "resnet20_distiller", HALVED, 91.71),
        ("distiller_resnet20_channels_zeroed.pth.tar", "resnet20_distiller", HALVED, 90.81),
        ("distiller_resnet20_channels_thinned_finetuned.pth", "resnet20_distiller", HALVED, 91.54),
        ("mlperftiny_resnet8.pth", "mlperftiny_resnet8", lambda x: x, 87.19),
    ],
)
def test_cifar_checkpoints_reach_the_manifests_accuracy(
    shared_data: Path, name: str, architecture: str, normalise: Callable[[torch.Tensor], torch.Tensor], manifest: float
) -> None:
    """500 images: one standard error is 1.3 points at 90 %; a wrong padding or shortcut costs tens of points."""
    x, y = cifar_images(shared_data, 500)
    network = build_network(load_checkpoint(shared_data / "checkpoints" / "cifar10" / name))
    assert network.architecture == architecture
    assert abs(correct(network.module, normalise(x), y) / 5 - manifest) < 3


@pytest.mark.realdata
def test_keyword_checkpoint_reaches_the_manifests_accuracy(shared_data: Path) -> None:
    """The manifest: 90.10 % of these 1000 clips. One clip of tolerance for the order of float additions."""
    x = np.fromfile(shared_data / "kws/kws01_features_int8_1000x49x10.bin", np.int8).reshape(1000, 1, 49, 10)
    y = np.fromfile(shared_data / "kws/kws01_labels_uint8_1000.bin", np.uint8).astype(np.int64)
    network = build_network(load_checkpoint(shared_data / "checkpoints/kws/mlperftiny_dscnn.pth"))
    assert abs(correct(network.module, (torch.tensor(x).float() - 83) * 0.5847029, torch.tensor(y)) - 901) <= 1


@pytest.mark.realdata
def test_lstm_checkpoint_reaches_the_manifests_accuracy(shared_data: Path) -> None:
    """The manifest: 97.91 % of the 10,000 MNIST test images."""
    pixels = gzip.decompress(next((shared_data / "mnist").glob("t10k-images*.gz")).read_bytes())[16:]
    labels = gzip.decompress(next((shared_data / "mnist").glob("t10k-labels*.gz")).read_bytes())[8:]
    x = torch.frombuffer(bytearray(pixels), dtype=torch.uint8).reshape(-1, 1, 28, 28)[:2000].float() / 255
    y = torch.frombuffer(bytearray(labels), dtype=torch.uint8)[:2000].long()
    network = build_network(load_checkpoint(shared_data / "checkpoints/mnist/lstm_mnist.pth"))
    assert abs(correct(network.module, x, y) / 20 - 97.91) < 1.5


def imagenet_images(shared_data: Path, number: int, crop: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Centre crops of every 500/number-th image, resized to a size, pixels 0..255."""
    lines = (shared_data / "imagenet/labels.csv").read_text().splitlines()
    rows = list(csv.DictReader(lines))[:: 500 // number]
    images = []
    for row in rows:
        image = Image.open(shared_data / "imagenet/images" / row["file"]).convert("RGB")
        left, top = (image.width - crop) // 2, (image.height - crop) // 2
        image = image.crop((left, top, left + crop, top + crop)).resize((size, size), Image.Resampling.BILINEAR)
        images.append(torch.tensor(np.asarray(image)).permute(2, 0, 1).float())
    return torch.stack(images), torch.tensor([int(row["class_index"]) for row in rows])


@pytest.mark.realdata
@pytest.mark.slow
def test_imagenet_checkpoints_reach_the_manifests_accuracy(shared_data: Path) -> None:
    """The manifest: 61.0 % and 42.8 % of 500 images; on 50 of them one standard error is 7 points."""
    folder = shared_data / "checkpoints" / "imagenet"
    squeezenet = build_network(load_checkpoint(folder / "squeezenet1_0_deepcompression.pth"), "squeezenet1_0_caffe")
    x, y = imagenet_images(shared_data, 50, 227, 227)
    assert abs(correct(squeezenet.module, x - torch.tensor([123.0, 117, 104]).view(1, 3, 1, 1), y) * 2 - 61) < 20
    mobilenet = build_network(load_checkpoint(folder / "mobilenet_v1_0.25_128_quant.pth"))
    assert (mobilenet.architecture, mobilenet.classes) == ("mobilenet_v1_025_128", 1001)
    x, y = imagenet_images(shared_data, 50, 224, 128)
    # Class 0 of 1001 is background.
    assert abs(correct(mobilenet.module, (x - 128) / 128, y + 1) * 2 - 42.8) < 20
