"""Area, power and energy: components rolled up to IMA, tile and chip, and the peak figures of a whole chip.

Every roll-up is a plain sum of the component table, so the parts add up to the totals.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from bitline.chip.adc_laws import MAX_BITS, energy_scale_at, laws_of, rate_at, scale_at
from bitline.chip.mapping import LayerMapping, chip_of
from bitline.chip.timing import clock_of
from bitline.chip_description import AdcLaw, Event, Per
from bitline.errors import ConfigError, RangeError
from bitline.hardware import AdcPolicy, Hardware, Readout

__all__ = [
    "AdcBits",
    "ComponentPrice",
    "LayerActivity",
    "Level",
    "Peak",
    "PriceTable",
    "adc_points",
    "check_adc_bits",
    "design_bits",
    "event_energy",
    "law_of",
    "layer_energy",
    "peak",
    "price_table",
]

AdcBits = int | tuple[int, ...]
"""Resolution of a layer's ADCs: one number, or one a weight slice."""

Level = str
"""``ima``, ``tile`` or ``chip``: what a component is counted for."""


def check_adc_bits(bits: int | Sequence[int], where: str = "adc_bits") -> AdcBits:
    """Return a resolution, or one a slice, after checking that each lies in 1..16.

    Raises
    ------
    RangeError
        Not an integer, or outside 1..16.
    """
    values = (bits,) if isinstance(bits, int | np.integer) else tuple(bits)
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 1 <= value <= MAX_BITS:
            raise RangeError(f"{where} must be integers in 1..{MAX_BITS}, got {value!r}")
    if not values:
        raise RangeError(f"{where} must not be empty")
    plain = tuple(int(value) for value in values)
    return plain[0] if isinstance(bits, int | np.integer) else plain


def law_of(hw: Hardware, law: AdcLaw | str | None) -> AdcLaw:
    """Return the ADC law asked for, or the description's.

    Raises
    ------
    ConfigError
        No such law.
    """
    adc = chip_of(hw).adc
    if law is None:
        return adc.law
    known = laws_of(adc)
    if law not in known:
        raise ConfigError(f"ADC law must be one of {', '.join(name.value for name in known)}, got {law}")
    return AdcLaw(law)


def design_bits(hw: Hardware, adc_bits: int | None = None) -> tuple[int, str]:
    """Resolution of a design without a network, and where it comes from.

    Eq. (1) needs no weights: it is of all rows that are on at once. The other policies do; without weights the
    resolution the ADC's figures are printed for stands in, and says so.

    Raises
    ------
    ConfigError
        Eq. (1) asks for more bits than an ADC has.
    """
    if adc_bits is not None:
        check_adc_bits(adc_bits)
        return int(adc_bits), "given"
    if hw.adc_bits is AdcPolicy.EQUATION:
        bits = hw.equation_bits(hw.read_rows)
        if bits > MAX_BITS:
            raise ConfigError(
                f"hardware {hw.name}: adc_bits: equation: {hw.read_rows} rows, {hw.cell_bits}-bit cells and "
                f"{hw.dac_bits}-bit DACs need {bits} bits, an ADC has at most {MAX_BITS}"
            )
        return bits, f"Eq. (1) for {hw.read_rows} rows"
    if isinstance(hw.adc_bits, AdcPolicy):
        return chip_of(hw).adc.bits, f"printed resolution (policy {hw.adc_bits.value} needs weights)"
    return hw.adc_bits, "hardware description"


@dataclass(frozen=True, kw_only=True)
class ComponentPrice:
    """All units of one component in one IMA, tile or chip."""

    name: str
    level: Level
    units: float
    power_mw: float
    """When active; of an energy by event, that of as many events as a full crossbar can cause."""
    area_mm2: float
    source: str
    energy_pj: float | None = None
    """Of one event, where the description states it."""


@dataclass(frozen=True, kw_only=True)
class PriceTable:
    """The components of a design at one ADC resolution, and their sums."""

    adc_bits: AdcBits
    law: AdcLaw
    components: tuple[ComponentPrice, ...]
    imas_per_tile: int
    tiles_per_chip: int

    def level(self, level: Level) -> tuple[ComponentPrice, ...]:
        """Components counted for an IMA, a tile (without its IMAs) or a chip (without its tiles)."""
        return tuple(c for c in self.components if c.level == level)

    def _sum(self, level: Level) -> tuple[float, float]:
        chosen = self.level(level)
        return sum(c.power_mw for c in chosen), sum(c.area_mm2 for c in chosen)

    @property
    def ima(self) -> tuple[float, float]:
        """Power in mW and area in mm2 of one IMA."""
        return self._sum("ima")

    @property
    def tile(self) -> tuple[float, float]:
        """Power in mW and area in mm2 of one tile with its IMAs."""
        power, area = self._sum("tile")
        ima_power, ima_area = self.ima
        return power + self.imas_per_tile * ima_power, area + self.imas_per_tile * ima_area

    @property
    def chip(self) -> tuple[float, float]:
        """Power in mW and area in mm2 of one chip with its tiles."""
        power, area = self._sum("chip")
        tile_power, tile_area = self.tile
        return power + self.tiles_per_chip * tile_power, area + self.tiles_per_chip * tile_area

    def share(self, name: str) -> tuple[float, float]:
        """Share of one IMA component in a tile's power and area."""
        tile_power, tile_area = self.tile
        chosen = [c for c in self.components if c.name == name]
        factor = self.imas_per_tile
        return (
            factor * sum(c.power_mw for c in chosen) / tile_power,
            factor * sum(c.area_mm2 for c in chosen) / tile_area,
        )


