"""Two measured ReRAM macros priced by the model, beside what was measured.

Run alone: python -m benchmarks.silicon > docs/silicon.md

Each macro has a description of its own components (``hwconfigs/rram_*.yaml``), taken at one operating point. What these
do not say is the power at other numbers of driven rows. Beside it stands the same macro built of ISAAC's components, as
somebody who knows nothing of the macro would price it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

from bitline.chip import LayerActivity, estimate, peak
from bitline.chip.adc_laws import laws_of, survey_energy_pj
from bitline.chip.mapping import chip_of
from bitline.errors import RangeError
from bitline.hardware import Hardware, load_hardware
from bitline.layers import Operation, OperationKind

COMMAND = "python -m benchmarks.silicon > docs/silicon.md"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was measured of one macro, as its paper says through a secondary source."""

    hardware: str
    paper: str
    power_mw: dict[int, float]
    """Power by rows driven, all columns converted."""
    operating_point: str
    """Which measurement the description's components were taken from."""
    tops: float
    source: str
    why: tuple[str, ...]
    """Reasons for the distances, own components first."""


MACROS = (
    Measured(
        hardware="rram_esserc2024",
        paper="Yao et al., ESSERC 2024, 28 nm, 64 SAR ADCs",
        power_mw={128: 77.05, 256: 88.93, 384: 100.23, 512: 111.43},
        operating_point="Fig. 9's breakdown of 115.7 mW",
        tops=2.84,
        source="Figs. 7 and 9, through DRAD",
        why=(
            "Own components: the breakdown (Fig. 9) is of 115.7 mW, the curve over driven rows (Fig. 7) has "
            "111.43 mW at 512: the two measurements differ by 3.8 %, and so does the model. That the rest is "
            "right at every number of rows means that buffers alone follow the driven rows, as the description "
            "says.",
            "ISAAC's components: an ADC's conversion takes 13.3 pJ here (a converter that also clamps the "
            "column, for loads of up to 10 mS) and 1.56 pJ in ISAAC's table, which is scaled from one 32 nm "
            "converter. Inputs are analog voltages held by buffers that carry the cells' current, 0.097 mW a "
            "row; ISAAC's DAC is a 1-bit driver of 0.004 mW. Cells follow: ISAAC's table has 0.018 uW a cell.",
        ),
    ),
    Measured(
        hardware="rram_asscc2025",
        paper="Li et al., A-SSCC 2025, 28 nm, 512 SAR ADCs",
        power_mw={64: 67.2, 128: 87.0, 256: 126.6, 512: 195.0},
        operating_point="Fig. S2's two shares of 195 mW at 512 rows",
        tops=17.5,
        source="Figs. 5 to 7 and S2, through DRAD",
        why=(
            "Own components: at 512 rows they are the measurement itself. Below, the model is 5 to 6 % low: it "
            "lets the array's power fall to nothing with the driven rows and keeps the periphery's, where in "
            "the measurement each has a part of both kinds (some 18 mW of the array stay, some 13 mW of the "
            "periphery go).",
            "ISAAC's components: nearly all is the array here, 150 of 195 mW, source followers in saturation "
            "for 30 ns; ISAAC's cells, half of them on, take a thirtieth. Its 9-bit ADC (1.85 pJ by the Kull "
            "law) is near the 2.63 pJ of this macro's periphery.",
        ),
    ),
)


def product(hw: Hardware) -> list[Operation]:
    """One product of a whole crossbar's weights."""
    rows, outputs = hw.rows, hw.columns // (hw.slices * hw.signs)
    return [
        Operation(name="input", kind=OperationKind.INPUT, inputs=(), output_shape=(rows, 1, 1)),
        Operation(
            name="product",
            kind=OperationKind.MATRIX,
            inputs=("input",),
            output_shape=(outputs, 1, 1),
            rows=rows,
            columns=outputs,
        ),
    ]


