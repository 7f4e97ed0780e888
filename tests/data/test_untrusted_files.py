"""No reader of a user's file may start a program or run what the file says: looked for in the source of all of them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import bitline

SOURCE = Path(bitline.__file__).parent
#: Calls that run what a file says or choose a decoder by its contents, and the argument that makes them safe.
SAFE_IF = {
    "Image.open": lambda keywords: "formats" in keywords,
    "torch.load": lambda keywords: (
        isinstance(keywords.get("weights_only"), ast.Constant) and keywords["weights_only"].value is True
    ),
    "subprocess.run": lambda keywords: "shell" not in keywords,
}
#: Calls that no file of a user's may reach at all. NumPy's own readers are here because its default may change.
NEVER = {
    *("pickle.load", "pickle.loads", "np.load", "numpy.load", "np.genfromtxt", "eval", "compile", "os.system"),
    *("torch.jit.load", "torch.export.load", "torch.hub.load", "joblib.load", "pd.read_pickle", "marshal.loads"),
    *("yaml.load", "yaml.safe_load", "yaml.full_load", "yaml.unsafe_load", "shelve.open", "tarfile.open"),
    *("shutil.unpack_archive", "runpy.run_path", "__import__", "os.popen", "subprocess.Popen"),
}


def _calls(tree: ast.AST) -> Iterator[tuple[str, dict[str, ast.expr], int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            keywords = {word.arg or "**": word.value for word in node.keywords}
            yield ast.unparse(node.func), keywords, node.lineno


def _faults(source: str) -> list[str]:
    found = []
    for name, keywords, line in _calls(ast.parse(source)):
        if name in NEVER or (name in SAFE_IF and not SAFE_IF[name](keywords)):
            found.append(f"{name}, line {line}")
    return found


def test_no_reader_can_be_made_to_run_anything() -> None:
    faults = {str(path.relative_to(SOURCE)): _faults(path.read_text("utf-8")) for path in SOURCE.rglob("*.py")}
    assert {name: found for name, found in faults.items() if found} == {}
    assert sum("Image.open" in path.read_text("utf-8") for path in SOURCE.rglob("*.py")) >= 2


def test_the_search_finds_what_it_is_for() -> None:
    unsafe = ["Image.open(path)", "torch.load(p)", "torch.load(p, weights_only=False)", "pickle.load(f)", "np.load(p)"]
    assert [bool(_faults(line)) for line in unsafe] == [True] * len(unsafe)
    safe = ["Image.open(path, formats=('PNG',))", "torch.load(p, weights_only=True)", "re.compile(x)", "model.eval()"]
    assert [bool(_faults(line)) for line in safe] == [False] * len(safe)
