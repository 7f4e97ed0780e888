"""Energies by event, ADC tables, chips without links, levels more or fewer: figures by hand."""

from __future__ import annotations

from typing import Any

import pytest

from bitline import load_hardware
from bitline.chip import LayerActivity, adc_points, estimate, peak
from bitline.chip.adc_energy import conversion_energy
from bitline.chip.timing import clock_of
from bitline.errors import ConfigError, RangeError
from bitline.hardware import Hardware
from bitline.layers import Operation, OperationKind

SAID = {"source": "assumption: a test"}


def fields(**components: dict[str, Any]) -> dict[str, Any]:
    """A macro of one 128 x 128 crossbar, one 8-bit ADC, nothing else, and these components."""
    return {
        "name": "macro",
        "input_bits": 8,
        "weight_bits": 8,
        "adc_bits": 8,
        "chip": {
            "hierarchy": {},
            "adc": {"bits": 8, "sample_rate_gsps": {"value": 1.28, **SAID}},
            "timing": {
                "array_read_ns": {"value": 100, **SAID},
                "pipeline_overhead_cycles": {"value": 1, **SAID},
                "digital_cycles": {"value": 1, **SAID},
            },
            "components": {
                "adc": {"per": "crossbar", "power_mw": 2.0, "area_mm2": 0.001, **SAID},
                "crossbar": {"per": "crossbar", "power_mw": 0.3, "area_mm2": 0.0001, **SAID},
                **components,
            },
        },
    }


def macro(changed: dict[str, Any] | None = None, **components: dict[str, Any]) -> Hardware:
    described = fields(**components)
    for path, value in (changed or {}).items():
        inner = described
        *parents, last = path.split(".")
        for part in parents:
            inner = inner[part]
        inner[last] = value
    return load_hardware("tinyadc", **described)


def linear(rows: int, outputs: int) -> list[Operation]:
    return [
        Operation(name="input", kind=OperationKind.INPUT, inputs=(), output_shape=(rows, 1, 1)),
        Operation(
            name="fc", kind=OperationKind.MATRIX, inputs=("input",), output_shape=(outputs, 1, 1), rows=rows,
            columns=outputs,
        ),
    ]  # fmt: skip


def by_event(event: str, picojoule: float, per: str = "crossbar") -> dict[str, Any]:
    return {"per": per, "energy_pj": picojoule, "event": event, "area_mm2": 0.0, **SAID}


def test_descriptions_of_before_hash_as_before():
    """At the commit before these fields; a certificate names a description by its hash."""
    assert {name: load_hardware(name).sha256()[:12] for name in ("isaac", "isaac_8bit", "puma", "tinyadc")} == {
        "isaac": "b56660aab373",
        "isaac_8bit": "4b57d9bb9159",
        "puma": "7206696378b4",
        "tinyadc": "0e5169082879",
    }


# 100 rows, 10 outputs x 4 slices x 2 signs = 80 columns of one crossbar, 8 input cycles of 1 bit: 8 reads of it
@pytest.mark.parametrize(
    ("event", "full", "counted"),
    [
        ("conversion", 8 * 80, 8 * 80),
        ("shift_and_add", 8 * 80, 8 * 80),
        ("word_line", 8 * 128, 300),
        ("cell", 8 * 128 * 128, 5000),
        ("read", 8, 8),
        ("bus_bit", 100 * 8, 100 * 8),
        ("router_bit", 10 * 8, 10 * 8),
        ("buffer_bit", 110 * 8, 110 * 8),
    ],
)
@pytest.mark.parametrize("per", ["crossbar", "tile", "chip"])
def test_an_energy_is_paid_for_every_event(event, full, counted, per):
    hw = macro(unit=by_event(event, 3.0, per))
    activity = {"fc": LayerActivity(images=2, lines_driven=600, cells_on=10000)}
    report = estimate(linear(100, 10), hw, activity=activity)
    assert report.energy_uj["unit"] == pytest.approx(3.0 * full * 1e-6)
    assert report.energy_by_event_uj["unit"] == pytest.approx(3.0 * counted * 1e-6)


