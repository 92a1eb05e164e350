"""Every setting of a run, as frozen dataclasses; `overrides` reads and writes them as JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

from csametric.attention.catalogue import NAMES, PEERS
from csametric.data.brown import BrownSettings
from csametric.data.photo_patches import PhotoSettings
from csametric.errors import UserError

PATCH_LOSSES = {  # by name, the function that `kinds.resolve` imports: settings are read without importing losses
    "hardnet": "losses.hardnet:hardnet_loss",
    "ral": "losses.ralnet:ral_loss",
    "sos": "losses.sosnet:sos_loss",
}
GREATEST = 10**9  # of any number of things, pixels, steps or units
LEAST_EPOCHS = 0.001  # between decays
ATTENTION_SETTINGS = ("maps", "groups", "alpha", "learn_alpha", "attention_norm")  # of PCBSettings, which peers do not have


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What every run has."""

    recipe: str = ""  # the name of the recipe that it comes from
    task: str
    seed: int = 0  # in [0, 2**63)
    batch_size: int = 64  # pairs or images per step on each process, at least 2
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # "auto" takes bf16 if the processor is fast at it
    checkpoint_every: int = 50  # steps; the last step is always saved
    attention_every: int = 0  # steps between records of the attention (metrics.jsonl, TensorBoard); 0 for none

    def __post_init__(self) -> None:
        _check_least(self, "", checkpoint_every=1, batch_size=1, attention_every=0)
        if self.batch_size < 2:
            raise UserError("batch_size must be at least 2, because a single image or pair has nothing to differ from; got 1")
        if not 0 <= self.seed < 2**63:
            raise UserError(f"seed must be a whole number from 0 to 2**63 - 1, got {self.seed}")

    @property
    def has_unused_parameters(self) -> bool:
        """Whether some parameters take no part in some steps, which DistributedDataParallel must be told."""
        return False

    def without_paths(self) -> Self:
        """The experiment without the paths of this machine."""
        return replace(self, **{name: getattr(self, name).without_paths() for name in ("data", "model")})

    def with_data_of(self, other: "Experiment") -> Self:
        """The experiment on the data of another one of the same kind."""
        return replace(self, data=other.data)  # type: ignore[attr-defined, call-arg]

    def refuse_ignored(self, names: Sequence[str]) -> None:
        """Raise `UserError` if a setting among `names`, which a user has set, would be ignored."""


@dataclass(frozen=True, kw_only=True)
class DescriptorSettings:
    """L2Net, see `models.l2net.L2Net`."""

    attention: Literal["none", "sa", "csa"] = "none"  # after the third convolution
    maps: int = 32  # D of "csa", which has one group
    dropout: float = 0.3  # a probability

    def __post_init__(self) -> None:
        _check_least(self, "model.", maps=1)
        _check_probabilities(self, "model.", "dropout")

    def without_paths(self) -> Self:
        """The same settings, which hold no path."""
        return self


@dataclass(frozen=True, kw_only=True)
class DescriptorOptimizer:
    """SGD with learning rates that fall linearly to 0, step by step.

    The attention has rates of its own: BatchNorm makes a convolution insensitive to its scale, but not the attention
    (docs/EXPERIMENTS.md says how the rates were found).
    """

    lr: float = 1.0  # of the convolutions
    attention_lr: float = 10.0  # of the attention's 1x1 weights
    alpha_lr: float = 30.0  # of its alpha, which has no weight decay
    momentum: float = 0.9
    dampening: float = 0.9
    weight_decay: float = 1e-4

    def __post_init__(self) -> None:
        _check_not_negative(self, "optimizer.")
        _check_probabilities(self, "optimizer.", "momentum")
        _check_probabilities(self, "optimizer.", "dampening", highest=1.0)


@dataclass(frozen=True, kw_only=True)
class PatchExperiment(Experiment):
    """A local descriptor trained on pairs of patches."""

    batch_size: int = 512
    loss: str = "hardnet"  # a name of `PATCH_LOSSES`
    model: DescriptorSettings = field(default_factory=DescriptorSettings)
    optimizer: DescriptorOptimizer = field(default_factory=DescriptorOptimizer)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss not in PATCH_LOSSES:
            raise UserError(f"loss must be one of {', '.join(PATCH_LOSSES)}, got {self.loss}")


