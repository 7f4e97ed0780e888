"""Published figures beside what this model gives under each assumption that was ever proposed for them.

Nothing here is a reproduction of TinyADC's Table III or of its Figures 4 and 5: the paper prices its chip with an
unpublished tool. Every row names its assumption, and the published number stands beside it.

References
----------
Shafiee et al., ISAAC, ISCA 2016, Table I and the published peak figures.
Yuan et al., TinyADC, DATE 2021, Table III, Figures 4 and 5 and the text that quotes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bitline.chip.adc_laws import adc_scale
from bitline.chip.cost import PriceTable, peak, price_table
from bitline.chip.mapping import chip_of, map_layers
from bitline.chip_description import AdcLaw
from bitline.errors import ShapeError
from bitline.hardware import Hardware
from bitline.layers import Operation

__all__ = [
    "CLAIMS",
    "ISAAC_GOPS_PER_S_MM2",
    "ISAAC_GOPS_PER_W",
    "TINYADC_GOPS_PER_S_MM2",
    "TINYADC_GOPS_PER_W",
    "Bracket",
    "Claim",
    "OwnAdc",
    "Saving",
    "Table3Row",
    "bracket",
    "own_adc",
    "table3",
]

ISAAC_GOPS_PER_S_MM2 = 478.95
"""As TinyADC's Table III prints it; ISAAC's own component table gives 483.5."""
ISAAC_GOPS_PER_W = 627.5
TINYADC_GOPS_PER_S_MM2 = 621.19
TINYADC_GOPS_PER_W = 879.1

_CONSTANTS = (
    ("DaDianNao", 63.46, 286.4),
    ("TPU", 40.88, 301.91),
    ("PUMA", 338.76, 497.25),
    ("ISAAC", ISAAC_GOPS_PER_S_MM2, ISAAC_GOPS_PER_W),
    ("TinyADC (ISAAC)", TINYADC_GOPS_PER_S_MM2, TINYADC_GOPS_PER_W),
)


@dataclass(frozen=True, kw_only=True)
class Table3Row:
    """One row: a published constant, or what one assumption gives."""

    name: str
    kind: str
    """``published`` (a constant of the paper) or ``computed`` (this model under the named assumption)."""
    gops_per_s_mm2: float
    """From the component table's own 483.5 where computed."""
    gops_per_s_mm2_from_published: float | None
    """The same gain applied to the published 478.95; None for constants."""
    gops_per_w: float
    gain_by_area: float
    """Of GOPS/s/mm2 over the same base by both measures: the printed ISAAC for constants, else the description's own
    component table with 8-bit ADCs."""
    gain_by_power: float
    """Of GOPS/W over the same base."""
    distance: float | None
    """Of an assumption: the larger of the two relative distances from the printed row; None for constants."""
    source: str

    def to_json(self) -> dict[str, Any]:
        """Return the row as plain data."""
        return asdict(self)


def _variant(table: PriceTable, scales: Mapping[str, float], ima_power: float = 1.0) -> tuple[float, float]:
    """Power in mW and area in mm2 of a chip with components scaled in power and area alike."""
    sums = {}
    for level in ("ima", "tile", "chip"):
        parts = table.level(level)
        sums[level] = (
            sum(c.power_mw * scales.get(c.name, 1.0) for c in parts),
            sum(c.area_mm2 * scales.get(c.name, 1.0) for c in parts),
        )
    imas, tiles = table.imas_per_tile, table.tiles_per_chip
    power = sums["chip"][0] + tiles * (sums["tile"][0] + imas * ima_power * sums["ima"][0])
    area = sums["chip"][1] + tiles * (sums["tile"][1] + imas * sums["ima"][1])
    return power, area


