"""Activation scales from real inputs: samples of what each layer reads, calibrators, and the choice between them.

A calibrator is a pure function of a sample. ``auto`` takes, layer by layer, the one whose scale gives the smallest
measured error of the layer's *output*: quantised inputs times quantised weights against float inputs times float
weights, over sampled input vectors (and sampled outputs where a layer has more than four million weights).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bitline.errors import ConfigError, DataError
from bitline.hardware import Hardware
from bitline.network.quantisation import code_dtype, quantise

__all__ = ["CALIBRATORS", "Calibration", "Sample", "calibrate", "check_calibrator"]

_MAX_VALUES = 1 << 18
_MAX_VECTORS = 512
_MAX_VECTOR_BYTES = 8 << 20
_MAX_WEIGHTS = 1 << 22
_SEARCH_VALUES = 1 << 15
_SEARCH_STEPS = 48
_SCALE_BITS = 12


@dataclass(eq=False)
class Sample:
    """What one call of a layer read during calibration: extremes of everything, and an even choice of the rest."""

    name: str
    minimum: float = np.inf
    maximum: float = -np.inf
    values: list[NDArray[np.float32]] = field(default_factory=list)
    vectors: list[NDArray[np.float32]] = field(default_factory=list)
    """Float input vectors [shape=(m, G * K)]."""

    def add(self, x: NDArray[np.float32], share: float) -> None:
        """Take values of one batch; ``share`` is the batch's part of all calibration data.

        Raises
        ------
        DataError
            NaN or infinite activations.
        """
        if x.size == 0:
            return
        low, high = float(x.min()), float(x.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise DataError(f"layer {self.name}: NaN or infinite activations during calibration, expected finite ones")
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        flat = x.reshape(-1)
        self.values.append(flat[spread(flat.size, max(1, int(_MAX_VALUES * share)))])


def spread(size: int, count: int) -> NDArray[np.int64]:
    """At most ``count`` of ``0 .. size - 1``, evenly spread, without a pattern that could match rows of an image."""
    if size <= count:
        return np.arange(size, dtype=np.int64)
    # one in each of ``count`` equal parts, at an offset that the golden ratio's multiples spread evenly
    part = np.arange(count, dtype=np.float64)
    return np.minimum((part + part * 0.6180339887498949 % 1.0) * (size / count), size - 1).astype(np.int64)


def vectors_to_sample(vector_size: int, share: float) -> int:
    """How many input vectors to take from a batch that is ``share`` of all calibration data."""
    total = max(32, min(_MAX_VECTORS, _MAX_VECTOR_BYTES // (4 * max(1, vector_size))))
    return max(1, int(np.ceil(total * share)))


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The activation scale of one call of a layer, and how it was chosen."""

    layer: str
    calibrator: str
    """The calibrator whose scale is used."""
    scale: float
    """Real activation per unit of code."""
    signed: bool
    errors: dict[str, float]
    """Relative error of the layer's output, by calibrator: squared error over the float output's squares."""
    scales: dict[str, float]
    """The scale each calibrator proposes."""
    clipped: float
    """Fraction of sampled activations beyond the range of the codes."""


# --- calibrators -----------------------------------------------------------------------------------------------------


def _covering(low: float, high: float, hw: Hardware, signed: bool) -> float:
    """Smallest scale at which ``low .. high`` is not clipped; 0 where everything is zero."""
    code_low, code_high = hw.input_range(signed)
    candidates = [0.0]
    if high > 0 and code_high > 0:
        candidates.append(high / code_high)
    if low < 0 and code_low < 0:
        candidates.append(low / code_low)
    return max(candidates)


def max_scale(values: NDArray[np.float32], low: float, high: float, hw: Hardware, signed: bool) -> float:
    """Clip nothing: the extremes seen are the extremes of the codes."""
    return _covering(low, high, hw, signed)


def _percentile(percent: float) -> Calibrator:
    def scale(values: NDArray[np.float32], low: float, high: float, hw: Hardware, signed: bool) -> float:
        tail = (100.0 - percent) / (2 if signed else 1)
        bottom = float(np.percentile(values, tail)) if signed else 0.0
        return _covering(bottom, float(np.percentile(values, 100.0 - tail)), hw, signed)

    return scale


def mse_scale(values: NDArray[np.float32], low: float, high: float, hw: Hardware, signed: bool) -> float:
    """Search the clipping range with the smallest squared error of the quantised values themselves."""
    largest = _covering(low, high, hw, signed)
    if largest == 0.0:
        return 0.0
    sample = values[spread(values.size, _SEARCH_VALUES)].astype(np.float64)
    code_low, code_high = hw.input_range(signed)
    scales = largest * np.geomspace(0.05, 1.0, _SEARCH_STEPS)[::-1]
    errors = []
    for scale in scales:
        codes = np.clip(np.rint(sample / scale), code_low, code_high)
        errors.append(float(np.square(codes * scale - sample).sum()))
    return float(scales[int(np.argmin(errors))])  # on a tie the first: the one that clips least


