"""A program for two processes: a network with the layer under FSDP2 has the gradients of one process."""

import copy

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard

from csametric import CompressedSelfAttention


def average(alpha):
    dist.all_reduce(alpha.grad)
    alpha.grad /= dist.get_world_size()


def main():
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), CompressedSelfAttention(8, maps=4, alpha=0.5, norm=True).eval(), nn.Conv2d(8, 8, 3)
    )
    whole = copy.deepcopy(model)

    alphas = {parameter for parameter in model.parameters() if parameter.dim() == 0}
    fully_shard(model, ignored_params=alphas)
    for alpha in alphas:
        alpha.register_post_accumulate_grad_hook(average)

    x = torch.randn(4, 3, 8, 6, generator=torch.Generator().manual_seed(1))
    first = 2 * dist.get_rank()
    model(x[first : first + 2]).square().mean().backward()
    whole(x).square().mean().backward()
    for (name, sharded), expected in zip(model.named_parameters(), whole.parameters(), strict=True):
        gradient = sharded.grad if sharded.dim() == 0 else sharded.grad.full_tensor()
        torch.testing.assert_close(gradient, expected.grad, msg=lambda message, name=name: f"{name}: {message}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
