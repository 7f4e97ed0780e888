"""Published totals of whole designs, to stand beside what their component tables give."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["PUBLISHED_PEAKS", "PublishedPeak"]


@dataclass(frozen=True, kw_only=True)
class PublishedPeak:
    """What a paper prints for one IMA, one tile and one chip of a design, and its peak figures."""

    name: str
    source: str
    ima_power_mw: float
    ima_area_mm2: float
    tile_power_mw: float
    tile_area_mm2: float
    chip_power_w: float
    chip_area_mm2: float
    tops: float
    gops_per_w: float
    gops_per_s_mm2: float

    def to_json(self) -> dict[str, Any]:
        """Return the figures as plain data."""
        return asdict(self)


PUBLISHED_PEAKS: dict[str, PublishedPeak] = {
    "isaac": PublishedPeak(
        name="ISAAC, published",
        source="Shafiee et al., ISAAC, ISCA 2016, Table I and the peak figures of its evaluation (16 bits, 8-bit ADC)",
        ima_power_mw=24.1,
        ima_area_mm2=0.0131,
        tile_power_mw=330,
        tile_area_mm2=0.372,
        chip_power_w=65.8,
        chip_area_mm2=85.4,
        tops=41.3,
        gops_per_w=627.5,
        gops_per_s_mm2=478.95,
    )
}
"""By the name of the shipped description that holds the design."""
