"""match: two photographs, a list of pairs, or all pairs of a folder."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from csametric.cli.tables import print_table
from csametric.errors import UserError
from csametric.files import write_atomically, write_text
from csametric.matching.colmap import check_colmap, write_colmap_database
from csametric.matching.descriptors import find_descriptor
from csametric.matching.keypoints import DetectorSettings
from csametric.matching.photographs import (
    MatchedPair,
    MatchSettings,
    all_pairs,
    find_photographs,
    match_many,
    read_pairs,
    why_no_geometry,
)
from csametric.progress import show_progress
from csametric.visualization import figures

NAMES = {"homography": "homography", "fundamental": "fundamental matrix"}


def match(
    descriptor: Annotated[
        str, typer.Argument(help="A run's folder, e.g. runs/hardnet_csa; or sift, or rootsift.", metavar="RUN")
    ],
    first: Annotated[
        Path, typer.Argument(help="A photograph; or a folder of them; or a text file of two a line.", metavar="A")
    ],
    second: Annotated[Path | None, typer.Argument(help="The other photograph.", metavar="B")] = None,
    out: Annotated[Path, typer.Option("--out", help="Where the matches (.json) and the picture (.png) go.")] = Path("matches"),
    keypoints: Annotated[int, typer.Option("--keypoints", help="At most so many a photograph, the strongest.")] = 4096,
    detector: Annotated[
        Literal["sift", "hessian", "harris", "gftt"], typer.Option("--detector", help="All but sift come with kornia.")
    ] = "sift",
    upright: Annotated[bool, typer.Option("--upright", help="The photographs are not turned against each other.")] = False,
    affine: Annotated[bool, typer.Option("--affine", help="Estimate affine shapes (kornia).")] = False,
    ratio: Annotated[float, typer.Option("--ratio", help="The nearest over the second nearest; 1 keeps all.")] = 0.95,
    one_way: Annotated[bool, typer.Option("--one-way", help="Nearest neighbours need not be mutual.")] = False,
    model: Annotated[
        Literal["homography", "fundamental"], typer.Option("--model", help="homography suits planes and panoramas.")
    ] = "homography",
    threshold: Annotated[float, typer.Option("--threshold", help="The largest noise of a match that agrees, pixels.")] = 2.0,
    max_side: Annotated[int, typer.Option("--max-side", help="Larger photographs are reduced to it, pixels.")] = 2048,
    pictures: Annotated[bool, typer.Option("--pictures", help="Draw every pair of a list or a folder too.")] = False,
    colmap: Annotated[Path | None, typer.Option("--colmap", help="Write a COLMAP database there.", metavar="FILE")] = None,
) -> None:
    """Match photographs: keypoints, descriptors, nearest neighbours, and the geometry most of them agree on (MAGSAC++).

    Example: csametric match runs/hardnet_csa desk1.jpg desk2.jpg
    """
    settings = MatchSettings(
        detector=DetectorSettings(detector=detector, limit=keypoints, upright=upright, affine=affine),
        max_side=max_side,
        mutual=not one_way,
        ratio=None if ratio == 1 else ratio,
        model=model,
        threshold=threshold,
    )
    if second is not None:
        pairs = [(first, second)]
    elif first.is_dir():
        pairs = all_pairs(find_photographs(first))
    elif first.suffix.lower() in (".txt", ".lst", ".csv"):
        pairs = read_pairs(first)
    else:
        raise UserError(f"{first} alone matches nothing; name a second photograph, a folder, or a .txt of two names a line")
    photos = list(dict.fromkeys(path for pair in pairs for path in pair))
    if colmap is not None:
        check_colmap(colmap, photos)
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is no folder; name another")
    names = distinct_names(photos)
    found = find_descriptor(descriptor)
    kept, rows, skipped = [], [], dict[Path, str]()
    matched = match_many(pairs, found, settings, None if second is not None else skipped)
    for pair in matched if second is not None else show_progress(matched, "matching", len(pairs), enabled=True):
        stem = out / f"{names[pair.first.path]}-{names[pair.second.path]}"
        _write(pair, stem, draw=pictures or second is not None)
        rows.append(_row(pair))
        if second is not None:
            _tell(pair, stem)
        if colmap is not None:
            kept.append(pair)
    for reason in skipped.values():
        print(f"skipped: {reason}")
    if second is None:
        _write_graph(rows, settings, out / "graph.json")
    if colmap is not None:
        write_colmap_database(colmap, kept)
        print(f"COLMAP database: {colmap}")


def distinct_names(photos: list[Path]) -> dict[Path, str]:
    """A name for each photograph's results: its stem, with suffix, folder or a number where stems are alike."""
    makers = (
        lambda path, number: path.stem,
        lambda path, number: path.name.replace(".", "_"),
        lambda path, number: f"{path.parent.name}_{path.name.replace('.', '_')}",
        lambda path, number: f"{path.stem}_{number}",
    )
    for make in makers:
        names = {path: make(path, number) for number, path in enumerate(photos)}
        if len(set(names.values())) == len(photos):
            break
    return names


def _write(pair: MatchedPair, stem: Path, draw: bool) -> None:

    write_text(Path(f"{stem}.json"), json.dumps(pair.as_json(), indent=1))
    if draw:
        first, second = pair.first, pair.second
        a, b = (photo.frames.centres[side] for photo, side in zip((first, second), pair.matches.pairs.T, strict=True))
        words = (f"agree on one {NAMES[pair.model]}", "do not")
        figure = figures.matches(first.image, second.image, a, b, pair.geometry.inliers, words=words)
        write_atomically(Path(f"{stem}.png"), lambda file: figure.savefig(file, format="png", dpi=120))


def _tell(pair: MatchedPair, stem: Path) -> None:

    counts = len(pair.first.points), len(pair.second.points), len(pair.matches.pairs)
    print("{:,} and {:,} keypoints, {:,} matches".format(*counts))
    reason = why_no_geometry(pair)
    print(f"no geometry: {reason}" if reason else f"{int(pair.geometry.inliers.sum()):,} agree on one {NAMES[pair.model]}")
    print(f"written: {stem}.json and .png")


def _row(pair: MatchedPair) -> dict[str, Any]:
    return {
        "first": str(pair.first.path),
        "second": str(pair.second.path),
        "matches": len(pair.matches.pairs),
        "inliers": int(pair.geometry.inliers.sum()),
    }


def _write_graph(rows: list[dict[str, Any]], settings: MatchSettings, path: Path) -> None:

    write_text(path, json.dumps({"model": settings.model, "pairs": rows}, indent=1))
    strongest = sorted(rows, key=lambda row: -row["inliers"])[:20]
    table = [[Path(row["first"]).name, Path(row["second"]).name, row["matches"], row["inliers"]] for row in strongest]
    print_table("pairs, the most agreement first", ["first", "second", "matches", "agree"], table)
    print(f"written: {path} and a file for each of {len(rows):,} pairs")
