"""Progress bars with rate and time left: context managers that yield what to call as the work goes on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


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
def data_progress(enabled: bool) -> Iterator[Callable[[int, int], None]]:
    """Yields a function of (photographs done, photographs in all); no bar where the cache is there."""
    with _bar(enabled) as bar:
        task = None

        def advance(done: int, total: int) -> None:
            nonlocal task
            task = bar.add_task("cutting patches", total=total, note="photographs") if task is None else task
            bar.update(task, completed=done)

        yield advance


@contextmanager
def step_progress(title: str, steps: int, first: int, announcement: str, enabled: bool) -> Iterator[Callable[[int, str], None]]:
    """Prints what will run, then yields a function of (steps done, a note to show)."""
    with _bar(enabled) as bar:
        if enabled:
            bar.console.print(announcement, highlight=False, markup=False)
        task = bar.add_task(title, total=steps, completed=first, note="")

        def advance(done: int, note: str) -> None:
            bar.update(task, completed=done, note=note)

        yield advance
