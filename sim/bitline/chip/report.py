"""What an estimate says, as frozen records and as plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from bitline.chip.pipeline import Schedule

__all__ = ["BufferUse", "ChipReport", "LayerReport", "Totals"]


@dataclass(frozen=True, kw_only=True)
class BufferUse:
    """What one reader holds of one input at its fullest."""

    reader: str
    source: str
    rows: int
    """Rows of the feature map held at once."""
    bytes: int


@dataclass(frozen=True, kw_only=True)
class LayerReport:
    """One matrix layer on the chip."""

    name: str
    rows: int
    columns: int
    groups: int
    row_tiles: int
    column_groups: int
    crossbars_per_replica: int
    dropped_crossbars: int
    removed_rows: int
    removed_columns: int
    squeezed: str | None
    """``rows`` or ``columns`` where those that are zero in a crossbar-sized block are squeezed out of it."""
    index_bits: int
    """Bits of the index tables of one replica that squeezing needs; not priced."""
    replicas: int
    crossbars: int
    imas: int
    tiles: tuple[int, int]
    """First and last tile."""
    chips: tuple[int, int]
    """First and last chip."""
    cell_utilisation: float
    """Cells that hold a weight's digit, of the cells of its crossbars."""
    adc_bits: int | tuple[int, ...]
    positions: int
    """Input vectors an image."""
    macs: int
    digital_operations: int
    """Elementary functions, sums and products of a recurrent layer's gates for one image."""
    interval_cycles: int | float
    """Cycles between two input vectors of one replica."""
    interval_set_by: str
    """``compute``, ``adc``, ``edram``, ``bus``, ``router``, ``link`` or ``recurrence``."""
    busy_cycles: int | float
    """Cycles an image keeps the layer busy."""
    occupancy: float
    """Busy share of the replicas in the steady state."""
    first_start_cycle: int | float
    """Cycle of the first image's first input vector: how long the pipeline takes to fill up to here."""
    last_start_cycle: int | float
    stall_cycles: float
    """Cycles, averaged over the replicas, that the first image's vectors were waited for after the first."""
    waits_for: str | None
    """Operation whose results come last."""
    paced_by: str | None
    """The bottleneck that leaves this layer idle in the steady state; None where the layer sets the pace itself."""
    crossbar_cycles: int
    """Read cycles of an image, of all crossbars of one copy together."""
    buffer_bytes: int
    """Input buffer the layer needs."""
    power_w: float
    """Power of its IMAs."""
    area_mm2: float
    """Area of its IMAs."""
    energy_uj: float
    """Energy of one image in its IMAs at full activity."""
    energy_by_event_uj: float | None
    """The same with conversions, driven word lines and cells that are on; None without a bit-serial run."""
    lines_driven: float | None
    """Word lines driven, of those of its crossbars, in the read cycles of an image."""
    cells_on: float | None
    """Cells on, of those of its crossbars, in the read cycles of an image."""

    @property
    def stall_reason(self) -> str:
        """Why the layer's replicas ever stand idle, in words."""
        reasons = []
        if self.stall_cycles:
            reasons.append(f"waits for {self.waits_for}")
        if self.paced_by:
            reasons.append(f"paced by {self.paced_by}")
        return ", ".join(reasons) or "none"


@dataclass(frozen=True, kw_only=True)
class Totals:
    """The whole network on its tiles and chips."""

    cycles: int
    """Cycles until the last of ``images`` images is done."""
    images: int
    interval_cycles: int | float
    """Cycles between images in the steady state."""
    cycle_ns: float
    latency_us: float
    """From the first image's admission to its result."""
    images_per_s: float
    ops_per_image: int
    """Twice the multiply-accumulates on crossbars."""
    digital_operations: int
    """Elementary functions, sums and products of the gates of recurrent layers, for one image."""
    tiles: int
    chips: int
    crossbars: int
    dropped_crossbars: int
    crossbar_utilisation: float
    cell_utilisation: float
    buffer_tiles: int
    """Tiles whose buffers the feature maps need; more than the crossbars need means tiles were added for them."""


