"""What a training step of PCB keeps for its backward, an image, with no attention, SA and CSA in 1, 2, 4 and 8 groups.

On a CPU the tensors that autograd saves are counted, each storage once, parameters and buffers left out; on a GPU the allocator
says what a forward leaves allocated. ResNet-50 at 384 x 128, supervision off in all, as in the paper's Table 6.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn

from bench.measure import RESULTS, best_device, write_results
from csametric import PCB
from csametric.cli.tables import print_table
from csametric.reproduction.paper import TABLE6

ARMS: dict[str, dict[str, object]] = {
    "PCB": {"attention": None},
    "PCB + SA": {"attention": "sa"},
    **{f"PCB + CSA, G = {groups}": {"attention": "csa", "groups": groups} for groups in (1, 2, 4, 8)},
}
MEGABYTE = 1e6


def paper_figures(label: str) -> dict[str, float]:
    """The paper's figures in a column of Table 6, by arm."""
    place = [column.label for column in TABLE6.columns].index(label)
    figures = {row.recipe: row.figures[place] for row in TABLE6.rows}
    return {name: figures[name] for name in ARMS}  # type: ignore[misc]


def kept_bytes(model: nn.Module, images: Tensor) -> int:
    """Bytes that a forward keeps for its backward."""
    if images.is_cuda:
        before = torch.cuda.memory_allocated()
        kept = model(images)
        torch.cuda.synchronize()
        after = torch.cuda.memory_allocated()
        del kept
        return after - before
    own = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    storages: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(images)
    return sum(tensor.untyped_storage().nbytes() for address, tensor in storages.items() if address not in own)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of the JSON")
    parser.add_argument("--batch", type=int, default=0, help="images; 64 on a GPU, 2 on a CPU")
    arguments, device = parser.parse_args(), best_device()
    batch = arguments.batch or (64 if device.type == "cuda" else 2)
    megabytes = []
    for settings in ARMS.values():
        model = PCB(num_ids=751, deep_supervision=False, alpha=0.5, **settings)  # type: ignore[arg-type]
        model.to(device=device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        images = torch.randn(batch, 3, 384, 128, device=device).to(memory_format=torch.channels_last)
        megabytes.append(kept_bytes(model, images) / batch / MEGABYTE)
    paper = paper_figures("MB")
    rows = [
        {"model": name, "megabytes": ours, "of PCB": ours / megabytes[0], "paper, of PCB": paper[name] / paper["PCB"]}
        for name, ours in zip(ARMS, megabytes, strict=True)
    ]
    text = [[name if isinstance(name, str) else f"{name:.3f}" for name in row.values()] for row in rows]
    print_table(f"kept for the backward, MB an image, fp32, {device.type}", list(rows[0]), text)
    print(f"written to {write_results('memory', rows, arguments.results)}")


if __name__ == "__main__":
    main()
