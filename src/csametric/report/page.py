"""One self-contained HTML page: no network, readable on a phone, printable, light and dark."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from jinja2 import Environment, PackageLoader, StrictUndefined


@dataclass(frozen=True, kw_only=True)
class Table:
    """A header and rows of text; the first column is set to the left."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page: words, then a table, then pictures as (data URI, what it shows)."""

    title: str
    text: str = ""
    table: Table | None = None
    pictures: Sequence[tuple[str, str]] = field(default_factory=tuple)


def render(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """The page as HTML text."""
    environment = Environment(loader=PackageLoader("csametric.report"), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("page.html").render(title=title, subtitle=subtitle, sections=sections)