_LEVEL = {Per.TILE: "tile", Per.CHIP: "chip"}  # everything else lies inside an IMA


def price_table(hw: Hardware, adc_bits: AdcBits, law: AdcLaw) -> PriceTable:
    """Return the power and area of every component at an ADC resolution under a law.

    Several resolutions, one a weight slice, are priced as that mix of ADCs in equal shares. Cells and what drives the
    rows take their printed power for the rows that are on at once.

    Raises
    ------
    RangeError
        A resolution outside the law's domain.
    """
    chip = chip_of(hw)
    values = (adc_bits,) if isinstance(adc_bits, int) else adc_bits
    scales = [scale_at(chip.adc, law, bits) for bits in values]
    adc_power = sum(scale.power for scale in scales) / len(scales)
    adc_area = sum(scale.area for scale in scales) / len(scales)
    cycle_ns = clock_of(hw, max(values)).cycle_ns
    full = _events_of_a_full_crossbar(hw)
    in_ima, in_tile = chip.hierarchy.crossbars_per_ima.value, chip.hierarchy.imas_per_tile.value
    crossbars = {
        "ima": in_ima,
        "tile": in_ima * in_tile,
        "chip": in_ima * in_tile * chip.hierarchy.tiles_per_chip.value,
    }
    components = []
    for name, component in chip.components.items():
        units = chip.units(name, hw.rows, hw.columns)
        factor = units / component.units
        area = component.area_mm2 * factor
        level = _LEVEL.get(chip.level_of(name), "ima")
        energy = component.energy_pj
        if component.event is not None and energy is not None:
            if name == "adc":
                energy *= sum(energy_scale_at(chip.adc, law, bits) for bits in values) / len(values)
            power = energy * full[component.event] * crossbars[level] / cycle_ns  # pJ / ns = mW
        else:
            power = (component.power_mw or 0.0) * factor * (adc_power if name == "adc" else 1)
            if name == "crossbar" or component.per in (Per.CELL, Per.ROW):  # printed with all rows on
                power *= hw.read_rows / hw.rows
        if name == "adc":
            area *= adc_area
        components.append(
            ComponentPrice(
                name=name,
                level=level,
                units=units,
                power_mw=power,
                area_mm2=area,
                source=component.source,
                energy_pj=energy,
            )
        )
    return PriceTable(
        adc_bits=adc_bits,
        law=law,
        components=tuple(components),
        imas_per_tile=chip.hierarchy.imas_per_tile.value,
        tiles_per_chip=chip.hierarchy.tiles_per_chip.value,
    )


