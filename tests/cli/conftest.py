"""A fixture that calls the command in this process."""

import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from csametric.cli import app


@pytest.fixture
def called_here(monkeypatch, capsys, cache) -> Callable[..., "CompletedProcess[str]"]:
    """A function that calls the command as `test_cli.csametric` does, but without the imports of a new process."""
    monkeypatch.setenv("CSAMETRIC_CACHE", str(cache))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")

    def call(*arguments: str | Path, cwd: Path) -> "CompletedProcess[str]":
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", ["csametric", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            app.main()
        out, err = capsys.readouterr()
        return CompletedProcess(sys.argv, int(stopped.value.code or 0), out, err)

    return call
