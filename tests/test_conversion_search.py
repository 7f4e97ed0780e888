"""SAR searches in a whole network: lossless ones change nothing, every comparison is counted, lossy ones are honest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import reference as twin
from bitline import load_hardware
from bitline.conversion_search import (
    METHODS,
    account,
    calibration_codes,
    plan_searches,
    run_searches,
    search_adc,
)
from bitline.crossbar import sar
from bitline.crossbar.sar import LayerSearch
from bitline.errors import RangeError, ShapeError
from bitline.network.conversion import CrossbarNetwork, convert

DESIGNS = [
    {"encoding": "differential", "readout": "digital"},
    {"encoding": "differential", "readout": "analog"},
    {"encoding": "offset_flip", "readout": "digital"},
]


class Split:
    """Random images as a data set's split."""

    def __init__(self, count: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.all = torch.rand((count, 2, 6, 6), generator=generator)
        self.labels = np.arange(count) % 3

    def images(self, start: int, stop: int) -> torch.Tensor:
        return self.all[start:stop]

    def __len__(self) -> int:
        return len(self.all)


def small_network(**fields: Any) -> CrossbarNetwork:
    """Two convolutions and a linear layer; the second convolution's inputs are not negative, the linear layer's are."""
    torch.manual_seed(5)
    module = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, groups=1), nn.Flatten(), nn.Linear(48, 3)
    ).eval()
    hw = load_hardware("tinyadc", **{"rows": 20, "input_bits": 3, "weight_bits": 4, **fields})
    return convert(module, Split(8, 1).all, hw)


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("method", ["plain", "adaptive", "twin_range", "twin_range_early", "twin_range_lossy"])
def test_a_networks_comparisons_are_those_of_the_search_step_by_step(method: str, design: dict[str, str]) -> None:
    """Every input vector of every layer is recorded and converted again by the twin, comparison by comparison."""
    network = small_network(**design)
    plans = plan_searches(network, calibration_codes(network, Split(8, 1)), budget=0.01, output_bits=6)
    network.set_searches(plans[method])
    network.record_traces(10_000)
    network(Split(1, 2).all)
    assert network.certificate is not None
    for plan, proof, counters, trace in zip(
        plans[method], network.certificate.layers, network.counters, network.traces, strict=True
    ):
        adc = proof.adc
        _, comparisons = twin.searched_matmul(
            trace.x, trace.codes[0], network.hw, twin.Adc(adc.per_slice, adc.unit or 1), plan, trace.signed_inputs
        )
        assert counters.codes is not None
        found = sar.count(plan, counters.codes, network.hw, adc)
        assert found.comparisons.sum() == comparisons
        assert found.conversions.sum() == counters.conversions > 0


@pytest.mark.parametrize("design", DESIGNS)
def test_lossless_searches_give_the_exact_networks_outputs(design: dict[str, str]) -> None:
    network = small_network(**design)
    split = Split(7, 3)
    plans = plan_searches(network, calibration_codes(network, Split(8, 1)), budget=0.05, output_bits=6)
    runs = {
        name: run_searches(network, plans[name], split, images=7, batch_size=3)
        for name in ("plain", "twin_range", "twin_range_early", "twin_range_lossy", "adaptive")
    }
    for name in ("plain", "twin_range", "twin_range_early"):
        assert runs[name].evaluation.differing_images == 0
        for mine, plain in zip(runs[name].codes, runs["plain"].codes, strict=True):
            np.testing.assert_array_equal(mine, plain)
    assert runs["twin_range_lossy"].evaluation.differing_images > 0
    assert runs["adaptive"].evaluation.differing_images > 0
    # batches add up to the same counts
    whole = run_searches(network, plans["twin_range_lossy"], split, images=7, batch_size=7)
    for mine, other in zip(whole.codes, runs["twin_range_lossy"].codes, strict=True):
        np.testing.assert_array_equal(mine, other)


def test_searches_are_taken_away_again() -> None:
    network = small_network()
    x = Split(2, 4).all
    before = network(x)
    plans = plan_searches(network, calibration_codes(network, Split(8, 1)), budget=0.05)
    run_searches(network, plans["twin_range_lossy"], Split(2, 4), images=2, batch_size=2)
    assert torch.equal(network(x), before)
    assert all(counters.codes is None for counters in network.counters)
    network.set_searches(plans["twin_range_lossy"])
    assert not torch.equal(network(x), before)
    network.set_adc(network.hw, _bits(network))
    assert torch.equal(network(x), before)


def test_searches_that_do_not_fit_leave_none_behind() -> None:
    network = small_network()
    x = Split(2, 4).all
    before = network(x)
    plans = plan_searches(network, calibration_codes(network, Split(8, 1)), budget=0.05)["twin_range_lossy"]
    with pytest.raises(ShapeError, match=f"one for each of {len(plans)} layers, found {len(plans) - 1}"):
        network.set_searches(plans[:-1])
    with pytest.raises(ShapeError):
        network.set_searches([*plans[:-1], LayerSearch(slices=())])
    assert torch.equal(network(x), before)


