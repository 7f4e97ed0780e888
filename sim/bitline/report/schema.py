"""What ``report.json`` holds: a typed definition, its validation and its strict JSON text.

A report is passed around as a plain dict in the shape of :class:`Report`; :func:`validate_report` converts NumPy
values, checks every field and fills the optional ones, so that text, tables and figures may rely on the shape.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import PurePath
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bitline.errors import BitlineError

__all__ = [
    "SCHEMA_VERSION",
    "AdcPoint",
    "Amount",
    "Bits",
    "Breakdown",
    "CertificateSummary",
    "Count",
    "Fraction",
    "HardwareFacts",
    "Normalised",
    "OpenSection",
    "Performance",
    "Provenance",
    "Report",
    "ReportError",
    "Section",
    "TilesAlone",
    "after_first",
    "comparison_column",
    "dump_json",
    "first_problem",
    "histogram_record",
    "json_schema",
    "nonzero_share",
    "to_plain",
    "validate_report",
]

SCHEMA_VERSION = 1

Count = Annotated[int, Field(ge=0)]
Bits = Annotated[int, Field(ge=0, le=64)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0)]


class ReportError(BitlineError, ValueError):
    """A report that does not have the documented shape; the message names the field's path."""


class Section(BaseModel):
    # strict: "8" is not a number of bits, and True is not 1
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True)


class OpenSection(Section):
    """A section that may carry more than what is named here (the chip model adds to it)."""

    model_config = ConfigDict(extra="allow")


class Provenance(OpenSection):
    """What made the report, so that it can be made again."""

    version: str
    """Version of Bitline."""
    checkpoint_sha256: str | None
    hardware_sha256: str
    seed: int | None
    engine: str | None
    """``bitserial`` or ``certified``; null where nothing was simulated."""


class Network(OpenSection):
    """The network that was put on crossbars."""

    architecture: str
    checkpoint: str | None = None
    """The checkpoint's name as shown to a reader."""
    parameters: Count | None = None
    input_shape: list[int] | None = None
    classes: Count | None = None
    cp_rate: Amount | None = None
    """Rows of a crossbar over the largest number of non-zeros in a column of any row tile; of the layers after the
    first, which pruning recipes leave dense."""


class HardwareFacts(OpenSection):
    """The hardware description's fields, as loaded (``Hardware.model_dump(mode="json")``)."""

    name: str
    rows: Count
    columns: Count
    active_rows: Count | None = None
    cell_bits: Count
    dac_bits: Count
    input_bits: Count
    weight_bits: Count
    encoding: str
    readout: str
    adc_bits: int | str
    adc_scope: str


class Normalisation(Section):
    """How pixels became network inputs: ``(pixel / 255 - mean) / std`` for the scale ``unit``."""

    name: str
    mean: list[float] = []
    std: list[float] = []
    scale: str = "unit"


class Data(Section):
    """The images that were run."""

    spec: str
    """The data set as ``--data`` names it."""
    name: str
    images: Count
    """Images run."""
    available: Count | None = None
    """Images in the split."""
    labelled: bool = True
    normalisation: Normalisation
    calibration_source: str
    """Where the images came from that set the activation scales."""
    calibration_images: Count | None = None


class LayerBits(Section):
    """ADC bits of a layer, counted in four ways (docs/contract.md)."""

    configured: Bits
    """What is simulated; the largest where slices differ."""
    equation: Bits
    paper: Bits | None
    weight_aware: Bits
    weight_aware_per_slice: list[Bits]
    configured_per_slice: list[Bits] | None = None


