"""A loss over gathered descriptors under torchrun; the main process writes loss and weight gradient to FILE."""

import sys

import torch
from accelerate import Accelerator
from torch import nn

from csametric.losses.hardnet import hardnet_loss
from csametric.models.l2net import unit_length
from csametric.training.machine import gather_with_gradients

PAIRS = 12


def problem() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    network = nn.Linear(6, 8)
    with torch.no_grad():
        network.weight.copy_(torch.randn(8, 6, generator=generator))
        network.bias.zero_()
    anchors = torch.randn(PAIRS, 6, generator=generator)
    return network, anchors, anchors + 0.3 * torch.randn(PAIRS, 6, generator=generator)


if __name__ == "__main__":
    accelerator = Accelerator(cpu=True)
    network, anchors, positives = problem()
    share = slice(accelerator.process_index * PAIRS // accelerator.num_processes, None)
    mine = [each[share][: PAIRS // accelerator.num_processes] for each in (anchors, positives)]
    prepared = accelerator.prepare(network)
    described = unit_length(prepared(torch.cat(mine)))
    loss = hardnet_loss(*(gather_with_gradients(half) for half in described.chunk(2)))
    accelerator.backward(loss)
    if accelerator.is_main_process:
        torch.save({"loss": loss.detach(), "gradient": network.weight.grad}, sys.argv[1])
