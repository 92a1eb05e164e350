"""Recipes by name: each is a function that returns an experiment."""

from collections.abc import Callable

from csametric.errors import UserError
from csametric.recipes import patch_recipes, reid_recipes
from csametric.runs.experiment import Experiment

RECIPES: dict[str, Callable[[], Experiment]] = {
    "hardnet": patch_recipes.hardnet,
    "hardnet_sa": patch_recipes.hardnet_sa,
    "hardnet_csa": patch_recipes.hardnet_csa,
    "ralnet": patch_recipes.ralnet,
    "ralnet_sa": patch_recipes.ralnet_sa,
    "ralnet_csa": patch_recipes.ralnet_csa,
    "sosnet": patch_recipes.sosnet,
    "sosnet_csa": patch_recipes.sosnet_csa,
    "brown_hardnet": patch_recipes.brown_hardnet,
    "brown_hardnet_sa": patch_recipes.brown_hardnet_sa,
    "brown_hardnet_csa": patch_recipes.brown_hardnet_csa,
    "brown_ralnet": patch_recipes.brown_ralnet,
    "brown_ralnet_sa": patch_recipes.brown_ralnet_sa,
    "brown_ralnet_csa": patch_recipes.brown_ralnet_csa,
    "pcb": reid_recipes.pcb,
    "pcb_sa": reid_recipes.pcb_sa,
    "pcb_csa": reid_recipes.pcb_csa,
    "rpp": reid_recipes.rpp,
    "rpp_sa": reid_recipes.rpp_sa,
    "rpp_csa": reid_recipes.rpp_csa,
    "pcb_csa_maps8": reid_recipes.pcb_csa_maps8,
    "pcb_csa_maps16": reid_recipes.pcb_csa_maps16,
    "pcb_csa_maps64": reid_recipes.pcb_csa_maps64,
    "pcb_csa_groups1": reid_recipes.pcb_csa_groups1,
    "pcb_csa_groups4": reid_recipes.pcb_csa_groups4,
    "pcb_csa_groups8": reid_recipes.pcb_csa_groups8,
    "pcb_csa_stage1": reid_recipes.pcb_csa_stage1,
    "pcb_csa_stages23": reid_recipes.pcb_csa_stages23,
    "pcb_csa_unsupervised": reid_recipes.pcb_csa_unsupervised,
    "rpp_csa_unsupervised": reid_recipes.rpp_csa_unsupervised,
    "pcb_supervised": reid_recipes.pcb_supervised,
    "pcb_erasing": reid_recipes.pcb_erasing,
    "pcb_csa_fixed": reid_recipes.pcb_csa_fixed,
    "pcb_efficient": reid_recipes.pcb_efficient,
    "pcb_a2": reid_recipes.pcb_a2,
    "pcb_gc": reid_recipes.pcb_gc,
    "modern": reid_recipes.modern,
    "modern_csa": reid_recipes.modern_csa,
    "lite_pcb": reid_recipes.lite_pcb,
    "lite_pcb_supervised": reid_recipes.lite_pcb_supervised,
    "lite_pcb_sa": reid_recipes.lite_pcb_sa,
    "lite_pcb_csa": reid_recipes.lite_pcb_csa,
}


def find_recipe(name: str) -> Experiment:
    """The experiment of a recipe.

    Raises:
        UserError: an unknown name, with those there are.
    """
    if name not in RECIPES:
        raise UserError(f"there is no recipe {name!r}; use one of {', '.join(RECIPES)}")
    return RECIPES[name]()
