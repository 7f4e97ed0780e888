"""The physical half of a hardware description: the chip's hierarchy, its components, its timing and its ADC.

Every physical number carries the source it was read from; a description without one is refused. Powers and areas are
written as the source prints them, for ``units`` units together, so a table can be compared line by line.

The models here are plain data. What they mean for a network is computed in :mod:`bitline.chip`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bitline.bounds import Bounded, ComponentName, Line, Source

__all__ = [
    "AdcDescription",
    "AdcLaw",
    "ChipDescription",
    "Component",
    "CountFigure",
    "Figure",
    "Hierarchy",
    "Per",
    "RateLaw",
    "Timing",
]


class AdcLaw(StrEnum):
    """How an ADC's power and area follow from its resolution (:mod:`bitline.chip.adc_laws`)."""

    KULL = "kull"
    KULL_LATCHES_CONSTANT = "kull_latches_constant"
    SURVEY = "survey"
    HALVES_PER_BIT = "halves_per_bit"
    PUMA = "puma"


class RateLaw(StrEnum):
    """How an ADC's sample rate follows from its resolution."""

    FIXED = "fixed"
    PER_BIT = "per_bit"
    """One comparison a bit, as in a SAR converter: the rate scales with (printed bits) / bits."""


class Per(StrEnum):
    """What each unit of a component belongs to."""

    CELL = "cell"
    ROW = "row"
    COLUMN = "column"
    CROSSBAR = "crossbar"
    IMA = "ima"
    TILE = "tile"
    CHIP = "chip"


# Bounds are far beyond anything built, and near enough that every product of figures stays a finite number.
_Units = Annotated[float, Bounded(1e-9, 1e12)]
_Power = Annotated[float, Bounded(1e-15, 1e9, or_zero=True)]
_Area = Annotated[float, Bounded(1e-15, 1e9, or_zero=True)]
_Chips = Annotated[int, Bounded(1, 1_000_000)]
_Width = Bounded(1, 1_000_000)
_Cycles = Bounded(1, 1_000_000)


class _Model(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False, validate_default=True
    )


class Figure(_Model):
    """A positive physical number and where it was read; its unit is in the name of the field that holds it, its bounds
    in that field's annotation."""

    value: Annotated[float, Bounded(1e-30, 1e30)]
    """The number, in the unit of the field's name."""

    source: Source
    """Paper, table and page, or repository and file; "assumption: ..." where nothing is published."""


class CountFigure(_Model):
    """A count and where it was read."""

    value: Annotated[int, Bounded(1, 1_000_000_000)]
    """The count, at least 1."""

    source: Source
    """Paper, table and page, or repository and file; "assumption: ..." where nothing is published."""


class Component(_Model):
    """Power and area of one kind of component, as its source prints them."""

    per: Per
    """What the units belong to: cell, row (word line), column (bit line), crossbar, ima, tile or chip."""

    count: _Units = 1.0
    """Units for each of those, 1e-9..1e12; a fraction where one unit is shared (0.25: one router for four tiles)."""

    units: _Units = 1.0
    """How many units the two figures below are for, 1e-9..1e12, as printed (8 ADCs together, 1024 DACs together)."""

    power_mw: _Power
    """Power of these units together, in mW, when active; 0 or 1e-15..1e9."""

    area_mm2: _Area
    """Area of these units together, in mm2; 0 or 1e-15..1e9."""

    source: Source
    """Where the two figures were read."""

    note: Line = ""
    """Anything a reader of the figures should know."""


class AdcDescription(_Model):
    """The converters: the resolution their figures are printed for, their rate, and the laws that scale them."""

    bits: Annotated[int, Bounded(1, 16)]
    """Resolution the ``adc`` component's power and area are printed for."""

    sample_rate_gsps: Annotated[Figure, Bounded(1e-6, 1e3)]
    """Conversions of one ADC, in 1e9 a second, at that resolution; 1e-6..1e3."""

    law: AdcLaw = AdcLaw.KULL
    """How power and area follow from the resolution."""

    rate_law: RateLaw = RateLaw.FIXED
    """How the sample rate follows from the resolution."""


