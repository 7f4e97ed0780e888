"""What ``bitline throughput`` reports: a typed definition of its ``report.json``, and its validation.

One document is about one design; further designs stand beside it in ``others``, each in the same shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from bitline.report.schema import (
    SCHEMA_VERSION,
    AdcPoint,
    Amount,
    Bits,
    Breakdown,
    CertificateSummary,
    Count,
    Coverage,
    Fraction,
    HardwareFacts,
    Normalised,
    OpenSection,
    Performance,
    Provenance,
    ReportError,
    Section,
    first_problem,
    to_plain,
)

__all__ = ["ThroughputReport", "validate_throughput"]


class ComponentRow(Section):
    """All units of one component in one IMA, tile or chip."""

    name: str
    level: Literal["ima", "tile", "chip"]
    units: Amount
    power_mw: Amount
    area_mm2: Amount
    source: str


class LevelTotal(Section):
    """Power and area of one IMA, tile or chip with everything in it."""

    power_mw: Amount
    area_mm2: Amount


class AdcShare(Section):
    """What the ADCs are of a tile."""

    power: Fraction
    area: Fraction


class PublishedPeak(Section):
    """What a paper prints for a design, to stand beside what its component table gives."""

    name: str
    source: str
    ima_power_mw: Amount
    ima_area_mm2: Amount
    tile_power_mw: Amount
    tile_area_mm2: Amount
    chip_power_w: Amount
    chip_area_mm2: Amount
    tops: Amount
    gops_per_w: Amount
    gops_per_s_mm2: Amount
    gops_per_w_of_printed_power: Amount
    """Our rate over the printed power of the chip."""
    gops_per_s_mm2_of_printed_area: Amount
    """Our rate over the printed area of the chip."""


class PeakSection(Section):
    """A whole chip with every crossbar busy."""

    hardware: str
    adc_bits: Bits
    adc_bits_from: str
    full_column_bits: Count
    """Bits that would hold the sum of a full column at the largest input digit."""
    holds_full_columns: bool
    adc_law: str
    components: list[ComponentRow]
    totals: dict[Literal["ima", "tile", "chip"], LevelTotal]
    adc_share_of_tile: AdcShare
    cycle_ns: Amount
    cycle_set_by: str
    crossbars: Count
    tops: Amount
    power_w: Amount
    area_mm2: Amount
    gops_per_w: Amount
    gops_per_s_mm2: Amount
    published: PublishedPeak | None = None


class LayerAdc(Section):
    """ADC bits of a layer; what only weights tell is null without a checkpoint."""

    configured: Bits
    """What is priced; the largest where slices differ."""
    configured_per_slice: list[Bits]
    equation: Bits | None = None
    paper: Bits | None = None
    weight_aware: Bits | None = None
    weight_aware_per_slice: list[Bits] | None = None


class LayerOnChip(OpenSection):
    """One matrix layer on the chip; counts of crossbars and tiles are of all its replicas unless said."""

    name: str
    rows: Count
    columns: Count
    groups: Count
    row_tiles: Count
    crossbars_per_replica: Count
    dropped_crossbars: Count
    removed_rows: Count
    removed_columns: Count
    replicas: Count
    crossbars: Count
    imas: Count
    cell_utilisation: Fraction
    adc_bits: LayerAdc
    lossless: bool | None = None
    nonzeros_max: Count | None = None
    positions: Count
    macs: Count
    interval_cycles: Amount
    interval_set_by: str
    busy_cycles: Amount
    occupancy: Fraction
    stalls: dict[str, Fraction]
    power_w: Amount
    area_mm2: Amount
    energy_uj: Amount


class LadderStep(Section):
    """The network with all ADCs but the first layer's at one resolution, relative to the non-pruned design."""

    name: str
    adc_bits: Bits | None
    area: Amount
    power: Amount
    area_tiles: Amount
    power_tiles: Amount


class NetworkFacts(Section):
    """The network that is priced."""

    architecture: str
    checkpoint: str | None = None
    input_shape: list[int]
    matrix_layers: Count
    macs: Count
    """Multiply-accumulates of one image on crossbars."""
    coverage: Coverage | None = None
    weights: str
    """Where the weights' zeros come from: the checkpoint, or dense for want of one."""


class LawSpread(Section):
    """Least and most over the ADC laws that know the resolution: of the chip, or of a network's tiles alone."""

    laws: list[str]
    power_w: list[Amount]
    area_mm2: list[Amount]
    energy_uj: list[Amount] | None = None


class Design(Section):
    """One hardware description, and a network on it where one is given."""

    hardware: HardwareFacts
    hardware_sha256: str
    peak: PeakSection
    layers: list[LayerOnChip] = Field(default_factory=list)
    certificate: CertificateSummary | None = None
    performance: Performance | None = None
    breakdown: Breakdown | None = None
    normalised: Normalised | None = None
    bottleneck: str | None = None
    """The slowest operation and why, as a sentence."""
    adc_law_spread: LawSpread | None = None
    buffers: list[dict[str, Any]] = Field(default_factory=list)
    ladder: list[LadderStep] = Field(default_factory=list)
    adc_sweep: list[AdcPoint] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)


class ThroughputReport(Design):
    """``report.json`` of ``bitline throughput``."""

    schema_version: Annotated[int, Field(ge=SCHEMA_VERSION, le=SCHEMA_VERSION)] = SCHEMA_VERSION
    command: str
    provenance: Provenance
    network: NetworkFacts | None = None
    others: list[Design] = Field(default_factory=list)
    """Further designs, in the order they were named."""
    files: list[str] = Field(default_factory=list)


def validate_throughput(report: Mapping[str, Any]) -> dict[str, Any]:
    """Check a report against the schema and return it as plain JSON values, optional fields filled in.

    Raises
    ------
    ReportError
        A field is missing, unknown, of the wrong type or impossible; the message has the field's path.
    """
    try:
        return ThroughputReport.model_validate(to_plain(report)).model_dump(mode="json")
    except ValidationError as error:
        raise ReportError(first_problem(error)) from None
