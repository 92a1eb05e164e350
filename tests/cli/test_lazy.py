"""A help page must not load torch; a module that is imported lazily is loaded when it is used."""

import builtins
import subprocess
import sys

import pytest

from csametric.cli.app import COMMANDS
from csametric.cli.lazy import lazy_imports
from csametric.errors import UserError

PRINT_HELP = """
import sys
from csametric.cli.app import main
sys.argv = ["csametric", sys.argv[1], "--help"]
try:
    main()
except SystemExit:
    print("loaded", sorted({"torch", "accelerate", "cv2", "timm"} & set(sys.modules)))
"""


@pytest.mark.parametrize("command", COMMANDS)
def test_a_help_page_loads_nothing_heavy(command):
    done = subprocess.run([sys.executable, "-c", PRINT_HELP, command], capture_output=True, text=True, check=True)
    assert "Usage: csametric" in done.stdout
    assert done.stdout.splitlines()[-1] == "loaded []"


def test_a_lazy_module_runs_when_it_is_used(tmp_path, monkeypatch, capsys):
    (tmp_path / "loud_module.py").write_text("print('running')\nANSWER = 42\n")
    monkeypatch.syspath_prepend(tmp_path)
    names: dict = {}
    with lazy_imports():
        exec("import loud_module as lazy\nfrom csametric import errors", names)
    assert capsys.readouterr().out == ""
    assert names["lazy"].ANSWER == names["lazy"].ANSWER == 42
    assert names["errors"].UserError is UserError
    assert capsys.readouterr().out == "running\n"


def test_imports_are_eager_again_after_the_block():
    eager = builtins.__import__
    with pytest.raises(ZeroDivisionError), lazy_imports():
        1 / 0  # noqa: B018
    assert builtins.__import__ is eager
