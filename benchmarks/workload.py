"""What is multiplied: the layer and the networks of every benchmark, ours, the baseline's and the peers'."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import bitline
from bitline.network.architectures import build_architecture
from bitline.network.conversion import CrossbarNetwork

VECTORS, ROWS, OUTPUTS = 1024, 1152, 256
"""The layer of issue 5's goals: X (1024, 1152) uint8 times W (1152, 256) int8."""
QUICK_VECTORS, QUICK_ROWS, QUICK_OUTPUTS = 160, 200, 8


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network with random weights, so that nothing is downloaded; a trained one has more zeros and is faster."""

    name: str
    architecture: str
    size: int
    """Height and width of the images."""
    classes: int
    images: int
    """Images of one measurement."""
    batches: tuple[int, ...]
    """Images a call; each engine and torch are reported at their best."""
    batches_slow: tuple[int, ...]
    """The same of the bit-serial engine and the exact network, which take longer."""
    baseline_images: int = 0
    """Images of the plain torch baseline, which takes longest; 0: it does not run."""
    calibration: int


RESNET20 = Case(
    name="ResNet-20, 32x32",
    architecture="resnet20_b",
    size=32,
    classes=10,
    images=128,
    batches=(16, 32, 64, 128),
    batches_slow=(32, 128),
    baseline_images=4,
    calibration=16,
)
VGG16 = Case(
    name="VGG-16, 32x32",
    architecture="vgg16_bn_cifar",
    size=32,
    classes=10,
    images=32,
    batches=(8, 16, 32),
    batches_slow=(32,),
    calibration=16,
)
RESNET18 = Case(
    name="ResNet-18, 224x224",
    architecture="resnet18",
    size=224,
    classes=1000,
    images=8,
    batches=(1, 2, 4, 8),
    batches_slow=(4, 8),
    baseline_images=1,
    calibration=2,
)
NETWORKS = (RESNET20, VGG16, RESNET18)


def layer(nonzeros: int = 0, quick: bool = False) -> tuple[NDArray[np.uint8], NDArray[np.int8]]:
    """Inputs (M, K) and weights (K, N), uniform; with ``nonzeros`` at most so many in a column of 128 rows."""
    rng = np.random.default_rng(0)
    vectors, rows, outputs = (QUICK_VECTORS, QUICK_ROWS, QUICK_OUTPUTS) if quick else (VECTORS, ROWS, OUTPUTS)
    x = rng.integers(0, 256, (vectors, rows), dtype=np.uint8)
    w = rng.integers(-127, 128, (rows, outputs), dtype=np.int8)
    return x, cp_prune(w, nonzeros) if nonzeros else w


def cp_prune(w: NDArray[np.int8], nonzeros: int, rows: int = 128) -> NDArray[np.int8]:
    """Keep the ``nonzeros`` largest magnitudes of every column of every ``rows`` rows."""
    out = w.copy()
    for start in range(0, len(w), rows):
        block = out[start : start + rows]
        order = np.argsort(-np.abs(block.astype(np.int16)), axis=0, kind="stable")
        np.put_along_axis(block, order[nonzeros:], 0, axis=0)
    return out


def network(case: Case, images: int) -> tuple[nn.Module, torch.Tensor]:
    """The float network in evaluation mode, and images (n, 3, size, size) in 0..1."""
    module = build_architecture(case.architecture, classes=case.classes).module.eval()
    return module, torch.rand(images, 3, case.size, case.size, generator=torch.Generator().manual_seed(0))


def crossbar_network(case: Case, module: nn.Module, quick: bool = False) -> CrossbarNetwork:
    """The same network on crossbars of the ``tinyadc`` design, its scales from images of the same distribution."""
    _, images = network(case, 2 if quick else case.calibration)
    return bitline.convert(module, images, bitline.load_hardware("tinyadc"), calibrator="max")


def macs_per_image(crossbars: CrossbarNetwork) -> int:
    """Multiply-accumulates of the layers that crossbars hold."""
    return sum(layer.macs or 0 for layer in crossbars.layers)
