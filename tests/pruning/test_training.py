"""Training goes on from a saved state exactly as if it had not stopped: after any step, for every solver."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bitline.pruning.admm import AdmmPlan
from bitline.pruning.constraints import ColumnProportional
from bitline.pruning.layers import prunable_layers
from bitline.pruning.solvers import Solver, plan_phases
from bitline.pruning.state import read_state, state_bytes
from bitline.pruning.training import Phase, Stopped, Trainer, TrainingPlan, _flipped

pytestmark = pytest.mark.usefixtures("one_thread")


def _network(seed: int = 0) -> nn.Module:
    """With batch norm and dropout: both have a state of their own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(64, 8),
            nn.ReLU(),
            nn.Linear(8, 2),
        )


def _data() -> tuple[Tensor, Tensor]:
    images = torch.rand(50, 1, 6, 6, generator=torch.Generator().manual_seed(3))
    labels = torch.arange(50) % 2
    images[labels == 1, :, 3:] += 0.5
    return images, labels


PLAN = TrainingPlan(epochs=4, learning_rate=0.1, batch_size=8, shift=1, flip=True, seed=5)


def _trainer(solver: Solver, number: int) -> Trainer:
    net = _network()
    layers = prunable_layers(net, exempt_first=False)

    def eased(share: float) -> list[ColumnProportional]:
        return [ColumnProportional(1 / (1 - 0.75 * share), 8)] * len(layers)

    plan = PLAN.model_copy(update={"epochs": 8 if solver is not Solver.ONESHOT else 4})
    phases = plan_phases(solver, layers, eased, plan, admm=AdmmPlan(rho=0.1, rho_growth=2, update_steps=3))
    return Trainer(net, *_data(), phases[number].plan, phases[number].begin())


@pytest.mark.parametrize("solver", list(Solver))
@pytest.mark.parametrize("stop_after", [1, 5, 6, 8, 13, 20])
def test_stopped_after_any_step_it_goes_on_exactly(solver: Solver, stop_after: int, tmp_path) -> None:
    whole = _trainer(solver, 0)
    whole.run()

    stopped, steps = _trainer(solver, 0), 0

    def stop() -> bool:
        nonlocal steps
        steps += 1
        return steps >= stop_after

    file = tmp_path / "state"
    with pytest.raises(Stopped):
        stopped.run(save=lambda: file.write_bytes(state_bytes(stopped.state_dict())), stop=stop)
    torch.manual_seed(999)  # whatever the process did in between
    torch.rand(3)
    resumed = _trainer(solver, 0)
    resumed.load_state_dict(read_state(file))
    resumed.run()
    assert [r.epoch for r in resumed.records] == [1, 2, 3, 4]
    for key, tensor in whole.module.state_dict().items():
        assert torch.equal(tensor, resumed.module.state_dict()[key]), key
    for old, new in zip(whole.records, resumed.records, strict=True):
        assert (old.loss, old.accuracy, old.learning_rate) == (new.loss, new.accuracy, new.learning_rate)


def test_every_part_of_the_state_matters(tmp_path) -> None:
    """Leave one part out, and the weights differ: the test above would notice."""
    whole = _trainer(Solver.ADMM, 0)
    whole.run()
    stopped, steps = _trainer(Solver.ADMM, 0), 0

    def stop() -> bool:
        nonlocal steps
        steps += 1
        return steps >= 9  # within the second epoch

    states: list[bytes] = []
    with pytest.raises(Stopped):
        stopped.run(save=lambda: states.append(state_bytes(stopped.state_dict())), stop=stop)
    for part in ("module", "optimiser", "schedule", "phase", "generator", "random", "order"):
        file = tmp_path / part
        file.write_bytes(states[-1])
        state = read_state(file)
        resumed = _trainer(Solver.ADMM, 0)
        state[part] = resumed.state_dict()[part]
        resumed.load_state_dict(state)
        resumed.run()
        same = all(torch.equal(t, resumed.module.state_dict()[k]) for k, t in whole.module.state_dict().items())
        assert not same, part


def test_hooks_come_in_order() -> None:
    seen: list[str] = []

    class Recorder(Phase):
        def begin_epoch(self, epoch: int, epochs: int) -> None:
            seen.append(f"begin {epoch}/{epochs}")

        def before_forward(self) -> None:
            seen.append("forward")

        def add_gradients(self) -> None:
            seen.append("gradients")

        def after_step(self) -> None:
            seen.append("step")

        def end_epoch(self, epoch: int) -> None:
            seen.append(f"end {epoch}")

    plan = TrainingPlan(epochs=2, learning_rate=0.1, batch_size=25)
    Trainer(_network(), *_data(), plan, Recorder()).run(lambda record: seen.append("progress"))
    step = ["forward", "gradients", "step"]
    epoch = ["begin {}/2", *step, *step, "end {}", "progress"]
    assert seen == [text.format(number) for number in (1, 2) for text in epoch]


def test_flips_mirror_about_half_of_the_images_and_nothing_else() -> None:
    images = torch.arange(2 * 3 * 4.0).reshape(1, 2, 3, 4).repeat(64, 1, 1, 1)
    seen = _flipped(images, torch.Generator().manual_seed(1))
    mirrored = [bool(torch.equal(image, images[0].flip(2))) for image in seen]
    assert all(flipped or torch.equal(image, images[0]) for image, flipped in zip(seen, mirrored, strict=True))
    assert 16 < sum(mirrored) < 48


@pytest.mark.parametrize(("precision", "seen"), [("auto", torch.float32), ("bfloat16", torch.bfloat16)])
def test_precision_is_of_the_products_only(precision: str, seen: torch.dtype) -> None:
    """On a CPU ``auto`` is float32."""
    net, dtypes = _network(), []
    net[0].register_forward_hook(lambda module, inputs, output: dtypes.append(output.dtype))
    plan = TrainingPlan(epochs=1, learning_rate=0.1, batch_size=8, precision=precision)
    Trainer(net, *_data(), plan).run()
    assert set(dtypes) == {seen}
    assert {parameter.dtype for parameter in net.parameters()} == {torch.float32}
