"""The section on CIFAR-10's test images, without running a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import bitline
from benchmarks import dataset
from bitline.errors import DataError, RangeError


def _folder(tmp_path: Path) -> Path:
    (tmp_path / dataset.IMAGES).mkdir()
    (tmp_path / dataset.CHECKPOINT).parent.mkdir(parents=True)
    (tmp_path / dataset.CHECKPOINT).touch()
    return tmp_path


def _report(saturations: int) -> dict[str, Any]:
    layer = {"name": "conv", "lossless": False, "conversions": 50, "saturations": saturations}
    accuracy = {"images": 5, "float_top1": 0.8, "integer_top1": 0.8, "simulated_top1": 0.6}
    phases = {"prepare": 1.0, "simulated": 2.0, "integer": 3.0, "float": 4.0}
    return {
        "layers": [layer, layer],
        "accuracy": accuracy | {"identical_to_integer": False},
        "certificate": {"lossless": False},
        "timing": {"phases": phases},
    }


def test_both_engines_run_the_same_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def simulate(checkpoint: Path, hw: str, data: str, **how: Any) -> dict[str, Any]:
        calls.append((checkpoint, hw, data, how))
        return _report(saturations=3)

    monkeypatch.setattr(bitline, "simulate", simulate)
    found = dataset.run(_folder(tmp_path), images=5)
    where = (tmp_path / dataset.CHECKPOINT, "tinyadc", f"cifar10:{tmp_path / 'cifar10'}")
    assert calls == [(*where, {"engine": engine, "images": 5}) for engine in ("bitserial", "certified")]
    for run in found.values():
        assert (run["images"], run["conversions"], run["saturations"]) == (5, 100, 6)
        assert (run["images_per_s"], run["simulated_top1"], run["identical_to_integer"]) == (2.5, 0.6, False)


def test_engines_that_disagree_are_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bitline, "simulate", lambda *_, engine, **__: _report(3 if engine == "certified" else 2))
    with pytest.raises(AssertionError, match="the engines give other saturations"):
        dataset.run(_folder(tmp_path), images=5)


@pytest.mark.parametrize("images", [0, 10_001])
def test_images_there_are(images: int, tmp_path: Path) -> None:
    with pytest.raises(RangeError, match=f"--dataset-images {images}: expected 1 to 10000"):
        dataset.check(_folder(tmp_path), images)


@pytest.mark.parametrize("missing", [dataset.CHECKPOINT, dataset.IMAGES])
def test_a_folder_without_the_data(missing: Path, tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    (folder / missing).rename(folder / "elsewhere")
    with pytest.raises(DataError, match=f"expected a folder with {missing}"):
        dataset.check(folder)
