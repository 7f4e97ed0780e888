"""Ways to a leaner ADC side by side: every checkpoint with every method, on the same images and the same tile model.

A method is a way to hold weights in columns (an encoding, a polarised mapping) or a way for the ADC to search
(``conversion_search``). What pruning does is in the checkpoint. Every row says whether its resolution is proven
lossless, was only measured to be on these images, or is lossy, and what was published for the method.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numba import get_num_threads

from bitline._version import __version__
from bitline.chip import estimate
from bitline.chip.mapping import WeightFacts
from bitline.compaction import mapped_weights
from bitline.conversion_search import (
    DEFAULT_BUDGET,
    Account,
    SearchRun,
    account,
    built_codes,
    calibration_codes,
    early_in,
    plan_searches,
)
from bitline.conversion_search import run_searches as run_with
from bitline.crossbar import sar
from bitline.crossbar.polarised import PolarisedMapping, fragment_hardware, polarised_mapping
from bitline.crossbar.sar import Comparisons
from bitline.data import Dataset
from bitline.errors import ConfigError, RangeError, VerificationError
from bitline.hardware import Encoding, Hardware, Readout
from bitline.network.conversion import CrossbarNetwork, convert
from bitline.network.dataflow import operations
from bitline.network.evaluation import batch_size_for, evaluate
from bitline.paths import expanded
from bitline.preparation import Prepared, calibration_split, chosen_hardware, prepare
from bitline.report.comparison_report import write_comparison
from bitline.report.machine import machine_facts
from bitline.report.progress import NullProgress, Progress
from bitline.report.writer import OutputFolder

__all__ = ["METHODS", "Method", "compare"]

DEFAULT_CHECKPOINTS = ("digits_resnet20_dense", "digits_resnet20_cp16")
_BATCH = 32
_SUMS_DO_NOT_MATTER = ("plain", "early")
"""Searches whose comparisons follow from the number of conversions alone, so the fastest kernel may run them."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way to hold weights and convert column sums."""

    name: str
    summary: str
    published: str
    """The published claim beside which the row stands; empty where there is none."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the hardware description that differ."""
    search: str = "plain"
    """Search of the ADC, one of ``conversion_search.METHODS``."""
    polarised: bool = False


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            name="isaac",
            summary="offset encoding with ISAAC's flip, 8-bit ADCs",
            published="ISAAC (ISCA 2016): 8 bits suffice for 128 rows",
            changes={"encoding": "offset_flip", "readout": "digital", "digits": "magnitude", "adc_bits": 8},
        ),
        Method(
            name="plain",
            summary="differential, digital readout, ADC at its proven bits",
            published="TinyADC (2021): CP pruning saves 6 bits, 94.14 to 94.17 % (ResNet-18, CIFAR-10, 64x)",
            changes={"digits": "magnitude"},
        ),
        Method(
            name="canonical",
            summary="as plain, weights in signed digits of least sum",
            published="",
            changes={"digits": "canonical"},
        ),
        Method(
            name="balanced",
            summary="as plain, signed digits that balance each column's sums",
            published="",
            changes={"digits": "balanced"},
        ),
        Method(
            name="analog",
            summary="differential, analog readout: one conversion a pair",
            published="",
            changes={"readout": "analog"},
        ),
        Method(
            name="polarised",
            summary="same-sign fragments in one column, driven in turn",
            published="FORMS (ISCA 2021): same-sign fragments need no second column (our reading, weights as they are)",
            changes={"digits": "magnitude"},
            polarised=True,
        ),
        Method(
            name="early",
            summary="SAR that starts at each column's certified bits",
            published="",
            search="early",
        ),
        Method(
            name="adaptive",
            summary="SAR that resolves only bits that reach a 16-bit output",
            published="Newton (2018): adaptive ADCs",
            search="adaptive",
        ),
        Method(
            name="twin_range",
            summary="twin-range SAR, both ranges at full step",
            published="twin-range SAR: 1.6 to 2.3 times less ADC power, no retraining",
            search="twin_range",
        ),
        Method(
            name="twin_range_lossy",
            summary="twin-range SAR, coarse far range chosen on calibration images",
            published="twin-range SAR: 1.6 to 2.3 times less ADC power, no retraining",
            search="twin_range_lossy",
        ),
    )
}
"""The methods by name, in the order of their rows."""


