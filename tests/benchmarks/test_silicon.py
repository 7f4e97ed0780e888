"""The page on silicon is what the code computes, and the code computes what the papers' figures give by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.silicon import MACROS, of_isaac, page, power_mw

from bitline.chip import peak
from bitline.hardware import load_hardware

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_page_is_what_the_code_computes() -> None:
    assert (DOCS / "silicon.md").read_text("utf-8") == page()


# Fig. 9: ADC, DAC and digital of 115.7 mW whatever is driven, buffers by driven rows
@pytest.mark.parametrize("rows", [128, 256, 384, 512])
def test_power_of_the_esserc_macro_by_hand(rows: int) -> None:
    by_hand = 36.79 + 19.44 + 9.95 + 49.52 * rows / 512
    assert power_mw(load_hardware("rram_esserc2024"), rows) == pytest.approx(by_hand)
    assert by_hand == pytest.approx(MACROS[0].power_mw[rows], rel=0.04)


# Fig. S2: 512 conversions of 2.628 pJ and 8.798 pJ a driven row in 30 ns
@pytest.mark.parametrize("rows", [64, 128, 256, 512])
def test_power_of_the_asscc_macro_by_hand(rows: int) -> None:
    by_hand = (512 * 2.628 + rows * 8.798) / 30
    assert power_mw(load_hardware("rram_asscc2025"), rows) == pytest.approx(by_hand)
    assert by_hand == pytest.approx(MACROS[1].power_mw[rows], rel=0.06)


def test_rates_by_hand() -> None:
    """2 x 512 x 64 operations in 23.08 ns, and 2 x 512 x 512 in 30 ns."""
    assert peak(load_hardware("rram_esserc2024")).tops == pytest.approx(65536 / 23.08e3, rel=1e-4)
    assert peak(load_hardware("rram_asscc2025")).tops == pytest.approx(524288 / 30e3, rel=1e-4)


def test_isaacs_components_by_hand() -> None:
    """Table I over one crossbar of 512 x 1024 for 184.64 ns, 128 rows driven, half of their cells on."""
    time = 8 * 23.08
    adc = 512 * 2 / 1.28
    dac, cells = 128 * 4 / 1024 * time, 128 * 512 * 2.4 / 131072 * time
    rest = (1024 * 0.01 / 1024 + (0.2 + 1.24 + 0.23) / 8) * time  # S+H; S+A, IR and OR of an eighth of an IMA
    found = power_mw(of_isaac(load_hardware("rram_esserc2024")), 128)
    assert found == pytest.approx((adc + dac + cells + rest) / time, rel=1e-4)


@pytest.mark.parametrize("name", [macro.hardware for macro in MACROS])
def test_every_figure_says_that_it_is_secondary_or_assumed(name: str) -> None:
    chip = load_hardware(name).chip
    assert chip is not None
    said = {path: text for path, text in chip.sources().items() if "no such level" not in text}
    assert len(said) >= 6
    assert all(text.startswith(("secondary: ", "assumption: ")) for text in said.values()), said
