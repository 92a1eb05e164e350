"""What can be reproduced: the paper's tables and figures by name, and which rows of a table are run."""

from collections.abc import Sequence
from typing import Literal

from csametric.errors import UserError
from csametric.reproduction.paper import FIGURE5, TABLES, PaperTable

Target = Literal[
    "table1", "table2", "table3", "table4", "table5", "table6", "table7", "table8",
    "figure1", "figure2", "figure3", "figure4", "figure5", "all",
]  # fmt: skip


def tables_for(target: str, paper_only: bool) -> list[PaperTable]:
    """The tables whose runs a target needs.

    Args:
        target: "table1" to "table8", "figure5" or "all".
        paper_only: whether to leave out the rows that are not in the paper.

    Examples:
        >>> [table.name for table in tables_for("table4", paper_only=False)]
        ['table4']
    """
    if target == "figure5":
        return [FIGURE5]
    tables = list(TABLES.values()) if target == "all" else [TABLES[target]]
    return [table.with_rows(None, paper_only) for table in tables]


def select_rows(target: str, tables: Sequence[PaperTable], labels: Sequence[str] | None) -> list[PaperTable]:
    """The tables with only the rows that are to be run.

    Args:
        target: as in `tables_for`, for the error message.
        tables: the tables of the target.
        labels: of the rows to run; None for all rows.

    Raises:
        UserError: none of the tables has a row with one of the labels.
    """
    known = {row.label for table in tables for row in table.rows}
    for label in labels or ():
        if label not in known:
            raise UserError(f"{target}: unknown row {label!r}; use one of {', '.join(map(repr, sorted(known)))}")
    return [table.with_rows(labels, paper_only=False) for table in tables]
