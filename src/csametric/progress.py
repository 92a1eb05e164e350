"""Progress with elapsed and remaining time: a bar on a terminal, elsewhere a plain line every half minute."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from time import monotonic
from typing import Any, TypeVar

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

SECONDS_BETWEEN_LINES = 30

Item = TypeVar("Item")


def _bar(enabled: bool) -> Progress:
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        disable=not enabled,
    )
    if enabled and not bar.console.is_terminal and not bar.console.is_jupyter:
        return PlainLines(disable=True, speed_estimate_period=10 * SECONDS_BETWEEN_LINES)
    return bar


class PlainLines(Progress):
    """Progress for log files: at most one line every half minute, and a last one after long work."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._printed_at = monotonic()
        self._has_printed = False

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """Advance a task; prints a line if half a minute has passed since the last."""
        super().update(task_id, **changes)
        self._print_at_times(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """Advance a task by some steps; prints a line if half a minute has passed since the last."""
        super().advance(task_id, advance)
        self._print_at_times(task_id)

    def _print_at_times(self, task_id: TaskID) -> None:
        task = self._tasks[task_id]
        is_due = monotonic() - self._printed_at >= SECONDS_BETWEEN_LINES
        if is_due or (self._has_printed and task.finished):
            self.console.print(progress_line(task), highlight=False, markup=False, soft_wrap=True)
            self._printed_at, self._has_printed = monotonic(), not task.finished


def progress_line(task: Task) -> str:
    """A task's progress as one line of text.

    Examples:
        >>> progress_line(Task(TaskID(0), "training", 200, 50, lambda: 0.0, fields={"note": "loss 0.31"}))
        'training 50/200 loss 0.31, 0:00:00 elapsed'
    """
    parts = [f"{task.description} {task.completed:g}/{task.total:g} {task.fields.get('note', '')}".rstrip()]
    parts.append(f"{_clock(task.elapsed)} elapsed")
    if task.time_remaining is not None:
        parts.append(f"{_clock(task.time_remaining)} left")
    return ", ".join(parts)


def _clock(seconds: float | None) -> str:
    return str(timedelta(seconds=round(seconds or 0)))


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
def show_data_progress(enabled: bool, title: str, note: str) -> Iterator[Callable[[int, int], None]]:
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
