"""Sections that all reports have."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from matplotlib.figure import Figure

from csametric.errors import UserError
from csametric.runs.folder import METRICS, read_environment, read_experiment, read_metrics
from csametric.visualization import figures
from csametric.visualization.page import Section, Table

Metrics = Mapping[str, Sequence[Mapping[str, float]]]  # the rows of metrics.jsonl, by the label of the run


def training_section(runs: Mapping[str, Path], draw: Callable[[Metrics], Figure], caption: str) -> Section:
    """The training curves of runs; a sentence in their place if a log is damaged, which need not cost the whole report.

    Args:
        runs: run folders, by their label on the page.
        draw: draws the rows of metrics.jsonl, by label.
        caption: of the picture.
    """
    try:
        picture = figures.data_uri(draw({label: read_metrics(folder) for label, folder in runs.items()}))
    except (UserError, KeyError, ValueError, TypeError, AttributeError) as error:
        return Section(title="Training", text=f"No curves: {METRICS} of a run is damaged ({error}).")
    return Section(title="Training", pictures=[(picture, caption)])


def settings_sections(runs: Mapping[str, Path]) -> Sequence[Section]:
    """Sections with the settings of each run, and with the machine of the first run.

    Args:
        runs: at least one run folder, by its label on the page.
    """
    settings = {label: asdict(read_experiment(folder).without_paths()) for label, folder in runs.items()}
    sections = [_values_section(f"Settings of {label}", values) for label, values in settings.items()]
    return [*sections, _values_section("Machine", read_environment(next(iter(runs.values()))), "what")]


def _values_section(title: str, values: Mapping[str, object], name: str = "setting") -> Section:
    rows = [[key, _text(value)] for key, value in values.items()]
    return Section(title=title, table=Table(header=[name, "value"], rows=rows))


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {entry}" for key, entry in value.items())
    return str(value)
