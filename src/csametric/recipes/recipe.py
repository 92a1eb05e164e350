"""What makes a function a recipe: its name becomes the recipe's name."""

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from types import ModuleType
from typing import TypeVar

from csametric.runs.experiment import Experiment

AnyExperiment = TypeVar("AnyExperiment", bound=Experiment)


def recipe(build: Callable[[], AnyExperiment]) -> Callable[[], AnyExperiment]:
    """Name the experiment that a function returns after the function.

    Examples:
        >>> from csametric.runs.experiment import ReidExperiment
        >>> @recipe
        ... def short_pcb():
        ...     return ReidExperiment(epochs=60)
        >>> short_pcb().recipe
        'short_pcb'
    """

    @wraps(build)
    def named() -> AnyExperiment:
        return replace(build(), recipe=build.__name__)

    named.__is_recipe__ = True  # type: ignore[attr-defined]
    return named


def recipes_of(module: ModuleType) -> dict[str, Callable[[], Experiment]]:
    """The recipes of a module by name, in the order in which they are written."""
    return {name: value for name, value in vars(module).items() if hasattr(value, "__is_recipe__")}
