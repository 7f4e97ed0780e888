"""SqueezeNet 1.0 and 1.1 under torchvision's names, and the Caffe original of 1.0, whose last convolution pads by 1.

References
----------
Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size", 2016, table 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class SqueezeNetPlan:
    """Everything that tells one SqueezeNet from another."""

    in_channels: int
    stem: int
    stem_kernel: int
    fires: Mapping[int, tuple[int, int, int]]
    """Position in ``features`` to outputs of (squeeze, expand1x1, expand3x3); a position left out is a max pool."""
    classes: int
    classifier_padding: int = 0
    """Padding of the 1x1 classifier convolution: 1 in the Caffe original, 0 in torchvision."""


#: Fire modules of the two published versions.
SQUEEZENET_1_0 = {
    3: (16, 64, 64),
    4: (16, 64, 64),
    5: (32, 128, 128),
    7: (32, 128, 128),
    8: (48, 192, 192),
    9: (48, 192, 192),
    10: (64, 256, 256),
    12: (64, 256, 256),
}
SQUEEZENET_1_1 = {
    3: (16, 64, 64),
    4: (16, 64, 64),
    6: (32, 128, 128),
    7: (32, 128, 128),
    9: (48, 192, 192),
    10: (48, 192, 192),
    11: (64, 256, 256),
    12: (64, 256, 256),
}


class Fire(nn.Module):
    """A 1x1 squeeze, then 1x1 and 3x3 convolutions side by side, concatenated."""

    def __init__(self, channels: int, squeeze: int, expand1x1: int, expand3x3: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeeze, 1)
        self.squeeze_activation = nn.ReLU()
        self.expand1x1 = nn.Conv2d(squeeze, expand1x1, 1)
        self.expand1x1_activation = nn.ReLU()
        self.expand3x3 = nn.Conv2d(squeeze, expand3x3, 3, padding=1)
        self.expand3x3_activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) to (n, expand1x1 + expand3x3, h, w)."""
        x = self.squeeze_activation(self.squeeze(x))
        return torch.cat(
            [self.expand1x1_activation(self.expand1x1(x)), self.expand3x3_activation(self.expand3x3(x))], 1
        )


class SqueezeNet(nn.Module):
    """A strided stem, fire modules with max pools between them, a 1x1 convolution per class and a global average."""

    def __init__(self, plan: SqueezeNetPlan) -> None:
        super().__init__()
        self.plan = plan
        # Positions 0 and 1 are the stem; max pools keep a partly filled last window, as Caffe's do.
        layers: list[nn.Module] = [nn.Conv2d(plan.in_channels, plan.stem, plan.stem_kernel, stride=2), nn.ReLU()]
        channels = plan.stem
        for position in range(2, max(plan.fires) + 1):
            if position not in plan.fires:
                layers.append(nn.MaxPool2d(3, stride=2, ceil_mode=True))
                continue
            squeeze, expand1x1, expand3x3 = plan.fires[position]
            layers.append(Fire(channels, squeeze, expand1x1, expand3x3))
            channels = expand1x1 + expand3x3
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Dropout(),
            nn.Conv2d(channels, plan.classes, 1, padding=plan.classifier_padding),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) images to (n, classes) logits."""
        return torch.flatten(self.classifier(self.features(x)), 1)
