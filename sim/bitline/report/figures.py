"""The figures of a simulation: bits, column sums, accuracy, from plain report data; the chip's are next door."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator, NullLocator

from bitline.report.chip_figures import breakdown_figure, efficiency_figure, normalised_figure, occupancy_figure
from bitline.report.figure_style import (
    BLUE,
    DARK,
    NAME_WIDTH,
    ORANGE,
    SKY,
    VERMILLION,
    WIDTH_IN,
    design_axis,
    layer_panels,
    name_axis,
    name_text,
    page,
    render,
    style,
)
from bitline.report.tables import paper_lossless, percent

__all__ = [
    "accuracy_figure",
    "bits_figure",
    "breakdown_figure",
    "column_sums_figure",
    "efficiency_figure",
    "normalised_figure",
    "occupancy_figure",
    "render",
    "report_figures",
]

_GRID_LAYERS = 24
_NEAR = 8  # a full scale more than so many times the sums is an arrow at the edge: in its place it would squeeze them
_REASONS = 4
_BITS_MAP = LinearSegmentedColormap.from_list("bits", ["#FFFFFF", SKY, "#003B66"])

_Row = Mapping[str, Any]


def report_figures(report: _Row) -> dict[str, Figure]:
    """Return the figures a validated report has data for, by name."""
    figures: dict[str, Figure] = {}
    accuracy = report["accuracy"]
    if report["layers"]:
        figures["bits"] = bits_figure(report["layers"])
    if report["histograms"]:
        figures["column_sums"] = column_sums_figure(report["histograms"])
    designs = report["comparison"] or ([{"name": report["network"]["architecture"], **accuracy}] if accuracy else [])
    if any(design["simulated_top1"] is not None for design in designs):
        figures["accuracy"] = accuracy_figure(designs)
    if report["breakdown"]:
        figures["breakdown"] = breakdown_figure(report["breakdown"])
    if report["performance"] and report["performance"]["layers"]:
        figures["occupancy"] = occupancy_figure(report["performance"]["layers"])
    tiles = all(design["tiles_area_mm2"] and design["tiles_power_w"] for design in report["comparison"])
    area, power = ("tiles_area_mm2", "tiles_power_w") if tiles else ("area_mm2", "power_w")
    priced = [design for design in report["comparison"] if design[area] and design[power]]
    if len(priced) > 1:
        base = priced[0]
        figures["normalised"] = normalised_figure(
            [
                {
                    "name": design["name"],
                    "area": design[area] / base[area],
                    "power": design[power] / base[power],
                }
                for design in priced
            ]
        )
    elif report["normalised"]:
        normalised = report["normalised"]
        bars = [{"name": "non-pruned", "area": 1.0, "power": 1.0}]
        if normalised["area_tiles"] is not None and normalised["power_tiles"] is not None:
            alone = {"area": normalised["area_tiles"], "power": normalised["power_tiles"]}
            bars.append({"name": "this design, tiles alone", **alone})
        bars.append({"name": "this design", **normalised})
        figures["normalised"] = normalised_figure(bars)
    if report["adc_sweep"]:
        figures["efficiency"] = efficiency_figure(report["adc_sweep"], report["hardware"]["name"])
    return figures


def bits_figure(layers: Sequence[_Row]) -> Figure:
    """ADC bits needed per layer (rows) and weight slice (columns), beside the configured and the counted ones.

    Parameters
    ----------
    layers : sequence of mappings
        ``layers`` of a report.
    """
    slices = max(len(layer["adc_bits"]["weight_aware_per_slice"]) for layer in layers)
    top = max(
        max(layer["adc_bits"][key] or 0 for key in ("configured", "equation", "weight_aware")) for layer in layers
    )
    heads = [f"slice {i}" for i in range(slices)]
    heads[0] += " (least)"
    heads += ["needed", "ADC configured", "Eq. (1)", "paper's count"]
    with style():
        figure = page(len(layers), 1.4)
        for axis, part in layer_panels(figure, layers):
            for y, layer in enumerate(part):
                _bits_row(axis, y, layer["adc_bits"], bool(layer["lossless"]), slices, top)
            name_axis(axis, [layer["name"] for layer in part])
            axis.set_xlim(-0.5, slices + 4.0)
            places = [*range(slices), *(slices + 0.4 + i for i in range(4))]
            axis.set_xticks(places, heads, rotation=55, ha="left", rotation_mode="anchor")
            axis.tick_params(axis="x", length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
            axis.spines[:].set_visible(False)
        figure.axes[0].set_ylabel("layer")
        figure.supxlabel("ADC resolution (bits)", fontsize=7.5)
        marks = [Patch(facecolor=_BITS_MAP(0.6), label="bits needed, darker is more")]
        if any(not layer["lossless"] or paper_lossless(layer) is False for layer in layers):
            marks.append(
                Patch(facecolor="none", edgecolor=VERMILLION, linewidth=1.4, label="too few for these weights")
            )
        figure.legend(handles=marks, loc="outside upper left", ncols=2, fontsize=6.5)
    return figure


def _bits_row(axis: Axes, y: int, bits: _Row, lossless: bool, slices: int, top: int) -> None:
    limits = bits["configured_per_slice"] or [bits["configured"]] * slices
    for index, needed in enumerate(bits["weight_aware_per_slice"]):
        short = not lossless and index < len(limits) and needed > limits[index]
        _bits_cell(axis, index, y, needed, needed / max(top, 1), short)
    needed = bits["weight_aware"]
    _bits_cell(axis, slices + 0.4, y, needed, needed / max(top, 1), not lossless)
    _bits_cell(axis, slices + 1.4, y, bits["configured"], None, False)
    _bits_cell(axis, slices + 2.4, y, bits["equation"], None, False)
    paper = bits["paper"]
    _bits_cell(axis, slices + 3.4, y, "-" if paper is None else paper, None, paper is not None and paper < needed)


def _bits_cell(axis: Axes, x: float, y: int, text: object, shade: float | None, marked: bool) -> None:
    colour = "none" if shade is None else _BITS_MAP(shade)
    axis.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colour, edgecolor="#CCCCCC", linewidth=0.4))
    if marked:
        axis.add_patch(
            Rectangle((x - 0.44, y - 0.42), 0.88, 0.84, fill=False, edgecolor=VERMILLION, linewidth=1.4, zorder=3)
        )
    dark = shade is not None and shade > 0.62
    axis.text(
        x, y, str(text), ha="center", va="center", color="white" if dark else "black",
        fontsize=6.5, fontweight="bold" if marked else "normal", zorder=4,
    )  # fmt: skip


def column_sums_figure(histograms: Sequence[_Row]) -> Figure:
    """Histograms of the column sums of the run, logarithmic counts, with the ADC's full scale.

    The slices of a layer that share a full scale are added. Up to 24 layers get a panel each; more become the rows of
    one map.

    Parameters
    ----------
    histograms : sequence of mappings
        ``histograms`` of a report.
    """
    merged = _merge_slices(histograms)
    with style():
        return _sums_grid(merged) if len(merged) <= _GRID_LAYERS else _sums_map(merged)


def _merge_slices(histograms: Sequence[_Row]) -> list[_Row]:
    groups: dict[tuple[str, int], list[_Row]] = {}
    for histogram in histograms:
        groups.setdefault((histogram["layer"], histogram["full_scale"]), []).append(histogram)
    merged: list[_Row] = []
    for group in groups.values():
        counts = np.zeros(max(len(histogram["counts"]) for histogram in group), np.int64)
        for histogram in group:
            counts[: len(histogram["counts"])] += np.asarray(histogram["counts"], np.int64)
        slices = [str(histogram["slice"]) for histogram in group if histogram["slice"] is not None]
        merged.append(
            {
                **group[0],
                # a layer whose slices all share a full scale is just the layer
                "part": "" if sum(name == group[0]["layer"] for name, _ in groups) == 1 else f" [{' '.join(slices)}]",
                "counts": counts.tolist(),
                "overflow": sum(histogram["overflow"] for histogram in group),
            }
        )
    return merged


def _count_label(histograms: Sequence[_Row]) -> str:
    images = histograms[0]["images"]
    return "conversions" if images is None else f"conversions (of {images:,} images)"


def _sums_name(histogram: _Row) -> str:
    part: str = histogram["part"]
    return name_text(histogram["layer"], NAME_WIDTH - len(part)) + part


def _sums(histogram: _Row) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Counts with the overflow as a last bin, where there is one."""
    overflow = [histogram["overflow"]] if histogram["overflow"] else []
    return np.array([*histogram["counts"], *overflow] or [0], np.int64)


