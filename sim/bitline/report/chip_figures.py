"""Figures of the chip: breakdown, occupancy, normalised designs, efficiency; from plain report data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from bitline.report.figure_style import (
    BLUE,
    FILLS,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    STALL_FILLS,
    VERMILLION,
    WIDTH_IN,
    design_axis,
    layer_panels,
    name_axis,
    name_text,
    page,
    style,
)
from bitline.report.price_text import off_tile, on_tiles

__all__ = [
    "breakdown_figure",
    "efficiency_figure",
    "ladder_figure",
    "normalised_figure",
    "occupancy_figure",
    "savings_figure",
    "shares_figure",
    "throughput_figures",
]

_Row = Mapping[str, Any]
_REASONS = 4


def throughput_figures(report: _Row) -> dict[str, Figure]:
    """Return the figures of a validated report of ``bitline throughput``, by name; further designs are numbered.

    Parameters
    ----------
    report : mapping
        In the shape of :class:`bitline.report.throughput_schema.ThroughputReport`.
    """
    designs = [report, *report["others"]]
    bars: list[tuple[str, str, Mapping[str, float]]] = []
    for design in designs:
        name = f"{name_text(design['hardware']['name'], 14)}, " if len(designs) > 1 else ""
        shares = design["breakdown"] or _peak_breakdown(design["peak"])
        bars += [
            _tiles_bar(f"{name}area", "mm²", shares["area_mm2"], shares),
            _tiles_bar(f"{name}power", "W", shares["power_w"], shares),
        ]
    figures = {"breakdown": shares_figure(bars)}
    for number, design in enumerate(designs, start=1):
        tail = "" if number == 1 else f"_{number}"
        if design["performance"]:
            figures[f"occupancy{tail}"] = occupancy_figure(design["performance"]["layers"])
        if design["ladder"]:
            figures[f"normalised{tail}"] = ladder_figure(design["ladder"])
        if design["adc_sweep"]:
            figures[f"efficiency{tail}"] = efficiency_figure(design["adc_sweep"], design["hardware"]["name"])
    return figures


def _peak_breakdown(peak: _Row) -> dict[str, Any]:
    """Area and power of a whole chip by component, from its table: totals of a level hold what lies inside it."""
    totals, units = peak["totals"], {"chip": 1.0}
    rows = peak["components"]
    inside = {level: [row for row in rows if row["level"] == level] for level in ("ima", "tile", "chip")}
    for outer, inner in (("chip", "tile"), ("tile", "ima")):
        own = sum(row["area_mm2"] for row in inside[outer])
        units[inner] = units[outer] * (totals[outer]["area_mm2"] - own) / totals[inner]["area_mm2"]
    return {
        "area_mm2": {row["name"]: units[row["level"]] * row["area_mm2"] for row in rows},
        "power_w": {row["name"]: units[row["level"]] * row["power_mw"] / 1e3 for row in rows},
        "off_tile": [row["name"] for row in inside["chip"]],
    }


def breakdown_figure(breakdown: _Row) -> Figure:
    """Area, power and energy of the tiles by component as stacked bars of shares, totals beside them.

    What a chip has once is a number beside its bar: in it, it would leave nothing else to see of a small network.

    Parameters
    ----------
    breakdown : mapping
        ``area_mm2`` and ``power_w``, each component to value, and the other fields of
        :class:`bitline.report.schema.Breakdown`.
    """
    bars = [("area", "mm²", breakdown["area_mm2"]), ("power", "W", breakdown["power_w"])]
    for kind, key in (("energy, full activity", "energy_uj"), ("energy by event", "energy_by_event_uj")):
        if breakdown.get(key):
            bars.append((kind, "µJ", breakdown[key]))
    return shares_figure([_tiles_bar(kind, unit, parts, breakdown) for kind, unit, parts in bars])


def _tiles_bar(
    kind: str, unit: str, parts: Mapping[str, float], breakdown: _Row
) -> tuple[str, str, Mapping[str, float]]:
    """A bar of what lies in the tiles; what a chip has besides is said in its name."""
    tiles = on_tiles(parts, breakdown)
    besides = sum(parts.values()) - sum(tiles.values())
    return (kind, f"{unit}\n+ {besides:.4g} {off_tile(breakdown)}" if besides > 0 else unit, tiles)


def shares_figure(bars: Sequence[tuple[str, str, Mapping[str, float]]]) -> Figure:
    """Stacked bars of shares, each with its total; the smallest parts are shown as one where fills run out.

    Parameters
    ----------
    bars : sequence of tuples
        What a bar shows, its unit, and its parts by name.
    """
    bars = [bar for bar in bars if sum(bar[2].values()) > 0]
    shares = {
        name: max(values.get(name, 0) / sum(values.values()) for _, _, values in bars)
        for name in {name: None for _, _, values in bars for name in values}
    }
    # more components than fills: the smallest are shown as one
    names = sorted(shares, key=lambda name: (-shares[name], name))
    if len(names) > len(FILLS):
        names = names[: len(FILLS) - 1]
    with style():
        figure = Figure(figsize=(WIDTH_IN, 0.9 + 0.6 * max(len(bars), 1)), layout="constrained")
        axis = figure.subplots()
        for y, (_, _, values) in enumerate(bars):
            total = sum(values.values())
            parts = {name: values.get(name, 0) / total for name in names}
            rest = 1 - sum(parts.values())
            if len(names) < len(shares):
                parts["rest"] = max(rest, 0.0)
            left = 0.0
            for (name, share), (colour, hatch) in zip(parts.items(), FILLS, strict=False):
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
        axis.set_xlabel("share of the tiles (%)")
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
        reason: FILLS[1] if named else fill for reason, fill in zip(reasons, STALL_FILLS * len(reasons), strict=False)
    }
    with style():
        figure = page(len(layers), 1.0, wide=True)
        panels = layer_panels(figure, list(zip(layers, stalls, strict=True)))
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
                        axis.text(left + 1, y, name_text(reason, room), va="center", fontsize=5.5)
                    left += 100 * share
            name_axis(axis, [layer["name"] for layer in part])
            for label, layer in zip(axis.get_yticklabels(), part, strict=True):
                if layer["bottleneck"]:
                    label.set_color(VERMILLION)
                    label.set_fontweight("bold")
            axis.set_xlim(0, 100)
            axis.set_xlabel("time (%)")
        marks: list[Any] = [Patch(facecolor=BLUE, label="computing")]
        shown = {"waiting": FILLS[1]} if named else fills
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
    with style():
        figure = Figure(figsize=(min(WIDTH_IN, 1.6 + 1.0 * len(designs)), 2.7), layout="constrained")
        axis = figure.subplots()
        _pairs(axis, designs)
        axis.set_ylabel("relative to the non-pruned design")
        figure.legend(loc="outside upper center", ncols=2, fontsize=6.5)
    return figure


def efficiency_figure(points: Sequence[_Row], design: str) -> Figure:
    """GOPS/W against ADC bits, a line for each rule by which the ADC scales.

    Parameters
    ----------
    points : sequence of mappings
        ``adc_sweep`` of a report: ``adc_bits``, ``gops_per_w``, ``law``.
    design : str
        What the figure is of.
    """
    with style():
        figure = Figure(figsize=(3.6, 2.8), layout="constrained")
        axis = figure.subplots()
        looks = [(BLUE, "o", "-"), (VERMILLION, "s", "--"), (GREEN, "^", ":"), (PURPLE, "D", "-."), (GREY, "v", "-")]
        for i, law in enumerate(dict.fromkeys(point["law"] for point in points)):
            line = sorted((point["adc_bits"], point["gops_per_w"]) for point in points if point["law"] == law)
            colour, marker, dash = looks[i % len(looks)]
            axis.plot(
                [bits for bits, _ in line], [value for _, value in line], color=colour, marker=marker, linestyle=dash,
                markersize=4, linewidth=1.2, label=law.replace("_", " ") or "design",
            )  # fmt: skip
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_ylim(bottom=0)
        axis.set_xlabel("ADC resolution (bits)")
        axis.set_ylabel("power efficiency (GOPS/W)")
        axis.set_title(name_text(design, 40))
        figure.legend(loc="outside upper center", ncols=2, fontsize=6.5)
    return figure


def ladder_figure(steps: Sequence[_Row]) -> Figure:
    """Area and power relative to the non-pruned design at each ADC resolution (the style of TinyADC's Fig. 4).

    Parameters
    ----------
    steps : sequence of mappings
        ``ladder`` of a throughput report: ``name``, ``power``, ``area``, ``power_tiles``, ``area_tiles``.
    """
    with style():
        figure = Figure(figsize=(WIDTH_IN, 3.9), layout="constrained")
        axes = figure.subplots(2, 1, sharex=True)
        for axis, tail, what in zip(axes, ("_tiles", ""), ("tiles alone", "whole chip"), strict=True):
            _pairs(axis, [{**step, "power": step[f"power{tail}"], "area": step[f"area{tail}"]} for step in steps])
            axis.set_ylabel(f"{what},\nrelative to non-pruned")
        axes[-1].set_xlabel("resolution of the ADCs after the first layer")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=2, fontsize=6.5)
    return figure


def savings_figure(claims: Sequence[_Row]) -> Figure:
    """Published savings as marks over the range that scopes and ADC laws give.

    Parameters
    ----------
    claims : sequence of mappings
        ``claims`` of ``bitline throughput --savings``.
    """
    looks = {"chip": (BLUE, "o"), "tiles": (ORANGE, "s"), "imas": (GREEN, "^")}
    words = {"chip": "tiles and HyperTransport", "tiles": "tiles alone", "imas": "IMAs alone"}
    with style():
        figure = Figure(figsize=(WIDTH_IN, 1.2 + 0.5 * len(claims)), layout="constrained")
        for axis, key, title in zip(
            figure.subplots(1, 2, sharey=True), ("power_saved", "area_saved"), ("power", "area"), strict=True
        ):
            for y, claim in enumerate(claims):
                for shift, (scope, (colour, marker)) in zip((-0.22, 0, 0.22), looks.items(), strict=True):
                    values = [100 * saving[key] for saving in claim["savings"] if saving["scope"] == scope]
                    axis.plot(
                        values, [y + shift] * len(values), color=colour, marker=marker, markersize=3.5, linewidth=1,
                        label=words[scope] if y == 0 else "_" + scope,
                    )  # fmt: skip
                axis.plot(
                    [100 * claim["claim"][key]] * 2, [y - 0.38, y + 0.38], color="black", linewidth=1.6,
                    label="published" if y == 0 else "_published",
                )  # fmt: skip
            axis.set_xlim(0, 100)
            axis.set_xlabel(f"{title} saved (%)")
        figure.axes[0].set_yticks(range(len(claims)), [_claim_name(claim["key"]) for claim in claims])
        figure.axes[0].set_ylim(len(claims) - 0.5, -0.5)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=4, fontsize=6.5)
    return figure


def _claim_name(key: str) -> str:
    """``fig4_cifar10_vgg16`` as a reader knows it."""
    words = {"imagenet": "ImageNet", "resnet": "ResNet-", "vgg": "VGG-", "cifar": "CIFAR-", "fig": "Fig. "}
    name = key.replace("_", ", ")
    for short, word in words.items():
        name = name.replace(short, word)
    return name


def _pairs(axis: Axes, designs: Sequence[_Row]) -> None:
    """A bar of power and one of area for each design."""
    top = max(max(design["area"], design["power"]) for design in designs)
    for i, (key, colour, hatch) in enumerate((("power", ORANGE, ""), ("area", BLUE, "//"))):
        for x, design in enumerate(designs):
            place = x + (i - 0.5) * 0.36
            axis.bar(
                place, design[key], 0.34, color=colour, hatch=hatch, edgecolor="white", linewidth=0,
                label=key if x == 0 else "_" + key,
            )  # fmt: skip
            box = {"facecolor": "white", "edgecolor": "none", "pad": 0.4}
            axis.text(
                place, design[key] + 0.02 * top, f"{design[key]:.2f}", ha="center", va="bottom", fontsize=6, bbox=box
            )
    axis.axhline(1, color="black", linestyle="--", linewidth=0.6, zorder=0)
    design_axis(axis, designs)
    axis.set_ylim(0, 1.12 * top)
