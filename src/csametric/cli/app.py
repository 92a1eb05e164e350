"""The `csametric` command: its groups, and how errors reach the user."""

import sys
import traceback

import typer

from csametric.cli import bench, demo, runs, system
from csametric.errors import UserError

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
app.command()(runs.recipes)
app.command()(bench.bench)
app.command()(system.doctor)

DEBUG = "--debug"


@app.callback()
def options(debug: bool = typer.Option(False, DEBUG, help="Show the traceback of an error.")) -> None:
    """Deep metric learning with compressed self-attention: train, evaluate, look."""


def main() -> None:
    """Run the command; a user's mistake exits with 2, ours with 1, each in one sentence unless --debug is given."""
    debug = DEBUG in sys.argv
    sys.argv = [argument for argument in sys.argv if argument != DEBUG]
    try:
        app()
    except UserError as error:
        _explain(str(error), debug)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        _explain(f"csametric failed: {type(error).__name__}: {error}; run it again with {DEBUG} and report it", debug)
        sys.exit(1)


def _explain(message: str, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    print(f"csametric: {' '.join(message.split())}", file=sys.stderr)
