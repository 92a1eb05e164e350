"""Tables in the terminal."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from csametric.visualization.page import Table as ScoreTable


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under a header, the first column to the left, the others to the right."""
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(header):
        table.add_column(column, justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    Console().print(table)


def print_scores(title: str, scores: ScoreTable, report: Path) -> None:
    """Print the table of a report, what has to be known of its figures, and where the report is."""
    print_table(title, scores.header, scores.rows)
    print(f"{scores.caption}\nopen {report}".lstrip())
