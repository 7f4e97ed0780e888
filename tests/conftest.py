"""Shared fixtures: where the real data is, and the Hypothesis profiles."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# Started in the background of a shell, or under nohup, this process ignores signals, and so would the commands that
# tests interrupt.
for _number, _handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGTERM, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)

settings.register_profile(
    "default", max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("long", max_examples=3000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets and checkpoints, beside the checkout or named by BITLINE_SHARED_DATA."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("BITLINE_SHARED_DATA", default))
    if not (folder / "MANIFEST.md").is_file():
        pytest.skip(f"needs the shared data folder with MANIFEST.md; none at {folder} (set BITLINE_SHARED_DATA)")
    return folder


@pytest.fixture(autouse=True)
def no_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of progress depend on how busy the machine is: commands within the tests' process say none."""
    from bitline.report import progress

    monkeypatch.setattr(progress, "progress_on", lambda stream=None: progress.NullProgress())


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One torch thread: tiny layers on several mostly wait for each other, for seconds where the machine is busy."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def trained_on_digits(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Trains a network on the digits in 8 x 8, on one thread, and saves it as a checkpoint."""
    import torch

    from bitline.data import open_dataset
    from bitline.pruning.saving import checkpoint_bytes
    from bitline.pruning.training import Trainer, TrainingPlan

    def train(network: torch.nn.Module, **plan: Any) -> Path:
        dataset = open_dataset("digits:8", normalisation="unit")
        assert dataset.train is not None
        assert dataset.train.labels is not None
        images, labels = dataset.train.images(0, len(dataset.train)), torch.from_numpy(dataset.train.labels)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        Trainer(network, images, labels, TrainingPlan(**plan)).run()
        torch.set_num_threads(threads)
        path = tmp_path_factory.mktemp("dense") / "dense.safetensors"
        path.write_bytes(checkpoint_bytes(network.state_dict(), {"normalisation": "unit", "input_shape": "1x8x8"}))
        return path

    return train
