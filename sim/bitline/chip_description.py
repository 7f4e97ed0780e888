"""The physical half of a hardware description: the chip's hierarchy, its components, its timing and its ADC.

Every physical number carries the source it was read from; a description without one is refused. Powers and areas are
written as the source prints them, for ``units`` units together, so a table can be compared line by line.

The models here are plain data. What they mean for a network is computed in :mod:`bitline.chip`.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bitline.bounds import Bounded, ComponentName, Line, Source
from bitline.errors import RangeError

__all__ = [
    "AdcDescription",
    "AdcLaw",
    "AdcPoint",
    "ChipDescription",
    "Component",
    "CountFigure",
    "Event",
    "ExtraLevel",
    "Figure",
    "Hierarchy",
    "Per",
    "RateLaw",
    "Timing",
]

_LEFT_OUT = Field(exclude_if=lambda value: value is None or value == ())
"""Of a field that older descriptions lack: at its default it is in no dump, so their hashes stay what they were."""


class AdcLaw(StrEnum):
    """How an ADC's power and area follow from its resolution (:mod:`bitline.chip.adc_laws`)."""

    KULL = "kull"
    KULL_LATCHES_CONSTANT = "kull_latches_constant"
    SURVEY = "survey"
    HALVES_PER_BIT = "halves_per_bit"
    PUMA = "puma"
    TABLE = "table"
    """The description's own figures at the resolutions it lists (``adc.table``); no others are known."""


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


class Event(StrEnum):
    """What an ``energy_pj`` is paid for."""

    CONVERSION = "conversion"
    """One conversion of an ADC."""
    WORD_LINE = "word_line"
    """One word line driven for one read."""
    CELL = "cell"
    """One cell of a level that is not zero on a driven word line, for one read."""
    READ = "read"
    """One read of one crossbar, whatever is driven."""
    SHIFT_AND_ADD = "shift_and_add"
    """One code shifted and added; one a conversion."""
    BUFFER_BIT = "buffer_bit"
    """One bit of an input or output code through a tile's buffer."""
    BUS_BIT = "bus_bit"
    """One bit of an input code from a buffer to the crossbars."""
    ROUTER_BIT = "router_bit"
    """One bit of an output code through a tile's port into the network on chip."""


# Bounds are far beyond anything built, and near enough that every product of figures stays a finite number.
_Units = Annotated[float, Bounded(1e-9, 1e12)]
_Power = Annotated[float, Bounded(1e-15, 1e9, or_zero=True)]
_Area = Annotated[float, Bounded(1e-15, 1e9, or_zero=True)]
_Energy = Annotated[float, Bounded(1e-9, 1e9)]
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


class Role(StrEnum):
    """What the timing looks for among the components."""

    ACTIVATION = "activation"
    """Units for elementary functions, one a digital clock each: a recurrent layer's gates."""


_NAMES = {Role.ACTIVATION: ("sigmoid", "activation")}
"""Names that say a role, as ISAAC and PUMA print them."""


class Component(_Model):
    """Power or energy, and area, of one kind of component, as its source prints them."""

    per: Per | ComponentName
    """What the units belong to: cell, row (word line), column (bit line), crossbar, ima, tile, chip, or a level of
    ``hierarchy.extra_levels``."""

    count: _Units = 1.0
    """Units for each of those, 1e-9..1e12; a fraction where one unit is shared (0.25: one router for four tiles)."""

    units: _Units = 1.0
    """How many units power and area are for, 1e-9..1e12, as printed (8 ADCs together, 1024 DACs together)."""

    power_mw: _Power | None = None
    """Power of these units together, in mW, when active; 0 or 1e-15..1e9. Either this or ``energy_pj``."""

    role: Annotated[Role | None, _LEFT_OUT] = None
    """What the model asks of it, where its name does not say so."""

    energy_pj: Annotated[_Energy | None, _LEFT_OUT] = None
    """Energy of one ``event``, in pJ, however many units there are; 1e-9..1e9."""

    event: Annotated[Event | None, _LEFT_OUT] = None
    """What ``energy_pj`` is paid for."""

    area_mm2: _Area
    """Area of these units together, in mm2; 0 or 1e-15..1e9."""

    source: Source
    """Where the two figures were read."""

    note: Line = ""
    """Anything a reader of the figures should know."""

    @model_validator(mode="after")
    def _one_of_two(self) -> Component:
        if (self.power_mw is None) == (self.energy_pj is None):
            raise ValueError("give either power_mw or energy_pj (of one event), not both and not neither")
        if (self.event is None) != (self.energy_pj is None):
            raise ValueError("event and energy_pj belong together: the energy is paid for each event")
        return self


