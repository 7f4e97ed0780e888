"""Two networks of the MLPerf Tiny benchmark, batch norm folded, with the numbered names of their TFLite graphs.

TensorFlow's SAME padding is asymmetric at stride 2, so the pads are written out; they hold for the benchmark's own
input sizes, 32 x 32 images and 49 x 10 features.

References
----------
Banbury et al., "MLPerf Tiny Benchmark", NeurIPS Datasets and Benchmarks 2021, section 4.1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TinyResNet8(nn.Module):
    """Image classification: a stem and three residual blocks; input RGB 0..255, not normalised."""

    def __init__(self, in_channels: int, widths: Sequence[int], classes: int) -> None:
        """``widths``: outputs of ``conv00`` .. ``conv08`` (conv05 and conv08 are the 1x1 shortcuts)."""
        super().__init__()
        w = tuple(widths)
        self.pad = nn.ZeroPad2d((0, 1, 0, 1))
        self.conv00 = nn.Conv2d(in_channels, w[0], 3, padding=1)
        self.conv01 = nn.Conv2d(w[0], w[1], 3, padding=1)
        self.conv02 = nn.Conv2d(w[1], w[2], 3, padding=1)
        self.conv03 = nn.Conv2d(w[2], w[3], 3, stride=2)
        self.conv04 = nn.Conv2d(w[3], w[4], 3, padding=1)
        self.conv05 = nn.Conv2d(w[2], w[5], 1, stride=2)
        self.conv06 = nn.Conv2d(w[5], w[6], 3, stride=2)
        self.conv07 = nn.Conv2d(w[6], w[7], 3, padding=1)
        self.conv08 = nn.Conv2d(w[5], w[8], 1, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(w[8], classes)

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, 32, 32) images to (n, classes) logits."""
        x = F.relu(self.conv00(x))
        x = F.relu(x + self.conv02(F.relu(self.conv01(x))))
        x = F.relu(self.conv05(x) + self.conv04(F.relu(self.conv03(self.pad(x)))))
        x = F.relu(self.conv08(x) + self.conv07(F.relu(self.conv06(self.pad(x)))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class TinyDSCNN(nn.Module):
    """Keyword spotting: a strided convolution and four depthwise-separable blocks; input 49 frames x 10 MFCC."""

    def __init__(self, in_channels: int, stem: int, widths: Sequence[int], classes: int) -> None:
        """``stem``: outputs of ``conv00``; ``widths``: outputs of the blocks' 1x1 convolutions."""
        super().__init__()
        self.blocks = len(widths)
        # SAME padding of a 10 x 4 window, stride 2, on 49 x 10: left, right, top, bottom.
        self.pad = nn.ZeroPad2d((1, 1, 4, 5))
        self.conv00 = nn.Conv2d(in_channels, stem, (10, 4), stride=2)
        channels = stem
        for block, width in enumerate(widths):
            depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
            self.add_module(f"conv{2 * block + 1:02d}", depthwise)
            self.add_module(f"conv{2 * block + 2:02d}", nn.Conv2d(channels, width, 1))
            channels = width
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, 49, 10) features to (n, classes) logits."""
        x = F.relu(self.conv00(self.pad(x)))
        for index in range(1, 2 * self.blocks + 1):
            x = F.relu(getattr(self, f"conv{index:02d}")(x))
        return self.fc(torch.flatten(self.avgpool(x), 1))
