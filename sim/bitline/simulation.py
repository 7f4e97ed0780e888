"""The main path, readable top to bottom: load -> convert -> certify -> run -> price -> report.

:func:`simulate` is the main job. Its neighbours: ``certification`` stops after the proof, ``throughput`` does the price
alone, ``replaying`` runs recorded activation traces instead of a network.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bitline.activity import network_activity
from bitline.chip import WeightFacts, estimate
from bitline.chip.report import ChipReport
from bitline.compaction import mapped_weights
from bitline.crossbar.engines import check_engine
from bitline.data import Dataset
from bitline.errors import ConfigError, DataError, RangeError, VerificationError
from bitline.hardware import Hardware, load_hardware
from bitline.layers import Operation
from bitline.network.conversion import CrossbarNetwork, NetworkEngine, convert
from bitline.network.dataflow import operations
from bitline.network.evaluation import batch_size_for, evaluate
from bitline.preparation import Prepared, calibration_split, chosen_hardware, prepare
from bitline.replaying import replay, save_traces
from bitline.report.progress import NullProgress, Progress
from bitline.report.schema import comparison_column, validate_report
from bitline.report.writer import OutputFolder
from bitline.reporting import report_of, write_result
from bitline.throughput import price_sections

__all__ = ["simulate", "verify"]

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
    label_offset: int | None = None,
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
    label_offset : int, optional
        Added to a class number to get its output; by default what the architecture says, else 0.
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
        Told of every step; after an error its caller finishes it.

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
    hardware = chosen_hardware(hw, adc_bits)
    check_engine(engine)
    for name, number in (
        ("images", images),
        ("calibration images", calibration_images),
        ("trace vectors", trace_vectors),
        ("histogram images", histogram_images + 1 if isinstance(histogram_images, int) else histogram_images),
    ):
        _positive(name, number)
    if data is not None and not isinstance(data, str | Dataset):
        raise DataError(f"data: expected KIND:PATH or an opened data set, got {type(data).__name__}")
    folder = None if out is None else OutputFolder(out)
    for place in (folder, None if trace_folder is None else OutputFolder(trace_folder)):
        if place is not None:
            place.check()
    if isinstance(data, str) and data.startswith(_TRACE_PREFIX):
        if checkpoint is not None:
            raise ConfigError("data: a trace carries its own weights; leave the checkpoint out to replay it")
        unused = {"arch": arch, "images": images, "normalisation": normalisation, "resize": resize, "crop": crop}
        for name, value in {**unused, "record_trace": trace_folder}.items():
            if value is not None:
                raise ConfigError(f"{name}: has no meaning for a replayed trace; leave it out")
        return replay(data.removeprefix(_TRACE_PREFIX), hardware, engine=engine, out=out, command=command)

    # load
    progress.start(0, "loading the network and the data")
    prepared = prepare(
        checkpoint or DEFAULT_CHECKPOINT,
        data,
        arch=arch,
        normalisation=normalisation,
        resize=resize,
        crop=crop,
        label_offset=label_offset,
    )
    available = len(prepared.dataset.test)
    count = available if images is None else images
    if count > available:
        raise RangeError(f"images: {count} asked for, {prepared.dataset.name} has {available} test images")

    # convert, with activation scales from real inputs, and certify
    network, calibrated_on = _convert(prepared, hardware, engine, calibrator, calibration_images, progress)
    assert network.certificate is not None

    # run
    graph = operations(prepared.network.module, prepared.dataset.image_shape)
    progress.start(count, "images on crossbars")
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

    # price and report
    progress.start(0, "pricing and reporting")
    facts, _ = mapped_weights(network.layers, network.certificate, hardware)
    report = report_of(prepared, network, result, facts, calibrated_on, min(histogram_images, count), command)
    if calibrated_on[0] < calibration_images:
        report["notes"].append(
            f"calibration images: {calibration_images} asked for, all {calibrated_on[0]} of {calibrated_on[1]} used"
        )
    priced = _price(graph, network, facts, result.images)
    if priced is not None:
        report |= price_sections(priced)
    report["timing"]["seconds"] = time.perf_counter() - started
    report["timing"]["phases"]["prepare"] = max(0.0, report["timing"]["seconds"] - sum(result.seconds.values()))
    if checkpoint is None and data is None:
        report["comparison"] = _against_baseline(report, hardware, count, progress)
        other = load_hardware(BASELINE_HARDWARE)
        report["notes"].append(
            f"side by side: a weight slice takes {other.signs} column on {other.name} ({other.encoding.value}) and "
            f"{hardware.signs} on {hardware.name} ({hardware.encoding.value}); the unpruned network is run by the "
            "certified engine"
        )
    report = validate_report(report)
    if trace_folder is not None:
        save_traces(network, Path(trace_folder), f"{prepared.checkpoint_name} on {prepared.dataset.spec}")
    if folder is not None:
        report = write_result(folder, report, network.certificate.to_json(prepared.checkpoint.sha256), priced)
    progress.finish()
    return report


def verify(report: Mapping[str, Any]) -> None:
    """Check what a report claims about exactness.

    Raises
    ------
    VerificationError
        No conversion at all; a run without saturations, or on a certificate that says lossless, whose outputs differ
        from the exact integer network's; or saturations in a layer proven lossless.
    """
    accuracy = report["accuracy"]
    if accuracy is not None and not sum(layer["conversions"] or 0 for layer in report["layers"]):
        raise VerificationError("no conversion was performed, so nothing about them was shown")
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


# --- the steps of the main path ---------------------------------------------------------------------------------


def _positive(name: str, value: int | None) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise RangeError(f"{name}: must be a whole number, got {value!r}")
    if value < 1:
        raise RangeError(f"{name}: must be at least 1, got {value}")


def _convert(
    prepared: Prepared, hardware: Hardware, engine: str, calibrator: str, images: int, progress: Progress
) -> tuple[CrossbarNetwork, tuple[int, str]]:
    split, source = calibration_split(prepared.dataset, images)
    batch = 32
    batches = (split.images(start, min(len(split), start + batch)) for start in range(0, len(split), batch))
    progress.start(0, "reading calibration images")
    steps = _Steps(progress, "calibration")
    network = convert(prepared.network.module, batches, hardware, engine=engine, calibrator=calibrator, progress=steps)
    # kernels are compiled, or loaded from Numba's cache, before anything is timed
    progress.start(0, "compiling kernels, once, and running a first image")
    network(split.images(0, 1))
    return network, (len(split), source)


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


def _against_baseline(
    report: dict[str, Any], hardware: Hardware, images: int, progress: Progress
) -> list[dict[str, Any]]:
    """Run the unpruned network on ISAAC's 8-bit design and on this one, and put all side by side.

    Only outputs and counts are compared, so the neighbours run on the certified engine.
    """
    columns = []
    for design in (load_hardware(BASELINE_HARDWARE), hardware):
        dense = simulate(BASELINE_CHECKPOINT, design, "digits", images=images, engine="certified", progress=progress)
        columns.append(comparison_column(f"unpruned, {design.name}", dense))
    name = f"CP rate {report['network']['cp_rate']:g}, {report['hardware']['name']}"
    return [*columns, comparison_column(name, report)]


def _price(
    graph: Sequence[Operation], network: CrossbarNetwork, facts: Mapping[str, WeightFacts], images: int
) -> ChipReport | None:
    """Map, schedule and price the network at its certificate's resolutions; None without the chip's physical half."""
    assert network.certificate is not None
    if network.hw.chip is None:
        return None
    activity = None
    if network.engine is NetworkEngine.BITSERIAL:
        activity = network_activity(network.layers, network.counters, facts, network.hw, images)
    return estimate(
        graph,
        network.hw,
        adc_bits={proof.name: proof.adc.per_slice for proof in network.certificate.layers},
        weights=facts,
        activity=activity,
    )
