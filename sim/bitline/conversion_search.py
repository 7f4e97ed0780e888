"""What shorter ADC searches save: calibrate -> plan -> run and count -> price (docs/adc_search.md).

:func:`search_adc` does it for a checkpoint. Its steps are there for other comparisons: :func:`calibration_codes` and
:func:`plan_searches` choose a converted network's searches, :func:`run_searches` runs images with them,
:func:`bitline.crossbar.sar.count` counts a layer's comparisons and :func:`account` prices them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitline.chip import WeightFacts
from bitline.chip.adc_energy import conversion_energy
from bitline.chip.mapping import map_layer
from bitline.compaction import mapped_layer
from bitline.crossbar import sar
from bitline.crossbar.adc import AdcBits
from bitline.crossbar.sar import Comparisons, LayerSearch
from bitline.data import Dataset
from bitline.errors import RangeError
from bitline.hardware import Hardware, Readout
from bitline.layers import MatrixLayer
from bitline.network.conversion import CrossbarNetwork, NetworkEngine, convert
from bitline.network.dataflow import operations
from bitline.network.evaluation import Evaluation, Images, batch_size_for, evaluate
from bitline.preparation import calibration_split, chosen_hardware, prepare
from bitline.report.progress import NullProgress, Progress

__all__ = [
    "METHODS",
    "Account",
    "SearchRun",
    "account",
    "built_codes",
    "calibration_codes",
    "early_in",
    "plan_searches",
    "run_searches",
    "search_adc",
]

METHODS = ("plain", "early", "adaptive", "twin_range", "twin_range_early", "twin_range_lossy")
"""The searches compared: ``plain`` is the reference of every ratio; ``twin_range_early`` and ``twin_range_lossy``
search each slice's certified resolution instead of the ADC's."""

DEFAULT_BUDGET = 1e-4
"""Squared error a lossy plan may make, of the squares of the converted sums."""

OUTPUT_BITS = 16
"""Output register of ISAAC and Newton."""

_BATCH = 32


@dataclass(frozen=True, kw_only=True, eq=False)
class SearchRun:
    """Images run with given searches."""

    evaluation: Evaluation
    codes: tuple[NDArray[np.int64], ...]
    """Of each layer: conversions by clipped column sum (see :mod:`bitline.crossbar.sar`)."""


@dataclass(frozen=True, kw_only=True)
class Account:
    """What all conversions of a layer or network took."""

    conversions: int
    comparisons: int
    energy_pj: float | None
    """ADC energy; None for a design without its physical half."""

    def __add__(self, other: Account) -> Account:
        """Both together."""
        known = self.energy_pj is not None and other.energy_pj is not None
        return Account(
            conversions=self.conversions + other.conversions,
            comparisons=self.comparisons + other.comparisons,
            energy_pj=(self.energy_pj or 0.0) + (other.energy_pj or 0.0) if known else None,
        )


def run_searches(
    network: CrossbarNetwork,
    searches: Sequence[LayerSearch],
    split: Images,
    *,
    images: int,
    batch_size: int,
    label_offset: int = 0,
    advance: Callable[[int], None] = lambda _: None,
) -> SearchRun:
    """Run images, every conversion as its layer's search makes it, and count all of them; ideal ADCs are put back.

    Parameters
    ----------
    network : CrossbarNetwork
    searches : sequence of LayerSearch
        One a layer, in the order of ``network.layers``.
    split : Images
    images, batch_size, label_offset, advance
        As for :func:`bitline.network.evaluation.evaluate`.

    Returns
    -------
    SearchRun
        ``evaluation.differing_images`` counts images whose outputs differ from the exact integer network's.
    """
    network.set_searches(searches)
    try:
        evaluation = evaluate(
            network,
            split,
            images=images,
            batch_size=batch_size,
            engine="bitserial",
            label_offset=label_offset,
            advance=advance,
        )
        return SearchRun(evaluation=evaluation, codes=_codes(network))
    finally:
        network.set_searches(None)


def calibration_codes(network: CrossbarNetwork, split: Images) -> tuple[NDArray[np.int64], ...]:
    """Run a split with plain searches; each layer's conversions by clipped column sum."""
    engine = network.engine
    network.engine = NetworkEngine.BITSERIAL
    network.set_searches([sar.plan_plain(network.hw, adc) for adc in _resolutions(network)])
    try:
        for start in range(0, len(split), _BATCH):
            network(split.images(start, min(len(split), start + _BATCH)))
        return _codes(network)
    finally:
        network.set_searches(None)
        network.engine = engine


