"""CrossSim 3.2 on our layer and our ResNet-20: ``python -m benchmarks.peers.crosssim CHECKOUT {check,quick,full}``.

What makes it comparable: bit-sliced core, balanced (a positive and a negative array), 4 slices of 2 bits, 128 rows,
unsigned 8-bit inputs applied bit by bit, an ADC reading every cycle, ideal devices (infinite on/off ratio, no noise, no
wires). The ADC's range is calibrated so that its step is one cell level and nothing saturates: 9 bits hold 128 cells of
level 3. Two read-outs, each as shipped and with the slicing of inputs patched:

- digital subtraction: both arrays are read, as many conversions as Bitline's differential design;
- analog subtraction (CrossSim's default): the difference is read once, half the conversions.

CrossSim cuts 1152 rows to nine arrays of 128; rows that 128 does not divide it cuts evenly.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.peers.workload import input_maxima, layers, measure_layer, measure_network, resnet20

ADC_BITS = 9
SLICES = 4
READOUTS = ("digital subtraction", "analog subtraction")


def parameters(readout: str, input_max: float, weight_max: float | None = None) -> Any:
    """CrossSim's parameters of one matrix; without ``weight_max`` the largest weight is the full scale."""
    from simulator import CrossSimParameters

    digital = readout == "digital subtraction"
    params = CrossSimParameters()
    core, xbar = params.core, params.xbar
    core.style = "BITSLICED"
    core.bit_sliced.style = "BALANCED"
    core.bit_sliced.num_slices = SLICES
    core.balanced.subtract_current_in_xbar = not digital
    core.weight_bits = 8
    core.rows_max = 128
    if weight_max is None:
        core.mapping.weights.percentile = 1.0
    else:
        core.mapping.weights.min, core.mapping.weights.max = -weight_max, weight_max
    core.mapping.inputs.mvm.min, core.mapping.inputs.mvm.max = 0.0, input_max
    xbar.device.cell_bits = 2
    xbar.device.infinite_on_off_ratio = True
    xbar.dac.mvm.model = "QuantizerDAC"
    xbar.dac.mvm.bits = 8
    xbar.dac.mvm.signed = False
    xbar.dac.mvm.input_bitslicing = True
    xbar.dac.mvm.slice_size = 1
    adc = xbar.adc.mvm
    adc.model = "QuantizerADC" if digital else "SignMagnitudeADC"
    adc.signed = not digital
    adc.bits = ADC_BITS if digital else ADC_BITS + 1
    adc.adc_per_ibit = True
    adc.adc_range_option = "CALIBRATED"
    top = (2**ADC_BITS - 1) / 3  # the unit is a cell of level 3
    adc.calibrated_range = np.array([[0.0 if digital else -top, top]] * SLICES)
    params.validate()
    return params


@contextmanager
def patched_slicing() -> Iterator[None]:
    """Slice inputs by shifts of integers; CrossSim's float remainders take half of its time."""
    from simulator.circuits.dac.quantizer_dac import QuantizerDAC

    def slices(self: Any, vector: Any, slice_size: int | None = None) -> list[Any]:
        codes = np.rint(vector * (2**self.bits - 1)).astype(np.uint16)
        return [((codes >> bit) & 1).astype(vector.dtype) for bit in range(self.bits)]

    shipped = QuantizerDAC.convert_sliced
    QuantizerDAC.convert_sliced = slices
    try:
        yield
    finally:
        QuantizerDAC.convert_sliced = shipped


def measure(quick: bool) -> dict[str, Any]:
    """Both layers and the network by both read-outs, as shipped and patched."""
    from simulator import AnalogCore

    results: dict[str, Any] = {}
    for name, (x, w) in layers(quick).items():
        inputs = x.T.astype(np.float32)
        for readout in READOUTS:
            core = AnalogCore(w.T.astype(np.float32), parameters(readout, 255.0, 127.0))
            work: Callable[[], Any] = lambda core=core, inputs=inputs: core.matmat(inputs).T  # noqa: E731
            results[f"layer {name}, {readout}, as shipped"] = measure_layer(work, x, w, quick)
            with patched_slicing():
                results[f"layer {name}, {readout}, patched"] = measure_layer(work, x, w, quick)
    module, images = resnet20(quick)
    for readout in READOUTS:
        analog = partial(analog_network(module, images, readout), images)
        results[f"ResNet-20, {readout}, as shipped"] = measure_network(analog, module, images, quick)
        with patched_slicing():
            results[f"ResNet-20, {readout}, patched"] = measure_network(analog, module, images, quick)
    return results


def analog_network(module: torch.nn.Module, images: torch.Tensor, readout: str) -> torch.nn.Module:
    """The network converted as CrossSim's own CIFAR example does it: batch norm folded, digital bias, input ranges."""
    from simulator.algorithms.dnn.torch.convert import convertible_modules, from_torch

    maxima = list(input_maxima(module, images).values())
    assert len(maxima) == len(convertible_modules(module)), "a layer was not run"
    params = [parameters(readout, largest) for largest in maxima]
    analog: torch.nn.Module = from_torch(module, params, fuse_batchnorm=True, bias_rows=0)
    return analog.eval()


def main(path: str, size: str) -> None:
    """One JSON document on the last line of standard output."""
    sys.path.insert(0, path)
    import simulator
    import simulator.algorithms.dnn.torch.convert

    assert simulator.AnalogCore
    print(json.dumps({} if size == "check" else measure(size == "quick")))


if __name__ == "__main__":
    main(*sys.argv[1:])
