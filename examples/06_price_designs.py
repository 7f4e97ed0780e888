"""Peak figures of ISAAC's chip against its ADC's resolution: what a leaner ADC is worth."""

import bitline
from bitline.chip import peak

hw = bitline.load_hardware("isaac")
print(f"{'ADC bits':>8} {'TOPS':>6} {'mm2':>6} {'W':>6} {'GOPS/s/mm2':>11} {'GOPS/W':>7}")
for bits in (8, 7, 6, 5, 4):
    chip = peak(hw, adc_bits=bits)
    print(
        f"{bits:8} {chip.tops:6.1f} {chip.area_mm2:6.1f} {chip.power_w:6.1f} "
        f"{chip.gops_per_s_mm2:11.1f} {chip.gops_per_w:7.1f}"
    )
