"""The wheel holds everything the package needs, and every import is declared."""

import ast
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "csametric"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FOR_DEVELOPERS = {"dev", "docs"}
COMES_WITH = {"triton": "torch"}  # torch pins the version it works with, and has none where there are no kernels


def run(*command: str | Path, **options) -> str:
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from the source distribution, as `python -m build` does."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    options = ["--quiet", "--no-deps", "--no-index", "--no-compile", "--disable-pip-version-check"]
    run(sys.executable, "-m", "pip", "install", *options, "--target", folder, wheel)
    return folder


@pytest.fixture
def python(installed, tmp_path):
    """Runs code with the installed wheel in front of the checkout, in an empty folder."""

    def call(*arguments: str | Path) -> str:
        return run(sys.executable, *arguments, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(installed)})

    return call


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    files = {path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert names == {path.relative_to(PACKAGE.parent).as_posix() for path in files}
    assert any(name.endswith(".html") for name in names)


def test_the_installed_package_finds_its_data(python, installed):
    code = """
import csametric
from csametric.data.hpatches import read_splits
from csametric.visualization.page import Section, render
print(csametric.__file__)
assert len(read_splits()["full"]) == 116
assert "<h2" in render("A title", "", [Section(title="A section")])
"""
    assert Path(python("-c", code).strip()).is_relative_to(installed)


def test_the_installed_command_answers(python, installed):
    assert "Usage: csametric" in re.sub(r"\x1b\[[\d;]*m", "", python(installed / "bin" / "csametric", "--help"))


def imports(folder: Path) -> set[str]:
    """The top-level names that the files of a folder import, without the standard library and the project's own."""
    names = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.split(".")[0])
    own = {"csametric", *(path.name for path in ROOT.iterdir() if path.is_dir())}
    return names - sys.stdlib_module_names - own - set(COMES_WITH)


def distribution_name(requirement: str) -> str:
    """The normalised name in a requirement: "huggingface_hub>=0.25" -> "huggingface-hub"."""
    match = re.match(r"[\w.-]+", requirement)
    assert match, requirement
    return re.sub(r"[-_.]+", "-", match[0]).lower()


def declared(*, for_developers: bool) -> set[str]:
    requirements = list(PROJECT["dependencies"])
    for extra, names in PROJECT["optional-dependencies"].items():
        if for_developers or extra not in FOR_DEVELOPERS:
            requirements += names
    return {distribution_name(requirement) for requirement in requirements}


@pytest.mark.parametrize(("folder", "for_developers"), [("src", False), ("bench", True), ("docs", True), ("tests", True)])
def test_every_import_is_declared(folder, for_developers):
    names = declared(for_developers=for_developers)
    distributions = packages_distributions()
    undeclared = {
        name: distributions.get(name, ["not installed"])
        for name in imports(ROOT / folder)
        if not {distribution_name(distribution) for distribution in distributions.get(name, [])} & names
    }
    assert not undeclared, f"declare these imports of {folder}/ in pyproject.toml: {undeclared}"


def test_every_declared_package_is_pinned():
    pins = {distribution_name(line) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert declared(for_developers=True) - pins == set()
