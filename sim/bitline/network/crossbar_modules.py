"""What stands in the graph in place of a convolution or linear layer: quantise, multiply on crossbars, rescale."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from bitline.crossbar.adc import AdcBits
from bitline.crossbar.byte_products import ByteProducts
from bitline.crossbar.driven import DrivenRows
from bitline.crossbar.engines import Crossbars, Product, Transfer
from bitline.crossbar.rescaling import dequantise_columns, dequantise_rows, quantise_lines
from bitline.crossbar.sar import LayerSearch
from bitline.errors import ConversionError, DataError
from bitline.hardware import Hardware
from bitline.layers import LayerKind, MatrixLayer, Window
from bitline.network.dense import DenseConvolution
from bitline.network.integer import IntegerConvolution, IntegerMatrices
from bitline.network.patches import blocks, patches
from bitline.network.quantisation import code_dtype

__all__ = ["CrossbarModule", "LayerCounters", "LayerTrace", "MatrixRunner", "NetworkEngine"]

_BUDGET_BYTES = 32 << 20
_BLOCK_BYTES = 8 << 20
"""Codes and products of a dense convolution by torch at once: a third-level cache holds most of it."""
_MAX_BINS = 4096


class NetworkEngine(StrEnum):
    """What computes a network's matrix products."""

    BITSERIAL = "bitserial"
    """Crossbars, every conversion performed and counted."""
    CERTIFIED = "certified"
    """Crossbars, an exact product and only conversions that may saturate; same integers."""
    EXACT = "exact"
    """No crossbars: the exact integer network, ``x @ w`` on the same codes."""


