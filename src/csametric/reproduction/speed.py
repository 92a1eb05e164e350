"""Table 6, speed and memory, from the benchmarks of the source checkout, each in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import csametric
from csametric.errors import UserError
from csametric.files import temporary_path
from csametric.reproduction.budgets import Budget
from csametric.reproduction.comparison import Cell, FilledTable
from csametric.reproduction.paper import TABLE6, Column, Row

OPTIONS: dict[Budget, dict[str, list[str]]] = {
    "full": {"memory": [], "model": []},
    "quick": {"memory": [], "model": ["--rounds", "5"]},
    "tiny": {"memory": [], "model": ["--rounds", "2", "--batch", "2"]},
}


def measure(folder: Path, budget: Budget) -> None:
    """Run the benchmarks `memory` and `model`, unless their results are in the folder already.

    Args:
        folder: for the results, memory.json and model.json.
        budget: how thorough they are.

    Raises:
        UserError: csametric was installed without its benchmarks, or one of them failed.
    """
    checkout = Path(csametric.__file__).parents[2]
    for name, options in OPTIONS[budget].items():
        if (folder / f"{name}.json").is_file():
            continue
        if not (checkout / "bench" / f"{name}.py").is_file():
            raise UserError("Table 6 needs the benchmarks, which are not installed with the package; clone the repository")
        with temporary_path(folder / f"{name}.json") as result:
            command = [sys.executable, "-m", f"bench.{name}", *options, "--results", str(result.parent.absolute())]
            if subprocess.run(command, cwd=checkout, check=False).returncode:
                raise UserError(f"the benchmark {name} failed; run `csametric bench {name}` to see why")
            result.replace(folder / f"{name}.json")


def fill_speed(folder: Path) -> FilledTable:
    """Table 6 from the results of `measure` in a folder; cells without results have only the paper's values."""
    memory, model = _read(folder / "memory.json"), _read(folder / "model.json")
    ours = _memory_values(memory) | _rate_values(model)
    return FilledTable(
        table=TABLE6,
        cells={(row.label, column): _cell(row, column, ours) for row in TABLE6.rows for column in TABLE6.columns},
        notes=_notes(model),
    )


def _cell(row: Row, column: Column, ours: dict[tuple[str, str], float]) -> Cell:
    figure = ours.get((row.recipe or "", column.metric[0]))
    return Cell(paper=TABLE6.paper_score(row, column), ours=() if figure is None else (figure * column.scale,))


def _memory_values(results: dict[str, Any]) -> dict[tuple[str, str], float]:
    values = {}
    for row in results.get("rows", []):
        values[row["model"], "megabytes"] = row["megabytes"]
        values[row["model"], "memory_ratio"] = row["of PCB"]
    return values


def _rate_values(results: dict[str, Any]) -> dict[tuple[str, str], float]:
    """Images per second, and the median of the ratios to PCB, paired by round, for inference and training."""
    values = {}
    seconds = {(row["arm"], row["what"]): row["seconds"] for row in results.get("rows", [])}
    for row in results.get("rows", []):
        arm, what = row["arm"], row["what"]
        ratios = [plain / own for plain, own in zip(seconds["PCB", what], row["seconds"], strict=True)]
        values[arm, what] = row["batch"] / median(row["seconds"])
        values[arm, f"{what}_ratio"] = median(ratios)
    return values


def _notes(results: dict[str, Any]) -> list[str]:
    if not results:
        return []
    machine, row = results["machine"], results["rows"][0]
    return [
        f"Measured on {machine['device']} ({machine['processor']}), batch {row['batch']}, {len(row['seconds'])} interleaved "
        f"rounds, commit {machine['commit']}; memory in fp32, speed in fp32 on a CPU and in bf16 on a GPU. The paper used "
        "another GPU, so compare the columns relative to PCB."
    ]


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.is_file() else {}
