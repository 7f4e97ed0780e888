"""Comparisons, ADC energy and accuracy of every SAR search: the page docs/results/adc_search.md.

    python -m benchmarks.adc_search [SHARED_DATA] --images 100 --out docs/results/adc_search.md

runs the shipped digits networks and, with SHARED_DATA (the folder of checkpoints and data sets of its MANIFEST.md), a
real ResNet-20 on CIFAR-10.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from bitline.conversion_search import search_adc
from bitline.report.progress import progress_on

# what to call it, checkpoint, data, hardware, budgets of the lossy search
DESIGNS = (
    ("digits, unpruned", "digits_resnet20_dense", None, "isaac_8bit", (1e-4, 1e-3)),
    ("digits, unpruned", "digits_resnet20_dense", None, "tinyadc", (1e-4, 1e-3)),
    ("digits, CP rate 16", "digits_resnet20_cp16", None, "tinyadc", (1e-4, 1e-3)),
    ("CIFAR-10 ResNet-20, unpruned", "cifar10/resnet20-12fca82f.th", "cifar10:{}/cifar10", "tinyadc", (1e-4, 1e-3)),
    ("CIFAR-10 ResNet-20, unpruned", "cifar10/resnet20-12fca82f.th", "cifar10:{}/cifar10", "isaac_8bit", (1e-4,)),
)
HEADER = (
    "| network | design | search | comparisons a conversion | comparisons: plain / this | ADC energy, uJ an image | "
    "energy: plain / this | outputs | top-1 (integer network) |\n|---|---|---|---|---|---|---|---|---|"
)
OUTPUTS = {"proven": "identical, proven", "measured": "identical on these images", "lossy": "differ"}


def rows(name: str, report: dict[str, Any], methods: list[str]) -> list[str]:
    """Lines of the table: these searches of one report."""
    lines = []
    for method in methods:
        found = report["methods"][method]
        accuracy = found["accuracy"]
        what = f"{method}, budget {report['budget']:g}" if method == "twin_range_lossy" else method
        lines.append(
            f"| {name} | {report['hardware']} | {what} | {found['comparisons_per_conversion']:.2f} | "
            f"{found['comparison_ratio']:.2f} | {found['energy_pj'] / report['images'] / 1e6:.2f} | "
            f"{found['energy_ratio']:.2f} | {OUTPUTS[found['exactness']]} | "
            f"{100 * accuracy['simulated_top1']:.1f} % ({100 * accuracy['integer_top1']:.1f} %) |"
        )
    return lines


def main(arguments: list[str]) -> None:
    """Run all designs and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shared", nargs="?", type=Path, help="folder of real checkpoints and data sets")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--calibration-images", type=int, default=64)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    lines = []
    for name, checkpoint, data, hardware, budgets in DESIGNS:
        if data is not None and options.shared is None:
            continue
        where = checkpoint if data is None else options.shared / "checkpoints" / checkpoint
        for number, budget in enumerate(budgets):
            print(f"running {name} on {hardware}, budget {budget:g} ...", file=sys.stderr)
            report = search_adc(
                where,
                hardware,
                None if data is None else data.format(options.shared),
                images=options.images,
                calibration_images=options.calibration_images,
                budget=budget,
                progress=progress_on(sys.stderr),
            )
            lines += rows(name, report, ["twin_range_lossy"] if number else list(report["methods"]))
    command = f"python -m benchmarks.adc_search{' SHARED_DATA' if options.shared else ''} --images {options.images}"
    command += f" --calibration-images {options.calibration_images} --out {options.out}"
    text = [
        "# SAR searches, measured",
        "",
        f"Made by `{command}`: {options.images} test images each; plans from {options.calibration_images} training "
        "images. What the searches are: docs/adc_search.md.",
        "",
        HEADER,
        *lines,
        "",
    ]
    options.out.write_text("\n".join(text))


if __name__ == "__main__":
    main(sys.argv[1:])
