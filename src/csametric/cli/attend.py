"""attend: what the attention of a run looks at."""

from pathlib import Path
from typing import Annotated

import typer

from csametric.cli.tables import print_table
from csametric.data.decoding import UnreadableImageError, decode_colours
from csametric.data.listing import list_images
from csametric.errors import UserError
from csametric.inference.load import load
from csametric.reports import attention_report as drawing

SHEET_IMAGES = 24


def attend(
    run: Annotated[Path, typer.Argument(help="A run with compressed self-attention, e.g. runs/pcb_csa.")],
    images: Annotated[
        list[Path], typer.Argument(help="Image files, or one folder of them for a contact sheet.", metavar="IMAGE...")
    ],
    out: Annotated[Path, typer.Option("--out", help="A .png or .pdf; or an .html to explore in the browser.")] = Path(
        "attention.png"
    ),
    layer: Annotated[
        str | None, typer.Option("--layer", help="'stage 1', 'stage 2', ...; by default the one with the largest alpha.")
    ] = None,
    group: Annotated[int, typer.Option("--group", help="Which group of channels, from 1 on.")] = 1,
    at: Annotated[
        list[str] | None,
        typer.Option("--at", help="A position as shares of height and width, e.g. 0.3,0.5; repeatable.", metavar="Y,X"),
    ] = None,
) -> None:
    """Draw two base attention maps and six reconstructed ones of each image, as the paper's Figure 5 does.

    Over a reconstructed map stands its largest cosine to a base map; the table tells a healthy layer from a collapsed one.

    Example: csametric attend runs/pcb_csa query/0001_c1s1_001051_00.jpg --at 0.2,0.5 --at 0.8,0.4
    """
    if out.suffix not in (".png", ".pdf", ".svg", ".html"):
        raise UserError(f"--out {out} is no .png, .pdf, .svg or .html; choose one")
    if len(images) > 1 and (folder := next((path for path in images if path.is_dir()), None)):
        raise UserError(f"{folder} is a folder; name it alone, or image files")
    model = load(run)
    is_folder = len(images) == 1 and images[0].is_dir()
    files = list_images(images[0], recursive=False).images[:SHEET_IMAGES] if is_folder else images
    if not files:
        raise UserError(f"{images[0]} holds no images; name a folder that does")
    attended, broken = [], []
    for path in files:
        try:
            attended.append(model.attend(decode_colours(path)))
        except UnreadableImageError as error:
            if not is_folder:
                raise
            broken.append(path)
            print(f"skipped: {error}")
    files = [path for path in files if path not in broken]
    if not attended:
        raise UserError(f"none of the images in {images[0]} can be read; name another folder")
    chosen = drawing.Chosen(
        layer=layer or drawing.heaviest_layer(attended[0]),
        group=group - 1,
        positions=[_position(text) for text in at or ()] or drawing.SIX_POSITIONS,
    )
    if out.suffix == ".html":
        drawing.write_attention_page(out, run.resolve().name, attended, chosen)
    elif is_folder:
        drawing.save_figure(drawing.contact_sheet(attended, [path.stem for path in files], chosen), out)
    else:
        drawing.save_figure(drawing.attention_figure(attended, chosen), out)
    table = drawing.statistics_table(attended)
    print_table(f"{run}, images: {len(files)}; drawn: {chosen.layer}, group {group}", table.header, table.rows)
    print(f"written: {out}")


def _position(text: str) -> tuple[float, float]:

    try:
        y, x = (float(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--at {text} is no position; write shares of height and width, for example 0.3,0.5") from None
    if not (0 <= y <= 1 and 0 <= x <= 1):
        raise UserError(f"--at {text} lies outside the image; both shares lie in [0, 1]")
    return y, x
