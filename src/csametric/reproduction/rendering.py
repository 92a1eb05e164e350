"""A filled table as text, CSV, LaTeX, and the sections of a page."""

import csv
import io
import math

from rich import box
from rich.console import Console
from rich.table import Table as TextTable

from csametric.reproduction.comparison import Cell, FilledTable
from csametric.reproduction.paper import Column, PaperTable, Row
from csametric.visualization.page import Section, Table

WIDTH, WIDEST = 220, 10_000  # characters of a line of words, and of a table
MARKS = {"paper": "", "cited": "cited", "ours": "ours"}
NOTHING = "-"
CSV_HEADER = (
    "table", "row", "source", "dataset", "figure", "paper", "ours", "spread over seeds",
    "seeds", "ours - paper", "compared with",
    "difference", "95 % from", "95 % to", "spread of the difference", "seeds of both", "commit", "seconds of the table",
)  # fmt: skip
ESCAPES = str.maketrans({"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "±": r"$\pm$"})


def as_text(filled: FilledTable) -> str:
    """As text, a table for each group of columns; ours first, the paper's in brackets."""
    out = io.StringIO()
    console = Console(file=out, width=WIDEST, color_system=None)
    console.print(f"{title_of(filled.table)}: {filled.table.title}\nours (the paper's)\n", highlight=False)
    for group, table in _groups(filled):
        text = TextTable(title=group, title_justify="left", title_style="", box=box.SIMPLE_HEAD, pad_edge=False)
        for place, word in enumerate(table.header):
            text.add_column(word, justify="right" if place else "left", no_wrap=True)
        for row in table.rows:
            text.add_row(*row)
        console.print(text, highlight=False, markup=False)
    for sentence in words(filled):
        console.print(sentence, highlight=False, markup=False, width=WIDTH)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def as_sections(filled: FilledTable) -> list[Section]:
    """As sections of a page, one for each group of columns."""
    title = f"{title_of(filled.table)}: {filled.table.title}"
    return [
        Section(title=f"{title}, {group}", text=" ".join(words(filled)) if not place else "", table=table)
        for place, (group, table) in enumerate(_groups(filled))
    ]


def as_csv(filled: FilledTable) -> str:
    """As CSV, a line for each figure, with the differences and their bounds."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    for row in filled.table.rows:
        for column in filled.table.columns:
            cell = filled.cell(row, column)
            beyond = None if cell.mean is None or cell.paper is None else cell.mean - cell.paper
            difference = cell.difference or (None, None, None)
            numbers = [cell.paper, cell.mean, cell.spread, len(cell.ours), beyond]
            compared = [*difference, cell.difference_spread, cell.paired]
            other = filled.table.compared_with(row)
            baseline = other.label if other and cell.difference else ""
            names = [filled.table.name, row.label, row.source, column.group, column.label]
            origin = [" ".join(filled.commits), f"{filled.seconds:.0f}"]
            writer.writerow([*names, *map(_exact, numbers), baseline, *map(_exact, compared), *origin])
    return out.getvalue()


def as_latex(filled: FilledTable) -> str:
    """As a LaTeX table of the package booktabs, ours first, the paper's in brackets; rows of ours marked by an asterisk."""
    table = filled.table
    heads = [(group, [column for column in table.columns if column.group == group]) for group in table.groups]
    spans = " & ".join(rf"\multicolumn{{{len(columns)}}}{{c}}{{{_escaped(group)}}}" for group, columns in heads)
    labels = " & ".join(_escaped(column.label) for column in table.columns)
    lines = [
        r"% \usepackage{booktabs}; ours, the paper's in brackets; * rows of ours",
        rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        r"\toprule",
        rf"Model & {spans} \\",
        rf" & {labels} \\",
        r"\midrule",
    ]
    for row in table.rows:
        cells = " & ".join(_escaped(_figure(row, filled.cell(row, column), column)) for column in table.columns)
        mark = r"\textsuperscript{*}" if row.source == "ours" else ""
        lines.append(rf"{_escaped(row.label)}{mark} & {cells} \\")
    caption = "% " + " ".join(" ".join(words(filled)).split())
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", caption]) + "\n"


def title_of(table: PaperTable) -> str:
    """Such as "Table 1"."""
    return table.name.replace("table", "Table ")


def words(filled: FilledTable) -> list[str]:
    """What stands under a table: how to read it, what is missing, where it comes from."""
    seeds = max((len(cell.ours) for cell in filled.cells.values()), default=0)
    differences = [cell.difference for cell in filled.cells.values() if cell.difference is not None]
    bounded = any(not math.isnan(each.low) for each in differences)
    over = ", over the seeds that both have" if seeds > 1 else ""
    reading = [f"Differences are from {filled.table.baseline}, or from the row named{over}."] if differences else []
    bounds = ["[..] is the central 95 % of a paired bootstrap over queries or pairs."] if bounded else []
    spread = ["± is the standard deviation over seeds."] if seeds > 1 else ["One seed."] if filled.commits else []
    nothing = [] if seeds else ["Nothing has been run."]
    hours = [f"Trained for {filled.seconds / 3600:.2f} h at commit {', '.join(filled.commits)}."] if filled.commits else []
    return [*reading, *bounds, *spread, *nothing, *filled.notes, *hours]


def _groups(filled: FilledTable) -> list[tuple[str, Table]]:
    """A table of text for each group of columns that has figures of ours; for all where none has."""
    table = filled.table
    run = [
        group for group in table.groups if any(cell.ours for (_, column), cell in filled.cells.items() if column.group == group)
    ]
    return [(group, _group(filled, group)) for group in run or table.groups]


def _group(filled: FilledTable, group: str) -> Table:
    """The figures of a group of columns, then how its main one differs."""
    table, main = filled.table, filled.table.main_column(group)
    columns = [column for column in table.columns if column.group == group]
    differences = [f"{main.label} less the paper's", f"less that of {table.baseline}"] if table.baseline else []
    rows = []
    for row in table.rows:
        cells = [filled.cell(row, column) for column in columns]
        if row.source == "cited" and all(cell.paper is None for cell in cells):
            continue
        figures = [_figure(row, cell, column) for cell, column in zip(cells, columns, strict=True)]
        compared = filled.cell(row, main)
        compared_words = [_beyond(compared, main), _difference(row, compared, main)] if table.baseline else []
        rows.append([row.label, MARKS[row.source], *figures, *compared_words])
    header = ["model", "row", *(column.label for column in columns), *differences]
    told = [place for place in range(len(header)) if place < 2 or any(row[place] != NOTHING for row in rows)]
    return Table(header=[header[place] for place in told], rows=[[row[place] for place in told] for row in rows])


def _figure(row: Row, cell: Cell, column: Column) -> str:
    """Ours, its spread, and the paper's in brackets."""
    paper = [] if cell.paper is None else [f"({cell.paper:.{column.decimals}f})"]
    if row.source == "cited":
        return paper[0] if paper else NOTHING
    ours = NOTHING if cell.mean is None else f"{cell.mean:.{column.decimals}f}"
    spread = [] if cell.spread is None else [f"± {cell.spread:.{column.decimals}f}"]
    return " ".join([ours, *spread, *paper])


def _beyond(cell: Cell, column: Column) -> str:
    return NOTHING if cell.mean is None or cell.paper is None else f"{cell.mean - cell.paper:+.{column.decimals}f}"


def _difference(row: Row, cell: Cell, column: Column) -> str:
    if cell.difference is None:
        return NOTHING
    difference, low, high = cell.difference
    digits = f"+.{column.decimals}f"
    spread = "" if cell.difference_spread is None else f" ± {cell.difference_spread:.{column.decimals}f}"
    bounds = "" if math.isnan(low) else f" [{low:{digits}}, {high:{digits}}]"
    other = f", from {row.against}" if row.against else ""
    return f"{difference:{digits}}{spread}{bounds}{other}"


def _exact(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.6g}"


def _escaped(text: str) -> str:
    return text.translate(ESCAPES)
