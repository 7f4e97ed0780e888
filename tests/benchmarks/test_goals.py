"""The table of goals from a document made by hand."""

from __future__ import annotations

from typing import Any

from benchmarks.goals import goals, table
from benchmarks.kernel import BOUND, DENSE, PRUNED
from benchmarks.workload import RESNET18, RESNET20


def _seconds(median: float) -> dict[str, float]:
    return {"median": median, "least": median, "largest": median}


def _rate(images_per_s: float) -> dict[str, float]:
    return _seconds(1.0) | {"images_per_s": images_per_s}


def _document() -> dict[str, Any]:
    kernel = {
        DENSE: {
            "bitserial, 1 threads": _seconds(0.04) | {"conversions_per_s_and_core": 4e9},
            "bitserial by population counts, 1 threads": _seconds(0.08) | {"conversions_per_s_and_core": 2e9},
            "plain torch, 1 threads": _seconds(0.8),
            "certified, 1 threads": _seconds(0.008),
        },
        PRUNED: {"bitserial, 1 threads": _seconds(0.03)},
        BOUND: {"conversions_per_s_and_core": 5e9},
        "bare products": {"float32 GEMM, 1 threads": _seconds(0.006)},
    }
    crosssim = {
        "layer dense, digital subtraction, as shipped": {"1 threads": _seconds(1.5)},
        "layer dense, analog subtraction, as shipped": {"1 threads": _seconds(1.0)},
        "layer dense, analog subtraction, patched": {"1 threads": _seconds(0.4)},
        "ResNet-20, digital subtraction, as shipped": {"2 threads": _rate(2.0)},
        "ResNet-20, analog subtraction, as shipped": {"2 threads": _rate(3.0)},
    }
    network = {
        RESNET20.name: {
            "bitserial, 2 threads": _rate(300.0),
            "certified, 2 threads": _rate(500.0),
            "torch float32, 2 threads": _rate(1000.0),
        }
    }
    memory = {
        f"{RESNET18.name}, {n} images, bitserial": {"peak_mib": _seconds(mib)} for n, mib in ((1, 512), (8, 1536))
    }
    results = {"kernel": kernel, "network": network, "memory": memory, "crosssim": crosssim}
    return {"threads": 2, "results": results}


def test_rows_by_hand() -> None:
    rows = {row["work"]: row for row in goals(_document())}
    dense = rows["layer (1024, 1152) x (1152, 256), dense, every conversion, 1 thread"]
    # a peer's best configuration counts, and what was not measured is not there
    assert dense["elsewhere"] == {"plain torch": 0.8, "CrossSim as shipped": 1.0, "CrossSim patched": 0.4}
    assert (dense["ours"], dense["reached"]) == (0.04, True)
    assert rows["the same, of the population-count bound"]["ours"] == 80.0
    assert rows["the same, of the population-count bound"]["elsewhere"] == {"ours, by population counts": 40.0}
    assert rows["the same at CP rate 16, ADC as certified"]["reached"] is False
    network = rows["ResNet-20 at CIFAR size, every conversion, 2 threads"]
    assert network["elsewhere"] == {"CrossSim as shipped": 3.0, "torch float32": 1000.0}
    certified = rows["the same, certified engine, 2 threads"]
    assert (certified["goal"], certified["reached"]) == (1000.0, False)
    assert rows["the same, peak resident memory"]["ours"] == 1.5  # of the largest case
    assert not any("start" in work or "224x224, every" in work for work in rows)  # sections that were not run


def test_the_table_says_how_many_times_better_ours_is() -> None:
    lines = table(goals(_document()))
    assert lines[2] == (
        "| layer (1024, 1152) x (1152, 256), dense, every conversion, 1 thread "
        "| plain torch 0.8 s; CrossSim as shipped 1 s; CrossSim patched 0.4 s | 0.05 s | 0.04 s "
        "| plain torch 20x; CrossSim as shipped 25x; CrossSim patched 10x |"
    )
    network = next(line for line in lines if "ResNet-20 at CIFAR size" in line)
    assert network.endswith("| 250 images/s | 300 images/s | CrossSim as shipped 100x; torch float32 0.3x |")
    assert next(line for line in lines if "certified engine, 2" in line).split(" | ")[3] == "500 images/s (not reached)"


def test_an_empty_document_has_no_goals() -> None:
    assert goals({"threads": 2, "results": {}}) == []