def plan_searches(
    network: CrossbarNetwork,
    codes: Sequence[NDArray[np.int64]],
    *,
    budget: float = DEFAULT_BUDGET,
    output_bits: int = OUTPUT_BITS,
) -> dict[str, list[LayerSearch]]:
    """Choose every method's searches for every layer; ``early`` needs none (each column has its own resolution).

    Parameters
    ----------
    network : CrossbarNetwork
        With its certificate.
    codes : sequence of ndarray
        Conversions by clipped column sum of calibration inputs, one a layer (:func:`calibration_codes`).
    budget : float
        Of ``twin_range_lossy``; see :func:`bitline.crossbar.sar.plan_twin_range`.
    output_bits : int
        Of ``adaptive``; see :func:`bitline.crossbar.sar.output_lsb`.

    Returns
    -------
    dict
        Of method name to one search a layer.
    """
    hw = network.hw
    assert network.certificate is not None
    plans: dict[str, list[LayerSearch]] = {name: [] for name in METHODS if name != "early"}
    for layer, proof, counted in zip(network.layers, network.certificate.layers, codes, strict=True):
        adc, certified = proof.adc, proof.counts.weight_aware_per_slice
        lsb = sar.output_lsb(layer.codes, hw, layer.signed_inputs, output_bits)
        plans["plain"].append(sar.plan_plain(hw, adc))
        plans["adaptive"].append(sar.plan_adaptive(hw, adc, lsb))
        plans["twin_range"].append(sar.plan_twin_range(counted, hw, adc))
        plans["twin_range_early"].append(sar.plan_twin_range(counted, hw, adc, bits=certified))
        plans["twin_range_lossy"].append(sar.plan_twin_range(counted, hw, adc, bits=certified, budget=budget))
    return plans


def account(counted: Comparisons, hw: Hardware, adc: AdcBits, *, built: Comparisons | None = None) -> Account:
    """Price a layer's counted comparisons with the design's ADC law.

    Parameters
    ----------
    counted : Comparisons
        Of the run, whose crossbars hold the whole matrix.
    built : Comparisons, optional
        Of the crossbars that are priced (:func:`built_codes`); by default those of the run.

    Raises
    ------
    RangeError
        A resolution outside the law's domain.
    """
    energy = None
    if hw.chip is not None:
        bits = (*adc.per_slice, *(() if adc.unit is None else (adc.unit,)))
        energy = sum(
            conversion_energy(hw.chip, n).total_pj(int(conversions), int(comparisons))
            for n, conversions, comparisons in zip(bits, *(built or counted), strict=False)
        )
    return Account(
        conversions=int(counted.conversions.sum()), comparisons=int(counted.comparisons.sum()), energy_pj=energy
    )


