"""Figures carry the report's numbers, and the same report gives the same bytes."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from report_examples import example_report

from bitline.printable import shorten
from bitline.report.chip_figures import breakdown_figure, efficiency_figure, normalised_figure, occupancy_figure
from bitline.report.figure_style import NAME_WIDTH, VERMILLION, render
from bitline.report.figures import accuracy_figure, bits_figure, column_sums_figure, report_figures
from bitline.report.markdown import CAPTIONS
from bitline.report.publish import write_report
from bitline.report.schema import ReportError, comparison_column, validate_report
from bitline.report.writer import OutputFolder

UNITS = {
    "bits": "ADC resolution (bits)",
    "column_sums": "column sum (LSB of the ADC)",
    "accuracy": "top-1 accuracy (%)",
    "breakdown": "share of the tiles (%)",
    "occupancy": "time (%)",
    "normalised": "relative to the non-pruned design",
    "efficiency": "power efficiency (GOPS/W)",
}


def texts(figure: Figure) -> list[str]:
    return [found.get_text() for found in figure.findobj(Text) if found.get_text() and found.get_visible()]


def overlaps(figure: Figure, words: set[str]) -> list[tuple[str, str]]:
    """Pairs of these texts whose boxes overlap on paper."""
    FigureCanvasAgg(figure).draw()
    found = [item for item in figure.findobj(Text) if item.get_text() in words and item.get_visible()]
    boxes = [(item.get_text(), item.get_window_extent().padded(-1)) for item in found]
    return [(a, b) for i, (a, first) in enumerate(boxes) for b, second in boxes[i + 1 :] if first.overlaps(second)]


@pytest.mark.parametrize("count", [1, 60])
def test_every_figure_has_units_and_ink(count: int) -> None:
    figures = report_figures(validate_report(example_report(count, long=count == 60)))
    assert set(figures) == set(UNITS) == set(CAPTIONS)
    for name, figure in figures.items():
        assert UNITS[name] in texts(figure), name
        image = np.asarray(Image.open(io.BytesIO(render(figure, "png"))).convert("RGB")).astype(int)
        assert image.shape[1] >= 600
        assert 0.01 < (image.min(axis=2) < 200).mean() < 0.7, name
        assert (image.max(axis=2) - image.min(axis=2) > 80).any(), name  # some colour


def test_no_pyplot_and_no_lasting_settings() -> None:
    before = dict(mpl.rcParams)
    render(bits_figure(validate_report(example_report(2))["layers"]), "svg")
    assert dict(mpl.rcParams) == before
    code = (
        "import sys, bitline.report.publish, bitline.report.text, bitline.report.progress\n"
        "assert 'matplotlib' not in sys.modules\n"
        "import bitline.report.figures\n"
        "assert 'matplotlib.pyplot' not in sys.modules and 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_same_report_same_bytes_whatever_the_user_settings(kind: str) -> None:
    report = validate_report(example_report(1))
    first = {name: render(figure, kind) for name, figure in report_figures(report).items()}
    with mpl.rc_context({"font.size": 20, "axes.facecolor": "black", "svg.hashsalt": "other"}):
        second = {name: render(figure, kind) for name, figure in report_figures(report).items()}
    assert first == second
    if kind == "svg":
        for content in first.values():
            xml.etree.ElementTree.fromstring(content)
            assert b"<dc:date>" not in content


def test_bits_figure_shows_every_number_and_marks_what_does_not_fit() -> None:
    layers = validate_report(example_report(1))["layers"]
    layers[0]["adc_bits"] = {
        "configured": 6, "equation": 9, "paper": 5, "weight_aware": 7, "weight_aware_per_slice": [7, 3, 2, 1],
        "configured_per_slice": None,
    }  # fmt: skip
    layers[0]["lossless"] = False
    figure = bits_figure(layers)
    cells = [item.get_text() for item in figure.axes[0].texts]
    assert cells == ["7", "3", "2", "1", "7", "6", "9", "5"]
    places = [item.get_position()[0] for item in figure.axes[0].texts]
    assert places[:4] == [0, 1, 2, 3]  # slice 0, the least significant, stands left, as in every list
    assert "slice 0 (least)" in texts(figure)
    marked = [
        patch.get_x() + 0.44
        for patch in figure.axes[0].patches
        if mpl.colors.to_hex(patch.get_edgecolor()).upper() == VERMILLION
    ]
    assert marked == pytest.approx([0, 4.4, 7.4])  # slice 0, the layer, the paper's count
    assert "too few for these weights" in texts(figure)
    layers[0]["adc_bits"] |= {"configured": 7, "paper": 7}
    layers[0]["lossless"] = True
    assert not [
        patch
        for patch in bits_figure(layers).axes[0].patches
        if mpl.colors.to_hex(patch.get_edgecolor()).upper() == VERMILLION
    ]


def test_large_networks_are_cut_into_panels_with_all_layers() -> None:
    report = validate_report(example_report(110))
    for figure in (bits_figure(report["layers"]), occupancy_figure(report["performance"]["layers"])):
        panels = [axis for axis in figure.axes if axis.get_yticklabels()]
        names = [label.get_text() for axis in panels for label in axis.get_yticklabels()]
        assert names == [layer["name"] for layer in report["layers"]]
        assert len(panels) == 4
        assert len({axis.get_ylim() for axis in panels}) == 1


@pytest.mark.parametrize("count", [3, 20, pytest.param(60, marks=pytest.mark.slow)])
def test_labels_do_not_overlap(count: int) -> None:
    report = validate_report(example_report(count, long=True))
    names = {shorten(layer["name"], NAME_WIDTH) for layer in report["layers"]}
    assert len(names) == count
    for figure in (bits_figure(report["layers"]), occupancy_figure(report["performance"]["layers"])):
        assert names <= set(texts(figure))
        assert overlaps(figure, names) == []
    figure = column_sums_figure(report["histograms"])
    titles = {text for text in texts(figure) if ".conv" in text}
    assert len(titles) == count
    assert overlaps(figure, titles) == []


def test_column_sums_colour_what_saturated() -> None:
    histogram = {
        "layer": "conv1", "slice": 1, "images": 64, "adc_bits": 2, "full_scale": 3,
        "counts": [50, 40, 30, 20, 10], "overflow": 5,
    }  # fmt: skip
    figure = column_sums_figure([histogram])
    fits, saturated = figure.axes[0].patches
    assert fits.get_data().values.tolist() == [50, 40, 30, 20]
    assert fits.get_data().edges.tolist() == [-0.5, 0.5, 1.5, 2.5, 3.5]
    assert saturated.get_data().values.tolist() == [10, 5]
    assert saturated.get_data().edges.tolist() == [3.5, 4.5, 5.5]
    assert mpl.colors.to_hex(saturated.get_facecolor()).upper() == VERMILLION
    assert figure.axes[0].get_yscale() == "log"
    assert list(figure.axes[0].lines[0].get_xdata()) == [3.5, 3.5]
    assert {"conv1\n2 bits: 0 to 3", "conversions (of 64 images)"} <= set(texts(figure))
    assert "saturated" in texts(figure)
    quiet = column_sums_figure([histogram | {"full_scale": 65535, "adc_bits": 16, "overflow": 0}])
    assert "saturated" not in texts(quiet)
    assert quiet.axes[0].get_xlim()[1] < 10  # a full scale far away does not squeeze the sums
    assert len(column_sums_figure([histogram | {"counts": [], "overflow": 0}]).axes) == 1


def test_column_sums_add_slices_of_one_full_scale() -> None:
    one = {"layer": "a", "slice": 0, "images": None, "adc_bits": 2, "full_scale": 3, "counts": [1, 2], "overflow": 1}
    figure = column_sums_figure([one, one | {"slice": 1, "counts": [10, 20, 30]}, one | {"layer": "b", "counts": [7]}])
    assert [axis.patches[0].get_data().values.tolist() for axis in figure.axes] == [[11, 22, 30, 2], [7, 1]]
    assert {"a\n2 bits: 0 to 3", "b\n2 bits: 0 to 3"} <= set(texts(figure))
    figure = column_sums_figure([one, one | {"slice": 1, "full_scale": 1, "adc_bits": 1}])
    assert {"a [0]\n2 bits: 0 to 3", "a [1]\n1 bits: 0 to 1"} <= set(texts(figure))


def test_column_sums_map_of_many_layers() -> None:
    report = validate_report(example_report(30))
    figure = column_sums_figure(report["histograms"])
    assert len(figure.axes[0].get_images()) == 1
    drawn = figure.axes[0].get_images()[0].get_array()
    assert drawn[4, 2] == report["histograms"][4]["counts"][2]
    assert [line.get_xdata()[0] for line in figure.axes[0].lines] == [31.5] * 30


def test_accuracy_bars_and_missing_values() -> None:
    designs = [
        {"name": "baseline", "float_top1": 0.9, "integer_top1": 0.8, "simulated_top1": 0.75},
        {"name": "pruned", "float_top1": None, "integer_top1": 0.5, "simulated_top1": 0.25},
    ]
    figure = accuracy_figure(designs)
    assert [bar.get_height() for bar in figure.axes[0].patches] == pytest.approx([90, 80, 50, 75, 25])
    assert {"90.00%", "80.00%", "75.00%", "50.00%", "25.00%", "baseline", "pruned"} <= set(texts(figure))
    assert {"float", "exact integer", "simulated crossbars"} <= set(texts(figure))


def test_breakdown_shares_sum_to_the_whole() -> None:
    area = {f"part {i}": float(20 - i) for i in range(14)}
    figure = breakdown_figure({"area_mm2": area, "power_w": {"part 0": 3.0, "part 13": 1.0}})
    bars = figure.axes[0].patches
    for row in (0, 1):
        widths = [bar.get_width() for bar in bars if round(bar.get_y() + 0.31) == row]
        assert sum(widths) == pytest.approx(100)
        assert len(widths) == 8
    assert "rest" in texts(figure)
    assert "area\n189 mm²" in texts(figure)  # 20 + 19 + ... + 7
    assert "75" in texts(figure)  # 3 W of 4
    assert breakdown_figure({"area_mm2": {}, "power_w": {"ADC": 1.0}}).axes[0].patches[0].get_width() == 100
    apart = breakdown_figure(
        {
            "area_mm2": {"ADC": 1.0, "some_links": 9.0},
            "power_w": {"ADC": 1.0},
            "energy_uj": {"ADC": 4.0, "DAC": 4.0},
            "energy_by_event_uj": {"ADC": 3.0, "DAC": 1.0},
            "off_tile": ["some_links"],
        }
    )
    assert [bar.get_width() for bar in apart.axes[0].patches if bar.get_width()] == [100, 100, 50, 50, 75, 25]
    assert {"area\n1 mm²\n+ 9 some links", "energy by event\n4 µJ"} <= set(texts(apart))


def test_occupancy_marks_the_bottleneck() -> None:
    layers = [
        {"name": "a", "occupancy": 0.25, "stalls": {"bus": 0.5}, "bottleneck": False},
        {"name": "b", "occupancy": 1.0, "stalls": {}, "bottleneck": True},
    ]
    figure = occupancy_figure(layers)
    assert [bar.get_width() for bar in figure.axes[0].patches] == [25, 50, 100]
    assert [label.get_fontweight() for label in figure.axes[0].get_yticklabels()] == ["normal", "bold"]
    assert {"computing", "bus"} <= set(texts(figure))


def test_occupancy_writes_many_reasons_into_the_bars() -> None:
    layers = [
        {"name": f"l{i}", "occupancy": 0.25, "stalls": {f"waits for l{i + 1}": 0.75 if i else 0.0}, "bottleneck": False}
        for i in range(6)
    ]
    figure = occupancy_figure(layers)
    assert {f"waits for l{i}" for i in range(2, 7)} <= set(texts(figure))
    assert "waits for l1" not in texts(figure)  # no time was lost to it
    assert {"computing", "waiting"} <= set(texts(figure))
    legend = [item.get_text() for item in figure.legends[0].get_texts()]
    assert legend == ["computing", "waiting"]


def test_normalised_is_relative_to_the_first_design() -> None:
    report = example_report(2)
    base = example_report(2)
    base["performance"] |= {"area_mm2": 4.0, "power_w": 2.0}
    report["performance"] |= {"area_mm2": 3.0, "power_w": 0.5}
    report["comparison"] = [comparison_column("base", base), comparison_column("pruned", report)]
    figure = report_figures(validate_report(report))["normalised"]
    assert sorted(bar.get_height() for bar in figure.axes[0].patches) == [0.25, 0.75, 1, 1]
    tiles = {"area_mm2": 2.0, "power_w": 1.0, "energy_uj_per_image": 1, "energy_by_event_uj_per_image": None}
    tiles |= {"average_power_w": 1, "gops_per_s_mm2": 1, "gops_per_w": 1}
    base["performance"]["tiles_alone"], report["performance"]["tiles_alone"] = tiles, tiles | {"area_mm2": 1.2}
    report["comparison"] = [comparison_column("base", base), comparison_column("pruned", report)]
    figure = report_figures(validate_report(report))["normalised"]
    assert sorted(bar.get_height() for bar in figure.axes[0].patches) == [0.6, 1, 1, 1]
    alone = normalised_figure([{"name": "x", "area": 0.4, "power": 0.2}])
    assert {"0.40", "0.20"} <= set(texts(alone))


def test_full_scale_is_on_the_picture_or_an_arrow_says_where() -> None:
    report = example_report(30)
    for histogram, scale in zip(report["histograms"], (255, 65535), strict=False):
        histogram["full_scale"] = scale
        histogram["counts"] = [5] * 40  # 255 is within eight times 40, 65,535 is not
    histograms = validate_report(report)["histograms"]
    for figure in (column_sums_figure(histograms[:2]), column_sums_figure(histograms)):
        axis = figure.axes[0]
        assert any(np.allclose(line.get_xdata(), 255.5) for line in axis.lines)
        assert axis.get_xlim()[1] > 255.5 or len(histograms) == 2
        assert "it lies further right" in texts(figure)
        assert any(line.get_marker() == ">" for panel in figure.axes for line in panel.lines)
    assert "it lies further right" not in texts(column_sums_figure(histograms[:1]))


@pytest.mark.parametrize("count", [256, pytest.param(1000, marks=pytest.mark.slow)])
def test_figures_of_very_many_layers_are_bounded(count: int) -> None:
    layers = validate_report(example_report(1))["performance"]["layers"]
    figure = occupancy_figure([layers[0] | {"name": f"step {i}"} for i in range(count)])
    width, height = figure.get_size_inches()
    assert (width, height < 20) == (pytest.approx(4 * 3.6), True)
    shown = [label.get_text() for axis in figure.axes for label in axis.get_yticklabels()]
    assert shown == [f"step {i}" for i in range(min(count, 400))]
    assert any("the first 400 of 1,000 layers" in text for text in texts(figure)) == (count > 400)


@pytest.mark.parametrize("name", ["$x_$", "a$\\frac{$b", "\u4e2d\u6587", "\x1b[2J", "{$}", "$$"])
def test_any_name_can_be_drawn(name: str) -> None:
    report = example_report(2)
    for part in (report["layers"], report["performance"]["layers"], report["histograms"]):
        part[0]["name" if "name" in part[0] else "layer"] = name
    report["hardware"]["name"] = name
    for figure in report_figures(validate_report(report)).values():
        assert render(figure, "png")


def test_efficiency_has_a_line_for_each_law() -> None:
    points = [{"adc_bits": bits, "gops_per_w": 100.0 * bits, "law": law} for law in "ab" for bits in (5, 4)]
    figure = efficiency_figure(points, "my_design")
    assert "my_design" in texts(figure)
    assert [list(line.get_xdata()) for line in figure.axes[0].lines] == [[4, 5], [4, 5]]
    assert {"a", "b"} <= set(texts(figure))


def test_write_report_writes_everything_and_lists_it(tmp_path: Path) -> None:
    report = example_report(2)
    with OutputFolder(tmp_path / "out") as folder:
        folder.write("certificate.json", "{}")
        written = write_report(folder, report)
    files = sorted(
        path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()
    )
    stored = json.loads((tmp_path / "out" / "report.json").read_text())
    assert stored == written
    assert stored["files"] == files
    assert {"certificate.json", "layers.csv", "report.md", "figures/bits.png", "figures/bits.svg"} <= set(files)
    markdown = (tmp_path / "out" / "report.md").read_text()
    for name in UNITS:
        assert f"](figures/{name}.png)" in markdown
    # a later run without the chip model leaves none of its figures behind
    with OutputFolder(tmp_path / "out") as folder:
        write_report(folder, example_report(2, chip=False))
    assert not (tmp_path / "out" / "figures" / "occupancy.png").exists()
    assert (tmp_path / "out" / "figures" / "bits.png").exists()


def test_write_report_without_figures_and_with_a_bad_report(tmp_path: Path) -> None:
    with OutputFolder(tmp_path / "out") as folder:
        assert write_report(folder, example_report(2), figures=False)["files"] == [
            "layers.csv", "report.json", "report.md",
        ]  # fmt: skip
    folder = OutputFolder(tmp_path / "bad")
    bad = {key: value for key, value in example_report(2).items() if key != "command"}
    with pytest.raises(ReportError, match=r"report\.command: Field required"), folder:
        write_report(folder, bad)
    assert not (tmp_path / "bad").exists()
