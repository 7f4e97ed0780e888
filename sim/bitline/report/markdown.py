"""The report as Markdown: ``report.md``, with the figures linked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bitline.printable import clean
from bitline.report.summary import summary_lines, title
from bitline.report.tables import Table, comparison_table, layer_table, show
from bitline.report.text import PAPER_NOTE, has_short_paper_count

__all__ = ["CAPTIONS", "escape", "escaped", "markdown_report", "markdown_table"]

CAPTIONS = {
    "accuracy": "Top-1 accuracy of the float network, the exact integer network and the simulated crossbars.",
    "bits": "ADC bits each weight slice needs, proven, against the bits configured.",
    "column_sums": "Column sums of the conversions, counted on a logarithmic scale, and the ADC's full scale.",
    "breakdown": "Area, power and energy of the tiles by component; what the chip has besides them stands at the left.",
    "occupancy": "Share of the time each layer's crossbars compute in the steady state, and what they wait for.",
    "normalised": "Area and power normalised to the non-pruned design.",
    "efficiency": "Power efficiency against the resolution of the ADC.",
}


def markdown_report(report: Mapping[str, Any], figures: Sequence[str] = ()) -> str:
    """Return the report as Markdown.

    Parameters
    ----------
    report : mapping
        A validated report.
    figures : sequence of str
        Paths of the PNG figures relative to ``report.md``; the file's stem is the figure's name.
    """
    parts = [f"# {escape(title(report))}\n"]
    parts.append(
        markdown_table(Table(["", ""], [[f"**{a}**", escape(b)] for a, b in summary_lines(report)], [True, True]))
    )
    if report["comparison"]:
        parts.append("## Side by side\n\n" + markdown_table(escaped(comparison_table(report))))
    if report["layers"]:
        note = f"\n{PAPER_NOTE}\n" if has_short_paper_count(report) else ""
        parts.append("## Layers\n\n" + markdown_table(escaped(layer_table(report))) + note)
    if report["calibration"]:
        parts.append("## Calibration\n\n" + _records(report["calibration"], ("name", "calibrator", "error", "measure")))
    if report["kept_in_torch"]:
        parts.append("## Kept in torch\n\n" + _records(report["kept_in_torch"], ("name", "kind", "reason", "macs")))
    for path in figures:
        stem = path.rsplit("/", 1)[-1].rsplit(".", 1)[0]
        caption = CAPTIONS.get(stem, stem)
        parts.append(f"![{caption}]({path})\n\n*{caption}*\n")
    provenance = report["provenance"]
    parts.append(
        f"Made by Bitline {provenance['version']} with `{clean(report['command']).replace('`', ' ')}`; "
        f"checkpoint sha256 `{provenance['checkpoint_sha256']}`, hardware sha256 `{provenance['hardware_sha256']}`, "
        f"seed {provenance['seed']}.\n"
    )
    return "\n".join(parts)


def escape(text: str) -> str:
    """Keep a name that came from a file from being read as markup."""
    text = clean(" ".join(text.replace("-\n", "").split()))
    for mark in "\\`*_{}[]<>|":
        text = text.replace(mark, f"\\{mark}")
    return text


def escaped(table: Table) -> Table:
    """A table whose cells hold names from files."""
    return Table(
        [escape(heading) for heading in table.headings],
        [[escape(cell) for cell in row] for row in table.rows],
        table.left,
    )


def _records(records: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> str:
    rows = [[escape(show(record[key])) for key in keys] for record in records]
    return markdown_table(Table(list(keys), rows, [isinstance(records[0][key], str) for key in keys]))


def markdown_table(table: Table) -> str:
    """Set a table in Markdown."""
    rule = [":---" if left else "---:" for left in table.left]
    return "".join(f"| {' | '.join(row)} |\n" for row in [table.headings, rule, *table.rows])
