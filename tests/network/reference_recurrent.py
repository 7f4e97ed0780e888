"""The plain twin of recurrent layers on crossbars: torch's own cells on quantised numbers, step by step.

Written from torch's documentation of ``nn.LSTM`` and ``nn.GRU`` and from docs/contract.md, with integer products in
int64; nothing is taken from ``bitline``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def quantised_weights(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Codes (outputs, inputs) int64 and the scale of every output, float64."""
    largest = 2 ** (bits - 1) - 1
    scale = weight.double().abs().amax(dim=1) / largest
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return torch.clamp(torch.round(weight.double() / scale[:, None]), -largest, largest).to(torch.int64), scale


def product(
    x: Tensor, weight: Tensor, bias: Tensor | None, scale: float, signed: bool, bits: tuple[int, int]
) -> Tensor:
    """``weight x + bias`` of one step on quantised numbers, rounded to float32 once."""
    input_bits, weight_bits = bits
    low, high = (-(2 ** (input_bits - 1)), 2 ** (input_bits - 1) - 1) if signed else (0, 2**input_bits - 1)
    codes = torch.clamp(torch.round(x.double() / scale), low, high).to(torch.int64)
    w, weight_scale = quantised_weights(weight, weight_bits)
    real = (codes @ w.T).double() * (scale * weight_scale)
    if bias is not None:
        real = real + bias.double()
    return real.float()


def sigmoid(x: Tensor) -> Tensor:
    return torch.sigmoid(x.double()).float()


def tanh(x: Tensor) -> Tensor:
    return torch.tanh(x.double()).float()


def layer(
    module: nn.LSTM | nn.GRU, suffix: str, x: Tensor, scales: tuple[float, float], signed: bool, bits: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """One layer and direction over x (batch, steps, features), forwards in time: outputs, last h, last c."""
    w_ih, w_hh = getattr(module, f"weight_ih_{suffix}"), getattr(module, f"weight_hh_{suffix}")
    b_ih = getattr(module, f"bias_ih_{suffix}") if module.bias else None
    b_hh = getattr(module, f"bias_hh_{suffix}") if module.bias else None
    h = torch.zeros(x.shape[0], module.hidden_size)
    c = h
    outputs = []
    for t in range(x.shape[1]):
        a = product(x[:, t], w_ih, b_ih, scales[0], signed, bits)
        b = product(h, w_hh, b_hh, scales[1], True, bits)
        n = module.hidden_size
        if isinstance(module, nn.LSTM):
            i, f = sigmoid(a[:, :n] + b[:, :n]), sigmoid(a[:, n : 2 * n] + b[:, n : 2 * n])
            g, o = tanh(a[:, 2 * n : 3 * n] + b[:, 2 * n : 3 * n]), sigmoid(a[:, 3 * n :] + b[:, 3 * n :])
            c = f * c + i * g
            h = o * tanh(c)
        else:
            r, z = sigmoid(a[:, :n] + b[:, :n]), sigmoid(a[:, n : 2 * n] + b[:, n : 2 * n])
            new = tanh(a[:, 2 * n :] + r * b[:, 2 * n :])
            h = new + z * (h - new)  # (1 - z) n + z h, as torch computes it
            c = h
        outputs.append(h)
    return torch.stack(outputs, 1), h, c


def quantised(
    module: nn.LSTM | nn.GRU, x: Tensor, scales: dict[str, float], signed: dict[str, bool], bits: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """A whole LSTM or GRU: its outputs in its own layout, and all layers' last h and c.

    Parameters
    ----------
    scales, signed : dict
        Of the inputs, by the name of the weight they meet: ``weight_ih_l0``, ``weight_hh_l0`` ...
    bits : pair of int
        Of input and weight codes.
    """
    if not module.batch_first:
        x = x.transpose(0, 1)
    finals = []
    for number in range(module.num_layers):
        sides = []
        for direction in ("", "_reverse") if module.bidirectional else ("",):
            suffix = f"l{number}{direction}"
            names = f"weight_ih_{suffix}", f"weight_hh_{suffix}"
            y, h, c = layer(
                module,
                suffix,
                x.flip(1) if direction else x,
                (scales[names[0]], scales[names[1]]),
                signed[names[0]],
                bits,
            )
            sides.append(y.flip(1) if direction else y)
            finals.append((h, c))
        x = torch.cat(sides, -1)
    if not module.batch_first:
        x = x.transpose(0, 1)
    return x, torch.stack([h for h, _ in finals]), torch.stack([c for _, c in finals])
