"""What a run writes as it goes on: metrics.jsonl and TensorBoard."""

import json
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch.utils.tensorboard import SummaryWriter

from csametric.files import write_text
from csametric.runs.folder import ENVIRONMENT, METRICS, keep_metrics_until
from csametric.training.attention_log import Look


class RunLog:
    """A context that writes rows of metrics after step `first`; what a killed run wrote beyond it is dropped."""

    def __init__(self, folder: Path, first: int, environment: dict[str, Any]) -> None:
        write_text(folder / ENVIRONMENT, json.dumps(environment, indent=1))
        keep_metrics_until(folder, first)
        self.lines = (folder / METRICS).open("a")
        self.tensorboard = SummaryWriter(str(folder / "tensorboard"), purge_step=first + 1)

    def write(self, step: int, row: dict[str, float]) -> None:
        """Add the metrics of a step."""
        self.lines.write(json.dumps({"step": step, **row}) + "\n")
        self.lines.flush()
        for name, value in row.items():
            self.tensorboard.add_scalar(name, value, step)

    def write_look(self, step: int, seen: Look) -> None:
        """Add the pictures of attention and the usage of its maps, to TensorBoard alone."""
        for name, picture in seen.pictures.items():
            self.tensorboard.add_image(f"{name}/base_maps", picture, step, dataformats="HWC")
        for name, usage in seen.usage.items():
            self.tensorboard.add_histogram(f"{name}/usage", usage, step)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.lines.close()
        self.tensorboard.close()