class AdcPoint(_Model):
    """One ADC at one resolution, as its source prints it."""

    bits: Annotated[int, Bounded(1, 16)]
    """Resolution, 1..16."""

    power_mw: Annotated[Annotated[float, Bounded(1e-15, 1e9)] | None, _LEFT_OUT] = None
    """Power of one ADC when active, in mW; 1e-15..1e9. Where the ``adc`` component has ``energy_pj``, so has this."""

    role: Annotated[Role | None, _LEFT_OUT] = None
    """What the model asks of it, where its name does not say so."""

    energy_pj: Annotated[_Energy | None, _LEFT_OUT] = None
    """Energy of one conversion, in pJ; 1e-9..1e9."""

    area_mm2: Annotated[float, Bounded(1e-15, 1e9)]
    """Area of one ADC, in mm2; 1e-15..1e9."""

    sample_rate_gsps: Annotated[Annotated[float, Bounded(1e-6, 1e3)] | None, _LEFT_OUT] = None
    """Conversions in 1e9 a second, 1e-6..1e3; in every entry of a table or in none."""

    source: Source
    """Where these figures were read."""

    @property
    def cost(self) -> float:
        """Its power, or its energy a conversion, whichever is given; 0 where neither is (which a chip refuses)."""
        return self.energy_pj or self.power_mw or 0.0


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

    table: Annotated[tuple[AdcPoint, ...], Field(max_length=16), _LEFT_OUT] = ()
    """For ``law: table``: one ADC at each resolution there is; the one at ``bits`` is the ``adc`` component's."""

    def point(self, bits: float) -> AdcPoint:
        """Return the table's entry of a resolution; nothing is interpolated.

        Raises
        ------
        RangeError
            No such entry.
        """
        for entry in self.table:
            if entry.bits == bits:
                return entry
        known = ", ".join(str(entry.bits) for entry in self.table) or "none"
        raise RangeError(f"adc bits must be in the description's chip.adc.table ({known}), got {bits:g}")

    @model_validator(mode="after")
    def _table(self) -> AdcDescription:
        if (self.law is AdcLaw.TABLE) != bool(self.table):
            raise ValueError("law: table and an adc.table belong together")
        known = [entry.bits for entry in self.table]
        if len(set(known)) < len(known):
            raise ValueError("table: each resolution once")
        if self.table and self.bits not in known:
            raise ValueError(f"table: an entry for bits: {self.bits} is missing")
        rates = [entry.sample_rate_gsps for entry in self.table]
        if None in rates and any(rate is not None for rate in rates):
            raise ValueError("table: sample_rate_gsps in every entry or in none")
        if rates and None not in rates:
            if self.rate_law is not RateLaw.FIXED:
                raise ValueError("table: has the sample rates, so rate_law must be fixed")
            at_bits = self.point(self.bits).sample_rate_gsps
            if at_bits != self.sample_rate_gsps.value:
                raise ValueError(
                    f"table: sample_rate_gsps at bits: {self.bits} must be adc.sample_rate_gsps, "
                    f"{self.sample_rate_gsps.value:g}, not {at_bits:g}"
                )
        return self


_ABSENT = CountFigure(value=1, source="the description has no such level")
"""Of a level that a shallower design lacks: one, and no components."""


class ExtraLevel(_Model):
    """A level that ISAAC's hierarchy lacks: so many of a level below it, sharing components."""

    name: ComponentName
    """What a component's ``per`` calls it."""

    of: ComponentName
    """The level it groups: crossbar, ima, tile, or an extra level listed before it."""

    count: Annotated[int, Bounded(1, 65536)]
    """How many of those; 1..65536. Components are counted in proportion, a group begun is not rounded up."""

    source: Source
    """Where the count was read."""


