"""What the benchmarks multiply and how they measure, without measuring."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
import torch
from benchmarks.bounds import ADDER_BOUND, COUNT_BOUND
from benchmarks.figures import draw
from benchmarks.measure import ChildError, seconds_in_turn, spread, use_threads
from benchmarks.peers.workload import input_maxima, measure_layer
from benchmarks.startup import until_output
from benchmarks.workload import RESNET20, cp_prune
from benchmarks.workload import network as small_network
from threadpoolctl import threadpool_info, threadpool_limits

import bitline
from benchmarks import kernel, memory, network
from bitline.crossbar.encoding import encode
from reference import matmul as reference_matmul


def test_cp_prune_by_hand() -> None:
    w = np.array([[3, -1], [-5, 2], [4, -128 + 1], [1, 0]], np.int8)
    np.testing.assert_array_equal(cp_prune(w, 1, rows=2), [[0, 0], [-5, 2], [4, -127], [0, 0]])


@pytest.mark.parametrize("adc_bits", [3, 9])
def test_the_plain_torch_baseline_is_the_reference(adc_bits: int) -> None:
    hw = bitline.load_hardware("tinyadc", adc_bits=adc_bits, rows=16)
    rng = np.random.default_rng(1)
    x, w = rng.integers(0, 256, (3, 40), dtype=np.uint8), rng.integers(-127, 128, (40, 2), dtype=np.int32)
    levels = torch.from_numpy(encode(w, hw).levels.astype(np.float32))
    y, saturations = kernel.plain_torch(torch.from_numpy(x), levels, hw, adc_bits)
    expected = reference_matmul(x, w, hw, adc_bits)
    np.testing.assert_array_equal(y.numpy(), expected.y)
    assert saturations == expected.saturations
    assert (saturations > 0) == (adc_bits == 3)
    signed = x.view(np.int8)
    y, saturations = kernel.plain_torch(torch.from_numpy(signed), levels, hw, adc_bits, signed_inputs=True)
    expected = reference_matmul(signed.astype(np.int64), w, hw, adc_bits, signed_inputs=True)
    np.testing.assert_array_equal(y.numpy(), expected.y)
    assert saturations == expected.saturations


def test_spread() -> None:
    assert spread([3.0, 1.0, 2.0]) == {"median": 2.0, "least": 1.0, "largest": 3.0, "repeats": 3}


def test_works_in_turn_are_each_measured_as_often() -> None:
    calls: list[str] = []
    found = seconds_in_turn([lambda: calls.append("a"), lambda: calls.append("b")], 3)
    assert calls == ["a", "b"] * 3
    assert [one["repeats"] for one in found] == [3, 3]


def test_threads_are_those_of_numpys_products_too() -> None:
    before = numba.get_num_threads(), torch.get_num_threads()
    with threadpool_limits():  # put back what there was
        use_threads(1)
        assert {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"} == {1}
    numba.set_num_threads(before[0])
    torch.set_num_threads(before[1])


def test_each_is_reported_at_its_own_best_batch_size(monkeypatch: pytest.MonkeyPatch) -> None:
    medians = iter([2.0, 1.0, 4.0])

    def in_turn(works: list[Any], repeats: int) -> list[dict[str, float]]:
        return [spread([next(medians)] * repeats) | {"process": 8.0} for _ in works]

    monkeypatch.setattr(network, "seconds_in_turn", in_turn)
    works = dict.fromkeys([("ours", 16), ("ours", 32), ("theirs", 16)], lambda: None)
    found = network._rates(works, images=64, repeats=3)
    assert (found["ours"]["batch"], found["ours"]["median"], found["ours"]["images_per_s"]) == (32, 1.0, 64.0)
    assert found["ours"]["images_per_s_by_batch"] == {"16": 32.0, "32": 64.0}
    assert found["ours"]["images_per_processor_s"] == 8.0
    assert (found["theirs"]["batch"], found["theirs"]["images_per_s"]) == (16, 16.0)


def test_the_tuned_network_is_the_network() -> None:
    module, images = small_network(RESNET20, 2)
    tuned = network.tuned(module)
    assert not [part for part in tuned.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        torch.testing.assert_close(tuned(images), module(images), rtol=1e-3, atol=1e-4)


def test_a_network_is_measured_by_every_means(monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    monkeypatch.setattr(network, "thread_counts", lambda: [1])
    found = network.one_network(RESNET20, quick=True)
    for engine in ("bitserial", "certified", "exact", "torch float32", "torch float32 tuned"):
        assert found[f"{engine}, 1 threads"]["images_per_s_by_batch"].keys() == {"1", "2"}
    assert found["plain torch, 1 threads"]["images"] == 1
    fewer = found[network.BELOW]
    assert list(fewer) == ["7", "6", "5"]
    assert all(point["certified_bits"] == 8 for point in fewer.values())
    counts = [
        {name: point[f"{engine}, 1 threads"][name] for name in ("conversions", "saturations")}
        for engine in ("bitserial", "certified")
        for point in fewer.values()
    ]
    assert counts[:3] == counts[3:]
    assert counts[2]["saturations"] > counts[1]["saturations"] > 0


def test_peak_memory_is_this_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_: "VmPeak:\t 9000 kB\nVmHWM:\t    3072 kB\nVmRSS:\t 1024 kB\n")
    assert memory.peak_mib() == 3.0


def test_a_peers_result_is_compared_with_the_exact_product() -> None:
    x, w = np.array([[255, 1]], np.uint8), np.array([[127], [-3]], np.int8)  # 255 * 127 - 3 = 32382
    found = measure_layer(lambda: torch.tensor([[32379.5]]), x, w, quick=True)
    assert found["largest difference from the exact product"] == 2.5


def test_input_maxima_name_the_layers_that_crossbars_hold() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False), torch.nn.ReLU(), torch.nn.Linear(2, 1))
    network[0].weight.data = torch.tensor([[2.0, 0.0], [0.0, -1.0]])
    assert input_maxima(network, torch.tensor([[0.5, 3.0], [1.5, 1.0]])) == {"0": 3.0, "2": 3.0}


def test_a_command_that_fails_is_no_measurement() -> None:
    with pytest.raises(ChildError, match="out of order"):
        until_output(["-c", "import sys; print(); print('out of order', file=sys.stderr); sys.exit(3)"])


def test_figures_of_the_sections_that_were_run(tmp_path: Path) -> None:
    seconds = {"median": 2.0, "least": 1.0, "largest": 3.0}
    point: dict[str, Any] = {"words_per_conversion": 4, "full_adders": 16}
    for name in ("bitserial", "certified", "bitserial by population counts", "plain torch"):
        point[f"{name}, 1 threads"] = seconds | {"conversions": 100}
    phases = {"prepare": 1.0, "simulated": 2.0, "integer": 3.0, "float": 4.0}
    engines = {
        f"{name}, {n} threads": seconds | {"images_per_s": 4.0} for name in ("bitserial", "certified") for n in (1, 2)
    }
    results = {
        "kernel": {
            COUNT_BOUND: {"conversions_per_s_and_core": 1e9},
            ADDER_BOUND: {"full_adders_per_s_and_core": 1e9},
            "sweep": {"CP rate": {"1": point, "2": point}},
            kernel.BELOW: {"6": {"certified_bits": 7} | point, "5": {"certified_bits": 7} | point},
        },
        "network": {"ResNet-20": {"images": 8} | engines},
        "scaling": {"images": {"1": engines, "8": engines}, "depth": {"20": {"macs_per_image": 10**6} | engines}},
        "memory": {"imports alone": {"peak_mib": seconds}},
        "startup": {"bitline --help": seconds},
        "pruning": {},
        "dataset": {"bitserial": {"images": 8, "phases": phases}, "certified": {"images": 8, "phases": phases}},
    }
    paths = draw({"results": results}, tmp_path / "figures")
    sections = ("kernel", "network", "scaling", "memory", "startup", "below", "dataset")
    assert [path.name for path in paths] == [f"{section}.png" for section in sections]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
