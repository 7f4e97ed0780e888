"""The throughput report's schema, text, tables and figures, from made-up chips whose numbers are round."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bitline.report.chip_figures import ladder_figure, savings_figure, shares_figure, throughput_figures
from bitline.report.figure_style import render
from bitline.report.published_text import savings_markdown, savings_text, table3_markdown, table3_text
from bitline.report.schema import ReportError, dump_json
from bitline.report.throughput_schema import validate_throughput
from bitline.report.throughput_text import throughput_csv, throughput_markdown, throughput_text


def _component(name: str, level: str, power: float, area: float) -> dict[str, Any]:
    return {
        "name": name, "level": level, "units": 1, "power_mw": power, "area_mm2": area, "source": f"a book, {name}",
    }  # fmt: skip


def _peak(name: str) -> dict[str, Any]:
    """An IMA of 10 mW and 1 mm2; a tile of 2 IMAs and as much again; a chip of 3 tiles and 60 mW, 6 mm2 of links."""
    return {
        "hardware": name,
        "adc_bits": 8,
        "adc_bits_from": "hardware description",
        "full_column_bits": 9,
        "holds_full_columns": False,
        "adc_law": "kull",
        "components": [
            _component("adc", "ima", 6, 0.25),
            _component("crossbar", "ima", 4, 0.75),
            _component("buffer", "tile", 20, 2),
            _component("links", "chip", 60, 6),
        ],
        "totals": {
            "ima": {"power_mw": 10, "area_mm2": 1},
            "tile": {"power_mw": 40, "area_mm2": 4},
            "chip": {"power_mw": 180, "area_mm2": 18},
        },
        "adc_share_of_tile": {"power": 0.3, "area": 0.125},
        "cycle_ns": 100,
        "cycle_set_by": "array_read",
        "crossbars": 6,
        "tops": 0.5,
        "power_w": 0.18,
        "area_mm2": 18,
        "gops_per_w": 500 / 0.18,
        "gops_per_s_mm2": 500 / 18,
    }


def _hardware(name: str) -> dict[str, Any]:
    return {
        "name": name, "rows": 128, "columns": 128, "cell_bits": 2, "dac_bits": 1, "input_bits": 8, "weight_bits": 8,
        "encoding": "differential", "readout": "digital", "adc_bits": 8, "adc_scope": "layer",
    }  # fmt: skip


def _layer(name: str, busy: float, stalls: dict[str, float]) -> dict[str, Any]:
    return {
        "name": name, "rows": 27, "columns": 16, "groups": 1, "row_tiles": 1, "column_groups": 1,
        "crossbars_per_replica": 1, "dropped_crossbars": 0, "removed_rows": 0, "removed_columns": 0, "replicas": 2,
        "crossbars": 2, "imas": 1, "cell_utilisation": 0.25, "positions": 100, "macs": 43200, "interval_cycles": 8,
        "interval_set_by": "compute", "busy_cycles": 400, "occupancy": busy, "stalls": stalls, "power_w": 0.01,
        "area_mm2": 1.0, "energy_uj": 0.125,
        "adc_bits": {"configured": 6, "configured_per_slice": [6, 5]},
    }  # fmt: skip


def _design(name: str) -> dict[str, Any]:
    stalls = {"inputs not there yet": 0.25, "next image (paced by first)": 0.5}
    return {
        "hardware": _hardware(name),
        "hardware_sha256": "cd" * 32,
        "peak": _peak(name),
        "layers": [_layer("first", 1.0, {}), _layer("second|odd\x1b", 0.25, stalls)],
        "performance": {
            "cycles": 500, "images_per_s": 25000.0, "latency_us": 50.0, "energy_uj_per_image": 0.25, "area_mm2": 10.0,
            "power_w": 0.1, "gops_per_s_mm2": 0.432, "gops_per_w": 43.2, "tiles": 1, "chips": 1, "crossbars": 4,
            "dropped_crossbars": 2, "replication": {"first": 2, "second|odd\x1b": 2}, "bottleneck": "first",
            "bottleneck_reason": "compute", "adc_law": "kull", "gops": 4.32, "average_power_w": 0.05,
            "tiles_alone": {
                "energy_uj_per_image": 0.1, "energy_by_event_uj_per_image": None, "area_mm2": 4.0, "power_w": 0.04,
                "average_power_w": 0.02, "gops_per_s_mm2": 1.08, "gops_per_w": 108.0,
            },
            "crossbar_utilisation": 1.0, "cell_utilisation": 0.25,
            "layers": [
                {"name": "first", "occupancy": 1.0, "bottleneck": True},
                {"name": "second|odd\x1b", "occupancy": 0.25, "stalls": stalls},
            ],
        },
        "breakdown": {
            "area_mm2": {"adc": 4.0, "links": 6.0}, "power_w": {"adc": 0.04, "links": 0.06}, "off_tile": ["links"],
        },
        "normalised": {"area": 0.9, "power": 0.8, "area_tiles": 0.7, "power_tiles": 0.6, "baseline": "itself, dense"},
        "bottleneck": "first: 100 input vectors x 8 cycles",
        "ladder": [
            {"name": f"{bits} bits", "adc_bits": bits, "area": 0.1 * bits + 0.2, "power": 0.1 * bits + 0.2,
             "area_tiles": 0.125 * bits, "power_tiles": 0.125 * bits}
            for bits in (8, 7, 6)
        ],
        "adc_sweep": [{"adc_bits": bits, "gops_per_w": 100.0 / bits, "law": "kull"} for bits in (4, 8)],
        "notes": ["made up"],
    }  # fmt: skip


def _report(network: bool = True, others: int = 0) -> dict[str, Any]:
    design = _design("chip one")
    report = {
        **design,
        "command": "bitline throughput `made up`",
        "provenance": {
            "version": "0.1.0", "checkpoint_sha256": None, "hardware_sha256": "cd" * 32, "seed": None, "engine": None,
        },
        "network": {
            "architecture": "net", "input_shape": [3, 10, 10], "matrix_layers": 2, "macs": 86400, "weights": "dense",
        },
        "others": [_design(f"chip {index + 2}") for index in range(others)],
    }  # fmt: skip
    if not network:
        report |= {"network": None, "performance": None, "breakdown": None, "normalised": None, "layers": []}
        report |= {"ladder": [], "bottleneck": None}
    return validate_throughput(report)


def test_the_schema_names_the_field() -> None:
    good = _report()
    assert json.loads(dump_json(good)) == good
    for path, value in (("peak", {}), ("others", [{}]), ("surprise", 1)):
        with pytest.raises(ReportError, match=rf"report\.{path}"):
            validate_throughput({**good, path: value})
    bad = {**good, "layers": [{**good["layers"][0], "occupancy": 1.5}]}
    with pytest.raises(ReportError, match=r"report\.layers\.0\.occupancy.*1\.5"):
        validate_throughput(bad)


def test_text_names_the_bottleneck_and_the_stalls() -> None:
    text = throughput_text(_report(others=1))
    assert "first: 100 input vectors x 8 cycles" in text
    (first,) = [line for line in text.splitlines() if line.startswith("  first *")][:1]
    assert first.split()[-6:-3] == ["%", "0", "%"] or "100 %" in first
    second = next(line for line in text.splitlines() if line.startswith(r"  second|odd\x1b"))
    assert second.split()[-9:-3] == ["25", "%", "25", "%", "50", "%"]
    one_line = " ".join(text.split())
    assert (  # the tiles first, what the chip has once apart
        "tiles alone: area and power 70.00% and 60.00% of the non-pruned design's (itself, dense); with all a chip has "
        "90.00% and 80.00%" in one_line
    )
    assert "tiles alone 4 mm2, 0.04 W with everything on; with links 10 mm2, 0.1 W with everything on" in one_line
    assert "area tiles 4 mm2: adc 100.0 %; besides them links 6 mm2" in one_line
    assert "4 crossbars of all copies in 1 tile on 1 chip;" in one_line
    assert "2 left out of 6: zero weights" in one_line
    assert "\x1b" not in text
    for heading in ("Side by side", "Layers on chip one", "Layers on chip 2"):
        assert heading in text
    assert max(map(len, throughput_text(_report()).split("Layers on")[0].splitlines())) <= 120


def test_peak_text_has_sources_and_units() -> None:
    text = throughput_text(_report(network=False, others=1))
    for words in ("a book, adc", "IMA (mW)", "GOPS/W", "2777.8", "12.5 %", "kull"):
        assert words in text
    assert "chip one, chip 2" in text  # one source, two designs


def test_markdown_escapes_names_and_links_figures() -> None:
    page = throughput_markdown(_report(others=1), ["figures/occupancy.png", "figures/occupancy_2.png"])
    assert r"second\|odd\\x1b" in page
    assert "](figures/occupancy_2.png)" in page
    assert page.count("what they wait for") == 4
    assert "`bitline throughput  made up `" in page
    for line in page.splitlines():
        if line.startswith("|") and "second" in line:
            assert line.replace("\\|", "").count("|") == 17


def test_csv_holds_plain_numbers_and_the_components() -> None:
    files = throughput_csv(_report(others=1))
    layers = list(csv.DictReader(io.StringIO(files["layers.csv"])))
    assert [(row["design"], row["name"]) for row in layers[::2]] == [("chip one", "first"), ("chip 2", "first")]
    assert (layers[0]["adc_bits_configured_per_slice"], layers[0]["energy_uj"]) == ("6 5", "0.125")
    assert layers[0]["adc_bits_paper"] == ""
    parts = list(csv.DictReader(io.StringIO(files["components.csv"])))
    assert sum(float(row["power_mw"]) for row in parts if row["level"] == "ima" and row["design"] == "chip one") == 10
    assert set(throughput_csv(_report(network=False))) == {"components.csv"}


def _lengths(figure: Any) -> list[float]:
    return [bar.get_width() for axis in figure.axes for bar in axis.patches]


def test_peak_shares_count_every_ima_and_tile() -> None:
    # 3 tiles of 2 IMAs: adc 6 x 0.25 = 1.5 mm2, crossbar 4.5, buffer 6; 36, 24, 60 mW; links apart, 6 mm2 and 60 mW
    figure = throughput_figures(_report(network=False))["breakdown"]
    widths = sorted(_lengths(figure))
    expected = [100 * part / 12 for part in (1.5, 4.5, 6)] + [100 * part / 120 for part in (36, 24, 60)]
    assert widths == pytest.approx(sorted(expected))
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["area\n12 mm²\n+ 6 links", "power\n0.12 W\n+ 0.06 links"]


def test_figures_of_several_designs() -> None:
    figures = throughput_figures(_report(others=1))
    tails = {"occupancy", "normalised", "efficiency"}
    assert set(figures) == {"breakdown"} | tails | {f"{name}_2" for name in tails}
    for name, figure in figures.items():
        image = np.asarray(Image.open(io.BytesIO(render(figure, "png"))).convert("L"))
        assert 0.01 < (image < 200).mean() < 0.7, name


def test_ladder_shows_chip_and_tiles() -> None:
    figure = ladder_figure(_design("x")["ladder"])
    tiles, chip = ([bar.get_height() for bar in axis.patches] for axis in figure.axes)
    assert chip == pytest.approx([1.0, 0.9, 0.8] * 2)
    assert tiles == pytest.approx([1.0, 0.875, 0.75] * 2)


def test_shares_leave_out_what_is_nothing() -> None:
    figure = shares_figure([("area", "mm²", {"adc": 1.0, "rest of it": 3.0}), ("power", "W", {"adc": 0.0})])
    assert _lengths(figure) == pytest.approx([75.0, 25.0])


def _saving(scope: str, law: str, power: float, area: float) -> dict[str, Any]:
    return {"scope": scope, "law": law, "power_saved": power, "area_saved": area}


def _claims() -> dict[str, Any]:
    savings = [
        _saving(scope, law, start + step, start + step)
        for scope, start in (("chip", 0.1), ("tiles", 0.2), ("imas", 0.5))
        for law, step in (("kull", 0.0), ("removed", 0.15))
    ]
    claim = {"name": "a claim", "adc_bits": 6, "power_saved": 0.22, "area_saved": 0.4, "source": "Table", "note": ""}
    return {
        "title": "Savings", "command": "bitline throughput --savings", "hardware": "tinyadc",
        "provenance": {"version": "0.1.0"},
        "own_adc": [{"crossbars_per_adc": n, "power_saved": 0.6, "area_saved": 0.5} for n in (1, 2)],
        "claims": [
            {"key": "fig4_cifar10_vgg16", "network": "vgg16", "input_shape": [3, 32, 32], "claim": claim,
             "savings": savings, "power_bracketed": True, "area_bracketed": True, "reason": "it is unpublished"}
        ],
    }  # fmt: skip


def test_a_saving_between_the_scopes_is_said_to_be_reached_by_none() -> None:
    document = _claims()
    for text in (savings_text(document), savings_markdown(document)):
        row = next(line for line in text.splitlines() if "22.0 %" in line)
        assert "chip, tiles" in row  # 10 to 25 and 20 to 35 % hold 22 %
        assert "between scopes" in row  # 40 % lies above 35 and below 50
        assert "10.0 % to 65.0 %" in row
    document["claims"][0] |= {"area_bracketed": False}
    document["claims"][0]["claim"] |= {"area_saved": 0.9}
    assert " NO" in savings_text(document)


def test_savings_figure_marks_the_published_figure() -> None:
    figure = savings_figure(_claims()["claims"])
    power, area = figure.axes
    assert [line.get_xdata()[0] for line in power.lines][-1] == pytest.approx(22.0)
    assert [line.get_xdata()[0] for line in area.lines][-1] == pytest.approx(40.0)
    assert [label.get_text() for label in power.get_yticklabels()] == ["Fig. 4, CIFAR-10, VGG-16"]
    assert len(render(figure, "svg")) > 1000


def test_table_3_claims_nothing() -> None:
    row = {"kind": "published", "gops_per_s_mm2_from_published": None, "source": "paper", "gain_by_area": 1.0,
           "gain_by_power": 1.0, "distance": None}  # fmt: skip
    document = {
        "title": "Table III", "command": "bitline throughput --table3", "hardware": "isaac",
        "provenance": {"version": "0.1.0"},
        "rows": [
            {**row, "name": "ISAAC", "gops_per_s_mm2": 478.95, "gops_per_w": 627.5},
            {**row, "name": "TinyADC (ISAAC)", "gops_per_s_mm2": 4 * 478.95, "gops_per_w": 627.5},
            {**row, "name": "ADC removed", "kind": "computed", "gops_per_s_mm2": 1.0,
             "gops_per_s_mm2_from_published": 3 * 478.95, "gops_per_w": 1255.0},
            {**row, "name": "a reading", "kind": "computed", "gops_per_s_mm2": 967.0,
             "gops_per_s_mm2_from_published": 957.9, "gops_per_w": 1255.0, "gain_by_area": 2.0},
        ],
        "closest": "a reading",
    }  # fmt: skip
    for text in (table3_text(document), table3_markdown(document)):
        line = next(line for line in text.splitlines() if "a reading" in line)
        assert "x2.000" in line
        assert "967.0" in line
        assert "957.90" in line
        words = " ".join(text.split())
        assert "removed altogether they give x3.000 by area of the paper's x4.000" in words
        assert "none is claimed" in words


def test_a_macro_is_not_printed_as_ima_and_tile() -> None:
    """One crossbar: what it is made of is the chip's. Beside ISAAC it stands in ISAAC's levels."""
    report = _report(network=False)
    peak = report["peak"]
    peak["components"] = peak["components"][:2]
    peak["totals"] = {level: {"power_mw": 10, "area_mm2": 1} for level in ("ima", "tile", "chip")}
    peak |= {"power_w": 0.01, "area_mm2": 1}
    text = throughput_text(report)
    assert "IMA" not in text
    assert "tile (mW)" not in text
    assert "chip (W)" in text
    assert "IMA (mW)" in throughput_text(_report(network=False))
