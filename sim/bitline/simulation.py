"""The main path, readable top to bottom: load -> convert -> certify -> run -> price -> report.

:func:`simulate` is the main job; :func:`certify_checkpoint` stops after the proof; :func:`replay` runs recorded
activation traces instead of a network.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numba import get_num_threads

from bitline._version import __version__
from bitline.chip import LayerActivity, estimate
from bitline.chip.report import ChipReport
from bitline.chip.timeline import timeline
from bitline.compaction import mapped_weights
from bitline.crossbar.certificate import NetworkCertificate, certify_layers
from bitline.crossbar.check import certified_hardware, check_certificate
from bitline.crossbar.engines import Crossbars, exact_product
from bitline.data import Dataset
from bitline.data.traces import ActivationTrace, load_trace, save_trace
from bitline.errors import ConfigError, DataError, OutputError, RangeError, VerificationError
from bitline.hardware import Hardware, load_hardware
from bitline.layers import LayerKind, MatrixLayer, Operation
from bitline.network.conversion import CrossbarNetwork, convert, matrix_layers
from bitline.network.dataflow import operations
from bitline.network.evaluation import Evaluation, batch_size_for, evaluate
from bitline.preparation import Prepared, calibration_split, load_network, prepare
from bitline.pruning.constraints import ColumnProportional, project_layers
from bitline.pruning.layers import prunable_layers
from bitline.report.machine import machine_facts
from bitline.report.progress import NullProgress, Progress
from bitline.report.publish import write_report
from bitline.report.schema import comparison_column, dump_json, histogram_record, validate_report
from bitline.report.writer import OutputFolder
from bitline.throughput import price_sections

__all__ = ["certify_checkpoint", "check_certificate_file", "cp_table", "replay", "simulate", "verify"]

DEFAULT_CHECKPOINT = "digits_resnet20_cp16"
BASELINE_CHECKPOINT = "digits_resnet20_dense"
BASELINE_HARDWARE = "isaac_8bit"
_TRACE_PREFIX = "trace:"


def simulate(
    checkpoint: str | Path | None = None,
    hw: str | Path | Hardware = "tinyadc",
    data: str | Dataset | None = None,
    *,
    adc_bits: int | str | None = None,
    arch: str | None = None,
    images: int | None = None,
    engine: str = "bitserial",
    normalisation: str | None = None,
    resize: int | None = None,
    crop: int | None = None,
    calibrator: str = "auto",
    calibration_images: int = 128,
    histogram_images: int = 32,
    trace_folder: str | Path | None = None,
    trace_vectors: int = 256,
    out: str | Path | None = None,
    command: str = "bitline.simulate(...)",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Run a checkpoint on simulated crossbars, image by image and bit for bit, and report.

    Parameters
    ----------
    checkpoint : str or Path, optional
        A checkpoint file or the name of a shipped one. Without it the shipped CP-pruned digits network runs beside its
        unpruned 8-bit baseline.
    hw : str, Path or Hardware
        A shipped name, a YAML file, or a description.
    data : str or Dataset, optional
        ``KIND:PATH``; scikit-learn's digits by default. ``trace:PATH`` replays recorded traces without a checkpoint.
    adc_bits : int or str, optional
        Resolution or policy that replaces the hardware's.
    arch : str, optional
        Architecture's name or ``package.module:factory``.
    images : int, optional
        Number of test images; all by default.
    engine : {"bitserial", "certified"}
    normalisation, resize, crop
        Preprocessing; by default what the checkpoint, its architecture or a comparison of presets says.
    calibrator : str
        How activation scales are chosen.
    calibration_images : int
        Images that set the activation scales, from the training split where there is one.
    histogram_images : int
        Images whose column sums are counted by value.
    trace_folder : str or Path, optional
        Folder that receives every layer's first ``trace_vectors`` integer input vectors, one file a group.
    out : str or Path, optional
        Folder that receives the report, tables, certificate and figures: all of them or nothing.
    command : str
        What the report says it was made with.
    progress : Progress, optional

    Returns
    -------
    dict
        ``report.json``'s content (:class:`bitline.report.schema.Report`).

    Raises
    ------
    BitlineError
        Any bad input; the message is one line.
    """
    started = time.perf_counter()
    progress = progress or NullProgress()
    hardware = _hardware(hw, adc_bits)
    _positive("images", images)
    _positive("calibration images", calibration_images)
    folder = None if out is None else OutputFolder(out)
    if folder is not None:
        folder.check()
    if isinstance(data, str) and data.startswith(_TRACE_PREFIX):
        if checkpoint is not None:
            raise ConfigError("data: a trace carries its own weights; leave the checkpoint out to replay it")
        return replay(data.removeprefix(_TRACE_PREFIX), hardware, engine=engine, out=out, command=command)

    # load
    prepared = prepare(
        checkpoint or DEFAULT_CHECKPOINT,
        data,
        arch=arch,
        normalisation=normalisation,
        resize=resize,
        crop=crop,
    )
    available = len(prepared.dataset.test)
    count = available if images is None else images
    if count > available:
        raise RangeError(f"images: {count} asked for, {prepared.dataset.name} has {available} test images")

    # convert, with activation scales from real inputs, and certify
    network, source = _convert(prepared, hardware, engine, calibrator, calibration_images, progress)
    assert network.certificate is not None

    # run
    graph = operations(prepared.network.module, prepared.dataset.image_shape)
    progress.start(count, "images on crossbars")
    try:
        result = evaluate(
            network,
            prepared.dataset.test,
            images=count,
            batch_size=batch_size_for(graph),
            engine=engine,
            label_offset=prepared.label_offset,
            histogram_images=min(histogram_images, count) if engine == "bitserial" else 0,
            trace_vectors=trace_vectors if trace_folder is not None else 0,
            advance=progress.advance,
        )
    finally:
        progress.finish()

    # price and report
    report = _report(prepared, network, result, source, min(histogram_images, count), command)
    priced = _price(graph, network, result.images)
    if priced is not None:
        report |= price_sections(priced)
    report["timing"]["seconds"] = time.perf_counter() - started
    report["timing"]["phases"]["prepare"] = max(0.0, report["timing"]["seconds"] - sum(result.seconds.values()))
    if checkpoint is None and data is None:
        report["comparison"] = _against_baseline(report, count, engine, progress)
    report = validate_report(report)
    if trace_folder is not None:
        _save_traces(network, Path(trace_folder), f"{prepared.checkpoint_name} on {prepared.dataset.spec}")
    if folder is not None:
        report = _write(folder, report, network.certificate.to_json(prepared.checkpoint.sha256), priced)
    return report