class Layer(Section):
    """One matrix layer on crossbars."""

    name: str
    kind: str
    rows: Count
    """Rows of one group's weight matrix."""
    columns: Count
    """Outputs of one group."""
    groups: Count
    row_tiles: Count
    crossbars: Count
    """Crossbars that one copy takes on the chip."""
    crossbars_left_out: Count = 0
    """Crossbars that it would take with no weight zero, less those."""
    nonzeros_max: Count
    """Largest number of non-zero weights in one column of one row tile."""
    adc_bits: LayerBits
    lossless: bool
    """Proven: no input code vector saturates any conversion at the configured bits."""
    max_column_sum: Count | None
    """Largest column sum seen in the run."""
    conversions: Count | None
    """Conversions of the whole run."""
    saturations: Count | None
    macs: Count | None
    """Multiply-accumulates of one image."""
    column_sum_bound: Count | None = None
    """The largest column sum any input can reach (proven, S_max)."""
    weights: Count | None = None
    """Of all groups."""
    nonzeros: Count | None = None
    """Weights that are not zero, of all groups."""
    cp_rate: Amount | None = None
    signed_inputs: bool | None = None

    @model_validator(mode="after")
    def _counts_agree(self) -> Layer:
        if self.saturations is not None and (self.conversions is None or self.saturations > self.conversions):
            raise ValueError(f"saturations: must be at most conversions ({self.conversions}), got {self.saturations}")
        return self


class ChipBits(Section):
    """The largest of the layers' bit counts."""

    equation: Bits
    paper: Bits | None
    weight_aware: Bits


class CertificateSummary(Section):
    """The proof in short; ``certificate.json`` has all of it."""

    lossless: bool
    adc_bits: ChipBits


class Accuracy(Section):
    """Fractions of correct answers (0..1); null where the data has no labels or too few classes."""

    images: Count
    float_top1: Fraction | None
    integer_top1: Fraction | None
    simulated_top1: Fraction | None
    float_top5: Fraction | None
    integer_top5: Fraction | None
    simulated_top5: Fraction | None
    identical_to_integer: bool | None
    """The simulated outputs equal the exact integer network's, bit for bit, on every image."""
    differing_images: Count | None = None


class LayerOccupancy(OpenSection):
    """How busy a layer's crossbars are in the steady state, and what they wait for."""

    name: str
    occupancy: Fraction
    stalls: dict[str, Fraction] = {}
    """Reason to fraction of the time."""
    replication: Count | None = None
    bottleneck: bool = False


class TilesAlone(Section):
    """Figures of the tiles without what is counted once a chip, which dominates small networks."""

    energy_uj_per_image: Amount
    energy_by_event_uj_per_image: Amount | None
    area_mm2: Amount
    power_w: Amount
    average_power_w: Amount
    gops_per_s_mm2: Amount
    gops_per_w: Amount


class Performance(OpenSection):
    """The chip model's timing and price."""

    cycles: Count
    images_per_s: Amount
    latency_us: Amount
    energy_uj_per_image: Amount
    """At full activity: every component is on while its layer works."""
    energy_by_event_uj_per_image: Amount | None = None
    """With the conversions, driven word lines and cells on that a bit-serial run counted; null without one."""
    lines_driven: Fraction | None = None
    """Word lines driven, of those of all crossbars, in a read of the run; null where none were counted."""
    cells_on: Fraction | None = None
    """Cells of a level that is not zero on driven word lines, of those of all crossbars, in a read of the run."""
    area_mm2: Amount
    power_w: Amount
    gops_per_s_mm2: Amount
    gops_per_w: Amount
    tiles_alone: TilesAlone | None = None
    """The same figures without what a chip has once (its links)."""
    tiles: Count
    crossbars: Count
    """Of all copies of all layers, a layer that is called several times laid out once a call."""
    dropped_crossbars: Count = 0
    """Crossbars that these would take with no weight zero, less those."""
    replication: dict[str, int]
    layers: list[LayerOccupancy] = []


class Breakdown(OpenSection):
    """Area and power by component."""

    area_mm2: dict[str, Amount]
    power_w: dict[str, Amount]
    energy_uj: dict[str, Amount] = {}
    """Of one image at full activity."""
    energy_by_event_uj: dict[str, Amount] | None = None
    """Of one image with ADCs, DACs and cells by event."""
    off_tile: list[str] = []
    """Components counted once a chip (HyperTransport)."""


