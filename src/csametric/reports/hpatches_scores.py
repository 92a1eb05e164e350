"""Scores of a descriptor on the three tasks of HPatches."""

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
    """Describe the patches of sequences, with a progress bar; returns descriptors by sequence and kind."""
    return {
        name: data.describe_sequence(root / name, describe)
        for name in show_progress(names, "describing", len(names), enabled=True)
    }


def score_split(
    sequences: Sequence[Mapping[str, NDArray]], names: Sequence[str], split: str, tasks: Path, pairs: int = data.PAIRS
) -> HPatchesScores:
    """Score all tasks of a split. Without task files, retrieval is None and verification pairs are drawn.

    Args:
        pairs: the number of pairs to draw; the benchmark has a million.
    """
    counts = [len(sequence["ref"]) for sequence in sequences]

    def read(kinds: tuple[str, ...]) -> list[NDArray]:
        paths = [path for name in kinds if (path := data.find_task_file(tasks, name, split))]
        tables = {path: data.read_task(path, names) for path in paths} if len(paths) == len(kinds) else {}
        for path, rows in tables.items():
            data.check_task(path, rows, counts)
        return list(tables.values())

    verification = read(data.VERIFICATION_FILES) or list(data.verification_pairs(counts, pairs))
    rows = read(data.RETRIEVAL_FILES)
    return HPatchesScores(
        verification=evaluate_verification(sequences, *verification),
        matching=evaluate_matching(sequences),
        retrieval=evaluate_retrieval(sequences, rows[0], rows[1]) if rows else None,
    )


def evaluate_release(label: str, describe: Describe, root: Path) -> Evaluation:
    """Describe all patches of the release and score splits a and full."""
    return hpatches_evaluation(label, describe_release(root, data.find_sequences(root), describe), root, PRINTED_SPLITS)


def hpatches_evaluation(
    label: str, sequences: Mapping[str, Mapping[str, NDArray]], tasks: Path, splits: Sequence[str]
) -> Evaluation:
    """Score the three tasks on every split whose sequences are all present.

    Raises:
        UserError: every split lacks sequences, or descriptors differ in dimension between sequences.
    """
    widths = {name: sequence["ref"].shape[1] for name, sequence in sequences.items()}
    first = next(iter(widths.values()))
    odd = next((name for name in widths if widths[name] != first), None)
    if odd:
        raise UserError(f"{odd} has {widths[odd]} columns, but other sequences have {first}; extract the descriptors again")
    whole = {split: names for split in splits if set(names := data.splits()[split]) <= sequences.keys()}
    if not whole:
        missing = next(name for name in data.splits()[splits[0]] if name not in sequences)
        raise UserError(
            f"the sequence {missing} of split {splits[0]} is not there; extract all of them, or name another --split"
        )
    scores = {split: score_split([sequences[name] for name in names], names, split, tasks) for split, names in whole.items()}
    header = ["per cent", *(f"split {split}" for split in scores)]
    return Evaluation(title=f"HPatches, {label}", table=Table(header=header, rows=score_rows(list(scores.values()))))


def score_rows(scores: list[HPatchesScores]) -> list[list[str]]:
    """One row per score, one column per split."""

    def percent(value: float | None) -> str:
        return MISSING if value is None else f"{100 * value:.2f}"

    rows = [
        ["verification (imbalanced AP, mean)", *(percent(split.verification_mean) for split in scores)],
        ["matching (mAP)", *(percent(split.matching_mean) for split in scores)],
        ["retrieval (mAP, mean over pools)", *(percent(split.retrieval_mean) for split in scores)],
    ]
    for level in ("easy", "hard", "tough"):
        for sort in ("within", "across"):
            for field, words in (("average_precision", "imbalanced AP"), ("roc_area", "balanced ROC area")):
                values = [getattr(each.verification[level][sort], field) if each.verification else None for each in scores]
                rows.append([f"verification, {level}, {sort} sequences, {words}", *map(percent, values)])
        rows.append([f"matching, {level}", *(percent(each.matching[level] if each.matching else None) for each in scores)])
        rows += [
            [f"retrieval, {level}, pool of {pool:,}"]
            + [percent(each.retrieval[level][pool] if each.retrieval else None) for each in scores]
            for pool in next((each.retrieval[level] for each in scores if each.retrieval), {})
        ]
    return rows
