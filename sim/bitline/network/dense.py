"""Integer convolutions by torch's own, where a bound proves them exact: no matrix of receptive fields, no rounding."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bitline.crossbar.exact import FLOAT32_INTEGERS, float32_runs
from bitline.layers import Window
from bitline.network.patches import without_idle_strides

__all__ = ["DenseConvolution", "bytes_are_exact"]


@cache
def bytes_are_exact() -> bool:
    """Whether this machine multiplies bytes exactly, found by trying the worst case.

    Processors with a byte dot product (AVX-512 VNNI, AVX-VNNI) add four products to 32 bits at once. Older ones add two
    in 16 bits, saturated: ``2 * 255 * 127`` becomes 32767. Sums of 1, 3, 16 and 80 products of the largest and of the
    smallest weight with the largest code show which it is, whatever limits were set to oneDNN.
    """
    try:
        for channels in (1, 3, 16, 80):
            for weight in (127, -128):
                dense = DenseConvolution(np.full((1, channels, 3), weight), Window(), (0, 255), in_bytes=True)
                x = np.full((1, 2, 20, channels), 255, np.uint8)
                if not (dense.multiply(x) == 255 * weight * channels).all():
                    return False
    except (AttributeError, RuntimeError, NotImplementedError):  # a torch without oneDNN, or without this operation
        return False
    return True


class DenseConvolution:
    """A convolution of integer codes as float32 sums that are exact integers.

    The products are those of 8-bit integers, summed in 32 bits (``in_bytes``), or of float32 numbers; oneDNN does both,
    by the direct algorithm (a sum of products; torch never asks for Winograd's, which rounds). With 8-bit integers no
    sum overflows and only the result becomes a float32 number; with float32 every partial sum, in whatever order and
    with or without fused multiply-add, is an integer. In both cases ``B = max code * max_n sum_k |w[k, n]|`` bounds its
    magnitude, and up to ``2^24`` all integers are float32 numbers, so nothing rounds. Where B is larger, the input
    channels are cut into runs for each of which it is not, and the runs are added in float64. Where torch was told to
    do float32 products with shorter numbers (bfloat16 has 8 significant bits), codes of 8 bits still fit.

    Parameters
    ----------
    codes : ndarray [shape=(G, K, N), integer]
        Weight codes in ``-128 .. 127``, one matrix per group, rows in order channel, kernel row, kernel column.
    window : Window
        Its padding is not applied.
    code_range : int, int
        Smallest and largest activation code, 8 bits at most. Signed codes come as unsigned ones, ``zero`` added.
    in_bytes : bool
        See :func:`bytes_are_exact`.

    References
    ----------
    oneDNN developer guide, "Nuances of int8 computations".
    """

    def __init__(
        self, codes: NDArray[np.integer[Any]], window: Window, code_range: tuple[int, int], *, in_bytes: bool
    ) -> None:
        low, high = code_range
        groups, rows, columns = codes.shape
        area = window.kernel[0] * window.kernel[1]
        self.window, self.groups, self.in_bytes = window, groups, in_bytes
        self.zero = -low
        """Added to every code, so that it is not negative."""
        self.code_dtype = np.dtype(np.uint8 if in_bytes else np.float32)
        # what the added zeros contribute is taken off again, in float64
        self.offset = np.zeros(groups * columns) - float(self.zero) * codes.sum(axis=1, dtype=np.int64).reshape(-1)
        weights = codes.transpose(0, 2, 1).reshape(groups * columns, rows // area, *window.kernel)
        sums = np.abs(codes).reshape(groups, rows // area, area, columns).sum(axis=2)
        cuts = float32_runs(sums.transpose(1, 0, 2).reshape(rows // area, -1), high - low)
        self._ones, self._zeros = torch.ones(groups * columns), torch.zeros(groups * columns, dtype=torch.long)
        self._parts = []
        for run in pairwise(cuts):
            part = torch.from_numpy(np.ascontiguousarray(weights[:, slice(*run)], np.int8 if in_bytes else np.float32))
            self._parts.append((slice(*run), self._packed(part) if in_bytes else part))

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
        x : ndarray [shape=(n, H, W, G * channels), ``code_dtype``, C-contiguous]
            Codes with ``zero`` added, margins included, which hold ``zero``.

        Returns
        -------
        ndarray [shape=(n * height * width, G * N), float32 or float64]
            Integers; with ``offset`` added the products of the signed codes.
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
        if self.in_bytes:
            y = torch.ops.onednn.qconv2d_pointwise(
                images,
                1.0,
                0,
                weight,
                self._ones,
                self._zeros,
                None,
                stride,
                [0, 0],
                dilation,
                self.groups,
                1.0,
                0,
                torch.float32,
                "none",
                [],
                "",
            )
        else:
            y = torch.mkldnn_convolution(images, weight, None, [0, 0], stride, dilation, self.groups)
        return np.asarray(y.permute(0, 2, 3, 1).reshape(-1, y.shape[1]).numpy())

    def _packed(self, weight: torch.Tensor) -> torch.Tensor:
        window = self.window
        packed: torch.Tensor = torch.ops.onednn.qconv_prepack(
            weight, self._ones, 1.0, 0, list(window.stride), [0, 0], list(window.dilation), self.groups, None
        )
        return packed
