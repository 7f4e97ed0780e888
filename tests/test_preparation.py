"""What prepares a run: images are read once, whatever is tried on them."""

from __future__ import annotations

from typing import Any

import pytest

from bitline.data.dataset import Split
from bitline.preparation import prepare


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