def compare(
    checkpoints: Sequence[str | Path] = DEFAULT_CHECKPOINTS,
    hw: str | Path | Hardware = "tinyadc",
    methods: Sequence[str] | None = None,
    data: str | Dataset | None = None,
    *,
    arch: str | None = None,
    images: int | None = None,
    normalisation: str | None = None,
    label_offset: int | None = None,
    calibration_images: int = 128,
    fragment: int = 8,
    budget: float = DEFAULT_BUDGET,
    out: str | Path | None = None,
    command: str = "bitline.compare(...)",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Run checkpoints with several methods and put them into one table.

    Parameters
    ----------
    checkpoints : sequence of str or Path
        Checkpoint files or names of shipped ones; pruned ones bring their pruning with them. ``PATH=METHOD,METHOD``
        gives one methods of its own.
    hw : str, Path or Hardware
        With differential encoding and digital readout; methods change its encoding, readout and ADC.
    methods : sequence of str, optional
        Of :data:`METHODS`; all by default.
    data, arch, images, normalisation, label_offset, calibration_images
        As for :func:`bitline.simulate`.
    fragment : int
        Rows of a fragment of the polarised mapping.
    budget : float
        Squared error that ``twin_range_lossy`` may make on the calibration images, of the squares of the column sums.
    out : str or Path, optional
        Folder that receives ``report.json``, ``comparison.csv``, ``report.md`` and the figure: all of them or nothing.
    command : str
        What the report says it was made with.
    progress : Progress, optional
        Told of every step; after an error its caller finishes it.

    Returns
    -------
    dict
        ``rows``, one a checkpoint and method: accuracy, bits, guarantee, columns, conversions, comparisons and ADC
        energy of an image (and how many times less that is than with a plain search of the same columns, and than in
        the first row), area and power; and what was compared.

    Raises
    ------
    BitlineError
        Any bad input; the message is one line.
    """
    progress = progress or NullProgress()
    hardware = chosen_hardware(hw, None)
    chosen = _methods(methods)
    if not checkpoints:
        raise ConfigError("checkpoints: at least one is needed")
    if not 0 <= budget < math.inf:
        raise RangeError(f"budget: must be at least 0 and finite, got {budget}")
    if hardware.encoding is not Encoding.DIFFERENTIAL or hardware.readout is not Readout.DIGITAL:
        raise ConfigError(
            f"hardware {hardware.name}: methods start from the differential encoding with digital readout, "
            f"got {hardware.encoding.value}, {hardware.readout.value}"
        )
    folder = None if out is None else OutputFolder(out)
    if folder is not None:
        folder.check()
    plan = [_own_methods(checkpoint, chosen) for checkpoint in checkpoints]
    if any(method.polarised for _, mine in plan for method in mine):
        fragment_hardware(hardware.replace(digits="magnitude"), fragment)
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    calibrated_on = 0
    for checkpoint, mine in plan:
        progress.start(0, f"loading {checkpoint}")
        prepared = prepare(checkpoint, data, arch=arch, normalisation=normalisation, label_offset=label_offset)
        count = _images(images, prepared.dataset)
        sums = any(method.search not in _SUMS_DO_NOT_MATTER for method in mine)
        work = _Work(prepared, count, calibration_images, budget, progress, hardware if sums else None)
        rows += [_row(work, method, hardware, fragment) for method in mine]
        calibrated_on = max(calibrated_on, len(work.split))
        notes += [note for note in prepared.notes if note not in notes]
    used = [method for method in METHODS.values() if any(method in mine for _, mine in plan)]
    for row in rows:
        row["first_energy_ratio"] = _ratio(rows[0]["adc_energy_uj"], row["adc_energy_uj"])
    report = {
        "schema_version": 1,
        "command": command,
        "bitline": __version__,
        "hardware": hardware.name,
        "hardware_sha256": hardware.sha256(),
        "machine": machine_facts() | {"threads": get_num_threads()},
        "images": max(row["images"] for row in rows),
        "calibration_images": calibrated_on,
        "notes": notes,
        "fragment": fragment,
        "budget": budget,
        "methods": {method.name: {"summary": method.summary, "published": method.published or None} for method in used},
        "rows": rows,
    }
    if folder is not None:
        report = write_comparison(folder, report)
    progress.finish()
    return report


def _methods(names: Sequence[str] | None) -> list[Method]:
    unknown = [name for name in names or () if name not in METHODS]
    if unknown:
        raise ConfigError(f"methods: unknown method '{unknown[0]}' (known: {', '.join(METHODS)})")
    chosen = [method for method in METHODS.values() if names is None or method.name in names]
    if not chosen:
        raise ConfigError("methods: at least one is needed")
    return chosen


def _own_methods(checkpoint: str | Path, methods: list[Method]) -> tuple[str | Path, list[Method]]:
    """A checkpoint given as ``PATH=METHOD,METHOD`` has methods of its own."""
    path, _, names = str(checkpoint).rpartition("=")
    if not path or expanded(checkpoint).exists():
        return checkpoint, methods
    return path, _methods(names.split(","))


def _images(images: int | None, dataset: Dataset) -> int:
    available = len(dataset.test)
    if images is not None and not 1 <= images <= available:
        raise RangeError(f"images: must be 1..{available}, the test images of {dataset.name}, got {images}")
    return available if images is None else images


# --- one checkpoint ------------------------------------------------------------------------------------------------


class _Work:
    """One checkpoint: each encoding is converted once, each set of searches that gives other integers is run once."""

    def __init__(
        self,
        prepared: Prepared,
        images: int,
        calibration: int,
        budget: float,
        progress: Progress,
        searched: Hardware | None,
    ) -> None:
        self.prepared, self.images, self.budget, self.progress = prepared, images, budget, progress
        self.searched = searched
        """The description on which searches need every column sum, if there is one."""
        self.split, _ = calibration_split(prepared.dataset, calibration)
        self.graph = operations(prepared.network.module, prepared.dataset.image_shape)
        self._networks: dict[str, CrossbarNetwork] = {}
        self._facts: dict[str, dict[str, WeightFacts]] = {}
        self._plans: dict[str, dict[str, list[sar.LayerSearch]]] = {}
        self._runs: dict[tuple[str, str], SearchRun] = {}

    def network(self, hw: Hardware) -> CrossbarNetwork:
        """The checkpoint on crossbars of this description."""
        key = hw.sha256()
        if key not in self._networks:
            split = self.split
            batches = (split.images(start, min(len(split), start + _BATCH)) for start in range(0, len(split), _BATCH))
            self.progress.start(0, f"converting {self.prepared.checkpoint_name} and compiling kernels, once")
            self._networks[key] = convert(self.prepared.network.module, batches, hw)
        return self._networks[key]

    def facts(self, hw: Hardware) -> dict[str, WeightFacts]:
        """What the mapping leaves out of every layer."""
        key = hw.sha256()
        if key not in self._facts:
            network = self.network(hw)
            assert network.certificate is not None
            self._facts[key] = mapped_weights(network.layers, network.certificate, hw)[0]
        return self._facts[key]

    def plans(self, hw: Hardware) -> dict[str, list[sar.LayerSearch]]:
        """Every search of every layer."""
        key = hw.sha256()
        if key not in self._plans:
            network = self.network(hw)
            self.progress.start(0, f"planning searches of {self.prepared.checkpoint_name}")
            self._plans[key] = plan_searches(network, calibration_codes(network, self.split), budget=self.budget)
        return self._plans[key]

    def run(self, hw: Hardware, search: str) -> SearchRun:
        """All images with a search; searches that read every sum as it is share one run."""
        network = self.network(hw)
        proofs = _proofs(network)
        if search == "plain":
            searches = [sar.plan_plain(hw, proof.adc) for proof in proofs]
        else:
            searches = self.plans(hw).get(search, [])
            if all(one.lossless for one in searches):
                return self.run(hw, "plain")
        key = (hw.sha256(), search)
        if key not in self._runs:
            self.progress.start(self.images, f"images of {self.prepared.checkpoint_name}, {search}")
            self._runs[key] = (
                self._count_only(network, hw)
                if search == "plain" and hw != self.searched
                else run_with(
                    network,
                    searches,
                    self.prepared.dataset.test,
                    images=self.images,
                    batch_size=batch_size_for(self.graph),
                    label_offset=self.prepared.label_offset,
                    advance=self.progress.advance,
                )
            )
        return self._runs[key]

    def _count_only(self, network: CrossbarNetwork, hw: Hardware) -> SearchRun:
        """All images, every conversion counted but not its sum: all stand at the sum 0."""
        evaluation = evaluate(
            network,
            self.prepared.dataset.test,
            images=self.images,
            batch_size=batch_size_for(self.graph),
            engine="certified",
            label_offset=self.prepared.label_offset,
            advance=self.progress.advance,
        )
        codes = []
        for layer, proof, counters in zip(network.layers, _proofs(network), network.counters, strict=True):
            tiles = hw.input_passes(layer.signed_inputs) * -(-layer.rows // hw.read_rows) * layer.groups
            signs = 1 if hw.readout is Readout.ANALOG else hw.signs
            each = tiles * np.array([layer.columns * signs] * hw.slices + [int(proof.adc.unit is not None)])
            vectors, rest = divmod(counters.conversions, hw.input_cycles * int(each.sum()))
            if rest:
                raise VerificationError(f"layer {layer.name}: {rest} conversions belong to no input vector")
            mine = np.zeros((hw.input_cycles, hw.slices + 1, 1 << proof.adc.bits), np.int64)
            mine[:, :, 0] = vectors * each
            codes.append(mine)
        return SearchRun(evaluation=evaluation, codes=tuple(codes))


def _proofs(network: CrossbarNetwork) -> Any:
    assert network.certificate is not None
    return network.certificate.layers


def _row(work: _Work, method: Method, hardware: Hardware, fragment: int) -> dict[str, Any]:
    design = hardware.replace(**method.changes) if method.changes else hardware
    hw = fragment_hardware(design, fragment) if method.polarised else design
    network, run = work.network(hw), work.run(hw, method.search)
    certificate = network.certificate
    assert certificate is not None
    mappings = [polarised_mapping(layer, design, fragment) for layer in network.layers] if method.polarised else None
    spent = _spent(work, method, hw, network, run, mappings)
    plain = (
        spent if method.search == "plain" else _spent(work, METHODS["plain"], hw, network, work.run(hw, "plain"), None)
    )
    exact = method.search in ("plain", "early") or all(one.lossless for one in work.plans(hw)[method.search])
    result, prepared = run.evaluation, work.prepared
    return {
        "checkpoint": prepared.checkpoint_name,
        "checkpoint_sha256": prepared.checkpoint.sha256,
        "pruning": _pruning(prepared.checkpoint.metadata),
        "method": method.name,
        "published": method.published or None,
        "images": result.images,
        **{f"{which}_top1": result.accuracy(which, 1) for which in ("float", "integer", "simulated")},
        "identical_to_integer": result.differing_images == 0,
        "guarantee": _guarantee(certificate.lossless and exact, result.differing_images),
        "adc_bits": max(proof.adc.bits for proof in certificate.layers),
        "bits_proven": certificate.bits,
        "bits_equation": certificate.equation,
        "bits_paper": certificate.paper,
        "columns": _columns(network, hw, mappings),
        "conversions": spent.conversions / result.images,
        "comparisons": spent.comparisons / result.images,
        "adc_energy_uj": None if spent.energy_pj is None else spent.energy_pj / result.images * 1e-6,
        "plain_energy_ratio": _ratio(plain.energy_pj, spent.energy_pj),
        **_price(work, design, network, mappings),
    }


def _guarantee(proven: bool, differing: int) -> str:
    return "proven lossless" if proven else "lossy" if differing else "measured lossless"


def _pruning(metadata: Mapping[str, str]) -> str:
    """What the checkpoint says of its pruning, in a few words."""
    try:
        plan = json.loads(metadata["recipe"])["pruning"]
        if plan is None:
            return "none"
        target = f"{plan['adc_bits']} bits" if plan.get("adc_bits") else f"rate {plan['rate']:g}"
        return f"{plan['method']}, {target}, {plan['solver']}"
    except (KeyError, ValueError, TypeError):
        return "not said"


def _spent(
    work: _Work,
    method: Method,
    hw: Hardware,
    network: CrossbarNetwork,
    run: SearchRun,
    mappings: Sequence[PolarisedMapping] | None,
) -> Account:
    """Conversions and comparisons of all images, as the run made them; energy of those in the crossbars that exist."""
    facts = work.facts(hw)
    total = Account(conversions=0, comparisons=0, energy_pj=0.0)
    for index, (layer, proof) in enumerate(zip(network.layers, _proofs(network), strict=True)):
        codes = run.codes[index]
        built = built_codes(codes, layer, facts[layer.name], hw, proof.adc)
        if method.search == "early":
            counted = sar.count_early(layer.codes, codes, hw, proof.adc, layer.signed_inputs)
            priced = early_in(built, counted)
        else:
            plain = method.search == "plain"
            search = sar.plan_plain(hw, proof.adc) if plain else work.plans(hw)[method.search][index]
            counted, priced = (sar.count(search, which, hw, proof.adc) for which in (codes, built))
        if mappings is not None:
            counted = priced = _needed(counted, mappings[index], layer, hw)
        total += account(counted, hw, proof.adc, built=priced)
    return total


def _needed(counted: Comparisons, mapping: PolarisedMapping, layer: Any, hw: Hardware) -> Comparisons:
    """Of the conversions of both columns of every fragment, those that a polarised mapping performs."""
    passes = hw.input_passes(layer.signed_inputs)
    fragments = -(-layer.rows // hw.read_rows) * layer.groups * layer.columns
    both = passes * hw.input_cycles * hw.slices * hw.signs * fragments  # of one input vector
    vectors = int(counted.conversions.sum()) // both
    each = np.where(counted.conversions > 0, mapping.conversions // hw.slices * vectors, 0)
    return Comparisons(each, each * (counted.comparisons // np.maximum(1, counted.conversions)))


def _ratio(other: float | None, mine: float | None) -> float | None:
    return other / mine if other and mine else None


def _columns(network: CrossbarNetwork, hw: Hardware, mappings: Sequence[PolarisedMapping] | None) -> int:
    """Physical columns of one copy of every layer, unit columns left out."""
    if mappings is not None:
        return sum(width for mapping in mappings for tiles in mapping.columns for width in tiles)
    return sum(
        layer.groups * -(-layer.rows // hw.rows) * layer.columns * hw.slices * hw.signs for layer in network.layers
    )


def _price(
    work: _Work, design: Hardware, network: CrossbarNetwork, mappings: Sequence[PolarisedMapping] | None
) -> dict[str, float | int | None]:
    """Area and power of the chip and of its tiles alone, and crossbars; all None without the physical half."""
    keys = ("crossbars", "area_mm2", "power_w", "tiles_area_mm2", "tiles_power_w", "chip_images_per_s")
    if design.chip is None:
        return dict.fromkeys(keys)
    assert network.certificate is not None
    facts = work.facts(network.hw)
    if mappings is not None:
        facts = {
            mapping.name: _polarised_facts(mapping, facts[mapping.name], layer.rows, design)
            for mapping, layer in zip(mappings, network.layers, strict=True)
        }
    bits = {proof.name: proof.adc.per_slice for proof in network.certificate.layers}
    priced = estimate(work.graph, design, adc_bits=bits, weights=facts)
    outside = [sum(part.get(name, 0.0) for name in priced.chip_level) for part in (priced.area_mm2, priced.power_w)]
    found = (
        priced.totals.crossbars,
        priced.total_area_mm2,
        priced.total_power_w,
        priced.total_area_mm2 - outside[0],
        priced.total_power_w - outside[1],
        priced.totals.images_per_s,
    )
    return dict(zip(keys, found, strict=True))


def _polarised_facts(mapping: PolarisedMapping, facts: WeightFacts, rows: int, design: Hardware) -> WeightFacts:
    nothing = (0,) * len(facts.removed_rows)
    return replace(
        facts,
        removed_rows=nothing,
        removed_columns=nothing,
        zero_crossbars=0,
        zero_columns=0,
        zero_cells=0,
        turns=-(-min(rows, design.rows) // mapping.fragment),
        tile_columns=mapping.columns,
    )
