"""The page of a benchmark document: every section's figures are those of the document, and the stored page its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks.goals import goals, table
from benchmarks.page import page

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(name="document", scope="module")
def _document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "docs" / "results" / "performance.json").read_text())
    return found


def test_the_stored_page_is_that_of_its_document(document: dict[str, Any]) -> None:
    assert (ROOT / "docs" / "results" / "performance.md").read_text() == page(document)


def test_the_table_of_goals_is_that_of_the_document(document: dict[str, Any]) -> None:
    assert goals(document) == document["goals"]
    assert "\n".join(table(document["goals"])) in (ROOT / "docs" / "performance.md").read_text()


def test_sections_that_were_not_run_are_left_out(document: dict[str, Any]) -> None:
    some = document | {"results": {"startup": {"bitline --help": {"median": 0.05, "least": 0.04, "largest": 0.0625}}}}
    text = page(some)
    assert "| bitline --help | 0.05 (0.04 to 0.0625) |" in text
    assert [line for line in text.splitlines() if line.startswith("## ")] == ["## Goals", "## Start-up"]
