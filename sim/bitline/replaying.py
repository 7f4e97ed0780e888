"""Recorded activation traces: write a run's, and run them again without network or data."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from bitline.compaction import mapped_layer
from bitline.crossbar.certificate import certify_layers
from bitline.crossbar.engines import Crossbars, check_engine, exact_product
from bitline.data.traces import ActivationTrace, load_trace, save_trace
from bitline.errors import DataError, OutputError
from bitline.hardware import Hardware
from bitline.layers import LayerKind, MatrixLayer
from bitline.network.conversion import CrossbarNetwork
from bitline.paths import expanded
from bitline.preparation import chosen_hardware
from bitline.report.schema import validate_report
from bitline.report.writer import OutputFolder
from bitline.reporting import certificate_summary, layer_record, provenance, timing, write_result
from bitline.signals import held, temporary_folder

__all__ = ["replay", "save_traces"]


def replay(
    path: str | Path,
    hw: str | Path | Hardware = "tinyadc",
    *,
    adc_bits: int | str | None = None,
    engine: str = "bitserial",
    out: str | Path | None = None,
    command: str = "bitline.replay(...)",
) -> dict[str, Any]:
    """Run recorded activation traces through simulated crossbars: one file, or every ``.npz`` file of a folder.

    Returns
    -------
    dict
        A report whose layers are the traces; ``accuracy.identical_to_integer`` compares every product with ``x @ w``.

    Raises
    ------
    DataError
        No trace there, or bit widths that the hardware does not have.
    """
    hardware = chosen_hardware(hw, adc_bits)
    check_engine(engine)
    started = time.perf_counter()
    place = expanded(path)
    files = sorted(place.glob("*.npz")) if place.is_dir() else [place]
    if not files:
        raise DataError(f"traces {path}: no .npz file in this folder")
    traces = [load_trace(file) for file in files]
    for file, trace in zip(files, traces, strict=True):
        if (trace.input_bits, trace.weight_bits) != (hardware.input_bits, hardware.weight_bits):
            raise DataError(
                f"trace {file.name}: recorded at {trace.input_bits}-bit inputs and {trace.weight_bits}-bit weights, "
                f"hardware {hardware.name} has {hardware.input_bits} and {hardware.weight_bits}"
            )
    layers = [_trace_layer(trace) for trace in traces]
    certificate = certify_layers(layers, hardware)
    records, differing, vectors = [], 0, 0
    for layer, trace, proof in zip(layers, traces, certificate.layers, strict=True):
        crossbars = Crossbars(trace.w, hardware, signed_inputs=trace.signed_inputs, adc=proof.adc)
        product = crossbars.multiply(trace.x, engine=engine)
        differing += int((product.y != exact_product(trace.x, trace.w)).any(axis=1).sum())
        vectors += len(trace.x)
        records.append(
            layer_record(
                layer,
                proof,
                hardware,
                mapped_layer(layer, proof, hardware)[0],
                product.conversions,
                product.saturations,
                product.max_column_sum,
            )
        )
    seconds = time.perf_counter() - started
    report = validate_report(
        {
            "command": command,
            "provenance": provenance(None, hardware, engine),
            "network": {"architecture": "recorded traces", "checkpoint": traces[0].source or None},
            "hardware": hardware.model_dump(mode="json", exclude={"chip"}),
            "layers": records,
            "certificate": certificate_summary(certificate),
            "accuracy": {
                "images": vectors,
                **{f"{which}_top{k}": None for which in ("float", "integer", "simulated") for k in (1, 5)},
                "identical_to_integer": differing == 0,
                "differing_images": differing,
            },
            "timing": timing(seconds, None, sum(r["conversions"] for r in records), seconds),
            "notes": [f"{vectors} recorded input vectors of {len(traces)} layers; identity is counted in vectors"],
        }
    )
    if out is not None:
        report = write_result(OutputFolder(out), report, certificate.to_json(), None)
    return report


def _trace_layer(trace: ActivationTrace) -> MatrixLayer:
    columns = trace.w.shape[1]
    return MatrixLayer(
        name=trace.layer,
        kind=LayerKind.LINEAR,
        codes=trace.w[None],
        weight_scale=np.ones((1, columns)),
        bias=None,
        signed_inputs=trace.signed_inputs,
    )


def save_traces(network: CrossbarNetwork, folder: Path, source: str) -> None:
    """Write each layer's recorded codes, one file a group."""
    scales = {record.layer: record.scale for record in network.calibration}
    folder = expanded(folder)
    try:
        with temporary_folder(folder, prefix=".bitline-") as staging:
            _save_all(network, scales, staging, source)
            with held():  # all written: now they appear
                for file in sorted(staging.iterdir()):
                    file.replace(folder / file.name)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"trace folder {folder}: cannot be written ({error.strerror})") from None


def _save_all(network: CrossbarNetwork, scales: dict[str, float], folder: Path, source: str) -> None:
    for recorded in network.traces:
        groups, rows, _ = recorded.codes.shape
        for g in range(groups):
            name = recorded.name if groups == 1 else f"{recorded.name}.group{g}"
            trace = ActivationTrace(
                layer=name,
                x=recorded.x[:, g * rows : (g + 1) * rows].astype(np.int32),
                w=recorded.codes[g],
                input_bits=network.hw.input_bits,
                weight_bits=network.hw.weight_bits,
                signed_inputs=recorded.signed_inputs,
                input_scale=scales.get(recorded.name, 1.0),
                source=source,
            )
            with held():
                save_trace(folder / f"{name}.npz", trace)
