"""Table, ranked lists and report of re-identification runs."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from csametric.data.datasets import dataset_root
from csametric.data.transforms import read_image
from csametric.files import write_text
from csametric.reports.attention_report import attended_queries, attends, attention_section
from csametric.reports.sections import settings_sections
from csametric.runs.experiment import ReidData, ReidExperiment
from csametric.runs.folder import read_experiment, read_metrics, read_scores
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
HEIGHT, WIDTH = 192, 64
EXPLANATION = (
    "In per cent, single query. Rank-k is the share of queries with a right image among the first k. The two mAP are the two "
    "conventions of the field: step, as torchreid and fast-reid compute it, and trapezoid, as the official Matlab code and "
    "the tables of PCB's time; compare like with like. mINP asks how deep the last right image lies. "
)


def reid_table(scores: Mapping[str, Mapping[str, Any]]) -> Table:
    """One row per metric, one column per run."""
    rows = [[words, *(f"{100 * run[name]:.2f}" for run in scores.values())] for name, words in ROWS.items()]
    rows.append(["queries with a match", *(f"{run['queries']:,}" for run in scores.values())])
    return Table(header=["", *scores], rows=rows)


def conventions(scores: Mapping[str, Any]) -> str:
    """A sentence on the conventions that scores were computed in."""
    missing = len(scores["queries_without_match"])
    parts = [
        f"{scores['dataset']}, single query",
        "same-camera images of the query's identity left out"
        if scores["camera_filter"]
        else "no camera filter, asked for or because all images have one camera",
        *(["re-ranked (k1 = 20, k2 = 6, lambda = 0.3)"] if scores["rerank"] else []),
        *(["features averaged over the mirror image"] if scores["flip"] else []),
        *([f"{missing} queries without a match left out"] if missing else []),
    ]
    return "; ".join(parts) + "."


def ranked_picture(scores: Mapping[str, Any], data: ReidData) -> Figure:
    """Draw the ranked lists of an evaluation, with images read from its dataset."""
    root = dataset_root(data.kind, data.path)

    def image(path: str) -> Any:
        return read_image(root / path, HEIGHT, WIDTH)

    lists = [(image(each["query"]), [image(path) for path in each["gallery"]], each["right"]) for each in scores["ranked"]]
    return figures.ranked_lists(lists)


def report_reid(title: str, runs: Mapping[str, Path], path: Path) -> Table:
    """Write the report and return its table of scores."""
    scores = {label: read_scores(folder) for label, folder in runs.items()}
    first = next(iter(scores.values()))
    table = replace(reid_table(scores), caption=conventions(first))
    metrics = {label: read_metrics(folder) for label, folder in runs.items()}
    curves = (figures.data_uri(figures.training_curves(metrics)), "Training loss, and alpha of each attention layer")
    sections = [
        Section(title="How well are people found again?", text=EXPLANATION + conventions(first), table=table),
        *(_ranked_section(label, scores[label], folder) for label, folder in runs.items()),
        *(attention_section(label, attended_queries(folder)) for label, folder in runs.items() if attends(folder)),
        Section(title="Training", pictures=[curves]),
        *settings_sections(runs),
    ]
    write_text(path, render(title, conventions(first), sections))
    return table


def _ranked_section(label: str, scores: Mapping[str, Any], run: Path) -> Section:
    experiment = read_experiment(run)
    assert isinstance(experiment, ReidExperiment)
    picture = figures.data_uri(ranked_picture(scores, experiment.data))
    caption = f"{label}: evenly spread queries and their nearest gallery images; green: the same person, orange: another"
    return Section(title=f"Ranked lists of {label}", pictures=[(picture, caption)])


def reid_scores(folder: Path) -> Table:
    """The scores of a finished run, with a caption on the conventions that they were computed in."""
    scores = read_scores(folder)
    return replace(reid_table({"per cent": scores}), caption=conventions(scores))