@pytest.mark.parametrize("rate_law", ["fixed", "per_bit"])
def test_an_adc_by_power_and_by_energy_is_the_same_adc(rate_law):
    """2 mW at 1.28 GS/s are 1.5625 pJ; 128 columns in 100 ns are 1.28 a ns, so 2 mW again at the peak."""
    law = {"chip.adc.rate_law": rate_law}
    by_power, energies = macro(law), macro(law, adc=by_event("conversion", 1.5625) | {"area_mm2": 0.001})
    assert peak(energies).power_w == pytest.approx(peak(by_power).power_w)
    assert peak(energies).power_w == pytest.approx(2.3e-3)
    activity = {"fc": LayerActivity(images=1, lines_driven=0, cells_on=0)}
    found = [estimate(linear(100, 10), hw, activity=activity, adc_bits=5) for hw in (by_power, energies)]
    assert found[1].energy_by_event_uj["adc"] == pytest.approx(found[0].energy_by_event_uj["adc"])
    assert conversion_energy(energies.chip, 5).total_pj(7, 21) == pytest.approx(
        conversion_energy(by_power.chip, 5).total_pj(7, 21)
    )


TABLE = [
    {"bits": 4, "power_mw": 0.5, "area_mm2": 0.0004, "sample_rate_gsps": 2.56, **SAID},
    {"bits": 6, "power_mw": 1.5, "area_mm2": 0.0009, "sample_rate_gsps": 0.64, **SAID},
    {"bits": 8, "power_mw": 2.0, "area_mm2": 0.001, "sample_rate_gsps": 1.28, **SAID},
]


def with_table(table: list[dict[str, Any]] = TABLE, **changed: Any) -> Hardware:
    return macro({"chip.adc.law": "table", "chip.adc.table": table, **changed})


def test_a_table_of_adcs_is_read_not_interpolated():
    hw = with_table()
    at = {bits: peak(hw, adc_bits=bits) for bits in (4, 6, 8)}
    assert {bits: p.table.level("ima")[0].power_mw for bits, p in at.items()} == pytest.approx({4: 0.5, 6: 1.5, 8: 2.0})
    assert {bits: p.area_mm2 for bits, p in at.items()} == pytest.approx({4: 0.0005, 6: 0.001, 8: 0.0011})
    # 128 columns at 0.64 GS/s take 200 ns, at 2.56 the array's 100 remain
    assert {bits: p.cycle_ns for bits, p in at.items()} == {4: 100, 6: 200, 8: 100}
    with pytest.raises(RangeError, match=r"adc bits must be in the description's chip.adc.table \(4, 6, 8\), got 5"):
        peak(hw, adc_bits=5)
    with pytest.raises(ConfigError, match=r"adc_bits: .*chip.adc.table \(4, 6, 8\), got 7"):
        with_table(adc_bits=7)
    with pytest.raises(ConfigError, match=r"ADC law must be one of kull, .*puma, got table"):
        peak(macro(), law="table")
    assert sorted(p["adc_bits"] for p in adc_points(hw) if p["law"] == "table") == [4, 6, 8]
    assert not [p for p in adc_points(macro()) if p["law"] == "table"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([], "law: table and an adc.table belong together"),
        (TABLE[:2], "an entry for bits: 8 is missing"),
        ([*TABLE, TABLE[0]], "each resolution once"),
        ([*TABLE[:2], TABLE[2] | {"power_mw": 2.1}], "power_mw at 8 bits must be that of one unit .*, 2, not 2.1"),
        ([*TABLE[:2], TABLE[2] | {"area_mm2": 0.002}], "area_mm2 at 8 bits must be that of one unit"),
        ([*TABLE[:2], TABLE[2] | {"sample_rate_gsps": None}], "sample_rate_gsps in every entry or in none"),
        ([*TABLE[:2], TABLE[2] | {"sample_rate_gsps": 1.0}], "must be adc.sample_rate_gsps, 1.28, not 1"),
        ([TABLE[0] | {"energy_pj": 1.0}, *TABLE[1:]], "4 bits must have power_mw alone"),
    ],
)
def test_tables_that_contradict_themselves_are_refused(table, message):
    with pytest.raises(ConfigError, match=message) as caught:
        with_table(table)
    assert "\n" not in str(caught.value)


