"""VGG networks, with or without batch norm, for ImageNet (three linear layers) and CIFAR (one or three).

The names are torchvision's: ``features.N`` and ``classifier.N``; the CIFAR variant with one linear layer calls it
``classifier``, as kuangliu's pytorch-cifar does.

References
----------
Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015, table 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

#: Outputs of the 3x3 convolutions, by depth; 0 stands for a 2x2 max pool.
VGG_FEATURES: dict[int, tuple[int, ...]] = {
    11: (64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0),
    13: (64, 64, 0, 128, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0),
    16: (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0),
    19: (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512, 512, 512, 512, 0),
}


@dataclass(frozen=True, kw_only=True)
class VGGPlan:
    """Everything that tells one VGG from another."""

    in_channels: int
    features: tuple[int, ...]
    """Outputs of the convolutions in order; 0 stands for a 2x2 max pool."""
    batch_norm: bool
    conv_bias: bool
    pooled: int
    """Height and width of the image that the classifier flattens."""
    hidden: tuple[int, ...]
    """Outputs of the linear layers before the last."""
    classifier: tuple[int, ...]
    """Positions of the linear layers in ``classifier``; empty where ``classifier`` is itself one linear layer."""
    classes: int


class VGG(nn.Module):
    """3x3 convolutions with max pools between them, then linear layers."""

    def __init__(self, plan: VGGPlan) -> None:
        super().__init__()
        self.plan = plan
        layers: list[nn.Module] = []
        channels = plan.in_channels
        for width in plan.features:
            if width == 0:
                layers.append(nn.MaxPool2d(2))
                continue
            layers.append(nn.Conv2d(channels, width, 3, padding=1, bias=plan.conv_bias))
            if plan.batch_norm:
                layers.append(nn.BatchNorm2d(width))
            layers.append(nn.ReLU())
            channels = width
        self.features = nn.Sequential(*layers)
        # torchvision averages whatever size is left to 7 x 7; the CIFAR variants flatten what is left.
        self.avgpool = nn.AdaptiveAvgPool2d(plan.pooled) if plan.pooled == 7 else nn.Identity()
        sizes = (channels * plan.pooled**2, *plan.hidden, plan.classes)
        if not plan.classifier:
            self.classifier: nn.Module = nn.Linear(sizes[0], plan.classes)
            return
        head: list[nn.Module] = [nn.Dropout() for _ in range(plan.classifier[-1] + 1)]
        for index, (position, inputs, outputs) in enumerate(zip(plan.classifier, sizes[:-1], sizes[1:], strict=True)):
            head[position] = nn.Linear(inputs, outputs)
            if index < len(plan.classifier) - 1:
                head[position + 1] = nn.ReLU()
        self.classifier = nn.Sequential(*head)

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) images to (n, classes) logits."""
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))
