"""What prepares a run: images are read once, whatever is tried on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from bitline import preparation
from bitline.data import open_dataset
from bitline.data.dataset import Split
from bitline.errors import ArchitectureError, DataError
from bitline.network.architectures import build_architecture
from bitline.network.evaluation import fit
from bitline.preparation import Prepared, prepare
from bitline.pruner import prune
from bitline.simulation import simulate

OUTPUTS = 10


@pytest.fixture
def pixels_are_scores(tmp_path: Path) -> Path:
    """A network of one linear layer whose output k is pixel k of a 4 x 4 image."""
    path = tmp_path / "net.safetensors"
    save_file({"fc1.weight": 6 * torch.eye(OUTPUTS, 16)}, path, metadata={"normalisation": "unit"})
    return path


def images_of(labels: list[int], shift: int = 0) -> np.ndarray[Any, Any]:
    """White at pixel ``label + shift``, black elsewhere."""
    images = np.zeros((len(labels), 16), np.uint8)
    images[np.arange(len(labels)), np.array(labels) + shift] = 255
    return images.reshape(-1, 1, 4, 4)


def npz(folder: Path, labels: list[int], shift: int = 0, **more: Any) -> str:
    np.savez(folder / "set.npz", x=images_of(labels, shift), y=labels, **more)
    return f"npz:{folder / 'set.npz'}"


def top1(prepared: Prepared) -> float:
    found = fit(prepared.network.module, prepared.dataset.test, prepared.label_offset, 8)
    assert found is not None
    return found[0]


# --- numbers of classes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", range(OUTPUTS))
def test_a_class_that_the_data_lack_shifts_no_label(pixels_are_scores: Path, tmp_path: Path, missing: int) -> None:
    """Nine of ten classes, whichever one is missing: label n is output n, and a note says so where it is in doubt."""
    labels = [n for n in range(OUTPUTS) if n != missing]
    prepared = prepare(pixels_are_scores, npz(tmp_path, labels))
    assert (prepared.label_offset, top1(prepared)) == (0, 1.0)
    assert "class numbers: by the file's labels" in prepared.notes
    doubt = [note for note in prepared.notes if "9 classes, 10 outputs: numbers 0..8 assumed" in note]
    assert bool(doubt) == (missing == OUTPUTS - 1)
    assert all("--label-offset 1" in note for note in doubt)


def test_nine_class_folders_shift_no_label(pixels_are_scores: Path, tmp_path: Path) -> None:
    weights = torch.zeros(OUTPUTS, 3 * 16)
    weights[:, :16] = 6 * torch.eye(OUTPUTS, 16)
    save_file({"fc1.weight": weights}, pixels_are_scores, metadata={"normalisation": "unit"})
    for label in range(9):
        (tmp_path / "set" / f"class_{label}").mkdir(parents=True)
        Image.fromarray(images_of([label])[0, 0]).save(tmp_path / "set" / f"class_{label}" / "1.png")
    prepared = prepare(pixels_are_scores, f"imagefolder:{tmp_path / 'set'}", resize=4, crop=4)
    assert (prepared.label_offset, top1(prepared)) == (0, 1.0)
    assert "class numbers: class folders in sorted order" in prepared.notes
    assert any("numbers 0..8 assumed; classes.csv can say otherwise" in note for note in prepared.notes)


def test_the_offset_is_the_user_s_or_the_architecture_s(pixels_are_scores: Path, tmp_path: Path) -> None:
    data = npz(tmp_path, list(range(9)), shift=1)
    given = prepare(pixels_are_scores, data, label_offset=1)
    assert (given.label_offset, top1(given)) == (1, 1.0)
    assert "label n is output n + 1 (given)" in given.notes
    assert top1(prepare(pixels_are_scores, data)) == 0.0
    down = prepare(pixels_are_scores, npz(tmp_path, [3, 10], shift=-1), label_offset=-1)
    assert (down.label_offset, top1(down)) == (-1, 1.0)
    # TensorFlow's MobileNet has 1001 outputs, background first; one retrained for 2 classes has no background.
    assert build_architecture("mobilenet_v1_025_128").label_offset == 1
    assert build_architecture("mobilenet_v1_025_128", classes=2).label_offset == 0


@pytest.mark.parametrize(
    ("labels", "offset", "match"),
    [
        ([0, 9], 1, r"has 10 classes \(label offset \+1, given\), the network mlp has 10 outputs"),
        ([0, 10], None, "has 11 classes, the network mlp has 10 outputs"),
        ([0, 9], -1, r"label 0 has no output \(label offset -1, given\)"),
    ],
)
def test_labels_without_an_output(
    pixels_are_scores: Path, tmp_path: Path, labels: list[int], offset: int | None, match: str
) -> None:
    with pytest.raises(DataError, match=match):
        prepare(pixels_are_scores, npz(tmp_path, labels), label_offset=offset)


def test_outputs_of_a_users_own_module_are_counted(
    pixels_are_scores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is run: one label beyond them may be the last of thousands."""
    (tmp_path / "own_scores.py").write_text(
        "from torch import nn\n\nclass Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.fc1 = nn.Linear(16, 10, bias=False)\n\n    def forward(self, x):\n"
        "        return self.fc1(x.flatten(1))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(preparation, "fit", None)
    with pytest.raises(DataError, match="has 11 classes, the network own_scores:Net has 10 outputs"):
        prepare(pixels_are_scores, npz(tmp_path, [0, 10]), arch="own_scores:Net")


# --- what fits best ---------------------------------------------------------------------------------------------------


def measured(monkeypatch: pytest.MonkeyPatch, table: dict[Any, tuple[float, float]], key: Any) -> None:
    """Let the comparison find these accuracies and cross-entropies."""

    def found(module: Any, split: Any, offset: int, batch: int) -> tuple[float, float]:
        return table.get(key(split), (0.1, 2.3))

    monkeypatch.setattr(preparation, "fit", found)


@pytest.mark.parametrize(
    ("losses", "best", "tie"),
    [((0.150, 0.152), "cifar10", True), ((0.152, 0.150), "cifar100", True), ((0.150, 0.170), "cifar10", False)],
)
def test_the_lower_loss_wins_and_a_near_tie_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, losses: tuple[float, float], best: str, tie: bool
) -> None:
    """Accuracies are equal; 0.150 to 0.152 is a factor of 1.013, 0.150 to 0.170 one of 1.13."""
    save_file({"fc1.weight": torch.ones(3, 48)}, tmp_path / "net.safetensors")
    np.savez(tmp_path / "set.npz", x=np.zeros((6, 3, 4, 4), np.uint8), y=[0, 1, 2, 0, 1, 2])
    table = {"cifar10": (0.953, losses[0]), "cifar100": (0.953, losses[1])}
    measured(monkeypatch, table, lambda split: split._split._normalisation.name)
    prepared = prepare(tmp_path / "net.safetensors", f"npz:{tmp_path / 'set.npz'}")
    assert prepared.dataset.normalisation.name == best
    assert prepared.normalisation_source.startswith("least cross-entropy of the float network on 6 of the test"[:35])
    other = "cifar100" if best == "cifar10" else "cifar10"
    said = f"normalisation {best} is a near tie with {other}; --normalisation settles it"
    assert (said in prepared.notes) == tie


