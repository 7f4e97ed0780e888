"""The output folder is complete or untouched, whatever fails and whenever."""

from __future__ import annotations

import errno
import io
import json
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bitline.errors import OutputError
from bitline.report import writer
from bitline.report.writer import OutputFolder, remove_leftovers, write_atomic

OLD = json.dumps({"schema_version": 1, "files": ["report.json", "layers.csv", "figures/old.png"]}).encode()
NEW = b'{"schema_version": 1, "files": ["report.json", "layers.csv", "figures/new.png"]}'


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every path under a folder, with the content of files."""
    return {
        entry.relative_to(folder).as_posix(): entry.read_bytes() if entry.is_file() else None
        for entry in sorted(folder.rglob("*"))
    }


def write_result(path: Path, fail: BaseException | None = None) -> None:
    with OutputFolder(path) as folder:
        folder.write("layers.csv", "a,b\n")
        folder.write("figures/new.png", b"png")
        folder.write("extra/more.txt", b"more")
        if fail is not None:
            raise fail
        folder.write("report.json", NEW)


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """A folder with an earlier result and a file of the user's."""
    folder = tmp_path / "out"
    (folder / "figures").mkdir(parents=True)
    (folder / "report.json").write_bytes(OLD)
    (folder / "layers.csv").write_bytes(b"old")
    (folder / "figures" / "old.png").write_bytes(b"old")
    (folder / "figures" / "mine.png").write_bytes(b"mine")
    (folder / "notes.txt").write_bytes(b"mine")
    return folder


