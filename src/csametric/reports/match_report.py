"""The results of matching photographs: files and a picture per pair, and a graph over many pairs."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from csametric.files import write_atomically, write_text
from csametric.matching.photographs import MatchedPair, why_no_geometry
from csametric.visualization import figures
from csametric.visualization.page import Table

MODEL_NAMES = {"homography": "homography", "fundamental": "fundamental matrix"}
PRINTED_PAIRS = 20


def distinct_names(photos: Sequence[Path]) -> dict[Path, str]:
    """A name for the results of each photograph: its stem, extended if stems are not unique.

    Args:
        photos: paths that differ from one another.

    Returns:
        The first of these that differs for all photographs: stem, file name, folder and file name, stem and number.

    Examples:
        >>> distinct_names([Path("x/a.png"), Path("y/a.png")])
        {PosixPath('x/a.png'): 'x_a_png', PosixPath('y/a.png'): 'y_a_png'}
    """
    file_names = [path.name.replace(".", "_") for path in photos]
    candidates = (
        [path.stem for path in photos],
        file_names,
        [f"{path.parent.name}_{name}" for path, name in zip(photos, file_names, strict=True)],
        [f"{path.stem}_{number}" for number, path in enumerate(photos)],
    )
    names = next((names for names in candidates if len(set(names)) == len(photos)), candidates[-1])
    return dict(zip(photos, names, strict=True))


def pair_stems(pairs: Sequence[tuple[Path, Path]], names: Mapping[Path, str]) -> dict[tuple[Path, Path], str]:
    """A file name without suffix for the results of each pair, different for all pairs.

    Args:
        pairs: of photographs.
        names: as from `distinct_names`.

    Examples:
        >>> pairs = [(Path("1-2.jpg"), Path("3.jpg")), (Path("1.jpg"), Path("2-3.jpg"))]
        >>> list(pair_stems(pairs, {path: path.stem for pair in pairs for path in pair}).values())
        ['1-2--3', '1--2-3']
    """
    for dashes in range(1, 4):
        stems = {(first, second): f"{names[first]}{'-' * dashes}{names[second]}" for first, second in pairs}
        if len(set(stems.values())) == len(stems):
            return stems
    return {pair: f"{stem}_{number}" for number, (pair, stem) in enumerate(stems.items())}


def write_pair(pair: MatchedPair, stem: Path, draw: bool) -> None:
    """Write the matches of a pair to `stem`.json, and if wanted a picture of them to `stem`.png."""
    write_text(Path(f"{stem}.json"), json.dumps(pair.as_json(), indent=1))
    if not draw:
        return
    from_indices, to_indices = pair.matches.pairs.T
    figure = figures.matches(
        pair.first.image,
        pair.second.image,
        pair.first.frames.centres[from_indices],
        pair.second.frames.centres[to_indices],
        pair.geometry.inliers,
        labels=(f"inliers of one {MODEL_NAMES[pair.model]}", "outliers"),
    )
    write_atomically(Path(f"{stem}.png"), lambda file: figure.savefig(file, format="png", dpi=120))


def describe_pair(pair: MatchedPair) -> str:
    """The numbers of keypoints and matches of a pair, and how many are inliers of its geometry, or why none was found."""
    counts = f"{len(pair.first.points):,} and {len(pair.second.points):,} keypoints, {len(pair.matches.pairs):,} matches"
    reason = why_no_geometry(pair)
    if reason:
        return f"{counts}\nno geometry: {reason}"
    return f"{counts}\n{int(pair.geometry.inliers.sum()):,} inliers of one {MODEL_NAMES[pair.model]}"


def graph_edge(pair: MatchedPair) -> dict[str, Any]:
    """A pair as an entry of graph.json."""
    return {
        "first": str(pair.first.path),
        "second": str(pair.second.path),
        "model": pair.model,
        "matches": len(pair.matches.pairs),
        "inliers": int(pair.geometry.inliers.sum()),
    }


def write_graph(edges: Sequence[dict[str, Any]], model: str, path: Path) -> Table:
    """Write all pairs to a JSON file, and return a table of those with the most inliers.

    Args:
        edges: pairs as returned by `graph_edge`.
        model: the geometry that was asked for, a key of `MODEL_NAMES` or "auto".
        path: of the file.
    """
    write_text(path, json.dumps({"model": model, "pairs": list(edges)}, indent=1))
    strongest = sorted(edges, key=lambda edge: -edge["inliers"])[:PRINTED_PAIRS]
    rows = [
        [Path(edge["first"]).name, Path(edge["second"]).name, str(edge["matches"]), str(edge["inliers"])] for edge in strongest
    ]
    return Table(header=["first", "second", "matches", "inliers"], rows=rows)
