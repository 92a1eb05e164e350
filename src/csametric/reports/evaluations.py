"""The result of an evaluation, for the command that prints it."""

from dataclasses import dataclass

from csametric.visualization.page import Table


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A table of scores with its title, and a note on the data."""

    title: str
    table: Table
    note: str = ""
