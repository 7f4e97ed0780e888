"""Peak figures of designs, and the price of networks on them: load -> map, schedule, price -> report.

:func:`throughput` is the one entry; without a network it is about whole chips. torch is imported only where a network
is built.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitline._version import __version__
from bitline.chip import ChipReport, Replication, WeightFacts, adc_points, estimate, peak
from bitline.chip.adc_laws import laws_of
from bitline.chip.mapping import chip_of
from bitline.chip.published_peaks import PUBLISHED_PEAKS
from bitline.chip.timeline import timeline
from bitline.chip_description import AdcLaw
from bitline.errors import ConfigError, RangeError
from bitline.hardware import AdcPolicy, Hardware, list_hardware, load_hardware
from bitline.layers import Coverage, Operation, OperationKind
from bitline.report.schema import dump_json
from bitline.report.throughput_schema import validate_throughput
from bitline.report.throughput_text import throughput_csv, throughput_markdown
from bitline.report.writer import OutputFolder

if TYPE_CHECKING:
    from bitline.crossbar.certificate import NetworkCertificate
    from bitline.layers import MatrixLayer

__all__ = ["parse_input", "price_sections", "throughput"]

DEFAULT_HARDWARE = "tinyadc"
TIMELINE_IMAGES = 4
"""Most images a timeline shows: every one repeats the first, a period later."""
_MAX_INPUT = 1 << 26
_LADDER = range(7, 1, -1)


@dataclass(frozen=True, kw_only=True)
class _Subject:
    """A network to price: its data-flow graph and, where a checkpoint was given, what loads its weights."""

    architecture: str
    input_shape: tuple[int, ...]
    graph: Sequence[Operation]
    coverage: Coverage
    module: Any = None
    """torch's module where its weights are meant, None where only shapes are."""
    checkpoint: str | None = None
    sha256: str | None = None
    notes: tuple[str, ...] = ()
    """What was assumed of the network or done to its weights."""


