"""From images to input vectors: a convolution's receptive fields as rows of a matrix (im2col), in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitline.layers import Window

__all__ = ["Block", "blocks", "gather_patches", "pad_images", "patches", "without_idle_strides"]


@dataclass(frozen=True)
class Block:
    """A part of a convolution's output that is computed at once: images and output rows, stop excluded."""

    images: slice
    rows: slice


def pad_images(x: NDArray[Any], window: Window) -> NDArray[Any]:
    """Surround images (n, C, H, W) with the window's zeros."""
    left, right, top, bottom = window.padding
    if not any(window.padding):
        return x
    return np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))


def without_idle_strides(x: NDArray[Any], window: Window) -> tuple[NDArray[Any], list[int]]:
    """Images (n, H, W, C) and strides for the same convolution, stride 1 along a side with one output position.

    oneDNN 3 reads wrong numbers of images of one channel, channels last, where one output column has a wider stride.
    """
    sides = window.output_size(x.shape[1], x.shape[2])
    if 1 not in sides or window.stride == (1, 1):
        return x, list(window.stride)
    stride = [1 if side == 1 else step for side, step in zip(sides, window.stride, strict=True)]
    height, width = (
        (side - 1) * step + (kernel - 1) * dilation + 1
        for side, step, kernel, dilation in zip(sides, stride, window.kernel, window.dilation, strict=True)
    )
    return np.ascontiguousarray(x[:, :height, :width]), stride


def blocks(images: int, height: int, width: int, vector_bytes: int, budget_bytes: int) -> Iterator[Block]:
    """Cut an output of ``images`` x ``height`` x ``width`` positions so that a block's vectors fit the budget.

    Whole images where at least one fits, otherwise bands of rows of one image; one row at least.
    """
    per_image = max(1, height * width * vector_bytes)
    if per_image <= budget_bytes:
        step = budget_bytes // per_image
        for start in range(0, images, step):
            yield Block(slice(start, min(images, start + step)), slice(0, height))
        return
    step = max(1, budget_bytes // max(1, width * vector_bytes))
    for image in range(images):
        for start in range(0, height, step):
            yield Block(slice(image, image + 1), slice(start, min(height, start + step)))


def patches(x: NDArray[Any], window: Window, rows: slice, width: int) -> NDArray[Any]:
    """Copy the receptive fields of some output rows into the rows of a matrix.

    Parameters
    ----------
    x : ndarray [shape=(n, C, H, W)]
        Padded images.
    window : Window
        Its padding is not applied again.
    rows : slice
        Output rows wanted.
    width : int
        Output width.

    Returns
    -------
    ndarray [shape=(n * output rows * width, C * kernel height * kernel width)]
        Positions in row-major order; columns in order channel, kernel row, kernel column.
    """
    images, channels = x.shape[:2]
    height = rows.stop - rows.start
    (down, across), (kernel_h, kernel_w), (dilate_h, dilate_w) = window.stride, window.kernel, window.dilation
    out = np.empty((images, height, width, channels, kernel_h, kernel_w), x.dtype)
    for i in range(kernel_h):
        top = rows.start * down + i * dilate_h
        for j in range(kernel_w):
            left = j * dilate_w
            field = x[:, :, top : top + (height - 1) * down + 1 : down, left : left + (width - 1) * across + 1 : across]
            out[..., i, j] = field.transpose(0, 2, 3, 1)
    return out.reshape(images * height * width, channels * kernel_h * kernel_w)


def gather_patches(x: NDArray[Any], window: Window, positions: NDArray[np.int64]) -> NDArray[Any]:
    """Receptive fields of single output positions, numbered through images, rows and columns.

    Parameters
    ----------
    x : ndarray [shape=(n, C, H, W)]
        Padded images.
    window : Window
        Its padding is not applied again.
    positions : ndarray [shape=(m,), int64]
        In ``0 .. n * output height * output width - 1``.

    Returns
    -------
    ndarray [shape=(m, C * kernel height * kernel width)]
    """
    height, width = Window(kernel=window.kernel, stride=window.stride, dilation=window.dilation).output_size(
        x.shape[2], x.shape[3]
    )
    image, row, column = np.unravel_index(positions, (x.shape[0], height, width))
    row_offsets = np.arange(window.kernel[0]) * window.dilation[0]
    column_offsets = np.arange(window.kernel[1]) * window.dilation[1]
    rows = (row * window.stride[0])[:, None, None, None] + row_offsets[None, None, :, None]
    columns = (column * window.stride[1])[:, None, None, None] + column_offsets[None, None, None, :]
    channels = np.arange(x.shape[1])[None, :, None, None]
    fields = x[image[:, None, None, None], channels, rows, columns]
    return np.asarray(fields.reshape(len(positions), -1))
