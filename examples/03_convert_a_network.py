"""A torch network of your own on crossbars: the same integers as the exact network, beside its float outputs."""

import torch
from torch import nn

import bitline

torch.manual_seed(0)
network = nn.Sequential(
    nn.Conv2d(1, 8, 3, padding=1),
    nn.BatchNorm2d(8),
    nn.ReLU(),
    nn.AdaptiveAvgPool2d(4),
    nn.Flatten(),
    nn.Linear(128, 10),
).eval()
images = torch.rand(32, 1, 16, 16)

hw = bitline.load_hardware("tinyadc")
on_crossbars = bitline.convert(network, images, hw)  # images calibrate the activations' scales
for proof in on_crossbars.certificate.layers:
    print(f"layer {proof.name}: {proof.bits} ADC bits proven, {proof.nonzeros} weights")

with torch.no_grad():
    wanted, got = network(images), on_crossbars(images)
print(f"largest difference from the float network: {float((wanted - got).abs().max()):.4f}")
print(f"the same class for {int((wanted.argmax(1) == got.argmax(1)).sum())} of {len(images)} images")