@dataclass(frozen=True, kw_only=True)
class DescriptorExperiment(PatchExperiment):
    """A descriptor trained on patches of photographs."""

    task: Literal["descriptors"] = "descriptors"
    steps: int = 220
    evaluate_every: int = 40  # steps; the last step is always evaluated
    data: PhotoSettings = field(default_factory=PhotoSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_least(self, "", steps=1, evaluate_every=1)


@dataclass(frozen=True, kw_only=True)
class BrownExperiment(PatchExperiment):
    """A descriptor trained on a subset of Brown / UBC PhotoTour."""

    task: Literal["brown"] = "brown"
    epochs: int = 10
    pairs_per_epoch: int = 5_000_000
    evaluate_every: int = 2000  # steps; the last step is always evaluated
    data: BrownSettings = field(default_factory=BrownSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_least(self, "", epochs=1, evaluate_every=1, pairs_per_epoch=self.batch_size)


@dataclass(frozen=True, kw_only=True)
class ReidData:
    """The images, how they are augmented (see `data.transforms.Augmentation`) and how they are evaluated."""

    kind: str = "market1501"  # of `data.datasets.read_dataset`
    path: str = ""
    height: int = 384  # pixels, a multiple of 16 x parts
    width: int = 128  # pixels
    images_per_identity: int = 0  # K > 0: batches of batch_size / K identities with K images each; 0: images shuffled
    flip: float = 0.5  # a probability
    pad: int = 0  # pixels around an image before a random crop
    erasing: float = 0.0  # a probability
    camera_filter: bool = True  # evaluation leaves out gallery images of the query's identity and camera
    calibration: float = 0.0  # share of the training identities that are held back to calibrate verification
    camera_pattern: str = ""  # for kind=folder, a regular expression whose capture group is the camera; see `data.folder`

    def __post_init__(self) -> None:
        _check_least(self, "data.", height=16, width=16, images_per_identity=0, pad=0)
        _check_probabilities(self, "data.", "flip", "erasing", highest=1.0)
        _check_probabilities(self, "data.", "calibration", highest=0.9)

    def without_paths(self) -> Self:
        """The settings without the dataset's folder."""
        return replace(self, path="")


@dataclass(frozen=True, kw_only=True)
class PCBSettings:
    """The arguments of `models.pcb.PCB`, which has their meaning, and the weights to begin with.

    Defaults are those of PCB but for three: plain PCB comes without attention and supervision, and starts from ImageNet.
    """

    backbone: str = "resnet50"  # a timm name
    pretrained: str = "imagenet"  # "none", "imagenet", "wheel" or a file of weights
    start_from: str = ""  # a finished run whose weights to start from, or ""
    new_heads: bool = False  # with start_from: take the backbone and its attention only, for other identities
    parts: int = 6
    refined: bool = False
    attention: str = "none"  # "none" or a name of `attention.catalogue.NAMES`
    stages: tuple[int, ...] = (1, 2, 3)
    maps: int = 32
    groups: int = 2
    alpha: float = 0.0
    learn_alpha: bool = True
    attention_norm: bool = False
    deep_supervision: bool = False
    shared_embedding: bool = False
    embedding: int = 256
    feature: Literal["pooled", "embedded"] = "pooled"
    dropout: float = 0.5
    plain_refinement: bool = False

    def __post_init__(self) -> None:
        if self.attention not in ("none", *NAMES):
            raise UserError(f"model.attention must be one of none, {', '.join(NAMES)}, got {self.attention}")
        _check_least(self, "model.", parts=1, maps=1, groups=1, embedding=1)
        _check_probabilities(self, "model.", "dropout")
        if not self.stages or len(set(self.stages)) < len(self.stages):
            raise UserError(f"model.stages must be different stages of 1, 2, 3, for example 1,2, got {self.stages}")
        if self.new_heads and not self.start_from:
            raise UserError("model.new_heads needs model.start_from, the run whose backbone to start from")
        if self.attention in ("sa", "csa") and self.alpha == 0 and not self.learn_alpha:
            raise UserError("model.alpha=0 with model.learn_alpha=false switches the attention off; set model.alpha=1")

    def without_paths(self) -> Self:
        """The settings without folders: a file of weights keeps its name, start_from becomes empty."""
        return replace(self, start_from="", new_heads=False, pretrained=Path(self.pretrained).name)


@dataclass(frozen=True, kw_only=True)
class ReidLoss:
    """The cross-entropies of parts and supervised stages, and a triplet term."""

    supervision: float = 1.0  # lambda, the weight of the supervised stages
    average: bool = False  # the mean over parts instead of PCB's sum
    label_smoothing: float = 0.0  # a probability
    triplet: float = 0.0  # weight of the batch-hard triplet loss on unit features; needs data.images_per_identity >= 2
    margin: float = 0.3  # of the triplet loss

    def __post_init__(self) -> None:
        _check_not_negative(self, "loss.")
        _check_probabilities(self, "loss.", "label_smoothing")


@dataclass(frozen=True, kw_only=True)
class ReidOptimizer:
    """SGD with a learning rate per group of parameters, and one schedule for all."""

    lr: float = 0.1  # of layers that start from random weights
    backbone_lr: float = 0.01  # of layers that start from pretrained weights
    attention_lr: float = 0.1  # of the attention's 1x1 weights
    alpha_lr: float = 0.1  # of its alpha, which has no weight decay
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    schedule: Literal["step", "cosine"] = "step"  # "cosine" falls to 0 at the last epoch
    decay: float = 0.1  # the factor of each step
    decay_every: float = 40.0  # epochs between steps
    warmup_epochs: float = 0.0  # in which all rates rise linearly from 0

    def __post_init__(self) -> None:
        _check_not_negative(self, "optimizer.")
        _check_probabilities(self, "optimizer.", "momentum")
        _check_probabilities(self, "optimizer.", "decay", highest=1.0)
        if self.decay_every < LEAST_EPOCHS:
            raise UserError(f"optimizer.decay_every must be the number of epochs between decays, got {self.decay_every:g}")
        if self.nesterov and self.momentum == 0:
            raise UserError("optimizer.nesterov needs optimizer.momentum above 0; set for example optimizer.momentum=0.9")


@dataclass(frozen=True, kw_only=True)
class ReidExperiment(Experiment):
    """A model of person re-identification."""

    task: Literal["reid"] = "reid"
    epochs: int = 100
    refine_from: int = 40  # the epoch from which a refined model uses soft parts instead of stripes
    freeze_epochs: int = 0  # epochs from refine_from on in which only the part classifier is trained
    evaluate_every: int = 0  # epochs; 0 evaluates only at the end
    data: ReidData = field(default_factory=ReidData)
    model: PCBSettings = field(default_factory=PCBSettings)
    loss: ReidLoss = field(default_factory=ReidLoss)
    optimizer: ReidOptimizer = field(default_factory=ReidOptimizer)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_least(self, "", epochs=1, evaluate_every=0, refine_from=0, freeze_epochs=0)
        if -(-self.data.height // 16) % self.model.parts:
            height, parts = self.data.height, self.model.parts
            nearest = max(1, round(height / (16 * parts))) * 16 * parts
            raise UserError(
                f"data.height must be a multiple of {16 * parts} (16 x {parts} parts), got {height}; use data.height={nearest}"
            )
        if self.model.refined and self.refine_from >= self.epochs:
            raise UserError(f"refine_from must be less than epochs={self.epochs}, got {self.refine_from}")
        if self.loss.triplet > 0 and self.batch_size < 2 * self.data.images_per_identity:
            least = 2 * self.data.images_per_identity
            raise UserError(
                f"loss.triplet needs two identities per batch; use at least batch_size={least}, got {self.batch_size}"
            )
        if self.loss.triplet > 0 and self.data.images_per_identity < 2:
            raise UserError("loss.triplet needs several images of an identity per batch; set data.images_per_identity=4")

    @property
    def has_unused_parameters(self) -> bool:
        """Whether the model is refined: it begins with stripes, without its part classifier."""
        return self.model.refined

    def refuse_ignored(self, names: Sequence[str]) -> None:
        """Raise `UserError` for a setting of the attention that a peer of CSA does not have, or of another kind of data."""
        if "data.camera_pattern" in names and self.data.kind != "folder":
            raise UserError(f"data.camera_pattern has no effect with data.kind={self.data.kind}; leave it out")
        ignored = [name for name in names if name.removeprefix("model.") in ATTENTION_SETTINGS]
        if self.model.attention in PEERS and ignored:
            raise UserError(f"{ignored[0]} has no effect with model.attention={self.model.attention}; leave it out")


EXPERIMENTS: dict[str, type[Experiment]] = {
    "descriptors": DescriptorExperiment,
    "brown": BrownExperiment,
    "reid": ReidExperiment,
}


def _check_least(settings: Any, prefix: str, **least: int) -> None:
    for name, value in least.items():
        _check_range(prefix + name, getattr(settings, name), value)


def _check_not_negative(settings: Any, prefix: str) -> None:
    for name, value in asdict(settings).items():
        if isinstance(value, float):
            _check_range(prefix + name, value, 0)


def _check_range(name: str, value: float, least: int) -> None:
    if value < least:
        raise UserError(f"{name} must be at least {least}, got {value:g}")
    if value > GREATEST:
        raise UserError(f"{name} must be at most {GREATEST:,}, got {value:g}")


def _check_probabilities(settings: Any, prefix: str, *names: str, highest: float = 0.999) -> None:
    for name in names:
        if not 0 <= getattr(settings, name) <= highest:
            raise UserError(f"{prefix}{name} must be a probability in [0, {highest:g}], got {getattr(settings, name)}")
