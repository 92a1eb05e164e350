"""A tiny fixed training run, whose losses must not change when code is only rearranged.

In fp64, because hardest negatives amplify rounding: in fp32, two processors differ by several per cent after six steps.

After an intended change of the losses: python -m tests.training.test_golden
"""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from csametric.data.sampling import pair_batch
from csametric.inference.patches import build_descriptor
from csametric.recipes import find_recipe
from csametric.runs.experiment import PATCH_LOSSES
from csametric.runs.kinds import resolve
from csametric.runs.precision import Precision
from csametric.training.descriptor_task import batch_loss
from csametric.training.optimizer import descriptor_optimizer, linear_decay, scale_learning_rates

GOLDEN = Path(__file__).parents[1] / "golden" / "losses.json"
STEPS = 6
RECIPES = ("hardnet", "hardnet_sa", "hardnet_csa", "ralnet_csa")


def patches() -> np.ndarray:
    """Four noisy views of each of 64 blurred noise patches."""
    rng = np.random.default_rng(0)
    identities = np.stack([cv2.resize(rng.integers(0, 256, (6, 6), dtype=np.uint8), (32, 32)) for _ in range(64)])
    views = identities[:, None] + rng.normal(0, 20, (64, 4, 32, 32))
    return views.clip(0, 255).astype(np.uint8)


class DoublePrecision(torch.nn.Module):
    """A network that converts its patches to fp64 first."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, patches):
        return self.network(patches.double())


def losses(recipe: str) -> list[float]:
    experiment = find_recipe(recipe)
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)  # for the initial weights too
    try:
        model = build_descriptor(experiment.model)
    finally:
        torch.set_default_dtype(torch.float32)
    optimizer = descriptor_optimizer(model, experiment.optimizer)
    values = []
    for step in range(STEPS):
        scale_learning_rates(optimizer, linear_decay(step, STEPS))
        torch.manual_seed(step)
        batch = pair_batch(patches(), step, batch_size=16, seed=0)
        loss = batch_loss(
            DoublePrecision(model),
            batch,
            resolve(PATCH_LOSSES[experiment.loss]),
            torch.device("cpu"),
            Precision("fp32", "from the settings"),
        )
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        values.append(loss.item())
    return values


@pytest.mark.parametrize("recipe", RECIPES)
def test_losses_equal_those_of_the_golden_run(recipe):
    assert losses(recipe) == pytest.approx(json.loads(GOLDEN.read_text())[recipe], rel=1e-9)


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps({recipe: losses(recipe) for recipe in RECIPES}, indent=1) + "\n")
