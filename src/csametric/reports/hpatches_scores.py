"""Evaluation of descriptors by the three tasks of HPatches: verification, matching and retrieval."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from numpy.typing import NDArray

from csametric.data import hpatches as data
from csametric.errors import UserError
from csametric.evaluation.hpatches_tasks import HPatchesScores, evaluate_matching, evaluate_retrieval, evaluate_verification
from csametric.inference.patches import Describe
from csametric.progress import show_progress
from csametric.reports.evaluations import Evaluation
from csametric.visualization.page import Table

MISSING = "task file missing"
PRINTED_SPLITS = ("a", "full")


def describe_release(root: Path, names: Sequence[str], describe: Describe) -> dict[str, dict[str, NDArray]]:
    """Describe all patches of some sequences, with a progress bar.

    Args:
        root: the folder of the HPatches release.
        names: of the sequences.
        describe: a function from patches to descriptors.

    Returns:
        Descriptors by the name of the sequence and the kind of patch.
    """
    return {
        name: data.describe_sequence(root / name, describe)
        for name in show_progress(names, "describing", len(names), enabled=True)
    }


def score_split(
    sequences: Sequence[Mapping[str, NDArray]], names: Sequence[str], split: str, tasks: Path, pairs: int = data.PAIRS
) -> HPatchesScores:
    """Score all tasks of a split.

    Args:
        sequences: descriptors by kind of patch, one entry per sequence of the split.
        names: of the sequences.
        split: of the benchmark.
        tasks: the folder of its task files; without them, retrieval is None and pairs for verification are drawn.
        pairs: how many pairs to draw; the benchmark has a million.

    Raises:
        UserError: a task file does not fit the sequences.
    """
    counts = [len(sequence["ref"]) for sequence in sequences]

    def read(file_names: tuple[str, ...]) -> list[NDArray]:
        """The task files; none of them if one is missing."""
        paths = [path for name in file_names if (path := data.find_task_file(tasks, name, split))]
        if len(paths) < len(file_names):
            return []
        tables = [data.read_task(path, names) for path in paths]
        for path, rows in zip(paths, tables, strict=True):
            data.check_task(path, rows, counts)
        return tables

    verification = read(data.VERIFICATION_FILES) or list(data.verification_pairs(counts, pairs))
    retrieval = read(data.RETRIEVAL_FILES)
    return HPatchesScores(
        verification=evaluate_verification(sequences, *verification),
        matching=evaluate_matching(sequences),
        retrieval=evaluate_retrieval(sequences, retrieval[0], retrieval[1]) if retrieval else None,
    )


def evaluate_release(label: str, describe: Describe, root: Path) -> Evaluation:
    """Describe all patches of the HPatches release in `root`, and score the splits a and full."""
    return hpatches_evaluation(label, describe_release(root, data.find_sequences(root), describe), root, PRINTED_SPLITS)


def hpatches_evaluation(
    label: str, sequences: Mapping[str, Mapping[str, NDArray]], tasks: Path, splits: Sequence[str]
) -> Evaluation:
    """Score the three tasks on each split that is complete.

    Args:
        label: of the descriptor.
        sequences: descriptors by the name of the sequence and the kind of patch.
        tasks: the folder of the benchmark's task files.
        splits: to score; splits of which sequences are missing are left out.

    Raises:
        UserError: no split is complete, or the sequences differ in the dimension of their descriptors.
    """
    # all sequences must have one dimension
    dimensions = {name: sequence["ref"].shape[1] for name, sequence in sequences.items()}
    expected = next(iter(dimensions.values()))
    for name, dimension in dimensions.items():
        if dimension != expected:
            raise UserError(
                f"sequence {name} has descriptors of {dimension} dimensions, others have {expected}; write all of them again"
            )

    # score the splits that are complete
    complete = {split: names for split in splits if set(names := data.read_splits()[split]) <= sequences.keys()}
    if not complete:
        missing = next(name for name in data.read_splits()[splits[0]] if name not in sequences)
        raise UserError(f"sequence {missing} of split {splits[0]} is missing; extract all sequences, or use another split")
    scores = {split: score_split([sequences[name] for name in names], names, split, tasks) for split, names in complete.items()}
    header = ["per cent", *(f"split {split}" for split in scores)]
    return Evaluation(title=f"HPatches, {label}", table=Table(header=header, rows=score_rows(list(scores.values()))))


def score_rows(scores: list[HPatchesScores]) -> list[list[str]]:
    """One row per score, one column per split: the mean of each task, then all scores by level."""
    rows = [
        ["verification (imbalanced AP, mean)", *(_percent(split.verification_mean) for split in scores)],
        ["matching (mAP)", *(_percent(split.matching_mean) for split in scores)],
        ["retrieval (mAP, mean over pools)", *(_percent(split.retrieval_mean) for split in scores)],
    ]
    for level in ("easy", "hard", "tough"):
        rows += [
            *_verification_rows(scores, level),
            [
                f"matching, {level}",
                *(_percent(split.matching[level] if split.matching else None) for split in scores),
            ],
            *_retrieval_rows(scores, level),
        ]
    return rows


def _verification_rows(scores: list[HPatchesScores], level: str) -> list[list[str]]:
    rows = []
    for origin in ("within", "across"):
        for field, title in (("average_precision", "imbalanced AP"), ("roc_area", "balanced ROC area")):
            values = [getattr(split.verification[level][origin], field) if split.verification else None for split in scores]
            rows.append([f"verification, {level}, {origin} sequences, {title}", *map(_percent, values)])
    return rows


def _retrieval_rows(scores: list[HPatchesScores], level: str) -> list[list[str]]:
    pools = next((split.retrieval[level] for split in scores if split.retrieval), {})
    rows = []
    for pool in pools:
        values = [split.retrieval[level][pool] if split.retrieval else None for split in scores]
        rows.append([f"retrieval, {level}, pool of {pool:,}", *map(_percent, values)])
    return rows


def _percent(value: float | None) -> str:
    return MISSING if value is None else f"{100 * value:.2f}"
