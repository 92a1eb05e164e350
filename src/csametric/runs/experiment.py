"""The whole of a run as frozen dataclasses, to and from JSON, with typed overrides by dotted name."""

import difflib
import json
import math
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, get_args, get_origin, get_type_hints

from csametric.data.brown import BrownSettings
from csametric.data.photo_patches import PhotoSettings
from csametric.errors import UserError

PCBAttention = Literal[
    "none", "sa", "csa", "non_local", "danet", "efficient", "a2", "gc", "se", "mhsa", "ema", "external", "csa_pooled"
]


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What every run has.

    batch_size: pairs or images a step on each process. precision: "auto" takes bf16 where the processor is fast at it.
    checkpoint_every: steps; the last one is always saved. attention_every: steps between looks at attention, 0 for none: its
    statistics go to metrics.jsonl, its maps to TensorBoard.
    """

    recipe: str
    task: str
    seed: int = 0
    batch_size: int = 64
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    checkpoint_every: int = 50
    attention_every: int = 0

    def __post_init__(self) -> None:
        _check_least(self, "", checkpoint_every=1, batch_size=1, attention_every=0)
        if self.batch_size < 2:
            raise UserError("batch_size=1 has no negatives; use 2 or more")
        if not 0 <= self.seed < 2**63:
            raise UserError(f"seed={self.seed} is no seed; use a whole number from 0 on")

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


@dataclass(frozen=True, kw_only=True)
class DescriptorSettings:
    """L2Net and the layer after its third convolution: "none", "sa" or "csa"; see `models.l2net.L2Net`."""

    attention: Literal["none", "sa", "csa"] = "none"
    maps: int = 32
    dropout: float = 0.3

    def __post_init__(self) -> None:
        if self.maps < 1:
            raise UserError(f"model.maps={self.maps} leaves nothing to attend with; use 1 or more")
        _check_probabilities(self, "model.", "dropout")

    def without_paths(self) -> Self:
        """The same: these settings name no path."""
        return self


@dataclass(frozen=True, kw_only=True)
class DescriptorOptimizer:
    """SGD with a learning rate that falls linearly to 0, per step.

    lr is of the convolutions, which BatchNorm makes blind to their scale; attention_lr is of the attention's 1x1
    weights and alpha_lr of its alpha, which it does not (docs/EXPERIMENTS.md tells how they were found). alpha has no
    weight decay.
    """

    lr: float = 1.0
    attention_lr: float = 10.0
    alpha_lr: float = 30.0
    momentum: float = 0.9
    dampening: float = 0.9
    weight_decay: float = 1e-4

    def __post_init__(self) -> None:
        _check_not_negative(self, "optimizer.")


@dataclass(frozen=True, kw_only=True)
class PatchExperiment(Experiment):
    """A local descriptor trained on pairs of patches."""

    batch_size: int = 512
    loss: Literal["hardnet", "ral", "sos"] = "hardnet"
    model: DescriptorSettings = field(default_factory=DescriptorSettings)
    optimizer: DescriptorOptimizer = field(default_factory=DescriptorOptimizer)


@dataclass(frozen=True, kw_only=True)
class DescriptorExperiment(PatchExperiment):
    """On patches of photographs. evaluate_every: steps; the last one is always evaluated."""

    task: Literal["descriptors"] = "descriptors"
    steps: int = 220
    evaluate_every: int = 40
    data: PhotoSettings = field(default_factory=PhotoSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_least(self, "", steps=1, evaluate_every=1)


@dataclass(frozen=True, kw_only=True)
class BrownExperiment(PatchExperiment):
    """On a subset of Brown / UBC PhotoTour. evaluate_every: steps; the last one is always evaluated."""

    task: Literal["brown"] = "brown"
    epochs: int = 10
    pairs_per_epoch: int = 5_000_000
    evaluate_every: int = 2000
    data: BrownSettings = field(default_factory=BrownSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_least(self, "", epochs=1, evaluate_every=1, pairs_per_epoch=self.batch_size)


@dataclass(frozen=True, kw_only=True)
class ReidData:
    """Which images, and how they are changed for training.

    kind, path: as `data.datasets.read_dataset` takes them. height, width: pixels, the height a multiple of 16 x parts.
    images_per_identity: 0 shuffles the images; K > 0 takes batch_size / K identities with K images each.
    camera_filter: whether gallery images of a query's identity and camera are left out in evaluation.
    flip, erasing: probabilities; pad: pixels; see `data.transforms.Augmentation`.
    """

    kind: str = "market1501"
    path: str = ""
    height: int = 384
    width: int = 128
    images_per_identity: int = 0
    flip: float = 0.5
    pad: int = 0
    erasing: float = 0.0
    camera_filter: bool = True

    def __post_init__(self) -> None:
        _check_least(self, "data.", height=16, width=16, images_per_identity=0, pad=0)
        _check_probabilities(self, "data.", "flip", "erasing", highest=1.0)

    def without_paths(self) -> Self:
        """The settings without the place of the dataset."""
        return replace(self, path="")


@dataclass(frozen=True, kw_only=True)
class PCBSettings:
    """PCB or RPP with attention and supervision after stages of its backbone; see `models.pcb.PCB`.

    pretrained: "none", "imagenet", "wheel" or a file of weights. start_from: a finished run of the same
    identities whose weights to begin with, or "" for none.
    """

    backbone: str = "resnet50"
    pretrained: str = "imagenet"
    start_from: str = ""
    parts: int = 6
    refined: bool = False
    attention: PCBAttention = "none"
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
        _check_least(self, "model.", parts=1, maps=1, groups=1, embedding=1)
        _check_probabilities(self, "model.", "dropout")
        if not self.stages or len(set(self.stages)) < len(self.stages):
            raise UserError(f"model.stages={self.stages} names no stage or one twice; use for example 1,2,3")
        if self.attention in ("sa", "csa") and self.alpha == 0 and not self.learn_alpha:
            raise UserError("model.alpha=0 that is not learned switches the attention off; set model.alpha=1")

    def without_paths(self) -> Self:
        """The settings without the places of weights; a file of weights keeps its name."""
        return replace(self, start_from="", pretrained=Path(self.pretrained).name)


@dataclass(frozen=True, kw_only=True)
class ReidLoss:
    """The cross-entropies of parts and supervised stages, and a triplet term.

    supervision: lambda of the supervised stages. average: the mean over parts instead of PCB's sum. triplet: the weight of
    the batch-hard triplet loss on the unit features, 0 for none; it needs data.images_per_identity of 2 or more.
    """

    supervision: float = 1.0
    average: bool = False
    label_smoothing: float = 0.0
    triplet: float = 0.0
    margin: float = 0.3

    def __post_init__(self) -> None:
        _check_not_negative(self, "loss.")
        _check_probabilities(self, "loss.", "label_smoothing")


@dataclass(frozen=True, kw_only=True)
class ReidOptimizer:
    """SGD in groups: lr of what starts anew, backbone_lr of what starts from pretrained weights, attention_lr of the
    attention's 1x1 weights, alpha_lr of its alpha, which has no weight decay.

    schedule: "step" multiplies by `decay` every `decay_every` epochs; "cosine" falls to 0 at the end. Both rise linearly from 0
    within the first warmup_epochs.
    """

    lr: float = 0.1
    backbone_lr: float = 0.01
    attention_lr: float = 0.1
    alpha_lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    schedule: Literal["step", "cosine"] = "step"
    decay: float = 0.1
    decay_every: float = 40.0
    warmup_epochs: float = 0.0

    def __post_init__(self) -> None:
        _check_not_negative(self, "optimizer.")
        if self.decay_every == 0:
            raise UserError("optimizer.decay_every=0 decays at once; use the number of epochs between decays")


@dataclass(frozen=True, kw_only=True)
class ReidExperiment(Experiment):
    """A model of person re-identification.

    refine_from: the epoch from which a refined model uses its soft parts instead of stripes. freeze_epochs: for how many
    epochs from there only the part classifier is trained. evaluate_every: epochs, 0 for only at the end.
    """

    task: Literal["reid"] = "reid"
    epochs: int = 100
    refine_from: int = 40
    freeze_epochs: int = 0
    evaluate_every: int = 0
    data: ReidData = field(default_factory=ReidData)
    model: PCBSettings = field(default_factory=PCBSettings)
    loss: ReidLoss = field(default_factory=ReidLoss)
    optimizer: ReidOptimizer = field(default_factory=ReidOptimizer)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_least(self, "", epochs=1, evaluate_every=0, refine_from=0, freeze_epochs=0)
        if -(-self.data.height // 16) % self.model.parts:
            height, parts = self.data.height, self.model.parts
            raise UserError(f"data.height={height} has no {parts} equal stripes; use a multiple of {16 * parts}")
        if self.model.refined and self.refine_from >= self.epochs:
            raise UserError(f"refine_from={self.refine_from} of {self.epochs} epochs never refines; begin before the end")
        if self.loss.triplet > 0 and self.batch_size < 2 * self.data.images_per_identity:
            raise UserError("loss.triplet needs two identities in a batch; raise batch_size")
        if self.loss.triplet > 0 and self.data.images_per_identity < 2:
            raise UserError("loss.triplet needs pairs of an identity in a batch; set data.images_per_identity=4")

    @property
    def has_unused_parameters(self) -> bool:
        """A refined model begins with stripes, without its part classifier."""
        return self.model.refined


AnyExperiment = TypeVar("AnyExperiment", bound=Experiment)
EXPERIMENTS: dict[str, type[Experiment]] = {
    "descriptors": DescriptorExperiment,
    "brown": BrownExperiment,
    "reid": ReidExperiment,
}


def _check_least(settings: Any, prefix: str, **least: int) -> None:
    for name, value in least.items():
        if getattr(settings, name) < value:
            raise UserError(f"{prefix}{name}={getattr(settings, name)} is too little; use {value} or more")


def _check_not_negative(settings: Any, prefix: str) -> None:
    for name, value in asdict(settings).items():
        if isinstance(value, float) and value < 0:
            raise UserError(f"{prefix}{name}={value} is negative; use 0 or more")


def _check_probabilities(settings: Any, prefix: str, *names: str, highest: float = 0.999) -> None:
    for name in names:
        if not 0 <= getattr(settings, name) <= highest:
            raise UserError(f"{prefix}{name}={getattr(settings, name)} is no probability; use one, for example 0.3")


def to_json(experiment: Experiment) -> str:
    """The experiment as JSON text."""
    return json.dumps(asdict(experiment), indent=1)


def from_json(text: str) -> Experiment:
    """The experiment of a JSON text.

    Raises:
        UserError: a key this version does not know, or a value of the wrong type.
    """
    values = json.loads(text)
    if not isinstance(values, dict) or values.get("task") not in EXPERIMENTS:
        raise UserError(f"the experiment names no task of this version ({', '.join(EXPERIMENTS)})")
    return _from_dict(EXPERIMENTS[values["task"]], values, "")


def override(experiment: AnyExperiment, assignments: list[str]) -> AnyExperiment:
    """The experiment with "name=value" or "part.name=value" applied, each value read by the type of its field.

    Raises:
        UserError: an unknown name (with the nearest known one) or a value that does not fit.
    """
    values = asdict(experiment)
    for assignment in assignments:
        name, separator, value = assignment.partition("=")
        if not separator:
            raise UserError(f"{assignment!r} sets nothing; write it as name=value, for example optimizer.lr=0.05")
        _assign(type(experiment), values, name.split("."), value, name)
    return _from_dict(type(experiment), values, "")


def _assign(kind: Any, values: dict[str, Any], path: list[str], value: str, name: str) -> None:
    _check_name(kind, path[0], name)
    inner = get_type_hints(kind)[path[0]]
    if len(path) > 1:
        if not is_dataclass(inner):
            raise UserError(f"{name} goes too deep; {path[0]} is a plain value")
        _assign(inner, values[path[0]], path[1:], value, name)
    elif is_dataclass(inner):
        raise UserError(f"{name} is a group of settings; set one of {', '.join(f'{name}.{f.name}' for f in fields(inner))}")
    else:
        values[path[0]] = _parse(inner, value, name)


def _parse(kind: Any, value: Any, name: str) -> Any:
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise UserError(f"{name}={value} is unknown; use one of {', '.join(get_args(kind))}")
        return value
    if get_origin(kind) is tuple:
        items = value.split(",") if isinstance(value, str) else value
        return tuple(_parse(get_args(kind)[0], item, name) for item in items)
    if kind is bool:
        if str(value).lower() not in ("true", "false"):
            raise UserError(f"{name}={value} is neither true nor false")
        return str(value).lower() == "true"
    wanted = {int: "whole number", float: "number", str: "text"}[kind]
    if isinstance(value, bool) or not isinstance(value, str | int | float) or (kind is int and isinstance(value, float)):
        raise UserError(f"{name}={value!r} is not a {wanted}")
    try:
        parsed = kind(value)
    except ValueError:
        raise UserError(f"{name}={value} is not a {wanted}") from None
    if kind is float and not math.isfinite(parsed):
        raise UserError(f"{name}={value} is not a finite number")
    return parsed


def _from_dict(kind: Any, values: dict[str, Any], prefix: str) -> Any:
    if not isinstance(values, dict):
        raise UserError(f"{prefix.rstrip('.') or 'the experiment'} is not a group of settings but {values!r}")
    hints = get_type_hints(kind)
    parsed = {}
    for key, value in values.items():
        _check_name(kind, key, prefix + key)
        parsed[key] = (
            _from_dict(hints[key], value, f"{prefix}{key}.")
            if is_dataclass(hints[key])
            else _parse(hints[key], value, prefix + key)
        )
    if issubclass(kind, Experiment) and "recipe" not in parsed:
        raise UserError("the experiment names no recipe")
    return kind(**parsed)


def _check_name(kind: Any, key: str, name: str) -> None:
    known = [f.name for f in fields(kind)]
    if key in known:
        return
    hints = get_type_hints(kind)
    inner = [f"{group}.{f.name}" for group in known if is_dataclass(hints[group]) for f in fields(hints[group])]
    prefix = name.removesuffix(key) if name.endswith(f".{key}") else ""
    nearest = difflib.get_close_matches(key, known + inner, 1, 0.3)
    hint = f"did you mean {prefix}{nearest[0]}?" if nearest else f"known are {', '.join(known)}"
    raise UserError(f"there is no setting {name}; {hint}")
