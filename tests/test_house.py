"""Imports run downwards only, and starting up stays light."""

import ast
import re
import subprocess
import sys
import time
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "csametric"
OPEN_TO_ALL = {"errors", "files", "progress"}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "files": set(),
    "progress": set(),
    "distances": set(),
    "attention": set(),
    "data": set(),
    "visualization": set(),
    "models": {"attention"},
    "losses": {"distances"},
    "evaluation": {"distances"},
    "runs": {"data", "models", "attention"},
    "inference": {"runs", "models", "data", "attention", "distances"},
    "search": {"inference", "runs", "data", "evaluation", "distances"},
    "training": {"inference", "runs", "models", "losses", "data", "evaluation", "distances", "attention"},
    "recipes": {"runs", "models", "data"},
    "matching": {"inference", "runs", "models", "data", "distances", "evaluation"},
    "reports": {"visualization", "evaluation", "runs", "inference", "matching", "models", "attention", "data"},
    "reproduction": {
        "recipes",
        "training",
        "inference",
        "reports",
        "visualization",
        "runs",
        "models",
        "data",
        "evaluation",
    },
    "web": {"search", "reports", "visualization", "inference", "evaluation", "attention", "distances", "data"},
}
ALLOWED["cli"] = set(ALLOWED)
ENTRANCES = {"__init__", "__main__"}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def rooms_imported(path: Path) -> set[str]:
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in modules if name.startswith("csametric.")}


def wrong_imports(path: Path) -> set[str]:
    room = room_of(path)
    return rooms_imported(path) - ALLOWED[room] - {room} - OPEN_TO_ALL


def test_every_file_imports_downwards_only():
    files = [path for path in PACKAGE.rglob("*.py") if room_of(path) not in ENTRANCES]
    assert len(files) > 20
    unknown = {room_of(path) for path in files} - set(ALLOWED)
    assert not unknown, f"rooms the plan does not know: {unknown}"
    wrong = {str(path): wrong_imports(path) for path in files if wrong_imports(path)}
    assert not wrong


def imports_between_files() -> dict[str, set[str]]:
    """Module -> the modules of the package it imports, at its top or later."""
    modules = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        modules[".".join(part for part in parts if part != "__init__")] = path
    imports = {}
    for name, path in modules.items():
        names = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                names |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
        imports[name] = names & set(modules) - {name, "csametric"}
    return imports


def test_no_files_import_one_another_in_a_circle():
    TopologicalSorter(imports_between_files()).prepare()


def test_the_import_test_sees_an_upward_import(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    (tmp_path / "losses").mkdir()
    bad = tmp_path / "losses" / "bad.py"
    bad.write_text("from csametric.training.loop import train\nfrom csametric import models\n")
    assert wrong_imports(bad) == {"training", "models"}


def test_folders_are_at_most_two_deep():
    assert all(len(path.relative_to(PACKAGE).parts) <= 2 for path in PACKAGE.rglob("*.py"))


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_import_is_lazy():
    heavy = run_python(
        "import csametric, sys; print([m for m in ('torch', 'cv2', 'timm', 'matplotlib', 'accelerate') if m in sys.modules])"
    )
    assert heavy.strip() == "[]"


def test_the_layer_needs_neither_opencv_nor_timm_nor_matplotlib():
    code = (
        "import torch, sys; before = 'torch._dynamo' in sys.modules; from csametric import CompressedSelfAttention;"
        "print([m for m in ('cv2', 'timm', 'matplotlib', 'accelerate') if m in sys.modules],"
        "('torch._dynamo' in sys.modules) == before)"
    )
    assert run_python(code).strip() == "[] True"


def test_a_run_is_loaded_without_what_trains():
    """Embedding needs neither accelerate nor the losses nor the loop."""
    heavy = run_python(
        "import sys; from csametric import load; "
        "heavy = ('accelerate', 'csametric.training', 'csametric.losses', 'matplotlib'); "
        "print([m for m in sys.modules if m.startswith(heavy)])"
    )
    assert heavy.strip() == "[]"


def test_every_command_resolves():
    from csametric.cli.app import COMMANDS, load_command, summary

    for name in COMMANDS:
        assert load_command(name).name == name
        assert summary(name).endswith(".")


def test_every_public_name_resolves():
    import csametric

    for name in csametric.__all__:
        assert callable(getattr(csametric, name))
    assert set(csametric.__all__) <= set(dir(csametric))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = csametric.nothing


def test_help_imports_nothing_heavy():
    code = (
        "import sys; import csametric.cli.app; print([m for m in ('torch', 'cv2', 'numpy', 'accelerate') if m in sys.modules])"
    )
    assert run_python(code).strip() == "[]"


def test_help_answers_soon():
    """A sanity bound, not a benchmark: an accidental `import torch` costs seconds."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "csametric", "--help"], capture_output=True, check=True)
    assert time.perf_counter() - started < 3


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def test_functions_and_files_are_short():
    lengths = {
        f"{path.relative_to(PACKAGE)}:{function.name}": function.end_lineno - function.lineno + 1
        for path in PACKAGE.rglob("*.py")
        for function in functions(path)
    }
    assert not {name: length for name, length in lengths.items() if length > 60}
    assert sorted(lengths.values())[len(lengths) * 9 // 10] <= 25
    assert not [path for path in PACKAGE.rglob("*.py") if len(path.read_text().splitlines()) > 400]


def docstrings(path: Path) -> list[str]:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, documented)]
    return [docstring for node in nodes if (docstring := ast.get_docstring(node))]


NEGATIONS = re.compile(r"\b(is|are|has|have) no\b")


def test_prose_is_plain():
    """Docstrings say what something is, not what it is of; messages say what was expected, not only what is missing."""
    assert not [text for path in PACKAGE.rglob("*.py") for text in docstrings(path) if text.startswith("Of ")]
    strings = [
        node.value
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    assert len([text for text in strings if NEGATIONS.search(text)]) <= 15
