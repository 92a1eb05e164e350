"""HPatches' three tasks for a descriptor: the patches described, the tasks read or drawn, the scores."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from numpy.typing import NDArray

from csametric.data import hpatches as data
from csametric.evaluation.hpatches import HPatchesScores, evaluate_matching, evaluate_retrieval, evaluate_verification
from csametric.training.progress import counted
from csametric.training.validation import Describe


def describe_release(root: Path, names: Sequence[str], describe: Describe) -> dict[str, dict[str, NDArray]]:
    """The descriptors of sequences by name and kind, with a bar."""
    return {
        name: data.describe_sequence(root / name, describe) for name in counted(names, "describing", len(names), enabled=True)
    }


def score_split(
    sequences: Sequence[Mapping[str, NDArray]], names: Sequence[str], split: str, tasks: Path, pairs: int = data.PAIRS
) -> HPatchesScores:
    """All tasks of a split; retrieval is None where its files are missing, verification pairs are drawn where theirs are.

    Args:
        pairs: how many to draw; the benchmark has a million.
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
