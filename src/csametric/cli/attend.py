"""attend: pictures of what the attention of a run looks at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import csametric
from csametric.cli.lazy import lazy_imports
from csametric.cli.tables import print_table
from csametric.data.listing import describe_skipped, list_images
from csametric.errors import UserError

with lazy_imports():
    from csametric.reports import attention_report
    from csametric.visualization import figures

FORMATS = (".png", ".pdf", ".svg", ".html")
SHEET_IMAGES = 24


def attend(
    run: Annotated[Path, typer.Argument(help="A run with compressed self-attention, e.g. runs/pcb_csa.")],
    images: Annotated[
        list[Path], typer.Argument(help="Image files, or one folder of them for a contact sheet.", metavar="IMAGE...")
    ],
    out: Annotated[Path, typer.Option("--out", help="A .png, .pdf or .svg; or an .html to explore in a browser.")] = Path(
        "attention.png"
    ),
    layer: Annotated[
        str | None,
        typer.Option(
            "--layer",
            help="'stage 1', 'stage 2', ...; by default the one with the largest alpha, the weight of its output.",
        ),
    ] = None,
    group: Annotated[int, typer.Option("--group", help="Which group of channels to draw, from 1.")] = 1,
    at: Annotated[
        list[str] | None,
        typer.Option(
            "--at", help="A position to draw, as fractions of height and width, e.g. 0.3,0.5; repeatable.", metavar="Y,X"
        ),
    ] = None,
) -> None:
    """Draw two base attention maps and six reconstructed ones per image, as in the paper's Figure 5.

    The number above a reconstructed map is its largest cosine similarity to a base map. The printed table shows for every layer
    whether its maps still differ or have all become uniform.

    Example: csametric attend runs/pcb_csa query/0001_c1s1_001051_00.jpg --at 0.2,0.5 --at 0.8,0.4
    """
    if out.suffix not in FORMATS:
        raise UserError(f"--out must end in .png, .pdf, .svg or .html, got {out}")
    is_folder = len(images) == 1 and images[0].is_dir()
    if not is_folder and (folder := next((path for path in images if path.is_dir()), None)):
        raise UserError(f"{folder} is a folder; give one folder alone, or only image files")
    model = csametric.load(run)
    files = _sheet_files(images[0]) if is_folder else images
    if not files:
        raise UserError(f"{images[0]} contains no images; choose another folder")
    attended, problems = attention_report.attend_files(model, files, skip_unreadable=is_folder)
    for problem in problems.values():
        print(f"skipped: {problem}")
    if not attended:
        raise UserError(f"none of the images in {images[0]} can be read; choose another folder")
    selection = attention_report.Selection(
        layer=layer or attention_report.layer_with_largest_alpha(attended[0]),
        group=group - 1,
        positions=[_position(text) for text in at or ()] or attention_report.SIX_POSITIONS,
    )
    drawn = [path for path in files if path not in problems]
    if out.suffix == ".html":
        attention_report.write_attention_page(out, run.resolve().name, attended, selection)
    elif is_folder:
        figures.save_figure(attention_report.contact_sheet(attended, [path.stem for path in drawn], selection), out)
    else:
        figures.save_figure(attention_report.attention_figure(attended, selection), out)
    table = attention_report.statistics_table(attended)
    print_table(f"{run}, images: {len(drawn)}; drawn: {selection.layer}, group {group}", table.header, table.rows)
    print(f"written: {out}")


def _sheet_files(folder: Path) -> list[Path]:
    """The first images of a folder; says what else it holds."""
    listing = list_images(folder, recursive=False)
    for reason in describe_skipped([listing]):
        print(f"skipped: {reason}")
    return listing.images[:SHEET_IMAGES]


def _position(text: str) -> tuple[float, float]:
    try:
        y, x = (float(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--at must be two fractions Y,X of height and width, got {text}; write for example 0.3,0.5") from None
    if not (0 <= y <= 1 and 0 <= x <= 1):
        raise UserError(f"--at must lie in the image, both fractions in [0, 1], got {text}")
    return y, x
