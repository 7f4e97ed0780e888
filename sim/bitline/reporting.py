"""From what a run counted to the report's plain data, and from that to the files of the output folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from numba import get_num_threads

from bitline._version import __version__
from bitline.chip.mapping import WeightFacts, map_layer
from bitline.chip.report import ChipReport
from bitline.chip.timeline import timeline
from bitline.crossbar.certificate import Certificate, NetworkCertificate
from bitline.hardware import Hardware
from bitline.layers import MatrixLayer
from bitline.network.conversion import CrossbarNetwork
from bitline.network.evaluation import Evaluation
from bitline.preparation import Prepared
from bitline.report.machine import machine_facts
from bitline.report.publish import write_report
from bitline.report.schema import after_first, dump_json, histogram_record
from bitline.report.writer import OutputFolder

__all__ = ["certificate_summary", "layer_record", "provenance", "report_of", "timing", "write_result"]


def report_of(
    prepared: Prepared,
    network: CrossbarNetwork,
    result: Evaluation,
    facts: Mapping[str, WeightFacts],
    calibrated_on: tuple[int, str],
    histogram_images: int,
    command: str,
) -> dict[str, Any]:
    certificate, hardware = network.certificate, network.hw
    assert certificate is not None
    records, histograms = [], []
    for layer, proof, counters in zip(network.layers, certificate.layers, network.counters, strict=True):
        done = counters.conversions, counters.saturations, counters.max_column_sum
        records.append(layer_record(layer, proof, hardware, facts[layer.name], *done))
        if counters.histogram is not None:
            for j in range(hardware.slices):
                bits = proof.adc.per_slice[j]
                full = (1 << bits) - 1 if hardware.readout == "digital" else (1 << (bits - 1)) - 1
                histograms.append(
                    histogram_record(
                        layer.name,
                        counters.histogram[j],
                        adc_bits=bits,
                        full_scale=full,
                        slice_index=j,
                        images=histogram_images,
                    )
                )
            if proof.adc.unit is not None:
                histograms.append(
                    histogram_record(
                        f"{layer.name} (unit column)",
                        counters.histogram[-1],
                        adc_bits=proof.adc.unit,
                        images=histogram_images,
                    )
                )
    rates = [proof.cp_rate for proof in after_first(certificate.layers) if proof.cp_rate is not None]
    dataset, conversions = prepared.dataset, sum(record["conversions"] for record in records)
    return {
        "command": command,
        "provenance": provenance(prepared.checkpoint.sha256, hardware, network.engine.value),
        "network": {
            "architecture": prepared.network.architecture,
            "checkpoint": prepared.checkpoint_name,
            "parameters": sum(p.numel() for p in prepared.network.module.parameters()),
            "input_shape": list(dataset.image_shape),
            "classes": prepared.network.classes,
            "cp_rate": min(rates, default=None),
        },
        "hardware": hardware.model_dump(mode="json", exclude={"chip"}),
        "data": {
            "spec": dataset.spec,
            "name": dataset.name,
            "images": result.images,
            "available": len(dataset.test),
            "labelled": result.labelled,
            "normalisation": {
                "name": dataset.normalisation.name,
                "mean": list(dataset.normalisation.mean),
                "std": list(dataset.normalisation.std),
                "scale": dataset.normalisation.scale,
            },
            "calibration_source": calibrated_on[1],
            "calibration_images": calibrated_on[0],
        },
        "layers": records,
        "certificate": certificate_summary(certificate),
        "accuracy": {
            "images": result.images,
            **{
                f"{which}_top{k}": result.accuracy(which, k)
                for k in (1, 5)
                for which in ("float", "integer", "simulated")
            },
            "identical_to_integer": result.differing_images == 0,
            "differing_images": result.differing_images,
        },
        "coverage": network.coverage.to_json(),
        "kept_in_torch": [
            {"name": kept.name, "kind": kept.kind, "reason": kept.reason, "macs": kept.macs} for kept in network.kept
        ],
        "calibration": [
            {
                "name": record.layer,
                "calibrator": record.calibrator,
                "error": record.errors.get(record.calibrator),
                "measure": "squared error of the layer's output over the float output's squares",
                "scale": record.scale,
                "candidates": dict(record.errors),
            }
            for record in network.calibration
        ],
        "histograms": histograms,
        "timing": timing(sum(result.seconds.values()), result, conversions, result.seconds["simulated"]),
        "notes": [f"normalisation {dataset.normalisation.name}: {prepared.normalisation_source}", *prepared.notes],
    }


def provenance(checkpoint_sha256: str | None, hardware: Hardware, engine: str) -> dict[str, Any]:
    return {
        "version": __version__,
        "checkpoint_sha256": checkpoint_sha256,
        "hardware_sha256": hardware.sha256(),
        "seed": None,
        "engine": engine,
    }


def certificate_summary(certificate: NetworkCertificate) -> dict[str, Any]:
    return {
        "lossless": certificate.lossless,
        "adc_bits": {
            "equation": certificate.equation,
            "paper": certificate.paper,
            "weight_aware": certificate.bits,
        },
    }


def layer_record(
    layer: MatrixLayer,
    proof: Certificate,
    hardware: Hardware,
    facts: WeightFacts,
    conversions: int,
    saturations: int,
    largest: int | None,
) -> dict[str, Any]:
    mapping = map_layer(layer, hardware, facts)
    return {
        "name": layer.name,
        "kind": layer.kind.value,
        "rows": layer.rows,
        "columns": layer.columns,
        "groups": layer.groups,
        "row_tiles": -(-layer.rows // hardware.rows),
        "crossbars": mapping.crossbars,
        "crossbars_left_out": mapping.dropped_crossbars,
        "weights": int(layer.codes.size),
        "nonzeros": proof.nonzeros,
        "nonzeros_max": proof.nonzeros_max,
        "cp_rate": proof.cp_rate,
        "signed_inputs": layer.signed_inputs,
        "adc_bits": {
            "configured": proof.adc.bits,
            "equation": proof.counts.equation,
            "paper": proof.counts.paper,
            "weight_aware": proof.counts.weight_aware,
            "weight_aware_per_slice": list(proof.counts.weight_aware_per_slice),
            "configured_per_slice": list(proof.adc.per_slice),
        },
        "lossless": proof.lossless,
        "column_sum_bound": proof.max_column_sum,
        "max_column_sum": largest,
        "conversions": conversions,
        "saturations": saturations,
        "macs": layer.macs,
    }


def timing(seconds: float, result: Evaluation | None, conversions: int, simulated: float) -> dict[str, Any]:
    return {
        "seconds": seconds,
        "images_per_s": result.images / simulated if result is not None and simulated else None,
        "conversions_per_s": conversions / simulated if simulated else None,
        "threads": get_num_threads(),
        "phases": dict(result.seconds) if result is not None else {"simulated": simulated},
        "machine": machine_facts(),
    }


def write_result(
    folder: OutputFolder, report: dict[str, Any], certificate: dict[str, Any], priced: ChipReport | None
) -> dict[str, Any]:
    """Write every file of the result; the folder is complete or untouched."""
    with folder:
        folder.write("certificate.json", dump_json(certificate))
        if priced is not None:
            folder.write("timeline.json", json.dumps(timeline(priced)))
        return write_report(folder, report)
