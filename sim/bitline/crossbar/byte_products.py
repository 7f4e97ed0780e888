"""Exact products of codes and weights of 8 bits, summed in 32: of vectors, and of the receptive fields of images.

No matrix of receptive fields is formed: with the channels innermost, a field is one run of bytes a kernel row. Codes
are made, multiplied and turned into results one band of output lines at a time, by one thread, in whose cache they
stay; so no result depends on the thread count.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numba import get_num_threads, njit, prange
from numpy.typing import NDArray

from bitline.crossbar.byte_tiles import HAS_BYTE_DOTS, LANES, STEP, byte_tile
from bitline.crossbar.lanes import address
from bitline.crossbar.rescaling import quantise_image, real_value
from bitline.layers import Window
from bitline.parallel import parallel_kernel

__all__ = ["ByteProducts"]

_BAND_BYTES = 1 << 17
"""Codes a thread holds at once: they and the weights stay in a second-level cache."""
_LINE = 64
"""Positions of a line where a product has no lines of its own."""
_LEAST_COLUMNS = 4
"""Outputs of a group from which on a register of 16 is not mostly empty."""


def _tiles(registers: int) -> Any:
    """Sums of so many registers of outputs for any number of positions, by tiles of eight, four and one."""
    # 8 and 16 sums in registers: an instruction takes four cycles, and one or two begin each cycle
    eight, four, one = byte_tile(8, registers), byte_tile(4, registers), byte_tile(1, registers)

    @njit(nogil=True)
    def sums_of_registers(codes, step, count, offsets, runs, steps, weights, sums, width):
        done = 0
        while done < count:
            if count >= 8:
                k = min(done, count - 8)
                eight(codes + k * step, step, offsets, runs, steps, weights, sums + k * width, width)
                done = k + 8
            elif count >= 4:
                k = min(done, count - 4)
                four(codes + k * step, step, offsets, runs, steps, weights, sums + k * width, width)
                done = k + 4
            else:
                one(codes + done * step, step, offsets, runs, steps, weights, sums + done * width, width)
                done += 1

    return sums_of_registers


_one_register, _two_registers = _tiles(1), _tiles(2)


@njit(nogil=True, cache=True)
def _products(codes, step, count, offsets, runs, steps, weights, registers, sums, width):
    """Sums of ``count`` positions ``step`` bytes apart, at ``width`` bytes from each other; see ``byte_tile``.

    weights: the address of registers of outputs, two and two together, the last one alone where their number is odd.
    Where positions do not divide into tiles the last tile begins earlier, and some sums are computed twice.
    """
    pair_bytes = 2 * LANES * STEP * runs * steps
    for pair in range(registers // 2):
        w, s = weights + pair * pair_bytes, sums + pair * 2 * LANES * 4
        _two_registers(codes, step, count, offsets, runs, steps, w, s, width)
    if registers % 2:
        w, s = weights + registers // 2 * pair_bytes, sums + (registers - 1) * LANES * 4
        _one_register(codes, step, count, offsets, runs, steps, w, s, width)


@njit(nogil=True, cache=True)
def _multiply_line(codes, first, step, offsets, steps, weights, sums):
    """Sums (positions, groups, outputs) int32 of the output line whose first field begins at ``codes[first]``.

    codes (bytes,) uint8; offsets (groups, runs) int64; weights (groups, bytes) int8.
    """
    runs, registers = offsets.shape[1], sums.shape[2] // LANES
    width = 4 * sums.shape[1] * sums.shape[2]
    for g in range(sums.shape[1]):
        _products(
            address(codes) + first,
            step,
            sums.shape[0],
            address(offsets) + 8 * g * runs,
            runs,
            steps,
            address(weights) + g * weights.shape[1],
            registers,
            address(sums) + 4 * g * sums.shape[2],
            width,
        )


@parallel_kernel
def _convolve_reals(
    x, input_scale, low, high, zero, top, left, line, down, step, span, band, offsets, steps, weights, offset, scale,
    bias, out, odd
):  # fmt: skip
    """Quantise, convolve and rescale images x (n, H, W * C) floating into out (n, height, width, groups, N) float32.

    top: lines of margin above; left: bytes of margin before each line; line: bytes of a line with margins; down: input
    lines, and step: bytes, from one output position to the next; span: input lines of a window; band: output lines of a
    task; offset, scale, bias (groups, N) float64; odd (tasks,) bool: whether a number was not finite.
    """
    images, height, width, groups, outputs = out.shape
    bands = odd.shape[0] // images
    for task in prange(odd.shape[0]):
        image, first = task // bands, task % bands * band
        last = min(height, first + band)
        # with the lines that no window reads, up to the next task or the image's end, for NaN is an error there too;
        # a run is read in steps of four: its last may reach beyond the image, where weights are zero
        codes = np.zeros(((last - first) * down + span - 1) * line + STEP, np.uint8)
        lines = codes[:-STEP].reshape(-1, line)
        odd[task] = quantise_image(x[image], input_scale, low, high, zero, first * down - top, left, lines)
        sums = np.empty((width, groups, -(-outputs // LANES) * LANES), np.int32)
        for i in range(first, last):
            _multiply_line(codes, (i - first) * down * line, step, offsets, steps, weights, sums)
            target = out[image, i]
            for m in range(width):
                for g in range(groups):
                    for n in range(outputs):
                        target[m, g, n] = real_value(sums[m, g, n], offset[g, n], scale[g, n], bias[g, n])


@parallel_kernel
def _convolve_codes(x, zero, line, down, step, span, band, offsets, steps, weights, offset, out, tasks):
    """Convolve codes x (n, H, W * C) into out (n, height, width, groups, N) int64, ``offset`` (groups, N) added."""
    images, height, width, groups, outputs = out.shape
    bands = tasks // images
    for task in prange(tasks):
        image, first = task // bands, task % bands * band
        last = min(height, first + band)
        codes = np.zeros(((last - first - 1) * down + span) * line + STEP, np.uint8)
        source = x[image]
        for i in range((last - first - 1) * down + span):
            for k in range(line):
                codes[i * line + k] = np.uint8(np.int64(source[first * down + i, k]) + zero)
        sums = np.empty((width, groups, -(-outputs // LANES) * LANES), np.int32)
        for i in range(first, last):
            _multiply_line(codes, (i - first) * down * line, step, offsets, steps, weights, sums)
            target = out[image, i]
            for m in range(width):
                for g in range(groups):
                    for n in range(outputs):
                        target[m, g, n] = sums[m, g, n] + offset[g, n]


class ByteProducts:
    """Weights of 8 bits ready to be multiplied by codes of 8 bits, exactly.

    Codes are made unsigned by adding ``zero``, whose share of the sums is taken off again. Every product of two bytes
    and every partial sum, in whatever order, is an integer of magnitude at most
    ``B = (high - low) * max_n sum_k |w[k, n]|``; below ``2^31`` no 32-bit sum overflows.

    Parameters
    ----------
    w : ndarray [shape=(G, K, N), integer]
        Weights in ``-128 .. 127``, one matrix per group, rows in order channel, kernel row, kernel column.
    window : Window
    code_range : int, int
        Smallest and largest code, at most 255 apart.
    """

    def __init__(self, w: NDArray[np.integer[Any]], window: Window, code_range: tuple[int, int]) -> None:
        groups, rows, outputs = w.shape
        (kernel_h, kernel_w), (_, across) = window.kernel, window.dilation
        channels = rows // (kernel_h * kernel_w)
        self.window, self.code_range, self.shape = window, code_range, w.shape
        self.zero = -code_range[0]
        # channels innermost; neighbouring pixels of a field lie together unless groups or dilation part them
        fields = w.reshape(groups, channels, kernel_h, kernel_w, outputs).transpose(0, 2, 3, 1, 4)
        self._together = groups == 1 and across == 1
        self._unpadded = Window(kernel=window.kernel, stride=window.stride, dilation=window.dilation)
        self._pointwise = self._unpadded == Window()
        self._span = (kernel_h - 1) * window.dilation[0] + 1
        runs = kernel_h if self._together else kernel_h * kernel_w
        length = rows // runs
        self._steps = -(-length // STEP)
        registers = -(-outputs // LANES)
        padded = np.zeros((groups, runs, self._steps * STEP, registers * LANES), np.int8)
        padded[:, :, :length, :outputs] = fields.reshape(groups, runs, length, outputs)
        lanes = padded.reshape(groups, runs * self._steps, STEP, registers, LANES).transpose(0, 1, 3, 4, 2)
        pairs = [lanes[:, :, r : r + 2].reshape(groups, -1) for r in range(0, registers, 2)]
        self._weights = np.ascontiguousarray(np.concatenate(pairs, axis=1))
        self.offset = -self.zero * w.sum(axis=1, dtype=np.int64)
        """[shape=(G, N)] added to the sums of unsigned codes to get those of the codes."""

    @staticmethod
    def supports(w: NDArray[np.integer[Any]], code_range: tuple[int, int]) -> bool:
        """Whether codes and weights have 8 bits, sums 32, and this processor multiplies bytes faster than floats."""
        low, high = code_range
        if not HAS_BYTE_DOTS or high - low > 255 or w.size == 0 or int(w.min()) < -128 or int(w.max()) > 127:
            return False
        if len(w) > 1 and w.shape[2] < _LEAST_COLUMNS:
            return False
        return (high - low) * int(np.abs(w).sum(axis=1, dtype=np.int64).max()) < 1 << 31

    def multiply(self, x: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Multiply codes (M, K) by the weights, one group with a window of one pixel; (M, N) int64."""
        return self.convolve_codes(x[None, None])

    def convolve_codes(self, x: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Multiply the receptive fields of codes, margins included.

        Parameters
        ----------
        x : ndarray [shape=(n, H, W, G * channels), integer]

        Returns
        -------
        ndarray [shape=(n * height * width, G * N), int64]
        """
        groups, _, outputs = self.shape
        height, width = self._unpadded.output_size(*x.shape[1:3])
        y = np.empty((len(x), height, width, groups, outputs), np.int64)
        for codes, out in self._parts(np.ascontiguousarray(x), y, pointwise=self._pointwise):
            line = codes.shape[2] * codes.shape[3]
            band, tasks = self._bands(out, line)
            _convolve_codes(
                codes.reshape(*codes.shape[:2], line),
                self.zero,
                line,
                self.window.stride[0],
                self.window.stride[1] * codes.shape[3],
                self._span,
                band,
                self._offsets(line),
                self._steps,
                self._weights,
                self.offset,
                out,
                tasks,
            )
        return y.reshape(-1, groups * outputs)

    def convolve_reals(
        self,
        x: NDArray[np.floating[Any]],
        padding: tuple[int, int, int, int],
        input_scale: float,
        scale: NDArray[np.float64],
        bias: NDArray[np.float64],
    ) -> NDArray[np.float32] | None:
        """Quantise images, multiply their receptive fields, and give the products their real values.

        What :func:`bitline.crossbar.rescaling.quantise_lines`, :meth:`convolve_codes` and
        :func:`bitline.crossbar.rescaling.dequantise_rows` give one after the other, bit for bit.

        Parameters
        ----------
        x : ndarray [shape=(n, H, W, G * channels), float32 or float64]
        padding : int, int, int, int
            Pixels of code 0 added left, right, top, bottom.
        input_scale : float
            Real activation per unit of code.
        scale, bias : ndarray [shape=(G * N,), float64]

        Returns
        -------
        ndarray [shape=(n, height, width, G * N), float32] or None
            None where a number was not finite, whether a window reads it or not.
        """
        groups, _, outputs = self.shape
        left, right, top, bottom = padding
        size = self._unpadded.output_size(top + x.shape[1] + bottom, left + x.shape[2] + right)
        y = np.empty((len(x), *size, groups, outputs), np.float32)
        for images, out in self._parts(np.ascontiguousarray(x), y, pointwise=self._pointwise and not any(padding)):
            channels = images.shape[3]
            line = (left + images.shape[2] + right) * channels
            band, tasks = self._bands(out, line)
            odd = np.zeros(tasks, np.bool_)
            _convolve_reals(
                images.reshape(*images.shape[:2], -1),
                float(input_scale),
                float(self.code_range[0]),
                float(self.code_range[1]),
                np.int32(self.zero),
                top,
                left * channels,
                line,
                self.window.stride[0],
                self.window.stride[1] * channels,
                self._span,
                band,
                self._offsets(line),
                self._steps,
                self._weights,
                self.offset.astype(np.float64),
                scale.reshape(groups, outputs),
                bias.reshape(groups, outputs),
                out,
                odd,
            )
            if odd.any():
                return None
        return y.reshape(*y.shape[:3], groups * outputs)

    def _parts(
        self, x: NDArray[Any], y: NDArray[Any], *, pointwise: bool
    ) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Images (n, H, W, C) and their results (n, height, width, G, N); where positions are alike, in lines of 64."""
        if not pointwise:
            if len(x):
                yield x, y
            return
        x, y = x.reshape(-1, x.shape[3]), y.reshape(-1, *y.shape[3:])
        whole = len(x) // _LINE * _LINE
        for part, width in ((slice(0, whole), _LINE), (slice(whole, len(x)), len(x) - whole)):
            if part.start < part.stop:
                yield x[part].reshape(1, -1, width, x.shape[1]), y[part].reshape(1, -1, width, *y.shape[1:])

    def _bands(self, out: NDArray[Any], line: int) -> tuple[int, int]:
        """Output lines of a task, and tasks in all: a band's codes stay in cache, and all threads have some."""
        images, height = out.shape[:2]
        band = _BAND_BYTES // max(1, line * self.window.stride[0])
        band = max(1, min(band, height, -(-images * height // get_num_threads())))
        return band, images * -(-height // band)

    def _offsets(self, line: int) -> NDArray[np.int64]:
        """Bytes (G, runs) from a field's first code to each of its runs, in lines of ``line`` bytes."""
        groups, rows, _ = self.shape
        (kernel_h, kernel_w), (down, across) = self.window.kernel, self.window.dilation
        channels = rows // (kernel_h * kernel_w)
        beside = np.arange(1 if self._together else kernel_w) * across * groups * channels
        below = np.arange(kernel_h) * down * line
        places = (below[:, None] + beside).reshape(-1)
        return np.ascontiguousarray(channels * np.arange(groups)[:, None] + places, np.int64)
