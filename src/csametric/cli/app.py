"""The `csametric` command: its groups, and how errors reach the user."""

import errno
import sys
import traceback
import warnings
from pathlib import Path

import typer

from csametric.cli import attend, bench, datasets, demo, export, hpatches, match, reproduce, runs, serve, system
from csametric.errors import UserError, explaining_full_disk
from csametric.files import printable

app = typer.Typer(
    name="csametric",
    help="Deep metric learning with compressed self-attention: train, evaluate, look.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command()(demo.demo)
app.command()(runs.train)
app.command()(runs.evaluate)
app.command()(datasets.embed)
app.add_typer(datasets.app, name="data")
app.command()(attend.attend)
app.command()(reproduce.reproduce)
app.command()(match.match)
app.add_typer(hpatches.app, name="hpatches")
app.command()(serve.serve)
app.command()(runs.convert)
app.command()(export.export)
app.command()(runs.recipes)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(bench.bench)
app.command()(system.doctor)

DEBUG = "--debug"
MENDABLE = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG}


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
        _explain(str(error), debug)
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
