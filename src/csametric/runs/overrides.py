"""Experiments to and from JSON, and typed overrides by dotted name (`--set optimizer.lr=0.05`)."""

import difflib
import json
import math
from dataclasses import asdict, fields, is_dataclass
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from csametric.errors import UserError
from csametric.runs.experiment import EXPERIMENTS, Experiment

AnyExperiment = TypeVar("AnyExperiment", bound=Experiment)


def to_json(experiment: Experiment) -> str:
    """The experiment as JSON text."""
    return json.dumps(asdict(experiment), indent=1)


def from_json(text: str) -> Experiment:
    """The experiment that `to_json` wrote.

    Raises:
        UserError: a key that this version does not know, or a value of the wrong type.
        ValueError: the text is not JSON.
    """
    values = json.loads(text)
    if not isinstance(values, dict) or values.get("task") not in EXPERIMENTS:
        raise UserError(f"the experiment's task must be one of {', '.join(EXPERIMENTS)}")
    return _from_dict(EXPERIMENTS[values["task"]], values, "")


def override(experiment: AnyExperiment, assignments: list[str]) -> AnyExperiment:
    """The experiment with assignments applied, each value parsed by the type of its field.

    Args:
        experiment: is left unchanged.
        assignments: "name=value" or "part.name=value".

    Raises:
        UserError: an unknown name (the message has the nearest known one), a value that does not fit, or a setting that the
            experiment would ignore.

    Examples:
        >>> from csametric.recipes import find_recipe
        >>> override(find_recipe("pcb_csa"), ["optimizer.lr=0.05", "model.stages=2,3"]).model.stages
        (2, 3)
    """
    values = asdict(experiment)
    names = []
    for assignment in assignments:
        name, separator, value = assignment.partition("=")
        if not separator:
            raise UserError(f"an assignment must be name=value, for example optimizer.lr=0.05; got {assignment!r}")
        _assign(type(experiment), values, name.split("."), value, name)
        names.append(name)
    changed: AnyExperiment = _from_dict(type(experiment), values, "")
    changed.refuse_ignored(names)
    return changed


def _assign(kind: Any, values: dict[str, Any], path: list[str], value: str, name: str) -> None:
    _check_name(kind, path[0], name)
    inner = get_type_hints(kind)[path[0]]
    if len(path) > 1:
        if not is_dataclass(inner):
            raise UserError(f"{name} does not exist: {path[0]} is a single value, not a group of settings")
        _assign(inner, values[path[0]], path[1:], value, name)
    elif is_dataclass(inner):
        raise UserError(f"{name} is a group of settings; set one of {', '.join(f'{name}.{f.name}' for f in fields(inner))}")
    else:
        values[path[0]] = _parse(inner, value, name)


def _parse(kind: Any, value: Any, name: str) -> Any:
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise UserError(f"{name} must be one of {', '.join(get_args(kind))}, got {value}")
        return value
    if get_origin(kind) is tuple:
        items = value.split(",") if isinstance(value, str) else value
        return tuple(_parse(get_args(kind)[0], item, name) for item in items)
    if kind is bool:
        if str(value).lower() not in ("true", "false"):
            raise UserError(f"{name} must be true or false, got {value}")
        return str(value).lower() == "true"
    expected = {int: "a whole number", float: "a number", str: "text"}[kind]
    if isinstance(value, bool) or not isinstance(value, str | int | float) or (kind is int and isinstance(value, float)):
        raise UserError(f"{name} must be {expected}, got {value!r}")
    try:
        parsed = kind(value)
    except ValueError:
        raise UserError(f"{name} must be {expected}, got {value}") from None
    if kind is float and not math.isfinite(parsed):
        raise UserError(f"{name} must be finite, got {value}")
    return parsed


def _from_dict(kind: Any, values: dict[str, Any], prefix: str) -> Any:
    if not isinstance(values, dict):
        raise UserError(f"{prefix.rstrip('.') or 'the experiment'} must be a group of settings, got {values!r}")
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
        raise UserError("the experiment lacks the name of its recipe; add the key recipe")
    return kind(**parsed)


def _check_name(kind: Any, key: str, name: str) -> None:
    known = [f.name for f in fields(kind)]
    if key in known:
        return
    hints = get_type_hints(kind)
    inner = [f"{group}.{f.name}" for group in known if is_dataclass(hints[group]) for f in fields(hints[group])]
    prefix = name.removesuffix(key) if name.endswith(f".{key}") else ""
    nearest = difflib.get_close_matches(key, known + inner, 1, 0.3)
    hint = f"did you mean {prefix}{nearest[0]}?" if nearest else f"the settings are {', '.join(known)}"
    raise UserError(f"unknown setting {name}; {hint}")
