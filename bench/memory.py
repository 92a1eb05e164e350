"""Memory per image that a training step of PCB keeps for its backward: without attention, with SA, with CSA in 1 to 8 groups.

On a CPU this counts the tensors that autograd saves, each storage once, without parameters and buffers. On a GPU it is what a
forward leaves allocated. ResNet-50 at 384 x 128 without deep supervision, as in the paper's Table 6.
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


def paper_values(label: str) -> dict[str, float]:
    """The paper's values in a column of Table 6, by arm."""
    place = [column.label for column in TABLE6.columns].index(label)
    values = {row.recipe: row.scores[place] for row in TABLE6.rows}
    return {name: values[name] for name in ARMS}  # type: ignore[misc]


def kept_bytes(model: nn.Module, images: Tensor) -> int:
    """Return the number of bytes that a forward keeps for its backward."""
    if images.is_cuda:
        model(images)  # allocates the workspaces of cuBLAS and cuDNN, which the first arm would be charged with
        before = torch.cuda.memory_allocated()
        output = model(images)
        torch.cuda.synchronize()
        after = torch.cuda.memory_allocated()
        del output
        return after - before
    model_storages = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    storages: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(images)
    return sum(tensor.untyped_storage().nbytes() for address, tensor in storages.items() if address not in model_storages)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON file")
    parser.add_argument("--batch", type=int, default=0, help="images; by default 64 on a GPU, 2 on a CPU")
    arguments, device = parser.parse_args(), best_device()
    batch = arguments.batch or (64 if device.type == "cuda" else 2)
    megabytes = []
    for settings in ARMS.values():
        model = PCB(num_ids=751, deep_supervision=False, alpha=0.5, **settings)  # type: ignore[arg-type]
        model.to(device=device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        images = torch.randn(batch, 3, 384, 128, device=device).to(memory_format=torch.channels_last)
        megabytes.append(kept_bytes(model, images) / batch / MEGABYTE)
    paper = paper_values("MB")
    rows = [
        {"model": name, "megabytes": ours, "of PCB": ours / megabytes[0], "paper, of PCB": paper[name] / paper["PCB"]}
        for name, ours in zip(ARMS, megabytes, strict=True)
    ]
    text = [[value if isinstance(value, str) else f"{value:.3f}" for value in row.values()] for row in rows]
    print_table(f"kept for the backward, MB per image, fp32, {device.type}", list(rows[0]), text)
    print(f"results: {write_results('memory', rows, arguments.results)}")


if __name__ == "__main__":
    main()
