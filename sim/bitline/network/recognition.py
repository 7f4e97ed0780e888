"""Recognise a network from the names and shapes of its weights.

Each family has one function that reads a plan (widths, depths, names) off the shapes, or says None where they are not
its own; a network with removed channels is therefore nothing special. What the shapes cannot tell is written down as an
assumption. Nothing is built here; the strict load of the weights has the last word.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

from torch import nn

from bitline.models.lstm import RowLSTM
from bitline.models.mlp import MLP
from bitline.models.mlperftiny import TinyDSCNN, TinyResNet8
from bitline.models.mobilenet import (
    MOBILENET_V1_STRIDES,
    MOBILENET_V2_CIFAR_STRIDES,
    MOBILENET_V2_STRIDES,
    MobileNetV1,
    MobileNetV2,
    MobileNetV2Plan,
    mobilenet_v2_widths,
)
from bitline.models.resnet import ResNet, ResNetPlan, cifar_stages, four_stages
from bitline.models.squeezenet import SQUEEZENET_1_0, SQUEEZENET_1_1, SqueezeNet, SqueezeNetPlan
from bitline.models.vgg import VGG, VGG_FEATURES, VGGPlan

__all__ = ["ARCHITECTURES", "Recognised", "Shapes", "Standard", "recognise"]

Shapes = Mapping[str, tuple[int, ...]]
_Stages = tuple[tuple[tuple[int, ...], ...], ...]


@dataclass(frozen=True, kw_only=True)
class Recognised:
    """A network read off the shapes of its weights, not yet built."""

    name: str
    build: Callable[[], nn.Module]
    classes: int
    input_shape: tuple[int, int, int] | None = None
    normalisation: str | None = None
    resize: int | None = None
    crop: int | None = None
    assumptions: tuple[str, ...] = ()
    alternatives: tuple[str, ...] = ()
    """Other architectures that have these weights, by name."""
    label_offset: int = 0
    """Output of class 0."""


@dataclass(frozen=True, kw_only=True)
class Standard:
    """An architecture that can be asked for by name."""

    recognise: Callable[[Shapes], Recognised | None]
    build: Callable[[int, int], nn.Module]
    """From classes and input channels, at the published widths."""
    classes: int
    in_channels: int = 3


def recognise(shapes: Shapes) -> Recognised | None:
    """The network that weights of these names and shapes belong to, or None.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        Shape of every weight by its name.
    """
    for family in (_resnet, _squeezenet, _mobilenet_v2, _vgg, _tiny_resnet8, _mobilenet_v1, _tiny_dscnn, _lstm, _mlp):
        found = family(shapes)
        if found is not None:
            return found
    return None


def _numbered(shapes: Shapes, pattern: str) -> dict[tuple[int, ...], tuple[int, ...]]:
    """Shapes of the keys that a pattern matches, by the numbers in its groups, in order of the numbers."""
    found = {}
    for key, shape in shapes.items():
        if match := re.fullmatch(pattern, key):
            found[tuple(int(group) for group in match.groups())] = shape
    return dict(sorted(found.items()))


def _named(name: str, family: Callable[[Shapes], Recognised | None], shapes: Shapes) -> Recognised | None:
    """What a family recognises, if it is the member of that name."""
    found = family(shapes)
    return found if found is not None and found.name == name else None


# ---- residual networks ---------------------------------------------------------------------------------------------

_BLOCKS: dict[tuple[int, ...], tuple[int, ...]] = {
    (2, 2, 2, 2): (18,),
    (3, 4, 6, 3): (34, 50),
    (3, 4, 23, 3): (101,),
    (3, 8, 36, 3): (152,),
}


def _resnet(shapes: Shapes) -> Recognised | None:
    stem = shapes.get("conv1.weight", ())
    head = next((name for name in ("fc", "linear") if len(shapes.get(f"{name}.weight", ())) == 2), None)
    convolutions = _numbered(shapes, r"layer([1-9])\.(\d{1,3})\.conv([1-3])\.weight")
    if len(stem) != 4 or stem[2:] not in ((3, 3), (7, 7)) or head is None or not convolutions:
        return None
    stages: list[list[list[int]]] = []
    for (stage, block, number), shape in convolutions.items():
        if len(shape) != 4:
            return None
        if stage == len(stages) + 1:
            stages.append([])
        if stage == len(stages) and block == len(stages[-1]):
            stages[-1].append([])
        if stage != len(stages) or block != len(stages[-1]) - 1 or number != len(stages[-1][-1]) + 1:
            return None
        stages[-1][-1].append(shape[0])
    depths = {len(widths) for stage in stages for widths in stage}
    if len(stages) not in (3, 4) or depths not in ({2}, {3}):
        return None
    names = {name for name in ("downsample", "shortcut") if any(f".{name}.0." in key for key in shapes)}
    if len(names) > 1:
        return None
    plan = ResNetPlan(
        in_channels=stem[1],
        stem=stem[0],
        stages=tuple(tuple(tuple(widths) for widths in stage) for stage in stages),
        classes=shapes[f"{head}.weight"][0],
        large_stem=stem[2] == 7,
        # Without projections, shortcuts have no weights and the name does not matter.
        shortcut=names.pop() if (projection := bool(names)) else "shortcut",
        head=head,
        projection=projection,
    )
    size = 224 if plan.large_stem else 32
    return Recognised(
        name=_resnet_name(plan),
        build=partial(ResNet, plan),
        classes=plan.classes,
        input_shape=(plan.in_channels, size, size),
        resize=256 if plan.large_stem else None,
        crop=224 if plan.large_stem else None,
    )


def _resnet_name(plan: ResNetPlan) -> str:
    blocks = tuple(len(stage) for stage in plan.stages)
    depth = sum(len(widths) for stage in plan.stages for widths in stage) + 2
    if len(blocks) == 3:
        if len(set(blocks)) > 1 or len(plan.stages[0][0]) != 2:
            return f"resnet-{'-'.join(map(str, blocks))}"
        if not plan.projection:
            return f"resnet{depth}"
        return f"resnet{depth}_b" if plan.shortcut == "shortcut" else f"resnet{depth}_distiller"
    name = f"resnet{depth}" if depth in _BLOCKS.get(blocks, ()) else f"resnet-{'-'.join(map(str, blocks))}"
    if plan.large_stem:
        return name
    return f"{name}_cifar" if plan.shortcut == "shortcut" else f"{name}_cifar_fc"


def _build_resnet(
    names: str, stages: _Stages, stem: int, large_stem: bool, classes: int, in_channels: int
) -> nn.Module:
    """``names``: ``padding`` for akamaster's option A, ``shortcut`` for option B, else ``downsample``."""
    own = names in ("padding", "shortcut")
    plan = ResNetPlan(
        in_channels=in_channels,
        stem=stem,
        stages=stages,
        classes=classes,
        large_stem=large_stem,
        shortcut="shortcut" if own else "downsample",
        head="linear" if own else "fc",
        projection=names != "padding",
    )
    module: nn.Module = ResNet(plan)
    return module


