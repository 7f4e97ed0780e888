"""Made-up reports of any size for the report's tests; the numbers are plausible, not results."""

from __future__ import annotations

from typing import Any

import numpy as np


def example_layer(index: int, name: str, configured: int = 5, needed: int = 4) -> dict[str, Any]:
    rows, columns = 144 * (1 + index % 4), 16 * (1 + index % 4)
    return {
        "name": name,
        "kind": "conv2d",
        "rows": rows,
        "columns": columns,
        "groups": 1,
        "row_tiles": -(-rows // 128),
        "crossbars": 4 * -(-rows // 128),
        "crossbars_left_out": index,
        "nonzeros_max": 8,
        "weights": rows * columns,
        "nonzeros": rows * columns // 16,
        "adc_bits": {
            "configured": configured,
            "equation": 5,
            "paper": 4,
            "weight_aware": needed,
            "weight_aware_per_slice": [needed, needed, needed - 1, needed - 2],
        },
        "lossless": needed <= configured,
        "max_column_sum": 11,
        "conversions": 1_000_000 * (index + 1),
        "saturations": 0 if needed <= configured else 12,
        "macs": rows * columns * 1024,
    }


def layer_names(count: int, long: bool = False) -> list[str]:
    prefix = "backbone.encoder.features.stage" if long else "layer"
    return [f"{prefix}{1 + i // 20}.{i % 20 // 2}.conv{1 + i % 2}" for i in range(count)]


def example_report(count: int = 3, long: bool = False, seed: int = 1, chip: bool = True) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    names = layer_names(count, long)
    layers = [example_layer(i, name, needed=int(rng.integers(3, 6))) for i, name in enumerate(names)]
    histograms = []
    for i, name in enumerate(names):
        sums = rng.binomial(24, 0.05 + 0.2 * rng.random(), size=20_000)
        histograms.append(
            {
                "layer": name,
                "slice": None,
                "adc_bits": layers[i]["adc_bits"]["configured"],
                "full_scale": 2 ** layers[i]["adc_bits"]["configured"] - 1,
                "counts": np.bincount(sums).tolist(),
                "overflow": 0,
            }
        )
    report: dict[str, Any] = {
        "schema_version": 1,
        "command": "bitline simulate resnet20_cp16.safetensors --hw tinyadc --data digits",
        "provenance": {
            "version": "0.1.0",
            "checkpoint_sha256": "ab" * 32,
            "hardware_sha256": "cd" * 32,
            "seed": 0,
            "engine": "bitserial",
        },
        "network": {
            "architecture": "resnet20",
            "checkpoint": "resnet20_cp16.safetensors",
            "parameters": 272_474,
            "input_shape": [3, 32, 32],
            "classes": 10,
            "cp_rate": 16.0,
        },
        "hardware": {
            "name": "tinyadc",
            "rows": 128,
            "columns": 128,
            "cell_bits": 2,
            "dac_bits": 1,
            "input_bits": 8,
            "weight_bits": 8,
            "encoding": "differential",
            "readout": "digital",
            "adc_bits": "weight_aware",
            "adc_scope": "layer",
        },
        "data": {
            "spec": "digits",
            "name": "scikit-learn digits",
            "images": 360,
            "available": 360,
            "normalisation": {"name": "digits", "mean": [0.3053], "std": [0.3758], "scale": "unit"},
            "calibration_source": "training split",
            "calibration_images": 128,
        },
        "layers": layers,
        "certificate": {
            "lossless": all(layer["lossless"] for layer in layers),
            "adc_bits": {
                "equation": 5,
                "paper": 4,
                "weight_aware": max(layer["adc_bits"]["weight_aware"] for layer in layers),
            },
        },
        "accuracy": {
            "images": 360,
            "float_top1": 354 / 360,
            "integer_top1": 353 / 360,
            "simulated_top1": 353 / 360,
            "float_top5": 1.0,
            "integer_top5": 1.0,
            "simulated_top5": 1.0,
            "identical_to_integer": True,
            "differing_images": 0,
        },
        "performance": None,
        "breakdown": None,
        "normalised": None,
        "kept_in_torch": [{"name": "relu", "kind": "ReLU", "reason": "element-wise"}],
        "calibration": [{"name": name, "calibrator": "mse", "error": 0.01} for name in names],
        "histograms": histograms,
        "timing": {
            "seconds": 12.5,
            "images_per_s": 28.8,
            "conversions_per_s": 1.23e9,
            "threads": 2,
            "machine": {"processor": "Example CPU", "cores": 2},
        },
        "notes": [],
    }
    if chip:
        report |= example_chip(names, rng)
    return report


def example_chip(names: list[str], rng: np.random.Generator) -> dict[str, Any]:
    occupancy = rng.uniform(0.05, 0.95, len(names))
    slowest = int(np.argmax(occupancy))
    return {
        "performance": {
            "cycles": 123_456,
            "images_per_s": 81_000.0,
            "latency_us": 312.5,
            "energy_uj_per_image": 45.6,
            "area_mm2": 3.21,
            "power_w": 1.87,
            "gops_per_s_mm2": 520.0,
            "gops_per_w": 728.3,
            "tiles": 12,
            "crossbars": 380,
            "replication": {names[0]: 4},
            "layers": [
                {
                    "name": name,
                    "occupancy": float(busy),
                    "stalls": {"window not filled": float(0.7 * (1 - busy)), "bus": float(0.2 * (1 - busy))},
                    "bottleneck": i == slowest,
                }
                for i, (name, busy) in enumerate(zip(names, occupancy, strict=True))
            ],
        },
        "breakdown": {
            "area_mm2": {
                "ADC": 0.52, "DAC": 0.09, "crossbars": 0.13, "sample and hold": 0.02, "shift and add": 0.05,
                "registers": 0.11, "eDRAM": 1.02, "bus": 1.10, "router": 0.15, "other digital": 0.02,
            },
            "power_w": {
                "ADC": 0.78, "DAC": 0.19, "crossbars": 0.12, "sample and hold": 0.001, "shift and add": 0.05,
                "registers": 0.07, "eDRAM": 0.25, "bus": 0.08, "router": 0.13, "other digital": 0.2,
            },
        },
        "normalised": {"area": 0.78, "power": 0.63},
        "adc_sweep": [
            {"adc_bits": bits, "gops_per_w": 1500.0 / (1 + 2 ** (bits - 7)), "law": law}
            for law in ("Kull split", "halves per bit")
            for bits in range(4, 10)
        ],
    }  # fmt: skip