def verify(report: Mapping[str, Any]) -> None:
    """Check what a report claims about exactness.

    Raises
    ------
    VerificationError
        A run without saturations, or on a certificate that says lossless, whose outputs differ from the exact integer
        network's; or saturations in a layer proven lossless.
    """
    accuracy = report["accuracy"]
    saturations = sum(layer["saturations"] or 0 for layer in report["layers"])
    for layer in report["layers"]:
        if layer["lossless"] and layer["saturations"]:
            raise VerificationError(
                f"layer {layer['name']}: proven lossless, but {layer['saturations']} conversions saturated"
            )
    if accuracy is not None and accuracy["identical_to_integer"] is False and saturations == 0:
        raise VerificationError(
            "no conversion saturated, but the simulated network differs from the exact integer network on "
            f"{accuracy['differing_images']} of {accuracy['images']} images"
        )


# --- proof only ----------------------------------------------------------------------------------------------------


def certify_checkpoint(
    checkpoint: str | Path,
    hw: str | Path | Hardware = "tinyadc",
    *,
    adc_bits: int | str | None = None,
    arch: str | None = None,
    cp_rate: int | None = None,
) -> tuple[NetworkCertificate, str]:
    """Certify a checkpoint's ADC bits from its weights alone: no data, no simulation.

    Parameters
    ----------
    cp_rate : int, optional
        First project every layer but the first onto this column-proportional rate (one shot, no retraining): what the
        checkpoint's bits would be.

    Returns
    -------
    NetworkCertificate, str
        The certificate and the checkpoint's sha256.
    """
    hardware = _hardware(hw, adc_bits)
    loaded, _, network = load_network(checkpoint, arch)
    if cp_rate is not None:
        constraint = ColumnProportional(rate=cp_rate, rows=hardware.rows)
        project_layers(prunable_layers(network.module), constraint)
    return certify_layers(matrix_layers(network.module, hardware).layers, hardware), loaded.sha256


def check_certificate_file(
    certificate: str | Path, checkpoint: str | Path, *, arch: str | None = None
) -> tuple[int, list[str]]:
    """Re-check a certificate file against a checkpoint with code of its own (:mod:`bitline.crossbar.check`).

    Returns
    -------
    int, list of str
        Layers checked, and one line for each claim that does not hold.

    Raises
    ------
    DataError, ConfigError, CheckpointError
        The file is missing or no certificate; or the checkpoint cannot be loaded.
    """
    path = Path(certificate)
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"certificate {certificate}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise DataError(f"certificate {certificate}: not a JSON document, expected a bitline certificate") from None
    hardware = certified_hardware(document)
    loaded, _, network = load_network(checkpoint, arch)
    layers = matrix_layers(network.module, hardware).layers
    complaints = check_certificate(document, layers)
    claimed = document.get("checkpoint_sha256")
    if claimed is not None and claimed != loaded.sha256:
        complaints.insert(0, f"checkpoint_sha256: the certificate is of {claimed}, the checkpoint is {loaded.sha256}")
    return len(layers), complaints


