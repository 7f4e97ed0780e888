"""Run images through a converted network and its float original, and count: accuracy, identity, conversions."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from bitline.errors import ConversionError, DataError
from bitline.layers import Operation
from bitline.network.conversion import CrossbarNetwork, NetworkEngine

__all__ = ["Evaluation", "Images", "batch_size_for", "evaluate", "fit", "ranks"]

_BATCH_ELEMENTS = 1 << 20
_LEAST_BATCH, _MAX_BATCH = 8, 256


class Images(Protocol):
    """A split of a data set, as far as evaluation needs it."""

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """Class of every image, or None."""

    def images(self, start: int, stop: int) -> torch.Tensor:
        """Normalised images start..stop-1."""

    def __len__(self) -> int: ...


@dataclass
class Evaluation:
    """Counts over the images run so far; accuracies are fractions, None without labels."""

    images: int = 0
    outputs: int = 0
    correct: dict[tuple[str, int], int] = field(default_factory=dict)
    """(``float`` | ``integer`` | ``simulated``, 1 or 5) -> images whose label is among the first 1 or 5."""
    labelled: bool = False
    differing_images: int = 0
    """Images for which any simulated output differs from the exact integer network's, in any bit."""
    seconds: dict[str, float] = field(default_factory=lambda: {"float": 0.0, "integer": 0.0, "simulated": 0.0})

    def accuracy(self, which: str, top: int) -> float | None:
        """Fraction of the images whose label is among the first ``top`` outputs."""
        if not self.labelled or not self.images or self.outputs < top:
            return None
        return self.correct.get((which, top), 0) / self.images


def batch_size_for(graph: list[Operation]) -> int:
    """Images of a batch: one feature map of all is 4 MiB of float32 at most, or that of 8 images.

    Larger batches are slower: their feature maps leave the cache, and the allocator gives them back to the system after
    every layer.
    """
    largest = max((int(np.prod(operation.output_shape)) for operation in graph), default=1)
    return max(_LEAST_BATCH, min(_MAX_BATCH, _BATCH_ELEMENTS // max(1, largest)))


def ranks(outputs: torch.Tensor, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Position of each label among the outputs [shape=(B, classes)], 0 the largest; equal outputs rank by index."""
    values = outputs.numpy()
    mine = values[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(values.shape[1])[None, :] < labels[:, None]
    return np.asarray(((values > mine) | ((values == mine) & earlier)).sum(axis=1), np.int64)


def fit(
    module: Callable[[torch.Tensor], torch.Tensor], split: Images, offset: int, batch_size: int
) -> tuple[float, float] | None:
    """Top-1 accuracy and mean cross-entropy of a float network over a whole split; None without labels."""
    if split.labels is None:
        return None
    hits, loss = 0, 0.0
    for start in range(0, len(split), batch_size):
        stop = min(len(split), start + batch_size)
        labels = split.labels[start:stop] + offset
        x = split.images(start, stop)
        with torch.no_grad():
            scores = _logits(module(x), stop - start)
        if not bool(torch.isfinite(scores).all()):
            return 0.0, math.inf  # inputs far from those the network was trained on
        _check_labels(labels, scores.shape[1])
        hits += int((ranks(scores, labels) == 0).sum())
        loss += float(torch.nn.functional.cross_entropy(scores, torch.from_numpy(labels), reduction="sum"))
    return hits / len(split), loss / len(split) if math.isfinite(loss) else math.inf


def _check_labels(labels: NDArray[np.int64], outputs: int) -> None:
    if labels.size and int(labels.max()) >= outputs:
        raise DataError(
            f"data: label {int(labels.max())} is beyond the network's {outputs} outputs; "
            "the data set and the checkpoint do not belong together"
        )


def _logits(outputs: object, images: int) -> torch.Tensor:
    if not isinstance(outputs, torch.Tensor) or outputs.dim() != 2 or outputs.shape[0] != images:
        found = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs).__name__
        raise ConversionError(
            f"network: expected one vector of class scores an image, found {found} for {images} images"
        )
    return outputs


def evaluate(
    network: CrossbarNetwork,
    split: Images,
    *,
    images: int,
    batch_size: int,
    engine: NetworkEngine | str,
    label_offset: int = 0,
    histogram_images: int = 0,
    trace_vectors: int = 0,
    advance: Callable[[int], None] = lambda _: None,
) -> Evaluation:
    """Run the first ``images`` of a split through the float, the exact integer and the simulated network.

    Memory does not grow with the number of images. Counters, histograms and traces stay in ``network``.

    Parameters
    ----------
    network : CrossbarNetwork
    split : Images
    images, batch_size : int
    engine : {"bitserial", "certified"}
        What simulates.
    label_offset : int
        Added to the labels (1 for networks whose class 0 is the background).
    histogram_images : int
        Images whose column sums are counted by value (``bitserial`` only).
    trace_vectors : int
        Input vectors of each layer to record.
    advance : callable
        Called with the number of images done since the last call.

    Raises
    ------
    ConversionError
        The network does not return one vector of scores an image.
    DataError
        Labels beyond the network's outputs.
    """
    result = Evaluation(labelled=split.labels is not None)
    network.reset_counters()
    for start in range(0, images, batch_size):
        stop = min(images, start + batch_size)
        # a batch is cut where the histogram ends, so that the counted images do not depend on the batch size
        cuts = [start, histogram_images, stop] if start < histogram_images < stop else [start, stop]
        for low, high in itertools.pairwise(cuts):
            x = split.images(low, high)
            network.record_histograms(low < histogram_images)
            network.engine = NetworkEngine(engine)
            network.record_traces(trace_vectors)
            scores = {"simulated": _timed(result, "simulated", network, x)}
            network.record_traces(0)  # the exact network sees the same codes again
            network.engine = NetworkEngine.EXACT
            scores["integer"] = _timed(result, "integer", network, x)
            scores["float"] = _timed(result, "float", network.float_forward, x)
            result.images += high - low
            result.outputs = scores["simulated"].shape[1]
            same = (scores["simulated"] == scores["integer"]).all(dim=1)
            result.differing_images += int((~same).sum())
            if split.labels is not None:
                labels = split.labels[low:high] + label_offset
                _check_labels(labels, result.outputs)
                for which, values in scores.items():
                    places = ranks(values, labels)
                    for top in (1, 5):
                        key = (which, top)
                        result.correct[key] = result.correct.get(key, 0) + int((places < top).sum())
            advance(high - low)
    network.engine = NetworkEngine(engine)
    return result


def _timed(result: Evaluation, which: str, forward: Callable[[torch.Tensor], object], x: torch.Tensor) -> torch.Tensor:
    started = time.perf_counter()
    with torch.no_grad():
        outputs = _logits(forward(x.clone()), x.shape[0])
    result.seconds[which] += time.perf_counter() - started
    if not bool(torch.isfinite(outputs).all()):
        raise ConversionError(f"network: its {which} outputs hold NaN or infinity, expected finite class scores")
    return outputs
