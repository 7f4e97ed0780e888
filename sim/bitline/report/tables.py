"""The report's tables: one description of their columns, from which text, Markdown and CSV are made."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bitline.printable import clean, shorten

__all__ = [
    "COMPARISON_ROWS",
    "LAYER_COLUMNS",
    "Column",
    "comparison_table",
    "layer_table",
    "layers_csv",
    "percent",
    "plain_table",
]

_Row = Mapping[str, Any]


def percent(fraction: float | None) -> str:
    """A fraction as a percentage with two decimals."""
    return "-" if fraction is None else f"{100 * fraction:.2f}%"


def number(value: float | None) -> str:
    """A number for a person: counts with separators, others with four digits."""
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def show(value: Any) -> str:
    """Any cell for a person."""
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, list):
        return " ".join(str(item) for item in value)
    return number(value) if value is None or isinstance(value, (int, float)) else str(value)


@dataclass(frozen=True)
class Column:
    """One column (of the layer table) or row (of the comparison): what it is called and where it comes from."""

    key: str
    """Its name in ``layers.csv``, with the unit."""
    title: str | None
    """Its heading for a person, set in two lines at a line break; None for CSV only."""
    value: Callable[[_Row], Any]
    show: Callable[[Any], str] = show
    left: bool = False
    """Text, set to the left; numbers are set to the right."""


def _field(key: str) -> Callable[[_Row], Any]:
    return lambda row: row.get(key)


def _bits(key: str) -> Callable[[_Row], Any]:
    return lambda row: row["adc_bits"][key]


def paper_lossless(layer: _Row) -> bool | None:
    """Whether the paper's bit count suffices for this layer's weights; None where it is not defined."""
    bits = layer["adc_bits"]
    return None if bits["paper"] is None else bool(bits["paper"] >= bits["weight_aware"])


def _nonzeros(layer: _Row) -> float | None:
    weights, nonzeros = layer["weights"], layer["nonzeros"]
    return nonzeros / weights if weights and nonzeros is not None else None


def _matrix(layer: _Row) -> str:
    groups = f"{layer['groups']} x " if layer["groups"] > 1 else ""
    return f"{groups}{layer['rows']} x {layer['columns']}"


def _paper(layer: _Row) -> str:
    bits = layer["adc_bits"]["paper"]
    return "-" if bits is None else f"{bits}{'' if paper_lossless(layer) else '!'}"


LAYER_COLUMNS: tuple[Column, ...] = (
    Column("name", "layer", _field("name"), shorten, left=True),
    Column("kind", None, _field("kind")),
    Column("matrix", "rows x\ncolumns", _matrix),
    Column("rows", None, _field("rows")),
    Column("columns", None, _field("columns")),
    Column("groups", None, _field("groups")),
    Column("row_tiles", None, _field("row_tiles")),
    Column("crossbars", "cross-\nbars", _field("crossbars")),
    Column("crossbars_left_out", "left\nout", _field("crossbars_left_out")),
    Column("nonzeros_max", "most\na col.", _field("nonzeros_max")),
    Column("weights", None, _field("weights")),
    Column("nonzeros", None, _field("nonzeros")),
    Column("nonzero_share", "not\nzero", _nonzeros, lambda share: "-" if share is None else f"{100 * share:.1f}%"),
    Column("cp_rate", None, _field("cp_rate")),
    Column("signed_inputs", None, _field("signed_inputs")),
    Column("adc_bits_equation", "Eq.\n(1)", _bits("equation")),
    Column("adc_bits_paper_shown", "paper", _paper),
    Column("adc_bits_paper", None, _bits("paper")),
    Column("paper_lossless", None, paper_lossless),
    Column("adc_bits_weight_aware", "needed", _bits("weight_aware")),
    Column("adc_bits_weight_aware_per_slice", "slices\n0 up", _bits("weight_aware_per_slice")),
    Column("adc_bits_configured", "ADC\nbits", _bits("configured")),
    Column("adc_bits_configured_per_slice", None, _bits("configured_per_slice")),
    Column("lossless", "lossless", _field("lossless")),
    Column("column_sum_bound", None, _field("column_sum_bound")),
    Column("max_column_sum", "max\nsum", _field("max_column_sum")),
    Column("conversions", None, _field("conversions")),
    Column("saturations", "satu-\nrations", _field("saturations")),
    Column("macs", None, _field("macs")),
    Column("calibrator", None, _field("calibrator")),
    Column("calibration_error", None, _field("calibration_error")),
    Column("occupancy", None, _field("occupancy")),
    Column("replication", None, _field("replication")),
    Column("lines_driven", None, _field("lines_driven")),
    Column("cells_on", None, _field("cells_on")),
)
_TEXT_ONLY = {"matrix", "adc_bits_paper_shown"}

COMPARISON_ROWS: tuple[Column, ...] = (
    Column("images", "images", _field("images")),
    Column("nonzeros", "weights that are not zero", _field("nonzeros"), percent),
    Column("cp_rate", "CP rate after the first layer", _field("cp_rate")),
    Column("nonzeros_max", "non-zeros in a column there, at most", _field("nonzeros_max")),
    Column("equation", "ADC bits by Eq. (1)", _field("equation")),
    Column("paper", "ADC bits by the paper's count", _field("paper")),
    Column("weight_aware", "ADC bits needed (proven)", _field("weight_aware")),
    Column("adc_bits", "ADC bits simulated", _field("adc_bits")),
    Column("lossless", "proven lossless", _field("lossless")),
    Column("float_top1", "top-1, float", _field("float_top1"), percent),
    Column("integer_top1", "top-1, exact integer network", _field("integer_top1"), percent),
    Column("simulated_top1", "top-1, simulated crossbars", _field("simulated_top1"), percent),
    Column("identical_to_integer", "outputs identical to integer", _field("identical_to_integer")),
    Column("conversions", "conversions", _field("conversions")),
    Column("saturations", "saturations", _field("saturations")),
    Column("crossbars", "crossbars", _field("crossbars")),
    Column("images_per_s", "chip: images/s", _field("images_per_s")),
    Column("latency_us", "chip: latency (us)", _field("latency_us")),
    Column(
        "tiles_energy_by_event_uj_per_image",
        "tiles: energy per image (uJ), by event",
        _field("tiles_energy_by_event_uj_per_image"),
    ),
    Column(
        "tiles_energy_uj_per_image",
        "tiles: energy per image (uJ), full activity",
        _field("tiles_energy_uj_per_image"),
    ),
    Column("tiles_area_mm2", "tiles: area (mm2)", _field("tiles_area_mm2")),
    Column("tiles_power_w", "tiles: power (W)", _field("tiles_power_w")),
    Column("tiles_gops_per_s_mm2", "tiles: GOPS/s/mm2", _field("tiles_gops_per_s_mm2")),
    Column("tiles_gops_per_w", "tiles: GOPS/W", _field("tiles_gops_per_w")),
    Column("energy_uj_per_image", "chip: energy per image (uJ), full activity", _field("energy_uj_per_image")),
    Column("area_mm2", "chip: area (mm2)", _field("area_mm2")),
    Column("power_w", "chip: power (W)", _field("power_w")),
    Column("gops_per_s_mm2", "chip: GOPS/s/mm2", _field("gops_per_s_mm2")),
    Column("gops_per_w", "chip: GOPS/W", _field("gops_per_w")),
)


@dataclass(frozen=True)
class Table:
    """Headings and cells as text, ready to be set."""

    headings: list[str]
    rows: list[list[str]]
    left: list[bool]


def layer_table(report: _Row) -> Table:
    """The layers for a person: the columns with a title, less those that are empty everywhere."""
    layers = report["layers"]
    columns = [
        column
        for column in LAYER_COLUMNS
        if column.title is not None and (not layers or any(column.value(layer) is not None for layer in layers))
    ]
    return Table(
        [column.title or "" for column in columns],
        [[column.show(column.value(layer)) for column in columns] for layer in layers],
        [column.left for column in columns],
    )


def comparison_table(report: _Row) -> Table:
    """Designs side by side, a figure a row; figures that no design has are left out."""
    designs = report["comparison"]
    rows = []
    for row in COMPARISON_ROWS:
        values = [row.value(design) for design in designs]
        if any(value is not None for value in values):
            rows.append([row.title or row.key, *("-" if value is None else row.show(value) for value in values)])
    return Table(["", *(shorten(design["name"]) for design in designs)], rows, [True, *(False for _ in designs)])


def plain_table(table: Table, indent: str = "  ") -> str:
    """Set a table in aligned plain text, with a rule below the headings."""
    split = [heading.split("\n") for heading in table.headings]
    height = max((len(lines) for lines in split), default=1)
    padded = [[""] * (height - len(lines)) + lines for lines in split]
    headings = [[lines[i] for lines in padded] for i in range(height)]
    widths = [max(len(row[i]) for row in [*headings, *table.rows]) for i in range(len(split))]

    def line(row: Sequence[str]) -> str:
        parts = [
            cell.ljust(width) if left else cell.rjust(width)
            for cell, width, left in zip(row, widths, table.left, strict=True)
        ]
        return (indent + "  ".join(parts)).rstrip()

    rule = indent + "  ".join("-" * width for width in widths)
    return "\n".join([*(line(row) for row in headings), rule, *(line(row) for row in table.rows)]) + "\n"


def layers_csv(report: _Row) -> str:
    """Return ``layers.csv``: a line a layer, plain numbers, empty where a figure is missing.

    Parameters
    ----------
    report : mapping
        A validated report.
    """
    calibration = {entry["name"]: entry for entry in report["calibration"]}
    timing = {entry["name"]: entry for entry in (report["performance"] or {}).get("layers", [])}
    columns = [column for column in LAYER_COLUMNS if column.key not in _TEXT_ONLY]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([column.key for column in columns])
    for layer in report["layers"]:
        more = calibration.get(layer["name"], {})
        row = {
            **layer,
            "calibrator": more.get("calibrator"),
            "calibration_error": more.get("error"),
            "occupancy": timing.get(layer["name"], {}).get("occupancy"),
            **{key: timing.get(layer["name"], {}).get(key) for key in ("replication", "lines_driven", "cells_on")},
        }
        writer.writerow([_csv_cell(column.value(row)) for column in columns])
    return text.getvalue()


def _csv_cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return " ".join(str(item) for item in value)
    return repr(value) if isinstance(value, float) else clean(str(value))
