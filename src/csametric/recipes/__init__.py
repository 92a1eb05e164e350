"""Recipes by name: each is a function that returns an experiment, marked with `@recipe`."""

from collections.abc import Callable

from csametric.errors import UserError, suggestion
from csametric.recipes import patch_recipes, reid_recipes
from csametric.recipes.recipe import recipes_of
from csametric.runs.experiment import Experiment

RECIPES: dict[str, Callable[[], Experiment]] = recipes_of(patch_recipes) | recipes_of(reid_recipes)


def find_recipe(name: str) -> Experiment:
    """The experiment of a recipe.

    Raises:
        UserError: an unknown name; the message lists the known ones.

    Examples:
        >>> find_recipe("pcb_csa").model.attention
        'csa'
    """
    if name not in RECIPES:
        raise UserError(f"unknown recipe {name!r}; {suggestion(name, RECIPES)}use one of {', '.join(RECIPES)}")
    return RECIPES[name]()