@pytest.mark.parametrize(
    ("values", "full_scale", "twins"),
    [(np.float32([0, 1]), 1.0, "none unit"), (np.uint8([0, 255]), 255.0, "unit none")],
)
def test_presets_of_equal_numbers_are_one(tmp_path: Path, values: Any, full_scale: float, twins: str) -> None:
    """Of floats 0..1, "as stored" and "a share of white" are the same, and no near tie of each other; of bytes, "as
    stored" is the preset ``byte``."""
    np.savez(tmp_path / "set.npz", x=values.reshape(2, 1, 1, 1), y=[0, 1])
    dataset = open_dataset(f"npz:{tmp_path / 'set.npz'}")
    assert dataset.full_scale == full_scale
    names = list(preparation._presets(dataset))
    kept, left_out = twins.split()
    assert kept in names
    assert left_out not in names
    assert {"byte", "half", "mnist"} <= set(names)
    # White is 1 and 127 / 128 = 0.992 of half and tf, a distance of 0.004 of the range -1 .. 1.
    assert "tf" not in names


@pytest.mark.parametrize(("torchvision", "caffe"), [(2.0, 1.0), (1.0, 2.0)])
def test_of_two_architectures_with_the_same_weights_the_better_one_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torchvision: float, caffe: float
) -> None:
    network = build_architecture("squeezenet1_0", classes=2)
    save_file(network.module.state_dict(), tmp_path / "net.safetensors")
    for name in "ab":
        (tmp_path / "set" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "set" / name / "1.png")
    table = {224: (0.5, torchvision), 227: (0.5, caffe)}
    measured(monkeypatch, table, lambda split: split._stored.shape[-1])
    prepared = prepare(tmp_path / "net.safetensors", f"imagefolder:{tmp_path / 'set'}")
    best = ("squeezenet1_0", 224, "imagenet") if torchvision < caffe else ("squeezenet1_0_caffe", 227, "caffe")
    found = prepared.network.architecture, prepared.dataset.image_shape[1], prepared.dataset.normalisation.name
    assert found == best
    second = "squeezenet1_0_caffe" if best[1] == 224 else "squeezenet1_0"
    said = f"these weights fit {best[0]} and {second}; taken for the first, which has the lower cross-entropy"
    assert any(note.startswith(said) for note in prepared.notes)
    assert not any("taken for torchvision's" in note for note in prepared.notes)
    with pytest.raises(ArchitectureError, match=r"fit squeezenet1_0 and squeezenet1_0_caffe, .* name one with --arch"):
        prune(tmp_path / "net.safetensors", out=tmp_path / "out.safetensors", data="digits", rate=2)
    named = prepare(tmp_path / "net.safetensors", f"imagefolder:{tmp_path / 'set'}", arch="squeezenet1_0")
    assert (named.network.architecture, named.dataset.image_shape[1]) == ("squeezenet1_0", 224)