def throughput(
    hw: Sequence[str | Path | Hardware] | str | Path | Hardware = (),
    checkpoint: str | Path | None = None,
    *,
    arch: str | None = None,
    input_shape: tuple[int, ...] | None = None,
    adc_bits: int | str | None = None,
    law: str | None = None,
    replication: str = Replication.BALANCED.value,
    tiles: int | None = None,
    images: int = 1,
    detail: bool = False,
    baseline: str | Path | Hardware | None = None,
    sweeps: bool = True,
    squeeze_blocks: bool = False,
    out: str | Path | None = None,
    command: str = "bitline.throughput.throughput(...)",
) -> dict[str, Any]:
    """Report the peak of designs, and the timing and price of a network on them.

    Parameters
    ----------
    hw : one or several of str, Path or Hardware
        Designs; the first is what the report is about, the others stand beside it. By default ``tinyadc`` for a
        network, and every shipped design without one.
    checkpoint : str or Path, optional
        A checkpoint file or the name of a shipped one: ADC bits come from its certificate, and zero rows, columns and
        crossbars are left out.
    arch : str, optional
        Architecture's name or ``package.module:factory``; without a checkpoint its dense shapes are priced.
    input_shape : tuple of int, optional
        Shape of one input, channels first; by default the architecture's usual one.
    adc_bits : int or str, optional
        Resolution instead of the hardware's; a policy only with a checkpoint.
    law : str, optional
        How ADC power and area follow from the resolution; by default the description's.
    replication : {"smallest", "balanced", "fastest"}
    tiles : int, optional
        Tile budget.
    images : int
        Images that ``performance.cycles`` is for.
    detail : bool
        One track a replica and one slice a position in the timeline.
    baseline : str, Path or Hardware, optional
        Design to normalise to; by default each design itself, with dense weights and the printed ADC resolution.
    squeeze_blocks : bool
        Also squeeze zero rows or columns out of crossbar-sized blocks (:mod:`bitline.chip.blocks`); needs a checkpoint.
    sweeps : bool
        Whether to price the network at every ADC resolution and law too (``ladder``, ``adc_sweep``).
    out : str or Path, optional
        Folder that receives report, tables, timeline and figures: all of them or nothing.
    command : str
        What the report says it was made with.

    Returns
    -------
    dict
        ``report.json``'s content (:class:`bitline.report.throughput_schema.ThroughputReport`).

    Raises
    ------
    BitlineError
        Any bad input; the message is one line.
    """
    folder = _folder(out)
    if images < 1:
        raise RangeError(f"images must be at least 1, got {images}")
    if squeeze_blocks and checkpoint is None:
        raise ConfigError("squeeze_blocks: needs the weights of a checkpoint")
    network = checkpoint is not None or arch is not None
    if input_shape is not None and not network:
        raise ConfigError("input: an input shape needs a network: a checkpoint or --arch")
    hardware = _designs(hw, adc_bits, checkpoint is not None, network)
    bits = adc_bits if isinstance(adc_bits, int) else None

    # load
    subject = _subject(checkpoint, arch, input_shape) if network else None
    reference = None if baseline is None else _load(baseline)

    # map, schedule, price
    designs, priced = [], []
    for design in hardware:
        if subject is None:
            designs.append(_peak_design(design, bits, law, sweeps))
            continue
        section, result = _network_design(
            subject,
            design,
            bits,
            law,
            replication,
            tiles,
            images,
            reference,
            sweeps=sweeps or out is not None,
            squeeze_blocks=squeeze_blocks,
        )
        designs.append(section)
        priced.append(result)

    # report
    report = validate_throughput(
        {
            **designs[0],
            "command": command,
            "provenance": _provenance(designs[0], subject),
            "network": None if subject is None else _network_facts(subject),
            "others": designs[1:],
        }
    )
    if folder is not None:
        timelines = [json.dumps(timeline(p, images=min(images, TIMELINE_IMAGES), detail=detail)) for p in priced]
        report = _write(folder, report, timelines)
    return report


def parse_input(text: str) -> tuple[int, ...]:
    """Read an input's shape, such as ``3x224x224``.

    Raises
    ------
    ConfigError
        Not one to four positive numbers with ``x`` between them, or a shape of absurd size.
    """
    parts = text.lower().split("x")
    if not 1 <= len(parts) <= 4 or not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        raise ConfigError(f"input: expected channels x height x width such as 3x224x224, got {text!r}")
    shape = tuple(int(part) for part in parts)
    if math.prod(shape) > _MAX_INPUT:
        raise ConfigError(f"input: at most {_MAX_INPUT} numbers in one input, got {text}")
    return shape


# --- load --------------------------------------------------------------------------------------------------------


def _load(hw: str | Path | Hardware, adc_bits: int | str | None = None) -> Hardware:
    overrides = {} if adc_bits is None else {"adc_bits": adc_bits}
    return hw.replace(**overrides) if isinstance(hw, Hardware) else load_hardware(hw, **overrides)


def _designs(
    hw: Sequence[str | Path | Hardware] | str | Path | Hardware,
    adc_bits: int | str | None,
    has_weights: bool,
    network: bool,
) -> list[Hardware]:
    """Load the descriptions; with a checkpoint an ADC resolution replaces theirs, so that the certificate sees it."""
    names = [hw] if isinstance(hw, str | Path | Hardware) else list(hw)
    if not names:
        names = [DEFAULT_HARDWARE] if network else list(list_hardware())
    by_formula = adc_bits == AdcPolicy.EQUATION.value  # Eq. (1) needs no weights
    found = [_load(name, adc_bits if has_weights or by_formula else None) for name in names]
    if not has_weights and not by_formula and isinstance(adc_bits, str):
        policies = ", ".join(policy.value for policy in AdcPolicy)
        if adc_bits in {policy.value for policy in AdcPolicy}:
            raise ConfigError(f"adc_bits: the policy {adc_bits} needs a checkpoint's weights; give a number in 1..16")
        raise ConfigError(f"adc_bits: must be an integer in 1..16 or one of {policies}, got {adc_bits!r}")
    for design in found:
        chip_of(design)
    return found


