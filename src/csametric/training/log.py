"""The log of a run: metrics.jsonl and TensorBoard."""

import json
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch.utils.tensorboard import SummaryWriter

from csametric.files import write_text
from csametric.runs.folder import ENVIRONMENT, METRICS, keep_metrics_until
from csametric.training.attention_log import AttentionSnapshot


class RunLog:
    """A context manager that logs metrics from a step on and drops what a killed run logged beyond that step.

    Args:
        folder: the folder of the run.
        first_step: the number of steps done so far.
        environment: written to environment.json.
    """

    def __init__(self, folder: Path, first_step: int, environment: dict[str, Any]) -> None:
        write_text(folder / ENVIRONMENT, json.dumps(environment, indent=1))
        keep_metrics_until(folder, first_step)
        self.lines = (folder / METRICS).open("a")
        self.tensorboard = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step + 1)

    def write(self, step: int, row: dict[str, float]) -> None:
        """Log the metrics of a step."""
        self.lines.write(json.dumps({"step": step, **row}) + "\n")
        self.lines.flush()
        for name, value in row.items():
            self.tensorboard.add_scalar(name, value, step)

    def write_attention(self, step: int, snapshot: AttentionSnapshot) -> None:
        """Log pictures of the attention and the usage of its maps, to TensorBoard only."""
        for name, picture in snapshot.pictures.items():
            self.tensorboard.add_image(f"{name}/base_maps", picture, step, dataformats="HWC")
        for name, usage in snapshot.usage.items():
            self.tensorboard.add_histogram(f"{name}/usage", usage, step)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.lines.close()
        self.tensorboard.close()
