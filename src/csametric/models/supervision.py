"""Deep supervision: a small classifier on the map of a stage, used in training only."""

from torch import Tensor, nn


class SupervisionBranch(nn.Module):
    """Global average pooling and fully connected layers: (N, C, H, W) -> (N, ids).

    The paper says only "fully connected layers"; these are Linear(C, hidden), BatchNorm, ReLU, dropout, Linear(hidden, ids).

    Args:
        channels: C.
        num_ids: identities to classify.
        hidden: width of the hidden layer.
        dropout: the dropout probability.
    """

    def __init__(self, channels: int, num_ids: int, hidden: int = 256, dropout: float = 0.5) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(channels, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, num_ids),
        )

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Classify the map of a stage, (N, C, H, W) -> logits (N, ids)."""
        return self.layers(x_NCHW.mean((2, 3)))
