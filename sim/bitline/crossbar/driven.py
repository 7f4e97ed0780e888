"""How often each row of a weight matrix meets an input digit that is not zero: its word line is driven then.

Everything else about activity follows from these counts and the weights (:mod:`bitline.activity`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from bitline.crossbar.matrices import bit_patterns
from bitline.hardware import Hardware
from bitline.layers import Window
from bitline.parallel import parallel_kernel

__all__ = ["DrivenRows"]


@parallel_kernel
def _sum_images(x, digits, first, last, sums):
    """Non-zero digits at every place of lines first .. last - 1 of images x (n, C, H, W), over all images.

    digits (codes,) uint8 those of every code; sums (C, lines, W) int64. One thread owns a channel.
    """
    mask = digits.shape[0] - 1
    for c in prange(sums.shape[0]):
        for n in range(x.shape[0]):
            for line in range(first, last):
                codes = x[n, c, line]
                total = sums[c, line - first]
                for k in range(codes.shape[0]):
                    total[k] += digits[codes[k] & mask]


class DrivenRows:
    """Counts of a layer's driven word lines, one a row of its matrix.

    Parameters
    ----------
    hw : Hardware
    signed : bool
        Whether codes are two's complement. Of a signed code through DACs of several bits its magnitude's digits count:
        it is applied in one of two passes.
    """

    def __init__(self, hw: Hardware, signed: bool) -> None:
        self._hw = hw
        codes = np.arange(1 << hw.input_bits)
        if signed and hw.dac_bits > 1:
            codes = np.minimum(codes, (1 << hw.input_bits) - codes)
        shifts = hw.dac_bits * np.arange(hw.input_cycles)
        self._digits = ((codes[:, None] >> shifts & ((1 << hw.dac_bits) - 1)) != 0).sum(axis=1).astype(np.uint8)

    def of_vectors(self, x: NDArray[Any]) -> NDArray[np.int64]:
        """Count for input vectors [shape=(M, rows of all groups)]; [shape=(rows of all groups,), int64]."""
        return self.of_images(x[:, :, None, None], Window(), slice(0, 1), 1)

    def of_images(self, x: NDArray[Any], window: Window, lines: slice, width: int) -> NDArray[np.int64]:
        """Count for the receptive fields of some output lines, without forming them.

        Parameters
        ----------
        x : ndarray [shape=(n, C, H, W), integer]
            Activation codes, padding included.
        window : Window
            Its padding is not applied again.
        lines : slice
            Output lines.
        width : int
            Width of the output.

        Returns
        -------
        ndarray [shape=(C * kernel height * kernel width,), int64]
            Input vectors and digits (of every pass) whose digit is not zero, by row of the matrix.
        """
        (down, across), (high, wide), (dilate_h, dilate_w) = window.stride, window.kernel, window.dilation
        first = lines.start * down
        last = (lines.stop - 1) * down + (high - 1) * dilate_h + 1
        sums = np.zeros((x.shape[1], last - first, x.shape[3]), np.int64)
        _sum_images(bit_patterns(x, self._hw), self._digits, first, last, sums)
        driven = np.empty((x.shape[1], high, wide), np.int64)
        for i in range(high):
            rows = sums[:, i * dilate_h :: down][:, : lines.stop - lines.start]
            for j in range(wide):
                driven[:, i, j] = rows[:, :, j * dilate_w :: across][:, :, :width].sum(axis=(1, 2))
        return driven.reshape(-1)
