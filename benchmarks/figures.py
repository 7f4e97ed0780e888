"""Figures of a benchmark document, as PNG files; a section that was not run has none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.bounds import ADDER_BOUND, COUNT_BOUND, WORDS
from benchmarks.kernel import BELOW as LAYER_BELOW
from benchmarks.network import BELOW as NETWORK_BELOW
from benchmarks.network import FLOAT, TUNED
from benchmarks.workload import RESNET20
from bitline.report.figure_style import BLUE, DARK, GREEN, GREY, ORANGE, SKY, VERMILLION, WIDTH_IN, render, style

__all__ = ["draw"]

_MEANS = {
    "bitserial": (BLUE, "o"),
    "bitserial by population counts": (SKY, "s"),
    "certified": (GREEN, "^"),
    "plain torch": (ORANGE, "v"),
}
_ENGINES = {"bitserial": BLUE, "certified": GREEN, "exact": SKY, FLOAT: GREY, TUNED: DARK}


_PHASES = (
    ("prepare", "load, calibrate, certify, price", GREY),
    ("simulated", "crossbars", BLUE),
    ("integer", "exact integer network", SKY),
    ("float", "torch float32", ORANGE),
)
"""Of a simulation's report: the phase, what it is called and its colour."""


def draw(document: dict[str, Any], folder: Path) -> list[Path]:
    """Write one figure a section into ``folder``, which is made where it is missing; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    results = dict(document["results"])
    if below := _fewer_bits(results):
        results["below"] = below
    drawings: dict[str, Callable[[dict[str, Any]], Figure]] = {
        "kernel": _kernel,
        "network": _network,
        "scaling": _scaling,
        "memory": _memory,
        "startup": _startup,
        "below": _below,
        "dataset": _dataset,
    }
    for section, drawing in drawings.items():
        if section in results:
            with style():
                figure = drawing(results[section])
            path = folder / f"{section}.png"
            path.write_bytes(render(figure, "png"))
            paths.append(path)
    return paths


def _figure(height: float) -> Figure:
    return Figure(figsize=(WIDTH_IN, height), layout="constrained")


def _error(axis: Axes, xs: Sequence[float], values: list[tuple[float, float, float]], **how: Any) -> None:
    """A line through medians with bars from the least to the largest."""
    medians = [median for median, _, _ in values]
    below = [median - low for median, low, _ in values]
    above = [high - median for median, _, high in values]
    axis.errorbar(xs, medians, yerr=[below, above], capsize=2, linewidth=1, markersize=3.5, **how)


def _rate(measured: dict[str, float], work: float) -> tuple[float, float, float]:
    """Work a second: median, least, largest."""
    return work / measured["median"], work / measured["largest"], work / measured["least"]


def _kernel(results: dict[str, Any]) -> Figure:
    """Conversions a second by one thread over each parameter, with the bounds of both kernels."""
    counts = results[COUNT_BOUND]["conversions_per_s_and_core"] * WORDS
    adders = results[ADDER_BOUND]["full_adders_per_s_and_core"]
    figure = _figure(4.6)
    for axis, (over, points) in zip(figure.subplots(2, 2).flat, results["sweep"].items(), strict=False):
        xs = range(len(points))
        for name, (colour, marker) in _MEANS.items():
            values = [_rate(m := point[f"{name}, 1 threads"], m["conversions"]) for point in points.values()]
            _error(axis, xs, values, color=colour, marker=marker, label=name)
        limits = [counts / point["words_per_conversion"] for point in points.values()]
        axis.plot(xs, limits, color=DARK, linestyle="--", linewidth=1, label="population-count bound")
        # every means of a point converts the same, but the baseline, which runs fewer vectors
        conversions = [point["bitserial, 1 threads"]["conversions"] for point in points.values()]
        limits = [adders * n / point["full_adders"] for n, point in zip(conversions, points.values(), strict=True)]
        axis.plot(xs, limits, color=DARK, linestyle=":", linewidth=1, label="full-adder bound")
        axis.set_yscale("log")
        axis.set_xticks(list(xs), list(points))
        axis.set_xlabel(over)
        axis.set_ylabel("conversions/s, one thread")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def _network(results: dict[str, Any]) -> Figure:
    """Images a second by network, engine and threads; bars from the slowest to the fastest run."""
    figure = _figure(3.2)
    axes = figure.subplots(1, len(results), squeeze=False)[0]
    for axis, (name, measured) in zip(axes, results.items(), strict=True):
        bars = list(_bars(measured))
        for place, (_, colour, seconds) in enumerate(bars):
            rate, low, high = _rate(seconds, measured["images"])
            axis.bar(place, rate, color=colour)
            axis.errorbar(place, rate, yerr=[[rate - low], [high - rate]], color=DARK, capsize=2, linewidth=0.8)
            axis.annotate(
                f"{rate:.0f}" if rate >= 100 else f"{rate:.3g}", (place, high), ha="center", va="bottom", fontsize=6
            )
        axis.set_xticks(range(len(bars)), [label for label, _, _ in bars], rotation=60, ha="right")
        axis.set_title(name)
        axis.margins(y=0.12)
    axes[0].set_ylabel("images/s")
    return figure


def _bars(measured: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, float]]]:
    for name, value in measured.items():
        engine, _, threads = name.rpartition(", ")
        if engine in _ENGINES:
            yield f"{engine}, {threads.split()[0]}T", _ENGINES[engine], value


def _fewer_bits(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By title what was measured with fewer ADC bits than are certified, by ADC bits."""
    found = {
        "layer (1024, 1152) x (1152, 256)": results.get("kernel", {}).get(LAYER_BELOW),
        RESNET20.name: results.get("network", {}).get(RESNET20.name, {}).get(NETWORK_BELOW),
    }
    return {title: points for title, points in found.items() if points}