@dataclass(frozen=True, kw_only=True)
class ChipReport:
    """The price and the timing of a network on a chip."""

    hardware: str
    adc_law: str
    adc_bits_from: str
    cycle_set_by: str
    bottleneck: str
    bottleneck_reason: str
    totals: Totals
    layers: tuple[LayerReport, ...]
    buffers: tuple[BufferUse, ...]
    power_w: dict[str, float]
    """Power by component, everything active: tiles used, and one set of chip-level components a chip."""
    area_mm2: dict[str, float]
    """Area by component."""
    energy_uj: dict[str, float]
    """Energy of one image by component, in the steady state, every component on while its layer works."""
    energy_by_event_uj: dict[str, float] | None
    """The same with ADCs, DACs and cells by event; None without a bit-serial run."""
    baseline: str
    """What ``normalised`` is relative to."""
    baseline_power_w: float
    baseline_area_mm2: float
    chip_level: tuple[str, ...]
    """Components counted once a chip (HyperTransport)."""
    baseline_tiles: tuple[float, float]
    """Power in W and area in mm2 of the baseline's tiles alone."""
    schedule: Schedule = field(repr=False, compare=False)
    """Starts of every position, for the timeline."""

    @property
    def total_power_w(self) -> float:
        """Power with everything active, in W."""
        return sum(self.power_w.values())

    @property
    def total_area_mm2(self) -> float:
        """Area in mm2."""
        return sum(self.area_mm2.values())

    @property
    def energy_uj_per_image(self) -> float:
        """Energy of one image in uJ, at full activity."""
        return sum(self.energy_uj.values())

    @property
    def activity(self) -> dict[str, float | None]:
        """Word lines driven and cells on, of those of all crossbars in their layers' cycles; None without a run."""
        found: dict[str, float | None] = {"lines_driven": None, "cells_on": None}
        if self.energy_by_event_uj is not None:
            for name in found:
                shares = [(getattr(layer, name), layer.crossbar_cycles) for layer in self.layers]
                known = [(share, weight) for share, weight in shares if share is not None]
                found[name] = sum(share * weight for share, weight in known) / max(1, sum(w for _, w in known))
        return found

    @property
    def gops(self) -> float:
        """Achieved 1e9 operations a second (a multiply-accumulate is two)."""
        return self.totals.ops_per_image * self.totals.images_per_s / 1e9

    def tiles_alone(self, breakdown: dict[str, float]) -> float:
        """Sum of a breakdown without what is counted once a chip: the links off it, which dominate small networks."""
        return sum(value for name, value in breakdown.items() if name not in self.chip_level)

    def to_json(self) -> dict[str, Any]:
        """Return plain data with the blocks ``performance``, ``breakdown`` and ``normalised`` of a report."""
        totals = self.totals
        power, area, events = self.total_power_w, self.total_area_mm2, self.energy_by_event_uj
        tiles_power, tiles_area = self.tiles_alone(self.power_w), self.tiles_alone(self.area_mm2)
        return {
            "hardware": self.hardware,
            "adc_law": self.adc_law,
            "adc_bits_from": self.adc_bits_from,
            "performance": {
                "cycles": totals.cycles,
                "images": totals.images,
                "interval_cycles": totals.interval_cycles,
                "cycle_ns": totals.cycle_ns,
                "cycle_set_by": self.cycle_set_by,
                "images_per_s": totals.images_per_s,
                "latency_us": totals.latency_us,
                "digital_operations_per_image": totals.digital_operations,
                "energy_uj_per_image": self.energy_uj_per_image,
                "energy_by_event_uj_per_image": None if events is None else sum(events.values()),
                **self.activity,
                "area_mm2": area,
                "power_w": power,
                "average_power_w": self.energy_uj_per_image * totals.images_per_s / 1e6,
                "gops": self.gops,
                "gops_per_s_mm2": self.gops / area,
                "gops_per_w": self.gops / power,
                "tiles_alone": {
                    "energy_uj_per_image": self.tiles_alone(self.energy_uj),
                    "energy_by_event_uj_per_image": None if events is None else self.tiles_alone(events),
                    "area_mm2": tiles_area,
                    "power_w": tiles_power,
                    "average_power_w": self.tiles_alone(self.energy_uj) * totals.images_per_s / 1e6,
                    "gops_per_s_mm2": self.gops / tiles_area,
                    "gops_per_w": self.gops / tiles_power,
                },
                "tiles": totals.tiles,
                "chips": totals.chips,
                "crossbars": totals.crossbars,
                "dropped_crossbars": totals.dropped_crossbars,
                "crossbar_utilisation": totals.crossbar_utilisation,
                "cell_utilisation": totals.cell_utilisation,
                "buffer_tiles": totals.buffer_tiles,
                "bottleneck": self.bottleneck,
                "bottleneck_reason": self.bottleneck_reason,
                "replication": {layer.name: layer.replicas for layer in self.layers},
            },
            "breakdown": {
                "area_mm2": dict(self.area_mm2),
                "power_w": dict(self.power_w),
                "energy_uj": dict(self.energy_uj),
                "energy_by_event_uj": None if events is None else dict(events),
                "off_tile": list(self.chip_level),
            },
            "normalised": {
                "area": area / self.baseline_area_mm2,
                "power": power / self.baseline_power_w,
                "area_tiles": tiles_area / self.baseline_tiles[1],
                "power_tiles": tiles_power / self.baseline_tiles[0],
                "baseline": self.baseline,
            },
            "layers": [{**_plain(asdict(layer)), "stall_reason": layer.stall_reason} for layer in self.layers],
            "buffers": [asdict(use) for use in self.buffers],
        }


def _plain(record: dict[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in record.items()}
