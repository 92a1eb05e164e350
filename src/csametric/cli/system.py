"""doctor: the versions, hardware and attention path of this machine."""

from __future__ import annotations

from csametric.cli.lazy import lazy_imports
from csametric.cli.tables import print_table

with lazy_imports():
    import accelerate
    import torch

    from csametric.attention import dispatch
    from csametric.runs import environment, precision


def doctor() -> None:
    """Show the versions and hardware of this machine, and which implementation of the attention runs on it.

    Example: csametric doctor
    """
    device = accelerate.Accelerator().device
    path = dispatch.choose_path("auto", torch.empty(0, 1, 1, 1, device=device), maps=32)
    described = environment.describe_environment(device, precision.choose_precision("auto", device))
    packages = described.pop("packages")
    rows = [*described.items(), ("attention path", path.path), ("attention path reason", path.reason), *packages.items()]
    print_table("csametric doctor", ["what", "value"], [list(row) for row in rows])
