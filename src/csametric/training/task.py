"""What the loop needs to know of a job; `descriptors` and `reid` are the two there are."""

from typing import Any, Protocol

from torch import Tensor, nn, optim

from csametric.training.attention_log import Look
from csametric.training.machine import Machine


class Task(Protocol):
    """A job with its data open.

    steps: of the whole run. evaluate_every: steps between points of the curve. unit: what a batch holds, in the plural.
    """

    steps: int
    evaluate_every: int
    unit: str

    def describe_data(self) -> dict[str, Any]:
        """What was read, ready for JSON; a run that goes on must find the same again."""

    def announce(self) -> str:
        """What was read, in words."""

    def check_files(self) -> None:
        """Raises `UserError` where a file cannot be read; called once, before the first step."""

    def build_model(self) -> nn.Module:
        """The model before the first step; its random numbers are drawn from torch's generator."""

    def build_optimizer(self, model: nn.Module) -> optim.Optimizer:
        """Its parameter groups keep their first learning rate as "initial_lr"."""

    def begin_step(self, model: nn.Module, optimizer: optim.Optimizer, step: int) -> None:
        """Set learning rates and phases: a pure function of the step."""

    def batch(self, step: int) -> Any:
        """The share of this process of a step's batch: a pure function of the step, called from threads ahead of its use."""

    def loss(self, network: nn.Module, batch: Any, machine: Machine) -> Tensor:
        """The loss of a batch, a scalar in fp32."""

    def name_batch(self, batch: Any) -> str:
        """What is in a batch, in words, for the message about a diverged run."""

    def watch(self, model: nn.Module) -> dict[str, float]:
        """Numbers to log at every step."""

    def curve(self, model: nn.Module, machine: Machine) -> dict[str, float]:
        """Numbers to log now and then; called in every process."""

    def look(self, model: nn.Module, machine: Machine) -> Look:
        """What attention looks at in a few images, the same each time; called in the main process."""

    def score(self, model: nn.Module, machine: Machine) -> dict[str, Any]:
        """What the finished run writes to scores.json, its arrays to scores.npz; called in every process."""