@dataclass(eq=False)
class LayerCounters:
    """What a layer's crossbars did since the counters were reset."""

    name: str
    vectors: int = 0
    """Input vectors multiplied, by any engine."""
    conversions: int = 0
    saturations: int = 0
    max_column_sum: int | None = None
    """Largest column sum seen; None where no engine formed them."""
    histogram: NDArray[np.int64] | None = None
    """[shape=(slices + 1, bins)] column sums by slice, the unit columns last; the last bin has everything larger."""
    codes: NDArray[np.int64] | None = None
    """[shape=(input cycles, slices + 1, 2^bits)] conversions by clipped column sum, where a search was set; see
    :class:`bitline.crossbar.engines.Transfer`."""
    driven: NDArray[np.int64] | None = None
    """[shape=(groups * rows,)] input vectors and digits that drive each row's word line; by the bit-serial engine."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerTrace:
    """The first integer input vectors of a layer, and the weights they met."""

    name: str
    x: NDArray[np.integer[Any]]
    """[shape=(M, groups * rows)] activation codes."""
    codes: NDArray[np.int32]
    """[shape=(groups, rows, columns)] weight codes."""
    signed_inputs: bool


class MatrixRunner:
    """One matrix layer's crossbars, its exact twin, and its counters; shared by all calls of the layer.

    Parameters
    ----------
    layer : MatrixLayer
    hw : Hardware
    adc : AdcBits
        Resolution of the layer's columns.
    """

    def __init__(self, layer: MatrixLayer, hw: Hardware, adc: AdcBits) -> None:
        self.layer, self.hw = layer, hw
        self._engine = NetworkEngine.BITSERIAL
        self.crossbars = Crossbars(layer.codes, hw, signed_inputs=layer.signed_inputs, adc=adc)
        self.weight_scale = layer.weight_scale.reshape(-1)
        self.bias = None if layer.bias is None else layer.bias.reshape(-1)
        self.counters = LayerCounters(layer.name)
        self.histograms = False
        self._values: NDArray[np.int64] | None = None
        self.max_trace_vectors = 0
        self._trace: list[NDArray[np.integer[Any]]] = []

    @property
    def engine(self) -> NetworkEngine:
        """What computes: the engine that was set, or ``bitserial`` in place of ``certified`` where sums are counted."""
        if self._engine is NetworkEngine.CERTIFIED and (self.histograms or self._values is not None):
            return NetworkEngine.BITSERIAL
        return self._engine

    @engine.setter
    def engine(self, engine: NetworkEngine) -> None:
        self._engine = engine

    def reset(self) -> None:
        """Set all counters, histograms and traces back."""
        self.counters = LayerCounters(self.layer.name)
        self._trace = []

    def set_adc(self, hw: Hardware, adc: AdcBits) -> None:
        """Hold the same codes in other crossbars."""
        self.hw = hw
        self.crossbars = Crossbars(self.layer.codes, hw, signed_inputs=self.layer.signed_inputs, adc=adc)
        self._values = None
        for known in ("_proven", "_driven"):  # other columns and digits are
            self.__dict__.pop(known, None)

    def set_search(self, search: LayerSearch | None) -> None:
        """Convert as these searches do, and count every conversion by its clipped column sum; None: ideal ADCs."""
        self._values = None if search is None else search.values(self.hw, self.crossbars.adc)

    @cached_property
    def _driven(self) -> DrivenRows:
        return DrivenRows(self.hw, self.layer.signed_inputs)

    @cached_property
    def _exact(self) -> IntegerMatrices:
        low, high = self.hw.input_range(self.layer.signed_inputs)
        return IntegerMatrices(self.layer.codes, max(-low, high))

    @cached_property
    def _exact_convolution(self) -> IntegerConvolution | None:
        low, high = self.hw.input_range(self.layer.signed_inputs)
        if not IntegerConvolution.supports(self.layer.codes, max(-low, high)):
            return None
        return IntegerConvolution(self.layer.codes, max(-low, high), self.layer.window)

    @cached_property
    def _whole(self) -> ByteProducts | DenseConvolution | None:
        """The exact product of all weights."""
        return self._dense_of(self.layer.codes)

    @cached_property
    def _proven(self) -> ByteProducts | DenseConvolution | None:
        """That of the weights in lossless columns."""
        return self._dense_of(self.crossbars.proven)

    def _dense_of(self, codes: NDArray[np.int32]) -> ByteProducts | DenseConvolution | None:
        code_range = self.hw.input_range(self.layer.signed_inputs)
        if ByteProducts.supports(codes, code_range):
            return ByteProducts(codes, self.layer.window, code_range)
        if DenseConvolution.supports(codes, self.layer.window, code_range):
            return DenseConvolution(codes, self.layer.window, code_range)
        return None

    @property
    def dense(self) -> ByteProducts | DenseConvolution | IntegerConvolution | None:
        """What convolves whole images with the engine that is set; None where vectors are needed, one by one."""
        if self._records:
            return None
        if self.engine is NetworkEngine.EXACT:
            return self._exact_convolution
        if self.engine is NetworkEngine.CERTIFIED and self.crossbars.lossless:
            return self._whole
        return None

    def count_vectors(self, vectors: int) -> None:
        """Count input vectors, and the conversions the hardware performs for them."""
        self.counters.vectors += vectors
        if self.engine is not NetworkEngine.EXACT:
            self.counters.conversions += self.crossbars.conversions(vectors)

    @property
    def _records(self) -> bool:
        """Whether a trace still wants input vectors."""
        return sum(len(part) for part in self._trace) < self.max_trace_vectors

    @property
    def trace(self) -> LayerTrace | None:
        """What was recorded, or None."""
        if not self._trace:
            return None
        x = np.concatenate(self._trace)
        return LayerTrace(name=self.layer.name, x=x, codes=self.layer.codes, signed_inputs=self.layer.signed_inputs)

    @property
    def vector_bytes(self) -> int:
        """Memory one input vector needs on its way through: its codes, exact operands, product and output."""
        if self.reads_images:
            return self.layer.groups * self.layer.columns * 24
        codes = self.layer.groups * self.layer.rows
        outputs = self.layer.groups * self.layer.columns
        operand = self._exact.dtype.itemsize if self.engine is NetworkEngine.EXACT else 2
        return codes * (2 + operand) + outputs * 24

    @property
    def reads_images(self) -> bool:
        """Whether receptive fields are read from the images instead of being copied into a matrix."""
        counted = self.histograms or self._values is not None
        recorded = self._records or (counted and self.engine is NetworkEngine.BITSERIAL)
        return self.engine is not NetworkEngine.EXACT and not recorded

    def convolve(self, x: NDArray[np.integer[Any]], window: Window, lines: slice, width: int) -> NDArray[np.int64]:
        """Multiply the receptive fields of some output lines of padded codes (n, C, H, W), and count."""
        vectors = x.shape[0] * (lines.stop - lines.start) * width
        if not (self.reads_images and self.crossbars.convolves(vectors)):
            return self.multiply(patches(x, window, lines, width))
        if self.engine is NetworkEngine.CERTIFIED:
            return self._convolve_certified(x, window, lines, width)
        self.counters.vectors += vectors
        self._count_driven(self._driven.of_images(x, window, lines, width))
        return self._counted(self.crossbars.convolve(x, window, lines, width))

    def _convolve_certified(
        self, x: NDArray[np.integer[Any]], window: Window, lines: slice, width: int
    ) -> NDArray[np.int64]:
        """An exact product less the excess; or of the proven weights alone, or none, where conversions cost less."""
        vectors = x.shape[0] * (lines.stop - lines.start) * width
        crossbars = self.crossbars
        if self._whole is not None and crossbars.excess_pays(x, window, lines, width):
            last = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
            y = _product_of_lines(last, window, lines, self._whole)
            saturations = crossbars.subtract_excess(last.transpose(0, 3, 1, 2), window, lines, width, y)
        elif crossbars.bitserial_is_cheaper:
            product = crossbars.convolve(x, window, lines, width)
            y, saturations = product.y, product.saturations
        elif self._proven is not None:
            y = _product_of_lines(x.transpose(0, 2, 3, 1), window, lines, self._proven)
            saturations = crossbars.add_refuted(x, window, lines, width, y)
        else:
            return self.multiply(patches(x, window, lines, width))
        self.counters.saturations += saturations
        self.count_vectors(vectors)
        return y

    def multiply(self, x: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Multiply codes (M, groups * rows) by the weights with the engine that is set, and count."""
        counters = self.counters
        counters.vectors += x.shape[0]
        recorded = sum(part.shape[0] for part in self._trace)
        if recorded < self.max_trace_vectors:
            self._trace.append(x[: self.max_trace_vectors - recorded].copy())
        if self.engine is NetworkEngine.EXACT:
            return self._exact.multiply(x)
        if self.engine is NetworkEngine.BITSERIAL:
            self._count_driven(self._driven.of_vectors(x))
        histogram = None
        if self.histograms and self.engine is NetworkEngine.BITSERIAL:
            if counters.histogram is None:
                counters.histogram = np.zeros((self.hw.slices + 1, self._bins()), np.int64)
            histogram = counters.histogram
        transfer = None
        if self._values is not None and self.engine is NetworkEngine.BITSERIAL:
            if counters.codes is None:
                counters.codes = np.zeros_like(self._values)
            transfer = Transfer(values=self._values, counts=counters.codes)
        return self._counted(
            self.crossbars.multiply(x, engine=self.engine.value, histogram=histogram, transfer=transfer)
        )

    def _counted(self, product: Product) -> NDArray[np.int64]:
        counters = self.counters
        counters.conversions += product.conversions
        counters.saturations += product.saturations
        if product.max_column_sum is not None:
            counters.max_column_sum = max(counters.max_column_sum or 0, product.max_column_sum)
        return product.y

    def _count_driven(self, driven: NDArray[np.int64]) -> None:
        counters = self.counters
        counters.driven = driven if counters.driven is None else counters.driven + driven

    def _bins(self) -> int:
        """One bin for every column sum a row tile can reach, as far as that is reasonable."""
        rows = min(self.hw.rows, self.layer.rows)
        return min(rows * self.hw.max_digit * self.hw.max_level + 2, _MAX_BINS)