def cp_table(
    checkpoint: str | Path,
    hw: str | Path | Hardware = "tinyadc",
    *,
    rates: Sequence[int],
    arch: str | None = None,
) -> list[dict[str, Any]]:
    """Certify a checkpoint after one-shot CP projection at several rates.

    Returns
    -------
    list of dict
        One row a rate: largest ``equation``, ``paper``, ``weight_aware`` and ``weight_aware_per_slice`` of the pruned
        layers, the names of those where the paper's count is not lossless, and the exempt first layer's proven bits.
    """
    rows = []
    for rate in rates:
        certificate, _ = certify_checkpoint(checkpoint, hw, arch=arch, cp_rate=rate)
        first, pruned = certificate.layers[0], certificate.layers[1:] or certificate.layers
        papers = [layer.counts.paper for layer in pruned if layer.counts.paper is not None]
        per_slice = [layer.counts.weight_aware_per_slice for layer in pruned]
        rows.append(
            {
                "cp_rate": rate,
                "nonzeros_max": max(layer.nonzeros_max for layer in pruned),
                "equation": max(layer.counts.equation for layer in pruned),
                "paper": max(papers, default=None),
                "weight_aware": max(layer.bits for layer in pruned),
                "weight_aware_per_slice": [max(bits) for bits in zip(*per_slice, strict=True)],
                "layers": len(pruned),
                "paper_not_lossless": [
                    layer.name
                    for layer in pruned
                    if layer.counts.paper is not None and layer.counts.paper < layer.counts.weight_aware
                ],
                "first_layer": {"name": first.name, "weight_aware": first.bits},
            }
        )
    return rows


# --- replay ----------------------------------------------------------------------------------------------------


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
    hardware = _hardware(hw, adc_bits)
    started = time.perf_counter()
    place = Path(path)
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
            _layer_record(layer, proof, hardware, product.conversions, product.saturations, product.max_column_sum)
        )
    seconds = time.perf_counter() - started
    report = validate_report(
        {
            "command": command,
            "provenance": _provenance(None, hardware, engine),
            "network": {"architecture": "recorded traces", "checkpoint": traces[0].source or None},
            "hardware": hardware.model_dump(mode="json", exclude={"chip"}),
            "layers": records,
            "certificate": _certificate_summary(certificate),
            "accuracy": {
                "images": vectors,
                **{f"{which}_top{k}": None for which in ("float", "integer", "simulated") for k in (1, 5)},
                "identical_to_integer": differing == 0,
                "differing_images": differing,
            },
            "timing": _timing(seconds, None, sum(r["conversions"] for r in records), seconds),
            "notes": [f"{vectors} recorded input vectors of {len(traces)} layers; identity is counted in vectors"],
        }
    )
    if out is not None:
        report = _write(OutputFolder(out), report, certificate.to_json(), None)
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


# --- the steps of the main path ---------------------------------------------------------------------------------


def _hardware(hw: str | Path | Hardware, adc_bits: int | str | None) -> Hardware:
    overrides = {} if adc_bits is None else {"adc_bits": adc_bits}
    return hw.replace(**overrides) if isinstance(hw, Hardware) else load_hardware(hw, **overrides)