def _events_of_a_full_crossbar(hw: Hardware) -> dict[Event, float]:
    """Events of one crossbar in one cycle, all its rows, cells and columns used, at full activity."""
    conversions = hw.columns / (2 if hw.readout is Readout.ANALOG else 1)
    a_vector = 1 / (hw.input_cycles * (hw.rows // hw.read_rows))  # of an input vector, in one cycle
    read = hw.rows * hw.input_bits * a_vector
    written = hw.columns / (hw.slices * hw.signs) * hw.input_bits * a_vector
    return {
        Event.CONVERSION: conversions,
        Event.SHIFT_AND_ADD: conversions,
        Event.WORD_LINE: hw.read_rows,
        Event.CELL: hw.read_rows * hw.columns,
        Event.READ: 1,
        Event.BUFFER_BIT: read + written,
        Event.BUS_BIT: read,
        Event.ROUTER_BIT: written,
    }


def _events_of_a_layer(mapping: LayerMapping, hw: Hardware, cycles: int) -> dict[Event, float]:
    """Events of one image in one copy of a layer: reads, conversions and code bits that are; all lines, all cells."""
    reads = mapping.crossbars * cycles
    analog = 2 if hw.readout is Readout.ANALOG else 1
    conversions = cycles / mapping.turns * mapping.columns_read / analog
    vectors = cycles / (hw.input_cycles * mapping.input_passes * mapping.turns)
    read = vectors * mapping.rows_read * hw.input_bits * mapping.input_passes
    written = vectors * mapping.live_columns * hw.input_bits
    return {
        Event.CONVERSION: conversions,
        Event.SHIFT_AND_ADD: conversions,
        Event.WORD_LINE: reads * hw.read_rows,
        Event.CELL: reads * hw.read_rows * hw.columns,
        Event.READ: reads,
        Event.BUFFER_BIT: read + written,
        Event.BUS_BIT: read,
        Event.ROUTER_BIT: written,
    }


@dataclass(frozen=True, kw_only=True)
class LayerActivity:
    """What a bit-serial run of some images did in the crossbars of one copy of a layer; totals over those images.

    Conversions need no run: every column that is there is converted for every digit.
    """

    images: int
    lines_driven: int
    """Word lines driven with a digit that is not zero, over crossbars, input vectors, digits and passes."""
    cells_on: int
    """Cells of a level that is not zero on a driven word line, counted like the lines."""


def layer_energy(
    table: PriceTable, mapping: LayerMapping, hw: Hardware, *, imas: float, cycles: int, cycle_ns: float
) -> dict[str, float]:
    """Energy in pJ of one image in one layer's IMAs at full activity, by component (mW x ns = pJ).

    Every component is on while its layer works: ADCs convert in every cycle, every word line is driven, every cell on.
    What states its energy by event pays for every event there is, tile and chip included; all lines and cells count.

    Parameters
    ----------
    imas : float
        IMAs of one copy; what lies inside them counts by the crossbars that are built.
    cycles : int
        Read cycles of one image in one copy: input vectors times digits, passes and turns.
    """
    chip = chip_of(hw)
    crossbars = mapping.crossbars / chip.hierarchy.crossbars_per_ima.value
    energy = {}
    events = _events_of_a_layer(mapping, hw, cycles)
    for component in table.components:
        event = chip.components[component.name].event
        if event is not None and component.energy_pj is not None:
            energy[component.name] = component.energy_pj * events[event]
        elif component.level == "ima":
            held = imas if chip.level_of(component.name) is Per.IMA else crossbars
            energy[component.name] = component.power_mw * held * cycles * cycle_ns
    return energy


def event_energy(
    table: PriceTable,
    mapping: LayerMapping,
    hw: Hardware,
    *,
    lines: float,
    cells: float,
    cycles: int,
    cycle_ns: float,
) -> dict[str, float]:
    """Energy in pJ of one image by event: what :func:`layer_energy` charges ADCs, DACs and cells, less idle shares.

    An event is a conversion at the ADC's sample rate, or one word line driven or one cell on for one cycle; a cell is
    on or off, whatever its level, and a line driven or not, whatever the digit. The printed power is taken to be that
    of all of them at once, so no event costs more than at full activity.

    Parameters
    ----------
    lines, cells : float
        Word lines driven and cells on for one image, over all cycles.
    cycles, cycle_ns
        As for :func:`layer_energy`.
    """
    chip = chip_of(hw)
    units = {component.name: component for component in table.level("ima")}
    adc = units["adc"]
    energy = {}
    if adc.energy_pj is None:  # an energy by conversion is the same either way
        bits = table.adc_bits if isinstance(table.adc_bits, int) else max(table.adc_bits)
        conversions = _events_of_a_layer(mapping, hw, cycles)[Event.CONVERSION]
        energy["adc"] = conversions * adc.power_mw / adc.units / rate_at(chip.adc, bits)
    counted = {Per.ROW: lines, Per.CELL: cells}
    by_event = {Event.WORD_LINE: lines, Event.CELL: cells}
    for component in table.components:
        described = chip.components[component.name]
        if component.energy_pj is not None:
            if described.event in by_event:
                energy[component.name] = component.energy_pj * by_event[described.event]
            continue
        count = counted.get(chip.level_of(component.name))
        if count is not None:
            on_at_once = component.units * hw.read_rows / hw.rows  # what the power is of
            energy[component.name] = count * component.power_mw / on_at_once * cycle_ns
    return energy


@dataclass(frozen=True, kw_only=True)
class Peak:
    """A whole chip with every crossbar busy."""

    hardware: str
    adc_bits: int
    adc_bits_from: str
    table: PriceTable
    cycle_ns: float
    cycle_set_by: str
    crossbars: int
    tops: float
    """1e12 operations (a multiply-accumulate is two) a second, of the description's weight and input bits."""
    full_column_bits: int
    """ADC bits that would hold the sum of a full column at the largest input digit."""

    @property
    def holds_full_columns(self) -> bool:
        """Whether the ADC holds every sum there can be; if not, the peak is one of weights whose sums are smaller."""
        return self.adc_bits >= self.full_column_bits

    @property
    def power_w(self) -> float:
        """Power of the chip in W."""
        return self.table.chip[0] / 1e3

    @property
    def area_mm2(self) -> float:
        """Area of the chip in mm2."""
        return self.table.chip[1]

    @property
    def gops_per_w(self) -> float:
        """Peak rate by power."""
        return self.tops * 1e3 / self.power_w

    @property
    def gops_per_s_mm2(self) -> float:
        """Peak rate by area."""
        return self.tops * 1e3 / self.area_mm2

    def to_json(self) -> dict[str, object]:
        """Return plain data: the component table with its sources, the sums and the peak figures."""
        names = ("ima", "tile", "chip")
        sums = {name: dict(zip(("power_mw", "area_mm2"), getattr(self.table, name), strict=True)) for name in names}
        share_power, share_area = self.table.share("adc")
        return {
            "hardware": self.hardware,
            "adc_bits": self.adc_bits,
            "adc_bits_from": self.adc_bits_from,
            "full_column_bits": self.full_column_bits,
            "holds_full_columns": self.holds_full_columns,
            "adc_law": self.table.law.value,
            "components": [
                {
                    "name": c.name,
                    "level": c.level,
                    "units": c.units,
                    "power_mw": c.power_mw,
                    "area_mm2": c.area_mm2,
                    "source": c.source,
                }
                for c in self.table.components
            ],
            "totals": sums,
            "adc_share_of_tile": {"power": share_power, "area": share_area},
            "cycle_ns": self.cycle_ns,
            "cycle_set_by": self.cycle_set_by,
            "crossbars": self.crossbars,
            "tops": self.tops,
            "power_w": self.power_w,
            "area_mm2": self.area_mm2,
            "gops_per_w": self.gops_per_w,
            "gops_per_s_mm2": self.gops_per_s_mm2,
        }


def peak(hw: Hardware, *, adc_bits: int | None = None, law: AdcLaw | str | None = None) -> Peak:
    """Return the component table of a design and the peak figures of one chip of it.

    Parameters
    ----------
    hw : Hardware
        With its physical half.
    adc_bits : int, optional
        Resolution of every ADC; by default the description's number, or, where the description has a policy, the
        resolution its ADC figures are printed for.
    law : AdcLaw or str, optional
        How the ADC's power and area follow from its resolution; by default the description's.

    Raises
    ------
    ConfigError
        No physical half, or no such law.
    RangeError
        A resolution outside 1..16 or the law's domain.

    References
    ----------
    Shafiee et al., ISAAC, ISCA 2016: 168 x 12 x 8 crossbars x 128 rows x 16 weights x 2 / 1.6 us = 41.3 TOPS.
    """
    chosen_law = law_of(hw, law)
    bits, origin = design_bits(hw, adc_bits)
    hierarchy = chip_of(hw).hierarchy
    crossbars = hierarchy.crossbars_per_ima.value * hierarchy.imas_per_tile.value * hierarchy.tiles_per_chip.value
    clock = clock_of(hw, bits)
    weights = hw.rows * hw.columns / (hw.slices * hw.signs)  # of one crossbar
    ops_per_s = 2 * weights / (hw.input_cycles * (hw.rows // hw.read_rows) * clock.cycle_ns * 1e-9)
    return Peak(
        hardware=hw.name,
        adc_bits=bits,
        adc_bits_from=origin,
        table=price_table(hw, bits, chosen_law),
        cycle_ns=clock.cycle_ns,
        cycle_set_by=clock.set_by,
        crossbars=crossbars,
        tops=crossbars * ops_per_s / 1e12,
        full_column_bits=hw.full_column_bits,
    )


def adc_points(
    hw: Hardware, *, bits: Iterable[int] = range(1, 13), laws: Iterable[AdcLaw | str] | None = None
) -> list[dict[str, object]]:
    """Peak efficiency against ADC resolution under several laws: the points of a figure.

    Parameters
    ----------
    hw : Hardware
        With its physical half.
    bits : iterable of int
        Resolutions; those outside a law's domain are left out for that law.
    laws : iterable of AdcLaw or str, optional
        By default all of them.

    Returns
    -------
    list of dict
        ``adc_bits``, ``gops_per_w``, ``gops_per_s_mm2`` and ``law`` of each point.
    """
    points: list[dict[str, object]] = []
    resolutions = list(bits)
    for law in laws if laws is not None else laws_of(chip_of(hw).adc):
        for resolution in resolutions:
            try:
                at = peak(hw, adc_bits=resolution, law=law)
            except RangeError:
                continue
            points.append(
                {
                    "adc_bits": resolution,
                    "gops_per_w": at.gops_per_w,
                    "gops_per_s_mm2": at.gops_per_s_mm2,
                    "law": at.table.law.value,
                }
            )
    return points
