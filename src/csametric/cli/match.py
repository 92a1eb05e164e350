"""match: two photographs, a list of pairs, or all pairs of a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from csametric.cli.lazy import lazy_imports
from csametric.cli.tables import print_table
from csametric.data.listing import describe_skipped
from csametric.errors import UserError
from csametric.progress import show_progress

with lazy_imports():
    from csametric.matching import colmap as colmap_database
    from csametric.matching import descriptors, photographs
    from csametric.matching import keypoints as detection
    from csametric.reports import match_report

OUT = Path("matches")
LIST_SUFFIXES = (".txt", ".lst", ".csv")

ModelOption = Annotated[
    Literal["homography", "fundamental", "auto"] | None,
    typer.Option(
        "--model",
        help="Fit a homography (planes, panoramas), a fundamental matrix (other scenes), or the one that COLMAP would choose "
        "for the pair (auto).",
        show_default="homography; with --colmap auto",
    ),
]
ImageRoot = Annotated[
    Path | None,
    typer.Option(
        "--image-root",
        help="Names in a list and in the COLMAP database are relative to this folder.",
        show_default="that of the list; else the one that holds all photographs",
        metavar="FOLDER",
    ),
]


def match(
    descriptor: Annotated[
        str, typer.Argument(help="A run's folder, e.g. runs/hardnet_csa; or sift; or rootsift.", metavar="RUN")
    ],
    first: Annotated[
        Path, typer.Argument(help="A photograph; a folder of them; or a text file with two names per line.", metavar="A")
    ],
    second: Annotated[Path | None, typer.Argument(help="The other photograph.", metavar="B")] = None,
    out: Annotated[Path, typer.Option("--out", help="The folder for the matches (.json) and pictures (.png).")] = OUT,
    keypoints: Annotated[
        int, typer.Option("--keypoints", help="Keep at most this many keypoints per photograph, the strongest.")
    ] = 4096,
    detector: Annotated[
        Literal["sift", "hessian", "harris", "gftt"], typer.Option("--detector", help="All but sift need kornia.")
    ] = "sift",
    upright: Annotated[
        bool, typer.Option("--upright", help="For photographs that are not rotated relative to each other.")
    ] = False,
    affine: Annotated[bool, typer.Option("--affine", help="Estimate affine shapes (kornia).")] = False,
    ratio: Annotated[
        float, typer.Option("--ratio", help="Largest ratio of nearest to second-nearest distance; 1 turns the test off.")
    ] = 0.95,
    one_way: Annotated[bool, typer.Option("--one-way", help="Also keep neighbours that are not mutual.")] = False,
    model: ModelOption = None,
    threshold: Annotated[float, typer.Option("--threshold", help="Largest reprojection error of an inlier, pixels.")] = 2.0,
    max_side: Annotated[int, typer.Option("--max-side", help="Scale photographs down to this longer side, pixels.")] = 2048,
    pictures: Annotated[bool, typer.Option("--pictures", help="Also draw every pair of a list or a folder.")] = False,
    colmap: Annotated[Path | None, typer.Option("--colmap", help="Also write a COLMAP database.", metavar="FILE")] = None,
    image_root: ImageRoot = None,
) -> None:
    """Match two photographs, or all pairs of a list or folder, and keep the matches that fit one geometry (MAGSAC++).

    Example: csametric match runs/hardnet_csa desk1.jpg desk2.jpg
    """
    settings = photographs.MatchSettings(
        detector=detection.DetectorSettings(detector=detector, limit=keypoints, upright=upright, affine=affine),
        max_side=max_side,
        mutual=not one_way,
        ratio=None if ratio == 1 else ratio,
        model=model or ("auto" if colmap else "homography"),
        threshold=threshold,
    )
    pairs = _find_pairs(first, second, image_root, out)
    photos = list(dict.fromkeys(path for pair in pairs for path in pair))
    root = image_root or (first if first.is_dir() else colmap_database.common_folder(photos))
    if colmap:
        colmap_database.check_colmap(colmap, photos, root)
    _check_out(out)
    stems, describer = (
        match_report.pair_stems(pairs, match_report.distinct_names(photos)),
        descriptors.find_descriptor(descriptor),
    )
    if second is not None:
        matched = _match_two(first, second, describer, settings, out / stems[first, second])
    else:
        matched = _match_all(stems, describer, settings, out, pictures, colmap is not None)
    if colmap:
        colmap_database.write_colmap_database(colmap, matched, root)
        print(f"COLMAP database: {colmap}; its image path is {root}")


def _check_out(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; name a folder")


def _find_pairs(first: Path, second: Path | None, image_root: Path | None, out: Path) -> list[tuple[Path, Path]]:
    if second is not None:
        return [(first, second)]
    if first.is_dir():
        listing = photographs.find_photographs(first, excluded=out)
        for reason in describe_skipped([listing]):
            print(f"skipped: {reason}")
        return photographs.all_pairs(listing.images)
    if first.suffix.lower() in LIST_SUFFIXES:
        return photographs.read_pairs(first, image_root)
    raise UserError(f"need a second photograph to match with {first}, or a folder, or a .txt with two names per line")


def _match_two(
    first: Path, second: Path, descriptor: descriptors.Descriptor, settings: photographs.MatchSettings, stem: Path
) -> list[photographs.MatchedPair]:
    """Match one pair, write and print the results."""
    (pair,) = photographs.match_many([(first, second)], descriptor, settings, None)
    match_report.write_pair(pair, stem, draw=True)
    print(match_report.describe_pair(pair))
    if photographs.why_no_geometry(pair):
        print("options to try: --upright, --ratio 1, a larger --keypoints")
    print(f"written: {stem}.json and .png")
    return [pair]


def _match_all(
    stems: dict[tuple[Path, Path], str],
    descriptor: descriptors.Descriptor,
    settings: photographs.MatchSettings,
    out: Path,
    draw: bool,
    keep: bool,
) -> list[photographs.MatchedPair]:
    """Match many pairs, write the results of each and a graph of all; returns the pairs only if they are to be kept."""
    kept: list[photographs.MatchedPair] = []
    edges = []
    skipped: dict[Path, str] = {}
    matched = photographs.match_many(list(stems), descriptor, settings, skipped)
    for pair in show_progress(matched, "matching", len(stems), enabled=True):
        match_report.write_pair(pair, out / stems[pair.first.path, pair.second.path], draw)
        edges.append(match_report.graph_edge(pair))
        if keep:
            kept.append(pair)
    for reason in skipped.values():
        print(f"skipped: {reason}")
    if not edges:
        raise UserError(f"none of the {len(stems):,} pairs could be matched; nothing was written, see the reasons above")
    path = out / "graph.json"
    table = match_report.write_graph(edges, settings.model, path)
    print_table("pairs, most inliers first", table.header, table.rows)
    print(f"written: {path} and one file for each of {len(edges):,} pairs")
    return kept