def _below(results: dict[str, dict[str, Any]]) -> Figure:
    """Conversions a second of both engines over ADC bits below the certified resolution."""
    figure = _figure(2.4)
    for axis, (title, points) in zip(figure.subplots(1, len(results), squeeze=False)[0], results.items(), strict=True):
        for name in [name for name in next(iter(points.values())) if ", " in name]:
            values = [_rate(point[name], point[name]["conversions"]) for point in points.values()]
            colour, marker = _MEANS[name.rpartition(", ")[0]]
            _error(axis, [int(bits) for bits in points], values, color=colour, marker=marker, label=name)
        axis.set_xticks([int(bits) for bits in points])
        axis.set_ylim(0, 1.15 * axis.get_ylim()[1])
        axis.set_xlabel(f"ADC bits ({next(iter(points.values()))['certified_bits']} certified)")
        axis.set_title(title)
        axis.legend()
    figure.axes[0].set_ylabel("conversions/s")
    return figure


def _dataset(results: dict[str, Any]) -> Figure:
    """Seconds of the test images, by engine and by what they went through."""
    figure = _figure(0.9 + 0.3 * len(results))
    axis = figure.subplots()
    start = [0.0] * len(results)
    for phase, label, colour in _PHASES:
        seconds = [run["phases"][phase] for run in results.values()]
        axis.barh(range(len(results)), seconds, left=start, color=colour, label=label)
        start = [before + more for before, more in zip(start, seconds, strict=True)]
    axis.set_yticks(range(len(results)), list(results))
    axis.invert_yaxis()
    axis.set_xlabel(f"seconds, {max(run['images'] for run in results.values()):,} images")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=len(_PHASES))
    return figure


def _scaling(results: dict[str, Any]) -> Figure:
    """Images a second over the images of a call; seconds an image over depth, with the work."""
    figure = _figure(2.8)
    by_images, by_depth = figure.subplots(1, 2)
    names = list(next(iter(results["images"].values())))
    for name in names:
        engine, threads = name.rpartition(", ")[::2]
        how = {
            "color": _ENGINES[engine],
            "marker": "o" if threads.startswith("1 ") else "s",
            "linestyle": "--" if threads.startswith("1 ") else "-",
            "label": name,
        }
        points = {int(count): point for count, point in results["images"].items()}
        _error(by_images, list(points), [_rate(point[name], count) for count, point in points.items()], **how)
        depths = results["depth"].values()
        macs = [point["macs_per_image"] / 1e6 for point in depths]
        _error(by_depth, macs, [_milliseconds(point[name]) for point in depths], **how)
    by_images.set_xscale("log")
    by_images.set_xticks([int(count) for count in results["images"]], list(results["images"]))
    by_images.minorticks_off()
    by_images.set_xlabel("images in one call, ResNet-20")
    by_images.set_ylabel("images/s")
    by_depth.set_xlabel(f"million MACs an image (ResNet-{', '.join(results['depth'])})")
    by_depth.set_ylabel("ms an image")
    for axis in (by_images, by_depth):
        axis.set_ylim(bottom=0)
    figure.legend(*by_images.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def _milliseconds(measured: dict[str, float]) -> tuple[float, float, float]:
    """Milliseconds an image: median, least, largest."""
    factor = 1000 / (measured["images_per_s"] * measured["median"])
    return measured["median"] * factor, measured["least"] * factor, measured["largest"] * factor


def _memory(results: dict[str, Any]) -> Figure:
    """Peak resident memory by case."""
    peaks = {name: case["peak_mib"]["median"] for name, case in results.items()}
    return _horizontal(peaks, "peak resident memory (MiB)", BLUE)


def _startup(results: dict[str, Any]) -> Figure:
    """Seconds from the start of a process, by command."""
    return _horizontal({name: seconds["median"] for name, seconds in results.items()}, "seconds", VERMILLION)


def _horizontal(values: dict[str, float], label: str, colour: str) -> Figure:
    figure = _figure(0.6 + 0.22 * len(values))
    axis = figure.subplots()
    bars = axis.barh(range(len(values)), list(values.values()), color=colour)
    axis.bar_label(bars, fmt="{:.3g}", fontsize=6, padding=2)
    axis.set_yticks(range(len(values)), list(values))
    axis.invert_yaxis()
    axis.set_xlabel(label)
    return figure
