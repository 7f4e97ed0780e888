"""Certificates as text: the proof layer by layer, and the what-if table over CP rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bitline.report.coverage import coverage_lines
from bitline.report.tables import Table, plain_table

__all__ = ["certificate_text", "cp_table_text"]


def certificate_text(
    document: Mapping[str, Any],
    network: str | None = None,
    compared: str | None = None,
    notes: Sequence[str] = (),
) -> str:
    """A certificate (the file's content) for a terminal: verdict, then one line a layer.

    Parameters
    ----------
    document : mapping
        :meth:`bitline.crossbar.certificate.NetworkCertificate.to_json`'s result.
    network : str, optional
        Architecture's name, to be shown.
    compared : str, optional
        Inputs on which the network was compared with the checkpoint's module.
    notes : sequence of str
        What was assumed of the network or done to its weights.
    """
    layers, bits, hw = document["layers"], document["adc_bits"], document["hardware"]
    refuted = [layer for layer in layers if not layer["lossless"]]
    if document["lossless"]:
        verdict = "PROVEN LOSSLESS: no input code vector saturates any column at the configured ADC bits"
    else:
        verdict = f"NOT LOSSLESS at the configured ADC bits: {len(refuted)} of {len(layers)} layers have a witness"
    configured = [layer["adc_bits"]["configured"] for layer in layers]
    span = f"{min(configured)}" if len(set(configured)) == 1 else f"{min(configured)} to {max(configured)}"
    paper = "does not apply" if bits["paper"] is None else f"{bits['paper']}"
    turns = f", {hw['active_rows']} on at once" if hw.get("active_rows") else ""
    digits = f" of {hw['digits']} digits" if hw.get("digits") else ""
    lines = [
        f"{verdict}.",
        *([f"Network {network}: {len(layers)} layers on crossbars."] if network else []),
        *(
            [f"Traced and with batch norm folded, it computes what its module does, compared on {compared}."]
            if compared
            else []
        ),
        f"Hardware {hw['name']}: {hw['rows']} rows{turns}, {hw['cell_bits']}-bit cells, "
        f"{hw['dac_bits']}-bit inputs a cycle, {hw['encoding']}{digits}; ADC {hw['adc_bits']}: {span} bits.",
        *(f"{line[0].upper()}{line[1:]}." for line in coverage_lines(document.get("coverage"))),
        f"ADC bits for the whole chip: equation {bits['equation']}, paper {paper}, proven {bits['weight_aware']}.",
        *(f"Note: {note}." for note in notes),
        "",
    ]
    rows = []
    for layer in layers:
        counts = layer["adc_bits"]
        rate = layer["cp_rate"]
        short = counts["paper"] is not None and counts["paper"] < counts["weight_aware"]
        rows.append(
            [
                layer["name"],
                f"{layer['groups']} x {layer['rows']} x {layer['columns']}"
                if layer["groups"] > 1
                else f"{layer['rows']} x {layer['columns']}",
                str(layer["row_tiles"]),
                str(layer["nonzeros_max"]),
                "-" if rate is None else f"{rate:.3g}",
                str(counts["equation"]),
                "-" if counts["paper"] is None else f"{counts['paper']}{'!' if short else ''}",
                str(counts["weight_aware"]),
                " ".join(str(n) for n in counts["weight_aware_per_slice"]),
                str(counts["configured"]),
                str(layer["max_column_sum"]),
                "yes" if layer["lossless"] else f"NO ({layer['refuted_columns']} columns)",
            ]
        )
    heads = [
        "layer",
        "matrix",
        "row tiles",
        "non-zeros",
        "CP rate",
        "equation",
        "paper",
        "proven",
        "slices 0 up",
        "ADC",
        "largest sum",
        "lossless",
    ]
    text = "\n".join(lines) + "\n" + plain_table(Table(heads, rows, [True, *[False] * 10, True]))
    if any("!" in row[6] for row in rows):
        text += "  ! the paper's count is below what these weights need: not lossless there\n"
    return text


def cp_table_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The what-if table of :func:`bitline.simulation.cp_table` for a terminal."""
    body = [
        [
            str(row["cp_rate"]),
            str(row["nonzeros_max"]),
            str(row["equation"]),
            "-" if row["paper"] is None else str(row["paper"]),
            str(row["weight_aware"]),
            " ".join(str(n) for n in row["weight_aware_per_slice"]),
            f"{len(row['paper_not_lossless'])} of {row['layers']}"
            + (f": {', '.join(row['paper_not_lossless'][:3])}" if row["paper_not_lossless"] else "")
            + (", ..." if len(row["paper_not_lossless"]) > 3 else ""),
        ]
        for row in rows
    ]
    heads = [
        "CP rate",
        "non-zeros",
        "equation",
        "paper",
        "proven",
        "slices 0 up",
        "layers where the paper's count is short",
    ]
    first = rows[0]["first_layer"]
    note = (
        "One-shot projection of every layer but the first, no retraining; bits: the largest of the projected layers.\n"
        f"The exempt first layer, {first['name']}, needs {first['weight_aware']} bits at every rate.\n\n"
    )
    return note + plain_table(Table(heads, body, [False] * 6 + [True]))
