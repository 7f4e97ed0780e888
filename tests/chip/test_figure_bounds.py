"""Bounds on every figure of a description: stated in the schema, one line beyond them, finite prices within them."""

from __future__ import annotations

import dataclasses
import math
import random
from typing import Any

import chip_networks
import pytest

from bitline import load_hardware
from bitline.chip import estimate, peak
from bitline.chip.pipeline import Stage, schedule
from bitline.chip_description import AdcLaw, Event, RateLaw
from bitline.errors import BitlineError, ConfigError, RangeError
from bitline.hardware import hardware_schema


def changed(path: str, value: Any, base: str = "isaac") -> dict[str, Any]:
    """A shipped description's fields with one of them replaced."""
    fields = load_hardware(base).model_dump()
    inner = fields
    *parents, last = path.split(".")
    for part in parents:
        inner = inner[part]
    assert last in inner
    inner[last] = value
    return fields


# FINDINGS C4, and their siblings
@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("chip.timing.pipeline_overhead_cycles.value", 10**21),
        ("chip.timing.pipeline_overhead_cycles.value", 9 * 10**18),
        ("chip.timing.digital_clock_ghz.value", 1e-300),
        ("chip.timing.link_gbyte_per_s.value", 1e-300),
        ("chip.timing.array_read_ns.value", 1e308),
        ("chip.timing.edram_kbytes.value", 1e-300),
        ("chip.hierarchy.tiles_per_chip.value", 10**400),
        ("chip.hierarchy.max_chips", 10**400),
        ("chip.adc.sample_rate_gsps.value", 1e300),
        ("chip.components.adc.power_mw", 1e300),
        ("chip.components.adc.power_mw", 1e-300),
        ("chip.components.adc.power_mw", -1.0),
        ("chip.components.dac.count", 1e-300),
        ("chip.components.dac.units", 1e300),
        ("rows", 10**400),
        ("adc_bits", 10**400),
    ],
)
def test_figures_beyond_anything_built_are_refused(path: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"hardware isaac: {path}: .*, got ") as caught:
        load_hardware("isaac", **changed(path, value))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "value", ["", "  ", "    ", "ab", " \u00a0 ", "x\x1b[31mred", "two\nlines", "a\u202eb", "bell\x07", "x" * 1001]
)
def test_a_source_is_a_line_that_says_something(value: str) -> None:
    for path in ("chip.components.dac.source", "chip.timing.links.source"):
        with pytest.raises(ConfigError, match=f"hardware isaac: {path}: "):
            load_hardware("isaac", **changed(path, value))


@pytest.mark.parametrize("value", ["\x1b]0;x\x07", "a\rb", "\u2028"])
def test_names_are_without_control_characters(value: str) -> None:
    for path in ("name", "summary", "chip.components.dac.note"):
        with pytest.raises(ConfigError, match=f"hardware isaac: {path}: must be one line") as caught:
            load_hardware("isaac", **changed(path, value))
        assert str(caught.value).isprintable()
    fields = changed("name", "x")
    fields["chip"]["components"][value] = fields["chip"]["components"]["dac"]
    with pytest.raises(ConfigError, match="control characters"):
        load_hardware("isaac", **fields)


