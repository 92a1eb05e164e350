"""Settings: JSON there and back, typed overrides, refusals."""

import json

import pytest

from csametric.errors import UserError
from csametric.recipes import RECIPES, find_recipe
from csametric.runs.experiment import DescriptorExperiment, from_json, override, to_json


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_survives_json(recipe):
    experiment = find_recipe(recipe)
    assert experiment.recipe == recipe
    assert from_json(to_json(experiment)) == experiment


def test_overrides_are_typed():
    changed = override(DescriptorExperiment(recipe="x"), ["steps=7", "optimizer.lr=5", "data.folder=3", "model.attention=csa"])
    assert (changed.steps, changed.optimizer.lr, changed.data.folder, changed.model.attention) == (7, 5.0, "3", "csa")
    assert isinstance(changed.optimizer.lr, float)


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("optimizer.learning_rate=1", "did you mean attention_lr|did you mean"),
        ("stepz=1", "there is no setting stepz; did you mean steps?"),
        ("model.map=1", "there is no setting model.map; did you mean model.maps?"),
        ("maps=1", "there is no setting maps; did you mean model.maps?"),
        ("zzzz=1", "known are recipe, task, seed"),
        ("steps=many", "steps=many is not a whole number"),
        ("steps=1.5", "is not a whole number"),
        ("optimizer.lr=fast", "is not a number"),
        ("model.attention=gcn", "use one of none, sa, csa"),
        ("steps", "write it as name=value"),
        ("optimizer=3", "set one of optimizer.lr"),
        ("steps.more=3", "goes too deep"),
        ("steps=0", "use 1 or more"),
        ("batch_size=1", "has no negatives; use 2 or more"),
        ("seed=-1", "is no seed"),
        ("optimizer.lr=nan", "is not a finite number"),
        ("optimizer.lr=-1", "is negative; use 0 or more"),
        ("model.dropout=2", "is no probability"),
        ("model.maps=0", "use 1 or more"),
        ("data.separation=nan", "is not a finite number"),
        ("data.level=harder", "use one of easy, hard, tough"),
    ],
)
def test_refusals_name_the_mend(assignment, words):
    with pytest.raises(UserError, match=words):
        override(DescriptorExperiment(recipe="x"), [assignment])


def test_json_of_another_version_is_refused():
    values = json.loads(to_json(DescriptorExperiment(recipe="x")))
    values["optimizer"]["beta"] = 1
    with pytest.raises(UserError, match=r"no setting optimizer\.beta"):
        from_json(json.dumps(values))
    values = json.loads(to_json(DescriptorExperiment(recipe="x")))
    for value, words in (([1], r"steps=\[1\] is not"), (1.5, "steps=1.5 is not a whole number")):
        with pytest.raises(UserError, match=words):
            from_json(json.dumps(values | {"steps": value}))
    for broken, words in (
        ({"task": "descriptors", "steps": 3}, "names no recipe"),
        ([], "names no task of this version"),
        ({"task": "cooking"}, "names no task of this version \\(descriptors, brown, reid\\)"),
        ({"task": "reid", "data": 3}, "data is not a group"),
    ):
        with pytest.raises(UserError, match=words):
            from_json(json.dumps(broken))


def test_unknown_recipe():
    with pytest.raises(UserError, match="there is no recipe 'hardent'; use one of hardnet"):
        find_recipe("hardent")
