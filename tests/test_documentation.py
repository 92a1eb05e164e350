"""The site builds without warnings, holds every module, needs no network, and its links lead somewhere."""

import re
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
from docs.field_comments import trailing_comment
from docs.site_pages import expand_folders, site_link

import csametric

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "csametric"
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


def test_the_reference_begins_with_the_public_names(site):
    page = (site / "reference" / "index.html").read_text()
    for name in csametric.__all__:
        assert f'id="csametric.{name}"' in page


def test_links_and_pictures_lead_somewhere(pages):
    checked = 0
    for page, html in pages.items():
        for _, url in URL.findall(html):
            target, anchor = urldefrag(unquote(url))
            if re.match(r"[a-z]+:", target):
                continue
            path = (page.parent / target).resolve() if target else page
            assert path.exists(), f"{page} leads to {url}"
            if anchor and path.suffix == ".html" and anchor != "__skip":
                assert f'id="{anchor}"' in pages[path], f"{page} leads to {url}"
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


def test_a_folder_of_the_navigation_becomes_its_pages():
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
def test_the_comment_beside_a_field(line, comment):
    assert trailing_comment(line) == comment
