"""``bitline throughput`` as its users meet it: published figures, JSON, files, and one line for every bad input."""

from __future__ import annotations

import csv
import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from bitline.cli import main
from bitline.hardware import hardware_schema, list_hardware, load_hardware
from bitline.report.published_text import savings_text
from bitline.throughput import parse_input

SHIPPED = "digits_resnet20_cp16"
HWCONFIGS = Path(__file__).parents[1] / "hwconfigs"


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    """Exit status, standard output, standard error."""
    status = main([str(part) for part in argv])
    out, err = capsys.readouterr()
    return status, out, err


def report(capsys: pytest.CaptureFixture[str], *argv: object) -> dict[str, Any]:
    status, text, err = run(capsys, "throughput", *argv, "--json")
    assert status == 0, err
    found: dict[str, Any] = json.loads(text)
    return found


# --- peak ----------------------------------------------------------------------------------------------------------


def test_isaac_stands_beside_its_published_figures(capsys: pytest.CaptureFixture[str]) -> None:
    # Shafiee et al., ISAAC, ISCA 2016, Table I; 168 x 12 x 8 crossbars x 128 rows x 16 weights x 2 / 1.6 us
    peak = report(capsys, "--hw", "isaac")["peak"]
    assert peak["totals"]["ima"] == pytest.approx({"power_mw": 24.08, "area_mm2": 0.01312})
    assert peak["totals"]["tile"] == pytest.approx({"power_mw": 329.81, "area_mm2": 0.37229})
    assert (peak["power_w"], peak["area_mm2"]) == pytest.approx((65.81, 85.42), abs=5e-3)
    assert peak["tops"] == pytest.approx(41.288, abs=5e-4)
    assert peak["adc_share_of_tile"] == pytest.approx({"power": 0.58, "area": 0.31}, abs=5e-3)
    assert peak["adc_law"] == "kull"
    assert all(row["source"].startswith("ISAAC Table I") for row in peak["components"])
    printed = peak["published"]
    assert (printed["ima_power_mw"], printed["ima_area_mm2"]) == (24.1, 0.0131)
    assert (printed["tile_power_mw"], printed["tile_area_mm2"]) == (330, 0.372)
    assert (printed["chip_power_w"], printed["chip_area_mm2"]) == (65.8, 85.4)
    assert (printed["tops"], printed["gops_per_w"], printed["gops_per_s_mm2"]) == (41.3, 627.5, 478.95)
    assert "ISCA 2016" in printed["source"]
    # 41.288 TOPS over the printed 65.8 W and 85.4 mm2
    assert printed["gops_per_w_of_printed_power"] == pytest.approx(627.5, abs=0.05)
    assert printed["gops_per_s_mm2_of_printed_area"] == pytest.approx(483.5, abs=0.05)
    status, text, _ = run(capsys, "throughput", "--hw", "isaac")
    assert status == 0
    for figure in ("24.08", "0.01312", "329.81", "0.37229", "65.81", "85.42", "41.288", "627.5", "483.5", "478.95"):
        assert figure in text
    assert "kull" in text
    assert "ISCA 2016" in text


def test_designs_stand_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    found = report(capsys, "--hw", "isaac", "tinyadc", "puma")
    assert found["peak"]["hardware"] == "isaac"
    assert [design["peak"]["hardware"] for design in found["others"]] == ["tinyadc", "puma"]
    assert found["others"][1]["peak"]["adc_law"] == "puma"
    everything = report(capsys)
    assert len(everything["others"]) == len(list_hardware()) - 1
    text = run(capsys, "throughput", "--hw", "isaac", "--hw", "puma")[1]
    assert "instruction memory" in text
    assert "sigmoid" in text


