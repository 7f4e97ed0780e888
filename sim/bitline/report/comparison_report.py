"""The comparison of methods as text, Markdown, CSV and a figure, from its plain data."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bitline.printable import clean, shorten
from bitline.report.markdown import escaped, markdown_table
from bitline.report.tables import Table, percent, plain_table
from bitline.report.writer import OutputFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["comparison_csv", "comparison_figure", "comparison_markdown", "comparison_text", "write_comparison"]

_Row = Mapping[str, Any]

_NOTE = (
    "Conversions, comparisons and ADC energy are of one image; energy is counted from the comparisons made in the "
    "crossbars that exist, without those that hold zeros and without unit columns, and its "
    "ratios are to a plain SAR search of the same columns and to the first row. "
    "Area is of the tiles, without HyperTransport; SAR searches change no area in this model."
)


def _table(report: _Row) -> Table:
    heads = [
        *("checkpoint", "method", "top-1", "resolution", "ADC\nbits", "proven", "columns"),
        *(
            "conver-\nsions",
            "compari-\nsons",
            "ADC\nuJ",
            "plain SAR\n/ this",
            "first row\n/ this",
            "tiles\nmm2",
            "tiles\nW",
        ),
    ]
    rows = [
        [
            shorten(row["checkpoint"]),
            row["method"],
            percent(row["simulated_top1"]),
            row["guarantee"],
            str(row["adc_bits"]),
            str(row["bits_proven"]),
            f"{row['columns']:,}",
            f"{row['conversions']:.3g}",
            f"{row['comparisons']:.3g}",
            _number(row["adc_energy_uj"], ".3g"),
            _number(row["plain_energy_ratio"], ".2f"),
            _number(row["first_energy_ratio"], ".2f"),
            _number(row["tiles_area_mm2"], ".2f"),
            _number(row["tiles_power_w"], ".3f"),
        ]
        for row in report["rows"]
    ]
    return Table(heads, rows, [True, True, False, True, *(False for _ in heads[4:])])


def _number(value: float | None, shape: str) -> str:
    return "-" if value is None else format(value, shape)


def comparison_text(report: _Row) -> str:
    """The comparison for a terminal.

    Parameters
    ----------
    report : mapping
        What :func:`bitline.comparison.compare` returns.
    """
    claims = [f"  {name}: {method['published']}" for name, method in report["methods"].items() if method["published"]]
    published = "\nPublished\n" + "\n".join(claims) + "\n" if claims else ""
    head = f"{report['images']:,} test images on {report['hardware']}; accuracy of the simulated crossbars\n\n"
    return head + plain_table(_table(report)) + f"\n{_NOTE}\n" + published


def comparison_markdown(report: _Row, figure: str | None = None) -> str:
    """The comparison as a Markdown page.

    Parameters
    ----------
    report : mapping
        What :func:`bitline.comparison.compare` returns.
    figure : str, optional
        Path of the figure, relative to the page.
    """
    parts = [
        "# Ways to a leaner ADC, side by side\n",
        f"{report['images']:,} test images on `{report['hardware']}`, made with `{clean(report['command'])}`, "
        f"Bitline {report['bitline']}.\n",
        markdown_table(escaped(_table(report))),
        f"{_NOTE}\n",
    ]
    if figure is not None:
        parts.append(
            f"![Accuracy against ADC energy]({figure})\n\n*Accuracy against ADC energy; marks grow with area.*\n"
        )
    methods = [[name, method["summary"], method["published"] or "-"] for name, method in report["methods"].items()]
    parts.append(
        "## Methods\n\n" + markdown_table(escaped(Table(["method", "what", "published"], methods, [True] * 3)))
    )
    pruned = {row["checkpoint"]: row["pruning"] for row in report["rows"]}
    rows = [[name, pruning] for name, pruning in pruned.items()]
    parts.append("## Checkpoints\n\n" + markdown_table(escaped(Table(["checkpoint", "pruning"], rows, [True, True]))))
    return "\n".join(parts)


def comparison_csv(report: _Row) -> str:
    """The rows as CSV: a line a row, plain numbers, empty where a figure is missing."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(report["rows"][0]), lineterminator="\n")
    writer.writeheader()
    for row in report["rows"]:
        writer.writerow({key: "" if value is None else clean(str(value)) for key, value in row.items()})
    return text.getvalue()


def comparison_figure(report: _Row) -> Figure:
    """Accuracy against ADC energy of an image, a mark a row: shape and colour say the method, size the tiles' area.

    Rows without a price or labels are left out.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    from bitline.report.figure_style import DARK, FILLS, WIDTH_IN, style

    rows = [row for row in report["rows"] if row["adc_energy_uj"] and row["simulated_top1"] is not None]
    largest = max((row["tiles_area_mm2"] for row in rows), default=1.0)
    looks = {name: (FILLS[i % len(FILLS)][0], "osD^v<>P"[i % 8]) for i, name in enumerate(report["methods"])}
    checkpoints = list(dict.fromkeys(row["checkpoint"] for row in rows))
    with style():
        figure = Figure(figsize=(WIDTH_IN, 3.8), layout="constrained")
        axis = figure.subplots()
        for row in rows:
            colour, shape = looks[row["method"]]
            place = (row["adc_energy_uj"], 100 * row["simulated_top1"])
            proven = row["guarantee"] == "proven lossless"
            axis.scatter(
                *place,
                s=12 + 110 * row["tiles_area_mm2"] / largest,
                marker=shape,
                facecolor=colour if proven else (0, 0, 0, 0),
                edgecolor=colour,
                linewidth=1.1,
            )
            number = str(checkpoints.index(row["checkpoint"]) + 1)
            axis.annotate(number, place, textcoords="offset points", xytext=(4, 4), fontsize=5.5, color=DARK)
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_xlabel("ADC energy of one image (uJ)")
        axis.set_ylabel("top-1, simulated (%)")
        shown = [100 * row["simulated_top1"] for row in rows]
        low, high = min(shown, default=0.0), max(shown, default=100.0)
        margin = max(0.5, 0.1 * (high - low))
        axis.set_ylim(low - margin, min(high + margin, 101))
        marks = [
            Line2D([], [], linestyle="", marker=shape, markersize=5, color=colour, label=name.replace("_", " "))
            for name, (colour, shape) in looks.items()
        ]
        marks += [
            Line2D([], [], linestyle="", label=f"{i + 1}  {shorten(name, 34)}") for i, name in enumerate(checkpoints)
        ]
        note = "filled: proven lossless; size: area of the tiles"
        legend = figure.legend(handles=marks, loc="outside right upper", fontsize=6, title=note)
        legend.get_title().set_fontsize(6)
    return figure


def write_comparison(folder: OutputFolder, report: _Row) -> dict[str, Any]:
    """Write JSON, CSV, Markdown and the figure into a folder: all or nothing. Return the report with their names.

    Raises
    ------
    OutputError
        A file cannot be written.
    """
    from bitline.report.figure_style import render

    with folder:
        figure = comparison_figure(report)
        for kind in ("png", "svg"):
            folder.write(f"figures/comparison.{kind}", render(figure, kind))
        folder.write("comparison.csv", comparison_csv(report))
        folder.write("report.md", comparison_markdown(report, "figures/comparison.png"))
        listed = {**report, "files": sorted([*folder.names, "report.json"])}
        folder.write("report.json", json.dumps(listed, indent=1) + "\n")
    return listed