class Hierarchy(_Model):
    """How crossbars make up a chip."""

    crossbars_per_ima: Annotated[CountFigure, Bounded(1, 65536)]
    """Crossbars of one IMA (in-situ multiply-accumulate unit; PUMA calls it a core); 1..65536."""

    imas_per_tile: Annotated[CountFigure, Bounded(1, 65536)]
    """IMAs of one tile; 1..65536."""

    tiles_per_chip: Annotated[CountFigure, Bounded(1, 1_000_000)]
    """Tiles of one chip; 1..1e6."""

    max_chips: _Chips | None = None
    """Most chips a network may take, 1..1e6; none means as many as it needs."""


class Timing(_Model):
    """Clocks, widths and depths of the pipeline."""

    array_read_ns: Annotated[Figure, Bounded(1e-3, 1e9)]
    """Time of one crossbar read, 1e-3..1e9; the pipeline's cycle, unless the ADCs need longer."""

    pipeline_overhead_cycles: Annotated[CountFigure, _Cycles]
    """Cycles of the intra-tile pipeline besides the input cycles (ISAAC: 22 for 16 input cycles, so 6); 1..1e6."""

    digital_cycles: Annotated[CountFigure, _Cycles]
    """Cycles from the start of a pooling or element-wise result to its being readable; 1..1e6."""

    digital_clock_ghz: Annotated[Figure, Bounded(1e-6, 1e3)]
    """Clock of the buffers, buses and routers; 1e-6..1e3."""

    edram_port_bits: Annotated[CountFigure, _Width]
    """Width of a tile buffer's port; 1..1e6."""

    edram_kbytes: Annotated[Figure, Bounded(1e-3, 1e9)]
    """Capacity of a tile's buffer, in units of 1024 bytes; 1e-3..1e9."""

    bus_bits: Annotated[CountFigure, _Width]
    """Width of the bus from a tile's buffer to its IMAs; 1..1e6."""

    router_bits: Annotated[CountFigure, _Width]
    """Width of a tile's port into the network on chip; 1..1e6."""

    links: Annotated[CountFigure, Bounded(1, 65536)]
    """Links off the chip; 1..65536."""

    link_gbyte_per_s: Annotated[Figure, Bounded(1e-6, 1e6)]
    """Bandwidth of one link, in 1e9 bytes a second; 1e-6..1e6."""


class ChipDescription(_Model):
    """Everything the price and the timing depend on, besides the functional fields of the hardware."""

    hierarchy: Hierarchy
    """Crossbars, IMAs, tiles, chips."""

    adc: AdcDescription
    """The converters."""

    timing: Timing
    """Clocks, widths and depths."""

    components: Annotated[dict[ComponentName, Component], Field(max_length=1000)]
    """Power and area by component; ``adc`` and ``crossbar`` must be there, other names are free, 1000 at most."""

    @model_validator(mode="after")
    def _complete(self) -> ChipDescription:
        for name in ("adc", "crossbar"):
            if name not in self.components:
                raise ValueError(f"components.{name} is missing: every chip has one")
        for figure in ("power_mw", "area_mm2"):
            if not any(getattr(component, figure) for component in self.components.values()):
                raise ValueError(f"components: none has {figure} above 0, so nothing can be priced")
        if self.components["adc"].per in (Per.CELL, Per.ROW, Per.TILE, Per.CHIP):
            raise ValueError(
                f"components.adc.per must be column, crossbar or ima, not {self.components['adc'].per.value}"
            )
        return self

    def units(self, name: str, rows: int, columns: int) -> float:
        """Units of a component for each IMA (cell to ima), tile or chip, whichever its ``per`` lies in."""
        component = self.components[name]
        crossbars = self.hierarchy.crossbars_per_ima.value
        multiplier = {
            Per.CELL: crossbars * rows * columns,
            Per.ROW: crossbars * rows,
            Per.COLUMN: crossbars * columns,
            Per.CROSSBAR: crossbars,
        }.get(component.per, 1)
        return component.count * multiplier

    def sources(self) -> dict[str, str]:
        """Return every source by the path of its number, in the order of the description."""
        found: dict[str, str] = {}

        def walk(path: str, value: Any) -> None:
            if isinstance(value, dict):
                if "source" in value:
                    found[path] = value["source"]
                for key, inner in value.items():
                    walk(f"{path}.{key}" if path else key, inner)

        walk("", self.model_dump(mode="json"))
        return found