def test_a_copy_that_kept_the_name_has_no_published_figures(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    changed = tmp_path / "mine.yaml"
    changed.write_text((HWCONFIGS / "isaac.yaml").read_text().replace("power_mw: 20.7", "power_mw: 20.8"))
    peak = report(capsys, "--hw", changed)["peak"]
    assert peak["hardware"] == "isaac"
    assert peak["published"] is None
    assert peak["totals"]["tile"]["power_mw"] == pytest.approx(329.91)


def test_adc_bits_and_law_are_those_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    # Kull's split at 6 bits: 0.9355 x 6/8 + 0.0645 / 4 = 0.7177 of the power, 0.5448 x 6/8 + 0.4552 / 4 of the area
    peak = report(capsys, "--hw", "isaac", "--adc-bits", 6)["peak"]
    adc = next(row for row in peak["components"] if row["name"] == "adc")
    assert (adc["power_mw"], adc["area_mm2"]) == pytest.approx((16 * 0.7177, 0.0096 * 0.5224), rel=1e-3)
    halved = report(capsys, "--hw", "isaac", "--adc-bits", 6, "--law", "halves_per_bit")["peak"]
    adc = next(row for row in halved["components"] if row["name"] == "adc")
    assert (adc["power_mw"], adc["area_mm2"]) == pytest.approx((4, 0.0024))
    assert halved["adc_law"] == "halves_per_bit"


def test_sweep_keeps_to_the_domains_of_the_laws(capsys: pytest.CaptureFixture[str]) -> None:
    points = report(capsys, "--hw", "isaac")["adc_sweep"]
    laws = {law: [p["adc_bits"] for p in points if p["law"] == law] for law in {p["law"] for p in points}}
    assert laws.keys() == {"kull", "kull_latches_constant", "survey", "halves_per_bit", "puma"}
    assert min(laws["survey"]) == 4
    assert min(laws["kull"]) == 1
    # at the printed resolution every law gives the printed figures
    at_eight = [point["gops_per_w"] for point in points if point["adc_bits"] == 8]
    assert at_eight == pytest.approx([627.4] * 5, abs=0.05)


def test_peak_needs_neither_torch_nor_numba() -> None:
    code = (
        "import sys\nfrom bitline.cli import main\nassert main(['throughput', '--hw', 'isaac']) == 0\n"
        "assert main(['throughput', '--table3']) == 0\n"
        "print([name for name in ('torch', 'numba', 'matplotlib') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"


# --- networks ------------------------------------------------------------------------------------------------------


def test_an_architecture_without_weights(capsys: pytest.CaptureFixture[str]) -> None:
    found = report(capsys, "--hw", "isaac", "--arch", "resnet18", "--input", "3x224x224", "--replication", "smallest")
    assert found["network"]["matrix_layers"] == 21
    # docs/chip_model.md, by hand: conv1 takes 112 x 112 vectors of 16 cycles
    performance = found["performance"]
    assert performance["bottleneck"] == "conv1"
    assert performance["interval_cycles"] == 112 * 112 * 16
    for part in ("conv1", "12,544", "16 cycles", "200,704", "input cycles"):
        assert part in found["bottleneck"]
    layer = next(layer for layer in found["layers"] if layer["name"] == "layer2.0.conv1")
    assert (layer["row_tiles"], layer["crossbars"], layer["imas"], layer["interval_cycles"]) == (5, 40, 5, 16)
    assert layer["busy_cycles"] == 28 * 28 * 16
    assert layer["occupancy"] == pytest.approx(1 / 16)
    assert sum(layer["stalls"].values()) == pytest.approx(15 / 16)
    assert layer["adc_bits"]["configured"] == 8
    assert layer["lossless"] is None
    assert found["certificate"] is None
    # the parts add up
    for what in ("area_mm2", "power_w"):
        assert sum(found["breakdown"][what].values()) == pytest.approx(performance[what])
    assert sum(found["breakdown"]["energy_uj"].values()) == pytest.approx(performance["energy_uj_per_image"])
    # dense weights and the printed ADCs: the non-pruned design itself
    assert {found["normalised"][key] for key in ("area", "power", "area_tiles", "power_tiles")} == {1.0}
    assert any("no checkpoint" in note for note in found["notes"])


def test_a_checkpoint_is_priced_at_its_certified_bits(capsys: pytest.CaptureFixture[str]) -> None:
    status, text, _ = run(capsys, "certify", SHIPPED, "--json")
    assert status == 0
    proven = {layer["name"]: layer["adc_bits"] for layer in json.loads(text)["layers"]}
    found = report(capsys, SHIPPED)  # tinyadc: weight_aware, one resolution a layer
    for layer in found["layers"]:
        assert layer["adc_bits"]["configured"] == proven[layer["name"]]["weight_aware"]
        assert layer["lossless"] is True
    assert found["certificate"]["lossless"] is True
    assert found["provenance"]["checkpoint_sha256"]
    assert 0 < found["normalised"]["power_tiles"] < found["normalised"]["power"] < 1
    by_equation = report(capsys, SHIPPED, "--adc-bits", "equation")
    for layer in by_equation["layers"]:
        assert layer["adc_bits"]["configured"] == proven[layer["name"]]["equation"]
    assert "NOT lossless" in run(capsys, "throughput", SHIPPED, "--adc-bits", 3)[1]


def test_blocks_are_squeezed_where_that_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    plain, squeezed = report(capsys, SHIPPED), report(capsys, SHIPPED, "--squeeze-blocks")
    layers = {layer["name"]: layer for layer in plain["layers"]}
    changed = [layer for layer in squeezed["layers"] if layer["squeezed"]]
    assert changed
    for layer in changed:
        assert layer["squeezed"] == "rows"
        assert layer["crossbars_per_replica"] < layers[layer["name"]]["crossbars_per_replica"]
        assert layer["index_bits"] > 0
        assert layer["lossless"] is True
    assert all(layer["squeezed"] is None and layer["index_bits"] == 0 for layer in plain["layers"])
    assert squeezed["performance"]["crossbars"] < plain["performance"]["crossbars"]
    assert squeezed["performance"]["images_per_s"] == plain["performance"]["images_per_s"]
    assert any("index tables" in note for note in squeezed["notes"])


def test_the_checkpoint_may_follow_the_designs(capsys: pytest.CaptureFixture[str]) -> None:
    found = report(capsys, "--hw", "isaac_8bit", SHIPPED)
    assert found["network"]["checkpoint"] == SHIPPED
    assert found["hardware"]["name"] == "isaac_8bit"
    assert found["others"] == []


def test_a_baseline_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    own = report(capsys, SHIPPED, "--replication", "smallest")
    other = report(capsys, SHIPPED, "--replication", "smallest", "--baseline", "isaac_8bit")
    assert own["normalised"]["baseline"].startswith("tinyadc")
    assert other["normalised"]["baseline"].startswith("isaac_8bit")
    assert own["performance"] == other["performance"]


def test_the_ladder_starts_at_the_non_pruned_design(capsys: pytest.CaptureFixture[str]) -> None:
    ladder = report(capsys, "--arch", "resnet20", "--replication", "smallest")["ladder"]
    assert ladder[0] == {
        "name": "8 bits", "adc_bits": 8, "area": 1.0, "power": 1.0, "area_tiles": 1.0, "power_tiles": 1.0,
    }  # fmt: skip
    assert [step["adc_bits"] for step in ladder] == [8, 7, 6, 5, 4, 3, 2]
    for a, b in itertools.pairwise(ladder):
        assert b["power_tiles"] < a["power_tiles"]
        assert b["area"] < a["area"]


def test_out_holds_every_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "new" / "report"
    status, text, err = run(capsys, "throughput", "--hw", "tinyadc", "isaac_8bit", SHIPPED, "--images", 2, "--out", out)
    assert status == 0, err
    written = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    document = json.loads((out / "report.json").read_text())
    assert written == set(document["files"])
    assert {"report.md", "layers.csv", "components.csv", "timeline.json", "timeline_2.json"} <= written
    stems = ("breakdown", "occupancy", "normalised", "efficiency", "occupancy_2", "normalised_2", "efficiency_2")
    for stem in stems:
        assert {f"figures/{stem}.png", f"figures/{stem}.svg"} <= written
        assert f"figures/{stem}.png" in (out / "report.md").read_text()
    assert "layers.csv" in text
    rows = list(csv.DictReader((out / "layers.csv").read_text().splitlines()))
    assert len(rows) == 2 * document["network"]["matrix_layers"]
    for row, layer in zip(rows, document["layers"], strict=False):
        assert (row["design"], row["name"]) == ("tinyadc", layer["name"])
        assert int(row["crossbars"]) == layer["crossbars"]
        assert float(row["energy_uj"]) == layer["energy_uj"]
        assert row["adc_bits_configured_per_slice"].split() == [
            str(b) for b in layer["adc_bits"]["configured_per_slice"]
        ]
    timeline = json.loads((out / "timeline.json").read_text())
    assert {event["args"]["image"] for event in timeline["traceEvents"] if event["ph"] == "X"} == {0, 1}
    assert [path.name for path in out.parent.iterdir()] == ["report"]


def test_peak_and_published_pages_are_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(capsys, "throughput", "--hw", "isaac", "--out", tmp_path / "peak")[0] == 0
    shares = json.loads((tmp_path / "peak" / "report.json").read_text())
    assert "figures/breakdown.png" in shares["files"]
    assert not (tmp_path / "peak" / "timeline.json").exists()
    assert run(capsys, "throughput", "--table3", "--out", tmp_path / "table3")[0] == 0
    assert "bitline throughput --table3" in (tmp_path / "table3" / "report.md").read_text()


# --- published figures -----------------------------------------------------------------------------------------------


def test_table_3_in_one_command(capsys: pytest.CaptureFixture[str]) -> None:
    rows = report(capsys, "--table3")["rows"]
    published = {row["name"]: (row["gops_per_s_mm2"], row["gops_per_w"]) for row in rows if row["kind"] == "published"}
    assert published["TinyADC (ISAAC)"] == (621.19, 879.1)
    computed = [row for row in rows if row["kind"] == "computed"]
    # arithmetic on the printed totals 85.4 mm2 and 65.8 W; the exact sums differ by 0.05 %
    expected = [(542.1, 537.1, 728.3), (518.1, 513.3, 677.0), (624.9, 619, 1230), (623.0, 617.3, 869.0),
                (625.9, 620.0, 871.6), (630.4, 624.4, 877.3)]  # fmt: skip
    for row, figures in zip(computed, expected, strict=True):
        found = (row["gops_per_s_mm2"], row["gops_per_s_mm2_from_published"], row["gops_per_w"])
        assert found == pytest.approx(figures, rel=6e-4)
    status, text, _ = run(capsys, "throughput", "--table3")
    assert status == 0
    for words in ("621.19", "879.10", "537.06", "none is claimed"):
        assert words in text


def test_savings_are_bracketed_for_every_network(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    document = report(capsys, "--savings", "--out", tmp_path / "savings")
    page = (tmp_path / "savings" / "report.md").read_text()
    claims = document["claims"]
    networks = {(claim["network"], tuple(claim["input_shape"])) for claim in claims}
    assert {("resnet18", (3, 224, 224)), ("resnet18_cifar", (3, 32, 32)), ("vgg16_cifar", (3, 32, 32))} <= networks
    printed = {(c["claim"]["power_saved"], c["claim"]["area_saved"]) for c in claims}
    assert {(0.37, 0.22), (0.62, 0.45)} <= printed
    assert {(1 - 1 / 15, 1 - 1 / 12), (1 - 1 / 3.5, 1 - 1 / 2.9)} <= printed
    for claim in claims:
        assert claim["power_bracketed"], claim["key"]
        assert claim["area_bracketed"], claim["key"]
    for text in (page, savings_text(document)):
        assert "Reason for the distance" in text
        assert "unpublished" in text
    assert "bitline throughput --savings" in page


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--hw", "nonsense"], ["nonsense", "tinyadc"]),
        (["--hw", "isaac", "missing.pth"], ["missing.pth"]),
        (["missing.pth", "--hw", "isaac"], ["missing.pth"]),
        (["--arch", "nonsense"], ["nonsense"]),
        (["--input", "3x224x224"], ["input", "network"]),
        (["--arch", "resnet18", "--input", "3x0x224"], ["3x224x224", "3x0x224"]),
        (["--arch", "resnet18", "--input", "large"], ["input", "large"]),
        (["--arch", "resnet18", "--input", "3x99999x99999"], ["input", "99999"]),
        (["--arch", "resnet20", "--input", "3x1x1x1"], ["(3, 1, 1, 1)"]),
        (["--hw", "isaac", "--adc-bits", "17"], ["1..16", "17"]),
        (["--hw", "isaac", "--adc-bits", "0"], ["1..16", "0"]),
        (["--hw", "isaac", "--adc-bits", "some"], ["adc_bits", "some"]),
        (["--hw", "isaac", "--adc-bits", "weight_aware"], ["weight_aware", "checkpoint"]),
        (["--hw", "isaac", "--law", "moore"], ["moore", "kull"]),
        (["--hw", "isaac", "--law", "survey", "--adc-bits", "3"], ["4..16", "3"]),
        (["--arch", "resnet20", "--replication", "most"], ["replication", "most"]),
        (["--arch", "resnet20", "--tiles", "0"], ["tiles", "0"]),
        (["--arch", "resnet18", "--tiles", "3"], ["does not fit", "3"]),
        (["--arch", "resnet20", "--images", "0"], ["images", "0"]),
        (["--arch", "resnet20", "--baseline", "nonsense"], ["nonsense"]),
        (["--table3", "--savings"], ["--table3"]),
        (["--table3", "--arch", "resnet18"], ["--table3"]),
        (["--savings", "--hw", "isaac", "tinyadc"], ["--savings"]),
        (["--squeeze-blocks", "--hw", "isaac"], ["squeeze_blocks", "checkpoint"]),
        (["--images", "many"], ["whole number", "many"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_is_one_line_and_status_2(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, argv: list[str], words: list[str]
) -> None:
    status, text, err = run(capsys, "throughput", *argv, "--out", tmp_path / "out")
    assert status == 2
    assert text == ""
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    for word in words:
        assert word in err
    assert not list(tmp_path.iterdir())


def test_an_unwritable_folder_is_found_first(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for argv in (["--hw", "isaac"], ["--table3"], ["--savings"], ["--arch", "nonsense"]):
        status, _, err = run(capsys, "throughput", *argv, "--out", tmp_path / "file")
        assert status == 2
        assert "found a file" in err
    assert (tmp_path / "file").read_text() == "mine"


def _edited(tmp_path: Path, *path: str, value: object = None) -> Path:
    """ISAAC's description with one field set, or taken out."""
    fields = yaml.safe_load((HWCONFIGS / "isaac.yaml").read_text())
    inner = fields
    for key in path[:-1]:
        inner = inner[key]
    if value is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    file = tmp_path / "bad.yaml"
    file.write_text(yaml.safe_dump(fields))
    return file


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("chip", "components", "adc", "area_mm2"), -0.1, ["chip.components.adc.area_mm2", "1e-15..1e9", "-0.1"]),
        (("chip", "components", "adc", "source"), None, ["chip.components.adc.source", "required"]),
        (("chip", "timing", "links", "source"), None, ["chip.timing.links.source", "required"]),
        (("chip", "components", "adc"), None, ["components.adc is missing"]),
        (("chip", "hierarchy", "tiles_per_chip", "value"), 0, ["chip.hierarchy.tiles_per_chip.value", "1..1e6", "0"]),
        (("rows",), 0, ["rows", "1..65536", "0"]),
        (("adc_bits",), 17, ["adc_bits", "1..16", "17"]),
        (("chip", "adc", "bits"), 17, ["chip.adc.bits", "16", "17"]),
        (("chip", "adc", "law"), "moore", ["chip.adc.law", "kull", "moore"]),
        (("chip", "surprise"), 1, ["chip.surprise", "unknown key"]),
    ],
    ids=lambda value: ".".join(value) if isinstance(value, tuple) else None,
)
def test_bad_descriptions_are_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, path: tuple[str, ...], value: object, words: list[str]
) -> None:
    file = _edited(tmp_path, *path, value=value)
    for argv in (["hw", "check", file], ["throughput", "--hw", file]):
        status, text, err = run(capsys, *argv)
        assert (status, text, err.count("\n")) == (2, "", 1)
        assert "bad.yaml" in err
        for word in words:
            assert word in err


def test_a_network_that_fits_no_chip(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    fields = yaml.safe_load((HWCONFIGS / "isaac.yaml").read_text())
    fields["chip"]["hierarchy"] |= {"max_chips": 1, "tiles_per_chip": {"value": 4, "source": "assumption: tiny"}}
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(fields))
    assert run(capsys, "hw", "check", file)[0] == 0
    status, text, err = run(capsys, "throughput", "--arch", "resnet18", "--hw", file)
    assert (status, text, err.count("\n")) == (2, "", 1)
    assert "fits no chip" in err
    assert "max_chips" in err


def test_a_description_without_a_chip(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, _, err = run(capsys, "throughput", "--hw", _edited(tmp_path, "chip"))
    assert status == 2
    assert "chip: missing" in err


def test_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    status, text, _ = run(capsys, "hw", "schema")
    assert status == 0
    assert json.loads(text) == hardware_schema() == json.loads((HWCONFIGS / "hardware.schema.json").read_text())


def test_shapes_of_inputs() -> None:
    assert parse_input("3x224x224") == (3, 224, 224)
    assert parse_input("1X49x10") == (1, 49, 10)
    assert parse_input("784") == (784,)


def test_a_policy_that_needs_no_weights_is_priced_as_it_says(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Eq. (1): 1 + 2 + 7 - 1 = 9 bits of 128 rows, 2-bit cells, 1-bit DACs; 8 + 2 + 9 = 19 of 512 rows, 8-bit DACs."""
    peak = report(capsys, "--hw", "tinyadc", "--adc-bits", "equation")["peak"]
    assert (peak["adc_bits"], peak["adc_bits_from"]) == (9, "Eq. (1) for 128 rows")
    fields = load_hardware("tinyadc", dac_bits=8, rows=512, adc_bits="equation", name="tall").model_dump(mode="json")
    path = tmp_path / "tall.yaml"
    path.write_text(yaml.safe_dump(fields))
    status, _, error = run(capsys, "throughput", "--hw", str(path))
    assert status == 2
    assert "need 19 bits, an ADC has at most 16" in error


def test_an_adc_that_cannot_hold_a_full_column_is_said_beside_the_peak(capsys: pytest.CaptureFixture[str]) -> None:
    """128 rows x level 3 = 384 need 9 bits; ISAAC's flip halves it to 192; at 8-bit DACs 384 x 255 need 17."""
    for name, bits in (("tinyadc", 9), ("isaac", 8)):
        peak = report(capsys, "--hw", name)["peak"]
        assert (peak["full_column_bits"], peak["holds_full_columns"]) == (bits, bits == 8)
        _, text, _ = run(capsys, "throughput", "--hw", name)
        assert ("DOES NOT HOLD A FULL COLUMN" in text) == (bits == 9)
    assert load_hardware("tinyadc", dac_bits=8).full_column_bits == (384 * 255).bit_length() == 17
    assert load_hardware("tinyadc", active_rows=8).full_column_bits == (8 * 3).bit_length() == 5


def test_the_spread_between_adc_laws_stands_beside_the_figures(capsys: pytest.CaptureFixture[str]) -> None:
    """ISAAC's chip at 6 bits: 85.42 mm2 less 168 x 12 x 8 ADCs of 0.0012 mm2 each, times 1 - A(6)/A(8) of each law."""
    spread = report(capsys, "--hw", "isaac", "--adc-bits", 6)["adc_law_spread"]
    adcs = 168 * 12 * 8 * 0.0012
    area = {"kull": 0.522, "survey": 0.837, "halves_per_bit": 0.25, "puma": 1.0}  # the last keeps the printed area
    assert set(area) <= set(spread["laws"])
    assert spread["area_mm2"] == pytest.approx([85.42 - adcs * (1 - 0.25), 85.42], rel=1e-3)
    _, text, _ = run(capsys, "throughput", "--hw", "isaac", "--adc-bits", 6)
    assert "over the ADC laws that know these bits (kull, " in " ".join(text.split())
    network = report(capsys, SHIPPED, "--hw", "tinyadc")["adc_law_spread"]
    least, most = network["energy_uj"]
    assert least < most
    _, text, _ = run(capsys, "throughput", "--hw", "isaac")  # at the printed 8 bits all laws agree
    assert "over the ADC laws" not in text