def _bits(network: CrossbarNetwork) -> list[Any]:
    assert network.certificate is not None
    return network.certificate.adc


def test_a_larger_budget_never_takes_more_comparisons() -> None:
    network = small_network()
    codes = calibration_codes(network, Split(8, 1))
    totals = []
    for budget in (0.0, 1e-3, 1e-2, 1e-1, 1.0):
        plans = plan_searches(network, codes, budget=budget)["twin_range_lossy"]
        totals.append(
            sum(
                int(sar.count(plan, counted, network.hw, adc).comparisons.sum())
                for plan, counted, adc in zip(plans, codes, _bits(network), strict=True)
            )
        )
    assert totals == sorted(totals, reverse=True)
    assert totals[-1] == 0  # all of the signal may go


def test_energy_by_hand() -> None:
    """Slices of 5 and 8 bits and a unit column of 8: Kull's linear blocks a comparison, the rest a conversion."""
    hw = load_hardware("isaac_8bit", weight_bits=4)
    adc = sar.AdcBits(per_slice=(5, 8), unit=8)
    found = account(sar.Comparisons(np.array([10, 20, 30]), np.array([40, 50, 60])), hw, adc)
    comparison = 1.5625 * 2.9 / 3.1 / 8
    charge = 1.5625 * 0.2 / 3.1
    assert found.conversions == 60
    assert found.comparisons == 150
    assert found.energy_pj == pytest.approx(150 * comparison + 10 * charge / 8 + 50 * charge)
    bare = account(sar.Comparisons(np.array([1, 1, 0]), np.array([1, 1, 0])), hw.replace(chip=None), adc)
    assert bare.energy_pj is None
    assert (found + bare).energy_pj is None
    assert (found + found).energy_pj == pytest.approx(2 * (found.energy_pj or 0))


def check_report(report: dict[str, Any]) -> None:
    """What must hold for any network on an ADC that is proven lossless."""
    methods = report["methods"]
    assert tuple(methods) == METHODS
    for name in METHODS:
        layers = [layer["methods"][name] for layer in report["layers"]]
        assert methods[name]["comparisons"] == sum(layer["comparisons"] for layer in layers)
        assert methods[name]["conversions"] == methods["plain"]["conversions"]
        assert methods[name]["energy_pj"] == pytest.approx(sum(layer["energy_pj"] for layer in layers))
    for name in ("plain", "early", "twin_range", "twin_range_early"):
        assert methods[name]["exactness"] == "proven"
        assert methods[name]["accuracy"]["differing_images"] == 0
    assert methods["plain"]["comparison_ratio"] == methods["plain"]["energy_ratio"] == 1
    for name in ("twin_range", "twin_range_early", "twin_range_lossy"):
        # what every conversion costs anyway keeps the energy's ratio below the comparisons'
        assert 1 < methods[name]["energy_ratio"] < methods[name]["comparison_ratio"]
    assert methods["twin_range_early"]["comparisons"] <= methods["twin_range"]["comparisons"]
    assert methods["twin_range_lossy"]["comparisons"] < methods["twin_range_early"]["comparisons"]


def test_report_of_the_digits_network() -> None:
    report = search_adc("digits_resnet20_cp16", images=2, calibration_images=2)
    check_report(report)
    plain = report["methods"]["plain"]
    assert plain["comparisons"] == sum(
        layer["adc_bits"][0] * layer["methods"]["plain"]["conversions"] for layer in report["layers"]
    )
    assert [len(layer["plans"]["twin_range_lossy"]) for layer in report["layers"]] == [4] * len(report["layers"])


@pytest.mark.realdata
def test_real_resnet20(shared_data: Path) -> None:
    """One image; the figures of docs/adc_search.md come from hundreds."""
    path = shared_data / "checkpoints" / "cifar10" / "resnet20-12fca82f.th"
    data = f"cifar10:{shared_data / 'cifar10'}"
    check_report(search_adc(path, "tinyadc", data, normalisation="imagenet", images=1, calibration_images=2))


@pytest.mark.parametrize(("images", "calibration"), [(0, 4), (2, 0)])
def test_numbers_of_images_are_checked(images: int, calibration: int) -> None:
    with pytest.raises(RangeError, match="images: must be at least 1"):
        search_adc("digits_resnet20_cp16", images=images, calibration_images=calibration)


@pytest.mark.parametrize("budget", [-1.0, float("nan")])
def test_impossible_budgets_are_refused(budget: float) -> None:
    network = small_network()
    with pytest.raises(RangeError, match="'budget'"):
        plan_searches(network, calibration_codes(network, Split(2, 1)), budget=budget)
