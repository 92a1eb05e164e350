"""Compute a loss of gathered descriptors under torchrun; the main process writes the loss and a gradient to FILE."""

import sys

import torch
from accelerate import Accelerator
from torch import nn

from csametric.losses.hardnet import hardnet_loss
from csametric.models.l2net import unit_length
from csametric.training.machine import gather_with_gradients

PAIRS = 12


def example_pairs() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    network = nn.Linear(6, 8)
    with torch.no_grad():
        network.weight.copy_(torch.randn(8, 6, generator=generator))
        network.bias.zero_()
    anchors = torch.randn(PAIRS, 6, generator=generator)
    return network, anchors, anchors + 0.3 * torch.randn(PAIRS, 6, generator=generator)


if __name__ == "__main__":
    accelerator = Accelerator(cpu=True)
    network, anchors, positives = example_pairs()
    start = accelerator.process_index * PAIRS // accelerator.num_processes
    share = slice(start, start + PAIRS // accelerator.num_processes)
    prepared = accelerator.prepare(network)
    descriptors = unit_length(prepared(torch.cat([anchors[share], positives[share]])))
    loss = hardnet_loss(*(gather_with_gradients(half) for half in descriptors.chunk(2)))
    accelerator.backward(loss)
    if accelerator.is_main_process:
        torch.save({"loss": loss.detach(), "gradient": network.weight.grad}, sys.argv[1])
