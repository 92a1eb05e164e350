"""Tables, ranked lists and the report of re-identification runs."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from csametric.data.datasets import dataset_root
from csametric.data.transforms import read_image
from csametric.files import write_text
from csametric.reports.attention_report import attend_queries, attention_section, has_attention
from csametric.reports.sections import settings_sections, training_section
from csametric.runs.experiment import ReidData, ReidExperiment
from csametric.runs.folder import damaged_scores, read_experiment, read_scores
from csametric.runs.stored_calibration import StoredCalibration, read_calibration
from csametric.visualization import figures
from csametric.visualization.page import Section, Table, render

ROWS = {
    "rank1": "rank-1",
    "rank5": "rank-5",
    "rank10": "rank-10",
    "map_step": "mAP (step)",
    "map_trapezoid": "mAP (trapezoid)",
    "minp": "mINP",
}
REQUIRED = {  # what a report needs of scores.json
    "dataset": str,
    "camera_filter": bool,
    "rerank": bool,
    "flip": bool,
    **dict.fromkeys(ROWS, float | int),
    "queries": int,
    "queries_without_match": list,
    "ranked": list,
}
HEIGHT, WIDTH = 192, 64  # of an image in a ranked list, pixels
EXPLANATION = (
    "In per cent, single query. Rank-k is the share of queries with a correct image among the first k. The two mAP are the two "
    "conventions of the field: step, as in torchreid and fast-reid, and trapezoid, as in the official Matlab code and in "
    "papers of PCB's time; compare only figures of one convention. mINP measures how far down the list the last correct "
    "image is. "
)


def reid_table(scores: Mapping[str, Mapping[str, Any]]) -> Table:
    """One column per run, one row per metric.

    Args:
        scores: as returned by `score_dataset` or `read_scores`, by the label of the run.
    """
    rows = [[heading, *(f"{100 * run[name]:.2f}" for run in scores.values())] for name, heading in ROWS.items()]
    rows.append(["queries with a match", *(f"{run['queries']:,}" for run in scores.values())])
    return Table(header=["", *scores], rows=rows)


def conventions(scores: Mapping[str, Any]) -> str:
    """One sentence with the conventions by which scores were computed.

    Examples:
        >>> scores = {"dataset": "Market-1501", "camera_filter": False, "rerank": False, "flip": False}
        >>> conventions(scores | {"queries_without_match": []})
        'Market-1501, single query; no camera filter, by choice or because all images are from one camera.'
    """
    parts = [f"{scores['dataset']}, single query"]
    if scores["camera_filter"]:
        parts.append("gallery images of the query's identity and camera left out")
    else:
        parts.append("no camera filter, by choice or because all images are from one camera")
    if scores["rerank"]:
        parts.append("re-ranked (k1 = 20, k2 = 6, lambda = 0.3)")
    if scores["flip"]:
        parts.append("features averaged over the image and its mirror image")
    if scores.get("dimensions"):
        whitened = ", whitened" if scores["whiten"] else ""
        parts.append(f"compact features of {scores['dimensions']:,} dimensions{whitened}")
    if scores.get("engine", "torch") != "torch":  # older runs lack it
        parts.append(f"features computed by {scores['engine']}")
    copies = scores.get("queries_in_gallery", 0)  # older runs lack it
    if copies:
        parts.append(f"WARNING: {copies:,} queries are in the gallery too, as the same file or a copy, which raises the scores")
    missing = len(scores["queries_without_match"])
    if missing:
        parts.append(f"{missing} queries without a match left out")
    return "; ".join(parts) + "."


def ranked_picture(scores: Mapping[str, Any], data: ReidData) -> Figure:
    """Draw the ranked lists of a run.

    Args:
        scores: as returned by `score_dataset` or `read_scores`.
        data: the dataset that the listed files are read from.
    """
    root = dataset_root(data.kind, data.path)

    def image(path: str) -> Any:
        return read_image(root / path, HEIGHT, WIDTH)

    return figures.ranked_lists(
        [(image(ranked["query"]), [image(path) for path in ranked["gallery"]], ranked["right"]) for ranked in scores["ranked"]]
    )


def report_reid(title: str, runs: Mapping[str, Path], path: Path) -> Table:
    """Write the report of runs as one HTML page.

    Args:
        title: of the page.
        runs: finished run folders, by their label on the page.
        path: of the page.

    Returns:
        The table of scores, with their conventions as its caption.
    """
    scores = {label: read_scores(folder, REQUIRED) for label, folder in runs.items()}
    first = next(iter(scores.values()))
    table = replace(reid_table(scores), caption=conventions(first))
    sections = [
        Section(title="How well are people re-identified?", text=EXPLANATION + conventions(first), table=table),
        *(_compact_section(label, scores[label], folder) for label, folder in runs.items() if scores[label].get("compact")),
        *(_verification_section(label, folder) for label, folder in runs.items() if read_calibration(folder)),
        *(_ranked_section(label, scores[label], folder) for label, folder in runs.items()),
        *(attention_section(label, attend_queries(folder)) for label, folder in runs.items() if has_attention(folder)),
        training_section(runs, figures.reid_curves, "Training loss, and alpha of each attention layer"),
        *settings_sections(runs),
    ]
    write_text(path, render(title, conventions(first), sections))
    return table


def _compact_section(label: str, scores: Mapping[str, Any], run: Path) -> Section:
    try:
        rows = [
            [
                f"{row['dimensions']:,}",
                f"{4 * row['dimensions']:,}",
                f"{100 * row['map_step']:.2f}",
                f"{100 * row['rank1']:.2f}",
            ]
            for row in scores["compact"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise damaged_scores(run, f"compact: {error}") from error
    text = "Principal components of the features of the training images. 16-bit numbers take half the bytes."
    table = Table(header=["dimensions", "bytes per image", "mAP (step)", "rank-1"], rows=rows)
    return Section(title=f"Compact features of {label}", text=text, table=table)


def _verification_section(label: str, run: Path) -> Section:
    calibration = read_calibration(run)
    assert calibration is not None
    text = (
        f"Calibrated on {calibration.fitted_on}: {calibration.genuine:,} genuine pairs and {calibration.impostor:,} impostor "
        f"pairs; equal error rate {100 * calibration.eer:.2f} %. Two images are taken for one identity if their distance is at "
        "most the threshold. The false match rate (FMR) is the share of impostor pairs taken for one identity, the false "
        "non-match rate (FNMR) the share of genuine pairs taken for two. Intervals are by identity."
    )
    pictures = []
    if calibration.det_fmr:
        curve = figures.data_uri(figures.det_curve(calibration.det_fmr, calibration.det_fnmr))
        pictures.append((curve, "False non-match rate against false match rate on the images of the calibration"))
    return Section(title=f"Verification by {label}", text=text, table=thresholds_table(calibration), pictures=pictures)


def thresholds_table(calibration: StoredCalibration) -> Table:
    """The thresholds of a calibration, one row per false match rate."""
    rows = [
        [f"{stored.fmr:g}", f"{stored.threshold:.4f}", f"{stored.low:.4f} to {stored.high:.4f}", f"{100 * stored.fnmr:.1f} %"]
        for stored in calibration.thresholds
    ]
    return Table(header=["false match rate", "threshold", "95 % interval", "false non-match rate"], rows=rows)


def _ranked_section(label: str, scores: Mapping[str, Any], run: Path) -> Section:
    experiment = read_experiment(run)
    assert isinstance(experiment, ReidExperiment)
    try:
        picture = figures.data_uri(ranked_picture(scores, experiment.data))
    except (KeyError, TypeError, AttributeError) as error:
        raise damaged_scores(run, f"ranked: {error}") from error
    caption = f"{label}: evenly spread queries and their nearest gallery images; green: the same person, orange: another person"
    return Section(title=f"Ranked lists of {label}", pictures=[(picture, caption)])


def reid_scores(folder: Path) -> Table:
    """The scores of a finished run, with their conventions as the caption."""
    scores = read_scores(folder, REQUIRED)
    return replace(reid_table({"per cent": scores}), caption=conventions(scores))
