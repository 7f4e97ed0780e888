"""What all figures share: palette, page, style and rendering; with the figures, the only modules of matplotlib.

Every figure is made for a page (7.2 inches wide), labelled with units, in the Okabe-Ito palette with hatches where
colour alone would tell things apart, so that it reads in grey print too. No pyplot: nothing global is touched.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bitline.printable import shorten

__all__ = [
    "BLUE",
    "DARK",
    "FILLS",
    "GREEN",
    "GREY",
    "NAME_WIDTH",
    "ORANGE",
    "PURPLE",
    "SKY",
    "STALL_FILLS",
    "VERMILLION",
    "WIDTH_IN",
    "YELLOW",
    "design_axis",
    "layer_panels",
    "name_axis",
    "page",
    "render",
    "style",
]

# Okabe and Ito, "Color universal design" (2008): told apart by people with any common colour blindness
BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PURPLE, YELLOW, GREY, DARK = "#56B4E9", "#CC79A7", "#F0E442", "#999999", "#444444"
FILLS = [
    (BLUE, ""),
    (ORANGE, ""),
    (SKY, "//"),
    (GREEN, ""),
    (YELLOW, ".."),
    (VERMILLION, ""),
    (PURPLE, "\\\\"),
    (GREY, ""),
]
STALL_FILLS = [(ORANGE, ""), (SKY, "//"), (YELLOW, ".."), (PURPLE, "\\\\")]
WIDTH_IN = 7.2
ROW_IN = 0.17
PANEL_ROWS = 36
MOST_PANELS, MOST_ROWS = 4, 400
NAME_WIDTH = 24
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
def style() -> Iterator[None]:
    """Bitline's settings and none of the user's, for the time of the block."""
    with mpl.rc_context():
        mpl.rcdefaults()
        with mpl.rc_context(_STYLE):
            yield


def render(figure: Figure, kind: str) -> bytes:
    """Return a figure as a file: ``png`` (200 dots an inch) or ``svg``; the same figure gives the same bytes."""
    file = io.BytesIO()
    with style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a name in letters that the font lacks shows boxes
        metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
        figure.savefig(file, format=kind, dpi=200, metadata=metadata)
        # the layout is found while drawing and takes most of the time; the next format needs it no more
        figure.set_layout_engine("none")
    return file.getvalue()


def panel_count(rows: int) -> int:
    """Panels side by side for so many rows; more rows than four panels of a page's height hold make these higher."""
    return min(max(1, -(-rows // PANEL_ROWS)), MOST_PANELS)


def layer_panels(figure: Figure, items: Sequence[Any]) -> list[tuple[Axes, Sequence[Any]]]:
    """Cut a long list of layers into panels of equal height side by side; of very many the first 400 are shown."""
    if len(items) > MOST_ROWS:
        figure.suptitle(f"the first {MOST_ROWS} of {len(items):,} layers; layers.csv has all", fontsize=6.5)
        items = items[:MOST_ROWS]
    panels = panel_count(len(items))
    rows = -(-len(items) // panels)
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for axis in axes:
        axis.set_ylim(rows - 0.5, -0.5)
    return [(axis, items[i * rows : (i + 1) * rows]) for i, axis in enumerate(axes)]


def page(rows: int, extra_in: float, wide: bool = False) -> Figure:
    """A figure as high as its rows, side by side where they would not fit a page."""
    rows = min(rows, MOST_ROWS)
    panels = panel_count(rows)
    height = extra_in + ROW_IN * -(-rows // panels)
    width = WIDTH_IN if panels > 1 or wide else 0.62 * WIDTH_IN
    return Figure(figsize=(max(width, 3.6 * panels), height), layout="constrained")


def name_text(name: str, width: int) -> str:
    """A name from a file as text of a figure: short, and no formula between dollar signs."""
    return shorten(name, width).replace("$", r"\$")


def name_axis(axis: Axes, names: Sequence[str]) -> None:
    """Write the layers' names beside their rows."""
    axis.set_yticks(range(len(names)), [name_text(name, NAME_WIDTH) for name in names])
    axis.tick_params(axis="y", length=0)


def design_axis(axis: Axes, designs: Sequence[_Row]) -> None:
    """Write the designs' names below their bars."""
    crowded = len(designs) > 5 and max(len(design["name"]) for design in designs) > 12
    names = [name_text(design["name"], 18 if crowded else 28) for design in designs]
    axis.set_xticks(range(len(designs)), names, rotation=35 if crowded else 0, ha="right" if crowded else "center")
    axis.set_xlim(-0.6, len(designs) - 0.4)
    axis.tick_params(axis="x", length=0)
