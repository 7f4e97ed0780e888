"""NeuroSim 1.5 on our layer and ResNet-20: ``python -m benchmarks.peers.neurosim CHECKOUT {check,quick,full}``.

What makes it comparable: 128 rows read in parallel, 8-bit weights in 2-bit cells, 8-bit inputs through a 1-bit DAC,
ideal devices (levels in equal steps, off state 0, no variation, drift or noise). Its weights are offset (shifted to be
unsigned, with a dummy column), so that 128 cells of level 3 can meet and its ADC needs 9 bits not to clip.

Its code asks for a CUDA device and a CUDA extension; at run time the device is replaced by the processor while the
layers are built, and the extension, which only CUDA tensors use, by an empty module. What is timed is theirs.
"""

from __future__ import annotations

import copy
import json
import sys
from argparse import Namespace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from benchmarks.peers.workload import input_maxima, layers, measure_layer, measure_network, resnet20


class _OnProcessor(TorchFunctionMode):
    """Tensors that are made on ``cuda`` are made here instead."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if kwargs.get("device") == "cuda":
            kwargs["device"] = "cpu"
        return func(*args, **kwargs)


def design() -> Namespace:
    """NeuroSim's arguments (inference.py), ideal."""
    return Namespace(
        hardware=True,
        hook=False,
        write_network=False,
        quant_mode="adc",
        sub_array=[128, 128],
        parallel_read=128,
        weight_precision=8,
        input_precision=8,
        dac_precision=1,
        adc_precision=9,
        bitcell=2,
        mem_type="resistive",
        mem_states_file="",
        off_state=0.0,
        on_state=3.0,
        vdd=1.0,
        read_noise=0.0,
        output_noise=0.0,
        rate_stuck_0=0.0,
        rate_stuck_1=0.0,
        t=0.0,
        v=0.0,
    )


def prepare() -> Any:
    """Import NeuroSim's layers, with unsigned 8-bit inputs and a scale an output, and its ADC without calibration."""
    sys.modules["pytorch_quantization.cuda_ext"] = ModuleType("pytorch_quantization.cuda_ext")
    from pytorch_quantization import cim
    from pytorch_quantization.tensor_quant import QuantDescriptor

    for kind in (cim.CIMLinear, cim.CIMConv2d):
        kind.set_default_cim_args(design())
        kind.set_default_quant_desc_input(QuantDescriptor(num_bits=8, unsigned=True))
        kind.set_default_quant_desc_weight(QuantDescriptor(num_bits=8, axis=0))
        kind.set_default_quant_desc_adc(QuantDescriptor(num_bits=9, unsigned=True))
    return cim


def measure(cim: Any, quick: bool) -> dict[str, Any]:
    """Both layers and the network."""
    results: dict[str, Any] = {}
    for name, (x, w) in layers(quick).items():
        with _OnProcessor():
            array = cim.CIMLinear(*w.shape, bias=False)
        array.adc_quantizer.disable()
        inputs, weights = torch.from_numpy(x).int(), torch.from_numpy(w).int()
        results[f"layer {name}"] = measure_layer(
            lambda a=array, i=inputs, j=weights: a.simulate_array(i, j), x, w, quick
        )
    module, images = resnet20(quick)
    crossbars = cim_network(cim, module, images)
    results["ResNet-20"] = measure_network(lambda: crossbars(images), module, images, quick)
    return results


def cim_network(cim: Any, module: nn.Module, images: torch.Tensor) -> nn.Module:
    """The network with NeuroSim's convolutions and linear layers in place; batch norm stays, as it does there."""
    maxima = input_maxima(module, images)
    network = copy.deepcopy(module)
    for name, part in list(network.named_modules()):
        if name not in maxima:
            continue
        with _OnProcessor():
            if isinstance(part, nn.Conv2d):
                new = cim.CIMConv2d(
                    part.in_channels,
                    part.out_channels,
                    part.kernel_size,
                    part.stride,
                    part.padding,
                    bias=part.bias is not None,
                )
            else:
                assert isinstance(part, nn.Linear)
                new = cim.CIMLinear(part.in_features, part.out_features, bias=part.bias is not None)
        new.load_state_dict(part.state_dict(), strict=False)
        weight = part.weight.detach()
        new.input_quantizer.amax = maxima[name]
        new.weight_quantizer.amax = weight.abs().amax(dim=tuple(range(1, weight.dim())), keepdim=True).tolist()
        new.adc_quantizer.disable()
        parent, _, last = name.rpartition(".")
        setattr(network.get_submodule(parent), last, new)
    return network.eval()


def main(path: str, size: str) -> None:
    """One JSON document on the last line of standard output."""
    sys.path.insert(0, str(Path(path) / "pytorch-quantization"))
    cim = prepare()
    with torch.no_grad():
        print(json.dumps({} if size == "check" else measure(cim, size == "quick")))


if __name__ == "__main__":
    main(*sys.argv[1:])