def _subject(checkpoint: str | Path | None, arch: str | None, input_shape: tuple[int, ...] | None) -> _Subject:
    """Build the network: with its weights, or for its shapes alone."""
    from bitline.network.architectures import build_architecture
    from bitline.network.dataflow import account
    from bitline.network.guard import RandomInputs, check_network
    from bitline.preparation import load_network

    if checkpoint is not None:
        loaded, name, network = load_network(checkpoint, arch)
        shape = input_shape or network.input_shape
        what = name
    else:
        assert arch is not None
        network = build_architecture(arch)
        usual = network.input_shape
        shape = input_shape or usual
        if shape is not None and usual is not None and len(shape) == 3 and shape[0] != usual[0]:
            network = build_architecture(arch, in_channels=shape[0])
        loaded, what = None, arch
    if shape is None:
        raise ConfigError(f"input: {what} does not say the shape of its inputs; give one with --input, as in 3x224x224")
    graph, coverage = account(network.module, tuple(shape))
    check_network(network.module, RandomInputs(tuple(shape), what))
    return _Subject(
        architecture=network.architecture,
        input_shape=tuple(shape),
        graph=graph,
        coverage=coverage,
        module=None if loaded is None else network.module,
        checkpoint=None if loaded is None else what,
        sha256=None if loaded is None else loaded.sha256,
        notes=network.assumptions,
    )


def _certify(subject: _Subject, hw: Hardware) -> tuple[NetworkCertificate, Sequence[MatrixLayer]]:
    from bitline.crossbar.certificate import certify_layers
    from bitline.network.conversion import matrix_layers

    layers = matrix_layers(subject.module, hw, input_shape=subject.input_shape).layers
    return certify_layers(layers, hw), layers


# --- map, schedule, price ------------------------------------------------------------------------------------------


def _plain_hardware(hw: Hardware) -> dict[str, Any]:
    return {"hardware": hw.model_dump(mode="json", exclude={"chip"}), "hardware_sha256": hw.sha256()}


def _peak_section(hw: Hardware, bits: int | None, law: str | None) -> dict[str, Any]:
    section: dict[str, Any] = dict(peak(hw, adc_bits=bits, law=law).to_json())
    known = PUBLISHED_PEAKS.get(hw.name)
    # published figures are those of the shipped description, not of somebody's copy that kept the name
    if known is not None and hw.name in list_hardware() and hw.sha256() == load_hardware(hw.name).sha256():
        section["published"] = known.to_json() | {
            "gops_per_w_of_printed_power": section["tops"] * 1e3 / known.chip_power_w,
            "gops_per_s_mm2_of_printed_area": section["tops"] * 1e3 / known.chip_area_mm2,
        }
    return section


def _law_spread(hw: Hardware, figures: Callable[[AdcLaw], Mapping[str, float]]) -> dict[str, Any]:
    """Least and most of some figures over the ADC laws that know the design's resolution: none is known to be right."""
    found: dict[str, Mapping[str, float]] = {}
    for law in laws_of(chip_of(hw).adc):
        try:
            found[law.value] = figures(law)
        except RangeError:
            continue  # outside this law's domain
    names = next(iter(found.values()), {})
    ranges = {name: [min(f[name] for f in found.values()), max(f[name] for f in found.values())] for name in names}
    return {"laws": list(found), **ranges}


def _laws(hw: Hardware) -> Iterator[tuple[AdcLaw, int]]:
    for law in laws_of(chip_of(hw).adc):
        for bits in range(1, 13):
            yield law, bits


