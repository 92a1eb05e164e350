"""Settings: JSON there and back, typed overrides, refusals."""

import json
from dataclasses import fields
from inspect import signature

import pytest

from csametric import PCB
from csametric.errors import UserError
from csametric.recipes import RECIPES, find_recipe
from csametric.runs.experiment import PATCH_LOSSES, DescriptorExperiment, PCBSettings
from csametric.runs.kinds import resolve
from csametric.runs.overrides import from_json, override, to_json


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
        ("stepz=1", "unknown setting stepz; did you mean steps?"),
        ("model.map=1", "unknown setting model.map; did you mean model.maps?"),
        ("maps=1", "unknown setting maps; did you mean model.maps?"),
        ("zzzz=1", "the settings are recipe, task, seed"),
        ("steps=many", "steps must be a whole number, got many"),
        ("steps=1.5", "steps must be a whole number, got 1.5"),
        ("optimizer.lr=fast", "optimizer.lr must be a number, got fast"),
        ("model.attention=gcn", "model.attention must be one of none, sa, csa, got gcn"),
        ("steps", "must be name=value, for example optimizer.lr=0.05; got 'steps'"),
        ("optimizer=3", "set one of optimizer.lr"),
        ("steps.more=3", "steps is a single value"),
        ("steps=0", "steps must be at least 1, got 0"),
        ("batch_size=1", "batch_size must be at least 2"),
        ("seed=-1", "seed must be a whole number from 0"),
        ("optimizer.lr=nan", "optimizer.lr must be finite, got nan"),
        ("optimizer.lr=-1", "optimizer.lr must be at least 0, got -1"),
        ("model.dropout=2", "model.dropout must be a probability in"),
        ("model.maps=0", "model.maps must be at least 1, got 0"),
        ("data.separation=nan", "data.separation must be finite"),
        ("loss=hard", f"loss must be one of {', '.join(PATCH_LOSSES)}, got hard"),
        ("data.level=harder", "data.level must be one of easy, hard, tough, got harder"),
    ],
)
def test_refusals_say_what_is_allowed(assignment, words):
    with pytest.raises(UserError, match=words):
        override(DescriptorExperiment(recipe="x"), [assignment])


def test_json_of_another_version_is_refused():
    values = json.loads(to_json(DescriptorExperiment(recipe="x")))
    values["optimizer"]["beta"] = 1
    with pytest.raises(UserError, match=r"unknown setting optimizer\.beta"):
        from_json(json.dumps(values))
    values = json.loads(to_json(DescriptorExperiment(recipe="x")))
    for value, words in (([1], r"steps must be a whole number, got \[1\]"), (1.5, "steps must be a whole number, got 1.5")):
        with pytest.raises(UserError, match=words):
            from_json(json.dumps(values | {"steps": value}))
    for broken, words in (
        ({"task": "descriptors", "steps": 3}, "lacks the name of its recipe"),
        ([], "task must be one of descriptors, brown, reid"),
        ({"task": "cooking"}, "task must be one of descriptors, brown, reid"),
        ({"task": "reid", "data": 3}, "data must be a group of settings, got 3"),
    ):
        with pytest.raises(UserError, match=words):
            from_json(json.dumps(broken))


def test_unknown_recipe():
    with pytest.raises(UserError, match=r"unknown recipe 'hardent'; did you mean hardnet\? use one of hardnet"):
        find_recipe("hardent")


def test_settings_that_a_peer_would_ignore_are_refused():
    with pytest.raises(UserError, match=r"model\.maps has no effect with model\.attention=gc; leave it out"):
        override(find_recipe("pcb_gc"), ["model.maps=8"])
    with pytest.raises(UserError, match=r"model\.alpha has no effect with model\.attention=a2"):
        override(find_recipe("pcb_csa"), ["model.alpha=1", "model.attention=a2"])
    assert override(find_recipe("pcb_csa"), ["model.maps=8"]).model.maps == 8


def test_defaults_of_the_settings_are_those_of_the_model_but_for_three():
    parameters = signature(PCB).parameters
    assert {f.name for f in fields(PCBSettings)} == set(parameters) - {"num_ids"} | {"start_from", "new_heads"}
    different = {
        f.name: f.default for f in fields(PCBSettings) if f.name in parameters and parameters[f.name].default != f.default
    }
    assert different == {"attention": "none", "deep_supervision": False, "pretrained": "imagenet"}


def test_a_recipe_is_named_after_its_function():
    for name, build in RECIPES.items():
        assert build.__name__ == build().recipe == name


def test_every_loss_is_a_function():
    for name in PATCH_LOSSES.values():
        assert callable(resolve(name))