def table3(hw: Hardware) -> tuple[Table3Row, ...]:
    """Return TinyADC's Table III: its constants, and what each known assumption gives for its last row.

    Parameters
    ----------
    hw : Hardware
        ISAAC's description (``isaac``): 8-bit ADCs, so that the assumptions mean what they say.

    Returns
    -------
    tuple of Table3Row
        Published constants first, then one row an assumption. None of them is claimed to be the paper's method.
    """
    base = peak(hw, adc_bits=8, law=AdcLaw.KULL)
    digital = ("shift_and_add", "output_register", "sample_and_hold", "tile_shift_and_add", "tile_output_register")
    fewer = 7 / 8
    faster = 8 / 7  # a SAR converter of 7 bits compares 7 times instead of 8
    halved = {"adc": 0.5}
    by_law = {bits: price_table(hw, bits, AdcLaw.KULL).chip for bits in (6, 7)}
    assumptions = (
        ("ADC of 6 bits by the Kull split, nothing else changes", *by_law[6], 1.0),
        ("ADC of 7 bits by the Kull split, nothing else changes", *by_law[7], 1.0),
        ("ADC removed altogether, HyperTransport included", *_variant(base.table, {"adc": 0.0}), 1.0),
        (
            "ADC of 7 bits that halves per bit; conversion and whole IMA 8/7 faster, IMA power x 8/7; "
            "HyperTransport included",
            *_variant(base.table, halved, faster),
            faster,
        ),
        (
            "the same, power and area of S+A, OR and S+H also x 7/8",
            *_variant(base.table, halved | dict.fromkeys(digital, fewer), faster),
            faster,
        ),
        (
            "the same, power and area of the input register also x 7/8",
            *_variant(base.table, halved | dict.fromkeys((*digital, "input_register"), fewer), faster),
            faster,
        ),
    )
    rows = [
        Table3Row(
            name=name,
            kind="published",
            gops_per_s_mm2=by_area,
            gops_per_s_mm2_from_published=None,
            gops_per_w=by_power,
            gain_by_area=by_area / ISAAC_GOPS_PER_S_MM2,
            gain_by_power=by_power / ISAAC_GOPS_PER_W,
            distance=None,
            source="TinyADC (DATE 2021), Table III",
        )
        for name, by_area, by_power in _CONSTANTS
    ]
    for name, power, area, speed in assumptions:
        gain = speed * base.area_mm2 / area
        by_power = base.tops * speed * 1e6 / power
        rows.append(
            Table3Row(
                name=name,
                kind="computed",
                gops_per_s_mm2=base.gops_per_s_mm2 * gain,
                gops_per_s_mm2_from_published=ISAAC_GOPS_PER_S_MM2 * gain,
                gops_per_w=by_power,
                gain_by_area=gain,
                gain_by_power=by_power / base.gops_per_w,
                distance=max(
                    abs(ISAAC_GOPS_PER_S_MM2 * gain / TINYADC_GOPS_PER_S_MM2 - 1),
                    abs(by_power / TINYADC_GOPS_PER_W - 1),
                ),
                source=f"component table of {hw.name}",
            )
        )
    return tuple(rows)


@dataclass(frozen=True, kw_only=True)
class OwnAdc:
    """What 2-bit ADCs save of a tile that is built with the converter the paper cites, instead of ISAAC's."""

    crossbars_per_adc: int
    power_saved: float
    area_saved: float


CHAN_BITS, CHAN_MW, CHAN_MM2 = 7, 5.0, 0.0043
"""Chan et al., ISSCC 2017, 16.4: 28 nm, 2.4 GS/s; the ADC that TinyADC cites."""


def own_adc(hw: Hardware, bits: int = 2) -> tuple[OwnAdc, ...]:
    """The saving of ADCs of so many bits over 8, scaled by Kull's split, in tiles with the paper's own ADC.

    One ADC for each crossbar gives the published 62 % of power, one for two crossbars the published 45 % of area;
    neither gives both.

    Parameters
    ----------
    hw : Hardware
        Whose tile, but for its ADCs, is taken.
    bits : int
        Resolution after pruning; the paper's largest reduction leaves 2.
    """
    chip = chip_of(hw)
    table = price_table(hw, chip.adc.bits, AdcLaw.KULL)
    adc = next(c for c in table.components if c.name == "adc")
    others = [total - table.imas_per_tile * (adc.power_mw, adc.area_mm2)[i] for i, total in enumerate(table.tile)]
    crossbars = table.imas_per_tile * chip.hierarchy.crossbars_per_ima.value
    printed, dense, lean = (adc_scale(AdcLaw.KULL, n, 8) for n in (CHAN_BITS, 8, bits))
    found = []
    for shared in (1, 2):
        count = crossbars / shared
        saved = []
        for other, chan, scales in (
            (others[0], CHAN_MW, (printed.power, dense.power, lean.power)),
            (others[1], CHAN_MM2, (printed.area, dense.area, lean.area)),
        ):
            before, after = (other + count * chan * scale / scales[0] for scale in scales[1:])
            saved.append(1 - after / before)
        found.append(OwnAdc(crossbars_per_adc=shared, power_saved=saved[0], area_saved=saved[1]))
    return tuple(found)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A published saving and the configuration that is named with it."""

    name: str
    adc_bits: int
    """The paper's count for its pruning rate: 8 minus the printed difference."""
    crossbar_reduction: float
    """Share of crossbars that structured pruning removes, as the paper prints it."""
    reference_crossbar_reduction: float
    """The same for the design the saving is relative to (0: the non-pruned design)."""
    power_saved: float
    area_saved: float
    source: str
    note: str


