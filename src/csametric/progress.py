"""Progress bars with rate and time left: context managers that yield what to call as the work goes on."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Item = TypeVar("Item")


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


def show_progress(items: Iterable[Item], title: str, total: int, enabled: bool) -> Iterator[Item]:
    """The items, with a bar that counts them."""
    with _bar(enabled) as bar:
        task = bar.add_task(title, total=total, note="")
        for item in items:
            yield item
            bar.advance(task)


@contextmanager
def data_progress(enabled: bool, title: str, note: str) -> Iterator[Callable[[int, int], None]]:
    """Yields a function of (items done, items in all); no bar where there is nothing to do."""
    with _bar(enabled) as bar:
        task = None

        def advance(done: int, total: int) -> None:
            nonlocal task
            task = bar.add_task(title, total=total, note=note) if task is None else task
            bar.update(task, completed=done, total=total)

        yield advance


@contextmanager
def step_progress(title: str, steps: int, first: int, announcement: str, enabled: bool) -> Iterator[Callable[[int, str], None]]:
    """Prints what will run, then yields a function of (steps done, a note to show)."""
    with _bar(enabled) as bar:
        if enabled:
            bar.console.print(announcement, highlight=False, markup=False, soft_wrap=True)
        task = bar.add_task(title, total=steps, completed=first, note="")

        def advance(done: int, note: str) -> None:
            bar.update(task, completed=done, note=note)

        yield advance