def _peak_design(hw: Hardware, bits: int | None, law: str | None, sweeps: bool) -> dict[str, Any]:
    points = adc_points(hw) if sweeps else []

    def figures(law: AdcLaw) -> Mapping[str, float]:
        found = peak(hw, adc_bits=bits, law=law)
        return {"power_w": found.power_w, "area_mm2": found.area_mm2}

    spread = _law_spread(hw, figures)
    return {
        **_plain_hardware(hw),
        "peak": _peak_section(hw, bits, law),
        "adc_law_spread": spread,
        "adc_sweep": points,
    }


def _point(bits: int, law: AdcLaw, gops_per_w: float, gops_per_s_mm2: float) -> dict[str, Any]:
    return {"adc_bits": bits, "law": law.value, "gops_per_w": gops_per_w, "gops_per_s_mm2": gops_per_s_mm2}


def _network_design(
    subject: _Subject,
    hw: Hardware,
    bits: int | None,
    law: str | None,
    replication: str,
    tiles: int | None,
    images: int,
    baseline: Hardware | None,
    *,
    sweeps: bool,
    squeeze_blocks: bool,
) -> tuple[dict[str, Any], ChipReport]:
    """Price the network on one design: at its certificate's resolutions, or at one for all."""
    notes = [*subject.notes]
    certificate: NetworkCertificate | None = None
    resolutions: int | Mapping[str, Sequence[int]] | None = bits
    weights: Mapping[str, WeightFacts] | None = None
    if subject.module is not None:
        from bitline.compaction import mapped_weights  # numba, which only this needs

        certificate, layers = _certify(subject, hw)
        resolutions = {proof.name: proof.adc.per_slice for proof in certificate.layers}
        weights, kept = mapped_weights(layers, certificate, hw, squeeze_blocks=squeeze_blocks)
        if kept:
            shown = ", ".join(kept[:3]) + (f" and {len(kept) - 3} more" if len(kept) > 3 else "")
            notes.append(
                f"zero rows stay where the ADC bits would not be proven for the closed-up matrix, and in layers that "
                f"are not proven lossless: {shown}"
            )
        squeezed = {name: found.blocks for name, found in weights.items() if found.blocks is not None}
        if squeezed:
            bits_of_tables = sum(blocks.index_bits for blocks in squeezed.values())
            notes.append(
                f"rows or columns that are zero in a crossbar-sized block are squeezed out of {len(squeezed)} layers; "
                f"their index tables, {bits_of_tables:,} bits a copy, are not priced"
            )
    else:
        notes.append("no checkpoint: every weight is taken to be non-zero, no crossbar is left out")

    def at(adc_bits: Any, facts: Mapping[str, WeightFacts] | None, law: AdcLaw | str | None) -> ChipReport:
        return estimate(
            subject.graph,
            hw,
            adc_bits=adc_bits,
            weights=facts,
            images=images,
            replication=replication,
            tiles=tiles,
            law=law,
            baseline=baseline,
        )

    priced = at(resolutions, weights, law)
    if certificate is None:
        notes.append(f"ADC resolution: {priced.adc_bits_from}")
    highest = max(max(_per_slice(layer.adc_bits)) for layer in priced.layers)

    def on_tiles(law: AdcLaw) -> Mapping[str, float]:
        found = at(resolutions, weights, law)
        power, area, energy = (found.tiles_alone(part) for part in (found.power_w, found.area_mm2, found.energy_uj))
        return {"power_w": power, "area_mm2": area, "energy_uj": energy}

    section = {
        **_plain_hardware(hw),
        "peak": _peak_section(hw, highest if certificate is not None else bits, law),
        "layers": _layers(priced, certificate),
        "certificate": None if certificate is None else _certificate_summary(certificate),
        **price_sections(priced),
        "bottleneck": _bottleneck(priced, hw),
        "adc_law_spread": _law_spread(hw, on_tiles),
        "buffers": priced.to_json()["buffers"],
        "ladder": [],
        "adc_sweep": [],
        "notes": notes,
    }
    if sweeps:
        matrix = sum(operation.kind is OperationKind.MATRIX for operation in subject.graph)
        section["ladder"] = _ladder(at, matrix, chip_of(hw).adc.bits, law)
        if certificate is not None or bits is not None:
            section["ladder"].append(_step("this design", None, priced))
        section["adc_sweep"] = _sweep(at, weights, hw)
    return section, priced