def _saved(times: float) -> float:
    return 1 - 1 / times


CLAIMS: dict[str, Claim] = {
    "fig4_imagenet_resnet18": Claim(
        name="CP pruning alone, ResNet-18, ImageNet",
        adc_bits=6,
        crossbar_reduction=0.0,
        reference_crossbar_reduction=0.0,
        power_saved=0.37,
        area_saved=0.22,
        source="TinyADC (DATE 2021), Fig. 4 and text; Table I: CP rate 4, ADC - 2 bits",
        note="",
    ),
    "fig4_cifar10_resnet18": Claim(
        name="CP pruning alone, ResNet-18, CIFAR-10 ('up to')",
        adc_bits=2,
        crossbar_reduction=0.0,
        reference_crossbar_reduction=0.0,
        power_saved=0.62,
        area_saved=0.45,
        source="TinyADC (DATE 2021), Fig. 4 and text; Table I: CP rate 64, ADC - 6 bits",
        note="the paper says 'up to' without naming the network; its highest rate is on ResNet-18",
    ),
    "fig4_cifar10_vgg16": Claim(
        name="CP pruning alone, VGG-16, CIFAR-10 ('up to')",
        adc_bits=3,
        crossbar_reduction=0.0,
        reference_crossbar_reduction=0.0,
        power_saved=0.62,
        area_saved=0.45,
        source="TinyADC (DATE 2021), Fig. 4 and text; Table II: CP rate 32, ADC - 5 bits",
        note="the paper says 'up to' without naming the network",
    ),
    "fig5_imagenet_resnet18": Claim(
        name="structured and CP pruning, ResNet-18, ImageNet: 3.5x power, 2.9x area",
        adc_bits=7,
        crossbar_reduction=0.5463,
        reference_crossbar_reduction=0.0,
        power_saved=_saved(3.5),
        area_saved=_saved(2.9),
        source="TinyADC (DATE 2021), Fig. 5 and text; Table II: 54.63 % of crossbars, ADC - 1 bit",
        note="(1 - 0.5463) x (1 - 0.37) = 1/3.50: the 37 % of Fig. 4, which is at 6 bits, gives the printed 3.5x",
    ),
    "fig5_cifar10_resnet18": Claim(
        name="structured and CP pruning, ResNet-18, CIFAR-10: 15x power, 12x area",
        adc_bits=4,
        crossbar_reduction=0.8638,
        reference_crossbar_reduction=0.0,
        power_saved=_saved(15),
        area_saved=_saved(12),
        source="TinyADC (DATE 2021), Fig. 5 and text; Table II: 86.38 % of crossbars, ADC - 4 bits",
        note="",
    ),
    "fig5_cifar100_vgg16": Claim(
        name="structured and CP pruning against Decorrelation, VGG-16, CIFAR-100: 38 % power, 21 % area",
        adc_bits=4,
        crossbar_reduction=0.439,
        reference_crossbar_reduction=0.5188,
        power_saved=0.38,
        area_saved=0.21,
        source="TinyADC (DATE 2021), text on Fig. 5; Table II: 43.9 % of crossbars and ADC - 4 bits against 51.88 %",
        note="read as relative to Decorrelation's power and area; the text says 'more saved'",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Saving:
    """What one assumption saves."""

    scope: str
    """``chip`` (tiles and HyperTransport), ``tiles``, or ``imas`` (nothing outside the IMAs)."""
    law: str
    """ADC law, or ``removed``: ADCs of the pruned layers that cost nothing."""
    power_saved: float
    area_saved: float


@dataclass(frozen=True, kw_only=True)
class Bracket:
    """A claim between the least and the most that the assumptions give."""

    claim: Claim
    savings: tuple[Saving, ...]
    reason: str

    def _between(self, field: str, published: float) -> bool:
        values = [getattr(saving, field) for saving in self.savings]
        return bool(min(values) <= published <= max(values))

    @property
    def power_bracketed(self) -> bool:
        """Whether the published power saving lies between the computed ones."""
        return self._between("power_saved", self.claim.power_saved)

    @property
    def area_bracketed(self) -> bool:
        """Whether the published area saving lies between the computed ones."""
        return self._between("area_saved", self.claim.area_saved)

    def to_json(self) -> dict[str, Any]:
        """Return the bracket as plain data."""
        return asdict(self) | {"power_bracketed": self.power_bracketed, "area_bracketed": self.area_bracketed}


def bracket(claim: Claim | str, operations: Sequence[Operation], hw: Hardware) -> Bracket:
    """Bracket a published saving for a network: every scope of the price under the gentlest and steepest ADC laws.

    The first layer keeps 8-bit ADCs and all its crossbars, as in the paper, which does not prune it.

    Parameters
    ----------
    claim : Claim or str
        A claim, or its key in :data:`CLAIMS`.
    operations : sequence of Operation
        The network the claim is about, at the shapes of its data set.
    hw : Hardware
        With a physical half; its components are the model's, not the paper's.

    Raises
    ------
    ShapeError
        A network of fewer than two matrix layers.
    """
    chosen = CLAIMS[claim] if isinstance(claim, str) else claim
    mappings = map_layers(operations, hw)
    if len(mappings) < 2:
        raise ShapeError("a saving needs a first layer and others, got a network of one matrix layer")
    first = mappings[0].crossbars
    others = sum(m.crossbars for m in mappings[1:])
    baseline = chip_of(hw).adc.bits
    dense = price_table(hw, baseline, AdcLaw.KULL)
    savings = []
    for law in (AdcLaw.KULL, AdcLaw.KULL_LATCHES_CONSTANT, AdcLaw.HALVES_PER_BIT, None):
        table = dense if law is None else price_table(hw, chosen.adc_bits, law)
        for scope in ("chip", "tiles", "imas"):
            saved = []
            for which in (0, 1):  # power, area
                # what one crossbar costs, with its share of the tile and of a full chip
                dense_price = _per_crossbar(dense, scope, which, hw)
                pruned_price = _per_crossbar(table, scope, which, hw, without_adc=law is None)
                kept = others * (1 - chosen.crossbar_reduction)
                mine = first * dense_price + kept * pruned_price
                reference = (first + others * (1 - chosen.reference_crossbar_reduction)) * dense_price
                saved.append(1 - mine / reference)
            savings.append(
                Saving(
                    scope=scope, law="removed" if law is None else law.value, power_saved=saved[0], area_saved=saved[1]
                )
            )
    adc_power, adc_area = dense.share("adc")
    reason = (
        f"the paper's tool and baseline are unpublished; here ADCs are {adc_power:.0%} of a tile's power and "
        f"{adc_area:.0%} of its area, which caps what smaller ADCs alone can save; a larger share, as inside the IMAs "
        "alone, saves more"
    )
    return Bracket(claim=chosen, savings=tuple(savings), reason=reason)


def _per_crossbar(table: PriceTable, scope: str, which: int, hw: Hardware, without_adc: bool = False) -> float:
    per_ima = chip_of(hw).hierarchy.crossbars_per_ima.value
    ima = table.ima[which]
    if without_adc:
        adc = next(c for c in table.components if c.name == "adc")
        ima -= (adc.power_mw, adc.area_mm2)[which]
    price = ima
    if scope != "imas":
        price += sum((c.power_mw, c.area_mm2)[which] for c in table.level("tile")) / table.imas_per_tile
    if scope == "chip":
        imas = table.imas_per_tile * table.tiles_per_chip
        price += sum((c.power_mw, c.area_mm2)[which] for c in table.level("chip")) / imas
    return price / per_ima
