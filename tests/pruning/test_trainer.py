"""Training, and retraining with zeros held, on tiny networks and made-up images."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from bitline.data import Normalisation
from bitline.errors import BitlineError, DataError
from bitline.pruning.constraints import ColumnProportional, violations
from bitline.pruning.layers import prunable_layers
from bitline.pruning.solvers import HeldZeros
from bitline.pruning.training import EpochRecord, Trainer, TrainingPlan, _shifted, top1

PLAN = TrainingPlan(epochs=3, learning_rate=0.1, batch_size=16, shift=1, label_smoothing=0.05, seed=3)


pytestmark = pytest.mark.usefixtures("one_thread")


def _net(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, 6, 3, padding=1),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Flatten(),
            nn.Linear(6 * 16, 2),
        )


def _images(count: int = 65) -> tuple[torch.Tensor, torch.Tensor]:
    """Images whose class is which half is bright; 65 leaves a single image after four batches of 16."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(count) % 2
    images = torch.rand(count, 1, 4, 4, generator=generator)
    images[labels == 0, :, :2] += 1
    images[labels == 1, :, 2:] += 1
    return images, labels


def test_training_learns_and_reports() -> None:
    net, (images, labels) = _net(), _images()
    seen: list[EpochRecord] = []
    records = Trainer(net, images, labels, TrainingPlan(epochs=8, learning_rate=0.1, batch_size=16)).run(seen.append)
    assert seen == records
    assert [record.epoch for record in records] == list(range(1, 9))
    assert records[-1].loss < records[0].loss / 2
    assert top1(net, images, labels) > 0.95
    assert not net.training
    assert records[-1].learning_rate == pytest.approx(0, abs=1e-12)
    # Half-way along half a cosine the rate is half of what it was.
    assert records[3].learning_rate == pytest.approx(0.05)


def test_the_same_seed_gives_the_same_weights_and_leaves_torch_alone() -> None:
    images, labels = _images()
    before = torch.random.get_rng_state()
    first, second, other = _net(), _net(), _net()
    Trainer(first, images, labels, PLAN).run()
    torch.rand(5)  # what else is drawn must not matter
    state = torch.random.get_rng_state()
    Trainer(second, images, labels, PLAN).run()
    assert torch.equal(torch.random.get_rng_state(), state)
    Trainer(other, images, labels, PLAN.model_copy(update={"seed": 4})).run()
    torch.random.set_rng_state(before)
    for key, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[key]), key
    assert not torch.equal(first[0].weight, other[0].weight)


def test_the_networks_own_draws_start_from_the_seed() -> None:
    seeds: list[int] = []
    Trainer(_net(), *_images(), PLAN).run(lambda record: seeds.append(torch.initial_seed()))
    assert seeds == [PLAN.seed] * 3


def test_the_loss_by_hand() -> None:
    # Outputs are 1.5 and -0.5 for each of three images of class 0 and one of class 1: p = 1 / (1 + e^-2), q = 1 - p.
    net = nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
    with torch.no_grad():
        net[1].weight.zero_()
        net[1].bias.copy_(torch.tensor([1.5, -0.5]))
    plan = TrainingPlan(epochs=1, learning_rate=1e-12, batch_size=2, label_smoothing=0.2)
    (record,) = Trainer(net, torch.zeros(4, 1, 1, 2), torch.tensor([0, 0, 1, 0]), plan).run()
    p = 1 / (1 + math.exp(-2))
    right, wrong = (-(0.9 * math.log(a) + 0.1 * math.log(1 - a)) for a in (p, 1 - p))
    assert record.loss == pytest.approx((3 * right + wrong) / 4, rel=1e-5)
    assert record.accuracy == 0.75


def test_a_last_single_image_waits_for_another_epoch() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2), nn.BatchNorm1d(2))  # refuses a batch of one
    images, labels = _images(17)
    assert len(Trainer(net, images, labels, PLAN).run()) == 3
    assert int(net[2].num_batches_tracked) == 3
    Trainer(net, images[:16], labels[:16], PLAN.model_copy(update={"batch_size": 6})).run()
    assert int(net[2].num_batches_tracked) == 3 + 3 * 3  # 6, 6 and 4 images


def test_zeros_stay_exactly_zero_and_the_rest_learns() -> None:
    net, (images, labels) = _net(), _images()
    layers = prunable_layers(net)
    constraint = ColumnProportional(4, rows=16)
    dense = [layer.module.weight.detach().clone() for layer in layers]
    stem = net[0].weight.detach().clone()
    Trainer(net, images, labels, PLAN, HeldZeros(layers, [constraint] * len(layers))).run()
    assert violations(layers, constraint) == 0
    for layer, weight in zip(layers, dense, strict=True):
        pattern = constraint.project(weight) != 0
        now = layer.module.weight.detach()
        assert torch.equal(now != 0, pattern)
        assert not torch.signbit(now[~pattern]).any()
        assert not torch.equal(now[pattern], weight[pattern])
    assert not torch.equal(net[0].weight, stem)
    assert int((net[0].weight == 0).sum()) == 0


