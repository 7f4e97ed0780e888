"""Hardware descriptions: what ships is complete and sourced, what is wrong gets one clear line."""

from __future__ import annotations

import json
from importlib import resources

import chip_networks
import pytest
import yaml

from bitline.chip import estimate, peak
from bitline.errors import BitlineError, ConfigError
from bitline.hardware import hardware_schema, list_hardware, load_hardware


def _text(name: str) -> str:
    return resources.files("bitline.hwconfigs").joinpath(f"{name}.yaml").read_text("utf-8")


@pytest.mark.parametrize("name", ["isaac", "isaac_8bit", "puma", "tinyadc", "rram_asscc2025", "rram_esserc2024"])
def test_shipped_descriptions_are_complete(name):
    assert name in list_hardware()
    hw = load_hardware(name)
    assert hw.chip is not None
    assert peak(hw).tops > 0
    sources = hw.chip.sources()
    # every number that a roll-up or the timing uses
    assert set(sources) >= {f"components.{c}" for c in hw.chip.components}
    assert all(len(source) > 10 for source in sources.values())


def test_schema_file_is_current():
    shipped = json.loads(resources.files("bitline.hwconfigs").joinpath("hardware.schema.json").read_text("utf-8"))
    assert shipped == hardware_schema(), "run: python -m json.tool on hardware_schema(), see docs/chip_model.md"


def test_schema_accepts_the_shipped_files_keys():
    # a small walk instead of a JSON-schema library: every key of every file is a property of its object
    schema = hardware_schema()

    def walk(node, value, path):
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rsplit("/", 1)[1]]
        for branch in node.get("anyOf", []):
            if isinstance(value, dict) and "$ref" in branch:
                walk(branch, value, path)
                return
        if isinstance(value, dict):
            for key, inner in value.items():
                inside = node.get("properties", {}).get(key) or node.get("additionalProperties")
                assert inside, f"{path}.{key}"
                walk(inside, inner, f"{path}.{key}")

    for name in list_hardware():
        walk(schema, yaml.safe_load(_text(name)), name)


def test_copy_a_file_change_three_lines_and_it_works(tmp_path):
    text = _text("tinyadc")
    for old, new in (
        ("rows: 128", "rows: 64"),
        ("adc_bits: weight_aware", "adc_bits: 5"),
        ("imas_per_tile: {value: 12,", "imas_per_tile: {value: 16,"),
    ):
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    hw = load_hardware(path)
    report = estimate(chip_networks.resnet18(32, 10), hw)
    # half the word lines: half the DACs and cells of an IMA
    assert peak(hw).table.level("ima")[1].power_mw == pytest.approx(2.0)
    assert report.layers[0].adc_bits == 5
    assert report.to_json()["normalised"]["power"] < 1


def _broken(path: str, value=None, drop: bool = False) -> dict:
    fields = load_hardware("isaac").model_dump()
    inner = fields
    *parents, last = path.split(".")
    for part in parents:
        inner = inner[part]
    if drop:
        del inner[last]
    else:
        inner[last] = value
    return fields


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("chip.components.adc.area_mm2", -0.1, "chip.components.adc.area_mm2: must lie in 0 or 1e-15..1e9, got -0.1"),
        ("chip.components.adc.power_mw", "16", "chip.components.adc.power_mw: must be a number, got '16'"),
        ("chip.components.adc.power_mw", float("nan"), "chip.components.adc.power_mw: .*finite"),
        ("chip.components.dac.source", "", "chip.components.dac.source: "),
        ("chip.components.dac.per", "wire", "components.dac.per must be one of cell, row, column"),
        ("chip.components.adc.per", "tile", "chip: components.adc.per must be column, crossbar or ima, not tile"),
        ("chip.components.dac.power_uw", 1, "chip.components.dac.power_uw: unknown key"),
        ("chip.hierarchy.crossbars_per_ima.value", 0, "chip.hierarchy.crossbars_per_ima.value: must lie in 1.*, got 0"),
        ("chip.hierarchy.tiles_per_chip.value", 1.5, "chip.hierarchy.tiles_per_chip.value: must be an integer"),
        ("chip.hierarchy.max_chips", 0, "chip.hierarchy.max_chips: .*got 0"),
        ("chip.timing.array_read_ns.value", 0, "chip.timing.array_read_ns.value: must lie in .*, got 0"),
        ("chip.adc.bits", 17, "chip.adc.bits: must lie in 1..16, got 17"),
        ("chip.adc.law", "moore", "chip.adc.law: .*'kull'"),
        ("chip.wires", 3, "chip.wires: unknown key"),
        ("adc_bits", 17, "adc_bits: must be an integer in 1..16 or a policy, got 17"),
        ("rows", 0, "rows: must lie in 1..65536, got 0"),
    ],
)
def test_bad_values_name_the_field(path, value, words):
    fields = _broken(path, value)
    with pytest.raises(ConfigError, match=words) as caught:
        load_hardware("isaac", **fields)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "path",
    [
        "chip.components.adc.source",
        "chip.hierarchy.imas_per_tile.source",
        "chip.timing.array_read_ns.source",
        "chip.adc.sample_rate_gsps.source",
    ],
)
def test_a_missing_source_is_refused(path):
    with pytest.raises(ConfigError, match=f"hardware isaac: {path}: required, but missing") as caught:
        load_hardware("isaac", **_broken(path, drop=True))
    assert "\n" not in str(caught.value)


def test_a_chip_without_crossbars_is_refused():
    with pytest.raises(ConfigError, match=r"chip: components\.crossbar is missing"):
        load_hardware("isaac", **_broken("chip.components.crossbar", drop=True))


def test_a_description_without_a_chip_cannot_be_priced():
    hw = load_hardware("isaac", chip=None)
    for price in (lambda: peak(hw), lambda: estimate(chip_networks.resnet18(32), hw)):
        with pytest.raises(ConfigError, match="hardware isaac: chip: missing"):
            price()


def test_a_network_that_fits_no_chip():
    fields = _broken("chip.hierarchy.max_chips", 1)
    hw = load_hardware("isaac", **fields)
    with pytest.raises(BitlineError, match=r"fits no chip: one copy of every layer needs \d+ tiles, 1 chips of 168"):
        estimate(chip_networks.vgg16(), hw)