def _ladder(at: Any, layers: int, printed: int, law: str | None) -> list[dict[str, Any]]:
    """Price the dense network with smaller and smaller ADCs; the first layer, which is not pruned, keeps its own."""
    steps = []
    for bits in (printed, *(b for b in _LADDER if b < printed)):
        try:
            priced = at([printed] + [bits] * (layers - 1), None, law)
        except RangeError:
            continue  # outside this law's domain
        steps.append(_step(f"{bits} bits", bits, priced))
    return steps


def _step(name: str, bits: int | None, priced: ChipReport) -> dict[str, Any]:
    normalised = priced.to_json()["normalised"]
    return {
        "name": name,
        "adc_bits": bits,
        **{key: normalised[key] for key in ("area", "power", "area_tiles", "power_tiles")},
    }


def _sweep(at: Any, weights: Mapping[str, WeightFacts] | None, hw: Hardware) -> list[dict[str, Any]]:
    points = []
    for law, bits in _laws(hw):
        try:
            performance = at(bits, weights, law).to_json()["performance"]
        except RangeError:
            continue  # outside this law's domain
        points.append(_point(bits, law, performance["gops_per_w"], performance["gops_per_s_mm2"]))
    return points


def _per_slice(bits: int | Sequence[int]) -> tuple[int, ...]:
    return (bits,) if isinstance(bits, int) else tuple(bits)


def _layers(priced: ChipReport, certificate: NetworkCertificate | None) -> list[dict[str, Any]]:
    proofs = {} if certificate is None else {proof.name: proof for proof in certificate.layers}
    records = []
    for layer, plain in zip(priced.layers, priced.to_json()["layers"], strict=True):
        per_slice = _per_slice(layer.adc_bits)
        adc: dict[str, Any] = {"configured": max(per_slice), "configured_per_slice": list(per_slice)}
        record = {**plain, "adc_bits": adc, "occupancy": min(1.0, layer.occupancy), "stalls": _stalls(priced, layer)}
        proof = proofs.get(layer.name.partition("#")[0])
        if proof is not None:
            adc |= {
                "equation": proof.counts.equation,
                "paper": proof.counts.paper,
                "weight_aware": proof.counts.weight_aware,
                "weight_aware_per_slice": list(proof.counts.weight_aware_per_slice),
            }
            record |= {"lossless": proof.lossless, "nonzeros_max": proof.nonzeros_max}
        records.append(record)
    return records


def _certificate_summary(certificate: NetworkCertificate) -> dict[str, Any]:
    return {
        "lossless": certificate.lossless,
        "adc_bits": {"equation": certificate.equation, "paper": certificate.paper, "weight_aware": certificate.bits},
    }


# --- what a priced network says -------------------------------------------------------------------------------------


def price_sections(priced: ChipReport) -> dict[str, Any]:
    """Return the sections ``performance``, ``breakdown`` and ``normalised`` of a report."""
    plain = priced.to_json()
    performance = plain["performance"] | {
        "adc_law": plain["adc_law"],
        "layers": [
            {
                "name": layer.name,
                "occupancy": min(1.0, layer.occupancy),
                "replication": layer.replicas,
                "lines_driven": layer.lines_driven,
                "cells_on": layer.cells_on,
                "bottleneck": layer.name == priced.bottleneck,
                "stalls": _stalls(priced, layer),
            }
            for layer in priced.layers
        ],
    }
    return {"performance": performance, "breakdown": plain["breakdown"], "normalised": plain["normalised"]}


