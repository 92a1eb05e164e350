"""Progress bars with rate and time left: context managers that yield what to call as the work goes on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from csametric.training.experiment import Experiment


def _bar(enabled: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        disable=not enabled,
    )


@contextmanager
def photo_progress(enabled: bool) -> Iterator[Callable[[int, int], None]]:
    """Yields a function of (photographs done, photographs in all); no bar where the cache is there."""
    with _bar(enabled) as bar:
        task = None

        def advance(done: int, total: int) -> None:
            nonlocal task
            task = bar.add_task("cutting patches", total=total, note="photographs") if task is None else task
            bar.update(task, completed=done)

        yield advance


@contextmanager
def step_progress(
    experiment: Experiment, first: int, announcement: str, enabled: bool
) -> Iterator[Callable[[int, dict[str, float]], None]]:
    """Prints what will run, then yields a function of (steps done, the row of metrics)."""
    with _bar(enabled) as bar:
        if enabled:
            bar.console.print(announcement, highlight=False, markup=False)
        task = bar.add_task(f"training {experiment.recipe}", total=experiment.steps, completed=first, note="")

        def advance(done: int, row: dict[str, float]) -> None:
            note = f"loss {row['loss']:.3f}, {row['pairs_per_second']:.0f} pairs/s"
            bar.update(task, completed=done, note=note)

        yield advance
