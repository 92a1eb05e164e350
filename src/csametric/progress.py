"""Progress bars with elapsed and remaining time."""

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
    """Yield the items while a progress bar counts them.

    Args:
        items: iterated once.
        title: shown in front of the bar.
        total: number of items.
        enabled: whether to show the bar.
    """
    with _bar(enabled) as bar:
        task = bar.add_task(title, total=total, note="")
        for item in items:
            yield item
            bar.advance(task)


@contextmanager
def data_progress(enabled: bool, title: str, note: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function (items done, items in total) that advances a progress bar; the bar appears with its first call.

    Args:
        enabled: whether to show the bar.
        title: shown in front of the bar.
        note: shown behind the bar, for example what is counted.
    """
    with _bar(enabled) as bar:
        task = None

        def advance(done: int, total: int) -> None:
            nonlocal task
            if task is None:
                task = bar.add_task(title, total=total, note=note)
            bar.update(task, completed=done, total=total)

        yield advance


@contextmanager
def step_progress(title: str, steps: int, first: int, announcement: str, enabled: bool) -> Iterator[Callable[[int, str], None]]:
    """Print an announcement, then yield a function (steps done, note) that advances a progress bar.

    Args:
        title: shown in front of the bar.
        steps: total number of steps.
        first: steps done already.
        announcement: printed above the bar.
        enabled: whether to print the announcement and show the bar.
    """
    with _bar(enabled) as bar:
        if enabled:
            bar.console.print(announcement, highlight=False, markup=False, soft_wrap=True)
        task = bar.add_task(title, total=steps, completed=first, note="")

        def advance(done: int, note: str) -> None:
            bar.update(task, completed=done, note=note)

        yield advance
