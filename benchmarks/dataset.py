"""The 10,000 CIFAR-10 test images through a trained ResNet-20 by ``bitline.simulate``, bit-serially and certified.

Both by all threads, as a user runs them: each also runs the float and the exact integer network on every image, and
compares. Nothing is repeated: it takes a minute or two, and a run of so many images is steady. Needs a folder with the
checkpoint and the images (``--shared``); ``real_networks`` makes a page of the same folder's networks.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import bitline
from bitline.errors import DataError, RangeError
from bitline.simulation import verify

CHECKPOINT, IMAGES = Path("checkpoints") / "cifar10" / "resnet20-12fca82f.th", Path("cifar10")
COUNT = 10_000
QUICK: Mapping[str, Any] = {"images": 8, "calibration_images": 4, "calibrator": "max", "histogram_images": 1}
_SAME = ("images", "conversions", "saturations", "float_top1", "integer_top1", "simulated_top1", "identical_to_integer")


def check(shared: Path, images: int = COUNT) -> None:
    """Make sure that ``shared`` holds the checkpoint and the images, before anything is run.

    Raises
    ------
    RangeError
        More images than there are, or none.
    DataError
        It does not hold them.
    """
    if not 1 <= images <= COUNT:
        raise RangeError(f"--dataset-images {images}: expected 1 to {COUNT}")
    for path in (CHECKPOINT, IMAGES):
        if not (shared / path).exists():
            raise DataError(f"--shared {shared}: expected a folder with {path}")


def run(shared: Path, images: int = COUNT, quick: bool = False) -> dict[str, Any]:
    """Seconds, accuracy and counts by engine; what does not depend on the engine must be the same.

    Raises
    ------
    VerificationError
        A run whose outputs differ from the exact integer network's without a saturation.
    """
    results = {}
    for engine in ("bitserial", "certified"):
        print(f"    {engine} ...", file=sys.stderr, flush=True)
        results[engine] = _one(shared, engine, QUICK if quick else {"images": images})
    for key in _SAME:
        assert results["bitserial"][key] == results["certified"][key], f"the engines give other {key}"
    return results


def _one(shared: Path, engine: str, sizes: Mapping[str, Any]) -> dict[str, Any]:
    started = time.perf_counter()
    report = bitline.simulate(shared / CHECKPOINT, "tinyadc", f"cifar10:{shared / IMAGES}", engine=engine, **sizes)
    seconds = time.perf_counter() - started
    verify(report)
    accuracy, phases = report["accuracy"], report["timing"]["phases"]
    return {
        "images": accuracy["images"],
        "seconds": seconds,
        "phases": phases,
        "images_per_s": accuracy["images"] / phases["simulated"],
        **{key: accuracy[key] for key in _SAME[3:]},
        **{key: sum(layer[key] for layer in report["layers"]) for key in ("conversions", "saturations")},
    }
