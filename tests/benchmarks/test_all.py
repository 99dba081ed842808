"""The command that runs every benchmark."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import all as every
from benchmarks.all import PAGES, ROOT, command

MARK = re.compile(r"<!-- figures: written by benchmarks/(\w+)\.py -->")


def test_every_table_of_the_pages_has_its_benchmark() -> None:
    shown = {
        name: f"docs/{page.name}"
        for page in (ROOT / "docs").glob("*.md")
        for name in MARK.findall(page.read_text(encoding="utf-8"))
    }
    assert shown == dict(PAGES)


@pytest.mark.parametrize("name", PAGES)
def test_each_takes_what_it_is_given(name: str, tmp_path: Path) -> None:
    script = (ROOT / "benchmarks" / f"{name}.py").read_text(encoding="utf-8")
    given = command(name, write_pages=True, json_folder=tmp_path)
    assert given[1:] == [
        str(ROOT / "benchmarks" / f"{name}.py"),
        *("--markdown", str(ROOT / PAGES[name])),
        *("--json", str(tmp_path / f"{name}.json")),
    ]
    assert all(f'"{flag}"' in script for flag in given if flag.startswith("--"))


@pytest.mark.parametrize("has_card", [True, False])
def test_one_that_fails_stops_no_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], has_card: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_card)
    fit = list(PAGES) if has_card else [name for name in PAGES if name != "gpu"]
    called: list[list[str]] = []

    def run(arguments: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        called.append(arguments)
        return subprocess.CompletedProcess(arguments, returncode=int("engine" in arguments[1]))

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(sys, "argv", ["all.py", "--json", str(tmp_path / "figures")])
    assert every.main() == 1
    assert called == [command(name, write_pages=False, json_folder=tmp_path / "figures") for name in fit]
    assert "failed: engine" in capsys.readouterr().out
    assert (tmp_path / "figures").is_dir()
