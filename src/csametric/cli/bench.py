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
    """Run a benchmark of the source checkout and print its table; options go to the benchmark.

    `python -m bench.attention --help` in the checkout lists those of one.

    Example: csametric bench attention --rounds 9 --types fp32,bf16
    """
    checkout = Path(csametric.__file__).parents[2]
    known = sorted(path.stem for path in (checkout / "bench").glob("[a-z]*.py") if path.stem != "measure")
    if not known:
        raise UserError("the benchmarks are not installed with the package; clone the repository and run `make bench` there")
    if what not in known:
        raise UserError(f"there is no benchmark {what!r}; use one of {', '.join(known)}")
    raise SystemExit(
        subprocess.run([sys.executable, "-m", f"bench.{what}", *context.args], cwd=checkout, check=False).returncode
    )


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command("bench", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(bench)
