"""The report and the table of scores of a finished run, whatever it has trained."""

from dataclasses import replace
from pathlib import Path

from csametric.reports.brown_report import EXPLANATION as BROWN_EXPLANATION
from csametric.reports.brown_report import brown_table, report_brown
from csametric.reports.photo_report import EXPLANATION as PHOTO_EXPLANATION
from csametric.reports.photo_report import report_runs, run_scores, score_table
from csametric.reports.reid_report import conventions, reid_table, report_reid
from csametric.runs.experiment import BrownExperiment, DescriptorExperiment, Experiment, ReidExperiment
from csametric.runs.folder import read_experiment, read_scores
from csametric.visualization.page import Table


def report_run(experiment: Experiment, folder: Path) -> Table:
    """Write the report of a finished run, and return its table of scores."""
    report = {DescriptorExperiment: report_runs, BrownExperiment: report_brown, ReidExperiment: report_reid}[type(experiment)]
    return report(f"Run {folder.name}", {experiment.recipe: folder}, folder / "report.html")


def scores_table(folder: Path) -> Table:
    """The scores of a finished run, with the conventions they are of."""
    experiment, scores = read_experiment(folder), read_scores(folder)
    if isinstance(experiment, ReidExperiment):
        return replace(reid_table({"per cent": scores}), caption=conventions(scores))
    if isinstance(experiment, BrownExperiment):
        return replace(brown_table({"per cent": scores["fpr95"]}), caption=BROWN_EXPLANATION)
    return replace(score_table({"": run_scores(folder)}), caption=PHOTO_EXPLANATION)
