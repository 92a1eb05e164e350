"""Sections that all reports have."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from csametric.runs.folder import read_environment, read_experiment
from csametric.visualization.page import Section, Table


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
