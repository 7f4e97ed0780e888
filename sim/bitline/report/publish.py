"""Put a whole report into an output folder: figures, tables, Markdown and, last, ``report.json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bitline.report.markdown import markdown_report
from bitline.report.schema import dump_json, validate_report
from bitline.report.tables import layers_csv
from bitline.report.writer import OutputFolder

__all__ = ["write_report"]


def write_report(folder: OutputFolder, report: Mapping[str, Any], *, figures: bool = True) -> dict[str, Any]:
    """Write the report's files into an entered output folder.

    Parameters
    ----------
    folder : OutputFolder
        Inside its ``with`` block; files written before (``certificate.json`` ...) are listed in the report too.
    report : mapping
        In the shape of :class:`bitline.report.schema.Report`.
    figures : bool
        Whether to draw figures (needs a second or two).

    Returns
    -------
    dict
        The validated report as written, with ``files``.

    Raises
    ------
    ReportError
        The report does not have the documented shape.
    OutputError
        A file cannot be written.
    """
    full = validate_report(report)
    drawn = []
    if figures:
        # matplotlib takes a while to import and most of Bitline does without it
        from bitline.report.figure_style import render
        from bitline.report.figures import report_figures

        for name, figure in report_figures(full).items():
            for kind in ("png", "svg"):
                folder.write(f"figures/{name}.{kind}", render(figure, kind))
            drawn.append(f"figures/{name}.png")
    folder.write("layers.csv", layers_csv(full))
    folder.write("report.md", markdown_report(full, drawn))
    full["files"] = sorted([*folder.names, "report.json"])
    folder.write("report.json", dump_json(full))
    return full
