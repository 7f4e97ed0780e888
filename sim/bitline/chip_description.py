"""The physical half of a hardware description: the chip's hierarchy, its components, its timing and its ADC.

Every physical number carries the source it was read from; a description without one is refused. Powers and areas are
written as the source prints them, for ``units`` units together, so a table can be compared line by line.

The models here are plain data. What they mean for a network is computed in :mod:`bitline.chip`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

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


def _number(value: object) -> object:
    """Refuse booleans and strings where a number is expected."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be a number")
    return value


def _whole(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("must be an integer")
    return value


_Source = Annotated[str, Field(min_length=3)]
_Positive = Annotated[float, BeforeValidator(_number), Field(gt=0)]
_NotNegative = Annotated[float, BeforeValidator(_number), Field(ge=0)]
_Count = Annotated[int, BeforeValidator(_whole), Field(ge=1)]


class _Model(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False, validate_default=True
    )


class Figure(_Model):
    """A positive physical number and where it was read; its unit is in the name of the field that holds it."""

    value: _Positive
    """The number, in the unit of the field's name."""

    source: _Source
    """Paper, table and page, or repository and file; "assumption: ..." where nothing is published."""


class CountFigure(_Model):
    """A count and where it was read."""

    value: _Count
    """The count, at least 1."""

    source: _Source
    """Paper, table and page, or repository and file; "assumption: ..." where nothing is published."""


class Component(_Model):
    """Power and area of one kind of component, as its source prints them."""

    per: Per
    """What the units belong to: cell, row (word line), column (bit line), crossbar, ima, tile or chip."""

    count: _Positive = 1.0
    """Units for each of those; a fraction where one unit is shared (0.25: one router for four tiles)."""

    units: _Positive = 1.0
    """How many units the two figures below are for, as printed (8 ADCs together, 1024 DACs together)."""

    power_mw: _NotNegative
    """Power of these units together, in mW, when active."""

    area_mm2: _NotNegative
    """Area of these units together, in mm2."""

    source: _Source
    """Where the two figures were read."""

    note: str = ""
    """Anything a reader of the figures should know."""


class AdcDescription(_Model):
    """The converters: the resolution their figures are printed for, their rate, and the laws that scale them."""

    bits: Annotated[int, BeforeValidator(_whole), Field(ge=1, le=16)]
    """Resolution the ``adc`` component's power and area are printed for."""

    sample_rate_gsps: Figure
    """Conversions of one ADC, in 1e9 a second, at that resolution."""

    law: AdcLaw = AdcLaw.KULL
    """How power and area follow from the resolution."""

    rate_law: RateLaw = RateLaw.FIXED
    """How the sample rate follows from the resolution."""


class Hierarchy(_Model):
    """How crossbars make up a chip."""

    crossbars_per_ima: CountFigure
    """Crossbars of one IMA (in-situ multiply-accumulate unit; PUMA calls it a core)."""

    imas_per_tile: CountFigure
    """IMAs of one tile."""

    tiles_per_chip: CountFigure
    """Tiles of one chip."""

    max_chips: Annotated[int, BeforeValidator(_whole), Field(ge=1)] | None = None
    """Most chips a network may take; none means as many as it needs."""


class Timing(_Model):
    """Clocks, widths and depths of the pipeline."""

    array_read_ns: Figure
    """Time of one crossbar read; the pipeline's cycle, unless the ADCs need longer."""

    pipeline_overhead_cycles: CountFigure
    """Cycles of the intra-tile pipeline besides the input cycles (ISAAC: 22 for 16 input cycles, so 6)."""

    digital_cycles: CountFigure
    """Cycles from the start of a pooling or element-wise result to its being readable."""

    digital_clock_ghz: Figure
    """Clock of the buffers, buses and routers."""

    edram_port_bits: CountFigure
    """Width of a tile buffer's port."""

    edram_kbytes: Figure
    """Capacity of a tile's buffer, in units of 1024 bytes."""

    bus_bits: CountFigure
    """Width of the bus from a tile's buffer to its IMAs."""

    router_bits: CountFigure
    """Width of a tile's port into the network on chip."""

    links: CountFigure
    """Links off the chip."""

    link_gbyte_per_s: Figure
    """Bandwidth of one link, in 1e9 bytes a second."""


class ChipDescription(_Model):
    """Everything the price and the timing depend on, besides the functional fields of the hardware."""

    hierarchy: Hierarchy
    """Crossbars, IMAs, tiles, chips."""

    adc: AdcDescription
    """The converters."""

    timing: Timing
    """Clocks, widths and depths."""

    components: dict[str, Component]
    """Power and area by component; ``adc`` and ``crossbar`` must be there, other names are free."""

    @model_validator(mode="after")
    def _complete(self) -> ChipDescription:
        for name in ("adc", "crossbar"):
            if name not in self.components:
                raise ValueError(f"components.{name} is missing: every chip has one")
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
