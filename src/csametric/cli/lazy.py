"""Imports that wait until they are needed, so that a help page does not load torch."""

import builtins
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import SimpleNamespace
from typing import Any


class _Module:
    """Stands for a module, which is imported when one of its attributes is read."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(import_module(self._name), attribute)


def _import_later(name: str, _globals: Any = None, _locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
    if not fromlist:
        return _Module(name)
    return SimpleNamespace(**{member: _Module(f"{name}.{member}") for member in fromlist})


@contextmanager
def lazy_imports() -> Iterator[None]:
    """Within this context, `import module` and `from package import module` load the module only when it is used.

    The names stand for modules, not for functions or classes in them, so command modules write `module.function`.

    Examples:
        >>> with lazy_imports():
        ...     from csametric.runs import experiment
        >>> experiment.ReidExperiment().epochs  # loads it
        100
    """
    eager = builtins.__import__
    builtins.__import__ = _import_later  # type: ignore[assignment]
    try:
        yield
    finally:
        builtins.__import__ = eager
