"""One self-contained HTML page: no network, readable on a phone, printable, light and dark."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from csametric.visualization.explorer import explorer_assets


@dataclass(frozen=True, kw_only=True)
class Table:
    """A header and rows of text; the first column is set to the left. caption: what has to be known of its figures."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page: words, then a table, pictures as (data URI, what it shows), views of attention with what they are of.

    A view is what `explorer.encode_view` returns.
    """

    title: str
    text: str = ""
    table: Table | None = None
    pictures: Sequence[tuple[str, str]] = field(default_factory=tuple)
    views: Sequence[tuple[dict[str, Any], str]] = field(default_factory=tuple)


def render(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """The page as HTML text."""
    environment = Environment(loader=PackageLoader("csametric.visualization"), autoescape=True, undefined=StrictUndefined)
    explorer = explorer_assets() if any(section.views for section in sections) else None
    page = environment.get_template("page.html")
    return page.render(title=title, subtitle=subtitle, sections=sections, explorer=explorer)
