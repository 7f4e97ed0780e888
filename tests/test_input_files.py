"""Files a user names: regular and of bounded size, or standard input; nothing makes the reader wait."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from bitline import load_hardware
from bitline.errors import ConfigError, DataError
from bitline.input_files import read_bytes, read_text
from bitline.pruning.recipe import read_fields

READERS = {
    "hardware": load_hardware,
    "recipe": read_fields,
    "anything": lambda path: read_text(path, "anything", 1000),
}


@pytest.mark.parametrize("what", READERS)
@pytest.mark.parametrize("kind", ["fifo", "folder", "/dev/zero", "/dev/full", "large", "not text", "no such", "nul"])
def test_what_is_no_small_text_file_is_refused(tmp_path: Path, what: str, kind: str) -> None:
    path = tmp_path / "file"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind.startswith("/dev/"):
        path = Path(kind)
    elif kind == "large":
        with path.open("wb") as file:
            file.truncate(1 << 40)  # a hole: no such space is taken
    elif kind == "not text":
        path.write_bytes(b"\xff\xfe")
    elif kind == "nul":
        path = Path("a\0b")
    with pytest.raises(ConfigError) as caught:
        READERS[what](path)
    expected = {"large": "larger than", "not text": "not UTF-8", "no such": "o such file", "nul": "o such file|null"}
    words = expected.get(kind, "expected a regular file").split("|")
    assert any(word in str(caught.value) for word in words)


def test_the_limit_is_in_bytes_and_the_class_of_error_is_the_callers(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("é" * 5)
    assert read_text(path, "thing", 10) == "é" * 5
    with pytest.raises(DataError, match="larger than 9 bytes, not a thing"):
        read_bytes(path, "thing", 9, DataError)


def test_a_link_to_a_file_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("rows: 64\n")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert load_hardware(tmp_path / "link").rows == 64


def test_a_dash_is_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    for read in (lambda: load_hardware("-").rows, lambda: read_fields("-")["rows"]):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"rows: 64\n"), "utf-8"))
        assert read() == 64
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"#" * (1 << 20)), "utf-8"))
    with pytest.raises(ConfigError, match="hardware -: larger than"):
        load_hardware("-")
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(ConfigError, match="standard input is closed"):
        load_hardware("-")
