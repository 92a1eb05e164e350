"""The device, precision and processes of a run."""

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import broadcast, gather
from numpy.typing import NDArray
from torch import Tensor, distributed, nn
from torch.distributed.nn.functional import all_gather

from csametric.runs.precision import Precision, autocast, choose_precision


@dataclass(frozen=True)
class Machine:
    """What a training process runs on: its device and precision, and its rank among the processes."""

    accelerator: Accelerator
    precision: Precision  # of the arithmetic

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        return self.accelerator.device

    @property
    def rank(self) -> int:
        """The number of this process, from 0 on."""
        return self.accelerator.process_index

    @property
    def world_size(self) -> int:
        """The number of processes."""
        return self.accelerator.num_processes

    @property
    def is_main(self) -> bool:
        """Whether this process writes and prints."""
        return self.accelerator.is_main_process

    def autocast(self) -> AbstractContextManager[Any]:
        """Return a context with bf16 autocast, if the precision asks for it."""
        return autocast(self.device, self.precision)

    def share_buffers(self, model: nn.Module) -> None:
        """Copy the buffers of the main process to all others.

        DistributedDataParallel leaves each process with its own last BatchNorm update.
        """
        if self.world_size > 1:
            for buffer in model.buffers():
                broadcast(buffer)

    def gather_rows(self, rows: NDArray, total: int) -> NDArray:
        """Gather the rows of all processes in every process, in the order of their ranks.

        Args:
            rows: of this process, (n, D). Only the last processes may have fewer rows than the first, or none.
            total: number of rows of all processes.

        Returns:
            (total, D).
        """
        if self.world_size == 1:
            return rows
        most = int(gather(torch.tensor([len(rows)], device=self.device)).max())
        padded = np.zeros((most, *rows.shape[1:]), rows.dtype)
        padded[: len(rows)] = rows
        return gather(torch.from_numpy(padded).to(self.device)).cpu().numpy()[:total]


def gather_with_gradients(rows_ND: Tensor) -> Tensor:
    """Gather the rows of all processes in the order of their ranks; gradients flow back to the process of each row.

    A loss of the gathered rows trains like a single process with all rows, because the backward of the
    gathering adds up the gradients of all processes, and DistributedDataParallel averages them.

    Args:
        rows_ND: of this process, (N, D), N the same in all processes.

    Returns:
        (processes * N, D).
    """
    if not distributed.is_initialized():
        return rows_ND
    return torch.cat(all_gather(rows_ND))


def join_processes(precision: str = "auto", has_unused_parameters: bool = False) -> Machine:
    """Join this process to the others that torchrun started, if any; without GPUs they communicate by gloo.

    Args:
        precision: "auto", "bf16" or "fp32", see `runs.precision.choose_precision`.
        has_unused_parameters: whether some steps do not use all parameters, which DistributedDataParallel must know.
    """
    on_cpu = "LOCAL_RANK" in os.environ and not torch.accelerator.is_available()
    handlers = [DistributedDataParallelKwargs(find_unused_parameters=True)] if has_unused_parameters else None
    accelerator = Accelerator(cpu=on_cpu, kwargs_handlers=handlers)
    return Machine(accelerator, choose_precision(precision, accelerator.device))
