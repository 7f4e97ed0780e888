"""Residual networks: the CIFAR family of He et al. (ResNet-20/32/44/56) and ResNet-18/34/50 with either stem.

One definition serves the names of several code bases, and every width is a parameter, so that a network with physically
removed channels loads too:

===================  ============  ==========  ===================================================
family               shortcut      head        stem
===================  ============  ==========  ===================================================
akamaster (A, B)     ``shortcut``  ``linear``  3x3 convolution, stride 1 (three stages)
Distiller, chenyaofo ``downsample````fc``      3x3 convolution, stride 1 (three stages)
kuangliu             ``shortcut``  ``linear``  3x3 convolution, stride 1 (four stages)
torchvision          ``downsample````fc``      7x7 convolution, stride 2, max pool 3x3, stride 2
===================  ============  ==========  ===================================================

References
----------
He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, sections 4.1 and 4.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class ResNetPlan:
    """Everything that tells one residual network from another."""

    in_channels: int
    stem: int
    """Outputs of the stem's convolution."""
    stages: tuple[tuple[tuple[int, ...], ...], ...]
    """Per stage, per block, the outputs of its convolutions: two for a basic block, three for a bottleneck."""
    classes: int
    large_stem: bool = False
    """A 7x7 stride-2 stem with a max pool, for ImageNet; otherwise 3x3 stride 1."""
    shortcut: str = "downsample"
    """Name of a block's projection: ``downsample`` or ``shortcut``."""
    head: str = "fc"
    """Name of the last linear layer: ``fc`` or ``linear``."""
    projection: bool = True
    """Shortcuts that change shape are 1x1 convolutions (option B); otherwise padded with zeros (option A)."""


class PaddingShortcut(nn.Module):
    """Option A: every second pixel, and zero channels before and after. No weights."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.before = (out_channels - in_channels) // 2
        self.after = out_channels - in_channels - self.before

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) to (n, out_channels, ceil(h / stride), ceil(w / stride))."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


class ResidualBlock(nn.Module):
    """A basic block (two 3x3 convolutions) or a bottleneck (1x1, 3x3, 1x1), and the shortcut around it."""

    def __init__(self, in_channels: int, widths: Sequence[int], stride: int, shortcut: str, projection: bool) -> None:
        super().__init__()
        # The stride sits on the first 3x3 convolution, as in torchvision (and not in the paper's bottleneck).
        kernels = (3, 3) if len(widths) == 2 else (1, 3, 1)
        strides = (stride, 1) if len(widths) == 2 else (1, stride, 1)
        channels = in_channels
        self.depth = len(widths)
        for index, (width, kernel, step) in enumerate(zip(widths, kernels, strides, strict=True), start=1):
            self.add_module(
                f"conv{index}", nn.Conv2d(channels, width, kernel, stride=step, padding=kernel // 2, bias=False)
            )
            self.add_module(f"bn{index}", nn.BatchNorm2d(width))
            channels = width
        self.shortcut_name = shortcut
        way: nn.Module
        if stride == 1 and in_channels == channels:
            way = nn.Identity()
        elif projection:
            way = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels)
            )
        else:
            way = PaddingShortcut(in_channels, channels, stride)
        self.add_module(shortcut, way)

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) to (n, widths[-1], ceil(h / stride), ceil(w / stride))."""
        out = x
        for index in range(1, self.depth + 1):
            out = getattr(self, f"bn{index}")(getattr(self, f"conv{index}")(out))
            if index < self.depth:
                out = F.relu(out)
        return F.relu(out + getattr(self, self.shortcut_name)(x))


class ResNet(nn.Module):
    """A stem, stages of residual blocks (all but the first halve the image), global average, one linear layer."""

    def __init__(self, plan: ResNetPlan) -> None:
        super().__init__()
        self.plan = plan
        if plan.large_stem:
            self.conv1 = nn.Conv2d(plan.in_channels, plan.stem, 7, stride=2, padding=3, bias=False)
        else:
            self.conv1 = nn.Conv2d(plan.in_channels, plan.stem, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(plan.stem)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if plan.large_stem else nn.Identity()
        channels = plan.stem
        for number, stage in enumerate(plan.stages, start=1):
            blocks = []
            for index, widths in enumerate(stage):
                stride = 2 if index == 0 and number > 1 else 1
                blocks.append(ResidualBlock(channels, widths, stride, plan.shortcut, plan.projection))
                channels = widths[-1]
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.add_module(plan.head, nn.Linear(channels, plan.classes))

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) images to (n, classes) logits."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for number in range(1, len(self.plan.stages) + 1):
            x = getattr(self, f"layer{number}")(x)
        return getattr(self, self.plan.head)(torch.flatten(self.avgpool(x), 1))


def cifar_stages(depth: int, width: int = 16) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """Stages of the 6n + 2 layer CIFAR networks (20, 32, 44, 56, ...): widths w, 2w, 4w, n basic blocks each."""
    blocks = (depth - 2) // 6
    return tuple(((w, w),) * blocks for w in (width, 2 * width, 4 * width))


def four_stages(depth: int, width: int = 64) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """Stages of ResNet-18, -34 and -50: widths w, 2w, 4w, 8w; a bottleneck's outputs are four times as wide."""
    blocks = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}[depth]
    widths = [width * 2**i for i in range(4)]
    if depth == 50:
        return tuple(((w, w, 4 * w),) * n for w, n in zip(widths, blocks, strict=True))
    return tuple(((w, w),) * n for w, n in zip(widths, blocks, strict=True))
