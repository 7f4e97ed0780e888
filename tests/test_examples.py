"""Every example runs, prints, and stays short."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("[0-9]*.py"))


def test_there_are_eight_and_a_page_that_lists_them() -> None:
    assert len(EXAMPLES) == 8
    page = (EXAMPLES[0].parent / "README.md").read_text("utf-8")
    assert [f"`{path.name}`" in page for path in EXAMPLES] == [True] * 8


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_runs(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= 40
    runpy.run_path(str(path), run_name="__main__")
    assert len(capsys.readouterr().out.splitlines()) >= 2


def test_the_readme_defines_what_it_uses() -> None:
    readme = (EXAMPLES[0].parents[1] / "README.md").read_text("utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    names: dict[str, Any] = {}
    exec(block, names)
    assert names["out"].y.shape == (4, 16)
    assert names["report"]["accuracy"]["images"] == 20
    assert isinstance(names["net"](names["images"]), names["torch"].Tensor)
