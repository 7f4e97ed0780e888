"""``python -m benchmarks``: bad input is one line and status 2, before anything is run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import dataset, measure, peers


@pytest.fixture(autouse=True)
def _nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: object) -> None:
        raise AssertionError("a benchmark was run")

    monkeypatch.setattr(command, "run", run)


def _error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert command.main(list(arguments)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def test_unknown_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(["kernel", "kernle"])
    assert stopped.value.code == 2
    assert "unknown benchmark 'kernle'; expected some of kernel, network" in capsys.readouterr().err


@pytest.mark.parametrize("more", [["kernel"], ["--quick"], ["--crosssim", "x"], ["--shared", "x"]])
def test_from_runs_nothing(more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(["--from", "old.json", *more])
    assert stopped.value.code == 2
    assert "--from runs nothing" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["dataset"], ["kernel", "--shared", "x"]])
def test_the_dataset_and_its_folder_go_together(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(arguments)
    assert stopped.value.code == 2
    assert "dataset and --shared go together" in capsys.readouterr().err


def test_no_data_where_shared_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = _error(capsys, "dataset", "--shared", str(tmp_path))
    assert error == f"benchmarks: --shared {tmp_path}: expected a folder with {dataset.CHECKPOINT}\n"


def test_what_runs_by_default_and_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr(command, "run", lambda works, quick: ran.append(list(works)) or {"goals": []})
    monkeypatch.setattr(dataset, "check", lambda *_: None)
    for arguments in ([], ["--shared", str(tmp_path)], ["dataset", "--shared", str(tmp_path)], ["memory"]):
        assert command.main(arguments) == 0
    everything = ["kernel", "network", "scaling", "memory", "startup", "chip_model", "pruning"]
    assert ran == [everything, [*everything, "dataset"], ["dataset"], ["memory"]]


@pytest.mark.parametrize("text", [None, "{", "[]", '{"results": 3}'])
@pytest.mark.parametrize("option", ["--from", "--compare"])
def test_no_document(option: str, text: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "old.json"
    if text is not None:
        path.write_text(text)
    assert f"{path}: expected a document of an earlier run" in _error(capsys, option, str(path))


@pytest.mark.parametrize(("peer", "name"), [("crosssim", "CrossSim"), ("neurosim", "NeuroSim 1.5")])
def test_no_checkout(peer: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = peers.PEERS[peer][1][0]
    assert _error(capsys, f"--{peer}", str(tmp_path)) == (
        f"benchmarks: --{peer} {tmp_path}: expected a checkout of {name}, but it has no {first}\n"
    )


def test_a_checkout_that_cannot_be_imported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in peers.PEERS["neurosim"][1]:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()

    def no_absl(arguments: list[str]) -> None:
        assert arguments == ["benchmarks.peers.neurosim", str(tmp_path), "check"]
        raise measure.ChildError("ModuleNotFoundError: No module named 'absl'")

    monkeypatch.setattr(peers, "run_child", no_absl)
    assert _error(capsys, "--neurosim", str(tmp_path)) == (
        f"benchmarks: --neurosim {tmp_path}: NeuroSim 1.5 cannot be imported: "
        "ModuleNotFoundError: No module named 'absl'\n"
    )


def test_table_and_copy_of_an_earlier_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"work": "w", "unit": "s", "ours": 0.5, "goal": 1.0, "reached": True, "elsewhere": {"theirs": 2.0}}
    document = {"results": {}, "goals": [row]}
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text(json.dumps(document))
    assert command.main(["--from", str(old), "--table", "--out", str(new)]) == 0
    assert capsys.readouterr().out.splitlines()[2] == "| w | theirs 2 s | 1 s | 0.5 s | theirs 4x | - |"
    assert json.loads(new.read_text()) == document
