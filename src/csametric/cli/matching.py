"""match: two photographs, a list of pairs, or all pairs of a folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from csametric.matching.photographs import MatchedPair, MatchSettings

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
    from csametric.errors import UserError
    from csametric.matching.descriptors import find_descriptor
    from csametric.matching.keypoints import DetectorSettings
    from csametric.matching.photographs import MatchSettings, all_pairs, find_photographs, match_many, read_pairs
    from csametric.training.progress import counted

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
    if colmap is not None and colmap.exists():
        raise UserError(f"{colmap} is already there; name another file, or remove it")
    found = find_descriptor(descriptor)
    if second is not None:
        done = list(match_many(pairs, found, settings))
        _write(done[0], out, draw=True)
        _tell(done[0], out)
    else:
        done, skipped = [], dict[Path, str]()
        for pair in counted(match_many(pairs, found, settings, skipped), "matching", len(pairs), enabled=True):
            _write(pair, out, draw=pictures)
            done.append(pair)
        for reason in skipped.values():
            print(f"skipped: {reason}")
        _write_graph(done, settings, out / "graph.json")
    if colmap is not None:
        from csametric.matching.colmap import write_colmap_database

        write_colmap_database(colmap, done)
        print(f"COLMAP database: {colmap}")


def _stem(pair: "MatchedPair", out: Path) -> Path:
    return out / f"{pair.first.path.stem}-{pair.second.path.stem}"


def _write(pair: "MatchedPair", out: Path, draw: bool) -> None:
    import json

    from csametric.report import figures
    from csametric.training.checkpoint import write_atomically, write_text

    stem = _stem(pair, out)
    write_text(Path(f"{stem}.json"), json.dumps(pair.as_json(), indent=1))
    if draw:
        first, second = pair.first, pair.second
        a, b = (photo.frames.centres[side] for photo, side in zip((first, second), pair.matches.pairs.T, strict=True))
        words = (f"agree on one {NAMES[pair.model]}", "do not")
        figure = figures.matches(first.image, second.image, a, b, pair.geometry.inliers, words=words)
        write_atomically(Path(f"{stem}.png"), lambda file: figure.savefig(file, format="png", dpi=120))


def _tell(pair: "MatchedPair", out: Path) -> None:
    from csametric.matching.photographs import why_no_geometry

    counts = len(pair.first.points), len(pair.second.points), len(pair.matches.pairs)
    print("{:,} and {:,} keypoints, {:,} matches".format(*counts))
    reason = why_no_geometry(pair)
    print(f"no geometry: {reason}" if reason else f"{int(pair.geometry.inliers.sum()):,} agree on one {NAMES[pair.model]}")
    print(f"written: {_stem(pair, out)}.json and .png")


def _write_graph(pairs: "list[MatchedPair]", settings: "MatchSettings", path: Path) -> None:
    import json

    from csametric.cli.tables import print_table
    from csametric.training.checkpoint import write_text

    rows: list[dict[str, Any]] = [
        {
            "first": str(pair.first.path),
            "second": str(pair.second.path),
            "matches": len(pair.matches.pairs),
            "inliers": int(pair.geometry.inliers.sum()),
        }
        for pair in pairs
    ]
    write_text(path, json.dumps({"model": settings.model, "pairs": rows}, indent=1))
    strongest = sorted(rows, key=lambda row: -row["inliers"])[:20]
    table = [[Path(row["first"]).name, Path(row["second"]).name, row["matches"], row["inliers"]] for row in strongest]
    print_table("pairs, the most agreement first", ["first", "second", "matches", "agree"], table)
    print(f"written: {path} and a file for each of {len(rows):,} pairs")
