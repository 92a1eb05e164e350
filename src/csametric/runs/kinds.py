"""The kinds of experiment: what differs between re-identification, photographs and Brown, in one table.

The functions are named, not imported, because most of them are in rooms that import this one; a name is resolved when its
function is called.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from csametric.errors import UserError
from csametric.runs.experiment import Experiment


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of experiment; functions are named as "room.file:function", "" means that the kind has none."""

    cached_unit: str  # what the progress bar counts while the cache is built
    open_task: str  # (experiment, machine, cache, progress) -> Task
    load_model: str  # (folder, experiment, device) -> embedder
    report: str  # (title, {label: folder}, path) -> Table; writes the report
    tabulate: str  # folder -> Table with a caption
    describe_data: str  # (experiment, data, scores) -> str: what a run was trained on
    count_work: str = ""  # experiment -> (steps, images or patches to score)
    measure_pace: str = ""  # (experiment, machine) -> Pace
    identify_data: str = ""  # (experiment) -> the part of environment.json's data that tells datasets apart


KINDS: dict[str, Kind] = {
    "descriptors": Kind(
        cached_unit="photographs",
        open_task="training.descriptor_task:open_photo_descriptors",
        load_model="inference.patches:load_descriptor",
        report="reports.photo_report:report_photos",
        tabulate="reports.photo_report:photo_scores",
        describe_data="inference.patches:describe_photographs",
    ),
    "brown": Kind(
        cached_unit="sheets",
        open_task="training.descriptor_task:open_brown_descriptors",
        load_model="inference.patches:load_descriptor",
        report="reports.brown_report:report_brown",
        tabulate="reports.brown_report:brown_scores",
        describe_data="inference.patches:describe_brown",
        count_work="reproduction.estimate:count_brown_work",
        measure_pace="reproduction.estimate:measure_brown",
        identify_data="reproduction.execution:brown_fingerprint",
    ),
    "reid": Kind(
        cached_unit="images",
        open_task="training.reid_task:open_reid",
        load_model="inference.images:load_pcb",
        report="reports.reid_report:report_reid",
        tabulate="reports.reid_report:reid_scores",
        describe_data="inference.images:describe_people",
        count_work="reproduction.estimate:count_reid_work",
        measure_pace="reproduction.estimate:measure_reid",
        identify_data="reproduction.execution:people_fingerprint",
    ),
}


def kind_of(experiment: Experiment) -> Kind:
    """The kind of an experiment."""
    return KINDS[experiment.task]


def call(experiment: Experiment, what: str, *arguments: Any) -> Any:
    """Call the function that an experiment's kind names, for example `call(experiment, "tabulate", folder)`.

    Raises:
        UserError: experiments of this kind have no such function.
    """
    name = getattr(kind_of(experiment), what)
    if not name:
        raise UserError(f"{experiment.recipe} cannot be used here: the kind {experiment.task} does not support {what}")
    return resolve(name)(*arguments)


def resolve(name: str) -> Any:
    """The function that "room.file:function" names."""
    module, _, function = name.partition(":")
    return getattr(import_module(f"csametric.{module}"), function)
