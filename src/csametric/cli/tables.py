"""Printing tables to the terminal."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from csametric.visualization.page import Table as ScoreTable


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under a header; the first column is aligned left, the others right."""
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(header):
        table.add_column(column, justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    Console().print(table)


def print_scores(title: str, scores: ScoreTable, report: Path) -> None:
    """Print a table of scores with its caption, and where its report is."""
    print_table(title, scores.header, scores.rows)
    print(f"{scores.caption}\nopen {report}".lstrip())