def test_new_folder_appears_with_all_files_and_usual_permissions(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write_result(tmp_path / "a" / "b" / "out")
    finally:
        os.umask(before)
    out = tmp_path / "a" / "b" / "out"
    assert tree(out) == {
        "extra": None,
        "extra/more.txt": b"more",
        "figures": None,
        "figures/new.png": b"png",
        "layers.csv": b"a,b\n",
        "report.json": NEW,
    }
    assert [entry.name for entry in out.parent.iterdir()] == ["out"]
    assert out.stat().st_mode & 0o777 == 0o755
    assert (out / "report.json").stat().st_mode & 0o777 == 0o644


def test_nothing_is_visible_before_the_end(tmp_path: Path) -> None:
    with OutputFolder(tmp_path / "out") as folder:
        folder.write("report.json", NEW)
        assert not (tmp_path / "out").exists()
        assert folder.names == ["report.json"]
    assert (tmp_path / "out" / "report.json").read_bytes() == NEW


@pytest.mark.parametrize("fail", [RuntimeError("bug"), KeyboardInterrupt(), OutputError("full"), SystemExit(1)])
def test_failure_in_the_block_leaves_no_trace(tmp_path: Path, earlier: Path, fail: BaseException) -> None:
    before = tree(tmp_path)
    for path in (tmp_path / "x" / "y", earlier):
        with pytest.raises(type(fail)):
            write_result(path, fail)
    assert tree(tmp_path) == before


def test_earlier_result_is_replaced_and_files_of_others_stay(earlier: Path) -> None:
    write_result(earlier)
    assert tree(earlier) == {
        "extra": None,
        "extra/more.txt": b"more",
        "figures": None,
        "figures/mine.png": b"mine",  # in no report's list
        "figures/new.png": b"png",
        "layers.csv": b"a,b\n",
        "notes.txt": b"mine",
        "report.json": NEW,
    }  # figures/old.png belonged to the replaced report


def test_files_of_an_earlier_report_stay_when_no_report_is_written(earlier: Path) -> None:
    with OutputFolder(earlier) as folder:
        folder.write("certificate.json", "{}")
    assert (earlier / "figures" / "old.png").exists()
    assert (earlier / "report.json").read_bytes() == OLD


def test_list_of_an_earlier_report_cannot_name_files_elsewhere(tmp_path: Path, earlier: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"x")
    (earlier / "link").symlink_to(tmp_path)
    names = ["../victim", str(victim), "link/victim", "notes.txt/../../victim", 3, "", "figures", "a\0b"]
    (earlier / "report.json").write_text(json.dumps({"schema_version": 1, "files": names}))
    write_result(earlier)
    assert victim.read_bytes() == b"x"
    assert (earlier / "figures" / "mine.png").exists()


def test_empty_folder_and_folder_with_other_files(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write_result(tmp_path / "empty")
    assert "report.json" in tree(tmp_path / "empty")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_bytes(b"t")
    write_result(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.tex").read_bytes() == b"t"


@pytest.mark.parametrize("content", [b"{}", b"[1]", b"not json", b'{"layers": 3}', b"\xff\xfe"])
def test_report_of_another_program_is_not_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "report.json").write_bytes(content)
    with pytest.raises(OutputError, match=r"report\.json is there and was not written by Bitline"):
        OutputFolder(tmp_path).check()
    assert tree(tmp_path) == {"report.json": content}


def test_any_file_in_the_way_in_a_folder_of_others(tmp_path: Path) -> None:
    (tmp_path / "trace.npz").write_bytes(b"mine")
    folder = OutputFolder(tmp_path)
    with pytest.raises(OutputError, match=r"trace\.npz is there and was not written"), folder:
        folder.write("trace.npz", b"new")
    assert tree(tmp_path) == {"trace.npz": b"mine"}


def test_certificate_marks_a_folder_as_ours(tmp_path: Path) -> None:
    certificate = {"provenance": {"hardware_sha256": "00"}}
    (tmp_path / "certificate.json").write_text(json.dumps(certificate))
    with OutputFolder(tmp_path) as folder:
        folder.write("certificate.json", "new")
    assert tree(tmp_path) == {"certificate.json": b"new"}


def test_check_changes_nothing(tmp_path: Path, earlier: Path) -> None:
    before = tree(tmp_path)
    OutputFolder(earlier).check()
    OutputFolder(tmp_path / "deep" / "er" / "out").check()
    assert tree(tmp_path) == before


def test_path_that_is_a_file_or_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(OutputError, match="file: expected a folder, found a file"):
        OutputFolder(tmp_path / "file").check()
    with pytest.raises(OutputError, match=r"is a file, expected a folder|Not a directory"):
        OutputFolder(tmp_path / "file" / "out").check()
    assert tree(tmp_path) == {"file": b"x"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_write_permission(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir(mode=0o555)
    for path in (tmp_path / "out", tmp_path / "out" / "new"):
        with pytest.raises(OutputError, match="Permission denied"):
            OutputFolder(path).check()


def test_read_only_place_is_found_by_check() -> None:
    # /proc refuses new folders even to root
    with pytest.raises(OutputError, match=r"^output folder /proc/out: cannot be written: ") as caught:
        OutputFolder("/proc/out").check()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../b", "", ".", "a//b", "./a", "a\\b", "a\0"])
def test_names_stay_inside(tmp_path: Path, name: str) -> None:
    folder = OutputFolder(tmp_path / "out")
    with pytest.raises(OutputError, match="expected a plain name"), folder:
        folder.write(name, b"")
    assert tree(tmp_path) == {}


def test_writing_twice_or_outside_the_block(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path / "out")
    with pytest.raises(OutputError, match="only be written inside"):
        folder.write("a", b"")

    def write_twice() -> None:
        with folder:
            folder.write("a", b"1")
            folder.write("a", b"2")

    with pytest.raises(OutputError, match="a is written twice"):
        write_twice()
    assert tree(tmp_path) == {}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_full_disk_is_one_clear_line(tmp_path: Path, earlier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tree(tmp_path)
    monkeypatch.setattr(writer, "_open_new", lambda path: io.FileIO("/dev/full", "w"))
    for path in (tmp_path / "new", earlier):
        with pytest.raises(OutputError, match=r"cannot write layers\.csv: the disk is full$"):
            write_result(path)
    assert tree(tmp_path) == before


@pytest.fixture
def small_files_only() -> Iterator[None]:
    """The operating system refuses to write past 4096 bytes of any file: a real failure half-way through a write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_files_only")
def test_write_that_fails_half_way(tmp_path: Path) -> None:
    def write_in_pieces() -> None:
        with OutputFolder(tmp_path / "out") as folder, folder.open("big.bin") as file:
            for _ in range(100):
                file.write(bytes(1000))

    with pytest.raises(OutputError, match=r"cannot write big\.bin: File too large"):
        write_in_pieces()
    write_atomic(tmp_path / "one", b"before")
    with pytest.raises(OutputError, match="File too large"):
        write_atomic(tmp_path / "one", bytes(100_000))
    assert tree(tmp_path) == {"one": b"before"}


STEPS = {
    "replace": (Path, "replace"),
    "rename": (Path, "rename"),
    "unlink": (Path, "unlink"),
    "link": (os, "link"),
    "fsync": (os, "fsync"),
    "mkdir": (Path, "mkdir"),
    "mkdtemp": (writer.tempfile, "mkdtemp"),
    "open": (writer, "_open_new"),
    "sync": (writer, "_sync_folder"),
}


class Injected(Exception):
    """Not an OSError: even a bug or an interrupt in the middle must not leave a mixture."""


@pytest.mark.parametrize("kind", [OSError(errno.ENOSPC, "No space left on device"), Injected(), KeyboardInterrupt()])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("exists", [True, False])
def test_failure_at_every_step_leaves_the_folder_as_it_was(
    tmp_path: Path, earlier: Path, monkeypatch: pytest.MonkeyPatch, step: str, exists: bool, kind: BaseException
) -> None:
    before = tree(tmp_path)
    target = earlier if exists else tmp_path / "fresh" / "out"
    owner, name = STEPS[step]
    original = getattr(owner, name)
    failures = 0
    for fail_at in range(50):
        calls = 0

        def injected(*args: Any, fail_at: int = fail_at, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == fail_at + 1:
                raise kind
            return original(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, injected)
            caught: BaseException | None = None
            try:
                write_result(target)
            except (OutputError, Injected, KeyboardInterrupt) as error:
                caught = error
        if caught is None:
            break  # fewer calls than that are made: every one of them has failed once
        failures += 1
        assert tree(tmp_path) == before, f"{name} call {calls}"
        assert type(caught) is (OutputError if isinstance(kind, OSError) else type(kind))
        assert "\n" not in str(caught)
        assert isinstance(caught, OutputError) == ("disk is full" in str(caught))
    expected = {"rename": not exists, "unlink": exists, "link": exists, "replace": exists}.get(step, True)
    if step == "link" and isinstance(kind, OSError):
        expected = False  # falls back on copying
    assert (failures > 0) == expected


def test_write_atomic(tmp_path: Path) -> None:
    place = tmp_path / "certificate.json"
    write_atomic(place, "é")
    assert place.read_bytes() == "é".encode()
    place.chmod(0o600)
    write_atomic(place, b"2")
    assert place.read_bytes() == b"2"
    assert place.stat().st_mode & 0o777 == 0o600
    (tmp_path / "link").symlink_to(place)
    write_atomic(tmp_path / "link", b"3")
    assert (tmp_path / "link").is_symlink()
    assert place.read_bytes() == b"3"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["certificate.json", "link"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (".", "expected a regular file, found a directory"),
        ("missing/file", "missing does not exist"),
        ("/dev/null", "expected a regular file"),
        ("/proc/x", "cannot be written"),
    ],
)
def test_write_atomic_refuses(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(OutputError, match=message):
        write_atomic(tmp_path / name, b"x")
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("kind", [OSError(errno.ENOSPC, "x"), KeyboardInterrupt()])
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_write_atomic_failure_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, kind: BaseException
) -> None:
    def injected(*args: Any) -> None:
        raise kind

    (tmp_path / "f").write_bytes(b"old")
    monkeypatch.setattr(*STEPS[step], injected)
    with pytest.raises(OutputError if isinstance(kind, OSError) else KeyboardInterrupt):
        write_atomic(tmp_path / "f", b"new")
    assert tree(tmp_path) == {"f": b"old"}


def test_only_our_own_leftovers_of_this_file_go(tmp_path: Path) -> None:
    out = tmp_path / "net.safetensors"
    stale = tmp_path / ".net.safetensors.ab_c1234.tmp"
    others = [
        ".net.safetensors.state.ab_c1234.tmp",
        ".net.safetensors.abc.tmp",
        ".net_safetensors.ab_c1234.tmp",
        "net.safetensors.ab_c1234.tmp",
        ".other.safetensors.ab_c1234.tmp",
        "net.safetensors",
    ]
    for name in (stale.name, *others):
        (tmp_path / name).write_bytes(b"x")
    link = tmp_path / ".net.safetensors.linklink.tmp"
    link.symlink_to(out)
    remove_leftovers(out)
    assert {path.name for path in tmp_path.iterdir()} == {*others, link.name}
    long = tmp_path / ("n" * 90)
    kept = tmp_path / f".{'n' * 80}.ab_c1234.tmp"  # of this one, or of another that starts the same
    kept.write_bytes(b"x")
    remove_leftovers(long)
    assert kept.exists()
    remove_leftovers(tmp_path / "missing" / "net")


def test_a_killed_write_leaves_what_is_removed_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def killed(*args: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", killed)
        patch.setattr(Path, "unlink", lambda *args, **keywords: None)  # a killed process tidies nothing
        with pytest.raises(Killed):
            write_atomic(tmp_path / "out", b"x")
    assert len(list(tmp_path.iterdir())) == 1
    remove_leftovers(tmp_path / "out")
    assert not list(tmp_path.iterdir())
