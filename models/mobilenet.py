"""MobileNetV2 under torchvision's names, for ImageNet and for CIFAR, and MobileNetV1 as TensorFlow trained it.

References
----------
Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018, table 2.
Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications", 2017, table 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Strides of the 17 inverted residuals of MobileNetV2, and chenyaofo's for 32 x 32 images (whose stem has stride 1).
MOBILENET_V2_STRIDES = (1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1)
MOBILENET_V2_CIFAR_STRIDES = (1, 1, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1)

#: Strides of the 13 depthwise convolutions of MobileNetV1.
MOBILENET_V1_STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)


@dataclass(frozen=True, kw_only=True)
class MobileNetV2Plan:
    """Everything that tells one MobileNetV2 from another."""

    in_channels: int
    stem: int
    blocks: tuple[tuple[int | None, int], ...]
    """Per inverted residual, (outputs of the expansion or None where there is none, outputs)."""
    last: int
    """Outputs of the last 1x1 convolution."""
    classes: int
    strides: tuple[int, ...] = MOBILENET_V2_STRIDES
    stem_stride: int = 2


def mobilenet_v2_widths(multiplier: float = 1.0) -> tuple[int, tuple[tuple[int | None, int], ...], int]:
    """Stem, blocks and last width of a MobileNetV2 at a width multiplier; widths are multiples of 8, as torchvision's.

    Returns
    -------
    tuple of (stem, blocks, last), as in :class:`MobileNetV2Plan`.
    """

    def even(value: float) -> int:
        rounded = max(8, int(value + 4) // 8 * 8)
        return rounded + 8 if rounded < 0.9 * value else rounded

    stem = even(32 * multiplier)
    channels, blocks = stem, []
    for expand, width, repeats in (
        (1, 16, 1),
        (6, 24, 2),
        (6, 32, 3),
        (6, 64, 4),
        (6, 96, 3),
        (6, 160, 3),
        (6, 320, 1),
    ):
        for _ in range(repeats):
            blocks.append((None if expand == 1 else channels * expand, even(width * multiplier)))
            channels = blocks[-1][1]
    return stem, tuple(blocks), even(1280 * max(1.0, multiplier))


def _conv_bn_relu6(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(),
    )


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, 1x1 linear projection; a shortcut where shapes allow."""

    def __init__(self, inputs: int, hidden: int | None, outputs: int, stride: int) -> None:
        super().__init__()
        self.residual = stride == 1 and inputs == outputs
        layers: list[nn.Module] = [] if hidden is None else [_conv_bn_relu6(inputs, hidden, 1)]
        width = inputs if hidden is None else hidden
        layers.append(_conv_bn_relu6(width, width, 3, stride, groups=width))
        layers += [nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.conv = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) to (n, outputs, ceil(h / stride), ceil(w / stride))."""
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(nn.Module):
    """A stem, 17 inverted residuals, a last 1x1 convolution, global average, one linear layer."""

    def __init__(self, plan: MobileNetV2Plan) -> None:
        super().__init__()
        self.plan = plan
        layers: list[nn.Module] = [_conv_bn_relu6(plan.in_channels, plan.stem, 3, plan.stem_stride)]
        channels = plan.stem
        for (hidden, outputs), stride in zip(plan.blocks, plan.strides, strict=True):
            layers.append(InvertedResidual(channels, hidden, outputs, stride))
            channels = outputs
        layers.append(_conv_bn_relu6(channels, plan.last, 1))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(plan.last, plan.classes))

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) images to (n, classes) logits."""
        x = F.adaptive_avg_pool2d(self.features(x), (1, 1))
        return self.classifier(torch.flatten(x, 1))


class MobileNetV1(nn.Module):
    """TensorFlow's MobileNetV1 with batch norm folded: ``conv00``, 13 times depthwise and 1x1, a 1x1 classifier.

    TensorFlow's SAME padding of a 3x3 window of stride 2 on an image of even size adds one pixel right and below, none
    left and above; hence the explicit pads. Sizes divisible by 32 (128, 160, 192, 224) are all even where it matters.
    """

    def __init__(self, in_channels: int, stem: int, widths: Sequence[int], classes: int) -> None:
        super().__init__()
        self.pad = nn.ZeroPad2d((0, 1, 0, 1))
        self.strides = MOBILENET_V1_STRIDES
        self.relu6 = nn.ReLU6()
        self.conv00 = nn.Conv2d(in_channels, stem, 3, stride=2)
        channels = stem
        for block, (width, stride) in enumerate(zip(widths, self.strides, strict=True)):
            depthwise = nn.Conv2d(channels, channels, 3, stride=stride, padding=2 - stride, groups=channels)
            self.add_module(f"conv{2 * block + 1:02d}", depthwise)
            self.add_module(f"conv{2 * block + 2:02d}", nn.Conv2d(channels, width, 1))
            channels = width
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.add_module(f"conv{2 * len(self.strides) + 1:02d}", nn.Conv2d(channels, classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) images in -1 .. 1 to (n, classes) logits; of 1001 classes, class 0 is background."""
        x = self.relu6(self.conv00(self.pad(x)))
        for block, stride in enumerate(self.strides):
            x = self.pad(x) if stride == 2 else x
            x = self.relu6(getattr(self, f"conv{2 * block + 1:02d}")(x))
            x = self.relu6(getattr(self, f"conv{2 * block + 2:02d}")(x))
        x = getattr(self, f"conv{2 * len(self.strides) + 1:02d}")(self.avgpool(x))
        return torch.flatten(x, 1)
