"""Streams that are closed, full or of another encoding, and names that would command the terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from bitline.models.mlp import MLP
from safetensors.torch import save_file

from bitline.cli import main
from bitline.paths import expanded
from bitline.printable import clean, lines, one_line, shorten

BITLINE = f"{sys.executable} -m bitline"


def shell(command: str, **environment: str) -> tuple[int, bytes, bytes]:
    """Status, standard output and standard error of a shell command; bytes, for not all of it need be text."""
    done = subprocess.run(
        ["bash", "-c", command.replace("bitline ", f"{BITLINE} ")],
        capture_output=True,
        check=False,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("bitline hw list >&-", 0),
        ("bitline hw list <&- >&- 2>&-", 0),
        ("bitline hw show nope 2>&-", 2),
        ("bitline hw show nope 2>/dev/full", 2),
        ("bitline --nonsense 2>/dev/full", 2),
        ("bitline hw list >/dev/full 2>/dev/full", 2),
    ],
)
def test_closed_and_full_streams_are_quiet(command: str, status: int) -> None:
    assert shell(command) == (status, b"", b"")


def test_a_full_standard_output_is_one_line() -> None:
    status, out, err = shell("bitline hw list >/dev/full")
    assert (status, out) == (2, b"")
    assert err == b"bitline: standard output: cannot be written: No space left on device\n"


def test_a_failed_verification_keeps_its_status_when_the_reader_left(tmp_path: Path) -> None:
    command = "bitline certify digits_resnet20_cp16 --adc-bits 2 --require-lossless | true; exit ${PIPESTATUS[0]}"
    status, _, err = shell(command)
    assert status == 3
    assert err.splitlines()[-1].startswith(b"bitline: not lossless")


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", b"d\\xedas"), ("latin-1", b"d\xedas")])
def test_characters_that_a_terminal_lacks_are_escaped(tmp_path: Path, encoding: str, shown: bytes) -> None:
    file = tmp_path / "días.yaml"
    file.write_text(shell("bitline hw show tinyadc")[1].decode().replace("name: tinyadc", "name: días\u2264"))
    status, out, err = shell(f"bitline hw check {file}", PYTHONIOENCODING=encoding)
    assert (status, err) == (0, b"")
    assert out.count(shown) == 2
    assert b"\\u2264" in out
    file.write_text("rows: many")
    status, out, err = shell(f"bitline hw check {file}", PYTHONIOENCODING=encoding)
    assert (status, out) == (2, b"")
    assert err.count(b"\n") == 1
    assert shown in err


def test_json_is_json_on_any_terminal(tmp_path: Path) -> None:
    file = tmp_path / "h.yaml"
    file.write_text(shell("bitline hw show tinyadc")[1].decode().replace("name: tinyadc", "name: días\u2264"))
    for encoding in ("ascii", "latin-1", "utf-8"):
        _, out, _ = shell(f"bitline hw show {file} --json", PYTHONIOENCODING=encoding)
        assert json.loads(out)["name"] == "días\u2264"


def test_names_that_are_no_text_work(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = shell("bitline hw show tinyadc")[1]
    path = os.fsencode(tmp_path) + b"/m\xff.yaml"
    with open(path, "wb") as file:
        file.write(text)
    status, out, err = shell(f"bitline hw check {tmp_path}/$'m\\xff.yaml'")
    assert (status, err) == (0, b"")
    assert b"m\\udcff.yaml: valid" in out
    state = MLP(("fc1", "fc2"), (256, 24, 10)).state_dict()
    save_file(state, tmp_path / "m.safetensors")
    torch.save(state, tmp_path / "m.pt")
    for kind in (".safetensors", ".pt"):
        (tmp_path / f"m{kind}").rename(tmp_path / f"m\udcff{kind}")
    assert main(["certify", f"{tmp_path}/m\udcff.pt", "--out", f"{tmp_path}/o\udcff"]) == 0
    certificate = f"{tmp_path}/o\udcff/certificate.json"
    assert main(["certify", f"{tmp_path}/m\udcff.pt", "--check", certificate]) == 0
    assert main(["simulate", f"{tmp_path}/m\udcff.pt", "--images", "2", "--out", f"{tmp_path}/r\udcff"]) == 0
    assert main(["certify", f"{tmp_path}/m\udcff.safetensors"]) == 0
    report = json.loads((tmp_path / "r\udcff" / "report.json").read_text())
    assert report["network"]["checkpoint"] == "m\\udcff.pt"
    # a recipe is text: what cannot be written down is refused before any work
    assert main(["prune", f"{tmp_path}/m\udcff.pt", "--rate", "2", "--out", f"{tmp_path}/p.safetensors"]) == 2
    assert "expected text in UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["\x1b[31mX\x07", "a\rb", "\x9b31m", "\u202egnp.exe", "x\x1b]0;owned\x07"])
def test_errors_show_names_and_obey_none(capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps({"start": "x", "pruning": {"rate": 2}, name: 1}))
    description = tmp_path / "hw.yaml"
    description.write_text(json.dumps({name: 1}))
    for argv in (
        ["hw", "check", name],
        ["certify", name],
        ["certify", "digits_resnet20_cp16", "--hw", str(description)],
        ["simulate", "--data", f"imagefolder:{name}"],
        ["prune", "--recipe", str(recipe), "--out", str(tmp_path / "x.safetensors")],
        [name],
    ):
        assert main(argv) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        assert err[:-1].isprintable(), argv
        assert clean(name) in err or "unknown key" in err or "invalid choice" in err


def test_long_messages_keep_their_ends(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["y" * 100_000]) == 2
    err = capsys.readouterr().err
    assert len(err) < 2100
    assert err.startswith("bitline: argument COMMAND: invalid choice: 'yyy")
    assert "characters" in err


def test_clean_text() -> None:
    assert clean("é ok") == "é ok"
    assert clean("\x1b[2J\x7f\x9b\u202e\udcff\n") == r"\x1b[2J\x7f\x9b\u202e\udcff\n"
    assert lines("a\tb\n\x07\n") == "a\\tb\n\\x07\n"
    assert one_line("two\n  lines,  spaces \x85\n") == r"two lines,  spaces \x85"


def test_different_long_names_are_shortened_to_different_ones() -> None:
    """Names that differ in the middle alone, as of runs whose folders tell them apart."""
    names = [f"experiments/{i:04}/checkpoint_of_the_best_epoch.safetensors" for i in range(300)]
    short = {shorten(name) for name in names}
    assert all(len(name) == 30 for name in short)
    assert len(short) >= 299  # four digits of a hash: 300 of 65,536 meet once in two such lists
    assert len({shorten(name, 14) for name in names}) >= 298


def test_a_tilde_is_a_home_everywhere(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    save_file(MLP(("fc1", "fc2"), (256, 24, 10)).state_dict(), home / "net.safetensors")
    (home / "h.yaml").write_text((Path(__file__).parents[1] / "hwconfigs" / "tinyadc.yaml").read_text())
    (home / "r.yaml").write_text("start: ~/none.pt\npruning: {rate: 2}\n")
    assert main(["certify", "~/net.safetensors", "--hw=~/h.yaml", "--out=~/proof"]) == 0
    assert (home / "proof" / "certificate.json").exists()
    assert main(["certify", "~/net.safetensors", "--check=~/proof/certificate.json"]) == 0
    capsys.readouterr()
    for argv, words in (
        (["simulate", "~/net.safetensors", "--data", "npz:~/none.npz"], f"{home}/none.npz"),
        (["simulate", "--data", "trace:~/none"], "none"),
        (["prune", "--recipe=~/r.yaml", "--out=~/p.safetensors"], "none.pt"),
        (["prune", "~/net.safetensors", "--rate=2", "--out=~/nowhere/p.safetensors"], "folder"),
    ):
        assert main(argv) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "~").exists()
    assert expanded("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")
    assert expanded("./~") == Path("~")


def test_a_working_directory_that_is_gone_is_one_line(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    status, out, err = shell(f"mkdir {gone}; cd {gone}; rmdir {gone}; bitline certify digits_resnet20_cp16")
    assert (status, out) == (2, b"")
    assert err == b"bitline: the working directory does not exist any more; change to another one\n"
