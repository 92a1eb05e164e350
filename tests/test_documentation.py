"""The documentation: the site is complete, works offline and has no broken links, and documents name existing commands."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
from docs.field_comments import trailing_comment
from docs.site_pages import expand_folders, site_link
from typer.core import TyperGroup

import csametric
from csametric.cli.app import COMMANDS, load_command

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "csametric"
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = re.compile(r"^    (?:\.venv/bin/)?csametric (.+)$", re.MULTILINE)
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
URL = re.compile(r"""\b(href|src)=["']?([^"'\s>]+)""")


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, str]:
    return {path: path.read_text() for path in site.rglob("*.html") if path.name != "404.html"}


def test_every_module_has_a_page(site):
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).with_suffix("")
        if name.name == "__main__":
            continue
        page = site / "reference" / name.parent / f"{'index' if name.name == '__init__' else name.name}.html"
        assert page.exists(), f"{path} has no page"


def test_the_reference_lists_the_public_names(site):
    page = (site / "reference" / "index.html").read_text()
    for name in csametric.__all__:
        assert f'id="csametric.{name}"' in page


def test_links_and_pictures_are_not_broken(pages):
    checked = 0
    for page, html in pages.items():
        for _, url in URL.findall(html):
            target, anchor = urldefrag(unquote(url))
            if re.match(r"[a-z]+:", target):
                continue
            path = (page.parent / target).resolve() if target else page
            assert path.exists(), f"{page} links to {url}, which does not exist"
            if anchor and path.suffix == ".html" and anchor != "__skip":
                assert f'id="{anchor}"' in pages[path], f"{page} links to {url}, an anchor that does not exist"
            checked += 1
    assert checked > 1000


def test_the_site_needs_no_network(site, pages):
    for page, html in pages.items():
        loaded = re.findall(r"""<(?:script|img|iframe|source|link)\b[^>]*\b(?:src|href)=["']?((?:https?:)?//[^"'\s>]+)""", html)
        assert not loaded, f"{page} loads {loaded}"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"""(url\(|@import)\s*["']?(https?:)?//""", sheet.read_text()), sheet


def test_the_readme_is_the_home_page(site):
    home = (site / "index.html").read_text()
    assert 'src="images/attention.png"' in home
    assert 'href="guides/layer.html"' in home
    assert 'href="contributing.html"' in home


@pytest.mark.parametrize(
    ("link", "page", "expected"),
    [
        ("docs/guides/layer.md", "index.md", "guides/layer.md"),
        ("CONTRIBUTING.md", "index.md", "contributing.md"),
        ("../performance.md", "guides/layer.md", "../performance.md"),
        ("../../README.md", "guides/layer.md", "../index.md"),
        ("decisions/", "performance.md", "decisions/index.md"),
        ("a//b", "index.md", "a//b"),
    ],
)
def test_links_of_the_repository_become_links_of_the_site(link, page, expected):
    assert site_link(link, page) == expected


def test_a_folder_in_the_navigation_is_expanded_to_its_pages():
    pages = ["api/a.md", "api/b/c.md", "api/b/index.md", "api/index.md", "home.md"]
    nav = ["home.md", {"API": "api/"}]
    assert expand_folders(nav, pages) == [
        "home.md",
        {"API": ["api/index.md", "api/a.md", {"b": ["api/b/index.md", "api/b/c.md"]}]},
    ]


@pytest.mark.parametrize(
    ("line", "comment"),
    [
        ("maps: int = 32  # D, base maps", "D, base maps"),
        ("    mark: str = '#'", ""),
        ("x = 1  # noqa: E501", ""),
        ("x = (\n    1,  # one\n    2,\n)", ""),
    ],
)
def test_the_comment_beside_a_field_is_its_documentation(line, comment):
    assert trailing_comment(line) == comment


def commands_in(document: Path) -> Iterator[list[str]]:
    """The arguments of each `csametric` command line in a document."""
    for line in COMMAND.findall(document.read_text()):
        yield shlex.split(line, comments=True)


def unknown_options(arguments: list[str]) -> set[str]:
    """The options of a command line that its command does not have; fails if the command does not exist."""
    name, *rest = arguments
    assert name in COMMANDS, f"csametric {name} does not exist"
    command = load_command(name)
    if isinstance(command, TyperGroup):
        assert rest[0] in command.commands, f"csametric {name} {rest[0]} does not exist"
        command = command.commands[rest[0]]
    if command.context_settings.get("ignore_unknown_options"):
        return set()
    known = {option for parameter in command.params for option in parameter.opts}
    return {argument for argument in rest if argument.startswith("--")} - known


def test_documents_name_existing_commands_and_options():
    checked = 0
    for document in DOCUMENTS:
        for arguments in commands_in(document):
            unknown = unknown_options(arguments)
            assert not unknown, f"{document.name}: csametric {arguments[0]} has no option {unknown}"
            checked += 1
    assert checked > 30


@pytest.mark.parametrize(
    ("line", "unknown"),
    [
        ("evaluate runs/mine --rerank", set()),
        ("evaluate runs/mine --re-rank", {"--re-rank"}),
        ("data check folder:people --draw", {"--draw"}),
    ],
)
def test_an_option_that_does_not_exist_is_noticed(line, unknown):
    assert unknown_options(line.split()) == unknown


def test_python_in_the_readme_compiles_and_imports_existing_names():
    blocks = PYTHON.findall((ROOT / "README.md").read_text())
    assert len(blocks) >= 4
    for block in blocks:
        compile(block, "README.md", "exec")
        for names in re.findall(r"^from csametric import (.+)$", block, re.MULTILINE):
            assert set(names.split(", ")) <= set(csametric.__all__)
