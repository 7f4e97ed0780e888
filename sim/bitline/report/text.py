"""The report as plain text for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from bitline.printable import clean
from bitline.report.summary import summary_lines, title
from bitline.report.tables import comparison_table, layer_table, paper_lossless, plain_table

__all__ = ["text_report"]

_WIDTH = 120
PAPER_NOTE = "! the paper's count is below what these weights need: not lossless there"


def text_report(report: Mapping[str, Any]) -> str:
    """Return the report as text: what ran, the proof, the accuracy, then the tables.

    Parameters
    ----------
    report : mapping
        A validated report (:func:`bitline.report.schema.validate_report`).
    """
    lines = [(label, clean(text)) for label, text in summary_lines(report)]
    margin = 2 + max(len(label) for label, _ in lines) + 2
    parts = [f"{clean(title(report))} (Bitline {report['provenance']['version']})\n"]
    parts.append(
        "".join(
            textwrap.fill(
                text,
                _WIDTH,
                initial_indent=f"  {label}".ljust(margin),
                subsequent_indent=" " * margin,
                break_long_words=False,
                break_on_hyphens=False,
            )
            + "\n"
            for label, text in lines
        )
    )
    if report["comparison"]:
        parts.append("Side by side\n" + plain_table(comparison_table(report)))
    if report["layers"]:
        note = f"  {PAPER_NOTE}\n" if has_short_paper_count(report) else ""
        parts.append("Layers\n" + plain_table(layer_table(report)) + note)
    return "\n".join(parts)


def has_short_paper_count(report: Mapping[str, Any]) -> bool:
    """Whether any layer's cell in the paper's column carries the mark that :data:`PAPER_NOTE` explains."""
    return any(paper_lossless(layer) is False for layer in report["layers"])
