"""The report and the table of scores of a finished run of any kind."""

from pathlib import Path

from csametric.runs.experiment import Experiment
from csametric.runs.folder import read_experiment
from csametric.runs.kinds import call
from csametric.visualization.page import Table


def report_run(experiment: Experiment, folder: Path) -> Table:
    """Write the report of a finished run to report.html in its folder, and return its table of scores."""
    return call(experiment, "report", f"Run {folder.name}", {experiment.recipe: folder}, folder / "report.html")


def scores_table(folder: Path) -> Table:
    """The scores of a finished run, with a caption that says how they were computed."""
    return call(read_experiment(folder), "tabulate", folder)