def built_codes(
    codes: NDArray[np.int64], layer: MatrixLayer, facts: WeightFacts, hw: Hardware, adc: AdcBits
) -> NDArray[np.int64]:
    """Of a run's conversions by clipped column sum, those that the priced crossbars make.

    Columns and reads that are left out hold zeros and read 0. Where rows close up, two column sums become one: the
    conversions that remain are taken to read what the run's did. Unit columns are not priced (docs/chip_model.md).

    Parameters
    ----------
    codes : ndarray [shape=(input cycles, slices + 1, 2^bits), int64]
    layer : MatrixLayer
    facts : WeightFacts
        What the mapping leaves out of it.
    hw : Hardware
    adc : AdcBits
    """
    columns = layer.groups * -(-layer.rows // hw.read_rows) * layer.columns * hw.slices * hw.signs  # read a digit
    read = map_layer(layer, hw, facts).columns_read
    zero = 1 << (adc.bits - 1) if hw.readout is Readout.ANALOG else 0
    built = codes.copy()
    built[:, -1] = 0
    for counts in (counts for cycle in built for counts in cycle[:-1]):
        remain = int(counts.sum()) * read // columns
        counts[zero] = max(0, int(counts[zero]) - (int(counts.sum()) - remain))
        if int(counts.sum()) > remain:  # in proportion, so that as many as said remain
            counts[:] = np.diff(np.cumsum(counts.astype(object)) * remain // int(counts.sum()), prepend=0)
    return built


def early_in(built: NDArray[np.int64], counted: Comparisons) -> Comparisons:
    """The comparisons of ``early`` in the crossbars that are built: columns of zeros, which are left out, make none."""
    comparisons = counted.comparisons.copy()
    comparisons[-1] = 0  # the unit column's
    return Comparisons(built.sum(axis=(0, 2)), comparisons)


def search_adc(
    checkpoint: str | Path = "digits_resnet20_dense",
    hw: str | Path | Hardware = "tinyadc",
    data: str | Dataset | None = None,
    *,
    adc_bits: int | str | None = None,
    arch: str | None = None,
    images: int | None = None,
    normalisation: str | None = None,
    resize: int | None = None,
    crop: int | None = None,
    calibrator: str = "auto",
    calibration_images: int = 128,
    budget: float = DEFAULT_BUDGET,
    output_bits: int = OUTPUT_BITS,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Run a checkpoint with every search of a SAR ADC and report comparisons, ADC energy and accuracy.

    Searches are planned on calibration images, evaluated on test images; every conversion of every image is counted.
    Methods that read the clipped column sums themselves share one run, lossy ones have their own.

    Parameters
    ----------
    checkpoint, hw, data, adc_bits, arch, images, normalisation, resize, crop, calibrator, calibration_images
        As for :func:`bitline.simulate`.
    budget : float
        Squared error that ``twin_range_lossy`` may make on the calibration images, of the squares of the sums.
    output_bits : int
        Width of the output register that ``adaptive`` resolves for.
    progress : Progress, optional

    Returns
    -------
    dict
        ``network``, ``hardware``, ``images``, ``calibration_images``, ``budget``, ``output_bits``; ``methods``, by name
        ``conversions``, ``comparisons``, ``comparisons_per_conversion``, ``energy_pj``, ``comparison_ratio`` and
        ``energy_ratio`` (plain's over its own), ``exactness`` (``proven``: no input whatever changes an output bit,
        ``measured``: none of these images did, ``lossy``), ``accuracy``; ``layers``, by layer the same counts, the
        twin-range plans by slice, and the bits ``adaptive`` leaves unresolved by input cycle and slice.

    Raises
    ------
    BitlineError
        Any bad input; the message is one line.
    """
    progress = progress or NullProgress()
    hardware = chosen_hardware(hw, adc_bits)
    for name, number in (("images", images), ("calibration images", calibration_images)):
        if number is not None and number < 1:
            raise RangeError(f"{name}: must be at least 1, got {number}")
    prepared = prepare(checkpoint, data, arch=arch, normalisation=normalisation, resize=resize, crop=crop)
    available = len(prepared.dataset.test)
    total = available if images is None else images
    if total > available:
        raise RangeError(f"images: {total} asked for, {prepared.dataset.name} has {available} test images")
    split, source = calibration_split(prepared.dataset, calibration_images)
    batches = (split.images(start, min(len(split), start + _BATCH)) for start in range(0, len(split), _BATCH))
    network = convert(prepared.network.module, batches, hardware, calibrator=calibrator)
    plans = plan_searches(network, calibration_codes(network, split), budget=budget, output_bits=output_bits)

    runs: dict[str, SearchRun] = {}
    graph = operations(prepared.network.module, prepared.dataset.image_shape)
    for name in METHODS:
        if name != "early" and not (name != "plain" and all(search.lossless for search in plans[name])):
            progress.start(total, f"images, {name.replace('_', ' ')}")
            try:
                runs[name] = run_searches(
                    network,
                    plans[name],
                    prepared.dataset.test,
                    images=total,
                    batch_size=batch_size_for(graph),
                    label_offset=prepared.label_offset,
                    advance=progress.advance,
                )
            finally:
                progress.finish()
    layers = [_layer(network, index, plans, runs) for index in range(len(network.layers))]
    return {
        "network": prepared.checkpoint_name,
        "hardware": hardware.name,
        "data": prepared.dataset.spec,
        "images": total,
        "calibration_images": len(split),
        "calibration_source": source,
        "budget": budget,
        "output_bits": output_bits,
        "methods": _methods(network, layers, plans, runs),
        "layers": layers,
    }


def _codes(network: CrossbarNetwork) -> tuple[NDArray[np.int64], ...]:
    """Every layer's conversions by clipped column sum, zeros for one that was never reached."""
    return tuple(
        np.zeros((network.hw.input_cycles, network.hw.slices + 1, 1 << adc.bits), np.int64)
        if counters.codes is None
        else counters.codes
        for counters, adc in zip(network.counters, _resolutions(network), strict=True)
    )


def _resolutions(network: CrossbarNetwork) -> list[AdcBits]:
    assert network.certificate is not None
    return network.certificate.adc


def _layer(
    network: CrossbarNetwork, index: int, plans: Mapping[str, list[LayerSearch]], runs: Mapping[str, SearchRun]
) -> dict[str, Any]:
    """What one layer's conversions took, method by method, and the searches that the plans chose."""
    assert network.certificate is not None
    hw, layer, proof = network.hw, network.layers[index], network.certificate.layers[index]
    facts, _ = mapped_layer(layer, proof, hw)
    methods = {}
    for name in METHODS:
        codes = runs.get(name, runs["plain"]).codes[index]
        built = built_codes(codes, layer, facts, hw, proof.adc)
        if name == "early":
            counted = sar.count_early(layer.codes, codes, hw, proof.adc, layer.signed_inputs)
            priced = early_in(built, counted)
        else:
            counted = sar.count(plans[name][index], codes, hw, proof.adc)
            priced = sar.count(plans[name][index], built, hw, proof.adc)
        methods[name] = account(counted, hw, proof.adc, built=priced)
    return {
        "name": layer.name,
        "adc_bits": list(proof.adc.per_slice),
        "certified_bits": list(proof.counts.weight_aware_per_slice),
        "unresolved_bits": [[search.far_step for search in cycle] for cycle in plans["adaptive"][index].slices],
        "methods": {name: vars(found) for name, found in methods.items()},
        "plans": {
            name: [vars(search) for search in plans[name][index].slices[0]]
            for name in METHODS
            if name.startswith("twin_range")
        },
    }


def _methods(
    network: CrossbarNetwork,
    layers: Sequence[Mapping[str, Any]],
    plans: Mapping[str, list[LayerSearch]],
    runs: Mapping[str, SearchRun],
) -> dict[str, dict[str, Any]]:
    """The whole network's comparisons, energy and accuracy, method by method."""
    assert network.certificate is not None
    totals = {
        name: sum(
            (Account(**layer["methods"][name]) for layer in layers),
            Account(conversions=0, comparisons=0, energy_pj=0.0),
        )
        for name in METHODS
    }
    plain, methods = totals["plain"], {}
    for name, total in totals.items():
        result = runs.get(name, runs["plain"]).evaluation
        resolved = name == "early" or all(search.lossless for search in plans[name])
        proven = resolved and network.certificate.lossless
        methods[name] = {
            **vars(total),
            "comparisons_per_conversion": total.comparisons / max(1, total.conversions),
            "comparison_ratio": plain.comparisons / max(1, total.comparisons),
            "energy_ratio": plain.energy_pj / total.energy_pj if plain.energy_pj and total.energy_pj else None,
            "exactness": "proven" if proven else "lossy" if result.differing_images else "measured",
            "accuracy": {
                "images": result.images,
                "differing_images": result.differing_images,
                **{f"{which}_top1": result.accuracy(which, 1) for which in ("float", "integer", "simulated")},
            },
        }
    return methods
