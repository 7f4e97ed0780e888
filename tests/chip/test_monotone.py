"""A slower part never makes a chip faster, and more copies are never chosen where fewer are as fast."""

from __future__ import annotations

import chip_networks
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitline.chip import estimate
from bitline.chip.mapping import map_layers
from bitline.chip.replication import Replication, candidates
from bitline.errors import BitlineError
from bitline.hardware import Hardware, load_hardware
from bitline.layers import Gates, Operation, OperationKind
from strategies import examples

BASES = [load_hardware(name) for name in ("isaac", "isaac_8bit", "tinyadc", "puma")]
SLOWER = {  # a part, and what makes it slower
    "array_read_ns": 1.1,
    "digital_clock_ghz": 0.9,
    "edram_port_bits": 0.5,
    "bus_bits": 0.5,
    "router_bits": 0.5,
    "links": 0.5,
    "link_gbyte_per_s": 0.9,
    "pipeline_overhead_cycles": 2,
    "digital_cycles": 2,
}


def _changed(hw: Hardware, **figures: float) -> Hardware:
    chip = hw.chip.model_dump()
    for path, value in figures.items():
        section, field = path.split("__")
        chip[section][field] = (
            {"value": value, "source": "a test"} if section != "adc" or field != "rate_law" else value
        )
    return hw.replace(chip=chip)


@st.composite
def _designs(draw: st.DrawFn) -> Hardware:
    """A random design: figures around the shipped ones, some of them far from it."""
    hw = draw(st.sampled_from(BASES))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    hw = hw.replace(
        dac_bits=int(rng.choice([1, 1, 2, 8])),
        rows=int(rng.choice([64, 128, 128, 256])),
        columns=int(rng.choice([64, 128, 128])),
        active_rows=[None, None, 32][int(rng.integers(3))],
    )
    figures = {
        "timing__array_read_ns": float(rng.choice([5, 10, 97, 100, 130])),
        "timing__edram_port_bits": int(rng.choice([4, 16, 64, 256])),
        "timing__bus_bits": int(rng.choice([8, 64, 384])),
        "timing__router_bits": int(rng.choice([2, 8, 32])),
        "timing__digital_clock_ghz": float(rng.choice([0.3, 1.0, 1.2])),
        "timing__links": int(rng.integers(1, 5)),
        "timing__link_gbyte_per_s": float(rng.choice([0.001, 0.01, 0.4, 6.4])),
        "hierarchy__crossbars_per_ima": int(rng.choice([2, 8, 16])),
        "hierarchy__imas_per_tile": int(rng.choice([1, 4, 12])),
        "hierarchy__tiles_per_chip": int(rng.choice([2, 4, 16, 168])),
        "adc__sample_rate_gsps": float(rng.choice([0.2, 0.9, 1.28, 5])),
    }
    hw = _changed(hw, **figures)
    chip = hw.chip.model_dump()
    chip["adc"]["rate_law"] = ["fixed", "per_bit"][int(rng.integers(2))]
    return hw.replace(chip=chip)


def _recurrent() -> list[Operation]:
    gates = Gates(functions=5 * 20, arithmetic=8 * 20, moved=11 * 20)
    source = Operation(name="input", kind=OperationKind.INPUT, inputs=(), output_shape=(28, 1, 16))
    common = {"kind": OperationKind.MATRIX, "columns": 80}
    product = Operation(name="ih", inputs=("input",), output_shape=(80, 1, 16), rows=28, **common)
    state = Operation(name="hh", inputs=("ih",), output_shape=(20, 1, 16), rows=20, gates=gates, **common)
    return [source, product, state]


NETWORKS = [chip_networks.resnet18(32), chip_networks.vgg16(32), _recurrent()]


def _speed(network: list[Operation], hw: Hardware, how: str, bits: int = 8) -> tuple[float, float] | None:
    """Images a second and latency; None where the network does not fit."""
    try:
        totals = estimate(network, hw, replication=how, adc_bits=bits).totals
    except BitlineError:
        return None
    return totals.images_per_s, totals.latency_us


