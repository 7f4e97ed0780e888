"""ISAAC's own figures: Shafiee et al., ISCA 2016, Table I and the published peak figures (32 nm, 1.2 GHz).

The component rows were read from transcriptions that agree with each other; the table closes on the paper's totals.
"""

from __future__ import annotations

import pytest

from bitline.chip import peak
from bitline.hardware import load_hardware

PEAK = peak(load_hardware("isaac"))


@pytest.mark.parametrize(
    ("what", "power_mw", "area_mm2"),
    [
        ("ima", 24.08, 0.01312),  # the sum of the IMA rows; printed as 24.1 mW, 0.0131 mm2
        ("tile", 329.81, 0.37229),  # the sum of the tile rows, a quarter of a router, 12 IMAs; printed 330, 0.372
        ("chip", 65808.08, 85.42472),  # 168 tiles and HyperTransport; printed 65.8 W, 85.4 mm2
    ],
)
def test_component_table_closes(what, power_mw, area_mm2):
    assert getattr(PEAK.table, what) == pytest.approx((power_mw, area_mm2), rel=1e-9)


def test_rows_of_table_1():
    # power in mW and area in mm2 of one IMA's and one tile's components, as the table prints them
    rows = {
        "adc": (16, 0.0096),
        "dac": (4, 0.00017),
        "sample_and_hold": (0.01, 0.00004),
        "crossbar": (2.4, 0.0002),
        "shift_and_add": (0.2, 0.00024),
        "input_register": (1.24, 0.0021),
        "output_register": (0.23, 0.00077),
        "edram_buffer": (20.7, 0.083),
        "edram_to_ima_bus": (7, 0.090),
        "router": (42 / 4, 0.151 / 4),
        "sigmoid": (0.52, 0.0006),
        "tile_shift_and_add": (0.05, 0.00006),
        "max_pool": (0.4, 0.00024),
        "tile_output_register": (1.68, 0.0032),
        "hypertransport": (10400, 22.88),
    }
    found = {c.name: (c.power_mw, c.area_mm2) for c in PEAK.table.components}
    assert found.keys() == rows.keys()
    for name, figures in rows.items():
        assert found[name] == pytest.approx(figures, rel=1e-9), name


def test_peak_rate():
    # 168 x 12 x 8 crossbars x 128 rows x 16 columns of 16-bit weights x 2 / 1.6 us; published 41.3 TOPS
    assert PEAK.tops == pytest.approx(168 * 12 * 8 * 128 * 16 * 2 / 1.6e-6 / 1e12)
    assert PEAK.tops == pytest.approx(41.288, abs=5e-4)


def test_peak_efficiency():
    # 627.5 GOPS/W is 41.288 TOPS over the printed 65.8 W; over the unrounded 65.808 W it is 627.4
    assert PEAK.gops_per_w == pytest.approx(627.5, rel=5e-4)
    # 41.288 TOPS over the printed 85.4 mm2 is 483.5, which a third party finds too (483)
    assert PEAK.gops_per_s_mm2 == pytest.approx(483.5, rel=5e-4)
    # the published 478.95 is 1 % lower than its own table gives
    assert PEAK.gops_per_s_mm2 == pytest.approx(478.95, rel=0.01)


def test_adc_share_of_a_tile():
    # 58 % of a tile's power and 31 % of its area; TinyADC prints "51 % and 31 % of area and power"
    power, area = PEAK.table.share("adc")
    assert power == pytest.approx(0.58, abs=0.005)
    assert area == pytest.approx(0.31, abs=0.005)


def test_eight_bit_numbers_need_a_quarter_of_the_work():
    # half the input cycles and half the cells a weight: four times the rate of the same chip
    assert peak(load_hardware("isaac_8bit")).tops == pytest.approx(4 * PEAK.tops)
    # the differential encoding takes two columns a slice
    assert peak(load_hardware("tinyadc")).tops == pytest.approx(2 * PEAK.tops)