def _stalls(priced: ChipReport, layer: Any) -> dict[str, float]:
    """Share of the steady state that a layer's replicas wait, by reason.

    What they compute is exact. How the rest divides is taken from the first image, whose waits for inputs stand for
    those of every image; the remainder lies between the layer's images.
    """
    idle = max(0.0, 1.0 - layer.occupancy)
    inputs = min(idle, layer.stall_cycles / priced.totals.interval_cycles)
    rest = idle - inputs
    stalls = {}
    if inputs > 0:
        stalls["inputs not there yet"] = inputs
    if rest > 0:
        # the slowest layer's own replicas may not divide its positions evenly
        stalls[f"next image (paced by {layer.paced_by})" if layer.paced_by else "uneven replicas"] = rest
    return stalls


_WHY = {
    "compute": "its input cycles set the interval",
    "adc": "the ADCs' rate sets the cycle, the input cycles the interval",
    "edram": "the port of the tile buffer sets the interval",
    "bus": "the bus from the tile buffer to the IMAs sets the interval",
    "router": "the tile's port into the network on chip sets the interval",
    "link": "the links off the chip set the interval",
    "recurrence": "every step waits for the one before: product, pipeline and gates set the interval",
}


def _bottleneck(priced: ChipReport, hw: Hardware) -> str:
    """The slowest operation and why, as a sentence."""
    why = _WHY.get(priced.bottleneck_reason, f"{priced.bottleneck_reason} sets the interval")
    for layer in priced.layers:
        if layer.name == priced.bottleneck:
            copies = f"{layer.replicas:,} replica{'s' if layer.replicas > 1 else ''}"
            vectors = f"{layer.positions:,} input vector{'s' if layer.positions > 1 else ''}"
            return (
                f"{layer.name}: {vectors} x {layer.interval_cycles} cycles / {copies} = "
                f"{layer.busy_cycles:,} cycles of {priced.totals.cycle_ns:g} ns an image; {why} "
                f"({hw.input_bits} bits, {hw.dac_bits} a cycle)"
            )
    return f"{priced.bottleneck}: {priced.totals.interval_cycles:,} cycles an image; {why}"


def _network_facts(subject: _Subject) -> dict[str, Any]:
    matrix = [operation for operation in subject.graph if operation.kind is OperationKind.MATRIX]
    return {
        "architecture": subject.architecture,
        "checkpoint": subject.checkpoint,
        "input_shape": list(subject.input_shape),
        "matrix_layers": len(matrix),
        "macs": sum(operation.macs for operation in matrix),
        "coverage": subject.coverage.to_json(),
        "weights": "dense, no checkpoint given" if subject.checkpoint is None else subject.checkpoint,
    }


def _provenance(design: Mapping[str, Any], subject: _Subject | None) -> dict[str, Any]:
    return {
        "version": __version__,
        "checkpoint_sha256": None if subject is None else subject.sha256,
        "hardware_sha256": design["hardware_sha256"],
        "seed": None,
        "engine": None,
    }


# --- write ------------------------------------------------------------------------------------------------------------


def _folder(out: str | Path | None) -> OutputFolder | None:
    """The output folder, found to be writable before any work is done."""
    if out is None:
        return None
    folder = OutputFolder(out)
    folder.check()
    return folder


def _write(folder: OutputFolder, report: dict[str, Any], timelines: Sequence[str]) -> dict[str, Any]:
    from bitline.report.chip_figures import throughput_figures
    from bitline.report.figure_style import render

    drawn = []
    with folder:
        for number, text in enumerate(timelines, start=1):
            folder.write("timeline.json" if number == 1 else f"timeline_{number}.json", text)
        for name, figure in throughput_figures(report).items():
            for kind in ("png", "svg"):
                folder.write(f"figures/{name}.{kind}", render(figure, kind))
            drawn.append(f"figures/{name}.png")
        for name, table in throughput_csv(report).items():
            folder.write(name, table)
        folder.write("report.md", throughput_markdown(report, drawn))
        report = {**report, "files": sorted([*folder.names, "report.json"])}
        folder.write("report.json", dump_json(report))
    return report
