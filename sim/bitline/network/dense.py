"""Integer convolutions by torch's own, where a bound proves them exact: no matrix of receptive fields, no rounding.

For what :class:`bitline.crossbar.byte_products.ByteProducts` does not do: processors without its instruction, and
groups of few outputs.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bitline.crossbar.exact import FLOAT32_INTEGERS, float32_runs
from bitline.layers import Window
from bitline.network.patches import without_idle_strides

__all__ = ["DenseConvolution"]


class DenseConvolution:
    """A convolution of integer codes as float32 sums that are exact integers.

    oneDNN does it by the direct algorithm (a sum of products; torch never asks for Winograd's, which rounds). Every
    partial sum, in whatever order and with or without fused multiply-add, is an integer of magnitude at most
    ``B = max code * max_n sum_k |w[k, n]|``, and up to ``2^24`` all integers are float32 numbers, so nothing rounds.
    Where B is larger, the input channels are cut into runs for each of which it is not, and the runs are added in
    float64. Where torch was told to do float32 products with shorter numbers (bfloat16 has 8 significant bits), codes
    of 8 bits still fit.

    Parameters
    ----------
    codes : ndarray [shape=(G, K, N), integer]
        Weight codes in ``-128 .. 127``, one matrix per group, rows in order channel, kernel row, kernel column.
    window : Window
        Its padding is not applied.
    code_range : int, int
        Smallest and largest activation code, 8 bits at most.
    """

    def __init__(self, codes: NDArray[np.integer[Any]], window: Window, code_range: tuple[int, int]) -> None:
        low, high = code_range
        groups, rows, columns = codes.shape
        area = window.kernel[0] * window.kernel[1]
        self.window, self.groups = window, groups
        weights = codes.transpose(0, 2, 1).reshape(groups * columns, rows // area, *window.kernel)
        sums = np.abs(codes).reshape(groups, rows // area, area, columns).sum(axis=2)
        cuts = float32_runs(sums.transpose(1, 0, 2).reshape(rows // area, -1), max(-low, high))
        self._parts = [
            (slice(*run), torch.from_numpy(np.ascontiguousarray(weights[:, slice(*run)], np.float32)))
            for run in pairwise(cuts)
        ]

    @staticmethod
    def supports(codes: NDArray[np.integer[Any]], window: Window, code_range: tuple[int, int]) -> bool:
        """Whether codes and weights have 8 bits, and a single channel's sums stay below the bound."""
        low, high = code_range
        if high - low > 255 or codes.size == 0 or int(codes.min()) < -128 or int(codes.max()) > 127:
            return False
        area = window.kernel[0] * window.kernel[1]
        return area * 128 * 255 <= FLOAT32_INTEGERS and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]

    def multiply(self, x: NDArray[Any]) -> NDArray[np.floating[Any]]:
        """Multiply the receptive fields of images.

        Parameters
        ----------
        x : ndarray [shape=(n, H, W, G * channels), float32, C-contiguous]
            Codes, margins included.

        Returns
        -------
        ndarray [shape=(n * height * width, G * N), float32 or float64]
            Integers.
        """
        y: NDArray[np.floating[Any]] | None = None
        for run, weight in self._parts:
            part = x
            if len(self._parts) > 1:
                grouped = x.reshape(*x.shape[:3], self.groups, -1)
                part = np.ascontiguousarray(grouped[..., run]).reshape(*x.shape[:3], -1)
            product = self._convolve(part, weight)
            y = product if y is None else y.astype(np.float64) + product
        assert y is not None
        return y

    def _convolve(self, x: NDArray[Any], weight: torch.Tensor) -> NDArray[np.float32]:
        if self.window.kernel == (1, 1) and self.window.stride == (1, 1):
            x = x.reshape(1, 1, -1, x.shape[3])  # positions are alike: one long line is faster than many short ones
        x, stride = without_idle_strides(x, self.window)
        images, dilation = torch.from_numpy(x).permute(0, 3, 1, 2), list(self.window.dilation)
        y = torch.mkldnn_convolution(images, weight, None, [0, 0], stride, dilation, self.groups)
        return np.asarray(y.permute(0, 2, 3, 1).reshape(-1, y.shape[1]).numpy())