def test_without_the_mask_zeros_would_not_stay() -> None:
    net, (images, labels) = _net(), _images()
    layers = prunable_layers(net)
    with torch.no_grad():
        layers[0].module.weight[0] = 0
    assert int((layers[0].module.weight == 0).sum()) == 4 * 9
    Trainer(net, images, labels, PLAN).run()
    assert int((layers[0].module.weight == 0).sum()) == 0


def test_a_loss_that_diverges_stops_and_keeps_the_last_good_weights() -> None:
    net, (images, labels) = _net(), _images()
    kept: list[dict[str, torch.Tensor]] = []

    def progress(record: EpochRecord) -> None:
        kept.append({key: tensor.clone() for key, tensor in net.state_dict().items()})
        if record.epoch == 2:
            images[7] = torch.nan

    with pytest.raises(BitlineError, match=r"not finite in epoch 3 of 5 .*; the weights of epoch 2 are kept"):
        Trainer(net, images, labels, TrainingPlan(epochs=5, learning_rate=0.01, batch_size=16)).run(progress)
    assert len(kept) == 2
    for key, tensor in net.state_dict().items():
        assert torch.equal(tensor, kept[1][key]), key
    assert not net.training


def test_shifts_move_whole_images_and_repeat_edges() -> None:
    image = torch.arange(9.0).reshape(1, 1, 3, 3)
    images = image.expand(200, 2, 3, 3)
    shifted = _shifted(images, 1, torch.Generator().manual_seed(0))
    assert shifted.shape == images.shape
    up = [[3.0, 4, 5], [6, 7, 8], [6, 7, 8]]
    down_right = [[0.0, 0, 1], [0, 0, 1], [3, 3, 4]]
    found = {tuple(map(tuple, one[0].tolist())) for one in shifted}
    assert len(found) == 9
    assert tuple(map(tuple, up)) in found
    assert tuple(map(tuple, down_right)) in found
    assert torch.equal(shifted[:, 0], shifted[:, 1])
    assert torch.equal(_shifted(images, 0, torch.Generator()), images)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(4, 1, 4, 4), torch.zeros(3, dtype=torch.int64), "found 4 and 3"),
        (torch.zeros(1, 1, 4, 4), torch.zeros(1, dtype=torch.int64), "found 1 and 1"),
        (torch.zeros(4, 16), torch.zeros(4, dtype=torch.int64), r"found \(4, 16\)"),
        (torch.zeros(4, 1, 4, 4), torch.full((4,), 2), r"expected classes 0\.\.1.*found 2\.\.2"),
        (torch.zeros(4, 1, 4, 4), torch.full((4,), -1), r"found -1\.\.-1"),
    ],
)
def test_data_that_do_not_fit(images: torch.Tensor, labels: torch.Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Trainer(_net(), images, labels, PLAN).run()


@pytest.mark.parametrize("plan", [PLAN, PLAN.model_copy(update={"shift": 0, "flip": True})])
def test_bytes_normalised_in_batches_train_the_same_network(plan: TrainingPlan) -> None:
    images, labels = _images()
    stored = (images * 100).to(torch.uint8)
    normalisation = Normalisation(name="custom", mean=(0.4914,), std=(0.2023,), scale="unit")

    def normalise(values: torch.Tensor) -> torch.Tensor:
        return normalisation.apply(values.to(torch.float32), 255.0)

    whole, batched = _net(), _net()
    Trainer(whole, normalise(stored), labels, plan).run()
    Trainer(batched, stored, labels, plan, normalise=normalise).run()
    for key, tensor in whole.state_dict().items():
        assert torch.equal(tensor, batched.state_dict()[key]), key


def test_top1_by_hand() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        net[1].weight.copy_(torch.eye(2))
    images = torch.tensor([[1.0, 0], [0, 1], [2, 1], [0, 3]]).reshape(4, 1, 1, 2)
    assert top1(net, images, torch.tensor([0, 1, 1, 1]), batch_size=3) == 0.75
    assert net.training
    with pytest.raises(DataError, match="found 0 and 0"):
        top1(net, images[:0], torch.zeros(0))


@pytest.mark.parametrize(
    "fields",
    [
        {"epochs": 0},
        {"learning_rate": 0},
        {"learning_rate": float("nan")},
        {"momentum": 1.0},
        {"batch": 3},
        {"shift": -1},
    ],
)
def test_impossible_plans_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TrainingPlan.model_validate({"epochs": 1, "learning_rate": 0.1, **fields})
