"""Embedding with a loaded run."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from csametric import load
from csametric.errors import UserError
from tests.inference.inputs import random_inputs


@pytest.mark.parametrize("run", ["people_run", "patch_run"])
def test_features_that_are_not_finite_are_refused(run, request, tmp_path):
    folder = shutil.copytree(request.getfixturevalue(run), tmp_path / "damaged")
    weights = load_file(folder / "weights.safetensors")
    name = next(name for name in weights if name.endswith("running_var"))
    weights[name] = -torch.ones_like(weights[name])  # a flipped sign bit: finite, but its square root is not
    save_file(weights, folder / "weights.safetensors")
    model = load(folder)
    with pytest.raises(UserError, match="features are NaN or infinite: its weights are damaged"):
        model.embed(random_inputs(model))
