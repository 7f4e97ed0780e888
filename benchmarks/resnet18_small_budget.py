"""ResNet-18 on a budget a CPU can pay: a few epochs dense, then CP pruning at 16, 32 and 64, on part of CIFAR-10.

    python -m benchmarks.resnet18_small_budget SHARED_DATA --work DIR --images 10000 --epochs 2

TinyADC prunes a fully trained ResNet-18; this shows only what the same weight matrices need once pruned at its rates,
and what so short a training costs. Everything is kept in DIR; a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bitline.data import open_dataset
from bitline.network.architectures import build_architecture
from bitline.pruner import prune
from bitline.pruning.saving import checkpoint_bytes
from bitline.pruning.training import Trainer, TrainingPlan
from bitline.report.pruning_text import epoch_line
from bitline.simulation import simulate, verify

RATES = (16, 32, 64)
TRAINING = {"batch_size": 64, "learning_rate": 0.05, "shift": 4, "flip": True, "precision": "bfloat16"}


def part(shared: Path, work: Path, images: int) -> str:
    """The first training images and the first 2,000 test images as a data set of their own."""
    path = work / f"cifar10_{images}.npz"
    if not path.exists():
        whole = open_dataset(f"cifar10:{shared / 'cifar10'}")
        assert whole.train is not None
        splits = {"train": (whole.train, images), "test": (whole.test, 2000)}
        arrays = {}
        for name, (split, count) in splits.items():
            real = split.images(0, count) * torch.tensor(whole.normalisation.std).view(1, 3, 1, 1)
            real += torch.tensor(whole.normalisation.mean).view(1, 3, 1, 1)
            arrays[f"x_{name}"] = (real * 255).round().clamp(0, 255).to(torch.uint8).numpy()
            arrays[f"y_{name}"] = np.asarray(split.labels)[:count]
        np.savez(path, **arrays)
    return f"npz:{path}"


def dense(data: str, work: Path, epochs: int) -> Path:
    """A ResNet-18 for 32 x 32 images, trained from random weights."""
    path = work / "dense.safetensors"
    if not path.exists():
        dataset = open_dataset(data, normalisation="cifar10")
        assert dataset.train is not None
        assert dataset.train.labels is not None
        module = build_architecture("resnet18_cifar").module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        module.requires_grad_(True)
        images, labels = dataset.train.images(0, len(dataset.train)), torch.from_numpy(dataset.train.labels)
        trainer = Trainer(module, images, labels, TrainingPlan(epochs=epochs, **TRAINING))  # type: ignore[arg-type]
        trainer.run(lambda epoch: print(f"dense {epoch}", file=sys.stderr, flush=True))
        metadata = {"architecture": "resnet18_cifar", "normalisation": "cifar10", "input_shape": "3x32x32"}
        path.write_bytes(checkpoint_bytes(module.state_dict(), metadata))
    return path


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.resnet18_small_budget")
    parser.add_argument("shared", type=Path, help="folder with the data sets")
    parser.add_argument("--work", type=Path, required=True, help="folder that keeps everything")
    parser.add_argument("--images", type=int, default=10000, help="training images (10000)")
    parser.add_argument("--epochs", type=int, default=2, help="dense, and again for every rate (2)")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    data = part(args.shared, args.work, args.images)
    start = dense(data, args.work, args.epochs)
    rows: list[dict[str, Any]] = []
    for rate in RATES:
        out, kept = args.work / f"cp{rate}.safetensors", args.work / f"cp{rate}.json"
        if not kept.exists():
            report = prune(
                out=out,
                recipe={
                    "start": str(start),
                    "data": data,
                    "normalisation": "cifar10",
                    "pruning": {"method": "cp", "rate": rate, "solver": "oneshot"},
                    "training": {"epochs": args.epochs, **TRAINING},
                },
                resume=True,
                progress=lambda seen: print(epoch_line(vars(seen)), file=sys.stderr, flush=True),
            )
            run = simulate(out, "tinyadc", data, engine="certified", normalisation="cifar10")
            verify(run)
            kept.write_text(json.dumps({"prune": report, "simulate": run}))
        made = json.loads(kept.read_text())
        accuracy, bits = made["simulate"]["accuracy"], made["prune"]["certificate"]["after"]
        rows.append(
            {
                "rate": rate,
                "float_before": made["prune"]["accuracy"]["before"],
                "float_after": accuracy["float_top1"],
                "simulated": accuracy["simulated_top1"],
                "identical": accuracy["identical_to_integer"],
                **bits["pruned"],
                "paper_lossless": bits["paper_lossless"],
            }
        )
    print(json.dumps(rows, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