def _sums_grid(histograms: Sequence[_Row]) -> Figure:
    columns = min(4, len(histograms))
    rows = -(-len(histograms) // columns)
    figure = Figure(figsize=(max(1.8 * columns, 3.6), 0.6 + 1.25 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    top = max(int(_sums(histogram).max()) for histogram in histograms)
    for axis, histogram in zip(axes, histograms, strict=False):
        counts, scale = _sums(histogram), histogram["full_scale"]
        # the limits first: matplotlib would warn when it scales a layer of no conversions by itself
        axis.set_ylim(0.5, max(top, 10) * 2)
        axis.set_yscale("log")
        # one outline a panel, not a bar a sum: a tenth of the file; empty bins lie on the floor of the logarithmic axis
        heights, edges = np.maximum(counts, 0.5), np.arange(len(counts) + 1) - 0.5
        fit = min(scale + 1, len(counts))
        axis.stairs(heights[:fit], edges[: fit + 1], baseline=0.5, fill=True, color=BLUE, linewidth=0)
        if fit < len(counts):
            axis.stairs(
                heights[fit:], edges[fit:], baseline=0.5, fill=True, facecolor=VERMILLION, hatch="////",
                edgecolor="white", linewidth=0,
            )  # fmt: skip
        near = scale <= _NEAR * len(counts)
        axis.set_xlim(-0.5, max(len(counts), scale + 1 if near else 0, 2) * 1.04)
        if near:
            axis.axvline(scale + 0.5, color="black", linestyle="--", linewidth=0.9)
        else:
            axis.plot([1], [0.5], ">", transform=axis.transAxes, color="black", markersize=4, clip_on=False)
        axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axis.yaxis.set_minor_locator(NullLocator())
        axis.tick_params(labelsize=6)
        axis.set_title(f"{_sums_name(histogram)}\n{histogram['adc_bits']} bits: 0 to {scale}", fontsize=6)
    for axis in axes[len(histograms) :]:
        axis.set_visible(False)
    figure.supxlabel("column sum (LSB of the ADC)", fontsize=7.5)
    far = any(histogram["full_scale"] > _NEAR * len(_sums(histogram)) for histogram in histograms)
    figure.supylabel(_count_label(histograms), fontsize=7.5)
    _sums_legend(figure, any(int(_sums(h)[h["full_scale"] + 1 :].sum()) for h in histograms), far)
    return figure


def _sums_legend(figure: Figure, saturated: bool, far: bool) -> None:
    marks: list[Any] = [Patch(facecolor=BLUE, label="conversions")]
    if saturated:
        marks.append(Patch(facecolor=VERMILLION, hatch="////", edgecolor="white", label="saturated"))
    marks.append(mpl.lines.Line2D([], [], color="black", linestyle="--", linewidth=0.9, label="ADC full scale"))
    if far:
        marks.append(_far_mark("black"))
    figure.legend(handles=marks, loc="outside upper center", ncols=4, fontsize=6.5)


def _far_mark(colour: str) -> Any:
    return mpl.lines.Line2D([], [], linestyle="", marker=">", markersize=4, color=colour, label="it lies further right")


def _sums_map(histograms: Sequence[_Row]) -> Figure:
    figure = page(len(histograms), 1.1, wide=True)
    longest = max(len(_sums(histogram)) for histogram in histograms)
    top = max(int(_sums(histogram).max()) for histogram in histograms)
    shades = LinearSegmentedColormap.from_list("counts", ["#E8F3FB", SKY, BLUE, "#001A2E"])
    norm = LogNorm(1, max(top, 10))
    scales = [histogram["full_scale"] for histogram in histograms]
    right = max([longest, *(scale + 1 for scale in scales if scale <= _NEAR * longest)])
    image = None
    for axis, part in layer_panels(figure, histograms):
        grid = np.full((len(part), right), np.nan)
        for y, histogram in enumerate(part):
            counts = _sums(histogram)
            grid[y, : len(counts)] = np.where(counts > 0, counts, np.nan)
            scale = histogram["full_scale"]
            if scale < right:
                axis.plot([scale + 0.5, scale + 0.5], [y - 0.5, y + 0.5], color=VERMILLION, linewidth=1.6)
            else:
                axis.plot([right + 0.5], [y], ">", color=VERMILLION, markersize=4, clip_on=False)
        limits = axis.get_ylim()
        image = axis.imshow(grid, aspect="auto", cmap=shades, norm=norm, interpolation="nearest")
        axis.set_ylim(limits)
        name_axis(axis, [_sums_name(histogram) for histogram in part])
        axis.set_xlim(-0.5, right + 0.5)
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axis.set_xlabel("column sum (LSB of the ADC)")
    assert image is not None
    figure.colorbar(image, ax=figure.axes, label=_count_label(histograms), shrink=0.5, aspect=30)
    marks: list[Any] = [mpl.lines.Line2D([], [], color=VERMILLION, linewidth=1.6, label="ADC full scale")]
    if any(scale >= right for scale in scales):
        marks.append(_far_mark(VERMILLION))
    figure.legend(handles=marks, loc="outside upper center", ncols=2, fontsize=6.5)
    return figure


def accuracy_figure(designs: Sequence[_Row]) -> Figure:
    """Top-1 accuracy of the float, the exact integer and the simulated network, a group of bars a design.

    Parameters
    ----------
    designs : sequence of mappings
        With ``name``, ``float_top1``, ``integer_top1`` and ``simulated_top1`` (fractions or None).
    """
    kinds = (
        ("float", "float_top1", DARK, ""),
        ("exact integer", "integer_top1", ORANGE, ""),
        ("simulated crossbars", "simulated_top1", BLUE, "//"),
    )
    crowded = len(designs) > 2
    with style():
        figure = Figure(figsize=(min(WIDTH_IN, 2.2 + 1.5 * len(designs)), 2.8), layout="constrained")
        axis = figure.subplots()
        for i, (label, key, colour, hatch) in enumerate(kinds):
            for x, design in enumerate(designs):
                value = design[key]
                if value is None:
                    continue
                place = x + (i - 1) * 0.27
                axis.bar(
                    place, 100 * value, 0.25, color=colour, hatch=hatch, edgecolor="white", linewidth=0,
                    label=label if x == 0 else "_" + label,
                )  # fmt: skip
                axis.text(
                    place, 100 * value + 1.5, percent(value), ha="center", va="bottom", fontsize=6,
                    rotation=90 if crowded else 0,
                )  # fmt: skip
        design_axis(axis, designs)
        axis.set_ylim(0, 125 if crowded else 110)
        axis.set_yticks(range(0, 101, 20))
        axis.set_ylabel("top-1 accuracy (%)")
        figure.legend(loc="outside upper center", ncols=3, fontsize=6.5)
    return figure