# --- what is cheap comes first ----------------------------------------------------------------------------------------


def test_pruning_without_training_images_is_refused_before_anything_runs(
    pixels_are_scores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "fit", None)
    words = (
        "has no labelled training images; a training split here is arrays x_train and y_train beside x_test and y_test"
    )
    with pytest.raises(DataError, match=words):
        prune(
            pixels_are_scores, out=tmp_path / "out.safetensors", data=npz(tmp_path, [0, 9]), rate=2, exempt_first=False
        )


def test_calibration_images_are_counted_and_too_many_are_noted(pixels_are_scores: Path, tmp_path: Path) -> None:
    report = simulate(pixels_are_scores, data=npz(tmp_path, [*range(10)] * 4), calibration_images=1_000_000_000)
    assert report["data"]["calibration_images"] == 40
    said = "calibration images: 1000000000 asked for, all 40 of the test images (there is no training split) used"
    assert said in report["notes"]
    assert report["accuracy"]["simulated_top1"] == 1.0


def test_presets_are_compared_on_images_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    pixels = Split.pixels

    def counted(self: Split, start: int, stop: int) -> Any:
        read.append(stop - start)
        return pixels(self, start, stop)

    monkeypatch.setattr(Split, "pixels", counted)
    prepared = prepare("digits_resnet20_dense", None)
    assert read == [300]
    monkeypatch.undo()
    chosen = prepared.dataset.normalisation.name
    again = prepare("digits_resnet20_dense", prepared.dataset.spec, normalisation=chosen)
    assert again.dataset.normalisation.name == chosen
