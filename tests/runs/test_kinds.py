"""What the table of kinds names is there."""

from dataclasses import asdict

import pytest

from csametric.errors import UserError
from csametric.recipes import RECIPES, find_recipe
from csametric.runs.kinds import KINDS, call, kind_of, resolve

FUNCTIONS = [name for kind in KINDS.values() for name in asdict(kind).values() if ":" in name]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_resolves(name):
    assert callable(resolve(name))


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_has_a_kind(recipe):
    assert kind_of(find_recipe(recipe)).open_task


def test_a_missing_function_is_explained():
    with pytest.raises(UserError, match="hardnet cannot be used here: the kind descriptors does not support measure_pace"):
        call(find_recipe("hardnet"), "measure_pace")
