"""The interface between the training loop and what is trained; `DescriptorTask` and `ReidTask` implement it."""

from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn, optim

from csametric.training.attention_log import AttentionSnapshot
from csametric.training.machine import Machine


class Task(Protocol):
    """What the loop needs to know of an experiment, with its data open."""

    steps: int  # of the whole run
    evaluate_every: int  # steps between interim evaluations; 0 for none before the last step
    unit: str  # what a batch holds, in the plural

    def describe_data(self) -> dict[str, Any]:
        """Describe the data, ready for JSON; a resumed run must find the same description."""

    def announcement(self) -> str:
        """Describe the data in words, with warnings about the settings."""

    def check_files(self) -> None:
        """Check that all files can be read; called once, before the first step.

        Raises:
            UserError: a file cannot be read.
        """

    def build_model(self) -> nn.Module:
        """Build the model as it is before the first step; random numbers come from torch's global generator."""

    def build_optimizer(self, model: nn.Module) -> optim.Optimizer:
        """Build the optimizer; its parameter groups keep their first learning rate as "initial_lr"."""

    def begin_step(self, model: nn.Module, optimizer: optim.Optimizer, step: int) -> None:
        """Set learning rates and training phases, as a pure function of the step."""

    def batch(self, step: int) -> Any:
        """Load this process's share of a batch, as a pure function of the step; called in threads, ahead of its use."""

    def loss(self, network: nn.Module, batch: Any, machine: Machine) -> Tensor:
        """Compute the loss of a batch, a scalar in fp32."""

    def describe_batch(self, batch: Any) -> str:
        """Describe a batch in words, for the error message of a diverged run."""

    def step_metrics(self, model: nn.Module) -> dict[str, float]:
        """Return the metrics to log at every step, beside the loss."""

    def interim_metrics(self, model: nn.Module, machine: Machine) -> dict[str, float]:
        """Evaluate the model in the middle of the run; called in every process, every `evaluate_every` steps."""

    def snapshot_attention(self, model: nn.Module, machine: Machine) -> AttentionSnapshot:
        """Record the attention on a few images, always the same; called in the main process only."""

    def score(self, model: nn.Module, machine: Machine) -> dict[str, Any]:
        """Evaluate the trained model for scores.json, arrays for scores.npz; called in every process."""

    def fit_embedding(self, model: nn.Module, machine: Machine, folder: Path) -> None:
        """Fit what goes with the weights of a trained model and write it to the run; called in every process before `score`."""
