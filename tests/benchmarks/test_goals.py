"""The table of goals from a document made by hand."""

from __future__ import annotations

from typing import Any

from benchmarks.bounds import ADDER_BOUND, BYTE_BOUND, COUNT_BOUND
from benchmarks.goals import goals, table
from benchmarks.kernel import BARE, BELOW, DENSE, PRUNED
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
            "bounds": {"full_adder_s": 0.01, "byte_product_s": 0.002},
        },
        PRUNED: {"bitserial, 1 threads": _seconds(0.03)},
        BELOW: {
            "6": {
                "certified_bits": 7,
                "certified, 1 threads": _seconds(0.02),
                "bitserial, 1 threads": _seconds(0.04),
            }
        },
        COUNT_BOUND: {"conversions_per_s_and_core": 5e9},
        ADDER_BOUND: {"full_adders_per_s_and_core": 1e9},
        BARE: {
            "float32 GEMM, 1 threads": _seconds(0.006),
            "torch._int_mm, 1 threads": _seconds(0.001),
        },
        BYTE_BOUND: {"macs_per_s_and_core": 5e10},
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
            "full_adders_per_image": 4_000_000,
            "macs_per_image": 50_000_000,
            "bitserial, 2 threads": _rate(300.0),
            "certified, 2 threads": _rate(500.0),
            "torch float32, 2 threads": _rate(1000.0),
            "plain torch, 2 threads": _rate(5.0),
        }
    }
    memory = {
        f"{RESNET18.name}, {n} images, bitserial": {"peak_mib": _seconds(mib)} for n, mib in ((1, 512), (8, 1536))
    }
    run = {
        "images": 10000,
        "seconds": 40.0,
        "phases": {"simulated": 20.0, "integer": 6.0, "float": 5.0},
        "simulated_top1": 0.9174,
        "identical_to_integer": True,
        "saturations": 0,
        "conversions": 3 * 10**11,
    }
    dataset = {"bitserial": run, "certified": run | {"phases": {"simulated": 4.0, "integer": 6.0, "float": 5.0}}}
    results = {"kernel": kernel, "network": network, "memory": memory, "crosssim": crosssim, "dataset": dataset}
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
    others = {"CrossSim as shipped": 3.0, "torch float32": 1000.0, "plain torch, products alone": 5.0}
    assert network["elsewhere"] == others
    assert network["bounds"] == {"full-adder bound": 500.0}  # 1e9 adders a second and core, two cores, 4e6 an image
    certified = rows["ResNet-20 at CIFAR size, certified engine, 2 threads"]
    assert (certified["goal"], certified["reached"]) == (1000.0, False)
    assert certified["bounds"] == {"byte-product bound": 2000.0}  # 5e10 a core, two cores, 5e7 an image
    fewer = rows["the same dense, certified engine, ADC 6 bits (7 certified)"]
    assert (fewer["ours"], fewer["goal"], fewer["elsewhere"]) == (0.02, None, {"ours, bit-serially": 0.04})
    assert rows["ResNet-18 at 224x224, every conversion, peak resident memory"]["ours"] == 1.5  # of the largest case
    images = rows["10,000 CIFAR-10 test images through ResNet-20, every conversion: on crossbars"]
    assert (images["ours"], images["elsewhere"]["torch float32"]) == (20.0, 5.0)
    assert images["note"].startswith("40.0 s in all; top-1 91.74 %, identical to the integer network; 0 of 3e+11 ")
    assert not any("start" in work or "224x224, every conversion, 2" in work for work in rows)  # not run


def test_the_table_says_how_many_times_better_ours_is() -> None:
    lines = table(goals(_document()))
    assert lines[2] == (
        "| layer (1024, 1152) x (1152, 256), dense, every conversion, 1 thread "
        "| plain torch 0.8 s; CrossSim as shipped 1 s; CrossSim patched 0.4 s | 0.05 s | 0.04 s "
        "| plain torch 20x; CrossSim as shipped 25x; CrossSim patched 10x | 25 % (full-adder bound: 0.01 s) |"
    )
    network = next(line for line in lines if "ResNet-20 at CIFAR size" in line)
    assert network.endswith(
        "| 250 images/s | 300 images/s | CrossSim as shipped 100x; torch float32 0.3x; plain torch, products alone 60x "
        "| 60 % (full-adder bound: 500 images/s) |"
    )
    certified = next(line for line in lines if "CIFAR size, certified engine, 2" in line)
    assert certified.split(" | ")[3] == "500 images/s (not reached)"
    assert certified.endswith("| 25 % (byte-product bound: 2000 images/s) |")


def test_an_empty_document_has_no_goals() -> None:
    assert goals({"threads": 2, "results": {}}) == []
