"""The result of an evaluation, as printed by a command."""

from dataclasses import dataclass

from csametric.visualization.page import Table


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A table of scores with its title."""

    title: str
    table: Table
    note: str = ""  # on the data