def _positive(name: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise RangeError(f"{name}: must be at least 1, got {value}")


def _convert(
    prepared: Prepared, hardware: Hardware, engine: str, calibrator: str, images: int, progress: Progress
) -> tuple[CrossbarNetwork, str]:
    split, source = calibration_split(prepared.dataset, images)
    batch = 32
    batches = (split.images(start, min(len(split), start + batch)) for start in range(0, len(split), batch))
    steps = _Steps(progress, "calibration")
    try:
        network = convert(
            prepared.network.module, batches, hardware, engine=engine, calibrator=calibrator, progress=steps
        )
    finally:
        progress.finish()
    network(split.images(0, 1))  # kernels are compiled, or loaded from Numba's cache, before anything is timed
    return network, source


class _Steps:
    """Turns (done, total) calls into a Progress."""

    def __init__(self, progress: Progress, what: str) -> None:
        self.progress, self.what, self.done = progress, what, -1

    def __call__(self, done: int, total: int) -> None:
        if self.done < 0:
            self.progress.start(total, self.what)
            self.done = 0
        self.progress.advance(done - self.done)
        self.done = done


def _against_baseline(report: dict[str, Any], images: int, engine: str, progress: Progress) -> list[dict[str, Any]]:
    """Run the unpruned network on the 8-bit design and put both side by side."""
    baseline = simulate(
        BASELINE_CHECKPOINT, BASELINE_HARDWARE, "digits", images=images, engine=engine, progress=progress
    )
    names = [
        f"unpruned, {BASELINE_HARDWARE}",
        f"CP rate {report['network']['cp_rate']:g}, {report['hardware']['name']}",
    ]
    return [comparison_column(names[0], baseline), comparison_column(names[1], report)]


def _report(
    prepared: Prepared,
    network: CrossbarNetwork,
    result: Evaluation,
    calibration_source: str,
    histogram_images: int,
    command: str,
) -> dict[str, Any]:
    certificate, hardware = network.certificate, network.hw
    assert certificate is not None
    records, histograms = [], []
    for layer, proof, counters in zip(network.layers, certificate.layers, network.counters, strict=True):
        records.append(
            _layer_record(layer, proof, hardware, counters.conversions, counters.saturations, counters.max_column_sum)
        )
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
    rates = [proof.cp_rate for proof in certificate.layers[1:] or certificate.layers if proof.cp_rate is not None]
    dataset, conversions = prepared.dataset, sum(record["conversions"] for record in records)
    return {
        "command": command,
        "provenance": _provenance(prepared.checkpoint.sha256, hardware, network.engine.value),
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
            "calibration_source": calibration_source,
        },
        "layers": records,
        "certificate": _certificate_summary(certificate),
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
        "kept_in_torch": [{"name": kept.name, "kind": kept.kind, "reason": kept.reason} for kept in network.kept],
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
        "timing": _timing(sum(result.seconds.values()), result, conversions, result.seconds["simulated"]),
        "notes": [f"normalisation {dataset.normalisation.name}: {prepared.normalisation_source}", *prepared.notes],
    }


def _provenance(checkpoint_sha256: str | None, hardware: Hardware, engine: str) -> dict[str, Any]:
    return {
        "version": __version__,
        "checkpoint_sha256": checkpoint_sha256,
        "hardware_sha256": hardware.sha256(),
        "seed": None,
        "engine": engine,
    }


def _certificate_summary(certificate: NetworkCertificate) -> dict[str, Any]:
    return {
        "lossless": certificate.lossless,
        "adc_bits": {
            "equation": certificate.equation,
            "paper": certificate.paper,
            "weight_aware": certificate.bits,
        },
    }


def _layer_record(
    layer: MatrixLayer, proof: Any, hardware: Hardware, conversions: int, saturations: int, largest: int | None
) -> dict[str, Any]:
    columns = layer.columns * hardware.slices * hardware.signs
    return {
        "name": layer.name,
        "kind": layer.kind.value,
        "rows": layer.rows,
        "columns": layer.columns,
        "groups": layer.groups,
        "row_tiles": proof.row_tiles,
        "crossbars": layer.groups * proof.row_tiles * -(-columns // hardware.columns),
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


def _timing(seconds: float, result: Evaluation | None, conversions: int, simulated: float) -> dict[str, Any]:
    return {
        "seconds": seconds,
        "images_per_s": result.images / simulated if result is not None and simulated else None,
        "conversions_per_s": conversions / simulated if simulated else None,
        "threads": get_num_threads(),
        "phases": dict(result.seconds) if result is not None else {"simulated": simulated},
        "machine": machine_facts(),
    }


def _save_traces(network: CrossbarNetwork, folder: Path, source: str) -> None:
    """Write each layer's recorded codes, one file a group."""
    scales = {record.layer: record.scale for record in network.calibration}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"trace folder {folder}: cannot be made ({error.strerror})") from None
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
            save_trace(folder / f"{name}.npz", trace)


def _price(graph: Sequence[Operation], network: CrossbarNetwork, images: int) -> ChipReport | None:
    """Map, schedule and price the network at its certificate's resolutions; None without the chip's physical half."""
    assert network.certificate is not None
    if network.hw.chip is None:
        return None
    activity = {
        counters.name: LayerActivity(images=images, conversions=counters.conversions) for counters in network.counters
    }
    weights, _ = mapped_weights(network.layers, network.certificate, network.hw)
    return estimate(
        graph,
        network.hw,
        adc_bits={proof.name: proof.adc.per_slice for proof in network.certificate.layers},
        weights=weights,
        activity=activity,
        baseline=load_hardware(BASELINE_HARDWARE),
    )


def _write(
    folder: OutputFolder, report: dict[str, Any], certificate: dict[str, Any], priced: ChipReport | None
) -> dict[str, Any]:
    """Write every file of the result; the folder is complete or untouched."""
    with folder:
        folder.write("certificate.json", dump_json(certificate))
        if priced is not None:
            folder.write("timeline.json", json.dumps(timeline(priced)))
        return write_report(folder, report)