class Normalised(OpenSection):
    """Area and power as a fraction of the non-pruned design's."""

    area: Amount
    """Of the whole chip, or chips."""
    power: Amount
    area_tiles: Amount | None = None
    """Of the tiles alone: without what is counted once a chip (HyperTransport), which dominates small networks."""
    power_tiles: Amount | None = None
    baseline: str = ""
    """What the non-pruned design is."""


class KeptInTorch(Section):
    """Something the crossbars do not compute."""

    name: str
    kind: str
    reason: str = ""
    macs: Count | None = None
    """Multiply-accumulates of one image; None where not known."""


class NotOnCrossbars(Section):
    """What multiplies elsewhere."""

    name: str
    kind: str
    macs: Count | None


class Coverage(Section):
    """How much of the network is on crossbars; counts are of one image."""

    macs_on_crossbars: Count | None
    macs_total: Count | None
    unfolded_norms: Count
    not_on_crossbars: list[NotOnCrossbars]


class Calibration(Section):
    """How a layer's activation scale was chosen."""

    name: str
    calibrator: str
    error: Amount | None
    measure: str = ""
    """What ``error`` measures."""
    scale: float | None = None
    candidates: dict[str, float | None] = {}
    """Error of every calibrator that was tried."""


class Histogram(Section):
    """Column sums of a layer (or of one weight slice of it) over the run."""

    layer: str
    slice: Count | None = None
    adc_bits: Bits
    full_scale: Count
    """Largest column sum the ADC can tell, ``2^N - 1`` (``2^(N-1) - 1`` for analog readout, of absolute sums)."""
    counts: list[Count]
    """``counts[s]`` conversions had the column sum ``s``."""
    images: Count | None = None
    """Images counted, where not all of the run's were."""
    overflow: Count = 0
    """Conversions whose column sum was larger than the bins reach."""


class Timing(Section):
    """How long the simulation itself took, and on what."""

    seconds: Amount
    """All of it, loading and comparing included."""
    images_per_s: Amount | None
    """Of the simulated network alone."""
    conversions_per_s: Amount | None
    """Of the simulated network alone, all threads together."""
    threads: Count | None
    phases: dict[str, Amount] = {}
    """Seconds by phase."""
    machine: dict[str, str | int | float] = {}


class AdcPoint(OpenSection):
    """One design point of a sweep over the ADC's resolution."""

    adc_bits: Bits
    gops_per_w: Amount
    gops_per_s_mm2: Amount | None = None
    law: str = ""
    """The rule that scaled the ADC."""


class ComparisonColumn(Section):
    """One design in a side-by-side table; the first is the baseline. :func:`comparison_column` makes one."""

    name: str
    images: Count | None = None
    cp_rate: Amount | None = None
    nonzeros: Fraction | None = None
    """Weights that are not zero, of all."""
    nonzeros_max: Count | None = None
    """Of the layers that ``cp_rate`` is of."""
    adc_bits: Bits | None = None
    equation: Bits | None = None
    paper: Bits | None = None
    weight_aware: Bits | None = None
    lossless: bool | None = None
    float_top1: Fraction | None = None
    integer_top1: Fraction | None = None
    simulated_top1: Fraction | None = None
    identical_to_integer: bool | None = None
    conversions: Count | None = None
    saturations: Count | None = None
    crossbars: Count | None = None
    images_per_s: Amount | None = None
    latency_us: Amount | None = None
    tiles_energy_uj_per_image: Amount | None = None
    """Of the tiles alone, at full activity; the other ``tiles_`` figures are theirs too."""
    tiles_energy_by_event_uj_per_image: Amount | None = None
    tiles_area_mm2: Amount | None = None
    tiles_power_w: Amount | None = None
    tiles_gops_per_s_mm2: Amount | None = None
    tiles_gops_per_w: Amount | None = None
    energy_uj_per_image: Amount | None = None
    area_mm2: Amount | None = None
    power_w: Amount | None = None
    gops_per_s_mm2: Amount | None = None
    gops_per_w: Amount | None = None


