"""The MNIST LSTM on crossbars, unpruned and pruned in one shot: the page docs/results/recurrent.md.

    python -m benchmarks.recurrent SHARED_DATA --out docs/results/recurrent.md

SHARED_DATA holds the checkpoints and data sets of its MANIFEST.md. There is no training split of MNIST there, so
nothing is retrained: the rows show what each constraint does to the proof and to the accuracy before any recovery.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from bitline.hardware import load_hardware
from bitline.preparation import load_network
from bitline.pruning.constraints import BlockColumnRow, ColumnProportional, ConstraintSet, project_layers
from bitline.pruning.layers import prunable_layers
from bitline.pruning.saving import checkpoint_bytes
from bitline.simulation import simulate, verify

_CHECKPOINT = "checkpoints/mnist/lstm_mnist.pth"
_METHODS: tuple[tuple[str, ConstraintSet | None], ...] = (
    ("unpruned", None),
    ("CP rate 8, `l` = 16", ColumnProportional(rate=8)),
    ("CP rate 16, `l` = 8", ColumnProportional(rate=16)),
    ("BCR, 8 x 8 blocks, 6 x 6 kept", BlockColumnRow((8, 8), (6, 6))),
    ("BCR, 8 x 8 blocks, 4 x 4 kept", BlockColumnRow((8, 8), (4, 4))),
    ("BCR, 128 x 16 blocks, 64 x 16 kept", BlockColumnRow((128, 16), (64, 16))),
)


def _row(shared: Path, folder: Path, name: str, constraint: ConstraintSet | None) -> dict[str, Any]:
    _, _, network = load_network(shared / _CHECKPOINT)
    if constraint is not None:
        project_layers(prunable_layers(network.module), constraint)
    pruned = folder / "pruned.safetensors"
    pruned.write_bytes(checkpoint_bytes(network.module.state_dict(), {}))
    report = simulate(pruned, "tinyadc", f"mnist:{shared / 'mnist'}", command=name)
    verify(report)
    return report


def page(shared: Path) -> str:
    """Run every row over the whole test set and return the page."""
    hw = load_hardware("tinyadc")
    lines = [
        "# An LSTM on crossbars: MNIST row by row",
        "",
        "Made by `python -m benchmarks.recurrent SHARED_DATA --out docs/results/recurrent.md`: 28 steps of 28",
        f"pixels, an LSTM of 20 outputs and a linear layer, 8 bits, `{hw.name}`; the 10,000 test images, 128 of",
        "which set the activation scales. Pruned in one shot, without retraining (there is no training split); the",
        "first matrix stays dense. Bits are proven, of `weight_ih_l0`, `weight_hh_l0` and `fc`.",
        "",
        "| pruning | non-zeros | bits proven | float top-1 | simulated top-1 | conversions | saturations | crossbars |",
        "|---|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for name, constraint in _METHODS:
            report = _row(shared, Path(folder), name, constraint)
            layers, accuracy = report["layers"], report["accuracy"]
            assert accuracy["identical_to_integer"]
            cells = [
                name,
                f"{sum(layer['nonzeros'] for layer in layers):,}",
                ", ".join(str(layer["adc_bits"]["weight_aware"]) for layer in layers),
                f"{100 * accuracy['float_top1']:.2f} %",
                f"{100 * accuracy['simulated_top1']:.2f} %",
                f"{sum(layer['conversions'] for layer in layers):,}",
                str(sum(layer["saturations"] for layer in layers)),
                str(report["performance"]["crossbars"]),
            ]
            lines.append(f"| {' | '.join(cells)} |")
            if constraint is None:
                performance = report["performance"]
                timing = (
                    f"Unpruned: {performance['images_per_s']:,.0f} sequences a second on the chip, "
                    f"{performance['latency_us']:.1f} us each."
                )
    lines += [
        "",
        "Every simulated output is that of the exact integer network, bit for bit.",
        timing,
        "`weight_hh_l0` has 20 rows: one row tile, so no block of crossbar size is freed there.",
        "",
    ]
    return "\n".join(lines)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recurrent", description=__doc__)
    parser.add_argument("shared", type=Path, metavar="SHARED_DATA")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.write_text(page(args.shared))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
