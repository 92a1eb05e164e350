"""A filled table as text, CSV, LaTeX, and sections of an HTML page."""

import csv
import io
import math

from rich import box
from rich.console import Console
from rich.table import Table as TextTable

from csametric.reproduction.comparison import Cell, FilledTable
from csametric.reproduction.paper import Column, PaperTable, Row
from csametric.visualization.page import Section, Table

WIDTH, WIDEST = 220, 10_000  # characters per line of footnotes, and of a table
MARKS = {"paper": "", "cited": "cited", "ours": "ours"}  # what is shown for `Row.source`
NOTHING = "-"
CSV_HEADER = (
    "table", "row", "source", "dataset", "figure", "paper", "ours", "spread over seeds",
    "seeds", "ours - paper", "compared with",
    "difference", "95 % from", "95 % to", "spread of the difference", "seeds of both", "commit", "seconds of the table",
)  # fmt: skip
ESCAPES = str.maketrans({"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "±": r"$\pm$"})


def as_text(filled: FilledTable) -> str:
    """A filled table as plain text, one block per group of columns; our scores first, the paper's in brackets."""
    out = io.StringIO()
    console = Console(file=out, width=WIDEST, color_system=None)
    console.print(f"{title_of(filled.table)}: {filled.table.title}\nours (the paper's)\n", highlight=False)
    for group, table in _groups(filled):
        text = TextTable(title=group, title_justify="left", title_style="", box=box.SIMPLE_HEAD, pad_edge=False)
        for index, heading in enumerate(table.header):
            text.add_column(heading, justify="right" if index else "left", no_wrap=True)
        for row in table.rows:
            text.add_row(*row)
        console.print(text, highlight=False, markup=False)
    for sentence in footnotes(filled):
        console.print(sentence, highlight=False, markup=False, width=WIDTH)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def as_sections(filled: FilledTable) -> list[Section]:
    """A filled table as sections of a page, one per group of columns; the first has the footnotes."""
    title = f"{title_of(filled.table)}: {filled.table.title}"
    return [
        Section(title=f"{title}, {group}", text="" if index else " ".join(footnotes(filled)), table=table)
        for index, (group, table) in enumerate(_groups(filled))
    ]


def as_csv(filled: FilledTable) -> str:
    """A filled table as CSV, one line per score, with the differences and their bounds."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    for row in filled.table.rows:
        for column in filled.table.columns:
            cell = filled.cell(row, column)
            baseline = filled.table.compared_with(row)
            names = [filled.table.name, row.label, row.source, column.group, column.label]
            numbers = [cell.paper, cell.mean, cell.spread, len(cell.ours), _minus_paper(cell)]
            compared_with = baseline.label if baseline and cell.difference else ""
            differences = [*(cell.difference or (None, None, None)), cell.difference_spread, cell.paired]
            origin = [" ".join(filled.commits), f"{filled.seconds:.0f}"]
            writer.writerow([*names, *map(_exact, numbers), compared_with, *map(_exact, differences), *origin])
    return out.getvalue()


def as_latex(filled: FilledTable) -> str:
    """A filled table in LaTeX, for the package booktabs; our scores first, the paper's in brackets.

    Rows that are not in the paper are marked with an asterisk.
    """
    table = filled.table
    heads = [(group, [column for column in table.columns if column.group == group]) for group in table.groups]
    spans = " & ".join(rf"\multicolumn{{{len(columns)}}}{{c}}{{{_escaped(group)}}}" for group, columns in heads)
    labels = " & ".join(_escaped(column.label) for column in table.columns)
    lines = [
        r"% \usepackage{booktabs}; our scores, the paper's in brackets; * rows that are not in the paper",
        rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        r"\toprule",
        rf"Model & {spans} \\",
        rf" & {labels} \\",
        r"\midrule",
    ]
    for row in table.rows:
        cells = " & ".join(_escaped(_score_text(row, filled.cell(row, column), column)) for column in table.columns)
        mark = r"\textsuperscript{*}" if row.source == "ours" else ""
        lines.append(rf"{_escaped(row.label)}{mark} & {cells} \\")
    caption = "% " + " ".join(" ".join(footnotes(filled)).split())
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", caption]) + "\n"


def title_of(table: PaperTable) -> str:
    """The name of a table as the paper writes it.

    Examples:
        >>> from csametric.reproduction.paper import TABLES
        >>> title_of(TABLES["table1"])
        'Table 1'
    """
    return table.name.replace("table", "Table ")


def footnotes(filled: FilledTable) -> list[str]:
    """The sentences below a table: how to read it, what is missing, and where the scores come from."""
    seeds = max((len(cell.ours) for cell in filled.cells.values()), default=0)
    differences = [cell.difference for cell in filled.cells.values() if cell.difference is not None]
    sentences = []
    if differences:
        paired = ", over the seeds that both rows have" if seeds > 1 else ""
        sentences.append(f"Differences are from {filled.table.baseline}, unless another row is named{paired}.")
    if any(not math.isnan(difference.low) for difference in differences):
        sentences.append("[..] is a 95 % confidence interval from a paired bootstrap over queries or pairs.")
    if seeds > 1:
        sentences.append("± is the standard deviation over seeds.")
    elif filled.commits:
        sentences.append("One seed.")
    if not seeds:
        sentences.append("Nothing has been run.")
    sentences += filled.notes
    if filled.commits:
        sentences.append(f"Trained for {filled.seconds / 3600:.2f} h at commit {', '.join(filled.commits)}.")
    return sentences


def _groups(filled: FilledTable) -> list[tuple[str, Table]]:
    """One table of text per group of columns that has scores of ours; of all groups if none has."""
    table = filled.table
    with_scores = {column.group for (_, column), cell in filled.cells.items() if cell.ours}
    groups = [group for group in table.groups if group in with_scores]
    return [(group, _group(filled, group)) for group in groups or table.groups]


def _group(filled: FilledTable, group: str) -> Table:
    """The scores of a group of columns, then the differences of its main column."""
    table, main = filled.table, filled.table.main_column(group)
    columns = [column for column in table.columns if column.group == group]
    header = ["model", "row", *(column.label for column in columns)]
    if table.baseline:
        header += [f"{main.label} minus the paper's", f"minus that of {table.baseline}"]

    rows = []
    for row in table.rows:
        cells = [filled.cell(row, column) for column in columns]
        if row.source == "cited" and all(cell.paper is None for cell in cells):
            continue
        texts = [row.label, MARKS[row.source]]
        texts += [_score_text(row, cell, column) for cell, column in zip(cells, columns, strict=True)]
        if table.baseline:
            main_cell = filled.cell(row, main)
            texts += [_minus_paper_text(main_cell, main), _difference(row, main_cell, main)]
        rows.append(texts)

    # leave out columns that are empty in every row
    kept = [index for index in range(len(header)) if index < 2 or any(row[index] != NOTHING for row in rows)]
    return Table(header=[header[index] for index in kept], rows=[[row[index] for index in kept] for row in rows])


def _score_text(row: Row, cell: Cell, column: Column) -> str:
    """Our score, its spread, and the paper's score in brackets."""
    paper = "" if cell.paper is None else f"({cell.paper:.{column.decimals}f})"
    if row.source == "cited":
        return paper or NOTHING
    parts = [NOTHING if cell.mean is None else f"{cell.mean:.{column.decimals}f}"]
    if cell.spread is not None:
        parts.append(f"± {cell.spread:.{column.decimals}f}")
    if paper:
        parts.append(paper)
    return " ".join(parts)


def _minus_paper(cell: Cell) -> float | None:
    return None if cell.mean is None or cell.paper is None else cell.mean - cell.paper


def _minus_paper_text(cell: Cell, column: Column) -> str:
    difference = _minus_paper(cell)
    return NOTHING if difference is None else f"{difference:+.{column.decimals}f}"


def _difference(row: Row, cell: Cell, column: Column) -> str:
    """The difference from the baseline with its spread and bounds, and the baseline's label if it is not the table's."""
    if cell.difference is None:
        return NOTHING
    difference, low, high = cell.difference
    digits = f"+.{column.decimals}f"
    text = f"{difference:{digits}}"
    if cell.difference_spread is not None:
        text += f" ± {cell.difference_spread:.{column.decimals}f}"
    if not math.isnan(low):
        text += f" [{low:{digits}}, {high:{digits}}]"
    if row.against:
        text += f", from {row.against}"
    return text


def _exact(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.6g}"


def _escaped(text: str) -> str:
    return text.translate(ESCAPES)
