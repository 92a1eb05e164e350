"""Recipes by name: each is a function that returns an experiment."""

from collections.abc import Callable

from csametric.errors import UserError
from csametric.recipes import descriptors, reid
from csametric.training.experiment import Experiment

RECIPES: dict[str, Callable[[], Experiment]] = {
    "hardnet": descriptors.hardnet,
    "hardnet_sa": descriptors.hardnet_sa,
    "hardnet_csa": descriptors.hardnet_csa,
    "ralnet": descriptors.ralnet,
    "ralnet_sa": descriptors.ralnet_sa,
    "ralnet_csa": descriptors.ralnet_csa,
    "sosnet": descriptors.sosnet,
    "sosnet_csa": descriptors.sosnet_csa,
    "brown_hardnet": descriptors.brown_hardnet,
    "brown_hardnet_sa": descriptors.brown_hardnet_sa,
    "brown_hardnet_csa": descriptors.brown_hardnet_csa,
    "brown_ralnet": descriptors.brown_ralnet,
    "brown_ralnet_sa": descriptors.brown_ralnet_sa,
    "brown_ralnet_csa": descriptors.brown_ralnet_csa,
    "pcb": reid.pcb,
    "pcb_sa": reid.pcb_sa,
    "pcb_csa": reid.pcb_csa,
    "rpp": reid.rpp,
    "rpp_sa": reid.rpp_sa,
    "rpp_csa": reid.rpp_csa,
    "pcb_csa_maps8": reid.pcb_csa_maps8,
    "pcb_csa_maps16": reid.pcb_csa_maps16,
    "pcb_csa_maps64": reid.pcb_csa_maps64,
    "pcb_csa_groups1": reid.pcb_csa_groups1,
    "pcb_csa_groups4": reid.pcb_csa_groups4,
    "pcb_csa_groups8": reid.pcb_csa_groups8,
    "pcb_csa_stage1": reid.pcb_csa_stage1,
    "pcb_csa_stages23": reid.pcb_csa_stages23,
    "pcb_csa_unsupervised": reid.pcb_csa_unsupervised,
    "rpp_csa_unsupervised": reid.rpp_csa_unsupervised,
    "pcb_supervised": reid.pcb_supervised,
    "pcb_erasing": reid.pcb_erasing,
    "pcb_csa_fixed": reid.pcb_csa_fixed,
    "pcb_efficient": reid.pcb_efficient,
    "pcb_a2": reid.pcb_a2,
    "pcb_gc": reid.pcb_gc,
    "modern": reid.modern,
    "modern_csa": reid.modern_csa,
    "lite_pcb": reid.lite_pcb,
    "lite_pcb_supervised": reid.lite_pcb_supervised,
    "lite_pcb_sa": reid.lite_pcb_sa,
    "lite_pcb_csa": reid.lite_pcb_csa,
}


def find_recipe(name: str) -> Experiment:
    """The experiment of a recipe.

    Raises:
        UserError: an unknown name, with those there are.
    """
    if name not in RECIPES:
        raise UserError(f"there is no recipe {name!r}; use one of {', '.join(RECIPES)}")
    return RECIPES[name]()
