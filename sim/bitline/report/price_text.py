"""Prices in words, for every command that prints one: the tiles first, what a chip has once beside them.

A chip's links (ISAAC's HyperTransport) take more than all tiles of a small network, so a figure of both together says
little of the design.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bitline.report.tables import number, percent

__all__ = ["efficiency_text", "energy_text", "normalised_text", "off_tile", "on_tiles", "price_text"]

_Row = Mapping[str, Any]


def off_tile(breakdown: _Row | None) -> str:
    """Names of the components that a chip has once, such as its links; empty where there are none."""
    names = (breakdown or {}).get("off_tile", [])
    return " and ".join(name.replace("_", " ") for name in names)


def on_tiles(parts: Mapping[str, float], breakdown: _Row) -> dict[str, float]:
    """What of a breakdown lies in the tiles."""
    return {name: value for name, value in parts.items() if name not in breakdown.get("off_tile", [])}


def _beside(design: _Row, say: Callable[[_Row], str]) -> str:
    """A sentence about the tiles alone, and the same with what the chip has besides."""
    performance, besides = design["performance"], off_tile(design["breakdown"])
    alone = performance["tiles_alone"]
    if not besides or alone is None:
        return say(performance)
    return f"tiles alone {say(alone)}; with {besides} {say(performance)}"


def price_text(design: _Row) -> str:
    """Area and power; ``design`` has the sections ``performance`` and ``breakdown`` of a report."""
    return _beside(
        design, lambda figures: f"{number(figures['area_mm2'])} mm2, {number(figures['power_w'])} W with everything on"
    )


def efficiency_text(design: _Row) -> str:
    """Rate by area and power, of this network."""
    return _beside(
        design,
        lambda figures: f"{number(figures['gops_per_s_mm2'])} GOPS/s/mm2, {number(figures['gops_per_w'])} GOPS/W",
    )


def energy_text(design: _Row) -> str:
    """Energy of one image: by event where a run counted them, and at full activity."""

    def say(figures: _Row) -> str:
        full, events = figures["energy_uj_per_image"], figures["energy_by_event_uj_per_image"]
        counted = "" if events is None else f"{number(events)} uJ an image by event, "
        average = figures.get("average_power_w")
        watts = "" if average is None else f" ({number(average)} W on average)"
        return f"{counted}{number(full)} uJ{'' if counted else ' an image'} at full activity{watts}"

    text = _beside(design, say)
    lines, cells = design["performance"]["lines_driven"], design["performance"]["cells_on"]
    if lines is None or cells is None:
        return text
    return f"{text}; {percent(lines)} of the word lines driven and {percent(cells)} of the cells on in a read"


def normalised_text(normalised: _Row) -> str:
    """Area and power relative to the non-pruned design."""
    baseline = f" ({normalised['baseline']})" if normalised["baseline"] else ""
    whole = f"{percent(normalised['area'])} and {percent(normalised['power'])}"
    if normalised["area_tiles"] is None or normalised["power_tiles"] is None:
        return f"area and power {whole} of the non-pruned design's{baseline}"
    alone = f"{percent(normalised['area_tiles'])} and {percent(normalised['power_tiles'])}"
    if alone == whole:
        return f"area and power {whole} of the non-pruned design's{baseline}"
    return f"tiles alone: area and power {alone} of the non-pruned design's{baseline}; with all a chip has {whole}"