Calibrator = Callable[[NDArray[np.float32], float, float, Hardware, bool], float]

CALIBRATORS: dict[str, Calibrator] = {
    "max": max_scale,
    "percentile_99.99": _percentile(99.99),
    "percentile_99.9": _percentile(99.9),
    "mse": mse_scale,
}
"""By name: sampled values, lowest and highest value of all, hardware, signed -> scale (0 where all is zero)."""


def check_calibrator(name: str) -> None:
    """Refuse an unknown calibrator.

    Raises
    ------
    ConfigError
    """
    if name != "auto" and name not in CALIBRATORS:
        raise ConfigError(f"calibrator: must be auto, {', '.join(CALIBRATORS)}, not {name!r}")


def _rounded_up(scale: float) -> float:
    """Round a scale up to 12 significant bits.

    The float network's last bits depend on the machine and its threads; a scale that drops them seldom does.
    """
    if scale <= 0 or not np.isfinite(scale):
        return 1.0
    mantissa, exponent = np.frexp(scale)
    rounded = float(np.ldexp(np.ceil(np.ldexp(mantissa, _SCALE_BITS)), int(exponent) - _SCALE_BITS))
    return rounded if rounded > 0 and np.isfinite(rounded) else 1.0


def calibrate(
    sample: Sample,
    weight: NDArray[np.float64],
    codes: NDArray[np.int32],
    weight_scale: NDArray[np.float64],
    hw: Hardware,
    signed: bool,
    calibrator: str = "auto",
) -> Calibration:
    """Choose the activation scale of one call of a layer.

    Parameters
    ----------
    sample : Sample
    weight : ndarray [shape=(G, K, N), float64]
        Weights before quantisation.
    codes : ndarray [shape=(G, K, N), int32]
    weight_scale : ndarray [shape=(G, N), float64]
    hw : Hardware
    signed : bool
        Whether the crossbars take two's complement codes.
    calibrator : str
        A name of :data:`CALIBRATORS`, or ``auto``.
    """
    check_calibrator(calibrator)
    if not sample.values:
        raise DataError(f"layer {sample.name}: received no activations during calibration")
    values = np.concatenate(sample.values)
    scales: dict[str, float] = {}
    fallback = _rounded_up(max_scale(values, sample.minimum, sample.maximum, hw, signed))
    for name, proposal in CALIBRATORS.items():
        scale = proposal(values, sample.minimum, sample.maximum, hw, signed)
        scales[name] = _rounded_up(scale) if scale > 0 else fallback  # a percentile of mostly zeros says nothing
    errors = dict(zip(scales, _output_errors(sample, weight, codes, weight_scale, hw, signed, scales), strict=True))
    # six digits: the order of a floating-point sum must not decide
    chosen = min(errors, key=lambda name: float(f"{errors[name]:.5e}")) if calibrator == "auto" else calibrator
    low, high = hw.input_range(signed)
    scale = scales[chosen]
    clipped = np.mean((values < (low - 0.5) * scale) | (values > (high + 0.5) * scale))
    return Calibration(
        layer=sample.name,
        calibrator=chosen,
        scale=scale,
        signed=signed,
        errors=errors,
        scales=scales,
        clipped=float(clipped),
    )


def _output_errors(
    sample: Sample,
    weight: NDArray[np.float64],
    codes: NDArray[np.int32],
    weight_scale: NDArray[np.float64],
    hw: Hardware,
    signed: bool,
    scales: dict[str, float],
) -> Iterator[float]:
    x = np.concatenate(sample.vectors)
    # of a very large layer some outputs are enough
    chosen = spread(weight.shape[2], max(8, _MAX_WEIGHTS // (weight.shape[0] * weight.shape[1])))
    weight, codes, weight_scale = weight[:, :, chosen], codes[:, :, chosen], weight_scale[:, chosen]
    low, high = hw.input_range(signed)
    wanted = _grouped(x.astype(np.float64), weight)
    power = float(np.square(wanted).sum())
    dequantised = codes * weight_scale[:, None, :]
    measured: dict[float, float] = {}
    for scale in scales.values():
        if scale not in measured:
            inputs = quantise(x, scale, low, high, code_dtype(hw, signed)).astype(np.float64) * scale
            error = float(np.square(_grouped(inputs, dequantised) - wanted).sum())
            measured[scale] = error / power if power > 0 else error
        yield measured[scale]


def _grouped(x: NDArray[np.float64], w: NDArray[np.float64]) -> NDArray[Any]:
    """Product of every group: x (M, G * K), w (G, K, N) -> (G, M, N)."""
    groups, rows, _ = w.shape
    return np.asarray(np.matmul(x.reshape(-1, groups, rows).transpose(1, 0, 2), w))


def as_numpy(x: torch.Tensor) -> NDArray[np.float32]:
    """A tensor's values as float32."""
    return np.ascontiguousarray(x.detach().to(dtype=torch.float32).numpy())
