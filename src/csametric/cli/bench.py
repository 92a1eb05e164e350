"""bench: run a benchmark of the source checkout."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

import csametric
from csametric.errors import UserError


def bench(
    context: typer.Context,
    what: Annotated[
        str,
        typer.Argument(
            help="attention, brown, descriptors, evaluation, explorer, growth, hpatches, loading, memory, model, "
            "patches or training."
        ),
    ],
) -> None:
    """Run one of the benchmarks in the source checkout and print its table.

    Further options are passed to the benchmark; `python -m bench.attention --help` in the checkout lists them.

    Example: csametric bench attention --rounds 9 --types fp32,bf16
    """
    checkout = Path(csametric.__file__).parents[2]
    known = sorted(path.stem for path in (checkout / "bench").glob("[a-z]*.py") if path.stem != "measure")
    if not known:
        raise UserError("benchmarks are not installed with the package; clone the repository and run `make bench` there")
    if what not in known:
        raise UserError(f"unknown benchmark {what!r}; use one of {', '.join(known)}")
    command = [sys.executable, "-m", f"bench.{what}", *context.args]
    raise SystemExit(subprocess.run(command, cwd=checkout, check=False).returncode)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command("bench", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(bench)