class CrossbarModule(nn.Module):
    """One call of a matrix layer on simulated crossbars.

    Parameters
    ----------
    runner : MatrixRunner
    name : str
        Name of the call, for messages.
    input_scale : float
        Real activation per unit of code at this call.
    padding_mode : str
        ``zeros``, or a mode of :func:`torch.nn.functional.pad`.
    folded : bool
        Whether a batch norm was folded in, which for a linear layer is right for (batch, features) inputs only.
    """

    makes_new_tensors = True
    """Outputs never share memory with inputs (:mod:`bitline.network.aliases`)."""

    def __init__(self, runner: MatrixRunner, name: str, input_scale: float, padding_mode: str, folded: bool) -> None:
        super().__init__()
        self.runner, self.name, self.input_scale = runner, name, input_scale
        self.padding_mode, self.folded = padding_mode, folded
        self.channels_last = False
        """Whether the output may lie in memory with the channels innermost (:mod:`bitline.network.layouts`)."""

    def extra_repr(self) -> str:
        """What ``print(network)`` shows."""
        layer = self.runner.layer
        return (
            f"{self.name}: {layer.kind.value}, groups={layer.groups}, rows={layer.rows}, columns={layer.columns}, "
            f"input_scale={self.input_scale:g}, signed_inputs={layer.signed_inputs}"
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the layer.

        Parameters
        ----------
        x : Tensor [shape=(B, C, H, W), (B, C, L) or (..., features), floating]

        Returns
        -------
        Tensor [float32]
            Of the shape the float layer gives; contiguous, in torch's channels-last format with ``channels_last``.

        Raises
        ------
        ConversionError
            Input of another shape than the layer's.
        DataError
            NaN or infinite activations.
        """
        x = x.detach()
        images, window = as_images(self.runner.layer, x, self.padding_mode, self.name, self.folded)
        return from_images(self.runner.layer, x, self._convolve(images, window))

    def _convolve(self, x: torch.Tensor, window: Window) -> torch.Tensor:
        """Convolve images (n, C, H, W) with the window; (n, outputs, height, width)."""
        height, width = window.output_size(x.shape[2], x.shape[3])
        if height < 1 or width < 1 or 0 in x.shape[2:]:
            raise ConversionError(
                f"layer {self.name}: input of {tuple(x.shape[2:])} is smaller than kernel {window.kernel}"
            )
        dense = self.runner.dense
        if dense is None:
            return torch.from_numpy(self._convolve_vectors(x, window, height, width))
        images = x.permute(0, 2, 3, 1).contiguous().numpy()
        if isinstance(dense, ByteProducts):
            y = dense.convolve_reals(images, window.padding, self.input_scale, self._scale, self._bias)
            if y is None:
                raise self._not_finite()
        else:
            y = self._convolve_densely(images, window, dense, height, width)
        self.runner.count_vectors(x.shape[0] * height * width)
        out = torch.from_numpy(y).permute(0, 3, 1, 2)
        return out if self.channels_last else out.contiguous()

    def _convolve_densely(
        self,
        x: NDArray[Any],
        window: Window,
        dense: DenseConvolution | IntegerConvolution,
        height: int,
        width: int,
    ) -> NDArray[np.float32]:
        """Convolve images (n, H, W, C) some at a time, by torch; (n, height, width, outputs)."""
        left, right, top, _ = window.padding
        channels, outputs = x.shape[3], self.runner.layer.groups * self.runner.layer.columns
        out = np.empty((len(x), height, width, outputs), np.float32)
        # of an output position: the codes it is first to read, and the product
        vector_bytes = 4 * (channels * window.stride[0] * window.stride[1] + outputs)
        for block in blocks(len(x), height, width, vector_bytes, _BLOCK_BYTES):
            part = x[block.images]
            # with the lines that no window reads, up to the next block or the image's end: NaN is an error there too
            lines = (block.rows.stop - block.rows.start) * window.stride[0]
            lines += (window.kernel[0] - 1) * window.dilation[0]
            codes = np.empty((len(part), lines, left + x.shape[2] + right, channels), np.float32)
            finite = quantise_lines(
                part.reshape(*part.shape[:2], -1),
                self.input_scale,
                self._code_range,
                codes.reshape(len(part), lines, -1),
                first=block.rows.start * window.stride[0] - top,
                left=left * channels,
            )
            if not finite:
                raise self._not_finite()
            y = dense.multiply(codes)
            dequantise_rows(y, self._scale, self._bias, out[block.images, block.rows].reshape(y.shape))
        return out

    def _convolve_vectors(self, x: torch.Tensor, window: Window, height: int, width: int) -> NDArray[np.float32]:
        """Convolve images (n, C, H, W) block by block by crossbars; (n, outputs, height, width)."""
        runner, layer = self.runner, self.runner.layer
        left, right, top, bottom = window.padding
        outputs = layer.groups * layer.columns
        out = np.empty((x.shape[0], outputs, height, width), np.float32)
        dtype = code_dtype(runner.hw, layer.signed_inputs)
        codes, held = np.empty(0, dtype), slice(0, 0)
        for block in blocks(x.shape[0], height, width, runner.vector_bytes, _BUDGET_BYTES):
            if held != block.images:
                real = np.asarray(x[block.images].contiguous().numpy())
                count, channels = real.shape[:2]
                lines, columns = top + real.shape[2] + bottom, left + real.shape[3] + right
                codes, held = np.empty((count, channels, lines, columns), dtype), block.images
                finite = quantise_lines(
                    real.reshape(-1, *real.shape[2:]),
                    self.input_scale,
                    self._code_range,
                    codes.reshape(-1, lines, columns),
                    first=-top,
                    left=left,
                )
                if not finite:
                    raise self._not_finite()
            y = runner.convolve(codes, window, block.rows, width)
            target = out[block.images, :, block.rows].reshape(count, outputs, -1)
            dequantise_columns(y.T, self._scale, self._bias, target)
        return out

    @cached_property
    def _code_range(self) -> tuple[int, int]:
        return self.runner.hw.input_range(self.runner.layer.signed_inputs)

    @cached_property
    def _scale(self) -> NDArray[np.float64]:
        return self.input_scale * self.runner.weight_scale

    @cached_property
    def _bias(self) -> NDArray[np.float64]:
        bias = self.runner.bias
        return np.zeros_like(self.runner.weight_scale) if bias is None else bias

    def _not_finite(self) -> DataError:
        return DataError(f"layer {self.name}: NaN or infinite activations, expected finite numbers")


def _product_of_lines(
    x: NDArray[Any], window: Window, lines: slice, dense: ByteProducts | DenseConvolution
) -> NDArray[np.int64]:
    """Products of what some output lines read of padded codes (n, H, W, C)."""
    stop = (lines.stop - 1) * window.stride[0] + (window.kernel[0] - 1) * window.dilation[0] + 1
    read = x[:, lines.start * window.stride[0] : stop]
    if isinstance(dense, ByteProducts):
        return dense.convolve_codes(read)
    return dense.multiply(np.ascontiguousarray(read, np.float32)).astype(np.int64)


def as_images(
    layer: MatrixLayer, x: torch.Tensor, padding_mode: str, name: str, folded: bool
) -> tuple[torch.Tensor, Window]:
    """View a layer's input as images (n, C, H, W) with the window that remains to be applied.

    A vector becomes an image of one pixel, a sequence one of height 1; a padding other than with zeros is applied.

    Raises
    ------
    ConversionError
        The input does not have the layer's shape.
    """
    channels = layer.groups * layer.rows // (layer.window.kernel[0] * layer.window.kernel[1])
    if layer.kind.multiplies_vectors:
        if x.dim() < 1 or x.shape[-1] != channels or (folded and x.dim() != 2):
            expected = f"(batch, {channels})" if folded else f"(..., {channels})"
            raise ConversionError(f"layer {name}: expected input of shape {expected}, got {tuple(x.shape)}")
        return x.reshape(-1, channels, 1, 1), layer.window
    dimensions = 3 if layer.kind is LayerKind.CONV1D else 4
    if x.dim() != dimensions or x.shape[1] != channels:
        what = "(batch, {}, length)" if dimensions == 3 else "(batch, {}, height, width)"
        expected = what.format(channels)
        raise ConversionError(f"layer {name}: expected input of shape {expected}, got {tuple(x.shape)}")
    window = layer.window
    if padding_mode != "zeros" and any(window.padding):
        sides = window.padding[:2] if dimensions == 3 else window.padding
        try:
            x = F.pad(x, sides, mode=padding_mode)
        except (RuntimeError, NotImplementedError, ValueError) as error:
            raise ConversionError(
                f"layer {name}: {padding_mode} padding failed: {str(error).splitlines()[0]}"
            ) from None
        window = Window(kernel=window.kernel, stride=window.stride, dilation=window.dilation)
    return x.unsqueeze(2) if dimensions == 3 else x, window


def from_images(layer: MatrixLayer, x: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """Give an output (n, outputs, height, width) the shape the float layer gives for the input ``x``."""
    if layer.kind.multiplies_vectors:
        return out.reshape(*x.shape[:-1], out.shape[1])
    return out.squeeze(2) if layer.kind is LayerKind.CONV1D else out
