"""The whole of a run as frozen dataclasses, to and from JSON, with typed overrides by dotted name."""

import difflib
import json
import math
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from csametric.data.photos import PhotoSettings
from csametric.errors import UserError


@dataclass(frozen=True, kw_only=True)
class DescriptorSettings:
    """L2Net and the layer after its third convolution: "none", "sa" or "csa"; see `models.l2net.L2Net`."""

    attention: Literal["none", "sa", "csa"] = "none"
    maps: int = 32
    dropout: float = 0.3

    def __post_init__(self) -> None:
        if self.maps < 1:
            raise UserError(f"model.maps={self.maps} leaves nothing to attend with; use 1 or more")
        if not 0 <= self.dropout < 1:
            raise UserError(f"model.dropout={self.dropout} is no probability below 1; use one, for example 0.3")


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
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
        for name, value in asdict(self).items():
            if value < 0:
                raise UserError(f"optimizer.{name}={value} is negative; use 0 or more")


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """All that is needed to repeat a run.

    batch_size: pairs a step on each process. precision: "auto" takes bf16 where the processor is fast at it.
    evaluate_every, checkpoint_every: steps; the last step is always evaluated and saved.
    """

    recipe: str
    seed: int = 0
    loss: Literal["hardnet", "ral"] = "hardnet"
    steps: int = 220
    batch_size: int = 512
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    evaluate_every: int = 40
    checkpoint_every: int = 50
    data: PhotoSettings = field(default_factory=PhotoSettings)
    model: DescriptorSettings = field(default_factory=DescriptorSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "evaluate_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} makes no run; use 1 or more")
        if self.batch_size < 2:
            raise UserError("batch_size=1 has no negatives; use 2 or more")
        if not 0 <= self.seed < 2**63:
            raise UserError(f"seed={self.seed} is no seed; use a whole number from 0 on")


def to_json(experiment: Experiment) -> str:
    """The experiment as JSON text."""
    return json.dumps(asdict(experiment), indent=1)


def from_json(text: str) -> Experiment:
    """The experiment of a JSON text.

    Raises:
        UserError: a key this version does not know, or a value of the wrong type.
    """
    return _from_dict(Experiment, json.loads(text), "")


def override(experiment: Experiment, assignments: list[str]) -> Experiment:
    """The experiment with "name=value" or "part.name=value" applied, each value read by the type of its field.

    Raises:
        UserError: an unknown name (with the nearest known one) or a value that does not fit.
    """
    for assignment in assignments:
        name, separator, value = assignment.partition("=")
        if not separator:
            raise UserError(f"{assignment!r} sets nothing; write it as name=value, for example optimizer.lr=0.05")
        experiment = _assign(experiment, name.split("."), value, name)
    return experiment


def _assign(part: Any, path: list[str], value: str, name: str) -> Any:
    _check_name(type(part), path[0], name)
    current = getattr(part, path[0])
    if len(path) > 1:
        if not is_dataclass(current):
            raise UserError(f"{name} goes too deep; {path[0]} is a plain value")
        return replace(part, **{path[0]: _assign(current, path[1:], value, name)})
    if is_dataclass(current):
        raise UserError(f"{name} is a group of settings; set one of {', '.join(f'{name}.{f.name}' for f in fields(current))}")
    return replace(part, **{path[0]: _parse(get_type_hints(type(part))[path[0]], value, name)})


def _parse(kind: Any, value: Any, name: str) -> Any:
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise UserError(f"{name}={value} is unknown; use one of {', '.join(get_args(kind))}")
        return value
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
    if kind is Experiment and "recipe" not in parsed:
        raise UserError("the experiment names no recipe")
    return kind(**parsed)


def _check_name(kind: Any, key: str, name: str) -> None:
    known = [f.name for f in fields(kind)]
    if key not in known:
        nearest = difflib.get_close_matches(key, known, 1, 0.3)
        hint = f"did you mean {nearest[0]}?" if nearest else f"known are {', '.join(known)}"
        raise UserError(f"there is no setting {name}; {hint}")
