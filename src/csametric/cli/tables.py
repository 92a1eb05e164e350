"""Tables in the terminal."""

from typing import Any

from rich.console import Console
from rich.table import Table


def print_table(title: str, header: list[str], rows: list[list[Any]]) -> None:
    """Print rows under a header, the first column to the left, the others to the right."""
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(header):
        table.add_column(column, justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    Console().print(table)
