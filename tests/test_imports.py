"""Imports point one way, and importing stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import bitline

PACKAGE = Path(bitline.__file__).parent
BASE = {"errors", "_version", "paths", "printable", "signals"}
READING = BASE | {"bounds", "input_files", "yaml_files"}
PLAIN = READING | {"hardware", "chip_description", "layers"}
ALLOWED = {
    "errors": set(),
    "_version": set(),
    "paths": set(),
    "printable": set(),
    "signals": set(),
    "terminal": {"errors", "printable"},
    "bounds": BASE,
    "input_files": BASE,
    "yaml_files": BASE,
    "chip_description": READING,
    "hardware": PLAIN,
    "layers": PLAIN,
    "parallel": BASE,
    "crossbar": PLAIN | {"crossbar", "parallel"},
    "chip": PLAIN | {"chip"},
    "network": PLAIN | {"crossbar", "network", "models"},
    "data": PLAIN | {"data"},
    "pruning": PLAIN | {"pruning", "parallel"},
    "report": PLAIN | {"report"},
}
FORBIDDEN = {
    "torch": {"errors", "hardware", "chip_description", "layers", "crossbar", "chip", "report", "cli"},
    "numba": {"errors", "hardware", "chip_description", "layers", "chip", "network", "data", "report"},
    "matplotlib": {
        "errors",
        "hardware",
        "layers",
        "crossbar",
        "chip",
        "network",
        "data",
        "pruning",
        "cli",
        "simulation",
    },
}


def _modules() -> list[tuple[str, Path]]:
    return [
        (path.relative_to(PACKAGE).parts[0].removesuffix(".py"), path)
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.name not in ("__main__.py",) and path != PACKAGE / "__init__.py"
    ]


def _imports(path: Path, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"))
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_every_room_is_known() -> None:
    top = {"activity", "cli", "simulation", "preparation", "certification", "replaying", "reporting"}
    top |= {"pruned_file"}
    top |= {"throughput", "compaction", "published", "pruner", "adc_target", "conversion_search", "comparison"}
    assert {room for room, _ in _modules()} <= ALLOWED.keys() | top


@pytest.mark.parametrize(
    ("room", "path"), _modules(), ids=lambda value: value.name if isinstance(value, Path) else value
)
def test_imports_point_one_way(room: str, path: Path) -> None:
    names = _imports(path)
    mine = {name.split(".")[1] for name in names if name.startswith("bitline.")}
    if room in ALLOWED:
        assert mine <= ALLOWED[room], f"{path.name} imports {sorted(mine - ALLOWED[room])}"
    else:
        assert "cli" not in mine
    for library, rooms in FORBIDDEN.items():
        if room in rooms and path.name != "figures.py":
            # the command line sets torch's and numba's thread counts inside a function
            used = _imports(path, top_level_only=room == "cli")
            assert not any(name.split(".")[0] == library for name in used), f"{path.name} imports {library}"


def test_importing_bitline_is_light() -> None:
    code = "import bitline, bitline.cli, sys; print([m for m in ('torch', 'numba', 'matplotlib') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_proof_imports_nothing_that_only_data_and_figures_need() -> None:
    code = "import bitline.certification, sys; print([m for m in ('sklearn', 'matplotlib') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_chip_model_needs_neither_torch_nor_numba() -> None:
    code = "import bitline.chip, sys; print([m for m in ('torch', 'numba', 'matplotlib') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_public_names_are_callable_and_not_modules() -> None:
    for name in ("matmul", "certify", "convert", "prune", "simulate", "load_hardware"):
        assert callable(getattr(bitline, name))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        bitline.nonsense  # noqa: B018