@given(
    _designs(),
    st.sampled_from(range(len(NETWORKS))),
    st.sampled_from([rule.value for rule in Replication]),
    st.sampled_from([*SLOWER, "adc rate", "adc bits"]),
)
@examples(60)
def test_a_slower_part_never_makes_a_chip_faster(hw: Hardware, network: int, how: str, part: str) -> None:
    before = _speed(NETWORKS[network], hw, how)
    bits = 8
    if part == "adc bits":
        slower, bits = hw, 9
    elif part == "adc rate":
        slower = _changed(hw, adc__sample_rate_gsps=0.9 * hw.chip.adc.sample_rate_gsps.value)
    else:
        value = getattr(hw.chip.timing, part).value * SLOWER[part]
        whole = part.endswith(("bits", "links", "cycles"))
        slower = _changed(hw, **{f"timing__{part}": max(1, int(value)) if whole else value})
    after = _speed(NETWORKS[network], slower, how, bits)
    if before is None:
        return  # too slow to be counted, or too large: slower does not help
    if after is not None:
        assert after[0] <= before[0] * (1 + 1e-12)
        if how == "smallest":  # with other copies the first image may take another way
            assert after[1] >= before[1] * (1 - 1e-12)


@given(_designs(), st.sampled_from(range(len(NETWORKS))))
@examples(40)
def test_more_copies_are_never_slower(hw: Hardware, network: int) -> None:
    """The rule that may use more copies is as fast as those that use fewer, and as every choice it looked at."""
    operations = NETWORKS[network]
    smallest, balanced, fastest = (_speed(operations, hw, how) for how in ("smallest", "balanced", "fastest"))
    if smallest is None or balanced is None or fastest is None:
        return
    assert smallest[0] <= balanced[0] * (1 + 1e-12)
    assert balanced[0] <= fastest[0] * (1 + 1e-12)
    mappings = map_layers(operations, hw)
    matrix = [operation for operation in operations if operation.kind is OperationKind.MATRIX]
    names = [mapping.name for mapping in mappings]
    for replicas in candidates(mappings, matrix, hw, "balanced"):
        fewer = estimate(operations, hw, replication=dict(zip(names, replicas, strict=True)), adc_bits=8)
        assert fewer.totals.images_per_s <= balanced[0] * (1 + 1e-12)


def test_a_larger_tile_is_slower_only_through_real_neighbours() -> None:
    """One copy of a layer alone on the chip: the tile's size does not matter to it."""
    base = load_hardware("isaac_8bit", dac_bits=8)
    source = Operation(name="input", kind=OperationKind.INPUT, inputs=(), output_shape=(64, 8, 8))
    layer = Operation(
        name="a", kind=OperationKind.MATRIX, inputs=("input",), output_shape=(64, 8, 8), rows=576, columns=64
    )
    speeds = [
        _speed([source, layer], _changed(base, hierarchy__imas_per_tile=imas), "smallest") for imas in (2, 4, 12, 48)
    ]
    assert len(set(speeds)) == 1


def test_links_that_are_slow_keep_copies_on_one_chip() -> None:
    """FINDINGS: 4 tiles a chip and links of 0.01 GB/s made `balanced` half as fast as one copy of everything."""
    hw = _changed(load_hardware("isaac_8bit"), hierarchy__tiles_per_chip=4, timing__link_gbyte_per_s=0.01)
    one, balanced = (_speed(chip_networks.resnet18(32), hw, how) for how in ("smallest", "balanced"))
    assert balanced[0] >= one[0]


@pytest.mark.parametrize("rate", [6.4, 0.0064])
def test_a_layer_over_several_chips_pays_its_links(rate: float) -> None:
    """131,072 inputs of a byte through 4 links: 195.3 images/s at 6.4 MB/s each, 195,312 at 6.4 GB/s."""
    hw = _changed(load_hardware("isaac_8bit"), timing__link_gbyte_per_s=rate)
    source = Operation(name="input", kind=OperationKind.INPUT, inputs=(), output_shape=(16, 1, 1))
    first = Operation(
        name="a", kind=OperationKind.MATRIX, inputs=("input",), output_shape=(131072, 1, 1), rows=16, columns=131072
    )
    second = Operation(
        name="b", kind=OperationKind.MATRIX, inputs=("a",), output_shape=(4096, 1, 1), rows=131072, columns=4096
    )
    report = estimate([source, first, second], hw, replication="smallest")
    assert report.layers[1].chips[1] > report.layers[1].chips[0]
    assert report.totals.images_per_s <= 4 * rate * 1e9 / 131072
    if rate < 1:
        assert report.totals.images_per_s == pytest.approx(4 * rate * 1e9 / 131072)
