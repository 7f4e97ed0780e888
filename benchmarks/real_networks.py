"""Real checkpoints on their whole test sets: the page docs/results/real_networks.md.

    python -m benchmarks.real_networks SHARED_DATA --work DIR --out docs/results/real_networks.md

runs ``bitline simulate`` on each network (reports are kept in DIR and not made again) and certifies over CP rates.
SHARED_DATA holds the checkpoints and data sets of its MANIFEST.md. About ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from bitline.certification import cp_table
from bitline.report.progress import progress_on
from bitline.simulation import simulate, verify

# name, checkpoint, data, architecture, top-1 and top-5 the manifest measured
NETWORKS = (
    ("ResNet-20", "cifar10/resnet20-12fca82f.th", "cifar10:{}/cifar10", None, (0.9173, 0.9966)),
    (
        "ResNet-20, input channels zeroed",
        "cifar10/distiller_resnet20_channels_zeroed.pth.tar",
        "cifar10:{}/cifar10",
        None,
        (0.9081, 0.9977),
    ),
    (
        "ResNet-20, channels removed (odd counts)",
        "cifar10/distiller_resnet20_channels_thinned_finetuned.pth",
        "cifar10:{}/cifar10",
        None,
        (0.9154, 0.9973),
    ),
    (
        "SqueezeNet 1.0, Deep Compression",
        "imagenet/squeezenet1_0_deepcompression.pth",
        "imagefolder:{}/imagenet",
        "squeezenet1_0_caffe",
        (0.610, 0.814),
    ),
)
RATES = (1, 2, 4, 8, 16, 32)


def _report(shared: Path, work: Path, entry: tuple[Any, ...]) -> dict[str, Any]:
    name, checkpoint, data, arch, _ = entry
    folder = work / Path(checkpoint).name
    if not (folder / "report.json").exists():
        print(f"running {name} ...", file=sys.stderr)
        simulate(
            shared / "checkpoints" / checkpoint,
            "tinyadc",
            data.format(shared),
            arch=arch,
            out=folder,
            command=f"bitline simulate {Path(checkpoint).name}",
            progress=progress_on(sys.stderr),
        )
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    verify(report)
    return report


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"


def _networks_table(entries: list[tuple[Any, dict[str, Any]]]) -> list[str]:
    lines = [
        "| network | images | float top-1 / top-5 (manifest) | 8-bit integer | simulated | identical, bit for bit | "
        "proven bits (Eq. (1), paper) | conversions | saturations | simulated images/s | conversions/s |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (name, _, _, _, manifest), report in entries:
        a, bits, timing = report["accuracy"], report["certificate"]["adc_bits"], report["timing"]
        pairs = {
            which: f"{_percent(a[f'{which}_top1'])} / {_percent(a[f'{which}_top5'])}"
            for which in ("float", "integer", "simulated")
        }
        lines.append(
            f"| {name} | {a['images']:,} | {pairs['float']} ({_percent(manifest[0])} / {_percent(manifest[1])}) | "
            f"{pairs['integer']} | {pairs['simulated']} | {'yes' if a['identical_to_integer'] else 'NO'} | "
            f"{bits['weight_aware']} ({bits['equation']}, {bits['paper']}) | "
            f"{sum(layer['conversions'] for layer in report['layers']):,} | "
            f"{sum(layer['saturations'] for layer in report['layers'])} | {timing['images_per_s']:.0f} | "
            f"{timing['conversions_per_s']:.2e} |"
        )
    machine = entries[0][1]["timing"]["machine"]
    threads = entries[0][1]["timing"]["threads"]
    lines += [
        "",
        f"Machine: {machine['processor']}, {threads} threads, {machine.get('instructions', '')}; Bitline "
        f"{entries[0][1]['provenance']['version']}, torch {machine.get('torch')}, numba {machine.get('numba')}. Speeds "
        "are those of these runs, beside whatever else the machine was doing; `python -m benchmarks` measures speed.",
        "",
        *(f"- {name}: {report['notes'][0]}" for (name, *_), report in entries),
    ]
    return lines


def _cp_lines(name: str, rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        f"### {name}",
        "",
        "| CP rate | non-zeros l | equation | paper | proven (weight-aware) | by slice, 0 least significant | "
        "layers where the paper's count is not lossless |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        short = row["paper_not_lossless"]
        lines.append(
            f"| {row['cp_rate']} | {row['nonzeros_max']} | {row['equation']} | {row['paper']} | "
            f"{row['weight_aware']} | {' '.join(map(str, row['weight_aware_per_slice']))} | "
            f"{len(short)} of {row['layers']}{': ' + ', '.join(short) if short else ''} |"
        )
    first = rows[0]["first_layer"]
    exempt = f"The exempt first layer, {first['name']}, needs {first['weight_aware']} bits at every rate."
    return [*lines, "", exempt, ""]


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real_networks")
    parser.add_argument("shared", type=Path, help="folder with checkpoints/ and the data sets")
    parser.add_argument("--work", type=Path, required=True, help="folder that keeps the reports")
    parser.add_argument("--out", type=Path, required=True, help="Markdown page to write")
    args = parser.parse_args()
    entries = [(entry, _report(args.shared, args.work, entry)) for entry in NETWORKS]
    text = [
        "# Real networks on their whole test sets",
        "",
        "Made by `python -m benchmarks.real_networks`. Hardware `tinyadc`: 128 rows, 2-bit cells, 1-bit DACs, 8-bit "
        "numbers, differential encoding, each layer's ADC at the smallest proven resolution; every conversion "
        "performed and counted.",
        "",
        *_networks_table(entries),
        "",
        "## Certificates over CP rates",
        "",
        "`bitline certify CHECKPOINT --cp-rates 1,2,4,8,16,32`: one-shot projection of every layer but the first, no "
        "retraining, no data. Bits are the largest over the projected layers.",
        "",
    ]
    for name, checkpoint, _, arch, _ in (NETWORKS[0], NETWORKS[3]):
        text += _cp_lines(name, cp_table(args.shared / "checkpoints" / checkpoint, "tinyadc", rates=RATES, arch=arch))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text("\n".join(text).rstrip() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
