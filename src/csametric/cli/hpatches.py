"""hpatches: descriptors to the benchmark's layout and back, and its three tasks."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from csametric.data.hpatches import Describe
    from csametric.evaluation.hpatches import HPatchesScores

app = typer.Typer(help="HPatches: extract descriptors, score them.", no_args_is_help=True)
MISSING = "task file missing"
PRINTED_SPLITS = ("a", "full")


@app.callback()
def hpatches() -> None:
    """HPatches: extract descriptors, score them."""


@app.command()
def extract(
    descriptor: Annotated[str, typer.Argument(help="A run's folder; or sift, or rootsift.", metavar="RUN")],
    root: Annotated[Path, typer.Argument(help="The patch release: a folder a sequence.")],
    out: Annotated[Path, typer.Argument(help="Where the descriptors go: a folder a sequence, a .csv a kind.")],
) -> None:
    """Write the descriptors of all patches in the benchmark's layout, to be scored here or elsewhere.

    Example: csametric hpatches extract runs/hardnet_csa /data/hpatches-release descriptors/hardnet_csa
    """
    from csametric.data.hpatches import describe_sequence, find_sequences, write_descriptors
    from csametric.matching.descriptors import find_descriptor
    from csametric.training.progress import counted

    describe = find_descriptor(descriptor).of_patches
    names = find_sequences(root)
    for name in counted(names, "describing", len(names), enabled=True):
        write_descriptors(out / name, describe_sequence(root / name, describe))
    print(f"{len(names):,} sequences: {out}")


@app.command()
def score(
    descriptors: Annotated[
        Path, typer.Argument(help="A folder a sequence with ref.csv, e1.csv ... t5.csv, made here or elsewhere.")
    ],
    tasks: Annotated[Path, typer.Option("--tasks", help="The folder of the benchmark's task files (or the one around it).")],
    split: Annotated[str | None, typer.Option("--split", help="a, b, c, illum, view or full; by default a and full.")] = None,
) -> None:
    """Score descriptors by verification, matching and retrieval.

    Example: csametric hpatches score descriptors/hardnet_csa --tasks /data/hpatches-benchmark/tasks
    """
    from csametric.data.hpatches import find_sequences, read_descriptors, splits
    from csametric.errors import UserError
    from csametric.training.progress import counted

    if split is not None and split not in splits():
        raise UserError(f"there is no split {split}; use one of {', '.join(splits())}")
    if not tasks.is_dir():
        raise UserError(f"there is no folder {tasks}; name the one of the benchmark's task files, or any other to do without")
    names = find_sequences(descriptors)
    read = {name: read_descriptors(descriptors / name) for name in counted(names, "reading", len(names), enabled=True)}
    print_scores(descriptors.name, read, tasks, (split,) if split else PRINTED_SPLITS)


def score_describe(label: str, describe: "Describe", root: Path) -> None:
    """Describe all patches of the release and print the scores of splits a and full."""
    from csametric.data.hpatches import find_sequences
    from csametric.training.hpatches import describe_release

    print_scores(label, describe_release(root, find_sequences(root), describe), root, PRINTED_SPLITS)


def print_scores(label: str, sequences: "Mapping[str, Mapping[str, NDArray]]", tasks: Path, chosen: tuple[str, ...]) -> None:
    """The three tasks on each split whose sequences are all there.

    Raises:
        UserError: no split is whole.
    """
    from csametric.cli.tables import print_table
    from csametric.data.hpatches import splits
    from csametric.errors import UserError
    from csametric.training.hpatches import score_split

    widths = {name: sequence["ref"].shape[1] for name, sequence in sequences.items()}
    odd = next((name for name in widths if widths[name] != next(iter(widths.values()))), None)
    if odd:
        raise UserError(
            f"{odd} has {widths[odd]} columns, other sequences have {next(iter(widths.values()))}; write them again"
        )
    whole = {split: names for split in chosen if set(names := splits()[split]) <= sequences.keys()}
    if not whole:
        missing = next(name for name in splits()[chosen[0]] if name not in sequences)
        raise UserError(
            f"the sequence {missing} of split {chosen[0]} is not there; extract all of them, or name another --split"
        )
    scores = {split: score_split([sequences[name] for name in names], names, split, tasks) for split, names in whole.items()}
    header = ["per cent", *(f"split {split}" for split in scores)]
    print_table(f"HPatches, {label}", header, score_rows(list(scores.values())))


def score_rows(scores: "list[HPatchesScores]") -> list[list[str]]:
    """A row a figure, a column a split."""

    def percent(value: float | None) -> str:
        return MISSING if value is None else f"{100 * value:.2f}"

    rows = [
        ["verification (imbalanced AP, mean)", *(percent(each.verification_mean) for each in scores)],
        ["matching (mAP)", *(percent(each.matching_mean) for each in scores)],
        ["retrieval (mAP, mean over pools)", *(percent(each.retrieval_mean) for each in scores)],
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
