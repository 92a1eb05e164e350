"""Self-contained HTML pages: no network needed, readable on a phone, printable, light and dark."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from csametric.visualization.explorer import explorer_assets


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of text; the first column is left-aligned."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]  # as long as the header
    caption: str = ""  # what a reader must know about the numbers


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section of the page: text, then a table, pictures, and attention explorers."""

    title: str
    text: str = ""
    table: Table | None = None
    pictures: Sequence[tuple[str, str]] = field(default_factory=tuple)  # data URI and caption
    views: Sequence[tuple[dict[str, Any], str]] = field(default_factory=tuple)  # from `explorer.encode_view`, and caption


def render(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """Render the page as HTML.

    Examples:
        >>> "<h2>Scores &amp; more</h2>" in render("Run", "a subtitle", [Section(title="Scores & more")])
        True
    """
    environment = Environment(loader=PackageLoader("csametric.visualization"), autoescape=True, undefined=StrictUndefined)
    explorer = explorer_assets() if any(section.views for section in sections) else None
    page = environment.get_template("page.html")
    return page.render(title=title, subtitle=subtitle, sections=sections, explorer=explorer)
