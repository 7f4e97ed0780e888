"""The comparison of methods as text, Markdown, CSV and a figure, from its plain data."""

from __future__ import annotations

import csv
import io
import json
import math
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
    notes = "".join(f"Note: {clean(note)}.\n" for note in report.get("notes", ()))
    return head + plain_table(_table(report)) + f"\n{_NOTE}\n" + notes + published


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
            f"![Accuracy, ADC energy and area]({figure})\n\n*Accuracy with its 95 % interval, ADC energy and area.*\n"
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
    """A line a row: accuracy with its 95 % interval, ADC energy of an image, and the tiles' area, side by side.

    The interval is Wilson's, of a share of the test images; methods run on the same images, so two of one checkpoint
    differ by less than their intervals say.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    from bitline.report.figure_style import FILLS, MOST_ROWS, ROW_IN, WIDTH_IN, name_text, style

    rows = report["rows"][:MOST_ROWS]
    methods = list(report["methods"])
    places: list[int] = []
    names: list[str] = []
    heads: list[tuple[int, str]] = []
    for i, row in enumerate(rows):  # a line of its own above each checkpoint's methods
        if i == 0 or row["checkpoint_sha256"] != rows[i - 1]["checkpoint_sha256"]:
            heads.append((len(places) + len(heads), name_text(row["checkpoint"], 60)))
        places.append(len(places) + len(heads))
        names.append(row["method"].replace("_", " "))
    with style():
        lines = len(places) + len(heads)
        figure = Figure(figsize=(WIDTH_IN, 0.9 + ROW_IN * lines), layout="constrained")
        axes = figure.subplots(1, 3, sharey=True)
        for axis, key, title in zip(
            axes,
            ("simulated_top1", "adc_energy_uj", "tiles_area_mm2"),
            ("top-1, simulated (%)", "ADC energy of one image (uJ)", "area of the tiles (mm²)"),
            strict=True,
        ):
            for y, row in zip(places, rows, strict=True):
                value = row[key]
                if value is None:
                    continue
                colour = FILLS[methods.index(row["method"]) % len(FILLS)][0]
                if key == "simulated_top1":
                    value, (low, high) = 100 * value, wilson(value, row["images"])
                    axis.plot([100 * low, 100 * high], [y, y], color=colour, linewidth=1)
                proven = row["guarantee"] == "proven lossless"
                axis.plot(value, y, "o", markersize=4, color=colour, markerfacecolor=colour if proven else "white")
            axis.set_xlabel(title)
            axis.grid(axis="x", color="#DDDDDD", linewidth=0.4)
            axis.set_axisbelow(True)
        if any(row["adc_energy_uj"] for row in rows):
            axes[1].set_xscale("log")
            axes[1].xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=6))
            axes[1].xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes[1].xaxis.set_minor_formatter(NullFormatter())
        axes[2].set_xlim(left=0)
        axes[0].set_yticks(places, names)
        axes[0].set_ylim(lines - 0.5, -0.5)
        for y, name in heads:
            axes[0].annotate(
                name, (0, y), xycoords=("axes fraction", "data"), fontsize=7, fontweight="bold", va="center"
            )
        for axis in axes:
            axis.tick_params(axis="y", length=0)
        marks = [
            Line2D([], [], linestyle="", marker="o", markersize=4, color="black", label="proven lossless"),
            Line2D([], [], linestyle="", marker="o", markersize=4, color="black", markerfacecolor="white", label="not"),
            Line2D([], [], color="black", linewidth=1, label="95 % interval of the test images"),
        ]
        figure.legend(handles=marks, loc="outside upper center", ncols=3, fontsize=6.5)
    return figure


def wilson(share: float, images: int) -> tuple[float, float]:
    """Bounds of the 95 % interval of a share that was found in so many trials.

    References
    ----------
    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.
    """
    z = 1.959964
    centre = (share + z * z / (2 * images)) / (1 + z * z / images)
    half = z * math.sqrt(share * (1 - share) / images + z * z / (4 * images * images)) / (1 + z * z / images)
    return max(0.0, centre - half), min(1.0, centre + half)


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
