"""The `csametric` command: its table of commands, and how errors reach the user."""

import ast
import errno
import sys
import traceback
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from csametric.errors import FolderInUseError, NoDatasetError, UserError, explaining_full_disk, printable

# Command -> the module in this folder, and the function or group in it. A module is imported when its command is called.
COMMANDS = {
    "demo": ("demo", "demo"),
    "train": ("runs", "train"),
    "evaluate": ("runs", "evaluate"),
    "embed": ("datasets", "embed"),
    "data": ("datasets", "app"),
    "attend": ("attend", "attend"),
    "reproduce": ("reproduce", "reproduce"),
    "match": ("match", "match"),
    "hpatches": ("hpatches", "app"),
    "serve": ("serve", "serve"),
    "convert": ("runs", "convert"),
    "export": ("export", "export"),
    "recipes": ("runs", "recipes"),
    "bench": ("bench", "app"),
    "doctor": ("system", "doctor"),
}
DEBUG = "--debug"
HINTS: dict[type[UserError], str] = {  # how the command's options help with an error of the library
    FolderInUseError: "(--name of train, --out of demo)",
    NoDatasetError: "(--data KIND:PATH, for patches --data brown:ROOT)",
}
MENDABLE = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG}


class LazyCommands(TyperGroup):
    """The commands of `COMMANDS`. Listing them imports none; calling one imports its module."""

    _is_listing = False

    def list_commands(self, ctx: Any) -> list[str]:
        """The names, in the order of the help page."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of a name; for the help page only its name and its summary."""
        if cmd_name not in COMMANDS:
            return None
        if self._is_listing:
            return TyperCommand(cmd_name, help=summary(cmd_name))
        return load_command(cmd_name)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help page."""
        self._is_listing = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self._is_listing = False


def summary(name: str) -> str:
    """The first line of a command's docstring, read from the source so that nothing is imported."""
    module, function = COMMANDS[name]
    tree = ast.parse((Path(__file__).parent / f"{module}.py").read_text(encoding="utf-8"))
    target = name if function == "app" else function
    found = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == target)
    return (ast.get_docstring(next(found)) or "").split("\n")[0]


def load_command(name: str) -> Any:
    """Import a command."""
    module, attribute = COMMANDS[name]
    command = getattr(import_module(f"csametric.cli.{module}"), attribute)
    if not isinstance(command, typer.Typer):
        application = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        application.command(name)(command)
        command = application
    loaded = get_command(command)
    loaded.name = name
    return loaded


app = typer.Typer(
    name="csametric",
    cls=LazyCommands,
    help="Deep metric learning with compressed self-attention: train, evaluate, look.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.callback()
def options(debug: bool = typer.Option(False, DEBUG, help="Show the traceback of an error.")) -> None:
    """Deep metric learning with compressed self-attention: train, evaluate, look."""


def main() -> None:
    """Run the command; a user's mistake exits with 2, ours with 1, each in one sentence unless --debug is given."""
    debug = DEBUG in sys.argv
    warnings.filterwarnings("ignore", r"Image size \(")  # Pillow's, of a large picture, which is the user's own
    sys.argv = [argument for argument in sys.argv if argument != DEBUG]
    try:
        with explaining_full_disk(Path.cwd(), "free some room and give the same command again"):
            app()
    except UserError as error:
        _explain(f"{error} {HINTS.get(type(error), '')}", debug)
        sys.exit(2)
    except OSError as error:
        if error.errno not in MENDABLE or error.filename is None:
            _explain(_failure(error), debug)
            sys.exit(1)
        _explain(f"{error.filename}: {error.strerror}; check the path and its permissions", debug)
        sys.exit(2)
    except Exception as error:
        _explain(_failure(error), debug)
        sys.exit(1)


def _failure(error: Exception) -> str:
    return f"csametric failed: {type(error).__name__}: {error}; run it again with {DEBUG} and report it"


def _explain(message: str, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    print(f"csametric: {printable(' '.join(message.split()))}", file=sys.stderr)
