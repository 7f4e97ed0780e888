"""The goal table of issue 5, filled from one document: work, the best elsewhere, the goal, ours, and the ratios."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.kernel import BOUND, DENSE, PRUNED
from benchmarks.workload import RESNET18, RESNET20

__all__ = ["goals", "table"]

LAYER_TEXT = "layer (1024, 1152) x (1152, 256)"


def goals(document: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a measured goal; what the document has not is left out.

    Keys: ``work``, ``unit`` (``s``: less is better; otherwise more is), ``ours``, ``goal``, ``reached``, and by name
    ``elsewhere``: what else the same run measured for that work.
    """
    results = document["results"]
    threads = document["threads"]
    rows = []

    def add(work: str, unit: str, ours: float | None, goal: float | None, elsewhere: dict[str, float | None]) -> None:
        seen = {name: value for name, value in elsewhere.items() if value is not None}
        if ours is None:
            return
        if goal is None:
            reached = None
        else:
            reached = ours <= goal if unit in ("s", "GiB") else ours >= goal
        rows.append({"work": work, "unit": unit, "ours": ours, "goal": goal, "reached": reached, "elsewhere": seen})

    dense, pruned = (_at(results, "kernel", name, default={}) for name in (DENSE, PRUNED))
    bare = _at(results, "kernel", "bare products", default={})
    add(
        f"{LAYER_TEXT}, dense, every conversion, 1 thread",
        "s",
        _at(dense, "bitserial, 1 threads", "median"),
        0.05,
        {"plain torch": _at(dense, "plain torch, 1 threads", "median")} | _peer_layers(results, "dense"),
    )
    bound = _at(results, "kernel", BOUND, "conversions_per_s_and_core")
    rate = _at(dense, "bitserial, 1 threads", "conversions_per_s_and_core")
    if bound and rate:
        counts = _at(dense, "bitserial by population counts, 1 threads", "conversions_per_s_and_core")
        by_counts = {"ours, by population counts": 100 * counts / bound}
        add("the same, of the population-count bound", "%", 100 * rate / bound, 60.0, by_counts)
    add(
        "the same at CP rate 16, ADC as certified",
        "s",
        _at(pruned, "bitserial, 1 threads", "median"),
        0.02,
        {"plain torch": _at(pruned, "plain torch, 1 threads", "median")} | _peer_layers(results, "CP rate 16"),
    )
    bare_products = {
        "bare float32 GEMM": _at(bare, "float32 GEMM, 1 threads", "median"),
        "bare torch._int_mm": _at(bare, "torch._int_mm, 1 threads", "median"),
    }
    for name, layer in (("dense", dense), ("at CP rate 16", pruned)):
        ours = _at(layer, "certified, 1 threads", "median")
        add(f"the same {name}, certified engine", "s", ours, 0.004, bare_products)
    resnet20 = _at(results, "network", RESNET20.name, default={})
    float32 = _at(resnet20, f"torch float32, {threads} threads", "images_per_s")
    at = f"{threads} threads"
    add(
        f"ResNet-20 at CIFAR size, every conversion, {at}",
        "images/s",
        _at(resnet20, f"bitserial, {at}", "images_per_s"),
        250.0,
        _peer_networks(results, at) | {"torch float32": float32},
    )
    add(
        f"the same, certified engine, {at}",
        "images/s",
        _at(resnet20, f"certified, {at}", "images_per_s"),
        float32,
        {"torch float32": float32},
    )
    resnet18 = _at(results, "network", RESNET18.name, default={})
    add(
        f"ResNet-18 at 224x224, every conversion, {at}",
        "images/s",
        _at(resnet18, f"bitserial, {at}", "images_per_s"),
        5.0,
        {"torch float32": _at(resnet18, f"torch float32, {at}", "images_per_s")},
    )
    peak = max(
        (case["peak_mib"]["median"] for name, case in _cases(results, "memory", RESNET18.name, "bitserial")),
        default=None,
    )
    add("the same, peak resident memory", "GiB", None if peak is None else peak / 1024, 2.0, {})
    for name, goal in (("bitline --help", 0.3), ("bitline simulate --images 64, first output", 5.0)):
        add(name, "s", _at(results, "startup", name, "median"), goal, {})
    return rows


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Lines of Markdown; a ratio above 1 says how many times better ours is."""
    lines = ["| work | elsewhere, in the same run | goal | ours | ours against each |", "|---|---|---|---|---|"]
    for row in rows:
        unit, ours = row["unit"], row["ours"]
        names = row["elsewhere"].items()
        less = unit in ("s", "GiB")
        ratios = "; ".join(f"{name} {_digits(value / ours if less else ours / value)}x" for name, value in names)
        seen = "; ".join(f"{name} {_digits(value)} {unit}" for name, value in names)
        mark = {True: "", False: " (not reached)", None: ""}[row["reached"]]
        goal = "-" if row["goal"] is None else f"{_digits(row['goal'])} {unit}"
        lines.append(f"| {row['work']} | {seen or '-'} | {goal} | {_digits(ours)} {unit}{mark} | {ratios or '-'} |")
    return lines


def _digits(value: float) -> str:
    """Three significant digits, no exponent."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}" if value >= 0.001 else f"{value:.6f}"


def _at(results: Any, *path: str, default: Any = None) -> Any:
    """The value at a path of names, or ``default``."""
    for name in path:
        if not isinstance(results, dict) or name not in results:
            return default
        results = results[name]
    return results


def _cases(results: dict[str, Any], section: str, *words: str) -> list[tuple[str, dict[str, Any]]]:
    """Named measurements of a section whose names hold all these words."""
    found = _at(results, section, default={}).items()
    return [(name, value) for name, value in found if all(word in name for word in words)]


def _peer_layers(results: dict[str, Any], layer: str) -> dict[str, float | None]:
    """Seconds of each peer's fastest configuration, as shipped and, where there is one, patched."""
    cases = {
        "CrossSim as shipped": ("crosssim", f"layer {layer}", "as shipped"),
        "CrossSim patched": ("crosssim", f"layer {layer}", "patched"),
        "NeuroSim 1.5": ("neurosim", f"layer {layer}"),
    }
    return {
        name: min((_at(case, "1 threads", "median") for _, case in _cases(results, *words)), default=None)
        for name, words in cases.items()
    }


def _peer_networks(results: dict[str, Any], threads: str) -> dict[str, float | None]:
    cases = {
        "CrossSim as shipped": ("crosssim", "ResNet-20", "as shipped"),
        "CrossSim patched": ("crosssim", "ResNet-20", "patched"),
        "NeuroSim 1.5": ("neurosim", "ResNet-20"),
    }
    return {
        name: max((_at(case, threads, "images_per_s") for _, case in _cases(results, *words)), default=None)
        for name, words in cases.items()
    }
