"""The report's figures, from plain report data; the only module that imports matplotlib.

Every figure is made for a page (7.2 inches wide), labelled with units, in the Okabe-Ito palette with hatches where
colour alone would tell things apart, so that it reads in grey print too. No pyplot: nothing global is touched.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator, NullLocator

from bitline.report.tables import paper_lossless, percent, shorten

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

# Okabe and Ito, "Color universal design" (2008): told apart by people with any common colour blindness
BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PURPLE, YELLOW, GREY, DARK = "#56B4E9", "#CC79A7", "#F0E442", "#999999", "#444444"
_FILLS = [
    (BLUE, ""),
    (ORANGE, ""),
    (SKY, "//"),
    (GREEN, ""),
    (YELLOW, ".."),
    (VERMILLION, ""),
    (PURPLE, "\\\\"),
    (GREY, ""),
]
_STALL_FILLS = [(ORANGE, ""), (SKY, "//"), (YELLOW, ".."), (PURPLE, "\\\\")]
_WIDTH_IN = 7.2
_ROW_IN = 0.17
_PANEL_ROWS = 36
_NAME_WIDTH = 24
_GRID_LAYERS = 24
_NEAR = 8  # a full scale more than so many times the sums is named but not drawn: it would squeeze them
_REASONS = 4
_BITS_MAP = LinearSegmentedColormap.from_list("bits", ["#FFFFFF", SKY, "#003B66"])

_STYLE: Any = {  # matplotlib's own type of this lists every key there is
    "font.family": "DejaVu Sans",  # ships with matplotlib, so the same everywhere
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "hatch.linewidth": 0.5,
    "legend.frameon": False,
    "svg.hashsalt": "bitline",
    "svg.fonttype": "path",
    "figure.dpi": 100,
}
_Row = Mapping[str, Any]


@contextmanager
def _style() -> Iterator[None]:
    """Bitline's settings and none of the user's, for the time of the block."""
    with mpl.rc_context():
        mpl.rcdefaults()
        with mpl.rc_context(_STYLE):
            yield


def render(figure: Figure, kind: str) -> bytes:
    """Return a figure as a file: ``png`` (200 dots an inch) or ``svg``; the same figure gives the same bytes."""
    file = io.BytesIO()
    with _style():
        metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
        figure.savefig(file, format=kind, dpi=200, metadata=metadata)
        # the layout is found while drawing and takes most of the time; the next format needs it no more
        figure.set_layout_engine("none")
    return file.getvalue()


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
    priced = [design for design in report["comparison"] if design["area_mm2"] and design["power_w"]]
    if len(priced) > 1:
        base = priced[0]
        figures["normalised"] = normalised_figure(
            [
                {
                    "name": design["name"],
                    "area": design["area_mm2"] / base["area_mm2"],
                    "power": design["power_w"] / base["power_w"],
                }
                for design in priced
            ]
        )
    elif report["normalised"]:
        figures["normalised"] = normalised_figure(
            [{"name": "non-pruned", "area": 1.0, "power": 1.0}, {"name": "this design", **report["normalised"]}]
        )
    if report["adc_sweep"]:
        figures["efficiency"] = efficiency_figure(report["adc_sweep"])
    return figures


def _columns(figure: Figure, items: Sequence[Any]) -> list[tuple[Axes, Sequence[Any]]]:
    """Cut a long list of layers into panels of equal height side by side, so that a figure fits a page."""
    panels = max(1, -(-len(items) // _PANEL_ROWS))
    rows = -(-len(items) // panels)
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for axis in axes:
        axis.set_ylim(rows - 0.5, -0.5)
    return [(axis, items[i * rows : (i + 1) * rows]) for i, axis in enumerate(axes)]


def _page(rows: int, extra_in: float, wide: bool = False) -> Figure:
    panels = max(1, -(-rows // _PANEL_ROWS))
    height = extra_in + _ROW_IN * -(-rows // panels)
    width = _WIDTH_IN if panels > 1 or wide else 0.62 * _WIDTH_IN
    return Figure(figsize=(max(width, 3.6 * panels), height), layout="constrained")


def _name_axis(axis: Axes, names: Sequence[str]) -> None:
    axis.set_yticks(range(len(names)), [shorten(name, _NAME_WIDTH) for name in names])
    axis.tick_params(axis="y", length=0)


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
    heads = [f"slice {i}" for i in reversed(range(slices))]
    heads += ["needed", "ADC configured", "Eq. (1)", "paper's count"]
    with _style():
        figure = _page(len(layers), 1.25)
        for axis, part in _columns(figure, layers):
            for y, layer in enumerate(part):
                _bits_row(axis, y, layer["adc_bits"], bool(layer["lossless"]), slices, top)
            _name_axis(axis, [layer["name"] for layer in part])
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
        # the most significant slice stands left, as digits do
        short = not lossless and index < len(limits) and needed > limits[index]
        _bits_cell(axis, slices - 1 - index, y, needed, needed / max(top, 1), short)
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
    with _style():
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
    return shorten(histogram["layer"], _NAME_WIDTH - len(part)) + part


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
        if near:
            axis.axvline(scale + 0.5, color="black", linestyle="--", linewidth=0.9)
        axis.set_xlim(-0.5, max(len(counts), scale + 1 if near else 0, 2) * 1.04)
        axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axis.yaxis.set_minor_locator(NullLocator())
        axis.tick_params(labelsize=6)
        axis.set_title(f"{_sums_name(histogram)}\n{histogram['adc_bits']} bits: 0 to {scale}", fontsize=6)
    for axis in axes[len(histograms) :]:
        axis.set_visible(False)
    figure.supxlabel("column sum (LSB of the ADC)", fontsize=7.5)
    figure.supylabel(_count_label(histograms), fontsize=7.5)
    _sums_legend(figure, any(int(_sums(h)[h["full_scale"] + 1 :].sum()) for h in histograms))
    return figure


def _sums_legend(figure: Figure, saturated: bool) -> None:
    marks: list[Any] = [Patch(facecolor=BLUE, label="conversions")]
    if saturated:
        marks.append(Patch(facecolor=VERMILLION, hatch="////", edgecolor="white", label="saturated"))
    marks.append(mpl.lines.Line2D([], [], color="black", linestyle="--", linewidth=0.9, label="ADC full scale"))
    figure.legend(handles=marks, loc="outside upper center", ncols=3, fontsize=6.5)


def _sums_map(histograms: Sequence[_Row]) -> Figure:
    figure = _page(len(histograms), 1.1, wide=True)
    longest = max(len(_sums(histogram)) for histogram in histograms)
    top = max(int(_sums(histogram).max()) for histogram in histograms)
    shades = LinearSegmentedColormap.from_list("counts", ["#E8F3FB", SKY, BLUE, "#001A2E"])
    norm = LogNorm(1, max(top, 10))
    scales = [histogram["full_scale"] for histogram in histograms]
    right = max([longest, *(scale + 1 for scale in scales if scale <= 2 * longest)])
    image = None
    for axis, part in _columns(figure, histograms):
        grid = np.full((len(part), right), np.nan)
        for y, histogram in enumerate(part):
            counts = _sums(histogram)
            grid[y, : len(counts)] = np.where(counts > 0, counts, np.nan)
            scale = histogram["full_scale"]
            if scale < right:
                axis.plot([scale + 0.5, scale + 0.5], [y - 0.5, y + 0.5], color=VERMILLION, linewidth=1.6)
        limits = axis.get_ylim()
        image = axis.imshow(grid, aspect="auto", cmap=shades, norm=norm, interpolation="nearest")
        axis.set_ylim(limits)
        _name_axis(axis, [_sums_name(histogram) for histogram in part])
        axis.set_xlim(-0.5, right + 0.5)
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axis.set_xlabel("column sum (LSB of the ADC)")
    assert image is not None
    figure.colorbar(image, ax=figure.axes, label=_count_label(histograms), shrink=0.5, aspect=30)
    mark = mpl.lines.Line2D([], [], color=VERMILLION, linewidth=1.6, label="ADC full scale")
    figure.legend(handles=[mark], loc="outside upper center", fontsize=6.5)
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
    with _style():
        figure = Figure(figsize=(min(_WIDTH_IN, 2.2 + 1.5 * len(designs)), 2.8), layout="constrained")
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
        _design_axis(axis, designs)
        axis.set_ylim(0, 125 if crowded else 110)
        axis.set_yticks(range(0, 101, 20))
        axis.set_ylabel("top-1 accuracy (%)")
        figure.legend(loc="outside upper center", ncols=3, fontsize=6.5)
    return figure


def _design_axis(axis: Axes, designs: Sequence[_Row]) -> None:
    crowded = len(designs) > 5
    names = [shorten(design["name"], 18 if crowded else 28) for design in designs]
    axis.set_xticks(range(len(designs)), names, rotation=35 if crowded else 0, ha="right" if crowded else "center")
    axis.set_xlim(-0.6, len(designs) - 0.4)
    axis.tick_params(axis="x", length=0)


def breakdown_figure(breakdown: _Row) -> Figure:
    """Area and power by component as stacked bars of shares, totals beside them.

    Parameters
    ----------
    breakdown : mapping
        ``area_mm2`` and ``power_w``, each component to value.
    """
    bars = [("area", "mm²", breakdown["area_mm2"]), ("power", "W", breakdown["power_w"])]
    bars = [bar for bar in bars if sum(bar[2].values()) > 0]
    shares = {
        name: max(values.get(name, 0) / sum(values.values()) for _, _, values in bars)
        for name in {name: None for _, _, values in bars for name in values}
    }
    # more components than fills: the smallest are shown as one
    names = sorted(shares, key=lambda name: (-shares[name], name))
    if len(names) > len(_FILLS):
        names = names[: len(_FILLS) - 1]
    with _style():
        figure = Figure(figsize=(_WIDTH_IN, 0.9 + 0.55 * max(len(bars), 1)), layout="constrained")
        axis = figure.subplots()
        for y, (_, _, values) in enumerate(bars):
            total = sum(values.values())
            parts = {name: values.get(name, 0) / total for name in names}
            rest = 1 - sum(parts.values())
            if len(names) < len(shares):
                parts["rest"] = max(rest, 0.0)
            left = 0.0
            for (name, share), (colour, hatch) in zip(parts.items(), _FILLS, strict=False):
                axis.barh(
                    y, 100 * share, 0.62, left=left, color=colour, hatch=hatch, edgecolor="white", linewidth=0.5,
                    label=name.replace("_", " ") if y == 0 else "_" + name,
                )  # fmt: skip
                if share >= 0.05:
                    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.85}
                    axis.text(
                        left + 50 * share, y, f"{100 * share:.0f}", ha="center", va="center", fontsize=6.5, bbox=box
                    )
                left += 100 * share
        axis.set_yticks(range(len(bars)), [f"{kind}\n{sum(values.values()):.4g} {unit}" for kind, unit, values in bars])
        axis.set_ylim(len(bars) - 0.5, -0.5)
        axis.set_xlim(0, 100)
        axis.set_xlabel("share of the chip (%)")
        figure.legend(loc="outside upper center", ncols=min(5, max(len(names), 1)), fontsize=6.5)
    return figure


def occupancy_figure(layers: Sequence[_Row]) -> Figure:
    """Share of the time each layer computes, and the reasons it waits, as stacked bars; the bottleneck is marked.

    Parameters
    ----------
    layers : sequence of mappings
        ``performance.layers`` of a report: ``name``, ``occupancy``, ``stalls``, ``bottleneck``.
    """
    stalls = [{why: share for why, share in layer["stalls"].items() if share >= 0.001} for layer in layers]
    reasons = list(dict.fromkeys(reason for layer in stalls for reason in layer))
    named = len(reasons) > _REASONS  # too many for a legend: each is written into its bar
    fills = {
        reason: _FILLS[1] if named else fill for reason, fill in zip(reasons, _STALL_FILLS * len(reasons), strict=False)
    }
    with _style():
        figure = _page(len(layers), 1.0, wide=True)
        panels = _columns(figure, list(zip(layers, stalls, strict=True)))
        for axis, pairs in panels:
            part = [layer for layer, _ in pairs]
            for y, (layer, waits) in enumerate(pairs):
                axis.barh(y, 100 * layer["occupancy"], 0.72, color=BLUE, linewidth=0)
                left = 100 * layer["occupancy"]
                for reason, share in waits.items():
                    colour, hatch = fills[reason]
                    axis.barh(
                        y, 100 * share, 0.72, left=left, color=colour, hatch=hatch, edgecolor="white", linewidth=0
                    )
                    room = int(90 * share / len(panels))
                    if named and room >= 10:
                        axis.text(left + 1, y, shorten(reason, room), va="center", fontsize=5.5)
                    left += 100 * share
            _name_axis(axis, [layer["name"] for layer in part])
            for label, layer in zip(axis.get_yticklabels(), part, strict=True):
                if layer["bottleneck"]:
                    label.set_color(VERMILLION)
                    label.set_fontweight("bold")
            axis.set_xlim(0, 100)
            axis.set_xlabel("time (%)")
        marks: list[Any] = [Patch(facecolor=BLUE, label="computing")]
        shown = {"waiting": _FILLS[1]} if named else fills
        marks += [
            Patch(facecolor=colour, hatch=hatch, edgecolor="white", linewidth=0, label=reason)
            for reason, (colour, hatch) in shown.items()
        ]
        if any(layer["bottleneck"] for layer in layers):
            marks.append(
                mpl.lines.Line2D([], [], color=VERMILLION, linewidth=2, label="bottleneck layer (name in bold)")
            )
        figure.legend(handles=marks, loc="outside upper center", ncols=4, fontsize=6.5)
    return figure


def normalised_figure(designs: Sequence[_Row]) -> Figure:
    """Area and power relative to the first design, a pair of bars a design (the style of TinyADC's Fig. 4).

    Parameters
    ----------
    designs : sequence of mappings
        ``name``, ``area`` and ``power`` as fractions of the non-pruned design's.
    """
    with _style():
        figure = Figure(figsize=(min(_WIDTH_IN, 1.6 + 1.0 * len(designs)), 2.7), layout="constrained")
        axis = figure.subplots()
        top = max(max(design["area"], design["power"]) for design in designs)
        for i, (key, colour, hatch) in enumerate((("power", ORANGE, ""), ("area", BLUE, "//"))):
            for x, design in enumerate(designs):
                place = x + (i - 0.5) * 0.36
                axis.bar(
                    place, design[key], 0.34, color=colour, hatch=hatch, edgecolor="white", linewidth=0,
                    label=key if x == 0 else "_" + key,
                )  # fmt: skip
                axis.text(place, design[key] + 0.02 * top, f"{design[key]:.2f}", ha="center", va="bottom", fontsize=6)
        axis.axhline(1, color="black", linestyle="--", linewidth=0.6, zorder=0)
        _design_axis(axis, designs)
        axis.set_ylim(0, 1.12 * top)
        axis.set_ylabel("relative to the non-pruned design")
        figure.legend(loc="outside upper center", ncols=2, fontsize=6.5)
    return figure


def efficiency_figure(points: Sequence[_Row]) -> Figure:
    """GOPS/W against ADC bits, a line for each rule by which the ADC scales.

    Parameters
    ----------
    points : sequence of mappings
        ``adc_sweep`` of a report: ``adc_bits``, ``gops_per_w``, ``law``.
    """
    with _style():
        figure = Figure(figsize=(3.6, 2.8), layout="constrained")
        axis = figure.subplots()
        looks = [(BLUE, "o", "-"), (VERMILLION, "s", "--"), (GREEN, "^", ":"), (PURPLE, "D", "-."), (GREY, "v", "-")]
        for i, law in enumerate(dict.fromkeys(point["law"] for point in points)):
            line = sorted((point["adc_bits"], point["gops_per_w"]) for point in points if point["law"] == law)
            colour, marker, dash = looks[i % len(looks)]
            axis.plot(
                [bits for bits, _ in line], [value for _, value in line], color=colour, marker=marker, linestyle=dash,
                markersize=4, linewidth=1.2, label=law or "design",
            )  # fmt: skip
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_ylim(bottom=0)
        axis.set_xlabel("ADC resolution (bits)")
        axis.set_ylabel("power efficiency (GOPS/W)")
        figure.legend(loc="outside upper center", ncols=2, fontsize=6.5)
    return figure
