"""Budgets: the experiment of a paper's row in full size, small enough for a CPU, or tiny, as a trial of the pipeline."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

from csametric.recipes import find_recipe
from csametric.recipes.reid_recipes import lite
from csametric.runs.experiment import BrownExperiment, DescriptorOptimizer, Experiment, ReidExperiment
from csametric.runs.overrides import override

Budget = Literal["full", "quick", "tiny"]
MEANINGS = {
    "full": "the paper's setting",
    "quick": (
        "for a CPU: EfficientNet-Lite0 at 192 x 64 for 6 epochs, self-attention at a tenth of the other layers' learning rate; "
        "112,640 pairs of patches; not the paper's setting"
    ),
    "tiny": "a trial of the pipeline: tiny networks, a few steps; the scores are meaningless",
}


def experiment_for(recipe: str, data: str, folder: Path, seed: int, budget: Budget, weights: Path | None = None) -> Experiment:
    """The experiment of a recipe on a dataset.

    Args:
        recipe: a name of `RECIPES`.
        data: a key of `places.DATA`.
        folder: of the dataset.
        seed: of weights, order and views.
        budget: a key of `MEANINGS`.
        weights: a file of the backbone's ImageNet weights, used by the full budget on a machine without internet.

    Examples:
        >>> experiment_for("pcb_csa", "market1501", Path("/data/market"), 0, "tiny").epochs
        2
    """
    experiment = find_recipe(recipe)
    if isinstance(experiment, BrownExperiment):
        train = data.removeprefix("brown-")
        return BROWN[budget](override(experiment, [f"seed={seed}", f"data.root={folder}", f"data.train={train}"]))
    assert isinstance(experiment, ReidExperiment)
    assignments = [f"seed={seed}", f"data.kind={data}", f"data.path={folder}"]
    if weights and budget == "full":
        assignments.append(f"model.pretrained={weights.resolve()}")
    return REID[budget](override(experiment, assignments))


def _quick_reid(full: ReidExperiment) -> ReidExperiment:
    return lite(full)


def _tiny_reid(full: ReidExperiment) -> ReidExperiment:
    return replace(
        full,
        batch_size=16,
        precision="fp32",
        epochs=2,
        refine_from=1 if full.model.refined else full.refine_from,
        data=replace(full.data, height=48, width=16, pad=full.data.pad // 8),
        model=replace(full.model, backbone="test_resnet", pretrained="none", parts=3, embedding=32),
        optimizer=replace(full.optimizer, warmup_epochs=0.0),
    )


def _quick_brown(full: BrownExperiment) -> BrownExperiment:
    return replace(full, batch_size=512, epochs=1, pairs_per_epoch=220 * 512, optimizer=DescriptorOptimizer())


def _tiny_brown(full: BrownExperiment) -> BrownExperiment:
    return replace(full, batch_size=32, epochs=1, pairs_per_epoch=3 * 32, optimizer=DescriptorOptimizer())


REID: dict[str, Callable[[ReidExperiment], ReidExperiment]] = {
    "full": lambda full: full,
    "quick": _quick_reid,
    "tiny": _tiny_reid,
}
BROWN: dict[str, Callable[[BrownExperiment], BrownExperiment]] = {
    "full": lambda full: full,
    "quick": _quick_brown,
    "tiny": _tiny_brown,
}
