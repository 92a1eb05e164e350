"""doctor: the versions, hardware and attention path of this machine."""

import torch
from accelerate import Accelerator

from csametric.attention.dispatch import choose_path
from csametric.cli.tables import print_table
from csametric.runs.environment import describe_environment
from csametric.runs.precision import choose_precision


def doctor() -> None:
    """Show the versions and hardware of this machine, and which implementation of the attention runs on it.

    Example: csametric doctor
    """
    device = Accelerator().device
    path = choose_path("auto", torch.empty(0, 1, 1, 1, device=device), maps=32)
    environment = describe_environment(device, choose_precision("auto", device))
    packages = environment.pop("packages")
    rows = [*environment.items(), ("attention path", path.path), ("attention path reason", path.reason), *packages.items()]
    print_table("csametric doctor", ["what", "value"], [list(row) for row in rows])