# ---- VGG -----------------------------------------------------------------------------------------------------------


def _vgg(shapes: Shapes) -> Recognised | None:
    features = {key[0]: shape for key, shape in _numbered(shapes, r"features\.(\d{1,3})\.weight").items()}
    convolutions = [position for position, shape in features.items() if len(shape) == 4]
    if not convolutions or convolutions[0] != 0 or any(features[c][2:] != (3, 3) for c in convolutions):
        return None
    batch_norm = "features.1.running_mean" in shapes
    step = 3 if batch_norm else 2
    # Positions tell where the max pools are: one slot more than convolution (, batch norm) and ReLU take.
    widths = [features[0][0]]
    for before, after in pairwise(convolutions):
        if after - before not in (step, step + 1):
            return None
        widths += [0] if after - before == step + 1 else []
        widths.append(features[after][0])
    if "classifier.weight" in shapes:
        positions: tuple[int, ...] = ()
        linears = [shapes["classifier.weight"]]
    else:
        classifier = {key[0]: shape for key, shape in _numbered(shapes, r"classifier\.(\d{1,2})\.weight").items()}
        positions, linears = tuple(classifier), list(classifier.values())
    if not linears or any(len(shape) != 2 for shape in linears) or any(b - a < 2 for a, b in pairwise(positions)):
        return None
    pooled = math.isqrt(linears[0][1] // widths[-1])
    if pooled < 1 or pooled**2 * widths[-1] != linears[0][1]:
        return None
    plan = VGGPlan(
        in_channels=features[0][1],
        features=(*widths, 0),
        batch_norm=batch_norm,
        conv_bias="features.0.bias" in shapes,
        pooled=pooled,
        hidden=tuple(shape[0] for shape in linears[:-1]),
        classifier=positions,
        classes=linears[-1][0],
    )
    depth = {sum(width > 0 for width in known): depth for depth, known in VGG_FEATURES.items()}.get(len(convolutions))
    large = pooled == 7
    size = 224 if large else pooled * 2 ** plan.features.count(0)
    return Recognised(
        name=f"vgg{depth or f'-{len(convolutions)}'}{'_bn' if batch_norm else ''}{'' if large else '_cifar'}",
        build=partial(VGG, plan),
        classes=plan.classes,
        input_shape=(plan.in_channels, size, size),
        resize=256 if large else None,
        crop=224 if large else None,
    )


def _build_vgg(depth: int, batch_norm: bool, cifar: bool, classes: int, in_channels: int) -> nn.Module:
    plan = VGGPlan(
        in_channels=in_channels,
        features=VGG_FEATURES[depth],
        batch_norm=batch_norm,
        conv_bias=True,
        pooled=1 if cifar else 7,
        hidden=() if cifar else (4096, 4096),
        classifier=() if cifar else (0, 3, 6),
        classes=classes,
    )
    module: nn.Module = VGG(plan)
    return module


# ---- SqueezeNet ----------------------------------------------------------------------------------------------------


def _squeezenet(shapes: Shapes, caffe: bool = False) -> Recognised | None:
    stem, classifier = shapes.get("features.0.weight", ()), shapes.get("classifier.1.weight", ())
    squeeze = _numbered(shapes, r"features\.(\d{1,2})\.squeeze\.weight")
    fires = {}
    for (position,), shape in squeeze.items():
        wide = [shapes.get(f"features.{position}.{name}.weight", ()) for name in ("expand1x1", "expand3x3")]
        if any(len(s) != 4 for s in (shape, *wide)):
            return None
        fires[position] = (shape[0], wide[0][0], wide[1][0])
    if not fires or min(fires) < 3 or len(stem) != 4 or len(classifier) != 4:
        return None
    version = {tuple(SQUEEZENET_1_0): "1_0", tuple(SQUEEZENET_1_1): "1_1"}.get(tuple(fires), "")
    plan = SqueezeNetPlan(
        in_channels=stem[1],
        stem=stem[0],
        stem_kernel=stem[2],
        fires=fires,
        classes=classifier[0],
        classifier_padding=1 if caffe else 0,
    )
    size = 227 if caffe else 224
    return Recognised(
        name=f"squeezenet{version}{'_caffe' if caffe else ''}",
        build=partial(SqueezeNet, plan),
        classes=plan.classes,
        input_shape=(plan.in_channels, size, size),
        normalisation="caffe" if caffe else None,
        resize=256,
        crop=size,
        assumptions=()
        if caffe or version != "1_0"
        else ("taken for torchvision's SqueezeNet 1.0; the Caffe original has the same shapes (squeezenet1_0_caffe)",),
        alternatives=() if caffe or version != "1_0" else ("squeezenet1_0_caffe",),
    )


def _build_squeezenet(version: str, caffe: bool, classes: int, in_channels: int) -> nn.Module:
    plan = SqueezeNetPlan(
        in_channels=in_channels,
        stem=96 if version == "1_0" else 64,
        stem_kernel=7 if version == "1_0" else 3,
        fires=SQUEEZENET_1_0 if version == "1_0" else SQUEEZENET_1_1,
        classes=classes,
        classifier_padding=1 if caffe else 0,
    )
    module: nn.Module = SqueezeNet(plan)
    return module


# ---- MobileNet -----------------------------------------------------------------------------------------------------


def _mobilenet_v2(shapes: Shapes, cifar: bool | None = None) -> Recognised | None:
    stem, head = shapes.get("features.0.0.weight", ()), shapes.get("classifier.1.weight", ())
    number = len(MOBILENET_V2_STRIDES)
    last = shapes.get(f"features.{number + 1}.0.weight", ())
    if len(stem) != 4 or len(last) != 4 or len(head) != 2:
        return None
    blocks: list[tuple[int | None, int]] = []
    for index in range(1, number + 1):
        expanded = shapes.get(f"features.{index}.conv.1.0.weight")
        first = shapes.get(f"features.{index}.conv.0.0.weight", ())
        projected = shapes.get(f"features.{index}.conv.{2 if expanded else 1}.weight", ())
        if len(projected) != 4 or len(first) != 4:
            return None
        blocks.append((first[0] if expanded else None, projected[0]))
    guessed = cifar is None
    if cifar is None:
        cifar = head[0] in (10, 100)
    plan = MobileNetV2Plan(
        in_channels=stem[1],
        stem=stem[0],
        blocks=tuple(blocks),
        last=last[0],
        classes=head[0],
        strides=MOBILENET_V2_CIFAR_STRIDES if cifar else MOBILENET_V2_STRIDES,
        stem_stride=1 if cifar else 2,
    )
    size = 32 if cifar else 224
    other = "mobilenet_v2" if cifar else "mobilenet_v2_cifar"
    return Recognised(
        name="mobilenet_v2_cifar" if cifar else "mobilenet_v2",
        build=partial(MobileNetV2, plan),
        classes=plan.classes,
        input_shape=(plan.in_channels, size, size),
        resize=None if cifar else 256,
        crop=None if cifar else 224,
        assumptions=(f"strides taken for {size} x {size} images, from {head[0]} classes (otherwise {other})",)
        if guessed
        else (),
        alternatives=(other,) if guessed else (),
    )


def _build_mobilenet_v2(cifar: bool, classes: int, in_channels: int) -> nn.Module:
    stem, blocks, last = mobilenet_v2_widths()
    plan = MobileNetV2Plan(in_channels=in_channels, stem=stem, blocks=blocks, last=last, classes=classes)
    if cifar:
        plan = replace(plan, strides=MOBILENET_V2_CIFAR_STRIDES, stem_stride=1)
    module: nn.Module = MobileNetV2(plan)
    return module


def _separable_widths(shapes: Shapes, blocks: int) -> tuple[int, ...] | None:
    """Outputs of the 1x1 convolutions conv02, conv04, ..., if odd ones are depthwise; None otherwise."""
    widths = []
    for block in range(blocks):
        depthwise = shapes.get(f"conv{2 * block + 1:02d}.weight", ())
        pointwise = shapes.get(f"conv{2 * block + 2:02d}.weight", ())
        if depthwise[1:] != (1, 3, 3) or len(pointwise) != 4 or pointwise[2:] != (1, 1):
            return None
        widths.append(pointwise[0])
    return tuple(widths)


def _mobilenet_v1(shapes: Shapes) -> Recognised | None:
    stem, head = shapes.get("conv00.weight", ()), shapes.get("conv27.weight", ())
    widths = _separable_widths(shapes, len(MOBILENET_V1_STRIDES))
    if len(stem) != 4 or len(head) != 4 or widths is None:
        return None
    return Recognised(
        name="mobilenet_v1_025_128",
        build=partial(MobileNetV1, stem[1], stem[0], widths, head[0]),
        classes=head[0],
        input_shape=(stem[1], 128, 128),
        normalisation="tf",
        # The middle 224 of 256 pixels, at 128: as short side 256 * 128 / 224, cropped.
        resize=146,
        crop=128,
        # TensorFlow's 1001 classes are ImageNet's 1000 after the background.
        label_offset=1 if head[0] == 1001 else 0,
    )


# ---- the others ----------------------------------------------------------------------------------------------------


def _tiny_resnet8(shapes: Shapes) -> Recognised | None:
    convolutions = [shapes.get(f"conv{index:02d}.weight", ()) for index in range(9)]
    head = shapes.get("fc.weight", ())
    kernels = [(1, 1) if index in (5, 8) else (3, 3) for index in range(9)]
    if [shape[2:] for shape in convolutions] != kernels or len(head) != 2:
        return None
    widths = tuple(shape[0] for shape in convolutions)
    return Recognised(
        name="mlperftiny_resnet8",
        build=partial(TinyResNet8, convolutions[0][1], widths, head[0]),
        classes=head[0],
        input_shape=(convolutions[0][1], 32, 32),
        normalisation="byte",
    )


def _tiny_dscnn(shapes: Shapes) -> Recognised | None:
    stem, head = shapes.get("conv00.weight", ()), shapes.get("fc.weight", ())
    if stem[2:] != (10, 4) or len(head) != 2:
        return None
    blocks = (sum(bool(re.fullmatch(r"conv\d\d\.weight", key)) for key in shapes) - 1) // 2
    widths = _separable_widths(shapes, blocks)
    if not widths:
        return None
    return Recognised(
        name="mlperftiny_dscnn",
        build=partial(TinyDSCNN, stem[1], stem[0], widths, head[0]),
        classes=head[0],
        input_shape=(stem[1], 49, 10),
        normalisation="kws",
    )


def _lstm(shapes: Shapes) -> Recognised | None:
    inputs, head = shapes.get("lstm.weight_ih_l0", ()), shapes.get("fc.weight", ())
    if len(inputs) != 2 or len(head) != 2 or inputs[0] % 4 or head[1] % (inputs[0] // 4 or 1):
        return None
    hidden = inputs[0] // 4
    if "lstm.weight_ih_l1" in shapes or "lstm.weight_ih_l0_reverse" in shapes or hidden == 0:
        return None
    rows = head[1] // hidden
    return Recognised(
        name="lstm_mnist",
        build=partial(RowLSTM, inputs[1], hidden, rows, head[0]),
        classes=head[0],
        input_shape=(1, rows, inputs[1]),
        normalisation="unit",
    )


def _mlp(shapes: Shapes) -> Recognised | None:
    """Linear layers under one name with a number: ``0``, ``2``; ``fc1``, ``fc2``; ``layers.0``, ``layers.2``."""
    layers = {}
    for key, shape in shapes.items():
        match = re.fullmatch(r"((?:[A-Za-z_]\w*\.)*(?:[A-Za-z_]\w*?)?)(\d{1,4})\.weight", key)
        if match and len(shape) == 2:
            layers[match.group(1), int(match.group(2))] = (key.removesuffix(".weight"), shape)
    names = [name for _, (name, _) in sorted(layers.items())]
    weights = [shape for _, (_, shape) in sorted(layers.items())]
    bias = f"{names[0]}.bias" in shapes if names else False
    if not names or len({prefix for prefix, _ in layers}) > 1 or len(shapes) != len(names) * (1 + bias):
        return None
    if any(before[0] != after[1] for before, after in pairwise(weights)):
        return None
    # A layer named like something that every module has cannot be one of ours.
    if any(hasattr(nn.Module, part) or part in ("names", "training") for name in names for part in name.split(".")):
        return None
    features = weights[0][1]
    return Recognised(
        name="mlp",
        build=partial(MLP, tuple(names), (features, *(shape[0] for shape in weights)), bias),
        classes=weights[-1][0],
        input_shape=_flat_image(features),
        assumptions=("a ReLU between each two linear layers",) if len(names) > 1 else (),
    )


def _flat_image(features: int) -> tuple[int, int, int]:
    """The usual image of so many pixels: square and grey, or square and of three colours; else a plain vector."""
    for channels in (1, 3):
        side = math.isqrt(features // channels)
        if side > 1 and channels * side * side == features:
            return (channels, side, side)
    return (features, 1, 1)


# ---- by name -------------------------------------------------------------------------------------------------------


def _architectures() -> dict[str, Standard]:
    table: dict[str, Standard] = {}

    def add(
        name: str,
        family: Callable[[Shapes], Recognised | None],
        build: Callable[[int, int], nn.Module],
        classes: int,
        in_channels: int = 3,
    ) -> None:
        table[name] = Standard(
            recognise=partial(_named, name, family), build=build, classes=classes, in_channels=in_channels
        )

    for depth in (20, 32, 44, 56, 110):
        stages = cifar_stages(depth)
        add(f"resnet{depth}", _resnet, partial(_build_resnet, "padding", stages, 16, False), 10)
        add(f"resnet{depth}_b", _resnet, partial(_build_resnet, "shortcut", stages, 16, False), 10)
        add(f"resnet{depth}_distiller", _resnet, partial(_build_resnet, "downsample", stages, 16, False), 10)
    for depth in (18, 34, 50):
        stages = four_stages(depth)
        add(f"resnet{depth}", _resnet, partial(_build_resnet, "downsample", stages, 64, True), 1000)
        add(f"resnet{depth}_cifar", _resnet, partial(_build_resnet, "shortcut", stages, 64, False), 10)
        add(f"resnet{depth}_cifar_fc", _resnet, partial(_build_resnet, "downsample", stages, 64, False), 10)
    for depth in VGG_FEATURES:
        for batch_norm in (False, True):
            for cifar in (False, True):
                name = f"vgg{depth}{'_bn' if batch_norm else ''}{'_cifar' if cifar else ''}"
                add(name, _vgg, partial(_build_vgg, depth, batch_norm, cifar), 10 if cifar else 1000)
    add("squeezenet1_0", _squeezenet, partial(_build_squeezenet, "1_0", False), 1000)
    add("squeezenet1_1", _squeezenet, partial(_build_squeezenet, "1_1", False), 1000)
    add("squeezenet1_0_caffe", partial(_squeezenet, caffe=True), partial(_build_squeezenet, "1_0", True), 1000)
    add("mobilenet_v2", partial(_mobilenet_v2, cifar=False), partial(_build_mobilenet_v2, False), 1000)
    add("mobilenet_v2_cifar", partial(_mobilenet_v2, cifar=True), partial(_build_mobilenet_v2, True), 10)
    v1 = tuple(width // 4 for width in (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024))
    add("mobilenet_v1_025_128", _mobilenet_v1, lambda classes, channels: MobileNetV1(channels, 8, v1, classes), 1001)
    tiny = (16, 16, 16, 32, 32, 32, 64, 64, 64)
    add("mlperftiny_resnet8", _tiny_resnet8, lambda classes, channels: TinyResNet8(channels, tiny, classes), 10)
    add("mlperftiny_dscnn", _tiny_dscnn, lambda classes, channels: TinyDSCNN(channels, 64, (64,) * 4, classes), 12, 1)
    add("lstm_mnist", _lstm, lambda classes, _: RowLSTM(28, 20, 28, classes), 10, 1)
    add("mlp", _mlp, lambda classes, channels: MLP(("fc1", "fc2", "fc3"), (channels * 784, 256, 128, classes)), 10, 1)
    return table


#: Architectures that can be asked for by name.
ARCHITECTURES = _architectures()