class Report(Section):
    """``report.json``, schema version 1."""

    schema_version: Annotated[int, Field(ge=SCHEMA_VERSION, le=SCHEMA_VERSION)] = SCHEMA_VERSION
    command: str
    provenance: Provenance
    network: Network
    hardware: HardwareFacts
    data: Data | None = None
    layers: list[Layer]
    certificate: CertificateSummary
    accuracy: Accuracy | None = None
    performance: Performance | None = None
    breakdown: Breakdown | None = None
    normalised: Normalised | None = None
    comparison: list[ComparisonColumn] = []
    adc_sweep: list[AdcPoint] = []
    coverage: Coverage | None = None
    kept_in_torch: list[KeptInTorch] = []
    calibration: list[Calibration] = []
    histograms: list[Histogram] = []
    timing: Timing | None = None
    notes: list[str] = []
    files: list[str] = []
    """Names of the files written with this report, relative to its folder."""


def to_plain(value: Any, path: str = "report") -> Any:
    """Convert NumPy numbers and arrays, enums, tuples, dataclasses and models to plain JSON values.

    Not-a-number and infinities become None: JSON has no word for them.

    Raises
    ------
    ReportError
        A value JSON cannot hold, or a key that is not text; the message has its path.
    """
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, (BaseModel, np.ndarray, np.generic)):
        value = value.model_dump(mode="json") if isinstance(value, BaseModel) else value.tolist()
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (str, PurePath)):  # a file's name need not be text: \\udcff stands for a byte that is none
        return str(value).encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ReportError(f"{path}: keys must be text, got {key!r}")
        return {str(key): to_plain(item, f"{path}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item, f"{path}.{index}") for index, item in enumerate(value)]
    raise ReportError(f"{path}: must be a JSON value, got {type(value).__name__}")


def validate_report(report: Mapping[str, Any]) -> dict[str, Any]:
    """Check a report against the schema and return it as plain JSON values, optional fields filled in.

    Parameters
    ----------
    report : mapping
        In the shape of :class:`Report`; NumPy scalars and arrays, enums and dataclasses are converted.

    Returns
    -------
    dict
        A new dict that ``json.dumps(..., allow_nan=False)`` accepts.

    Raises
    ------
    ReportError
        A field is missing, unknown, of the wrong type or impossible; the message has the field's path.
    """
    if not isinstance(report, Mapping):
        raise ReportError(f"report: must be a mapping, got {type(report).__name__}")
    try:
        return Report.model_validate(to_plain(report)).model_dump(mode="json")
    except ValidationError as error:
        raise ReportError(first_problem(error)) from None


def first_problem(error: ValidationError) -> str:
    """Return the first thing wrong with a report, with the field's path, in one line."""
    first = error.errors()[0]
    path = ".".join(["report", *(str(part) for part in first["loc"])])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "unknown field"
    got = "" if first["type"] in ("missing", "value_error") else f", got {_short(first['input'])}"
    return f"{path}: {message}{got}"


def _short(value: object, limit: int = 60) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= limit else text[: limit - 3] + "..."


def dump_json(value: Any) -> str:
    """Return strict JSON text (no NaN; NumPy converted), one document with a final newline.

    Raises
    ------
    ReportError
        A value JSON cannot hold.
    """
    return json.dumps(to_plain(value, "value"), allow_nan=False, indent=2) + "\n"


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of ``report.json``, for editors and for other programs."""
    return Report.model_json_schema()


def histogram_record(
    layer: str,
    histogram: NDArray[np.int64] | Sequence[int],
    *,
    adc_bits: int,
    full_scale: int | None = None,
    slice_index: int | None = None,
    images: int | None = None,
) -> dict[str, Any]:
    """Return the report's record of a column-sum histogram.

    Parameters
    ----------
    histogram : ndarray [shape=(bins,), int64]
        ``histogram[s]`` conversions had the column sum ``s``; the last bin collects everything larger too, as the
        engines fill it.
    adc_bits : int
        The ADC's resolution N.
    full_scale : int, optional
        Largest sum the ADC can tell; ``2^N - 1`` unless given.
    slice_index : int, optional
        The weight slice counted; all of the layer's unless given.
    images : int, optional
        Images counted, where not all of the run's were.

    Raises
    ------
    ReportError
        The histogram is empty or not one-dimensional.
    """
    counts = np.asarray(histogram)
    if counts.ndim != 1 or counts.size == 0:
        raise ReportError(f"histogram of {layer}: must be a non-empty vector, got shape {counts.shape}")
    inside = np.trim_zeros(counts[:-1], "b")
    return {
        "layer": layer,
        "slice": slice_index,
        "images": images,
        "adc_bits": int(adc_bits),
        "full_scale": (1 << adc_bits) - 1 if full_scale is None else int(full_scale),
        "counts": inside.tolist(),
        "overflow": int(counts[-1]),
    }


def comparison_column(name: str, report: Mapping[str, Any]) -> dict[str, Any]:
    """Return one column of a side-by-side comparison, taken from a report.

    Parameters
    ----------
    name : str
        The column's heading, such as "CP rate 16".
    report : mapping
        A report in the shape of :class:`Report`.

    Raises
    ------
    ReportError
        ``report`` does not have the documented shape.
    """
    full = validate_report(report)
    layers, chip = full["layers"], full["certificate"]["adc_bits"]
    accuracy, performance = full["accuracy"] or {}, full["performance"] or {}
    column: dict[str, Any] = {
        "name": name,
        "images": accuracy.get("images"),
        "cp_rate": full["network"]["cp_rate"],
        "nonzeros": nonzero_share(layers),
        "nonzeros_max": max((layer["nonzeros_max"] for layer in after_first(layers)), default=None),
        "adc_bits": max((layer["adc_bits"]["configured"] for layer in layers), default=None),
        **chip,
        "lossless": full["certificate"]["lossless"],
        "conversions": total(layers, "conversions"),
        "saturations": total(layers, "saturations"),
        "crossbars": total(layers, "crossbars"),
    }
    for key in ("float_top1", "integer_top1", "simulated_top1", "identical_to_integer"):
        column[key] = accuracy.get(key)
    for key in (
        "images_per_s",
        "latency_us",
        "energy_uj_per_image",
        "area_mm2",
        "power_w",
        "gops_per_s_mm2",
        "gops_per_w",
    ):
        column[key] = performance.get(key)
    for key, value in (performance.get("tiles_alone") or {}).items():
        if f"tiles_{key}" in ComparisonColumn.model_fields:
            column[f"tiles_{key}"] = value
    return ComparisonColumn.model_validate(column).model_dump(mode="json")


def after_first(layers: Sequence[Any]) -> Sequence[Any]:
    """The layers after the first, which pruning recipes leave dense; or the only one."""
    return layers[1:] or layers


def nonzero_share(layers: Sequence[Mapping[str, Any]]) -> float | None:
    """Weights of these layers that are not zero, of all; None where that was not counted."""
    weights, nonzeros = total(layers, "weights"), total(layers, "nonzeros")
    return nonzeros / weights if weights and nonzeros is not None else None


def total(layers: Sequence[Mapping[str, Any]], key: str) -> int | None:
    """Sum a field over the layers; None where any layer lacks it."""
    values = [layer[key] for layer in layers]
    return None if not values or any(value is None for value in values) else int(sum(values))
