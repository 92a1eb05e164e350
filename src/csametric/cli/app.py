"""The `csametric` command: its table of subcommands, and how errors are shown to the user."""

import ast
import errno
import re
import signal
import sys
import traceback
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from csametric.errors import FolderInUseError, NoDatasetError, StoppedError, UserError, explain_full_disk, printable, shortened

# Command -> (module in this folder, function or group in it); the module is imported when the command is called.
COMMANDS = {
    "demo": ("demo", "demo"),
    "train": ("runs", "train"),
    "evaluate": ("runs", "evaluate"),
    "embed": ("datasets", "embed"),
    "data": ("datasets", "app"),
    "calibrate": ("verification", "calibrate"),
    "verify": ("verification", "verify"),
    "index": ("search", "index"),
    "search": ("search", "search"),
    "dedupe": ("search", "dedupe"),
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
MAX_ERROR_LENGTH = 300  # characters of an internal error
INTERRUPTED = 128 + signal.SIGINT  # the exit status after Ctrl-C
HINTS: dict[type[UserError], str] = {  # which options fix an error of the library
    FolderInUseError: "(use --name with train, --out with demo)",
    NoDatasetError: "(--data KIND:PATH)",
}
FIXABLE = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG}


class LazyCommands(TyperGroup):
    """The group of the commands in `COMMANDS`; a command's module is imported when it is called, not when it is listed."""

    _is_listing = False

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of the commands, in the order of the help page."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of a name; for the help page, only its name and summary."""
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
    """The first line of a command's docstring, read from the source so that nothing is imported.

    Examples:
        >>> summary("recipes")
        'List the recipes and what each one trains.'
    """
    module, function = COMMANDS[name]
    tree = ast.parse((Path(__file__).parent / f"{module}.py").read_text(encoding="utf-8"))
    target = name if function == "app" else function
    definition = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == target)
    return (ast.get_docstring(definition) or "").split("\n")[0]


def load_command(name: str) -> Any:
    """Import the module of a command and return the command."""
    module, attribute = COMMANDS[name]
    command = getattr(import_module(f"csametric.cli.{module}"), attribute)
    if not isinstance(command, typer.Typer):
        application = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        application.command(name)(command)
        command = application
    loaded = get_command(command)
    loaded.name = name
    _join_lines(loaded)
    return loaded


def _join_lines(command: Any) -> None:
    """Join the lines within the paragraphs of a help text, so that the page wraps them at the width of the terminal."""
    command.help = re.sub(r"(?<!\n)\n(?!\n)", " ", command.help or "")
    for inner in getattr(command, "commands", {}).values():
        _join_lines(inner)


OVERVIEW = """Deep metric learning with compressed self-attention: train, evaluate and inspect image embeddings.

Example: csametric train hardnet_csa --data photos:holiday
"""

app = typer.Typer(
    name="csametric",
    cls=LazyCommands,
    help=OVERVIEW,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.callback()
def options(debug: bool = typer.Option(False, DEBUG, help="Show the traceback of errors.")) -> None:
    """Take the options that precede a subcommand."""


def main() -> None:
    """Run the command.

    An error is printed as one sentence, with its traceback only after --debug. The exit status is 2 if the user can fix it, 1
    otherwise, and 128 plus the number of the signal that stopped the command.
    """
    debug = DEBUG in sys.argv
    warnings.filterwarnings("ignore", module="PIL")  # about large images and odd metadata; unreadable files are named
    sys.argv = [argument for argument in sys.argv if argument != DEBUG]
    try:
        with explain_full_disk(Path.cwd(), "free some space and run the same command again"):
            app()
    except UserError as error:
        _print_error(f"{error} {HINTS.get(type(error), '')}", debug)
        sys.exit(2)
    except OSError as error:
        if error.errno not in FIXABLE or error.filename is None:
            _print_error(_failure(error), debug)
            sys.exit(1)
        _print_error(f"{error.filename}: {error.strerror}; check the path and its permissions", debug)
        sys.exit(2)
    except StoppedError as stop:
        _print_error(str(stop), debug)
        sys.exit(128 + stop.signal_number)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            _print_error("interrupted; run the same command again to resume where it can", debug)
        raise
    except Exception as error:
        _print_error(_failure(error), debug)
        sys.exit(1)


def _failure(error: Exception) -> str:
    problem = shortened(f"{type(error).__name__}: {error}", MAX_ERROR_LENGTH)
    return f"csametric failed: {problem}; run it again with {DEBUG} and report the error"


def _print_error(message: str, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    print(f"csametric: {printable(' '.join(message.split()))}", file=sys.stderr)