class Hierarchy(_Model):
    """How crossbars make up a chip; a level left out is one of the level below it."""

    crossbars_per_ima: Annotated[CountFigure, Bounded(1, 65536)] = _ABSENT
    """Crossbars of one IMA (in-situ multiply-accumulate unit; PUMA calls it a core); 1..65536."""

    imas_per_tile: Annotated[CountFigure, Bounded(1, 65536)] = _ABSENT
    """IMAs of one tile; 1..65536."""

    tiles_per_chip: Annotated[CountFigure, Bounded(1, 1_000_000)] = _ABSENT
    """Tiles of one chip; 1..1e6."""

    max_chips: _Chips | None = None
    """Most chips a network may take, 1..1e6; none means as many as it needs (one where there are no links)."""

    extra_levels: Annotated[tuple[ExtraLevel, ...], Field(max_length=16), _LEFT_OUT] = ()
    """Levels between or above these, each a group of a level below it (a cluster of 4 tiles)."""

    def place(self, level: str) -> tuple[Per, float]:
        """Return the built-in level an extra one is made of, and how many of that it groups; 1 for a built-in one."""
        for extra in self.extra_levels:
            if extra.name == level:
                base, grouped = self.place(extra.of)
                return base, grouped * extra.count
        return Per(level), 1.0

    @model_validator(mode="after")
    def _levels(self) -> Hierarchy:
        known = {"crossbar", "ima", "tile"}
        for extra in self.extra_levels:
            if extra.name in known | {per.value for per in Per}:
                raise ValueError(f"extra_levels: {extra.name} is a level already")
            if extra.of not in known:
                raise ValueError(
                    f"extra_levels: {extra.name} must be of crossbar, ima, tile or a level before it, not {extra.of}"
                )
            known.add(extra.name)
        return self


