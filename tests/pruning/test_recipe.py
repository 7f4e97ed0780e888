"""Recipes: read from YAML, refused in one line where something is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bitline.errors import ConfigError
from bitline.pruning.recipe import load_recipe

GOOD = """
architecture: resnet20_b
start: dense
pruning: {rate: 16}
training: {epochs: 2, learning_rate: 0.1}
"""


def _write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


def test_defaults_are_written_out(tmp_path: Path) -> None:
    recipe = load_recipe(_write(tmp_path, GOOD))
    fields = json.loads(recipe.canonical())
    assert fields["data"] == "digits"
    assert fields["pruning"] == {
        "method": "cp",
        "rate": 16.0,
        "rows": 128,
        "exempt_first": True,
        "exempt": [],
        "solver": "oneshot",
    }
    assert fields["training"]["momentum"] == 0.9
    assert recipe.pruning is not None
    assert recipe.pruning.constraint().nonzeros == 8
    again = _write(tmp_path, recipe.canonical())  # JSON is YAML
    assert load_recipe(again) == recipe


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("rate: 16", "rate: 0.5"), r"pruning\.rate: .*greater than or equal to 1"),
        (("rate: 16", "rate: 129"), r"pruning: rate must be at most rows: 128, got 129"),
        (("rate: 16", "rate: 16, speed: 1"), r"pruning\.speed: unknown key"),
        (("rate: 16", "rate: 16, method: magic"), r"pruning\.method: "),
        (("epochs: 2", "epochs: two"), r"training\.epochs: "),
        (("training:", "trainnig:"), r"trainnig: unknown key"),
        (("start: dense", "start: [dense"), r"not valid YAML"),
        (("start: dense", "start: \x00"), r"not valid YAML"),
        ((GOOD, "- a list"), r"expected a mapping of fields, got list"),
    ],
)
def test_wrong_recipes(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_recipe(_write(tmp_path, GOOD.replace(*change)))
    assert "\n" not in str(caught.value)
    assert "recipe.yaml" in str(caught.value)


def test_missing_recipe(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_recipe(tmp_path / "none.yaml")