def numbers(schema: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Every number of a description by its path, with the limits that hold there."""
    found = []

    def walk(node: dict[str, Any], path: str, limits: dict[str, Any]) -> None:
        limits = limits | node.get("properties", {}).get("value", {}) if "$ref" in node else limits
        if "$ref" in node:
            walk(schema["$defs"][node["$ref"].rsplit("/", 1)[1]], path, limits)
            return
        for branch in node.get("anyOf", []):
            walk(branch, path, limits)
        if node.get("type") in ("number", "integer"):
            found.append((path, {**node, **limits}))
        for key, inner in node.get("properties", {}).items():
            walk(inner, f"{path}.{key}".removeprefix("."), limits if key == "value" else {})
        if isinstance(node.get("additionalProperties"), dict):
            walk(node["additionalProperties"], f"{path}.*", {})

    walk(schema, "", {})
    return found


def test_every_number_of_the_schema_has_bounds() -> None:
    found = numbers(hardware_schema())
    assert {"rows", "chip.timing.array_read_ns.value", "chip.components.*.power_mw"} <= {path for path, _ in found}
    for path, node in found:
        if path == "adc_bits":  # a number or a policy: checked by hand
            continue
        assert -1e12 < node["minimum"] < node["maximum"] <= 1e12, path


def test_the_schemas_bounds_are_the_loaders() -> None:
    fields = load_hardware("isaac").model_dump()
    for path, node in numbers(hardware_schema()):
        if "*" in path or "value" not in path:
            continue
        inner: Any = fields
        for part in path.split(".")[:-2]:
            inner = inner.get(part) if isinstance(inner, dict) else None
        if not isinstance(inner, dict) or not isinstance(inner.get(path.split(".")[-2]), dict):
            continue  # not in this description
        for value, fine in (
            (node["minimum"], True),
            (node["maximum"], True),
            (node["minimum"] / 2 if node["type"] == "number" else node["minimum"] - 1, False),
            (node["maximum"] * 2, False),
        ):
            broken = changed(path, int(value) if node["type"] == "integer" else value)
            if fine:
                load_hardware("isaac", **broken)
            else:
                with pytest.raises(ConfigError, match=f"{path}: must lie in"):
                    load_hardware("isaac", **broken)


def extreme(rng: random.Random) -> dict[str, Any]:
    """A description with many of its figures at one end of what is accepted."""
    fields = load_hardware("isaac").model_dump()
    for path, node in numbers(hardware_schema()):
        inner: Any = fields
        for part in path.split(".")[:-1]:
            inner = inner.get(part) if isinstance(inner, dict) else None
        last = path.split(".")[-1]
        if isinstance(inner, dict) and last in inner and "minimum" in node and rng.random() < 0.4:
            value = rng.choice([node["minimum"], node["maximum"]])
            inner[last] = int(value) if node["type"] == "integer" else value
    for component in fields["chip"]["components"].values():
        for name in ("power_mw", "area_mm2", "count", "units"):
            if rng.random() < 0.3:
                ends = (1e-15, 1e9, 0) if name in ("power_mw", "area_mm2") else (1e-9, 1e12)
                component[name] = rng.choice(ends)
        if rng.random() < 0.1:
            component |= {"power_mw": None, "energy_pj": rng.choice([1e-9, 1e9])}
            adc = component is fields["chip"]["components"]["adc"]
            component["event"] = "conversion" if adc else rng.choice([event.value for event in Event])
    below = "tile"
    for number in range(rng.choice([0, 0, 1, 3, 16])):
        level = {"name": f"level{number}", "of": below, "count": rng.choice([1, 65536]), "source": "extreme"}
        fields["chip"]["hierarchy"].setdefault("extra_levels", []).append(level)
        below = level["name"]
        fields["chip"]["components"]["router"]["per"] = below
    for name in ("links", "edram_kbytes", "bus_bits"):
        if rng.random() < 0.1:
            fields["chip"]["timing"].pop(name, None)
            if name == "links":
                fields["chip"]["timing"].pop("link_gbyte_per_s", None)
    fields["encoding"] = rng.choice(["differential", "offset", "offset_flip"])
    fields["adc_bits"] = rng.choice([4, 8, 16, "equation", "weight_aware"])
    fields["chip"]["adc"]["law"] = rng.choice([law.value for law in AdcLaw if law is not AdcLaw.TABLE])
    fields["chip"]["adc"]["rate_law"] = rng.choice([law.value for law in RateLaw])
    return fields


def refuse_what_is_no_price(value: Any, path: str = "") -> int:
    """Every number of a report is finite, not negative and not absurdly long; how many there are."""
    if isinstance(value, dict):
        return sum(refuse_what_is_no_price(inner, f"{path}.{key}") for key, inner in value.items())
    if isinstance(value, list | tuple):
        return sum(refuse_what_is_no_price(inner, f"{path}[]") for inner in value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        assert math.isfinite(value), path
        assert 0 <= value < 1e60, (path, value)
        return 1
    return 0


@pytest.mark.parametrize("block", range(4))
def test_what_is_accepted_has_a_finite_price(block: int) -> None:
    """Figures at the ends of their bounds: prices and schedules of finite, positive numbers, or one line."""
    priced, refusals = 0, []
    for seed in range(block * 15, block * 15 + 15):
        try:
            hw = load_hardware("isaac", **extreme(random.Random(seed)))
            assert refuse_what_is_no_price(dataclasses.asdict(peak(hw))) > 10
            report = estimate(chip_networks.resnet18(32, 10), hw)
            assert refuse_what_is_no_price(report.to_json()) > 100
            assert all(start >= 0 for starts in report.schedule.starts for start in starts.ravel()[[0, -1]])
            priced += 1
        except BitlineError as error:
            refusals.append(str(error))
    assert priced >= 5
    assert all("\n" not in line and len(line) < 400 for line in refusals)


def test_a_chip_without_power_or_area_is_refused() -> None:
    for figure in ("power_mw", "area_mm2"):
        fields = load_hardware("isaac").model_dump()
        for component in fields["chip"]["components"].values():
            component[figure] = 0
        with pytest.raises(
            ConfigError, match=f"hardware isaac: chip: components: none has {figure}( or energy_pj)? above 0"
        ):
            load_hardware("isaac", **fields)


def test_a_schedule_beyond_64_bits_is_refused() -> None:
    stage = Stage(name="a", height=1 << 10, width=1 << 10, interval=1 << 44, lanes=1, depth=1, waits=())
    with pytest.raises(RangeError, match="more than are counted"):
        schedule([stage])