class Timing(_Model):
    """Clocks, widths and depths of the pipeline."""

    array_read_ns: Annotated[Figure, Bounded(1e-3, 1e9)]
    """Time of one crossbar read, 1e-3..1e9; the pipeline's cycle, unless the ADCs need longer."""

    pipeline_overhead_cycles: Annotated[CountFigure, _Cycles]
    """Cycles of the intra-tile pipeline besides the input cycles (ISAAC: 22 for 16 input cycles, so 6); 1..1e6."""

    digital_cycles: Annotated[CountFigure, _Cycles]
    """Cycles from the start of a pooling or element-wise result to its being readable; 1..1e6."""

    digital_clock_ghz: Annotated[Annotated[Figure, Bounded(1e-6, 1e3)] | None, _LEFT_OUT] = None
    """Clock of the buffers, buses and routers; 1e-6..1e3. Needed where one of their widths is given."""

    edram_port_bits: Annotated[Annotated[CountFigure, _Width] | None, _LEFT_OUT] = None
    """Width of a tile buffer's port; 1..1e6. Without it the buffer is taken to keep up."""

    edram_kbytes: Annotated[Annotated[Figure, Bounded(1e-3, 1e9)] | None, _LEFT_OUT] = None
    """Capacity of a tile's buffer, in units of 1024 bytes; 1e-3..1e9. Without it no tiles are added for buffers."""

    bus_bits: Annotated[Annotated[CountFigure, _Width] | None, _LEFT_OUT] = None
    """Width of the bus from a tile's buffer to its IMAs; 1..1e6. Without it the bus is taken to keep up."""

    router_bits: Annotated[Annotated[CountFigure, _Width] | None, _LEFT_OUT] = None
    """Width of a tile's port into the network on chip; 1..1e6. Without it the port is taken to keep up."""

    links: Annotated[Annotated[CountFigure, Bounded(1, 65536)] | None, _LEFT_OUT] = None
    """Links off the chip; 1..65536. Without them one chip must hold the network, and its input is taken to be there."""

    link_gbyte_per_s: Annotated[Annotated[Figure, Bounded(1e-6, 1e6)] | None, _LEFT_OUT] = None
    """Bandwidth of one link, in 1e9 bytes a second; 1e-6..1e6. Given with ``links``."""

    @model_validator(mode="after")
    def _together(self) -> Timing:
        if (self.links is None) != (self.link_gbyte_per_s is None):
            raise ValueError("links and link_gbyte_per_s: both or neither")
        widths = (self.edram_port_bits, self.bus_bits, self.router_bits)
        if self.digital_clock_ghz is None and any(width is not None for width in widths):
            raise ValueError("digital_clock_ghz: needed where edram_port_bits, bus_bits or router_bits is given")
        return self

    def bandwidth(self, width: CountFigure | None) -> float:
        """Bits a ns through a port of this width; infinite where the description has none."""
        if width is None or self.digital_clock_ghz is None:
            return math.inf
        return width.value * self.digital_clock_ghz.value


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
        parts = self.components.values()
        if not any(part.power_mw or part.energy_pj for part in parts):
            raise ValueError("components: none has power_mw or energy_pj above 0, so nothing can be priced")
        if not any(part.area_mm2 for part in parts):
            raise ValueError("components: none has area_mm2 above 0, so nothing can be priced")
        for name, component in self.components.items():
            extra = [level.name for level in self.hierarchy.extra_levels]
            if component.per not in [*Per, *extra]:
                known = ", ".join([*(per.value for per in Per), *extra])
                raise ValueError(f"components.{name}.per must be one of {known}, not {component.per}")
        adc = self.components["adc"]
        if adc.per not in (Per.COLUMN, Per.CROSSBAR, Per.IMA):
            raise ValueError(f"components.adc.per must be column, crossbar or ima, not {adc.per}")
        if adc.event not in (None, Event.CONVERSION):
            raise ValueError(f"components.adc.event must be conversion, not {adc.event}")
        self._adc_table()
        if self.timing.links is None and (self.hierarchy.max_chips or 1) > 1:
            raise ValueError("hierarchy.max_chips: a design without timing.links is one chip")
        return self

    @property
    def most_chips(self) -> int | None:
        """Most chips a network may take; one where no links join them, none where nothing limits them."""
        return 1 if self.timing.links is None else self.hierarchy.max_chips

    @property
    def chips_limited_by(self) -> str:
        """What limits the chips, for messages."""
        if self.timing.links is None:
            return "chip.timing.links: without links the network must fit one chip"
        return "chip.hierarchy.max_chips: the network fits no chip"

    def _adc_table(self) -> None:
        """Check that a table prints what the component prints."""
        adc = self.components["adc"]
        for point in self.adc.table:
            if (point.power_mw is None) != (adc.power_mw is None) or (point.energy_pj is None) != (
                adc.energy_pj is None
            ):
                kind = "energy_pj" if adc.power_mw is None else "power_mw"
                raise ValueError(f"adc.table: {point.bits} bits must have {kind} alone, as components.adc has")
            if point.bits != self.adc.bits:
                continue
            one = (
                ("power_mw", point.power_mw, None if adc.power_mw is None else adc.power_mw / adc.units),
                ("energy_pj", point.energy_pj, adc.energy_pj),
                ("area_mm2", point.area_mm2, adc.area_mm2 / adc.units),
            )
            for name, listed, printed in one:
                if listed is not None and printed is not None and not math.isclose(listed, printed, rel_tol=1e-6):
                    raise ValueError(
                        f"adc.table: {name} at {point.bits} bits must be that of one unit of components.adc, "
                        f"{printed:g}, not {listed:g}"
                    )

    def having(self, role: Role) -> str | None:
        """Return the name of the component that has a role: said by itself, else by its name; None without one."""
        said = [name for name, component in self.components.items() if component.role is role]
        return next(iter([*said, *(name for name in _NAMES[role] if name in self.components)]), None)

    def level_of(self, name: str) -> Per:
        """Return the built-in level a component is counted in: what its ``per`` is, or groups."""
        return self.hierarchy.place(self.components[name].per)[0]

    def units(self, name: str, rows: int, columns: int) -> float:
        """Units of a component for each IMA (cell to ima), tile or chip, whichever its ``per`` lies in."""
        component = self.components[name]
        crossbars = self.hierarchy.crossbars_per_ima.value
        level, grouped = self.hierarchy.place(component.per)
        multiplier = {
            Per.CELL: crossbars * rows * columns,
            Per.ROW: crossbars * rows,
            Per.COLUMN: crossbars * columns,
            Per.CROSSBAR: crossbars,
        }.get(level, 1)
        return component.count * multiplier / grouped

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