def test_a_macro_has_no_tiles_no_buffers_and_no_links():
    """One crossbar: everything is the macro. Its input is taken to be there; a second chip could not be reached."""
    hw = macro()
    at = peak(hw)
    assert (at.crossbars, at.area_mm2) == (1, pytest.approx(0.0011))
    assert (at.table.ima, at.table.tile, at.table.chip) == (at.table.ima,) * 3
    report = estimate(linear(100, 10), hw)
    # 8 input cycles at 100 ns, and one of overhead
    assert report.totals.interval_cycles == 8
    assert report.totals.buffer_tiles == 0
    with pytest.raises(ConfigError, match=r"chip.timing.links: without links .* needs 2 tiles, 1 chips of 1 have 1"):
        estimate(linear(200, 10), hw)
    assert estimate(linear(100, 10), hw, replication="fastest").totals.chips == 1


def test_a_level_between_is_a_share_of_the_level_below():
    """A controller for 4 tiles, and a supply for 2 such clusters: a quarter and an eighth of each a tile."""
    levels = [
        {"name": "cluster", "of": "tile", "count": 4, **SAID},
        {"name": "quadrant", "of": "cluster", "count": 2, **SAID},
        {"name": "pair", "of": "crossbar", "count": 2, **SAID},
    ]
    unit = {"power_mw": 8.0, "area_mm2": 0.8, **SAID}
    hw = macro(
        {"chip.hierarchy": {"extra_levels": levels, "tiles_per_chip": {"value": 16, **SAID}}},
        controller={"per": "cluster", **unit}, supply={"per": "quadrant", **unit}, amplifier={"per": "pair", **unit},
    )  # fmt: skip
    at = peak(hw)
    assert {c.name: (c.level, c.power_mw) for c in at.table.components if c.name not in ("adc", "crossbar")} == {
        "controller": ("tile", 2.0),
        "supply": ("tile", 1.0),
        "amplifier": ("ima", 4.0),
    }
    assert at.power_w == pytest.approx(16 * (2.0 + 0.3 + 4.0 + 2.0 + 1.0) * 1e-3)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"chip.components.crossbar.per": "cluster"}, "components.crossbar.per must be one of cell, .* not cluster"),
        ({"chip.components.crossbar.power_mw": None}, "either power_mw or energy_pj"),
        ({"chip.components.crossbar.energy_pj": 1.0}, "either power_mw or energy_pj"),
        ({"chip.components.crossbar.event": "read"}, "event and energy_pj belong together"),
        ({"chip.hierarchy.extra_levels": [{"name": "a", "of": "b", "count": 2, **SAID}]}, "a must be of crossbar"),
        (
            {"chip.hierarchy.extra_levels": [{"name": "tile", "of": "ima", "count": 2, **SAID}]},
            "tile is a level already",
        ),
        ({"chip.hierarchy.max_chips": 2}, "max_chips: a design without timing.links is one chip"),
        ({"chip.timing.links": {"value": 1, **SAID}}, "links and link_gbyte_per_s: both or neither"),
        ({"chip.timing.bus_bits": {"value": 8, **SAID}}, "digital_clock_ghz: needed"),
        ({"chip.components.adc": by_event("read", 1.0)}, "components.adc.event must be conversion, not read"),
    ],
)
def test_what_does_not_fit_together_is_refused(changed, message):
    with pytest.raises(ConfigError, match=message) as caught:
        macro(changed)
    assert "\n" not in str(caught.value)


def test_a_bus_alone_bounds_what_goes_through_it():
    """128 inputs of 8 bits through 1 bit a ns take 1024 ns, 10.24 cycles of 100 ns; nothing else is a bound."""
    timing = {"bus_bits": {"value": 1, **SAID}, "digital_clock_ghz": {"value": 1.0, **SAID}}
    hw = macro({f"chip.timing.{name}": value for name, value in timing.items()})
    assert clock_of(hw, 8).bus_gbps == 1
    assert estimate(linear(128, 10), hw).totals.interval_cycles == 10.24