def power_mw(hw: Hardware, rows: int) -> float:
    """Power while products follow each other without a pause and ``rows`` rows are driven; half of the cells are on."""
    done = LayerActivity(images=1, lines_driven=rows, cells_on=rows * hw.columns // 2)
    report = estimate(product(hw), hw, activity={"product": done})
    assert report.energy_by_event_uj is not None
    energy_pj = sum(report.energy_by_event_uj.values()) * 1e6
    return energy_pj / (report.totals.interval_cycles * report.totals.cycle_ns)


def of_isaac(hw: Hardware) -> Hardware:
    """The macro's geometry and timing with ISAAC's components: those inside an IMA, for one crossbar of its size.

    ADCs are charged by the conversion (2 mW at 1.28 GS/s), DACs, sample-and-holds and cells by row, column and cell,
    registers and shift-and-add an eighth of an IMA's. ISAAC's DAC has one bit; no law scales it.
    """
    isaac, mine = chip_of(load_hardware("isaac")), chip_of(hw)
    printed = isaac.components
    adc = mine.components["adc"]
    of_adc = printed["adc"].power_mw
    assert of_adc is not None
    components: dict[str, Any] = {}
    for name, component in printed.items():
        if component.per in ("tile", "chip"):
            continue
        components[name] = component.model_dump()
        if component.per == "ima":
            components[name] |= {"per": "crossbar", "count": component.count / isaac.hierarchy.crossbars_per_ima.value}
    components["adc"] = {
        "per": "crossbar",
        "count": adc.count,
        "units": printed["adc"].units,
        "energy_pj": of_adc / printed["adc"].units / isaac.adc.sample_rate_gsps.value,
        "event": "conversion",
        "area_mm2": printed["adc"].area_mm2,
        "source": printed["adc"].source,
    }
    adc_description = mine.adc.model_dump() | {"bits": isaac.adc.bits, "law": isaac.adc.law}
    described = mine.model_dump() | {"components": components, "adc": adc_description}
    return hw.replace(name=f"{hw.name}, ISAAC's components", chip=described)


def distances() -> tuple[float, list[float]]:
    """Largest distance of the own components' power, and measured over ISAAC's power, of every measurement."""
    off, times = [], []
    for macro in MACROS:
        hw = load_hardware(macro.hardware)
        borrowed = of_isaac(hw)
        for driven, measured in macro.power_mw.items():
            off.append(abs(power_mw(hw, driven) / measured - 1))
            times.append(measured / power_mw(borrowed, driven))
    return max(off), times


def by_law(hw: Hardware, bits: int) -> dict[str, float]:
    """TOPS/W at the peak of a design whose ADC has so many bits, under every law that answers for them."""
    found = {}
    for law in laws_of(chip_of(hw).adc):
        try:
            found[law.value] = peak(hw, adc_bits=bits, law=law).gops_per_w / 1e3
        except RangeError:
            continue
    return found


def _paragraph(text: str, start: str = "") -> Iterator[str]:
    yield from wrap(text, 118, initial_indent=start, subsequent_indent=" " * len(start), break_on_hyphens=False)
    yield ""


def _table(heading: list[str], rows: list[list[str]]) -> Iterator[str]:
    yield "| " + " | ".join(heading) + " |"
    yield "|" + "---|" * len(heading)
    for row in rows:
        yield "| " + " | ".join(row) + " |"
    yield ""


def _off(model: float, measured: float) -> str:
    return f"{100 * (model / measured - 1):+.1f} %".replace("-0.0", "0.0").replace("+0.0", "0.0")


def _macro(macro: Measured) -> Iterator[str]:
    hw = load_hardware(macro.hardware)
    borrowed = of_isaac(hw)
    outputs = hw.columns // (hw.slices * hw.signs)
    full, most = peak(hw), max(macro.power_mw)
    yield f"## `{macro.hardware}`: {macro.paper}"
    yield ""
    yield from _paragraph(
        f"Components from {macro.operating_point}; measured: {macro.source}. {hw.input_bits}-bit inputs, "
        f"{hw.weight_bits}-bit weights, {hw.adc_bits}-bit conversions, {hw.rows} x {outputs} weights."
    )
    rows = []
    for driven, measured in macro.power_mw.items():
        own, others = power_mw(hw, driven), power_mw(borrowed, driven)
        rows.append(
            [
                f"power, {driven} rows driven (mW)",
                f"{measured:.2f}",
                f"{own:.2f}",
                _off(own, measured),
                f"{others:.2f}",
                f"{measured / others:.1f}",
            ]
        )
    rate, own, others = macro.tops, full.tops, peak(borrowed).tops
    rows.append(["rate (TOPS)", f"{rate:.2f}", f"{own:.2f}", _off(own, rate), f"{others:.2f}", f"{rate / others:.1f}"])
    measured = rate / macro.power_mw[most] * 1e3
    own, others = (
        design_tops / power_mw(design, most) * 1e3 for design, design_tops in ((hw, own), (borrowed, others))
    )
    rows.append(
        [
            f"efficiency, {most} rows (TOPS/W)",
            f"{measured:.1f}",
            f"{own:.1f}",
            _off(own, measured),
            f"{others:.1f}",
            f"{measured / others:.2f}",
        ]
    )
    area, others = full.area_mm2, peak(borrowed).area_mm2
    rows.append(["area (mm2)", f"{area:.3f}", f"{area:.3f}", "given", f"{others:.3f}", f"{area / others:.1f}"])
    yield from _table(
        ["", "measured", "own components", "off by", "ISAAC's components", "measured / ISAAC's"], rows
    )  # fmt: skip
    yield from _paragraph("The area is the whole macro's, from the paper's title; areas of its parts are not known.")
    for reason in macro.why:
        yield from _paragraph(reason, "- ")


def _adcs() -> Iterator[str]:
    yield "## The ADC laws as an uncertainty"
    yield ""
    yield from _paragraph(
        "What a resolution that was not built would give depends on the law more than on most else. Peak "
        "efficiency in TOPS/W of each macro with its own components, its ADC scaled to other bits by every law "
        "that answers for them (in `rram_asscc2025` the input buffers are scaled along: the paper does not part "
        "them from the ADCs):"
    )
    laws = [law.value for law in laws_of(chip_of(load_hardware(MACROS[0].hardware)).adc)]
    rows = []
    for macro in MACROS:
        hw = load_hardware(macro.hardware)
        for bits in range(4, 11):
            found = by_law(hw, bits)
            low, high = min(found.values()), max(found.values())
            rows.append(
                [
                    f"`{macro.hardware}`" if bits == 4 else "",
                    f"{bits}" + (" (built)" if bits == hw.adc_bits else ""),
                    *(f"{found[law]:.1f}" if law in found else "-" for law in laws),
                    f"{high / low - 1:.0%}".replace("%", " %"),
                ]
            )
    yield from _table(["macro", "bits", *(law.replace("_", " ") for law in laws), "highest over lowest"], rows)
    yield from _paragraph(
        "The absolute energy of one conversion says as much: measured, by ISAAC's table at the same bits, and by "
        "the regression over published converters (Accelergy's, Murmann's survey) at the macro's rate, node and "
        "bits as ENOB:"
    )
    rows = []
    for macro in MACROS:
        hw = load_hardware(macro.hardware)
        chip, bits = chip_of(hw), hw.adc_bits
        assert isinstance(bits, int)
        adc = chip.components["adc"]
        rate = chip.adc.sample_rate_gsps.value
        measured = adc.energy_pj or (adc.power_mw or 0.0) / adc.units / rate
        borrowed = peak(of_isaac(hw)).table.level("ima")[0].energy_pj
        assert borrowed is not None
        regression = survey_energy_pj(bits, rate * 1e9, 28)
        rows.append([f"`{macro.hardware}`", str(bits), *(f"{pj:.2f}" for pj in (measured, borrowed, regression))])
    yield from _table(["macro", "bits", "measured (pJ)", "ISAAC's table (pJ)", "regression (pJ)"], rows)


def _totals() -> Iterator[str]:
    at = peak(load_hardware("isaac_8bit"))
    tile_power = at.table.tile[0]
    efficiency = at.tops / (tile_power * at.table.tiles_per_chip) * 1e3  # TOPS / mW = 1e3 TOPS / W
    yield "## Totals alone"
    yield ""
    yield from _paragraph(
        "Hung et al., JSSC 2023 (22 nm, 8 Mb, read in the time domain, no ADC): 21.6 TOPS/W and 14.4 ns at 8-bit "
        "inputs and 8-bit weights, measured (the paper's abstract, doi 10.1109/JSSC.2022.3200515). Its components "
        "are not open, so there is no description. ISAAC's tiles with 8-bit numbers (`isaac_8bit`, links left "
        f"out) give {efficiency:.2f} TOPS/W: the macro is {21.6 / efficiency:.1f} times better, by its node, by a "
        "readout without direct current and because a tile's buffer, bus and router, which it lacks, are in "
        "ISAAC's figure."
    )
    yield from _paragraph(
        "The 40 nm macro against which NeuroSim was validated (Lu et al., Frontiers in AI 2021, doi "
        "10.3389/frai.2021.659060; post-layout simulation, not silicon) has a table of modules. Its figures could "
        "not be read where this page was made (the abstract alone: error below 1 % after calibration), so it is "
        "not described here rather than guessed."
    )


def lines() -> Iterator[str]:
    """The page, line by line."""
    yield f"<!-- made by: {COMMAND} -->"
    yield ""
    yield "# The model beside silicon"
    yield ""
    yield from _paragraph(
        "Two measured ReRAM macros with ADCs, described by their own components (`hwconfigs/rram_*.yaml`), priced "
        "by the same code as everything else, beside the measurement; and the same macros built of ISAAC's "
        "components."
    )
    yield from _paragraph(
        "**What the figures are.** Measured by the papers' authors, but secondary here: the papers were not at "
        "hand; every figure is from the comments of a public model calibrated to them, "
        "github.com/DRAD-GIT/sys_level_snn, literature_macros.py (DRAD). A description's components and its "
        "conversion time are taken from one operating point, so agreement there, in the rate and in the area is a "
        "check of the accounting only. What is predicted is the power at fewer driven rows."
    )
    off, times = distances()
    yield from _paragraph(
        f"**What it says.** With its own components the model is within {100 * off:.1f} % of the measured power at "
        f"every number of driven rows. With ISAAC's components the same macros would take {min(times):.1f} to "
        f"{max(times):.1f} times less power than was measured: a price from borrowed components ranks designs "
        "built of these components, it does not foretell a chip."
    )
    yield from _paragraph(
        "An ADC that is narrower than the column sum (both are: 512 rows of 4-bit inputs) is priced as it was "
        "built; that it loses low bits is what the macros' accuracy figures are about, and what `bitline certify` "
        "refutes for most weights."
    )
    for macro in MACROS:
        yield from _macro(macro)
    yield from _adcs()
    yield from _totals()


def page() -> str:
    """The page."""
    return "\n".join(lines()).rstrip("\n") + "\n"


if __name__ == "__main__":
    sys.stdout.write(page())
