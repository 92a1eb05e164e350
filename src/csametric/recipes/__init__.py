"""Recipes by name: each is a function that returns an experiment."""

from collections.abc import Callable

from csametric.errors import UserError
from csametric.recipes import descriptors
from csametric.training.experiment import Experiment

RECIPES: dict[str, Callable[[], Experiment]] = {
    "hardnet": descriptors.hardnet,
    "hardnet_sa": descriptors.hardnet_sa,
    "hardnet_csa": descriptors.hardnet_csa,
    "ralnet": descriptors.ralnet,
    "ralnet_sa": descriptors.ralnet_sa,
    "ralnet_csa": descriptors.ralnet_csa,
}


def find_recipe(name: str) -> Experiment:
    """The experiment of a recipe.

    Raises:
        UserError: an unknown name, with those there are.
    """
    if name not in RECIPES:
        raise UserError(f"there is no recipe {name!r}; use one of {', '.join(RECIPES)}")
    return RECIPES[name]()
