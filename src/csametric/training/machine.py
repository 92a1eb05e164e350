"""Where a run computes: its device, arithmetic, and place among the processes of torchrun."""

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
    """The accelerate object of this process, and the arithmetic chosen."""

    accelerator: Accelerator
    precision: Precision

    @property
    def device(self) -> torch.device:
        """Of this process."""
        return self.accelerator.device

    @property
    def rank(self) -> int:
        """Of this process, from 0 on."""
        return self.accelerator.process_index

    @property
    def world_size(self) -> int:
        """How many processes there are."""
        return self.accelerator.num_processes

    @property
    def is_main(self) -> bool:
        """Whether this process writes and prints."""
        return self.accelerator.is_main_process

    def autocast(self) -> AbstractContextManager[Any]:
        """bf16 autocast where the precision says so."""
        return autocast(self.device, self.precision)

    def share_buffers(self, model: nn.Module) -> None:
        """Give every process the main one's buffers: DistributedDataParallel leaves each with its own last BatchNorm update."""
        if self.world_size > 1:
            for buffer in model.buffers():
                broadcast(buffer)

    def gather_rows(self, rows: NDArray, total: int) -> NDArray:
        """The rows of all processes in the order of their ranks, as every process gets them.

        Args:
            rows: (n, D) of this process, n the same in all but the last ones, which may have fewer or none.
            total: how many rows there are in all.
        """
        if self.world_size == 1:
            return rows
        most = int(gather(torch.tensor([len(rows)], device=self.device)).max())
        padded = np.zeros((most, *rows.shape[1:]), rows.dtype)
        padded[: len(rows)] = rows
        return gather(torch.from_numpy(padded).to(self.device)).cpu().numpy()[:total]


def gather_with_gradients(rows_ND: Tensor) -> Tensor:
    """The rows of all processes in the order of their ranks, (processes * N, D), with gradients to each.

    A loss of what is gathered, averaged over processes as DistributedDataParallel averages gradients, trains like one process
    with all the rows.
    """
    if not distributed.is_initialized():
        return rows_ND
    return torch.cat(all_gather(rows_ND))


def join_processes(precision: str = "auto", some_unused: bool = False) -> Machine:
    """Join this process to those of torchrun; without a GPU they join by gloo.

    Args:
        some_unused: whether some parameters take no part in some steps, which DistributedDataParallel must be told.
    """
    on_cpu = "LOCAL_RANK" in os.environ and not torch.accelerator.is_available()
    handlers = [DistributedDataParallelKwargs(find_unused_parameters=True)] if some_unused else None
    accelerator = Accelerator(cpu=on_cpu, kwargs_handlers=handlers)
    return Machine(accelerator, choose_precision(precision, accelerator.device))
